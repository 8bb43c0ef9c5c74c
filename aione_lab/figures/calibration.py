"""The search of a study: what each set scored, which thresholds mattered, and where the chosen set lies among all.

``sets`` has one row a distinct set: a column for each searched threshold and each metric. The chosen set is a star, the
best trial a cross, the default a dotted line, on every one of these charts; ``centre`` and ``peak`` are positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.errors import InputError
from aione_lab.figures.theme import Palette, Theme, finish, floats, need_columns, need_series, nothing, palette, safe

POINTS = 1_500
FORMATS = {"expectancy": ".3~%", "win_rate": ".1~%"}
"""How a metric is written where it is a share; the others are plain numbers."""

CELLS = 14
"""Most rows and columns of a heatmap; a threshold of more values is cut into as many equal parts."""


def importance_chart(
    importance: pd.Series, metric: str, *, title: str | None = None, theme: Theme = "light"
) -> go.Figure:
    """Share of the variation of ``metric`` that each threshold explains, highest first; ``importance`` by name."""
    colours = palette(theme)
    need_series(importance, "importance")
    shares = floats(importance, "importance")
    if not np.isfinite(shares).any():
        return nothing(theme, title, "every set scored the same")
    order = np.argsort(shares, kind="stable")
    figure = go.Figure(
        go.Bar(
            x=shares[order],
            y=[safe(importance.index[i]) for i in order],
            orientation="h",
            marker={"color": colours.up},
            text=[f"{shares[i]:.0%}" for i in order],
            textposition="outside",
            cliponaxis=False,
            showlegend=False,
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    figure.update_xaxes(
        title_text=f"Share of the variation of {safe(metric)} among the sets tried",
        tickformat=".0%",
        range=[0, float(np.nanmax(shares)) * 1.12],
    )
    figure.update_yaxes(type="category")
    height = max(240, 110 + 26 * len(shares))
    return finish(figure, theme, title, height).update_layout(margin={"t": 56 if title else 28})


def history_chart(
    values: Sequence[float] | np.ndarray,
    metric: str,
    *,
    maximize: bool,
    chosen: int,
    peak: int,
    default: float,
    random_until: int = 0,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Score of every trial (n,) in order, the best so far, and the first ``random_until`` trials shaded.

    ``chosen`` and ``peak`` are numbers of trials, ``default`` the score of the default set (NaN: not drawn).
    """
    colours = palette(theme)
    scores = floats(values, "values")
    if not len(scores):
        return nothing(theme, title, "no trials")
    best = np.maximum.accumulate(scores) if maximize else np.minimum.accumulate(scores)
    number = np.arange(len(scores))
    hover = "trial %{x}: %{y:" + FORMATS.get(metric, ".3g") + "}"
    line = {"color": colours.ink, "width": 1.4, "shape": "hv"}
    figure = go.Figure(
        [
            points(number, scores, "a trial", colours.neutral, "circle", 5, hover),
            {"type": "scatter", "x": number, "y": best, "mode": "lines", "name": "best so far", "line": line},
            *level_line(number[[0, -1]], default, colours),
            *(points([at], scores[[at]], *look, hover) for look, at in marked(chosen, peak, colours)),
        ]
    )
    if 0 < random_until < len(scores):
        figure.add_vrect(
            x0=-0.5,
            x1=random_until - 0.5,
            fillcolor=colours.neutral,
            opacity=0.15,
            line_width=0,
            layer="below",
            annotation_text="drawn at random",
            annotation_position="bottom left",
            annotation_font={"size": 11, "color": colours.soft},
        )
    figure.update_xaxes(title_text="Trial")
    figure.update_yaxes(title_text=f"Mean {safe(metric)} over folds", tickformat=FORMATS.get(metric))
    return finish(figure, theme, title, 380).update_layout(margin={"t": 56 if title else 28, "b": 84})


def slices_chart(
    sets: pd.DataFrame,
    parameters: Mapping[str, str],
    metric: str,
    *,
    centre: int,
    peak: int,
    neighbours: Sequence[int] | np.ndarray = (),
    default: float = math.nan,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Score against each threshold, one panel each; ``parameters``: column → what its axis says.

    A set differs from the others in all its thresholds at once: a panel shows where good sets lie, and not what moving
    this threshold alone would do.
    """
    colours = palette(theme)
    need_columns(sets, (*parameters, metric), "sets")
    if not len(sets) or not parameters:
        return nothing(theme, title, "no sets")
    scores = floats(sets[metric], metric)
    columns = min(4, len(parameters))
    rows = -(-len(parameters) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes="all",
        horizontal_spacing=0.02,
        vertical_spacing=min(0.3, 70 / (230 * rows)),
    )
    close = np.asarray(neighbours, dtype=np.int64)
    others = np.setdiff1d(thinned(len(sets)), [centre, peak, *close])
    hover = "%{xaxis.title.text} %{x}: %{y:" + FORMATS.get(metric, ".3g") + "}"
    traces: list[dict[str, Any]] = []
    for i, (name, label) in enumerate(parameters.items()):
        x = floats(sets[name], name)
        panel = [points(x[others], scores[others], "a set", colours.neutral, "circle", 5, hover)]
        panel += level_line([x.min(), x.max()], default, colours)
        if len(close):
            panel.append(points(x[close], scores[close], "neighbour", colours.third, "diamond", 6, hover))
        panel += [points(x[[at]], scores[[at]], *look, hover) for look, at in marked(centre, peak, colours)]
        axis = "" if i == 0 else str(i + 1)
        traces += [{**one, "showlegend": i == 0, "xaxis": f"x{axis}", "yaxis": f"y{axis}"} for one in panel]
        figure.layout[f"xaxis{axis}"].title.text = safe(label)
        if i % columns == 0:
            figure.layout[f"yaxis{axis}"].title.text = safe(metric)
    figure.add_traces(traces)  # at once: one by one, half a hundred of them take long
    figure.update_yaxes(tickformat=FORMATS.get(metric))
    height = 230 * rows + 100
    return finish(figure, theme, title, height).update_layout(margin={"t": 56 if title else 28, "b": 100})


def heatmap_chart(
    sets: pd.DataFrame,
    x: str,
    y: str,
    metric: str,
    *,
    centre: int,
    peak: int,
    labels: Mapping[str, str] | None = None,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Mean score of the sets by two thresholds, with the number of sets in each cell; empty where none was tried."""
    colours = palette(theme)
    need_columns(sets, (x, y, metric), "sets")
    if x == y:
        raise InputError.of("y", y, "must be another threshold than x")
    if not len(sets):
        return nothing(theme, title, "no sets")
    across, up, scores = floats(sets[x], x), floats(sets[y], y), floats(sets[metric], metric)
    (i, x_at), (j, y_at) = _cells(across), _cells(up)
    shape = (len(y_at), len(x_at))
    count = np.zeros(shape)
    total = np.zeros(shape)
    np.add.at(count, (j, i), 1)
    np.add.at(total, (j, i), scores)
    mean = np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)
    says = labels or {}
    figure = go.Figure(
        go.Heatmap(
            x=x_at,
            y=y_at,
            z=mean,
            text=np.where(count > 0, count.astype(int).astype(str), ""),
            texttemplate="%{text}",
            textfont={"size": 10},
            colorscale=[[0.0, colours.scale[0]], [0.5, colours.scale[1]], [1.0, colours.scale[2]]],
            colorbar={"title": {"text": f"mean<br>{safe(metric)}", "side": "top"}, "thickness": 14},
            xgap=1,
            ygap=1,
            hoverongaps=False,
            hovertemplate=f"{safe(x)} %{{x:.4g}}, {safe(y)} %{{y:.4g}}: %{{z:.3g}} of %{{text}} sets<extra></extra>",
        )
    )
    for look, at in marked(centre, peak, colours):
        figure.add_trace(points(across[[at]], up[[at]], *look, "%{x}, %{y}", edge=colours.paper))
    figure.update_xaxes(title_text=safe(says.get(x, x)), showgrid=False)
    figure.update_yaxes(title_text=safe(says.get(y, y)), showgrid=False)
    return finish(figure, theme, title, 460).update_layout(margin={"b": 84})


def marked(centre: int, peak: int, colours: Palette) -> list[tuple[tuple[str, str, str, int], int]]:
    """(name, colour, symbol, size) and position of the sets that every chart marks; the chosen one on top."""
    best = [(("best trial", colours.down, "x", 11), peak)] if peak != centre else []
    return [*best, (("chosen", colours.up, "star", 15), centre)]


def points(
    x: np.ndarray | Sequence[int],
    y: np.ndarray,
    name: str,
    colour: str,
    symbol: str,
    size: int,
    hover: str,
    edge: str | None = None,
) -> dict[str, Any]:
    """Trace with the marks of one kind of sets."""
    return {
        "type": "scatter",
        "x": x,
        "y": y,
        "mode": "markers",
        "name": name,
        "legendgroup": name,
        "marker": {"color": colour, "symbol": symbol, "size": size, "line": {"width": 1 if edge else 0, "color": edge}},
        "hovertemplate": f"{hover}<extra>{name}</extra>",
    }


def level_line(ends: Sequence[float] | np.ndarray, level: float, colours: Palette) -> list[dict[str, Any]]:
    """Trace with the default's score as a dotted line between two ``ends``; none where it is NaN."""
    if not np.isfinite(level):
        return []
    line = {"color": colours.second, "width": 2, "dash": "dot"}
    hover = "%{y:.3g}<extra>default</extra>"
    shared = {"name": "default", "legendgroup": "default", "hovertemplate": hover}
    return [{"type": "scatter", "x": ends, "y": [level, level], "mode": "lines", "line": line, **shared}]


def thinned(n: int, most: int = POINTS) -> np.ndarray:
    """Positions of every so many of ``n``, at most ``most``."""
    return np.arange(0, n, max(1, -(-n // most)))


def _cells(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of each value's cell, and the middles of the cells."""
    distinct, place = np.unique(values, return_inverse=True)
    if len(distinct) <= CELLS:
        return place, distinct
    edges = np.linspace(distinct[0], distinct[-1], CELLS + 1)
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, CELLS - 1), (edges[:-1] + edges[1:]) / 2
