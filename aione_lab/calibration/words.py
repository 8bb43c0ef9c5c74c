"""A study in words and tables: what its repr in a terminal and a notebook shows, and what its report is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from aione_lab.thresholds.params import PREFIX
from aione_lab.thresholds.search import search_space
from aione_lab.units import DAY_MS, iso, to_ms

if TYPE_CHECKING:
    from aione_lab.calibration.study import Calibration
    from aione_lab.settings import Costs


class Table(NamedTuple):
    """A titled table of text; ``numbers`` are the columns that are aligned as numbers."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: Sequence[int] = ()


def as_text(study: Calibration) -> str:
    """The study for a terminal."""
    lines = [heading(study), study.sentence]
    for table in (facts(study), checks(study), sets(study)):
        rows = [*([table.header] if table.header else []), *table.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["", table.title]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def as_html(study: Calibration) -> str:
    """The study for a notebook; every text is escaped."""
    parts = [f"<h3>{escape(heading(study))}</h3><p><b>{escape(study.sentence)}</b></p>"]
    for table in (checks(study), sets(study), facts(study)):
        head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
        parts.append(
            f"<h4>{escape(table.title)}</h4><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
    return "<div>" + "".join(parts) + "</div>"


def heading(study: Calibration) -> str:
    """Symbol, interval and decision."""
    return f"{study.symbol} {study.experiment.interval}: {study.verdict}"


def facts(study: Calibration) -> Table:
    """What was searched, on what, with what."""
    made = study.experiment
    n_trials = len(study.optuna_study.get_trials(deepcopy=False))
    rows = [
        ("searched", f"{made.start[:10]} to {_day_before(made.hidden_from)}, {study.folds.n_days} days"),
        ("hidden", hidden_text(study)),
        (
            "folds",
            f"{len(study.folds.test)}, {made.folds.scheme}; {_days(study.folds.purge_days)} before a test and "
            f"{_days(study.folds.purge_days + study.folds.embargo_days)} after it left out of the choice",
        ),
        ("search", f"{n_trials:,} trials, {len(study.sets):,} distinct; {made.sampler}, seed {made.seed}"),
        ("scored by", ", ".join(made.metric) + " on the folds' test days, shrunk where trades are few"),
        ("costs", costs_text(made.costs)),
        ("sides", "long and short" if made.settings.allow_shorts else "long only"),
        ("reference", made.reference or "none"),
        (
            "ledger",
            f"{study.ledger.n_trials:,} distinct trials on {study.symbol}; this study's own amount to "
            f"{study.n_effective:.1f} independent ones",
        ),
    ]
    return Table("What was studied", (), rows)


def checks(study: Calibration) -> Table:
    """The conditions of the verdict."""
    rows = [(c.name, "yes" if c.passed else "NO", c.found, c.wanted) for c in study.judged.checks]
    return Table("What an accepted set must show", ("check", "passed", "found", "wanted"), rows)


def sets(study: Calibration) -> Table:
    """The searched thresholds: chosen, best trial and default, with the ranges that were searched."""
    declared = search_space()
    three = [one.every_field() for one in (study.thresholds, study.peak, study.default)]
    rows = []
    for name, (low, high, step) in study.experiment.space.items():
        of = "" if name.startswith(PREFIX) else declared[name].multiple_of
        searched = f"{low:g} to {high:g} by {step:g}" + (f", × {of}" if of else "")
        rows.append((name, *(threshold(name, one.get(name)) for one in three), searched))
    return Table("Thresholds", ("threshold", "chosen", "best trial", "default", "searched"), rows, (1, 2, 3))


def at_the_edge(study: Calibration) -> str:
    """Which of the chosen thresholds lie at an end of what was searched, in one sentence; "" if none does."""
    place = study.thresholds.digest()[:16]
    trials = study.optuna_study.get_trials(deepcopy=False)
    params = next(trial.params for trial in trials if trial.user_attrs["set"] == place)
    ends = []
    for name, (low, high, step) in study.experiment.space.items():
        last = low + math.floor((high - low) / step + 1e-9) * step  # the step need not end at ``high``
        if params[name] < low + step / 2 or params[name] > last - step / 2:
            ends.append(name)
    if not ends:
        return ""
    word = "lies at an end of its range" if len(ends) == 1 else "lie at an end of their ranges"
    return f"{', '.join(ends)} {word}: what lies beyond was not tried."


def threshold(name: str, value: Any) -> str:
    """A threshold as text; what is not set is adaptive, but for what is off or its trigger's own until it is set."""
    if value is None:
        return "off" if name == "dynamic_rsi_multiplier" else "its own" if name.startswith(PREFIX) else "adaptive"
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def costs_text(costs: Costs) -> str:
    """The costs that were taken off."""
    maker = "the same on targets" if costs.maker_fee is None else f"{costs.maker_fee:.3%} on targets"
    return f"fee {costs.fee:.3%} a side ({maker}), slippage {costs.slippage_bps:g} bps, funding where known"


def hidden_text(study: Calibration) -> str:
    """The state of the hidden span, in one clause."""
    from aione_lab.calibration.hidden import revealed

    made = study.experiment
    start, end = to_ms(made.hidden_from, "hidden_from"), to_ms(made.end, "end")
    if start >= end:
        return "nothing"
    days = f"{made.hidden_from[:10]} to {_day_before(made.end)}, {_days((end - 1) // DAY_MS - start // DAY_MS + 1)}"
    if study.folder is None:
        return f"{days}, no part of this study"
    return f"{days}, {'revealed' if revealed(study) else 'not looked at by this study'}"


def _day_before(end: str) -> str:
    """Date of the last whole or begun day before ``end``."""
    return iso(to_ms(end, "end") - 1)[:10]


def _days(n: int) -> str:
    return f"{n} day" if n == 1 else f"{n} days"


def percent(value: float | None, form: str = "+.2%") -> str:
    """A share as text; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def number(value: float | None, form: str = ".2f") -> str:
    """A number as text; a dash where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return "∞" if math.isinf(value) else format(value, form)
