"""Plain twins: what a trial is worth, from a list of trades and of days, as the documentation says it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aione_lab.calibration.objective import PRIOR_TRADES

Trades = Sequence[tuple[int, float]]  # (day, net return) of each trade


def profit_factor(trades: Trades, days: Sequence[float], cost: float) -> float:
    won = sum(r for _, r in trades if r > 0)
    lost = sum(-r for _, r in trades if r < 0)
    return won / (lost + PRIOR_TRADES * cost)


def win_rate(trades: Trades, days: Sequence[float], cost: float) -> float:
    return sum(r > 0 for _, r in trades) / (len(trades) + PRIOR_TRADES)


def expectancy(trades: Trades, days: Sequence[float], cost: float) -> float:
    return (sum(r for _, r in trades) - PRIOR_TRADES * cost) / (len(trades) + PRIOR_TRADES)


def sharpe(trades: Trades, days: Sequence[float], cost: float) -> float:
    """Ten trades that lose their costs, spread over the days: their mean, and their squares in the variance."""
    added = PRIOR_TRADES * cost / len(days)
    mean = sum(days) / len(days)
    spread = sum((r - mean) ** 2 for r in days) / len(days) + added * cost
    return (mean - added) / math.sqrt(spread) * math.sqrt(365)


def max_drawdown(trades: Trades, days: Sequence[float], cost: float) -> float:
    equity = peak = 1.0
    fall = 0.0
    for r in days:
        equity *= 1 + r
        peak = max(peak, equity)
        fall = max(fall, 1 - equity / peak)
    return (len(trades) * fall + PRIOR_TRADES * 1.0) / (len(trades) + PRIOR_TRADES)


TWINS = {
    "profit_factor": profit_factor,
    "win_rate": win_rate,
    "max_drawdown": max_drawdown,
    "sharpe": sharpe,
    "expectancy": expectancy,
}
