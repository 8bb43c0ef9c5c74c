"""`Dashboard`: the live table and, for the selected symbol, its charts and its story; the last line of a cell."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import ipywidgets
from pydantic import SecretStr

from aione_lab.cache.handler import SimpleCacheHandler
from aione_lab.errors import AioneError, InputError
from aione_lab.figures.theme import Theme
from aione_lab.lake.store import Lake
from aione_lab.live.asset_follower import ENDED, AssetUpdate
from aione_lab.units import interval_ms
from aione_lab.widgets.cells import cells_of, text
from aione_lab.widgets.chart import Chart, Plotly
from aione_lab.widgets.charts import factor_figure, price_figure
from aione_lab.widgets.detail import Detail, content_of
from aione_lab.widgets.replace import replace_in_cell
from aione_lab.widgets.sources import CacheSource, SessionSource, Source
from aione_lab.widgets.table import LiveTable

logger = logging.getLogger(__name__)

PERIOD_S = 0.25  # least time between two patches of the table
TOGETHER_S = 0.003  # for the rest of a bar close to come
REDRAW_S = 1.0  # between two of the charts
TICK_S = 1.0  # between two looks at what is stale
STALE = 1.5  # intervals without a word
NAMED = 4  # stale symbols that the status names


class Dashboard(ipywidgets.VBox):
    """A live table of every symbol; selecting a row shows candles, levels, factors, narrative and calibration.

    ``Dashboard(session)`` reads a ``Session`` of this kernel; ``Dashboard(redis=url, lake=folder)`` one of another
    process: ``redis`` is the URL of its cache or a SimpleCacheHandler, ``lake`` the lake it appends to (without one
    there are no candles), ``interval`` that of its candles (None: 1m) until the session tells its own. Needs a running
    event loop, which a notebook has.

    It follows until ``close()`` (or ``await aclose()``), the end of the kernel, or until its cell is run again. Raises
    InputError where it is not told what to read, or twice.
    """

    _closed = True  # until it is made; what was refused half-way is closed too

    def __init__(
        self,
        session: Any = None,
        *,
        redis: str | SecretStr | SimpleCacheHandler | None = None,
        lake: Lake | str | Path | None = None,
        interval: str | None = None,
    ) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise AioneError(
                "a Dashboard needs a running event loop: make it in a notebook, or in a coroutine"
            ) from None
        self._source = _source(session, redis, lake, interval)
        self._table = LiveTable(stale_after=STALE * interval_ms(self._source.interval) / 1000)
        self._detail = Detail(self._from_any_thread(self._ask))
        self._price, self._factors = Chart(), Chart()
        self._price.add_class("aione-price")
        self._charts = ipywidgets.VBox([self._price, self._factors], layout={"flex": "1 1 560px", "min_width": "0"})
        self._detail.layout = {"flex": "1 1 260px", "min_width": "0"}
        self._place = ipywidgets.Box([self._detail], layout={"flex_flow": "row wrap", "width": "100%"})
        super().__init__([self._table, self._place], layout={"width": "100%"})
        self._assets: dict[str, Mapping[str, Any]] = {}
        self._pending: dict[str, Mapping[str, Any]] = {}
        self._whole, self._problem = False, ""
        self._known: Mapping[str, Any] = {}
        self._patching: asyncio.TimerHandle | None = None
        self._patched = -PERIOD_S
        self._explained: tuple[Any, Theme] | None = None
        self._drawing: asyncio.Task[None] | None = None
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._dirty, self._closed = False, False
        self._table.observe(self._from_any_thread(self._select), "selected")
        self._table.observe(self._from_any_thread(self._draw_soon), "dark")
        self._following = self._loop.create_task(self._follow(), name="dashboard")
        self._ticking = self._loop.call_later(TICK_S, self._tick)

    # --- what comes in -----------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        try:
            async with aclosing(cast("Any", self._source.follow())) as updates:
                async for update in updates:
                    self._take(update)
            self._problem = self._problem or ENDED
        except AioneError as error:
            self._problem = str(error)
        except Exception as error:
            logger.exception("the dashboard has stopped following")
            self._problem = f"the dashboard has stopped following: {type(error).__name__}"
        self._patch_soon()

    def _take(self, update: AssetUpdate) -> None:
        if update.whole:
            self._pending, self._whole = {}, True
            self._table.stale_after = STALE * interval_ms(self._source.interval) / 1000  # it may have told it just now
        self._pending.update(update.assets)
        self._problem = update.problem
        self._patch_soon()

    def _patch_soon(self) -> None:
        """The first update after a pause is shown at once; of those that follow a quarter of a second's go as one."""
        if self._patching is None and not self._closed:
            pause = self._patched + PERIOD_S - self._loop.time()
            self._patching = self._loop.call_later(max(TOGETHER_S, pause), self._patch)

    def _patch(self) -> None:
        self._patching, self._patched = None, self._loop.time()
        changed, self._pending = self._pending, {}
        whole, self._whole = self._whole, False
        self._assets = changed if whole else {**self._assets, **changed}
        self._table.show({symbol: cells_of(asset) for symbol, asset in changed.items()}, whole=whole)
        self._tell()
        if self._table.selected in changed:
            self._draw_soon()
        elif whole and self._table.selected and self._assets:  # without any it is the session that has gone
            self._leave(self._table.selected)

    # --- what is shown -----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._ticking = self._loop.call_later(TICK_S, self._tick)
        self._known = self._source.status()
        self._tell()

    def _tell(self) -> None:
        """The status line; a trait that does not change is not sent."""
        stale = self._table.stale()
        alerts = sum(asset.get("signal") == "ALERT" for asset in self._assets.values())
        words = [f"{len(self._assets)} symbols", f"{alerts} in alert"]
        if newest := max((text(asset.get("timestamp")) for asset in self._assets.values()), default=""):
            words.append(f"newest bar {newest[:16].replace('T', ' ')} UTC")
        if stale:
            more = f" and {len(stale) - NAMED} more" if len(stale) > NAMED else ""
            words.append(f"{len(stale)} stale: {', '.join(stale[:NAMED])}{more}")
        if reconnects := self._known.get("reconnects"):
            words.append(f"{reconnects} reconnects")
        degraded = self._known.get("degraded")
        if isinstance(degraded, Mapping):
            words += [f"{part} degraded: {text(why, 120)}" for part, why in degraded.items()]
        self._table.status = " · ".join(words) if self._assets else ""
        self._table.problem = text(self._problem)

    def _select(self) -> None:
        if self._drawing is not None:
            self._drawing.cancel()
            self._drawing = None
        self._detail.answer = ""
        self._draw_soon()

    def _leave(self, symbol: str) -> None:
        """The selected symbol is not followed any more: what was shown of it must not pass for the present."""
        if self._drawing is not None:
            self._drawing.cancel()
            self._drawing = None
        self._table.selected = ""
        self._place.children, self._explained = (self._detail,), None
        self._detail.content = {"gone": f"{symbol} is not followed any more."}

    def _draw_soon(self) -> None:
        self._dirty = True
        if self._drawing is None and not self._closed and self._table.selected in self._assets:
            self._drawing = self._loop.create_task(self._draw(), name="dashboard charts")
            self._drawing.add_done_callback(self._drawn)

    def _drawn(self, task: asyncio.Task[None]) -> None:
        if self._drawing is task:
            self._drawing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the charts could not be drawn", exc_info=error)
            self._problem = f"the charts could not be drawn: {type(error).__name__}"
            self._tell()

    async def _draw(self) -> None:
        while self._dirty and not self._closed:
            self._dirty = False
            symbol = self._table.selected
            asset = self._assets.get(symbol, {})
            self._detail.content = content_of(symbol, asset, self._source.last_alerts(symbol))
            bars = await self._source.bars(symbol, asset)
            if symbol != self._table.selected:  # another one meanwhile: its drawing follows
                continue
            theme: Theme = "dark" if self._table.dark else "light"
            self._price.figure = price_figure(symbol, bars, asset, theme).to_json()
            if self._explained != (explained := (asset.get("stage2"), theme)):  # once an alert, not once a bar
                self._factors.figure, self._explained = factor_figure(asset, theme).to_json(), explained
            self._open()
            await asyncio.sleep(REDRAW_S)

    def _open(self) -> None:
        """The charts take their place with the first symbol: their script is large."""
        if self._charts not in self._place.children:
            self._price.library = self._factors.library = Plotly()
            self._detail.layout.padding = "0 0 0 12px"
            self._place.children = (self._charts, self._detail)

    # --- what is asked -----------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        symbol = self._table.selected
        if symbol in self._assets and symbol not in self._asking:
            self._asking[symbol] = self._loop.create_task(self._request(symbol), name="dashboard calibration")

    async def _request(self, symbol: str) -> None:
        self._detail.answer = "asking …"
        try:
            answer = await self._source.request_calibration(symbol)
        except AioneError as error:
            answer = str(error)
        except Exception as error:
            logger.exception("%s: the calibration could not be asked for", symbol)
            answer = f"it could not be asked for: {type(error).__name__}"
        finally:
            del self._asking[symbol]
        if self._table.selected == symbol:  # else it would stand under another one's name
            self._detail.answer = text(answer).replace("_", " ")

    def _from_any_thread(self, call: Callable[[], None]) -> Callable[..., None]:
        """``call`` in the event loop, whichever thread the browser's messages come in."""

        def handed_on(*_: Any) -> None:
            if not self._closed:
                self._loop.call_soon_threadsafe(lambda: None if self._closed else call())

        return handed_on

    # --- life --------------------------------------------------------------------------------------------------------

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        replace_in_cell(self)
        return super()._repr_mimebundle_(**kwargs)

    def unwatched_s(self) -> float:
        """Seconds since a page last said that it shows this; pages say so every 20 seconds while they do."""
        return time.monotonic() - self._table.seen

    def close(self) -> None:
        """Stop following and close every widget; nothing goes on once the event loop has turned."""
        if self._closed:
            return
        self._closed = True
        self._ticking.cancel()
        if self._patching is not None:
            self._patching.cancel()
        for task in self._tasks():
            task.cancel()
        self._letting_go = self._loop.create_task(self._let_go(), name="dashboard's end")
        for widget in {*_below(self), *_below(self._charts)} - {self}:
            widget.close()
        super().close()

    async def aclose(self) -> None:
        """``close``, and wait until nothing goes on any more."""
        self.close()
        await self._letting_go

    async def _let_go(self) -> None:
        await asyncio.gather(*self._tasks(), return_exceptions=True)
        await self._source.aclose()

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [task for task in (self._following, self._drawing, *self._asking.values()) if task is not None]


def _source(session: Any, redis: Any, lake: Any, interval: str | None) -> Source:
    if (session is None) == (redis is None):
        raise InputError.of("session", session, "must be given, or else redis, the cache of a session: one of the two")
    if session is not None:
        for name, value in (("lake", lake), ("interval", interval)):
            if value is not None:
                raise InputError.of(name, value, "must be left out with a session, which has its own candles")
        return SessionSource(session)
    interval = "1m" if interval is None else interval
    interval_ms(interval)
    if lake is not None and not isinstance(lake, Lake):
        if not isinstance(lake, (str, Path)):
            raise InputError.of("lake", lake, "must be a Lake or its folder")
        lake = Lake(lake)
    if isinstance(redis, SimpleCacheHandler):
        return CacheSource(redis, lake, interval, own=False)
    if not isinstance(redis, (str, SecretStr)):
        raise InputError.of("redis", redis, "must be the URL of a cache or a SimpleCacheHandler")
    return CacheSource(SimpleCacheHandler.from_url(redis), lake, interval, own=True)


def _below(widget: Any) -> list[Any]:
    """The widget and every one inside it, their layouts and the charts' library too."""
    found = [widget]
    for name in ("layout", "style", "library"):
        if isinstance(part := getattr(widget, name, None), ipywidgets.Widget):
            found.append(part)
    for child in getattr(widget, "children", ()):
        found += _below(child)
    return found
