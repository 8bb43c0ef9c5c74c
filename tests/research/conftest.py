"""Replays that the studies are tried on."""

from __future__ import annotations

import pytest

from aione_lab.backtest import Result, replay
from aione_lab.lake.simulated import SimulatedExchange


@pytest.fixture(scope="session")
def replays() -> list[Result]:
    """Twelve days of two simulated symbols with a reference: some hundred alerts."""
    exchange = SimulatedExchange(seed=5)
    btc = exchange.candles("BTCUSDT", days=12)
    return [replay(exchange.candles(name, days=12), symbol=name, reference=btc) for name in ("SOLUSDT", "1000PEPEUSDT")]
