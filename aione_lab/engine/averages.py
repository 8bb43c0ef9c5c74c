"""Exponential averages, seeded by a stated rule and carried in the state.

Both are "not there yet" (NaN) until their seed is complete; ``count`` is the number of values seen.
"""

from __future__ import annotations

import math

from aione_lab.jit import njit


@njit
def wilder_push(average, x, window):
    """Wilder's average: the simple mean of the first ``window`` values, then value += (x − value)/window.

    Source: Wilder, New Concepts in Technical Trading Systems (1978). Returns NaN before the seed.
    """
    average.count += 1
    if average.count < window:
        average.value += x
        return math.nan
    if average.count == window:
        average.value = (average.value + x) / window
    else:
        average.value += (x - average.value) / window
    return average.value


@njit
def ema_push(average, x, window):
    """EMA with α = 2/(window + 1), seeded by the first value; NaN until ``window`` values were seen."""
    average.count += 1
    if average.count == 1:
        average.value = x
    else:
        average.value += (x - average.value) * (2.0 / (window + 1.0))
    if average.count < window:
        return math.nan
    return average.value
