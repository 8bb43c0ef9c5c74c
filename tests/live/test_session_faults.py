"""A session on a faulty exchange: lake, journal and decisions are those of the run without a fault."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

import ccxt.pro  # noqa: F401 (loaded before virtual time runs)
import numpy as np
import pandas as pd
import pytest
from fake_binance import MINUTE_MS, WireFault
from feed_runs import stamps
from session_faults import WARM, Market, SessionRun, faulty, running_session
from session_runs import market

from aione_lab.lake.simulated import DEFAULT_SYMBOLS, SimulatedExchange
from aione_lab.lake.stamps import read_stamps, utc_index
from aione_lab.live.feed import no_funding

pytestmark = pytest.mark.usefixtures("no_pauses")


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.long)])
def test_every_fault_leaves_lake_and_signals_as_they_are(seed: int, tmp_path: Path) -> None:
    """3 symbols, 4 hours, every kind of fault, funding stamps among them."""
    run = asyncio.run(faulty(tmp_path, market(), seed, bars=250, every=6, apart=seed != 1))
    counts = run.check(250, "BTCUSDT")
    assert counts["bars"] == 750 and counts["alerts"] > 5
    status = run.session.status()
    assert status["reconnects"] and status["gaps_filled"] and not status["degraded"]
    assert status["without_reference"] == status["funding_unknown"] == 0
    if seed != 1:
        assert status["revisions"] == len(run.server.revised) > 0


def test_without_faults_it_is_the_same(tmp_path: Path) -> None:
    async def main() -> SessionRun:
        first = int(stamps(market()["BTCUSDT"][0])[0])
        async with running_session(tmp_path, market(), first + WARM * MINUTE_MS) as run:
            await run.finish(120)
        return run

    run = asyncio.run(main())
    assert run.check(120, "BTCUSDT")["bars"] == 360
    assert run.session.status()["gaps_filled"] == 0


def test_others_go_on_while_one_symbol_is_late_and_it_catches_up(tmp_path: Path) -> None:
    """A symbol whose candles come late is decided late; with the reference late all wait, and are then right."""

    async def main() -> SessionRun:
        first = int(stamps(market()["BTCUSDT"][0])[0])
        faults = [WireFault("drop", bar, "SOLUSDT") for bar in range(10, 14)]
        faults += [WireFault("drop", bar, "BTCUSDT") for bar in range(30, 33)]
        async with running_session(tmp_path, market(), first + WARM * MINUTE_MS, faults) as run:
            fleet, start = run.session.fleet, run.start
            await run.clock.run_until(start + 11 * MINUTE_MS + 1_000)  # patience is two seconds
            await asyncio.sleep(1.2)
            assert fleet.last_time("LINKUSDT") == start + 10 * MINUTE_MS
            assert fleet.last_time("SOLUSDT") == start + 9 * MINUTE_MS
            await run.clock.run_until(start + 31 * MINUTE_MS + 1_000)
            await asyncio.sleep(1.2)
            assert fleet.last_time("LINKUSDT") == fleet.last_time("BTCUSDT") == start + 29 * MINUTE_MS
            await run.finish(60)
        return run

    assert asyncio.run(main()).check(60, "BTCUSDT")["bars"] == 180


# --- the long form -------------------------------------------------------------------------------------------------


@functools.cache
def real_and_simulated(folder: Path) -> Market:
    """Seven real symbols and thirteen that exist only here, three days of them on the same calendar."""
    out: dict[str, tuple[pd.DataFrame, pd.Series]] = {}
    begin = int(pd.Timestamp("2025-05-20", tz="UTC").value // 1_000_000)
    end = begin + 3 * 86_400_000
    for path in sorted((folder / "candles" / "1m").glob("*.parquet")):
        frame = pd.read_parquet(path)
        ms = read_stamps(frame["timestamp"], "timestamp")
        frame, ms = frame[(ms >= begin) & (ms < end)], ms[(ms >= begin) & (ms < end)]
        volume, close = frame["volume"].to_numpy(float), frame["close"].to_numpy(float)
        columns = {column: frame[column].to_numpy(float) for column in ("open", "high", "low", "close", "volume")}
        columns |= {"quote_volume": volume * close, "trades": np.ceil(volume), "taker_buy_volume": volume / 2}
        out[path.stem] = (pd.DataFrame(columns, utc_index(ms)), no_funding())
    exchange = SimulatedExchange(seed=11)
    start = int(pd.Timestamp("2025-01-10", tz="UTC").value // 1_000_000)
    for spec in DEFAULT_SYMBOLS[:13]:
        candles, funding = exchange.candles(spec.symbol, start=start, days=3), exchange.funding(spec.symbol, start, 3)
        for data in (candles, funding):
            data.index = utc_index(stamps(data if isinstance(data, pd.DataFrame) else data.to_frame()) + begin - start)
        out[f"SIM{spec.symbol}"] = (candles, funding)
    return out


@pytest.mark.long
@pytest.mark.parametrize("seed", range(12))
def test_a_day_of_twenty_symbols_and_every_fault(seed: int, tmp_path: Path, shared: Path) -> None:
    where = real_and_simulated(shared)
    assert len(where) == 20 and "BTCUSDT" in where
    run = asyncio.run(faulty(tmp_path, where, 100 + seed, bars=1440, every=5, apart=seed % 2 == 0))
    counts = run.check(1440, "BTCUSDT")
    assert counts["bars"] == 20 * 1440 and len(run.server.done) > 280
    print(f"seed {seed}: {counts}, {len(run.server.done)} faults, {run.session.status()['reconnects']} reconnects")
