"""Sets of a study in all their dimensions: parallel coordinates of the thresholds, and the Pareto front of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from aione_lab.errors import InputError
from aione_lab.figures.calibration import FORMATS, POINTS, marked, thinned
from aione_lab.figures.theme import Theme, finish, floats, need_columns, nothing, palette, safe


def parallel_chart(
    sets: pd.DataFrame,
    parameters: Mapping[str, str],
    metric: str,
    ranges: Mapping[str, Sequence[float]],
    *,
    maximize: bool,
    centre: int,
    peak: int,
    default: Mapping[str, float] | None = None,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Every set as a line across its thresholds, each axis from the lower to the upper end of its search range.

    The last axis is the score. ``default``: its numbers by column, what is missing (adaptive) leaves a gap. Lines
    instead of Plotly's own ``Parcoords``: single sets can be marked, and the page needs no WebGL.
    """
    colours = palette(theme)
    need_columns(sets, (*parameters, metric), "sets")
    if not len(sets) or not parameters:
        return nothing(theme, title, "no sets")
    scores = floats(sets[metric], metric)
    low, high = float(np.nanmin(scores)), float(np.nanmax(scores))
    ends = [
        *(tuple(float(end) for end in ranges[name][:2]) for name in parameters),
        (low, high if high > low else low + 1),
    ]
    values = np.column_stack([*(floats(sets[name], name) for name in parameters), scores])
    names = [*parameters, metric]
    bottom, top = np.array(ends).T
    heights = (values - bottom) / (top - bottom)
    rank = np.argsort(np.argsort(scores if maximize else -scores, kind="stable"), kind="stable") / len(scores)
    figure = go.Figure()
    for name, inside, colour, width in (
        ("lower half", rank < 0.5, colours.grid, 1.0),
        ("next three tenths", (rank >= 0.5) & (rank < 0.8), colours.neutral, 1.0),
        ("best fifth", rank >= 0.8, colours.third, 1.2),
    ):
        rows = np.flatnonzero(inside)
        rows = rows[thinned(len(rows), POINTS // 3)]
        _threads(figure, heights[rows], values[rows], names, name, {"color": colour, "width": width}, 0.75, rows=rows)
    lines = [("best trial", values[peak], colours.down, "dash", 2.2)] if peak != centre else []
    if default is not None:
        row = np.array([float(default.get(name, np.nan)) for name in names])
        lines.append(("default (gaps: adaptive)", row, colours.second, "dot", 2.4))
    lines.append(("chosen", values[centre], colours.up, "solid", 3.4))
    for name, row, colour, dash, width in lines:
        height = (row - bottom) / (top - bottom)
        line = {"color": colour, "width": width, "dash": dash}
        _threads(figure, height[None], row[None], names, name, line, 1.0, mode="lines+markers")
    notes = []
    for i, two in enumerate(ends):
        share = i == len(parameters) and "%" in FORMATS.get(metric, "")
        for y, end, anchor in zip((-0.015, 1.015), two, ("top", "bottom"), strict=True):
            text = f"{end:.3%}" if share else f"{end:.4g}"
            look = {"showarrow": False, "font": {"size": 11, "color": colours.soft}, "bgcolor": colours.paper}
            notes.append({"x": i, "y": y, "text": text, "yanchor": anchor, **look})
    figure.update_layout(annotations=notes)
    labels = [*parameters.values(), f"{metric}"]
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=[safe(label) for label in labels],
        tickangle=-30,
        range=[-0.3, len(names) - 0.7],
        gridcolor=colours.neutral,
        ticks="",
    )
    figure.update_yaxes(visible=False, range=[-0.09, 1.09])
    return finish(figure, theme, title, 520).update_layout(margin={"t": 56 if title else 28, "b": 150, "l": 72})


def pareto_chart(
    sets: pd.DataFrame,
    metrics: Mapping[str, bool],
    front: Sequence[int] | np.ndarray,
    *,
    centre: int,
    peak: int,
    default: Sequence[float] | None = None,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Sets by two or three metrics, with the front: those that no other set beats in all of them.

    ``metrics``: column → whether more is better; ``front``: positions; ``default``: the default set's values.
    """
    colours = palette(theme)
    if len(metrics) not in (2, 3):
        raise InputError.of("metrics", list(metrics), "must be two or three")
    need_columns(sets, tuple(metrics), "sets")
    if not len(sets):
        return nothing(theme, title, "no sets")
    values = [floats(sets[name], name) for name in metrics]
    on = np.asarray(front, dtype=np.int64)
    on = on[np.argsort(values[0][on], kind="stable")]
    off = np.setdiff1d(thinned(len(sets)), on)
    axes = [f"{safe(name)} ({'more' if more else 'less'} is better)" for name, more in metrics.items()]
    figure = go.Figure()
    flat = len(metrics) == 2
    kind = go.Scatter if flat else go.Scatter3d
    forms = [FORMATS.get(name) for name in metrics]
    shown = zip(metrics, "xyz", forms, strict=False)
    hover = ", ".join(f"{safe(name)} %{{{axis}:{form or '.3g'}}}" for name, axis, form in shown)
    layers: list[tuple[str, np.ndarray, str, str, int, str]] = [
        ("a set", off, colours.neutral, "circle", 6 if flat else 3, "markers"),
        ("Pareto front", on, colours.third, "diamond", 8 if flat else 5, "lines+markers" if flat else "markers"),
        *((look[0], np.array([at]), *look[1:], "markers") for look, at in marked(centre, peak, colours)),
    ]
    for name, rows, colour, symbol, size, mode in layers:
        symbol = symbol if flat or symbol != "star" else "diamond-open"  # Plotly has no star in space
        figure.add_trace(
            kind(
                **{axis: value[rows] for axis, value in zip("xyz", values, strict=False)},
                mode=mode,
                name=name,
                customdata=rows,
                marker={"color": colour, "symbol": symbol, "size": size if flat else min(size, 8)},
                line={"color": colour, "width": 1.4},
                hovertemplate=f"{name}: {hover}<extra></extra>",
            )
        )
    if default is not None:
        figure.add_trace(
            kind(
                **{axis: [value] for axis, value in zip("xyz", default, strict=False)},
                mode="markers",
                name="default",
                marker={"color": colours.second, "symbol": "square", "size": 11 if flat else 6},
                hovertemplate=f"default: {hover}<extra></extra>",
            )
        )
    if flat:
        figure.update_xaxes(title_text=axes[0], tickformat=forms[0])
        figure.update_yaxes(title_text=axes[1], tickformat=forms[1])
    else:
        scene = {f"{axis}axis": {"title": {"text": text}} for axis, text in zip("xyz", axes, strict=True)}
        figure.update_layout(scene={**scene, "camera": {"eye": {"x": 1.6, "y": 1.6, "z": 1.1}}})
    return finish(figure, theme, title, 460 if flat else 620).update_layout(margin={"t": 56 if title else 28, "b": 84})


def _threads(
    figure: go.Figure,
    heights: np.ndarray,
    values: np.ndarray,
    names: Sequence[str],
    name: str,
    line: dict[str, object],
    opacity: float,
    mode: str = "lines",
    rows: np.ndarray | None = None,
) -> None:
    """Rows of ``heights`` (k, axes) as lines in one trace, a gap between any two; ``rows`` (k,): their sets."""
    k, n = heights.shape
    gap = np.full((k, 1), np.nan)
    says = np.array([f"{safe(one)} " for one in names], dtype=object)
    text = [*(says + [f"{value:.4g}" for value in row] for row in values)]
    figure.add_trace(
        go.Scatter(
            x=np.tile(np.append(np.arange(n, dtype=float), np.nan), k),
            y=np.hstack([heights, gap]).ravel(),
            mode=mode,
            name=name,
            line=line,
            opacity=opacity,
            text=[one for row in text for one in (*row, "")],
            customdata=None if rows is None else np.repeat(rows, n + 1),
            hovertemplate=f"{name}: %{{text}}<extra></extra>",
        )
    )
