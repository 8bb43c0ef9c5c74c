"""A plain trade simulator: for every order it looks ahead for the bar that ends the trade.

Trade by trade instead of bar by bar, with the prices of longs and shorts spelled out. The rules are those of
the contract: entry at the next open; funding stamped in a bar is paid at its open by positions held before it;
a stop or target passed at the open fills there; then the time-out at the open; then stop before target (or
target first) inside the bar, from the entry bar on; a missing bar ends the trade at the last close.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from aione_lab.settings import Costs, Settings
from aione_lab.units import HOUR_MS, INTERVALS, MINUTE_MS


class Order(NamedTuple):
    """Decided at the close of bar ``at``."""

    at: int
    side: int
    stop: float
    target: float
    confidence: float


class Exit(NamedTuple):
    """Where a trade ends; ``reason`` is empty while it is still open at the end of the data."""

    bar: int
    reason: str
    level: float  # before slippage
    bars: int  # gone through beyond their open
    ambiguous: bool = False


def ref_trades(
    bars: np.ndarray, orders: Sequence[Order], interval: str, settings: Settings, costs: Costs
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """(closed trades in order, equity at every close)."""
    step = INTERVALS[interval]
    equity = np.full(len(bars), settings.initial_capital)
    cash = settings.initial_capital
    free_from = 0  # an order decided on this bar or later finds no position open
    trades = []
    for order in orders:
        first = order.at + 1
        if order.at < free_from or first >= len(bars) or bars["timestamp"][first] - bars["timestamp"][order.at] != step:
            continue
        price = bars["open"][first] * (1 + order.side * costs.slippage_bps / 10_000)
        quantity = settings.position_fraction * cash / price
        if costs.lot_size:
            quantity = math.floor(quantity / costs.lot_size + 1e-9) * costs.lot_size
        if quantity <= 0:
            continue
        end = _find_exit(bars, order, first, step, settings)
        held = range(first, end.bar + 1)
        funding = [0.0] + [_payment(bars, order.side, quantity, j) for j in held[1:]]
        entry_fee = quantity * price * costs.fee
        for j in held:
            paid = math.fsum(x for x in funding[: j - first + 1] if x and not math.isnan(x))
            equity[j] = cash - entry_fee + paid + order.side * quantity * (bars["close"][j] - price)
        free_from = len(bars)
        if end.reason:
            trade = _account(bars, order, first, end, price, quantity, funding, costs)
            trades.append(trade)
            cash += trade["pnl"]
            gap = end.reason == "gap"
            free_from = end.bar + gap
            equity[end.bar + gap :] = cash
    return trades, equity


def _account(
    bars: np.ndarray, order: Order, first: int, end: Exit, price: float, quantity: float, funding: list, costs: Costs
) -> dict[str, Any]:
    due = [x for x in funding[1:] if x is not None]
    received = math.fsum(x for x in due if not math.isnan(x))
    filled, fees, pnl = _net(order.side, quantity, price, end.level, end.reason, costs)
    other = pnl
    if end.ambiguous:
        level, reason = (order.target, "target") if end.reason == "stop" else (order.stop, "stop")
        other = _net(order.side, quantity, price, level, reason, costs)[2]
    whole = range(first, end.bar + (end.reason == "gap"))
    lows = [*bars["low"][whole], price, filled]
    highs = [*bars["high"][whole], price, filled]
    risk = quantity * order.side * (price - order.stop)
    pnl += received
    return {
        "signal_time": bars["timestamp"][order.at],
        "entry_time": bars["timestamp"][first],
        "exit_time": bars["timestamp"][end.bar],
        "side": order.side,
        "exit_reason": end.reason,
        "ambiguous": int(end.ambiguous),
        "bars": end.bars,
        "funding_missing": sum(math.isnan(x) for x in due),
        "funding_known": sum(not math.isnan(x) for x in due),
        "quantity": quantity,
        "entry_price": price,
        "exit_price": filled,
        "stop": order.stop,
        "target": order.target,
        "fees": fees,
        "funding": received,
        "pnl": pnl,
        "pnl_other": other + received,
        "r_multiple": pnl / risk if risk > 0 else math.nan,
        "mae": min(lows) / price - 1 if order.side > 0 else 1 - max(highs) / price,
        "mfe": max(highs) / price - 1 if order.side > 0 else 1 - min(lows) / price,
        "confidence": order.confidence,
    }


def _net(side: int, quantity: float, price: float, level: float, reason: str, costs: Costs) -> tuple[float, ...]:
    """(exit price, fees of both sides, P&L after them) of a close at ``level`` for ``reason``."""
    filled, rate = level * (1 - side * costs.slippage_bps / 10_000), costs.fee
    if reason == "target":
        filled, rate = level, costs.fee if costs.maker_fee is None else costs.maker_fee
    fees = quantity * (price * costs.fee + filled * rate)
    return filled, fees, side * quantity * (filled - price) - fees


def _payment(bars: np.ndarray, side: int, quantity: float, j: int) -> float | None:
    """What is paid (−) or received in bar j; NaN: a stamp is due and its rate unknown; None: nothing is due."""
    rate = bars["funding_rate"][j]
    if not math.isnan(rate):
        return -side * quantity * bars["open"][j] * rate
    return math.nan if bars["timestamp"][j] % (8 * HOUR_MS) == 0 else None


def _find_exit(bars: np.ndarray, order: Order, first: int, step: int, settings: Settings) -> Exit:
    most = max(1, settings.max_holding_minutes * MINUTE_MS // step)
    stop, target = order.stop, order.target
    for j in range(first, len(bars)):
        n = j - first
        if n and bars["timestamp"][j] - bars["timestamp"][j - 1] != step:
            return Exit(j - 1, "gap", bars["close"][j - 1], n)
        o, h, low = bars["open"][j], bars["high"][j], bars["low"][j]
        if order.side > 0:
            stop_at_open, target_at_open, stopped, reached = o <= stop, o >= target, low <= stop, h >= target
        else:
            stop_at_open, target_at_open, stopped, reached = o >= stop, o <= target, h >= stop, low <= target
        if stop_at_open:
            return Exit(j, "stop", o, n)
        if target_at_open:
            return Exit(j, "target", o, n)
        if n == most:
            return Exit(j, "time_out", o, n)
        if stopped and reached:
            first_filled = settings.both_touched
            return Exit(j, first_filled, stop if first_filled == "stop" else target, n + 1, ambiguous=True)
        if stopped:
            return Exit(j, "stop", stop, n + 1)
        if reached:
            return Exit(j, "target", target, n + 1)
    return Exit(len(bars) - 1, "", math.nan, 0)
