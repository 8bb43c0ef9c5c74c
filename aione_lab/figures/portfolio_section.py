"""The section of an HTML report that tells of many symbols on one account."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from aione_lab.backtest.summary import By, account_text, portfolio_rows, portfolio_verdict, quote_currency, share_rows
from aione_lab.figures.page import Charts, table

if TYPE_CHECKING:
    from aione_lab.backtest.portfolio import PortfolioResult


@dataclass(frozen=True)
class PortfolioSection:
    """A portfolio of a report, and its reference in words."""

    result: PortfolioResult
    reference: str = ""


TITLES: dict[By, str] = {
    "symbol": "By symbol",
    "trigger": "By trigger (a trade counts for each of its triggers: the rows add up to more than the whole)",
    "hour": "By hour of the signal (UTC)",
    "exit": "By exit",
}


def portfolio_html(section: PortfolioSection, charts: Charts) -> str:
    """The section as HTML."""
    result = section.result
    facts = [*account_text(result).items(), ("reference", section.reference or "none")]
    figure = result.plot()
    quote = quote_currency(result.symbols[0])
    figure.update_yaxes(title_text=f"Equity ({quote})", row=1, col=1)
    figure.update_xaxes(title_text=f"Net P&amp;L by symbol, {quote}", row=1, col=2)
    parts = [
        f"<h2>Portfolio of {len(result.symbols)} symbols {escape(result.interval)}</h2>",
        f'<p class="verdict">{escape(portfolio_verdict(result))}</p>',
        table((), facts),
        "<h3>One account</h3>",
        charts.html(figure),
        table(("metric", "value", "what it means"), [tuple(row) for row in portfolio_rows(result)], (1,)),
        "<h3>Where it came from</h3>",
        '<p class="soft">Net of costs. The best line of a table is its luckiest: with few trades a line says '
        "nothing about the next ones.</p>",
    ]
    for by, title in TITLES.items():
        header, rows = share_rows(result, by)
        if not rows:
            continue
        body = table(header, rows, range(1, len(header)))
        if by in ("symbol", "trigger"):
            parts.append(f"<h4>{escape(title)}</h4>{body}")
        else:
            parts.append(f"<details><summary>{escape(title)}</summary>{body}</details>")
    return f"<section>{''.join(parts)}</section>"
