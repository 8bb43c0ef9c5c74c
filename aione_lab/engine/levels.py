"""Support and resistance, daily swings, and the confirmed swings behind RSI divergences.

Levels are the highs and lows of daily swings (fractals of ``level_swing_days`` days on each side,
among the last ``level_days`` completed UTC days, as many as there are yet), the previous day's high
and low, the rolling 24 h extremes and the extremes of the previous ``sr_window`` bars. A swing is
known only after the bars (or days) that confirm it. Source of the fractal: Williams, Trading Chaos.
"""

from __future__ import annotations

import math

from aione_lab.engine.records import LEVELS
from aione_lab.engine.rings import RINGS
from aione_lab.jit import njit
from aione_lab.units import DAY_MS

NAN = math.nan


@njit
def crossings(state, bar, row):
    """Levels known before this bar that its close crossed: previous close ≤ level < close, and mirrored.

    Rolling highs are broken upwards and rolling lows downwards only: a fall away from the highest price of
    the last bars breaks nothing. Levels of completed days are crossed in both directions. Of several, the
    outermost counts. ``row.sr_high`` and ``row.sr_low`` already exclude this bar.
    """
    daily = state.daily
    previous = state.prev_close
    up = -math.inf
    down = math.inf
    for level in (row.sr_high, state.prev_daily_high):
        if previous <= level < bar.close:
            up = max(up, level)
    for level in (row.sr_low, state.prev_daily_low):
        if previous >= level > bar.close:
            down = min(down, level)
    for level in _yesterday(daily, bar.timestamp):
        if previous <= level < bar.close:
            up = max(up, level)
        if previous >= level > bar.close:
            down = min(down, level)
    # Strictly inside the last close's bracket there is no swing level to cross.
    if not daily.below < bar.close < daily.above:
        for i in range(daily.n_levels):
            level = daily.levels[i]
            if previous <= level < bar.close:
                up = max(up, level)
            if previous >= level > bar.close:
                down = min(down, level)
    row.breakout_up = up if up > -math.inf else NAN
    row.breakout_down = down if down < math.inf else NAN


@njit
def nearest_levels(daily, timestamp, row):
    """Nearest levels strictly below and above the close; ``major_*`` leave the sr_window extremes out."""
    close = row.close
    below = -math.inf
    above = math.inf
    row.level_days = daily.count
    row.prev_day_high, row.prev_day_low = _yesterday(daily, timestamp)
    for level in (row.daily_high, row.daily_low, row.prev_day_high, row.prev_day_low):
        if below < level < close:
            below = level
        if above > level > close:
            above = level
    swing_below, swing_above = _bracket(daily, close)
    below = max(below, swing_below)
    above = min(above, swing_above)
    row.major_support = below if below > -math.inf else NAN
    row.major_resistance = above if above < math.inf else NAN
    for level in (row.sr_high, row.sr_low):
        if below < level < close:
            below = level
        if above > level > close:
            above = level
    row.support = below if below > -math.inf else NAN
    row.resistance = above if above < math.inf else NAN
    row.support_distance = NAN
    row.resistance_distance = NAN
    if row.atr > 0.0:
        row.support_distance = (close - row.support) / row.atr
        row.resistance_distance = (row.resistance - close) / row.atr


@njit
def _yesterday(daily, timestamp):
    """(high, low) of the last completed day; NaN where the newest one known is older than yesterday."""
    if daily.count == 0 or daily.last_day < timestamp // DAY_MS - 1:
        return NAN, NAN
    return daily.highs[daily.count - 1], daily.lows[daily.count - 1]


@njit
def _bracket(daily, close):
    """The swing levels next to ``close``, strictly below and above (±inf where there is none).

    They are kept until a close leaves them or a day is completed, so that most bars search nothing.
    With a level exactly at the close nothing is kept: the next bar has to look again.
    """
    if daily.below < close < daily.above:
        return daily.below, daily.above
    below = -math.inf
    above = math.inf
    touched = False
    for i in range(daily.n_levels):
        level = daily.levels[i]
        if below < level < close:
            below = level
        elif above > level > close:
            above = level
        elif level == close:
            touched = True
    daily.below = math.inf if touched else below
    daily.above = above
    return below, above


@njit
def _forget_bracket(daily):
    daily.below = math.inf
    daily.above = -math.inf


@njit
def daily_push(daily, bar, spec):
    """Add a bar to the running UTC day; a completed day joins the ring and the levels are found anew.

    Of a day in whose middle the stream began, the extremes are not known unless they were given; they
    count from its end on, like those of any other day.
    """
    into = bar.timestamp % DAY_MS
    if into == 0:
        daily.bars = 1
        daily.high = bar.high
        daily.low = bar.low
    elif daily.bars > 0:
        daily.bars += 1
        daily.high = max(daily.high, bar.high)
        daily.low = min(daily.low, bar.low)
    if into + spec.step_ms != DAY_MS:
        return
    day = bar.timestamp // DAY_MS
    if daily.bars > 0:
        daily.bars = 0
        add_day(daily, daily.high, daily.low, day, spec)
    elif daily.given_day == day:
        add_day(daily, daily.given_high, daily.given_low, day, spec)


@njit
def add_day(daily, high, low, day, spec):
    """Append completed day number ``day`` (days since 1970) and find the sorted swing levels anew.

    Of more than ``level_days`` the oldest is dropped.
    """
    if daily.count == spec.level_days:
        for i in range(daily.count - 1):
            daily.highs[i] = daily.highs[i + 1]
            daily.lows[i] = daily.lows[i + 1]
        daily.count -= 1
    daily.highs[daily.count] = high
    daily.lows[daily.count] = low
    daily.count += 1
    daily.last_day = day
    daily.n_levels = 0
    _forget_bracket(daily)
    wing = spec.level_swing_days
    for centre in range(wing, daily.count - wing):
        if _is_peak(daily.highs, 1.0, centre, wing):
            _insert_level(daily, daily.highs[centre])
        if _is_peak(daily.lows, -1.0, centre, wing):
            _insert_level(daily, daily.lows[centre])


@njit
def _is_peak(values, sign, centre, wing):
    """Above everything ``wing`` places to the left, and not below anything as far to the right."""
    top = sign * values[centre]
    for j in range(1, wing + 1):
        if sign * values[centre - j] >= top or sign * values[centre + j] > top:
            return False
    return True


@njit
def _insert_level(daily, level):
    if daily.n_levels == LEVELS:
        return
    i = daily.n_levels
    while i > 0 and daily.levels[i - 1] > level:
        daily.levels[i] = daily.levels[i - 1]
        i -= 1
    daily.levels[i] = level
    daily.n_levels += 1


@njit
def swings_push(swings, ring, bar, spec, number, row):
    """Confirm the bar ``swing_bars`` ago as a swing, and compare its RSI with the swing before it.

    ``bullish_divergence``: price made a lower low than the previous confirmed swing low, at most
    ``divergence_bars`` earlier; the number is how many RSI points higher it stands (negative: no
    divergence). NaN on bars that confirm no such low. ``bearish_divergence`` mirrors it.
    """
    wing = spec.swing_bars
    size = 2 * wing + 1
    # Each value is written twice, size places apart: the last `size` bars then always lie side by side.
    place = swings.place
    swings.place = place + 1 if place + 1 < size else 0
    highs, lows, rsis = RINGS.swing_highs, RINGS.swing_lows, RINGS.swing_rsis
    ring[highs + place] = ring[highs + place + size] = bar.high
    ring[lows + place] = ring[lows + place + size] = bar.low
    ring[rsis + place] = ring[rsis + place + size] = row.rsi
    swings.count += 1
    row.bullish_divergence = NAN
    row.bearish_divergence = NAN
    if swings.count >= size:
        at = place + 1 + wing
        centre = number - wing
        rsi = ring[rsis + at]
        if _is_peak(ring, 1.0, highs + at, wing):
            price = ring[highs + at]
            if swings.high_bar >= 0 and centre - swings.high_bar <= spec.divergence_bars and price > swings.high_price:
                row.bearish_divergence = swings.high_rsi - rsi
            swings.high_price = price
            swings.high_rsi = rsi
            swings.high_bar = centre
        if _is_peak(ring, -1.0, lows + at, wing):
            price = ring[lows + at]
            if swings.low_bar >= 0 and centre - swings.low_bar <= spec.divergence_bars and price < swings.low_price:
                row.bullish_divergence = rsi - swings.low_rsi
            swings.low_price = price
            swings.low_rsi = rsi
            swings.low_bar = centre
    row.swing_high = swings.high_price
    row.swing_low = swings.low_price


@njit
def reset_daily(daily):
    """Forget all days."""
    daily.given_day = -1
    daily.bars = 0
    daily.count = 0
    daily.n_levels = 0
    _forget_bracket(daily)


@njit
def reset_swings(swings):
    """Forget all swings."""
    swings.count = 0
    swings.place = 0
    swings.high_price = NAN
    swings.high_rsi = NAN
    swings.high_bar = -1
    swings.low_price = NAN
    swings.low_rsi = NAN
    swings.low_bar = -1
