"""Where the values of a symbol's windows lie: one row of an array for every place of every window.

One symbol has a ``ring`` of its own, float64 (ROWS,); those of a fleet are the columns of ``rings`` (ROWS, symbols).
Windows follow absolute bar numbers, so at the close of a bar all symbols write to the same rows: neighbours in memory
share what the processor fetches for one of them, where blocks of a symbol each would lie a quarter megabyte apart.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

CAPACITY = 512  # longest short window
LONG = 1440  # longest profile, correlation and one-day window: a day of minutes
DAYS = 7  # longest atr_mean_days
WEEK = DAYS * 1440  # its bars, on one-minute candles
SWING_BARS = 20  # largest swing_bars
VELOCITY_BARS = 60  # longest velocity_window
CLOSES = CAPACITY + 1  # the newest one and those up to the longest window ago
VELOCITIES = VELOCITY_BARS + 4  # a power of two: a remainder costs nothing
SWING = 2 * (2 * SWING_BARS + 1)  # two rounds of the bars that confirm a swing
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


def empty_ring() -> np.ndarray:
    """float64 (ROWS,) of NaN: nothing is read from it that was not written, but for what ``features_reset`` clears."""
    return np.full(ROWS, np.nan)
