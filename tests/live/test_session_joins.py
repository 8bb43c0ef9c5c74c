"""Who joins a session late: symbols new to its journal, a reference that is behind, thresholds before the first bar."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from session_runs import (
    DAY_MS,
    MINUTE_MS,
    NAMES,
    REFERENCE,
    START,
    Recorder,
    bars_of,
    check,
    drifted,
    filled,
    market,
    ran,
    replayed,
    without_a_last_snapshot,
)
from waiting import until

from aione_lab.calibration.queue import CalibrationQueue
from aione_lab.errors import InputError
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake
from aione_lab.live import drift, opening
from aione_lab.live import limits as limit_rules
from aione_lab.live.journal import Journal
from aione_lab.live.replay_feed import ReplayFeed
from aione_lab.live.session import Session
from aione_lab.settings import Costs
from aione_lab.thresholds import Provenance, Thresholds, ThresholdStore

FROM = START + 2 * DAY_MS
EASY = Thresholds(min_confidence=0.3, min_reasons_for_alert=1)
PROVENANCE = Provenance(
    study="s", start="2025-01-01", end="2025-01-02", data_fingerprint="0" * 64, spec_digest="0" * 64,
    verdict="accept", sentence="Better.", seed=0, versions={},
)  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return filled(tmp_path_factory.mktemp("joins"))


class Short(ReplayFeed):
    """The history of ``behind`` ends ``by`` bars early: the exchange does not have the last ones yet."""

    behind, by = "", 0

    async def history(self, symbol: str, start: int, end: int) -> pd.DataFrame:
        found = await super().history(symbol, start, end)
        return found[: len(found) - self.by] if symbol == self.behind else found


def test_a_symbol_that_is_new_to_the_journal_joins_where_the_others_stand(lake: Lake, tmp_path: Path) -> None:
    for names, bars in (([REFERENCE], 200), (NAMES[:2], 400)):
        feed = ReplayFeed(lake, names, start=FROM, end=FROM + bars * MINUTE_MS)
        session = Session(feed, lake, journal=tmp_path / "journal")
        recorder = Recorder(session)
        asyncio.run(session.run())
    assert session.resumed == (REFERENCE,) and session.gate.without_reference == 0
    assert bars_of(tmp_path, "SOLUSDT") == list(range(FROM + 200 * MINUTE_MS, FROM + 400 * MINUTE_MS, MINUTE_MS))
    candles = market()["SOLUSDT"][0][: 2 * 1440 + 400]
    check([recorder], "SOLUSDT", replayed("SOLUSDT", candles, market()[REFERENCE][0]), FROM + 200 * MINUTE_MS)
    assert drift(tmp_path / "journal", lake).clean


def test_bars_that_only_the_new_symbol_has_still_to_take_have_the_references_closes(lake: Lake, tmp_path: Path) -> None:
    ran(lake, tmp_path, [REFERENCE], 120)

    class Behind(Short):
        behind, by = "SOLUSDT", 3

    ran(lake, tmp_path, NAMES[:2], 60, first=FROM + 120 * MINUTE_MS, kind=Behind)
    rows = Journal(tmp_path / "journal").read("bar")
    rows = rows[rows["symbol"] == "SOLUSDT"]
    assert rows["timestamp"].iloc[0] == FROM + 117 * MINUTE_MS and rows["reference_close"].notna().all()
    assert drifted(tmp_path).clean


def test_a_reference_that_is_a_bar_late_at_the_start_is_waited_for(lake: Lake, tmp_path: Path) -> None:
    class Behind(Short):
        behind, by = REFERENCE, 2

    session = ran(lake, tmp_path, NAMES[:2], 300, kind=Behind)
    first = FROM - 2 * MINUTE_MS
    assert {bars_of(tmp_path, name)[0] for name in NAMES[:2]} == {first}
    assert drifted(tmp_path).clean and session.gate.without_reference == 0


def test_one_that_is_long_behind_is_not(lake: Lake, tmp_path: Path) -> None:
    """What is decided without it is what a replay decides, to which those bars are not there either."""

    class Behind(Short):
        behind, by = REFERENCE, 30

    session = ran(lake, tmp_path, NAMES[:2], 60, kind=Behind)
    assert bars_of(tmp_path, "SOLUSDT")[0] == FROM - 10 * MINUTE_MS
    assert session.counts["bars"] == 60 + 30 + 60 + 10


def test_a_reference_without_a_history_holds_up_nobody(lake: Lake, tmp_path: Path) -> None:
    source = Lake(tmp_path / "source")
    source.append("SOLUSDT", "1m", market()["SOLUSDT"][0])
    source.append(REFERENCE, "1m", market()[REFERENCE][0][pd.Timestamp(FROM, unit="ms", tz="UTC") :])
    session = ran(source, tmp_path, NAMES[:2], 120)
    assert session.counts["bars"] == 240 and drifted(tmp_path).clean


def test_a_set_put_before_the_session_runs_is_in_force_from_its_first_bar(lake: Lake, tmp_path: Path) -> None:
    feed = ReplayFeed(lake, NAMES[:2], start=FROM, end=FROM + 300 * MINUTE_MS)
    session = Session(feed, Lake(tmp_path / "lake"), journal=tmp_path / "journal")
    session.set_thresholds("SOLUSDT", EASY)
    asyncio.run(session.run())
    assert drifted(tmp_path).clean and session.fleet.thresholds("SOLUSDT") == EASY
    again = Session(
        ReplayFeed(lake, NAMES[:2], start=FROM, end=FROM + 400 * MINUTE_MS),
        Lake(tmp_path / "lake"),
        journal=tmp_path / "journal",
    )
    other = EASY.replace(min_confidence=0.31)
    again.set_thresholds("SOLUSDT", other)
    asyncio.run(again.run())
    assert again.resumed == NAMES[:2] and again.fleet.thresholds("SOLUSDT") == other and drifted(tmp_path).clean


def test_a_set_that_is_accepted_amid_the_warm_up_is_in_force_from_the_first_live_bar(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = ReplayFeed(lake, NAMES[:2], start=FROM, end=FROM + 300 * MINUTE_MS)
    session = Session(feed, Lake(tmp_path / "lake"), journal=tmp_path / "journal")
    warm_up = opening._warm_up

    def accepted(session: Session, name: str, *more: Any) -> None:
        warm_up(session, name, *more)
        session.calibrations.update_calibration(name, EASY.to_json())

    monkeypatch.setattr(opening, "_warm_up", accepted)
    asyncio.run(session.run())
    sets = Journal(tmp_path / "journal").read("thresholds")
    assert sets[sets["symbol"] == "SOLUSDT"]["timestamp"].tolist()[1:] == [FROM]
    assert session.fleet.thresholds("SOLUSDT").min_confidence == 0.3 and drifted(tmp_path).clean


def test_a_store_without_news_leaves_a_set_that_was_put_by_hand(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit_rules, "LOOK_S", 0.02)
    store = ThresholdStore(tmp_path / "experiments")

    async def main() -> tuple[float, float]:
        feed = ReplayFeed(lake, NAMES[:2], start=FROM, end=FROM + DAY_MS, speed=3_000)
        session = Session(feed, thresholds=store)
        session.start()
        await until(lambda: session.counts["bars"] >= 4, 20)
        session.set_thresholds("SOLUSDT", EASY)
        await asyncio.sleep(0.3)
        by_hand = session.fleet.thresholds("SOLUSDT").min_confidence
        store.promote("SOLUSDT", Thresholds(min_confidence=0.9), verdict="accept", provenance=PROVENANCE)
        while session.fleet.thresholds("SOLUSDT").min_confidence == by_hand:
            await asyncio.sleep(0.01)
        await session.stop()
        return by_hand, session.fleet.thresholds("SOLUSDT").min_confidence

    assert asyncio.run(asyncio.wait_for(main(), 30)) == (0.3, 0.9)


def test_a_set_that_the_store_gets_before_the_first_bar_is_in_force_from_it(lake: Lake, tmp_path: Path) -> None:
    store = ThresholdStore(tmp_path / "experiments")
    feed = ReplayFeed(lake, NAMES[:2], start=FROM, end=FROM + 60 * MINUTE_MS)
    session = Session(feed, Lake(tmp_path / "lake"), journal=tmp_path / "journal", thresholds=store)
    store.promote("SOLUSDT", EASY, verdict="accept", provenance=PROVENANCE)
    asyncio.run(session.run())
    assert session.fleet.thresholds("SOLUSDT").min_confidence == 0.3 and drifted(tmp_path).clean


class Late(ReplayFeed):
    """Its present is well inside a bar, as an exchange's is, and tells the rates until then."""

    streams = False

    def now_ms(self) -> int:
        return super().now_ms() + (0 if self.streams else 40_000)

    async def funding(self, symbol: str, start: int, end: int) -> pd.Series:
        return await self._read(self._source.funding, symbol, start, max(start, min(end, self.now_ms())))

    async def stream(self, after: Any) -> Any:
        self.streams = True
        async for candle in super().stream(after):
            yield candle


@pytest.mark.parametrize("behind", [0, 5])
def test_a_rate_that_is_known_before_its_bar_is_that_bars(lake: Lake, tmp_path: Path, behind: int) -> None:
    stamp = lake.funding("SOLUSDT").index[-2].value // 10**6 // MINUTE_MS * MINUTE_MS

    class Behind(Late, Short):
        pass

    Behind.behind, Behind.by = REFERENCE, behind
    ran(lake, tmp_path, NAMES, 30, first=stamp + (3 * MINUTE_MS if behind else 0), kind=Behind)
    rows = Journal(tmp_path / "journal").read("bar")
    paid = rows[rows["funding_rate"].notna()]
    assert sorted(paid["symbol"]) == sorted(NAMES) and set(paid["timestamp"]) == {stamp}
    assert drifted(tmp_path).clean


def test_a_symbol_that_was_left_out_for_a_run_is_journalled_once(lake: Lake, tmp_path: Path) -> None:
    """Also where the run before was killed: its rows are newer than the snapshot that knows of them."""
    feed = ReplayFeed(lake, NAMES[:2], start=FROM, end=FROM + 100 * MINUTE_MS)
    killed = Session(feed, Lake(tmp_path / "lake"), journal=tmp_path / "journal")
    finish = killed._finish

    async def without_a_snapshot(sound: bool) -> None:
        await finish(False)

    killed._finish = without_a_snapshot
    asyncio.run(killed.run())
    ran(lake, tmp_path, [REFERENCE], 100)
    ran(lake, tmp_path, NAMES[:2], 150)
    for name in NAMES[:2]:
        assert bars_of(tmp_path, name) == list(range(FROM, FROM + 150 * MINUTE_MS, MINUTE_MS)), name
    assert drifted(tmp_path).clean


def test_what_other_costs_make_of_the_same_bars_is_journalled_too(lake: Lake, tmp_path: Path) -> None:
    ran(lake, tmp_path, NAMES[:2], 60)
    ran(lake, tmp_path, NAMES[:2], 60, costs=Costs(fee=0.001))
    assert len(bars_of(tmp_path, "SOLUSDT")) == 120 and drifted(tmp_path).clean
    ran(lake, tmp_path, NAMES[:2], 60, costs=Costs(fee=0.001))
    assert len(bars_of(tmp_path, "SOLUSDT")) == 120


def test_what_other_costs_made_is_no_reason_to_leave_bars_out(lake: Lake, tmp_path: Path) -> None:
    ran(lake, tmp_path, NAMES[:2], 100)
    ran(lake, tmp_path, NAMES[:2], 60, costs=Costs(fee=0.001))
    (tmp_path / "journal" / "snapshot.bin").unlink()
    ran(lake, tmp_path, NAMES[:2], 120, costs=Costs(fee=0.001))
    assert len(bars_of(tmp_path, "SOLUSDT")) == 100 + 120 and drifted(tmp_path).clean


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize("other", ["interval", "feed"])
def test_a_journal_of_other_candles_is_refused_and_stays_as_it_is(
    lake: Lake, tmp_path: Path, other: str, snapshot: bool
) -> None:
    ran(lake, tmp_path, NAMES[:2], 30)
    if not snapshot:
        (tmp_path / "journal" / "snapshot.bin").unlink()
    before = {path.name: path.read_bytes() for path in (tmp_path / "journal").iterdir()}
    source, interval = (SimulatedExchange(seed=3), "5m") if other == "interval" else (SimulatedExchange(seed=3), "1m")
    feed = ReplayFeed(source, NAMES[:2], interval, start=FROM, end=FROM + 60 * MINUTE_MS)
    with pytest.raises(
        InputError, match=r"journal='.*: holds 1m candles of a lake; these are [15]m candles of the sim"
    ):
        asyncio.run(Session(feed, journal=tmp_path / "journal").run())
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "journal").iterdir()}


def test_an_own_step_that_fails_in_the_warm_up_names_its_symbol(lake: Lake, tmp_path: Path, monkeypatch: Any) -> None:
    feed = ReplayFeed(lake, NAMES[:1], start=FROM, end=FROM + 60 * MINUTE_MS)
    session = Session(feed)

    def refused(*_: Any) -> None:
        raise InputError("spec='MINE': a step of these failed")

    monkeypatch.setattr(session.fleet, "advance", refused)
    with pytest.raises(InputError, match="^BTCUSDT: spec='MINE'"):
        asyncio.run(session.run())


def never(request: Any, report: Any) -> None:
    """A calibration that does not come to its turn."""


def test_calibrations_that_were_asked_for_before_a_restart_are_asked_for_again(lake: Lake, tmp_path: Path) -> None:
    async def life(bars: int) -> tuple[set[str], set[str]]:
        queue = CalibrationQueue(never)
        feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + bars * MINUTE_MS)
        session = Session(feed, Lake(tmp_path / "lake"), journal=tmp_path / "journal", queue=queue)
        await session.run()
        states = {name for name in NAMES if session.assets.get(name)["calib_status"] == "queued_urgent"}
        waiting = set(session.calibrations.waiting)
        await queue.close()
        return waiting, states

    first = asyncio.run(life(300))
    again = asyncio.run(life(301))
    assert first[0] and first == again


def test_what_waits_since_the_last_snapshot_is_asked_for_again_after_a_kill(lake: Lake, tmp_path: Path) -> None:
    async def life(bars: int, *, killed: bool) -> dict[str, Any]:
        queue = CalibrationQueue(never)
        feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + bars * MINUTE_MS)
        session = Session(feed, Lake(tmp_path / "lake"), journal=tmp_path / "journal", queue=queue)
        if killed:
            await without_a_last_snapshot(session)
        else:
            await session.run()
        waiting = dict(session.calibrations.waiting)
        asked = {name for name in NAMES if session.assets.get(name)["calib_status"] == "queued_urgent"}
        assert asked == set(waiting)
        await queue.close()
        return {name: {**stage1, "hints": ()} for name, stage1 in waiting.items()}

    waiting = asyncio.run(life(300, killed=True))
    assert waiting and asyncio.run(life(301, killed=False)) == waiting


def test_a_second_look_that_was_told_before_a_kill_is_not_told_again(lake: Lake, tmp_path: Path) -> None:
    async def life(bars: int, *, done: bool) -> set[str]:
        queue = CalibrationQueue(never)
        feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + bars * MINUTE_MS)
        session = Session(feed, Lake(tmp_path / "lake"), journal=tmp_path / "journal", queue=queue)
        ask_again = session.calibrations.ask_again

        def answered() -> None:
            ask_again()
            for name in list(session.calibrations.waiting):
                session.calibrations.update_asset(name, {"calib_status": "completed"})

        if done:
            session.calibrations.ask_again = answered
        await (without_a_last_snapshot(session) if done else session.run())
        await queue.close()
        return set(session.calibrations.waiting)

    waiting = asyncio.run(life(300, done=False))
    asyncio.run(life(300, done=True))
    looks = len(Journal(tmp_path / "journal").read("second_look"))
    assert looks == len(waiting) > 0 and not asyncio.run(life(300, done=False))
    asyncio.run(life(300, done=True))
    assert len(Journal(tmp_path / "journal").read("second_look")) == looks


@pytest.mark.parametrize("bars", ["x", float("nan"), -1, True])
def test_a_number_of_bars_is_one(lake: Lake, bars: Any) -> None:
    session = Session(ReplayFeed(lake, NAMES, start=FROM, end=FROM + 60 * MINUTE_MS))
    with pytest.raises(InputError, match="^bars="):
        session.candles("SOLUSDT", bars)
    with pytest.raises(InputError, match="^n="):
        session.last_alerts(n=bars)
