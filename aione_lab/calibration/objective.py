"""What a trial is scored by: metrics over any choice of days, shrunk where trades are few.

A trial's trades are summed up by the UTC day of their entry (``DayTables``), once; every fold, every group and every
resample is then a choice of days. Returns are shares of the equity before the trade, so that a trade early and a trade
late in a span weigh the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aione_lab.backtest.evaluate import Evaluation
from aione_lab.backtest.metrics import DAYS_PER_YEAR, daily_returns
from aione_lab.errors import InputError
from aione_lab.settings import Costs, Settings
from aione_lab.units import DAY_MS

Direction = Literal["maximize", "minimize"]

PRIOR_TRADES = 10
"""Trades added to every score that lose their costs and nothing else, which is what trading without an edge does.

One lucky trade must not beat a hundred good ones, and never to trade must not look better than to trade without an
edge: a search that is paid for standing aside ends there, and finds nothing where something is.
"""

LEAST_COST = 1e-4  # of a round trip: without any costs the added trades would add nothing


@dataclass(frozen=True)
class DayTables:
    """Trades by the day of their entry; every array is (trials, days), rows those of ``evaluations``.

    ``cost`` is what a round trip costs, as a share of the equity. One replay serves all days: an account that is lost
    (with leverage) trades no more on any later one.
    """

    trades: np.ndarray
    wins: np.ndarray
    gains: np.ndarray  # sum of the returns of winning trades
    losses: np.ndarray  # the same of losing ones, positive
    returns: np.ndarray  # of the daily equity, open positions at their worth: what Sharpe ratios are made of
    cost: float

    @classmethod
    def of(cls, evaluations: Sequence[Evaluation], first_day: int, n_days: int, cost: float) -> DayTables:
        """Tables of ``evaluations`` over ``n_days`` days from ``first_day``; days without candles are 0."""
        shape = (len(evaluations), n_days)
        trades, wins, gains, losses, returns = (np.zeros(shape) for _ in range(5))
        for i, one in enumerate(evaluations):
            r = trade_returns(one.trade_records, one.capital)
            day = one.trade_records["entry_time"] // DAY_MS - first_day
            trades[i] = np.bincount(day, minlength=n_days)
            wins[i] = np.bincount(day, r > 0, minlength=n_days)
            gains[i] = np.bincount(day, np.maximum(r, 0.0), minlength=n_days)
            losses[i] = np.bincount(day, np.maximum(-r, 0.0), minlength=n_days)
            days = one.days - first_day
            returns[i, days] = daily_returns(one.daily_equity, one.capital)
        return cls(trades, wins, gains, losses, returns, cost)

    def rows(self, chosen: Sequence[int] | np.ndarray) -> DayTables:
        """The tables of some trials."""
        trades, wins, gains, losses, returns = (table[chosen] for table in self._tables)
        return DayTables(trades, wins, gains, losses, returns, self.cost)

    def joined(self, other: DayTables) -> DayTables:
        """These trials, then those of ``other``."""
        pairs = zip(self._tables, other._tables, strict=True)
        trades, wins, gains, losses, returns = (np.concatenate(pair) for pair in pairs)
        return DayTables(trades, wins, gains, losses, returns, self.cost)

    @property
    def _tables(self) -> tuple[np.ndarray, ...]:
        return self.trades, self.wins, self.gains, self.losses, self.returns


def round_trip(settings: Settings, costs: Costs) -> float:
    """What opening and closing a full position costs, as a share of the equity."""
    notional = settings.position_fraction * settings.leverage
    return max(2.0 * (costs.fee + costs.slippage_bps / 10_000) * notional, LEAST_COST)


def trade_returns(records: np.ndarray, capital: float) -> np.ndarray:
    """Net return of each closed trade as a share of the equity before it; 0 where no equity was left."""
    pnl = records["pnl"]
    before = capital + np.cumsum(pnl) - pnl
    return np.where(before > 0, pnl / np.where(before > 0, before, 1.0), 0.0)


@dataclass(frozen=True)
class Objective:
    """A metric by name: ``score(tables, days)`` is (trials,), ``days`` (days,) of bool; ``PRIOR_TRADES`` are added."""

    name: str
    direction: Direction
    what: str
    score: Callable[[DayTables, np.ndarray], np.ndarray]

    def scores(self, tables: DayTables, masks: np.ndarray) -> np.ndarray:
        """(trials, masks): the score of each trial on each choice of days."""
        return np.column_stack([self.score(tables, days) for days in masks])

    def better(self, values: np.ndarray) -> np.ndarray:
        """``values`` turned so that more is better."""
        return values if self.direction == "maximize" else -values


def _sums(tables: DayTables, days: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(table[:, days].sum(axis=1) for table in (tables.trades, tables.wins, tables.gains, tables.losses))


def _expectancy(tables: DayTables, days: np.ndarray) -> np.ndarray:
    n, _, gains, losses = _sums(tables, days)
    return (gains - losses - PRIOR_TRADES * tables.cost) / (n + PRIOR_TRADES)


def _win_rate(tables: DayTables, days: np.ndarray) -> np.ndarray:
    n, wins, _, _ = _sums(tables, days)
    return wins / (n + PRIOR_TRADES)


def _profit_factor(tables: DayTables, days: np.ndarray) -> np.ndarray:
    _, _, gains, losses = _sums(tables, days)
    return gains / (losses + PRIOR_TRADES * tables.cost)


def _sharpe(tables: DayTables, days: np.ndarray) -> np.ndarray:
    returns = tables.returns[:, days]
    added = PRIOR_TRADES * tables.cost / returns.shape[1]  # a day; each on a day of its own, for the variance
    mean = returns.mean(axis=1) - added
    return mean / np.sqrt(returns.var(axis=1) + added * tables.cost) * np.sqrt(DAYS_PER_YEAR)


def _max_drawdown(tables: DayTables, days: np.ndarray) -> np.ndarray:
    n = tables.trades[:, days].sum(axis=1)
    equity = np.cumprod(1.0 + tables.returns[:, days], axis=1)
    peak = np.maximum.accumulate(np.maximum(equity, 1.0), axis=1)
    fall = (1.0 - equity / peak).max(axis=1, initial=0.0)
    return (n * fall + PRIOR_TRADES) / (n + PRIOR_TRADES)


_ALL = (
    Objective("profit_factor", "maximize", "gains ÷ losses", _profit_factor),
    Objective("win_rate", "maximize", "share of winning trades", _win_rate),
    Objective(
        "max_drawdown",
        "minimize",
        "largest fall of the daily equity as a share; the ten added trades weigh as a fall of all",
        _max_drawdown,
    ),
    Objective("sharpe", "maximize", "annual Sharpe ratio of daily returns", _sharpe),
    Objective("expectancy", "maximize", "mean net return of a trade as a share of equity", _expectancy),
)
OBJECTIVES: dict[str, Objective] = {one.name: one for one in _ALL}


def objectives(metric: str | Sequence[str]) -> tuple[Objective, ...]:
    """The objectives of one name or several (Pareto). InputError for an unknown, repeated or missing one."""
    several = isinstance(metric, Sequence) and not isinstance(metric, str | bytes)
    names = [metric] if isinstance(metric, str) else list(metric) if several else None
    if not names:
        raise InputError.of("metric", metric, f"must be one or several of {', '.join(OBJECTIVES)}")
    for name in names:
        if not isinstance(name, str) or name not in OBJECTIVES:
            raise InputError.unknown("metric", name, OBJECTIVES)
    if len(set(names)) < len(names):
        raise InputError.of("metric", names, "names an objective twice")
    return tuple(OBJECTIVES[name] for name in names)
