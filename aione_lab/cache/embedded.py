"""The cache in one SQLite file, for everything that runs without Redis.

Several processes of one machine may share the file (not over a network file system: SQLite's write-ahead log needs
shared memory). Messages are rows of a table that subscribers look into every ``POLL`` seconds, so publish and subscribe
work across processes as well. While the file is open SQLite keeps its log beside it (``-wal``, ``-shm``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from aione_lab.errors import CacheError, InputError

POLL = 0.05  # seconds between two looks for new messages
KEEP = 60.0  # seconds for which a message waits for slow subscribers
BUSY = 0.7  # seconds to wait for another writer; less than the limit of a call
LAYOUT = 1
PAGE = 16_384  # bytes: a state of hundreds of assets is fifty pages, and not two hundred
LARGEST_LOG = 4_000_000  # bytes that were written to SQLite's log and wait to be copied into the file
MEMORY = 16_000  # KiB of pages: with SQLite's 2,000 a write of several hundred states spills over in between
TIDY_S = 0.2  # seconds after the last of several writes in which nobody should have to wait for that
_BATCH = 500  # messages fetched at once

_TABLES = f"""
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL);
CREATE INDEX IF NOT EXISTS entries_expire ON entries (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS messages
    (id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, content BLOB NOT NULL, sent REAL NOT NULL);
CREATE INDEX IF NOT EXISTS messages_sent ON messages (sent);
PRAGMA user_version = {LAYOUT};
"""

T = TypeVar("T")


class EmbeddedBackend:
    """Keys and messages in the SQLite file ``path``, made when it is first used.

    A single thread of its own does the work, so that the event loop never waits for the disk.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            self.path = Path(path).absolute()
        except (TypeError, ValueError, OSError):
            raise InputError.of("path", path, "must be the path of the cache's file") from None
        if "\0" in str(path) or self.path.is_dir():
            raise InputError.of("path", str(path), "must be the path of the cache's file")
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int, int] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._pid = os.getpid()
        self._tidying: asyncio.TimerHandle | None = None
        self._logged = 0  # bytes that were written since the log was copied
        self.replaced = 0  # times that another file was there than the one that was open

    @property
    def name(self) -> str:
        """The file."""
        return str(self.path)

    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        """Store; what has expired makes room at the same time."""

        await self._write(lambda connection: _set(connection, key, value, ttl), len(value))

    async def get(self, key: str) -> bytes | None:
        """The value while its time lasts."""

        def work(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(
                "SELECT value FROM entries WHERE key = ? AND (expires IS NULL OR expires > ?)", (key, time.time())
            ).fetchone()
            return None if row is None else row[0]

        return await self.run(work)

    async def delete(self, key: str) -> bool:
        """Remove; an expired value was not there any more."""

        def work(connection: sqlite3.Connection) -> bool:
            connection.execute("DELETE FROM entries WHERE expires <= ?", (time.time(),))
            return connection.execute("DELETE FROM entries WHERE key = ?", (key,)).rowcount > 0

        return await self._write(work)

    async def keys(self, suffix: str) -> list[str]:
        """Keys that end in ``suffix`` and have not expired."""

        def work(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute(
                "SELECT key FROM entries WHERE substr(key, ?) = ? AND (expires IS NULL OR expires > ?)",
                (-len(suffix), suffix, time.time()),
            )
            return [row[0] for row in rows]

        return await self.run(work)

    async def publish(self, channel: str, contents: Sequence[bytes]) -> None:
        """Add messages, and drop those that have waited long enough."""

        await self._write(lambda connection: _send(connection, channel, contents), sum(map(len, contents)))

    async def set_and_publish(
        self, key: str, value: bytes, ttl: float | None, channel: str, contents: Sequence[bytes]
    ) -> None:
        """``set`` and ``publish`` in one transaction: both or neither."""

        def work(connection: sqlite3.Connection) -> None:
            _set(connection, key, value, ttl)
            _send(connection, channel, contents)

        await self._write(work, len(value) + sum(map(len, contents)))

    async def ping(self) -> None:
        """Return when the file can be read."""
        await self.run(lambda connection: connection.execute("SELECT 1 FROM entries LIMIT 1").fetchone())

    def feed(self, channels: tuple[str, ...]) -> EmbeddedFeed:
        """A feed of these channels, not started."""
        return EmbeddedFeed(self, channels)

    async def close(self) -> None:
        """Close the file and end the thread."""
        thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            await asyncio.get_running_loop().run_in_executor(thread, self._drop)
            thread.shutdown(wait=False)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Result of ``work(connection)``, one transaction in the backend's thread; CacheError where it fails."""
        if self._thread is None or self._pid != os.getpid():  # a forked child has neither the thread nor the connection
            self._pid, self._connection = os.getpid(), None
            self._thread = ThreadPoolExecutor(1, "aione-cache")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)

    async def _write(self, work: Callable[[sqlite3.Connection], T], size: int = 0) -> T:
        """``run`` of what writes ``size`` bytes; a long log is copied into the file when no other write follows."""
        self._logged += size
        if self._tidying is not None:
            self._tidying.cancel()
        self._tidying = asyncio.get_running_loop().call_later(TIDY_S, self._tidy)
        return await self.run(work)

    def _tidy(self) -> None:
        if self._logged > LARGEST_LOG and self._thread is not None and self._pid == os.getpid():
            self._logged = 0
            self._thread.submit(self._copy_log)

    def _copy_log(self) -> None:
        """Copy the log into the file, so that the next write begins it anew instead of making it longer.

        SQLite does so at 1,000 pages, within the call that fills the last of them.
        """
        with contextlib.suppress(sqlite3.Error):  # the next call meets what is wrong, and says so
            if self._connection is not None:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()  # waits for no reader

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._open() as connection:
                return work(connection)
        except (sqlite3.Error, OSError) as error:
            raise CacheError(f"the cache {self.path} cannot be used ({error})") from None

    def _open(self) -> sqlite3.Connection:
        """The connection; a new one where the file was removed or replaced since the last call."""
        if self._connection is not None and self._identity == self._identify():
            return self._connection
        self.replaced += self._connection is not None
        self._drop()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=BUSY, check_same_thread=False)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > LAYOUT:
                raise CacheError(f"the cache {self.path} was made by a newer version (layout {version})")
            if version < LAYOUT:
                connection.execute(f"PRAGMA page_size = {PAGE}")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_TABLES)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA cache_size = -{MEMORY}")
            connection.execute(f"PRAGMA journal_size_limit = {4 * LARGEST_LOG}")  # where a reader made it longer
        except BaseException:
            connection.close()
            raise
        self._connection, self._identity = connection, self._identify()
        return connection

    def _identify(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return os.getpid(), found.st_dev, found.st_ino

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _set(connection: sqlite3.Connection, key: str, value: bytes, ttl: float | None) -> None:
    now = time.time()
    connection.execute("DELETE FROM entries WHERE expires <= ?", (now,))
    connection.execute(
        "INSERT INTO entries VALUES (?1, ?2, ?3) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires",
        (key, value, None if ttl is None else now + ttl),
    )


def _send(connection: sqlite3.Connection, channel: str, contents: Sequence[bytes]) -> None:
    now = time.time()
    connection.execute("DELETE FROM messages WHERE sent < ?", (now - KEEP,))
    rows = [(channel, content, now) for content in contents]
    connection.executemany("INSERT INTO messages (channel, content, sent) VALUES (?, ?, ?)", rows)


class EmbeddedFeed:
    """Messages newer than the start; ``CacheError`` where some were dropped before this feed had come for them.

    So too where the file was made anew: then it goes on with the first message of the new one.
    """

    def __init__(self, backend: EmbeddedBackend, channels: tuple[str, ...]) -> None:
        self._backend = backend
        self._channels = channels
        self._last: int | None = None
        self._file = 0
        self._waiting: deque[tuple[str, bytes]] = deque()

    async def start(self) -> None:
        """Remember where the messages end now."""
        if self._last is None:
            self._last, self._file = await self._backend.run(self._end)

    async def next(self) -> tuple[str, bytes]:
        """The next message; looks every ``POLL`` seconds."""
        await self.start()
        while not self._waiting:
            rows, (newest, file) = await self._backend.run(self._newer)
            last = self._last or 0
            if newest < last or file != self._file:
                self._last, self._file = 0, file
                raise CacheError(f"the cache {self._backend.path} was made anew: messages may be lost")
            if not rows:
                await asyncio.sleep(POLL)
                continue
            missed = rows[0][0] - last - 1
            self._last = rows[-1][0]
            self._waiting.extend((channel, content) for _, channel, content in rows if channel in self._channels)
            if missed:
                raise CacheError(f"the cache {self._backend.path}: up to {missed} messages came too fast and were lost")
        return self._waiting.popleft()

    def _newer(self, connection: sqlite3.Connection) -> tuple[list[tuple[int, str, bytes]], tuple[int, int]]:
        query = "SELECT id, channel, content FROM messages WHERE id > ? ORDER BY id LIMIT ?"
        return connection.execute(query, (self._last, _BATCH)).fetchall(), self._end(connection)

    def _end(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """The newest id that was given, and which file gave it."""
        query = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'"
        return connection.execute(query).fetchone()[0], self._backend.replaced

    async def close(self) -> None:
        """Forget what was waiting."""
        self._last = None
        self._waiting.clear()
