"""The calibration queue when things go wrong: failures, time-outs, kills, and nothing that stays behind."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import queue_jobs as jobs
from queue_tools import ONE, PATIENCE, Assets, Clock, alive, gone, run, written

from aione_lab.calibration.queue import CalibrationQueue
from aione_lab.calibration.queue_settings import QueueSettings
from aione_lab.calibration.request import CalibrationOutcome
from aione_lab.errors import AioneError

# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "note", "logged"),
    [
        (jobs.failing, "ZeroDivisionError: no trades to divide by", "queue_jobs.py"),
        (jobs.leaves, "its process ended with exit code 7 without an outcome", ""),
        (jobs.leaves_politely, "SystemExit: enough", "queue_jobs.py"),
        (jobs.is_killed, "its process was killed by SIGKILL without an outcome", ""),
        (jobs.answers_nonsense, "must be a CalibrationOutcome", ""),
        (jobs.answers_for_another, "must be of SOLUSDT 1m, which was asked for", ""),
        (jobs.reports_backwards, "must be 0 ≤ done ≤ total", ""),
    ],
)
def test_a_job_that_fails_is_an_error_with_its_reason(
    job: Any, note: str, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    assets = Assets()

    async def scenario() -> None:
        async with CalibrationQueue(job, ONE, state_manager=assets) as queue:
            await queue.start_workers()
            await queue.put("SOLUSDT", "1m")
            await queue.join()
            assert note in queue.progress["SOLUSDT 1m"]["note"]
            assert queue.metrics["tasks_failed"] == 1 and queue.metrics["tasks_completed"] == 0

    run(scenario)
    assert assets.of("SOLUSDT") == ["queued", "in_progress", "error"] and assets.calibrations == []
    assert note in caplog.text and logged in caplog.text


def test_the_other_symbols_go_on_when_one_fails() -> None:
    assets = Assets()

    async def scenario() -> None:
        async with CalibrationQueue(jobs.failing_for_sol, state_manager=assets) as queue:
            for symbol in ("SOLUSDT", "ETHUSDT", "XRPUSDT"):
                await queue.put(symbol, "1m")
            await queue.start_workers(2)
            await queue.join()
            assert queue.metrics["tasks_completed"] == 2 and queue.metrics["tasks_failed"] == 1

    run(scenario)
    assert assets.of("SOLUSDT")[-1] == "error"
    assert assets.of("ETHUSDT")[-1] == assets.of("XRPUSDT")[-1] == "completed"


def test_after_three_failures_a_symbol_rests_and_then_has_one_more_try(tmp_path: Path) -> None:
    clock, assets, trouble = Clock(), Assets(), tmp_path / "trouble"
    trouble.touch()

    async def scenario() -> None:
        options = {"file": str(trouble)}
        async with CalibrationQueue(
            jobs.fails_while_there, ONE, options=options, state_manager=assets, clock=clock
        ) as queue:
            await queue.start_workers()
            for _ in range(3):
                assert await queue.put("SOLUSDT", "1m") == "queued"
                await queue.join()
            trouble.unlink()
            assert await queue.put("SOLUSDT", "1m", 0.5, is_urgent=True) == "pending"
            await queue.put("ETHUSDT", "1m")  # the others pass
            while queue.metrics["tasks_completed"] < 1 or queue.metrics["active_workers"]:
                await asyncio.sleep(0.01)
            assert queue.metrics == {"queue_size": 1, "active_workers": 0, "tasks_completed": 1, "tasks_failed": 3}
            clock.now += 600.0
            await queue.put("XRPUSDT", "1m")  # wakes the worker, which has the test's clock to go by
            await queue.join()
            assert queue.metrics["tasks_completed"] == 3

    run(scenario)
    failures = ["queued", "in_progress", "error"] * 3
    assert assets.of("SOLUSDT") == [*failures, "pending", "in_progress", "completed"]


def test_a_worker_wakes_by_itself_when_a_rest_is_over() -> None:
    """With the real clock, set ahead: the rest ends while nothing else happens."""
    ahead = [0.0]

    async def scenario() -> None:
        queue = CalibrationQueue(jobs.failing_for_sol, ONE, clock=lambda: time.monotonic() + ahead[0])
        async with queue:
            await queue.start_workers()
            for _ in range(3):
                await queue.put("SOLUSDT", "1m")
                await queue.join()
            ahead[0] = 599.7
            assert await queue.put("SOLUSDT", "1m") == "pending"
            await queue.join()
            assert queue.metrics["tasks_failed"] == 4

    run(scenario)


def test_a_job_that_takes_too_long_is_killed() -> None:
    assets, pids = Assets(), []

    async def scenario() -> None:
        settings = QueueSettings(max_concurrent=1, optuna_timeout=3.0)
        async with CalibrationQueue(
            jobs.hangs, settings, state_manager=assets, on_progress=lambda symbol, tf, done, total: pids.append(done)
        ) as queue:
            await queue.start_workers()
            await queue.put("SOLUSDT", "1m")
            await queue.join()
            note = "it took longer than optuna_timeout=3 seconds and was killed"
            assert queue.progress["SOLUSDT 1m"]["note"] == note

    run(scenario)
    assert assets.of("SOLUSDT") == ["queued", "in_progress", "error"]
    assert len(pids) <= 1 and gone(*pids)


def test_an_answer_in_time_counts_though_its_process_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aione_lab.calibration.process.GRACE_S", 0.2)
    heard = []

    async def scenario() -> None:
        async with CalibrationQueue(jobs.lingers, ONE, on_result=heard.append) as queue:
            await queue.put("SOLUSDT", "1m")
            await queue.start_workers()
            await queue.join()
            assert queue.metrics["tasks_completed"] == 1

    run(scenario)
    assert gone(heard[0].provenance["pid"])


# --- cancelling, closing, dying --------------------------------------------------------------------------------------


def test_cancelling_kills_a_running_job_and_takes_a_waiting_one_out_of_the_line() -> None:
    assets, pids = Assets(), []

    async def scenario() -> None:
        started = asyncio.Event()

        def on_progress(symbol: str, tf: str, done: int, total: int) -> None:
            pids.append(done)
            started.set()

        async with CalibrationQueue(jobs.hangs, ONE, state_manager=assets, on_progress=on_progress) as queue:
            await queue.put("SOLUSDT", "1m")
            await queue.put("ETHUSDT", "1m")
            await queue.start_workers()
            await started.wait()
            assert alive(pids[0])
            assert await queue.cancel("ETHUSDT", "1m")
            assert await queue.cancel("SOL/USDT", "1m")
            assert not alive(pids[0])  # gone when cancel returns
            assert not await queue.cancel("SOLUSDT", "1m") and not await queue.cancel("XRPUSDT", "5m")
            await queue.join()
            assert queue.metrics == {"queue_size": 0, "active_workers": 0, "tasks_completed": 0, "tasks_failed": 0}

            started.clear()
            assert await queue.put("SOLUSDT", "1m") == "queued"  # the worker is still there
            await started.wait()
            stop = asyncio.create_task(queue.cancel("SOLUSDT", "1m"))
            await asyncio.sleep(0)
            started.clear()
            assert await queue.put("SOLUSDT", "1m") == "queued"  # not merged into what is being killed
            assert await stop
            await started.wait()

    run(scenario)
    assert assets.of("ETHUSDT") == ["queued", "pending"]
    assert assets.of("SOLUSDT") == ["queued", "in_progress", "pending"] * 3
    assert len(set(pids)) == 3 and gone(*pids)


def test_closing_kills_all_that_runs_and_whatever_it_has_started(tmp_path: Path) -> None:
    assets, file = Assets(), tmp_path / "pids"

    async def scenario() -> list[int]:
        queue = CalibrationQueue(jobs.hangs_with_children, ONE, options={"file": str(file)}, state_manager=assets)
        await queue.put("SOLUSDT", "1m")
        await queue.put("ETHUSDT", "1m")
        await queue.start_workers()
        pids = [int(pid) for pid in (await written(file)).split()]
        assert len(pids) == 3 and all(map(alive, pids))
        await queue.close()
        await queue.close()  # once more does nothing
        await queue.join()
        for refused in (queue.put("SOLUSDT", "1m"), queue.expire("SOLUSDT", "1m"), queue.start_workers(1)):
            with pytest.raises(AioneError, match="closed"):
                await refused
        return pids

    assert gone(*run(scenario))
    assert assets.of("SOLUSDT") == ["queued", "in_progress", "pending"]
    assert assets.of("ETHUSDT") == ["queued", "pending"]


def test_a_dead_job_is_noticed_although_a_fork_of_it_keeps_the_pipe(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    async def scenario() -> None:
        async with CalibrationQueue(jobs.leaves_a_fork, ONE, options={"file": str(file)}) as queue:
            await queue.put("SOLUSDT", "1m")
            await queue.start_workers()
            await queue.join()
            assert "exit code 3" in queue.progress["SOLUSDT 1m"]["note"]

    run(scenario)
    assert gone(int(file.read_text()))


def test_cancelling_whoever_uses_the_queue_cancels_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "pids"

    async def user() -> None:
        async with CalibrationQueue(jobs.hangs_with_children, ONE, options={"file": str(file)}) as queue:
            await queue.put("SOLUSDT", "1m")
            await queue.start_workers()
            await queue.join()

    async def scenario() -> None:
        task = asyncio.create_task(user())
        await written(file)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario)
    assert gone(*map(int, file.read_text().split()))


def test_a_loop_that_ends_without_close_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "pids"

    async def forgetful() -> None:
        queue = CalibrationQueue(jobs.hangs_with_children, ONE, options={"file": str(file)})
        await queue.put("SOLUSDT", "1m")
        await queue.start_workers()
        await written(file)

    asyncio.run(forgetful())
    assert gone(*map(int, file.read_text().split()))


def test_a_job_ends_when_the_process_of_the_queue_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    program = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import queue_jobs
from aione_lab.calibration.queue import CalibrationQueue

async def main():
    queue = CalibrationQueue(queue_jobs.hangs_with_children, options={{"file": {str(file)!r}}})
    await queue.put("SOLUSDT", "1m")
    await queue.start_workers()
    await queue.join()

asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    asyncio.run(asyncio.wait_for(written(file), PATIENCE))
    pids = [int(pid) for pid in file.read_text().split()]
    assert all(map(alive, pids))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert gone(*pids)


def test_a_result_that_is_just_being_delivered_survives_close_and_cancel() -> None:
    kept = []

    async def scenario() -> None:
        delivering = asyncio.Event()

        async def on_result(outcome: CalibrationOutcome) -> None:
            delivering.set()
            await asyncio.sleep(0.2)
            kept.append(outcome.symbol)

        queue = CalibrationQueue(jobs.quick, ONE, on_result=on_result)
        await queue.put("SOLUSDT", "1m")
        await queue.start_workers()
        await delivering.wait()
        assert not await queue.cancel("SOLUSDT", "1m")
        await queue.close()
        assert queue.metrics["tasks_completed"] == 1

    run(scenario)
    assert kept == ["SOLUSDT"]
