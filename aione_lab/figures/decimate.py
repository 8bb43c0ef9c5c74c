"""Fewer points that draw the same picture: every bucket keeps its extremes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from aione_lab.errors import InputError, whole
from aione_lab.figures.theme import floats

Array = npt.NDArray[Any]


def decimate(x: npt.ArrayLike, y: npt.ArrayLike, n: int) -> tuple[Array, Array]:
    """At most ``n`` of the points (x, y), chosen so that a line through them looks like the whole.

    The first and the last point stay, and of each of equally long buckets its lowest and its highest, in their
    order; so every extreme of the picture is there. Where a bucket holds nothing but NaN, one NaN stays: the
    gap in the line is still a gap.

    Parameters
    ----------
    x, y : one-dimensional, of one length; ``x`` ascending, of any type, ``y`` numbers (NaN allowed)
    n : at least 4

    Returns
    -------
    The chosen ``x`` and ``y``; the very arrays where there were no more than ``n`` points.
    """
    xs, ys = np.asarray(x), floats(y, "y")
    if xs.ndim != 1 or xs.shape != ys.shape:
        raise InputError.of("y", ys.shape, f"must be one-dimensional and as long as x {xs.shape}")
    rows = decimate_rows(ys, n)
    return (xs, ys) if len(rows) == len(ys) else (xs[rows], ys[rows])


def decimate_rows(y: Array, n: int) -> npt.NDArray[np.int64]:
    """Ascending row numbers that :func:`decimate` keeps of the float array ``y``."""
    if not isinstance(n, (int, np.integer)) or n < 4:
        raise InputError.of("n", n, "must be an integer, at least 4")
    if len(y) <= n:
        return np.arange(len(y))
    size = bucket_size(len(y) - 2, (n - 2) // 2)
    inner = pad(y[1:-1], size, np.nan)
    nan = np.isnan(inner)
    first = np.arange(len(inner)) * size + 1
    low = first + np.where(nan, np.inf, inner).argmin(axis=1)
    high = first + np.where(nan, -np.inf, inner).argmax(axis=1)
    return np.unique(np.concatenate([[0], low, high, [len(y) - 1]]))


def line_in_time(times: Array, values: Array, n: int) -> tuple[Array, Array]:
    """:func:`decimate` of a line over ``times``, broken by a NaN wherever bars are missing (:func:`holes`).

    A hole narrower than a bucket cannot be seen and breaks nothing. Each side of a hole keeps its first and last point;
    these may be a few more than ``n``.
    """
    size = 1 if len(values) <= n else bucket_size(len(values) - 2, (n - 2) // 2)
    after = holes(times, size)
    if not len(after):
        return decimate(times, values, n)
    step = np.diff(times).min()
    xs, ys = [], []
    for part in np.split(np.arange(len(values)), after + 1):
        rows = part[decimate_rows(values[part], max(4, n * len(part) // len(values)))]
        xs += [times[rows], times[rows[-1:]] + step]
        ys += [values[rows], np.array([np.nan])]
    return np.concatenate(xs[:-1]), np.concatenate(ys[:-1])


def band_in_time(times: Array, low: Array, high: Array, size: int) -> tuple[Array, Array, Array, Array]:
    """Time, lowest ``low`` and highest ``high`` of every bucket of ``size`` rows, and which points are edges of a hole.

    For two lines with a fill between, which goes wrong at a NaN: at the edges of a hole (:func:`holes`) they meet, so
    that nothing is filled in between.
    """
    starts = bucket_starts(times, size)
    x, lowest, highest = times[starts], np.fmin.reduceat(low, starts), np.fmax.reduceat(high, starts)
    after = holes(times, size)
    place = np.searchsorted(starts, after + 1)
    left = times[after] + (np.diff(times).min() if len(after) else 0)
    meet = np.repeat((lowest[place - 1] + highest[place - 1]) / 2, 2)
    place = np.repeat(place, 2)
    return (
        np.insert(x, place, np.column_stack([left, times[after + 1]]).ravel()),
        np.insert(lowest, place, meet),
        np.insert(highest, place, meet),
        np.insert(np.zeros(len(x), dtype=bool), place, True),
    )


def bucket_starts(times: Array, size: int) -> npt.NDArray[np.int64]:
    """Rows at which buckets of at most ``size`` rows begin; none reaches over a hole."""
    pieces = np.split(np.arange(len(times)), holes(times, size) + 1)
    return np.concatenate([piece[::size] for piece in pieces])


def holes(times: Array, size: int = 1) -> npt.NDArray[np.int64]:
    """Rows of the ascending ``times`` after which at least ``size`` bars are missing.

    Most steps between bars are of one length. Where they are not, as between trades, nothing can be called missing.
    """
    steps = np.diff(times).astype(np.int64)
    if not len(steps) or steps.min() == steps.max() or steps.min() != np.median(steps):
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(steps > steps.min() * size)


def decimate_candles(
    times: npt.ArrayLike, prices: Mapping[str, npt.ArrayLike], n: int
) -> tuple[Array, dict[str, Array]]:
    """At most ``n`` candles in the place of the given ones, each of as many bars in a row (the last may have fewer).

    Of a bucket: the first bar's time and open, the highest high, the lowest low, the last close, and the sum of the
    volume where there is one. NaN stand aside; a bucket of nothing else gives NaN.

    Parameters
    ----------
    times : one-dimensional, ascending, of any type
    prices : ``open, high, low, close`` and, if wanted, ``volume``, each as long as ``times``
    n : at least 1
    """
    xs = np.asarray(times)
    columns = {name: floats(values, name) for name, values in prices.items()}
    for name in ("open", "high", "low", "close"):
        if name not in columns:
            raise InputError.unknown("prices", name, columns)
    for name, values in columns.items():
        if name not in _OF_A_BUCKET:
            raise InputError.unknown("prices", name, _OF_A_BUCKET)
        if xs.ndim != 1 or values.shape != xs.shape:
            raise InputError.of(name, values.shape, f"must be one-dimensional and as long as times {xs.shape}")
    size = bucket_size(len(xs), whole("n", n, 1))
    if size == 1:
        return xs, columns
    return xs[::size], {name: _OF_A_BUCKET[name](pad(values, size, np.nan)) for name, values in columns.items()}


def _first(rows: Array) -> Array:
    known = ~np.isnan(rows)
    return rows[np.arange(len(rows)), known.argmax(axis=1)]


def _last(rows: Array) -> Array:
    return _first(rows[:, ::-1])


def _sum(rows: Array) -> Array:
    return np.where(np.isnan(rows).all(axis=1), np.nan, np.nansum(rows, axis=1))


_OF_A_BUCKET: dict[str, Callable[[Array], Array]] = {
    "open": _first,
    "high": lambda rows: np.fmax.reduce(rows, axis=1),
    "low": lambda rows: np.fmin.reduce(rows, axis=1),
    "close": _last,
    "volume": _sum,
}


def bucket_size(length: int, buckets: int) -> int:
    """Rows in a bucket when ``length`` rows are to fill at most ``buckets`` of them."""
    return max(1, -(-length // max(1, buckets)))


def pad(values: Array, size: int, filler: float) -> Array:
    """``values`` as a matrix of rows of ``size``, the last row filled up with ``filler``."""
    missing = -len(values) % size
    return np.concatenate([values, np.full(missing, filler)]).reshape(-1, size)
