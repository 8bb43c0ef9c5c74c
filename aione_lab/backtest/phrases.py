"""The words of the narrative, Ukrainian and English side by side.

A trigger's phrase takes ``value`` and ``limit`` already formatted; the second phrase is for a bar
whose numbers are not known. In Ukrainian a fraction governs the genitive singular (4,6 раза, 5,2 пункту).
"""

from __future__ import annotations

from typing import NamedTuple

from aione_lab.engine.custom import Factor, Trigger

UK, EN = "uk", "en"


class Phrase(NamedTuple):
    """One trigger in one language: with its numbers, and without them."""

    full: str
    bare: str


# (reason, feature) → how its numbers are written (decimals, percent, price), Ukrainian, English
TRIGGERS: dict[tuple[str, str], tuple[str, Phrase, Phrase]] = {
    ("VOLUME_SPIKE", "volume_z"): (
        "one",
        Phrase("сплеск обсягу (z-оцінка {value} за порога {limit})", "сплеск обсягу"),
        Phrase("a volume spike (z-score {value}, threshold {limit})", "a volume spike"),
    ),
    ("RSI_OVERSOLD", "rsi"): (
        "one",
        Phrase("RSI у зоні перепроданості ({value} за межі {limit})", "RSI у зоні перепроданості"),
        Phrase("an oversold RSI ({value}, limit {limit})", "an oversold RSI"),
    ),
    ("RSI_OVERBOUGHT", "rsi"): (
        "one",
        Phrase("RSI у зоні перекупленості ({value} за межі {limit})", "RSI у зоні перекупленості"),
        Phrase("an overbought RSI ({value}, limit {limit})", "an overbought RSI"),
    ),
    ("RSI_BULLISH_DIVERGENCE", "bullish_divergence"): (
        "one",
        Phrase("бичача дивергенція RSI ({value} пункту за порога {limit})", "бичача дивергенція RSI"),
        Phrase("a bullish RSI divergence ({value} points, threshold {limit})", "a bullish RSI divergence"),
    ),
    ("RSI_BEARISH_DIVERGENCE", "bearish_divergence"): (
        "one",
        Phrase("ведмежа дивергенція RSI ({value} пункту за порога {limit})", "ведмежа дивергенція RSI"),
        Phrase("a bearish RSI divergence ({value} points, threshold {limit})", "a bearish RSI divergence"),
    ),
    ("BREAKOUT_UP", "close"): (
        "price",
        Phrase("пробиття рівня {limit} угору", "пробиття рівня вгору"),
        Phrase("a breakout above {limit}", "a breakout upwards"),
    ),
    ("BREAKOUT_DOWN", "close"): (
        "price",
        Phrase("пробиття рівня {limit} униз", "пробиття рівня вниз"),
        Phrase("a breakout below {limit}", "a breakout downwards"),
    ),
    ("NEAR_SUPPORT", "support_distance"): (
        "two",
        Phrase("ціна біля підтримки ({value} ATR за межі {limit} ATR)", "ціна біля підтримки"),
        Phrase("a price near support ({value} ATR, limit {limit} ATR)", "a price near support"),
    ),
    ("NEAR_RESISTANCE", "resistance_distance"): (
        "two",
        Phrase("ціна біля опору ({value} ATR за межі {limit} ATR)", "ціна біля опору"),
        Phrase("a price near resistance ({value} ATR, limit {limit} ATR)", "a price near resistance"),
    ),
    ("VWAP_DEVIATION", "|vwap_dev|"): (
        "percent",
        Phrase("відхилення від VWAP ({value} за порога {limit})", "відхилення від VWAP"),
        Phrase("a deviation from VWAP ({value}, threshold {limit})", "a deviation from VWAP"),
    ),
    ("VOLATILITY_SPIKE", "range_burst"): (
        "one",
        Phrase(
            "сплеск волатильності (діапазон свічки у {value} раза ширший за середній, поріг {limit})",
            "сплеск волатильності",
        ),
        Phrase("a volatility spike (range {value} times its mean, threshold {limit})", "a volatility spike"),
    ),
    ("VOLATILITY_SPIKE", "atr_pct"): (
        "percent",
        Phrase("сплеск волатильності (ATR {value} ціни за порога {limit})", "сплеск волатильності"),
        Phrase("a volatility spike (ATR {value} of the price, threshold {limit})", "a volatility spike"),
    ),
    ("LOW_VOLATILITY", "atr_pct"): (
        "percent",
        Phrase("низька волатильність (ATR {value} ціни за порога {limit})", "низька волатильність"),
        Phrase("low volatility (ATR {value} of the price, threshold {limit})", "low volatility"),
    ),
}


def trigger_phrases(trigger: Trigger) -> tuple[str, Phrase, Phrase]:
    """An own trigger's entry of TRIGGERS: the words of its declaration, else its name."""
    plain = trigger.name.replace("_", " ").lower()
    uk = trigger.phrase.get(UK, f"{trigger.name} ({{value}} за межі {{limit}})")
    en = trigger.phrase.get(EN, f"{plain} ({{value}}, limit {{limit}})")
    return "own", Phrase(uk, trigger.name), Phrase(en, plain)


# Singular nouns all of them, because the sentence's verb is.
FACTOR_NAMES: dict[str, dict[str, str]] = {
    "volume": {UK: "обсяг", EN: "volume"},
    "rsi": {UK: "RSI", EN: "RSI"},
    "macd": {UK: "гістограма MACD", EN: "the MACD histogram"},
    "ema_cross": {UK: "різниця EMA", EN: "the EMA difference"},
    "stochastic": {UK: "стохастик", EN: "the stochastic"},
    "orderbook": {UK: "потік ринкових ордерів", EN: "taker flow"},
    "vwap": {UK: "відхилення від VWAP", EN: "the deviation from VWAP"},
    "velocity": {UK: "швидкість ціни", EN: "price velocity"},
    "volume_profile": {UK: "профіль обсягу", EN: "the volume profile"},
}


def factor_noun(name: str, factors: tuple[Factor, ...], language: str) -> str:
    """What the narrative calls a factor, built-in or one of ``factors``."""
    if name in FACTOR_NAMES:
        return FACTOR_NAMES[name][language]
    names = next(factor.names for factor in factors if factor.name == name)
    return names.get(language, name if language == UK else name.replace("_", " "))


# (reading, side) → what is argued for, Ukrainian in the genitive
READING_NAMES: dict[tuple[str, str], dict[str, str]] = {
    ("continuation", "LONG"): {UK: "продовження зростання", EN: "a continuation upwards"},
    ("reversal", "LONG"): {UK: "розвороту вгору", EN: "a reversal upwards"},
    ("continuation", "SHORT"): {UK: "продовження падіння", EN: "a continuation downwards"},
    ("reversal", "SHORT"): {UK: "розвороту вниз", EN: "a reversal downwards"},
}

TEXT: dict[str, dict[str, str]] = {
    "on": {UK: "{symbol}: ", EN: "{symbol}: "},
    "trigger": {UK: "спрацював тригер — {list}.", EN: "triggered by {list}."},
    "triggers": {UK: "спрацювали тригери — {list}.", EN: "triggered by {list}."},
    "and": {UK: " та ", EN: " and "},
    "for": {
        UK: "На користь {reading} найбільше свідчить {best} (сила {strength}).",
        EN: "The best case for {reading} comes from {best} (strength {strength}).",
    },
    "for_and_against": {
        UK: "На користь {reading} найбільше свідчить {best} (сила {strength}), а проти — {worst} (сила {weakness}).",
        EN: "The best case for {reading} comes from {best} (strength {strength}), "
        "the best case against it from {worst} (strength {weakness}).",
    },
    "against": {
        UK: "На користь {reading} не свідчить жоден чинник, а найбільше проти — {worst} (сила {weakness}).",
        EN: "No factor speaks for {reading}, and the best case against it comes from {worst} (strength {weakness}).",
    },
    "support": {
        UK: "Найближча підтримка — {price} (на {distance} ATR нижче)",
        EN: "The nearest support is {price} ({distance} ATR below)",
    },
    "no_support": {UK: "Підтримки нижче не видно", EN: "No support is known below"},
    "resistance": {
        UK: "найближчий опір — {price} (на {distance} ATR вище)",
        EN: "the nearest resistance {price} ({distance} ATR above)",
    },
    "no_resistance": {UK: "опору вище не видно", EN: "no resistance is known above"},
    "target": {UK: "стоп — {stop}, перша ціль — {target}.", EN: "the stop is {stop}, the first target {target}."},
    "no_target": {
        UK: "стоп — {stop}, для цілі перед наступним рівнем немає місця.",
        EN: "the stop is {stop}, and there is no room for a target before the next level.",
    },
}
