"""What a calibration is asked, and what it answers; both travel between processes, so both are plain data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aione_lab.errors import InputError
from aione_lab.settings import ReadOnly
from aione_lab.units import interval_ms, parse_symbol

ACCEPT = "accept"
KEEP_DEFAULTS = "keep defaults"
NOT_ENOUGH_TRADES = "not enough trades"
VERDICTS = (ACCEPT, KEEP_DEFAULTS, NOT_ENOUGH_TRADES)


@dataclass(frozen=True)
class CalibrationRequest:
    """One symbol on one interval to be calibrated; ``options`` holds whatever else the job wants to know."""

    symbol: str
    interval: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "symbol", parse_symbol(self.symbol))
        interval_ms(self.interval)
        object.__setattr__(self, "options", ReadOnly(_with_text_keys("options", self.options)))


@dataclass(frozen=True)
class CalibrationOutcome:
    """What a calibration found: a verdict, the plain sentence behind it, the set and where it comes from.

    ``thresholds`` is the flat JSON form of the chosen set (``Thresholds.to_json``), ``provenance`` any JSON object.
    Both are kept as JSON would give them back (tuples become lists), so that they are equal on either side of a pipe.
    """

    symbol: str
    interval: str
    verdict: str
    sentence: str
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "symbol", parse_symbol(self.symbol))
        interval_ms(self.interval)
        if self.verdict not in VERDICTS:
            raise InputError.of("verdict", self.verdict, f"must be one of {', '.join(VERDICTS)}")
        if not isinstance(self.sentence, str) or not self.sentence:
            raise InputError.of("sentence", self.sentence, "must be a text that says why")
        for name in ("thresholds", "provenance"):
            object.__setattr__(self, name, _json_object(name, getattr(self, name)))
        if self.accepted and not self.thresholds:
            raise InputError.of("thresholds", self.thresholds, "must hold the accepted set")

    @property
    def accepted(self) -> bool:
        """Whether the set may be used; only an accepted one is promoted."""
        return self.verdict == ACCEPT

    def to_json(self) -> dict[str, Any]:
        """The outcome as one JSON object; ``CalibrationOutcome(**values)`` reads it back."""
        return {**vars(self), "thresholds": dict(self.thresholds), "provenance": dict(self.provenance)}


Report = Callable[[int, int], None]
"""``report(done, total)``: how many trials of how many are done."""

Job = Callable[[CalibrationRequest, Report], CalibrationOutcome]
"""What calibrates one symbol. It runs in a process of its own: a function at the top level of a module, or a
``functools.partial`` of one."""


def _with_text_keys(argument: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError.of(argument, value, "must be a mapping with text keys")
    return dict(value)


def _json_object(argument: str, value: Any) -> ReadOnly:
    try:
        return ReadOnly(json.loads(json.dumps(_with_text_keys(argument, value))))
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError.of(argument, value, f"must be what JSON can hold ({error})") from None
