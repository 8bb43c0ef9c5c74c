"""The lake: candles and funding rates in month files of Parquet, appended atomically, read checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from aione_lab.errors import InputError, LakeCorruption, LakeError
from aione_lab.lake import maintenance, parts
from aione_lab.lake.manifest import Manifest, Part, build_part, load_manifest, save_manifest
from aione_lab.lake.parts import CANDLES, FUNDING, Columns, Layout
from aione_lab.lake.reading import Reader
from aione_lab.lake.resample import resample
from aione_lab.lake.s3 import open_storage
from aione_lab.lake.schema import CANDLE_COLUMNS, as_list, candle_frame, check_candles, check_funding, check_spacing
from aione_lab.lake.stamps import utc_index
from aione_lab.lake.storage import MANIFEST, Series
from aione_lab.units import to_ms

if TYPE_CHECKING:
    from aione_lab.lake.archives import Source
    from aione_lab.lake.audit import AuditReport
    from aione_lab.lake.maintenance import Rebuilt, Verified
    from aione_lab.lake.progress import ProgressCallback
    from aione_lab.lake.reports import FetchReport, ImportReport

SWALLOW = 8
"""A new part swallows the parts before it that hold less than this many times its rows (see ``Lake.append``)."""


_LONGEST_WAIT = 1_000_000  # seconds


class Appended(NamedTuple):
    """What an append did: rows not known before, known and equal, known with other values."""

    rows_new: int
    rows_same: int
    rows_revised: int


class Lake:
    """Candles and funding rates under one folder, or to be read only under an address ``s3://bucket/prefix``.

    A folder is made with the first append. Opening sweeps what crashed writers left behind, never the
    files of a living one. ``lock_timeout`` (seconds) bounds how long a write waits for another writer of
    the same symbol. Reading takes no lock.

    Files: ``candles/interval=1m/symbol=BTCUSDT/month=2025-05/<generation>-<hash>.parquet`` and
    ``funding/symbol=BTCUSDT/month=…``, a ``_manifest.json`` beside the months. DuckDB and
    ``pyarrow.dataset`` read them as hive partitions; ``Lake.files`` names exactly the committed ones.

    Every read checks the sha256 of the files it uses, once per file and ``Lake`` object as long as the
    file's size, inode and times stay the same; a damaged file raises LakeCorruption with its name.

    An object store (``aione_lab.lake.s3`` says how it is addressed) is read by the same rules, ETags in place
    of inodes; what would write raises LakeError, and so does a store that does not answer, within seconds.
    """

    def __init__(self, root: str | os.PathLike[str] = "data_lake", *, lock_timeout: float = 30.0) -> None:
        if not isinstance(lock_timeout, (int, float)) or not 0 <= lock_timeout <= _LONGEST_WAIT:
            raise InputError.of("lock_timeout", lock_timeout, f"must be seconds from 0 to {_LONGEST_WAIT:,}")
        self._storage = open_storage(root)
        self._lock_timeout = float(lock_timeout)
        self._reader = Reader(self._storage)
        maintenance.sweep(self._storage)

    @property
    def root(self) -> str:
        """Folder of the lake, or its address without credentials; ``Lake(root)`` opens the same lake."""
        return self._storage.root

    def __repr__(self) -> str:
        return f"Lake({self.root!r})"

    # ---- writing -------------------------------------------------------------------------------

    def check_writable(self) -> None:
        """LakeError where the lake can only be read: every method that writes raises the same."""
        self._storage.check_writable()

    def append(self, symbol: str, interval: str, frame: pd.DataFrame, *, sparse: bool = False) -> Appended:
        """Merge candles into the lake, all of them or none.

        ``frame`` passes ``check_candles`` (screen foreign rows with ``screen_candles`` first); an empty
        frame changes nothing. A later write wins over an earlier one: a candle that is there already
        with other values counts as revised. Known quote_volume, trades and taker_buy_volume are replaced by NaN
        only where the volume is another one, too. ``sparse``: the interval is sure, and bars may stand far apart.

        Rows after the last of their month become a small file of their own that swallows the files
        before it as long as they hold less than 8 times its rows: appending one candle at a time costs a
        bounded number of rewrites, and a month stays at a handful of files.

        Raises InputError for bad rows and for rows that stand another interval apart, LakeError when the
        symbol's lock stays held, LakeCorruption when a file it must merge with is damaged.
        """
        self.check_writable()
        series = Series.of(symbol, interval)
        if isinstance(frame, pd.DataFrame) and not len(frame):
            return Appended(0, 0, 0)
        columns = _candle_columns(check_candles(frame, interval, "frame"))
        if not sparse:
            check_spacing(columns["timestamp"], interval, "frame")
        return self._append(series, columns, CANDLES)

    def append_funding(self, symbol: str, frame: pd.DataFrame | pd.Series) -> Appended:
        """Merge funding rates (see ``check_funding``) into the lake, all of them or none.

        Stamps are kept to the millisecond; two of them nearest to the same minute are one payment,
        and the later write wins.
        """
        self.check_writable()
        series = Series.of(symbol, None)
        if isinstance(frame, (pd.DataFrame, pd.Series)) and not len(frame):
            return Appended(0, 0, 0)
        good = check_funding(frame, "frame")
        columns: Columns = {"timestamp": _stamps(good), "funding_rate": good["funding_rate"].to_numpy()}
        keys = FUNDING.keys(columns["timestamp"])
        last = np.append(keys[1:] != keys[:-1], True)
        return self._append(series, parts.select(columns, last), FUNDING)

    def compact(self, symbol: str, interval: str) -> int:
        """Merge the files of each month into one; returns how many months were rewritten."""
        self.check_writable()
        series = Series.of(symbol, interval)
        with self._storage.lock(series.symbol, self._lock_timeout):
            manifest = self._need(series)
            months: dict[str, list[Part]] = {}
            for part in manifest.parts:
                months.setdefault(part.month, []).append(part)
            pending = {
                month: [self._reader.joined(series, old, CANDLES.columns)]
                for month, old in months.items()
                if len(old) > 1
            }
            self._commit(series, manifest, {month: ([], new) for month, new in pending.items()}, CANDLES, 0)
            return len(pending)

    def resample(self, symbol: str, source: str = "1m", target: str = "5m") -> Appended:
        """Store the ``target`` candles that the ``source`` candles of the lake add up to (complete ones only)."""
        self.check_writable()
        return self.append(symbol, target, resample(self.candles(symbol, source), source, target), sparse=True)

    def _append(self, series: Series, columns: Columns, layout: Layout) -> Appended:
        counts = np.zeros(3, dtype=np.int64)
        with self._storage.lock(series.symbol, self._lock_timeout):
            manifest = load_manifest(self._storage, series)
            if manifest is None:
                manifest = Manifest()
                save_manifest(self._storage, series, manifest)  # data without a manifest means: lost, not: new
            changes: dict[str, tuple[list[Part], list[Columns]]] = {}
            for month, rows in _months(layout.keys(columns["timestamp"])):
                new = parts.select(columns, rows)
                old = [part for part in manifest.parts if part.month == month]
                last = int(layout.keys(np.array([old[-1].last_ms]))[0]) if old else -1
                if int(layout.keys(new["timestamp"][:1])[0]) > last:
                    keep, swallowed = _swallow(old, len(new["timestamp"]))
                    before = self._reader.joined(series, swallowed, layout.columns)
                    changes[month] = (keep, [parts.concatenate([before, new], layout.columns)])
                    counts[0] += len(new["timestamp"])
                    continue
                merged = parts.merge(self._reader.joined(series, old, layout.columns), new, layout)
                counts += (merged.new, merged.same, merged.revised)
                if merged.new or merged.revised:
                    changes[month] = ([], [merged.columns])
            self._commit(series, manifest, changes, layout, int(counts[2]))
        return Appended(*(int(count) for count in counts))

    def _commit(
        self,
        series: Series,
        manifest: Manifest,
        changes: dict[str, tuple[list[Part], list[Columns]]],
        layout: Layout,
        revised: int,
    ) -> None:
        """Write the new parts of the changed months, commit them together, remove what they replace."""
        if not changes:
            return
        generation = manifest.generation + 1
        result = [part for part in manifest.parts if part.month not in changes]
        written: list[Part] = []
        try:
            for month, (kept, pieces) in changes.items():
                result += kept
                for columns in pieces:
                    part, content = build_part(month, generation, columns, layout)
                    written.append(part)
                    self._storage.write(f"{series.folder}/{part.file}", content)
            result = sorted([*result, *written], key=lambda part: part.first_ms)
            committed = Manifest(generation=generation, revised=manifest.revised + revised, parts=tuple(result))
            save_manifest(self._storage, series, committed)
        except BaseException:  # the disk is full, an interrupt
            now = load_manifest(self._storage, series)
            if now is not None and now.generation == manifest.generation:  # else only the last fsync failed
                for part in written:
                    self._storage.remove(f"{series.folder}/{part.file}")
                if not manifest.generation:  # nothing was ever committed: there is no such series
                    self._storage.remove(f"{series.folder}/{MANIFEST}")
            raise
        kept_files = {part.file for part in result}
        for part in manifest.parts:
            if part.file not in kept_files:
                self._storage.remove(f"{series.folder}/{part.file}")
                self._reader.forget(series, part)

    # ---- reading -------------------------------------------------------------------------------

    def candles(self, symbol: str, interval: str, start: Any = None, end: Any = None) -> pd.DataFrame:
        """Candles with ``start`` ≤ timestamp < ``end`` (each None: as far as there are any).

        Returns float64 columns ``CANDLE_COLUMNS`` on a UTC DatetimeIndex named timestamp (unit ms), empty
        when the range holds none. Times are int64 UTC ms, ISO texts or datetimes with a zone.
        Raises LakeError when the lake has no such series, InputError for an empty range.
        """
        columns = self.arrays(symbol, interval, start, end)
        return candle_frame(columns.pop("timestamp"), columns, copy=False)

    def arrays(
        self, symbol: str, interval: str, start: Any = None, end: Any = None, columns: Sequence[str] = CANDLE_COLUMNS
    ) -> dict[str, np.ndarray]:
        """The same as arrays, without pandas: ``timestamp`` (int64 UTC ms) and ``columns`` (float64)."""
        names = tuple(as_list(columns, "columns", f"must be a list of {', '.join(CANDLE_COLUMNS)}"))
        for name in names:
            if name not in CANDLE_COLUMNS:
                raise InputError.unknown("columns", name, CANDLE_COLUMNS)
        series = Series.of(symbol, interval)
        first, last = _range(start, end)
        return self._rows(series, names, first, last)

    def funding(self, symbol: str, start: Any = None, end: Any = None) -> pd.Series:
        """Funding rates (fractions) with ``start`` ≤ timestamp < ``end``, a Series named funding_rate.

        Empty when the lake has none for this symbol: unknown, which is not the same as zero.
        """
        series = Series.of(symbol, None)
        first, last = _range(start, end)
        if load_manifest(self._storage, series) is None:
            columns = parts.concatenate([], FUNDING.columns)
        else:
            columns = self._rows(series, FUNDING.columns, first, last)
        return pd.Series(columns["funding_rate"], index=utc_index(columns["timestamp"]), name="funding_rate")

    def symbols(self, interval: str | None = None) -> list[str]:
        """Symbols with candles (of this interval, or of any), sorted."""
        if interval is not None:
            Series.of("BTCUSDT", interval)
        wanted = (s for s in self._storage.series() if s.interval and interval in (None, s.interval))
        return sorted({s.symbol for s in self._present(wanted)})

    def intervals(self, symbol: str) -> list[str]:
        """Intervals the symbol has candles of."""
        wanted = Series.of(symbol, None).symbol
        there = self._present(s for s in self._storage.series() if s.symbol == wanted)
        return sorted(s.interval for s in there if s.interval)

    def span(self, symbol: str, interval: str) -> tuple[int, int] | None:
        """First and last candle's open time in UTC ms, None when there are none."""
        manifest = load_manifest(self._storage, Series.of(symbol, interval))
        if manifest is None or not manifest.parts:
            return None
        return manifest.parts[0].first_ms, manifest.parts[-1].last_ms

    def rows_revised(self, symbol: str, interval: str) -> int:
        """How many rows later writes have changed since the series began (or its manifest was rebuilt)."""
        return self._need(Series.of(symbol, interval)).revised

    def files(self, symbol: str, interval: str) -> list[str]:
        """Full paths (or addresses) of the committed data files, in the order of time, for DuckDB or pyarrow."""
        series = Series.of(symbol, interval)
        return [self._storage.path(f"{series.folder}/{part.file}") for part in self._need(series).parts]

    def fingerprint(self, symbol: str, interval: str, start: Any = None, end: Any = None) -> str:
        """sha256 of the content of a range, the same for the same rows however they are stored.

        Equal to ``fingerprint_candles`` of the frame that ``candles`` returns.
        """
        return parts.fingerprint(self.arrays(symbol, interval, start, end), CANDLE_COLUMNS)

    def _present(self, wanted: Iterable[Series]) -> list[Series]:
        """Those that hold anything, damaged ones too: reading them will say what is wrong."""

        def present(series: Series) -> bool:
            try:
                manifest = load_manifest(self._storage, series)
            except LakeCorruption:
                return True
            return manifest is not None and bool(manifest.parts)

        found = list(wanted)
        return [series for series, there in zip(found, self._storage.map(present, found), strict=True) if there]

    def _rows(self, series: Series, names: tuple[str, ...], first: int, last: int) -> Columns:
        return self._reader.consistent(
            series,
            lambda: self._need(series),
            lambda manifest: self._reader.rows(series, manifest, names, first, last),
        )

    def _need(self, series: Series) -> Manifest:
        manifest = load_manifest(self._storage, series)
        if manifest is None or not manifest.parts:
            known = ", ".join(self.symbols(series.interval)[:8]) or "none"
            raise LakeError(f"{series.label}: not in the lake {self.root} (there: {known})")
        return manifest

    # ---- care ----------------------------------------------------------------------------------

    def verify(self) -> Verified:
        """Check every file of the lake anew and report each fault by name; raises for none of them."""
        return maintenance.verify(self._storage, self._lock_timeout)

    def rebuild_manifest(self, symbol: str, interval: str | None) -> Rebuilt:
        """Write a series' manifest anew from its data files; ``interval`` None is the symbol's funding.

        Every file's content must match the hash in its name. Files that do not are set aside under
        ``_….corrupt`` and named in the result; where files overlap, the later generation wins.
        """
        series = Series.of(symbol, interval)
        with self._storage.lock(series.symbol, self._lock_timeout):
            return maintenance.rebuild(self._storage, series)

    def audit(self, symbol: str, interval: str) -> AuditReport:
        """Gaps, broken bars, frozen stretches and a verdict, see ``aione_lab.lake.audit``."""
        from aione_lab.lake.audit import audit_lake

        return audit_lake(self, symbol, interval)

    # ---- from elsewhere ------------------------------------------------------------------------

    def import_candles(
        self,
        source: Source,
        *,
        symbol: str | None = None,
        interval: str,
        progress: ProgressCallback | bool | None = None,
    ) -> ImportReport:
        """Import candles from files or a frame, see ``aione_lab.lake.archives.import_candles``."""
        from aione_lab.lake import archives

        return archives.import_candles(self, source, symbol=symbol, interval=interval, progress=progress)

    def import_funding(
        self, source: Source, *, symbol: str | None = None, progress: ProgressCallback | bool | None = None
    ) -> ImportReport:
        """Import funding rates from files or a frame, see ``aione_lab.lake.archives.import_funding``."""
        from aione_lab.lake import archives

        return archives.import_funding(self, source, symbol=symbol, progress=progress)

    def fetch(
        self,
        exchange: Any,
        symbols: Sequence[str] | str,
        interval: str,
        *,
        since: Any,
        until: Any = None,
        **options: Any,
    ) -> FetchReport:
        """Download candles, see ``aione_lab.lake.exchange.fetch`` (and for its options)."""
        from aione_lab.lake import exchange as exchanges

        _known_options(options, ("funding", "workers", "progress"))
        return exchanges.fetch(self, exchange, symbols, interval, since=since, until=until, **options)

    def repair(self, symbol: str, interval: str, exchange: Any = "binanceusdm", **options: Any) -> FetchReport:
        """Download the gaps of a series again, see ``aione_lab.lake.exchange.repair``."""
        from aione_lab.lake import exchange as exchanges

        _known_options(options, ("workers", "progress"))
        return exchanges.repair(self, symbol, interval, exchange=exchange, **options)


def fingerprint_candles(frame: pd.DataFrame) -> str:
    """Fingerprint of a candle frame that passed ``check_candles``; equals the lake's for the same rows."""
    return parts.fingerprint(_candle_columns(frame), CANDLE_COLUMNS)


def _known_options(options: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            raise InputError.unknown("option", name, known)


def _candle_columns(frame: pd.DataFrame) -> Columns:
    return {"timestamp": _stamps(frame), **{name: frame[name].to_numpy(dtype=np.float64) for name in CANDLE_COLUMNS}}


def _stamps(frame: pd.DataFrame) -> np.ndarray:
    return pd.DatetimeIndex(frame.index).as_unit("ms").asi8


def _swallow(old: list[Part], rows: int) -> tuple[list[Part], list[Part]]:
    """Split a month's parts into those that stay and those a new last part of ``rows`` rows takes in."""
    keep = list(old)
    swallowed: list[Part] = []
    while keep and keep[-1].rows < SWALLOW * rows:
        part = keep.pop()
        swallowed.insert(0, part)
        rows += part.rows
    return keep, swallowed


def _months(keys: np.ndarray) -> Iterator[tuple[str, slice]]:
    """(``2025-05``, its rows) for each UTC month in sorted ms."""
    months = keys.view("M8[ms]").astype("M8[M]")
    edges = np.flatnonzero(np.append(True, months[1:] != months[:-1]))
    for begin, end in zip(edges, np.append(edges[1:], len(keys)), strict=True):
        yield str(months[begin]), slice(int(begin), int(end))


def _range(start: Any, end: Any) -> tuple[int, int]:
    first = np.iinfo(np.int64).min if start is None else to_ms(start, "start")
    last = np.iinfo(np.int64).max if end is None else to_ms(end, "end")
    if first >= last:
        raise InputError.of("end", end, f"must be later than start={start!r}")
    return int(first), int(last)
