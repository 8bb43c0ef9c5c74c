"""Stage1: which triggers hold on a bar, and whether they make an ALERT."""

from __future__ import annotations

from aione_lab.engine.records import REASONS, SIGNALS, SUPPRESSED
from aione_lab.jit import njit
from aione_lab.thresholds.adaptive import resolve
from aione_lab.units import HOUR_MS

(
    VOLUME_SPIKE,
    RSI_OVERSOLD,
    RSI_OVERBOUGHT,
    BULLISH_DIVERGENCE,
    BEARISH_DIVERGENCE,
    BREAKOUT_UP,
    BREAKOUT_DOWN,
    NEAR_SUPPORT,
    NEAR_RESISTANCE,
    VWAP_DEVIATION,
    VOLATILITY_SPIKE,
    LOW_VOLATILITY,
) = (1 << i for i in range(len(REASONS)))

FIRST_CUSTOM = 1 << len(REASONS)

NONE, NORMAL, ALERT = range(len(SIGNALS))
_, BY_LOW_VOLATILITY, BY_VOLUME, BY_HOUR, BY_COOLDOWN = range(len(SUPPRESSED))


@njit
def ready(row):
    """Warm, and the numbers every alert needs are there (a frozen symbol has no ATR or volume_z)."""
    return (
        row.warm == 1.0
        and row.atr > 0.0
        and row.atr_7d > 0.0
        and row.rsi == row.rsi
        and row.volume_z == row.volume_z
    )


@njit
def rsi_levels(rsi_mean, limits):
    """(oversold, overbought): static, or the rolling mean RSI ÷ and × the multiplier, within 10…90.

    NaN where the levels are dynamic and the mean is not known.
    """
    multiplier = limits.dynamic_rsi_multiplier
    if multiplier != multiplier:
        return limits.rsi_oversold, limits.rsi_overbought
    if rsi_mean != rsi_mean:
        return rsi_mean, rsi_mean
    return min(90.0, max(10.0, rsi_mean / multiplier)), min(90.0, max(10.0, rsi_mean * multiplier))


@njit
def find_reasons(row, limits, rules, signal):
    """Bit mask of the reasons that hold; ``signal`` already carries the resolved adaptive limits.

    Comparisons with NaN are false: a feature that is not known never triggers.
    """
    oversold, overbought = rsi_levels(row.rsi_mean, limits)
    reasons = 0
    if row.volume_z >= signal.vol_z_threshold:
        reasons |= VOLUME_SPIKE
    if row.rsi <= oversold:
        reasons |= RSI_OVERSOLD
    if row.rsi >= overbought:
        reasons |= RSI_OVERBOUGHT
    if row.bullish_divergence >= rules.divergence_min_rsi:
        reasons |= BULLISH_DIVERGENCE
    if row.bearish_divergence >= rules.divergence_min_rsi:
        reasons |= BEARISH_DIVERGENCE
    if row.breakout_up == row.breakout_up:
        reasons |= BREAKOUT_UP
    if row.breakout_down == row.breakout_down:
        reasons |= BREAKOUT_DOWN
    # The level crossed on this very bar makes a breakout; it is not counted again as a level nearby.
    if row.support_distance <= rules.near_level and row.support != row.breakout_up:
        reasons |= NEAR_SUPPORT
    if row.resistance_distance <= rules.near_level and row.resistance != row.breakout_down:
        reasons |= NEAR_RESISTANCE
    if abs(row.vwap_dev) >= signal.vwap_threshold:
        reasons |= VWAP_DEVIATION
    if row.range_burst >= rules.range_burst or row.atr_pct > signal.high_gate:
        reasons |= VOLATILITY_SPIKE
    if row.atr_pct < signal.low_gate:
        reasons |= LOW_VOLATILITY
    for i in range(limits.custom_count):
        value = row.custom[limits.custom_first + i]
        if value >= limits.custom_least[i] or value <= limits.custom_most[i]:
            reasons |= FIRST_CUSTOM << i
    return reasons


@njit
def count_reasons(reasons):
    """Distinct reasons that count towards an alert: all but LOW_VOLATILITY."""
    counted = reasons & ~LOW_VOLATILITY
    n = 0
    while counted:
        counted &= counted - 1
        n += 1
    return n


@njit
def gate(stage, timestamp, row, reasons, rules):
    """0 when nothing stands against an alert, else the index into SUPPRESSED of the first that does."""
    if reasons & LOW_VOLATILITY or not row.hour_atr_pct >= rules.min_atr_percent:
        return BY_LOW_VOLATILITY
    if not row.hour_quote_volume >= rules.min_volume_usd:
        return BY_VOLUME
    if rules.excluded_hours >> (timestamp // HOUR_MS % 24) & 1:
        return BY_HOUR
    if stage.last_alert > 0 and timestamp - stage.last_alert < rules.cooldown_ms:
        return BY_COOLDOWN
    return 0


@njit
def stage1_step(stage, timestamp, row, limits, rules, signal):
    """Fill the Stage1 half of ``signal`` (SIGNAL) and remember an alert for the cool-down."""
    signal.timestamp = timestamp
    signal.signal = NONE
    signal.suppressed = 0
    signal.reasons = 0
    resolve(limits, row.atr_7d, signal)
    if not ready(row):
        return
    signal.signal = NORMAL
    signal.reasons = find_reasons(row, limits, rules, signal)
    if count_reasons(signal.reasons) < limits.min_reasons_for_alert:
        return
    signal.suppressed = gate(stage, timestamp, row, signal.reasons, rules)
    if signal.suppressed == 0:
        signal.signal = ALERT
        stage.last_alert = timestamp
