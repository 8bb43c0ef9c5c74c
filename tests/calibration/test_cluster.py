"""A study spread over a Dask cluster: real scheduler and workers on loopback, one of which is killed."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest
from optuna.trial import TrialState

from aione_lab.calibration import Calibration, Experiment, calibrate, repeat
from aione_lab.calibration import cluster as spreading
from aione_lab.calibration.run import default_name
from aione_lab.calibration.study import run_study
from aione_lab.calibration.trial_store import TrialStore
from aione_lab.errors import InputError
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake
from tests.calibration import cluster_tools as tools
from tests.calibration.queue_tools import gone

pytest.importorskip("distributed")
DAYS = 19


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    exchange = SimulatedExchange(seed=3)
    made = Lake(tmp_path_factory.mktemp("spread") / "lake")
    made.append("LINKUSDT", "1m", exchange.candles("LINKUSDT", days=DAYS))
    made.append_funding("LINKUSDT", exchange.funding("LINKUSDT", days=DAYS))
    return made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tools.Cluster]:
    """A scheduler, one worker that stays and one that dies in the middle of its first batch."""
    with tools.running(tmp_path_factory.mktemp("cluster")) as made:
        made.worker("steady")
        made.doomed("doomed", tells=7)
        yield made
    assert gone(*(process.pid for process in made.processes))


class Spread(NamedTuple):
    study: Calibration
    folder: Path
    told: list[tuple[int, int]]
    printed: str


@pytest.fixture(scope="module")
def spread(lake: Lake, cluster: tools.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Spread:
    """A study of 60 trials whose second worker is killed after seven of the twenty trials of its batch."""
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=tools.PATIENCE)
    told: list[tuple[int, int]] = []
    folder = tmp_path_factory.mktemp("studies")
    study = calibrate(
        lake,
        "LINKUSDT",
        **tools.SMALL,
        n_trials=60,
        folder=folder,
        name="spread",
        cluster=cluster.address,
        progress=lambda what, done, total: told.append((done, total)),
    )
    return Spread(study, folder, told, "")


def states(study: optuna.Study) -> Counter[TrialState]:
    return Counter(trial.state for trial in study.get_trials(deepcopy=False))


def shared_study(place: Path, experiment: Experiment) -> optuna.Study:
    where = str(place / spreading.JOURNAL)
    return optuna.load_study(
        study_name=f"{place.name} {default_name(experiment)}", storage=spreading.open_storage(where)
    )


def kept(place: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials of the study's own database, read by plain Optuna."""
    url = f"sqlite:///{place / 'study.sqlite3'}"
    return optuna.load_study(study_name=None, storage=url).get_trials()


def ledger_rows(folder: Path) -> int:
    with sqlite3.connect(folder / "ledger.sqlite3") as connection:
        return connection.execute("SELECT count(*) FROM trials").fetchone()[0]


def test_a_worker_killed_in_the_middle_of_a_batch_costs_the_study_nothing(
    spread: Spread, cluster: tools.Cluster
) -> None:
    study, place = spread.study, spread.folder / "spread"
    doomed = cluster.processes[2]
    assert doomed.wait(5) == -signal.SIGKILL and cluster.processes[1].poll() is None
    trials = kept(place)
    assert [trial.number for trial in trials] == list(range(60))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    # Of the killed one's twenty seven were told and count, thirteen were asked and failed.
    there = states(shared_study(place, study.experiment))
    assert there[TrialState.FAIL] == 13 and there[TrialState.RUNNING] == 0 and there[TrialState.COMPLETE] >= 60
    assert study.verdict in ("accept", "keep defaults", "not enough trades") and study.experiment.cluster
    assert ledger_rows(spread.folder) == len(study.sets) == study.ledger.n_trials
    assert spread.told[-1] == (60, 60) and sorted(spread.told) == spread.told
