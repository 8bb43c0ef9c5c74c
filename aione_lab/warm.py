"""Compile everything the first replay needs: ``python -m aione_lab.warm``.

numba keeps the machine code on disk, so that this is paid once for a version of the sources.
"""

from __future__ import annotations

import time


def warm() -> None:
    """Run two simulated days through the bulk road and a few candles through the live one."""
    from aione_lab.backtest import replay, triggers
    from aione_lab.engine import Engine
    from aione_lab.lake.simulated import SimulatedExchange
    from aione_lab.thresholds import Thresholds

    exchange = SimulatedExchange(seed=0)
    symbol, reference = exchange.symbols[1], exchange.symbols[0]
    candles, market = (exchange.candles(name, "1m", days=2) for name in (symbol, reference))
    funding = exchange.funding(symbol, days=2)
    result = replay(candles, Thresholds(), symbol=symbol, interval="1m", reference=market, funding=funding)
    triggers(result.features, Thresholds())

    engine = Engine(symbol, Thresholds(), interval="1m")
    rows = candles.iloc[:3].reset_index()
    rows["timestamp"] = rows["timestamp"].astype("int64")  # the index has unit ms
    for row in rows.to_dict("records"):
        engine.push({str(name): value for name, value in row.items()})
    Engine.restore(engine.snapshot())


if __name__ == "__main__":
    print("preparing the engine (compiled once, some seconds; then read from disk) ...", flush=True)
    started = time.perf_counter()
    warm()
    print(f"the engine is ready ({time.perf_counter() - started:.1f} s)")
