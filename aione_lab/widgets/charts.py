"""From an asset's state to its figures. Pure; the state may come from outside and hold anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from aione_lab.errors import InputError
from aione_lab.figures.live import CLEAR, live_chart
from aione_lab.figures.signals import contributions_chart
from aione_lab.figures.theme import Theme, nothing
from aione_lab.units import iso, to_ms
from aione_lab.widgets.cells import number
from aione_lab.widgets.sources import Bars

NO_ALERT = "no alert since the session began"


def price_figure(symbol: str, bars: Bars, asset: Mapping[str, Any], theme: Theme) -> go.Figure:
    """Candles of ``symbol`` with the levels of its state."""
    title = f"{symbol}: {bars.problem}" if bars.problem else f"{symbol} · {bars.note}" if bars.note else symbol
    figure = live_chart(
        bars.candles, bars.rows, levels_of(asset), entry_of(asset), since=time_of(asset), title=title, theme=theme
    )
    return figure.update_layout(uirevision=symbol)  # a zoom lasts until another symbol is chosen


def factor_figure(asset: Mapping[str, Any], theme: Theme) -> go.Figure:
    """The last alert's confidence, factor by factor."""
    stage2 = asset.get("stage2")
    metrics = part(stage2, "confidence_metrics")
    try:
        figure = (
            contributions_chart(metrics, to_confidence=True, theme=theme) if metrics else nothing(theme, None, NO_ALERT)
        )
    except InputError as error:  # a state from elsewhere may hold anything
        figure = nothing(theme, None, str(error)[:200])
    figure.update_xaxes(title_text=None, tickfont_size=10, tickangle=-35).update_yaxes(
        title_text=None, tickfont_size=10
    )
    return figure.update_layout(
        height=260, margin={"l": 8, "r": 8, "t": 34, "b": 24}, paper_bgcolor=CLEAR, plot_bgcolor=CLEAR,
        title_font_size=13,
    )  # fmt: skip


def time_of(asset: Mapping[str, Any]) -> pd.Timestamp | None:
    """The last alert's time; None where there is none, or no time."""
    said = asset.get("stage2")
    given = said.get("timestamp") if isinstance(said, Mapping) else None
    try:
        return pd.Timestamp(iso(to_ms(given)))
    except InputError:
        return None


def levels_of(asset: Mapping[str, Any]) -> dict[str, float]:
    """Name → price of every level of a state: SL, TP and next level are the last alert's, the rest is of now."""
    stage2 = asset.get("stage2")
    key, risk, stats = (
        part(part(stage2, "market_context"), "key_levels"),
        part(stage2, "risk_parameters"),
        part(asset, "stats"),
    )
    targets = risk.get("tp_targets")
    found = {
        "support": _known(stats.get("support"), key.get("immediate_support")),
        "resistance": _known(stats.get("resistance"), key.get("immediate_resistance")),
        "next level": number(key.get("next_major_level")),
        "24 h high": number(stats.get("daily_high")),
        "24 h low": number(stats.get("daily_low")),
        "SL": number(risk.get("sl_level")),
        **{f"TP{i}": number(price) for i, price in enumerate(targets if isinstance(targets, (list, tuple)) else (), 1)},
    }
    if found["next level"] == number(key.get("immediate_resistance")):
        del found["next level"]
    return {name: price for name, price in found.items() if price > 0}


def _known(*values: Any) -> float:
    """The first one that is a number; NaN where none is."""
    return next((price for price in map(number, values) if math.isfinite(price)), math.nan)


def entry_of(asset: Mapping[str, Any]) -> tuple[float, float] | None:
    """The entry zone of the last alert."""
    zone = part(asset.get("stage2"), "risk_parameters").get("optimal_entry")
    if not isinstance(zone, (list, tuple)) or len(zone) != 2:
        return None
    low, high = map(number, zone)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def part(whole: Any, name: str) -> Mapping[str, Any]:
    """The mapping under ``name``, an empty one where there is none."""
    found = whole.get(name) if isinstance(whole, Mapping) else None
    return found if isinstance(found, Mapping) else {}
