"""The chart of a portfolio: one equity curve, what was at stake, and where the result came from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.figures.decimate import decimate
from aione_lab.figures.theme import (
    Palette,
    Theme,
    finish,
    floats,
    need_columns,
    need_series,
    nothing,
    palette,
    safe,
    utc_times,
)

POINTS = 4_000
SYMBOLS = 40
"""More symbols than this are not drawn one by one: the best and the worst are."""


def portfolio_chart(
    equity: pd.Series,
    exposure: pd.DataFrame,
    by_symbol: pd.DataFrame,
    *,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Equity and its drawdown, gross exposure with the number of open trades, and net P&L by symbol.

    ``equity``: account value on a UTC index; ``exposure``: columns ``gross`` (share of the equity) and ``open_trades``
    on the same index; ``by_symbol``: ``pnl`` and ``trades``, one row a symbol.
    """
    colours = palette(theme)
    need_series(equity, "equity")
    need_columns(exposure, ("gross", "open_trades"), "exposure")
    need_columns(by_symbol, ("pnl", "trades"), "by_symbol")
    if not len(equity):
        return nothing(theme, title, "no equity yet")
    figure = make_subplots(
        rows=3,
        cols=2,
        column_widths=[0.7, 0.3],
        row_heights=[0.5, 0.22, 0.28],
        specs=[[{}, {"rowspan": 3}], [{}, None], [{"secondary_y": True}, None]],
        shared_xaxes=True,
        vertical_spacing=0.05,
        horizontal_spacing=0.13,
    )
    times = utc_times(equity.index, "equity")
    values = floats(equity, "equity")
    fall = values / np.fmax.accumulate(values) - 1
    for row, series, name, colour, fill in (
        (1, values, "equity", colours.up, None),
        (2, fall, "drawdown", colours.down, "tozeroy"),
    ):
        x, y = decimate(times, series, POINTS)
        shown = "%{y:,.2f}" if row == 1 else "%{y:.2%}"
        line = {"color": colour, "width": 1.4}
        trace = go.Scatter(x=x, y=y, name=name, mode="lines", line=line, fill=fill, hovertemplate=f"{name} {shown}")
        figure.add_trace(trace.update(showlegend=False, fillcolor=colours.band), row=row, col=1)
    x, y = decimate(times, floats(exposure["gross"], "exposure.gross"), POINTS)
    line = {"color": colours.second, "width": 1, "shape": "hv"}
    figure.add_trace(
        go.Scatter(
            x=x, y=y, name="gross exposure", line=line, mode="lines", fill="tozeroy", hovertemplate="exposure %{y:.0%}"
        ),
        row=3,
        col=1,
    )
    x, y = decimate(times, floats(exposure["open_trades"], "exposure.open_trades"), POINTS)
    line = {"color": colours.neutral, "width": 1, "shape": "hv"}
    figure.add_trace(
        go.Scatter(x=x, y=y, name="open trades", line=line, mode="lines", hovertemplate="%{y:.0f} open"),
        row=3,
        col=1,
        secondary_y=True,
    )
    _bars(figure, by_symbol, colours)
    figure.update_yaxes(title_text="Equity", row=1, col=1)
    figure.update_yaxes(title_text="Drawdown", tickformat=".1~%", rangemode="tozero", row=2, col=1)
    figure.update_yaxes(title_text="Exposure", tickformat=".0%", rangemode="tozero", row=3, col=1, secondary_y=False)
    # Equal shares would put both lines one over the other: the number of trades keeps below.
    most = 1.4 * max(1.0, float(np.nanmax(floats(exposure["open_trades"], "exposure.open_trades"), initial=0.0)))
    step = max(1, round(most / 5))
    figure.update_yaxes(title_text="Open", range=[0, most], showgrid=False, dtick=step, row=3, col=1, secondary_y=True)
    figure.update_xaxes(title_text="Time (UTC)", row=3, col=1)
    figure.update_xaxes(title_text="Net P&L by symbol", row=1, col=2)
    return finish(figure, theme, title, 560)


def _bars(figure: go.Figure, by_symbol: pd.DataFrame, colours: Palette) -> None:
    table = by_symbol.sort_values("pnl")
    if len(table) > SYMBOLS:
        table = pd.concat([table.iloc[: SYMBOLS // 2], table.iloc[-SYMBOLS // 2 :]])
    pnl = floats(table["pnl"], "by_symbol.pnl")
    figure.add_trace(
        go.Bar(
            x=pnl,
            y=[safe(symbol) for symbol in table.index],
            orientation="h",
            marker={"color": np.where(pnl > 0, colours.up, colours.down)},
            text=[f"{count:,}" for count in table["trades"]],
            textposition="none",
            hovertemplate="%{y}: %{x:+,.2f} net in %{text} trades<extra></extra>",
            showlegend=False,
        ),
        row=1,
        col=2,
    )
