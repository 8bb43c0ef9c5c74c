"""The simulated symbol-year that everything is measured on, and how much of it a quick run takes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from aione_lab.calibration import FoldPlan
from aione_lab.lake.simulated import SimulatedExchange

SYMBOL, REFERENCE = "SUIUSDT", "BTCUSDT"


@dataclass(frozen=True)
class Size:
    """How much is measured: days of one-minute bars, repeats, symbols at a bar close, and the size of studies."""

    days: int = 365
    repeats: int = 9
    symbols: int = 300
    closes: int = 600
    sets: int = 100
    trials: int = 300
    universe: int = 50
    universe_days: int = 90
    universe_trials: int = 200
    folds: FoldPlan = field(default_factory=FoldPlan)


FULL = Size()
QUICK = Size(
    days=12,
    repeats=2,
    symbols=10,
    closes=20,
    sets=4,
    trials=20,
    universe=2,
    universe_days=12,
    universe_trials=20,
    folds=FoldPlan(n_folds=2, hidden=0.0),
)


@dataclass(frozen=True)
class Market:
    """One symbol, its reference and funding, simulated from seed 0."""

    size: Size
    candles: pd.DataFrame
    reference: pd.DataFrame
    funding: pd.Series

    @property
    def bars(self) -> int:
        """How many bars the symbol has."""
        return len(self.candles)


def simulate(size: Size) -> Market:
    """The market of ``size``: the same bars on every machine."""
    exchange = SimulatedExchange(seed=0)
    return Market(
        size=size,
        candles=exchange.candles(SYMBOL, days=size.days),
        reference=exchange.candles(REFERENCE, days=size.days),
        funding=exchange.funding(SYMBOL, days=size.days),
    )
