"""Processes for tests, forked from one that has imported what costs time and does nothing else.

They are processes like any other, which may be killed; only their imports are done already.
"""

from __future__ import annotations

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
# The server sees the package, but not always the tests: its sys.path is the bare one.
PROCESSES.set_forkserver_preload(
    [
        *("pytest", "pandas", "pyarrow.parquet", "pyarrow.csv", "pydantic", "filelock", "secrets"),
        *(f"aione_lab.calibration.{name}" for name in ("many", "run", "hidden", "report")),
    ]
)
