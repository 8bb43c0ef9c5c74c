"""Candles for the tests of replay: real ones where they are, simulated ones always."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aione_lab.backtest import Result, replay
from aione_lab.lake.simulated import SimulatedExchange


@pytest.fixture(scope="session")
def simulated() -> dict[str, pd.DataFrame]:
    """Twelve days of four simulated symbols, taker flow included."""
    exchange = SimulatedExchange(seed=5)
    return {name: exchange.candles(name, days=12) for name in ("BTCUSDT", "SOLUSDT", "LINKUSDT", "1000PEPEUSDT")}


@pytest.fixture(scope="session")
def simulated_funding() -> pd.Series:
    return SimulatedExchange(seed=5).funding("LINKUSDT", days=12)


@pytest.fixture(scope="session")
def replayed(simulated: dict[str, pd.DataFrame]) -> Result:
    """Six days of a simulated symbol with a reference, under default thresholds."""
    bars = 6 * 1440
    return replay(simulated["SOLUSDT"][:bars], symbol="SOLUSDT", reference=simulated["BTCUSDT"][:bars])


def real_files(shared: Path) -> list[Path]:
    """Every one-minute and five-minute candle file."""
    return sorted((shared / "candles").glob("[15]m/*.parquet"))


def load_real(path: Path) -> dict:
    """Keyword arguments of ``replay`` for a real file: candles, reference and funding of its symbol."""
    reference = path.parent / "BTCUSDT.parquet"
    funding = path.parent.parent / "funding_8h" / path.name
    return {
        "candles": pd.read_parquet(path),
        "symbol": path.stem,
        "interval": path.parent.name,
        "reference": pd.read_parquet(reference) if path != reference else None,
        "funding": pd.read_parquet(funding) if funding.exists() else None,
    }


def random_cuts(n: int, first: int, count: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).choice(np.arange(first, n), size=count, replace=False))
