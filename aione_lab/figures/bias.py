"""How long each number needs until it no longer depends on where its candles began, and which ones look ahead."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from aione_lab.figures.theme import Theme, finish, floats, need_columns, nothing, palette, safe

_ROW = 15  # pixels of a bar
_LINES = 60  # more items than this are grouped


def warm_up_chart(
    table: pd.DataFrame,
    watched: int,
    signals_begin: int | None = None,
    *,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Warm-up in bars, a horizontal bar an item, longest on top; what looks ahead is hatched and stands out.

    ``table`` needs ``kind, name, verdict`` and ``warm_up_bars`` (NaN: not settled within ``watched`` bars, drawn to
    there and open-ended). Items that were not seen, and fills, which have no warm-up, are drawn only where they fail.
    Of more than 60 items those of one kind with the same number share a bar. ``signals_begin`` is drawn as a line.
    """
    colours = palette(theme)
    need_columns(table, ("kind", "name", "verdict", "warm_up_bars"), "table")
    failed = table["verdict"].isin(["looks ahead", "impossible fill"])
    shown = table[failed | ((table["verdict"] == "clean") & (table["kind"] != "fill"))]
    if not len(shown):
        return nothing(theme, title, "nothing was seen")
    bars = floats(
        shown["warm_up_bars"].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan), "table.warm_up_bars"
    )
    rows = pd.DataFrame(
        {
            "label": [f"{kind} {name}" for kind, name in zip(shown["kind"], shown["name"], strict=True)],
            "kind": shown["kind"].to_numpy(),
            "bars": np.where(np.isnan(bars), np.inf, bars),
            "failed": failed[shown.index].to_numpy(),
        }
    )
    if len(rows) > _LINES:
        rows = _grouped(rows)
    rows = rows.sort_values(["failed", "bars", "label"], ascending=[True, True, False], kind="stable")
    figure = go.Figure()
    for name, chosen, colour, pattern in (
        ("clean, settled", ~rows["failed"] & np.isfinite(rows["bars"]), colours.up, ""),
        (f"clean, not settled within {watched:,} bars", ~rows["failed"] & np.isinf(rows["bars"]), colours.neutral, "."),
        ("looks ahead, or cannot have been filled", rows["failed"], colours.down, "/"),
    ):
        part = rows[chosen]
        if not len(part):
            continue
        figure.add_trace(
            go.Bar(
                y=[safe(label) for label in part["label"]],
                x=np.minimum(part["bars"], watched),
                orientation="h",
                name=name,
                marker={
                    "color": colour,
                    "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": colours.paper, "size": 6},
                },
                text=["" if np.isinf(b) else f"{b:,.0f}" for b in part["bars"]],
                textposition="outside",
                cliponaxis=False,
                hovertemplate="%{y}: %{text} bars<extra></extra>",
            )
        )
    if signals_begin is not None:
        figure.add_vline(x=signals_begin, line={"color": colours.ink, "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=np.log10(max(signals_begin, 1)),
            y=1.0,
            yref="paper",
            yanchor="bottom",
            showarrow=False,
            text=f"signals begin: {signals_begin:,}",
            font={"color": colours.soft},
        )
    figure.update_yaxes(categoryorder="array", categoryarray=[safe(label) for label in rows["label"]], dtick=1)
    figure.update_yaxes(tickfont={"size": 10})
    figure.update_xaxes(title_text="Bars from the first candle (logarithmic)", type="log")
    figure.update_xaxes(range=[-0.05, np.log10(max(watched, 10)) + 0.25])
    height = 190 + _ROW * len(rows)
    figure = finish(figure, theme, title, height)
    return figure.update_layout(
        margin={"t": 84, "b": 96, "l": 220}, barmode="overlay", title={"y": 1 - 14 / height, "yref": "container"}
    )


def _grouped(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for the items of a kind with the same warm-up and verdict."""
    found = []
    for (kind, bars, failed), group in rows.groupby(["kind", "bars", "failed"], sort=False):
        label = str(group["label"].iloc[0])
        if len(group) > 1:
            label += f" and {len(group) - 1} more"
        found.append({"label": label, "kind": kind, "bars": bars, "failed": failed})
    return pd.DataFrame(found)
