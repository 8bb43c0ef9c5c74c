"""Rolling windows: exact against naive re-summing, and bit-identical wherever the stream began."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aione_lab.engine import windows
from aione_lab.engine.averages import ema_push, wilder_push
from aione_lab.engine.records import AVERAGE, MOMENTS, PAIRS, RANGE, SUM, SUMS
from aione_lab.engine.rings import CAPACITY

SIZES = range(2, 61)
EPS = 2.0**-52
FIRST, SECOND, ROWS_USED = 5, 600, 1200  # of the ring: any rows, as long as windows do not meet
MAGNITUDES = st.floats(min_value=1e-12, max_value=1e12)
NUMBERS = MAGNITUDES | MAGNITUDES.map(lambda x: -x) | st.just(0.0)
few = settings(max_examples=40, deadline=None)

jit = (lambda function: function) if numba.config.DISABLE_JIT else numba.njit


@jit
def _sums(window, ring, x, y, size, bar, out):
    for i in range(x.size):
        windows.sum_push(window[0], ring, FIRST, x[i], size, bar + i)
        out[i, 0] = windows.sum_value(window[0], ring, FIRST, size)


@jit
def _sums_so_far(window, ring, x, y, size, bar, out):
    for i in range(x.size):
        windows.sum_push(window[0], ring, FIRST, x[i], size, bar + i)
        out[i, 0] = windows.sum_so_far(window[0], ring, FIRST)


@jit
def _two_sums(window, ring, x, y, size, bar, out):
    for i in range(x.size):
        windows.sums_push(window[0], ring, FIRST, SECOND, x[i], y[i], size, bar + i)
        out[i, 0], out[i, 1] = windows.sums_value(window[0], ring, FIRST, SECOND, size)


@jit
def _ranges(window, ring, x, y, size, bar, out):
    for i in range(x.size):
        windows.range_push(window[0], ring, FIRST, SECOND, x[i], y[i], size, bar + i)
        out[i, 0], out[i, 1] = windows.range_value(window[0], ring, FIRST, SECOND, size)


@jit
def _moments(window, ring, x, y, size, bar, out):
    for i in range(x.size):
        windows.moments_push(window[0], ring, FIRST, SECOND, x[i], size, bar + i)
        out[i, 0], out[i, 1] = windows.moments_value(window[0], ring, FIRST, SECOND, size)


@jit
def _pairs(window, ring, x, y, size, bar, out):
    for i in range(x.size):
        windows.pairs_push(window[0], ring, FIRST, x[i], y[i], size, bar + i)
        n, mean_x, mean_y, m2_x, m2_y, c_xy = windows.pairs_value(window[0], ring, FIRST, size)
        out[i, 0] = n
        out[i, 1] = mean_x
        out[i, 2] = mean_y
        out[i, 3] = m2_x
        out[i, 4] = m2_y
        out[i, 5] = c_xy


class Kind(NamedTuple):
    loop: Callable
    dtype: np.dtype
    outputs: int


ONE_SUM = Kind(_sums, SUM, 1)
TWO_SUMS = Kind(_two_sums, SUMS, 2)
SO_FAR = Kind(_sums_so_far, SUM, 1)
EXTREMES = Kind(_ranges, RANGE, 2)
MOMENT = Kind(_moments, MOMENTS, 2)
PAIR = Kind(_pairs, PAIRS, 6)
ALL = {"sum": ONE_SUM, "sums": TWO_SUMS, "range": EXTREMES, "moments": MOMENT, "pairs": PAIR}


def comp(kind: Kind, x: np.ndarray, size: int, bar: int, y: np.ndarray | None = None) -> np.ndarray:
    """(n, outputs) of a fresh window into which ``x`` (and ``y``) is pushed from absolute bar ``bar`` on."""
    out = np.full((len(x), kind.outputs), math.nan)
    # Nothing is read that was not written before; only the sum so far counts on zeros.
    ring = np.full((ROWS_USED, 3), 0.0 if kind is SO_FAR else math.nan)[:, 1]
    kind.loop(np.zeros(1, kind.dtype), ring, x, x if y is None else y, size, bar, out)
    return out


def sample(n: int, seed: int, kind: str = "wild") -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "wild":  # 24 orders of magnitude, both signs
        return 10.0 ** rng.uniform(-12, 12, n) * rng.choice([-1.0, 1.0], n)
    return rng.lognormal(3, 1, n)


def last(x: np.ndarray, i: int, size: int) -> np.ndarray:
    return x[i + 1 - size : i + 1]


# ---- the same wherever the stream began --------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", SIZES)
def test_start_does_not_matter(name, size):
    """Bits are the same as soon as both windows are full, for every place in the block to begin at."""
    kind = ALL[name]
    bar = 29_000_000 // size * size
    x, y = sample(5 * size, size), sample(5 * size, size + 1)
    x[size + size // 2] = y[2 * size] = math.nan if name == "pairs" else 3.0
    whole = comp(kind, x, size, bar, y)
    for begin in range(1, 2 * size + 1):
        late = comp(kind, x[begin:], size, bar + begin, y[begin:])
        assert late[size - 1 :].tobytes() == whole[begin + size - 1 :].tobytes()


@few
@given(
    name=st.sampled_from(sorted(ALL)),
    size=st.integers(2, 60),
    bar=st.integers(0, 40_000_000),
    begin=st.integers(1, 200),
    x=st.lists(NUMBERS, min_size=330, max_size=330),
)
def test_start_does_not_matter_for_any_numbers(name, size, bar, begin, x):
    kind = ALL[name]
    x = np.array(x)
    y = x[::-1].copy()
    whole, late = comp(kind, x, size, bar, y), comp(kind, x[begin:], size, bar + begin, y[begin:])
    assert late[size - 1 :].tobytes() == whole[begin + size - 1 :].tobytes()


def test_longest_window():
    x = sample(5 * CAPACITY, 9, "volume")
    whole, late = comp(MOMENT, x, CAPACITY, 12_345), comp(MOMENT, x[777:], CAPACITY, 12_345 + 777)
    assert late[CAPACITY - 1 :].tobytes() == whole[777 + CAPACITY - 1 :].tobytes()
    np.testing.assert_allclose(whole[-1], [last(x, len(x) - 1, CAPACITY).mean(), x[-CAPACITY:].std()], rtol=1e-13)


# ---- exact against naive -----------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_not_there_before_full(size):
    x = sample(3 * size, size)
    for kind in (ONE_SUM, TWO_SUMS, EXTREMES, MOMENT):
        out = comp(kind, x, size, 17)
        assert np.isnan(out[: size - 1]).all() and not np.isnan(out[size - 1 :]).any()
    pairs = comp(PAIR, x, size, 17)
    assert not pairs[: size - 1].any() and (pairs[size - 1 :, 0] == size).all()


@pytest.mark.parametrize("size", SIZES)
def test_sums_and_extremes(size):
    bar = 1_000_003
    x = sample(4 * size + 3, size)
    sums, so_far, extremes = (comp(kind, x, size, bar) for kind in (ONE_SUM, SO_FAR, EXTREMES))
    for i in range(len(x)):
        values = x[max(0, i + 1 - size) : i + 1]
        slack = size * EPS * math.fsum(abs(values))
        assert abs(so_far[i, 0] - math.fsum(values)) <= slack
        if i + 1 >= size:
            assert sums[i, 0] == so_far[i, 0]
            assert extremes[i].tolist() == [values.max(), values.min()]


@few
@given(size=st.integers(2, 60), bar=st.integers(0, 10**8), x=st.lists(NUMBERS, min_size=61, max_size=200))
def test_sums_and_extremes_of_any_numbers(size, bar, x):
    x = np.array(x)
    sums, extremes = comp(ONE_SUM, x, size, bar)[:, 0], comp(EXTREMES, x, size, bar)
    for i in range(size - 1, len(x)):
        values = last(x, i, size)
        assert abs(sums[i] - math.fsum(values)) <= size * EPS * math.fsum(abs(values))
        assert extremes[i].tolist() == [max(values), min(values)]


@pytest.mark.parametrize("size", SIZES)
def test_two_of_a_kind_are_each_as_on_its_own(size):
    x, y = sample(4 * size + 3, size), sample(4 * size + 3, size + 1)
    y[size + 1] = math.nan  # a NaN in one of them is none in the other
    both = comp(TWO_SUMS, x, size, 7, y)
    alone = [comp(ONE_SUM, values, size, 7) for values in (x, y)]
    assert both.tobytes() == np.hstack(alone).tobytes()
    y[size + 1] = 3.0
    extremes = comp(EXTREMES, x, size, 7, y)
    for i in range(size - 1, len(x)):
        assert extremes[i].tolist() == [last(x, i, size).max(), last(y, i, size).min()]


def check_moments(x: np.ndarray, size: int, out: np.ndarray) -> None:
    for i in range(size - 1, len(x)):
        values = last(x, i, size)
        mean = math.fsum(values) / size
        m2 = math.fsum((values - mean) ** 2)
        largest = max(abs(values))
        assert abs(out[i, 0] - mean) <= 4 * size * EPS * largest
        # The relative error of the updating formulae grows with |mean| ÷ deviation (Chan and others, 1983).
        slack = 16 * size * EPS * math.sqrt(m2 * (m2 + size * mean * mean)) + (8 * size * EPS * largest) ** 2
        assert abs(out[i, 1] ** 2 * size - m2) <= slack


@pytest.mark.parametrize("size", SIZES)
def test_moments(size):
    for kind in ("wild", "volume"):
        x = sample(4 * size + 3, size, kind)
        check_moments(x, size, comp(MOMENT, x, size, 999))
    x = 1e9 + sample(4 * size + 3, size, "volume")  # a small spread far from zero
    check_moments(x, size, comp(MOMENT, x, size, 999))


@few
@given(size=st.integers(2, 60), bar=st.integers(0, 10**8), x=st.lists(NUMBERS, min_size=61, max_size=150))
def test_moments_of_any_numbers(size, bar, x):
    check_moments(np.array(x), size, comp(MOMENT, np.array(x), size, bar))


@given(size=st.integers(2, 60), bar=st.integers(0, 10**8), value=NUMBERS)
@settings(max_examples=30, deadline=None)
def test_equal_values_have_no_deviation(size, bar, value):
    """A frozen volume has a standard deviation of exactly zero, so that no z-score comes from rounding."""
    out = comp(MOMENT, np.full(3 * size, value), size, bar)
    assert (out[size - 1 :, 0] == value).all() and (out[size - 1 :, 1] == 0.0).all()


@pytest.mark.parametrize("size", SIZES)
def test_pairs(size):
    """Absent pairs (a NaN on either side) are left out; the rest are the co-moments of what is there."""
    rng = np.random.default_rng(size)
    n = 5 * size + 2
    x = rng.standard_normal(n) * 1e-3
    y = 0.5 * x + rng.standard_normal(n) * 1e-3
    x[rng.random(n) < 0.2] = math.nan
    y[rng.random(n) < 0.2] = math.nan
    y[2 * size : 3 * size + 1] = math.nan  # a whole window without a pair
    out = comp(PAIR, x, size, 4321, y)
    for i in range(size - 1, n):
        a, b = last(x, i, size), last(y, i, size)
        both = ~(np.isnan(a) | np.isnan(b))
        a, b = a[both], b[both]
        assert out[i, 0] == len(a)
        if not len(a):
            continue
        expected = [a.mean(), b.mean(), ((a - a.mean()) ** 2).sum(), ((b - b.mean()) ** 2).sum()]
        np.testing.assert_allclose(out[i, 1:5], expected, rtol=1e-11, atol=1e-18)
        covariance = ((a - a.mean()) * (b - b.mean())).sum()
        np.testing.assert_allclose(out[i, 5], covariance, rtol=1e-9, atol=1e-12 * math.sqrt(expected[2] * expected[3]))
    assert (out[:, 0] == 0).sum() >= 1 + size - 1


# ---- NaN ---------------------------------------------------------------------------------------


@few
@given(
    size=st.integers(2, 60),
    bar=st.integers(0, 10**8),
    places=st.sets(st.integers(0, 239), max_size=6),
    kind=st.sampled_from([ONE_SUM, MOMENT]),
)
def test_nan_spoils_exactly_the_windows_that_hold_it(size, bar, places, kind):
    clean = sample(240, size, "volume")
    x = clean.copy()
    x[list(places)] = math.nan
    out, untouched = comp(kind, x, size, bar), comp(kind, clean, size, bar)
    for i in range(size - 1, 240):
        holds = bool(np.isnan(last(x, i, size)).any())
        assert np.isnan(out[i]).all() == holds and np.isnan(out[i]).any() == holds
        if not holds:
            assert out[i].tobytes() == untouched[i].tobytes()


# ---- exponential averages ----------------------------------------------------------------------


@given(size=st.integers(2, 60), x=st.lists(MAGNITUDES, min_size=1, max_size=150))
@few
def test_averages(size, x):
    wilder, ema = np.zeros(1, AVERAGE), np.zeros(1, AVERAGE)
    smooth = seed = None
    for i, value in enumerate(x, 1):
        got_wilder, got_ema = wilder_push(wilder[0], value, size), ema_push(ema[0], value, size)
        smooth = value if smooth is None else (2 * value + (size - 1) * smooth) / (size + 1)
        if i == size:
            seed = math.fsum(x[:size]) / size
        elif i > size:
            seed = ((size - 1) * seed + value) / size
        if i < size:
            assert math.isnan(got_wilder) and math.isnan(got_ema)
        else:
            scale = max(x[:i])
            assert got_wilder == pytest.approx(seed, rel=1e-12, abs=1e-13 * scale)
            assert got_ema == pytest.approx(smooth, rel=1e-12, abs=1e-13 * scale)
