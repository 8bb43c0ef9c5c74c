"""Text from elsewhere, made harmless: no control characters, a bounded length. It is not escaped."""

from __future__ import annotations

import re

# Controls but for tab and line feed, marks that turn the direction of what follows, halves of surrogate pairs.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def without_controls(text: str) -> str:
    """The text without control characters and without those that turn the direction of what follows."""
    return _CONTROL.sub("", text)


def without_halves(text: str) -> str:
    """The text with a question mark for each half of a surrogate pair, which no UTF-8 can hold."""
    return str(text) if text.isascii() else text.encode("utf-8", "replace").decode()


def cut(text: str, units: int) -> str:
    """The text, or its beginning and an ellipsis where it has more than ``units`` UTF-16 units."""
    encoded = text.encode("utf-16-le")
    if len(encoded) <= 2 * units:
        return text
    return encoded[: 2 * (units - 1)].decode("utf-16-le", "ignore") + "…"
