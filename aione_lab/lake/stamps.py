"""Time stamps of foreign frames: reading them as UTC milliseconds and mending the known faults."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.errors import InputError
from aione_lab.units import EARLIEST_MS, LATEST_MS

UNREADABLE = np.iinfo(np.int64).min
"""Stands for a stamp that could not be read at all (NaT, text); it is outside every plausible year."""

FINER_THAN_MS = UNREADABLE + 1
"""Stands for a stamp with a fraction of a millisecond: never on the grid of an interval."""

_ZONED = "must be int64 UTC milliseconds or UTC times such as 2025-05-10T12:30:00Z, neither naive nor in another zone"
_UTC_NAMES = {
    *("UTC", "UCT", "GMT", "ZULU", "UNIVERSAL", "GREENWICH", "GMT0", "GMT+0", "GMT-0"),
    *("UTC+00:00", "+00:00", "TZUTC()"),  # fixed offsets and dateutil
}
_UNITS_PER_MS = {"us": 1_000, "ns": 1_000_000}
_TWO_32 = 2**32


def stamp_source(frame: pd.DataFrame, argument: str) -> pd.Index | pd.Series:
    """The frame's stamps: its index of datetimes, else its column ``timestamp``; InputError when it has neither."""
    if frame.index.dtype.kind == "M":
        return frame.index
    if "timestamp" in frame.columns:
        return frame["timestamp"]
    raise InputError.of(
        argument, list(frame.columns), "needs a UTC DatetimeIndex or a column timestamp (int64 ms or UTC datetimes)"
    )


def read_stamps(source: pd.Index | pd.Series, argument: str) -> np.ndarray:
    """UTC milliseconds of an index or column, int64, in the order given.

    Integers are taken as they are (their unit is judged later), datetimes must carry the zone UTC.
    What cannot be read becomes ``UNREADABLE``, fractions of a millisecond ``FINER_THAN_MS``.
    Raises InputError for naive times, another zone, or a type that is no time at all.
    """
    if isinstance(source.dtype, pd.ArrowDtype) and source.dtype.kind == "M":
        source = pd.DatetimeIndex(source)
    dtype = source.dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        if str(dtype.tz).upper().removeprefix("ETC/") not in _UTC_NAMES:
            raise InputError.of(argument, str(dtype.tz), "times must be in UTC (use .tz_convert('UTC'))")
        return _datetime_ms(pd.DatetimeIndex(source))
    if pd.api.types.is_datetime64_dtype(dtype):
        shown = str(source.to_numpy()[0]) if len(source) else str(dtype)
        raise InputError.of(argument, shown, "naive times are ambiguous (use .tz_localize('UTC') if they are UTC)")
    if pd.api.types.is_bool_dtype(dtype):
        raise InputError.of(argument, str(dtype), "must be int64 UTC milliseconds or UTC datetimes")
    if pd.api.types.is_integer_dtype(dtype) and not source.hasnans:
        if dtype.kind == "u":
            source = source.where(source < 2**63, 0)  # no time either way, and no wrapping into negatives
        return np.array(source.to_numpy(), dtype=np.int64)  # a copy: the frame stays the caller's
    if pd.api.types.is_numeric_dtype(dtype):
        return _float_ms(np.asarray(source.to_numpy(dtype=np.float64, na_value=np.nan)))
    return _object_ms(source, argument)


def _datetime_ms(index: pd.DatetimeIndex) -> np.ndarray:
    missing = np.asarray(index.isna())
    raw = index.asi8
    if index.unit in _UNITS_PER_MS:
        ms = raw // _UNITS_PER_MS[index.unit]
        ms[ms * _UNITS_PER_MS[index.unit] != raw] = FINER_THAN_MS
    else:
        ms = raw * (1_000 if index.unit == "s" else 1)
    if missing.any():
        ms = np.where(missing, UNREADABLE, ms)
    return ms


def _float_ms(values: np.ndarray) -> np.ndarray:
    readable = np.isfinite(values) & (np.abs(values) < 2.0**62)
    safe = np.where(readable, values, 0.0)
    ms = safe.astype(np.int64)
    ms[safe != np.floor(safe)] = FINER_THAN_MS
    ms[~readable] = UNREADABLE
    return ms


def _object_ms(source: pd.Index | pd.Series, argument: str) -> np.ndarray:
    values: list[Any] = list(source)
    numbers = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce")
    if numbers.notna().any():  # a text column of a CSV: rows that are no number are refused one by one
        exact = [_whole(value) for value in values]
        return np.array(exact, dtype=np.int64)
    for value in values:
        if not pd.isna(value) and not _is_utc(value):
            raise InputError.of(argument, str(value), _ZONED)
    try:
        parsed = pd.to_datetime(pd.Series(values, dtype=object), utc=True, errors="raise", format="ISO8601")
    except (ValueError, TypeError):
        raise InputError.of(argument, values[0], _ZONED) from None
    return _datetime_ms(pd.DatetimeIndex(parsed))


def _is_utc(value: Any) -> bool:
    """Whether a text or datetime says that it is UTC; a date or a naive time does not."""
    if isinstance(value, str):
        return value.strip().upper().endswith(("Z", "+00:00", "+0000", "UTC"))
    return isinstance(value, dt.datetime) and value.utcoffset() == dt.timedelta(0)


def _whole(value: Any) -> int:
    """One stamp out of a mixed or text column; big integers keep every digit."""
    try:
        number = float(value)
    except (ValueError, TypeError):
        return int(UNREADABLE)
    if not math.isfinite(number) or abs(number) >= 2.0**62:
        return int(UNREADABLE)
    if number != math.floor(number):
        return int(FINER_THAN_MS)
    try:
        return int(value)
    except ValueError:  # text such as "1.7e12"
        return int(number)


def plausible(ms: np.ndarray) -> np.ndarray:
    """Mask of stamps that lie between 2009 and 2100."""
    return (ms >= EARLIEST_MS) & (ms < LATEST_MS)


def mend_stamps(ms: np.ndarray, step_ms: int, latest_ms: int = LATEST_MS) -> tuple[np.ndarray, dict[str, int]]:
    """Mend the stamp faults seen in published archives; what stays doubtful is left as it is.

    - micro- and nanoseconds (archives from 2025 on) become milliseconds when nothing is lost by it;
    - stamps cut to 32 bits (dates in January and February 1970) get k·2**32 ms back. The interval's
      grid leaves one k in 1,875 or more, while 2009–2100 holds 670 of them: at most one fits. When
      every such row could as well be whole *seconds* on the grid, none is touched.

    Returns the stamps (a new array when anything changed) and a count per fault.
    """
    fixed: dict[str, int] = {}
    for name, factor in (("microseconds", 1_000), ("nanoseconds", 1_000_000)):
        fine = (ms >= EARLIEST_MS * factor) & (ms < LATEST_MS * factor)
        if fine.any():
            whole = ms // factor
            fine &= whole * factor == ms
            if fine.any():
                ms = np.where(fine, whole, ms)
                fixed[name] = int(fine.sum())
    cut = (ms >= -(2**31)) & (ms < _TWO_32)
    if cut.any():
        low = ms[cut]
        if not ((low * 1_000 >= EARLIEST_MS) & (low * 1_000 % step_ms == 0)).all():
            restored = _restore_32_bit(low, step_ms, latest_ms)
            found = restored != low
            if found.any():
                ms = ms.copy()
                ms[cut] = restored
                fixed["32-bit"] = int(found.sum())
    return ms, fixed


def _restore_32_bit(low: np.ndarray, step_ms: int, latest_ms: int) -> np.ndarray:
    """Add the one k·2**32 that puts each stamp on the grid between 2009 and ``latest_ms``."""
    unsigned = low % _TWO_32
    shared = math.gcd(_TWO_32, step_ms)
    modulus = step_ms // shared
    inverse = pow(_TWO_32 // shared, -1, modulus)
    k = (-(unsigned // shared) % modulus) * inverse % modulus
    restored = unsigned + k * _TWO_32
    good = (unsigned % shared == 0) & (restored >= EARLIEST_MS) & (restored < latest_ms)
    return np.where(good, restored, low)


def utc_index(ms: np.ndarray) -> pd.DatetimeIndex:
    """The lake's index of int64 UTC milliseconds: tz-aware, unit ms, named ``timestamp``."""
    times = np.ascontiguousarray(ms, dtype=np.int64).view("M8[ms]")
    return pd.DatetimeIndex(times, name="timestamp").tz_localize("UTC")


def stamp_text(ms: int) -> str:
    """ISO text of a plausible stamp, the bare number of any other."""
    if not EARLIEST_MS <= ms < LATEST_MS:
        return "no time" if ms == UNREADABLE else str(ms)
    return pd.Timestamp(ms, unit="ms", tz="UTC").isoformat()
