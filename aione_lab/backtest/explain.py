"""`Explanation`: everything behind one bar's signal, as values, text or HTML."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from aione_lab.backtest.conditions import DEFAULT_SPEC, Condition, conditions
from aione_lab.backtest.decode import context_dict, factor_lines, flags_dict, number, risk_dict, single, told_trade
from aione_lab.backtest.narrative import narrate
from aione_lab.engine.records import DETAILS, READINGS, RECOMMENDATIONS, SIDES, SIGNALS, SUPPRESSED
from aione_lab.engine.spec import FeatureSpec
from aione_lab.engine.stage1 import count_reasons
from aione_lab.units import iso, parse_symbol

HELD_BACK = {
    "low_volatility": "held back: ATR/close {atr_pct:.6g} below its gate {low_gate:.6g}, or 1 h ATR/close "
    "{hour_atr_pct:.6g} below {min_atr_percent:.6g}",
    "volume": "held back: 1 h quote volume {hour_quote_volume:,.0f} below {min_volume_usd:,.0f}",
    "hour": "held back: the UTC hour is excluded",
    "cooldown": "held back: less than {cooldown:g} s after the last alert",
}

NEEDS = {"orderbook": "needs taker_buy_volume in the candles"}
"""What a factor lacks when it is not available."""

LEFT = '"text-align:left"'
"""Notebooks set cells to the right, which is wrong for sentences."""

DECIDED = {
    "all_gates_met": "confidence {confidence:.3f} ≥ {min_confidence:g}, risk/reward {risk_reward:.2f} ≥ "
    "{min_risk_reward:g} and room {room:.2f} ≥ {atr_target:g} ATR",
    "manipulation": "volume without a move is suspect",
    "liquidity": "1 h quote volume {hour_quote_volume:,.0f} below {low_liquidity_usd:,.0f}",
    "weak_score": "confidence {confidence:.3f} below {watch_confidence:g}",
    "risk_reward": "risk/reward {risk_reward:.2f} below {min_risk_reward:g}",
    "room": "room {room:.2f} below {atr_target:g} ATR to the nearest opposing level",
    "confidence": "confidence {confidence:.3f} below {min_confidence:g}",
}


@dataclass(frozen=True)
class FactorLine:
    """One factor; ``strength`` None where it was not available (its contribution is then 0)."""

    name: str
    strength: float | None
    weight: float
    contribution: float


@dataclass(frozen=True)
class Step:
    """One step from the score to the confidence, and the value after it."""

    name: str
    value: float


@dataclass(frozen=True)
class Explanation:
    """Why a bar got its signal; from ``recommendation`` on only an ALERT has something to say.

    ``triggers`` lists what held, with value and limit; ``factors`` add up to ``score`` exactly;
    ``steps`` lead from the score to ``confidence``; ``rule`` says what decided. ``trade`` is the trade
    that this bar's decision opened, ``no_trade`` why a BUY or SELL has none. Prices are quote currency, distances ATRs.
    """

    symbol: str
    time: str
    signal: str
    suppressed: str
    rule: str
    triggers: tuple[Condition, ...]
    recommendation: str = ""
    detail: str = ""
    side: str = ""
    reading: str = ""
    score: float | None = None
    coverage: float | None = None
    confidence: float = 0.0
    factors: tuple[FactorLine, ...] = ()
    steps: tuple[Step, ...] = ()
    context: dict[str, Any] | None = None
    flags: tuple[str, ...] = ()
    risk: dict[str, Any] | None = None
    narrative: dict[str, str] | None = None
    trade: dict[str, Any] | None = None
    no_trade: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form: plain values, None for what is not known."""
        values = asdict(self)
        values["triggers"] = [
            {**trigger._asdict(), "value": number(trigger.value), "limit": number(trigger.limit)}
            for trigger in self.triggers
        ]
        for name in ("factors", "steps", "flags"):
            values[name] = list(values[name])
        if self.trade is not None:
            values["trade"] = {k: number(v) if isinstance(v, float) else v for k, v in self.trade.items()}
        return values

    def __repr__(self) -> str:
        said = f", {self.recommendation}, confidence {self.confidence:.3f}" if self.recommendation else ""
        return f"Explanation({self.symbol or 'candles'} {self.time}, {self.signal}{said})"

    def __str__(self) -> str:
        lines: list[str] = []
        for title, rows in self._sections():
            lines += ["", title] if lines else [title]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for row in rows:
                cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                lines.append("  " + "  ".join(cells).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = []
        for title, rows in self._sections():
            cells = ("".join(f"<td style={LEFT}>{escape(cell)}</td>" for cell in row) for row in rows)
            body = "".join(f"<tr>{row}</tr>" for row in cells)
            parts.append(f"<h4>{escape(title)}</h4><table>{body}</table>")
        return "<div>" + "".join(parts) + "</div>"

    def _sections(self) -> list[tuple[str, list[tuple[str, ...]]]]:
        """(title, rows of text): the one layout of terminal and notebook."""
        head = f"{self.symbol} {self.time}: {self.signal}".strip()
        if self.recommendation:
            head += f", {self.recommendation}, confidence {self.confidence:.3f}"
        sections: list[tuple[str, list[tuple[str, ...]]]] = [(head, [(self.rule,)])]
        if self.triggers:
            rows: list[tuple[str, ...]] = [
                (held.reason, held.feature, f"{held.value:.6g}", f"{held.relation} {held.limit:.6g}")
                for held in self.triggers
            ]
            sections.append(("Triggers", rows))
        if self.factors:
            shown = [
                (factor.name, _signed(factor), f"{factor.weight:.2f}", f"{factor.contribution:+.4f}")
                for factor in self.factors
            ]
            total = ("sum", "", "", f"{self.score:+.4f}")
            title = f"Factors for a {self.side.lower()} {self.reading} (coverage {self.coverage:.2f})"
            sections.append((title, [("factor", "strength", "weight", "contribution"), *shown, total]))
            sections.append(("Confidence", [(step.name, f"{step.value:.4f}") for step in self.steps]))
        if self.context and self.risk:
            sections.append(("Context and levels", _context_rows(self.context, self.flags)))
            sections.append(("Risk", _risk_rows(self.risk)))
        if self.narrative:
            texts = sorted(self.narrative.items())  # English first
            sections.append(("Narrative", [(f"({language})", text) for language, text in texts]))
        if self.trade:
            sections.append(("Trade", _trade_rows(self.trade)))
        elif self.no_trade:
            sections.append(("Trade", [(self.no_trade,)]))
        return sections


def explain(
    symbol: str,
    features_row: Any,
    signal_record: Any,
    assessment_record: Any | None,
    params_record: Any,
    trade: Any | None = None,
    no_trade: str = "",
    spec: FeatureSpec = DEFAULT_SPEC,
) -> Explanation:
    """Put the records of one bar into words.

    ``features_row`` (FEATURES), ``signal_record`` (SIGNAL), ``assessment_record`` (ASSESSMENT, None where
    the bar is no ALERT), ``params_record`` (PARAMS in force on the bar) and ``trade`` (TRADE that the bar's
    decision opened, or None) are single records or arrays of one; ``no_trade`` says why there is none where
    one was recommended. ``symbol`` may be ""; ``spec`` names own triggers and factors.
    """
    row, signal, params = single(features_row), single(signal_record), single(params_record)
    limits, rules = params.limits, params.rules
    symbol = parse_symbol(symbol) if symbol else ""
    name = SIGNALS[int(signal.signal)]
    common: dict[str, Any] = {
        "symbol": symbol,
        "time": iso(int(signal.timestamp)),
        "signal": name,
        "suppressed": SUPPRESSED[int(signal.suppressed)],
        "triggers": conditions(row, signal, limits, rules, spec),
    }
    if assessment_record is None:
        return Explanation(rule=_why_no_alert(name, row, signal, limits, rules), **common)
    found = single(assessment_record)
    detail = DETAILS[int(found.detail)]
    return Explanation(
        **common,
        rule=_rule(detail, row, found, limits, rules),
        recommendation=RECOMMENDATIONS[int(found.recommendation)],
        detail=detail,
        side=SIDES[int(found.side)],
        reading=READINGS[int(found.reading)],
        score=float(found.score),
        coverage=float(found.coverage),
        confidence=float(found.confidence),
        factors=tuple(FactorLine(factor, *line) for factor, line in factor_lines(found, rules, spec.factor_names)),
        steps=confidence_steps(found),
        context=context_dict(symbol, found),
        flags=tuple(flag for flag, up in flags_dict(found).items() if up),
        risk=risk_dict(found),
        narrative=narrate(symbol, row, signal, found, limits, rules, spec),
        trade=None if trade is None else told_trade(single(trade)),
        no_trade=no_trade,
    )


def confidence_steps(found: Any) -> tuple[Step, ...]:
    """From score to confidence: what the kernel's rule did with this ASSESSMENT, step by step.

    The last value is ``found.confidence`` to the last bit.
    """
    steps = [Step("score", float(found.score))]
    if found.score < 0.0:
        steps.append(Step("not below zero", 0.0))
    value = float(found.lifted)
    if found.clustered == 1:
        steps.append(Step(f"{int(found.confirmed)} factors confirm", value))
    for reason, factor in (("high volatility", found.volatile_factor), ("against the market", found.market_factor)):
        if factor != 1.0:
            value *= float(factor)
            steps.append(Step(f"{reason} × {float(factor):g}", value))
    return tuple(steps)


def _rule(detail: str, row: Any, found: Any, limits: Any, rules: Any) -> str:
    return DECIDED[detail].format(
        confidence=float(found.confidence),
        risk_reward=float(found.risk_reward),
        room=float(found.room),
        hour_quote_volume=float(row.hour_quote_volume),
        min_confidence=float(limits.min_confidence),
        atr_target=float(limits.atr_target),
        min_risk_reward=float(rules.min_risk_reward),
        low_liquidity_usd=float(rules.low_liquidity_usd),
        watch_confidence=float(rules.watch_confidence),
    )


def _why_no_alert(name: str, row: Any, signal: Any, limits: Any, rules: Any) -> str:
    if name == "NONE":
        return "warming up" if row.warm != 1.0 else "nothing trades: no ATR or no volume z-score"
    counted = int(count_reasons(int(signal.reasons)))
    needed = int(limits.min_reasons_for_alert)
    if counted < needed:
        return f"{counted} of the {needed} reasons that an alert needs"
    return HELD_BACK[SUPPRESSED[int(signal.suppressed)]].format(
        atr_pct=float(row.atr_pct),
        low_gate=float(signal.low_gate),
        hour_atr_pct=float(row.hour_atr_pct),
        hour_quote_volume=float(row.hour_quote_volume),
        min_atr_percent=float(rules.min_atr_percent),
        min_volume_usd=float(rules.min_volume_usd),
        cooldown=int(rules.cooldown_ms) / 1000,
    )


def _signed(factor: FactorLine) -> str:
    if factor.strength is not None:
        return f"{factor.strength:+.3f}"
    return "not available" + (f" ({NEEDS[factor.name]})" if factor.name in NEEDS else "")


def _price(value: float | None) -> str:
    return "none known" if value is None else f"{value:.8g}"


def _context_rows(context: dict[str, Any], flags: tuple[str, ...]) -> list[tuple[str, ...]]:
    correlation = context["correlation_with_btc"]
    levels = context["key_levels"]
    return [
        ("scenario", context["scenario"]),
        ("trend", context["trend"]),
        ("volatility", context["volatility"]),
        ("correlation", "not known" if correlation is None else f"{correlation:.2f}"),
        ("flags", ", ".join(flags) or "none"),
        ("support", _price(levels["immediate_support"])),
        ("resistance", _price(levels["immediate_resistance"])),
        ("next major level", _price(levels["next_major_level"])),
    ]


def _risk_rows(risk: dict[str, Any]) -> list[tuple[str, ...]]:
    room = risk["room_atr"]
    return [
        ("stop", _price(risk["sl_level"])),
        ("targets", ", ".join(map(_price, risk["tp_targets"])) or "no room for one"),
        ("entry", " to ".join(map(_price, risk["optimal_entry"]))),
        ("risk/reward", f"{risk['risk_reward_ratio']:.2f}"),
        ("room", "no opposing level known" if room is None else f"{room:.2f} ATR"),
    ]


def _trade_rows(trade: dict[str, Any]) -> list[tuple[str, ...]]:
    funding = trade["funding"]
    return [
        ("entry", f"{trade['entry_time']} at {_price(trade['entry_price'])}, {trade['side']}"),
        ("exit", f"{trade['exit_time']} at {_price(trade['exit_price'])}, {trade['exit_reason']}"),
        ("P&L", f"{trade['pnl']:+.2f} ({trade['r_multiple']:+.2f} R), fees {trade['fees']:.2f}"),
        ("funding", "not known" if math.isnan(funding) else f"{funding:+.4f}"),
    ]
