"""How much of a Sharpe ratio is luck: probabilistic and deflated Sharpe, and the odds that picking the best overfits.

Every Sharpe ratio here is *per period* of the returns given (a day for daily returns), mean ÷ standard deviation
(n − 1 below), without a risk-free rate. ``Result.metrics["sharpe"]`` is annual: ``period_sharpe`` and
``annual_sharpe`` convert, and nothing converts by itself. Returns are finite: NaN is refused, a period without a
position has the return 0. Independent returns are assumed; serial correlation is not corrected for.

Sources: D. Bailey, M. López de Prado, "The Sharpe ratio efficient frontier" (2012) [PSR, minimum track record];
the same, "The deflated Sharpe ratio" (2014) [DSR, expected maximum, implied number of independent trials];
D. Bailey, J. Borwein, M. López de Prado, Q. Zhu, "The probability of backtest overfitting" (2015) [CSCV, PBO].
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import special

from aione_lab.errors import InputError
from aione_lab.research.arguments import finite, finite_matrix, finite_series, inner_share, whole

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from aione_lab.figures.theme import Theme

FEWEST_RETURNS = 10
"""Below this many returns, skew and kurtosis say nothing and no probability is given."""

MOST_BLOCKS = 20  # 184,756 splits
_CHUNK = 2_000_000  # numbers held at once by pbo, whatever the size of the study


class Moments(NamedTuple):
    """What a Sharpe ratio is judged by: the ratio per period, number of periods, skew and (non-excess) kurtosis."""

    sharpe: float
    n_periods: int
    skew: float = 0.0
    kurtosis: float = 3.0

    @property
    def variance(self) -> float:
        """(n − 1) × the variance of the estimated Sharpe ratio; 1 + sharpe² ÷ 2 for normal returns (2012, eq. 8)."""
        return 1.0 - self.skew * self.sharpe + (self.kurtosis - 1.0) / 4.0 * self.sharpe**2


def annual_sharpe(sharpe: float, periods_per_year: float) -> float:
    """Annual Sharpe ratio of one per period: × √periods, right for independent returns."""
    return finite("sharpe", sharpe) * math.sqrt(_positive("periods_per_year", periods_per_year))


def period_sharpe(sharpe: float, periods_per_year: float) -> float:
    """Sharpe ratio per period of an annual one (``metrics["sharpe"]``: 365 daily periods)."""
    return finite("sharpe", sharpe) / math.sqrt(_positive("periods_per_year", periods_per_year))


def return_moments(returns: Any) -> Moments:
    """Sharpe ratio per period, length, skew and kurtosis of ``returns`` (n,); skew and kurtosis divide by n.

    Raises InputError below ten returns, for NaN, and for returns without variation: they have no Sharpe ratio.
    """
    values = finite_series("returns", returns, FEWEST_RETURNS)
    scale = float(np.abs(values).max())
    values = values / scale if scale > 0 else values  # the ratios do not change, and no square over- or underflows
    mean = float(values.mean())
    away = values - mean
    squares = float(np.mean(away**2))
    if not math.sqrt(squares) > 1e-12:
        raise InputError.of("returns", f"{len(values)} returns, all alike", "must vary, or there is no Sharpe ratio")
    n = len(values)
    sharpe = mean / math.sqrt(squares * n / (n - 1))
    return Moments(sharpe, n, float(np.mean(away**3)) / squares**1.5, float(np.mean(away**4)) / squares**2)


def probabilistic_sharpe(returns: Any, benchmark: float = 0.0) -> float:
    """PSR: probability that the true Sharpe ratio of ``returns`` (n,) lies above ``benchmark`` (per period).

    For a series that was chosen among several it flatters: see ``deflated_sharpe``. Bailey, López de Prado (2012).
    """
    return psr_of_moments(*return_moments(returns), benchmark=benchmark)


def psr_of_moments(
    sharpe: float, n_periods: int, skew: float = 0.0, kurtosis: float = 3.0, benchmark: float = 0.0
) -> float:
    """``probabilistic_sharpe`` from moments; the kurtosis is not the excess (3 for normal returns)."""
    moments = _moments(sharpe, n_periods, skew, kurtosis)
    away = moments.sharpe - finite("benchmark", benchmark)
    return float(special.ndtr(away * math.sqrt((moments.n_periods - 1) / moments.variance)))


def minimum_track_record(returns: Any, benchmark: float = 0.0, level: float = 0.95) -> float:
    """Number of periods after which returns like these would put PSR(``benchmark``) at ``level``.

    Infinite where the Sharpe ratio of ``returns`` does not exceed ``benchmark`` (both per period) and ``level`` is
    above one half. Bailey, López de Prado (2012), eq. 13.
    """
    return mintrl_of_moments(*return_moments(returns), benchmark=benchmark, level=level)


def mintrl_of_moments(
    sharpe: float,
    n_periods: int,
    skew: float = 0.0,
    kurtosis: float = 3.0,
    benchmark: float = 0.0,
    level: float = 0.95,
) -> float:
    """``minimum_track_record`` from moments; ``n_periods`` is only checked, the answer does not depend on it."""
    moments = _moments(sharpe, n_periods, skew, kurtosis)
    level = inner_share("level", level)
    if level <= 0.5:
        raise InputError.of("level", level, "must be above 0.5: below, no track record at all would do")
    away = moments.sharpe - finite("benchmark", benchmark)
    return math.inf if away <= 0 else 1.0 + moments.variance * (float(special.ndtri(level)) / away) ** 2


def expected_maximum_sharpe(n_trials: float, variance_of_sharpes: float = 1.0) -> float:
    """Highest Sharpe ratio to expect of ``n_trials`` independent trials without skill, per period as the variance is.

    ``n_trials`` ≥ 1 need not be whole (``effective_trials``); ``variance_of_sharpes`` ≥ 0 is that between trials.
    Bailey, López de Prado (2014): √V × ((1 − γ) Φ⁻¹[1 − 1/N] + γ Φ⁻¹[1 − 1/(N e)]), γ Euler's constant; 2 % above
    the exact value for N = 10. Near N = 1 it would fall below 0, which is that of one single trial: it is held there.
    """
    n = finite("n_trials", n_trials)
    if n < 1:
        raise InputError.of("n_trials", n_trials, "must be a number of trials from 1 on")
    variance = finite("variance_of_sharpes", variance_of_sharpes)
    if variance < 0:
        raise InputError.of("variance_of_sharpes", variance_of_sharpes, "must be 0 or more")
    if n == 1:
        return 0.0
    # −ndtri(p) is ndtri(1 − p) without losing digits for large n.
    highest = -(1 - np.euler_gamma) * special.ndtri(1 / n) - np.euler_gamma * special.ndtri(1 / (n * math.e))
    return math.sqrt(variance) * max(0.0, float(highest))


def effective_trials(returns: Any) -> float:
    """How many independent trials the columns of ``returns`` (periods, trials) amount to: ρ + (1 − ρ) N.

    ρ is the mean correlation between two trials, never taken below 0; N counts the columns that vary (a set that
    never traded had no chance to be lucky). From 1, all alike, to N.

    This is the rule of the deflated Sharpe paper (2014, appendix 3). Correlated trials also have less variance
    *between* their Sharpe ratios, so the correlation is partly taken off twice: of simulated trials without skill, all
    correlated by 0.8 to 0.95, the best of 10 to 200 gets a DSR above 0.95 in 6 to 9 %, where it should be 5 %; with
    their plain number N, which is what ``deflated_sharpe`` takes unless told otherwise, in 3 to 5 %. Spectral counts
    (participation ratio of the eigenvalues, about 1/ρ² however many trials are run) reach 31 % and are no choice here.
    Where trials form tight clusters the rule counts too many, which errs against the find.

    Raises InputError for NaN, below ten periods, and where no column varies.
    """
    values = finite_matrix("returns", returns, (FEWEST_RETURNS, 1))
    away = values - values.mean(axis=0)
    size = np.sqrt((away**2).sum(axis=0))
    varies = size > 1e-12 * np.sqrt(len(values)) * np.abs(values).max(axis=0)
    n = int(varies.sum())
    if n == 0:
        raise InputError.of("returns", f"{values.shape[1]} columns, none of which varies", "must hold one that does")
    if n == 1:
        return 1.0
    # The sum of all correlations is the squared length of the sum of the unit vectors: no matrix is needed.
    total = float(((away[:, varies] / size[varies]).sum(axis=1) ** 2).sum())
    mean = min(1.0, max(0.0, (total - n) / (n * (n - 1))))
    return mean + (1.0 - mean) * n


@dataclass(frozen=True)
class DeflatedSharpe:
    """Probability that a Sharpe ratio found by trying many is above what luck alone would have found."""

    probability: float  # the DSR: PSR against benchmark
    benchmark: float  # highest Sharpe ratio to expect of that many trials without skill, per period
    moments: Moments
    n_trials: float
    variance_of_sharpes: float

    @property
    def sentence(self) -> str:
        """What the number supports, in one plain sentence."""
        m = self.moments
        trials = f"{self.n_trials:,.4g} independent {'trial' if self.n_trials == 1 else 'trials'}"
        found = (
            f"A Sharpe ratio of {m.sharpe:+.3f} a period over {m.n_periods:,} periods, against {self.benchmark:.3f} to "
            f"be expected of the best of {trials} without any skill: probability {self.probability:.3f} that the true "
            "one is higher"
        )
        if self.probability > 0.95:
            return f"{found}. Luck of the search is an unlikely explanation; it has still to hold on data not searched."
        return f"{found}, so luck of the search is not ruled out (0.95 is wanted)."


def deflated_sharpe(
    returns: Any,
    *,
    trial_sharpes: Any = None,
    n_trials: float | None = None,
    variance_of_sharpes: float | None = None,
) -> DeflatedSharpe:
    """DSR of ``returns`` (n,), the series that was chosen: PSR against the expected maximum of all the trials.

    Give either ``trial_sharpes`` (per period, of every trial, the chosen one included), whose variance is taken and
    whose number too unless ``n_trials`` says how many they amount to (``effective_trials``), or ``n_trials`` with
    ``variance_of_sharpes``, which is used as it is. Trials that never traded have the Sharpe ratio 0. Bailey, López de
    Prado (2014).

    The variance between ``trial_sharpes`` counts up to 1 ÷ (n − 1), which is that of many returns without skill; of few
    trades with rare large losses it is more, and for a series that has hardly lost yet this number says nothing (a
    study asks for losing trades first). What is beyond it is mostly no luck: thresholds that trade often lose more to
    costs, and such real differences among the losers would raise the hurdle for the best without end (threefold over
    whole search ranges).
    """
    if (trial_sharpes is None) == (variance_of_sharpes is None):
        raise InputError.of(
            "variance_of_sharpes", variance_of_sharpes, "give either trial_sharpes or variance_of_sharpes with n_trials"
        )
    moments = return_moments(returns)
    if trial_sharpes is not None:
        sharpes = finite_series("trial_sharpes", trial_sharpes)
        n_trials = len(sharpes) if n_trials is None else n_trials
        variance_of_sharpes = float(sharpes.var(ddof=1)) if len(sharpes) > 1 else 0.0
        variance_of_sharpes = min(variance_of_sharpes, 1.0 / (moments.n_periods - 1))
    return dsr_of_moments(*moments, n_trials=n_trials, variance_of_sharpes=variance_of_sharpes)


def dsr_of_moments(
    sharpe: float,
    n_periods: int,
    skew: float = 0.0,
    kurtosis: float = 3.0,
    *,
    n_trials: float | None,
    variance_of_sharpes: float | None,
) -> DeflatedSharpe:
    """``deflated_sharpe`` from moments; the kurtosis is not the excess, every Sharpe ratio is per period."""
    moments = _moments(sharpe, n_periods, skew, kurtosis)
    benchmark = expected_maximum_sharpe(n_trials, variance_of_sharpes)  # type: ignore[arg-type]  # None is refused there
    probability = psr_of_moments(*moments, benchmark=benchmark)
    return DeflatedSharpe(probability, benchmark, moments, float(n_trials), float(variance_of_sharpes))  # type: ignore[arg-type]


@dataclass(frozen=True)
class BacktestOverfitting:
    """What became, on the other half of the data, of the trial that was best on one half: every split of CSCV.

    Sharpe ratios per period. The arrays have one element a split.
    """

    logits: np.ndarray  # ln(ω / (1 − ω)), ω the relative rank out of sample of the trial chosen in sample
    chosen: np.ndarray  # its column
    in_sample: np.ndarray  # its Sharpe ratio where it was chosen
    out_of_sample: np.ndarray  # and on the other half
    n_periods: int
    n_trials: int
    n_splits: int  # blocks, S in the paper; len(logits) is the number of ways to halve them

    @cached_property
    def pbo(self) -> float:
        """Share of splits on which the chosen trial did no better than the median of all trials (logit ≤ 0)."""
        return float(np.mean(self.logits <= 0))

    @cached_property
    def probability_of_loss(self) -> float:
        """Share of splits on which the chosen trial lost money on the other half."""
        return float(np.mean(self.out_of_sample < 0))

    @cached_property
    def degradation(self) -> tuple[float, float]:
        """(slope, intercept) of out-of-sample on in-sample Sharpe, least squares; NaN where the latter is constant.

        A falling line says: the better it looked, the worse it did.
        """
        away = self.in_sample - self.in_sample.mean()
        spread = float((away**2).sum())
        slope = float((away * self.out_of_sample).sum()) / spread if spread > 0 else math.nan
        return slope, float(self.out_of_sample.mean()) - slope * float(self.in_sample.mean())

    @property
    def sentence(self) -> str:
        """What the numbers support, in one plain sentence."""
        found = (
            f"Of {self.n_trials:,} trials the best on one half of the data fell to the median or below on the other in "
            f"{self.pbo:.1%} of {len(self.logits):,} splits, and lost money there in {self.probability_of_loss:.1%}"
        )
        if self.pbo > 0.5:
            return f"{found}: choosing the best of these trials is worse than choosing at random."
        if self.pbo > 0.1:
            return f"{found}: much of what makes a trial the best is luck (pure noise gives 20 % to 80 %)."
        if self.probability_of_loss > 0.1:
            return f"{found}: the order of the trials carries over, money made does not."
        return f"{found}: the order of the trials carries over from one half to the other."

    def plot(self, theme: Theme = "light") -> go.Figure:
        """Histogram of the logits, and the Sharpe ratio out of sample against in sample."""
        from aione_lab.figures.overfitting import overfitting_chart

        slope, intercept = self.degradation
        return overfitting_chart(
            self.logits, self.in_sample, self.out_of_sample, slope=slope, intercept=intercept, theme=theme
        )


def pbo(returns: Any, n_splits: int = 16) -> BacktestOverfitting:
    """Probability of backtest overfitting of ``returns`` (periods, trials).

    By combinatorially symmetric cross-validation (CSCV): the periods are cut into ``n_splits`` blocks (S of the paper,
    even, 2 to 20) of equal length, or one period more; each half of the blocks in turn picks the trial with the highest
    Sharpe ratio, and the other half says where that trial ranks there: ω = rank ÷ (trials + 1). Equal trials share
    their ranks; of several best the first is chosen. A trial that never moves on a half has the Sharpe ratio 0 there.
    Bailey et al. (2015).

    Pure noise gives about one half, single data sets anything from 0.2 to 0.8: only values near 0 and 1 say much.
    Raises InputError for NaN, fewer than 2 trials or 2 × ``n_splits`` periods, an odd ``n_splits``, and a trial that
    makes one and the same amount in every period of a half.
    """
    blocks = whole("n_splits", n_splits, 2, MOST_BLOCKS)
    if blocks % 2:
        raise InputError.of("n_splits", n_splits, "must be even: half of the blocks stand against the other half")
    values = finite_matrix("returns", returns, (2 * blocks, 2))
    periods, trials = values.shape
    scale = np.abs(values).max(axis=0)
    values = values / np.where(scale > 0, scale, 1.0)  # Sharpe ratios do not change, and a tolerance has a meaning
    edges = np.linspace(0, periods, blocks + 1).astype(np.int64)
    centre = values.mean(axis=0)  # squares are taken about it, so that nothing cancels
    away = values - centre
    lengths = np.diff(edges).astype(np.float64)
    sums = np.add.reduceat(away, edges[:-1], axis=0)
    squares = np.add.reduceat(away**2, edges[:-1], axis=0)

    def sharpes(halves: np.ndarray) -> np.ndarray:
        n = (halves @ lengths)[:, None]
        total = halves @ sums
        mean = centre + total / n
        deviation = np.sqrt(np.maximum(halves @ squares - total**2 / n, 0.0) / (n - 1))
        still = deviation <= 1e-9
        if (still & (np.abs(mean) > 1e-9)).any():
            column = int(np.argwhere(still & (np.abs(mean) > 1e-9))[0, 1])
            raise InputError.of(
                "returns", f"column {column}", "makes the same in every period of a half: no Sharpe ratio"
            )
        # Equal trials must stay equal whatever the order of the sums inside the product.
        return np.round(np.where(still, 0.0, mean / np.where(still, 1.0, deviation)), 12)

    picks = np.array(list(itertools.combinations(range(blocks), blocks // 2)))
    halves = np.zeros((len(picks), blocks))
    np.put_along_axis(halves, picks, 1.0, axis=1)
    chosen = np.empty(len(picks), np.int64)
    inside, outside, logits = (np.empty(len(picks)) for _ in range(3))
    step = max(1, _CHUNK // trials)
    for first in range(0, len(picks), step):
        part = slice(first, first + step)
        here, there = sharpes(halves[part]), sharpes(1.0 - halves[part])
        rows = np.arange(len(here))
        best = chosen[part] = here.argmax(axis=1)
        inside[part], outside[part] = here[rows, best], there[rows, best]
        mark = outside[part][:, None]
        rank = (there < mark).sum(axis=1) + ((there == mark).sum(axis=1) + 1) / 2
        logits[part] = special.logit(rank / (trials + 1))
    return BacktestOverfitting(logits, chosen, inside, outside, periods, trials, blocks)


def _moments(sharpe: float, n_periods: int, skew: float, kurtosis: float) -> Moments:
    n = whole("n_periods", n_periods, 2, 10**12)
    moments = Moments(finite("sharpe", sharpe), n, finite("skew", skew), finite("kurtosis", kurtosis))
    if moments.kurtosis < 1 + moments.skew**2 - 1e-9:
        raise InputError.of("kurtosis", kurtosis, "must be at least 1 + skew²; not the excess, 3 for normal returns")
    if not moments.variance > 1e-12:
        raise InputError.of("sharpe", sharpe, "has no spread with this skew and kurtosis: two values are not enough")
    return moments


def _positive(argument: str, value: Any) -> float:
    number = finite(argument, value)
    if number <= 0:
        raise InputError.of(argument, value, "must be more than 0")
    return number
