"""Following the asset states of a session in another process: the whole first, then changes, nothing missed."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aione_lab.cache.handler import NAMESPACE, SimpleCacheHandler, Subscription
from aione_lab.errors import CacheError, InputError
from aione_lab.live.asset_publisher import ASSET_STATE, UPDATES
from aione_lab.live.asset_state import plain
from aione_lab.units import parse_symbol

RETRY_S = 0.5  # pause after a failure of the cache, and the least between two looks at the state of a silent session
SILENCE_S = 15.0  # without a word from the session, where it did not say how often it speaks
NOBODY = "no session has written its state"
ENDED = "the session has ended"


@dataclass(frozen=True, slots=True)
class AssetUpdate:
    """States by symbol: all there are (``whole``), or those that changed. ``problem``: why they may be old, "" if not.

    An update may hold no asset at all, and only tell of a ``problem`` or of its end. ``about``: with the whole, what
    the session told of itself (``AssetStateManager.describe``).
    """

    whole: bool
    assets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    problem: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


async def follow_assets(cache: SimpleCacheHandler) -> AsyncIterator[AssetUpdate]:
    """The states that a session publishes through ``cache``: the whole first, then changes, for good.

    After a miss (a number left out, a lost connection, a session that began anew) the whole comes again. Nothing is
    raised while the cache fails or nobody writes; the ``problem`` of an update says so, and reading goes on. What was
    read is untrusted: shown as text, never as markup.
    """
    reader = _Reader(cache)
    messages = cache.subscribe(UPDATES)
    waiting: asyncio.Task[Any] | None = None
    try:
        while True:
            try:
                await messages.__aenter__()  # before the state is read, so that nothing falls in between
                if not reader.in_step:
                    yield await reader.read()
                    reader.wait()
                waiting = waiting or asyncio.ensure_future(anext(messages))
                done, _ = await asyncio.wait({waiting}, timeout=max(0.0, reader.ends - time.monotonic()))
                if done:
                    task, waiting = waiting, None
                    update = await reader.take(task.result().value)
                else:
                    update = await reader.silence()
                if update is not None:
                    yield update
                    reader.wait()
            except CacheError as error:
                reader.in_step = False
                if (problem := str(error)) != reader.problem:
                    reader.problem = problem
                    yield AssetUpdate(whole=False, problem=problem)
                await asyncio.sleep(RETRY_S)
    finally:
        await _let_go(messages, waiting)


async def _let_go(messages: Subscription, waiting: asyncio.Task[Any] | None) -> None:
    if waiting is not None:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await messages.aclose()


@dataclass
class _State:
    """A whole state or a message, as it was read: whose it is, its number and its assets."""

    session: str
    seq: int
    period_s: float
    alive: bool
    assets: dict[str, Mapping[str, Any]]
    about: Mapping[str, Any]


class _Reader:
    """Where a reader stands: session and number of what it has seen last."""

    def __init__(self, cache: SimpleCacheHandler) -> None:
        self._cache = cache
        self.in_step = False
        self.problem = ""
        self._session, self._seq = "", 0
        self._patience = SILENCE_S
        self.wait()

    def wait(self) -> None:
        """Be patient from now on, until ``ends``: messages that say nothing new are a silence, too."""
        self.ends = time.monotonic() + self._patience

    async def read(self) -> AssetUpdate:
        """The whole state, which may be empty; from here on messages are compared with it."""
        content = await self._cache.fetch_from_cache(ASSET_STATE, NAMESPACE, raw=True)
        state = None if content is None else _parsed(_json(content))
        self.in_step = True
        self.wait()
        if state is None:
            self._session, self._seq = "", 0
            self.problem = NOBODY if content is None else f"what {ASSET_STATE} holds is no state of assets"
            return AssetUpdate(whole=True, problem=self.problem)
        self._stand(state)
        return AssetUpdate(whole=True, assets=state.assets, problem=self.problem, about=state.about)

    async def take(self, value: Any) -> AssetUpdate | None:
        """What a message changes; the whole state where it does not follow on what was seen."""
        message = _parsed(value)
        if message is None:
            return None
        same = message.session == self._session
        if same and message.seq <= self._seq:
            return None  # it was in the state that was read
        if not same or message.seq > self._seq + 1:
            whole = await self.read()
            same = self._session == message.session
            if same and self._seq >= message.seq:
                return whole
            # the state is older than the message: it could not be written, messages come through all the same
            self._stand(message)
            return AssetUpdate(True, {**whole.assets, **message.assets}, self.problem, whole.about if same else {})
        before = self.problem
        self._stand(message)
        if not message.assets and self.problem == before:
            return None
        return AssetUpdate(whole=False, assets=message.assets, problem=self.problem)

    async def silence(self) -> AssetUpdate | None:
        """Nothing was heard for some periods: the state says whether somebody still writes."""
        before, seen = self.problem, (self._session, self._seq)
        whole = await self.read()
        if (self._session, self._seq) != seen:
            return whole
        self.problem = self.problem or f"the session has been silent for more than {self._patience:g} s"
        return None if self.problem == before else AssetUpdate(whole=False, problem=self.problem)

    def _stand(self, state: _State) -> None:
        self._session, self._seq = state.session, state.seq
        self._patience = max(3 * state.period_s, RETRY_S)
        self.problem = "" if state.alive else ENDED
        self.wait()


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _parsed(value: Any) -> _State | None:
    """A state or message with usable numbers and symbols; None for anything else."""
    try:
        period_s = float(value["period_s"])
        if not math.isfinite(period_s):  # JSON has no such number, Python's reader has
            return None
        state = _State(
            session=str(value["session"])[:40],
            seq=int(value["seq"]),
            period_s=min(period_s, 3600.0),
            alive=value["alive"] is not False,
            assets={parse_symbol(symbol): plain(symbol, asset, -1) for symbol, asset in value["assets"].items()},
            about=_about(value.get("about")),
        )
        return state if all(isinstance(asset, Mapping) for asset in state.assets.values()) else None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, InputError):
        return None


def _about(value: Any) -> Mapping[str, Any]:
    """What a session tells of itself; nothing where that cannot be used: the assets can."""
    try:
        found = plain("about", value)
    except InputError:
        return {}
    return found if isinstance(found, Mapping) else {}
