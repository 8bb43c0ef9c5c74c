"""The time a feed lives by; tests put a clock of their own in its place."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits."""

    def now_ms(self) -> int:
        """UTC milliseconds."""

    async def sleep(self, seconds: float) -> None:
        """Wait so long by this clock."""


class SystemClock:
    """The clock of this machine."""

    def now_ms(self) -> int:
        """UTC milliseconds."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds."""
        await asyncio.sleep(seconds)
