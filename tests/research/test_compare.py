"""Replays side by side: equal ones are equal, planted differences are found, scatter is not."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import pytest

from aione_lab.backtest import Result, replay
from aione_lab.errors import InputError
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.research.compare import block_length, compare, stationary_means
from aione_lab.settings import Costs
from aione_lab.thresholds import Thresholds
from aione_lab.units import DAY_MS


@pytest.fixture(scope="module")
def result() -> Result:
    candles = SimulatedExchange(seed=5).candles("SOLUSDT", days=12)
    return replay(candles, Thresholds(min_confidence=0.5), symbol="SOLUSDT")


def with_returns(result: Result, returns: np.ndarray) -> Result:
    """The result with the equity of these daily returns, one bar an hour of as many days as there are returns."""
    times = 1_735_689_600_000 + np.arange(24 * len(returns), dtype=np.int64) * DAY_MS // 24
    records = np.resize(result.signal_records, len(times)).copy()
    records["timestamp"], records["equity"] = times, np.repeat(10_000 * np.cumprod(1 + returns), 24)
    return dataclasses.replace(result, signal_records=records)


def ar1(n: int, rho: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    for t in range(1, n):
        x[t] += rho * x[t - 1]
    return x


def test_real_replays_side_by_side(result: Result) -> None:
    candles = result.candles.assign(volume=result.bars["volume"])
    free = replay(result.candles, result.thresholds, symbol="SOLUSDT", costs=Costs(fee=0.0))
    dear = replay(candles, result.thresholds, symbol="SOLUSDT", costs=Costs(fee=0.002))
    same = replay(candles, result.thresholds, symbol="SOLUSDT", costs=Costs(fee=0.0))
    found = compare({"free": free, "dear": dear, "same": same})
    assert found.baseline == "free" and list(found.differences.index) == ["dear", "same"] and found.n_days == 12
    for name, replayed in (("free", free), ("dear", dear)):
        for metric in ("n_trades", "net_pnl", "sharpe", "max_drawdown"):
            np.testing.assert_equal(found.table.loc[metric, name], replayed.metrics[metric])
        days = np.unique(replayed.bars["timestamp"] // DAY_MS)
        last = [replayed.equity[replayed.bars["timestamp"] // DAY_MS == day].iloc[-1] for day in days]
        np.testing.assert_array_equal(found.equity[name], last)
    dear_row, same_row = found.differences.loc["dear"], found.differences.loc["same"]
    assert dear_row["high"] < 0 and dear_row["p_adjusted"] < 0.05
    assert dear_row["final_equity"] == pytest.approx(dear.metrics["final_equity"] - free.metrics["final_equity"])
    assert same_row["daily_return"] == same_row["low"] == same_row["high"] == 0.0 and same_row["p_value"] == 1.0
    assert "none did better than 'free' and 'dear' worse" in found.sentence and "after costs" in found.sentence
    assert "'same' earned the same as 'free' on every day." in compare({"free": free, "same": same}).sentence
    other = compare({"free": free, "dear": dear}, baseline="dear")
    assert other.differences.loc["free", "daily_return"] == -dear_row["daily_return"]
    assert "more than scatter explains" in other.sentence


def test_repeatable_and_memory_is_bounded(result: Result, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    sets = {name: with_returns(result, rng.normal(0, 0.01, 40)) for name in "abc"}
    one, again = compare(sets, seed=3), compare(sets, seed=3)
    assert one.differences.equals(again.differences) and not one.differences.equals(compare(sets, seed=4).differences)
    monkeypatch.setattr(sys.modules[compare.__module__], "_CHUNK", 400)  # ten draws at once
    np.testing.assert_allclose(compare(sets, seed=3).differences["high"], one.differences["high"], atol=1e-3)


def test_no_difference_is_seldom_called_one_and_a_planted_one_is_found(result: Result) -> None:
    """Paired: the common part of the returns must not hide a difference, nor make one."""
    false = found = 0
    rng = np.random.default_rng(1)
    for _ in range(200):
        market = rng.normal(0, 0.02, 90)
        noise = rng.normal(0, 0.002, (2, 90))
        base = with_returns(result, market + noise[0])
        false += (
            compare({"a": base, "b": with_returns(result, market + noise[1])}, n_boot=200)
            .differences["p_value"]
            .iloc[0]
            <= 0.05
        )
        other = with_returns(result, market + noise[1] + 0.001)
        found += compare({"a": base, "b": other}, n_boot=200).differences["p_value"].iloc[0] <= 0.05
    assert false <= 18  # the 99 % bound of an honest 5 % test
    assert found > 150


def test_many_comparisons_are_corrected(result: Result) -> None:
    rng = np.random.default_rng(2)
    sets = {f"set {i}": with_returns(result, rng.normal(0, 0.01, 60)) for i in range(30)}
    sets["good"] = with_returns(result, rng.normal(0.01, 0.01, 60))
    found = compare(sets)
    d = found.differences
    assert (d["p_adjusted"] >= d["p_value"]).all()
    order = np.argsort(d["p_value"].to_numpy())
    plain = d["p_value"].to_numpy()[order] * len(d) / np.arange(1, len(d) + 1)
    np.testing.assert_allclose(d["p_adjusted"].to_numpy()[order], np.minimum.accumulate(plain[::-1])[::-1].clip(max=1))
    assert "'good' did better" in found.sentence and "30 comparisons" in found.sentence
    assert "none of the 5 others" in compare(dict(list(sets.items())[:6])).sentence


@pytest.mark.parametrize("rho", [0.3, 0.6])
def test_block_length_near_the_best_for_an_autoregression(rho: float) -> None:
    """Of an AR(1) the best mean length is (2 ρ ÷ (1 − ρ²))^(2/3) n^(1/3)."""
    n = 20_000
    found = np.mean([block_length(ar1(n, rho, seed)) for seed in range(10)])
    assert found == pytest.approx((2 * rho / (1 - rho**2)) ** (2 / 3) * n ** (1 / 3), rel=0.25)


def test_block_length_at_its_ends() -> None:
    noise = [block_length(np.random.default_rng(seed).normal(size=500)) for seed in range(20)]
    assert np.median(noise) < 5 and min(noise) >= 1.0
    assert block_length(np.zeros(30)) == 1.0 and block_length(np.full(30, 0.1)) == 1.0
    assert block_length(np.tile([1.0, -1.0], 30)) >= 1.0
    assert block_length(np.cumsum(np.ones(90))) <= 90 / 3
    for n in range(10, 40):
        assert 1.0 <= block_length(ar1(n, 0.9, n)) <= max(1.0, n / 3)


def test_blocks_keep_together_what_clusters() -> None:
    """The variance of the mean of an AR(1) is (1 + ρ) ÷ (1 − ρ) times that of independent values."""
    x = ar1(4000, 0.6, 1)
    spread = stationary_means(x[None], 2000, block_length(x), 0)[0].std()
    alone = stationary_means(x[None], 2000, 1.0, 0)[0].std()
    assert alone == pytest.approx(x.std() / math.sqrt(len(x)), rel=0.05)
    assert spread / alone == pytest.approx(2.0, rel=0.15)
    days = np.arange(12.0)[None]
    np.testing.assert_allclose(stationary_means(days, 50, 1e12, 0), 5.5)  # one block: all days, each once


def test_an_account_that_is_lost_stays_lost(result: Result) -> None:
    rng = np.random.default_rng(4)
    lost = np.append(rng.normal(0, 0.01, 20), [-1.2, 0.5, 0.5])
    found = compare({"a": with_returns(result, rng.normal(0, 0.01, 23)), "lost": with_returns(result, lost)})
    assert np.isfinite(found.differences.to_numpy()).all() and found.differences["daily_return"].iloc[0] < 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figure(result: Result, theme) -> None:
    rng = np.random.default_rng(0)
    sets = {name: with_returns(result, rng.normal(0, 0.01, 40)) for name in ("a", "b", "<script>x</script>")}
    found = compare(sets)
    figure = found.plot(theme)
    assert len(figure.data) == 5 and "<script" not in figure.to_json()
    np.testing.assert_array_equal(figure.data[0].y, found.equity["a"])
    assert figure.data[3].x[0] == found.differences["daily_return"].iloc[0]


def test_refusals(result: Result) -> None:
    other = dataclasses.replace(result, fingerprint="0" * 64)
    short = with_returns(result, np.full(5, 0.01))
    two = {"a": result, "b": result}
    for call, text in [
        (lambda: compare([result, result]), "results='list'"),
        (lambda: compare({"a": result}), "two or more"),
        (lambda: compare({1: result, 2: result}), "by name"),
        (lambda: compare({"a": result, "b": 3}), r"results\['b'\]=3"),
        (lambda: compare({"a": result, "b": other}), r"fingerprint=.*same candles"),
        (lambda: compare({"a": result, "b": dataclasses.replace(result, interval="5m")}), "interval='5m'"),
        (lambda: compare({"a": short, "b": short}), "5 UTC days"),
        (lambda: compare(two, baseline="c"), "baseline='c'"),
        (lambda: compare(two, baseline=[]), "baseline"),
        (lambda: compare(two, n_boot=1), "n_boot=1"),
        (lambda: compare(two, level=1), "level=1"),
        (lambda: compare(two, seed=0.5), "seed=0.5"),
    ]:
        with pytest.raises(InputError, match=text) as error:
            call()
        assert "\n" not in str(error.value)
