"""One way to tell how far a long import or download is: a callback, or a bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

ProgressCallback = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)``: what is being worked on now, and parts done of all."""


@contextmanager
def progress_reporter(progress: ProgressCallback | bool | None, title: str) -> Iterator[ProgressCallback]:
    """Yield a callback that is always safe to call.

    A callable ``progress`` is handed through, ``False`` keeps quiet, and ``None`` or ``True`` draw
    a bar on standard error when that is a terminal (so that it never mixes with ``--json`` output).
    """
    if callable(progress):
        yield progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if progress is False or not console.is_terminal:
        yield lambda what, done, total: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, what="")
        yield lambda what, done, total: bar.update(task, completed=done, total=total, what=what)
