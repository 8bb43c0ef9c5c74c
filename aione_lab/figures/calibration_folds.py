"""The judgement of a study: fold by fold, and the equity of its tested days beside the default's; and an overview."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.figures.calibration import FORMATS
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
    form = FORMATS.get(metric)
    for i, name in enumerate(scores.columns):
        colour, shape = looks[i % len(looks)]
        hatch = {"shape": shape, "fillmode": "overlay", "fgcolor": colours.paper, "fgopacity": 0.6, "size": 6}
        group = {"name": safe(name), "legendgroup": safe(name), "marker": {"color": colour, "pattern": hatch}}
        for row, table, says in ((1, scores, form or ".3g"), (2, trades, ",.4~g")):
            figure.add_trace(
                go.Bar(
                    x=x,
                    y=floats(table[name], name),
                    showlegend=row == 1,
                    hovertemplate=f"%{{y:{says}}}{' trades' if row == 2 else ''}<extra>{safe(name)}</extra>",
                    **group,
                ),
                row=row,
                col=1,
            )
    if metric in BREAK_EVEN:
        line = {"color": colours.ink, "width": 1.2, "dash": "dot"}
        figure.add_hline(y=BREAK_EVEN[metric], line=line, row=1, col=1)
    figure.update_yaxes(title_text=f"Test {safe(metric)}", tickformat=form, row=1, col=1)
    figure.update_yaxes(title_text="Trades", row=2, col=1)
    figure.update_xaxes(type="category").update_xaxes(title_text=safe(scores.index.name or "Fold"), row=2, col=1)
    figure.update_layout(barmode="group", bargap=0.25, margin={"t": 56 if title else 40, "b": 100})
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
    shapes: list[dict[str, object]] = []
    notes: list[dict[str, object]] = []
    for i, (first, after, label) in enumerate(spans):
        a, b = (stamp.tz_localize(None) for stamp in (first, after))
        look = {"fillcolor": colours.neutral, "opacity": 0.16 if i % 2 == 0 else 0.05, "line": {"width": 0}}
        for axis in ("", "2"):
            place = {"xref": f"x{axis}", "yref": f"y{axis} domain", "y0": 0, "y1": 1}
            shapes.append({"type": "rect", "x0": a, "x1": b, "layer": "below", **place, **look})
        font = {"size": 11, "color": colours.soft}
        place = {"x": a + (b - a) / 2, "y": 1.0, "yref": "y domain", "yanchor": "bottom"}
        notes.append({"text": safe(label), "showarrow": False, "font": font, **place})
    even = {"color": colours.ink, "width": 1, "dash": "dot"}
    shapes.append(
        {"type": "line", "xref": "x domain", "yref": "y", "x0": 0, "x1": 1, "y0": 100, "y1": 100, "line": even}
    )
    figure.update_layout(shapes=shapes, annotations=notes)
    figure.update_yaxes(title_text="Equity, start = 100", row=1, col=1)
    return figure.update_layout(margin={"t": 76 if title else 56, "b": 84})


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
        if not panel.data:  # it says why
            middle = {"x": 0.5, "y": 0.5, "xref": "x domain", "yref": "y domain", "showarrow": False}
            figure.add_annotation(text=panel.layout.annotations[0].text, **middle, **place)
        _shapes(figure, panel, place)
        for axis, update in (("xaxis", figure.update_xaxes), ("yaxis", figure.update_yaxes)):
            kept = panel.layout[axis]
            bottom = kept.title.text or (
                panel.layout.xaxis2.title.text if axis == "xaxis" and "xaxis2" in panel.layout else None
            )
            update(title_text=bottom, tickformat=kept.tickformat, type=kept.type, range=kept.range, **place)
    wrapped = "<br>".join(safe(line) for line in textwrap.wrap(sentence, 130))
    figure.add_annotation(
        text=wrapped, x=0, y=1, xref="paper", yref="paper", yshift=86, showarrow=False, align="left", yanchor="top"
    )
    finish(figure, theme, title, 180 + 330 * rows)
    return figure.update_layout(margin={"t": 150, "b": 110}, barmode="group", bargap=0.2)


def _shapes(figure: go.Figure, panel: go.Figure, place: Mapping[str, int]) -> None:
    """Shadings and lines of a chart's first panel, on the axes it has in ``figure``."""
    there = figure.get_subplot(**place)
    x, y = (axis.plotly_name.replace("axis", "") for axis in (there.xaxis, there.yaxis))
    kept = [shape.to_plotly_json() for shape in panel.layout.shapes if (shape.yref or "y").split()[0] == "y"]
    moved = [
        {
            **one,
            **{ref: str(one.get(ref, axis[0])).replace(axis[0], axis, 1) for ref, axis in (("xref", x), ("yref", y))},
        }
        for one in kept
    ]
    figure.update_layout(shapes=[*figure.layout.shapes, *moved])
