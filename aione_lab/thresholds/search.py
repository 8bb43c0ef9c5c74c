"""`search_space`: which ranges a study searches, read from the one declaration of each threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aione_lab.errors import InputError
from aione_lab.thresholds.params import PREFIX, Thresholds

if TYPE_CHECKING:
    from aione_lab.engine.spec import FeatureSpec


@dataclass(frozen=True)
class Search:
    """A range to search: ``low`` to ``high`` in steps of ``step``, ends included.

    ``multiple_of``: the numbers are multiples (``"0.6x"``) of this; "" for plain numbers. Raises InputError for a
    range that is none.
    """

    low: float
    high: float
    step: float
    multiple_of: str = ""

    def __post_init__(self) -> None:
        ends = (self.low, self.high, self.step)
        if not all(isinstance(end, (int, float)) and math.isfinite(end) for end in ends):
            raise InputError.of("search", ends, "must be three finite numbers: low, high and step")
        if not self.low < self.high:
            raise InputError.of("search", ends, "low must be less than high")
        if not 0 < self.step <= (self.high - self.low) * (1 + 1e-9):  # 0.21 - 0.01 is a little less than 0.2
            raise InputError.of("search", ends, "step must be positive and no wider than the range")


def search_space(spec: FeatureSpec | None = None) -> dict[str, Search]:
    """Range of every threshold by name; with a ``spec`` also those of its own triggers, as ``custom.NAME``.

    The names are the keys of ``Thresholds.from_json``. Raises InputError for a ``spec`` that is none.
    """
    ranges: dict[str, Search] = {}
    for name, field in Thresholds.model_fields.items():
        extra: Any = field.json_schema_extra
        if extra is not None:  # meta and custom have no range of their own
            ranges[name] = Search(**extra["search"])
    if spec is not None:
        if not hasattr(spec, "triggers"):
            raise InputError.of("spec", spec, "must be a FeatureSpec object")
        ranges |= {PREFIX + trigger.name: Search(*trigger.search) for trigger in spec.triggers}
    return ranges
