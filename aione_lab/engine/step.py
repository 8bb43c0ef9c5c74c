"""One bar through the whole system. Replay is a loop over ``step_bar``; live is one call of it.

What a bar does, in order: orders and the open position meet the bar's prices (Stage3), the features
advance, triggers are looked for (Stage1), an ALERT is assessed (Stage2), and a BUY becomes the order
for the next open (Stage3). A step sees one closed bar and its own memory, so it cannot look ahead;
it reads no clock, no randomness and no globals, so the same bars give the same bytes.
"""

from __future__ import annotations

from aione_lab.engine.features import features_reset, features_step
from aione_lab.engine.stage1 import ALERT, stage1_step
from aione_lab.engine.stage2 import assess
from aione_lab.engine.stage3 import equity, stage3_decide, stage3_follow, stage3_gap
from aione_lab.jit import njit


@njit
def step_bar(state, bar, params, out):
    """Advance ``state`` (STATE) by ``bar`` (BAR) under ``params`` (PARAMS) and fill ``out`` (OUT)."""
    features_step(state.features, bar, params.spec, out.features)
    stages_step(state.stages, bar, out.features, params.limits, params.rules, out)


@njit
def stages_step(stage, bar, row, limits, rules, out):
    """Stages 1 to 3 of one bar over its finished features: what a trial replays."""
    waiting = stage.order.side
    out.trades = stage3_follow(stage, bar, rules, out.trade)
    out.entered = 0
    if waiting != 0:
        closed_here = out.trades == 1
        out.entered = waiting if closed_here or stage.position.side != 0 else 0
        out.entry_price = out.trade.entry_price if closed_here else stage.position.entry_price
    signal = out.signal
    stage1_step(stage, bar.timestamp, row, limits, rules, signal)
    signal.confidence = 0.0
    signal.recommendation = 0
    signal.side = 0
    if signal.signal == ALERT:
        found = out.assessment
        assess(bar.timestamp, row, signal.reasons, limits, rules, found)
        signal.confidence = found.confidence
        signal.recommendation = found.recommendation
        signal.side = found.side
        stage3_decide(stage, found, found.confidence)
    signal.position = stage.position.side
    signal.equity = equity(stage, bar.close)
    stage.last_time = bar.timestamp
    stage.last_close = bar.close


@njit
def break_sequence(state, params, out):
    """Bars are missing before the next one: forget the windows, end the trade. Fills ``out.trade``."""
    features_reset(state.features)
    out.trades = stage3_gap(state.stages, params.rules, out.trade)


@njit
def start(state, params):
    """Make a zeroed ``state`` ready for its first bar."""
    features_reset(state.features)
    state.stages.cash = params.rules.initial_capital
