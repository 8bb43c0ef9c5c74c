"""Whatever the network does to a symbol's candles, what is handed on is the fault-free sequence, each bar once."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aione_lab.live.feed import Candle
from aione_lab.live.sequencer import REMEMBERED, Sequencer, sound

STEP = 60_000
T0 = 1_750_000_020_000 // STEP * STEP


def bar(number: int, part: float = 1.0, source: str = "stream") -> Candle:
    """Bar ``number`` of the truth, ``part`` of the way through."""
    low, high = 100.0 + number % 7, 103.0 + number % 7
    close = low + 2.5 * part
    return Candle("BTCUSDT", T0 + number * STEP, low + 0.5, high, low, close, 10.0 * part + number, source=source)


def numbers(candles: list[Candle]) -> list[int]:
    return [(c.timestamp - T0) // STEP for c in candles]


def sequencer(flagged: bool = True, after: int = -1) -> Sequencer:
    return Sequencer("BTCUSDT", STEP, T0 + after * STEP, flagged=flagged)


def rest(first: int, newest: int) -> list[Candle]:
    """A REST answer whose last row, ``newest``, is unfinished."""
    return [bar(n, source="rest") for n in range(first, newest)] + [bar(newest, 0.3, source="rest")]


class Harness:
    """A sequencer, what came out of it, and a back-fill that always answers."""

    def __init__(self, flagged: bool) -> None:
        self.seq = sequencer(flagged)
        self.out: list[Candle] = []

    def handed(self) -> list[Candle]:
        return [c for c in self.out if not c.revised]

    def fill(self, now: int, lag: int = 0) -> None:
        """Ask for what is missing at the end of bar ``now``; the server may be ``lag`` bars behind."""
        if (span := self.seq.missing(T0 + (now + 1) * STEP)) is not None:
            first, newest = (span[0] - T0) // STEP, now + 1 - lag
            if newest >= first:
                self.out += self.seq.answer(rest(first, newest), span[0])


fates = st.sampled_from(["ok", "drop", "twice", "late", "nan", "lost"])


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans())
def test_any_fate_of_the_messages_gives_the_fault_free_sequence(data: st.DataObject, flagged: bool) -> None:
    """Drops, repetitions, delays, nonsense, lost connections, a lagging server: the same candles, byte for byte."""
    bars = data.draw(st.integers(3, 25))
    harness, later = Harness(flagged), []
    for n in range(bars):
        fate = data.draw(fates)
        for part in (0.2, 0.6):
            if data.draw(st.booleans()):
                harness.out += harness.seq.update(bar(n, part), False)
        for due, candle, closed in [entry for entry in later if entry[0] <= n]:
            harness.out += harness.seq.update(candle, closed)
            later.remove((due, candle, closed))
        if fate == "lost":
            harness.seq.disconnected()
        # Without the flag the stream's last word on a bar must come, or the connection must be seen to be lost:
        # nothing else tells that a bar's end was missed.
        elif fate == "drop" and not flagged:
            harness.seq.disconnected()
        elif fate == "nan":
            harness.out += harness.seq.update(replace(bar(n), close=math.nan), flagged)
            harness.seq.disconnected()
        elif fate == "late":
            later.append((n + data.draw(st.integers(1, 4)), bar(n), flagged))
            harness.seq.disconnected()
        elif fate in ("ok", "twice"):
            for _ in range(1 + (fate == "twice")):
                harness.out += harness.seq.update(bar(n), flagged)
        if data.draw(st.booleans()):
            harness.fill(n, data.draw(st.integers(0, 2)))
    harness.fill(bars - 1)
    handed = harness.handed()
    assert numbers(handed) == list(range(bars))
    assert [c.values[:5] for c in handed] == [bar(n).values[:5] for n in range(bars)]
    assert not [c for c in harness.out if c.revised]


@settings(max_examples=200, deadline=None)
@given(st.permutations(list(range(8))), st.lists(st.integers(0, 7), max_size=10))
def test_flagged_bars_in_any_order_come_out_in_sequence_once(order: list[int], repeated: list[int]) -> None:
    seq, out = sequencer(), []
    for n in [*order, *repeated]:
        before = seq.next
        out += seq.update(bar(n), True)
        assert seq.next >= before
    assert numbers(out) == list(range(8))
    assert seq.duplicates == len(repeated) and seq.missing(T0 + 8 * STEP) is None


def test_a_revision_is_handed_on_once_marked_and_out_of_sequence() -> None:
    seq = sequencer()
    assert seq.update(bar(0), True) == [bar(0)]
    other = replace(bar(0), volume=99.0)
    assert seq.update(other, True) == [replace(other, revised=True)]
    assert seq.update(other, True) == [] and seq.revisions == 1
    assert seq.update(bar(1), True) == [bar(1)]


def test_the_later_word_counts_while_nobody_has_heard_the_earlier() -> None:
    seq = sequencer()
    assert seq.update(bar(1), True) == []
    corrected = replace(bar(1), volume=99.0)
    assert seq.update(corrected, True) == []
    assert seq.update(bar(0), True) == [bar(0), corrected] and seq.revisions == 0


def test_unknown_optional_numbers_are_no_revision() -> None:
    seq = sequencer()
    seq.update(bar(0), True)
    assert seq.update(replace(bar(0), quote_volume=5.0, trades=2.0), True) == []


def test_unfinished_bars_never_come_out() -> None:
    seq = sequencer()
    assert seq.update(bar(-1, 0.9), False) == []
    for part in (0.1, 0.5, 0.9):
        assert seq.update(bar(0, part), False) == []
    assert seq.update(bar(1, 0.1), False) == []  # a successor is no flag: the last word on bar 0 may be missing
    assert seq.missing(T0 + STEP) == (T0, T0 + STEP)


def test_the_last_row_of_an_answer_is_never_final() -> None:
    """A stale answer ends with a bar in the middle of its life, whatever the clock says."""
    seq = sequencer()
    assert seq.answer([bar(0, 0.5, "rest")], T0) == []
    assert numbers(seq.answer(rest(0, 1), T0)) == [0]


def test_without_flags_only_a_bar_seen_to_begin_and_to_be_followed_is_final() -> None:
    seq = sequencer(flagged=False)
    out = []
    for n, part in [(0, 0.4), (0, 0.8), (1, 0.1), (1, 1.0), (2, 0.1)]:
        out += seq.update(bar(n, part), False)
    assert out == [] and seq.missing(T0 + 2 * STEP) == (T0, T0 + STEP)  # bar 1 waits for bar 0
    assert numbers(seq.answer(rest(0, 2), T0)) == [0, 1]
    assert numbers(seq.update(bar(2), False) + seq.update(bar(3, 0.1), False)) == [2]
    seq.disconnected()
    assert seq.update(bar(3), False) + seq.update(bar(4, 0.1), False) == []
    assert seq.update(bar(6, 0.1), False) == []  # bar 5 is missing: the end of bar 4 may be, too


def test_without_flags_an_older_word_that_comes_late_changes_nothing() -> None:
    seq = sequencer(flagged=False)
    seq.update(bar(-1), False)
    for n, part in [(0, 0.4), (0, 1.0), (0, 0.6), (1, 0.1)]:
        out = seq.update(bar(n, part), False)
    assert out == [bar(0)]
    assert seq.update(bar(0, 0.7), False) == []
    grown = replace(bar(0), volume=50.0)
    assert seq.update(grown, False) == [replace(grown, revised=True)]


def test_without_flags_a_bar_whose_end_the_stream_lost_does_not_revise_what_rest_told() -> None:
    seq = sequencer(flagged=False)
    seq.update(bar(-1), False)
    for n, part in [(0, 0.1), (0, 0.6)]:
        assert seq.update(bar(n, part), False) == []
    assert seq.answer(rest(0, 1), T0) == [bar(0, source="rest")]
    assert seq.update(bar(1, 0.1), False) == [] and seq.revisions == 0
    assert seq.update(bar(1), False) == [] and seq.update(bar(2, 0.1), False) == [bar(1)]


def test_a_bar_the_exchange_does_not_have_is_passed_over_when_told_twice() -> None:
    seq = sequencer()
    answer = [bar(0, source="rest"), bar(2, source="rest"), bar(3, 0.2, "rest")]
    assert numbers(seq.answer(answer, T0)) == [0]
    assert numbers(seq.answer(answer[1:], T0 + STEP)) == [2]
    assert seq.absent == 1
    assert seq.update(bar(1), True) == [replace(bar(1), revised=True)]  # too late for the engine, not for the lake


def test_nonsense_is_refused_and_neither_final_nor_absent() -> None:
    seq = sequencer()
    for wrong in (
        replace(bar(0), close=math.nan),
        replace(bar(0), high=1.0),
        replace(bar(0), volume=-1.0),
        replace(bar(0), timestamp=T0 + 1),
        replace(bar(0), taker_buy_volume=1e9),
    ):
        assert seq.update(wrong, True) == []
    assert seq.rejected == 5
    broken = replace(bar(0, source="rest"), open=math.nan)
    for _ in range(3):
        assert seq.answer([broken, *rest(1, 2)], T0) == []
    assert seq.absent == 0 and numbers(seq.answer(rest(0, 2), T0)) == [0, 1]


def test_what_is_asked_for_ends_before_what_waits_and_gives_patience() -> None:
    seq = sequencer()
    assert seq.missing(T0 + STEP - 1) is None
    assert seq.missing(T0 + STEP + 1999, patience_ms=2000) is None
    assert seq.missing(T0 + STEP + 2000, patience_ms=2000) == (T0, T0 + STEP)
    seq.update(bar(2), True)
    seq.update(bar(3), True)
    assert seq.missing(T0 + 4 * STEP) == (T0, T0 + 2 * STEP)


def test_memory_is_bounded() -> None:
    seq = sequencer()
    for n in range(3 * REMEMBERED):
        seq.update(bar(n), True)
    assert len(seq._handed) == REMEMBERED and not seq._waiting and not seq._told_absent
    assert seq.update(replace(bar(0), volume=99.0), True) == []  # too old to be compared


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
def test_sound_agrees_with_the_lake_on_each_number(name: str) -> None:
    assert sound(bar(3))
    assert not sound(replace(bar(3), **{name: math.nan}))
    assert not sound(replace(bar(3), **{name: math.inf}))
