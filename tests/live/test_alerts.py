"""Alerts on their way: the message, the sinks against doubles on loopback, the queue, and no secret anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import waiting
from hypothesis import given
from hypothesis import strategies as st

from aione_lab.backtest.decode import empty_stage2
from aione_lab.cache import SimpleCacheHandler
from aione_lab.environment import Environment
from aione_lab.errors import AlertError, InputError
from aione_lab.live import Alert, AlertQueue, AlertSettings, CallbackSink, TelegramSink, WebhookSink
from aione_lab.live.alert_text import telegram_html
from aione_lab.live.alerts import REMEMBERED
from aione_lab.live.outgoing import Outgoing

sys.path.append(str(Path(__file__).resolve().parent))

from http_double import HttpDouble  # noqa: E402

TOKEN = "123456:canary-t0ken_abc"
SECRET_PATH = "services/canary-hook/XYZ"
NOON = 1_746_878_400_000
OK = (200, {"ok": True, "result": {}})
SOON = 8.0

STAGE2 = {
    **empty_stage2("SOLUSDT"),
    "timestamp": "2025-05-10T12:00:00+00:00", "signal": "ALERT", "trigger_reasons": ["VOLUME_SPIKE", "RSI_OVERSOLD"],
    "confidence": 0.8125, "recommendation": "BUY",
    "risk_parameters": {
        "sl_level": 170.25, "tp_targets": [172.5, 173.75], "optimal_entry": [170.9, 171.25],
        "risk_reward_ratio": 2.5, "room_atr": None,
    },
    "market_context": {"key_levels": {"immediate_support": 170.1, "immediate_resistance": None}},
    "narrative": {"uk": "SOLUSDT: спрацював тригер.", "en": "SOLUSDT: triggered."},
}  # fmt: skip


def alert(symbol: str = "SOLUSDT", minute: int = 0, **more: Any) -> Alert:
    return Alert(symbol, NOON + 60_000 * minute, recommendation="BUY", **more)


until = functools.partial(waiting.until, seconds=SOON)


# --- the message -------------------------------------------------------------------------------------------------


def test_the_alert_of_a_stage2_dictionary() -> None:
    made = Alert.from_stage2(STAGE2, link="https://example.org/chart?symbol=SOLUSDT&at=1")
    assert made.timestamp == NOON and made.trigger_reasons == ("VOLUME_SPIKE", "RSI_OVERSOLD")
    assert made.levels == {
        "price": 171.25, "stop": 170.25, "target_1": 172.5, "target_2": 173.75, "entry_low": 170.9,
        "entry_high": 171.25, "support": 170.1,
    }  # fmt: skip
    assert made.to_json()["time"] == "2025-05-10T12:00:00+00:00"
    assert telegram_html(made, "en").splitlines() == [
        "<b>BUY SOLUSDT</b> 1m · confidence 0.81",
        "2025-05-10 12:00 UTC",
        "Price 171.250 · stop 170.250 · targets 172.500 / 173.750",
        "Entry 170.900 – 171.250",
        "Reasons: VOLUME_SPIKE, RSI_OVERSOLD",
        "SOLUSDT: triggered.",
        '<a href="https://example.org/chart?symbol=SOLUSDT&amp;at=1">Chart</a>',
    ]
    ukrainian = telegram_html(Alert.from_stage2(STAGE2, second_look=True), "uk")
    assert "впевненість 0,81" in ukrainian and "спрацював" in ukrainian and "після калібрування" in ukrainian


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"symbol": "<b>"}, "symbol="),
        ({"timestamp": 5}, "timestamp=5"),
        ({"confidence": float("nan")}, "confidence=nan"),
        ({"recommendation": None}, "recommendation=None"),
        ({"trigger_reasons": "ABC"}, "trigger_reasons="),
        ({"levels": {"prize": 1.0}}, "did you mean 'price'"),
        ({"levels": {"price": "x"}}, "price='x'"),
        ({"link": "javascript:alert(1)"}, "link="),
        ({"link": 'https://x/" onclick="y'}, "link="),
        ({"interval": "7m"}, "interval="),
    ],
)
def test_a_bad_alert_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as error:
        Alert(**{"symbol": "SOLUSDT", "timestamp": NOON, **values})
    assert named in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        5,
        {},
        {name: value for name, value in STAGE2.items() if name != "signal"},
        {**STAGE2, "risk_parameters": None},
        {**STAGE2, "risk_parameters": {"optimal_entry": 5}},
        {**STAGE2, "risk_parameters": {"tp_targets": 5}},
        {**STAGE2, "market_context": {"key_levels": 5}},
        {**STAGE2, "narrative": {"uk": ""}},
    ],
    ids=range(8),
)
def test_what_is_no_stage2_dictionary_is_refused_by_name(values: Any) -> None:
    with pytest.raises(InputError, match="^stage2=.*: must be a Stage2 dictionary"):
        Alert.from_stage2(values)


def test_the_values_of_a_stage2_dictionary_are_checked_as_those_of_an_alert() -> None:
    for name, value in (("trigger_reasons", "ABC"), ("timestamp", "noon"), ("signal", None)):
        with pytest.raises(InputError, match=f"^{name}="):
            Alert.from_stage2({**STAGE2, name: value})


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, Any]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append((tag, attributes))

    def handle_data(self, data: str) -> None:
        self.text += data


PAYLOADS = [
    "<script>alert(1)</script>",
    "</b><a href='x'>",
    "&lt;b&gt;",
    '"><img src=x onerror=y>',
    "\u202etxt",
    "😀" * 5000,
]


@given(st.text(max_size=6000) | st.sampled_from(PAYLOADS), st.lists(st.text(max_size=400), max_size=8))
def test_no_text_becomes_markup_and_every_message_fits(text: str, reasons: list[str]) -> None:
    made = alert(
        trigger_reasons=tuple(reasons), narrative_uk=text, narrative_en=text, link="https://example.org/?a=1&b"
    )
    for language in ("uk", "en"):
        parser = Tags()
        message = telegram_html(made, language)
        parser.feed(message)
        assert parser.tags == [("b", []), ("a", [("href", "https://example.org/?a=1&b")])]
        assert len(parser.text.encode("utf-16-le")) // 2 <= 4096
        message.encode()  # no half of a surrogate pair


# --- sinks -------------------------------------------------------------------------------------------------------


def test_telegram_gets_the_message_and_keeps_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aione_lab.live.alert_sinks.CHAT_PAUSE_S", 0.2)
    monkeypatch.setattr("aione_lab.live.alert_sinks.GROUP_PAUSE_S", 0.4)

    async def run() -> None:
        async with HttpDouble(OK) as bot:
            for chat, pause in ((42, 0.2), (-100_42, 0.4)):
                bot.asked.clear()
                sink = TelegramSink(TOKEN, chat, "en", base_url=bot.url)
                began = time.monotonic()
                await asyncio.gather(*(sink.send(alert(minute=number)) for number in range(3)))
                await sink.aclose()
                assert bot.asked[0].path == f"/bot{TOKEN}/sendMessage"
                assert bot.asked[0].content["chat_id"] == chat and bot.asked[0].content["parse_mode"] == "HTML"
                assert bot.asked[0].content["text"] == telegram_html(alert(), "en")
                # From the beginning on: a message that is slow to arrive makes the gap to the next one small.
                assert len(bot.asked) == 3
                assert all(one.at - began > number * pause - 0.01 for number, one in enumerate(bot.asked))

    asyncio.run(run())


def test_telegram_tells_how_long_to_wait_and_is_waited_for() -> None:
    async def run() -> None:
        too_many = {"ok": False, "description": "Too Many Requests", "parameters": {"retry_after": 1}}
        async with HttpDouble(OK, [(429, too_many)]) as bot:
            sink = TelegramSink(TOKEN, 42, base_url=bot.url)
            async with AlertQueue([sink]) as queue:
                queue.put(alert())
                await until(lambda: queue.degraded)
                assert queue.degraded == {"telegram": "telegram: HTTP 429 Too Many Requests"}
                await until(lambda: queue.metrics["sent"])
            assert bot.asked[1].at - bot.asked[0].at >= 0.99 and not queue.degraded

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        ((400, {"ok": False, "description": "Bad Request: chat not found"}), False),
        ((401, {"ok": False, "description": f"Unauthorized {TOKEN}"}), False),
        ((404, {}), False),
        ((302, {}, {"Location": "http://127.0.0.1:1/elsewhere"}), False),
        ((200, {"ok": False}), False),
        ("<html>hello</html>", False),
        ("x" * 2_000_000, False),
        ((500, {}), True),
        ((502, {"ok": False, "description": "Bad Gateway\n\x00"}), True),
        ("drop", True),
    ],
)
def test_what_telegram_may_answer(answer: Any, again: bool) -> None:
    async def run() -> None:
        async with HttpDouble(answer) as bot:
            sink = TelegramSink(TOKEN, 42, base_url=bot.url)
            with pytest.raises(AlertError) as error:
                await sink.send(alert())
            await sink.aclose()
            text = "".join(traceback.format_exception(error.value))
            assert TOKEN not in text and "\n" not in str(error.value) and len(str(error.value)) < 300
            assert (error.value.retry_after is not None) is again and len(bot.asked) == 1

    asyncio.run(run())


def test_nobody_there() -> None:
    async def run() -> None:
        for sink in (TelegramSink(TOKEN, 42, base_url="http://127.0.0.1:1"), WebhookSink("http://127.0.0.1:1/hook")):
            with pytest.raises(AlertError, match="no answer") as error:
                await sink.send(alert())
            assert error.value.retry_after == 0.0 and error.value.__context__ is None
            await sink.aclose()

    asyncio.run(run())


def test_a_proxy_that_cannot_be_used_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://me:canary@127.0.0.1:1")

    async def run() -> None:
        with pytest.raises(AlertError, match="cannot be asked") as error:
            await TelegramSink(TOKEN, 42).send(alert())
        assert "canary" not in "".join(traceback.format_exception(error.value))

    asyncio.run(run())


def test_a_webhook_gets_json() -> None:
    async def run() -> None:
        async with HttpDouble((204, {}), [(503, {}, {"Retry-After": "7"})]) as hook:
            sink = WebhookSink(f"{hook.url}/{SECRET_PATH}?key=1")
            with pytest.raises(AlertError, match="HTTP 503") as error:
                await sink.send(alert())
            assert error.value.retry_after == 7.0 and "canary" not in str(error.value) + repr(sink) + sink.name
            await sink.send(Alert.from_stage2(STAGE2))
            await sink.aclose()
            assert hook.asked[1].path == f"/{SECRET_PATH}"
            assert hook.asked[1].content["levels"]["stop"] == 170.25 and hook.asked[1].content["repeated"] is False

    asyncio.run(run())


@pytest.mark.parametrize(
    "make",
    [
        lambda: TelegramSink("canary", 42),
        lambda: TelegramSink("1:canary/../../canary", 42),
        lambda: TelegramSink(5, 42),  # type: ignore[arg-type]
        lambda: TelegramSink(TOKEN, 0),
        lambda: TelegramSink(TOKEN, "42"),  # type: ignore[arg-type]
        lambda: TelegramSink(TOKEN, 42, "de"),
        lambda: TelegramSink(TOKEN, 42, base_url="ftp://canary"),
        lambda: WebhookSink("canary"),
        lambda: WebhookSink("https://[canary"),
        lambda: WebhookSink("https:///canary"),
        lambda: WebhookSink("https://canary.org:port/"),
        lambda: WebhookSink("https://canary.org/a b"),
        lambda: CallbackSink("x"),  # type: ignore[arg-type]
        lambda: AlertQueue([object()]),
        lambda: AlertQueue(None),  # type: ignore[arg-type]
        lambda: AlertQueue(CallbackSink(print)),  # type: ignore[arg-type]
        lambda: AlertQueue([], settings={"queue_size": 1}),  # type: ignore[arg-type]
        lambda: AlertQueue([]).put("x"),  # type: ignore[arg-type]
        lambda: TelegramSink.from_environment(Environment.model_construct(TELEGRAM_TOKEN=None, ADMIN_ID=1)),
    ],
)
def test_bad_arguments(make: Callable[[], Any]) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert "canary" not in str(error.value) and "\n" not in str(error.value)


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
    monkeypatch.setenv("ADMIN_ID", "-42")
    assert repr(TelegramSink.from_environment(Environment.without_file())) == (
        "TelegramSink(https://api.telegram.org, chat -42)"
    )


def test_a_secret_is_in_no_log_repr_or_error(caplog: Any, capfd: Any) -> None:
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []

    async def run() -> None:
        asyncio.get_running_loop().set_debug(True)
        async with HttpDouble(OK, [(400, {"description": TOKEN}), "drop", (302, {}, {"Location": "/other"})]) as double:
            telegram = TelegramSink(TOKEN, 42, base_url=double.url)
            webhook = WebhookSink(f"{double.url}/{SECRET_PATH}")
            sinks: list[Any] = [telegram, webhook, TelegramSink(TOKEN, 42, base_url="http://127.0.0.1:1")]
            async with AlertQueue(sinks, AlertSettings(give_up_s=0.1)) as queue:
                for number in range(3):
                    queue.put(alert(f"S{number}USDT"))
                await until(lambda: queue.metrics["sent"] + queue.metrics["failed"] == 9)
                texts.extend(
                    [repr(queue), str(queue.degraded), str(vars(telegram)), str(vars(webhook)), *map(repr, sinks)]
                )
            for sink in sinks:
                try:
                    await sink.send(alert())
                except AlertError as error:
                    texts.append("".join(traceback.format_exception(error)))
                await sink.aclose()  # a sink that has been closed opens a connection again
            assert len(double.asked) >= 4

    asyncio.run(run())
    out, err = capfd.readouterr()
    assert "connect_tcp" in caplog.text  # the libraries did log
    everything = "".join([*texts, out, err, caplog.text])
    assert TOKEN not in everything and "canary" not in everything


@pytest.mark.parametrize(
    ("user", "tail"),
    [
        ("", "/hook/{canary}"),
        ("", "/a/../canary-hook"),
        ("", "/%63anary%7b/"),
        ("canary-user@", "/abcd"),
        ("me:canary%7bword@", ""),
        ("canary^:pwpw@", "/?key=canary^x|y%5E"),
    ],
)
def test_an_address_is_hidden_as_httpx_writes_it(user: str, tail: str, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    url = httpx.URL(f"http://{user}place{tail}")
    parts = [str(url), url.raw_path.decode(), url.path, url.userinfo.decode(), url.username, url.password]
    told = [text for text in {*parts, *map(unquote, parts)} if "canary" in text or "ab" in text or "pw" in text]

    async def run() -> None:
        # httpx logs the address, httpcore the headers of an answer
        async with HttpDouble(script=[(404, {}, {"Location": text}) for text in told]) as hook:
            place = hook.url.removeprefix("http://").replace("127.0.0.1", "LOCALHOST")
            sink = WebhookSink(f"HTTP://{user}{place}{tail}")
            for _ in told:
                with pytest.raises(AlertError, match="HTTP 404"):
                    await sink.send(alert())
            await sink.aclose()

    asyncio.run(run())
    logged = "".join(record.getMessage() for record in caplog.records if record.name.startswith("http"))
    assert "connect_tcp" in logged and "canary" not in logged and "/ab" not in logged and "pw" not in logged


def test_a_short_part_of_an_address_is_hidden_with_the_whole_and_silences_nothing_else(caplog: Any) -> None:
    """Whose path is OK, of all things."""
    caplog.set_level(logging.INFO, "httpx")  # which a command of before may have made quiet

    async def run() -> None:
        async with HttpDouble() as hook, HttpDouble() as other:
            sink = WebhookSink(f"{hook.url}/OK".replace("127.0.0.1", "LOCALHOST"))
            await sink.send(alert())
            await sink.aclose()
            async with httpx.AsyncClient() as client:
                await client.post(other.url)

    asyncio.run(run())
    lines = [record.getMessage() for record in caplog.records if record.name == "httpx"]
    assert len(lines) == 1 and "HTTP/1.1" in lines[0] and "/OK" not in lines[0]
    assert Outgoing("place", [], 1.0).masked("nothing to hide") == "place: nothing to hide"


# --- the queue ---------------------------------------------------------------------------------------------------


class Sink:
    """Remembers what came; fails, hangs or takes its time as told."""

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.came: list[Alert] = []
        self.errors: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = False

    async def send(self, alert: Alert) -> None:
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.came.append(alert)

    async def aclose(self) -> None:
        self.closed = True


FAST = AlertSettings(symbol_pause_s=0.0, per_minute=10_000)


def test_one_broken_sink_does_not_stop_another(caplog: Any) -> None:
    async def run() -> None:
        good, hanging, broken = Sink("good"), Sink("hanging"), Sink("broken")
        hanging.gate.clear()
        broken.errors = [ValueError("a bug"), AlertError("broken: no", None)]
        async with AlertQueue([hanging, broken, good], FAST.replace(timeout_s=0.2)) as queue:
            for number in range(5):
                assert queue.put(alert(minute=number))
            await until(lambda: len(good.came) == 5 and len(broken.came) == 3)
            assert [one.timestamp for one in good.came] == [NOON + 60_000 * number for number in range(5)]
            await until(lambda: queue.degraded)
            assert queue.degraded == {"hanging": "hanging: no answer within 0.2 s"}
            assert queue.metrics == {
                "queue_size": 4, "taken": 5, "limited": 0, "sent": 8, "failed": 2, "dropped": 0
            }  # fmt: skip
        assert good.closed and hanging.closed and broken.closed

    asyncio.run(run())
    assert "a bug" in caplog.text and "hanging: 5 alerts were not delivered" in caplog.text


async def cancelled_inside() -> None:
    inner = asyncio.ensure_future(asyncio.sleep(SOON))
    inner.cancel()
    await inner


async def cancelling_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(SOON)


@pytest.mark.parametrize("cancelled", [cancelled_inside, cancelling_itself])
def test_a_cancellation_that_nobody_asked_for_is_a_failure(cancelled: Callable[[], Any], caplog: Any) -> None:
    async def run() -> None:
        came: list[str] = []

        async def send(one: Alert) -> None:
            if one.symbol == "BTCUSDT":
                await cancelled()
            came.append(one.symbol)

        async with AlertQueue([CallbackSink(send)], FAST) as queue:
            queue.put(alert("BTCUSDT"))
            await until(lambda: queue.degraded)
            assert queue.metrics["failed"] == 1
            queue.put(alert("ETHUSDT"))
            queue.put(alert("XRPUSDT"))
            await until(lambda: queue.metrics["sent"] == 2)
            assert came == ["ETHUSDT", "XRPUSDT"] and not queue.degraded

    asyncio.run(run())
    assert "the alert of BTCUSDT was not delivered" in caplog.text


def test_a_sink_that_does_not_stop_holds_up_neither_its_line_nor_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("aione_lab.live.alerts.GOODBYE_S", 0.1)

    async def run() -> None:
        release = asyncio.Event()

        async def stubborn() -> None:
            while not release.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await release.wait()

        class Stubborn(Sink):
            async def send(self, alert: Alert) -> None:
                await stubborn()

            async def aclose(self) -> None:
                await stubborn()

        class Cancelled(Sink):
            async def aclose(self) -> None:
                await cancelled_inside()

        last = Sink()
        sinks = [Stubborn("stubborn"), Cancelled("cancelled"), last]
        queue = AlertQueue(sinks, FAST.replace(timeout_s=0.1))
        await queue.start()
        queue.put(alert())
        try:
            await until(lambda: "has not come back" in queue.degraded.get("stubborn", ""))
            closing = asyncio.ensure_future(queue.aclose())
            await until(closing.done)
            await closing
            assert last.closed and queue.metrics["sent"] == 2
        finally:
            release.set()

    asyncio.run(run())
    assert "stubborn: did not stop" in caplog.text and "stubborn: 1 alerts were not delivered" in caplog.text
    assert "stubborn could not be closed" in caplog.text and "cancelled could not be closed" in caplog.text


def test_a_sink_that_makes_an_error_of_its_end_gets_no_further_alert(caplog: Any) -> None:
    async def run() -> None:
        asked: list[str] = []

        async def send(one: Alert) -> None:
            asked.append(one.symbol)
            try:
                await asyncio.sleep(SOON)
            except asyncio.CancelledError:
                raise ValueError("interrupted") from None

        queue = AlertQueue([CallbackSink(send)], FAST.replace(timeout_s=0.1))
        await queue.start()
        queue.put(alert("BTCUSDT"))
        await until(lambda: queue.degraded)
        queue.put(alert("ETHUSDT"))
        queue.put(alert("XRPUSDT"))
        await until(lambda: len(asked) == 2)
        await queue.aclose()
        assert asked == ["BTCUSDT", "ETHUSDT"]

    asyncio.run(run())
    assert "2 alerts were not delivered before the end" in caplog.text


def test_a_full_queue_drops_its_oldest() -> None:
    async def run() -> None:
        sink = Sink()
        sink.gate.clear()
        async with AlertQueue([sink], FAST.replace(queue_size=3)) as queue:
            queue.put(alert(minute=0))
            await until(lambda: not queue.metrics["queue_size"])  # it is in the sink's hands
            for number in range(1, 9):
                queue.put(alert(minute=number))
            assert queue.metrics["dropped"] == 5 and queue.metrics["queue_size"] == 3
            sink.gate.set()
            await until(lambda: len(sink.came) == 4)
            assert [(one.timestamp - NOON) // 60_000 for one in sink.came] == [0, 6, 7, 8]

    asyncio.run(run())


def test_a_symbol_alerts_once_in_its_pause_and_all_keep_to_a_rate() -> None:
    now = 1000.0

    async def run() -> None:
        nonlocal now
        sink = Sink()
        settings = AlertSettings(symbol_pause_s=60.0, per_minute=4)
        async with AlertQueue([sink], settings, clock=lambda: now) as queue:
            assert queue.put(alert()) and not queue.put(alert(minute=1)) and queue.put(alert("ETHUSDT"))
            assert queue.put(alert(second_look=True))  # an answer that was waited for
            now += 60.0
            assert queue.put(alert(minute=2))
            assert queue.metrics["limited"] == 1
            await until(lambda: len(sink.came) == 4)
            queue.put(alert("XRPUSDT"))
            await asyncio.sleep(0.1)
            assert len(sink.came) == 4 and queue.metrics["queue_size"] == 1

    asyncio.run(run())


def test_failures_that_pass_are_tried_again_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aione_lab.live.alerts.PAUSES_S", (0.02, 0.05))

    async def run() -> None:
        sink = Sink()
        sink.errors = [AlertError("memory: away", 0.0) for _ in range(3)]
        async with AlertQueue([sink], FAST.replace(give_up_s=0.5)) as queue:
            queue.put(alert())
            await until(lambda: sink.came)
            sink.errors = [AlertError("memory: away", 0.0) for _ in range(1000)]
            queue.put(alert(minute=1))
            await until(lambda: queue.metrics["failed"])
            sink.errors.clear()
            queue.put(alert(minute=2))
            await until(lambda: len(sink.came) == 2)
            assert queue.metrics["sent"] == 2 and not queue.degraded

    asyncio.run(run())


def test_repeated_after_a_restart_and_not_for_a_second_look(tmp_path: Path) -> None:
    async def run() -> None:
        async with SimpleCacheHandler.embedded(tmp_path / "cache.sqlite") as cache:
            sink = Sink()
            async with AlertQueue([sink], FAST, cache) as queue:
                for one in (alert(), alert(minute=1), alert(minute=3), alert("ETHUSDT", minute=1)):
                    queue.put(one)
                await until(lambda: len(sink.came) == 4)
            again = Sink()
            async with AlertQueue([again], FAST, cache) as queue:
                told = (alert(), alert(minute=1), alert(minute=3))  # by a session that was killed
                new = (
                    alert(minute=2), alert(minute=4), alert(minute=1, second_look=True),
                    alert(minute=1, interval="5m"), alert(minute=-365 * 1440),
                )  # fmt: skip
                for one in told + new:
                    queue.put(one)
                await until(lambda: len(again.came) == 8)
            assert not any(one.repeated for one in sink.came)
            assert [one.repeated for one in again.came] == 3 * [True] + 5 * [False]
            assert "після перезапуску" in telegram_html(again.came[0])
            for rubbish in (["rubbish"], {"SOLUSDT/1m": NOON}, {"SOLUSDT/1m": ["x", True]}):
                await cache.set_json("alerts_sent", rubbish)
                async with AlertQueue([third := Sink()], FAST, cache) as queue:
                    queue.put(alert())
                    await until(functools.partial(len, third.came))
                assert not third.came[0].repeated

    asyncio.run(run())


def test_the_newest_alerts_of_a_symbol_are_remembered(tmp_path: Path) -> None:
    async def run() -> None:
        marked = []
        async with SimpleCacheHandler.embedded(tmp_path / "cache.sqlite") as cache:
            for _ in range(2):
                async with AlertQueue([sink := Sink()], FAST, cache) as queue:
                    for minute in range(REMEMBERED + 5):
                        queue.put(alert(minute=minute))
                    await until(lambda: queue.metrics["sent"] == REMEMBERED + 5)  # noqa: B023
                marked.append([one.repeated for one in sink.came])
        assert marked == [(REMEMBERED + 5) * [False], 5 * [False] + REMEMBERED * [True]]

    asyncio.run(run())


def test_without_the_memory_of_a_broken_cache_alerts_go_out(tmp_path: Path) -> None:
    async def run() -> None:
        (tmp_path / "file").write_text("no folder")
        async with SimpleCacheHandler.embedded(tmp_path / "file" / "cache.sqlite") as cache:
            sink = Sink()
            async with AlertQueue([sink], FAST, cache) as queue:
                queue.put(alert())
                await until(lambda: sink.came)

    asyncio.run(run())


def test_callbacks_plain_slow_and_coroutine() -> None:
    async def run() -> None:
        release = threading.Event()
        plain: list[tuple[str, str]] = []
        told: list[Alert] = []

        def slow(one: Alert) -> None:
            if one.symbol == "ETHUSDT":
                release.wait(30)
            plain.append((one.symbol, threading.current_thread().name))

        async def tell(one: Alert) -> None:
            told.append(one)

        async with AlertQueue([CallbackSink(slow), CallbackSink(tell)], FAST.replace(timeout_s=0.2)) as queue:
            queue.put(alert("BTCUSDT"))
            queue.put(alert("ETHUSDT"))
            queue.put(alert("XRPUSDT"))
            await until(lambda: len(told) == 3 and queue.degraded)
            assert plain == [("BTCUSDT", "callback slow")]
            await until(lambda: "has not come back" in queue.degraded["callback slow"])
            release.set()
            await until(lambda: queue.metrics["sent"] == 6)

    asyncio.run(run())


def test_what_a_plain_function_gives_back_is_awaited() -> None:
    async def run() -> None:
        told: list[Alert] = []

        async def tell(one: Alert) -> None:
            if one.symbol == "BTCUSDT":
                raise ValueError("not this one")
            told.append(one)

        async with AlertQueue([CallbackSink(lambda one: tell(one))], FAST) as queue:
            queue.put(alert("BTCUSDT"))
            queue.put(alert("ETHUSDT"))
            await until(lambda: queue.metrics["sent"])
            assert queue.metrics["failed"] == 1 and [one.symbol for one in told] == ["ETHUSDT"]

    asyncio.run(run())


@pytest.mark.parametrize("error", [ValueError, StopIteration, StopAsyncIteration, SystemExit, asyncio.CancelledError])
def test_whatever_a_plain_function_raises_is_a_failure(error: type[BaseException]) -> None:
    async def run() -> None:
        def tell(one: Alert) -> None:
            if one.symbol == "BTCUSDT":
                raise error

        async with AlertQueue([CallbackSink(tell)], FAST) as queue:
            queue.put(alert("BTCUSDT"))
            queue.put(alert("ETHUSDT"))
            await until(lambda: queue.metrics["sent"])
            assert queue.metrics["failed"] == 1

    asyncio.run(run())
