"""`Keeper`: brings to disk what a session saw and decided, beside it, in batches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.errors import AioneError
from aione_lab.lake.schema import CANDLE_COLUMNS, candle_frame
from aione_lab.lake.stamps import utc_index
from aione_lab.lake.store import Lake
from aione_lab.live.ends import uncut
from aione_lab.live.feed import Candle, Feed, candles_of
from aione_lab.live.journal import BarRows, Journal, Row, candle_fields, detail_text
from aione_lab.units import interval_ms

_log = logging.getLogger(__name__)

FLUSH_S = 10.0
"""Seconds between two commits: what a kill takes away is fetched again."""
GOODBYE_S = 2.0
"""Seconds that the end of a session waits for an answer of the exchange."""
SNAPSHOT_S = 600.0
"""Seconds between two snapshots; what was committed since the last one is pushed again at a restart."""

Snapshot = tuple[Mapping[str, Any], Mapping[str, bytes]]


class Keeper:
    """Collects rows of the journal, candles and rates for the lake, and writes them every FLUSH_S seconds.

    The order of a commit is journal, lake, snapshot: so the lake is at most behind the journal, and a snapshot never
    before what it rests on. A write that fails is tried again, and ``problems`` say why.
    """

    def __init__(
        self,
        feed: Feed,
        lake: Lake | None,
        journal: Journal | None,
        take_snapshot: Callable[[], Snapshot],
        new_rates: Callable[[], list[tuple[str, int, float]]],
    ) -> None:
        self._feed, self._lake, self._journal = feed, lake, journal
        self._take_snapshot, self._new_rates = take_snapshot, new_rates
        self._rows: list[Row | BarRows] = []
        self._candles: dict[str, list[Candle]] = {}
        self._rates: list[tuple[str, int, float]] = []
        self._doubtful: dict[tuple[str, int], None] = {}
        self._last_snapshot = 0.0
        self._committing = asyncio.Lock()
        # One thread for all writes: of several each would keep memory of its own, as much as the largest write took.
        self._writer = ThreadPoolExecutor(1, "aione-keeper")
        self.until: dict[str, int] = {}
        self.problems: dict[str, str] = {}

    # --- what is to be kept ------------------------------------------------------------------------------------------

    def row(
        self, kind: str, symbol: str, timestamp: int, detail: Any = None, fields: Mapping[str, Any] | None = None
    ) -> None:
        """A row of the journal; ``detail`` is written as JSON."""
        if self._journal is None:
            return
        row = {**(fields or {}), "kind": kind, "symbol": symbol, "timestamp": timestamp}
        row["at"] = time.time_ns() // 1_000_000
        if detail is not None:
            row["detail"] = detail_text(detail)
        self._rows.append(row)

    def bars(self, bars: BarRows) -> None:
        """Decided bars, for the journal and their candles for the lake; the journal leaves out what it has already."""
        if self._journal is not None:
            known = self.until
            new = [i for i, (one, *_) in enumerate(bars.ready) if one.timestamp > known.get(one.symbol, 0)]
            if new:
                bars_here = bars if len(new) == len(bars.ready) else bars.only(new)
                self._rows.append(bars_here)
                known.update((one.symbol, one.timestamp) for one, *_ in bars_here.ready)
        for candle, *_ in bars.ready:
            self.candle(candle)

    def candle(self, candle: Candle) -> None:
        """A candle that was decided, for the lake."""
        if self._lake is not None:
            self._candles.setdefault(candle.symbol, []).append(candle)

    def revision(self, candle: Candle) -> None:
        """Other numbers of an earlier bar: journalled as they came; the lake gets what the exchange says when asked."""
        self.row("revision", candle.symbol, candle.timestamp, None, candle_fields(candle))
        if self._lake is not None:
            self._doubtful[candle.symbol, candle.timestamp] = None

    # --- writing -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write every FLUSH_S seconds, for good; revised bars are asked about beside it, and hold up no write."""
        work = [asyncio.ensure_future(_repeated(part)) for part in (self.commit, self._confirm)]
        try:
            await asyncio.gather(*work)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def commit(self, *, snapshot: bool | None = None) -> None:
        """Write what there is; a snapshot too where one is due, or as ``snapshot`` says.

        A cancellation takes effect when the write is over: a second one must not begin beside it.
        """
        async with self._committing:
            rows, self._rows = self._rows, []
            candles, self._candles = self._candles, {}
            rates, self._rates = [*self._rates, *self._new_rates()], []
            due = time.monotonic() - self._last_snapshot >= SNAPSHOT_S if snapshot is None else snapshot
            taken = self._take_snapshot() if due and self._journal is not None else None
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._writer, self._write, rows, candles, rates, taken)
            try:
                await uncut(work)
            finally:  # a mistake of ours ends the session, and what was not written stays together
                done = set() if work.exception() else work.result()
                if "journal" not in done:
                    self._rows = [*rows, *self._rows]
                if "lake" not in done:
                    for symbol, ours in self._candles.items():
                        candles.setdefault(symbol, []).extend(ours)
                    self._candles, self._rates = candles, [*rates, *self._rates]
                if "snapshot" in done:
                    self._last_snapshot = time.monotonic()

    def close(self) -> None:
        """End the thread of the writes."""
        self._writer.shutdown(wait=False)

    def _write(
        self,
        rows: list[Row | BarRows],
        candles: Mapping[str, list[Candle]],
        rates: list[tuple[str, int, float]],
        taken: Snapshot | None,
    ) -> set[str]:
        done = set()
        for name, work in (
            ("journal", lambda: self._write_rows(rows)),
            ("lake", lambda: self._write_lake(candles, rates)),
            ("snapshot", lambda: self._write_snapshot(taken)),
            ("journal", lambda: self._put_together(taken)),
        ):
            try:
                work()
            except (AioneError, OSError) as error:
                # Without the name of a file, which is another one each time.
                text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                problem = " ".join(text.split())
                if self.problems.get(name) != problem:
                    _log.warning("the %s could not be written, it is tried again: %s", name, problem)
                self.problems[name] = problem
                break  # what comes after rests on it
            self.problems.pop(name, None)
            done.add(name)
        return done if taken is not None else done - {"snapshot"}

    def _write_rows(self, parts: list[Row | BarRows]) -> None:
        rows = [row for part in parts for row in (part.rows() if isinstance(part, BarRows) else (part,))]
        if rows and self._journal is not None:
            self._journal.commit(rows)

    def _write_lake(self, candles: Mapping[str, list[Candle]], rates: list[tuple[str, int, float]]) -> None:
        if self._lake is None:
            return
        for symbol, several in candles.items():
            self._lake.append(symbol, self._feed.interval, frame_of(several))
        for symbol in dict.fromkeys(symbol for symbol, _, _ in rates):
            mine = [(stamp, rate) for name, stamp, rate in rates if name == symbol]
            index = utc_index(np.array([stamp for stamp, _ in mine], np.int64))
            series = pd.Series([rate for _, rate in mine], index=index, name="funding_rate", dtype=float)
            self._lake.append_funding(symbol, series.sort_index())

    def _write_snapshot(self, taken: Snapshot | None) -> None:
        if taken is not None and self._journal is not None:
            self._journal.save_snapshot({**taken[0], "commit": self._journal.last}, taken[1])

    def _put_together(self, taken: Snapshot | None) -> None:
        if taken is not None and self._journal is not None:
            self._journal.put_together(self._journal.last)

    async def ask_at_last(self) -> None:
        """Ask about revised bars once more, for a moment: what is not known then stays a row of the journal."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._confirm()

    async def _confirm(self) -> None:
        """Ask what the exchange says of bars that a stream has revised; a failure is tried again."""
        step = interval_ms(self._feed.interval)
        for symbol, bar in list(self._doubtful):
            del self._doubtful[symbol, bar]  # one that is revised again meanwhile is asked about again
            try:
                frame = await self._feed.history(symbol, bar, bar + step)
            except AioneError as error:
                _log.info("%s: a revised bar could not be confirmed yet: %s", symbol, error)
                self._doubtful[symbol, bar] = None
                return
            if len(frame):
                self.candle(candles_of(symbol, frame, "rest")[0])


async def _repeated(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        await work()


def frame_of(candles: list[Candle]) -> pd.DataFrame:
    """Candles of one symbol in the shape of ``Lake.candles``; of a bar that is in them twice the last word."""
    by_time = {candle.timestamp: candle.values for candle in candles}
    times = sorted(by_time)
    values = np.array([by_time[time] for time in times]).reshape(len(times), len(CANDLE_COLUMNS))
    columns = {name: values[:, i].copy() for i, name in enumerate(CANDLE_COLUMNS)}
    return candle_frame(np.array(times, np.int64), columns)
