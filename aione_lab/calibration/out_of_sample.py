"""`OutOfSample`: what the procedure earned on days that had no part in its choice.

For each fold the plateau is chosen by the fold's training days alone and judged on its test days. Every trial was
proposed by a search that saw the scores of all folds, so that what is tried is not independent of the test days, only
what is chosen. The hidden span has neither of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.backtest.baseline import random_entries
from aione_lab.backtest.metrics import DAYS_PER_YEAR
from aione_lab.backtest.result import Result
from aione_lab.calibration.objective import DayTables, Objective
from aione_lab.calibration.plateau import choose_plateau
from aione_lab.calibration.scoring import Scorer
from aione_lab.research.clusters import drawn_days
from aione_lab.settings import ReadOnly
from aione_lab.thresholds.params import Thresholds

LEVEL = 0.90
"""Of every band here: its lower end is exceeded by the truth with 95 %."""

N_BOOT = 5_000
N_RANDOM = 200


@dataclass(frozen=True)
class Days:
    """One set of trades by UTC day, arrays (days,): counts may be broken where a day is tested several times."""

    trades: np.ndarray
    wins: np.ndarray
    gains: np.ndarray
    losses: np.ndarray
    returns: np.ndarray

    @property
    def net(self) -> np.ndarray:
        """Sum of the trades' net returns, by day."""
        return self.gains - self.losses


@dataclass(frozen=True)
class OutOfSample:
    """Test days of all folds together: the chosen sets and the default beside them."""

    days: np.ndarray  # (n,) UTC days that were tested, since 1970-01-01
    chosen: Days
    default: Days
    rows: tuple[int, ...]  # the chosen set of each fold, among the distinct sets
    folds: pd.DataFrame
    random_p: float  # random entries with the same risk rule, as many and on the same days; NaN without trades
    seed: int

    @cached_property
    def _drawn(self) -> np.ndarray:
        return drawn_days(len(self.days), N_BOOT, np.random.default_rng(self.seed))

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """Net of costs, with 90 % bands from days drawn with replacement.

        ``expectancy``: mean net return of a trade as a share of the equity. ``excess``: mean daily return above the
        default's. Returns are of the equity, NaN where there were no trades.
        """
        low, high = self.band(self._drawn @ self.chosen.net, self._drawn @ self.chosen.trades)
        excess = self.chosen.returns - self.default.returns
        drawn = self._drawn @ excess / len(self.days)
        excess_low, excess_high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return ReadOnly(
            {
                "n_days": len(self.days),
                **summary_of(self.chosen),
                "expectancy_low": low,
                "expectancy_high": high,
                "random_p": self.random_p,
                "excess": float(excess.mean()),
                "excess_low": float(excess_low),
                "excess_high": float(excess_high),
                **{f"default_{name}": value for name, value in summary_of(self.default).items()},
            }
        )

    @staticmethod
    def band(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
        """90 % percentile interval of sum ÷ count over the draws that have any; NaN without."""
        ratios = sums[counts > 0] / counts[counts > 0]
        if not len(ratios):
            return math.nan, math.nan
        low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    @property
    def daily(self) -> pd.DataFrame:
        """One row a tested day: trades and returns of the chosen sets and of the default."""
        index = pd.DatetimeIndex(self.days.astype("datetime64[D]"), tz="UTC", name="day")
        return pd.DataFrame(
            {
                "trades": self.chosen.trades,
                "return": self.chosen.returns,
                "default_trades": self.default.trades,
                "default_return": self.default.returns,
            },
            index=index,
        )


def summary_of(days: Days) -> dict[str, float]:
    """The metrics of one set of days; NaN where there was nothing to divide by."""
    n, gains, losses = float(days.trades.sum()), float(days.gains.sum()), float(days.losses.sum())
    equity = np.cumprod(1.0 + days.returns)
    peak = np.maximum.accumulate(np.maximum(equity, 1.0))
    spread = float(days.returns.std(ddof=1)) if len(days.returns) > 1 else 0.0
    return {
        "n_trades": n,
        "win_rate": float(days.wins.sum()) / n if n else math.nan,
        "expectancy": (gains - losses) / n if n else math.nan,
        "profit_factor": gains / losses if losses else (math.inf if gains else math.nan),
        "total_return": float(equity[-1] - 1.0) if len(equity) else 0.0,
        "max_drawdown": float((1.0 - equity / peak).max(initial=0.0)),
        "sharpe": float(days.returns.mean()) / spread * math.sqrt(DAYS_PER_YEAR) if spread > 0 else math.nan,
    }


def walk(
    scorer: Scorer,
    objective: Objective,
    default: DayTables,
    replayed: Callable[[Thresholds, np.ndarray], Result | None],
    seed: int,
) -> OutOfSample:
    """Choose on each fold's training days, judge on its test days.

    ``default``: day tables of the one default set. ``replayed(thresholds, days)`` replays a contiguous run of days
    (bool over the span) for the random entries; None where they hold no candles.
    """
    folds, frame = scorer.folds, scorer.frame
    rows: list[int] = []
    listed: list[dict[str, Any]] = []
    observed = 0.0
    drawn = np.zeros(N_RANDOM)
    for number, (train, test) in enumerate(zip(folds.train, folds.test, strict=True)):
        parts = np.array([(folds.groups == group) & train for group in np.unique(folds.groups[train])])
        scores = objective.better(objective.scores(scorer.tables, parts))
        row = choose_plateau(frame, scores, scorer.ranges).centre
        rows.append(row)
        for run in _runs(test):
            result = replayed(scorer.sets[row], run)
            if result is not None and len(result.trade_records):
                baseline = random_entries(result, N_RANDOM, seed + number)
                observed += baseline.observed * baseline.n_entries if baseline.n_entries else 0.0
                drawn += baseline.net_pnl
        listed.append(
            {
                "fold": number,
                "set": row,
                "train_score": float(objective.score(scorer.tables.rows([row]), train)[0]),
                "test_score": float(objective.score(scorer.tables.rows([row]), test)[0]),
                "default_score": float(objective.score(default, test)[0]),
                **{name: value for name, value in summary_of(_days(scorer.tables, [row], test[None])).items()},
            }
        )
    tested = folds.test.any(axis=0)
    chosen = _days(scorer.tables, rows, folds.test)
    return OutOfSample(
        days=folds.first_day + np.flatnonzero(tested),
        chosen=chosen,
        default=_days(default, [0] * len(rows), folds.test),
        rows=tuple(rows),
        folds=pd.DataFrame(listed).set_index("fold"),
        random_p=(1 + int((drawn >= observed).sum())) / (1 + N_RANDOM) if chosen.trades.sum() else math.nan,
        seed=seed,
    )


def _days(tables: DayTables, rows: list[int], test: np.ndarray) -> Days:
    """The tested days of the sets in ``rows``, one a fold; a day tested by several folds has their mean."""
    times = test.sum(axis=0)
    tested = times > 0
    of = tables.rows(rows)
    parts = (of.trades, of.wins, of.gains, of.losses, of.returns)
    return Days(*((table * test).sum(axis=0)[tested] / times[tested] for table in parts))


def _runs(days: np.ndarray) -> list[np.ndarray]:
    """The contiguous runs of ``days`` (n,) of bool, one mask a run."""
    starts = np.flatnonzero(days & ~np.concatenate([[False], days[:-1]]))
    ends = np.flatnonzero(days & ~np.concatenate([days[1:], [False]]))
    place = np.arange(len(days))
    return [(place >= start) & (place <= end) for start, end in zip(starts, ends, strict=True)]
