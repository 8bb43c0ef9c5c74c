"""`FastSessions`: sessions of an exchange's fast symbols, one after the other as the list changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from aione_lab.engine.params import check_kind
from aione_lab.errors import InputError
from aione_lab.live.prefilter import Prefilter
from aione_lab.live.session import Session

_log = logging.getLogger(__name__)

LOOK_S = 1.0  # between two looks whether the prefilter has looked anew


class FastSessions:
    """Runs a session of the symbols that ``prefilter`` chooses, and a new one where its next look chooses others.

    ``make(symbols)`` gives a Session of these symbols, of whichever feed. Give it a journal: then what stays on the
    list goes on where it stood, and only what is new warms up. A symbol with an open paper trade stays on the list.
    ``session`` is the one that runs (or ran last).
    """

    session: Session

    def __init__(self, prefilter: Prefilter, make: Callable[[Sequence[str]], Session]) -> None:
        check_kind("prefilter", prefilter, Prefilter)
        if not callable(make):
            raise InputError.of("make", make, "must be a function that gives a Session of some symbols")
        self._prefilter, self._make = prefilter, make
        self._symbols: tuple[str, ...] = ()
        self._opened = self._stopping = False

    async def open(self) -> None:
        """Look for the first time and make the first session; raises what either raises."""
        found = await self._prefilter.refresh()
        self._symbols = found.symbols
        self.session = self._make(self._symbols)
        self._opened = True

    def start(self) -> asyncio.Task[None]:
        """``run`` as a task of the running event loop."""
        return asyncio.ensure_future(self.run())

    async def run(self) -> None:
        """Go on until a session ends by itself, which raises what it raises, or ``stop`` is called."""
        if not self._opened:
            await self.open()
        async with self._prefilter:
            while not self._stopping and await self._run_one():
                if not self._stopping:
                    self.session = self._make(self._symbols)

    async def stop(self) -> None:
        """Stop cleanly: what was decided is on disk when this returns."""
        self._stopping = True
        if self._opened:
            await self.session.stop()

    async def _run_one(self) -> bool:
        """Run the session until it ends; True where that was because of other symbols."""
        running, others = self.session.start(), asyncio.ensure_future(self._others())
        try:
            await asyncio.wait({running, others}, return_when=asyncio.FIRST_COMPLETED)
            changed = others.done() and not running.done()
            if changed:
                before, self._symbols = set(self._symbols), others.result()
                told = [f"+{name}" for name in self._symbols if name not in before]
                told += [f"-{name}" for name in sorted(before - set(self._symbols))]
                _log.info("other symbols are fast now: %s", ", ".join(told))
        finally:
            others.cancel()
            await self.session.stop()
        await running
        return changed

    async def _others(self) -> tuple[str, ...]:
        """The symbols to follow, as soon as they are others."""
        seen = self._prefilter.latest
        while True:
            await asyncio.sleep(LOOK_S)
            found = self._prefilter.latest
            if found is None or found is seen:
                continue
            seen = found
            wanted = dict.fromkeys([*found.symbols, *(name for name in self.session.held() if name in self._symbols)])
            if wanted.keys() != set(self._symbols):
                return tuple(wanted)
