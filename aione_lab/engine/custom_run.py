"""Own steps over bars: one compiled loop a spec, the same for a whole history and for one live candle.

The steps of a spec are linked into one function, so that a bar costs no call from Python. Each works on copies of the
bar and of the built-in features, and its numbers go to columns of their own: no step can change what another sees.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numba.core import config

from aione_lab.engine import bulk
from aione_lab.engine.columns import BLOCK, gather, scratch
from aione_lab.engine.custom import Factor, memory_dtype, packed_dtype
from aione_lab.engine.factors import clip
from aione_lab.engine.records import BAR, FEATURE_NAMES, FEATURES
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError

BUILT_IN = len(FEATURE_NAMES)
_Step = tuple[Any, bool, np.dtype[Any]]  # step, whether it is a factor's, dtype of its memory


def run_features(
    states: np.ndarray, ring: np.ndarray, bars: np.ndarray, spec: FeatureSpec, interval: str
) -> np.ndarray:
    """Columns (F, n) of every feature of ``bars``, own numbers last; FEATURE_STATE (1,) and ``ring`` are advanced."""
    record = spec.record(interval)
    columns = np.empty((len(spec.feature_names), len(bars)))
    rows, block = scratch()
    bulk.compute_features(states, ring, bars, record, rows, block, columns[:BUILT_IN])
    own = custom_run(spec)
    if own is not None:
        own.fill(bars, columns[:BUILT_IN], columns[BUILT_IN:], int(record["step_ms"][0]))
    return columns


def custom_run(spec: FeatureSpec) -> CustomRun | None:
    """The own steps of ``spec`` with an empty memory; None where it has none."""
    return CustomRun(spec) if spec.custom else None


class CustomRun:
    """The memory of a spec's own steps, and the loop that advances it."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._names = ", ".join(own.name for own in spec.custom)
        for own in spec.custom:
            _try(own)
        steps = tuple((own.step, isinstance(own, Factor), memory_dtype(own.state)) for own in spec.custom)
        self._loop, dtype = _compiled(steps)
        self.memory, self._empty = np.zeros(1, dtype), np.zeros(1, dtype)
        self._rows, self._block = scratch()
        self._bar, self._values = np.zeros(1, BAR), np.zeros(len(spec.feature_names) - BUILT_IN)

    def fill(self, bars: np.ndarray, features: np.ndarray, own: np.ndarray, step_ms: int) -> None:
        """Numbers of ``bars`` (n,) into ``own`` (U, n), from the built-in ``features`` (59, n).

        The memory is emptied where a bar is missing between two of ``bars``. Raises InputError where a step fails.
        """
        try:
            self._loop(
                self.memory, self._empty, bars, features, own, self._rows, self._block, self._bar, self._values, step_ms
            )
        except Exception as error:
            raise InputError.of("spec", self._names, f"a step of these failed ({error!r})") from error

    def forget(self) -> None:
        """Empty the memory: bars are missing before the next one."""
        self.memory[0] = self._empty[0]


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Like ``jit.njit``, but without a disk cache: the user's code is not among the sources that it is stamped with."""
    if getattr(config, "DISABLE_JIT"):  # noqa: B009  set by numba at run time
        return function
    return numba.njit(function, error_model="numpy", nogil=True)


@lru_cache(maxsize=64)
def _compiled(steps: tuple[_Step, ...]) -> tuple[Any, np.dtype[Any]]:
    """(loop, dtype of the memory of all) of these steps."""
    chain, place = _compile(_nothing), 0
    for i, (step, is_factor, _) in enumerate(steps):
        chain = _compile((_with_factor if is_factor else _with_trigger)(chain, step, f"own_{i}", place))
        place += 2 if is_factor else 1
    return _compile(_loop_over(chain)), packed_dtype([(f"own_{i}", dtype) for i, (_, _, dtype) in enumerate(steps)])


def _nothing(memory: Any, bar: Any, row: Any, values: Any) -> None:
    pass


def _with_trigger(before: Any, step: Any, field: str, place: int) -> Callable[..., Any]:
    def link(memory: Any, bar: Any, row: Any, values: Any) -> None:
        before(memory, bar, row, values)
        values[place] = step(memory[field], bar, row)

    return link


def _with_factor(before: Any, step: Any, field: str, place: int) -> Callable[..., Any]:
    def link(memory: Any, bar: Any, row: Any, values: Any) -> None:
        before(memory, bar, row, values)
        continuation, reversal = step(memory[field], bar, row)
        values[place] = clip(float(continuation))
        values[place + 1] = clip(float(reversal))

    return link


def _loop_over(chain: Any) -> Callable[..., Any]:
    def loop(
        memories: Any,
        empty: Any,
        bars: Any,
        features: Any,
        own: Any,
        rows: Any,
        block: Any,
        bar: Any,
        values: Any,
        step_ms: int,
    ) -> None:
        last = 0
        for base in range(0, bars.size, BLOCK):
            n = min(BLOCK, bars.size - base)
            gather(features, base, n, block)
            for i in range(n):
                time = bars[base + i].timestamp
                if last > 0 and time - last != step_ms:
                    memories[0] = empty[0]
                last = time
                bar[0] = bars[base + i]
                chain(memories[0], bar[0], rows[i], values)
                for j in range(values.size):
                    own[j, base + i] = values[j]

    return loop


def _try(own: Any) -> None:
    """InputError unless the step compiles, runs on a first bar and returns what it should."""
    bar, row = np.ones(1, BAR), np.zeros(1, FEATURES)
    row.view(np.float64)[:] = math.nan
    for name in ("reference_close", "funding_rate"):
        bar[name] = math.nan
    name = f"{own.kind} {own.name}"
    try:
        found = own.step(np.zeros(1, memory_dtype(own.state))[0], bar[0], row[0])
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
        told = " ".join(lines[:2] if "nopython" in lines[0] else lines[:1])
        raise InputError.of("spec", name, f"its step failed on a first bar ({type(error).__name__}: {told})") from error
    parts = found if own.kind == "factor" else (found,)
    if (
        not isinstance(parts, tuple)
        or len(parts) != (2 if own.kind == "factor" else 1)
        or not all(isinstance(part, (numbers.Real, np.bool_)) for part in parts)
    ):
        wanted = "a pair of numbers" if own.kind == "factor" else "one number"
        raise InputError.of("spec", name, f"its step must return {wanted}, not {found!r}")
