"""The narrative of an ALERT: one to three sentences, Ukrainian and English, from the numbers alone.

One sentence rests on the triggers, one on the factors, one on the levels, and none borrows from
another: no confidence, scenario or recommendation is mentioned, because those mix all three. So a
changed factor changes the sentence about factors and leaves the other two as they were.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from aione_lab.backtest.conditions import DEFAULT_SPEC, Condition, conditions
from aione_lab.backtest.phrases import EN, READING_NAMES, TEXT, TRIGGERS, UK, factor_noun, trigger_phrases
from aione_lab.engine.records import READINGS, SIDES
from aione_lab.engine.spec import FeatureSpec
from aione_lab.units import parse_symbol

LANGUAGES = (UK, EN)
MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"


class Sentence(NamedTuple):
    """``basis``: triggers, factors or levels; the same statement in both languages, plain text."""

    basis: str
    uk: str
    en: str


def narrate(
    symbol: str, row: Any, signal: Any, found: Any, limits: Any, rules: Any, spec: FeatureSpec = DEFAULT_SPEC
) -> dict[str, str]:
    """``{"uk": text, "en": text}`` of the alert; deterministic.

    ``row`` (FEATURES), ``signal`` (SIGNAL), ``found`` (ASSESSMENT), ``limits`` (LIMITS) and ``rules``
    (RULES) are single records; ``spec`` has the words of own triggers and factors. ``symbol`` may be "" where none
    is known; InputError for anything else that is no symbol.
    """
    parts = sentences(symbol, row, signal, found, limits, rules, spec)
    return {UK: " ".join(part.uk for part in parts), EN: " ".join(part.en for part in parts)}


def sentences(
    symbol: str, row: Any, signal: Any, found: Any, limits: Any, rules: Any, spec: FeatureSpec = DEFAULT_SPEC
) -> tuple[Sentence, ...]:
    """The sentences one by one, each with what it rests on; arguments as in ``narrate``."""
    name = parse_symbol(symbol) if symbol else ""
    decimals = price_decimals(float(found.price), float(rules.tick_size))
    parts = (
        _triggers(name, conditions(row, signal, limits, rules, spec), decimals, spec),
        _factors(found, spec),
        _levels(found, decimals),
    )
    return tuple(part for part in parts if part is not None)


def price_decimals(price: float, tick: float = 0.0) -> int:
    """Decimals that show a ``tick``, or six digits of the price where none is known; at most 12."""
    if tick > 0:
        return next((n for n in range(12) if math.isclose(tick, round(tick, n), rel_tol=1e-6)), 12)
    return min(12, max(0, 5 - math.floor(math.log10(price))))


def written(value: float, decimals: int, language: str, *, signed: bool = False) -> str:
    """``value`` as the language writes it: 103 250,5 or 103,250.5; a true minus sign; never −0."""
    value = round(value, decimals) + 0.0
    text = f"{abs(value):,.{decimals}f}"
    if language == UK:
        text = text.replace(",", SPACE).replace(".", ",")
    if value < 0:
        return MINUS + text
    return f"+{text}" if signed and value > 0 else text


def _number(value: float, kind: str, decimals: int, language: str) -> str:
    if kind == "percent":
        text = written(100 * value, 3 if abs(value) < 0.001 else 2, language)
        return f"{text}{SPACE}%" if language == UK else f"{text}%"
    if kind == "own":  # a count, or three digits of whatever it is
        decimals = 0 if value == round(value) else min(12, max(0, 2 - math.floor(math.log10(abs(value)))))
    return written(value, {"one": 1, "two": 2}.get(kind, decimals), language)


def _triggers(symbol: str, held: tuple[Condition, ...], decimals: int, spec: FeatureSpec) -> Sentence | None:
    if not held:
        return None
    own = {(trigger.name, trigger.columns[0]): trigger_phrases(trigger) for trigger in spec.triggers}
    texts = {}
    for i, language in enumerate(LANGUAGES):
        named = []
        for condition in held:
            key = condition.reason, condition.feature
            kind, *phrases = TRIGGERS[key] if key in TRIGGERS else own[key]
            if math.isnan(condition.value) or math.isnan(condition.limit):
                named.append(phrases[i].bare)
                continue
            value = _number(condition.value, kind, decimals, language)
            limit = _number(condition.limit, kind, decimals, language)
            named.append(phrases[i].full.format(value=value, limit=limit))
        pattern = TEXT["trigger" if len(named) == 1 else "triggers"][language]
        where = TEXT["on"][language].format(symbol=symbol) if symbol else ""
        text = where + pattern.format(list=_joined(named, language))
        texts[language] = text[0].upper() + text[1:]
    return Sentence("triggers", **texts)


def _joined(named: list[str], language: str) -> str:
    if len(named) == 1:
        return named[0]
    return ", ".join(named[:-1]) + TEXT["and"][language] + named[-1]


def _factors(found: Any, spec: FeatureSpec) -> Sentence | None:
    """The factors that contribute most for and most against; of equals the first. None: nothing speaks."""
    names = spec.factor_names
    shares = [float(share) for share in found.contributions[: len(names)]]
    best = max(range(len(names)), key=lambda i: (shares[i], -i))
    worst = min(range(len(names)), key=lambda i: (shares[i], i))
    if shares[best] > 0:
        pattern = "for_and_against" if shares[worst] < 0 else "for"
    elif shares[worst] < 0:
        pattern = "against"
    else:
        return None
    reading = READING_NAMES[READINGS[int(found.reading)], SIDES[int(found.side)]]
    texts = {
        language: TEXT[pattern][language].format(
            reading=reading[language],
            best=factor_noun(names[best], spec.factors, language),
            worst=factor_noun(names[worst], spec.factors, language),
            strength=written(float(found.strengths[best]), 2, language, signed=True),
            weakness=written(float(found.strengths[worst]), 2, language, signed=True),
        )
        for language in LANGUAGES
    }
    return Sentence("factors", **texts)


def _levels(found: Any, decimals: int) -> Sentence:
    price, atr = float(found.price), float(found.atr)
    texts = {}
    for language in LANGUAGES:
        parts = []
        for name, level in (("support", float(found.support)), ("resistance", float(found.resistance))):
            if math.isnan(level):
                parts.append(TEXT[f"no_{name}"][language])
                continue
            distance = written(abs(price - level) / atr, 1, language)
            parts.append(TEXT[name][language].format(price=written(level, decimals, language), distance=distance))
        target = float(found.targets[0])
        risk = TEXT["no_target" if math.isnan(target) else "target"][language].format(
            stop=written(float(found.stop), decimals, language),
            target="" if math.isnan(target) else written(target, decimals, language),
        )
        texts[language] = f"{parts[0]}, {parts[1]}; {risk}"
    return Sentence("levels", **texts)
