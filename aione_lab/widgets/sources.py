"""Where a dashboard reads: a session of this kernel, or another process's through the cache and its lake."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple, Protocol, cast

import pandas as pd

from aione_lab.backtest.replay import replay
from aione_lab.cache.handler import SimpleCacheHandler
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import AioneError, CacheError, InputError
from aione_lab.lake.store import Lake
from aione_lab.live.asset_follower import AssetUpdate, follow_assets
from aione_lab.live.asset_publisher import SIGNALS
from aione_lab.live.warmup import LAKE_DAYS
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.classes import thresholds_for
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, interval_ms, parse_symbol

BARS = 240  # candles in the chart
ALERTS = 20  # kept of a symbol
SYMBOLS = 2_000  # whose alerts are kept
RETRY_S = 1.0
CALIBRATION_REQUEST = "calibration_request"
NEEDED = ("assets", "interval", "candles", "rows", "last_alerts", "request_calibration", "status")


class Bars(NamedTuple):
    """The last candles of a symbol, and per bar what was seen in them (``live_chart``'s ``rows``).

    ``note``: what to know of them, ``problem``: why there are none; both may be "".
    """

    candles: pd.DataFrame
    rows: pd.DataFrame | None
    problem: str = ""
    note: str = ""


REPLAYED = "replayed from the lake"  # the marks: nobody kept what the session decided before we came
NOT_TOLD = f"{REPLAYED}, default settings"
NO_CANDLES = pd.DataFrame(
    {name: pd.Series(dtype=float) for name in ("open", "high", "low", "close", "volume")},
    index=pd.DatetimeIndex([], tz="UTC", name="timestamp"),
)


class Source(Protocol):
    """What a dashboard asks for. Texts and numbers may come from outside and are untrusted."""

    interval: str

    def follow(self) -> AsyncIterator[AssetUpdate]:
        """The whole state, then changes."""

    async def bars(self, symbol: str, asset: Mapping[str, Any]) -> Bars:
        """The last candles of a symbol whose state is ``asset``."""

    def last_alerts(self, symbol: str) -> list[Mapping[str, Any]]:
        """Newest Stage2 dictionaries, newest first."""

    async def request_calibration(self, symbol: str) -> str:
        """Ask for a calibration; what became of that, in a word."""

    def status(self) -> Mapping[str, Any]:
        """What else is known of the session."""

    async def aclose(self) -> None:
        """Let go of what the source opened itself."""


class SessionSource:
    """A ``Session`` of this kernel."""

    def __init__(self, session: Any) -> None:
        lacking = [name for name in NEEDED if not hasattr(session, name)]
        if lacking or not hasattr(session.assets, "follow"):
            raise InputError.of("session", session, f"must be a Session (it lacks {', '.join(lacking) or 'assets'})")
        self._session = session
        self.interval: str = session.interval

    def follow(self) -> AsyncIterator[AssetUpdate]:
        """The states of the session's assets."""
        return cast("AsyncIterator[AssetUpdate]", self._session.assets.follow())

    async def bars(self, symbol: str, asset: Mapping[str, Any]) -> Bars:
        """From the session's own memory."""
        candles = self._session.candles(symbol, BARS)
        return Bars(candles.tail(BARS), self._session.rows(symbol).tail(BARS))

    def last_alerts(self, symbol: str) -> list[Mapping[str, Any]]:
        """From the session's own memory."""
        return list(self._session.last_alerts(symbol, ALERTS))

    async def request_calibration(self, symbol: str) -> str:
        """Put it into the session's queue."""
        return str(await self._session.request_calibration(symbol))

    def status(self) -> Mapping[str, Any]:
        """As the session tells."""
        return cast("Mapping[str, Any]", self._session.status())

    async def aclose(self) -> None:
        """Nothing was opened."""


class CacheSource:
    """A session of another process: states and alerts through ``cache``, candles from the ``lake`` it appends to.

    What the chart shows per bar is a replay of the lake's candles, as the session tells that it decides: its warm-up,
    reference, settings and the symbol's thresholds of now. ``interval`` holds until it tells its own. With ``own`` the
    cache is closed at the end.
    """

    def __init__(self, cache: SimpleCacheHandler, lake: Lake | None, interval: str, *, own: bool) -> None:
        interval_ms(interval)
        self._cache, self._lake, self._own = cache, lake, own
        self.interval = interval
        self._reference: str | None = None
        self._rules: dict[str, Any] = {}  # spec, settings and costs, as replay takes them
        self._note = NOT_TOLD
        self._seen: tuple[Any, Bars] | None = None  # what the last replay was of, and what it gave
        self._alerts: dict[str, deque[Mapping[str, Any]]] = {}
        self._listening: asyncio.Task[None] | None = None

    async def follow(self) -> AsyncIterator[AssetUpdate]:
        """The states that the session publishes; its alerts are gathered meanwhile."""
        self._listening = asyncio.ensure_future(self._listen())
        try:
            async with contextlib.aclosing(cast("Any", follow_assets(self._cache))) as updates:
                async for update in updates:
                    if update.about:
                        self._learn(update.about)
                    yield update
        finally:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def bars(self, symbol: str, asset: Mapping[str, Any]) -> Bars:
        """From the lake, without holding up the event loop."""
        if self._lake is None:
            return Bars(NO_CANDLES, None, "no lake was given: Dashboard(redis=…, lake=…) shows candles")
        try:
            return await asyncio.to_thread(self._replayed, self._lake, symbol, asset)
        except AioneError as error:
            return Bars(NO_CANDLES, None, str(error))

    def _learn(self, about: Mapping[str, Any]) -> None:
        """What steers the session. Anybody may have written it: what cannot be used leaves things as they were."""
        try:
            interval, reference, spec = str(about["interval"]), about["reference"], dict(about["spec"])
            interval_ms(interval)
            own = [part for part in ("triggers", "factors") if spec.pop(part, None)]
            rules = {
                "spec": FeatureSpec(**spec),
                "settings": Settings(**about["settings"]),
                "costs": Costs(**about["costs"]),
            }
            reference = None if reference is None else parse_symbol(reference)
        except (InputError, KeyError, TypeError, ValueError):
            return
        self.interval, self._reference, self._rules = interval, reference, rules
        self._note = f"{REPLAYED}, without its own {' and '.join(own)}" if own else REPLAYED

    def _replayed(self, lake: Lake, symbol: str, asset: Mapping[str, Any]) -> Bars:
        step = interval_ms(self.interval)
        span = lake.span(symbol, self.interval)
        if span is None:
            return Bars(NO_CANDLES, None, f"the lake has no {self.interval} candles of it")
        given = asset.get("calib_params")
        of = symbol, span[1], self.interval, self._note, given
        if self._seen is not None and self._seen[0] == of:  # another word of the same bar
            return self._seen[1]
        start = span[1] + step - LAKE_DAYS * DAY_MS
        candles = lake.candles(symbol, self.interval, start=start)
        reference = self._reference
        there = reference is not None and lake.span(reference, self.interval) is not None
        found = replay(
            candles,
            thresholds_for(symbol, Thresholds.from_json(given) if isinstance(given, Mapping) else None),
            symbol=symbol,
            interval=self.interval,
            reference=lake.candles(cast("str", reference), self.interval, start=start) if there else None,
            funding=lake.funding(symbol, start),
            **self._rules,
        )
        rows = found.signals[["signal", "trigger_reasons", "confidence", "recommendation"]]
        lacking = f", without {reference}" if reference is not None and not there else ""
        bars = Bars(
            candles.tail(BARS), rows.assign(rsi=found.features["rsi"]).tail(BARS), note=f"{self._note}{lacking}"
        )
        self._seen = of, bars
        return bars

    def last_alerts(self, symbol: str) -> list[Mapping[str, Any]]:
        """Those that came while this was open."""
        return list(reversed(self._alerts.get(symbol, ())))

    async def request_calibration(self, symbol: str) -> str:
        """Ask the session by a message; nobody says whether it heard."""
        await self._cache.publish(CALIBRATION_REQUEST, {"symbol": symbol, "interval": self.interval})
        return "asked for; a session that calibrates takes it up"

    def status(self) -> Mapping[str, Any]:
        """Whether the cache answers."""
        return {} if self._cache.healthy else {"degraded": {"cache": "it does not answer"}}

    async def aclose(self) -> None:
        """Close the cache where it was opened for this dashboard."""
        if self._own:
            await self._cache.aclose()

    async def _listen(self) -> None:
        while True:
            try:
                async with self._cache.subscribe(SIGNALS) as messages:
                    async for message in messages:
                        self._keep(message.value)
            except CacheError:
                await asyncio.sleep(RETRY_S)  # the states tell of the failure

    def _keep(self, alert: Any) -> None:
        """An alert whose symbol is one; anything else on the channel is passed over."""
        if not isinstance(alert, Mapping) or "recommendation" not in alert:
            return
        try:
            symbol = parse_symbol(cast("str", alert.get("symbol")))
        except InputError:
            return
        if symbol in self._alerts or len(self._alerts) < SYMBOLS:
            self._alerts.setdefault(symbol, deque(maxlen=ALERTS)).append(alert)
