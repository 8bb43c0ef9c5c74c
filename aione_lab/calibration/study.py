"""`Calibration`: what a study of one symbol, or of a pool, found; `Member`: one symbol of a pool."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pandas as pd

from aione_lab.calibration import words
from aione_lab.calibration.experiment import Experiment, plain_json
from aione_lab.calibration.folds import Folds
from aione_lab.calibration.hidden import Hidden, reveal
from aione_lab.calibration.ledger import Entries
from aione_lab.calibration.objective import DayTables
from aione_lab.calibration.out_of_sample import Days, OutOfSample, summary_of
from aione_lab.calibration.plateau import Plateau
from aione_lab.calibration.verdict import Verdict
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.store import Lake
from aione_lab.research.overfitting import BacktestOverfitting, DeflatedSharpe
from aione_lab.settings import ReadOnly
from aione_lab.thresholds.params import Thresholds

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from aione_lab.figures.theme import Theme


@dataclass(frozen=True)
class Member:
    """A symbol of a pooled study: what it would have chosen for itself among the study's sets.

    It is judged against the shared choice, or against the default where the shared choice was not accepted.
    """

    symbol: str
    sets: tuple[Thresholds, ...]
    tables: DayTables  # of the study's sets, on this symbol
    plateau: Plateau
    against_shared: OutOfSample  # its own choice; what is called default there is the shared choice
    against_default: OutOfSample
    overfitting: BacktestOverfitting | None
    deflated: DeflatedSharpe | None = None
    n_trials: int = 0
    rival: str = "default"  # what it was judged against
    judged: Verdict = Verdict("not enough trades", (), "")

    @property
    def deviates(self) -> bool:
        """Whether its own set passes the gate."""
        return self.judged.decision == "accept"

    @property
    def walk_forward(self) -> OutOfSample:
        """Its own choice out of sample, beside what it was judged against."""
        return self.against_default if self.rival == "default" else self.against_shared

    @property
    def own(self) -> Thresholds:
        """Its own plateau's set, whether it passes or not."""
        return self.sets[self.plateau.centre]


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
    n_effective: float  # what the study's own trials amount to, correlated as they are
    overfitting: BacktestOverfitting | None  # None: fewer than two sets ever traded
    ledger: Entries
    judged: Verdict
    members: tuple[Member, ...] = ()  # of a pooled study: what each symbol would have for itself
    folder: Path | None = None
    lake: Lake | None = field(default=None, repr=False)

    @property
    def symbol(self) -> str:
        """The symbol, or the name of the pool."""
        return self.experiment.title

    @property
    def thresholds(self) -> Thresholds:
        """The plateau's set, accepted or not; ``verdict`` says which."""
        return self.sets[self.plateau.centre]

    def thresholds_for(self, symbol: str) -> Thresholds:
        """What the study has for ``symbol``: its own set where it deviates from the shared one."""
        own = self._deviating(symbol)
        return self.thresholds if own is None else own.own

    def _deviating(self, symbol: str) -> Member | None:
        """The member of a pool that has a set of its own; None: the study's set holds for ``symbol``."""
        if symbol not in self.experiment.symbols:
            raise InputError.unknown("symbol", symbol, self.experiment.symbols)
        return next((member for member in self.members if member.symbol == symbol and member.deviates), None)

    @property
    def by_symbol(self) -> pd.DataFrame:
        """One row a symbol of a pool: whether it deviates, and what it earned out of sample either way."""
        rows = []
        for member in self.members:
            m = member.walk_forward.metrics
            rows.append(
                {
                    "symbol": member.symbol,
                    "deviates": member.deviates,
                    "own_trades": m["n_trades"],
                    "own_expectancy": m["expectancy"],
                    "against": member.rival,
                    "its_trades": m["default_n_trades"],
                    "its_expectancy": m["default_expectancy"],
                    "gain_a_day": m["excess"],
                    "gain_low": m["excess_low"],
                    "gain_high": m["excess_high"],
                    "why": member.judged.sentence,
                }
            )
        return pd.DataFrame(rows).set_index("symbol") if rows else pd.DataFrame()

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

    def verdict_for(self, symbol: str) -> str:
        """The verdict that holds for ``symbol``: a member that deviates was accepted on its own."""
        return self.verdict if self._deviating(symbol) is None else "accept"

    def sentence_for(self, symbol: str) -> str:
        """The sentence of the verdict that holds for ``symbol``."""
        own = self._deviating(symbol)
        return self.sentence if own is None else own.judged.sentence

    def reveal(self, symbol: str | None = None, spec: FeatureSpec | None = None) -> Hidden:
        """Score the choice for ``symbol`` (None: the only one) on the hidden span, once; asked again, it says the same.

        The span of every symbol of the study is scored, then marked as spent in the ledger, then told; a study that
        comes after and hides a part of the same days is told so, on whatever interval. ``Hidden.verdict`` is what is
        left of the verdict: acceptance does not survive a hidden span on which the choice loses. ``spec`` is needed
        where own triggers or factors are part of it.
        """
        name = self.experiment.symbol_of(symbol)  # refused before anything is looked at
        return reveal(self, spec)[name]

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
            "symbols": list(self.experiment.symbols),
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
            "members": [
                {
                    "symbol": one.symbol,
                    "deviates": one.deviates,
                    "sentence": one.judged.sentence,
                    "own": one.own.every_field(),
                    "out_of_sample": dict(one.walk_forward.metrics),
                }
                for one in self.members
            ],
        }
        return ReadOnly(plain_json(values))

    def plot(self, theme: Theme = "light") -> go.Figure:
        """The study on one page: verdict, tested days, folds, plateau, importance and search."""
        return _views().overview(self, theme)

    def plot_importance(self, metric: str | None = None, theme: Theme = "light") -> go.Figure:
        """Share of the variation of ``metric`` (None: the first) that each threshold explains, among the sets tried."""
        return _views().importance(self, metric, theme)

    def plot_history(self, metric: str | None = None, theme: Theme = "light") -> go.Figure:
        """Score of every trial in order, and the best so far."""
        return _views().history(self, metric, theme)

    def plot_slices(self, metric: str | None = None, theme: Theme = "light") -> go.Figure:
        """Score against each threshold, peak and plateau marked."""
        return _views().slices(self, metric, theme)

    def plot_parallel(self, metric: str | None = None, theme: Theme = "light") -> go.Figure:
        """Every set as a line across its thresholds and its score."""
        return _views().parallel(self, metric, theme)

    def plot_pareto(self, theme: Theme = "light") -> go.Figure:
        """Sets by two or three metrics with their Pareto front; InputError for a study of one metric, or of more."""
        return _views().pareto(self, theme)

    def plot_heatmap(self, x: str, y: str, metric: str | None = None, theme: Theme = "light") -> go.Figure:
        """Mean score of the sets by two thresholds; InputError for one that was not searched."""
        return _views().heatmap(self, x, y, metric, theme)

    def plot_folds(self, metric: str | None = None, theme: Theme = "light") -> go.Figure:
        """Score and trades on each fold's test days: chosen before it, final choice, best trial and default."""
        return _views().folds(self, metric, theme)

    def plot_equity(self, theme: Theme = "light") -> go.Figure:
        """Equity of the tested days, chosen fold by fold, beside the default's; nothing of the hidden days."""
        return _views().equity(self, theme)

    def __repr__(self) -> str:
        n = len(self.optuna_study.get_trials(deepcopy=False))
        return f"Calibration({self.symbol} {self.experiment.interval}, {n} trials, {self.verdict})"

    def __str__(self) -> str:
        return words.as_text(self)

    def _repr_html_(self) -> str:
        return words.as_html(self)


def _views() -> Any:
    """The module of figures, loaded with Plotly when the first one is drawn."""
    from aione_lab.calibration import views

    return views


def days_of(tables: DayTables, row: int) -> Days:
    """The days of one set."""
    return Days(tables.trades[row], tables.wins[row], tables.gains[row], tables.losses[row], tables.returns[row])
