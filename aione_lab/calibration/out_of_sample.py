"""`OutOfSample`: what the procedure earned on days that had no part in its choice.

For each fold the plateau is chosen by the fold's training days alone and judged on its test days. Every trial was
proposed by a search that saw the scores of all folds, so that what is tried is not independent of the test days, only
what is chosen. The hidden span has neither of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.backtest.metrics import DAYS_PER_YEAR
from aione_lab.calibration.markets import RandomEntries
from aione_lab.calibration.objective import DayTables, Objective
from aione_lab.calibration.scoring import ScoredSets
from aione_lab.research.clusters import drawn_days
from aione_lab.settings import ReadOnly

LEVEL = 0.90
"""Of every band here: its lower end is exceeded by the truth with 95 %."""

N_BOOT = 5_000


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


def choose_by_fold(scored: ScoredSets, objective: Objective) -> tuple[int, ...]:
    """The plateau of each fold's training days, by the scores on each group among them: rows of ``scored``."""
    folds = scored.folds
    rows = []
    for train in folds.train:
        parts = np.array([(folds.groups == group) & train for group in np.unique(folds.groups[train])])
        rows.append(scored.choose(objective, parts).centre)
    return tuple(rows)


def walk(
    scored: ScoredSets,
    objective: Objective,
    rows: Sequence[int],
    default: DayTables,
    default_rows: Sequence[int],
    entries: RandomEntries,
    seed: int,
) -> OutOfSample:
    """The test days of the sets ``rows`` (``choose_by_fold``), beside those of ``default_rows`` of ``default``."""
    folds = scored.folds
    listed = [
        {
            "fold": number,
            "set": row,
            "train_score": float(objective.score(scored.tables.rows([row]), train)[0]),
            "test_score": float(objective.score(scored.tables.rows([row]), test)[0]),
            "default_score": float(objective.score(default.rows([theirs]), test)[0]),
            **summary_of(_days(scored.tables, [row], test[None])),
        }
        for number, (row, theirs, train, test) in enumerate(
            zip(rows, default_rows, folds.train, folds.test, strict=True)
        )
    ]
    return OutOfSample(
        days=folds.first_day + np.flatnonzero(folds.test.any(axis=0)),
        chosen=_days(scored.tables, rows, folds.test),
        default=_days(default, default_rows, folds.test),
        rows=tuple(rows),
        folds=pd.DataFrame(listed).set_index("fold"),
        random_p=entries.p_value,
        seed=seed,
    )


def _days(tables: DayTables, rows: Sequence[int], test: np.ndarray) -> Days:
    """The tested days of the sets in ``rows``, one a fold; a day tested by several folds has their mean."""
    times = test.sum(axis=0)
    tested = times > 0
    of = tables.rows(list(rows))
    parts = (of.trades, of.wins, of.gains, of.losses, of.returns)
    return Days(*((table * test).sum(axis=0)[tested] / times[tested] for table in parts))
