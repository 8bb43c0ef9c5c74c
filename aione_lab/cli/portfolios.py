"""``replay --portfolio``: the symbols of a lake on one clock and one account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aione_lab.cli.output import add_row, console, table
from aione_lab.errors import InputError

if TYPE_CHECKING:
    from aione_lab.backtest.portfolio import PortfolioResult
    from aione_lab.backtest.summary import By
    from aione_lab.lake import Lake
    from aione_lab.settings import Costs, Settings
    from aione_lab.thresholds import Thresholds

SHARES: tuple[By, ...] = ("symbol", "trigger", "hour", "exit")


@dataclass(frozen=True)
class Pooled:
    """A portfolio with its reference and how that was chosen."""

    result: PortfolioResult
    reference: str | None
    reference_note: str


def check_portfolio(names: list[str]) -> None:
    """Refuse symbols that make no account together, before anything is replayed."""
    from aione_lab.backtest.summary import quote_currency

    if len(names) < 2:
        raise InputError.of("--portfolio", ", ".join(names), "must be two symbols at least")
    quotes = {quote_currency(name): name for name in names}
    if len(quotes) > 1:
        found = ", ".join(f"{name} in {quote}" for quote, name in quotes.items())
        raise InputError.of("--portfolio", found, "must be quoted in one currency: one account holds one")


def pool_symbols(
    lake: Lake,
    names: list[str],
    interval: str,
    start: str | None,
    end: str | None,
    reference: str | None,
    limits: Thresholds | None,
    rules: Settings,
    costs: Costs,
) -> Pooled:
    """Replay all symbols on one account."""
    from aione_lab.backtest.portfolio import replay_portfolio
    from aione_lab.cli.replays import candles_of, chosen_reference
    from aione_lab.warm import announce_if_cold

    market, how = chosen_reference(lake, interval, reference)
    candles = {name: candles_of(lake, name, interval, start, end) for name in names}
    frame: Any = market if market in candles else None
    if market is not None and market not in candles:
        frame = lake.candles(market, interval, start, end)
        if not len(frame):
            frame, market, how = None, None, f"none: {market} has no candles in this span"
    announce_if_cold()
    funding = {name: rates for name in names if len(rates := lake.funding(name))}
    result = replay_portfolio(
        candles, limits, interval=interval, reference=frame, funding=funding, settings=rules, costs=costs
    )
    return Pooled(result, market, how)


def describe_portfolio(one: Pooled) -> dict[str, Any]:
    """Everything about a portfolio for machines; equity at the end of each UTC day."""
    from aione_lab.backtest.summary import portfolio_verdict

    result = one.result
    days = result.equity.groupby(result.index.floor("D")).last()
    return {
        "portfolio": list(result.symbols),
        "interval": result.interval,
        "start": result.index[0],
        "end": result.index[-1],
        "reference": {"symbol": one.reference, "chosen": one.reference_note},
        "settings": result.settings.model_dump(mode="json"),
        "costs": result.members[0].costs.model_dump(mode="json"),
        "metrics": dict(result.metrics),
        "refused": result.refused.rename_axis("time").reset_index().to_dict("records"),
        "attribution": {by: result.attribution(by).reset_index().to_dict("records") for by in SHARES},
        "equity": [{"day": f"{day:%Y-%m-%d}", "equity": value} for day, value in days.items()],
        "open_at_end": result.open_trades.to_dict("records"),
        "verdict": portfolio_verdict(result),
    }


def show_portfolio(one: Pooled) -> None:
    """A portfolio for people."""
    from aione_lab.backtest.summary import account_text, portfolio_rows, portfolio_verdict, share_rows

    result, out = one.result, console()
    out.print(f"\nPortfolio of {len(result.symbols)} symbols {result.interval}", style="bold")
    for name, text in {**account_text(result), "reference": f"{one.reference or '-'} ({one.reference_note})"}.items():
        out.print(f"{name:<12} {text}")
    numbers = table("metric", "value", "meaning")
    numbers.columns[2].justify = "left"
    for metric in portfolio_rows(result):
        add_row(numbers, *metric)
    out.print(numbers)
    for by in SHARES:
        header, rows = share_rows(result, by)
        title = f"Net P&L by {by}" + (" (a trade counts for each of its triggers)" if by == "trigger" else "")
        made = table(*header, title=title)
        for row in rows:
            add_row(made, *row)
        if rows:
            out.print(made)
    equity = result.equity
    out.print(
        f"equity       {result.settings.initial_capital:,.2f} at the start, {equity.iloc[-1]:,.2f} at the end; lowest "
        f"{equity.min():,.2f} ({equity.idxmin():%Y-%m-%d %H:%M} UTC), highest {equity.max():,.2f} "
        f"({equity.idxmax():%Y-%m-%d %H:%M} UTC)"
    )
    out.print(portfolio_verdict(result), style="bold")
