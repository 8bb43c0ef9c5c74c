"""What the killed and the competing processes of the store's tests do; importable by a fresh interpreter."""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
from pathlib import Path
from typing import Any

from aione_lab.errors import ThresholdError
from aione_lab.thresholds import Provenance, Thresholds, ThresholdStore

T0 = dt.datetime(2025, 6, 10, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def provenance(**changes: Any) -> Provenance:
    values: dict[str, Any] = {
        "study": "SOLUSDT-1m-0",
        "start": "2025-05-04",
        "end": "2025-06-09",
        "data_fingerprint": "ab12" * 16,
        "spec_digest": "cd34" * 16,
        "verdict": "accept",
        "sentence": "Net of costs the set earned 0.1 R a trade on unseen days, give or take 0.1.",
        "seed": 7,
        "versions": {"numpy": "2.4.1", "aione-lab": "0.1.0"},
    }
    return Provenance(**{**values, **changes})


def promote(store: ThresholdStore, tp_mult: float, symbol: str = "SOLUSDT", **changes: Any) -> Any:
    arguments: dict[str, Any] = {"verdict": "accept", "provenance": provenance(), "now": T0, **changes}
    return store.promote(symbol, Thresholds(tp_mult=tp_mult), **arguments)


def die_at_step(root: str, step: int) -> None:
    """Promote once more; SIGKILL right before the n-th call that touches the disk."""
    calls = 0

    def counted(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    os.replace = counted(os.replace)
    os.fsync = counted(os.fsync)
    Path.unlink = counted(Path.unlink)  # type: ignore[method-assign]
    promote(ThresholdStore(root), 2.5)
    print(calls)


def promote_many(root: str, worker: int, count: int) -> None:
    store = ThresholdStore(root)
    for number in range(count):
        for attempt in range(20):
            try:
                promote(store, 1.0 + worker + number / 1000)
                break
            except ThresholdError as error:  # a crowded machine: refused by name, and tried again
                assert "holds its lock" in str(error) and attempt < 19, error


if __name__ == "__main__":
    name, root, *numbers = sys.argv[1:]
    globals()[name](root, *map(int, numbers))
