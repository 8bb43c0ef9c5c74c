"""The search of a study: what each set scored, which thresholds mattered, and where the chosen set lies among all.

``sets`` has one row a distinct set: a column for each searched threshold and each metric. The chosen set is a star, the
best trial a cross, the default a dotted line, on every one of these charts; ``centre`` and ``peak`` are positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.errors import InputError
from aione_lab.figures.theme import Palette, Theme, finish, floats, need_columns, need_series, nothing, palette, safe

POINTS = 1_500
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
    return finish(figure, theme, title, max(240, 110 + 26 * len(shares)))


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
    figure = go.Figure()
    points(figure, number, scores, "a trial", colours.neutral, "circle", 5, "trial %{x}: %{y:.3g}")
    line = {"color": colours.ink, "width": 1.4, "shape": "hv"}
    figure.add_trace(go.Scatter(x=number, y=best, mode="lines", name="best so far", line=line, hoverinfo="skip"))
    level_line(figure, number[[0, -1]], default, colours)
    if peak != chosen:
        points(figure, [peak], scores[[peak]], "best trial", colours.down, "x", 11, "best trial, %{x}: %{y:.3g}")
    points(figure, [chosen], scores[[chosen]], "chosen", colours.up, "star", 15, "chosen, trial %{x}: %{y:.3g}")
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
    figure.update_xaxes(title_text="Trial").update_yaxes(title_text=f"Mean {safe(metric)} over folds")
    return finish(figure, theme, title, 380).update_layout(margin={"b": 84})


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
    for i, (name, label) in enumerate(parameters.items()):
        x = floats(sets[name], name)
        place = {"row": i // columns + 1, "col": i % columns + 1}
        look = {"showlegend": i == 0, **place}
        hover = f"{safe(label)} %{{x}}: %{{y:.3g}}"
        points(figure, x[others], scores[others], "a set", colours.neutral, "circle", 5, hover, **look)
        level_line(figure, [x.min(), x.max()], default, colours, **look)
        if len(close):
            points(figure, x[close], scores[close], "neighbour", colours.third, "diamond", 6, hover, **look)
        if peak != centre:
            points(figure, x[[peak]], scores[[peak]], "best trial", colours.down, "x", 10, hover, **look)
        points(figure, x[[centre]], scores[[centre]], "chosen", colours.up, "star", 13, hover, **look)
        figure.update_xaxes(title_text=safe(label), **place)
    figure.update_yaxes(title_text=f"{safe(metric)}", col=1)
    height = 230 * rows + 100
    return finish(figure, theme, title, height).update_layout(margin={"t": 56 if title else 20, "b": 100})


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
    for name, at, colour, symbol, size in marked(centre, peak, colours):
        points(
            figure, across[[at]], up[[at]], name, colour, symbol, size, f"{name}: %{{x}}, %{{y}}", edge=colours.paper
        )
    figure.update_xaxes(title_text=safe(says.get(x, x)), showgrid=False)
    figure.update_yaxes(title_text=safe(says.get(y, y)), showgrid=False)
    return finish(figure, theme, title, 460).update_layout(margin={"b": 84})


def marked(centre: int, peak: int, colours: Palette) -> list[tuple[str, int, str, str, int]]:
    """Name, position, colour, symbol and size of the sets that every chart marks; the chosen one on top."""
    best = [("best trial", peak, colours.down, "x", 11)] if peak != centre else []
    return [*best, ("chosen", centre, colours.up, "star", 15)]


def points(
    figure: go.Figure,
    x: np.ndarray | Sequence[int],
    y: np.ndarray,
    name: str,
    colour: str,
    symbol: str,
    size: int,
    hover: str,
    edge: str | None = None,
    **place: object,
) -> None:
    """Marks of one kind of sets; ``place`` may hold row, col and showlegend."""
    legend = place.pop("showlegend", True)
    marker = {"color": colour, "symbol": symbol, "size": size, "line": {"width": 1, "color": edge} if edge else None}
    trace = go.Scatter(
        x=x,
        y=y,
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=legend,
        marker=marker,
        hovertemplate=f"{hover} {name}<extra></extra>" if name not in hover else f"{hover}<extra></extra>",
    )
    figure.add_trace(trace, **place)


def level_line(
    figure: go.Figure, ends: Sequence[float] | np.ndarray, level: float, colours: Palette, **place: object
) -> None:
    """The default's score as a dotted line from the first to the second of ``ends``."""
    legend = place.pop("showlegend", True)
    if np.isfinite(level):
        figure.add_trace(
            go.Scatter(
                x=ends,
                y=[level, level],
                mode="lines",
                name="default",
                legendgroup="default",
                showlegend=legend,
                line={"color": colours.second, "width": 2, "dash": "dot"},
                hovertemplate=f"default: {level:.3g}<extra></extra>",
            ),
            **place,
        )


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
