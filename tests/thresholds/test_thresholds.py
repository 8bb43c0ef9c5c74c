"""The threshold set: what it takes, refuses, means to the kernels, and how the adaptive fields move."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aione_lab.errors import InputError
from aione_lab.thresholds import Thresholds
from aione_lab.thresholds.params import LIMITS

ADAPTIVE = ("low_gate", "high_gate", "vwap_threshold", "vol_z_threshold")


def test_the_documented_defaults():
    assert Thresholds().to_json() == {}
    assert Thresholds().model_dump(exclude={"meta"}) == {
        "low_gate": None,
        "high_gate": None,
        "vol_z_threshold": None,
        "vwap_threshold": None,
        "atr_target": 0.5,
        "rsi_oversold": 30.0,
        "rsi_overbought": 70.0,
        "dynamic_rsi_multiplier": None,
        "min_reasons_for_alert": 2,
        "min_confidence": 0.75,
        "tp_mult": 3.0,
        "sl_mult": 1.0,
    }


@pytest.mark.parametrize("name", sorted(set(Thresholds.model_fields) - {"meta", "custom"}))
def test_the_ends_of_every_search_range_are_allowed(name):
    search = Thresholds.model_fields[name].json_schema_extra["search"]
    assert search["low"] < search["high"] and search["step"] > 0
    for end in (search["low"], search["high"]):
        value = f"{end}x" if search["multiple_of"] else end
        made = Thresholds(**{name: value})
        assert getattr(made, name) == value and Thresholds.from_json(json.dumps(made.to_json())) == made


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"vol_z": 2.5}, ["'vol_z'", "did you mean 'vol_z_threshold'"]),
        ({"tp_mult": 0}, ["Thresholds.tp_mult=0"]),
        ({"tp_mult": "three"}, ["Thresholds.tp_mult='three'"]),
        ({"sl_mult": math.nan}, ["Thresholds.sl_mult=nan"]),
        ({"low_gate": -0.1}, ["Thresholds.low_gate=-0.1", "0.6x"]),
        ({"low_gate": "0x"}, ["Thresholds.low_gate='0x'"]),
        ({"low_gate": "x"}, ["Thresholds.low_gate='x'"]),
        ({"low_gate": True}, ["Thresholds.low_gate=True"]),
        ({"vwap_threshold": math.inf}, ["Thresholds.vwap_threshold=inf"]),
        ({"high_gate": "1x"}, ["high_gate", "1x"]),
        ({"low_gate": 0.002, "high_gate": 0.001}, ["high_gate must be greater than low_gate"]),
        ({"rsi_oversold": 60, "rsi_overbought": 55}, ["rsi_oversold must be less than rsi_overbought"]),
        ({"rsi_oversold": 0}, ["Thresholds.rsi_oversold=0"]),
        ({"min_reasons_for_alert": 1.5}, ["Thresholds.min_reasons_for_alert=1.5"]),
        ({"min_confidence": 1.01}, ["Thresholds.min_confidence=1.01"]),
        ({"dynamic_rsi_multiplier": 1.0}, ["Thresholds.dynamic_rsi_multiplier=1.0"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(values, names):
    with pytest.raises(InputError) as refused:
        Thresholds(**values)
    assert all(name in str(refused.value) for name in names), str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[1]", "3", ""])
def test_json_that_is_no_object_is_refused(text):
    with pytest.raises(InputError, match="thresholds="):
        Thresholds.from_json(text)


def test_frozen_hashable_and_the_same_whatever_the_meta():
    made, other = Thresholds(tp_mult=2.0, meta={"study": "a"}), Thresholds(tp_mult=2.0)
    assert made == other and hash(made) == hash(other) and made.digest() == other.digest()
    assert made != Thresholds() and made != "tp_mult"
    assert "meta" not in other.to_json() and made.to_json()["meta"] == {"study": "a"}
    with pytest.raises(ValueError, match="frozen"):
        made.tp_mult = 3.0


def test_replace_keeps_what_was_set_and_checks():
    made = Thresholds(tp_mult=2.0).replace(sl_mult=0.5)
    assert made.model_fields_set == {"tp_mult", "sl_mult"}
    with pytest.raises(InputError, match="sl_mult"):
        made.replace(sl_mult=-1)


def test_record_carries_numbers_multiples_and_unset():
    record = Thresholds(low_gate=0.0004, high_gate="5x", vol_z_threshold=2.5).record()[0]
    assert record.dtype == LIMITS
    assert record.low_gate == 0.0004 and math.isnan(record.high_gate) and record.high_ratio == 5.0
    assert record.vol_z_threshold == 2.5
    assert math.isnan(record.vwap_threshold) and math.isnan(record.dynamic_rsi_multiplier)
    assert record.min_reasons_for_alert == 2 and record.tp_mult == 3.0


atr = st.floats(1e-6, 0.1)


@settings(deadline=None)
@given(first=atr, second=atr)
def test_adaptive_limits_are_monotone_in_volatility(first, second):
    """The more volatile, the wider the gates and the lower the volume threshold, within 3 to 2."""
    calm, wild = (Thresholds.adaptive_from_atr(value) for value in sorted((first, second)))
    for name in ("low_gate", "high_gate", "vwap_threshold"):
        assert getattr(calm, name) <= getattr(wild, name)
    assert 3.0 >= calm.vol_z_threshold >= wild.vol_z_threshold >= 2.0
    assert calm.low_gate < calm.high_gate and wild.low_gate < wild.high_gate


def test_adaptive_limits_move_over_the_range_of_real_symbols():
    calm, wild = Thresholds.adaptive_from_atr(0.0003), Thresholds.adaptive_from_atr(0.005)
    assert (calm.vol_z_threshold, wild.vol_z_threshold) == (3.0, 2.0)
    assert all(getattr(calm, name) < getattr(wild, name) for name in ("low_gate", "high_gate", "vwap_threshold"))


@settings(deadline=None)
@given(value=atr)
def test_a_set_field_stays_and_a_multiple_follows(value):
    made = Thresholds(low_gate="0.5x", high_gate="4x", vol_z_threshold=2.2, vwap_threshold="3x").resolved(value)
    assert made.low_gate == 0.5 * value and made.high_gate == made.low_gate * 4.0
    assert made.vol_z_threshold == 2.2 and made.vwap_threshold == 3.0 * value
    fixed = Thresholds(low_gate=1e-9, high_gate=0.5).resolved(value)
    assert (fixed.low_gate, fixed.high_gate) == (1e-9, 0.5)


@settings(deadline=None)
@given(value=atr)
def test_resolving_twice_changes_nothing(value):
    once = Thresholds().resolved(value)
    assert once.resolved(value) == once and once.resolved(2 * value) == once
    assert all(isinstance(getattr(once, name), float) for name in ADAPTIVE)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_no_volatility_no_resolution(bad):
    with pytest.raises(InputError, match="atr_7d="):
        Thresholds.adaptive_from_atr(bad)


def test_numpy_numbers_are_numbers():
    assert Thresholds(low_gate=np.float64(0.001), min_reasons_for_alert=np.int64(3)).to_json()["low_gate"] == 0.001
