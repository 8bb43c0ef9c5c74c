"""The one small tree of errors that the lab raises on purpose."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AioneError(Exception):
    """Base of every error raised on purpose; its text is one clear line."""


class InputError(AioneError, ValueError):
    """A caller's argument cannot be used: the text names it, its value and what is allowed."""

    @classmethod
    def of(cls, argument: str, value: object, allowed: str) -> InputError:
        """Build the standard sentence ``argument=value: allowed``; long values are cut."""
        shown = repr(value)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        return cls(f"{argument}={shown}: {allowed}")

    @classmethod
    def unknown(cls, kind: str, name: object, known: Iterable[str]) -> InputError:
        """Refuse an unknown name, with the nearest known one as a suggestion."""
        names = sorted(known)
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
        return cls.of(kind, name, f"unknown; {hint}")


class SequenceBreak(AioneError):
    """A candle did not directly follow the one before it (missing, repeated or out of order)."""


class LakeError(AioneError):
    """The lake cannot do what was asked: a lock is held, a file is missing."""


class LakeCorruption(LakeError):
    """A file of the lake does not match its checksum or cannot be read; the text names it."""


class ExchangeError(AioneError):
    """An exchange could not be reached or answered with something unusable."""
