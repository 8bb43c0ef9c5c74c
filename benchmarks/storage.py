"""Loading one symbol-year from the lake."""

from __future__ import annotations

import tempfile

from aione_lab import Lake
from aione_lab.lake.schema import CANDLE_COLUMNS
from benchmarks.market import SYMBOL, Market
from benchmarks.timing import Row, measure

GROUP = "the lake: one symbol-year of all eight columns"


def bench_lake(market: Market) -> list[Row]:
    """``Lake.arrays`` and ``Lake.candles`` of the whole span, files in the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        lake.append(SYMBOL, "1m", market.candles)
        repeats = market.size.repeats
        return [
            measure(
                GROUP,
                "Lake.arrays, from Parquet",
                lambda: lake.arrays(SYMBOL, "1m"),
                repeats=repeats,
                unit="ms",
                target="≤ 25 ms",
            ),
            measure(
                GROUP,
                "Lake.arrays, OHLCV only",
                lambda: lake.arrays(SYMBOL, "1m", columns=CANDLE_COLUMNS[:5]),
                repeats=repeats,
                unit="ms",
            ),
            measure(
                GROUP, "Lake.candles, as a DataFrame", lambda: lake.candles(SYMBOL, "1m"), repeats=repeats, unit="ms"
            ),
        ]
