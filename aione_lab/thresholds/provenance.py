"""Where a calibrated set comes from, and how it is written: the flat JSON with everything else under ``meta``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from aione_lab.errors import InputError, ThresholdError
from aione_lab.settings import Config, Costs, ReadOnly
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import interval_ms, iso, parse_symbol, to_ms

Verdict = Literal["accept", "keep defaults", "not enough trades"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

_LINE = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
_DIGEST = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:+/=-]{1,200}$")]
_Time = Annotated[str, BeforeValidator(lambda value: iso(to_ms(value)))]
_Version = Annotated[str, Field(max_length=100)]


class Provenance(Config):
    """What a study says about its set: enough to repeat it, and the verdict in words. Times are ISO, UTC."""

    study: _LINE = Field(description="name of the study")
    start: _Time = Field(
        description="first bar of the candles; an ISO text, UTC milliseconds or a datetime with a zone"
    )
    end: _Time = Field(description="end of the candles, excluded")
    data_fingerprint: _DIGEST = Field(description="of the candles, reference and funding that were studied")
    spec_digest: _DIGEST = Field(description="``FeatureSpec.digest()``")
    costs: Costs | None = Field(None, description="what was taken off when it was judged; None: not known")
    verdict: Verdict
    sentence: Annotated[str, Field(min_length=1, max_length=2000)] = Field(description="the verdict in plain words")
    seed: Annotated[int, Field(ge=0)] = 0
    versions: Annotated[dict[_LINE, _Version], AfterValidator(ReadOnly)] = Field(
        default_factory=ReadOnly, description="package → version"
    )

    @model_validator(mode="after")
    def _a_span(self) -> Self:
        if to_ms(self.start) >= to_ms(self.end):
            raise ValueError("start must be before end")
        return self


class Stamp(Provenance):
    """``meta`` of a set in the store: its provenance, whose it is, and how long it holds."""

    symbol: Annotated[str, AfterValidator(parse_symbol)]
    interval: str
    number: Annotated[int, Field(ge=1)] = Field(description="counts the promotions of the symbol")
    promoted_at: _Time
    expires_at: _Time

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        interval_ms(self.interval)
        if to_ms(self.expires_at) < to_ms(self.promoted_at):
            raise ValueError("must not expire before it was promoted")
        return self

    def provenance(self) -> Provenance:
        """The study's part of it."""
        return Provenance(**{name: getattr(self, name) for name in Provenance.model_fields})


@dataclass(frozen=True)
class Entry:
    """A set that was promoted; ``thresholds.meta`` is ``stamp`` as JSON."""

    thresholds: Thresholds
    stamp: Stamp

    @classmethod
    def of(cls, thresholds: Thresholds, stamp: Stamp) -> Entry:
        """Put the stamp on the set, in the place of any ``meta`` that it had."""
        meta = stamp.model_dump(mode="json", exclude_none=True)  # what is not known is left out: older files lack it
        return cls(Thresholds.from_json({**thresholds.to_json(), "meta": meta}), stamp)

    @classmethod
    def read(cls, values: Any, where: str) -> Entry:
        """A set in its JSON form; ThresholdError that begins with ``where`` for anything else."""
        try:
            thresholds = Thresholds.from_json(values)
            if thresholds.meta is None:
                raise InputError("meta is missing: nothing says where the set comes from")
            return cls(thresholds, Stamp(**thresholds.meta))
        except (InputError, TypeError) as error:  # TypeError: a field of meta that is no name
            problem = f"{where}: {error}"
        raise ThresholdError(problem)

    @property
    def number(self) -> int:
        """Counts the promotions of the symbol."""
        return self.stamp.number

    def is_expired(self, now_ms: int) -> bool:
        """Whether its time is over at ``now_ms``."""
        return now_ms >= to_ms(self.stamp.expires_at)

    def refusal(self, symbol: str, interval: str, now_ms: int) -> str | None:
        """Why the set must not be used for the symbol now; None where it may."""
        stamp = self.stamp
        if (stamp.symbol, stamp.interval) != (symbol, interval):
            return f"the set was calibrated for {stamp.symbol} {stamp.interval}"
        if stamp.verdict != "accept":
            return f"the verdict of study {stamp.study!r} was {stamp.verdict!r}: {stamp.sentence}"
        if self.is_expired(now_ms):
            return f"the set of study {stamp.study!r} expired at {stamp.expires_at}"
        return None


def canonical(values: Mapping[str, Any]) -> str:
    """The one way to write a JSON object, for checksums."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def checksum(values: Mapping[str, Any]) -> str:
    """Sha256 of the canonical JSON."""
    return hashlib.sha256(canonical(values).encode()).hexdigest()


def strict_json(text: str | bytes) -> Any:
    """JSON without the liberties: no NaN, no key twice. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_each_once)
    except RecursionError:
        problem = "nested too deeply"
    raise ValueError(problem)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is there twice")
    return values
