"""Indicators against published worked examples and against TA-Lib, through the engine's own step."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib
from engine_runs import MONDAY, Run, bars_of, real_bars, run, walk

from aione_lab.engine.averages import ema_push
from aione_lab.engine.records import AVERAGE
from aione_lab.engine.spec import FeatureSpec


def run_rows(high, low, close) -> Run:
    """The engine over a published table: highs, lows and closes, one bar a row."""
    n = len(close)
    columns = {
        "timestamp": MONDAY + 60_000 * np.arange(n),
        "open": close,
        "high": high,
        "low": low,
        "close": close,
        "volume": np.ones(n),
    }
    return run(bars_of(columns))


@pytest.fixture
def oracles(shared: Path) -> Path:
    folder = shared / "oracles"
    if not folder.is_dir():
        pytest.skip("the published worked examples are not here")
    return folder


def test_rsi_chartschool(oracles):
    table = pd.read_csv(oracles / "stockcharts_rsi_chartschool.csv")
    close = table["close"].to_numpy()
    rsi = run_rows(close, close, close).features["rsi"]
    known = table["rsi14_chartschool"].notna()
    assert known.sum() == 19 and rsi.first_valid_index() == known.idxmax() == 14
    # Closes and RSI are printed with four decimals.
    np.testing.assert_allclose(rsi[known], table["rsi14_chartschool"][known], rtol=0, atol=5e-5)


def test_atr_chartschool(oracles):
    table = pd.read_csv(oracles / "cs-atr.csv")
    features = run_rows(*(table[name].to_numpy() for name in ("High", "Low", "Close"))).features
    known = table["ATR"] > 0
    assert known.sum() == 17 and features["atr"].first_valid_index() == known.idxmax() == 13
    np.testing.assert_allclose(features["true_range"], table["TR"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(features["atr"][known], table["ATR"][known], rtol=0, atol=5e-10)


def test_stochastic_chartschool(oracles):
    """The first 13 rows have no close: they only carry the highs and lows."""
    table = pd.read_csv(oracles / "cs-soo.csv")
    close = table["Close"].fillna((table["High"] + table["Low"]) / 2)
    features = run_rows(table["High"].to_numpy(), table["Low"].to_numpy(), close.to_numpy()).features
    known = table["SO"].notna()
    assert known.sum() == 17 and features["stoch_k"].first_valid_index() == known.idxmax() == 13
    np.testing.assert_allclose(features["stoch_k"][known], table["SO"][known], rtol=0, atol=5e-7)
    smooth = table["SO_SIG"].notna() & features["stoch_d"].notna()
    assert smooth.sum() >= 14
    np.testing.assert_allclose(features["stoch_d"][smooth], table["SO_SIG"][smooth], rtol=0, atol=1e-6)


def test_macd_line(oracles):
    """Both EMAs start at the first close; the table's own signal column is seeded otherwise and not compared."""
    table = pd.read_csv(oracles / "cs-macd.csv")
    fast, slow = np.zeros(1, AVERAGE), np.zeros(1, AVERAGE)
    line = []
    for close in table["Close"]:
        ema_push(fast[0], close, 12)
        ema_push(slow[0], close, 26)
        line.append(fast["value"][0] - slow["value"][0])
    known = table["MACD_line"].notna()
    assert known.sum() > 100
    np.testing.assert_allclose(np.array(line)[known], table["MACD_line"][known], rtol=0, atol=5e-9)
    # The step's EMA difference is the same line, in ATRs.
    close = table["Close"].to_numpy()
    features = run_rows(close + 0.5, close - 0.5, close).features
    in_prices = features["ema_diff"] * features["atr"]
    there = known & in_prices.notna()
    assert there.sum() == len(table) - 25
    np.testing.assert_allclose(in_prices[there], table["MACD_line"][there], rtol=0, atol=5e-9)


def test_the_oracle_tells_seeds_apart(oracles):
    """Negative control: an RSI whose averages start from the first change is 20 points off the published one."""
    table = pd.read_csv(oracles / "stockcharts_rsi_chartschool.csv")
    change = table["close"].diff()
    gain, loss = (x.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean() for x in (change, -change))
    assert abs((100 * gain / (gain + loss))[14] - table["rsi14_chartschool"][14]) > 10


# ---- TA-Lib ------------------------------------------------------------------------------------

SETTLED = 800  # bars after which (13/14)^n has worn any other seed off to below 1e-20


def check_talib(bars: np.ndarray) -> None:
    """Past the seeding, everything that TA-Lib also has, to 1e-10."""
    result = run(bars)
    features = result.features
    high, low, close, volume = (np.ascontiguousarray(bars[name]) for name in ("high", "low", "close", "volume"))
    atr = features["atr"].to_numpy()
    assert len(bars) > SETTLED + 1000

    def same(name: str, got, expected, first: int = SETTLED, scale: float = 0.0) -> None:
        got, expected = np.asarray(got)[first:], np.asarray(expected)[first:]
        assert not np.isnan(expected).all(), name
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10 * scale, err_msg=name)

    same("TRANGE", features["true_range"], talib.TRANGE(high, low, close), first=1)
    same("ATR", atr, talib.ATR(high, low, close, 14))
    same("RSI", features["rsi"], talib.RSI(close, 14), scale=100.0)
    _, _, histogram = talib.MACD(close, 12, 26, 9)
    # A difference of prices: compared as a share of the price.
    same("MACD histogram", features["macd_hist"] * atr / close, histogram / close, scale=1e-3)
    difference = talib.EMA(close, 12) - talib.EMA(close, 26)
    same("EMA difference", features["ema_diff"] * atr / close, difference / close, scale=1e-3)
    # TA-Lib gives 0 where the window has no range, the engine 50.
    k, d = talib.STOCHF(high, low, close, 14, 3)
    ranged = talib.MAX(high, 14) > talib.MIN(low, 14)
    same("%K", features["stoch_k"].where(ranged, 0.0), k, first=15, scale=100.0)
    settled = pd.Series(ranged).rolling(3).min().to_numpy() == 1
    same("%D", features["stoch_d"].where(settled, 0.0), np.where(settled, d, 0.0), first=20, scale=100.0)
    same("MAX", features["sr_high"], pd.Series(talib.MAX(high, 50)).shift(), first=50)
    same("MIN", features["sr_low"], pd.Series(talib.MIN(low, 50)).shift(), first=50)
    same("MAX of a day", features["daily_high"], talib.MAX(high, 1440), first=1440)
    same("MIN of a day", features["daily_low"], talib.MIN(low, 1440), first=1440)
    same("SMA", features["volume_mean"], pd.Series(talib.SMA(volume, 50)).shift(), first=50, scale=volume.max() * 1e-3)
    same("ROCP", features["price_change"], talib.ROCP(close, 50), first=50, scale=1e-3)
    same("rolling RSI mean", features["rsi_mean"], talib.SMA(np.nan_to_num(features["rsi"]), 50), first=100)


def test_talib_on_a_walk():
    bars = walk(4000, seed=21)
    bars["volume"] = np.maximum(bars["volume"], 1e-3)
    check_talib(bars)


def test_talib_on_real_candles(shared):
    check_talib(real_bars(shared, "BTCUSDT", n=4000))


@pytest.mark.long
@pytest.mark.parametrize("symbol", ["SOLUSDT", "ENAUSDT", "XMRUSDT"])
def test_talib_on_a_month(shared, symbol):
    check_talib(real_bars(shared, symbol))


def test_talib_deviation_and_correlation():
    """TA-Lib's STDDEV and CORREL subtract sums of squares: a walk around zero keeps them comparable."""
    n = 3000
    rng = np.random.default_rng(8)
    volume = rng.uniform(0.5, 1.5, n)
    own = rng.normal(0, 1e-3, n)
    reference = 0.6 * own + rng.normal(0, 1e-3, n)
    close, other = 100 * np.exp(np.cumsum(own)), 100 * np.exp(np.cumsum(reference))
    columns = {
        "timestamp": MONDAY + 60_000 * np.arange(n),
        "open": close, "high": close * 1.001, "low": close * 0.999, "close": close,
        "volume": volume, "reference_close": other,
    }  # fmt: skip
    features = run(bars_of(columns)).features
    deviation = pd.Series(talib.STDDEV(volume, 50)).shift().to_numpy()
    np.testing.assert_allclose(features["volume_std"][50:], deviation[50:], rtol=1e-10)
    x, y = np.diff(np.log(close)), np.diff(np.log(other))
    correlation = talib.CORREL(x, y, FeatureSpec().correlation_window)
    np.testing.assert_allclose(features["correlation"][240:], correlation[239:], rtol=1e-10)
    assert math.isnan(features["correlation"][100]) and abs(correlation[-1]) > 0.2
