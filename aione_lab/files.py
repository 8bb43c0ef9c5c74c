"""Files that are whole or absent, and locks that die with their holder: what every store on disk rests on."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import filelock


class LockHeld(Exception):
    """Somebody else held the lock for longer than one would wait; the caller says whose and why."""


def write_whole(target: Path, content: bytes) -> None:
    """Write ``target`` so that it is whole or absent, also after a power cut; its folder has to be there.

    Temporary file in the same folder (``.<name>.<12 hex digits>.tmp``), fsync, replace, fsync of the folder: a SIGKILL
    at any instant leaves the old file or the new one, and perhaps a temporary one.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk: which file it was is worth knowing
            raise OSError(error.errno, error.strerror, str(target)) from None
        raise
    sync_folder(target.parent)


def may_be_file(place: Path) -> bool:
    """Whether ``place`` is the name of a file, there or not, in a folder that is there."""
    try:
        return b"\0" not in os.fsencode(place) and not place.is_dir() and place.absolute().parent.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each on disk before the next."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync_folder(new.parent)


def sync_folder(folder: Path) -> None:
    """Bring the folder's own entries to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def hold_lock(path: Path, timeout: float) -> Iterator[None]:
    """Hold the lock file ``path``, across processes and threads; the kernel frees it when its holder dies.

    Raises LockHeld when another still holds it after ``timeout`` seconds.
    """
    lock = filelock.FileLock(path, timeout=timeout, thread_local=False)
    try:
        lock.acquire(poll_interval=0.01)
    except filelock.Timeout:
        raise LockHeld(str(path)) from None
    try:
        yield
    finally:
        lock.release()
