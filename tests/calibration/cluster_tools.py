"""A Dask scheduler and workers on loopback, in processes of their own, and a client that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aione_lab.calibration import FoldPlan, calibrate
from aione_lab.lake.store import Lake

HERE = Path(__file__)
PATIENCE = 90.0  # seconds until what does not start has failed
SMALL: dict[str, Any] = {
    "space": ("vol_z_threshold", "min_confidence", "tp_mult", "sl_mult"),
    "folds": FoldPlan(n_folds=3),
    "min_trades": 5,
    "metric": "expectancy",
    "sampler": "random",
}


class Cluster:
    """One scheduler and the workers that were started for it; all of them end with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        told = folder / "scheduler.json"
        self.scheduler = self._start(
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--dashboard-address",
            "127.0.0.1:0",
            "--scheduler-file",
            str(told),
        )
        until = time.monotonic() + PATIENCE
        while not told.exists() or not told.read_text():
            assert self.scheduler.poll() is None and time.monotonic() < until, self.log("scheduler")
            time.sleep(0.05)
        self.address: str = json.loads(told.read_text())["address"]

    def worker(self, name: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker of one thread, without a nanny that would start it again."""
        return self._start(
            "worker",
            self.address,
            *("--name", name, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"),
            *("--local-directory", str(self._folder), *options),
            log=name,
            **environment,
        )

    def doomed(self, name: str, trials: int) -> subprocess.Popen[bytes]:
        """A worker that is killed when it has added so many trials to the shared study."""
        return self.worker(name, "--preload", str(HERE), TRIALS=str(trials))

    def log(self, name: str) -> str:
        """What a process has said."""
        return (self._folder / f"{name}.log").read_text()

    def _start(self, program: str, *arguments: str, log: str = "", **environment: str) -> subprocess.Popen[bytes]:
        with open(self._folder / f"{log or program}.log", "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{program}", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(HERE.parents[2]), **environment},
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """Ask every process to end, the workers first, and make sure of it."""
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        cluster.stop()


def dask_setup(worker: Any) -> None:
    """Dask's hook in a doomed worker: SIGKILL where it would share one trial more than it may."""
    import optuna

    left = int(os.environ["TRIALS"])
    add = optuna.Study.add_trial

    def counted(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        nonlocal left
        if not isinstance(study._storage, optuna.storages.InMemoryStorage):
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        add(study, trial)

    optuna.Study.add_trial = counted  # type: ignore[method-assign]


def client() -> None:
    """A client that is killed when the first batch has been told; its argument is a job in JSON."""
    job = json.loads(sys.argv[1])

    def dies(what: str, done: int, total: int) -> None:
        if done:
            os.kill(os.getpid(), signal.SIGKILL)

    calibrate(Lake(job.pop("lake")), "LINKUSDT", **SMALL, **job, progress=dies)


if __name__ == "__main__":
    client()
