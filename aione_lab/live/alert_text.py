"""`Alert`: one signal as it goes to people, and how it reads in Telegram."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aione_lab.backtest.narrative import price_decimals, written
from aione_lab.backtest.phrases import EN, UK
from aione_lab.errors import InputError
from aione_lab.live.plain_text import cut, without_controls
from aione_lab.research.arguments import finite
from aione_lab.settings import ReadOnly
from aione_lab.units import interval_ms, iso, parse_symbol, to_ms

LEVELS = (
    "price", "stop", "target_1", "target_2", "target_3", "entry_low", "entry_high", "support", "resistance",
)  # fmt: skip
LONGEST_NARRATIVE = 2_500  # UTF-16 units of Telegram's 4,096
LONGEST_LINK = 500

_OF_STAGE2 = ("symbol", "timestamp", "signal", "recommendation", "confidence", "trigger_reasons")  # taken as they are
_WORDS = {
    "confidence": {UK: "впевненість", EN: "confidence"},
    "price": {UK: "Ціна", EN: "Price"},
    "stop": {UK: "стоп", EN: "stop"},
    "targets": {UK: "цілі", EN: "targets"},
    "entry": {UK: "Вхід", EN: "Entry"},
    "reasons": {UK: "Причини", EN: "Reasons"},
    "chart": {UK: "Графік", EN: "Chart"},
    "repeated": {UK: "повторно, після перезапуску", EN: "repeated, after a restart"},
    "second_look": {UK: "повторна оцінка після калібрування", EN: "second look, after a calibration"},
}


@dataclass(frozen=True, slots=True)
class Alert:
    """One signal for people. ``timestamp``: open of its bar, UTC ms; ``levels``: prices that are known, by LEVELS.

    ``second_look``: Stage2 looked again after a calibration, a new event; ``repeated``: it was delivered before.
    Texts are plain text. InputError for what cannot be used.
    """

    symbol: str
    timestamp: int
    signal: str = "ALERT"
    recommendation: str = ""
    confidence: float = 0.0
    trigger_reasons: tuple[str, ...] = ()
    narrative_uk: str = ""
    narrative_en: str = ""
    levels: Mapping[str, float] = field(default_factory=dict)
    interval: str = "1m"
    link: str = ""
    second_look: bool = False
    repeated: bool = False

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("symbol", parse_symbol(self.symbol))
        put("timestamp", to_ms(self.timestamp, "timestamp"))
        put("confidence", finite("confidence", self.confidence))
        interval_ms(self.interval)
        for name in ("signal", "recommendation", "narrative_uk", "narrative_en", "link"):
            if not isinstance(getattr(self, name), str):
                raise InputError.of(name, getattr(self, name), "must be a text")
        reasons: Any = self.trigger_reasons
        if not isinstance(reasons, (list, tuple)) or not all(isinstance(name, str) for name in reasons):
            raise InputError.of("trigger_reasons", reasons, "must be several texts")
        put("trigger_reasons", tuple(reasons))
        if self.link and not re.fullmatch(rf"https?://[\x21-\x7e]{{1,{LONGEST_LINK}}}", self.link):
            raise InputError.of("link", self.link, "must be an http address, special characters %-encoded")
        if not isinstance(self.levels, Mapping):
            raise InputError.of("levels", self.levels, "must be a mapping from names to prices")
        for name in self.levels:
            if name not in LEVELS:
                raise InputError.unknown("level", name, LEVELS)
        put("levels", ReadOnly({name: finite(name, price) for name, price in self.levels.items()}))

    @classmethod
    def from_stage2(
        cls, stage2: Mapping[str, Any], *, interval: str = "1m", link: str = "", second_look: bool = False
    ) -> Self:
        """The alert of a Stage2 dictionary; ``link``: where its chart is, "" for nowhere."""
        try:
            values = {name: stage2[name] for name in _OF_STAGE2}
            values |= {"narrative_uk": stage2["narrative"][UK], "narrative_en": stage2["narrative"][EN]}
            levels = _levels(stage2["risk_parameters"], stage2["market_context"])
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InputError.of("stage2", stage2, "must be a Stage2 dictionary") from None
        return cls(**values, levels=levels, interval=interval, link=link, second_look=second_look)

    def to_json(self) -> dict[str, Any]:
        """The alert as a JSON object, with ``time`` as ISO text beside the ``timestamp``."""
        values = {name.name: getattr(self, name.name) for name in dataclasses.fields(self)}
        return {**values, "levels": dict(self.levels), "time": iso(self.timestamp)}


def _levels(risk: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """The prices that ``risk_parameters`` and ``market_context`` of a Stage2 dictionary know."""
    low, high = risk.get("optimal_entry") or (None, None)
    near = context.get("key_levels") or {}
    found = {
        "price": high,  # the entry zone ends at the price
        "stop": risk.get("sl_level"),
        **{f"target_{number}": price for number, price in enumerate(risk.get("tp_targets") or (), 1)},
        "entry_low": low,
        "entry_high": high,
        "support": near.get("immediate_support"),
        "resistance": near.get("immediate_resistance"),
    }
    return {name: price for name, price in found.items() if price is not None}


def telegram_html(alert: Alert, language: str = UK) -> str:
    """The alert as Telegram's HTML, every text in it escaped, within the 4,096 characters of a message."""

    def word(name: str) -> str:
        return _WORDS[name][language]

    time = iso(alert.timestamp)[:16].replace("T", " ")
    confidence = written(alert.confidence, 2, language)
    kind = _safe(alert.recommendation or alert.signal, 60)
    lines = [
        f"<b>{kind} {alert.symbol}</b> {alert.interval} · {word('confidence')} {confidence}",
        f"{time} UTC",
        *(f"<i>{word(name)}</i>" for name in ("repeated", "second_look") if getattr(alert, name)),
        *_level_lines(alert, language, word),
    ]
    if alert.trigger_reasons:
        lines.append(f"{word('reasons')}: {_safe(', '.join(alert.trigger_reasons), 500)}")
    narrative = alert.narrative_uk if language == UK else alert.narrative_en
    if narrative:
        lines.append(_safe(narrative, LONGEST_NARRATIVE))
    if alert.link:
        lines.append(f'<a href="{html.escape(alert.link)}">{word("chart")}</a>')
    return "\n".join(lines)


def _level_lines(alert: Alert, language: str, word: Any) -> list[str]:
    prices = {name: price for name, price in alert.levels.items() if price > 0}
    if not prices:
        return []
    decimals = price_decimals(prices.get("price", min(prices.values())))
    shown = {name: written(price, decimals, language) for name, price in prices.items()}
    parts = [f"{word(name)} {shown[name]}" for name in ("price", "stop") if name in shown]
    targets = [shown[name] for name in ("target_1", "target_2", "target_3") if name in shown]
    if targets:
        parts.append(f"{word('targets')} {' / '.join(targets)}")
    lines = [" · ".join(parts)] if parts else []
    if "entry_low" in shown and "entry_high" in shown:
        lines.append(f"{word('entry')} {shown['entry_low']} – {shown['entry_high']}")
    return lines


def _safe(text: str, units: int) -> str:
    """Escaped plain text of at most ``units`` UTF-16 units before escaping, which is how Telegram counts."""
    return html.escape(cut(without_controls(text), units))
