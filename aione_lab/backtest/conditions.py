"""What each Stage1 reason of a bar compared: the value it saw, and the limit that value met.

Narrative and explanation both rest on these lines. Nothing is decided here: the bit mask says which
reasons hold, this module only looks up the two numbers behind each of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from aione_lab.engine.event import decode_mask
from aione_lab.engine.spec import FeatureSpec
from aione_lab.engine.stage1 import rsi_levels

_rsi_levels = getattr(rsi_levels, "py_func", rsi_levels)  # as Python: it takes records and their plain copies

DEFAULT_SPEC = FeatureSpec()
"""No triggers or factors of one's own."""


class Condition(NamedTuple):
    """``reason`` holds because ``feature`` (``value``) stands in ``relation`` to ``limit``; NaN: not known."""

    reason: str
    feature: str
    value: float
    relation: str
    limit: float


def conditions(
    row: Any, signal: Any, limits: Any, rules: Any, spec: FeatureSpec = DEFAULT_SPEC
) -> tuple[Condition, ...]:
    """The conditions that hold, in the order of the reasons.

    ``row`` (FEATURES), ``signal`` (SIGNAL, with the mask and the resolved adaptive limits), ``limits``
    (LIMITS) and ``rules`` (RULES) are single records; ``spec`` names own triggers.
    """
    oversold, overbought = map(float, _rsi_levels(float(row.rsi_mean), limits))
    # A burst of the range and a high ATR make the same reason; the burst is named where it holds.
    by_range = row.range_burst >= rules.range_burst
    if by_range:
        volatile = ("range_burst", float(row.range_burst), "≥", float(rules.range_burst))
    else:
        volatile = ("atr_pct", float(row.atr_pct), ">", float(signal.high_gate))
    divergence = float(rules.divergence_min_rsi)
    near = float(rules.near_level)
    close = float(row.close)
    table: dict[str, tuple[str, float, str, float]] = {
        "VOLUME_SPIKE": ("volume_z", float(row.volume_z), "≥", float(signal.vol_z_threshold)),
        "RSI_OVERSOLD": ("rsi", float(row.rsi), "≤", oversold),
        "RSI_OVERBOUGHT": ("rsi", float(row.rsi), "≥", overbought),
        "RSI_BULLISH_DIVERGENCE": ("bullish_divergence", float(row.bullish_divergence), "≥", divergence),
        "RSI_BEARISH_DIVERGENCE": ("bearish_divergence", float(row.bearish_divergence), "≥", divergence),
        "BREAKOUT_UP": ("close", close, ">", float(row.breakout_up)),
        "BREAKOUT_DOWN": ("close", close, "<", float(row.breakout_down)),
        "NEAR_SUPPORT": ("support_distance", float(row.support_distance), "≤", near),
        "NEAR_RESISTANCE": ("resistance_distance", float(row.resistance_distance), "≤", near),
        "VWAP_DEVIATION": ("|vwap_dev|", abs(float(row.vwap_dev)), "≥", float(signal.vwap_threshold)),
        "VOLATILITY_SPIKE": volatile,
        "LOW_VOLATILITY": ("atr_pct", float(row.atr_pct), "<", float(signal.low_gate)),
    }
    for i, trigger in enumerate(spec.triggers):
        value = float(row.custom[int(limits.custom_first) + i])
        upwards = trigger.relation == ">="
        limit = float((limits.custom_least if upwards else limits.custom_most)[i])
        table[trigger.name] = (trigger.columns[0], value, "≥" if upwards else "≤", limit)
    return tuple(Condition(reason, *table[reason]) for reason in decode_mask(int(signal.reasons), spec.reasons))
