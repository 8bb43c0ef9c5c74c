"""What a study's trials and the ledger make of its choice: deflated Sharpe ratio, overfitting, verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from aione_lab.calibration.experiment import Experiment
from aione_lab.calibration.ledger import Entries, trial_name
from aione_lab.calibration.objective import DayTables
from aione_lab.calibration.verdict import Verdict, judge
from aione_lab.research.overfitting import BacktestOverfitting, DeflatedSharpe, deflated_sharpe, effective_trials, pbo
from aione_lab.thresholds.params import Thresholds

if TYPE_CHECKING:
    from aione_lab.calibration.study import Calibration, Member

MOST_SPLITS = 12
"""Blocks of the overfitting test: 924 ways to halve them, and a tenth of the time of the 12,870 of 16 blocks."""


def judged_by(study: Calibration, ledger: Mapping[str, Entries]) -> Calibration:
    """The study with its verdict over the trials of ``ledger`` by title or symbol, its own among them.

    What the ledger does not name is judged by the study's own trials. A member of a pool that is accepted deviates.
    """
    made = study.experiment
    entries = ledger.get(made.title, study.ledger)
    deflated, judged = _judge(study, entries, made.min_trades, "default")
    rival = "shared set" if judged.decision == "accept" else "default"
    members = []
    for member in study.members:
        theirs = ledger.get(member.symbol)
        if theirs is None:
            theirs = own_entries(made, member.symbol, study.sets, member.tables)
        member = dataclasses.replace(member, rival=rival)
        found, verdict = _judge(member, theirs, made.min_trades, rival, len(study.members))
        members.append(dataclasses.replace(member, deflated=found, judged=verdict, n_trials=theirs.n_trials))
    return dataclasses.replace(study, deflated=deflated, ledger=entries, judged=judged, members=tuple(members))


def _judge(
    one: Calibration | Member, ledger: Entries, min_trades: int, rival: str, looks: int = 1
) -> tuple[DeflatedSharpe | None, Verdict]:
    returns = one.tables.returns[one.plateau.centre]
    deflated = None
    if np.ptp(returns) > 0:
        # ``looks``: every member of a pool may deviate, and the best of many such choices is luck as well.
        n_trials = looks * max(1.0, ledger.n_effective)
        deflated = deflated_sharpe(returns, trial_sharpes=ledger.sharpes, n_trials=n_trials)
    overfitting = one.overfitting
    verdict = judge(
        one.walk_forward.metrics,
        deflated=math.nan if deflated is None else deflated.probability,
        loss=math.nan if overfitting is None else overfitting.probability_of_loss,
        pbo=math.nan if overfitting is None else overfitting.pbo,
        n_losses=float((one.tables.trades - one.tables.wins)[one.plateau.centre].sum()),
        n_trials=ledger.n_trials,
        n_effective=None if deflated is None else deflated.n_trials,
        min_trades=min_trades,
        against=rival,
    )
    return deflated, verdict


def own_entries(experiment: Experiment, title: str, sets: Sequence[Thresholds], tables: DayTables) -> Entries:
    """A study's own trials, as a ledger would hold them."""
    data = experiment.data_of(title)
    names = tuple(trial_name(data, experiment.rules, one.digest()) for one in sets)
    weights = np.full(len(names), effective(tables) / len(names))
    return Entries(0, names, daily_sharpes(tables.returns), weights)


def daily_sharpes(returns: np.ndarray) -> np.ndarray:
    """Sharpe ratio per day of each row of ``returns`` (trials, days); 0 for what never moved."""
    spread = returns.std(axis=1, ddof=1)
    return np.divide(returns.mean(axis=1), spread, out=np.zeros(len(returns)), where=spread > 0)


def effective(tables: DayTables) -> float:
    """Independent trials that the sets of ``tables`` amount to, correlated as their days are; 0: none ever moved."""
    moving = np.ptp(tables.returns, axis=1) > 0
    return effective_trials(tables.returns[moving].T) if moving.any() else 0.0


def overfitting_of(tables: DayTables) -> BacktestOverfitting | None:
    """PBO over the sets that ever moved; None where there are fewer than two."""
    moving = np.ptp(tables.returns, axis=1) > 0
    if moving.sum() < 2:
        return None
    n_days = tables.returns.shape[1]
    return pbo(tables.returns[moving].T, min(MOST_SPLITS, n_days // 4 * 2))
