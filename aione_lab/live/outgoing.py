"""JSON to services on the web, with secrets that stay out of every log, repr and error."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
from pydantic import SecretStr

from aione_lab.errors import AlertError, InputError
from aione_lab.live.plain_text import without_controls

LARGEST = 1 << 20  # bytes of an answer that are read
SHOWN = 200  # characters of an answer that an error quotes

_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy")


class _Mute(logging.Filter):
    """Drops records that hold a secret: httpx logs every address, and an address may be one."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: set[str] = set()
        self.pattern = _any_of(())

    def filter(self, record: logging.LogRecord) -> bool:
        return self.pattern.search(record.getMessage()) is None


def _any_of(secrets: Iterable[str]) -> re.Pattern[str]:
    """Finds every one of the texts, long ones first."""
    return re.compile("|".join(map(re.escape, sorted(secrets, key=len, reverse=True))) or "(?!)")


_mute = _Mute()


def keep_secret(secrets: Iterable[str]) -> None:
    """Keep these texts out of what httpx and httpcore log, from now on."""
    _mute.secrets.update(secrets)
    _mute.pattern = _any_of(_mute.secrets)
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_mute)  # nothing happens where it has it


def secret_of(argument: str, value: str | SecretStr) -> SecretStr:
    """A SecretStr of a text that is not empty; InputError without the value."""
    secret = SecretStr(value) if isinstance(value, str) else value
    if not isinstance(secret, SecretStr) or not re.fullmatch(r"[\x21-\x7e]{1,4096}", secret.get_secret_value()):
        raise InputError(f"{argument}: must be a text of visible ASCII characters (its value is not shown)")
    return secret


def place_of(argument: str, url: str | SecretStr) -> str:
    """``scheme://host:port`` of an http address, which may be shown; InputError, without the value, for another one."""
    text = secret_of(argument, url).get_secret_value()
    place = None
    try:
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and httpx.URL(text).host:
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            place = f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
    except (ValueError, httpx.InvalidURL):
        pass
    if place is None:
        raise InputError(f"{argument}: must be an address such as https://example.org/path (its value is not shown)")
    return place


def secrets_of(url: SecretStr) -> list[SecretStr]:
    """What is hidden of an address: the whole, its path, query, user and password, as typed, as sent and as read.

    Parts of less than four characters are hidden with the whole only: they are in every line.
    """
    typed = url.get_secret_value()
    sent = httpx.URL(typed)  # with the host in small letters, dots followed, what is not allowed %-encoded
    path, _, query = sent.raw_path.decode().partition("?")
    user, _, password = sent.userinfo.decode().partition(":")
    without_user = str(sent.copy_with(userinfo=b"")) if path.strip("/") or query else ""
    texts = {typed, str(sent), without_user, path.strip("/"), query, user, password}
    return [SecretStr(text) for text in texts | {unquote(text) for text in texts} if len(text) >= 4]


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, the object that the answer's JSON holds (empty: it holds none), Retry-After in seconds (None: absent)."""

    status: int
    content: Mapping[str, Any]
    retry_after: float | None

    @property
    def passing(self) -> bool:
        """Whether the same request could succeed a little later."""
        return self.status in (408, 425, 429) or self.status >= 500


class Outgoing:
    """Posts JSON for one service, called ``name`` in errors; ``secrets`` appear in none of them.

    The connection is opened at the first call, in the running event loop. Redirects are not followed.
    """

    def __init__(self, name: str, secrets: Iterable[SecretStr], timeout_s: float) -> None:
        self._name = name
        self._secrets = tuple(secrets)
        self._timeout_s = timeout_s
        self._client: httpx.AsyncClient | None = None
        keep_secret(secret.get_secret_value() for secret in self._secrets)

    async def post(self, url: str, content: Any, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer, whatever its status; AlertError where there is none."""
        problem = None
        body = bytearray()
        try:
            if self._client is None:  # reads the environment's proxies, which may be wrong
                self._client = httpx.AsyncClient(timeout=self._timeout_s)
            async with self._client.stream("POST", url, json=content, headers=headers) as response:
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > LARGEST:
                        problem = AlertError(f"{self._name}: the answer is longer than {LARGEST} bytes")
                        break
        except (httpx.HTTPError, OSError) as error:
            problem = AlertError(self.masked(f"no answer ({type(error).__name__}: {error})"), 0.0)
        except (httpx.InvalidURL, ValueError, RuntimeError, ImportError) as error:
            problem = AlertError(self.masked(f"cannot be asked ({type(error).__name__})"))
        if problem is not None:  # raised here: the original error knows the address
            raise problem
        return Answer(response.status_code, _object(bytes(body)), _seconds(response.headers.get("Retry-After")))

    def masked(self, text: str) -> str:
        """One short line for an error, without the secrets."""
        text = _any_of(secret.get_secret_value() for secret in self._secrets).sub("***", text)
        return f"{self._name}: {' '.join(without_controls(text).split())[:SHOWN]}"

    def refused(self, answer: Answer, why: str = "", retry_after: float | None = None) -> AlertError:
        """The error for an answer that is none of the good ones."""
        text = self.masked(f"HTTP {answer.status} {why}")
        wait = answer.retry_after if retry_after is None else retry_after
        return AlertError(text, (wait or 0.0) if answer.passing else None)

    async def aclose(self) -> None:
        """Close the connections; a later call opens them anew."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) else None
