"""Rolling windows as aligned blocks: cheap, and bit-identical wherever the stream began.

A window of ``size`` bars is cut into blocks that start at absolute bar numbers divisible by ``size``.
A window has ``size`` rows of the symbol's ``ring``, from row ``first`` on (moments two such sets, pairs six rows a
bar). While a block fills, those before ``offset`` hold its raw values, and the state a running prefix aggregate; the
rest still hold the *suffix* aggregates of the block before it. The window that ends at the newest bar is the suffix
at ``offset`` merged with the prefix. When a block is full its raw values are turned into suffix aggregates in place,
from the last to the first.

No aggregate ever depends on a value outside its two blocks, so two streams that began at different
bars agree to the last bit as soon as both windows are full, which running add/subtract sums never do.
A window is full when ``count >= size``; until then the value functions return NaN.
"""

from __future__ import annotations

import math

from aione_lab.engine.rings import PAIR
from aione_lab.jit import njit


@njit
def sum_push(window, ring, first, x, size, bar):
    """Add ``x``, the value of absolute bar ``bar``. A NaN makes exactly the windows holding it NaN."""
    if window.count == 0:
        window.offset = bar % size
        window.total = 0.0
    k = window.offset
    ring[first + k] = x
    window.total += x
    window.count += 1
    if k + 1 < size:
        window.offset = k + 1
        return
    suffix = 0.0
    for i in range(size - 1, -1, -1):
        suffix += ring[first + i]
        ring[first + i] = suffix
    window.offset = 0
    window.total = 0.0


@njit
def sum_so_far(window, ring, first):
    """Sum over the last ``min(count, size)`` values (positions before the start hold zero)."""
    return ring[first + window.offset] + window.total


@njit
def sum_value(window, ring, first, size):
    """Sum over the last ``size`` values; NaN until there are that many."""
    if window.count < size:
        return math.nan
    return ring[first + window.offset] + window.total


@njit
def sums_push(window, ring, xs, ys, x, y, size, bar):
    """Add ``x`` and ``y`` to two sums over the same bars; ``xs, ys``: the first rows of the two."""
    if window.count == 0:
        window.offset = bar % size
        window.total_x = window.total_y = 0.0
    k = window.offset
    ring[xs + k] = x
    ring[ys + k] = y
    window.total_x += x
    window.total_y += y
    window.count += 1
    if k + 1 < size:
        window.offset = k + 1
        return
    suffix_x = suffix_y = 0.0
    for i in range(size - 1, -1, -1):
        suffix_x += ring[xs + i]
        suffix_y += ring[ys + i]
        ring[xs + i] = suffix_x
        ring[ys + i] = suffix_y
    window.offset = 0
    window.total_x = window.total_y = 0.0


@njit
def sums_value(window, ring, xs, ys, size):
    """Both sums over the last ``size`` bars; NaN until there are that many."""
    if window.count < size:
        return math.nan, math.nan
    k = window.offset
    return ring[xs + k] + window.total_x, ring[ys + k] + window.total_y


@njit
def range_push(window, ring, highs, lows, high, low, size, bar):
    """Add a bar to a rolling highest high and lowest low; ``highs, lows``: the first rows of the two."""
    if window.count == 0:
        window.offset = bar % size
    k = window.offset
    ring[highs + k] = high
    ring[lows + k] = low
    if window.count == 0 or k == 0 or high > window.high:
        window.high = high
    if window.count == 0 or k == 0 or low < window.low:
        window.low = low
    window.count += 1
    if k + 1 < size:
        window.offset = k + 1
        return
    for i in range(size - 1, -1, -1):
        high = max(high, ring[highs + i])
        low = min(low, ring[lows + i])
        ring[highs + i] = high
        ring[lows + i] = low
    window.offset = 0


@njit
def range_value(window, ring, highs, lows, size):
    """(highest high, lowest low) of the last ``size`` bars; NaN until there are that many."""
    if window.count < size:
        return math.nan, math.nan
    k = window.offset
    high, low = ring[highs + k], ring[lows + k]
    if k > 0 and window.high > high:
        high = window.high
    if k > 0 and window.low < low:
        low = window.low
    return high, low


@njit
def moments_push(window, ring, means, m2s, x, size, bar):
    """Add ``x`` to a rolling mean and variance (Welford inside a block, Chan's merge across).

    ``means, m2s``: the first rows of the two.
    """
    if window.count == 0:
        window.offset = bar % size
        window.n = 0
        window.centre = 0.0
        window.m2 = 0.0
    k = window.offset
    ring[means + k] = x
    window.n += 1
    delta = x - window.centre
    window.centre += delta / window.n
    window.m2 += delta * (x - window.centre)
    window.count += 1
    if k + 1 < size:
        window.offset = k + 1
        return
    mean = 0.0
    m2 = 0.0
    n = 0
    for i in range(size - 1, -1, -1):
        value = ring[means + i]
        n += 1
        delta = value - mean
        mean += delta / n
        m2 += delta * (value - mean)
        ring[means + i] = mean
        ring[m2s + i] = m2
    window.offset = 0
    window.n = 0
    window.centre = 0.0
    window.m2 = 0.0


@njit
def moments_value(window, ring, means, m2s, size):
    """(mean, population standard deviation) of the last ``size`` values; NaN until there are that many.

    Source of the merge: Chan, Golub, LeVeque, Updating Formulae (1979).
    """
    if window.count < size:
        return math.nan, math.nan
    k = window.offset
    if k == 0:
        return ring[means], math.sqrt(ring[m2s] / size)
    delta = window.centre - ring[means + k]
    mean = ring[means + k] + delta * (k / size)
    m2 = ring[m2s + k] + window.m2 + delta * delta * (k * (size - k) / size)
    return mean, math.sqrt(m2 / size)


@njit
def _merge_pairs(n, mean_x, mean_y, m2_x, m2_y, c_xy, ring, at):
    """Chan's merge of co-moments with the six numbers from row ``at`` on; an empty side changes nothing."""
    n_other = ring[at]
    if n_other == 0.0:
        return n, mean_x, mean_y, m2_x, m2_y, c_xy
    total = n + n_other
    dx = ring[at + 1] - mean_x
    dy = ring[at + 2] - mean_y
    share = n_other / total
    cross = n * share
    return (
        total,
        mean_x + dx * share,
        mean_y + dy * share,
        m2_x + ring[at + 3] + dx * dx * cross,
        m2_y + ring[at + 4] + dy * dy * cross,
        c_xy + ring[at + 5] + dx * dy * cross,
    )


@njit
def pairs_push(window, ring, first, x, y, size, bar):
    """Add the pair (x, y) to rolling co-moments; a pair with a NaN counts as absent."""
    if window.count == 0:
        window.offset = bar % size
    k = window.offset
    if window.count == 0 or k == 0:
        window.n = 0.0
        window.mean_x = window.mean_y = window.m2_x = window.m2_y = window.c_xy = 0.0
    at = first + PAIR * k
    ring[at] = 0.0
    if x == x and y == y:
        ring[at] = 1.0
        ring[at + 1] = x
        ring[at + 2] = y
        ring[at + 3] = ring[at + 4] = ring[at + 5] = 0.0
        # ``_merge_pairs`` with a single pair, to the last bit.
        dx, dy = x - window.mean_x, y - window.mean_y
        share = 1.0 / (window.n + 1.0)
        cross = window.n * share
        window.n += 1.0
        window.mean_x += dx * share
        window.mean_y += dy * share
        window.m2_x += dx * dx * cross
        window.m2_y += dy * dy * cross
        window.c_xy += dx * dy * cross
    window.count += 1
    if k + 1 < size:
        window.offset = k + 1
        return
    n = mean_x = mean_y = m2_x = m2_y = c_xy = 0.0
    for i in range(size - 1, -1, -1):
        at = first + PAIR * i
        n, mean_x, mean_y, m2_x, m2_y, c_xy = _merge_pairs(n, mean_x, mean_y, m2_x, m2_y, c_xy, ring, at)
        ring[at] = n
        ring[at + 1] = mean_x
        ring[at + 2] = mean_y
        ring[at + 3] = m2_x
        ring[at + 4] = m2_y
        ring[at + 5] = c_xy
    window.offset = 0


@njit
def pairs_value(window, ring, first, size):
    """(n, mean_x, mean_y, m2_x, m2_y, c_xy) of the pairs in the last ``size`` bars; n = 0 until full."""
    if window.count < size:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    at = first + PAIR * window.offset
    if window.offset == 0:
        return ring[at], ring[at + 1], ring[at + 2], ring[at + 3], ring[at + 4], ring[at + 5]
    return _merge_pairs(
        window.n, window.mean_x, window.mean_y, window.m2_x, window.m2_y, window.c_xy, ring, at
    )
