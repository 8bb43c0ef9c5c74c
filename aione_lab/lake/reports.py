"""What an import or a download did, file by file and symbol by symbol: frozen, printable, JSON-able."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, computed_field

from aione_lab.lake.names import printable
from aione_lab.lake.stamps import FINER_THAN_MS, UNREADABLE
from aione_lab.units import iso


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and texts, ready for ``json.dumps``."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """The same as JSON text."""
        return self.model_dump_json()


class Refusal(_Report):
    """Rows that were not taken, and why; ``first`` is the time of the first of them where it has one."""

    reason: str
    rows: int
    first: str | None = None


class FileReport(_Report):
    """What became of one file: every row read is new, same, revised or refused.

    ``rows_same`` were in the lake already with the same values, ``rows_revised`` with other ones.
    ``file`` is the path, bytes that are no UTF-8 escaped. ``error`` says why a whole file was refused;
    then nothing of it was taken.
    """

    file: str
    symbol: str | None = None
    rows_read: int = 0
    rows_new: int = 0
    rows_same: int = 0
    rows_revised: int = 0
    rows_refused: int = 0
    refused: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None

    def __str__(self) -> str:
        if self.error is not None:
            return printable(f"{self.file}: refused: {self.error}")
        parts = [f"{self.rows_read} rows read", f"{self.rows_new} new", f"{self.rows_same} duplicate"]
        parts += [f"{n} {word}" for n, word in ((self.rows_revised, "revised"),) if n]
        parts += [f"{r.rows} refused: {r.reason}" + (f" (first at {r.first})" if r.first else "") for r in self.refused]
        return printable(f"{self.file} → {self.symbol}: " + ", ".join([*parts, *self.notes]))


class ImportReport(_Report):
    """Every file of one import and the sums over them."""

    kind: str
    interval: str | None = None
    files: tuple[FileReport, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> dict[str, int]:
        """Sums over all files; ``files_refused`` counts those of which nothing was taken."""
        sums = {
            name: sum(getattr(f, name) for f in self.files)
            for name in ("rows_read", "rows_new", "rows_same", "rows_revised", "rows_refused")
        }
        refused = sum(f.error is not None for f in self.files)
        return {"files": len(self.files), "files_refused": refused, **sums}

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that were imported, in order, each once."""
        return tuple(sorted({f.symbol for f in self.files if f.symbol is not None and f.error is None}))

    def __str__(self) -> str:
        t = self.total
        line = (
            f"total: {t['files']} files, {t['rows_read']} rows read, {t['rows_new']} new, {t['rows_same']} duplicate, "
            f"{t['rows_revised']} revised, {t['rows_refused']} rows refused, {t['files_refused']} files refused"
        )
        return "\n".join([*(str(f) for f in self.files), line])


class SymbolFetch(_Report):
    """What one symbol's download brought; ``bars_absent`` are bars the exchange has no candle for."""

    symbol: str
    rows_read: int = 0
    rows_new: int = 0
    rows_same: int = 0
    rows_revised: int = 0
    rows_refused: int = 0
    refused: tuple[Refusal, ...] = ()
    bars_absent: int = 0
    funding_new: int = 0
    notes: tuple[str, ...] = ()
    error: str | None = None

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.symbol}: {self.rows_new} new candles, then: {self.error}"
        parts = [f"{self.rows_new} new candles", f"{self.funding_new} new funding rates"]
        parts += [f"{n} {word}" for n, word in ((self.rows_revised, "revised"), (self.bars_absent, "absent")) if n]
        parts += [f"{r.rows} refused: {r.reason}" + (f" (first at {r.first})" if r.first else "") for r in self.refused]
        return f"{self.symbol}: " + ", ".join([*parts, *self.notes])


class FetchReport(_Report):
    """Every symbol of one download or repair; ``requests`` counts the calls made, retries included."""

    exchange: str
    interval: str
    start: str
    end: str
    requests: int
    retries: int
    symbols: tuple[SymbolFetch, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> dict[str, int]:
        """Sums over all symbols."""
        names = ("rows_read", "rows_new", "rows_same", "rows_revised", "rows_refused", "bars_absent", "funding_new")
        sums = {name: sum(getattr(s, name) for s in self.symbols) for name in names}
        return {"symbols": len(self.symbols), "symbols_failed": sum(s.error is not None for s in self.symbols), **sums}

    def __str__(self) -> str:
        t = self.total
        line = (
            f"total: {t['symbols']} symbols, {t['rows_new']} new candles, {t['funding_new']} new funding rates, "
            f"{self.requests} requests ({self.retries} retried), {t['symbols_failed']} symbols failed"
        )
        return "\n".join([*(str(s) for s in self.symbols), line])


def refusals(refused: pd.DataFrame) -> tuple[Refusal, ...]:
    """Group a screen's refused rows (columns ``timestamp``, ``reason``) by reason, in order of first sight."""
    grouped: list[Refusal] = []
    for reason, rows in refused.groupby("reason", sort=False):
        first = rows["timestamp"].iloc[0]
        grouped.append(Refusal(reason=str(reason), rows=len(rows), first=_time_text(first)))
    return tuple(grouped)


def _time_text(value: Any) -> str | None:
    """ISO text of a stamp however the screen kept it, the raw number when it is no time at all."""
    if value is None or value is pd.NaT or value != value or value in (UNREADABLE, FINER_THAN_MS):
        return None
    try:
        return iso(int(value)) if not isinstance(value, pd.Timestamp) else value.isoformat()
    except (OverflowError, OSError, ValueError):
        return str(value)
