"""`Trigger` and `Factor`: what a user adds to Stage1 and Stage2, declared in one place.

A declaration is a compiled *step* and the words and numbers about it. Given to a ``FeatureSpec``, it is computed bar
by bar like everything built in, and shows up wherever triggers and factors are listed. A step is a function

    step(memory, bar, row)

of its own memory (a record of ``state``, all zeros at the start and after a gap), one closed candle ``bar``
(``records.BAR``) and that bar's finished built-in features ``row`` (``records.FEATURES``). It may change its memory
and nothing else; what it writes elsewhere is lost. It sees no later bar, so it cannot look ahead. It must be compiled
by ``numba.njit``, without fastmath or parallel: those give other bytes live than in bulk.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import string
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numba.core import config
from numba.core.registry import CPUDispatcher
from pydantic import Field, PrivateAttr, field_validator, model_serializer

from aione_lab.engine.records import ASSESSMENT, FACTORS, FEATURE_NAMES, REASONS
from aione_lab.settings import Config
from aione_lab.thresholds.search import Search

LANGUAGES = ("en", "uk")
NOTHING = np.dtype([("nothing", "i1")])
"""Memory of a step that needs none."""

_HIDDEN = frozenset(dir(np.record))  # attributes of numpy that would hide a field of the same name without the JIT


class _Own(Config):
    """What triggers and factors share. Two with the same code, memory and numbers are equal."""

    kind: ClassVar[str]
    words: ClassVar[tuple[str, ...]]  # fields that change no number

    name: str
    step: Any = Field(description="compiled function of (memory, bar, row)")
    state: Any = Field(NOTHING, description="numpy dtype of the memory: a structure of plain numbers")
    description: str = ""
    _source: str = PrivateAttr("")

    @field_validator("step")
    @classmethod
    def _is_compiled(cls, value: Any) -> Any:
        plain_is_fine = bool(getattr(config, "DISABLE_JIT"))  # noqa: B009  set by numba at run time
        if not isinstance(value, CPUDispatcher) and not (plain_is_fine and isinstance(value, FunctionType)):
            raise ValueError("must be a function compiled by numba.njit")
        if len(inspect.signature(_function(value)).parameters) != 3:
            raise ValueError("must take three arguments: memory, bar, row")
        options = getattr(value, "targetoptions", {})
        if options.get("fastmath") or options.get("parallel"):
            raise ValueError("must be compiled without fastmath and parallel")
        return value

    @field_validator("state")
    @classmethod
    def _is_plain(cls, value: Any) -> np.dtype[Any]:
        try:
            dtype = np.dtype(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"must be a numpy dtype ({error})") from None
        if not dtype.names:
            raise ValueError("must have named fields, such as np.dtype([('count', 'i8')])")
        return _checked(dtype)

    def model_post_init(self, context: Any, /) -> None:
        self._source = _source_digest(_function(self.step), set())

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its numbers among the features."""
        raise NotImplementedError

    @model_serializer(mode="wrap", when_used="json")
    def _identity(self, handler: Callable[[Any], Any]) -> dict[str, Any]:
        """JSON cannot carry code: its digest stands for it, and words are left out."""
        skipped = {"step", "state", *self.words}
        values = {name: getattr(self, name) for name in type(self).model_fields if name not in skipped}
        return {"kind": self.kind, **values, "step": self._source, "state": repr(self.state.descr)}

    def digest(self) -> str:
        """Sha256 of the code (with the functions and constants it refers to), the memory and the numbers."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Own) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class Trigger(_Own):
    """A Stage1 reason: holds on a bar where the step's number reaches the threshold.

    The step returns one number that knows nothing of the threshold (NaN: not known, holds never); the comparison is
    the engine's, so the threshold can be calibrated, ``Thresholds(custom={name: …})``, over the same features.
    ``search``: low, high and step of the range a study tries. ``phrase``: language → words of the narrative, with
    ``{value}`` and ``{limit}`` where the two numbers go.
    """

    kind = "trigger"
    words = ("description", "phrase")

    threshold: float
    search: tuple[float, float, float]
    relation: Literal[">=", "<="] = ">="
    phrase: dict[str, str] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _named(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Z][A-Z0-9_]{1,39}", value):
            raise ValueError("must be 2 to 40 capital letters, digits and underscores")
        if value in REASONS or value.lower() in (*FEATURE_NAMES, "custom", "current_price"):
            raise ValueError("is taken by a built-in reason or feature")
        return value

    @field_validator("search")
    @classmethod
    def _range(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        Search(*value)
        return value

    @field_validator("phrase")
    @classmethod
    def _phrases(cls, value: dict[str, str]) -> dict[str, str]:
        for language, text in _worded(value).items():
            try:
                fields = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
                text.format(value="1", limit="2")
            except (ValueError, KeyError, IndexError, AttributeError):
                fields = {""}
            if not fields <= {"value", "limit"}:
                raise ValueError(f"{language}: only {{value}} and {{limit}} can stand in braces")
        return dict(value)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.name.lower(),)


class Factor(_Own):
    """A Stage2 factor: how strongly it speaks for a long, under either reading.

    The step returns a pair in [−1, 1], for a continuation of the move and for its reversal (what lies outside is
    cut off; NaN: not available); a short is the negation. ``weight`` stands beside those of ``Settings.weights``.
    ``names``: language → a singular noun for the narrative.
    """

    kind = "factor"
    words = ("description", "names")

    weight: Annotated[float, Field(gt=0, le=100)]
    names: dict[str, str] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _named(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]{1,39}", value):
            raise ValueError("must be 2 to 40 small letters, digits and underscores")
        shown = {f"{value}_strength", f"{value}_contribution"}
        if value in FACTORS or shown & {*FEATURE_NAMES, *(ASSESSMENT.names or ())}:
            raise ValueError("is taken by a built-in factor or number")
        return value

    @field_validator("names")
    @classmethod
    def _nouns(cls, value: dict[str, str]) -> dict[str, str]:
        return dict(_worded(value))

    @property
    def columns(self) -> tuple[str, ...]:
        return (f"{self.name}_continuation", f"{self.name}_reversal")


def _worded(texts: Mapping[str, str]) -> Mapping[str, str]:
    for language, text in texts.items():
        if language not in LANGUAGES:
            raise ValueError(f"{language!r} is no language of the narrative: {', '.join(LANGUAGES)}")
        if not text.strip() or not text.isprintable():
            raise ValueError(f"{language}: must be one line of text")
    return texts


def memory_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """``dtype`` with ``np.record`` elements at every depth: readable as attributes with the JIT on and off.

    Packed: numpy forgets the alignment of nested records.
    """
    if dtype.subdtype is not None:
        inner, shape = dtype.subdtype
        return np.dtype((memory_dtype(inner), shape))
    if not dtype.names:
        return dtype.newbyteorder("=")
    return packed_dtype([(name, memory_dtype(dtype[name])) for name in dtype.names])


def packed_dtype(fields: list[tuple[str, np.dtype[Any]]]) -> np.dtype[Any]:
    """A dtype without padding whose elements are ``np.record``."""
    return np.dtype((np.record, np.dtype(fields)))


def _checked(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """ValueError for what is not made of plain numbers with usable names."""
    if dtype.subdtype is not None:
        _checked(dtype.subdtype[0])
    elif dtype.names:
        for name in dtype.names:
            if not name.isidentifier() or name in _HIDDEN:
                raise ValueError(f"field {name!r} needs another name: numpy has that one, or it is no Python name")
            _checked(dtype[name])
    elif dtype.kind not in "iuf" or dtype.itemsize > 8 or dtype == np.float16:
        raise ValueError(f"{dtype} cannot be used: fields must be integers or floats, or arrays of them")
    return dtype


LIBRARIES = ("math", "numpy", "numba")
"""Modules whose contents are no part of a step: their versions stand for them."""


def _function(step: Any) -> Any:
    return step.py_func if isinstance(step, CPUDispatcher) else step


def _source_digest(function: FunctionType, seen: set[FunctionType]) -> str:
    """Sha256 of the source and of every function and constant that it takes from around it."""
    seen.add(function)
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt, or made by exec
        code = function.__code__
        text = repr((code.co_code, code.co_names, [c for c in code.co_consts if not inspect.iscode(c)]))
    around = inspect.getclosurevars(function)
    parts = [text]
    for name, value in sorted({**around.globals, **around.nonlocals}.items()):
        parts.append(f"{name}={_constant(value, seen)}")
        if isinstance(value, ModuleType) and value.__name__.partition(".")[0] not in LIBRARIES:
            for used in sorted(set(function.__code__.co_names) & set(vars(value))):
                parts.append(f"{name}.{used}={_constant(getattr(value, used), seen)}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _constant(value: Any, seen: set[FunctionType]) -> str:
    value = _function(value)
    if isinstance(value, FunctionType):
        return "" if value in seen else _source_digest(value, seen)
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    plain = (bool, int, float, complex, str, bytes, tuple, type(None), np.generic, np.dtype)
    return repr(value) if isinstance(value, plain) else type(value).__qualname__


def check_together(triggers: tuple[Trigger, ...], factors: tuple[Factor, ...]) -> None:
    """ValueError where two of them have the same name or column."""
    names = [column for own in (*factors, *triggers) for column in own.columns]
    names += [own.name for own in (*factors, *triggers) if own.name not in names]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is there twice")
        if name in FEATURE_NAMES:
            raise ValueError(f"{name!r} is taken by a built-in feature")
