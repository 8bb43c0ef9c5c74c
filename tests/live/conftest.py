"""A Redis of a test's own, by the tools of the cache's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "cache"))

from redis_server import RedisServer, redis_or_skip, running_redis  # noqa: E402


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis to be killed and paused; skips where there is none to start."""
    redis_or_skip()
    with running_redis(tmp_path) as server:
        yield server
