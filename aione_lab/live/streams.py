"""Candles over one websocket of ccxt.pro: with the closed flag where the exchange is Binance, without it elsewhere.

ccxt's unified websocket candles drop the flag, the quote volume, the trades and the taker volume; so for Binance the
kline message is read where ccxt hands it to ``handle_ohlcv``. ccxt reconnects when it is asked again, but never
back-fills, and of some ways to die it says nothing: what is lost, and whether anything still comes, is the
business of the feed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from aione_lab.errors import ExchangeError, InputError
from aione_lab.lake.client import Client
from aione_lab.live.clock import Clock
from aione_lab.live.feed import Candle

_log = logging.getLogger(__name__)

Deliver = Callable[[Candle, bool], None]
"""Takes a candle from the stream, and whether the exchange flagged it as closed."""

Markets = Mapping[str, dict[str, Any]]
"""ccxt's market of each of our symbols."""

# What ccxt keeps about the websockets of one object among the options, which several objects must not share.
_OWN_OPTIONS = ("streamBySubscriptionsHash", "streamIndex", "numSubscriptionsByStream", "requestId")
_CLOSING_SECONDS = 2.0


class _Watching:
    """Mixed into a ccxt.pro class: says when it hears something, when its connection is lost, what klines came."""

    on_heard: Callable[[], None]
    on_lost: Callable[[str], None]
    on_kline: Callable[[dict[str, Any]], None] | None = None

    def handle_message(self, client: Any, message: Any) -> None:
        if not self._is_current(client):
            return
        self.on_heard()
        try:
            super().handle_message(client, message)  # type: ignore[misc]
        except Exception as error:  # would end ccxt's receive loop without a word
            _log.warning("a websocket message cannot be read (%s: %s)", type(error).__name__, error)

    def handle_ohlcv(self, client: Any, message: Any) -> None:
        if self.on_kline is None or client.futures:  # somebody waits for ccxt's own candles
            super().handle_ohlcv(client, message)  # type: ignore[misc]
        if self.on_kline is not None:
            self.on_kline(message["k"])

    def on_error(self, client: Any, error: Any) -> None:
        if self._is_current(client):
            super().on_error(client, error)  # type: ignore[misc]
            self.on_lost(str(error))

    def on_close(self, client: Any, code: Any) -> None:
        if self._is_current(client):
            super().on_close(client, code)  # type: ignore[misc]
            self.on_lost(f"closed by the exchange ({code})")

    def _is_current(self, client: Any) -> bool:
        """Whether a connection is in use: one that was left may take seconds to die, and speaks on meanwhile."""
        return (self.clients or {}).get(client.url) is client  # type: ignore[attr-defined]


class CandleStream:
    """The candles of some markets over one websocket; ``run`` again after it ended.

    ``heard_ms`` is when the last message came (any), by ``clock``.
    """

    def __init__(self, client: Client, markets: Markets, interval: str, deliver: Deliver, clock: Clock) -> None:
        self._markets, self._interval, self._deliver, self._clock = markets, interval, deliver, clock
        self._by_symbol = {market["symbol"]: name for name, market in markets.items()}
        self._exchange = _watching(client)
        self._lost: asyncio.Future[Any] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.heard_ms = clock.now_ms()
        self._exchange.on_heard = self._on_heard
        self._exchange.on_lost = self._on_lost

    async def run(self) -> None:
        """Subscribe and deliver until the connection is lost: ExchangeError says how, always."""
        self.heard_ms = self._clock.now_ms()
        self._lost = asyncio.get_running_loop().create_future()
        listening: asyncio.Future[Any] = asyncio.ensure_future(self._listen())
        try:
            await asyncio.wait([listening, self._lost], return_when=asyncio.FIRST_COMPLETED)
            if self._lost.done():
                raise ExchangeError(f"{self._exchange.id}: websocket lost: {self._lost.result()}")
            # ccxt cancels what waits on a connection that it closes.
            error = ConnectionError("closed") if listening.cancelled() else listening.exception()
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise ExchangeError(f"{self._exchange.id}: websocket lost: {error}") from error
        finally:
            self._lost.cancel()
            listening.cancel()
            self._drop()

    async def aclose(self) -> None:
        """Close the connection for good."""
        self._drop()
        if self._closing:
            await asyncio.wait(self._closing, timeout=_CLOSING_SECONDS)
        await self._exchange.close()

    async def _listen(self) -> None:
        raise NotImplementedError

    def _on_heard(self) -> None:
        self.heard_ms = self._clock.now_ms()

    def _on_lost(self, reason: str) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(reason)

    def _drop(self) -> None:
        """Leave the connection; a dead one takes seconds to close, which nobody waits for."""
        clients, self._exchange.clients = dict(self._exchange.clients or {}), {}
        for client in clients.values():
            task = asyncio.ensure_future(_close(client))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


class FlaggedStream(CandleStream):
    """Binance: klines with the flag ``x``, quote volume, trades and taker volume."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._by_id = {str(market["id"]): name for name, market in self._markets.items()}
        self._exchange.on_kline = self._on_kline

    async def _listen(self) -> None:
        pairs = [[market["symbol"], self._interval] for market in self._markets.values()]
        await self._exchange.watch_ohlcv_for_symbols(pairs)  # the first candle of any; the others come by on_kline
        await asyncio.get_running_loop().create_future()

    def _on_kline(self, kline: dict[str, Any]) -> None:
        if kline.get("x") is not True:  # several a second for each symbol, and nobody wants them
            return
        name = self._by_id.get(kline["s"])
        if name is None or kline["i"] != self._interval:
            return
        read: list[Any] = [_number(kline.get(key)) for key in "ohlcvqnV"]
        if self._markets[name].get("inverse"):  # v counts contracts, q coins; REST through ccxt tells coins
            read[4:] = [read[5], math.nan, math.nan, math.nan]
        self._deliver(Candle(name, int(kline["t"]), *read), True)


class PlainStream(CandleStream):
    """Any other exchange: ccxt's unified candles, of which the last one is unfinished."""

    async def _listen(self) -> None:
        if self._exchange.has.get("watchOHLCVForSymbols") is True:
            await self._listen_together()
        async with asyncio.TaskGroup() as group:
            for market in self._markets.values():
                group.create_task(self._listen_to(market["symbol"]))

    async def _listen_together(self) -> None:
        pairs = [[market["symbol"], self._interval] for market in self._markets.values()]
        while True:
            for symbol, by_interval in (await self._exchange.watch_ohlcv_for_symbols(pairs)).items():
                self._pass_on(symbol, by_interval.get(self._interval, []))

    async def _listen_to(self, symbol: str) -> None:
        while True:
            self._pass_on(symbol, await self._exchange.watch_ohlcv(symbol, self._interval))

    def _pass_on(self, symbol: str, rows: list[list[Any]]) -> None:
        name = self._by_symbol.get(symbol)
        if name is not None:
            for row in rows:
                numbers: list[Any] = [_number(value) for value in row[1:6]]
                self._deliver(Candle(name, int(row[0]), *numbers), False)


def candle_stream(client: Client, markets: Markets, interval: str, deliver: Deliver, clock: Clock) -> CandleStream:
    """The stream that suits the exchange of ``client``; InputError when ccxt has no websocket candles for it."""
    kind = FlaggedStream if flagged(client) else PlainStream
    return kind(client, markets, interval, deliver, clock)


def flagged(client: Client) -> bool:
    """Whether the exchange's websocket says which candles are closed, and we can read it."""
    return client.name.startswith("binance")


def _watching(client: Client) -> Any:
    """A ccxt.pro object of our own with the settings and the markets of ``client``."""
    import ccxt.pro  # loads every exchange: only where a websocket is really wanted

    kind: Any = getattr(ccxt.pro, client.name, None)
    if kind is None:
        raise InputError.of("exchange", client.name, "ccxt has no websockets for it")
    config = client.configuration()
    config["options"] = {k: v for k, v in config.get("options", {}).items() if k not in _OWN_OPTIONS}
    exchange = type(f"Watching_{kind.__name__}", (_Watching, kind), {})({**config, "enableRateLimit": True})
    if not exchange.has.get("watchOHLCV"):
        raise InputError.of("exchange", client.name, "ccxt has no websocket candles for it")
    client.share_markets(exchange)
    return exchange


async def _close(client: Any) -> None:
    with contextlib.suppress(Exception):  # it may be dead in any way
        await client.close()


def _number(value: Any) -> float:
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError):
        return math.nan
