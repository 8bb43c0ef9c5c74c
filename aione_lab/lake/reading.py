"""Checked reading of committed data files, without a lock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from aione_lab.errors import LakeCorruption, LakeError
from aione_lab.lake import parts
from aione_lab.lake.manifest import Manifest, Part
from aione_lab.lake.parts import Columns
from aione_lab.lake.storage import Series, Storage

_ATTEMPTS = 50  # a reader meets at most one commit per attempt


class Reader:
    """Reads parts and checks the sha256 of each file once, as long as its identity stays the same.

    Hashing a symbol-year costs about twice as much as decoding it, so a file that was checked is
    known by what its storage says of it (size, times and more): writing to it in any way changes that.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._checked: dict[str, tuple[object, str]] = {}

    def consistent(
        self, series: Series, manifest: Callable[[], Manifest], read: Callable[[Manifest], Columns]
    ) -> Columns:
        """Read by one manifest; when a writer replaced files meanwhile, read again by the new one."""
        current = manifest()
        for _ in range(_ATTEMPTS):
            try:
                return read(current)
            except FileNotFoundError as error:
                newer = manifest()
                if newer.generation == current.generation:
                    raise LakeCorruption(f"{error.filename}: the file is in the manifest and not there") from None
                current = newer
        raise LakeError(f"{series.label}: it is being rewritten faster than it can be read")

    def rows(self, series: Series, manifest: Manifest, names: tuple[str, ...], first: int, last: int) -> Columns:
        """Rows with ``first`` ≤ timestamp < ``last``, of the parts that can hold any.

        The columns are rows of one block. One large allocation gets huge pages where a dozen of 4 MB
        do not, and a part is copied while it is in the cache: two thirds of the time of joining them all.
        """
        wanted = [part for part in manifest.parts if part.last_ms >= first and part.first_ms < last]
        block = np.empty((1 + len(names), sum(part.rows for part in wanted)))
        stamps = block[0].view(np.int64)
        filled = 0
        pieces = self._storage.map(lambda part: self.part(series, part, names), wanted)
        for part, piece in zip(wanted, pieces, strict=True):
            if part.first_ms < first or part.last_ms >= last:
                low, high = np.searchsorted(piece["timestamp"], [first, last])
                piece = parts.select(piece, slice(int(low), int(high)))
            end = filled + len(piece["timestamp"])
            stamps[filled:end] = piece["timestamp"]
            for row, name in enumerate(names, start=1):
                block[row, filled:end] = piece[name]
            filled = end
        columns = {name: block[row, :filled] for row, name in enumerate(names, start=1)}
        return {"timestamp": stamps[:filled], **columns}

    def joined(self, series: Series, several: list[Part], names: tuple[str, ...]) -> Columns:
        """All rows of some parts, end to end."""
        return parts.concatenate([self.part(series, part, names) for part in several], names)

    def part(self, series: Series, part: Part, names: tuple[str, ...]) -> Columns:
        """Checked columns of one part; LakeCorruption naming the file, FileNotFoundError when it is gone."""
        name = f"{series.folder}/{part.file}"
        shown = self._storage.path(name)
        try:
            content, identity = self._storage.load(name)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise LakeCorruption(f"{shown}: cannot be read ({error.strerror})") from None
        if identity is None or self._checked.get(name) != (identity, part.sha256):
            if hashlib.sha256(content).hexdigest() != part.sha256:
                raise LakeCorruption(
                    f"{shown}: its checksum differs from the manifest's ({len(content)} bytes read, {part.size} "
                    "written); restore the file, or set it aside with Lake.rebuild_manifest"
                )
            if identity is not None:
                self._checked[name] = (identity, part.sha256)
        try:
            columns = parts.decode(content, names)
        except (pa.ArrowException, ValueError, OSError, KeyError) as error:
            raise LakeCorruption(f"{shown}: not a readable data file ({error})") from None
        if len(columns["timestamp"]) != part.rows:
            raise LakeCorruption(f"{shown}: {len(columns['timestamp'])} rows, not {part.rows}")
        return columns

    def forget(self, series: Series, part: Part) -> None:
        """The part was removed."""
        self._checked.pop(f"{series.folder}/{part.file}", None)
