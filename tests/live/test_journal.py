"""The journal and the snapshot: what a session knew survives every kind of end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from session_runs import (
    MINUTE_MS,
    NAMES,
    REFERENCE,
    START,
    filled,
    market,
    replayed,
    without_a_last_snapshot,
)
from session_worker import BARS, FROM
from waiting import until

from aione_lab.calibration.queue import CalibrationQueue
from aione_lab.engine.records import ASSESSMENT, TRADE
from aione_lab.errors import AioneError, ExchangeError, InputError
from aione_lab.lake.store import Lake
from aione_lab.live import journal as journals
from aione_lab.live import keeper as keepers
from aione_lab.live.feed import Candle
from aione_lab.live.journal import Journal, records_of, signal_records
from aione_lab.live.keeper import Keeper, frame_of
from aione_lab.live.replay_feed import ReplayFeed
from aione_lab.live.session import Session

WORKER = Path(__file__).with_name("session_worker.py")


def worker(folder: Path, speed: float) -> subprocess.Popen[str]:
    root = WORKER.parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(WORKER.parent)])}
    command = [sys.executable, str(WORKER), str(folder), str(speed)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def bars_of(journal: Journal, name: str) -> pa.Table:
    table = journal.table()
    kinds, symbols = table["kind"].to_numpy(), table["symbol"].to_numpy()
    return table.filter(pa.array((kinds == "bar") & (symbols == name)))


def check_whole(journal: Journal, lake: Lake, first: int, bars: int) -> int:
    """Every bar is in the journal once, with what replay decides on it, and every candle in the lake."""
    alerts = 0
    for name in NAMES:
        end = first + bars * MINUTE_MS
        candles = market()[name][0][: (end - START) // MINUTE_MS]
        rows = bars_of(journal, name)
        assert rows["timestamp"].to_pylist() == list(range(first, end, MINUTE_MS)), name
        result = replayed(name, candles, market()[REFERENCE][0])
        at = (first - START) // MINUTE_MS
        assert signal_records(rows).tobytes() == result.signal_records[at:].tobytes()
        found = result.assessment_records
        assert records_of(rows, "assessment", ASSESSMENT).tobytes() == found[found["timestamp"] >= first].tobytes()
        trades = result.trade_records
        assert records_of(rows, "closed", TRADE).tobytes() == trades[trades["exit_time"] >= first].tobytes()
        assert lake.candles(name, "1m").equals(candles)
        alerts += int((found["timestamp"] >= first).sum())
    return alerts


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param((signal.SIGKILL, signal.SIGTERM), id="twice"),
        pytest.param(
            (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM) * 3, marks=pytest.mark.long, id="12"
        ),
    ],
)
def test_killed_stopped_and_started_again_nothing_is_lost_or_told_twice(ends: tuple, tmp_path: Path) -> None:
    """SIGKILL, SIGTERM, SIGINT at any moment, then to the end: the journal and lake of the unbroken run."""
    dice = random.Random(len(ends))
    longest = 1.2 / len(ends)
    for number in ends:
        process = worker(tmp_path, 6_000)
        try:
            assert process.stdout is not None and process.stdout.readline() == "running\n", process.stderr.read()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(dice.uniform(0.0, longest))
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
            assert process.returncode == (0 if number != signal.SIGKILL else -signal.SIGKILL), errors
        finally:
            process.kill()
            process.communicate()
    process = worker(tmp_path, float("inf"))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and "differ" not in errors, errors
    journal = Journal(tmp_path / "journal")
    assert check_whole(journal, Lake(tmp_path / "lake"), FROM, BARS) > 3
    kinds = journal.read()["kind"].tolist()
    assert kinds.count("start") == 1 and kinds.count("resume") == len(ends)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return filled(tmp_path_factory.mktemp("journal") / "lake")


def run(lake: Lake, folder: Path, bars: int, **more: object) -> Session:
    feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + bars * MINUTE_MS)
    session = Session(feed, lake, journal=folder, **more)
    asyncio.run(session.run())
    return session


def test_a_damaged_snapshot_costs_a_warm_up_and_no_bar_twice(lake: Lake, tmp_path: Path) -> None:
    run(lake, tmp_path, 50)
    snapshot = tmp_path / "snapshot.bin"
    content = bytearray(snapshot.read_bytes())
    content[5000] ^= 1
    snapshot.write_bytes(content)
    run(lake, tmp_path, 120)
    rows = bars_of(Journal(tmp_path), "SOLUSDT")
    assert rows["timestamp"].to_pylist() == list(range(FROM, FROM + 120 * MINUTE_MS, MINUTE_MS))
    assert Journal(tmp_path).read("start").shape[0] == 2


def told_of(session: Session) -> list[dict[str, Any]]:
    """The alerts that are kept, without the time that each took."""
    quality = "quality_metrics"
    return [{**one, quality: {**one[quality], "processing_time_ms": 0}} for one in session.alerts_seen]


def test_what_came_after_the_snapshot_is_known_as_if_nothing_had_happened(lake: Lake, tmp_path: Path) -> None:
    """Alerts in their order with second looks among them, counts, and for whom a calibration was asked for."""

    async def life(folder: Path, bars: int) -> Session:
        async with CalibrationQueue(never) as queue:
            feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + bars * MINUTE_MS)
            session = Session(feed, lake, journal=folder, queue=queue)
            wanted, close = session.calibrations.wanted, session.closing._close
            looks: list[tuple[str, Any]] = []

            def wants(symbol: str, time: int, stage1: Any) -> None:
                wanted(symbol, time, stage1)
                looks.append((symbol, stage1))

            def closed(ready: Any) -> None:
                close(ready)
                while looks:  # a queue's answer comes between two bars
                    session._look_again(*looks.pop(0))

            session.calibrations.wanted, session.closing._close = wants, closed
            await without_a_last_snapshot(session)
            return session

    unbroken = asyncio.run(life(tmp_path / "one", 600))
    first, second, restarted = (asyncio.run(life(tmp_path / "two", bars)) for bars in (300, 301, 600))
    for earlier, later in ((first, second), (second, restarted)):  # in the order in which they were told
        assert told_of(later)[: len(told_of(earlier))] == told_of(earlier) != []
    for name in NAMES:  # one symbol may be ahead of another, as its candles and rates come
        ours, whole = ([one for one in told_of(each) if one["symbol"] == name] for each in (restarted, unbroken))
        assert ours == whole != []
    assert restarted.counts == unbroken.counts and restarted.counts["second_looks"] > 10
    assert restarted.decisions.default_counts == unbroken.decisions.default_counts
    assert restarted.calibrations.asked == unbroken.calibrations.asked != {}


def never(request: Any, report: Any) -> None:
    """A calibration that nobody begins."""


def test_nobody_was_asked_for_a_calibration_where_there_is_no_queue(lake: Lake, tmp_path: Path) -> None:
    feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + 300 * MINUTE_MS)
    asyncio.run(without_a_last_snapshot(Session(feed, lake, journal=tmp_path)))
    second = run(lake, tmp_path, 301)
    assert second.counts["alerts"] > 3 and second.calibrations.asked == {}


def test_other_settings_begin_anew(lake: Lake, tmp_path: Path) -> None:
    from aione_lab.settings import Settings

    run(lake, tmp_path, 20)
    run(lake, tmp_path, 40, settings=Settings(cooldown_period=600))
    starts = Journal(tmp_path).read("start")
    assert len(starts) == 2 and '"cooldown_period":600' in starts["detail"].iloc[1]


def test_only_one_session_writes_a_journal(lake: Lake, tmp_path: Path) -> None:
    with Journal(tmp_path).hold(), pytest.raises(InputError, match="another session"):
        run(lake, tmp_path, 5)


def test_small_parts_become_one_and_a_kill_in_between_leaves_no_row_twice(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with journal.hold():
        for number in range(journals.PUT_TOGETHER + 5):
            assert journal.commit([{"kind": "bar", "symbol": "SOLUSDT", "timestamp": number}]) == number
        small = {part.path: part.path.read_bytes() for part in journal.parts()}
        journal.put_together(journals.PUT_TOGETHER + 1)
        assert len(journal.parts()) == 4
    for path, content in small.items():  # as a kill before they were taken away would leave them
        path.write_bytes(content)
    expected = list(range(journals.PUT_TOGETHER + 5))
    assert Journal(tmp_path).read()["timestamp"].tolist() == expected
    with journal.hold():
        assert len(list(tmp_path.glob("*.parquet"))) == 4
        assert journal.commit([{"kind": "bar", "symbol": "SOLUSDT", "timestamp": 99}]) == len(expected)
    assert Journal(tmp_path).read()["timestamp"].tolist() == [*expected, 99]


def test_a_disk_that_refuses_costs_nothing_but_time(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that could not be written are written later, in order; meanwhile the status says why."""
    feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + 30 * MINUTE_MS)
    session = Session(feed, lake, journal=tmp_path)
    seen = []
    commit = Journal.commit

    def full(self: Journal, rows: list) -> int:
        if len(seen) < 2 and self.last >= 0:
            seen.append(dict(session.status()["degraded"]))
            raise OSError(28, "No space left on device")
        return commit(self, rows)

    monkeypatch.setattr(Journal, "commit", full)

    async def main() -> None:
        finish = session._finish

        async def patient(sound: bool) -> None:
            for _ in range(3):
                await session.keeper.commit()
            await finish(sound)

        session._finish = patient
        await session.run()

    asyncio.run(main())
    assert len(seen) == 2 and "No space left" in seen[1]["journal"]
    rows = bars_of(Journal(tmp_path), "LINKUSDT")
    assert rows["timestamp"].to_pylist() == list(range(FROM, FROM + 30 * MINUTE_MS, MINUTE_MS))
    assert not session.status()["degraded"]


class SlowExchange:
    """Answers what it is asked about a bar when ``answers`` says so, with ``close``."""

    interval = "1m"

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.asked: list[tuple[str, int]] = []
        self.failures = 0
        self.close = 2.0

    async def history(self, symbol: str, start: int, end: int) -> pd.DataFrame:
        self.asked.append((symbol, start))
        await self.answers.wait()
        if self.failures:
            self.failures -= 1
            raise ExchangeError("no network")
        return frame_of([bar_with(symbol, start, self.close)])


def bar_with(symbol: str, stamp: int, close: float) -> Candle:
    return Candle(symbol, stamp, close, close, close, close, 1.0, 1.0, 1.0, 1.0)


def test_a_dead_network_holds_up_neither_a_write_nor_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the exchange says of revised bars comes to the lake when it says it; until then there is the journal."""
    monkeypatch.setattr(keepers, "FLUSH_S", 0.01)
    lake, journal = Lake(tmp_path / "lake"), Journal(tmp_path / "journal")

    def close() -> float | None:
        frame = lake.candles("SOLUSDT", "1m")
        return float(frame["close"].iloc[0]) if len(frame) else None

    async def main() -> None:
        exchange = SlowExchange()
        keeper = Keeper(exchange, lake, journal, lambda: ({}, {}), lambda: [])
        task = asyncio.ensure_future(keeper.run())
        keeper.candle(bar_with("SOLUSDT", START, 1.0))
        keeper.revision(bar_with("SOLUSDT", START, 5.0))
        await until(lambda: exchange.asked, 10)
        keeper.row("funding", "LINKUSDT", START)
        await until(lambda: set(journal.read()["symbol"]) == {"SOLUSDT", "LINKUSDT"}, 10)
        keeper.revision(bar_with("SOLUSDT", START, 6.0))  # while the answer is waited for
        assert close() == 1.0
        exchange.answers.set()
        await until(lambda: close() == 2.0 and len(exchange.asked) == 2, 10)  # once for each revision
        exchange.failures, exchange.close = 1, 3.0
        keeper.revision(bar_with("SOLUSDT", START, 7.0))
        await until(lambda: close() == 3.0 and len(exchange.asked) == 4, 10)
        exchange.answers.clear()
        keeper.revision(bar_with("LINKUSDT", START, 8.0))
        await until(lambda: len(exchange.asked) == 5, 10)
        task.cancel()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 5)
        keeper.revision(bar_with("LINKUSDT", START + MINUTE_MS, 9.0))
        await asyncio.wait_for(keeper.commit(snapshot=True), 5)
        assert len(exchange.asked) == 5 and not keeper.problems

    with journal.hold():
        asyncio.run(main())
    assert journal.read("revision")["close"].tolist() == [5.0, 6.0, 7.0, 8.0, 9.0]


def test_a_confirmation_that_fails_by_a_mistake_ends_the_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "FLUSH_S", 0.01)

    async def main() -> None:
        keeper = Keeper(SlowExchange(), None, None, lambda: ({}, {}), lambda: [])
        keeper._doubtful["SOLUSDT", START] = None
        keeper._feed.history = None
        await asyncio.wait_for(keeper.run(), 5)

    with pytest.raises(TypeError):
        asyncio.run(main())


def test_a_text_that_is_no_text_ends_no_session(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    keeper = Keeper(SlowExchange(), None, journal, lambda: ({}, {}), lambda: [])
    keeper.row("start", "", 1, {"note": "a\ud800b ціна \U0001f680"})
    with journal.hold():
        asyncio.run(keeper.commit())
    assert not keeper.problems and json.loads(journal.read()["detail"].iloc[0])["note"] == "a?b ціна \U0001f680"


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with journal.hold():
        journal.commit([{"kind": "bar", "symbol": "SOLUSDT", "timestamp": 1, "close": np.nan}])
    (part,) = journal.parts()
    part.path.write_bytes(part.path.read_bytes()[:100])
    with pytest.raises(AioneError, match=part.path.name):
        journal.read()
    with pytest.raises(InputError, match="kind"):
        journal.read("nonsense")
