"""A session of many symbols: from the last candle of a bar to every decision and to the state in the cache."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.cache import SimpleCacheHandler
from aione_lab.lake.stamps import utc_index
from aione_lab.live.feed import Candle, FeedMetrics, FeedStatus, candles_of, no_funding
from aione_lab.live.session import Session
from benchmarks.market import SYMBOL, Market
from benchmarks.timing import Row, row, yardstick_seconds

GROUP = "live: closed candles as they come"
WARM_UP = 1500
STEP = 60_000
PAUSE_S = 0.25  # between two bars: the publication of one is over when the next comes


class _Bars:
    """A feed that hands out the bars of a year as many symbols, one close after another, and notes when."""

    def __init__(self, market: Market, closes: int) -> None:
        count = market.size.symbols
        self.symbols = (SYMBOL, *(f"SYM{k}USDT" for k in range(1, count)))
        self.interval = "1m"
        self.metrics = FeedMetrics()
        year, length = market.candles, WARM_UP + closes
        self._times = pd.DatetimeIndex(year.index).as_unit("ms").asi8[:length]
        shift = max(1, (len(year) - length) // count)
        self._frames = {name: year[k * shift : k * shift + length] for k, name in enumerate(self.symbols)}
        self.closes, self.handed = closes, 0.0
        self.published: list[float] = []
        self.wrote = asyncio.Event()

    def now_ms(self) -> int:
        return int(self._times[WARM_UP])

    async def history(self, symbol: str, start: int, end: int) -> pd.DataFrame:
        return self._frames[symbol][:WARM_UP].set_axis(utc_index(self._times[:WARM_UP]))

    async def funding(self, symbol: str, start: int, end: int) -> pd.Series:
        return no_funding()

    async def stream(self, after: Mapping[str, int]) -> AsyncGenerator[Candle, None]:
        # Of the closes alone: half a million candles in memory would make the garbage collector part of the figure.
        index = utc_index(self._times[WARM_UP:])
        candles = {
            name: candles_of(name, frame[WARM_UP:].set_axis(index), "stream") for name, frame in self._frames.items()
        }
        for bar in range(self.closes):
            await asyncio.sleep(PAUSE_S)
            self.wrote.clear()
            for name in self.symbols[:-1]:
                yield candles[name][bar]
            self.handed = time.perf_counter()
            yield candles[self.symbols[-1]][bar]
            await self.wrote.wait()

    def status(self) -> dict[str, FeedStatus]:
        return {name: FeedStatus(None, None, False) for name in self.symbols}

    async def aclose(self) -> None:
        pass


def bench_session(market: Market) -> list[Row]:
    """Decisions out, and state published, of a session with an embedded cache."""
    return asyncio.run(_run(market))


async def _run(market: Market) -> list[Row]:
    closes = max(5, market.size.closes // 20)
    feed = _Bars(market, closes)
    decided: list[float] = []
    published: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with SimpleCacheHandler.embedded(Path(folder) / "cache.sqlite") as cache:
            session = Session(feed, cache=cache, reference=SYMBOL)
            decide, write = session.closing.decide, session.assets._publisher._write

            def timed(ended: bool = False) -> int:
                count = decide(ended)
                if count == len(feed.symbols):
                    decided.append(time.perf_counter() - feed.handed)
                return count

            async def noted(*, alive: bool) -> None:
                newest = feed.handed
                await write(alive=alive)
                if len(published) < len(decided) and newest:
                    published.append(time.perf_counter() - newest)
                    feed.wrote.set()

            session.closing.decide, session.assets._publisher._write = timed, noted
            yard = yardstick_seconds()
            await session.run()
    name = f"{len(feed.symbols)} symbols, last candle of a bar"
    tail = [f"99 % below {1e3 * float(np.quantile(taken, 0.99)):.1f} ms" for taken in (decided, published)]
    rows: list[Any] = [
        row(GROUP, f"{name} → decisions, states, journal rows", decided, unit="ms", yard=yard, note=tail[0]),
        row(
            GROUP,
            f"{name} → state published (embedded cache)",
            published,
            unit="ms",
            yard=yard,
            target="≤ 20 ms",
            note=tail[1],
        ),
    ]
    return rows
