"""Hand-written candle tables for Stage3: every number expected here was worked out on paper.

A table is a capital, an order decided before the first bar, and bars (open, high, low, close[, funding rate]).
Unless it says otherwise: 1,000 in cash, a long entered at 100 (so 10 units), stop 95, target 110, no costs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from engine_runs import MONDAY

from aione_lab.engine.params import rules_record
from aione_lab.engine.records import ASSESSMENT, BAR, EXITS, RECOMMENDATIONS, STAGE_STATE, TRADE
from aione_lab.engine.stage3 import equity, stage3_decide, stage3_follow, stage3_gap
from aione_lab.settings import Costs, Settings
from aione_lab.units import HOUR_MS, MINUTE_MS

NAN = math.nan
LONG, SHORT = 1, -1
NOON = MONDAY + 12 * HOUR_MS  # no funding is due near it
CALM = (100, 101, 99, 100)


class Table(NamedTuple):
    name: str
    bars: list[tuple]
    expect: dict[str, Any] | None  # of the one trade; None: none is closed
    side: int = LONG
    stop: float = 95
    target: float = 110
    cash: float = 1000
    costs: dict[str, float] = {}
    settings: dict[str, Any] = {}
    first: int = NOON
    step: int = MINUTE_MS
    gap_after: int | None = None  # bars are missing after so many


def result(reason: str, at: int, price: float, pnl: float, **more: Any) -> dict[str, Any]:
    """Expected reason, place of the exit bar, exit price and P&L; unless given: no fees, no funding, not ambiguous."""
    rest = {"fees": 0, "funding": 0, "ambiguous": 0, "pnl_other": pnl, "funding_known": 0, "funding_missing": 0}
    return {"exit_reason": reason, "at": at, "exit_price": price, "pnl": pnl} | rest | more


SHORTED = {"side": SHORT, "stop": 105, "target": 90}
FEE = {"fee": 0.001}
SLIP = {"slippage_bps": 100}  # 1 %

TABLES = [
    # where it ends
    Table("stop on the second bar", [(100, 102, 99, 101), (101, 103, 94, 96)],
          result("stop", 1, 95, -50, r_multiple=-1, mae=-0.05, mfe=0.02, bars=2, quantity=10, entry_price=100)),
    Table("target on the second bar", [(100, 102, 99, 101), (101, 111, 100, 110.5)],
          result("target", 1, 110, 100, r_multiple=2, mae=-0.01, mfe=0.10, bars=2)),
    Table("stop on the entry bar", [(100, 101, 94, 96)],
          result("stop", 0, 95, -50, bars=1, mae=-0.05, mfe=0)),
    Table("target on the entry bar", [(100, 112, 99, 111)],
          result("target", 0, 110, 100, bars=1, mae=0, mfe=0.10)),
    Table("low exactly at the stop", [CALM, (100, 101, 95, 100)], result("stop", 1, 95, -50, r_multiple=-1)),
    Table("high exactly at the target", [CALM, (100, 110, 99, 100)], result("target", 1, 110, 100)),
    Table("a hair from both", [CALM, (100, 109.99, 95.01, 100)], None),
    Table("nothing touched", [CALM, CALM, CALM], None),
    # both in one bar
    Table("both touched, stop first", [CALM, (100, 112, 94, 100)],
          result("stop", 1, 95, -50, ambiguous=1, pnl_other=100, mae=-0.05, mfe=0.01)),
    Table("both touched, target first", [CALM, (100, 112, 94, 100)],
          result("target", 1, 110, 100, ambiguous=1, pnl_other=-50, mae=-0.01, mfe=0.10),
          settings={"both_touched": "target"}),
    Table("both touched on the entry bar", [(100, 112, 94, 100)],
          result("stop", 0, 95, -50, ambiguous=1, pnl_other=100, bars=1, mae=-0.05, mfe=0)),
    # 1,000 × 0.1 % in; out at 95: 0.95 taker; had the target filled: 1,100 × 0.02 % = 0.22
    Table("both touched, fees of either way", [CALM, (100, 112, 94, 100)],
          result("stop", 1, 95, -51.95, fees=1.95, ambiguous=1, pnl_other=98.78),
          costs={"fee": 0.001, "maker_fee": 0.0002}),
    Table("a stop passed at the open is not ambiguous", [CALM, (94, 112, 90, 100)], result("stop", 1, 94, -60)),
    # the open decides
    Table("gap through the stop", [CALM, (92, 93, 90, 91)],
          result("stop", 1, 92, -80, r_multiple=-1.6, mae=-0.08, mfe=0.01, bars=1)),
    Table("gap through the target", [CALM, (113, 114, 112, 113)],
          result("target", 1, 113, 130, r_multiple=2.6, mfe=0.13, bars=1)),
    Table("open exactly at the stop", [CALM, (95, 99, 94, 98)], result("stop", 1, 95, -50, bars=1)),
    Table("open exactly at the target", [CALM, (110, 112, 109, 111)], result("target", 1, 110, 100, bars=1)),
    # 1,000 / 80 = 12.5 units, in and out at 80: two fees of 1; the risk is negative, R is not known
    Table("the entry bar opens below the stop", [(80, 97, 79, 96)],
          result("stop", 0, 80, -2, fees=2, bars=0, quantity=12.5, r_multiple=NAN, mae=0, mfe=0), costs=FEE),
    Table("the entry bar opens above the target", [(125, 130, 94, 126)],
          result("target", 0, 125, -2, fees=2, bars=0, quantity=8), costs=FEE),
    # time
    Table("time-out after three bars", [CALM, (100, 103, 98, 102), (102, 105, 101, 104), (104, 109, 96, 100)],
          result("time_out", 3, 104, 40, bars=3, mfe=0.05, mae=-0.02), settings={"max_holding_minutes": 3}),
    Table("not yet timed out", [CALM, CALM, CALM], None, settings={"max_holding_minutes": 3}),
    Table("at the time-out the open is below the stop", [CALM, (93, 94, 92, 93)],
          result("stop", 1, 93, -70), settings={"max_holding_minutes": 1}),
    Table("the time-out comes before the bar's low", [CALM, (101, 101, 90, 91)],
          result("time_out", 1, 101, 10, bars=1), settings={"max_holding_minutes": 1}),
    Table("a time-out shorter than a bar is one bar", [CALM, (103, 104, 102, 103)],
          result("time_out", 1, 103, 30, bars=1), settings={"max_holding_minutes": 1}, step=15 * MINUTE_MS),
    Table("40 minutes are two bars of 15", [CALM, CALM, (103, 104, 102, 103)],
          result("time_out", 2, 103, 30, bars=2), settings={"max_holding_minutes": 40}, step=15 * MINUTE_MS),
    # fees and slippage
    Table("taker fee on a stop", [CALM, (100, 101, 94, 95)],
          result("stop", 1, 95, -51.95, fees=1.95, r_multiple=-1.039), costs=FEE),
    Table("maker fee on a target", [CALM, (100, 111, 99, 110)],
          result("target", 1, 110, 98.78, fees=1.22), costs={"fee": 0.001, "maker_fee": 0.0002}),
    Table("maker rebate", [CALM, (100, 111, 99, 110)],
          result("target", 1, 110, 99.11, fees=0.89), costs={"fee": 0.001, "maker_fee": -0.0001}),
    Table("taker fee on a time-out", [CALM, (104, 105, 103, 104)],
          result("time_out", 1, 104, 37.96, fees=2.04), costs={"fee": 0.001, "maker_fee": 0.0},
          settings={"max_holding_minutes": 1}),
    # entered at 101 with 1,010: 10 units; out at 95 less 1 % = 94.05
    Table("slippage in and on the stop", [CALM, (100, 101, 94, 95)],
          result("stop", 1, 94.05, -69.5, entry_price=101, quantity=10, r_multiple=-69.5 / 60, mae=94.05 / 101 - 1),
          cash=1010, costs=SLIP),
    Table("no slippage on a target", [CALM, (100, 111, 99, 110)],
          result("target", 1, 110, 90, entry_price=101, r_multiple=1.5), cash=1010, costs=SLIP),
    Table("slippage on a time-out", [CALM, (104, 105, 103, 104)],
          result("time_out", 1, 102.96, 19.6), cash=1010, costs=SLIP, settings={"max_holding_minutes": 1}),
    Table("slippage on a gap through the stop", [CALM, (90, 91, 89, 90)],
          result("stop", 1, 89.1, -119), cash=1010, costs=SLIP),
    # both ways with slippage: stop 10 × (94.05 − 101), target 10 × (110 − 101)
    Table("both touched, slippage of either way", [CALM, (100, 112, 94, 100)],
          result("target", 1, 110, 90, ambiguous=1, pnl_other=-69.5), cash=1010, costs=SLIP,
          settings={"both_touched": "target"}),
    # funding: 10 units × open × rate
    Table("a long pays funding", [CALM, (101, 102, 100, 101, 0.0001), (101, 111, 100, 110)],
          result("target", 2, 110, 99.899, funding=-0.101, funding_known=1)),
    Table("a long receives negative funding", [CALM, (101, 102, 100, 101, -0.0002), (101, 111, 100, 110)],
          result("target", 2, 110, 100.202, funding=0.202, funding_known=1)),
    Table("a short receives funding", [CALM, (101, 102, 100, 101, 0.0001), (100, 101, 89, 90)],
          result("target", 2, 90, 100.101, funding=0.101, funding_known=1), **SHORTED),
    Table("funding twice", [CALM, (101, 102, 100, 101, 0.0001), (102, 103, 101, 102, 0.0003), (102, 111, 101, 110)],
          result("target", 3, 110, 100 - 0.101 - 0.306, funding=-0.407, funding_known=2)),
    Table("the stamp of the entry bar is not paid", [(100, 101, 99, 100, 0.01), (100, 111, 99, 110)],
          result("target", 1, 110, 100)),
    Table("funding is paid before the bar gaps out", [CALM, (92, 93, 90, 91, 0.0001)],
          result("stop", 1, 92, -80.092, funding=-0.092, funding_known=1)),
    Table("a due stamp without a rate is unknown, not zero", [CALM, (101, 102, 100, 101), (101, 111, 100, 110)],
          result("target", 2, 110, 100, funding_missing=1), first=MONDAY + 16 * HOUR_MS - MINUTE_MS),
    Table("no stamp is due on the entry bar", [(101, 102, 100, 101), (101, 112, 100, 110)],
          result("target", 1, 110, 90), first=MONDAY + 16 * HOUR_MS, cash=1010),
    Table("a known rate where none is due", [CALM, (100, 101, 99, 100, 0.0005), (100, 111, 99, 110)],
          result("target", 2, 110, 99.5, funding=-0.5, funding_known=1), first=MONDAY + 4 * HOUR_MS - MINUTE_MS),
    Table("funding both ways", [CALM, (100, 112, 94, 100, 0.001)],
          result("stop", 1, 95, -51, funding=-1, funding_known=1, ambiguous=1, pnl_other=99)),
    # size
    Table("a fraction of the cash", [CALM, (100, 101, 94, 95)],
          result("stop", 1, 95, -12.5, quantity=2.5, r_multiple=-1), settings={"position_fraction": 0.25}),
    # 1,000 / 30 = 33.33 units, in lots of 0.5: 33
    Table("whole lots", [(30, 30.5, 29.5, 30), (30, 34, 29.5, 33)],
          result("target", 1, 33, 99, quantity=33), stop=28.5, target=33, costs={"lot_size": 0.5}),
    # 3,000 / 10,000 is 0.3, and 0.3 / 0.1 is 2.9999999999999996: still three lots
    Table("three lots but for rounding noise", [(10_000, 10_050, 9_950, 10_000), (10_000, 10_050, 9_400, 9_500)],
          result("stop", 1, 9_500, -150, quantity=0.3), stop=9_500, target=11_000, cash=3000, costs={"lot_size": 0.1}),
    Table("less than a lot: no trade", [CALM, (100, 101, 90, 91)], None, costs={"lot_size": 20}),
    Table("no cash: no trade", [CALM, (100, 101, 90, 91)], None, cash=-5),
    # shorts
    Table("short stop", [CALM, (100, 106, 99, 105)],
          result("stop", 1, 105, -50, r_multiple=-1, mae=-0.05, mfe=0.01, bars=2), **SHORTED),
    Table("short target", [CALM, (100, 101, 89, 90)],
          result("target", 1, 90, 100, r_multiple=2, mae=-0.01, mfe=0.10), **SHORTED),
    Table("short stop on the entry bar", [(100, 106, 99, 105)], result("stop", 0, 105, -50, bars=1), **SHORTED),
    Table("short, gap through the stop", [CALM, (108, 109, 107, 108)], result("stop", 1, 108, -80, bars=1), **SHORTED),
    Table("short, gap through the target", [CALM, (87, 88, 86, 87)], result("target", 1, 87, 130), **SHORTED),
    Table("short, both touched", [CALM, (100, 106, 89, 100)],
          result("stop", 1, 105, -50, ambiguous=1, pnl_other=100), **SHORTED),
    Table("short, both touched, target first", [CALM, (100, 106, 89, 100)],
          result("target", 1, 90, 100, ambiguous=1, pnl_other=-50), settings={"both_touched": "target"}, **SHORTED),
    # entered at 99 with 990: 10 units; out at 105 and 1 % = 106.05
    Table("short, slippage", [CALM, (100, 106, 99, 105)],
          result("stop", 1, 106.05, -70.5, entry_price=99, quantity=10), cash=990, costs=SLIP, **SHORTED),
    # sold at 100: 1; bought at 105: 1.05
    Table("short, fees", [CALM, (100, 106, 99, 105)],
          result("stop", 1, 105, -52.05, fees=2.05, r_multiple=-1.041), costs=FEE, **SHORTED),
    # missing bars
    Table("bars are missing: out at the last close", [(100, 102, 99, 101)],
          result("gap", 0, 101, 10, bars=1, mae=-0.01, mfe=0.02), gap_after=1),
    Table("bars are missing: slippage and fee", [(100, 102, 99, 102)],
          result("gap", 0, 100.98, -0.2 - 1.01 - 1.0098, fees=2.0198), cash=1010, costs=SLIP | FEE, gap_after=1),
    Table("bars are missing after two bars, short", [CALM, (100, 103, 97, 98)],
          result("gap", 1, 98, 20, bars=2, mae=-0.03, mfe=0.03), gap_after=2, **SHORTED),
    Table("an order waiting over missing bars is dropped", [CALM, (100, 112, 94, 95)], None, gap_after=0),
]  # fmt: skip


NO_BARS = np.zeros(0, BAR)


def decided(side: int, stop: float, target: float, time: int, confidence: float = 0.9) -> np.ndarray:
    """(1,) ASSESSMENT that says BUY or SELL."""
    found = np.zeros(1, ASSESSMENT)
    found["timestamp"], found["confidence"] = time, confidence
    found["side"], found["stop"] = side, stop
    found["targets"][0] = (target, NAN, NAN)
    found["recommendation"] = RECOMMENDATIONS.index("BUY" if side == LONG else "SELL")
    return found


def rules_of(table: Table) -> np.ndarray:
    settings = Settings(**({"position_fraction": 1.0} | table.settings))
    return rules_record(settings, Costs(**({"fee": 0.0} | table.costs)), table.step)


def play(table: Table) -> tuple[np.ndarray, list[np.ndarray], list[float]]:
    """(stage, closed trades, equity at every close) of the table through Stage3 alone."""
    rules = rules_of(table)
    stage, trade = np.zeros(1, STAGE_STATE), np.zeros(1, TRADE)
    stage["cash"] = table.cash
    stage3_decide(stage[0], decided(table.side, table.stop, table.target, table.first - table.step)[0], rules[0])
    trades, values = [], []
    for i, values_of_bar in enumerate(table.bars):
        if i == table.gap_after and stage3_gap(stage[0], rules[0], trade[0]):
            trades.append(trade.copy())
        bar = np.zeros(1, BAR)
        bar["timestamp"] = table.first + i * table.step
        bar["open"], bar["high"], bar["low"], bar["close"] = values_of_bar[:4]
        bar["funding_rate"] = values_of_bar[4] if len(values_of_bar) > 4 else NAN
        if stage3_follow(stage[0], bar[0], NO_BARS, stage[0].cash, rules[0], trade[0]):
            trades.append(trade.copy())
        values.append(equity(stage[0], bar[0]["close"]))
        stage["last_time"], stage["last_close"] = bar["timestamp"], bar["close"]
    if table.gap_after == len(table.bars) and stage3_gap(stage[0], rules[0], trade[0]):
        trades.append(trade.copy())
    return stage, trades, values


def near(expected: float) -> Any:
    return pytest.approx(expected, rel=1e-12, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
def test_table(table):
    stage, trades, _ = play(table)
    if table.expect is None:
        assert trades == []
        return
    assert len(trades) == 1
    (trade,) = trades[0]
    expect = dict(table.expect)
    at = expect.pop("at")
    assert EXITS[trade["exit_reason"]] == expect.pop("exit_reason")
    assert trade["exit_time"] == table.first + at * table.step
    assert trade["entry_time"] == table.first and trade["signal_time"] == table.first - table.step
    assert trade["side"] == table.side and trade["confidence"] == 0.9
    assert {name: trade[name] for name in expect} == {name: near(value) for name, value in expect.items()}
    # The identity of the account: what is in cash is what was there and what the trade made.
    assert stage["cash"][0] == near(table.cash + expect["pnl"])
    assert stage["position"]["side"][0] == 0 and stage["order"]["side"][0] == 0


def test_names_are_distinct():
    assert len({table.name for table in TABLES}) == len(TABLES) >= 60


def mirrors(table: Table) -> bool:
    """Fees, slippage and funding follow the price level, which a mirror moves."""
    costly = table.costs.keys() - {"lot_size"} or any(len(bar) > 4 for bar in table.bars)
    return bool(table.expect) and table.side == LONG and not costly


@pytest.mark.parametrize("table", [table for table in TABLES if mirrors(table)], ids=lambda t: t.name)
def test_mirrored_short(table):
    """Prices mirrored around the entry's open: a short ends the same way with the same money."""
    centre = 2 * table.bars[0][0]
    bars = [(centre - o, centre - low, centre - high, centre - c) for o, high, low, c in table.bars]
    mirror = table._replace(bars=bars, side=SHORT, stop=centre - table.stop, target=centre - table.target)
    (long,), (short,) = play(table)[1], play(mirror)[1]
    for name in ("exit_time", "exit_reason", "ambiguous", "bars"):
        assert short[name] == long[name]
    for name in ("quantity", "pnl", "pnl_other", "r_multiple", "mae", "mfe"):
        assert short[name][0] == near(long[name][0])
    assert short["exit_price"][0] == near(centre - long["exit_price"][0])


def test_equity_while_open_and_cash_after():
    """Entry fee 1 at once; marked at each close; funding when paid; exit fee 0.95 with the stop."""
    table = Table(
        "", [(100, 103, 99, 102), (102, 104, 97, 98, 0.0005), (98, 99, 94, 96)], None, costs=FEE
    )  # fmt: skip
    stage, trades, values = play(table)
    assert values == [near(1000 - 1 + 20), near(1000 - 1 - 0.51 - 20), near(1000 - 1 - 0.51 - 50 - 0.95)]
    assert stage["cash"][0] == near(947.54) and trades[0]["pnl"][0] == near(-52.46)


def test_second_trade_uses_what_the_first_left():
    """Stopped at 95 with 950 left; the order decided on that bar fills at the next open, 47.5: 20 units."""
    table = Table("", [CALM, (100, 101, 94, 95)], None)
    stage, trades, _ = play(table)
    assert len(trades) == 1 and stage["cash"][0] == near(950)
    rules, trade = rules_of(table), np.zeros(1, TRADE)
    stage3_decide(stage[0], decided(LONG, 45, 50, NOON + MINUTE_MS, 0.8)[0], rules[0])
    bar = np.zeros(1, BAR)
    bar[0] = (NOON + 2 * MINUTE_MS, 47.5, 51, 47, 50, 1, NAN, NAN, NAN, NAN)
    assert stage3_follow(stage[0], bar[0], NO_BARS, stage[0].cash, rules[0], trade[0]) == 1
    assert trade["quantity"][0] == near(20) and trade["pnl"][0] == near(50) and trade["confidence"][0] == 0.8
    assert trade["signal_time"][0] == NOON + MINUTE_MS and stage["cash"][0] == near(1000)


def test_no_second_order_while_a_position_is_open():
    stage, _, _ = play(Table("", [CALM], None))
    stage3_decide(stage[0], decided(LONG, 50, 200, NOON)[0], rules_of(Table('', [], None))[0])
    assert stage["order"]["side"][0] == 0 and stage["position"]["stop"][0] == 95


@pytest.mark.parametrize("recommendation", sorted(set(RECOMMENDATIONS) - {"BUY", "SELL"}))
def test_only_buy_and_sell_become_orders(recommendation):
    stage = np.zeros(1, STAGE_STATE)
    found = decided(LONG, 95, 110, NOON)
    found["recommendation"] = RECOMMENDATIONS.index(recommendation)
    stage3_decide(stage[0], found[0], rules_of(Table('', [], None))[0])
    assert stage["order"]["side"][0] == 0
