"""Other orders of the same trades: a plain twin, what must stay, and what cannot be asked."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aione_lab.backtest import Result, random_entries, replay
from aione_lab.engine.records import TRADE
from aione_lab.errors import InputError
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.research.montecarlo import random_entry_test, trade_order
from aione_lab.thresholds import Thresholds


@pytest.fixture(scope="module")
def result() -> Result:
    candles = SimulatedExchange(seed=5).candles("LINKUSDT", days=6)
    return replay(candles, Thresholds(min_confidence=0.4), symbol="LINKUSDT")


def with_trades(result: Result, pnl: list[float], entries: list[int] | None = None) -> Result:
    trades = np.zeros(len(pnl), TRADE)
    trades["pnl"] = pnl
    trades["entry_time"] = range(len(pnl)) if entries is None else entries
    return dataclasses.replace(result, trade_records=trades)


def plain_path(pnl: list[float], capital: float) -> tuple[float, float, int]:
    """(deepest drawdown, end, longest losing run) of trades whose shares of equity compound, one after the other."""
    before, shares = capital, []
    for amount in pnl:
        if before <= 0:
            break
        shares.append(amount / before)
        before += amount
    equity = peak = 1.0
    deepest, run, longest = 0.0, 0, 0
    for share in shares:
        equity *= max(0.0, 1 + share)
        peak = max(peak, equity)
        deepest = max(deepest, 1 - equity / peak)
        run = run + 1 if 1 + share < 1 else 0
        longest = max(longest, run)
    return deepest, equity * capital, longest


@settings(max_examples=60, deadline=None)
@given(
    pnl=st.lists(st.floats(-4000, 4000), min_size=2, max_size=40), method=st.sampled_from(["permutation", "bootstrap"])
)
def test_the_observed_order_is_a_plain_walk_through_the_trades(result: Result, pnl: list[float], method) -> None:
    study = with_trades(result, pnl)
    deepest, end, run = plain_path(pnl, 10_000.0)
    if sum(np.cumsum([10_000, *pnl[:-1]]) > 0) < 2:
        return
    found = trade_order(study, n_draws=20, method=method)
    assert found.observed_drawdown == pytest.approx(deepest, abs=1e-9)
    assert found.observed_equity == pytest.approx(end, rel=1e-9, abs=1e-6)
    assert found.observed_run == run
    assert (found.drawdowns >= 0).all() and (found.drawdowns <= 1).all()
    assert np.isfinite(found.fan.to_numpy()).all() and len(found.fan) == found.n_trades + 1
    assert (np.diff(found.fan.drop(columns="observed").to_numpy(), axis=1) >= -1e-9).all()
    assert found.sentence.endswith(".")
    if method == "permutation":
        np.testing.assert_allclose(found.final_equity, end, rtol=1e-9, atol=1e-6)


def test_drawdowns_are_those_of_all_orders(result: Result) -> None:
    pnl = [900.0, -700.0, 400.0, -1200.0, -300.0]
    found = trade_order(with_trades(result, pnl), n_draws=6000)
    growth, before = [], 10_000.0
    for amount in pnl:
        growth.append(1 + amount / before)
        before += amount
    exact, runs = [], []
    for order in itertools.permutations(growth):
        path = np.cumprod([1.0, *order])
        exact.append((1 - path / np.maximum.accumulate(path)).max())
        runs.append(max(len(list(g)) for lost, g in itertools.groupby(order, key=lambda x: x < 1) if lost))
    assert found.drawdowns.mean() == pytest.approx(np.mean(exact), abs=0.002)
    assert found.losing_runs.mean() == pytest.approx(np.mean(runs), abs=0.03)
    assert found.p_deeper == pytest.approx(np.mean(np.array(exact) > found.observed_drawdown + 1e-12), abs=0.03)
    assert {round(float(value), 9) for value in found.drawdowns} <= {round(float(value), 9) for value in exact}


def test_a_clustered_order_is_seen_as_unlucky_and_an_even_one_as_lucky(result: Result) -> None:
    unlucky = trade_order(with_trades(result, [50.0] * 40 + [-40.0] * 40))
    assert unlucky.p_deeper == 0.0 and unlucky.observed_run == 40
    lucky = trade_order(with_trades(result, [50.0, -40.0] * 40))
    assert lucky.p_deeper > 0.99 and lucky.observed_run == 1


def test_a_bootstrap_spreads_the_end_as_statistics_say(result: Result) -> None:
    pnl = np.random.default_rng(3).normal(2.0, 60.0, 200)
    found = trade_order(with_trades(result, list(pnl)), n_draws=4000, method="bootstrap")
    shares = pnl / (10_000 + np.concatenate([[0], np.cumsum(pnl)[:-1]]))
    expected = np.log1p(shares).std() * math.sqrt(200)
    assert np.log(found.final_equity / 10_000).std() == pytest.approx(expected, rel=0.05)
    assert "neither a gain nor a loss" in found.sentence
    assert "a loss" in trade_order(with_trades(result, list(pnl - 30)), method="bootstrap").sentence
    assert "No order turns" in trade_order(with_trades(result, list(pnl - 30))).sentence


def test_repeatable_in_any_chunks_and_fills_of_one_entry_belong_together(result: Result, monkeypatch) -> None:
    one, again = (trade_order(result, n_draws=64, seed=4) for _ in range(2))
    assert one.n_trades == len(result.trade_records) > 20
    assert one.drawdowns.tobytes() == again.drawdowns.tobytes()
    assert one.drawdowns.tobytes() != trade_order(result, n_draws=64, seed=5).drawdowns.tobytes()
    for method in ("permutation", "bootstrap"):
        whole = trade_order(result, n_draws=64, seed=4, method=method)
        with monkeypatch.context() as patch:
            patch.setattr("aione_lab.research.montecarlo._CHUNK", 10 * one.n_trades)
            assert (
                trade_order(result, n_draws=64, seed=4, method=method).drawdowns.tobytes() == whole.drawdowns.tobytes()
            )
    pnl = [100.0, -30.0, -20.0, 60.0]
    split = trade_order(with_trades(result, [70.0, 30.0, -30.0, -20.0, 10.0, 50.0], [0, 0, 1, 2, 3, 3]))
    assert split.n_trades == 4
    assert split.drawdowns.tobytes() == trade_order(with_trades(result, pnl)).drawdowns.tobytes()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures(result: Result, theme) -> None:
    found = trade_order(result, n_draws=100)
    figure = found.plot(theme)
    by_name = {trace.name: trace for trace in figure.data}
    np.testing.assert_allclose(by_name["as it happened"].y, found.fan["observed"])
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert np.sum(bars[0].y) == pytest.approx(1.0)
    assert random_entry_test(result, n_draws=50).plot(theme).data


def test_random_entries_with_a_sentence(result: Result) -> None:
    test = random_entry_test(result, n_draws=400, seed=2)
    assert test.baseline.net_pnl.tobytes() == random_entries(result, 400, 2).net_pnl.tobytes()
    low, high = test.p_interval
    assert 0 <= low < test.baseline.p_value < high <= 1
    for p, words in ((0.005, "better than random"), (0.5, "not to be told"), (0.995, "worse"), (0.05, "on the edge")):
        other = dataclasses.replace(test, baseline=dataclasses.replace(test.baseline, p_value=p, observed=-3.0))
        assert words in other.sentence and "lost money after costs" in other.sentence
    assert "too few" in random_entry_test(with_trades(result, [1.0]), 5).sentence.replace("No trade", "too few")


def test_refusals(result: Result) -> None:
    for call, text in [
        (lambda: trade_order(None), "result=None"),
        (lambda: trade_order(with_trades(result, [1.0])), "at least two closed trades"),
        (lambda: trade_order(with_trades(result, [])), "at least two closed trades"),
        (lambda: trade_order(with_trades(result, [-20_000.0, 5.0])), "at least two closed trades"),
        (lambda: trade_order(result, 0), "n_draws=0"),
        (lambda: trade_order(result, seed=-1), "seed=-1"),
        (lambda: trade_order(result, seed=True), "seed=True"),
        (lambda: trade_order(result, method="shuffle"), "method='shuffle'"),
        (lambda: random_entry_test(result, 2.5), "n_draws=2.5"),
    ]:
        with pytest.raises(InputError, match=text) as error:
            call()
        assert "\n" not in str(error.value)
