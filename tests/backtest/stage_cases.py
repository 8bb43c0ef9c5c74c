"""Alerts of a simulated symbol as the records that Stage2, narrative and explanation read."""

from __future__ import annotations

from typing import Any

import numpy as np

from aione_lab.backtest.decode import features_at
from aione_lab.backtest.result import Result
from aione_lab.engine.params import params_record


def alert_places(result: Result) -> np.ndarray:
    """Bar positions of the alerts."""
    return np.flatnonzero(result.signal_records["signal"] == 2)


def case(result: Result, at: int) -> tuple[Any, Any, Any, Any]:
    """(FEATURES, SIGNAL, ASSESSMENT or None, PARAMS) records of the bar at ``at``."""
    params = params_record(result.thresholds, result.interval, result.spec, result.settings, result.costs)[0]
    signal = result.signal_records[at]
    found = result.assessment_records[result.assessment_records["timestamp"] == signal["timestamp"]]
    return features_at(result.columns, at), signal, found[0] if len(found) else None, params
