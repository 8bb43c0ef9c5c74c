"""Every feature of the engine against its plain twin, on simulated and on real candles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from engine_runs import MONDAY, SMALL, bars_of, real_bars, run, walk, with_gap
from naive import ref_features

from aione_lab.engine.records import FEATURE_NAMES
from aione_lab.engine.spec import FeatureSpec

# Differences of prices in ATRs: held to the rounding of the price, times ATR, however small the ATR has become.
IN_ATRS = {
    "macd_hist", "macd_hist_change", "ema_diff", "velocity", "acceleration", "support_distance",
    "resistance_distance", "trend_1_strength", "trend_2_strength",
}  # fmt: skip
# Differences of numbers about one (or a hundred, for RSI): their own rounding stays when they cancel.
DIFFERENCES = {
    "vwap_dev", "price_change", "bullish_divergence", "bearish_divergence", "volume_z", "taker_imbalance",
    "flow_imbalance", "correlation", "relative_strength", "market_drift",
}  # fmt: skip


def assert_same(comp: pd.DataFrame, ref: pd.DataFrame) -> None:
    assert list(comp) == list(ref) == list(FEATURE_NAMES)
    for name in FEATURE_NAMES:
        x, y = comp[name].to_numpy(), ref[name].to_numpy(float)
        if name in IN_ATRS:
            np.testing.assert_array_equal(np.isnan(x), np.isnan(y), err_msg=name)
            atr, close = ref["atr"].to_numpy(), ref["close"].to_numpy()
            x, y = x * atr / close, y * atr / close
        atol = 1e-13 if name in IN_ATRS else 1e-11 if name in DIFFERENCES else 0.0
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=atol, equal_nan=True, err_msg=name)


@pytest.mark.parametrize("seed", [1, 2])
def test_one_minute_walk(seed):
    bars = walk(3600, "1m", seed=seed)
    comp = run(bars).features
    assert_same(comp, ref_features(bars, "1m", FeatureSpec()))


def test_start_inside_a_day_and_a_gap():
    bars = with_gap(walk(5200, "1m", seed=3, first=MONDAY + 7 * 60_000), 2300, 11)
    comp = run(bars).features
    assert_same(comp, ref_features(bars, "1m", FeatureSpec()))
    assert comp["warm"].iloc[2299] == 1.0 and comp["warm"].iloc[2300] == 0.0  # forgotten with the gap
    assert comp["warm"].iloc[-1] == 1.0


@pytest.mark.parametrize("interval", ["3m", "5m", "15m"])
def test_other_intervals(interval):
    bars = walk(2600, interval, seed=4, volatility=0.002)
    assert_same(run(bars, interval).features, ref_features(bars, interval, FeatureSpec()))


def test_short_windows_over_many_days():
    """96 bars a day: the week's mean, the levels of the last days and every window turn over many times."""
    bars = walk(2400, "15m", seed=5, volatility=0.004)
    comp = run(bars, "15m", spec=SMALL).features
    assert_same(comp, ref_features(bars, "15m", SMALL))
    assert comp["level_days"].max() == SMALL.level_days
    for name in FEATURE_NAMES:
        assert comp[name].notna().any(), f"{name} never occurs: the comparison would be empty"


def largest(name: str) -> int:
    """What a window of the spec may be at most."""
    (most,) = (limit.le for limit in FeatureSpec.model_fields[name].metadata if hasattr(limit, "le"))
    return most


def test_every_window_at_its_largest():
    """No window's rows reach into those of the next one."""
    names = [name for name in FeatureSpec.model_fields if name.endswith(("_window", "_smooth")) or name == "swing_bars"]
    names.remove("atr_window")  # of bars and of hours: 512 of those are weeks before any ATR is known
    spec = FeatureSpec(**{name: largest(name) for name in names})
    bars = walk(5400, "1m", seed=8)
    comp = run(bars, spec=spec).features
    assert_same(comp, ref_features(bars, "1m", spec))
    seldom = {"bullish_divergence", "bearish_divergence"}
    assert all(comp[name].notna().any() for name in FEATURE_NAMES if name not in seldom)


def test_frozen_symbol():
    """Constant price, no volume: no division by zero, RSI and stochastic in the middle, no burst, no z-score."""
    n = 2000
    price = np.full(n, 7.25)
    bars = bars_of(
        {
            "timestamp": MONDAY + 60_000 * np.arange(n),
            "open": price, "high": price, "low": price, "close": price,
            "volume": np.zeros(n), "taker_buy_volume": np.zeros(n),
            "reference_close": np.full(n, 30_000.0),
        }
    )  # fmt: skip
    result = run(bars)
    assert_same(result.features, ref_features(bars, "1m", FeatureSpec()))
    last = result.features.iloc[-1]
    assert last["rsi"] == 50.0 and last["stoch_k"] == 50.0 and last["atr"] == 0.0
    assert np.isnan(last["volume_z"]) and np.isnan(last["vwap"]) and np.isnan(last["correlation"])
    assert (result.signals["signal"] == 0).all() and result.trades.size == 0


@pytest.mark.parametrize(("symbol", "interval"), [("BTCUSDT", "1m"), ("ENAUSDT", "1m"), ("SOLUSDT", "5m")])
def test_real_candles(shared, symbol, interval):
    bars = real_bars(shared, symbol, interval, n=3000, skip=1000)
    assert_same(run(bars, interval).features, ref_features(bars, interval, FeatureSpec()))


@pytest.mark.long
@pytest.mark.parametrize("symbol", ["AVAXUSDT", "ETHUSDT", "SOLUSDT", "XMRUSDT", "XRPUSDT"])
def test_real_candles_two_weeks(shared, symbol):
    bars = real_bars(shared, symbol, n=20_000)
    assert_same(run(bars).features, ref_features(bars, "1m", FeatureSpec()))
