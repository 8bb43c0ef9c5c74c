"""``demo``: the whole road from candles to a judged result, on an exchange whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aione_lab.cli.lake import show_audits
from aione_lab.cli.options import Json
from aione_lab.cli.output import add_row, console, emit_json, table
from aione_lab.cli.replays import describe, replay_symbols, save_report
from aione_lab.errors import InputError

if TYPE_CHECKING:
    from aione_lab.cli.replays import Replayed
    from aione_lab.lake import Lake
    from aione_lab.lake.simulated import Truth

DAYS = 60
REFERENCE = "BTCUSDT"
SHOWN = ("LINKUSDT", "SUIUSDT", "SOLUSDT", "ETHUSDT")
"""One planted rebound, one planted breakout, and two symbols with nothing in them."""


def demo(
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where the demo's lake and its report go.")
    ] = Path("experiments/demo"),
    as_json: Json = False,
) -> None:
    """See the main job done in about a minute: simulated exchange, lake, replay, report.

    Candles come from a simulated exchange, so nothing is downloaded, and what is
    planted in them is known and printed beside what was found. The demo has a
    lake of its own and leaves data_lake alone. Running it again is safe.

    Examples:

      aione-lab demo
      aione-lab demo --dir my_demo --json
    """
    from aione_lab.lake import Lake
    from aione_lab.settings import Costs, Settings
    from aione_lab.thresholds import Thresholds

    if folder.exists() and not folder.is_dir():
        raise InputError.of("--dir", str(folder), "must be the folder for the demo's lake and report, this is a file")
    lake, report = Lake(folder / "lake"), folder / "report.html"
    say = (lambda text: None) if as_json else typer.echo
    say(f"1. {DAYS} days of one-minute candles and funding from the simulated exchange into {folder / 'lake'}")
    truths, new, same = _fill(lake)
    say(f"   {new:,} candles new, {same:,} were there already")
    audits = [lake.audit(name, "1m") for name in (REFERENCE, *SHOWN)]
    if not as_json:
        say("2. The lake is audited")
        show_audits(audits)
        say("3. Four symbols are replayed with default thresholds, and against random entries")
    done = replay_symbols(lake, list(SHOWN), "1m", None, None, None, Thresholds(), Settings(), Costs())
    notes = {name: truth_text(truth) for name, truth in truths.items()}
    save_report(done, report, "AiOne lab demo: simulated exchange, default thresholds", notes)
    if as_json:
        described = [{**describe(one), "truth": truths[one.result.symbol].model_dump(mode="json")} for one in done]
        emit_json(
            {"lake": lake.root, "report": str(report), "audits": [a.to_dict() for a in audits], "replays": described}
        )
        return
    _show(done, notes)
    say(_what_next(folder, report))


def truth_text(truth: Truth) -> str:
    """What is planted in a symbol, in one line."""
    from aione_lab.lake.simulated import FEE_PER_SIDE

    if truth.effect is None:
        return f"Truth: {truth.rule}."
    worth = ""
    if truth.net is not None:
        worth = (
            f". Who trades exactly that, and nothing else, earns {truth.net:.2%} a trade after "
            f"{FEE_PER_SIDE:.2%} a side, {truth.per_day:g} times a day"
        )
    return f"Truth: a planted {truth.effect.kind}: {truth.rule}{worth}."


def _fill(lake: Lake) -> tuple[dict[str, Truth], int, int]:
    """Fill ``lake``; (truth by symbol, candles new, candles that were there)."""
    from aione_lab.lake.progress import progress_reporter
    from aione_lab.lake.simulated import SimulatedExchange

    exchange = SimulatedExchange()
    new = same = 0
    names = (REFERENCE, *SHOWN)
    with progress_reporter(None, "simulating") as tell:
        for number, name in enumerate(names):
            tell(name, number, len(names))
            done = lake.append(name, "1m", exchange.candles(name, days=DAYS))
            lake.append_funding(name, exchange.funding(name, days=DAYS).to_frame())
            new, same = new + done.rows_new, same + done.rows_same
        tell("done", len(names), len(names))
    return {name: exchange.truth(name) for name in SHOWN}, new, same


def _show(done: list[Replayed], notes: dict[str, str]) -> None:
    import numpy as np

    from aione_lab.backtest.summary import costs_text, verdict
    from aione_lab.figures.report import one_alert

    out = console()
    made = table("symbol", "alerts/day", "BUYs/day", "trades", "win rate", "net P&L", "a trade", "random", "p")
    for one in done:
        m, baseline = one.result.metrics, one.baseline
        add_row(
            made,
            one.result.symbol,
            f"{m['alerts_per_day']:.1f}",
            f"{m['buys_per_day']:.2f}",
            f"{m['n_trades']:,}",
            f"{m['win_rate']:.1%}",
            f"{m['net_pnl']:+,.2f}",
            f"{m['expectancy']:+.2f}",
            f"{np.nanmedian(baseline.expectancy):+.2f}" if baseline.n_entries else "-",
            f"{baseline.p_value:.3f}",
        )
    out.print(made)
    out.print(
        f"Net of costs: {costs_text(done[0].result)}. Starting capital {done[0].result.settings.initial_capital:,.0f}."
    )
    out.print(
        "random: middle of 200 draws of random entries; p: share of draws at least as good. A half is chance, "
        "and among several symbols one small p may be chance too."
    )
    for one in done:
        out.print(f"\n{one.result.symbol}: {verdict(dict(one.result.metrics), one.baseline)}", style="bold")
        out.print(f"  {notes[one.result.symbol]}")
    explanation = one_alert(done[0].result)
    if explanation is not None:
        out.print("\n4. One alert of the first symbol, explained\n", style="bold")
        out.print(str(explanation))


def _what_next(folder: Path, report: Path) -> str:
    return "\n".join(
        [
            "",
            f"5. The report with charts: {report}",
            "",
            "Next, for example:",
            f"   aione-lab replay SUIUSDT --lake {folder / 'lake'} --slippage-bps 1",
            "   aione-lab lab                                             # the same in JupyterLab",
            "   aione-lab import 'my_candles/*.zip' --interval 1m         # candles of your own",
            "   aione-lab fetch SOLUSDT BTCUSDT --start 2025-05-01        # or from an exchange",
            "   aione-lab replay SOLUSDT",
        ]
    )
