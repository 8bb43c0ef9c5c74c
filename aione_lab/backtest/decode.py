"""From numeric records to the public dictionaries of Stage1 and Stage2. Pure: no state, no arithmetic.

Every value is JSON-able: plain int, float, str, bool, list and dict; what is not known (NaN) or not
bounded (inf) is None. Floats are not rounded, so what is read back is the same number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from aione_lab.backtest.conditions import DEFAULT_SPEC
from aione_lab.backtest.narrative import narrate
from aione_lab.engine.event import decode_mask, trade_dict
from aione_lab.engine.records import (
    DETAILS,
    FACTORS,
    FEATURES,
    FLAGS,
    PARAMS,
    READINGS,
    RECOMMENDATIONS,
    SCENARIOS,
    SIDES,
    SIGNALS,
    SUPPRESSED,
    TRENDS,
    VOLATILITIES,
)
from aione_lab.engine.spec import FeatureSpec
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import iso, parse_symbol

PRICE = "current_price"
"""Name in ``stats`` of the feature ``close``; every other feature keeps its column's name."""

STATES = {"NONE": "no_data", "NORMAL": "normal", "ALERT": "alert"}
ADAPTIVE = ("low_gate", "high_gate", "vwap_threshold", "vol_z_threshold")


def decode_reasons(mask: int, spec: FeatureSpec = DEFAULT_SPEC) -> tuple[str, ...]:
    """Names of the reasons in a Stage1 bit mask, in the order of spec and records."""
    return decode_mask(int(mask), spec.reasons)


def single(record: Any) -> Any:
    """The one record of an array that holds one, or the record itself."""
    return record.reshape(-1)[0] if isinstance(record, np.ndarray) else record


def features_at(columns: np.ndarray, position: int) -> Any:
    """FEATURES record of the bar at ``position`` of stored feature columns (F, bars)."""
    row = np.full(FEATURES.itemsize // 8, math.nan)
    row[: len(columns)] = columns[:, position]
    return row.view(FEATURES)[0]


def number(value: Any) -> float | None:
    """Plain float, None for NaN and infinities."""
    plain = float(value)
    return plain if math.isfinite(plain) else None


def stats_dict(row: Any, spec: FeatureSpec = DEFAULT_SPEC) -> dict[str, float | None]:
    """Every feature of ``row`` (FEATURES) by name, own numbers of ``spec`` last; the close is ``current_price``."""
    return stats_dicts(np.frombuffer(single(row).tobytes(), np.float64)[None], spec)[0]


def stats_dicts(
    rows: np.ndarray, spec: FeatureSpec = DEFAULT_SPEC, kind: type[dict[str, float | None]] = dict
) -> list[dict[str, float | None]]:
    """``stats_dict`` of many bars at once, each a ``kind``: float64 (bars, F), features in the order of the records."""
    names = stats_names(spec.feature_names)
    blank = dict.fromkeys(names)
    dicts = []
    for line in number_lines(rows[:, : len(names)]):
        numbers = kind(blank)  # of its final size: one that grows takes half as long again
        dict.update(numbers, zip(names, line, strict=True))
        dicts.append(numbers)
    return dicts


def number_lines(rows: np.ndarray) -> list[list[float | None]]:
    """float64 (n, m) as lists of plain floats, None for NaN and infinities."""
    lines: list[list[float | None]] = rows.tolist()
    for row, place in np.argwhere(~np.isfinite(rows)).tolist():
        lines[row][place] = None
    return lines


@lru_cache(maxsize=64)
def stats_names(features: tuple[str, ...]) -> tuple[str, ...]:
    """Names of ``features`` in the ``stats`` of a Stage1 dictionary."""
    return tuple(PRICE if name == "close" else name for name in features)


def fields_of(record: Any) -> dict[str, Any]:
    """A record's fields as plain Python values: at once, because one by one each costs a microsecond."""
    return several_fields(single(record).reshape(1))[0]


def several_fields(records: np.ndarray) -> list[dict[str, Any]]:
    """``fields_of`` of every record of an array."""
    names = records.dtype.names or ()
    return [dict(zip(names, values, strict=True)) for values in records.tolist()]


def thresholds_dict(thresholds: Thresholds, signal: Any) -> dict[str, Any]:
    """Flat JSON of ``thresholds`` with the adaptive fields as this bar resolved them (None while warming up)."""
    signal = signal if isinstance(signal, Mapping) else single(signal)
    return {**thresholds.every_field(), **{name: number(signal[name]) for name in ADAPTIVE}}


def stage1_dict(
    symbol: str,
    row: Any,
    signal: Any,
    thresholds: Thresholds,
    hints: tuple[str, ...] | list[str] = (),
    spec: FeatureSpec = DEFAULT_SPEC,
) -> dict[str, Any]:
    """The public Stage1 dictionary of a bar.

    ``row`` (FEATURES) and ``signal`` (SIGNAL) are the bar's records, ``thresholds`` those in force.
    Distances are in ATRs, ``price_change`` and the gates shares of the price, ``timestamp`` the ISO
    text of the bar's open (None: there is no bar); ``suppressed`` says what held an alert back, "" where nothing did.
    """
    values = fields_of(signal)
    return stage1_of(
        parse_symbol(symbol),
        opened(values["timestamp"]),
        values["signal"],
        list(decode_reasons(values["reasons"], spec)),
        values["suppressed"],
        stats_dict(row, spec),
        thresholds_dict(thresholds, values),
        list(hints),
    )


def opened(time: int) -> str | None:
    """ISO text of a bar's open, None where there is no bar."""
    return iso(time) if time else None


def stage1_of(
    symbol: str,
    time: str | None,
    signal: int,
    reasons: Sequence[str],
    suppressed: int,
    stats: Mapping[str, Any],
    limits: Mapping[str, Any],
    hints: Sequence[str],
) -> dict[str, Any]:
    """``stage1_dict`` of what has been decoded; ``signal`` and ``suppressed`` are the numbers of the SIGNAL."""
    name = SIGNALS[signal]
    return {
        "symbol": symbol,
        "timestamp": time,
        "signal": name,
        "trigger_reasons": reasons,
        "suppressed": SUPPRESSED[suppressed],
        "stats": stats,
        "confidence": 0.0,
        "hints": hints,
        "state": STATES[name],
        "visible": name != "NONE",
        "stage2_status": "pending",
        "thresholds": limits,
    }


def factor_lines(
    found: Any, rules: Any, names: tuple[str, ...] = FACTORS
) -> list[tuple[str, tuple[float | None, float, float]]]:
    """(factor, (strength, weight, contribution)) of an ASSESSMENT; strength None: unavailable.

    The contributions add up to the score to the last bit, in any order.
    """
    lines = zip(found.strengths.tolist(), rules.weights.tolist(), found.contributions.tolist(), strict=True)
    return [(name, (number(strength), *rest)) for name, (strength, *rest) in zip(names, lines, strict=False)]


def context_dict(symbol: str, found: Any) -> dict[str, Any]:
    """``market_context`` of an ASSESSMENT."""
    return {
        "symbol": symbol,
        "trend": TRENDS[int(found.trend)],
        "volatility": VOLATILITIES[int(found.volatility)],
        "key_levels": {
            "immediate_support": number(found.support),
            "immediate_resistance": number(found.resistance),
            "next_major_level": number(found.next_major),
        },
        "correlation_with_btc": number(found.correlation),
        "independent": None if found.independent < 0 else bool(found.independent),
        "relative_strength": number(found.relative_strength),
        "scenario": SCENARIOS[int(found.scenario)],
    }


def risk_dict(found: Any) -> dict[str, Any]:
    """``risk_parameters`` of an ASSESSMENT; ``room_atr`` is None where no opposing level is known."""
    return {
        "sl_level": number(found.stop),
        "tp_targets": [float(target) for target in found.targets if math.isfinite(target)],
        "optimal_entry": [number(found.entry_low), number(found.entry_high)],
        "risk_reward_ratio": number(found.risk_reward),
        "room_atr": number(found.room),
    }


def flags_dict(found: Any) -> dict[str, bool]:
    """``anomaly_detection`` of an ASSESSMENT: every flag, up or down."""
    return {name: bool(int(found.anomalies) >> i & 1) for i, name in enumerate(FLAGS)}


def stage2_dict(
    symbol: str,
    found: Any,
    row: Any,
    signal: Any,
    params: Any,
    calibration_params: Mapping[str, Any],
    *,
    used_default_calibration: bool = False,
    default_calibration_count: int = 0,
    processing_time_ms: float = 0.0,
    spec: FeatureSpec = DEFAULT_SPEC,
) -> dict[str, Any]:
    """The public Stage2 dictionary of an ALERT.

    ``found`` (ASSESSMENT), ``row`` (FEATURES), ``signal`` (SIGNAL: its mask and resolved limits) and
    ``params`` (PARAMS) are the records of that bar, ``calibration_params`` the thresholds as JSON.
    """
    found, row, signal = (SimpleNamespace(**fields_of(record)) for record in (found, row, signal))
    limits, rules = _limits_and_rules(single(params).tobytes())
    symbol = parse_symbol(symbol)
    detail = DETAILS[int(found.detail)]
    result = empty_stage2(symbol)
    result.update(
        timestamp=iso(int(found.timestamp)),
        signal="ALERT",
        trigger_reasons=list(decode_reasons(signal.reasons, spec)),
        market_context=context_dict(symbol, found),
        anomaly_detection=flags_dict(found),
        confidence=float(found.confidence),
        confidence_metrics={
            "composite_score": float(found.score),
            "confidence": float(found.confidence),
            "side": SIDES[int(found.side)],
            "reading": READINGS[int(found.reading)],
            "factors": {
                name: dict(zip(("strength", "weight", "contribution"), line, strict=True))
                for name, line in factor_lines(found, rules, spec.factor_names)
            },
            "factors_confirmed": int(found.confirmed),
            "clustered": bool(found.clustered),
            "coverage": float(found.coverage),
            "used_default_calibration": bool(used_default_calibration),
        },
        risk_parameters=risk_dict(found),
        recommendation=RECOMMENDATIONS[int(found.recommendation)],
        recommendation_detail=detail,
        narrative=narrate(symbol, row, signal, found, limits, rules, spec),
        quality_metrics={
            "used_default_calibration": bool(used_default_calibration),
            "default_calibration_count": int(default_calibration_count),
            "processing_time_ms": float(processing_time_ms),
        },
        calibration_params=dict(calibration_params),
        validation_passed=detail == "all_gates_met",
    )
    return result


def told_trade(record: Any) -> dict[str, Any]:
    """``trade_dict`` of a TRADE record with its times as ISO text."""
    values = trade_dict(record)
    for key in ("signal_time", "entry_time", "exit_time"):
        values[key] = iso(int(values[key]))
    return values


@lru_cache(maxsize=1024)
def _limits_and_rules(params: bytes) -> tuple[SimpleNamespace, SimpleNamespace]:
    """LIMITS and RULES of a PARAMS record as plain values: the same from bar to bar, and slow to read from records."""
    record = np.frombuffer(params, PARAMS)[0]
    return SimpleNamespace(**fields_of(record["limits"])), SimpleNamespace(**fields_of(record["rules"]))


def failed_stage2(symbol: str, time: str | None, recommendation: str, error: str) -> dict[str, Any]:
    """The Stage2 dictionary of a signal that could not be assessed, with the ``error`` that says why."""
    return {**empty_stage2(symbol), "timestamp": time, "recommendation": recommendation, "error": error}


def empty_stage2(symbol: str) -> dict[str, Any]:
    """Every key of the Stage2 dictionary with nothing found: no ALERT, or input that cannot be assessed."""
    return {
        "symbol": symbol,
        "timestamp": None,
        "signal": "NONE",
        "trigger_reasons": [],
        "market_context": {},
        "anomaly_detection": {},
        "confidence": 0.0,
        "confidence_metrics": {},
        "risk_parameters": {},
        "recommendation": "",
        "recommendation_detail": "",
        "narrative": {"uk": "", "en": ""},
        "quality_metrics": {
            "used_default_calibration": False,
            "default_calibration_count": 0,
            "processing_time_ms": 0.0,
        },
        "calibration_params": {},
        "validation_passed": False,
    }
