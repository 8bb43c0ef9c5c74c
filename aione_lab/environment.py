"""What comes from environment variables or ``.env``: where Redis is, keys of services, the log level."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from aione_lab.errors import InputError


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}|[0-9A-Fa-f:.]{2,45}", value):
        raise ValueError("must be a host name or address; a whole URL belongs into REDIS_URL")
    return value


class Environment(BaseSettings):
    """The variables that the lab reads; a real one wins over the same one in ``.env``, an empty one counts as absent.

    Secrets are ``SecretStr``: no repr, log line or error shows them, ``get_secret_value()`` hands them out.
    ``REDIS_URL`` is one, because it may hold a password. Other variables and lines of ``.env`` are ignored.
    Raises InputError that names the variable, without its value.
    """

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True
    )

    REDIS_URL: SecretStr | None = None
    REDIS_HOST: Annotated[str, AfterValidator(_host)] | None = None
    REDIS_PORT: Annotated[int, Field(ge=1, le=65_535)] = 6379
    BINANCE_API_KEY: SecretStr | None = None
    BINANCE_SECRET_KEY: SecretStr | None = None
    TELEGRAM_TOKEN: SecretStr | None = None
    ENRICHER_KEY: SecretStr | None = None
    ADMIN_ID: int | None = Field(None, description="Telegram chat that gets the alerts; groups are negative")
    LOG_LEVEL: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
        BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
    ] = "INFO"

    def __init__(self, **values: Any) -> None:
        problem = None
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "environment"
            problem = f"{field}: {first['msg'].removeprefix('Value error, ')}"
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            problem = f".env: cannot be read ({reason})"
        if problem:  # raised here: the original error holds the values, and would hang on as the context
            raise InputError(problem)

    def redis_url(self) -> SecretStr | None:
        """URL of Redis: ``REDIS_URL``, else made of host and port; None where neither URL nor host is given."""
        if self.REDIS_URL is not None or self.REDIS_HOST is None:
            return self.REDIS_URL
        host = f"[{self.REDIS_HOST}]" if ":" in self.REDIS_HOST else self.REDIS_HOST
        return SecretStr(f"redis://{host}:{self.REDIS_PORT}/0")

    @classmethod
    def without_file(cls) -> Self:
        """The variables of the process alone, whatever a ``.env`` says."""
        return cls(_env_file=None)
