"""The metrics of the sliders' set beside those it is compared with, as a small HTML table."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.widgets.explorer_style import PALE, SECOND, THIRD, UP

STUDY = "study, fold by fold"
COLOURS = {"sliders": UP, "default": SECOND, "promoted": THIRD, STUDY: PALE}
DASHES = {"default": "dotted", "promoted": "dashed"}
"""How each set is drawn: the table's head is the legend of the chart."""

_CELL = "padding:0 4px;text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap"

# What a row says, the metric, its form, and the ends of its interval.
ROWS = (
    ("trades", "n_trades", ",d"),
    ("alerts", "n_alerts", ",d"),
    ("net P&L", "net_pnl", "+,.2f"),
    ("return", "total_return", "+.2%"),
    ("a trade", "expectancy", "+.2f"),
    ("  95 % from", "expectancy_low", "+.2f"),
    ("  to", "expectancy_high", "+.2f"),
    ("win rate", "win_rate", ".1%"),
    ("profit factor", "profit_factor", ".2f"),
    ("max drawdown", "max_drawdown", ".2%"),
    ("Sharpe ratio", "sharpe", ".2f"),
)


def shown(value: Any, form: str) -> str:
    """A metric as text; "-" where it is not defined."""
    if isinstance(value, float) and not math.isfinite(value):
        return "-" if math.isnan(value) else "∞" if value > 0 else "-∞"
    return format(value, form)


def metrics_table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """HTML of the metrics of every column, net of costs; what is in it is text."""
    cell = _CELL
    head = _head(columns)
    lines = []
    for name, metric, form in ROWS:
        cells = "".join(f"<td style='{cell}'>{shown(values[metric], form)}</td>" for values in columns.values())
        lines.append(f"<tr><td style='white-space:pre;padding:0'>{html.escape(name)}</td>{cells}</tr>")
    return _table("aione-metrics", f"<th></th>{head}", lines)


def folds_table(returns: pd.DataFrame, trades: pd.DataFrame, days: Sequence[str]) -> str:
    """HTML of the net return on each fold's test days, with the trades, and a bar for its size; a column a set."""
    largest = float(np.nanmax(np.abs(returns.to_numpy()), initial=1e-9))
    lines = []
    for row, when in enumerate(days):
        cells = []
        for name in returns:
            value, n = float(returns[name].iloc[row]), trades[name].iloc[row] if name in trades else None
            count = "" if n is None else f" ({n:,d})"
            share, colour = 100 * abs(value) / largest, COLOURS[str(name)]
            bar = f"linear-gradient({colour},{colour}) right bottom/{share:.0f}% 2px no-repeat"
            cells.append(f"<td style='{_CELL};background:{bar}'>{value:+.2%}{count}</td>")
        lines.append(
            f"<tr><td style='padding:0;line-height:22px'>{row + 1}: {html.escape(when)}</td>{''.join(cells)}</tr>"
        )
    note = "<th style='text-align:left'>fold: its test days</th>"
    return _table("aione-folds", f"{note}{_head(returns.columns)}", lines)


def _head(names: Iterable[Any]) -> str:
    """Names of the sets, each over a line of the colour that it is drawn in."""
    cells = []
    for name in map(str, names):
        line = f"{DASHES.get(name, 'solid')} {COLOURS[name]}"
        cells.append(f"<th style='{_CELL};font-weight:600;border-bottom:2px {line}'>{html.escape(name)}</th>")
    return "".join(cells)


def _table(name: str, head: str, lines: Sequence[str]) -> str:
    return (
        f"<table class='{name}' style='font-size:11px;line-height:16px;border-collapse:collapse;width:100%;"
        f"color:var(--jp-ui-font-color1,#212121)'><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )
