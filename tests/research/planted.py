"""Synthetic days of outcomes whose truth is known, for the tests of what research says about them."""

from __future__ import annotations

import numpy as np


def stated_days(
    seed: int, truth: str, n_days: int = 30, a_day: int = 40, shared: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(stated, won, r, days): each day shifts what is stated, and on its own account what comes true.

    ``truth``: ``calibrated``, ``inverted``, ``overstated`` (right order, twice too high), or ``empty``, where the days
    of both still make them look related to whoever takes every observation as independent.
    """
    random = np.random.default_rng(seed)
    days = np.repeat(np.arange(n_days), random.poisson(a_day, n_days) + 1)
    moods = random.normal(0, shared, (2, n_days))
    stated = 1 / (1 + np.exp(0.8 - 0.8 * (moods[0][days] + random.normal(0, 1, len(days)))))
    chance = {
        "calibrated": stated,
        "inverted": 1 - stated,
        "overstated": stated / 2,
        "empty": 1 / (1 + np.exp(0.8 - moods[1][days])),
    }[truth]
    won = random.uniform(size=len(days)) < chance
    return stated, won, np.where(won, 2.0, -1.0) + random.normal(0, 0.3, len(days)), days
