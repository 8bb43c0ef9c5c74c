"""Repeated measurements on one core, beside a yardstick, so that ratios survive a noisy machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6, "ns": 1e9}
PACKAGES = ("numpy", "numba", "pandas", "pyarrow", "vectorbt", "TA-Lib")

_YARD = np.linspace(0.0, 1.0, 65_536)
_YARD_OUT = np.empty_like(_YARD)


@dataclass(frozen=True)
class Row:
    """One line of a table: the median of ``repeats`` measurements with their range, in ``unit``.

    ``yardsticks`` is the median over the yardstick's time just before; ``target`` is in words.
    """

    group: str
    what: str
    median: float
    low: float
    high: float
    unit: str
    repeats: int
    yardsticks: float | None = None
    target: str = ""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def yardstick() -> None:
    """A fixed piece of numpy work, some milliseconds: 64 passes over half a megabyte."""
    for _ in range(64):
        np.multiply(_YARD, 1.0000001, out=_YARD_OUT)
        np.add(_YARD_OUT, _YARD, out=_YARD_OUT)
        _YARD_OUT.sum()


def time_once(work: Callable[[], object]) -> float:
    """Seconds that ``work()`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def yardstick_seconds() -> float:
    """Seconds of the yardstick now: median of five."""
    return statistics.median(time_once(yardstick) for _ in range(5))


def row(
    group: str,
    what: str,
    seconds: Iterable[float],
    *,
    unit: str,
    per: int = 1,
    suffix: str = "",
    yard: float | None = None,
    target: str = "",
    note: str = "",
) -> Row:
    """Row of measured ``seconds``, each divided by ``per`` (bars, sets); ``suffix`` names them in the unit."""
    values = [UNITS[unit] * taken / per for taken in seconds]
    median = statistics.median(values)
    return Row(
        group=group,
        what=what,
        median=median,
        low=min(values),
        high=max(values),
        unit=unit + suffix,
        repeats=len(values),
        yardsticks=None if yard is None else median * per / UNITS[unit] / yard,
        target=target,
        note=note,
    )


def measure(
    group: str, what: str, work: Callable[[], object], *, repeats: int, warmups: int = 1, **options: Any
) -> Row:
    """Row of ``repeats`` calls of ``work`` after ``warmups`` that do not count; ``options`` as for ``row``."""
    for _ in range(warmups):
        work()
    yard = yardstick_seconds()
    return row(group, what, [time_once(work) for _ in range(repeats)], yard=yard, **options)


def measure_pair(
    group: str, ours: tuple[str, Callable[[], object]], theirs: tuple[str, Callable[[], object]], *, repeats: int,
    **options: Any,
) -> tuple[Row, Row, float]:
    """Rows of two works timed in turns, and the median of ours ÷ theirs over the turns.

    What disturbs a shared machine lasts longer than a turn, so it falls on both.
    """
    for _, work in (ours, theirs):
        work()
    yard = yardstick_seconds()
    turns = [(time_once(ours[1]), time_once(theirs[1])) for _ in range(repeats)]
    first = row(group, ours[0], [a for a, _ in turns], yard=yard, **options)
    second = row(group, theirs[0], [b for _, b in turns], yard=yard, **options)
    return first, second, statistics.median(a / b for a, b in turns)


def pin_to_one_core() -> bool:
    """Keep this process and its children on one core, where the system can; whether it could."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return True


def peak_extra_megabytes(work: Callable[[], object]) -> float | None:
    """How far the resident memory rises above its present level while ``work`` runs; None where not told."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts again from here
    except OSError:
        return None
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


def machine(pinned: bool) -> dict[str, Any]:
    """What was measured on, without any name of host, user or folder."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "pinned_to_one_core": pinned,
        "load_average_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "yardstick_ms": round(1e3 * yardstick_seconds(), 3),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # only Linux has the file
    return platform.processor() or platform.machine()
