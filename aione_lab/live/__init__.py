"""Live sessions: feeds of closed candles, and what is done with each of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Candle": "feed",
    "ExchangeFeed": "exchange_feed",
    "Feed": "feed",
    "FeedMetrics": "feed",
    "FeedSettings": "feed_settings",
    "FeedStatus": "feed",
    "ReplayFeed": "replay_feed",
}

__all__ = ["Candle", "ExchangeFeed", "Feed", "FeedMetrics", "FeedSettings", "FeedStatus", "ReplayFeed"]

if TYPE_CHECKING:
    from aione_lab.live.exchange_feed import ExchangeFeed
    from aione_lab.live.feed import Candle, Feed, FeedMetrics, FeedStatus
    from aione_lab.live.feed_settings import FeedSettings
    from aione_lab.live.replay_feed import ReplayFeed


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"aione_lab.live.{_HOME[name]}"), name)
