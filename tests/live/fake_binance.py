"""Binance USD-M on loopback, REST and websockets, living by a virtual clock and misbehaving by a seeded script.

The REST part is the ``FakeExchange`` of the lake's tests. Unmodified ccxt and ccxt.pro talk to it. Of each bar the
websocket shows two unfinished states and, 150 ms after its end, the closed one; then come the faults::

    async with FakeBinance(candles, clock, faults=script(seed, ...)) as server:
        feed = ExchangeFeed(server.ccxt(), symbols, clock=clock)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from aiohttp import WSCloseCode, WSMsgType, web
from fake_exchange import MINUTE_MS, FakeExchange
from fake_exchange import Fault as RestFault
from virtual_clock import VirtualClock

RETRY = {"Retry-After": "0.02"}

# What concerns one symbol's closed message, one connection, and the requests.
OF_A_MESSAGE = ("drop", "duplicate", "reorder", "late", "nan", "revise", "garbage")
OF_A_CONNECTION = ("freeze", "close1006", "cut24h", "refuse", "stale_first")
OF_REQUESTS = ("429", "418", "500", "503", "rest_stale", "rest_short", "rest_nan", "rest_drop", "rest_garbage")
KINDS = (*OF_A_MESSAGE, *OF_A_CONNECTION, *OF_REQUESTS, "skew")


@dataclass(frozen=True)
class WireFault:
    """One fault, at the end of bar ``bar`` (counted from the start); ``length`` is in bars or in requests."""

    kind: str
    bar: int
    symbol: str
    length: int = 1


def script(
    seed: int, bars: int, symbols: Sequence[str], kinds: Sequence[str] = KINDS, every: int = 12, apart: bool = True
) -> list[WireFault]:
    """Faults for ``bars`` bars, one every ``every`` bars, each kind as often as another.

    ``apart``: each has its stretch to itself; otherwise they fall anywhere, on top of one another.
    """
    rng = np.random.default_rng(seed)
    order: list[str] = []
    faults = []
    for start in range(3, bars - every, every):
        if not order:
            order = list(rng.permutation(np.array(kinds, dtype=object)))
        kind = order.pop()
        at = start + int(rng.integers(0, 3)) if apart else int(rng.integers(2, bars - 4))
        length = int(rng.integers(2, 5)) if kind == "freeze" else int(rng.integers(1, 4))
        faults.append(WireFault(kind, at, str(rng.choice(np.array(symbols, dtype=object))), length))
    return sorted(faults, key=lambda fault: fault.bar)


class Socket:
    """One websocket and what it subscribed to."""

    def __init__(self, ws: web.WebSocketResponse, request: web.Request, clock_ms: int) -> None:
        self.ws, self.request, self.since = ws, request, clock_ms
        self.streams: set[str] = set()
        self.frozen_until = 0


class FakeBinance(FakeExchange):
    """The server, in the loop of the test; ``clock`` is its time, ``offset_ms`` what its own clock is off by."""

    def __init__(
        self,
        candles: Mapping[str, pd.DataFrame],
        clock: VirtualClock,
        faults: Sequence[WireFault] = (),
        funding: Mapping[str, pd.Series] | None = None,
        start_ms: int | None = None,
    ) -> None:
        self.time = clock
        self.offset_ms = 0
        super().__init__(candles, funding)
        self.start_ms = clock.now_ms() // MINUTE_MS * MINUTE_MS if start_ms is None else start_ms
        self.script = list(faults)
        self.sockets: list[Socket] = []
        self.connections = self.refuse = 0
        self.most_streams = 0
        self.stale_first = False
        self.rest_nan = 0
        self.revised: list[tuple[str, int]] = []
        self.sent = {"closed": 0, "unfinished": 0}
        self.done: list[WireFault] = []
        self._rows = {
            symbol: dict(zip(book.ms.tolist(), book.values, strict=True)) for symbol, book in self.books.items()
        }
        self._later: list[tuple[int, str, dict[str, Any]]] = []

    @property
    def clock(self) -> int:  # type: ignore[override]
        return self.time.now_ms() + self.offset_ms

    @clock.setter
    def clock(self, value: int) -> None:
        """The base class sets a time of its own; here the virtual clock rules."""

    async def __aenter__(self) -> Self:
        app = self._app()
        for path in ("/ws/{index}", "/market/ws/{index}"):
            app.router.add_get(path, self._websocket)
        for name, answer in (
            ("ticker/24hr", self._tickers),
            ("openInterest", self._open_interest),
            ("depth", self._depth),
        ):
            app.router.add_get(f"/fapi/v1/{name}", self._misbehaving(answer))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        self._playing = asyncio.create_task(self._play())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._playing
        for socket in list(self.sockets):
            _abort(socket)
        await self._runner.cleanup()

    def config(self) -> dict[str, Any]:
        config = super().config()
        config["urls"]["api"]["ws"] = {"linear": f"ws://127.0.0.1:{self.port}/ws"}
        return config

    # ---- websockets -------------------------------------------------------------------------------

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if self.refuse > 0:
            self.refuse -= 1
            return web.Response(status=503)
        ws = web.WebSocketResponse(autoping=True)
        await ws.prepare(request)
        socket = Socket(ws, request, self.clock)
        self.sockets.append(socket)
        self.connections += 1
        try:
            async for message in ws:
                if message.type is not WSMsgType.TEXT:
                    continue
                asked = json.loads(message.data)
                if asked.get("method") == "SUBSCRIBE":
                    await ws.send_str(json.dumps({"result": None, "id": asked["id"]}))
                    socket.streams.update(asked["params"])
                    self.most_streams = max(self.most_streams, len(socket.streams))
                    await self._first_snapshot(socket, asked["params"])
        finally:
            if socket in self.sockets:
                self.sockets.remove(socket)
        return ws

    async def _first_snapshot(self, socket: Socket, streams: Sequence[str]) -> None:
        """The bar under way, or with ``stale_first`` a state from the middle of the bar before."""
        now = self.clock
        for stream in streams:
            symbol = stream.split("@")[0].upper()
            at = now // MINUTE_MS * MINUTE_MS - (MINUTE_MS if self.stale_first else 0)
            part = 0.4 if self.stale_first else max(0.02, (now - at) / MINUTE_MS)
            if at in self._rows.get(symbol, {}):
                await self._send(socket, symbol, self._message(symbol, at, part))
        self.stale_first = False

    def _message(self, symbol: str, at: int, part: float | None, row: np.ndarray | None = None) -> dict[str, Any]:
        """The kline event of a bar ``part`` of the way through, or closed (None)."""
        values = self._rows[symbol][at] if row is None else row
        if part is not None:
            values = self.books[symbol]._unfinished(values, part)
        o, h, low, c, volume, quote, trades, taker = (repr(float(v)) for v in values)
        kline = {
            "t": at, "T": at + MINUTE_MS - 1, "s": symbol, "i": "1m", "f": 1, "L": 2, "o": o, "c": c, "h": h, "l": low,
            "v": volume, "n": int(float(trades)), "x": part is None, "q": quote, "V": taker, "Q": "0", "B": "0",
        }  # fmt: skip
        return {"e": "kline", "E": self.clock, "s": symbol, "k": kline}

    async def _send(self, socket: Socket, symbol: str, message: dict[str, Any] | str) -> None:
        if self.time.now_ms() < socket.frozen_until or socket.ws.closed:
            return
        text = message if isinstance(message, str) else json.dumps(message)
        if not isinstance(message, str):
            self.sent["closed" if message["k"]["x"] else "unfinished"] += 1
        with contextlib.suppress(ConnectionError, RuntimeError):
            await socket.ws.send_str(text)

    async def _broadcast(self, symbol: str, message: dict[str, Any] | str) -> None:
        stream = f"{symbol.lower()}@kline_1m"
        for socket in list(self.sockets):
            if stream in socket.streams:
                await self._send(socket, symbol, message)

    # ---- the play ---------------------------------------------------------------------------------

    async def _play(self) -> None:
        """Bar after bar: two states on the way, the end, and the faults of the script."""
        bar = 0
        while True:
            at = self.start_ms + bar * MINUTE_MS
            faults = [fault for fault in self.script if fault.bar == bar]
            for moment in (0.3, 0.7):
                await self.time.until(at + int(moment * MINUTE_MS))
                await self._deliver_late()
                for symbol in self.books:
                    if at in self._rows[symbol]:
                        await self._broadcast(symbol, self._message(symbol, at, moment))
            # Requests go wrong around the end of the bar, when they are made because something is missing.
            for fault in faults:
                self._disturb(fault)
            await self.time.until(at + MINUTE_MS + 150)
            await self._deliver_late()
            for symbol in self.books:
                if at in self._rows[symbol]:
                    mine = [fault for fault in faults if fault.symbol == symbol]
                    await self._close_bar(symbol, at, next((f for f in mine if f.kind in OF_A_MESSAGE), None))
            for fault in faults:
                await self._strike(fault)
            self.done += faults
            bar += 1

    async def _deliver_late(self) -> None:
        now = self.time.now_ms()
        for entry in [entry for entry in self._later if entry[0] <= now]:
            self._later.remove(entry)
            await self._broadcast(entry[1], entry[2])

    async def _close_bar(self, symbol: str, at: int, fault: WireFault | None) -> None:
        kind = fault.kind if fault is not None else ""
        message = self._message(symbol, at, None)
        now = self.time.now_ms()
        if kind == "drop":
            return
        if kind == "garbage":
            await self._broadcast(symbol, '{"e":"kline","s":"' + symbol + '"}')
            await self._broadcast(symbol, "not json")
            return
        if kind == "nan":
            row = self._rows[symbol][at].copy()
            row[3] = np.nan
            await self._broadcast(symbol, self._message(symbol, at, None, row))
            return
        if kind == "reorder":  # after a state of the next bar
            self._later.append((now + MINUTE_MS // 3, symbol, message))
            return
        if kind == "late":
            self._later.append((now + (2 * MINUTE_MS), symbol, message))
            return
        await self._broadcast(symbol, message)
        if kind == "duplicate":
            await self._broadcast(symbol, message)
            self._later.append((now + 2 * MINUTE_MS, symbol, message))
        if kind == "revise":
            row = self._rows[symbol][at].copy()
            row[4] += 1.0
            self.revised.append((symbol, at))
            self._later.append((now + MINUTE_MS, symbol, self._message(symbol, at, None, row)))

    def _disturb(self, fault: WireFault) -> None:
        kind, times = fault.kind, fault.length
        if kind in ("429", "418", "500", "503"):
            self.faults.append(RestFault("status", path="klines", status=int(kind), headers=RETRY, times=times))
        elif kind == "rest_stale":
            self.faults.append(RestFault("stale", path="klines", seconds=90.0, times=times))
        elif kind == "rest_short":
            self.faults.append(RestFault("short", path="klines", rows=1, times=times))
        elif kind == "rest_drop":
            self.faults.append(RestFault("drop", path="klines", times=times))
        elif kind == "rest_garbage":
            self.faults.append(RestFault("garbage", path="klines", times=times))
        elif kind == "rest_nan":
            self.rest_nan += times
        elif kind == "skew":
            self.offset_ms += (-1) ** times * 700 * times
        if kind in OF_REQUESTS:  # nobody would ask if nothing were missing
            self._cut(all_of_them=True)

    async def _strike(self, fault: WireFault) -> None:
        if fault.kind == "freeze":
            for socket in self.sockets:
                socket.frozen_until = self.time.now_ms() + fault.length * MINUTE_MS
        elif fault.kind == "close1006":
            self._cut()
        elif fault.kind == "refuse":
            self.refuse += fault.length
            self._cut()
        elif fault.kind == "stale_first":
            self.stale_first = True
            self._cut()
        elif fault.kind == "cut24h":
            for socket in list(self.sockets):
                await socket.ws.close(code=WSCloseCode.GOING_AWAY, message=b"24 hours")

    def _cut(self, all_of_them: bool = True) -> None:
        for socket in list(self.sockets):
            _abort(socket)

    # ---- more REST --------------------------------------------------------------------------------

    async def _klines(self, request: web.Request, fault: RestFault | None) -> tuple[Any, int]:
        content, weight = await super()._klines(request, fault)
        if self.rest_nan > 0 and isinstance(content, list) and content:
            self.rest_nan -= 1
            content[len(content) // 2][4] = "NaN"
        return content, weight

    async def _tickers(self, request: web.Request, fault: RestFault | None) -> tuple[Any, int]:
        wanted = request.query.get("symbol")
        rows = [self._ticker(symbol) for symbol in self.books if wanted in (None, symbol)]
        return (rows[0] if wanted else rows), 40 if wanted is None else 1

    def _ticker(self, symbol: str) -> dict[str, Any]:
        ms, rows = self.books[symbol].seen(self.clock, "1m")
        day = rows[-1440:]
        first, last = float(day[0][0]), float(day[-1][3])
        return {
            "symbol": symbol, "priceChange": repr(last - first), "priceChangePercent": repr(100 * (last / first - 1)),
            "weightedAvgPrice": repr(last), "lastPrice": repr(last), "lastQty": "1", "openPrice": repr(first),
            "highPrice": repr(float(day[:, 1].max())), "lowPrice": repr(float(day[:, 2].min())),
            "volume": repr(float(day[:, 4].sum())), "quoteVolume": repr(float(day[:, 5].sum())),
            "openTime": int(ms[-len(day)]), "closeTime": self.clock, "firstId": 1, "lastId": 2, "count": len(day),
        }  # fmt: skip

    async def _open_interest(self, request: web.Request, fault: RestFault | None) -> tuple[Any, int]:
        symbol = request.query.get("symbol", "")
        _, rows = self.books[symbol].seen(self.clock, "1m")
        return {"symbol": symbol, "openInterest": repr(float(rows[-1440:, 4].sum())), "time": self.clock}, 1

    async def _depth(self, request: web.Request, fault: RestFault | None) -> tuple[Any, int]:
        symbol = request.query.get("symbol", "")
        _, rows = self.books[symbol].seen(self.clock, "1m")
        price, size = float(rows[-1][3]), repr(float(rows[-60:, 4].mean()))
        levels = min(int(request.query.get("limit", 20)), 20)
        bids = [[repr(price * (1 - k / 10_000)), size] for k in range(1, levels + 1)]
        asks = [[repr(price * (1 + k / 10_000)), size] for k in range(1, levels + 1)]
        return {"lastUpdateId": 1, "E": self.clock, "T": self.clock, "bids": bids, "asks": asks}, 2


def _abort(socket: Socket) -> None:
    """Cut the connection without a closing handshake: the other side sees 1006."""
    if socket.request.transport is not None:
        socket.request.transport.abort()
