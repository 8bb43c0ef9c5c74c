"""Does the confidence mean anything: planted truths are told, empty numbers are not taken for skill."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import stated_days
from scipy import stats

from aione_lab.backtest import replay
from aione_lab.errors import InputError
from aione_lab.research import clusters
from aione_lab.research.forecast import area, score_forecast
from aione_lab.research.reliability import gate_table, reliability
from aione_lab.thresholds import Thresholds


@pytest.mark.parametrize(
    ("truth", "ranking", "calibrated"),
    [("calibrated", "right", True), ("overstated", "right", False), ("inverted", "inverted", False)],
)
def test_planted_truths_are_told(truth: str, ranking: str, calibrated: bool) -> None:
    told = [score_forecast(*stated_days(seed, truth), n_boot=300, seed=seed) for seed in range(10)]
    assert [forecast.ranking for forecast in told] == [ranking] * 10
    # An honest 5 % test refuses a true null now and then, and a false one hardly ever here.
    assert sum(forecast.calibrated == calibrated for forecast in told) >= 8
    if truth == "calibrated":
        assert np.mean([forecast.measure("slope") for forecast in told]) == pytest.approx(1.0, abs=0.05)
        assert all(forecast.measure("skill", "low") > 0 for forecast in told)


def test_an_empty_confidence_is_called_empty_as_often_as_promised() -> None:
    """At 5 % about 5 of 100 nulls, and no more than a binomial allows; a test of independent trades fails this."""
    most = stats.binom.ppf(0.999, 100, 0.05)
    refused, naive = np.zeros(3), 0
    for seed in range(100):
        stated, won, r, days = stated_days(seed, "empty", shared=0.7)
        forecast = score_forecast(stated, won, r, days, n_boot=200, seed=seed)
        refused[0] += forecast.measure("auc", "p_value") <= 0.05
        refused[1] += forecast.measure("rank_correlation", "p_value") <= 0.05
        honest = score_forecast(*stated_days(seed, "calibrated"), n_boot=200, seed=seed)
        refused[2] += not honest.calibrated
        naive += stats.mannwhitneyu(stated[won], stated[~won]).pvalue <= 0.05
    assert refused.max() <= most < naive


def test_bands_cover() -> None:
    inside = 0
    for seed in range(100):
        forecast = score_forecast(*stated_days(seed, "calibrated"), n_boot=200, seed=seed)
        inside += forecast.measure("overstatement", "low") <= 0 <= forecast.measure("overstatement", "high")
    assert inside >= 86


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_identities(data: st.DataObject) -> None:
    """The parts of the Brier score add up; the curve's counts are all; AUC and Spearman are scipy's."""
    n = data.draw(st.integers(1, 60))
    stated = np.array(data.draw(st.lists(st.floats(0, 1, width=16), min_size=n, max_size=n)))
    won = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    r = np.array(data.draw(st.lists(st.floats(-5, 5) | st.just(math.nan), min_size=n, max_size=n)))
    days = np.sort(np.array(data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))))
    forecast = score_forecast(stated, won, r, days, bins=data.draw(st.integers(2, 12)), n_boot=20)
    m = forecast.measure
    assert m("brier") == pytest.approx(float(np.mean((stated - won) ** 2)), abs=1e-12)
    parts = m("reliability") - m("resolution") + m("uncertainty") + m("within_bins")
    assert m("brier") == pytest.approx(parts, abs=1e-12)
    curve = forecast.curve
    assert curve["count"].sum() == n and (curve["count"] > 0).all()
    assert (curve["count"] * curve["win_rate"]).sum() == pytest.approx(won.sum())
    assert ((curve["stated"] >= curve["low"] - 1e-9) & (curve["stated"] <= curve["high"] + 1e-9)).all()
    if won.any() and not won.all():
        u = stats.mannwhitneyu(stated[won], stated[~won]).statistic
        assert m("auc") == pytest.approx(u / (won.sum() * (~won).sum()))
    else:
        assert math.isnan(m("auc")) and forecast.ranking == ""
    known = np.isfinite(r)
    if len(np.unique(stated[known])) > 1 and len(np.unique(r[known])) > 1:
        assert m("rank_correlation") == pytest.approx(stats.spearmanr(stated[known], r[known]).statistic)
    p = forecast.measures["p_value"].dropna()
    assert ((p > 0) & (p <= 1)).all()


def test_the_decomposition_by_hand() -> None:
    """Two bins: 0.2 stated four times, one gain; 0.8 stated four times, two gains."""
    stated = np.repeat([0.2, 0.8], 4)
    won = np.array([1, 0, 0, 0, 1, 1, 0, 0], bool)
    forecast = score_forecast(stated, won, np.where(won, 1.0, -1.0), np.arange(8), bins=2, n_boot=10)
    m = forecast.measure
    assert m("reliability") == pytest.approx((0.05**2 + 0.3**2) / 2)
    assert m("resolution") == pytest.approx(0.125**2)
    assert m("uncertainty") == pytest.approx(0.375 * 0.625)
    assert m("within_bins") == pytest.approx(0, abs=1e-12)
    assert m("calibration_error") == pytest.approx((0.05 + 0.3) / 2)
    assert m("slope") == pytest.approx(0.25 / 0.6)
    assert area(stated, won, np.ones(8)) == m("auc") == pytest.approx((2 * 3 + (2 * 2 + 3) / 2) / 15)


def test_weighted_area_is_that_of_repeated_days() -> None:
    stated, won, _, days = stated_days(3, "calibrated", n_days=8, a_day=6)
    times = np.random.default_rng(0).integers(0, 4, 8)
    rows = np.repeat(np.arange(len(days)), times[days])
    assert area(stated, won, times[days].astype(float)) == pytest.approx(
        area(stated[rows], won[rows], np.ones(len(rows)))
    )


def test_nothing_and_one() -> None:
    empty = score_forecast(np.array([]), np.array([]), np.array([]), np.array([], int), n_boot=5)
    assert empty.n == 0 and not len(empty.curve) and empty.measures["value"].isna().all()
    one = score_forecast(np.array([0.4]), np.array([True]), np.array([2.0]), np.array([0]), n_boot=5)
    assert one.measure("brier") == pytest.approx(0.36) and math.isnan(one.measure("skill"))


@pytest.mark.parametrize("bad", [1.5, math.nan, -0.1])
def test_a_statement_that_is_no_probability_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="stated="):
        score_forecast(np.array([0.5, bad]), np.ones(2), np.ones(2), np.zeros(2, int))
    with pytest.raises(InputError, match="one length"):
        score_forecast(np.array([0.5]), np.ones(2), np.ones(2), np.zeros(2, int))


def planted_gates(seed: int, shift: float) -> tuple[pd.DataFrame, np.ndarray]:
    """Alerts of 30 days, of which ``room`` turned down worse ones by ``shift`` R, ``confidence`` equal ones."""
    random = np.random.default_rng(seed)
    days = np.repeat(np.arange(30), 30)
    detail = random.choice(["all_gates_met", "room", "confidence"], size=len(days))
    r = random.normal(0, 1.5, len(days)) + random.normal(0, 0.5, 30)[days] - shift * (detail == "room")
    frame = pd.DataFrame(
        {
            "recommendation": np.where(detail == "all_gates_met", "BUY", "WAIT_FOR_CONFIRMATION"),
            "detail": detail,
            "r_multiple": r,
            "return": r / 500,
            "pnl": r * 20,
        }
    )
    return frame, days


def test_a_gate_that_keeps_out_worse_alerts_is_found_and_others_are_not() -> None:
    false = 0
    for seed in range(40):
        frame, days = planted_gates(seed, 0.8)
        gates = gate_table(frame, days, 30, n_boot=200, seed=seed)
        worse = gates.loc[("WAIT_FOR_CONFIRMATION", "room")]
        assert worse["q_value"] <= 0.05 and worse["difference_r_high"] < 0
        assert worse["saved_r"] == pytest.approx(-frame["r_multiple"][frame["detail"] == "room"].sum())
        false += gates.loc[("WAIT_FOR_CONFIRMATION", "confidence"), "q_value"] <= 0.05
        assert gates.index[0] == ("BUY", "all_gates_met") and gates.index[-1] == ("turned down", "all")
        assert gates["count"].iloc[:-1].sum() == len(frame)
    assert false <= stats.binom.ppf(0.999, 40, 0.05)


def test_of_a_replay(replays) -> None:
    study = reliability(replays, n_boot=200)
    again = reliability(replays, n_boot=200)
    assert study.gates.equals(again.gates) and study.summary.equals(again.summary)
    alerts = sum(len(one.alerts) for one in replays)
    assert len(study.trades) + study.left_out == alerts
    assert study.curve.loc["confidence", "count"].sum() == len(study.trades)
    one = study.summary.loc["confidence"]
    won = study.trades["pnl"] > 0
    assert one.loc["base_rate", "value"] == pytest.approx(won.mean())
    assert one.loc["brier", "value"] == pytest.approx(((study.trades["confidence"] - won) ** 2).mean())
    buys = study.trades[study.trades["recommendation"] == "BUY"]
    assert study.gates.loc[("BUY", "all_gates_met"), "mean_r"] == pytest.approx(buys["r_multiple"].mean())
    assert f"{len(study.trades):,} alerts" in study.sentence
    for theme in ("light", "dark"):
        assert len(study.plot(theme).data) == 4 and len(study.plot_gates(theme).data) == 1


def test_of_too_little(replays) -> None:
    short = replay(replays[0].candles[:2000], symbol="SOLUSDT")
    study = reliability(short, n_boot=50)
    assert 0 < len(study.trades) < 100 and "too few" in study.sentence
    study.plot(), study.plot_gates()
    none = reliability(replay(replays[0].candles[:3000], Thresholds(min_reasons_for_alert=11)), n_boot=50)
    assert not len(none.trades) and "nothing to judge" in none.sentence and not len(none.gates)
    none.plot(), none.plot_gates()


@pytest.mark.parametrize(
    ("name", "value"), [("bins", 1), ("bins", True), ("n_boot", 0), ("seed", -1), ("seed", 0.5), ("n_boot", "many")]
)
def test_bad_numbers_are_named(replays, name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name}="):
        reliability(replays[0], **{name: value})


def test_the_same_candles_twice_are_no_more_evidence(replays) -> None:
    candles = replays[0].candles[:3000]
    other_sets = [replay(candles, Thresholds(sl_mult=sl_mult), symbol="SOLUSDT") for sl_mult in (1.0, 2.0)]
    for both in ([replays[0], replays[0]], other_sets):
        with pytest.raises(InputError, match="result=.*the same candles twice are no more evidence"):
            reliability(both, n_boot=50)


@pytest.mark.parametrize("bad", [None, [], [None], "SOLUSDT", 3])
def test_bad_results_are_named(bad: object) -> None:
    with pytest.raises(InputError, match="result="):
        reliability(bad)


def test_a_band_of_one_a_day_is_students_and_wilsons() -> None:
    values = np.random.default_rng(0).normal(1, 2, 25)
    expected = stats.t.interval(0.95, 24, values.mean(), values.std(ddof=1) / 5)
    assert clusters.mean_band(values, np.arange(25)) == pytest.approx(expected)
    won = np.arange(25) < 9
    wilson = stats.binomtest(9, 25).proportion_ci(method="wilson")
    # Between-day variances are taken with n − 1, so the effective number is just below n.
    assert clusters.share_band(won, np.arange(25)) == pytest.approx((wilson.low, wilson.high), abs=0.005)
    assert clusters.share_band(np.zeros(12, bool), np.arange(12)) == pytest.approx(
        tuple(stats.binomtest(0, 12).proportion_ci(method="wilson"))
    )
    together = clusters.mean_band(np.repeat(values, 4), np.repeat(np.arange(25), 4))
    assert together == pytest.approx(expected)  # saying everything four times adds nothing
    assert all(map(math.isnan, clusters.mean_band(values, np.zeros(25, int))))
