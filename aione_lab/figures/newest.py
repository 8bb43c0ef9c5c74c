"""Work that only the newest request is worth: what came in between is skipped, not queued."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """Calls ``work`` with a request, and while it is busy remembers only the last one of those that follow.

    A hand on a slider asks faster than a browser draws. Requests come from the thread of the notebook's messages or
    of a cell; who finds the work running leaves the request with it and goes, so that no two run at once. What
    ``work`` raises is raised where it ran; a request that was left meanwhile is taken up with the next one.
    """

    def __init__(self, work: Callable[[T], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._waiting: list[T] = []  # at most one
        self._busy = False

    def __call__(self, request: T) -> None:
        with self._lock:
            self._waiting = [request]
            if self._busy:
                return
            self._busy = True
        try:
            while True:
                with self._lock:
                    if not self._waiting:
                        self._busy = False
                        return
                    newest = self._waiting.pop()
                self._work(newest)
        except BaseException:
            with self._lock:
                self._busy = False
            raise
