"""The chart that is always in view: price with the trades, equity beside default and promoted, drawdown, the folds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from aione_lab.calibration.views import spans_of
from aione_lab.engine.records import EXITS, FILLS_COUNT
from aione_lab.figures.decimate import line_in_time
from aione_lab.figures.newest import Newest
from aione_lab.figures.zoom import end_ms, visible_rows
from aione_lab.units import iso, to_ms
from aione_lab.widgets.chart import Chart, Plotly
from aione_lab.widgets.explorer_scene import Scene, View
from aione_lab.widgets.explorer_style import CLEAR, CONFIG, DOWN, GRID, INK, PALE, SECOND, THIRD, UP

MOST_TRADES = 1_500  # beyond, marks are one band of colour; the newest are drawn, and the page says so

POINTS = 640  # of a line: the chart is some 450 pixels wide, and what it is sent is drawn at every move

ROOM = 0.1  # left free beyond the extremes on either end of an axis, as a share of what lies between them

FILLED = 0.6  # least share of an axis that is used before it is fitted anew

PRICE, HELD, GAIN, LOSS, DEFAULT, PROMOTED, EQUITY, DRAWDOWN, FOLDS = range(9)


class SceneChart:
    """A figure whose traces are filled again at every move; ``widget`` is what is shown."""

    def __init__(self, scene: Scene, height: int, library: Plotly) -> None:
        self._times = scene.times
        self._lines: dict[int, np.ndarray] = {PRICE: scene.close}
        self._visible = (float(self._times[0]), float(self._times[-1]) + scene.step_ms)
        self._drawn: dict[int, dict[str, np.ndarray]] = {}
        self._ranges: dict[str, tuple[float, float]] = {}
        self._trades: np.ndarray | None = None
        self._n = 0
        self._figure = _figure(scene, height, self._visible)
        self._refine = Newest(self._zoom)
        self.widget = Chart(library=library, config=CONFIG, layout={"width": "100%"})
        self.widget.on_event("zoom", lambda told: self._refine(told["range"]))

    def reference(self, default: View, promoted: View | None) -> None:
        """What the sliders' set is compared with; drawn by the next ``draw``."""
        self._lines[DEFAULT] = default.equity
        self._lines.pop(PROMOTED, None)
        if promoted is not None:
            self._lines[PROMOTED] = promoted.equity
        self._still()

    def draw(self, view: View) -> None:
        """Draw a set: one message to the browser, of nothing but what follows the sliders."""
        self._lines[EQUITY], self._lines[DRAWDOWN] = view.equity, view.drawdown
        self._n = len(view.evaluation.trade_records)
        self._trades = view.evaluation.trade_records[-MOST_TRADES:]
        self._move()

    @property
    def left_out(self) -> str:
        """What of the set is not drawn, in words; "" for nothing."""
        return f"The chart shows the newest {MOST_TRADES:,d} of {self._n:,d} trades." if self._n > MOST_TRADES else ""

    def close(self) -> None:
        """Let go of the candles."""
        self._lines.clear()
        self._trades = None

    def _zoom(self, ends: Sequence[Any]) -> None:
        if self._trades is None:
            return
        low, high = sorted(map(end_ms, ends))
        self._visible, self._ranges = (low, high), {}
        with self.widget.hold_sync():  # as one message
            self._still()
            self._move()

    def _still(self) -> None:
        """The figure with the lines that no slider moves."""
        for trace in (PRICE, DEFAULT, PROMOTED):
            self._drawn.pop(trace, None)
            if trace in self._lines:
                self._drawn[trace] = self._shown(trace)
            self._figure.data[trace].update(self._drawn.get(trace, {"x": np.empty(0), "y": np.empty(0)}))
        self.widget.figure = self._figure.to_json()

    def _move(self) -> None:
        trades = self._trades
        assert trades is not None
        times, prices = _paths(trades)
        exits = _exits(trades)
        won = exits["customdata"][:, 0] > 0
        traces: dict[int, dict[str, Any]] = {trace: self._shown(trace) for trace in (EQUITY, DRAWDOWN)}
        self._drawn.update(traces)
        traces[FOLDS] = {}  # they stay as they are; but a panel of which no trace is drawn is emptied by Plotly
        traces[HELD] = {"x": times.ravel(), "y": prices.ravel()}
        for trace, chosen in ((GAIN, won), (LOSS, ~won)):
            traces[trace] = {name: values[chosen] for name, values in exits.items()}
        low, high = self._visible
        seen = (trades["exit_time"] >= low) & (trades["entry_time"] <= high)
        drawn = {trace: line["y"] for trace, line in self._drawn.items()}
        for axis, parts in (
            ("yaxis", [drawn[PRICE], prices[seen].ravel()]),
            ("yaxis2", [drawn[trace] for trace in (DEFAULT, PROMOTED, EQUITY) if trace in drawn]),
            ("yaxis3", [drawn[DRAWDOWN], np.zeros(1)]),
        ):
            every = np.concatenate(parts)
            self._ranges[axis] = settled(self._ranges.get(axis), float(np.nanmin(every)), float(np.nanmax(every)))
        self.widget.move(traces, self._ranges)

    def _shown(self, trace: int) -> dict[str, np.ndarray]:
        """As many points as there is room for of what is visible of a line; its extremes are among them.

        Where candles are missing for longer than a point is wide, the line has a gap.
        """
        first, last = visible_rows(self._times, *self._visible)
        x, y = line_in_time(self._times[first:last], self._lines[trace][first:last], POINTS)
        return {"x": x, "y": y}


def _paths(trades: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times and prices of each trade's line, a row a trade: its entry, its fills, and NaN that end it."""
    fills = np.arange(trades["exits"].max(initial=1))
    filled = fills < trades["exits"][:, None]
    blank = np.full(len(trades), np.nan)
    paths = [
        np.column_stack([trades[f"entry_{one}"], np.where(filled, trades[f"exit_{one}s"][:, fills], np.nan), blank])
        for one in ("time", "price")
    ]
    return paths[0], paths[1]


def _exits(trades: np.ndarray) -> dict[str, np.ndarray]:
    """Marks of the fills that closed a trade or a part of it; what they say of P&L is of the whole trade."""
    trade, fill = np.nonzero(np.arange(FILLS_COUNT) < trades["exits"][:, None])
    of = trades[trade]
    shares = (trades["exit_quantities"][trade, fill] / of["quantity"]).tolist()
    reasons = trades["exit_reasons"][trade, fill].tolist()
    texts = [
        EXITS[reason] + (f" of {share:.0%}" if share < 1.0 else "")
        for reason, share in zip(reasons, shares, strict=True)
    ]
    return {
        "x": trades["exit_times"][trade, fill],
        "y": trades["exit_prices"][trade, fill],
        "customdata": np.column_stack([of["pnl"], of["r_multiple"]]),
        "text": np.array(texts, dtype=object),
    }


def settled(before: tuple[float, float] | None, low: float, high: float) -> tuple[float, float]:
    """Range of an axis for what lies from ``low`` to ``high``: the one before, while that fits.

    An axis that stays lets two positions of a slider be compared, and need not be drawn again.
    """
    if before is not None and before[0] <= low and high <= before[1] and high - low >= FILLED * (before[1] - before[0]):
        return before
    room = ROOM * ((high - low) or abs(high) or 1.0)
    return low - room, high + room


def _figure(scene: Scene, height: int, ends: tuple[float, float]) -> go.Figure:
    small = {"size": 6, "line": {"width": 1, "color": CLEAR}}
    stamp = "%{x|%Y-%m-%d %H:%M}<br>"
    traces = [
        _line("price", PALE, "y", f"{stamp}%{{y}}"),
        _line("trade", INK, "y", None),
        _marks("exit with a gain", UP, "circle", small),
        _marks("exit with a loss", DOWN, "x", small),
        _line("default", SECOND, "y2", f"{stamp}%{{y:,.2f}}", dash="dot"),
        _line("promoted", THIRD, "y2", f"{stamp}%{{y:,.2f}}", dash="dash"),
        _line("sliders", UP, "y2", f"{stamp}%{{y:,.2f}}", width=1.8),
        _line("drawdown", UP, "y3", f"{stamp}%{{y:.2%}}", fill="tozeroy", fillcolor="rgba(43,140,196,0.22)"),
        _fold_names(scene),
    ]
    # No automatic margins, no legend, no annotations: each of them makes a browser draw and measure once more.
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": PALE, "automargin": False}

    def panel(name: str, bottom: float, top: float, **more: object) -> dict[str, object]:
        # Its range follows what is visible of the times, and only they are zoomed.
        look = {"title": {"text": name, "standoff": 4}, "fixedrange": True, "range": [0, 1]}
        return {**axis, **look, "domain": [bottom, top], **more}

    return go.Figure(traces).update_layout(
        template="none", height=height, paper_bgcolor=CLEAR, plot_bgcolor=CLEAR, showlegend=False, uirevision="zoom",
        font={"color": INK, "size": 11}, margin={"l": 64, "r": 8, "t": 2, "b": 34}, hovermode="closest",
        xaxis={**axis, "type": "date", "anchor": "y3", "range": ends},
        yaxis=panel("Price", 0.56, 0.95, tickformat="~r"),
        yaxis2=panel("Equity", 0.25, 0.52, nticks=5),
        yaxis3=panel("Drawdown", 0.0, 0.21, nticks=4, tickformat=".1~%"),
        yaxis4={"domain": [0.95, 1.0], "range": [0, 1], "visible": False, "fixedrange": True},
        shapes=_fold_shapes(scene),
    )  # fmt: skip


def _line(name: str, colour: str, axis: str, hover: str | None, **more: object) -> go.Scatter:
    look = {"color": colour, "width": more.pop("width", 1.2), "dash": more.pop("dash", None)}
    hovered = {"hoverinfo": "skip"} if hover is None else {"hovertemplate": f"{name} {hover}<extra></extra>"}
    return go.Scatter(x=[], y=[], name=name, mode="lines", line=look, xaxis="x", yaxis=axis, **hovered, **more)


def _marks(name: str, colour: str, symbol: str, marker: dict[str, object]) -> go.Scatter:
    shown = "<br>%{text}<br>P&amp;L of the trade %{customdata[0]:+,.2f} (%{customdata[1]:+.2f} R)<extra></extra>"
    return go.Scatter(
        x=[], y=[], name=name, mode="markers", xaxis="x", yaxis="y",
        marker={**marker, "color": colour, "symbol": symbol}, hovertemplate=f"{name} %{{x|%Y-%m-%d %H:%M}}{shown}",
    )  # fmt: skip


def _fold_shapes(scene: Scene) -> list[dict[str, object]]:
    """The tested days, every other fold a little darker; over all three panels."""
    shapes = []
    for number, (start, after, _) in enumerate([] if scene.folds is None else spans_of(scene.folds)):
        shapes.append(
            {
                "type": "rect", "xref": "x", "yref": "paper", "x0": _ms(start), "x1": _ms(after), "y0": 0, "y1": 1,
                "fillcolor": UP if number % 2 else SECOND, "opacity": 0.1, "line": {"width": 0}, "layer": "below",
            }
        )  # fmt: skip
    return shapes


def _fold_names(scene: Scene) -> go.Scatter:
    """Their names, above the price."""
    spans = [] if scene.folds is None else spans_of(scene.folds)
    middles = [start + (after - start) / 2 for start, after, _ in spans]
    return go.Scatter(
        x=[middle.isoformat()[:19] for middle in middles], y=[0.5] * len(spans), xaxis="x", yaxis="y4", mode="text",
        text=[name if len(spans) <= 8 else name.split()[-1] for _, _, name in spans], textfont={"size": 10},
        hoverinfo="skip", cliponaxis=False,
    )  # fmt: skip


def _ms(time: pd.Timestamp) -> float:
    return time.timestamp() * 1000.0


def span_text(scene: Scene) -> str:
    """What is seen and what is not, in words."""
    made, times = scene.experiment, scene.times
    seen = f"{scene.symbol} {made.interval}, {iso(int(times[0]))[:10]} to {iso(int(times[-1]))[:10]}"
    if n := int((np.diff(times) > scene.step_ms).sum()):
        missing = int(times[-1] - times[0]) // scene.step_ms + 1 - len(times)
        seen += f", {missing:,d} bars missing in {n:,d} {'place' if n == 1 else 'places'}"
    start, end = to_ms(made.hidden_from, "hidden_from"), to_ms(made.end, "end")
    if start >= end:
        return f"{seen}. Nothing is hidden: what is chosen here has no days left to be judged on."
    days = dt.timedelta(milliseconds=end - start) / dt.timedelta(days=1)
    return f"{seen}. The {days:.0f} days from {made.hidden_from[:10]} are hidden and were not loaded."
