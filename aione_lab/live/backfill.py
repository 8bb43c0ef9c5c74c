"""What a feed asks by REST: the bars its websockets missed, history, funding."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.errors import ExchangeError
from aione_lab.lake.absent import Span, missing
from aione_lab.lake.archives import screen_funding
from aione_lab.lake.client import Client, asked_pause
from aione_lab.lake.schema import candle_frame, screen_candles
from aione_lab.live.clock import Clock
from aione_lab.live.feed import Candle, candles_of, no_funding
from aione_lab.live.feed_settings import FeedSettings
from aione_lab.live.sequencer import Sequencer
from aione_lab.units import interval_ms

_SHORTEST_WAIT, _LONGEST_WAIT = 0.25, 30.0  # seconds between two requests for the same bars
_MOST_QUEUED = 20_000  # candles handed out and not taken yet: the past can wait until the reader has caught up


class Backfill:
    """Asks one client for what is missing; ``errors`` holds the last refusal of each symbol not overcome yet."""

    def __init__(
        self,
        client: Client,
        markets: Mapping[str, dict[str, Any]],
        interval: str,
        settings: FeedSettings,
        clock: Clock,
        exchange_now: Callable[[], int],
    ) -> None:
        self._client, self._markets, self._interval = client, markets, interval
        self._settings, self._clock, self._now = settings, clock, exchange_now
        self._step = interval_ms(interval)
        self.errors: dict[str, str] = {}

    async def run(
        self, sequencers: Sequence[Sequencer], hand_on: Callable[[list[Candle]], None], queue: asyncio.Queue[Any]
    ) -> None:
        """Fill every hole as soon as it is due, for ever; a symbol that cannot be had holds up no other."""
        slots = asyncio.Semaphore(self._settings.backfill_workers)
        async with asyncio.TaskGroup() as group:
            for sequencer in sequencers:
                group.create_task(self._keep_filled(sequencer, hand_on, queue, slots))

    async def _keep_filled(
        self,
        sequencer: Sequencer,
        hand_on: Callable[[list[Candle]], None],
        queue: asyncio.Queue[Any],
        slots: asyncio.Semaphore,
    ) -> None:
        """Look after the end of each bar; what cannot be had is asked for again, less and less often."""
        patience = int(1000 * self._settings.patience_seconds)
        failures = 0
        while True:
            pause = _SHORTEST_WAIT
            span = sequencer.missing(self._now(), patience)
            if span is None:
                failures = 0
                self.errors.pop(sequencer.symbol, None)
                pause = max(pause, (sequencer.next + self._step + patience - self._now()) / 1000)
            elif queue.qsize() < _MOST_QUEUED:
                async with slots:
                    asked = await self._fill(sequencer, span, hand_on)
                failures = 0 if sequencer.next > span[0] else failures + 1
                pause = max(asked, min(_LONGEST_WAIT, _SHORTEST_WAIT * 2**failures))
            await self._clock.sleep(pause)

    async def _fill(self, sequencer: Sequencer, span: Span, hand_on: Callable[[list[Candle]], None]) -> float:
        """One request for one symbol; returns the seconds that the exchange asked to wait, mostly none."""
        name = sequencer.symbol
        # The bar before shows whether it was revised meanwhile, the one behind that the last one is final.
        start, end = span[0] - self._step, span[1] + self._step
        limit = min(self._client.page_limit, (end - start) // self._step)
        try:
            page = await self._client.candles(self._markets[name], self._interval, start, end, limit=limit)
        except ExchangeError as error:
            self.errors[name] = str(error)
            return asked_pause(error)
        hand_on(sequencer.answer(candles_of(name, page.set_index(_stamps(page)), "rest"), span[0]))
        return 0.0

    async def history(self, name: str, start: int, end: int) -> pd.DataFrame:
        """Closed candles of [start, end), screened; a hole is asked for twice."""
        step = self._step
        start = -(-start // step) * step
        end = min(end, self._now() // step * step)
        pages = [candle_frame(*_nothing())]
        asked: list[tuple[int, int]] = [(start, end)] if start < end else []
        for _ in range(2):
            for a, b in asked:
                pages.append(await self._span(name, a, b))
            frame = pd.concat([page for page in pages if len(page)] or pages[:1])
            frame = frame[~frame.index.duplicated(keep="last")].sort_index()
            asked = missing(pd.DatetimeIndex(frame.index).as_unit("ms").asi8, step, start, end) if start < end else []
        return frame

    async def _span(self, name: str, start: int, end: int) -> pd.DataFrame:
        """Final candles of [start, end): each page but for its last row, which may be unfinished or stale."""
        pages = [candle_frame(*_nothing())]
        at = start
        while at < end:
            page = await self._client.candles(self._markets[name], self._interval, at, end + self._step)
            newest = int(page["timestamp"].iloc[-1]) if len(page) else at
            final = page[page["timestamp"] < min(newest, end)]
            pages.append(screen_candles(final, self._interval).good)
            if newest > at:
                at = newest
            elif self._client.skips_emptiness or not len(page) and at + self._client.empty_bars * self._step >= end:
                break
            else:
                at += self._client.empty_bars * self._step
        return pd.concat([page for page in pages if len(page)] or pages[:1])

    async def funding(self, name: str, start: int, end: int) -> pd.Series:
        """Funding rates of [start, end); empty where the market has none."""
        rates = await self._client.funding(self._markets[name], start, end)
        if rates is None or not len(rates):
            return no_funding()
        return screen_funding(rates)[0]["funding_rate"]


def _stamps(page: pd.DataFrame) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.to_datetime(page["timestamp"].to_numpy(), unit="ms", utc=True))


def _nothing() -> tuple[Any, dict[str, Any]]:
    return np.empty(0, np.int64), {name: np.empty(0) for name in ("open", "high", "low", "close", "volume")}
