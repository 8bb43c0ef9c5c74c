"""Bulk replay, Engine.push bar by bar, and random chunks with snapshot and restore: the same bytes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aione_lab.backtest.prepare import prepare_bars
from aione_lab.backtest.replay import compute_features, replay
from aione_lab.backtest.result import Result
from aione_lab.engine import Engine
from aione_lab.engine.records import ASSESSMENT, EXITS, SIGNAL, TRADE
from aione_lab.errors import SequenceBreak
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds import Thresholds
from tests.backtest.conftest import load_real, real_files

COSTS = Costs(fee=0.0004, maker_fee=0.0002, slippage_bps=1.0, tick_size=0.0001, lot_size=0.001)
BUSY = Thresholds(min_reasons_for_alert=1, min_confidence=0.45, tp_mult=2.5, sl_mult=0.9, dynamic_rsi_multiplier=1.2)
RULES = {
    "ladder, both ways": Settings(
        allow_shorts=True, target_shares=(0.4, 0.3, 0.3), break_even=1.0, min_risk_reward=0.5, max_holding_minutes=12,
    ),
    "limit entries, trailing stop": Settings(
        allow_shorts=True, entry="limit", entry_depth=0.1, entry_valid_bars=6, target_shares=(0.5,), trailing_stop=1.5,
        exit_on_opposite=True, sizing="risk", min_risk_reward=0.5,
    ),
    "leverage, target first": Settings(
        allow_shorts=True, both_touched="target", leverage=100.0, maintenance_margin=0.008, position_fraction=0.1,
        target_shares=(0.3, 0.0, 0.4), trailing_stop=6.0, min_stop=2.0, min_risk_reward=0.0, max_holding_minutes=1000,
    ),
}  # fmt: skip
"""What Stage3 can do beyond one stop and one target, shared out so that together every exit occurs."""


def push_all(result: Result, chunk_ends: set[int]) -> dict[str, bytes]:
    """Push a result's own bars one by one; at each chunk end the engine is dumped and restored."""
    engine = Engine(
        result.symbol or "TEST",
        result.thresholds,
        interval=result.interval,
        spec=result.spec,
        settings=result.settings,
        costs=result.costs,
    )
    records: dict[str, list[bytes]] = {"features": [], "signals": [], "assessments": [], "trades": []}
    names = ("timestamp", "open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume")
    columns = [result.bars[name].tolist() for name in names]
    others, rates = result.bars["reference_close"].tolist(), result.bars["funding_rate"].tolist()
    for i, values in enumerate(zip(*columns, strict=True)):
        candle = dict(zip(names, values, strict=True))
        reference = None if others[i] != others[i] else {"timestamp": candle["timestamp"], "close": others[i]}
        funding = None if rates[i] != rates[i] else rates[i]
        try:
            event = engine.push(candle, reference=reference, funding=funding)
        except SequenceBreak:
            records["trades"].append(engine.reset().tobytes())
            event = engine.push(candle, reference=reference, funding=funding)
        records["features"].append(event.feature_record.tobytes())
        records["signals"].append(event.signal_record.tobytes())
        records["trades"].append(event.trade_records.tobytes())
        if event.assessment_record is not None:
            records["assessments"].append(event.assessment_record.tobytes())
        if i in chunk_ends:
            engine = Engine.restore(engine.snapshot(), spec=result.spec)
    return {name: b"".join(parts) for name, parts in records.items()}


def assert_same_bytes(result: Result, pushed: dict[str, bytes]) -> None:
    bulk = {
        "features": np.ascontiguousarray(result.columns.T).tobytes(),
        "signals": result.signal_records.tobytes(),
        "assessments": result.assessment_records.tobytes(),
        "trades": result.trade_records.tobytes(),
    }
    dtypes = {"signals": SIGNAL, "assessments": ASSESSMENT, "trades": TRADE}
    for name, dtype in {"features": result.spec.row_dtype, **dtypes}.items():
        assert len(bulk[name]) == len(pushed[name]), f"{name}: {len(bulk[name])} against {len(pushed[name])} bytes"
        if bulk[name] != pushed[name]:
            one, other = np.frombuffer(bulk[name], dtype), np.frombuffer(pushed[name], dtype)
            row = next(i for i in range(len(one)) if one[i].tobytes() != other[i].tobytes())
            raise AssertionError(f"{name}[{row}]: {one[row]} against {other[row]}")


def check(keywords: dict, thresholds: Thresholds, settings: Settings, costs: Costs, seed: int) -> Result:
    result = replay(**keywords, thresholds=thresholds, settings=settings, costs=costs)
    chunks = set(np.random.default_rng(seed).choice(len(result.bars), size=40, replace=False).tolist())
    assert_same_bytes(result, push_all(result, chunks))
    split = replay(**keywords, thresholds=thresholds, settings=settings, costs=costs, features=result.features)
    for name in ("columns", "signal_records", "assessment_records", "trade_records", "stage_record"):
        assert getattr(result, name).tobytes() == getattr(split, name).tobytes(), name
    return result


def assert_all_exits(trades: np.ndarray) -> None:
    """Every way out and both sides really occur, ladders and moved stops among them."""
    assert set(trades["exit_reason"]) | {EXITS.index("gap")} == set(range(1, len(EXITS)))
    assert set(trades["exits"]) >= {1, 2, 3} and set(trades["side"]) == {1, -1}
    assert (trades["last_stop"] != trades["stop"]).any() and trades["ambiguous"].any()


# Every second file brings each of the five cases once, on both intervals.
@pytest.mark.parametrize("step", [2, pytest.param(1, marks=pytest.mark.long)], ids=["every second", "every"])
def test_real_files(shared: Path, step: int) -> None:
    cases = [(Thresholds(), Settings()), (BUSY, Settings(allow_shorts=True)), *((BUSY, one) for one in RULES.values())]
    for i, path in list(enumerate(real_files(shared)))[::step]:
        result = check(load_real(path), *cases[i % len(cases)], COSTS, seed=i)
        assert len(result.assessment_records) and len(result.trade_records), path


@pytest.mark.long
def test_every_real_file_under_every_rule(shared: Path) -> None:
    trades = []
    for i, path in enumerate(real_files(shared)):
        for thresholds in (Thresholds(), BUSY):
            for settings in (Settings(), *RULES.values()):
                trades.append(check(load_real(path), thresholds, settings, COSTS, seed=i).trade_records)
    assert_all_exits(np.concatenate(trades))


def test_every_rule_on_simulated_candles(simulated, simulated_funding) -> None:
    trades = []
    for i, settings in enumerate(RULES.values()):
        keywords = {"candles": simulated["LINKUSDT"], "funding": simulated_funding}
        trades.append(check(keywords, BUSY, settings, COSTS, seed=20 + i).trade_records)
    assert_all_exits(np.concatenate(trades))


def test_finer_candles_tell_live_what_they_tell_in_bulk(simulated) -> None:
    """A five-minute bar with its minutes inside: pushed with them, it resolves what it touched as replay does."""
    from aione_lab.lake.resample import resample

    minutes = simulated["1000PEPEUSDT"]
    tight, settings = BUSY.replace(tp_mult=0.5, sl_mult=0.3, atr_target=0.0), RULES["ladder, both ways"]
    settings = settings.replace(min_risk_reward=0.0)
    result = replay(resample(minutes, "1m", "5m"), tight, settings=settings, costs=COSTS, finer=minutes)
    assert result.trade_records["resolved"].sum() > 3
    engine = Engine("TEST", tight, interval="5m", settings=settings, costs=COSTS)
    names = [name for name in result.bars.dtype.names if name not in ("reference_close", "funding_rate")]
    inner, offsets = result.inner
    signals, trades = [], []
    for i, bar in enumerate(result.bars):
        finer = [{name: one[name].item() for name in names} for one in inner[offsets[i] : offsets[i + 1]]]
        event = engine.push({name: bar[name].item() for name in names}, finer=finer)
        signals.append(event.signal_record.tobytes())
        trades.append(event.trade_records.tobytes())
    assert b"".join(signals) == result.signal_records.tobytes()
    assert b"".join(trades) == result.trade_records.tobytes()


def test_the_comparison_notices_a_last_bit(simulated) -> None:
    result = replay(simulated["LINKUSDT"].iloc[:6000], BUSY)
    other = result.trade_records.copy()
    other["pnl"][-1] = np.nextafter(other["pnl"][-1], np.inf)
    pushed = push_all(result, set())
    assert_same_bytes(result, pushed)
    with pytest.raises(AssertionError, match="trades"):
        assert_same_bytes(dataclasses.replace(result, trade_records=other), pushed)


def test_simulated_with_taker_flow_and_funding(simulated, simulated_funding) -> None:
    keywords = {
        "candles": simulated["LINKUSDT"],
        "symbol": "LINKUSDT",
        "reference": simulated["BTCUSDT"],
        "funding": simulated_funding,
    }
    result = check(keywords, BUSY, Settings(max_holding_minutes=600), COSTS, seed=1)
    assert result.features["flow_imbalance"].notna().any()
    assert (result.trade_records["funding_known"] > 0).any()


def test_gaps_in_the_data(simulated) -> None:
    candles = simulated["LINKUSDT"]
    keep = np.ones(len(candles), bool)
    keep[5000:5003] = keep[9000] = keep[9002] = False
    result = check({"candles": candles[keep]}, BUSY, Settings(max_holding_minutes=2000, min_stop=5.0), COSTS, seed=2)
    after = result.bars["timestamp"][4999] + 4 * 60_000
    fresh = replay(candles[candles.index >= pd.Timestamp(after, unit="ms", tz="UTC")][: 9000 - 5003], BUSY)
    # Windows start anew: what follows a gap is what a replay that begins there gives.
    np.testing.assert_array_equal(result.columns[:, 5000 : 5000 + len(fresh.bars)], fresh.columns)
    assert not (result.signal_records["signal"][5000 : 5000 + 1439] > 0).any()


def test_an_open_trade_ends_with_reason_gap(simulated) -> None:
    candles = simulated["LINKUSDT"]
    settings = Settings(max_holding_minutes=5000, min_stop=50.0, min_risk_reward=0.0)
    thresholds = BUSY.replace(tp_mult=90.0, sl_mult=90.0, atr_target=0.0)
    whole = replay(candles, thresholds, settings=settings)
    trade = whole.trade_records[0]
    middle = int(np.searchsorted(whole.bars["timestamp"], trade["entry_time"])) + 5
    result = check({"candles": candles.drop(candles.index[middle])}, thresholds, settings, COSTS, seed=3)
    gap = result.trades.iloc[0]
    assert gap.exit_reason == "gap"
    assert gap.exit_time == candles.index[middle - 1]
    assert gap.exit_price == pytest.approx(candles["close"].iloc[middle - 1] * (1 - 1e-4))


def test_five_minute_candles(simulated) -> None:
    exchange_candles = simulated["1000PEPEUSDT"]
    from aione_lab.lake.resample import resample

    result = check({"candles": resample(exchange_candles, "1m", "5m")}, BUSY, Settings(), COSTS, seed=4)
    assert result.interval == "5m"
    assert len(result.assessment_records)


def test_a_schedule_of_thresholds_equals_changing_them_live(simulated) -> None:
    candles = simulated["SOLUSDT"]
    change = candles.index[8000]
    result = replay(candles, {candles.index[0]: Thresholds(), change: BUSY})
    engine = Engine("SOLUSDT", Thresholds())
    signals = []
    bars = prepare_bars(candles, "1m")
    for i in range(len(bars)):
        if i == 8000:
            engine.thresholds = BUSY
        signals.append(engine.push({name: bars[i][name].item() for name in bars.dtype.names}).signal_record.tobytes())
    assert b"".join(signals) == result.signal_records.tobytes()
    assert result.schedule[1][0] == int(change.timestamp() * 1000)


def test_compute_features_alone(simulated) -> None:
    one = compute_features(simulated["SOLUSDT"], reference=simulated["BTCUSDT"])
    other = replay(simulated["SOLUSDT"], reference=simulated["BTCUSDT"]).features
    assert one.to_numpy().tobytes() == other.to_numpy().tobytes()
    assert list(one.columns) == list(other.columns)


def test_a_frame_reads_what_the_event_says(simulated) -> None:
    result = replay(simulated["LINKUSDT"], BUSY)
    at = int(np.flatnonzero(result.signal_records["signal"] == 2)[10])
    engine = Engine("LINKUSDT", BUSY)
    for bar in result.bars[: at + 1]:
        event = engine.push({name: bar[name].item() for name in bar.dtype.names})
    row = result.signals.iloc[at]
    assert (event.signal, event.trigger_reasons, event.confidence, event.recommendation) == (
        row.signal,
        row.trigger_reasons,
        row.confidence,
        row.recommendation,
    )
