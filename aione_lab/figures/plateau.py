"""The plateau choice: each set beside what its neighbours say, and the chosen one fold by fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.errors import InputError
from aione_lab.figures.theme import Theme, finish, floats, nothing, palette

POINTS = 4_000


def plateau_chart(
    scores: Any,
    neighbourhood: Any,
    fold_scores: np.ndarray,
    eligible: Any,
    *,
    centre: int,
    peak: int,
    neighbours: Any,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Mean score of every set (k,) against its neighbourhood's (k,), and the scores (k, folds) of those that matter.

    ``eligible`` (k,) tells which sets have enough neighbours (the others are drawn hollow); ``centre``, ``peak`` and
    ``neighbours`` are positions. Of very many sets every so many is drawn, those that matter always.
    """
    colours = palette(theme)
    own, around = floats(scores, "scores"), floats(neighbourhood, "neighbourhood")
    able = np.asarray(eligible, dtype=bool)
    folds = np.asarray(fold_scores, dtype=np.float64)
    if not len(own):
        return nothing(theme, title, "no sets")
    if not len(own) == len(around) == len(able) == len(folds) or folds.ndim != 2:
        raise InputError.of("fold_scores", f"shape {folds.shape}", f"must be one row for each of {len(own)} sets")
    close = np.asarray(neighbours, dtype=np.int64)
    figure = make_subplots(
        rows=1,
        cols=2,
        horizontal_spacing=0.1,
        subplot_titles=("Each set, and the sets around it", "Fold by fold"),
    )
    shown = np.zeros(len(own), dtype=bool)
    shown[:: -(-len(own) // POINTS)] = True
    shown[[centre, peak]] = False
    for name, part, symbol in (
        ("a set", np.flatnonzero(shown & able), "circle"),
        ("too few neighbours", np.flatnonzero(shown & ~able), "circle-open"),
    ):
        _points(figure, own[part], around[part], part, name, colours.neutral, symbol, 6)
    _points(figure, own[close], around[close], close, "neighbour", colours.third, "diamond", 7)
    _points(figure, own[[centre]], around[[centre]], np.array([centre]), "chosen", colours.up, "star", 15)
    number = np.arange(1, folds.shape[1] + 1)
    if len(close):
        low, high = np.quantile(folds[close], [0.25, 0.75], axis=0)
        figure.add_trace(
            go.Scatter(
                x=np.concatenate([number, number[::-1]]),
                y=np.concatenate([high, low[::-1]]),
                mode="lines",  # few points would get marks otherwise
                fill="toself",
                fillcolor=colours.band,
                line={"width": 0},
                name="middle half of the neighbours",
                hoverinfo="skip",
            ),
            row=1,
            col=2,
        )
    lines = [("chosen", centre, colours.up, "solid")]
    if peak != centre:
        _points(figure, own[[peak]], around[[peak]], np.array([peak]), "best trial", colours.down, "x", 11)
        lines.append(("best trial", peak, colours.down, "dash"))
    for name, at, colour, dash in lines:
        figure.add_trace(
            go.Scatter(
                x=number,
                y=folds[at],
                mode="lines+markers",
                name=f"{name}, number {at}",
                line={"color": colour, "width": 2, "dash": dash},
                showlegend=False,
                hovertemplate=f"fold %{{x}}: %{{y:.3g}} {name}<extra></extra>",
            ),
            row=1,
            col=2,
        )
    figure.update_xaxes(title_text="Mean score over folds", row=1, col=1)
    figure.update_yaxes(title_text="Score of the neighbourhood", row=1, col=1)
    figure.update_xaxes(title_text="Fold", dtick=1, row=1, col=2)
    figure.update_yaxes(title_text="Score", row=1, col=2)
    return finish(figure, theme, title, 440).update_layout(margin={"t": 76, "b": 84})


def _points(
    figure: go.Figure,
    x: np.ndarray,
    y: np.ndarray,
    numbers: np.ndarray,
    name: str,
    colour: str,
    symbol: str,
    size: int,
) -> None:
    """Marks in the left panel, each with its set's number."""
    if len(x):
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                mode="markers",
                name=name,
                customdata=numbers,
                marker={"color": colour, "symbol": symbol, "size": size},
                hovertemplate=f"{name}, number %{{customdata}}: %{{x:.3g}}, around it %{{y:.3g}}<extra></extra>",
            ),
            row=1,
            col=1,
        )
