"""Lines of a FigureWidget that are drawn as finely as the screen shows them, at every zoom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.errors import InputError
from aione_lab.figures.decimate import bucket_size, decimate_candles, line_in_time
from aione_lab.figures.newest import Newest
from aione_lab.figures.theme import Theme, candle_times, finish, floats, need_columns, on_candles, palette

PRICES = ("open", "high", "low", "close")

POINTS = 900
"""Points of a line: the extremes of every pixel column of a narrow chart, of every second one of a wide one."""

BARS = 300
"""Candlesticks on the screen; more of them touch each other."""


@dataclass(frozen=True)
class _Line:
    times: np.ndarray
    values: np.ndarray
    points: int

    def shown(self, first: int, last: int) -> dict[str, Any]:
        x, y = line_in_time(self.times[first:last], self.values[first:last], self.points)
        return {"x": stamps(x), "y": y}


@dataclass(frozen=True)
class _Candles:
    times: np.ndarray
    prices: Mapping[str, np.ndarray]

    def shown(self, first: int, last: int) -> dict[str, Any]:
        cut = {name: values[first:last] for name, values in self.prices.items()}
        times, drawn = decimate_candles(self.times[first:last], cut, BARS)
        return {"x": stamps(times), **drawn, "name": of_bars("price", first, last)}


@dataclass(frozen=True)
class _Volume(_Candles):
    def shown(self, first: int, last: int) -> dict[str, Any]:
        drawn = super().shown(first, last)
        return {"x": drawn["x"], "y": drawn["volume"], "name": of_bars("volume", first, last)}


class Zoom:
    """Holds the whole of the lines of a figure and gives its traces what the visible range needs.

    Times are int64 UTC milliseconds, ascending. Every line keeps the extremes of what is visible. Zooming faster than
    the browser draws asks only for the newest range. ``points``: most of them a line. ``close`` lets go of the figure.
    """

    def __init__(self, figure: go.FigureWidget, points: int = POINTS) -> None:
        self.figure = figure
        self._points = points
        self._sources: dict[int, _Line | _Candles] = {}
        self._refine = Newest(self._draw_all)
        self._watched = True
        figure.layout.on_change(self._zoomed, "xaxis.range", "xaxis.autorange")

    def line(self, trace: int, times: np.ndarray, values: np.ndarray) -> None:
        """Make ``values`` at ``times`` what the trace with that number shows."""
        self._sources[trace] = _Line(times, values, self._points)
        self._draw(trace)

    def candles(self, trace: int, times: np.ndarray, prices: dict[str, np.ndarray]) -> None:
        """Make the prices (``open, high, low, close``) what the Candlestick with that number shows."""
        self._sources[trace] = _Candles(times, prices)
        self._draw(trace)

    def volume(self, trace: int, times: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Make the volume of the candles what the Bar with that number shows, a bar a candlestick."""
        self._sources[trace] = _Volume(times, columns)
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
        first, last = (end_ms(end) for end in ends)
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
        first, last = visible_rows(source.times, low, high)
        self.figure.data[trace].update(source.shown(first, last))
        if isinstance(source, _Volume):  # its numbers are sums, of fewer bars the closer one looks
            axis = self.figure.data[trace].yaxis.replace("y", "yaxis")
            self.figure.layout[axis].title.text = of_bars("Volume", first, last).replace(" ", "<br>", 1)


def zoom_chart(
    candles: pd.DataFrame,
    equity: pd.Series | None = None,
    *,
    title: str | None = None,
    theme: Theme = "light",
) -> go.FigureWidget:
    """Candlesticks, volume and, where given, equity that are drawn anew, finer, wherever one zooms in.

    ``candles``: UTC DatetimeIndex, ascending, each time once, ``open high low close volume``; ``equity``: one value a
    candle, on its index. Half a million bars are sent as some hundred candlesticks, each of as many bars as needed,
    with their true highs and lows and the sum of their volume; hover and volume axis say of how many. Zoomed in far
    enough every bar is one. Needs a running kernel: for a page use ``price_chart`` or ``equity_chart``.

    Raises InputError where a column is missing, times are not such, ``equity`` is not on the candles' index, or there
    is no candle.
    """
    colours = palette(theme)
    need_columns(candles, (*PRICES, "volume"), "candles")
    if not len(candles):
        raise InputError.of("candles", len(candles), "must have at least one candle")
    opens = candle_times(candles)
    curve = None if equity is None else on_candles(equity, opens, "equity")
    times = opens.astype(np.int64)
    columns = {name: floats(candles[name], f"candles.{name}") for name in (*PRICES, "volume")}
    prices = {name: columns[name] for name in PRICES}
    rows = 2 if equity is None else 3
    figure = make_subplots(
        rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.04, row_heights=[0.6, 0.2, 0.3][:rows]
    )
    up, down = ({"line": {"color": one, "width": 1}} for one in (colours.up, colours.down))
    figure.add_trace(go.Candlestick(name="price", increasing=up, decreasing=down), row=1, col=1)
    figure.add_trace(go.Bar(name="volume", marker={"color": colours.neutral, "line": {"width": 0}}), row=2, col=1)
    if curve is not None:
        line = {"color": colours.up, "width": 1.2}
        figure.add_trace(go.Scatter(name="equity", mode="lines", line=line), row=3, col=1)
    for row, name in enumerate(("Price", "Volume", "Equity")[:rows], 1):
        figure.update_yaxes(title_text=name, row=row, col=1)
    # One time axis for all rows: a zoom in any of them is a zoom of the one that is watched.
    figure.update_traces(xaxis="x")
    figure.update_xaxes(rangeslider_visible=False)
    step = int(np.diff(times).min()) if len(times) > 1 else 60_000
    ends = [str(one) for one in stamps(np.array([times[0] - step // 2, times[-1] + step // 2]))]
    figure.layout.xaxis.update(anchor=f"y{rows}", range=ends, type="date", matches=None, showticklabels=True)
    figure.update_xaxes(title_text="Time (UTC)", selector={"anchor": f"y{rows}"})
    figure.update_layout(showlegend=False, hovermode="x")
    widget = go.FigureWidget(finish(figure, theme, title, 300 + 120 * rows))
    zoom = Zoom(widget)
    zoom.candles(0, times, prices)
    zoom.volume(1, times, columns)
    if curve is not None:
        zoom.line(2, times, curve)
    return widget


def of_bars(name: str, first: int, last: int) -> str:
    """``name`` with the number of bars that one candlestick is, of the rows ``first`` to ``last`` (exclusive)."""
    bars = bucket_size(last - first, BARS)
    return name if bars == 1 else f"{name} of {bars:,} bars"


def stamps(times: np.ndarray) -> np.ndarray:
    """UTC milliseconds as text: given numbers, Plotly forgets at the next update that its axis is one of dates."""
    return np.datetime_as_string(times.astype("datetime64[ms]"))


def visible_rows(times: np.ndarray, low: float, high: float) -> tuple[int, int]:
    """Where the rows from ``low`` to ``high`` begin and end, one more on either side: a line leaves the picture."""
    first = max(int(np.searchsorted(times, low, side="left")) - 1, 0)
    return first, min(int(np.searchsorted(times, high, side="right")) + 1, len(times))


def end_ms(end: Any) -> float:
    """An end of a date axis, a number or the text that the browser sends, as UTC ms."""
    if isinstance(end, int | float | np.number):
        return float(end)
    return float(np.datetime64(str(end).strip().replace(" ", "T"), "us").astype("int64")) / 1000.0
