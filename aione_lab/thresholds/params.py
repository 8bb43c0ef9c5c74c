"""`Thresholds`: the frozen set of numbers that a study calibrates for a symbol."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Self

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_serializer, model_validator

from aione_lab.errors import InputError
from aione_lab.settings import Config, ReadOnly
from aione_lab.thresholds import adaptive

CUSTOM = 4
"""Most triggers, and most factors, that a user can add."""

PREFIX = "custom."
"""Before the name of an own trigger, in the flat JSON form and among the search ranges."""

LIMITS = np.dtype(
    (
        np.record,
        [
            ("low_gate", "f8"),  # ATR/close; NaN: low_multiple × atr_7d
            ("low_multiple", "f8"),
            ("high_gate", "f8"),  # ATR/close; NaN: high_ratio × low gate
            ("high_ratio", "f8"),
            ("vwap_threshold", "f8"),  # |close/VWAP − 1|; NaN: vwap_multiple × atr_7d
            ("vwap_multiple", "f8"),
            ("vol_z_threshold", "f8"),  # NaN: adaptive in atr_7d
            ("atr_target", "f8"),
            ("rsi_oversold", "f8"),
            ("rsi_overbought", "f8"),
            ("dynamic_rsi_multiplier", "f8"),  # NaN: static RSI levels
            ("min_confidence", "f8"),
            ("tp_mult", "f8"),
            ("sl_mult", "f8"),
            ("min_reasons_for_alert", "i8"),
            # Own triggers, filled where the FeatureSpec that declares them is known (engine/params.py).
            ("custom_count", "i8"),
            ("custom_first", "i8"),  # place of the first one's value in ``row.custom``
            ("custom_least", "f8", (CUSTOM,)),  # holds from here up; NaN: not of this kind
            ("custom_most", "f8", (CUSTOM,)),  # holds from here down; NaN: not of this kind
        ],
    )
)
"""One set of thresholds as the kernels read it."""

_MULTIPLE = re.compile(r"([0-9]+(?:\.[0-9]+)?)x")


def _number_or_multiple(value: Any) -> Any:
    if value is None:
        return None
    multiple = _MULTIPLE.fullmatch(value) if isinstance(value, str) else None
    number = _positive(float(multiple[1]) if multiple else value)
    if number is None:
        raise ValueError("must be a positive number, a multiple such as '0.6x', or None for adaptive")
    return value if multiple else number


def _positive(value: Any) -> float | None:
    """Float of a positive finite number; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, Decimal)):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):  # an integer beyond all floats, a signalling NaN
        return None
    return number if 0.0 < number < math.inf else None


def _own_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, Decimal)):
        raise ValueError("must be a number")
    return float(value)


OwnName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{1,39}$")]
OwnNumber = Annotated[float, BeforeValidator(_own_number)]
Gate = Annotated[float | str | None, BeforeValidator(_number_or_multiple)]


def _search(low: float, high: float, step: float, of: str = "") -> dict[str, Any]:
    return {"search": {"low": low, "high": high, "step": step, "multiple_of": of}}


class Thresholds(Config):
    """What a study calibrates, per symbol; ``Thresholds()`` is the documented default.

    The gates and the VWAP threshold take a share of the price (``0.0004``), a multiple that follows
    the symbol (``"0.6x"``: times ``atr_7d``, for ``high_gate`` times ``low_gate``), or None: adaptive.
    Each field carries its search range in its ``json_schema_extra``.
    """

    low_gate: Gate = Field(
        None,
        description="ATR/close below which it is too quiet for an alert",
        json_schema_extra=_search(0.2, 1.2, 0.05, "atr_7d"),
    )
    high_gate: Gate = Field(
        None,
        description="ATR/close above which volatility itself is a trigger",
        json_schema_extra=_search(1.5, 8.0, 0.25, "low_gate"),
    )
    vol_z_threshold: Annotated[float, Field(ge=0, le=50)] | None = Field(
        None,
        description="volume z-score; None: 3 on calm symbols to 2 on wild ones",
        json_schema_extra=_search(0.5, 4.0, 0.1),
    )
    vwap_threshold: Gate = Field(
        None,
        description="|close/VWAP − 1| that counts as a deviation",
        json_schema_extra=_search(1.0, 10.0, 0.25, "atr_7d"),
    )
    atr_target: Annotated[float, Field(ge=0, le=100)] = Field(
        0.5, description="room to the nearest opposing level, in ATRs", json_schema_extra=_search(0.3, 1.5, 0.05)
    )
    rsi_oversold: Annotated[float, Field(gt=0, lt=100)] = Field(
        30.0, description="RSI at or below: oversold", json_schema_extra=_search(15, 45, 1)
    )
    rsi_overbought: Annotated[float, Field(gt=0, lt=100)] = Field(
        70.0, description="RSI at or above: overbought", json_schema_extra=_search(55, 85, 1)
    )
    dynamic_rsi_multiplier: Annotated[float, Field(gt=1, le=5)] | None = Field(
        None,
        description="RSI levels = rolling mean RSI ÷ and × this; None: static",
        json_schema_extra=_search(1.05, 1.5, 0.05),
    )
    min_reasons_for_alert: Annotated[int, Field(ge=1, le=11)] = Field(
        2, description="distinct counted reasons an alert needs", json_schema_extra=_search(1, 4, 1)
    )
    min_confidence: Annotated[float, Field(ge=0, le=1)] = Field(
        0.75, description="confidence below which there is no BUY", json_schema_extra=_search(0.3, 0.9, 0.05)
    )
    tp_mult: Annotated[float, Field(gt=0, le=100)] = Field(
        3.0, description="first target, in ATRs", json_schema_extra=_search(0.5, 6.0, 0.25)
    )
    sl_mult: Annotated[float, Field(gt=0, le=100)] = Field(
        1.0, description="widest stop, in ATRs", json_schema_extra=_search(0.3, 3.0, 0.1)
    )
    custom: Annotated[dict[OwnName, OwnNumber], AfterValidator(ReadOnly)] = Field(
        default_factory=ReadOnly, description="own trigger → its threshold; left out: what its declaration says"
    )
    meta: dict[str, Any] | None = Field(None, description="provenance; never part of the identity", repr=False)

    @field_validator("meta")
    @classmethod
    def _own_json(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """A copy that nobody else holds, of what can be written and read back."""
        try:
            return None if value is None else json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"must be what JSON can hold ({error})") from None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.rsi_oversold >= self.rsi_overbought:
            raise ValueError("rsi_oversold must be less than rsi_overbought")
        if isinstance(self.high_gate, str) and float(self.high_gate[:-1]) <= 1:
            raise ValueError("high_gate as a multiple of low_gate must be more than '1x'")
        if isinstance(self.low_gate, float) and isinstance(self.high_gate, float) and self.high_gate <= self.low_gate:
            raise ValueError("high_gate must be greater than low_gate")
        return self

    @model_serializer(mode="wrap")
    def _flat(self, handler: Callable[[Any], dict[str, Any]], info: Any) -> dict[str, Any]:
        """JSON is flat, ``"custom.NAME"`` a key; nowhere is there a word of own triggers where there are none."""
        values = handler(self)
        if not self.custom:
            values.pop("custom", None)
        elif info.mode == "json" and "custom" in values:
            own = values.pop("custom")
            values |= {PREFIX + name: own[name] for name in sorted(own)}
        return values

    def __hash__(self) -> int:
        return hash(self.digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thresholds) and self.digest() == other.digest()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Pydantic's unchecked copy; ``replace`` checks."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("_digest", None)  # that of the numbers before
        return copied

    def digest(self) -> str:
        """Sha256 of the numbers alone, without ``meta``."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        text = json.dumps(self.model_dump(mode="json", exclude={"meta"}), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def adaptive_from_atr(cls, atr_7d: float) -> Self:
        """The default thresholds with every adaptive field resolved at ``atr_7d`` (ATR/close > 0)."""
        return cls().resolved(atr_7d)

    def resolved(self, atr_7d: float) -> Self:
        """A copy whose adaptive and multiple fields are the numbers that hold at ``atr_7d``."""
        volatility = _positive(atr_7d)
        if volatility is None:
            raise InputError.of("atr_7d", atr_7d, "must be a positive share of the price, such as 0.0005")
        limits = self.record()
        values = np.zeros(1, LIMITS)
        adaptive.resolve(limits[0], volatility, values[0])
        names = ("low_gate", "high_gate", "vwap_threshold", "vol_z_threshold")
        return self.replace(**{name: float(values[name][0]) for name in names})

    def record(self) -> np.ndarray:
        """Array (1,) of LIMITS: what the kernels read."""
        limits = np.zeros(1, LIMITS)
        limits["custom_least"] = limits["custom_most"] = math.nan
        for name in LIMITS.names or ():
            if name in type(self).model_fields:
                value = getattr(self, name)
                limits[name] = value if isinstance(value, (int, float)) else math.nan
        multiples = (
            ("low_gate", "low_multiple", adaptive.LOW_GATE_MULTIPLE),
            ("high_gate", "high_ratio", adaptive.HIGH_GATE_RATIO),
            ("vwap_threshold", "vwap_multiple", adaptive.VWAP_MULTIPLE),
        )
        for field, column, default in multiples:
            value = getattr(self, field)
            limits[column] = float(value[:-1]) if isinstance(value, str) else default
        return limits

    def to_json(self) -> dict[str, Any]:
        """The flat JSON form, the same in files and in the cache.

        Only what the set gives is in it: a field that is left out keeps falling back to the asset class and
        to the defaults after a round trip.
        """
        return self.model_dump(mode="json", exclude_unset=True)

    def every_field(self) -> dict[str, Any]:
        """The flat JSON form with all fields, for display; ``meta`` only where there is one."""
        return self.model_dump(mode="json", exclude=None if self.meta else {"meta"})

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | str) -> Self:
        """Read the flat JSON form; unknown keys are refused by name."""
        if isinstance(values, str):
            try:
                values = json.loads(values)
            except (ValueError, RecursionError) as error:
                raise InputError.of("thresholds", values, f"is no JSON ({error})") from None
        if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
            raise InputError.of("thresholds", values, "must be one flat JSON object")
        own = {name.removeprefix(PREFIX): value for name, value in values.items() if name.startswith(PREFIX)}
        if own:
            values = {name: value for name, value in values.items() if not name.startswith(PREFIX)}
            values["custom"] = {**values.get("custom", {}), **own}
        return cls(**values)
