"""Killed at any moment: finished trials stay, none is left RUNNING, and what goes on is the unbroken study."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from aione_lab.calibration import Calibration
from aione_lab.calibration.ledger import FILE as LEDGER
from aione_lab.calibration.ledger import Ledger
from tests.calibration.worker import Forked

Study = Callable[..., Calibration]
DATABASE = "study.sqlite3"


def written(place: Path) -> dict[int, str]:
    """State of every trial on disk, by number; read beside a writer."""
    if not (place / DATABASE).exists():
        return {}
    with sqlite3.connect(place / DATABASE, timeout=60) as connection:
        return dict(connection.execute("SELECT number, state FROM trials").fetchall())


def kept(place: Path) -> list[tuple[int, str]]:
    """Every trial as plain Optuna reads it."""
    if not (place / DATABASE).exists():
        return []
    url = f"sqlite:///{place / DATABASE}"
    (name,) = optuna.get_all_study_names(url)
    trials = optuna.load_study(study_name=name, storage=url).get_trials()
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
    return [(trial.number, json.dumps([trial.params, trial.values, trial.user_attrs])) for trial in trials]


def kill(process: Forked, place: Path) -> bool:
    """Kill it; whether it was still running. What was written before is there after, and nothing is half there."""
    before = written(place)
    process.kill()
    process.communicate()
    after = kept(place)
    assert set(before.values()) <= {"COMPLETE"} and before.keys() <= dict(after).keys()
    assert [number for number, _ in after] == list(range(len(after)))
    return process.returncode == -signal.SIGKILL


def finished(process: Forked) -> str:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out.strip()


def clean(place: Path) -> bool:
    """Whether only what a finished study consists of is there."""
    names = {path.name for path in place.iterdir()}
    return names == {".lock", "experiment.json", "ledger.json", "report.html", "results.json", DATABASE}


@pytest.mark.parametrize("n_kills", [2, pytest.param(4, marks=pytest.mark.long)])
def test_kills_and_the_study_is_the_unbroken_one(n_kills: int, small: Study, worker, tmp_path: Path) -> None:
    n_trials = 240  # twelve batches: a killer that is late on a busy machine still finds it running
    unbroken = small(n_trials=n_trials, folder=tmp_path / "unbroken", name="x")
    place, rng, sizes, kills = tmp_path / "x", random.Random(5), [], 0
    for _ in range(n_kills):
        process, before = worker(tmp_path, name="x", n_trials=n_trials), len(written(place))
        while process.poll() is None and len(written(place)) <= before:  # it calibrates
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.15))
        kills += kill(process, place)
        sizes.append(len(written(place)))
    assert kills and sizes == sorted(sizes) and 0 < sizes[0] < n_trials
    assert finished(worker(tmp_path, name="x", n_trials=n_trials)) == unbroken.digest
    results = (place / "results.json").read_bytes()
    assert results == (tmp_path / "unbroken" / "x" / "results.json").read_bytes() and clean(place)
    assert len(kept(place)) == n_trials


@pytest.mark.long
def test_forty_kills_of_four_workers_that_share_a_ledger(small: Study, worker, tmp_path: Path) -> None:
    n_trials, symbols = 800, ("LINKUSDT", "SOLUSDT", "ETHUSDT", "DOTUSDT")
    root, rng = tmp_path / "experiments", random.Random(11)
    running = {symbol: worker(root, name=symbol, symbol=symbol, n_trials=n_trials) for symbol in symbols}
    kills, amid, sizes = 0, 0, dict.fromkeys(symbols, 0)
    while kills < 40:
        sizes_now = {symbol: len(written(root / symbol)) for symbol in symbols}
        amid_trials = [one for one in symbols if sizes[one] < sizes_now[one] < n_trials and running[one].poll() is None]
        if not amid_trials and rng.random() < 0.99 and min(sizes_now.values()) < n_trials:
            time.sleep(0.02)  # most are killed while they calibrate, some at any moment
            continue
        symbol = rng.choice(amid_trials or symbols)
        time.sleep(rng.uniform(0.0, 0.2))
        if kill(running[symbol], root / symbol):
            kills += 1
            now = len(written(root / symbol))
            assert now >= sizes[symbol]
            amid += 0 < now < n_trials
            sizes[symbol] = now
            entries = Ledger(root).entries(symbol)  # readable after every kill
            assert len(set(entries.thresholds)) == entries.n_trials
        running[symbol] = worker(root, name=symbol, symbol=symbol, n_trials=n_trials)
    digests = {symbol: finished(process) for symbol, process in running.items()}
    print(f"40 kills, {amid} of them amid the trials; {sizes} trials after the last kill of each")
    total = 0
    for symbol in symbols:
        digests[symbol] = finished(worker(root, name=symbol, symbol=symbol, n_trials=n_trials))
        unbroken = small(symbol, n_trials=n_trials, folder=tmp_path / "unbroken", name=symbol)
        assert digests[symbol] == unbroken.digest
        assert kept(root / symbol) == kept(tmp_path / "unbroken" / symbol) and len(kept(root / symbol)) == n_trials
        assert clean(root / symbol)
        total += len(unbroken.sets)
        assert unbroken.ledger.digest == Ledger(root).entries(symbol).digest
    with sqlite3.connect(root / LEDGER) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (total,)
    assert {path.name for path in root.iterdir()} == {LEDGER, *symbols}
