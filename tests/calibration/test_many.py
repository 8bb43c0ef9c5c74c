"""`calibrate_many`: a process a symbol; failures and kills are told by name, and nothing is left running."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from aione_lab.calibration import FoldPlan, calibrate, calibrate_many
from aione_lab.calibration.ledger import Ledger
from aione_lab.errors import InputError
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake
from tests.calibration.queue_tools import gone

SMALL: dict[str, Any] = {
    "n_trials": 20,
    "space": ("tp_mult", "sl_mult"),
    "folds": FoldPlan(n_folds=3),
    "min_trades": 5,
    "reference": None,
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    exchange = SimulatedExchange(seed=3)
    made = Lake(tmp_path_factory.mktemp("many") / "lake")
    for symbol in ("LINKUSDT", "SOLUSDT"):
        made.append(symbol, "1m", exchange.candles(symbol, days=19))
    made.append("ETHUSDT", "1m", exchange.candles("ETHUSDT", days=2))  # too short a span to be folded
    return made


def children() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.pid]


def studies(folder: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in folder.iterdir() if path.is_dir())


def test_killed_failing_and_missing_symbols_are_told_by_name_and_do_not_stop_the_others(
    lake: Lake, tmp_path: Path
) -> None:
    found = calibrate_many(lake, ["LINKUSDT", "SOLUSDT"], workers=2, folder=tmp_path, progress=kill_one, **SMALL)
    done = {one.symbol: one for one in found}
    (lost,) = (one for one in done.values() if one.error)
    (kept,) = (one for one in done.values() if not one.error)
    assert len(done) == 2 and not children()
    assert lost.error == "its process was killed by SIGKILL before it was done"
    assert kept.folder is not None and kept.results["verdict"] and (kept.folder / "results.json").exists()

    # A second call completes, and two that cannot be studied come before.
    told: list[tuple[str, int, int]] = []
    names = ["ETHUSDT", "NOSUCHUSDT", "LINK/USDT:USDT", "LINKUSDT", "SOLUSDT"]
    again = list(
        calibrate_many(lake, names, workers=1, folder=tmp_path, progress=lambda *one: told.append(one), **SMALL)
    )
    symbols = ["ETHUSDT", "NOSUCHUSDT", "LINKUSDT", "SOLUSDT"]  # nobody twice
    assert [one.symbol for one in again] == symbols
    assert told == [("", 0, 4), *((symbol, number, 4) for number, symbol in enumerate(symbols, 1))]
    short, missing, *good = again
    assert "days" in short.error and "no 1m candles of NOSUCHUSDT" in missing.error
    assert short.folder is None is missing.folder and short.results == {} == missing.results
    assert not any(one.error for one in good) and studies(tmp_path) == ["LINKUSDT", "SOLUSDT"] and not children()
    assert next(one for one in good if one.symbol == kept.symbol).results == kept.results  # it was only read back in
    for one in good:
        alone = calibrate(lake, one.symbol, folder=None, progress=False, **SMALL)
        assert one.results["thresholds"] == alone.thresholds.every_field()
        assert Ledger(tmp_path).entries(one.symbol).n_trials == len(alone.sets)


def kill_one(what: str, done: int, total: int) -> None:
    """Kill the younger of the two processes as soon as there are both."""
    if done:
        return

    def kill() -> None:
        while len(multiprocessing.active_children()) < 2:
            time.sleep(0.01)
        os.kill(max(children()), signal.SIGKILL)

    threading.Thread(target=kill).start()


def test_closed_early_or_left_alone_nothing_runs_on(lake: Lake, tmp_path: Path) -> None:
    """A consumer that stops; and a parent that is killed, whose processes end of themselves."""
    found = calibrate_many(lake, ["ETHUSDT", "LINKUSDT"], workers=2, folder=tmp_path / "a", progress=False, **SMALL)
    assert next(found).symbol == "ETHUSDT"
    running = children()
    assert len(running) == 1
    found.close()
    assert gone(*running)

    script = (
        "import sys, os, time, threading, multiprocessing\n"
        "from aione_lab.calibration import calibrate_many, FoldPlan\n"
        "from aione_lab.lake.store import Lake\n"
        "def told(*_):\n"
        "    def tell():\n"
        "        while len(multiprocessing.active_children()) < 2: time.sleep(0.01)\n"
        "        print(*[one.pid for one in multiprocessing.active_children()], flush=True)\n"
        "    threading.Thread(target=tell).start()\n"
        "if __name__ == '__main__':\n"
        "    list(calibrate_many(Lake(sys.argv[1]), ['LINKUSDT', 'SOLUSDT'], workers=2, folder=sys.argv[2],\n"
        "         progress=told, n_trials=100_000, folds=FoldPlan(n_folds=3)))\n"
    )
    file = tmp_path / "script.py"
    file.write_text(script)
    parent = subprocess.Popen(
        [sys.executable, file, lake.root, tmp_path / "b"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(*pids)


@pytest.mark.parametrize("symbols", [[], "LINKUSDT", ["../x"], 7, None, [7]])
def test_symbols_that_are_none_are_refused_at_once(lake: Lake, tmp_path: Path, symbols: Any) -> None:
    with pytest.raises(InputError, match="symbol"):
        calibrate_many(lake, symbols, folder=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_workers_and_options_that_cannot_be_are_refused_at_once(lake: Lake, tmp_path: Path) -> None:
    for workers in (0, -1, 1.5, "two", 257):
        with pytest.raises(InputError, match="workers"):
            calibrate_many(lake, ["LINKUSDT"], workers=workers, folder=tmp_path / "x")
    with pytest.raises(InputError, match="cannot be sent to another process"):
        calibrate_many(lake, ["LINKUSDT"], folder=tmp_path / "x", space=lambda: 1)
    with pytest.raises(InputError, match="n_trials"):
        calibrate_many(lake, ["LINKUSDT"], folder=tmp_path / "x", n_trails=20)
    with pytest.raises(InputError, match="options"):
        calibrate_many(lake, ["LINKUSDT"], folder=tmp_path / "x", name="one for all")
    assert not (tmp_path / "x").exists()
