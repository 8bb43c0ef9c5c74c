"""Trades from given entries: the yardstick of random entries, with the very same risk rule and exits."""

from __future__ import annotations

from aione_lab.engine.columns import gather
from aione_lab.engine.stage1 import ready
from aione_lab.engine.stage2 import assess
from aione_lab.engine.stage3 import place_order, stage3_follow, stage3_gap
from aione_lab.jit import njit


@njit
def find_eligible(columns, bars, params, rows, block, found, eligible):
    """1 in ``eligible`` (n,) u1 for bars where the risk rule alone would allow a BUY.

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
                if assessment.side > 0 and assessment.risk_reward >= param.rules.min_risk_reward:
                    eligible[base + i] = 1


@njit
def trade_entries(stages, columns, bars, inner, offsets, eligible, places, params, rows, block, found, trades):
    """Long trades of orders placed at the closes of bars ``eligible[places]``; returns their number.

    Both ascend. A bar at whose close an order waits or a trade is open is replaced by the next eligible one after it,
    so that as many orders are placed as there are places, unless the data end. What is still open at the last bar
    is not counted. ``trades`` (≥ len(places),) of TRADE is written; the rest as in ``find_eligible`` and ``bulk``.
    """
    stage, param, assessment = stages[0], params[0], found[0]
    rules = param.rules
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
