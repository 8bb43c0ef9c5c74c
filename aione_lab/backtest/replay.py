"""`replay`: history through Stage1 to Stage3 in one call, and `triggers`: Stage1 alone, in columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.backtest.prepare import bars_of, frame_ms, infer_interval, inner_of, prepare_bars
from aione_lab.backtest.result import Result, features_frame
from aione_lab.engine import bulk
from aione_lab.engine.columns import scratch
from aione_lab.engine.custom_run import run_features
from aione_lab.engine.params import check_kind, limits_record, params_record
from aione_lab.engine.records import (
    ASSESSMENT,
    FEATURE_NAMES,
    FEATURE_STATE,
    OUT,
    SIGNAL,
    STATE,
    TRADE,
)
from aione_lab.engine.rings import empty_ring
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.schema import check_candles
from aione_lab.lake.store import fingerprint_candles
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.classes import thresholds_for
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import iso, parse_symbol, to_ms

Schedule = Mapping[Any, Thresholds]


def replay(
    candles: pd.DataFrame,
    thresholds: Thresholds | Schedule | None = None,
    *,
    symbol: str = "",
    interval: str | None = None,
    reference: pd.DataFrame | pd.Series | None = None,
    funding: pd.DataFrame | pd.Series | None = None,
    spec: FeatureSpec | None = None,
    settings: Settings | None = None,
    costs: Costs | None = None,
    features: pd.DataFrame | None = None,
    finer: pd.DataFrame | None = None,
) -> Result:
    """Push ``candles`` through the very step that live uses, and return what came out.

    Parameters
    ----------
    candles
        Closed candles, ascending, on a UTC DatetimeIndex or with a ``timestamp`` column (int64 ms):
        ``open, high, low, close, volume`` and, where known, ``quote_volume, trades, taker_buy_volume``.
        At a missing bar the windows start anew and an open trade is closed with reason ``gap``.
    thresholds
        One set for the whole span, or a schedule ``{time: Thresholds}``: each set holds from the first
        bar at or after its time (the first must not lie after the first bar). Left out: what the symbol's
        asset class sets, else the defaults.
    symbol, interval
        For display and messages; the interval is told from the spacing where it is not given.
    reference
        Candles (or closes) of the reference symbol, aligned on time; without them correlation is NaN.
    funding
        Funding rates at their real stamps. A stamp crossed without a known rate leaves a trade's
        funding *unknown* (NaN), and the metrics say how many were known.
    features
        ``result.features`` of an earlier replay of the same candles, interval, spec and reference, to
        replay other thresholds without computing them again. Their bytes are the same either way.
    finer
        Candles of a finer interval, to tell whether stop or target came first where one bar touches both.
        Where they are missing or touch both themselves ``settings.both_touched`` decides.

    Raises InputError, one line, for frames, intervals or objects that cannot be used.
    """
    interval = infer_interval(candles) if interval is None else interval
    symbol = parse_symbol(symbol) if symbol else ""
    spec = FeatureSpec() if spec is None else spec
    settings = Settings() if settings is None else settings
    costs = Costs() if costs is None else costs
    candles = check_candles(candles, interval)
    bars = bars_of(candles, interval, reference, funding)
    if thresholds is None:
        thresholds = thresholds_for(symbol) if symbol else Thresholds()
    schedule = _schedule(thresholds, bars)
    inner = inner_of(finer, interval, bars)
    n = len(bars)
    # np.zeros maps memory lazily: room for the worst case costs nothing until it is written.
    signals, alerts, trades = np.zeros(n, SIGNAL), np.zeros(n, ASSESSMENT), np.zeros(n + 1, TRADE)
    out = np.zeros(1, OUT)
    rows, block = scratch()
    states, ring = np.zeros(1, STATE), empty_ring()
    params = params_record(schedule[0][1], interval, spec, settings, costs)
    spans = [(first, last, limits_record(limits, spec)) for first, last, limits in _spans(schedule, n)]
    bulk.start_state(states, ring, params)
    memory: tuple[np.ndarray, ...]
    loop, memory = bulk.replay_features, (states["stages"],)
    if features is not None:
        columns = stored_columns(features, bars, spec)
    elif spec.custom:
        columns = _feature_columns(bars, spec, interval)
    else:  # nothing comes between features and stages: one loop does both
        columns, loop, memory = np.empty((len(FEATURE_NAMES), n)), bulk.replay_bars, (states, ring)
    n_alerts = n_trades = 0
    for first, last, limits in spans:
        params["limits"] = limits
        new_alerts, new_trades = loop(
            *memory,
            bars,
            *inner,
            first,
            last,
            params,
            out,
            rows,
            block,
            columns,
            signals,
            alerts[n_alerts:],
            trades[n_trades:],
        )
        n_alerts += new_alerts
        n_trades += new_trades
    columns.flags.writeable = False  # frames look into it; nobody changes a result through a frame
    return Result(
        symbol=symbol,
        interval=interval,
        schedule=tuple((int(bars["timestamp"][i]), limits) for i, limits in schedule),
        spec=spec,
        settings=settings,
        costs=costs,
        bars=bars,
        inner=inner,
        columns=columns,
        signal_records=signals,
        assessment_records=alerts[:n_alerts].copy(),
        trade_records=trades[:n_trades].copy(),
        stage_record=states["stages"].copy(),
        fingerprint=fingerprint_candles(candles),
    )


def compute_features(
    candles: pd.DataFrame,
    *,
    interval: str | None = None,
    reference: pd.DataFrame | pd.Series | None = None,
    funding: pd.DataFrame | pd.Series | None = None,
    spec: FeatureSpec | None = None,
) -> pd.DataFrame:
    """The features of ``candles``, one row a bar, one float64 column a feature; NaN: not known yet.

    They depend on the candles, the interval, ``spec`` and the reference, never on a threshold; ``funding`` is there
    for own triggers and factors that read it.
    """
    spec = FeatureSpec() if spec is None else spec
    check_kind("spec", spec, FeatureSpec)
    interval = infer_interval(candles) if interval is None else interval
    bars = prepare_bars(candles, interval, reference, funding)
    return features_frame(_feature_columns(bars, spec, interval), bars["timestamp"], spec)


def _feature_columns(bars: np.ndarray, spec: FeatureSpec, interval: str) -> np.ndarray:
    states, ring = np.zeros(1, FEATURE_STATE), empty_ring()
    bulk.start_features(states, ring)
    return run_features(states, ring, bars, spec, interval)


def triggers(
    features: pd.DataFrame,
    thresholds: Thresholds | None = None,
    *,
    settings: Settings | None = None,
    spec: FeatureSpec | None = None,
) -> pd.DataFrame:
    """Which Stage1 reasons hold on each bar: one boolean column a reason, in their fixed order.

    ``features`` is ``result.features`` or ``compute_features(...)``. Gates and cool-down are apart: they
    decide about alerts, not about reasons. All False while warming up. ``spec`` is that of the features; it is only
    needed where it has triggers or factors of its own.
    """
    thresholds = Thresholds() if thresholds is None else thresholds
    spec = FeatureSpec() if spec is None else spec
    check_kind("spec", spec, FeatureSpec)
    columns = _checked_columns(features, spec)
    # The interval steers nothing that a trigger reads; costs neither.
    params = params_record(thresholds, "1m", spec, Settings() if settings is None else settings, Costs())
    rows, block = scratch()
    masks = np.zeros(columns.shape[1], np.int64)
    bulk.trigger_masks(columns, params, rows, block, np.zeros(1, SIGNAL), masks)
    held = {name: (masks >> i & 1).astype(bool) for i, name in enumerate(spec.reasons)}
    return pd.DataFrame(held, index=features.index)


def _checked_columns(features: pd.DataFrame, spec: FeatureSpec) -> np.ndarray:
    if not isinstance(features, pd.DataFrame) or not {*FEATURE_NAMES} <= {*features.columns}:
        raise InputError.of("features", type(features).__name__, "must be the frame that compute_features returns")
    if tuple(features.columns) != spec.feature_names:
        own = [str(name) for name in features.columns if name not in FEATURE_NAMES]
        expected = ", ".join(spec.feature_names[len(FEATURE_NAMES) :]) or "none"
        raise InputError.of("features", own, f"own columns must be those of the spec: {expected}")
    columns = np.ascontiguousarray(features.to_numpy(dtype=np.float64).T).view()
    columns.flags.writeable = False
    return columns


def stored_columns(features: pd.DataFrame, bars: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """Feature columns (F, n) of a frame, checked against the bars and the spec they must belong to."""
    check_kind("spec", spec, FeatureSpec)
    columns = _checked_columns(features, spec)
    close = columns[FEATURE_NAMES.index("close")]
    if features.attrs.get("spec", spec.digest()) != spec.digest():
        raise InputError.of("features", "computed with another FeatureSpec", "must be those of the spec that is given")
    if len(features) != len(bars) or not (
        np.array_equal(frame_ms(features), bars["timestamp"]) and np.array_equal(close, bars["close"])
    ):
        raise InputError.of("features", f"{len(features)} rows", "must be the features of these very candles")
    return columns


def _schedule(thresholds: Any, bars: np.ndarray) -> list[tuple[int, Thresholds]]:
    """[(first bar, thresholds)], ascending, the first at bar 0."""
    if not isinstance(thresholds, Mapping):
        return [(0, thresholds)]
    if not thresholds:
        raise InputError.of("thresholds", thresholds, "a schedule needs at least one time")
    for limits in thresholds.values():
        check_kind("thresholds", limits, Thresholds)
    times = sorted(
        ((to_ms(time, "thresholds time"), limits) for time, limits in thresholds.items()), key=lambda entry: entry[0]
    )
    if times[0][0] > bars["timestamp"][0]:
        raise InputError.of("thresholds", iso(times[0][0]), "a schedule must not begin after the first candle")
    places = {int(np.searchsorted(bars["timestamp"], time)): limits for time, limits in times}
    before = [limits for time, limits in times if time <= bars["timestamp"][0]]
    places[0] = before[-1]
    return [(i, places[i]) for i in sorted(places) if i < len(bars)]


def _spans(schedule: list[tuple[int, Thresholds]], n: int) -> list[tuple[int, int, Thresholds]]:
    ends = [first for first, _ in schedule[1:]] + [n]
    return [(first, end, limits) for (first, limits), end in zip(schedule, ends, strict=True)]
