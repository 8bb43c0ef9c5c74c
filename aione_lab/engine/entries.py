"""Trades from given entries: random ones, and each alert on its own, with the very same risk rule and exits."""

from __future__ import annotations

from aione_lab.engine.columns import gather
from aione_lab.engine.stage1 import ready
from aione_lab.engine.stage2 import assess, judge
from aione_lab.engine.stage3 import place_order, stage3_follow, stage3_gap
from aione_lab.jit import njit


@njit
def find_eligible(columns, bars, params, rows, block, found, eligible):
    """1 in ``eligible`` (n,) i1 for bars where the risk rule alone would allow a BUY, -1 for a SELL, else 0.

    ``columns`` (F, n); ``rows, block`` as in ``bulk``; ``found`` (1,).
    """
    param, assessment = params[0], found[0]
    size = block.shape[0]
    for base in range(0, bars.size, size):
        n = min(size, bars.size - base)
        gather(columns, base, n, block)
        for i in range(n):
            eligible[base + i] = 0
            if ready(rows[i]):
                assess(bars[base + i].timestamp, rows[i], 0, param.limits, param.rules, assessment)
                has_target = assessment.targets[0] == assessment.targets[0]
                if assessment.side != 0 and has_target and assessment.risk_reward >= param.rules.min_risk_reward:
                    eligible[base + i] = assessment.side


@njit
def trade_entries(stages, columns, bars, inner, offsets, eligible, sides, places, params, rows, block, found, trades):
    """Trades of orders placed at the closes of bars ``eligible[places]``; returns their number.

    Both ascend; ``sides`` (m,) of ``eligible`` (m,). A bar at whose close an order waits or a trade is open is
    replaced by the next eligible one of its side after it, so that as many orders are placed as there are places,
    unless the data end. What is still open at the last bar is not counted. ``trades`` (≥ len(places),) of TRADE is
    written; the rest as in ``find_eligible`` and ``bulk``.
    """
    stage, param, assessment = stages[0], params[0], found[0]
    rules = param.rules
    closed = 0
    free = 0
    first = 0
    for place in places:
        side = sides[place]
        if place < first:
            place = first
        while place < eligible.size and (eligible[place] < free or sides[place] != side):
            place += 1
        if place >= eligible.size:
            continue  # none of its side is left; there may be of the other
        first = place + 1
        t = eligible[place]
        gather(columns, t, 1, block)
        assess(bars[t].timestamp, rows[0], 0, param.limits, rules, assessment)
        place_order(stage, assessment, rules)
        ended, t = follow_to_end(stage, t, bars, inner, offsets, rules, trades[closed])
        closed += ended
        if t == bars.size:
            break
        free = t
    return closed


@njit
def follow_to_end(stage, t, bars, inner, offsets, rules, trade):
    """From an order placed at the close of bar ``t`` to its end: (1 if a trade was closed, bar of the end).

    The bar is ``bars.size`` where the data end first.
    """
    while True:
        stage.last_time = bars[t].timestamp
        stage.last_close = bars[t].close
        t += 1
        if t == bars.size:
            return 0, t
        if bars[t].timestamp - stage.last_time != rules.step_ms:
            return stage3_gap(stage, rules, trade), t
        if stage3_follow(stage, bars[t], inner[offsets[t] : offsets[t + 1]], stage.cash, rules, trade):
            return 1, t
        if stage.position.side == 0 and stage.order.side == 0:
            return 0, t


@njit
def trade_each(blank, stages, bars, inner, offsets, places, alerts, params, trades):
    """The trade that each alert would make alone: nothing is held when it comes, overlaps are no matter.

    ``alerts`` (n,) of ASSESSMENT at the closes of bars ``places`` (n,), whatever their recommendation; each finds
    ``stages`` (1,) as a copy of ``blank`` (1,), both STAGE_STATE. ``trades`` (n,) of TRADE is written:
    ``exit_reason`` 0 and ``pnl``, ``r_multiple`` NaN where no trade was closed. Of those, ``quantity`` is 0 where none
    was entered (no bar follows, a limit lapsed, the cash is less than a lot), else it is still open after the last bar.
    """
    rules = params[0].rules
    for i in range(places.size):
        stages[0] = blank[0]
        stage, trade, alert = stages[0], trades[i], alerts[i]
        place_order(stage, alert, rules)
        closed, _ = follow_to_end(stage, places[i], bars, inner, offsets, rules, trade)
        if closed == 0:
            position = stage.position
            trade.signal_time = alert.timestamp
            trade.side = alert.side
            trade.exit_reason = 0
            trade.stop = alert.stop
            trade.confidence = alert.confidence
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
