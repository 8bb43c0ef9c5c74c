"""`calibrate_many`: a study a symbol, in processes, for as many symbols as there are."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aione_lab.calibration.run import EXPERIMENTS, calibrate
from aione_lab.errors import AioneError, InputError
from aione_lab.lake.progress import ProgressCallback, progress_reporter
from aione_lab.lake.store import Lake
from aione_lab.research.arguments import whole


@dataclass(frozen=True)
class Studied:
    """One symbol's study: its folder and ``Calibration.results``, or why there is none."""

    symbol: str
    folder: Path | None
    results: dict[str, Any]
    error: str = ""


def calibrate_many(
    lake: Lake,
    symbols: Sequence[str],
    *,
    workers: int | None = None,
    folder: str | Path = EXPERIMENTS,
    progress: ProgressCallback | bool | None = None,
    **options: Any,
) -> Iterator[Studied]:
    """Yield a ``Studied`` a symbol as they are finished; ``options`` are keywords of ``calibrate``.

    Each of ``workers`` processes (None: one a core) has one symbol in memory at a time. A study that fails says why
    and the others go on. Called again after an interruption, finished studies are only read back in and cut ones go
    on. Raises InputError for symbols or workers that are none.
    """
    if isinstance(symbols, str) or not symbols:
        raise InputError.of("symbols", symbols, "must be names of one or several symbols")
    n = whole("workers", min(len(symbols), os.cpu_count() or 1) if workers is None else workers, 1, 256)
    # spawn: a forked child would inherit locks of threads that are not there.
    context = multiprocessing.get_context("spawn")
    with progress_reporter(progress, "calibrating") as tell:
        pool = ProcessPoolExecutor(n, mp_context=context)
        try:
            asked = {pool.submit(_study, lake.root, symbol, str(folder), options): symbol for symbol in symbols}
            tell("", 0, len(asked))
            for number, future in enumerate(as_completed(asked), start=1):
                symbol = asked[future]
                try:
                    place, results = future.result()
                    yield Studied(symbol, Path(place), results)
                except (AioneError, BrokenProcessPool, OSError) as error:
                    yield Studied(symbol, None, {}, str(error))
                tell(symbol, number, len(asked))
        finally:
            pool.shutdown(cancel_futures=True)


def _study(root: str, symbol: str, folder: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    study = calibrate(Lake(root), symbol, folder=folder, progress=False, **options)
    return str(study.folder), {"digest": study.digest, **study.results}
