"""Alerts traded alone: the replay's own trades where it traded, a plain simulator everywhere."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from aione_lab.backtest.alone import contexts, trade_alone
from aione_lab.backtest.replay import replay
from aione_lab.backtest.result import Result
from aione_lab.errors import InputError
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds import Thresholds
from tests.backtest.conftest import load_real
from tests.engine.naive_trades import Order, ref_trades

COSTS = Costs(fee=0.0004, maker_fee=0.0001, slippage_bps=1.5)


@pytest.fixture(scope="module")
def two_sided(simulated, simulated_funding) -> Result:
    """Longs and shorts with every kind of cost, over candles with a hole and a ragged end."""
    candles = simulated["LINKUSDT"]
    candles = candles.drop(candles.index[8_000:8_003])
    settings = Settings(allow_shorts=True, max_holding_minutes=45)
    return replay(
        candles,
        Thresholds(tp_mult=5.0, sl_mult=2.5),
        symbol="LINKUSDT",
        reference=simulated["BTCUSDT"],
        funding=simulated_funding,
        settings=settings,
        costs=COSTS,
    )


def agree_where_traded(result: Result) -> int:
    alone = trade_alone(result)
    trades = result.trades.set_index("signal_time")
    same = alone.loc[trades.index]
    for name in ("entry_time", "exit_time", "exit_reason", "bars", "side", "confidence"):
        assert (same[name].astype(object) == trades[name].astype(object)).all(), name
    np.testing.assert_allclose(same["r_multiple"], trades["r_multiple"], rtol=1e-9)
    notional = trades["quantity"] * trades["entry_price"]
    np.testing.assert_allclose(same["return"], trades["pnl"] / notional, rtol=1e-9, atol=1e-12)
    return len(trades)


def test_a_traded_alert_ends_as_in_the_replay(two_sided, simulated) -> None:
    assert agree_where_traded(two_sided) > 20
    assert agree_where_traded(replay(simulated["SOLUSDT"], Thresholds(min_confidence=0.4))) > 50


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ENAUSDT"])
def test_a_traded_alert_ends_as_in_the_replay_on_real_candles(shared: Path, symbol: str) -> None:
    assert agree_where_traded(replay(**load_real(shared / "candles" / "1m" / f"{symbol}.parquet"))) > 20


def test_a_plain_simulator_finds_the_same_trades(two_sided) -> None:
    records = two_sided.assessment_records
    alone = trade_alone(two_sided)
    tradable = records[np.isfinite(records["targets"][:, 0]) & np.isfinite(records["stop"])]
    assert len(alone) == len(tradable) < len(records)
    reasons = set()
    for found, (time, row) in zip(tradable, alone.iterrows(), strict=True):
        at = int(np.searchsorted(two_sided.bars["timestamp"], found["timestamp"]))
        targets = tuple(target for target in found["targets"] if not math.isnan(target))
        near, deep = found["entry_high"], found["entry_low"]
        order = Order(
            0,
            int(found["side"]),
            found["price"],
            found["atr"],
            found["stop"],
            targets,
            near,
            deep,
            found["confidence"],
        )
        bars = two_sided.bars[at : at + 80]  # nothing is held before, and no trade lives longer
        trades, _ = ref_trades(bars, [order], "1m", two_sided.settings, COSTS)
        reasons.add(row["exit_reason"])
        assert int(time.timestamp() * 1000) == found["timestamp"]
        if not trades:
            assert row["exit_reason"] in ("open", "not_entered") and math.isnan(row["pnl"])
            continue
        (trade,) = trades
        assert row["exit_reason"] == trade["exit_reason"]
        assert row["bars"] == trade["bars"]
        for name in ("pnl", "r_multiple"):
            assert row[name] == pytest.approx(trade[name], rel=1e-9, nan_ok=True)
    assert {"stop", "target", "time_out"} <= reasons


def test_the_edges_of_the_data(simulated) -> None:
    candles = simulated["SOLUSDT"]
    whole = trade_alone(replay(candles, symbol="SOLUSDT"))
    long = whole[whole["bars"] > 5]
    at = candles.index.get_loc(long.index[-1])
    last = {}
    for name, end in (("at the last bar", at + 1), ("still open", at + 3)):
        last[name] = trade_alone(replay(candles[:end], symbol="SOLUSDT")).iloc[-1]
        assert math.isnan(last[name]["pnl"]) and math.isnan(last[name]["return"])
    assert last["at the last bar"]["exit_reason"] == "not_entered"
    assert last["still open"]["exit_reason"] == "open"
    assert last["still open"]["entry_time"] == candles.index[at + 1]
    hole = trade_alone(replay(candles.drop(candles.index[at + 3]), symbol="SOLUSDT")).loc[long.index[-1]]
    assert hole["exit_reason"] == "gap" and hole["bars"] == 2
    missed = trade_alone(replay(candles.drop(candles.index[at + 1]), symbol="SOLUSDT")).loc[long.index[-1]]
    assert missed["exit_reason"] == "not_entered"
    poor = trade_alone(replay(candles, symbol="SOLUSDT", costs=Costs(lot_size=1e6)))
    assert set(poor["exit_reason"]) == {"not_entered"}


def test_contexts_are_those_of_the_alerts(two_sided) -> None:
    alone, every = trade_alone(two_sided), contexts(two_sided)
    for name in ("trend", "volatility", "independence"):
        assert (every[name].loc[alone.index] == alone[name]).all()
    warm = two_sided.features["warm"] == 1.0
    assert set(every["trend"][warm]) == {"UPTREND", "DOWNTREND", "RANGE"}
    assert set(every["trend"][~warm]) == {""}


def test_choosing_and_refusing(two_sided) -> None:
    chosen = two_sided.alerts["recommendation"].to_numpy() == "BUY"
    buys = trade_alone(two_sided, chosen)
    assert set(buys["recommendation"]) == {"BUY"}
    assert trade_alone(two_sided).loc[buys.index].equals(buys)
    assert not len(trade_alone(two_sided, np.zeros(len(chosen), dtype=bool)))
    for bad in (chosen[1:], np.zeros(len(chosen)), "BUY"):
        with pytest.raises(InputError, match="chosen="):
            trade_alone(two_sided, bad)
    with pytest.raises(InputError, match="result="):
        trade_alone(None)
