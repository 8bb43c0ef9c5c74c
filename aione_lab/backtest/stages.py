"""Stage1 and Stage2 on their own, with dictionaries in and out: `AssetMonitorStage1`, `Stage2Processor`.

Both are thin and asynchronous; the numbers come from the kernels that replay and live use, on a
worker thread, so that the event loop stays free.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Mapping
from typing import Any

import pandas as pd

from aione_lab.backtest.decode import empty_stage2, failed_stage2, stage1_dict
from aione_lab.backtest.signal_input import AlertInput, assess_alert, read_alert, read_head, read_origin, stage2_of
from aione_lab.backtest.stateless import (
    LastBar,
    check_days,
    replay_last_bar,
)
from aione_lab.engine.params import check_kind
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.classes import DEFAULT_CLASSES, AssetClasses, thresholds_for
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import HOUR_MS, interval_ms, iso, parse_symbol

logger = logging.getLogger(__name__)

URGENT = 0.1
"""Priority with which an ALERT asks for a calibration; smaller is sooner."""
CALIBRATION_PAUSE_MS = 6 * HOUR_MS
"""A symbol's alerts ask for a calibration at most once in this time."""


class AssetMonitorStage1:
    """Stage1 of any symbol from a frame of its candles: which triggers hold on the last bar, and the signal.

    Stateless: every call replays the frame it is given, cool-down included, so the same frame gives the
    same answer. ``thresholds``: one set for every symbol, or symbol → set; without it each symbol's
    thresholds are, field by field, the calibrated ones that ``cache_handler`` holds (key
    ``thresholds:<symbol>``, namespace ``global``), else those of its asset class, else the default.
    Raises InputError for arguments that cannot be used.
    """

    def __init__(
        self,
        cache_handler: Any = None,
        thresholds: Thresholds | Mapping[str, Thresholds] | None = None,
        settings: Settings | None = None,
        spec: FeatureSpec | None = None,
        interval: str = "1m",
        classes: AssetClasses = DEFAULT_CLASSES,
    ) -> None:
        self.cache_handler = cache_handler
        self.settings = Settings() if settings is None else settings
        self.spec = FeatureSpec() if spec is None else spec
        self.interval = interval
        self.classes = classes
        check_kind("settings", self.settings, Settings)
        check_kind("spec", self.spec, FeatureSpec)
        self.spec.record(interval)  # refuses an interval that signals cannot be made from
        self._given: Thresholds | dict[str, Thresholds] = {}
        if isinstance(thresholds, Mapping):
            self._given = {parse_symbol(symbol): limits for symbol, limits in thresholds.items()}
            for symbol, limits in self._given.items():
                check_kind(f"thresholds[{symbol}]", limits, Thresholds)
        elif thresholds is not None:
            check_kind("thresholds", thresholds, Thresholds)
            self._given = thresholds
        self._days: dict[str, pd.DataFrame] = {}

    def set_global_levels(self, daily: pd.DataFrame | Mapping[str, pd.DataFrame], symbol: str | None = None) -> None:
        """Give completed days from before the candles, so that levels reach further back than the frame.

        ``daily``: one-day candles (UTC) of ``symbol``, or a mapping symbol → such a frame. It replaces what
        the symbol had; nothing is taken where a frame is refused. A check uses the last
        ``spec.level_days`` of the days that ended before its first candle; later ones are left out, with a
        hint, because the candles themselves show them. Raises InputError for a frame that is no candle frame.
        """
        if isinstance(daily, Mapping):
            if symbol is not None:
                raise InputError.of("symbol", symbol, "must be left out where daily is a mapping by symbol")
            frames = {parse_symbol(name): frame for name, frame in daily.items()}
        else:
            if symbol is None:
                raise InputError.of("symbol", symbol, "must be given with a single daily frame")
            frames = {parse_symbol(symbol): daily}
        self._days.update({name: check_days(frame, f"daily[{name}]") for name, frame in frames.items()})

    async def check_anomalies(
        self, symbol: str, df: pd.DataFrame, reference: pd.DataFrame | pd.Series | None = None
    ) -> dict[str, Any]:
        """The Stage1 dictionary of the last bar of ``df``; see ``decode.stage1_dict`` for its keys.

        ``df``: closed candles, ascending, on a UTC index or with a column ``timestamp`` (int64 ms);
        ``reference``: those of the reference symbol. Too few bars give ``"NONE"`` and a hint that says how
        many are needed; so does an empty frame, whose bar has no ``timestamp`` (None). Raises InputError for a
        symbol or a frame that cannot be one.
        """
        symbol = parse_symbol(symbol)
        thresholds, hints = await self._thresholds(symbol)
        last: LastBar = await asyncio.to_thread(
            replay_last_bar,
            df,
            reference,
            self._days.get(symbol),
            thresholds=thresholds,
            interval=self.interval,
            spec=self.spec,
            settings=self.settings,
        )
        return stage1_dict(symbol, last.row, last.signal, thresholds, [*hints, *last.hints], self.spec)

    async def _thresholds(self, symbol: str) -> tuple[Thresholds, list[str]]:
        if isinstance(self._given, Thresholds):
            return self._given, []
        if symbol in self._given:
            return self._given[symbol], []
        if self.cache_handler is None:
            return thresholds_for(symbol, None, self.classes), []
        key = f"thresholds:{symbol}"
        try:
            stored = await self.cache_handler.fetch_from_cache(key, "global")
            if isinstance(stored, bytes):
                stored = stored.decode()
            calibrated = None if stored is None else Thresholds.from_json(stored)
            return thresholds_for(symbol, calibrated, self.classes), []
        except InputError as error:
            # A signal with the defaults is worth more than none; the hint says that they are.
            logger.warning("%s: stored thresholds refused: %s", key, error)
            hint = f"stored thresholds refused, defaults used: {error}"
        except Exception:
            logger.exception("%s: the cache could not be read", key)
            hint = "the cache could not be read, default thresholds used"
        return thresholds_for(symbol, None, self.classes), [hint]


class Stage2Processor:
    """Stage2 of an ALERT that Stage1 gave: context, confidence, risk and a recommendation.

    ``settings``, ``costs`` (for the tick alone) and ``spec`` (for own triggers and factors alone) are those of the
    replay it should agree with. With a
    ``calib_queue``, an ALERT on default thresholds asks for a calibration of its symbol,
    ``put(symbol, tf, priority, is_urgent=True)``, at most once in ``CALIBRATION_PAUSE_MS``.
    """

    def __init__(
        self,
        calib_queue: Any = None,
        settings: Settings | None = None,
        *,
        costs: Costs | None = None,
        interval: str = "1m",
        classes: AssetClasses = DEFAULT_CLASSES,
        spec: FeatureSpec | None = None,
    ) -> None:
        self.calib_queue = calib_queue
        self.settings = Settings() if settings is None else settings
        self.costs = Costs() if costs is None else costs
        check_kind("settings", self.settings, Settings)
        check_kind("costs", self.costs, Costs)
        self.spec = FeatureSpec() if spec is None else spec
        check_kind("spec", self.spec, FeatureSpec)
        interval_ms(interval)
        self.interval = interval
        self.classes = classes
        self._default_counts: dict[str, int] = {}
        self._asked: dict[str, int] = {}

    async def process(self, signal: Mapping[str, Any]) -> dict[str, Any]:
        """The Stage2 dictionary of a Stage1 dictionary; never raises.

        ``stats`` has to hold ``current_price, atr, rsi, volume_z, daily_high, daily_low``; another number
        that is missing, None or NaN counts as unavailable. Without ``thresholds`` those of the symbol's
        asset class hold. Input that cannot be assessed gives ``recommendation "INVALID_DATA"`` and an
        ``error`` that names the field; a failure of our own gives ``"SYSTEM_FAILURE"`` and a log entry with
        its traceback; both carry the signal's symbol and time where these can be read. A signal that is no
        ALERT keeps confidence 0.0 and recommendation "".
        ``default_calibration_count`` counts the symbol's alerts that met default thresholds here.
        """
        started = time.perf_counter()
        symbol, moment = "", None
        try:
            symbol, moment = read_origin(signal)
            head = read_head(signal)
            if head.signal != "ALERT":
                return {**empty_stage2(symbol), "signal": head.signal, "timestamp": moment}
            alert = read_alert(signal, head, self.settings, self.costs, self.interval, self.classes, self.spec)
            found = await asyncio.to_thread(assess_alert, alert)
            result = stage2_of(alert, found, self._count_default(alert), self.spec)
            if alert.is_default:
                await self._ask_calibration(alert)
        except InputError as error:
            result = failed_stage2(symbol, moment, "INVALID_DATA", str(error))
        except Exception as error:
            logger.exception("Stage2 failed on %s", symbol or "a signal without a symbol")
            result = failed_stage2(symbol, moment, "SYSTEM_FAILURE", type(error).__name__)
        result["quality_metrics"]["processing_time_ms"] = 1000 * (time.perf_counter() - started)
        return result

    def _count_default(self, alert: AlertInput) -> int:
        count = self._default_counts.get(alert.symbol, 0) + alert.is_default
        self._default_counts[alert.symbol] = count
        return count

    async def _ask_calibration(self, alert: AlertInput) -> None:
        """Tell the queue; a queue that fails costs a log entry, not the recommendation."""
        if self.calib_queue is None:
            return
        last = self._asked.get(alert.symbol)
        if last is not None and 0 <= alert.time - last < CALIBRATION_PAUSE_MS:
            return
        self._asked[alert.symbol] = alert.time
        try:
            asked = self.calib_queue.put(alert.symbol, self.interval, URGENT, is_urgent=True)
            if inspect.isawaitable(asked):
                await asked
        except Exception:
            del self._asked[alert.symbol]
            logger.exception("%s: no calibration could be asked for at %s", alert.symbol, iso(alert.time))
