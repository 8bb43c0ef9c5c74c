"""What the killed and the competing processes of the lake's tests do; importable by a fork server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.errors import LakeError
from aione_lab.lake import Lake
from aione_lab.lake.schema import candle_frame

START = 1_735_689_600_000  # 2025-01-01
HOUR = 3_600_000


def candles(ms: Any, version: int = 0, optional: bool = False) -> pd.DataFrame:
    """Sound candles whose numbers are a function of (time, version) alone."""
    ms = np.asarray(ms, dtype=np.int64)
    mixed = (ms // 60_000 * 2_654_435_761 + version * 97) % 10_007
    open_ = 100.0 + mixed / 100.0
    close = open_ + (mixed % 7 - 3) / 10.0
    values = {
        "open": open_,
        "high": np.maximum(open_, close) + 0.5,
        "low": np.minimum(open_, close) - 0.5,
        "close": close,
        "volume": (mixed % 1000) / 8.0,
    }
    if optional:
        values |= {"quote_volume": mixed * 3.0, "trades": mixed % 50 + 0.0, "taker_buy_volume": (mixed % 1000) / 24.0}
    return candle_frame(ms, values)


def chunk(number: int) -> np.ndarray:
    """Hours of chunk ``number``: 120 of them, half of them also in the chunk before; five months in 60 chunks."""
    return START + HOUR * (np.arange(120) + 60 * number)


def write_chunk(lake: Lake, number: int, imported: bool) -> None:
    """Append a chunk, or import it from a file beside the lake, whose name tells the symbol."""
    frame = candles(chunk(number), version=number)
    if not imported:
        lake.append("BTCUSDT", "1h", frame)
        return
    folder = Path(lake.root).parent / f"chunk{number}"
    folder.mkdir(exist_ok=True)
    frame.to_parquet(folder / "BTCUSDT-1h.parquet")
    lake.import_candles(folder, interval="1h")


def append_until_killed(root: str, first: int, report: Any, imported: bool) -> None:
    """Append (or import) chunk after chunk, compact now and then; each one is told once it has returned."""
    lake = Lake(root)
    report.send(("open", first))
    for number in range(first, 10_000):
        write_chunk(lake, number, imported)
        report.send(("done", number))
        if number % 3 == 2:
            lake.compact("BTCUSDT", "1h")


def die_at_step(root: str, number: int, step: int, what: str) -> None:
    """``append`` or ``import`` one chunk or ``compact``; SIGKILL right before the n-th call that touches the disk."""
    lake = Lake(root)
    _kill_at(step)
    if what == "compact":
        lake.compact("BTCUSDT", "1h")
    else:
        write_chunk(lake, number, what == "import")
    os._exit(0)


def _kill_at(step: int) -> None:
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    os.replace = counted(os.replace)
    os.fsync = counted(os.fsync)
    os.open = counted(os.open)
    Path.mkdir = counted(Path.mkdir)  # type: ignore[method-assign]
    Path.unlink = counted(Path.unlink)  # type: ignore[method-assign]
    Path.rmdir = counted(Path.rmdir)  # type: ignore[method-assign]


def compete(root: str, seed: int, appends: int, hours: int, report: Any) -> None:
    """Append random windows of one common history; report (rows appended, refusals)."""
    rng = np.random.default_rng(seed)
    lake = Lake(root)
    taken: list[tuple[int, int]] = []
    refused: list[str] = []
    for _ in range(appends):
        begin = int(rng.integers(0, hours - 1))
        end = int(rng.integers(begin + 1, min(hours, begin + 300) + 1))
        try:
            lake.append("BTCUSDT", "1h", candles(START + HOUR * np.arange(begin, end)))
            taken.append((begin, end))
        except LakeError as error:
            refused.append(str(error))
    report.send((taken, refused))


def files_below(root: Path) -> set[str]:
    """Every file under a lake, relative, without the locks."""
    return {
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and path.parent.name != ".locks"
    }


def fingerprint(lake: Lake, symbol: str) -> str:
    """What another process reads of a lake it was handed."""
    return lake.fingerprint(symbol, "1m")
