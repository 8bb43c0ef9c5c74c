"""Redis paused, killed, full, read-only and with a wrong password; and no password in any text."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
import traceback
from collections.abc import Awaitable
from typing import Any

import numpy as np
import pytest
from redis_server import FAULTS, PASSWORD, RedisServer

from aione_lab.cache import SimpleCacheHandler
from aione_lab.environment import Environment
from aione_lab.errors import AioneError, CacheError, CacheRefusedError, InputError

LIMIT = 3.0
"""Seconds: the promise is one, a crowded machine is given more; a call that hangs takes minutes."""


async def fails(work: Awaitable[Any], match: str | None = None) -> None:
    began = time.monotonic()
    with pytest.raises(CacheError, match=match) as error:
        await work
    assert time.monotonic() - began < LIMIT
    assert "\n" not in str(error.value) and PASSWORD not in str(error.value)
    assert type(error.value) is CacheError  # nothing of the call went on


async def works_again(cache: SimpleCacheHandler) -> None:
    for _ in range(50):
        try:
            await cache.set_json("again", 1)
            break
        except CacheError:
            await asyncio.sleep(0.1)
    assert await cache.get_json("again") == 1 and cache.healthy


def test_paused_and_going_on(own_redis: RedisServer) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.from_url(own_redis.url) as cache:
            await cache.set_json("k", 1)
            own_redis.signal(signal.SIGSTOP)
            both = cache.store_and_publish("k", "global", 2, "c", [1])
            for call in (cache.set_json("k", 2), cache.get_json("k"), cache.keys(), cache.publish("c", 1), both):
                await fails(call, "127.0.0.1")
                assert not cache.healthy
            await asyncio.gather(*(fails(cache.get_json(f"k{number}")) for number in range(60)))
            own_redis.signal(signal.SIGCONT)
            await works_again(cache)

    asyncio.run(run())


def test_killed_and_started_again(own_redis: RedisServer) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.from_url(own_redis.url) as cache:
            await cache.set_json("k", 1)
            own_redis.kill()
            await fails(cache.set_json("k", 2), "127.0.0.1")
            await fails(cache.get_json("k"))
            await fails(cache.store_and_publish("k", "global", 2, "c", [1]))
            assert not cache.healthy
            own_redis.start()
            await cache.set_json("k", 3)  # at once: nothing waits for a pause to end
            assert await cache.get_json("k") == 3 and cache.healthy
            own_redis.kill()
            own_redis.start()
            assert await cache.get_json("k") is None  # a restart between two calls is not noticed

    asyncio.run(run())


def test_a_subscriber_is_told_of_a_loss_and_subscribes_again(own_redis: RedisServer) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.from_url(own_redis.url) as cache, cache.subscribe("signals") as messages:
            await cache.publish("signals", 1)
            assert (await anext(messages)).value == 1
            own_redis.kill()
            await fails(anext(messages))
            await fails(anext(messages))
            own_redis.start()
            waiting = asyncio.ensure_future(anext(messages))
            for _ in range(100):
                await works_again(cache)
                await cache.publish("signals", 2)
                await asyncio.sleep(0.02)
                if waiting.done():
                    break
            assert (await waiting).value == 2

    asyncio.run(run())


def test_a_silent_server_is_noticed_by_a_subscriber(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aione_lab.cache.redis_backend.IDLE", 0.2)

    async def run() -> None:
        async with SimpleCacheHandler.from_url(own_redis.url) as cache, cache.subscribe("signals") as messages:
            waiting = asyncio.ensure_future(anext(messages))
            await asyncio.sleep(0.7)  # silence of a healthy server: asked and answered
            assert not waiting.done()
            own_redis.signal(signal.SIGSTOP)
            await fails(waiting, "no answer")
            own_redis.signal(signal.SIGCONT)
            waiting = asyncio.ensure_future(anext(messages))
            await asyncio.sleep(0.3)
            await cache.publish("signals", 5)
            assert (await asyncio.wait_for(waiting, 5)).value == 5

    asyncio.run(run())


async def passes_messages_on(cache: SimpleCacheHandler, problem: str) -> None:
    async with cache.subscribe("signals") as messages:
        with pytest.raises(CacheRefusedError, match=problem):
            await cache.store_and_publish("k", "global", 2, "signals", [1, 3])
        assert [(await asyncio.wait_for(anext(messages), 5)).value for _ in range(2)] == [1, 3]
    assert await cache.get_json("k") == 1


def test_full_and_read_only(own_redis: RedisServer) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.from_url(own_redis.url) as cache:
            await cache.set_json("k", 1)
            own_redis.admin("CONFIG", "SET", "maxmemory", "1")
            await fails(cache.set_json("k", 2), "maxmemory|OOM")
            assert await cache.get_json("k") == 1
            await passes_messages_on(cache, "maxmemory|OOM")
            own_redis.admin("CONFIG", "SET", "maxmemory", "0")
            await works_again(cache)
            own_redis.admin("REPLICAOF", "127.0.0.1", "1")
            await fails(cache.set_json("k", 2), "read only|READONLY")
            await passes_messages_on(cache, "read only|READONLY")
            own_redis.admin("REPLICAOF", "NO", "ONE")
            await works_again(cache)

    asyncio.run(run())


def test_wrong_password_no_password_and_nobody_there(shared_redis: RedisServer) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"redis://127.0.0.1:{closed.getsockname()[1]}"
    wrong = shared_redis.url.replace(PASSWORD, PASSWORD + "x")
    without = f"redis://127.0.0.1:{shared_redis.port}"

    async def run() -> None:
        for url, why in ((wrong, "password"), (without, "uthentication"), (nobody, "onnect")):
            async with SimpleCacheHandler.from_url(url) as cache:
                await fails(cache.get_json("k"), why)
                await fails(cache.set_json("k", 1), why)
                with pytest.raises(CacheError):
                    async with cache.subscribe("c"):
                        pass

    asyncio.run(run())


def test_a_server_that_is_no_redis(tmp_path: Any) -> None:
    """It quotes what it does not understand, the password too, or says nothing that makes sense."""

    async def run() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = await reader.read(1000)
            quoted = b" ".join(line.split())
            writer.write(b"-ERR unknown command, with args beginning with: " + quoted + b"\r\n")
            await writer.drain()

        async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3)
            await writer.drain()

        for talk in (answer, nonsense):
            server = await asyncio.start_server(talk, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            async with SimpleCacheHandler.from_url(f"redis://:{PASSWORD}@127.0.0.1:{port}") as cache:
                await fails(cache.get_json("k"))
            server.close()

    asyncio.run(run())


@pytest.mark.long
def test_fifty_faults(own_redis: RedisServer) -> None:
    """After every fault the newest state is written within 5 s of the end of the fault, and nothing ever hung."""
    rng = np.random.default_rng(0)
    longest, slowest = 0.0, 0.0

    async def timed(work: Awaitable[Any]) -> bool:
        nonlocal longest
        began = time.monotonic()
        try:
            await work
        except CacheError as error:
            assert PASSWORD not in str(error)
            return False
        finally:
            longest = max(longest, time.monotonic() - began)
        return True

    async def run() -> None:
        nonlocal slowest
        async with SimpleCacheHandler.from_url(own_redis.url) as cache:
            for number in range(50):
                fault = FAULTS[number % 5]
                await asyncio.to_thread(own_redis.suffer, fault)
                for _ in range(int(rng.integers(1, 4))):
                    assert not await timed(cache.set_json("state", number)), fault
                    await timed(cache.get_json("state"))
                await asyncio.to_thread(own_redis.recover, fault)
                ended = time.monotonic()
                while not await timed(cache.set_json("state", number)):
                    await asyncio.sleep(0.05)
                slowest = max(slowest, time.monotonic() - ended)
                assert await cache.get_json("state") == number

    asyncio.run(run())
    print(f"longest call {longest:.2f} s, slowest return {slowest:.2f} s")
    assert longest < LIMIT and slowest < 2 * LIMIT


# --- addresses ---------------------------------------------------------------------------------------------------

BAD_URLS = [
    "http://:{p}@localhost",
    "redis://:{p}/x@localhost:6379",
    "redis://:{p}#x@localhost:6379",
    "redis://:{p}@localhost:port",
    "redis://:{p}@localhost:99999",
    "redis://:{p}@",
    "redis://:{p}@localhost/zero",
    "redis://localhost?password={p}",
    "redis://:{p}@localhost?socket_timeout=100",
    "redis://:{p}@localhost?{p}=1",
    "redis://:{p}@[::1",
    "unix://:{p}@",
    "localhost:6379/{p}",
    "{p}",
    "",
    "sqlite:///",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_address_is_refused_without_being_quoted(url: str) -> None:
    pytest.importorskip("redis")
    with pytest.raises(InputError) as error:
        SimpleCacheHandler.from_url(url.format(p=PASSWORD))
    text = "".join(traceback.format_exception(error.value))
    assert str(error.value).startswith("url: ") and "\n" not in str(error.value) and PASSWORD not in text
    assert error.value.__context__ is None


@pytest.mark.parametrize("url", [5, b"redis://localhost", ["redis://localhost"]])
def test_an_address_that_is_no_text(url: Any) -> None:
    with pytest.raises(InputError, match="url"):
        SimpleCacheHandler.from_url(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:{p}@example.org:7000/3", "redis://example.org:7000/3"),
        ("rediss://:{p}@example.org?ssl_cert_reqs=none", "rediss://example.org:6379"),
        ("redis://:{p}@[::1]:7000", "redis://[::1]:7000"),
        ("unix://:{p}@/run/redis.sock?db=2", "unix:///run/redis.sock"),
    ],
)
def test_the_repr_shows_where_and_no_secret(url: str, shown: str) -> None:
    pytest.importorskip("redis")
    assert repr(SimpleCacheHandler.from_url(url.format(p=PASSWORD))) == f"SimpleCacheHandler({shown})"


def test_a_canary_password_is_nowhere(own_redis: RedisServer, caplog: Any, capfd: Any) -> None:
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []

    async def run() -> None:
        asyncio.get_running_loop().set_debug(True)
        cache = SimpleCacheHandler.from_url(own_redis.url)
        async with cache:
            texts.extend([repr(cache), str(cache), repr(cache.subscribe("c")), repr(cache._backend)])
            await cache.set_json("k", 1)
            own_redis.kill()
            for call in (cache.set_json("k", 1), cache.get_json("k"), anext(cache.subscribe("c"))):
                try:
                    await call
                except AioneError as error:
                    texts.append("".join(traceback.format_exception(error)))
                    assert error.__cause__ is None

    asyncio.run(run())
    out, err = capfd.readouterr()
    assert len(texts) == 7
    assert PASSWORD not in "".join([*texts, out, err, caplog.text])


def test_from_the_environment(shared_redis: RedisServer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("REDIS_URL", "REDIS_HOST", "REDIS_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert "cache.sqlite" in repr(SimpleCacheHandler.from_environment())
    monkeypatch.setenv("REDIS_HOST", "example.org")
    assert repr(SimpleCacheHandler.from_environment()) == "SimpleCacheHandler(redis://example.org:6379/0)"
    (tmp_path / ".env").write_text(f"REDIS_URL={shared_redis.url}\n")
    cache = SimpleCacheHandler.from_environment()

    async def run() -> None:
        async with cache:
            await cache.set_json("k", 1)

    asyncio.run(run())
    assert PASSWORD not in repr(cache)
    assert "example.org:6379" in repr(SimpleCacheHandler.from_environment(Environment.without_file()))
