"""`Limits`: where a session's thresholds come from, and when they are others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from aione_lab.engine.params import check_kind, limits_record
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import AioneError, InputError
from aione_lab.live.asset_state import plain
from aione_lab.thresholds.classes import thresholds_for
from aione_lab.thresholds.params import Thresholds
from aione_lab.thresholds.store import ThresholdStore
from aione_lab.units import parse_symbol

_log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Seconds between two looks into the store: a promotion is in force on the bar after the next look."""


class Limits:
    """The thresholds of ``symbols`` as given: a store, sets by symbol, one set for all, or None (asset classes)."""

    def __init__(self, given: Any, symbols: tuple[str, ...], interval: str, spec: FeatureSpec) -> None:
        self._symbols, self._interval, self._spec = symbols, interval, spec
        self._store = given if isinstance(given, ThresholdStore) else None
        self._given: dict[str, Thresholds] = {}
        self.last: dict[str, Thresholds] = {}  # as they were read last
        self.problems: dict[str, str] = {}
        if isinstance(given, Thresholds):
            self._given = dict.fromkeys(symbols, given)
        elif isinstance(given, Mapping):
            for symbol, limits in given.items():
                name = parse_symbol(symbol, "thresholds")
                check_kind(f"thresholds[{name}]", limits, Thresholds)
                self._given[name] = limits
        elif given is not None and self._store is None:
            raise InputError.of("thresholds", given, "must be a ThresholdStore, Thresholds, or symbol → Thresholds")
        for limits in self._given.values():
            self.check(limits)

    def check(self, thresholds: Thresholds) -> None:
        """InputError for a set that the session cannot use: an own trigger it does not have, a meta beyond JSON."""
        limits_record(thresholds, self._spec)
        plain("thresholds", thresholds.every_field())

    @property
    def follows(self) -> bool:
        """Whether the thresholds may change by themselves."""
        return self._store is not None

    def read(self) -> dict[str, Thresholds]:
        """The thresholds to use now. What the store cannot tell stays out (``problems``): what holds goes on."""
        out = {}
        for name in self._symbols:
            try:
                out[name] = self._given[name] if name in self._given else self._current(name)
                self.problems.pop(name, None)
                self.last[name] = out[name]
            except AioneError as error:
                if self.problems.get(name) != str(error):
                    _log.warning("%s: the stored thresholds are not used: %s", name, error)
                self.problems[name] = str(error)
        return out

    def read_all(self) -> dict[str, Thresholds]:
        """The same for a beginning: where the store cannot tell, the asset class decides."""
        found = self.read()
        return {name: found[name] if name in found else thresholds_for(name) for name in self._symbols}

    def accepted(self, symbol: str, thresholds: Thresholds) -> Thresholds:
        """The set to use after a calibration of ``symbol`` was accepted as ``thresholds``."""
        if self._store is not None:
            return self._current(symbol)
        self._given[symbol] = thresholds_for(symbol, thresholds)
        return self._given[symbol]

    def _current(self, name: str) -> Thresholds:
        if self._store is None:
            return thresholds_for(name)
        found = self._store.current(name, interval=self._interval).thresholds
        self.check(found)
        return found

    def news(self) -> dict[str, Thresholds]:
        """``read``, but only what is another set than it was the last time."""
        before = dict(self.last)
        return {
            name: limits
            for name, limits in self.read().items()
            if limits != before.get(name) or limits.meta != before[name].meta
        }

    async def follow(self, put: Callable[[str, Thresholds], None]) -> None:
        """Look into the store every LOOK_S seconds, for good, and pass on what is new."""
        while self._store is not None:
            await asyncio.sleep(LOOK_S)
            for name, limits in (await asyncio.to_thread(self.news)).items():
                put(name, limits)
