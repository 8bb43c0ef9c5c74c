"""Trades from given entries: random ones, and each alert on its own, with the very same risk rule and exits."""

from __future__ import annotations

from aione_lab.engine.columns import gather
from aione_lab.engine.stage1 import ready
from aione_lab.engine.stage2 import assess, judge
from aione_lab.engine.stage3 import stage3_follow, stage3_gap
from aione_lab.jit import njit


@njit
def plan_longs(columns, bars, params, rows, block, found, stops, targets):
    """Stop and first target that a BUY on each bar would get; NaN where its risk/reward would forbid one.

    ``columns`` (F, n), ``stops`` and ``targets`` (n,); ``rows, block`` as in ``bulk``; ``found`` (1,).
    """
    param, assessment = params[0], found[0]
    size = block.shape[0]
    for base in range(0, bars.size, size):
        n = min(size, bars.size - base)
        gather(columns, base, n, block)
        for i in range(n):
            stops[base + i] = targets[base + i] = float("nan")
            if not ready(rows[i]):
                continue
            assess(bars[base + i].timestamp, rows[i], 0, param.limits, param.rules, assessment)
            if assessment.side > 0 and assessment.risk_reward >= param.rules.min_risk_reward:
                stops[base + i] = assessment.stop
                targets[base + i] = assessment.targets[0]


@njit
def trade_entries(stages, bars, eligible, places, stops, targets, params, trades):
    """Long trades of orders placed at the closes of bars ``eligible[places]``; returns their number.

    Both ascend. A bar at whose close a trade is still open is replaced by the next eligible one after it, so
    that as many trades are made as there are places, unless the data end. A trade that reaches the last bar
    stays open and is not counted. ``trades`` (≥ len(places),) of TRADE is written.
    """
    stage, rules = stages[0], params[0].rules
    closed = 0
    free = 0
    first = 0
    for place in places:
        if place < first:
            place = first
        while place < eligible.size and eligible[place] < free:
            place += 1
        if place >= eligible.size:
            break
        first = place + 1
        t = eligible[place]
        order = stage.order
        order.side = 1
        order.signal_time = bars[t].timestamp
        order.stop = stops[t]
        order.target = targets[t]
        order.confidence = 0.0
        while True:
            stage.last_time = bars[t].timestamp
            stage.last_close = bars[t].close
            t += 1
            if t == bars.size:
                return closed
            if bars[t].timestamp - stage.last_time != rules.step_ms:
                closed += stage3_gap(stage, rules, trades[closed])
                break
            closed += stage3_follow(stage, bars[t], rules, trades[closed])
            if stage.position.side == 0:
                break
        free = t
    return closed


@njit
def trade_each(blank, stages, bars, places, sides, stops, targets, confidences, params, trades):
    """The trade that each order would make alone: nothing is held when it comes, overlaps are no matter.

    Order i is placed at the close of bar ``places[i]`` (ascending or not) and finds ``stages`` (1,) as a copy of
    ``blank`` (1,), both STAGE_STATE. ``trades`` (as long as ``places``) of TRADE is written: ``exit_reason`` 0 and
    ``pnl``, ``r_multiple`` NaN where no trade was closed. Of those, ``quantity`` is 0 where none was entered (no bar
    follows, or the cash is less than a lot), else the trade is still open after the last bar.
    """
    rules = params[0].rules
    for i in range(places.size):
        stages[0] = blank[0]
        stage, trade = stages[0], trades[i]
        t = places[i]
        order = stage.order
        order.side = sides[i]
        order.signal_time = bars[t].timestamp
        order.stop = stops[i]
        order.target = targets[i]
        order.confidence = confidences[i]
        closed = 0
        while closed == 0:
            stage.last_time = bars[t].timestamp
            stage.last_close = bars[t].close
            t += 1
            if t == bars.size:
                break
            if bars[t].timestamp - stage.last_time != rules.step_ms:
                closed = stage3_gap(stage, rules, trade)
                break
            closed = stage3_follow(stage, bars[t], rules, trade)
            if stage.position.side == 0:
                break
        if closed == 0:
            position = stage.position
            trade.signal_time = bars[places[i]].timestamp
            trade.side = sides[i]
            trade.exit_reason = 0
            trade.stop = stops[i]
            trade.target = targets[i]
            trade.confidence = confidences[i]
            trade.quantity = position.quantity if position.side != 0 else 0.0
            trade.entry_time = position.entry_time
            trade.entry_price = position.entry_price if position.side != 0 else float("nan")
            trade.bars = position.bars
            trade.pnl = trade.pnl_other = trade.r_multiple = float("nan")


@njit
def context_each(columns, bars, params, rows, block, found, trends, volatilities, independents):
    """Trend, volatility and independence that an alert on each bar would find; −9 in all three where none can be.

    ``columns`` (F, n), the three results (n,) int64; ``rows, block`` as in ``bulk``; ``found`` (1,) of ASSESSMENT.
    """
    rules, context = params[0].rules, found[0]
    size = block.shape[0]
    for base in range(0, bars.size, size):
        n = min(size, bars.size - base)
        gather(columns, base, n, block)
        for i in range(n):
            trends[base + i] = volatilities[base + i] = independents[base + i] = -9
            if ready(rows[i]):
                judge(rows[i], 0, rules, context)
                trends[base + i] = context.trend
                volatilities[base + i] = context.volatility
                independents[base + i] = context.independent
