"""`Scorer`: what a batch of trials is worth, fold by fold, each distinct set replayed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from aione_lab.calibration.folds import Folds
from aione_lab.calibration.objective import DayTables, Objective
from aione_lab.calibration.plateau import Plateau, choose_plateau
from aione_lab.calibration.space import Space
from aione_lab.thresholds.params import Thresholds

Measure = Callable[[Sequence[Thresholds]], DayTables]
"""Day tables of any sets, one row a set."""


@dataclass(frozen=True)
class ScoredSets:
    """The distinct sets of a search, their searched numbers and their day tables: one row a set."""

    folds: Folds
    sets: tuple[Thresholds, ...]
    frame: pd.DataFrame  # the searched numbers, by field
    ranges: Mapping[str, tuple[float, float]]  # (low, high) by field
    tables: DayTables

    def choose(self, objective: Objective, parts: np.ndarray) -> Plateau:
        """The plateau by the scores on each of ``parts`` (parts, days) of bool."""
        return choose_plateau(self.frame, objective.better(objective.scores(self.tables, parts)), self.ranges)


class Scored(NamedTuple):
    """A trial's values, one an objective, and what is kept with it fold by fold."""

    values: tuple[float, ...]
    attributes: dict[str, Any]


class Scorer:
    """Judges sets on the test days of ``folds``; keeps the day tables of every distinct set, in order of appearance.

    A trial's value is the mean over the folds of its score on their test days. One replay serves all folds: a trade
    belongs to the fold in which it was entered.
    """

    def __init__(self, measure: Measure, space: Space, folds: Folds, objectives: Sequence[Objective]) -> None:
        self.measure = measure
        self.space = space
        self.folds = folds
        self.objectives = tuple(objectives)
        self.sets: list[Thresholds] = []
        self.tables = measure([])
        self._params: list[dict[str, float]] = []
        self._place: dict[str, int] = {}

    def score(self, params: Sequence[Mapping[str, float]]) -> list[Scored]:
        """One ``Scored`` a trial, in order."""
        new: dict[str, Thresholds] = {}
        digests = []
        for one in params:
            thresholds = self.space.thresholds(one)
            digest = thresholds.digest()
            digests.append(digest)
            if digest not in self._place and digest not in new:
                new[digest] = thresholds
                self._params.append(dict(one))
        if new:
            self._place |= {digest: len(self.sets) + i for i, digest in enumerate(new)}
            self.sets += new.values()
            self.tables = self.tables.joined(self.measure(list(new.values())))
        rows = [self._place[digest] for digest in digests]
        tables = self.tables.rows(rows)
        by_fold = {one.name: one.scores(tables, self.folds.test) for one in self.objectives}
        trades = tables.trades @ self.folds.test.T
        scored = []
        for i, row in enumerate(rows):
            scored.append(
                Scored(
                    tuple(float(scores[i].mean()) for scores in by_fold.values()),
                    {
                        "set": self.sets[row].digest()[:16],
                        "n_trades": int(self.tables.trades[row].sum()),
                        "fold_trades": [int(n) for n in trades[i]],
                        **{f"fold_{name}": [float(x) for x in scores[i]] for name, scores in by_fold.items()},
                    },
                )
            )
        return scored

    @property
    def scored(self) -> ScoredSets:
        """What was tried, for who chooses among it."""
        return ScoredSets(
            self.folds,
            tuple(self.sets),
            pd.DataFrame(self._params, columns=list(self.space.ranges)).astype(np.float64),
            {name: (search.low, search.high) for name, search in self.space.ranges.items()},
            self.tables,
        )
