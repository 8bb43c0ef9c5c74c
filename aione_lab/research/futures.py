"""Other futures for the same past: what stands after a cut is dropped, or replaced by something absurd.

A number that belongs to a bar before the cut may not notice. One definition, for studies and for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from aione_lab.backtest.prepare import frame_ms
from aione_lab.lake.schema import FUNDING_COLUMNS, PRICES
from aione_lab.units import MINUTE_MS

Change = Callable[[np.ndarray, list[str]], np.ndarray]

SOAR, SINK = 1e6, 1e-3
_FROZEN_PRICE = 1e-9
_MOST_FUNDING = 0.9  # a funding rate is a fraction below one


def _soared(rows: np.ndarray, columns: list[str]) -> np.ndarray:
    return np.clip(rows * SOAR, -_MOST_FUNDING, _MOST_FUNDING) if list(columns) == [*FUNDING_COLUMNS] else rows * SOAR


def _sunk(rows: np.ndarray, columns: list[str]) -> np.ndarray:
    return rows * SINK


def _backwards(rows: np.ndarray, columns: list[str]) -> np.ndarray:
    return rows[::-1]


def _frozen(rows: np.ndarray, columns: list[str]) -> np.ndarray:
    return np.where([name in PRICES for name in columns], _FROZEN_PRICE, np.zeros_like(rows))


def _blank(rows: np.ndarray, columns: list[str]) -> np.ndarray:
    return np.full_like(rows, np.nan)


CUT_OFF = "cut off"
FUTURES: dict[str, Change | None] = {
    CUT_OFF: None,
    "× 1e6": _soared,
    "× 0.001": _sunk,
    "reversed": _backwards,
    "frozen": _frozen,
}
"""Futures that are still candles: each a function of the rows (n, k) after the cut and their column names."""

BLANK: dict[str, Change | None] = {"NaN": _blank}
"""The future that is no candle: for a user's function only, the engine refuses it by rule."""


@dataclass(frozen=True)
class Inputs:
    """What a computation may read: candles, the reference's candles, and funding rates (frames or None)."""

    candles: pd.DataFrame
    reference: pd.DataFrame | None
    funding: pd.DataFrame | None
    step: int  # ms of a bar

    def with_future(self, future: str, cut: int) -> Inputs:
        """The same up to the bar that opens at ``cut`` (ms), another ``future`` from there on."""
        change = (FUTURES | BLANK)[future]
        return replace(
            self,
            candles=changed(self.candles, _rows_before(self.candles, cut), change),
            reference=None
            if self.reference is None
            else changed(self.reference, _rows_before(self.reference, cut), change),
            funding=None if self.funding is None else changed(self.funding, self._paid_before(cut), change),
        )

    def since(self, start: int, end: int | None = None) -> Inputs:
        """The part from the bar that opens at ``start`` (ms) up to ``end``, exclusive."""
        return replace(
            self,
            candles=_between(self.candles, start, end),
            reference=None if self.reference is None else _between(self.reference, start, end),
            funding=None if self.funding is None else _between(self.funding, start, end),
        )

    def with_bar(self, at: int, bar: dict[str, float]) -> Inputs:
        """The same candles with other prices on bar number ``at``."""
        candles = self.candles.copy()
        for name, value in bar.items():
            candles.loc[candles.index[at], name] = value
        return replace(self, candles=candles)

    def with_blocks(self, first: int, every: int, length: int, factor: float) -> Inputs:
        """The same with ``length`` bars multiplied by ``factor`` at each of ``first``, ``first + every``, …"""
        times = frame_ms(self.candles)
        inside = (np.arange(len(times)) - first) % every < length
        inside[:first] = False
        marked = times[inside]

        def scaled(frame: pd.DataFrame | None, opens: np.ndarray | None) -> pd.DataFrame | None:
            if frame is None or opens is None:
                return None
            values = frame.to_numpy(copy=True)
            rows = np.isin(opens, marked)
            values[rows] *= factor
            return _like(frame, values)

        candles = self.candles.to_numpy(copy=True)
        candles[inside] *= factor
        return replace(
            self,
            candles=_like(self.candles, candles),
            reference=scaled(self.reference, None if self.reference is None else frame_ms(self.reference)),
            funding=scaled(self.funding, None if self.funding is None else self._paid_in()),
        )

    def _paid_in(self) -> np.ndarray:
        """Open of the bar that each funding stamp belongs to: the rule of ``backtest.prepare``."""
        assert self.funding is not None
        return (frame_ms(self.funding) + MINUTE_MS // 2) // self.step * self.step

    def _paid_before(self, cut: int) -> int:
        return int(np.searchsorted(self._paid_in(), cut))


def changed(frame: pd.DataFrame, cut: int, change: Change | None) -> pd.DataFrame:
    """``frame`` with its rows from number ``cut`` on changed, or dropped where ``change`` is None."""
    if change is None:
        return frame.iloc[:cut]
    values = frame.to_numpy(dtype=np.float64, copy=True)
    if cut < len(values):
        values[cut:] = change(values[cut:].copy(), list(frame.columns))
    return _like(frame, values)


def _between(frame: pd.DataFrame, start: int, end: int | None) -> pd.DataFrame:
    return frame.iloc[_rows_before(frame, start) : len(frame) if end is None else _rows_before(frame, end)]


def _rows_before(frame: pd.DataFrame, time: int) -> int:
    return int(np.searchsorted(frame_ms(frame), time))


def _like(frame: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, index=frame.index, columns=frame.columns, copy=False)
