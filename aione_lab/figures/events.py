"""Figures of event studies: how returns go on after each event, and where that is more than chance."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.figures.theme import Theme, finish, floats, need_columns, nothing, one_number, palette, safe

PANELS = 16
"""At most so many events are drawn: the reasons, then the combinations, those that were seen most often."""

COLUMNS = 4
COMBINATIONS = 12
"""At most so many combinations in a heatmap, those whose discoveries are the surest to survive costs."""


FAINT = 0.3
"""Strength of the colour of what cannot be told from chance."""


def profile_chart(
    profile: pd.DataFrame,
    table: pd.DataFrame,
    cost: float,
    *,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Small multiples, an event a panel: mean return by minute with its band, and the lines that costs draw.

    ``profile`` needs ``kind, event, minute, n, mean_bps, low, high`` of one symbol (bps; NaN bands are not drawn),
    ``table`` ``kind, event, horizon, mean_bps, discovery``; discoveries are marked by stars. ``cost`` is a round trip
    in bps. An event is its kind and its name: a reason, and the ALERTs that had this reason alone, are two.
    The panels of a row have one scale, so that they can be compared and a strong combination flattens no other row.
    """
    colours = palette(theme)
    need_columns(profile, ("kind", "event", "minute", "n", "mean_bps", "low", "high"), "profile")
    need_columns(table, ("kind", "event", "horizon", "mean_bps", "discovery"), "table")
    cost = one_number(cost, "cost")
    seen = profile.groupby(["kind", "event"], sort=False)["n"].max()
    events = [key for key in seen[seen > 0].index if key[0] == "reason"]
    others = seen[seen > 0].drop("reason", level="kind", errors="ignore")
    discoveries = table[table["discovery"].astype(bool)]
    found = set(zip(discoveries["kind"], discoveries["event"], strict=True))
    ranked = sorted(others.index, key=lambda key: (key not in found, -others[key]))
    events += ranked[: max(0, PANELS - len(events))]
    if not events:
        return nothing(theme, title, "no events")
    rows = math.ceil(len(events) / COLUMNS)
    figure = make_subplots(
        rows=rows,
        cols=COLUMNS,
        shared_xaxes="all",
        shared_yaxes="rows",
        horizontal_spacing=0.02,
        vertical_spacing=0.3 / rows,
        subplot_titles=[_wrapped(event_name(*key)) for key in events],
    )
    reach = np.full(rows, 1.5 * cost)
    star = {"symbol": "star", "size": 9, "color": colours.second, "line": {"width": 1, "color": colours.ink}}
    traces: list[go.Scatter] = []
    lines: list[dict[str, object]] = []  # put in at once: plotly checks all of a figure at each addition
    for place, (kind, name) in enumerate(events):
        cell = figure.get_subplot(place // COLUMNS + 1, place % COLUMNS + 1)
        x, y = (axis.plotly_name.replace("axis", "") for axis in cell)
        part = profile[(profile["kind"] == kind) & (profile["event"] == name)]
        minute, mean, low, high = (floats(part[column], column) for column in ("minute", "mean_bps", "low", "high"))
        minute, mean, low, high = (np.concatenate([[0.0], values]) for values in (minute, mean, low, high))
        known = np.isfinite(low)
        traces.append(
            go.Scatter(
                x=np.concatenate([minute[known], minute[known][::-1]]),
                y=np.concatenate([high[known], low[known][::-1]]),
                fill="toself",
                fillcolor=colours.band,
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                showlegend=False,
                xaxis=x,
                yaxis=y,
            )
        )
        traces.append(
            go.Scatter(
                x=minute,
                y=mean,
                mode="lines",
                line={"color": colours.up, "width": 1.8},
                showlegend=False,
                customdata=np.column_stack([low, high]),
                hovertemplate="%{x} min: %{y:+.1f} bps (%{customdata[0]:+.1f} to %{customdata[1]:+.1f})<extra></extra>",
                xaxis=x,
                yaxis=y,
            )
        )
        marked = discoveries[(discoveries["kind"] == kind) & (discoveries["event"] == name)]
        traces.append(
            go.Scatter(
                x=marked["horizon"],
                y=marked["mean_bps"],
                mode="markers",
                marker=star,
                showlegend=False,
                hovertemplate="discovery at %{x} min: %{y:+.1f} bps<extra></extra>",
                xaxis=x,
                yaxis=y,
            )
        )
        across = {"type": "line", "xref": f"{x} domain", "x0": 0, "x1": 1, "yref": y}
        for level in (cost, -cost):
            line = {"color": colours.down, "width": 1, "dash": "dash"}
            lines.append({**across, "y0": level, "y1": level, "line": line})
        lines.append({**across, "y0": 0, "y1": 0, "line": {"color": colours.neutral, "width": 1}})
        row = place // COLUMNS
        # The whole band: one that is cut off looks surer than it is.
        for values in (mean, low, high):
            reach[row] = max(reach[row], float(np.nanmax(np.abs(values), initial=0.0)) * 1.06)
    figure.add_traces(traces)
    figure.update_layout(shapes=lines)
    figure.add_trace(  # in the legend only: shapes have no entry of their own
        go.Scatter(
            x=[None],
            y=[None],
            mode="lines",
            line={"color": colours.down, "width": 1, "dash": "dash"},
            name=f"round trip of costs, {cost:.3g} bps: a mean between the lines loses either way",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker=star,
            name="passes false-discovery control",
        )
    )
    figure.update_annotations(font={"size": 10})
    for row in range(rows):
        figure.update_yaxes(range=[-reach[row], reach[row]], row=row + 1)
    figure.update_yaxes(title_text="bps", col=1)
    figure.update_xaxes(title_text="Minutes", row=rows)
    return finish(figure, theme, title, 150 + 165 * rows).update_layout(margin={"t": 84, "b": 84})


def heatmap_chart(table: pd.DataFrame, *, title: str | None = None, theme: Theme = "light") -> go.Figure:
    """Excess return by event and horizon, a panel a symbol; tests that pass are starred, and bold where costs are met.

    ``table`` needs ``symbol, kind, event, horizon, excess_bps, net_low, tested, discovery, survives``. Reasons are
    drawn, and those combinations that have a discovery ("alone" is a combination of one reason). What is not tested
    is left blank.
    """
    colours = palette(theme)
    need = ("symbol", "kind", "event", "horizon", "excess_bps", "net_low", "tested", "discovery", "survives")
    need_columns(table, need, "table")
    found = table[(table["kind"] != "reason") & table["discovery"].astype(bool)].sort_values("net_low", ascending=False)
    shown = table[(table["kind"] == "reason") | table["event"].isin(found["event"].unique()[:COMBINATIONS])]
    if not len(shown):
        return nothing(theme, title, "no events")
    shown = shown.assign(event=[event_name(*key) for key in zip(shown["kind"], shown["event"], strict=True)])
    symbols = list(shown["symbol"].unique())
    events = list(shown["event"].unique())
    horizons = sorted(shown["horizon"].unique())
    columns = min(len(symbols), 3)
    rows = math.ceil(len(symbols) / columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes="all",
        horizontal_spacing=0.02,
        vertical_spacing=0.22 / rows,
        subplot_titles=[safe(symbol) for symbol in symbols] if len(symbols) > 1 else None,
    )
    tested = shown[shown["tested"].astype(bool)]
    # Long horizons move more: the colour is relative to the horizon's own typical size.
    scale = tested.groupby("horizon")["excess_bps"].apply(lambda column: float(column.abs().quantile(0.98)))
    for place, symbol in enumerate(symbols):
        part = tested[tested["symbol"] == symbol].set_index(["event", "horizon"])
        grid = {
            name: part[name].unstack("horizon").reindex(index=events, columns=horizons)
            for name in ("excess_bps", "discovery", "survives")
        }
        value = grid["excess_bps"].to_numpy(dtype=np.float64)
        value = np.where(np.abs(value) < 0.5, 0.0, value)  # what is shown as 0 has no sign
        star, bold = ((grid[name] == True).to_numpy() for name in ("discovery", "survives"))  # noqa: E712  NaN is no
        text = [
            ["" if np.isnan(v) else f"<b>{_signed(v)} ★</b>" if b else _signed(v) + " ★" * bool(s) for v, s, b in z]
            for z in (zip(*row, strict=True) for row in zip(value, star, bold, strict=True))
        ]
        # Full colour is for what is more than chance, or the eye would find patterns where there are none.
        relative = value / scale.reindex(horizons).to_numpy() * np.where(star, 1.0, FAINT)
        figure.add_trace(
            go.Heatmap(
                x=[str(minutes) for minutes in horizons],
                y=[_wrapped(name, 3) for name in events],
                z=np.clip(relative, -1, 1),
                zmin=-1,
                zmax=1,
                text=text,
                texttemplate="%{text}",
                textfont={"size": 10},
                colorscale=[[0, colours.down], [0.5, colours.paper], [1, colours.up]],
                showscale=False,
                hoverongaps=False,
                hovertemplate="%{y}<br>%{x} minutes: %{text} bps<extra></extra>",
                xgap=1,
                ygap=1,
            ),
            row=place // columns + 1,
            col=place % columns + 1,
        )
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"size": 9})
    figure.update_xaxes(showgrid=False, type="category")
    figure.update_xaxes(
        title_text="Minutes (★ and full colour: passes false-discovery control; bold: also costs)", row=rows, col=1
    )
    line = 28 if any("<br>" in _wrapped(name, 3) for name in events) else 21
    height = 120 + rows * (60 + line * len(events))
    return finish(figure, theme, title, height).update_layout(margin={"t": 76})


def event_name(kind: str, event: str) -> str:
    """An event's name, told apart from its namesake: a combination of one reason is that reason alone."""
    return f"{event} alone" if kind == "combination" and " + " not in event else event


def _signed(value: float) -> str:
    return f"{value:+.0f}" if value else "0"


def _wrapped(name: str, a_line: int = 2) -> str:
    """A name in words, a combination so many reasons a line."""
    parts = [safe(part).replace("_", " ").lower() for part in str(name).split(" + ")]
    return "<br>".join(" + ".join(parts[i : i + a_line]) for i in range(0, len(parts), a_line))
