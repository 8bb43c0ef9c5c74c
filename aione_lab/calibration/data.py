"""What a study reads from a lake: candles, reference and funding of one symbol, the hidden days apart."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.backtest.prepare import frame_ms
from aione_lab.backtest.replay import compute_features, replay
from aione_lab.backtest.result import Result
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.store import Lake
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS

REFERENCE = "BTCUSDT"


@dataclass(frozen=True)
class Frames:
    """Candles of one symbol with their reference, funding, spec, settings and costs, and the features of all."""

    symbol: str
    interval: str
    candles: pd.DataFrame
    reference: pd.DataFrame | None
    funding: pd.Series
    spec: FeatureSpec
    settings: Settings
    costs: Costs
    features: pd.DataFrame

    @classmethod
    def load(
        cls,
        lake: Lake,
        symbol: str,
        interval: str,
        start: Any,
        end: Any,
        reference: str | None,
        spec: FeatureSpec,
        settings: Settings,
        costs: Costs,
    ) -> Frames:
        """Read from ``start`` to ``end``, exclusive; what lies behind ``end`` is not even opened."""
        candles = lake.candles(symbol, interval, start, end)
        if candles.empty:
            raise InputError.of("start", start, f"the lake {lake.root} holds no {interval} candles of {symbol} there")
        other = None if reference is None else lake.candles(reference, interval, start, end)
        funding = lake.funding(symbol, start, end)
        features = compute_features(candles, interval=interval, reference=other, funding=funding, spec=spec)
        return cls(symbol, interval, candles, other, funding, spec, settings, costs, features)

    @property
    def times(self) -> np.ndarray:
        """Open times of the candles, int64 UTC ms."""
        return frame_ms(self.candles)

    def replay_days(self, thresholds: Thresholds, first_day: int, last_day: int) -> Result | None:
        """A replay that begins flat on ``first_day`` and ends with ``last_day``, its features warm from before.

        Days since 1970; None where they hold no two candles.
        """
        a, b = np.searchsorted(self.times, [first_day * DAY_MS, (last_day + 1) * DAY_MS])
        if b - a < 2:
            return None
        features = self.features.iloc[a:b]
        features.attrs = self.features.attrs
        return replay(
            self.candles.iloc[a:b],
            thresholds,
            symbol=self.symbol,
            interval=self.interval,
            reference=self.reference,
            funding=self.funding,
            spec=self.spec,
            settings=self.settings,
            costs=self.costs,
            features=features,
        )


def fingerprint_bars(bars: np.ndarray) -> str:
    """Sha256 of BAR records: candles, and what of the reference and funding belongs to them."""
    return hashlib.sha256(np.ascontiguousarray(bars).tobytes()).hexdigest()
