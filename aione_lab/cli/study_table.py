"""What ``calibrate`` shows of studies: one with its checks and sets, several in a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aione_lab.cli.output import add_row, console, say, table

if TYPE_CHECKING:
    from aione_lab.calibration import Calibration
    from aione_lab.calibration.many import Studied

TERMS = (
    "Money: shares of the equity, net of costs, with 90 % bands. Deflated Sharpe: the probability that the "
    "Sharpe ratio is above what the best of all sets tried on these days would show by luck; sets that trade alike are "
    "worth fewer independent ones. Losses seen: trades of the chosen set that lost, on all days but the hidden ones. "
    "Score: the metric of a fold's days with some trades added that lose their costs, so that few trades count for "
    "little. PBO: how often the set "
    "that is best on one half of the days is below the middle on the other; near 0 where the sets keep their order, "
    "also where all of them lose, near a half where they cannot be told apart; shown, not asked for."
)


def show(study: Calibration) -> None:
    """One study for people: the verdict first."""
    from aione_lab.calibration.words import percent

    made, out = study.experiment, console()
    out.print(f"\n{', '.join(made.symbols)} {made.interval}: {study.sentence}", style="bold")
    searched = len(study.optuna_study.get_trials(deepcopy=False))
    out.print(
        f"{made.start[:10]} to {_last_day(made.hidden_from)}, {searched:,} trials, {len(study.sets):,} distinct sets, "
        f"{study.ledger.n_trials:,} tried so far (ledger); by {', '.join(made.metric)} over {len(study.folds.test)} "
        f"{study.folds.scheme} folds; hidden: {made.hidden_from[:10]} to {_last_day(made.end)}"
    )
    checks = table("check", "", "found", "wanted", numbers_from=4)
    for one in study.judged.checks:
        add_row(checks, one.name, "yes" if one.passed else "NO", one.found, one.wanted)
    out.print(checks)
    out.print(TERMS, style="dim")
    sets = table("threshold", "chosen", "best trial", "default")
    chosen, peak, default = (one.every_field() for one in (study.thresholds, study.peak, study.default))
    for field in made.space:
        add_row(sets, field, *(_shown(one.get(field)) for one in (chosen, peak, default)))
    out.print(sets)
    out.print(study.plateau.sentence)
    if study.members:
        rows = table("symbol", "deviates", "own a trade", "against", "gain a day", "90 % band")
        for name, row in study.by_symbol.iterrows():
            add_row(
                rows,
                str(name),
                "yes" if row["deviates"] else "no",
                percent(row["own_expectancy"], "+.3%"),
                row["against"],
                percent(row["gain_a_day"], "+.3%"),
                f"{percent(row['gain_low'], '+.3%')} to {percent(row['gain_high'], '+.3%')}",
            )
        out.print(rows)


def _last_day(end: str) -> str:
    """The day of the last bar before ``end``."""
    from aione_lab.units import iso, to_ms

    return iso(to_ms(end) - 1)[:10]


def _shown(value: Any) -> str:
    return "adaptive" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def overview(done: list[Studied]) -> None:
    """Several studies, a row each, and their verdicts; what failed goes to standard error."""
    from aione_lab.calibration.words import percent

    columns = "symbol", "verdict", "trades", "a trade, net", "90 % band", "deflated Sharpe", "PBO"
    rows = table(*columns, numbers_from=2)
    for one in done:
        if one.error:
            add_row(rows, one.symbol, "failed", *["-"] * 5)
            continue
        m = one.results["out_of_sample"]
        mean, low, high = (percent(m[name], "+.3%") for name in ("expectancy", "expectancy_low", "expectancy_high"))
        earned = (mean, "-" if low == high == "-" else f"{low} to {high}")
        odds = ["-" if one.results[key] is None else f"{one.results[key]:.2f}" for key in ("deflated_sharpe", "pbo")]
        add_row(rows, one.symbol, one.results["verdict"], f"{m['n_trades']:.0f}", *earned, *odds)
    out = console()
    out.print(rows)
    out.print(TERMS, style="dim")
    for one in done:
        if one.error:
            say(f"{one.symbol}: failed: {one.error}", err=True)
        else:
            out.print(f"{one.symbol}: {one.results['sentence']}  ({one.folder})")
