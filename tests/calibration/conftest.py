"""A small lake and small studies: three symbols over nineteen days, the last four of them hidden."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aione_lab.calibration import Calibration, FoldPlan, calibrate
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake
from tests.calibration.worker import Forked

DAYS = 19
SYMBOLS = ("BTCUSDT", "LINKUSDT", "SOLUSDT", "ETHUSDT", "DOTUSDT")
SPACE = ("vol_z_threshold", "min_confidence", "tp_mult", "sl_mult")
WORKER = Path(__file__).with_name("worker.py")
SMALL: dict[str, Any] = {
    "n_trials": 40,
    "space": SPACE,
    "folds": FoldPlan(n_folds=3),
    "min_trades": 5,
    "metric": "expectancy",
    "progress": False,
}


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    exchange = SimulatedExchange(seed=3)
    made = Lake(tmp_path_factory.mktemp("calibration") / "lake")
    for symbol in SYMBOLS:
        made.append(symbol, "1m", exchange.candles(symbol, days=DAYS))
        made.append_funding(symbol, exchange.funding(symbol, days=DAYS))
    return made


@pytest.fixture(scope="session")
def small(lake: Lake) -> Callable[..., Calibration]:
    """``calibrate`` with small arguments, of LINKUSDT and without a folder unless told otherwise."""

    def run(symbol: str = "LINKUSDT", *, lake: Lake = lake, **changes: Any) -> Calibration:
        return calibrate(lake, symbol, **{"folder": None, **SMALL, **changes})

    return run


@pytest.fixture(scope="session")
def study(small: Callable[..., Calibration]) -> Calibration:
    """One small study that was never written."""
    return small()


@pytest.fixture(scope="session")
def interpreter(lake: Lake) -> Callable[..., subprocess.Popen[str]]:
    """Start ``worker.py`` with a job as a program; what it finds is its last line of output."""

    def start(folder: Path | None, env: dict[str, str], **job: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(WORKER), in_json(lake, folder, job)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(WORKER.parents[2]), **env},
        )

    return start


@pytest.fixture(scope="session")
def worker(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Forked]:
    """The same as a fork of a process that has imported everything, for tests that start one after the other."""
    said, numbers = tmp_path_factory.mktemp("workers"), itertools.count()

    def start(folder: Path, **job: Any) -> Forked:
        return Forked(in_json(lake, folder, job), said / str(next(numbers)))

    return start


def copied(lake: Lake, root: Path, changed: Callable[[str, pd.DataFrame], pd.DataFrame]) -> Lake:
    """The lake's LINKUSDT and its reference again, each frame through ``changed``."""
    other = Lake(root)
    for symbol in ("BTCUSDT", "LINKUSDT"):
        other.append(symbol, "1m", changed(symbol, lake.candles(symbol, "1m")))
        other.append_funding(symbol, lake.funding(symbol))
    return other


def in_json(lake: Lake, folder: Path | None, job: dict[str, Any]) -> str:
    return json.dumps({"lake": lake.root, "folder": None if folder is None else str(folder), **job})
