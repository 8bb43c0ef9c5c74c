"""Overfitting: where the best trial of one half ranks on the other, and how its Sharpe ratio fares there."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.errors import InputError
from aione_lab.figures.theme import Theme, finish, floats, nothing, one_number, palette

POINTS = 2_000


def overfitting_chart(
    logits: Any,
    in_sample: Any,
    out_of_sample: Any,
    *,
    slope: float,
    intercept: float,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Histogram of the logits of CSCV splits (n,), and the chosen trial's Sharpe out of sample against in sample (n,).

    Logits up to 0 (the median or below) are drawn in the colour of losses, hatched. ``slope`` and ``intercept`` are
    those of the line through the points (NaN: none). Of many splits every so many is drawn as a point.
    """
    colours = palette(theme)
    places, inside, outside = (
        floats(values, name)
        for values, name in ((logits, "logits"), (in_sample, "in_sample"), (out_of_sample, "out_of_sample"))
    )
    if not len(places) == len(inside) == len(outside):
        raise InputError.of("in_sample", f"{len(inside)} values", f"must be as many as logits, {len(places)}")
    slope, intercept = one_number(slope, "slope"), one_number(intercept, "intercept")
    if not len(places):
        return nothing(theme, title, "no splits")
    figure = make_subplots(
        rows=1,
        cols=2,
        horizontal_spacing=0.12,
        subplot_titles=("Rank of the chosen trial on the other half", "Its Sharpe ratio"),
    )
    # Zero is an edge, so that the bars below and above it add up to the shares in the legend.
    widest = max(1.0, float(np.abs(places).max()) * 1.001)
    edges = np.linspace(-widest, widest, 41)
    for name, part, colour, shape in (
        ("median or below", places[places <= 0], colours.down, "/"),
        ("above the median", places[places > 0], colours.up, ""),
    ):
        counts = np.histogram(np.where(part == 0, -1e-12, part), bins=edges)[0]
        hatch = {"shape": shape, "fillmode": "overlay", "fgcolor": colours.paper, "fgopacity": 0.6, "size": 6}
        figure.add_trace(
            go.Bar(
                x=(edges[:-1] + edges[1:]) / 2,
                y=counts / len(places),
                width=np.diff(edges),
                name=f"{name} ({len(part) / len(places):.1%} of splits)",
                marker={"color": colour, "pattern": hatch, "line": {"width": 1, "color": colours.paper}},
                hovertemplate=f"logit about %{{x:.2f}}: %{{y:.1%}} {name}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    every = slice(None, None, -(-len(inside) // POINTS))
    lost = outside[every] < 0
    for name, chosen, colour, symbol in (("gain", ~lost, colours.up, "circle"), ("loss", lost, colours.down, "x")):
        figure.add_trace(
            go.Scatter(
                x=inside[every][chosen],
                y=outside[every][chosen],
                mode="markers",
                name=f"{name} on the other half",
                marker={"color": colour, "symbol": symbol, "size": 5, "opacity": 0.5},
                showlegend=False,
                hovertemplate="in sample %{x:.3f}, out of sample %{y:.3f}<extra></extra>",
            ),
            row=1,
            col=2,
        )
    if np.isfinite(slope) and np.isfinite(intercept):
        ends = np.array([inside.min(), inside.max()])
        figure.add_trace(
            go.Scatter(
                x=ends,
                y=intercept + slope * ends,
                mode="lines",
                name=f"line of slope {slope:+.2f}",
                line={"color": colours.ink, "width": 1.6, "dash": "dash"},
                hoverinfo="skip",
            ),
            row=1,
            col=2,
        )
    figure.add_hline(y=0.0, line={"color": colours.ink, "width": 1, "dash": "dot"}, row=1, col=2)
    figure.update_xaxes(title_text="Logit of the relative rank", row=1, col=1)
    figure.update_yaxes(title_text="Share of splits", tickformat=".1~%", row=1, col=1)
    figure.update_xaxes(title_text="In sample, per period", row=1, col=2)
    figure.update_yaxes(title_text="Out of sample, per period", row=1, col=2)
    figure.update_layout(barmode="stack", margin={"t": 76, "b": 84}, bargap=0)
    return finish(figure, theme, title, 420)
