"""The last bar of a frame: a replay without memory, and what there is to say about how much it rests on."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from aione_lab.backtest.decode import features_at
from aione_lab.backtest.prepare import frame_ms, inner_of, prepare_bars
from aione_lab.engine import bulk
from aione_lab.engine.bulk import seed_days, start_state
from aione_lab.engine.columns import scratch
from aione_lab.engine.custom_run import run_features
from aione_lab.engine.params import params_record
from aione_lab.engine.records import (
    ASSESSMENT,
    BAR,
    FEATURES,
    OUT,
    SIGNAL,
    SIGNALS,
    STATE,
    SUPPRESSED,
    TRADE,
)
from aione_lab.engine.rings import empty_ring
from aione_lab.engine.spec import FeatureSpec
from aione_lab.lake.schema import check_candles
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, HOUR_MS, iso


class LastBar(NamedTuple):
    """Records of the last bar (FEATURES, SIGNAL) and hints about what they rest on."""

    row: Any
    signal: Any
    hints: tuple[str, ...]


def check_days(daily: pd.DataFrame, argument: str) -> pd.DataFrame:
    """A checked frame of one-day candles; InputError for one that is none."""
    return check_candles(daily, "1d", argument)


def replay_last_bar(
    candles: pd.DataFrame,
    reference: pd.DataFrame | pd.Series | None,
    days: pd.DataFrame | None,
    *,
    thresholds: Thresholds,
    interval: str,
    spec: FeatureSpec,
    settings: Settings,
) -> LastBar:
    """Replay ``candles`` from an empty state, seeded with the completed ``days`` before them.

    An empty frame gives what a stream knows before its first bar. Raises InputError for frames that cannot
    be used.
    """
    if isinstance(candles, pd.DataFrame) and not len(candles):
        return _no_bar(spec, interval)
    bars = prepare_bars(candles, interval, reference)
    params = params_record(thresholds, interval, spec, settings, Costs())
    states, ring = np.zeros(1, STATE), empty_ring()
    start_state(states, ring, params)
    hints = [] if days is None else _seed_days(states, params, days, bars, spec)
    n = len(bars)
    rows, block = scratch()
    signals, alerts, trades = np.zeros(n, SIGNAL), np.zeros(n, ASSESSMENT), np.zeros(n + 1, TRADE)
    memory: tuple[np.ndarray, ...]
    loop, memory = bulk.replay_features, (states["stages"],)
    if spec.custom:
        columns = run_features(states["features"], ring, bars, spec, interval)
    else:
        columns, loop, memory = np.empty((len(spec.feature_names), n)), bulk.replay_bars, (states, ring)
    inner = inner_of(None, interval, bars)
    loop(*memory, bars, *inner, 0, n, params, np.zeros(1, OUT), rows, block, columns, signals, alerts, trades)
    row, signal = features_at(columns, n - 1), signals[-1]
    return LastBar(row, signal, tuple(hints + _hints(row, signal, bars, spec, interval)))


def _no_bar(spec: FeatureSpec, interval: str) -> LastBar:
    row, signal = np.zeros(1, FEATURES), np.zeros(1, SIGNAL)
    row.view(np.float64)[:] = math.nan
    for name in ("warm", "atr_7d_days", "level_days"):
        row[name] = 0.0
    for name in ("low_gate", "high_gate", "vwap_threshold", "vol_z_threshold"):
        signal[name] = math.nan
    return LastBar(row[0], signal[0], tuple(_hints(row[0], signal[0], np.zeros(0, BAR), spec, interval)))


def bars_needed(spec: FeatureSpec, interval: str) -> int:
    """Bars in a row after which every stream is warm, wherever in the hour it began."""
    record = spec.record(interval)[0]
    hour = HOUR_MS // int(record["step_ms"])
    return max(
        int(record["day_bars"]),
        hour * spec.atr_window + hour - 1,
        spec.rsi_window + spec.rsi_mean_window,
        spec.volume_window + 1,
        spec.atr_window + 1,
    )


def _seed_days(
    states: np.ndarray, params: np.ndarray, days: pd.DataFrame, bars: np.ndarray, spec: FeatureSpec
) -> list[str]:
    first = int(bars["timestamp"][0])
    ends = frame_ms(days) + DAY_MS
    used = days[ends <= first].tail(spec.level_days)
    newest = int(frame_ms(used)[-1]) if len(used) else None
    if newest is not None:
        seed_days(states, params, used["high"].to_numpy(), used["low"].to_numpy(), newest // DAY_MS)
    own = np.flatnonzero(frame_ms(days) == first // DAY_MS * DAY_MS)
    if own.size:
        daily = states["features"]["daily"]
        daily["given_day"] = first // DAY_MS
        daily["given_high"], daily["given_low"] = days["high"].iloc[own[0]], days["low"].iloc[own[0]]
    hints = []
    late = int((ends > first).sum()) - own.size
    if late:
        hints.append(f"{late} of {len(days)} daily candles left out: they begin after the first candle")
    if newest is not None and newest + DAY_MS < first // DAY_MS * DAY_MS:
        hints.append(f"daily levels end with {iso(newest)[:10]}, before the day that precedes the first candle")
    return hints


def _hints(row: Any, signal: Any, bars: np.ndarray, spec: FeatureSpec, interval: str) -> list[str]:
    none = _why_none(bars, spec, interval) if SIGNALS[int(signal.signal)] == "NONE" else ""
    return bar_hints(SUPPRESSED[int(signal.suppressed)], float(row.atr_7d_days), int(row.level_days), none, spec)


def bar_hints(suppressed: str, atr_7d_days: float, level_days: float, none: str, spec: FeatureSpec) -> list[str]:
    """What a reader of a bar's Stage1 should know; ``none``: why there is no signal, "" where there is one."""
    hints = []
    if none:
        hints.append(none)
    elif suppressed:
        hints.append(f"alert held back: {suppressed}")
    if atr_7d_days < spec.atr_mean_days:
        hints.append(f"atr_7d rests on {atr_7d_days:.1f} of {spec.atr_mean_days} days")
    if level_days < spec.level_days:
        hints.append(f"daily levels rest on {int(level_days)} of {spec.level_days} days")
    return hints


def _why_none(bars: np.ndarray, spec: FeatureSpec, interval: str) -> str:
    times = bars["timestamp"]
    breaks = np.flatnonzero(np.diff(times) != int(spec.record(interval)["step_ms"][0]))
    run = len(bars) - (int(breaks[-1]) + 1 if breaks.size else 0)
    since = f" since the missing bar before {iso(int(times[-run]))}" if breaks.size else ""
    return why_none(run, bars_needed(spec, interval), interval, since)


def why_none(run: int, needed: int, interval: str, since: str = "") -> str:
    """Why there is no signal after ``run`` bars in a row, of which ``needed`` are."""
    if run >= needed:
        return "no signal: nothing has traded lately, so there is no ATR or no volume z-score"
    return f"no signal: {needed} bars of {interval} in a row are needed, there are {run}{since}"
