"""`FundingBook`: the funding rates that fall into bars, asked for when a bar needs one."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from aione_lab.errors import AioneError
from aione_lab.live.feed import Feed
from aione_lab.units import HOUR_MS, MINUTE_MS

_log = logging.getLogger(__name__)

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Pauses after failures in a row; after the last one the rate counts as unknown, as where a replay has none."""
AT_ONCE = 8  # requests


class FundingBook:
    """Rates by symbol and bar, as ``bars_of`` puts them there: a stamp up to half a minute off belongs to the bar.

    Only bars with a payment stamp in them are asked for; how often a symbol pays is told from its known stamps
    (``default_hours`` until there are two). ``on_known(symbol)`` is called when an answer came, ``on_late(symbol,
    bar)`` where it brought a rate of a bar that was decided already.

    An error of the lab's own that the feed raises is no answer: it is asked again, with pauses. Anything else is a
    mistake, which ``rate`` raises from then on, so that the session ends with it.
    """

    def __init__(
        self,
        feed: Feed,
        step_ms: int,
        default_hours: int,
        on_known: Callable[[str], None],
        on_late: Callable[[str, int], None],
    ) -> None:
        self._feed, self._step = feed, step_ms
        self._default = default_hours * HOUR_MS
        self._on_known, self._on_late = on_known, on_late
        self._rates: dict[str, dict[int, float]] = {}
        self._stamps: dict[str, set[int]] = {}
        self._until: dict[str, int] = {}
        self._spacing: dict[str, int] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._mistake: BaseException | None = None
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._new: list[tuple[str, int, float]] = []
        self.unknown = 0

    def start(self, symbol: str, rates: pd.Series | None, until: int, spacing_ms: int = 0) -> None:
        """All rates of ``symbol`` before ``until`` (ms) are known; ``rates`` tell how often it pays."""
        self._until[symbol], self._rates[symbol], self._stamps[symbol] = until, {}, set()
        self._spacing[symbol] = spacing_ms or self._default
        if rates is not None:
            stamps = pd.DatetimeIndex(rates.index).as_unit("ms").asi8
            self._learn(symbol, stamps[stamps < until - MINUTE_MS // 2])  # those of bars to come are asked for anew

    def spacings(self) -> dict[str, int]:
        """How often each symbol pays, ms."""
        return dict(self._spacing)

    def rate(self, symbol: str, bar: int) -> float | None:
        """The rate that falls into the bar that opens at ``bar``; NaN: none. None: not known yet, it is asked for.

        Raises what the feed raised by mistake, whichever symbol it was asked for.
        """
        if self._mistake is not None:
            raise self._mistake
        if bar + self._step <= self._until[symbol] or not self._is_due(symbol, bar):
            return self._rates[symbol].get(bar, math.nan)
        if symbol not in self._asking:
            task = asyncio.ensure_future(self._ask(symbol, bar + self._step))
            self._asking[symbol] = task
            task.add_done_callback(lambda task: self._asked(symbol, task))
        return None

    def _asked(self, symbol: str, task: asyncio.Task[None]) -> None:
        del self._asking[symbol]
        if not task.cancelled():
            self._mistake = self._mistake or task.exception()

    def taken(self, symbol: str, bar: int) -> None:
        """The bar is decided: its rate need not be kept."""
        rates = self._rates[symbol]
        for old in [time for time in rates if time <= bar]:
            del rates[old]

    def new(self) -> list[tuple[str, int, float]]:
        """(symbol, stamp, rate) that came since the last call, for the lake."""
        out, self._new = self._new, []
        return out

    async def aclose(self) -> None:
        """Ask no more."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_due(self, symbol: str, bar: int) -> bool:
        spacing = self._spacing[symbol]
        return -(-bar // spacing) * spacing < bar + self._step

    async def _ask(self, symbol: str, until: int) -> None:
        found: Mapping[int, float] = {}
        start = self._until[symbol]
        async with self._slots:
            for pause in (*PAUSES_S, None):
                try:
                    rates = await self._feed.funding(symbol, start - MINUTE_MS // 2, until)
                    stamps = pd.DatetimeIndex(rates.index).as_unit("ms").asi8
                    found = dict(zip(stamps.tolist(), rates.to_numpy(dtype=float).tolist(), strict=True))
                    break
                except AioneError as error:
                    if pause is None:
                        self.unknown += 1
                        _log.warning("%s: the funding rate is not known: %s", symbol, error)
                        break
                    await asyncio.sleep(pause)
        self._take(symbol, found, start, until)

    def _take(self, symbol: str, found: Mapping[int, float], start: int, until: int) -> None:
        known, rates = self._stamps[symbol], self._rates[symbol]
        for stamp, rate in found.items():
            if stamp in known:
                continue
            known.add(stamp)
            self._new.append((symbol, stamp, rate))
            bar = (stamp + MINUTE_MS // 2) // self._step * self._step
            if bar < start // self._step * self._step:
                self._on_late(symbol, bar)
            else:
                rates[bar] = rates[bar] + rate if bar in rates else rate
        self._learn(symbol, np.array(sorted(known), np.int64))
        self._stamps[symbol] = set(sorted(known)[-8:])
        self._until[symbol] = until
        self._on_known(symbol)

    def _learn(self, symbol: str, stamps: np.ndarray) -> None:
        self._stamps[symbol] = set(stamps[-8:].tolist())
        if len(stamps) > 1:
            apart = np.diff(stamps[-8:]) + MINUTE_MS // 2
            closest = int(apart.min()) // HOUR_MS * HOUR_MS
            if closest > 0:
                self._spacing[symbol] = math.gcd(closest, self._default)
