"""Figures of episodes: large moves over the price, announced or not, and how early."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.figures.decimate import decimate
from aione_lab.figures.theme import Theme, finish, floats, need_columns, need_series, nothing, palette, utc_times

POINTS = 4_000


def episodes_chart(
    closes: pd.Series,
    episodes: pd.DataFrame,
    alerts: pd.DataFrame,
    *,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Episodes as thick lines over the closes, false alerts as ticks below, lead against the share still ahead.

    ``closes`` on a UTC index; ``episodes`` needs ``start, end, side, announced, lead, ahead, move_atr``, ``alerts``
    ``time, true, late``. Announced episodes are solid and have a dot at their start, missed ones are dotted.
    """
    colours = palette(theme)
    need_series(closes, "closes")
    need_columns(episodes, ("start", "end", "side", "announced", "lead", "ahead", "move_atr"), "episodes")
    need_columns(alerts, ("time", "true", "late"), "alerts")
    if not len(closes):
        return nothing(theme, title, "no candles")
    times, values = utc_times(closes.index, "closes"), floats(closes, "closes")
    figure = make_subplots(
        rows=3,
        cols=1,
        row_heights=[0.6, 0.1, 0.3],
        vertical_spacing=0.04,
        specs=[[{}], [{}], [{"b": 0.02, "t": 0.08}]],
    )
    figure.update_xaxes(matches="x", row=2, col=1)
    x, y = decimate(times, values, POINTS)
    figure.add_trace(
        go.Scatter(x=x, y=y, mode="lines", line={"color": colours.neutral, "width": 1}, name="close", hoverinfo="skip"),
        row=1,
        col=1,
    )
    start, end = (utc_times(episodes[name], f"episodes.{name}") for name in ("start", "end"))
    begin, stop = np.searchsorted(times, start), np.searchsorted(times, end)
    size = floats(episodes["move_atr"], "episodes.move_atr")
    told = episodes["announced"].to_numpy(dtype=bool)
    rising = (episodes["side"] == "LONG").to_numpy()
    for sign, colour, arrow in ((True, colours.up, "up"), (False, colours.down, "down")):
        for seen in (True, False):
            chosen = np.flatnonzero((rising == sign) & (told == seen))
            gap = np.full(len(chosen), np.nan)
            figure.add_trace(
                go.Scatter(
                    x=np.column_stack([start[chosen], end[chosen], end[chosen]]).ravel(),
                    y=np.column_stack([values[begin[chosen]], values[stop[chosen]], gap]).ravel(),
                    mode="lines+markers" if seen else "lines",
                    line={"color": colour, "width": 3 if seen else 2, "dash": "solid" if seen else "dot"},
                    marker={
                        "size": np.tile([7, 0, 0], len(chosen)),
                        "symbol": f"triangle-{arrow}",
                        "line": {"width": 0},
                    },
                    name=f"{arrow}, {'announced' if seen else 'missed'} ({len(chosen):,})",
                    text=np.repeat([f"{one:.0f} ATRs" for one in size[chosen]], 3),
                    hovertemplate="%{x} %{text}<extra></extra>",
                    connectgaps=False,
                ),
                row=1,
                col=1,
            )
    when = utc_times(alerts["time"], "alerts.time")
    true, late = (alerts[name].to_numpy(dtype=bool) for name in ("true", "late"))
    for name, chosen, level, colour in (
        ("true", true, 2, colours.third),
        ("late", late, 1, colours.second),
        ("false", ~true & ~late, 0, colours.neutral),
    ):
        figure.add_trace(
            go.Scatter(
                x=when[chosen],
                y=np.full(int(chosen.sum()), level),
                mode="markers",
                marker={"symbol": "line-ns", "size": 9, "line": {"width": 1, "color": colour}},
                name=f"{name} alerts ({int(chosen.sum()):,})",
                showlegend=False,
                hovertemplate=f"{name} alert %{{x}}<extra></extra>",
            ),
            row=2,
            col=1,
        )
    lead, ahead = floats(episodes["lead"], "episodes.lead"), floats(episodes["ahead"], "episodes.ahead")
    for sign, colour, symbol in ((True, colours.up, "triangle-up"), (False, colours.down, "triangle-down")):
        chosen = (rising == sign) & told
        figure.add_trace(
            go.Scatter(
                x=lead[chosen],
                y=ahead[chosen],
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.8},
                showlegend=False,
                hovertemplate="%{x:.0f} minutes before the start, %{y:.0%} still ahead<extra></extra>",
            ),
            row=3,
            col=1,
        )
    figure.add_vline(x=0, line={"color": colours.neutral, "width": 1, "dash": "dot"}, row=3, col=1)
    names = [
        f"{name} ({int(chosen.sum()):,})" for name, chosen in (("false", ~true & ~late), ("late", late), ("true", true))
    ]
    figure.update_yaxes(tickvals=[0, 1, 2], ticktext=names, range=[-0.6, 2.6], showgrid=False, row=2, col=1)
    figure.update_yaxes(title_text="Close", row=1, col=1)
    figure.update_yaxes(title_text="Move still ahead", tickformat=".0%", row=3, col=1)
    figure.update_xaxes(showticklabels=False, row=1, col=1)
    figure.update_xaxes(title_text="Time (UTC); above: alerts", row=2, col=1)
    figure.update_xaxes(title_text="First alert, minutes before the start (right: earlier)", row=3, col=1)
    return finish(figure, theme, title, 780).update_layout(margin={"b": 96})
