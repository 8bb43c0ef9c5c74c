"""A result among random entries: is the signal better than chance with the same stops, targets and costs?"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from aione_lab.figures.theme import Theme, finish, floats, nothing, one_number, palette


def random_entries_chart(
    expectancy: np.ndarray, observed: float, *, title: str | None = None, theme: Theme = "light"
) -> go.Figure:
    """Histogram of the mean net P&L a trade of random draws (n,), with the result's own as a line.

    Draws that closed no trade (NaN) are left out; without a draw the figure says so.
    """
    colours = palette(theme)
    draws = floats(expectancy, "expectancy")
    draws = draws[np.isfinite(draws)]
    observed = one_number(observed, "observed")
    if not len(draws):
        return nothing(theme, title, "no random draw closed a trade")
    counts, edges = np.histogram(draws, bins=min(30, max(5, len(draws) // 7)))
    figure = go.Figure(
        go.Bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            width=np.diff(edges),
            marker={"color": colours.neutral, "line": {"width": 1, "color": colours.paper}},
            hovertemplate="about %{x:,.2f} a trade: %{y} draws<extra></extra>",
            showlegend=False,
        )
    )
    figure.add_vline(x=0.0, line={"color": colours.ink, "width": 1, "dash": "dot"})
    if np.isfinite(observed):
        figure.add_vline(x=observed, line={"color": colours.up, "width": 3})
        figure.add_annotation(
            x=observed,
            y=1.0,
            yref="paper",
            yanchor="bottom",
            showarrow=False,
            text=f"this replay {observed:+,.2f}",
            font={"color": colours.up},
        )
    figure.update_xaxes(title_text="Mean net P&amp;L of a trade").update_yaxes(title_text="Random draws")
    return finish(figure, theme, title, 320).update_layout(margin={"t": 52})
