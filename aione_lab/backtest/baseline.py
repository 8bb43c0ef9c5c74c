"""Is it the signal, or would any entry have done? Random entries with the same risk rule and costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aione_lab.backtest.result import Result
from aione_lab.engine.columns import scratch
from aione_lab.engine.entries import find_eligible, trade_entries
from aione_lab.engine.params import check_kind, params_record
from aione_lab.engine.records import ASSESSMENT, STAGE_STATE, TRADE
from aione_lab.errors import whole

MOST_DRAWS = 100_000


@dataclass(frozen=True)
class Baseline:
    """What random entries earned, one number a draw, net of costs, in quote currency."""

    n_entries: int  # closed trades of the result, and entries of a draw
    net_pnl: np.ndarray  # (draws,)
    expectancy: np.ndarray  # (draws,) mean net P&L of a trade; NaN where a draw closed none
    observed: float  # the same of the result's trades
    returns: np.ndarray  # (draws,) mean net return of a trade on its notional; NaN where a draw closed none
    observed_return: float  # the same of the result's trades
    p_value: float  # share of draws whose mean return is at least the result's; NaN without trades


def random_entries(result: Result, n_draws: int = 200, seed: int = 0) -> Baseline:
    """Replace a result's trades by as many longs and shorts at random bars, ``n_draws`` times.

    Bars are drawn without replacement among the warm ones where the same stop, target and risk/reward
    rule would allow a BUY, or for a short a SELL; one that falls into an open trade moves to the next such bar after
    it. Exits (but those by an opposite signal), costs, sizing and funding are the replay's own code; of a threshold
    schedule the last set counts. The p-value is (1 + draws at least as good) / (1 + draws), by the mean net return of
    a trade on its notional: in money an account that has shrunk loses less a trade, and would look better for it. The
    same ``seed``, an integer from 0, gives the same draws. Raises InputError for a result, number or seed that is none.
    """
    check_kind("result", result, Result)
    n_draws, seed = whole("n_draws", n_draws, 1, MOST_DRAWS), whole("seed", seed, 0)
    params = params_record(result.thresholds, result.interval, result.spec, result.settings, result.costs)
    bars = result.bars
    chosen = np.zeros(len(bars), np.int8)
    rows, block = scratch()
    found = np.zeros(1, ASSESSMENT)
    find_eligible(result.columns, bars, params, rows, block, found, chosen)
    eligible = np.flatnonzero(chosen)
    sides = chosen[eligible]
    pnl, held = result.trade_records["pnl"], result.trade_records["side"]
    pools = {side: np.flatnonzero(sides == side) for side in (1, -1)}
    wanted = {side: min(int((held == side).sum()), len(pool)) for side, pool in pools.items()}
    n = sum(wanted.values())
    net, expectancy, returns = np.zeros(n_draws), np.full(n_draws, math.nan), np.full(n_draws, math.nan)
    trades = np.zeros(max(n, 1), TRADE)
    random = np.random.default_rng(seed)
    for draw in range(n_draws if n else 0):
        drawn = [random.choice(pools[side], size, replace=False) for side, size in wanted.items() if size]
        places = np.sort(np.concatenate(drawn))
        stage = np.zeros(1, STAGE_STATE)
        stage["cash"] = result.settings.initial_capital
        closed = trade_entries(
            stage, result.columns, bars, *result.inner, eligible, sides, places, params, rows, block, found, trades
        )
        net[draw] = trades["pnl"][:closed].sum()
        if closed:
            expectancy[draw] = net[draw] / closed
            returns[draw] = _mean_return(trades[:closed])
    observed, own = (float(pnl.mean()), _mean_return(result.trade_records)) if n else (math.nan, math.nan)
    usable = returns[np.isfinite(returns)]
    p_value = (1 + int((usable >= own).sum())) / (1 + len(usable)) if n else math.nan
    return Baseline(n, net, expectancy, observed, returns, own, p_value)


def _mean_return(trades: np.ndarray) -> float:
    return float((trades["pnl"] / (trades["quantity"] * trades["entry_price"])).mean())
