"""A changed kernel source changes the result at once, though another file's machine code lies cached."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import aione_lab

START = """
import json
import numpy as np
import aione_lab
from aione_lab.engine import records
from aione_lab.engine.params import rules_record
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds import Thresholds

row = np.zeros(1, records.FEATURES)
for name, value in {"close": 100.0, "atr": 1.0, "atr_pct": 0.01, "atr_7d": 0.0001, "rsi": 55.0}.items():
    row[name] = value
rules, limits = rules_record(Settings(), Costs(), 60_000), Thresholds().record()
"""
STAGE1 = """
from aione_lab.engine.stage1 import stage1_step as kernel
stage, signal = np.zeros(1, records.STAGE_STATE), np.zeros(1, records.SIGNAL)
kernel(stage[0], 1, row[0], limits[0], rules[0], signal[0])
value = signal["vol_z_threshold"][0]
"""
STAGE2 = """
from aione_lab.engine.stage2 import assess as kernel
found = np.zeros(1, records.ASSESSMENT)
kernel(1, row[0], 0, limits[0], rules[0], found[0])
value = found["strengths"][0, 1]
"""
END = """
hits, misses = kernel.stats.cache_hits.total(), kernel.stats.cache_misses.total()
print(json.dumps({"package": aione_lab.__file__, "value": value, "hits": hits, "misses": misses}))
"""


def copy_package(folder: Path, script: str) -> Path:
    """A copy of the modules that kernels need, without any compiled code."""
    source = Path(aione_lab.__file__).parent
    copy = folder / "aione_lab"
    copy.mkdir()
    for path in source.glob("*.py"):
        shutil.copy2(path, copy)
    for name in ("engine", "thresholds"):
        shutil.copytree(source / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "script.py").write_text(START + script + END)
    return copy


def run(folder: Path) -> dict:
    # The copy alone may answer: no settings of this process that would move the cache or the path.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=kept, capture_output=True, text=True, timeout=300
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert Path(answer["package"]).is_relative_to(folder)
    return answer


def edit(path: Path, pattern: str, replacement: str) -> None:
    """Change one constant in one file."""
    after, count = re.subn(pattern, replacement, path.read_text())
    assert count == 1
    path.write_text(after)


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is cached with the JIT off")
@pytest.mark.parametrize(
    ("script", "file", "pattern", "replacement", "before", "after"),
    [
        (STAGE1, "thresholds/adaptive.py", r"VOL_Z_CALM = 3\.0", "VOL_Z_CALM = 9.0", 3.0, 9.0),
        pytest.param(
            STAGE2, "engine/factors.py", r"\(row\.rsi - 50\.0\) / 28\.0", "(row.rsi - 50.0) / 14.0", -5 / 28, -5 / 14,
            marks=pytest.mark.long,
        ),
    ],
    ids=["adaptive", "factors"],
)  # fmt: skip
def test_a_changed_constant_is_noticed_where_it_is_called_from(
    tmp_path, script, file, pattern, replacement, before, after
):
    """The kernel that is run stands in a file that stays as it is; what it calls has changed."""
    copy = copy_package(tmp_path, script)
    first, again = run(tmp_path), run(tmp_path)
    assert (first["hits"], first["misses"]) == (0, 1) and first["value"] == pytest.approx(before)
    assert (again["hits"], again["misses"]) == (1, 0) and again["value"] == first["value"]  # the cache serves
    edit(copy / file, pattern, replacement)
    changed = run(tmp_path)
    assert (changed["hits"], changed["misses"]) == (0, 1) and changed["value"] == pytest.approx(after)
