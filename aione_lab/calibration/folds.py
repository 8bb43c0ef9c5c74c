"""`Folds`: how a span is shared out between choosing and judging, by whole UTC days.

The span is cut into groups of days. Walk-forward tests each later group on what was chosen before it: on everything
before (anchored) or on the last groups only (rolling). Combinatorial purged cross-validation tests every choice of
``n_test`` groups on the others. Days whose trades could still be open, or whose features still look back, on the other
side of an edge belong to neither side. Source: M. López de Prado, "Advances in Financial Machine Learning" (2018),
chapters 7 and 12.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from aione_lab.engine.spec import HIGHER_INTERVALS, FeatureSpec
from aione_lab.errors import InputError
from aione_lab.research.arguments import whole
from aione_lab.research.overfitting import FEWEST_RETURNS
from aione_lab.units import DAY_MS, INTERVALS, MINUTE_MS

Scheme = Literal["anchored", "rolling", "combinatorial"]
SCHEMES: tuple[str, ...] = ("anchored", "rolling", "combinatorial")

FIRST_TRAIN = 2
"""Groups that the first choice of a walk-forward is made on; a rolling one keeps that many."""

MOST_FOLDS = 1_000
"""Choices of groups in a combinatorial scheme; their number explodes, and they are correlated all the more."""

LEAST_GROUP = 3  # days: a group shorter than its purged edges would judge nothing


@dataclass(frozen=True)
class Folds:
    """Days by group and by fold; ``train`` and ``test`` are (folds, days) of bool."""

    scheme: str
    first_day: int  # days since 1970-01-01
    groups: np.ndarray  # (days,) number of each day's group
    train: np.ndarray
    test: np.ndarray
    purge_days: int
    embargo_days: int

    @property
    def n_days(self) -> int:
        """Days of the span."""
        return len(self.groups)

    @property
    def frame(self) -> pd.DataFrame:
        """One row a fold: what it chooses on and what it judges on, dates and days."""
        rows = []
        for number, (train, test) in enumerate(zip(self.train, self.test, strict=True)):
            rows.append(
                {
                    "fold": number,
                    "train": self._spans(train),
                    "test": self._spans(test),
                    "train_days": int(train.sum()),
                    "test_days": int(test.sum()),
                }
            )
        return pd.DataFrame(rows).set_index("fold")

    def _spans(self, days: np.ndarray) -> str:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], days, [False]]).astype(np.int8)))
        dates = [str(np.datetime64(int(self.first_day + edge), "D")) for edge in edges]
        return ", ".join(f"{a} to {b}" for a, b in zip(dates[::2], dates[1::2], strict=True))


def make_folds(
    first_day: int,
    n_days: int,
    *,
    scheme: str = "anchored",
    n_folds: int = 5,
    n_test: int = 2,
    holding_ms: int = 240 * MINUTE_MS,
    look_back_ms: int = DAY_MS,
    embargo_days: int = 1,
) -> Folds:
    """Folds over ``n_days`` days from ``first_day`` (days since 1970).

    Walk-forward: ``n_folds`` test groups after ``FIRST_TRAIN`` groups to begin with. Combinatorial: ``n_folds`` groups,
    ``n_test`` of them tested at a time. Before a test the longest holding time and the look-back are purged, in whole
    days; after it the same and the embargo. Raises InputError for an unknown scheme and too short a span.
    """
    if scheme not in SCHEMES:
        raise InputError.unknown("folds", scheme, SCHEMES)
    n_folds = whole("n_folds", n_folds, 2, 50)
    embargo = whole("embargo_days", embargo_days, 0, 365)
    purge = math.ceil(look_back_ms / DAY_MS) + math.ceil(holding_ms / DAY_MS)
    walks = scheme != "combinatorial"
    n_groups = n_folds + FIRST_TRAIN if walks else n_folds
    least = max(n_groups * max(LEAST_GROUP, purge + 1), FEWEST_RETURNS)
    if n_days < least:
        raise InputError.of(
            "n_folds",
            n_folds,
            f"{max(n_days, 0)} days to search are too few for {n_groups} groups: at least {least} are needed",
        )
    if not walks:
        n_test = whole("n_test", n_test, 1, n_folds - 1)
        if math.comb(n_folds, n_test) > MOST_FOLDS:
            count = math.comb(n_folds, n_test)
            raise InputError.of("n_test", n_test, f"{count:,} choices of {n_folds} groups are more than {MOST_FOLDS:,}")
    groups = np.arange(n_days) * n_groups // n_days
    if walks:
        tested: list[tuple[int, ...]] = [(group,) for group in range(FIRST_TRAIN, n_groups)]
    else:
        tested = list(itertools.combinations(range(n_groups), n_test))
    test = np.array([np.isin(groups, chosen) for chosen in tested])
    train = np.empty_like(test)
    for i, chosen in enumerate(tested):
        allowed = ~test[i]
        if walks:
            allowed &= groups < chosen[0]
            if scheme == "rolling":
                allowed &= groups >= chosen[0] - FIRST_TRAIN
        train[i] = allowed & ~_near(test[i], purge, purge + embargo)
    if not train.any(axis=1).all():
        raise InputError.of(
            "embargo_days",
            embargo,
            "leaves nothing to choose on; a longer span or fewer groups tested at once leave more",
        )
    return Folds(scheme, first_day, groups, train, test, purge, embargo)


def look_back(spec: FeatureSpec, interval: str) -> int:
    """What a signal looks back on, in ms: a day, or the longest window where the interval makes one longer.

    The 7-day mean and the 30-day levels are context that changes slowly; purging by them would leave nothing of a
    quarter.
    """
    step = INTERVALS[interval]
    windows = [getattr(spec, name) * step for name in type(spec).model_fields if name.endswith("_window")]
    slow = max(INTERVALS[higher] for higher in HIGHER_INTERVALS.get(interval, (interval,))) * spec.trend_slow
    return max(DAY_MS, slow, *windows)


def _near(days: np.ndarray, before: int, after: int) -> np.ndarray:
    """Days at most ``before`` days before or ``after`` days after one of ``days``."""
    near = days.copy()
    for shift in range(1, before + 1):
        near[:-shift] |= days[shift:]
    for shift in range(1, after + 1):
        near[shift:] |= days[:-shift]
    return near
