"""The trades of a price chart: entries, every exit, and the prices between which they ran."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from aione_lab.errors import InputError
from aione_lab.figures.theme import Palette, floats, need_columns, price_text, safe, utc_times

MARKS = 600
"""More alerts or trades than this hide the price: they are then counted in the legend instead of drawn.

Alerts that say BUY or SELL are always drawn.
"""
TRADES_WITH_LEVELS = 60


def draw_trades(
    figure: go.Figure, trades: pd.DataFrame, fills: pd.DataFrame | None, times: np.ndarray, colours: Palette
) -> None:
    """Put the ``trades`` that were open at any of ``times``, those of the candles, into the first row of ``figure``.

    What ``trades`` and ``fills`` hold stands with ``price_chart``.
    """
    need_columns(trades, ("entry_time", "exit_time", "entry_price", "exit_price", "exit_reason", "pnl"), "trades")
    entry, leave = (utc_times(trades[name], "trades") for name in ("entry_time", "exit_time"))
    # Others would stretch the price axis to where no candle is. Without an exit time a trade is still open.
    inside = ~(leave < times[0]) & ~(entry > times[-1])
    trades, entry, leave = trades[inside], entry[inside], leave[inside]
    if trades.empty:
        return
    if len(trades) > MARKS:
        name = f"trades ({len(trades):,}: too many to draw)"
        figure.add_trace(go.Scatter(x=[None], y=[None], name=name, mode="markers", marker={"color": colours.ink}))
        return
    blank_time, blank = np.full(len(trades), np.datetime64("NaT", "ms")), np.full(len(trades), np.nan)
    joined = {"mode": "lines", "hoverinfo": "skip", "connectgaps": False}

    def strokes(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
        """One broken line: a stroke a trade from (entry, first) to (exit, second)."""
        return {
            "x": np.column_stack([entry, leave, blank_time]).ravel(),
            "y": np.column_stack([first, second, blank]).ravel(),
        }

    if len(trades) <= TRADES_WITH_LEVELS:
        # When a stop was moved is not known: the line says which of them it is, and the hover where it ended.
        moved = _stop_moved(trades).any()
        parts = "exits" in trades and (floats(trades["exits"], "trades.exits") > 1).any()
        for column, name, colour in (
            ("stop", "first stop" if moved else "stop", colours.down),
            ("target", "first target" if parts else "target", colours.third),
        ):
            if column in trades:
                price = floats(trades[column], f"trades.{column}")
                line = {"color": colour, "width": 1.5, "dash": "dash"}
                figure.add_trace(go.Scatter(**strokes(price, price), **joined, name=name, line=line), row=1, col=1)
    price_in, price_out = (floats(trades[name], f"trades.{name}") for name in ("entry_price", "exit_price"))
    notes = _exit_notes(trades, price_out)
    if fills is not None:
        price_out = _draw_parts(figure, trades, fills, leave, price_out, colours)
    line = {"color": colours.soft, "width": 1, "dash": "dot"}
    figure.add_trace(
        go.Scatter(**strokes(price_in, price_out), **joined, name="trade", showlegend=False, line=line), row=1, col=1
    )
    side = trades["side"].astype(str) if "side" in trades else pd.Series("long", index=trades.index)
    pnl = floats(trades["pnl"], "trades.pnl")
    results = floats(trades["r_multiple"], "trades.r_multiple") if "r_multiple" in trades else np.full(len(pnl), np.nan)
    reasons = trades["exit_reason"].astype(str).to_numpy()
    for name, chosen, symbol, colour in (
        ("exit with a gain", pnl > 0, "circle", colours.up),
        ("exit with a loss", pnl < 0, "x", colours.down),
        ("exit with no gain or loss", pnl == 0, "square", colours.soft),
        ("exit, P&amp;L not known", np.isnan(pnl), "square-open", colours.soft),
    ):
        if chosen.any():
            figure.add_trace(
                go.Scatter(
                    x=leave[chosen],
                    y=price_out[chosen],
                    name=name,
                    mode="markers",
                    marker={"symbol": symbol, "size": 8, "color": colour},
                    text=[
                        safe(reason)
                        + (f"<br>P&amp;L {gain:+,.2f}" if np.isfinite(gain) else "")
                        + (f"  ({r:+.2f} R)" if np.isfinite(r) else "")
                        + note
                        for reason, gain, r, note in zip(
                            reasons[chosen], pnl[chosen], results[chosen], notes[chosen], strict=True
                        )
                    ],
                    hovertemplate="<b>exit</b> %{x|%Y-%m-%d %H:%M} at %{y}<br>%{text}<extra></extra>",
                ),
                row=1,
                col=1,
            )
    # Last and open: many trades are left within minutes, and entry and exit are then at one place.
    figure.add_trace(
        go.Scatter(
            x=entry,
            y=price_in,
            name="entry",
            mode="markers",
            marker={"symbol": "triangle-right-open", "size": 11, "color": colours.ink, "line": {"width": 1.6}},
            text=[safe(value) for value in side],
            hovertemplate="<b>entry</b> %{x|%Y-%m-%d %H:%M}<br>%{text} at %{y}<extra></extra>",
        ),
        row=1,
        col=1,
    )


def _exit_notes(trades: pd.DataFrame, mean: np.ndarray) -> np.ndarray:
    """What the hover adds to an exit that was not one fill, or whose stop was moved; ``mean``: the exit prices."""
    notes = np.full(len(trades), "", dtype=object)
    if "exits" in trades:
        exits = floats(trades["exits"], "trades.exits")
        for i in np.flatnonzero(exits > 1):
            notes[i] += f"<br>{exits[i]:.0f} exits, {price_text(mean[i])} in the mean"
    for i in np.flatnonzero(_stop_moved(trades)):
        notes[i] += f"<br>stop moved to {price_text(trades['last_stop'].iloc[i])}"
    return notes


def _stop_moved(trades: pd.DataFrame) -> np.ndarray:
    """Of which trades the last stop is another than the first; of none where either is not known."""
    if "stop" not in trades or "last_stop" not in trades:
        return np.zeros(len(trades), dtype=bool)
    first, last = (floats(trades[name], f"trades.{name}") for name in ("stop", "last_stop"))
    return np.isfinite(first) & np.isfinite(last) & (first != last)


def _draw_parts(
    figure: go.Figure,
    trades: pd.DataFrame,
    fills: pd.DataFrame,
    leave: np.ndarray,
    mean: np.ndarray,
    colours: Palette,
) -> np.ndarray:
    """Mark the exits before the last of each trade; the price of the last one, where its mark belongs."""
    need_columns(fills, ("trade", "time", "price", "reason"), "fills")
    exits = fills[(fills["reason"].astype(str) != "entry") & fills["trade"].isin(trades.index)]
    last = ~exits["trade"].duplicated(keep="last").to_numpy()
    when, price = utc_times(exits["time"], "fills.time"), floats(exits["price"], "fills.price")
    row = pd.Index(exits["trade"][last]).get_indexer(trades.index)
    closed = ~np.isnat(leave)
    if (row[closed] < 0).any() or (when[last][row[closed]] != leave[closed]).any():
        raise InputError.of("fills", len(fills), "must be those of trades, by the labels of its index")
    if not last.all():
        figure.add_trace(
            go.Scatter(
                x=when[~last],
                y=price[~last],
                name="partial exit",
                mode="markers",
                marker={"symbol": "circle-open", "size": 7, "color": colours.ink, "line": {"width": 1.4}},
                text=[safe(reason) for reason in exits["reason"][~last]],
                hovertemplate="<b>partial exit</b> %{x|%Y-%m-%d %H:%M} at %{y}<br>%{text}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    return np.where(row < 0, mean, price[last][row]) if last.any() else mean
