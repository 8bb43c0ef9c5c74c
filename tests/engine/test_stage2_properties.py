"""What must hold of every assessment: monotone, exact to add up, mirrored for shorts, never optimistic, never lost."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from aione_lab.engine import stage2
from aione_lab.engine.factors import CONTINUATION, REVERSAL, contributions, strengths
from aione_lab.engine.params import rules_record
from aione_lab.engine.records import (
    ASSESSMENT,
    DETAILS,
    FACTORS,
    FEATURE_NAMES,
    FEATURES,
    RECOMMENDATIONS,
    SCENARIOS,
)
from aione_lab.engine.stage2 import assess
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds import Thresholds
from aione_lab.thresholds.params import CUSTOM
from aione_lab.units import MINUTE_MS

NAN = math.nan
SHORTS = Settings(allow_shorts=True)
LONG, SHORT = 1, -1
ordinary = settings(max_examples=150, deadline=None)

# A plain bar on which everything is known: prices on a binary grid, so that mirroring them is exact.
PLAIN = {
    "close": 1024.0, "price_change": 0.004, "rsi": 66.0, "rsi_mean": 51.0, "atr": 2.0, "atr_pct": 2.0 / 1024,
    "atr_7d": 0.0015, "atr_7d_days": 3.0, "macd_hist": 0.15, "macd_hist_change": 0.04, "ema_diff": 0.7,
    "stoch_k": 80.0, "stoch_d": 75.0, "volume": 50.0, "volume_mean": 20.0, "volume_std": 10.0, "volume_z": 3.0,
    "vwap": 1020.0, "vwap_dev": 4.0 / 1020, "true_range": 3.0, "range_burst": 1.5, "body": 0.6, "sr_high": 1023.0,
    "sr_low": 1010.0, "daily_high": 1040.0, "daily_low": 1004.0, "daily_range": 36.0, "velocity": 2.5,
    "acceleration": 1.0, "poc": 1018.0, "value_low": 1012.0, "value_high": 1026.0, "taker_imbalance": 0.1,
    "flow_imbalance": 0.12, "correlation": 0.8, "relative_strength": 0.003, "market_drift": 0.5, "trend_1": 1.0,
    "trend_1_strength": 0.6, "trend_2": 1.0, "trend_2_strength": 0.4, "hour_atr_pct": 0.01,
    "hour_quote_volume": 5e6, "swing_high": 1023.0, "swing_low": 1015.0, "bullish_divergence": NAN,
    "bearish_divergence": NAN, "prev_day_high": 1035.0, "prev_day_low": 1000.0, "support": 1023.0,
    "resistance": 1032.0, "major_support": 1004.0, "major_resistance": 1035.0, "support_distance": 0.5,
    "resistance_distance": 4.0, "breakout_up": 1023.0, "breakout_down": NAN, "level_days": 3.0, "warm": 1.0,
}  # fmt: skip
REQUIRED = {"close", "atr", "rsi", "volume_z", "daily_high", "daily_low"}


def row_of(**changes: float) -> np.ndarray:
    """(1,) FEATURES of the plain bar with ``changes``."""
    row = np.zeros(1, FEATURES)
    for name, value in (PLAIN | changes).items():
        row[name] = value
    return row


def found_for(
    row: np.ndarray,
    reasons: int = 0,
    thresholds: Thresholds | None = None,
    settings: Settings | None = None,
    costs: Costs | None = None,
) -> np.ndarray:
    """(1,) ASSESSMENT of ``row``."""
    found = np.zeros(1, ASSESSMENT)
    rules = rules_record(settings or Settings(), costs or Costs(), MINUTE_MS)
    limits = (thresholds or Thresholds()).record()
    assess(1_700_000_000_000, row[0], reasons, limits[0], rules[0], found[0])
    return found


def test_the_plain_bar_is_complete():
    assert set(PLAIN) == set(FEATURE_NAMES)


# ---- contributions and confidence --------------------------------------------------------------

strength = st.floats(-1, 1, allow_nan=False)
nine = st.lists(strength | st.just(NAN) | st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=9, max_size=9)
weights = st.lists(st.floats(0, 10), min_size=9, max_size=9).filter(lambda w: sum(w) > 1e-6)
WEIGHTS = [getattr(Settings().weights, name) for name in FACTORS]


def score_of(values: list[float], weight: list[float]) -> tuple[float, float, np.ndarray]:
    out = np.zeros(9)
    score, coverage = contributions(np.array(values), np.array(weight), out)
    return score, coverage, out


@ordinary
@given(values=nine, weight=st.just(WEIGHTS) | weights, order=st.permutations(range(9)))
def test_contributions_add_up_exactly_in_any_order(values, weight, order):
    score, coverage, parts = score_of(values, weight)
    total = 0.0
    for i in order:
        total += parts[i]
    assert total == score == math.fsum(parts)
    assert 0.0 <= coverage <= 1.0 + 1e-12
    available = [i for i in range(9) if not math.isnan(values[i])]
    assert all(parts[i] == 0.0 for i in range(9) if i not in available)
    divisor = sum(weight[i] for i in available)
    if divisor > 0:
        exact = math.fsum(weight[i] * values[i] for i in available) / divisor
        assert score == pytest.approx(exact, abs=9 * 2.0**-40 + 1e-14)


def test_score_and_confidence_stay_within_one():
    """All available factors at full strength are a score of 1, never more, whichever are available."""
    for size in range(1, 10):
        for there in itertools.combinations(range(9), size):
            values = [1.0 if i in there else NAN for i in range(9)]
            assert abs(score_of(values, WEIGHTS)[0]) <= 1.0, there
            assert confidence_of(values, 0, 1, 0, Settings()) <= 1.0


def confidence_of(values: list[float], flags: int, volatility: int, independent: int, config: Settings) -> float:
    """Confidence of given strengths, through the engine's own scoring and lifting."""
    rules = rules_record(config, Costs(), MINUTE_MS)
    found = np.zeros(1, ASSESSMENT)
    found["strengths"][0] = [*values, *[NAN] * CUSTOM]
    parts = np.zeros(9 + CUSTOM)
    found["score"], found["coverage"] = contributions(found["strengths"][0], rules[0]["weights"], parts)
    found["anomalies"], found["volatility"], found["independent"] = flags, volatility, independent
    stage2._confidence(rules[0], found[0])
    return float(found["confidence"][0])


@ordinary
@given(
    values=nine,
    factor=st.integers(0, 8),
    raised=strength,
    against=st.booleans(),
    volatility=st.integers(0, 2),
    independent=st.sampled_from([-1, 0, 1]),
    config=st.sampled_from([Settings(), Settings(min_cluster=1, cluster_lift=0.9), Settings(cluster_strength=0.0)]),
)
@example([0.49] * 9, 0, 0.5, False, 1, 0, Settings(min_cluster=1))
def test_confidence_is_monotone_in_every_factor(values, factor, raised, against, volatility, independent, config):
    assume(not math.isnan(values[factor]))
    more = list(values)
    more[factor] = max(values[factor], raised)
    flags = stage2.AGAINST_FLAG if against else 0
    low = confidence_of(values, flags, volatility, independent, config)
    high = confidence_of(more, flags, volatility, independent, config)
    assert 0.0 <= low <= high <= 1.0


def test_discounts_and_lift():
    """Four of nine at 0.5: clustered, lifted a tenth of the way; then times 0.9 and 0.8."""
    half = [0.5] * 4 + [NAN] * 5
    alone = [0.5] * 3 + [NAN] * 6
    plain = confidence_of(half, 0, 1, 0, Settings())
    assert confidence_of(alone, 0, 1, 0, Settings()) == pytest.approx(0.5, abs=1e-11)
    assert plain == pytest.approx(0.55, abs=1e-11)
    assert confidence_of(half, 0, 2, 0, Settings()) == pytest.approx(0.55 * 0.9, abs=1e-11)
    against = stage2.AGAINST_FLAG
    assert confidence_of(half, against, 1, 0, Settings()) == pytest.approx(0.55 * 0.8, abs=1e-11)
    assert confidence_of(half, against, 2, -1, Settings()) == pytest.approx(0.55 * 0.72, abs=1e-11)
    assert confidence_of(half, against, 1, 1, Settings()) == plain  # independent of the market
    assert confidence_of([-0.3] * 9, 0, 1, 0, Settings()) == 0.0


# ---- mirror ------------------------------------------------------------------------------------

MIRRORED = {  # level of one side ↔ level of the other
    "support": "resistance", "resistance": "support", "major_support": "major_resistance",
    "major_resistance": "major_support", "daily_high": "daily_low", "daily_low": "daily_high",
    "sr_high": "sr_low", "sr_low": "sr_high", "prev_day_high": "prev_day_low", "prev_day_low": "prev_day_high",
    "value_low": "value_high", "value_high": "value_low", "poc": "poc", "vwap": "vwap",
    "swing_high": "swing_low", "swing_low": "swing_high",
    "breakout_up": "breakout_down", "breakout_down": "breakout_up",
}  # fmt: skip
NEGATED = (
    "price_change", "macd_hist", "macd_hist_change", "ema_diff", "vwap_dev", "velocity", "acceleration",
    "taker_imbalance", "flow_imbalance", "relative_strength", "market_drift", "trend_1", "trend_1_strength",
    "trend_2", "trend_2_strength",
)  # fmt: skip


def mirror(row: np.ndarray) -> np.ndarray:
    """The same bar with every price reflected at the close."""
    out = row.copy()
    for name, other in MIRRORED.items():
        out[name] = 2.0 * row["close"] - row[other]
    for name in NEGATED:
        out[name] = -row[name]
    for name in ("rsi", "rsi_mean", "stoch_k", "stoch_d"):
        out[name] = 100.0 - row[name]
    out["support_distance"], out["resistance_distance"] = row["resistance_distance"], row["support_distance"]
    out["bullish_divergence"], out["bearish_divergence"] = row["bearish_divergence"], row["bullish_divergence"]
    return out


grid = st.integers(1, 4096).map(lambda k: k / 64)  # distances that floating point mirrors exactly
maybe = grid | st.just(NAN)


@st.composite
def levels(draw) -> dict[str, float]:
    """Random levels around the close, an ATR, and numbers for all that the factors read."""
    close = 1024.0
    below, above, low, high = draw(maybe), draw(maybe), draw(grid), draw(grid)
    number = st.floats(-8, 8)
    return {
        "atr": draw(st.sampled_from([0.25, 0.5, 1.0, 2.0, 8.0])),
        "support": close - below, "resistance": close + above,
        "major_support": close - draw(maybe), "major_resistance": close + draw(maybe),
        "daily_low": close - low, "daily_high": close + high,
        "velocity": draw(number), "rsi": draw(st.floats(0, 100)), "stoch_k": draw(st.floats(0, 100)),
        "macd_hist": draw(number), "macd_hist_change": draw(number), "ema_diff": draw(number),
        "flow_imbalance": draw(st.floats(-1, 1) | st.just(NAN)), "vwap_dev": draw(st.floats(-0.05, 0.05)),
        "market_drift": draw(number), "volume_z": draw(number), "poc": close + draw(st.integers(-640, 640)) / 64,
        "value_low": close - draw(grid), "value_high": close + draw(grid),
    }  # fmt: skip


@ordinary
@given(changes=levels(), tick=st.sampled_from([0.0, 0.25, 1.0]))
def test_short_mirrors_long(changes, tick):
    """The mirrored bar has the mirrored assessment: same score, confidence and risk/reward, reflected prices."""
    row = row_of(**changes)
    costs = Costs(tick_size=tick)
    here = found_for(row, settings=SHORTS, costs=costs)[0]
    there = found_for(mirror(row), settings=SHORTS, costs=costs)[0]
    # Of equal scores the long side is taken: then both are longs, and nothing is mirrored.
    assume(here["side"] != there["side"])
    close = float(row["close"][0])
    assert here["reading"] == there["reading"]
    assert there["score"] == pytest.approx(here["score"], abs=1e-11)
    assert there["confidence"] == pytest.approx(here["confidence"], abs=1e-11)
    np.testing.assert_allclose(there["strengths"], here["strengths"], rtol=1e-12, atol=1e-13)
    for name in ("stop", "entry_low", "entry_high"):
        other = {"entry_low": "entry_high", "entry_high": "entry_low"}.get(name, name)
        assert there[name] == pytest.approx(2 * close - here[other], rel=1e-14), name
    np.testing.assert_allclose(there["targets"], 2 * close - here["targets"], rtol=1e-14)
    # A quotient of differences of prices: each is rounded to the grid of floats around the close.
    nearest = np.nanmin(np.abs(np.array([here["stop"], *here["targets"]]) - close))
    assert there["risk_reward"] == pytest.approx(here["risk_reward"], rel=8 * np.spacing(close) / nearest)
    assert there["room"] == pytest.approx(here["room"], rel=1e-12)
    assert {here["recommendation"], there["recommendation"]} in (
        {RECOMMENDATIONS.index("BUY"), RECOMMENDATIONS.index("SELL")},
        {here["recommendation"]},
    )


@ordinary
@given(changes=levels(), reading=st.sampled_from([CONTINUATION, REVERSAL]))
def test_strengths_of_a_short_are_those_of_the_long_negated(changes, reading):
    row, long, short, mirrored = row_of(**changes), np.zeros(9), np.zeros(9), np.zeros(9)
    strengths(row[0], reading, LONG, long)
    strengths(row[0], reading, SHORT, short)
    strengths(mirror(row)[0], reading, SHORT, mirrored)
    assert (np.isnan(long) | (np.abs(long) <= 1.0)).all()
    np.testing.assert_array_equal(short, -long)
    np.testing.assert_allclose(mirrored, long, atol=1e-13)


# ---- risk parameters ---------------------------------------------------------------------------


@ordinary
@given(
    changes=levels(),
    tick=st.sampled_from([0.0, 0.1, 0.01, 0.3, 5.0]),
    tp=st.floats(0.5, 6),
    sl=st.floats(0.3, 3),
    side=st.sampled_from([LONG, SHORT]),
)
def test_risk_is_ordered_and_never_optimistic(changes, tick, tp, sl, side):
    row = row_of(**changes)
    thresholds, config = Thresholds(tp_mult=tp, sl_mult=sl), SHORTS
    rules = rules_record(config, Costs(tick_size=tick), MINUTE_MS)
    free_rules = rules_record(config, Costs(), MINUTE_MS)
    found, free = np.zeros(1, ASSESSMENT), np.zeros(1, ASSESSMENT)
    found["side"] = free["side"] = side
    stage2._risk(row[0], thresholds.record()[0], rules[0], found[0])
    stage2._risk(row[0], thresholds.record()[0], free_rules[0], free[0])
    found, free, close, atr = found[0], free[0], float(row["close"][0]), float(row["atr"][0])

    # the stop: beyond the least distance, on the grid, not nearer than without one
    assert side * (close - found["stop"]) >= config.min_stop * atr
    assert side * (free["stop"] - found["stop"]) >= -1e-6 * tick - 1e-9
    assert side * (close - free["stop"]) <= max(sl, config.min_stop) * atr + 1e-9
    # targets: beyond the price, apart, nearer than without a grid, inside the next major level
    targets = [float(x) for x in found["targets"] if not math.isnan(x)]
    distances = [side * (x - close) for x in targets]
    assert distances == sorted(set(distances)) and all(d > 0 for d in distances)
    major = row["major_resistance" if side > 0 else "major_support"][0]
    for target in targets:
        assert side * (target - close) <= 2 * tp * atr + 1e-6 * tick + 1e-9
        assert math.isnan(major) or side * (major - target) > 0
    # the entry zone lies between stop and price, the price is one end of it
    assert found["entry_low"] <= found["entry_high"]
    worst_entry = found["entry_low"] if side > 0 else found["entry_high"]
    assert (found["entry_high"] if side > 0 else found["entry_low"]) == close
    assert side * (worst_entry - found["stop"]) > 0
    assert side * (worst_entry - free["stop"]) > 0
    for price in [found["stop"], *targets, *([] if worst_entry == close else [worst_entry])]:
        if tick:
            assert abs(price / tick - round(price / tick)) < 1e-9
    # reward over risk, of the first target
    if not math.isnan(found["targets"][0]):
        expected = side * (found["targets"][0] - close) / (side * (close - found["stop"]))
        assert found["risk_reward"] == pytest.approx(expected, rel=1e-12)
    # A first target that falls onto the price is dropped, and the next, a farther one, takes its place.
    if not side * (found["targets"][0] - free["targets"][0]) > 1e-6 * tick:
        assert found["risk_reward"] <= free["risk_reward"] + 1e-9 + 1e-6 * tick / atr


@ordinary
@given(
    changes=levels(),
    tick=st.sampled_from([0.0, 0.5, 5.0]),
    tp=st.floats(0.5, 6),
    config=st.sampled_from([
        Settings(min_risk_reward=0.1, watch_confidence=0.0),
        Settings(min_risk_reward=0.1, watch_confidence=0.0, allow_shorts=True),
    ]),
)  # fmt: skip
def test_what_is_bought_has_a_stop_and_a_target(changes, tick, tp, config):
    thresholds = Thresholds(min_confidence=0.0, atr_target=0.0, tp_mult=tp)
    found = found_for(row_of(**changes), 0, thresholds, config, Costs(tick_size=tick))[0]
    if RECOMMENDATIONS[found["recommendation"]] in ("BUY", "SELL"):
        assert not math.isnan(found["stop"]) and not math.isnan(found["targets"][0])
        assert found["side"] * (found["targets"][0] - found["price"]) > 0


def test_no_buy_without_a_target():
    """The next major level is a hair above the price: there is no target, and nothing to buy for."""
    row = row_of(resistance=1024.125, major_resistance=1024.125, resistance_distance=0.0625)
    found = found_for(row, 0, Thresholds(min_confidence=0.0, atr_target=0.0), Settings(min_risk_reward=0.0))[0]
    assert np.isnan(found["targets"]).all()
    assert RECOMMENDATIONS[found["recommendation"]] != "BUY"


def test_dropped_targets_leave_no_hole():
    """Tick 10, price 1024, ATR 2: targets 1028, 1030, 1032 fall to 1020 (not ahead), 1030, 1030 (again)."""
    found = found_for(row_of(), 0, Thresholds(tp_mult=2.0), costs=Costs(tick_size=10.0))[0]
    assert found["targets"][0] == 1030.0 and np.isnan(found["targets"][1:]).all()
    assert found["risk_reward"] == pytest.approx(6.0 / (1024.0 - found["stop"]))


# ---- recommendations ---------------------------------------------------------------------------


WAIT = "WAIT_FOR_CONFIRMATION"


@pytest.mark.parametrize(
    ("changes", "thresholds", "config", "recommendation", "detail"),
    [
        ({}, {}, {}, "BUY", "all_gates_met"),
        ({}, {"min_confidence": 0.9}, {}, WAIT, "confidence"),
        ({}, {"atr_target": 5.0}, {}, WAIT, "room"),
        ({}, {}, {"min_risk_reward": 50.0}, WAIT, "risk_reward"),
        ({}, {"min_confidence": 0.99}, {"watch_confidence": 0.95}, "AVOID", "weak_score"),
        ({"hour_quote_volume": 9_000.0}, {}, {}, "AVOID_HIGH_RISK", "liquidity"),
        ({"volume_z": 9.0, "body": 0.1}, {}, {}, "AVOID_HIGH_RISK", "manipulation"),
    ],
)
def test_every_recommendation(changes, thresholds, config, recommendation, detail):
    """The plain bar is bought; one thing that stands against it is what the detail names."""
    found = found_for(
        row_of(**changes),
        0,
        Thresholds(**({"min_confidence": 0.3} | thresholds)),
        Settings(**({"min_risk_reward": 1.0} | config)),
    )[0]
    assert (RECOMMENDATIONS[found["recommendation"]], DETAILS[found["detail"]]) == (recommendation, detail)


def test_sell():
    row = mirror(row_of())
    found = found_for(row, 0, Thresholds(min_confidence=0.3), Settings(min_risk_reward=1.0, allow_shorts=True))[0]
    assert RECOMMENDATIONS[found["recommendation"]] == "SELL" and found["side"] == SHORT
    found = found_for(row, 0, Thresholds(min_confidence=0.3), Settings(min_risk_reward=1.0))[0]
    assert RECOMMENDATIONS[found["recommendation"]] != "SELL" and found["side"] == LONG


# ---- what is not known -------------------------------------------------------------------------

OPTIONAL = sorted(set(FEATURE_NAMES) - REQUIRED)


def check_sound(found: np.ndarray, row: np.ndarray) -> None:
    one = found[0]
    assert 0.0 <= one["confidence"] <= 1.0 and 0.0 <= one["coverage"] <= 1.0
    assert abs(one["score"]) <= 1.0 and one["score"] == math.fsum(one["contributions"])
    assert one["recommendation"] in range(1, len(RECOMMENDATIONS)) and one["detail"] in range(1, len(DETAILS))
    assert one["scenario"] in range(len(SCENARIOS)) and one["reading"] in (0, 1) and one["side"] in (1, -1)
    assert not math.isnan(one["stop"]) and not math.isnan(one["risk_reward"]) and not math.isnan(one["room"])
    assert not math.isnan(one["entry_low"]) and not math.isnan(one["entry_high"])
    assert one["side"] * (row["close"][0] - one["stop"]) > 0
    assert (one["independent"] == -1) == bool(np.isnan(row["correlation"][0]))


@ordinary
@given(missing=st.sets(st.sampled_from(OPTIONAL)), reasons=st.integers(0, 2047), shorts=st.booleans())
def test_any_set_of_unknown_features_is_assessed(missing, reasons, shorts):
    row = row_of(**dict.fromkeys(missing, NAN))
    check_sound(found_for(row, reasons, settings=Settings(allow_shorts=shorts)), row)


@pytest.mark.parametrize("name", OPTIONAL)
def test_each_unknown_feature_alone(name):
    row = row_of(**{name: NAN})
    check_sound(found_for(row), row)


def test_only_the_required_known():
    """RSI is the one factor that is there; its weight is the coverage."""
    row = row_of(**dict.fromkeys(OPTIONAL, NAN))
    found = found_for(row)
    check_sound(found, row)
    assert [name for name, s in zip(FACTORS, found["strengths"][0], strict=False) if not math.isnan(s)] == ["rsi"]
    assert np.isnan(found["strengths"][0, 9:]).all() and not found["contributions"][0, 9:].any()
    assert found["coverage"][0] == pytest.approx(0.18 / 1.83)
    assert found["room"][0] == math.inf and found["independent"][0] == -1


def test_unavailable_is_not_zero():
    """A missing factor leaves the score of the others; a factor of zero pulls it down."""
    there, _, _ = score_of([0.8] * 8 + [NAN], WEIGHTS)
    zero, _, _ = score_of([0.8] * 8 + [0.0], WEIGHTS)
    assert there == pytest.approx(0.8, abs=1e-11) and zero < 0.72
