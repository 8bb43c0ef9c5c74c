"""Sessions for tests: what they decided, bar by bar, beside the replay of the same candles."""

from __future__ import annotations

import asyncio
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.backtest.replay import replay
from aione_lab.backtest.result import Result
from aione_lab.engine.records import ASSESSMENT, FEATURES, SIGNAL, TRADE
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake
from aione_lab.live.drift_check import Drift, drift
from aione_lab.live.journal import BarRows, Journal
from aione_lab.live.replay_feed import ReplayFeed
from aione_lab.live.session import Session

NAMES = ("BTCUSDT", "SOLUSDT", "LINKUSDT")
REFERENCE = "BTCUSDT"
DAY_MS = 86_400_000
MINUTE_MS = 60_000
START = 1_735_689_600_000  # 2025-01-01
DAYS = 3


@functools.cache
def market(days: int = DAYS, names: tuple[str, ...] = NAMES) -> dict[str, tuple[pd.DataFrame, pd.Series]]:
    exchange = SimulatedExchange(seed=3)
    return {name: (exchange.candles(name, days=days), exchange.funding(name, days=days)) for name in names}


def filled(folder: Path, days: int = DAYS, names: tuple[str, ...] = NAMES) -> Lake:
    lake = Lake(folder)
    for name, (candles, funding) in market(days, names).items():
        lake.append(name, "1m", candles)
        lake.append_funding(name, funding.to_frame())
    return lake


def unpaid(session: Session) -> Session:
    """The session without funding rates: one that is waited for takes a bar's symbols apart, and what then follows at
    once is not told bar by bar.
    """
    session.funding.rate = lambda *_: math.nan
    return session


class Recorder:
    """Copies what every bar of a session left in the engine."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.signals: dict[str, list[bytes]] = {name: [] for name in session.symbols}
        self.features: dict[str, list[bytes]] = {name: [] for name in session.symbols}
        self.assessments: dict[str, list[bytes]] = {name: [] for name in session.symbols}
        self.trades: dict[str, list[bytes]] = {name: [] for name in session.symbols}
        self.stage2: list[dict[str, Any]] = []
        keep, tell = session.keeper.bars, session.closing._tell

        def watched(bars: BarRows) -> None:
            for i, one in enumerate(bars.ready):
                name = one.candle.symbol
                out = session.fleet.outs[session.fleet.places[name]]
                self.signals[name].append(plain(out["signal"], SIGNAL))
                self.features[name].append(plain(out["features"], FEATURES))
                if out["signal"]["signal"] == 2:
                    self.assessments[name].append(plain(out["assessment"], ASSESSMENT))
                self.trades[name].append(bars.extra.get(i, {}).get("closed", b""))
            keep(bars)

        def told(stage2: Any, *args: Any, **more: Any) -> None:
            self.stage2.append(stage2)
            tell(stage2, *args, **more)

        session.keeper.bars = watched
        session.closing._tell = told


def plain(record: Any, dtype: np.dtype) -> bytes:
    """Bytes of a record whose padding is zero."""
    out = np.zeros(1, dtype)
    for name in dtype.names or ():
        out[name] = record[name]
    return out.tobytes()


def replayed(name: str, candles: pd.DataFrame, reference: pd.DataFrame | None, **more: Any) -> Result:
    more.setdefault("funding", market()[name][1])
    return replay(candles, more.pop("thresholds", None), symbol=name, interval="1m", reference=reference, **more)


def check(recorders: list[Recorder], name: str, result: Result, first: int) -> int:
    """What the sessions decided on ``name`` one after the other is the replay from bar ``first`` (ms) on."""
    times = result.bars["timestamp"]
    at = int(np.searchsorted(times, first))
    signals = b"".join(content for one in recorders for content in one.signals[name])
    assert signals == result.signal_records[at:].tobytes(), name
    width = len(result.columns)
    features = np.frombuffer(b"".join(c for one in recorders for c in one.features[name]), np.float64)
    features = features.reshape(len(times) - at, -1)[:, :width]
    assert features.tobytes() == np.ascontiguousarray(result.columns[:, at:].T).tobytes(), name
    found = result.assessment_records
    assessments = b"".join(content for one in recorders for content in one.assessments[name])
    assert assessments == found[found["timestamp"] >= first].tobytes(), name
    trades = np.frombuffer(b"".join(content for one in recorders for content in one.trades[name]), TRADE)
    expected = result.trade_records
    # a trade that a gap ended is told with the bar after it
    expected = expected[len(expected) - len(trades) :]
    assert trades.tobytes() == expected.tobytes(), name
    assert (result.trade_records["exit_time"] >= first).sum() <= len(trades)
    return len(found[found["timestamp"] >= first])


def ran(
    source: Any,
    folder: Path,
    names: Any,
    bars: int,
    *,
    first: int = START + 2 * DAY_MS,
    kind: Any = ReplayFeed,
    **more: Any,
):
    """A session of ``names`` from ``first`` on, which writes to a lake and a journal in ``folder``."""
    made = kind(source, names, start=first, end=first + bars * MINUTE_MS)
    session = Session(made, Lake(folder / "lake"), journal=folder / "journal", **more)
    asyncio.run(asyncio.wait_for(session.run(), 60))
    return session


def drifted(folder: Path) -> Drift:
    return drift(folder / "journal", Lake(folder / "lake"))


def bars_of(folder: Path, name: str) -> list[int]:
    frame = Journal(folder / "journal").read("bar")
    return frame[frame["symbol"] == name]["timestamp"].tolist()


async def without_a_last_snapshot(session: Session) -> None:
    """Run as one that is killed: a restart has the snapshot of its start, and the rows after it."""
    finish = session._finish
    session._finish = lambda sound: finish(False)
    await session.run()
