"""`AssetStateManager`: what a session knows of its assets, in memory first, and published for everybody else."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any, Self

import orjson

from aione_lab.cache.handler import SimpleCacheHandler
from aione_lab.calibration.queue_order import COMPLETED
from aione_lab.errors import InputError
from aione_lab.live.asset_follower import AssetUpdate
from aione_lab.live.asset_publisher import Publisher
from aione_lab.live.asset_state import after_bar, changed_asset, new_asset, plain
from aione_lab.research.arguments import finite
from aione_lab.settings import ReadOnly
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import parse_symbol

PERIOD_S = 5.0
"""Seconds after which the whole state is written again although nothing changed."""
TTL_S = 180.0
"""Seconds for which a written state holds: a session that pauses for some bars is not forgotten."""


class AssetStateManager:
    """The state of every asset of a session, by symbol: the truth is in memory, the cache gets copies of it.

    ``update_asset`` and the other plain methods return at once, whatever the cache does; a task of its own
    (``start``, ``aclose``) writes the whole state under ``asset_state``, changes on the channel
    ``asset_state_update`` and single signals on ``signals``. While the cache is away, full or read-only, ``degraded``
    says why, and the newest state is written when it is back. Without a ``cache`` nothing is published.

    What comes out is frozen and JSON-able: tuples, ``ReadOnly`` mappings, no NaN (None instead). One manager publishes
    into a cache at a time. Not for several threads: call it where the event loop runs.
    """

    def __init__(
        self,
        symbols: Iterable[str] = (),
        cache: SimpleCacheHandler | None = None,
        *,
        period_s: float = PERIOD_S,
        ttl_s: float = TTL_S,
    ) -> None:
        if isinstance(symbols, (str, bytes)) or not isinstance(symbols, Iterable):
            raise InputError.of("symbols", symbols, "must be several symbols")
        if finite("period_s", period_s) < 0.01:
            raise InputError.of("period_s", period_s, "must be at least 0.01 seconds")
        if finite("ttl_s", ttl_s) < 3 * period_s:
            raise InputError.of("ttl_s", ttl_s, f"must be at least three times period_s={period_s}")
        for name in ("store_and_publish", "publish_all"):
            if cache is not None and not callable(getattr(cache, name, None)):
                raise InputError.of("cache", cache, "must be a SimpleCacheHandler")
        self._assets = {name: new_asset(name) for name in (parse_symbol(symbol, "symbols") for symbol in symbols)}
        self._publisher = None if cache is None else Publisher(cache, self._assets, float(period_s), float(ttl_s))
        self._inboxes: set[_Inbox] = set()
        self._closed = False

    # --- writing -----------------------------------------------------------------------------------------------------

    def describe(self, about: Mapping[str, Any], /) -> None:
        """Have what steers the session (``interval``, ``reference``, ``settings``, …) published with the whole state.

        Whoever follows can then replay what it decided. InputError for what JSON cannot hold.
        """
        checked = plain("about", about)
        if self._publisher is not None:
            self._publisher.about = orjson.Fragment(orjson.dumps(checked))

    def update_asset(self, symbol: str, updates: Mapping[str, Any], /) -> None:
        """Take over fields of ``symbol``, which may be new; all of them or, with InputError, none.

        A Stage1 dictionary is taken as it is; ``stage2_fields`` makes updates of a Stage2 dictionary. An unknown field
        is refused by name; NaN becomes None. What is equal to what is known is no change.
        """
        name = symbol if type(symbol) is str and symbol in self._assets else parse_symbol(symbol)
        known = self._assets.get(name)
        asset = changed_asset(new_asset(name) if known is None else known, updates)
        if asset is not known:
            self._assets[name] = asset
            self._tell((name,))

    def update_bars(self, fields: Mapping[str, Mapping[str, Any]], /) -> None:
        """Take over what a bar gave known symbols, by symbol: ``Decisions.quiet_fields``, which need no check."""
        if fields:
            self._assets.update({name: after_bar(self._assets[name], updates) for name, updates in fields.items()})
            self._tell(fields)

    def update_calibration(self, symbol: str, params: Mapping[str, Any], /) -> None:
        """Take over an accepted set in its flat JSON form: ``calib_params``, ``last_calib`` and ``calib_status``.

        InputError for what is no set of thresholds.
        """
        found = Thresholds.from_json(params)
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        self.update_asset(symbol, {"calib_params": found.to_json(), "last_calib": now, "calib_status": COMPLETED})

    def publish_signal(self, signal: Mapping[str, Any]) -> None:
        """Send one Stage1 or Stage2 dictionary on the channel ``signals``, in order.

        While the cache fails up to 1,000 wait; of more the oldest are dropped and counted (``status``). Those of a
        call that failed on its way are sent again: a reader may then see some of them twice.
        """
        if not isinstance(signal, Mapping) or "symbol" not in signal:
            raise InputError.of("signal", signal, "must be a mapping with a symbol")
        checked = plain("signal", {**signal, "symbol": parse_symbol(signal["symbol"])})
        if self._publisher is not None:
            self._publisher.signal(checked)

    # --- reading -----------------------------------------------------------------------------------------------------

    def get(self, symbol: str) -> ReadOnly | None:
        """The state of ``symbol`` as it is now, None where it is unknown. It does not change afterwards."""
        return self._assets.get(parse_symbol(symbol))

    def snapshot(self) -> dict[str, ReadOnly]:
        """Every asset's state by symbol, as it is now."""
        return dict(self._assets)

    @property
    def degraded(self) -> str:
        """Why the last write failed; "" where it did not, or where nothing is published."""
        return "" if self._publisher is None else self._publisher.degraded

    @property
    def status(self) -> dict[str, Any]:
        """``session, seq, writes, failures, signals_dropped, degraded`` of the publication; empty without a cache."""
        if self._publisher is None:
            return {}
        names = ("session", "seq", "writes", "failures", "signals_dropped", "degraded")
        return {name: getattr(self._publisher, name) for name in names}

    async def follow(self) -> AsyncIterator[AssetUpdate]:
        """The whole state first, then changes, for a reader in the same process; ends when the manager is closed.

        A slow reader gets several changes of an asset as one, the newest; one that comes after the close the whole.
        """
        inbox = _Inbox()
        self._inboxes.add(inbox)
        try:
            yield AssetUpdate(whole=True, assets=self.snapshot())
            while inbox.changed or not self._closed:  # it may have been closed before, or while the reader was away
                await inbox.wake.wait()
                inbox.wake.clear()
                changed, inbox.changed = inbox.changed, {}
                if changed:
                    yield AssetUpdate(whole=False, assets={name: self._assets[name] for name in changed})
        finally:
            self._inboxes.discard(inbox)

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to publish, in the running event loop."""
        self._closed = False
        if self._publisher is not None:
            self._publisher.start()

    async def aclose(self) -> None:
        """Write the last state, if the cache takes it within two seconds, and stop publishing. The cache stays open."""
        self._closed = True
        for inbox in self._inboxes:
            inbox.wake.set()
        if self._publisher is not None:
            await self._publisher.aclose()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _tell(self, symbols: Collection[str]) -> None:
        for inbox in self._inboxes:
            inbox.changed.update(dict.fromkeys(symbols))
            inbox.wake.set()
        if self._publisher is not None:
            self._publisher.changed(symbols)


class _Inbox:
    """Symbols that changed since a reader last looked."""

    def __init__(self) -> None:
        self.changed: dict[str, None] = {}
        self.wake = asyncio.Event()
