"""How many bars a number needs until it no longer depends on where its candles began.

The same candles are started at several later places, on any minute of an hour and a day. From which bar on does
every one of these runs say what the long run says? Windowed numbers agree to the byte once their window is full. An
exponential average carries its seed for ever, shrinking: for it the bar counts from which the difference stays below
``TOLERANCE``, and the bar of equal bytes stands beside it. Dated rows (alerts, trades) are compared where both runs
have one at that time, and count from the first such row on. What hangs on the account (equity, quantities, profits) or
on a history longer than the candles never settles, and is reported so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aione_lab.backtest.prepare import frame_ms
from aione_lab.errors import InputError
from aione_lab.research.futures import Inputs
from aione_lab.research.outputs import Block, Computation, Item, Output, unequal
from aione_lab.units import DAY_MS

TOLERANCE = 1e-6
"""Relative to the number itself plus its median size: a MACD near zero is not asked for digits it never had."""

N_STARTS = 8
_TAIL = 0.1  # share of the watched bars that must agree at the end before anything is called settled


@dataclass(frozen=True)
class WarmUp:
    """Bars until settled, by item: None where it never settled within ``watched`` bars, absent where never seen."""

    near: dict[Item, int | None]  # within TOLERANCE
    exact: dict[Item, int | None]  # to the byte
    watched: int  # bars after the last start
    signals_begin: int | None  # bars until the engine's ``warm`` feature is 1


def warm_up(computation: Computation, inputs: Inputs, whole: Output, random: np.random.Generator) -> WarmUp:
    """Start ``inputs`` at later places and compare with ``whole``, what all of them gave."""
    opens = frame_ms(inputs.candles)
    n = len(opens)
    # The worst alignment: a day missed by one bar.
    midnights = np.flatnonzero(opens[n // 8 : n // 2] % DAY_MS == inputs.step)
    starts = random.choice(np.arange(n // 8, max(n // 2, n // 8 + 1)), size=N_STARTS)
    if len(midnights):
        starts[0] = n // 8 + midnights[-1]
    near: dict[Item, int | None] = {}
    exact: dict[Item, int | None] = {}
    begin: int | None = 0 if computation.is_engine else None
    watched = n - int(starts.max())
    for start in np.unique(starts):
        try:
            other = computation.run(inputs.since(int(opens[start])))
        except InputError:
            continue  # too few candles for a user's function; the others tell
        for one, two in zip(whole.blocks, other.blocks, strict=True):
            for item, close, same in _settled(one, two, opens, int(start), watched):
                _keep_longest(near, item, close)
                _keep_longest(exact, item, same)
        if begin is not None:
            warm = np.flatnonzero(other.blocks[0].values()[other.blocks[0].items.index(("feature", "warm"))] == 1.0)
            begin = max(begin, int(warm[0]) + 1) if len(warm) else None
    return WarmUp(near, exact, watched, begin)


def _settled(
    one: Block, two: Block, opens: np.ndarray, start: int, watched: int
) -> list[tuple[Item, int | None, int | None]]:
    """(item, bars until within the tolerance, bars until equal) of every item seen after bar number ``start``."""
    end, begin = start + watched, 1
    if len(one.times) == len(opens):
        mine, times, theirs = one.values()[:, start:], one.times[start:], two.values()
    else:  # dated rows: those that both runs have; whether a row is there at all is told by the signals
        times, left, right = np.intersect1d(one.times, two.times, return_indices=True)
        mine, theirs = one.values()[:, left], two.values()[:, right]
        if len(times):  # nothing is shown before the first of them
            begin = int(np.searchsorted(opens, times[0])) - start + 1
    place = {item: i for i, item in enumerate(two.items)}
    found: list[tuple[Item, int | None, int | None]] = []
    for i, item in enumerate(one.items):
        known = np.isfinite(mine[i])
        if not known.any() or item not in place:
            continue
        a, b = mine[i], theirs[place[item]]
        near = 0.0 if item[1].endswith("_time") else TOLERANCE * (np.abs(a) + np.median(np.abs(a[known])))
        bars: list[int | None] = []
        for bound in (near, one.rounding * np.abs(a) if one.rounding else 0.0):
            wrong = np.flatnonzero(unequal(a, b, bound))
            last = int(np.searchsorted(opens, times[wrong[-1]])) if len(wrong) else start - 1
            agreed = last < start or (times[-1] > opens[last] and min(end, len(opens)) - last > _TAIL * watched)
            bars.append(max(begin, last + 2 - start) if agreed else None)
        found.append((item, bars[0], bars[1]))
    return found


def _keep_longest(kept: dict[Item, int | None], item: Item, bars: int | None) -> None:
    before = kept.get(item, 0)
    kept[item] = None if bars is None or before is None else max(before, bars)
