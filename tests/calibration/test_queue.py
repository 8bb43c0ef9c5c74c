"""The calibration queue with real processes: results, failures, kills, and a loop that is never held up."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import queue_jobs as jobs

from aione_lab.calibration.queue import CalibrationQueue
from aione_lab.calibration.queue_settings import QueueSettings
from aione_lab.calibration.request import CalibrationOutcome, CalibrationRequest
from aione_lab.errors import AioneError, InputError

PATIENCE = 60.0  # seconds after which a test that waits is a failed one; none is meant to come near it


def run(scenario: Callable[[], Any]) -> Any:
    """Run a coroutine function; it must leave no task of its own behind."""

    async def patient() -> Any:
        async with asyncio.timeout(PATIENCE):
            result = await scenario()
        await asyncio.sleep(0)  # what was cancelled may end
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    return asyncio.run(patient(), debug=False)


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(*pids: int) -> bool:
    """Whether all of them end; a kill needs a moment to arrive."""
    until = time.monotonic() + 20.0
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    return not any(map(alive, pids))


async def written(path: Path) -> str:
    while not (path.exists() and path.read_text()):
        await asyncio.sleep(0.01)
    return path.read_text()


class Assets:
    """A state manager with coroutines that notes what it is told."""

    def __init__(self) -> None:
        self.states: list[tuple[str, str]] = []
        self.calibrations: list[tuple[str, dict]] = []

    async def update_asset(self, symbol: str, updates: Any) -> None:
        assert set(updates) == {"calib_status"}
        await asyncio.sleep(0)
        self.states.append((symbol, updates["calib_status"]))

    async def update_calibration(self, symbol: str, params: Any) -> None:
        self.calibrations.append((symbol, params))

    def of(self, symbol: str) -> list[str]:
        return [state for name, state in self.states if name == symbol]


class PlainAssets:
    """The same with plain methods."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def update_asset(self, symbol: str, updates: Any) -> None:
        self.told.append((symbol, updates["calib_status"]))

    def update_calibration(self, symbol: str, params: Any) -> None:
        self.told.append((symbol, params))


class Clock:
    """Steady seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


ONE = QueueSettings(max_concurrent=1)


# --- what becomes of a result ------------------------------------------------------------------------------------


def test_an_accepted_outcome_reaches_store_callback_and_state_manager() -> None:
    kept, heard, seen, assets = [], [], [], Assets()

    class Store:
        async def save(self, outcome: CalibrationOutcome) -> None:
            kept.append(outcome)

    async def on_result(outcome: CalibrationOutcome) -> None:
        assert kept == [outcome] and assets.calibrations == []  # the store first, the live state last
        heard.append(outcome)

    def on_progress(*told: Any) -> None:
        asyncio.get_running_loop()  # it is called in the event loop
        seen.append(told)

    async def scenario() -> None:
        queue = CalibrationQueue(
            jobs.quick,
            QueueSettings(min_bars=77, defaults_dir="kept/here"),
            Store(),
            options={"n_trials": 5},
            on_result=on_result,
            on_progress=on_progress,
        )
        queue.set_state_manager(assets)
        async with queue:
            assert await queue.put("sol/usdt:usdt", "1m", 0.5) == "queued"
            assert queue.metrics == {"queue_size": 1, "active_workers": 0, "tasks_completed": 0, "tasks_failed": 0}
            await queue.start_workers(2)
            await queue.join()
            assert queue.metrics == {"queue_size": 0, "active_workers": 0, "tasks_completed": 1, "tasks_failed": 0}
            row = {"state": "completed", "done": 3, "total": 3, "note": "It was tried."}
            assert queue.progress == {"SOLUSDT 1m": row}

    run(scenario)
    (outcome,) = heard
    assert (outcome.symbol, outcome.interval, outcome.accepted) == ("SOLUSDT", "1m", True)
    assert outcome.provenance["pid"] != os.getpid() and gone(outcome.provenance["pid"])
    assert outcome.provenance["options"] == {
        "min_bars": 77,
        "defaults_dir": "kept/here",
        "optuna_timeout": 1_800.0,
        "n_trials": 5,
    }
    assert assets.of("SOLUSDT") == ["queued", "in_progress", "completed"]
    assert assets.calibrations == [("SOLUSDT", {"vol_z_threshold": 2.5})]
    assert seen == [("SOLUSDT", "1m", 0, 3), ("SOLUSDT", "1m", 3, 3)]


def test_a_set_that_is_not_accepted_is_completed_and_goes_nowhere() -> None:
    assets, heard = PlainAssets(), []

    async def scenario() -> None:
        async with CalibrationQueue(jobs.keeps_defaults, state_manager=assets, on_result=heard.append) as queue:
            await queue.put("SOLUSDT", "1m", 0.5, is_high_priority=True)
            await queue.start_workers(1)
            await queue.join()
            assert queue.metrics["tasks_completed"] == 1

    run(scenario)
    assert heard == [] and assets.told == [("SOLUSDT", s) for s in ("queued_high", "in_progress", "completed")]


def test_a_result_that_cannot_be_kept_is_used_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    assets = Assets()

    class Full:
        def save(self, outcome: CalibrationOutcome) -> None:
            raise OSError("the disk is full")

    async def scenario() -> None:
        async with CalibrationQueue(jobs.quick, ONE, Full(), state_manager=assets) as queue:
            await queue.put("SOLUSDT", "1m")
            await queue.start_workers()
            await queue.join()
            assert queue.metrics["tasks_failed"] == 1
            assert queue.progress["SOLUSDT 1m"]["note"] == "the disk is full"

    run(scenario)
    assert assets.of("SOLUSDT")[-1] == "error" and assets.calibrations == []
    assert "the disk is full" in caplog.text and "Traceback" in caplog.text


# --- order, duplicates, how often --------------------------------------------------------------------------------


def test_one_worker_takes_the_most_urgent_first() -> None:
    order = []

    async def scenario() -> None:
        async with CalibrationQueue(jobs.quick, ONE, on_result=lambda outcome: order.append(outcome.symbol)) as queue:
            assert await queue.put("AUSDT", "1m", 0.5) == "queued"
            assert await queue.put("BUSDT", "1m", 0.5) == "queued"
            assert await queue.put("CUSDT", "1m", 0.5, is_high_priority=True) == "queued_high"
            assert await queue.put("DUSDT", "1m", 0.5, is_urgent=True) == "queued_urgent"
            assert await queue.put("BUSDT", "1m", 0.5, is_urgent=True) == "queued_urgent"  # merged, and no second one
            assert queue.metrics["queue_size"] == 4
            await queue.start_workers(1)
            await queue.join()

    run(scenario)
    assert order == ["BUSDT", "DUSDT", "CUSDT", "AUSDT"]


def test_a_duplicate_of_a_running_task_is_answered_by_the_run(tmp_path: Path) -> None:
    assets = Assets()
    file = tmp_path / "go"

    async def scenario() -> None:
        started = asyncio.Event()
        queue = CalibrationQueue(
            jobs.busy, options={"file": str(file)}, state_manager=assets, on_progress=lambda *_: started.set()
        )
        async with queue:
            await queue.start_workers(2)
            await queue.put("SOLUSDT", "1m")
            await started.wait()
            assert await queue.put("SOLUSDT", "1m", 0.5, is_urgent=True) == "in_progress"
            assert queue.metrics["queue_size"] == 0 and queue.metrics["active_workers"] == 1
            file.touch()
            await queue.join()
            assert queue.metrics["tasks_completed"] == 1

    run(scenario)
    assert assets.of("SOLUSDT") == ["queued", "in_progress", "completed"]


def test_a_symbol_is_not_calibrated_again_within_a_day_unless_an_alert_or_its_expiry_asks() -> None:
    clock, assets = Clock(), Assets()

    async def scenario() -> None:
        async with CalibrationQueue(jobs.quick, ONE, state_manager=assets, clock=clock) as queue:
            await queue.start_workers()

            async def asked(completed: int, **flags: bool) -> str:
                state = await queue.put("SOLUSDT", "1m", 0.5, **flags)
                await queue.join()
                assert queue.metrics["tasks_completed"] == completed
                return state

            assert await asked(1) == "queued"
            assert await asked(1) == await asked(1, is_high_priority=True) == "completed"
            assert await asked(2, is_urgent=True) == "queued_urgent"
            assert await asked(2, is_urgent=True) == "completed"  # urgent once in six hours
            clock.now += 6 * 3_600.0
            assert await asked(2) == "completed"
            assert await asked(3, is_urgent=True) == "queued_urgent"
            clock.now += 24 * 3_600.0
            assert await asked(4) == "queued"
            assert await queue.expire("SOLUSDT", "1m") == "queued"
            await queue.join()
            assert queue.metrics["tasks_completed"] == 5

    run(scenario)
    assert assets.of("SOLUSDT")[-4:] == ["expired", "queued", "in_progress", "completed"]


# --- failures ----------------------------------------------------------------------------------------------------


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
            while queue.metrics["tasks_completed"] < 1:
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


# --- cancelling, closing, dying ----------------------------------------------------------------------------------


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


# --- the event loop ----------------------------------------------------------------------------------------------


def test_the_event_loop_goes_on_while_jobs_burn_the_processor(tmp_path: Path) -> None:
    """The jobs end only when a coroutine beside them has come round often enough to tell them so."""
    file, ticks, outcomes = tmp_path / "go", [0], []

    async def scenario() -> None:
        async def ticker() -> None:
            while queue.metrics["active_workers"] < 2 or ticks[0] < 100:
                ticks[0] += queue.metrics["active_workers"] == 2
                await asyncio.sleep(0.001)
            file.touch()

        async with CalibrationQueue(jobs.busy, options={"file": str(file)}, on_result=outcomes.append) as queue:
            await queue.put("SOLUSDT", "1m")
            await queue.put("ETHUSDT", "1m")
            beside = asyncio.create_task(ticker())
            await queue.start_workers(2)
            await queue.join()
            await beside
            assert queue.metrics["tasks_completed"] == 2, queue.progress

    run(scenario)
    pids = {outcome.provenance["pid"] for outcome in outcomes}
    assert ticks[0] == 100 and len(pids) == 2 and os.getpid() not in pids


def test_a_job_may_print_and_report_as_often_as_it_likes(capfd: pytest.CaptureFixture[str]) -> None:
    seen, heard = [], []

    async def scenario() -> None:
        async with CalibrationQueue(
            jobs.chatty, on_progress=lambda symbol, tf, *at: seen.append(at), on_result=heard.append
        ) as queue:
            await queue.put("SOLUSDT", "1m")
            await queue.start_workers()
            await queue.join()

    run(scenario)
    assert seen[0] == (0, 20_000) and seen[-1] == (20_000, 20_000) and len(seen) < 10_000
    assert seen == sorted(seen)
    assert len(heard[0].provenance["text"]) == 300_000
    assert "must not disturb" in capfd.readouterr().out


def test_callbacks_and_a_state_manager_that_fail_cost_a_log_entry(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Assets):
        async def update_asset(self, symbol: str, updates: Any) -> None:
            raise RuntimeError("no state today")

    def on_progress(*_: Any) -> None:
        raise RuntimeError("no progress today")

    async def scenario() -> None:
        async with CalibrationQueue(jobs.quick, ONE, state_manager=Broken(), on_progress=on_progress) as queue:
            await queue.put("SOLUSDT", "1m")
            await queue.start_workers()
            await queue.join()
            assert queue.metrics["tasks_completed"] == 1

    run(scenario)
    assert "no state today" in caplog.text and "no progress today" in caplog.text


def test_a_state_manager_that_hangs_does_not_hold_up_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Assets):
        async def update_asset(self, symbol: str, updates: Any) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr("aione_lab.calibration.queue_listeners.TELL_S", 0.05)

    async def scenario() -> None:
        async with CalibrationQueue(jobs.quick, ONE, state_manager=Hanging()) as queue:
            await queue.put("SOLUSDT", "1m")
            await queue.start_workers()
            await queue.join()
            assert queue.metrics["tasks_completed"] == 1

    run(scenario)


def test_states_arrive_in_order_at_a_slow_state_manager() -> None:
    class Slow(Assets):
        async def update_asset(self, symbol: str, updates: Any) -> None:
            await asyncio.sleep(0.3 if updates["calib_status"] == "queued" else 0.0)
            self.states.append((symbol, updates["calib_status"]))

    assets = Slow()

    async def scenario() -> None:
        async with CalibrationQueue(jobs.quick, ONE, state_manager=assets) as queue:
            await queue.start_workers()
            await queue.put("SOLUSDT", "1m")
            await queue.join()

    run(scenario)
    assert assets.of("SOLUSDT") == ["queued", "in_progress", "completed"]


# --- bad input ---------------------------------------------------------------------------------------------------


def in_main() -> None: ...


in_main.__module__ = "__main__"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: CalibrationQueue(lambda request, report: None), "top level of a module"),
        (lambda: CalibrationQueue(None), "job=None"),
        (lambda: CalibrationQueue(jobs.quick, {"max_concurrent": 3}), "must be a QueueSettings"),
        (lambda: CalibrationQueue(jobs.quick, options=["n_trials"]), "options=['n_trials']: must be a mapping"),
        (lambda: CalibrationQueue(jobs.quick, options={3: 4}), "text keys"),
        (lambda: CalibrationQueue(jobs.quick, options={"f": lambda: 0}), "pickle"),
        (lambda: CalibrationQueue(jobs.quick, store=object()), "must have a method save"),
        (lambda: CalibrationQueue(jobs.quick, state_manager=object()), "must have a method update_asset"),
        (lambda: CalibrationQueue(jobs.quick, on_result="print"), "on_result='print'"),
        (lambda: CalibrationQueue(jobs.quick, on_progress=3), "on_progress=3"),
        (lambda: CalibrationQueue(jobs.quick, clock=12.0), "clock=12.0"),
        (lambda: QueueSettings(max_concurent=2), "did you mean 'max_concurrent'"),
        (lambda: QueueSettings(max_concurrent=0), "QueueSettings.max_concurrent=0"),
        (lambda: QueueSettings(urgency_decay=0.0), "urgency_decay"),
        (lambda: QueueSettings(min_priority=0.6, max_priority=0.5), "greater than min_priority"),
        (lambda: CalibrationRequest("../etc", "1m"), "symbol='../etc'"),
        (lambda: CalibrationRequest("SOLUSDT", "7m"), "interval='7m'"),
        (lambda: CalibrationOutcome("SOLUSDT", "1m", "sell", "x"), "verdict='sell'"),
        (lambda: CalibrationOutcome("SOLUSDT", "1m", "accept", "", {"a": 1}), "sentence"),
        (lambda: CalibrationOutcome("SOLUSDT", "1m", "accept", "x"), "must hold the accepted set"),
        (lambda: CalibrationOutcome("SOLUSDT", "1m", "keep defaults", "x", {}, {"a": object()}), "provenance"),
        (lambda: CalibrationOutcome("SOLUSDT", "1m", "keep defaults", "x", {}, {1: 2}), "text keys"),
    ],
)
def test_bad_input_is_one_line_that_names_it(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(InputError) as refused:
        make()
    assert text in str(refused.value) and "\n" not in str(refused.value)


def test_a_job_of_the_notebook_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "in_main", in_main, raising=False)
    with pytest.raises(InputError, match="cannot see this notebook"):
        CalibrationQueue(in_main)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        (("../../SOLUSDT", "1m", 0.5), {}),
        (("SOL USDT", "1m", 0.5), {}),
        ((None, "1m", 0.5), {}),
        (("SOLUSDT", "1 minute", 0.5), {}),
        (("SOLUSDT", None, 0.5), {}),
        (("SOLUSDT", "1m", float("nan")), {}),
        (("SOLUSDT", "1m", "high"), {}),
        (("SOLUSDT", "1m", True), {}),
        (("SOLUSDT", "1m", 0.5), {"is_urgent": "no"}),
        (("SOLUSDT", "1m", 0.5), {"is_high_priority": 1}),
    ],
)
def test_a_bad_put_leaves_nothing_behind(arguments: tuple, flags: dict) -> None:
    assets = Assets()

    async def scenario() -> None:
        async with CalibrationQueue(jobs.quick, state_manager=assets) as queue:
            with pytest.raises(InputError):
                await queue.put(*arguments, **flags)
            assert queue.metrics["queue_size"] == 0 and queue.progress == {} and assets.states == []
            for bad in (0, -1, 1.5, True):
                with pytest.raises(InputError, match="n="):
                    await queue.start_workers(bad)  # type: ignore[arg-type]
            with pytest.raises(InputError, match="tf="):
                await queue.cancel("SOLUSDT", "x")

    run(scenario)


def test_join_without_workers_says_so_rather_than_wait_for_ever() -> None:
    async def scenario() -> None:
        async with CalibrationQueue(jobs.quick) as queue:
            await queue.join()  # nothing to wait for
            await queue.put("SOLUSDT", "1m")
            with pytest.raises(AioneError, match="start_workers"):
                await queue.join()

    run(scenario)


def test_settings_load_from_toml_and_json(tmp_path: Path) -> None:
    toml, json = tmp_path / "queue.toml", tmp_path / "queue.json"
    toml.write_text("max_concurrent = 3\noptuna_timeout = 60\ndefaults_dir = 'defaults'\n")
    json.write_text('{"max_concurrent": 3, "optuna_timeout": 60, "defaults_dir": "defaults"}')
    assert QueueSettings.load(toml) == QueueSettings.load(json)
    assert QueueSettings.load(toml).optuna_timeout == 60.0
    toml.write_text("urgency_decai = 1.0")
    with pytest.raises(InputError, match="did you mean 'urgency_decay'"):
        QueueSettings.load(toml)


def test_more_workers_than_max_concurrent_are_not_started_and_a_partial_is_a_job(tmp_path: Path) -> None:
    file = tmp_path / "go"

    async def scenario() -> None:
        most = 0
        async with CalibrationQueue(functools.partial(jobs.busy), options={"file": str(file)}) as queue:
            for symbol in ("AUSDT", "BUSDT", "CUSDT"):
                await queue.put(symbol, "1m")
            await queue.start_workers(9)
            await queue.start_workers(1)
            while queue.metrics["active_workers"] < 2:
                await asyncio.sleep(0.01)
            for _ in range(20):
                most = max(most, queue.metrics["active_workers"])
                await asyncio.sleep(0.01)
            file.touch()
            await queue.join()
            assert most == 2 and queue.metrics["tasks_completed"] == 3

    run(scenario)


def test_a_job_does_not_hear_ctrl_c_meant_for_its_parent() -> None:
    """It is in a session of its own, so that an interrupt of a terminal or a notebook does not reach it."""
    pids = []

    async def scenario() -> None:
        started = asyncio.Event()

        def on_progress(symbol: str, tf: str, done: int, total: int) -> None:
            pids.append(done)
            started.set()

        async with CalibrationQueue(jobs.hangs, ONE, on_progress=on_progress) as queue:
            await queue.put("SOLUSDT", "1m")
            await queue.start_workers()
            await started.wait()
            assert os.getsid(pids[0]) == pids[0] != os.getsid(0)

    run(scenario)


def test_what_is_logged_of_a_good_run_is_its_sentence(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with CalibrationQueue(jobs.quick, ONE) as queue:
            await queue.put("SOLUSDT", "1m")
            await queue.start_workers()
            await queue.join()

    with caplog.at_level(logging.INFO):
        run(scenario)
    assert "SOLUSDT 1m: accept. It was tried." in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
