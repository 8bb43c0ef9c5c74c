"""Trades from given entries: the yardstick of random entries, with the very same risk rule and exits."""

from __future__ import annotations

from aione_lab.engine.stage1 import ready
from aione_lab.engine.stage2 import assess
from aione_lab.engine.stage3 import stage3_follow
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
        for j in range(columns.shape[0]):
            for i in range(n):
                block[i, j] = columns[j, base + i]
        for i in range(n):
            stops[base + i] = targets[base + i] = float("nan")
            if not ready(rows[i]):
                continue
            assess(bars[base + i].timestamp, rows[i], 0, param.limits, param.rules, assessment)
            if assessment.side > 0 and assessment.risk_reward >= param.rules.min_risk_reward:
                stops[base + i] = assessment.stop
                targets[base + i] = assessment.targets[0]


@njit
def trade_entries(stages, bars, entries, stops, targets, params, trades):
    """Long trades of orders placed at the closes of bars ``entries`` (ascending); returns their number.

    An entry while a trade is open is passed over, as replay does. A trade that reaches the last bar
    stays open and is not counted. ``trades`` (≥ len(entries),) of TRADE is written.
    """
    stage, rules = stages[0], params[0].rules
    closed = 0
    free = 0
    for e in range(entries.size):
        t = entries[e]
        if t < free:
            continue
        order = stage.order
        order.side = 1
        order.signal_time = bars[t].timestamp
        order.stop = stops[t]
        order.target = targets[t]
        order.confidence = 0.0
        t += 1
        while t < bars.size and bars[t].timestamp - bars[t - 1].timestamp == rules.step_ms:
            done = stage3_follow(stage, bars[t], rules, trades[closed])
            if done == 1:
                closed += 1
                break
            t += 1
        # At a gap or at the end the position is dropped: it has no exit that could be compared.
        stage.position.side = 0
        stage.order.side = 0
        free = t
    return closed
