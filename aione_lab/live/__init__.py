"""A running session: feeds of closed candles, the session that pushes them, asset states, alerts, metrics, journal.

Alerts, metrics and Redis need the extra ``live``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Alert": "alert_text",
    "AlertQueue": "alerts",
    "AlertSettings": "alerts",
    "AssetStateManager": "assets",
    "AssetUpdate": "asset_follower",
    "CallbackSink": "alert_sinks",
    "Candle": "feed",
    "Drift": "drift_check",
    "Enriched": "enricher",
    "EnricherSettings": "enricher",
    "ExchangeFeed": "exchange_feed",
    "FastSessions": "fast_sessions",
    "FastSymbols": "prefilter",
    "Feed": "feed",
    "FeedMetrics": "feed",
    "FeedSettings": "feed_settings",
    "FeedStatus": "feed",
    "Journal": "journal",
    "NarrativeEnricher": "enricher",
    "Prefilter": "prefilter",
    "PrefilterSettings": "prefilter",
    "ReplayFeed": "replay_feed",
    "Session": "session",
    "SessionMetrics": "metrics",
    "TelegramSink": "alert_sinks",
    "WebhookSink": "alert_sinks",
    "drift": "drift_check",
    "find_fast_symbols": "prefilter",
    "follow_assets": "asset_follower",
    "stage2_fields": "asset_state",
}

__all__ = [
    "Alert",
    "AlertQueue",
    "AlertSettings",
    "AssetStateManager",
    "AssetUpdate",
    "CallbackSink",
    "Candle",
    "Drift",
    "Enriched",
    "EnricherSettings",
    "ExchangeFeed",
    "FastSessions",
    "FastSymbols",
    "Feed",
    "FeedMetrics",
    "FeedSettings",
    "FeedStatus",
    "Journal",
    "NarrativeEnricher",
    "Prefilter",
    "PrefilterSettings",
    "ReplayFeed",
    "Session",
    "SessionMetrics",
    "TelegramSink",
    "WebhookSink",
    "drift",
    "find_fast_symbols",
    "follow_assets",
    "stage2_fields",
]

if TYPE_CHECKING:
    from aione_lab.live.alert_sinks import CallbackSink, TelegramSink, WebhookSink
    from aione_lab.live.alert_text import Alert
    from aione_lab.live.alerts import AlertQueue, AlertSettings
    from aione_lab.live.asset_follower import AssetUpdate, follow_assets
    from aione_lab.live.asset_state import stage2_fields
    from aione_lab.live.assets import AssetStateManager
    from aione_lab.live.drift_check import Drift, drift
    from aione_lab.live.enricher import Enriched, EnricherSettings, NarrativeEnricher
    from aione_lab.live.exchange_feed import ExchangeFeed
    from aione_lab.live.fast_sessions import FastSessions
    from aione_lab.live.feed import Candle, Feed, FeedMetrics, FeedStatus
    from aione_lab.live.feed_settings import FeedSettings
    from aione_lab.live.journal import Journal
    from aione_lab.live.metrics import SessionMetrics
    from aione_lab.live.prefilter import FastSymbols, Prefilter, PrefilterSettings, find_fast_symbols
    from aione_lab.live.replay_feed import ReplayFeed
    from aione_lab.live.session import Session


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"aione_lab.live.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("httpx", "prometheus_client"):
            raise
        missing = error.name
    raise ModuleNotFoundError(f"this needs {missing}: pip install 'aione-lab[live]'", name=missing)
