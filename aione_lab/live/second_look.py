"""`Calibrations`: what a session asks of its calibration queue, and what it does when an answer is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from aione_lab.backtest.stages import CALIBRATION_PAUSE_MS, URGENT
from aione_lab.calibration.queue import CalibrationQueue
from aione_lab.calibration.queue_order import COMPLETED, ERROR, EXPIRED, PENDING
from aione_lab.errors import AioneError, CacheError, InputError
from aione_lab.live.assets import AssetStateManager
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import parse_symbol

_log = logging.getLogger(__name__)

REQUESTS = "calibration_request"
"""Channel on which other processes ask: ``{"symbol": "SOLUSDT", "interval": "1m"}``."""
RETRY_S = 1.0


class Calibrations:
    """The state manager of a session's queue, and who asks the queue.

    ``on_accepted(symbol, thresholds)`` gets accepted sets. ``on_done(symbol, alert)`` is called when a calibration that
    an alert asked for is done, with what ``wanted`` was told of that alert.
    """

    def __init__(
        self,
        queue: CalibrationQueue | None,
        assets: AssetStateManager,
        interval: str,
        on_accepted: Callable[[str, Thresholds], None],
        on_done: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._queue, self._assets, self._interval = queue, assets, interval
        self._on_accepted, self._on_done = on_accepted, on_done
        self.waiting: dict[str, Mapping[str, Any]] = {}  # alerts that asked, until they are looked at again
        self._tasks: set[asyncio.Task[Any]] = set()
        self.asked: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        if queue is not None:
            queue.set_state_manager(self)

    @property
    def possible(self) -> bool:
        """Whether there is a queue to ask."""
        return self._queue is not None

    # --- the queue's state manager -----------------------------------------------------------------------------------

    def update_asset(self, symbol: str, updates: Mapping[str, Any], /) -> None:
        """Pass ``calib_status`` on to the assets; an alert that waited for the end of a calibration is looked at.

        What a queue tells of symbols that the session does not have is passed over.
        """
        if self._assets.get(symbol) is None:
            return
        self._assets.update_asset(symbol, updates)
        state = updates.get("calib_status")
        if state in (COMPLETED, ERROR, EXPIRED):
            self.ended[state] = self.ended.get(state, 0) + 1
        if state == COMPLETED and (alert := self.waiting.pop(symbol, None)) is not None:
            self._on_done(symbol, alert)

    def update_calibration(self, symbol: str, params: Mapping[str, Any], /) -> None:
        """An accepted set."""
        if self._assets.get(symbol) is None:
            return
        self._assets.update_calibration(symbol, params)
        self._on_accepted(symbol, Thresholds.from_json(params))

    # --- asking ------------------------------------------------------------------------------------------------------

    def rests(self, symbol: str, time: int) -> bool:
        """Whether an alert at ``time`` (ms) has asked for the symbol too short a time ago."""
        last = self.asked.get(symbol)
        return last is not None and 0 <= time - last < CALIBRATION_PAUSE_MS

    def wanted(self, symbol: str, time: int, stage1: Mapping[str, Any]) -> None:
        """An alert at ``time`` (ms) met default thresholds: ask urgently, once in some hours a symbol."""
        if self._queue is None or self.rests(symbol, time):
            return
        self.asked[symbol] = time
        self.waiting[symbol] = stage1
        self._begin(symbol)

    def ask_again(self) -> None:
        """After a restart: what alerts wait for since a run before, whose queue ended with it."""
        for symbol in self.waiting if self._queue is not None else ():
            self._begin(symbol)

    def _begin(self, symbol: str) -> None:
        task = asyncio.ensure_future(self._ask(symbol))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, symbol: str) -> None:
        """A queue that fails costs a log entry, not the session."""
        try:
            await self.request(symbol)
        except Exception:
            self.asked.pop(symbol, None)
            self.waiting.pop(symbol, None)
            _log.exception("%s: no calibration could be asked for", symbol)

    async def request(self, symbol: str) -> str:
        """Queue an urgent calibration; the ``calib_status`` that results. InputError where there is no queue."""
        name = parse_symbol(symbol)
        if self._assets.get(name) is None:
            raise InputError.unknown("symbol", name, self._assets.snapshot())
        if self._queue is None:
            raise InputError("queue: this session has no calibration queue; give it one to calibrate from here")
        state = await self._queue.put(name, self._interval, URGENT, is_urgent=True)
        if state in (COMPLETED, PENDING):
            self.waiting.pop(name, None)  # nothing will be done
        return state

    async def listen(self, cache: Any) -> None:
        """Take requests of other processes from the cache, for good; a cache that fails is tried again."""
        while self._queue is not None:
            try:
                async with cache.subscribe(REQUESTS) as messages:
                    async for message in messages:
                        await self._take(message.value)
            except CacheError as error:
                _log.info("requests for calibrations do not come through: %s", error)
                await asyncio.sleep(RETRY_S)

    async def _take(self, message: Any) -> None:
        """A message of whoever can write to the cache: anything else than a request is passed over."""
        told = message if isinstance(message, Mapping) else {}
        if told.get("interval") not in (None, self._interval):
            return
        try:
            await self.request(told.get("symbol"))  # type: ignore[arg-type]
        except AioneError as error:
            _log.warning("a request for a calibration was passed over: %s", error)

    async def aclose(self) -> None:
        """Let go of what is being asked."""
        if self._queue is not None:
            self._queue.set_state_manager(self._assets)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
