"""Runs of the engine for tests: bars from columns, the step over many bars, and simulated walks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pandas as pd

from aione_lab.engine.params import params_record
from aione_lab.engine.records import ASSESSMENT, BAR, FEATURE_NAMES, OUT, SIGNAL, SIGNALS, STATE, TRADE
from aione_lab.engine.rings import empty_ring
from aione_lab.engine.spec import FeatureSpec
from aione_lab.engine.step import break_sequence, start, step_bar
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds import Thresholds
from aione_lab.units import INTERVALS

MONDAY = 1_746_403_200_000  # 2025-05-05T00:00Z
ALERT = SIGNALS.index("ALERT")

SMALL = FeatureSpec(
    rsi_window=5,
    rsi_mean_window=9,
    atr_window=6,
    atr_mean_days=1,
    macd_fast=4,
    macd_slow=9,
    macd_signal=3,
    stochastic_window=7,
    stochastic_smooth=2,
    volume_window=11,
    vwap_window=8,
    range_window=10,
    sr_window=13,
    velocity_window=3,
    flow_window=6,
    profile_window=24,
    profile_bins=8,
    profile_refresh=5,
    correlation_window=20,
    trend_fast=2,
    trend_slow=4,
    swing_bars=2,
    divergence_bars=30,
    level_days=6,
    level_swing_days=1,
)
"""Windows so short that a few hundred bars of 15 minutes go through every one of them."""


class Run(NamedTuple):
    """What the engine made of some bars."""

    bars: np.ndarray  # (n,) BAR
    features: pd.DataFrame
    signals: np.ndarray  # (n,) SIGNAL
    assessments: np.ndarray  # (alerts,) ASSESSMENT
    trades: np.ndarray  # (trades,) TRADE
    params: np.ndarray  # (1,) PARAMS


def bars_of(columns: Mapping[str, Any]) -> np.ndarray:
    """(n,) BAR from arrays by name; what is not given is NaN."""
    n = len(columns["timestamp"])
    bars = np.zeros(n, BAR)
    for name in BAR.names or ():
        bars[name] = columns.get(name, np.nan)
    return bars


def _loop(states, ring, bars, inner, offsets, params, outs, flags):
    state, param = states[0], params[0]
    start(state, ring, param)
    for t in range(bars.size):
        flags[t] = 0
        last = state.features.last_time
        if last > 0 and bars[t].timestamp - last != param.spec.step_ms:
            break_sequence(state, ring, param, outs[t])
            flags[t] = outs[t].trades
            if flags[t] == 1:
                outs[bars.size + t].trade = outs[t].trade
        step_bar(state, ring, bars[t], inner[offsets[t] : offsets[t + 1]], param, outs[t])


_compiled = _loop if numba.config.DISABLE_JIT else numba.njit(_loop)


def run(
    bars: np.ndarray,
    interval: str = "1m",
    thresholds: Thresholds | None = None,
    spec: FeatureSpec | None = None,
    settings: Settings | None = None,
    costs: Costs | None = None,
    finer: dict[int, np.ndarray] | None = None,
) -> Run:
    """Push every bar through ``step_bar`` from a fresh state, breaking the sequence where bars are missing.

    ``finer``: open time of a bar → the bars (m,) of BAR inside it.
    """
    finer, none = finer or {}, np.zeros(0, BAR)
    parts = [finer.get(time, none) for time in bars["timestamp"].tolist()]
    offsets = np.cumsum([0, *map(len, parts)])
    inner = np.zeros(offsets[-1], BAR)  # filled part by part: concatenating would compare the types of all of them
    for place, part in zip(offsets[:-1], parts, strict=True):
        inner[place : place + len(part)] = part
    params = params_record(
        thresholds or Thresholds(), interval, spec or FeatureSpec(), settings or Settings(), costs or Costs()
    )
    outs = np.zeros(2 * bars.size, OUT)  # the second half holds trades that a gap closed
    flags = np.zeros(bars.size, np.int64)
    _compiled(np.zeros(1, STATE), empty_ring(), bars, inner, offsets, params, outs, flags)
    steps = outs[: bars.size]
    features = pd.DataFrame({name: steps["features"][name] for name in FEATURE_NAMES})
    signals = steps["signal"].astype(SIGNAL)
    trades = []
    for t in range(bars.size):
        if flags[t]:
            trades.append(outs["trade"][bars.size + t])
        if steps["trades"][t]:
            trades.append(steps["trade"][t])
    return Run(
        bars,
        features,
        signals,
        steps["assessment"][signals["signal"] == ALERT].astype(ASSESSMENT),
        np.array(trades, TRADE),
        params,
    )


def walk(n: int, interval: str = "1m", seed: int = 0, volatility: float = 0.0012, first: int = MONDAY) -> np.ndarray:
    """(n,) BAR of a random walk with everything that real candles bring along.

    Bursts of volatility and volume, unknown taker volume, a frozen stretch without volume, missing bars of
    the reference, funding stamps of which some are unknown. Prices are on a tick of 0.01.
    """
    rng = np.random.default_rng(seed)
    step = INTERVALS[interval]
    market = rng.standard_normal(n)
    scale = volatility * np.exp(0.5 * np.convolve(rng.standard_normal(n + 60), np.ones(61) / 8, "valid")[:n])
    burst = rng.random(n) < 0.02
    returns = scale * (0.7 * market + 0.7 * rng.standard_normal(n)) * np.where(burst, 5.0, 1.0)
    close = np.round(100.0 * np.exp(np.cumsum(returns)), 2)
    open_ = np.concatenate([[100.0], close[:-1]])
    jump = rng.random(n) < 0.1
    open_[jump] = np.round(open_[jump] * np.exp(scale[jump] * rng.standard_normal(jump.sum())), 2)
    high = np.round(np.maximum(open_, close) * np.exp(scale * rng.exponential(0.4, n)), 2)
    low = np.round(np.minimum(open_, close) * np.exp(-scale * rng.exponential(0.4, n)), 2)
    high, low = np.maximum(high, np.maximum(open_, close)), np.minimum(low, np.minimum(open_, close))
    volume = np.round(rng.lognormal(4.0, 0.6, n) * np.where(burst, 6.0, 1.0), 3)
    taker = volume * rng.random(n)
    taker[rng.random(n) < 0.002] = np.nan
    quiet = slice(n // 3, n // 3 + 40)
    frozen = slice(n // 2, n // 2 + 70)
    volume[quiet] = 0.0
    taker[quiet] = 0.0
    volume[frozen] = 0.0
    taker[frozen] = 0.0
    price = close[frozen.start - 1]
    for prices in (open_, high, low, close):
        prices[frozen] = price
    open_[frozen.stop] = price
    high[frozen.stop] = max(high[frozen.stop], price)
    low[frozen.stop] = min(low[frozen.stop], price)
    reference = 30_000.0 * np.exp(np.cumsum(0.0006 * market))
    reference[rng.random(n) < 0.01] = np.nan
    stamps = first + step * np.arange(n)
    funding = np.full(n, np.nan)
    due = stamps % (8 * 3_600_000) == 0
    funding[due] = np.where(rng.random(due.sum()) < 0.3, np.nan, rng.normal(1e-4, 2e-4, due.sum()))
    quote = volume * (high + low + close) / 3.0
    quote[rng.random(n) < 0.01] = np.nan
    return bars_of(
        {
            "timestamp": stamps,
            "open": open_,
            "high": high,
            "low": low,
            "close": close,
            "volume": volume,
            "quote_volume": quote,
            "taker_buy_volume": taker,
            "reference_close": reference,
            "funding_rate": funding,
        }
    )


def with_gap(bars: np.ndarray, at: int, missing: int) -> np.ndarray:
    """The bars without ``missing`` of them from place ``at`` on."""
    return np.concatenate([bars[:at], bars[at + missing :]])


def real_bars(shared: Path, symbol: str, interval: str = "1m", n: int | None = None, skip: int = 0) -> np.ndarray:
    """(n,) BAR of the real candles, with BTCUSDT as the reference and the known funding."""
    folder = shared / "candles"
    frame = pd.read_parquet(folder / interval / f"{symbol}.parquet").iloc[skip:]
    frame = frame if n is None else frame.iloc[:n]
    other = pd.read_parquet(folder / interval / "BTCUSDT.parquet").set_index("timestamp")["close"]
    columns: dict[str, Any] = {name: frame[name].to_numpy() for name in frame.columns}
    columns["reference_close"] = other.reindex(frame["timestamp"]).to_numpy()
    columns["timestamp"] = milliseconds(frame["timestamp"])
    path = folder / "funding_8h" / f"{symbol}.parquet"
    if path.exists():
        rates = pd.read_parquet(path)
        step = INTERVALS[interval]
        opened = milliseconds(rates["timestamp"]) // step * step
        by_time = pd.Series(rates["funding_rate"].to_numpy(), index=opened)
        columns["funding_rate"] = by_time.reindex(columns["timestamp"]).to_numpy()
    return bars_of(columns)


def milliseconds(times: pd.Series) -> np.ndarray:
    """UTC milliseconds of a column of stamps."""
    return pd.DatetimeIndex(times).as_unit("ms").asi8
