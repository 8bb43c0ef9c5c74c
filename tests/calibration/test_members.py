"""A pool's members: each symbol's verdict is its own where it deviates, whichever set that is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from aione_lab.calibration import Calibration
from aione_lab.calibration.folds import Folds, make_folds
from aione_lab.calibration.job import outcome_of
from aione_lab.calibration.judging import judged_by
from aione_lab.calibration.markets import Market
from aione_lab.calibration.study import Member
from aione_lab.calibration.verdict import Verdict
from aione_lab.errors import InputError
from aione_lab.lake.store import Lake
from aione_lab.thresholds.classes import thresholds_for
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, to_ms

KEEP = Verdict("keep defaults", (), "Keep the defaults.")
ACCEPT = Verdict("accept", (), "Accept: its own.")


@pytest.fixture(scope="module")
def pool(study: Calibration) -> Calibration:
    """A pool that keeps the defaults; SOLUSDT alone passes, with the very set that stands in the pool's plateau."""
    members = tuple(
        Member(
            symbol=symbol,
            sets=study.sets,
            tables=study.tables,
            plateau=study.plateau,
            against_shared=study.walk_forward,
            against_default=study.walk_forward,
            overfitting=study.overfitting,
            judged=judged,
        )
        for symbol, judged in (("LINKUSDT", KEEP), ("SOLUSDT", ACCEPT))
    )
    data = dict.fromkeys(("LINKUSDT", "SOLUSDT"), "0" * 64)
    experiment = study.experiment.replace(symbols=("LINKUSDT", "SOLUSDT"), data=data)
    return dataclasses.replace(study, experiment=experiment, judged=KEEP, members=members)


def test_a_member_that_deviates_is_accepted_even_with_the_set_of_the_pool(pool: Calibration) -> None:
    assert pool.by_symbol["deviates"].tolist() == [False, True]
    assert (pool.verdict_for("LINKUSDT"), pool.verdict_for("SOLUSDT")) == ("keep defaults", "accept")
    assert (pool.sentence_for("LINKUSDT"), pool.sentence_for("SOLUSDT")) == (KEEP.sentence, ACCEPT.sentence)
    assert outcome_of(pool, "SOLUSDT", reveal=False).accepted and not outcome_of(pool, "LINKUSDT").accepted


def test_to_pick_among_many_symbols_is_luck_too(pool: Calibration) -> None:
    judged = judged_by(pool, {})
    for member in judged.members:
        assert member.deflated is not None and judged.deflated is not None
        assert member.deflated.n_trials == pytest.approx(2 * judged.deflated.n_trials)
        assert member.deflated.probability < judged.deflated.probability


@pytest.mark.parametrize("ask", ["thresholds_for", "verdict_for", "sentence_for"])
def test_a_symbol_of_no_member_is_refused(pool: Calibration, ask: str) -> None:
    with pytest.raises(InputError, match="symbol='ETHUSDT'"):
        getattr(pool, ask)("ETHUSDT")


def test_of_a_pool_the_outcome_is_asked_for_by_symbol(pool: Calibration) -> None:
    with pytest.raises(InputError, match="symbol=None: name one of LINKUSDT, SOLUSDT"):
        outcome_of(pool, reveal=False)


def test_what_is_put_in_force_is_what_was_judged_whatever_the_asset_class(study: Calibration) -> None:
    """A meme coin's class has a stop of its own; a set that was judged with the default's must not get it."""
    plain = dataclasses.replace(study, sets=tuple(Thresholds(tp_mult=one.tp_mult) for one in study.sets))
    made = study.experiment.replace(symbols=("DOGEUSDT",), data={"DOGEUSDT": "0" * 64})
    outcome = outcome_of(dataclasses.replace(plain, experiment=made), reveal=False)
    in_force = thresholds_for("DOGEUSDT", Thresholds.from_json(outcome.thresholds))
    assert in_force == plain.thresholds and in_force.sl_mult == 1.0


def test_random_entries_of_a_group_count_as_often_as_what_was_earned_there(lake: Lake, study: Calibration) -> None:
    """Drawn anew for each fold that tests the group, they would average out and no luck would look like theirs."""
    made = study.experiment
    market = Market.load(lake, "LINKUSDT", made, made.spec)
    first = to_ms(made.start) // DAY_MS
    loose = Thresholds(min_confidence=0.3)

    def folds(n_test: int) -> Folds:
        return make_folds(first, study.folds.n_days, scheme="combinatorial", n_folds=4, n_test=n_test, embargo_days=0)

    once, often = (
        market.random_entries([loose] * len(one.test), one, seed=0) for one in (folds(1), folds(2))
    )  # each group is tested by one fold, or by three
    assert once.n_entries > 20
    assert often.observed == pytest.approx(3 * once.observed)
    np.testing.assert_allclose(often.drawn, 3 * once.drawn)
    assert often.p_value == once.p_value
