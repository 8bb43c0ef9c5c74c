"""The one small tree of errors that the lab raises on purpose."""

from __future__ import annotations

import difflib
import numbers
import os
from collections.abc import Iterable, Sequence
from typing import Any


class AioneError(Exception):
    """Base of every error raised on purpose; its text is one clear line."""


class InputError(AioneError, ValueError):
    """A caller's argument cannot be used: the text names it, its value and what is allowed."""

    @classmethod
    def of(cls, argument: str, value: object, allowed: str) -> InputError:
        """Build the standard sentence ``argument=value: allowed``, one line; long values are cut."""
        return cls(f"{argument}={_shown(value)}: {allowed}")

    @classmethod
    def unknown(cls, kind: str, name: object, known: Iterable[str]) -> InputError:
        """Refuse an unknown name, with the nearest known one as a suggestion."""
        names = sorted(known)
        near = nearest(str(name), names)
        listed = ", ".join([*names[:12], "…"] if len(names) > 12 else names)
        hint = f"did you mean {near!r}?" if near is not None else f"known: {listed}"
        return cls.of(kind, name, f"unknown; {hint}")


def nearest(given: str, names: Sequence[str]) -> str | None:
    """The one of ``names`` that ``given`` may be a misspelling of; None where none is near.

    The end that all have in common is left out: otherwise every symbol in USDT is near to every other one.
    """
    given = given[:80]
    same = len(os.path.commonprefix([text[::-1] for text in (*names, given)]))
    stems = {name[: len(name) - same]: name for name in names}
    near = difflib.get_close_matches(given[: len(given) - same], stems, n=1, cutoff=0.5)
    return stems[near[0]] if near else None


def is_whole(value: object) -> bool:
    """Whether ``value`` is an integer, Python's or numpy's; a bool is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def one_line(error: BaseException) -> str:
    """What an error says, on one line; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def whole(argument: str, value: Any, least: int, most: int | None = None) -> int:
    """Int of a whole number from ``least`` to ``most`` (None: no end); a bool is none."""
    if is_whole(value) and least <= value and (most is None or value <= most):
        return int(value)
    allowed = f"must be an integer ≥ {least}" if most is None else f"must be an integer from {least} to {most}"
    raise InputError.of(argument, value, allowed)


def _shown(value: object) -> str:
    """``repr`` on one line of at most 120 characters; a numpy number looks like a number, a path like a text."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()  # type: ignore[attr-defined]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list thousands deep
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 120 else text[:117] + "..."


class SequenceBreak(AioneError):
    """A candle did not directly follow the one before it (missing, repeated or out of order)."""


class LakeError(AioneError):
    """The lake cannot do what was asked: a lock is held, a file is missing."""


class LakeCorruption(LakeError):
    """A file of the lake does not match its checksum or cannot be read; the text names it."""


class ExchangeError(AioneError):
    """An exchange could not be reached or answered with something unusable."""


class CacheError(AioneError):
    """The cache could not be reached, did not answer in time, refused a write or holds something unreadable."""


class CacheRefusedError(CacheError):
    """The cache, full or read-only, did not store a value; the messages that went with it were sent."""


class AlertError(AioneError):
    """An alert or another request to a service could not be delivered.

    ``retry_after``: seconds after which it may help to try again, 0.0 where nobody said; None: it will not help.
    """

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class ThresholdError(AioneError):
    """No calibrated set can be had: there is none, it expired or was not accepted, its file is damaged or locked."""
