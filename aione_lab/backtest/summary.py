"""A replay in plain words: each metric with what it means, and one sentence that does not flatter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from aione_lab.engine.records import EXITS, REASONS, RECOMMENDATIONS, SUPPRESSED
from aione_lab.units import iso

if TYPE_CHECKING:
    from aione_lab.backtest.baseline import Baseline
    from aione_lab.backtest.result import Result

FEW_TRADES = 30
"""Below this many trades nothing is said about skill: the usual rule of thumb for a mean to be about normal."""

CHANCE = 0.05
"""A random-entry p-value up to here is called unlikely to be chance."""


class MetricRow(NamedTuple):
    """One metric for display."""

    name: str
    value: str
    meaning: str


def verdict(metrics: dict[str, Any], baseline: Baseline | None = None) -> str:
    """What a replay's numbers support, in plain words: profit after costs, chance, and how much data there is.

    ``metrics`` is ``result.metrics``, ``baseline`` its random entries (None: not compared).
    """
    n = metrics["n_trades"]
    if not n:
        return (
            f"No trade was closed ({metrics['n_alerts']:,} alerts, {metrics['n_buys']:,} rated BUY), "
            "so there is nothing to judge."
        )
    mean, low, high = (metrics[name] for name in ("expectancy", "expectancy_low", "expectancy_high"))
    made = "made" if metrics["net_pnl"] > 0 else "lost"
    parts = [f"After costs {n:,} trades {made} {abs(metrics['net_pnl']):,.2f}, {mean:+,.2f} a trade"]
    if n < FEW_TRADES:
        parts.append(f": too few to judge (at least {FEW_TRADES} are wanted), whatever the sign.")
        return "".join(parts)
    if low > 0:
        parts.append(f" (95 % interval {low:+,.2f} to {high:+,.2f}): a gain larger than its own scatter explains. ")
    elif high < 0:
        parts.append(f" (95 % interval {low:+,.2f} to {high:+,.2f}): a clear loss. ")
    else:
        parts.append(f" (95 % interval {low:+,.2f} to {high:+,.2f}): that may as well be zero. ")
    if baseline is not None and math.isfinite(baseline.p_value):
        p = baseline.p_value
        if p <= CHANCE:
            parts.append(f"Its entries beat random ones (p = {p:.3f})")
            parts.append(", yet lose to the costs." if metrics["net_pnl"] <= 0 else ".")
        elif p >= 1 - CHANCE:
            parts.append(f"Its entries do worse than random ones (p = {p:.3f}).")
        else:
            parts.append(f"Its entries cannot be told from random ones (p = {p:.3f}).")
    text = "".join(parts).strip()
    if low > 0:
        text += " One span, one set of thresholds: it has not been tried on data that did not suggest it."
    return text


def metric_rows(metrics: dict[str, Any]) -> list[MetricRow]:
    """The metrics that matter for a reader, formatted, each with its meaning."""
    m = metrics
    return [
        MetricRow("trades", f"{m['n_trades']:,}", "closed; one still open at the end is not among them"),
        MetricRow("net P&L", f"{_money(m['net_pnl'])}", "quote currency, after fees, slippage and known funding"),
        MetricRow(
            "expectancy",
            f"{_money(m['expectancy'])} ({_money(m['expectancy_low'])} to {_money(m['expectancy_high'])})",
            "mean net P&L of a trade, with its 95 % interval",
        ),
        MetricRow(
            "expectancy in R", _number(m["expectancy_r"], "+.3f"), "mean result in units of what the stop risked"
        ),
        MetricRow(
            "win rate",
            f"{_share(m['win_rate'])} ({_share(m['win_rate_low'])} to {_share(m['win_rate_high'])})",
            "share of trades with a net gain, with its 95 % interval",
        ),
        MetricRow("profit factor", _number(m["profit_factor"], ".2f"), "sum of gains ÷ sum of losses; above 1 earns"),
        MetricRow("total return", _share(m["total_return"], "+.2%"), "of the starting capital, open trade included"),
        MetricRow("max drawdown", _share(m["max_drawdown"], ".2%"), "deepest fall from a peak of equity"),
        MetricRow("Sharpe ratio", _number(m["sharpe"], ".2f"), "daily returns, mean ÷ deviation × √365"),
        MetricRow("fees", _money(-m["fees"]), "paid, part of the net P&L"),
        MetricRow("funding", f"{_money(m['funding'])}", "paid (−) or received, as far as it is known"),
        MetricRow(
            "funding known",
            _share(m["funding_coverage"]) if m["n_trades"] else "-",
            "share of the funding times crossed whose rate is in the lake; the rest is unknown, not zero",
        ),
        MetricRow("mean holding", f"{_number(m['mean_bars'], '.1f')} bars", "from entry to exit"),
        MetricRow(
            "ambiguous trades",
            f"{m['n_ambiguous']:,}",
            f"stop and target in one bar; net P&L stop first {_money(m['pnl_stop_first'])}, "
            f"target first {_money(m['pnl_target_first'])}",
        ),
    ]


def counts(result: Result) -> dict[str, Any]:
    """How many bars got which recommendation, suppression and exit: plain numbers by name."""
    signals, trades = result.signal_records, result.trade_records
    rates = result.rates()
    return {
        "recommendations": {
            name: int((signals["recommendation"] == code).sum()) for code, name in enumerate(RECOMMENDATIONS) if name
        },
        "suppressed": {
            name: int((signals["suppressed"] == code).sum()) for code, name in enumerate(SUPPRESSED) if name
        },
        "reasons": {name: rates.loc[name].to_dict() for name in REASONS},
        "exits": {name: int((trades["exit_reason"] == code).sum()) for code, name in enumerate(EXITS) if name},
    }


def provenance(result: Result) -> dict[str, str]:
    """What has to be equal for a replay to repeat: candles, configuration, version."""
    from aione_lab import __version__

    return {
        "fingerprint": result.fingerprint,
        "thresholds": result.thresholds.digest(),
        "spec": result.spec.digest(),
        "settings": result.settings.digest(),
        "costs": result.costs.digest(),
        "version": __version__,
    }


def span_text(result: Result) -> str:
    """First and last bar, number of bars and of warm days."""
    first, last = (iso(int(result.bars["timestamp"][at]))[:16].replace("T", " ") for at in (0, -1))
    return f"{first} to {last} UTC, {len(result.bars):,} candles, {result.metrics['warm_days']:.1f} days after warm-up"


def costs_text(result: Result) -> str:
    """The costs that were taken off."""
    costs = result.costs
    maker = "the same on targets" if costs.maker_fee is None else f"{costs.maker_fee:.3%} on targets"
    return (
        f"fee {costs.fee:.3%} of the notional a side ({maker}), slippage {costs.slippage_bps:g} bps on market fills, "
        "funding at its real times where known"
    )


def _money(value: float) -> str:
    return "-" if not math.isfinite(value) else f"{value:+,.2f}"


def _number(value: float, form: str) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return "-" if math.isnan(value) else format(value, form)


def _share(value: float, form: str = ".1%") -> str:
    return "-" if not math.isfinite(value) else format(value, form)
