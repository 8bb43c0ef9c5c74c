"""The judgement of a study: fold by fold, and the equity of its tested days beside the default's; and an overview."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.figures.performance import equity_chart
from aione_lab.figures.theme import Theme, finish, floats, need_columns, nothing, palette, safe, utc_times

BREAK_EVEN = {"profit_factor": 1.0, "expectancy": 0.0, "sharpe": 0.0}
"""Scores of a set that neither gains nor loses, where there is such a score."""


def folds_chart(
    scores: pd.DataFrame,
    trades: pd.DataFrame,
    metric: str,
    *,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Score of several choices on each fold's test days, and the trades behind it; rows are folds, columns choices.

    The first column is drawn strongest: it is meant to be the one choice that had not seen the fold.
    """
    colours = palette(theme)
    need_columns(scores, (), "scores")
    need_columns(trades, tuple(scores.columns), "trades")
    if not len(scores):
        return nothing(theme, title, "no folds")
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.66, 0.34])
    looks = ((colours.up, ""), (colours.third, "/"), (colours.down, "x"), (colours.second, "."))
    x = [f"{safe(label)}" for label in scores.index]
    for i, name in enumerate(scores.columns):
        colour, shape = looks[i % len(looks)]
        hatch = {"shape": shape, "fillmode": "overlay", "fgcolor": colours.paper, "fgopacity": 0.6, "size": 6}
        group = {"name": safe(name), "legendgroup": safe(name), "marker": {"color": colour, "pattern": hatch}}
        for row, table, form in ((1, scores, ":.3g"), (2, trades, ":,.4~g")):
            figure.add_trace(
                go.Bar(
                    x=x,
                    y=floats(table[name], name),
                    showlegend=row == 1,
                    hovertemplate=f"%{{y{form}}}{' trades' if row == 2 else ''}<extra>{safe(name)}</extra>",
                    **group,
                ),
                row=row,
                col=1,
            )
    if metric in BREAK_EVEN:
        line = {"color": colours.ink, "width": 1.2, "dash": "dot"}
        figure.add_hline(y=BREAK_EVEN[metric], line=line, row=1, col=1)
    figure.update_yaxes(title_text=f"Test {safe(metric)}", row=1, col=1)
    figure.update_yaxes(title_text="Trades", row=2, col=1)
    figure.update_xaxes(type="category", title_text="Fold (its test days)", row=2, col=1)
    figure.update_layout(barmode="group", bargap=0.25, margin={"t": 56 if title else 20, "b": 100})
    return finish(figure, theme, title, 480)


def walk_forward_chart(
    daily: pd.DataFrame,
    spans: Sequence[tuple[pd.Timestamp, pd.Timestamp, str]],
    *,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Equity of the tested days, of the choices and of the default, from 100 on; ``spans`` are shaded and labelled.

    ``daily`` has ``return`` and ``default_return`` (shares of the equity) on UTC days; a day's return stands at its
    end. ``spans`` are (first day, day after the last, label).
    """
    colours = palette(theme)
    need_columns(daily, ("return", "default_return"), "daily")
    if not len(daily):
        return nothing(theme, title, "no tested days")
    utc_times(daily.index, "daily")
    days = pd.DatetimeIndex(daily.index)
    ends = days[:1].append(days + pd.Timedelta(days=1))
    curves = [
        pd.Series(100.0 * np.cumprod(np.append(1.0, 1.0 + floats(daily[column], column))), index=ends, name=name)
        for column, name in (("return", "chosen fold by fold"), ("default_return", "default"))
    ]
    figure = equity_chart(*curves, title=title, theme=theme)
    for i, (first, after, label) in enumerate(spans):
        a, b = (stamp.tz_localize(None) for stamp in (first, after))
        for row in (1, 2):
            figure.add_shape(
                type="rect",
                x0=a,
                x1=b,
                y0=0,
                y1=1,
                yref="y domain" if row == 1 else "y2 domain",
                xref="x" if row == 1 else "x2",
                fillcolor=colours.neutral,
                opacity=0.16 if i % 2 == 0 else 0.05,
                line_width=0,
                layer="below",
            )
        figure.add_annotation(
            x=a + (b - a) / 2,
            y=1.0,
            yref="y domain",
            text=safe(label),
            showarrow=False,
            yanchor="bottom",
            font={"size": 11, "color": colours.soft},
        )
    figure.add_hline(y=100.0, line={"color": colours.ink, "width": 1, "dash": "dot"}, row=1, col=1)
    figure.update_yaxes(title_text="Equity, start = 100", row=1, col=1)
    return figure.update_layout(margin={"t": 76 if title else 36, "b": 84})


def overview_chart(
    panels: Mapping[str, go.Figure],
    sentence: str,
    *,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Charts on one page, the first one across both columns: of each its upper (left) panel; ``sentence`` on top."""
    palette(theme)
    names = list(panels)
    rows = 1 + -(-(len(names) - 1) // 2)
    figure = make_subplots(
        rows=rows,
        cols=2,
        specs=[[{"colspan": 2}, None], *([{}, {}] for _ in range(rows - 1))],
        subplot_titles=[safe(name) for name in names],
        horizontal_spacing=0.13,
        vertical_spacing=0.36 / rows,
    )
    seen: set[str] = set()
    for i, panel in enumerate(panels.values()):
        place = {"row": 1, "col": 1} if i == 0 else {"row": 2 + (i - 1) // 2, "col": 1 + (i - 1) % 2}
        for trace in panel.data:
            if (trace.xaxis or "x") != "x":
                continue
            label = str(trace.name)
            shown = trace.showlegend is not False and label not in seen
            seen |= {label}
            trace.update(xaxis=None, yaxis=None, showlegend=shown, legendgroup=label)
            figure.add_trace(trace, **place)
        for axis, update in (("xaxis", figure.update_xaxes), ("yaxis", figure.update_yaxes)):
            kept = panel.layout[axis]
            bottom = kept.title.text or (panel.layout.xaxis2.title.text if axis == "xaxis" else None)
            update(title_text=bottom, tickformat=kept.tickformat, type=kept.type, range=kept.range, **place)
    wrapped = "<br>".join(safe(line) for line in textwrap.wrap(sentence, 150))
    figure.add_annotation(
        text=wrapped, x=0, y=1, xref="paper", yref="paper", yshift=86, showarrow=False, align="left", yanchor="top"
    )
    finish(figure, theme, title, 180 + 330 * rows)
    return figure.update_layout(margin={"t": 150, "b": 110}, barmode="group", bargap=0.2)
