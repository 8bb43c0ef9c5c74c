"""History through the engine: replay, its result, and the stages on their own."""

from aione_lab.backtest.baseline import Baseline, random_entries
from aione_lab.backtest.evaluate import Evaluation, Prepared
from aione_lab.backtest.portfolio import PortfolioResult, replay_portfolio
from aione_lab.backtest.replay import compute_features, replay, triggers
from aione_lab.backtest.result import Result
from aione_lab.backtest.stages import AssetMonitorStage1, Stage2Processor

__all__ = [
    "AssetMonitorStage1",
    "Baseline",
    "Evaluation",
    "PortfolioResult",
    "Prepared",
    "Result",
    "Stage2Processor",
    "compute_features",
    "random_entries",
    "replay",
    "replay_portfolio",
    "triggers",
]
