"""The features of one bar, from that bar and the memory of the bars before it.

``features_step`` is the only place where a feature is computed: replay loops over it, live calls it.
Thresholds and settings never enter. A feature that is not known yet is NaN. Each group of features
is one small function; sources stand with the formulas.
"""

from __future__ import annotations

import math

from aione_lab.engine.averages import ema_push, wilder_push
from aione_lab.engine.levels import crossings, daily_push, nearest_levels, reset_daily, reset_swings, swings_push
from aione_lab.engine.profile import profile_push, reset_profile
from aione_lab.engine.rings import CLOSES, RINGS, VELOCITIES, WEEK
from aione_lab.engine.windows import (
    moments_push,
    moments_value,
    pairs_push,
    pairs_value,
    range_push,
    range_value,
    sum_push,
    sum_so_far,
    sum_value,
    sums_push,
    sums_value,
)
from aione_lab.jit import njit

NAN = math.nan


@njit
def features_step(state, ring, bar, spec, row):
    """Advance ``state`` (FEATURE_STATE) and ``ring`` (ROWS,) by the closed candle ``bar`` (BAR) and fill
    ``row`` (FEATURES).
    """
    number = bar.timestamp // spec.step_ms
    typical = (bar.high + bar.low + bar.close) / 3.0
    row.close = bar.close
    _volatility(state, ring, bar, spec, number, row)
    _momentum(state, ring, bar, spec, number, row)
    _volume(state, ring, bar, spec, number, typical, row)
    _ranges(state, ring, bar, spec, number, row)
    _reference(state, ring, bar, spec, number, row)
    _higher_timeframes(state, bar, spec, typical, row)
    crossings(state, bar, row)
    daily_push(state.daily, bar, spec)
    swings_push(state.swings, ring, bar, spec, number, row)
    nearest_levels(state.daily, bar.timestamp, row)
    profile_push(state.profile, ring, typical, bar.volume, spec, number, row)
    state.prev_close = bar.close
    state.prev_daily_high = row.daily_high
    state.prev_daily_low = row.daily_low
    state.last_time = bar.timestamp
    state.seen += 1
    # Warm: every window of up to a day is full. Longer ones (7 days, 30 days) do not hold signals up.
    row.warm = 0.0
    if state.seen >= spec.day_bars and row.hour_atr_pct == row.hour_atr_pct and row.rsi_mean == row.rsi_mean:
        row.warm = 1.0


@njit
def _volatility(state, ring, bar, spec, number, row):
    """True range, Wilder's ATR (the first true range is high − low), its week's mean, and bursts."""
    true_range = bar.high - bar.low
    if state.seen > 0:
        true_range = max(true_range, abs(bar.high - state.prev_close), abs(bar.low - state.prev_close))
    row.true_range = true_range
    row.atr = wilder_push(state.atr, true_range, spec.atr_window)
    row.atr_pct = row.atr / bar.close

    row.atr_7d = NAN
    known = min(state.atr_7d.count, spec.atr_mean_bars)
    row.atr_7d_days = known / spec.day_bars
    if known > 0:
        row.atr_7d = sum_so_far(state.atr_7d, ring, RINGS.atr_7d) / known
    if row.atr_pct == row.atr_pct:
        sum_push(state.atr_7d, ring, RINGS.atr_7d, row.atr_pct, spec.atr_mean_bars, number)

    mean_range = sum_value(state.range_mean, ring, RINGS.range_mean, spec.range_window) / spec.range_window
    row.range_burst = NAN
    if mean_range > 0.0:
        row.range_burst = true_range / mean_range
    sum_push(state.range_mean, ring, RINGS.range_mean, true_range, spec.range_window, number)
    row.body = 0.0
    if true_range > 0.0:
        row.body = abs(bar.close - bar.open) / true_range


@njit
def _momentum(state, ring, bar, spec, number, row):
    """RSI (Wilder), MACD (Appel), stochastic (Lane), price change and velocity."""
    row.rsi = NAN
    row.rsi_mean = NAN
    if state.seen > 0:
        change = bar.close - state.prev_close
        gain = wilder_push(state.gain, max(change, 0.0), spec.rsi_window)
        loss = wilder_push(state.loss, max(-change, 0.0), spec.rsi_window)
        if gain == gain:
            # 100 − 100/(1 + gain/loss), written so that a flat price is 50 and not a division by zero.
            row.rsi = 50.0 if gain + loss == 0.0 else 100.0 * gain / (gain + loss)
            sum_push(state.rsi_mean, ring, RINGS.rsi_mean, row.rsi, spec.rsi_mean_window, number)
            row.rsi_mean = sum_value(state.rsi_mean, ring, RINGS.rsi_mean, spec.rsi_mean_window) / spec.rsi_mean_window

    fast = ema_push(state.ema_fast, bar.close, spec.macd_fast)
    slow = ema_push(state.ema_slow, bar.close, spec.macd_slow)
    signal = ema_push(state.macd_signal, state.ema_fast.value - state.ema_slow.value, spec.macd_signal)
    row.ema_diff = NAN
    row.macd_hist = NAN
    row.macd_hist_change = NAN
    if row.atr > 0.0:
        row.ema_diff = (fast - slow) / row.atr
        # The signal line starts with the MACD line, so it is warm macd_signal bars after the slow EMA.
        if state.ema_slow.count >= spec.macd_slow + spec.macd_signal:
            histogram = fast - slow - signal
            row.macd_hist = histogram / row.atr
            row.macd_hist_change = (histogram - state.prev_macd_hist) / row.atr
    state.prev_macd_hist = fast - slow - signal

    highs, lows = RINGS.stoch_high, RINGS.stoch_low
    range_push(state.stochastic, ring, highs, lows, bar.high, bar.low, spec.stochastic_window, number)
    high, low = range_value(state.stochastic, ring, highs, lows, spec.stochastic_window)
    row.stoch_k = NAN
    row.stoch_d = NAN
    if high == high:
        row.stoch_k = 50.0 if high == low else 100.0 * (bar.close - low) / (high - low)
        sum_push(state.stoch_mean, ring, RINGS.stoch_mean, row.stoch_k, spec.stochastic_smooth, number)
        smooth = spec.stochastic_smooth
        row.stoch_d = sum_value(state.stoch_mean, ring, RINGS.stoch_mean, smooth) / smooth

    row.price_change = NAN
    if state.seen >= spec.sr_window:
        row.price_change = bar.close / ring[RINGS.closes + (number - spec.sr_window) % CLOSES] - 1.0
    row.velocity = NAN
    row.acceleration = NAN
    if state.seen >= spec.velocity_window and row.atr > 0.0:
        row.velocity = (bar.close - ring[RINGS.closes + (number - spec.velocity_window) % CLOSES]) / row.atr
        row.acceleration = row.velocity - ring[RINGS.velocities + (number - spec.velocity_window) % VELOCITIES]
    ring[RINGS.velocities + number % VELOCITIES] = row.velocity
    ring[RINGS.closes + number % CLOSES] = bar.close


@njit
def _volume(state, ring, bar, spec, number, typical, row):
    """Volume against the previous bars, VWAP of typical prices, taker-buy imbalance."""
    row.volume = bar.volume
    means, m2s = RINGS.volume_means, RINGS.volume_m2s
    row.volume_mean, row.volume_std = moments_value(state.volume, ring, means, m2s, spec.volume_window)
    row.volume_z = NAN
    if row.volume_std > 0.0:
        row.volume_z = (bar.volume - row.volume_mean) / row.volume_std
    moments_push(state.volume, ring, means, m2s, bar.volume, spec.volume_window, number)

    values, volumes = RINGS.vwap_value, RINGS.vwap_volume
    sums_push(state.vwap, ring, values, volumes, typical * bar.volume, bar.volume, spec.vwap_window, number)
    value, volume = sums_value(state.vwap, ring, values, volumes, spec.vwap_window)
    row.vwap = NAN
    row.vwap_dev = NAN
    if volume > 0.0:
        row.vwap = value / volume
        row.vwap_dev = bar.close / row.vwap - 1.0

    row.taker_imbalance = NAN
    if bar.volume > 0.0:
        row.taker_imbalance = 2.0 * bar.taker_buy_volume / bar.volume - 1.0
    buys, volumes = RINGS.flow_buy, RINGS.flow_all
    sums_push(state.flow, ring, buys, volumes, bar.taker_buy_volume, bar.volume, spec.flow_window, number)
    bought, volume = sums_value(state.flow, ring, buys, volumes, spec.flow_window)
    row.flow_imbalance = NAN
    if volume > 0.0:
        row.flow_imbalance = 2.0 * bought / volume - 1.0


@njit
def _ranges(state, ring, bar, spec, number, row):
    """High and low of the previous sr_window bars, and the rolling day with this bar in it."""
    highs, lows = RINGS.sr_high, RINGS.sr_low
    row.sr_high, row.sr_low = range_value(state.sr, ring, highs, lows, spec.sr_window)
    range_push(state.sr, ring, highs, lows, bar.high, bar.low, spec.sr_window, number)
    highs, lows = RINGS.day_high, RINGS.day_low
    range_push(state.day, ring, highs, lows, bar.high, bar.low, spec.day_bars, number)
    row.daily_high, row.daily_low = range_value(state.day, ring, highs, lows, spec.day_bars)
    row.daily_range = row.daily_high - row.daily_low


@njit
def _reference(state, ring, bar, spec, number, row):
    """Correlation of log returns with the reference; pairs need both bars at both times."""
    own = NAN
    other = NAN
    if state.seen > 0:
        own = math.log(bar.close / state.prev_close)
        other = math.log(bar.reference_close / state.prev_reference)
    state.prev_reference = bar.reference_close
    pairs_push(state.pairs, ring, RINGS.pairs, own, other, spec.correlation_window, number)
    n, mean_x, mean_y, m2_x, m2_y, c_xy = pairs_value(state.pairs, ring, RINGS.pairs, spec.correlation_window)
    row.correlation = NAN
    row.relative_strength = NAN
    row.market_drift = NAN
    if 2.0 * n >= spec.correlation_window:
        row.relative_strength = n * (mean_x - mean_y)
        if m2_y > 0.0:
            row.market_drift = n * mean_y / math.sqrt(m2_y)
            if m2_x > 0.0:
                row.correlation = min(1.0, max(-1.0, c_xy / math.sqrt(m2_x * m2_y)))


@njit
def _higher_timeframes(state, bar, spec, typical, row):
    """Trend, ATR and turnover from *completed* higher bars only."""
    quote = bar.quote_volume
    if quote != quote:
        quote = typical * bar.volume
    _higher_push(state.higher_1, bar, quote, spec.higher_1_ms, spec)
    _higher_push(state.higher_2, bar, quote, spec.higher_2_ms, spec)
    row.trend_1_strength = state.higher_1.strength
    row.trend_2_strength = state.higher_2.strength
    row.trend_1 = _direction(state.higher_1.strength, spec.trend_min)
    row.trend_2 = _direction(state.higher_2.strength, spec.trend_min)
    if spec.hour_is_first == 1:
        row.hour_atr_pct = state.higher_1.atr_pct
        row.hour_quote_volume = state.higher_1.last_quote_volume
    else:
        row.hour_atr_pct = state.higher_2.atr_pct
        row.hour_quote_volume = state.higher_2.last_quote_volume


@njit
def _direction(strength, least):
    if strength != strength:
        return NAN
    if strength >= least:
        return 1.0
    if strength <= -least:
        return -1.0
    return 0.0


@njit
def _higher_push(higher, bar, quote_volume, span_ms, spec):
    """Add a base bar; when it completes the higher bar, update trend strength, ATR and turnover."""
    into = bar.timestamp % span_ms
    if into == 0:
        higher.bars = 1
        higher.high = bar.high
        higher.low = bar.low
        higher.quote_volume = quote_volume
    elif higher.bars > 0:
        higher.bars += 1
        higher.high = max(higher.high, bar.high)
        higher.low = min(higher.low, bar.low)
        higher.quote_volume += quote_volume
    if higher.bars == 0 or into + spec.step_ms != span_ms:
        return
    true_range = higher.high - higher.low
    if higher.atr.count > 0:
        true_range = max(true_range, abs(higher.high - higher.prev_close), abs(higher.low - higher.prev_close))
    atr = wilder_push(higher.atr, true_range, spec.atr_window)
    fast = ema_push(higher.fast, bar.close, spec.trend_fast)
    slow = ema_push(higher.slow, bar.close, spec.trend_slow)
    higher.strength = (fast - slow) / atr if atr > 0.0 else NAN
    higher.atr_pct = atr / bar.close
    higher.last_quote_volume = higher.quote_volume
    higher.prev_close = bar.close
    higher.bars = 0


@njit
def _reset_higher(higher):
    higher.bars = 0
    higher.fast.count = 0
    higher.slow.count = 0
    higher.atr.count = 0
    higher.atr.value = 0.0
    higher.strength = NAN
    higher.atr_pct = NAN
    higher.last_quote_volume = NAN


@njit
def features_reset(state, ring):
    """Forget everything: the next bar is the first one. Used at the start and after a missing bar."""
    state.seen = 0
    state.last_time = 0
    state.prev_close = NAN
    state.prev_reference = NAN
    state.prev_macd_hist = NAN
    state.prev_daily_high = NAN
    state.prev_daily_low = NAN
    for average in (state.gain, state.loss, state.atr, state.ema_fast, state.ema_slow, state.macd_signal):
        average.value = 0.0
        average.count = 0
    for window in (state.rsi_mean, state.range_mean, state.stoch_mean, state.atr_7d):
        window.count = 0
    for sums in (state.vwap, state.flow):
        sums.count = 0
    for extremes in (state.stochastic, state.sr, state.day):
        extremes.count = 0
    state.volume.count = 0
    state.pairs.count = 0
    for i in range(WEEK):  # the only window that is summed before it is full
        ring[RINGS.atr_7d + i] = 0.0
    _reset_higher(state.higher_1)
    _reset_higher(state.higher_2)
    reset_daily(state.daily)
    reset_swings(state.swings)
    reset_profile(state.profile)
