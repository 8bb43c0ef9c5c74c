"""A session over stored candles decides what replay decides, byte for byte, also across a restart."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from session_runs import DAY_MS, MINUTE_MS, NAMES, REFERENCE, START, Recorder, check, filled, market, replayed

from aione_lab.errors import AioneError, InputError
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake
from aione_lab.live.replay_feed import ReplayFeed
from aione_lab.live.session import Session
from aione_lab.thresholds.classes import thresholds_for
from aione_lab.thresholds.params import Thresholds

FROM = START + 2 * DAY_MS


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return filled(tmp_path_factory.mktemp("session") / "lake")


def feed(lake: Lake, **more: object) -> ReplayFeed:
    return ReplayFeed(lake, NAMES, start=more.pop("start", FROM), **more)


def ran(session: Session) -> Recorder:
    recorder = Recorder(session)
    asyncio.run(session.run())
    return recorder


def test_a_session_decides_what_replay_decides(lake: Lake) -> None:
    """Three symbols, two days of warm-up and one live, the reference and funding included."""
    session = Session(feed(lake), lake)
    recorder = ran(session)
    alerts = 0
    for name in NAMES:
        result = replayed(name, market()[name][0], market()[REFERENCE][0])
        alerts += check([recorder], name, result, FROM)
        rows = session.rows(name)
        assert rows["signal"].tolist() == result.signals["signal"].tolist()[-1500:]
        assert session.candles(name, 300).equals(lake.candles(name, "1m")[-300:])
    assert alerts > 20 and session.counts["alerts"] == alerts and session.counts["trades"] > 3
    assert [a["timestamp"] for a in session.last_alerts(n=3)] == [a["timestamp"] for a in recorder.stage2[:-4:-1]]
    assert session.status()["state"] == "stopped" and not session.status()["degraded"]


def test_stage2_of_a_session_is_that_of_the_processor_and_of_explain(lake: Lake) -> None:
    from aione_lab.backtest.stages import Stage2Processor

    session = Session(feed(lake), lake)
    stage1s = []
    stage2_of = session.decisions.stage2
    session.decisions.stage2 = lambda name, stage1: (stage1s.append(stage1), stage2_of(name, stage1))[1]
    recorder = ran(session)
    assert len(stage1s) == len(recorder.stage2) > 5
    results = {name: replayed(name, market()[name][0], market()[REFERENCE][0]) for name in NAMES}
    processor = Stage2Processor()
    for stage1, stage2 in zip(stage1s, recorder.stage2, strict=True):
        again, stage2 = asyncio.run(processor.process(stage1)), json.loads(json.dumps(stage2))
        for answer in (again, stage2):
            answer["quality_metrics"].pop("processing_time_ms")
        assert again == stage2
        told = results[stage2["symbol"]].explain(stage2["timestamp"])
        assert told.narrative == stage2["narrative"] and told.risk == stage2["risk_parameters"]
        assert (told.confidence, told.recommendation) == (stage2["confidence"], stage2["recommendation"])


def test_states_show_the_last_bar_and_the_last_alert(lake: Lake) -> None:
    session = Session(feed(lake), lake)
    ran(session)
    for name in NAMES:
        state = session.assets.get(name)
        last = session.rows(name).iloc[-1]
        assert state["timestamp"] == "2025-01-03T23:59:00+00:00" and state["signal"] == last["signal"]
        assert state["stats"]["rsi"] == last["rsi"] and state["recommendation"] == last["recommendation"]
        alert = session.last_alerts(name, 1)
        assert bool(alert) == (state["stage2"] is not None)
        if alert:
            assert state["stage2"]["timestamp"] == alert[0]["timestamp"]


def test_a_restart_goes_on_where_it_stopped(lake: Lake, tmp_path: Path) -> None:
    """Three sessions on one journal, stopped in between: together the one that was never stopped."""
    ends = (FROM + 700 * MINUTE_MS, FROM + 701 * MINUTE_MS, None)
    recorders = [ran(Session(feed(lake, end=end), lake, journal=tmp_path / "journal")) for end in ends]
    assert [len(one.signals["SOLUSDT"]) for one in recorders] == [700, 1, 739]
    for name in NAMES:
        check(recorders, name, replayed(name, market()[name][0], market()[REFERENCE][0]), FROM)


def test_a_schedule_of_thresholds_is_that_of_replay(lake: Lake) -> None:
    """What is set between two bars is in force from the next one on, and the windows do not notice."""
    other = Thresholds(min_reasons_for_alert=1, vol_z_threshold=1.5, min_confidence=0.4)
    session = Session(feed(lake), lake)
    at = FROM + 333 * MINUTE_MS
    recorder = Recorder(session)
    recorded = session.keeper.bars

    def watched(bars):
        recorded(bars)
        for one in bars.ready:
            if one.candle.timestamp == at - MINUTE_MS:
                session.set_thresholds(one.candle.symbol, other)

    session.keeper.bars = watched
    asyncio.run(session.run())
    for name in NAMES:
        candles = market()[name][0]
        schedule = {START: thresholds_for(name), at: other}
        result = replayed(name, candles, market()[REFERENCE][0], thresholds=schedule)
        check([recorder], name, result, FROM)
        assert session.assets.get(name)["thresholds"]["min_confidence"] == 0.4


def test_a_session_without_a_lake_warms_up_from_its_feed() -> None:
    exchange = SimulatedExchange(seed=3)
    session = Session(ReplayFeed(exchange, NAMES, start=FROM, end=FROM + 120 * MINUTE_MS))
    recorder = ran(session)
    for name in NAMES:
        check([recorder], name, replayed(name, market()[name][0][: 2 * 1440 + 120], market()[REFERENCE][0]), FROM)


def test_holes_are_holes_as_in_replay(tmp_path: Path) -> None:
    """A symbol, and the reference, without some bars: windows begin anew, a trade is closed; nobody is held up."""
    lake = Lake(tmp_path / "lake")
    holes = {"SOLUSDT": (3100, 3130), "BTCUSDT": (3300, 3304)}
    frames = {}
    for name, (candles, funding) in market().items():
        a, b = holes.get(name, (0, 0))
        frames[name] = candles.drop(candles.index[a:b])
        lake.append(name, "1m", frames[name])
        lake.append_funding(name, funding.to_frame())
    recorder = ran(Session(feed(lake), lake))
    for name in NAMES:
        check([recorder], name, replayed(name, frames[name], frames[REFERENCE]), FROM)


def test_candles_and_rates_go_to_the_lake(lake: Lake, tmp_path: Path) -> None:
    mine = Lake(tmp_path / "mine")
    ran(Session(feed(lake, end=FROM + 600 * MINUTE_MS), mine))
    for name in NAMES:
        whole = lake.candles(name, "1m", START, FROM + 600 * MINUTE_MS)
        assert mine.candles(name, "1m").equals(whole)
        assert mine.funding(name).equals(lake.funding(name, START, FROM + 600 * MINUTE_MS))


def test_what_cannot_be_used_is_refused_in_one_line(lake: Lake) -> None:
    for arguments, named in (
        ({"feed": object()}, "feed"),
        ({"lake": "data_lake"}, "lake"),
        ({"reference": "ETHUSDT"}, "reference"),
        ({"thresholds": 3}, "thresholds"),
        ({"thresholds": {"SOLUSDT": 3}}, "thresholds[SOLUSDT]"),
        ({"journal": 3}, "journal"),
        ({"queue": 3}, "queue"),
        ({"alerts": 3}, "alerts"),
    ):
        with pytest.raises(InputError, match=named.replace("[", r"\[")) as caught:
            Session(**{"feed": feed(lake), **arguments})
        assert "\n" not in str(caught.value)
    session = Session(feed(lake))
    with pytest.raises(InputError, match="symbol"):
        session.candles("NOPEUSDT")
    with pytest.raises(InputError, match="queue"):
        asyncio.run(session.request_calibration("SOLUSDT"))
    assert Session(ReplayFeed(lake, ["SOLUSDT"])).reference is None


def test_a_session_runs_once_and_stops_cleanly(lake: Lake) -> None:
    async def main() -> None:
        session = Session(feed(lake, speed=600.0), lake)
        task = session.start()
        while session.status()["state"] != "running":
            await asyncio.sleep(0.01)
        await session.stop()
        assert task.done() and task.exception() is None and session.status()["state"] == "stopped"
        await session.stop()
        with pytest.raises(AioneError, match="has run"):
            await session.run()

    asyncio.run(main())
