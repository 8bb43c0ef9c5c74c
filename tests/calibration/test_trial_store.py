"""The trials on disk: what plain Optuna reads and would have written itself, a batch whole or absent."""

from __future__ import annotations

import datetime
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from aione_lab.calibration.search import BATCH, run_search
from aione_lab.calibration.trial_store import TrialStore
from aione_lab.errors import InputError
from tests.calibration.test_search import CASES, SPACE

TABLES = ("trials", "trial_params", "trial_values", "trial_user_attributes", "trial_system_attributes")


@pytest.fixture(
    params=[
        "America/New_York",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("UTC", "Asia/Kolkata")),
    ]
)
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def told(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """Everything of a trial that is told, without the database's own number."""
    names = ("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs")
    times = ("datetime_start", "datetime_complete")
    return {name: getattr(trial, name) for name in (*names, *times)} | {"between": trial.intermediate_values}


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every table of the file, its rows without their own number, in order."""
    found = {}
    with sqlite3.connect(path) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = [one[1] for one in connection.execute(f"PRAGMA table_info({name})")]
            own = {"trial_params": "param_id", "trial_values": "trial_value_id"}.get(name, f"{name[:-1]}_id")
            kept = [one for one in columns if name == "trials" or one != own]
            found[name] = sorted(connection.execute(f"SELECT {', '.join(kept)} FROM {name}").fetchall(), key=repr)
    return found


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
@pytest.mark.parametrize("case", CASES)
def test_plain_optuna_reads_what_was_run(case: str, sampler: str, zone: str, tmp_path: Path) -> None:
    score, aims = CASES[case]
    directions = [one.direction for one in aims]
    store = TrialStore(tmp_path / "mine.sqlite3", "LINKUSDT", directions)
    ran = run_search(score, SPACE, aims, 45, sampler=sampler, store=store).get_trials()
    store.close()
    url = f"sqlite:///{tmp_path}/mine.sqlite3"
    assert optuna.get_all_study_names(url) == ["LINKUSDT"]
    read = optuna.load_study(study_name="LINKUSDT", storage=url)
    assert [d.name.lower() for d in read.directions] == directions
    assert [told(trial) for trial in read.get_trials()] == [told(trial) for trial in ran]
    assert {trial.state for trial in read.get_trials()} == {TrialState.COMPLETE}
    assert read.trials_dataframe().shape[0] == 45 and len(read.best_trials) >= 1

    # Optuna's own way of writing the same trials leaves the same rows in the same tables.
    theirs = optuna.create_study(
        study_name="LINKUSDT", storage=f"sqlite:///{tmp_path}/theirs.sqlite3", directions=directions
    )
    theirs.add_trials(ran)
    mine, other = rows(tmp_path / "mine.sqlite3"), rows(tmp_path / "theirs.sqlite3")
    assert mine.keys() == other.keys() and set(TABLES) <= set(mine)
    for name in mine:
        assert mine[name] == other[name], name
    assert len(mine["trials"]) == 45 and len(mine["trial_values"]) == 45 * len(aims)
    with sqlite3.connect(tmp_path / "mine.sqlite3") as a, sqlite3.connect(tmp_path / "theirs.sqlite3") as b:
        schema = "SELECT name, sql FROM sqlite_master ORDER BY name"
        assert a.execute(schema).fetchall() == b.execute(schema).fetchall()
        assert a.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert a.execute("PRAGMA foreign_key_check").fetchall() == []

    read.optimize(lambda trial: (1.0,) * len(aims), n_trials=2)  # and it can be gone on with, by Optuna alone
    assert len(read.get_trials()) == 47


def test_odd_values_come_back(tmp_path: Path) -> None:
    start = datetime.datetime(2025, 7, 1, 3, 4, 5, 678901)
    odd = create_trial(
        state=TrialState.COMPLETE,
        values=[float("inf")],
        params={"a": 0.1 + 0.2, "b": 7, "c": "ü"},
        distributions={
            "a": FloatDistribution(1e-300, 1.0),
            "b": IntDistribution(1, 9, step=2),
            "c": CategoricalDistribution(("ü", None, "'; DROP TABLE trials; --")),
        },
        user_attrs={"ünï 'code'": [1.5, None, {"x": "y" * 5000}]},
    )
    odd.number, odd.datetime_start, odd.datetime_complete = 0, start, start
    store = TrialStore(tmp_path / "s.sqlite3", "x", ["minimize"])
    store.append([odd])
    (read,) = store.trials()
    assert told(read) == told(odd)


def test_numbers_go_on_from_what_is_there(tmp_path: Path) -> None:
    score, aims = CASES["one"]
    trials = run_search(score, SPACE, aims, 60).get_trials()
    store = TrialStore(tmp_path / "s.sqlite3", "x", ["maximize"])
    store.append(trials[:20])
    for wrong in (trials[:20], trials[21:30], trials[19:30], trials[29:19:-1]):
        with pytest.raises(InputError, match="must go on from number 20"):
            store.append(wrong)
        assert len(store.trials()) == 20
    store.append([])
    store.append(trials[20:60])
    assert [told(one) for one in store.trials()] == [told(one) for one in trials]


def test_what_is_no_database_or_another_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite3").write_text("no database at all" * 100)
    sqlite3.connect(tmp_path / "other.sqlite3").execute("CREATE TABLE version_info (a)").connection.close()
    TrialStore(tmp_path / "s.sqlite3", "x", ["maximize"]).close()
    for name, study, directions, words in [
        ("text", "x", ["maximize"], "not a database"),
        ("other", "x", ["maximize"], "is no Optuna database"),
        ("s", "y", ["maximize"], "is no Optuna database with the study y"),
        ("s", "x", ["minimize"], r"metric=\['minimize'\]"),
        ("s", "x", ["maximize", "maximize"], "has the directions"),
    ]:
        with pytest.raises(InputError, match=words) as error:
            TrialStore(tmp_path / f"{name}.sqlite3", study, directions)
        assert "\n" not in str(error.value)


def test_a_journal_left_by_a_killed_process_does_not_spoil_the_new_file(tmp_path: Path) -> None:
    new = tmp_path / f"s.sqlite3.{os.getpid()}.new"
    new.write_bytes(b"half a file")
    new.with_name(f"{new.name}-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"\0" * 504)
    TrialStore(tmp_path / "s.sqlite3", "x", ["maximize"]).close()
    assert [path.name for path in tmp_path.iterdir()] == ["s.sqlite3"]


@pytest.mark.parametrize(
    ("die", "kept"),
    [
        (["INSERT INTO trial_user_attributes", 2], BATCH),
        (["CREATE TABLE trial_values", 1], 0),  # while the file itself is being made
        pytest.param(["INSERT INTO trials", 1], 0, marks=pytest.mark.long),
        pytest.param(["INSERT INTO trial_params", 2], BATCH, marks=pytest.mark.long),
        pytest.param(["INSERT INTO trial_values", 1], 0, marks=pytest.mark.long),
        pytest.param(["INSERT INTO studies", 1], 0, marks=pytest.mark.long),
    ],
)
def test_a_process_killed_in_a_transaction_leaves_the_batch_whole_or_absent(
    die: list[Any], kept: int, worker, small, study, tmp_path: Path
) -> None:
    first = worker(tmp_path, name="x", die=die)
    out, err = first.communicate(timeout=300)
    assert first.returncode == -signal.SIGKILL, err
    path = tmp_path / "x" / "study.sqlite3"
    if path.exists():
        read = optuna.load_study(study_name="LINKUSDT", storage=f"sqlite:///{path}").get_trials()
        assert len(read) == kept and all(trial.state == TrialState.COMPLETE for trial in read)
        assert [trial.params for trial in read] == [t.params for t in study.optuna_study.get_trials()[:kept]]
    else:
        assert die[0].startswith(("CREATE", "INSERT INTO studies")) and not kept
    assert small(folder=tmp_path, name="x").digest == study.digest
    assert not [one.name for one in (tmp_path / "x").iterdir() if ".new" in one.name or "journal" in one.name]
