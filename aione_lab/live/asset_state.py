"""What is known of one asset: its fields, what each may hold, and frozen plain copies of what comes in."""

from __future__ import annotations

import contextlib
import math
import numbers
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from aione_lab.calibration.queue_order import PENDING
from aione_lab.calibration.queue_order import STATES as CALIB_STATES
from aione_lab.engine.records import RECOMMENDATIONS, SIGNALS
from aione_lab.errors import InputError
from aione_lab.live.plain_text import without_halves
from aione_lab.settings import ReadOnly

STATES = ("init", "no_data", "normal", "alert", "no_trade", "error")
STAGE2_STATES = ("pending", "processing", "completed", "skipped", "error")
FAILURES = ("INVALID_DATA", "SYSTEM_FAILURE")
"""Recommendations of a Stage2 that could not assess a signal."""

LONGEST_TEXT = 20_000  # characters; a narrative has some hundred
DEEPEST = 12  # levels of mappings and lists
_MOST = sys.float_info.max
_LARGEST = 2**63
_ANSWERS = (*RECOMMENDATIONS, *FAILURES)
_NEEDED = ("signal", "recommendation", "confidence", "risk_parameters")  # of a Stage2 dictionary


class Plain(ReadOnly):
    """A mapping of which it is known that JSON can hold it: ``plain`` made it, or nothing but numbers went in."""


def plain(argument: str, value: Any, depth: int = 0) -> Any:
    """A frozen copy that JSON can hold: Plain mappings, tuples, plain numbers; NaN and infinities become None.

    InputError names the place (``stats.rsi``) of what cannot be held.
    """
    return _plain((argument,), value, depth)


def _plain(place: tuple[Any, ...], value: Any, depth: int) -> Any:
    """``plain``; ``place`` is (name,) or (place of the mapping, key): only an error makes a text of it."""
    kind = type(value)
    if value is None or kind is bool or isinstance(value, Plain):
        return value
    if kind is float or isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            raise InputError.of(_named(place), value, f"must be at most {LONGEST_TEXT} characters long")
        return value if kind is str and value.isascii() else without_halves(value)
    if depth < DEEPEST and isinstance(value, (dict, Mapping)) and all(isinstance(key, str) for key in value):
        return Plain(
            {
                # most are finite floats, hundreds of assets × 60 of them a bar: no call for those, nor for nothing
                key if type(key) is str and key.isascii() else without_halves(key): part
                if part is None or (type(part) is float and -_MOST <= part <= _MOST)
                else _plain((place, key), part, depth + 1)
                for key, part in value.items()
            }
        )
    if depth < DEEPEST and isinstance(value, (list, tuple)):
        return tuple([_plain(place, part, depth + 1) for part in value])
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        if abs(whole := int(value)) <= _LARGEST:  # JSON has no end, its readers have
            return whole
    elif isinstance(value, numbers.Real):
        with contextlib.suppress(OverflowError):  # a fraction beyond all floats
            return _plain(place, float(value), depth)
    raise InputError.of(_named(place), value, "must be plain data: numbers, texts, lists and mappings with text keys")


def _named(place: tuple[Any, ...]) -> str:
    return str(place[0]) if len(place) == 1 else f"{_named(place[0])}.{place[1]}"


def frozen(value: Any) -> Any:
    """``plain`` of what a stage gave, whose numbers JSON can hold already: the same, in a fifth of the time."""
    kind = type(value)
    if kind is dict:
        return Plain({key: part if type(part) in _LEAVES else frozen(part) for key, part in value.items()})
    if kind is list:
        return tuple([part if type(part) in _LEAVES else frozen(part) for part in value])
    return without_halves(value) if kind is str else value


_LEAVES = (float, int, bool, type(None))


def _one_of(*allowed: str) -> Callable[[str, Any], str]:
    def check(argument: str, value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise InputError.of(argument, value, f"must be one of {', '.join(map(repr, allowed))}")
        return value

    return check


def _text(argument: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError.of(argument, value, "must be a text")
    checked: str = plain(argument, value)
    return checked


def _texts(argument: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(part, str) for part in value):
        raise InputError.of(argument, value, "must be a list of texts")
    return tuple(plain(argument, part) for part in value)


def _text_or_none(argument: str, value: Any) -> str | None:
    return None if value is None else _text(argument, value)


def _number_or_none(argument: str, value: Any) -> float | None:
    found = plain(argument, value)
    if found is not None and (isinstance(found, bool) or not isinstance(found, (int, float))):
        raise InputError.of(argument, value, "must be a number or None")
    return None if found is None else float(found)


def _share(argument: str, value: Any) -> float:
    found = _number_or_none(argument, value)
    if found is None or not 0.0 <= found <= 1.0:
        raise InputError.of(argument, value, "must be a number from 0 to 1")
    return found


def _flag(argument: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError.of(argument, value, "must be True or False")
    return value


class PlainNumbers(Plain):
    """A Plain mapping from names to finite numbers or None."""


def _numbers(argument: str, value: Any) -> ReadOnly:
    if isinstance(value, PlainNumbers):
        return value
    if not isinstance(value, Mapping):
        raise InputError.of(argument, value, "must be a mapping from names to numbers")
    found: ReadOnly = plain(argument, value)
    for name, number in found.items():
        if number is not None and not isinstance(number, (int, float)):
            raise InputError.of(f"{argument}.{name}", number, "must be a number or None")
    return PlainNumbers(found)


def _mapping_or_none(argument: str, value: Any) -> ReadOnly | None:
    if value is not None and not isinstance(value, Mapping):
        raise InputError.of(argument, value, "must be a mapping or None")
    found: ReadOnly | None = plain(argument, value)
    return found


FIELDS: dict[str, tuple[Any, Callable[[str, Any], Any]]] = {
    "timestamp": (None, _text_or_none),  # ISO text of the bar's open
    "signal": ("NONE", _one_of(*SIGNALS)),
    "trigger_reasons": ((), _texts),
    "suppressed": ("", _text),
    "confidence": (0.0, _share),
    "recommendation": ("", _one_of(*_ANSWERS)),
    "hints": ((), _texts),
    "tp": (None, _number_or_none),  # first target
    "sl": (None, _number_or_none),
    "stats": (ReadOnly(), _numbers),
    "state": ("init", _one_of(*STATES)),
    "stage2_status": ("pending", _one_of(*STAGE2_STATES)),
    "stage2": (None, _mapping_or_none),  # the whole Stage2 dictionary of the last alert
    "long_narrative": ("", _text),  # what an enricher wrote: untrusted plain text
    "thresholds": (None, _mapping_or_none),  # in force on the bar
    "calib_status": (PENDING, _one_of(*CALIB_STATES)),
    "calib_params": (None, _mapping_or_none),  # the last accepted set, flat JSON; None when it is taken back
    "in_force": (None, _mapping_or_none),  # the set that decides, flat JSON: calibrated or not, nothing resolved
    "last_calib": (None, _text_or_none),  # ISO text, when it was taken over
    "visible": (True, _flag),
}
"""Field → its value in a new asset, and the check that gives the value that is kept."""


def new_asset(symbol: str) -> ReadOnly:
    """The state of an asset of which nothing is known."""
    return ReadOnly({"symbol": symbol, **{name: default for name, (default, _) in FIELDS.items()}})


def changed_asset(asset: ReadOnly, updates: Mapping[str, Any]) -> ReadOnly:
    """The asset with ``updates``, all of them or (InputError) none; the same object where nothing differs.

    ``symbol`` may be among the updates, as in a Stage1 dictionary, if it is the asset's.
    """
    if not isinstance(updates, Mapping):
        raise InputError.of("updates", updates, "must be a mapping from fields to values")
    values = {}
    for name, value in updates.items():
        if name == "symbol":
            if value != asset["symbol"]:
                raise InputError.of("symbol", value, f"must be {asset['symbol']!r}, whose state this is")
        elif name not in FIELDS:
            raise InputError.unknown("asset field", name, FIELDS)
        elif value is not (known := asset[name]) and not (type(value) is type(known) and value == known):
            found = FIELDS[name][1](name, value)
            if found != known:
                values[name] = found
    return ReadOnly({**asset, **values}) if values else asset


def after_bar(asset: ReadOnly, fields: Mapping[str, Any]) -> ReadOnly:
    """``changed_asset`` by fields of a new bar: something differs always, and every value is what its check gives."""
    changed = ReadOnly(asset)
    dict.update(changed, fields)
    return changed


def stage2_fields(stage2: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a Stage2 dictionary gives an asset, for ``update_asset``.

    ``state``: ``alert`` where it says BUY or SELL, ``error`` where it could not assess, else ``no_trade``;
    ``stage2_status`` is ``skipped`` where the signal was no ALERT. InputError for what is no Stage2 dictionary.
    """
    if not isinstance(stage2, Mapping) or not all(name in stage2 for name in _NEEDED):
        raise InputError.of("stage2", stage2, f"must be a Stage2 dictionary: a mapping with {', '.join(_NEEDED)}")
    answer, risk = stage2["recommendation"], stage2["risk_parameters"]
    if not isinstance(risk, Mapping):
        raise InputError.of("stage2.risk_parameters", risk, "must be a mapping")
    targets = risk.get("tp_targets") or (None,)
    if not isinstance(targets, (list, tuple)):
        raise InputError.of("stage2.risk_parameters.tp_targets", targets, "must be a list of numbers")
    fields = {
        "stage2": stage2,
        "recommendation": answer,
        "confidence": stage2["confidence"],
        "tp": targets[0],
        "sl": risk.get("sl_level"),
        "long_narrative": "",
    }
    if answer in FAILURES:
        return {**fields, "stage2_status": "error", "state": "error"}
    if stage2["signal"] != "ALERT":
        return {**fields, "stage2_status": "skipped"}
    return {**fields, "stage2_status": "completed", "state": "alert" if answer in ("BUY", "SELL") else "no_trade"}
