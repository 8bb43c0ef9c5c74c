"""The nine Stage2 factors: how strongly each speaks for a long, in [−1, 1], under two readings.

*continuation*: the move goes on. *reversal*: the move is stretched and turns. A short is the mirror
image (the caller negates). Scales are in ATRs or bounded indicators, so that a factor is as alive on
BTC as on a meme coin. NaN: not available. The constants are the move that counts as full strength,
set near the 90th to 95th percentile of alert bars.
"""

from __future__ import annotations

import math

from aione_lab.jit import njit

CONTINUATION, REVERSAL = 0, 1


@njit
def clip(x):
    """X limited to [−1, 1]; NaN stays NaN."""
    return min(1.0, max(-1.0, x)) if x == x else math.nan


@njit
def strengths(row, reading, side, out):
    """Fill ``out`` (9,) with the strengths for ``side`` (1 long, −1 short) under ``reading``."""
    direction = 1.0 if reading == CONTINUATION else -1.0
    # Volume confirms whatever the price is doing; a climax speaks for the turn.
    out[0] = direction * clip(max(row.volume_z, 0.0) / 4.0) * clip(row.velocity / 2.0)
    # RSI 50 is neutral, 22 and 78 are full strength.
    out[1] = direction * clip((row.rsi - 50.0) / 28.0)
    # The MACD histogram itself, or its turn against where it stands.
    if reading == CONTINUATION:
        out[2] = clip(row.macd_hist / 0.4)
    else:
        out[2] = _turn(row.macd_hist, row.macd_hist_change)
    out[3] = direction * clip(row.ema_diff / 1.8)
    out[4] = direction * clip((row.stoch_k - 50.0) / 50.0)
    # Taker flow in favour of the side helps under either reading.
    out[5] = clip(row.flow_imbalance / 0.2)
    if row.atr_pct > 0.0:
        out[6] = direction * clip(row.vwap_dev / (6.0 * row.atr_pct))
    else:
        out[6] = math.nan
    out[7] = direction * clip(row.velocity / 4.5)
    half = 0.5 * (row.value_high - row.value_low)
    if half > 0.0:
        out[8] = direction * clip((row.close - row.poc) / (2.0 * half))
    else:
        out[8] = math.nan
    if side < 0:
        for i in range(out.size):
            out[i] = -out[i]


@njit
def _turn(histogram, change):
    """A histogram that moves back towards zero: positive for a turn upwards from below."""
    if not (histogram == histogram and change == change):
        return math.nan
    if histogram * change >= 0.0:
        return 0.0
    return clip(change / 0.12)


@njit
def contributions(strength, weights, out):
    """Fill ``out`` with weight × strength ÷ Σ weights of the available; return (score, coverage).

    Contributions are cut to multiples of 2⁻⁴⁰ towards zero, so that their sum is exact in any order and
    never beyond ±1: what an explanation adds up is the score to the last bit.
    """
    available = 0.0
    total = 0.0
    for i in range(weights.size):
        total += weights[i]
        if strength[i] == strength[i]:
            available += weights[i]
    score = 0.0
    for i in range(weights.size):
        out[i] = 0.0
        if strength[i] == strength[i] and available > 0.0:
            out[i] = math.trunc(weights[i] * strength[i] / available * 2.0**40) * 2.0**-40
            score += out[i]
    return score, available / total
