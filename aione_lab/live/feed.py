"""What a feed is: closed candles of some symbols, each once, in order, whatever lies behind it."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import pandas as pd

from aione_lab.lake.schema import CANDLE_COLUMNS
from aione_lab.lake.stamps import utc_index

Values = tuple[float, float, float, float, float, float, float, float]
"""Numbers of a candle in the order of ``CANDLE_COLUMNS``."""


@dataclass(frozen=True, slots=True)
class Candle:
    """One closed bar, final; ``timestamp`` is its open time in UTC ms, unknown optional numbers are NaN.

    ``source`` is ``"stream"``, ``"rest"`` (back-filled) or ``"lake"`` (replayed). ``revised`` marks a bar that was
    passed over or handed out before and has other numbers now: for journal and lake, never for the engine.
    """

    symbol: str
    timestamp: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float = math.nan
    trades: float = math.nan
    taker_buy_volume: float = math.nan
    source: str = "stream"
    revised: bool = False

    @property
    def values(self) -> Values:
        """The numbers in the order of ``CANDLE_COLUMNS``."""
        return (
            self.open, self.high, self.low, self.close,
            self.volume, self.quote_volume, self.trades, self.taker_buy_volume,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """How one symbol stands.

    ``last_closed`` is the open time of the last candle handed out (None: none yet), ``age_ms`` how long ago it
    ended by the exchange's clock. ``stale`` is true from 1.5 intervals on. ``error`` is the last refusal of the
    exchange that is not overcome yet.
    """

    last_closed: int | None
    age_ms: int | None
    stale: bool
    gaps_filled: int = 0
    revisions: int = 0
    error: str = ""


@dataclass
class FeedMetrics:
    """Counters of a feed since it was made; ``skew_ms`` is the exchange's clock minus ours."""

    reconnects: int = 0
    gaps_filled: int = 0
    revisions: int = 0
    dropped_duplicates: int = 0
    rejected: int = 0
    bars_absent: int = 0
    requests: int = 0
    rate_limited: int = 0
    skew_ms: int = 0


class Feed(Protocol):
    """Closed candles of ``symbols``; one ``stream`` at a time."""

    @property
    def metrics(self) -> FeedMetrics:
        """Counters since the feed was made."""

    @property
    def interval(self) -> str:
        """Interval of all candles."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols, as exchange ids."""

    def now_ms(self) -> int:
        """The feed's present, UTC ms: the exchange's clock, or where a replay stands."""

    async def history(self, symbol: str, start: int, end: int) -> pd.DataFrame:
        """Closed candles with ``start`` ≤ timestamp < ``end`` (ms), in the shape of ``Lake.candles``."""

    async def funding(self, symbol: str, start: int, end: int) -> pd.Series:
        """Funding rates with ``start`` ≤ timestamp < ``end`` (ms), in the shape of ``Lake.funding``."""

    def stream(self, after: Mapping[str, int]) -> AsyncGenerator[Candle, None]:
        """Each closed candle once, in order for each symbol, from the bar after ``after[symbol]`` on."""

    def status(self) -> dict[str, FeedStatus]:
        """How each symbol stands."""

    async def aclose(self) -> None:
        """End the stream and let go of every connection."""


def same(one: Candle, other: Candle) -> bool:
    """Whether two candles of a bar say the same; a number that one of them does not know is no difference."""
    return all(x == y or x != x or y != y for x, y in zip(one.values, other.values, strict=True))


def candles_of(symbol: str, frame: pd.DataFrame, source: str) -> list[Candle]:
    """Candles of a frame as ``Lake.candles`` returns it."""
    stamps = pd.DatetimeIndex(frame.index).as_unit("ms").asi8.tolist()
    rows = cast("list[Values]", frame[list(CANDLE_COLUMNS)].to_numpy(dtype=float).tolist())
    return [Candle(symbol, stamp, *row, source) for stamp, row in zip(stamps, rows, strict=True)]


def no_funding() -> pd.Series:
    """Funding rates of which none are known."""
    return pd.Series([], index=utc_index(np.empty(0, np.int64)), name="funding_rate", dtype="float64")


def status_of(last_closed: int | None, now_ms: int, step: int, **more: int | str) -> FeedStatus:
    """Status of a symbol whose last candle opened at ``last_closed``, on an exchange whose clock says ``now_ms``."""
    if last_closed is None:
        return FeedStatus(None, None, True, **more)  # type: ignore[arg-type]
    age = max(0, now_ms - last_closed - step)
    return FeedStatus(last_closed, age, 2 * age >= 3 * step, **more)  # type: ignore[arg-type]
