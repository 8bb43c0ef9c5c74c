"""The wild cluster bootstrap of a mean over days: p-values by sign flips, bands by its studentised form.

Returns over overlapping horizons depend on each other, volatility comes in spells and single days dominate. So what
is earned is first added up by the UTC day on which it is earned; whole days then get random signs (Rademacher
weights; C. Cameron, J. Gelbach and D. Miller, "Bootstrap-based improvements for inference with clustered errors",
Review of Economics and Statistics 90, 2008). A price change after midnight belongs to the next day, so days share none.
"""

from __future__ import annotations

import numpy as np

COLUMNS = 4_000_000
"""Numbers held at once: tests are taken in portions of as many columns as this allows."""


def signs(n_boot: int, n_days: int, seed: int) -> np.ndarray:
    """Random signs, (n_boot, n_days)."""
    return np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), size=(n_boot, n_days))


def flip_p_values(sums: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Two-sided p-values that the rows of ``sums`` (tests, days) add up to zero in the long run, (tests,).

    (1 + flips whose |sum| is as large) ÷ (1 + flips): the null is imposed, and exact where a day's sum is
    symmetric about zero.
    """
    p = np.empty(len(sums))
    for rows in _portions(len(sums), len(flips)):
        part = sums[rows]
        seen = np.abs(part.sum(axis=1)) * (1 - 1e-12)
        p[rows] = (1 + (np.abs(flips @ part.T) >= seen).sum(axis=0)) / (1 + len(flips))
    return p


def half_widths(sums: np.ndarray, weights: np.ndarray, flips: np.ndarray, level: float) -> np.ndarray:
    """Half widths of the bands around the row totals of ``sums`` at ``level``, (tests,).

    ``weights`` (tests, days) adds up to 1 in each row: the share of the total that a day would have if all did
    equally well. The ``level`` quantile of the bootstrap's |t| times the standard error.
    """
    half = np.empty(len(sums))
    rest = sums - sums.sum(axis=1, keepdims=True) * weights
    for rows in _portions(len(sums), len(flips)):
        e, w = rest[rows], weights[rows]
        drawn = flips @ e.T
        # Residuals of the draw: flip × e − drawn × w; their squares added up without holding them.
        spread = (e**2).sum(1) - 2 * drawn * (flips @ (e * w).T) + drawn**2 * (w**2).sum(1)
        t = np.abs(drawn) / np.sqrt(np.where(spread > 0, spread, np.inf))
        half[rows] = np.quantile(t, level, axis=0) * np.sqrt((e**2).sum(1))
    return half


def _portions(n: int, draws: int) -> list[slice]:
    size = max(1, COLUMNS // max(draws, 1))
    return [slice(first, first + size) for first in range(0, n, size)]
