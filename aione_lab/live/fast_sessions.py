"""`FastSessions`: sessions of an exchange's fast symbols, one after the other as the list changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import stamina

from aione_lab.engine.params import check_kind
from aione_lab.errors import ExchangeError, InputError
from aione_lab.lake.client import RefusedError
from aione_lab.live.prefilter import FastSymbols, Prefilter
from aione_lab.live.session import Session
from aione_lab.units import parse_symbol

_log = logging.getLogger(__name__)

LOOK_S = 1.0  # between two looks whether the prefilter has looked anew
ATTEMPTS = 8  # sessions of other symbols that may fail to begin, one after the other
PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0  # after the first and after a later one, doubling


class FastSessions:
    """Runs a session of the symbols that ``prefilter`` chooses, and a new one where its next look chooses others.

    ``make(symbols)`` gives a Session of these symbols, of whichever feed. Give it a journal: then what stays on the
    list goes on where it stood, and only what is new warms up. A symbol with an open paper trade stays on the list, and
    ``always`` names those that are on it anyway, such as the reference. A list that would be empty changes nothing; at
    the beginning the first look that finds something is waited for. ``session`` is the one that runs (or ran last).
    """

    session: Session

    def __init__(
        self, prefilter: Prefilter, make: Callable[[Sequence[str]], Session], *, always: Sequence[str] = ()
    ) -> None:
        check_kind("prefilter", prefilter, Prefilter)
        if not callable(make):
            raise InputError.of("make", make, "must be a function that gives a Session of some symbols")
        self._prefilter, self._make = prefilter, make
        self._always = tuple(parse_symbol(name, "always") for name in always)
        self._seen: FastSymbols | None = None  # the look that the session's symbols come from
        self._symbols: tuple[str, ...] = ()
        self._stopping = self._pausing = False

    async def open(self) -> None:
        """Look until something is fast and make the first session; raises what the first look or making it raises.

        There is no session where ``stop`` is called before.
        """
        self._seen = await self._prefilter.refresh()
        if not self._wanted(self._seen):
            _log.warning("no symbol is fast now: the next looks may find one")
            async with self._prefilter:
                while not self._stopping and not self._wanted(self._seen):
                    await asyncio.sleep(LOOK_S)
                    assert self._prefilter.latest is not None
                    self._seen = self._prefilter.latest
        if not self._stopping:
            symbols = self._wanted(self._seen)
            self.session = self._make(symbols)
            self._symbols = symbols

    def start(self) -> asyncio.Task[None]:
        """``run`` as a task of the running event loop."""
        return asyncio.ensure_future(self.run())

    async def run(self) -> None:
        """Go on until a session ends by itself, which raises what it raises, or ``stop`` is called.

        Where the exchange does not answer while a session of other symbols begins, it is tried again for some minutes.
        """
        if not self._symbols and not self._stopping:
            await self.open()
        attempts = 1  # whoever has just begun wants to know at once that there is no network
        async with self._prefilter:
            while not self._stopping and await self._run_one(attempts):
                attempts = ATTEMPTS
                assert self._prefilter.latest is not None
                before, self._seen = self._symbols, self._prefilter.latest
                self._symbols = self._wanted(self._seen)  # asked anew: a trade may have opened while it was stopping
                told = [f"+{name}" for name in self._symbols if name not in before]
                told += [f"-{name}" for name in before if name not in self._symbols]
                _log.info("other symbols are fast now: %s", ", ".join(told))
                if not self._stopping:
                    self.session = self._make(self._symbols)

    async def stop(self) -> None:
        """Stop cleanly: what was decided is on disk when this returns."""
        self._stopping = True
        if self._symbols:
            await self._end()
            await self.session.feed.aclose()  # of one that never began

    async def _end(self) -> None:
        """Stop the session, or the pause before the next try."""
        await self.session.stop()
        if self._pausing:
            self._running.cancel()

    async def _run_one(self, attempts: int) -> bool:
        """Run the session until it ends; True where that was because of other symbols."""
        self._pausing = False
        self._running = running = asyncio.ensure_future(self._tried(self.session.start(), attempts))
        changed = asyncio.ensure_future(self._changed())
        try:
            await asyncio.wait({running, changed}, return_when=asyncio.FIRST_COMPLETED)
            others = changed.done() and not running.done()
        finally:
            changed.cancel()
            await self._end()
        await asyncio.wait({running})
        if not running.cancelled():  # it is where it was stopped before its first step or amid a pause
            running.result()
        return others

    async def _tried(self, running: asyncio.Task[None], attempts: int) -> None:
        """Wait for the session that is ``running``; where it could not begin, for others of its symbols after it."""
        async for attempt in stamina.retry_context(
            on=self._may_pass, attempts=attempts, timeout=None, wait_initial=PAUSE_S, wait_max=LONGEST_PAUSE_S
        ):
            with attempt:
                if attempt.num > 1:
                    self._pausing = False
                    self.session = self._make(self._symbols)
                    running = self.session.start()
                await running

    def _may_pass(self, error: Exception) -> bool:
        """Whether a session failed at its beginning with what the feed of one that runs rides out."""
        away = isinstance(error, ExchangeError) and not isinstance(error, RefusedError)
        self._pausing = away and self.session.closing.lag_s is None and not self._stopping
        if self._pausing:
            _log.warning("the session of the fast symbols could not begin: %s", error)
        return self._pausing

    async def _changed(self) -> None:
        """Return as soon as a look of the prefilter means other symbols than the session's."""
        while True:
            await asyncio.sleep(LOOK_S)
            found = self._prefilter.latest
            if found is not None and found is not self._seen:
                if set(self._wanted(found)) != set(self._symbols):
                    return
                self._seen = found

    def _wanted(self, found: FastSymbols) -> tuple[str, ...]:
        held = [name for name in self.session.held() if name in self._symbols] if self._symbols else []
        return tuple(dict.fromkeys([*self._always, *found.symbols, *held])) or self._symbols
