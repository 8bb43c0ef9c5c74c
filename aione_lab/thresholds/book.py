"""The file of a symbol: the set in force as flat JSON, and under ``meta`` how it came to that."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from aione_lab.errors import InputError, ThresholdError
from aione_lab.thresholds.provenance import Entry, checksum, strict_json
from aione_lab.units import iso, to_ms

Action = Literal["promote", "rollback", "expire"]

LARGEST = 64 << 20  # bytes; some ten thousand promotions, nobody has such a history


@dataclass(frozen=True)
class Event:
    """One line of the history: what was done to which set, and when."""

    action: Action
    at: str  # ISO, UTC
    number: int  # promote: the new set; rollback: the one gone back to; expire: the one whose time was ended
    entry: Entry | None = None  # the set that was promoted


@dataclass(frozen=True)
class Book:
    """History of one symbol and interval, oldest first; what is in force follows from it."""

    symbol: str
    interval: str
    events: tuple[Event, ...] = ()

    def stack(self) -> list[Entry]:
        """The sets that are not taken back, oldest first; the last one is in force. Ended ones carry their end."""
        found: list[Entry] = []
        for event in self.events:
            if event.action == "promote" and event.entry is not None:
                found.append(event.entry)
            elif event.action == "rollback":
                found.pop()
            elif event.action == "expire" and not found[-1].is_expired(to_ms(event.at)):
                stamp = found[-1].stamp.replace(expires_at=max(event.at, found[-1].stamp.promoted_at, key=to_ms))
                found[-1] = Entry.of(found[-1].thresholds, stamp)
            if found[-1].number != event.number:
                raise LookupError("its history contradicts itself")
        return found

    @property
    def in_force(self) -> Entry | None:
        """The set that the file shows, expired or not; None before the first promotion."""
        return self.stack()[-1] if self.events else None

    def until(self, now_ms: int) -> Book:
        """As it was at ``now_ms``: without the first event that is later, and whatever came after that one."""
        return replace(self, events=tuple(itertools.takewhile(lambda one: to_ms(one.at) <= now_ms, self.events)))

    @property
    def promotions(self) -> int:
        """Number of sets ever promoted."""
        return sum(event.action == "promote" for event in self.events)

    def promote(self, entry: Entry, at_ms: int) -> Book:
        """With a new set in force."""
        return replace(self, events=(*self.events, Event("promote", iso(at_ms), entry.number, entry)))

    def rollback(self, at_ms: int) -> Book:
        """With the set in force that was before the present one."""
        stack = self.stack()
        if len(stack) < 2:
            raise InputError.of("symbol", self.symbol, f"there is no earlier {self.interval} set to go back to")
        return replace(self, events=(*self.events, Event("rollback", iso(at_ms), stack[-2].number)))

    def expire(self, at_ms: int) -> Book:
        """With the time of the set in force ended."""
        entry = self.in_force
        if entry is None:
            raise InputError.of("symbol", self.symbol, f"there is no calibrated {self.interval} set")
        return replace(self, events=(*self.events, Event("expire", iso(at_ms), entry.number)))

    # --- as a file ---------------------------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """The file's content: ``Thresholds.from_json`` reads it, and so does ``--thresholds``."""
        entry = self.in_force
        assert entry is not None  # a book without a promotion is not written
        values = entry.thresholds.to_json()
        values["meta"]["history"] = [_event_json(event) for event in self.events]
        values["meta"]["checksum"] = checksum(values)
        return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode()

    @classmethod
    def read(cls, path: Path, symbol: str, interval: str) -> Book:
        """The book in a file, an empty one where there is no file; ThresholdError that names what is damaged."""
        try:
            if path.stat().st_size > LARGEST:
                raise ThresholdError(f"{path}: is too large to be a threshold file")
            content = path.read_bytes()
        except FileNotFoundError:
            return cls(symbol, interval)
        except OSError as error:
            raise ThresholdError(f"{path}: cannot be read ({error.strerror})") from None
        problem: str | None
        try:
            return cls._decode(strict_json(content), symbol, interval, str(path))
        except (LookupError, TypeError, AttributeError) as error:
            problem = f"{path}: is damaged ({type(error).__name__}: {error})"
        except ThresholdError as error:
            problem = str(error)
        except ValueError as error:  # not JSON, not UTF-8, a time that is none
            problem = f"{path}: is damaged ({error})"
        raise ThresholdError(" ".join(problem.split())[:400])

    @classmethod
    def _decode(cls, values: Any, symbol: str, interval: str, where: str) -> Book:
        meta = dict(values["meta"])
        told = meta.pop("checksum")
        if told != checksum({**values, "meta": meta}):
            raise ThresholdError(
                f"{where}: its checksum does not match; it was changed outside the store or is damaged"
            )
        events = [_event(one, where) for one in meta.pop("history")]
        book = cls(symbol, interval, tuple(events))
        numbers = [event.number for event in events if event.action == "promote"]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ThresholdError(f"{where}: its history is not in order")
        for event in events:
            if event.entry is not None:
                refusal = event.entry.refusal(symbol, interval, to_ms(event.entry.stamp.promoted_at) - 1)
                if refusal or event.entry.number != event.number:
                    raise ThresholdError(f"{where}: set {event.number}: {refusal or 'another number inside'}")
        shown = Entry.read({**values, "meta": meta}, where)
        in_force = book.in_force
        if in_force is None or in_force.thresholds.to_json() != shown.thresholds.to_json():
            raise ThresholdError(f"{where}: what it shows is not what its history says")
        return book


def _event_json(event: Event) -> dict[str, Any]:
    values: dict[str, Any] = {"action": event.action, "at": event.at, "number": event.number}
    if event.entry is not None:
        values["thresholds"] = event.entry.thresholds.to_json()
    return values


def _event(values: Any, where: str) -> Event:
    action, number = values["action"], values["number"]
    known = {"action", "at", "number"} | ({"thresholds"} if action == "promote" else set())
    if action not in ("promote", "rollback", "expire") or set(values) != known or type(number) is not int:
        raise ThresholdError(f"{where}: its history has an entry that is none")
    entry = Entry.read(values["thresholds"], where) if action == "promote" else None
    return Event(action, iso(to_ms(values["at"])), number, entry)
