"""Intervals, UTC milliseconds, bar numbers and symbols: the words every other module uses."""

from __future__ import annotations

import datetime as dt
import operator
import re
from functools import lru_cache
from typing import Any

from aione_lab.errors import InputError

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

INTERVALS: dict[str, int] = {
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": HOUR_MS,
    "2h": 2 * HOUR_MS,
    "4h": 4 * HOUR_MS,
    "6h": 6 * HOUR_MS,
    "8h": 8 * HOUR_MS,
    "12h": 12 * HOUR_MS,
    "1d": DAY_MS,
}
"""Interval name → length in milliseconds; every one divides a UTC day."""

# Candles outside these years are broken stamps (32-bit, seconds or microseconds), not history.
EARLIEST_MS = 1_230_768_000_000  # 2009-01-01, the first Bitcoin block
LATEST_MS = 4_102_444_800_000  # 2100-01-01

_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9_]{0,39}")
_CCXT = re.compile(r"([A-Za-z0-9]{1,20})/([A-Za-z0-9]{1,10})(?::[A-Za-z0-9]{1,10}(?:-(\d{6}))?)?")


def interval_ms(interval: str, argument: str = "interval") -> int:
    """Length of ``interval`` in milliseconds; InputError for an unknown one."""
    if not isinstance(interval, str) or interval not in INTERVALS:
        raise InputError.of(argument, interval, f"must be one of {', '.join(INTERVALS)}")
    return INTERVALS[interval]


def parse_symbol(symbol: str, argument: str = "symbol") -> str:
    """Exchange id of ``symbol`` (``BTCUSDT``); the ccxt form ``BTC/USDT:USDT`` is accepted.

    The result holds only A-Z, 0-9 and ``_``, so that it is safe in a path, a key or HTML.
    Lower case is folded. Raises InputError for everything else.
    """
    if isinstance(symbol, str):
        ccxt = _CCXT.fullmatch(symbol)
        if ccxt:
            base, quote, expiry = ccxt.groups()
            return f"{base}{quote}{'_' + expiry if expiry else ''}".upper()
        if symbol.isascii() and _SYMBOL.fullmatch(symbol.upper()):
            return symbol.upper()
    raise InputError.of(
        argument, symbol, "must be an exchange id such as BTCUSDT or a ccxt symbol such as BTC/USDT:USDT"
    )


def to_ms(time: Any, argument: str = "time") -> int:
    """UTC milliseconds of ``time``: an int (already ms), an ISO text or anything with ``timestamp()``.

    A text without an offset is read as UTC, as a convenience of the command line and notebooks; a
    datetime object without a zone is refused, because it may have been meant as local time.
    """
    if isinstance(time, bool) or time is None:
        raise InputError.of(argument, time, "must be UTC milliseconds, an ISO date or a datetime with a zone")
    if hasattr(time, "__index__"):
        try:
            ms = operator.index(time)
        except TypeError:  # an array of several has the method and is no integer
            raise InputError.of(argument, time, "must be one time, not several") from None
    elif isinstance(time, str):
        try:
            parsed = dt.datetime.fromisoformat(time.strip())
        except ValueError:
            raise InputError.of(argument, time, "must be an ISO date such as 2025-05-10 or 2025-05-10T12:30Z") from None
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=dt.UTC)
        ms = _datetime_ms(parsed)
    elif isinstance(time, dt.datetime):
        if time.tzinfo is None or time.utcoffset() is None:
            raise InputError.of(argument, time, "must have a time zone (UTC), a naive time is ambiguous")
        ms = _datetime_ms(time)
    elif isinstance(time, dt.date):
        ms = _datetime_ms(dt.datetime(time.year, time.month, time.day, tzinfo=dt.UTC))
    else:
        raise InputError.of(argument, time, "must be UTC milliseconds, an ISO date or a datetime with a zone")
    if not EARLIEST_MS <= ms < LATEST_MS:
        raise InputError.of(argument, time, "must lie between 2009 and 2100 (integers are UTC milliseconds)")
    return ms


def _datetime_ms(time: dt.datetime) -> int:
    return (time - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)


@lru_cache(maxsize=1024)
def iso(ms: int) -> str:
    """ISO text of UTC milliseconds, ``2025-05-10T12:30:00+00:00``."""
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat()


def bar_number(open_ms: int, step_ms: int) -> int:
    """Absolute number of the bar that opens at ``open_ms``: whole intervals since 1970."""
    return open_ms // step_ms
