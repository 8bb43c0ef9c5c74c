"""`Space`: which thresholds a study searches, over which ranges, and what the others are held at."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from aione_lab.engine.params import check_kind
from aione_lab.errors import InputError
from aione_lab.thresholds.params import PREFIX, Thresholds
from aione_lab.thresholds.search import Search, search_space

if TYPE_CHECKING:
    from aione_lab.engine.spec import FeatureSpec

APART = ("dynamic_rsi_multiplier",)
"""Left out unless asked for: with it set the static RSI levels have no say, and searching both wastes trials."""

Fields = Iterable[str] | Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Space:
    """Ranges by field, and the set that says what every field outside of them is held at."""

    ranges: Mapping[str, Search]
    base: Thresholds

    @classmethod
    def of(
        cls, fields: Fields | None = None, *, base: Thresholds | None = None, spec: FeatureSpec | None = None
    ) -> Space:
        """The space of ``fields``: names, or names with (low, high) or (low, high, step); None: all but ``APART``.

        A range that is given replaces the declared one; it may not leave what the field allows. Raises InputError for
        an unknown name, a range that is none, no field at all, and a space in which some set is none.
        """
        declared = search_space(spec)
        base = Thresholds() if base is None else base
        check_kind("base", base, Thresholds)
        if fields is None:
            fields = [name for name in declared if name not in APART]
        if isinstance(fields, str) or not isinstance(fields, Iterable):
            raise InputError.of("space", fields, "must be names of thresholds, or a mapping of them to (low, high)")
        names = list(fields)
        if not names:
            raise InputError.of("space", names, "must name at least one threshold")
        ranges: dict[str, Search] = {}
        for name in names:
            if not isinstance(name, str) or name not in declared:
                raise InputError.unknown("space", name, declared)
            ranges[name] = (
                _narrowed(name, declared[name], fields[name]) if isinstance(fields, Mapping) else declared[name]
            )
        space = cls({name: ranges[name] for name in declared if name in ranges}, base)
        space._check()
        return space

    @property
    def size(self) -> int:
        """How many different sets there are."""
        return math.prod(_steps(search) + 1 for search in self.ranges.values())

    def _check(self) -> None:
        """Try the corners: one clear refusal now rather than in the middle of a study."""
        low = {name: search.low for name, search in self.ranges.items()}
        high = {name: search.high for name, search in self.ranges.items()}
        meeting = {name: (high if name == "rsi_oversold" else low)[name] for name in self.ranges}
        try:
            for corner in (low, high, meeting):
                self.thresholds(corner)
        except InputError as error:
            shown = {name: (search.low, search.high) for name, search in self.ranges.items()}
            raise InputError.of("space", shown, f"holds sets that are none: {error}") from None
        for name, search in self.ranges.items():
            known = Thresholds.model_fields.get(name)
            if known is not None and known.annotation is int and not isinstance(_distribution(search), IntDistribution):
                given = (search.low, search.high, search.step)
                raise InputError.of(f"space[{name!r}]", given, "must be whole numbers")

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distributions, in the order of the fields."""
        return {name: _distribution(search) for name, search in self.ranges.items()}

    def thresholds(self, params: Mapping[str, float]) -> Thresholds:
        """The set that ``params`` of a trial stand for; steps are decimal, so 3.9000000000000004 is 3.9."""
        values: dict[str, Any] = self.base.model_dump(exclude_unset=True)
        own = dict(values.pop("custom", {}))
        for name, value in params.items():
            if name not in self.ranges:
                raise InputError.unknown("params", name, self.ranges)
            number = float(round(value, 10))
            if name.startswith(PREFIX):
                own[name.removeprefix(PREFIX)] = number
            elif self.ranges[name].multiple_of:
                values[name] = f"{np.format_float_positional(number, trim='-')}x"
            else:
                values[name] = int(number) if isinstance(_distribution(self.ranges[name]), IntDistribution) else number
        if own:
            values["custom"] = own
        values.pop("meta", None)
        return Thresholds(**values)


def _distribution(search: Search) -> BaseDistribution:
    ends = (search.low, search.high, search.step)
    if all(float(end).is_integer() for end in ends) and not search.multiple_of:
        return IntDistribution(int(search.low), int(search.high), step=int(search.step))
    # The last step must lie inside: Optuna would move an end that does not, with a warning.
    low, high, step = (Decimal(str(end)) for end in ends)
    return FloatDistribution(float(low), float(low + (high - low) // step * step), step=float(step))


def _steps(search: Search) -> int:
    low, high, step = (Decimal(str(end)) for end in (search.low, search.high, search.step))
    return int((high - low) // step)


def _narrowed(name: str, declared: Search, given: Any) -> Search:
    try:
        ends = list(given)
        if not all(isinstance(end, numbers.Real | Decimal) and not isinstance(end, bool | np.bool_) for end in ends):
            raise TypeError
        low, high, *step = (float(end) for end in ends)
        (step_size,) = step or [min(declared.step, high - low)]
    except (TypeError, ValueError, OverflowError):
        raise InputError.of(f"space[{name!r}]", given, "must be (low, high) or (low, high, step)") from None
    try:
        return Search(low, high, step_size, declared.multiple_of)
    except InputError as error:
        raise InputError.of(f"space[{name!r}]", given, str(error).split(": ", 1)[1]) from None
