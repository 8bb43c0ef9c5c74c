"""Stage3: the life of a trade, bar by bar.

Order of events inside a bar, which is also the order of the code: the entry decided on the previous
close fills at the open; funding stamped in the bar is paid by positions opened before it; a stop or
target already passed at the open fills there; a time-out fills at the open; then the bar's high and
low are held against stop and target. If one bar touches both, ``rules.target_first`` decides, the
trade is marked ambiguous and its P&L both ways is kept.

An order that opens beyond its own target or stop is filled at that open and closed there at once: a loss
of the costs, which a market order sent on the last close really makes.

A short is the long of the mirrored prices: every comparison is made on side × price.
"""

from __future__ import annotations

import math

from aione_lab.engine.records import EXITS
from aione_lab.engine.stage2 import BUY, SELL
from aione_lab.jit import njit

_, STOP, TARGET, TIME_OUT, GAP = range(len(EXITS))


@njit
def stage3_follow(stage, bar, rules, trade):
    """Fill the waiting order, follow the position through ``bar``; 1 when a trade was closed into ``trade``."""
    position = stage.position
    if stage.order.side != 0:
        _enter(stage, bar, rules)
    elif position.side != 0:
        _pay_funding(stage, bar, rules)
    if position.side == 0:
        return 0
    side = float(position.side)
    stop = side * position.stop
    target = side * position.target
    opened = side * bar.open
    worst = min(side * bar.high, side * bar.low)
    best = max(side * bar.high, side * bar.low)
    if opened <= stop:
        return _close(stage, bar.timestamp, bar.open, STOP, rules, trade)
    if opened >= target:
        return _close(stage, bar.timestamp, bar.open, TARGET, rules, trade)
    if position.bars >= rules.max_holding_bars:
        return _close(stage, bar.timestamp, bar.open, TIME_OUT, rules, trade)
    position.bars += 1
    if worst <= stop and best >= target:
        first, other = (TARGET, STOP) if rules.target_first == 1 else (STOP, TARGET)
        alternative = _exit(position, position.stop if other == STOP else position.target, other, rules)[3]
        _close(stage, bar.timestamp, position.target if first == TARGET else position.stop, first, rules, trade)
        trade.ambiguous = 1
        trade.pnl_other = alternative
        return 1
    if worst <= stop:
        return _close(stage, bar.timestamp, position.stop, STOP, rules, trade)
    if best >= target:
        return _close(stage, bar.timestamp, position.target, TARGET, rules, trade)
    position.worst = min(position.worst, worst)
    position.best = max(position.best, best)
    return 0


@njit
def stage3_decide(stage, found, confidence):
    """An assessed BUY or SELL becomes the order for the next open, when nothing is held."""
    if stage.position.side != 0 or (found.recommendation != BUY and found.recommendation != SELL):
        return
    order = stage.order
    order.side = found.side
    order.signal_time = found.timestamp
    order.stop = found.stop
    order.target = found.targets[0]
    order.confidence = confidence


@njit
def equity(stage, close):
    """Cash and the open position at ``close``, before the costs of closing it."""
    position = stage.position
    if position.side == 0:
        return stage.cash
    return stage.cash + position.side * position.quantity * (close - position.entry_price)


@njit
def stage3_gap(stage, rules, trade):
    """Bars are missing: drop the order, close an open trade at the last close; 1 when one was closed."""
    stage.order.side = 0
    if stage.position.side == 0:
        return 0
    return _close(stage, stage.last_time, stage.last_close, GAP, rules, trade)


@njit
def _enter(stage, bar, rules):
    order = stage.order
    position = stage.position
    price = bar.open * (1.0 + order.side * rules.slippage)
    quantity = rules.position_fraction * stage.cash / price
    if rules.lot_size > 0.0:
        quantity = math.floor(quantity / rules.lot_size + 1e-9) * rules.lot_size
    side = order.side
    order.side = 0
    if not quantity > 0.0:
        return
    position.side = side
    position.signal_time = order.signal_time
    position.entry_time = bar.timestamp
    position.bars = 0
    position.funding_missing = 0
    position.funding_known = 0
    position.quantity = quantity
    position.entry_price = price
    position.stop = order.stop
    position.target = order.target
    position.fees = quantity * price * rules.fee
    position.funding = 0.0
    position.worst = side * price
    position.best = side * price
    position.confidence = order.confidence
    stage.cash -= position.fees


@njit
def _pay_funding(stage, bar, rules):
    """A long pays rate × notional at the bar's open. A scheduled stamp without a rate is *unknown*."""
    position = stage.position
    rate = bar.funding_rate
    if rate == rate:
        payment = -position.side * position.quantity * bar.open * rate
        position.funding += payment
        position.funding_known += 1
        stage.cash += payment
    elif bar.timestamp % rules.funding_interval_ms == 0:
        position.funding_missing += 1


@njit
def _exit(position, price, reason, rules):
    """(price filled, fee, gross P&L, net P&L) of closing at ``price`` for ``reason``.

    Targets rest in the book and fill at their price; everything else is taken and slips.
    """
    filled = price
    rate = rules.maker_fee
    if reason != TARGET:
        filled = price * (1.0 - position.side * rules.slippage)
        rate = rules.fee
    fee = position.quantity * filled * rate
    gross = position.side * position.quantity * (filled - position.entry_price)
    return filled, fee, gross, gross - position.fees - fee + position.funding


@njit
def _close(stage, time, price, reason, rules, trade):
    position = stage.position
    side = position.side
    filled, fee, gross, pnl = _exit(position, price, reason, rules)
    stage.cash += gross - fee
    # The exit bar counts with its exit price only: what came before it inside the bar is not known.
    worst = min(position.worst, side * filled)
    best = max(position.best, side * filled)
    trade.signal_time = position.signal_time
    trade.entry_time = position.entry_time
    trade.exit_time = time
    trade.side = side
    trade.exit_reason = reason
    trade.ambiguous = 0
    trade.bars = position.bars
    trade.funding_missing = position.funding_missing
    trade.funding_known = position.funding_known
    trade.quantity = position.quantity
    trade.entry_price = position.entry_price
    trade.exit_price = filled
    trade.stop = position.stop
    trade.target = position.target
    trade.fees = position.fees + fee
    trade.funding = position.funding
    trade.pnl = pnl
    trade.pnl_other = pnl
    risk = position.quantity * side * (position.entry_price - position.stop)
    trade.r_multiple = pnl / risk if risk > 0.0 else math.nan
    trade.mae = worst / position.entry_price - side
    trade.mfe = best / position.entry_price - side
    trade.confidence = position.confidence
    position.side = 0
    return 1
