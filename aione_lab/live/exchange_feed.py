"""A feed from an exchange: websockets for speed, REST for what they miss, one sequence for the engine."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pandas as pd

from aione_lab.errors import AioneError, ExchangeError, InputError
from aione_lab.lake.client import Client
from aione_lab.lake.schema import as_list
from aione_lab.live.backfill import Backfill
from aione_lab.live.clock import Clock, SystemClock
from aione_lab.live.feed import Candle, FeedMetrics, FeedStatus, status_of
from aione_lab.live.feed_settings import FeedSettings
from aione_lab.live.sequencer import Sequencer
from aione_lab.live.streams import CandleStream, candle_stream, flagged
from aione_lab.units import interval_ms, parse_symbol

_log = logging.getLogger(__name__)

_LONGEST_PAUSE = 30.0  # seconds between two attempts to connect
_QUICK_MS = 1_000  # an answer of the exchange's clock within this time is good enough
_SKEW_PAUSE = 5.0  # seconds between two looks at the exchange's clock, however doubtful ours is
_LIVED_MS = 60_000  # a connection that lived so long was a good one: the next attempt comes at once
_FILLED_IN_A_ROW = 3  # bars of one symbol that REST had to fill: its subscription is dead, whatever others say
_COUNTS = {
    "gaps_filled": "gaps_filled",
    "revisions": "revisions",
    "dropped_duplicates": "duplicates",
    "rejected": "rejected",
    "bars_absent": "absent",
}
_REFRESH_BARS = 5  # but the whole connection is not made anew for it more often than this


class ExchangeFeed:
    """Closed candles of ``symbols`` from an exchange, each once, in order, whatever the network does.

    ``exchange`` is a ccxt id or a ccxt exchange object, of which the settings are taken (addresses, proxies). With
    Binance a bar is final by the exchange's own flag; with others when the next bar begins. What the websocket
    does not bring within ``settings.patience_seconds`` of a bar's end is asked for by REST, and nothing later is
    handed out before. A dead or silent connection is made anew. Use from one event loop, end with ``aclose``.

    Raises InputError for symbols or intervals the exchange does not have and ExchangeError when it cannot be
    reached, both from the first call that needs it; later failures are ridden out and seen in ``status``.
    """

    def __init__(
        self,
        exchange: Any = "binanceusdm",
        symbols: Sequence[str] | str = ("BTCUSDT",),
        interval: str = "1m",
        *,
        settings: FeedSettings | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._step = interval_ms(interval)
        self.interval = interval
        given = [symbols] if isinstance(symbols, str) else as_list(symbols, "symbols", "must be symbols like BTCUSDT")
        self._given = {parse_symbol(name, "symbols"): name for name in given}
        if not self._given:
            raise InputError.of("symbols", symbols, "must name at least one symbol")
        self.symbols = tuple(self._given)
        self.settings = FeedSettings() if settings is None else settings
        if not isinstance(self.settings, FeedSettings):
            raise InputError.of("settings", settings, "must be FeedSettings")
        self._clock: Clock = SystemClock() if clock is None else clock
        self._client = Client(exchange)
        self.origin = self._client.name
        self._markets: dict[str, dict[str, Any]] = {}
        self._sequencers: dict[str, Sequencer] = {}
        self._past = dict.fromkeys(_COUNTS, 0)
        self._doubt = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._queue: asyncio.Queue[Candle | BaseException | None] = asyncio.Queue()
        self._streams: list[CandleStream] = []
        self._backfill: Backfill | None = None
        self._streaming = self._closed = False
        self._opening = asyncio.Lock()
        self._metrics = FeedMetrics()

    # ---- what a session asks for ------------------------------------------------------------------

    def now_ms(self) -> int:
        """The exchange's time, UTC ms; until a first call has reached it, this machine's."""
        return self._exchange_now()

    async def history(self, symbol: str, start: int, end: int) -> pd.DataFrame:
        """Closed candles with ``start`` ≤ timestamp < ``end`` (ms), in the shape of ``Lake.candles``.

        Ends earlier where the exchange does not have the last bars yet, and has a hole where it has none.
        """
        backfill = await self._open()
        return await backfill.history(self._name(symbol), start, end)

    async def funding(self, symbol: str, start: int, end: int) -> pd.Series:
        """Funding rates with ``start`` ≤ timestamp < ``end`` (ms), a Series like ``Lake.funding``."""
        backfill = await self._open()
        return await backfill.funding(self._name(symbol), start, end)

    async def stream(self, after: Mapping[str, int] | None = None) -> AsyncGenerator[Candle, None]:
        """Each closed candle once, in order for each symbol, from the bar after ``after[symbol]`` (ms) on.

        A symbol that ``after`` does not name begins with the bar under way. A hole is left only where the exchange
        said twice that it has no such bar. Candles with ``revised=True`` are corrections of earlier ones.
        One stream at a time. Ends after ``aclose``.
        """
        backfill = await self._open()
        if self._streaming:
            raise AioneError("this feed is being streamed already: one stream at a time")
        self._streaming = True
        self._past = {name: getattr(self.metrics, name) for name in _COUNTS}
        self._queue = asyncio.Queue()
        now = self._exchange_now()
        for name in self.symbols:
            last = (after or {}).get(name, now // self._step * self._step - self._step)
            self._sequencers[name] = Sequencer(name, self._step, last, flagged=flagged(self._client))
        size = self.settings.streams_per_connection
        try:
            for at in range(0, len(self.symbols), size):
                markets = {name: self._markets[name] for name in self.symbols[at : at + size]}
                made = candle_stream(self._client, markets, self.interval, self._deliver, self._clock)
                self._streams.append(made)
                self._spawn(self._keep(made, markets))
            self._spawn(backfill.run(list(self._sequencers.values()), self._hand_on, self._queue))
            self._spawn(self._measure_skew())
            while (item := await self._queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            await self._stop()

    def status(self) -> dict[str, FeedStatus]:
        """How each symbol stands now."""
        now = self._exchange_now()
        errors = self._backfill.errors if self._backfill is not None else {}
        out = {}
        for name in self.symbols:
            seen = self._sequencers.get(name)
            last, counts = None, {"gaps_filled": 0, "revisions": 0}
            if seen is not None:
                last = seen.next - self._step if seen.last_closed is None else seen.last_closed
                counts = {"gaps_filled": seen.gaps_filled, "revisions": seen.revisions}
            out[name] = status_of(last, now, self._step, error=errors.get(name, ""), **counts)
        return out

    @property
    def metrics(self) -> FeedMetrics:
        """Counters since the feed was made."""
        counted = self._metrics
        for name, attribute in _COUNTS.items():
            now = sum(getattr(sequencer, attribute) for sequencer in self._sequencers.values())
            setattr(counted, name, self._past[name] + now)
        counted.requests, counted.rate_limited = self._client.requests, self._client.rate_limited
        return counted

    async def aclose(self) -> None:
        """End the stream and let go of every connection; the feed cannot be used again."""
        self._closed = True
        self._queue.put_nowait(None)
        await self._stop()
        await self._client.close()

    # ---- inside -----------------------------------------------------------------------------------

    async def _open(self) -> Backfill:
        async with self._opening:
            if self._closed:
                raise AioneError("this feed is closed")
            if self._backfill is None:
                if "ccxt.pro" not in sys.modules:  # it loads every exchange, which takes a second
                    await asyncio.to_thread(importlib.import_module, "ccxt.pro")
                await self._client.open()
                self._client.check_interval(self.interval)
                self._markets = {name: self._client.market(given) for name, given in self._given.items()}
                await self._compare_clocks()
                self._backfill = Backfill(
                    self._client, self._markets, self.interval, self.settings, self._clock, self._exchange_now
                )
            return self._backfill

    def _name(self, symbol: str) -> str:
        name = parse_symbol(symbol)
        if name not in self._given:
            raise InputError.unknown("symbol", name, self.symbols)
        return name

    def _exchange_now(self) -> int:
        return self._clock.now_ms() + self._metrics.skew_ms

    def _deliver(self, candle: Candle, closed: bool) -> None:
        """A candle from a websocket; one from the future is nonsense, or our clock is, and must not wait its time."""
        sequencer = self._sequencers[candle.symbol]
        if candle.timestamp > self._exchange_now() + self._step:
            sequencer.rejected += 1
            self._doubt.set()
            return
        self._hand_on(sequencer.update(candle, closed))

    def _hand_on(self, candles: list[Candle]) -> None:
        for candle in candles:
            self._queue.put_nowait(candle)

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Nothing that runs behind the stream may die unseen: its error ends the stream."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is not None:
            self._queue.put_nowait(error)

    async def _stop(self) -> None:
        tasks, self._tasks = list(self._tasks), set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        streams, self._streams = self._streams, []
        await asyncio.gather(*(stream.aclose() for stream in streams))
        self._streaming = False

    async def _keep(self, stream: CandleStream, names: Mapping[str, Any]) -> None:
        """Keep one websocket alive: connect, watch, connect again."""
        failures = 0
        while True:
            since = self._clock.now_ms()
            try:
                await self._run(stream, names)
            except ExchangeError as error:
                _log.log(logging.INFO if failures < 3 else logging.WARNING, "%s; connecting again", error)
            for name in names:
                self._sequencers[name].disconnected()
            self._metrics.reconnects += 1
            failures = 0 if stream.heard_ms - since >= _LIVED_MS else failures + 1
            await self._clock.sleep(min(_LONGEST_PAUSE, 0.5 * 2**failures))

    async def _run(self, stream: CandleStream, names: Mapping[str, Any]) -> None:
        """Listen until the connection is lost or has fallen silent."""
        running = asyncio.ensure_future(stream.run())
        watching = asyncio.ensure_future(self._watch(stream, names))
        try:
            await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            watching.result()
        finally:
            for task in (running, watching):
                task.cancel()
            await asyncio.gather(running, watching, return_exceptions=True)

    async def _watch(self, stream: CandleStream, names: Mapping[str, Any]) -> None:
        """Return when nothing comes any more, on the whole connection or for one of its symbols."""
        silence = self.settings.silence_seconds
        since = self._clock.now_ms()
        while True:
            await self._clock.sleep(silence / 4)
            now = self._clock.now_ms()
            if now - stream.heard_ms >= 1000 * silence:
                raise ExchangeError(f"{self._client.name}: nothing came by websocket for {silence:g} s")
            if now - since >= _REFRESH_BARS * self._step:
                for name in names:
                    if self._sequencers[name].filled_in_a_row >= _FILLED_IN_A_ROW:
                        raise ExchangeError(f"{self._client.name}: no {name} candles came by websocket")

    async def _measure_skew(self) -> None:
        while True:
            timer, doubt = asyncio.ensure_future(self._wait_for_skew()), asyncio.ensure_future(self._doubt.wait())
            try:
                await asyncio.wait([timer, doubt], return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                doubt.cancel()
            try:
                await self._compare_clocks()
            except ExchangeError as error:
                _log.info("%s", error)
            await self._clock.sleep(_SKEW_PAUSE)
            self._doubt.clear()

    async def _wait_for_skew(self) -> None:
        await self._clock.sleep(self.settings.skew_seconds)

    async def _compare_clocks(self) -> None:
        """Ask the exchange for the time; an answer that took long, retries perhaps, tells little."""
        best = None
        for _ in range(3):
            before = self._clock.now_ms()
            theirs = await self._client.now_ms()
            took = self._clock.now_ms() - before
            if best is None or took < best:
                best, self._metrics.skew_ms = took, theirs - before - took // 2
            if took <= _QUICK_MS:
                return
