"""Download against an exchange on loopback: whatever it does, the lake ends up as the source is."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ccxt
import ccxt.async_support as accxt
import lake_files
import numpy as np
import pandas as pd
import pytest
import stamina
from lake_files import START

from aione_lab.errors import ExchangeError, InputError, LakeCorruption
from aione_lab.lake import CANDLE_COLUMNS, Lake, fingerprint_candles
from aione_lab.lake import client as lake_client
from aione_lab.lake import exchange as lake_exchange
from aione_lab.lake.absent import missing, read_absent, union, without
from aione_lab.lake.client import _retry_after, new_exchange
from tests.fake_exchange import FakeExchange, Fault

MINUTE = 60_000
DAY = 86_400_000


def make_candles(n: int, seed: int = 1, start: int = START) -> pd.DataFrame:
    return lake_files.make_candles(n, start, seed=seed)


@pytest.fixture(autouse=True)
def no_waiting_between_retries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Back-off pauses are skipped; what Retry-After asks for is still waited for."""
    monkeypatch.setattr(lake_client, "RATE_PAUSE", 0.0)
    stamina.set_testing(True, attempts=8, cap=True)
    yield
    stamina.set_testing(False)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def assert_stored(lake: Lake, frame: pd.DataFrame, symbol: str = "BTCUSDT") -> None:
    pd.testing.assert_frame_equal(lake.candles(symbol, "1m"), frame[list(CANDLE_COLUMNS)], check_exact=True)


# ---- the good case ---------------------------------------------------------------------------------


def test_full_download_equals_the_source(lake: Lake) -> None:
    frames = {s: make_candles(6000, seed) for seed, s in enumerate(("BTCUSDT", "ETHUSDT", "1000PEPEUSDT"))}
    with FakeExchange(frames, clock=START + 5600 * MINUTE + 30_000) as server:
        report = lake.fetch(server.ccxt(), ["BTCUSDT", "ETH/USDT:USDT", "1000PEPEUSDT"], "1m", since="2025-05-04")
        for symbol, frame in frames.items():
            assert_stored(lake, frame.iloc[:5600], symbol)
            assert lake.fingerprint(symbol, "1m") == fingerprint_candles(frame.iloc[:5600])
        pages = server.requests("klines")
        assert max(int(p.query["limit"]) for p in pages) == 499
        assert sum(p.weight for p in pages) <= 3 * (2 * (5600 // 499 + 2) + 2)
    assert report.exchange == "binanceusdm"
    assert report.total["rows_new"] == 3 * 5600 and report.total["bars_absent"] == 0 and report.retries == 0
    assert report.to_dict()["symbols"][1]["symbol"] == "ETHUSDT"
    assert "16800 new candles" in str(report)


def test_workers_ask_at_the_same_time(lake: Lake) -> None:
    frames = {s: make_candles(900, seed) for seed, s in enumerate(("BTCUSDT", "ETHUSDT", "SOLUSDT"))}
    with FakeExchange(frames) as server:
        server.faults.append(Fault("delay", path="klines", seconds=0.1, times=1000))
        lake.fetch(server.ccxt(), list(frames), "1m", since=START, workers=3)
        assert server.most_busy == 3
        server.most_busy = 0
        Lake(Path(lake.root) / "other").fetch(server.ccxt(), list(frames), "1m", since=START + MINUTE * 600, workers=1)
        assert server.most_busy == 1


def test_range_is_half_open_and_on_the_grid(lake: Lake) -> None:
    frame = make_candles(1000)
    with FakeExchange({"BTCUSDT": frame}) as server:
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START + 100 * MINUTE + 1, until=START + 200 * MINUTE)
    assert_stored(lake, frame.iloc[101:200])


def test_unfinished_candle_is_never_stored(lake: Lake) -> None:
    frame = make_candles(700)
    with FakeExchange({"BTCUSDT": frame}, clock=START + 600 * MINUTE + 59_999) as server:
        stamps, _ = server.books["BTCUSDT"].seen(server.clock, "1m")
        assert stamps[-1] == START + 600 * MINUTE  # the server does show it
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
        assert_stored(lake, frame.iloc[:600])
        server.clock += 1
        report = lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
        assert_stored(lake, frame.iloc[:601])
        assert report.total["rows_revised"] == 0


def test_incremental_asks_only_for_what_is_new(lake: Lake) -> None:
    frame = make_candles(3000)
    with FakeExchange({"BTCUSDT": frame}, clock=START + 2000 * MINUTE) as server:
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
        server.served.clear()
        server.clock = START + 2010 * MINUTE
        report = lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
        assert [(p.rows, p.weight) for p in server.requests("klines")] == [(11, 2)]
        assert (report.total["rows_new"], report.total["rows_same"]) == (10, 1)
    assert_stored(lake, frame.iloc[:2010])


def test_last_candle_stored_too_early_is_revised(lake: Lake) -> None:
    """A server behind its own clock shows an unfinished candle as the last one; the next call mends it."""
    frame = make_candles(600)
    with FakeExchange({"BTCUSDT": frame}, clock=START + 500 * MINUTE) as server:
        server.faults.append(Fault("stale", path="klines", seconds=30, times=100))
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
        server.faults.clear()
        report = lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
        assert report.total["rows_revised"] == 1
    assert_stored(lake, frame.iloc[:500])


def test_gaps_inside_and_before_are_filled(lake: Lake) -> None:
    frame = make_candles(4000)
    kept = frame.iloc[np.r_[700:1000, 1003:2000, 2500:3000]]
    lake.append("BTCUSDT", "1m", kept)
    with FakeExchange({"BTCUSDT": frame}, clock=START + 3000 * MINUTE) as server:
        report = lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
        asked = server.requests("klines")
        assert not any(START + 1010 * MINUTE < int(p.query["startTime"]) < START + 1990 * MINUTE for p in asked)
    assert report.total["rows_new"] == 3000 - len(kept)
    assert_stored(lake, frame.iloc[:3000])


def test_bars_the_exchange_has_not_are_asked_for_twice_and_remembered(lake: Lake) -> None:
    frame = make_candles(4000)
    source = frame.drop(frame.index[np.r_[1000:1100, 1500, 3990]])
    with FakeExchange({"BTCUSDT": source}, clock=START + 4000 * MINUTE) as server:
        report = lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
        assert report.total["bars_absent"] == 102
        old = [(START + 1000 * MINUTE, START + 1100 * MINUTE), (START + 1500 * MINUTE, START + 1501 * MINUTE)]
        assert read_absent(lake, "BTCUSDT", "1m", "binanceusdm") == old
        server.served.clear()
        again = lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
        # The hole of the last day may yet be filled, the others are not asked for any more.
        starts = {int(p.query["startTime"]) for p in server.requests("klines")}
        assert starts == {START + 3990 * MINUTE, START + 3999 * MINUTE}
        assert again.total["bars_absent"] == 1
    assert_stored(lake, source)
    assert lake.verify().faults == ()


def test_late_listing_is_skipped_in_a_few_calls(lake: Lake) -> None:
    frame = make_candles(3000)
    with FakeExchange({"BTCUSDT": frame}) as server:
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since="2020-01-01", funding=False)
        assert len(server.requests("klines")) <= 11
        server.served.clear()
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since="2020-01-01", funding=False)
        assert len(server.requests("klines")) == 1
    assert_stored(lake, frame)


def test_delisted_symbol_costs_two_empty_answers(lake: Lake) -> None:
    frame = make_candles(800)
    with FakeExchange({"BTCUSDT": frame}, clock=START + 60 * DAY) as server:
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START, funding=False)
        server.served.clear()
        report = lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START, funding=False)
        assert len(server.requests("klines")) <= 3 and report.total["rows_new"] == 0
    assert_stored(lake, frame)


def test_five_minute_candles(lake: Lake) -> None:
    frame = make_candles(3000)
    with FakeExchange({"BTCUSDT": frame}, clock=START + 2503 * MINUTE) as server:
        lake.fetch(server.ccxt(), "BTCUSDT", "5m", since=START)
    stored = lake.candles("BTCUSDT", "5m")
    assert len(stored) == 500
    assert stored["close"].iloc[-1] == frame["close"].iloc[2499]


def test_inside_a_running_loop(lake: Lake) -> None:
    """A notebook has a loop of its own."""
    frame = make_candles(100)

    async def cell(server: FakeExchange) -> None:
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)

    with FakeExchange({"BTCUSDT": frame}) as server:
        asyncio.run(cell(server))
        assert_stored(lake, frame)
        with pytest.raises(InputError, match="SOLUSDT"):

            async def bad() -> None:
                lake.fetch(server.ccxt(), "SOLUSDT", "1m", since=START)

            asyncio.run(bad())


def test_exchange_objects_of_either_kind_are_left_alone(lake: Lake) -> None:
    frame = make_candles(100)
    with FakeExchange({"BTCUSDT": frame}) as server:
        given = accxt.binanceusdm({**server.config(), "options": {"mine": 1}})
        before = dict(vars(given))
        lake.fetch(given, "BTCUSDT", "1m", since=START)
        assert vars(given) == before and given.session is None
        own = new_exchange(given)
        assert own.urls == given.urls and own.options["mine"] == 1 and own.enableRateLimit
        assert own.urls is not given.urls
    assert_stored(lake, frame)


def test_other_exchanges_by_unified_candles(lake: Lake) -> None:
    """The road for all but Binance: prices and volume, nothing invented for the rest."""

    class Other(accxt.binanceusdm):
        def describe(self) -> Any:
            return self.deep_extend(super().describe(), {"id": "otherexchange"})

    frame = make_candles(5000)
    source = frame.drop(frame.index[1000:2200])
    with FakeExchange({"BTCUSDT": source}) as server:
        report = lake.fetch(Other(server.config()), "BTC/USDT:USDT", "1m", since="2024-01-01")
        assert report.exchange == "otherexchange" and report.total["rows_new"] == 3800
    stored = lake.candles("BTCUSDT", "1m")
    assert stored[["open", "high", "low", "close", "volume"]].equals(source[["open", "high", "low", "close", "volume"]])
    assert stored[["quote_volume", "trades", "taker_buy_volume"]].isna().all(axis=None)


def test_progress_is_told(lake: Lake) -> None:
    told: list[tuple[str, int, int]] = []
    with FakeExchange({"BTCUSDT": make_candles(6000)}) as server:
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START, workers=1, progress=lambda *step: told.append(step))
    assert [step[1:] for step in told] == [(4990, 6000), (6000, 6000), (6000, 6000)]


def test_proxies_of_the_environment_do_not_catch_loopback(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with FakeExchange({"BTCUSDT": make_candles(50)}) as server:
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
    assert len(lake.candles("BTCUSDT", "1m")) == 50


# ---- misbehaviour ----------------------------------------------------------------------------------

FAULTS = {
    "429": Fault("status", status=429, headers={"Retry-After": "0"}),
    "429 without Retry-After": Fault("status", status=429, times=3),
    "418": Fault("status", status=418, headers={"Retry-After": "0"}),
    "500": Fault("status", status=500, times=2),
    "502": Fault("status", status=502, times=2),
    "503": Fault("status", status=503, times=5),
    "504": Fault("status", status=504),
    "408": Fault("status", status=408),
    "dropped connection": Fault("drop", times=3),
    "cut answer": Fault("cut", times=2),
    "time-out": Fault("delay", seconds=1.0),
    "garbage": Fault("garbage", times=2),
    "short page": Fault("short", rows=3, times=4),
    "empty page": Fault("short", rows=0),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_misbehaviour(lake: Lake, name: str) -> None:
    frame = make_candles(2600)
    fault = FAULTS[name]
    with FakeExchange({"BTCUSDT": frame}) as server:
        at_once, later = (Fault(**{**vars(fault), "path": "klines", "skip": skip}) for skip in (0, 3))
        server.faults += [at_once, later]
        timeout = 300 if fault.kind == "delay" else 10_000  # ms
        report = lake.fetch(server.ccxt(timeout=timeout), "BTCUSDT", "1m", since=START)
        assert (at_once.times, later.times) == (0, 0), "the faults did happen"
    assert_stored(lake, frame)
    assert report.total["bars_absent"] == 0
    # aiohttp itself asks a second time when a kept-alive connection turns out to be closed.
    fewest = 2 if fault.kind == "drop" else 2 * fault.times
    # So short a time-out may strike other requests, too, where the machine is busy.
    most = math.inf if fault.kind == "delay" else 2 * fault.times
    assert report.retries == 0 if "page" in name else fewest <= report.retries <= most


@pytest.mark.parametrize("path", ["exchangeInfo", "time", "fundingRate"])
def test_misbehaviour_of_the_other_endpoints(lake: Lake, path: str) -> None:
    frame = make_candles(200)
    with FakeExchange({"BTCUSDT": frame}) as server:
        server.faults += [Fault("garbage", path=path), Fault("status", status=503, path=path)]
        report = lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
    assert report.retries == 2
    assert_stored(lake, frame)


def test_retry_after_stops_every_worker(lake: Lake) -> None:
    frames = {s: make_candles(1200, seed) for seed, s in enumerate(("BTCUSDT", "ETHUSDT", "SOLUSDT"))}
    with FakeExchange(frames) as server:
        server.faults.append(Fault("status", status=429, headers={"Retry-After": "1"}, path="klines", skip=4))
        lake.fetch(server.ccxt(), list(frames), "1m", since=START, workers=3)
        (told,) = server.requests("klines", status=429)
        later = [s.at - told.at for s in server.served if s.at > told.at]
        # What was on its way already may still arrive; everything else waits.
        assert sum(gap < 0.9 for gap in later) <= 2 and len(later) > 3
    for symbol, frame in frames.items():
        assert_stored(lake, frame, symbol)


def test_retry_after_forms() -> None:
    assert _retry_after(None) is None and _retry_after("nonsense") is None
    assert _retry_after("7") == 7.0
    assert _retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


@pytest.mark.parametrize(
    ("fault", "named", "tries"),
    [
        (Fault("status", status=503, times=10**6), "503", 8),
        (Fault("drop", times=10**6), "Disconnected", 8),
        (Fault("garbage", times=10**6), "no JSON", 8),
        (Fault("status", status=418, headers={"Retry-After": "7200"}, times=10**6), "asks to wait 7200 s", 1),
        (Fault("status", status=451, times=10**6), "451", 1),
        (Fault("status", status=403, times=10**6), "403", 1),
    ],
)
def test_giving_up_keeps_what_is_stored(lake: Lake, fault: Fault, named: str, tries: int) -> None:
    frame = make_candles(7000)
    with FakeExchange({"BTCUSDT": frame}) as server:
        server.faults.append(Fault(**{**vars(fault), "path": "klines", "skip": 15, "times": 10**6}))
        with pytest.raises(ExchangeError) as caught:
            lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START, workers=1)
        text = str(caught.value)
        assert named in text and "binanceusdm" in text and "\n" not in text and len(text) < 400
        assert len(server.served) - len(server.requests("")) == tries * (2 if fault.kind == "drop" else 1)
        kept = len(lake.candles("BTCUSDT", "1m"))
        assert kept == 4990
        server.faults.clear()
        server.served.clear()
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
        assert sum(s.rows for s in server.requests("klines")) < 7000 - kept + 10
    assert_stored(lake, frame)


def test_one_symbol_failing_does_not_hold_up_the_others(lake: Lake) -> None:
    frames = {s: make_candles(600, seed) for seed, s in enumerate(("BTCUSDT", "ETHUSDT"))}
    with FakeExchange(frames) as server:
        server.faults.append(Fault("status", status=400, symbol="BTCUSDT", path="klines", times=10**6))
        report = lake.fetch(server.ccxt(), list(frames), "1m", since=START)
    assert "400" in str(report.symbols[0].error) or "-1001" in str(report.symbols[0].error)
    assert report.symbols[1].error is None and report.total["symbols_failed"] == 1
    assert_stored(lake, frames["ETHUSDT"], "ETHUSDT")


def random_faults(rng: np.random.Generator) -> list[Fault]:
    faults = []
    for _ in range(int(rng.integers(3, 12))):
        kind = rng.choice(["status", "status", "drop", "cut", "short", "garbage", "delay"])
        faults.append(
            Fault(
                kind,
                path=rng.choice(["klines", "klines", "klines", "exchangeInfo", "time"]),
                times=int(rng.integers(1, 2)),
                skip=int(rng.integers(0, 14)),
                status=int(rng.choice([429, 418, 500, 502, 503, 504])),
                seconds=0.01,
                rows=int(rng.integers(1, 6)),
                headers={"Retry-After": "0"} if rng.random() < 0.5 else {},
            )
        )
    return faults


def run_random_faults(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = {s: make_candles(1300, seed + i) for i, s in enumerate(("BTCUSDT", "ETHUSDT"))}
    lake = Lake(tmp_path / f"lake-{seed}")
    with FakeExchange(frames, clock=START + 700 * MINUTE) as server:
        for clock in (700, 1000, 1300):
            server.clock = START + clock * MINUTE + int(rng.integers(0, MINUTE))
            server.faults = random_faults(rng)
            lake.fetch(server.ccxt(), list(frames), "1m", since=START, workers=int(rng.integers(1, 5)))
            for symbol, frame in frames.items():
                assert lake.fingerprint(symbol, "1m") == fingerprint_candles(frame.iloc[:clock]), (seed, clock, symbol)


@pytest.mark.parametrize("seed", range(3))
def test_random_faults_change_nothing(tmp_path: Path, seed: int) -> None:
    run_random_faults(tmp_path, seed)


@pytest.mark.long
def test_many_random_faults_change_nothing(tmp_path: Path) -> None:
    for seed in range(100, 200):
        run_random_faults(tmp_path, seed)


# ---- interruption ----------------------------------------------------------------------------------

CHILD = """
import sys, ccxt
from aione_lab.lake import Lake
url, root, since = sys.argv[1:]
exchange = ccxt.binanceusdm({"urls": {"api": {"fapiPublic": url + "/fapi/v1"}}, "rateLimit": 1})
Lake(root).fetch(exchange, ["BTCUSDT", "ETHUSDT"], "1m", since=int(since), workers=2)
"""


def kill_and_resume(tmp_path: Path, root: Path, kills: tuple[int, ...]) -> None:
    """SIGKILL a downloading process after so many pages, again and again, then let one finish."""
    frames = {s: make_candles(12_000, seed) for seed, s in enumerate(("BTCUSDT", "ETHUSDT"))}
    with FakeExchange(frames) as server:
        arguments = [sys.executable, "-c", CHILD, server.url, str(tmp_path / "lake"), str(START)]
        for pages in kills:
            server.served.clear()
            server.halt_after = pages
            child = subprocess.Popen(arguments, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while server.gate.is_set() and child.poll() is None:
                time.sleep(0.002)
            assert child.poll() is None, "it must be killed in mid-download"
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            server.gate.set()
        lake = Lake(tmp_path / "lake")
        stored = sum(len(lake.candles(s, "1m")) for s in lake.symbols())
        assert 0 < stored < 24_000
        assert lake.verify().faults == ()
        report = lake.fetch(server.ccxt(), list(frames), "1m", since=START)
        assert report.total["rows_new"] == 24_000 - stored
    for symbol, frame in frames.items():
        assert lake.fingerprint(symbol, "1m") == fingerprint_candles(frame)


def test_kill_and_resume(tmp_path: Path, root: Path) -> None:
    kill_and_resume(tmp_path, root, (30,))


@pytest.mark.long
def test_many_kills_and_resume(tmp_path: Path, root: Path) -> None:
    for seed in range(5):
        pages = tuple(int(p) for p in np.random.default_rng(seed).integers(1, 14, 3))
        kill_and_resume(tmp_path / str(seed), root, (25, *pages))


def test_interrupt_keeps_the_batches_that_are_stored(lake: Lake) -> None:
    """Ctrl-C ends the download at once, with what is stored by then."""
    frame = make_candles(20_000)

    def interrupt(what: str, done: int, total: int) -> None:
        if done == 4990:
            signal.raise_signal(signal.SIGINT)

    with FakeExchange({"BTCUSDT": frame}) as server:
        with pytest.raises(KeyboardInterrupt):
            lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START, workers=1, progress=interrupt)
        assert_stored(lake, frame.iloc[:4990])
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
    assert_stored(lake, frame)


def test_a_callback_that_fails_is_heard(lake: Lake) -> None:
    def fail(what: str, done: int, total: int) -> None:
        raise RuntimeError("the callback's own fault")

    with FakeExchange({"BTCUSDT": make_candles(100)}) as server, pytest.raises(RuntimeError, match="own fault"):
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START, progress=fail)


# ---- funding ---------------------------------------------------------------------------------------


def make_funding(n: int, hours: int = 8) -> pd.Series:
    rng = np.random.default_rng(5)
    stamps = START + hours * 3_600_000 * np.arange(n, dtype=np.int64) + rng.integers(0, 9, n)
    index = pd.DatetimeIndex(stamps.view("M8[ms]"), name="timestamp").tz_localize("UTC")
    return pd.Series(np.round(rng.normal(1e-4, 1e-4, n), 8), index=index, name="funding_rate")


@pytest.mark.parametrize("hours", [8, 4, 1])
def test_funding_is_fetched_and_kept_up(lake: Lake, hours: int) -> None:
    rates = make_funding(2500, hours)
    clock = START + 2000 * hours * 3_600_000 + 60_000
    with FakeExchange({"BTCUSDT": make_candles(10)}, {"BTCUSDT": rates}, clock=clock) as server:
        server.faults.append(Fault("short", path="fundingRate", rows=7))
        report = lake.fetch(server.ccxt(), "BTCUSDT", "1d", since=START)
        assert report.total["funding_new"] == 2001
        server.clock = START + 2003 * hours * 3_600_000 + 60_000
        server.served.clear()
        again = lake.fetch(server.ccxt(), "BTCUSDT", "1d", since=START)
        assert again.total["funding_new"] == 3
        assert sum(s.rows for s in server.requests("fundingRate")) == 3
    pd.testing.assert_series_equal(lake.funding("BTCUSDT"), rates.iloc[:2004], check_exact=True, check_freq=False)


def test_funding_gaps_are_filled(lake: Lake) -> None:
    rates = make_funding(100)
    lake.append_funding("BTCUSDT", rates.iloc[np.r_[10:40, 45:80]])
    with FakeExchange({"BTCUSDT": make_candles(10)}, {"BTCUSDT": rates}, clock=START + 40 * DAY) as server:
        lake.fetch(server.ccxt(), "BTCUSDT", "1d", since=START)
        assert sum(s.rows for s in server.requests("fundingRate")) <= 40
    pd.testing.assert_series_equal(lake.funding("BTCUSDT"), rates, check_exact=True, check_freq=False)


def test_funding_can_be_left_out(lake: Lake) -> None:
    with FakeExchange({"BTCUSDT": make_candles(10)}, {"BTCUSDT": make_funding(10)}) as server:
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START, funding=False)
        assert not server.requests("fundingRate")
    assert lake.funding("BTCUSDT").empty


# ---- repair ----------------------------------------------------------------------------------------


def test_repair_fetches_the_gaps_that_the_audit_lists(lake: Lake) -> None:
    frame = make_candles(3000)
    lake.append("BTCUSDT", "1m", frame.drop(frame.index[np.r_[5, 700:1300, 2000:2002, 2998]]))
    assert len(lake.audit("BTCUSDT", "1m").gaps) == 4
    with FakeExchange({"BTCUSDT": frame}) as server:
        report = lake.repair("BTCUSDT", "1m", exchange=server.ccxt())
        assert report.total["rows_new"] == 604
        assert lake.audit("BTCUSDT", "1m").gaps == ()
        server.served.clear()
        assert lake.repair("BTC/USDT:USDT", "1m", exchange=server.ccxt()).requests == 0
        assert not server.served
    assert_stored(lake, frame)


def test_repair_asks_again_for_what_was_absent(lake: Lake) -> None:
    frame = make_candles(4000)
    with FakeExchange({"BTCUSDT": frame.drop(frame.index[500:520])}) as server:
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)
        assert lake.repair("BTCUSDT", "1m", exchange=server.ccxt()).total["bars_absent"] == 20
    with FakeExchange({"BTCUSDT": frame}) as server:
        assert lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START).total["rows_new"] == 0
        assert lake.repair("BTCUSDT", "1m", exchange=server.ccxt()).total["rows_new"] == 20
    assert_stored(lake, frame)


# ---- bad input -------------------------------------------------------------------------------------


def test_bad_input_gets_one_line(lake: Lake) -> None:
    with FakeExchange({"BTCUSDT": make_candles(10)}) as server:
        good: dict[str, Any] = dict(exchange=server.ccxt(), symbols=["BTCUSDT"], interval="1m", since=START)
        cases: list[tuple[dict[str, Any], type[Exception], str]] = [
            (dict(exchange="binanceusd"), InputError, "did you mean 'binanceusdm'"),
            (dict(exchange="nothing like it"), InputError, "exchange='nothing like it'"),
            (dict(exchange=7), InputError, "exchange=7"),
            (dict(symbols=["BTCUSD"]), InputError, "did you mean 'BTCUSDT'"),
            (dict(symbols=["../../x"]), InputError, "symbols='../../x'"),
            (dict(symbols=[]), InputError, "at least one"),
            (dict(interval="7m"), InputError, "interval='7m'"),
            (dict(since="2031-01-01"), InputError, "in the future"),
            (dict(since="yesterday"), InputError, "since='yesterday'"),
            (dict(since="2025-05-05", until="2025-05-04"), InputError, "until='2025-05-04'"),
            (dict(workers=0), InputError, "workers=0"),
        ]
        for change, kind, named in cases:
            with pytest.raises(kind) as caught:
                lake.fetch(**{**good, **change})
            assert named in str(caught.value) and "\n" not in str(caught.value), change
    assert lake.symbols() == []


def test_unreachable_exchange_is_one_line(lake: Lake) -> None:
    nowhere = ccxt.binanceusdm({"urls": {"api": {"fapiPublic": "http://127.0.0.1:9/fapi/v1"}}, "rateLimit": 1})
    with pytest.raises(ExchangeError) as caught:
        lake.fetch(nowhere, "BTCUSDT", "1m", since=START)
    assert "binanceusdm" in str(caught.value) and "127.0.0.1:9" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_memory_of_absent_bars_is_named(lake: Lake) -> None:
    lake.append("BTCUSDT", "1m", make_candles(10))
    path = Path(lake.root) / "candles/interval=1m/symbol=BTCUSDT/_absent.json"
    path.write_text("{")
    with FakeExchange({"BTCUSDT": make_candles(20)}) as server, pytest.raises(LakeCorruption, match="_absent.json"):
        lake.fetch(server.ccxt(), "BTCUSDT", "1m", since=START)


# ---- ranges ----------------------------------------------------------------------------------------


def test_ranges_agree_with_sets() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        end = int(rng.integers(1, 40))
        have = np.flatnonzero(rng.random(60) < 0.6)
        holes = missing(have, 1, 5, 5 + end)
        assert {t for a, b in holes for t in range(a, b)} == set(range(5, 5 + end)) - set(have.tolist())
        spans = [tuple(sorted(map(int, rng.integers(0, 60, 2)))) for _ in range(4)]
        joined = union(spans)
        assert {t for a, b in joined for t in range(a, b)} == {t for a, b in spans for t in range(a, b)}
        rest = without(holes, joined)
        assert {t for a, b in rest for t in range(a, b)} == {
            t for a, b in holes for t in range(a, b) if not any(x <= t < y for x, y in spans)
        }
    assert lake_exchange.PAGES_PER_BATCH * 499 == 4990  # what the tests above count on
