"""The bridge to vectorbt: its portfolio says what the replay says.

vectorbt is imported once, by the first test that asks for a portfolio; that takes some ten seconds.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aione_lab import Costs, Settings, Thresholds, replay
from aione_lab.backtest import Result
from aione_lab.backtest.trades import fill_columns
from aione_lab.backtest.vectorbt_bridge import (
    COLUMNS,
    funding_by_bar,
    gap_exits_by_bar,
    order_fills,
    reconcile,
    to_vectorbt,
)
from aione_lab.engine.records import EXITS, SIGNAL, STAGE_STATE, TRADE
from aione_lab.lake.simulated import SimulatedExchange

SETTINGS = Settings(allow_shorts=True, min_risk_reward=1.0)
COSTS = Costs(fee=0.0005, maker_fee=0.0002, slippage_bps=2.0, lot_size=0.1)
TIGHT = Thresholds(min_confidence=0.5)
WIDE = TIGHT.replace(tp_mult=5.0, sl_mult=3.0)
TOLERANCE = 1e-9 * SETTINGS.initial_capital  # 1e-9 of the capital
HOLDING = 30  # minutes, where a test wants time-outs


@pytest.fixture(scope="module")
def market() -> dict[str, Any]:
    exchange = SimulatedExchange(seed=3)
    return {
        "candles": exchange.candles("SUIUSDT", days=12),
        "funding": exchange.funding("SUIUSDT", days=12),
        "reference": exchange.candles("BTCUSDT", days=12),
    }


def run(market: dict[str, Any], thresholds: Thresholds = TIGHT, **changes: Any) -> Result:
    settings = SETTINGS.replace(**changes)
    return replay(**market, thresholds=thresholds, symbol="SUIUSDT", settings=settings, costs=COSTS)


def with_gap(market: dict[str, Any]) -> dict[str, Any]:
    """The market without the bars that follow the entry of a trade that lasted."""
    trades = run(market, WIDE).trades
    lasting = trades[(trades["bars"] > 5) & (trades["entry_time"] < trades["entry_time"].max())]
    start = lasting["entry_time"].iloc[len(lasting) // 4] + pd.Timedelta(minutes=2)
    candles = market["candles"]
    gone = (candles.index >= start) & (candles.index < start + pd.Timedelta(minutes=30))
    return {**market, "candles": candles[~gone]}


def cut_open(market: dict[str, Any]) -> dict[str, Any]:
    """The market up to the middle of a trade that crossed a funding stamp, if there is one."""
    trades = run(market, WIDE).trades
    crossed = trades[trades["funding_known"] > 0]
    assert len(crossed)
    candles = market["candles"]
    return {**market, "candles": candles[candles.index < crossed["exit_time"].iloc[-1]]}


CASES = {
    "tight": (lambda market: market, TIGHT, {}),
    "wide": (lambda market: market, WIDE, {}),
    "time-outs": (lambda market: market, WIDE, {"max_holding_minutes": HOLDING}),
    "gap": (with_gap, WIDE, {}),
    "open at the end": (cut_open, WIDE, {}),
    "ladder": (lambda market: market, WIDE, {"target_shares": (0.5, 0.3, 0.2), "break_even": 1.0}),
    "moving stop, limit entry": (
        lambda market: market,
        WIDE,
        {"entry": "limit", "entry_depth": 0.05, "target_shares": (0.4,), "break_even": 0.5, "trailing_stop": 2.0},
    ),
    "leverage": (
        lambda market: market,
        WIDE.replace(tp_mult=6.0),
        {"leverage": 100.0, "maintenance_margin": 0.004, "position_fraction": 0.05, "min_stop": 4.0,
         "min_risk_reward": 0.0, "exit_on_opposite": True, "sizing": "risk"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, market: dict[str, Any]) -> tuple[str, Result, Any]:
    prepare, thresholds, changes = CASES[request.param]
    result = run(prepare(market), thresholds, **changes)
    return request.param, result, result.to_vectorbt()


def test_cases_hold_what_they_promise(case: tuple[str, Result, Any]) -> None:
    name, result, _ = case
    reasons = {EXITS[code] for code in result.trade_records["exit_reasons"].flat if code}
    assert "target" in reasons and ({"stop", "trailing"} & reasons)
    assert set(result.trades["side"]) == {"LONG", "SHORT"}
    assert (result.trades["entry_time"] == result.trades["exit_time"]).any()
    assert ("time_out" in reasons) or name != "time-outs"
    assert ("gap" in reasons) == (name == "gap")
    assert (result.open_trade is not None) == (name == "open at the end")
    assert set(result.trades["exits"]) == {"ladder": {1, 2, 3}, "moving stop, limit entry": {1, 2}}.get(name, {1})
    assert ("trailing" in reasons) == (name in ("ladder", "moving stop, limit entry"))
    assert ({"liquidation", "opposite"} <= reasons) == (name == "leverage")
    assert result.metrics["funding"] != 0.0


def test_gap_exit_is_told(case: tuple[str, Result, Any]) -> None:
    """The exit at a gap costs on the last bar in vectorbt, and on the bar after the gap in ours."""
    name, result, portfolio = case
    costs = gap_exits_by_bar(result)
    assert np.count_nonzero(costs) == (result.trades["exit_reason"] == "gap").sum() == (name == "gap")
    if name == "gap":
        at = int(costs.argmax())
        assert result.index[at + 1] - result.index[at] > pd.Timedelta(minutes=1)
        assert reconcile(result, portfolio).loc["equity_apart", "gap_exit"] == costs[at] > 0.0


def test_count_pnl_fees_and_equity_are_reproduced(case: tuple[str, Result, Any]) -> None:
    """A trade of ours is a position there; its trades are single exits, one for every part that was closed."""
    _, result, portfolio = case
    records, closed = result.trade_records, portfolio.positions.closed
    assert closed.count() == len(records) and portfolio.trades.closed.count() == records["exits"].sum()
    np.testing.assert_allclose(closed.values["size"], records["quantity"], rtol=1e-14)
    # The orders have the very numbers; vectorbt's positions average their prices (Σ size × price / Σ size).
    ours, orders = fill_columns(records, result.stage_record["position"]), portfolio.orders.values
    for name, field in (("quantity", "size"), ("price", "price"), ("fee", "fees")):
        np.testing.assert_array_equal(orders[field], ours[name])
    np.testing.assert_allclose(closed.values["entry_price"], records["entry_price"], rtol=1e-14)
    np.testing.assert_allclose(closed.values["exit_price"], records["exit_price"], rtol=1e-14)
    np.testing.assert_array_equal(result.index[closed.values["entry_idx"]], result.trades["entry_time"])
    np.testing.assert_array_equal(result.index[closed.values["exit_idx"]], result.trades["exit_time"])
    np.testing.assert_array_equal(closed.values["direction"], np.where(records["side"] > 0, 0, 1))
    np.testing.assert_allclose(closed.values["pnl"] + records["funding"], records["pnl"], rtol=0, atol=TOLERANCE)
    fees = closed.values["entry_fees"] + closed.values["exit_fees"]
    np.testing.assert_allclose(fees, records["fees"], rtol=0, atol=TOLERANCE)
    equity = portfolio.value() + np.cumsum(funding_by_bar(result)) + gap_exits_by_bar(result)
    np.testing.assert_allclose(equity, result.equity, rtol=0, atol=TOLERANCE)
    assert equity.index.equals(result.index)


def test_cash_and_what_is_held_are_the_equity_of_every_bar(case: tuple[str, Result, Any]) -> None:
    """Cash + P&L − costs = equity, from the fills alone: no function of ours but their list is asked."""
    _, result, _ = case
    fills, bars = order_fills(result), result.bars
    cash, held = np.full(len(bars), SETTINGS.initial_capital), np.zeros(len(bars))
    for idx, size, price, fee, side in fills.tolist():
        signed = size if side == 0 else -size
        cash[idx:] -= signed * price + fee
        held[idx:] += signed
    before = np.concatenate([[0.0], held[:-1]])
    paid = np.where(np.isnan(bars["funding_rate"]), 0.0, before * bars["open"] * bars["funding_rate"])
    equity = cash + held * bars["close"] - np.cumsum(paid) + gap_exits_by_bar(result)
    np.testing.assert_allclose(equity, result.equity, rtol=0, atol=TOLERANCE)
    closed = result.trade_records
    gross = [
        trade["side"] * (trade["exit_quantities"][:n] * (trade["exit_prices"][:n] - trade["entry_price"])).sum()
        for trade, n in zip(closed, closed["exits"], strict=True)
    ]
    np.testing.assert_allclose(gross - closed["fees"] + closed["funding"], closed["pnl"], rtol=0, atol=TOLERANCE)


def test_reconciliation_leaves_rounding_only(case: tuple[str, Result, Any]) -> None:
    name, result, portfolio = case
    table = reconcile(result, portfolio)
    assert tuple(table.columns) == COLUMNS
    assert table["unexplained"].abs().max() < TOLERANCE
    assert table.loc["trades", "unexplained"] == 0
    assert table.loc["net_pnl", "ours"] == result.metrics["net_pnl"]
    assert table.loc["final_equity", "ours"] == result.metrics["final_equity"]
    assert table.loc["fees", "ours"] == result.metrics["fees"]
    assert table.loc["final_equity", "funding"] != 0.0
    assert (table.loc["trades", "open_trade"] == -1) == (name == "open at the end")
    assert (table.loc["net_pnl", "open_trade"] != 0.0) == (name == "open at the end")


def test_a_portfolio_that_differs_is_told(market: dict[str, Any]) -> None:
    """The reconciliation compares: a portfolio of other fees does not pass for ours."""
    result = run(market)
    other = dataclasses.replace(result, costs=COSTS, trade_records=result.trade_records.copy())
    other.trade_records["exit_fees"] *= 1.02
    table = reconcile(result, to_vectorbt(other))
    assert abs(table.loc["fees", "unexplained"]) > 1.0
    assert abs(table.loc["final_equity", "unexplained"]) > 1.0


def test_portfolio_is_of_numba_and_of_this_frequency(case: tuple[str, Result, Any]) -> None:
    _, result, portfolio = case
    assert portfolio.engine == "numba"
    assert portfolio.wrapper.freq == pd.Timedelta(minutes=1)
    assert portfolio.value().name == "SUIUSDT"
    assert float(portfolio.init_cash) == SETTINGS.initial_capital
    first = float(portfolio.returns().iloc[0])
    assert first == result.equity.iloc[0] / SETTINGS.initial_capital - 1.0


def test_index_without_a_zone_as_documented(case: tuple[str, Result, Any]) -> None:
    """The quick form for long histories that ``to_vectorbt`` names holds the same numbers."""
    _, result, portfolio = case
    naive = portfolio.replace(wrapper=portfolio.wrapper.replace(index=result.index.tz_localize(None)))
    assert naive.value().index.tz is None
    np.testing.assert_array_equal(naive.value().to_numpy(), portfolio.value().to_numpy())


def test_importing_the_bridge_loads_no_vectorbt() -> None:
    code = "import sys, aione_lab.backtest.vectorbt_bridge; sys.exit('vectorbt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# A result made by hand ------------------------------------------------------------------------------------


def hand_made(market: dict[str, Any]) -> Result:
    """Eight bars: a long that ends on its entry bar, a short over funding, and a long still open.

    The figures are written down, not computed by the engine: fee 0.1 % a side, no slippage.
    """
    few = {**market, "candles": market["candles"].iloc[:8]}
    base = replay(**few, symbol="SUIUSDT", settings=Settings(initial_capital=1000.0), costs=Costs(fee=0.001))
    bars = base.bars.copy()
    bars["open"] = [100, 100, 104, 110, 108, 100, 100, 101]
    bars["close"] = [100, 104, 110, 108, 100, 100, 101, 103]
    bars["high"], bars["low"] = bars["open"] + 12, bars["open"] - 12
    bars["funding_rate"] = np.nan
    bars["funding_rate"][[1, 4, 7]] = 0.01, 0.01, -0.02
    times = bars["timestamp"]
    trades = np.zeros(2, TRADE)
    trades["side"] = 1, -1
    trades["entry_time"], trades["exit_time"] = times[[1, 2]], times[[1, 5]]
    trades["quantity"] = 2.0, 1.0
    trades["entry_price"], trades["exit_price"] = (100.0, 104.0), (106.0, 100.0)
    trades["exits"] = 1
    trades["exit_times"][:, 0], trades["exit_reasons"][:, 0] = trades["exit_time"], EXITS.index("target")
    trades["exit_prices"][:, 0], trades["exit_quantities"][:, 0] = trades["exit_price"], trades["quantity"]
    trades["entry_fee"], trades["exit_fees"][:, 0] = (0.2, 0.104), (0.212, 0.1)
    trades["fees"] = 0.2 + 0.212, 0.104 + 0.1
    trades["funding"] = 0.0, 1.08  # a short receives 0.01 × 1 × 108 at the open of bar 4
    trades["pnl"] = 12.0 - 0.412, 4.0 - 0.204 + 1.08
    stage = np.zeros(1, STAGE_STATE)
    position = stage["position"][0]
    position["side"], position["quantity"], position["entry_price"] = 1, 3.0, 100.0
    position["entered"], position["entry_fee"] = 3.0, 0.3
    position["entry_time"], position["fees"], position["funding"] = times[6], 0.3, 0.02 * 3 * 101
    signals = np.zeros(8, SIGNAL)
    signals["timestamp"] = times
    after = 1000.0 + 11.588
    signals["equity"] = [
        1000.0,
        after,
        after - 0.104 + (104 - 110),
        after - 0.104 + (104 - 108),
        after - 0.104 + (104 - 100) + 1.08,
        after - 0.204 + 4 + 1.08,
        after + 4.876 - 0.3 + 3.0,
        after + 4.876 - 0.3 + 9.0 + 6.06,
    ]
    return dataclasses.replace(base, bars=bars, trade_records=trades, stage_record=stage, signal_records=signals)


def test_hand_made_result(market: dict[str, Any]) -> None:
    result = hand_made(market)
    fills = order_fills(result)
    assert fills["idx"].tolist() == [1, 1, 2, 5, 6]
    assert fills["side"].tolist() == [0, 1, 1, 0, 0]
    np.testing.assert_allclose(fills["fees"], [0.2, 0.212, 0.104, 0.1, 0.3], rtol=1e-14)
    np.testing.assert_allclose(funding_by_bar(result), [0, 0, 0, 0, 1.08, 0, 0, 6.06], rtol=1e-14)
    portfolio = result.to_vectorbt()
    np.testing.assert_allclose(portfolio.trades.values["pnl"], [11.588, 3.796, 8.7], rtol=1e-12)
    value = [1000, 1011.588, 1005.484, 1007.484, 1015.484, 1015.384, 1018.084, 1024.084]
    np.testing.assert_allclose(portfolio.value(), value, rtol=1e-14)
    table = reconcile(result, portfolio)
    assert table["unexplained"].abs().max() < 1e-9
    assert table.loc["net_pnl"].round(6).tolist() == [16.464, 24.084, 1.08, -8.7, 0, 0]
    assert table.loc["trades"].tolist() == [2, 3, 0, -1, 0, 0]
    assert table.loc["funding"].round(6).tolist() == [7.14, 0, 7.14, 0, 0, 0]


def test_result_without_a_trade(market: dict[str, Any]) -> None:
    result = run(market, TIGHT.replace(min_confidence=1.0))
    portfolio = result.to_vectorbt()
    assert len(result.trades) == 0 and portfolio.trades.count() == 0
    assert (portfolio.value() == SETTINGS.initial_capital).all()
    assert (reconcile(result, portfolio)["unexplained"] == 0).all()
