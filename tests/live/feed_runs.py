"""Running an ExchangeFeed against the fake exchange, in virtual time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from fake_binance import MINUTE_MS, FakeBinance, WireFault
from virtual_clock import SkewedClock, VirtualClock

from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.live.exchange_feed import ExchangeFeed
from aione_lab.live.feed import Candle
from aione_lab.live.feed_settings import FeedSettings

NAMES = ("BTCUSDT", "SOLUSDT", "XMRUSDT")
BEFORE = 120  # bars the exchange already has when a run begins


@functools.cache
def market(days: int = 2, names: Sequence[str] = NAMES) -> dict[str, pd.DataFrame]:
    exchange = SimulatedExchange(seed=7)
    return {name: exchange.candles(name, days=days) for name in names}


def stamps(frame: pd.DataFrame) -> np.ndarray:
    return pd.DatetimeIndex(frame.index).as_unit("ms").asi8


@dataclass
class Run:
    """A feed at work; ``got`` is what it handed out, ``at`` when (virtual ms)."""

    server: FakeBinance
    feed: ExchangeFeed
    clock: VirtualClock
    local: SkewedClock
    start: int
    got: list[Candle] = field(default_factory=list)
    at: list[int] = field(default_factory=list)

    def handed(self, symbol: str) -> list[Candle]:
        return [candle for candle in self.got if candle.symbol == symbol and not candle.revised]

    async def bars(self, count: float) -> None:
        """Let so many bars pass from the start of the run on, and half of the next one."""
        await self.clock.run_until(self.start + int((count + 0.5) * MINUTE_MS))

    async def finish(self, count: int) -> None:
        """``bars``, and on a machine that lags behind a little more, until each symbol has had so many."""
        await self.bars(count)
        for _ in range(100):
            if all(len(self.handed(symbol)) >= count for symbol in self.feed.symbols):
                return
            await asyncio.sleep(0.05)
            await self.clock.run_until(self.clock.now_ms() + 250)

    def check(self, count: int, columns: int = 8, more: int = 0) -> None:
        """Each symbol's first ``count`` bars were handed out once, in order, and with the bytes of the truth.

        ``more``: so many may have come after them.
        """
        for symbol, book in self.server.books.items():
            handed = self.handed(symbol)
            assert count <= len(handed) <= count + more, symbol
            handed = handed[:count]
            first = int(np.searchsorted(book.ms, self.start))
            assert [c.timestamp for c in handed] == book.ms[first : first + count].tolist(), symbol
            values = np.array([c.values[:columns] for c in handed])
            assert values.tobytes() == book.values[first : first + count, :columns].tobytes(), symbol


@asynccontextmanager
async def running(
    faults: Sequence[WireFault] = (),
    frames: Mapping[str, pd.DataFrame] | None = None,
    *,
    skew_ms: int = 0,
    settings: FeedSettings | None = None,
    after: Mapping[str, int] | None = None,
    plain: bool = False,
    **more: Any,
) -> AsyncIterator[Run]:
    """A feed of all symbols of ``frames`` that streams while time passes with ``run.bars(...)``."""
    frames = market() if frames is None else frames
    start = int(stamps(next(iter(frames.values())))[BEFORE])
    clock = VirtualClock(start + 5_000)
    local = SkewedClock(clock, skew_ms)
    async with FakeBinance(frames, clock, faults, **more) as server:
        feed = ExchangeFeed(server.ccxt(), list(frames), clock=local, settings=settings)
        feed._client._rich = not plain  # REST as from any other exchange: no end, no extra columns
        run = Run(server, feed, clock, local, start)

        async def read() -> None:
            async for candle in feed.stream({name: start - MINUTE_MS for name in frames} if after is None else after):
                run.got.append(candle)
                run.at.append(clock.now_ms())

        reading = asyncio.create_task(read())
        try:
            yield run
            await feed.aclose()
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await feed.aclose()
