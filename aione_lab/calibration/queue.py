"""The calibration queue: who is calibrated next, in processes of their own, and what becomes of the results."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aione_lab.calibration.process import JobFailed, check_job, run_job
from aione_lab.calibration.queue_listeners import Listeners, OutcomeStore, StateManager
from aione_lab.calibration.queue_order import (
    COMPLETED,
    ERROR,
    EXPIRED,
    HIGH,
    IN_PROGRESS,
    NORMAL,
    PENDING,
    QUEUED,
    QUEUED_HIGH,
    QUEUED_URGENT,
    REST_S,
    URGENT,
    Breaker,
    History,
    Key,
    Waiting,
    WaitingLine,
)
from aione_lab.calibration.queue_settings import QueueSettings
from aione_lab.calibration.request import CalibrationOutcome, CalibrationRequest, Job
from aione_lab.errors import AioneError, InputError, one_line
from aione_lab.research.arguments import finite, whole
from aione_lab.units import interval_ms, parse_symbol

logger = logging.getLogger(__name__)

DELIVERY_S = 10.0
"""Seconds that ``close`` leaves a result to be delivered that was accepted just before."""
LONGEST_NOTE = 300  # characters of an error in ``progress``; the log has all of it


@dataclass
class _Running:
    work: asyncio.Task[None]
    settled: bool = False  # the process is gone, and its result on its way: too late to cancel
    done: asyncio.Event = field(default_factory=asyncio.Event)


class CalibrationQueue:
    """Queue of symbols to calibrate: the most urgent first, each by ``job`` in a process of its own.

    ``job(request, report)`` is a function at the top level of a module; None: ``calibrate_job`` on the lake
    ``data_lake``. Its ``request.options`` hold ``min_bars``,
    ``defaults_dir`` and ``optuna_timeout`` of the settings and what ``options`` adds or replaces. An accepted outcome
    goes, in this order, to ``store.save(outcome)``, ``on_result(outcome)`` and the state manager's
    ``update_calibration(symbol, thresholds)``, where there are any; the first that fails ends that, and the task is a
    failure.
    ``on_progress(symbol, tf, done, total)`` tells how far a job is. Callbacks may be plain or coroutines, are called
    in the event loop, and must not wait for the queue itself (``join``, ``close``).

    The state manager is told ``calib_status`` of a symbol: ``queued``, ``queued_high``, ``queued_urgent``;
    ``in_progress``; ``completed`` (a verdict, whichever) or ``error``; ``expired``; and ``pending`` while a symbol
    rests after failures, or when its task was cancelled. Two intervals of one symbol share it; ``progress`` has them
    apart.

    After three failures in a row a symbol rests for ten minutes: its tasks are taken, and wait. For one event loop,
    not for several threads. ``clock`` gives steady seconds.
    """

    def __init__(
        self,
        job: Job | None = None,
        settings: QueueSettings | None = None,
        store: OutcomeStore | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        state_manager: StateManager | None = None,
        on_result: Callable[[CalibrationOutcome], Any] | None = None,
        on_progress: Callable[[str, str, int, int], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if job is None:
            from aione_lab.calibration.job import calibrate_job  # Optuna: not for who brings a job of his own

            job = calibrate_job
        check_job(job)
        self._job = job
        self.settings = QueueSettings() if settings is None else settings
        if not isinstance(self.settings, QueueSettings):
            raise InputError.of("settings", settings, "must be a QueueSettings")
        if not callable(clock):
            raise InputError.of("clock", clock, "must be a function that gives seconds")
        self._clock = clock
        self._options = self._checked_options({} if options is None else options)
        self._listeners = Listeners(store, state_manager, on_result, on_progress)

        self._line = WaitingLine(self.settings)
        self._breaker = Breaker()
        self._history = History(self.settings)
        self._running: dict[Key, _Running] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._shown: dict[Key, dict[str, Any]] = {}
        self._tasks_completed = self._tasks_failed = 0
        self._closed = False
        self._changed = asyncio.Event()  # set at every change; who waits clears it first

    def _checked_options(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        own = self.settings.model_dump(include={"min_bars", "defaults_dir", "optuna_timeout"})
        if isinstance(options, Mapping):
            self._check_names(options)
            options = {**own, **options}
        request = CalibrationRequest("BTCUSDT", "1m", options)  # any symbol: its checks are what is wanted
        try:
            pickle.dumps(request)
        except Exception:  # pickle raises whatever an object's own methods raise
            raise InputError.of("options", options, "must be what pickle can hand to another process") from None
        return request.options

    def _check_names(self, options: Mapping[str, Any]) -> None:
        """Those of ``calibrate_job`` are known; whoever brings a job of his own knows what it takes."""
        job: Any = self._job
        while isinstance(job, functools.partial):
            job = job.func
        module = sys.modules.get("aione_lab.calibration.job")  # with Optuna: loaded where that is the job
        if module is not None and job is module.calibrate_job:
            module.check_options(options)

    # --- asking ------------------------------------------------------------------------------------------------------

    async def put(
        self,
        symbol: str,
        tf: str,
        priority: float = NORMAL,
        is_high_priority: bool = False,
        is_urgent: bool = False,
    ) -> str:
        """Ask for a calibration; returns the state the task has by that.

        Smaller priorities are sooner and are cut to the settings' range; ``is_high_priority`` makes it at most 0.3,
        ``is_urgent`` at most 0.1. ``completed``: it was calibrated within ``recalibrate_hours``, and nothing is done.
        Urgent passes over that, once in ``urgent_hours``; more often it counts as not urgent. A duplicate of a waiting
        task is merged into it, the more urgent wins and the waiting counts on; a duplicate of a running one is
        answered by the run (``in_progress``). ``pending``: the symbol rests after failures, the task waits.
        """
        key = _key(symbol, tf)
        priority = finite("priority", priority)
        for name, flag in (("is_high_priority", is_high_priority), ("is_urgent", is_urgent)):
            if not isinstance(flag, bool):
                raise InputError.of(name, flag, "must be True or False")
        while (running := self._running.get(key)) is not None:
            if not running.work.cancelling():
                return IN_PROGRESS
            await running.done.wait()  # it is being killed and will answer nobody
        self._check_open()
        now = self._clock()
        urgent = is_urgent and self._history.may_be_urgent(key[0], now)
        if not (urgent or self._line.get(key) or self._history.may_recalibrate(key, now)):
            return COMPLETED
        state = QUEUED_URGENT if urgent else QUEUED_HIGH if is_high_priority else QUEUED
        most = {QUEUED_URGENT: URGENT, QUEUED_HIGH: HIGH, QUEUED: priority}[state]
        if urgent:
            self._history.urgent(key[0], now)
        state = self._line.put(key, min(priority, most), state, now).state
        if self._breaker.held_until(key[0]) > now:
            state = PENDING
        self._changed.set()
        if self._shown.get(key, {}).get("state") != state:
            await self._tell(key, state)
        return state

    async def expire(self, symbol: str, tf: str) -> str:
        """Say that a symbol's calibration holds no more, and ask for a new one with normal priority."""
        key = _key(symbol, tf)
        self._check_open()
        self._history.forget(key)
        if key not in self._running and not self._line.get(key):
            await self._tell(key, EXPIRED)
        return await self.put(*key, NORMAL)

    def _check_open(self) -> None:
        if self._closed:
            raise AioneError("the calibration queue is closed")

    async def cancel(self, symbol: str, tf: str) -> bool:
        """Take a task out of the line, or kill its process and wait until it is gone.

        False: there was none, or its result was already being delivered.
        """
        key = _key(symbol, tf)
        if self._line.drop(key):
            self._changed.set()
            await self._tell(key, PENDING)
            return True
        running = self._running.get(key)
        if running is None or running.settled:
            return False
        running.work.cancel()
        await running.done.wait()
        return running.work.cancelled()

    # --- looking -----------------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> dict[str, int]:
        """``queue_size`` (waiting), ``active_workers`` (with a task in hand), ``tasks_completed``, ``tasks_failed``."""
        return {
            "queue_size": len(self._line),
            "active_workers": len(self._running),
            "tasks_completed": self._tasks_completed,
            "tasks_failed": self._tasks_failed,
        }

    @property
    def progress(self) -> dict[str, dict[str, Any]]:
        """``{"BTCUSDT 1m": {"state", "done", "total", "note"}}`` of every task so far, a copy.

        ``note`` is the sentence of the last outcome or the reason of the last error.
        """
        return {" ".join(key): dict(row) for key, row in self._shown.items()}

    def set_state_manager(self, manager: StateManager | None) -> None:
        """Tell ``manager`` about states and accepted sets from now on; None: nobody."""
        self._listeners.set_state_manager(manager)

    # --- working -----------------------------------------------------------------------------------------------------

    async def start_workers(self, n: int | None = None) -> None:
        """Have ``n`` workers, by default and at most ``max_concurrent``; asked again, more but never fewer."""
        n = self.settings.max_concurrent if n is None else whole("n", n, 1)
        self._check_open()
        while len(self._workers) < min(n, self.settings.max_concurrent):
            self._workers.append(asyncio.create_task(self._work()))

    async def join(self) -> None:
        """Wait until nothing is waiting or running, symbols that rest after failures included."""
        while self._line or self._running:
            if not self._workers and not self._closed:
                raise AioneError("nobody works on the calibration queue: call start_workers first")
            self._changed.clear()
            await self._changed.wait()

    async def close(self) -> None:
        """Stop the workers, kill what runs and drop what waits; afterwards no process is left."""
        self._closed = True
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)
        for task in self._line:
            self._line.drop(task.key)
            await self._tell(task.key, PENDING)
        self._changed.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _work(self) -> None:
        while True:
            task = await self._next()
            running = _Running(asyncio.create_task(self._calibrate(task.key)))
            self._running[task.key] = running
            try:
                await self._attend(running)
            finally:
                del self._running[task.key]
                self._changed.set()
                try:
                    if running.work.cancelled():
                        await self._tell(task.key, PENDING)
                finally:
                    running.done.set()

    async def _attend(self, running: _Running) -> None:
        """Wait for the work of a task; a worker that is stopped stops it first."""
        try:
            await asyncio.wait({running.work})
        except asyncio.CancelledError:
            if running.settled:
                await asyncio.wait({running.work}, timeout=DELIVERY_S)
            running.work.cancel()
            await asyncio.wait({running.work})
            raise

    async def _next(self) -> Waiting:
        """The next task; whoever awaits it goes on at once, so that a key is never neither waiting nor running."""
        while True:
            now = self._clock()
            task = self._line.take(now, self._breaker.held_until)
            if task is not None:
                return task
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._line.ready_in(now, self._breaker.held_until)):
                    await self._changed.wait()

    async def _calibrate(self, key: Key) -> None:
        """One task from beginning to end; nothing but a cancellation gets out of here."""
        await self._tell(key, IN_PROGRESS, done=0, total=0)
        try:
            outcome = await self._outcome(key)
            if outcome.accepted:
                await self._listeners.accepted(outcome)
        except JobFailed as error:
            logger.error("%s %s: the calibration failed: %s\n%s", *key, error, error.details)
            await self._failed(key, error)
        except Exception as error:
            logger.exception("%s %s: the calibration failed", *key)
            await self._failed(key, error)
        else:
            self._tasks_completed += 1
            self._breaker.succeeded(key[0])
            self._history.calibrated(key, self._clock())
            logger.info("%s %s: %s. %s", *key, outcome.verdict, outcome.sentence)
            await self._tell(key, COMPLETED, note=outcome.sentence)

    async def _outcome(self, key: Key) -> CalibrationOutcome:
        request = CalibrationRequest(*key, self._options)
        try:
            return await run_job(self._job, request, functools.partial(self._report, key), self.settings.optuna_timeout)
        finally:
            self._running[key].settled = True

    async def _report(self, key: Key, done: int, total: int) -> None:
        self._shown[key].update(done=done, total=total)
        await self._listeners.progress(*key, done, total)

    async def _failed(self, key: Key, error: Exception) -> None:
        self._tasks_failed += 1
        if self._breaker.failed(key[0], self._clock()):
            logger.warning("%s: rests for %g seconds after failures in a row", key[0], REST_S)
        note = one_line(error)
        await self._tell(key, ERROR, note=note[:LONGEST_NOTE])

    async def _tell(self, key: Key, state: str, **shown: Any) -> None:
        """Show a state, and tell it on."""
        row = self._shown.setdefault(key, {"state": state, "done": 0, "total": 0, "note": ""})
        row.update(state=state, **shown)
        await self._listeners.state(key[0], state)


def _key(symbol: str, tf: str) -> Key:
    symbol = parse_symbol(symbol)
    interval_ms(tf, "tf")
    return symbol, tf
