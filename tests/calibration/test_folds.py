"""Folds: no day on both sides, the purged distances hold, and the hidden days are in none of them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aione_lab.calibration.folds import FIRST_TRAIN, LEAST_GROUP, SCHEMES, Folds, look_back, make_folds
from aione_lab.calibration.study_run import experiment_folds
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.units import DAY_MS, MINUTE_MS, to_ms

PLANS = {
    "n_days": st.integers(6, 220),
    "n_folds": st.integers(2, 9),
    "n_test": st.integers(1, 8),
    "holding": st.integers(1, 6_000),
    "embargo": st.integers(0, 9),
}


def made(scheme: str, n_days: int, n_folds: int, n_test: int, holding: int, embargo: int) -> Folds | None:
    """The folds, or None where they are refused."""
    try:
        return make_folds(
            20_000,
            n_days,
            scheme=scheme,
            n_folds=n_folds,
            n_test=n_test,
            holding_ms=holding * MINUTE_MS,
            embargo_days=embargo,
        )
    except InputError as error:
        assert "\n" not in str(error)
        return None


@settings(max_examples=150, deadline=None)
@given(scheme=st.sampled_from(SCHEMES), **PLANS)
def test_the_two_sides_are_apart(scheme, n_days, n_folds, n_test, holding, embargo) -> None:
    folds = made(scheme, n_days, n_folds, n_test, holding, embargo)
    assume(folds is not None)
    purge = 1 + math.ceil(holding / 1440)
    assert folds.n_days == n_days and folds.train.shape == folds.test.shape == (len(folds.train), n_days)
    assert not (folds.train & folds.test).any()
    assert folds.train.any(axis=1).all() and folds.test.any(axis=1).all()
    for train, test in zip(folds.train, folds.test, strict=True):
        chosen, judged = np.flatnonzero(train), np.flatnonzero(test)
        gaps = judged[None] - chosen[:, None]
        assert gaps[gaps > 0].min(initial=n_days) > purge  # a trade is closed, a window has moved on
        assert (-gaps[gaps < 0]).min(initial=n_days) > purge + embargo
        # And no more is left out than that: every other day that may be chosen on is.
        if scheme == "combinatorial":
            allowed = ~test
            for day in judged:
                allowed[max(0, day - purge) : day + purge + embargo + 1] = False
            np.testing.assert_array_equal(train, allowed)


@settings(max_examples=80, deadline=None)
@given(scheme=st.sampled_from(["anchored", "rolling"]), **PLANS)
def test_walking_forward_nothing_is_chosen_on_what_comes_later(
    scheme, n_days, n_folds, n_test, holding, embargo
) -> None:
    folds = made(scheme, n_days, n_folds, n_test, holding, embargo)
    assume(folds is not None)
    assert len(folds.test) == n_folds
    tested = np.flatnonzero(folds.test.any(axis=0))
    assert (folds.test.sum(axis=0) <= 1).all() and tested[-1] == n_days - 1
    np.testing.assert_array_equal(tested, np.arange(tested[0], n_days))  # one run without a hole
    for number, (train, test) in enumerate(zip(folds.train, folds.test, strict=True)):
        first = np.flatnonzero(test)[0]
        assert np.flatnonzero(train)[-1] == first - folds.purge_days - 1
        groups = set(folds.groups[train])
        assert groups <= set(range(number + FIRST_TRAIN)) and len(set(folds.groups[test])) == 1
        if scheme == "rolling":
            assert groups <= {number, number + 1} and np.flatnonzero(train)[0] == np.argmax(folds.groups == number)
        else:
            assert np.flatnonzero(train)[0] == 0


@settings(max_examples=100, deadline=None)
@given(**PLANS)
def test_every_choice_of_groups_is_tested_once(n_days, n_folds, n_test, holding, embargo) -> None:
    folds = made("combinatorial", n_days, n_folds, n_test, holding, embargo)
    assume(folds is not None)
    chosen = [tuple(np.unique(folds.groups[test])) for test in folds.test]
    assert sorted(chosen) == list(itertools.combinations(range(n_folds), n_test))
    assert set(folds.test.sum(axis=0)) == {math.comb(n_folds - 1, n_test - 1)}  # every day equally often
    for test, groups in zip(folds.test, chosen, strict=True):
        np.testing.assert_array_equal(test, np.isin(folds.groups, groups))


@settings(max_examples=100, deadline=None)
@given(scheme=st.sampled_from(SCHEMES), n_days=st.integers(-5, 80), n_folds=st.integers(2, 9))
def test_groups_are_even_and_too_short_a_span_is_refused(scheme: str, n_days: int, n_folds: int) -> None:
    folds = made(scheme, n_days, n_folds, 1, 240, 1)
    groups = n_folds + FIRST_TRAIN if scheme != "combinatorial" else n_folds
    if n_days < max(LEAST_GROUP * groups, 10):  # fewer days are no sample
        assert folds is None
    elif folds is not None:
        sizes = np.bincount(folds.groups)
        assert len(sizes) == groups and sizes.max() - sizes.min() <= 1 and sizes.min() >= LEAST_GROUP


def test_the_table_says_what_is_chosen_on_and_what_is_judged() -> None:
    folds = make_folds(20_089, 30, n_folds=2)
    first = folds.frame.iloc[0]
    assert first["train"].startswith("2025-01-01 to ") and first["train_days"] == folds.train[0].sum()
    assert list(folds.frame["test_days"]) == list(folds.test.sum(axis=1)) and folds.frame.index.name == "fold"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scheme": "walk"}, "folds='walk'"),
        ({"n_folds": 1}, "from 2 to 50"),
        ({"n_folds": True}, "n_folds=True"),
        ({"n_folds": 9}, "30 days to search are too few for 11 groups: at least 33"),
        ({"embargo_days": -1}, "embargo_days=-1"),
        ({"embargo_days": 300, "scheme": "combinatorial"}, "leaves nothing"),
        ({"holding_ms": 20_000 * MINUTE_MS}, "too few"),
        ({"scheme": "combinatorial", "n_test": 5}, "n_test=5"),
        ({"scheme": "combinatorial", "n_test": 0}, "n_test=0"),
    ],
)
def test_refusals(changes, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        make_folds(20_000, 30, **changes)
    assert "\n" not in str(error.value)


def test_more_choices_of_groups_than_anybody_can_judge_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="n_test=25: 126,410,606,437,752 choices of 50 groups"):
        make_folds(20_000, 400, scheme="combinatorial", n_folds=50, n_test=25)
    assert len(make_folds(20_000, 400, scheme="combinatorial", n_folds=12, n_test=6).test) == 924


def test_no_fold_holds_a_hidden_day(study) -> None:
    made = study.experiment
    last = study.folds.first_day + study.folds.n_days
    assert last * DAY_MS == to_ms(made.hidden_from) == to_ms(made.end) - 4 * DAY_MS
    assert experiment_folds(made).n_days == study.folds.n_days == study.tables.trades.shape[1] == 15


def test_coarser_candles_look_back_longer() -> None:
    spec = FeatureSpec()
    assert look_back(spec, "1m") == DAY_MS  # twenty hours of trend, four of profile
    assert look_back(spec, "5m") == 20 * 4 * 3_600_000
    assert look_back(spec.replace(profile_window=1440), "3m") == 3 * DAY_MS
