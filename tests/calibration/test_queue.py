"""The calibration queue: what becomes of results, order and duplicates, and a loop that is never held up."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import queue_jobs as jobs
from queue_tools import ONE, Assets, Clock, PlainAssets, gone, run

from aione_lab.calibration.queue import CalibrationQueue
from aione_lab.calibration.queue_settings import QueueSettings
from aione_lab.calibration.request import CalibrationOutcome

# --- what becomes of a result ----------------------------------------------------------------------------------------


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


# --- order, duplicates, how often ------------------------------------------------------------------------------------


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


# --- the event loop --------------------------------------------------------------------------------------------------


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


def test_an_alert_of_stage_two_asks_with_the_arguments_that_put_takes() -> None:
    """``Stage2Processor`` calls ``put(symbol, interval, URGENT, is_urgent=True)`` on whatever queue it is given."""
    parameters = inspect.signature(CalibrationQueue.put).parameters
    assert list(parameters) == ["self", "symbol", "tf", "priority", "is_high_priority", "is_urgent"]
    assert parameters["is_high_priority"].default is parameters["is_urgent"].default is False
