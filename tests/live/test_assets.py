"""The state of assets: what may be in it, and its way to readers while Redis is killed, paused, full and read-only."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import logging
import math
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import waiting
from hypothesis import given
from hypothesis import strategies as st

from aione_lab.backtest.decode import empty_stage2
from aione_lab.cache import SimpleCacheHandler
from aione_lab.calibration.queue_listeners import Listeners
from aione_lab.errors import CacheError, InputError
from aione_lab.live import AssetStateManager, AssetUpdate, follow_assets, stage2_fields
from aione_lab.live.asset_state import FIELDS

sys.path.append(str(Path(__file__).resolve().parent.parent / "cache"))

from redis_server import FAULTS, PASSWORD, RedisServer  # noqa: E402

FIELD_NAMES = {
    "symbol", "signal", "trigger_reasons", "confidence", "hints", "tp", "sl", "stats", "state", "stage2_status",
    "calib_status", "last_calib", "visible",
}  # fmt: skip
SOON = 8.0  # seconds for what takes milliseconds on a machine that is not crowded


until = functools.partial(waiting.until, seconds=SOON)


class Follower:
    """A reader in a task: everything it has been told, put together as a dashboard does."""

    def __init__(self, updates: AsyncIterator[AssetUpdate]) -> None:
        self.assets: dict[str, Mapping[str, Any]] = {}
        self.updates: list[AssetUpdate] = []
        self.problem = ""
        self._task = asyncio.ensure_future(self._run(updates))

    async def _run(self, updates: AsyncIterator[AssetUpdate]) -> None:
        async for update in updates:
            self.updates.append(update)
            self.assets = dict(update.assets) if update.whole else {**self.assets, **update.assets}
            self.problem = update.problem

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


# --- in memory ---------------------------------------------------------------------------------------------------


def test_a_new_asset_has_every_field_of_the_contract() -> None:
    manager = AssetStateManager(["BTC/USDT:USDT", "ETHUSDT"])
    assert list(manager.snapshot()) == ["BTCUSDT", "ETHUSDT"]
    asset = manager.get("btcusdt")
    assert asset is not None and set(asset) >= FIELD_NAMES
    assert asset["state"] == "init" and asset["stage2_status"] == "pending" and asset["visible"] is True
    assert manager.get("SOLUSDT") is None and manager.degraded == "" and manager.status == {}


def test_updates_and_frozen_copies() -> None:
    manager = AssetStateManager(["BTCUSDT"])
    before = manager.snapshot()
    stats = {"rsi": np.float64(31.5), "volume_z": math.nan, "bars": np.int64(3), "atr": math.inf, "x": np.longdouble(2)}
    manager.update_asset("BTCUSDT", {"signal": "ALERT", "stats": stats, "trigger_reasons": ["VOLUME_SPIKE"]})
    manager.update_asset("SOLUSDT", {"tp": np.float32(2.0), "visible": False})
    asset = manager.get("BTCUSDT")
    assert asset is not None and asset["stats"] == {"rsi": 31.5, "volume_z": None, "bars": 3, "atr": None, "x": 2.0}
    assert asset["trigger_reasons"] == ("VOLUME_SPIKE",) and before["BTCUSDT"]["signal"] == "NONE"
    stats["rsi"] = 0.0
    assert asset["stats"]["rsi"] == 31.5
    for change in (lambda: asset.update(signal="NONE"), lambda: asset["stats"].clear()):
        with pytest.raises(TypeError):
            change()
    assert json.loads(json.dumps(manager.snapshot(), allow_nan=False))["SOLUSDT"]["tp"] == 2.0


@pytest.mark.parametrize(
    ("updates", "named"),
    [
        ({"confidance": 1.0}, "did you mean 'confidence'"),
        ({"signal": "BUY"}, "signal='BUY'"),
        ({"state": "fine"}, "state='fine'"),
        ({"stage2_status": "done"}, "stage2_status="),
        ({"calib_status": "soon"}, "calib_status="),
        ({"confidence": 1.5}, "confidence=1.5"),
        ({"confidence": math.nan}, "confidence=nan"),
        ({"confidence": True}, "confidence=True"),
        ({"visible": 1}, "visible=1"),
        ({"tp": "high"}, "tp='high'"),
        ({"trigger_reasons": "VOLUME_SPIKE"}, "trigger_reasons="),
        ({"hints": [5]}, "hints="),
        ({"stats": {"rsi": "x"}}, "stats.rsi='x'"),
        ({"stats": {"rsi": {1: 2}}}, "stats.rsi="),
        ({"stage2": {"a": object()}}, "stage2.a="),
        ({"stage2": {"a": np.zeros(3)}}, "stage2.a="),
        ({"stage2": {"a": {5: 1}}}, "stage2.a="),
        ({"stats": {"rsi": 10**5000}}, "stats.rsi="),
        ({"stats": {"rsi": Fraction(10**5000)}}, "stats.rsi="),
        ({"stats": {"rsi": np.datetime64("2025-05-10")}}, "stats.rsi="),
        ({"long_narrative": "x" * 30_000}, "long_narrative="),
        ({"symbol": "ETHUSDT"}, "symbol='ETHUSDT'"),
        (["signal"], "updates="),
    ],
)
def test_a_bad_update_is_refused_by_name_and_changes_nothing(updates: Any, named: str) -> None:
    manager = AssetStateManager(["BTCUSDT"])
    before = manager.get("BTCUSDT")
    with pytest.raises(InputError) as error:
        manager.update_asset("BTCUSDT", {"signal": "ALERT", **updates} if isinstance(updates, dict) else updates)
    assert named in str(error.value) and "\n" not in str(error.value)
    assert manager.get("BTCUSDT") is before
    with pytest.raises(InputError):
        manager.update_asset("../x", {"signal": "ALERT"})


def test_bad_arguments() -> None:
    for arguments, named in (
        ({"symbols": "BTCUSDT"}, "symbols="),
        ({"symbols": ["<b>"]}, "symbols="),
        ({"period_s": 0}, "period_s="),
        ({"period_s": 10.0, "ttl_s": 29.0}, "ttl_s="),
        ({"cache": object()}, "cache="),
    ):
        with pytest.raises(InputError, match=named):
            AssetStateManager(**arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="signal="):
        AssetStateManager().publish_signal({"signal": "ALERT"})


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)) | st.text(max_size=8), json_like, max_size=4))
def test_whatever_comes_is_refused_or_can_be_published(updates: dict[str, Any]) -> None:
    manager = AssetStateManager(["BTCUSDT"])
    with contextlib.suppress(InputError):
        manager.update_asset("BTCUSDT", updates)
    json.dumps(manager.snapshot(), allow_nan=False)


def test_the_calibration_queue_takes_it_for_its_state_manager() -> None:
    manager = AssetStateManager()

    async def run() -> None:
        listeners = Listeners(None, manager, None, None)
        await listeners.state("SOLUSDT", "in_progress")
        assert manager.snapshot()["SOLUSDT"]["calib_status"] == "in_progress"

    asyncio.run(run())
    manager.update_calibration("SOLUSDT", {"vol_z_threshold": 2.5})
    asset = manager.snapshot()["SOLUSDT"]
    assert asset["calib_params"] == {"vol_z_threshold": 2.5} and asset["calib_status"] == "completed"
    assert asset["last_calib"].endswith("+00:00")
    with pytest.raises(InputError, match="vol_z"):
        manager.update_calibration("SOLUSDT", {"vol_z": 2.5})


def test_stage2_fields() -> None:
    manager = AssetStateManager(["BTCUSDT"])
    alert = {
        **empty_stage2("BTCUSDT"), "signal": "ALERT", "confidence": 0.8, "recommendation": "BUY",
        "risk_parameters": {"sl_level": 99.0, "tp_targets": [103.0, 104.0]},
    }  # fmt: skip
    for stage2, expected in (
        (alert, ("alert", "completed", 103.0, 99.0)),
        ({**alert, "recommendation": "AVOID"}, ("no_trade", "completed", 103.0, 99.0)),
        ({**empty_stage2("BTCUSDT"), "recommendation": "INVALID_DATA"}, ("error", "error", None, None)),
    ):
        manager.update_asset("BTCUSDT", stage2_fields(stage2))
        asset = manager.snapshot()["BTCUSDT"]
        assert tuple(asset[name] for name in ("state", "stage2_status", "tp", "sl")) == expected
    manager.update_asset("BTCUSDT", stage2_fields(empty_stage2("BTCUSDT")))
    assert manager.snapshot()["BTCUSDT"]["stage2_status"] == "skipped"


@pytest.mark.parametrize(
    ("stage2", "named"),
    [
        ({}, "stage2={}: must be a Stage2 dictionary: a mapping with signal, recommendation"),
        (None, "stage2=None: must be"),
        ({**empty_stage2("BTCUSDT"), "risk_parameters": [5]}, "stage2.risk_parameters=[5]: must be a mapping"),
        ({**empty_stage2("BTCUSDT"), "risk_parameters": {"tp_targets": 5}}, "tp_targets=5: must be a list"),
    ],
    ids=["empty", "none", "risk", "targets"],
)
def test_what_is_no_stage2_dictionary_is_refused_by_name(stage2: Any, named: str) -> None:
    with pytest.raises(InputError, match=re.escape(named)):
        stage2_fields(stage2)


def test_a_reader_in_the_same_process() -> None:
    async def run() -> None:
        manager = AssetStateManager(["BTCUSDT"])
        reader = Follower(manager.follow())
        await until(lambda: reader.updates)
        manager.update_asset("BTCUSDT", {"state": "normal"})
        manager.update_asset("BTCUSDT", {"state": "alert"})
        manager.update_asset("BTCUSDT", {"state": "alert"})
        await until(lambda: len(reader.updates) == 2)
        assert reader.updates[0].whole and not reader.updates[1].whole
        assert reader.assets == manager.snapshot()
        await manager.aclose()
        await asyncio.wait_for(reader._task, SOON)
        assert len(reader.updates) == 2 and not manager._inboxes

    asyncio.run(run())


def test_a_reader_of_a_closed_manager_is_told_what_it_missed_and_ends() -> None:
    """Whether it began after the close or was away meanwhile."""

    async def run() -> None:
        manager = AssetStateManager(["BTCUSDT"])
        away, idle = manager.follow(), manager.follow()
        assert (await anext(away)).whole and (await anext(idle)).whole
        manager.update_asset("BTCUSDT", {"state": "normal"})
        assert (await anext(idle)).assets == manager.snapshot()
        await manager.aclose()
        assert [update.assets async for update in away] == [manager.snapshot()]
        assert [update async for update in idle] == []
        assert [update async for update in manager.follow()] == [AssetUpdate(whole=True, assets=manager.snapshot())]
        assert not manager._inboxes

    asyncio.run(asyncio.wait_for(run(), SOON))


# --- through a cache ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["redis", "embedded"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "embedded":
        return f"sqlite:///{tmp_path / 'cache.sqlite'}"
    server: RedisServer = request.getfixturevalue("own_redis")
    return server.url


def test_whole_first_then_changes_and_signals_in_order(url: str) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.from_url(url) as cache, SimpleCacheHandler.from_url(url) as other:
            manager = AssetStateManager([f"S{number}USDT" for number in range(100)], cache)
            early = Follower(follow_assets(other))
            await until(lambda: early.problem == "no session has written its state")
            async with other.subscribe("signals") as signals, manager:
                manager.update_asset("S7USDT", {"state": "alert", "confidence": 0.5, "hints": ["<b>&"]})
                await until(lambda: early.assets == manager.snapshot())
                late = Follower(follow_assets(other))
                await until(lambda: late.assets == manager.snapshot())
                assert late.updates[0].whole and len(late.updates[0].assets) == 100
                told = len(early.updates)
                manager.update_asset("S8USDT", {"state": "error"})
                for number in range(5):
                    manager.publish_signal({"symbol": "S8USDT", "number": number})
                await until(lambda: late.assets == early.assets == manager.snapshot())
                changed = [update for update in early.updates[told:] if update.assets]
                assert [set(update.assets) for update in changed] == [{"S8USDT"}] and not changed[0].whole
                came = [(await asyncio.wait_for(anext(signals), SOON)).value["number"] for _ in range(5)]
                assert came == list(range(5))
                state = await other.get_json("asset_state")
                assert state["assets"]["S8USDT"]["state"] == "error" and state["alive"] is True
            await until(lambda: early.problem == late.problem == "the session has ended")
            assert (await other.get_json("asset_state"))["alive"] is False
            await early.stop()
            await late.stop()

    asyncio.run(run())


def test_the_state_outlives_three_periods_and_not_its_time(own_redis: RedisServer) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.from_url(own_redis.url) as cache:
            async with AssetStateManager(["BTCUSDT"], cache) as manager:
                await until(lambda: manager.status["writes"])
                left = int(own_redis.admin("PTTL", "asset_state:global"))
                assert 15_000 < left <= 180_000

    asyncio.run(run())


def test_an_idle_state_is_written_again_after_redis_lost_its_memory(own_redis: RedisServer) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.from_url(own_redis.url) as cache:
            async with AssetStateManager(["BTCUSDT"], cache, period_s=0.1) as manager:
                manager.update_asset("BTCUSDT", {"state": "normal"})
                await until(lambda: manager.status["writes"])
                own_redis.admin("FLUSHALL")
                writes = manager.status["writes"]
                await until(lambda: manager.status["writes"] > writes + 1)
                assert (await cache.get_json("asset_state"))["assets"]["BTCUSDT"]["state"] == "normal"

    asyncio.run(run())


class Lossy:
    """A cache whose messages can be lost on their way, as Redis loses those of a subscriber that is away."""

    def __init__(self, cache: SimpleCacheHandler) -> None:
        self._cache = cache
        self.losing = False

    async def store_and_publish(self, *arguments: Any, raw: bool) -> None:
        *first, messages, ttl = arguments
        await self._cache.store_and_publish(*first, [] if self.losing else messages, ttl, raw)

    async def publish_all(self, channel: str, messages: list[Any], raw: bool = False) -> None:
        raise AssertionError("so many signals nobody sent")


def test_a_lost_message_is_noticed_by_its_number(tmp_path: Path) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.embedded(tmp_path / "cache.sqlite") as cache:
            lossy = Lossy(cache)
            async with AssetStateManager(["BTCUSDT", "ETHUSDT"], lossy, period_s=1.0) as manager:
                reader = Follower(follow_assets(cache))
                await until(lambda: reader.assets == manager.snapshot())
                lossy.losing = True
                writes = manager.status["writes"]
                manager.update_asset("BTCUSDT", {"state": "error"})
                await until(lambda: manager.status["writes"] > writes + 1)  # one may have begun before the update
                lossy.losing = False
                assert reader.assets["BTCUSDT"]["state"] == "init"
                manager.update_asset("ETHUSDT", {"state": "normal"})
                await until(lambda: reader.assets == manager.snapshot())
                assert reader.updates[-1].whole
                lossy.losing = True  # the last message of all: the next period tells
                manager.update_asset("ETHUSDT", {"state": "alert"})
                await asyncio.sleep(0.2)
                lossy.losing = False
                await until(lambda: reader.assets == manager.snapshot())
            await reader.stop()

    asyncio.run(run())


def test_a_new_session_a_silent_one_and_rubbish_on_the_channel(tmp_path: Path) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.embedded(tmp_path / "cache.sqlite") as cache:
            await cache.set_json("asset_state", {"assets": [1]})
            reader = Follower(follow_assets(cache))
            await until(lambda: "is no state" in reader.problem)
            first = AssetStateManager(["BTCUSDT"], cache, period_s=0.05, ttl_s=30.0)
            first.start()
            await until(lambda: reader.assets == first.snapshot() and not reader.problem)
            for rubbish in (5, None, {}, {"seq": 1}, [{"session": "x"}], {"session": "x", "seq": "9" * 5000}):
                await cache.publish("asset_state_update", rubbish)
            hostile = {"session": "x", "seq": 1, "time": 1, "period_s": 1, "alive": True, "assets": {"<b>": {}}}
            await cache.publish("asset_state_update", hostile)
            first._publisher._task.cancel()  # type: ignore[union-attr]
            await until(lambda: "silent" in reader.problem)
            assert reader.assets == first.snapshot()
            async with AssetStateManager(["SOLUSDT"], cache, period_s=0.05) as second:
                await until(lambda: reader.assets == second.snapshot() and not reader.problem)
            await reader.stop()

    asyncio.run(run())


STATE = b'{"session": "x", "seq": %s, "period_s": %s, "alive": true, "assets": {"BTCUSDT": {"signal": "NONE"}}}'


@pytest.mark.parametrize("period", [b"NaN", b"Infinity", b"1e999", b"-Infinity", b"-5", b"0", b"1e-300"])
def test_a_state_that_says_it_speaks_at_no_time_or_always_is_not_read_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, period: bytes
) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.embedded(tmp_path / "cache.sqlite") as cache:
            await cache.store_in_cache("asset_state", "global", STATE % (b"1", period), raw=True)
            reads = []
            fetch = cache.fetch_from_cache

            async def counted(*arguments: Any, **more: Any) -> Any:
                reads.append(arguments)
                return await fetch(*arguments, **more)

            monkeypatch.setattr(cache, "fetch_from_cache", counted)
            reader = Follower(follow_assets(cache))
            await asyncio.sleep(1.2)
            await reader.stop()
            assert 1 <= len(reads) <= 3
            assert "nan" not in reader.problem and "inf" not in reader.problem

    asyncio.run(run())


@pytest.mark.parametrize("where", ["state", "message"])
def test_a_number_far_ahead_and_rubbish_hide_neither_a_session_nor_its_silence(tmp_path: Path, where: str) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.embedded(tmp_path / "cache.sqlite") as cache:
            manager = AssetStateManager(["BTCUSDT"], cache, period_s=0.1, ttl_s=30.0)
            manager.start()
            await until(lambda: manager.status["writes"])
            ahead = (STATE % (b"1e300", b"0.1")).replace(b'"x"', f'"{manager.status["session"]}"'.encode())
            if where == "state":
                await cache.store_in_cache("asset_state", "global", ahead, raw=True)
            reader = Follower(follow_assets(cache))
            await until(lambda: reader.updates)
            if where == "message":
                await cache.publish("asset_state_update", json.loads(ahead))
            manager.update_asset("BTCUSDT", {"state": "normal"})
            await until(lambda: reader.assets == manager.snapshot())
            manager._publisher._task.cancel()  # type: ignore[union-attr]

            async def rubbish() -> None:
                while True:
                    await cache.publish("asset_state_update", {})
                    await asyncio.sleep(0.05)

            task = asyncio.ensure_future(rubbish())
            await until(lambda: "silent" in reader.problem)
            task.cancel()
            await reader.stop()

    asyncio.run(run())


async def through_faults(redis: RedisServer, faults: list[str], least_updates: int) -> tuple[float, float]:
    """Updates go on through every fault; longest update and slowest return of the newest state, in seconds."""
    longest = slowest = 0.0
    async with SimpleCacheHandler.from_url(redis.url) as cache, SimpleCacheHandler.from_url(redis.url) as other:
        async with AssetStateManager(["BTCUSDT", "ETHUSDT"], cache, period_s=1.0) as manager:
            reader = Follower(follow_assets(other))
            await until(lambda: reader.assets == manager.snapshot())
            for number, fault in enumerate(faults):
                await asyncio.to_thread(redis.suffer, fault)
                updates = 0
                while not manager.degraded or updates < least_updates:
                    began = time.monotonic()
                    manager.update_asset("BTCUSDT", {"stats": {"fault": number, "update": updates}})
                    longest = max(longest, time.monotonic() - began)
                    updates += 1
                    await asyncio.sleep(0.01)
                    assert updates < 3_000, f"{fault} was not noticed"
                assert PASSWORD not in manager.degraded and "\n" not in manager.degraded
                manager.update_asset("ETHUSDT", {"hints": [f"last word of fault {number}"]})
                await asyncio.to_thread(redis.recover, fault)
                ended = time.monotonic()
                await until(lambda: not manager.degraded)
                slowest = max(slowest, time.monotonic() - ended)
                for _ in range(50):
                    with contextlib.suppress(CacheError):
                        state = await other.get_json("asset_state")
                        if state is not None and state["assets"]["ETHUSDT"]["hints"] == [
                            f"last word of fault {number}"
                        ]:
                            break
                    await asyncio.sleep(0.05)
                assert state["assets"] == json.loads(json.dumps(manager.snapshot())), fault
                await until(lambda: reader.assets == manager.snapshot() and not reader.problem)
            await reader.stop()
    return longest, slowest


def test_updates_go_on_and_the_last_state_arrives(own_redis: RedisServer, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    longest, slowest = asyncio.run(through_faults(own_redis, list(FAULTS), 5))
    assert longest < 1.0 and slowest < 2 * SOON
    assert PASSWORD not in caplog.text


@pytest.mark.long
def test_fifty_faults_of_the_state(own_redis: RedisServer) -> None:
    longest, slowest = asyncio.run(through_faults(own_redis, [*FAULTS] * 10, 20))
    print(f"longest update {1e3 * longest:.2f} ms, slowest return {slowest:.2f} s")
    assert longest < 1.0 and slowest < 2 * SOON


def test_closing_while_redis_is_away_does_not_hang(own_redis: RedisServer) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.from_url(own_redis.url) as cache:
            manager = AssetStateManager(["BTCUSDT"], cache)
            manager.start()
            await until(lambda: manager.status["writes"])
            own_redis.signal(signal.SIGSTOP)
            manager.update_asset("BTCUSDT", {"state": "error"})
            await asyncio.wait_for(manager.aclose(), SOON)
            manager.update_asset("BTCUSDT", {"state": "normal"})
            own_redis.signal(signal.SIGCONT)
            manager.start()  # and again
            await until(lambda: manager.status["writes"] > 1)
            await manager.aclose()
            assert (await cache.get_json("asset_state"))["assets"]["BTCUSDT"]["state"] == "normal"

    asyncio.run(run())


def test_a_write_that_fails_while_it_closes_is_made_up_for_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """Python would say at the end of a failed task that nobody heard of its failure."""

    class AwayAtFirst:
        asked = 0

        async def store_and_publish(self, *_: Any, **__: Any) -> None:
            self.asked += 1
            if self.asked == 1:
                await asyncio.sleep(0.2)
                raise CacheError("the cache is away")

        async def publish_all(self, *_: Any, **__: Any) -> None:
            raise AssertionError("there is no signal")

    async def run() -> None:
        cache = AwayAtFirst()
        manager = AssetStateManager(["BTCUSDT"], cache)
        manager.start()
        await until(lambda: cache.asked)
        await manager.aclose()
        assert cache.asked == 2

    asyncio.run(run())
    gc.collect()
    assert caplog.messages == []


@pytest.mark.parametrize("turns", range(8))
def test_closing_in_the_middle_of_a_write_loses_nothing(turns: int, tmp_path: Path) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.embedded(tmp_path / "cache.sqlite") as cache:
            manager = AssetStateManager([f"S{number}USDT" for number in range(100)], cache)
            manager.start()
            await until(lambda: manager.status["writes"])
            await asyncio.sleep(0.06)
            for number in range(100):
                manager.update_asset(f"S{number}USDT", {"state": "alert"})
            for _ in range(turns):
                await asyncio.sleep(0)
            await manager.aclose()
            assert (await cache.get_json("asset_state"))["assets"] == json.loads(json.dumps(manager.snapshot()))

    asyncio.run(run())


class Broken:
    """A cache that fails in a way of its own, then works, and counts."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.sent: list[Any] = []

    async def store_and_publish(self, *_: Any, **__: Any) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise RuntimeError("not of this world")

    async def publish_all(self, channel: str, messages: list[Any], raw: bool = False) -> None:
        self.sent += [(channel, message) for message in messages]


class Slow:
    """A cache whose messages are on their way for a while, whatever becomes of who sent them; the first ones fail."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.sent: list[int] = []
        self.asked = 0

    async def store_and_publish(self, *_: Any, **__: Any) -> None:
        pass

    async def publish_all(self, channel: str, messages: list[Any], raw: bool = False) -> None:
        self.asked += 1
        if self.asked <= self.failures:
            raise CacheError("not now")
        numbers = [json.loads(message)["number"] for message in messages]
        await asyncio.shield(asyncio.ensure_future(self._arrive(numbers)))

    async def _arrive(self, numbers: list[int]) -> None:
        await asyncio.sleep(0.2)
        self.sent += numbers


def test_signals_that_are_on_their_way_when_it_closes_come_once() -> None:
    async def run() -> None:
        slow = Slow()
        manager = AssetStateManager(["BTCUSDT"], slow)
        manager.start()
        for number in range(150):
            manager.publish_signal({"symbol": "BTCUSDT", "number": number})
        await until(lambda: slow.asked)
        await manager.aclose()
        await asyncio.sleep(0.5)
        assert slow.sent == list(range(150))

    asyncio.run(run())


def test_signals_of_a_call_that_failed_are_sent_in_their_order() -> None:
    async def run() -> None:
        slow = Slow(failures=2)
        async with AssetStateManager(["BTCUSDT"], slow) as manager:
            for number in range(150):
                manager.publish_signal({"symbol": "BTCUSDT", "number": number})
            await until(lambda: len(slow.sent) == 150)
        assert slow.sent == list(range(150)) and slow.asked == 4

    asyncio.run(run())


def test_a_redis_that_takes_no_state_passes_each_signal_on_once_also_while_it_closes(own_redis: RedisServer) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.from_url(own_redis.url) as cache, cache.subscribe("signals") as messages:
            manager = AssetStateManager(["BTCUSDT"], cache)
            own_redis.admin("CONFIG", "SET", "maxmemory", "1")
            manager.start()
            for number in range(250):
                manager.publish_signal({"symbol": "BTCUSDT", "number": number})
            first = [(await asyncio.wait_for(anext(messages), SOON)).value["number"] for _ in range(250)]
            await until(lambda: manager.degraded)
            for number in range(250, 500):
                manager.publish_signal({"symbol": "BTCUSDT", "number": number})
            await manager.aclose()
            await cache.publish("signals", {"number": "the end"})
            rest = [(await asyncio.wait_for(anext(messages), SOON)).value["number"] for _ in range(251)]
            assert [*first, *rest] == [*range(500), "the end"]

    asyncio.run(run())


def test_a_failure_of_any_kind_is_logged_once_and_survived(caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aione_lab.live.asset_publisher.MOST_SIGNALS", 3)

    async def run() -> None:
        broken = Broken(3)
        async with AssetStateManager(["BTCUSDT"], broken) as manager:
            await until(lambda: manager.degraded == "not of this world")
            for number in range(5):
                manager.publish_signal({"symbol": "BTCUSDT", "number": number})
            await until(lambda: not manager.degraded)
            assert manager.status["failures"] == 3 and manager.status["signals_dropped"] == 2
            sent = [json.loads(message)["number"] for channel, message in broken.sent if channel == "signals"]
            assert sent == [2, 3, 4]

    asyncio.run(run())
    assert caplog.text.count("asset states are not written for now") == 1
