"""What a candle frame is: the strict check of user frames and the lenient screen of foreign rows."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from aione_lab.errors import InputError
from aione_lab.lake.stamps import (
    FINER_THAN_MS,
    UNREADABLE,
    mend_stamps,
    plausible,
    read_stamps,
    stamp_source,
    stamp_text,
    utc_index,
)
from aione_lab.units import INTERVALS, LATEST_MS, interval_ms

PRICES = ("open", "high", "low", "close")
REQUIRED_COLUMNS = (*PRICES, "volume")
OPTIONAL_COLUMNS = ("quote_volume", "trades", "taker_buy_volume")
CANDLE_COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
"""Columns of a candle frame beside its index ``timestamp``; all float64, the optional ones NaN where unknown."""

LEAST_PRICE, MOST_PRICE = 1e-12, 1e12
"""Prices beyond these are no prices: arithmetic on them leaves the range of a double."""

_ROUNDING = 1e-9  # a part and its whole may have been rounded apart

FUNDING_COLUMNS = ("funding_rate",)
"""Columns of a funding frame beside its index ``timestamp``: the rate of one payment, as a fraction."""


class Screened(NamedTuple):
    """Result of a lenient screen; ``good.attrs["stamps_fixed"]`` counts the stamp faults mended, by name."""

    good: pd.DataFrame
    refused: pd.DataFrame


def check_candles(frame: pd.DataFrame, interval: str, argument: str = "candles") -> pd.DataFrame:
    """Strict check of a candle frame; returns it in the lake's shape.

    ``frame`` has a UTC DatetimeIndex, or a column ``timestamp`` (int64 ms or UTC datetimes), and the
    columns open, high, low, close, volume (base units); quote_volume, trades and taker_buy_volume
    where known, NaN where not. Other columns are dropped. Gaps are allowed.

    Returns a frame of ``CANDLE_COLUMNS`` (float64) on an index of unit ms; the input is not changed.
    Raises InputError, one line with the first offending row, for: an empty frame, missing columns,
    naive or non-UTC times, stamps outside 2009–2100, off the grid, unsorted or repeated, prices that
    are NaN, infinite, not positive or not between 1e-12 and 1e12, NaN or negative volume, taker-buy volume
    above the volume, high below or low above open or close, and columns that hold anything but numbers.
    """
    step = interval_ms(interval)
    need_columns(frame, REQUIRED_COLUMNS, argument)
    if not len(frame):
        raise InputError.of(argument, "empty frame", "must hold at least one candle")
    ms = read_stamps(stamp_source(frame, argument), f"{argument}.timestamp")
    _check_stamps(ms, step, interval, argument)
    values = read_numbers(frame, CANDLE_COLUMNS, argument)
    _check_values(values, ms, argument)
    if tuple(frame.columns) == CANDLE_COLUMNS and _is_lake_index(frame.index):
        if all(dtype == np.float64 for dtype in frame.dtypes):
            return frame.copy(deep=False)
    return candle_frame(ms, values)


def candle_frame(ms: np.ndarray, values: dict[str, np.ndarray], *, copy: bool = True) -> pd.DataFrame:
    """A candle frame of int64 ms and float64 columns; optional columns that are not given are NaN."""
    columns = {name: values[name] if name in values else np.full(len(ms), np.nan) for name in CANDLE_COLUMNS}
    return pd.DataFrame(columns, index=utc_index(ms), copy=copy)


def screen_candles(frame: pd.DataFrame, interval: str, now_ms: int | None = None) -> Screened:
    """Lenient screen of foreign rows: keeps the good ones, names a reason for every other one.

    Takes what ``check_candles`` takes, unsorted, with numbers as text if need be. Known stamp faults
    are mended (see ``mend_stamps``) and counted in ``good.attrs["stamps_fixed"]``. Of rows with the same
    stamp the last one given is kept. With ``now_ms`` a candle that has not ended by then is refused.

    Returns ``(good, refused)``: a sorted candle frame, and a frame of ``timestamp`` (int64 as it was
    given) and ``reason``, one row for each row refused. Raises InputError only for what concerns the
    whole frame: missing columns, columns of truth values or times, naive or non-UTC times, an unknown interval.
    """
    step = interval_ms(interval)
    need_columns(frame, REQUIRED_COLUMNS, "candles")
    given = read_stamps(stamp_source(frame, "candles"), "candles.timestamp")
    ms, fixed = mend_stamps(given, step, LATEST_MS if now_ms is None else now_ms)
    values = read_numbers(frame, CANDLE_COLUMNS, "candles", text=True)
    reasons = np.full(len(ms), "", dtype=object)

    def refuse(bad: np.ndarray, reason: str) -> None:
        reasons[bad & (reasons == "")] = reason

    refuse(ms == UNREADABLE, "timestamp is not a time")
    refuse(ms == FINER_THAN_MS, "timestamp has a fraction of a millisecond")
    refuse(~plausible(ms), "timestamp is outside 2009-2100")
    refuse(ms % step != 0, f"timestamp is off the {interval} grid")
    if now_ms is not None:
        refuse(ms + step > now_ms, "candle is not finished")
    for name, bad, rule in value_faults(values):
        refuse(bad, f"{name} {rule}")
    good = np.flatnonzero(reasons == "")
    order = good[np.argsort(ms[good], kind="stable")]
    if len(order):
        last = np.append(ms[order][1:] != ms[order][:-1], True)
        reasons[order[~last]] = "same timestamp as a later row, which is kept"
        order = order[last]
    out = candle_frame(ms[order], {name: column[order] for name, column in values.items()})
    out.attrs["stamps_fixed"] = fixed
    bad_rows = np.flatnonzero(reasons != "")
    return Screened(out, pd.DataFrame({"timestamp": given[bad_rows], "reason": reasons[bad_rows]}))


def check_funding(frame: pd.DataFrame | pd.Series, argument: str = "funding") -> pd.DataFrame:
    """Strict check of funding rates; stamps a few ms off the hour are kept as they are.

    ``frame`` has a UTC DatetimeIndex or a column ``timestamp``, and a column ``funding_rate`` (a fraction:
    0.0001 is one basis point); a Series of rates on a UTC index will do. Returns a frame of
    ``FUNDING_COLUMNS``. Raises InputError for stamps unsorted, repeated, naive or implausible, and for
    rates that are NaN, infinite or not between -1 and 1.
    """
    if isinstance(frame, pd.Series):
        frame = frame.to_frame("funding_rate")
    need_columns(frame, FUNDING_COLUMNS, argument)
    ms = read_stamps(stamp_source(frame, argument), f"{argument}.timestamp")
    _check_stamps(ms, 1, "ms", argument)
    rate = read_numbers(frame, FUNDING_COLUMNS, argument)["funding_rate"]
    bad = ~(np.abs(rate) < 1.0)
    if bad.any():
        row = int(np.argmax(bad))
        rule = _where(ms, row, "must be a fraction between -1 and 1")
        raise InputError.of(f"{argument}.funding_rate", float(rate[row]), rule)
    return pd.DataFrame({"funding_rate": rate}, index=utc_index(ms))


def need_columns(frame: pd.DataFrame, needed: tuple[str, ...], argument: str) -> None:
    """InputError unless ``frame`` is a DataFrame that has each needed column, and none of ours twice."""
    if not isinstance(frame, pd.DataFrame):
        raise InputError.of(argument, type(frame).__name__, "must be a pandas DataFrame")
    if frame.columns.nlevels > 1:
        raise InputError.of(argument, list(frame.columns), "must have plain columns, not several levels of them")
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise InputError.of(argument, list(frame.columns), f"missing column(s) {', '.join(missing)}")
    twice = [name for name in (*CANDLE_COLUMNS, *FUNDING_COLUMNS, "timestamp") if list(frame.columns).count(name) > 1]
    if twice:
        raise InputError.of(argument, list(frame.columns), f"column {twice[0]} is there more than once")


def _is_lake_index(index: pd.Index) -> bool:
    return (
        isinstance(index, pd.DatetimeIndex)
        and index.unit == "ms"
        and str(index.tz) == "UTC"
        and index.name == "timestamp"
    )


def read_numbers(
    frame: pd.DataFrame, names: Iterable[str], argument: str, *, text: bool = False
) -> dict[str, np.ndarray]:
    """float64 arrays of those of ``names`` that ``frame`` has, NaN where a value is missing.

    Integers, floats and decimals are numbers, however they are stored. Truth values, times and complex
    numbers are none, and a column of them is an InputError. So is text, unless ``text`` allows it: then
    what is no number becomes NaN.
    """
    return {name: _floats(frame[name], f"{argument}.{name}", text) for name in names if name in frame.columns}


def _floats(column: pd.Series, argument: str, text: bool) -> np.ndarray:
    plain = pd.api.types
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype if column.cat.categories.dtype.kind in "iuf" else object)
    dtype = column.dtype
    numeric = plain.is_numeric_dtype(dtype) and not plain.is_bool_dtype(dtype) and not plain.is_complex_dtype(dtype)
    if not numeric and (plain.is_object_dtype(dtype) or plain.is_string_dtype(dtype)):
        numeric = all(map(_is_textual if text else _is_real, column))
    try:
        if numeric and text:
            column = pd.to_numeric(column, errors="coerce")
        if numeric:
            return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    except (ValueError, TypeError, OverflowError):
        pass  # an integer beyond every float: refused below
    raise InputError.of(argument, str(dtype), "must be numbers") from None


def _is_real(value: Any) -> bool:
    if value is None or value is pd.NA:
        return True
    return isinstance(value, (numbers.Real, Decimal)) and not isinstance(value, bool)


def _is_textual(value: Any) -> bool:
    return isinstance(value, str) or _is_real(value)


def spacing_fault(ms: np.ndarray, interval: str) -> str | None:
    """How far ``ms`` (int64, in any order) stand apart, ``5m``, where that is another interval than theirs.

    Gaps make odd distances: none of the rows directly following another, and more than half of the
    distances the same, is what tells another interval. Two rows tell nothing.
    """
    step = INTERVALS[interval]
    apart = np.diff(ms)
    if len(apart) and (apart >= step).all() and (apart == step).any():
        return None  # the ordinary case: sorted, and some rows directly follow one another
    gaps, counts = np.unique(np.diff(np.unique(ms)), return_counts=True)
    if not len(gaps):
        return None
    spacing = int(gaps[np.argmax(counts)])
    if spacing == step:
        return None
    if spacing > step and (step in gaps or counts.sum() < 2 or 2 * counts.max() <= counts.sum()):
        return None
    return next((name for name, length in INTERVALS.items() if length == spacing), f"{spacing / 1000:g} s")


def check_spacing(ms: np.ndarray, interval: str, argument: str) -> None:
    """InputError where the rows of ``argument`` stand at another distance than ``interval`` (gaps are fine)."""
    if (apart := spacing_fault(ms, interval)) is not None:
        raise InputError.of("interval", interval, f"was named, but the rows of {argument} stand {apart} apart")


def as_list(values: Any, argument: str, allowed: str) -> list[Any]:
    """The elements of any iterable but a text; InputError for everything else."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InputError.of(argument, values, allowed)
    return list(values)


def _where(ms: np.ndarray, row: int, rule: str) -> str:
    return f"row {row} ({stamp_text(int(ms[row]))}): {rule}"


def _check_stamps(ms: np.ndarray, step: int, interval: str, argument: str) -> None:
    """Refuse the first stamp that is implausible, off the grid, repeated or out of order."""
    name = f"{argument}.timestamp"
    bad = ~plausible(ms)
    if bad.any():
        row = int(np.argmax(bad))
        if ms[row] == FINER_THAN_MS:
            raise InputError.of(name, "a fraction of a millisecond", f"row {row}: must be whole UTC milliseconds")
        shown = "NaT" if ms[row] == UNREADABLE else int(ms[row])
        raise InputError.of(name, shown, f"row {row}: must be UTC milliseconds between 2009 and 2100")
    bad = ms // step * step != ms
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError.of(name, stamp_text(int(ms[row])), f"row {row}: must lie on the grid of {interval}")
    bad = ms[1:] <= ms[:-1]
    if bad.any():
        row = int(np.argmax(bad)) + 1
        fault = "is repeated" if ms[row] == ms[row - 1] else "is earlier than the row before it"
        raise InputError.of(name, stamp_text(int(ms[row])), f"row {row} {fault}: times must rise, each once")


def _check_values(values: dict[str, np.ndarray], ms: np.ndarray, argument: str) -> None:
    """Refuse the first bad number; the whole-column tests keep the good case at a few ms a symbol-year."""
    prices_fine = all(values[name].min() >= LEAST_PRICE and values[name].max() <= MOST_PRICE for name in PRICES)
    open_, high, low, close = (values[name] for name in PRICES)
    if (
        prices_fine
        and 0.0 <= values["volume"].min()
        and values["volume"].max() < np.inf
        and not ((high < open_) | (high < close) | (low > open_) | (low > close)).any()
        and not any(_unusable_optional(values[name]).any() for name in OPTIONAL_COLUMNS if name in values)
        and not _takers_above(values).any()
    ):
        return
    first: tuple[int, str, str] | None = None
    for name, bad, rule in value_faults(values):
        if bad.any() and (first is None or int(np.argmax(bad)) < first[0]):
            first = (int(np.argmax(bad)), name, rule)
    if first is not None:
        row, name, rule = first
        raise InputError.of(f"{argument}.{name}", float(values[name][row]), _where(ms, row, rule))


def _unusable_optional(column: np.ndarray) -> np.ndarray:
    return (column < 0.0) | np.isinf(column)


def _takers_above(values: dict[str, np.ndarray]) -> np.ndarray:
    volume = values["volume"]
    if "taker_buy_volume" not in values:
        return np.zeros(len(volume), dtype=bool)
    return values["taker_buy_volume"] > volume * (1.0 + _ROUNDING)


def value_faults(values: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray, str]]:
    """(column, mask of bad rows, the rule they break) for every rule on a candle's numbers."""
    open_, high, low, close = (values[name] for name in PRICES)
    volume = values["volume"]
    faults = [(n, ~((values[n] > 0.0) & (values[n] < np.inf)), "must be finite and above zero") for n in PRICES]
    limits = f"must lie between {LEAST_PRICE:g} and {MOST_PRICE:g}"
    faults += [(n, (values[n] < LEAST_PRICE) | (values[n] > MOST_PRICE), limits) for n in PRICES]
    faults.append(("volume", ~((volume >= 0.0) & (volume < np.inf)), "must be finite and not negative"))
    faults.append(("high", (high < open_) | (high < close), "must not be below open or close"))
    faults.append(("low", (low > open_) | (low > close), "must not be above open or close"))
    for name in OPTIONAL_COLUMNS:
        if name in values:
            faults.append((name, _unusable_optional(values[name]), "must be NaN (unknown) or finite and not negative"))
    faults.append(("taker_buy_volume", _takers_above(values), "must not be above volume"))
    return faults
