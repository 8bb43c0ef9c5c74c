"""With the JIT off the kernels are plain Python, and give the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from short_pass import short_pass

from aione_lab.engine import records


def test_no_field_is_hidden_by_an_attribute_of_numpy():
    """``record.mean`` is a method of every numpy scalar: a field of that name cannot be read with the JIT off."""
    taken = set(dir(np.record))
    dtypes = {name: value for name, value in vars(records).items() if isinstance(value, np.dtype) and value.names}
    assert dtypes.keys() >= {"BAR", "FEATURES", "STATE", "TRADE"}
    hidden = {name: taken & set(dtype.names) for name, dtype in dtypes.items()}
    assert not {name: fields for name, fields in hidden.items() if fields}


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the JIT is off in this process already")
def test_same_bytes_without_jit(tmp_path):
    out = tmp_path / "plain.npz"
    script = Path(__file__).with_name("short_pass.py")
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(script), str(out)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    compiled = short_pass()
    assert compiled["trades pnl"].size >= 10 and compiled["assessments score"].size >= 50
    assert len(set(compiled["trades exit_reason"])) >= 3
    with np.load(out) as plain:
        assert set(plain.files) == set(compiled)
        different = [name for name in compiled if plain[name].tobytes() != compiled[name].tobytes()]
        assert not different, {name: _first_difference(plain[name], compiled[name]) for name in different}


def _first_difference(plain: np.ndarray, compiled: np.ndarray) -> str:
    if plain.shape != compiled.shape:
        return f"{plain.shape} against {compiled.shape}"
    unequal = [i for i in range(len(plain)) if plain[i].tobytes() != compiled[i].tobytes()]
    return f"{len(unequal)} rows, the first at {unequal[0]}: {plain[unequal[0]]!r} against {compiled[unequal[0]]!r}"
