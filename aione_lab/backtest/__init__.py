"""History through the engine: replay, its result, and the stages on their own."""

from aione_lab.backtest.replay import compute_features, replay, triggers
from aione_lab.backtest.result import Result

__all__ = ["Result", "compute_features", "replay", "triggers"]
