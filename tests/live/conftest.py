"""What several files of these tests need: a Redis of a test's own, and retries without their pauses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina

sys.path.append(str(Path(__file__).resolve().parent.parent / "cache"))

from redis_server import RedisServer, redis_or_skip, running_redis  # noqa: E402


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis to be killed and paused; skips where there is none to start."""
    redis_or_skip()
    with running_redis(tmp_path) as server:
        yield server


@pytest.fixture
def no_pauses() -> Iterator[None]:
    """Retries come at once; what the server asks to wait is waited for."""
    stamina.set_testing(True, attempts=8, cap=True)
    yield
    stamina.set_testing(False)
