"""Features over time: a panel a group, so that each keeps its own scale."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.errors import InputError
from aione_lab.figures.decimate import line_in_time
from aione_lab.figures.theme import Theme, finish, floats, need_columns, nothing, palette, safe, utc_times

POINTS = 700
MOST_PANELS = 12


def features_chart(
    features: pd.DataFrame,
    panels: Sequence[str | Sequence[str]],
    *,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Lines of some columns of ``features``, from top to bottom, on one time axis.

    ``features`` is on a UTC DatetimeIndex, like ``Result.features``; ``panels`` names what each panel draws: a column,
    or several that share a scale. Not known (NaN), or a missing bar, is a gap in the line. Raises InputError for a
    column that is not there, no or more than 12 panels, and times that are not UTC.
    """
    colours = palette(theme)
    if isinstance(panels, str) or not isinstance(panels, Sequence) or not 1 <= len(panels) <= MOST_PANELS:
        raise InputError.of("panels", panels, f"must be a list of 1 to {MOST_PANELS} column names or groups of them")
    groups = [(panel,) if isinstance(panel, str) else tuple(panel) for panel in panels]
    need_columns(features, tuple(name for group in groups for name in group), "features")
    if not len(features):
        return nothing(theme, title, "no features")
    times = utc_times(features.index, "features")
    lines = (colours.price, colours.up, colours.down, colours.third, colours.accent, colours.second)
    figure = make_subplots(rows=len(groups), cols=1, shared_xaxes=True, vertical_spacing=0.12 / len(groups))
    for row, group in enumerate(groups, start=1):
        for place, name in enumerate(group):
            x, y = line_in_time(times, floats(features[name], f"features.{name}"), POINTS)
            figure.add_trace(
                go.Scatter(
                    x=x,
                    y=y,
                    name=safe(name),
                    mode="lines",
                    line={"color": lines[place % len(lines)], "width": 1.3},
                    hovertemplate=f"{safe(name)} %{{y:.6~g}}<extra></extra>",
                    showlegend=False,
                ),
                row=row,
                col=1,
            )
        label = "<br>".join(
            f'<span style="color:{lines[place % len(lines)]}">{safe(name)}</span>' for place, name in enumerate(group)
        )
        figure.update_yaxes(title_text=label, title_font={"size": 11}, nticks=5, row=row, col=1)
    figure.update_xaxes(title_text="Time (UTC)", row=len(groups), col=1)
    figure.update_layout(hovermode="x unified")
    return finish(figure, theme, title, 100 + 130 * len(groups))
