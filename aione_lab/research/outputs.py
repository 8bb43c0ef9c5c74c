"""What a computation said, in one shape that can be compared: blocks of columns with a time for each row.

The engine's own records and whatever a user's function returns both become blocks here.
"""

from __future__ import annotations

import inspect
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.backtest.prepare import frame_ms
from aione_lab.backtest.replay import replay
from aione_lab.engine.records import ASSESSMENT, SIGNAL, TRADE
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.stamps import FINER_THAN_MS, UNREADABLE, read_stamps
from aione_lab.research.futures import Inputs
from aione_lab.units import LATEST_MS

Item = tuple[str, str]
"""(kind, name) of one thing that is checked."""

ROUNDING = 1e-12
"""A user's numbers closer than this, relatively, are the same: a vectorised loop may round its tail another way."""

TRADE_COLUMNS = ("entry_time", "exit_time", "entry_price", "exit_price")
ASKED = ("candles", "reference", "funding")


@dataclass(frozen=True)
class Block:
    """Columns (k, n) of one kind, with the time (ms) of each row: what is dated before a cut was known by then.

    ``raw`` are the rows as they came (last axis), compared byte for byte first; ``expand`` makes float64 (k, n) of
    them. ``rounding`` is the relative difference that is none; 0 for the engine, whose bytes are compared.
    """

    items: tuple[Item, ...]
    times: np.ndarray
    raw: np.ndarray
    expand: Callable[[np.ndarray], np.ndarray]
    rounding: float = 0.0

    def before(self, cut: int) -> Block:
        """The rows dated before ``cut``."""
        n = int(np.searchsorted(self.times, cut))
        return Block(self.items, self.times[:n], self.raw[..., :n], self.expand, self.rounding)

    def values(self) -> np.ndarray:
        """float64 (k, n)."""
        return self.expand(self.raw)


@dataclass(frozen=True)
class Trades:
    """Fills, one row a trade: times in ms (an open trade's exit is far in the future), prices, and signals if known."""

    entry: np.ndarray
    exit: np.ndarray
    entry_price: np.ndarray
    exit_price: np.ndarray
    signal: np.ndarray | None


@dataclass(frozen=True)
class Output:
    """All blocks of one computation, and its trades where it has some."""

    blocks: tuple[Block, ...]
    trades: Trades | None


@dataclass(frozen=True)
class Computation:
    """Something that can be run on other inputs; ``run`` raises InputError where it cannot."""

    run: Callable[[Inputs], Output]
    title: str
    is_engine: bool


def unequal(one: np.ndarray, other: np.ndarray, tolerance: float | np.ndarray = 0.0) -> np.ndarray:
    """Mask (k, n) of values that differ: in any bit, or beyond ``tolerance`` (absolute) and not both NaN."""
    if np.ndim(tolerance) == 0 and tolerance == 0.0:
        return np.asarray(_bits(one) != _bits(other))
    with np.errstate(invalid="ignore"):
        same = (one == other) | (np.isnan(one) & np.isnan(other)) | (np.abs(one - other) <= tolerance)
    return np.asarray(~same)


def first_difference(one: Block, other: Block) -> np.ndarray:
    """Row (k,) of the first difference of each item of ``one``; -1: none. Rows are compared in their order."""
    found = np.full(len(one.items), -1)
    same_rows = np.array_equal(one.times, other.times)
    if same_rows and one.items == other.items and _same_bytes(one.raw, other.raw):
        return found
    n = min(len(one.times), len(other.times))
    apart = np.flatnonzero(one.times[:n] != other.times[:n])
    stop = int(apart[0]) if len(apart) else n
    mine, theirs = one.values()[:, :stop], other.values()[:, :stop]
    place = {item: i for i, item in enumerate(other.items)}
    for i, item in enumerate(one.items):
        if item not in place:
            found[i] = 0
            continue
        a, b = mine[i], theirs[place[item]]
        tolerance = one.rounding * np.maximum(np.abs(a), np.abs(b)) if one.rounding else 0.0
        rows = np.flatnonzero(unequal(a, b, tolerance))
        if len(rows):
            found[i] = rows[0]
        elif not same_rows:
            found[i] = stop
    return found


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.int64)


def _same_bytes(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.ndim == 2:
        return np.array_equal(one.view(np.int64), other.view(np.int64))
    return bool(one.tobytes() == other.tobytes())


# --- the engine --------------------------------------------------------------------------------------------------


def engine_computation(keywords: dict[str, Any]) -> Computation:
    """``replay`` of inputs under fixed ``keywords``: features, reasons, signals, assessments, factors and trades."""

    def run(inputs: Inputs) -> Output:
        result = replay(inputs.candles, reference=inputs.reference, funding=inputs.funding, **keywords)
        spec = result.spec
        features = tuple(("feature", name) for name in spec.feature_names)
        signals, alerts, closed = result.signal_records, result.assessment_records, result.trade_records
        names = ("entry_time", "exit_time", "entry_price", "exit_price", "signal_time")
        trades = Trades(*(closed[name] for name in names))
        return Output(
            (
                Block(features, result.bars["timestamp"], result.columns, lambda rows: rows),
                Block(_signal_items(spec), signals["timestamp"], signals, partial(_expand_signals, spec=spec)),
                Block(_assessment_items(spec), alerts["timestamp"], alerts, partial(_expand_assessments, spec=spec)),
                Block(_TRADES, closed["exit_time"], closed, _expand_trades),
            ),
            trades,
        )

    return Computation(run, "replay", True)


_SIGNAL_FIELDS = tuple(name for name in SIGNAL.names or () if name not in ("timestamp", "reasons"))
_VECTORS = {"strengths": "strength", "contributions": "contribution"}
_ALERT_FIELDS = tuple(name for name in ASSESSMENT.names or () if name not in ("timestamp", "targets", *_VECTORS))
_TRADES: tuple[Item, ...] = tuple(
    ("trade", name if np.ndim(np.zeros(1, TRADE)[name]) == 1 else f"{name}_{i + 1}")
    for name in TRADE.names or ()
    for i in range(np.atleast_1d(np.zeros(1, TRADE)[name][0]).size)
)


def _signal_items(spec: FeatureSpec) -> tuple[Item, ...]:
    return (*(("reason", name) for name in spec.reasons), *(("signal", name) for name in _SIGNAL_FIELDS))


def _assessment_items(spec: FeatureSpec) -> tuple[Item, ...]:
    return (
        *(("factor", f"{factor}_{short}") for short in _VECTORS.values() for factor in spec.factor_names),
        *(("assessment", name) for name in _ALERT_FIELDS),
        *(("assessment", f"target_{i + 1}") for i in range(3)),
    )


def _expand_signals(rows: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    bits = [(rows["reasons"] >> i & 1).astype(np.float64) for i in range(len(spec.reasons))]
    return np.stack([*bits, *(rows[name].astype(np.float64) for name in _SIGNAL_FIELDS)])


def _expand_assessments(rows: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    factors = [rows[name][:, i] for name in _VECTORS for i in range(len(spec.factor_names))]
    plain = [rows[name].astype(np.float64) for name in _ALERT_FIELDS]
    return np.stack([*factors, *plain, *(rows["targets"][:, i] for i in range(3))])


def _expand_trades(rows: np.ndarray) -> np.ndarray:
    if not len(rows):
        return np.empty((len(_TRADES), 0))
    return np.concatenate([rows[name].astype(np.float64).reshape(len(rows), -1).T for name in TRADE.names or ()])


# --- a user's function -------------------------------------------------------------------------------------------


def function_computation(function: Any, inputs: Inputs) -> Computation:
    """A user's function as a computation; it is run once, to learn whether it returns columns or trades."""
    names = _parameters(function, inputs)
    title = str(getattr(function, "__name__", type(function).__name__))

    def call(given: Inputs) -> Any:
        frames = {
            "candles": given.candles.copy(),
            "reference": None if given.reference is None else given.reference.copy(),
            "funding": None if given.funding is None else given.funding["funding_rate"].copy(),
        }
        keywords = {name: frames[asked] for name, asked in names.items() if name is not None}
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # absurd candles may well overflow
                return function(frames["candles"], **keywords) if None in names else function(**keywords)
        except Exception as error:  # whatever a stranger's code raises becomes one line
            raise InputError.of("function", title, f"raised {type(error).__name__}: {error}") from error

    as_trades = _is_trades(call(inputs))

    def run(given: Inputs) -> Output:
        returned = call(given)
        return _trade_output(returned, title) if as_trades else _column_output(returned, given, title)

    return Computation(run, title, False)


def _parameters(function: Any, inputs: Inputs) -> dict[str | None, str]:
    """Parameter (None: the first, by place) → what is given for it; InputError for one that nothing is known for."""
    if not callable(function):
        raise InputError.of("function", function, "must be a function of candles")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return {None: "candles"}
    names: dict[str | None, str] = {}
    for i, parameter in enumerate(parameters):
        by_place = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if parameter.name in ASKED and parameter.kind is not parameter.POSITIONAL_ONLY:
            names[parameter.name] = parameter.name
        elif i == 0 and by_place:
            names[None] = "candles"
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise InputError.of("function", parameter.name, f"may ask for {', '.join(ASKED)}; the first takes candles")
    if not names:
        raise InputError.of("function", function, "must take candles")
    for name in ("reference", "funding"):
        if name in names and getattr(inputs, name) is None:
            raise InputError.of(name, None, "the function asks for it")
    return names


def _is_trades(returned: Any) -> bool:
    return isinstance(returned, pd.DataFrame) and {"entry_time", "exit_time"} <= set(returned.columns)


def _column_output(returned: Any, given: Inputs, title: str) -> Output:
    index = given.candles.index
    if isinstance(returned, np.ndarray) and returned.shape == (len(index),):
        returned = pd.Series(returned, index=index)
    if isinstance(returned, pd.Series):
        returned = returned.to_frame(title if returned.name is None else returned.name)
    if not isinstance(returned, pd.DataFrame) or not returned.shape[1] or returned.columns.nlevels > 1:
        raise InputError.of("function", title, "must return a Series or DataFrame on the candles' index, or trades")
    if returned.columns.has_duplicates:
        raise InputError.of("function", title, "must return columns with different names")
    if not returned.index.equals(index):
        if not isinstance(returned.index, pd.DatetimeIndex) or returned.index.has_duplicates:
            raise InputError.of("function", title, "must return rows on the candles' index, each time once")
        if not returned.index.isin(index).all():
            raise InputError.of("function", title, "must not return rows at times that no candle has")
        returned = returned.reindex(index)
    values = np.stack([_numbers(returned[name], title) for name in returned.columns])
    items = tuple(("column", str(name)) for name in returned.columns)
    return Output((Block(items, frame_ms(given.candles), values, lambda rows: rows, ROUNDING),), None)


def _numbers(column: pd.Series, title: str) -> np.ndarray:
    """float64 of a column, one NaN and one zero, so that equal numbers are equal bytes."""
    try:
        values = np.array(column.to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError):
        raise InputError.of("function", title, f"column {column.name!r} must hold booleans or numbers") from None
    values[np.isnan(values)] = np.nan
    return values + 0.0


def _trade_output(returned: Any, title: str) -> Output:
    if isinstance(returned, pd.DataFrame) and not returned.size:
        returned = pd.DataFrame({name: np.zeros(0, np.int64) for name in TRADE_COLUMNS})
    if not isinstance(returned, pd.DataFrame) or not set(TRADE_COLUMNS) <= set(returned.columns):
        raise InputError.of("function", title, f"must return trades with {', '.join(TRADE_COLUMNS)}")
    entry = _stamps(returned, "entry_time")
    leave = _stamps(returned, "exit_time")
    if (entry == LATEST_MS).any():
        raise InputError.of("function", title, "every trade needs an entry_time")
    order = np.lexsort((entry, leave))
    columns: dict[str, np.ndarray] = {}
    for name in map(str, returned.columns):
        if name.endswith("_time"):
            columns[name] = _stamps(returned, name).astype(np.float64)[order]
        elif pd.api.types.is_numeric_dtype(returned[name].dtype):
            columns[name] = _numbers(returned[name], title)[order]
        else:
            columns[name] = np.array([float(zlib.crc32(str(v).encode())) for v in returned[name]])[order]
    signal = _stamps(returned, "signal_time")[order] if "signal_time" in columns else None
    trades = Trades(entry[order], leave[order], columns["entry_price"], columns["exit_price"], signal)
    values = np.stack(list(columns.values()))
    items = tuple(("trade", name) for name in columns)
    return Output((Block(items, leave[order], values, lambda rows: rows, ROUNDING),), trades)


def _stamps(frame: pd.DataFrame, name: str) -> np.ndarray:
    """int64 ms; a time that is missing lies beyond all others."""
    ms = read_stamps(frame[name], name)
    if (ms == FINER_THAN_MS).any():
        raise InputError.of(name, "a fraction of a millisecond", "must be whole UTC milliseconds")
    return np.where(ms == UNREADABLE, LATEST_MS, ms)
