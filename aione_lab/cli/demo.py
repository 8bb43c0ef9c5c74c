"""``demo``: the whole road from candles to a judged result, on an exchange whose truth is known."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aione_lab.cli.lake import show_audits
from aione_lab.cli.options import Json
from aione_lab.cli.output import add_row, console, emit_json, table
from aione_lab.cli.output import say as echo
from aione_lab.cli.replay_output import describe
from aione_lab.cli.replays import replay_symbols, save_report
from aione_lab.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from aione_lab.calibration import Calibration
    from aione_lab.cli.replays import Replayed
    from aione_lab.lake import Lake
    from aione_lab.lake.simulated import Truth

NAME = "aione-lab"
DAYS = 60
REFERENCE = "BTCUSDT"
SHOWN = ("LINKUSDT", "SUIUSDT", "SOLUSDT", "ETHUSDT")
"""One planted rebound, one planted breakout, and two symbols with nothing in them."""

CALIBRATED = ("LINKUSDT", "SOLUSDT")  # the planted rebound, and nothing
TRIALS = 100


def demo(
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where the demo's lake and its report go.")
    ] = Path("experiments/demo"),
    as_json: Json = False,
) -> None:
    """See the main job done in about a minute: simulated exchange, lake, replay, report, calibration.

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
    say = (lambda text: None) if as_json else echo
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
    studies = _calibrate(lake, folder / "experiments")
    save_report(done, report, "AiOne lab demo: simulated exchange, default thresholds", notes)
    if as_json:
        described = [{**describe(one), "truth": truths[one.result.symbol].model_dump(mode="json")} for one in done]
        emit_json(
            {
                "lake": lake.root,
                "report": str(report),
                "audits": [a.to_dict() for a in audits],
                "replays": described,
                "studies": [{"folder": study.folder, **study.results} for study in studies],
            }
        )
        return
    _show(done, notes, truths)
    _show_studies(studies, notes)
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


def _calibrate(lake: Lake, folder: Path) -> list[Calibration]:
    """A study of each of ``CALIBRATED``; none where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        return []
    from aione_lab.calibration import calibrate

    return [calibrate(lake, name, n_trials=TRIALS, folder=folder) for name in CALIBRATED]


def _show_studies(studies: list[Calibration], notes: dict[str, str]) -> None:
    out = console()
    out.print(f"\n6. Thresholds are calibrated: {TRIALS} trials each, judged on days that had no part in the choice\n")
    if not studies:
        out.print("   left out: it needs Optuna (pip install 'aione-lab[lab]')")
    for study in studies:
        out.print(f"{study.symbol}: {study.sentence}", style="bold")
        if study.verdict == "accept":
            out.print(f"  The last days, hidden until now: {study.reveal().sentence}")
        out.print(f"  {notes[study.symbol]}")
        out.print(f"  The study, its trials and its report: {study.folder}")


def _show(done: list[Replayed], notes: dict[str, str], truths: dict[str, Truth]) -> None:
    import numpy as np

    from aione_lab.backtest.summary import (
        costs_text,
        metric_rows,
        outcome_text,
        quote_currency,
        sides_text,
        size_text,
        stop_text,
        verdict,
    )
    from aione_lab.figures.report import one_alert

    out, first = console(), done[0].result
    quote = quote_currency(first.symbol)
    out.print(f"{sides_text(first)}; {size_text(first)}; net of costs: {costs_text(first)}")
    made = table("symbol", "alerts/day", "BUYs/day", "trades", "win rate", f"net {quote}", "a trade", "random", "p")
    for one in done:
        shown = {row.name: row.value for row in metric_rows(one.result.metrics)}
        m, baseline = one.result.metrics, one.baseline
        add_row(
            made,
            one.result.symbol,
            f"{m['alerts_per_day']:.1f}",
            f"{m['buys_per_day']:.2f}",
            f"{m['n_trades']:,}",
            shown["win rate"].split(" ")[0],
            f"{m['net_pnl']:+,.2f}",
            shown["expectancy"].split(" ")[0],
            f"{np.nanmedian(baseline.expectancy):+,.2f}" if baseline.n_entries else "-",
            f"{baseline.p_value:.3f}" if baseline.n_entries else "-",
        )
    out.print(made)
    out.print(
        f"a trade: mean net {quote}; random: the same of the middle one of {len(done[0].baseline.net_pnl)} draws of "
        "random entries; p: share of draws at least as good. A half is chance, and among several symbols one small p "
        "may be chance too."
    )
    for one in done:
        name = one.result.symbol
        out.print(f"\n{name}: {verdict(one.result.metrics, one.baseline, quote_currency(name))}", style="bold")
        if warning := stop_text(one.result):
            out.print(f"  {warning}")
        out.print(f"  {notes[name]}")
    out.print("\n4. The truth beside what the default thresholds found: net of costs, a share of the notional\n")
    out.print(_truth_table(done, truths))
    out.print("Where nothing is planted, the truth is the fees alone.")
    explanation = next((found for one in done if (found := one_alert(one.result)) is not None), None)
    if explanation is not None:
        out.print(f"\n5. One alert of {explanation.symbol}, explained\n", style="bold")
        out.print(str(explanation))
        if outcome := outcome_text(explanation):
            out.print(f"\n{outcome}", style="bold")


def _truth_table(done: list[Replayed], truths: dict[str, Truth]) -> Table:
    """What is planted and what was found, a trade and a day, in the same units."""
    from aione_lab.lake.simulated import FEE_PER_SIDE

    made = table("symbol", "planted", "truth a trade", "found a trade", "truth a day", "found a day", numbers_from=2)
    for one in done:
        truth, result = truths[one.result.symbol], one.result
        trades, days = result.trade_records, result.metrics["warm_days"]
        found = trades["pnl"] / (trades["quantity"] * trades["entry_price"])
        # Where nothing is planted the expected move is zero, and what is left of it are the fees.
        net = -2 * FEE_PER_SIDE if truth.effect is None else truth.net
        add_row(
            made,
            result.symbol,
            "nothing" if truth.effect is None else truth.effect.kind,
            "-" if net is None else f"{net:+.2%}",
            f"{found.mean():+.2%}" if len(found) else "-",
            "-" if truth.per_day is None else f"{truth.per_day:.1f} trades",
            f"{len(found) / days:.1f} trades" if days else "-",
        )
    return made


def started_as() -> str:
    """How to call this program again, ready for a shell: its name where that finds it, else the path it came from."""
    called = Path(sys.argv[0])
    if called.name != NAME:  # started by Python itself: the script stands beside the interpreter
        called = Path(sys.executable).with_name(NAME)
    on_path = shutil.which(NAME)
    if not called.exists() or (on_path and os.path.samefile(on_path, called)):
        return NAME
    return shlex.quote(str(called))


def _what_next(folder: Path, report: Path) -> str:
    program, lake, studies = started_as(), shlex.quote(str(folder / "lake")), shlex.quote(str(folder / "experiments"))
    lines = [
        "",
        f"7. The report with charts, for a browser: {report}",
        "",
        "Next:",
        "   # one of these symbols with slippage: what was found, trade by trade",
        f"   {program} replay SUIUSDT --lake {lake} --slippage-bps 1",
        "   # thresholds for another of them, searched and judged",
        f"   {program} calibrate SUIUSDT --lake {lake} --experiments {studies} --trials 300",
        "   # signals as they come: a simulated exchange, sixty times as fast",
        f"   {program} live --feed simulated",
        "   # real candles: download a month from an exchange into the lake data_lake, and replay them",
        f"   {program} fetch SOLUSDT BTCUSDT --start 2025-05-01 --end 2025-06-01",
        f"   {program} replay SOLUSDT",
        "   # or candles of your own: how to name the files",
        f"   {program} import --help",
    ]
    if importlib.util.find_spec("jupyterlab") is not None:
        lines += [
            "   # JupyterLab, 00_quickstart.ipynb first: it is on this lake already",
            f"   make lab    (outside the checkout: {program} lab)",
        ]
    return "\n".join(lines)
