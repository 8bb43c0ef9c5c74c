"""Statistics of observations that share their days: trades of one UTC day are no independent witnesses.

Every function takes ``days``, the number of each observation's day (0 … n_days − 1, see ``day_codes``), and treats
the days as independent and what lies within one as dependent in any way. Two devices carry most: days drawn
with replacement for intervals (the pairs cluster bootstrap), and days whose residuals change sign at random for tests
(the wild cluster bootstrap of the score with the null imposed). Source: A. C. Cameron, J. B. Gelbach and D. L. Miller,
"Bootstrap-based improvements for inference with clustered errors", Review of Economics and Statistics 90 (2008); P.
Kline and A. Santos, "A score based approach to wild bootstrap inference", Journal of Econometric Methods 1 (2012).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

LEVEL = 0.95
MOST_DRAWS = 100_000


def day_codes(index: pd.DatetimeIndex) -> tuple[np.ndarray, int]:
    """(number of each time's UTC day among the days that occur, number of days); symbols share their days."""
    found, codes = np.unique(index.floor("D").asi8, return_inverse=True)
    return codes, len(found)


def day_sums(values: np.ndarray, days: np.ndarray, n_days: int) -> np.ndarray:
    """Sums of ``values`` (n,) or (n, k) by day: (n_days,) or (n_days, k)."""
    if values.ndim == 1:
        return np.bincount(days, values, minlength=n_days)
    sums = np.zeros((n_days, values.shape[1]))
    np.add.at(sums, days, values)
    return sums


def drawn_days(n_days: int, n_boot: int, random: np.random.Generator) -> np.ndarray:
    """How often each day occurs in each bootstrap sample of days, (n_boot, n_days)."""
    if not n_days:
        return np.zeros((n_boot, 0))
    return random.multinomial(n_days, np.full(n_days, 1 / n_days), size=n_boot).astype(np.float64)


def signs(n_days: int, n: int, random: np.random.Generator) -> np.ndarray:
    """Random signs of days, (n, n_days) of −1.0 and 1.0."""
    return random.integers(0, 2, size=(n, n_days)) * 2.0 - 1.0


def band(draws: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of bootstrap ``draws``, those that are not defined left out; NaN without any."""
    usable = draws[np.isfinite(draws)]
    if not len(usable):
        return math.nan, math.nan
    low, high = np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def association_p(x: np.ndarray, y: np.ndarray, days: np.ndarray, flips: np.ndarray) -> float:
    """Two-sided p-value of "x and y are not associated", from the sum of (x − mean)(y − mean) by day.

    With ranks it tests a rank correlation, with ranks and a 0/1 outcome the area under the ROC curve. ``flips`` from
    ``signs``. NaN where x or y does not vary.
    """
    if not len(x) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    scores = day_sums((x - x.mean()) * (y - y.mean()), days, flips.shape[1])
    return _share_beyond(abs(scores.sum()), np.abs(flips @ scores))


def joint_p(scores: np.ndarray, flips: np.ndarray) -> float:
    """p-value of "the sums of all columns of ``scores`` (n_days, k) are nought in expectation", taken together."""
    spread = np.linalg.pinv(scores.T @ scores)
    total, drawn = scores.sum(axis=0), flips @ scores
    return _share_beyond(float(total @ spread @ total), np.einsum("ij,jk,ik->i", drawn, spread, drawn))


def groups_p(
    y: np.ndarray, member: np.ndarray, days: np.ndarray, strata: np.ndarray, flips: np.ndarray
) -> tuple[float, float]:
    """(statistic, p-value) of "``y`` has one mean in all groups of a stratum".

    ``member`` (n, k) says which observation belongs to which groups, to several if need be; ``strata`` (n,) numbers
    what is compared within itself only, symbols say. The statistic is the sum over groups of (sum of y less its
    stratum's mean)² ÷ members, in variances of y, as Kruskal and Wallis have it; each draw centres anew, as the data
    were centred. NaN where no stratum has members of one group and others, or y does not vary.
    """
    if not _comparable(y, member, strata):
        return math.nan, math.nan
    sizes = member.sum(axis=0).astype(np.float64)
    member, sizes = member[:, sizes > 0].astype(np.float64), sizes[sizes > 0]
    rest = less_means(y, strata)
    _, strata = np.unique(strata, return_inverse=True)
    inside = strata[:, None] == np.arange(strata.max() + 1)
    by_group = day_sums(rest[:, None] * member, days, flips.shape[1])
    by_stratum = day_sums(rest[:, None] * inside, days, flips.shape[1])
    shares = (inside.T @ member) / inside.sum(axis=0)[:, None]
    drawn = flips @ by_group - (flips @ by_stratum) @ shares
    scale = sizes * y.var()
    statistic = float((by_group.sum(axis=0) ** 2 / scale).sum())
    return statistic, _share_beyond(statistic, (drawn**2 / scale).sum(axis=1))


def less_means(y: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """``y`` less the mean of its stratum."""
    _, place = np.unique(strata, return_inverse=True)
    return y - (np.bincount(place, y) / np.bincount(place))[place]


def permuted_days_p(
    y: np.ndarray, member: np.ndarray, days: np.ndarray, strata: np.ndarray, n: int, random: np.random.Generator
) -> tuple[float, float]:
    """`groups_p` for groups of whole days, weekdays say: the groups are dealt out to the days anew, ``n`` times.

    With few days a group it keeps its level where random signs do not. ``member`` must be equal within each day.
    """
    n_days = int(days.max()) + 1 if len(days) else 0
    of_day = np.zeros((n_days, member.shape[1]))
    of_day[days] = member
    if not _comparable(y, member, strata):
        return math.nan, math.nan
    rest, counts = day_sums(less_means(y, strata), days, n_days), np.bincount(days, minlength=n_days)

    def statistic(group: np.ndarray) -> float:
        sizes = counts @ group
        return float(((rest @ group) ** 2 / np.where(sizes > 0, sizes, np.inf)).sum() / y.var())

    observed = statistic(of_day)
    return observed, _share_beyond(observed, np.array([statistic(random.permutation(of_day)) for _ in range(n)]))


def mean_band(values: np.ndarray, days: np.ndarray) -> tuple[float, float]:
    """95 % t-interval of the mean, with the variance between days and days − 1 degrees of freedom.

    One observation a day makes it Student's interval. NaN below two days.
    """
    error, n_days = _mean_error(values, days)
    if math.isnan(error):
        return math.nan, math.nan
    half = float(special.stdtrit(n_days - 1, (1 + LEVEL) / 2)) * error
    return float(values.mean() - half), float(values.mean() + half)


def share_band(won: np.ndarray, days: np.ndarray) -> tuple[float, float]:
    """95 % Wilson interval of a share (1927) at the number of independent observations that the days are worth.

    That number is n ÷ the design effect, never more than n: E. L. Korn and B. I. Graubard, "Confidence intervals for
    proportions with small expected number of positive counts", Survey Methodology 24 (1998). NaN without observations.
    """
    n = len(won)
    if not n:
        return math.nan, math.nan
    share = float(won.mean())
    error, _ = _mean_error(won.astype(np.float64), days)
    independent = float(n)
    if error > 0 and 0 < share < 1:
        independent = min(independent, share * (1 - share) / error**2)
    z = float(special.ndtri((1 + LEVEL) / 2))
    centre = (share * independent + z * z / 2) / (independent + z * z)
    half = z / (independent + z * z) * math.sqrt(independent * share * (1 - share) + z * z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def false_discovery(p_values: Any) -> np.ndarray:
    """Benjamini–Hochberg adjusted p-values (1995) of those that are known; NaN stays NaN."""
    from scipy import stats  # takes a second to import

    p = np.asarray(p_values, dtype=np.float64)
    known = np.isfinite(p)
    adjusted = np.full(len(p), np.nan)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p[known])
    return adjusted


def _mean_error(values: np.ndarray, days: np.ndarray) -> tuple[float, int]:
    """(standard error of the mean between days, number of days); NaN below two days."""
    found, place = np.unique(days, return_inverse=True)
    n_days = len(found)
    if n_days < 2:
        return math.nan, n_days
    sums = np.bincount(place, values - values.mean())
    return math.sqrt(n_days / (n_days - 1) * float((sums**2).sum())) / len(values), n_days


def _comparable(y: np.ndarray, member: np.ndarray, strata: np.ndarray) -> bool:
    """Whether y varies, and some stratum holds observations that differ in their groups."""
    if len(y) < 2 or np.ptp(y) == 0:
        return False
    return any(bool((member[strata == one] != member[strata == one][0]).any()) for one in np.unique(strata))


def _share_beyond(observed: float, drawn: np.ndarray) -> float:
    """(1 + draws at least as far out) / (1 + draws); a draw equal but for rounding counts as one."""
    return (1 + int((drawn >= observed * (1 - 1e-9)).sum())) / (1 + len(drawn))
