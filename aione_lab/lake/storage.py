"""Where the lake's files lie and the only functions that touch them.

Everything above works with paths relative to the lake's root, written with ``/``, so that reading can
move to another file system (an object store through ``pyarrow.fs``) by replacing ``Storage`` alone.
Writing needs atomic renames and locks and stays local.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aione_lab.errors import InputError, LakeError
from aione_lab.files import LockHeld, hold_lock, make_folder, sync_folder, write_whole
from aione_lab.units import interval_ms, parse_symbol

MANIFEST = "_manifest.json"  # the leading underscore hides it from dataset readers
DATA_FILE = re.compile(r"(\d{8})-([0-9a-f]{32})\.parquet")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
_MONTH = re.compile(r"month=(\d{4}-\d{2})")
_SERIES = {
    "candles": re.compile(r"candles/interval=([0-9a-z]+)/symbol=([A-Z0-9_]+)"),
    "funding": re.compile(r"funding/symbol=([A-Z0-9_]+)"),
}


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


class Storage:
    """Files of one lake on the local disk."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        try:
            self.root = Path(root).absolute()
            if "\0" in str(root):
                raise ValueError("null byte")  # exists() would only say no
            is_file = self.root.exists() and not self.root.is_dir()
        except (TypeError, ValueError, OSError) as error:  # no path, a null byte in it, a name too long
            why = f" ({error.strerror})" if isinstance(error, OSError) else ""
            raise InputError.of("root", root, f"must be the folder of a lake{why}") from None
        if is_file:
            raise InputError.of("root", str(root), "must be the folder of a lake, this is a file")

    def path(self, relative: str) -> Path:
        """Full path of a relative one."""
        return self.root / relative

    def read(self, relative: str) -> bytes:
        """Whole content; FileNotFoundError when absent.

        Read and not memory-mapped: what is checked is what is decoded, and a file that somebody
        cuts short meanwhile cannot kill the process with SIGBUS.
        """
        return self.path(relative).read_bytes()

    def identity(self, relative: str) -> tuple[int, ...]:
        """What changes whenever the file is written to: (device, inode, size, mtime, ctime) in ns."""
        stat = self.path(relative).stat()
        return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns

    def exists(self, relative: str) -> bool:
        """Whether the file or folder is there."""
        return self.path(relative).exists()

    def series(self) -> Iterator[Series]:
        """Every series folder that is there, by interval and symbol; foreign folders are passed over."""
        for pattern, kind in ((_SERIES["candles"], "candles/*/*"), (_SERIES["funding"], "funding/*")):
            for folder in sorted(self.root.glob(kind)):
                match = pattern.fullmatch(folder.relative_to(self.root).as_posix())
                if match and folder.is_dir():
                    interval, symbol = match.groups() if len(match.groups()) == 2 else (None, match[1])
                    with contextlib.suppress(InputError):  # a foreign folder: not a series of ours
                        yield Series.of(symbol, interval)

    def data_files(self, series: Series) -> list[str]:
        """Data files on disk, relative to the series folder (``month=2025-05/<name>``), sorted."""
        return [name for name, kind in self._scan(series) if kind == "data"]

    def temporaries(self, series: Series) -> list[str]:
        """Unfinished files left by crashed writers (or being written), relative to the series folder."""
        return [name for name, kind in self._scan(series) if kind == "temporary"]

    def _scan(self, series: Series) -> list[tuple[str, str]]:
        found = []
        base = self.path(series.folder)
        folders = [("", base)]
        for entry in _entries(base):
            if _MONTH.fullmatch(entry.name) and entry.is_dir():
                folders.append((f"{entry.name}/", base / entry.name))
        for prefix, folder in folders:
            for entry in _entries(folder):
                if prefix and DATA_FILE.fullmatch(entry.name):
                    found.append((prefix + entry.name, "data"))
                elif _TEMPORARY.fullmatch(entry.name):
                    found.append((prefix + entry.name, "temporary"))
        return sorted(found)

    def write(self, relative: str, content: bytes) -> None:
        """Write a file so that it is whole or absent, also after a power cut.

        See ``files.write_whole``; the folders made on the way are synced too.
        """
        target = self.path(relative)
        self._make_folder(target.parent)
        write_whole(target, content)

    def _make_folder(self, folder: Path) -> None:
        try:
            make_folder(folder)
        except OSError as error:
            raise LakeError(f"{error.filename or folder}: cannot be made ({error.strerror})") from None

    def remove(self, relative: str) -> None:
        """Remove a file, and its month folder when that was the last one in it."""
        path = self.path(relative)
        path.unlink(missing_ok=True)
        if _MONTH.fullmatch(path.parent.name):
            with contextlib.suppress(OSError):  # not empty: other parts of the month are still in it
                path.parent.rmdir()

    def rename(self, relative: str, new: str) -> None:
        """Rename within a folder."""
        os.replace(self.path(relative), self.path(new))
        sync_folder(self.path(new).parent)

    def writable(self) -> bool:
        """Whether this process may write into the lake's folder."""
        return os.access(self.root, os.W_OK)

    @contextlib.contextmanager
    def lock(self, symbol: str, timeout: float) -> Iterator[None]:
        """Hold the symbol's lock, across processes and threads; the kernel frees it when its holder dies.

        Raises LakeError when another writer still holds it after ``timeout`` seconds.
        """
        folder = self.path(".locks")
        self._make_folder(folder)
        try:
            with hold_lock(folder / f"{parse_symbol(symbol)}.lock", timeout):
                yield
        except LockHeld:
            raise LakeError(f"{symbol}: another writer holds the lock of this symbol (waited {timeout:g} s)") from None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
