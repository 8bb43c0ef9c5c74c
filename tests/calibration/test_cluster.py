"""A study spread over a Dask cluster: real scheduler and workers on loopback, one of which is killed."""

from __future__ import annotations

import hashlib
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest
from optuna.trial import TrialState

from aione_lab.calibration import Calibration, Experiment, calibrate, repeat
from aione_lab.calibration import cluster as spreading
from aione_lab.calibration.plan import default_name
from aione_lab.calibration.scoring import Scorer
from aione_lab.calibration.study_run import run_study
from aione_lab.errors import AioneError, InputError
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake
from tests.calibration import cluster_tools as tools
from tests.calibration.queue_tools import gone
from tests.s3_double import CANARY, KEY, Double

pytest.importorskip("distributed")
DAYS = 19
OBJECT_STORE = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_EC2_METADATA_DISABLED": "true"}


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
        made.worker("steady", **OBJECT_STORE)
        made.doomed("doomed", trials=7)
        yield made
    assert gone(*(process.pid for process in made.processes))


class Spread(NamedTuple):
    study: Calibration
    folder: Path
    told: list[tuple[int, int]]


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
    return Spread(study, folder, told)


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
    # Of the killed one's twenty seven were there and count; its batch was run again.
    assert states(shared_study(place, study.experiment)) == {TrialState.COMPLETE: 67}
    assert study.verdict in ("accept", "keep defaults", "not enough trades") and study.experiment.cluster
    assert ledger_rows(spread.folder) == len(study.sets) == study.ledger.n_trials
    assert spread.told[-1] == (60, 60) and sorted(spread.told) == spread.told


def files(place: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.iterdir() if path.is_file()}


def test_its_trials_are_what_they_are_worth_here_and_it_can_be_judged_again(spread: Spread, lake: Lake) -> None:
    """One evaluation of the sets in this process; and ``repeat``, which writes nothing."""
    place = spread.folder / "spread"
    alone = run_study(spread.study.experiment, lake, proposed=kept(place))
    assert [(t.number, t.params, t.values, t.user_attrs) for t in alone.optuna_study.get_trials()] == [
        (t.number, t.params, t.values, t.user_attrs) for t in kept(place)
    ]
    before = files(place)
    again = repeat(place, lake)
    assert again.same and again.differences == () and again.study.digest == spread.study.digest
    assert json.loads((place / "experiment.json").read_text())["cluster"] is True
    assert files(place) == before and ledger_rows(spread.folder) == len(spread.study.sets)


def test_repeating_it_on_other_candles_names_the_data(spread: Spread, lake: Lake, tmp_path: Path) -> None:
    other = Lake(shutil.copytree(lake.root, tmp_path / "lake"))
    candles = other.candles("LINKUSDT", "1m")
    candles.iloc[1000:3000, candles.columns.get_loc("volume")] *= 5
    other.append("LINKUSDT", "1m", candles)
    again = repeat(spread.folder / "spread", other)
    assert not again.same and len(again.differences) == 1 and again.differences[0].startswith("data:")


def test_called_again_it_is_read_back_and_a_longer_one_goes_on(
    spread: Spread, lake: Lake, cluster: tools.Cluster, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(spread.folder, tmp_path / "studies"))
    call = {**tools.SMALL, "folder": folder, "name": "spread", "cluster": cluster.address, "progress": False}
    assert calibrate(lake, "LINKUSDT", n_trials=60, **call).digest == spread.study.digest
    assert ledger_rows(folder) == len(spread.study.sets)
    longer = calibrate(lake, "LINKUSDT", n_trials=75, **call)
    trials = kept(folder / "spread")
    assert len(trials) == 75 and [t.params for t in trials[:60]] == [t.params for t in kept(spread.folder / "spread")]
    assert (
        ledger_rows(folder) == len(longer.sets)
        and states(shared_study(folder / "spread", longer.experiment))[TrialState.RUNNING] == 0
    )


def test_workers_read_the_lake_from_an_object_store(
    spread: Spread, lake: Lake, cluster: tools.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address goes to the workers, the credentials do not: each has those of its own environment."""
    for name, value in OBJECT_STORE.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(lake.root, tmp_path / "store" / "bucket" / "lake")
    with Double(tmp_path / "store") as double:
        remote = Lake(double.address("bucket/lake"))
        study = calibrate(
            remote, "LINKUSDT", **tools.SMALL, n_trials=40, folder=tmp_path / "studies", name="remote",
            cluster=cluster.address, progress=False,
        )  # fmt: skip
        told = study.optuna_study.get_trials()
        assert len(double.connections) > 1
        assert CANARY.encode() not in b"".join(file.read_bytes() for file in (tmp_path / "studies").rglob("*.*"))
    assert study.experiment.data == spread.study.experiment.data
    alone = run_study(study.experiment, lake, proposed=told)
    assert [trial.values for trial in alone.optuna_study.get_trials()] == [trial.values for trial in told]


@pytest.mark.long
def test_a_killed_client_goes_on_where_its_workers_were(
    lake: Lake, cluster: tools.Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = {"lake": lake.root, "n_trials": 60, "folder": str(tmp_path), "name": "cut", "cluster": cluster.address}
    ran = subprocess.run(
        [sys.executable, tools.HERE, json.dumps(job)],
        env={"PYTHONPATH": str(tools.HERE.parents[2])},
        capture_output=True,
        text=True,
        timeout=tools.PATIENCE,
    )
    assert ran.returncode == -signal.SIGKILL and ran.stderr == "" == ran.stdout
    assert kept(tmp_path / "cut") == [] and not (tmp_path / "ledger.sqlite3").exists()
    job.pop("lake")
    study = calibrate(lake, "LINKUSDT", **tools.SMALL, **job, progress=False)
    told = shared_study(tmp_path / "cut", study.experiment)
    there = states(told)
    assert [*there] == [TrialState.COMPLETE] and 60 <= there[TrialState.COMPLETE] <= 100
    first = [trial.params for trial in told.get_trials()][:60]
    assert [trial.params for trial in kept(tmp_path / "cut")] == first
    assert ledger_rows(tmp_path) == len(study.sets)
    assert capfd.readouterr() == ("", "")


@pytest.mark.long
def test_a_database_may_stand_between_them(lake: Lake, cluster: tools.Cluster, tmp_path: Path) -> None:
    """Two studies in one database, of one name in two folders and with other designs, know nothing of each other."""
    url = f"sqlite:///{tmp_path / 'shared.sqlite3'}"
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        for folder, seed in (("one", 0), ("two", 1)):
            study = calibrate(
                lake,
                "LINKUSDT",
                **tools.SMALL,
                n_trials=20,
                seed=seed,
                folder=tmp_path / folder,
                name="same",
                cluster=client,
                storage=url,
                progress=False,
            )
            assert not (tmp_path / folder / "same" / spreading.JOURNAL).exists()
            assert len(kept(tmp_path / folder / "same")) == 20 == len(study.trials)
        assert client.status == "running"
    names = optuna.get_all_study_names(url)
    assert len(names) == 2 and all(len(optuna.load_study(study_name=n, storage=url).trials) == 20 for n in names)


# --- what is refused ---------------------------------------------------------------------------------------------


def refused(lake: Lake, tmp_path: Path, **changes: Any) -> str:
    """The one line of a refused call, which leaves nothing behind."""
    call = {**tools.SMALL, "n_trials": 20, "folder": tmp_path / "studies", "progress": False, **changes}
    with pytest.raises(InputError) as error:
        calibrate(lake, "LINKUSDT", **call)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []
    return str(error.value)


def test_no_scheduler_is_one_line(
    lake: Lake, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "CONNECT_S", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers
        level = logging.getLogger("distributed").level
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        assert "no scheduler answers there" in refused(lake, tmp_path, cluster=address)
    assert logging.getLogger("distributed").level == level
    for nonsense in ("", "nowhere", "what://ever", 7, True, lake):
        assert refused(lake, tmp_path, cluster=nonsense).startswith("cluster=")
    assert capfd.readouterr() == ("", "")


def test_a_storage_that_is_none_is_one_line_without_its_password(
    lake: Lake, tmp_path: Path, cluster: tools.Cluster
) -> None:
    assert "cluster=" in refused(lake, tmp_path, storage="sqlite:///x")
    for bad in ("no url at secret", 7, ""):
        line = refused(lake, tmp_path, cluster=cluster.address, storage=bad)
        assert line.startswith("storage=") and "secret" not in line
    for url in ("nonesuch://me:secret@127.0.0.1/x", "sqlite:////nowhere/at/all?timeout=7&uri=true"):
        line = refused(lake, tmp_path, cluster=cluster.address, storage=url)
        assert (
            line.startswith("storage=") and "cannot be used" in line and "secret" not in line and "timeout" not in line
        )
    assert refused(lake, tmp_path, cluster=cluster.address, folder=None).startswith("folder=")


# --- what fails underway -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client whose scheduler and worker are threads of this process."""
    with inside(tmp_path_factory.mktemp("here"), n_workers=1) as client:
        yield client


def inside(folder: Path, n_workers: int) -> Any:
    from distributed import Client

    return Client(
        processes=False,
        n_workers=n_workers,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        local_directory=str(folder),
        set_as_default=False,
    )


def test_a_batch_that_fails_is_not_tried_again_and_says_why(
    lake: Lake, here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = tmp_path / "tried"

    def fails(work: spreading.Work, first: int, size: int) -> int:
        with tried.open("a") as file:
            file.write(f"{first}.")
        raise OSError("no candles today")

    call = {**tools.SMALL, "n_trials": 20, "folder": tmp_path / "it", "cluster": here, "progress": False}
    with monkeypatch.context() as patch:
        patch.setattr(spreading, "batch", fails)
        with pytest.raises(AioneError, match="could not run a batch of trials: no candles today"):
            calibrate(lake, "LINKUSDT", **call)
    assert tried.read_text() == "0."
    assert len(calibrate(lake, "LINKUSDT", **call).trials) == 20  # and goes on when it can


def test_a_cluster_without_a_worker_is_not_waited_for_for_ever(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "WORKER_S", 0.2)
    with inside(tmp_path, n_workers=0) as client:
        with pytest.raises(AioneError, match="no worker for 0.2 seconds"):
            calibrate(lake, "LINKUSDT", **tools.SMALL, n_trials=20, folder=tmp_path, cluster=client, progress=False)


@pytest.mark.long
def test_a_batch_that_kills_every_worker_ends_the_study_with_a_reason(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    with tools.running(tmp_path / "cluster") as cluster:
        for number in range(4):  # Dask gives a batch up when it has taken four workers with it
            cluster.doomed(f"doomed{number}", trials=0)
        with pytest.raises(AioneError, match="its workers died 4 times"):
            calibrate(
                lake,
                "LINKUSDT",
                **tools.SMALL,
                n_trials=20,
                folder=tmp_path / "studies",
                name="it",
                cluster=cluster.address,
                progress=False,
            )
        assert [worker.wait(20) for worker in cluster.processes[1:]] == [-signal.SIGKILL] * 4
        cluster.worker("steady")
        study = calibrate(
            lake,
            "LINKUSDT",
            **tools.SMALL,
            n_trials=20,
            folder=tmp_path / "studies",
            name="it",
            cluster=cluster.address,
            progress=False,
        )
    there = states(shared_study(tmp_path / "studies" / "it", study.experiment))
    assert there == {TrialState.COMPLETE: 20}


@pytest.mark.long
def test_a_lost_scheduler_is_one_line_and_the_study_goes_on_with_another(
    lake: Lake, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call: dict[str, Any] = {**tools.SMALL, "n_trials": 60, "folder": tmp_path / "studies", "name": "it"}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with tools.running(tmp_path / "first") as cluster:
        cluster.worker("steady")
        told = []

        def lose(what: str, done: int, total: int) -> None:
            told.append(done)
            cluster.scheduler.kill()

        with pytest.raises(AioneError, match="scheduler was lost"):
            calibrate(lake, "LINKUSDT", **call, cluster=cluster.address, progress=lose)
    assert kept(tmp_path / "studies" / "it") == [] and told[0] == 20
    with tools.running(tmp_path / "second") as cluster:
        cluster.worker("steady")
        study = calibrate(lake, "LINKUSDT", **call, cluster=cluster.address, progress=False)
    there = states(shared_study(tmp_path / "studies" / "it", study.experiment))
    assert len(kept(tmp_path / "studies" / "it")) == 60 and [*there] == [TrialState.COMPLETE]
    assert capfd.readouterr() == ("", "")


# --- on a worker -------------------------------------------------------------------------------------------------


@pytest.fixture
def work(spread: Spread, lake: Lake, tmp_path: Path) -> spreading.Work:
    made = spread.study.experiment
    where = str(tmp_path / spreading.JOURNAL)
    optuna.create_study(storage=spreading.open_storage(where), study_name="here", direction="maximize")
    return spreading.Work("here", "here", where, made.replace(data={}), lake.root, None)


def test_threads_of_one_worker_do_not_disturb_each_other(
    work: spreading.Work, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, most = 0, 0
    score = Scorer.score

    def counted(scorer: Scorer, *arguments: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.05)
        found = score(scorer, *arguments)
        inside -= 1
        return found

    monkeypatch.setattr(Scorer, "score", counted)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(spreading.batch, [work] * 3, [0, 20, 40], [20, 20, 7])) == [20, 20, 7]
    assert most == 1  # a scorer keeps what it has measured, and numba's threads are all cores
    told = optuna.load_study(study_name="here", storage=spreading.open_storage(work.where)).get_trials()
    assert {trial.state for trial in told} == {TrialState.COMPLETE} and len(told) == 47
    alone = run_study(work.experiment, lake, proposed=told)
    assert [t.values for t in alone.optuna_study.get_trials()[:47]] == [t.values for t in told]


@pytest.mark.parametrize(("sampler", "metric"), [("tpe", ("expectancy",)), ("nsga2", ("sharpe", "max_drawdown"))])
def test_other_samplers_and_several_metrics(
    work: spreading.Work, tmp_path: Path, lake: Lake, sampler: str, metric: tuple[str, ...]
) -> None:
    made = work.experiment.replace(sampler=sampler, metric=metric)
    where = str(tmp_path / "other.journal")
    directions = ["maximize", "minimize"][: len(metric)]
    optuna.create_study(storage=spreading.open_storage(where), study_name="here", directions=directions)
    ticket = spreading.Work(sampler, "here", where, made, work.root, None)
    assert [spreading.batch(ticket, first, 20) for first in (0, 20, 40)] == [20] * 3
    told = optuna.load_study(study_name="here", storage=spreading.open_storage(where)).get_trials()
    assert len({str(trial.params) for trial in told}) > 40 and {trial.state for trial in told} == {TrialState.COMPLETE}
    alone = run_study(made, lake, proposed=told)
    assert [trial.values for trial in alone.optuna_study.get_trials()] == [trial.values for trial in told]


def test_a_worker_of_another_version_or_without_the_folder_refuses(work: spreading.Work) -> None:
    other = spreading.Work("other", "here", work.where, work.experiment.replace(code="0"), work.root, None)
    with pytest.raises(InputError, match="code: aione_lab is another"):
        spreading.batch(other, 0, 20)
    away = spreading.Work("here", "here", "/nowhere/cluster.journal", work.experiment, work.root, None)
    with pytest.raises(InputError, match="is not seen by the worker"):
        spreading.batch(away, 0, 20)
    assert not optuna.load_study(study_name="here", storage=spreading.open_storage(work.where)).get_trials()
