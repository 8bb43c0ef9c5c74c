"""The cache in Redis, through ``redis.asyncio``: bounded calls, reconnection, no password in any text."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from aione_lab.cache.backend import CALL_LIMIT
from aione_lab.errors import CacheError, CacheRefusedError, InputError

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

# Redis answers in well under a millisecond; two tries and the pause between them fit into CALL_LIMIT.
SOCKET_TIMEOUT = 0.6
CONNECT_TIMEOUT = 0.4
RETRIES = 2
CONNECTIONS = 16
IDLE = 3.0
"""Seconds of silence after which a subscriber asks whether Redis is still there."""

_SCHEMES = ("redis", "rediss", "unix")
_ALLOWED = (
    "must look like redis://host:6379/0, rediss://…, unix:///path/redis.sock or sqlite:///file "
    "(special characters of a password %-encoded)"
)


class RedisBackend:
    """Keys and channels of the Redis at ``url``; nothing is connected before the first call.

    A lost connection is made anew by redis-py's own retry, with growing pauses; what was under way may then reach
    Redis twice, which matters to messages only. Raises CacheError where redis-py is not installed.
    """

    def __init__(self, url: str) -> None:
        self.name, self._secrets = _inspect(url)
        try:
            import redis.asyncio  # noqa: F401  (an extra: everything offline works without it)
        except ImportError:
            missing = True
        else:
            missing = False
        if missing:
            raise CacheError("redis is not installed; install the extra: pip install 'aione-lab[live]'")
        self._url = url
        self._loop: asyncio.AbstractEventLoop | None = None
        self._commands: Redis | None = None
        self._subscribers: Redis | None = None
        self._client()  # an option that redis-py refuses is refused now

    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        """SET, with PX where there is a time to live."""
        await self.ask(self._client().set(key, value, px=None if ttl is None else max(1, round(ttl * 1000))))

    async def get(self, key: str) -> bytes | None:
        """GET."""
        return await self.ask(self._client().get(key))

    async def delete(self, key: str) -> bool:
        """DEL."""
        return bool(await self.ask(self._client().delete(key)))

    async def keys(self, suffix: str) -> list[str]:
        """SCAN, which lets others in between; a key that is no UTF-8 is none of ours."""

        async def scan() -> list[str]:
            found = set()
            async for key in self._client().scan_iter(match=f"*{suffix}", count=1000):
                with contextlib.suppress(UnicodeDecodeError):
                    found.add(key.decode())
            return list(found)

        return await self.ask(scan())

    async def publish(self, channel: str, contents: Sequence[bytes]) -> None:
        """PUBLISH, all in one go."""
        async with self._client().pipeline(transaction=False) as pipeline:
            for content in contents:
                pipeline.publish(channel, content)
            await self.ask(pipeline.execute())

    async def set_and_publish(
        self, key: str, value: bytes, ttl: float | None, channel: str, contents: Sequence[bytes]
    ) -> None:
        """SET, then PUBLISH: a Redis that is full or read-only may still pass messages on.

        Not in one go: over a slow line each has its own time, and messages would be sent again with every retry of SET.
        """
        refused = None
        try:
            await self.set(key, value, ttl)
        except CacheError as error:
            refused = CacheRefusedError(str(error))
        await self.publish(channel, contents)
        if refused is not None:
            raise refused

    async def ping(self) -> None:
        """PING."""
        await self.ask(self._client().ping())

    def feed(self, channels: tuple[str, ...]) -> RedisFeed:
        """A feed of these channels, not started."""
        return RedisFeed(self, channels)

    async def close(self) -> None:
        """Close the connections of this event loop."""
        clients, self._commands, self._subscribers = (self._commands, self._subscribers), None, None
        for client in clients:
            if client is not None and self._loop is asyncio.get_running_loop():
                with contextlib.suppress(CacheError):  # a server that is gone needs no good-bye
                    await self.ask(client.aclose(close_connection_pool=True))

    def pubsub(self) -> PubSub:
        """A new subscriber; its lost connection is an error, because messages were missed."""
        self._client()
        assert self._subscribers is not None
        return self._subscribers.pubsub()

    async def ask(self, work: Awaitable[Any], limit: float | None = CALL_LIMIT) -> Any:
        """Await a command; CacheError for all that can go wrong with it, after ``limit`` seconds at the latest."""
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(limit):
                return await work
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            reason = self._masked(str(error)) or "no answer in time"
        except (RuntimeError, ValueError) as error:  # a connection that was closed under the command
            reason = self._masked(str(error)) or type(error).__name__
        raise CacheError(f"{self.name}: {reason}")

    def _masked(self, text: str) -> str:
        """One line without the password: Redis quotes the arguments of commands that it does not know."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())[:300]

    def _client(self) -> Redis:
        """The client of the running event loop; connections of another one cannot be used in it."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if self._commands is None or self._loop is not loop:
            self._loop = loop
            self._commands = self._connect(RETRIES, CONNECTIONS)
            self._subscribers = self._connect(0, 1000)
        return self._commands

    def _connect(self, retries: int, connections: int) -> Redis:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import ExponentialBackoff
        from redis.exceptions import ConnectionError as LostConnection

        options: dict[str, Any] = {
            "socket_timeout": SOCKET_TIMEOUT,
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "socket_keepalive": True,
            # Not after a time-out: a server that is silent now would only be waited for twice.
            "retry": Retry(ExponentialBackoff(cap=0.25, base=0.05), retries, (LostConnection,)),
            "protocol": 2,  # understood by every Redis, also by those before 6
            "max_connections": connections,
            "timeout": CALL_LIMIT,  # for a free connection
        }
        if urlsplit(self._url).scheme == "unix":
            del options["socket_keepalive"]
        try:
            return Redis.from_pool(BlockingConnectionPool.from_url(self._url, **options))
        except (TypeError, ValueError):
            pass
        raise InputError(f"url: {_ALLOWED}")


class RedisFeed:
    """Messages of a subscription. Silence is followed by a PING, so that a dead server is noticed without a message."""

    def __init__(self, backend: RedisBackend, channels: tuple[str, ...]) -> None:
        self._backend = backend
        self._channels = channels
        self._pubsub: PubSub | None = None

    async def start(self) -> None:
        """SUBSCRIBE, and wait until Redis has confirmed every channel."""
        if self._pubsub is None:
            pubsub = self._backend.pubsub()
            try:
                await self._backend.ask(self._subscribe(pubsub))
            except BaseException:
                await self._close(pubsub)
                raise
            self._pubsub = pubsub

    async def _subscribe(self, pubsub: PubSub) -> None:
        await pubsub.subscribe(*self._channels)
        confirmed = 0
        while confirmed < len(self._channels):
            message = await pubsub.get_message(timeout=CALL_LIMIT)
            confirmed += message is not None and message["type"] == "subscribe"

    async def next(self) -> tuple[str, bytes]:
        """The next message."""
        await self.start()
        assert self._pubsub is not None
        asked = False
        try:
            while True:
                wait = CALL_LIMIT if asked else IDLE
                message = await self._backend.ask(self._pubsub.get_message(timeout=wait), wait + CALL_LIMIT)
                if message is not None:
                    asked = False
                    if message["type"] == "message":
                        return message["channel"].decode(), message["data"]
                elif asked:
                    raise CacheError(f"{self._backend.name}: no answer in time")
                else:
                    await self._backend.ask(self._pubsub.ping())
                    asked = True
        except CacheError:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection; nothing waits for a server that is gone."""
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            await self._close(pubsub)

    async def _close(self, pubsub: PubSub) -> None:
        with contextlib.suppress(CacheError):
            await self._backend.ask(pubsub.aclose())


def _inspect(url: str) -> tuple[str, list[str]]:
    """What may be shown of ``url``, and the secrets in it; InputError for what redis-py would read differently.

    The error never quotes the URL: with an unescaped ``/`` or ``#`` in a password, half of it stands where the port
    should be.
    """
    problem = None
    parts = port = None
    try:
        parts = urlsplit(url)
        port = parts.port
    except (TypeError, ValueError, AttributeError):
        problem = _ALLOWED
    if parts is None or problem or parts.scheme not in _SCHEMES or parts.fragment:
        raise InputError(f"url: {problem or _ALLOWED}")
    options = dict(parse_qsl(parts.query))
    for option in options:
        if option != "db" and not option.startswith("ssl_"):  # a time limit in the URL would undo ours
            name = option if re.fullmatch(r"[a-z_]{1,40}", option) else "…"
            raise InputError(f"url: the option {name} cannot be given there; db and ssl_* can")
    if parts.scheme == "unix":
        shown = f"unix://{parts.path}"
        usable = bool(parts.path) and options.get("db", "0").isdigit()
    else:
        host = parts.hostname or ""
        shown = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port or 6379}{parts.path}"
        usable = (
            re.fullmatch(r"[A-Za-z0-9._:%-]+", host) is not None and re.fullmatch(r"(/\d*)?", parts.path) is not None
        )
    if not usable:
        raise InputError(f"url: {_ALLOWED}")
    hidden = {parts.password or "", unquote(parts.password or "")} - {""}
    return shown, sorted(hidden, key=len, reverse=True)
