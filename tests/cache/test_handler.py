"""One suite for every kind of cache: what is said here holds over Redis and over the embedded file."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aione_lab.cache import Message, SimpleCacheHandler
from aione_lab.errors import CacheError, InputError
from tests.forkserver import PROCESSES

VALUES = [None, True, 0, -1.5, "", "текст ☃", [], {}, [1, [2, {"a": None}]], {"b": {"c": [1.25]}}]


def test_json_comes_back_as_it_went(cache: SimpleCacheHandler) -> None:
    async def run() -> None:
        async with cache:
            for number, value in enumerate(VALUES):
                await cache.set_json(f"k{number}", value)
            assert [await cache.get_json(f"k{number}") for number in range(len(VALUES))] == VALUES
            assert await cache.get_json("absent") is None
            assert cache.healthy

    asyncio.run(run())


def test_the_physical_key_is_key_and_namespace(cache: SimpleCacheHandler) -> None:
    async def run() -> None:
        async with cache:
            await cache.store_in_cache("thresholds:BTCUSDT", "global", {"tp_mult": 2.0})
            await cache.store_in_cache("thresholds:BTCUSDT", "other", 1)
            assert await cache.get_json("thresholds:BTCUSDT") == {"tp_mult": 2.0}
            assert await cache.fetch_from_cache("thresholds:BTCUSDT", "other") == 1
            assert await cache._backend.keys(":other") == ["thresholds:BTCUSDT:other"]
            assert await cache._backend.get("thresholds:BTCUSDT:global") == b'{"tp_mult":2.0}'

    asyncio.run(run())


def test_raw_is_bytes_in_and_out(cache: SimpleCacheHandler) -> None:
    async def run() -> None:
        async with cache:
            for value, back in ((b"\x00\xff", b"\x00\xff"), ("ї", "ї".encode()), (bytearray(b"x"), b"x"), (b"", b"")):
                await cache.store_in_cache("raw", "global", value, raw=True)
                assert await cache.fetch_from_cache("raw", "global", raw=True) == back
            await cache.store_in_cache("raw", "global", b'{"a": 1}', raw=True)
            assert await cache.fetch_from_cache("raw", "global") == {"a": 1}

    asyncio.run(run())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    ),
    raw=st.binary(max_size=300),
)
def test_any_value_and_any_bytes(cache: SimpleCacheHandler, value: Any, raw: bytes) -> None:
    async def run() -> None:
        async with cache:
            await cache.set_json("any", value)
            assert await cache.get_json("any") == value
            await cache.store_in_cache("bytes", "global", raw, raw=True)
            assert await cache.fetch_from_cache("bytes", "global", raw=True) == raw

    asyncio.run(run())


# The connections of the first loop can only be left to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_handler_outlives_its_event_loop(cache: SimpleCacheHandler) -> None:
    asyncio.run(cache.set_json("k", 1))
    assert asyncio.run(cache.get_json("k")) == 1
    asyncio.run(cache.aclose())
    gc.collect()


def test_what_has_lived_its_time_is_gone(cache: SimpleCacheHandler) -> None:
    async def run() -> None:
        async with cache:
            await cache.set_json("brief", 1, ttl=0.15)
            await cache.set_json("long", 1, ttl=1000)
            await cache.set_json("renewed", 1, ttl=0.15)
            await cache.set_json("renewed", 2)  # without a time: for good
            assert await cache.keys() == ["brief", "long", "renewed"]
            await asyncio.sleep(0.3)
            assert await cache.get_json("brief") is None
            assert await cache.get_json("renewed") == 2
            assert await cache.keys() == ["long", "renewed"]
            assert not await cache.delete("brief")
            assert await cache.delete("long") and not await cache.delete("long")

    asyncio.run(run())


def test_keys_by_pattern(cache: SimpleCacheHandler) -> None:
    async def run() -> None:
        async with cache:
            for key in ("thresholds:BTCUSDT", "thresholds:SOLUSDT", "asset_state", "thresholdsX"):
                await cache.set_json(key, 1)
            await cache.set_json("thresholds:ETHUSDT", 1, namespace="elsewhere")
            assert await cache.keys("thresholds:*") == ["thresholds:BTCUSDT", "thresholds:SOLUSDT"]
            assert await cache.keys("thresholds:[AB]*") == ["thresholds:BTCUSDT"]
            assert await cache.keys("thresholds?") == ["thresholdsX"]
            assert await cache.keys(namespace="elsewhere") == ["thresholds:ETHUSDT"]
            assert await cache.keys(namespace="where") == []

    asyncio.run(run())


def test_fast_symbols(cache: SimpleCacheHandler) -> None:
    async def run() -> None:
        async with cache:
            assert await cache.get_fast_symbols() == []
            await cache.set_fast_symbols(["SOLUSDT", "BTC/USDT:USDT", "solusdt"])
            assert await cache.get_fast_symbols() == ["SOLUSDT", "BTCUSDT"]
            for hostile in (["../../etc"], {"a": 1}, "BTCUSDT", ["<img src=x>"], [1]):
                await cache.set_json("fast_symbols", hostile)
                with pytest.raises(CacheError, match="fast_symbols holds no list of symbols"):
                    await cache.get_fast_symbols()
            for wrong in ("BTCUSDT", 5, ["../x"], [None]):
                with pytest.raises(InputError, match="symbols"):
                    await cache.set_fast_symbols(wrong)

    asyncio.run(run())


HOSTILE = ["", " ", "a b", "a\nb", "a*", "x" * 201, "ключ", "a\0", "{x}", None, 5, b"k"]


@pytest.mark.parametrize("bad", HOSTILE, ids=repr)
def test_a_key_a_namespace_and_a_channel_are_checked_before_anything_is_asked(bad: Any, tmp_path: Any) -> None:
    cache = SimpleCacheHandler.embedded(tmp_path / "never" / "made.sqlite")

    async def refused(name: str, work: Any) -> None:
        with pytest.raises(InputError, match=name) as error:
            await work
        assert "\n" not in str(error.value)

    async def run() -> None:
        await refused("key", cache.set_json(bad, 1))
        await refused("key", cache.get_json(bad))
        await refused("key", cache.delete(bad))
        await refused("namespace", cache.get_json("k", namespace=bad))
        await refused("namespace", cache.keys(namespace=bad))
        await refused("channel", cache.publish(bad, 1))
        with pytest.raises(InputError, match="channel"):
            cache.subscribe(bad)

    asyncio.run(run())
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("ttl", [0, -1, True, float("nan"), float("inf"), "5", 1e12], ids=repr)
def test_a_time_to_live_that_is_none(cache: SimpleCacheHandler, ttl: Any) -> None:
    with pytest.raises(InputError, match="ttl"):
        asyncio.run(cache.set_json("k", 1, ttl=ttl))


@pytest.mark.parametrize("kind", ["nan", "inf", "set", "object", "bytes"])
def test_what_json_cannot_hold(cache: SimpleCacheHandler, kind: str) -> None:
    value: Any = {"nan": float("nan"), "inf": {"a": float("inf")}, "set": {1, 2}, "object": object(), "bytes": b"x"}[
        kind
    ]

    async def run() -> None:
        with pytest.raises(InputError, match="value"):
            await cache.set_json("k", value)
        with pytest.raises(InputError, match="message"):
            await cache.publish("c", value)
        assert await cache.get_json("k") is None
        with pytest.raises(InputError, match="message"):
            await cache.publish("c", {"a": 1}, raw=True)

    asyncio.run(run())


@pytest.mark.parametrize("damaged", [b"{", b"\xff", b"NaN", b"[1,Infinity]", b"[" * 100_000, b"", b"9" * 5000])
def test_a_value_that_is_no_json_is_refused_by_name(cache: SimpleCacheHandler, damaged: bytes) -> None:
    async def run() -> None:
        async with cache:
            await cache.store_in_cache("state", "global", damaged, raw=True)
            with pytest.raises(CacheError, match="what state:global holds is no JSON"):
                await cache.get_json("state")

    asyncio.run(run())


# --- messages ----------------------------------------------------------------------------------------------------


def test_messages_come_in_order_to_everybody_who_is_there(cache: SimpleCacheHandler, url: str) -> None:
    async def run() -> None:
        async with cache, SimpleCacheHandler.from_url(url) as publisher:
            await publisher.publish("signals", "before anybody listened")
            async with cache.subscribe("signals", "asset_state_update") as both, cache.subscribe("signals") as one:
                for number in range(50):
                    await publisher.publish("signals", f'{{"number": {number}}}', raw=True)
                    await publisher.publish("asset_state_update", number)
                    await publisher.publish("unheard", number)
                got = await take(both, 100)
                assert [m.value["number"] for m in got if m.channel == "signals"] == list(range(50))
                assert [m.value for m in got if m.channel == "asset_state_update"] == list(range(50))
                assert [m.value["number"] for m in await take(one, 50)] == list(range(50))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(one), 0.2)
                await publisher.publish("signals", "after a wait that was given up")
                assert (await take(one, 1))[0].value == "after a wait that was given up"
            assert [message async for message in one] == []

    asyncio.run(run())


async def take(subscription: Any, count: int) -> list[Message]:
    return [await asyncio.wait_for(anext(subscription), 5) for _ in range(count)]


def test_several_messages_of_one_call_come_in_their_order_and_none_is_nothing(cache: SimpleCacheHandler) -> None:
    async def run() -> None:
        async with cache, cache.subscribe("signals") as messages:
            await cache.publish_all("signals", [])
            await cache.publish_all("signals", [{"n": n} for n in range(250)])
            await cache.publish_all("signals", [b'{"n": 250}', '{"n": 251}'], raw=True)
            assert [(await anext(messages)).value["n"] for _ in range(252)] == list(range(252))
            with pytest.raises(InputError, match="message"):
                await cache.publish_all("signals", [1, {2}])
            await cache.publish("signals", "the end")
            assert (await anext(messages)).value == "the end"

    asyncio.run(run())


def test_a_value_and_messages_go_in_one_call(cache: SimpleCacheHandler) -> None:
    async def run() -> None:
        async with cache, cache.subscribe("updates") as messages:
            await cache.store_and_publish("state", "global", {"a": 1}, "updates", [{"n": 1}, "x", {"n": 2}], 100)
            assert await cache.get_json("state") == {"a": 1}
            assert [one.value for one in await take(messages, 3)] == [{"n": 1}, "x", {"n": 2}]
            for wrong in (("state", "updates", [1, {2}]), ("state", "no channel", [1]), ("", "updates", [])):
                key, channel, told = wrong
                with pytest.raises(InputError):
                    await cache.store_and_publish(key, "global", {"a": 2}, channel, told)
            await cache.store_and_publish("text", "global", b"[3]", "updates", ["[4]"], raw=True)
            assert await cache.get_json("state") == {"a": 1} and await cache.get_json("text") == [3]
            assert [one.value for one in await take(messages, 1)] == [[4]]
            await cache.store_and_publish("state", "global", 5, "updates", [], 0.02)
            await asyncio.sleep(0.1)
            assert await cache.get_json("state") is None

    asyncio.run(run())


def test_a_message_that_is_no_json_is_refused_and_the_next_one_comes(cache: SimpleCacheHandler) -> None:
    async def run() -> None:
        async with cache, cache.subscribe("signals") as messages:
            await cache._backend.publish("signals", [b"\xff{"])
            await cache.publish("signals", 2)
            with pytest.raises(CacheError, match="a message on signals"):
                await anext(messages)
            assert (await anext(messages)) == Message("signals", 2)

    asyncio.run(run())


PUBLISHER = """
import asyncio, sys
from aione_lab.cache import SimpleCacheHandler
async def run():
    async with SimpleCacheHandler.from_url(sys.argv[1]) as cache:
        await cache.set_json("from_there", 42)
        for number in range(20):
            await cache.publish("signals", number)
asyncio.run(run())
"""


def test_another_process_reads_and_hears_the_same(cache: SimpleCacheHandler, url: str) -> None:
    async def run() -> None:
        async with cache, cache.subscribe("signals") as messages:
            other = await asyncio.create_subprocess_exec(sys.executable, "-c", PUBLISHER, url)
            got = [(await asyncio.wait_for(anext(messages), 20)).value for _ in range(20)]
            assert got == list(range(20)) and await other.wait() == 0
            assert await cache.get_json("from_there") == 42

    asyncio.run(run())


def write_many(url: str, worker: int, count: int) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.from_url(url) as cache:
            for number in range(count):
                await cache.set_json(f"w{worker}.{number}", [worker, number])
                await cache.publish("written", [worker, number])

    asyncio.run(run())


def test_four_processes_write_at_once(cache: SimpleCacheHandler, url: str) -> None:
    workers = [PROCESSES.Process(target=write_many, args=(url, worker, 50)) for worker in range(4)]

    async def run() -> None:
        async with cache, cache.subscribe("written") as messages:
            for process in workers:
                process.start()
            heard = [tuple((await asyncio.wait_for(anext(messages), 30)).value) for _ in range(200)]
            for process in workers:
                await asyncio.to_thread(process.join)
            assert [process.exitcode for process in workers] == [0] * 4
            assert sorted(heard) == [(worker, number) for worker in range(4) for number in range(50)]
            assert len(await cache.keys("w*")) == 200
            assert await cache.get_json("w3.49") == [3, 49]

    asyncio.run(run())


def test_a_hundred_calls_at_once(cache: SimpleCacheHandler) -> None:
    async def run() -> None:
        async with cache:
            await asyncio.gather(*(cache.set_json(f"k{number}", number) for number in range(100)))
            assert await asyncio.gather(*(cache.get_json(f"k{number}") for number in range(100))) == list(range(100))

    asyncio.run(run())


def test_a_closed_handler_opens_again(cache: SimpleCacheHandler) -> None:
    async def run() -> None:
        await cache.set_json("k", 1)
        await cache.aclose()
        await cache.aclose()
        assert await cache.get_json("k") == 1
        await cache.aclose()

    asyncio.run(run())


# --- which cache -------------------------------------------------------------------------------------------------


def test_without_a_url_the_cache_is_one_file(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def run() -> None:
        async with SimpleCacheHandler.from_url(None) as cache:
            await cache.set_json("k", 1)

    asyncio.run(run())
    assert [path.name for path in (tmp_path / "experiments").iterdir()] == ["cache.sqlite"]


def test_redis_is_an_extra(tmp_path: Any) -> None:
    code = """
import sys
sys.modules["redis"] = None
from aione_lab.cache import SimpleCacheHandler
from aione_lab.errors import CacheError
try:
    SimpleCacheHandler.from_url("redis://:canary-pa55word@localhost")
except CacheError as error:
    print(error)
import asyncio
async def run():
    async with SimpleCacheHandler.embedded(sys.argv[1]) as cache:
        await cache.set_json("k", 1)
        print(await cache.get_json("k"))
asyncio.run(run())
"""
    call = [sys.executable, "-c", code, str(tmp_path / "c.sqlite")]
    ran = subprocess.run(call, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "redis is not installed; install the extra: pip install 'aione-lab[live]'",
        "1",
    ]


def test_the_limit_holds_for_any_backend(tmp_path: Any) -> None:
    cache = SimpleCacheHandler.embedded(tmp_path / "c.sqlite")
    cache._backend.run = lambda work: asyncio.sleep(60)  # type: ignore[attr-defined]
    began = time.monotonic()
    with pytest.raises(CacheError, match="no answer in time"):
        asyncio.run(cache.get_json("k"))
    assert time.monotonic() - began < 5 and not cache.healthy  # far from the minute, whatever the machine does


def test_json_of_the_cache_is_plain_json(cache: SimpleCacheHandler) -> None:
    async def run() -> bytes:
        async with cache:
            await cache.set_json("k", {"ї": 1})
            return await cache.fetch_from_cache("k", "global", raw=True)

    assert json.loads(asyncio.run(run())) == {"ї": 1}
