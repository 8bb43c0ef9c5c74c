"""`FastSessions`: other symbols mean another session, and nothing of what stays is lost, told twice or left out."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import waiting
from session_runs import DAY_MS, MINUTE_MS, START, filled, market, plain
from test_prefilter import GOOD, SETTINGS, Futures

from aione_lab.backtest.replay import replay
from aione_lab.cli.live_table import Screen
from aione_lab.engine.records import SIGNAL
from aione_lab.errors import AioneError, ExchangeError, InputError
from aione_lab.lake.client import RefusedError
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake
from aione_lab.live import FastSessions, FastSymbols, Prefilter, ReplayFeed, Session, drift, fast_sessions
from aione_lab.live.enricher import EnricherSettings, NarrativeEnricher
from aione_lab.live.fast_sessions import ATTEMPTS
from aione_lab.live.journal import BarRows, Journal, signal_records

NAMES = ("BTCUSDT", "LINKUSDT", "SOLUSDT")
FIRST = START + 2 * DAY_MS
until = functools.partial(waiting.until, seconds=60.0)


class Market:
    """Fast symbols of a Binance double; their candles are replayed from the simulated exchange."""

    def __init__(self, server: Futures, folder: Path | None, bars: int = 1440, speed: float = 1200.0) -> None:
        self.server, self.folder = server, folder
        self.rows = {row["symbol"]: row for row in server.tickers}
        self.prefilter = Prefilter(server.ccxt(), SETTINGS.replace(refresh_s=1.0))
        self.end, self.speed = FIRST + bars * MINUTE_MS, speed
        self.made: list[tuple[str, ...]] = []
        self.decided = 0

    def fast(self, *names: str) -> None:
        self.server.tickers = [self.rows[name] for name in names]

    def session(self, symbols: Sequence[str], **more: Any) -> Session:
        self.made.append(tuple(symbols))
        names = dict.fromkeys(["BTCUSDT", *symbols])
        first = max(FIRST, self.decided + MINUTE_MS)  # the clock of an exchange goes on, too
        feed = ReplayFeed(SimulatedExchange(seed=3), list(names), speed=self.speed, start=first, end=self.end)
        lake = journal = None
        if self.folder is not None:
            lake, journal = Lake(self.folder / "lake"), self.folder / "journal"
        session = Session(feed, lake, journal=journal, **more)
        keep = session.keeper.bars

        def noted(bars: BarRows) -> None:
            self.decided = max(self.decided, *(one.candle.timestamp for one in bars.ready))
            keep(bars)

        session.keeper.bars = noted  # type: ignore[method-assign]
        return session


@pytest.fixture
def server() -> Any:
    with Futures(dict.fromkeys(NAMES, GOOD)) as running:
        yield running


def test_what_stays_goes_on_where_it_stood_and_what_is_new_warms_up(tmp_path: Path, server: Futures) -> None:
    """Each symbol's decided bars are those of a replay, whatever was on the list beside it; drift finds nothing."""
    exchange = Market(server, tmp_path)
    exchange.fast("BTCUSDT", "LINKUSDT")
    filled(tmp_path / "lake", days=2)  # so that every warm-up begins where the replay does

    async def run() -> FastSessions:
        sessions = FastSessions(exchange.prefilter, exchange.session)
        await sessions.open()
        task = sessions.start()
        await until(lambda: sessions.session.counts["bars"] > 50)
        for new in ("SOLUSDT", "LINKUSDT"):
            before, session = sessions.session.counts["bars"], sessions.session
            exchange.fast("BTCUSDT", new)
            await until(lambda was=session: sessions.session is not was)
            await until(lambda least=before: sessions.session.counts["bars"] > least + 100)  # counted on, not anew
        await sessions.stop()
        await asyncio.wait_for(task, 5)
        return sessions

    sessions = asyncio.run(run())
    assert [set(names) - {"BTCUSDT"} for names in exchange.made] == [{"LINKUSDT"}, {"SOLUSDT"}, {"LINKUSDT"}]
    assert sessions.session.status()["state"] == "stopped"
    table = Journal(tmp_path / "journal").table()
    table = table.filter(np.array(table["kind"]) == "bar")
    reference, pieces = market()["BTCUSDT"][0], {"BTCUSDT": 1, "LINKUSDT": 2, "SOLUSDT": 1}
    for name in NAMES:
        rows = table.filter(np.array(table["symbol"]) == name)
        gaps = np.diff(rows["timestamp"].to_numpy())
        assert len(rows) > 20 and (gaps >= MINUTE_MS).all() and (gaps > MINUTE_MS).sum() == pieces[name] - 1, name
        candles, funding = market()[name]
        whole = replay(candles, symbol=name, interval="1m", reference=reference, funding=funding).signal_records
        same = whole[np.isin(whole["timestamp"], rows["timestamp"].to_numpy())]
        assert [plain(one, SIGNAL) for one in signal_records(rows)] == [plain(one, SIGNAL) for one in same], name
    found = drift(tmp_path / "journal", Lake(tmp_path / "lake"))
    assert not found.differences and found.bars == len(table)


def test_a_symbol_with_an_open_trade_stays_and_the_same_list_changes_nothing(tmp_path: Path, server: Futures) -> None:
    exchange = Market(server, tmp_path)

    async def run() -> None:
        sessions = FastSessions(exchange.prefilter, exchange.session)
        await sessions.open()
        first = sessions.session
        first.held = lambda: ["LINKUSDT"]  # type: ignore[method-assign]
        task = sessions.start()
        looked = exchange.prefilter.latest
        exchange.fast("SOLUSDT", "BTCUSDT", "LINKUSDT")  # in another order
        await until(lambda: exchange.prefilter.latest is not looked)
        await asyncio.sleep(1.5)
        assert sessions.session is first and len(exchange.made) == 1
        exchange.fast("SOLUSDT")
        await until(lambda: sessions.session is not first)
        await sessions.stop()
        await asyncio.wait_for(task, 5)

    asyncio.run(run())
    assert set(exchange.made[1]) == {"SOLUSDT", "LINKUSDT"}


def test_it_ends_with_its_session_and_raises_what_that_raises(tmp_path: Path, server: Futures) -> None:
    exchange = Market(server, None, bars=5, speed=np.inf)
    asyncio.run(FastSessions(exchange.prefilter, exchange.session).run())
    assert len(exchange.made) == 1

    def broken(symbols: Sequence[str]) -> Session:
        session = exchange.session(symbols)

        async def history(*_: Any) -> Any:
            raise InputError("no history today")

        session.feed.history = history  # type: ignore[method-assign]
        return session

    exchange = Market(server, None)
    with pytest.raises(InputError, match="no history today"):
        asyncio.run(FastSessions(exchange.prefilter, broken).run())
    with pytest.raises(InputError, match="prefilter"):
        FastSessions("binanceusdm", exchange.session)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="make"):
        FastSessions(exchange.prefilter, None)  # type: ignore[arg-type]


def test_stopped_before_its_first_step_and_cancelled_amid_a_session(tmp_path: Path, server: Futures) -> None:
    exchange = Market(server, tmp_path)

    async def run() -> None:
        sessions = FastSessions(exchange.prefilter, exchange.session)
        await sessions.open()
        task = sessions.start()
        await sessions.stop()
        await asyncio.wait_for(task, 5)
        assert sessions.session.counts["bars"] == 0
        sessions = FastSessions(exchange.prefilter, exchange.session)
        task = sessions.start()
        await until(lambda: exchange.made[1:] and sessions.session.counts["bars"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sessions.session.status()["state"] == "stopped"
        assert exchange.prefilter._task is None

    asyncio.run(run())
    assert len(Journal(tmp_path / "journal").read("bar"))


def test_an_enricher_forgets_sessions_that_are_over(server: Futures) -> None:
    exchange = Market(server, None, bars=5, speed=np.inf)
    enricher = NarrativeEnricher(EnricherSettings(url="http://127.0.0.1:9/v1", model="none"))
    for _ in range(3):
        exchange.decided = 0
        asyncio.run(exchange.session(["BTCUSDT"], enricher=enricher).run())
    assert enricher._on_text == []


def test_a_look_while_a_session_stops_is_not_missed(tmp_path: Path, server: Futures) -> None:
    exchange = Market(server, tmp_path)
    exchange.fast("BTCUSDT", "LINKUSDT")
    looks = [FastSymbols(names, pd.DataFrame()) for names in (("BTCUSDT", "SOLUSDT"), ("BTCUSDT", "LINKUSDT"))]

    async def run() -> None:
        sessions = FastSessions(exchange.prefilter, exchange.session)
        await sessions.open()
        first = sessions.session
        stop = first.stop

        async def slow_stop() -> None:
            exchange.prefilter.latest = looks[1]
            await stop()

        first.stop = slow_stop  # type: ignore[method-assign]
        exchange.prefilter.settings = SETTINGS.replace(refresh_s=600.0)
        task = sessions.start()
        await until(lambda: first.counts["bars"])
        exchange.prefilter.latest = looks[0]
        await until(lambda: sessions.session is not first)
        assert set(sessions.session.symbols) == {"BTCUSDT", "LINKUSDT"}
        await sessions.stop()
        await asyncio.wait_for(task, 5)

    asyncio.run(run())


def test_a_stop_right_after_the_start_of_a_session_ends_it_without_an_error(tmp_path: Path, server: Futures) -> None:
    exchange = Market(server, tmp_path)

    async def run(ticks: int) -> None:
        sessions = FastSessions(exchange.prefilter, exchange.session)
        await sessions.open()
        task = sessions.start()
        for _ in range(ticks):
            await asyncio.sleep(0)
        await sessions.stop()
        await asyncio.wait_for(task, 5)
        with pytest.raises(AioneError, match="closed|run already"):
            await sessions.session.run()

    for ticks in range(5):
        asyncio.run(run(ticks))

    async def never() -> None:
        sessions = FastSessions(exchange.prefilter, exchange.session)
        made = len(exchange.made)
        await sessions.stop()
        await sessions.run()
        assert len(exchange.made) == made

    asyncio.run(never())


def test_what_is_always_there_changes_nothing_by_entering_the_list(tmp_path: Path, server: Futures) -> None:
    exchange = Market(server, tmp_path)
    sessions = FastSessions(exchange.prefilter, exchange.session, always=["btc/usdt"])
    for names in (("LINKUSDT",), ("LINKUSDT", "BTCUSDT")):
        assert set(sessions._wanted(FastSymbols(names, pd.DataFrame()))) == {"BTCUSDT", "LINKUSDT"}


class Looks(Prefilter):
    """Finds these lists, one after the other, the last one for good."""

    def __init__(self, *lists: tuple[str, ...]) -> None:
        super().__init__("binanceusdm", SETTINGS.replace(refresh_s=1.0))
        self.lists, self.looks = list(lists), 0

    async def refresh(self) -> FastSymbols:
        self.looks += 1
        names = self.lists.pop(0) if self.lists[1:] else self.lists[0]
        self.latest = FastSymbols(names, pd.DataFrame())
        return self.latest


def test_a_list_that_becomes_empty_leaves_the_symbols_and_one_beside_those_that_are_always_there(
    server: Futures,
) -> None:
    exchange = Market(server, None)

    async def run(looks: Looks, always: Sequence[str], then: set[str]) -> None:
        sessions = FastSessions(looks, exchange.session, always=always)
        task = sessions.start()
        await until(lambda: looks.looks == 4 and sessions.session.counts["bars"])
        await asyncio.sleep(1.5)
        assert not task.done() and set(exchange.made[-1]) == then
        await sessions.stop()
        await asyncio.wait_for(task, 5)

    asyncio.run(run(Looks(("LINKUSDT",), (), (), ()), (), {"LINKUSDT"}))
    assert len(exchange.made) == 1
    asyncio.run(run(Looks(("LINKUSDT",), (), (), ()), ["BTCUSDT"], {"BTCUSDT"}))


def test_where_nothing_is_fast_at_first_it_waits_for_a_look_or_a_stop(
    server: Futures, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = Market(server, None, bars=5, speed=np.inf)
    looks = Looks((), (), (), ("LINKUSDT",))
    asyncio.run(FastSessions(looks, exchange.session).run())
    assert exchange.made == [("LINKUSDT",)] and looks.looks == 4
    assert caplog.text.count("no symbol is fast") == 1

    async def stopped() -> None:
        sessions = FastSessions(Looks(()), exchange.session)
        task = sessions.start()
        await until(lambda: caplog.text.count("no symbol is fast") == 2)
        await sessions.stop()
        await asyncio.wait_for(task, 5)

    asyncio.run(stopped())

    async def stopped_during_its_first_look() -> None:
        sessions = FastSessions(exchange.prefilter, exchange.session)
        task = sessions.start()
        await asyncio.sleep(0)
        await sessions.stop()
        await asyncio.wait_for(task, 5)

    asyncio.run(stopped_during_its_first_look())
    assert len(exchange.made) == 1


class Away(Market):
    """An exchange that fails with ``failures``, one a session, where a session of several symbols asks for candles."""

    failures: list[Exception]

    def session(self, symbols: Sequence[str], **more: Any) -> Session:
        session = super().session(symbols, **more)
        if symbols[1:] and self.failures:
            error = self.failures.pop(0)

            async def history(*_: Any) -> Any:
                raise error

            session.feed.history = history  # type: ignore[method-assign]
        return session


ONE, TWO = ("LINKUSDT",), ("LINKUSDT", "SOLUSDT")


@pytest.mark.usefixtures("no_pauses")
def test_where_the_exchange_is_away_at_a_change_the_change_is_tried_again(
    server: Futures, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = Away(server, None)
    exchange.failures = [ExchangeError("no answer"), ExchangeError("still none")]

    async def run() -> None:
        sessions = FastSessions(Looks(ONE, TWO), exchange.session)
        task = sessions.start()
        await until(lambda: exchange.made[3:] and sessions.session.counts["bars"])
        await sessions.stop()
        await asyncio.wait_for(task, 5)

    asyncio.run(run())
    assert exchange.made == [ONE, TWO, TWO, TWO]
    told = [text for text in caplog.messages if "no answer" in text or "still none" in text]
    assert len(told) == 2 and all("could not begin" in text for text in told)


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(
    ("error", "made"),
    [(ExchangeError("no answer"), [ONE, *[TWO] * ATTEMPTS]), (RefusedError("no"), [ONE, TWO]), (OSError(), [ONE, TWO])],
    ids=["away", "refused", "other"],
)
def test_what_fails_for_good_at_a_change_ends_it_with_its_error(
    server: Futures, error: Exception, made: list[tuple[str, ...]]
) -> None:
    exchange = Away(server, None)
    exchange.failures = [error] * 20
    with pytest.raises(type(error)) as found:
        asyncio.run(FastSessions(Looks(ONE, TWO), exchange.session).run())
    assert found.value is error and exchange.made == made
    exchange.made.clear()
    with pytest.raises(type(error)):  # the first one of all is not tried again: somebody waits for it
        asyncio.run(FastSessions(Looks(TWO), exchange.session).run())
    assert exchange.made == [TWO]


@pytest.mark.parametrize("end", ["stop", "cancel", "another list"])
def test_a_pause_before_the_next_try_holds_nobody_up(
    server: Futures, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_sessions, "PAUSE_S", 600.0)
    monkeypatch.setattr(fast_sessions, "LONGEST_PAUSE_S", 600.0)
    exchange = Away(server, None)
    exchange.failures = [ExchangeError("no answer")]
    looks = Looks(ONE, TWO)

    async def run() -> None:
        sessions = FastSessions(looks, exchange.session)
        task = sessions.start()
        await until(lambda: exchange.made[1:] and sessions.session.status()["state"] == "failed")
        await asyncio.sleep(0.1)
        if end == "another list":
            looks.lists = [ONE]
            await until(lambda: exchange.made[2:] and sessions.session.counts["bars"])
            assert exchange.made == [ONE, TWO, ONE]
        if end == "cancel":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)
        else:
            await sessions.stop()
            await asyncio.wait_for(task, 5)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


def test_held_are_the_symbols_with_an_open_trade_or_an_order(tmp_path: Path, server: Futures) -> None:
    """Beside the replay, at the close of a bar at which a trade is open and of one at which an order waits."""
    reference, (candles, funding) = market()["BTCUSDT"][0], market()["LINKUSDT"]
    whole = replay(candles, symbol="LINKUSDT", interval="1m", reference=reference, funding=funding).signal_records
    whole = whole[whole["timestamp"] >= FIRST]
    bars = {
        "held": int(np.flatnonzero(whole["position"] != 0)[0]),
        "ordered": int(np.flatnonzero(whole["recommendation"] == 1)[0]),
        "nothing": 0,
    }
    for what, bar in bars.items():
        exchange = Market(server, None, bars=bar + 1, speed=np.inf)
        session = exchange.session(["LINKUSDT"])
        asyncio.run(session.run())
        assert ("LINKUSDT" in session.held()) is (what != "nothing"), what


def test_alerts_that_wait_for_a_calibration_go_over_and_strangers_are_passed_over(
    tmp_path: Path, server: Futures
) -> None:
    exchange = Market(server, tmp_path, bars=5, speed=np.inf)
    session = exchange.session(["BTCUSDT", "LINKUSDT"])
    session.calibrations.waiting = {"LINKUSDT": {"timestamp": "a"}, "SOLUSDT": {"timestamp": "b"}}
    asyncio.run(session.run())
    exchange.decided, exchange.end = 0, exchange.end + 5 * MINUTE_MS
    after = exchange.session(["BTCUSDT", "LINKUSDT"])
    asyncio.run(after.run())
    assert after.counts["bars"] == 20 and after.calibrations.waiting == {"LINKUSDT": {"timestamp": "a"}}
    after.calibrations.update_asset("SOLUSDT", {"calib_status": "in_progress"})
    after.calibrations.update_calibration("SOLUSDT", {"tp_mult": 2.0})
    assert set(after.assets.snapshot()) == {"BTCUSDT", "LINKUSDT"}


def test_lines_tell_the_alerts_of_one_session_after_the_other_once(capsys: pytest.CaptureFixture[str]) -> None:
    class Stub:
        told_before: int | None = None

        def __init__(self, *alerts: str) -> None:
            self.alerts = alerts

        def status(self) -> dict[str, int]:
            return {"alerts": len(self.alerts), "second_looks": 0}

        def last_alerts(self, n: int) -> list[dict[str, Any]]:
            newest = list(reversed(self.alerts))[: max(0, n)]
            return [
                {"timestamp": one, "symbol": "X", "recommendation": "BUY", "confidence": 1.0, "trigger_reasons": [],
                 "risk_parameters": {}} for one in newest
            ]  # fmt: skip

    first, second = Stub("0", "1", "2"), Stub("0", "1", "2", "3", "4")
    current = first
    screen = Screen(lambda: current, on_terminal=False, silent=False)  # type: ignore[arg-type, return-value]
    first.told_before = 1  # the journal's
    screen._tell_alerts()
    current = second
    screen._tell_alerts()  # still restoring
    second.told_before = 4  # with 3, which came while the first was stopping
    screen._tell_alerts()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1", "2", "3", "4"]
