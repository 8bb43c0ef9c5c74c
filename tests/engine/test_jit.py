"""`njit`: what kernels may do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba.core import config
from numba.core.errors import NumbaError

from aione_lab.jit import njit


def last_of_new(values):  # type: ignore[no-untyped-def]
    """A number of an array that nobody owns any more when it is read."""
    return np.zeros(values.size)[values.size - 1]


def without_last(values):  # type: ignore[no-untyped-def]
    """A view that its caller would have to own."""
    return values[: values.size - 1]


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="without compiling nothing is refused")
@pytest.mark.parametrize("kernel", [last_of_new, without_last])
def test_a_kernel_that_makes_an_array_does_not_compile(kernel: Any) -> None:
    """References are not counted in kernels: memory of their own would be freed while they read it, or never."""
    with pytest.raises(NumbaError, match="Only accept returning of array"):
        njit(kernel)(np.ones(3))
