"""How a session ends: cancelled twice, failing, with a feed that stays; and journals that somebody has damaged."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from session_runs import DAY_MS, NAMES, START, bars_of, drifted, filled, ran
from waiting import until

from aione_lab.errors import AioneError, ExchangeError, InputError
from aione_lab.lake.store import Lake
from aione_lab.live import keeper as keepers
from aione_lab.live import session as sessions
from aione_lab.live.journal import Journal
from aione_lab.live.replay_feed import ReplayFeed
from aione_lab.live.session import Session
from aione_lab.settings import Costs

FROM = START + 2 * DAY_MS


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return filled(tmp_path_factory.mktemp("ends"))


async def begun(
    source: Lake, folder: Path, bars: int, kind: type[ReplayFeed] = ReplayFeed
) -> tuple[Session, asyncio.Task[None]]:
    """A session that has decided ``bars`` bars and goes on, with its task."""
    feed = kind(source, NAMES, start=FROM, end=FROM + DAY_MS, speed=6_000)
    session = Session(feed, Lake(folder / "lake"), journal=folder / "journal")
    task = session.start()
    await until(lambda: session.counts["bars"] >= bars, 20)
    return session, task


def test_a_second_cancellation_cuts_nothing_short(lake: Lake, tmp_path: Path) -> None:
    async def main() -> Session:
        session, task = await begun(lake, tmp_path, 300)
        task.cancel()
        await asyncio.sleep(0)
        await session.stop()
        await asyncio.gather(task, return_exceptions=True)
        return session

    session = asyncio.run(asyncio.wait_for(main(), 60))
    assert sum(len(bars_of(tmp_path, name)) for name in NAMES) == session.counts["bars"] >= 300


class Breaks(ReplayFeed):
    """Fails after some candles, and takes its time to stop."""

    async def stream(self, after: Any) -> Any:
        left = 50
        try:
            async for candle in super().stream(after):
                left -= 1
                if not left:
                    raise ExchangeError("it broke")
                yield candle
        finally:
            await asyncio.sleep(0.2)


def test_a_stop_amid_the_end_of_a_failing_session_does_not_hide_why_it_ended(lake: Lake) -> None:
    async def main() -> Session:
        session = Session(Breaks(lake, NAMES, start=FROM, end=FROM + DAY_MS))
        ask = session.keeper.ask_at_last

        async def stopped() -> None:
            asyncio.ensure_future(session.stop())
            await asyncio.sleep(0.05)
            await ask()

        task = session.start()
        session.keeper.ask_at_last = stopped
        with pytest.raises(ExchangeError, match="it broke"):
            await task
        return session

    session = asyncio.run(asyncio.wait_for(main(), 30))
    assert session.status()["state"] == "failed" and session.status()["failure"] == "it broke"


def test_a_feed_that_does_not_stop_keeps_no_session_from_its_end(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "GOODBYE_S", 0.1)
    forever = asyncio.Event()

    class Stays(ReplayFeed):
        async def stream(self, after: Any) -> Any:
            try:
                async for candle in super().stream(after):
                    yield candle
            finally:
                await forever.wait()

    async def main() -> int:
        session, _ = await begun(lake, tmp_path, 30, Stays)
        await asyncio.wait_for(session.stop(), 10)
        forever.set()
        return session.counts["bars"]

    decided = asyncio.run(main())
    assert sum(len(bars_of(tmp_path, name)) for name in NAMES) == decided


def test_an_event_loop_that_ends_amid_a_commit_writes_no_row_twice(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "FLUSH_S", 0.1)
    commit, writing = Journal.commit, threading.Event()

    def slow(self: Journal, rows: Any) -> int:
        number = commit(self, rows)
        writing.set()
        time.sleep(0.5)
        return number

    async def main() -> None:
        await begun(lake, tmp_path, 30)
        monkeypatch.setattr(Journal, "commit", slow)
        writing.clear()
        await until(writing.is_set, 20)

    asyncio.run(main())
    rows = Journal(tmp_path / "journal").read("bar")
    assert len(rows) >= 30 and not rows.duplicated(["symbol", "timestamp"]).any() and drifted(tmp_path).clean


# --- damaged and foreign files ----------------------------------------------------------------------------------------


def test_a_damaged_part_is_named(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(lake, tmp_path, NAMES[:2], 30)
    journal = Journal(tmp_path / "journal")
    part = journal.parts()[0].path
    part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(AioneError, match=f"{part.name}: cannot be read"):
        drifted(tmp_path)
    with pytest.raises(AioneError, match=f"{part.name}: cannot be read"):
        journal.put_together(journal.parts()[-1].last)


def test_a_foreign_part_and_a_folder_in_the_snapshots_place_are_named(lake: Lake, tmp_path: Path) -> None:
    ran(lake, tmp_path, NAMES[:2], 30)
    journal = Journal(tmp_path / "journal")
    (journal.folder / "snapshot.bin").unlink()
    (journal.folder / "snapshot.bin").mkdir()
    with pytest.raises(AioneError, match=r"snapshot\.bin: cannot be read"):
        journal.snapshot()
    foreign = journal.folder / "0000009000-0000009000.parquet"
    pd.DataFrame({"a": [1.0]}).to_parquet(foreign)
    with pytest.raises(AioneError, match=f"{foreign.name}: is no part of a journal"):
        drifted(tmp_path)


def test_bars_whose_warm_up_is_gone_are_told(lake: Lake, tmp_path: Path) -> None:
    ran(lake, tmp_path, NAMES[:2], 60)
    ran(lake, tmp_path, NAMES[:2], 90)
    journal = Journal(tmp_path / "journal")
    journal.parts()[0].path.unlink()
    with pytest.raises(InputError, match="holds no bars of a warm-up that it holds too"):
        drifted(tmp_path)
    ran(lake, tmp_path, NAMES[:2], 90, costs=Costs(fee=0.001))
    found = drifted(tmp_path)
    assert found.causes == {"missing warm-up": 2}
    assert {(one.symbol, one.what, one.recorded) for one in found.differences} == {
        (name, "warm-up", "90 bars") for name in NAMES[:2]
    }


def test_a_journal_whose_folder_was_taken_away_is_made_again(lake: Lake, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with journal.hold():
        journal.commit([])
        for path in journal.folder.iterdir():
            path.unlink()
        journal.folder.rmdir()
        journal.commit([{"kind": "bar", "symbol": "SOLUSDT", "timestamp": FROM}])
    assert len(journal.read("bar")) == 1
