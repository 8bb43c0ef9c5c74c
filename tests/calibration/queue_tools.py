"""What the tests of the calibration queue share."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aione_lab.calibration.queue_settings import QueueSettings

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
