"""Longer candles out of shorter ones."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aione_lab.errors import InputError
from aione_lab.lake.schema import CANDLE_COLUMNS, candle_frame, check_candles
from aione_lab.units import interval_ms

_MOST_DECIMALS = 10
_EXACT = 2.0**53


def resample(frame: pd.DataFrame, source: str, target: str) -> pd.DataFrame:
    """Candles of interval ``target`` out of those of ``source``; only complete ones, aligned to UTC.

    First open, highest high, lowest low, last close. Volumes and trades are summed as the decimal
    numbers they were published as (see ``decimal_sums``), and are NaN (unknown) where any part is. A
    target candle that misses a source candle is left out.

    Raises InputError for a frame ``check_candles`` refuses or a target that is not a multiple.
    """
    short, long = interval_ms(source, "source"), interval_ms(target, "target")
    if long <= short or long % short:
        raise InputError.of("target", target, f"must be a whole multiple of source={source}, and longer")
    good = check_candles(frame, source, "frame")
    ms = pd.DatetimeIndex(good.index).asi8
    factor = long // short
    bars, first, count = np.unique(ms // long, return_index=True, return_counts=True)
    complete = count == factor
    rows = first[complete][:, None] + np.arange(factor)
    value = {name: good[name].to_numpy()[rows] for name in CANDLE_COLUMNS}
    columns = {
        "open": value["open"][:, 0],
        "high": value["high"].max(axis=1),
        "low": value["low"].min(axis=1),
        "close": value["close"][:, -1],
    }
    for name in CANDLE_COLUMNS[4:]:
        columns[name] = decimal_sums(value[name])
    return candle_frame(bars[complete] * long, columns)


def decimal_sums(values: np.ndarray) -> np.ndarray:
    """Sum of each row of a float64 array (n, k), as the exchange would print it.

    Exchanges publish decimals: 15.887 + 27.247 + … is 323.498 there, and 323.49800000000005 when the
    doubles are added. Where every term of a row is the double of a number with at most 10 decimals, the
    terms are added as integers of that scale, so that the result is the double of the exact decimal
    sum. Other rows are added in the order of their terms. NaN gives NaN.
    """
    sums = np.add.accumulate(values, axis=1)[:, -1] if len(values) else np.empty(0)
    pending = np.flatnonzero(np.isfinite(sums))
    for decimals in range(_MOST_DECIMALS + 1):
        if not len(pending):
            break
        scale = 10.0**decimals
        terms = values[pending]
        whole = np.rint(terms * scale)
        fits = ((whole / scale == terms) & (np.abs(whole) < _EXACT)).all(axis=1)
        total = whole[fits].sum(axis=1)  # integers below 2**53: exact in any order
        exact = np.abs(total) < _EXACT
        sums[pending[fits][exact]] = total[exact] / scale
        pending = pending[~fits]
    return sums
