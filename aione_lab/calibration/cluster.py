"""A study's trials on a Dask cluster, with Optuna's own distributed storage in between.

A task is a batch of trials: a worker proposes them from the finished ones, scores them, and adds each to the shared
storage whole, in one write, where telling Optuna step by step takes one a parameter. Nothing there is ever half done,
and workers know nothing of each other but what is. A worker that dies takes its batch with it, and Dask runs the batch
again elsewhere. In the end the shared trials go into the study's own database, and it is judged here like any other.
"""

from __future__ import annotations

import gc
import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from aione_lab.calibration.experiment import Experiment, code_fingerprint, versions
from aione_lab.calibration.markets import Markets
from aione_lab.calibration.objective import objectives
from aione_lab.calibration.plan import default_name
from aione_lab.calibration.scoring import Scorer
from aione_lab.calibration.search import BATCH, Report, sampler_of
from aione_lab.calibration.space import Space
from aione_lab.calibration.study_run import experiment_folds
from aione_lab.calibration.trial_store import TrialStore
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import AioneError, InputError
from aione_lab.lake.store import Lake

if TYPE_CHECKING:
    from distributed import Client

JOURNAL = "cluster.journal"
ROUNDS = "rounds"  # attribute of the shared study: how often batches have been handed out
ROUND = 1_000_000  # seeds of a round: what another one proposed is not proposed again
CONNECT_S = 8.0
WORKER_S = 300.0  # for the first worker: a cluster that grows on demand takes its time


@dataclass(frozen=True)
class Work:
    """What a worker has to know of a study."""

    ticket: str  # of one call: a worker keeps what it made ready for it
    study: str
    where: str
    experiment: Experiment
    root: str
    spec: FeatureSpec | None


def run_trials(
    client: Client,
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

    ``storage``: URL of a database that Optuna shares (PostgreSQL, MySQL); None: a journal in the study's folder,
    which the workers must then see under the same path, like the lake. Raises InputError for a database that cannot
    be used, AioneError where batches fail or the cluster is lost: what was told by then stays.
    """
    where = str(place.resolve() / JOURNAL) if storage is None else storage
    # Many studies may share a database: the same name is another study where the design is another.
    name = f"{place.name} {default_name(experiment)}"
    study = optuna.create_study(
        storage=open_storage(where),
        study_name=name,
        directions=[one.direction for one in objectives(experiment.metric)],
        load_if_exists=True,
    )
    there = store.trials()
    if not study.get_trials(deepcopy=False):
        study.add_trials(there)
    _fill(client, study, Work(uuid.uuid4().hex, name, where, experiment, lake.root, spec), report)
    store.append(study.get_trials(deepcopy=False)[len(there) : experiment.n_trials])


def open_storage(where: str) -> BaseStorage:
    """Optuna's storage at a URL, or in a journal file; InputError where the database cannot be used."""
    if "://" not in where:
        return JournalStorage(JournalFileBackend(where))
    try:
        return RDBStorage(where)
    except (SQLAlchemyError, ImportError, optuna.exceptions.OptunaError) as error:
        why = str(getattr(error, "orig", None) or error).partition("\n")[0]
        shown = sqlalchemy.make_url(where).set(password=None, query={}).render_as_string()  # a query may hold one too
        raise InputError.of("storage", shown, f"cannot be used ({why})") from None


def check_storage(storage: Any) -> None:
    """InputError for what is no URL of a database that answers."""
    try:
        sqlalchemy.make_url(storage)
    except (SQLAlchemyError, TypeError, ValueError):
        shown = "…" if isinstance(storage, str) else storage  # it may hold a password
        raise InputError.of("storage", shown, "must be a URL like postgresql://user:password@host/database") from None
    open_storage(storage)


def _fill(client: Client, study: optuna.Study, work: Work, report: Report | None) -> None:
    n = work.experiment.n_trials
    while (missing := n - len(study.get_trials(deepcopy=False))) > 0:
        number = study.user_attrs.get(ROUNDS, 0)
        study.set_user_attr(ROUNDS, number + 1)
        batches = [(number * ROUND + i, min(BATCH, missing - i)) for i in range(0, missing, BATCH)]
        for _ in _completed(client, [client.submit(batch, work, *one, pure=False) for one in batches]):
            if report is not None:
                report(min(len(study.get_trials(deepcopy=False)), n), n)


def _completed(client: Client, tasks: list[Any]) -> Iterator[None]:
    """One item a task that has ended well; none of them runs on after it, whatever ends it."""
    from distributed import KilledWorker, as_completed

    try:
        try:
            client.wait_for_workers(1, timeout=WORKER_S)
        except TimeoutError:
            raise AioneError(f"the cluster has had no worker for {WORKER_S:g} seconds") from None
        for task in as_completed(tasks, loop=client.loop):
            if task.status == "finished":
                yield
                continue
            if task.status != "error":
                raise AioneError("the cluster's scheduler was lost; what was told stays, call again to go on")
            error = task.exception()
            if isinstance(error, KilledWorker):
                error = f"its workers died {error.allowed_failures + 1} times; their logs say why, often it is memory"
            raise AioneError(f"the cluster could not run a batch of trials: {error}")
    finally:
        if client.status == "running":
            client.cancel(tasks)


def batch(work: Work, first: int, size: int) -> int:
    """On a worker: propose, score and add ``size`` trials; how many that were."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" not in work.where and not Path(work.where).exists():
        raise InputError.of(
            "folder", work.where, "is not seen by the worker: share the folder under that path, or give storage="
        )
    made = work.experiment
    shared = optuna.load_study(study_name=work.study, storage=open_storage(work.where))
    with _ONE_AT_A_TIME:
        scorer = _scorer(work)
        study = optuna.create_study(directions=shared.directions, sampler=sampler_of(made.sampler, made.seed, first))
        study.add_trials(shared.get_trials(deepcopy=False))
        distributions = scorer.space.distributions
        trials = [study.ask(distributions) for _ in range(size)]
        for trial, scored in zip(trials, scorer.score([trial.params for trial in trials]), strict=True):
            for key, value in scored.attributes.items():
                trial.set_user_attr(key, value)
            study.tell(trial, scored.values)
    shared.add_trials(study.get_trials(deepcopy=False)[-size:])
    return size


# A worker may have several threads. Scorers are not made for that, and one replay keeps all cores busy.
_ONE_AT_A_TIME = threading.Lock()
_ready: dict[str, Scorer] = {}


def _scorer(work: Work) -> Scorer:
    """The experiment's symbols made ready, kept on the worker from one batch to the next."""
    if work.ticket not in _ready:
        made = work.experiment
        theirs = made.replace(code=code_fingerprint(), versions=versions())
        if others := made.differences(theirs):
            raise InputError.of("cluster", "a worker", f"is not the client's equal ({'; '.join(others)})")
        _ready.clear()
        spec = made.spec if work.spec is None else work.spec
        folds = experiment_folds(made)
        markets = Markets(made, Lake(work.root), spec, folds)
        space = Space.of(made.space, base=made.default, spec=spec)
        _ready[work.ticket] = Scorer(markets.measure, space, folds, objectives(made.metric))
    return _ready[work.ticket]


@contextmanager
def connected(cluster: Any) -> Iterator[Client]:
    """The client, or a client of the scheduler at an address for as long as the context lasts.

    InputError where there is none.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise InputError.of("cluster", cluster, "needs Dask: pip install 'aione-lab[cluster]'") from None
    if isinstance(cluster, Client):
        if cluster.asynchronous or cluster.status != "running":
            raise InputError.of("cluster", cluster, "must be a synchronous client that is connected")
        yield cluster
        return
    if not isinstance(cluster, str) or not cluster:
        raise InputError.of("cluster", cluster, "must be a distributed.Client or a scheduler's address")
    # Its lines about lost connections would stand in the middle of the progress bar; what matters is raised.
    log = logging.getLogger("distributed")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        # Dask closes a client that never connected when it is collected; amid the start of another one it would wait
        # for a lock that this thread holds.
        gc.collect()
        try:
            client = Client(cluster, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError.of("cluster", cluster, f"no scheduler answers there ({error})") from None
        try:
            yield client
        finally:
            client.close()
    finally:
        log.setLevel(before)
