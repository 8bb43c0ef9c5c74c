"""The chart that is always in view: price with the trades, equity beside default and promoted, drawdown, the folds."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from aione_lab.backtest.trades import named
from aione_lab.calibration.views import spans_of
from aione_lab.engine.records import EXITS
from aione_lab.figures.zoom import Zoom, stamps
from aione_lab.units import INTERVALS, iso, to_ms
from aione_lab.widgets.explorer_scene import Scene, View
from aione_lab.widgets.explorer_style import CLEAR, DOWN, GRID, INK, PALE, SECOND, THIRD, UP, shown

MOST_TRADES = 1_500  # beyond, marks are one band of colour; the newest are drawn, and the legend says so

POINTS = 640  # of a line: the chart is some 450 pixels wide, and what it is sent is drawn at every move

PRICE, HELD, GAIN, LOSS, DEFAULT, PROMOTED, EQUITY, DRAWDOWN, FOLDS = range(9)


class Chart:
    """One FigureWidget whose traces are filled again at every move; ``widget`` is what is shown."""

    def __init__(self, scene: Scene, height: int) -> None:
        self._times = scene.times
        small = {"size": 6, "line": {"width": 1, "color": CLEAR}}
        stamp = "%{x|%Y-%m-%d %H:%M}<br>"
        traces = [
            _line("price", PALE, "y", f"{stamp}%{{y}}"),
            _line("trade", INK, "y", None),
            _marks("exit with a gain", UP, "circle", small),
            _marks("exit with a loss", DOWN, "x", small),
            _line("default", SECOND, "y2", f"{stamp}%{{y:,.2f}}", dash="dot"),
            _line("promoted", THIRD, "y2", f"{stamp}%{{y:,.2f}}", dash="dash", visible=False),
            _line("sliders", UP, "y2", f"{stamp}%{{y:,.2f}}", width=1.8),
            _line(
                "drawdown", UP, "y3", f"{stamp}%{{y:.2%}}", fill="tozeroy",
                fillcolor="rgba(43,140,196,0.22)",
            ),
            _fold_names(scene),
        ]  # fmt: skip
        # No automatic margins, no legend, no annotations: each of them makes a browser draw and measure once more.
        axis = {"gridcolor": GRID, "zeroline": False, "linecolor": PALE, "automargin": False}
        ends = [float(self._times[0]), float(self._times[-1]) + INTERVALS[scene.experiment.interval]]

        def panel(name: str, bottom: float, top: float, **more: object) -> dict[str, object]:
            return {**axis, "domain": [bottom, top], "title": {"text": name, "standoff": 4}, **more}

        figure = go.Figure(traces)
        figure.update_layout(
            template="none", height=height, autosize=True, paper_bgcolor=CLEAR, plot_bgcolor=CLEAR, showlegend=False,
            font={"color": INK, "size": 11}, margin={"l": 64, "r": 8, "t": 2, "b": 34}, hovermode="closest",
            xaxis={**axis, "type": "date", "anchor": "y3", "range": ends},
            yaxis=panel("Price", 0.56, 0.95, tickformat="~r"),
            yaxis2=panel("Equity", 0.25, 0.52, nticks=5),
            yaxis3=panel("Drawdown", 0.0, 0.21, nticks=4, tickformat=".1~%"),
            yaxis4={"domain": [0.95, 1.0], "range": [0, 1], "visible": False, "fixedrange": True},
            shapes=_fold_shapes(scene),
        )  # fmt: skip
        self.widget = shown(figure)
        self._zoom = Zoom(self.widget, POINTS)
        self._zoom.line(PRICE, self._times, scene.close)

    def reference(self, default: View, promoted: View | None) -> None:
        """Draw what the sliders' set is compared with."""
        with self.widget.batch_update():
            self._zoom.line(DEFAULT, self._times, default.equity)
            self.widget.data[PROMOTED].visible = promoted is not None
            if promoted is not None:
                self._zoom.line(PROMOTED, self._times, promoted.equity)

    def draw(self, view: View) -> None:
        """Draw a set: one message to the browser."""
        trades = view.evaluation.trade_records[-MOST_TRADES:]
        won = trades["pnl"] > 0
        with self.widget.batch_update():
            self._zoom.line(EQUITY, self._times, view.equity)
            self._zoom.line(DRAWDOWN, self._times, view.drawdown)
            blank = np.full((len(trades), 1), None)
            times = np.hstack([_stamps(trades["entry_time"]), _stamps(trades["exit_time"]), blank])
            prices = np.column_stack([trades["entry_price"], trades["exit_price"], np.full(len(trades), np.nan)])
            self.widget.data[HELD].update(x=times.ravel(), y=prices.ravel())
            for trace, chosen in ((GAIN, won), (LOSS, ~won)):
                some = trades[chosen]
                self.widget.data[trace].update(
                    x=stamps(some["exit_time"]), y=np.ascontiguousarray(some["exit_price"]),
                    customdata=np.column_stack([some["pnl"], some["r_multiple"]]),
                    text=list(named(some["exit_reason"], EXITS)),
                )  # fmt: skip

    def close(self) -> None:
        """Let go of the figure."""
        self._zoom.close()


def _line(name: str, colour: str, axis: str, hover: str | None, **more: object) -> go.Scatter:
    look = {"color": colour, "width": more.pop("width", 1.2), "dash": more.pop("dash", None)}
    hovered = {"hoverinfo": "skip"} if hover is None else {"hovertemplate": f"{name} {hover}<extra></extra>"}
    return go.Scatter(x=[], y=[], name=name, mode="lines", line=look, xaxis="x", yaxis=axis, **hovered, **more)


def _marks(name: str, colour: str, symbol: str, marker: dict[str, object]) -> go.Scatter:
    shown = "<br>%{text}: P&amp;L %{customdata[0]:+,.2f} (%{customdata[1]:+.2f} R)<extra></extra>"
    return go.Scatter(
        x=[], y=[], name=name, mode="markers", xaxis="x", yaxis="y",
        marker={**marker, "color": colour, "symbol": symbol}, hovertemplate=f"{name} %{{x|%Y-%m-%d %H:%M}}{shown}",
    )  # fmt: skip


def _stamps(times: np.ndarray) -> np.ndarray:
    """(k, 1) of the times as text, to stand beside blanks."""
    return stamps(times).astype(object)[:, None]


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
    start, end = to_ms(made.hidden_from, "hidden_from"), to_ms(made.end, "end")
    if start >= end:
        return f"{seen}. Nothing is hidden: what is chosen here has no days left to be judged on."
    days = dt.timedelta(milliseconds=end - start) / dt.timedelta(days=1)
    return f"{seen}. The {days:.0f} days from {made.hidden_from[:10]} are hidden and were not loaded."
