"""From a Stage1 dictionary, ours or somebody else's, to the records that the Stage2 kernel reads."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from aione_lab.backtest.conditions import DEFAULT_SPEC
from aione_lab.backtest.decode import PRICE, number, stage2_dict, stats_names
from aione_lab.engine.params import limits_record, rules_record
from aione_lab.engine.records import ASSESSMENT, FEATURES, PARAMS, SIGNAL, SIGNALS
from aione_lab.engine.spec import FeatureSpec
from aione_lab.engine.stage2 import assess
from aione_lab.errors import InputError
from aione_lab.jit import njit
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.adaptive import resolve
from aione_lab.thresholds.classes import AssetClasses, thresholds_for
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import INTERVALS, iso, parse_symbol, to_ms

REQUIRED = (PRICE, "atr", "rsi", "volume_z", "daily_high", "daily_low")
"""Numbers of ``stats`` without which nothing can be assessed."""

LARGEST = 1e100
"""Numbers from here on are no market's: they would overflow on the way."""


class Head(NamedTuple):
    """What every signal has to say: symbol, signal and, where given, the bar's time (UTC ms)."""

    symbol: str
    signal: str
    time: int | None


class AlertInput(NamedTuple):
    """One alert as arrays of one: FEATURES, SIGNAL (mask, resolved limits), PARAMS (limits and rules)."""

    symbol: str
    time: int
    row: np.ndarray
    signal: np.ndarray
    params: np.ndarray
    thresholds: dict[str, Any]
    is_default: bool


def read_origin(signal: Any) -> tuple[str, str | None]:
    """Symbol ("" where it is none) and ISO time (None) of a signal, as far as they can be read."""
    symbol, moment = "", None
    if isinstance(signal, Mapping):
        with suppress(InputError):
            symbol = parse_symbol(signal.get("symbol"))  # type: ignore[arg-type]
        with suppress(InputError):
            moment = iso(to_ms(signal.get("timestamp")))
    return symbol, moment


def read_head(signal: Any) -> Head:
    """Symbol, signal and time of a Stage1 dictionary; InputError names the field that is missing or wrong."""
    if not isinstance(signal, Mapping):
        raise InputError.of("signal", signal, "must be a mapping, the dictionary that Stage1 gives")
    symbol = parse_symbol(signal.get("symbol"), "symbol")  # type: ignore[arg-type]
    name = signal.get("signal")
    if not isinstance(name, str) or name not in SIGNALS:
        raise InputError.of("signal", name, f"must be one of {', '.join(SIGNALS)}")
    given = signal.get("timestamp")
    return Head(symbol, name, None if given is None else to_ms(given, "timestamp"))


def read_alert(
    signal: Mapping[str, Any],
    head: Head,
    settings: Settings,
    costs: Costs,
    interval: str,
    classes: AssetClasses,
    spec: FeatureSpec = DEFAULT_SPEC,
) -> AlertInput:
    """Records of an ALERT; InputError names the field that is missing or wrong.

    A signal without a time is of now.
    """
    moment = time.time_ns() // 1_000_000 if head.time is None else head.time
    row = _features(signal.get("stats"), spec)
    thresholds, limits, flat = _thresholds(signal.get("thresholds"), head.symbol, classes, spec)
    params = np.zeros(1, PARAMS)
    params["limits"] = limits
    params["rules"] = rules_record(settings, costs, INTERVALS[interval], spec)
    record = np.zeros(1, SIGNAL)
    record["timestamp"] = moment
    record["signal"] = SIGNALS.index("ALERT")
    record["reasons"] = _mask(signal.get("trigger_reasons", ()), spec.reasons)
    atr_7d = float(row["atr_7d"][0])
    resolve(limits[0], atr_7d, record[0])
    is_default = _is_default(thresholds, head.symbol, classes, atr_7d)
    return AlertInput(head.symbol, moment, row, record, params, flat, is_default)


def engine_alert(
    symbol: str,
    features: np.ndarray,
    signal: np.ndarray,
    params: np.ndarray,
    thresholds: Mapping[str, Any],
    is_default: bool,
    spec: FeatureSpec,
) -> AlertInput:
    """``read_alert`` of an ALERT whose records are at hand: the same input, or the same InputError.

    ``features`` float64 (F,) of the bar, ``signal`` SIGNAL (1,), ``params`` PARAMS (1,), ``thresholds`` the flat JSON
    of those in force as this bar resolved them.
    """
    values = np.full(FEATURES.itemsize // 8, math.nan)
    count = len(spec.feature_names)
    values[:count] = features[:count]
    values[np.isinf(values)] = math.nan
    for i in np.flatnonzero(np.abs(values) >= LARGEST).tolist():
        _number(float(values[i]), f"stats.{stats_names(spec.feature_names)[i]}")
    row = _completed(values, spec)
    return AlertInput(symbol, int(signal["timestamp"][0]), row, signal, params, dict(thresholds), is_default)


def assess_alert(alert: AlertInput) -> np.ndarray:
    """ASSESSMENT (1,) of the alert, from the kernel that replay and live call."""
    found = np.zeros(1, ASSESSMENT)
    mask = alert.signal["reasons"]
    _assess(alert.signal["timestamp"], alert.row, mask, alert.params, found)
    return found


def stage2_of(
    alert: AlertInput, found: np.ndarray | np.void, default_calibration_count: int, spec: FeatureSpec
) -> dict[str, Any]:
    """The Stage2 dictionary of the alert and its ASSESSMENT."""
    return stage2_dict(
        alert.symbol,
        found,
        alert.row,
        alert.signal,
        alert.params,
        alert.thresholds,
        used_default_calibration=alert.is_default,
        default_calibration_count=default_calibration_count,
        spec=spec,
    )


@njit
def _assess(times: Any, rows: Any, masks: Any, params: Any, found: Any) -> None:
    assess(times[0], rows[0], masks[0], params[0].limits, params[0].rules, found[0])


def _features(stats: Any, spec: FeatureSpec) -> np.ndarray:
    """FEATURES (1,) of ``stats``; what is missing, None or NaN stays unknown."""
    if not isinstance(stats, Mapping):
        raise InputError.of("stats", stats, "must be a mapping of numbers by name")
    values = np.full(FEATURES.itemsize // 8, math.nan)
    for i, name in enumerate(stats_names(spec.feature_names)):
        value = stats.get(name)
        if value is not None:
            values[i] = _number(value, f"stats.{name}")
    return _completed(values, spec, stats)


def _completed(values: np.ndarray, spec: FeatureSpec, given: Mapping[str, Any] | None = None) -> np.ndarray:
    """FEATURES (1,) of ``values``, checked; what follows from other numbers is filled in where it is not known.

    ``given``: the mapping that the numbers come from, for errors to show.
    """
    known = dict(zip(stats_names(spec.feature_names), values.tolist(), strict=False))

    def refused(name: str, must: str) -> InputError:
        shown = number(known[name]) if given is None else given.get(name)
        return InputError.of(f"stats.{name}", shown, must)

    for name in REQUIRED:
        if math.isnan(known[name]):
            raise refused(name, "is required and must be a finite number")
    for name in (PRICE, "atr", "daily_high", "daily_low"):
        if not known[name] > 0:
            raise refused(name, "must be greater than zero")
    if not 0 <= known["rsi"] <= 100:
        raise refused("rsi", "must lie between 0 and 100")
    for name in (name for factor in spec.factors for name in factor.columns):
        if abs(known[name]) > 1:
            raise refused(name, "must lie between -1 and 1")
    _check_order(known)
    row = values.view(FEATURES)
    close, atr = known[PRICE], known["atr"]
    for name, value in (
        ("atr_pct", atr / close),
        ("vwap_dev", close / known["vwap"] - 1.0 if known["vwap"] > 0 else math.nan),
        ("support_distance", (close - known["support"]) / atr),
        ("resistance_distance", (known["resistance"] - close) / atr),
    ):
        if math.isnan(known[name]):
            row[name] = value
    return row


def _check_order(known: Mapping[str, float]) -> None:
    """InputError where the price lies outside its own day, or a level on the wrong side of the price."""
    price, low, high = known[PRICE], known["daily_low"], known["daily_high"]
    if high < low:
        raise InputError.of("stats.daily_high", high, f"must not be below daily_low, which is {low}")
    if not low <= price <= high:
        raise InputError.of(f"stats.{PRICE}", price, f"must lie between daily_low {low} and daily_high {high}")
    for name in ("support", "major_support"):
        if known[name] >= price:
            raise InputError.of(f"stats.{name}", known[name], f"must lie below {PRICE}, which is {price}")
    for name in ("resistance", "major_resistance"):
        if known[name] <= price:
            raise InputError.of(f"stats.{name}", known[name], f"must lie above {PRICE}, which is {price}")


def _number(value: Any, name: str) -> float:
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, (int, float)) and not isinstance(plain, bool) and (plain != plain or abs(plain) < LARGEST):
        return float(plain)
    raise InputError.of(name, value, "must be a finite number, or None where it is not known")


def _mask(reasons: Any, names: tuple[str, ...]) -> int:
    if isinstance(reasons, str) or not isinstance(reasons, (list, tuple, set, frozenset)):
        raise InputError.of("trigger_reasons", reasons, "must be a list of reasons")
    mask = 0
    for reason in reasons:
        if not isinstance(reason, str) or reason not in names:
            raise InputError.unknown("trigger_reasons", reason, names)
        mask |= 1 << names.index(reason)
    return mask


def _thresholds(
    given: Any, symbol: str, classes: AssetClasses, spec: FeatureSpec
) -> tuple[Thresholds, np.ndarray, dict[str, Any]]:
    """Thresholds of the signal, LIMITS (1,) and flat JSON; those of the asset class where it brings none."""
    if given is None or (isinstance(given, Mapping) and not given):
        given = thresholds_for(symbol, None, classes)
    if isinstance(given, Thresholds):
        return given, limits_record(given, spec), given.every_field()
    if isinstance(given, Mapping):
        low, high = given.get("low_gate"), given.get("high_gate")
        if isinstance(low, float) and isinstance(high, float) and 0 < high <= low:
            # A fixed gate and one that follows the symbol can cross on a bar: fine there, no set to start from.
            thresholds = Thresholds.from_json({**given, "high_gate": None})
            limits = limits_record(thresholds, spec)
            limits["high_gate"] = high
            return thresholds, limits, {**thresholds.every_field(), "high_gate": high}
    thresholds = Thresholds.from_json(given)
    return thresholds, limits_record(thresholds, spec), thresholds.every_field()


def is_plain_default(thresholds: Thresholds, symbol: str, classes: AssetClasses) -> bool | None:
    """Whether this is what the symbol has without a calibration; None: that only shows when a bar has resolved it."""
    if is_calibrated(thresholds):
        return False
    return True if thresholds in _uncalibrated(symbol, classes) else None


def is_calibrated(thresholds: Thresholds) -> bool:
    """Whether the set's ``meta`` says that it comes from a calibration."""
    return (thresholds.meta or {}).get("source") == "calibrated"


@lru_cache(maxsize=1024)
def _uncalibrated(symbol: str, classes: AssetClasses) -> tuple[Thresholds, Thresholds]:
    return thresholds_for(symbol, None, classes), Thresholds()


def _is_default(thresholds: Thresholds, symbol: str, classes: AssetClasses, atr_7d: float) -> bool:
    """Whether this is what the symbol has without a calibration, resolved at ``atr_7d`` or not.

    A set whose ``meta`` says that it was calibrated is none, whatever its numbers.
    """
    known = is_plain_default(thresholds, symbol, classes)
    if known is not None:
        return known
    defaults = _uncalibrated(symbol, classes)
    is_resolved = isinstance(thresholds.low_gate, float)  # else it equals no resolved set
    return is_resolved and atr_7d > 0 and thresholds in [default.resolved(atr_7d) for default in defaults]
