"""A study's trials on a Dask cluster, with Optuna's own distributed storage in between.

A task is a batch of trials: a worker asks, scores and tells them against the shared storage, and keeps the symbol's
candles for the next one. Workers know nothing of each other but the finished trials. What the cluster leaves behind
is a journal of Optuna's; its finished trials go into the study's own database, and the study is judged here like any
other. A worker that dies takes its batch with it: Dask runs the batch again elsewhere, and what the dead one had asked
and not told is marked as failed.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from aione_lab.calibration.experiment import Experiment
from aione_lab.calibration.markets import Markets
from aione_lab.calibration.objective import objectives
from aione_lab.calibration.scoring import Scorer
from aione_lab.calibration.search import BATCH, Report, sampler_of
from aione_lab.calibration.space import Space
from aione_lab.calibration.trial_store import TrialStore
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import AioneError, InputError
from aione_lab.lake.store import Lake

if TYPE_CHECKING:
    from distributed import Client

JOURNAL = "cluster.journal"
RETRIES = 5  # of a batch whose worker died
STRAYS = 1_000_000  # numbers of batches from here on are those that make up for failed ones


def run_trials(
    cluster: Client | str,
    experiment: Experiment,
    lake: Lake,
    place: Path,
    store: TrialStore,
    *,
    storage: str | None = None,
    spec: FeatureSpec | None = None,
    report: Report | None = None,
) -> None:
    """Have the cluster bring ``store`` to the experiment's number of trials.

    ``cluster``: a ``distributed.Client`` or the address of a scheduler. ``storage``: URL of a database that Optuna
    shares (PostgreSQL, MySQL); None: a journal in the study's folder, which the workers must then see under the same
    path, like the lake. Raises InputError for no cluster, AioneError where batches fail for another reason than a
    dead worker.
    """
    client, own = _client(cluster)
    try:
        where = str(place.resolve() / JOURNAL) if storage is None else storage
        study = optuna.create_study(
            storage=open_storage(where),
            study_name=experiment.title,
            directions=[one.direction for one in objectives(experiment.metric)],
            load_if_exists=True,
        )
        there = store.trials()
        if not study.get_trials(deepcopy=False):
            study.add_trials(there)
        _fill(client, study, where, experiment, lake.root, spec, report)
        done = finished(study)[: experiment.n_trials]
        store.append([_renumbered(trial, number) for number, trial in enumerate(done)][len(there) :])
    finally:
        if own:
            client.close()


def open_storage(where: str) -> BaseStorage:
    """Optuna's storage at a URL, or in a journal file."""
    return RDBStorage(where) if "://" in where else JournalStorage(JournalFileBackend(where))


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that were told, by number."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]


def _fill(
    client: Client,
    study: optuna.Study,
    where: str,
    experiment: Experiment,
    root: str,
    spec: FeatureSpec | None,
    report: Report | None,
) -> None:
    from distributed import as_completed

    n = experiment.n_trials
    first = len(study.get_trials(deepcopy=False))
    while (missing := n - len(finished(study))) > 0:
        sizes = [min(BATCH, missing - i) for i in range(0, missing, BATCH)]
        tasks = [
            client.submit(batch, where, experiment, root, spec, first + i * BATCH, size, pure=False, retries=RETRIES)
            for i, size in enumerate(sizes)
        ]
        for task in as_completed(tasks):
            if task.status == "error":
                client.cancel(tasks)
                raise AioneError(f"the cluster could not run a batch of trials: {task.exception()}")
            if report is not None:
                report(min(len(finished(study)), n), n)
        first += STRAYS
    for trial in study.get_trials(deepcopy=False):  # every batch has ended: who is still running is dead
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)


def batch(where: str, experiment: Experiment, root: str, spec: FeatureSpec | None, first: int, size: int) -> int:
    """On a worker: ask, score and tell ``size`` trials; how many that were."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        study_name=experiment.title,
        storage=open_storage(where),
        sampler=sampler_of(experiment.sampler, experiment.seed, first),
    )
    scorer = _scorer(experiment, root, spec)
    distributions = scorer.space.distributions
    trials = [study.ask(distributions) for _ in range(size)]
    for trial, scored in zip(trials, scorer.score([trial.params for trial in trials]), strict=True):
        for key, value in scored.attributes.items():
            trial.set_user_attr(key, value)
        study.tell(trial, scored.values)
    return size


@functools.lru_cache(maxsize=1)
def _scorer(experiment: Experiment, root: str, spec: FeatureSpec | None) -> Scorer:
    """The experiment's symbols made ready, kept on the worker from one batch to the next."""
    from aione_lab.calibration.study import experiment_folds

    spec = experiment.spec if spec is None else spec
    folds = experiment_folds(experiment)
    markets = Markets(experiment, Lake(root), spec, folds)
    space = Space.of(experiment.space, base=experiment.default, spec=spec)
    return Scorer(markets.measure, space, folds, objectives(experiment.metric))


def _client(cluster: Any) -> tuple[Client, bool]:
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise InputError.of("cluster", cluster, "needs Dask: pip install 'aione-lab[cluster]'") from None
    if isinstance(cluster, Client):
        return cluster, False
    if not isinstance(cluster, str):
        raise InputError.of("cluster", cluster, "must be a distributed.Client or a scheduler's address")
    try:
        return Client(cluster, timeout=10), True
    except (OSError, ValueError) as error:
        raise InputError.of("cluster", cluster, f"no scheduler answers there ({error})") from None


def _renumbered(trial: FrozenTrial, number: int) -> FrozenTrial:
    """The trial as the study's own database numbers it: failed ones are not in it."""
    made = optuna.trial.create_trial(
        state=trial.state,
        values=trial.values,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
    )
    made.number = number
    made.datetime_start, made.datetime_complete = trial.datetime_start, trial.datetime_complete
    return made
