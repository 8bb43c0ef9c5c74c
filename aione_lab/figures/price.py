"""The price chart: candles with what the stages saw in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from aione_lab.errors import InputError
from aione_lab.figures.decimate import band_in_time, bucket_size, bucket_starts, line_in_time
from aione_lab.figures.price_trades import MARKS, draw_trades
from aione_lab.figures.theme import (
    Palette,
    Theme,
    candle_times,
    finish,
    floats,
    listed,
    need_columns,
    nothing,
    on_candles,
    one_number,
    palette,
    price_text,
    safe,
    utc_times,
)

CANDLESTICK_BARS = 3_000
"""Up to here every bar is a candlestick; beyond, a line of closes over the band between low and high."""

LINE_POINTS = 4_000


def price_chart(
    candles: pd.DataFrame,
    signals: pd.DataFrame | None = None,
    trades: pd.DataFrame | None = None,
    levels: Mapping[str, float] | None = None,
    *,
    fills: pd.DataFrame | None = None,
    rsi: pd.Series | None = None,
    rsi_levels: Sequence[float] = (),
    equity: pd.Series | None = None,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Price and volume, with alerts, trades and levels; RSI and equity below where given.

    Parameters
    ----------
    candles : UTC DatetimeIndex, ascending, each time once; columns ``open high low close volume``
    signals : one row a bar, columns ``signal``, ``trigger_reasons``, ``confidence``, ``recommendation``; rows that
        are ALERT are marked, a recommendation BUY or SELL more strongly. Rows outside the candles are not drawn.
    trades : columns ``entry_time exit_time side entry_price exit_price exit_reason pnl``; those that were open at any
        time of the candles are drawn. ``stop``, ``target`` and ``r_multiple`` are shown where present; where
        ``last_stop`` is another, the line of the stop is named the first one, and that of the target where there are
        several ``exits``.
    fills : like ``Result.fills``, columns ``trade time price reason``, ``trade`` being a label of the index of
        ``trades``: a trade that was closed in parts is then marked at each of them. Without them its exit is one mark
        at ``exit_price``, which the hover calls the mean of its ``exits``.
    levels : name → price; names that start with ``stop`` or ``sl`` and with ``target`` or ``tp`` get their own colours.
        NaN levels are left out.
    rsi, equity : one value a candle, on its index; NaN while warming up
    rsi_levels : where RSI counts as oversold and as overbought; nothing is drawn where that is not said
    title, theme : heading; ``light`` or ``dark``

    Raises InputError where a column is missing, times are not UTC or a series is not on the candles' index. Half a
    million bars make a figure of some thousand points, on which every high and low of the whole is present. Missing
    bars are gaps in the lines.
    """
    colours = palette(theme)
    need_columns(candles, ("open", "high", "low", "close", "volume"), "candles")
    for frame, argument in ((signals, "signals"), (trades, "trades"), (fills, "fills")):
        if frame is not None:
            need_columns(frame, (), argument)
    if not len(candles):
        return nothing(theme, title, "no candles")
    times = candle_times(candles)
    below = (
        {"Volume": 0.22} | ({"RSI": 0.22} if rsi is not None else {}) | ({"Equity": 0.26} if equity is not None else {})
    )
    rows = 1 + len(below)
    figure = make_subplots(
        rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.03, row_heights=[0.8, *below.values()]
    )
    _draw_price(figure, candles, times, colours)
    _draw_volume(figure, candles, times, colours)
    if rsi is not None:
        _draw_rsi(figure, times, on_candles(rsi, times, "rsi"), list(below).index("RSI") + 2, colours)
        limits = floats(rsi_levels, "rsi_levels")
        for level in limits:
            figure.add_hline(y=level, line={"color": colours.neutral, "width": 1, "dash": "dot"}, row=3, col=1)
        figure.update_yaxes(range=[0, 100], tickvals=[0, 50, 100, *limits], row=3, col=1)
    if equity is not None:
        _draw_line(figure, times, on_candles(equity, times, "equity"), "Equity", rows, colours.up)
    low, high = float(candles["low"].min()), float(candles["high"].max())
    if trades is not None and len(trades):
        draw_trades(figure, trades, fills, times, colours)
    if signals is not None and len(signals):
        _draw_signals(figure, candles, times, signals, (high - low) * 0.025, colours)
    if levels is not None:
        _draw_levels(figure, levels, colours)
    figure.update_yaxes(title_text="Price", row=1, col=1)
    figure.update_xaxes(title_text="Time (UTC)", row=rows, col=1)
    half_bar = np.diff(times).min() // 2 if len(times) > 1 else np.timedelta64(30, "s")
    figure.update_xaxes(rangeslider_visible=False, range=[times[0] - half_bar, times[-1] + half_bar])
    figure.update_layout(hovermode="x unified" if len(candles) <= CANDLESTICK_BARS else "closest")
    return finish(figure, theme, title, 360 + 120 * rows)


def _draw_price(figure: go.Figure, candles: pd.DataFrame, times: np.ndarray, colours: Palette) -> None:
    columns = {name: floats(candles[name], f"candles.{name}") for name in ("open", "high", "low", "close")}
    if len(candles) <= CANDLESTICK_BARS:
        figure.add_trace(
            go.Candlestick(
                x=times,
                **columns,
                name="price",
                increasing={"line": {"color": colours.up, "width": 1}, "fillcolor": colours.paper},
                decreasing={"line": {"color": colours.down, "width": 1}, "fillcolor": colours.down},
                hovertemplate="open %{open}  high %{high}<br>low %{low}  close %{close}<extra></extra>",
                showlegend=False,
            ),
            row=1,
            col=1,
        )
        return
    size = _bars_a_bucket(len(candles))
    starts, low, high, _ = band_in_time(times, columns["low"], columns["high"], size)
    _fill_between(figure, starts, low, high, 1, colours, f"low to high of {size} bars each")
    x, y = line_in_time(times, columns["close"], LINE_POINTS)
    figure.add_trace(
        go.Scatter(
            x=x,
            y=y,
            name="close",
            mode="lines",
            line={"color": colours.price, "width": 1},
            hovertemplate="%{x|%Y-%m-%d %H:%M}<br>close %{y}<extra></extra>",
        ),
        row=1,
        col=1,
    )


def _fill_between(
    figure: go.Figure, x: np.ndarray, low: np.ndarray, high: np.ndarray, row: int, colours: Palette, name: str | None
) -> None:
    """A band without edges; without a name it has no entry in the legend."""
    edge = {"mode": "lines", "line": {"width": 0, "shape": "hv"}, "hoverinfo": "skip", "legendgroup": "band"}
    fill = {"fill": "tonexty", "fillcolor": colours.band, "showlegend": name is not None}
    figure.add_trace(go.Scatter(x=x, y=low, name=name and "low", showlegend=False, **edge), row=row, col=1)
    figure.add_trace(go.Scatter(x=x, y=high, name=name, **fill, **edge), row=row, col=1)


def _draw_volume(figure: go.Figure, candles: pd.DataFrame, times: np.ndarray, colours: Palette) -> None:
    volume = floats(candles["volume"], "candles.volume")
    rising = candles["close"].to_numpy(dtype=np.float64) >= candles["open"].to_numpy(dtype=np.float64)
    size = _bars_a_bucket(len(candles))
    starts = bucket_starts(times, size)
    if size > 1:
        volume = np.add.reduceat(np.nan_to_num(volume), starts)
        colour: str | np.ndarray = colours.neutral
        axis = f"Volume<br>of {size} bars"
    else:
        colour = np.where(rising, colours.up, colours.down)
        axis = "Volume"
    figure.add_trace(
        go.Bar(
            x=times[starts],
            y=volume,
            name="volume",
            marker={"color": colour, "line": {"width": 0}, "opacity": 0.75},
            hovertemplate="volume %{y:,.4~s}<extra></extra>",
            showlegend=False,
        ),
        row=2,
        col=1,
    )
    figure.update_yaxes(title_text=axis, row=2, col=1)


def _bars_a_bucket(bars: int) -> int:
    """Bars that are drawn as one, the same in every row of the chart."""
    return 1 if bars <= CANDLESTICK_BARS else bucket_size(bars, LINE_POINTS // 4)


def _draw_rsi(figure: go.Figure, times: np.ndarray, rsi: np.ndarray, row: int, colours: Palette) -> None:
    """A line, or where that would only be a black bar the band between its lowest and its highest."""
    size = _bars_a_bucket(len(times))
    if size == 1:
        _draw_line(figure, times, rsi, "RSI", row, colours.soft)
        return
    starts, low, high, hole = band_in_time(times, rsi, rsi, size)
    _fill_between(figure, starts, low, high, row, colours, None)
    edge = {"mode": "lines", "line": {"width": 1, "shape": "hv", "color": colours.soft}, "showlegend": False}
    shown = "<br>%{x|%Y-%m-%d %H:%M}: %{y:.1f}<extra></extra>"
    for name, values in (("lowest", low), ("highest", high)):
        figure.add_trace(
            go.Scatter(
                x=starts,
                y=np.where(hole, np.nan, values),
                name=f"RSI {name}",
                hovertemplate=f"{name} RSI of {size} bars{shown}",
                **edge,
            ),
            row=row,
            col=1,
        )
    figure.update_yaxes(title_text=f"RSI, range<br>of {size} bars", row=row, col=1)


def _draw_line(figure: go.Figure, times: np.ndarray, values: np.ndarray, name: str, row: int, colour: str) -> None:
    x, y = line_in_time(times, values, LINE_POINTS // 2)
    figure.add_trace(
        go.Scatter(
            x=x,
            y=y,
            name=name,
            mode="lines",
            line={"color": colour, "width": 1},
            hovertemplate=f"{name} %{{y:,.1f}}<extra></extra>",
            showlegend=False,
        ),
        row=row,
        col=1,
    )
    figure.update_yaxes(title_text=name, row=row, col=1)


def _draw_signals(
    figure: go.Figure, candles: pd.DataFrame, times: np.ndarray, signals: pd.DataFrame, offset: float, colours: Palette
) -> None:
    need_columns(signals, ("signal",), "signals")
    if "confidence" in signals:
        floats(signals["confidence"], "signals.confidence")
    given = utc_times(signals.index, "signals")
    marked = (signals["signal"].astype(str) == "ALERT").to_numpy() & np.isin(given, times)
    alerts, when = signals[marked], given[marked]
    if alerts.empty:
        return
    bar = np.searchsorted(times, when)
    low, high = (floats(candles[name], f"candles.{name}")[bar] for name in ("low", "high"))
    advice = alerts["recommendation"].astype(str) if "recommendation" in alerts else pd.Series("", index=alerts.index)
    buy, sell = ((advice == name).to_numpy() for name in ("BUY", "SELL"))
    kinds = [
        ("BUY", buy, low - offset, "triangle-up", colours.third, 11),
        ("SELL", sell, high + offset, "triangle-down", colours.accent, 11),
        ("ALERT", ~buy & ~sell, high + offset, "diamond-open", colours.second, 8),
    ]
    shrink = 1.0 if len(candles) <= CANDLESTICK_BARS else 0.7
    for name, chosen, price, symbol, colour, size in kinds:
        n = int(chosen.sum())
        if not n:
            continue
        crowded = name == "ALERT" and n > MARKS
        figure.add_trace(
            go.Scatter(
                x=[None] if crowded else when[chosen],
                y=[None] if crowded else price[chosen],
                name=f"{name} ({n:,}: too many to draw)" if crowded else f"{name} ({n:,})",
                mode="markers",
                marker={"symbol": symbol, "size": size * shrink, "color": colour, "line": {"width": 1.5}},
                text=[] if crowded else [signal_text(row) for row in alerts[chosen].to_dict("records")],
                hovertemplate=f"<b>{name}</b> %{{x|%Y-%m-%d %H:%M}}<br>%{{text}}<extra></extra>",
            ),
            row=1,
            col=1,
        )


def signal_text(row: Mapping[Any, Any]) -> str:
    """What a marked bar says when it is pointed at: reasons, confidence, recommendation, where there are any."""
    parts = []
    if "trigger_reasons" in row:
        parts.append(listed(row["trigger_reasons"]))
    if "confidence" in row:
        parts.append(f"confidence {row['confidence']:.2f}")
    if row.get("recommendation"):
        parts.append(safe(row["recommendation"]))
    return "<br>".join(parts)


def _draw_levels(figure: go.Figure, levels: Any, colours: Palette) -> None:
    if not isinstance(levels, Mapping):
        raise InputError.of("levels", levels, "must be a mapping, name to price")
    for name, price in levels.items():
        if not isinstance(name, str):
            raise InputError.of("levels", name, "must be a mapping, name to price")
        price = one_number(price, f"levels.{name}")
        if not np.isfinite(price):
            continue
        word = name.lower()
        if word.startswith(("stop", "sl")):
            colour, text, dash = colours.down, colours.down, "dash"
        elif word.startswith(("target", "tp")):
            colour, text, dash = colours.third, colours.third, "dash"
        else:
            colour, text, dash = colours.neutral, colours.soft, "dot"
        figure.add_hline(
            y=price,
            line={"color": colour, "width": 1.2, "dash": dash},
            annotation={"text": f"{safe(name)} {price_text(price)}", "font": {"size": 11, "color": text}},
            annotation_position="top right",
            row=1,
            col=1,
        )
