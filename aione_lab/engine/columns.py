"""Feature columns (F, bars) to rows and back, a cache-sized block at a time.

F is the number of built-in features and of own numbers after them; rows are wider, what is not stored stays NaN.
One contiguous run of memory a feature: reading a few features of a year touches a few megabytes only.
"""

from __future__ import annotations

import math

import numpy as np

from aione_lab.engine.records import FEATURES
from aione_lab.jit import njit

BLOCK = 256


@njit
def gather(columns, start, n, block):
    """columns[:, start:start + n] → the first n rows of ``block`` (BLOCK, ≥ F)."""
    for j in range(columns.shape[0]):
        for i in range(n):
            block[i, j] = columns[j, start + i]


@njit
def scatter(block, columns, start, n):
    """The first n rows of ``block`` → columns[:, start:start + n]."""
    for j in range(columns.shape[0]):
        for i in range(n):
            columns[j, start + i] = block[i, j]


def scratch() -> tuple[np.ndarray, np.ndarray]:
    """(BLOCK rows of FEATURES, the same memory as float64 of one row a bar), all NaN."""
    rows = np.zeros(BLOCK, FEATURES)
    block = rows.view(np.float64).reshape(BLOCK, -1)
    block[:] = math.nan
    return rows, block
