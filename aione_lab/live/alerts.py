"""`AlertQueue`: alerts on their way to people; a sink that hangs or fails holds up neither the session nor another."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Self

from pydantic import Field

from aione_lab.cache.handler import SimpleCacheHandler
from aione_lab.errors import AlertError, CacheError, InputError, is_whole
from aione_lab.lake.schema import as_list
from aione_lab.live.alert_text import Alert as Alert
from aione_lab.settings import Config, NotNegative, Positive

logger = logging.getLogger(__name__)

MEMORY = "alerts_sent"
"""Key of what was delivered: ``{"BTCUSDT/1m": [timestamp, ...]}``, so that a repetition is known after a restart."""
REMEMBERED = 20  # newest alerts of a symbol and interval; a session that was killed tells those of some seconds again
MEMORY_TTL_S = 7 * 86_400.0
GOODBYE_S = 3.0  # what waits when the queue is closed has so long to go out
PAUSES_S = (0.5, 30.0)  # first and longest pause between tries


class AlertSettings(Config):
    """How many alerts wait, how often they go out, and how long a sink is tried."""

    queue_size: Annotated[int, Field(ge=1, le=100_000)] = Field(200, description="alerts waiting for one sink")
    symbol_pause_s: NotNegative = Field(
        60.0, description="seconds in which a symbol alerts once; second looks are free"
    )
    per_minute: Annotated[int, Field(ge=1, le=10_000)] = Field(20, description="alerts a minute to one sink")
    timeout_s: Annotated[float, Field(gt=0.0, le=600.0)] = Field(30.0, description="seconds for one try of a sink")
    give_up_s: Positive = Field(600.0, description="seconds after which an alert that could not be sent is given up")


class AlertQueue:
    """Takes alerts at once and delivers each to every sink, in order, in a task a sink.

    ``put`` never waits. A symbol that alerts again within ``symbol_pause_s`` is left out (``limited``); what exceeds
    ``per_minute`` waits; where more than ``queue_size`` wait for a sink its oldest are dropped (``dropped``). Failures
    that may pass are tried again for ``give_up_s``, so an alert may arrive twice but is lost only with a count
    (``failed``). With a ``cache`` an alert that was delivered before a restart is marked ``repeated``; without one
    only repetitions within this run are. Closing closes the sinks. For one event loop.
    """

    def __init__(
        self,
        sinks: Iterable[Any],
        settings: AlertSettings | None = None,
        cache: SimpleCacheHandler | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = AlertSettings() if settings is None else settings
        if not isinstance(self.settings, AlertSettings):
            raise InputError.of("settings", settings, "must be an AlertSettings")
        sinks = as_list(sinks, "sinks", "must be a list of sinks")
        for sink in sinks:
            if not _is_sink(sink):
                raise InputError.of("sinks", sink, "must have a name and the coroutines send(alert) and aclose()")
        self._outlets = [_Outlet(sink, self.settings, self._delivered, clock) for sink in sinks]
        self._cache, self._clock = cache, clock
        self._last: dict[str, float] = {}  # symbol → steady seconds of its last alert
        self._before: dict[str, list[int]] = {}  # what was delivered before this run
        self._seen: dict[str, list[int]] = {}  # what was taken
        self._memory: dict[str, list[int]] = {}  # what was delivered
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._limited = self._taken = 0

    def put(self, alert: Alert) -> bool:
        """Take an alert; False where its symbol alerted too short a time ago."""
        if not isinstance(alert, Alert):
            raise InputError.of("alert", alert, "must be an Alert")
        now = self._clock()
        last = self._last.get(alert.symbol)
        if not alert.second_look:
            if last is not None and now - last < self.settings.symbol_pause_s:
                self._limited += 1
                return False
            self._last[alert.symbol] = now
        if not _is_new(self._seen, alert) or alert.timestamp in self._before.get(_key(alert), ()):
            alert = dataclasses.replace(alert, repeated=True)
        self._taken += 1
        for outlet in self._outlets:
            outlet.add(alert)
        return True

    @property
    def metrics(self) -> dict[str, int]:
        """``queue_size`` (of the longest line), ``taken``, ``limited``; ``sent, failed, dropped`` over all sinks."""
        lines = self._outlets
        return {
            "queue_size": max((len(line.waiting) for line in lines), default=0),
            "taken": self._taken,
            "limited": self._limited,
            **{name: sum(getattr(line, name) for line in lines) for name in ("sent", "failed", "dropped")},
        }

    @property
    def degraded(self) -> dict[str, str]:
        """Sink → why its last try failed; those that work are not in it."""
        return {line.sink.name: line.problem for line in self._outlets if line.problem}

    async def start(self) -> None:
        """Read what was delivered before, then begin; what the cache cannot tell is not known."""
        if self._keeper is not None:
            return
        if self._cache is not None:
            try:
                self._before = _checked_memory(await self._cache.get_json(MEMORY))
                self._memory = {key: list(stamps) for key, stamps in self._before.items()}
            except CacheError as error:
                logger.warning("alerts sent before this run are not known: %s", error)
        self._keeper = asyncio.create_task(self._keep(), name="alerts sent")
        for outlet in self._outlets:
            outlet.start()

    async def aclose(self) -> None:
        """Let what waits go out, then stop and close the sinks: three seconds at most for each of the steps."""
        if self._keeper is not None:
            await asyncio.gather(*(outlet.stop() for outlet in self._outlets))
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            self._keeper = None
            await self._save()
        await asyncio.gather(*(outlet.close() for outlet in self._outlets))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _delivered(self, alert: Alert) -> None:
        if _is_new(self._memory, alert):
            self._changed.set()

    async def _keep(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._save()

    async def _save(self) -> None:
        if self._cache is None or not self._memory:
            return
        try:
            await self._cache.set_json(MEMORY, dict(self._memory), MEMORY_TTL_S)
        except CacheError as error:
            logger.warning("what alerts were sent could not be written down: %s", error)


class _Outlet:
    """The line before one sink, and the task that works it off."""

    def __init__(
        self, sink: Any, settings: AlertSettings, delivered: Callable[[Alert], None], clock: Callable[[], float]
    ) -> None:
        self.sink, self._settings, self._delivered, self._clock = sink, settings, delivered, clock
        self.waiting: deque[tuple[Alert, float]] = deque()  # with the steady seconds since when
        self.sent = self.failed = self.dropped = 0
        self.problem = ""
        self._resume_at = 0.0  # steady seconds before which nothing is tried
        self._times: deque[float] = deque(maxlen=settings.per_minute)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sending: asyncio.Future[None] | None = None  # the last try

    def add(self, alert: Alert) -> None:
        if len(self.waiting) >= self._settings.queue_size:
            self.waiting.popleft()
            self.dropped += 1
        self.waiting.append((alert, self._clock()))
        self._idle.clear()
        self._wake.set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"alerts to {self.sink.name}")

    async def stop(self) -> None:
        if self._task is None:
            return
        if not self.problem:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._idle.wait()
        self._task.cancel()
        await asyncio.wait({self._task})
        self._task = None
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending}, timeout=GOODBYE_S)
            if not self._sending.done():
                logger.warning("%s: did not stop when told to, and is left to itself", self.sink.name)
        if self.waiting:
            logger.warning("%s: %d alerts were not delivered before the end", self.sink.name, len(self.waiting))

    async def close(self) -> None:
        try:
            await _within(asyncio.ensure_future(self.sink.aclose()), GOODBYE_S)
        except Exception:
            logger.exception("%s could not be closed", self.sink.name)

    async def _run(self) -> None:
        while True:
            while not self.waiting:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            await self._pause()
            if self.waiting:
                alert, since = self.waiting.popleft()
                try:
                    await self._deliver(alert, since)
                except asyncio.CancelledError:
                    self.waiting.appendleft((alert, since))
                    raise

    async def _pause(self) -> None:
        """Wait for the next place within ``per_minute``."""
        now = self._clock()
        if len(self._times) == self._times.maxlen:
            await asyncio.sleep(max(0.0, self._times[0] + 60.0 - now))
        self._times.append(self._clock())

    async def _deliver(self, alert: Alert, since: float) -> None:
        """Try until it is delivered, refused for good or too old; nothing but a cancellation gets out of here."""
        name = self.sink.name
        pause, longest = PAUSES_S
        while True:
            await asyncio.sleep(max(0.0, self._resume_at - self._clock()))
            wait: float | None
            try:
                await self._send(alert)
            except AlertError as error:
                problem, wait = str(error), error.retry_after
            except TimeoutError:
                problem, wait = f"{name}: no answer within {self._settings.timeout_s:g} s", 0.0
            except Exception as error:
                logger.exception("%s: failed on the alert of %s", name, alert.symbol)
                problem, wait = f"{name}: {type(error).__name__}", None
            else:
                self.problem = ""
                self.sent += 1
                self._delivered(alert)
                return
            if not self.problem:
                logger.warning("an alert of %s could not be sent: %s", alert.symbol, problem)
            self.problem = problem
            if wait is not None:
                wait, pause = max(wait, pause), min(2 * pause, longest)
                self._resume_at = self._clock() + wait
            if wait is None or self._resume_at - since > self._settings.give_up_s:
                self.failed += 1
                logger.error("the alert of %s was not delivered: %s", alert.symbol, problem)
                return

    async def _send(self, alert: Alert) -> None:
        """One try, in a task of its own: whatever a sink does with a cancellation, the line is not cancelled by it."""
        if self._sending is not None and not self._sending.done():
            raise AlertError(f"{self.sink.name}: has not come back from an earlier alert", 0.0)
        self._sending = asyncio.ensure_future(self.sink.send(alert))
        await _within(self._sending, self._settings.timeout_s)


async def _within(work: asyncio.Future[None], seconds: float) -> None:
    """Wait for the end of ``work``; TimeoutError where it had to be cancelled, also where it does not end by that."""
    await asyncio.wait({work}, timeout=seconds)
    late = not work.done()
    if late:
        work.cancel()
        await asyncio.wait({work}, timeout=GOODBYE_S)
        if not work.done():
            raise TimeoutError
    try:
        work.result()
    except asyncio.CancelledError as error:  # not ours: that one ends the waiting, above
        raise TimeoutError if late else RuntimeError("cancelled from within") from error


def _is_sink(sink: Any) -> bool:
    """Whether something has what a sink needs."""
    named = isinstance(getattr(sink, "name", None), str)
    return named and all(callable(getattr(sink, method, None)) for method in ("send", "aclose"))


def _key(alert: Alert) -> str:
    return f"{alert.symbol}/{alert.interval}{'/2' if alert.second_look else ''}"


def _is_new(known: dict[str, list[int]], alert: Alert) -> bool:
    """Whether an alert is not among the known ones; now it is, and the oldest are forgotten."""
    stamps = known.setdefault(_key(alert), [])
    if alert.timestamp in stamps:
        return False
    stamps.append(alert.timestamp)
    del stamps[:-REMEMBERED]
    return True


def _checked_memory(value: Any) -> dict[str, list[int]]:
    """What another run wrote; nothing where it is something else."""
    if not isinstance(value, dict):
        return {}
    return {
        key: [stamp for stamp in stamps if is_whole(stamp)] for key, stamps in value.items() if isinstance(stamps, list)
    }
