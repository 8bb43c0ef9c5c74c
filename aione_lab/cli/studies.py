"""The studies of signals that a report takes up, for one replay each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aione_lab.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from aione_lab.backtest.result import Result
    from aione_lab.figures.report import Study


def studies_of(result: Result) -> tuple[Study, ...]:
    """Event study, episodes, reliability, splits and the order of trades; what cannot be judged says why."""
    from aione_lab.research import episodes, event_study, reliability, splits, trade_order

    def events() -> dict[str, Any]:
        study = event_study(result, combinations=None)
        header, rows = _event_rows(study.table)
        return {"text": study.sentence, "figures": (study.heatmap(), study.plot()), "header": header, "rows": rows}

    def moves() -> dict[str, Any]:
        found = episodes(result)
        return {"text": found.sentence, "figures": (found.plot(),)}

    def confidence() -> dict[str, Any]:
        found = reliability(result)
        return {"text": found.sentence, "figures": (found.plot(), found.plot_gates())}

    def regimes() -> dict[str, Any]:
        by = ("hour", "weekday", "volatility", "trend", "correlation", "reason")
        found = splits(result, by=by, of="alerts")
        return {"text": found.sentence, "figures": (found.plot(),)}

    def order() -> dict[str, Any]:
        found = trade_order(result)
        return {"text": found.sentence, "figures": (found.plot(),)}

    return (
        _study("What follows each trigger?", events),
        _study("Were the large moves announced?", moves),
        _study("Is the confidence worth anything?", confidence),
        _study("When and where?", regimes),
        _study("The same trades in another order", order),
    )


def _study(title: str, make: Callable[[], dict[str, Any]]) -> Study:
    from aione_lab.figures.report import Study

    try:
        return Study(title, **make())
    except InputError as error:  # too little to judge: the report says so in its place
        return Study(title, f"Not judged: {error}")


def _event_rows(table: pd.DataFrame) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """One line a trigger, at the horizon where most is left after costs."""
    header = ("trigger", "a day", "events", "minutes", "mean move, bps", "net of costs, bps", "q", "survives costs")
    rows = []
    for name, group in table.groupby("event", sort=False):
        usable = group[group["net_bps"].notna()]
        if not len(usable):
            continue
        best = usable.iloc[int(usable["net_bps"].argmax())]
        rows.append(
            (
                str(name),
                f"{best['per_day']:.1f}",
                f"{int(best['n']):,}",
                f"{int(best['horizon'])}",
                f"{best['mean_bps']:+.1f} ({best['mean_low']:+.1f} to {best['mean_high']:+.1f})",
                f"{best['net_bps']:+.1f} ({best['net_low']:+.1f} to {best['net_high']:+.1f}) {best['side'].lower()}",
                f"{best['q_value']:.2f}" if best["tested"] else "not tested",
                "yes" if best["survives"] else "no",
            )
        )
    return header, tuple(rows)
