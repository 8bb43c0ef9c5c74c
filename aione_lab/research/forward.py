"""What follows a bar: forward returns, excursions and where a condition begins, over bars that may have gaps.

Array contract: ``bars`` are a result's (n,) BAR records, ascending; ``ends`` (n,) is ``run_ends`` of them. A horizon
of ``h`` bars after bar *t* runs from the open of bar *t* + 1, the first price one can get, to the close of *t* + h.
It is NaN where a bar of it is missing or lies past the end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from aione_lab.units import DAY_MS

BPS = 1e4


class Forward(NamedTuple):
    """Forward return of every bar in bps, long side, and how it divides between the day of its entry and the next."""

    total: np.ndarray  # (n,) NaN: incomplete
    first: np.ndarray  # (n,) what is earned up to the last close of the entry's UTC day
    share: np.ndarray  # (n,) share of the horizon's bars that lie in that day


def run_ends(times: np.ndarray, step_ms: int) -> np.ndarray:
    """Number of the last bar before the next gap, for every bar."""
    last = np.append(np.flatnonzero(np.diff(times) != step_ms), len(times) - 1)
    return last[np.searchsorted(last, np.arange(len(times)))]


def onsets(holds: np.ndarray, warm: np.ndarray, times: np.ndarray, step_ms: int) -> np.ndarray:
    """Bars on which ``holds`` (n,) begins: it holds here and not on the bar before, which is there and warm."""
    begins = np.zeros(len(holds), dtype=bool)
    begins[1:] = holds[1:] & ~holds[:-1] & warm[:-1] & (np.diff(times) == step_ms)
    return begins


def forward_returns(bars: np.ndarray, ends: np.ndarray, h: int) -> Forward:
    """Simple returns over ``h`` bars (at most a day), in bps. Simple, because those of a martingale have mean zero."""
    n = len(bars)
    total, first, share = (np.full(n, np.nan) for _ in range(3))
    at = np.flatnonzero(np.arange(n) + h <= ends)
    opened, closed = bars["open"][at + 1], bars["close"]
    days = bars["timestamp"] // DAY_MS
    day_last = np.searchsorted(days, days[at + 1], side="right") - 1
    stop = np.minimum(at + h, day_last)
    total[at] = (closed[at + h] / opened - 1) * BPS
    first[at] = (closed[stop] / opened - 1) * BPS
    share[at] = (stop - at) / h
    return Forward(total, first, share)


def excursions(bars: np.ndarray, ends: np.ndarray, h: int) -> tuple[np.ndarray, np.ndarray]:
    """Best (≥ 0) and worst (≤ 0) excursion of a long within ``h`` bars against its entry, in bps."""
    n = len(bars)
    best, worst = np.full(n, np.nan), np.full(n, np.nan)
    at = np.flatnonzero(np.arange(n) + h <= ends)
    # With this origin, place i of the filter holds the extreme of i … i + h - 1.
    top = maximum_filter1d(bars["high"], h, origin=-(h // 2))
    bottom = minimum_filter1d(bars["low"], h, origin=-(h // 2))
    opened = bars["open"][at + 1]
    best[at] = (top[at + 1] / opened - 1) * BPS
    worst[at] = (bottom[at + 1] / opened - 1) * BPS
    return best, worst


def day_sums(forward: Forward, rows: np.ndarray, days: np.ndarray, n_days: int, drift: float) -> np.ndarray:
    """(2, n_days): returns of the events ``rows`` less ``drift`` by the UTC day they are earned on, and their weight.

    ``days`` (n,) is the number of the day on which a bar's entry lies, from 0; the last of ``n_days`` is a spare
    for what runs past the last entry's day. Both rows are divided by the number of events: the first adds up to
    their mean return less ``drift``, the second to 1.
    """
    total, first, share = (part[rows] for part in forward)
    first, rest = first - drift * share, total - first - drift * (1 - share)
    place = days[rows]
    earned = np.bincount(place, first, n_days) + np.bincount(place + 1, rest, n_days)
    weight = np.bincount(place, share, n_days) + np.bincount(place + 1, 1 - share, n_days)
    return np.array([earned, weight]) / max(len(rows), 1)
