"""Where alerts go: a Telegram chat, an address that takes JSON, a function."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

from pydantic import SecretStr

from aione_lab.backtest.narrative import LANGUAGES
from aione_lab.backtest.phrases import UK
from aione_lab.environment import Environment
from aione_lab.errors import AlertError, InputError, is_whole
from aione_lab.live.alert_text import Alert, telegram_html
from aione_lab.live.outgoing import Outgoing, place_of, secret_of, secrets_of

TELEGRAM = "https://api.telegram.org"
TIMEOUT_S = 10.0
CHAT_PAUSE_S = 1.0  # Telegram: about one message a second in a chat,
GROUP_PAUSE_S = 3.0  # and 20 a minute in a group
RATE_PAUSE_S = 5.0  # after a 429 that does not say how long

_TOKEN = re.compile(r"\d{1,20}:[A-Za-z0-9_-]{10,200}")


class AlertSink(Protocol):
    """A place that alerts are delivered to; ``name`` is shown, and holds no secret."""

    name: str

    async def send(self, alert: Alert) -> None:
        """Deliver; AlertError where it cannot, with ``retry_after`` where it may help to try again."""

    async def aclose(self) -> None:
        """Let go of connections."""


class TelegramSink:
    """Alerts as messages to one Telegram chat, through the Bot API.

    Keeps to Telegram's pace (a message a second in a chat, one in three seconds in a group) and waits as long as a 429
    says. ``language``: uk or en; ``base_url``: of a Bot API server of one's own. The token is in no repr, log or error.
    """

    name = "telegram"

    def __init__(self, token: str | SecretStr, chat_id: int, language: str = UK, *, base_url: str = TELEGRAM) -> None:
        self._token = SecretStr(token) if isinstance(token, str) else token
        if not isinstance(self._token, SecretStr) or not _TOKEN.fullmatch(self._token.get_secret_value()):
            raise InputError("token: must look like 123456:letters-and-digits (its value is not shown)")
        if not is_whole(chat_id) or chat_id == 0:
            raise InputError.of("chat_id", chat_id, "must be the number of a Telegram chat; groups are negative")
        if language not in LANGUAGES:
            raise InputError.of("language", language, f"must be one of {', '.join(LANGUAGES)}")
        self._base = place_of("base_url", base_url)
        self._chat_id, self._language = int(chat_id), language
        self._pause_s = GROUP_PAUSE_S if chat_id < 0 else CHAT_PAUSE_S
        self._http = Outgoing(self.name, [self._token], TIMEOUT_S)
        self._turn = asyncio.Lock()
        self._next = 0.0  # steady seconds

    @classmethod
    def from_environment(cls, environment: Environment | None = None, language: str = UK) -> Self:
        """With ``TELEGRAM_TOKEN`` and ``ADMIN_ID``; InputError where one of them is absent."""
        environment = Environment() if environment is None else environment
        if environment.TELEGRAM_TOKEN is None or environment.ADMIN_ID is None:
            raise InputError("TELEGRAM_TOKEN and ADMIN_ID must both be set in the environment or .env")
        return cls(environment.TELEGRAM_TOKEN, environment.ADMIN_ID, language)

    async def send(self, alert: Alert) -> None:
        """Send the message, in its turn; AlertError where Telegram did not take it."""
        content = {
            "chat_id": self._chat_id,
            "text": telegram_html(alert, self._language),
            "parse_mode": "HTML",
            "link_preview_options": {"is_disabled": True},
        }
        async with self._turn:
            await asyncio.sleep(self._next - time.monotonic())
            self._next = time.monotonic() + self._pause_s
            answer = await self._http.post(f"{self._base}/bot{self._token.get_secret_value()}/sendMessage", content)
            if answer.status == 200 and answer.content.get("ok") is True:
                return
            wait = _retry_after(answer.content) or answer.retry_after or RATE_PAUSE_S
            if answer.status == 429:
                self._next = time.monotonic() + wait
        why = str(answer.content.get("description", "without a description"))
        raise self._http.refused(answer, why, wait if answer.status == 429 else None)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    def __repr__(self) -> str:
        return f"TelegramSink({self._base}, chat {self._chat_id})"


class WebhookSink:
    """Alerts as JSON (``Alert.to_json``), POSTed to ``url``; the address counts as a secret and is never shown."""

    def __init__(self, url: str | SecretStr) -> None:
        self.name = f"webhook {place_of('url', url)}"
        self._url = secret_of("url", url)
        self._http = Outgoing(self.name, secrets_of(self._url), TIMEOUT_S)

    async def send(self, alert: Alert) -> None:
        """POST it; any 2xx is good."""
        answer = await self._http.post(self._url.get_secret_value(), alert.to_json())
        if not 200 <= answer.status < 300:
            raise self._http.refused(answer)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    def __repr__(self) -> str:
        return f"WebhookSink({self.name.removeprefix('webhook ')})"


class CallbackSink:
    """Alerts to a function of one's own: a coroutine function in the event loop, a plain one in a thread of its own.

    What a plain one gives back is awaited in the event loop, where it can be.
    """

    def __init__(self, fn: Callable[[Alert], Any]) -> None:
        if not callable(fn):
            raise InputError.of("fn", fn, "must be a function or a coroutine function")
        self.name = f"callback {getattr(fn, '__name__', type(fn).__name__)}"
        self._fn = fn
        self._thread: threading.Thread | None = None

    async def send(self, alert: Alert) -> None:
        """Call it; what it raises goes on to the caller. AlertError while a plain function still has another alert."""
        if inspect.iscoroutinefunction(self._fn) or inspect.iscoroutinefunction(type(self._fn).__call__):
            await self._fn(alert)
            return
        if self._thread is not None and self._thread.is_alive():
            raise AlertError(f"{self.name}: has not come back from an earlier alert", 0.0)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if not done.done():
                done.set_result(result) if error is None else done.set_exception(error)

        def call() -> None:
            result: Any = None
            problem: BaseException | None = None
            try:
                result = self._fn(alert)
            except BaseException as error:
                problem = error
                if isinstance(error, StopIteration) or not isinstance(error, Exception):  # no future takes the former
                    problem = RuntimeError(type(error).__name__)
            try:
                loop.call_soon_threadsafe(settle, result, problem)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

        # not one of the loop's own threads: a function that never returns would take it away from everybody
        self._thread = threading.Thread(target=call, name=self.name, daemon=True)
        self._thread.start()
        result = await done
        if inspect.isawaitable(result):
            await result

    async def aclose(self) -> None:
        """Nothing: a plain function that runs comes to its end by itself."""

    def __repr__(self) -> str:
        return f"CallbackSink({self.name.removeprefix('callback ')})"


def _retry_after(content: Mapping[str, Any]) -> float | None:
    parameters = content.get("parameters")
    wait: Any = parameters.get("retry_after") if isinstance(parameters, dict) else None
    return float(wait) if is_whole(wait) and 0 < wait < 1e6 else None
