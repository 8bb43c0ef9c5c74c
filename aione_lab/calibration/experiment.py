"""`Experiment`: the one readable file that says what a study was, so that it can be run again and compared."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import math
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from pydantic import AfterValidator, Field

import aione_lab
from aione_lab.calibration.ledger import POOL, POOL_DIGITS
from aione_lab.calibration.objective import objectives
from aione_lab.calibration.search import SAMPLERS
from aione_lab.calibration.verdict import MIN_TRADES
from aione_lab.engine.params import check_kind
from aione_lab.engine.spec import HIGHER_INTERVALS, FeatureSpec
from aione_lab.errors import InputError
from aione_lab.files import write_whole
from aione_lab.settings import Config, Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import parse_symbol, to_ms

FILE = "experiment.json"
# Not what the folder of the experiments holds itself: the promoted sets and the ledger, with SQLite's files beside it.
NAME = re.compile(r"(?!(?i:thresholds|ledger\.sqlite3(-journal|-wal|-shm)?)$)[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MOST_TRIALS = 100_000
_PACKAGES = ("numba", "numpy", "optuna", "pandas", "pyarrow", "scipy")


def _metric(names: tuple[str, ...]) -> tuple[str, ...]:
    objectives(names)
    return names


def _interval(name: str) -> str:
    if name not in HIGHER_INTERVALS:
        raise ValueError(f"must be one of {', '.join(HIGHER_INTERVALS)}")
    return name


def _time(text: str) -> str:
    to_ms(text, "time")
    return text


class FoldPlan(Config):
    """How the span is shared out: what is hidden, and how the rest is folded (see ``calibration/folds.py``)."""

    scheme: Literal["anchored", "rolling", "combinatorial"] = "anchored"
    n_folds: Annotated[int, Field(ge=2, le=50)] = 5
    n_test: Annotated[int, Field(ge=1, le=49)] = Field(2, description="combinatorial: groups tested at a time")
    embargo_days: Annotated[int, Field(ge=0, le=365)] = 1
    hidden: Annotated[float, Field(ge=0.0, le=0.8)] = Field(0.2, description="share of the days, the last ones")


class Experiment(Config):
    """What determines a study, of one symbol or of several pooled, and what it was made with.

    Everything up to ``costs`` is the design: the same design on the same data with the same code gives the same
    study, bit for bit. ``data``, ``code`` and ``versions`` say what it was run on and with.
    """

    symbols: Annotated[tuple[Annotated[str, AfterValidator(parse_symbol)], ...], Field(min_length=1)]
    interval: Annotated[str, AfterValidator(_interval)] = "1m"
    start: Annotated[str, AfterValidator(_time)] = Field(description="first candle")
    end: Annotated[str, AfterValidator(_time)] = Field(description="end, exclusive; the hidden span ends here too")
    hidden_from: Annotated[str, AfterValidator(_time)] = Field(description="where the hidden span begins; end: none")
    reference: Annotated[str, AfterValidator(parse_symbol)] | None = None
    space: dict[str, tuple[float, float, float]] = Field(description="field → low, high, step")
    base: dict[str, Any] = Field(description="the default set: what is not searched, and what is compared with")
    defaults: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="of a pool: symbol → the set of its asset class, where it is another"
    )
    metric: Annotated[tuple[str, ...], AfterValidator(_metric)] = ("profit_factor",)
    n_trials: Annotated[int, Field(ge=20, le=MOST_TRIALS)] = 200
    sampler: Literal[SAMPLERS] = "tpe"  # type: ignore[valid-type]
    folds: FoldPlan = Field(default_factory=FoldPlan)
    min_trades: Annotated[int, Field(ge=1, le=100_000)] = MIN_TRADES
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    spec: FeatureSpec = Field(default_factory=FeatureSpec)
    settings: Settings = Field(default_factory=Settings)
    costs: Costs = Field(default_factory=Costs)
    cluster: bool = Field(False, description="several workers proposed the trials at once: that is not repeatable")
    own: tuple[str, ...] = Field((), description="own triggers and factors: they are code and not in this file")
    data: dict[str, str] = Field(
        default_factory=dict, description="symbol → sha256 of the candles, funding and reference that were searched"
    )
    code: str = Field("", description="sha256 of the package's sources")
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def title(self) -> str:
        """The symbol, or what stands for several: a name of the form of a symbol that says which they are."""
        if len(self.symbols) == 1:
            return self.symbols[0]
        return POOL + hashlib.sha256(" ".join(self.symbols).encode()).hexdigest()[:POOL_DIGITS].upper()

    @property
    def titles(self) -> tuple[str, ...]:
        """What its trials are entered in the ledger under: the symbol; of a pool its name and each symbol."""
        return self.symbols if len(self.symbols) == 1 else (self.title, *self.symbols)

    def data_of(self, title: str) -> str:
        """Fingerprint of a symbol's data, of the pool all of them together."""
        if title in self.data:
            return self.data[title]
        return hashlib.sha256("".join(self.data[symbol] for symbol in self.symbols).encode()).hexdigest()

    @property
    def design(self) -> dict[str, Any]:
        """What determines the study, as JSON holds it; without the number of trials, which may grow."""
        return self.model_dump(mode="json", exclude={"n_trials", "data", "code", "versions"})

    @property
    def default(self) -> Thresholds:
        """The set that is kept where nothing better is found."""
        return Thresholds.from_json(self.base)

    def symbol_of(self, symbol: str | None) -> str:
        """The symbol that is meant: None is the only one. InputError for none of them, and for None among several."""
        if symbol is None and len(self.symbols) > 1:
            raise InputError.of("symbol", None, f"name one of {', '.join(self.symbols)}")
        if symbol is not None and symbol not in self.symbols:
            raise InputError.unknown("symbol", symbol, self.symbols)
        return self.symbols[0] if symbol is None else symbol

    def default_of(self, symbol: str) -> Thresholds:
        """The set that ``symbol`` has without a study: of a pool, what its asset class sets."""
        return Thresholds.from_json(self.defaults.get(symbol, self.base))

    @property
    def rules(self) -> str:
        """Sha256 of what a trial ran under beside its thresholds: spec, settings and costs."""
        text = json.dumps([self.spec.digest(), self.own, self.settings.digest(), self.costs.digest()])
        return hashlib.sha256(text.encode()).hexdigest()

    def whole_spec(self, spec: FeatureSpec | None) -> FeatureSpec:
        """The spec with its own triggers and factors, which are code: ``spec`` must bring them.

        InputError where it is missing, or not the one that the experiment was made with.
        """
        if spec is None and not self.own:
            return self.spec
        if spec is None:
            raise InputError.of("spec", None, f"must be given, with the own {', '.join(self.own)} of the experiment")
        check_kind("spec", spec, FeatureSpec)
        if own_names(spec) != self.own or spec.replace(triggers=(), factors=()).digest() != self.spec.digest():
            mine = f"{', '.join(self.own) or 'none'}; digest {self.spec.digest()[:8]}"
            raise InputError.of("spec", spec, f"is not that of the experiment (own triggers and factors: {mine})")
        return spec

    def save(self, folder: Path) -> None:
        """Write ``experiment.json``, whole or not at all."""
        write_json(folder / FILE, self.model_dump(mode="json", exclude_defaults=False))

    def differences(self, other: Experiment) -> list[str]:
        """What distinguishes ``other``, in words: fields of the design, data, code, versions."""
        mine, theirs = self.design, other.design
        found = _differences("", mine, theirs)
        if self.n_trials != other.n_trials:
            found.append(f"n_trials: {self.n_trials} became {other.n_trials}")
        if self.data != other.data:
            found.append("data: the candles, funding or reference are others")
        if self.code != other.code:
            found.append("code: aione_lab is another")
        names = sorted({*self.versions, *other.versions})
        for name in names:
            if (a := self.versions.get(name)) != (b := other.versions.get(name)):
                found.append(f"{name}: {a} became {b}")
        return found


def _differences(prefix: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What distinguishes two designs, down to the single setting."""
    found = []
    for name in sorted({*mine, *theirs}):
        a, b = mine.get(name), theirs.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differences(f"{prefix}{name}.", a, b)
        elif a != b:
            found.append(f"{prefix}{name}: {a} became {b}")
    return found


def check_name(name: Any) -> str:
    """A name that is safe as a folder's."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError.of(
            "name",
            name,
            "must be up to 100 of letters, digits, '.', '_' and '-', a letter or digit first, and not 'thresholds' or "
            "'ledger.sqlite3'",
        )
    return name


def plain_json(value: Any) -> Any:
    """``value`` as JSON holds it: numpy's numbers as Python's, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)) or (isinstance(value, Sequence) and not isinstance(value, str)):
        return [plain_json(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def own_names(spec: FeatureSpec) -> tuple[str, ...]:
    """Names of the own triggers, then of the own factors."""
    return (*(one.name for one in spec.triggers), *(one.name for one in spec.factors))


@contextmanager
def held(place: Path) -> Iterator[None]:
    """Hold the folder of an experiment against other processes, and clear away what killed ones left half-written.

    InputError where another process has it.
    """
    lock = FileLock(place / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError.of("name", place.name, f"is being worked on by another process ({place})") from None
    try:
        for pattern in ("*.[0-9]*.new", "*.[0-9]*.new-journal"):
            for path in place.glob(pattern):
                path.unlink()
        yield
    finally:
        lock.release()


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by the JSON of ``value``: a reader sees the old file or the new one."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``: a reader sees the old file or the new one."""
    write_whole(path, text.encode())


def read_json(path: Path) -> dict[str, Any]:
    """What ``write_json`` wrote; InputError where it is not there or broken."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: must hold one JSON object")
    return values


def read_experiment(place: Path) -> Experiment:
    """The experiment in the folder ``place``; InputError that names the file where it is none."""
    path = place / FILE
    try:
        return Experiment.load(path)
    except InputError as error:
        raise InputError(f"{path}: is no experiment ({str(error).removeprefix(f'path={str(path)!r}: ')})") from None


@functools.cache
def code_fingerprint() -> str:
    """Sha256 of the package's sources that a study's numbers depend on."""
    root = Path(aione_lab.__file__).parent
    digest = hashlib.sha256()
    for room in ("backtest", "calibration", "engine", "research", "thresholds"):
        for path in sorted((root / room).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for name in ("settings.py", "units.py"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what a study's numbers depend on."""
    own = {"aione_lab": aione_lab.__version__, "python": platform.python_version()}
    return own | {name: importlib.metadata.version(name) for name in _PACKAGES}
