"""`drift`: a journal replayed from the lake, and the cause of every difference."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from aione_lab.engine.engine import spec_of
from aione_lab.engine.params import check_kind
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.store import Lake
from aione_lab.live.drift_symbol import CAUSES, WARM_UP, SymbolRun, compare
from aione_lab.live.journal import Journal
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import iso

__all__ = ["CAUSES", "Difference", "Drift", "drift"]


@dataclass(frozen=True)
class Difference:
    """What differs on one bar of one symbol, as text, and why.

    ``what``: candle, warm-up, signal, assessment, trade or fill; ``cause``: one of CAUSES.
    """

    symbol: str
    timestamp: int
    what: str
    recorded: str
    replayed: str
    cause: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, with the time as ISO text."""
        return {**asdict(self), "time": iso(self.timestamp)}


@dataclass(frozen=True)
class Drift:
    """What a replay of a journal came to."""

    journal: str
    lake: str
    symbols: tuple[str, ...]
    bars: int
    differences: tuple[Difference, ...]

    @property
    def clean(self) -> bool:
        """Whether the session decided what a replay decides."""
        return not self.differences

    @property
    def causes(self) -> dict[str, int]:
        """Differences by cause, of those there are."""
        counts = {cause: sum(one.cause == cause for one in self.differences) for cause in CAUSES}
        return {cause: count for cause, count in counts.items() if count}

    @property
    def sentence(self) -> str:
        """The result in one line."""
        told = f"{self.bars:,} bars of {len(self.symbols)} symbols"
        if self.clean:
            return f"no drift: {told} decide as they did"
        causes = ", ".join(f"{cause} ({count})" for cause, count in self.causes.items())
        return f"{len(self.differences)} differences in {told}: {causes}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "journal": self.journal,
            "lake": self.lake,
            "clean": self.clean,
            "symbols": list(self.symbols),
            "bars": self.bars,
            "causes": self.causes,
            "sentence": self.sentence,
            "differences": [one.to_dict() for one in self.differences],
        }


def drift(journal: Journal | str | os.PathLike[str], lake: Lake, *, spec: FeatureSpec | None = None) -> Drift:
    """Replay what a session decided from the candles of ``lake``, and name the cause of every difference.

    The configuration and the thresholds are those that the journal holds; ``spec`` is needed where it had triggers or
    factors of its own, whose code no journal carries. InputError for a journal without bars, a lake without any of
    them, or another ``spec``; AioneError for a damaged file. Bars whose warm-up the journal does not hold any more
    cannot be replayed, and are told as a missing warm-up.
    """
    book = journal if isinstance(journal, Journal) else Journal(journal)
    check_kind("lake", lake, Lake)
    table = book.table()
    if not len(table):
        raise InputError.of("journal", str(book.folder), "holds nothing: is it the folder of a journal?")
    found: list[Difference] = []
    symbols: dict[str, None] = {}
    bars = 0
    runs = _runs(table, spec)
    if not runs:
        without = _unfounded(table)
        why = "holds no bars yet" if not without else "holds no bars of a warm-up that it holds too"
        raise InputError.of("journal", str(book.folder), why)
    if not any(_is_in(run, lake) for run in runs):
        names = ", ".join(dict.fromkeys(run.symbol for run in runs))
        raise InputError.of("lake", lake.root, f"holds no candle of the journal's bars ({names})")
    for run in runs:
        symbols[run.symbol] = None
        bars += len(run.rows)
        found += [Difference(run.symbol, *one) for one in compare(run, lake)]
    found += _unfounded(table)
    found.sort(key=lambda one: (one.timestamp, one.symbol))
    return Drift(str(book.folder), lake.root, tuple(symbols), bars, tuple(found))


def _is_in(run: SymbolRun, lake: Lake) -> bool:
    """Whether the lake has any candle of the time of the run's bars."""
    span = lake.span(run.symbol, run.interval)
    times = run.rows["timestamp"]
    return span is not None and span[0] <= times[-1].as_py() and times[0].as_py() <= span[1]


def _unfounded(table: pa.Table) -> list[Difference]:
    """Bars before the first warm-up of their symbol that the journal still holds: nothing can be told of them."""
    kinds, symbols = table["kind"].to_numpy(), table["symbol"].to_numpy()
    out = []
    for name in dict.fromkeys(symbols[kinds == "bar"].tolist()):
        warm = np.flatnonzero((symbols == name) & (kinds == "warm"))
        bars = np.flatnonzero((symbols == name) & (kinds == "bar"))
        bars = bars[bars < warm[0]] if len(warm) else bars
        if len(bars):
            first = table["timestamp"][int(bars[0])].as_py()
            texts = f"{len(bars):,} bars", "no warm-up of theirs in the journal"
            out.append(Difference(name, first, "warm-up", *texts, WARM_UP))
    return out


def _runs(table: pa.Table, given: FeatureSpec | None) -> list[SymbolRun]:
    """The runs of each symbol from one warm-up to the next."""
    kinds, symbols = table["kind"].to_numpy(), table["symbol"].to_numpy()
    details = table["detail"]
    starts = np.flatnonzero((kinds == "start") | (kinds == "resume"))
    configurations = {int(at): json.loads(details[int(at)].as_py()) for at in starts}
    out = []
    for name in dict.fromkeys(symbols[kinds == "warm"].tolist()):
        mine = np.flatnonzero(symbols == name)
        warm = mine[kinds[mine] == "warm"]
        for i, at in enumerate(warm.tolist()):
            end = warm[i + 1] if i + 1 < len(warm) else len(table)
            inside = mine[(mine > at) & (mine < end)]
            rows = inside[kinds[inside] == "bar"]
            if not len(rows):
                continue
            begin = int(starts[starts < at][-1])
            config = configurations[begin]
            sets = inside[kinds[inside] == "thresholds"].tolist()
            versions = [configurations[int(starts[starts < row][-1])]["engine"] for row in rows.tolist()]
            out.append(
                SymbolRun(
                    symbol=name,
                    interval=config["interval"],
                    reference=config["reference"],
                    spec=spec_of(config["spec"], given),
                    settings=Settings(**config["settings"]),
                    costs=Costs(**config["costs"]),
                    warm=json.loads(details[at].as_py()),
                    first=table["timestamp"][at].as_py(),
                    schedule=_schedule(table, sets),
                    rows=table.take(rows),
                    versions=versions,
                )
            )
    return out


def _schedule(table: pa.Table, rows: list[int]) -> dict[int, Thresholds]:
    return {table["timestamp"][row].as_py(): Thresholds.from_json(table["detail"][row].as_py()) for row in sorted(rows)}
