"""`ThresholdStore`: the calibrated sets of every symbol, with provenance, expiry, history and rollback.

The file ``<folder>/thresholds/<SYMBOL>.json`` is the truth (``<SYMBOL>.5m.json`` for another interval than 1m). What is
published in a cache is a copy for other processes, under ``thresholds:<SYMBOL>``, that lives no longer than the set.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aione_lab.errors import InputError, ThresholdError
from aione_lab.files import LockHeld, hold_lock, make_folder, write_whole
from aione_lab.thresholds.book import Book
from aione_lab.thresholds.classes import DEFAULT_CLASSES, AssetClasses, Source, thresholds_for
from aione_lab.thresholds.params import Thresholds
from aione_lab.thresholds.provenance import VERDICTS, Entry, Provenance, Stamp, strict_json
from aione_lab.units import interval_ms, parse_symbol, to_ms

if TYPE_CHECKING:
    import pandas as pd

    from aione_lab.cache import SimpleCacheHandler

LIFETIME = dt.timedelta(days=14)
LONGEST = dt.timedelta(days=3650)
MAIN_INTERVAL = "1m"
NAMESPACE = "global"
CHANNEL = "thresholds_update"
LOCK_TIMEOUT = 10.0  # seconds; a promotion takes some milliseconds

_FILE = re.compile(r"([A-Z0-9][A-Z0-9_]*)(?:\.([0-9]+[mhd]))?\.json")

logger = logging.getLogger(__name__)

Time = dt.datetime | int | str | None


@dataclass(frozen=True)
class Current:
    """The thresholds to use for a symbol now, and where they come from.

    ``source``: "calibrated", "asset_class" or "default", the highest that sets a field; ``sources``: the same of every
    field; ``reason``: one plain sentence; ``entry``: the calibrated set, where one is used.
    """

    symbol: str
    interval: str
    thresholds: Thresholds
    source: Source
    sources: Mapping[str, Source]
    reason: str
    entry: Entry | None


class ThresholdStore:
    """Calibrated sets by symbol (and interval), in files below ``folder``; nothing is made before the first promotion.

    ``cache``: where ``publish``, ``read`` and ``follow`` go unless they are told otherwise. ``classes``: the asset
    classes that ``current`` falls back to. Times are datetimes with a zone (or what ``units.to_ms`` reads); ``now``
    left out is the present. Several processes may promote at once; readers never see half a file.

    Raises InputError for an argument that cannot be used, ThresholdError for a file or a cached set that is damaged,
    and where the symbol is being written by another process for more than ten seconds.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] = "experiments",
        cache: SimpleCacheHandler | None = None,
        *,
        classes: AssetClasses = DEFAULT_CLASSES,
    ) -> None:
        try:
            self.folder = Path(folder).absolute() / "thresholds"
        except (TypeError, ValueError, OSError):
            raise InputError.of("folder", folder, "must be the folder of the experiments") from None
        if "\0" in str(folder) or any(one.exists() and not one.is_dir() for one in (self.folder.parent, self.folder)):
            raise InputError.of("folder", str(folder), "must be the folder of the experiments")
        if not isinstance(classes, AssetClasses):
            raise InputError.of("classes", classes, "must be an AssetClasses object")
        self.cache = None if cache is None else _handler(cache)
        self.classes = classes

    # --- writing -----------------------------------------------------------------------------------------------------

    def promote(
        self,
        symbol: str,
        thresholds: Thresholds,
        *,
        verdict: str,
        provenance: Provenance,
        interval: str = MAIN_INTERVAL,
        now: Time = None,
        lifetime: dt.timedelta = LIFETIME,
    ) -> Entry:
        """Put an accepted set in force, for ``lifetime``; it is on disk when this returns.

        InputError for any other ``verdict`` than "accept" (with the study's sentence), for one that ``provenance``
        contradicts, and for a set that does not go together with the asset class of the symbol.
        """
        place = _place(symbol, interval)
        if not isinstance(thresholds, Thresholds):
            raise InputError.of("thresholds", thresholds, "must be a Thresholds object")
        if not isinstance(provenance, Provenance):
            raise InputError.of("provenance", provenance, "must be a Provenance object")
        if verdict not in VERDICTS:
            raise InputError.of("verdict", verdict, f"must be one of {', '.join(VERDICTS)}")
        if verdict != provenance.verdict:
            raise InputError.of("verdict", verdict, f"the provenance says {provenance.verdict!r}")
        if verdict != "accept":
            raise InputError.of("verdict", verdict, f"only an accepted set is promoted; {provenance.sentence}")
        if not isinstance(lifetime, dt.timedelta) or not dt.timedelta(seconds=1) <= lifetime <= LONGEST:
            raise InputError.of("lifetime", lifetime, "must be a timedelta between a second and ten years")
        thresholds_for(place[0], thresholds, self.classes)
        at = _ms(now)
        expires = to_ms(at + lifetime // dt.timedelta(milliseconds=1), "lifetime")

        def change(book: Book) -> Book:
            stamp = Stamp(
                **{name: getattr(provenance, name) for name in Provenance.model_fields},
                symbol=book.symbol,
                interval=book.interval,
                number=book.promotions + 1,
                promoted_at=at,
                expires_at=expires,
            )
            return book.promote(Entry.of(thresholds, stamp), at)

        return self._change(place, change)

    def rollback(self, symbol: str, *, interval: str = MAIN_INTERVAL, now: Time = None) -> Entry:
        """Put the set in force that was before the present one, with its own expiry. InputError where there is none."""
        at = _ms(now)
        return self._change(_place(symbol, interval), lambda book: book.rollback(at))

    def expire(self, symbol: str, *, interval: str = MAIN_INTERVAL, now: Time = None) -> Entry:
        """End the time of the set in force, so that the asset class and the defaults hold. InputError where is none."""
        at = _ms(now)
        return self._change(_place(symbol, interval), lambda book: book.expire(at))

    def _change(self, place: tuple[str, str], change: Callable[[Book], Book]) -> Entry:
        """Read, change and write a book under its lock; the set that is in force afterwards."""
        path = self._path(place)
        locks = self.folder / ".locks"
        try:
            make_folder(locks)
            with hold_lock(locks / f"{path.stem}.lock", LOCK_TIMEOUT):
                for left in self.folder.glob(f".{path.name}.*.tmp"):  # of a writer that was killed
                    left.unlink(missing_ok=True)
                book = change(Book.read(path, *place))
                write_whole(path, book.encode())
        except LockHeld:
            raise ThresholdError(f"{path}: another process holds its lock (waited {LOCK_TIMEOUT:g} s)") from None
        except OSError as error:
            raise ThresholdError(f"{path}: cannot be written ({error.strerror or error})") from None
        entry = book.in_force
        assert entry is not None
        return entry

    # --- reading -----------------------------------------------------------------------------------------------------

    def symbols(self, *, interval: str = MAIN_INTERVAL) -> list[str]:
        """Symbols that have a file, sorted; whether what is in it still holds, ``is_expired`` says."""
        interval_ms(interval)
        names = []
        with contextlib.suppress(FileNotFoundError):
            for path in self.folder.iterdir():
                found = _FILE.fullmatch(path.name)
                if found and (found[2] or MAIN_INTERVAL) == interval:
                    names.append(found[1])
        return sorted(names)

    def entry(self, symbol: str, *, interval: str = MAIN_INTERVAL) -> Entry | None:
        """The set in force, expired or not; None where none was ever promoted."""
        return self._book(_place(symbol, interval)).in_force

    def is_expired(self, symbol: str, *, interval: str = MAIN_INTERVAL, now: Time = None) -> bool:
        """Whether there is a set and its time is over."""
        at = _ms(now)
        entry = self._book(_place(symbol, interval), now).in_force
        return entry is not None and entry.is_expired(at)

    def calibrated(self, symbol: str, *, interval: str = MAIN_INTERVAL, now: Time = None) -> Thresholds:
        """The calibrated set alone, with its ``meta``; ThresholdError where there is none or its time is over."""
        place, at = _place(symbol, interval), _ms(now)
        entry = self._book(place, now).in_force
        problem = _no_set(place) if entry is None else entry.refusal(*place, at)
        if entry is None or problem:
            raise ThresholdError(f"{place[0]}: {problem}")
        return entry.thresholds

    def current(self, symbol: str, *, interval: str = MAIN_INTERVAL, now: Time = None) -> Current:
        """The thresholds to use: field by field the calibrated set, else the asset class, else the default.

        A set that is missing or expired is left out, and ``reason`` says so; a damaged file raises ThresholdError.
        With an earlier ``now`` the history counts up to then: what was promoted later was not in force yet.
        """
        place, at = _place(symbol, interval), _ms(now)
        entry = self._book(place, now).in_force
        return self._resolve(place, entry, _no_set(place) if entry is None else entry.refusal(*place, at))

    def history(self, symbol: str, *, interval: str = MAIN_INTERVAL) -> pd.DataFrame:
        """What was done, oldest first, one row each, index ``event`` from 1.

        Columns: ``action`` (promote, rollback, expire), ``at`` (UTC), ``number`` of the set that it was about,
        ``in_force`` (whether that set is, now), and of the set ``study, verdict, sentence, expires_at, thresholds``.
        """
        import pandas as pd  # not at the top: everything that only reads thresholds would load it

        book = self._book(_place(symbol, interval))
        sets = {event.number: event.entry for event in book.events if event.entry is not None}
        sets |= {entry.number: entry for entry in book.stack()}  # with the ends that were put to them
        in_force = book.in_force.number if book.in_force else None
        rows = [
            {
                "action": event.action,
                "at": event.at,
                "number": event.number,
                "in_force": event.number == in_force,
                "study": sets[event.number].stamp.study,
                "verdict": sets[event.number].stamp.verdict,
                "sentence": sets[event.number].stamp.sentence,
                "expires_at": sets[event.number].stamp.expires_at,
                "thresholds": sets[event.number].thresholds,
            }
            for event in book.events
        ]
        names = ["action", "at", "number", "in_force", "study", "verdict", "sentence", "expires_at", "thresholds"]
        frame = pd.DataFrame(rows, columns=names, index=pd.RangeIndex(1, len(rows) + 1, name="event"))
        for name in ("at", "expires_at"):
            frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601").dt.as_unit("ms")
        return frame

    def _resolve(self, place: tuple[str, str], entry: Entry | None, refusal: str | None) -> Current:
        symbol, interval = place
        used = entry if refusal is None else None
        try:
            thresholds = thresholds_for(symbol, None if used is None else used.thresholds, self.classes)
        except InputError as error:  # the classes were changed since the promotion
            used, refusal = None, f"the calibrated set does not go together with the asset class ({error})"
            thresholds = thresholds_for(symbol, None, self.classes)
        kind = self.classes.of(symbol)
        sources: dict[str, Source] = {}
        for name in Thresholds.model_fields:
            if name != "meta":
                by_class: Source = "asset_class" if name in kind.thresholds.model_fields_set else "default"
                calibrated = used is not None and name in used.thresholds.model_fields_set
                sources[name] = "calibrated" if calibrated else by_class
        if used is not None:
            source: Source = "calibrated"
            reason = f"study {used.stamp.study!r}, accepted, holds until {used.stamp.expires_at}: {used.stamp.sentence}"
        else:
            source = "asset_class" if "asset_class" in sources.values() else "default"
            what = f"those of asset class {kind.name!r}" if source == "asset_class" else "the defaults"
            reason = f"{what}, because {refusal}"
        return Current(symbol, interval, thresholds, source, sources, reason, used)

    def _book(self, place: tuple[str, str], now: Time = None) -> Book:
        book = Book.read(self._path(place), *place)
        # The present is what the file says: the clock of whoever promoted may be a little ahead of ours.
        return book if now is None else book.until(_ms(now))

    def _path(self, place: tuple[str, str]) -> Path:
        symbol, interval = place
        return self.folder / (f"{symbol}.json" if interval == MAIN_INTERVAL else f"{symbol}.{interval}.json")

    # --- the copy in a cache -----------------------------------------------------------------------------------------

    async def publish(
        self,
        symbol: str,
        cache: SimpleCacheHandler | None = None,
        *,
        interval: str = MAIN_INTERVAL,
        now: Time = None,
    ) -> Thresholds | None:
        """Copy the set in force to the cache and tell who follows; the set, or None where none holds.

        The copy lives as long as the set, fourteen days at most. Where none holds (any more) the copy is removed. Do it
        after every promotion, rollback and expiry. Raises CacheError where the cache is away.
        """
        handler = self._handler(cache)
        place = _place(symbol, interval)
        at = _ms(now)
        entry = (await asyncio.to_thread(self._book, place)).in_force
        while True:
            published = None
            if entry is None or entry.refusal(*place, at):
                await handler.delete(_key(place), NAMESPACE)
            else:
                left = min((to_ms(entry.stamp.expires_at) - at) / 1000, LIFETIME.total_seconds())
                published = entry.thresholds
                await handler.store_in_cache(_key(place), NAMESPACE, published.to_json(), left)
            # Another process may have promoted and published between our reading and our writing.
            before, entry = entry, (await asyncio.to_thread(self._book, place)).in_force
            if entry == before:
                break
        await handler.publish(CHANNEL, {"symbol": place[0], "interval": place[1]})
        return published

    async def read(
        self,
        symbol: str,
        cache: SimpleCacheHandler | None = None,
        *,
        interval: str = MAIN_INTERVAL,
        now: Time = None,
    ) -> Thresholds | None:
        """The copy in the cache, for a process that has not the files; None where there is none.

        ThresholdError for one that is damaged, of another symbol, not accepted or expired; CacheError where the cache
        is away.
        """
        place = _place(symbol, interval)
        entry = await self._fetch(place, self._handler(cache))
        if entry is None:
            return None
        if refusal := entry.refusal(*place, _ms(now)):
            raise ThresholdError(f"{_key(place)}: {refusal}")
        return entry.thresholds

    async def follow(
        self, cache: SimpleCacheHandler | None = None, *, interval: str = MAIN_INTERVAL
    ) -> AsyncGenerator[Current, None]:
        """First what the cache holds of every symbol, then each change as it is published, without end.

        A copy that cannot be used gives what ``current`` gives then: the asset class and the defaults, with the reason.
        CacheError where the cache is lost or a message is no JSON: begin anew, and what was missed comes first.
        """
        handler = self._handler(cache)
        interval_ms(interval)
        async with handler.subscribe(CHANNEL) as messages:
            for key in await handler.keys("thresholds:*", NAMESPACE):
                place = _checked_place(key.split(":")[1], interval, key)
                if place is not None and key == _key(place):
                    yield await self._cached(place, handler)
            async for message in messages:
                told = message.value if isinstance(message.value, dict) else {}
                place = _checked_place(told.get("symbol"), told.get("interval"), f"a message on {CHANNEL}")
                if place is not None and place[1] == interval:
                    yield await self._cached(place, handler)

    async def _cached(self, place: tuple[str, str], handler: SimpleCacheHandler) -> Current:
        entry = None
        try:
            entry = await self._fetch(place, handler)
            refusal = _no_set(place) if entry is None else entry.refusal(*place, _ms(None))
        except ThresholdError as error:
            refusal = f"the copy in the cache was refused: {error}"
            logger.warning("%s", refusal)
        return self._resolve(place, entry, refusal)

    async def _fetch(self, place: tuple[str, str], handler: SimpleCacheHandler) -> Entry | None:
        key = _key(place)
        content: Any = await handler.fetch_from_cache(key, NAMESPACE, raw=True)
        if content is None:
            return None
        try:
            values = strict_json(content)
        except ValueError as error:
            problem = f"{key}: is damaged ({error})"
        else:
            return Entry.read(values, key)
        raise ThresholdError(problem)

    def _handler(self, cache: SimpleCacheHandler | None) -> SimpleCacheHandler:
        if cache is None and self.cache is None:
            raise InputError.of("cache", cache, "must be a SimpleCacheHandler, here or when the store is made")
        return _handler(cache or self.cache)


def _place(symbol: str, interval: str) -> tuple[str, str]:
    interval_ms(interval)
    return parse_symbol(symbol), interval


def _key(place: tuple[str, str]) -> str:
    """Key in the cache; that of the main interval is ``thresholds:<SYMBOL>``."""
    symbol, interval = place
    return f"thresholds:{symbol}" if interval == MAIN_INTERVAL else f"thresholds:{symbol}:{interval}"


def _no_set(place: tuple[str, str]) -> str:
    return f"no {place[1]} set was calibrated"


def _ms(now: Time) -> int:
    return time.time_ns() // 1_000_000 if now is None else to_ms(now, "now")


def _handler(cache: Any) -> SimpleCacheHandler:
    from aione_lab.cache import SimpleCacheHandler  # most who read thresholds have no cache

    if not isinstance(cache, SimpleCacheHandler):
        raise InputError.of("cache", cache, "must be a SimpleCacheHandler")
    return cache


def _checked_place(symbol: Any, interval: Any, where: str) -> tuple[str, str] | None:
    """What a key or message of the cache names; anybody may write those, so a bad one is only logged."""
    try:
        return _place(symbol, interval)
    except InputError as error:
        logger.warning("%s was passed over: %s", where, error)
        return None
