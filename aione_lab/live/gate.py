"""`Gate`: candles that wait until everything that belongs to their bar is known."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aione_lab.live.feed import Candle
from aione_lab.live.funding_book import FundingBook
from aione_lab.units import DAY_MS

REFERENCE_WAIT_S = 600.0
"""Seconds that a candle waits for the reference's of the same bar. Then it is decided without: a stated exception."""

KEPT_MS = 30 * DAY_MS
"""How far behind the reference's newest close a symbol may lie: closes before that are let go of."""


class Ready(NamedTuple):
    """A candle that may be decided, with the reference's close (NaN: it has none) and the funding rate of its bar."""

    candle: Candle
    reference_close: float
    funding_rate: float


class Gate:
    """Lines of closed candles, one a symbol, in order; the first of each leaves when its bar is complete.

    A symbol whose candle is late holds up nobody: its line is empty. Only the reference's close is waited for, because
    a bar without it would differ from a replay; that of a bar the reference does not have is known when its next one
    comes.
    """

    def __init__(self, symbols: Iterable[str], reference: str | None, funding: FundingBook) -> None:
        self._lines: dict[str, deque[tuple[Candle, float]]] = {name: deque() for name in symbols}
        self._open = 0  # lines that are not empty
        self._newest: dict[str, int] = {}
        self._reference, self._funding = reference, funding
        self._closes: dict[int, float] = {}
        self._last_close = self._forgotten = 0
        self.without_reference = 0
        self.duplicates = 0

    def start(self, last: Mapping[str, int], closes: Mapping[int, float]) -> None:
        """Stand behind the bars ``last`` (by symbol); ``closes`` of the reference that bars to come may need."""
        self._newest = dict(last)
        self._closes = dict(closes)
        self._last_close = max(closes, default=0)

    def put(self, candle: Candle, now: float) -> bool:
        """Take a candle at ``now`` (steady seconds); False where its bar came before."""
        if candle.timestamp <= self._newest.get(candle.symbol, 0):
            self.duplicates += 1
            return False
        self._newest[candle.symbol] = candle.timestamp
        line = self._lines[candle.symbol]
        self._open += not line
        line.append((candle, now))
        if candle.symbol == self._reference:
            self._closes[candle.timestamp] = candle.close
            self._last_close = candle.timestamp
        return True

    def complete(self) -> bool:
        """Whether no symbol's candle is still to come before something can be decided together."""
        return self._open == len(self._lines)

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def waits_for_reference(self) -> bool:
        """Whether a candle waits that only candles still to come from the feed can set free."""
        if self._reference is None:
            return False
        return any(line and line[0][0].timestamp > self._last_close for line in self._lines.values())

    def waiting(self, symbol: str) -> int:
        """Candles of a symbol that wait."""
        return len(self._lines[symbol])

    def take(self, now: float, ended: bool = False) -> list[Ready]:
        """At most one candle of each symbol. ``ended``: nothing will come any more, what is not known is not there."""
        out = []
        for symbol, line in self._lines.items():
            if not line:
                continue
            candle, since = line[0]
            close = self._close(candle, ended or now - since >= REFERENCE_WAIT_S)
            if close is None:
                continue
            rate = self._funding.rate(symbol, candle.timestamp)
            if rate is None:
                continue
            line.popleft()
            self._open -= not line
            out.append(Ready(candle, close, rate))
        return out

    def _close(self, candle: Candle, at_last: bool) -> float | None:
        if self._reference is None:
            return math.nan
        close = self._closes.get(candle.timestamp)
        if close is None and candle.timestamp < self._last_close:
            return math.nan  # the reference has no such bar
        if close is None and at_last:
            self.without_reference += 1
            return math.nan
        return close

    def forget(self, last: Iterable[int]) -> None:
        """Let go of closes that no bar after ``last`` (of each symbol the last one decided) can need."""
        oldest = max(min(last, default=0), self._last_close - KEPT_MS)
        if oldest == self._forgotten:  # a symbol that is silent must not make every bar look through them all
            return
        self._forgotten = oldest
        for time in [time for time in self._closes if time <= oldest and time < self._last_close]:
            del self._closes[time]

    @property
    def closes(self) -> dict[int, float]:
        """The reference's closes that are kept, by open time."""
        return dict(self._closes)
