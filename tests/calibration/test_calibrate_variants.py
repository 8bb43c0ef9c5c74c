"""Studies off the beaten track: holes, odd beginnings, five-minute candles, no reference, own triggers."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from aione_lab.calibration import FoldPlan, calibrate, repeat
from aione_lab.calibration.experiment import Experiment
from aione_lab.calibration.plan import plan
from aione_lab.calibration.run import run_experiment
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.store import Lake
from tests.calibration.conftest import SMALL
from tests.custom_examples import FUNDING_PRESSURE, LOUD, SQUEEZE_RELEASE


def test_holes_odd_beginnings_coarser_candles_and_no_reference(lake: Lake, tmp_path) -> None:
    candles = lake.candles("LINKUSDT", "1m")
    day = candles.index.floor("D").day_of_year
    holey = Lake(tmp_path / "lake")
    holey.append("LINKUSDT", "1m", candles[~day.isin([5, 6, 12])])  # no reference, no funding, three days missing
    holey.resample("LINKUSDT", "1m", "5m")
    for interval in ("1m", "5m"):
        found = calibrate(
            holey,
            "LINKUSDT",
            spec=FeatureSpec(trend_fast=3, trend_slow=6),
            **{**SMALL, "folder": None, "interval": interval, "start": "2025-01-01T13:37", "n_trials": 20},
        )
        assert found.experiment.reference is None and found.folds.n_days == 15
        assert (found.tables.trades[:, [4, 5, 11]] == 0).all() and found.tables.trades.sum() > 0
        json.dumps(dict(found.results), allow_nan=False)
        assert found.reveal().metrics["n_days"] == 4
    with pytest.raises(InputError, match="days to search are too few"):  # the trend of 4 h candles looks back for days
        calibrate(holey, "LINKUSDT", **{**SMALL, "folder": None, "interval": "5m"})


@pytest.mark.parametrize(
    "plan", [FoldPlan(scheme="rolling", n_folds=3), FoldPlan(scheme="combinatorial", n_folds=4, n_test=1)]
)
def test_each_scheme_judges_every_tested_day_once(small, plan: FoldPlan) -> None:
    found = small(folds=plan, n_trials=20)
    tested = found.folds.test.any(axis=0)
    assert len(found.walk_forward.days) == tested.sum() == len(found.walk_forward.daily)
    # A day that several folds test has their mean: nothing is counted twice.
    times = found.folds.test.sum(axis=0)
    expected = sum(
        (found.tables.trades[row] * test / times.clip(1)).sum()
        for row, test in zip(found.walk_forward.rows, found.folds.test, strict=True)
    )
    assert found.out_of_sample["n_trades"] == pytest.approx(expected)
    assert isinstance(found.folds.frame, pd.DataFrame)


def test_a_spec_that_is_not_the_experiments_is_refused(lake: Lake, small) -> None:
    """Checked by names and windows, before anything is compiled or read."""
    own = FeatureSpec(triggers=(SQUEEZE_RELEASE,), factors=(FUNDING_PRESSURE,))
    made = plan(lake, "LINKUSDT", spec=own, folds=FoldPlan(n_folds=3), space=["tp_mult", "custom.SQUEEZE_RELEASE"])
    assert made.own == ("SQUEEZE_RELEASE", "funding_pressure") and made.whole_spec(own) is own
    assert Experiment(**made.model_dump(mode="json")).design == made.design
    others = [None, FeatureSpec(), FeatureSpec(triggers=(SQUEEZE_RELEASE, LOUD), factors=(FUNDING_PRESSURE,)), 5]
    for other in others:
        with pytest.raises(InputError, match="spec=") as error:
            run_experiment(made, lake, folder=None, spec=other)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
    plain = plan(lake, "LINKUSDT", folds=FoldPlan(n_folds=3))
    with pytest.raises(InputError, match="spec="):
        plain.whole_spec(own)
    assert plain.whole_spec(None) == plain.spec == plain.whole_spec(FeatureSpec())


@pytest.mark.long  # own triggers are compiled anew in every process
def test_own_triggers_are_searched_repeated_and_revealed(lake: Lake, small, tmp_path) -> None:
    own = FeatureSpec(triggers=(SQUEEZE_RELEASE,), factors=(FUNDING_PRESSURE,))
    space = ["tp_mult", "sl_mult", "custom.SQUEEZE_RELEASE"]
    found = small(spec=own, space=space, folder=tmp_path, name="x", n_trials=20)
    assert found.trials["custom.SQUEEZE_RELEASE"].nunique() > 3 and "SQUEEZE_RELEASE" in found.thresholds.custom
    assert found.digest != small(space=space[:2], n_trials=20).digest
    assert repeat(tmp_path / "x", lake, spec=own).same
    for call in (lambda: repeat(tmp_path / "x", lake), lambda: found.reveal()):
        with pytest.raises(InputError, match="spec=None: must be given, with the own SQUEEZE_RELEASE"):
            call()
    assert found.reveal(spec=own).metrics["n_days"] == 4
