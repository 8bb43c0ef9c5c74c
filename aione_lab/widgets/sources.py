"""Where a dashboard reads: a session of this kernel, or another process's through the cache and its lake."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Rules:
    """What a session of another process says that it decides by; None: it said nothing, the defaults are taken."""

    interval: str
    reference: str | None = None
    spec: FeatureSpec | None = None
    settings: Settings | None = None
    costs: Costs | None = None
    note: str = NOT_TOLD


class Source(Protocol):
    """What a dashboard asks for. Texts and numbers may come from outside and are untrusted."""

    @property
    def interval(self) -> str:
        """Of the candles."""

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
        self._rules = self._untold = Rules(interval)
        self._alerts: dict[str, deque[Mapping[str, Any]]] = {}
        self._listening: asyncio.Task[None] | None = None

    @property
    def interval(self) -> str:
        """Of the session's candles."""
        return self._rules.interval

    async def follow(self) -> AsyncIterator[AssetUpdate]:
        """The states that the session publishes; its alerts are gathered meanwhile."""
        self._listening = asyncio.ensure_future(self._listen())
        try:
            async with contextlib.aclosing(cast("Any", follow_assets(self._cache))) as updates:
                async for update in updates:
                    if update.whole:
                        self._rules = rules_of(update.about) or self._untold
                    yield update
        finally:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def bars(self, symbol: str, asset: Mapping[str, Any]) -> Bars:
        """From the lake, without holding up the event loop."""
        if self._lake is None:
            return Bars(NO_CANDLES, None, "no lake was given: Dashboard(redis=…, lake=…) shows candles")
        try:
            return await asyncio.to_thread(_replayed, self._lake, symbol, asset, self._rules)
        except AioneError as error:
            return Bars(NO_CANDLES, None, str(error))

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


def rules_of(about: Mapping[str, Any]) -> Rules | None:
    """What ``AssetStateManager.describe`` was told; None where it cannot be used: anybody may have written it."""
    try:
        interval, reference, spec = str(about["interval"]), about["reference"], dict(about["spec"])
        interval_ms(interval)
        own = [part for part in ("triggers", "factors") if spec.pop(part, None)]
        return Rules(
            interval,
            None if reference is None else parse_symbol(reference),
            FeatureSpec(**spec),
            Settings(**about["settings"]),
            Costs(**about["costs"]),
            f"{REPLAYED}, without own {' and '.join(own)}" if own else REPLAYED,
        )
    except (InputError, KeyError, TypeError, ValueError):
        return None


def _replayed(lake: Lake, symbol: str, asset: Mapping[str, Any], rules: Rules) -> Bars:
    """The end of the lake's candles of a symbol, and what ``rules`` and the set in force make of them."""
    step, reference, given = interval_ms(rules.interval), rules.reference, asset.get("in_force")
    span = lake.span(symbol, rules.interval)
    if span is None:
        return Bars(NO_CANDLES, None, f"the lake has no {rules.interval} candles of it")
    start = span[1] + step - LAKE_DAYS * DAY_MS
    candles = lake.candles(symbol, rules.interval, start=start)
    there = reference is not None and lake.span(reference, rules.interval) is not None
    found = replay(
        candles,
        Thresholds.from_json(given) if isinstance(given, Mapping) else thresholds_for(symbol),
        symbol=symbol,
        interval=rules.interval,
        reference=lake.candles(cast("str", reference), rules.interval, start=start) if there else None,
        funding=lake.funding(symbol, start),
        spec=rules.spec,
        settings=rules.settings,
        costs=rules.costs,
    )
    rows = found.signals[["signal", "trigger_reasons", "confidence", "recommendation"]]
    lacking = f", without {reference}" if reference is not None and not there else ""
    return Bars(candles.tail(BARS), rows.assign(rsi=found.features["rsi"]).tail(BARS), note=f"{rules.note}{lacking}")
