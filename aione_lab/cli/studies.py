"""The studies of signals that the terminal, ``--json`` and the report take up, computed once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from aione_lab.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from aione_lab.backtest.result import Result
    from aione_lab.figures.report import Study
    from aione_lab.research import Episodes, EventStudy, Reliability, Splits, TradeOrder

Given = TypeVar("Given")
Kind = TypeVar("Kind")

SPLIT_BY = ("hour", "weekday", "volatility", "trend", "correlation", "reason")
FEW_ALERTS = 30
"""Below this many alerts of a trigger nothing is said about what they made."""


@dataclass(frozen=True)
class Studied:
    """The studies of one symbol; a text in the place of a study says why there is none.

    ``events`` may hold further symbols: all tests asked for at once are one family.
    """

    symbol: str
    events: EventStudy | str
    episodes: Episodes | str
    reliability: Reliability | str
    splits: Splits | str
    order: TradeOrder | str


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % band (NaN: not defined on so few)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Trigger:
    """What followed one trigger.

    ``per_day`` and ``events`` count onsets on warm bars. ``forward``: minutes → mean return before costs, bps.
    ``best`` is what is left of the mean after a round trip at the ``minutes`` and on the ``side`` where most is left,
    chosen in hindsight (None: nothing was tested). ``traded``: net R of the ``alerts`` in which the trigger took part,
    each traded alone (None: none was). ``words``: what that supports.
    """

    name: str
    per_day: float
    events: int
    forward: Mapping[int, Interval]
    best: Interval | None
    minutes: int
    side: str
    q_value: float
    discovery: bool
    survives: bool
    traded: Interval | None
    alerts: int
    words: str


def study(results: Sequence[Result]) -> dict[str, Studied]:
    """Symbol → its studies. Results that ended in warm-up are left out: there is nothing to study."""
    from aione_lab.backtest.summary import too_short
    from aione_lab.research import episodes, event_study, reliability, splits, trade_order

    judged = [result for result in results if not too_short(result.metrics)]
    if not judged:
        return {}
    # One family of tests over all symbols: the more that are looked at, the more must be shown by each.
    events = _tried(
        partial(event_study, horizons=horizons_of(judged[0].interval), combinations=None),
        {result.symbol: result for result in judged},
    )
    return {
        result.symbol: Studied(
            symbol=result.symbol,
            events=events,
            episodes=_tried(episodes, result),
            reliability=_tried(reliability, result),
            splits=_tried(partial(splits, by=SPLIT_BY, of="alerts"), result),
            order=_tried(trade_order, result),
        )
        for result in judged
    }


def _tried(make: Callable[[Given], Kind], given: Given) -> Kind | str:
    try:
        return make(given)
    except InputError as error:  # too little to judge: the reader is told in its place
        return f"Not judged: {error}"


def horizons_of(interval: str) -> tuple[int, ...]:
    """The usual horizons in minutes that are whole bars of ``interval``."""
    from aione_lab.research.events import HORIZONS
    from aione_lab.units import INTERVALS, MINUTE_MS

    step = INTERVALS[interval] // MINUTE_MS
    return tuple(minutes for minutes in HORIZONS if not minutes % step)


def shown_horizons(horizons: Sequence[int]) -> list[int]:
    """Three of ``horizons``, short, middle and long, fixed beforehand: nobody picks those that look well."""
    found = sorted(set(horizons))
    return sorted({found[len(found) // 4], found[len(found) // 2], found[-1]})


def triggers(studied: Studied) -> list[Trigger]:
    """What followed each trigger of a symbol, in the order of the engine's reasons; [] where nothing was judged."""
    if isinstance(studied.events, str):
        return []
    table = studied.events.table
    table = table[(table["symbol"] == studied.symbol) & (table["kind"] == "reason")]
    return [_trigger(str(name), rows, studied.splits) for name, rows in table.groupby("event", sort=False)]


def _trigger(name: str, rows: pd.DataFrame, splits: Splits | str) -> Trigger:
    records = rows.to_dict("records")
    tested = [row for row in records if row["tested"]]
    best = max(tested, key=lambda row: row["net_bps"], default=None)
    traded, alerts = None, 0
    if not isinstance(splits, str) and ("reason", name) in splits.table.index:
        row = splits.table.loc[[("reason", name)]].to_dict("records")[0]
        alerts = int(row["count"])
        if alerts:
            traded = Interval(row["expectancy_r"], row["expectancy_r_low"], row["expectancy_r_high"])
    return Trigger(
        name=name,
        per_day=records[0]["per_day"],
        events=max(row["n"] for row in records),
        forward={int(row["horizon"]): Interval(row["mean_bps"], row["mean_low"], row["mean_high"]) for row in records},
        best=None if best is None else Interval(best["net_bps"], best["net_low"], best["net_high"]),
        minutes=0 if best is None else int(best["horizon"]),
        side="" if best is None else best["side"].lower(),
        q_value=min((row["q_value"] for row in tested), default=float("nan")),
        discovery=any(row["discovery"] for row in records),
        survives=any(row["survives"] for row in records),
        traded=traded,
        alerts=alerts,
        words=in_words(tested),
    )


def in_words(tested: list[dict]) -> str:
    """What the tests of one trigger support, and no more."""
    if not tested:
        return "too few to test"
    kept, found = ([row for row in tested if row[name]] for name in ("survives", "discovery"))
    for rows, words in ((kept, "survives costs in this span"), (found, "more than chance")):
        if rows:
            when = f"{words} ({', '.join(str(row['horizon']) for row in rows)} min)"
            if rows is kept:
                return when
            return when + (", less than costs" if all(row["net_bps"] <= 0 for row in rows) else ", costs not covered")
    if all(row["net_bps"] <= 0 for row in tested):
        return "less than costs"
    return "not told from chance"


def traded_sentence(found: Sequence[Trigger]) -> str:
    """What alerts with each trigger made when traded, over all triggers with enough of them."""
    judged = [(one.name, one.traded) for one in found if one.traded is not None and one.alerts >= FEW_ALERTS]
    if not judged:
        return f"No trigger has {FEW_ALERTS} alerts that were traded, so nothing is said about what trading them makes."
    gains = [name for name, r in judged if r.low > 0]
    losses = sum(r.high < 0 for _, r in judged)
    text = (
        f"Traded alone with its stop and target, net of costs: of {len(judged)} triggers with {FEW_ALERTS} alerts or "
        f"more {losses} lose with their whole 95 % band"
    )
    if not gains:
        return f"{text}, none earns with it."
    many = "earns" if len(gains) == 1 else "earn"
    return (
        f"{text}, {', '.join(gains)} {many} with it; bands are not adjusted for the number of triggers, and it has not "
        "been tried on data that did not suggest it."
    )


def report_studies(studied: Studied) -> tuple[Study, ...]:
    """The studies as the report shows them."""
    from aione_lab.figures.report import Study

    made = [_events_study(studied)]
    episodes, reliability, splits, order = studied.episodes, studied.reliability, studied.splits, studied.order
    for title, found, how in (
        ("Were the large moves announced?", episodes, EPISODES_NOTE),
        ("Is the confidence worth anything?", reliability, RELIABILITY_NOTE),
        ("When and where?", splits, SPLITS_NOTE),
        ("The same trades in another order", order, ORDER_NOTE),
    ):
        if isinstance(found, str):
            made.append(Study(title, found))
            continue
        figures = (found.plot(), found.plot_gates()) if hasattr(found, "plot_gates") else (found.plot(),)
        made.append(Study(title, found.sentence, figures, note=how))
    return tuple(made)


EPISODES_NOTE = (
    "An episode is found in hindsight: the largest moves between two closes within the hour, in trailing seven-day "
    "ATRs. Announced: an alert from 15 minutes before its start to a third of its time. Chance: the same "
    "alerts shifted around in time. Move still ahead: what was left of it at the open after the first alert."
)
RELIABILITY_NOTE = (
    "Every alert is traded alone with its stop and target, those turned down too. On the dotted line a stated "
    "confidence of 60 % would gain in 60 of 100; AUC is the chance that a gain had a higher confidence than a loss: "
    "0.5 ranks nothing. Brier skill below 0: worse than always stating the average. Whiskers: 95 %, by day."
)
SPLITS_NOTE = (
    "Mean result of the alerts of a group, each traded alone, in units of what its stop risked (R). The dotted line is "
    "where costs are earned. Grey: the groups of the panel cannot be told apart; whiskers: 95 %, by day."
)
ORDER_NOTE = (
    "The same closed trades in random orders: what the drawdown owes to luck of the order. It tells nothing about "
    "whether the trades are worth taking."
)


def _events_study(studied: Studied) -> Study:
    from aione_lab.figures.report import Study

    title, events = "What follows each trigger?", studied.events
    if isinstance(events, str):
        return Study(title, events)
    found = triggers(studied)
    header, rows = trigger_rows(found)
    figures = (events.plot(studied.symbol), events.heatmap(symbol=studied.symbol))
    text = f"{events.sentences[studied.symbol]} {traded_sentence(found)}"
    return Study(title, text, figures, header, rows, note=events_note(studied.symbol, events))


def events_note(symbol: str, events: EventStudy) -> str:
    """How to read the table of triggers."""
    n, tests = len(events.days), int(events.table["tested"].sum())
    horizons = events.table["horizon"].nunique()
    family = f" All {tests:,} tests of the {n} symbols are one family." if n > 1 else ""
    return (
        "A day: how often the trigger begins to hold. Minutes: mean move from the next open, long side, in bps "
        f"(0.01 %) before costs; ± is half of the {events.level:.0%} band, by day. At best: the horizon of {horizons} "
        f"and the side that did best; net: what a round trip of {events.costs[symbol]:.3g} bps leaves there. Both are "
        "chosen in hindsight, so net flatters. q: the p-value of its strongest horizon, adjusted for all tests; up to "
        f"{events.fdr:.0%} counts as found.{family} As traded: the alerts with this trigger, each traded alone with "
        "its stop and target, net of costs, in units of what the stop risked (R). LOW_VOLATILITY stops alerts and is "
        "never traded."
    )


def trigger_rows(found: Sequence[Trigger]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Header and cells of the table of triggers, a line each."""
    minutes = shown_horizons([h for one in found for h in one.forward]) if found else []
    header = (
        *("trigger", "a day"),
        *(f"{h} min" for h in minutes),
        *("at best", "net, bps", "q", "alerts", "as traded, R", "in words"),
    )
    rows = []
    for one in found:
        rows.append(
            (
                one.name,
                f"{one.per_day:.1f}",
                *(_shown(one.forward[h], "+.1f") for h in minutes),
                "-" if one.best is None else f"{one.side} {one.minutes} min",
                _shown(one.best, "+.1f"),
                "-" if one.q_value != one.q_value else f"{one.q_value:.2f}",
                f"{one.alerts:,}",
                _shown(one.traded, "+.2f"),
                one.words,
            )
        )
    return header, tuple(rows)


def _shown(value: Interval | None, form: str) -> str:
    """A mean with half the width of its band, all of which are symmetric."""
    if value is None or value.mean != value.mean:
        return "-"
    return f"{value.mean:{form}}" + ("" if value.low != value.low else f" ±{value.high - value.mean:{form[1:]}}")
