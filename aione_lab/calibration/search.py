"""The search: Optuna asked for trials a batch at a time, the engine answering a batch in one call.

Each batch has a sampler of its own, seeded by the study's seed and the number of the batch's first trial, and sees
nothing but the finished trials before it. A study that was cut anywhere and goes on is therefore the study that was
never cut.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.samplers._tpe import _truncnorm
from scipy.special import erf, log_ndtr

from aione_lab.calibration.objective import Objective
from aione_lab.calibration.space import Space
from aione_lab.errors import InputError

if TYPE_CHECKING:
    from aione_lab.calibration.scoring import Scored
    from aione_lab.calibration.trial_store import TrialStore

BATCH = 20
"""Trials asked for at once: enough for the engine to share its work, few enough for TPE to learn from."""

STARTUP = 40
"""Random trials before TPE begins."""

SAMPLERS = ("tpe", "random", "nsga2")

_OURS = {"_log_ndtr": log_ndtr, "erf": erf}
"""What FastTPE puts in place of Optuna's own functions."""

_OTHER = "data, code or versions have changed, it cannot go on; take another name"

Score = Callable[[Sequence[dict[str, float]]], "list[Scored]"]
Report = Callable[[int, int], None]


class FastTPE(optuna.samplers.TPESampler):
    """Optuna's TPE in a fraction of the time: erf and ln Φ come from scipy while it proposes a trial.

    Optuna computes them element by element in Python, not to depend on scipy; that is most of what TPE costs. The two
    agree but for the last digits, and what is searched lies on a grid: the proposals are the same. A sampler serves one
    batch, and no trial of it is finished before the last is proposed: what finished ones say is worked out once.
    """

    _one_at_a_time = threading.Lock()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._space: dict[str, optuna.distributions.BaseDistribution] | None = None
        self._asked: dict[tuple[str, ...], dict[int, list[float]]] = {}

    def infer_relative_search_space(self, *args: Any) -> dict[str, optuna.distributions.BaseDistribution]:
        """As ``TPESampler.infer_relative_search_space``."""
        if self._space is None:
            self._space = super().infer_relative_search_space(*args)
        return self._space

    def sample_relative(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As ``TPESampler.sample_relative``."""
        with self._one_at_a_time:
            names = vars(_truncnorm)
            theirs = {name: names[name] for name in _OURS}
            names.update(_OURS)
            try:
                return super().sample_relative(*args, **kwargs)
            finally:
                names.update(theirs)

    def _get_internal_repr(
        self, trials: list[optuna.trial.FrozenTrial], search_space: dict[str, Any], study: optuna.Study
    ) -> dict[str, np.ndarray]:
        rows, asked = [], self._asked.setdefault(tuple(search_space), {})
        for trial in trials:
            row = asked.get(trial.number)
            if row is None:
                one = super()._get_internal_repr([trial], search_space, study)
                row = [float(value) for values in one.values() for value in values]
                if trial.state.is_finished():
                    asked[trial.number] = row
            if row:  # a trial that lacks a parameter counts for nothing
                rows.append(row)
        return dict(zip(search_space, np.array(rows).reshape(-1, len(search_space)).T.copy(), strict=True))


def sampler_of(name: str, seed: int, first: int) -> optuna.samplers.BaseSampler:
    """The sampler of the batch that begins with trial ``first``."""
    number = int(np.random.SeedSequence([seed, first]).generate_state(1)[0])
    if name == "random":
        return optuna.samplers.RandomSampler(seed=number)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=number, population_size=BATCH)
    if name != "tpe":
        raise InputError.unknown("sampler", name, SAMPLERS)
    # constant_liar: the trials of a batch know of each other, so that they do not all ask the same question.
    return FastTPE(seed=number, multivariate=True, n_startup_trials=STARTUP, constant_liar=True)


def run_search(
    score: Score,
    space: Space,
    objectives: Sequence[Objective],
    n_trials: int,
    *,
    sampler: str = "tpe",
    seed: int = 0,
    store: TrialStore | None = None,
    report: Report | None = None,
    proposed: Sequence[optuna.trial.FrozenTrial] = (),
) -> optuna.Study:
    """Run until there are ``n_trials`` trials and return them as an Optuna study in memory.

    Trials already in ``store`` are taken as they are and only scored again, for what the caller keeps of them; a
    score that differs from the stored one means other data or other code and raises InputError. The parameters of
    ``proposed`` trials are scored instead of asking a sampler, for as many as there are.
    """
    study = optuna.create_study(directions=[one.direction for one in objectives])
    for first in range(0, len(proposed), BATCH):
        part = proposed[first : first + BATCH]
        for old, scored in zip(part, score([one.params for one in part]), strict=True):
            study.add_trial(
                optuna.trial.create_trial(
                    values=scored.values,
                    params=old.params,
                    distributions=old.distributions,
                    user_attrs=dict(scored.attributes),
                )
            )
    # Of a batch that a shorter study cut: asked again with the rest of it, because what a sampler proposes next
    # depends on what else it has asked for and not heard of.
    cut: list[optuna.trial.FrozenTrial] = []
    if store is not None and (done := store.trials()[:n_trials]):
        _check_same(done, score([trial.params for trial in done]))
        whole = len(done) if len(done) == n_trials else len(done) // BATCH * BATCH
        study.add_trials(done[:whole])
        cut = done[whole:]
        _remember_parents(sampler, study)
    distributions = space.distributions
    while (first := len(study.get_trials(deepcopy=False))) < n_trials:
        if report is not None:
            report(first, n_trials)
        study.sampler = sampler_of(sampler, seed, first)
        trials = [study.ask(distributions) for _ in range(min(BATCH, n_trials - first))]
        for trial, before in zip(trials, cut, strict=False):
            if trial.params != before.params:
                raise InputError.of(
                    "experiment", f"trial {before.number}: {before.params}", f"is {trial.params} now: {_OTHER}"
                )
        for trial, scored in zip(trials, score([trial.params for trial in trials]), strict=True):
            for key, value in scored.attributes.items():
                trial.set_user_attr(key, value)
            study.tell(trial, scored.values)
        if store is not None:
            store.append(study.get_trials(deepcopy=False)[first + len(cut) :])
            cut = []
    if report is not None:
        report(n_trials, n_trials)
    return study


def _check_same(trials: Sequence[optuna.trial.FrozenTrial], again: Sequence[Scored]) -> None:
    for trial, scored in zip(trials, again, strict=True):
        if tuple(trial.values) != scored.values:
            raise InputError.of(
                "experiment",
                f"trial {trial.number}: {list(trial.values)}",
                f"is {list(scored.values)} now: {_OTHER}",
            )


def _remember_parents(sampler: str, study: optuna.Study) -> None:
    """NSGA-II breeds from the parents of each generation as it keeps them in memory: choose them as it did then."""
    generations = len(study.get_trials(deepcopy=False)) // BATCH
    if sampler == "nsga2":
        for generation in range(1, generations):
            sampler_of(sampler, 0, 0).get_parent_population(study, generation)  # type: ignore[attr-defined]
