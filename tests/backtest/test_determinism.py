"""One sha256 of a computation, whatever the threads, processes, hash seeds, caches and instruction sets.

No kernel is parallel: nothing is summed in an order that a thread could change. What is left to go wrong is memory
shared between calls (kernels release the GIL), the order of sets and dictionaries, and machine code that differs.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import pytest

import aione_lab
from aione_lab.backtest import Prepared, replay
from tests.backtest import determinism_pass
from tests.backtest.determinism_pass import BUSY, COSTS, SETTINGS, digests, of_replay, of_sets, random_sets

compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="the JIT is off in this process")


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    return digests()


def elsewhere(root: Path, **environment: object) -> dict[str, str]:
    """The digests of a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "PYTHONHASHSEED"))}
    done = subprocess.run(
        [sys.executable, "-m", determinism_pass.__name__],
        cwd=root,
        env=kept | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@compiled
def test_two_processes_of_one_thread_and_of_two(here: dict[str, str], root: Path) -> None:
    for threads in (1, 2):
        counts = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        assert elsewhere(root, **counts, PYTHONHASHSEED=threads) == here, threads


def test_again_in_this_process(here: dict[str, str]) -> None:
    assert digests() == here


def test_two_threads_of_one_process(here: dict[str, str]) -> None:
    """Replays, and batches over one `Prepared`, side by side: nothing is shared but what stays as it is."""
    inputs = determinism_pass.market()
    common = {"settings": SETTINGS, "costs": COSTS}
    prepared, sets = Prepared(**inputs, **common), random_sets(40)
    with ThreadPoolExecutor(2) as pool:
        replays = [pool.submit(replay, **inputs, thresholds=BUSY, **common) for _ in range(6)]
        batches = [pool.submit(prepared.evaluate, sets) for _ in range(6)]
        assert {of_replay(one.result()) for one in replays} == {here["replay"]}
        assert {of_sets(one.result()) for one in batches} == {here["sets"]}


@pytest.mark.parametrize("size", [1, 7, 32])
def test_a_set_does_not_depend_on_its_batch(here: dict[str, str], size: int) -> None:
    prepared, sets = Prepared(**determinism_pass.market(), settings=SETTINGS, costs=COSTS), random_sets(40)
    parts = [prepared.evaluate(sets[first : first + size]) for first in range(0, len(sets), size)]
    assert of_sets([one for part in parts for one in part]) == here["sets"]


def test_the_digest_notices_a_last_bit(here: dict[str, str]) -> None:
    inputs = determinism_pass.market()
    candles = inputs["candles"].copy()
    candles.iloc[-1, candles.columns.get_loc("volume")] *= 1 + 2**-52
    other = replay(**{**inputs, "candles": candles}, thresholds=BUSY, settings=SETTINGS, costs=COSTS)
    assert of_replay(other) != here["replay"]


def test_no_kernel_computes_loosely() -> None:
    """What the digests rest on, read in the sources: no ``fastmath``, and no loop that threads share out."""
    package = Path(aione_lab.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword):
                assert node.arg not in ("fastmath", "parallel"), path


@compiled
@pytest.mark.long
@pytest.mark.parametrize("machine", ["this one", "generic"])
def test_cold_and_warm_cache(here: dict[str, str], root: Path, tmp_path: Path, machine: str) -> None:
    """Compiled anew into an empty cache, for this processor and for the plainest of its kind; then from that cache."""
    settings = {"NUMBA_CACHE_DIR": tmp_path} | ({"NUMBA_CPU_NAME": machine} if machine == "generic" else {})
    assert not any(tmp_path.iterdir())
    assert elsewhere(root, **settings) == here
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}
    assert len(files) > 5
    assert elsewhere(root, **settings) == here
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")} == files  # nothing was compiled again
