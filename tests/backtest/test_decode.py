"""Records to public dictionaries: every key, plain values, the same numbers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from stage_cases import alert_places, case

from aione_lab.backtest.decode import decode_reasons, features_at, stage1_dict, stage2_dict
from aione_lab.engine.records import FACTORS, FEATURE_NAMES, FLAGS, REASONS, SCENARIOS
from aione_lab.errors import InputError
from aione_lab.thresholds import Thresholds

STAGE1_KEYS = {
    "symbol",
    "signal",
    "trigger_reasons",
    "stats",
    "confidence",
    "hints",
    "state",
    "visible",
    "stage2_status",
    "thresholds",
    "suppressed",
    "timestamp",
}
STATS_KEYS = {
    "current_price",
    "price_change",
    "atr",
    "rsi",
    "volume",
    "volume_mean",
    "volume_std",
    "volume_z",
    "vwap",
    "daily_high",
    "daily_low",
    "daily_range",
}
STAGE2_KEYS = {
    "symbol",
    "market_context",
    "anomaly_detection",
    "confidence_metrics",
    "risk_parameters",
    "recommendation",
    "recommendation_detail",
    "narrative",
    "quality_metrics",
    "calibration_params",
    "validation_passed",
    "timestamp",
    "confidence",
}


def test_reasons_keep_their_order_for_every_mask():
    for mask in range(1 << len(REASONS)):
        names = decode_reasons(np.int64(mask))
        assert sum(1 << REASONS.index(name) for name in names) == mask
        assert list(names) == sorted(names, key=REASONS.index)


def test_stage1_dictionary(replayed):
    at = alert_places(replayed)[0]
    row, signal, *_ = case(replayed, at)
    made = stage1_dict("SOL/USDT:USDT", row, signal, Thresholds(), ["a hint"])
    assert set(made) == STAGE1_KEYS and made["symbol"] == "SOLUSDT"
    assert set(made["stats"]) == {"current_price", *FEATURE_NAMES} - {"close"} >= STATS_KEYS
    assert made["signal"] == "ALERT" and made["state"] == "alert" and made["visible"] is True
    assert made["confidence"] == 0.0 and made["stage2_status"] == "pending" and made["hints"] == ["a hint"]
    assert made["timestamp"] == replayed.index[at].isoformat()
    for name in FEATURE_NAMES:
        value, told = float(row[name]), made["stats"]["current_price" if name == "close" else name]
        assert told is None if math.isnan(value) else told == value
    resolved = Thresholds.adaptive_from_atr(float(row.atr_7d)).to_json()
    assert {name: made["thresholds"][name] for name in resolved} == resolved


def test_stage1_while_warming_up_knows_nothing_and_says_so(replayed):
    row, signal, *_ = case(replayed, 0)
    made = stage1_dict("SOLUSDT", row, signal, Thresholds())
    assert (made["signal"], made["state"], made["visible"], made["trigger_reasons"]) == ("NONE", "no_data", False, [])
    assert made["stats"]["rsi"] is None and made["thresholds"]["low_gate"] is None
    json.dumps(made, allow_nan=False)


def test_a_held_back_alert_says_why(replayed):
    at = int(np.flatnonzero(replayed.signal_records["suppressed"] == 4)[0])
    row, signal, *_ = case(replayed, at)
    made = stage1_dict("SOLUSDT", row, signal, Thresholds())
    assert (made["signal"], made["suppressed"]) == ("NORMAL", "cooldown") and len(made["trigger_reasons"]) >= 2


def test_stage2_dictionary_of_every_alert(replayed):
    places = alert_places(replayed)
    assert len(places) > 50
    seen = set()
    for at in places:
        row, signal, found, params = case(replayed, at)
        made = stage2_dict("SOLUSDT", found, row, signal, params, Thresholds().to_json())
        assert set(made) >= STAGE2_KEYS
        assert json.loads(json.dumps(made, allow_nan=False)) == made
        metrics = made["confidence_metrics"]
        assert list(metrics["factors"]) == list(FACTORS)
        parts = [factor["contribution"] for factor in metrics["factors"].values()]
        assert sum(parts) == sum(reversed(parts)) == metrics["composite_score"]
        assert made["confidence"] == metrics["confidence"] == found["confidence"]
        assert set(made["anomaly_detection"]) == set(FLAGS)
        assert sum(made["anomaly_detection"][name] << i for i, name in enumerate(FLAGS)) == found["anomalies"]
        assert made["market_context"]["scenario"] in SCENARIOS
        risk = made["risk_parameters"]
        assert risk["sl_level"] < found["price"] and risk["tp_targets"] == sorted(risk["tp_targets"])
        assert made["validation_passed"] is (made["recommendation_detail"] == "all_gates_met")
        assert made["validation_passed"] is (made["recommendation"] == "BUY")
        gates = made["confidence"] >= 0.75 and risk["risk_reward_ratio"] >= 2.0
        assert gates or not made["validation_passed"]
        seen.add(made["recommendation"])
    assert {"BUY", "WAIT_FOR_CONFIRMATION", "AVOID"} <= seen


def test_what_is_not_known_is_none(replayed):
    row, signal, found, params = (part.copy() for part in case(replayed, alert_places(replayed)[0]))
    found["correlation"], found["independent"], found["room"] = math.nan, -1, math.inf
    found["strengths"][5], found["targets"][1:] = math.nan, math.nan
    made = stage2_dict("SOLUSDT", found, row, signal, params, {})
    assert made["market_context"]["correlation_with_btc"] is None and made["market_context"]["independent"] is None
    assert made["risk_parameters"]["room_atr"] is None and len(made["risk_parameters"]["tp_targets"]) == 1
    assert made["confidence_metrics"]["factors"]["orderbook"]["strength"] is None
    json.dumps(made, allow_nan=False)


@pytest.mark.parametrize("symbol", ["../../x", "<b>BTC</b>", "", "BTC USDT", "=1+1", None])
def test_no_other_symbol_gets_through(replayed, symbol):
    row, signal, found, params = case(replayed, alert_places(replayed)[0])
    with pytest.raises(InputError, match="symbol="):
        stage1_dict(symbol, row, signal, Thresholds())
    with pytest.raises(InputError, match="symbol="):
        stage2_dict(symbol, found, row, signal, params, {})


def test_features_at_gives_the_columns_bytes(replayed):
    row = features_at(replayed.columns, 2000)
    stored = replayed.columns[:, 2000].tobytes()
    assert row.tobytes()[: len(stored)] == stored and np.isnan(row["custom"]).all()
