"""What studies accept: whole numbers, shares, finite series and matrices. Everything else is refused in one line."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from aione_lab.errors import InputError
from aione_lab.errors import whole as whole


def finite(argument: str, value: Any, allowed: str = "must be a finite number") -> float:
    """Float of a finite number; a bool is none."""
    try:
        if not isinstance(value, bool) and isinstance(value, numbers.Real) and math.isfinite(float(value)):
            return float(value)
    except OverflowError:  # an integer beyond all floats is refused like no number
        pass
    raise InputError.of(argument, value, allowed)


def inner_share(argument: str, value: Any) -> float:
    """Float of a share strictly between 0 and 1."""
    allowed = "must be a share between 0 and 1, both excluded"
    number = finite(argument, value, allowed)
    if not 0.0 < number < 1.0:
        raise InputError.of(argument, value, allowed)
    return number


def finite_series(argument: str, values: Any, least: int = 1) -> np.ndarray:
    """Float64 (n,) of finite numbers, at least ``least`` of them. NaN is refused: a day without a trade is 0."""
    return _finite(argument, values, 1, (least,), f"at least {least} finite numbers, one beside the other (no NaN)")


def finite_matrix(argument: str, values: Any, least: tuple[int, int]) -> np.ndarray:
    """Float64 (rows, columns) of finite numbers, at least ``least`` of each. NaN is refused."""
    return _finite(argument, values, 2, least, f"a table of finite numbers of at least {least[0]} rows × {least[1]}")


def numbers_of(argument: str, values: Any, ndim: int, what: str) -> np.ndarray:
    """A float64 copy of ``values`` with ``ndim`` axes, NaN allowed; InputError where they are no numbers."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise InputError.of(argument, type(values).__name__, f"must be {what}") from None
    if array.ndim != ndim or array.dtype.kind not in "iuf":
        shown = f"{type(values).__name__} of {array.dtype}, shape {array.shape}"
        raise InputError.of(argument, shown, f"must be {what}")
    return array.astype(np.float64)


def _finite(argument: str, values: Any, ndim: int, least: tuple[int, ...], what: str) -> np.ndarray:
    array = numbers_of(argument, values, ndim, what)
    if any(size < wanted for size, wanted in zip(array.shape, least, strict=True)):
        raise InputError.of(argument, f"shape {array.shape}", f"must be {what}")
    if not np.isfinite(array).all():
        at = tuple(int(place) for place in np.argwhere(~np.isfinite(array))[0])
        raise InputError.of(argument, f"{array[at]} at {at[0] if ndim == 1 else at}", f"must be {what}")
    return array
