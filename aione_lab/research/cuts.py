"""Where to cut: at random, where an output is active or jumps, and where a screen saw something stir.

A cut right after bar t shows whether bar t looks ahead. A function that does so on a share p of its bars escapes m
random cuts with probability (1 − p)^m. Two things do better for rare peeks: cuts right after bars on which a trigger
is active or a number jumps, and the screen, which tries many cuts in one run.
"""

from __future__ import annotations

import numpy as np

from aione_lab.backtest.prepare import frame_ms
from aione_lab.errors import InputError
from aione_lab.research.futures import BLANK, CUT_OFF, Inputs
from aione_lab.research.outputs import Computation, Output, unequal

Plan = list[tuple[int, str]]
"""(number of the first bar that changes, name of the future)"""

EARLY = (2, 3, 5, 10, 20, 50, 100, 200, 500)
"""A warm-up filled in from behind shows at the very beginning and nowhere else."""

UP, DOWN = "× 1e6", "× 0.001"
_EARLY_FUTURES = (CUT_OFF, UP, *BLANK)
_FEW = 8  # up to so many different values are states, more are numbers
_SPACING = 480  # bars from one changed block of the screen to the next
_STIRS = 1e-9


def random_cuts(n_bars: int, n: int, random: np.random.Generator) -> np.ndarray:
    """Up to ``n`` different bars from 1 to the last, ascending."""
    return np.sort(random.choice(np.arange(1, n_bars), size=min(n, n_bars - 1), replace=False))


def early_plan(n_bars: int, futures: list[str]) -> Plan:
    """The first few bars under the futures that show a beginning that was filled in."""
    return [(cut, future) for cut in EARLY if cut < n_bars for future in _EARLY_FUTURES if future in futures]


def aimed_cuts(inputs: Inputs, whole: Output, n: int, random: np.random.Generator) -> np.ndarray:
    """About ``n`` cuts right after bars where some column is active, starts to be, or jumps; after fills likewise."""
    opens = frame_ms(inputs.candles)
    by_bar = [block for block in whole.blocks if len(block.times) == len(opens)]
    spots: list[np.ndarray] = [_active(row) for block in by_bar for row in block.values()]
    if whole.trades is not None and len(whole.trades.entry):
        fills = np.concatenate([whole.trades.entry, whole.trades.exit])
        spots.append(np.searchsorted(opens, fills, side="right") - 1)
    spots = [bars for bars in spots if len(bars)]
    if not spots:
        return np.zeros(0, dtype=np.int64)
    each = -(-n // len(spots))
    order = random.permutation(len(spots))
    chosen = np.concatenate([random.choice(spots[i], size=min(each, len(spots[i])), replace=False) for i in order])[:n]
    return np.unique(np.clip(chosen + 1, 1, len(opens) - 1))


def _active(values: np.ndarray) -> np.ndarray:
    """Bars on which a state is not the usual one (its first bars twice), or a number jumps most (1 %)."""
    known = ~np.isnan(values)
    distinct, counts = np.unique(values[known], return_counts=True)
    appears = np.append(False, known[1:] & ~known[:-1])
    if len(distinct) <= _FEW:
        active = known if len(distinct) < 2 else known & (values != distinct[counts.argmax()])
        starts = active & ~np.append(False, active[:-1])
        return np.concatenate([np.flatnonzero(active), np.flatnonzero(starts), np.flatnonzero(appears)])
    jumps = np.abs(np.diff(values, prepend=values[0]))
    jumps[~np.isfinite(jumps)] = 0.0
    largest = np.argsort(jumps, kind="stable")[-max(1, len(values) // 100) :]
    return np.concatenate([largest, np.flatnonzero(appears)])


def screened_plan(computation: Computation, inputs: Inputs, whole: Output, n: int, random: np.random.Generator) -> Plan:
    """Cuts at which a column stirred just *before* a changed block of candles: worth a real cut each.

    Each of ``n`` runs raises or lowers a block of candles every 480 bars and looks at the bars right before every
    block, so that it tries hundreds of cuts at once. Where a column's memory is longer than the space between, it
    stirs for an honest reason; hence nothing is judged here, and such a column proposes few cuts.
    """
    block = whole.blocks[0]
    if whole.trades is not None:
        return []
    n_bars, values = len(block.times), block.values()
    every = min(_SPACING, n_bars // 4)
    length = every // 4
    if length < 1:
        return []
    proposed: list[Plan] = [[] for _ in block.items]
    for first in random.integers(every, 2 * every, size=n):
        for factor, future in ((1.3, UP), (0.7, DOWN)):
            try:
                other = computation.run(inputs.with_blocks(int(first), every, length, factor)).blocks[0]
            except InputError:
                continue
            if other.items != block.items:
                continue
            edges = np.arange(first, n_bars, every)
            near = edges[:, None] - 1 - np.arange(length)
            mine, theirs = values[:, near], other.values()[:, near]
            stirs = unequal(mine, theirs, _STIRS * np.maximum(np.abs(mine), np.abs(theirs)))
            for i in range(len(proposed)):
                hits = stirs[i].any(axis=1)
                places = edges[hits] if 2 * hits.sum() <= len(edges) else edges[:1]
                proposed[i] += [(int(place), future) for place in places]
    each = max(1, 4 * n // len(proposed))
    plan: Plan = []
    for places in proposed:
        chosen = random.permutation(len(places))[:each]
        plan += [places[i] for i in chosen]
    return plan
