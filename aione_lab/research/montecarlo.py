"""What the order of the trades had to do with it, and whether random entries would have done as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from aione_lab.backtest.baseline import Baseline, random_entries
from aione_lab.backtest.result import Result
from aione_lab.backtest.summary import CHANCE, FEW_TRADES
from aione_lab.engine.params import check_kind
from aione_lab.errors import InputError
from aione_lab.research.arguments import whole

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from aione_lab.figures.theme import Theme

Method = Literal["permutation", "bootstrap"]

MOST_DRAWS = 100_000
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_FAN_POINTS = 200  # trade numbers at which the fan is kept: more cannot be seen
_CHUNK = 2_000_000  # numbers held at once, whatever the number of draws


@dataclass(frozen=True)
class TradeOrder:
    """Drawdowns, ends and losing runs of a replay's trades in other orders; arrays have one element a draw.

    Equity is counted at the closes of trades only, so ``observed_drawdown`` is not ``metrics["max_drawdown"]``, which
    also sees inside them. Drawdowns are positive shares of the peak, money is quote currency.
    """

    method: Method
    symbol: str
    n_trades: int
    capital: float
    drawdowns: np.ndarray
    final_equity: np.ndarray  # under permutation all the same, but for rounding
    losing_runs: np.ndarray  # longest run of trades in a row that lost
    observed_drawdown: float
    observed_equity: float
    observed_run: int
    fan: pd.DataFrame  # by trade number: quantiles of equity over the draws ("5 %" … "95 %"), and "observed"

    @property
    def p_deeper(self) -> float:
        """Share of the draws with a deeper drawdown than the observed order's (by more than rounding)."""
        return float(np.mean(self.drawdowns > self.observed_drawdown + 1e-12))

    @property
    def sentence(self) -> str:
        """What the draws say, in one plain sentence."""
        typical, bad = np.quantile(self.drawdowns, [0.5, 0.95])
        run = int(np.quantile(self.losing_runs, 0.95))
        how = "in other orders" if self.method == "permutation" else "drawn again with replacement"
        text = (
            f"The {self.n_trades:,} trades {how} fall {typical:.1%} from a peak in the middle case and {bad:.1%} or "
            f"more in one of twenty, and lose up to {run} times in a row in nineteen of twenty; the order that "
            f"happened fell {self.observed_drawdown:.1%}, and {self.p_deeper:.1%} of the draws fell deeper"
        )
        if self.method == "bootstrap":
            low, high = np.quantile(self.final_equity, [0.025, 0.975]) - self.capital
            settled = "a gain" if low > 0 else "a loss" if high < 0 else "neither a gain nor a loss is shown"
            text += f". After costs {low:+,.2f} to {high:+,.2f} in 95 % of the draws: {settled}"
        elif self.observed_equity <= self.capital:
            text += ". No order turns these trades into a gain: after costs they lost money"
        few = f" Fewer than {FEW_TRADES} trades: hardly more than a picture." if self.n_trades < FEW_TRADES else ""
        return f"{text}. Trades that depend on each other would cluster more than this.{few}"

    def plot(self, theme: Theme = "light") -> go.Figure:
        """The fan of equity by trade number, and the drawdowns of the draws."""
        from aione_lab.figures.montecarlo import trade_order_chart

        return trade_order_chart(self.fan, self.drawdowns, self.observed_drawdown, theme=theme)


def trade_order(result: Result, n_draws: int = 1000, seed: int = 0, method: Method = "permutation") -> TradeOrder:
    """Put the closed trades of ``result`` into ``n_draws`` random orders and follow the equity of each.

    Each trade counts as its share of the equity it found (net of costs), and the shares compound, as sizing by a
    share of the equity does. ``permutation`` keeps every trade once: the end stays, the way there differs.
    ``bootstrap`` draws as many with replacement: the end differs too. Both take trades for independent of each other.
    Records of one entry are one trade. An account that is lost stays at 0. The same ``seed`` gives the same draws.

    Raises InputError for no Result, fewer than two closed trades, and a number, seed or method that is none.
    """
    check_kind("result", result, Result)
    n_draws, seed = whole("n_draws", n_draws, 1, MOST_DRAWS), whole("seed", seed, 0)
    if method not in ("permutation", "bootstrap"):
        raise InputError.of("method", method, "must be 'permutation' or 'bootstrap'")
    capital = result.settings.initial_capital
    growth = _growth(result)
    n = len(growth)
    if n < 2:
        raise InputError.of("result", result, "must have at least two closed trades, or there is no order")
    places = np.unique(np.linspace(0, n, min(n, _FAN_POINTS) + 1).astype(np.int64))
    drawdowns, ends, runs = np.empty(n_draws), np.empty(n_draws), np.empty(n_draws, np.int64)
    kept = np.empty((n_draws, len(places)))
    random = np.random.default_rng(seed)
    step = max(1, _CHUNK // n)
    for first in range(0, n_draws, step):
        part = slice(first, min(first + step, n_draws))
        size = part.stop - first
        if method == "permutation":
            drawn = random.permuted(np.broadcast_to(growth, (size, n)), axis=1)
        else:
            drawn = growth[random.integers(0, n, (size, n))]
        paths = _paths(drawn)
        drawdowns[part], ends[part], runs[part] = _drawdowns(paths), paths[:, -1] * capital, _losing_runs(drawn)
        kept[part] = paths[:, places] * capital
    observed = _paths(growth[None])
    names = [f"{100 * q:.0f} %" for q in QUANTILES]
    fan = pd.DataFrame(np.quantile(kept, QUANTILES, axis=0).T, index=pd.Index(places, name="trade"), columns=names)
    fan["observed"] = observed[0, places] * capital
    return TradeOrder(
        method=method,
        symbol=result.symbol,
        n_trades=n,
        capital=capital,
        drawdowns=drawdowns,
        final_equity=ends,
        losing_runs=runs,
        observed_drawdown=float(_drawdowns(observed)[0]),
        observed_equity=float(observed[0, -1] * capital),
        observed_run=int(_losing_runs(growth[None])[0]),
        fan=fan,
    )


@dataclass(frozen=True)
class RandomEntryTest:
    """A result among random entries, with the uncertainty of the p-value that so many draws leave."""

    baseline: Baseline
    n_draws: int

    @property
    def p_interval(self) -> tuple[float, float]:
        """95 % interval of the p-value that endless draws would give (Wilson 1927); NaN without trades."""
        p, n, z = self.baseline.p_value, self.n_draws, 1.959964
        centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return float((centre - half) / (1 + z * z / n)), float((centre + half) / (1 + z * z / n))

    @property
    def sentence(self) -> str:
        """How the entries stand among random ones, and what they earned, in one plain sentence."""
        b = self.baseline
        if not b.n_entries:
            return "No trade was closed, so there is nothing to compare with random entries."
        if b.n_entries < FEW_TRADES:
            return f"{b.n_entries} trades are too few to compare with random entries (at least {FEW_TRADES})."
        low, high = self.p_interval
        chance = (
            "better than random ones"
            if high <= CHANCE
            else "not to be told from random ones"
            if CHANCE < low and high < 1 - CHANCE
            else "worse than random ones"
            if low >= 1 - CHANCE
            else "on the edge: more draws would have to decide"
        )
        money = "" if b.observed > 0 else "; they lost money after costs all the same"
        return (
            f"{b.n_entries:,} entries earned {b.observed:+,.2f} a trade after costs, random ones with the same "
            f"stops, targets and costs {np.nanmean(b.expectancy):+,.2f} on average (p = {b.p_value:.3f}, {low:.3f} to "
            f"{high:.3f} from {self.n_draws:,} draws): the entries are {chance}{money}."
        )

    def plot(self, theme: Theme = "light") -> go.Figure:
        """The draws' mean net P&L a trade, with the result's own."""
        from aione_lab.figures.baseline import random_entries_chart

        return random_entries_chart(self.baseline.expectancy, self.baseline.observed, theme=theme)


def random_entry_test(result: Result, n_draws: int = 1000, seed: int = 0) -> RandomEntryTest:
    """``backtest.random_entries`` with its picture and a sentence that knows how sure so many draws can be.

    Raises InputError for a result, number or seed that is none.
    """
    return RandomEntryTest(random_entries(result, n_draws, seed), n_draws)


def _growth(result: Result) -> np.ndarray:
    """1 + net P&L ÷ equity found, of each closed trade in the order of exits; 0 where the account was lost."""
    records = result.trade_records
    if not len(records):
        return np.empty(0)
    starts = np.flatnonzero(np.append(True, records["entry_time"][1:] != records["entry_time"][:-1]))
    pnl = np.add.reduceat(records["pnl"], starts)
    before = result.settings.initial_capital + np.concatenate([[0.0], np.cumsum(pnl)[:-1]])
    alive = np.logical_and.accumulate(before > 0)
    return np.maximum(1.0 + pnl[alive] / before[alive], 0.0)


def _paths(growth: np.ndarray) -> np.ndarray:
    """Equity (draws, trades + 1) ÷ the starting capital."""
    return np.cumprod(np.concatenate([np.ones((len(growth), 1)), growth], axis=1), axis=1)


def _drawdowns(paths: np.ndarray) -> np.ndarray:
    return (1.0 - paths / np.maximum.accumulate(paths, axis=1)).max(axis=1)


def _losing_runs(growth: np.ndarray) -> np.ndarray:
    """Longest run of losing trades of each row."""
    place = np.broadcast_to(np.arange(1, growth.shape[1] + 1), growth.shape)
    last_won = np.maximum.accumulate(np.where(growth < 1.0, 0, place), axis=1)
    return (place - last_won).max(axis=1)
