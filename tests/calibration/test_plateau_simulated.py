"""The plateau on simulated candles whose truth is known: a planted rebound is worth trading later, nothing else is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aione_lab.backtest import Prepared
from aione_lab.backtest.metrics import daily_returns
from aione_lab.calibration.plateau import choose_plateau
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.research.overfitting import deflated_sharpe, pbo, probabilistic_sharpe
from aione_lab.thresholds import Thresholds

FIELDS = ("vol_z_threshold", "min_confidence", "tp_mult", "sl_mult")
DAYS = 90


def drawn_sets(count: int, seed: int) -> pd.DataFrame:
    """Random sets on the declared steps of the search ranges."""
    rng = np.random.default_rng(seed)
    frame = {}
    for name in FIELDS:
        s = Thresholds.model_fields[name].json_schema_extra["search"]
        steps = rng.integers(0, round((s["high"] - s["low"]) / s["step"]) + 1, count)
        frame[name] = np.round(s["low"] + s["step"] * steps, 4)
    return pd.DataFrame(frame)


def study(symbol: str, seed: int):
    """(plateau, frame, daily returns (days, sets) it was chosen on, Evaluation and daily returns later)."""
    exchange = SimulatedExchange(seed=seed)
    candles = exchange.candles(symbol, days=2 * DAYS)
    frame = drawn_sets(300, seed)
    sets = [Thresholds(**{name: float(row[name]) for name in FIELDS}) for _, row in frame.iterrows()]
    found = Prepared(candles[: DAYS * 1440]).evaluate(sets)
    returns = np.array([daily_returns(one.daily_equity, one.capital) for one in found]).T
    folds = np.array_split(returns, 5)
    spread = np.array([fold.std(axis=0) for fold in folds])
    scores = np.array([fold.mean(axis=0) for fold in folds]) / np.where(spread > 0, spread, np.nan)
    plateau = choose_plateau(frame, scores.T)
    (later,) = Prepared(candles[DAYS * 1440 :]).evaluate([sets[plateau.centre]])
    return plateau, returns, later, daily_returns(later.daily_equity, later.capital)


def sharpes(returns: np.ndarray) -> np.ndarray:
    spread = returns.std(axis=0, ddof=1)
    return returns.mean(axis=0) / np.where(spread > 0, spread, 1.0)


def judge(symbol: str, seed: int) -> tuple[float, float, float, np.ndarray]:
    """(in-sample DSR over all trials, later net P&L, later PSR, later daily returns) of the plateau's set, printed."""
    plateau, returns, later, days = study(symbol, seed)
    judged = deflated_sharpe(returns[:, plateau.centre], trial_sharpes=sharpes(returns))
    psr = probabilistic_sharpe(days)
    print(f"\n{symbol} {seed}: {plateau.sentence}\n  {judged.sentence}\n  {pbo(returns, 10).sentence}")
    print(f"  later: {later.metrics['n_trades']} trades, net {later.metrics['net_pnl']:+,.2f}, PSR {psr:.3f}")
    assert ("not ruled out" in judged.sentence) == (judged.probability <= 0.95)
    return judged.probability, later.metrics["net_pnl"], psr, days


def test_a_planted_rebound_makes_money_later_and_nothing_planted_does_not() -> None:
    """Net of costs. Ninety days and 300 trials are not enough to call the find skill beforehand; later it is."""
    deflated, net, psr, _ = judge("LINKUSDT", seed=22)
    assert net > 0 and psr > 0.95 and 0.05 < deflated < 0.95
    deflated, net, psr, _ = judge("SOLUSDT", seed=22)
    assert net < 0 and psr < 0.5 and deflated < 0.05


@pytest.mark.long
def test_in_every_universe_the_rebound_is_worth_its_costs_and_nothing_else_is() -> None:
    rebound = [judge("LINKUSDT", seed) for seed in range(21, 27)]
    assert sum(net > 0 for _, net, _, _ in rebound) >= 5
    assert probabilistic_sharpe(np.concatenate([days for *_, days in rebound])) > 0.99
    nothing = [judge("SOLUSDT", seed) for seed in range(21, 27)]
    assert all(net < 0 and deflated < 0.05 for deflated, net, _, _ in nothing)
    assert probabilistic_sharpe(np.concatenate([days for *_, days in nothing])) < 0.05
