"""What the explorer looks at: the visible candles of one symbol, replayed for any set. No widget is made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.backtest.evaluate import Evaluation, Prepared
from aione_lab.backtest.readonly import ReadOnly
from aione_lab.calibration.experiment import Experiment, FoldPlan
from aione_lab.calibration.folds import Folds
from aione_lab.calibration.markets import REFERENCE, Market
from aione_lab.calibration.objective import DayTables, round_trip
from aione_lab.calibration.plan import plan
from aione_lab.calibration.space import Space
from aione_lab.calibration.study import Calibration
from aione_lab.calibration.study_run import experiment_folds
from aione_lab.engine.params import check_kind
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.store import Lake
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.thresholds.search import search_space
from aione_lab.units import INTERVALS, to_ms

MOST_CELLS = 15
"""Most columns and rows of a grid: 225 sets, a fraction of a second over three months of minutes."""


@dataclass(frozen=True)
class View:
    """One set over the visible candles: its trades, the equity at the close of every bar, and its metrics."""

    evaluation: Evaluation
    equity: np.ndarray
    metrics: Mapping[str, Any]

    @property
    def thresholds(self) -> Thresholds:
        """The set."""
        return self.evaluation.thresholds

    @cached_property
    def drawdown(self) -> np.ndarray:
        """(n,) equity ÷ highest equity so far (the starting capital included) − 1."""
        return self.equity / np.maximum.accumulate(np.maximum(self.equity, self.evaluation.capital)) - 1.0


@dataclass(frozen=True)
class Scene:
    """Visible candles and features of one symbol, the folds over them, and the study, where there is one.

    What lies in the hidden span is not read from the lake, so that nothing here could show it.
    """

    experiment: Experiment
    symbol: str
    market: Market
    prepared: Prepared
    folds: Folds | None
    without_folds: str  # why there are none
    space: Space  # every threshold with its range; those of the study where it searched them
    study: Calibration | None
    other_data: bool = False  # these are not the candles that the study was made on

    @property
    def default(self) -> Thresholds:
        """What the symbol has without a study."""
        return self.experiment.default_of(self.symbol)

    @cached_property
    def times(self) -> np.ndarray:
        """(n,) open times of the bars, int64 UTC ms."""
        return np.ascontiguousarray(self.prepared.bars["timestamp"])

    @cached_property
    def close(self) -> np.ndarray:
        """(n,) closes."""
        return np.ascontiguousarray(self.prepared.bars["close"])

    @cached_property
    def step_ms(self) -> int:
        """From one bar to the next."""
        return INTERVALS[self.experiment.interval]

    def view(self, thresholds: Thresholds) -> View:
        """Replay one set: the trades and metrics that ``replay`` gives."""
        (found,) = self.prepared.evaluate([thresholds], equity=True)
        assert found.equity is not None
        total = float(found.equity[-1]) / found.capital - 1.0
        return View(found, found.equity, ReadOnly({**found.metrics, "total_return": total}))

    def grid(self, base: Thresholds, x: str, y: str, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of ``x`` (columns) and ``y`` (rows), and ``metric`` of each pair, all else as in ``base``.

        Every pair is a set of its own, all of them computed in one batch.
        """
        if x == y:
            raise InputError.of("y", y, "must be another threshold than x")
        across, up = self.values_of(x), self.values_of(y)
        space = Space(self.space.ranges, base)
        pairs = [{x: float(a), y: float(b)} for b in up for a in across]
        found = self.prepared.evaluate([space.thresholds(pair) for pair in pairs])
        scores = [float(one.metrics[metric]) for one in found]
        return across, up, np.array(scores).reshape(len(up), len(across))

    def values_of(self, name: str) -> np.ndarray:
        """At most ``MOST_CELLS`` numbers over the range of a threshold, each of them on its grid."""
        if name not in self.space.ranges:
            raise InputError.unknown("threshold", name, self.space.ranges)
        search = self.space.ranges[name]
        steps = int((search.high - search.low) / search.step + 1e-9)
        every = -(-(steps + 1) // MOST_CELLS)
        return np.round(search.low + search.step * np.arange(0, steps + 1, every), 10)

    def by_fold(self, views: Mapping[str, View]) -> pd.DataFrame:
        """Net return of the equity and trades on each fold's test days, one row a fold, two columns a view."""
        assert self.folds is not None
        cost = round_trip(self.prepared.settings, self.prepared.costs)
        folds = self.folds
        tables = DayTables.of([one.evaluation for one in views.values()], folds.first_day, folds.n_days, cost)
        columns = {}
        for row, name in enumerate(views):
            columns[name, "return"] = [float(np.prod(1 + tables.returns[row][days]) - 1) for days in folds.test]
            columns[name, "trades"] = [int(tables.trades[row][days].sum()) for days in folds.test]
        return pd.DataFrame(columns, index=pd.RangeIndex(1, len(folds.test) + 1, name="fold"))


def make_scene(
    source: Lake | Calibration,
    symbol: str | None,
    *,
    interval: str | None,
    start: Any,
    end: Any,
    study: Calibration | None,
    hidden: float | None,
    folds: FoldPlan | str | None,
    reference: str | None,
    spec: FeatureSpec | None,
    settings: Settings | None,
    costs: Costs | None,
) -> Scene:
    """Read what may be looked at; see ``CalibrationExplorer``."""
    if isinstance(source, Calibration):
        if study is not None:
            raise InputError.of("study", study, "is there already, as the first argument")
        study, lake = source, source.lake
        if lake is None:
            raise InputError.of("study", study.symbol, "was not made from a lake: CalibrationExplorer(lake, study=…)")
    else:
        check_kind("source", source, Lake)
        lake = source
    if study is None:
        experiment = _new(lake, symbol, interval, start, end, hidden, folds, reference, spec, settings, costs)
        name = experiment.symbols[0]
    else:
        check_kind("study", study, Calibration)
        given = {
            "interval": interval, "start": start, "end": end, "hidden": hidden, "folds": folds, "settings": settings,
            "costs": costs,
        }  # fmt: skip
        for argument, value in given.items():
            if value is not None:
                raise InputError.of(argument, value, "the study says what that is")
        experiment, name = study.experiment, study.experiment.symbol_of(symbol)
    spec = experiment.whole_spec(spec)
    market = Market.load(lake, name, experiment, spec)
    made, why = _folds(experiment) if study is None else (study.folds, "")
    ranges = {one: (s.low, s.high, s.step) for one, s in search_space(spec).items()}
    space = Space.of({**ranges, **experiment.space}, base=experiment.default_of(name), spec=spec)
    known = None if study is None else experiment.data.get(name)
    other = known is not None and known != market.fingerprint()
    return Scene(experiment, name, market, market.prepare(), made, why, space, study, other)


def _new(
    lake: Lake,
    symbol: str | None,
    interval: str | None,
    start: Any,
    end: Any,
    hidden: float | None,
    folds: FoldPlan | str | None,
    reference: str | None,
    spec: FeatureSpec | None,
    settings: Settings | None,
    costs: Costs | None,
) -> Experiment:
    if not isinstance(symbol, str):
        raise InputError.of("symbol", symbol, "must be one symbol of the lake")
    if isinstance(folds, str) or folds is None:
        folds = FoldPlan(scheme="anchored" if folds is None else folds)
    if hidden is not None:
        folds = folds.replace(hidden=hidden)
    made = plan(
        lake,
        symbol,
        interval="1m" if interval is None else interval,
        start=start,
        end=end,
        reference=REFERENCE if reference is None else reference,
        folds=folds,
        spec=spec,
        settings=settings,
        costs=costs,
    )
    if to_ms(made.hidden_from, "hidden_from") <= to_ms(made.start, "start"):
        allowed = f"leaves no day in view from {made.start} to {made.end}; ask for a longer span, or hidden=0"
        raise InputError.of("hidden", folds.hidden, allowed)
    return made


def _folds(experiment: Experiment) -> tuple[Folds | None, str]:
    try:
        return experiment_folds(experiment), ""
    except InputError as error:  # a few days can be looked at, though not folded: said on the page
        return None, str(error)
