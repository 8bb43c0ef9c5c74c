"""Charts of results: the equity curve with its drawdown, and the trades behind it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.errors import InputError
from aione_lab.figures.decimate import line_in_time
from aione_lab.figures.theme import Theme, finish, floats, need_columns, need_series, nothing, palette, safe, utc_times

POINTS = 4_000


def equity_chart(
    equity: pd.Series,
    benchmark: pd.Series | None = None,
    *,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Equity over time with its drawdown below, and a benchmark's beside it where there is one.

    ``equity`` and ``benchmark`` are account values (positive, any currency) on a UTC DatetimeIndex; their names
    label the lines. The drawdown is equity ÷ highest equity so far − 1, of every point, also those not drawn.
    Where bars are missing the lines have a gap.
    """
    colours = palette(theme)
    curves: list[tuple[pd.Series, str, str, str, str | None]] = [
        (equity, "equity", "equity", colours.up, None),
    ]
    need_series(equity, "equity")
    if benchmark is not None:
        need_series(benchmark, "benchmark")
        curves.append((benchmark, "benchmark", "benchmark", colours.second, "dot"))
    if not len(equity):
        return nothing(theme, title, "no equity yet")
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=[0.68, 0.32])
    for series, argument, default, colour, dash in curves:
        values = floats(series, argument)
        if np.isinf(values).any():
            raise InputError.of(argument, "inf", "must be finite")
        times = utc_times(series.index, argument)
        name = safe(series.name) if series.name is not None else default
        fall = values / np.fmax.accumulate(values) - 1
        worst = float(np.nanmin(fall)) if np.isfinite(fall).any() else float("nan")
        x, y = line_in_time(times, values, POINTS)
        line = {"color": colour, "width": 1.6, "dash": dash}
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                name=f"{name} (deepest drawdown {worst:.1%})",
                line=line,
                mode="lines",
                hovertemplate=f"{name} %{{y:,.2f}}<extra></extra>",
            ),
            row=1,
            col=1,
        )
        x, y = line_in_time(times, fall, POINTS)
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                name=f"{name}: drawdown",
                mode="lines",
                line={**line, "width": 1.2},
                # Plotly fills through a gap, as if the drawdown in it were known: then no fill at all.
                fill="tozeroy" if argument == "equity" and not np.isnan(y).any() else None,
                fillcolor=colours.band,
                showlegend=False,
                hovertemplate=f"{name} %{{y:.2%}}<extra></extra>",
            ),
            row=2,
            col=1,
        )
    figure.update_yaxes(title_text="Equity", row=1, col=1)
    figure.update_yaxes(title_text="Drawdown", tickformat=".1~%", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="Time (UTC)", row=2, col=1)
    figure.update_layout(hovermode="x unified")
    return finish(figure, theme, title, 520)


def trades_chart(trades: pd.DataFrame, *, title: str | None = None, theme: Theme = "light") -> go.Figure:
    """Three views of closed trades: by exit reason, the spread of their results, and their excursions.

    ``trades`` needs ``exit_time`` (UTC), ``exit_reason``, ``pnl`` (account currency, after costs), ``r_multiple``,
    ``mae`` (≤ 0) and ``mfe`` (≥ 0), both as shares of the entry price. A ``pnl`` of 0 or NaN is drawn as neither gain
    nor loss. Without trades the figure says so.
    """
    colours = palette(theme)
    need_columns(trades, ("exit_time", "exit_reason", "pnl", "r_multiple", "mae", "mfe"), "trades")
    if not len(trades):
        return nothing(theme, title, "no trades")
    trades = trades.iloc[np.argsort(utc_times(trades["exit_time"], "trades.exit_time"), kind="stable")]
    pnl, results, mae, mfe = (floats(trades[name], f"trades.{name}") for name in ("pnl", "r_multiple", "mae", "mfe"))
    won, lost = pnl > 0, pnl < 0
    neither = ~won & ~lost
    figure = make_subplots(
        rows=2,
        cols=2,
        horizontal_spacing=0.1,
        vertical_spacing=0.17,
        specs=[[{}, {}], [{"colspan": 2}, None]],
        subplot_titles=("Trades by exit reason", "Results in R", "Excursions"),
    )
    reasons = trades["exit_reason"].astype(str)
    order = reasons.value_counts().index.tolist()
    edges = _result_edges(results)
    for name, chosen, colour, pattern, symbol in (
        ("gain", won, colours.up, "", "circle"),
        ("loss", lost, colours.down, "/", "x"),
        ("neither", neither, colours.soft, ".", "square-open"),
    ):
        if name == "neither" and not neither.any():
            continue
        hatch = {"shape": pattern, "fillmode": "overlay", "fgcolor": colours.paper, "fgopacity": 0.6, "size": 6}
        look = {"color": colour, "pattern": hatch}
        counts = reasons[chosen].value_counts().reindex(order, fill_value=0)
        group = {"name": f"{name} ({int(chosen.sum()):,})", "legendgroup": name}
        figure.add_trace(
            go.Bar(
                y=[safe(reason) for reason in order],
                x=counts.to_numpy(),
                orientation="h",
                marker=look,
                hovertemplate=f"%{{y}}: %{{x}} {name}<extra></extra>",
                **group,
            ),
            row=1,
            col=1,
        )
        inside = np.histogram(np.clip(results[chosen], edges[0], edges[-1]), bins=edges)[0]
        figure.add_trace(
            go.Bar(
                x=(edges[:-1] + edges[1:]) / 2,
                y=inside,
                width=np.diff(edges) * 0.92,
                marker=look,
                showlegend=False,
                hovertemplate=f"about %{{x:.2f}} R: %{{y}} {name}<extra></extra>",
                **group,
            ),
            row=1,
            col=2,
        )
        figure.add_trace(
            go.Scatter(
                x=mae[chosen],
                y=mfe[chosen],
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 6, "opacity": 0.7},
                showlegend=False,
                text=[f"{r:+.2f} R" for r in results[chosen]],
                hovertemplate="worst %{x:.2%}, best %{y:.2%}<br>%{text}<extra></extra>",
                **group,
            ),
            row=2,
            col=1,
        )
    figure.update_xaxes(title_text="Trades", row=1, col=1).update_yaxes(autorange="reversed", row=1, col=1)
    figure.update_xaxes(title_text="R multiple", row=1, col=2).update_yaxes(title_text="Trades", row=1, col=2)
    figure.update_xaxes(title_text="Worst excursion (MAE)", tickformat=".2~%", row=2, col=1)
    figure.update_yaxes(title_text="Best excursion (MFE)", tickformat=".2~%", row=2, col=1)
    figure.update_layout(barmode="stack", margin={"t": 72})
    return finish(figure, theme, title, 680)


def _result_edges(results: np.ndarray) -> np.ndarray:
    """Edges of about 30 equal bins with one of them at zero; the outermost 1 % is gathered in the end bins."""
    finite = results[np.isfinite(results)]
    if not len(finite):
        return np.array([-1.0, 0.0, 1.0])
    low, high = np.percentile(finite, [1, 99])
    low, high = min(low, -0.1), max(high, 0.1)
    width = (high - low) / 30
    return np.arange(np.floor(low / width), np.ceil(high / width) + 1) * width
