"""A session and its cache: Redis fails in every way and the session goes on; another process sees what it knows."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import waiting
from redis_server import FAULTS, PASSWORD, RedisServer
from session_runs import DAY_MS, MINUTE_MS, NAMES, REFERENCE, START, Recorder, check, filled, market, replayed

from aione_lab.cache import SimpleCacheHandler
from aione_lab.calibration.queue import CalibrationQueue
from aione_lab.lake.store import Lake
from aione_lab.live.replay_feed import ReplayFeed
from aione_lab.live.session import Session

FROM = START + 2 * DAY_MS
FOLLOWER = Path(__file__).with_name("session_follower.py")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return filled(tmp_path_factory.mktemp("session_cache") / "lake")


until = functools.partial(waiting.until, seconds=30.0)


def test_the_session_goes_on_through_every_failure_of_redis(own_redis: RedisServer, lake: Lake, tmp_path: Path) -> None:
    """Bars are decided all the while, the status says what is wrong, and the newest state arrives afterwards."""

    async def main() -> Recorder:
        async with SimpleCacheHandler.from_url(own_redis.url) as cache:
            feed = ReplayFeed(lake, NAMES, start=FROM, speed=1_200.0)
            session = Session(feed, lake, cache=cache, journal=tmp_path / "journal")
            recorder = Recorder(session)
            task = session.start()
            for fault in FAULTS:
                await until(lambda: session.status()["state"] == "running" and not session.status()["degraded"])
                await asyncio.to_thread(own_redis.suffer, fault)
                await until(lambda: "cache" in session.status()["degraded"])
                before = session.counts["bars"]
                await until(lambda before=before: session.counts["bars"] > before + 20)
                assert PASSWORD not in json.dumps(session.status())
                await asyncio.to_thread(own_redis.recover, fault)
            await until(lambda: not session.status()["degraded"])
            await session.stop()
            await task
            state = await cache.get_json("asset_state")
            assert state["assets"] == json.loads(json.dumps(session.assets.snapshot()))
            assert not state["alive"]
            return recorder

    recorder = asyncio.run(main())
    for name in NAMES:
        count = len(recorder.signals[name])
        candles = market()[name][0][: 2 * 1440 + count]
        check([recorder], name, replayed(name, candles, market()[REFERENCE][0]), FROM)


@pytest.mark.parametrize("kind", ["redis", "embedded"])
def test_another_process_sees_the_same_states(
    kind: str, lake: Lake, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'cache.sqlite'}"
    if kind == "redis":
        url = request.getfixturevalue("own_redis").url
    environment = {**os.environ, "PYTHONPATH": str(FOLLOWER.parents[2])}
    command = [sys.executable, str(FOLLOWER), url]
    follower = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert follower.stdout is not None and follower.stdout.readline() == "listening\n"

        async def main() -> Session:
            async with SimpleCacheHandler.from_url(url) as cache:
                feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + 200 * MINUTE_MS, speed=6_000.0)
                session = Session(feed, lake, cache=cache)
                await session.run()
                return session

        session = asyncio.run(main())
        out, errors = follower.communicate(timeout=60)
    finally:
        follower.kill()
        follower.communicate()
    told = json.loads(out.splitlines()[-1])
    assert told["assets"] == json.loads(json.dumps(session.assets.snapshot())), errors
    assert session.counts["alerts"] > 0


# --- calibrations that a session asks for --------------------------------------------------------------------------


def accepts(request: Any, report: Any) -> Any:
    """A calibration that is done at once, with a set of its own."""
    from aione_lab.calibration.request import CalibrationOutcome

    return CalibrationOutcome(
        symbol=request.symbol,
        interval=request.interval,
        verdict="accept",
        sentence="Found to be so.",
        thresholds={"min_confidence": 0.31, "atr_target": 0.3},
        provenance={},
    )


def test_an_alert_is_looked_at_again_after_its_calibration(lake: Lake, tmp_path: Path) -> None:
    """The session does not wait; then a second look, marked, under the new set; the bar's own record stays."""

    async def main() -> tuple[Session, Recorder, list[str]]:
        async with CalibrationQueue(accepts) as queue:
            await queue.start_workers(1)
            feed = ReplayFeed(lake, NAMES, start=FROM, speed=900.0)  # goes on for longer than anything here takes
            session = Session(feed, lake, queue=queue, journal=tmp_path / "journal")
            recorder = Recorder(session)
            task = session.start()
            await until(lambda: session.counts["second_looks"] or task.done(), seconds=90)
            states = [session.assets.get(name)["calib_status"] for name in NAMES]
            await session.stop()
            await task
            return session, recorder, states

    session, recorder, states = asyncio.run(main())
    again = [alert for alert in recorder.stage2 if alert.get("second_look")]
    assert len(again) >= 1 and "completed" in states
    first = next(alert for alert in recorder.stage2 if alert["symbol"] == again[0]["symbol"])
    assert again[0]["timestamp"] == first["timestamp"] and not first.get("second_look")
    assert again[0]["calibration_params"]["min_confidence"] == 0.31
    assert first["calibration_params"]["min_confidence"] != 0.31
    assert not again[0]["quality_metrics"]["used_default_calibration"]
    assert again[0]["market_context"] == first["market_context"]
    rows = session.journal.read("second_look")
    assert json.loads(rows["detail"].iloc[0])["second_look"] is True
    name = again[0]["symbol"]
    assert len([alert for alert in recorder.stage2 if alert["symbol"] == name and alert.get("second_look")]) == 1
    asked = session.calibrations.asked
    assert set(asked) <= set(NAMES) and name in asked


def test_another_process_may_ask_for_a_calibration(lake: Lake, tmp_path: Path) -> None:
    async def main() -> dict[str, Any]:
        url = f"sqlite:///{tmp_path / 'cache.sqlite'}"
        async with CalibrationQueue(accepts) as queue, SimpleCacheHandler.from_url(url) as cache:
            feed = ReplayFeed(lake, NAMES, start=FROM, speed=60.0)
            session = Session(feed, lake, queue=queue, cache=cache)
            task = session.start()
            await until(lambda: session.status()["state"] == "running")
            async with SimpleCacheHandler.from_url(url) as other:
                for message in ("nonsense", {"symbol": "../etc"}, {"symbol": "NOPEUSDT"}, {"symbol": "LINKUSDT"}):
                    await asyncio.sleep(0.2)
                    await other.publish("calibration_request", message)
                await until(lambda: session.assets.get("LINKUSDT")["calib_status"] == "queued_urgent")
            assert await session.request_calibration("SOL/USDT:USDT") == "queued_urgent"
            await session.stop()
            await task
            return {name: state["calib_status"] for name, state in session.assets.snapshot().items()}

    assert asyncio.run(main()) == {"BTCUSDT": "pending", "SOLUSDT": "queued_urgent", "LINKUSDT": "queued_urgent"}
