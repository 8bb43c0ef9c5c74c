"""Environment variables and ``.env``: read, checked, and no secret shown."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from aione_lab.environment import Environment
from aione_lab.errors import InputError

CANARY = "canary-s3cret"
SECRETS = ("REDIS_URL", "BINANCE_API_KEY", "BINANCE_SECRET_KEY", "TELEGRAM_TOKEN", "ENRICHER_KEY")


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in Environment.model_fields:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_defaults() -> None:
    environment = Environment()
    assert environment.redis_url() is None and environment.LOG_LEVEL == "INFO" and environment.ADMIN_ID is None


def test_a_variable_wins_over_the_file(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nothing_set / ".env").write_text(
        "REDIS_HOST=filehost\nREDIS_PORT=7000\nLOG_LEVEL=debug\nADMIN_ID=-100123\nSOMETHING_ELSE=1\n"
    )
    monkeypatch.setenv("REDIS_HOST", "realhost")
    monkeypatch.setenv("REDIS_PORT", "")
    environment = Environment()
    url = environment.redis_url()
    assert url is not None and url.get_secret_value() == "redis://realhost:7000/0"
    assert environment.ADMIN_ID == -100123 and environment.LOG_LEVEL == "DEBUG"
    assert Environment.without_file().REDIS_PORT == 6379


@pytest.mark.parametrize(("host", "url"), [("::1", "redis://[::1]:6379/0"), ("10.0.0.7", "redis://10.0.0.7:6379/0")])
def test_addresses(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_HOST", host)
    made = Environment().redis_url()
    assert made is not None and made.get_secret_value() == url


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_PORT", "six"),
        ("REDIS_PORT", "0"),
        ("REDIS_HOST", f"user:{CANARY}@host"),
        ("REDIS_HOST", f"redis://:{CANARY}@host"),
        ("ADMIN_ID", CANARY),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_a_bad_variable_is_named_and_not_quoted(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for secret in SECRETS:
        monkeypatch.setenv(secret, CANARY)
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as error:
        Environment()
    assert str(error.value).startswith(f"{name}: ") and "\n" not in str(error.value)
    assert CANARY not in "".join(traceback.format_exception(error.value)) and error.value.__context__ is None


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for secret in SECRETS:
        monkeypatch.setenv(secret, CANARY)
    environment = Environment()
    shown = [repr(environment), str(environment), environment.model_dump_json(), str(environment.model_dump())]
    assert CANARY not in "".join(shown)
    assert all(getattr(environment, secret).get_secret_value() == CANARY for secret in SECRETS)


def test_a_file_that_is_no_text(nothing_set: Path) -> None:
    (nothing_set / ".env").write_bytes(b"REDIS_HOST=\xff\xfe\n")
    with pytest.raises(InputError, match=r"^\.env: "):
        Environment()
