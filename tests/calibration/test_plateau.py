"""The plateau choice: a spike loses, order does not matter, nothing vouches for itself."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aione_lab.calibration.plateau import Plateau, choose_plateau
from aione_lab.errors import InputError

UNIT = [(0.0, 1.0)]


def planted(seed: int, d: int = 3, k: int = 300, folds: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random sets with a broad hill of height 1 at ``centre`` and, elsewhere, one single set that scores 2.5."""
    rng = np.random.default_rng(seed)
    sets = rng.uniform(0, 1, (k, d))
    centre = rng.uniform(0.3, 0.7, d)
    away = np.sqrt(((sets - centre) ** 2).mean(axis=1))
    truth = np.exp(-((away / 0.2) ** 2))
    truth[away.argmax()] = 2.5
    level = rng.normal(0, 0.2, folds)  # good and bad times, the same for all
    return sets, truth[:, None] + level + rng.normal(0, 0.15, (k, folds)), away


@pytest.mark.parametrize("d", [2, 4, 8])
@pytest.mark.parametrize("seed", range(10))
def test_a_planted_spike_loses_against_a_planted_plateau(seed: int, d: int) -> None:
    sets, scores, away = planted(seed, d)
    found = choose_plateau(sets, scores, UNIT * d)
    assert found.peak == away.argmax() and found.centre != found.peak  # the best trial is the spike, and is not taken
    # In eight dimensions 300 random sets are all far apart, and the hill is known less well.
    assert away[found.centre] <= np.quantile(away, 0.1 if d < 8 else 0.25)
    assert found.neighbourhood[found.centre] > found.neighbourhood[found.peak]
    assert f"number {found.centre} was chosen" in found.sentence and "not said by this" in found.sentence


@pytest.mark.parametrize("seed", range(5))
def test_a_spike_that_was_searched_again_and_again_still_loses(seed: int) -> None:
    """A sampler returns to what scored well: repeats of the spike, and misses close around it."""
    sets, scores, away = planted(seed)
    rng = np.random.default_rng(100 + seed)
    spike = int(away.argmax())
    again = np.repeat(sets[[spike]], 30, axis=0)
    misses = np.clip(sets[spike] + rng.normal(0, 0.03, (30, 3)), 0, 1)
    sets = np.vstack([sets, again, misses])
    scores = np.vstack([scores, np.repeat(scores[[spike]], 30, axis=0), rng.normal(0, 0.15, (30, 5))])
    found = choose_plateau(sets, scores, UNIT * 3)
    assert found.peak == spike and found.n_distinct == 330
    assert found.centre < 300 and away[found.centre] <= np.quantile(away, 0.1)


def test_a_bad_set_amid_good_ones_is_no_centre() -> None:
    sets = np.array([[a, b] for a in range(7) for b in range(7)], dtype=float)
    scores = np.exp(-((sets - 3) ** 2).sum(axis=1) / 8)[:, None] * np.ones(3)
    assert tuple(sets[choose_plateau(sets, scores, [(0, 6)] * 2).centre]) == (3, 3)
    scores[24] = np.nan  # the very middle never traded
    assert tuple(sets[choose_plateau(sets, scores, [(0, 6)] * 2).centre]) in {(2, 3), (3, 2), (3, 4), (4, 3)}


def test_one_fold_does_not_carry_a_set() -> None:
    sets = np.random.default_rng(0).uniform(0, 1, (200, 2))
    left = sets[:, 0] < 0.5
    scores = np.where(left[:, None], [8.0, 0.0, 0.0, 0.0], [1.5, 1.5, 1.5, 1.5])
    found = choose_plateau(sets, scores, UNIT * 2)
    assert left[found.peak] and not left[found.centre]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(6, 60),
    d=st.integers(1, 5),
    folds=st.integers(1, 4),
    steps=st.integers(2, 6),
    levels=st.integers(1, 4),
)
def test_noise_on_a_grid_gives_no_nan_and_no_order_dependence(
    seed: int, k: int, d: int, folds: int, steps: int, levels: int
) -> None:
    """Few steps and few score levels: repeats and ties everywhere, which must not let the order in."""
    rng = np.random.default_rng(seed)
    sets = 0.2 + 0.05 * rng.integers(0, steps, (k, d))
    ranges = [(0.2, 0.2 + 0.05 * steps)] * d
    scores = np.where(rng.random((k, folds)) < 0.2, np.nan, rng.integers(0, levels, (k, folds)) / 3 - 0.3)
    if len(np.unique(sets.round(9), axis=0)) < 6:
        with pytest.raises(InputError, match="distinct sets"):
            choose_plateau(sets, scores, ranges)
        return
    found = choose_plateau(sets, scores, ranges)
    for values in (found.neighbourhood, found.scores, found.mean_scores, found.fold_scores, found.distances):
        assert np.isfinite(values).all()
    assert found.eligible[found.centre] and found.eligible.mean() > 0
    assert found.mean_scores[found.peak] == found.mean_scores.max()
    order = rng.permutation(k)
    other = choose_plateau(sets[order], scores[order], ranges)
    np.testing.assert_array_equal(sets[order][other.centre], sets[found.centre])
    np.testing.assert_array_equal(sets[order][other.peak], sets[found.peak])
    np.testing.assert_array_equal(other.neighbourhood, found.neighbourhood[order])
    assert {tuple(row) for row in sets[order][other.neighbours]} == {tuple(row) for row in sets[found.neighbours]}


def plain_plateau(sets: np.ndarray, scores: np.ndarray, n: int) -> tuple[int, list[float]]:
    """The choice from its definition, for distinct sets on unit ranges."""
    own = [float(np.mean(row) - np.std(row)) for row in scores]
    around, reach = [], []
    for i, one in enumerate(sets):
        away = [
            round(math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / len(one)), 9) for other in sets
        ]
        limit = sorted(away[:i] + away[i + 1 :])[n - 1]
        reach.append(limit)
        inside = sorted(own[j] for j in range(len(sets)) if away[j] <= limit)
        at = 0.25 * (len(inside) - 1)
        low = math.floor(at)
        around.append(min(own[i], inside[low] + (at - low) * (inside[min(low + 1, len(inside) - 1)] - inside[low])))
    radius = sorted(reach)[math.ceil(0.9 * (len(reach) - 1))]
    able = [i for i in range(len(sets)) if reach[i] <= radius]
    return max(able, key=lambda i: (around[i], own[i])), around


@pytest.mark.parametrize("seed", range(5))
def test_the_choice_is_what_a_plain_loop_gives(seed: int, monkeypatch) -> None:
    sets, scores, _ = planted(seed, k=70)
    monkeypatch.setattr("aione_lab.calibration.plateau._CHUNK", 1000)  # a few rows at once
    found = choose_plateau(sets, scores, UNIT * 3)
    centre, around = plain_plateau(sets, scores, found.n_neighbours)
    assert found.n_neighbours == 7 and found.centre == centre
    np.testing.assert_allclose(found.neighbourhood, around, atol=1e-12)


def test_equal_scores_are_decided_by_the_numbers_alone() -> None:
    sets = np.array([[a, b] for a in range(6) for b in range(6)], dtype=float)
    scores = np.ones((36, 3))
    chosen = set()
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(36)
        found = choose_plateau(sets[order], scores, [(0, 5)] * 2)
        chosen.add(tuple(sets[order][found.centre]))
    assert len(chosen) == 1


def test_missing_scores_never_help() -> None:
    rng = np.random.default_rng(3)
    sets = rng.uniform(0, 1, (100, 2))
    scores = np.full((100, 3), 0.5)
    dead = sets[:, 0] < 0.5
    scores[dead] = np.nan  # nothing traded there
    found = choose_plateau(sets, scores, UNIT * 2)
    assert not dead[found.centre] and (found.fold_scores[dead] == 0.0).all()
    scores[~dead] = -0.5  # everything that traded lost: not trading is no worse, and no better than the lowest
    assert (choose_plateau(sets, scores, UNIT * 2).fold_scores[dead] == -0.5).all()


def test_the_ranges_of_thresholds_are_known_by_name() -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {"tp_mult": rng.uniform(0.5, 6, 80), "min_reasons_for_alert": rng.integers(1, 5, 80)},
    )
    scores = -np.abs(frame["tp_mult"].to_numpy() - 3)[:, None] + np.zeros((80, 2))
    found = choose_plateau(frame, scores)
    same = choose_plateau(frame.to_numpy(dtype=float), scores, [(0.5, 6.0), (1, 4)])
    by_name = choose_plateau(frame, scores, {"min_reasons_for_alert": (1, 4), "tp_mult": (0.5, 6.0)})
    assert found.centre == same.centre == by_name.centre
    assert 2 < frame["tp_mult"][found.centre] < 4


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figure(theme) -> None:
    sets, scores, _ = planted(0)
    found = choose_plateau(sets, scores, UNIT * 3)
    figure = found.plot(theme)
    by_name = {trace.name: trace for trace in figure.data}
    assert by_name["chosen"].customdata[0] == found.centre and by_name["best trial"].customdata[0] == found.peak
    np.testing.assert_array_equal(by_name[f"chosen, number {found.centre}"].y, found.fold_scores[found.centre])
    assert isinstance(found, Plateau) and "three of four" in found.why or "too few" in found.why


def test_refusals() -> None:
    sets, scores, _ = planted(0, k=40)
    hole, infinite = sets.copy(), scores.copy()
    hole[3, 1], infinite[5, 2] = np.nan, np.inf
    text = pd.DataFrame({"tp_mult": ["1"] * 40})
    for call, words in [
        (lambda: choose_plateau(hole, scores, UNIT * 3), "parameters='nan in row 3, 1'"),
        (lambda: choose_plateau(sets[:, 0], scores, UNIT), "one row a set"),
        (lambda: choose_plateau(text, scores), "one row a set"),
        (lambda: choose_plateau(None, scores), "parameters="),
        (lambda: choose_plateau(sets, infinite, UNIT * 3), "cap it"),
        (lambda: choose_plateau(sets, scores[:-1], UNIT * 3), "each of 40 sets"),
        (lambda: choose_plateau(sets, scores[:, :0], UNIT * 3), "and a fold"),
        (lambda: choose_plateau(sets, "x", UNIT * 3), "scores="),
        (lambda: choose_plateau(sets, scores), "'0' is no threshold"),
        (lambda: choose_plateau(sets, scores, UNIT * 2), "3 times"),
        (lambda: choose_plateau(sets, scores, [(1, 0)] * 3), "low < high"),
        (lambda: choose_plateau(sets, scores, {"0": (0, 1)}), "lacks the field '1'"),
        (lambda: choose_plateau(sets, scores, 5), "ranges="),
        (lambda: choose_plateau(sets[:5], scores[:5], UNIT * 3), "5 distinct sets"),
        (lambda: choose_plateau(np.repeat(sets[:5], 8, axis=0), scores, UNIT * 3), "5 distinct sets"),
        (lambda: choose_plateau(sets, scores, UNIT * 3, n_neighbours=40), "n_neighbours=40"),
        (lambda: choose_plateau(sets, scores, UNIT * 3, radius=0), "radius=0"),
        (lambda: choose_plateau(sets, scores, UNIT * 3, radius=1e-6), "the closest takes"),
    ]:
        with pytest.raises(InputError, match=words) as error:
            call()
        assert "\n" not in str(error.value)
