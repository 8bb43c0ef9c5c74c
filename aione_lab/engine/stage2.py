"""Stage2: what an ALERT bar means. Context, score, confidence, risk and recommendation.

``assess`` needs a row of features and the limits, nothing else, so that a single alert can be
assessed on its own. Only ``atr, rsi, volume_z, daily_high, daily_low`` and the close must be known.
"""

from __future__ import annotations

import math

from aione_lab.engine.factors import CONTINUATION, REVERSAL, contributions, strengths
from aione_lab.engine.records import DETAILS, FACTORS, FLAGS, RECOMMENDATIONS, SCENARIOS
from aione_lab.engine.stage1 import (
    BEARISH_DIVERGENCE,
    BREAKOUT_DOWN,
    BREAKOUT_UP,
    BULLISH_DIVERGENCE,
    RSI_OVERSOLD,
    VOLUME_SPIKE,
)
from aione_lab.jit import njit

NAN = math.nan
VOLATILITY_FLAG, TREND_REVERSAL_FLAG, AGAINST_FLAG, MANIPULATION_FLAG, LIQUIDITY_FLAG = (
    1 << i for i in range(len(FLAGS))
)
(
    RANGE_BOUND,
    BREAKOUT_WITH_VOLUME,
    REVERSAL_FROM_SUPPORT,
    REVERSAL_FROM_RESISTANCE,
    MOMENTUM,
    HIGH_VOLATILITY,
    AGAINST_THE_MARKET,
    CAPITULATION,
) = range(len(SCENARIOS))
_, BUY, WAIT, AVOID, AVOID_HIGH_RISK, SELL = range(len(RECOMMENDATIONS))
_, ALL_GATES_MET, MANIPULATION, LIQUIDITY, WEAK_SCORE, RISK_REWARD, ROOM, CONFIDENCE = range(len(DETAILS))
LOW, NORMAL, HIGH = range(3)
TARGET_STEPS = (1.0, 1.5, 2.0)
FIRST_CUSTOM = len(FACTORS)


@njit
def assess(timestamp, row, reasons, limits, rules, found):
    """Fill ``found`` (ASSESSMENT) for the alert whose features are ``row``."""
    found.timestamp = timestamp
    found.price = row.close
    found.atr = row.atr
    judge(row, reasons, rules, found)
    plan(row, limits, rules, found)


@njit
def judge(row, reasons, rules, found):
    """Hypothesis, context and confidence: what the thresholds have no part in."""
    _hypothesis(row, rules, found)
    _context(row, reasons, rules, found)
    _confidence(rules, found)


@njit
def plan(row, limits, rules, found):
    """Risk and recommendation for a judged alert: where the thresholds enter."""
    _risk(row, limits, rules, found)
    _recommend(limits, rules, found)


@njit
def _hypothesis(row, rules, found):
    """Choose side and reading by the larger score; of equals the first, long continuation."""
    best = -math.inf
    best_side = 1
    best_reading = CONTINUATION
    score = 0.0
    coverage = 0.0
    choices = 4 if rules.allow_shorts == 1 else 2
    for i in range(choices + 1):
        # The last round is the best one again, and leaves its numbers in ``found``.
        side = 1 - 2 * (i // 2) if i < choices else best_side
        reading = i % 2 if i < choices else best_reading
        strengths(row, reading, side, found.strengths)
        for j in range(FIRST_CUSTOM, found.strengths.size):
            found.strengths[j] = NAN
            if rules.weights[j] > 0.0:
                found.strengths[j] = side * row.custom[2 * (j - FIRST_CUSTOM) + reading]
        score, coverage = contributions(found.strengths, rules.weights, found.contributions)
        if score > best:
            best = score
            best_side = side
            best_reading = reading
    found.score = score
    found.coverage = coverage
    found.side = best_side
    found.reading = best_reading


@njit
def _context(row, reasons, rules, found):
    """Trend, volatility, levels, the reference, anomalies, and the first scenario whose rule holds.

    Near: at most one ATR away. Momentum: |velocity| ≥ momentum_velocity. Against the market: the reference
    drifts against the side by ``market_drift`` of its own standard deviations. In this order:

    CAPITULATION              momentum down, RSI_OVERSOLD, volume_z ≥ capitulation_volume_z
    BREAKOUT_WITH_VOLUME      a breakout and VOLUME_SPIKE
    REVERSAL_FROM_SUPPORT     near support: a long reads a reversal, or a short sees the fall slow down
    REVERSAL_FROM_RESISTANCE  near resistance: a short reads a reversal, or a long sees the rise slow down
    AGAINST_THE_MARKET        against the market while the symbol moved with the side
    HIGH_VOLATILITY           ATR/close ≥ volatility_high × atr_7d
    MOMENTUM                  momentum
    RANGE_BOUND               none of these
    """
    side = found.side
    trend = 0.0
    if row.trend_1 == row.trend_1:
        trend += row.trend_1
    if row.trend_2 == row.trend_2:
        trend += row.trend_2
    found.trend = 1 if trend > 0.0 else (-1 if trend < 0.0 else 0)
    found.volatility = NORMAL
    if row.atr_7d > 0.0:
        ratio = row.atr_pct / row.atr_7d
        if ratio < rules.volatility_low:
            found.volatility = LOW
        elif ratio > rules.volatility_high:
            found.volatility = HIGH
    found.support = row.support
    found.resistance = row.resistance
    found.next_major = row.major_resistance if side > 0 else row.major_support
    found.correlation = row.correlation
    found.relative_strength = row.relative_strength
    found.independent = -1
    if row.correlation == row.correlation:
        found.independent = 1 if row.correlation < rules.context_min_correlation else 0

    against = side * row.market_drift <= -rules.market_drift
    flags = 0
    if found.volatility == HIGH:
        flags |= VOLATILITY_FLAG
    if reasons & (BULLISH_DIVERGENCE | BEARISH_DIVERGENCE) or row.trend_1 * row.trend_2 < 0.0:
        flags |= TREND_REVERSAL_FLAG
    if against:
        flags |= AGAINST_FLAG
    if row.volume_z >= rules.manipulation_volume_z and row.body <= rules.manipulation_body:
        flags |= MANIPULATION_FLAG
    if row.hour_quote_volume < rules.low_liquidity_usd:
        flags |= LIQUIDITY_FLAG
    found.anomalies = flags

    momentum = abs(row.velocity) >= rules.momentum_velocity
    sold_off = row.velocity <= -rules.momentum_velocity and reasons & RSI_OVERSOLD
    at_support = row.support_distance <= 1.0
    at_resistance = row.resistance_distance <= 1.0
    turning = found.reading == REVERSAL
    if sold_off and row.volume_z >= rules.capitulation_volume_z:
        found.scenario = CAPITULATION
    elif reasons & (BREAKOUT_UP | BREAKOUT_DOWN) and reasons & VOLUME_SPIKE:
        found.scenario = BREAKOUT_WITH_VOLUME
    elif at_support and (turning if side > 0 else row.acceleration > 0.0):
        found.scenario = REVERSAL_FROM_SUPPORT
    elif at_resistance and (turning if side < 0 else row.acceleration < 0.0):
        found.scenario = REVERSAL_FROM_RESISTANCE
    elif against and side * row.price_change > 0.0:
        found.scenario = AGAINST_THE_MARKET
    elif found.volatility == HIGH:
        found.scenario = HIGH_VOLATILITY
    elif momentum:
        found.scenario = MOMENTUM
    else:
        found.scenario = RANGE_BOUND


@njit
def _confidence(rules, found):
    """max(0, score), lifted when clustered, then discounted: monotone in every factor."""
    confirmed = 0
    for strength in found.strengths:
        if strength >= rules.cluster_strength:
            confirmed += 1
    found.confirmed = confirmed
    found.clustered = 1 if confirmed >= rules.min_cluster else 0
    found.lifted = max(0.0, found.score)
    if found.clustered == 1:
        found.lifted += rules.cluster_lift * (1.0 - found.lifted)
    found.volatile_factor = 1.0
    if found.volatility == HIGH:
        found.volatile_factor = rules.volatile_discount
    found.market_factor = 1.0
    if found.anomalies & AGAINST_FLAG and found.independent != 1:
        found.market_factor = rules.against_market_discount
    found.confidence = found.lifted * found.volatile_factor * found.market_factor


@njit
def to_tick(price, tick, up):
    """``price`` on the symbol's grid, rounded up or down; unchanged where no tick is known."""
    if not tick > 0.0 or price != price:
        return price
    # A price that is on the grid but for floating-point noise stays where it is.
    steps = math.ceil(price / tick - 1e-6) if up else math.floor(price / tick + 1e-6)
    # Dividing by a whole number of steps a unit gives the float nearest to the printed price: 0.3, where
    # 3 × 0.1 is 0.30000000000000004 and a low of exactly 0.3 would not touch it.
    per_unit = math.floor(1.0 / tick + 0.5)
    if per_unit > 0.0 and abs(per_unit * tick - 1.0) < 1e-9:
        return steps / per_unit
    return steps * tick


@njit
def _risk(row, limits, rules, found):
    """Stop, targets and entry zone; a short is the long of the mirrored prices (side × price)."""
    side = float(found.side)
    price = side * row.close
    atr = row.atr
    if side > 0.0:
        level, extreme, major = row.support, row.daily_low, row.major_resistance
    else:
        level, extreme, major = -row.resistance, -row.daily_high, -row.major_support
    stop = price - limits.sl_mult * atr
    if level == level:
        stop = max(stop, level - 0.5 * atr)
    if extreme == extreme:
        stop = max(stop, extreme)
    stop = min(stop, price - rules.min_stop * atr)
    # Away from optimism: the stop further off, the targets nearer, the entry dearer.
    long = side > 0.0
    found.stop = to_tick(side * stop, rules.tick_size, not long)
    stop = side * found.stop

    cap = math.inf
    if major == major:
        cap = major - min(rules.tp_buffer_eps * row.close, 0.1 * atr)
    previous = price
    kept = 0
    for i in range(3):
        target = min(price + limits.tp_mult * atr * TARGET_STEPS[i], cap)
        target = side * to_tick(side * target, rules.tick_size, not long)
        found.targets[i] = NAN
        if target > previous:
            found.targets[kept] = side * target
            previous = target
            kept += 1

    entry = max(price - rules.entry_spread_percent * row.close, stop + 0.25 * (price - stop))
    if level == level:
        entry = max(entry, level)
    entry = min(price, side * to_tick(side * entry, rules.tick_size, long))
    found.entry_low = min(side * entry, row.close)
    found.entry_high = max(side * entry, row.close)
    # Without a target above the price there is nothing to gain.
    found.risk_reward = (side * found.targets[0] - price) / (price - stop) if kept > 0 else 0.0
    opposing = row.resistance if long else -row.support
    found.room = math.inf
    if opposing == opposing:
        found.room = (opposing - price) / atr


@njit
def _recommend(limits, rules, found):
    """The first rule that decides, in the order of DETAILS."""
    if found.anomalies & MANIPULATION_FLAG:
        found.recommendation, found.detail = AVOID_HIGH_RISK, MANIPULATION
    elif found.anomalies & LIQUIDITY_FLAG:
        found.recommendation, found.detail = AVOID_HIGH_RISK, LIQUIDITY
    elif found.confidence < min(rules.watch_confidence, limits.min_confidence):
        found.recommendation, found.detail = AVOID, WEAK_SCORE
    elif found.risk_reward < rules.min_risk_reward or found.targets[0] != found.targets[0]:
        found.recommendation, found.detail = WAIT, RISK_REWARD
    elif found.room < limits.atr_target:
        found.recommendation, found.detail = WAIT, ROOM
    elif found.confidence < limits.min_confidence:
        found.recommendation, found.detail = WAIT, CONFIDENCE
    else:
        found.recommendation, found.detail = (BUY if found.side > 0 else SELL), ALL_GATES_MET
