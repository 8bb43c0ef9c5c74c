"""The plateau: not the best trial, but the one whose neighbours hold up as well, fold by fold.

The highest score of many trials is the luckiest one too. A set of parameters whose neighbours score about as high
does not owe its score to a coincidence of its exact numbers. What a plateau says is about the data it was chosen on:
it has still to hold on data that had no part in the choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aione_lab.errors import InputError
from aione_lab.research.arguments import finite, numbers_of, whole
from aione_lab.thresholds.params import Thresholds

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from aione_lab.figures.theme import Theme

FEWEST_NEIGHBOURS = 5
MOST_NEIGHBOURS = 20  # by default: more would reach beyond any plateau worth the name
LONELY = 0.9
"""By default a centre may be as far from its neighbours as nine sets of ten are; what is lonelier is not chosen.

Sets at the edges of the search ranges have their neighbours on one side only and further away, and good sets often lie
at an edge: with three of four instead, edges were refused and the choice was worse on later simulated data.
"""

QUANTILE = 0.25
"""Quantile of the neighbours' scores that counts: three of four must do as well."""

DECIMALS = 9  # distances on a grid that are equal must be equal, whatever the rounding of their fields
_CHUNK = 2_000_000  # numbers held at once, whatever the number of trials

Ranges = Mapping[str, Sequence[float]] | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Plateau:
    """Which set stands in the middle of what holds up, beside the peak; arrays have one element a set."""

    centre: int  # position of the chosen set
    peak: int  # position of the set with the highest mean score, the best trial
    neighbours: np.ndarray  # positions of the centre's neighbours, nearest first
    neighbourhood: np.ndarray  # (k,) score of the neighbourhood: QUANTILE of its sets' scores, at most the own
    scores: np.ndarray  # (k,) score of the set alone: mean over folds less one standard deviation
    mean_scores: np.ndarray  # (k,) mean over folds
    fold_scores: np.ndarray  # (k, folds), missing ones replaced as ``choose_plateau`` says
    eligible: np.ndarray  # (k,) bool: has enough neighbours within the radius
    distances: np.ndarray  # (k,) to the n-th nearest other set, in shares of the search ranges
    n_neighbours: int
    n_distinct: int  # distinct sets among the k
    radius: float

    @property
    def why(self) -> str:
        """Why the centre and not the peak, in one clause."""
        if self.centre == self.peak:
            return "the best trial is also the one whose neighbours hold up best"
        if not self.eligible[self.peak]:
            return (
                f"the best trial has too few neighbours within {self.radius:.2f} of the search ranges to vouch for it"
            )
        return (
            f"three of four sets around it score {self.neighbourhood[self.centre]:.3g} or more, around the best trial "
            f"{self.neighbourhood[self.peak]:.3g}"
        )

    @property
    def sentence(self) -> str:
        """What was chosen and why, in one plain sentence that promises nothing."""
        c, p = self.centre, self.peak
        chosen = (
            f"Of {self.n_distinct:,} distinct sets number {c} was chosen (mean score {self.mean_scores[c]:.3g} over "
            f"{self.fold_scores.shape[1]} folds"
        )
        best = ")" if c == p else f"; the best trial, number {p}, has {self.mean_scores[p]:.3g})"
        return (
            f"{chosen}{best}: {self.why}. Whether it holds on data that had no part in the choice is not said by this."
        )

    def plot(self, theme: Theme = "light") -> go.Figure:
        """Every set's own score against its neighbourhood's, and centre, neighbours and peak fold by fold."""
        from aione_lab.figures.plateau import plateau_chart

        return plateau_chart(
            self.mean_scores,
            self.neighbourhood,
            self.fold_scores,
            self.eligible,
            centre=self.centre,
            peak=self.peak,
            neighbours=self.neighbours,
            theme=theme,
        )


def choose_plateau(
    parameters: pd.DataFrame | np.ndarray,
    scores: Any,
    ranges: Ranges | None = None,
    *,
    n_neighbours: int | None = None,
    radius: float | None = None,
) -> Plateau:
    """Choose among ``parameters`` (k sets, d fields) by ``scores`` (k, folds), higher is better, the plateau's centre.

    Fields are scaled by their search ranges (``ranges``: (low, high) by name or in order; None: those of
    ``Thresholds``, by name) and sets compared by the root of the mean squared difference over fields, 0 to 1. The
    neighbours of a set are its ``n_neighbours`` nearest others (None: a tenth of the sets, 5 to 20) and all as far
    as the last of these. A set's own score is its mean over folds less their standard deviation, so that one fold
    does not carry it; the neighbourhood's is the lower quartile of the set's and its neighbours', or the set's own
    where that is lower. The highest neighbourhood wins, then the higher own score, then the smaller numbers. A set
    whose n-th neighbour is further away than ``radius`` (None: than it is for nine sets of ten) is not eligible:
    nobody vouches for it.

    Repeated sets count once, with the mean of their scores: a trial is no neighbour of itself. A NaN score (nothing to
    judge on that fold) counts as the lowest of that fold, or 0 if that is lower. The order of the sets does not matter.

    Raises InputError for parameters or scores that are no numbers, parameters with NaN, infinite scores (cap them),
    lengths that differ, ranges that are none, six distinct sets not reached, and a radius that no set meets.
    """
    names, values = _parameters(parameters)
    scaled = values / np.array([high - low for low, high in _ranges(ranges, names)])
    folds = _scores(scores, len(values))
    # Repeats apart, rows in the order of their numbers: everything below is the same for any order of the trials.
    distinct, first, place = np.unique(np.round(scaled, DECIMALS), axis=0, return_index=True, return_inverse=True)
    place = place.ravel()
    k = len(distinct)
    if k < FEWEST_NEIGHBOURS + 1:
        raise InputError.of("parameters", f"{k} distinct sets", f"at least {FEWEST_NEIGHBOURS + 1} are needed")
    n = min(max(k // 10, FEWEST_NEIGHBOURS), MOST_NEIGHBOURS) if n_neighbours is None else n_neighbours
    n = whole("n_neighbours", n, 1, k - 1)
    order = np.lexsort((*folds.T, place))  # repeats are summed in the order of their scores, not of the trials
    starts = np.searchsorted(place[order], np.arange(k))
    own_folds = np.add.reduceat(folds[order], starts, axis=0) / np.bincount(place)[:, None]
    own = own_folds.mean(axis=1) - own_folds.std(axis=1)
    near, reach = _neighbours(distinct, n)
    # A bad set amid good ones is no centre: it must do as well itself.
    around = np.minimum(own, [np.quantile(own[rows], QUANTILE) for rows in near])
    if radius is None:
        radius = float(np.quantile(reach, LONELY, method="higher"))
    elif not 0 < finite("radius", radius):
        raise InputError.of("radius", radius, "must be more than 0")
    eligible = reach <= radius
    if not eligible.any():
        raise InputError.of("radius", radius, f"no set has {n} neighbours so near; the closest takes {reach.min():.3g}")
    candidates = np.flatnonzero(eligible)
    centre = candidates[np.lexsort((candidates, -own[candidates], -around[candidates]))[0]]
    mean = own_folds.mean(axis=1)
    peak = np.lexsort((np.arange(k), -own, -mean))[0]
    others = near[centre][near[centre] != centre]
    return Plateau(
        centre=int(first[centre]),
        peak=int(first[peak]),
        neighbours=first[others],
        neighbourhood=around[place],
        scores=own[place],
        mean_scores=mean[place],
        fold_scores=own_folds[place],
        eligible=eligible[place],
        distances=reach[place],
        n_neighbours=n,
        n_distinct=k,
        radius=float(radius),
    )


def _neighbours(points: np.ndarray, n: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Of each row the rows up to its n-th nearest other and all as far as that, nearest first; and that distance."""
    k, d = points.shape
    near: list[np.ndarray] = []
    reach = np.empty(k)
    step = max(1, _CHUNK // (k * d))
    for first in range(0, k, step):
        part = points[first : first + step]
        away = np.round(np.sqrt(((part[:, None] - points[None]) ** 2).mean(axis=2)), DECIMALS)
        far = np.partition(away, n, axis=1)[:, n]  # the row itself is among them, at 0
        reach[first : first + len(part)] = far
        for row, limit in zip(away, far, strict=True):
            inside = np.flatnonzero(row <= limit)
            near.append(inside[np.argsort(row[inside], kind="stable")])
    return near, reach


def _parameters(parameters: Any) -> tuple[list[str], np.ndarray]:
    what = "a table of numbers, one row a set (no NaN)"
    if isinstance(parameters, pd.DataFrame):
        names = [str(name) for name in parameters.columns]
        kinds = {dtype.kind for dtype in parameters.dtypes}
        if not kinds <= set("iuf"):
            raise InputError.of("parameters", [str(dtype) for dtype in parameters.dtypes], f"must be {what}")
    values = numbers_of("parameters", parameters, 2, what)
    if not isinstance(parameters, pd.DataFrame):
        names = [str(i) for i in range(values.shape[1])]
    if not values.shape[1]:
        raise InputError.of("parameters", f"shape {values.shape}", f"must be {what}")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise InputError.of("parameters", f"{values[row, column]} in row {row}, {names[column]}", f"must be {what}")
    return names, values


def _ranges(ranges: Any, names: list[str]) -> list[tuple[float, float]]:
    if ranges is None:
        ranges = {}
        for name in names:
            extra = Thresholds.model_fields[name].json_schema_extra if name in Thresholds.model_fields else None
            if not isinstance(extra, dict):
                raise InputError.of("ranges", None, f"must be given: {name!r} is no threshold with a search range")
            search: Any = extra["search"]
            ranges[name] = (search["low"], search["high"])
    if isinstance(ranges, Mapping):
        missing = [name for name in names if name not in ranges]
        if missing:
            raise InputError.of("ranges", list(ranges), f"lacks the field {missing[0]!r}")
        ranges = [ranges[name] for name in names]
    values = numbers_of("ranges", ranges, 2, "one (low, high) a field")
    if values.shape != (len(names), 2) or not (np.isfinite(values).all() and (values[:, 0] < values[:, 1]).all()):
        raise InputError.of("ranges", values.tolist(), f"must be {len(names)} times (low, high), low < high")
    return [(float(low), float(high)) for low, high in values]


def _scores(scores: Any, k: int) -> np.ndarray:
    folds = numbers_of("scores", scores, 2, "a table of numbers, one row a set, one column a fold")
    if folds.shape[0] != k or not folds.shape[1]:
        raise InputError.of("scores", f"shape {folds.shape}", f"must have one row for each of {k} sets, and a fold")
    if np.isinf(folds).any():
        row, column = np.argwhere(np.isinf(folds))[0]
        raise InputError.of("scores", f"{folds[row, column]} in row {row}, fold {column}", "must be finite; cap it")
    missing = np.isnan(folds)
    lowest = np.where(missing, 0.0, folds).min(axis=0)  # at most 0 where something is missing, and only used there
    return np.where(missing, lowest, folds)
