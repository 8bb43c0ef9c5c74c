"""The simulated symbol-year that everything is measured on, and how much of it a quick run takes."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from aione_lab.lake.simulated import SimulatedExchange

SYMBOL, REFERENCE = "SUIUSDT", "BTCUSDT"


@dataclass(frozen=True)
class Size:
    """How much is measured: days of one-minute bars, repeats of a measurement, symbols at a bar close."""

    days: int = 365
    repeats: int = 9
    symbols: int = 300
    closes: int = 600
    sets: int = 100


FULL = Size()
QUICK = Size(days=4, repeats=2, symbols=10, closes=20, sets=4)


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
