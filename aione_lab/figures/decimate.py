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
