"""Who hears of the queue: the state of the assets, the store, and the caller's own functions."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aione_lab.calibration.request import CalibrationOutcome
from aione_lab.errors import InputError

logger = logging.getLogger(__name__)

TELL_S = 5.0
"""Seconds that a state update may take; a state manager that hangs must not hold up the queue."""


class StateManager(Protocol):
    """What the queue needs of the state of the assets; plain methods and coroutines are both taken."""

    def update_asset(self, symbol: str, updates: Mapping[str, Any], /) -> Any:
        """Take over fields of a symbol; the queue writes ``calib_status``."""

    def update_calibration(self, symbol: str, params: Mapping[str, Any], /) -> Any:
        """Take over an accepted set of thresholds in its flat JSON form."""


class OutcomeStore(Protocol):
    """Where accepted outcomes are kept; a plain method or a coroutine."""

    def save(self, outcome: CalibrationOutcome, /) -> Any:
        """Keep an accepted outcome; an exception means that it is not kept, and it is used nowhere then."""


class Listeners:
    """All who are told something, each of them optional. States come in the order in which they came about."""

    def __init__(
        self,
        store: OutcomeStore | None,
        state_manager: StateManager | None,
        on_result: Callable[[CalibrationOutcome], Any] | None,
        on_progress: Callable[[str, str, int, int], Any] | None,
    ) -> None:
        if store is not None and not callable(getattr(store, "save", None)):
            raise InputError.of("store", store, "must have a method save(outcome)")
        for name, value in (("on_result", on_result), ("on_progress", on_progress)):
            if value is not None and not callable(value):
                raise InputError.of(name, value, "must be a function or a coroutine function")
        self._store, self._on_result, self._on_progress = store, on_result, on_progress
        self.set_state_manager(state_manager)
        self._in_turn = asyncio.Lock()  # a fair one

    def set_state_manager(self, manager: StateManager | None) -> None:
        """Tell ``manager`` from now on; None: nobody."""
        for name in ("update_asset", "update_calibration"):
            if manager is not None and not callable(getattr(manager, name, None)):
                raise InputError.of("state_manager", manager, f"must have a method {name}")
        self._state_manager = manager

    async def state(self, symbol: str, state: str) -> None:
        """Tell the state manager; what it makes of it is its own business."""
        async with self._in_turn:
            if self._state_manager is None:
                return
            try:
                async with asyncio.timeout(TELL_S):
                    await _called(self._state_manager.update_asset, symbol, {"calib_status": state})
            except Exception:
                logger.exception("%s: the state manager did not take calib_status=%s", symbol, state)

    async def progress(self, symbol: str, tf: str, done: int, total: int) -> None:
        """Tell how far a job is; a function that fails costs a log entry."""
        if self._on_progress is not None:
            try:
                await _called(self._on_progress, symbol, tf, done, total)
            except Exception:
                logger.exception("%s %s: on_progress failed", symbol, tf)

    async def accepted(self, outcome: CalibrationOutcome) -> None:
        """Hand on an accepted outcome. The first that fails ends it: nobody uses what the store did not keep."""
        if self._store is not None:
            await _called(self._store.save, outcome)
        if self._on_result is not None:
            await _called(self._on_result, outcome)
        if self._state_manager is not None:
            await _called(self._state_manager.update_calibration, outcome.symbol, dict(outcome.thresholds))


async def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    """Result of a function or a coroutine function."""
    result = function(*arguments)
    return await result if inspect.isawaitable(result) else result
