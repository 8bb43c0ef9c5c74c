"""Charts of decisions: what a score is made of, and how often each trigger speaks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from aione_lab.backtest.explain import Explanation
from aione_lab.errors import InputError
from aione_lab.figures.theme import Theme, finish, floats, need_columns, nothing, one_number, palette, safe


def contributions_chart(
    explanation: Explanation | Mapping[str, Any],
    *,
    to_confidence: bool = False,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Waterfall from zero to the score of one signal, factor by factor, the strongest first.

    ``to_confidence`` goes on from the score to the confidence, where that is known: one bar for what clustering lifted
    and discounts took, one for the confidence itself.

    ``explanation`` is what ``Result.explain`` gives, or a mapping that holds ``factors`` itself or under
    ``confidence_metrics`` (a Stage2 dictionary): name → mapping with ``strength``, ``weight``, ``contribution``.
    Score, reading and confidence are named in the heading where present. A factor that was not available
    (strength or contribution None or NaN) is named below the chart, not drawn as zero.
    """
    colours = palette(theme)
    metrics = _metrics(explanation)
    present, absent = {}, []
    for name, factor in _factors(metrics).items():
        where = f"explanation.factors.{name}"
        known = {field: _known(factor, field, where) for field in ("contribution", "strength", "weight")}
        if known["contribution"] and (known["strength"] or "strength" not in factor):
            present[name] = factor
        else:
            absent.append(safe(name))
    heading = title or _heading(metrics)
    if not present:
        return nothing(theme, heading, "no factor was available")
    names = sorted(present, key=lambda name: (-abs(present[name]["contribution"]), str(name)))
    values = [float(present[name]["contribution"]) for name in names]
    total = float(sum(values))
    goal = float(metrics["confidence"]) if to_confidence and _known(metrics, "confidence", "explanation") else None
    rest = [] if goal is None else [goal - total, goal]
    figure = go.Figure(
        go.Waterfall(
            x=[safe(name).replace("_", " ") for name in names]
            + ["score", "lift, discounts", "confidence"][: 1 + len(rest)],
            y=[*values, total, *rest],
            measure=["relative"] * len(names) + ["total", "relative", "total"][: 1 + len(rest)],
            text=[f"{value:+.3f}" for value in values]
            + [f"<b>{total:.3f}</b>"]
            + ([] if goal is None else [f"{goal - total:+.3f}", f"<b>{goal:.3f}</b>"]),
            textposition="outside",
            cliponaxis=False,
            increasing={"marker": {"color": colours.up}},
            decreasing={"marker": {"color": colours.down}},
            totals={"marker": {"color": colours.soft}},
            connector={"line": {"color": colours.neutral, "width": 1}},
            customdata=[_factor_text(present[name]) for name in names] + [""] * (1 + len(rest)),
            hovertemplate="<b>%{x}</b> %{text}<br>%{customdata}<extra></extra>",
        )
    )
    reach = np.concatenate([[0.0], np.cumsum(values), rest[1:]])
    spare = max(0.12 * float(reach.max() - reach.min()), 0.02)
    figure.update_yaxes(title_text="Contribution to the score", range=[reach.min() - spare, reach.max() + spare])
    lacking = f" (not available: {', '.join(absent)})" if absent else ""
    figure.update_xaxes(title_text="Factor" + lacking, tickangle=0)
    return finish(figure, theme, heading, 400).update_layout(margin={"t": 52})


def _metrics(explanation: Any) -> Mapping[str, Any]:
    """What holds ``factors``; InputError where nothing can."""
    whole = explanation.to_dict() if isinstance(explanation, Explanation) else explanation
    metrics = whole.get("confidence_metrics", whole) if isinstance(whole, Mapping) else None
    if not isinstance(metrics, Mapping):
        raise InputError.of("explanation", explanation, "must be what Result.explain or Stage2 gives")
    return metrics


def _factors(metrics: Mapping[str, Any]) -> dict[Any, Mapping[str, Any]]:
    factors = metrics.get("factors")
    if isinstance(factors, (list, tuple)) and all(isinstance(one, Mapping) and "name" in one for one in factors):
        factors = {factor["name"]: factor for factor in factors}
    if not isinstance(factors, Mapping) or not all(isinstance(factor, Mapping) for factor in factors.values()):
        raise InputError.of("explanation", sorted(map(str, metrics)), "must have 'factors', name -> contribution")
    return dict(factors)


def _known(values: Mapping[str, Any], field: str, where: str) -> bool:
    value = values.get(field)
    return value is not None and math.isfinite(one_number(value, f"{where}.{field}"))


def _heading(metrics: Mapping[str, Any]) -> str:
    parts = []
    name = "composite_score" if "composite_score" in metrics else "score"
    if _known(metrics, name, "explanation"):
        parts.append(f"Score {metrics[name]:.3f}")
    if metrics.get("reading"):
        parts.append(f"reading: {metrics['reading']}")
    if _known(metrics, "confidence", "explanation"):
        parts.append(f"confidence {metrics['confidence']:.3f}")
    return ", ".join(parts) or "What the score is made of"


def _factor_text(factor: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {factor[key]:.3f}" for key in ("strength", "weight") if factor.get(key) is not None)


def rates_chart(rates: pd.DataFrame, *, title: str | None = None, theme: Theme = "light") -> go.Figure:
    """How often each reason holds: a heatmap with the numbers written in.

    ``rates`` has a row a symbol (or day), a column a reason, and counts a day as values (≥ 0; NaN: not known, left
    blank). The colour follows log(1 + rate), because reasons differ by orders of magnitude; the numbers are plain.
    """
    colours = palette(theme)
    need_columns(rates, (), "rates")
    columns = [floats(rates.iloc[:, i], f"rates.{name}") for i, name in enumerate(rates.columns)]
    values = np.column_stack(columns) if columns else np.empty((0, 0))
    if not values.size:
        return nothing(theme, title, "no rates")
    if (values < 0).any():
        raise InputError.of("rates", float(np.nanmin(values)), "must be counts a day, none below zero")
    depth = np.log1p(values)
    top = float(np.nanmax(depth)) if np.isfinite(depth).any() else 1.0
    marks = [mark for mark in (0, 1, 3, 10, 30, 100, 300, 1000) if np.log1p(mark) <= top] or [0]
    figure = go.Figure(
        go.Heatmap(
            x=[safe(name).replace("_", " ") for name in rates.columns],
            y=[safe(name) for name in rates.index],
            z=depth,
            zmin=0,
            zmax=top or 1.0,
            customdata=values,
            text=[["" if np.isnan(value) else f"{value:.3g}" for value in row] for row in values],
            texttemplate="%{text}",
            colorscale=[[0, colours.scale[0]], [0.5, colours.scale[1]], [1, colours.scale[2]]],
            colorbar={"title": "a day", "tickvals": np.log1p(marks), "ticktext": [str(mark) for mark in marks]},
            hovertemplate="%{y}<br>%{x}: %{customdata:.3~g} a day<extra></extra>",
            hoverongaps=False,
            showscale=len(rates) >= 4,  # lower than that a scale is unreadable, and the numbers say it all
            xgap=1,
            ygap=1,
        )
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(title_text="Reason", showgrid=False, tickangle=-30, tickfont={"size": 10})
    return finish(figure, theme, title, 190 + 34 * len(rates)).update_layout(margin={"t": 52})
