"""Random entries: the same exits and costs, so a planted effect stands out and a null does not."""

from __future__ import annotations

import numpy as np
import pytest

from aione_lab.backtest.baseline import random_entries
from aione_lab.backtest.replay import replay
from aione_lab.engine.columns import scratch
from aione_lab.engine.entries import trade_entries
from aione_lab.engine.params import params_record
from aione_lab.engine.records import ASSESSMENT, STAGE_STATE, TRADE
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds import Thresholds


def test_the_same_entries_give_the_same_trades(simulated) -> None:
    result = replay(simulated["LINKUSDT"], Thresholds(min_confidence=0.5))
    trades = result.trade_records
    entries = np.searchsorted(result.bars["timestamp"], trades["signal_time"])
    stage, again = np.zeros(1, STAGE_STATE), np.zeros(len(trades), TRADE)
    stage["cash"] = 10_000.0
    params = params_record(Thresholds(), "1m", FeatureSpec(), Settings(), Costs())
    assert len(trades) > 20
    places, sides = np.arange(len(entries)), trades["side"].astype(np.int8)
    rows, block = scratch()
    found = np.zeros(1, ASSESSMENT)
    made = trade_entries(
        stage, result.columns, result.bars, *result.inner, entries, sides, places, params, rows, block, found, again
    )
    assert made == len(trades)
    again["confidence"] = trades["confidence"]
    assert again.tobytes() == trades.tobytes()


def test_repeatable_and_costs_show(simulated) -> None:
    result = replay(simulated["SOLUSDT"], costs=Costs(fee=0.001))
    one, two = random_entries(result, n_draws=50, seed=3), random_entries(result, n_draws=50, seed=3)
    assert one.net_pnl.tobytes() == two.net_pnl.tobytes()
    assert one.n_entries == len(result.trade_records)
    free = random_entries(replay(simulated["SOLUSDT"], costs=Costs(fee=0.0)), n_draws=50, seed=3)
    assert np.nanmean(one.expectancy) < np.nanmean(free.expectancy) - 10
    assert 0.0 < one.p_value <= 1.0


def test_shorts_are_held_against_random_shorts(simulated) -> None:
    shorts = Settings(allow_shorts=True)
    result = replay(simulated["LINKUSDT"], Thresholds(min_confidence=0.5), settings=shorts)
    sides = result.trade_records["side"]
    assert (sides == -1).sum() > 10 and (sides == 1).sum() > 10
    found = random_entries(result, n_draws=30, seed=3)
    assert found.n_entries == len(sides) and found.observed == result.trade_records["pnl"].mean()
    # Its own entries, taken for the only eligible ones, give its own trades: longs stay longs, shorts stay shorts.
    entries = np.searchsorted(result.bars["timestamp"], result.trade_records["signal_time"])
    stage, again = np.zeros(1, STAGE_STATE), np.zeros(len(sides), TRADE)
    stage["cash"] = 10_000.0
    params = params_record(Thresholds(min_confidence=0.5), "1m", FeatureSpec(), shorts, Costs())
    rows, block = scratch()
    made = trade_entries(
        stage, result.columns, result.bars, *result.inner, entries, sides.astype(np.int8), np.arange(len(entries)),
        params, rows, block, np.zeros(1, ASSESSMENT), again,
    )  # fmt: skip
    assert made == len(sides) and again["side"].tobytes() == sides.tobytes()


def test_an_account_that_has_shrunk_does_not_look_better_for_it(simulated) -> None:
    """Losses of a smaller account are smaller in money: entries are compared by what they return on the notional."""
    dear = Costs(fee=0.003)
    result = replay(simulated["SOLUSDT"], Thresholds(min_confidence=0.5), costs=dear)
    found = random_entries(result, n_draws=50, seed=3)
    trades = result.trade_records
    assert result.metrics["net_pnl"] < -3_000
    own = (trades["pnl"] / (trades["quantity"] * trades["entry_price"])).mean()
    assert found.observed_return == own
    better = int((found.returns >= own).sum())
    assert found.p_value == (1 + better) / 51


def test_no_trades_no_verdict(simulated) -> None:
    result = replay(simulated["SOLUSDT"], Thresholds(min_confidence=1.0))
    baseline = random_entries(result, n_draws=5)
    assert baseline.n_entries == 0
    assert np.isnan(baseline.p_value)
    with pytest.raises(InputError, match="n_draws=0"):
        random_entries(result, n_draws=0)
