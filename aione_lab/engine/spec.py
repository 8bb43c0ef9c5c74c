"""`FeatureSpec`: every window length, in one frozen and hashed object."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, model_serializer, model_validator

from aione_lab.engine.custom import Factor, Trigger, check_together
from aione_lab.engine.records import FACTORS, FEATURE_NAMES, REASONS, SPEC, record_dtype
from aione_lab.engine.rings import CAPACITY, DAYS, LONG, SWING_BARS, VELOCITY_BARS
from aione_lab.errors import InputError
from aione_lab.settings import Config
from aione_lab.thresholds.params import CUSTOM
from aione_lab.units import DAY_MS, HOUR_MS, INTERVALS

HIGHER_INTERVALS: dict[str, tuple[str, str]] = {
    "1m": ("15m", "1h"),
    "3m": ("15m", "1h"),
    "5m": ("1h", "4h"),
    "15m": ("1h", "4h"),
}
"""Interval of the candles → its two higher timeframes; one of the two is always the hour."""

Window = Annotated[int, Field(ge=2, le=CAPACITY)]
Span = Annotated[int, Field(ge=2, le=LONG)]


class FeatureSpec(Config):
    """Window lengths, in bars of the interval unless a field says otherwise, and own triggers and factors.

    Features depend on the candles, the interval and this object, and on nothing else.
    """

    rsi_window: Window = 14
    rsi_mean_window: Window = 50
    atr_window: Window = 14
    atr_mean_days: Annotated[int, Field(ge=1, le=DAYS)] = Field(7, description="days behind atr_7d")
    macd_fast: Window = 12
    macd_slow: Window = 26
    macd_signal: Window = 9
    stochastic_window: Window = 14
    stochastic_smooth: Annotated[int, Field(ge=1, le=CAPACITY)] = 3
    volume_window: Window = 50
    vwap_window: Window = 30
    range_window: Window = Field(50, description="true ranges in the mean that a burst is measured against")
    sr_window: Window = Field(50, description="bars of the nearby high and low, and of the price change")
    velocity_window: Annotated[int, Field(ge=1, le=VELOCITY_BARS)] = 5
    flow_window: Window = Field(15, description="bars of the taker-buy imbalance")
    profile_window: Span = Field(240, description="bars of the volume profile")
    profile_bins: Annotated[int, Field(ge=4, le=64)] = 24
    profile_refresh: Annotated[int, Field(ge=1, le=1440)] = Field(30, description="bars between two profiles")
    value_area: Annotated[float, Field(gt=0, le=1)] = Field(0.7, description="share of the volume in the value area")
    correlation_window: Span = Field(240, description="log returns in the correlation with the reference")
    trend_fast: Window = Field(5, description="completed higher bars of the fast average")
    trend_slow: Window = Field(20, description="completed higher bars of the slow average")
    trend_min: Annotated[float, Field(ge=0)] = Field(0.25, description="|fast − slow|, in higher ATRs, of a trend")
    swing_bars: Annotated[int, Field(ge=1, le=SWING_BARS)] = Field(
        5, description="bars on each side that confirm a swing"
    )
    divergence_bars: Annotated[int, Field(ge=2, le=1440)] = Field(60, description="most bars between two swings")
    level_days: Annotated[int, Field(ge=5, le=30)] = Field(30, description="completed days searched for levels")
    level_swing_days: Annotated[int, Field(ge=1, le=5)] = Field(2, description="days on each side of a daily swing")
    triggers: Annotated[tuple[Trigger, ...], Field(max_length=CUSTOM)] = Field((), description="own Stage1 triggers")
    factors: Annotated[tuple[Factor, ...], Field(max_length=CUSTOM)] = Field((), description="own Stage2 factors")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.macd_fast >= self.macd_slow:
            raise ValueError("macd_fast must be less than macd_slow")
        if self.trend_fast >= self.trend_slow:
            raise ValueError("trend_fast must be less than trend_slow")
        check_together(self.triggers, self.factors)
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """No word of own triggers and factors where there are none."""
        values = handler(self)
        for name in ("triggers", "factors"):
            if not getattr(self, name):
                values.pop(name, None)
        return values

    @property
    def custom(self) -> tuple[Factor | Trigger, ...]:
        """Own factors and triggers, in the order of their numbers among the features."""
        return (*self.factors, *self.triggers)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Names of the Stage1 reasons: bit i of a mask is the i-th."""
        return (*REASONS, *(trigger.name for trigger in self.triggers)) if self.triggers else REASONS

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Names of the Stage2 factors, in the order of their strengths."""
        return (*FACTORS, *(factor.name for factor in self.factors)) if self.factors else FACTORS

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the feature columns: the built-in ones, then own factors' and triggers' numbers."""
        own = self.custom
        return (*FEATURE_NAMES, *(name for one in own for name in one.columns)) if own else FEATURE_NAMES

    @property
    def row_dtype(self) -> np.dtype[Any]:
        """One row of the features, every number a named field."""
        return _row_dtype(self.feature_names)

    def record(self, interval: str) -> np.ndarray:
        """Array (1,) of SPEC for candles of ``interval``; InputError where the engine cannot use it."""
        if not isinstance(interval, str) or interval not in HIGHER_INTERVALS:
            raise InputError.of("interval", interval, f"signals need one of {', '.join(HIGHER_INTERVALS)}")
        step = INTERVALS[interval]
        first, second = (INTERVALS[name] for name in HIGHER_INTERVALS[interval])
        record = np.zeros(1, SPEC)
        for name in type(self).model_fields:
            if name not in ("triggers", "factors"):
                record[name] = getattr(self, name)
        record["step_ms"] = step
        record["day_bars"] = DAY_MS // step
        record["atr_mean_bars"] = self.atr_mean_days * DAY_MS // step
        record["higher_1_ms"] = first
        record["higher_2_ms"] = second
        record["hour_is_first"] = first == HOUR_MS
        return record


@lru_cache(maxsize=32)
def _row_dtype(names: tuple[str, ...]) -> np.dtype[Any]:
    return record_dtype(*((name, "f8") for name in names))
