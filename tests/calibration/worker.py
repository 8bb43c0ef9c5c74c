"""A process that calibrates, and dies where it is told to: run by the tests, never imported by them.

Its one argument is a job in JSON: ``lake, folder``, ``die`` (None, or where), and arguments of ``calibrate``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import sqlalchemy
from sqlalchemy.engine import Engine

from aione_lab.calibration import FoldPlan, calibrate, hidden
from aione_lab.lake.store import Lake


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(where: str, count: int) -> None:
    """Arrange for a SIGKILL: before the ``count``-th statement that begins with ``where``, at a commit, at a look."""
    if where == "look":
        hidden._score = die  # type: ignore[assignment]
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


def main() -> None:
    job = json.loads(sys.argv[1])
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
    study = calibrate(lake, arguments.pop("symbol", "LINKUSDT"), **arguments)
    if reveal:
        study.reveal()
    print(study.digest)


if __name__ == "__main__":
    main()
