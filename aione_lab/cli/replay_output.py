"""One symbol's replay as people and machines read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aione_lab.cli.output import add_row, console, table

if TYPE_CHECKING:
    from aione_lab.backtest.result import Result
    from aione_lab.cli.replays import Replayed

LAST_TRADES = 8


def describe(one: Replayed) -> dict[str, Any]:
    """Everything about one replay for machines."""
    import numpy as np

    from aione_lab.backtest.summary import counts, provenance, quote_currency, verdict
    from aione_lab.units import iso

    result, baseline = one.result, one.baseline
    counted = counts(result)
    draws = baseline.expectancy[np.isfinite(baseline.expectancy)]
    low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95]) if len(draws) else (float("nan"),) * 3
    return {
        "symbol": result.symbol,
        "interval": result.interval,
        "start": iso(int(result.bars["timestamp"][0])),
        "end": iso(int(result.bars["timestamp"][-1])),
        "candles": len(result.bars),
        "reference": {"symbol": one.reference, "chosen": one.reference_note},
        "metrics": dict(result.metrics),
        "signals": {
            "alerts": result.metrics["n_alerts"],
            **{name: counted[name] for name in ("recommendations", "suppressed", "reasons")},
        },
        "trades": {
            "closed": result.metrics["n_trades"],
            "exits": counted["exits"],
            "targets_before": counted["targets_before"],
            "open_at_end": result.open_trade,
        },
        "funding": {"rates_in_lake": one.funding_rates, "coverage": result.metrics["funding_coverage"]},
        "random_entries": {
            "draws": len(baseline.net_pnl),
            "entries": baseline.n_entries,
            "p_value": baseline.p_value,
            "expectancy": {"q05": low, "median": middle, "q95": high},
        },
        "thresholds": result.thresholds.to_json(),
        "settings": result.settings.model_dump(mode="json"),
        "costs": result.costs.model_dump(mode="json"),
        "verdict": verdict(result.metrics, baseline, quote_currency(result.symbol)),
        "provenance": provenance(result),
    }


def show(one: Replayed) -> None:
    """The replay of one symbol for people."""
    from aione_lab.backtest.summary import (
        costs_text,
        counts,
        entry_signals,
        metric_rows,
        quote_currency,
        settings_text,
        sides_text,
        size_text,
        span_text,
        stop_text,
        thresholds_text,
        too_short,
        verdict,
    )

    result, baseline, out = one.result, one.baseline, console()
    metrics, quote = result.metrics, quote_currency(result.symbol)
    counted = counts(result)
    out.print(f"\n{result.symbol} {result.interval}   {span_text(result)}", style="bold")
    out.print(f"reference  {one.reference or '-'} ({one.reference_note})")
    coverage = metrics["funding_coverage"]
    known = "no funding time was crossed" if coverage != coverage else f"{coverage:.0%} of those that trades crossed"
    out.print(f"funding    {one.funding_rates:,} rates in the lake; known: {known}")
    out.print(f"sides      {sides_text(result)}")
    out.print(f"size       {size_text(result)}")
    out.print(f"thresholds {thresholds_text(result)}")
    out.print(f"settings   {settings_text(result.settings)}")
    out.print(f"costs      {costs_text(result)}")
    warm = result.columns[0].size - int((result.signal_records["signal"] == 0).sum())
    out.print(f"features   {len(result.columns)} a bar; {warm:,} bars warm")
    if too_short(metrics):
        out.print(verdict(metrics, baseline, quote), style="bold")
        return
    rates = table("reason", "bars a day", "alerts a day")
    for name, row in counted["reasons"].items():
        add_row(rates, name, f"{row['bars_per_day']:.2f}", f"{row['alerts_per_day']:.2f}")
    out.print(rates)
    name, n, a_day = entry_signals(result)
    out.print(
        f"alerts     {metrics['n_alerts']:,}, {metrics['alerts_per_day']:.1f} a day; {name} {n:,}, {a_day:.2f} a day"
    )
    _counts_line(out, "advice", counted["recommendations"])
    _counts_line(out, "held back", counted["suppressed"])
    _counts_line(out, "exits", counted["exits"])
    if before := counted["targets_before"]:
        out.print(f"           of these trades {before:,} had closed a part at targets before")
    _show_trades(out, result)
    numbers = table("metric", "value", "meaning", numbers_from=1)
    numbers.columns[2].justify = "left"
    for row in metric_rows(metrics, result):
        add_row(numbers, *row)
    out.print(numbers)
    if baseline.n_entries:
        import numpy as np

        low, middle, high = np.nanquantile(baseline.expectancy, [0.05, 0.5, 0.95])
        out.print(
            f"random entries  {len(baseline.net_pnl)} draws of {baseline.n_entries} entries, same stops, targets "
            f"and costs: {middle:+,.2f} {quote} a trade (90 % of draws {low:+,.2f} to {high:+,.2f}); "
            f"p = {baseline.p_value:.3f}"
        )
    if warning := stop_text(result):
        out.print(warning)
    out.print(verdict(metrics, baseline, quote), style="bold")


def _counts_line(out: Any, title: str, numbers: dict[str, int]) -> None:
    out.print(f"{title:<10} " + ", ".join(f"{name} {number:,}" for name, number in numbers.items()))


def _show_trades(out: Any, result: Result) -> None:
    trades = result.trades.tail(LAST_TRADES)
    if not len(trades):
        return
    shown = table("entry (UTC)", "exit (UTC)", "side", "entry price", "exit price", "why", "P&L", "R", numbers_from=3)
    shown.columns[5].justify = "left"
    for trade in trades.itertuples():
        add_row(
            shown,
            f"{trade.entry_time:%Y-%m-%d %H:%M}",
            f"{trade.exit_time:%Y-%m-%d %H:%M}",
            trade.side,
            f"{trade.entry_price:,.8g}",
            f"{trade.exit_price:,.8g}",
            trade.exit_reason,
            f"{trade.pnl:+,.2f}",
            f"{trade.r_multiple:+.2f}",
        )
    more = len(result.trades) - len(trades)
    shown.title = f"The last {len(trades)} trades" + (f" ({more:,} before them)" if more else "")
    out.print(shown)
