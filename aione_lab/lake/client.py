"""One exchange behind ccxt, asked politely: every call is rate-limited, retried and comes back checked.

The client works on an exchange object of its own, configured like the one it was given, because ccxt
objects belong to the event loop that first used them.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import difflib
import email.utils
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import ccxt.async_support as accxt
import numpy as np
import pandas as pd
import stamina
from ccxt.async_support.base.exchange import Exchange as AsyncExchange
from ccxt.base import errors as ccxt_errors
from ccxt.base.exchange import Exchange as SyncExchange

from aione_lab.errors import ExchangeError, InputError
from aione_lab.lake.schema import CANDLE_COLUMNS
from aione_lab.units import EARLIEST_MS, HOUR_MS, INTERVALS, LATEST_MS, MINUTE_MS, interval_ms, parse_symbol

T = TypeVar("T")

# stamina warns of every retry; without a handler Python would print that into progress bars and --json output.
logging.getLogger("stamina").addHandler(logging.NullHandler())

ATTEMPTS = 8  # with pauses of 0.5 s doubling to 30 s: an outage of about a minute is bridged
FIRST_ATTEMPTS = 3  # nobody wants to wait a minute to learn that there is no network
RATE_PAUSE = 5.0  # seconds everybody waits after a 429 or 418 that does not say how long
LONGEST_PAUSE = 300.0  # seconds; an exchange that asks for more is not waited for
KLINE_LIMIT = 499  # Binance: up to 499 candles cost weight 2, 500 to 1000 cost 5
UNIFIED_LIMIT = 500
EMPTY_BARS = 100  # what an empty page proves: exchanges cut what is asked for, the most frugal ones to this
FUNDING_LIMIT = 1000
FUNDING_PERIOD_MS = 8 * HOUR_MS  # the longest in use; some contracts pay every 4 h or every hour

# What a caller may have set on a ccxt object and must hold for ours: where it talks to, and through what.
_CARRIED = (
    "urls", "hostname", "options", "headers", "userAgent", "verify", "cafile", "timeout", "rateLimit",
    "proxy", "proxyUrl", "proxy_url", "httpProxy", "http_proxy", "httpsProxy", "https_proxy", "socksProxy",
    "socks_proxy", "aiohttp_proxy", "aiohttp_trust_env", "apiKey", "secret", "password", "uid",
)  # fmt: skip

# Linear klines: open time, prices and volume, then what ccxt's unified candles drop.
_KLINE_FIELDS = {0: "timestamp", 1: "open", 2: "high", 3: "low", 4: "close", 5: "volume"} | {
    7: "quote_volume", 8: "trades", 9: "taker_buy_volume"
}  # fmt: skip

_answer: contextvars.ContextVar[tuple[int, str | None] | None] = contextvars.ContextVar("_answer", default=None)


class RefusedError(ExchangeError):
    """The exchange answered, and asking again would not help: a delisted symbol, a blocked country."""


class _Telling:
    """Mixed into a ccxt class: its errors carry the HTTP status and the Retry-After of the answer they come from.

    ccxt keeps only the last headers of the whole object, which several requests at a time share.
    """

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:
        _answer.set(None)
        try:
            answer = await super().fetch(*args, **kwargs)  # type: ignore[misc]
            if not isinstance(answer, (list, dict)):  # a web page, of which ccxt would make an empty list
                raise ccxt_errors.BadResponse("the answer is no JSON")
            return answer
        except ccxt_errors.BaseError as error:
            status, wait = _answer.get() or (None, None)
            error.http_status, error.retry_after = status, wait
            raise

    def on_rest_response(self, code: int, reason: str, url: str, method: str, headers: Any, *rest: Any) -> Any:
        wait = next((value for name, value in headers.items() if name.lower() == "retry-after"), None)
        _answer.set((code, wait))
        return super().on_rest_response(code, reason, url, method, headers, *rest)  # type: ignore[misc]


def new_exchange(exchange: Any) -> Any:
    """An async ccxt object of our own for a ccxt id or for any ccxt object (sync or async), with its settings."""
    if isinstance(exchange, str):
        kind, config = _exchange_class(exchange), {"aiohttp_trust_env": True}
    elif isinstance(exchange, AsyncExchange):
        kind, config = type(exchange), _settings(exchange)
    elif isinstance(exchange, SyncExchange):
        kind, config = _exchange_class(str(exchange.id)), _settings(exchange)
    else:
        raise InputError.of("exchange", exchange, "must be a ccxt exchange id such as binanceusdm or a ccxt exchange")
    return type(f"Telling_{kind.__name__}", (_Telling, kind), {})({**config, "enableRateLimit": True})


def _exchange_class(name: str) -> type:
    known = list(accxt.exchanges)
    if name.lower() in known:
        found: type = getattr(accxt, name.lower())
        return found
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "must be a ccxt exchange id such as binanceusdm"
    raise InputError.of("exchange", name, f"unknown; {hint}")


def _settings(exchange: Any) -> dict[str, Any]:
    carried = {name: getattr(exchange, name, None) for name in _CARRIED}
    return {name: copy.deepcopy(value) for name, value in carried.items() if value is not None}


class Client:
    """Polite access to one exchange; use as ``async with Client(exchange) as client``.

    Counts ``requests`` (retries included), ``retries`` and ``rate_limited`` answers (418 and 429).
    """

    def __init__(self, exchange: Any) -> None:
        self._ccxt = new_exchange(exchange)
        self.name = str(self._ccxt.id)
        self.requests = self.retries = self.rate_limited = 0
        self._resume_at = 0.0
        self._rich = self.name.startswith("binance")

    async def __aenter__(self) -> Client:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def open(self) -> None:
        """Learn the exchange's markets; ExchangeError when it does not answer."""
        await self.call("its markets", self._load_markets, attempts=FIRST_ATTEMPTS)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._ccxt.close()

    async def _load_markets(self) -> None:
        # An answer that is no list of markets leaves ccxt with none of them, and content.
        if not await _sound(self._ccxt.load_markets(True)):
            raise ccxt_errors.BadResponse("the answer names no markets")

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def configuration(self) -> dict[str, Any]:
        """A copy of the settings another ccxt object needs to talk to the same exchange in the same way."""
        return _settings(self._ccxt)

    def share_markets(self, exchange: Any) -> None:
        """Give ``exchange``, a ccxt object of the same kind, the markets, so that it need not ask for them."""
        exchange.set_markets_from_exchange(self._ccxt)

    async def call(self, what: str, request: Callable[[], Awaitable[T]], attempts: int = ATTEMPTS) -> T:
        """Await ``request()`` with retries; ExchangeError in one line when it stays without an answer.

        Retried: no answer, an answer that is cut or no data, 408, 418, 429 and 5xx. Retry-After is
        obeyed, by every request under way on this client and not only by the one that was told.
        """
        try:
            async for attempt in stamina.retry_context(
                on=self._backoff, attempts=attempts, timeout=None, wait_initial=0.5, wait_max=30.0, wait_jitter=0.5
            ):
                with attempt:
                    await self._pause()
                    self.requests += 1
                    self.retries += attempt.num > 1
                    return await request()
        except ccxt_errors.BaseError as error:
            if _may_pass(error):
                raise ExchangeError(f"{self.name}: no answer to a request for {what}: {_short(error)}") from error
            raise RefusedError(f"{self.name}: refused a request for {what}: {_short(error)}") from error
        raise AssertionError("unreachable: the loop returns or raises")

    def _backoff(self, error: Exception) -> bool | float:
        """Whether to try again: False, True (wait longer every time), or the seconds the exchange asks for."""
        if not _may_pass(error):
            return False
        self.rate_limited += getattr(error, "http_status", None) in (418, 429)
        seconds = _retry_after(getattr(error, "retry_after", None))
        if seconds is None and getattr(error, "http_status", None) in (418, 429):
            seconds = RATE_PAUSE
        if seconds is None:
            return True
        if seconds > LONGEST_PAUSE:
            return False
        self._resume_at = max(self._resume_at, time.monotonic() + seconds)
        return seconds

    async def _pause(self) -> None:
        while (rest := self._resume_at - time.monotonic()) > 0:
            await asyncio.sleep(rest)

    # ---- what can be asked -------------------------------------------------------------------------

    def market(self, symbol: str) -> dict[str, Any]:
        """The ccxt market of an exchange id or ccxt symbol; InputError with the nearest name when there is none.

        Where an id means several markets (spot and perpetual), the exchange's default type decides,
        then the perpetual.
        """
        wanted = parse_symbol(symbol)
        markets = self._ccxt.markets
        if symbol in markets:
            found: dict[str, Any] = markets[symbol]
            return found
        ids = {str(m["id"]).upper(): m for m in markets.values()}
        matches = [m for m in markets.values() if str(m["id"]).upper() == wanted or _lake_symbol(m) == wanted]
        if matches:
            default = self._ccxt.options.get("defaultType", "swap")
            return min(matches, key=lambda m: (m.get("type") != default, m.get("type") != "swap", str(m["symbol"])))
        near = difflib.get_close_matches(wanted, [*ids, *filter(None, map(_lake_symbol, markets.values()))], n=1)
        hint = (
            f"did you mean {near[0]!r}?" if near else f"it lists {len(markets)} markets, such as {next(iter(ids), '')}"
        )
        raise InputError.of("symbol", symbol, f"unknown on {self.name}; {hint}")

    def notes_on(self, market: dict[str, Any]) -> list[str]:
        """What whoever stores this market's candles should know."""
        size = market.get("contractSize")
        if self._rich or not market.get("contract") or size in (None, 1):
            return []
        return [f"volumes are as {self.name} tells them: where those are contracts, one is {size:g} {market['base']}"]

    @property
    def markets(self) -> list[dict[str, Any]]:
        """Every market of the exchange, as ccxt describes it."""
        return list(self._ccxt.markets.values())

    async def unified(self, what: str, method: str, *arguments: Any, attempts: int = ATTEMPTS) -> Any:
        """What ccxt's unified ``method`` (``fetch_tickers``) gives; InputError where the exchange has no such thing."""
        first, *rest = method.split("_")
        if not self._ccxt.has.get(first + "".join(word.title() for word in rest)):
            raise InputError.of("exchange", self.name, f"has no {what}")
        return await self.call(what, lambda: _sound(getattr(self._ccxt, method)(*arguments)), attempts)

    def offers(self, interval: str) -> bool:
        """Whether the exchange has candles of this length."""
        return interval in (self._ccxt.timeframes or {})

    def check_interval(self, interval: str) -> None:
        """InputError when the exchange has no candles of this length."""
        interval_ms(interval)
        offered = [name for name in INTERVALS if self.offers(name)]
        if not self.offers(interval):
            raise InputError.of("interval", interval, f"{self.name} offers {', '.join(offered) or 'no candles'}")

    async def now_ms(self) -> int:
        """The exchange's clock; ours where it does not tell the time."""
        if not self._ccxt.has.get("fetchTime"):
            return int(time.time() * 1000)

        async def ask() -> int:
            now = await _sound(self._ccxt.fetch_time())
            if not isinstance(now, int) or not EARLIEST_MS <= now < LATEST_MS:
                raise ccxt_errors.BadResponse("the answer is no time")
            return now

        return await self.call("its time", ask)

    @property
    def page_limit(self) -> int:
        """Candles asked for in one call."""
        return KLINE_LIMIT if self._rich else UNIFIED_LIMIT

    @property
    def empty_bars(self) -> int:
        """Candles that an empty page says are not there."""
        return KLINE_LIMIT if self._rich else EMPTY_BARS

    @property
    def skips_emptiness(self) -> bool:
        """Whether a page starts at the first candle there is, however far after the time asked for."""
        return self._rich

    async def candles(
        self, market: dict[str, Any], interval: str, start: int, end: int, limit: int | None = None
    ) -> pd.DataFrame:
        """One page of candles with ``start`` ≤ timestamp < ``end`` (ms), sorted, as the exchange tells them.

        Columns ``timestamp`` (int64 ms) and ``CANDLE_COLUMNS``, unscreened. For Binance's linear and
        spot markets the raw klines are read, because the unified ones drop quote volume, number of
        trades and taker volume; elsewhere those are NaN.
        """
        limit = limit or self.page_limit
        what = f"{market['id']} {interval} candles"
        if self._rich and (market.get("linear") or market.get("spot")):
            ask = self._ccxt.fapiPublicGetKlines if market.get("linear") else self._ccxt.publicGetKlines
            query = {
                "symbol": market["id"],
                "interval": interval,
                "startTime": start,
                "endTime": end - 1,
                "limit": limit,
            }
            frame = await self.call(what, lambda: _parsed(ask(dict(query)), _KLINE_FIELDS))
        else:
            fields = {place: name for place, name in _KLINE_FIELDS.items() if place < 6}
            frame = await self.call(
                what, lambda: _parsed(self._ccxt.fetch_ohlcv(market["symbol"], interval, start, limit), fields)
            )
        frame = frame[(frame["timestamp"] >= start) & (frame["timestamp"] < end)]
        return frame.sort_values("timestamp", kind="stable", ignore_index=True)

    async def funding(self, market: dict[str, Any], start: int, end: int) -> pd.DataFrame | None:
        """Funding rates with ``start`` ≤ timestamp < ``end``, unscreened; None where the market has no such thing.

        Columns ``timestamp`` (int64 ms) and ``funding_rate``. Of a range that is too long some exchanges give the
        oldest rates, others the newest: what lies before and after a page is asked for until nothing more comes.
        """
        if not market.get("swap") or not self._ccxt.has.get("fetchFundingRateHistory"):
            return None
        pages, spans = [], [(start, end)]
        while spans:
            first, last = spans.pop()
            page = await self._funding_page(market, first, last)
            pages.append(page)
            if len(page):
                oldest, newest = int(page["timestamp"].iloc[0]), int(page["timestamp"].iloc[-1])
                if newest + 1 < last:
                    spans.append((newest + 1, last))
                if oldest - first > FUNDING_PERIOD_MS + 5 * MINUTE_MS:
                    spans.append((first, oldest))
        rates = pd.concat([page for page in pages if len(page)] or pages[:1], ignore_index=True)
        return rates.sort_values("timestamp", kind="stable", ignore_index=True)

    async def _funding_page(self, market: dict[str, Any], start: int, end: int) -> pd.DataFrame:
        async def ask() -> pd.DataFrame:
            query = {"until": end - 1}
            answer = await _sound(self._ccxt.fetch_funding_rate_history(market["symbol"], start, FUNDING_LIMIT, query))
            rows = [(int(row["timestamp"]), row["fundingRate"]) for row in answer]
            frame = pd.DataFrame(rows, columns=["timestamp", "funding_rate"])
            return frame.astype({"timestamp": "int64", "funding_rate": "float64"})

        frame = await self.call(f"{market['id']} funding rates", ask)
        frame = frame[(frame["timestamp"] >= start) & (frame["timestamp"] < end)]
        return frame.sort_values("timestamp", kind="stable", ignore_index=True)


def _lake_symbol(market: dict[str, Any]) -> str | None:
    try:
        return parse_symbol(str(market["symbol"]))
    except InputError:
        return None


async def _sound(answer: Awaitable[T]) -> T:
    """What a unified call returns; where ccxt stumbles over the answer itself, that is an answer of no use."""
    try:
        return await answer
    except (TypeError, KeyError, AttributeError, IndexError, ValueError) as error:
        raise ccxt_errors.BadResponse(f"the answer cannot be read ({type(error).__name__}: {error})") from None


async def _parsed(answer: Awaitable[Any], fields: dict[int, str]) -> pd.DataFrame:
    """Rows of an answer as floats; an answer that is no list of candles counts as no answer (it is retried)."""
    rows = await _sound(answer)
    try:
        if not isinstance(rows, list):
            raise ValueError("no list")
        raw = [[row[place] for place in fields] for row in rows]
        stamps = np.array([int(row[0]) for row in raw], dtype=np.int64)
        values = np.array([[np.nan if v is None else float(v) for v in row[1:]] for row in raw], dtype=np.float64)
    except (ValueError, TypeError, IndexError, KeyError, OverflowError):
        raise ccxt_errors.BadResponse("the answer is no list of candles") from None
    frame = pd.DataFrame(values.reshape(len(stamps), len(fields) - 1), columns=list(fields.values())[1:])
    frame.insert(0, "timestamp", stamps)
    return frame.reindex(columns=["timestamp", *CANDLE_COLUMNS])


def _may_pass(error: Exception) -> bool:
    """Whether the same request could well succeed a little later."""
    if isinstance(error, ccxt_errors.BadResponse):
        return True
    if not isinstance(error, ccxt_errors.BaseError):
        return False
    status = getattr(error, "http_status", None)
    if status is not None and status != 200:
        return status in (408, 418, 429) or status >= 500
    cut = isinstance(error.__cause__, (aiohttp.ClientError, asyncio.TimeoutError, OSError))
    return cut or isinstance(error, ccxt_errors.OperationFailed)


def _retry_after(text: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3); None without one."""
    if text is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text.strip()):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def asked_pause(error: Exception) -> float:
    """Seconds that the exchange asked to wait in the answer which led to ``error``; 0 when it did not."""
    return _retry_after(getattr(error.__cause__, "retry_after", None)) or 0.0


def _short(error: Exception) -> str:
    """What went wrong, in one line and without the query of the address."""
    wait = getattr(error, "retry_after", None)
    status = getattr(error, "http_status", None)
    cause = error.__cause__
    text = f"{type(cause).__name__}: {cause}" if cause is not None and status is None else str(error)
    text = re.sub(r"\?\S*", "", " ".join(text.split()))
    if status is not None and status != 200 and str(status) not in text:
        text = f"HTTP {status}: {text}"
    text = text if len(text) <= 200 else text[:197] + "..."
    return text + (f" (it asks to wait {wait} s)" if wait is not None else "")
