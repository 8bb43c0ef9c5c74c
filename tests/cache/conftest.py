"""A Redis of the tests' own, and one handler for each kind of cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_server import RedisServer, redis_or_skip, running_redis

from aione_lab.cache import SimpleCacheHandler, embedded, handler


@pytest.fixture(scope="session")
def redis_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for Redis; skips where there is no Redis to start."""
    redis_or_skip()
    return tmp_path_factory.mktemp("redis")


@pytest.fixture(scope="session")
def shared_redis(redis_home: Path) -> Iterator[RedisServer]:
    server = RedisServer(redis_home)
    yield server
    server.kill()


@pytest.fixture
def own_redis(redis_home: Path, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis to be killed and paused."""
    with running_redis(tmp_path) as server:
        yield server


@pytest.fixture(params=["redis", "embedded"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty cache of each kind."""
    if request.param == "embedded":
        return f"sqlite:///{tmp_path / 'cache.sqlite'}"
    server: RedisServer = request.getfixturevalue("shared_redis")
    server.admin("FLUSHALL")
    return server.url


@pytest.fixture
def cache(url: str, monkeypatch: pytest.MonkeyPatch) -> SimpleCacheHandler:
    """A handler that waits longer than users want: a busy test machine is no failure of a cache that works."""
    monkeypatch.setattr(handler, "CALL_LIMIT", 30.0)
    monkeypatch.setattr(embedded, "BUSY", 20.0)
    return SimpleCacheHandler.from_url(url)
