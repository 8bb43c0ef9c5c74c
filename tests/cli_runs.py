"""What the tests of the program share: how it is run, a small lake, how a refusal looks. Import the fixtures used."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from aione_lab.cli import main
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake

DAYS = 3
SYMBOLS = ("BTCUSDT", "SOLUSDT", "LINKUSDT")
COMMANDS = ("demo", "lab", "fetch", "import", "audit", "replay", "calibrate", "live", "drift", "doctor")


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the program in this process."""

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Ran(int(left.value.code or 0), printed.out, printed.err)

    return call


@pytest.fixture(scope="module")
def exchange() -> SimulatedExchange:
    return SimulatedExchange()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, exchange: SimulatedExchange) -> Path:
    """A lake of a few simulated days; SOLUSDT also at 5m, LINKUSDT without funding."""
    lake = Lake(tmp_path_factory.mktemp("filled") / "lake")
    for name in SYMBOLS:
        lake.append(name, "1m", exchange.candles(name, days=DAYS))
        if name != "LINKUSDT":
            lake.append_funding(name, exchange.funding(name, days=DAYS))
    lake.resample("SOLUSDT", "1m", "5m")
    return Path(lake.root)


@pytest.fixture
def lake_copy(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "lake"))


def refused(ran: Ran, *words: str) -> None:
    """Exit code 2, nothing on standard output, one line on standard error that holds ``words``."""
    assert ran.code == 2, ran
    assert ran.out == ""
    assert ran.err.startswith("error: ") and ran.err.count("\n") == 1 and ran.err.endswith("\n"), ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err, ran.err
