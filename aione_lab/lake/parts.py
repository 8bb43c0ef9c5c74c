"""Columns of a series as arrays: their Parquet form, merging, and the fingerprint of their content."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aione_lab.lake.schema import CANDLE_COLUMNS, FUNDING_COLUMNS, OPTIONAL_COLUMNS
from aione_lab.units import MINUTE_MS

Columns = dict[str, np.ndarray]
"""``timestamp`` int64 ms, strictly rising, then float64 columns of the same length."""

_PAGE_BYTES = 1 << 24  # one page a column: the reader then copies it in one go


@dataclass(frozen=True)
class Layout:
    """Columns of a kind of series, and how two rows are known to be the same event."""

    columns: tuple[str, ...]
    optional: tuple[str, ...]
    grid_ms: int

    def keys(self, ms: np.ndarray) -> np.ndarray:
        """Stamps to merge by: ``ms`` itself, or the nearest point of the grid where stamps are jittered."""
        if self.grid_ms == 1:
            return ms
        return (ms + self.grid_ms // 2) // self.grid_ms * self.grid_ms

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of a data file; nothing in it is nullable, unknown is NaN."""
        stamp = pa.field("timestamp", pa.timestamp("ms", tz="UTC"), nullable=False)
        return pa.schema([stamp, *(pa.field(name, pa.float64(), nullable=False) for name in self.columns)])


CANDLES = Layout(CANDLE_COLUMNS, OPTIONAL_COLUMNS, 1)
FUNDING = Layout(FUNDING_COLUMNS, (), MINUTE_MS)
"""Funding stamps lie some ms off the hour, differently in different sources: one payment a minute at most."""


def encode(columns: Columns, layout: Layout) -> bytes:
    """One Parquet file of one row group.

    Prices and volume are plain and uncompressed: a symbol-year then loads in less than half the time
    of lz4 (with or without byte-stream-split), for about one and a half times the disk. The optional
    columns, often all NaN, are lz4; stamps are delta-packed to nearly nothing.
    """
    arrays = [pa.array(columns["timestamp"], pa.int64()).cast(pa.timestamp("ms", tz="UTC"))]
    arrays += [pa.array(columns[name], pa.float64(), from_pandas=False) for name in layout.columns]
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=layout.schema),
        sink,
        row_group_size=max(1, len(columns["timestamp"])),
        use_dictionary=False,
        column_encoding={"timestamp": "DELTA_BINARY_PACKED", **dict.fromkeys(layout.columns, "PLAIN")},
        compression={name: "lz4" if name in layout.optional else "none" for name in ("timestamp", *layout.columns)},
        write_statistics=["timestamp"],
        data_page_size=_PAGE_BYTES,
    )
    return sink.getvalue()


def decode(content: bytes, names: tuple[str, ...]) -> Columns:
    """Columns ``timestamp`` and ``names`` of a data file, views on Arrow's buffers where they can be.

    Raises pyarrow.ArrowException or ValueError for content that is not such a file.
    """
    with pq.ParquetFile(pa.BufferReader(content), pre_buffer=False) as file:
        table = file.read(["timestamp", *names], use_threads=False)
    columns: Columns = {"timestamp": _numpy(table.column("timestamp").cast(pa.int64()))}
    for name in names:
        columns[name] = _numpy(table.column(name))
    return columns


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    if column.null_count:
        raise ValueError("nulls where none may be")
    if column.num_chunks == 1:
        return column.chunk(0).to_numpy(zero_copy_only=True)
    return column.to_numpy()


def concatenate(pieces: list[Columns], names: tuple[str, ...]) -> Columns:
    """One owned, writable copy of the pieces, end to end; no pieces give empty columns."""
    out: Columns = {}
    for name in ("timestamp", *names):
        dtype = np.int64 if name == "timestamp" else np.float64
        arrays = [piece[name] for piece in pieces]
        out[name] = np.concatenate(arrays) if arrays else np.empty(0, dtype)
    return out


def select(columns: Columns, rows: slice | np.ndarray) -> Columns:
    """The same columns, some of the rows."""
    return {name: values[rows] for name, values in columns.items()}


class Merged(NamedTuple):
    """Merged columns and how many rows of the newcomer were new, same, revised."""

    columns: Columns
    new: int
    same: int
    revised: int


def merge(old: Columns, new: Columns, layout: Layout) -> Merged:
    """Merge two sorted sets of rows: the newcomer wins a stamp, but never replaces a known optional by NaN.

    Unless it has another volume: what is known of the candle before is then of another candle.
    """
    names = ("timestamp", *layout.columns)
    old_keys, new_keys = layout.keys(old["timestamp"]), layout.keys(new["timestamp"])
    place = np.searchsorted(old_keys, new_keys)
    known = place < len(old_keys)
    known[known] = old_keys[place[known]] == new_keys[known]
    at = place[known]
    out = {name: old[name].copy() for name in names}
    changed = np.zeros(len(at), dtype=bool)
    for name in names:
        mine, theirs = old[name][at], new[name][known]
        if name in layout.optional:
            theirs = np.where(np.isnan(theirs) & (old["volume"][at] == new["volume"][known]), mine, theirs)
        changed |= ~((mine == theirs) | ((mine != mine) & (theirs != theirs)))
        out[name][at] = theirs
    fresh = ~known
    if fresh.any():
        out = {name: np.insert(out[name], place[fresh], new[name][fresh]) for name in names}
    revised = int(changed.sum())
    return Merged(out, int(fresh.sum()), len(at) - revised, revised)


def fingerprint(columns: Columns, names: tuple[str, ...]) -> str:
    """sha256 over the content: little-endian stamps, then each named column, one NaN and one zero.

    The same rows give the same text whatever files, parts or appends they came from.
    """
    digest = hashlib.sha256(f"aione-lab rows v1:{','.join(names)}:{len(columns['timestamp'])}:".encode())
    digest.update(np.ascontiguousarray(columns["timestamp"], dtype="<i8").data)
    for name in names:
        values = np.asarray(columns[name], dtype="<f8") + 0.0  # -0.0 becomes 0.0
        values[np.isnan(values)] = np.nan
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
