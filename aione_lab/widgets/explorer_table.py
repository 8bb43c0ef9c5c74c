"""The metrics of the sliders' set beside those it is compared with, as a small HTML table."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

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
    cell = "padding:0 4px;text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap"
    head = "".join(f"<th style='{cell};font-weight:600'>{html.escape(name)}</th>" for name in columns)
    lines = []
    for name, metric, form in ROWS:
        cells = "".join(f"<td style='{cell}'>{shown(values[metric], form)}</td>" for values in columns.values())
        lines.append(f"<tr><td style='white-space:pre;padding:0'>{html.escape(name)}</td>{cells}</tr>")
    return (
        "<table class='aione-metrics' style='font-size:11px;line-height:16px;border-collapse:collapse;width:100%;"
        "color:var(--jp-ui-font-color1,#212121)'>"
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )
