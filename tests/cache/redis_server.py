"""A Redis that a test starts, pauses, kills and stops."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "canary-pa55word"
FAULTS = ("killed", "paused", "full", "read-only", "wrong password")


def redis_or_skip() -> None:
    """Skip the test where there is no Redis to start."""
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not on PATH")
    pytest.importorskip("redis", reason="the extra live is not installed")


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """A Redis to be killed and paused; it is gone afterwards whatever became of it."""
    server = RedisServer(folder)
    try:
        yield server
    finally:
        if server.process is not None:
            server.signal(signal.SIGCONT)
        server.kill()


class RedisServer:
    """A ``redis-server`` on a free loopback port, without persistence, stopped by its process id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        options += ["--dir", str(self.folder), "--requirepass", PASSWORD]
        with open(self.folder / "redis.log", "ab") as log:
            self.process = subprocess.Popen(["redis-server", *options], stdout=log, stderr=log)
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.01)
        raise RuntimeError((self.folder / "redis.log").read_text())

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def suffer(self, fault: str) -> None:
        """Let one of ``FAULTS`` begin."""
        if fault == "killed":
            self.kill()
        elif fault == "paused":
            self.signal(signal.SIGSTOP)
        elif fault == "full":
            self.admin("CONFIG", "SET", "maxmemory", "1")
        elif fault == "read-only":
            self.admin("REPLICAOF", "127.0.0.1", "1")
        else:
            self.admin("CONFIG", "SET", "requirepass", "another")
            self.admin("CLIENT", "KILL", "TYPE", "normal", password="another")

    def recover(self, fault: str) -> None:
        """Let it end."""
        if fault == "killed":
            self.start()
        elif fault == "paused":
            self.signal(signal.SIGCONT)
        elif fault == "full":
            self.admin("CONFIG", "SET", "maxmemory", "0")
        elif fault == "read-only":
            self.admin("REPLICAOF", "NO", "ONE")
        else:
            self.admin("CONFIG", "SET", "requirepass", PASSWORD, password="another")

    def admin(self, *command: str, password: str = PASSWORD) -> str:
        """Output of a command that the handler does not have."""
        call = ["redis-cli", "-p", str(self.port), "--no-auth-warning", "-a", password, *command]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()
