"""An ExchangeFeed on unmodified ccxt against a faulty exchange: what it hands out is the fault-free run."""

from __future__ import annotations

import asyncio
import contextlib
import time

import ccxt.pro  # noqa: F401 (loaded before virtual time runs)
import numpy as np
import pandas as pd
import pytest
from fake_binance import KINDS, MINUTE_MS, OF_A_CONNECTION, OF_REQUESTS, FakeBinance, WireFault, script
from fake_exchange import Fault
from feed_runs import BEFORE, NAMES, Run, market, running, stamps
from virtual_clock import VirtualClock

from aione_lab.errors import AioneError, ExchangeError, InputError
from aione_lab.lake.simulated import DEFAULT_SYMBOLS
from aione_lab.live import exchange_feed
from aione_lab.live.exchange_feed import ExchangeFeed
from aione_lab.live.feed_settings import FeedSettings
from aione_lab.live.streams import PlainStream

pytestmark = pytest.mark.usefixtures("no_pauses")


# --- the fault-free run, whatever happens --------------------------------------------------------------------------


async def faulty(seed: int, bars: int, every: int, apart: bool = True, frames: dict | None = None) -> Run:
    frames = market(1) if frames is None else frames
    kinds = KINDS if apart else tuple(kind for kind in KINDS if kind != "revise")
    faults = script(seed, bars - 6, list(frames), kinds, every, apart)
    async with running(faults, frames, skew_ms=(-1) ** seed * 4000) as run:
        await run.finish(bars)
        assert len(run.server.done) == len(faults)
    run.check(bars)
    revised = [(c.symbol, c.timestamp) for c in run.got if c.revised]
    assert sorted(revised) == sorted(run.server.revised)
    return run


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_every_fault_leaves_the_candles_as_they_are(seed: int) -> None:
    """3 symbols, 5 hours, every kind of fault: the bytes of the fault-free run, each bar once."""
    run = asyncio.run(faulty(seed, bars=300, every=8))
    assert {fault.kind for fault in run.server.done} == set(KINDS)
    seen = run.feed.metrics
    assert seen.reconnects and seen.gaps_filled and seen.dropped_duplicates and seen.rejected and seen.rate_limited
    assert seen.bars_absent == 0 and seen.revisions == len(run.server.revised) > 0


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_faults_on_top_of_one_another_leave_the_candles_as_they_are(seed: int) -> None:
    asyncio.run(faulty(seed, bars=120, every=2, apart=False))


def test_without_faults_nothing_is_asked_for_and_bars_come_at_once() -> None:
    async def main() -> Run:
        async with running(after={}) as run:
            await run.finish(60)
        return run

    run = asyncio.run(main())
    run.check(60)
    assert run.feed.metrics.gaps_filled == run.feed.metrics.reconnects == 0
    assert len(run.server.requests("klines")) == 0 and run.server.connections == 1
    late = [at - candle.timestamp - MINUTE_MS for candle, at in zip(run.got, run.at, strict=True)]
    assert max(late) == 150  # when the exchange says so


def test_a_bar_that_is_filled_comes_before_the_next_one_ends() -> None:
    """Dropped, it comes as soon as patience has run out; nothing later is handed out before it."""

    async def main() -> Run:
        async with running([WireFault("drop", n, "SOLUSDT") for n in range(3, 30, 4)]) as run:
            await run.finish(40)
        return run

    run = asyncio.run(main())
    run.check(40)
    filled = [(c, at) for c, at in zip(run.got, run.at, strict=True) if c.source == "rest"]
    assert len(filled) == 7
    assert max(at - c.timestamp - MINUTE_MS for c, at in filled) < 5_000


def test_the_check_itself_sees_a_wrong_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were an answer's last row taken for final, stale answers would get through: the check must notice."""
    from aione_lab.live import sequencer

    def trusting(self: sequencer.Sequencer, rows: list, asked: int) -> list:
        return [candle for row in rows for candle in self._final(row)]

    monkeypatch.setattr(sequencer.Sequencer, "answer", trusting)
    with pytest.raises(AssertionError):
        asyncio.run(faulty(0, bars=150, every=8))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_a_day_of_twenty_symbols_and_every_fault(seed: int) -> None:
    symbols = market(2, tuple(spec.symbol for spec in DEFAULT_SYMBOLS))
    frames = {**symbols, **{f"1000{name}": frame for name, frame in list(symbols.items())[: 20 - len(symbols)]}}
    assert len(frames) == 20
    run = asyncio.run(faulty(1000 + seed, bars=1440, every=7, frames=frames, apart=seed % 2 == 0))
    assert len(run.server.done) > 200


# --- exchanges without a closed flag -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_a_successor_finalises_where_there_is_no_flag(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same exchange through ccxt's plain candles: the prices and volumes of the truth, whatever breaks."""
    monkeypatch.setattr(exchange_feed, "flagged", lambda client: False)
    monkeypatch.setattr(exchange_feed, "candle_stream", PlainStream)
    kinds = ("duplicate", *OF_A_CONNECTION, *OF_REQUESTS)

    async def main() -> Run:
        async with running(script(seed, 110, NAMES, kinds, every=6), plain=seed % 2 == 0) as run:
            await run.finish(119)
        return run

    run = asyncio.run(main())
    run.check(119, columns=5, more=1)  # the last one waits for its successor
    assert not [c for c in run.got if c.revised]


# --- staleness, silence, limits ------------------------------------------------------------------------------------


def test_staleness_shows_within_two_intervals_and_passes() -> None:
    async def main() -> tuple[int, Run]:
        async with running([WireFault("freeze", 10, "BTCUSDT", 20)]) as run:
            await run.bars(10)
            assert not any(status.stale for status in run.feed.status().values())
            run.server.faults.append(Fault("status", path="klines", status=503, times=100_000))
            shown = 0
            while not shown:
                await run.clock.run_until(run.clock.now_ms() + 1000)
                if all(status.stale for status in run.feed.status().values()):
                    shown = run.clock.now_ms()
                assert run.clock.now_ms() < run.start + 20 * MINUTE_MS
            await run.bars(14)
            status = run.feed.status()["SOLUSDT"]
            assert status.stale and "503" in status.error and status.age_ms is not None
            assert status.age_ms >= 3 * MINUTE_MS
            run.server.faults.clear()
            await run.finish(40)
            assert not any(status.stale or status.error for status in run.feed.status().values())
        return shown, run

    shown, run = asyncio.run(main())
    run.check(40)
    last_end = run.start + 11 * MINUTE_MS  # bar 10 was the last before the silence
    assert shown - last_end <= 2 * MINUTE_MS
    assert run.feed.metrics.reconnects >= 1


def test_a_silent_connection_is_made_anew_after_a_minute() -> None:
    async def main() -> Run:
        async with running([WireFault("freeze", 5, "BTCUSDT", 1000)]) as run:
            await run.bars(7)  # silent from the end of bar 5 on
            assert run.server.connections == 2 and run.feed.metrics.reconnects == 1
            await run.finish(20)
        return run

    run = asyncio.run(main())
    run.check(20)
    assert run.server.connections == 2
    assert sum(candle.source == "rest" for candle in run.got) <= 6


def test_one_dead_subscription_makes_the_connection_anew() -> None:
    async def main() -> Run:
        async with running() as run:
            await run.bars(5)
            run.server.sockets[0].streams.discard("solusdt@kline_1m")
            await run.finish(30)
        return run

    run = asyncio.run(main())
    run.check(30)
    assert run.server.connections == 2 and run.feed.metrics.reconnects == 1
    assert [c.source for c in run.handed("SOLUSDT")[-10:]] == ["stream"] * 10


def test_hundreds_of_symbols_share_connections_of_at_most_200() -> None:
    frame = market()["BTCUSDT"].iloc[: BEFORE + 30]
    frames = {f"C{n:03d}USDT": frame for n in range(450)}

    async def main() -> Run:
        async with running([WireFault("close1006", 2, "C000USDT")], frames) as run:
            await run.finish(6)
            assert run.server.most_streams == 200 and len(run.server.sockets) == 3
        return run

    run = asyncio.run(main())
    run.check(6)
    assert run.server.connections == 6


def test_a_ban_is_sat_out() -> None:
    """An exchange that asks to wait longer than a request can is left alone until then."""

    async def main() -> Run:
        async with running([WireFault("drop", 5, "BTCUSDT")]) as run:
            await run.bars(4)
            run.server.faults.append(Fault("status", path="klines", status=418, headers={"Retry-After": "600"}))
            await run.finish(30)
        return run

    run = asyncio.run(main())
    run.check(30)
    assert run.feed.metrics.rate_limited == 1
    filled = [at for c, at in zip(run.got, run.at, strict=True) if c.source == "rest"]
    assert len(filled) == 1 and filled[0] >= run.start + 6 * MINUTE_MS + 600_000


def test_clock_skew_is_measured() -> None:
    async def main() -> None:
        async with running(skew_ms=-7_000) as run:
            await run.bars(1)
            assert run.feed.metrics.skew_ms == 7_000
            run.server.offset_ms = 1_500
            await run.bars(15)
            assert run.feed.metrics.skew_ms == 8_500

    asyncio.run(main())


def test_a_clock_that_is_set_back_by_an_hour_is_noticed() -> None:
    async def main() -> Run:
        async with running() as run:
            await run.bars(5)
            run.local.offset_ms -= 3_600_000
            await run.finish(20)
        return run

    run = asyncio.run(main())
    run.check(20)
    assert run.feed.metrics.skew_ms == 3_600_000
    late = [at - candle.timestamp - MINUTE_MS for candle, at in zip(run.got, run.at, strict=True)]
    assert max(late) < 3 * MINUTE_MS


def test_an_old_connection_that_dies_late_does_not_harm_the_new_one() -> None:
    """A frozen peer answers no closing handshake for seconds; its end must not be taken for the new one's."""

    async def main() -> Run:
        async with running() as run:
            await run.bars(2)
            old = run.server.sockets[0]
            old.frozen_until = 2**62
            stream = run.feed._streams[0]
            left = next(iter(stream._exchange.clients.values()))
            await run.bars(6)
            assert run.server.connections == 2
            left.on_close(1006)
            left.on_error(ConnectionError("late"))
            stream._exchange.handle_message(left, {"e": "kline", "k": {"x": True}})
            await run.finish(12)
        return run

    run = asyncio.run(main())
    run.check(12)
    assert run.server.connections == 2 and run.feed.metrics.reconnects == 1


# --- where a stream begins, history, funding -----------------------------------------------------------------------


def test_a_stream_begins_right_after_the_last_bar_known() -> None:
    frames = market(4, ("BTCUSDT",))
    start = int(stamps(frames["BTCUSDT"])[3 * 1440])

    async def main() -> Run:
        clock = VirtualClock(start + 5_000)
        async with FakeBinance(frames, clock) as server:
            feed = ExchangeFeed(server.ccxt(), "BTCUSDT", clock=clock)
            run = Run(server, feed, clock, clock, start)  # type: ignore[arg-type]

            async def read() -> None:
                async for candle in feed.stream({"BTCUSDT": start - 3 * 1440 * MINUTE_MS}):
                    run.got.append(candle)

            reading = asyncio.create_task(read())
            await run.bars(20)
            await feed.aclose()
            await reading
        return run

    run = asyncio.run(main())
    run.start = start - (3 * 1440 - 1) * MINUTE_MS
    run.check(3 * 1440 + 19)
    assert len(run.server.requests("klines")) < 14  # 499 bars a request


def test_history_and_funding_are_those_of_the_exchange() -> None:
    frame = market(2)["SOLUSDT"]
    ms = stamps(frame)
    funding = pd.Series([1e-4, -2e-4], index=frame.index[[480, 960]], name="funding_rate")

    async def main() -> None:
        clock = VirtualClock(int(ms[1500]) + 20_000)
        async with FakeBinance({"SOLUSDT": frame}, clock, funding={"SOLUSDT": funding}) as server:
            feed = ExchangeFeed(server.ccxt(), ["SOL/USDT:USDT"], clock=clock)
            assert feed.symbols == ("SOLUSDT",)
            server.faults += [Fault("short", path="klines", rows=7), Fault("stale", path="klines", skip=2, seconds=90)]
            history = await feed.history("SOLUSDT", int(ms[100]), int(ms[1510]))
            pd.testing.assert_frame_equal(history, frame.iloc[100:1500], check_freq=False)
            assert not len(await feed.history("SOLUSDT", int(ms[1600]), int(ms[1700])))
            pd.testing.assert_series_equal(await feed.funding("SOLUSDT", int(ms[0]), int(ms[960])), funding.iloc[:1])
            assert not len(await feed.funding("SOLUSDT", int(ms[0]), int(ms[10])))
            with pytest.raises(InputError, match="symbol='BTCUSDT'"):
                await feed.history("BTCUSDT", 0, 1)
            await feed.aclose()
            with pytest.raises(AioneError, match="closed"):
                await feed.history("SOLUSDT", 0, 1)

    asyncio.run(main())


def test_a_revision_shows_when_the_bars_after_it_are_asked_for() -> None:
    """The exchange corrects a bar while nobody listens: handed on as revised, and the sequence goes on."""

    async def main() -> Run:
        async with running([WireFault("freeze", 5, "BTCUSDT", 3)]) as run:
            await run.bars(6)
            at = run.start + 5 * MINUTE_MS
            book = run.server.books["BTCUSDT"]
            book.values[np.searchsorted(book.ms, at), 4] += 1.0
            await run.finish(12)
            book.values[np.searchsorted(book.ms, at), 4] -= 1.0
        return run

    run = asyncio.run(main())
    run.check(12)
    revised = [c for c in run.got if c.revised]
    assert [(c.symbol, c.timestamp) for c in revised] == [("BTCUSDT", run.start + 5 * MINUTE_MS)]
    assert run.feed.status()["BTCUSDT"].revisions == 1


def test_history_without_closed_flag_columns_or_window() -> None:
    frame = market()["SOLUSDT"]
    ms = stamps(frame)

    async def main() -> None:
        clock = VirtualClock(int(ms[1400]) + 20_000)
        async with FakeBinance({"SOLUSDT": frame}, clock) as server:
            feed = ExchangeFeed(server.ccxt(), "SOLUSDT", clock=clock)
            feed._client._rich = False
            history = await feed.history("SOLUSDT", int(ms[100]), int(ms[1410]))
            wanted = frame.iloc[100:1400].assign(quote_volume=np.nan, trades=np.nan, taker_buy_volume=np.nan)
            pd.testing.assert_frame_equal(history, wanted, check_freq=False)
            await feed.aclose()

    asyncio.run(main())


def test_history_never_shows_a_bar_under_way() -> None:
    """Not even when the answer is from before the bar's end and the clock says it is over."""
    frame = market()["BTCUSDT"]
    ms = stamps(frame)

    async def main() -> None:
        clock = VirtualClock(int(ms[300]) + 1_000)
        async with FakeBinance({"BTCUSDT": frame}, clock) as server:
            feed = ExchangeFeed(server.ccxt(), clock=clock)
            server.faults.append(Fault("stale", path="klines", seconds=30, times=100))
            history = await feed.history("BTCUSDT", int(ms[290]), int(ms[300]))
            pd.testing.assert_frame_equal(history, frame.iloc[290:299], check_freq=False)
            await feed.aclose()

    asyncio.run(main())


# --- what cannot work says so --------------------------------------------------------------------------------------


def test_bad_input_gets_one_line() -> None:
    for arguments, message in [
        ({"exchange": "binanceusd"}, "did you mean"),
        ({"symbols": []}, "at least one"),
        ({"symbols": ["../x"]}, "symbols"),
        ({"interval": "7m"}, "interval='7m'"),
        ({"settings": {"patience_seconds": 1}}, "must be FeedSettings"),
    ]:
        with pytest.raises(InputError, match=message):
            ExchangeFeed(**arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="streams_per_connection"):
        FeedSettings(streams_per_connection=201)


def test_what_only_the_exchange_knows_is_told_by_the_first_call() -> None:
    async def main() -> None:
        frames = market()
        clock = VirtualClock(int(stamps(frames["BTCUSDT"])[BEFORE]))
        async with FakeBinance(frames, clock) as server:
            feed = ExchangeFeed(server.ccxt(), ["BTCUSDT", "SOLUSD"], clock=clock)
            with pytest.raises(InputError, match="did you mean 'SOLUSDT'"):
                await anext(feed.stream({}))
            await feed.aclose()
        lost = ExchangeFeed(server.ccxt(), clock=clock)
        with pytest.raises(ExchangeError, match="its markets"):
            await lost.history("BTCUSDT", 0, 1)
        await lost.aclose()

    asyncio.run(main())


def test_one_stream_at_a_time_and_again_after_it_was_left() -> None:
    async def main() -> None:
        frames = market()
        start = int(stamps(frames["BTCUSDT"])[BEFORE])
        clock = VirtualClock(start + 5_000)
        async with FakeBinance(frames, clock, [WireFault("duplicate", 1, "BTCUSDT")]) as server:
            feed = ExchangeFeed(server.ccxt(), list(NAMES), clock=clock)
            got = []

            async def read(until: int) -> None:
                async with contextlib.aclosing(feed.stream({c.symbol: c.timestamp for c in got})) as stream:
                    async for candle in stream:
                        got.append(candle)
                        if len(got) == until:
                            return

            first = asyncio.create_task(read(9))
            await clock.run_until(start + 2 * MINUTE_MS)
            with pytest.raises(AioneError, match="one stream"):
                await anext(feed.stream({}))
            await clock.run_until(start + 5 * MINUTE_MS)
            await first
            assert feed.metrics.dropped_duplicates == 1 and not server.sockets
            second = asyncio.create_task(read(30))
            await clock.run_until(start + 11 * MINUTE_MS)
            await second
            assert feed.metrics.dropped_duplicates == 1
            await feed.aclose()
        for name in NAMES:
            wanted = [start + n * MINUTE_MS for n in range(10)]
            assert [c.timestamp for c in got if c.symbol == name] == wanted

    asyncio.run(main())


def test_what_a_choice_of_symbols_asks_for_is_answered() -> None:
    """The fake exchange: tickers, open interest and depth through ccxt."""

    async def main() -> None:
        frames = market()
        clock = VirtualClock(int(stamps(frames["BTCUSDT"])[2000]) + 30_000)
        async with FakeBinance(frames, clock) as server:
            exchange = ccxt.pro.binanceusdm(server.config())
            tickers = await exchange.fetch_tickers()
            assert len(tickers) == 3
            last = frames["SOLUSDT"].iloc[561:2000]
            assert tickers["SOL/USDT:USDT"]["quoteVolume"] >= last["quote_volume"].sum()
            interest = await exchange.fetch_open_interest("SOL/USDT:USDT")
            assert interest["openInterestAmount"] > 0
            book = await exchange.fetch_order_book("SOL/USDT:USDT", 20)
            assert book["bids"][0][0] < book["asks"][0][0]
            await exchange.close()

    asyncio.run(main())


def test_a_failure_behind_the_stream_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(ExchangeFeed, "_measure_skew", broken)

    async def main() -> None:
        frames = market()
        clock = VirtualClock(int(stamps(frames["BTCUSDT"])[BEFORE]))
        async with FakeBinance(frames, clock) as server:
            feed = ExchangeFeed(server.ccxt(), list(NAMES), clock=clock)
            with pytest.raises(RuntimeError, match="broken on purpose"):
                await anext(feed.stream({}))
            await feed.aclose()

    asyncio.run(main())


def test_by_the_clock_of_this_machine() -> None:
    """No virtual time in the feed: the bars of a market that lives now."""
    now = time.time_ns() // 1_000_000 // MINUTE_MS * MINUTE_MS
    frame = market()["BTCUSDT"].iloc[:200]
    frame = frame.set_axis(pd.to_datetime(now + MINUTE_MS * np.arange(-150, 50), unit="ms", utc=True).as_unit("ms"))
    frame.index.name = "timestamp"

    async def main() -> None:
        async with FakeBinance({"BTCUSDT": frame}, VirtualClock(time.time_ns() // 1_000_000)) as server:
            feed = ExchangeFeed(server.ccxt())
            got = []
            async for candle in feed.stream({"BTCUSDT": now - 100 * MINUTE_MS}):
                got.append(candle)
                if len(got) == 98:
                    break
            assert [c.timestamp for c in got] == [now + n * MINUTE_MS for n in range(-99, -1)]
            assert not feed.status()["BTCUSDT"].stale or feed.status()["BTCUSDT"].age_ms < 2 * MINUTE_MS
            await feed.aclose()

    asyncio.run(main())
