"""All features, and those that TA-Lib can compute too, in one run with TA-Lib."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import talib

from aione_lab.backtest.prepare import prepare_bars
from aione_lab.engine import bulk
from aione_lab.engine.columns import scratch
from aione_lab.engine.features import _momentum, _ranges, _reference, _volatility, _volume
from aione_lab.engine.records import FEATURE_NAMES, FEATURE_STATE
from aione_lab.engine.rings import empty_ring
from aione_lab.engine.spec import FeatureSpec
from benchmarks.market import Market
from benchmarks.timing import Row, measure, measure_pair

GROUP = "features"

SHARE = (
    "rsi",
    "rsi_mean",
    "atr",
    "atr_pct",
    "atr_7d",
    "macd_hist",
    "ema_diff",
    "stoch_k",
    "stoch_d",
    "volume_mean",
    "volume_std",
    "volume_z",
    "vwap",
    "vwap_dev",
    "true_range",
    "range_burst",
    "price_change",
    "velocity",
    "sr_high",
    "sr_low",
    "daily_high",
    "daily_low",
    "flow_imbalance",
    "correlation",
)
"""The features that come out of TA-Lib functions; the groups of the step that make them make some more."""


def _share(states, ring, bars, specs, rows, block, places, columns):  # type: ignore[no-untyped-def]
    """The step's own groups that make ``SHARE``, and nothing else of it; columns (len(SHARE), n)."""
    state, spec = states[0], specs[0]
    size = block.shape[0]
    for base in range(0, bars.size, size):
        n = min(size, bars.size - base)
        for i in range(n):
            bar, row = bars[base + i], rows[i]
            number = bar.timestamp // spec.step_ms
            _volatility(state, ring, bar, spec, number, row)
            _momentum(state, ring, bar, spec, number, row)
            _volume(state, ring, bar, spec, number, (bar.high + bar.low + bar.close) / 3.0, row)
            _ranges(state, ring, bar, spec, number, row)
            _reference(state, ring, bar, spec, number, row)
            state.prev_close = bar.close
            state.seen += 1
        for j in range(places.size):
            for i in range(n):
                columns[j, base + i] = block[i, places[j]]


def talib_calls(bars: np.ndarray) -> list[Callable[[], object]]:
    """The TA-Lib calls behind ``SHARE``; the arithmetic between them, which ours does too, is left out."""
    spec = FeatureSpec()
    high, low, close, volume = (np.ascontiguousarray(bars[name]) for name in ("high", "low", "close", "volume"))
    value = (high + low + close) / 3.0 * volume
    taker = np.ascontiguousarray(bars["taker_buy_volume"])
    atr_pct = talib.ATR(high, low, close, 14) / close
    atr_pct[:14] = atr_pct[14]
    rsi = np.nan_to_num(talib.RSI(close, 14), nan=50.0)
    true_range = np.nan_to_num(talib.TRANGE(high, low, close))
    own = np.diff(np.log(close), prepend=np.log(close[0]))
    reference = np.nan_to_num(bars["reference_close"], nan=1.0)
    other = np.diff(np.log(reference), prepend=np.log(reference[0]))
    week = min(spec.atr_mean_days * 1440, len(close))
    return [
        lambda: talib.RSI(close, spec.rsi_window),
        lambda: talib.SMA(rsi, spec.rsi_mean_window),
        lambda: talib.ATR(high, low, close, spec.atr_window),
        lambda: talib.SMA(atr_pct, week),
        lambda: talib.MACD(close, spec.macd_fast, spec.macd_slow, spec.macd_signal),
        lambda: talib.EMA(close, spec.macd_fast),
        lambda: talib.EMA(close, spec.macd_slow),
        lambda: talib.STOCHF(high, low, close, spec.stochastic_window, spec.stochastic_smooth),
        lambda: talib.SMA(volume, spec.volume_window),
        lambda: talib.STDDEV(volume, spec.volume_window),
        lambda: talib.SUM(value, spec.vwap_window),
        lambda: talib.SUM(volume, spec.vwap_window),
        lambda: talib.TRANGE(high, low, close),
        lambda: talib.SMA(true_range, spec.range_window),
        lambda: talib.ROCP(close, spec.sr_window),
        lambda: talib.MOM(close, spec.velocity_window),
        lambda: talib.MAX(high, spec.sr_window),
        lambda: talib.MIN(low, spec.sr_window),
        lambda: talib.MAX(high, 1440),
        lambda: talib.MIN(low, 1440),
        lambda: talib.SUM(taker, spec.flow_window),
        lambda: talib.SUM(volume, spec.flow_window),
        lambda: talib.CORREL(own, other, spec.correlation_window),
    ]


def bench_features(market: Market) -> list[Row]:
    """Nanoseconds a bar of all features and of TA-Lib's share, ours and TA-Lib's."""
    size, n = market.size, market.bars
    bars = prepare_bars(market.candles, "1m", market.reference)
    spec = FeatureSpec().record("1m")
    columns = np.empty((len(FEATURE_NAMES), n))
    rows, block = scratch()

    def everything() -> None:
        states, ring = np.zeros(1, FEATURE_STATE), empty_ring()
        bulk.start_features(states, ring)
        bulk.compute_features(states, ring, bars, spec, rows, block, columns)

    places = np.array([FEATURE_NAMES.index(name) for name in SHARE])
    shared = np.empty((len(SHARE), n))
    # Not cached on disk: a cache keyed by this file alone would outlive a change of the engine.
    kernel = numba.njit(_share, error_model="numpy")

    def share() -> None:
        states, ring = np.zeros(1, FEATURE_STATE), empty_ring()
        bulk.start_features(states, ring)
        kernel(states, ring, bars, spec, rows, block, places, shared)

    calls = talib_calls(bars)

    def library() -> None:
        for call in calls:
            call()

    everything()
    share()
    if not np.array_equal(shared, columns[places], equal_nan=True):
        raise AssertionError("the share that is measured is not what the engine computes")
    unit: dict[str, Any] = {"unit": "ns", "per": n, "suffix": " a bar", "repeats": size.repeats}
    ours, theirs, ratio = measure_pair(
        GROUP,
        (f"TA-Lib's share ({len(SHARE)} features) by the engine's step", share),
        (f"TA-Lib, {len(calls)} calls", library),
        **unit,
    )
    note = f"{ratio:.2f} × TA-Lib, turn by turn; nine more features come out of the same groups"
    return [
        measure(GROUP, f"all {len(FEATURE_NAMES)} features", everything, **unit, target="≤ 300 ns a bar"),
        replace(ours, target="≤ 3 × TA-Lib's time", note=note),
        replace(theirs, note="windows of the default FeatureSpec"),
    ]


