"""Order out of what a network delivers: one symbol's candles, each once, in sequence, final.

Pure and synchronous: updates and answers go in, in any order and as often as they like, and out come the
candles that may be handed on. A bar is final when

* the exchange flagged it as closed, or
* on streams without that flag, when an update of the very next bar comes over the connection on which the bar was seen
  to begin (of the bar under way when a connection was made, the stream may have missed the end or shown a stale
  snapshot), or
* a REST answer holds a later bar too: an answer's last row is unfinished or stale, whatever the clock says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aione_lab.lake.absent import Span
from aione_lab.lake.schema import CANDLE_COLUMNS, value_faults
from aione_lab.live.feed import Candle, same

REMEMBERED = 120
"""Bars handed out that are kept, to tell a repetition from a revision."""

TOLD_ABSENT = 2
"""Answers that must agree before a bar counts as one the exchange does not have."""


class Sequencer:
    """Candles of ``symbol`` after the bar that opened at ``after`` (ms), bars ``step`` ms long.

    ``flagged``: whether the stream marks closed bars. Every method returns the candles to hand on now:
    final ones in sequence without a hole (but for bars that the exchange does not have), and among them
    revisions (``revised=True``) of bars that were handed on before. ``filled_in_a_row`` counts the bars with trades
    that REST had to fill since the stream last brought one.
    """

    def __init__(self, symbol: str, step: int, after: int, *, flagged: bool = True) -> None:
        self.symbol, self.step, self.flagged = symbol, step, flagged
        self.next = after // step * step + step
        self.last_closed: int | None = None
        self.gaps_filled = self.revisions = self.duplicates = self.rejected = self.absent = 0
        self.filled_in_a_row = 0
        self._waiting: dict[int, Candle] = {}
        self._handed: dict[int, Candle] = {}
        self._skipped: dict[int, None] = {}
        self._told_absent: dict[int, int] = {}
        self._forming: Candle | None = None
        self._seen_to_begin = False

    def update(self, candle: Candle, closed: bool) -> list[Candle]:
        """Take a candle from the stream, unfinished or ``closed``."""
        if candle.timestamp % self.step or (closed or not self.flagged) and not sound(candle):
            self.rejected += 1
            return []
        if closed:
            return self._final(candle)
        return [] if self.flagged else self._succeed(candle)

    def disconnected(self) -> None:
        """Forget the bar under way: what the stream says next belongs to another connection."""
        self._forming, self._seen_to_begin = None, False

    def missing(self, now_ms: int, patience_ms: int = 0) -> Span | None:
        """Bars that ended ``patience_ms`` before ``now_ms`` (the exchange's time) and are not here: [start, end)."""
        end = (now_ms - patience_ms) // self.step * self.step
        while end > self.next and end - self.step in self._waiting:
            end -= self.step
        return (self.next, end) if self.next < end else None

    def answer(self, rows: Sequence[Candle], asked: int) -> list[Candle]:
        """Take a REST answer: rows in order, of the bars from ``asked`` on all or the first few."""
        if not rows:
            return []
        newest = rows[-1].timestamp
        out: list[Candle] = []
        told = set()
        for row in rows:
            told.add(row.timestamp)
            if row.timestamp % self.step or not sound(row):
                self.rejected += 1
            elif row.timestamp < newest:
                out += self._final(row)
        for at in range(max(asked, self.next), newest, self.step):
            if at not in told and at not in self._waiting:
                self._told_absent[at] = self._told_absent.get(at, 0) + 1
        return out + self._drain()

    def _final(self, candle: Candle) -> list[Candle]:
        at = candle.timestamp
        if at >= self.next:
            known = self._waiting.get(at)
            if known is not None and same(known, candle):
                self._repeated(candle)
            else:  # the later word counts, as long as nobody has heard the earlier one
                self._waiting[at] = candle
            return self._drain()
        known = self._handed.get(at)
        if at in self._skipped:
            del self._skipped[at]
        elif known is None or same(known, candle):
            self._repeated(candle)
            return []
        self.revisions += 1
        self._handed[at] = candle
        return [replace(candle, revised=True)]

    def _succeed(self, candle: Candle) -> list[Candle]:
        """An update on a stream without flags: of the newest bar, of its successor, or of one that is over."""
        self.filled_in_a_row = 0
        forming = self._forming
        if forming is None:
            self._forming = candle
            return []
        if candle.timestamp > forming.timestamp:
            # A successor that is not the very next bar tells that something was lost, perhaps this bar's end too.
            fresh = self._seen_to_begin and candle.timestamp == forming.timestamp + self.step
            out = self._fuller(forming) if fresh else []
            self._forming, self._seen_to_begin = candle, True
            return out
        if candle.timestamp == forming.timestamp:
            if candle.volume >= forming.volume:
                self._forming = candle
            return []
        if self._known(candle.timestamp) is None:
            self.duplicates += 1
            return []
        return self._fuller(candle)

    def _fuller(self, candle: Candle) -> list[Candle]:
        """Take a bar that a flagless stream ended, unless one with as much volume is known.

        Volume only grows within a bar: less of it is an older word, of a bar whose end the stream lost perhaps.
        """
        known = self._known(candle.timestamp)
        if known is not None and candle.volume <= known.volume:
            self.duplicates += 1
            return []
        return self._final(candle)

    def _known(self, at: int) -> Candle | None:
        return self._handed.get(at) or self._waiting.get(at)

    def _repeated(self, candle: Candle) -> None:
        self.duplicates += candle.source == "stream"  # by REST we ask for more than is missing

    def _drain(self) -> list[Candle]:
        out = []
        while True:
            at = self.next
            candle = self._waiting.pop(at, None)
            if candle is not None:
                out.append(candle)
                self._remember(candle)
            elif self._told_absent.get(at, 0) >= TOLD_ABSENT:
                self.absent += 1
                self._skipped[at] = None
                while len(self._skipped) > REMEMBERED:
                    del self._skipped[next(iter(self._skipped))]
            else:
                return out
            self._told_absent.pop(at, None)
            self.next = at + self.step

    def _remember(self, candle: Candle) -> None:
        self.last_closed = candle.timestamp
        self._handed[candle.timestamp] = candle
        while len(self._handed) > REMEMBERED:
            del self._handed[next(iter(self._handed))]
        if candle.source == "rest":
            self.gaps_filled += 1
            self.filled_in_a_row += candle.volume > 0  # of a bar without trades a stream may rightly say nothing
        else:
            self.filled_in_a_row = 0


def sound(candle: Candle) -> bool:
    """Whether the numbers can be those of a candle, by the rules of the lake."""
    values = {name: np.array([value]) for name, value in zip(CANDLE_COLUMNS, candle.values, strict=True)}
    return not any(bad[0] for _, bad, _ in value_faults(values))
