"""Compile every kernel once: ``python -m aione_lab.warm``. numba's disk cache serves each process after it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from aione_lab.backtest.stages import AssetMonitorStage1, Stage2Processor

DAYS = 3
"""Simulated days that are pushed through: past the warm-up, so that every branch has seen its types."""


def is_warm() -> bool:
    """Whether the replay's kernel is compiled and cached for these sources and this machine."""
    from aione_lab.engine import bulk

    cache = getattr(bulk.replay_bars, "_cache", None)  # plain functions (NUMBA_DISABLE_JIT=1) have none
    return cache is None or bool(bulk.replay_bars.signatures) or bool(cache._cache_file._load_index())


def announce_if_cold(say: Callable[[str], object] | None = None) -> None:
    """Tell on standard error (or through ``say``) that compiling comes first, where it does."""
    if not is_warm():
        (say or _to_stderr)("compiling the engine, once for this machine and version; this takes up to a minute …")


def warm(say: Callable[[str], object] | None = None) -> None:
    """Run a tiny simulated history through every public way into the kernels."""
    tell = say or (lambda text: None)
    started = time.monotonic()
    tell("simulated exchange")
    from aione_lab.lake.simulated import SimulatedExchange

    exchange = SimulatedExchange()
    candles, reference = (exchange.candles(name, days=DAYS) for name in ("LINKUSDT", "BTCUSDT"))
    funding = exchange.funding("LINKUSDT", days=DAYS)

    tell("whole step: replay")
    from aione_lab.backtest.portfolio import replay_portfolio
    from aione_lab.backtest.replay import compute_features, replay, triggers

    common: dict[str, Any] = {"interval": "1m", "reference": reference, "funding": funding}
    result = replay(candles, symbol="LINKUSDT", **common)
    tell("split step: replay over stored features")
    replay(candles, features=result.features, **common)
    tell("features and triggers on their own")
    compute_features(candles.iloc[:10], interval="1m")
    triggers(result.features)
    tell("many threshold sets, random entries, alerts traded alone")
    from aione_lab.backtest.alone import contexts, trade_alone
    from aione_lab.backtest.baseline import random_entries
    from aione_lab.backtest.evaluate import Prepared
    from aione_lab.thresholds.params import Thresholds

    Prepared(candles, features=result.features, **common).evaluate([Thresholds()])
    random_entries(result, n_draws=1)
    trade_alone(result)
    contexts(result)
    tell("many symbols on one account")
    replay_portfolio({"LINKUSDT": candles}, interval="1m", reference=reference)
    tell("one bar on its own: explanation, the stages")
    from aione_lab.backtest.stages import AssetMonitorStage1, Stage2Processor

    last = int(result.assessment_records["timestamp"][-1])
    result.explain(last)
    before = candles[: int((result.bars["timestamp"] <= last).sum())]
    asyncio.run(_stages(AssetMonitorStage1(), Stage2Processor(), before))
    tell("one candle at a time: Engine")
    from aione_lab.engine import Engine

    engine = Engine("LINKUSDT")
    engine.seed_days([20.5], [19.5], "2024-12-31")
    for record in result.bars[:3]:
        engine.push({name: record[name].item() for name in ("timestamp", "open", "high", "low", "close", "volume")})
    Engine.restore(engine.snapshot()).reset()
    tell("a bar of many symbols: the session's call")
    import numpy as np

    from aione_lab.engine.fleet import Fleet

    Fleet({"LINKUSDT": Thresholds()}).push(np.zeros(1, np.int64), result.bars[:1])
    tell(f"ready after {time.monotonic() - started:.1f} s")


async def _stages(stage1: AssetMonitorStage1, stage2: Stage2Processor, candles: pd.DataFrame) -> None:
    await stage2.process(await stage1.check_anomalies("LINKUSDT", candles))


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    _to_stderr("compiling the engine's kernels; numba's cache keeps them until the sources change")
    warm(lambda text: _to_stderr(f"  {text}"))
