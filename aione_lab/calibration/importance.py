"""How much each threshold had to do with the score: functional ANOVA over the trials of a study."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pandas as pd

TREES = 16
DEPTH = 5
"""Of the forest: shares as those of 64 trees of any depth to about 0.1, in a tenth of their time or less."""


def parameter_importance(study: optuna.Study, objective: int = 0, seed: int = 0) -> pd.Series:
    """Share of the variation of an objective that each parameter explains, highest first; NaN where it never varied.

    It speaks of the sets that were tried, which a search crowds where the score is high, and of the days they were
    tried on: what mattered to the score there, whether or not there is anything to find. F. Hutter, H. Hoos,
    K. Leyton-Brown, "An efficient approach for assessing hyperparameter importance" (2014).
    """
    trials = study.get_trials(deepcopy=False)
    names = list(trials[0].params)
    if np.ptp([trial.values[objective] for trial in trials]) == 0:
        return pd.Series(math.nan, index=names, name="importance")
    found = optuna.importance.get_param_importances(
        study,
        evaluator=optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=seed),
        target=lambda trial: trial.values[objective],
    )
    return pd.Series({name: float(share) for name, share in found.items()}, name="importance", dtype=np.float64)
