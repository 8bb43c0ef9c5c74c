"""What a session is given that is odd: sets it cannot use, a reference that comes last, a stop before the start."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_runs import DAY_MS, MINUTE_MS, NAMES, REFERENCE, START, Recorder, check, filled, market, replayed, unpaid

from aione_lab.backtest.stages import Stage2Processor
from aione_lab.cache import SimpleCacheHandler
from aione_lab.errors import AioneError, ExchangeError, InputError
from aione_lab.lake.store import Lake
from aione_lab.live import session as sessions
from aione_lab.live.asset_follower import follow_assets
from aione_lab.live.asset_state import after_bar, changed_asset, plain
from aione_lab.live.assets import AssetStateManager
from aione_lab.live.feed import Candle
from aione_lab.live.gate import KEPT_MS, Gate
from aione_lab.live.journal import Journal
from aione_lab.live.limits import Limits
from aione_lab.live.opening import open_session
from aione_lab.live.replay_feed import ReplayFeed
from aione_lab.live.session import Session
from aione_lab.settings import ReadOnly, Settings
from aione_lab.thresholds import Thresholds, ThresholdStore
from aione_lab.units import iso

BARS = 200
FROM = START + 2 * DAY_MS


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return filled(tmp_path_factory.mktemp("odd"))


def feed(lake: Lake, bars: int = BARS, **more: Any) -> ReplayFeed:
    return ReplayFeed(lake, NAMES, start=FROM, end=FROM + bars * MINUTE_MS, **more)


class Late(ReplayFeed):
    """Tells all candles of a symbol before the next symbol's, the reference's last of all."""

    async def stream(self, after: Any) -> Any:
        candles = [candle async for candle in super().stream(after)]
        for candle in sorted(candles, key=lambda one: (one.symbol == REFERENCE, one.symbol, one.timestamp)):
            yield candle


def test_a_reference_that_comes_behind_very_many_candles_is_waited_for(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST_WAITING", 50)
    session = Session(Late(lake, NAMES, start=FROM, end=FROM + BARS * MINUTE_MS), lake, reference=REFERENCE)
    recorder = Recorder(session)
    asyncio.run(asyncio.wait_for(session.run(), 15))
    assert session.gate.without_reference == 0
    for name in NAMES:
        candles = market()[name][0][: 2 * 1440 + BARS]
        check([recorder], name, replayed(name, candles, market()[REFERENCE][0]), FROM)


class Unpaid(ReplayFeed):
    """Fails with ``failures``, one a question, where it is asked for the rates of the bars that are replayed."""

    failures: list[Exception]
    asked = 0

    async def funding(self, symbol: str, start: int, end: int) -> Any:
        if self.now_ms() > FROM and symbol == "SOLUSDT":
            self.asked += 1
            if self.failures:
                raise self.failures.pop()
        return await super().funding(symbol, start, end)


@pytest.mark.parametrize("speed", [math.inf, 1200.0])
def test_a_mistake_of_a_feed_at_a_funding_rate_ends_the_session_with_it(
    lake: Lake, tmp_path: Path, speed: float
) -> None:
    """At once, while candles come and where none come any more; a restart decides what waited for the rate."""
    feed = Unpaid(lake, NAMES, start=FROM, end=FROM + 500 * MINUTE_MS, speed=speed)
    feed.failures = [ConnectionResetError("the other side hung up")]
    session = Session(feed, lake, journal=tmp_path)
    with pytest.raises(ConnectionResetError, match="hung up"):
        asyncio.run(asyncio.wait_for(session.run(), 15))
    assert feed.asked == 1 and session.status()["failure"] == "the other side hung up"
    second = Session(ReplayFeed(lake, NAMES, start=FROM, end=FROM + 500 * MINUTE_MS), lake, journal=tmp_path)
    asyncio.run(second.run())
    frame = second.journal.read("bar")
    for name in NAMES:
        times = frame.loc[frame["symbol"] == name, "timestamp"].tolist()
        assert times == list(range(FROM, FROM + 500 * MINUTE_MS, MINUTE_MS))


def test_a_funding_rate_is_asked_for_again_while_the_feed_does_not_answer(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aione_lab.live.funding_book.PAUSES_S", (0.01, 0.01))
    for failures, unknown in ((2, 0), (3, 1)):
        feed = Unpaid(lake, NAMES, start=FROM, end=FROM + 10 * MINUTE_MS)
        feed.failures = [ExchangeError("no answer")] * failures
        session = Session(feed, lake)
        asyncio.run(asyncio.wait_for(session.run(), 15))
        assert session.counts["bars"] == 30 and session.funding.unknown == unknown and feed.asked == 3


def test_closes_are_let_go_of_although_a_symbol_is_silent() -> None:
    class NoRates:
        def rate(self, symbol: str, bar: int) -> float:
            return math.nan

    gate = Gate(("BTCUSDT", "SILENTUSDT"), "BTCUSDT", NoRates())  # type: ignore[arg-type]
    step = KEPT_MS // 100
    for bar in range(step, 300 * step, step):
        gate.put(Candle("BTCUSDT", bar, *[1.0] * 8), 0.0)
        assert len(gate.take(0.0)) == 1
        gate.forget([bar, 0])
    assert len(gate.closes) <= 101


@pytest.mark.parametrize("why", ["another reference", "a damaged snapshot", "no symbol in common"])
def test_a_journal_of_sessions_with_other_symbols_is_gone_on_with(lake: Lake, tmp_path: Path, why: str) -> None:
    """Without its snapshot: each of its files has symbols of its own, in an order of its own.

    No bar comes twice, but for what another reference makes of it: that is another decision.
    """
    journal = tmp_path / "journal"

    def run(names: tuple[str, ...], bars: int, reference: str | None = REFERENCE) -> None:
        replay = ReplayFeed(lake, names, start=FROM, end=FROM + bars * MINUTE_MS)
        asyncio.run(Session(replay, lake, journal=journal, reference=reference).run())

    run(("BTCUSDT", "SOLUSDT"), 5)
    run(("SOLUSDT", "BTCUSDT"), 10)
    if why == "a damaged snapshot":
        (journal / "snapshot.bin").write_bytes(b"no snapshot")
    names = ("LINKUSDT",) if why == "no symbol in common" else ("SOLUSDT", "BTCUSDT")
    run(names, 15, None if why == "another reference" else REFERENCE)
    bars = Journal(journal).read("bar")
    counts = bars.groupby(["symbol", "timestamp"], observed=True).size().to_numpy()
    assert counts.tolist() == ([2] * 10 + [1] * 5) * 2 if why == "another reference" else counts.max() == 1
    assert set(bars["symbol"]) == {"BTCUSDT", "SOLUSDT", *names}
    assert bars.groupby("symbol")["timestamp"].max()[list(names)].eq(FROM + 14 * MINUTE_MS).all()


def test_a_restart_that_cannot_read_the_journal_takes_nothing_over(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the half of it either: counts and alerts of a snapshot whose rows are unreadable would be told as its own."""
    first = Session(feed(lake), lake, journal=tmp_path / "journal")
    asyncio.run(first.run())
    assert first.counts["bars"] and first.counts["alerts"] and first.alerts_seen
    table = Journal.table

    def unreadable(journal: Journal, after: int = -1, *rest: Any, **more: Any) -> Any:
        if after >= 0:
            raise AioneError("rows are damaged")
        return table(journal, after, *rest, **more)

    monkeypatch.setattr(Journal, "table", unreadable)
    second = Session(feed(lake), lake, journal=tmp_path / "journal")

    async def run() -> None:
        await open_session(second)

    with second.journal.hold():  # type: ignore[union-attr]
        asyncio.run(run())
    assert set(second.counts.values()) == {0} and not second.alerts_seen and not second.calibrations.asked


def test_trades_are_told_and_counted_one_by_one_live_and_after_restarts(lake: Lake, tmp_path: Path) -> None:
    """Those of the replay. A restart goes on from a snapshot, one after a kill from the rows behind an older one."""
    whole = Session(feed(lake, 1440), lake)
    asyncio.run(whole.run())
    expected, net, times = 0, 0.0, []
    for name in NAMES:
        records = replayed(name, market()[name][0], market()[REFERENCE][0]).trade_records
        records = records[records["exit_time"] >= FROM]
        expected, net = expected + len(records), net + records["pnl"].sum()
        times += [(name, iso(int(time))) for time in records["exit_time"]]
        pnl = [trade["pnl"] for trade in whole.last_trades(name, 1000)]
        assert pnl == records["pnl"].tolist()[::-1]
    assert whole.counts["trades"] == expected > 3 and whole.net_pnl == pytest.approx(net)
    assert sorted((trade["symbol"], trade["exit_time"]) for trade in whole.last_trades(n=1000)) == sorted(times)
    snapshot = tmp_path / "snapshot.bin"
    for bars in (600, 1000, 1440):
        part = Session(feed(lake, bars), lake, journal=tmp_path)
        asyncio.run(part.run())
        if bars == 600:
            older = snapshot.read_bytes()
        if bars == 1000:
            snapshot.write_bytes(older)  # as after a kill: the rows behind it say the rest
    assert part.counts["trades"] == expected and part.net_pnl == pytest.approx(net)


def test_a_promoted_set_that_cannot_be_used_changes_nothing(lake: Lake, tmp_path: Path) -> None:
    """Sets with triggers of one's own belong to another spec: the session goes on and says so."""
    session = Session(feed(lake), lake)
    odd = Thresholds(custom={"LOUD": 2.0})
    with pytest.raises(InputError, match="LOUD"):
        session.set_thresholds("SOLUSDT", odd)
    with pytest.raises(InputError, match="LOUD"):
        Session(feed(lake), lake, thresholds=odd)

    class Store(ThresholdStore):
        def current(self, symbol: str, **more: Any) -> Any:
            found = super().current(symbol, **more)
            return dataclasses.replace(found, thresholds=odd) if symbol == "SOLUSDT" else found

    limits = Limits(Store(tmp_path), NAMES, "1m", session.fleet.engines[0].spec)
    assert set(limits.read()) == set(NAMES) - {"SOLUSDT"} and "LOUD" in limits.problems["SOLUSDT"]
    assert set(limits.read_all()) == set(NAMES)


@pytest.mark.parametrize("meta", [{"n": 2**70}, {"text": "x" * 30_000}], ids=["number", "text"])
def test_a_meta_beyond_json_is_refused_at_once(lake: Lake, meta: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="thresholds.meta"):
        Session(feed(lake), lake).set_thresholds("SOLUSDT", Thresholds(meta=meta))


def test_a_second_look_under_a_set_with_half_a_letter_is_published(tmp_path: Path, lake: Lake) -> None:
    """What a set's meta holds is told as it can be, by the first look and by the second."""
    strange = Thresholds(min_reasons_for_alert=1, meta={"note": "a\ud800b"})

    async def life() -> Session:
        async with SimpleCacheHandler.embedded(tmp_path / "cache.sqlite") as cache:
            session = Session(feed(lake), lake, cache=cache, thresholds=strange)
            tell = session.closing._tell

            def twice(stage2: Any, *args: Any, second_look: bool = False, **more: Any) -> None:
                tell(stage2, *args, second_look=second_look, **more)
                if not second_look:
                    stage1 = session.assets.get(stage2["symbol"])
                    session.closing.look_again(stage2["symbol"], {**stage1, "signal": "ALERT"}, strange)

            session.closing._tell = twice
            await session.run()
            assert (await cache.get_json("asset_state"))["alive"] is False
        return session

    session = asyncio.run(life())
    assert session.counts["second_looks"] > 0 and session.assets.status["failures"] == 0
    looked = session.last_alerts(n=1)[0]
    assert looked["second_look"] and looked["calibration_params"]["meta"] == {"note": "a?b"}


def test_a_copy_with_other_numbers_is_another_set() -> None:
    first = Thresholds(tp_mult=3.0)
    digest = first.digest()
    other = first.model_copy(update={"tp_mult": 5.0})
    assert other != first and other == Thresholds(tp_mult=5.0) and first.digest() == digest
    assert first.model_copy(deep=True) == first


def test_a_stop_right_after_the_start_stops(lake: Lake) -> None:
    async def run() -> None:
        session = Session(feed(lake), lake)
        task = session.start()
        await session.stop()
        assert task.done() and session.status()["state"] == "stopped" and session.counts["bars"] == 0

    asyncio.run(run())


def test_odd_keys_and_deep_values_are_published_like_any(tmp_path: Path) -> None:
    deep: Any = 1.0
    for _ in range(11):
        deep = {"a": deep}

    async def run() -> None:
        async with SimpleCacheHandler.embedded(tmp_path / "cache.sqlite") as cache:
            manager = AssetStateManager(["BTCUSDT", "ETHUSDT"], cache, period_s=np.float64(5.0))
            manager.update_asset(np.str_("BTCUSDT"), {"stats": dict(zip(np.array(["rsi"]), [5.0], strict=True))})
            manager.update_asset("ETHUSDT", {"stage2": {"a\ud800": "b\ud800", "deep": deep}})
            async with manager:
                async for update in follow_assets(cache):
                    if len(update.assets) == 2:
                        break
            assert manager.degraded == ""
            assert update.assets["BTCUSDT"]["stats"] == {"rsi": 5.0}
            assert update.assets["ETHUSDT"]["stage2"] == {"a?": "b?", "deep": deep}

    asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize(
    "limits",
    [
        Thresholds(),
        Thresholds(low_gate="0.6x"),
        Thresholds(high_gate=0.0003),
        Thresholds(meta={"source": "calibrated"}),
    ],
    ids=["default", "multiple", "crossing", "calibrated"],
)
def test_stage2_is_the_processors_whatever_the_set(lake: Lake, limits: Thresholds) -> None:
    session = Session(feed(lake, 900), lake, thresholds=limits)
    recorder = Recorder(session)
    given: deque[Any] = deque()
    stage2 = session.decisions.stage2
    session.decisions.stage2 = lambda name, stage1: (given.append(stage1), stage2(name, stage1))[1]
    asyncio.run(session.run())
    processor = Stage2Processor()
    assert len(given) == len(recorder.stage2) > 0
    for stage1, found in zip(given, recorder.stage2, strict=True):
        again, found = asyncio.run(processor.process(json.loads(json.dumps(stage1)))), json.loads(json.dumps(found))
        for answer in (again, found):
            answer["quality_metrics"].pop("processing_time_ms")
            answer["quality_metrics"].pop("default_calibration_count")
        assert again == found


def test_what_a_bar_gives_an_asset_is_what_its_checks_would_make_of_it(lake: Lake) -> None:
    """Quiet bars go past the checks of ``update_asset``, Stage2 past those of ``plain``: nothing differs, no type."""
    session = unpaid(Session(feed(lake), lake))
    taken: list[tuple[Any, Any]] = []
    update, tell = session.assets.update_bars, session.closing._tell
    stage2s: list[Any] = []

    def watched(fields: Any) -> None:
        taken.extend((session.assets.get(name), updates) for name, updates in fields.items())
        update(fields)

    def told(stage2: Any, *args: Any, **more: Any) -> None:
        stage2s.append(stage2)
        tell(stage2, *args, **more)

    session.assets.update_bars, session.closing._tell = watched, told
    asyncio.run(session.run())
    assert len(taken) > BARS and stage2s
    for asset, updates in taken:
        assert shape(after_bar(asset, updates)) == shape(changed_asset(asset, updates))
    for stage2 in stage2s:
        assert shape(stage2) == shape(plain("stage2", json.loads(json.dumps(stage2))))


def test_target_and_stop_of_an_asset_are_those_of_its_open_trade(lake: Lake) -> None:
    easy = Thresholds(min_confidence=0.3, min_reasons_for_alert=1)
    settings = Settings(target_shares=(0.5, 0.3), min_risk_reward=0.1)
    session = unpaid(Session(feed(lake, 900), lake, thresholds=easy, settings=settings))
    positions = session.fleet.states["stages"]["position"]
    update, seen = session.assets.update_bars, []

    def watched(fields: Any) -> None:
        update(fields)
        for name in fields:
            look(session.assets.get(name), positions[session.fleet.places[name]])

    def look(asset: Any, position: Any) -> None:
        if not position["side"]:
            assert asset["tp"] is asset["sl"] is None
            return
        ahead = range(int(position["next"]), len(position["targets"]))
        waiting = [float(position["targets"][i]) for i in ahead if position["parts"][i] > 0]
        assert asset["tp"] == (waiting[0] if waiting else None) and asset["sl"] == position["stop"]
        assert asset["sl"] < asset["stats"]["current_price"] < (asset["tp"] or math.inf)  # long, and still open
        seen.append(asset["tp"])

    session.assets.update_bars = watched
    asyncio.run(session.run())
    assert len(set(seen)) > 3


def shape(value: Any) -> Any:
    """A value with the type of everything in it; a subclass of ReadOnly counts as ReadOnly."""
    if isinstance(value, dict):
        return ReadOnly if isinstance(value, ReadOnly) else dict, {key: shape(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value), [shape(part) for part in value]
    return type(value), value
