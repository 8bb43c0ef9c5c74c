"""The fast path: the trades of many threshold sets over stored features, and nothing else.

No rule stands here a second time. What no threshold has a part in (six of the reasons, the gates of
Settings, side and confidence) is prepared once per bar by calling Stage1 and Stage2. A float32 screen
then finds the bars on which a set *could* alert; its margins are wider than float32 is coarse, so it
never misses one. A bar that would alert even with the margins against it does alert; what is left, too
near to a limit to tell, goes to ``find_reasons`` with the exact features. Risk, recommendation, fills and
exits are Stage2's and Stage3's own functions, called for the few bars that get there. Replay and this path
give the same trades, byte for byte, and a test holds them together.

Bars go by in slices that fit the cache, all sets over one slice before the next.
"""

from __future__ import annotations

import math

import numpy as np

from aione_lab.engine.columns import gather
from aione_lab.engine.records import FLAGS, record_dtype
from aione_lab.engine.stage1 import (
    BEARISH_DIVERGENCE,
    BREAKOUT_DOWN,
    BREAKOUT_UP,
    BULLISH_DIVERGENCE,
    LOW_VOLATILITY,
    NEAR_RESISTANCE,
    NEAR_SUPPORT,
    VOLATILITY_SPIKE,
    count_reasons,
    find_reasons,
    gate,
    ready,
    rsi_levels,
)
from aione_lab.engine.stage2 import judge, plan
from aione_lab.engine.stage3 import equity, stage3_decide, stage3_follow, stage3_gap
from aione_lab.jit import njit
from aione_lab.thresholds.adaptive import adaptive_vol_z, resolve

SLICE = 4096
MARGIN = np.float32(1e-5)  # relative; float32 itself rounds to 6e-8
TINY = np.float32(1e-30)  # float32 takes what is much smaller for 0, and a limit for reached that is not

FREE = BULLISH_DIVERGENCE | BEARISH_DIVERGENCE | BREAKOUT_UP | BREAKOUT_DOWN | NEAR_SUPPORT | NEAR_RESISTANCE
"""Reasons that no threshold has a part in."""

# The packed byte pair of a bar: how many FREE reasons hold (0-6, room for own ones) and what else is settled.
COUNT_BITS = 15
GATES_BIT = 16  # the gates of Settings are open
BURST_BIT = 32  # VOLATILITY_SPIKE holds whatever the high gate
SHORT_BIT = 64
FLAGS_SHIFT = 7
_FLAGS_MASK = (1 << len(FLAGS)) - 1

PREPARED = record_dtype(
    ("timestamp", "i8"),
    ("volume_z", "f8"),
    ("rsi", "f8"),
    ("rsi_mean", "f8"),
    ("vwap_dev", "f8"),
    ("atr_pct", "f8"),
    ("atr_7d", "f8"),
    ("confidence", "f8"),
    ("close", "f8"),
    ("atr", "f8"),
    ("support", "f8"),
    ("resistance", "f8"),
    ("major_support", "f8"),
    ("major_resistance", "f8"),
    ("daily_low", "f8"),
    ("daily_high", "f8"),
)
"""One bar, two cache lines: the first for Stage1, the second for the risk of an entry."""

PROGRESS = record_dtype(
    ("last_alert", "i8"),
    ("alerts", "i8"),
    ("at", "i8"),  # bar up to which the order or position has been followed
    ("peak", "f8"),
    ("drawdown", "f8"),
)
"""How far one set has come."""


@njit
def prepare(columns, bars, params, rows, block, signals, found, progress, packed, screen, prepared):
    """Fill what all sets share: ``packed`` (n,) u2, ``screen`` (7 + T, n) f4, ``prepared`` (n,) PREPARED.

    ``screen`` rows: volume_z, rsi, rsi_mean, |vwap_dev|, atr_pct, atr_7d, adaptive vol_z, and the numbers of the T own
    triggers. The limits in ``params`` must carry an infinite high gate, so that VOLATILITY_SPIKE means a burst alone.
    ``signals, found, progress`` are scratch of length 1; ``progress`` is that of a set without an alert, zeros.
    """
    param, signal, assessment, never = params[0], signals[0], found[0], progress[0]
    size = block.shape[0]
    for base in range(0, bars.size, size):
        n = min(size, bars.size - base)
        gather(columns, base, n, block)
        for i in range(n):
            t = base + i
            row, out = rows[i], prepared[t]
            screen[0, t] = row.volume_z
            screen[1, t] = row.rsi
            screen[2, t] = row.rsi_mean
            screen[3, t] = abs(row.vwap_dev)
            screen[4, t] = row.atr_pct
            screen[5, t] = row.atr_7d
            screen[6, t] = adaptive_vol_z(row.atr_7d)
            for j in range(param.limits.custom_count):
                screen[7 + j, t] = row.custom[param.limits.custom_first + j]
            out.timestamp = bars[t].timestamp
            out.volume_z = row.volume_z
            out.rsi = row.rsi
            out.rsi_mean = row.rsi_mean
            out.vwap_dev = row.vwap_dev
            out.atr_pct = row.atr_pct
            out.atr_7d = row.atr_7d
            out.close = row.close
            out.atr = row.atr
            out.support = row.support
            out.resistance = row.resistance
            out.major_support = row.major_support
            out.major_resistance = row.major_resistance
            out.daily_low = row.daily_low
            out.daily_high = row.daily_high
            packed[t] = 0
            if not ready(row):
                continue
            resolve(param.limits, row.atr_7d, signal)
            reasons = find_reasons(row, param.limits, param.rules, signal)
            bits = count_reasons(reasons & FREE)
            if reasons & VOLATILITY_SPIKE:
                bits |= BURST_BIT
            # Without a last alert and without LOW_VOLATILITY only the gates of Settings can object.
            if gate(never, out.timestamp, row, 0, param.rules) == 0:
                bits |= GATES_BIT
            judge(row, reasons, param.rules, assessment)
            out.confidence = assessment.confidence
            if assessment.side < 0:
                bits |= SHORT_BIT
            packed[t] = bits | assessment.anomalies << FLAGS_SHIFT


@njit
def _lines(limits):
    """Every limit of Stage1 as a · column + b in float32: (low, high, VWAP, volume) · (a, b).

    Written so, the screen has no branches and the compiler makes vector code of it.
    """
    fixed_low = limits.low_gate == limits.low_gate
    low_a = np.float32(0.0 if fixed_low else limits.low_multiple)
    low_b = np.float32(limits.low_gate if fixed_low else 0.0)
    fixed_high = limits.high_gate == limits.high_gate
    high_a = np.float32(0.0 if fixed_high else low_a * limits.high_ratio)
    high_b = np.float32(limits.high_gate if fixed_high else low_b * limits.high_ratio)
    fixed_vwap = limits.vwap_threshold == limits.vwap_threshold
    vwap_a = np.float32(0.0 if fixed_vwap else limits.vwap_multiple)
    vwap_b = np.float32(limits.vwap_threshold if fixed_vwap else 0.0)
    fixed_vol = limits.vol_z_threshold == limits.vol_z_threshold
    vol_a = np.float32(0.0 if fixed_vol else 1.0)
    vol_b = np.float32(limits.vol_z_threshold if fixed_vol else 0.0)
    return low_a, low_b, high_a, high_b, vwap_a, vwap_b, vol_a, vol_b


@njit
def _holds(bit, volume_z, rsi, low, high, vwap, atr_pct, atr_7d, adaptive, lines, needed, margin):
    """1 where the bar alerts with every limit moved by ``margin``: above 0 it never misses one, below 0 never errs.

    ``low, high``: the RSI levels; ``lines``: the other limits, as ``_lines`` gives them.
    """
    low_a, low_b, high_a, high_b, vwap_a, vwap_b, vol_a, vol_b = lines
    up, down = np.float32(1.0) + margin, np.float32(1.0) - margin
    beyond = TINY if margin < 0 else np.float32(0.0)
    atr = atr_pct * up
    held = bit & COUNT_BITS
    held += np.int32(volume_z + margin >= (vol_a * adaptive + vol_b) * down)
    held += np.int32(rsi <= low * up) + np.int32(rsi >= high * down)
    held += np.int32(vwap * up >= vwap_a * atr_7d + vwap_b + beyond)
    held += np.int32(bit & BURST_BIT != 0) | np.int32(atr >= high_a * atr_7d + high_b + beyond)
    gates = np.int32(bit & GATES_BIT != 0) & np.int32(atr >= low_a * atr_7d + low_b + beyond)
    return gates & np.int32(held >= needed)


@njit
def _screen_slice(packed, screen, first, last, limits, lines, lows, highs, counted, possible):
    """possible[i] = 1 where bar first + i could alert under ``limits``; never 0 where it does.

    The columns are cut to the slice beforehand, so that the loop has no index arithmetic either.
    ``lows, highs`` (SLICE,) f4 receive the RSI levels, ``counted`` (SLICE,) u2 is scratch. What ``possible`` (SLICE,)
    has behind the slice becomes 0.
    """
    bits = packed[first:last]
    if limits.custom_count > 0:
        for i in range(bits.size):
            counted[i] = bits[i]
        bits = counted[: bits.size]
        for j in range(limits.custom_count):
            # Rounding to float32 keeps ≥ and ≤: no margin is needed where two numbers are compared as they are.
            values = screen[7 + j, first:last]
            least, most = np.float32(limits.custom_least[j]), np.float32(limits.custom_most[j])
            for i in range(bits.size):
                bits[i] += np.uint16(values[i] >= least) | np.uint16(values[i] <= most)
    needed = np.int32(limits.min_reasons_for_alert)
    _rsi_levels32(screen[2, first:last], limits, lows, highs)
    volume_z, rsi, vwap = screen[0, first:last], screen[1, first:last], screen[3, first:last]
    atr_pct, atr_7d, adaptive = screen[4, first:last], screen[5, first:last], screen[6, first:last]
    for i in range(last - first):
        possible[i] = _holds(
            np.int32(bits[i]),
            volume_z[i],
            rsi[i],
            lows[i],
            highs[i],
            vwap[i],
            atr_pct[i],
            atr_7d[i],
            adaptive[i],
            lines,
            needed,
            MARGIN,
        )
    possible[last - first :] = 0


@njit
def _collect(possible, places):
    """Places of the ones in ``possible`` (SLICE,), eight bars looked at at once; returns how many.

    Where there is one among the eight they are written without a branch.
    """
    words = possible.view(np.uint64)
    count = 0
    for w in range(words.size):
        if words[w] != 0:
            for i in range(8 * w, 8 * w + 8):
                places[count] = i
                count += possible[i]
    return count


@njit
def _rsi_levels32(rsi_mean, limits, lows, highs):
    """``rsi_levels`` in float32 for a slice."""
    if limits.dynamic_rsi_multiplier != limits.dynamic_rsi_multiplier:  # static: the same on every bar
        low, high = rsi_levels(0.0, limits)
        lows[:] = np.float32(low)
        highs[:] = np.float32(high)
        return
    for i in range(rsi_mean.size):
        low, high = rsi_levels(np.float64(rsi_mean[i]), limits)
        lows[i] = np.float32(low)
        highs[i] = np.float32(high)


@njit
def _alerts(bar, bits, limits, rules, row, signal):
    """Stage1's own word on a possible bar: ``find_reasons`` on the exact features, FREE reasons added."""
    row.volume_z = bar.volume_z
    row.rsi = bar.rsi
    row.rsi_mean = bar.rsi_mean
    row.vwap_dev = bar.vwap_dev
    row.atr_pct = bar.atr_pct
    row.range_burst = math.inf if bits & BURST_BIT else -math.inf
    resolve(limits, bar.atr_7d, signal)
    reasons = find_reasons(row, limits, rules, signal)
    if reasons & LOW_VOLATILITY:
        return False
    return count_reasons(reasons) + (bits & COUNT_BITS) >= limits.min_reasons_for_alert


@njit
def _order(bar, bits, limits, rules, row, assessment, stage):
    """Stage2's plan for an alert and Stage3's decision about it."""
    row.close = bar.close
    row.atr = bar.atr
    row.support = bar.support
    row.resistance = bar.resistance
    row.major_support = bar.major_support
    row.major_resistance = bar.major_resistance
    row.daily_low = bar.daily_low
    row.daily_high = bar.daily_high
    assessment.timestamp = bar.timestamp
    assessment.price = bar.close
    assessment.atr = bar.atr
    assessment.confidence = bar.confidence
    assessment.side = -1 if bits & SHORT_BIT else 1
    assessment.anomalies = bits >> FLAGS_SHIFT & _FLAGS_MASK
    plan(row, limits, rules, assessment)
    stage3_decide(stage, assessment, rules)


@njit
def _advance(last, bars, inner, offsets, stage, rules, state, trades, used, period, closes):
    """Follow the order or the position through bar ``last``, or to where neither is left.

    A closed trade goes to ``trades[used]``; returns how many are used then.
    """
    first = bars[0].timestamp // period
    t = state.at
    while t < last and (stage.position.side != 0 or stage.order.side != 0):
        stage.last_time = bars[t].timestamp
        stage.last_close = bars[t].close
        t += 1
        bar, trade = bars[t], trades[used]
        if bar.timestamp - stage.last_time != rules.step_ms:
            # The gap is closed at the last bar before it: the next bar's equity bears the cost.
            used += stage3_gap(stage, rules, trade)
        else:
            finer = inner[offsets[t] : offsets[t + 1]]
            used += stage3_follow(stage, bar, finer, stage.cash, rules, trade)
        value = equity(stage, bar.close)
        state.peak = max(state.peak, value)
        state.drawdown = max(state.drawdown, 1.0 - value / state.peak)
        closes[bar.timestamp // period - first] = value
    state.at = t
    return used


@njit
def run_sets(
    bars,
    inner,
    offsets,
    times,
    packed,
    screen,
    own,
    prepared,
    params,
    rows,
    signals,
    found,
    stages,
    progress,
    trades,
    owners,
    period,
    closes,
    levels,
    counted,
    possible,
    places,
):
    """Trades of every set in ``params`` (k,) over prepared bars; returns how many. ``inner, offsets`` as in ``bulk``.

    ``own`` (T, n): the exact numbers of the own triggers, T ≥ 0.
    Written per set: ``stages`` (k,) of STAGE_STATE, which begin with their cash; ``progress`` (k,);
    ``closes`` (k, periods), equity at the last bar of each ``period`` (ms) that saw a position, NaN elsewhere.
    Written for all sets together: ``trades`` (room,), of each set in order, and ``owners`` (room,) i4, whose they
    are; room exceeds the alerts that a cool-down lets through, times k. ``times`` (n,) are the bars' timestamps.
    ``rows, signals, found`` (1,), ``levels`` (2, SLICE) f4, ``counted`` (SLICE,) u2, ``possible`` (SLICE,) u1 and
    ``places`` (SLICE + 1,) i4 are scratch; ``rows[0]`` must be all NaN.
    """
    row, signal, assessment, lows, highs = rows[0], signals[0], found[0], levels[0], levels[1]
    used = 0
    for k in range(params.size):
        progress[k].peak = stages[k].cash
    for first in range(0, bars.size, SLICE):
        last = min(first + SLICE, bars.size)
        for k in range(params.size):
            limits, rules, stage, state = params[k].limits, params[k].rules, stages[k], progress[k]
            lines, needed = _lines(limits), np.int32(limits.min_reasons_for_alert)
            _screen_slice(packed, screen, first, last, limits, lines, lows, highs, counted, possible)
            for c in range(_collect(possible, places)):
                i = places[c]
                t = first + i
                time = times[t]
                if state.last_alert > 0 and time - state.last_alert < rules.cooldown_ms:
                    continue
                bar, bits = prepared[t], np.int64(packed[t])
                # What own triggers compare is left to ``find_reasons``: their float32 screen has no margin.
                sure = limits.custom_count == 0 and _holds(
                    np.int32(bits),
                    bar.volume_z,
                    bar.rsi,
                    lows[i],
                    highs[i],
                    abs(bar.vwap_dev),
                    bar.atr_pct,
                    bar.atr_7d,
                    screen[6, t],
                    lines,
                    needed,
                    -MARGIN,
                )
                if not sure:
                    for j in range(limits.custom_count):
                        row.custom[limits.custom_first + j] = own[j, t]
                    if not _alerts(bar, bits, limits, rules, row, signal):
                        continue
                state.last_alert = time
                state.alerts += 1
                # Below min_confidence ``plan`` cannot end in a BUY or SELL: no need to ask it.
                if bar.confidence < limits.min_confidence:
                    continue
                before = used
                used = _advance(t, bars, inner, offsets, stage, rules, state, trades, used, period, closes[k])
                owners[before:used] = k
                if stage.position.side == 0 or rules.exit_on_opposite == 1:
                    _order(bar, bits, limits, rules, row, assessment, stage)
                    state.at = t
    for k in range(params.size):
        end, before = bars.size - 1, used
        stage, rules, state = stages[k], params[k].rules, progress[k]
        used = _advance(end, bars, inner, offsets, stage, rules, state, trades, used, period, closes[k])
        owners[before:used] = k
    return used
