"""Loops over the step: many bars in one call. No arithmetic lives here.

The few lines that store what a bar left stand in two loops: every function that takes a whole record costs
most of a second of compiling.

``columns`` are float64 of shape (F, bars), see ``columns.py``. What own triggers and factors give is in them before
the stages run (``custom_run.py``); only without any does one loop do everything.
"""

from __future__ import annotations

from aione_lab.engine.columns import BLOCK, gather, scatter
from aione_lab.engine.features import features_reset, features_step
from aione_lab.engine.levels import add_day
from aione_lab.engine.stage1 import ALERT, find_reasons, ready
from aione_lab.engine.stage3 import stage3_gap
from aione_lab.engine.step import break_sequence, stages_step, start, step_bar
from aione_lab.jit import njit
from aione_lab.thresholds.adaptive import resolve


@njit
def _is_gap(last_time, time, step_ms):
    return last_time > 0 and time - last_time != step_ms


@njit
def replay_bars(
    states, ring, bars, inner, offsets, first, last, params, out, rows, block, columns, signals, assessments, trades
):
    """Push ``bars[first:last]`` through ``step_bar``; returns (number of assessments, number of trades).

    ``states, params, out`` have length 1, ``ring`` is (ROWS,); ``rows`` is a scratch of BLOCK FEATURES and
    ``block`` the same memory as float64 (BLOCK, F). ``inner[offsets[t]:offsets[t + 1]]`` are the finer bars inside
    bar t; ``offsets`` (n + 1,) of int64. ``columns`` (F, n), ``signals`` (n,), ``assessments`` (≥ alerts,)
    and ``trades`` (≥ trades,) are written from their beginning. State and ring are advanced in place.
    """
    state, param, result = states[0], params[0], out[0]
    alerts = 0
    closed = 0
    for base in range(first, last, BLOCK):
        n = min(BLOCK, last - base)
        for i in range(n):
            t = base + i
            bar = bars[t]
            if _is_gap(state.features.last_time, bar.timestamp, param.spec.step_ms):
                break_sequence(state, ring, param, result)
                if result.trades == 1:
                    trades[closed] = result.trade
                    closed += 1
            step_bar(state, ring, bar, inner[offsets[t] : offsets[t + 1]], param, result)
            rows[i] = result.features
            signals[t] = result.signal
            if result.signal.signal == ALERT:
                assessments[alerts] = result.assessment
                alerts += 1
            if result.trades == 1:
                trades[closed] = result.trade
                closed += 1
        scatter(block, columns, base, n)
    return alerts, closed


@njit
def compute_features(states, ring, bars, specs, rows, block, columns):
    """Features alone: ``features_step`` over ``bars`` into ``columns`` (F, n)."""
    state, spec = states[0], specs[0]
    for base in range(0, bars.size, BLOCK):
        n = min(BLOCK, bars.size - base)
        for i in range(n):
            bar = bars[base + i]
            if _is_gap(state.last_time, bar.timestamp, spec.step_ms):
                features_reset(state, ring)
            features_step(state, ring, bar, spec, rows[i])
        scatter(block, columns, base, n)


@njit
def replay_features(
    stages, bars, inner, offsets, first, last, params, out, rows, block, columns, signals, assessments, trades
):
    """Stages 1 to 3 over stored features: what ``replay_bars`` gives, byte for byte, without redoing them."""
    stage, param, result = stages[0], params[0], out[0]
    alerts = 0
    closed = 0
    for base in range(first, last, BLOCK):
        n = min(BLOCK, last - base)
        gather(columns, base, n, block)
        for i in range(n):
            t = base + i
            bar = bars[t]
            if _is_gap(stage.last_time, bar.timestamp, param.spec.step_ms) and stage3_gap(
                stage, param.rules, result.trade
            ):
                trades[closed] = result.trade
                closed += 1
            finer = inner[offsets[t] : offsets[t + 1]]
            stages_step(stage, bar, finer, rows[i], param.limits, param.rules, result)
            signals[t] = result.signal
            if result.signal.signal == ALERT:
                assessments[alerts] = result.assessment
                alerts += 1
            if result.trades == 1:
                trades[closed] = result.trade
                closed += 1
    return alerts, closed


@njit
def trigger_masks(columns, params, rows, block, scratch, masks):
    """Reasons of every bar as bit masks (n,), gates and cool-down apart; 0 while warming up."""
    param, signal = params[0], scratch[0]
    for base in range(0, masks.size, BLOCK):
        n = min(BLOCK, masks.size - base)
        gather(columns, base, n, block)
        for i in range(n):
            masks[base + i] = 0
            if ready(rows[i]):
                resolve(param.limits, rows[i].atr_7d, signal)
                masks[base + i] = find_reasons(rows[i], param.limits, param.rules, signal)


@njit
def start_features(states, ring):
    """Make zeroed FEATURE_STATE (1,) and ``ring`` (ROWS,) ready for a first bar."""
    features_reset(states[0], ring)


@njit
def start_state(states, ring, params):
    """Make zeroed STATE (1,) and ``ring`` (ROWS,) ready for a first bar."""
    start(states[0], ring, params[0])


@njit
def push_bar(states, ring, bars, inner, params, outs):
    """One bar: ``step_bar`` on arrays of length 1."""
    step_bar(states[0], ring, bars[0], inner, params[0], outs[0])


@njit
def push_many(states, rings, places, bars, no_inner, params, outs, gaps, ended):
    """One bar of several symbols: ``bars[i]`` is that of ``states[places[i]]``, and so for params, outs and the
    columns of ``rings`` (ROWS, symbols).

    Where bars are missing before one of them the sequence is broken first, as in ``replay_bars``: ``gaps[i]`` is then 1
    if that closed a trade, which is in ``ended[i]``, else 0.
    """
    for i in range(places.size):
        k = places[i]
        state, ring, param, out = states[k], rings[:, k], params[k], outs[k]
        gaps[i] = 0
        if _is_gap(state.features.last_time, bars[i].timestamp, param.spec.step_ms):
            break_sequence(state, ring, param, out)
            if out.trades == 1:
                ended[i] = out.trade
                gaps[i] = 1
        step_bar(state, ring, bars[i], no_inner, param, out)


@njit
def push_features(states, ring, bars, params, outs):
    """The first half of a step on arrays of length 1."""
    features_step(states[0].features, ring, bars[0], params[0].spec, outs[0].features)


@njit
def push_stages(states, bars, inner, params, outs):
    """The second half of a step on arrays of length 1, over ``outs[0].features``."""
    stages_step(states[0].stages, bars[0], inner, outs[0].features, params[0].limits, params[0].rules, outs[0])


@njit
def break_state(states, ring, params, outs):
    """Bars are missing: ``break_sequence`` on arrays of length 1."""
    break_sequence(states[0], ring, params[0], outs[0])


@njit
def seed_days(states, params, highs, lows, last_day):
    """Completed days from before the first bar, oldest first, up to day number ``last_day``."""
    for i in range(highs.size):
        add_day(states[0].features.daily, highs[i], lows[i], last_day - highs.size + 1 + i, params[0].spec)
