"""What a session's windows are filled with before its first candle: the lake, and what it lacks from the feed."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import numpy as np
import pandas as pd

from aione_lab.lake.absent import missing
from aione_lab.lake.schema import CANDLE_COLUMNS, candle_frame
from aione_lab.lake.store import Lake
from aione_lab.live.feed import Feed, no_funding
from aione_lab.units import DAY_MS, interval_ms

LAKE_DAYS = 31
"""Days before the present that are read from the lake: enough for daily levels of 30 days."""
FEED_DAYS = 2
"""Days that are asked of the feed where the lake has none: signals need one, nothing waits for more."""


class Past(NamedTuple):
    """Candles and funding of a symbol up to the session's present; ``fetched`` are those that the lake did not have."""

    candles: pd.DataFrame
    funding: pd.Series
    fetched: pd.DataFrame
    fetched_funding: pd.Series


def no_candles() -> pd.DataFrame:
    """A candle frame without rows."""
    return candle_frame(np.empty(0, np.int64), {name: np.empty(0) for name in CANDLE_COLUMNS})


async def past_of(feed: Feed, lake: Lake | None, symbol: str, now: int) -> Past:
    """The closed candles of ``symbol`` before ``now`` (ms) and its funding rates; holes are asked for once.

    Raises what the feed raises where the exchange cannot be reached.
    """
    step = interval_ms(feed.interval)
    end = now // step * step
    start = end - LAKE_DAYS * DAY_MS
    stored, rates = no_candles(), no_funding()
    if lake is not None:
        rates = await asyncio.to_thread(lake.funding, symbol, start, now)
        if await asyncio.to_thread(lake.span, symbol, feed.interval) is not None:
            stored = await asyncio.to_thread(lake.candles, symbol, feed.interval, start, end)
    stamps = pd.DatetimeIndex(stored.index).as_unit("ms").asi8
    ask_from = end - FEED_DAYS * DAY_MS
    if len(stamps):
        ask_from = min(ask_from, int(stamps[-1]) + step)
    pages = [await feed.history(symbol, a, b) for a, b in missing(stamps, step, ask_from, end)]
    pages = [page for page in pages if len(page)]
    fetched = pd.concat(pages) if pages else no_candles()
    candles = stored if not pages else pd.concat([stored, fetched] if len(stored) else [fetched]).sort_index()
    known = int(pd.DatetimeIndex(rates.index).as_unit("ms").asi8[-1]) + 1 if len(rates) else start
    more = await feed.funding(symbol, known, now) if known < now else no_funding()
    funding = rates if not len(more) else pd.concat([rates, more]) if len(rates) else more
    return Past(candles, funding, fetched, more)
