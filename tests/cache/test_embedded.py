"""The embedded file: damage, other programs' files, a lock that is held, slow subscribers, forks."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aione_lab.cache import SimpleCacheHandler
from aione_lab.cache import embedded as module
from aione_lab.errors import CacheError, InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.sqlite"


@pytest.fixture
def cache(path: Path) -> SimpleCacheHandler:
    return SimpleCacheHandler.embedded(path)


def test_one_file_at_rest(cache: SimpleCacheHandler, path: Path) -> None:
    async def run() -> None:
        async with cache:
            await cache.set_json("k", 1)

    asyncio.run(run())
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "content", [b"this is no database, it is a text of some length " * 100, b"SQLite format 3\0" * 9]
)
def test_a_foreign_file_is_refused_by_name_and_left_alone(
    cache: SimpleCacheHandler, path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    with pytest.raises(CacheError, match="cache.sqlite cannot be used"):
        asyncio.run(cache.set_json("k", 1))
    assert path.read_bytes() == content and not cache.healthy


def test_a_newer_layout_is_refused(cache: SimpleCacheHandler, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CacheError, match="newer version"):
        asyncio.run(cache.get_json("k"))


@pytest.mark.parametrize("wrong", [5, None, "a\0b"])
def test_no_path(wrong: Any) -> None:
    with pytest.raises(InputError, match="path"):
        SimpleCacheHandler.embedded(wrong)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="path"):
        SimpleCacheHandler.embedded(tmp_path)


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = SimpleCacheHandler.embedded(tmp_path / "file" / "cache.sqlite")
    with pytest.raises(CacheError, match="cannot be used"):
        asyncio.run(cache.set_json("k", 1))


def test_a_lock_that_is_held_ends_in_an_error_and_then_in_success(cache: SimpleCacheHandler, path: Path) -> None:
    async def run() -> None:
        async with cache:
            await cache.set_json("k", 1)
            other = sqlite3.connect(path)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(CacheError, match="locked|no answer in time"):
                await cache.set_json("k", 2)
            assert await cache.get_json("k") == 1  # readers do not wait for writers
            other.rollback()
            other.close()
            await cache.set_json("k", 3)
            assert await cache.get_json("k") == 3 and cache.healthy

    asyncio.run(run())


def test_a_removed_file_is_made_anew(cache: SimpleCacheHandler, path: Path) -> None:
    async def run() -> None:
        async with cache:
            await cache.set_json("k", 1)
            for file in path.parent.iterdir():
                file.unlink()
            assert await cache.get_json("k") is None
            await cache.set_json("k", 2)
            async with SimpleCacheHandler.embedded(path) as other:
                assert await other.get_json("k") == 2

    asyncio.run(run())


def test_a_slow_subscriber_is_told_that_it_missed_something(
    cache: SimpleCacheHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP", 0.01)

    async def run() -> None:
        async with cache, cache.subscribe("signals") as messages:
            for number in range(3):
                await cache.publish("signals", number)
                await asyncio.sleep(0.03)
            await cache.publish("signals", "last")
            with pytest.raises(CacheError, match="up to 3 messages .* lost"):
                await anext(messages)
            assert (await anext(messages)).value == "last"

    asyncio.run(run())


@pytest.mark.parametrize("later", [0, 3, 9])
def test_a_subscriber_is_told_that_the_file_was_made_anew(cache: SimpleCacheHandler, path: Path, later: int) -> None:
    """Then it gets what is in the new file, however many messages those are."""

    async def run() -> None:
        async with cache, cache.subscribe("signals") as messages:
            for number in range(5):
                await cache.publish("signals", number)
            assert [(await anext(messages)).value for _ in range(5)] == list(range(5))
            for file in path.parent.iterdir():
                file.unlink()
            for number in range(later):
                await cache.publish("signals", f"new {number}")
            async with asyncio.timeout(20):
                with pytest.raises(CacheError, match="made anew"):
                    await anext(messages)
                await cache.publish("signals", f"new {later}")
                got = [(await anext(messages)).value for _ in range(later + 1)]
            assert got == [f"new {number}" for number in range(later + 1)]

    asyncio.run(run())


def test_a_subscriber_that_rested_is_told_that_the_file_was_made_anew(cache: SimpleCacheHandler, path: Path) -> None:
    """Also where nothing of this process had the old file open."""

    async def run() -> None:
        async with cache, cache.subscribe("signals") as messages:
            await cache.publish("signals", 1)
            await cache.aclose()
            assert (await anext(messages)).value == 1
            await cache.aclose()
            path.unlink()
            async with asyncio.timeout(20):
                with pytest.raises(CacheError, match="made anew"):
                    await anext(messages)

    asyncio.run(run())


def test_a_long_log_is_copied_into_the_file_after_a_call_and_not_within_it(
    cache: SimpleCacheHandler, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIDY_S", 1.0)
    log = path.with_name("cache.sqlite-wal")

    async def fill(texts: str) -> None:
        for text in texts:  # pages that stay as they are would not be written
            await cache.set_json("state", text * 1_000_000)

    async def run() -> None:
        async with cache:
            await fill("0123456789")
            longest = log.stat().st_size
            assert longest > module.LARGEST_LOG
            for _ in range(20):  # a write holds it off, however many there are
                await cache.set_json("other", 1)
                await asyncio.sleep(0.01)
            longest = log.stat().st_size
            assert path.stat().st_size < 100_000
            deadline = time.monotonic() + 20
            while path.stat().st_size < 1_000_000:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            await fill("abcdefgh")  # from the beginning of the log again
            assert log.stat().st_size == longest and await cache.get_json("state") == "h" * 1_000_000

    asyncio.run(run())


def test_short_writes_after_a_long_log_are_not_copied_one_by_one(
    cache: SimpleCacheHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIDY_S", 0.02)
    copied = []
    monkeypatch.setattr(module.EmbeddedBackend, "_copy_log", lambda backend: copied.append(backend))

    async def run() -> None:
        async with cache:
            for number in range(5):
                await cache.set_json("state", f"{number}" * 1_000_000)
            for number in range(5):
                await asyncio.sleep(0.1)
                await cache.publish("signals", number)
            assert len(copied) == 1

    asyncio.run(run())


def test_a_log_that_a_reader_made_long_becomes_short_again(
    cache: SimpleCacheHandler, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be left out of it while somebody reads what was there before it."""
    monkeypatch.setattr(module, "TIDY_S", 0.05)
    log = path.with_name("cache.sqlite-wal")

    async def run() -> None:
        async with cache:
            await cache.set_json("state", 1)
            reader = sqlite3.connect(path)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM entries").fetchone()
            for number in range(30):
                await cache.set_json("state", f"{number:02}" * 500_000)
            assert log.stat().st_size > 25_000_000
            reader.close()
            for number in range(6):
                await cache.set_json("state", f"{number}" * 1_000_000)
            deadline = time.monotonic() + 20
            while log.stat().st_size > 4 * module.LARGEST_LOG:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
                await cache.set_json("other", 1)

    asyncio.run(run())


def test_what_has_expired_leaves_the_file(cache: SimpleCacheHandler, path: Path) -> None:
    async def run() -> None:
        async with cache:
            for number in range(20):
                await cache.set_json(f"k{number}", number, ttl=0.01)
            await asyncio.sleep(0.05)
            await cache.set_json("last", 1)

    asyncio.run(run())
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT key FROM entries").fetchall() == [("last:global",)]
    connection.close()


def test_a_forked_child_has_a_connection_of_its_own(cache: SimpleCacheHandler) -> None:
    asyncio.run(cache.set_json("k", 1))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(cache.set_json("child", asyncio.run(cache.get_json("k")) + 1))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert asyncio.run(cache.get_json("child")) == 2


WRITER = """
import asyncio, sys
from aione_lab.cache import SimpleCacheHandler
async def run():
    async with SimpleCacheHandler.embedded(sys.argv[1]) as cache:
        for number in range(100_000):
            await cache.set_json("number", number)
            print(number, flush=True)
asyncio.run(run())
"""


def test_a_killed_writer_loses_nothing_that_it_had_written(cache: SimpleCacheHandler, path: Path) -> None:
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(20):
            told = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        told = max([told, *(int(line) for line in writer.stdout.read().splitlines() if line.isdigit())])
        writer.wait()
        began = time.monotonic()
        assert asyncio.run(cache.get_json("number")) >= told
        assert time.monotonic() - began < 5
