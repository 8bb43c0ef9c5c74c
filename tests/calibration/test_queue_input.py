"""What the calibration queue takes: its arguments, its settings, requests and outcomes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import queue_jobs as jobs
from queue_tools import Assets, run

from aione_lab.calibration.queue import CalibrationQueue
from aione_lab.calibration.queue_settings import QueueSettings
from aione_lab.calibration.request import CalibrationOutcome, CalibrationRequest
from aione_lab.errors import AioneError, InputError


def in_main() -> None: ...


in_main.__module__ = "__main__"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: CalibrationQueue(lambda request, report: None), "top level of a module"),
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
