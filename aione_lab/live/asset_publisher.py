"""The publication of asset states: a task of its own that no failure of the cache ends, and nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from aione_lab.cache.handler import NAMESPACE, SimpleCacheHandler
from aione_lab.errors import CacheError, CacheRefusedError, one_line

logger = logging.getLogger(__name__)

ASSET_STATE = "asset_state"
UPDATES = "asset_state_update"
SIGNALS = "signals"

GAP_S = 0.05  # least pause between two writes: what changes meanwhile goes together
RETRY_S = (0.1, 0.2, 0.4, 0.8)  # pauses after failures in a row, the last one from then on
GOODBYE_S = 2.0  # how long aclose waits for the last write
CHUNK = 100  # assets in one message, and encoded before others get the event loop
MOST_SIGNALS = 1_000  # waiting signals; the oldest are dropped and counted


class Publisher:
    """Writes ``assets`` (the live mapping of the manager) and tells of changes, numbered within a ``session``.

    A write is: the whole state with the number of the newest message, then the messages, each with the whole state of
    some changed assets. So a reader that subscribes and then reads misses nothing, and one that sees a number left
    out reads the state again. Every ``period_s`` seconds all is written anew, with an empty message: a Redis that lost
    its memory has the state again, and a reader of whom the last message was lost finds that out.
    """

    def __init__(
        self, cache: SimpleCacheHandler, assets: Mapping[str, Mapping[str, Any]], period_s: float, ttl_s: float
    ) -> None:
        self._cache, self._assets = cache, assets
        self._period_s, self._ttl_s = period_s, ttl_s
        self.session = uuid.uuid4().hex[:12]
        self.about = orjson.Fragment(b"{}")  # JSON of what steers the session, told with the whole state
        self.seq = 0
        self.degraded = ""
        self.writes = self.failures = self.signals_dropped = 0
        self._dirty: dict[str, None] = dict.fromkeys(assets)
        self._texts: dict[str, orjson.Fragment] = {}
        self._stage2s: dict[str, tuple[Any, orjson.Fragment]] = {}  # half of an asset's text; few change with a bar
        self._signals: deque[Mapping[str, Any]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._writing: asyncio.Future[None] | None = None

    def changed(self, symbols: Iterable[str]) -> None:
        """Have the states of ``symbols`` written soon."""
        self._dirty.update(dict.fromkeys(symbols))
        self._wake.set()

    def signal(self, signal: Mapping[str, Any]) -> None:
        """Have ``signal`` sent soon, in order; during a long failure the oldest ones are dropped."""
        while len(self._signals) >= MOST_SIGNALS:
            self._signals.popleft()
            self.signals_dropped += 1
        self._signals.append(signal)
        self._wake.set()

    def start(self) -> None:
        """Begin; nothing happens when it has."""
        if self._task is None:
            self._wake.set()
            self._task = asyncio.create_task(self._run(), name="asset states")

    async def aclose(self) -> None:
        """Try once to write the last state, marked as the session's end, then stop; never longer than GOODBYE_S."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        try:
            async with asyncio.timeout(GOODBYE_S):
                if self._writing is not None:  # cut short, it would be on its way and be sent once more
                    await asyncio.wait({self._writing})
                await self._write(alive=False)
        except (CacheError, TimeoutError) as error:
            logger.warning("the last asset states could not be written: %s", error or "no answer in time")
        except Exception:
            logger.exception("the last asset states could not be written")

    async def _run(self) -> None:
        failed = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0 if failed else self._period_s):
                    await self._wake.wait()
            self._wake.clear()
            self._writing = asyncio.ensure_future(self._write(alive=True))
            self._writing.add_done_callback(_hear)
            try:
                await asyncio.shield(self._writing)
            except Exception as error:  # whatever it is: the task must go on, and say what it was
                if not failed:
                    own = isinstance(error, CacheError)
                    logger.warning("asset states are not written for now: %s", error, exc_info=not own)
                self.degraded = one_line(error)
                self.failures += 1
                await asyncio.sleep(RETRY_S[min(failed, len(RETRY_S) - 1)])
                failed += 1
            else:
                if failed:
                    logger.info("asset states are written again")
                self.degraded, failed = "", 0
                await asyncio.sleep(GAP_S)

    async def _write(self, *, alive: bool) -> None:
        """The whole state, then what changed. A failure in between leaves numbers out, which readers notice."""
        changed, self._dirty = self._dirty, {}
        try:
            await self._send(list(_chunks(list(changed))) or [[]], alive)
        except BaseException:  # a cancellation too: what was not sent is sent the next time
            self._dirty = {**changed, **self._dirty}
            raise
        self.writes += 1

    async def _send(self, chunks: list[list[str]], alive: bool) -> None:
        await self._encode(chunks)
        first = self.seq + 1
        self.seq += len(chunks)
        whole = self._text(self.seq, alive, self._texts, about=self.about)
        texts = [self._text(number, alive, chunk) for number, chunk in enumerate(chunks, first)]
        refused = None
        try:
            await self._cache.store_and_publish(ASSET_STATE, NAMESPACE, whole, UPDATES, texts, self._ttl_s, raw=True)
        except CacheRefusedError as error:  # a full or read-only Redis passes signals on, too
            refused = error
        # Not with the messages above: those have numbers, of a signal that is sent again a reader sees two.
        while self._signals:
            signals = [self._signals.popleft() for _ in range(min(CHUNK, len(self._signals)))]
            try:
                await self._cache.publish_all(SIGNALS, [orjson.dumps(signal) for signal in signals], raw=True)
            except BaseException:
                self._signals.extendleft(reversed(signals))
                raise
        if refused is not None:
            raise refused

    async def _encode(self, chunks: list[list[str]]) -> None:
        """Renew the texts of what changed; others get the event loop in between."""
        for chunk in chunks:
            for symbol in chunk:
                self._texts[symbol] = self._encoded(symbol)
            await asyncio.sleep(0)

    def _encoded(self, symbol: str) -> orjson.Fragment:
        asset = self._assets[symbol]
        stage2 = asset["stage2"]
        if stage2 is None:
            return orjson.Fragment(orjson.dumps(asset))
        known, text = self._stage2s.get(symbol, (None, None))
        if known is not stage2:
            text = orjson.Fragment(orjson.dumps(stage2))
            self._stage2s[symbol] = stage2, text
        return orjson.Fragment(orjson.dumps({**asset, "stage2": text}))

    def _text(self, number: int, alive: bool, symbols: Iterable[str], **more: Any) -> bytes:
        """The JSON of a state or message, put together from the assets' texts: each is encoded once a change."""
        head = {
            "session": self.session,
            "seq": number,
            "time": int(time.time() * 1000),
            "period_s": self._period_s,
            "alive": alive,
            **more,
        }
        return orjson.dumps({**head, "assets": {symbol: self._texts[symbol] for symbol in symbols}})


def _hear(writing: asyncio.Future[None]) -> None:
    """Take notice of a failure: where the task that tells of them has ended meanwhile nobody else does."""
    if not writing.cancelled():
        writing.exception()


def _chunks(symbols: list[str]) -> Iterator[list[str]]:
    left = iter(symbols)
    while chunk := list(itertools.islice(left, CHUNK)):
        yield chunk
