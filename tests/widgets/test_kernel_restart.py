"""A kernel that is restarted under a live dashboard leaves nothing running, and the cell runs again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.calibration.queue_tools import alive, gone

jupyter_client = pytest.importorskip("jupyter_client", reason="JupyterLab is not installed")

JOBS = Path(__file__).parents[1] / "calibration"
CELL = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {jobs!r})
import queue_jobs
from aione_lab import CalibrationQueue, Dashboard, ReplayFeed, Session
from aione_lab.lake.simulated import SimulatedExchange

queue = CalibrationQueue(queue_jobs.hangs_with_children, options={{"file": {pids!r}}})
await queue.start_workers()
feed = ReplayFeed(SimulatedExchange(), ["BTCUSDT", "SOLUSDT"], start="2025-01-10", end="2025-01-11", speed=600)
session = Session(feed, queue=queue, journal={journal!r})
task = session.start()
dashboard = Dashboard(session)
await session.request_calibration("SOLUSDT")
while session.status()["state"] != "running" or not Path({pids!r}).exists():
    assert not task.done(), task.result()
    await asyncio.sleep(0.05)
print(session.status()["state"])
"""


@pytest.fixture
def kernel() -> Iterator[Any]:
    manager = jupyter_client.KernelManager(kernel_name="python3")
    try:
        manager.start_kernel()
    except jupyter_client.kernelspec.NoSuchKernel:
        pytest.skip("the kernel python3 is not installed")
    yield manager
    manager.shutdown_kernel(now=True)


def run(manager: Any, code: str) -> str:
    """What the cell printed."""
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        printed: list[str] = []

        def show(message: Any) -> None:
            content = message["content"]
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                printed.append(content["text"])

        reply = client.execute_interactive(code, timeout=120, output_hook=show)["content"]
        assert reply["status"] == "ok", "\n".join(reply.get("traceback", []))
        return "".join(printed)
    finally:
        client.stop_channels()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")
def test_a_restarted_kernel_leaves_nothing_running(kernel: Any, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    cell = CELL.format(jobs=str(JOBS), pids=str(pids), journal=str(tmp_path / "journal"))
    for _ in range(2):  # the second time the journal of the first must be free again
        assert run(kernel, cell).strip() == "running"
        started = [int(pid) for pid in pids.read_text().split()]
        started.append(kernel.provisioner.process.pid)
        assert all(map(alive, started))
        pids.unlink()
        kernel.restart_kernel()
        assert gone(*started)
