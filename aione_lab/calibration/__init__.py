"""Calibration of thresholds: the search, the folds, the plateau, the ledger of all trials and the verdict.

Needs Optuna (the extra ``lab``).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Calibration": "study",
    "CalibrationOutcome": "request",
    "CalibrationQueue": "queue",
    "CalibrationRequest": "request",
    "Experiment": "experiment",
    "FoldPlan": "experiment",
    "Promoter": "job",
    "QueueSettings": "queue_settings",
    "calibrate": "run",
    "calibrate_job": "job",
    "calibrate_many": "many",
    "choose_plateau": "plateau",
    "outcome_of": "job",
    "promote": "job",
    "repeat": "repeating",
}

__all__ = [
    "Calibration",
    "CalibrationOutcome",
    "CalibrationQueue",
    "CalibrationRequest",
    "Experiment",
    "FoldPlan",
    "Promoter",
    "QueueSettings",
    "calibrate",
    "calibrate_job",
    "calibrate_many",
    "choose_plateau",
    "outcome_of",
    "promote",
    "repeat",
]

if TYPE_CHECKING:
    from aione_lab.calibration.experiment import Experiment, FoldPlan
    from aione_lab.calibration.job import Promoter, calibrate_job, outcome_of, promote
    from aione_lab.calibration.many import calibrate_many
    from aione_lab.calibration.plateau import choose_plateau
    from aione_lab.calibration.queue import CalibrationQueue
    from aione_lab.calibration.queue_settings import QueueSettings
    from aione_lab.calibration.repeating import repeat
    from aione_lab.calibration.request import CalibrationOutcome, CalibrationRequest
    from aione_lab.calibration.run import calibrate
    from aione_lab.calibration.study import Calibration


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"aione_lab.calibration.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ModuleNotFoundError("calibration needs Optuna: pip install 'aione-lab[lab]'", name="optuna") from None
