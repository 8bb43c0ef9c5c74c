"""Luck and skill: the published numbers, plain twins, series without skill, and what cannot be judged."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aione_lab.errors import InputError
from aione_lab.research.overfitting import (
    annual_sharpe,
    deflated_sharpe,
    dsr_of_moments,
    effective_trials,
    expected_maximum_sharpe,
    minimum_track_record,
    mintrl_of_moments,
    pbo,
    period_sharpe,
    probabilistic_sharpe,
    psr_of_moments,
    return_moments,
)

SEEDS = range(20)


def noise(seed: int, periods: int = 1000, trials: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.01, (periods, trials))


# --- published numbers -------------------------------------------------------------------------------------------


def test_probabilistic_sharpe_of_the_paper() -> None:
    assert round(psr_of_moments(0.458, 24, -2.448, 10.164), 4) == 0.9134
    assert round(psr_of_moments(0.458, 24), 4) == 0.9817


def test_deflated_sharpe_of_the_paper() -> None:
    found = {"sharpe": period_sharpe(2.5, 250), "n_periods": 1250, "variance_of_sharpes": 0.5 / 250}
    assert round(dsr_of_moments(**found, skew=-3.0, kurtosis=10.0, n_trials=100).benchmark, 4) == 0.1132
    assert round(dsr_of_moments(**found, skew=-3.0, kurtosis=10.0, n_trials=100).probability, 4) == 0.9004
    assert round(dsr_of_moments(**found, skew=-3.0, kurtosis=10.0, n_trials=46).probability, 4) == 0.9505
    assert round(dsr_of_moments(**found, n_trials=88).probability, 4) == 0.9505


@pytest.mark.parametrize(("n", "highest"), [(10, 1.574598), (45, 2.235640), (100, 2.530603), (1000, 3.255122)])
def test_expected_maximum_of_the_papers(n: int, highest: float) -> None:
    assert round(expected_maximum_sharpe(n), 6) == highest
    assert expected_maximum_sharpe(n, 4.0) == pytest.approx(2 * highest, abs=2e-6)


def test_expected_maximum_near_the_exact_value_and_never_below_one_trial() -> None:
    drawn = np.random.default_rng(0).normal(size=(100_000, 10)).max(axis=1).mean()
    assert drawn == pytest.approx(1.5388, abs=0.01)
    assert expected_maximum_sharpe(10) == pytest.approx(drawn, abs=0.05)
    values = [expected_maximum_sharpe(n) for n in (1, 1.001, 1.2, 1.5, 2, 3, 7.5, 1e3, 1e6, 1e12)]
    assert values[0] == 0.0 and values == sorted(values) and all(math.isfinite(value) for value in values)


def test_minimum_track_record() -> None:
    """An annual Sharpe ratio of 2 against 1, daily and normal, takes 2.73 years (Bailey, López de Prado 2012)."""
    days = mintrl_of_moments(2 / math.sqrt(252), 2, benchmark=1 / math.sqrt(252))
    assert round(days / 252, 2) == 2.73
    returns = noise(1)[:, 0] + 0.002
    moments = return_moments(returns)
    needed = minimum_track_record(returns, benchmark=0.05, level=0.9)
    low = psr_of_moments(moments.sharpe, math.floor(needed), moments.skew, moments.kurtosis, 0.05)
    high = psr_of_moments(moments.sharpe, math.ceil(needed), moments.skew, moments.kurtosis, 0.05)
    assert low <= 0.9 <= high < low + 0.01
    assert minimum_track_record(returns, benchmark=moments.sharpe) == math.inf


# --- from returns ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    returns=st.lists(st.floats(-0.5, 0.5).map(lambda value: round(value, 4)), min_size=10, max_size=60),
    scale=st.sampled_from([1e-150, 1e-6, 1.0, 1e150]),
)
def test_moments_are_those_of_a_plain_computation(returns: list[float], scale: float) -> None:
    if len(set(returns)) < 3:
        return
    mean, n = math.fsum(returns) / len(returns), len(returns)
    spread = math.fsum((r - mean) ** 2 for r in returns) / n
    moments = return_moments(np.array(returns) * scale)
    assert moments.n_periods == n
    assert moments.sharpe == pytest.approx(mean / statistics.stdev(returns), rel=1e-9, abs=1e-12)
    assert moments.skew == pytest.approx(math.fsum((r - mean) ** 3 for r in returns) / n / spread**1.5, abs=1e-9)
    assert moments.kurtosis == pytest.approx(math.fsum((r - mean) ** 4 for r in returns) / n / spread**2, abs=1e-9)
    assert 0.0 <= probabilistic_sharpe(returns) <= 1.0
    assert probabilistic_sharpe(returns, moments.sharpe) == pytest.approx(0.5, abs=1e-9)


def test_annual_and_per_period_are_never_mixed_up() -> None:
    returns = noise(3)[:, 0] + 0.001
    daily = return_moments(returns).sharpe
    assert annual_sharpe(daily, 365) == pytest.approx(daily * 365**0.5)
    assert period_sharpe(annual_sharpe(daily, 365), 365) == pytest.approx(daily)
    assert probabilistic_sharpe(returns, period_sharpe(1.0, 365)) > probabilistic_sharpe(returns, 1.0)


@pytest.mark.parametrize("n_trials", [1, 10, 100])
def test_the_best_of_trials_without_skill_is_seldom_called_skill(n_trials: int) -> None:
    """200 series, each the best of so many shuffled ones: DSR says 5 % or less, the plain PSR is fooled."""
    deflated = fooled = 0
    rng = np.random.default_rng(n_trials)
    fat = rng.standard_t(4, 500) * 0.01  # one series of fat-tailed returns, shuffled: no trial has any skill
    fat -= fat.mean()
    for _ in range(200):
        trials = rng.choice(fat, (500, n_trials))
        sharpes = trials.mean(axis=0) / trials.std(axis=0, ddof=1)
        best = trials[:, sharpes.argmax()]
        deflated += deflated_sharpe(best, trial_sharpes=sharpes).probability > 0.95
        fooled += probabilistic_sharpe(best) > 0.95
    assert deflated <= 18
    assert fooled <= 18 if n_trials == 1 else fooled > 75


Count = Callable[[np.ndarray], float]


def plain(trials: np.ndarray) -> float:
    return trials.shape[1]


def spectral(trials: np.ndarray) -> float:
    return trials.shape[1] ** 2 / (np.corrcoef(trials, rowvar=False) ** 2).sum()


def false_finds(correlation: float, *counts: Count, seed: int = 7) -> list[int]:
    """By way of counting: how many of 200 sets of 40 equally correlated trials without skill get a DSR above 0.95."""
    found, rng = [0] * len(counts), np.random.default_rng(seed)
    for _ in range(200):
        market = rng.normal(0, 0.01, (400, 1))
        trials = math.sqrt(correlation) * market + math.sqrt(1 - correlation) * rng.normal(0, 0.01, (400, 40))
        sharpes = trials.mean(axis=0) / trials.std(axis=0, ddof=1)
        best = trials[:, sharpes.argmax()]
        for place, count in enumerate(counts):
            n = count(trials)
            assert 1 < n <= 40
            found[place] += deflated_sharpe(best, trial_sharpes=sharpes, n_trials=n).probability > 0.95
    return found


def test_correlated_trials_without_skill_fool_nobody() -> None:
    for correlation in (0.3, 0.6):
        assert max(false_finds(correlation, plain, effective_trials)) <= 18
    assert max(false_finds(0.9, plain)) <= 18
    # What the documentation says about the two other ways of counting.
    by_mean, by_spectrum = false_finds(0.8, effective_trials, spectral)
    assert 5 <= by_mean <= 25 < by_spectrum


def test_an_edge_is_found_among_many_trials() -> None:
    trials = noise(5, periods=1000, trials=100)
    trials[:, 17] += 0.002
    sharpes = trials.mean(axis=0) / trials.std(axis=0, ddof=1)
    found = deflated_sharpe(trials[:, 17], trial_sharpes=sharpes)
    assert found.probability > 0.95 and "unlikely explanation" in found.sentence and "not searched" in found.sentence
    lucky = deflated_sharpe(trials[:, np.argsort(sharpes)[-2]], trial_sharpes=sharpes)
    assert lucky.probability < 0.95 and "not ruled out" in lucky.sentence
    assert deflated_sharpe(trials[:, 17], n_trials=1, variance_of_sharpes=0.0).probability == probabilistic_sharpe(
        trials[:, 17]
    )


def test_clear_losers_among_the_trials_do_not_raise_the_hurdle_without_end() -> None:
    """Trials that lose to costs spread the Sharpe ratios without making the best luckier; no null slips through."""
    found = false = 0
    rng = np.random.default_rng(11)
    for _ in range(200):
        trials = rng.normal(0, 0.01, (365, 40)) - np.linspace(0, 0.02, 40)
        sharpes = trials.mean(axis=0) / trials.std(axis=0, ddof=1)
        false += deflated_sharpe(trials[:, sharpes.argmax()], trial_sharpes=sharpes).probability > 0.95
        trials[:, 0] += 0.003
        sharpes = trials.mean(axis=0) / trials.std(axis=0, ddof=1)
        judged = deflated_sharpe(trials[:, 0], trial_sharpes=sharpes)
        assert judged.variance_of_sharpes == 1 / 364
        found += judged.probability > 0.95
        as_given = deflated_sharpe(trials[:, 0], n_trials=40, variance_of_sharpes=float(sharpes.var(ddof=1)))
        assert as_given.probability < 0.05
    assert false <= 18 and found > 150


# --- effective number of trials ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), trials=st.integers(2, 12), load=st.floats(0, 3))
def test_effective_trials_is_the_mean_correlation_rule(seed: int, trials: int, load: float) -> None:
    rng = np.random.default_rng(seed)
    returns = rng.normal(size=(50, trials)) + load * rng.normal(size=(50, 1))
    pairs = np.corrcoef(returns, rowvar=False)[np.triu_indices(trials, 1)]
    mean = min(1.0, max(0.0, float(pairs.mean())))
    assert effective_trials(returns) == pytest.approx(mean + (1 - mean) * trials, rel=1e-9)
    assert 1 <= effective_trials(returns) <= trials


def test_effective_trials_at_its_ends() -> None:
    one = noise(0)[:, :1]
    assert effective_trials(np.hstack([one, 3 * one, 0.1 + one])) == pytest.approx(1.0)
    assert effective_trials(np.hstack([one, np.zeros_like(one), np.full_like(one, 0.3)])) == 1.0
    assert effective_trials(np.hstack([one, -one])) == pytest.approx(2.0)
    assert effective_trials(noise(0)) == pytest.approx(50, abs=0.5)


# --- probability of backtest overfitting -------------------------------------------------------------------------


def plain_pbo(returns: np.ndarray, blocks: int) -> list[tuple[float, int, float, float]]:
    """CSCV from its definition, one split after the other: (logit, chosen, Sharpe in, Sharpe out)."""
    pieces = np.split(np.arange(len(returns)), np.linspace(0, len(returns), blocks + 1).astype(int)[1:-1])
    out = []
    for inside in itertools.combinations(range(blocks), blocks // 2):
        here = np.concatenate([pieces[b] for b in inside])
        there = np.concatenate([pieces[b] for b in range(blocks) if b not in inside])
        sharpes = [
            [statistics.fmean(r) / statistics.stdev(r) if any(r) else 0.0 for r in returns[rows].T.tolist()]
            for rows in (here, there)
        ]
        best = max(range(returns.shape[1]), key=lambda j: round(sharpes[0][j], 10))
        mark = round(sharpes[1][best], 10)
        others = [round(value, 10) for value in sharpes[1]]
        rank = sum(value < mark for value in others) + (others.count(mark) + 1) / 2
        share = rank / (len(others) + 1)
        out.append((math.log(share / (1 - share)), best, sharpes[0][best], sharpes[1][best]))
    return out


@pytest.mark.parametrize(("blocks", "periods", "trials"), [(2, 4, 2), (4, 37, 5), (6, 60, 7), (8, 83, 4)])
def test_pbo_is_what_a_plain_loop_gives(blocks: int, periods: int, trials: int) -> None:
    returns = noise(blocks, periods, trials) + 3.0 * np.arange(trials) / 1000
    returns[:, -1] = returns[:, 0]  # a repeated trial
    if trials > 4:
        returns[:, 2] = 0.0  # one that never traded
    found, plain = pbo(returns, blocks), plain_pbo(returns, blocks)
    assert len(found.logits) == math.comb(blocks, blocks // 2)
    np.testing.assert_allclose(found.logits, [row[0] for row in plain], atol=1e-12)
    np.testing.assert_array_equal(found.chosen, [row[1] for row in plain])
    np.testing.assert_allclose(found.in_sample, [row[2] for row in plain], atol=1e-10)
    np.testing.assert_allclose(found.out_of_sample, [row[3] for row in plain], atol=1e-10)
    assert found.pbo == sum(row[0] <= 0 for row in plain) / len(plain)
    assert found.probability_of_loss == sum(row[3] < 0 for row in plain) / len(plain)


@pytest.mark.parametrize("seed", SEEDS)
def test_trials_that_sum_to_nothing_are_overfitted_for_certain(seed: int) -> None:
    trials = noise(seed, periods=2400, trials=100)
    found = pbo(trials - trials.mean(axis=0), n_splits=8)
    assert found.pbo == 1.0 and found.probability_of_loss == 1.0
    assert found.degradation[0] < -0.9
    assert "worse than choosing at random" in found.sentence


def test_pure_noise_and_one_skilled_trial() -> None:
    plain, skilled = [], []
    for seed in SEEDS:
        trials = noise(seed, periods=2400, trials=100)
        plain.append(pbo(trials, n_splits=8).pbo)
        trials[:, 31] += 0.002
        skilled.append(pbo(trials, n_splits=8))
    assert 0.39 < np.mean(plain) < 0.59 and min(plain) > 0.1 and max(plain) < 0.9
    assert max(plain) - min(plain) > 0.2  # one seed proves nothing
    assert max(found.pbo for found in skilled) <= 0.07
    assert all((found.chosen == 31).mean() > 0.9 for found in skilled)


def test_pbo_does_not_depend_on_scale_nor_on_how_many_splits_are_held_at_once(monkeypatch) -> None:
    trials = noise(4, periods=120, trials=9)
    whole = pbo(trials, n_splits=10)
    scaled = pbo(trials * 10.0 ** np.arange(-200, 205, 45), n_splits=10)
    np.testing.assert_allclose(scaled.logits, whole.logits)
    monkeypatch.setattr("aione_lab.research.overfitting._CHUNK", 9 * 5)
    np.testing.assert_array_equal(pbo(trials, n_splits=10).logits, whole.logits)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_holds_every_split(theme) -> None:
    found = pbo(noise(1, periods=200, trials=11), n_splits=8)
    figure = found.plot(theme)
    assert isinstance(figure, go.Figure)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert sum(np.sum(trace.y) for trace in bars) == pytest.approx(1.0)
    assert np.sum(bars[0].y) == pytest.approx(found.pbo)
    points = [trace for trace in figure.data if trace.type == "scatter" and trace.mode == "markers"]
    assert sum(len(trace.x) for trace in points) == len(found.logits)


# --- what cannot be judged ---------------------------------------------------------------------------------------

SERIES = ([], [0.1] * 9, [0.1] * 20, [0.0] * 20, [math.nan, *[0.1] * 20], [math.inf, *[0.1] * 20], ["1"] * 20, "x")
OTHERS = (None, 3, {}, [[0.1] * 20] * 3, [True, False] * 10, [1j] * 20, [[1], [1, 2]], np.array(["2025"] * 20, "M8[D]"))


@pytest.mark.parametrize("returns", [*SERIES, *OTHERS], ids=lambda value: str(value)[:20])
def test_returns_that_cannot_be_judged(returns) -> None:
    for call in (probabilistic_sharpe, minimum_track_record, lambda r: deflated_sharpe(r, trial_sharpes=[0.1, 0.2])):
        with pytest.raises(InputError, match="^returns=") as error:
            call(returns)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "1", True, 10**400], ids=repr)
def test_numbers_that_are_none(value) -> None:
    fair = np.random.default_rng(0).normal(size=30)
    calls = [
        lambda: probabilistic_sharpe(fair, value),
        lambda: minimum_track_record(fair, level=value),
        lambda: expected_maximum_sharpe(value),
        lambda: expected_maximum_sharpe(10, value),
        lambda: psr_of_moments(value, 20),
        lambda: psr_of_moments(0.1, value),
        lambda: annual_sharpe(0.1, value),
        lambda: deflated_sharpe(fair, n_trials=value, variance_of_sharpes=1.0),
        lambda: pbo(np.zeros((100, 3)), n_splits=value),
    ]
    for call in calls:
        with pytest.raises(InputError):
            call()


def test_refusals_say_why() -> None:
    fair = np.random.default_rng(0).normal(size=30)
    for call, text in [
        (lambda: deflated_sharpe(fair), "either trial_sharpes or variance_of_sharpes"),
        (lambda: deflated_sharpe(fair, trial_sharpes=[1.0], variance_of_sharpes=1.0), "either trial_sharpes"),
        (lambda: expected_maximum_sharpe(0.5), "n_trials=0.5: .*from 1 on"),
        (lambda: expected_maximum_sharpe(5, -1.0), "0 or more"),
        (lambda: psr_of_moments(0.1, 20, 2.0, 3.0), "kurtosis=3.0: .*not the excess"),
        (lambda: psr_of_moments(1.0, 20, 2.0, 5.0), "no spread"),
        (lambda: minimum_track_record(fair, level=0.5), "above 0.5"),
        (lambda: period_sharpe(1.0, 0), "more than 0"),
        (lambda: effective_trials(np.zeros((20, 3))), "none of which varies"),
        (lambda: effective_trials(np.zeros((5, 3))), "returns="),
        (lambda: pbo(noise(0), n_splits=7), "even"),
        (lambda: pbo(noise(0), n_splits=22), "from 2 to 20"),
        (lambda: pbo(noise(0, periods=31)), "32 rows × 2"),
        (lambda: pbo(noise(0, trials=1)), "32 rows × 2"),
        (lambda: pbo(np.where(noise(0) > 0.035, np.nan, noise(0))), r"nan at \("),
        (lambda: pbo(np.hstack([noise(0), np.ones((1000, 1))])), "column 50"),
    ]:
        with pytest.raises(InputError, match=text) as error:
            call()
        assert "\n" not in str(error.value)
