"""The studies of one symbol as tables for people and as plain data for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aione_lab.cli.output import add_row, console, table
from aione_lab.cli.studies import Studied, events_note, traded_sentence, trigger_rows, triggers

if TYPE_CHECKING:
    import pandas as pd

    from aione_lab.research import Episodes, Reliability


FEW = 10
"""Below this many alerts a gate has no band on the terminal."""


def describe_studies(studied: Studied | None) -> dict[str, Any]:
    """All numbers of the studies of one symbol; ``not_judged`` says why there are none."""
    if studied is None:
        return {"not_judged": "too few candles after warm-up"}
    events, episodes, reliability, order = studied.events, studied.episodes, studied.reliability, studied.order
    told: dict[str, Any] = {
        name: {"not_judged": one}
        for name in ("events", "episodes", "reliability", "splits", "order")
        if isinstance(one := getattr(studied, name), str)
    }
    if not isinstance(events, str):
        told["events"] = _events(studied)
    if not isinstance(episodes, str):
        told["episodes"] = {
            "sentence": episodes.sentence,
            "atrs": episodes.size,
            "window_minutes": episodes.window,
            "lead_minutes": episodes.lead,
            "summary": episodes.summary.to_dict("index"),
        }
    if not isinstance(reliability, str):
        told["reliability"] = {
            "sentence": reliability.sentence,
            "alerts": len(reliability.trades),
            "left_out": reliability.left_out,
            "summary": _records(reliability.summary),
            "curve": _records(reliability.curve),
            "gates": _records(reliability.gates),
        }
    if not isinstance(studied.splits, str):
        told["splits"] = {
            "sentence": studied.splits.sentence,
            "tests": _records(studied.splits.tests),
            "groups": _records(studied.splits.table),
        }
    if not isinstance(order, str):
        told["order"] = {
            "sentence": order.sentence,
            "trades": order.n_trades,
            "drawdown": order.observed_drawdown,
            "p_deeper": order.p_deeper,
        }
    return told


def _events(studied: Studied) -> dict[str, Any]:
    events, name = studied.events, studied.symbol
    assert not isinstance(events, str)
    rows = events.table[(events.table["symbol"] == name) & (events.table["kind"] == "reason")]
    found = triggers(studied)
    by_trigger = {trigger: part for trigger, part in rows.groupby("event", sort=False)}
    return {
        "sentence": events.sentences[name],
        "traded_sentence": traded_sentence(found),
        "at": events.at,
        "level": events.level,
        "false_discovery_rate": events.fdr,
        "tests_in_family": int(events.table["tested"].sum()),
        "warm_days": events.days[name],
        "round_trip_bps": events.costs[name],
        "triggers": [
            {
                "trigger": one.name,
                "per_day": one.per_day,
                "events": one.events,
                "discovery": one.discovery,
                "survives_costs": one.survives,
                "in_words": one.words,
                "traded_r": None if one.traded is None else {"alerts": one.alerts, **asdict(one.traded)},
                "horizons": _records(by_trigger[one.name].drop(columns=["symbol", "kind", "event", "per_day"]), False),
            }
            for one in found
        ],
    }


def _records(frame: pd.DataFrame, index: bool = True) -> list[dict[Any, Any]]:
    return (frame.reset_index() if index else frame).to_dict("records")


def show_studies(symbol: str, studied: Studied | None) -> None:
    """The studies of one symbol for people."""
    out = console()
    out.print(f"\n{symbol}: studies of the signals", style="bold")
    if studied is None:
        out.print("Too few candles after warm-up: there is nothing to study.")
        return
    _show_events(out, studied)
    _title(out, "Were the large moves announced?")
    if not isinstance(studied.episodes, str):
        out.print(_episodes_table(studied.episodes))
    _say(out, studied.episodes)
    _title(out, "Is the confidence worth anything?")
    if not isinstance(studied.reliability, str):
        out.print(_gates_table(studied.reliability))
    _say(out, studied.reliability)
    _title(out, "When and where?")
    _say(out, studied.splits)
    _title(out, "The same trades in another order")
    _say(out, studied.order)


def _title(out: Any, text: str) -> None:
    out.print(f"\n{text}", style="underline")


def _say(out: Any, one: Any) -> None:
    out.print(one if isinstance(one, str) else one.sentence)


def _show_events(out: Any, studied: Studied) -> None:
    _title(out, "What follows each trigger?")
    events = studied.events
    if isinstance(events, str):
        out.print(events)
        return
    found = triggers(studied)
    header, rows = trigger_rows(found)
    last = header.index("at best")
    moves = table(*header[:last], title="Mean move from the next open, long side, bps before costs")
    costs = table(header[0], *header[last:], title="After costs")
    costs.columns[1].justify = "left"
    costs.columns[-1].justify = "left"
    for row in rows:
        add_row(moves, *row[:last])
        add_row(costs, row[0], *row[last:])
    out.print(moves)
    out.print(costs)
    out.print(events_note(studied.symbol, events), style="dim")
    out.print(events.sentences[studied.symbol], style="bold")
    out.print(traded_sentence(found), style="bold")


def _episodes_table(episodes: Episodes) -> Any:
    made = table("kind", "alerts", "moves", "announced", "by chance", "p", "true", "by chance", "p")
    for kind, row in episodes.summary.to_dict("index").items():
        if not row["n_alerts"]:
            continue
        add_row(
            made,
            kind,
            f"{row['n_alerts']:,.0f}",
            f"{row['n_episodes']:,.0f}",
            _share_band(row, "recall"),
            _percent(row["chance_recall"]),
            _p(row["recall_p"]),
            _share_band(row, "precision"),
            _percent(row["chance_precision"]),
            _p(row["precision_p"]),
        )
    return made


def _gates_table(reliability: Reliability) -> Any:
    made = table("advice", "decided by", "alerts", "win rate", "mean R, net", "against the recommended", "q")
    made.columns[1].justify = "left"
    for row in _records(reliability.gates):
        add_row(
            made,
            row["recommendation"],
            row["detail"],
            f"{row['count']:,.0f}",
            _percent(row["win_rate"]),
            _number_band(row, "mean_r"),
            _number_band(row, "difference_r"),
            "-" if row["q_value"] != row["q_value"] else f"{row['q_value']:.2f}",
        )
    return made


def _percent(value: float) -> str:
    return "-" if value != value else f"{value:.0%}"


def _p(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"


def _share_band(row: Mapping[Any, float], name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return _percent(value) if low != low else f"{value:.0%} ({low:.0%} to {high:.0%})"


def _number_band(row: Mapping[Any, float], name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if value != value:
        return "-"
    few = low != low or row["count"] < FEW  # days drawn again say nothing where there is hardly a day
    return f"{value:+.2f}" if few else f"{value:+.2f} ({low:+.2f} to {high:+.2f})"
