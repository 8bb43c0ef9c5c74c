"""A feed from what is stored: the lake, or the simulated exchange, handed out as if it happened now."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Protocol

import pandas as pd

from aione_lab.errors import AioneError, InputError
from aione_lab.lake.schema import as_list
from aione_lab.lake.simulated import ORIGIN, SimulatedExchange
from aione_lab.lake.store import Lake
from aione_lab.live.clock import Clock, SystemClock
from aione_lab.live.feed import Candle, FeedMetrics, FeedStatus, candles_of, status_of
from aione_lab.units import DAY_MS, interval_ms, iso, parse_symbol, to_ms

_BATCH_BARS = 1440  # read ahead for each symbol
_SIMULATED_DAYS = 30


class ReplayFeed:
    """Candles of a ``Lake`` or ``SimulatedExchange`` between ``start`` and ``end``, all symbols bar by bar.

    ``speed`` is how many times faster than the market they come: 1 is real time, ``math.inf`` as fast as they are
    taken. ``start`` and ``end`` (UTC ms, ISO text or datetime) are None for as far as there are any; a simulated
    exchange, which has no end, goes on for 30 days. Symbols of one bar come in the order given. A bar that is not
    stored is a hole here too. ``history`` and ``funding`` never reach beyond the replay's present.

    Raises InputError for symbols without candles of this interval, an empty range or a speed that is not above 0.
    """

    def __init__(
        self,
        source: Lake | SimulatedExchange,
        symbols: Sequence[str] | str,
        interval: str = "1m",
        *,
        speed: float = math.inf,
        start: Any = None,
        end: Any = None,
        clock: Clock | None = None,
    ) -> None:
        self._step = interval_ms(interval)
        self.interval = interval
        given = [symbols] if isinstance(symbols, str) else as_list(symbols, "symbols", "must be symbols like BTCUSDT")
        self.symbols = tuple(dict.fromkeys(parse_symbol(name, "symbols") for name in given))
        if not self.symbols:
            raise InputError.of("symbols", symbols, "must name at least one symbol")
        if isinstance(speed, bool) or not isinstance(speed, int | float) or not speed > 0:
            raise InputError.of("speed", speed, "must be a number above 0: 1 is real time, inf as fast as possible")
        self._speed = float(speed)
        self._source = _source(source, interval)
        self.origin = self._source.name
        spans = [self._source.span(name) for name in self.symbols]
        first = min(a for a, _ in spans) if start is None else to_ms(start, "start")
        self._start = -(-first // self._step) * self._step
        self._end = self._source.end(self._start, spans) if end is None else to_ms(end, "end")
        if self._end <= self._start and end is None:
            raise InputError.of("start", start, f"must be earlier than the end of the candles, {iso(self._end)}")
        if self._end <= self._start:
            raise InputError.of("end", end, f"must be later than the start, {iso(self._start)}")
        self._now = self._start
        self._clock: Clock = SystemClock() if clock is None else clock
        self._last: dict[str, int] = {}
        self._reading = asyncio.Lock()
        self._pausing: asyncio.Future[None] | None = None
        self._streaming = False
        self._closed = asyncio.Event()
        self.metrics = FeedMetrics()

    def now_ms(self) -> int:
        """Where the replay stands, UTC ms: its start, then the end of the bar handed out last."""
        return self._now

    def move_to(self, time: int) -> None:
        """Let the present be ``time`` (UTC ms) where that is later: what was before is history."""
        self._now = max(self._now, time)

    async def history(self, symbol: str, start: int, end: int) -> pd.DataFrame:
        """Candles with ``start`` ≤ timestamp < ``end`` (ms) that have closed by the replay's present."""
        name, last = self._name(symbol), min(end, self._now // self._step * self._step)
        return await self._read(self._source.candles, name, start, max(start, last))

    async def funding(self, symbol: str, start: int, end: int) -> pd.Series:
        """Funding rates with ``start`` ≤ timestamp < ``end`` (ms), none from after the replay's present."""
        return await self._read(self._source.funding, self._name(symbol), start, max(start, min(end, self._now)))

    async def stream(self, after: Mapping[str, int] | None = None) -> AsyncGenerator[Candle, None]:
        """Each candle once, in order of time, for each symbol from the bar after ``after[symbol]`` (ms) on.

        A symbol that ``after`` does not name begins at the replay's start. Ends with the last candle.
        """
        if self._closed.is_set():
            raise AioneError("this feed is closed")
        if self._streaming:
            raise AioneError("this feed is being streamed already: one stream at a time")
        self._streaming = True
        begin = {name: self._start for name in self.symbols}
        begin |= {name: int(last) // self._step * self._step + self._step for name, last in (after or {}).items()}
        self._now = first = min(begin[name] for name in self.symbols)
        began = self._clock.now_ms()
        try:
            size = self._source.batch or max(self._step, self._end - first)
            for at in range(first, self._end, size):
                batch = await self._batch(begin, at, min(self._end, at + size))
                for stamp in sorted(batch):
                    await self._pause(began + (stamp - first + self._step) / self._speed)
                    if self._closed.is_set():
                        return
                    self._now = stamp + self._step
                    for candle in batch[stamp]:
                        self._last[candle.symbol] = stamp
                        yield candle
        finally:
            self._streaming = False

    def status(self) -> dict[str, FeedStatus]:
        """How each symbol stands in the replay's present."""
        return {name: status_of(self._last.get(name), self._now, self._step) for name in self.symbols}

    async def aclose(self) -> None:
        """End the stream."""
        self._closed.set()
        if self._pausing is not None:
            self._pausing.cancel()

    # ---- inside -----------------------------------------------------------------------------------

    def _name(self, symbol: str) -> str:
        name = parse_symbol(symbol)
        if name not in self.symbols:
            raise InputError.unknown("symbol", name, self.symbols)
        return name

    async def _read(self, read: Any, *args: Any) -> Any:
        async with self._reading:
            return await asyncio.to_thread(read, *args)

    async def _batch(self, begin: Mapping[str, int], at: int, end: int) -> dict[int, list[Candle]]:
        """Candles of [at, end) by open time, the symbols of each bar in their order."""

        def work() -> dict[int, list[Candle]]:
            bars: dict[int, list[Candle]] = {}
            for name in self.symbols:
                if begin[name] < end:
                    frame = self._source.candles(name, max(at, begin[name]), end)
                    for candle in candles_of(name, frame, "lake"):
                        bars.setdefault(candle.timestamp, []).append(candle)
            return bars

        bars: dict[int, list[Candle]] = await self._read(work)
        return bars

    async def _pause(self, until_ms: float) -> None:
        """Wait for a bar's time to come, at any speed giving others their turn."""
        seconds = (until_ms - self._clock.now_ms()) / 1000 if math.isfinite(self._speed) else 0.0
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        self._pausing = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait([self._pausing])
        finally:
            self._pausing.cancel()
            self._pausing = None


class _Source(Protocol):
    name: str
    batch: int | None
    """Milliseconds to read at a time; None: everything at once."""

    def span(self, symbol: str) -> tuple[int, int]:
        """First and last open time."""

    def end(self, start: int, spans: list[tuple[int, int]]) -> int:
        """Where a replay from ``start`` ends that was not told."""

    def candles(self, symbol: str, start: int, end: int) -> pd.DataFrame:
        """Candles with start ≤ timestamp < end; empty for an empty range."""

    def funding(self, symbol: str, start: int, end: int) -> pd.Series:
        """Funding rates with start ≤ timestamp < end."""


class _LakeSource:
    name = "a lake"

    def __init__(self, lake: Lake, interval: str) -> None:
        self._lake, self._interval = lake, interval
        self.batch: int | None = _BATCH_BARS * interval_ms(interval)

    def span(self, symbol: str) -> tuple[int, int]:
        span = self._lake.span(symbol, self._interval)
        if span is None:
            there = ", ".join(self._lake.symbols(self._interval)[:8]) or "none"
            raise InputError.of("symbols", symbol, f"no {self._interval} candles in {self._lake.root} (there: {there})")
        return span

    def end(self, start: int, spans: list[tuple[int, int]]) -> int:
        return max(b for _, b in spans) + interval_ms(self._interval)

    def candles(self, symbol: str, start: int, end: int) -> pd.DataFrame:
        if start >= end:  # an empty range is an error to the lake
            return self._lake.candles(symbol, self._interval, start, start + 1).iloc[:0]
        return self._lake.candles(symbol, self._interval, start, end)

    def funding(self, symbol: str, start: int, end: int) -> pd.Series:
        return self._lake.funding(symbol, start, max(end, start + 1))[: 0 if start >= end else None]


class _SimulatedSource:
    name = "the simulated exchange"

    def __init__(self, exchange: SimulatedExchange, interval: str) -> None:
        self._exchange, self._interval = exchange, interval
        self._origin = to_ms(ORIGIN)
        self.batch: int | None = None  # every call computes a symbol's whole past again

    def span(self, symbol: str) -> tuple[int, int]:
        self._exchange.spec(symbol)
        return self._origin, self._origin

    def end(self, start: int, spans: list[tuple[int, int]]) -> int:
        return start + _SIMULATED_DAYS * DAY_MS

    def candles(self, symbol: str, start: int, end: int) -> pd.DataFrame:
        first, days = self._days(start, end)
        frame = self._exchange.candles(symbol, self._interval, first, days)
        return _cut(frame, start, end)

    def funding(self, symbol: str, start: int, end: int) -> pd.Series:
        first, days = self._days(start, end)
        return _cut(self._exchange.funding(symbol, first, days), start, end)

    def _days(self, start: int, end: int) -> tuple[int, int]:
        first = max(self._origin, start // DAY_MS * DAY_MS)
        return first, max(1, -(-(end - first) // DAY_MS))


def _source(source: Any, interval: str) -> _Source:
    if isinstance(source, Lake):
        return _LakeSource(source, interval)
    if isinstance(source, SimulatedExchange):
        return _SimulatedSource(source, interval)
    raise InputError.of("source", type(source).__name__, "must be a Lake or a SimulatedExchange")


def _cut(data: Any, start: int, end: int) -> Any:
    ms = pd.DatetimeIndex(data.index).as_unit("ms").asi8
    return data[(ms >= start) & (ms < end)]
