"""From checked frames to the BAR array that the engine reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from aione_lab.engine.records import BAR
from aione_lab.errors import InputError
from aione_lab.lake.schema import check_candles, check_funding, check_spacing, need_columns
from aione_lab.lake.stamps import read_stamps, stamp_source
from aione_lab.units import INTERVALS, MINUTE_MS, interval_ms

_OPTIONAL = ("quote_volume", "taker_buy_volume")


def frame_ms(frame: pd.DataFrame | pd.Series) -> np.ndarray:
    """int64 UTC ms of a frame's datetime index."""
    return pd.DatetimeIndex(frame.index).as_unit("ms").asi8


def infer_interval(candles: pd.DataFrame) -> str:
    """The interval of a candle frame: its most frequent spacing. InputError where that is none we know."""
    need_columns(candles, (), "candles")
    steps = np.diff(read_stamps(stamp_source(candles, "candles"), "candles.timestamp"))
    if not steps.size:
        raise InputError.of("interval", None, f"cannot be told from {len(candles)} candle(s); name one")
    spacing = int(np.median(steps))
    if 2 * int((steps == spacing).sum()) <= len(steps):
        values, counts = np.unique(steps, return_counts=True)
        spacing = int(values[counts.argmax()])
    for name, step in INTERVALS.items():
        if step == spacing:
            return name
    raise InputError.of("interval", f"{spacing} ms", f"the spacing of the candles is none of {', '.join(INTERVALS)}")


def prepare_bars(
    candles: pd.DataFrame,
    interval: str,
    reference: pd.DataFrame | pd.Series | None = None,
    funding: pd.DataFrame | pd.Series | None = None,
) -> np.ndarray:
    """Array (n,) of BAR of any candle frame: ``check_candles``, then ``bars_of``."""
    return bars_of(check_candles(candles, interval), interval, reference, funding)


def bars_of(
    candles: pd.DataFrame,
    interval: str,
    reference: pd.DataFrame | pd.Series | None = None,
    funding: pd.DataFrame | pd.Series | None = None,
) -> np.ndarray:
    """Array (n,) of BAR of a checked frame: candles, the reference's close at the same time, funding by bar.

    ``reference``: the reference symbol's candles, or its closes as a Series on a UTC index; bars of it
    that are missing are NaN. ``funding``: rates at their real stamps; a stamp up to half a minute off a
    bar's open belongs to that bar, and rates within one bar add up. Raises InputError for frames that
    ``lake.schema`` refuses.
    """
    step = interval_ms(interval)
    bars = np.zeros(len(candles), BAR)
    times = frame_ms(candles)
    check_spacing(times, interval, "candles")
    bars["timestamp"] = times
    for name in ("open", "high", "low", "close", "volume", *_OPTIONAL):
        bars[name] = candles[name].to_numpy()
    bars["reference_close"] = np.nan
    if reference is not None:
        other_times, closes = _reference_closes(reference, interval)
        place = np.searchsorted(other_times, times)
        place[place == len(other_times)] = 0
        found = other_times[place] == times
        bars["reference_close"][found] = closes[place[found]]
    bars["funding_rate"] = np.nan
    if funding is not None:
        _put_funding(bars, check_funding(funding), step)
    return bars


Inner = tuple[np.ndarray, np.ndarray]
"""Finer bars (m,) of BAR and offsets (n + 1,): those from offsets[t] to offsets[t + 1] lie inside bar t."""


def inner_of(finer: pd.DataFrame | None, interval: str, bars: np.ndarray) -> Inner:
    """The candles of a finer interval sorted into the ``bars`` they lie in; a bar that is not full of them has none.

    Raises InputError where ``finer`` are no candles or of no interval that divides ``interval``.
    """
    offsets = np.zeros(len(bars) + 1, np.int64)
    if finer is None:
        return np.zeros(0, BAR), offsets
    name = infer_interval(finer)
    step, short = interval_ms(interval), interval_ms(name)
    if short >= step or step % short:
        raise InputError.of("finer", f"{name} candles", f"must be of an interval that divides {interval}")
    inside = bars_of(check_candles(finer, name, "finer"), name)
    opens = inside["timestamp"] // step * step
    times, counts = np.unique(opens, return_counts=True)
    full = np.isin(times, bars["timestamp"]) & (counts == step // short)
    inside = inside[np.isin(opens, times[full])]
    offsets[1:] = np.cumsum(np.where(np.isin(bars["timestamp"], times[full]), step // short, 0))
    return inside, offsets


def _reference_closes(reference: Any, interval: str) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(reference, pd.Series):
        closes = reference.array  # whatever it holds, the check below reads or refuses it
        flat = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), closes), index=reference.index)
        reference = flat.assign(volume=0.0)
    checked = check_candles(reference, interval, "reference")
    times = frame_ms(checked)
    check_spacing(times, interval, "reference")
    return times, checked["close"].to_numpy()


def _put_funding(bars: np.ndarray, funding: pd.DataFrame, step: int) -> None:
    stamps = frame_ms(funding)
    opens = (stamps + MINUTE_MS // 2) // step * step
    place = np.searchsorted(bars["timestamp"], opens)
    inside = place < len(bars)
    inside[inside] = bars["timestamp"][place[inside]] == opens[inside]
    rates = bars["funding_rate"]
    for i, rate in zip(place[inside], funding["funding_rate"].to_numpy()[inside], strict=True):
        rates[i] = rate if np.isnan(rates[i]) else rates[i] + rate
