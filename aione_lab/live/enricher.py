"""`NarrativeEnricher`: a longer text about an alert from a language model, later, and never in anybody's way."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr

from aione_lab.errors import AlertError, InputError, is_whole
from aione_lab.live.asset_state import plain
from aione_lab.live.outgoing import Answer, Outgoing, place_of, secret_of
from aione_lab.live.plain_text import cut, without_controls
from aione_lab.settings import Config
from aione_lab.units import parse_symbol

logger = logging.getLogger(__name__)

HOUR_S = 3600.0
LONGEST_PROMPT = 12_000  # characters of the signal's JSON
CHARACTERS_A_TOKEN = 2.0  # a low guess, so that an estimate of tokens is a high one; Ukrainian has about 2 to 3

_LANGUAGES = {"uk": "Ukrainian", "en": "English"}
_TASK = (
    "You explain an alert of a crypto-futures signal system to a trader. The user's message is the alert as JSON. "
    "Write at most six plain sentences in {language}: what was seen, what speaks for and against it, where stop and "
    "targets lie. Use only numbers that are in the JSON. No markup, no lists, no promise, no advice beyond the JSON."
)


class EnricherSettings(Config):
    """Where the model is, how long it may take and what it may cost. Off unless ``enabled``."""

    enabled: bool = Field(False, description="ask at all")
    url: str = Field("http://127.0.0.1:11434/v1", description="base of an OpenAI-compatible endpoint; holds no secret")
    model: Annotated[str, Field(min_length=1, max_length=200)] = Field("llama3.2", description="name of the model")
    language: Literal["uk", "en"] = Field("uk", description="language of the text")
    timeout_s: Annotated[float, Field(gt=0.0, le=600.0)] = Field(30.0, description="seconds for one text")
    queue_size: Annotated[int, Field(ge=1, le=1_000)] = Field(20, description="signals that wait; the oldest go first")
    calls_per_hour: Annotated[int, Field(ge=1, le=100_000)] = Field(60, description="most calls in any hour")
    tokens_per_hour: Annotated[int, Field(ge=1)] = Field(100_000, description="most tokens, prompts too, in any hour")
    max_tokens: Annotated[int, Field(ge=16, le=16_000)] = Field(400, description="longest text that is asked for")
    max_characters: Annotated[int, Field(ge=1, le=20_000)] = Field(1_500, description="longest text that is kept")


@dataclass(frozen=True, slots=True)
class Enriched:
    """A model's text about one signal. Untrusted: plain text without controls, to be escaped where it is shown."""

    symbol: str
    timestamp: str | None
    text: str
    language: str
    model: str
    tokens: int  # of prompt and text together, estimated where the endpoint does not say


class NarrativeEnricher:
    """Asks an OpenAI-compatible endpoint for a longer text about signals, one at a time, in a task of its own.

    ``submit`` returns at once. Whatever exceeds the queue or the budget of an hour, takes too long or fails is left out
    and counted, never made up for later: a text about an old alert is worth nothing. ``on_text(enriched)``, plain or a
    coroutine function, gets the texts; each time that it fails is logged and counted, and other listeners get the text
    all the same. Only the Stage2 dictionary is sent, no key and no account. The ``key`` is in no repr, log or error.
    """

    def __init__(
        self,
        settings: EnricherSettings | None = None,
        key: str | SecretStr | None = None,
        *,
        on_text: Callable[[Enriched], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = EnricherSettings() if settings is None else settings
        if not isinstance(self.settings, EnricherSettings):
            raise InputError.of("settings", settings, "must be an EnricherSettings")
        if on_text is not None and not callable(on_text):
            raise InputError.of("on_text", on_text, "must be a function or a coroutine function")
        place_of("url", self.settings.url)
        if re.search(r"[@?#]", self.settings.url):
            raise InputError("url: must hold no user, password or query; a secret belongs into key (it is not shown)")
        self._key = None if key is None else secret_of("key", key)
        self._http = Outgoing("enricher", [] if self._key is None else [self._key], self.settings.timeout_s)
        self._on_text, self._clock = [on_text] if on_text is not None else [], clock
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._spent: deque[tuple[float, int]] = deque()  # steady seconds and tokens of the calls of an hour
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._counts = dict.fromkeys(("texts", "failed", "dropped", "over_budget"), 0)
        self.degraded = ""

    def listen(self, on_text: Callable[[Enriched], Any]) -> None:
        """Hand the texts to ``on_text`` as well."""
        self._on_text.append(on_text)

    def forget(self, on_text: Callable[[Enriched], Any]) -> None:
        """Hand no more texts to ``on_text``."""
        self._on_text = [known for known in self._on_text if known != on_text]

    def submit(self, stage2: Mapping[str, Any]) -> bool:
        """Have a text written about a Stage2 dictionary; False where enriching is switched off."""
        if not self.settings.enabled:
            return False
        if not isinstance(stage2, Mapping) or "symbol" not in stage2:
            raise InputError.of("stage2", stage2, "must be a Stage2 dictionary")
        checked = plain("stage2", {**stage2, "symbol": parse_symbol(stage2["symbol"])})
        if len(self._waiting) >= self.settings.queue_size:
            self._waiting.popleft()
            self._counts["dropped"] += 1
        self._waiting.append(checked)
        self._wake.set()
        return True

    @property
    def metrics(self) -> dict[str, int]:
        """``queue_size, texts, failed, dropped, over_budget``; ``calls`` and ``tokens`` of the last hour."""
        self._forget()
        tokens = sum(tokens for _, tokens in self._spent)
        return {"queue_size": len(self._waiting), **self._counts, "calls": len(self._spent), "tokens": tokens}

    def start(self) -> None:
        """Begin, in the running event loop; nothing happens when it has, or when enriching is switched off."""
        if self._task is None and self.settings.enabled:
            self._task = asyncio.create_task(self._run(), name="narrative enricher")

    async def aclose(self) -> None:
        """Stop at once; what waits is dropped."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._counts["dropped"] += len(self._waiting)
        self._waiting.clear()
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"NarrativeEnricher({self.settings.model} at {place_of('url', self.settings.url)})"

    async def _run(self) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            stage2 = self._waiting.popleft()
            try:
                await self._enrich(stage2)
            except AlertError as error:
                self._failed(stage2, str(error))
            except Exception as error:
                logger.exception("%s: nothing added to the narrative", stage2["symbol"])
                self._failed(stage2, f"enricher: {type(error).__name__}")

    def _failed(self, stage2: Mapping[str, Any], problem: str) -> None:
        if not self.degraded:
            logger.warning("%s: nothing added to the narrative: %s", stage2["symbol"], problem)
        self.degraded = problem
        self._counts["failed"] += 1

    async def _enrich(self, stage2: Mapping[str, Any]) -> None:
        content, most = self._request(stage2)
        if not self._within_budget(most):
            self._counts["over_budget"] += 1
            return
        began = self._clock()
        self._spent.append((began, most))  # what was asked is paid, also where no answer comes
        problem = None
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                answer = await self._http.post(
                    f"{self.settings.url.rstrip('/')}/chat/completions", content, self._headers()
                )
        except TimeoutError:
            problem = AlertError(f"enricher: no answer within {self.settings.timeout_s:g} s", 0.0)
        if problem is not None:
            raise problem
        text, tokens = self._text(answer, most)
        self._spent[-1] = (began, tokens)
        self._counts["texts"] += 1
        self.degraded = ""
        settings = self.settings
        found = Enriched(stage2["symbol"], stage2.get("timestamp"), text, settings.language, settings.model, tokens)
        for on_text in self._on_text:
            await self._hand_on(on_text, found)

    async def _hand_on(self, on_text: Callable[[Enriched], Any], found: Enriched) -> None:
        """Call one listener; whatever it raises is its own matter, and the next ones get the text too."""
        try:
            result = on_text(found)
            if inspect.isawaitable(result):
                await result
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # the enricher is being closed
                raise
            logger.exception("%s: a listener failed on the longer text", found.symbol)
            self.degraded = f"enricher: {type(error).__name__}"
            self._counts["failed"] += 1

    def _request(self, stage2: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """What is sent, and how many tokens it may cost at most."""
        task = _TASK.format(language=_LANGUAGES[self.settings.language])
        alert = json.dumps(stage2, ensure_ascii=False, separators=(",", ":"))[:LONGEST_PROMPT]
        content = {
            "model": self.settings.model,
            "messages": [{"role": "system", "content": task}, {"role": "user", "content": without_controls(alert)}],
            "max_tokens": self.settings.max_tokens,
            "temperature": 0,
            "stream": False,
        }
        return content, _estimate(task) + _estimate(alert) + self.settings.max_tokens

    def _headers(self) -> dict[str, str]:
        return {} if self._key is None else {"Authorization": f"Bearer {self._key.get_secret_value()}"}

    def _text(self, answer: Answer, most: int) -> tuple[str, int]:
        """Text and tokens of an answer; AlertError where there is no text in it."""
        if answer.status != 200:
            problem = answer.content.get("error")
            why = problem.get("message", "") if isinstance(problem, dict) else problem
            raise self._http.refused(answer, str(why or ""))
        try:
            text = answer.content["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        text = (
            cut(" ".join(without_controls(text).split()), self.settings.max_characters) if isinstance(text, str) else ""
        )
        if not text:
            raise AlertError("enricher: the answer holds no text")
        usage = answer.content.get("usage")
        tokens: Any = usage.get("total_tokens") if isinstance(usage, dict) else None
        if is_whole(tokens) and tokens >= 0:
            return text, int(tokens)
        return text, most

    def _within_budget(self, tokens: int) -> bool:
        self._forget()
        spent = sum(tokens for _, tokens in self._spent)
        return len(self._spent) < self.settings.calls_per_hour and spent + tokens <= self.settings.tokens_per_hour

    def _forget(self) -> None:
        while self._spent and self._clock() - self._spent[0][0] >= HOUR_S:
            self._spent.popleft()


def _estimate(text: str) -> int:
    return int(len(text) / CHARACTERS_A_TOKEN) + 1
