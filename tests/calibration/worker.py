"""A process that calibrates, and dies where it is told to: an interpreter of its own, or a fork of one that waits.

Its one argument is a job in JSON: ``lake, folder``, ``die`` (None, or where), and arguments of ``calibrate``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy.engine import Engine

from aione_lab.calibration import FoldPlan, calibrate, hidden
from aione_lab.lake.store import Lake
from tests.forkserver import PROCESSES


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(where: str, count: int) -> None:
    """Arrange for a SIGKILL: before the ``count``-th statement that begins with ``where``, at a commit or a look."""
    if where == "look":
        hidden.write_json = die  # type: ignore[assignment]
        return
    seen = [0]

    def counted(text: str) -> None:
        if text.startswith(where):
            seen[0] += 1
            if seen[0] == count:
                die()

    if where == "COMMIT":
        sqlalchemy.event.listen(Engine, "commit", lambda connection: counted("COMMIT"))
    else:
        sqlalchemy.event.listen(Engine, "before_cursor_execute", lambda c, cursor, text, *rest: counted(text.strip()))


class Forked:
    """A process whose imports are done already; asked like a ``Popen``."""

    def __init__(self, job: str, said: Path) -> None:
        self._said = [said.with_suffix(end) for end in (".out", ".err")]
        self._process = PROCESSES.Process(target=speak_into, args=(self._said, job))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> list[str]:
        self._process.join(timeout)
        assert self.returncode is not None, f"still running after {timeout} seconds"
        return [path.read_text() for path in self._said]


def speak_into(said: list[Path], job: str) -> None:
    for number, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    study(job)


def study(argument: str) -> None:
    job = json.loads(argument)
    if "threads" in job:
        import numba

        numba.set_num_threads(job.pop("threads"))
    lake = Lake(job.pop("lake"))
    if job.get("die"):
        die_at(*job["die"])
    job.pop("die", None)
    reveal = job.pop("reveal", False)
    arguments: dict[str, Any] = {
        "n_trials": 40,
        "space": ("vol_z_threshold", "min_confidence", "tp_mult", "sl_mult"),
        "folds": FoldPlan(n_folds=3),
        "min_trades": 5,
        "metric": "expectancy",
        "progress": False,
        **job,
    }
    found = calibrate(lake, arguments.pop("symbol", "LINKUSDT"), **arguments)
    if reveal:
        found.reveal()
    print(found.digest, flush=True)


if __name__ == "__main__":
    study(sys.argv[1])
