"""Longer narratives from a double of a language model: off by default, bounded, within a budget, never in the way."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import waiting

from aione_lab.backtest.decode import empty_stage2
from aione_lab.errors import InputError
from aione_lab.live import AssetStateManager, Enriched, EnricherSettings, NarrativeEnricher

sys.path.append(str(Path(__file__).resolve().parent))

from http_double import HttpDouble  # noqa: E402

KEY = "sk-canary-k3y"
SOON = 8.0


def said(text: Any, tokens: Any = 120) -> tuple[int, dict[str, Any]]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": {"total_tokens": tokens}}


def stage2(symbol: str = "SOLUSDT") -> dict[str, Any]:
    return {**empty_stage2(symbol), "timestamp": "2025-05-10T12:00:00+00:00", "signal": "ALERT", "confidence": 0.8}


until = functools.partial(waiting.until, seconds=SOON)


def on(double: HttpDouble, **more: Any) -> EnricherSettings:
    return EnricherSettings(enabled=True, url=f"{double.url}/v1", model="double", **more)


def test_off_by_default() -> None:
    async def run() -> None:
        async with NarrativeEnricher() as enricher:
            assert not enricher.submit(stage2()) and enricher.metrics["queue_size"] == 0 and enricher._task is None

    asyncio.run(run())


def test_a_text_arrives_later_and_the_signal_never_waits() -> None:
    async def run() -> None:
        manager = AssetStateManager(["SOLUSDT"])
        texts: list[Enriched] = []

        def keep(enriched: Enriched) -> None:
            texts.append(enriched)
            manager.update_asset(enriched.symbol, {"long_narrative": enriched.text})

        async with HttpDouble(said("  Обсяг\n\nзріс. <b>Так</b>\u202e\x00 ")) as model:
            async with NarrativeEnricher(on(model, language="uk"), KEY, on_text=keep) as enricher:
                assert enricher.submit(stage2()) and not model.asked  # nothing happens inside submit
                await until(lambda: texts)
            asked = model.asked[0]
        assert texts == [
            Enriched("SOLUSDT", "2025-05-10T12:00:00+00:00", "Обсяг зріс. <b>Так</b>", "uk", "double", 120)
        ]
        assert manager.snapshot()["SOLUSDT"]["long_narrative"] == "Обсяг зріс. <b>Так</b>"
        assert asked.path == "/v1/chat/completions" and asked.headers["Authorization"] == f"Bearer {KEY}"
        assert asked.content["model"] == "double" and "Ukrainian" in asked.content["messages"][0]["content"]
        assert json.loads(asked.content["messages"][1]["content"])["symbol"] == "SOLUSDT"

    asyncio.run(run())


@pytest.mark.parametrize(
    "answer",
    [
        said(None), said(""), said("\u202e "), said(["x"]), (200, {}), (200, {"choices": []}), "no JSON",
        "x" * 2_000_000, "drop", (500, {"error": {"message": f"no {KEY}"}}), (401, {"error": f"bad key {KEY}"}),
        (302, {}, {"Location": "/"}),
    ],
    ids=range(12),
)  # fmt: skip
def test_answers_without_a_text_are_failures_and_the_next_is_asked(answer: Any) -> None:
    async def run() -> None:
        texts: list[Enriched] = []
        async with HttpDouble(said("fine"), [answer]) as model:
            async with NarrativeEnricher(on(model), KEY, on_text=texts.append) as enricher:
                enricher.submit(stage2())
                await until(lambda: enricher.metrics["failed"] == 1)
                assert enricher.degraded.startswith("enricher: ") and KEY not in enricher.degraded
                enricher.submit(stage2("ETHUSDT"))
                await until(lambda: texts)
                assert texts[0].symbol == "ETHUSDT" and enricher.degraded == "" and enricher.metrics["texts"] == 1

    asyncio.run(run())


def test_length_time_limit_and_a_function_that_fails(caplog: Any) -> None:
    async def run() -> None:
        texts: list[Enriched] = []

        async def keep(enriched: Enriched) -> None:
            texts.append(enriched)
            raise ValueError("not wanted")

        async with HttpDouble(said("😀" * 5000, tokens="many")) as model:
            async with NarrativeEnricher(on(model, max_characters=100), on_text=keep) as enricher:
                enricher.submit(stage2())
                await until(lambda: enricher.metrics["failed"] == 1)
                assert len(texts[0].text.encode("utf-16-le")) // 2 <= 100 and texts[0].text.endswith("…")
                assert "Authorization" not in model.asked[0].headers
                assert texts[0].tokens == enricher.metrics["tokens"] > 400  # the estimate, a high one
        async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0) as silent:
            url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
            settings = EnricherSettings(enabled=True, url=url, timeout_s=0.2)
            async with NarrativeEnricher(settings) as enricher:
                enricher.submit(stage2())
                await until(lambda: enricher.metrics["failed"] == 1)
                assert "no answer" in enricher.degraded and enricher.metrics["calls"] == 1

    asyncio.run(run())
    assert "not wanted" in caplog.text


def test_a_listener_that_fails_takes_the_text_from_nobody(caplog: Any) -> None:
    def fails(enriched: Enriched) -> None:
        raise ValueError("not wanted")

    async def cancelled(enriched: Enriched) -> None:
        inner = asyncio.ensure_future(asyncio.sleep(SOON))
        inner.cancel()
        await inner

    async def run() -> None:
        texts: list[Enriched] = []
        async with HttpDouble(said("fine")) as model:
            async with NarrativeEnricher(on(model), on_text=fails) as enricher:
                enricher.listen(cancelled)
                enricher.listen(texts.append)
                enricher.submit(stage2())
                enricher.submit(stage2("ETHUSDT"))
                await until(lambda: len(texts) == 2)
                assert enricher.metrics["texts"] == 2 and enricher.metrics["failed"] == 4
                assert enricher.degraded == "enricher: CancelledError"
                enricher.forget(fails)
                enricher.forget(cancelled)
                enricher.submit(stage2())
                await until(lambda: len(texts) == 3)
                assert not enricher.degraded

    asyncio.run(run())
    assert "not wanted" in caplog.text and "nothing added" not in caplog.text


def test_the_budget_of_an_hour_and_a_bounded_queue() -> None:
    now = 0.0

    async def run() -> None:
        nonlocal now
        async with HttpDouble(said("fine", 1000)) as model:
            settings = on(model, calls_per_hour=3, tokens_per_hour=4_500, queue_size=5)
            async with NarrativeEnricher(settings, clock=lambda: now) as enricher:
                for _ in range(7):
                    enricher.submit(stage2())
                await until(lambda: not enricher.metrics["queue_size"] and enricher.metrics["over_budget"] == 2)
                assert len(model.asked) == 3 and enricher.metrics["tokens"] == 3000
                assert enricher.metrics["dropped"] == 2
                now = 3599.0
                enricher.submit(stage2())
                await until(lambda: enricher.metrics["over_budget"] == 3)
                now = 3600.0
                enricher.submit(stage2())
                await until(lambda: len(model.asked) == 4)
            settings = settings.replace(calls_per_hour=100, tokens_per_hour=2_500)
            async with NarrativeEnricher(settings, clock=lambda: now) as enricher:
                for _ in range(4):
                    enricher.submit(stage2())
                await until(lambda: enricher.metrics["texts"] + enricher.metrics["over_budget"] == 4)
                assert enricher.metrics["tokens"] <= 2_500 and enricher.metrics["over_budget"] >= 2

    asyncio.run(run())


@pytest.mark.parametrize(
    "make",
    [
        lambda: EnricherSettings(enable=True),
        lambda: EnricherSettings(language="de"),
        lambda: EnricherSettings(calls_per_hour=0),
        lambda: NarrativeEnricher(EnricherSettings(url="ftp://127.0.0.1/etc")),
        lambda: NarrativeEnricher(EnricherSettings(url="https://me:canary@example.org/v1")),
        lambda: NarrativeEnricher(key="canary\nX: y"),
        lambda: NarrativeEnricher(key=5),  # type: ignore[arg-type]
        lambda: NarrativeEnricher(on_text=5),  # type: ignore[arg-type]
        lambda: NarrativeEnricher({}),  # type: ignore[arg-type]
        lambda: NarrativeEnricher(EnricherSettings(enabled=True)).submit({}),
        lambda: NarrativeEnricher(EnricherSettings(enabled=True)).submit({"symbol": "<b>"}),
    ],
)
def test_bad_arguments(make: Callable[[], Any]) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert "canary" not in str(error.value) and "\n" not in str(error.value)


def test_the_key_is_in_no_log_repr_or_error(caplog: Any, capfd: Any) -> None:
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []

    async def run() -> None:
        asyncio.get_running_loop().set_debug(True)
        async with HttpDouble((401, {"error": {"message": f"bad {KEY}"}}, {"X-Echo": KEY}), ["drop"]) as model:
            async with NarrativeEnricher(on(model), KEY) as enricher:
                for _ in range(3):
                    enricher.submit(stage2())
                await until(lambda: enricher.metrics["failed"] == 3)
                texts.extend([repr(enricher), enricher.degraded, str(vars(enricher)), repr(enricher._http)])

    asyncio.run(run())
    out, err = capfd.readouterr()
    assert "connect_tcp" in caplog.text
    assert "canary" not in "".join([*texts, out, err, caplog.text])
