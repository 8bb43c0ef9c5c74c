"""A session on an ExchangeFeed against the faulty exchange, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from fake_binance import KINDS, MINUTE_MS, FakeBinance, WireFault, script
from feed_runs import stamps
from virtual_clock import SkewedClock, VirtualClock

from aione_lab.backtest.replay import replay
from aione_lab.engine.records import ASSESSMENT, TRADE
from aione_lab.lake.store import Lake
from aione_lab.live.exchange_feed import ExchangeFeed
from aione_lab.live.journal import Journal, records_of, signal_records
from aione_lab.live.session import Session

WARM = 1700  # bars before the run: signals need a day of them
Market = Mapping[str, tuple[pd.DataFrame, pd.Series]]


@dataclass
class SessionRun:
    """A session at work on a fake exchange."""

    market: Market
    server: FakeBinance
    session: Session
    clock: VirtualClock
    start: int
    folder: Path

    async def bars(self, count: float) -> None:
        """Let so many bars pass from the start of the run on, and half of the next one."""
        await self.clock.run_until(self.start + int((count + 0.5) * MINUTE_MS))

    async def finish(self, count: int) -> None:
        """``bars``, and a little more until each symbol's last one is decided."""
        await self.bars(count)
        last = self.start + (count - 1) * MINUTE_MS
        fleet = self.session.fleet
        for _ in range(200):
            if all((fleet.last_time(symbol) or 0) >= last for symbol in self.session.symbols):
                return
            await asyncio.sleep(0.02)
            await self.clock.run_until(self.clock.now_ms() + 250)
        raise AssertionError(self.session.status())

    def check(self, count: int, reference: str) -> dict[str, int]:
        """Lake and journal are those of a run without faults: every bar once, with what replay decides on it."""
        end = self.start + count * MINUTE_MS
        lake, journal = Lake(self.folder / "lake"), Journal(self.folder / "journal")
        table = journal.table()
        kinds, symbols = table["kind"].to_numpy(), table["symbol"].to_numpy()
        counts = dict.fromkeys(("bars", "alerts", "trades"), 0)
        for name, (candles, funding) in self.market.items():
            truth = candles[: int(np.searchsorted(stamps(candles), end))]
            stored = lake.candles(name, "1m", None, end)
            assert lake.fingerprint(name, "1m", None, end) == lake_fingerprint(truth), name
            assert len(stored) == len(truth)
            rows = table.filter(pa.array((kinds == "bar") & (symbols == name)))
            times = rows["timestamp"].to_numpy()
            rows = rows.take(np.flatnonzero(times < end))
            assert np.array_equal(rows["timestamp"].to_numpy(), np.arange(self.start, end, MINUTE_MS)), name
            result = replay(truth, symbol=name, interval="1m", reference=self.market[reference][0], funding=funding)
            at = int(np.searchsorted(result.bars["timestamp"], self.start))
            assert signal_records(rows).tobytes() == result.signal_records[at:].tobytes(), name
            found, trades = result.assessment_records, result.trade_records
            found, trades = found[found["timestamp"] >= self.start], trades[trades["exit_time"] >= self.start]
            assert records_of(rows, "assessment", ASSESSMENT).tobytes() == found.tobytes(), name
            assert records_of(rows, "closed", TRADE).tobytes() == trades.tobytes(), name
            for key, value in (("bars", len(rows)), ("alerts", len(found)), ("trades", len(trades))):
                counts[key] += value
        return counts


def lake_fingerprint(frame: pd.DataFrame) -> str:
    from aione_lab.lake.store import fingerprint_candles

    return fingerprint_candles(frame)


def lake_with(folder: Path, market: Market, before: int) -> Lake:
    """A lake that ends some bars before the run begins."""
    lake = Lake(folder)
    for name, (candles, funding) in market.items():
        lake.append(name, "1m", candles[stamps(candles) < before])
        known = funding[stamps(funding.to_frame()) < before]
        if len(known):
            lake.append_funding(name, known.to_frame())
    return lake


@asynccontextmanager
async def running_session(
    folder: Path,
    market: Market,
    start: int,
    faults: Sequence[WireFault] = (),
    *,
    reference: str = "BTCUSDT",
    skew_ms: int = 0,
    fill: bool = True,
    **more: Any,
) -> AsyncIterator[SessionRun]:
    """A session over all symbols of ``market`` from the bar ``start`` (ms) on, lake and journal below ``folder``.

    ``fill``: the lake ends some bars before the start; otherwise it is what is there.
    """
    clock = VirtualClock(start + 5_000)
    local = SkewedClock(clock, skew_ms)
    lake = lake_with(folder / "lake", market, start - 7 * MINUTE_MS) if fill else Lake(folder / "lake")
    frames = {name: candles for name, (candles, _) in market.items()}
    rates = {name: funding for name, (_, funding) in market.items() if len(funding)}
    async with FakeBinance(frames, clock, faults, funding=rates) as server:
        feed = ExchangeFeed(server.ccxt(), list(frames), clock=local)
        session = Session(feed, lake, reference=reference, journal=folder / "journal", **more)
        task = session.start()
        try:
            while session.status()["state"] in ("new", "starting") and not task.done():
                await asyncio.sleep(0.01)
            yield SessionRun(market, server, session, clock, start, folder)
            await session.stop()
            await task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(task, return_exceptions=True)
            await feed.aclose()


async def faulty(folder: Path, where: Market, seed: int, bars: int, every: int, apart: bool = True) -> SessionRun:
    """A session of ``where`` over ``bars`` with the faults of ``seed``, one every few bars; all of them happened."""
    first = int(stamps(next(iter(where.values()))[0])[0])
    kinds = KINDS if apart else tuple(kind for kind in KINDS if kind != "revise")
    faults = script(seed, bars - 6, list(where), kinds, every, apart)
    async with running_session(folder, where, first + WARM * MINUTE_MS, faults, skew_ms=(-1) ** seed * 4000) as run:
        await run.finish(bars)
        assert len(run.server.done) == len(faults)
    return run
