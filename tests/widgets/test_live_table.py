"""The live table: patches rebuild the same table, only changes are sent, whatever a row holds."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from aione_lab.errors import InputError
from aione_lab.widgets import LiveTable
from aione_lab.widgets.cells import LONGEST, NUMBERS, TEXTS, Cells, cells_of
from aione_lab.widgets.table import Patch

NAN = math.nan


class Page:
    """What table.js does with messages, in Python."""

    def __init__(self) -> None:
        self.rows: dict[str, Cells] = {}
        self.seq = -1
        self.heard: list[str] = []

    def take(self, patch: Patch) -> None:
        content, buffers = patch
        if content["kind"] == "whole":
            values = np.frombuffer(buffers[0], "<f8").reshape(-1, len(NUMBERS))
            texts = content["texts"]
            self.rows = {
                symbol: Cells(tuple(values[i].tolist()), tuple(texts[i])) for i, symbol in enumerate(content["symbols"])
            }
            assert len(buffers[1]) == 4 * len(self.rows)
        else:
            assert content["seq"] == self.seq + 1
            symbols = list(self.rows)
            places, columns = np.frombuffer(buffers[0], "<u2"), np.frombuffer(buffers[1], "u1")
            for place, column, value in zip(places, columns, np.frombuffer(buffers[2], "<f8"), strict=True):
                numbers = list(self.rows[symbols[place]].numbers)
                numbers[column] = float(value)
                self.rows[symbols[place]] = self.rows[symbols[place]]._replace(numbers=tuple(numbers))
            for place, column, text in content["texts"]:
                texts = list(self.rows[symbols[place]].texts)
                texts[column] = text
                self.rows[symbols[place]] = self.rows[symbols[place]]._replace(texts=tuple(texts))
            self.heard = [symbols[place] for place in np.frombuffer(buffers[3], "<u2")]
        self.seq = content["seq"]


def row(number: float = 1.0, text: str = "") -> Cells:
    return Cells((number,) * len(NUMBERS), (text,) * len(TEXTS))


def equal(one: dict[str, Cells], other: dict[str, Cells]) -> bool:
    return repr(one) == repr(other)  # NaN equals NaN


def test_random_patches_rebuild_the_table() -> None:
    random.seed(7)
    table, page = LiveTable(), Page()
    truth = {f"S{i}USDT": row(float(i)) for i in range(40)}
    page.take(table.show(truth, whole=True))
    for _ in range(300):
        changes = {}
        for symbol in random.sample(list(truth), random.randint(1, 12)):
            numbers = [random.choice([v, NAN, 0.0, random.random() * 1e6]) for v in truth[symbol].numbers]
            texts = [random.choice([t, "", "ALERT", "Ціна ↑ \N{SNOWMAN}"]) for t in truth[symbol].texts]
            changes[symbol] = Cells(tuple(numbers), tuple(texts))
        page.take(table.show(changes))
        truth |= changes
        assert equal(page.rows, truth) and page.heard == list(changes)
    late = Page()
    late.take(table.whole())
    assert equal(late.rows, truth) and late.seq == page.seq


def test_only_changed_cells_are_sent() -> None:
    table = LiveTable()
    table.show({"A": row(1.0, "x"), "B": row(2.0, "y")}, whole=True)
    patch = table.show({"B": row(2.0, "y")._replace(numbers=(2.0, 5.0) + (2.0,) * 5)})
    assert patch.content["texts"] == [] and [len(part) for part in patch.buffers] == [2, 1, 8, 2]
    nothing = table.show({"B": table._cells["B"]})
    assert [len(part) for part in nothing.buffers] == [0, 0, 0, 2]  # heard of, unchanged
    unknown = row(NAN)
    table.show({"A": unknown})
    assert len(table.show({"A": row(NAN)}).buffers[2]) == 0  # NaN that stays NaN


def test_rows_come_and_go() -> None:
    table, page = LiveTable(), Page()
    page.take(table.show({"A": row(), "B": row()}, whole=True))
    page.take(table.show({"C": row(3.0)}))
    assert list(page.rows) == ["A", "B", "C"]
    page.take(table.show({"C": row(4.0), "A": row()}, whole=True))
    assert list(page.rows) == ["A", "C"] and page.rows["C"].numbers[0] == 4.0 and table.symbols == ("A", "C")


def test_what_is_stale() -> None:
    now = [0.0]
    table = LiveTable(clock=lambda: now[0], stale_after=90.0)
    table.show({"A": row(), "B": row()}, whole=True)
    now[0] = 60.0
    table.show({"A": row()})
    now[0] = 100.0
    assert table.stale() == ["B"]
    assert np.frombuffer(table.whole().buffers[1], "<f4").tolist() == [40.0, 100.0]
    assert table.show({"A": row(), "B": row()}, whole=True) is None  # a repeated state is no news
    assert table.stale() == ["B"]


def test_a_page_that_has_come_gets_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    table, sent = LiveTable(), []
    table.show({"A": row()})
    monkeypatch.setattr(table, "send", lambda content, buffers=None: sent.append((content, buffers)))
    for message in ({"kind": "ready"}, {"kind": "nothing"}, "ready", None, 5, {"kind": ["ready"]}):
        table._answer(table, message, [])
    assert [content["symbols"] for content, _ in sent] == [["A"]]


def test_rows_that_cannot_be_shown_are_refused_whole() -> None:
    table = LiveTable()
    with pytest.raises(InputError, match="every cell"):
        table.show({"A": row(), "B": Cells((1.0,), ())})
    assert table.symbols == ()
    with pytest.raises(InputError, match="at most 65,535"):
        table.show(dict.fromkeys(map(str, range(65_536)), row()))
    assert table.symbols == ()


@pytest.mark.parametrize(
    "asset",
    [
        {},
        {"stats": None, "trigger_reasons": None},
        {"stats": {"current_price": 10**400, "atr": "x", "rsi": True, "volume": math.inf}},
        {"confidence": "0.5", "trigger_reasons": {"a": 1}, "signal": ["ALERT"], "tp": {}, "calib_status": 5},
        {"signal": "x" * 10_000, "trigger_reasons": ["<script>alert(1)</script>\n" * 99]},
    ],
    ids=["empty", "none", "numbers", "kinds", "texts"],
)
def test_any_state_makes_a_row(asset: dict) -> None:
    cells = cells_of(asset)
    assert len(cells.numbers) == len(NUMBERS) and len(cells.texts) == len(TEXTS)
    assert all(type(value) is float and not math.isinf(value) for value in cells.numbers)
    assert all(type(text) is str and len(text) <= LONGEST and "\n" not in text for text in cells.texts)
    LiveTable().show({"A": cells})


def test_a_state_as_a_row() -> None:
    stats = {"current_price": 200.0, "atr": 0.5, "volume": 12, "rsi": 25.5}
    asset = {"stats": stats, "confidence": 0.8, "tp": 203.0, "sl": None, "signal": "ALERT", "recommendation": "BUY"}
    cells = cells_of({**asset, "trigger_reasons": ("RSI_OVERSOLD", "NEAR_SUPPORT"), "calib_status": "queued_urgent"})
    assert cells.numbers[:6] == (0.8, 200.0, 0.25, 12.0, 25.5, 203.0) and math.isnan(cells.numbers[6])
    assert cells.texts == ("ALERT", "BUY", "", "queued_urgent", "RSI_OVERSOLD, NEAR_SUPPORT")
