"""A session that is played: simulated candles, replayed beforehand, told bar by bar to an AssetStateManager."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pandas as pd

from aione_lab.backtest import Result, replay
from aione_lab.backtest.decode import features_at, stage1_dict, stage2_dict
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.live import AssetStateManager, stage2_fields

START, DAYS = "2025-01-05", 3
SYMBOLS = ("BTCUSDT", "SOLUSDT", "LINKUSDT", "SUIUSDT")


class PlayedSession:
    """What a Dashboard asks of a session; ``step`` tells the next bar of every symbol."""

    interval = "1m"

    def __init__(self, symbols: tuple[str, ...] = SYMBOLS, days: int = DAYS, cache: Any = None) -> None:
        exchange = SimulatedExchange()
        frames = {symbol: exchange.candles(symbol, "1m", START, days) for symbol in symbols}
        self.results: dict[str, Result] = {
            symbol: replay(frame, symbol=symbol, interval="1m") for symbol, frame in frames.items()
        }
        self.symbols = symbols
        self.assets = AssetStateManager(symbols, cache)
        self.bar = len(self.results[symbols[0]].bars) - 600
        self.asked: list[str] = []
        self.alerts: list[Mapping[str, Any]] = []

    def step(self) -> None:
        for symbol, result in self.results.items():
            self._tell(symbol, result, self.bar)
        self.bar += 1

    async def play(self, bars: int, seconds: float) -> None:
        for _ in range(bars):
            self.step()
            await asyncio.sleep(seconds)

    def _tell(self, symbol: str, result: Result, bar: int) -> None:
        row, signal = features_at(result.columns, bar), result.signal_records[bar]
        stage1 = stage1_dict(symbol, row, signal, result.thresholds)
        self.assets.update_asset(symbol, stage1)
        found = result.assessment_records
        place = found["timestamp"].searchsorted(signal.timestamp)
        if stage1["signal"] == "ALERT" and place < len(found):
            stage2 = stage2_dict(symbol, found[place], row, signal, params_of(result), {})
            self.assets.update_asset(symbol, stage2_fields(stage2))
            self.assets.publish_signal(stage2)
            self.alerts.append(stage2)

    def candles(self, symbol: str, bars: int = 500) -> pd.DataFrame:
        return self.results[symbol].candles.iloc[: self.bar].tail(bars)

    def rows(self, symbol: str) -> pd.DataFrame:
        result = self.results[symbol]
        return result.signals.assign(rsi=result.features["rsi"]).iloc[: self.bar].tail(500)

    def last_alerts(self, symbol: str | None = None, n: int = 20) -> list[Mapping[str, Any]]:
        found = [alert for alert in self.alerts if symbol in (None, alert["symbol"])]
        return found[::-1][:n]

    async def request_calibration(self, symbol: str) -> str:
        self.asked.append(symbol)
        self.assets.update_asset(symbol, {"calib_status": "queued_urgent"})
        return "queued_urgent"

    def status(self) -> dict[str, Any]:
        return {
            "bars": self.bar,
            "reconnects": 0,
            "degraded": {"cache": self.assets.degraded} if self.assets.degraded else {},
        }


def params_of(result: Result) -> Any:
    from aione_lab.engine.params import params_record

    return params_record(result.thresholds, "1m", result.spec, result.settings, result.costs)
