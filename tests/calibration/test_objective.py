"""The metrics against their plain twins, and what the ten added trades are for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aione_lab.backtest import replay
from aione_lab.backtest.metrics import daily_returns
from aione_lab.calibration.objective import (
    LEAST_COST,
    OBJECTIVES,
    DayTables,
    objectives,
    round_trip,
    trade_returns,
)
from aione_lab.errors import InputError
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.settings import Costs, Settings
from aione_lab.units import DAY_MS
from tests.calibration.plain import TWINS

N_DAYS = 8
RETURNS = st.floats(-0.2, 0.2).filter(lambda r: abs(r) > 1e-6)
TRADES = st.lists(st.tuples(st.integers(0, N_DAYS - 1), RETURNS), max_size=40)
RECORD = np.dtype([("entry_time", "i8"), ("pnl", "f8")])


@dataclass
class Fake:
    """As much of an ``Evaluation`` as the tables read."""

    trade_records: np.ndarray
    days: np.ndarray
    daily_equity: np.ndarray
    capital: float


def fake(trades, first_day: int = 100, capital: float = 500.0) -> tuple[Fake, list[float]]:
    """An evaluation in which each trade earns its return on the equity before it; and its daily returns."""
    trades = sorted(trades, key=lambda one: one[0])
    records, equity, daily = np.zeros(len(trades), RECORD), capital, []
    for i, (day, r) in enumerate(trades):
        records[i] = ((first_day + day) * DAY_MS + i, equity * r)
        equity += equity * r
    equity, returns = capital, []
    for day in range(N_DAYS):
        before = equity
        for one, r in trades:
            if one == day:
                equity += equity * r
        daily.append(equity)
        returns.append(equity / before - 1)
    return Fake(records, np.arange(first_day, first_day + N_DAYS), np.array(daily), capital), returns


def tables_of(*trades, cost: float = 0.002) -> tuple[DayTables, list[list[float]]]:
    made = [fake(one) for one in trades]
    return DayTables.of([one for one, _ in made], 100, N_DAYS, cost), [days for _, days in made]


@settings(max_examples=80, deadline=None)
@given(
    trades=TRADES,
    mask=st.lists(st.booleans(), min_size=N_DAYS, max_size=N_DAYS).filter(any),
    cost=st.floats(LEAST_COST, 0.05),
)
def test_each_metric_is_its_plain_twin(trades, mask, cost: float) -> None:
    tables, (days,) = tables_of(trades, cost=cost)
    inside = [one for one in trades if mask[one[0]]]
    chosen = [r for r, there in zip(days, mask, strict=True) if there]
    for name, objective in OBJECTIVES.items():
        (found,) = objective.score(tables, np.array(mask))
        assert found == pytest.approx(TWINS[name](inside, chosen, cost), rel=1e-9, abs=1e-12), name
        assert np.isfinite(found)


@settings(max_examples=80, deadline=None)
@given(trades=TRADES, more=st.tuples(st.integers(0, N_DAYS - 1), st.floats(1e-6, 0.2)))
def test_another_winning_trade_never_lowers_the_score(trades, more) -> None:
    tables, _ = tables_of(trades, [*trades, more])
    every = np.ones(N_DAYS, bool)
    factor = OBJECTIVES["profit_factor"].score(tables, every)
    assert factor[1] >= factor[0] * (1 - 1e-12)
    rate = OBJECTIVES["win_rate"].score(tables, every)
    assert rate[1] > rate[0]
    # A mean is lowered by a win that is smaller than it; up to there it is not.
    mean = OBJECTIVES["expectancy"].score(tables, every)
    assert mean[1] >= min(mean[0], more[1]) - 1e-12
    if more[1] >= mean[0]:
        assert mean[1] >= mean[0] - 1e-12


@settings(max_examples=80, deadline=None)
@given(trades=TRADES.filter(lambda one: sum(r for _, r in one) > 1e-4))
def test_never_to_trade_is_never_better_than_to_earn_something(trades) -> None:
    """Drawdown apart, the five metrics would without the added trades all say: nothing ventured, nothing lost."""
    tables, ((*days,), _) = tables_of(trades, [])
    every = np.ones(N_DAYS, bool)
    for name, objective in OBJECTIVES.items():
        if name == "sharpe" and np.mean(days) <= 0:
            continue  # the sum of the returns of trades is above nothing, the growth of the equity is not
        some, none = objective.better(objective.score(tables, every))
        assert some > none or (name == "win_rate" and not any(r > 0 for _, r in trades)), name


def test_one_lucky_trade_does_not_beat_a_hundred_good_ones() -> None:
    lucky, many = [(0, 0.03)], [(i % N_DAYS, 0.01 if i % 3 else -0.004) for i in range(100)]
    tables, _ = tables_of(lucky, many)
    for objective in OBJECTIVES.values():
        one, hundred = objective.better(objective.score(tables, np.ones(N_DAYS, bool)))
        assert hundred > one, objective.name


def test_days_are_shared_out_without_rest() -> None:
    rng = np.random.default_rng(0)
    tables, _ = tables_of(
        *[[(int(d), float(r)) for d, r in zip(rng.integers(0, 8, 30), rng.normal(0, 0.02, 30), strict=True)]] * 2
    )
    masks = np.arange(N_DAYS) % 3 == np.arange(3)[:, None]
    for table in (tables.trades, tables.wins, tables.gains, tables.losses):
        np.testing.assert_allclose(sum(table[:, mask].sum(axis=1) for mask in masks), table.sum(axis=1))
    both = tables.joined(tables.rows([1]))
    assert both.trades.shape == (3, N_DAYS) and (both.trades[2] == tables.trades[1]).all()
    scores = OBJECTIVES["expectancy"].scores(both, masks)
    assert scores.shape == (3, 3) and (scores[1] == scores[2]).all()


def test_a_trades_share_is_of_the_equity_before_it() -> None:
    result = replay(SimulatedExchange(seed=5).candles("1000PEPEUSDT", days=6), symbol="1000PEPEUSDT")
    found = trade_returns(result.trade_records, result.settings.initial_capital)
    equity = result.settings.initial_capital
    assert len(found) > 5
    for share, trade in zip(found, result.trade_records, strict=True):
        assert share == pytest.approx(trade["pnl"] / equity, rel=1e-12)
        equity += trade["pnl"]
    ruined = np.array([(0, -600.0), (1, 50.0)], RECORD)
    assert list(trade_returns(ruined, 500.0)) == [-1.2, 0.0]


def test_a_round_trip_costs_both_fees_and_both_slippages() -> None:
    settings, costs = Settings(position_fraction=0.5, leverage=3), Costs(fee=0.0005, slippage_bps=2)
    assert round_trip(settings, costs) == pytest.approx(2 * (0.0005 + 0.0002) * 1.5)
    assert round_trip(settings, Costs(fee=0, slippage_bps=0)) == LEAST_COST


@pytest.mark.parametrize("metric", [5, [], [["a"]], "sharp", ["sharpe", "sharpe"], b"sharpe", None, [5], {"sharpe": 1}])
def test_refusals(metric) -> None:
    with pytest.raises(InputError, match="^metric=") as error:
        objectives(metric)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("end", [0.0, -5.0])
def test_an_account_that_is_lost_has_lost_everything_once_and_no_return_after(end: float) -> None:
    """With leverage and without costs a liquidation leaves exactly nothing: 0 ÷ 0 would reach Optuna as NaN."""
    with np.errstate(all="raise"):
        found = daily_returns(np.array([11_000.0, end, end, end]), 10_000.0)
    np.testing.assert_allclose(found, [0.1, -1.0, 0.0, 0.0], atol=1e-12)
