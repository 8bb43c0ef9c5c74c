"""Where the lake's files lie and the only functions that touch them.

Everything above works with paths relative to the lake's root, written with ``/``. ``Storage`` holds the rules of
what lies where and may only be read; ``LocalStorage`` is a folder, which adds writing: that needs atomic renames
and locks, which object stores have not got. ``s3.S3Storage`` is the other place to read from.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from aione_lab.errors import InputError, LakeError
from aione_lab.files import LockHeld, hold_lock, make_folder, sync_folder, write_whole
from aione_lab.units import interval_ms, parse_symbol

MANIFEST = "_manifest.json"  # the leading underscore hides it from dataset readers
DATA_FILE = re.compile(r"(\d{8})-([0-9a-f]{32})\.parquet")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
_MONTH = re.compile(r"month=(\d{4}-\d{2})")
_INTERVAL = re.compile(r"interval=([0-9a-z]+)")
_SYMBOL = re.compile(r"symbol=([A-Z0-9_]+)")
_SETTLED_NS = 100_000_000  # a file younger than this could change again without a new time stamp

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Series:
    """One series of the lake: the candles of a symbol and interval, or (interval None) its funding."""

    symbol: str
    interval: str | None

    @classmethod
    def of(cls, symbol: str, interval: str | None) -> Series:
        """Checked: no unparsed symbol or interval ever reaches a path."""
        if interval is not None:
            interval_ms(interval)
        return cls(parse_symbol(symbol), interval)

    @property
    def folder(self) -> str:
        """Hive-partitioned folder of the series, relative to the lake."""
        if self.interval is None:
            return f"funding/symbol={self.symbol}"
        return f"candles/interval={self.interval}/symbol={self.symbol}"

    @property
    def label(self) -> str:
        """How messages name the series."""
        return f"{self.symbol} {self.interval or 'funding'}"


class Entry(NamedTuple):
    """One name in a folder."""

    name: str
    is_folder: bool


class Stored(NamedTuple):
    """Content of a file, and what changes whenever the file does; None where nothing sure is known of that."""

    content: bytes
    identity: tuple[object, ...] | None


class Storage(ABC):
    """Files of one lake, to be read. ``root`` is what ``Lake`` takes to open the same place again."""

    root: str

    @abstractmethod
    def path(self, relative: str) -> str:
        """Full path or address of a relative one."""

    @abstractmethod
    def load(self, relative: str) -> Stored:
        """Whole content with its identity; FileNotFoundError when absent."""

    @abstractmethod
    def entries(self, folder: str) -> list[Entry]:
        """What lies in a folder, in any order; nothing when it is not there."""

    @abstractmethod
    def map(self, function: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[_Made]:
        """Results in the order of ``items``; at the same time where waiting is what reading takes."""

    def read(self, relative: str) -> bytes:
        """Whole content; FileNotFoundError when absent."""
        return self.load(relative).content

    def series(self) -> Iterator[Series]:
        """Every series folder that is there, by interval and symbol; foreign folders are passed over."""
        for folder, interval in self._folders("candles", _INTERVAL):
            for _, symbol in self._folders(folder, _SYMBOL):
                with contextlib.suppress(InputError):  # a foreign folder: not a series of ours
                    yield Series.of(symbol, interval)
        for _, symbol in self._folders("funding", _SYMBOL):
            with contextlib.suppress(InputError):
                yield Series.of(symbol, None)

    def _folders(self, folder: str, pattern: re.Pattern[str]) -> list[tuple[str, str]]:
        """Sorted (path, value) of the hive folders ``key=value`` in a folder."""
        return [
            (f"{folder}/{entry.name}", match[1])
            for entry in sorted(self.entries(folder))
            if (match := pattern.fullmatch(entry.name)) and entry.is_folder
        ]

    def data_files(self, series: Series) -> list[str]:
        """Data files there are, relative to the series folder (``month=2025-05/<name>``), sorted."""
        return [name for name, kind in self._scan(series) if kind == "data"]

    def temporaries(self, series: Series) -> list[str]:
        """Unfinished files left by crashed writers (or being written), relative to the series folder."""
        return [name for name, kind in self._scan(series) if kind == "temporary"]

    def _scan(self, series: Series) -> list[tuple[str, str]]:
        top = self.entries(series.folder)
        found = [(entry.name, "temporary") for entry in top if _TEMPORARY.fullmatch(entry.name)]
        for month in top:
            if _MONTH.fullmatch(month.name) and month.is_folder:
                for entry in self.entries(f"{series.folder}/{month.name}"):
                    if DATA_FILE.fullmatch(entry.name):
                        found.append((f"{month.name}/{entry.name}", "data"))
                    elif _TEMPORARY.fullmatch(entry.name):
                        found.append((f"{month.name}/{entry.name}", "temporary"))
        return sorted(found)

    # ---- writing: refused, unless the place can do it ------------------------------------------

    def check_writable(self) -> None:
        """LakeError where the lake lies in a place that can only be read."""
        raise LakeError(f"{self.root} is read-only: write to a local lake and copy it there")

    def writable(self) -> bool:
        """Whether this process may write into the lake."""
        return False

    def exists(self, relative: str) -> bool:
        """Whether the file or folder is there."""
        self.check_writable()  # only writers ask
        return False

    def write(self, relative: str, content: bytes) -> None:
        """Write a file so that it is whole or absent."""
        self.check_writable()

    def remove(self, relative: str) -> None:
        """Remove a file."""
        self.check_writable()

    def rename(self, relative: str, new: str) -> None:
        """Rename within a folder."""
        self.check_writable()

    @contextlib.contextmanager
    def lock(self, symbol: str, timeout: float) -> Iterator[None]:
        """Hold the symbol's lock."""
        self.check_writable()
        yield


class LocalStorage(Storage):
    """Files of one lake on the local disk."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        try:
            self._folder = Path(root).expanduser().absolute()
            if "\0" in str(root) or not str(root).strip():  # exists() would only say no; "" is the folder we are in
                raise ValueError("no name")
            is_file = self._folder.exists() and not self._folder.is_dir()
        except (TypeError, ValueError, RuntimeError, OSError) as error:  # no path, no such user, a name too long
            why = f" ({error.strerror})" if isinstance(error, OSError) else ""
            raise InputError.of("root", root, f"must be the folder of a lake{why}") from None
        if is_file:
            raise InputError.of("root", str(root), "must be the folder of a lake, this is a file")
        self.root = str(self._folder)

    def path(self, relative: str) -> str:
        return str(self._folder / relative)

    def load(self, relative: str) -> Stored:
        """Known by (device, inode, size, mtime, ctime).

        Read and not memory-mapped: what is checked is what is decoded, and a file that somebody
        cuts short meanwhile cannot kill the process with SIGBUS.
        """
        path = self._folder / relative
        stat = path.stat()
        content = path.read_bytes()
        settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS
        known = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        return Stored(content, known if settled else None)

    def entries(self, folder: str) -> list[Entry]:
        try:
            with os.scandir(self._folder / folder) as entries:
                return [Entry(entry.name, entry.is_dir()) for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def map(self, function: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[_Made]:
        return map(function, items)

    def exists(self, relative: str) -> bool:
        return (self._folder / relative).exists()

    def check_writable(self) -> None:
        """Nothing: what the disk refuses, it says itself."""

    def write(self, relative: str, content: bytes) -> None:
        """Write a file so that it is whole or absent, also after a power cut.

        See ``files.write_whole``; the folders made on the way are synced too.
        """
        target = self._folder / relative
        self._make_folder(target.parent)
        write_whole(target, content)

    def _make_folder(self, folder: Path) -> None:
        try:
            make_folder(folder)
        except OSError as error:
            raise LakeError(f"{error.filename or folder}: cannot be made ({error.strerror})") from None

    def remove(self, relative: str) -> None:
        """Remove a file, and its month folder when that was the last one in it."""
        path = self._folder / relative
        path.unlink(missing_ok=True)
        if _MONTH.fullmatch(path.parent.name):
            with contextlib.suppress(OSError):  # not empty: other parts of the month are still in it
                path.parent.rmdir()

    def rename(self, relative: str, new: str) -> None:
        """Rename within a folder."""
        os.replace(self._folder / relative, self._folder / new)
        sync_folder((self._folder / new).parent)

    def writable(self) -> bool:
        """Whether this process may write into the lake's folder."""
        return os.access(self._folder, os.W_OK)

    @contextlib.contextmanager
    def lock(self, symbol: str, timeout: float) -> Iterator[None]:
        """Hold the symbol's lock, across processes and threads; the kernel frees it when its holder dies.

        Raises LakeError when another writer still holds it after ``timeout`` seconds.
        """
        folder = self._folder / ".locks"
        self._make_folder(folder)
        try:
            with hold_lock(folder / f"{parse_symbol(symbol)}.lock", timeout):
                yield
        except LockHeld:
            raise LakeError(f"{symbol}: another writer holds the lock of this symbol (waited {timeout:g} s)") from None
