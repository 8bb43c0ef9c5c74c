"""What was stated against what came true, and what each gate let through or kept out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.figures.theme import Theme, finish, floats, need_columns, nothing, palette, safe

TALL = 40
"""Pixels a row of a bar chart takes."""


def reliability_chart(
    curve: pd.DataFrame, stated: Any, *, title: str | None = None, theme: Theme = "light"
) -> go.Figure:
    """Reliability diagram: share of gains against stated probability with bands, and how often each was stated.

    ``curve`` has a row a bin: ``stated, win_rate, win_rate_low, win_rate_high, count`` and ``mean_r``; ``stated`` (n,)
    holds what was stated, for the histogram below. On the dotted diagonal a statement comes true as often as it says.
    Source of the form: A. H. Murphy and R. L. Winkler, "Reliability of subjective probability forecasts", 1977.
    """
    colours = palette(theme)
    need_columns(curve, ("stated", "win_rate", "win_rate_low", "win_rate_high", "count", "mean_r"), "curve")
    stated = floats(stated, "stated")
    if not len(curve) or not len(stated):
        return nothing(theme, title, "no alert was traded to its end")
    numbers = {name: floats(curve[name], f"curve.{name}") for name in curve.columns if name in _USED}
    base = float(np.average(numbers["win_rate"], weights=numbers["count"]))
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=[0.74, 0.26])
    figure.add_trace(
        go.Scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            name="as often as stated",
            line={"color": colours.neutral, "dash": "dot", "width": 1.5},
            hoverinfo="skip",
        ),
        row=1,
        col=1,
    )
    figure.add_trace(
        go.Scatter(
            x=[0, 1],
            y=[base, base],
            mode="lines",
            name=f"all alerts {base:.1%}",
            line={"color": colours.second, "dash": "dash", "width": 1.5},
            hoverinfo="skip",
        ),
        row=1,
        col=1,
    )
    figure.add_trace(
        go.Scatter(
            x=numbers["stated"],
            y=numbers["win_rate"],
            mode="lines+markers",
            name="came true, 95 % band",
            line={"color": colours.up, "width": 2},
            marker={"size": 8},
            error_y=_whiskers(numbers, "win_rate", colours.up),
            customdata=np.column_stack(
                [numbers[name] for name in ("win_rate_low", "win_rate_high", "count", "mean_r")]
            ),
            hovertemplate="stated %{x:.0%}, came true %{y:.1%} (%{customdata[0]:.1%} to %{customdata[1]:.1%})"
            "<br>%{customdata[2]:,} alerts, %{customdata[3]:+.2f} R each<extra></extra>",
        ),
        row=1,
        col=1,
    )
    counts, edges = np.histogram(np.clip(stated, 0, 1), bins=np.linspace(0, 1, 41))
    figure.add_trace(
        go.Bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            width=np.diff(edges),
            marker={"color": colours.neutral, "line": {"width": 1, "color": colours.paper}},
            showlegend=False,
            hovertemplate="stated about %{x:.0%}: %{y:,} alerts<extra></extra>",
        ),
        row=2,
        col=1,
    )
    figure.update_yaxes(title_text="Share with a net gain", tickformat=".0%", range=[0, 1], row=1, col=1)
    figure.update_yaxes(title_text="Alerts", row=2, col=1)
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    figure.update_xaxes(title_text="Stated confidence", row=2, col=1)
    return finish(figure, theme, title, 560).update_layout(margin={"b": 84})


def gates_chart(gates: pd.DataFrame, *, title: str | None = None, theme: Theme = "light") -> go.Figure:
    """Mean result in R of the alerts that each rule let through or kept out, with 95 % bands.

    ``gates`` is indexed by (recommendation, rule that decided) and has ``count, win_rate, mean_r, mean_r_low,
    mean_r_high, mean_return, saved_r``. The first rows, those that call for a trade, have a colour of their own.
    """
    colours = palette(theme)
    need_columns(gates, ("count", "mean_r", "mean_r_low", "mean_r_high", "win_rate", "mean_return", "saved_r"), "gates")
    if not len(gates):
        return nothing(theme, title, "no alert was traded to its end")
    numbers = {name: floats(gates[name], f"gates.{name}") for name in gates.columns if name in _USED}
    pairs = [tuple(map(safe, pair)) for pair in gates.index]
    labels = [
        f"{advice}: {detail} ({count:,.0f})" for (advice, detail), count in zip(pairs, numbers["count"], strict=True)
    ]
    taken = [advice in ("BUY", "SELL") for advice, _ in pairs]
    figure = go.Figure(
        go.Bar(
            y=labels,
            x=numbers["mean_r"],
            orientation="h",
            marker={
                "color": [colours.up if one else colours.neutral for one in taken],
                "pattern": {
                    "shape": ["" if one else "/" for one in taken],
                    "fillmode": "overlay",
                    "fgcolor": colours.paper,
                    "fgopacity": 0.6,
                    "size": 6,
                },
            },
            error_x=_whiskers(numbers, "mean_r", colours.ink),
            customdata=_columns(numbers, "win_rate", "mean_return", "saved_r"),
            hovertemplate="%{y}<br>%{x:+.2f} R each, %{customdata[0]:.1%} gained, %{customdata[1]:+.3%} of the notional"
            "<br>%{customdata[2]:+,.0f} R saved by not trading them<extra></extra>",
            showlegend=False,
        )
    )
    figure.add_vline(x=0.0, line={"color": colours.ink, "width": 1})
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text="Mean result of an alert traded alone, R, net of costs (whiskers: 95 % bands)")
    return finish(figure, theme, title, 150 + TALL * len(gates))


_USED = (
    "stated", "win_rate", "win_rate_low", "win_rate_high", "count", "mean_r", "mean_r_low", "mean_r_high",
    "mean_return", "saved_r",
)  # fmt: skip


def _columns(numbers: dict[str, np.ndarray], *names: str) -> np.ndarray:
    return np.column_stack([numbers[name] for name in names])


def _whiskers(numbers: dict[str, np.ndarray], name: str, colour: str) -> dict[str, Any]:
    """Error bars from ``name`` to its low and high."""
    value = numbers[name]
    return {
        "type": "data",
        "symmetric": False,
        "array": np.clip(numbers[f"{name}_high"] - value, 0, None),
        "arrayminus": np.clip(value - numbers[f"{name}_low"], 0, None),
        "color": colour,
        "thickness": 1.2,
        "width": 4,
    }
