"""Own triggers and factors through replay, live, the fast path, the tables and the words."""

from __future__ import annotations

import asyncio
import json
import math

import numpy as np
import pytest
from stage_cases import alert_places, case

from aione_lab.backtest import (
    AssetMonitorStage1,
    Prepared,
    Result,
    Stage2Processor,
    compute_features,
    random_entries,
    replay,
    triggers,
)
from aione_lab.backtest.narrative import sentences
from aione_lab.backtest.summary import counts
from aione_lab.engine.records import FACTORS, FEATURE_NAMES, REASONS
from aione_lab.engine.stage1 import LOW_VOLATILITY
from aione_lab.errors import InputError
from aione_lab.settings import Settings
from aione_lab.thresholds import Thresholds
from tests.backtest import test_equality, test_evaluate
from tests.backtest.conftest import load_real, real_files
from tests.custom_examples import FUNDING_PRESSURE, LOUD, SPEC, SQUEEZE_RELEASE, WICKS

ONLY_TRIGGERS, ONLY_FACTORS = SPEC.replace(factors=()), SPEC.replace(triggers=())
SQUEEZE_BIT, LOUD_BIT = 1 << len(REASONS), 2 << len(REASONS)


@pytest.fixture(scope="module")
def inputs(simulated, simulated_funding) -> dict:
    return {
        "candles": simulated["LINKUSDT"],
        "symbol": "LINKUSDT",
        "reference": simulated["BTCUSDT"],
        "funding": simulated_funding,
        "spec": SPEC,
    }


@pytest.fixture(scope="module")
def whole(inputs) -> Result:
    return replay(**inputs)


# ---- one arithmetic ----------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SPEC, ONLY_TRIGGERS, ONLY_FACTORS])
def test_bulk_live_and_chunks_give_the_same_bytes(inputs, spec):
    candles = inputs["candles"][:6000]
    keep = np.ones(len(candles), bool)
    keep[4000:4003] = False
    keywords = {**inputs, "candles": candles[keep], "spec": spec}
    thresholds = test_equality.BUSY.replace(custom={"LOUD": 3.0} if spec.triggers else {})
    settings = Settings(allow_shorts=True, max_holding_minutes=600)
    result = test_equality.check(keywords, thresholds, settings, test_equality.COSTS, seed=6)
    assert len(result.trade_records) > 20 and len(result.columns) == len(spec.feature_names)


def test_bulk_and_live_on_real_candles(shared):
    keywords = {**load_real(real_files(shared)[0]), "spec": SPEC}
    test_equality.check(keywords, test_equality.BUSY, Settings(), test_equality.COSTS, seed=20)


def random_sets(count: int, seed: int) -> list[Thresholds]:
    random = np.random.default_rng(seed)
    return [
        thresholds.replace(
            custom={
                name: float(random.uniform(low, high))
                for name, low, high in (("SQUEEZE_RELEASE", 0.5, 4.0), ("LOUD", -1.0, 6.0))
                if random.random() < 0.8
            }
        )
        for thresholds in test_evaluate.random_thresholds(count, seed)
    ]


@pytest.mark.parametrize("spec", [SPEC, ONLY_TRIGGERS, ONLY_FACTORS])
def test_the_fast_path_gives_the_same_trades(inputs, spec):
    sets = random_sets(25, seed=3) if spec.triggers else test_evaluate.random_thresholds(15, seed=3)
    keywords = {**inputs, "spec": spec}
    assert test_evaluate.check(keywords, sets, test_evaluate.SETTINGS, test_evaluate.COSTS) > 300


def test_the_fast_path_computes_the_features_itself(inputs, whole):
    given = {name: inputs[name] for name in ("candles", "reference", "funding", "spec")}
    assert Prepared(**given).evaluate([Thresholds()])[0].trade_records.tobytes() == whole.trade_records.tobytes()


def test_a_threshold_exactly_met_holds(inputs, whole):
    """The screen in float32 must not lose the bar whose number *is* the threshold, nor one just above it."""
    settings = Settings(cooldown_period=0)
    keywords = {**inputs, "settings": settings, "features": whole.features}
    busy = replay(**keywords)
    values, warm = whole.features["squeeze_release"].to_numpy(), whole.features["warm"].to_numpy() == 1.0
    decided = [
        i
        for i in alert_places(busy)
        if (held := busy.signals["trigger_reasons"].iloc[i]) and len(held) == 2 and "SQUEEZE_RELEASE" in held
    ]
    assert len(decided) >= 10
    del keywords["symbol"]
    prepared = Prepared(**keywords)
    for at in decided[:10]:
        for limit in (values[at], values[at] * (1 - 1e-9), values[at] * (1 + 1e-9)):
            thresholds = Thresholds(custom={"SQUEEZE_RELEASE": float(limit)})
            held = triggers(whole.features, thresholds, spec=SPEC)["SQUEEZE_RELEASE"].to_numpy()
            np.testing.assert_array_equal(held, warm & (values >= limit))
            slow = replay(**keywords, thresholds=thresholds)
            assert (at in alert_places(slow)) == (limit <= values[at])
            assert prepared.evaluate([thresholds])[0].n_alerts == slow.metrics["n_alerts"]


def test_a_schedule_of_own_thresholds(inputs, whole):
    change = inputs["candles"].index[9000]
    later = Thresholds(custom={"SQUEEZE_RELEASE": 3.5})
    result = replay(**inputs, thresholds={inputs["candles"].index[0]: Thresholds(), change: later})
    masks = result.signal_records["reasons"]
    np.testing.assert_array_equal(masks[:9000], whole.signal_records["reasons"][:9000])
    values = result.features["squeeze_release"].to_numpy()[9000:]
    np.testing.assert_array_equal((masks[9000:] & SQUEEZE_BIT) != 0, values >= 3.5)


# ---- what they do ------------------------------------------------------------------------------


def test_triggers_hold_where_their_numbers_reach_the_threshold(whole):
    held = triggers(whole.features, spec=SPEC)
    assert list(held) == list(SPEC.reasons)
    ready = whole.signal_records["signal"] > 0
    features = whole.features
    np.testing.assert_array_equal(held["SQUEEZE_RELEASE"], ready & (features["squeeze_release"] >= 1.6).to_numpy())
    np.testing.assert_array_equal(held["LOUD"], ready & (features["loud"] <= 0.0).to_numpy())
    masks = whole.signal_records["reasons"]
    np.testing.assert_array_equal((masks & LOUD_BIT) != 0, held["LOUD"])
    names = whole.signals["trigger_reasons"]
    assert all(("LOUD" in reasons) == holds for reasons, holds in zip(names, held["LOUD"], strict=True))


def test_they_count_towards_an_alert(whole):
    """Two reasons are needed: a bar with one built-in and one own reason is an alert, gates permitting."""
    masks, signals = whole.signal_records["reasons"], whole.signal_records
    built_in = np.array(
        [int(mask & (LOUD_BIT - 1) & (SQUEEZE_BIT - 1) & ~LOW_VOLATILITY).bit_count() for mask in masks]
    )
    own = np.array([int(mask >> len(REASONS)).bit_count() for mask in masks])
    lifted = (built_in == 1) & (own >= 1)
    assert ((signals["signal"] == 2) & lifted).sum() > 50
    assert ((signals["signal"] == 2) <= (built_in + own >= 2)).all()
    held_back = lifted & (signals["signal"] == 1)
    assert (signals["suppressed"][held_back] > 0).all()


def test_a_factor_enters_score_coverage_and_cluster(inputs, whole):
    found, rules = whole.assessment_records, Settings()
    weights = np.array([getattr(rules.weights, name) for name in FACTORS] + [0.2, 0.15])
    strengths = found["strengths"][:, : len(weights)]
    known = ~np.isnan(strengths)
    available = (weights * known).sum(axis=1)
    parts = np.where(known, weights * np.where(known, strengths, 0.0) / available[:, None], 0.0)
    np.testing.assert_allclose(found["contributions"][:, : len(weights)], parts, atol=1e-11)
    np.testing.assert_allclose(found["coverage"], available / weights.sum(), rtol=1e-12)
    assert all(row["score"] == math.fsum(row["contributions"]) for row in found)
    np.testing.assert_array_equal(found["confirmed"], (np.where(known, strengths, 0.0) >= 0.5).sum(axis=1))
    rows = whole.features.loc[whole.alerts.index]
    side, reading = found["side"], found["reading"]
    pairs = rows[["wicks_continuation", "wicks_reversal"]].to_numpy()
    np.testing.assert_array_equal(strengths[:, -1], side * pairs[np.arange(len(rows)), reading])
    assert set(whole.alerts) >= {"funding_pressure_strength", "wicks_contribution"}
    assert np.isnan(found["strengths"][:, len(weights) :]).all()
    other = replay(**{**inputs, "spec": SPEC.replace(factors=(FUNDING_PRESSURE, WICKS.replace(weight=2.0)))})
    assert (other.assessment_records["score"] != found["score"]).mean() > 0.9


def test_a_short_is_the_negation(inputs):
    result = replay(**inputs, settings=Settings(allow_shorts=True))
    found = result.assessment_records
    short = found["side"] == -1
    rows = result.features.loc[result.alerts.index]
    pairs = rows[["wicks_continuation", "wicks_reversal"]].to_numpy()
    chosen = pairs[np.arange(len(rows)), found["reading"]]
    assert short.sum() > 50
    np.testing.assert_array_equal(found["strengths"][short, len(FACTORS) + 1], -chosen[short])


def test_own_ones_that_change_nothing_leave_everything_else(inputs, whole):
    """A trigger that never holds: signals, alerts and trades are those of a replay without it."""
    never = {"SQUEEZE_RELEASE": 1e9, "LOUD": -1.0}
    result = replay(**{**inputs, "spec": ONLY_TRIGGERS}, thresholds=Thresholds(custom=never))
    plain = replay(**{**inputs, "spec": None}, thresholds=Thresholds())
    for name in ("signal_records", "assessment_records", "trade_records", "stage_record"):
        assert getattr(result, name).tobytes() == getattr(plain, name).tobytes(), name
    assert result.columns[: len(FEATURE_NAMES)].tobytes() == plain.columns.tobytes() == whole.columns[:59].tobytes()


# ---- where they are seen -----------------------------------------------------------------------


def test_tables_list_them(whole):
    rates, listed = whole.rates(), counts(whole)["reasons"]
    assert list(rates.index) == list(listed) == list(SPEC.reasons)
    assert rates.loc["SQUEEZE_RELEASE", "bars_per_day"] > 1 and listed["LOUD"]["alerts_per_day"] > 1


def test_an_explanation_shows_them_and_adds_up(whole):
    places = [i for i in alert_places(whole) if whole.signal_records["reasons"][i] & SQUEEZE_BIT]
    assert len(places) > 20
    for at in places[:20]:
        made = whole.explain(whole.index[at])
        held = {line.reason: line for line in made.triggers}
        line = held["SQUEEZE_RELEASE"]
        assert (line.feature, line.relation, line.limit) == ("squeeze_release", "≥", 1.6) and line.value >= 1.6
        assert line.value == whole.features["squeeze_release"].iloc[at]
        assert [factor.name for factor in made.factors] == list(SPEC.factor_names)
        assert sum(factor.contribution for factor in made.factors) == made.score
        assert made.factors[-1].weight == 0.15 and made.steps[-1].value == made.confidence
        assert "a squeeze released (range" in made.narrative["en"] and "вихід зі стиснення" in made.narrative["uk"]
        for text in (str(made), made._repr_html_()):
            assert "SQUEEZE_RELEASE" in text and "funding_pressure" in text and "wicks" in text
        json.dumps(made.to_dict(), allow_nan=False)
    loud = next(i for i in alert_places(whole) if whole.signal_records["reasons"][i] & LOUD_BIT)
    text = whole.explain(whole.index[loud]).narrative
    assert "loud (0, limit 0)" in text["en"] and "LOUD (0 за межі 0)" in text["uk"]


@pytest.mark.parametrize(("place", "en", "uk"), [(0, "funding", "ставка фінансування"), (1, "wicks", "wicks")])
def test_a_changed_own_factor_changes_only_its_sentence(whole, place, en, uk):
    row, signal, found, params = case(whole, alert_places(whole)[3])

    def parts(record):
        told = sentences("LINKUSDT", row, signal, record, params.limits, params.rules, SPEC)
        return {part.basis: part for part in told}

    before, changed = parts(found), found.copy()
    changed["contributions"][len(FACTORS) + place], changed["strengths"][len(FACTORS) + place] = 0.9, 0.91
    after = parts(changed)
    assert before.keys() == after.keys() == {"triggers", "factors", "levels"}
    assert [basis for basis in before if before[basis] != after[basis]] == ["factors"]
    assert f"from {en} (strength +0.91)" in after["factors"].en and f"{uk} (сила +0,91)" in after["factors"].uk


def test_a_changed_own_trigger_changes_only_the_sentence_of_triggers(whole):
    at = next(i for i in alert_places(whole) if whole.signal_records["reasons"][i] & SQUEEZE_BIT)
    row, signal, found, params = case(whole, at)
    limits = params.limits.copy()
    limits["custom_least"][0] = 1.2345
    told = [sentences("LINKUSDT", row, signal, found, x, params.rules, SPEC) for x in (params.limits, limits)]
    assert [one != other for one, other in zip(*told, strict=True)] == [True, False, False]
    assert "threshold 1.23)" in told[1][0].en and "поріг 1,23)" in told[1][0].uk


# ---- stages on their own -----------------------------------------------------------------------


def test_the_stages_agree_with_replay(inputs):
    candles = inputs["candles"][:5000]
    result = replay(candles, spec=SPEC, symbol="LINKUSDT")
    stage1, stage2 = AssetMonitorStage1(spec=SPEC), Stage2Processor(spec=SPEC)
    for at in [i for i in alert_places(result) if result.signal_records["reasons"][i] >> len(REASONS)][-3:]:
        made = asyncio.run(stage1.check_anomalies("LINKUSDT", candles[: at + 1]))
        assert tuple(made["trigger_reasons"]) == result.signals["trigger_reasons"].iloc[at]
        assert made["signal"] == "ALERT" and made["stats"]["loud"] == result.features["loud"].iloc[at]
        made = json.loads(json.dumps(made, allow_nan=False))
        found = asyncio.run(stage2.process(made))
        told = result.explain(result.index[at])
        assert found["confidence"] == told.confidence and found["narrative"] == told.narrative
        factors = found["confidence_metrics"]["factors"]
        assert list(factors) == list(SPEC.factor_names)
        assert factors["wicks"]["contribution"] == told.factors[-1].contribution
        made["thresholds"]["custom.LOUD"] = 2.0
        assert asyncio.run(stage2.process(made))["calibration_params"]["custom.LOUD"] == 2.0
        refused = asyncio.run(Stage2Processor().process(made))
        assert refused["recommendation"] == "INVALID_DATA" and "LOUD" in refused["error"]
        made["stats"]["wicks_reversal"] = 1.5
        assert "must lie between -1 and 1" in asyncio.run(stage2.process(made))["error"]


# ---- what is refused ---------------------------------------------------------------------------


def test_specs_thresholds_and_features_have_to_go_together(inputs, whole):
    plain = {**inputs, "spec": None}
    with pytest.raises(InputError, match="declares no trigger of its own"):
        replay(**plain, thresholds=Thresholds(custom={"LOUD": 1.0}))
    with pytest.raises(InputError, match="did you mean 'SQUEEZE_RELEASE'"):
        replay(**inputs, thresholds=Thresholds(custom={"SQUEEZE_RELEASED": 1.0}))
    with pytest.raises(InputError, match="did you mean 'LOUD'"):
        later = {inputs["candles"].index[0]: Thresholds(), inputs["candles"].index[50]: Thresholds(custom={"LOUT": 1})}
        replay(**inputs, thresholds=later)
    prepared = Prepared(inputs["candles"][:3000], spec=SPEC)
    with pytest.raises(InputError, match="did you mean 'LOUD'"):
        prepared.evaluate([Thresholds(custom={"LOUT": 1.0})])
    for features, spec in ((whole.features, None), (whole.features, ONLY_FACTORS)):
        with pytest.raises(InputError, match="own columns must be those of the spec"):
            replay(**{**inputs, "spec": spec}, features=features)
        with pytest.raises(InputError, match="own columns must be those of the spec"):
            triggers(features, spec=spec)
    with pytest.raises(InputError, match="own columns must be those of the spec"):
        triggers(compute_features(inputs["candles"][:300]), spec=SPEC)
    other = SPEC.replace(triggers=(SQUEEZE_RELEASE.replace(threshold=2.0), LOUD))
    with pytest.raises(InputError, match="another FeatureSpec"):
        replay(**{**inputs, "spec": other}, features=whole.features)
    with pytest.raises(InputError, match="spec="):
        triggers(whole.features, spec=3)


def test_the_yardstick_of_random_entries_knows_them(whole):
    baseline = random_entries(whole, n_draws=20)
    assert baseline.n_entries > 0 and 0 < baseline.p_value <= 1


def test_no_look_ahead(inputs, whole):
    """What a bar got does not change with the bars after it."""
    for cut in np.random.default_rng(0).choice(np.arange(1500, len(whole.bars)), 4, replace=False):
        short = replay(**{**inputs, "candles": inputs["candles"][:cut]})
        assert short.columns.tobytes() == np.ascontiguousarray(whole.columns[:, :cut]).tobytes()
        assert short.signal_records.tobytes() == whole.signal_records[:cut].tobytes()


def test_warm_up_does_not_depend_on_the_start(inputs, whole):
    late = replay(**{**inputs, "candles": inputs["candles"][4000:]})
    settled = 600  # the last funding stamp is at most eight hours back
    for name in SPEC.feature_names[len(FEATURE_NAMES) :]:
        one, other = late.features[name].to_numpy()[settled:], whole.features[name].to_numpy()[4000 + settled :]
        np.testing.assert_allclose(one, other, rtol=1e-6, err_msg=name)
