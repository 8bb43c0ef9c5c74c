"""Metrics of a replay, all net of costs, with the uncertainty that belongs to them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from aione_lab.engine.records import FEATURE_NAMES, RECOMMENDATIONS, SIGNALS
from aione_lab.units import DAY_MS, INTERVALS

if TYPE_CHECKING:
    from aione_lab.backtest.result import Result

DAYS_PER_YEAR = 365  # crypto trades every day


def compute_metrics(result: Result) -> dict[str, Any]:
    """The metrics of a replay.

    Counts per day are per *warm* day (bars on which signals are possible). ``max_drawdown`` is the largest
    fall of equity from a peak as a positive share. ``sharpe`` is the mean ÷ standard deviation of daily
    equity returns (UTC days) × √365; NaN below 2 days or without variation. ``expectancy`` is the mean net
    P&L of a trade in quote currency with its 95 % t-interval; ``win_rate`` comes with its 95 % Wilson
    interval. ``profit_factor`` is infinite without a losing trade. ``fees`` are those of closed trades;
    ``gross_pnl`` is the net P&L before fees and known funding (slippage stays in it, it is in the prices).
    ``pnl_stop_first`` and ``pnl_target_first`` are the net P&L with every ambiguous bar resolved one way,
    sizes unchanged. ``funding_coverage`` is the share of funding stamps crossed whose rate is known, NaN
    where none was crossed; ``funding`` is NaN where some were and not one rate is known. Elsewhere NaN
    stands for "not defined on so few trades". In ``n_resolved`` trades a bar touched both, and finer candles told
    which came first.
    """
    trades, signals = result.trade_records, result.signal_records
    warm = result.columns[FEATURE_NAMES.index("warm")] == 1.0
    days = float(warm.sum() * INTERVALS[result.interval] / DAY_MS)
    n_alerts = int((signals["signal"] == SIGNALS.index("ALERT")).sum())
    n_buys = int((signals["recommendation"] == RECOMMENDATIONS.index("BUY")).sum())
    n_sells = int((signals["recommendation"] == RECOMMENDATIONS.index("SELL")).sum())
    capital = result.settings.initial_capital
    end = float(signals["equity"][-1])
    return {
        "n_bars": len(signals),
        "warm_days": days,
        "n_alerts": n_alerts,
        "alerts_per_day": _ratio(n_alerts, days),
        "n_buys": n_buys,
        "buys_per_day": _ratio(n_buys, days),
        "n_sells": n_sells,
        **trade_metrics(trades, result.settings.both_touched),
        "final_equity": end,
        "total_return": end / capital - 1.0,
        "max_drawdown": max_drawdown(signals["equity"], capital),
        "sharpe": sharpe_ratio(daily_returns(daily_equity(signals["timestamp"], signals["equity"]), capital)),
        "open_at_end": result.open_trade is not None,
    }


def trade_metrics(trades: np.ndarray, both_touched: str) -> dict[str, Any]:
    """The metrics that closed trades (TRADE records) alone determine."""
    pnl = trades["pnl"]
    n = len(pnl)
    wins, losses = pnl[pnl > 0].sum(), -pnl[pnl < 0].sum()
    low, high = mean_interval(pnl)
    win_low, win_high = _wilson(int((pnl > 0).sum()), n)
    ambiguous = trades["ambiguous"] == 1
    other_way = float(np.where(ambiguous, trades["pnl_other"], pnl).sum())
    net = float(pnl.sum())
    stop_first, target_first = (net, other_way) if both_touched == "stop" else (other_way, net)
    known, missing = int(trades["funding_known"].sum()), int(trades["funding_missing"].sum())
    return {
        "n_trades": n,
        "win_rate": _ratio(int((pnl > 0).sum()), n),
        "win_rate_low": win_low,
        "win_rate_high": win_high,
        "net_pnl": net,
        "gross_pnl": float((pnl + trades["fees"] - trades["funding"]).sum()),
        "fees": float(trades["fees"].sum()),
        "funding": math.nan if missing and not known else float(trades["funding"].sum()),
        "funding_coverage": _ratio(known, known + missing),
        "profit_factor": math.inf if wins > 0 and losses == 0 else _ratio(float(wins), float(losses)),
        "expectancy": _mean(pnl),
        "expectancy_low": low,
        "expectancy_high": high,
        "expectancy_r": _mean(trades["r_multiple"][np.isfinite(trades["r_multiple"])]),
        "mean_bars": _mean(trades["bars"]),
        "n_ambiguous": int(ambiguous.sum()),
        "n_resolved": int(trades["resolved"].sum()),
        "pnl_stop_first": stop_first,
        "pnl_target_first": target_first,
    }


def max_drawdown(equity: np.ndarray, capital: float) -> float:
    """Largest fall from a running peak (the starting capital included), as a positive share."""
    peak = np.maximum.accumulate(np.maximum(equity, capital))
    return float(np.max(1.0 - equity / peak, initial=0.0))


def daily_equity(times: np.ndarray, equity: np.ndarray) -> np.ndarray:
    """Equity at the last bar of each UTC day."""
    days = times // DAY_MS
    return equity[np.append(days[1:] != days[:-1], True)]


def daily_returns(closes: np.ndarray, capital: float) -> np.ndarray:
    """Returns from one daily equity to the next, the first against the starting capital.

    −1 on the day that loses the account, and 0 after it.
    """
    before = np.concatenate([[capital], closes[:-1]])
    alive = np.logical_and.accumulate(before > 0)
    return np.where(alive, np.maximum(closes, 0.0) / np.where(alive, before, 1.0) - 1.0, 0.0)


def sharpe_ratio(returns: np.ndarray) -> float:
    """Annualised Sharpe ratio of daily returns; NaN below two of them or without variation."""
    if len(returns) < 2 or not returns.std(ddof=1) > 0:
        return math.nan
    return float(returns.mean() / returns.std(ddof=1) * math.sqrt(DAYS_PER_YEAR))


def mean_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of ``values``; NaN below two values."""
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    half = special.stdtrit(n - 1, 0.5 + level / 2) * values.std(ddof=1) / math.sqrt(n)
    return float(values.mean() - half), float(values.mean() + half)


def _wilson(wins: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (1927); scipy.stats has it too, but takes a second to import."""
    if n == 0:
        return math.nan, math.nan
    z = float(special.ndtri(0.975))
    centre = (wins + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(wins * (n - wins) / n + z * z / 4)
    return centre - half, centre + half


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _ratio(part: float, whole: float) -> float:
    if whole == 0:
        return math.nan
    return part / whole
