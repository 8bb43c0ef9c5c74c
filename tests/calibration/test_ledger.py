"""The ledger: repeats are no trials, writers do not lose one another's, and a pinned state is for good."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from aione_lab.calibration.ledger import FILE, Entries, Ledger
from aione_lab.errors import InputError
from tests.forkserver import PROCESSES


def add(folder: Path, writer: int, rounds: int) -> None:
    """What one of several processes enters: sets of its own, and sets that all of them enter."""
    ledger = Ledger(folder)
    for i in range(rounds):
        mine = [(f"own-{writer}-{i}-{j}", writer + j / 10) for j in range(5)]
        ledger.add("LINKUSDT", "1m", "data", "rules", [*mine, (f"shared-{i}", 0.5)], f"study-{writer}", 2.0)
        ledger.entries("LINKUSDT")
        ledger.spend("LINKUSDT", "1m", i, i + 1, f"study-{writer}", "choice", "now")


def test_the_same_again_is_no_new_trial(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.entries("LINKUSDT").n_trials == 0 and not ledger.path.exists()
    trials = [("a", 0.1), ("b", -0.2), ("a", 0.1)]
    assert ledger.add("LINKUSDT", "1m", "data", "rules", trials, "x", 1.5) == 2
    assert ledger.add("LINKUSDT", "1m", "data", "rules", trials, "y", 1.5) == 0
    assert ledger.add("LINK/USDT:USDT", "1m", "data", "rules", trials, "y", 1.5) == 0  # the same symbol
    before = ledger.entries("LINKUSDT")
    assert before.n_trials == 2 and list(before.sharpes) == [0.1, -0.2]
    for data, rules in (("other", "rules"), ("data", "other")):  # on other data, under other rules: other trials
        assert ledger.add("LINKUSDT", "1m", data, rules, [("a", 0.3)], "x", 1.5) == 1
    assert ledger.add("LINKUSDT", "5m", "data of 5m", "rules", trials, "x", 1.5) == 2  # on the same days
    assert ledger.add("SOLUSDT", "1m", "data", "rules", trials, "x", 1.5) == 2
    after = ledger.entries("LINKUSDT")
    assert after.n_trials == 6 and len(set(after.thresholds)) == 6 and after.digest != before.digest
    pinned = ledger.entries("LINKUSDT", last=before.last)
    assert pinned.digest == before.digest and pinned.thresholds == before.thresholds


def test_four_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    processes = [PROCESSES.Process(target=add, args=(tmp_path, writer, 12)) for writer in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    found = Ledger(tmp_path).entries("LINKUSDT")
    names = [name.rsplit(":", 1)[1] for name in found.thresholds]
    assert len(names) == len(set(names)) == 4 * 12 * 5 + 12
    assert len(Ledger(tmp_path).spent("LINKUSDT", 0, 100)) == 4 * 12


def test_marks_of_hidden_spans(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.spent("LINKUSDT", 0, 10) == []
    assert ledger.spend("LINKUSDT", "1m", 10, 20, "a", "set", "t1") == []
    assert ledger.spend("LINKUSDT", "1m", 10, 20, "a", "set", "t2") == []  # the same look
    assert [mark.at for mark in ledger.spent("LINKUSDT", 0, 99)] == ["t1"]
    assert [m.experiment for m in ledger.spend("LINKUSDT", "1m", 19, 30, "b", "set", "t3")] == ["a"]
    assert ledger.spend("LINKUSDT", "1m", 10, 20, "a", "set", "t4") == []  # what came later changes nothing
    assert [m.experiment for m in ledger.spend("LINKUSDT", "1m", 10, 20, "a", "another", "t5")] == ["a", "b"]
    assert [m.experiment for m in ledger.spend("LINKUSDT", "1m", 12, 20, "a", "set", "t6")] == ["a", "b", "a"]
    assert ledger.spend("LINKUSDT", "1m", 30, 40, "c", "set", "t7") == []  # they only touch
    assert [m.interval for m in ledger.spend("LINKUSDT", "5m", 30, 45, "c", "set", "t8")] == ["1m"]  # the same days
    assert ledger.spend("SOLUSDT", "1m", 10, 20, "c", "set", "t9") == []


def test_days_that_were_searched_are_so_on_every_interval(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.searched("LINKUSDT", 0, 99) == []
    ledger.search("LINKUSDT", "1m", 10, 20, "a")
    ledger.search("LINKUSDT", "5m", 15, 30, "b")
    assert ledger.searched("LINKUSDT", 12, 18) == ["a", "b"] and ledger.searched("LINKUSDT", 20, 30) == ["b"]


def test_pools_are_known_by_the_symbols_they_share(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.pools_with(["LINKUSDT"]) == []
    for name, titles in (("x", ("POOL00AA11BB", "LINKUSDT", "SOLUSDT")), ("y", ("POOL22CC33DD", "SOLUSDT", "ETHUSDT"))):
        for title in titles:
            ledger.search(title, "1m", 0, 10, name)
    ledger.search("LINKUSDT", "1m", 0, 10, "z")  # a study of one symbol
    ledger.search("POOLUSDT", "1m", 0, 10, "p")  # a coin of that name
    assert ledger.pools_with(["LINKUSDT", "POOLUSDT"]) == ["POOL00AA11BB"]
    assert ledger.pools_with(["SOLUSDT"]) == ["POOL00AA11BB", "POOL22CC33DD"] and ledger.pools_with(["DOTUSDT"]) == []


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="symbol="):
        Ledger(tmp_path).add("../x", "1m", "d", "r", [("a", 0.0)], "x", 1.5)
    (tmp_path / FILE).write_text("not a database" * 100)
    for call in (
        lambda: Ledger(tmp_path).entries("LINKUSDT"),
        lambda: Ledger(tmp_path).add("LINKUSDT", "1m", "d", "r", [("a", 0.0)], "x", 1.5),
        lambda: Ledger(tmp_path).spent("LINKUSDT", 0, 1),
    ):
        with pytest.raises(InputError, match="cannot be used as the ledger") as error:
            call()
        assert "\n" not in str(error.value)


def test_a_sharpe_ratio_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100)
    ledger = Ledger(tmp_path)
    ledger.add("LINKUSDT", "1m", "d", "r", [(str(i), float(x)) for i, x in enumerate(values)], "x", 1.5)
    assert (ledger.entries("LINKUSDT").sharpes == values).all() and math.isfinite(values.sum())


def test_trials_weigh_what_their_study_amounts_to(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add("LINKUSDT", "1m", "d", "r", [("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.4)], "x", 1.5)
    ledger.add("LINKUSDT", "1m", "d", "r", [("d", 0.4), ("e", 0.5)], "y", 2.0)  # "d" keeps what it weighed
    entries = ledger.entries("LINKUSDT")
    assert list(entries.weights) == [0.375] * 4 + [1.0] and entries.n_effective == 2.5
    assert Entries.from_json(entries.to_json()).digest == entries.digest


def test_a_ledger_without_weights_counts_its_trials_in_full(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        connection.execute(
            "CREATE TABLE trials (id INTEGER PRIMARY KEY AUTOINCREMENT, symbol TEXT NOT NULL, interval TEXT NOT NULL, "
            "data TEXT NOT NULL, rules TEXT NOT NULL, thresholds TEXT NOT NULL, sharpe REAL NOT NULL, "
            "experiment TEXT NOT NULL, UNIQUE (symbol, interval, data, rules, thresholds))"
        )
        connection.execute("INSERT INTO trials VALUES (1, 'LINKUSDT', '1m', 'd', 'r', 'a', 0.1, 'x')")
    ledger = Ledger(tmp_path)
    assert ledger.entries("LINKUSDT").n_effective == 1.0
    assert ledger.add("LINKUSDT", "1m", "d", "r", [("a", 0.1), ("b", 0.2)], "y", 1.0) == 1
    assert list(ledger.entries("LINKUSDT").weights) == [1.0, 0.5]
