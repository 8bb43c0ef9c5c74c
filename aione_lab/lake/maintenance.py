"""Care of a lake: sweeping leftovers, verifying every file, rebuilding a lost manifest."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from aione_lab.errors import LakeCorruption, LakeError
from aione_lab.lake import parts
from aione_lab.lake.manifest import Manifest, Part, build_part, describe, leftovers, load_manifest, save_manifest
from aione_lab.lake.parts import CANDLES, FUNDING, Columns, Layout
from aione_lab.lake.storage import DATA_FILE, Series, Storage
from aione_lab.units import interval_ms


@dataclass(frozen=True)
class Verified:
    """Files and rows that were checked, and every fault found, one line each, naming the file."""

    files: int
    rows: int
    faults: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return {"files": self.files, "rows": self.rows, "faults": list(self.faults)}


@dataclass(frozen=True)
class Rebuilt:
    """A manifest written anew: files and rows it names, and the files set aside because they are damaged."""

    files: int
    rows: int
    set_aside: tuple[str, ...]


def sweep(storage: Storage) -> list[str]:
    """Remove what crashed writers left; a series whose writer lives (holds the lock) is passed over."""
    removed: list[str] = []
    if not storage.writable():
        return removed
    for series in storage.series():
        if _swept(storage, series):
            continue
        try:
            with storage.lock(series.symbol, 0.0):
                # looked at again under the lock: a commit may have come between
                for file in leftovers(storage, series, load_manifest(storage, series)):
                    storage.remove(f"{series.folder}/{file}")
                    removed.append(f"{series.folder}/{file}")
        except LakeCorruption:
            continue  # without a sound manifest nothing is known to be a leftover; reading says what is wrong
        except LakeError:
            continue  # held by a living writer, which cleans up after itself
    return removed


def _swept(storage: Storage, series: Series) -> bool:
    try:
        return not leftovers(storage, series, load_manifest(storage, series))
    except LakeCorruption:
        return True


def verify(storage: Storage, lock_timeout: float) -> Verified:
    """Check manifests, checksums, content and leftovers of every series, reading every byte anew.

    Each series is checked under its symbol's lock (where the lake can be written to), so that what a
    living writer has under way is no fault; LakeError when a lock stays held.
    """
    files = rows = 0
    faults: list[str] = []
    for series in storage.series():
        with storage.lock(series.symbol, lock_timeout) if storage.writable() else contextlib.nullcontext():
            checked = _verify_series(storage, series)
        files += checked.files
        rows += checked.rows
        faults += checked.faults
    return Verified(files, rows, tuple(faults))


def _verify_series(storage: Storage, series: Series) -> Verified:
    layout = _layout(series)
    try:
        manifest = load_manifest(storage, series)
    except LakeCorruption as error:
        return Verified(0, 0, (str(error),))
    if manifest is None:
        return Verified(0, 0, ())
    rows = 0
    faults: list[str] = []
    previous = None
    for part in manifest.parts:
        name = storage.path(f"{series.folder}/{part.file}")
        try:
            columns = _proven(storage, series, part.file, layout, part.sha256)
        except LakeCorruption as error:
            faults.append(str(error))
            continue
        rows += part.rows
        stamps = columns["timestamp"]
        if (len(stamps), int(stamps[0]), int(stamps[-1])) != (part.rows, part.first_ms, part.last_ms):
            faults.append(f"{name}: rows or times differ from the manifest's")
        elif (np.diff(stamps) <= 0).any() or (previous is not None and stamps[0] <= previous):
            faults.append(f"{name}: times do not rise")
        elif series.interval is not None and (stamps % interval_ms(series.interval)).any():
            faults.append(f"{name}: times off the {series.interval} grid")
        previous = part.last_ms
    named = {part.file for part in manifest.parts}
    faults += [
        f"{storage.path(series.folder)}/{file}: not in the manifest"
        for file in (*storage.data_files(series), *storage.temporaries(series))
        if file not in named
    ]
    return Verified(len(manifest.parts), rows, tuple(faults))


def rebuild(storage: Storage, series: Series) -> Rebuilt:
    """Write the manifest of a series from its data files (the caller holds the lock).

    A file proves itself by the hash in its name. Overlapping files (a commit was under way) are merged
    by generation into one; files that prove nothing are renamed and named, never silently dropped.
    """
    layout = _layout(series)
    files = storage.data_files(series)
    if not files and not storage.exists(series.folder):
        raise LakeError(f"{series.label}: not in the lake {storage.root}")
    set_aside: list[str] = []
    sound: dict[str, list[tuple[str, Columns]]] = {}
    generation = 0
    for file in files:
        generation = max(generation, int(file[14:22]))
        try:
            columns = _proven(storage, series, file, layout, None)
        except LakeCorruption:
            month, name = file.split("/")
            storage.rename(f"{series.folder}/{file}", f"{series.folder}/{month}/_{name}.corrupt")
            set_aside.append(storage.path(f"{series.folder}/{month}/_{name}.corrupt"))
            continue
        sound.setdefault(file[:13], []).append((file, columns))
    result: list[Part] = []
    for month, found in sound.items():
        result += _settle(storage, series, layout, month, found, generation + 1)
    result.sort(key=lambda part: part.first_ms)
    manifest = Manifest(generation=generation + 1, parts=tuple(result))
    save_manifest(storage, series, manifest)
    for file in leftovers(storage, series, manifest):
        storage.remove(f"{series.folder}/{file}")
    return Rebuilt(len(result), manifest.rows, tuple(set_aside))


def _settle(
    storage: Storage, series: Series, layout: Layout, month: str, found: list[tuple[str, Columns]], generation: int
) -> list[Part]:
    """Parts of one month: its files as they are when they do not overlap, else one merged file."""
    by_time = sorted(found, key=lambda item: int(item[1]["timestamp"][0]))
    spans = [(int(c["timestamp"][0]), int(c["timestamp"][-1])) for _, c in by_time]
    if all(later[0] > earlier[1] for earlier, later in zip(spans, spans[1:], strict=False)):
        return [describe(file, storage.read(f"{series.folder}/{file}"), columns) for file, columns in by_time]
    merged = parts.concatenate([], layout.columns)
    for _, columns in sorted(found, key=lambda item: item[0]):  # by generation: the name begins with it
        merged = parts.merge(merged, columns, layout).columns
    part, content = build_part(month[6:], generation, merged, layout)
    storage.write(f"{series.folder}/{part.file}", content)
    return [part]


def _layout(series: Series) -> Layout:
    return FUNDING if series.interval is None else CANDLES


def _proven(storage: Storage, series: Series, file: str, layout: Layout, sha256: str | None) -> Columns:
    """All columns of a file whose content matches ``sha256`` (None: the hash in its name)."""
    name = storage.path(f"{series.folder}/{file}")
    try:
        content = storage.read(f"{series.folder}/{file}")
    except OSError as error:
        raise LakeCorruption(f"{name}: cannot be read ({error.strerror})") from None
    actual = hashlib.sha256(content).hexdigest()
    match = DATA_FILE.fullmatch(file.split("/")[1])
    if sha256 is None:
        matches = match is not None and actual.startswith(match[2])
    else:
        matches = actual == sha256
    if not matches:
        raise LakeCorruption(f"{name}: its checksum does not match ({len(content)} bytes)")
    try:
        columns = parts.decode(content, layout.columns)
    except (pa.ArrowException, ValueError, OSError, KeyError) as error:
        raise LakeCorruption(f"{name}: not a readable data file ({error})") from None
    if not len(columns["timestamp"]):
        raise LakeCorruption(f"{name}: holds no rows")
    return columns
