"""Replays side by side: their equity, and how far each is from the baseline."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.figures.decimate import decimate
from aione_lab.figures.theme import Theme, finish, floats, need_columns, nothing, palette, safe, utc_times

POINTS = 4_000


def comparison_chart(
    equity: pd.DataFrame,
    differences: pd.DataFrame,
    *,
    baseline: str,
    level: float,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Equity of each replay over time, and the mean daily difference to the baseline with its band.

    ``equity`` has one column a replay on UTC days (quote currency); ``differences`` the columns ``daily_return, low,
    high, p_adjusted`` (shares of equity a day), one row a replay. What stands out after correction is a filled mark.
    """
    colours = palette(theme)
    need_columns(equity, (), "equity")
    need_columns(differences, ("daily_return", "low", "high", "p_adjusted"), "differences")
    if not len(equity) or not len(differences):
        return nothing(theme, title, "nothing to compare")
    times = utc_times(equity.index, "equity")
    rows = len(differences)
    figure = make_subplots(
        rows=1,
        cols=2,
        column_widths=[0.6, 0.4],
        horizontal_spacing=0.16,
        subplot_titles=("Equity", f"A day's return, less that of {safe(baseline)}"),
    )
    cycle = (colours.up, colours.second, colours.third, colours.accent, colours.down, colours.neutral)
    dashes = ("solid", "dash", "dashdot", "longdash")
    look = {name: (cycle[i % len(cycle)], dashes[i // len(cycle) % len(dashes)]) for i, name in enumerate(equity)}
    for name, (colour, dash) in look.items():
        x, y = decimate(times, floats(equity[name], f"equity.{name}"), POINTS)
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                mode="lines",
                name=safe(name),
                line={"color": colour, "width": 2.4 if name == baseline else 1.6, "dash": dash},
                hovertemplate=f"{safe(name)} %{{y:,.2f}}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    for name, row in differences.iterrows():
        colour = look[name][0] if name in look else colours.neutral
        stands_out = row["p_adjusted"] <= 1 - level
        figure.add_trace(
            go.Scatter(
                x=[row["daily_return"]],
                y=[safe(name)],
                mode="markers",
                showlegend=False,
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [row["high"] - row["daily_return"]],
                    "arrayminus": [row["daily_return"] - row["low"]],
                    "color": colour,
                    "thickness": 1.6,
                },
                marker={"color": colour, "size": 10, "symbol": "circle" if stands_out else "circle-open"},
                hovertemplate=f"%{{x:+.3%}} a day, corrected p = {row['p_adjusted']:.3f}<extra></extra>",
            ),
            row=1,
            col=2,
        )
    figure.add_vline(x=0.0, line={"color": colours.ink, "width": 1, "dash": "dot"}, row=1, col=2)
    figure.update_xaxes(title_text="Time (UTC)", row=1, col=1)
    figure.update_yaxes(title_text="Equity (quote currency)", row=1, col=1)
    figure.update_xaxes(title_text=f"Mean difference, {level:.0%} band", tickformat="+.2~%", row=1, col=2)
    figure.update_yaxes(autorange="reversed", type="category", row=1, col=2)
    return finish(figure, theme, title, max(420, 240 + 28 * rows)).update_layout(margin={"t": 76, "b": 84})
