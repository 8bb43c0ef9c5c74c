"""Longer candles out of shorter ones."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aione_lab.errors import InputError
from aione_lab.lake.schema import CANDLE_COLUMNS, candle_frame, check_candles
from aione_lab.units import interval_ms


def resample(frame: pd.DataFrame, source: str, target: str) -> pd.DataFrame:
    """Candles of interval ``target`` out of those of ``source``; only complete ones, aligned to UTC.

    First open, highest high, lowest low, last close; volumes and trades are summed in the order of
    time, and NaN (unknown) where any part is. A target candle that misses a source candle is left
    out. Raises InputError for a frame ``check_candles`` refuses or a target that is not a multiple.
    """
    short, long = interval_ms(source, "source"), interval_ms(target, "target")
    if long <= short or long % short:
        raise InputError.of("target", target, f"must be a whole multiple of source={source}, and longer")
    good = check_candles(frame, source, "frame")
    ms = pd.DatetimeIndex(good.index).asi8
    factor = long // short
    bars, first, count = np.unique(ms // long, return_index=True, return_counts=True)
    complete = count == factor
    if not complete.any():
        return candle_frame(np.empty(0, np.int64), {name: np.empty(0) for name in CANDLE_COLUMNS})
    rows = first[complete][:, None] + np.arange(factor)
    value = {name: good[name].to_numpy()[rows] for name in CANDLE_COLUMNS}
    columns = {
        "open": value["open"][:, 0],
        "high": value["high"].max(axis=1),
        "low": value["low"].min(axis=1),
        "close": value["close"][:, -1],
    }
    for name in CANDLE_COLUMNS[4:]:
        columns[name] = np.add.accumulate(value[name], axis=1)[:, -1]  # in order: np.sum regroups the terms
    return candle_frame(bars[complete] * long, columns)
