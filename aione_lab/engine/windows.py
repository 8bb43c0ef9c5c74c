"""Rolling windows as aligned blocks: cheap, and bit-identical wherever the stream began.

A window of ``size`` bars is cut into blocks that start at absolute bar numbers divisible by ``size``.
While a block fills, ``buffer[:offset]`` holds its raw values and a running prefix aggregate; the rest,
``buffer[offset:]``, still holds the *suffix* aggregates of the block before it. The window that ends
at the newest bar is the suffix at ``offset`` merged with the prefix. When a block is full its raw
values are turned into suffix aggregates in place, from the last to the first.

No aggregate ever depends on a value outside its two blocks, so two streams that began at different
bars agree to the last bit as soon as both windows are full, which running add/subtract sums never do.
A window is full when ``count >= size``; until then the value functions return NaN.
"""

from __future__ import annotations

import math

from aione_lab.jit import njit


@njit
def sum_push(window, x, size, bar):
    """Add ``x``, the value of absolute bar ``bar``. A NaN makes exactly the windows holding it NaN."""
    if window.count == 0:
        window.offset = bar % size
        window.total = 0.0
    k = window.offset
    window.buffer[k] = x
    window.total += x
    window.count += 1
    if k + 1 < size:
        window.offset = k + 1
        return
    suffix = 0.0
    for i in range(size - 1, -1, -1):
        suffix += window.buffer[i]
        window.buffer[i] = suffix
    window.offset = 0
    window.total = 0.0


@njit
def sum_so_far(window):
    """Sum over the last ``min(count, size)`` values (positions before the start hold zero)."""
    return window.buffer[window.offset] + window.total


@njit
def sum_value(window, size):
    """Sum over the last ``size`` values; NaN until there are that many."""
    if window.count < size:
        return math.nan
    return window.buffer[window.offset] + window.total


@njit
def max_push(window, x, size, bar):
    """Add ``x`` to a rolling maximum."""
    if window.count == 0:
        window.offset = bar % size
        window.best = x
    k = window.offset
    window.buffer[k] = x
    if k == 0 or x > window.best:
        window.best = x
    window.count += 1
    if k + 1 < size:
        window.offset = k + 1
        return
    suffix = x
    for i in range(size - 1, -1, -1):
        if window.buffer[i] > suffix:
            suffix = window.buffer[i]
        window.buffer[i] = suffix
    window.offset = 0


@njit
def max_value(window, size):
    """Maximum of the last ``size`` values; NaN until there are that many."""
    if window.count < size:
        return math.nan
    suffix = window.buffer[window.offset]
    if window.offset == 0 or suffix > window.best:
        return suffix
    return window.best


@njit
def min_push(window, x, size, bar):
    """Add ``x`` to a rolling minimum: the maximum of −x."""
    max_push(window, -x, size, bar)


@njit
def min_value(window, size):
    """Minimum of the last ``size`` values; NaN until there are that many."""
    return -max_value(window, size)


@njit
def moments_push(window, x, size, bar):
    """Add ``x`` to a rolling mean and variance (Welford inside a block, Chan's merge across)."""
    if window.count == 0:
        window.offset = bar % size
        window.n = 0
        window.centre = 0.0
        window.m2 = 0.0
    k = window.offset
    window.means[k] = x
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
        value = window.means[i]
        n += 1
        delta = value - mean
        mean += delta / n
        m2 += delta * (value - mean)
        window.means[i] = mean
        window.m2s[i] = m2
    window.offset = 0
    window.n = 0
    window.centre = 0.0
    window.m2 = 0.0


@njit
def moments_value(window, size):
    """(mean, population standard deviation) of the last ``size`` values; NaN until there are that many.

    Source of the merge: Chan, Golub, LeVeque, Updating Formulae (1979).
    """
    if window.count < size:
        return math.nan, math.nan
    k = window.offset
    if k == 0:
        return window.means[0], math.sqrt(window.m2s[0] / size)
    delta = window.centre - window.means[k]
    mean = window.means[k] + delta * (k / size)
    m2 = window.m2s[k] + window.m2 + delta * delta * (k * (size - k) / size)
    return mean, math.sqrt(m2 / size)


@njit
def _merge_pairs(n, mean_x, mean_y, m2_x, m2_y, c_xy, other):
    """Chan's merge of co-moments with the six numbers in ``other``; an empty side changes nothing."""
    n_other = other[0]
    if n_other == 0.0:
        return n, mean_x, mean_y, m2_x, m2_y, c_xy
    total = n + n_other
    dx = other[1] - mean_x
    dy = other[2] - mean_y
    share = n_other / total
    cross = n * share
    return (
        total,
        mean_x + dx * share,
        mean_y + dy * share,
        m2_x + other[3] + dx * dx * cross,
        m2_y + other[4] + dy * dy * cross,
        c_xy + other[5] + dx * dy * cross,
    )


@njit
def pairs_push(window, x, y, size, bar):
    """Add the pair (x, y) to rolling co-moments; a pair with a NaN counts as absent."""
    if window.count == 0:
        window.offset = bar % size
    k = window.offset
    if window.count == 0 or k == 0:
        window.n = 0.0
        window.mean_x = window.mean_y = window.m2_x = window.m2_y = window.c_xy = 0.0
    row = window.buffer[k]
    row[0] = 0.0
    if x == x and y == y:
        row[0] = 1.0
        row[1] = x
        row[2] = y
        row[3] = row[4] = row[5] = 0.0
        window.n, window.mean_x, window.mean_y, window.m2_x, window.m2_y, window.c_xy = _merge_pairs(
            window.n, window.mean_x, window.mean_y, window.m2_x, window.m2_y, window.c_xy, row
        )
    window.count += 1
    if k + 1 < size:
        window.offset = k + 1
        return
    n = mean_x = mean_y = m2_x = m2_y = c_xy = 0.0
    for i in range(size - 1, -1, -1):
        row = window.buffer[i]
        n, mean_x, mean_y, m2_x, m2_y, c_xy = _merge_pairs(n, mean_x, mean_y, m2_x, m2_y, c_xy, row)
        row[0] = n
        row[1] = mean_x
        row[2] = mean_y
        row[3] = m2_x
        row[4] = m2_y
        row[5] = c_xy
    window.offset = 0


@njit
def pairs_value(window, size):
    """(n, mean_x, mean_y, m2_x, m2_y, c_xy) of the pairs in the last ``size`` bars; n = 0 until full."""
    if window.count < size:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    k = window.offset
    suffix = window.buffer[k]
    if k == 0:
        return suffix[0], suffix[1], suffix[2], suffix[3], suffix[4], suffix[5]
    return _merge_pairs(
        window.n, window.mean_x, window.mean_y, window.m2_x, window.m2_y, window.c_xy, suffix
    )
