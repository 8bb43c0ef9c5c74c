"""The search space: every field, own ranges, own triggers, and no set in it that is none."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aione_lab.calibration.space import APART, Space
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.thresholds import Thresholds
from aione_lab.thresholds.search import search_space
from tests.custom_examples import LOUD, SQUEEZE_RELEASE

OWN = FeatureSpec(triggers=(SQUEEZE_RELEASE, LOUD))


def test_without_a_word_every_field_is_searched_but_the_one_that_switches_others_off() -> None:
    space = Space.of()
    assert set(space.ranges) == set(search_space()) - set(APART) and len(space.ranges) == 11
    assert Space.of(list(search_space())).ranges == search_space()


@pytest.mark.parametrize("name", sorted(search_space(OWN)))
def test_every_step_of_every_field_is_a_set(name: str) -> None:
    """Also its identity: the step of a trial and the number as a person writes it are the same set."""
    space = Space.of([name], spec=OWN)
    search, distribution = space.ranges[name], space.distributions[name]
    steps = math.floor((Decimal(str(search.high)) - Decimal(str(search.low))) / Decimal(str(search.step)))
    assert space.size == steps + 1
    seen = set()
    for i in range(steps + 1):
        decimal = Decimal(str(search.low)) + i * Decimal(str(search.step))
        noisy = search.low + i * search.step  # 0.3 + 36 × 0.1 is 3.9000000000000004
        assert distribution._contains(distribution.to_internal_repr(float(decimal)))
        chosen = space.thresholds({name: noisy})
        given: object = float(decimal)
        if search.multiple_of:
            given = f"{float(decimal):g}x"
        elif isinstance(distribution, optuna.distributions.IntDistribution):
            given = int(decimal)
        assert chosen == Thresholds.from_json({name: given})
        seen.add(chosen.digest())
    assert len(seen) == steps + 1


def test_what_optuna_draws_is_in_the_space_and_its_ends_occur() -> None:
    space = Space.of(spec=OWN)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [study.ask(space.distributions).params for _ in range(300)]
    for name, search in space.ranges.items():
        values = [one[name] for one in drawn]
        assert search.low <= min(values) and max(values) <= search.high + 1e-9
        assert len(set(values)) > 3
    assert len({space.thresholds(one).digest() for one in drawn}) == 300


def test_a_subset_holds_the_rest_at_the_base() -> None:
    base = Thresholds(sl_mult=1.7, low_gate=0.0003, custom={"LOUD": 4})
    space = Space.of(["tp_mult", "custom.SQUEEZE_RELEASE"], base=base, spec=OWN)
    made = space.thresholds({"tp_mult": 2.5, "custom.SQUEEZE_RELEASE": 2.2})
    assert made == base.replace(tp_mult=2.5, custom={"LOUD": 4.0, "SQUEEZE_RELEASE": 2.2})
    assert list(Space.of(["tp_mult", "low_gate", "tp_mult"]).ranges) == ["low_gate", "tp_mult"]  # in the fields' order
    assert Space.of(["tp_mult"], base=Thresholds(meta={"from": "here"})).thresholds({"tp_mult": 1}).meta is None


def test_own_ranges() -> None:
    space = Space.of(
        {
            "tp_mult": (1, 3),  # the declared step
            "sl_mult": (0.5, 1.0, 0.3),  # the last step inside is 0.8
            "low_gate": (0.00001, 0.00009, 0.00001),
            "rsi_oversold": (20.5, 30.5, 2.5),
            "min_reasons_for_alert": (2, 3),
            "custom.LOUD": (0, 2, 0.5),
        },
        spec=OWN,
    )
    found = space.distributions
    assert (found["tp_mult"].low, found["tp_mult"].high, found["tp_mult"].step) == (1.0, 3.0, 0.25)
    assert found["sl_mult"].high == 0.8
    assert isinstance(found["min_reasons_for_alert"], optuna.distributions.IntDistribution)
    made = space.thresholds({"low_gate": 0.00003, "rsi_oversold": 25.5, "custom.LOUD": 1.5})
    assert made.low_gate == "0.00003x" and made.rsi_oversold == 25.5 and made.custom["LOUD"] == 1.5


@settings(max_examples=100, deadline=None)
@given(
    low=st.integers(1, 400),
    steps=st.integers(1, 30),
    step=st.integers(1, 40),
    name=st.sampled_from(["tp_mult", "low_gate"]),
)
def test_any_decimal_range_gives_its_decimal_steps(low: int, steps: int, step: int, name: str) -> None:
    of = Decimal("0.01")
    ends = (float(low * of), float((low + steps * step) * of), float(step * of))
    space = Space.of({name: ends})
    assert space.size == steps + 1
    for i in range(steps + 1):
        value = getattr(space.thresholds({name: ends[0] + i * ends[2]}), name)
        assert Decimal(str(value).rstrip("x")) == (low + i * step) * of


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["tp_mult", "tp_mutl"], "did you mean 'tp_mult'"),
        (["custom.SQUEEZE_RELEASE"], "space='custom.SQUEEZE_RELEASE'"),  # no spec that declares it
        ([5], "space=5"),
        ([["tp_mult"]], "space="),
        ([], "at least one"),
        ({}, "at least one"),
        ("tp_mult", "must be names"),
        (5, "must be names"),
        ({"tp_mult": (3, 1)}, "low must be less"),
        ({"tp_mult": (1, 1)}, "low must be less"),
        ({"tp_mult": (1,)}, r"space\['tp_mult'\]"),
        ({"tp_mult": "12"}, r"\(low, high\)"),
        ({"tp_mult": (True, 2)}, r"\(low, high\)"),
        ({"tp_mult": None}, r"\(low, high\)"),
        ({"tp_mult": (1, 10**400)}, r"\(low, high\)"),
        ({"tp_mult": (1, math.nan)}, "finite"),
        ({"tp_mult": (1, 2, 5)}, "no wider than the range"),
        ({"tp_mult": (1, 2, 0)}, "positive"),
        ({"tp_mult": (1, 500)}, "tp_mult=500.0"),
        ({"low_gate": (0, 1, 0.1)}, "low_gate='0x'"),
        ({"high_gate": (0.5, 2)}, "more than '1x'"),
        ({"rsi_oversold": (15, 75)}, "less than rsi_overbought"),
        # Neither both low ends nor both high ones are at odds, but what lies between them is.
        ({"rsi_oversold": (15, 80), "rsi_overbought": (55, 85)}, "less than rsi_overbought"),
        ({"min_reasons_for_alert": (1, 4, 0.5)}, "whole numbers"),
    ],
)
def test_refusals(fields, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        Space.of(fields)
    assert "\n" not in str(error.value) and "space" in str(error.value)


def test_other_refusals() -> None:
    with pytest.raises(InputError, match="base="):
        Space.of(["tp_mult"], base="x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="spec="):
        Space.of(["tp_mult"], spec=5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="params='sl_mult'"):
        Space.of(["tp_mult"]).thresholds({"sl_mult": 1.0})


def test_no_corner_of_the_whole_space_is_refused() -> None:
    space = Space.of(search_space(OWN).keys(), spec=OWN)
    pairs = [(search.low, search.high) for search in space.ranges.values()]
    for corner in itertools.islice(itertools.product(*pairs), 0, None, 7):
        space.thresholds(dict(zip(space.ranges, corner, strict=True)))
    assert np.isfinite(space.size)
