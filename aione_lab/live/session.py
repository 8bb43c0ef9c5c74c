"""`Session`: live candles through the very step that replay loops over, all symbols of a bar in one call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.backtest.decode import told_trade
from aione_lab.backtest.signal_input import is_calibrated
from aione_lab.calibration.queue import CalibrationQueue
from aione_lab.engine.fleet import Fleet
from aione_lab.engine.params import check_kind
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import AioneError, InputError, one_line, whole
from aione_lab.lake.store import Lake
from aione_lab.live.alerts import AlertQueue
from aione_lab.live.assets import AssetStateManager
from aione_lab.live.bar_close import BarClose
from aione_lab.live.decisions import Decisions
from aione_lab.live.ends import uncut
from aione_lab.live.enricher import Enriched, NarrativeEnricher
from aione_lab.live.feed import Feed
from aione_lab.live.funding_book import FundingBook
from aione_lab.live.gate import Gate
from aione_lab.live.journal import Journal
from aione_lab.live.keeper import Keeper
from aione_lab.live.limits import Limits
from aione_lab.live.metrics import SessionMetrics
from aione_lab.live.opening import configuration, open_session, take_snapshot
from aione_lab.live.recent import Recent
from aione_lab.live.second_look import Calibrations
from aione_lab.settings import Costs, ReadOnly, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.thresholds.store import ThresholdStore
from aione_lab.units import interval_ms, iso, parse_symbol

_log = logging.getLogger(__name__)

PAUSE_S = 2.0  # between two looks at what waits
GOODBYE_S = 10.0  # for which the feed and the other parts may take their time to stop
ALERTS_KEPT = 200
REFERENCE = "BTCUSDT"
MOST_WAITING = 20_000  # candles that wait for something before no more are taken from the feed
ThresholdsLike = ThresholdStore | Mapping[str, Thresholds] | Thresholds | None


class Session:
    """Runs the symbols of ``feed``: features, signals, Stage2 on alerts, paper trades, by the rules of ``replay``.

    Each symbol's records equal, byte for byte, those of ``replay`` over the same candles (its warm-up included) with
    the reference's candles, the funding rates and the schedule of thresholds that were in force.

    ``lake``: warm-up comes from it, closed candles and rates go to it. ``thresholds``: a store (looked into every few
    seconds), sets by symbol, one set, or None: the asset classes; others are in force from the next bar on.
    ``reference``: one of the feed's symbols; BTCUSDT is left out where the feed does not have it. ``cache``: where
    states and signals are published. ``journal``: a folder; a session that finds one of its own there goes on where
    that one stopped. ``queue``: an ALERT on default thresholds asks it for an urgent calibration, after which Stage2
    looks again, as a new event. The session closes the feed at its end; alerts, queue, enricher and metrics are closed
    by who made them. One event loop. InputError for arguments that cannot be used.
    """

    def __init__(
        self,
        feed: Feed,
        lake: Lake | None = None,
        *,
        thresholds: ThresholdsLike = None,
        spec: FeatureSpec | None = None,
        settings: Settings | None = None,
        costs: Costs | None = None,
        reference: str | None = REFERENCE,
        cache: Any = None,
        journal: str | os.PathLike[str] | None = None,
        alerts: AlertQueue | None = None,
        queue: CalibrationQueue | None = None,
        enricher: NarrativeEnricher | None = None,
        metrics: SessionMetrics | None = None,
    ) -> None:
        if not all(hasattr(feed, name) for name in ("symbols", "interval", "now_ms", "history", "stream")):
            raise InputError.of("feed", feed, "must be a feed such as ExchangeFeed or ReplayFeed")
        for name, value, kind in (
            ("lake", lake, Lake),
            ("alerts", alerts, AlertQueue),
            ("queue", queue, CalibrationQueue),
            ("enricher", enricher, NarrativeEnricher),
            ("metrics", metrics, SessionMetrics),
        ):
            if value is not None:
                check_kind(name, value, kind)
        if lake is not None:
            lake.check_writable()
        self.feed, self.lake = feed, lake
        self.symbols, self.interval = tuple(feed.symbols), feed.interval
        self.step_ms = interval_ms(feed.interval)
        self.reference = _reference(reference, self.symbols)
        self._engine: dict[str, Any] = {"interval": self.interval, "spec": spec, "settings": settings, "costs": costs}
        self.limits = Limits(thresholds, self.symbols, self.interval, FeatureSpec() if spec is None else spec)
        self.assets = AssetStateManager(self.symbols, cache)
        self.journal = None if journal is None else Journal(journal)
        self.alerts, self.enricher, self.metrics, self._cache = alerts, enricher, metrics, cache
        self.calibrations = Calibrations(queue, self.assets, self.interval, self._accepted, self._look_again)
        self.coming: dict[str, Thresholds] = {}
        self.told_before: int | None = None  # alerts and second looks of before a restart; None: not known yet
        self.closed_before = 0  # paper trades that were closed before a restart
        self.resumed: tuple[str, ...] = ()  # symbols that went on from the journal's snapshot
        self.left_out: tuple[str, ...] = ()  # symbols of that snapshot which this session does not follow
        self._state, self._failure = "new", ""
        self._error: BaseException | None = None  # what ended a part of the session, and so the session
        self._main: asyncio.Task[None] | None = None
        self.renew()
        self.assets.describe(configuration(self))
        if metrics is not None:
            metrics.watch_total("reconnects", lambda: self.feed.metrics.reconnects)
            metrics.watch_total("gaps_filled", lambda: self.feed.metrics.gaps_filled)

    def renew(self) -> None:
        """Make the memory anew, with nothing in it."""
        self.fleet = Fleet(self.limits.read_all(), **self._engine)
        self.alerts_seen: deque[Mapping[str, Any]] = deque(maxlen=ALERTS_KEPT)
        self.trades_seen: deque[Mapping[str, Any]] = deque(maxlen=ALERTS_KEPT)
        self.counts = dict.fromkeys(("bars", "alerts", "trades", "second_looks"), 0)
        self.net_pnl = 0.0  # of the closed paper trades
        self.calibrations.asked, self.calibrations.waiting = {}, {}
        first, feed = self.fleet.engines[0], self.feed
        self.recent = Recent(self.symbols, first.spec.reasons)
        self.decisions = Decisions(self.fleet)
        self.funding = FundingBook(
            feed, self.step_ms, first.costs.funding_hours, lambda _: self.closing.soon(), self._late_rate
        )
        self.gate = Gate(self.symbols, self.reference, self.funding)
        self.keeper = Keeper(feed, self.lake, self.journal, lambda: take_snapshot(self), self.funding.new)
        self.closing = BarClose(self)
        self.digests = {name: self.fleet.thresholds(name).digest() for name in self.symbols}

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> asyncio.Task[None]:
        """``run`` as a task of the running event loop."""
        self._main = asyncio.ensure_future(self.run())
        return self._main

    async def run(self) -> None:
        """Warm up, then go on until the feed ends or ``stop`` is called; everything is on disk when this returns.

        A cancellation ends it as cleanly. Raises what the feed raises, and InputError where another session writes the
        journal.
        """
        if self._state != "new":
            raise AioneError("this session has run already: make a new one")
        self._state, self._main = "starting", asyncio.current_task()
        if self.enricher is not None:
            self.enricher.listen(self.take_text)
        try:
            with self.journal.hold() if self.journal is not None else contextlib.nullcontext():
                await self._run()
        except asyncio.CancelledError:
            if self._error is not None:  # it was told to stop while it ended by that
                self._failure = one_line(self._error)
                raise self._error from None
            if self._state != "stopping":
                raise
        except BaseException as error:
            self._failure = one_line(error)
            raise
        finally:
            self._state = "failed" if self._failure else "stopped"
            if self.enricher is not None:
                self.enricher.forget(self.take_text)
            await self.feed.aclose()

    async def stop(self) -> None:
        """Stop cleanly: what was decided is on disk when this returns."""
        task = self._main
        if task is None or task.done():
            return
        if self._state != "stopping":
            self._state = "stopping"
            task.cancel()
        if task is not asyncio.current_task():
            await asyncio.wait({task})
            if self._state == "stopping":  # it was cancelled before its first step
                self._state = "stopped"
                await self.feed.aclose()

    async def _run(self) -> None:
        after = await open_session(self)
        await self.keeper.commit(snapshot=True)
        self.closing.show_all()
        self.calibrations.ask_again()
        self.assets.start()
        if self.alerts is not None:
            await self.alerts.start()
        if self.enricher is not None:
            self.enricher.start()
        work = [self._read(after), self.closing.failure(), self.keeper.run(), self._look_after()]
        if self.limits.follows:
            work.append(self.limits.follow(self.set_thresholds))
        if self._cache is not None and self.calibrations.possible:
            work.append(self.calibrations.listen(self._cache))
        tasks = [asyncio.ensure_future(part) for part in work]
        self._state = "running" if self._state == "starting" else self._state
        sound = True
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            errors = [task.exception() for task in tasks if task.done()]
            self._error = next((error for error in errors if error is not None), None)
            sound = self._error is None
            if self._error is not None:
                raise self._error
        finally:
            await uncut(self._end(tasks, sound))

    async def _read(self, after: Mapping[str, int]) -> None:
        """Take candles until the feed ends; then what still waits is decided without what will never come."""
        now = asyncio.get_running_loop().time
        async with contextlib.aclosing(self.feed.stream(after)) as stream:
            async for candle in stream:
                if candle.revised:
                    self.keeper.revision(candle)
                elif self.closing.take(candle, now()):
                    await asyncio.sleep(0)
                while len(self.gate) >= MOST_WAITING and not self.gate.waits_for_reference():
                    await asyncio.sleep(0.05)
        while len(self.gate):
            self.closing.decide(ended=True)
            await asyncio.sleep(0.01 if len(self.gate) else 0)

    async def _look_after(self) -> None:
        """Decide what has waited long enough, for good."""
        while True:
            await asyncio.sleep(PAUSE_S)
            self.closing.decide()
            if self.metrics is not None:
                for part, problem in self._degraded().items():
                    self.metrics.degraded.labels(part).set(bool(problem))
                self.metrics.queue_size.labels("candles").set(len(self.gate))

    async def _end(self, tasks: Sequence[asyncio.Task[None]], sound: bool) -> None:
        for task in tasks:
            task.cancel()
        _, left = await asyncio.wait(tasks, timeout=GOODBYE_S)
        if left:
            _log.warning("the feed or another part does not stop when told to, and is left to itself")
        await self._finish(sound)

    async def _finish(self, sound: bool) -> None:
        """Write everything; where a bar was broken off no snapshot, so that a restart decides it again."""
        try:
            await self.calibrations.aclose()
            await self.funding.aclose()
            self.closing.aclose()
            await self.keeper.ask_at_last()
        finally:
            await self.keeper.commit(snapshot=sound and not self.closing.broken_off)
            self.keeper.close()
            await self.assets.aclose()
        if self.keeper.problems:
            raise AioneError(f"not everything could be written at the end: {'; '.join(self.keeper.problems.values())}")

    # --- what changes while it runs ----------------------------------------------------------------------------------

    def set_thresholds(self, symbol: str, thresholds: Thresholds) -> None:
        """Put a set in force, on the symbol's next bar. InputError for one that cannot be used."""
        name = self._known(symbol)
        now = self.fleet.thresholds(name)
        if thresholds == now and thresholds.meta == now.meta:
            self.coming.pop(name, None)
        else:
            self.limits.check(thresholds)
            self.coming[name] = thresholds

    def put_in_force(self, symbol: str, bar: int) -> None:
        """Write down what is in force from ``bar`` on; a set that was to come is taken over first."""
        coming = self.coming.pop(symbol, None)
        if coming is not None:
            self.fleet.set_thresholds(symbol, coming)
        limits = self.fleet.thresholds(symbol)
        self.digests[symbol] = limits.digest()
        self.keeper.row("thresholds", symbol, bar, limits.to_json(), {"thresholds": self.digests[symbol]})

    async def request_calibration(self, symbol: str) -> str:
        """Queue an urgent calibration; the ``calib_status`` that results. InputError where there is no queue."""
        return await self.calibrations.request(self._known(symbol))

    def take_text(self, enriched: Enriched) -> None:
        """A longer text about an alert; kept where the asset's last alert is still that one."""
        asset = self.assets.get(enriched.symbol)
        if asset is not None and asset["stage2"] is not None and asset["stage2"]["timestamp"] == enriched.timestamp:
            self.assets.update_asset(enriched.symbol, {"long_narrative": enriched.text})

    def _accepted(self, symbol: str, thresholds: Thresholds) -> None:
        try:
            self.set_thresholds(symbol, self.limits.accepted(symbol, thresholds))
        except AioneError as error:
            _log.warning("%s: an accepted set is not used: %s", symbol, error)

    def _look_again(self, symbol: str, stage1: Mapping[str, Any]) -> None:
        self.closing.look_again(symbol, stage1, self.coming.get(symbol, self.fleet.thresholds(symbol)))

    def _late_rate(self, symbol: str, bar: int) -> None:
        _log.warning("%s: a funding rate of the bar of %s came after it was decided", symbol, iso(bar))
        self.keeper.row("funding", symbol, bar)

    # --- reading -----------------------------------------------------------------------------------------------------

    def candles(self, symbol: str, bars: int = 500) -> pd.DataFrame:
        """The newest closed candles that were decided, in the shape of ``Lake.candles``; 1,500 at most."""
        return self.recent.candles(self._known(symbol), whole("bars", bars, 0))

    def rows(self, symbol: str) -> pd.DataFrame:
        """The same bars' signals: ``rsi, atr_pct, …``, then the columns of ``result.signals``."""
        return self.recent.signals(self._known(symbol))

    def last_alerts(self, symbol: str | None = None, n: int = 20) -> list[Mapping[str, Any]]:
        """The newest Stage2 dictionaries, newest first and read-only; second looks (``second_look``) are among them."""
        return self._newest(self.alerts_seen, symbol, n)

    def last_trades(self, symbol: str | None = None, n: int = 20) -> list[Mapping[str, Any]]:
        """The newest closed paper trades, newest first and read-only: ``symbol`` and the fields of ``told_trade``."""
        return self._newest(self.trades_seen, symbol, n)

    def _newest(self, seen: deque[Mapping[str, Any]], symbol: str | None, n: int) -> list[Mapping[str, Any]]:
        name = None if symbol is None else self._known(symbol)
        found = [one for one in reversed(seen) if name in (None, one["symbol"])]
        return found[: whole("n", n, 0)]

    def closed(self, symbol: str, trades: np.ndarray) -> None:
        """Count closed paper trades, TRADE (n,)."""
        for trade in trades:
            self.trades_seen.append(ReadOnly({"symbol": symbol, **told_trade(trade)}))
        self.counts["trades"] += len(trades)
        self.net_pnl += float(trades["pnl"].sum())

    def held(self) -> list[str]:
        """Symbols with an open paper trade or a waiting order."""
        stages = self.fleet.states["stages"]
        sides = zip(stages["position"]["side"].tolist(), stages["order"]["side"].tolist(), strict=True)
        return [name for name, held in zip(self.symbols, sides, strict=True) if any(held)]

    def status(self) -> dict[str, Any]:
        """How the session stands, as plain data.

        ``state``: new, starting, running, stopping, stopped or failed; ``lag_s``: from a bar's end to its decision by
        the feed's clock; ``degraded``: part → why it does not work at the moment; ``stale``: symbols without a candle;
        ``net_pnl``: of the closed paper trades, after costs; ``calibrated``: symbol → ``study``, ``start`` and ``end``
        of its candles and ``expires_at`` of the calibrated set in force, as far as that tells them; ``resumed`` and
        ``left_out``: symbols of the journal's last snapshot that this session went on with, and that it does not
        follow.
        """
        feed = self.feed.status()
        counted = self.feed.metrics
        newest = self.closing.decided
        return {
            "state": self._state,
            "failure": self._failure,
            "symbols": len(self.symbols),
            "interval": self.interval,
            "reference": self.reference,
            "calibrated": self._calibrated(),
            "resumed": list(self.resumed),
            "left_out": list(self.left_out),
            **self.counts,
            "net_pnl": self.net_pnl,
            "open_trades": int(np.count_nonzero(self.fleet.states["stages"]["position"]["side"])),
            "last_bar": iso(newest) if newest else None,
            "lag_s": self.closing.lag_s,
            "waiting": len(self.gate),
            "stale": [name for name, one in feed.items() if one.stale] if self.closing.lag_s is not None else [],
            "errors": {name: one.error for name, one in feed.items() if one.error} | self.closing.broken,
            "reconnects": counted.reconnects,
            "gaps_filled": counted.gaps_filled,
            "revisions": counted.revisions,
            "without_reference": self.gate.without_reference,
            "funding_unknown": self.funding.unknown,
            "calibrations": dict(self.calibrations.ended),
            "degraded": {part: problem for part, problem in self._degraded().items() if problem},
        }

    def _calibrated(self) -> dict[str, dict[str, str]]:
        limits = {name: self.fleet.thresholds(name) for name in self.symbols}
        told = ("study", "start", "end", "expires_at")
        return {
            name: {key: value for key in told if isinstance(value := (one.meta or {}).get(key), str)}
            for name, one in limits.items()
            if is_calibrated(one)
        }

    def _degraded(self) -> dict[str, str]:
        problems = {part: self.keeper.problems.get(part, "") for part in ("journal", "lake", "snapshot")}
        problems["cache"] = self.assets.degraded
        problems["thresholds"] = "; ".join(self.limits.problems.values())
        if self.alerts is not None:
            problems["alerts"] = "; ".join(self.alerts.degraded.values())
        if self.enricher is not None:
            problems["enricher"] = self.enricher.degraded
        return problems

    def _known(self, symbol: str) -> str:
        name = parse_symbol(symbol)
        if name not in self.fleet.places:
            raise InputError.unknown("symbol", name, self.symbols)
        return name


def _reference(given: str | None, symbols: tuple[str, ...]) -> str | None:
    if given is None:
        return None
    name = parse_symbol(given, "reference")
    if name in symbols:
        return name
    if name == REFERENCE:
        return None
    raise InputError.of("reference", given, f"must be one of the feed's symbols ({', '.join(symbols[:8])}) or None")
