"""What a cell showed before it was run again is closed: nobody could do that any more where it had no name."""

from __future__ import annotations

import threading
import weakref
from typing import Protocol


class Closable(Protocol):
    """What can be closed, and held weakly."""

    def close(self) -> None:
        """End it."""


# Cell of a notebook → (its run, what this run showed).
_IN_CELLS: dict[str, tuple[int, weakref.WeakSet[Closable]]] = {}
_CELLS_LOCK = threading.Lock()


def replace_in_cell(shown_now: Closable) -> None:
    """Close what an earlier run of the current cell showed. Front ends that do not name their cells are let be."""
    from ipykernel.kernelapp import IPKernelApp

    if not IPKernelApp.initialized():
        return
    kernel = IPKernelApp.instance().kernel
    cell = kernel.get_parent("shell").get("metadata", {}).get("cellId")
    if not isinstance(cell, str):
        return
    run = kernel.shell.execution_count
    with _CELLS_LOCK:
        before, shown = _IN_CELLS.get(cell, (run, weakref.WeakSet()))
        if before != run:
            for old in list(shown - {shown_now}):
                old.close()
            shown = weakref.WeakSet()
        shown.add(shown_now)
        _IN_CELLS[cell] = run, shown
