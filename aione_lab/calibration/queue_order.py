"""Who is next: the waiting line with ageing, the circuit breaker, and how often a symbol may come again.

Plain bookkeeping without a clock of its own: every method is told the time, in seconds of one steady clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aione_lab.calibration.queue_settings import QueueSettings

URGENT = 0.1
HIGH = 0.3
NORMAL = 0.5

PENDING = "pending"  # wanted, and not in line: held back by the breaker, cancelled, or the queue was closed
QUEUED = "queued"
QUEUED_HIGH = "queued_high"
QUEUED_URGENT = "queued_urgent"
IN_PROGRESS = "in_progress"
COMPLETED = "completed"
EXPIRED = "expired"
ERROR = "error"
STATES = (PENDING, QUEUED, QUEUED_HIGH, QUEUED_URGENT, IN_PROGRESS, COMPLETED, EXPIRED, ERROR)

FAILURES = 3
"""Failures in a row after which a symbol rests."""
REST_S = 600.0
"""Seconds of that rest. The first failure after it begins another one, a success ends the count."""

_LINE = (QUEUED, QUEUED_HIGH, QUEUED_URGENT)  # in rising urgency

Key = tuple[str, str]
"""Symbol and interval."""


@dataclass
class Waiting:
    """A task in line. A duplicate changes ``priority`` and ``state``, never the place in time."""

    key: Key
    priority: float
    state: str
    since: float  # seconds, when it was first asked for
    number: int  # of its first put: first in, first out among equals


class WaitingLine:
    """Tasks in line, at most one for a symbol and interval.

    The effective priority is ``max(min_priority, priority - urgency_decay * minutes waited)``, worked out when a task
    is taken. Since nobody gets below ``min_priority``, and equals go first in, first out, a task that has waited
    ``(priority - min_priority) / urgency_decay`` minutes is overtaken by nobody who comes later: none starves.
    Taking looks at every task; a line is as long as there are symbols, hundreds.
    """

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._tasks: dict[Key, Waiting] = {}
        self._puts = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(tuple(self._tasks.values()))

    def get(self, key: Key) -> Waiting | None:
        """The task of ``key``, where it is in line."""
        return self._tasks.get(key)

    def put(self, key: Key, priority: float, state: str, now: float) -> Waiting:
        """Add a task, or merge it into the one in line: the smaller priority and the more urgent state win."""
        settings = self._settings
        priority = min(max(priority, settings.min_priority), settings.max_priority)
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = Waiting(key, priority, state, now, self._puts)
            self._puts += 1
        else:
            task.priority = min(task.priority, priority)
            task.state = max(task.state, state, key=_LINE.index)
        return task

    def effective(self, task: Waiting, now: float) -> float:
        """Priority of ``task`` after its waiting."""
        minutes = max(0.0, now - task.since) / 60.0
        return max(self._settings.min_priority, task.priority - self._settings.urgency_decay * minutes)

    def take(self, now: float, held_until: Callable[[str], float]) -> Waiting | None:
        """Remove and return the next task, those of symbols that are held back left out; None: there is none."""
        ready = [task for task in self._tasks.values() if held_until(task.key[0]) <= now]
        if not ready:
            return None
        task = min(ready, key=lambda one: (self.effective(one, now), one.number))
        return self._tasks.pop(task.key)

    def ready_in(self, now: float, held_until: Callable[[str], float]) -> float | None:
        """Seconds until a task can be taken; None: the line is empty."""
        return min((max(0.0, held_until(task.key[0]) - now) for task in self._tasks.values()), default=None)

    def drop(self, key: Key) -> bool:
        """Remove the task of ``key``; False: it was not in line."""
        return self._tasks.pop(key, None) is not None


class Breaker:
    """Circuit breaker of every symbol: ``FAILURES`` in a row, and its tasks are held back for ``REST_S``."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def failed(self, symbol: str, now: float) -> bool:
        """Count a failure; True where it begins a rest."""
        self._failures[symbol] = self._failures.get(symbol, 0) + 1
        if self._failures[symbol] < FAILURES:
            return False
        self._until[symbol] = now + REST_S
        return True

    def succeeded(self, symbol: str) -> None:
        """End the count."""
        self._failures.pop(symbol, None)
        self._until.pop(symbol, None)

    def held_until(self, symbol: str) -> float:
        """Time until which the symbol rests; -inf where it does not."""
        return self._until.get(symbol, -math.inf)


class History:
    """When a symbol was last calibrated and last urgent, and whether it may be again."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._calibrated: dict[Key, float] = {}
        self._urgent: dict[str, float] = {}

    def may_recalibrate(self, key: Key, now: float) -> bool:
        """Whether ``recalibrate_hours`` have passed since the last calibration."""
        return now - self._calibrated.get(key, -math.inf) >= 3_600.0 * self._settings.recalibrate_hours

    def may_be_urgent(self, symbol: str, now: float) -> bool:
        """Whether ``urgent_hours`` have passed since the symbol was last taken as urgent."""
        return now - self._urgent.get(symbol, -math.inf) >= 3_600.0 * self._settings.urgent_hours

    def calibrated(self, key: Key, now: float) -> None:
        """Note a calibration that came to a verdict, whichever."""
        self._calibrated[key] = now

    def urgent(self, symbol: str, now: float) -> None:
        """Note that a task was taken as urgent."""
        self._urgent[symbol] = now

    def forget(self, key: Key) -> None:
        """The last calibration holds no more."""
        self._calibrated.pop(key, None)
