"""The chart beside the live table: the last bars of one symbol, with what the session saw in them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from aione_lab.errors import InputError
from aione_lab.figures.price import signal_text
from aione_lab.figures.theme import (
    Palette,
    Theme,
    floats,
    need_columns,
    one_number,
    palette,
    price_text,
    safe,
    utc_times,
)

COLUMNS = ("open", "high", "low", "close", "volume")
HEIGHT = 470
HEIGHTS = {"Price": 0.57, "Volume": 0.13, "RSI": 0.15, "Confidence": 0.15}  # of the rows, from the top
GAP = 0.025
LABEL = 13.0  # pixels that a level's label needs
CLEAR = "rgba(0,0,0,0)"
MARGIN = {"l": 8, "r": 118, "t": 34, "b": 24}
ACROSS = {"xref": "paper", "x0": 0, "x1": 1, "yref": "y", "layer": "below"}
FAINT = 0.3
STOPS, TARGETS = ("sl", "stop"), ("tp", "target")
OF_ALERTS = (*STOPS, *TARGETS, "next")
NEAR = 0.6
"""A level further from the candles than this share of their range is left out of the picture, and of its scale."""


def live_chart(
    candles: pd.DataFrame,
    rows: pd.DataFrame | None = None,
    levels: Mapping[str, float | None] | None = None,
    entry: Sequence[float | None] | None = None,
    *,
    since: pd.Timestamp | None = None,
    title: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """Candles with levels and marks; volume, RSI and confidence below. The same traces whatever is in them.

    Parameters
    ----------
    candles : UTC DatetimeIndex, columns ``open high low close volume``; may be empty, NaN: not known
    rows : on the candles' times, each column optional: ``rsi``, ``confidence``, ``signal`` (ALERT rows are marked),
        ``recommendation`` (BUY and SELL more strongly), ``trigger_reasons``; NaN: not known
    levels : name → price (None or NaN: not known); names that start with ``SL`` or ``stop`` and with ``TP`` or
        ``target`` get their own colours
    entry : lower and upper price of the entry zone
    since : time of the alert that gave the entry zone, the levels of its stop and targets and those whose names start
        with ``next``: before it they are faint, and their names say when it was

    The background is transparent: the page's own shows through. Raises InputError where a column is missing, times
    are not UTC or a price is no number.
    """
    colours = palette(theme)
    need_columns(candles, COLUMNS, "candles")
    candles = candles[list(COLUMNS)].assign(**{name: floats(candles[name], f"candles.{name}") for name in COLUMNS})
    times = utc_times(candles.index, "candles") if len(candles) else np.empty(0, "datetime64[ms]")
    rows = _on_candles(rows, candles)
    known = _known(levels)
    zone = _zone(entry)
    prices = _scale(candles, [*known.values(), *zone])
    shapes, labels = _levels(prices, known, zone, _reach(since, candles), colours)
    # One dictionary, one check of it: put together piece by piece the figure takes Plotly ten times as long.
    layout: dict[str, Any] = {
        "template": "aione" if theme == "light" else "aione_dark",
        "title": {"text": safe(title) if title else "", "font": {"size": 14}},
        "height": HEIGHT,
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "margin": MARGIN,
        "showlegend": False,
        "hovermode": "x unified",
        "dragmode": "pan",
        "xaxis": {"anchor": "y4", "rangeslider": {"visible": False}, "tickfont": {"size": 10}, "range": _span(times)},
        "yaxis": {"range": prices},
        "yaxis2": {"nticks": 3, "rangemode": "tozero"},
        "yaxis3": {"range": [0, 100], "tickvals": [0, 50, 100]},
        "yaxis4": {"range": [0, 1.05], "tickvals": [0, 0.5, 1]},
        "shapes": shapes,
        "annotations": labels,
    }
    top = 1.0
    for number, (name, height) in enumerate(HEIGHTS.items(), 1):
        axis = layout[f"yaxis{number}" if number > 1 else "yaxis"]
        axis |= {"domain": [max(0.0, top - height + GAP), top], "anchor": "x", "tickfont": {"size": 10}}
        labels.append({**_label(0.002, top, name, colours.soft), "xref": "paper", "yref": "paper", "yanchor": "top"})
        top -= height
    data = [*_candles(candles, times, colours), *_curves(rows, times, colours), *_marks(candles, rows, times, colours)]
    return go.Figure(data=data, layout=layout)


def _known(levels: Any) -> dict[str, float]:
    if levels is None:
        return {}
    if not isinstance(levels, Mapping) or not all(isinstance(name, str) for name in levels):
        raise InputError.of("levels", levels, "must be a mapping, name to price")
    prices = {
        name: math.nan if price is None else one_number(price, f"levels.{name}") for name, price in levels.items()
    }
    return {name: price for name, price in prices.items() if math.isfinite(price)}


def _zone(entry: Any) -> list[float]:
    """Lower and upper price, or none."""
    if entry is None:
        return []
    if not isinstance(entry, list | tuple) or len(entry) != 2:
        raise InputError.of("entry", entry, "must be the lower and the upper price of the zone")
    zone = [math.nan if price is None else one_number(price, "entry") for price in entry]
    return zone if all(map(math.isfinite, zone)) else []


def _span(times: np.ndarray) -> list[str] | None:
    if len(times) < 2:
        return None
    half = np.diff(times).min() // 2
    return [str(times[0] - half), str(times[-1] + half)]


def _label(x: float, y: float, text: str, colour: str) -> dict[str, Any]:
    return {"x": x, "y": y, "xanchor": "left", "text": text, "showarrow": False, "font": {"size": 10, "color": colour}}


def _on_candles(rows: pd.DataFrame | None, candles: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with every column, on the candles' times."""
    if rows is None:
        rows = pd.DataFrame(index=candles.index)
    need_columns(rows, (), "rows")
    if rows.index.has_duplicates:
        raise InputError.of("rows", len(rows), "must have one row a time")
    found = rows.reindex(candles.index)
    for name in ("rsi", "confidence"):
        found[name] = floats(found[name], f"rows.{name}") if name in found else math.nan
    for name in ("signal", "recommendation"):
        found[name] = found[name].astype(object) if name in found else ""
    return found


def _candles(candles: pd.DataFrame, times: np.ndarray, colours: Palette) -> list[dict[str, Any]]:
    columns = {name: candles[name].to_numpy() for name in COLUMNS}
    volume = columns.pop("volume")
    rising = columns["close"] >= columns["open"]
    return [
        {
            "type": "candlestick",
            "x": times,
            **columns,
            "name": "price",
            "increasing": {"line": {"color": colours.up, "width": 1}, "fillcolor": CLEAR},
            "decreasing": {"line": {"color": colours.down, "width": 1}, "fillcolor": colours.down},
            "hovertemplate": "open %{open}  high %{high}<br>low %{low}  close %{close}<extra></extra>",
        },
        {
            "type": "bar",
            "yaxis": "y2",
            "x": times,
            "y": volume,
            "marker": {"color": np.where(rising, colours.up, colours.down), "line": {"width": 0}, "opacity": 0.75},
            "hovertemplate": "volume %{y:,.4~s}<extra></extra>",
        },
    ]


def _curves(rows: pd.DataFrame, times: np.ndarray, colours: Palette) -> list[dict[str, Any]]:
    return [
        {
            "type": "scatter",
            "yaxis": "y3",
            "x": times,
            "y": rows["rsi"].to_numpy(),
            "mode": "lines",
            "line": {"color": colours.soft, "width": 1},
            "hovertemplate": "RSI %{y:.1f}<extra></extra>",
        },
        {
            "type": "bar",
            "yaxis": "y4",
            "x": times,
            "y": rows["confidence"].to_numpy(),
            "marker": {"color": colours.second, "line": {"width": 0}},
            "hovertemplate": "confidence %{y:.2f}<extra></extra>",
        },
    ]


def _marks(candles: pd.DataFrame, rows: pd.DataFrame, times: np.ndarray, colours: Palette) -> list[dict[str, Any]]:
    """One trace a kind of alert, empty where there is none, so that their number stays the same."""
    alert = (rows["signal"] == "ALERT").to_numpy()
    advice = rows["recommendation"].to_numpy()
    strong = (advice == "BUY") | (advice == "SELL")
    high, low = (candles[name].to_numpy() for name in ("high", "low"))
    # A bar that is not known has no mark, and takes none from the others.
    offset = 0.03 * float(candles["high"].max() - candles["low"].min())
    made = []
    for name, chosen, symbol, colour, size in (
        ("ALERT", alert & ~strong, "diamond-open", colours.second, 8),
        ("BUY", alert & (advice == "BUY"), "triangle-up", colours.third, 12),
        ("SELL", alert & (advice == "SELL"), "triangle-down", colours.accent, 12),
    ):
        made.append(
            {
                "type": "scatter",
                "x": times[chosen],
                "y": low[chosen] - offset if name == "BUY" else high[chosen] + offset,
                "mode": "markers",
                "marker": {"symbol": symbol, "size": size, "color": colour, "line": {"width": 1.5}},
                "text": [signal_text(row) for row in rows.loc[chosen].to_dict("records")],
                "hovertemplate": f"<b>{name}</b><br>%{{text}}<extra></extra>",
            }
        )
    return made


def _scale(candles: pd.DataFrame, levels: list[float]) -> list[float] | None:
    """A range of prices that holds the candles and every level near them."""
    if not candles[["low", "high"]].notna().any(axis=None):
        return None
    low, high = float(candles["low"].min()), float(candles["high"].max())
    reach = (high - low) or abs(high) * 0.01
    near = [price for price in levels if low - NEAR * reach <= price <= high + NEAR * reach]
    low, high = min([low, *near]), max([high, *near])
    spare = 0.06 * ((high - low) or reach)
    return [low - spare, high + spare]


def _reach(since: Any, candles: pd.DataFrame) -> tuple[list[dict[str, Any]], str]:
    """The parts that an alert's levels are drawn in, faint before it, and what their names say of its time."""
    if since is None or not len(candles):
        return [ACROSS], ""
    if not isinstance(since, pd.Timestamp) or since.tz is None:
        raise InputError.of("since", since, "must be a Timestamp with a time zone")
    first, last = candles.index[0], candles.index[-1]
    at = since.tz_convert("UTC")
    said = f" {at:%H:%M}" if at.date() == last.date() else f" {at:%d %b}"
    if at <= first or len(candles) == 1:
        return [ACROSS], said
    end = last + (candles.index[1:] - candles.index[:-1]).min()  # so that it is seen of the last bar, too
    ends = [str(time.tz_localize(None)) for time in (first, min(at, last), end)]
    parts = [{**ACROSS, "xref": "x", "x0": x0, "x1": x1} for x0, x1 in itertools.pairwise(ends)]
    return [{**parts[0], "opacity": FAINT}, parts[1]], said


def _levels(
    prices: list[float] | None,
    levels: dict[str, float],
    zone: list[float],
    reach: tuple[list[dict[str, Any]], str],
    colours: Palette,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lines across the price row, and their names beside it, moved apart where they would cover each other."""
    if prices is None:
        return [], []
    shapes: list[dict[str, Any]] = []
    if zone:
        drawn = {"type": "rect", "y0": zone[0], "y1": zone[1], "fillcolor": colours.band, "line": {"width": 0}}
        shapes += [{**part, **drawn} for part in reach[0]]
    labels = []
    pixels = (HEIGHT - MARGIN["t"] - MARGIN["b"]) * (HEIGHTS["Price"] - GAP) / (prices[1] - prices[0])
    last = -math.inf
    for price, name in sorted((price, name) for name, price in levels.items() if prices[0] <= price <= prices[1]):
        colour, dash = _level_style(name, colours)
        parts, time = reach if name.lower().startswith(OF_ALERTS) else ([ACROSS], "")
        line = {"color": colour, "width": 1.2, "dash": dash}
        shapes += [{**part, "type": "line", "y0": price, "y1": price, "line": line} for part in parts]
        at = price * pixels
        last = max(at, last + LABEL)
        label = f"{safe(name)} {price_text(price)}{time}"
        named = _label(1, price, label, colour if dash == "dash" else colours.soft)
        labels.append({**named, "xref": "paper", "yref": "y", "xshift": 3, "yshift": last - at})
    return shapes, labels


def _level_style(name: str, colours: Palette) -> tuple[str, str]:
    word = name.lower()
    if word.startswith(STOPS):
        return colours.down, "dash"
    return (colours.third, "dash") if word.startswith(TARGETS) else (colours.neutral, "dot")
