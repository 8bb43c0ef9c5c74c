"""Figures of a study: what the ``plot`` methods of ``Calibration`` show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aione_lab.calibration.importance import parameter_importance
from aione_lab.calibration.objective import objectives
from aione_lab.calibration.search import STARTUP
from aione_lab.errors import InputError
from aione_lab.figures.calibration import heatmap_chart, history_chart, importance_chart, slices_chart
from aione_lab.figures.calibration_folds import folds_chart, overview_chart, walk_forward_chart
from aione_lab.figures.calibration_sets import parallel_chart, pareto_chart
from aione_lab.figures.theme import Theme
from aione_lab.thresholds.params import PREFIX
from aione_lab.thresholds.search import search_space

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from aione_lab.calibration.folds import Folds
    from aione_lab.calibration.study import Calibration

CHOSEN = "chosen on the days before"
OTHERS = "chosen on the other days"
FINAL = "final choice (saw this fold)"
PEAK = "best trial (saw this fold)"
DEFAULT = "default"


def sets_frame(study: Calibration) -> pd.DataFrame:
    """One row a distinct set, in the order of ``study.sets``: thresholds, metrics, trades, and its first trial."""
    names = study.experiment.metric
    place = {one.digest()[:16]: row for row, one in enumerate(study.sets)}
    rows: dict[int, dict[str, Any]] = {}
    for trial in study.optuna_study.get_trials(deepcopy=False):
        row = place[trial.user_attrs["set"]]
        if row not in rows:
            metrics = dict(zip(names, trial.values, strict=True))
            rows[row] = {**trial.params, **metrics, "n_trades": trial.user_attrs["n_trades"], "trial": trial.number}
    return pd.DataFrame([rows[row] for row in sorted(rows)])


def labels_of(study: Calibration) -> dict[str, str]:
    """What an axis says of each searched threshold: its name, and what it is a multiple of."""
    declared = search_space()
    found = {}
    for name in study.experiment.space:
        of = "" if name.startswith(PREFIX) else declared[name].multiple_of
        found[name] = f"{name} (× {of})" if of else name
    return found


def metric_of(study: Calibration, metric: str | None) -> str:
    """A metric of the study by name; None: the first one, which the plateau was chosen by."""
    names = study.experiment.metric
    if metric is None:
        return names[0]
    if metric not in names:
        raise InputError.of("metric", metric, f"must be one of the study's: {', '.join(names)}")
    return metric


def fold_scores(study: Calibration, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score and trades of each choice on each fold's test days, one row a fold, labelled by number and dates."""
    (aim,) = objectives(metric)
    test = study.folds.test
    walked, plateau = study.walk_forward, study.plateau
    chosen = [
        (aim.scores(study.tables.rows([row]), test[[fold]])[0, 0], (study.tables.trades[row] * test[fold]).sum())
        for fold, row in enumerate(walked.rows)
    ]
    first = OTHERS if study.folds.scheme == "combinatorial" else CHOSEN
    scores = {first: [score for score, _ in chosen]}
    trades = {first: [n for _, n in chosen]}
    for name, tables, row in (
        (FINAL, study.tables, plateau.centre),
        (PEAK, study.tables, plateau.peak),
        (DEFAULT, study.default_tables, 0),
    ):
        one = tables.rows([row])
        scores[name] = list(aim.scores(one, test)[0])
        trades[name] = list((one.trades @ test.T)[0])
    index = pd.Index([f"{i + 1}: {dates_of(study, days)}" for i, days in enumerate(test)], name="Fold: its test days")
    if study.folds.scheme == "combinatorial":  # several spans each: too long to stand below a bar
        index = pd.Index([str(i + 1) for i in range(len(test))], name="Fold")
    return pd.DataFrame(scores, index=index), pd.DataFrame(trades, index=index)


def fold_returns(study: Calibration) -> pd.DataFrame:
    """Net return of the equity on each fold's test days: of the set chosen without them, and of the default."""
    rows = zip(study.walk_forward.rows, study.folds.test, strict=True)
    pairs = [(study.tables.returns[row][days], study.default_tables.returns[0][days]) for row, days in rows]
    return pd.DataFrame([[np.prod(1 + one) - 1 for one in pair] for pair in pairs], columns=["chosen", "default"])


def dates_of(study: Calibration, days: np.ndarray) -> str:
    """First and last date of each run of ``days`` (bool over the span), both inclusive."""
    return run_dates(study.folds.first_day, days)


def run_dates(first: int, days: np.ndarray) -> str:
    """See ``dates_of``; ``first``: the first of the days, since 1970."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], days, [False]]).astype(np.int8)))
    runs = (
        (np.datetime64(int(first + a), "D"), np.datetime64(int(first + b - 1), "D")) for a, b in edges.reshape(-1, 2)
    )
    return ", ".join(f"{a} to {b}" for a, b in runs)


def maximized(metric: str) -> bool:
    """Whether more of a metric is better."""
    return objectives(metric)[0].direction == "maximize"


def default_score(study: Calibration, metric: str) -> float:
    """What a trial with the default set would have scored."""
    (aim,) = objectives(metric)
    return float(aim.scores(study.default_tables, study.folds.test).mean())


def importance(study: Calibration, metric: str | None = None, theme: Theme = "light") -> go.Figure:
    """See ``Calibration.plot_importance``."""
    name = metric_of(study, metric)
    shares = parameter_importance(study.optuna_study, study.experiment.metric.index(name), study.experiment.seed)
    return importance_chart(shares, name, theme=theme)


def history(study: Calibration, metric: str | None = None, theme: Theme = "light") -> go.Figure:
    """See ``Calibration.plot_history``."""
    name = metric_of(study, metric)
    trials = sets_frame(study)["trial"]
    return history_chart(
        study.trials[name].to_numpy(),
        name,
        maximize=maximized(name),
        chosen=int(trials[study.plateau.centre]),
        peak=int(trials[study.plateau.peak]),
        default=default_score(study, name),
        random_until=STARTUP if study.experiment.sampler == "tpe" else 0,
        theme=theme,
    )


def slices(study: Calibration, metric: str | None = None, theme: Theme = "light") -> go.Figure:
    """See ``Calibration.plot_slices``."""
    name = metric_of(study, metric)
    return slices_chart(
        sets_frame(study),
        labels_of(study),
        name,
        centre=study.plateau.centre,
        peak=study.plateau.peak,
        neighbours=study.plateau.neighbours,
        default=default_score(study, name),
        theme=theme,
    )


def parallel(study: Calibration, metric: str | None = None, theme: Theme = "light") -> go.Figure:
    """See ``Calibration.plot_parallel``."""
    name = metric_of(study, metric)
    return parallel_chart(
        sets_frame(study),
        labels_of(study),
        name,
        study.experiment.space,
        maximize=maximized(name),
        centre=study.plateau.centre,
        peak=study.plateau.peak,
        default={**numbers_of_default(study), name: default_score(study, name)},
        theme=theme,
    )


def numbers_of_default(study: Calibration) -> dict[str, float]:
    """The searched thresholds of the default set as numbers; adaptive and absolute gates are left out."""
    found = {}
    values = study.default.every_field()
    for name, label in labels_of(study).items():
        value = values.get(name)
        if isinstance(value, str):
            found[name] = float(value.removesuffix("x"))
        elif value is not None and label == name:
            found[name] = float(value)
    return found


def pareto(study: Calibration, theme: Theme = "light") -> go.Figure:
    """See ``Calibration.plot_pareto``."""
    aims = objectives(study.experiment.metric)
    if len(aims) not in (2, 3):
        raise InputError.of("metric", list(study.experiment.metric), "a Pareto front needs a study of two or three")
    sets = sets_frame(study)
    best = {trial.user_attrs["set"] for trial in study.optuna_study.best_trials}
    return pareto_chart(
        sets,
        {one.name: one.direction == "maximize" for one in aims},
        [row for row, one in enumerate(study.sets) if one.digest()[:16] in best],
        centre=study.plateau.centre,
        peak=study.plateau.peak,
        default=[default_score(study, one.name) for one in aims],
        theme=theme,
    )


def heatmap(study: Calibration, x: str, y: str, metric: str | None = None, theme: Theme = "light") -> go.Figure:
    """See ``Calibration.plot_heatmap``."""
    labels = labels_of(study)
    for argument, name in (("x", x), ("y", y)):
        if name not in labels:
            raise InputError.unknown(argument, name, labels)
    return heatmap_chart(
        sets_frame(study),
        x,
        y,
        metric_of(study, metric),
        centre=study.plateau.centre,
        peak=study.plateau.peak,
        labels=labels,
        theme=theme,
    )


def folds(study: Calibration, metric: str | None = None, theme: Theme = "light") -> go.Figure:
    """See ``Calibration.plot_folds``."""
    name = metric_of(study, metric)
    scores, trades = fold_scores(study, name)
    return folds_chart(scores, trades, name, theme=theme)


def equity(study: Calibration, theme: Theme = "light") -> go.Figure:
    """See ``Calibration.plot_equity``."""
    return walk_forward_chart(study.walk_forward.daily, tested_spans(study), theme=theme)


def tested_spans(study: Calibration) -> list[tuple[pd.Timestamp, pd.Timestamp, str]]:
    """First day, day after the last and label of each group of tested days: of a walk-forward, its folds."""
    return spans_of(study.folds)


def spans_of(made: Folds) -> list[tuple[pd.Timestamp, pd.Timestamp, str]]:
    """See ``tested_spans``."""
    tested = made.test.any(axis=0)
    first = pd.Timestamp(made.first_day, unit="D", tz="UTC")
    word = "group" if made.scheme == "combinatorial" else "fold"
    found = []
    for number, group in enumerate(np.unique(made.groups[tested])):
        days = np.flatnonzero((made.groups == group) & tested)
        start, after = (first + pd.Timedelta(days=int(day)) for day in (days[0], days[-1] + 1))
        found.append((start, after, f"{word} {number + 1}"))
    return found


def overview(study: Calibration, theme: Theme = "light") -> go.Figure:
    """See ``Calibration.plot``."""
    name = metric_of(study, None)
    scores, trades = (table.set_axis(range(1, len(table) + 1)) for table in fold_scores(study, name))
    panels: Mapping[str, go.Figure] = {
        "Days that had no part in the choice, net of costs": equity(study, theme),
        f"Test {name}, fold by fold": folds_chart(scores, trades, name, theme=theme),
        "Each set, and the sets around it": study.plateau.plot(theme),
        f"What {name} varied with": importance(study, None, theme),
        "The search": history(study, None, theme),
    }
    title = f"{study.symbol} {study.experiment.interval}: {study.verdict}"
    return overview_chart(panels, study.sentence, title=title, theme=theme)
