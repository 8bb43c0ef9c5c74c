"""One row of the live table: what is shown of an asset's state. The state is untrusted and may lack anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

LONGEST = 300  # characters of a text in a cell


class Cells(NamedTuple):
    """A row by kind: ``numbers`` in the order of NUMBERS (NaN: not known), ``texts`` in that of TEXTS."""

    numbers: tuple[float, ...]
    texts: tuple[str, ...]


NUMBERS = ("confidence", "price", "atr_percent", "volume", "rsi", "tp", "sl")
TEXTS = ("signal", "recommendation", "state", "calibration", "reasons")


def cells_of(asset: Mapping[str, Any]) -> Cells:
    """The row of an asset's state: ``atr_percent`` is 100 × ATR/close, prices are quote currency."""
    stats = asset.get("stats")
    stats = stats if isinstance(stats, Mapping) else {}
    price, atr = number(stats.get("current_price")), number(stats.get("atr"))
    reasons = asset.get("trigger_reasons")
    return Cells(
        (
            number(asset.get("confidence")),
            price,
            100.0 * atr / price if price > 0 else math.nan,
            number(stats.get("volume")),
            number(stats.get("rsi")),
            number(asset.get("tp")),
            number(asset.get("sl")),
        ),
        (
            text(asset.get("signal")),
            text(asset.get("recommendation")),
            text(asset.get("state")),
            text(asset.get("calib_status")),
            text(", ".join(map(str, reasons)) if isinstance(reasons, (list, tuple)) else reasons),
        ),
    )


def number(value: Any) -> float:
    """``value`` as a finite float, NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        found = float(value)
    except OverflowError:  # an integer beyond all floats
        return math.nan
    return found if math.isfinite(found) else math.nan


def text(value: Any, longest: int = LONGEST) -> str:
    """``value`` as one line of text, cut where it is too long; "" for None."""
    line = "" if value is None else " ".join(str(value).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
