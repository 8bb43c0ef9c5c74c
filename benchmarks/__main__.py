"""``python -m benchmarks``: measure, print, and write ``benchmarks/results/``."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import timing
from benchmarks.market import FULL, QUICK, simulate
from benchmarks.report import markdown, write

RESULTS = Path(__file__).resolve().parent / "results"

PARTS = {
    "stages": ("benchmarks.stages", "bench_stages"),
    "vectorbt": ("benchmarks.stages", "bench_vectorbt"),
    "explorer": ("benchmarks.explorer", "bench_explorer"),
    "features": ("benchmarks.indicators", "bench_features"),
    "lake": ("benchmarks.storage", "bench_lake"),
    "live": ("benchmarks.live", "bench_live"),
    "session": ("benchmarks.session", "bench_session"),
    "browser": ("benchmarks.browser", "bench_browser"),
    "startup": ("benchmarks.startup", "bench_startup"),
    "study": ("benchmarks.study", "bench_study"),
    "vectorbt-startup": ("benchmarks.startup", "bench_vectorbt_startup"),
    "universe": ("benchmarks.study", "bench_universe"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for; 0 when all were measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure AiOne lab beside its peers.")
    parser.add_argument("--quick", action="store_true", help="a few days and repeats: a test that it runs, no figures")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, help="folder of speed.md and speed.json (default: benchmarks/results)")
    asked = parser.parse_args(argv)
    started = time.monotonic()
    machine = timing.machine(timing.pin_to_one_core())
    market = simulate(QUICK if asked.quick else FULL)
    rows = []
    for name in asked.only or PARTS:
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        module, function = PARTS[name]
        rows += getattr(importlib.import_module(module), function)(market)
    print(markdown(rows, machine, market.bars))
    # A run that is quick or partial does not replace the figures that are kept.
    folder = asked.out or (None if asked.quick or asked.only else RESULTS)
    for path in write(folder, rows, machine, market.bars) if folder else []:
        print(f"written: {path.name}", file=sys.stderr)
    print(f"took {time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
