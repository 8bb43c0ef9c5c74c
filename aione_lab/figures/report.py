"""One HTML file that says what replays gave: nothing is loaded from anywhere, it opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from aione_lab.backtest.summary import (
    FEW_TRADES,
    costs_text,
    entry_signals,
    metric_rows,
    outcome_text,
    provenance,
    quote_currency,
    settings_text,
    sides_text,
    size_text,
    span_text,
    stop_text,
    thresholds_text,
    too_short,
    verdict,
)
from aione_lab.engine.records import RECOMMENDATIONS
from aione_lab.figures.baseline import random_entries_chart
from aione_lab.figures.page import Charts, page_html, table
from aione_lab.figures.performance import equity_chart, trades_chart
from aione_lab.figures.portfolio_section import PortfolioSection, portfolio_html
from aione_lab.figures.result import result_chart
from aione_lab.figures.signals import contributions_chart, rates_chart
from aione_lab.figures.theme import palette

if TYPE_CHECKING:
    from aione_lab.backtest.baseline import Baseline
    from aione_lab.backtest.explain import Explanation
    from aione_lab.backtest.result import Result

WORDS = (
    ("95 % interval, band", "where the true mean may well lie; an interval across 0 settles nothing"),
    ("p", "how often chance alone does at least as well: below 0.05 is unlikely to be chance, if one thing was tried"),
    ("adjusted p, q", "the same after allowing for how many things were tried at once"),
    ("R", "the result in units of what the stop risked, costs taken off: -1 is the stop without costs"),
    ("bps", "hundredths of a per cent"),
    ("alert", "triggers that came together; only alerts that pass every gate become BUY (or SELL) and are traded"),
    ("warm-up", "the first day of candles, in which nothing is said because windows are not full"),
)
"""What a reader needs to know, once a report."""


@dataclass(frozen=True)
class Study:
    """One study of a replay for the report: what it says, its figures, a table where it has one, how to read them."""

    title: str
    text: str
    figures: tuple[go.Figure, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One replay of a report, its random entries, the reference in words, a remark of the author's, and studies."""

    result: Result
    baseline: Baseline
    reference: str = ""
    note: str = ""
    studies: tuple[Study, ...] = ()


def report_html(sections: Sequence[Section], title: str, portfolio: PortfolioSection | None = None) -> str:
    """The report as the text of one HTML file of some 5 MB, most of it plotly.js; ``portfolio`` comes first.

    Every text is escaped, charts are decimated, nothing refers to another address. The same replays give the
    same text.
    """
    charts = Charts()
    account = "" if portfolio is None else portfolio_html(portfolio, charts)
    body = "".join(_section(section, charts, f"symbol-{place}") for place, section in enumerate(sections))
    words = "".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in WORDS)
    return page_html(
        title,
        "Trades are net of the costs stated; moves after a trigger are before costs where it says so.",
        f"<details><summary>Words used here</summary><dl>{words}</dl></details>"
        f"{account}{_overview(sections, 'h3' if portfolio is None else 'h2')}{body}",
    )


def _overview(sections: Sequence[Section], heading: str) -> str:
    if len(sections) < 2:
        return ""
    rows = []
    for section in sections:
        m = section.result.metrics
        shown = {row.name: row.value for row in metric_rows(m, section.result)}
        p = section.baseline.p_value
        rows.append(
            [
                section.result.symbol,
                _a_day(m["alerts_per_day"], 1),
                _a_day(entry_signals(section.result)[2], 2),
                shown["trades"],
                shown["win rate"].split(" ")[0],
                shown["net P&L"],
                next(row.value for row in metric_rows(m) if row.name == "expectancy"),
                shown["profit factor"],
                shown["max drawdown"],
                "-" if np.isnan(p) else f"{p:.3f}",
            ]
        )
    header = (
        *("symbol", "alerts/day", "entries/day", "trades", "win rate", "net P&L", "a trade (95 % interval)"),
        *("profit factor", "drawdown", "p"),
    )
    links = [f"symbol-{place}" for place in range(len(sections))]
    return (
        f"<{heading}>At a glance, each symbol on an account of its own</{heading}>"
        + table(header, rows, range(1, len(header)), links)
        + f"<p><b>{escape(overview_text([section.result for section in sections]))}</b></p>"
        + '<p class="soft">p: share of random draws that did at least as well. Small is good, a half is chance.</p>'
    )


def overview_text(results: Sequence[Result]) -> str:
    """How many of several replays are shown to earn their costs, in one sentence."""
    n = len(results)
    judged = [(one.symbol, one.metrics) for one in results if one.metrics["n_trades"] >= FEW_TRADES]
    if not judged:
        return f"None of the {n} symbols has the {FEW_TRADES} trades that a judgement wants."
    gains = [name for name, m in judged if m["expectancy_low"] > 0]
    losses = sum(m["expectancy_high"] < 0 for _, m in judged)
    few = f", {n - len(judged)} with too few trades to judge" if len(judged) < n else ""
    rest = f"{losses} {'is a clear loss' if losses == 1 else 'are clear losses'}{few}."
    if not gains:
        return f"None of the {n} symbols is shown to earn its costs; {rest}"
    many = "earns" if len(gains) == 1 else "earn"
    return (
        f"{len(gains)} of the {n} symbols ({', '.join(gains)}) {many} more than the scatter of the trades explains; "
        f"{rest} The best of several is its luckiest, and none was tried on data that did not suggest it."
    )


def _section(section: Section, charts: Charts, anchor: str) -> str:
    result, baseline = section.result, section.baseline
    metrics = result.metrics
    name, n, a_day = entry_signals(result)
    facts = [
        ("span", span_text(result)),
        ("sides", sides_text(result)),
        ("size", size_text(result)),
        ("thresholds", thresholds_text(result)),
        ("settings", settings_text(result.settings)),
        ("costs", costs_text(result)),
        ("reference", section.reference or "none"),
        ("alerts", f"{metrics['n_alerts']:,}, {_a_day(metrics['alerts_per_day'], 1)} a day"),
        (name, f"{n:,}, {_a_day(a_day, 2)} a day"),
    ]
    parts = [
        f'<h2 id="{anchor}">{escape(result.symbol or "candles")} {escape(result.interval)}</h2>',
        f'<p class="verdict">{escape(verdict(metrics, baseline, quote_currency(result.symbol)))}</p>',
        f"<p>{escape(stop_text(result))}</p>",
        f'<p class="note">{escape(section.note)}</p>' if section.note else "",
        table((), facts),
    ]
    if too_short(metrics):
        parts += ["<h3>Price</h3>", charts.html(result_chart(result, equity=False))]
    else:
        parts += _judgement(section, charts)
    parts.append(
        "<details><summary>What this rests on</summary>"
        + table((), [(name, value) for name, value in provenance(result).items()])
        + '<p class="soft">Digests are sha256 of the candles replayed and of the configuration. '
        "Equal digests give equal results.</p></details>"
    )
    return f"<section>{''.join(parts)}</section>"


def _judgement(section: Section, charts: Charts) -> list[str]:
    """What there is to see where signals were possible."""
    result, baseline = section.result, section.baseline
    return [
        "<h3>Did it earn its costs?</h3>",
        charts.html(equity_figure(result, baseline)),
        table(("metric", "value", "what it means"), metric_rows(result.metrics, result), (1,)),
        "<h3>Would random entries have done as well?</h3>",
        f"<p>{escape(_random_text(result, baseline))}</p>",
        charts.html(_random_figure(result, baseline)),
        "<h3>Price, alerts and trades</h3>",
        charts.html(result_chart(result, equity=False)),
        "<h3>The trades</h3>",
        charts.html(trades_chart(result.trades)),
        "<h3>How often each reason speaks</h3>",
        charts.html(_rates(result)),
        *(_study(study, charts) for study in section.studies),
        _one_alert(result, charts),
    ]


def _study(study: Study, charts: Charts) -> str:
    rows = table(study.header, study.rows, range(1, len(study.header) - 1)) if study.rows else ""
    note = f'<p class="soft">{escape(study.note)}</p>' if study.note else ""
    figures = "".join(charts.html(figure) for figure in study.figures)
    return f"<h3>{escape(study.title)}</h3><p>{escape(study.text)}</p>{rows}{note}{figures}"


def _a_day(rate: float, decimals: int) -> str:
    return "-" if np.isnan(rate) else f"{rate:.{decimals}f}"


def equity_figure(result: Result, baseline: Baseline) -> go.Figure:
    """Equity and drawdown, with the span in which 90 % of the random draws ended."""
    figure = equity_chart(result.equity)
    figure.update_yaxes(title_text=f"Equity ({quote_currency(result.symbol)})", row=1, col=1)
    if baseline.n_entries:
        colours = palette("light")
        ends = result.settings.initial_capital + np.quantile(baseline.net_pnl, [0.05, 0.95])
        first, last = (result.index[at].tz_localize(None) for at in (0, -1))
        figure.add_shape(  # at the right end alone: it says nothing about the way there
            type="rect",
            x0=last,
            x1=last + (last - first) * 0.025,
            y0=float(ends[0]),
            y1=float(ends[1]),
            row=1,
            col=1,
            line={"width": 1, "color": colours.soft},
            fillcolor=colours.neutral,
            opacity=0.5,
        )
        figure.add_annotation(
            x=last,
            y=float(ends[1]),
            text="90 % of random draws end here",
            showarrow=False,
            xanchor="right",
            yanchor="bottom",
            font={"size": 11, "color": colours.soft},
            row=1,
            col=1,
        )
        # The band belongs to the picture also where equity never comes near it.
        low = min(float(result.equity.min()), float(ends[0]))
        high = max(float(result.equity.max()), float(ends[1]))
        figure.update_yaxes(range=[low - 0.06 * (high - low), high + 0.06 * (high - low)], row=1, col=1)
    return figure


def _random_figure(result: Result, baseline: Baseline) -> go.Figure:
    figure = random_entries_chart(baseline.expectancy, baseline.observed)
    return figure.update_xaxes(title_text=f"Mean net P&amp;L of a trade, {quote_currency(result.symbol)}")


def _random_text(result: Result, baseline: Baseline) -> str:
    if not baseline.n_entries:
        return "There was no trade to compare with."
    low, middle, high = np.nanquantile(baseline.expectancy, [0.05, 0.5, 0.95])
    return (
        f"{len(baseline.net_pnl)} times, {baseline.n_entries} entries were drawn at random bars with the same "
        f"stops, targets and costs: {middle:+,.2f} {quote_currency(result.symbol)} a trade in the middle, "
        f"90 % of draws between {low:+,.2f} and {high:+,.2f}. "
        f"This replay: {baseline.observed:+,.2f}; p = {baseline.p_value:.3f}."
    )


def _rates(result: Result) -> go.Figure:
    rates = result.rates().rename(columns={"bars_per_day": "bars a day", "alerts_per_day": "alerts a day"})
    return rates_chart(pd.DataFrame(rates.T))


def _one_alert(result: Result, charts: Charts) -> str:
    """The latest alert that was traded (else the latest there is) taken apart."""
    explanation = one_alert(result)
    if explanation is None:
        return ""
    return (
        "<h3>One alert, taken apart</h3>"
        + f"<p>{escape(outcome_text(explanation))}</p>"
        + charts.html(contributions_chart(explanation_metrics(explanation)))
        + f"<details><summary>In words and numbers</summary>{explanation._repr_html_()}</details>"
    )


def one_alert(result: Result) -> Explanation | None:
    """Explanation of the latest ALERT whose trade is closed; else of the latest BUY or SELL, else of the latest ALERT.

    None without an ALERT.
    """
    if len(result.trade_records):
        return result.explain(int(result.trade_records["signal_time"][-1]))
    records = result.assessment_records
    if not len(records):
        return None
    entered = np.isin(records["recommendation"], [RECOMMENDATIONS.index("BUY"), RECOMMENDATIONS.index("SELL")])
    chosen = records[entered] if entered.any() else records
    return result.explain(int(chosen["timestamp"][-1]))


def explanation_metrics(explanation: Explanation) -> dict[str, object]:
    """What ``contributions_chart`` reads, from an Explanation."""
    return {
        "composite_score": explanation.score,
        "confidence": explanation.confidence,
        "reading": explanation.reading,
        "factors": {
            factor.name: {
                "strength": factor.strength,
                "weight": factor.weight,
                "contribution": None if factor.strength is None else factor.contribution,
            }
            for factor in explanation.factors
        },
    }
