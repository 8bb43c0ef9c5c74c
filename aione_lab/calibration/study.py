"""`calibrate`: a study of one symbol, from its candles to a verdict, and `Calibration`, what it found."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

from aione_lab.backtest.evaluate import Prepared
from aione_lab.calibration.data import Frames, fingerprint_bars
from aione_lab.calibration.experiment import Experiment
from aione_lab.calibration.folds import Folds, make_folds
from aione_lab.calibration.hidden import Hidden, reveal
from aione_lab.calibration.ledger import Entries, trial_name
from aione_lab.calibration.objective import DayTables, objectives
from aione_lab.calibration.out_of_sample import Days, OutOfSample, summary_of, walk
from aione_lab.calibration.plateau import FEWEST_NEIGHBOURS, Plateau, choose_plateau
from aione_lab.calibration.scoring import Scorer
from aione_lab.calibration.search import Report, run_search
from aione_lab.calibration.space import Space
from aione_lab.calibration.trial_store import TrialStore
from aione_lab.calibration.verdict import Verdict, judge
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.store import Lake
from aione_lab.research.overfitting import BacktestOverfitting, DeflatedSharpe, deflated_sharpe, effective_trials, pbo
from aione_lab.settings import ReadOnly
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, to_ms

MOST_SPLITS = 12
"""Blocks of the overfitting test: 924 ways to halve them, and a tenth of the time of the 12,870 of 16 blocks."""


@dataclass(frozen=True)
class Calibration:
    """A finished study. Everything here was found on the visible days; the hidden ones were not even read."""

    experiment: Experiment
    folds: Folds
    optuna_study: optuna.Study  # in memory: a plain Optuna study, ``optuna.visualization`` works on it
    sets: tuple[Thresholds, ...]  # the distinct sets, in order of appearance
    tables: DayTables  # of ``sets``
    default_tables: DayTables  # of the default set
    plateau: Plateau  # rows are those of ``sets``
    walk_forward: OutOfSample
    deflated: DeflatedSharpe | None  # None: the choice never moved
    n_effective: float  # what the study's own trials amount to; shown, the distinct ones are what is judged by
    overfitting: BacktestOverfitting | None  # None: fewer than two sets ever traded
    ledger: Entries
    judged: Verdict
    folder: Path | None = None
    lake: Lake | None = field(default=None, repr=False)

    @property
    def symbol(self) -> str:
        """The symbol."""
        return self.experiment.symbol

    @property
    def thresholds(self) -> Thresholds:
        """The plateau's set, accepted or not; ``verdict`` says which."""
        return self.sets[self.plateau.centre]

    @property
    def peak(self) -> Thresholds:
        """The best trial's set, for comparison."""
        return self.sets[self.plateau.peak]

    @property
    def default(self) -> Thresholds:
        """The set the symbol has without a study."""
        return self.experiment.default

    @property
    def verdict(self) -> str:
        """``accept``, ``keep defaults`` or ``not enough trades``."""
        return self.judged.decision

    @property
    def sentence(self) -> str:
        """The verdict and why, in one sentence."""
        return self.judged.sentence

    @property
    def checks(self) -> pd.DataFrame:
        """One row a condition of the verdict: passed, found, wanted."""
        rows = [{"check": c.name, "passed": c.passed, "found": c.found, "wanted": c.wanted} for c in self.judged.checks]
        return pd.DataFrame(rows).set_index("check")

    @property
    def out_of_sample(self) -> Mapping[str, Any]:
        """Metrics of the walk-forward's test days, net of costs, with 90 % bands (``OutOfSample.metrics``)."""
        return self.walk_forward.metrics

    @property
    def pbo(self) -> float:
        """Probability of backtest overfitting (CSCV) over the visible days; NaN where nothing traded."""
        return math.nan if self.overfitting is None else self.overfitting.pbo

    @property
    def deflated_sharpe(self) -> float:
        """Deflated Sharpe ratio of the choice over every distinct trial of the ledger; NaN where it never moved."""
        return math.nan if self.deflated is None else self.deflated.probability

    def reveal(self, spec: FeatureSpec | None = None) -> Hidden:
        """Score the choice on the hidden span, once: asked again, it tells the same.

        The span is marked as spent in the ledger, before it is looked at; a study that comes after and hides a part of
        the same days is told so. ``Hidden.verdict`` is what is left of the verdict: acceptance does not survive a
        hidden span on which the choice loses. ``spec`` is needed where own triggers or factors are part of it.
        """
        return reveal(self, spec)

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial: values, parameters, trades and scores by fold; repeats of a set included."""
        names = self.experiment.metric
        rows = []
        for trial in self.optuna_study.get_trials(deepcopy=False):
            kept = trial.user_attrs
            by_fold = {f"{name}_fold_{i}": x for name in names for i, x in enumerate(kept[f"fold_{name}"])}
            rows.append(
                {
                    "trial": trial.number,
                    **dict(zip(names, trial.values, strict=True)),
                    **trial.params,
                    "n_trades": kept["n_trades"],
                    **by_fold,
                }
            )
        return pd.DataFrame(rows).set_index("trial")

    @property
    def digest(self) -> str:
        """Sha256 of every trial and of the judgement: equal for an equal study, wherever it is run."""
        trials = [[t.number, t.params, t.values, t.user_attrs] for t in self.optuna_study.get_trials(deepcopy=False)]
        # A row's number in the ledger says who else came by in the meantime, and nothing of the study.
        ledger = {name: value for name, value in self.results["ledger"].items() if name != "last"}
        text = json.dumps([trials, {**self.results, "ledger": ledger}], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def results(self) -> Mapping[str, Any]:
        """What ``results.json`` holds, as JSON knows it (NaN is null)."""
        chosen, peak = self.plateau.centre, self.plateau.peak
        values: dict[str, Any] = {
            "symbol": self.symbol,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "thresholds": self.thresholds.every_field(),
            "peak": self.peak.every_field(),
            "checks": [
                {"check": c.name, "passed": c.passed, "found": c.found, "wanted": c.wanted} for c in self.judged.checks
            ],
            "out_of_sample": dict(self.out_of_sample),
            "folds": self.walk_forward.folds.reset_index().to_dict("records"),
            "visible": {
                name: summary_of(days_of(tables, row))
                for name, tables, row in (
                    ("chosen", self.tables, chosen),
                    ("peak", self.tables, peak),
                    ("default", self.default_tables, 0),
                )
            },
            "pbo": self.pbo,
            "deflated_sharpe": self.deflated_sharpe,
            "ledger": {"last": self.ledger.last, "n_trials": self.ledger.n_trials, "digest": self.ledger.digest},
            "n_effective": self.n_effective,
        }
        return ReadOnly(plain_json(values))


def days_of(tables: DayTables, row: int) -> Days:
    """The days of one set."""
    return Days(tables.trades[row], tables.wins[row], tables.gains[row], tables.losses[row], tables.returns[row])


def study_symbol(
    experiment: Experiment,
    lake: Lake,
    *,
    spec: FeatureSpec | None = None,
    store: TrialStore | None = None,
    report: Report | None = None,
) -> tuple[Calibration, Frames]:
    """Search, choose and prepare the judgement of one experiment; nothing is written but trials to ``store``.

    The verdict is over the study's own trials; ``judged_by`` takes in a ledger.
    """
    spec = experiment.whole_spec(spec)
    frames = Frames.load(
        lake,
        experiment.symbol,
        experiment.interval,
        experiment.start,
        experiment.hidden_from,
        experiment.reference,
        spec,
        experiment.settings,
        experiment.costs,
    )
    prepared = Prepared(
        frames.candles,
        interval=frames.interval,
        reference=frames.reference,
        funding=frames.funding,
        spec=spec,
        settings=frames.settings,
        costs=frames.costs,
        features=frames.features,
    )
    folds = experiment_folds(experiment)
    aims = objectives(experiment.metric)
    space = Space.of(experiment.space, base=experiment.default, spec=spec)
    scorer = Scorer(prepared, space, folds, aims)
    study = run_search(
        scorer.score,
        space,
        aims,
        experiment.n_trials,
        sampler=experiment.sampler,
        seed=experiment.seed,
        store=store,
        report=report,
    )
    default = scorer.tables_of([experiment.default])
    if len(scorer.sets) <= FEWEST_NEIGHBOURS:
        raise InputError.of(
            "space", list(space.ranges), f"only {len(scorer.sets)} distinct sets came up: widen it or ask more trials"
        )
    plateau = choose_plateau(scorer.frame, aims[0].better(aims[0].scores(scorer.tables, folds.test)), scorer.ranges)

    def replayed(thresholds: Thresholds, days: np.ndarray) -> Any:
        inside = folds.first_day + np.flatnonzero(days)
        return frames.replay_days(thresholds, int(inside[0]), int(inside[-1]))

    data = fingerprint_bars(prepared.bars)
    names = tuple(trial_name(data, experiment.rules, one.digest()) for one in scorer.sets)
    found = Calibration(
        experiment=experiment.replace(data=data),
        folds=folds,
        optuna_study=study,
        sets=tuple(scorer.sets),
        tables=scorer.tables,
        default_tables=default,
        plateau=plateau,
        walk_forward=walk(scorer, aims[0], default, replayed, experiment.seed),
        deflated=None,
        n_effective=_effective(scorer.tables.returns),
        overfitting=_overfitting(scorer.tables),
        ledger=Entries(0, names, daily_sharpes(scorer.tables.returns)),
        judged=Verdict("not enough trades", (), ""),
        lake=lake,
    )
    return judged_by(found, found.ledger), frames


def judged_by(study: Calibration, ledger: Entries) -> Calibration:
    """The study with its verdict over the trials of ``ledger``, its own among them."""
    returns = study.tables.returns[study.plateau.centre]
    deflated = deflated_sharpe(returns, trial_sharpes=ledger.sharpes) if np.ptp(returns) > 0 else None
    found = dataclasses.replace(study, deflated=deflated, ledger=ledger)
    verdict = judge(
        study.out_of_sample,
        deflated=found.deflated_sharpe,
        loss=math.nan if study.overfitting is None else study.overfitting.probability_of_loss,
        pbo=found.pbo,
        n_trials=ledger.n_trials,
        min_trades=study.experiment.min_trades,
    )
    return dataclasses.replace(found, judged=verdict)


def experiment_folds(experiment: Experiment) -> Folds:
    """The folds of an experiment: whole UTC days from its first candle to where the hidden span begins."""
    plan = experiment.folds
    first = to_ms(experiment.start, "start") // DAY_MS
    last = (to_ms(experiment.hidden_from, "hidden_from") - 1) // DAY_MS
    return make_folds(
        first,
        last - first + 1,
        scheme=plan.scheme,
        n_folds=plan.n_folds,
        n_test=plan.n_test,
        max_holding_minutes=experiment.settings.max_holding_minutes,
        embargo_days=plan.embargo_days,
    )


def daily_sharpes(returns: np.ndarray) -> np.ndarray:
    """Sharpe ratio per day of each row of ``returns`` (trials, days); 0 for what never moved."""
    spread = returns.std(axis=1, ddof=1)
    return np.divide(returns.mean(axis=1), spread, out=np.zeros(len(returns)), where=spread > 0)


def plain_json(value: Any) -> Any:
    """``value`` as JSON holds it: numpy's numbers as Python's, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)) or (isinstance(value, Sequence) and not isinstance(value, str)):
        return [plain_json(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _effective(returns: np.ndarray) -> float:
    moving = np.ptp(returns, axis=1) > 0
    return effective_trials(returns[moving].T) if moving.any() else 0.0


def _overfitting(tables: DayTables) -> BacktestOverfitting | None:
    moving = np.ptp(tables.returns, axis=1) > 0
    if moving.sum() < 2:
        return None
    n_days = tables.returns.shape[1]
    return pbo(tables.returns[moving].T, min(MOST_SPLITS, n_days // 4 * 2))
