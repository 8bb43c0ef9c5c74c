"""Frozen configuration: the stages' settings, trading costs, and the base class they share.

A number is either a threshold (calibrated per symbol, ``aione_lab.thresholds``), a window length
(``aione_lab.engine.FeatureSpec``) or a setting (here), never two of them.
"""

from __future__ import annotations

import hashlib
import json
import numbers
import os
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from aione_lab.errors import InputError


class Config(BaseModel):
    """Base of all configuration: frozen, hashable, refuses unknown keys with "did you mean".

    A number is a number: int, float, Decimal or numpy's, never a bool or a text that could be read as one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    def __init__(self, **values: Any) -> None:
        name = type(self).__name__
        for key in values:
            if key not in type(self).model_fields:
                raise InputError.unknown(f"{name} field", key, type(self).model_fields)
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or name
            message = first["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
            raise InputError.of(f"{name}.{field}", first["input"], message) from None

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        """Numbers as Python's own, before pydantic would read one from a bool or a text."""
        several = isinstance(value, (list, tuple, set, frozenset))
        for part in value if several else [value]:
            if isinstance(part, Mapping) and not all(isinstance(key, str) for key in part):
                raise ValueError("its keys must be text")
        if not _is_number(cls, info.field_name or ""):
            return value
        return tuple(map(_plain_number, value)) if several else _plain_number(value)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a ``.toml`` or ``.json`` file; unknown keys and bad values are refused by name."""
        if not isinstance(path, (str, os.PathLike)):
            raise InputError.of("path", path, "must be the path of a TOML or JSON file")
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a byte-order mark in front
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError.of("path", str(path), f"cannot be read ({reason})") from None
        if not text.strip():  # of a write that was cut off: it must not pass for the defaults
            raise InputError.of("path", str(path), "is empty")
        try:
            values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError.of("path", str(path), f"is neither TOML nor JSON ({error})") from None
        if not isinstance(values, dict):
            raise InputError.of("path", str(path), "must hold one table of settings")
        return cls(**values)

    def replace(self, **changes: Any) -> Self:
        """A copy with ``changes``, checked like a new object."""
        return type(self)(**{**self.model_dump(exclude_unset=True), **changes})

    def digest(self) -> str:
        """Sha256 of the canonical JSON: equal objects, equal digests, on every machine."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError("these values cannot be changed; dict(...) gives a copy that can")


class ReadOnly(dict[str, Any]):
    """A ``dict`` that stays as it was made.

    A real one, because pandas and json read a ``MappingProxyType`` wrongly or not at all.
    """

    __setitem__: Any = _refuse
    __delitem__: Any = _refuse
    __ior__: Any = _refuse
    clear: Any = _refuse
    pop: Any = _refuse
    popitem: Any = _refuse
    setdefault: Any = _refuse
    update: Any = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


@cache
def _is_number(model: type[BaseModel], field: str) -> bool:
    """Whether a field holds numbers, and no text beside them."""
    leaves = list(_leaves(model.model_fields[field].annotation))
    return str not in leaves and any(leaf in (int, float) or type(leaf) is int for leaf in leaves)


def _leaves(annotation: Any) -> Iterator[Any]:
    parts = get_args(annotation)
    if not parts:
        yield annotation
    for part in parts:
        yield from _leaves(part)


def _plain_number(value: Any) -> Any:
    """Python's int or float of a number (None stays, for fields that take it); ValueError for what is none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, Decimal)):
        raise ValueError("must be a number")
    if isinstance(value, numbers.Integral):
        return int(value)
    try:
        return float(value)
    except OverflowError:  # a fraction beyond all floats
        raise ValueError("must be a finite number") from None


def _step(value: float) -> float:
    if value and not 1e-12 <= value <= 1e12:
        raise ValueError("must be 0 or between 1e-12 and 1e12")
    return value


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Step = Annotated[float, AfterValidator(_step)]


class Weights(Config):
    """Weight of each Stage2 factor; the score divides by the sum over the available ones."""

    volume: NotNegative = 0.25
    rsi: NotNegative = 0.18
    macd: NotNegative = 0.20
    ema_cross: NotNegative = 0.22
    stochastic: NotNegative = 0.15
    orderbook: NotNegative = 0.20
    vwap: NotNegative = 0.25
    velocity: NotNegative = 0.18
    volume_profile: NotNegative = 0.20

    @field_validator("volume_profile")
    @classmethod
    def _some_weight(cls, value: float, info: Any) -> float:
        if value + sum(v for v in info.data.values() if v is not None) <= 0:
            raise ValueError("at least one weight must be positive")
        return value


class Settings(Config):
    """What steers the stages and is not calibrated. Distances are in one-bar ATRs unless said."""

    # Stage1
    cooldown_period: Annotated[int, Field(ge=0, le=86_400)] = Field(300, description="seconds after an ALERT")
    exclude_hours: tuple[Annotated[int, Field(ge=0, le=23)], ...] = Field((), description="UTC hours without alerts")
    min_atr_percent: NotNegative = Field(0.002, description="1 h ATR / close below which no alert is given")
    min_volume_usd: NotNegative = Field(10_000.0, description="1 h quote volume below which no alert is given")
    near_level: Positive = Field(0.1, description="a level is near when it is at most this many ATRs away")
    range_burst: Positive = Field(4.0, description="true range ÷ its mean that counts as a volatility spike")
    divergence_min_rsi: NotNegative = Field(3.0, description="RSI points by which a divergence must diverge")

    # Stage2: context
    weights: Weights = Field(default_factory=Weights)
    context_min_correlation: Share = Field(0.7, description="below: independent of the reference")
    volatility_low: Positive = Field(0.6, description="ATR/close ÷ atr_7d below: LOW volatility")
    volatility_high: Positive = Field(1.8, description="ATR/close ÷ atr_7d above: HIGH volatility")
    market_drift: Positive = Field(1.5, description="drift of the reference, in its own standard deviations")
    capitulation_volume_z: Positive = Field(4.0, description="volume z-score of a capitulation")
    momentum_velocity: Positive = Field(2.0, description="ATRs within the velocity window that make momentum")
    manipulation_volume_z: Positive = Field(8.0, description="volume z-score that is suspect without a move")
    manipulation_body: Share = Field(0.15, description="|close − open| ÷ true range below which there is no move")
    low_liquidity_usd: NotNegative = Field(250_000.0, description="1 h quote volume flagged as LOW_LIQUIDITY")

    # Stage2: confidence
    min_cluster: Annotated[int, Field(ge=1, le=9)] = Field(4, description="confirming factors that make a cluster")
    cluster_strength: Share = Field(0.5, description="strength from which a factor confirms")
    cluster_lift: Share = Field(0.1, description="share of the way to 1 that a cluster lifts the confidence")
    volatile_discount: Share = Field(0.9, description="factor on the confidence while volatility is HIGH")
    against_market_discount: Share = Field(0.8, description="factor while against the market and not independent")
    watch_confidence: Share = Field(0.4, description="below: AVOID rather than WAIT_FOR_CONFIRMATION")

    # Stage2: risk
    min_risk_reward: NotNegative = Field(2.0, description="below: no BUY")
    min_stop: Positive = Field(0.25, description="least distance of the stop from the price, in ATRs")
    tp_buffer_eps: NotNegative = Field(0.0005, description="share of the price kept before the next major level")
    entry_spread_percent: Share = Field(0.05, description="deepest limit entry below the price, as a share of it")
    allow_shorts: bool = Field(False, description="mirror every rule for shorts and allow SELL")

    # Stage3: entry
    entry: Literal["open", "limit"] = Field(
        "open", description="at the next open, or by a limit order in optimal_entry"
    )
    entry_depth: Share = Field(0.5, description="where in optimal_entry the limit lies: 0 at the price, 1 deepest")
    entry_valid_bars: Annotated[int, Field(ge=1, le=10_000)] = Field(5, description="bars after which a limit lapses")

    # Stage3: exit
    target_shares: Annotated[tuple[Share, ...], Field(max_length=3)] = Field(
        (1.0,), description="shares closed at the first, second, third target; what is left of 1 runs on"
    )
    break_even: NotNegative = Field(0.0, description="gain in R after which the stop moves to the entry; 0: never")
    trailing_stop: NotNegative = Field(0.0, description="ATRs by which the stop follows the best price; 0: it does not")
    exit_on_opposite: bool = Field(False, description="an opposite BUY or SELL closes the trade at the next open")
    max_holding_minutes: Annotated[int, Field(ge=1, le=100_000)] = Field(240, description="time-out of a trade")
    both_touched: Literal["stop", "target"] = Field("stop", description="which fills first when one bar touches both")

    # Stage3: size
    initial_capital: Positive = Field(10_000.0, description="quote currency at the start of a replay")
    sizing: Literal["fraction", "risk"] = Field("fraction", description="a share of the equity, or what the stop loses")
    position_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="equity put into a trade as margin; with sizing 'risk' the most that may be"
    )
    risk_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.01, description="equity lost at the stop")
    leverage: Annotated[float, Field(ge=1.0, le=125.0)] = Field(1.0, description="notional ÷ isolated margin")
    maintenance_margin: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.005, description="share of the notional below which the margin is liquidated"
    )

    # Portfolio
    max_open_trades: Annotated[int, Field(ge=1, le=1_000)] = Field(
        3, description="most trades at once; each has an equal share of the equity to work with"
    )
    max_correlation_threshold: Share = Field(
        0.85, description="of two symbols that both correlate more with the reference only one is held"
    )
    portfolio_min_confidence: Share = Field(0.0, description="confidence below which a portfolio does not enter")

    @field_validator("exclude_hours")
    @classmethod
    def _sorted_hours(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(value)))

    @field_validator("target_shares")
    @classmethod
    def _at_most_all(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if sum(value) > 1.0 + 1e-9:
            raise ValueError("must not add up to more than 1")
        return value

    @field_validator("maintenance_margin")
    @classmethod
    def _below_margin(cls, value: float, info: Any) -> float:
        if value >= 1.0 / info.data.get("leverage", 1.0):
            raise ValueError("must be less than 1 ÷ leverage, or every position is liquidated at once")
        return value

    @field_validator("volatility_high")
    @classmethod
    def _above_low(cls, value: float, info: Any) -> float:
        if value <= info.data.get("volatility_low", 0.0):
            raise ValueError("must be greater than volatility_low")
        return value


class Costs(Config):
    """What trading costs, and the steps in which a symbol is quoted.

    Fees are shares of the notional per side. Stops, time-outs and market entries pay ``fee`` and
    slippage; targets rest in the book and pay ``maker_fee`` and no slippage. Where a trade crosses a full
    ``funding_hours`` (UTC) and no rate is known, its funding is unknown.
    """

    fee: Annotated[float, Field(ge=0.0, le=0.05)] = Field(0.0005, description="taker fee, share of notional")
    maker_fee: Annotated[float, Field(ge=-0.01, le=0.05)] | None = Field(None, description="None: the taker fee")
    slippage_bps: Annotated[float, Field(ge=0.0, le=500.0)] = Field(0.0, description="basis points on taker fills")
    tick_size: Step = Field(0.0, description="price step of the symbol; 0: prices are not rounded")
    lot_size: Step = Field(0.0, description="quantity step of the symbol; 0: quantities are not rounded")
    funding_hours: Literal[1, 2, 4, 8] = Field(8, description="hours from one funding stamp to the next")
