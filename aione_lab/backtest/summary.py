"""A replay in plain words: each metric with what it means, and one sentence that does not flatter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from aione_lab.engine.records import EXITS, RECOMMENDATIONS, SUPPRESSED
from aione_lab.settings import Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import iso

if TYPE_CHECKING:
    from aione_lab.backtest.baseline import Baseline
    from aione_lab.backtest.explain import Explanation
    from aione_lab.backtest.portfolio import PortfolioResult
    from aione_lab.backtest.result import Result
    from aione_lab.settings import Costs

FEW_TRADES = 30
SLOT = "a slot's share"
"""Below this many trades nothing is said about skill: the usual rule of thumb for a mean to be about normal."""

CHANCE = 0.05
"""A random-entry p-value up to here is called unlikely to be chance."""

WIDE_COSTS = 0.5
"""A round trip of costs above this share of the stop's distance is remarked upon."""

By = Literal["symbol", "trigger", "hour", "exit"]

ENDS = ("", "_low", "_high")
QUOTES = ("FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USD", "EUR", "TRY", "BRL", "DAI", "BTC", "ETH", "BNB")

SENTENCES = {
    ("gain", ""): "a gain larger than its own scatter explains",
    ("gain", "better"): "a gain larger than its own scatter explains, and its entries beat random ones",
    ("gain", "same"): "a gain larger than its own scatter explains, but its entries cannot be told from random ones",
    ("gain", "worse"): "a gain larger than its own scatter explains, but random entries did better still",
    ("open", ""): "whether it makes or loses money is not settled",
    ("open", "better"): "its entries beat random ones, but whether that is enough for the costs is not settled",
    ("open", "same"): "neither a gain nor entries better than random ones are shown",
    ("open", "worse"): "no gain is shown, and random entries did better",
    ("loss", ""): "a clear loss",
    ("loss", "better"): "a clear loss, although its entries beat random ones: the costs are more than they bring",
    ("loss", "same"): "a clear loss, and its entries cannot be told from random ones",
    ("loss", "worse"): "a clear loss, and random entries did better",
}
"""What is said, by where the 95 % interval of a trade's net P&L lies and how it stands among random entries."""


class MetricRow(NamedTuple):
    """One metric for display."""

    name: str
    value: str
    meaning: str


class StopCosts(NamedTuple):
    """Medians over closed trades: costs of a round trip as a share of the price and in R, distance of the stop."""

    round_trip: float
    round_trip_r: float
    stop: float


def verdict(metrics: Mapping[str, Any], baseline: Baseline | None = None, quote: str = "") -> str:
    """What a replay's numbers support, in one plain sentence: profit after costs, chance, and how much data there is.

    ``metrics`` is ``result.metrics``, ``baseline`` its random entries (None: not compared), ``quote`` the currency.
    """
    n = metrics["n_trades"]
    if too_short(metrics):
        return _all_warm_up(metrics)
    if not n:
        return (
            f"No trade was closed ({metrics['n_alerts']:,} alerts, {metrics['n_buys'] + metrics['n_sells']:,} entry "
            "signals), so there is nothing to judge."
        )
    mean, low, high = (metrics[name] for name in ("expectancy", "expectancy_low", "expectancy_high"))
    made = "made" if metrics["net_pnl"] > 0 else "lost"
    total = f"{abs(metrics['net_pnl']):,.2f} {quote}".strip()
    text = f"After costs {n:,} {'trade' if n == 1 else 'trades'} {made} {total}, {mean:+,.2f} a trade"
    if n < FEW_TRADES:
        return f"{text}: too few to judge (at least {FEW_TRADES} are wanted), whatever the sign."
    p = math.nan if baseline is None else baseline.p_value
    chance = "" if math.isnan(p) else "better" if p <= CHANCE else "worse" if p >= 1 - CHANCE else "same"
    sign = "gain" if low > 0 else "loss" if high < 0 else "open"
    shown = f" (p = {p:.3f})" if chance else ""
    words = SENTENCES[sign, chance]
    text += f" (95 % interval {low:+,.2f} to {high:+,.2f}): {words}{shown}."
    if metrics["funding_coverage"] < 1:
        text += f" Of the funding only {metrics['funding_coverage']:.0%} is known; the rest is not in these numbers."
    if sign == "gain":
        text += " One span, one set of thresholds: it has not been tried on data that did not suggest it."
    return text


def portfolio_verdict(result: PortfolioResult) -> str:
    """What the numbers of a portfolio support, in plain words: profit after costs, and what found no place."""
    m = result.metrics
    alerts = sum(len(member.assessments) for member in result.members)
    numbers = {**m, "n_alerts": alerts, "n_buys": m["n_entry_signals"], "n_sells": 0, "warm_days": math.inf}
    text = verdict(numbers, None, quote_currency(result.symbols[0]))
    if m["n_trades"] >= FEW_TRADES:
        text += " Symbols that move together are not independent, so the interval is rather too narrow."
    refused = {name: m[f"refused_{name}"] for name in ("capacity", "correlation", "confidence")}
    if total := sum(refused.values()):
        why = ", ".join(f"{name} {count:,}" for name, count in refused.items() if count)
        text += f" {total:,} of {m['n_entry_signals']:,} entry signals were refused ({why})."
    if m["open_at_end"]:
        held = "trade is" if m["open_at_end"] == 1 else "trades are"
        text += f" {m['open_at_end']} {held} open at the end and not in this."
    return f"{text} It was not compared with random entries."


def too_short(metrics: Mapping[str, Any]) -> bool:
    """Whether warm-up left less than an hour, and nothing was traded in it."""
    return bool(metrics["warm_days"] * 24 < 1 and not metrics["n_trades"])


def _all_warm_up(metrics: Mapping[str, Any]) -> str:
    minutes = round(metrics["warm_days"] * 1440)
    left = f"All but {minutes} minutes of the {metrics['n_bars']:,}" if minutes else f"All {metrics['n_bars']:,}"
    return (
        f"{left} candles went into warm-up, so there is nothing to judge: the windows start empty at the first candle "
        "(--start) and after a gap, and need a day of candles before the first signal. Replay a longer span."
    )


def metric_rows(metrics: Mapping[str, Any], result: Result | None = None, quote: str = "") -> list[MetricRow]:
    """The metrics that matter for a reader, formatted, each with its meaning.

    With the ``result`` that they are of, money carries its currency and the costs are set against the stops; ``quote``
    names the currency where there is none.
    """
    m = metrics
    quote = quote if result is None else quote_currency(result.symbol)
    rows = [
        MetricRow("trades", f"{m['n_trades']:,}", "closed; one still open at the end is not among them"),
        MetricRow("net P&L", _money(m["net_pnl"], quote), "in quote currency, after fees, slippage and known funding"),
        MetricRow("gross P&L", _money(m["gross_pnl"], quote), "before fees and funding; slippage is in the prices"),
        MetricRow("fees", _money(-m["fees"], quote), "paid, part of the net P&L"),
        MetricRow("funding", _money(m["funding"], quote), "paid (−) or received, as far as it is known"),
        MetricRow(
            "funding known",
            _share(m["funding_coverage"]) if m["n_trades"] else "-",
            "share of the funding times crossed whose rate is in the lake; the rest is unknown, not zero",
        ),
    ]
    if result is not None:
        costs = stop_costs(result)
        rows += [
            MetricRow(
                "round trip of costs",
                "-" if math.isnan(costs.stop) else f"{costs.round_trip:.3%}, {costs.round_trip_r:.2f} R",
                "fees and slippage of a trade, of its price and in units of what its stop risked (medians)",
            ),
            MetricRow(
                "median stop distance", _share(costs.stop, ".3%"), "from entry to stop, as a share of the entry price"
            ),
        ]
    return [
        *rows,
        MetricRow(
            "expectancy",
            _with_interval([_money(m[f"expectancy{end}"]) for end in ENDS], quote),
            "mean net P&L of a trade, with its 95 % interval",
        ),
        MetricRow(
            "expectancy in R", _number(m["expectancy_r"], "+.3f"), "mean result in units of what the stop risked"
        ),
        MetricRow(
            "win rate",
            _with_interval([_share(m[f"win_rate{end}"]) for end in ENDS]),
            "share of trades with a net gain, with its 95 % interval",
        ),
        MetricRow("profit factor", _number(m["profit_factor"], ".2f"), "sum of gains ÷ sum of losses; above 1 earns"),
        MetricRow("total return", _share(m["total_return"], "+.2%"), "of the starting capital, open trade included"),
        MetricRow("max drawdown", _share(m["max_drawdown"], ".2%"), "deepest fall from a peak of equity"),
        MetricRow("Sharpe ratio", _number(m["sharpe"], ".2f"), "daily returns, mean ÷ deviation × √365"),
        MetricRow("mean holding", _number(m["mean_bars"], ".1f", " bars"), "from entry to exit"),
        MetricRow(
            "ambiguous trades",
            f"{m['n_ambiguous']:,}",
            f"stop and target in one bar ({m['n_resolved']:,} more told apart on finer candles); net P&L stop first "
            f"{_money(m['pnl_stop_first'], quote)}, target first {_money(m['pnl_target_first'], quote)}",
        ),
    ]


def portfolio_rows(result: PortfolioResult) -> list[MetricRow]:
    """The metrics of a portfolio: what it was offered and refused, what it held, and those of its trades."""
    m = result.metrics
    return [
        MetricRow("entry signals", f"{m['n_entry_signals']:,}", "of all symbols"),
        MetricRow("refused: capacity", f"{m['refused_capacity']:,}", "all slots were taken (Settings.max_open_trades)"),
        MetricRow(
            "refused: correlation",
            f"{m['refused_correlation']:,}",
            "a symbol held and this one both move with the reference (Settings.max_correlation_threshold)",
        ),
        MetricRow("refused: confidence", f"{m['refused_confidence']:,}", "below Settings.portfolio_min_confidence"),
        MetricRow(
            "not followed",
            f"{m['n_not_followed']:,}",
            "the symbol was in a trade or its order waited, or no price reached the order",
        ),
        MetricRow("most trades at once", f"{m['max_open_trades']:,}", f"of {result.settings.max_open_trades} slots"),
        MetricRow(
            "gross exposure",
            f"{m['mean_gross_exposure']:.1%}, at most {m['max_gross_exposure']:.0%}",
            "open positions as a share of the equity, mean over all bars",
        ),
        *metric_rows(m, quote=quote_currency(result.symbols[0])),
    ]


def stop_costs(result: Result) -> StopCosts:
    """What a round trip cost and how far the stop was; NaN without a trade that entered on the right side of it."""
    trades = result.trade_records
    trades = trades[np.isfinite(trades["r_multiple"])]
    if not len(trades):
        return StopCosts(math.nan, math.nan, math.nan)
    entry, side, slip = trades["entry_price"], trades["side"], result.costs.slippage_bps / 1e4
    # What each fill gave away: entries at the open, and exits that were taken rather than resting in the book.
    prices, reasons = trades["exit_prices"], trades["exit_reasons"]
    taken = np.isin(reasons, [i for i, name in enumerate(EXITS) if name not in ("", "target", "liquidation")])
    lost = np.where(taken, np.abs(prices / (1 - side[:, None] * slip) - prices), 0.0) * trades["exit_quantities"]
    slipped = np.nansum(lost, axis=1) / trades["quantity"]
    if result.settings.entry == "open":
        slipped += np.abs(entry - entry / (1 + side * slip))
    costs = trades["fees"] / trades["quantity"] + slipped
    stop = np.abs(entry - trades["stop"])
    return StopCosts(*(float(np.median(values)) for values in (costs / entry, costs / stop, stop / entry)))


def stop_text(result: Result) -> str:
    """A plain sentence where costs are a large part of what the stop risks; "" elsewhere."""
    costs, m = stop_costs(result), result.metrics
    if not costs.round_trip > WIDE_COSTS * costs.stop:
        return ""
    width = costs.stop / costs.round_trip
    wide = "narrower than" if width < 1 else f"only {width:.1f} times as wide as"
    return (
        f"The stop is {wide} the costs: the median stop is {costs.stop:.3%} away from the entry, a round "
        f"trip of fees and slippage takes {costs.round_trip:.3%}, so a trade starts {costs.round_trip_r:.2f} R behind. "
        f"Before fees and funding: {_money(m['gross_pnl'], quote_currency(result.symbol))}."
    )


def outcome_text(explanation: Explanation) -> str:
    """How the trade of an explained alert ended, with what that proves; "" where it opened none."""
    trade = explanation.trade
    if trade is None:
        return ""
    word, r = "made" if trade["pnl"] > 0 else "lost", abs(trade["r_multiple"])
    much = f"{abs(trade['pnl']):,.2f} {quote_currency(explanation.symbol)}"
    return f"This one {word} {much if math.isnan(r) else f'{r:.2f} R'}: a single alert proves nothing."


def quote_currency(symbol: str) -> str:
    """What ``symbol`` is quoted in, by its suffix: USDT of BTCUSDT; "quote currency" where none is known."""
    name = symbol.split("_")[0]
    return next((quote for quote in QUOTES if name.endswith(quote) and name != quote), "quote currency")


def sides_text(result: Result) -> str:
    """Which sides the replay could trade."""
    return "long and short" if result.settings.allow_shorts else "long only (Settings.allow_shorts is off)"


def size_text(result: Result) -> str:
    """Capital at the start, and how much of it a trade is given."""
    capital = f"{result.settings.initial_capital:,.10g} {quote_currency(result.symbol)}"
    return f"starting capital {capital}, {_size_of(result.settings, 'the equity')}"


def _size_of(rules: Settings, whole: str) -> str:
    """How much of ``whole`` a trade is given, and what it moves with that."""
    share = f"{'all' if rules.position_fraction == 1 else f'{100 * rules.position_fraction:.4g} %'} of {whole}"
    margin = "" if rules.leverage == 1 else f" as margin for {rules.leverage:g} times as much"
    if rules.sizing == "risk":
        risk = f"{100 * rules.risk_fraction:.4g} % of {whole}"
        return f"each trade sized to lose {risk} at the stop, with at most {share} put in{margin}"
    return f"{share} put into each trade{margin}"


def settings_text(rules: Settings) -> str:
    """The settings that are not the default ones, by their names."""
    return _changed(rules, Settings()) or "the defaults"


def thresholds_text(result: Result) -> str:
    """The thresholds that are not the default ones, by their names; of a schedule those at its end."""
    text = _changed(result.thresholds, Thresholds()) or "the defaults"
    return text if len(result.schedule) == 1 else f"{len(result.schedule)} sets one after the other, the last: {text}"


def _changed(given: Settings | Thresholds, standard: Settings | Thresholds) -> str:
    names = [name for name in type(given).model_fields if name != "meta"]
    found = {name: getattr(given, name) for name in names if getattr(given, name) != getattr(standard, name)}
    return ", ".join(f"{name} = {value}" for name, value in found.items())


def entry_signals(result: Result) -> tuple[str, int, float]:
    """(name, number, number a warm day) of the recommendations that open trades."""
    m = result.metrics
    if not result.settings.allow_shorts:
        return "BUY", m["n_buys"], m["buys_per_day"]
    n = m["n_buys"] + m["n_sells"]
    return "BUY and SELL", n, n / m["warm_days"] if m["warm_days"] else math.nan


def counts(result: Result) -> dict[str, Any]:
    """How many bars got which recommendation, suppression and (last) exit: plain numbers by name."""
    signals, trades = result.signal_records, result.trade_records
    rates = result.rates()
    return {
        "recommendations": {
            name: int((signals["recommendation"] == code).sum()) for code, name in enumerate(RECOMMENDATIONS) if name
        },
        "suppressed": {
            name: int((signals["suppressed"] == code).sum()) for code, name in enumerate(SUPPRESSED) if name
        },
        "reasons": {name: rates.loc[name].to_dict() for name in result.spec.reasons},
        "exits": {name: int((trades["exit_reason"] == code).sum()) for code, name in enumerate(EXITS) if name},
        "targets_before": int((trades["exits"] > 1).sum()),  # trades of which targets closed a part before the end
    }


def provenance(result: Result) -> dict[str, str]:
    """What has to be equal for a replay to repeat: candles, configuration, version."""
    return {
        "fingerprint": result.fingerprint,
        "thresholds": result.thresholds.digest(),
        "spec": result.spec.digest(),
        "settings": result.settings.digest(),
        "costs": result.costs.digest(),
        "version": import_module("aione_lab").__version__,  # by name: the package imports this room for its types
    }


def span_text(result: Result) -> str:
    """First and last bar, number of bars and of warm days."""
    first, last = (iso(int(result.bars["timestamp"][at]))[:16].replace("T", " ") for at in (0, -1))
    return f"{first} to {last} UTC, {len(result.bars):,} candles, {result.metrics['warm_days']:.1f} days after warm-up"


def costs_text(result: Result) -> str:
    """The costs that were taken off."""
    return costs_of(result.costs)


def costs_of(costs: Costs) -> str:
    """``costs`` in words."""
    maker = "the same on targets" if costs.maker_fee is None else f"{costs.maker_fee:.3%} on targets"
    return (
        f"fee {costs.fee:.3%} of the notional a side ({maker}), slippage {costs.slippage_bps:g} bps on market fills, "
        "funding at its real times where known"
    )


def account_text(result: PortfolioResult) -> dict[str, str]:
    """What an account of many symbols was allowed, by name: span, slots, size, costs."""
    first, last = (iso(int(result.clock[at]))[:16].replace("T", " ") for at in (0, -1))
    rules, costs = result.settings, {costs_of(member.costs) for member in result.members}
    capital = f"{rules.initial_capital:,.10g} {quote_currency(result.symbols[0])}"
    return {
        "symbols": ", ".join(result.symbols),
        "span": f"{first} to {last} UTC, {len(result.clock):,} bars of the clock",
        "slots": f"{rules.max_open_trades}, each with an equal share of the equity",
        "correlation": f"no two at once that both go with the reference above {rules.max_correlation_threshold:g}"
        if any((member.correlation == member.correlation).any() for member in result.members)
        else "not limited: without a reference it is not known",
        "sides": "long and short" if rules.allow_shorts else "long only (Settings.allow_shorts is off)",
        "capital": f"{capital} at the start, {_size_of(rules, SLOT)}",
        "settings": settings_text(rules),
        "costs": costs.pop() if len(costs) == 1 else "each symbol has its own",
    }


def share_rows(result: PortfolioResult, by: By) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of a portfolio's attribution."""
    header = (str(by), "trades", "win rate", "net P&L", "fees", "funding", "mean R")
    rows: list[tuple[str, ...]] = [
        (
            f"{key:02d}" if by == "hour" else str(key),
            f"{row['trades']:,.0f}",
            _share(row["win_rate"]),
            _money(row["pnl"]),
            _money(-row["fees"]),
            _money(row["funding"]),
            _number(row["mean_r"], "+.2f"),
        )
        for key, row in result.attribution(by).to_dict("index").items()
    ]
    return header, rows


def _money(value: float, quote: str = "") -> str:
    return "-" if not math.isfinite(value) else f"{value:+,.2f} {quote}".strip()


def _number(value: float, form: str, unit: str = "") -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return "-" if math.isnan(value) else format(value, form) + unit


def _share(value: float, form: str = ".1%") -> str:
    return "-" if not math.isfinite(value) else format(value, form)


def _with_interval(texts: list[str], unit: str = "") -> str:
    """``value (low to high) unit`` of the three, without what is not defined."""
    value, low, high = texts
    if value == "-":
        return value
    return (f"{value} {unit}" if "-" in (low, high) else f"{value} ({low} to {high}) {unit}").strip()
