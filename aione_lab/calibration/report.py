"""`report.html`: a study on one page that opens without a network, verdict first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from aione_lab.calibration import views, words
from aione_lab.calibration.experiment import write_text
from aione_lab.calibration.hidden import Hidden, revealed
from aione_lab.calibration.objective import PRIOR_TRADES
from aione_lab.calibration.words import Table, number, percent
from aione_lab.figures.page import Charts, page_html
from aione_lab.figures.page import table as html_table

if TYPE_CHECKING:
    from aione_lab.calibration.study import Calibration

FILE = "report.html"

SEEN = (
    "What this does not exclude: each fold's set was chosen without the fold's days, but every trial was "
    "proposed by one search that saw the scores of all folds. What was chosen is independent of the test days, what "
    "there was to choose from is not. Only the hidden days are free of both, and they are looked at once."
)


AROUND = (
    "A set's own score is its mean over folds less their standard deviation, so that one fold does not carry it; the "
    "score of a neighbourhood is what three of four of its sets reach. The star is the highest neighbourhood."
)


def write_report(study: Calibration) -> None:
    """Write ``report.html`` into the study's folder, whole or not at all."""
    assert study.folder is not None
    write_text(study.folder / FILE, page(study, revealed(study)))


def page(study: Calibration, hidden: Mapping[str, Hidden] | None = None) -> str:
    """The report as the text of one HTML file of some 5 MB, most of it plotly.js.

    Every text is escaped and nothing refers to another address. The same study in the same state gives the same text.
    """
    charts, hidden = Charts(), hidden or {}
    parts = [
        f'<p class="verdict">{escape(study.sentence)}</p>',
        *(f'<p class="note">{escape(text)}</p>' for text in hidden_notes(study, hidden)),
        _shown(words.checks(study)),
        *(_hidden_section(study, one) for one in hidden.values()),
        _members(study),
        "<h2>What was searched, on what</h2>",
        html_table((), words.facts(study).rows),
        _shown(fold_days(study)),
        "<h2>The sets</h2>",
        f"<p>{escape(study.plateau.sentence)}</p>",
        html_table(*_bare(words.sets(study))),
        '<p class="soft">Adaptive thresholds follow the symbol\'s own volatility bar by bar; 0.6x is 0.6 times what '
        "stands in the last column. Thresholds that were not searched are the default's in all three.</p>",
        f"<p>{escape(standing(study))}</p>",
        "<h2>Out of sample</h2>",
        f"<p>{escape(tested_text(study))}</p>",
        html_table(*_bare(tested(study))),
        "<h3>Equity of the tested days</h3>",
        charts.html(study.plot_equity()),
        f'<p class="note">{escape(SEEN)}</p>',
        "<h3>Fold by fold</h3>",
        f"<p>{escape(folds_text(study))}</p>",
        charts.html(study.plot_folds()),
        html_table(*_bare(fold_results(study))),
        "<h2>Plateau against peak</h2>",
        charts.html(study.plateau.plot()),
        f'<p class="soft">{escape(AROUND)}</p>',
        _shown(in_sample(study)),
        '<p class="soft">These are the days that were searched: the numbers flatter the chosen set, and the best trial '
        "most of all. They say nothing about days to come.</p>",
        "<h2>The search</h2>",
        charts.html(study.plot_history()),
        "<h3>Which thresholds mattered</h3>",
        "<p>How much of the variation of the score each threshold explains among the sets that were tried (functional "
        "ANOVA). It says what moved the score on these days, not that there is anything to find.</p>",
        charts.html(study.plot_importance()),
        "<h3>Where good sets lie</h3>",
        charts.html(study.plot_slices()),
        charts.html(study.plot_parallel()),
        *_front(study, charts),
        "<h2>How much of it is luck</h2>",
        *_luck(study, charts),
        _provenance(study),
    ]
    return page_html(f"Calibration of {words.heading(study)}", "Everything is net of the costs stated.", "".join(parts))


def hidden_notes(study: Calibration, hidden: Mapping[str, Hidden]) -> list[str]:
    """What the hidden days say of each symbol, or that they were not asked."""
    state = words.hidden_text(study)
    notes = []
    for symbol, one in hidden.items():
        if of_this_set(study, one):
            notes.append(f"Hidden days of {symbol}, {state}. {one.sentence}")
        else:
            notes.append(
                f"Hidden days of {symbol}, {state}: they were looked at when this study had fewer trials and another "
                "choice. What they said then says nothing about this set, and they are spent."
            )
    if notes:
        return notes
    if state == "nothing":
        return ["No days were hidden: there is nothing left to confirm this on but days to come."]
    return [f"Hidden days: {state}. study.reveal() scores the chosen set on them, once."]


def _members(study: Calibration) -> str:
    """The symbols of a pooled study: who deviates from the shared set, and why."""
    if not study.members:
        return ""
    rows = [
        (
            str(symbol),
            "yes" if row["deviates"] else "no",
            percent(row["own_expectancy"], "+.3%"),
            percent(row["gain_a_day"], "+.3%"),
            f"{percent(row['gain_low'], '+.3%')} to {percent(row['gain_high'], '+.3%')}",
            row["why"],
        )
        for symbol, row in study.by_symbol.iterrows()
    ]
    header = ("symbol", "deviates", "own set, a trade", "gain a day", "its 90 % band", "why")
    rival = study.members[0].rival
    return f"<h2>The symbols</h2><p>Each symbol's own choice, against the {escape(rival)}.</p>" + html_table(
        header, rows, (2, 3, 4)
    )


def of_this_set(study: Calibration, hidden: Hidden) -> bool:
    """Whether the hidden days were asked about the set that is chosen now."""
    return hidden.thresholds == study.thresholds_for(hidden.symbol).digest()


def tested(study: Calibration) -> Table:
    """Metrics of the tested days: what was chosen, with 90 % bands, and the default."""
    m = study.out_of_sample
    band = "{} to {}".format
    rows: list[tuple[str, ...]] = [
        ("trades", number(m["n_trades"], ",.0f"), "", number(m["default_n_trades"], ",.0f"), "on all tested days"),
        (
            "net return of a trade",
            percent(m["expectancy"], "+.3%"),
            band(percent(m["expectancy_low"], "+.3%"), percent(m["expectancy_high"], "+.3%")),
            percent(m["default_expectancy"], "+.3%"),
            "mean, as a share of the equity",
        ),
        (
            "a day above the default",
            percent(m["excess"], "+.3%"),
            band(percent(m["excess_low"], "+.3%"), percent(m["excess_high"], "+.3%")),
            "",
            "mean difference of the daily returns",
        ),
        (
            "random entries",
            number(m["random_p"], ".3f"),
            "",
            "",
            "share of random draws that did as well with the same risk rule; small is good, a half is chance",
        ),
    ]
    for label, name, form, meaning in (
        ("win rate", "win_rate", ".1%", "share of trades that gained after costs"),
        ("profit factor", "profit_factor", ".2f", "gains ÷ losses; 1 is nothing"),
        ("total return", "total_return", "+.1%", "all tested days together"),
        ("max drawdown", "max_drawdown", ".1%", "largest fall of the daily equity"),
        ("Sharpe ratio", "sharpe", ".2f", f"annual, of daily returns; {m['n_days']} days say little about a year"),
    ):
        rows.append((label, _plain(m[name], form), "", _plain(m[f"default_{name}"], form), meaning))
    header = ("metric", "chosen fold by fold", "90 % band", "default", "what it means")
    return Table(f"{m['n_days']} tested days, net of costs", header, rows, (1, 2, 3))


def standing(study: Calibration) -> str:
    """What the chosen set is worth as it stands there."""
    parts = [words.at_the_edge(study)]
    if study.verdict != "accept":
        parts.append("The chosen set is not accepted: the defaults stay.")
    if not study.tables.trades[study.plateau.centre].any():
        parts.append("It never traded on the days searched: standing aside scored better than what was tried.")
    return " ".join(filter(None, parts))


def tested_text(study: Calibration) -> str:
    """What the tested days are."""
    if study.folds.scheme == "combinatorial":
        return (
            "Every choice of test groups is judged by the set chosen on the other groups, which may lie before it or "
            "after; a day that is tested several times has the mean of its sets."
        )
    return "For each fold a set was chosen on the days before it alone, and judged on the fold; the folds in a row."


def fold_days(study: Calibration) -> Table:
    """What each fold chose on and was tested on."""
    rows = [
        (
            str(fold + 1),
            views.dates_of(study, train),
            str(int(train.sum())),
            views.dates_of(study, test),
            str(int(test.sum())),
        )
        for fold, (train, test) in enumerate(zip(study.folds.train, study.folds.test, strict=True))
    ]
    header = ("fold", "chosen on", "days", "tested on", "days")
    return Table("Folds, whole UTC days", header, rows, (0, 2, 4))


def fold_results(study: Calibration) -> Table:
    """What was chosen before each fold and what it did there, beside the default."""
    rows = []
    metric = study.experiment.metric[0]
    returns = views.fold_returns(study)
    for fold, row in enumerate(study.walk_forward.folds.to_dict("records")):
        rows.append(
            (
                str(fold + 1),
                str(int(row["set"])),
                score_text(metric, row["train_score"]),
                score_text(metric, row["test_score"]),
                score_text(metric, row["default_score"]),
                number(row["n_trades"], ",.4g"),
                percent(row["win_rate"], ".0%"),
                percent(row["expectancy"], "+.3%"),
                percent(row["total_return"], "+.1%"),
                percent(returns["default"][fold], "+.1%"),
            )
        )
    header = (
        "fold",
        "set",
        "score before",
        "test score",
        "default's score",
        "trades",
        "win rate",
        "net a trade",
        "return",
    )
    return Table("Folds", (*header, "default's return"), rows, range(10))


def score_text(metric: str, score: float) -> str:
    """A score as text: in per cent where it is a share."""
    return percent(score, "+.3%") if metric == "expectancy" else number(score, "#.3g")


def in_sample(study: Calibration) -> Table:
    """Chosen, best trial and default over all searched days."""
    visible = study.results["visible"]
    three = [visible[name] for name in ("chosen", "peak", "default")]
    plateau = study.plateau
    metric = study.experiment.metric[0]
    sign = 1.0 if views.maximized(metric) else -1.0
    means = (sign * plateau.mean_scores[plateau.centre], sign * plateau.mean_scores[plateau.peak])
    scores = [*(float(mean) for mean in means), views.default_score(study, metric)]
    rows = [(f"mean test {metric} over folds", *(score_text(metric, score) for score in scores))]
    for label, name, form in (
        ("trades", "n_trades", ",.0f"),
        ("net return of a trade", "expectancy", "+.3%"),
        ("win rate", "win_rate", ".1%"),
        ("profit factor", "profit_factor", ".2f"),
        ("total return", "total_return", "+.1%"),
        ("max drawdown", "max_drawdown", ".1%"),
    ):
        rows.append((label, *(_plain(one[name], form) for one in three)))
    return Table("All searched days", ("metric", "chosen", "best trial", "default"), rows, (1, 2, 3))


def folds_text(study: Calibration) -> str:
    """How the folds went, and how to read them."""
    returns = views.fold_returns(study)
    n, better = len(returns), int((returns["chosen"] > returns["default"]).sum())
    gained = int((returns["chosen"] > 0).sum())
    before, folds = "the days before", "folds"
    if study.folds.scheme == "combinatorial":
        before, folds = "the other days", "folds, which overlap"
    return (
        f"Chosen on {before} and net of costs, the set made money on {gained} of {n} {folds}, and did better than the "
        f"default on {better}. The final choice and the best trial had seen these folds: their bars are no test. "
        f"Scores are shrunk: {PRIOR_TRADES} trades that lose their costs are added to every fold, which weighs most on "
        "a set that trades little. A higher score on many losing trades is no smaller loss."
    )


def _hidden_section(study: Calibration, hidden: Hidden) -> str:
    if not of_this_set(study, hidden):
        return ""
    m = hidden.metrics
    rows: list[tuple[str, ...]] = []
    for label, name, form in (
        ("trades", "n_trades", ",.0f"),
        ("net return of a trade", "expectancy", "+.3%"),
        ("win rate", "win_rate", ".1%"),
        ("total return", "total_return", "+.1%"),
        ("random entries, p", "random_p", ".3f"),
    ):
        rows.append((label, _plain(m[name], form), _plain(m[f"default_{name}"], form)))
    band = [
        f"{percent(m[f'{who}expectancy_low'], '+.3%')} to {percent(m[f'{who}expectancy_high'], '+.3%')}"
        for who in ("", "default_")
    ]
    rows.insert(2, ("its 90 % band", *band))
    return f"<h3>The {m['n_days']} hidden days of {escape(hidden.symbol)}</h3>" + html_table(
        ("metric", "chosen", "default"), rows, (1, 2)
    )


def _front(study: Calibration, charts: Charts) -> list[str]:
    if len(study.experiment.metric) not in (2, 3):
        return []
    text = (
        f"The plateau is chosen by {study.experiment.metric[0]}, the first metric, alone; the front shows what that "
        "costs in the others."
    )
    return ["<h3>Pareto front</h3>", f"<p>{escape(text)}</p>", charts.html(study.plot_pareto())]


def _luck(study: Calibration, charts: Charts) -> list[str]:
    ledger = study.ledger
    known = (
        f"The ledger holds {ledger.n_trials:,} distinct trials on {study.symbol}, this "
        f"study's {len(study.sets):,} among them; repeats do not count. Its own resemble each other and amount to "
        f"{study.n_effective:.1f} independent ones."
    )
    if study.folder is None:
        known = known.replace("The ledger holds", "Without a folder no ledger was kept: there are", 1)
    deflated = "The choice never moved: it has no Sharpe ratio." if study.deflated is None else study.deflated.sentence
    parts = [f"<p>{escape(known)}</p>", f"<p>{escape(deflated)}</p>"]
    if study.overfitting is None:
        return [*parts, "<p>Fewer than two sets ever traded: overfitting cannot be measured.</p>"]
    return [*parts, f"<p>{escape(study.overfitting.sentence)}</p>", charts.html(study.overfitting.plot())]


def _provenance(study: Calibration) -> str:
    made = study.experiment
    rows = [
        *((f"data of {symbol}", digest) for symbol, digest in made.data.items()),
        ("rules (spec, settings, costs)", made.rules),
        ("code", made.code),
        ("ledger", study.ledger.digest),
        ("study", study.digest),
        *made.versions.items(),
    ]
    return (
        "<details><summary>What this rests on</summary>"
        + html_table((), rows)
        + '<p class="soft">Digests are sha256. experiment.json, beside this file, repeats the study; equal digests '
        "give equal results.</p></details>"
    )


def _shown(table: Table) -> str:
    return f"<h3>{escape(table.title)}</h3>" + html_table(*_bare(table))


def _bare(table: Table) -> tuple[tuple[str, ...], Sequence[tuple[str, ...]], tuple[int, ...]]:
    return table.header, table.rows, tuple(table.numbers)


def _plain(value: float | None, form: str) -> str:
    if value is None or math.isnan(value):
        return "-"
    return percent(value, form) if form.endswith("%") else number(value, form)
