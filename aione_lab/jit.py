"""`njit` for the engine: strict arithmetic, and a disk cache that notices every change.

numba's own ``cache=True`` looks at the file of the function alone. A kernel that *calls* a changed
kernel in another file would go on running the old machine code, silently. Here the cache of every
kernel is stamped with a digest of all the sources that kernels are made of, and with how they are compiled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config
from numba.core.caching import FunctionCache

_PACKAGE = Path(__file__).parent


def sources_digest() -> str:
    """Sha256 over the sources that reach machine code: the engine, the thresholds and the units."""
    digest = hashlib.sha256()
    for path in sorted([*_PACKAGE.glob("engine/*.py"), *_PACKAGE.glob("thresholds/*.py"), _PACKAGE / "units.py"]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


# Nobody calls a kernel from C: without those wrappers a cold start compiles some seconds less. Where nothing is
# allocated no references need counting: two locked instructions for each array that is handed on.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True, "_nrt": False}
_STAMP = f"{sources_digest()} {_OPTIONS}"


class _StampedCache(FunctionCache):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file._source_stamp = _STAMP


def njit(function: Callable[..., Any]) -> Any:
    """Compile without fastmath, releasing the GIL; cache on disk until any kernel source changes.

    A kernel makes no arrays: all memory is its caller's. With ``NUMBA_DISABLE_JIT=1`` this is the plain function.
    """
    if getattr(config, "DISABLE_JIT"):  # noqa: B009  set by numba at run time, unknown to type checkers
        return function
    dispatcher: Any = numba.njit(function, **_OPTIONS)
    dispatcher._cache = _StampedCache(function)
    return dispatcher
