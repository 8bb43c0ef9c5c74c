"""Where the values of a symbol's windows lie: one row of an array for every place of every window.

``rings`` are float64 (ROWS, symbols); a kernel gets ``ring``, the column of its symbol. Windows follow absolute bar
numbers, so at the close of a bar all symbols write to the same rows: neighbours in memory share what the processor
fetches for one of them. With a block of memory a symbol 300 of them would touch 12,000 pages a bar instead of 100.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

CAPACITY = 512  # longest short window
LONG = 1440  # longest profile, correlation and one-day window: a day of minutes
DAYS = 7  # longest atr_mean_days
WEEK = DAYS * 1440  # its bars, on one-minute candles
CLOSES = CAPACITY + 1  # the newest one and those up to the longest window ago
VELOCITIES = 64
SWING = 82  # two rounds of the longest stretch that confirms a swing
PAIR = 6  # numbers that co-moments consist of

_SIZES = {
    "rsi_mean": CAPACITY,
    "range_mean": CAPACITY,
    "vwap_value": CAPACITY,
    "vwap_volume": CAPACITY,
    "stoch_mean": CAPACITY,
    "flow_buy": CAPACITY,
    "flow_all": CAPACITY,
    "stoch_high": CAPACITY,
    "stoch_low": CAPACITY,
    "sr_high": CAPACITY,
    "sr_low": CAPACITY,
    "day_high": LONG,
    "day_low": LONG,
    "volume_means": CAPACITY,
    "volume_m2s": CAPACITY,
    "pairs": LONG * PAIR,
    "swing_highs": SWING,
    "swing_lows": SWING,
    "swing_rsis": SWING,
    "profile_typical": LONG,
    "profile_volume": LONG,
    "closes": CLOSES,
    "velocities": VELOCITIES,
    "atr_7d": WEEK,
}

# A namedtuple, because kernels read one that is global as numbers known when they are compiled.
_Rows = namedtuple("_Rows", tuple(_SIZES))  # type: ignore[misc]  # noqa: PYI024
RINGS = _Rows(*(sum(list(_SIZES.values())[:i]) for i in range(len(_SIZES))))
"""The first row of each window."""

ROWS = sum(_SIZES.values())


def empty_rings(symbols: int = 1) -> np.ndarray:
    """float64 (ROWS, symbols) of zeros; ``features_reset`` makes a column ready."""
    return np.zeros((ROWS, symbols))
