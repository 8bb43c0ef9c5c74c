"""`Event`: what one pushed candle gave, with the names that replay's frames use."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from aione_lab.engine.records import (
    EXITS,
    OUT,
    REASONS,
    RECOMMENDATIONS,
    SIDES,
    SIGNALS,
    SUPPRESSED,
    TRADE,
)
from aione_lab.engine.spec import FeatureSpec

_NUMBERS = ("low_gate", "high_gate", "vwap_threshold", "vol_z_threshold", "equity")
_DEFAULT = FeatureSpec()


@lru_cache(maxsize=65_536)
def decode_mask(mask: int, names: tuple[str, ...] = REASONS) -> tuple[str, ...]:
    """Names of the reasons in a Stage1 bit mask, in their fixed order; ``names``: ``spec.reasons``."""
    return tuple(name for i, name in enumerate(names) if mask >> i & 1)


class Event:
    """One bar's outcome. Numeric records behind it equal replay's byte for byte.

    ``signal_record`` (SIGNAL), ``feature_record`` (``spec.row_dtype``), ``assessment_record`` (ASSESSMENT, or None
    where the bar is no ALERT) and ``trade_records`` (TRADE arrays, 0 or 1 long) are the numbers; the
    other attributes are their readable forms.
    """

    __slots__ = ("__dict__", "_raw", "_spec", "symbol")

    def __init__(self, symbol: str, raw: np.ndarray, spec: FeatureSpec = _DEFAULT) -> None:
        """``raw``: the bytes (uint8) of one OUT record, owned by this event; ``spec`` has the names."""
        self.symbol = symbol
        self._raw = raw
        self._spec = spec

    @cached_property
    def _out(self) -> np.ndarray:
        return self._raw.view(OUT)

    @property
    def signal_record(self) -> np.ndarray:
        return self._out["signal"]

    @property
    def feature_record(self) -> np.ndarray:
        dtype = self._spec.row_dtype
        return self._raw[: dtype.itemsize].view(dtype)

    @property
    def assessment_record(self) -> np.ndarray | None:
        return self._out["assessment"] if self.signal == "ALERT" else None

    @property
    def trade_records(self) -> np.ndarray:
        return self._out["trade"][: int(self._out["trades"][0])]

    @cached_property
    def timestamp(self) -> int:
        """Open time of the bar, UTC ms."""
        return int(self._out["signal"]["timestamp"][0])

    @cached_property
    def signal(self) -> str:
        return SIGNALS[self._out["signal"]["signal"][0]]

    @cached_property
    def trigger_reasons(self) -> tuple[str, ...]:
        return decode_mask(int(self._out["signal"]["reasons"][0]), self._spec.reasons)

    @cached_property
    def suppressed(self) -> str:
        """Why an alert was held back: low_volatility, volume, hour or cooldown; '' where it was not."""
        return SUPPRESSED[self._out["signal"]["suppressed"][0]]

    @cached_property
    def confidence(self) -> float:
        return float(self._out["signal"]["confidence"][0])

    @cached_property
    def recommendation(self) -> str:
        return RECOMMENDATIONS[self._out["signal"]["recommendation"][0]]

    @cached_property
    def side(self) -> str:
        """LONG or SHORT on an ALERT, else ''."""
        return SIDES[int(self._out["signal"]["side"][0])]

    @cached_property
    def position(self) -> int:
        """Side held at the close: 1, −1 or 0."""
        return int(self._out["signal"]["position"][0])

    @cached_property
    def entry(self) -> dict[str, Any] | None:
        """The fill of an order in this bar: side and price; None where nothing was entered."""
        if not self._out["entered"][0]:
            return None
        return {"side": SIDES[int(self._out["entered"][0])], "price": float(self._out["entry_price"][0])}

    @cached_property
    def partial(self) -> dict[str, float] | None:
        """What targets closed in this bar of a trade that is still open: quantity and price; None: nothing."""
        if not self._out["partial"][0]:
            return None
        return {"quantity": float(self._out["partial"][0]), "price": float(self._out["partial_price"][0])}

    def __getattr__(self, name: str) -> float:
        """The numbers of ``result.signals`` by name: low_gate, high_gate, …, equity."""
        if name in _NUMBERS:
            return float(self._out["signal"][name][0])
        raise AttributeError(f"Event has no attribute {name!r}")

    @cached_property
    def features(self) -> dict[str, float]:
        return dict(zip(self._spec.feature_names, self.feature_record[0].item(), strict=True))

    @cached_property
    def trades(self) -> tuple[dict[str, Any], ...]:
        """Trades that this bar closed, with the field names of ``result.trades``."""
        return tuple(trade_dict(record) for record in self.trade_records)

    def __repr__(self) -> str:
        return f"Event({self.symbol}, {self.timestamp}, {self.signal}, {self.trigger_reasons}, {self.recommendation!r})"


def trade_dict(record: np.ndarray) -> dict[str, Any]:
    """A TRADE record as a dictionary with the names of ``result.trades``; what is not known is NaN."""
    record = record.reshape(-1)[0] if isinstance(record, np.ndarray) else record
    skipped = ("side", "exit_reason", "ambiguous", "resolved", "targets")
    names = [name for name in TRADE.names or () if name not in skipped and not name.startswith("exit_")]
    values: dict[str, Any] = {name: record[name].item() for name in names}
    values["exit_time"], values["exit_price"] = int(record["exit_time"]), float(record["exit_price"])
    if values["funding_missing"]:
        values["funding"] = float("nan")
    values["target"] = float(record["targets"][0])
    values["side"] = SIDES[int(record["side"])]
    values["exit_reason"] = EXITS[int(record["exit_reason"])]
    values["ambiguous"], values["resolved"] = bool(record["ambiguous"]), bool(record["resolved"])
    return values
