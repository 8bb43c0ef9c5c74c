"""Import times and the first call of a new process, with an empty and with a filled numba cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.market import Market
from benchmarks.timing import Row, row, yardstick_seconds

GROUP = "start of a process"

IMPORT = """
import json, time
start = time.perf_counter()
import {module}
print(json.dumps([time.perf_counter() - start]))
"""

REPLAY = """
import json, sys, time
import numpy as np, pandas as pd
start = time.perf_counter()
from aione_lab import replay
imported = time.perf_counter()
frames = [pd.read_parquet(path) for path in sys.argv[1:]]
before = time.perf_counter()
replay(frames[0], interval="1m", reference=frames[1])
print(json.dumps([imported - start, time.perf_counter() - before]))
"""

VECTORBT = """
import json, sys, time
import numpy as np, pandas as pd
start = time.perf_counter()
import vectorbt as vbt
imported = time.perf_counter()
frame = pd.read_parquet(sys.argv[1]).tz_localize(None)  # see stages.py
entries = np.arange(len(frame)) % 500 == 100
before = time.perf_counter()
vbt.Portfolio.from_signals(
    close=frame["close"], open=frame["open"], high=frame["high"], low=frame["low"], entries=entries, exits=False,
    price=frame["open"], sl_stop=0.01, tp_stop=0.02, freq="1min", engine="numba",
).total_return()
print(json.dumps([imported - start, time.perf_counter() - before]))
"""


def bench_startup(market: Market) -> list[Row]:
    """Import, and first replay of three days: nothing compiled, then everything in the cache."""
    repeats = min(market.size.repeats, 5)
    yard = yardstick_seconds()
    quick = [_child(IMPORT.format(module="aione_lab"))[0] for _ in range(repeats)]
    rows = [row(GROUP, "import aione_lab", quick, unit="s", yard=yard, target="≤ 0.5 s")]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("own.parquet", "reference.parquet")]
        for path, frame in zip(paths, (market.candles, market.reference), strict=True):
            frame.iloc[: 3 * 1440].to_parquet(path)
        cache = str(Path(folder) / "cache")
        cold = [_child(REPLAY, *paths, cache=cache)]
        warm = [_child(REPLAY, *paths, cache=cache) for _ in range(repeats)]
        rows += [
            row(GROUP, "from aione_lab import replay, pandas loaded", [t for t, _ in warm], unit="s", yard=yard),
            row(
                GROUP,
                "first replay (three days), numba cache cold",
                [t for _, t in cold],
                unit="s",
                yard=yard,
                target="≤ 20 s",
            ),
            row(
                GROUP,
                "first replay (three days), numba cache warm",
                [t for _, t in warm],
                unit="s",
                yard=yard,
                target="≤ 0.3 s",
            ),
        ]
    return rows


def bench_vectorbt_startup(market: Market) -> list[Row]:
    """The same of vectorbt: import, and first ``from_signals`` on three days."""
    yard = yardstick_seconds()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.parquet"
        market.candles.iloc[: 3 * 1440].to_parquet(path)
        cache = str(Path(folder) / "cache")
        runs = [_child(VECTORBT, path, cache=cache) for _ in range(3)]
    return [
        row(GROUP, "import vectorbt, pandas loaded", [t for t, _ in runs[1:]], unit="s", yard=yard),
        row(GROUP, "vectorbt: first from_signals, numba cache cold", [runs[0][1]], unit="s", yard=yard),
        row(
            GROUP,
            "vectorbt: first from_signals, numba cache warm",
            [t for _, t in runs[1:]],
            unit="s",
            yard=yard,
            note="vectorbt does not cache its simulator: it is compiled in every process",
        ),
    ]


def _child(code: str, *arguments: Any, cache: str | None = None) -> list[float]:
    """What a new process prints; it inherits the core that this one is pinned to."""
    environment = dict(os.environ)
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = cache
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a measured process failed: {done.stderr.strip().splitlines()[-1:]}")
    return [float(value) for value in json.loads(done.stdout.splitlines()[-1])]
