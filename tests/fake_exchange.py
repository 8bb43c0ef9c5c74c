"""A Binance USD-M futures exchange on loopback, real enough for an unmodified ccxt ``binanceusdm``.

It serves the public REST endpoints from candle frames, has a clock of its own, shows an unfinished
last candle as the real one does, records every request, and misbehaves by script::

    with FakeExchange({"BTCUSDT": frame}) as server:
        server.faults.append(Fault("status", status=429, headers={"Retry-After": "1"}, path="klines"))
        lake.fetch(server.ccxt(), ["BTCUSDT"], "1m", since=...)

The server runs in a thread with its own event loop, on a free port of 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import ccxt
import numpy as np
import pandas as pd
from aiohttp import web

MINUTE_MS = 60_000
INTERVALS = {"1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240, "1d": 1440}
KLINE_WEIGHTS = ((99, 1), (499, 2), (1000, 5), (1500, 10))

FaultKind = Literal["status", "drop", "cut", "delay", "short", "garbage", "stale"]


@dataclass
class Fault:
    """One scripted misbehaviour, used up after ``times`` matching requests (after ``skip`` good ones).

    ``status``: answer with that status, ``headers`` and a Binance-like error; ``drop``: close the
    connection without an answer; ``cut``: close it in the middle of the answer; ``delay``: answer
    ``seconds`` late; ``short``: only the first ``rows`` rows of the page; ``garbage``: status 200 and
    a web page; ``stale``: the candles as they were ``seconds`` ago.
    """

    kind: FaultKind
    path: str = ""
    symbol: str | None = None
    times: int = 1
    skip: int = 0
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    rows: int = 3

    def meets(self, path: str, symbol: str | None) -> bool:
        """Whether this request is one of those it concerns; counts it when it is."""
        if self.times <= 0 or not path.endswith(self.path) or self.symbol not in (None, symbol):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Served:
    """One request as the server saw it."""

    path: str
    query: dict[str, str]
    status: int
    rows: int
    weight: int
    at: float


class Book:
    """Final one-minute candles of one symbol, and what the exchange shows of them at a given time."""

    COLUMNS = ("open", "high", "low", "close", "volume", "quote_volume", "trades", "taker_buy_volume")

    def __init__(self, frame: pd.DataFrame) -> None:
        self.ms = frame.index.as_unit("ms").asi8
        self.values = np.column_stack([frame[name].to_numpy(dtype=float) for name in self.COLUMNS])

    def seen(self, now_ms: int, interval: str) -> tuple[np.ndarray, np.ndarray]:
        """Stamps and rows visible at ``now_ms``, the last one unfinished, summed up to ``interval``."""
        step = MINUTE_MS * INTERVALS[interval]
        count = int(np.searchsorted(self.ms, now_ms, side="right"))
        ms, rows = self.ms[:count], self.values[:count].copy()
        if count and ms[-1] + MINUTE_MS > now_ms:
            rows[-1] = self._unfinished(rows[-1], (now_ms - ms[-1]) / MINUTE_MS)
        if step == MINUTE_MS:
            return ms, rows
        frame = pd.DataFrame(rows, columns=list(self.COLUMNS)).groupby(ms // step * step)
        rules = {"open": "first", "high": "max", "low": "min", "close": "last"}
        out = frame.agg({name: rules.get(name, "sum") for name in self.COLUMNS})
        return out.index.to_numpy(dtype=np.int64), out.to_numpy(dtype=float)

    @staticmethod
    def _unfinished(row: np.ndarray, part: float) -> np.ndarray:
        """The candle some way before its end: less volume, and a price it will not close at."""
        open_, high, low, close = row[:4]
        now = open_ + (close - open_) * part / 2
        return np.array([open_, max(open_, now), min(open_, now), now, *(row[4:] * part / 2)])


class FakeExchange:
    """The server; ``clock`` is its time in ms and can be set at any moment.

    ``candles`` maps exchange ids to frames of one-minute candles, ``funding`` to Series of rates.
    ``honours_window=False`` makes it ignore endTime, as some exchanges do.
    """

    def __init__(
        self,
        candles: Mapping[str, pd.DataFrame],
        funding: Mapping[str, pd.Series] | None = None,
        clock: int | None = None,
    ) -> None:
        self.books = {symbol: Book(frame) for symbol, frame in candles.items()}
        self.funding = {
            symbol: (rates.index.as_unit("ms").asi8, rates.to_numpy(dtype=float))
            for symbol, rates in (funding or {}).items()
        }
        last = max((int(book.ms[-1]) for book in self.books.values() if len(book.ms)), default=0)
        self.clock = last + MINUTE_MS if clock is None else clock
        self.faults: list[Fault] = []
        self.served: list[Served] = []
        self.gate = threading.Event()  # cleared: market data waits, so that a test can act in mid-download
        self.gate.set()
        self.halt_after: int | None = None  # clears the gate by itself after so many pages of candles
        self.busy = self.most_busy = 0
        self._lock = threading.Lock()

    # ---- life ------------------------------------------------------------------------------------

    def __enter__(self) -> FakeExchange:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(started,), name="fake-exchange", daemon=True)
        self._thread.start()
        if not started.wait(10):
            raise RuntimeError("the fake exchange did not start")
        return self

    def __exit__(self, *exc: object) -> None:
        self.gate.set()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        pending = asyncio.all_tasks(self._loop)  # answers that a test told to be late
        for task in pending:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self._loop.close()

    def _app(self) -> web.Application:
        app = web.Application()
        for name, answer in (
            ("ping", self._ping),
            ("time", self._time),
            ("exchangeInfo", self._exchange_info),
            ("klines", self._klines),
            ("fundingRate", self._funding_rate),
        ):
            app.router.add_get(f"/fapi/v1/{name}", self._misbehaving(answer))
        return app

    # ---- what clients need to find it ------------------------------------------------------------

    @property
    def url(self) -> str:
        """Base address, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def config(self) -> dict[str, Any]:
        """ccxt settings that lead ``binanceusdm`` here, with a rate limit that suits a test."""
        api = {name: f"{self.url}/fapi/v{name[-1] if name[-1] in '23' else '1'}" for name in FAPI_NAMES}
        return {"urls": {"api": api}, "rateLimit": 1, "timeout": 2000}

    def ccxt(self, **more: Any) -> ccxt.Exchange:
        """An unmodified ``ccxt.binanceusdm`` that talks to this server."""
        return ccxt.binanceusdm({**self.config(), **more})

    def requests(self, path: str, symbol: str | None = None, status: int = 200) -> list[Served]:
        """Requests to the endpoint ``path`` so far that got ``status``."""
        return [
            s
            for s in self.served
            if s.path.endswith(path) and s.status == status and symbol in (None, s.query.get("symbol"))
        ]

    @property
    def weight(self) -> int:
        """Request weight used so far, by the exchange's own table."""
        return sum(s.weight for s in self.served)

    # ---- endpoints -------------------------------------------------------------------------------

    def _misbehaving(
        self, answer: Callable[[web.Request, Fault | None], Awaitable[tuple[Any, int]]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handler(request: web.Request) -> web.StreamResponse:
            symbol = request.query.get("symbol")
            fault = next((f for f in list(self.faults) if f.meets(request.path, symbol)), None)
            kind = fault.kind if fault is not None else None
            with self._lock:
                self.busy += 1
                self.most_busy = max(self.most_busy, self.busy)
            try:
                if request.path.endswith(("klines", "fundingRate")):
                    if self.halt_after is not None and len(self.requests("klines")) >= self.halt_after:
                        self.halt_after = None
                        self.gate.clear()
                    while not self.gate.is_set():
                        await asyncio.sleep(0.005)
                if fault is not None and kind == "delay":
                    await asyncio.sleep(fault.seconds)
                if fault is not None and kind == "status":
                    self._record(request, fault.status)
                    body = {"code": -1003 if fault.status in (418, 429) else -1001, "msg": "scripted fault"}
                    return web.json_response(body, status=fault.status, headers=fault.headers)
                if kind == "garbage":
                    self._record(request, -1)
                    return web.Response(text="<html>We are back soon</html>", content_type="text/html")
                if kind == "drop":
                    self._record(request, -1)
                    _hang_up(request)
                    return web.Response()
                content, weight = await answer(request, fault)
                if isinstance(content, web.Response):
                    self._record(request, content.status)
                    return content
                if kind == "cut":
                    self._record(request, -1)
                    return await _cut_answer(request, content)
                self._record(request, 200, len(content) if isinstance(content, list) else 0, weight)
                return web.json_response(content, headers={"X-MBX-USED-WEIGHT-1M": str(self.weight)})
            finally:
                with self._lock:
                    self.busy -= 1

        return handler

    def _record(self, request: web.Request, status: int, rows: int = 0, weight: int = 0) -> None:
        self.served.append(Served(request.path, dict(request.query), status, rows, weight, time.monotonic()))

    async def _ping(self, request: web.Request, fault: Fault | None) -> tuple[Any, int]:
        return {}, 1

    async def _time(self, request: web.Request, fault: Fault | None) -> tuple[Any, int]:
        return {"serverTime": self.clock}, 1

    async def _exchange_info(self, request: web.Request, fault: Fault | None) -> tuple[Any, int]:
        symbols = [_symbol_info(symbol, book) for symbol, book in self.books.items()]
        return {"timezone": "UTC", "serverTime": self.clock, "rateLimits": [], "assets": [], "symbols": symbols}, 1

    async def _klines(self, request: web.Request, fault: Fault | None) -> tuple[Any, int]:
        query = request.query
        book, interval = self.books.get(query.get("symbol", "")), query.get("interval", "")
        if book is None:
            return _error(-1121, "Invalid symbol."), 0
        if interval not in INTERVALS:
            return _error(-1120, "Invalid interval."), 0
        limit = int(query.get("limit", 500))
        if not 1 <= limit <= 1500:
            return _error(-1130, "Data sent for parameter 'limit' is not valid."), 0
        weight = next(cost for size, cost in KLINE_WEIGHTS if limit <= size)
        now = self.clock - int(fault.seconds * 1000) if fault is not None and fault.kind == "stale" else self.clock
        ms, rows = book.seen(now, interval)
        low = int(np.searchsorted(ms, int(query.get("startTime", 0))))
        high = int(np.searchsorted(ms, int(query.get("endTime", 2**62)), side="right"))
        # From startTime on where it is given, otherwise the last ones: as the real exchange does.
        picked = slice(low, min(high, low + limit)) if "startTime" in query else slice(max(low, high - limit), high)
        if fault is not None and fault.kind == "short":
            picked = slice(picked.start, min(picked.stop, picked.start + fault.rows))
        step = MINUTE_MS * INTERVALS[interval]
        return [_kline(t, row, step) for t, row in zip(ms[picked].tolist(), rows[picked].tolist(), strict=True)], weight

    async def _funding_rate(self, request: web.Request, fault: Fault | None) -> tuple[Any, int]:
        query = request.query
        symbol = query.get("symbol", "")
        ms, rates = self.funding.get(symbol, (np.empty(0, np.int64), np.empty(0)))
        limit = min(int(query.get("limit", 100)), 1000)
        low = int(np.searchsorted(ms, int(query.get("startTime", 0))))
        high = int(np.searchsorted(ms, min(int(query.get("endTime", 2**62)), self.clock), side="right"))
        picked = slice(low, min(high, low + limit)) if "startTime" in query else slice(max(low, high - limit), high)
        if fault is not None and fault.kind == "short":
            picked = slice(picked.start, min(picked.stop, picked.start + fault.rows))
        return [
            {"symbol": symbol, "fundingTime": t, "fundingRate": repr(rate), "markPrice": "100.0"}
            for t, rate in zip(ms[picked].tolist(), rates[picked].tolist(), strict=True)
        ], 1


FAPI_NAMES = ("fapiPublic", "fapiPublicV2", "fapiPublicV3", "fapiPrivate", "fapiPrivateV2", "fapiPrivateV3", "fapiData")


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _cut_answer(request: web.Request, content: Any) -> web.StreamResponse:
    """Half of the answer, then silence: the client sees a payload that ends too early."""
    body = web.json_response(content).body
    assert isinstance(body, bytes)
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    _hang_up(request)
    return response


def _error(code: int, message: str) -> web.Response:
    return web.json_response({"code": code, "msg": message}, status=400)


def _kline(open_ms: int, row: list[float], step: int) -> list[Any]:
    """A kline as the exchange writes it: numbers as text that reads back to the same float."""
    open_, high, low, close, volume, quote, trades, taker = row
    texts = [repr(value) for value in (open_, high, low, close, volume)]
    return [open_ms, *texts, open_ms + step - 1, repr(quote), int(trades), repr(taker), repr(taker * close), "0"]


def _symbol_info(symbol: str, book: Book) -> dict[str, Any]:
    quote = next((q for q in ("USDT", "USDC", "BUSD") if symbol.endswith(q)), symbol[-4:])
    return {
        "symbol": symbol, "pair": symbol, "contractType": "PERPETUAL", "status": "TRADING",
        "deliveryDate": 4133404800000, "onboardDate": int(book.ms[0]) if len(book.ms) else 0,
        "baseAsset": symbol.removesuffix(quote), "quoteAsset": quote, "marginAsset": quote,
        "pricePrecision": 4, "quantityPrecision": 3, "baseAssetPrecision": 8, "quotePrecision": 8,
        "underlyingType": "COIN", "orderTypes": ["LIMIT", "MARKET"], "timeInForce": ["GTC"],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.0001", "maxPrice": "1000000", "tickSize": "0.0001"},
            {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "10000", "stepSize": "0.001"},
            {"filterType": "MARKET_LOT_SIZE", "minQty": "0.001", "maxQty": "1000", "stepSize": "0.001"},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ],
    }  # fmt: skip
