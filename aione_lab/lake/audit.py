"""What is wrong with a series of candles, and whether it can be used all the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from aione_lab.errors import LakeCorruption, LakeError
from aione_lab.lake.schema import CANDLE_COLUMNS, PRICES, REQUIRED_COLUMNS, need_columns, read_numbers, value_faults
from aione_lab.lake.stamps import FINER_THAN_MS, mend_stamps, plausible, read_stamps, stamp_source
from aione_lab.units import LATEST_MS, interval_ms, iso, parse_symbol

if TYPE_CHECKING:
    from aione_lab.lake.store import Lake

FLAT_BARS = 10
"""A stretch of one constant price is reported from this many candles on."""

MAINTENANCE_SYMBOLS = 2
"""A gap counts as exchange maintenance when at least this many other symbols miss it too …"""

MAINTENANCE_SHARE = 0.5
"""… and they are at least this share of the others whose candles span it."""

PRESENT_SHARE = 0.1
"""A symbol misses a gap too when it has at most this share of the gap's candles."""

Others = Callable[[int, int], "list[Witness]"]
"""Witnesses of the time between two stamps."""

Verdict = Literal["clean", "usable with gaps", "broken"]


class Stretch(BaseModel):
    """Some candles in a row, from ``start`` to before ``end`` (ISO UTC), and what is the matter with them.

    ``missing``: not there. ``maintenance``: not there, nor in most other symbols of the lake. ``no trade``:
    there, one constant price and no volume. ``frozen``: there, one constant price though some volume is told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["missing", "maintenance", "no trade", "frozen"]
    start: str
    end: str
    bars: int


class Fault(BaseModel):
    """Rows that break one rule, and the first of them (ISO UTC, or the number where it is no time)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    rows: int
    first: str


class AuditReport(BaseModel):
    """Findings about one series; ``print`` it, or ``to_dict`` for machines.

    ``bars_expected`` counts the grid from the first to the last candle. ``verdict``: *clean*: nothing
    found; *usable with gaps*: every row is sound, some are missing or without trades; *broken*: rows or
    files that a replay would refuse, or less than half of the candles there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str | None
    interval: str
    rows: int
    first: str | None
    last: str | None
    bars_expected: int
    bars_missing: int
    gaps: tuple[Stretch, ...]
    flat: tuple[Stretch, ...]
    faults: tuple[Fault, ...]
    rows_revised: int
    notes: tuple[str, ...]
    verdict: Verdict
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return self.model_dump(mode="json")

    def __str__(self) -> str:
        title = f"{self.symbol or 'candles'} {self.interval}: {self.verdict}"
        lines = [title, f"  {self.sentence}", f"  {self.rows:,} rows, {self.first or '-'} to {self.last or '-'}"]
        lines += [f"  {fault.kind}: {fault.rows:,} rows, first {fault.first}" for fault in self.faults]
        for label, stretches in (("gap", self.gaps), ("flat", self.flat)):
            largest = sorted(stretches, key=lambda s: (-s.bars, s.start))[:10]
            lines += [f"  {label}: {s.bars:,} bars from {s.start} ({s.kind})" for s in largest]
            if len(stretches) > len(largest):
                lines.append(f"  … and {len(stretches) - len(largest):,} smaller")
        if self.rows_revised:
            lines.append(f"  {self.rows_revised:,} rows were revised by a later write")
        return "\n".join(lines + [f"  {note}" for note in self.notes])


def audit_frame(
    frame: pd.DataFrame, interval: str, *, symbol: str | None = None, now_ms: int | None = None
) -> AuditReport:
    """Audit candles that are not in a lake: a frame as it was read, unsorted and unscreened if need be.

    ``now_ms`` (UTC ms; default: the clock) decides whether the last candle has ended. Raises InputError
    only for what concerns the whole frame: missing columns, naive or non-UTC times, an unknown interval.
    """
    step = interval_ms(interval)
    need_columns(frame, REQUIRED_COLUMNS, "frame")
    given = read_stamps(stamp_source(frame, "frame"), "frame.timestamp")
    values = read_numbers(frame, CANDLE_COLUMNS, "frame", text=True)
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    return _report(symbol, interval, step, given, values, now, None, 0, ())


class Witness(NamedTuple):
    """When another symbol has candles: its first and last one, and its runs of candles without a gap (UTC ms)."""

    first: int
    last: int
    starts: np.ndarray
    """First stamp of each run."""
    before: np.ndarray
    """Candles before each run, and after the last one all of them."""
    step: int

    @classmethod
    def of(cls, span: tuple[int, int], stamps: np.ndarray, step: int) -> Witness:
        """The witness with candles at ``stamps``, which rise and are whole steps apart; ``span`` may be longer."""
        begins = np.flatnonzero(np.append(True, np.diff(stamps) != step))[: len(stamps)]
        return cls(*span, stamps[begins], np.append(begins, len(stamps)), step)

    def candles(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """How many candles there are with start ≤ time < end, for each pair."""
        return self._up_to(ends) - self._up_to(starts)

    def _up_to(self, times: np.ndarray) -> np.ndarray:
        if not len(self.starts):
            return np.zeros(len(times), dtype=np.int64)
        run = np.maximum(np.searchsorted(self.starts, times) - 1, 0)
        inside = -((self.starts[run] - times) // self.step)
        return np.clip(self.before[run] + inside, self.before[run], self.before[run + 1])


class Witnesses:
    """When the symbols of an interval have candles: read with the first question, then kept for other audits.

    ``start`` and ``end`` (UTC ms) bound what is read, None: all there is.
    """

    def __init__(self, lake: Lake, interval: str, start: int | None = None, end: int | None = None) -> None:
        self._lake, self._interval, self._range = lake, interval, (start, end)

    def others(self, symbol: str) -> tuple[list[Witness], list[str]]:
        """The symbols but this one, and a note for each that is damaged."""
        others = [told for name, told in self._told.items() if name != symbol]
        return [one for one in others if isinstance(one, Witness)], [one for one in others if isinstance(one, str)]

    @cached_property
    def _told(self) -> dict[str, Witness | str]:
        found: dict[str, Witness | str] = {}
        for symbol in self._lake.symbols(self._interval):
            try:
                span = self._lake.span(symbol, self._interval)
                if span is not None:
                    stamps = self._lake.arrays(symbol, self._interval, *self._range, columns=())["timestamp"]
                    found[symbol] = Witness.of(span, stamps, interval_ms(self._interval))
            except LakeCorruption as error:
                found[symbol] = f"not compared with {symbol}: {error}"
        return found


def audit_lake(
    lake: Lake, symbol: str, interval: str, now_ms: int | None = None, witnesses: Witnesses | None = None
) -> AuditReport:
    """Audit a series of the lake; gaps that most other symbols share are classed as maintenance.

    Who audits many symbols hands the same ``witnesses`` to each, or every audit reads all the other symbols.
    A damaged file makes the verdict *broken* and is named in the sentence. Raises LakeError when the lake
    has no such series.
    """
    symbol, step = parse_symbol(symbol), interval_ms(interval)
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    try:
        columns = lake.arrays(symbol, interval)
        revised = lake.rows_revised(symbol, interval)
    except LakeCorruption as error:
        return _unreadable(symbol, interval, str(error))
    stamps = columns.pop("timestamp")
    notes: list[str] = []

    def others(first: int, last: int) -> list[Witness]:
        found, damaged = (witnesses or Witnesses(lake, interval, first, last)).others(symbol)
        notes.extend(damaged)
        return found

    return _report(symbol, interval, step, stamps, columns, now, others, revised, notes)


def funding_faults(lake: Lake, symbols: Iterable[str] | None = None) -> dict[str, str]:
    """Symbols whose funding rates cannot be read, and why; ``symbols`` None: of all that have any.

    A replay refuses them.
    """
    if symbols is None:
        symbols = [series.symbol for series in lake._storage.series() if series.interval is None]
    found = {}
    for symbol in dict.fromkeys(symbols):
        try:
            lake.funding(symbol)
        except LakeError as error:
            found[symbol] = str(error)
    return found


def _report(
    symbol: str | None,
    interval: str,
    step: int,
    given: np.ndarray,
    values: dict[str, np.ndarray],
    now_ms: int,
    others: Others | None,
    revised: int,
    notes: list[str] | tuple[str, ...],
) -> AuditReport:
    mended, _ = mend_stamps(given, step, LATEST_MS)
    faults = _stamp_faults(given, mended, step) + _row_faults(mended, values, step, now_ms)
    order = np.argsort(mended, kind="stable")
    order = order[plausible(mended[order]) & (mended[order] % step == 0)]
    if len(order):
        order = order[np.append(mended[order][1:] != mended[order][:-1], True)]
    ms = mended[order]
    gaps = _classed_gaps(ms, step, others)
    flat = _flat_stretches(ms, {name: values[name][order] for name in REQUIRED_COLUMNS}, step)
    missing = sum(gap.bars for gap in gaps)
    expected = int((ms[-1] - ms[0]) // step) + 1 if len(ms) else 0
    verdict, sentence = _judge(len(ms), expected, missing, gaps, flat, faults)
    return AuditReport(
        symbol=symbol,
        interval=interval,
        rows=len(given),
        first=iso(int(ms[0])) if len(ms) else None,
        last=iso(int(ms[-1])) if len(ms) else None,
        bars_expected=expected,
        bars_missing=missing,
        gaps=gaps,
        flat=flat,
        faults=tuple(faults),
        rows_revised=revised,
        notes=tuple(notes),
        verdict=verdict,
        sentence=sentence,
    )


def _unreadable(symbol: str, interval: str, why: str) -> AuditReport:
    return AuditReport(
        symbol=symbol,
        interval=interval,
        rows=0,
        first=None,
        last=None,
        bars_expected=0,
        bars_missing=0,
        gaps=(),
        flat=(),
        faults=(Fault(kind="damaged file", rows=0, first=why),),
        rows_revised=0,
        notes=(),
        verdict="broken",
        sentence=f"A file of the lake is damaged: {why}.",
    )


def _fault(kind: str, mask: np.ndarray, ms: np.ndarray) -> list[Fault]:
    if not mask.any():
        return []
    stamp = int(ms[int(np.argmax(mask))])
    first = iso(stamp) if plausible(np.array([stamp]))[0] else str(stamp)
    return [Fault(kind=kind, rows=int(mask.sum()), first=first)]


def _stamp_faults(given: np.ndarray, mended: np.ndarray, step: int) -> list[Fault]:
    """Stamps in the wrong unit (those ``screen_candles`` mends), implausible ones, ones off the grid."""
    fraction = given == FINER_THAN_MS
    fine = (mended != given) & (given > LATEST_MS)
    return [
        *_fault("stamps finer than ms (micro- or nanoseconds)", fine, given),
        *_fault("stamps cut to 32 bits", (mended != given) & ~fine, given),
        *_fault("stamps that are no time between 2009 and 2100", ~plausible(mended) & ~fraction, given),
        *_fault("stamps off the grid", fraction | (plausible(mended) & (mended % step != 0)), given),
    ]


def _row_faults(ms: np.ndarray, values: dict[str, np.ndarray], step: int, now_ms: int) -> list[Fault]:
    """Order, duplicates, impossible numbers, an unfinished candle."""
    readable = np.flatnonzero(plausible(ms))
    timed = ms[readable]
    faults = _fault("rows out of order", np.append(False, timed[1:] < timed[:-1]), timed) if len(timed) else []
    order = readable[np.argsort(timed, kind="stable")]
    again = np.append(False, ms[order][1:] == ms[order][:-1])
    if again.any():
        differs = np.zeros(len(order), dtype=bool)
        for column in values.values():
            a, b = column[order][1:], column[order][:-1]
            differs[1:] |= again[1:] & ~((a == b) | (np.isnan(a) & np.isnan(b)))
        faults += _fault("duplicate rows, equal", again & ~differs, ms[order])
        faults += _fault("duplicate rows with other values (revised, or two markets)", again & differs, ms[order])
    for name, bad, rule in value_faults(values):
        faults += _fault(f"impossible bar: {name} {rule}", bad, ms)
    return faults + _fault("candle not finished", plausible(ms) & (ms + step > now_ms), ms)


def _classed_gaps(ms: np.ndarray, step: int, others: Others | None) -> tuple[Stretch, ...]:
    """Every gap between sorted stamps, classed by what the other symbols have there."""
    before = np.flatnonzero(np.diff(ms) > step)
    if not len(before):
        return ()
    starts, ends = ms[before] + step, ms[before + 1]
    shared = np.zeros(len(starts), dtype=bool)
    if others is not None:
        spanning = np.zeros(len(starts), dtype=np.int64)
        absent = np.zeros(len(starts), dtype=np.int64)
        for other in others(int(starts[0]), int(ends[-1])):
            covers = (other.first < starts) & (other.last >= ends)
            spanning += covers
            absent += covers & (other.candles(starts, ends) <= PRESENT_SHARE * (ends - starts) // step)
        shared = (absent >= MAINTENANCE_SYMBOLS) & (absent >= MAINTENANCE_SHARE * spanning)
    return tuple(
        Stretch(kind="maintenance" if common else "missing", start=iso(a), end=iso(b), bars=(b - a) // step)
        for a, b, common in zip(starts.tolist(), ends.tolist(), shared.tolist(), strict=True)
    )


def _flat_stretches(ms: np.ndarray, values: dict[str, np.ndarray], step: int) -> tuple[Stretch, ...]:
    """Runs of candles at one constant price, at least ``FLAT_BARS`` long and without a gap inside."""
    if len(ms) < FLAT_BARS:
        return ()
    close, silent = values["close"], values["volume"] == 0.0
    flat = np.logical_and.reduce([values[name] == close for name in PRICES])
    joined = flat[1:] & flat[:-1] & (close[1:] == close[:-1]) & (np.diff(ms) == step)
    edges = np.flatnonzero(np.concatenate(([True], ~joined, [True])))
    found = []
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if end - begin >= FLAT_BARS and flat[begin]:
            kind: Literal["no trade", "frozen"] = "no trade" if silent[begin:end].all() else "frozen"
            bounds = iso(int(ms[begin])), iso(int(ms[end - 1]) + step)
            found.append(Stretch(kind=kind, start=bounds[0], end=bounds[1], bars=end - begin))
    return tuple(found)


def _judge(
    rows: int, expected: int, missing: int, gaps: tuple[Stretch, ...], flat: tuple[Stretch, ...], faults: list[Fault]
) -> tuple[Verdict, str]:
    if not rows:
        return "broken", "No candle with a usable time is there."
    if faults:
        more = f" and {len(faults) - 1} other kinds of faults" if len(faults) > 1 else ""
        return "broken", f"{faults[0].rows:,} rows: {faults[0].kind}{more}; an import repairs or refuses such rows."
    if missing * 2 > expected:
        return "broken", f"{missing:,} of {expected:,} candles are missing, more than are there."
    parts = []
    for kind, verb in (("missing", "missing"), ("maintenance", "missing in most symbols (maintenance)")):
        bars = [gap.bars for gap in gaps if gap.kind == kind]
        if bars:
            parts.append(f"{sum(bars):,} candles {verb} in {len(bars):,} gaps (longest {max(bars):,})")
    for kind, verb in (("no trade", "without trades at a constant price"), ("frozen", "frozen at one price")):
        bars = [stretch.bars for stretch in flat if stretch.kind == kind]
        if bars:
            parts.append(f"{sum(bars):,} candles {verb} in {len(bars):,} stretches (longest {max(bars):,})")
    if parts:
        return "usable with gaps", f"Every row is sound; of {expected:,} candles: {'; '.join(parts)}."
    return "clean", f"All {expected:,} candles are there and sound."
