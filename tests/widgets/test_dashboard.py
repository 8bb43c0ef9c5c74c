"""The dashboard without a browser: what it sends, that it stays the same size, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd
import pytest
from played import PlayedSession

from aione_lab import Dashboard, Lake, SimpleCacheHandler
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import AioneError, InputError
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.live import AssetStateManager, ReplayFeed, Session
from aione_lab.live.asset_follower import ENDED, NOBODY, AssetUpdate, _parsed
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, interval_ms, to_ms
from aione_lab.widgets import dashboard as module
from aione_lab.widgets.detail import content_of
from aione_lab.widgets.sources import CacheSource, Rules, rules_of

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def played() -> PlayedSession:
    return PlayedSession(("BTCUSDT", "SOLUSDT"))


@pytest.fixture
def session(played: PlayedSession) -> Iterator[PlayedSession]:
    fresh = object.__new__(PlayedSession)
    fresh.__dict__ = {**played.__dict__, "asked": [], "alerts": []}
    fresh.assets = type(played.assets)(played.symbols)
    yield fresh


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PERIOD_S", "REDRAW_S", "TICK_S"):
        monkeypatch.setattr(module, name, 0.01)


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


def test_it_follows_a_session_and_draws_what_is_selected(session: PlayedSession) -> None:
    async def run() -> None:
        widgets = set(ipywidgets.Widget._instances) if hasattr(ipywidgets.Widget, "_instances") else set()
        for _ in range(300):
            session.step()
        board = Dashboard(session)
        await until(lambda: board._table.symbols)
        assert board._table.symbols == session.symbols and "2 symbols" in board._table.status
        bar = session.assets.get("SOLUSDT")["timestamp"]  # both have the same
        assert f"newest bar {bar[:10]} {bar[11:16]} UTC" in board._table.status
        assert not board._price.figure and board._place.children == (board._detail,)
        board._table.selected = "SOLUSDT"
        await until(lambda: board._price.figure)
        price, factors = json.loads(board._price.figure), json.loads(board._factors.figure)
        assert price["layout"]["title"]["text"] == "SOLUSDT" and len(price["data"][0]["x"]) == 240
        stage2 = session.assets.get("SOLUSDT")["stage2"]
        (waterfall,) = factors["data"]
        kinds, values = waterfall["measure"], waterfall["y"]
        metrics = stage2["confidence_metrics"]
        steps = [value for kind, value in zip(kinds, values, strict=True) if kind == "relative"]
        assert sum(steps) == pytest.approx(metrics["confidence"], abs=1e-12) and values[-1] == metrics["confidence"]
        assert board._detail.content["narrative"] == dict(stage2["narrative"])
        drawn = board._price.figure
        before = session.bar
        session.step()
        await until(lambda: board._price.figure != drawn)
        newest = json.loads(board._price.figure)["data"][0]["x"][-1]
        assert newest.startswith(f"{session.candles('SOLUSDT').index[-1]:%Y-%m-%dT%H:%M}") and session.bar == before + 1
        board._table.dark = True
        await until(lambda: "#56b4e9" in board._price.figure)
        await board.aclose()
        assert not others() and not session.assets._inboxes
        if widgets:
            assert set(ipywidgets.Widget._instances) == widgets

    asyncio.run(run())


def test_a_calibration_is_asked_for_from_another_thread(session: PlayedSession) -> None:
    async def run() -> None:
        session.step()
        board = Dashboard(session)
        await until(lambda: board._table.symbols)
        press = threading.Thread(target=board._detail._heard, args=(None, {"kind": "calibrate"}, []))
        press.start()  # nothing is selected: nothing is asked
        press.join()
        board._table.selected = "BTCUSDT"
        await until(lambda: board._detail.content)
        press = threading.Thread(target=board._detail._heard, args=(None, {"kind": "calibrate"}, []))
        press.start()
        await until(lambda: board._detail.answer == "queued urgent")
        press.join()
        assert session.asked == ["BTCUSDT"]
        await until(lambda: "queued_urgent" in board._table._cells["BTCUSDT"].texts)
        await board.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("number", [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_many_updates_leave_nothing_behind(
    number: int, session: PlayedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As much memory, as many objects, as small messages as before."""
    for name, seconds in {"PERIOD_S": 0.0, "TOGETHER_S": 0.0, "REDRAW_S": 1.0, "TICK_S": 1.0}.items():
        monkeypatch.setattr(module, name, seconds)
    sizes: list[int] = []

    async def run() -> None:
        for _ in range(300):
            session.step()
        board = Dashboard(session)
        send = board._table.send
        monkeypatch.setattr(
            board._table,
            "send",
            lambda content, buffers: (sizes.append(sum(map(len, buffers)) + len(str(content))), send(content, buffers)),
        )
        await until(lambda: board._table.symbols)
        board._table.selected = "BTCUSDT"
        await until(lambda: board._price.figure)
        last = {name: session.assets.get("SOLUSDT")["stats"][name] for name in ("atr", "volume", "daily_high")}

        async def updates(number: int) -> tuple[int, int]:
            for i in range(number):
                stats = {**last, "current_price": 100.0 + i % 7, "rsi": 50.0 + i % 11}
                for symbol in session.symbols:
                    session.assets.update_asset(symbol, {"stats": stats, "confidence": (i % 5) / 10})
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            gc.collect()
            return tracemalloc.get_traced_memory()[0], len(gc.get_objects())

        tracemalloc.start()
        try:
            await updates(1_000)
            memory, objects = await updates(500)
            sizes.clear()
            after, later = await updates(number)
        finally:
            tracemalloc.stop()
        assert after - memory < 2_000_000 and later - objects < 2_000, (memory, after, objects, later)
        assert len(sizes) > 1_000 and max(sizes) < 2_000
        assert len(board._price.figure) < 100_000
        await board.aclose()

    asyncio.run(run())


def test_it_needs_one_source_and_a_loop(session: PlayedSession, tmp_path: Path) -> None:
    with pytest.raises(AioneError, match="running event loop"):
        Dashboard(session)

    async def run() -> None:
        cache = SimpleCacheHandler.embedded(tmp_path / "cache.sqlite")
        for wrong, says in (
            ({}, "session=None: must be given"),
            ({"session": session, "redis": cache}, "one of the two"),
            ({"session": 5}, "session=5: must be a Session"),
            ({"session": session, "lake": "somewhere"}, "lake='somewhere': must be left out"),
            ({"session": session, "interval": "5m"}, "interval='5m': must be left out"),
            ({"redis": 5}, "redis=5: must be the URL"),
            ({"redis": cache, "lake": 5}, "lake=5: must be a Lake"),
            ({"redis": cache, "interval": "7m"}, "interval='7m'"),
        ):
            with pytest.raises(InputError, match="^[^\n]*$") as caught:
                Dashboard(**wrong)
            assert says in str(caught.value)
        await cache.aclose()
        assert not others()

    asyncio.run(run())


def test_another_process_is_followed_through_the_cache(played: PlayedSession, tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "cache.sqlite"
        lake = Lake(tmp_path / "lake")
        candles = played.results["SOLUSDT"].candles
        lake.append("SOLUSDT", "1m", candles)
        board = Dashboard(redis=f"sqlite:///{path}", lake=lake.root)
        await until(lambda: board._table.problem)
        assert board._table.problem == NOBODY
        async with SimpleCacheHandler.embedded(path) as cache:
            session = object.__new__(PlayedSession)
            session.__dict__ = {**played.__dict__, "alerts": []}
            session.assets = type(played.assets)(played.symbols, cache)
            async with session.assets, cache.subscribe("calibration_request") as requests:
                for _ in range(300):
                    session.step()
                await until(lambda: board._table.symbols)
                board._table.selected = "SOLUSDT"
                await until(lambda: board._price.figure)
                figure = json.loads(board._price.figure)
                assert figure["layout"]["title"]["text"] == "SOLUSDT · replayed from the lake, default settings"
                assert len(figure["data"][0]["x"]) == 240
                await until(lambda: len(board._detail.content["alerts"]) > 1)  # they came on the channel
                board._detail._heard(None, {"kind": "calibrate"}, [])
                message = await asyncio.wait_for(anext(requests), 10)
                assert message.value == {"symbol": "SOLUSDT", "interval": "1m"}
                board._table.selected = "BTCUSDT"  # the lake has no candles of it
                await until(lambda: "BTCUSDT: the lake has no 1m candles" in board._price.figure)
            await until(lambda: board._table.problem == ENDED)
        await board.aclose()
        assert not others()

    asyncio.run(run())


@pytest.mark.parametrize("interval", ["1m", "5m"])
def test_another_process_sees_what_the_session_decided(interval: str, tmp_path: Path) -> None:
    """With settings, costs and an interval that nobody told the dashboard, and with the reference."""
    names, before = ("BTCUSDT", "SOLUSDT"), {"1m": 2, "5m": 6}[interval]
    exchange, lake = SimulatedExchange(), Lake(tmp_path / "lake")
    first = to_ms("2025-01-01") + before * DAY_MS
    for name in names:
        lake.append(name, interval, exchange.candles(name, interval, "2025-01-01", before))
        lake.append_funding(name, exchange.funding(name, "2025-01-01", before))

    async def run() -> None:
        feed = ReplayFeed(exchange, names, interval, start=first, end=first + 400 * interval_ms(interval))
        async with SimpleCacheHandler.embedded(tmp_path / "cache.sqlite") as cache:
            rules = Settings(min_volume_usd=0.0, exclude_hours=(3, 4), cooldown_period=900)
            sets = {"SOLUSDT": Thresholds(min_reasons_for_alert=1, vol_z_threshold=1.5)}  # by hand, not calibrated
            session = Session(feed, lake, thresholds=sets, settings=rules, costs=Costs(fee=0.001), cache=cache)
            await session.run()
            board = Dashboard(redis=cache, lake=lake)
            await until(lambda: board._table.symbols)
            assert board._table.stale_after == 1.5 * interval_ms(interval) / 1000
            for name in names:
                shown = await board._source.bars(name, session.assets.get(name))
                kept = session.rows(name).tail(240)
                assert shown.note == "replayed from the lake" and len(kept) == 240
                assert (kept["signal"] == "ALERT").any()
                pd.testing.assert_frame_equal(shown.rows, kept[list(shown.rows.columns)], check_freq=False)
            await board.aclose()

    asyncio.run(run())


def test_what_a_session_tells_of_itself_may_be_anything() -> None:
    good: dict[str, Any] = {"interval": "15m", "reference": None, "spec": {}, "settings": {}, "costs": {}}
    bad = {"interval": "7m", "reference": HOSTILE, "spec": {HOSTILE: 1}, "settings": {"fee": HOSTILE}, "costs": 5}
    assert rules_of(good) == Rules("15m", None, FeatureSpec(), Settings(), Costs(), "replayed from the lake")
    for name, value in bad.items():
        assert rules_of({**good, name: value}) is None
        assert rules_of({key: it for key, it in good.items() if key != name}) is None


@pytest.mark.parametrize(
    "about", ["x", 5, [1], {"x": "y" * 30_000}, None], ids=["text", "number", "list", "huge", "no"]
)
def test_states_can_be_read_whatever_stands_beside_them(about: Any) -> None:
    head = {"session": "s", "seq": 1, "period_s": 5, "alive": True}
    state = _parsed({**head, "assets": {"BTCUSDT": {}}, "about": about})
    assert state is not None and state.about == {} and list(state.assets) == ["BTCUSDT"]


def test_a_session_that_tells_nothing_does_not_inherit_what_another_one_told(tmp_path: Path) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.embedded(tmp_path / "cache.sqlite") as cache:
            source = CacheSource(cache, None, "5m", own=False)
            updates = source.follow()
            told = {"interval": "15m", "reference": None, "spec": {}, "settings": {}, "costs": {}}
            for about, interval in ((told, "15m"), ({"interval": [1]}, "5m"), (told, "15m"), (None, "5m")):
                async with AssetStateManager(["BTCUSDT"], cache) as manager:
                    if about is not None:
                        manager.describe(about)
                    async with asyncio.timeout(20):
                        while not (update := await anext(updates)).whole or "BTCUSDT" not in update.assets:
                            pass
                assert source.interval == interval
            await updates.aclose()

    asyncio.run(run())


def test_a_selected_symbol_that_is_not_followed_any_more(session: PlayedSession) -> None:
    async def run() -> None:
        session.step()
        board = Dashboard(session)
        await until(lambda: board._table.symbols)
        board._table.selected = "SOLUSDT"
        await until(lambda: board._price.figure)
        board._take(AssetUpdate(True, {}, "the session has been silent"))  # it may come back as it was
        await until(lambda: not board._assets)
        assert board._table.selected == "SOLUSDT"
        board._take(AssetUpdate(True, {"BTCUSDT": session.assets.get("BTCUSDT")}))
        await until(lambda: not board._table.selected)
        await asyncio.sleep(0.2)  # what was being drawn does not come after it
        assert board._detail.content == {"gone": "SOLUSDT is not followed any more."}
        assert board._place.children == (board._detail,)
        board._table.selected = "BTCUSDT"
        await until(lambda: board._detail.content.get("symbol") == "BTCUSDT" and len(board._place.children) == 2)
        await board.aclose()

    asyncio.run(run())


def test_hostile_states_are_shown_as_text(session: PlayedSession) -> None:
    asset = {
        "signal": HOSTILE,
        "trigger_reasons": (HOSTILE,),
        "long_narrative": HOSTILE,
        "calib_status": HOSTILE,
        "stats": {"current_price": HOSTILE, "daily_high": [1]},
        "stage2": {
            "narrative": {"en": HOSTILE, "uk": 5},
            "confidence_metrics": {"factors": {HOSTILE: {"contribution": 0.5, "strength": 1}}, "reading": HOSTILE},
            "risk_parameters": {"tp_targets": [HOSTILE, 1.0], "optimal_entry": [HOSTILE, None], "sl_level": {}},
            "market_context": {"key_levels": {"immediate_support": HOSTILE}, "scenario": HOSTILE},
            "trigger_reasons": [HOSTILE],
        },
    }
    content = content_of("A", asset, [{"recommendation": HOSTILE}, {}])
    assert content["narrative"] == {"en": HOSTILE, "uk": "5"} and content["alerts"][0]["said"] == HOSTILE
    from aione_lab.widgets.charts import factor_figure, price_figure
    from aione_lab.widgets.sources import NO_CANDLES, Bars

    figures = price_figure(HOSTILE, Bars(NO_CANDLES, None, HOSTILE), asset, "dark"), factor_figure(asset, "light")
    figures[0].layout.uirevision = None  # compared, never shown
    assert all("<img" not in figure.to_json().replace("\\u003c", "<") for figure in figures)
    for broken in ({}, {"stage2": 5}, {"stage2": {"confidence_metrics": {"factors": 5}}}):
        factor_figure(broken, "light")
        content_of("A", broken, [])
