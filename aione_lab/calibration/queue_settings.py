"""Settings of the calibration queue."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from aione_lab.settings import Config, NotNegative, Positive


class QueueSettings(Config):
    """How many calibrations run at once, in which order, for how long and how often. Smaller priorities are sooner."""

    max_concurrent: Annotated[int, Field(ge=1, le=64)] = Field(2, description="calibrations (processes) at once")
    min_priority: NotNegative = Field(0.1, description="the most urgent a task can be, by its priority or by waiting")
    max_priority: Positive = Field(1.0, description="the least urgent a task can be")
    urgency_decay: Positive = Field(
        0.01, description="priority that a minute of waiting takes off; a normal task is as urgent as any after 40"
    )
    defaults_dir: str | None = Field(None, description="folder of threshold files that the job may start from")
    optuna_timeout: Annotated[float, Field(gt=0.0, le=604_800.0)] = Field(
        1_800.0, description="seconds after which the process of a calibration is killed"
    )
    min_bars: Annotated[int, Field(ge=1)] = Field(10_080, description="fewest candles the job calibrates on")
    recalibrate_hours: NotNegative = Field(
        24.0, description="hours after a calibration in which the same symbol and interval is not calibrated again"
    )
    urgent_hours: NotNegative = Field(
        6.0, description="hours in which a symbol is urgent at most once; urgent passes over recalibrate_hours"
    )

    @field_validator("max_priority")
    @classmethod
    def _above_min(cls, value: float, info: Any) -> float:
        if value <= info.data.get("min_priority", 0.0):
            raise ValueError("must be greater than min_priority")
        return value
