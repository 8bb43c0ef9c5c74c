"""A ReplayFeed hands out what is stored: in order of time, at its speed, and never from its future."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from virtual_clock import VirtualClock

from aione_lab.errors import AioneError, InputError
from aione_lab.lake.simulated import ORIGIN, SimulatedExchange, fill
from aione_lab.lake.store import Lake
from aione_lab.live.feed import Candle
from aione_lab.live.replay_feed import ReplayFeed
from aione_lab.units import to_ms

T0 = to_ms(ORIGIN)
MINUTE = 60_000
NAMES = ("SOLUSDT", "BTCUSDT")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    store = Lake(tmp_path_factory.mktemp("replayed"))
    fill(store, days=3, symbols=["BTCUSDT", "SOLUSDT"])
    exchange = SimulatedExchange()
    holed = exchange.candles("XMRUSDT", days=2)
    store.append("XMRUSDT", "1m", holed.drop(holed.index[100:110]))
    return store


async def collect(feed: ReplayFeed, after: dict[str, int] | None = None) -> list[Candle]:
    return [candle async for candle in feed.stream(after)]


def test_every_bar_comes_once_in_order_of_time_with_its_bytes(lake: Lake) -> None:
    got = asyncio.run(collect(ReplayFeed(lake, NAMES)))
    assert [(c.timestamp, c.symbol) for c in got[:4]] == [
        (T0, "SOLUSDT"), (T0, "BTCUSDT"), (T0 + MINUTE, "SOLUSDT"), (T0 + MINUTE, "BTCUSDT"),
    ]  # fmt: skip
    assert {c.source for c in got} == {"lake"} and not any(c.revised for c in got)
    for name in NAMES:
        mine = [c for c in got if c.symbol == name]
        assert [c.timestamp for c in mine] == list(range(T0, T0 + 3 * 1440 * MINUTE, MINUTE))
        assert np.array([c.values for c in mine]).tobytes() == lake.candles(name, "1m").to_numpy().tobytes()


def test_a_hole_of_the_lake_is_a_hole_and_ends_are_kept(lake: Lake) -> None:
    feed = ReplayFeed(lake, ["XMRUSDT", "BTCUSDT"], start=T0 + 95 * MINUTE, end=T0 + 120 * MINUTE)
    got = asyncio.run(collect(feed))
    assert [(c.timestamp - T0) // MINUTE for c in got if c.symbol == "XMRUSDT"] == [*range(95, 100), *range(110, 120)]
    assert [(c.timestamp - T0) // MINUTE for c in got if c.symbol == "BTCUSDT"] == list(range(95, 120))


def test_a_stream_begins_right_after_the_last_bar_known(lake: Lake) -> None:
    feed = ReplayFeed(lake, NAMES, start=T0 + 50 * MINUTE, end=T0 + 60 * MINUTE)
    got = asyncio.run(collect(feed, {"BTCUSDT": T0 + 44 * MINUTE}))
    assert [(c.timestamp - T0) // MINUTE for c in got if c.symbol == "BTCUSDT"] == list(range(45, 60))
    assert [(c.timestamp - T0) // MINUTE for c in got if c.symbol == "SOLUSDT"] == list(range(50, 60))
    assert asyncio.run(collect(feed, {name: T0 + 60 * MINUTE for name in NAMES})) == []


def test_history_and_funding_end_at_the_present_of_the_replay(lake: Lake) -> None:
    async def main() -> None:
        feed = ReplayFeed(lake, NAMES, start=T0 + 600 * MINUTE)
        whole = lake.candles("BTCUSDT", "1m")
        pd.testing.assert_frame_equal(await feed.history("BTCUSDT", T0, 2**42), whole.iloc[:600], check_freq=False)
        assert len(await feed.funding("BTCUSDT", T0, 2**42)) == 2  # 00 and 08 UTC
        assert not len(await feed.history("BTCUSDT", T0 + 700 * MINUTE, T0 + 800 * MINUTE))
        assert not len(await feed.funding("BTCUSDT", T0 + 700 * MINUTE, T0 + 2000 * MINUTE))
        stream = feed.stream()
        for n in range(600, 1000):
            for _ in NAMES:
                candle = await anext(stream)
            assert candle.timestamp == T0 + n * MINUTE
        history = await feed.history("BTCUSDT", T0, 2**42)
        assert len(history) == 1000 and history.index[-1].timestamp() * 1000 == candle.timestamp
        assert len(await feed.funding("BTCUSDT", T0, 2**42)) == 3
        status = feed.status()["SOLUSDT"]
        assert status.last_closed == candle.timestamp and status.age_ms == 0 and not status.stale
        await stream.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("speed", [1, 60.0, 1000])
def test_speed_is_minutes_of_the_market_in_real_time(lake: Lake, speed: float) -> None:
    async def main() -> None:
        clock = VirtualClock(T0 + 10**9)
        feed = ReplayFeed(lake, NAMES, speed=speed, clock=clock)
        got: list[tuple[int, int]] = []

        async def read() -> None:
            async for candle in feed.stream():
                got.append((candle.timestamp, clock.now_ms() - T0 - 10**9))

        reading = asyncio.create_task(read())
        while not clock._due:  # the first batch comes from a thread
            await asyncio.sleep(0.005)
        await clock.run_until(clock.now_ms() + int(10.5 * MINUTE / speed))
        assert [(stamp - T0) // MINUTE for stamp, _ in got] == [n for n in range(10) for _ in NAMES]
        for stamp, when in got:
            assert abs(when - (stamp + MINUTE - T0) / speed) <= 2
        await feed.aclose()
        await reading  # ends although the next bar is a minute away

    asyncio.run(main())


def test_the_loop_is_never_blocked_and_a_stream_can_be_cancelled(lake: Lake) -> None:
    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        feed = ReplayFeed(lake, NAMES)
        aside = asyncio.create_task(other())
        reading = asyncio.create_task(collect(feed))
        await asyncio.wait([reading], timeout=None)
        assert turns >= 3 * 1440  # at least once a bar
        aside.cancel()

        slow = ReplayFeed(lake, NAMES, speed=1)
        waiting = asyncio.create_task(collect(slow))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await slow.aclose()

    asyncio.run(main())


def test_a_simulated_exchange_is_a_source_too() -> None:
    exchange = SimulatedExchange(seed=3)

    async def main() -> None:
        feed = ReplayFeed(exchange, "ETHUSDT", "5m", start=T0 + 1440 * MINUTE, end="2025-01-03T06:00")
        got = await collect(feed)
        want = exchange.candles("ETHUSDT", "5m", start="2025-01-02", days=2).iloc[: 30 * 12]
        assert np.array([c.values for c in got]).tobytes() == want.to_numpy().tobytes()
        history = await feed.history("ETHUSDT", T0 + 60 * MINUTE, T0 + 120 * MINUTE)
        assert len(history) == 12
        funding = await feed.funding("ETHUSDT", T0, 2**42)
        pd.testing.assert_series_equal(funding, exchange.funding("ETHUSDT", days=3).iloc[:7])
        month = ReplayFeed(exchange, "ETHUSDT")
        assert month._end - month._start == 30 * 1440 * MINUTE

    asyncio.run(main())


def test_bad_input_gets_one_line(lake: Lake) -> None:
    for arguments, message in [
        ({"source": "lake"}, "must be a Lake"),
        ({"symbols": []}, "at least one"),
        ({"symbols": "NOPEUSDT"}, "no 1m candles"),
        ({"interval": "2m"}, "interval='2m'"),
        ({"speed": 0}, "speed=0"),
        ({"speed": math.nan}, "speed=nan"),
        ({"speed": True}, "speed=True"),
        ({"start": "2025-01-02", "end": "2025-01-01"}, "end=.2025-01-01.: must be later than the start, 2025-01-02"),
        ({"start": "2035-01-02"}, "start=.2035-01-02.: must be earlier than the end of the candles"),
    ]:
        with pytest.raises(InputError, match=message):
            ReplayFeed(**{"source": lake, "symbols": NAMES, **arguments})
    with pytest.raises(InputError, match="unknown"):
        ReplayFeed(SimulatedExchange(), "NOPEUSDT")

    async def main() -> None:
        feed = ReplayFeed(lake, NAMES)
        with pytest.raises(InputError, match="symbol"):
            await feed.history("XMRUSDT", 0, 1)
        stream = feed.stream()
        await anext(stream)
        with pytest.raises(AioneError, match="one stream"):
            await anext(feed.stream())
        await stream.aclose()
        await feed.aclose()
        with pytest.raises(AioneError, match="closed"):
            await anext(feed.stream())

    asyncio.run(main())


def test_the_path_of_a_lake_is_not_needed_twice(tmp_path: Path) -> None:
    """An empty lake says what is there: nothing."""
    with pytest.raises(InputError, match="there: none"):
        ReplayFeed(Lake(tmp_path), "BTCUSDT")
