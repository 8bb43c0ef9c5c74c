"""Adaptive thresholds: what an unset threshold is at a given ``atr_7d``.

``atr_7d`` is the trailing mean of one-bar ATR ÷ close: how much the symbol moves in a bar, as a
share of its price. Gates and the VWAP threshold are multiples of it, so that they mean the same on
BTC (0.03-0.05 % a minute) and on a coin three times as wild; the volume threshold falls from 3 to 2
standard deviations between ``CALM`` and ``WILD``, because volume is the more fat-tailed (and a large
z-score the more common) the calmer the symbol. All four are monotone in ``atr_7d``.
"""

from __future__ import annotations

from aione_lab.jit import njit

LOW_GATE_MULTIPLE = 0.75
HIGH_GATE_RATIO = 3.5
VWAP_MULTIPLE = 7.0
VOL_Z_CALM = 3.0
VOL_Z_WILD = 2.0
CALM = 0.0005
WILD = 0.0040


@njit
def adaptive_vol_z(atr_7d: float) -> float:
    """Volume z-score threshold: 3 up to CALM, 2 from WILD on, linear in between. NaN gives NaN."""
    if atr_7d <= CALM:
        return VOL_Z_CALM
    if atr_7d >= WILD:
        return VOL_Z_WILD
    return VOL_Z_CALM + (VOL_Z_WILD - VOL_Z_CALM) * ((atr_7d - CALM) / (WILD - CALM))


@njit
def resolve(limits, atr_7d, signal):
    """Write the four adaptive limits of this bar into ``signal``.

    ``limits`` is a LIMITS record: a NaN in ``low_gate``, ``high_gate``, ``vwap_threshold`` or
    ``vol_z_threshold`` means "from atr_7d", with the multiples beside it.
    """
    low = limits.low_gate
    if low != low:
        low = limits.low_multiple * atr_7d
    high = limits.high_gate
    if high != high:
        high = low * limits.high_ratio
    # A fixed high gate can meet a low gate that follows the symbol; too quiet and too wild never hold at once.
    high = max(high, low)
    vwap = limits.vwap_threshold
    if vwap != vwap:
        vwap = limits.vwap_multiple * atr_7d
    vol_z = limits.vol_z_threshold
    if vol_z != vol_z:
        vol_z = adaptive_vol_z(atr_7d)
    signal.low_gate = low
    signal.high_gate = high
    signal.vwap_threshold = vwap
    signal.vol_z_threshold = vol_z
