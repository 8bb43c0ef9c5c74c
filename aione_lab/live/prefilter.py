"""Fast symbols: the contracts of an exchange that are worth following now, ranked."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import numbers
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from aione_lab.cache.handler import SimpleCacheHandler
from aione_lab.errors import AioneError, CacheError, ExchangeError, InputError, one_line
from aione_lab.lake.client import Client, RefusedError
from aione_lab.settings import Config, NotNegative
from aione_lab.units import HOUR_MS, parse_symbol

logger = logging.getLogger(__name__)

CRITERIA = ("quote_volume", "change", "open_interest", "depth", "atr_percent")
"""What symbols must reach and are ranked by: three in US dollars, two as shares of the price."""

ATR_BARS = 24  # completed hours
BOOK_LEVELS = 500
OLD_MS = HOUR_MS  # a ticker without a trade for so long tells nothing about now
ATTEMPTS = 3
AT_ONCE = 4
RETRY_S = 60.0


class PrefilterSettings(Config):
    """What a symbol must reach to be followed, how many are, and how often that is looked at."""

    quote: Annotated[str, Field(pattern="[A-Z]{3,6}")] = Field("USDT", description="quote currency, worth a US dollar")
    min_quote_volume: NotNegative = Field(20_000_000.0, description="turnover of 24 h, US dollars")
    min_change: NotNegative = Field(0.01, description="|change| over 24 h, share of the price")
    min_open_interest: NotNegative = Field(5_000_000.0, description="open interest, US dollars")
    min_depth: NotNegative = Field(50_000.0, description="orders near the price on the thinner side, US dollars")
    depth_band: Annotated[float, Field(gt=0.0, le=0.1)] = Field(0.002, description="how near, share of the mid price")
    min_atr_percent: NotNegative = Field(0.002, description="mean true range of the last 24 hours ÷ price")
    max_symbols: Annotated[int, Field(ge=1, le=1_000)] = Field(30, description="symbols that are followed")
    max_candidates: Annotated[int, Field(ge=1, le=1_000)] = Field(
        80, description="symbols with the largest turnover that are looked at closely, three requests each"
    )
    refresh_s: Annotated[float, Field(ge=1.0, le=86_400.0)] = Field(600.0, description="seconds between two looks")
    manual: tuple[str, ...] = Field((), description="follow these and ask nothing; empty: choose")

    @field_validator("manual")
    @classmethod
    def _symbols(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(parse_symbol(symbol) for symbol in value))

    @field_validator("max_candidates")
    @classmethod
    def _enough(cls, value: int, info: Any) -> int:
        if value < info.data.get("max_symbols", 1):
            raise ValueError("must be at least max_symbols")
        return value


@dataclass(frozen=True, eq=False)
class FastSymbols:
    """The symbols to follow, best first, and why the others are not among them.

    ``table``: those that reach every criterion, by symbol, with the criteria and ``score`` (mean of their ranks, 1 is
    best in everything). ``left_out``: symbol → reason. ``timestamp``: UTC ms of the look.
    """

    symbols: tuple[str, ...]
    table: pd.DataFrame
    left_out: Mapping[str, str] = field(default_factory=dict)
    timestamp: int = 0
    manual: bool = False

    @property
    def sentence(self) -> str:
        """What was found, in one sentence."""
        if self.manual:
            return f"{len(self.symbols)} symbols are followed, given by hand."
        unknown = sum("unknown" in reason for reason in self.left_out.values())
        looked = len(self.table) + len(self.left_out)
        return (
            f"{len(self.symbols)} symbols are followed; {len(self.table)} of {looked} reach every criterion, "
            f"{unknown} were left out because a number of theirs is not known."
        )


async def find_fast_symbols(exchange: Any, settings: PrefilterSettings | None = None) -> FastSymbols:
    """Look at the linear perpetuals of ``exchange`` (a ccxt id or object) and rank those that reach every criterion.

    A symbol of which a criterion is not known (missing, NaN, a ticker that is old) is left out, and the reason says
    so; so is one whose own requests are refused. Depth is what the first 500 levels of the book show within
    ``depth_band`` of the mid price, at least. Raises ExchangeError where the exchange does not answer, InputError for
    one without tickers, open interest, order books or candles of an hour.
    """
    settings = PrefilterSettings() if settings is None else settings
    if not isinstance(settings, PrefilterSettings):
        raise InputError.of("settings", settings, "must be a PrefilterSettings")
    if settings.manual:
        empty = pd.DataFrame(columns=[*CRITERIA, "score"], index=pd.Index([], name="symbol"), dtype=float)
        return FastSymbols(settings.manual, empty, {}, int(time.time() * 1000), manual=True)
    async with Client(exchange) as client:
        client.check_interval("1h")
        now = await client.now_ms()
        rows, left_out = await _from_tickers(client, settings, now)
        limit = asyncio.Semaphore(AT_ONCE)

        async def look(symbol: str, row: dict[str, Any]) -> None:
            async with limit:
                try:
                    await _look_closely(client, row, settings, now)
                except RefusedError as error:
                    left_out[symbol] = f"unknown: {error}"

        try:
            async with asyncio.TaskGroup() as group:
                for symbol, row in rows.items():
                    group.create_task(look(symbol, row))
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
    return _ranked(rows, left_out, settings, now)


async def _from_tickers(
    client: Client, settings: PrefilterSettings, now: int
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Symbols whose turnover and change are enough, the largest turnover first; and the others with the reason."""
    tickers = await client.unified("tickers", "fetch_tickers", attempts=ATTEMPTS)
    if not isinstance(tickers, dict):
        raise ExchangeError(f"{client.name}: the tickers are no list of tickers")
    rows: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for market in client.markets:
        if not (market.get("swap") and market.get("linear") and market.get("quote") == settings.quote):
            continue
        try:
            symbol = parse_symbol(str(market["symbol"]))
        except InputError:
            continue  # a name that is no symbol of ours
        ticker = tickers.get(market["symbol"]) or {}
        row = {
            "market": market["symbol"],
            "price": _number(ticker.get("last")),
            "quote_volume": _number(ticker.get("quoteVolume")),
            "change": _number(ticker.get("percentage"), least=-math.inf) / 100,
        }
        seen = ticker.get("timestamp")
        if market.get("active") is False:
            left_out[symbol] = "not traded"
        elif not row["price"] > 0:
            left_out[symbol] = "price unknown"
        elif isinstance(seen, int) and now - seen > OLD_MS:
            left_out[symbol] = "everything about now unknown: its last ticker is old"
        elif reason := _short_of(row, settings, ("quote_volume", "change")):
            left_out[symbol] = reason
        else:
            rows[symbol] = row
    if left_out and not rows and all("unknown" in reason for reason in left_out.values()):
        raise ExchangeError(f"{client.name}: none of the tickers can be used")
    largest = sorted(rows, key=lambda symbol: (-rows[symbol]["quote_volume"], symbol))
    for symbol in largest[settings.max_candidates :]:
        left_out[symbol] = f"not among the {settings.max_candidates} with the largest turnover"
    return {symbol: rows[symbol] for symbol in largest[: settings.max_candidates]}, left_out


async def _look_closely(client: Client, row: dict[str, Any], settings: PrefilterSettings, now: int) -> None:
    """Add open interest, depth and ATR to a row; NaN where an answer does not hold them."""
    name = row["market"]
    interest = await client.unified("open interest", "fetch_open_interest", name, attempts=ATTEMPTS)
    value = _number(interest.get("openInterestValue"))
    amount = _number(interest.get("openInterestAmount"))
    row["open_interest"] = value if math.isfinite(value) else amount * row["price"]
    book = await client.unified("order books", "fetch_order_book", name, BOOK_LEVELS, attempts=ATTEMPTS)
    row["depth"] = _depth(book, settings.depth_band)
    since = now // HOUR_MS * HOUR_MS - (ATR_BARS + 1) * HOUR_MS
    bars = await client.candles(client.market(name), "1h", since, now // HOUR_MS * HOUR_MS, ATR_BARS + 1)
    row["atr_percent"] = _atr(bars) / row["price"]


def _depth(book: Mapping[str, Any], band: float) -> float:
    """Price × amount within ``band`` of the mid price on the thinner side; NaN for a book that cannot be one."""
    sides = []
    for name in ("bids", "asks"):
        try:
            levels = np.array([[float(level[0]), float(level[1])] for level in book.get(name) or ()])
        except (TypeError, ValueError, IndexError, KeyError):
            return math.nan
        if not len(levels) or not np.isfinite(levels).all() or not (levels[:, 0] > 0).all() or (levels[:, 1] < 0).any():
            return math.nan
        sides.append(levels)
    bid, ask = float(sides[0][:, 0].max()), float(sides[1][:, 0].min())
    if bid >= ask:
        return math.nan
    mid = (bid + ask) / 2
    near = [levels[np.abs(levels[:, 0] - mid) <= band * mid] for levels in sides]
    return float(min((levels[:, 0] * levels[:, 1]).sum() for levels in near))


def _atr(bars: pd.DataFrame) -> float:
    """Plain mean of the true ranges (Wilder's definition) of 24 hours; NaN where one of them is missing."""
    if len(bars) < ATR_BARS + 1 or (np.diff(bars["timestamp"].to_numpy()) != HOUR_MS).any():
        return math.nan
    before = bars["close"].to_numpy()[:-1]
    high = np.maximum(bars["high"].to_numpy()[1:], before)
    low = np.minimum(bars["low"].to_numpy()[1:], before)
    return float(np.mean(high - low))


def _short_of(row: Mapping[str, Any], settings: PrefilterSettings, criteria: tuple[str, ...]) -> str:
    """The first criterion that is unknown or not reached, as a reason; "" where all are."""
    for name in criteria:
        value, least = row[name], getattr(settings, f"min_{name}")
        words = name.replace("_", " ")
        if not math.isfinite(value):
            return f"{words} unknown"
        if abs(value) < least:
            return f"{words} {abs(value):.6g} below {least:.6g}"
    return ""


def _ranked(
    rows: dict[str, dict[str, Any]], left_out: dict[str, str], settings: PrefilterSettings, now: int
) -> FastSymbols:
    for symbol, row in rows.items():
        if symbol not in left_out and (reason := _short_of(row, settings, CRITERIA)):
            left_out[symbol] = reason
    good = {symbol: [row[name] for name in CRITERIA] for symbol, row in rows.items() if symbol not in left_out}
    table = pd.DataFrame.from_dict(good, orient="index", columns=list(CRITERIA), dtype=float)
    table.index.name = "symbol"
    table["score"] = table.abs().rank(pct=True).mean(axis=1)
    table = table.sort_index().sort_values("score", ascending=False, kind="stable")
    symbols = tuple(table.index[: settings.max_symbols])
    return FastSymbols(symbols, table, dict(sorted(left_out.items())), now)


class Prefilter:
    """Looks for fast symbols every ``refresh_s`` seconds in a task of its own, and writes the list to the cache.

    The first look is at once, unless ``refresh`` has looked before.
    ``latest`` is what was found last, None before the first look has ended. While the exchange or the cache fails the
    list before stays, and ``degraded`` says why. ``on_change(found)``, plain or a coroutine function, is told of a list
    with other symbols in it; where it raises, at each look again until it does not.
    """

    def __init__(
        self,
        exchange: Any,
        settings: PrefilterSettings | None = None,
        cache: SimpleCacheHandler | None = None,
        *,
        on_change: Callable[[FastSymbols], Any] | None = None,
    ) -> None:
        self.settings = PrefilterSettings() if settings is None else settings
        if not isinstance(self.settings, PrefilterSettings):
            raise InputError.of("settings", settings, "must be a PrefilterSettings")
        if on_change is not None and not callable(on_change):
            raise InputError.of("on_change", on_change, "must be a function or a coroutine function")
        self._exchange, self._cache, self._on_change = exchange, cache, on_change
        self.latest: FastSymbols | None = None
        self.degraded = ""
        self._told: set[str] | None = None  # the list that on_change took last
        self._task: asyncio.Task[None] | None = None

    async def refresh(self) -> FastSymbols:
        """Look now; errors as of ``find_fast_symbols`` and of ``on_change``. A cache that fails costs a log entry."""
        found = await find_fast_symbols(self._exchange, self.settings)
        self.latest = found
        self.degraded = ""
        await self._write()
        if self._on_change is not None and self._told != set(found.symbols):
            result = self._on_change(found)
            if inspect.isawaitable(result):
                await result
            self._told = set(found.symbols)
        return found

    async def _write(self) -> None:
        if self._cache is not None and self.latest is not None:
            ttl = 3 * self.settings.refresh_s
            try:
                await self._cache.set_fast_symbols(self.latest.symbols, ttl)
            except CacheError as error:
                self.degraded = str(error)
                logger.warning("the fast symbols could not be written: %s", error)

    def start(self) -> None:
        """Begin, in the running event loop; nothing happens when it has."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="prefilter")

    async def aclose(self) -> None:
        """Stop looking; the list in the cache expires by itself."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self) -> None:
        wait = 0.0 if self.latest is None else self.settings.refresh_s
        while True:
            await asyncio.sleep(wait)
            wait = self.settings.refresh_s
            try:
                found = await self.refresh()
                logger.info("%s", found.sentence)
            except Exception as error:  # the next look may go well, whatever this one met
                own = isinstance(error, AioneError)
                logger.warning("no look for fast symbols: %s", error, exc_info=not own)
                await self._write()  # the list before, so that it does not expire
                self.degraded = one_line(error)
                wait = min(wait, RETRY_S)


def _number(value: Any, least: float = 0.0) -> float:
    """Float of a number ≥ ``least``; NaN for everything else."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return math.nan
    number = float(value)
    return number if math.isfinite(number) and number >= least else math.nan


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
