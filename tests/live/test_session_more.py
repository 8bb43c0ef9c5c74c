"""What else a session lives through: a store that promotes, own triggers, a downtime, metrics, a dead reference."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ccxt.pro  # noqa: F401 (loaded before virtual time runs)
import numpy as np
import pytest
from fake_binance import KINDS, WireFault, script
from feed_runs import stamps
from session_faults import WARM, SessionRun, running_session
from session_runs import DAY_MS, MINUTE_MS, NAMES, REFERENCE, START, Recorder, check, filled, market, replayed, unpaid

from aione_lab.engine.spec import FeatureSpec
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake
from aione_lab.live import bar_close, gate, limits
from aione_lab.live.journal import BarRows
from aione_lab.live.metrics import SessionMetrics
from aione_lab.live.replay_feed import ReplayFeed
from aione_lab.live.session import Session
from aione_lab.settings import Settings
from aione_lab.thresholds.classes import thresholds_for
from aione_lab.thresholds.params import Thresholds
from aione_lab.thresholds.provenance import Provenance
from aione_lab.thresholds.store import ThresholdStore
from tests.custom_examples import LOUD, SQUEEZE_RELEASE

FROM = START + 2 * DAY_MS


pytestmark = pytest.mark.usefixtures("no_pauses")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return filled(tmp_path_factory.mktemp("session_more") / "lake")


def test_a_promotion_is_in_force_from_the_next_bar_on(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a restart, and the journal's schedule makes replay repeat it."""
    monkeypatch.setattr(limits, "LOOK_S", 0.02)
    store = ThresholdStore(tmp_path)
    other = Thresholds(min_reasons_for_alert=1, vol_z_threshold=1.2, min_confidence=0.4)
    told = Provenance(
        study="s", start="2025-01-01", end="2025-01-02", data_fingerprint="0" * 64, spec_digest="0" * 64,
        verdict="accept", sentence="Better.", seed=0, versions={},
    )  # fmt: skip

    async def main() -> tuple[Session, Recorder]:
        feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + 400 * MINUTE_MS, speed=6_000.0)
        session = Session(feed, lake, thresholds=store, journal=tmp_path / "journal")
        recorder = Recorder(session)
        task = session.start()
        while session.counts["bars"] < 150:
            await asyncio.sleep(0.01)
        store.promote("SOLUSDT", other, verdict="accept", provenance=told)
        await task
        return session, recorder

    session, recorder = asyncio.run(main())
    rows = session.journal.read("thresholds")
    changes = rows[(rows["symbol"] == "SOLUSDT")]["timestamp"].tolist()
    assert len(changes) == 2 and FROM < changes[1] < FROM + 400 * MINUTE_MS
    assert set(rows["symbol"]) == set(NAMES) and len(rows) == 4
    schedule = {START: thresholds_for("SOLUSDT"), changes[1]: thresholds_for("SOLUSDT", other)}
    candles = market()["SOLUSDT"][0][: 2 * 1440 + 400]
    check([recorder], "SOLUSDT", replayed("SOLUSDT", candles, market()[REFERENCE][0], thresholds=schedule), FROM)
    assert session.assets.get("SOLUSDT")["thresholds"]["vol_z_threshold"] == 1.2
    known = {name: getattr(told, name) for name in ("study", "start", "end")}
    assert session.status()["calibrated"]["SOLUSDT"].items() > known.items()


def test_assets_show_a_calibrated_set_as_long_as_it_is_in_force(lake: Lake) -> None:
    """Also one that comes amid the session, and that its end is seen."""
    found = thresholds_for("SOLUSDT", Thresholds(min_confidence=0.6))
    feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + 3_000 * MINUTE_MS, speed=6_000.0)
    session = Session(feed)

    async def shows(state: str) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while (asset := session.assets.get("SOLUSDT")) is None or asset["calib_status"] != state:
                await asyncio.sleep(0.01)
        return dict(asset)

    async def main() -> None:
        session.start()
        await shows("pending")
        session.set_thresholds("SOLUSDT", found)
        assert (await shows("completed"))["calib_params"]["min_confidence"] == 0.6
        assert list(session.status()["calibrated"]) == ["SOLUSDT"]
        session.set_thresholds("SOLUSDT", thresholds_for("SOLUSDT"))
        assert (await shows("pending"))["calib_params"] is None
        assert not session.status()["calibrated"]
        await session.stop()

    asyncio.run(main())


def test_also_of_a_symbol_without_a_past() -> None:
    feed = ReplayFeed(SimulatedExchange(), NAMES, start=START, end=START + 3 * MINUTE_MS)
    session = Session(feed, thresholds={"SOLUSDT": thresholds_for("SOLUSDT", Thresholds(min_confidence=0.6))})
    asyncio.run(session.run())
    assert session.assets.get("SOLUSDT")["calib_status"] == "completed"
    assert session.assets.get("LINKUSDT")["calib_status"] == "pending"


def test_a_damaged_store_costs_no_bar(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "thresholds").mkdir()
    (tmp_path / "thresholds" / "SOLUSDT.json").write_text("{")
    feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + 5 * MINUTE_MS)
    session = Session(feed, lake, thresholds=ThresholdStore(tmp_path))
    asyncio.run(session.run())
    assert session.counts["bars"] == 15 and "SOLUSDT" in session.status()["degraded"]["thresholds"]


def test_own_triggers_and_a_restart(lake: Lake, tmp_path: Path) -> None:
    spec = FeatureSpec(triggers=(SQUEEZE_RELEASE, LOUD))
    recorders = []
    for end in (FROM + 211 * MINUTE_MS, FROM + 500 * MINUTE_MS):
        session = Session(ReplayFeed(lake, NAMES, start=FROM, end=end), lake, spec=spec, journal=tmp_path)
        recorders.append(Recorder(session))
        asyncio.run(session.run())
        assert not session.closing.broken
    reasons = set()
    for name in NAMES:
        candles = market()[name][0][: 2 * 1440 + 500]
        check(recorders, name, replayed(name, candles, market()[REFERENCE][0], spec=spec), FROM)
        reasons |= {reason for row in session.rows(name)["trigger_reasons"] for reason in row}
    assert {"SQUEEZE_RELEASE", "LOUD"} <= reasons


def test_a_downtime_is_filled_and_a_restart_among_faults_changes_nothing(tmp_path: Path) -> None:
    """Stopped on a faulty exchange, away for 25 bars, started again: journal and lake of the unbroken run."""

    async def main() -> SessionRun:
        first = int(stamps(market()[REFERENCE][0])[0])
        begin = first + WARM * MINUTE_MS
        async with running_session(tmp_path, market(), begin, script(3, 60, NAMES, KINDS, every=5)) as run:
            await run.bars(70)
        later = begin + 95 * MINUTE_MS
        faults = script(4, 90, NAMES, KINDS, every=5)
        async with running_session(tmp_path, market(), later, faults, fill=False) as run:
            await run.finish(100)
            assert not [text for text in run.session.alerts_seen if text["recommendation"] in ("INVALID_DATA",)]
        run.start = begin
        return run

    run = asyncio.run(main())
    assert run.check(195, REFERENCE)["bars"] == 3 * 195
    assert run.session.journal.read("resume").shape[0] == 1


def test_a_dead_reference_holds_nobody_up_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stated wait bars are decided without its close, which the status counts and drift names."""
    monkeypatch.setattr(gate, "REFERENCE_WAIT_S", 0.3)
    from fake_exchange import Fault

    from aione_lab.live.drift_check import drift

    async def main() -> SessionRun:
        first = int(stamps(market()[REFERENCE][0])[0])
        faults = [WireFault("drop", bar, REFERENCE) for bar in range(3, 10)]
        async with running_session(tmp_path, market(), first + WARM * MINUTE_MS, faults) as run:
            run.server.faults.append(Fault("status", path="klines", symbol=REFERENCE, status=503, times=100_000))
            await run.bars(8)
            fleet = run.session.fleet
            await until(lambda: (fleet.last_time("SOLUSDT") or 0) >= run.start + 6 * MINUTE_MS)
            assert fleet.last_time(REFERENCE) == run.start + 2 * MINUTE_MS
            run.server.faults.clear()
            await run.finish(30)
        return run

    run = asyncio.run(main())
    assert run.session.status()["without_reference"] >= 4
    found = drift(tmp_path / "journal", Lake(tmp_path / "lake"))
    assert set(found.causes) == {"missing reference"}
    assert {one.symbol for one in found.differences} == {"SOLUSDT", "LINKUSDT"}


async def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while not condition():
        assert loop.time() < ends, "it did not come about"
        await asyncio.sleep(0.05)


def test_metrics_count_what_happens(lake: Lake) -> None:
    metrics = SessionMetrics()
    feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + 300 * MINUTE_MS)
    session = Session(feed, lake, metrics=metrics)
    asyncio.run(session.run())
    text = metrics.text()[0].decode()
    assert "aione_bars_total 900.0" in text and "aione_lag_seconds_count 900.0" in text
    assert "aione_reconnects_total 0.0" in text and "aione_step_seconds_count" in text
    alerts = sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("aione_alerts_total{"))
    assert alerts == session.counts["alerts"] > 0


def test_a_failure_is_no_silence_and_a_restart_decides_again(lake: Lake, tmp_path: Path) -> None:
    """A mistake of ours ends the session with its error; the bar that it broke off is decided after a restart."""

    def session(end: int) -> Session:
        return Session(ReplayFeed(lake, NAMES, start=FROM, end=end), lake, journal=tmp_path)

    first = session(FROM + 100 * MINUTE_MS)
    recorder = Recorder(first)
    keep = first.keeper.bars

    def broken(bars: BarRows) -> None:
        if ("SOLUSDT", FROM + 60 * MINUTE_MS) in [(one.candle.symbol, one.candle.timestamp) for one in bars.ready]:
            raise ZeroDivisionError("a mistake")
        keep(bars)

    first.keeper.bars = broken
    with pytest.raises(ZeroDivisionError):
        asyncio.run(first.run())
    assert first.status()["state"] == "failed" and first.status()["failure"] == "a mistake"
    second = session(FROM + 200 * MINUTE_MS)
    asyncio.run(second.run())
    frame = second.journal.read("bar")
    for name in NAMES:
        times = frame.loc[frame["symbol"] == name, "timestamp"].tolist()
        assert times == list(range(FROM, FROM + 200 * MINUTE_MS, MINUTE_MS))
    assert recorder.signals["SOLUSDT"]


def test_an_alert_that_cannot_be_told_keeps_no_other_from_being_told(lake: Lake, tmp_path: Path) -> None:
    """The bar's alerts are in the journal: whoever restarts would take them for told."""
    feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + 300 * MINUTE_MS)
    limits, often = Thresholds(min_reasons_for_alert=1), Settings(cooldown_period=0)  # several alerts on many bars
    session = unpaid(Session(feed, lake, journal=tmp_path, thresholds=limits, settings=often))
    keep = session.keeper.bars
    in_close, told, failed = [], [], []

    def watched(rows: BarRows) -> None:
        in_close.append(sum("detail" in row for row in rows.extra.values()))
        keep(rows)

    def fails_once(stage2: Any, *_: Any, **__: Any) -> None:
        if in_close[-1] > 1 and not failed:
            failed.append(len(told))
            raise ZeroDivisionError("a mistake")
        told.append(stage2)

    session.keeper.bars, session.closing._tell = watched, fails_once
    with pytest.raises(ZeroDivisionError):
        asyncio.run(session.run())
    assert len(told) - failed[0] == in_close[-1] - 1 > 0


def test_a_second_ctrl_c_between_push_and_journal_costs_nothing(
    lake: Lake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may strike between two lines of ours: what is then in memory is no place to go on from."""

    def session(end: int) -> Session:
        return Session(ReplayFeed(lake, NAMES, start=FROM, end=FROM + end * MINUTE_MS), lake, journal=tmp_path)

    first = session(100)
    push = first.fleet.push

    def interrupted(places: np.ndarray, bars: np.ndarray) -> dict[int, np.ndarray]:
        ended = push(places, bars)
        if (bars["timestamp"] == FROM + 60 * MINUTE_MS).any():
            raise KeyboardInterrupt
        return ended

    first.fleet.push = interrupted
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(first.run())
    second = session(120)
    asyncio.run(second.run())
    assert not caplog.records and second.journal.read("start").shape[0] == 1
    frame = second.journal.read("bar")
    for name in NAMES:
        times = frame.loc[frame["symbol"] == name, "timestamp"].tolist()
        assert times == list(range(FROM, FROM + 120 * MINUTE_MS, MINUTE_MS))


def test_the_garbage_collector_is_left_as_it_was(lake: Lake) -> None:
    """It waits while a bar is decided, whatever becomes of that, and stays off where it was off."""
    for enabled in (True, False):
        session = Session(ReplayFeed(lake, NAMES, start=FROM, end=FROM + 5 * MINUTE_MS), lake)
        within: list[bool] = []
        session.keeper.bars = lambda rows, within=within: within.append(gc.isenabled())
        was = gc.isenabled()
        (gc.enable if enabled else gc.disable)()
        try:
            asyncio.run(session.run())
            assert gc.isenabled() == enabled and within and not any(within)
            with pytest.raises(ZeroDivisionError), bar_close._no_collection():
                raise ZeroDivisionError
            assert gc.isenabled() == enabled
        finally:
            (gc.enable if was else gc.disable)()


def test_a_decision_that_fails_beside_the_candles_ends_the_session(lake: Lake) -> None:
    """From a timer nobody sees an exception: the session does."""
    session = Session(ReplayFeed(lake, NAMES, start=FROM, speed=60.0), lake)

    def fails(ended: bool = False) -> int:
        raise ZeroDivisionError("a mistake")

    async def main() -> None:
        task = session.start()
        await until(lambda: session.status()["state"] == "running")
        session.closing.decide = fails
        session.closing.soon()
        await task

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())


def test_thresholds_given_at_a_restart_hold_from_its_first_bar_on(lake: Lake, tmp_path: Path) -> None:
    other = Thresholds(min_reasons_for_alert=1)
    for end, given in ((30, None), (60, other)):
        feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + end * MINUTE_MS)
        session = Session(feed, lake, journal=tmp_path, thresholds=given)
        asyncio.run(session.run())
    rows = session.journal.read("thresholds")
    assert rows.loc[rows["symbol"] == "SOLUSDT", "timestamp"].tolist() == [START, FROM + 30 * MINUTE_MS]
