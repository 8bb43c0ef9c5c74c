"""The narrative: which sentence rests on what, and that it is proper text in both languages."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_cases import alert_places, case

from aione_lab.backtest.narrative import narrate, price_decimals, sentences, written
from aione_lab.backtest.phrases import FACTOR_NAMES, READING_NAMES, TEXT, TRIGGERS
from aione_lab.backtest.signal_input import AlertInput, assess_alert
from aione_lab.engine.records import FACTORS, FEATURE_NAMES, READINGS, REASONS
from aione_lab.errors import InputError

# Features that feed exactly one factor and neither a trigger nor a level.
FACTOR_FEATURES = {
    "macd_hist": "macd",
    "macd_hist_change": "macd",
    "ema_diff": "ema_cross",
    "stoch_k": "stochastic",
    "flow_imbalance": "orderbook",
    "poc": "volume_profile",
    "value_high": "volume_profile",
}


def parts(row, signal, found, params, symbol="SOLUSDT"):
    return {part.basis: part for part in sentences(symbol, row, signal, found, params.limits, params.rules)}


def copies(result, at):
    row, signal, found, params = case(result, at)
    return row.copy(), signal.copy(), found.copy(), params


def test_every_alert_has_one_to_three_plain_sentences(replayed):
    for at in alert_places(replayed):
        row, signal, found, params = case(replayed, at)
        texts = narrate("SOLUSDT", row, signal, found, params.limits, params.rules)
        assert texts == narrate("SOLUSDT", row, signal, found, params.limits, params.rules)
        for text in texts.values():
            assert 1 <= len(re.findall(r"\.(?:\s|$)", text)) <= 3
            assert text.endswith(".") and not re.search(r"[<>&{}]|nan|inf\b|None|  ", text)
        assert not re.search(r"\d\.\d", texts["uk"]) and not re.search(r"[а-яіїєґ]", texts["en"], flags=re.I)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_changed_factor_changes_its_sentence_only(replayed, data):
    """Through the kernel: the feature behind one factor moves, triggers and levels keep their sentences."""
    places = alert_places(replayed)
    row, signal, _, params = copies(replayed, places[data.draw(st.integers(0, len(places) - 1))])
    feature = data.draw(st.sampled_from(sorted(FACTOR_FEATURES)))
    before = parts(row, signal, assessed(row, signal, params), params)
    row[feature] = data.draw(st.sampled_from([-0.3, 0.05, 0.9, 30.0, 99.0, 500.0, math.nan]))
    after = parts(row, signal, assessed(row, signal, params), params)
    assert before["triggers"] == after["triggers"] and before["levels"] == after["levels"]


@pytest.mark.parametrize("index", range(len(FACTORS)))
def test_the_factor_sentence_names_the_factor_that_weighs_most(replayed, index):
    row, signal, found, params = copies(replayed, alert_places(replayed)[0])
    before = parts(row, signal, found, params)
    found["contributions"][:] = 0.0
    found["contributions"][index], found["strengths"][index] = 0.2, 0.77
    after = parts(row, signal, found, params)
    assert FACTOR_NAMES[FACTORS[index]]["uk"] in after["factors"].uk and "+0,77" in after["factors"].uk
    assert FACTOR_NAMES[FACTORS[index]]["en"] in after["factors"].en and "+0.77" in after["factors"].en
    assert (before["triggers"], before["levels"]) == (after["triggers"], after["levels"])
    found["contributions"][index], found["strengths"][index] = -0.2, -0.77
    against = parts(row, signal, found, params)["factors"]
    assert "не свідчить жоден чинник" in against.uk and "−0,77" in against.uk and "No factor speaks for" in against.en
    found["contributions"][index] = 0.0
    assert "factors" not in parts(row, signal, found, params)


@pytest.mark.parametrize("bit", range(len(REASONS)))
def test_a_changed_trigger_changes_its_sentence_only(replayed, bit):
    row, signal, found, params = copies(replayed, alert_places(replayed)[0])
    signal["reasons"] = 0
    without = parts(row, signal, found, params)
    assert set(without) == {"factors", "levels"}
    signal["reasons"] = 1 << bit
    alone = parts(row, signal, found, params)
    assert {name: alone[name] for name in without} == without
    assert alone["triggers"].uk.startswith("SOLUSDT: спрацював тригер — ")
    signal["reasons"] = (1 << bit) | (1 << (bit + 1) % len(REASONS)) | (1 << (bit + 2) % len(REASONS))
    three = parts(row, signal, found, params)
    assert three["triggers"].uk.startswith("SOLUSDT: спрацювали тригери — ") and " та " in three["triggers"].uk
    assert {name: three[name] for name in without} == without


@pytest.mark.parametrize("field", ["support", "resistance", "stop", "targets"])
def test_a_changed_level_changes_its_sentence_only(replayed, field):
    row, signal, found, params = copies(replayed, alert_places(replayed)[0])
    before = parts(row, signal, found, params)
    found[field] = found[field] * 0.5
    moved = parts(row, signal, found, params)
    found[field] = math.nan
    gone = parts(row, signal, found, params)
    assert before["levels"] != moved["levels"]
    if field != "stop":  # a stop is always there
        assert len({before["levels"], moved["levels"], gone["levels"]}) == 3
    for after in (moved, gone):
        assert (before["triggers"], before["factors"]) == (after["triggers"], after["factors"])


def test_numbers_that_are_not_known_leave_the_trigger_bare(replayed):
    row, signal, found, params = copies(replayed, alert_places(replayed)[0])
    for name in FEATURE_NAMES:
        row[name] = math.nan
    for name in ("low_gate", "high_gate", "vwap_threshold", "vol_z_threshold"):
        signal[name] = math.nan
    signal["reasons"] = (1 << len(REASONS)) - 1
    sentence = parts(row, signal, found, params)["triggers"]
    assert not re.search(r"\d", sentence.uk + sentence.en)


def test_the_texts_cover_every_name_and_the_languages_agree_on_their_numbers(replayed):
    assert {reason for reason, _ in TRIGGERS} == set(REASONS) and set(FACTOR_NAMES) == set(FACTORS)
    assert set(READING_NAMES) == {(reading, side) for reading in READINGS for side in ("LONG", "SHORT")}
    field = re.compile(r"\{(\w+)\}")
    for _, uk, en in TRIGGERS.values():
        assert sorted(field.findall(uk.full)) == sorted(field.findall(en.full)) and not field.findall(uk.bare + en.bare)
    for text in TEXT.values():
        assert sorted(field.findall(text["uk"])) == sorted(field.findall(text["en"]))


@pytest.mark.parametrize(
    ("value", "decimals", "uk", "en"),
    [
        (103250.5, 1, "103\u00a0250,5", "103,250.5"),
        (0.00001234, 8, "0,00001234", "0.00001234"),
        (-0.404, 2, "−0,40", "−0.40"),
        (-0.001, 2, "0,00", "0.00"),
        (1234567.0, 0, "1\u00a0234\u00a0567", "1,234,567"),
    ],
)
def test_number_formats(value, decimals, uk, en):
    assert (written(value, decimals, "uk"), written(value, decimals, "en")) == (uk, en)


@pytest.mark.parametrize(
    ("price", "tick", "decimals"),
    [
        (103250.5, 0, 0),
        (172.35, 0, 3),
        (0.00001234, 0, 10),
        (1e-30, 0, 12),
        (172.35, 0.01, 2),
        (2.3, 0.0005, 4),
        (9e4, 5, 0),
    ],
)
def test_price_decimals(price, tick, decimals):
    assert price_decimals(price, tick) == decimals


def test_the_ukrainian_text_word_for_word(replayed):
    row, signal, found, params = copies(replayed, alert_places(replayed)[0])
    signal["reasons"] = 0b000000100001
    row["volume_z"], signal["vol_z_threshold"], row["close"], row["breakout_up"] = 4.12, 2.9, 172.5, 172.35
    found["price"], found["atr"], found["support"], found["resistance"] = 172.5, 0.5, 171.2, math.nan
    found["stop"], found["targets"][0], found["side"], found["reading"] = 172.0, 174.1, 1, 0
    found["contributions"][:] = 0.0
    found["contributions"][:2] = [0.1, -0.04]
    found["strengths"][:2] = [0.85, -0.4]
    assert narrate("SOLUSDT", row, signal, found, params.limits, params.rules) == {
        "uk": "SOLUSDT: спрацювали тригери — сплеск обсягу (z-оцінка 4,1 за порога 2,9) "
        "та пробиття рівня 172,350 угору. "
        "На користь продовження зростання найбільше свідчить обсяг (сила +0,85), а проти — RSI (сила −0,40). "
        "Найближча підтримка — 171,200 (на 2,6 ATR нижче), опору вище не видно; "
        "стоп — 172,000, перша ціль — 174,100.",
        "en": "SOLUSDT: triggered by a volume spike (z-score 4.1, threshold 2.9) and a breakout above 172.350. "
        "The best case for a continuation upwards comes from volume (strength +0.85), "
        "the best case against it from RSI (strength −0.40). "
        "The nearest support is 171.200 (2.6 ATR below), no resistance is known above; "
        "the stop is 172.000, the first target 174.100.",
    }


def test_the_symbol_is_a_symbol_or_nothing(replayed):
    row, signal, found, params = case(replayed, alert_places(replayed)[0])
    texts = narrate("", row, signal, found, params.limits, params.rules)
    assert texts["uk"].startswith("Спрацювали тригери — ") and texts["en"].startswith("Triggered by ")
    with pytest.raises(InputError, match="symbol="):
        narrate("<script>", row, signal, found, params.limits, params.rules)


def assessed(row, signal, params):
    """The kernel's assessment of changed features."""
    rows, signals, all_params = np.array([row]), np.array([signal]), np.array([params])
    alert = AlertInput("SOLUSDT", 0, rows, signals, all_params, {}, False)
    return assess_alert(alert)[0]
