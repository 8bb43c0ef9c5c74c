"""``replay``: candles of the lake through Stage1 to Stage3, and what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from aione_lab.cli.options import (
    DEFAULT_LAKE,
    End,
    Json,
    LakeFolder,
    Start,
    check_outputs,
    known_symbol,
    number,
    open_lake,
)
from aione_lab.cli.output import add_row, console, emit_json, say, table, write_csv
from aione_lab.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from aione_lab.backtest.baseline import Baseline
    from aione_lab.backtest.result import Result
    from aione_lab.lake import Lake
    from aione_lab.settings import Config, Costs, Settings
    from aione_lab.thresholds import Thresholds

    AnyConfig = TypeVar("AnyConfig", bound=Config)

DEFAULT_REFERENCE = "BTCUSDT"
DRAWS = 200
LAST_TRADES = 8


@dataclass(frozen=True)
class Replayed:
    """One symbol's replay with what it was compared with and how its inputs were chosen."""

    result: Result
    baseline: Baseline
    reference: str | None
    reference_note: str
    funding_rates: int


def replay(
    symbols: Annotated[
        list[str], typer.Argument(metavar="SYMBOL...", help="BTCUSDT or BTC/USDT:USDT, one or several.")
    ],
    interval: Annotated[str, typer.Option("--interval", help="Candles to use: 1m, 5m, …")] = "1m",
    start: Start = None,
    end: End = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="SYMBOL",
            help="Stands for the market; left out: BTCUSDT where the lake has it; 'none': none.",
        ),
    ] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option("--thresholds", metavar="FILE", help="JSON or TOML; the adaptive defaults if left out."),
    ] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", metavar="FILE", help="JSON or TOML of Settings.")
    ] = None,
    fee: Annotated[
        float | None,
        typer.Option(
            "--fee", metavar="SHARE", parser=number, help="Taker fee a side as a share: 0.0005 is 0.05 % (the default)."
        ),
    ] = None,
    slippage_bps: Annotated[
        float | None,
        typer.Option(
            "--slippage-bps", metavar="BPS", parser=number, help="Basis points lost on market fills; 0 if left out."
        ),
    ] = None,
    trades_csv: Annotated[Path | None, typer.Option("--trades-csv", metavar="FILE", help="Write every trade.")] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write an HTML report with charts.")
    ] = None,
    folder: LakeFolder = DEFAULT_LAKE,
    as_json: Json = False,
) -> None:
    """Replay candles of the lake: features, alerts, trades, net metrics.

    Random entries with the same stops, targets and costs are drawn to compare
    with. The windows start empty at --start, so signals begin after a day of
    warm-up. Funding comes from the lake; what is missing there is unknown, not
    zero. With several symbols --json prints a list, else one object.

    Examples:

      aione-lab replay SOLUSDT --reference BTCUSDT
      aione-lab replay SOLUSDT ETHUSDT --start 2025-05-10 --report sol.html
      aione-lab replay SOLUSDT --fee 0.0004 --slippage-bps 1
      aione-lab replay SOLUSDT --thresholds sol.json --trades-csv sol.csv --json
    """
    check_outputs({"--trades-csv": trades_csv, "--report": report})
    lake = open_lake(folder)
    names = list(dict.fromkeys(known_symbol(lake, name, interval) for name in symbols))
    from aione_lab.settings import Costs, Settings
    from aione_lab.thresholds import Thresholds

    _check_span(start, end)
    limits = None if thresholds is None else _loaded(Thresholds, thresholds, "--thresholds")
    rules = Settings() if settings is None else _loaded(Settings, settings, "--settings")
    costs = Costs()
    for field, value, option in (("fee", fee, "--fee"), ("slippage_bps", slippage_bps, "--slippage-bps")):
        if value is not None:
            costs = _with_cost(costs, field, value, option)
    done = replay_symbols(lake, names, interval, start, end, reference, limits, rules, costs)
    if trades_csv is not None:
        import pandas as pd

        frames = [one.result.trades.assign(symbol=one.result.symbol) for one in done]
        joined = pd.concat(frames, ignore_index=True)
        write_csv(joined[["symbol", *(name for name in joined.columns if name != "symbol")]], trades_csv)
    if report is not None:
        save_report(done, report, "Replay of " + ", ".join(names))
    if as_json:
        described = [describe(one) for one in done]
        emit_json(described[0] if len(described) == 1 else described)
        return
    for one in done:
        show(one)
    for path, what in ((trades_csv, "trades"), (report, "report")):
        if path is not None:
            say(f"{what}: {path}")


def _check_span(start: str | None, end: str | None) -> None:
    from aione_lab.units import to_ms

    first = None if start is None else to_ms(start, "--start")
    last = None if end is None else to_ms(end, "--end")
    if first is not None and last is not None and last <= first:
        raise InputError.of("--end", end, f"must be later than --start={start!r}")


def _loaded(kind: type[AnyConfig], path: Path, option: str) -> AnyConfig:
    """The configuration in a file; what is wrong with it is told with the option that named the file."""
    try:
        return kind.load(path)
    except InputError as error:
        text = str(error).removeprefix(str(InputError.of("path", str(path), "")))
        raise InputError.of(option, str(path), text) from None


def _with_cost(costs: Costs, field: str, value: float, option: str) -> Costs:
    """``costs`` with one of them given; a refusal names the option."""
    try:
        return type(costs)(**{**costs.model_dump(), field: value})
    except InputError as error:
        raise InputError(f"{option}{str(error).removeprefix(f'Costs.{field}')}") from None


def replay_symbols(
    lake: Lake,
    names: list[str],
    interval: str,
    start: str | None,
    end: str | None,
    reference: str | None,
    limits: Thresholds | None,
    rules: Settings,
    costs: Costs,
) -> list[Replayed]:
    """Replay each symbol and draw its random entries, with a progress bar on a terminal."""
    from aione_lab.backtest.baseline import random_entries
    from aione_lab.backtest.replay import replay as run
    from aione_lab.lake.progress import progress_reporter
    from aione_lab.thresholds.classes import thresholds_for
    from aione_lab.warm import announce_if_cold

    market, how = _reference(lake, interval, reference)
    frames = {name: _candles(lake, name, interval, start, end) for name in names}
    market_frame = None if market is None else lake.candles(market, interval, start, end)
    announce_if_cold()
    done = []
    with progress_reporter(None, "replaying") as tell:
        for number, name in enumerate(names):
            tell(name, number, len(names))
            alone = market is None or market == name or market_frame is None or not len(market_frame)
            funding = lake.funding(name)
            result = run(
                frames.pop(name),
                thresholds_for(name, limits),
                symbol=name,
                interval=interval,
                reference=None if alone else market_frame,
                funding=funding if len(funding) else None,
                settings=rules,
                costs=costs,
            )
            note = how if not alone else "none: it is the reference itself" if market == name else how
            if alone and market not in (None, name):
                note = f"none: {market} has no candles in this span"
            baseline = random_entries(result, DRAWS)
            done.append(Replayed(result, baseline, None if alone else market, note, len(funding)))
        tell("done", len(names), len(names))
    return done


def _reference(lake: Lake, interval: str, asked: str | None) -> tuple[str | None, str]:
    """(symbol or None, how it was chosen)."""
    if asked is not None and asked.lower() == "none":
        return None, "none, as asked: correlation with the market is unknown"
    if asked is not None:
        return known_symbol(lake, asked, interval, "--reference"), "as asked"
    if DEFAULT_REFERENCE in lake.symbols(interval):
        return DEFAULT_REFERENCE, "the default, because the lake has it"
    return None, f"none: the lake has no {interval} candles of {DEFAULT_REFERENCE}; correlation is unknown"


def _candles(lake: Lake, name: str, interval: str, start: str | None, end: str | None) -> pd.DataFrame:
    from aione_lab.units import iso

    candles = lake.candles(name, interval, start, end)
    if not len(candles):
        span = lake.span(name, interval)
        there = "none" if span is None else f"{iso(span[0])} to {iso(span[1])}"
        raise InputError.of("--start, --end", (start, end), f"hold no candle; {name} {interval} has {there}")
    return candles


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
        "trades": {"closed": result.metrics["n_trades"], "exits": counted["exits"], "open_at_end": result.open_trade},
        "funding": {"rates_in_lake": one.funding_rates, "coverage": result.metrics["funding_coverage"]},
        "random_entries": {
            "draws": len(baseline.net_pnl),
            "entries": baseline.n_entries,
            "p_value": baseline.p_value,
            "expectancy": {"q05": low, "median": middle, "q95": high},
        },
        "costs": result.costs.model_dump(mode="json"),
        "verdict": verdict(result.metrics, baseline, quote_currency(result.symbol)),
        "provenance": provenance(result),
    }


def save_report(done: list[Replayed], path: Path, title: str, notes: dict[str, str] | None = None) -> None:
    """Write the HTML report; ``notes`` adds a sentence below a symbol's heading."""
    from aione_lab.backtest.summary import too_short
    from aione_lab.cli.output import write_whole
    from aione_lab.cli.studies import studies_of
    from aione_lab.figures.report import Section, report_html

    notes = notes or {}
    sections = [
        Section(
            one.result,
            one.baseline,
            f"{one.reference or ''} ({one.reference_note})",
            notes.get(one.result.symbol, ""),
            () if too_short(one.result.metrics) else studies_of(one.result),
        )
        for one in done
    ]
    text = report_html(sections, title)
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), "--report")


def show(one: Replayed) -> None:
    """The replay of one symbol for people."""
    from aione_lab.backtest.summary import (
        costs_text,
        counts,
        entry_signals,
        metric_rows,
        quote_currency,
        sides_text,
        size_text,
        span_text,
        stop_text,
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
            f"random entries  {len(baseline.net_pnl)} draws of {baseline.n_entries} long entries, same stops, targets "
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
