"""What can happen to a Redis, and how it passes."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "cache"))

from redis_server import PASSWORD, RedisServer  # noqa: E402

FAULTS = ("killed", "paused", "full", "read-only", "wrong password")


def begin(redis: RedisServer, fault: str) -> None:
    if fault == "killed":
        redis.kill()
    elif fault == "paused":
        redis.signal(signal.SIGSTOP)
    elif fault == "full":
        redis.admin("CONFIG", "SET", "maxmemory", "1")
    elif fault == "read-only":
        redis.admin("REPLICAOF", "127.0.0.1", "1")
    else:
        redis.admin("CONFIG", "SET", "requirepass", "another")
        redis.admin("CLIENT", "KILL", "TYPE", "normal", password="another")


def end(redis: RedisServer, fault: str) -> None:
    if fault == "killed":
        redis.start()
    elif fault == "paused":
        redis.signal(signal.SIGCONT)
    elif fault == "full":
        redis.admin("CONFIG", "SET", "maxmemory", "0")
    elif fault == "read-only":
        redis.admin("REPLICAOF", "NO", "ONE")
    else:
        redis.admin("CONFIG", "SET", "requirepass", PASSWORD, password="another")
