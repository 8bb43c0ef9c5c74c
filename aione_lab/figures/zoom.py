"""Lines of a FigureWidget that are drawn as finely as the screen shows them, at every zoom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from aione_lab.figures.decimate import decimate_candles, decimate_rows
from aione_lab.figures.newest import Newest

POINTS = 900
"""Points of a line: the extremes of every pixel column of a narrow chart, of every second one of a wide one."""

BARS = 300
"""Candlesticks on the screen; more of them touch each other."""


@dataclass(frozen=True)
class _Line:
    times: np.ndarray
    values: np.ndarray

    def shown(self, first: int, last: int) -> dict[str, np.ndarray]:
        rows = first + decimate_rows(self.values[first:last], POINTS)
        return {"x": stamps(self.times[rows]), "y": self.values[rows]}


@dataclass(frozen=True)
class _Candles:
    times: np.ndarray
    prices: dict[str, np.ndarray]

    def shown(self, first: int, last: int) -> dict[str, np.ndarray]:
        cut = {name: values[first:last] for name, values in self.prices.items()}
        times, drawn = decimate_candles(self.times[first:last], cut, BARS)
        return {"x": stamps(times), **drawn}


class Zoom:
    """Holds the whole of the lines of a figure and gives its traces what the visible range needs.

    Times are int64 UTC milliseconds, ascending. Every line keeps the extremes of what is visible. Zooming faster than
    the browser draws asks only for the newest range. ``close`` lets go of the figure.
    """

    def __init__(self, figure: go.FigureWidget) -> None:
        self.figure = figure
        self._sources: dict[int, _Line | _Candles] = {}
        self._refine = Newest(self._draw_all)
        self._watched = True
        figure.layout.on_change(self._zoomed, "xaxis.range", "xaxis.autorange")

    def line(self, trace: int, times: np.ndarray, values: np.ndarray) -> None:
        """Make ``values`` at ``times`` what the trace with that number shows."""
        self._sources[trace] = _Line(times, values)
        self._draw(trace)

    def candles(self, trace: int, times: np.ndarray, prices: dict[str, np.ndarray]) -> None:
        """Make the prices (``open, high, low, close``) what the Candlestick with that number shows."""
        self._sources[trace] = _Candles(times, prices)
        self._draw(trace)

    def close(self) -> None:
        """Watch the figure no more."""
        if self._watched:
            self._watched = False
            self.figure.layout.on_change(lambda *_: None, "xaxis.range", "xaxis.autorange")
        self._sources.clear()

    def visible(self) -> tuple[float, float]:
        """Visible range in UTC ms; everything where the axis fits itself to what there is."""
        axis = self.figure.layout.xaxis
        ends = axis.range
        if ends is None or axis.autorange is True:
            return -np.inf, np.inf
        first, last = (_ms(end) for end in ends)
        return min(first, last), max(first, last)

    def _zoomed(self, *_: Any) -> None:
        if self._watched:
            self._refine(self.visible())

    def _draw_all(self, visible: tuple[float, float]) -> None:
        with self.figure.batch_update():
            for trace in list(self._sources):
                self._draw(trace, visible)

    def _draw(self, trace: int, visible: tuple[float, float] | None = None) -> None:
        source = self._sources[trace]
        low, high = self.visible() if visible is None else visible
        # A row more on either side: the line leaves the picture where it goes on outside.
        first = max(int(np.searchsorted(source.times, low, side="left")) - 1, 0)
        last = int(np.searchsorted(source.times, high, side="right")) + 1
        self.figure.data[trace].update(source.shown(first, min(last, len(source.times))))


def stamps(times: np.ndarray) -> np.ndarray:
    """UTC milliseconds as text: given numbers, Plotly forgets at the next update that its axis is one of dates."""
    return np.datetime_as_string(times.astype("datetime64[ms]"))


def _ms(end: Any) -> float:
    """An end of a date axis, a number or the text that the browser sends, as UTC ms."""
    if isinstance(end, int | float | np.number):
        return float(end)
    return float(np.datetime64(str(end).strip().replace(" ", "T"), "us").astype("int64")) / 1000.0
