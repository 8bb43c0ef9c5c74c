"""`calibrate_many`: a study a symbol, each in a process of its own, for as many symbols as there are."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from aione_lab.calibration.plan import plan
from aione_lab.calibration.process import how_ended
from aione_lab.calibration.run import EXPERIMENTS, calibrate
from aione_lab.calibration.study_run import experiment_folds
from aione_lab.errors import AioneError, InputError
from aione_lab.lake.progress import ProgressCallback, progress_reporter
from aione_lab.lake.store import Lake
from aione_lab.research.arguments import whole
from aione_lab.units import parse_symbol

_OPTIONS = tuple(
    name
    for name in inspect.signature(calibrate).parameters
    if name not in ("lake", "symbol", "name", "folder", "progress")
)


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
    """Yield a ``Studied`` a symbol as they are finished; ``options`` are keywords of ``calibrate``
    other than ``name``.

    ``workers`` processes at a time (None: one a core), one a symbol: what fails or is killed says why and the others
    go on. Closed early, or left by an error, it ends those that run. Called again after an interruption, finished
    studies are only read back in and cut ones go on. Raises InputError for symbols or workers that are none, and for
    options that cannot be pickled.
    """
    if isinstance(symbols, str) or not isinstance(symbols, Sequence) or not symbols:
        raise InputError.of("symbols", symbols, "must be names of one or several symbols")
    names = list(dict.fromkeys(parse_symbol(symbol) for symbol in symbols))
    n = whole("workers", min(len(names), os.cpu_count() or 1) if workers is None else workers, 1, 256)
    for option in options:
        if option not in _OPTIONS:
            raise InputError.unknown("options", option, _OPTIONS)
    try:
        pickle.dumps(options)
    except Exception as error:
        raise InputError.of("options", sorted(options), f"cannot be sent to another process ({error})") from None
    refusals = [_refusal(lake, name, options) for name in names]
    if all(isinstance(one, InputError) for one in refusals):  # what is wrong is no matter of the symbol
        raise refusals[0]  # type: ignore[misc]
    return _studies(lake.root, names, n, str(folder), options, progress)


def _refusal(lake: Lake, symbol: str, options: dict[str, Any]) -> AioneError | None:
    """Why no study of the symbol can begin."""
    design = {name: value for name, value in options.items() if name not in ("cluster", "storage")}
    try:
        experiment_folds(plan(lake, symbol, **design))
    except AioneError as error:
        return error
    return None


def _studies(
    root: str,
    names: Sequence[str],
    n: int,
    folder: str,
    options: dict[str, Any],
    progress: ProgressCallback | bool | None,
) -> Iterator[Studied]:
    # spawn: a forked child would inherit locks of threads that are not there.
    context = multiprocessing.get_context("spawn")
    coming = list(reversed(names))
    running: dict[Connection, tuple[str, SpawnProcess]] = {}
    done = 0
    with progress_reporter(progress, "calibrating") as tell:
        try:
            tell("", 0, len(names))
            while coming or running:
                while coming and len(running) < n:
                    symbol = coming.pop()
                    ours, theirs = context.Pipe(duplex=False)
                    process = context.Process(target=_study, args=(theirs, n, root, symbol, folder, options))
                    process.start()
                    theirs.close()
                    running[ours] = symbol, process
                for pipe in wait(list(running)):
                    assert isinstance(pipe, Connection)
                    symbol, process = running[pipe]
                    answer = _answer(pipe, process)
                    del running[pipe]
                    done += 1
                    tell(symbol, done, len(names))
                    yield Studied(symbol, *answer)
        finally:
            for pipe, (_, process) in running.items():
                process.kill()  # each batch on disk is whole, so that nothing is lost but the one underway
                process.join()
                pipe.close()


def _answer(pipe: Connection, process: SpawnProcess) -> tuple[Path | None, dict[str, Any], str]:
    """Folder, results and error of a process that has answered or ended."""
    try:
        place, results, error = pipe.recv()
    except EOFError:
        process.join()
        return None, {}, f"its process {how_ended(process.exitcode)} before it was done"
    finally:
        pipe.close()
    process.join()
    return None if place is None else Path(place), results, error


def _study(pipe: Connection, n: int, root: str, symbol: str, folder: str, options: dict[str, Any]) -> None:
    """In a process of its own, one of ``n`` that share the cores."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Linear algebra takes a thread a core in each process, and those wait for each other by spinning.
    threadpool_limits(max(1, (os.cpu_count() or 1) // n))
    try:
        study = calibrate(Lake(root), symbol, folder=folder, progress=False, **options)
        pipe.send((str(study.folder), {"digest": study.digest, **study.results}, ""))
    except (AioneError, OSError) as error:
        pipe.send((None, {}, str(error)))
    except Exception as error:  # a mistake of ours: told like the others, with its traceback on standard error
        pipe.send((None, {}, f"{type(error).__name__}: {error}"))
        raise


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
