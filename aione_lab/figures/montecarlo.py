"""Monte Carlo of the order of trades: the fan of equity, and how deep the draws fell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.figures.theme import Theme, finish, floats, need_columns, nothing, one_number, palette

BANDS = (("5 %", "95 %", "nine draws of ten"), ("25 %", "75 %", "every second draw"))


def trade_order_chart(
    fan: pd.DataFrame, drawdowns: Any, observed: float, *, title: str | None = None, theme: Theme = "light"
) -> go.Figure:
    """Equity by trade number (bands of the draws, their median, the observed order), and the draws' drawdowns.

    ``fan`` has the columns ``5 %, 25 %, 50 %, 75 %, 95 %, observed`` (quote currency) by trade number; ``drawdowns``
    (n,) and ``observed`` are positive shares.
    """
    colours = palette(theme)
    need_columns(fan, ("5 %", "25 %", "50 %", "75 %", "95 %", "observed"), "fan")
    falls, observed = floats(drawdowns, "drawdowns"), one_number(observed, "observed")
    falls = falls[np.isfinite(falls)]
    if not len(fan) or not len(falls):
        return nothing(theme, title, "no draws")
    figure = make_subplots(
        rows=1,
        cols=2,
        column_widths=[0.62, 0.38],
        horizontal_spacing=0.1,
        subplot_titles=("Equity, trade by trade", "Deepest drawdown of a draw"),
    )
    trades = fan.index.to_numpy()
    for low, high, name in BANDS:
        figure.add_trace(
            go.Scatter(
                x=np.concatenate([trades, trades[::-1]]),
                y=np.concatenate([fan[high], fan[low][::-1]]),
                mode="lines",  # few points would get marks otherwise
                fill="toself",
                fillcolor=colours.band,
                line={"width": 0},
                name=name,
                hoverinfo="skip",
            ),
            row=1,
            col=1,
        )
    for column, name, colour, dash in (
        ("50 %", "median of the draws", colours.up, "dot"),
        ("observed", "as it happened", colours.second, "solid"),
    ):
        figure.add_trace(
            go.Scatter(
                x=trades,
                y=fan[column],
                mode="lines",
                name=name,
                line={"color": colour, "width": 1.8, "dash": dash},
                hovertemplate=f"after trade %{{x:,}}: %{{y:,.2f}} {name}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    counts, edges = np.histogram(falls, bins=min(40, max(5, len(falls) // 20)))
    figure.add_trace(
        go.Bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts / len(falls),
            width=np.diff(edges),
            marker={"color": colours.neutral, "line": {"width": 1, "color": colours.paper}},
            hovertemplate="about %{x:.1%}: %{y:.1%} of the draws<extra></extra>",
            showlegend=False,
        ),
        row=1,
        col=2,
    )
    if np.isfinite(observed):
        figure.add_vline(x=observed, line={"color": colours.second, "width": 3}, row=1, col=2)
    figure.update_xaxes(title_text="Closed trades", row=1, col=1)
    figure.update_yaxes(title_text="Equity (quote currency)", row=1, col=1)
    figure.update_xaxes(title_text="Drawdown, closed trades only", tickformat=".1~%", row=1, col=2)
    figure.update_yaxes(title_text="Share of draws", tickformat=".1~%", row=1, col=2)
    return finish(figure, theme, title, 420).update_layout(margin={"t": 76, "b": 84})
