"""One replay on one page: what `Result.plot` shows."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from aione_lab.backtest.result import Result
from aione_lab.engine.params import check_kind
from aione_lab.errors import InputError
from aione_lab.figures.price import price_chart
from aione_lab.figures.theme import Theme
from aione_lab.units import to_ms


def result_chart(
    result: Result, start: Any = None, end: Any = None, *, equity: bool = True, theme: Theme = "light"
) -> go.Figure:
    """Price with alerts and trades, volume, RSI and equity of ``result`` from ``start`` to ``end`` (exclusive).

    Both may be UTC milliseconds, an ISO text or a datetime with a zone; left out, the replay is shown whole.
    Without ``equity`` that row is left out. RSI has the levels of the thresholds, unless these are dynamic or change in
    the span. Trades that were open at any time of the span are drawn, each with all of its exits. InputError where the
    span holds no bar.
    """
    check_kind("result", result, Result)
    bars = result.bars["timestamp"]
    first = int(bars[0]) if start is None else to_ms(start, "start")
    stop = int(bars[-1]) + 1 if end is None else to_ms(end, "end")
    rows = slice(*bars.searchsorted([first, stop]))
    index = result.index[rows]
    if not len(index):
        raise InputError.of(
            "start, end", (start, end), f"must hold a bar; the replay is {result.index[0]} to {result.index[-1]}"
        )
    return price_chart(
        result.candles.iloc[rows],
        result.signals.iloc[rows],
        result.trades,
        fills=result.fills,
        rsi=result.features["rsi"].iloc[rows],
        rsi_levels=_rsi_levels(result, first, stop),
        equity=result.equity.iloc[rows] if equity else None,
        title=f"{result.symbol or 'candles'} {result.interval}",
        theme=theme,
    )


def _rsi_levels(result: Result, first: int, stop: int) -> tuple[float, ...]:
    """Oversold and overbought RSI where they are the same on every bar from ``first`` to ``stop`` (UTC ms), or none."""
    begins = [start for start, _ in result.schedule]
    in_force = [
        limits
        for (start, limits), end in zip(result.schedule, [*begins[1:], stop], strict=True)
        if start < stop and end > first
    ]
    levels = {(limits.rsi_oversold, limits.rsi_overbought, limits.dynamic_rsi_multiplier) for limits in in_force}
    low, high, dynamic = levels.pop()
    return () if levels or dynamic is not None else (low, high)
