"""A clock that jumps from one appointment to the next as soon as everything else has come to rest.

It stands still while callbacks, loopback sockets or short real timers have work left, so that a day passes in seconds
and a slow machine changes nothing.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Any

SHORT_TIMER = 0.03  # seconds of real time: ccxt's throttle and a fault's Retry-After are waited for
SETTLE = 0.00005


class VirtualClock:
    """``now_ms`` and ``sleep`` like the system's; ``run_until`` lets time pass."""

    def __init__(self, start_ms: int) -> None:
        self.ms = start_ms
        self._due: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now_ms(self) -> int:
        return self.ms

    async def sleep(self, seconds: float) -> None:
        await self.until(self.ms + max(1, round(1000 * seconds)))

    async def until(self, ms: int) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._due, (ms, next(self._order), future))
        await future

    async def run_until(self, end_ms: int) -> None:
        while True:
            await rest()
            while self._due and self._due[0][2].done():  # cancelled
                heapq.heappop(self._due)
            if not self._due or self._due[0][0] > end_ms:
                self.ms = max(self.ms, end_ms)
                return
            due, _, future = heapq.heappop(self._due)
            self.ms = max(self.ms, due)
            future.set_result(None)


class SkewedClock:
    """A machine whose clock is wrong by ``offset_ms``."""

    def __init__(self, clock: VirtualClock, offset_ms: int) -> None:
        self.clock, self.offset_ms = clock, offset_ms

    def now_ms(self) -> int:
        return self.clock.now_ms() + self.offset_ms

    async def sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)


async def rest() -> None:
    """Return when the event loop has nothing to do but to wait."""
    loop: Any = asyncio.get_running_loop()
    quiet = 0
    while quiet < 2:
        await asyncio.sleep(0)
        soon = [h.when() - loop.time() for h in loop._scheduled if not h.cancelled()]
        if loop._ready or loop._selector.select(0):
            quiet = 0
        elif soon and min(soon) < SHORT_TIMER:
            quiet = 0
            await asyncio.sleep(max(0.0, min(soon)))
        else:
            quiet += 1
            if quiet == 1:  # on a busy machine bytes take a moment from one loopback socket to the other
                time.sleep(SETTLE)  # not asyncio's, which rounds up to a millisecond
