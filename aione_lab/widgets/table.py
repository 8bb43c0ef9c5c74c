"""`LiveTable`: rows by symbol that change many times a second; only what changed is sent, numbers in binary."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anywidget
import numpy as np
import traitlets

from aione_lab.errors import InputError
from aione_lab.widgets.cells import NUMBERS, TEXTS, Cells

HERE = Path(__file__).parent
MOST_ROWS = 65_535  # a row's number is sent in two bytes


class Patch(NamedTuple):
    """What changed: ``content`` goes as JSON (texts), ``buffers`` as bytes (numbers and the rows that were heard of).

    Buffers of a patch: rows uint16, columns uint8, values float64 of the changed numbers; rows uint16 heard of. Those
    of a whole table: values float64 (rows × numbers); seconds float32 since each row was heard of.
    """

    content: dict[str, Any]
    buffers: list[bytes]


class LiveTable(anywidget.AnyWidget):
    """A table of symbols with the columns of ``cells``, sorted, filtered and selected from in the browser.

    ``selected`` is the symbol that was chosen last, ``dark`` whether the page is dark (the browser says both). Rows of
    which nothing was heard for ``stale_after`` seconds are dimmed. ``seen`` is the time, by ``clock``, at which a page
    last said that it is there. Whatever a text holds, it is shown as text.
    """

    _esm = HERE / "table.js"
    _css = HERE / "table.css"

    selected = traitlets.Unicode("").tag(sync=True)
    dark = traitlets.Bool(False).tag(sync=True)
    stale_after = traitlets.Float(90.0).tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)
    problem = traitlets.Unicode("").tag(sync=True)

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, **traits: Any) -> None:
        super().__init__(**traits)
        self._clock = clock
        self._cells: dict[str, Cells] = {}
        self._place: dict[str, int] = {}
        self._heard: dict[str, float] = {}
        self._number = 0
        self.seen = clock()
        self.on_msg(self._answer)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols of the rows, in the order they came."""
        return tuple(self._cells)

    def stale(self) -> list[str]:
        """Symbols of which nothing was heard for longer than ``stale_after``."""
        limit = self._clock() - self.stale_after
        return [symbol for symbol, heard in self._heard.items() if heard < limit]

    def show(self, rows: Mapping[str, Cells], *, whole: bool = False) -> Patch | None:
        """Take over ``rows`` by symbol, which are all there are if ``whole``; send what changed, and return it.

        A new or a missing symbol sends the table anew. InputError for more rows than can be numbered, or a row that
        lacks a cell.
        """
        for symbol, cells in rows.items():
            if len(cells.numbers) != len(NUMBERS) or len(cells.texts) != len(TEXTS):
                raise InputError.of(f"rows[{symbol!r}]", cells, "must have every cell of a row")
        gone = self._cells.keys() - rows.keys() if whole else ()
        if len(self._cells.keys() | rows.keys()) > MOST_ROWS:
            raise InputError.of("rows", len(rows), f"must be at most {MOST_ROWS:,}")
        now = self._clock()
        if gone or rows.keys() - self._cells.keys():
            for symbol in gone:
                del self._cells[symbol], self._heard[symbol]
            for symbol, cells in rows.items():
                if symbol not in self._cells or not _same(cells, self._cells[symbol]):
                    self._heard[symbol] = now
            self._cells.update(rows)
            self._place = {symbol: place for place, symbol in enumerate(self._cells)}
            return self._sent(self.whole())
        # what a whole state repeats is no news of the row
        heard = [symbol for symbol, cells in rows.items() if not whole or not _same(cells, self._cells[symbol])]
        if not heard:
            return None
        self._heard.update(dict.fromkeys(heard, now))
        return self._sent(self._patch({symbol: rows[symbol] for symbol in heard}))

    def whole(self) -> Patch:
        """The table as it is now, for a page that has just begun to show it."""
        now = self._clock()
        values = np.array([cells.numbers for cells in self._cells.values()], dtype="<f8")
        ages = np.array([now - heard for heard in self._heard_in_order()], dtype="<f4")
        content = {
            "kind": "whole",
            "seq": self._number,
            "symbols": list(self._cells),
            "texts": [cells.texts for cells in self._cells.values()],
        }
        return Patch(content, [values.tobytes(), ages.tobytes()])

    def _heard_in_order(self) -> list[float]:
        return [self._heard[symbol] for symbol in self._cells]

    def _patch(self, rows: Mapping[str, Cells]) -> Patch:
        places: list[int] = []
        columns: list[int] = []
        values: list[float] = []
        texts: list[tuple[int, int, str]] = []
        for symbol, new in rows.items():
            old, place = self._cells[symbol], self._place[symbol]
            for column, (before, value) in enumerate(zip(old.numbers, new.numbers, strict=True)):
                if value != before and (value == value or before == before):  # NaN that stays NaN is no change
                    places.append(place)
                    columns.append(column)
                    values.append(value)
            if new.texts != old.texts:
                changed = zip(old.texts, new.texts, strict=True)
                texts += [(place, column, text) for column, (before, text) in enumerate(changed) if text != before]
            self._cells[symbol] = new
        self._number += 1
        heard = np.array([self._place[symbol] for symbol in rows], dtype="<u2")
        return Patch(
            {"kind": "patch", "seq": self._number, "texts": texts},
            [
                np.array(places, dtype="<u2").tobytes(),
                np.array(columns, dtype="u1").tobytes(),
                np.array(values, dtype="<f8").tobytes(),
                heard.tobytes(),
            ],
        )

    def _sent(self, patch: Patch) -> Patch:
        self.send(patch.content, patch.buffers)
        return patch

    def _answer(self, _: Any, content: Any, __: Sequence[Any]) -> None:
        """A page asks for the whole table: it has just come, or missed a patch. Or it says that it is still there."""
        self.seen = self._clock()
        if isinstance(content, Mapping) and content.get("kind") == "ready":
            self._sent(self.whole())


def _same(one: Cells, other: Cells) -> bool:
    return one.texts == other.texts and all(
        a == b or (a != a and b != b) for a, b in zip(one.numbers, other.numbers, strict=True)
    )
