"""Plain twins of Stage1 and Stage2, from the contract, on rows of features as mappings.

Dictionaries, names instead of codes, sets instead of bit masks, one formula for longs that shorts reach by
mirroring the row. NaN means unknown throughout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from aione_lab.settings import Costs, Settings
from aione_lab.thresholds import Thresholds

NAN = math.nan
Row = Mapping[str, float]
LONG, SHORT = 1, -1


def known(*values: float) -> bool:
    return not any(math.isnan(value) for value in values)


# ---- Stage1 ------------------------------------------------------------------------------------


def ref_limits(thresholds: Thresholds, atr_7d: float) -> dict[str, float]:
    """The four adaptive limits at ``atr_7d``, from what the threshold says: number, multiple or nothing."""

    def resolve(value: float | str | None, default: str, unit: float) -> float:
        value = default if value is None else value
        return float(value.rstrip("x")) * unit if isinstance(value, str) else value

    low = resolve(thresholds.low_gate, "0.75x", atr_7d)
    volume = thresholds.vol_z_threshold
    if volume is None:
        wild = (atr_7d - 0.0005) / (0.004 - 0.0005)
        volume = 3.0 - min(1.0, max(0.0, wild)) if known(atr_7d) else NAN
    return {
        "low_gate": low,
        "high_gate": max(low, resolve(thresholds.high_gate, "3.5x", low)),
        "vwap_threshold": resolve(thresholds.vwap_threshold, "7.0x", atr_7d),
        "vol_z_threshold": volume,
    }


def ref_reasons(row: Row, thresholds: Thresholds, settings: Settings) -> list[str]:
    """The reasons that hold, in the order of the contract."""
    limit = ref_limits(thresholds, row["atr_7d"])
    low, high = thresholds.rsi_oversold, thresholds.rsi_overbought
    if thresholds.dynamic_rsi_multiplier is not None:
        low = sorted([10.0, row["rsi_mean"] / thresholds.dynamic_rsi_multiplier, 90.0])[1]
        high = sorted([10.0, row["rsi_mean"] * thresholds.dynamic_rsi_multiplier, 90.0])[1]
    up, down = known(row["breakout_up"]), known(row["breakout_down"])
    holds = {
        "VOLUME_SPIKE": row["volume_z"] >= limit["vol_z_threshold"],
        "RSI_OVERSOLD": row["rsi"] <= low,
        "RSI_OVERBOUGHT": row["rsi"] >= high,
        "RSI_BULLISH_DIVERGENCE": row["bullish_divergence"] >= settings.divergence_min_rsi,
        "RSI_BEARISH_DIVERGENCE": row["bearish_divergence"] >= settings.divergence_min_rsi,
        "BREAKOUT_UP": up,
        "BREAKOUT_DOWN": down,
        "NEAR_SUPPORT": row["support_distance"] <= settings.near_level and row["support"] != row["breakout_up"],
        "NEAR_RESISTANCE": row["resistance_distance"] <= settings.near_level
        and row["resistance"] != row["breakout_down"],
        "VWAP_DEVIATION": abs(row["vwap_dev"]) >= limit["vwap_threshold"],
        "VOLATILITY_SPIKE": row["range_burst"] >= settings.range_burst or row["atr_pct"] > limit["high_gate"],
        "LOW_VOLATILITY": row["atr_pct"] < limit["low_gate"],
    }
    return [name for name, held in holds.items() if held]


def ref_ready(row: Row) -> bool:
    return row["warm"] == 1 and row["atr"] > 0 and row["atr_7d"] > 0 and known(row["rsi"], row["volume_z"])


def ref_stage1(
    stamps: list[int], rows: list[Row], thresholds: Thresholds, settings: Settings
) -> list[tuple[str, list[str], str]]:
    """(signal, reasons, why suppressed) of every bar, cool-down included."""
    out: list[tuple[str, list[str], str]] = []
    last_alert = None
    for stamp, row in zip(stamps, rows, strict=True):
        if not ref_ready(row):
            out.append(("NONE", [], ""))
            continue
        reasons = ref_reasons(row, thresholds, settings)
        why = ""
        if len(set(reasons) - {"LOW_VOLATILITY"}) < thresholds.min_reasons_for_alert:
            out.append(("NORMAL", reasons, why))
            continue
        hour = stamp // 3_600_000 % 24
        if "LOW_VOLATILITY" in reasons or not row["hour_atr_pct"] >= settings.min_atr_percent:
            why = "low_volatility"
        elif not row["hour_quote_volume"] >= settings.min_volume_usd:
            why = "volume"
        elif hour in settings.exclude_hours:
            why = "hour"
        elif last_alert is not None and stamp - last_alert < settings.cooldown_period * 1000:
            why = "cooldown"
        else:
            last_alert = stamp
        out.append(("NORMAL" if why else "ALERT", reasons, why))
    return out


# ---- Stage2 ------------------------------------------------------------------------------------

FULL = {  # what counts as full strength
    "volume_z": 4.0,
    "volume_velocity": 2.0,
    "rsi": 28.0,
    "macd": 0.4,
    "macd_turn": 0.12,
    "ema": 1.8,
    "flow": 0.2,
    "vwap_atrs": 6.0,
    "velocity": 4.5,
    "value_area_halves": 2.0,
}


def clip(x: float) -> float:
    return x if math.isnan(x) else sorted([-1.0, x, 1.0])[1]


def ref_strengths(row: Row, reading: str, side: int = LONG) -> dict[str, float]:
    """Nine strengths for ``side``; ``reading`` is continuation or reversal."""
    on = reading == "continuation"
    sign = 1 if on else -1
    climax = clip(max(0.0, row["volume_z"]) / FULL["volume_z"]) if known(row["volume_z"]) else NAN
    turn = NAN
    if known(row["macd_hist"], row["macd_hist_change"]):
        opposed = row["macd_hist"] * row["macd_hist_change"] < 0
        turn = clip(row["macd_hist_change"] / FULL["macd_turn"]) if opposed else 0.0
    vwap = NAN
    if row["atr_pct"] > 0:
        vwap = clip(row["vwap_dev"] / (FULL["vwap_atrs"] * row["atr_pct"]))
    profile = NAN
    width = row["value_high"] - row["value_low"]
    if width > 0:
        profile = clip((row["close"] - row["poc"]) / (FULL["value_area_halves"] * 0.5 * width))
    strengths = {
        "volume": sign * climax * clip(row["velocity"] / FULL["volume_velocity"]),
        "rsi": sign * clip((row["rsi"] - 50) / FULL["rsi"]),
        "macd": clip(row["macd_hist"] / FULL["macd"]) if on else turn,
        "ema_cross": sign * clip(row["ema_diff"] / FULL["ema"]),
        "stochastic": sign * clip((row["stoch_k"] - 50) / 50),
        "orderbook": clip(row["flow_imbalance"] / FULL["flow"]),
        "vwap": sign * vwap,
        "velocity": sign * clip(row["velocity"] / FULL["velocity"]),
        "volume_profile": sign * profile,
    }
    return {name: side * strength for name, strength in strengths.items()}


def ref_score(strengths: Mapping[str, float], settings: Settings) -> tuple[float, float, dict[str, float]]:
    """(score, coverage, contributions): weights divided by those of the available factors."""
    weights = settings.weights.model_dump()
    there = {name: value for name, value in strengths.items() if known(value)}
    available = math.fsum(weights[name] for name in there)
    parts = {name: weights[name] * there[name] / available if name in there else 0.0 for name in strengths}
    return math.fsum(parts.values()), available / math.fsum(weights.values()), parts


def ref_assess(
    row: Row, reasons: list[str], thresholds: Thresholds, settings: Settings, costs: Costs
) -> dict[str, Any]:
    """What Stage2 says about an alert."""
    sides = [LONG, SHORT] if settings.allow_shorts else [LONG]
    choices = []
    for side in sides:
        for reading in ("continuation", "reversal"):
            strengths = ref_strengths(row, reading, side)
            choices.append((*ref_score(strengths, settings), side, reading, strengths))
    score, coverage, parts, side, reading, strengths = max(choices, key=lambda choice: round(choice[0], 11))

    # context
    trend = sum(t for t in (row["trend_1"], row["trend_2"]) if known(t))
    ratio = row["atr_pct"] / row["atr_7d"] if row["atr_7d"] > 0 else NAN
    volatility = "LOW" if ratio < settings.volatility_low else "HIGH" if ratio > settings.volatility_high else "NORMAL"
    independent = row["correlation"] < settings.context_min_correlation if known(row["correlation"]) else None
    against = side * row["market_drift"] <= -settings.market_drift
    flags = set()
    if volatility == "HIGH":
        flags.add("VOLATILITY")
    diverging = {"RSI_BULLISH_DIVERGENCE", "RSI_BEARISH_DIVERGENCE"} & set(reasons)
    if diverging or {row["trend_1"], row["trend_2"]} == {1.0, -1.0}:
        flags.add("TREND_REVERSAL")
    if against:
        flags.add("AGAINST_THE_MARKET")
    if row["volume_z"] >= settings.manipulation_volume_z and row["body"] <= settings.manipulation_body:
        flags.add("SUSPECTED_MANIPULATION")
    if row["hour_quote_volume"] < settings.low_liquidity_usd:
        flags.add("LOW_LIQUIDITY")

    # confidence
    confirmed = sum(strength >= settings.cluster_strength for strength in strengths.values())
    clustered = confirmed >= settings.min_cluster
    confidence = max(0.0, score)
    if clustered:
        confidence = 1 - (1 - confidence) * (1 - settings.cluster_lift)
    if volatility == "HIGH":
        confidence *= settings.volatile_discount
    if against and independent is not True:
        confidence *= settings.against_market_discount

    risk = ref_risk(row, side, thresholds, settings, costs)
    found: dict[str, Any] = {
        "side": side,
        "reading": reading,
        "strengths": strengths,
        "contributions": parts,
        "score": score,
        "coverage": coverage,
        "trend": "UPTREND" if trend > 0 else "DOWNTREND" if trend < 0 else "RANGE",
        "volatility": volatility,
        "independent": independent,
        "flags": flags,
        "scenario": ref_scenario(row, set(reasons), side, reading, volatility, against, settings),
        "confirmed": confirmed,
        "clustered": clustered,
        "confidence": confidence,
        **risk,
    }
    found["recommendation"], found["detail"] = ref_recommendation(found, thresholds, settings)
    return found


def ref_scenario(
    row: Row, reasons: set[str], side: int, reading: str, volatility: str, against: bool, settings: Settings
) -> str:
    fast = abs(row["velocity"]) >= settings.momentum_velocity
    if fast and row["velocity"] < 0 and "RSI_OVERSOLD" in reasons and row["volume_z"] >= settings.capitulation_volume_z:
        return "CAPITULATION"
    if {"BREAKOUT_UP", "BREAKOUT_DOWN"} & reasons and "VOLUME_SPIKE" in reasons:
        return "BREAKOUT_WITH_VOLUME"
    turning_up = reading == "reversal" if side == LONG else row["acceleration"] > 0
    turning_down = reading == "reversal" if side == SHORT else row["acceleration"] < 0
    if row["support_distance"] <= 1 and turning_up:
        return "REVERSAL_FROM_SUPPORT"
    if row["resistance_distance"] <= 1 and turning_down:
        return "REVERSAL_FROM_RESISTANCE"
    if against and side * row["price_change"] > 0:
        return "AGAINST_THE_MARKET"
    if volatility == "HIGH":
        return "HIGH_VOLATILITY"
    return "MOMENTUM" if fast else "RANGE_BOUND"


def on_tick(price: float, tick: float, upwards: bool) -> float:
    """The next tick above or below; a price that is a tick but for rounding noise is one."""
    if tick == 0 or math.isnan(price):
        return price
    nearest = round(price / tick)
    if abs(price / tick - nearest) <= 1e-6:
        return float(nearest * Fraction(str(tick)))
    return float((math.ceil if upwards else math.floor)(price / tick) * Fraction(str(tick)))


def ref_risk(row: Row, side: int, thresholds: Thresholds, settings: Settings, costs: Costs) -> dict[str, Any]:
    """Stop, targets, entry zone. A short is worked out with its own signs spelled out, nothing is mirrored."""
    p, a, tick = row["close"], row["atr"], costs.tick_size
    if side == LONG:
        stops = [p - thresholds.sl_mult * a, row["support"] - a / 2, row["daily_low"]]
        stop = on_tick(min(max(x for x in stops if known(x)), p - settings.min_stop * a), tick, upwards=False)
        cap = row["major_resistance"] - min(settings.tp_buffer_eps * p, a / 10)
        goals = [p + thresholds.tp_mult * a * k for k in (1, 1.5, 2)]
        goals = [on_tick(min(goal, cap) if known(cap) else goal, tick, upwards=False) for goal in goals]
        lows = [row["support"], p * (1 - settings.entry_spread_percent), stop + (p - stop) / 4]
        entry = (min(p, on_tick(max(x for x in lows if known(x)), tick, upwards=True)), p)
        room = (row["resistance"] - p) / a
    else:
        stops = [p + thresholds.sl_mult * a, row["resistance"] + a / 2, row["daily_high"]]
        stop = on_tick(max(min(x for x in stops if known(x)), p + settings.min_stop * a), tick, upwards=True)
        cap = row["major_support"] + min(settings.tp_buffer_eps * p, a / 10)
        goals = [p - thresholds.tp_mult * a * k for k in (1, 1.5, 2)]
        goals = [on_tick(max(goal, cap) if known(cap) else goal, tick, upwards=True) for goal in goals]
        highs = [row["resistance"], p * (1 + settings.entry_spread_percent), stop - (stop - p) / 4]
        entry = (p, max(p, on_tick(min(x for x in highs if known(x)), tick, upwards=False)))
        room = (p - row["support"]) / a
    targets: list[float] = []
    for goal in goals:
        ahead = side * (goal - (targets[-1] if targets else p)) > 0
        if ahead:
            targets.append(goal)
    return {
        "stop": stop,
        "targets": targets,
        "entry": entry,
        "risk_reward": (targets[0] - p) / (p - stop) if targets else 0.0,
        "room": room if known(room) else math.inf,
    }


def ref_recommendation(found: Mapping[str, Any], thresholds: Thresholds, settings: Settings) -> tuple[str, str]:
    if "SUSPECTED_MANIPULATION" in found["flags"]:
        return "AVOID_HIGH_RISK", "manipulation"
    if "LOW_LIQUIDITY" in found["flags"]:
        return "AVOID_HIGH_RISK", "liquidity"
    if found["confidence"] < min(settings.watch_confidence, thresholds.min_confidence):
        return "AVOID", "weak_score"
    if found["risk_reward"] < settings.min_risk_reward:
        return "WAIT_FOR_CONFIRMATION", "risk_reward"
    if found["room"] < thresholds.atr_target:
        return "WAIT_FOR_CONFIRMATION", "room"
    if found["confidence"] < thresholds.min_confidence:
        return "WAIT_FOR_CONFIRMATION", "confidence"
    return ("BUY" if found["side"] == LONG else "SELL"), "all_gates_met"
