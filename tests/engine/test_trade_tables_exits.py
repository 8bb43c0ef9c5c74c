"""Hand-written candle tables for limit entries, ladders, moving stops, sizing, leverage and finer bars.

Every number expected here was worked out on paper. Unless a table says otherwise: 1,000 in cash, a long ordered at 100
(ATR 2, entry zone 96 to 100, stop 95, targets 110, 115, 120), no costs, bars (open, high, low, close[, funding rate]).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from engine_runs import MONDAY

from aione_lab.engine.params import rules_record
from aione_lab.engine.records import ASSESSMENT, BAR, EXITS, RECOMMENDATIONS, STAGE_STATE, TRADE
from aione_lab.engine.stage3 import equity, stage3_decide, stage3_follow
from aione_lab.settings import Costs, Settings
from aione_lab.units import HOUR_MS, MINUTE_MS

NAN = math.nan
LONG, SHORT = 1, -1
NOON = MONDAY + 12 * HOUR_MS
CALM = (100, 101, 99, 100)
LIMIT = {"entry": "limit", "entry_depth": 0.5, "entry_valid_bars": 3}  # at 98
HALVES = {"target_shares": (0.5, 0.5)}
THIRDS = {"target_shares": (0.4, 0.4, 0.2)}
SHORTED = {"side": SHORT, "stop": 105, "targets": (90, 85, 80), "zone": (100, 104)}


class Table(NamedTuple):
    name: str
    bars: list[tuple]
    fills: list[tuple]  # (bar, reason, price, quantity) of the exits; none: no trade is closed
    pnl: float = NAN
    more: dict[str, Any] = {}  # of the trade
    entry: tuple[int, float, float] = (0, 100, 10)  # (bar, price, quantity)
    settings: dict[str, Any] = {}
    costs: dict[str, float] = {}
    side: int = LONG
    stop: float = 95
    targets: tuple[float, float, float] = (110, 115, 120)
    zone: tuple[float, float] = (96, 100)
    cash: float = 1000
    inner: dict[int, list[tuple]] = {}
    opposite_at: int | None = None  # an opposite signal comes at the close of this bar


TABLES = [
    # ---- limit entries: zone 96 to 100, half way is 98
    Table("limit filled when traded through", [CALM, (100, 100, 97, 99), (99, 111, 98, 110)],
          [(2, "target", 110, 1000 / 98)], 1000 / 98 * 12, entry=(1, 98, 1000 / 98), settings=LIMIT),
    Table("touching the limit is not enough", [CALM, (100, 100, 98, 99), CALM, (100, 112, 90, 95)], [], settings=LIMIT),
    Table("the limit lapses after three bars", [CALM, CALM, CALM, (97, 112, 90, 95)], [], settings=LIMIT),
    Table("the limit is still there in the third bar", [CALM, CALM, (99, 99, 97, 99), (99, 111, 99, 110)],
          [(3, "target", 110, 1000 / 98)], 1000 / 98 * 12, entry=(2, 98, 1000 / 98), settings=LIMIT),
    # bought at the open of 97, better than 98
    Table("the first bar opens beyond the limit: taken there", [(97, 99, 96, 98), (98, 111, 97, 110)],
          [(1, "target", 110, 1000 / 97)], 1000 / 97 * 13, entry=(0, 97, 1000 / 97), settings=LIMIT),
    # 97 and 1 % is 97.97, still below 98; at 98 and 1 % the limit holds
    Table("taken at the open with slippage, never beyond the limit", [(98, 99, 97, 98), (98, 111, 97, 110)],
          [(1, "target", 110, 10)], 120, entry=(0, 98, 10), cash=980, settings=LIMIT, costs={"slippage_bps": 100}),
    # a resting order is hit at its own price although the bar opens lower; then the open is below the stop
    Table("a later gap beyond limit and stop", [CALM, (94, 96, 93, 95)],
          [(1, "stop", 94, 10)], -40, {"bars": 0}, entry=(1, 98, 10), cash=980, settings=LIMIT),
    Table("a later gap beyond the limit alone", [CALM, (97, 99, 96, 98), (98, 111, 97, 110)],
          [(2, "target", 110, 10)], 120, entry=(1, 98, 10), cash=980, settings=LIMIT),
    Table("stopped in the bar of the fill", [CALM, (100, 101, 94, 96)],
          [(1, "stop", 95, 10)], -30, {"bars": 1, "mae": 95 / 98 - 1, "mfe": 0}, entry=(1, 98, 10), cash=980,
          settings=LIMIT),
    # 112 may have come before the fill: it does not count, 99 does
    Table("the high of the bar of the fill is not a target", [CALM, (100, 112, 97, 99), (99, 100, 98, 99)], [],
          settings=LIMIT),
    Table("its close is", [CALM, (100, 112, 97, 111)],
          [(1, "target", 110, 10)], 120, {"mfe": 110 / 98 - 1}, entry=(1, 98, 10), cash=980, settings=LIMIT),
    # in 980 × 0.02 % = 0.196, out at 95: 950 × 0.1 % = 0.95
    Table("a limit pays the maker's fee", [CALM, (100, 101, 94, 96)],
          [(1, "stop", 95, 10)], -30 - 0.196 - 0.95, {"entry_fee": 0.196}, entry=(1, 98, 10), cash=980, settings=LIMIT,
          costs={"fee": 0.001, "maker_fee": 0.0002}),
    Table("depth 0 is the price itself", [(100, 101, 99.5, 100.5), (100, 111, 99, 110)],
          [(1, "target", 110, 10)], 100, settings=LIMIT | {"entry_depth": 0.0}),
    Table("depth 1 is the deep end", [CALM, (100, 100, 95.5, 97), (97, 111, 96, 110)],
          [(2, "target", 110, 10)], 140, entry=(1, 96, 10), cash=960, settings=LIMIT | {"entry_depth": 1.0}),
    # 98 on a grid of 5 is rounded up, to the dearer 100
    Table("a limit on the tick, rounded to the dearer", [(101, 102, 99, 101), (101, 111, 100, 110)],
          [(1, "target", 110, 10)], 100, settings=LIMIT, costs={"tick_size": 5}),
    Table("a short's limit lies above", [CALM, (100, 103, 99, 101), (101, 102, 89, 90)],
          [(2, "target", 90, 10)], 120, entry=(1, 102, 10), cash=1020, settings=LIMIT, **SHORTED),
    Table("a short's limit: the low of the bar of the fill is not a target", [CALM, (100, 103, 88, 101)], [],
          settings=LIMIT, **SHORTED),
    # ---- ladders
    Table("two halves", [CALM, (100, 111, 99, 110), (110, 116, 109, 115)],
          [(1, "target", 110, 5), (2, "target", 115, 5)], 125, {"exit_price": 112.5, "bars": 3}, settings=HALVES),
    Table("one half, then the stop", [CALM, (100, 111, 99, 110), (110, 110, 94, 95)],
          [(1, "target", 110, 5), (2, "stop", 95, 5)], 25, {"exit_price": 102.5, "r_multiple": 0.5}, settings=HALVES),
    Table("both halves in one bar", [CALM, (100, 116, 99, 115)],
          [(1, "target", 110, 5), (1, "target", 115, 5)], 125, settings=HALVES),
    Table("three targets", [CALM, (100, 111, 99, 110), (110, 116, 109, 115), (115, 121, 114, 120)],
          [(1, "target", 110, 4), (2, "target", 115, 4), (3, "target", 120, 2)], 140, settings=THIRDS),
    Table("an open beyond two targets", [CALM, (117, 118, 116, 117), (117, 121, 116, 120)],
          [(1, "target", 117, 4), (1, "target", 117, 4), (2, "target", 120, 2)], 176, settings=THIRDS),
    # what lies beyond the shares runs until the stop
    Table("a runner", [CALM, (100, 111, 99, 110), (110, 150, 109, 140), (140, 140, 94, 95)],
          [(1, "target", 110, 5), (3, "stop", 95, 5)], 25, {"mfe": 0.5}, settings={"target_shares": (0.5,)}),
    Table("no target at all", [CALM, (100, 200, 99, 150), (150, 150, 94, 95)],
          [(2, "stop", 95, 10)], -50, settings={"target_shares": ()}),
    Table("a share without its target joins the one before", [CALM, (100, 111, 99, 110)],
          [(1, "target", 110, 10)], 100, targets=(110, NAN, NAN), settings=THIRDS),
    Table("of three shares two targets", [CALM, (100, 111, 99, 110), (110, 116, 109, 115)],
          [(1, "target", 110, 4), (2, "target", 115, 6)], 130, targets=(110, 115, NAN), settings=THIRDS),
    # 10 units in lots of 3: 9 entered; half is 4.5, a lot 3, the rest 6
    Table("lots of a ladder", [CALM, (100, 111, 99, 110), (110, 116, 109, 115)],
          [(1, "target", 110, 3), (2, "target", 115, 6)], 120, entry=(0, 100, 9), settings=HALVES,
          costs={"lot_size": 3}),
    # 40 % of 3 is 1.2, less than a lot: the first two targets close nothing, the last closes all
    Table("a share of less than a lot closes nothing", [CALM, (100, 117, 99, 116), (116, 121, 115, 120)],
          [(2, "target", 120, 3)], 60, entry=(0, 100, 3), cash=500, settings=THIRDS, costs={"lot_size": 3}),
    # fees: in 1; half out at 110: 0.55 × 0.2; half at 95, taker: 0.475
    Table("fees of each fill", [CALM, (100, 111, 99, 110), (110, 110, 94, 95)],
          [(1, "target", 110, 5), (2, "stop", 95, 5)], 25 - 1 - 0.11 - 0.475, settings=HALVES,
          costs={"fee": 0.001, "maker_fee": 0.0002}),
    # funding 0.1 % of 5 units at 110
    Table("funding of what is left", [CALM, (100, 111, 99, 110), (110, 112, 109, 111, 0.001), (111, 116, 110, 115)],
          [(1, "target", 110, 5), (3, "target", 115, 5)], 125 - 0.55, {"funding": -0.55}, settings=HALVES),
    Table("stop and the first target in one bar: all at the stop", [CALM, (100, 112, 94, 100)],
          [(1, "stop", 95, 10)], -50, {"ambiguous": 1, "pnl_other": 25}, settings=HALVES),
    Table("the same, target first: the rest at the stop", [CALM, (100, 112, 94, 100)],
          [(1, "target", 110, 5), (1, "stop", 95, 5)], 25, {"ambiguous": 1, "pnl_other": -50},
          settings=HALVES | {"both_touched": "target"}),
    Table("the second target and the stop", [CALM, (100, 111, 99, 110), (110, 116, 94, 100)],
          [(1, "target", 110, 5), (2, "stop", 95, 5)], 25, {"ambiguous": 1, "pnl_other": 125}, settings=HALVES),
    Table("a short ladder", [CALM, (100, 101, 89, 90), (90, 91, 84, 85)],
          [(1, "target", 90, 5), (2, "target", 85, 5)], 125, settings=HALVES, **SHORTED),
    Table("time-out of what is left", [CALM, (100, 111, 99, 110), (108, 109, 107, 108)],
          [(1, "target", 110, 5), (2, "time_out", 108, 5)], 90, settings=HALVES | {"max_holding_minutes": 2}),
    # ---- break-even: 1 R is 5
    Table("break-even after 1 R", [CALM, (100, 105, 99, 104), (104, 104, 99, 100)],
          [(2, "trailing", 100, 10)], 0, {"last_stop": 100, "stop": 95, "r_multiple": 0}, settings={"break_even": 1.0}),
    Table("not yet 1 R", [CALM, (100, 104.9, 99, 104), (104, 104, 94, 95)],
          [(2, "stop", 95, 10)], -50, settings={"break_even": 1.0}),
    Table("the stop moves at the close, not inside the bar", [CALM, (100, 105, 96, 104), (104, 110, 101, 110)],
          [(2, "target", 110, 10)], 100, {"last_stop": 100}, settings={"break_even": 1.0}),
    Table("break-even of a short", [CALM, (100, 101, 95, 96), (96, 101, 95, 100)],
          [(2, "trailing", 100, 10)], 0, settings={"break_even": 1.0}, **SHORTED),
    # ---- trailing stop: 1.5 ATR is 3
    Table("trailing by 3", [CALM, (100, 106, 99, 105), (105, 109, 104, 108), (108, 108, 105, 106)],
          [(3, "trailing", 106, 10)], 60, {"last_stop": 106}, settings={"trailing_stop": 1.5}),
    Table("it trails from the entry bar on", [(100, 101, 99, 100), (100, 100, 97, 98)],
          [(1, "trailing", 98, 10)], -20, {"r_multiple": -0.4}, settings={"trailing_stop": 1.5}),
    Table("it never falls back", [CALM, (100, 108, 99, 107), (107, 107, 105.5, 106), (106, 107, 104, 105)],
          [(3, "trailing", 105, 10)], 50, settings={"trailing_stop": 1.5}),
    Table("a gap through the trailing stop", [CALM, (100, 108, 99, 107), (103, 104, 102, 103)],
          [(2, "trailing", 103, 10)], 30, settings={"trailing_stop": 1.5}),
    Table("a wide trail leaves the stop", [CALM, (100, 104, 99, 103), (103, 103, 94, 95)],
          [(2, "stop", 95, 10)], -50, settings={"trailing_stop": 8.0}),
    # 106.3 − 3 = 103.3 on a tick of 0.5: 103
    Table("trailing on the tick, away from the price", [CALM, (100, 106.3, 99, 105), (105, 106, 103, 104)],
          [(2, "trailing", 103, 10)], 30, settings={"trailing_stop": 1.5}, costs={"tick_size": 0.5}),
    Table("trailing of a short", [CALM, (100, 101, 94, 95), (95, 98, 94, 97)],
          [(2, "trailing", 97, 10)], 30, settings={"trailing_stop": 1.5}, **SHORTED),
    Table("ladder with a trailing runner", [CALM, (100, 111, 99, 110), (110, 130, 109, 128), (128, 128, 126, 127)],
          [(1, "target", 110, 5), (3, "trailing", 127, 5)], 185,
          settings={"target_shares": (0.5,), "trailing_stop": 1.5}),
    # ---- opposite signal
    Table("an opposite signal ends it at the next open", [CALM, (101, 103, 100, 102), (103, 104, 90, 91)],
          [(2, "opposite", 103, 10)], 30, {"bars": 2}, settings={"exit_on_opposite": True}, opposite_at=1),
    Table("without the switch it does not", [CALM, (101, 103, 100, 102), (103, 104, 94, 95)],
          [(2, "stop", 95, 10)], -50, opposite_at=1),
    Table("a stop passed at that open comes first", [CALM, (101, 103, 100, 102), (93, 94, 92, 93)],
          [(2, "stop", 93, 10)], -70, settings={"exit_on_opposite": True}, opposite_at=1),
    # ---- size
    # 1 % of 1,000 is 10, the stop is 5 away: 2 units
    Table("fixed risk", [CALM, (100, 100, 94, 95)], [(1, "stop", 95, 2)], -10, {"r_multiple": -1}, entry=(0, 100, 2),
          settings={"sizing": "risk", "risk_fraction": 0.01}),
    Table("fixed risk, no more than the fraction", [CALM, (100, 100, 94, 95)], [(1, "stop", 95, 5)], -25,
          entry=(0, 100, 5), settings={"sizing": "risk", "risk_fraction": 0.5, "position_fraction": 0.5}),
    # sized by the close it was decided at (100), whatever the open
    Table("fixed risk is decided with the order", [(101, 102, 100, 101), (101, 101, 94, 95)], [(1, "stop", 95, 2)], -12,
          entry=(0, 101, 2), settings={"sizing": "risk", "risk_fraction": 0.01}),
    Table("fixed risk of a limit is that of the limit", [CALM, (100, 100, 97, 99), (99, 99, 94, 95)],
          [(2, "stop", 95, 10 / 3)], -10, entry=(1, 98, 10 / 3),
          settings=LIMIT | {"sizing": "risk", "risk_fraction": 0.01}),
    # ---- leverage: margin 1,000, 3 times
    Table("leverage multiplies", [CALM, (100, 111, 99, 110)], [(1, "target", 110, 30)], 300, entry=(0, 100, 30),
          settings={"leverage": 3.0}),
    # 20 times: margin 5 a unit; liquidated at (100 − 5) / (1 − 0.01) = 95.96; all of the margin is lost
    Table("liquidated before the stop", [CALM, (100, 101, 95.9, 97)], [(1, "liquidation", 95, 200)], -1000,
          entry=(0, 100, 200), settings={"leverage": 20.0, "maintenance_margin": 0.01}, stop=94),
    Table("not liquidated a hair above", [CALM, (100, 101, 95.97, 97)], [], settings=
          {"leverage": 20.0, "maintenance_margin": 0.01}, stop=94),
    Table("the stop comes before the liquidation", [CALM, (100, 101, 90, 91)], [(1, "stop", 97, 200)], -600,
          entry=(0, 100, 200), settings={"leverage": 20.0, "maintenance_margin": 0.01}, stop=97),
    Table("a gap beyond both: the margin and no more", [CALM, (80, 81, 79, 80)], [(1, "liquidation", 95, 200)], -1000,
          entry=(0, 100, 200), settings={"leverage": 20.0, "maintenance_margin": 0.01}, stop=97),
    # short: (100 + 5) / 1.01 = 103.96
    Table("a short liquidated", [CALM, (100, 104, 99, 103)], [(1, "liquidation", 105, 200)], -1000,
          entry=(0, 100, 200), settings={"leverage": 20.0, "maintenance_margin": 0.01},
          **SHORTED | {"stop": 106}),
    # funding of 1 % takes 1 of the 5 a unit: liquidated at (100 − 4) / 0.99 = 96.97, and the 4 left are lost
    Table("funding eats the margin", [CALM, (100, 101, 99, 100, 0.01), (100, 101, 96.9, 98)],
          [(2, "liquidation", 96, 200)], -1000, {"funding": -200}, entry=(0, 100, 200),
          settings={"leverage": 20.0, "maintenance_margin": 0.01}, stop=94),
    Table("half a ladder is safe, the rest liquidated", [CALM, (100, 111, 99, 110), (110, 110, 95, 96)],
          [(1, "target", 110, 100), (2, "liquidation", 95, 100)], 500, entry=(0, 100, 200),
          settings=HALVES | {"leverage": 20.0, "maintenance_margin": 0.01}, stop=94),
    Table("liquidation and target in one bar", [CALM, (100, 112, 95, 100)], [(1, "liquidation", 95, 200)], -1000,
          {"ambiguous": 1, "pnl_other": 2000}, entry=(0, 100, 200),
          settings={"leverage": 20.0, "maintenance_margin": 0.01}, stop=94),
    # ---- finer bars
    Table("finer bars: the target came first", [CALM, (100, 112, 94, 100)], [(1, "target", 110, 10)], 100,
          {"ambiguous": 0, "resolved": 1, "pnl_other": 100},
          inner={1: [(100, 112, 100, 111), (111, 111, 94, 100)]}),
    Table("finer bars: the stop came first", [CALM, (100, 112, 94, 100)], [(1, "stop", 95, 10)], -50,
          {"ambiguous": 0, "resolved": 1}, inner={1: [(100, 101, 94, 96), (96, 112, 96, 100)]},
          settings={"both_touched": "target"}),
    Table("finer bars that touch both themselves", [CALM, (100, 112, 94, 100)], [(1, "stop", 95, 10)], -50,
          {"ambiguous": 1, "resolved": 0, "pnl_other": 100}, inner={1: [(100, 101, 99, 100), (100, 112, 94, 100)]}),
    Table("a finer bar opens beyond the stop", [CALM, (100, 112, 90, 100)], [(1, "stop", 93, 10)], -70,
          {"resolved": 1}, inner={1: [(100, 101, 99, 99), (93, 112, 90, 100)]}),
    Table("finer bars: one target, then the stop", [CALM, (100, 112, 94, 100)],
          [(1, "target", 110, 5), (1, "stop", 95, 5)], 25, {"resolved": 1, "ambiguous": 0}, settings=HALVES,
          inner={1: [(100, 112, 99, 111), (111, 111, 94, 100)]}),
    Table("finer bars are not asked where one is touched alone", [CALM, (100, 109, 94, 100)], [(1, "stop", 95, 10)],
          -50, {"resolved": 0}, inner={1: [(100, 109, 99, 100), (100, 100, 94, 100)]}),
]  # fmt: skip


def assessment(table: Table, side: int, time: int) -> np.ndarray:
    found = np.zeros(1, ASSESSMENT)
    found["timestamp"], found["confidence"], found["side"] = time, 0.9, side
    found["price"], found["atr"], found["stop"] = 100, 2, table.stop
    found["targets"] = table.targets
    found["entry_low"], found["entry_high"] = table.zone
    found["recommendation"] = RECOMMENDATIONS.index("BUY" if side == LONG else "SELL")
    return found


def as_bar(values: tuple, time: int) -> np.ndarray:
    bar = np.zeros(1, BAR)
    bar["timestamp"] = time
    bar["open"], bar["high"], bar["low"], bar["close"] = values[:4]
    bar["funding_rate"] = values[4] if len(values) > 4 else NAN
    return bar


def play(table: Table) -> tuple[np.ndarray, list[np.ndarray], list[float]]:
    rules = rules_record(Settings(**table.settings), Costs(**({"fee": 0.0} | table.costs)), MINUTE_MS)
    stage, trade = np.zeros(1, STAGE_STATE), np.zeros(1, TRADE)
    stage["cash"] = table.cash
    stage3_decide(stage[0], assessment(table, table.side, NOON - MINUTE_MS)[0], rules[0])
    trades, values = [], []
    for i, prices in enumerate(table.bars):
        time = NOON + i * MINUTE_MS
        bar = as_bar(prices, time)
        inner = np.concatenate([np.zeros(0, BAR), *(as_bar(part, time) for part in table.inner.get(i, ()))])
        if stage3_follow(stage[0], bar[0], inner, stage[0].cash, rules[0], trade[0]):
            trades.append(trade.copy())
        values.append(equity(stage[0], prices[3]))
        if table.opposite_at == i:
            stage3_decide(stage[0], assessment(table, -table.side, time)[0], rules[0])
    return stage, trades, values


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-12, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
def test_table(table):
    stage, trades, values = play(table)
    if not table.fills:
        assert trades == []
        return
    ((trade,),) = trades
    n = int(trade["exits"])
    names = ("times", "reasons", "prices", "quantities")
    times, reasons, prices, quantities = (trade[f"exit_{name}"][:n].tolist() for name in names)
    assert [((time - NOON) // MINUTE_MS, EXITS[reason]) for time, reason in zip(times, reasons, strict=True)] == [
        fill[:2] for fill in table.fills
    ]
    assert prices == [near(fill[2]) for fill in table.fills]
    assert quantities == [near(fill[3]) for fill in table.fills]
    entered = ((trade["entry_time"] - NOON) // MINUTE_MS, trade["entry_price"], trade["quantity"])
    assert entered == (table.entry[0], near(table.entry[1]), near(table.entry[2]))
    assert trade["pnl"] == near(table.pnl)
    assert {name: trade[name] for name in table.more} == {name: near(value) for name, value in table.more.items()}
    assert EXITS[trade["exit_reason"]] == table.fills[-1][1] and trade["exit_time"] == times[-1]
    assert stage["cash"][0] == near(table.cash + table.pnl) == near(values[-1])


def test_names_are_distinct():
    assert len({table.name for table in TABLES}) == len(TABLES) >= 60


def test_equity_of_half_a_ladder():
    """Half closed at 110 brings 50; the other half is marked at each close."""
    _, trades, values = play(Table("", [CALM, (100, 111, 99, 108), (108, 109, 103, 104)], [], settings=HALVES))
    assert trades == [] and values == [near(1000), near(1000 + 50 + 40), near(1000 + 50 + 20)]


def test_a_later_order_takes_the_place_of_a_waiting_limit():
    table = Table("", [CALM, (100, 101, 97, 98), (98, 111, 97, 110)], [], settings=LIMIT)
    rules = rules_record(Settings(**LIMIT), Costs(fee=0.0), MINUTE_MS)
    stage, trade = np.zeros(1, STAGE_STATE), np.zeros(1, TRADE)
    stage["cash"] = 1000
    stage3_decide(stage[0], assessment(table, LONG, NOON - MINUTE_MS)[0], rules[0])
    stage3_follow(stage[0], as_bar(CALM, NOON)[0], np.zeros(0, BAR), 1000.0, rules[0], trade[0])
    newer = assessment(table, LONG, NOON)
    newer["entry_low"], newer["targets"] = 92, (104, NAN, NAN)  # half way is 96: not reached
    stage3_decide(stage[0], newer[0], rules[0])
    assert stage["order"]["limit"][0] == 96 and stage["order"]["waited"][0] == 0
    bar = as_bar((100, 101, 97, 98), NOON + MINUTE_MS)
    stage3_follow(stage[0], bar[0], np.zeros(0, BAR), 1000.0, rules[0], trade[0])
    assert stage["position"]["side"][0] == 0 and stage["order"]["signal_time"][0] == NOON
