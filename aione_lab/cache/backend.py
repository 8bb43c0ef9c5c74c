"""What a place that keeps the cache has to offer; Redis and the embedded file offer the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

CALL_LIMIT = 0.9
"""Seconds after which a call has failed; connecting, retries and pauses between them are within it."""


class Feed(Protocol):
    """Messages of some channels. After a CacheError it can be started again; what came meanwhile is lost."""

    async def start(self) -> None:
        """Subscribe: what is published after this returns will come. Nothing happens when it is running."""

    async def next(self) -> tuple[str, bytes]:
        """The next message as (channel, content), however long it takes; CacheError where the feed broke."""

    async def close(self) -> None:
        """Unsubscribe and let go of the connection."""


class Backend(Protocol):
    """Bytes by physical key, and channels. Every method raises CacheError and nothing else for what goes wrong."""

    @property
    def name(self) -> str:
        """How messages and the repr name the place, without user and password."""

    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        """Store; ``ttl`` in seconds, None: for good."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None where there is none or its time is over."""

    async def delete(self, key: str) -> bool:
        """Remove; whether there was something."""

    async def keys(self, suffix: str) -> list[str]:
        """Physical keys that end in ``suffix``, in no order."""

    async def publish(self, channel: str, contents: Sequence[bytes]) -> None:
        """Send messages, in order, to everybody who is subscribed now."""

    async def set_and_publish(
        self, key: str, value: bytes, ttl: float | None, channel: str, contents: Sequence[bytes]
    ) -> None:
        """``set``, then ``publish``, in the time of both; CacheRefusedError where only the messages went."""

    async def ping(self) -> None:
        """Return when the place answers."""

    def feed(self, channels: tuple[str, ...]) -> Feed:
        """A feed of these channels, not started."""

    async def close(self) -> None:
        """Let go of connections; a later call opens them anew."""
