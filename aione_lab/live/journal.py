"""`Journal`: what a session saw and decided, in Parquet files that are whole or absent.

A folder holds parts, ``<first>-<last>.parquet`` by the numbers of the commits in them, each written beside its place
and renamed into it, and ``snapshot.bin``, from which a session goes on. A commit is one part, so all of it is there or
nothing. Small parts are put together into larger ones; DuckDB and pyarrow read them as ``*.parquet``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aione_lab.backtest.decode import several_fields
from aione_lab.engine.records import RECOMMENDATIONS, SIGNAL, SIGNALS, SUPPRESSED
from aione_lab.errors import AioneError, InputError
from aione_lab.files import LockHeld, hold_lock, make_folder, sync_folder, write_whole
from aione_lab.lake.schema import CANDLE_COLUMNS
from aione_lab.live.feed import Candle
from aione_lab.live.gate import Ready
from aione_lab.live.plain_text import without_halves

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("start", "resume", "warm", "thresholds", "bar", "revision", "funding", "second_look")
"""Kinds of rows. ``start``: a session began with a warm-up, its configuration is in ``detail``; ``resume``: it went on
from a snapshot; ``warm``: what a symbol was warmed up with; ``thresholds``: a set in force from the bar on; ``bar``: a
candle and what was decided on it; ``revision``: other numbers of a bar that was decided; ``funding``: a rate that came
too late for its bar; ``second_look``: Stage2 after a calibration."""

PUT_TOGETHER = 64
"""Small parts that become one."""
TRIES = 5
"""Times that a journal is read anew whose files a session changes meanwhile."""
LARGE = 20_000
"""Rows of a part that is left as it is."""

_PART = re.compile(r"(\d{10})-(\d{10})\.parquet")
_MAGIC = b"AIONE-SESSION\n"

SCHEMA = pa.schema(
    [
        ("kind", pa.dictionary(pa.int8(), pa.string())),
        ("symbol", pa.dictionary(pa.int16(), pa.string())),
        ("timestamp", pa.int64()),  # open of the bar, UTC ms
        ("at", pa.int64()),  # when it was written down, UTC ms by this machine's clock
        *((name, pa.float64()) for name in CANDLE_COLUMNS),
        ("source", pa.dictionary(pa.int8(), pa.string())),
        ("reference_close", pa.float64()),
        ("funding_rate", pa.float64()),
        ("signal", pa.dictionary(pa.int8(), pa.string())),
        ("suppressed", pa.dictionary(pa.int8(), pa.string())),
        ("recommendation", pa.dictionary(pa.int8(), pa.string())),
        ("reasons", pa.int64()),  # bit mask
        ("side", pa.int8()),
        ("position", pa.int8()),
        ("confidence", pa.float64()),
        ("low_gate", pa.float64()),
        ("high_gate", pa.float64()),
        ("vwap_threshold", pa.float64()),
        ("vol_z_threshold", pa.float64()),
        ("equity", pa.float64()),
        ("thresholds", pa.string()),  # digest of the set in force
        ("assessment", pa.binary()),  # ASSESSMENT record of an ALERT
        ("closed", pa.binary()),  # TRADE records that the bar closed
        ("detail", pa.string()),  # JSON: a configuration, a set of thresholds, a Stage2 dictionary
    ]
)
_KEYS = {"kind", "symbol", "timestamp"}  # what every row has
_NAMED = {"signal": SIGNALS, "suppressed": SUPPRESSED, "recommendation": RECOMMENDATIONS}
_PLAIN = (
    "reasons", "side", "position", "confidence",
    "low_gate", "high_gate", "vwap_threshold", "vol_z_threshold", "equity",
)  # fmt: skip

Row = Mapping[str, Any]


class BarRows(NamedTuple):
    """Bars that were decided together, one of each symbol: kept as they are, and made rows when they are written."""

    at: int  # when, UTC ms by this machine's clock
    ready: Sequence[Ready]
    signals: np.ndarray  # SIGNAL
    thresholds: Sequence[str]  # digests
    extra: Mapping[int, Row]  # place → what only few bars have: assessment, closed, detail

    def only(self, places: Sequence[int]) -> BarRows:
        """Those at ``places``."""
        ready, thresholds = [self.ready[i] for i in places], [self.thresholds[i] for i in places]
        extra = {new: self.extra[old] for new, old in enumerate(places) if old in self.extra}
        return self._replace(ready=ready, signals=self.signals[places], thresholds=thresholds, extra=extra)

    def rows(self) -> Iterator[Row]:
        """A row of each bar; what ``extra`` has as ``detail`` becomes JSON."""
        for i, (one, signal) in enumerate(zip(self.ready, several_fields(self.signals), strict=True)):
            yield {
                **candle_fields(one.candle),
                **signal_fields(signal),
                "kind": "bar",
                "symbol": one.candle.symbol,
                "timestamp": one.candle.timestamp,
                "at": self.at,
                "reference_close": one.reference_close,
                "funding_rate": one.funding_rate,
                "thresholds": self.thresholds[i],
                **_written(self.extra.get(i, {})),
            }


class Part(NamedTuple):
    """A file with the commits ``first`` to ``last``."""

    first: int
    last: int
    path: Path


class Journal:
    """The journal in ``folder``, which is made with the first commit. Reading needs no lock, writing has ``hold``."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._next = 0
        try:
            self.folder = Path(folder).absolute()
        except TypeError:
            raise InputError.of("journal", folder, "must be the folder of a journal") from None
        with contextlib.suppress(OSError):  # a name that no folder can have
            if "\0" not in str(folder) and (self.folder.is_dir() or not self.folder.exists()):
                return
        raise InputError.of("journal", str(folder), "must be the folder of a journal")

    def __repr__(self) -> str:
        return f"Journal({str(self.folder)!r})"

    # --- writing -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Be the only writer; sweeps what a killed one left. InputError while another one writes, or none can."""
        with contextlib.ExitStack() as held:
            try:
                make_folder(self.folder)
                held.enter_context(hold_lock(self.folder / ".lock", 0.0))
                for left in self.folder.glob(".*.tmp"):
                    left.unlink(missing_ok=True)
                parts = self._sweep()
            except LockHeld:
                raise InputError.of("journal", str(self.folder), "another session writes this journal") from None
            except OSError as error:
                problem = f"cannot be written ({error.strerror or error})"
                raise InputError.of("journal", str(self.folder), problem) from None
            self._next = parts[-1].last + 1 if parts else 0
            yield

    def commit(self, rows: Sequence[Row]) -> int:
        """Write rows as one part: all of them are on disk when this returns, or none. Returns the commit's number."""
        number = self._next
        make_folder(self.folder)  # somebody may have taken it away
        write_whole(self.folder / _name(number, number), _parquet(_table(rows)))
        self._next = number + 1
        return number

    @property
    def last(self) -> int:
        """Number of the last commit of the writer; −1 before the first."""
        return self._next - 1

    def put_together(self, until: int) -> None:
        """Make one file of small parts up to commit ``until`` where there are many."""
        small = [part for part in self.parts() if part.last <= until and _rows(part.path) < LARGE]
        while small and small[-1].last != until:  # leave what is not of the latest run alone
            small.pop()
        run: list[Part] = []
        for part in reversed(small):
            if run and part.last + 1 != run[-1].first:
                break
            run.append(part)
        run.reverse()
        if len(run) < PUT_TOGETHER:
            return
        table = pa.concat_tables([_alone(part.path) for part in run], promote_options="default")
        write_whole(self.folder / _name(run[0].first, run[-1].last), _parquet(table))
        for part in run:
            part.path.unlink()
        sync_folder(self.folder)
        del table
        pa.default_memory_pool().release_unused()

    def save_snapshot(self, head: Mapping[str, Any], blobs: Mapping[str, bytes]) -> None:
        """Write what a session goes on from: a JSON head and bytes by name, with a checksum."""
        text = json.dumps({**head, "blobs": {name: len(blob) for name, blob in blobs.items()}}).encode()
        body = len(text).to_bytes(4, "big") + text + b"".join(blobs.values())
        write_whole(self.folder / "snapshot.bin", _MAGIC + hashlib.sha256(body).digest() + body)

    # --- reading -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> tuple[dict[str, Any], dict[str, bytes]] | None:
        """The head and the bytes of the last snapshot; None where there is none. AioneError for a damaged one."""
        try:
            content = (self.folder / "snapshot.bin").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AioneError(f"{self.folder / 'snapshot.bin'}: cannot be read ({error.strerror})") from None
        body = content[len(_MAGIC) + 32 :]
        if content[: -len(body) or None] != _MAGIC + hashlib.sha256(body).digest():
            raise AioneError(f"{self.folder / 'snapshot.bin'}: is damaged")
        size = int.from_bytes(body[:4], "big")
        head = json.loads(body[4 : 4 + size])
        blobs, at = {}, 4 + size
        for name, length in head.pop("blobs").items():
            blobs[name] = body[at : at + length]
            at += length
        return head, blobs

    def parts(self) -> list[Part]:
        """The files that count, by number: one that is within another is left out."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in self.folder.iterdir():
                if named := _PART.fullmatch(path.name):
                    found.append(Part(int(named[1]), int(named[2]), path))
        out: list[Part] = []
        for part in sorted(found, key=lambda part: (part.first, -part.last)):
            if not out or part.last > out[-1].last:
                out.append(part)
        return out

    def table(self, after: int = -1, columns: Iterable[str] | None = None) -> pa.Table:
        """Rows of the commits after ``after``, in the order in which they were written."""
        names = SCHEMA.names if columns is None else list(columns)
        for _ in range(TRIES):
            with contextlib.suppress(FileNotFoundError):  # a session has put parts together meanwhile
                tables = [_read(part.path, names) for part in self.parts() if part.last > after]
                schema = pa.schema([SCHEMA.field(name) for name in names])
                return pa.concat_tables(tables) if tables else schema.empty_table()
        raise AioneError(f"{self.folder}: its files go away while they are read")

    def read(self, kind: str | None = None) -> pd.DataFrame:
        """All rows (of a kind) as a frame, in the order in which they were written."""
        if kind is not None and kind not in KINDS:
            raise InputError.unknown("kind", kind, KINDS)
        frame = self.table().to_pandas()
        return frame if kind is None else frame[frame["kind"] == kind].reset_index(drop=True)

    def _sweep(self) -> list[Part]:
        """The parts; those that were put together before a kill took them away go now."""
        parts = self.parts()
        kept = {part.path for part in parts}
        for path in self.folder.glob("*.parquet"):
            if _PART.fullmatch(path.name) and path not in kept:
                path.unlink()
        return parts


def detail_text(detail: Any) -> str:
    """The JSON of a row's ``detail``."""
    return without_halves(json.dumps(detail, ensure_ascii=False, separators=(",", ":")))


def _written(extra: Row) -> Row:
    return {**extra, "detail": detail_text(extra["detail"])} if "detail" in extra else extra


def candle_fields(candle: Candle) -> dict[str, Any]:
    """A candle as fields of a row."""
    return {**dict(zip(CANDLE_COLUMNS, candle.values, strict=True)), "source": candle.source}


def signal_fields(signal: Mapping[str, Any]) -> dict[str, Any]:
    """What a bar got (the fields of a SIGNAL by name) as fields of a row."""
    return {**signal, **{name: values[signal[name]] for name, values in _NAMED.items()}}


def signal_records(table: pa.Table) -> np.ndarray:
    """SIGNAL (n,) of the bars of a table."""
    out = np.zeros(len(table), SIGNAL)
    out["timestamp"] = table["timestamp"].to_numpy()
    for name, values in _NAMED.items():
        codes = {value: code for code, value in enumerate(values)}
        out[name] = [codes[value] for value in table[name].to_pylist()]
    for name in _PLAIN:
        out[name] = table[name].to_numpy()
    return out


def records_of(table: pa.Table, column: str, dtype: np.dtype[Any]) -> np.ndarray:
    """The records that a binary column holds, one after the other."""
    return np.frombuffer(b"".join(content for content in table[column].to_pylist() if content), dtype)


def _table(rows: Sequence[Row]) -> pa.Table:
    columns = {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in SCHEMA}
    return pa.table(columns, schema=SCHEMA)


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """AioneError, naming the file, for what cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise AioneError(f"{path}: cannot be read ({error})") from None


def _read(path: Path, names: list[str]) -> pa.Table:
    with _reading(path):
        if not _KEYS <= {*pq.read_schema(path).names}:
            raise AioneError(f"{path}: is no part of a journal")
        return pq.read_table(path, schema=SCHEMA, columns=names)


def _alone(path: Path) -> pa.Table:
    """A part, read by this thread: Arrow's own threads would keep memory for good, a little more every hour."""
    with _reading(path), pq.ParquetFile(path) as file:
        return file.read(use_threads=False)


def _rows(path: Path) -> int:
    with _reading(path):
        return int(pq.read_metadata(path).num_rows)


def _name(first: int, last: int) -> str:
    return f"{first:010d}-{last:010d}.parquet"
