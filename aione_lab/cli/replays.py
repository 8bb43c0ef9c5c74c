"""``replay``: candles of the lake through Stage1 to Stage3, and what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    costs_of,
    known_symbol,
    loaded_config,
    number,
    open_lake,
)
from aione_lab.cli.output import emit_json, say, write_csv
from aione_lab.cli.portfolios import Pooled, check_portfolio, describe_portfolio, pool_symbols, show_portfolio
from aione_lab.cli.replay_output import describe, show
from aione_lab.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from aione_lab.backtest.baseline import Baseline
    from aione_lab.backtest.result import Result
    from aione_lab.cli.studies import Studied
    from aione_lab.lake import Lake
    from aione_lab.settings import Config, Costs, Settings
    from aione_lab.thresholds import Thresholds

    AnyConfig = TypeVar("AnyConfig", bound=Config)

DEFAULT_REFERENCE = "BTCUSDT"
DRAWS = 200


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
    studies: Annotated[
        bool,
        typer.Option(
            "--studies",
            help="Also study the signals: what follows each trigger, large moves, what the confidence is worth.",
        ),
    ] = False,
    portfolio: Annotated[
        bool,
        typer.Option(
            "--portfolio",
            help="All symbols on one account instead of one each; slots and limits come from --settings.",
        ),
    ] = False,
    folder: LakeFolder = DEFAULT_LAKE,
    as_json: Json = False,
) -> None:
    """Replay candles of the lake: features, alerts, trades, net metrics.

    Random entries with the same stops, targets and costs are drawn to compare
    with. The windows start empty at --start, so signals begin after a day of
    warm-up. Funding comes from the lake; what is missing there is unknown, not
    zero. With several symbols --json prints a list, else one object. The tests
    of --studies are one family over all symbols: with more of them, each must
    show more. A --report has the studies always, and with --portfolio the
    account before the symbols.

    Examples:

      aione-lab replay SOLUSDT --reference BTCUSDT
      aione-lab replay SOLUSDT ETHUSDT --start 2025-05-10 --report sol.html
      aione-lab replay SOLUSDT --fee 0.0004 --slippage-bps 1
      aione-lab replay SOLUSDT --thresholds sol.json --trades-csv sol.csv --json
      aione-lab replay SOLUSDT ETHUSDT --studies
      aione-lab replay SOLUSDT ETHUSDT XRPUSDT --portfolio --settings three.toml
    """
    if studies and portfolio:
        raise InputError("--studies and --portfolio exclude each other: studies are of each symbol on its own")
    check_outputs({"--trades-csv": trades_csv, "--report": report})
    lake = open_lake(folder)
    names = list(dict.fromkeys(known_symbol(lake, name, interval) for name in symbols))
    if portfolio:
        check_portfolio(names)
    from aione_lab.settings import Settings
    from aione_lab.thresholds import Thresholds

    _check_span(start, end)
    limits = None if thresholds is None else loaded_config(Thresholds, thresholds, "--thresholds")
    rules = Settings() if settings is None else loaded_config(Settings, settings, "--settings")
    costs = costs_of(fee, slippage_bps)
    if limits is not None:
        _tell_of_study(limits, lake, names, interval, start, end, costs)
    given = (lake, names, interval, start, end, reference, limits, rules, costs)
    pooled = pool_symbols(*given) if portfolio else None
    done = replay_symbols(*given) if pooled is None or report is not None else []
    studied = _studied(done) if studies or report is not None else None
    if trades_csv is not None:
        write_csv(_trades(done) if pooled is None else _pooled_trades(pooled), trades_csv)
    if report is not None:
        title = f"{'Replay' if pooled is None else 'Portfolio'} of {', '.join(names)}"
        save_report(done, report, title, studied=studied, pooled=pooled)
    _tell(done, pooled, studied if studies else None, as_json)
    if as_json:
        return
    for path, what in ((trades_csv, "trades"), (report, "report")):
        if path is not None:
            say(f"{what}: {path}")


def _tell(done: list[Replayed], pooled: Pooled | None, studied: dict[str, Studied] | None, as_json: bool) -> None:
    """Everything on standard output but where files went."""
    from aione_lab.cli.study_output import describe_studies, show_studies

    if pooled is not None:
        if as_json:
            emit_json(describe_portfolio(pooled))
        else:
            show_portfolio(pooled)
        return
    if as_json:
        described = [describe(one) for one in done]
        if studied is not None:
            for told, one in zip(described, done, strict=True):
                told["studies"] = describe_studies(studied.get(one.result.symbol))
        emit_json(described[0] if len(described) == 1 else described)
        return
    for one in done:
        show(one)
        if studied is not None:
            show_studies(one.result.symbol, studied.get(one.result.symbol))
    if studied is None:
        say("what follows each trigger, and what the confidence is worth: --studies")


def _studied(done: list[Replayed]) -> dict[str, Studied]:
    from aione_lab.cli.studies import study

    return study([one.result for one in done])


def _trades(done: list[Replayed]) -> pd.DataFrame:
    """All trades, the symbol first."""
    import pandas as pd

    joined = pd.concat([one.result.trades.assign(symbol=one.result.symbol) for one in done], ignore_index=True)
    return joined[["symbol", *(name for name in joined.columns if name != "symbol")]]


def _pooled_trades(pooled: Pooled) -> pd.DataFrame:
    """The trades of a portfolio, triggers in one cell."""
    trades = pooled.result.trades
    return trades.assign(trigger_reasons=trades["trigger_reasons"].map(" + ".join))


def _tell_of_study(
    limits: Thresholds, lake: Lake, names: list[str], interval: str, start: str | None, end: str | None, costs: Costs
) -> None:
    """Say where a promoted set is tried on what tells nothing of it: symbols, interval, days, costs."""
    from aione_lab.units import iso, to_ms

    meta = limits.meta or {}
    try:
        symbol, chosen_from, chosen_to = str(meta["symbol"]), to_ms(meta["start"]), to_ms(meta["end"])
    except (KeyError, InputError):  # a set that somebody wrote: nothing is known of its choice
        return
    others = [name for name in names if name != symbol]
    if others:
        say(f"--thresholds: the set was chosen for {symbol}, not for {', '.join(others)}", err=True)
    if meta.get("interval", interval) != interval:
        say(f"--thresholds: the set was chosen on candles of {meta['interval']}, not of {interval}", err=True)
    if (judged := _costs_in(meta)) is not None and (differ := _other_costs(judged, costs)):
        say(f"--thresholds: the set was judged with other costs than this replay takes off: {differ}", err=True)
    spans = [span for name in names if (span := lake.span(name, interval)) is not None]
    first = max(min(span[0] for span in spans), 0 if start is None else to_ms(start))
    last = min(max(span[1] for span in spans) + 1, math.inf if end is None else to_ms(end))
    if first < chosen_to and chosen_from < last:
        after = iso(chosen_to)[:10]
        say(
            f"--thresholds: the set was chosen and judged on {iso(chosen_from)[:10]} to {after}, days that this replay "
            f"includes: what it makes of them is no evidence; --start {after} leaves them out",
            err=True,
        )


def _costs_in(meta: Mapping[str, Any]) -> Costs | None:
    """The costs that a set was judged with; None where nothing that can be read says so."""
    from aione_lab.settings import Costs

    try:
        return Costs(**meta["costs"])
    except (KeyError, TypeError, InputError):
        return None


def _other_costs(judged: Costs, costs: Costs) -> str:
    """Fees and slippage that differ, in words; "" for none."""
    pairs = [
        (name, getattr(judged, name), getattr(costs, name))
        for name in ("fee", "maker_fee", "slippage_bps")
        if getattr(judged, name) != getattr(costs, name)
    ]
    return "; ".join(f"{name} {_cost(a)}, here {_cost(b)}" for name, a, b in pairs)


def _cost(value: float | None) -> str:
    return "that of takers" if value is None else f"{value:g}"


def _check_span(start: str | None, end: str | None) -> None:
    from aione_lab.units import to_ms

    first = None if start is None else to_ms(start, "--start")
    last = None if end is None else to_ms(end, "--end")
    if first is not None and last is not None and last <= first:
        raise InputError.of("--end", end, f"must be later than --start={start!r}")


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

    market, how = chosen_reference(lake, interval, reference)
    frames = {name: candles_of(lake, name, interval, start, end) for name in names}
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


def chosen_reference(lake: Lake, interval: str, asked: str | None) -> tuple[str | None, str]:
    """(symbol or None, how it was chosen)."""
    if asked is not None and asked.lower() == "none":
        return None, "none, as asked: correlation with the market is unknown"
    if asked is not None:
        return known_symbol(lake, asked, interval, "--reference"), "as asked"
    if DEFAULT_REFERENCE in lake.symbols(interval):
        return DEFAULT_REFERENCE, "the default, because the lake has it"
    return None, f"none: the lake has no {interval} candles of {DEFAULT_REFERENCE}; correlation is unknown"


def candles_of(lake: Lake, name: str, interval: str, start: str | None, end: str | None) -> pd.DataFrame:
    """The candles of a span; refused, saying what there is, where it holds none."""
    from aione_lab.units import iso

    candles = lake.candles(name, interval, start, end)
    if not len(candles):
        span = lake.span(name, interval)
        there = "none" if span is None else f"{iso(span[0])} to {iso(span[1])}"
        raise InputError.of("--start, --end", (start, end), f"hold no candle; {name} {interval} has {there}")
    return candles


def save_report(
    done: list[Replayed],
    path: Path,
    title: str,
    notes: dict[str, str] | None = None,
    studied: dict[str, Studied] | None = None,
    pooled: Pooled | None = None,
) -> None:
    """Write the HTML report; ``notes`` adds a sentence below a symbol's heading.

    ``studied`` are the studies where they are there already; ``pooled`` comes before the symbols.
    """
    from aione_lab.cli.output import write_whole
    from aione_lab.cli.studies import report_studies
    from aione_lab.figures.portfolio_section import PortfolioSection
    from aione_lab.figures.report import Section, report_html

    notes = notes or {}
    studied = _studied(done) if studied is None else studied
    account = None
    if pooled is not None:
        account = PortfolioSection(pooled.result, f"{pooled.reference or ''} ({pooled.reference_note})")
    sections = [
        Section(
            one.result,
            one.baseline,
            f"{one.reference or ''} ({one.reference_note})",
            notes.get(one.result.symbol, ""),
            report_studies(studied[one.result.symbol]) if one.result.symbol in studied else (),
        )
        for one in done
    ]
    text = report_html(sections, title, account)
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), "--report")
