"""AiOne lab: research and backtesting of crypto futures on one-minute candles.

The public names are imported when they are first used, so that ``import aione_lab`` stays quick:
``from aione_lab import Lake`` loads pandas and pyarrow, and nothing loads vectorbt until it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The one list of public names: name -> module that defines it.
_HOME = {
    "AssetMonitorStage1": "aione_lab.backtest",
    "AssetStateManager": "aione_lab.live",
    "CalibrationExplorer": "aione_lab.widgets",
    "CalibrationQueue": "aione_lab.calibration",
    "Costs": "aione_lab.settings",
    "Dashboard": "aione_lab.widgets",
    "Engine": "aione_lab.engine",
    "ExchangeFeed": "aione_lab.live",
    "FeatureSpec": "aione_lab.engine",
    "Lake": "aione_lab.lake",
    "ReplayFeed": "aione_lab.live",
    "Session": "aione_lab.live",
    "Settings": "aione_lab.settings",
    "SimpleCacheHandler": "aione_lab.cache",
    "Stage2Processor": "aione_lab.backtest",
    "Thresholds": "aione_lab.thresholds",
    "calibrate": "aione_lab.calibration",
    "event_study": "aione_lab.research",
    "replay": "aione_lab.backtest",
    "replay_portfolio": "aione_lab.backtest",
    "triggers": "aione_lab.backtest",
}

__all__ = [
    "AssetMonitorStage1",
    "AssetStateManager",
    "CalibrationExplorer",
    "CalibrationQueue",
    "Costs",
    "Dashboard",
    "Engine",
    "ExchangeFeed",
    "FeatureSpec",
    "Lake",
    "ReplayFeed",
    "Session",
    "Settings",
    "SimpleCacheHandler",
    "Stage2Processor",
    "Thresholds",
    "__version__",
    "calibrate",
    "event_study",
    "replay",
    "replay_portfolio",
    "triggers",
]

if TYPE_CHECKING:
    from aione_lab.backtest import AssetMonitorStage1, Stage2Processor, replay, replay_portfolio, triggers
    from aione_lab.cache import SimpleCacheHandler
    from aione_lab.calibration import CalibrationQueue, calibrate
    from aione_lab.engine import Engine, FeatureSpec
    from aione_lab.lake import Lake
    from aione_lab.live import AssetStateManager, ExchangeFeed, ReplayFeed, Session
    from aione_lab.research import event_study
    from aione_lab.settings import Costs, Settings
    from aione_lab.thresholds import Thresholds
    from aione_lab.widgets import CalibrationExplorer, Dashboard


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # found once, then an ordinary attribute
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
