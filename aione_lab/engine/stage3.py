"""Stage3: the life of a trade, bar by bar.

Order of events inside a bar, which is also the order of the code: funding stamped in the bar is paid by
positions opened before it; the order decided earlier is filled, at the open or, a limit, where the price trades
through it; what the open has already passed fills there (liquidation, stop, targets, then the end by an
opposite signal or by time); then the bar's high and low are held against stop and targets; at the close the
stop may move, for the bars to come. Bars inside this one, where the caller has them, tell which of stop and target
came first; else, if one bar touches both, ``rules.target_first`` decides, the trade is marked ambiguous and its P&L
both ways is kept.

An order that opens beyond its own target or stop is filled at that open and closed there at once: a loss
of the costs, which a market order sent on the last close really makes.

Margin is isolated: a position that has lost its margin but for the maintenance margin is liquidated, and all
of the margin is gone. A short is the long of the mirrored prices: comparisons are made on side × price.
"""

from __future__ import annotations

import math

import numpy as np

from aione_lab.engine.records import EXITS, FILLS_COUNT, TARGETS_COUNT
from aione_lab.engine.stage2 import BUY, SELL, to_tick
from aione_lab.jit import njit

# Of numpy's integers, because numba compiles a function anew for every literal int that it is called with.
_, STOP, TARGET, TIME_OUT, GAP, TRAILING, OPPOSITE, LIQUIDATION = np.arange(len(EXITS))
NAN = math.nan


@njit
def stage3_follow(stage, bar, inner, capital, rules, trade):
    """Order and position meet ``bar``; 1 when a trade was closed into ``trade`` (TRADE).

    ``inner``: the bars of a finer interval inside this one, (m,) of BAR, empty where there are none. ``capital``
    is the equity that an entry is sized by: the cash of a symbol on its own, a slot's share of a portfolio.
    """
    position = stage.position
    opened, worst, best, inside = bar.open, bar.low, bar.high, False
    if position.side != 0:
        _pay_funding(stage, bar, rules)
    elif stage.order.side != 0:
        inside = _enter(stage, bar, capital, rules)
        if inside:
            # Filled on the way: of this bar's prices only the close and what lies beyond the limit came after it.
            opened = position.entry_price
            if position.side > 0:
                best = max(opened, bar.close)
            else:
                worst = min(opened, bar.close)
    if position.side == 0:
        return 0
    side = float(position.side)
    opened, worst, best = side * opened, min(side * worst, side * best), max(side * worst, side * best)
    if _at_open(stage, bar.timestamp, opened, rules, trade):
        return 1
    if position.leave == 1:
        return _close(stage, bar.timestamp, side * opened, OPPOSITE, rules, trade)
    if position.bars >= rules.max_holding_bars:
        return _close(stage, bar.timestamp, side * opened, TIME_OUT, rules, trade)
    position.bars += 1
    if not inside and worst <= _floor(position, rules) and best >= _next_target(position):
        for i in range(inner.size):
            finer = inner[i]
            low, high = min(side * finer.low, side * finer.high), max(side * finer.low, side * finer.high)
            closed = _at_open(stage, bar.timestamp, side * finer.open, rules, trade)
            if not closed:
                closed = _inside(stage, bar.timestamp, low, high, rules, trade)
            if closed:
                trade.resolved = 1 - trade.ambiguous
                return 1
    if _inside(stage, bar.timestamp, worst, best, rules, trade):
        return 1
    position.worst = min(position.worst, worst)
    position.best = max(position.best, best)
    _move_stop(position, rules)
    return 0


@njit
def stage3_decide(stage, found, rules):
    """An assessed BUY or SELL becomes an order when nothing is held; an opposite one may end what is held."""
    if found.recommendation != BUY and found.recommendation != SELL:
        return
    if stage.position.side == 0:
        place_order(stage, found, rules)
    elif rules.exit_on_opposite == 1 and stage.position.side == -found.side:
        stage.position.leave = 1


@njit
def place_order(stage, found, rules):
    """The order that ``found`` (ASSESSMENT) asks for; it takes the place of a limit order still waiting."""
    order = stage.order
    order.side = found.side
    order.signal_time = found.timestamp
    order.waited = 0
    order.limit = NAN
    order.price = found.price
    if rules.limit_entry == 1:
        near, deep = found.entry_high, found.entry_low
        if found.side < 0:
            near, deep = deep, near
        order.limit = to_tick(near + rules.entry_depth * (deep - near), rules.tick_size, found.side > 0)
        order.price = order.limit
    order.stop = found.stop
    order.trail = rules.trailing_stop * found.atr
    for i in range(TARGETS_COUNT):
        order.targets[i] = found.targets[i]
    order.confidence = found.confidence


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
def _enter(stage, bar, capital, rules):
    """Fill the waiting order if this bar does; True when that happened inside the bar, after its open.

    A limit order that the first bar opens beyond is taken at that open. Later it rests in the book: it is filled
    at its own price for the maker's fee once the price trades through it (touching it is not enough).
    """
    order = stage.order
    side = order.side
    price, fee, inside = bar.open * (1.0 + side * rules.slippage), rules.fee, False
    if order.limit == order.limit:
        through = side * order.limit > min(side * bar.low, side * bar.high)
        passed = side * bar.open <= side * order.limit
        if passed and order.waited == 0:
            price = side * min(side * price, side * order.limit)
        elif passed or through:
            price, fee, inside = order.limit, rules.maker_fee, not passed
        else:
            order.waited += 1
            if order.waited >= rules.entry_valid_bars:
                order.side = 0
            return False
    order.side = 0
    most = rules.position_fraction * rules.leverage * capital / price
    quantity = most
    if rules.risk_sizing == 1:
        risk = abs(order.price - order.stop)
        quantity = min(most, rules.risk_fraction * capital / risk) if risk > 0.0 else 0.0
    quantity = _to_lot(quantity, rules)
    if not quantity > 0.0:
        return False
    _open(stage, bar.timestamp, side, price, quantity, quantity * price * fee, rules)
    return inside


@njit
def _open(stage, time, side, price, quantity, fee, rules):
    """A filled order becomes the position, with the quantity that each of its targets will close."""
    order = stage.order
    position = stage.position
    position.side = side
    position.signal_time = order.signal_time
    position.entry_time = time
    position.bars = 0
    position.leave = 0
    position.funding_missing = 0
    position.funding_known = 0
    position.exits = 0
    position.next = 0
    position.entered = quantity
    position.quantity = quantity
    position.entry_price = price
    position.first_stop = order.stop
    position.stop = order.stop
    position.trail = order.trail
    position.gross = 0.0
    position.entry_fee = fee
    position.fees = fee
    position.funding = 0.0
    position.funding_unit = 0.0
    position.worst = side * price
    position.best = side * price
    position.confidence = order.confidence
    shares = 0.0
    for i in range(TARGETS_COUNT):
        shares += rules.target_shares[i]
    ends_all = shares > 1.0 - 1e-9
    last = -1
    for i in range(TARGETS_COUNT):
        position.targets[i] = order.targets[i]
        position.parts[i] = 0.0
        part = _to_lot(rules.target_shares[i] * quantity, rules)
        if order.targets[i] == order.targets[i] and rules.target_shares[i] > 0.0:
            position.parts[i] = part
            last = i
        elif last >= 0:  # the share of a target that does not exist goes to the one before it
            position.parts[last] += part
    if last >= 0 and ends_all:
        position.parts[last] = math.inf  # all that is left then
    for i in range(FILLS_COUNT):
        position.exit_times[i] = 0
        position.exit_reasons[i] = 0
        position.exit_prices[i] = NAN
        position.exit_quantities[i] = 0.0
        position.exit_fees[i] = 0.0
    stage.cash -= fee


@njit
def _to_lot(quantity, rules):
    """Rounded down to whole lots."""
    if rules.lot_size > 0.0:
        return math.floor(quantity / rules.lot_size + 1e-9) * rules.lot_size
    return quantity


@njit
def _pay_funding(stage, bar, rules):
    """A long pays rate × notional at the bar's open. A scheduled stamp without a rate is *unknown*."""
    position = stage.position
    rate = bar.funding_rate
    if rate == rate:
        unit = -position.side * bar.open * rate
        payment = position.quantity * unit
        position.funding += payment
        position.funding_unit += unit
        position.funding_known += 1
        stage.cash += payment
    elif bar.timestamp % rules.funding_interval_ms == 0:
        position.funding_missing += 1


@njit
def _liquidation(position, rules):
    """Side × price at which what is left of the margin is the maintenance margin.

    Per unit: entry ÷ leverage + funding + side × (price − entry) = maintenance × price.
    """
    side = float(position.side)
    margin = position.entry_price / rules.leverage + position.funding_unit
    return (side * position.entry_price - margin) / (1.0 - side * rules.maintenance_margin)


@njit
def _floor(position, rules):
    """Side × price at which the position ends for the worse: its stop, or before that the liquidation."""
    return max(position.side * position.stop, _liquidation(position, rules))


@njit
def _next_target(position):
    """Side × price of the next target that closes something; inf where there is none."""
    for i in range(position.next, TARGETS_COUNT):
        if position.parts[i] > 0.0:
            return position.side * position.targets[i]
    return math.inf


@njit
def _at_open(stage, time, opened, rules, trade):
    """What a price that the market opened at (side × price) has already passed fills there; 1 when that ended it."""
    position = stage.position
    if opened <= _floor(position, rules):
        return _stop_out(stage, time, opened, rules, trade)
    return _take_targets(stage, time, opened, opened, rules, trade)


@njit
def _inside(stage, time, worst, best, rules, trade):
    """A stretch between ``worst`` and ``best`` (side × price) meets stop and targets; 1 when that ended the trade."""
    position = stage.position
    floor = _floor(position, rules)
    if worst > floor:
        return _take_targets(stage, time, -math.inf, best, rules, trade)
    if best < _next_target(position):
        return _stop_out(stage, time, floor, rules, trade)
    stopped, taken = _both_ways(position, floor, best, rules)
    other = stopped
    if rules.target_first == 1:
        if not _take_targets(stage, time, -math.inf, best, rules, trade):
            _stop_out(stage, time, floor, rules, trade)
    else:
        _stop_out(stage, time, floor, rules, trade)
        other = taken
    trade.ambiguous = 1
    trade.pnl_other = other
    return 1


@njit
def _take_targets(stage, time, opened, best, rules, trade):
    """Fill the targets up to ``best``, at their price or at a better open; 1 when nothing is left."""
    position = stage.position
    side = float(position.side)
    while position.next < TARGETS_COUNT:
        i = position.next
        if position.parts[i] > 0.0:
            target = side * position.targets[i]
            if not best >= target:
                return 0
            price = side * max(target, opened)
            if position.parts[i] >= position.quantity:
                return _close(stage, time, price, TARGET, rules, trade)
            _fill(stage, time, price, position.parts[i], TARGET, rules)
        position.next += 1
    return 0


@njit
def _stop_out(stage, time, level, rules, trade):
    """End at ``level`` (side × price), at or beyond the floor: by the stop, or by liquidation where that is nearer."""
    position = stage.position
    side = float(position.side)
    if level <= _liquidation(position, rules):
        # All of the margin is lost: the price at which nothing of it would be left.
        margin = position.entry_price / rules.leverage + position.funding_unit
        return _close(stage, time, position.entry_price - side * margin, LIQUIDATION, rules, trade)
    reason = STOP if position.stop == position.first_stop else TRAILING
    return _close(stage, time, side * level, reason, rules, trade)


@njit
def _filled(side, price, reason, rules):
    """(price, fee rate) of a fill: targets rest in the book, a liquidation is the margin, the rest slips."""
    if reason == TARGET:
        return price, rules.maker_fee
    if reason == LIQUIDATION:
        return price, 0.0
    return price * (1.0 - side * rules.slippage), rules.fee


@njit
def _worth(position, quantity, price, reason, rules):
    """Gross P&L less exit fee of closing ``quantity`` at ``price``."""
    filled, rate = _filled(position.side, price, reason, rules)
    return position.side * quantity * (filled - position.entry_price) - quantity * filled * rate


@njit
def _both_ways(position, floor, best, rules):
    """Net P&L of the whole trade with (the stop first, the targets up to ``best`` first and the rest at the stop)."""
    side = float(position.side)
    price, reason = side * floor, STOP
    if floor <= _liquidation(position, rules):
        price = position.entry_price - side * (position.entry_price / rules.leverage + position.funding_unit)
        reason = LIQUIDATION
    so_far = position.gross - position.fees + position.funding
    stopped = so_far + _worth(position, position.quantity, price, reason, rules)
    left = position.quantity
    for i in range(position.next, TARGETS_COUNT):
        if position.parts[i] > 0.0 and best >= side * position.targets[i]:
            part = min(left, position.parts[i])
            so_far += _worth(position, part, position.targets[i], TARGET, rules)
            left -= part
    if left > 0.0:
        so_far += _worth(position, left, price, reason, rules)
    return stopped, so_far


@njit
def _move_stop(position, rules):
    """At a bar's close: to the entry once the trade is far enough ahead, and behind the best price."""
    side = float(position.side)
    stop = side * position.stop
    entry = side * position.entry_price
    risk = entry - side * position.first_stop
    if rules.break_even > 0.0 and risk > 0.0 and position.best - entry >= rules.break_even * risk:
        stop = max(stop, entry)
    if position.trail > 0.0:
        stop = max(stop, side * to_tick(side * (position.best - position.trail), rules.tick_size, position.side < 0))
    position.stop = side * stop


@njit
def _fill(stage, time, price, quantity, reason, rules):
    """Close ``quantity`` at ``price``; the caller keeps the rest or ends the trade."""
    position = stage.position
    filled, rate = _filled(position.side, price, reason, rules)
    fee = quantity * filled * rate
    gross = position.side * quantity * (filled - position.entry_price)
    stage.cash += gross - fee
    position.gross += gross
    position.fees += fee
    position.quantity -= quantity
    i = position.exits
    position.exit_times[i] = time
    position.exit_reasons[i] = reason
    position.exit_prices[i] = filled
    position.exit_quantities[i] = quantity
    position.exit_fees[i] = fee
    position.exits = i + 1
    # Inside the bar of a fill only its own price is known to have been reached while the position was held.
    position.worst = min(position.worst, position.side * filled)
    position.best = max(position.best, position.side * filled)


@njit
def _close(stage, time, price, reason, rules, trade):
    """Close what is left and write the whole trade; returns 1."""
    position = stage.position
    side = position.side
    _fill(stage, time, price, position.quantity, reason, rules)
    pnl = position.gross - position.fees + position.funding
    value = 0.0
    for i in range(FILLS_COUNT):
        trade.exit_times[i] = position.exit_times[i]
        trade.exit_reasons[i] = position.exit_reasons[i]
        trade.exit_prices[i] = position.exit_prices[i]
        trade.exit_quantities[i] = position.exit_quantities[i]
        trade.exit_fees[i] = position.exit_fees[i]
        if i < position.exits:
            value += position.exit_quantities[i] * position.exit_prices[i]
    trade.signal_time = position.signal_time
    trade.entry_time = position.entry_time
    trade.exit_time = time
    trade.side = side
    trade.exit_reason = reason
    trade.ambiguous = 0
    trade.resolved = 0
    trade.bars = position.bars
    trade.funding_missing = position.funding_missing
    trade.funding_known = position.funding_known
    trade.exits = position.exits
    trade.quantity = position.entered
    trade.entry_price = position.entry_price
    trade.exit_price = position.exit_prices[0] if position.exits == 1 else value / position.entered
    trade.stop = position.first_stop
    trade.last_stop = position.stop
    for i in range(TARGETS_COUNT):
        trade.targets[i] = position.targets[i]
    trade.entry_fee = position.entry_fee
    trade.fees = position.fees
    trade.funding = position.funding
    trade.pnl = pnl
    trade.pnl_other = pnl
    risk = position.entered * side * (position.entry_price - position.first_stop)
    trade.r_multiple = pnl / risk if risk > 0.0 else NAN
    trade.mae = position.worst / position.entry_price - side
    trade.mfe = position.best / position.entry_price - side
    trade.confidence = position.confidence
    position.side = 0
    return 1
