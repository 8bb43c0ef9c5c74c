"""`BarClose`: the close of a bar. All candles that are there in one engine call, then what follows from it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aione_lab.backtest.signal_input import is_calibrated
from aione_lab.calibration.queue_order import COMPLETED, ERROR, EXPIRED, PENDING
from aione_lab.engine.records import BAR, FEATURE_NAMES, TRADE
from aione_lab.errors import AioneError, InputError
from aione_lab.live.alert_text import Alert
from aione_lab.live.asset_state import FAILURES, LONGEST_TEXT, stage2_fields
from aione_lab.live.decisions import ALERT
from aione_lab.live.feed import Candle
from aione_lab.live.gate import Ready
from aione_lab.live.journal import BarRows
from aione_lab.live.recent import SHOWN
from aione_lab.thresholds.params import Thresholds

if TYPE_CHECKING:
    from aione_lab.live.session import Session

_log = logging.getLogger(__name__)

PATIENCE_S = 1.0
"""Seconds that the candles of a bar wait for those of other symbols, so that one call takes them all."""
FRESH_BARS = 5
"""Alerts of older bars (a session that catches up) are kept and published, but nobody is called."""

SHOWN_PLACES = [FEATURE_NAMES.index(name) for name in SHOWN]


class BarClose:
    """Decides the bars of a session as they become complete."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._newest = 0  # bar of the newest candle that was taken
        self._timer: asyncio.TimerHandle | None = None
        self._failed = asyncio.Event()
        self.broken_off = False  # a bar is half followed up: what is known is not what a restart may go on from
        self._failure: Exception | None = None
        self.decided = 0
        self.lag_s: float | None = None
        self.broken: dict[str, str] = {}

    # --- when --------------------------------------------------------------------------------------------------------

    def take(self, candle: Candle, now: float) -> bool:
        """Take a candle; decide when its bar is complete, when the next one begins, or soon. Whether it decided."""
        gate, began = self._session.gate, False
        if candle.timestamp > self._newest and len(gate):
            began = self.decide() > 0
        self._newest = max(self._newest, candle.timestamp)
        if not gate.put(candle, now):
            return began
        if gate.complete() or gate.waiting(candle.symbol) > 1:
            return self.decide() > 0 or began
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._decide_alone)
        return began

    def soon(self) -> None:
        """Something that was waited for has come."""
        asyncio.get_running_loop().call_soon(self._decide_alone)

    def _decide_alone(self) -> None:
        """``decide`` where nobody would see it fail: ``failure`` does."""
        try:
            self.decide()
        except Exception as error:
            self._failure = error
            self._failed.set()

    async def failure(self) -> None:
        """Raise what a decision failed with that nobody waited for; waits for good where none does."""
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure

    def aclose(self) -> None:
        """Decide nothing by itself any more."""
        if self._timer is not None:
            self._timer.cancel()

    # --- what --------------------------------------------------------------------------------------------------------

    def decide(self, ended: bool = False) -> int:
        """Decide all bars that are complete, each symbol's in order; how many there were."""
        session = self._session
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        count = 0
        while not self.broken_off and (ready := session.gate.take(asyncio.get_running_loop().time(), ended)):
            count += len(ready)
            self.broken_off = True  # and the next one must not follow it
            with _no_collection():
                self._close(ready)
            self.broken_off = False
        if count:
            going = [name for name in session.symbols if name not in self.broken]
            session.gate.forget(session.fleet.last_time(name) or 0 for name in going)
        return count

    def _close(self, ready: list[Ready]) -> None:
        session = self._session
        fleet = session.fleet
        ready = [one for one in ready if one.candle.symbol not in self.broken]
        rows = []
        for candle, close, rate in ready:
            o, h, low, c, volume, quote, _, taker = candle.values
            rows.append((candle.timestamp, o, h, low, c, volume, quote, taker, close, rate))
            if candle.symbol in session.coming:
                session.put_in_force(candle.symbol, candle.timestamp)
                self._show_set(candle.symbol)
        places = np.array([fleet.places[one.candle.symbol] for one in ready], np.int64)
        bars = np.array(rows, BAR)
        began = time.perf_counter()
        ended = self._push(places, bars, ready)
        taken = time.perf_counter() - began
        if self.broken:
            ready = [one for one in ready if one.candle.symbol not in self.broken]
        if ready:
            self._follow_up_all(ready, ended)
        if session.metrics is not None:
            session.metrics.bars.inc(len(ready))
            session.metrics.step.observe(taken)

    def _push(self, places: np.ndarray, bars: np.ndarray, ready: list[Ready]) -> dict[int, np.ndarray]:
        """One call; where own steps may fail one a symbol, so that each failure stays alone."""
        fleet = self._session.fleet
        if not fleet.engines[0].spec.custom:
            return fleet.push(places, bars)
        ended: dict[int, np.ndarray] = {}
        for i, one in enumerate(ready):
            try:
                ended |= fleet.push(places[i : i + 1], bars[i : i + 1])
            except InputError as error:
                name = one.candle.symbol
                _log.error("%s: takes no more candles: %s", name, error)
                self.broken[name] = str(error)
                self._session.assets.update_asset(name, {"state": "error", "hints": [str(error)[:LONGEST_TEXT]]})
        return ended

    def _follow_up_all(self, ready: list[Ready], ended: Mapping[int, np.ndarray]) -> None:
        """What decided bars mean: journal, lake, states, alerts, one after the other for all of them.

        An alert that cannot be told does not keep the next ones from being told.
        """
        session, outs = self._session, self._session.fleet.outs
        places = np.array([session.fleet.places[one.candle.symbol] for one in ready], np.int64)
        signals = outs["signal"][places]
        session.recent.add(
            places,
            signals["timestamp"],
            np.array([one.candle.values for one in ready]),
            session.fleet.features(places)[:, SHOWN_PLACES],
            signals,
        )
        # Of a bar that others of its symbol follow at once only an alert is told.
        alerts = (signals["signal"] == ALERT).tolist()
        told = [i for i, one in enumerate(ready) if alerts[i] or not session.gate.waiting(one.candle.symbol)]
        stage1s = dict(zip(told, session.decisions.stage1s(places[told], signals[told]), strict=True))
        stage2s = {
            i: session.decisions.stage2(ready[i].candle.symbol, stage1) for i, stage1 in stage1s.items() if alerts[i]
        }
        self._keep(ready, places, signals, stage2s, ended)
        quiet = [i for i in told if i not in stage2s]
        session.assets.update_bars(session.decisions.quiet_fields(places[quiet], [stage1s[i] for i in quiet]))
        failures = []
        for i, stage2 in stage2s.items():
            try:
                self._follow_up_alert(ready[i].candle, stage1s[i], stage2)
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _follow_up_alert(self, candle: Candle, stage1: Mapping[str, Any], stage2: Mapping[str, Any]) -> None:
        session, name, bar = self._session, candle.symbol, candle.timestamp
        session.assets.update_asset(name, {**stage1, **stage2_fields(stage2)})
        session.counts["alerts"] += 1
        self._tell(stage2, fresh=self._lag_s(bar) <= FRESH_BARS * session.step_ms / 1000)
        if stage2["quality_metrics"]["used_default_calibration"]:
            session.calibrations.wanted(name, bar, stage1)

    def _keep(
        self,
        ready: list[Ready],
        places: np.ndarray,
        signals: np.ndarray,
        stage2s: Mapping[int, Mapping[str, Any]],
        ended: Mapping[int, np.ndarray],
    ) -> None:
        """Bars for journal and lake, and what is counted of them."""
        session, outs = self._session, self._session.fleet.outs
        candles = [one.candle for one in ready]
        extra: dict[int, dict[str, Any]] = {}
        for i, stage2 in stage2s.items():
            extra[i] = {"assessment": outs["assessment"][places[i]].tobytes(), "detail": stage2}
        trades = outs["trades"][places]
        for i in np.flatnonzero(trades + np.isin(places, list(ended))).tolist():
            k = int(places[i])
            closed = ended[k].tobytes() if k in ended else b""
            if trades[i]:
                closed += outs["trade"][k].tobytes()
            extra.setdefault(i, {})["closed"] = closed
            session.closed(candles[i].symbol, np.frombuffer(closed, TRADE))
        digests = [session.digests[candle.symbol] for candle in candles]
        session.keeper.bars(BarRows(time.time_ns() // 1_000_000, ready, signals, digests, extra))
        for candle in candles:
            session.funding.taken(candle.symbol, candle.timestamp)
        session.counts["bars"] += len(ready)
        times = [candle.timestamp for candle in candles]
        self.decided = max(self.decided, *times)
        self.lag_s = self._lag_s(times[-1])
        if session.metrics is not None:
            for bar in times:
                session.metrics.lag.observe(max(0.0, self._lag_s(bar)))

    def _lag_s(self, bar: int) -> float:
        """Seconds since the end of a bar, by the feed's clock."""
        return (self._session.feed.now_ms() - bar - self._session.step_ms) / 1000

    def look_again(self, symbol: str, stage1: Mapping[str, Any], thresholds: Thresholds) -> None:
        """Stage2 of an alert of before, with the thresholds of now: a new event; what was decided stays."""
        session = self._session
        stage2 = session.decisions.look_again(symbol, stage1, thresholds)
        bar = session.fleet.last_time(symbol) or 0
        session.keeper.row("second_look", symbol, bar, stage2, {"thresholds": thresholds.digest()})
        asset = session.assets.get(symbol)
        if asset is not None and asset["stage2"] is not None and asset["stage2"]["timestamp"] == stage2["timestamp"]:
            session.assets.update_asset(symbol, {"stage2": stage2})
        session.counts["second_looks"] += 1
        self._tell(stage2, fresh=True, second_look=True)

    def _tell(self, stage2: Mapping[str, Any], fresh: bool, second_look: bool = False) -> None:
        """Hand a Stage2 dictionary to whoever waits for one."""
        session = self._session
        session.alerts_seen.append(stage2)
        session.assets.publish_signal(stage2)
        if session.metrics is not None:
            session.metrics.alerts.labels(stage2["recommendation"]).inc()
        if stage2["recommendation"] in FAILURES or not fresh:
            return
        if session.alerts is not None:
            try:
                session.alerts.put(Alert.from_stage2(stage2, interval=session.interval, second_look=second_look))
            except AioneError:
                _log.exception("%s: an alert could not be handed on", stage2["symbol"])
        if session.enricher is not None and not second_look:
            session.enricher.submit(stage2)

    def show_all(self) -> None:
        """Bring what is known at the beginning into the states of the assets."""
        session = self._session
        places = np.array([session.fleet.places[name] for name in session.symbols], np.int64)
        stage1s = session.decisions.stage1s(places, session.fleet.outs["signal"][places])
        quiet = session.decisions.quiet_fields(places, stage1s)
        for name, stage1 in zip(session.symbols, stage1s, strict=True):
            self._show_set(name)
            last = session.fleet.last_time(name)
            if last is None:
                session.assets.update_asset(name, {"state": "no_data", "hints": ["no candle yet"]})
                continue
            last_alert = next((alert for alert in reversed(session.alerts_seen) if alert["symbol"] == name), None)
            if stage1["signal"] == "ALERT":
                found = last_alert
                if found is None or found["timestamp"] != stage1["timestamp"]:  # of the warm-up: nobody counts it
                    counts = dict(session.decisions.default_counts)
                    found = session.decisions.stage2(name, stage1)
                    session.decisions.default_counts = counts
                session.assets.update_asset(name, {**stage1, **stage2_fields(found)})
            elif last_alert is not None:
                session.assets.update_asset(name, {**quiet[name], "stage2": last_alert})
            else:
                session.assets.update_asset(name, quiet[name])
            self.decided = max(self.decided, last)

    def _show_set(self, name: str) -> None:
        """The set in force, and whether it is a calibrated one; a calibration that is under way tells of itself."""
        session = self._session
        limits = session.fleet.thresholds(name)
        session.assets.update_asset(name, {"in_force": limits.to_json()})
        asset = session.assets.get(name)
        if asset is None or asset["calib_status"] not in (PENDING, COMPLETED, EXPIRED, ERROR):
            return
        if is_calibrated(limits):
            session.assets.update_asset(name, {"calib_params": limits.to_json(), "calib_status": COMPLETED})
        elif asset["calib_params"] is not None:  # its time is over, or it was taken back
            session.assets.update_asset(name, {"calib_params": None, "calib_status": PENDING})


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Have Python's search for cyclic garbage wait: amid a bar of hundreds of symbols it takes a third of the time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
