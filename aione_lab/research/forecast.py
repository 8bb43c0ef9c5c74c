"""How good is a stated probability? Pure functions of what was stated, what came of it, and on which day."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from aione_lab.errors import InputError
from aione_lab.research import arguments
from aione_lab.research.clusters import association_p, band, day_sums, drawn_days, joint_p, signs

CHANCE = 0.05
"""A p-value up to here is called unlikely to be chance."""


@dataclass(frozen=True)
class Forecast:
    """A stated probability against its outcomes; bands are 95 %, from days drawn with replacement."""

    curve: pd.DataFrame  # a row a bin
    measures: pd.DataFrame  # a row a measure: value, low, high, p_value
    n: int
    n_days: int

    @property
    def ranking(self) -> str:
        """``right``: higher is better; ``inverted``: higher is worse; ``none``: not told from chance; "": no data."""
        p_value = self.measure("auc", "p_value")
        if math.isnan(p_value):
            return ""
        return "none" if p_value > CHANCE else "right" if self.measure("auc") > 0.5 else "inverted"

    @property
    def calibrated(self) -> bool:
        """Whether what was stated is compatible with how often it came true. So is a statement without content."""
        return self.measure("calibration_error", "p_value") > CHANCE

    def measure(self, name: str, column: str = "value") -> float:
        """One number of ``measures``."""
        return float(self.measures[column].to_dict()[name])


class Sums(NamedTuple):
    """Sums over observations, a bin each (…, bins): what every measure but the ranks is made of."""

    n: np.ndarray
    stated: np.ndarray
    won: np.ndarray
    squared_error: np.ndarray
    r: np.ndarray
    n_r: np.ndarray


def score_forecast(
    stated: np.ndarray,
    won: np.ndarray,
    r: np.ndarray,
    days: np.ndarray,
    *,
    bins: int = 10,
    n_boot: int = 2000,
    seed: int = 0,
) -> Forecast:
    """Score stated probabilities (n,) in [0, 1] against outcomes ``won`` (n,) bool and results ``r`` (n,) in R.

    ``days`` (n,) numbers the day of each from 0, NaN of ``r`` are left out of means and ranks. ``curve``: bins of about
    equal count (equal values stay together): ``low, high, count, stated, win_rate, mean_r`` with their bands.
    ``measures``:

    - ``base_rate``, ``stated``: share won and mean stated; ``overstatement`` their difference;
    - ``brier``: mean (stated − won)²; it is ``reliability − resolution + uncertainty + within_bins``, the parts of A.
      H. Murphy, "A new vector partition of the probability score", Journal of Applied Meteorology 12 (1973), and what
      varies inside bins; ``skill``: 1 − brier ÷ uncertainty, against stating the base rate always;
    - ``calibration_error``: mean |share won − mean stated| over bins, weighted by count; its p-value tests that
      won − stated has mean nought and no slope over stated (D. R. Cox, Biometrika 45, 1958, in linear form);
    - ``slope``: of won over stated; 1 for calibrated, 0 for empty statements;
    - ``auc``: chance that of a win and a loss the win was stated higher, ties half; ``rank_correlation``: Spearman's,
      of stated and R. Their p-values allow for dependence within days.

    Squares and absolute values of noise are positive: ``reliability, resolution, calibration_error`` lie too high in
    small samples, and so do their bands. What is not defined is NaN. Raises InputError for arrays that do not fit.
    """
    bins = arguments.whole("bins", bins, 2, 1000)
    n_boot = arguments.whole("n_boot", n_boot, 1, 100_000)
    random = np.random.default_rng(arguments.whole("seed", seed, 0, 2**63))
    stated, won, r = np.asarray(stated, np.float64), np.asarray(won, bool), np.asarray(r, np.float64)
    days = np.asarray(days, np.int64)
    if not stated.ndim == won.ndim == r.ndim == days.ndim == 1 or not len(stated) == len(won) == len(r) == len(days):
        raise InputError.of(
            "stated, won, r, days", (stated.shape, won.shape, r.shape, days.shape), "must be of one length"
        )
    if not ((stated >= 0) & (stated <= 1)).all():
        raise InputError.of("stated", stated, "must lie between 0 and 1")
    n_days = int(days.max()) + 1 if len(days) else 0
    edges = _edges(stated, bins)
    place = np.searchsorted(edges[1:-1], stated, side="right")
    by_day = _sums(stated, won, r, days * (len(edges) - 1) + place, (n_days, len(edges) - 1))
    weights = drawn_days(n_days, n_boot, random)
    flips = signs(n_days, n_boot, random)
    whole, drawn = Sums(*(part.sum(axis=0) for part in by_day)), Sums(*(weights @ part for part in by_day))
    rows = {name: (float(value), *band(draws), math.nan) for name, value, draws in _measures(whole, drawn)}
    known = np.isfinite(r)
    x, y = _ranks(stated[known]), _ranks(r[known])
    rows["slope"] = (*_slope(stated, won.astype(np.float64), days, weights, correlation=False), math.nan)
    rows["auc"] = (
        area(stated, won, np.ones(len(won))),
        *band(np.array([area(stated, won, times[days]) for times in weights])),
        association_p(_ranks(stated), won.astype(np.float64), days, flips),
    )
    rows["rank_correlation"] = (
        *_slope(x, y, days[known], weights, correlation=True),
        association_p(x, y, days[known], flips),
    )
    rows["calibration_error"] = (*rows["calibration_error"][:3], _calibration_p(stated, won, days, flips))
    measures = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "p_value"])
    return Forecast(_curve(edges, whole, drawn), measures.rename_axis("measure"), len(stated), n_days)


def area(stated: np.ndarray, won: np.ndarray, weights: np.ndarray) -> float:
    """Area under the ROC curve of weighted observations, ties half; NaN without a win or without a loss."""
    if not len(stated):
        return math.nan
    _, place = np.unique(stated, return_inverse=True)
    wins, losses = np.bincount(place, weights * won), np.bincount(place, weights * ~won)
    pairs = wins.sum() * losses.sum()
    if not pairs > 0:
        return math.nan
    return float((wins * (np.cumsum(losses) - losses / 2)).sum() / pairs)


def _edges(stated: np.ndarray, bins: int) -> np.ndarray:
    """Edges of bins of about equal count, equal values in one bin; at least one bin."""
    if not len(stated):
        return np.array([0.0, 1.0])
    edges = np.unique(np.quantile(stated, np.linspace(0, 1, bins + 1)))
    return edges if len(edges) > 1 else np.array([edges[0], edges[0]])


def _sums(stated: np.ndarray, won: np.ndarray, r: np.ndarray, cell: np.ndarray, shape: tuple[int, int]) -> Sums:
    known = np.isfinite(r)
    parts = (np.ones(len(won)), stated, won, (stated - won) ** 2, np.where(known, r, 0.0), known)
    return Sums(*(np.bincount(cell, part, minlength=shape[0] * shape[1]).reshape(shape) for part in parts))


def _measures(whole: Sums, drawn: Sums) -> list[tuple[str, float, np.ndarray]]:
    """(name, value, its draws) of all that follows from the sums."""
    values, draws = _from_sums(whole), _from_sums(drawn)
    return [(name, float(values[name]), np.asarray(draws[name])) for name in values]


def _from_sums(sums: Sums) -> dict[str, np.ndarray]:
    with np.errstate(invalid="ignore", divide="ignore"):
        n = sums.n.sum(axis=-1)
        base, stated = sums.won.sum(axis=-1) / n, sums.stated.sum(axis=-1) / n
        share = np.where(sums.n > 0, sums.n, np.nan) / n[..., None]
        gap = (sums.stated - sums.won) / sums.n
        spread = sums.won / sums.n - base[..., None]
        brier = sums.squared_error.sum(axis=-1) / n
        reliability = np.nansum(share * gap**2, axis=-1)
        resolution = np.nansum(share * spread**2, axis=-1)
        uncertainty = base * (1 - base)
        return {
            "base_rate": base,
            "stated": stated,
            "overstatement": stated - base,
            "brier": brier,
            "reliability": np.where(n > 0, reliability, np.nan),
            "resolution": np.where(n > 0, resolution, np.nan),
            "uncertainty": uncertainty,
            "within_bins": brier - (reliability - resolution + uncertainty),
            "skill": np.where(uncertainty > 0, 1 - brier / np.where(uncertainty > 0, uncertainty, 1.0), np.nan),
            "calibration_error": np.where(n > 0, np.nansum(share * np.abs(gap), axis=-1), np.nan),
        }


def _curve(edges: np.ndarray, whole: Sums, drawn: Sums) -> pd.DataFrame:
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {
            "low": edges[:-1],
            "high": edges[1:],
            "count": whole.n.astype(np.int64),
            "stated": whole.stated / whole.n,
        }
        for name, part, n in (("win_rate", "won", "n"), ("mean_r", "r", "n_r")):
            columns[name] = getattr(whole, part) / getattr(whole, n)
            draws = getattr(drawn, part) / getattr(drawn, n)
            bands = [band(draws[:, k]) for k in range(draws.shape[1])]
            columns[f"{name}_low"], columns[f"{name}_high"] = map(np.array, zip(*bands, strict=True))
    frame = pd.DataFrame(columns)
    return frame[frame["count"] > 0].reset_index(drop=True).rename_axis("bin")


def _ranks(values: np.ndarray) -> np.ndarray:
    return pd.Series(values).rank().to_numpy(dtype=np.float64)


def _slope(
    x: np.ndarray, y: np.ndarray, days: np.ndarray, weights: np.ndarray, *, correlation: bool
) -> tuple[float, float, float]:
    """Slope of y over x, or their correlation, with its band; ranks are those of the whole sample in every draw."""
    if not len(x):
        return math.nan, math.nan, math.nan
    x, y = x - x.mean(), y - y.mean()
    sums = day_sums(np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y]), days, weights.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        n, sx, sy, sxx, syy, sxy = np.vstack([sums.sum(axis=0), weights @ sums]).T
        covariance, x_spread, y_spread = sxy - sx * sy / n, sxx - sx * sx / n, syy - sy * sy / n
        under = np.sqrt(x_spread * y_spread) if correlation else x_spread
        values = np.where(under > 1e-12, covariance / under, np.nan)
    return float(values[0]), *band(values[1:])


def _calibration_p(stated: np.ndarray, won: np.ndarray, days: np.ndarray, flips: np.ndarray) -> float:
    if not len(stated):
        return math.nan
    rest = won - stated
    scores = np.column_stack([rest, rest * (stated - stated.mean())])
    return joint_p(day_sums(scores, days, flips.shape[1]), flips)
