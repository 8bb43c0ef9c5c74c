"""`Recent`: the newest bars of every symbol of a session, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.backtest.trades import named, sides, utc
from aione_lab.engine.event import decode_mask
from aione_lab.engine.records import REASONS, RECOMMENDATIONS, SIGNAL, SIGNALS, SUPPRESSED
from aione_lab.lake.schema import CANDLE_COLUMNS, candle_frame

KEPT = 1_500
"""Bars a symbol that are kept."""

SHOWN = ("rsi", "atr_pct", "volume_z", "vwap_dev")
"""Features that are kept beside candle and signal."""

_ROW = np.dtype(
    [("timestamp", "i8"), ("values", "f8", (len(CANDLE_COLUMNS),)), ("shown", "f8", (len(SHOWN),)), ("signal", SIGNAL)]
)


class Recent:
    """A ring of KEPT bars a symbol: candle, some features, signal. What a bar gives all symbols lies together."""

    def __init__(self, symbols: Iterable[str], reasons: tuple[str, ...] = REASONS) -> None:
        self._reasons = reasons
        self._places = {name: k for k, name in enumerate(symbols)}
        self._rows = np.zeros((KEPT, len(self._places)), _ROW)
        self._counts = np.zeros(len(self._places), np.int64)

    def add(
        self, places: np.ndarray, timestamps: np.ndarray, values: np.ndarray, shown: np.ndarray, signals: np.ndarray
    ) -> None:
        """One bar of each of ``places`` (n,), no place twice; the rest as in ``fill``. Where full the oldest goes."""
        rows = _rows_of(timestamps, values, shown, signals)
        self._rows[self._counts[places] % KEPT, places] = rows
        self._counts[places] += 1

    def fill(
        self, symbol: str, timestamps: np.ndarray, values: np.ndarray, shown: np.ndarray, signals: np.ndarray
    ) -> None:
        """Many bars: (n,), (n, columns of a candle), (n, SHOWN), SIGNAL (n,)."""
        rows = _rows_of(*(column[-KEPT:] for column in (timestamps, values, shown, signals)))
        k = self._places[symbol]
        self._rows[(self._counts[k] + np.arange(len(rows))) % KEPT, k] = rows
        self._counts[k] += len(rows)

    def candles(self, symbol: str, bars: int) -> pd.DataFrame:
        """The newest candles, in the shape of ``Lake.candles``."""
        rows = self._last(symbol, bars)
        columns = {name: rows["values"][:, i].copy() for i, name in enumerate(CANDLE_COLUMNS)}
        return candle_frame(rows["timestamp"].copy(), columns)

    def signals(self, symbol: str, bars: int = KEPT) -> pd.DataFrame:
        """One row a bar: some features, then the columns of ``result.signals`` with their names."""
        rows = self._last(symbol, bars)
        signal = rows["signal"]
        reasons = np.empty(len(rows), dtype=object)
        reasons[:] = [decode_mask(int(mask), self._reasons) for mask in signal["reasons"]]
        columns: dict[str, Any] = {name: rows["shown"][:, i].copy() for i, name in enumerate(SHOWN)}
        columns |= {
            "signal": named(signal["signal"], SIGNALS),
            "trigger_reasons": reasons,
            "suppressed": named(signal["suppressed"], SUPPRESSED),
            "confidence": signal["confidence"].copy(),
            "recommendation": named(signal["recommendation"], RECOMMENDATIONS),
            "side": sides(signal["side"]),
            "position": signal["position"].astype(np.int64),
            "equity": signal["equity"].copy(),
        }
        return pd.DataFrame(columns, index=utc(rows["timestamp"]))

    def _last(self, symbol: str, bars: int) -> np.ndarray:
        k = self._places[symbol]
        count = int(self._counts[k])
        n = max(0, min(int(bars), count, KEPT))
        return self._rows[np.arange(count - n, count) % KEPT, k]

    def dump(self, symbol: str) -> bytes:
        """The rows of a symbol, oldest first."""
        return self._last(symbol, KEPT).tobytes()

    def load(self, symbol: str, content: bytes) -> None:
        """What ``dump`` gave, in place of what is there."""
        rows = np.frombuffer(content, _ROW)
        k = self._places[symbol]
        self._rows[: len(rows), k] = rows
        self._counts[k] = len(rows)


def _rows_of(timestamps: np.ndarray, values: np.ndarray, shown: np.ndarray, signals: np.ndarray) -> np.ndarray:
    rows = np.zeros(len(timestamps), _ROW)
    for name, column in (("timestamp", timestamps), ("values", values), ("shown", shown), ("signal", signals)):
        rows[name] = column
    return rows
