"""One bar through the whole system. Replay is a loop over ``step_bar``; live is one call of it.

What a bar does, in order: orders and the open position meet the bar's prices (Stage3), the features
advance, triggers are looked for (Stage1), an ALERT is assessed (Stage2), and a BUY becomes the order
for the next open (Stage3). A step sees one closed bar and its own memory, so it cannot look ahead;
it reads no clock, no randomness and no globals, so the same bars give the same bytes.
"""

from __future__ import annotations

import math

from aione_lab.engine.features import features_reset, features_step
from aione_lab.engine.stage1 import ALERT, stage1_step
from aione_lab.engine.stage2 import assess
from aione_lab.engine.stage3 import equity, stage3_decide, stage3_follow, stage3_gap
from aione_lab.jit import njit


@njit
def step_bar(state, ring, bar, inner, params, out):
    """Advance ``state`` (STATE) and ``ring`` (ROWS,) by ``bar`` (BAR) under ``params`` (PARAMS) and fill ``out`` (OUT).

    ``inner``: the bars of a finer interval inside this one, empty where the caller has none; only fills look at them.
    """
    features_step(state.features, ring, bar, params.spec, out.features)
    stages_step(state.stages, bar, inner, out.features, params.limits, params.rules, out)


@njit
def stages_step(stage, bar, inner, row, limits, rules, out):
    """Stages 1 to 3 of one bar over its finished features: what a trial replays."""
    position = stage.position
    flat, held, fills = position.side == 0, position.quantity, position.exits
    out.trades = stage3_follow(stage, bar, inner, stage.cash, rules, out.trade)
    _tell_fills(position, flat, held, fills, out)
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
        stage3_decide(stage, found, rules)
    signal.position = position.side
    signal.equity = equity(stage, bar.close)
    stage.last_time = bar.timestamp
    stage.last_close = bar.close


@njit
def _tell_fills(position, flat, held, fills, out):
    """The entry of this bar, and what targets closed of a trade that is still open, given how the bar began."""
    out.entered = 0
    out.entry_price = out.partial_price = math.nan
    out.partial = 0.0
    if flat and out.trades == 1:
        out.entered, out.entry_price = out.trade.side, out.trade.entry_price
    elif flat and position.side != 0:
        out.entered, out.entry_price = position.side, position.entry_price
        held, fills = position.entered, 0
    if position.side != 0 and position.exits > fills:
        out.partial = held - position.quantity
        value = 0.0
        for i in range(fills, position.exits):
            value += position.exit_quantities[i] * position.exit_prices[i]
        out.partial_price = value / out.partial


@njit
def break_sequence(state, ring, params, out):
    """Bars are missing before the next one: forget the windows, end the trade. Fills ``out.trade``."""
    features_reset(state.features, ring)
    out.trades = stage3_gap(state.stages, params.rules, out.trade)


@njit
def start(state, ring, params):
    """Make a zeroed ``state`` and its ``ring`` ready for its first bar."""
    features_reset(state.features, ring)
    state.stages.cash = params.rules.initial_capital
