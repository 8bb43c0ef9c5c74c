"""`SimpleCacheHandler`: keys, JSON values and channels, the same over Redis and over one file."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import math
import re
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar
from urllib.parse import unquote

from pydantic import SecretStr

from aione_lab.cache.backend import CALL_LIMIT, Backend, Feed
from aione_lab.cache.embedded import EmbeddedBackend
from aione_lab.cache.redis_backend import RedisBackend
from aione_lab.errors import CacheError, InputError
from aione_lab.units import parse_symbol

if TYPE_CHECKING:
    from aione_lab.environment import Environment

NAMESPACE = "global"
EMBEDDED_FILE = "experiments/cache.sqlite"
FAST_SYMBOLS = "fast_symbols"
FAST_SYMBOLS_TTL = 1800.0  # three times the ten minutes after which the list is made anew

_KEY = re.compile(r"[A-Za-z0-9_.:/-]{1,200}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # without a colon: it ends the key in the physical name
_LONGEST_TTL = 10 * 365 * 86_400

T = TypeVar("T")


@dataclass(frozen=True)
class Message:
    """What came on a channel; ``value`` is what was published."""

    channel: str
    value: Any


class SimpleCacheHandler:
    """Values by key and messages by channel, shared between processes; every method is a coroutine.

    The physical key is ``<key>:<namespace>``. Values are JSON unless ``raw``: then they are bytes, stored as they are.
    No call takes longer than a second, ``store_and_publish`` no longer than two: a cache that is away, full or silent
    raises CacheError, and the next call tries again. ``healthy`` tells how the last call went; whoever can do without
    the cache goes on without it.

    Close it with ``await handler.aclose()`` or use it as ``async with``. A call for one argument that cannot be used
    raises InputError and does not touch the cache.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._healthy = True

    @classmethod
    def from_url(cls, url: str | SecretStr | None = None) -> Self:
        """The cache at ``url``: ``redis://``, ``rediss://`` or ``unix://``; ``sqlite:///file`` is the embedded one.

        None: embedded, in ``experiments/cache.sqlite``. Nothing is opened yet. Raises InputError for another URL,
        which it never quotes, and CacheError where redis-py is not installed.
        """
        text = url.get_secret_value() if isinstance(url, SecretStr) else url
        if text is None:
            return cls(EmbeddedBackend(EMBEDDED_FILE))
        if isinstance(text, str) and text.startswith("sqlite:///") and len(text) > 10:
            return cls(EmbeddedBackend(unquote(text[10:])))
        return cls(RedisBackend(text))

    @classmethod
    def embedded(cls, path: str | Path = EMBEDDED_FILE) -> Self:
        """The cache in the SQLite file ``path``; several processes of a machine may share it."""
        return cls(EmbeddedBackend(path))

    @classmethod
    def from_environment(cls, environment: Environment | None = None) -> Self:
        """The cache that ``REDIS_URL``, or ``REDIS_HOST`` and ``REDIS_PORT`` name; embedded where they are absent."""
        from aione_lab.environment import Environment

        try:
            return cls.from_url((Environment() if environment is None else environment).redis_url())
        except InputError as error:
            raise InputError(f"REDIS_{str(error).replace('url', 'URL', 1)}") from None

    @property
    def name(self) -> str:
        """Where it is: the file, or the address without its password."""
        return self._backend.name

    @property
    def healthy(self) -> bool:
        """Whether the last call went well (True before the first one)."""
        return self._healthy

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    # --- values ------------------------------------------------------------------------------------------------------

    async def store_in_cache(
        self, key: str, namespace: str, value: Any, ttl: float | None = None, raw: bool = False
    ) -> None:
        """Store ``value`` under ``<key>:<namespace>``, for ``ttl`` seconds or (None) for good.

        ``raw``: bytes, or text as UTF-8, as they are. Otherwise what JSON can hold; NaN and infinities it cannot.
        """
        place = _place(key, namespace)
        content = _content(value, raw)
        await self._call(self._backend.set(place, content, _seconds(ttl)))

    async def fetch_from_cache(self, key: str, namespace: str, raw: bool = False) -> Any:
        """The value (bytes when ``raw``), or None where there is none. CacheError for what is not JSON."""
        place = _place(key, namespace)
        content = await self._call(self._backend.get(place))
        if content is None or raw:
            return content
        return self._decoded(place, content)

    async def set_json(self, key: str, value: Any, ttl: float | None = None, namespace: str = NAMESPACE) -> None:
        """Store a JSON value in our namespace."""
        await self.store_in_cache(key, namespace, value, ttl)

    async def get_json(self, key: str, namespace: str = NAMESPACE) -> Any:
        """A JSON value of our namespace, or None."""
        return await self.fetch_from_cache(key, namespace)

    async def set_fast_symbols(self, symbols: Iterable[str], ttl: float | None = FAST_SYMBOLS_TTL) -> None:
        """Store the list of symbols that are followed, in its order, each once."""
        if isinstance(symbols, (str, bytes)) or not isinstance(symbols, Iterable):
            raise InputError.of("symbols", symbols, "must be several symbols")
        names = list(dict.fromkeys(parse_symbol(symbol, "symbols") for symbol in symbols))
        await self.set_json(FAST_SYMBOLS, names, ttl)

    async def get_fast_symbols(self) -> list[str]:
        """The symbols that are followed; empty where nobody has told. CacheError for what is no list of symbols."""
        names = await self.get_json(FAST_SYMBOLS)
        try:
            if names is None or isinstance(names, list):
                return [parse_symbol(name) for name in names or []]
            problem = "must be a list"
        except InputError as error:
            problem = str(error)
        raise CacheError(f"{self._backend.name}: {FAST_SYMBOLS} holds no list of symbols ({problem})")

    async def delete(self, key: str, namespace: str = NAMESPACE) -> bool:
        """Remove a key; whether there was something."""
        return await self._call(self._backend.delete(_place(key, namespace)))

    async def keys(self, pattern: str = "*", namespace: str = NAMESPACE) -> list[str]:
        """Keys of the namespace (without it) that match ``pattern`` with ``*``, ``?`` and ``[…]``, sorted."""
        if not isinstance(pattern, str) or len(pattern) > 200:
            raise InputError.of("pattern", pattern, "must be a text such as 'thresholds:*'")
        ending = f":{_checked_namespace(namespace)}"
        found = await self._call(self._backend.keys(ending))
        return sorted(fnmatch.filter((name.removesuffix(ending) for name in found), pattern))

    # --- messages ----------------------------------------------------------------------------------------------------

    async def publish(self, channel: str, message: Any, raw: bool = False) -> None:
        """Send a JSON value to everybody who is subscribed now; nobody being there is no error.

        ``raw``: the message is JSON already, as text or bytes, and goes out as it is.
        """
        await self.publish_all(channel, [message], raw)

    async def publish_all(self, channel: str, messages: Sequence[Any], raw: bool = False) -> None:
        """Send several messages, in order, in the time of one; each as ``publish`` does."""
        place = _checked("channel", channel)
        contents = [_content(one, raw, "message") for one in messages]
        if contents:
            await self._call(self._backend.publish(place, contents))

    async def store_and_publish(
        self,
        key: str,
        namespace: str,
        value: Any,
        channel: str,
        messages: Sequence[Any],
        ttl: float | None = None,
        raw: bool = False,
    ) -> None:
        """``store_in_cache``, then ``publish_all``: at once in the embedded cache, each in its own time in Redis.

        CacheRefusedError where the value was not stored but the messages were sent; after another CacheError they may
        not have been.
        """
        place, subject, seconds = _place(key, namespace), _checked("channel", channel), _seconds(ttl)
        content, contents = _content(value, raw), [_content(one, raw, "message") for one in messages]
        work = self._backend.set_and_publish(place, content, seconds, subject, contents)
        await self._call(work, 2 * CALL_LIMIT)

    def subscribe(self, *channels: str) -> Subscription:
        """An async iterator over the messages of ``channels``::

            async with cache.subscribe("signals") as messages:  # subscribed from here on
                async for message in messages:
                    print(message.channel, message.value)

        ``async for`` without ``async with`` subscribes at its first step. A broken connection raises CacheError,
        because messages may have been missed: read the state anew and go on with the same iterator, which subscribes
        again. So does a message that is no JSON. Redis sends at once, the embedded cache within ``embedded.POLL``
        seconds.
        """
        if not channels:
            raise InputError.of("channels", channels, "must be at least one channel")
        names = tuple(dict.fromkeys(_checked("channel", channel) for channel in channels))
        return Subscription(self, self._backend.feed(names))

    # --- life --------------------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Return when the cache answers; CacheError where it does not."""
        await self._call(self._backend.ping())

    async def aclose(self) -> None:
        """Close connections and files; a later call opens them anew."""
        await self._backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _call(self, work: Awaitable[T], limit: float = CALL_LIMIT) -> T:
        """Await ``work`` for a second at most, or ``limit``, and remember how it went."""
        problem = None
        try:
            async with asyncio.timeout(limit):
                result = await work
            self._healthy = True
            return result
        except TimeoutError:
            problem = CacheError(f"{self._backend.name}: no answer in time")
        except CacheError as error:
            problem = error
        self._healthy = False
        raise problem

    def _decoded(self, place: str, content: bytes) -> Any:
        try:
            return json.loads(content, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            problem = f"{self._backend.name}: what {place} holds is no JSON"
        raise CacheError(problem)


class Subscription:
    """Messages of some channels, an async iterator; made by ``SimpleCacheHandler.subscribe``."""

    def __init__(self, handler: SimpleCacheHandler, feed: Feed) -> None:
        self._handler = handler
        self._feed = feed
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._handler._call(self._feed.start())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        if self._closed:
            raise StopAsyncIteration
        await self._handler._call(self._feed.start())
        try:
            channel, content = await self._feed.next()
        except CacheError:
            self._handler._healthy = False
            raise
        return Message(channel, self._handler._decoded(f"a message on {channel}", content))

    async def aclose(self) -> None:
        """Unsubscribe; the iteration ends."""
        self._closed = True
        await self._feed.close()


def _place(key: str, namespace: str) -> str:
    return f"{_checked('key', key)}:{_checked_namespace(namespace)}"


def _checked(argument: str, value: str) -> str:
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        raise InputError.of(argument, value, "must be 1 to 200 letters, digits or _ . : / -")
    return value


def _checked_namespace(namespace: str) -> str:
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        raise InputError.of("namespace", namespace, "must be 1 to 64 letters, digits or _ . -")
    return namespace


def _seconds(ttl: float | None) -> float | None:
    if ttl is None:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not 0.001 <= ttl <= _LONGEST_TTL:
        raise InputError.of("ttl", ttl, "must be seconds, from 0.001 to ten years, or None for good")
    return float(ttl) if math.isfinite(ttl) else None


def _content(value: Any, raw: bool, argument: str = "value") -> bytes:
    return _bytes(value, argument) if raw else _encoded(value, argument)


def _bytes(value: Any, argument: str) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise InputError.of(argument, value, "must be bytes or text when raw")


def _encoded(value: Any, argument: str) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        problem = f"must be what JSON can hold ({error})"
    raise InputError.of(argument, type(value).__name__, problem)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
