"""One threshold set from Stage1 to trades and metrics, in full and by the fast path; and vectorbt beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from aione_lab import Thresholds, replay
from aione_lab.backtest.evaluate import Prepared
from aione_lab.backtest.replay import compute_features
from aione_lab.backtest.result import Result
from benchmarks.market import SYMBOL, Market
from benchmarks.timing import Row, measure, peak_extra_megabytes

GROUP = "one threshold set, Stage1 to trades to metrics, features given"


def search_sets(count: int, seed: int = 0) -> list[Thresholds]:
    """``count`` sets drawn evenly from the ranges that a study searches."""
    rng = np.random.default_rng(seed)
    return [
        Thresholds(
            vol_z_threshold=rng.uniform(0.5, 4.0),
            atr_target=rng.uniform(0.3, 1.5),
            rsi_oversold=rng.uniform(15.0, 45.0),
            rsi_overbought=rng.uniform(55.0, 85.0),
            min_reasons_for_alert=int(rng.integers(1, 5)),
            min_confidence=rng.uniform(0.3, 0.9),
            tp_mult=rng.uniform(0.5, 6.0),
            sl_mult=rng.uniform(0.3, 3.0),
        )
        for _ in range(count)
    ]


def bench_stages(market: Market) -> list[Row]:
    """Replay over given features, the fast path alone and in a batch."""
    size = market.size
    common: dict[str, Any] = {"interval": "1m", "reference": market.reference, "funding": market.funding}
    features = compute_features(market.candles, interval="1m", reference=market.reference)
    whole = replay(market.candles, **common, features=features)
    prepared = Prepared(market.candles, **common, features=features)
    alone = prepared.evaluate([Thresholds()])[0]
    if alone.trade_records.tobytes() != whole.trade_records.tobytes():
        raise AssertionError("the fast path and replay do not give the same trades")
    sets = search_sets(size.sets)
    trades = [len(found.trade_records) for found in prepared.evaluate(sets)]
    memory = peak_extra_megabytes(lambda: prepared.evaluate(sets))
    took = "" if memory is None else f"; {memory:.0f} MB above the prepared arrays at the peak"
    n = f"{len(whole.trade_records)} trades"
    return [
        measure(
            GROUP,
            "replay(features=…) and metrics: every signal, score and trade recorded",
            lambda: replay(market.candles, **common, features=features).metrics,
            repeats=size.repeats,
            unit="ms",
            note=n,
        ),
        measure(
            GROUP,
            "fast path, one set",
            lambda: prepared.evaluate([Thresholds()])[0].metrics,
            repeats=max(size.repeats, 5),
            unit="ms",
            target="≤ 4 ms",
            note=f"{n}, the same bytes",
        ),
        measure(
            GROUP,
            f"fast path, batch of {size.sets} sets, a set",
            lambda: [found.metrics for found in prepared.evaluate(sets)],
            repeats=size.repeats,
            per=len(sets),
            unit="ms",
            suffix=" a set",
            target="≤ 1.5 ms a set a core, < 300 MB",
            note=f"{np.mean(trades):.0f} trades a set{took}",
        ),
        measure(
            GROUP,
            "preparing the fast path, once a symbol",
            lambda: Prepared(market.candles, **common, features=features),
            repeats=min(size.repeats, 5),
            unit="ms",
        ),
        measure(
            GROUP,
            "replay from candles, features included",
            lambda: replay(market.candles, **common),
            repeats=min(size.repeats, 5),
            unit="ms",
        ),
    ]


def bench_vectorbt(market: Market) -> list[Row]:
    """``Portfolio.from_signals`` (numba) on the BUYs of our replay, with their stops and targets."""
    import vectorbt as vbt

    result = replay(
        market.candles, symbol=SYMBOL, interval="1m", reference=market.reference, funding=market.funding
    )
    simulate = vectorbt_portfolio(vbt, [result])

    def judged() -> tuple[Any, ...]:
        portfolio = simulate()
        return (
            portfolio.trades.count(),
            portfolio.trades.win_rate(),
            portfolio.trades.profit_factor(),
            portfolio.total_return(),
            portfolio.max_drawdown(),
            portfolio.sharpe_ratio(),
        )

    count = int(judged()[0].sum())
    repeats = min(market.size.repeats, 5)
    note = f"{count} trades: no time-out, and no stop or target on the entry bar"
    return [
        measure(GROUP, "vectorbt from_signals (numba), orders only", simulate, repeats=repeats, unit="ms", note=note),
        measure(GROUP, "vectorbt from_signals (numba), trades and six metrics", judged, repeats=repeats, unit="ms"),
    ]


def vectorbt_portfolio(vbt: Any, results: list[Result]) -> Callable[[], Any]:
    """A call of ``Portfolio.from_signals`` on the BUYs of ``results``, a column each, with their stops and targets."""
    bars, k = len(results[0].bars), len(results)
    # Without a zone: vectorbt turns every stamp of a zoned index into an object whenever it wraps an array, which
    # costs it a second a time on a symbol-year and is none of its arithmetic.
    frame = results[0].candles.tz_localize(None)
    entries = np.zeros((bars, k), bool)
    stops, targets = np.full((bars, k), np.nan), np.full((bars, k), np.nan)
    for column, result in enumerate(results):
        found = result.assessment_records
        found = found[found["recommendation"] == 1]
        at = np.searchsorted(result.bars["timestamp"], found["timestamp"]) + 1  # the next open
        found, at = found[at < bars], at[at < bars]
        opens = result.bars["open"][at]
        entries[at, column] = True
        stops[at, column] = 1.0 - found["stop"] / opens
        targets[at, column] = found["targets"][:, 0] / opens - 1.0
    if k == 1:
        entries, stops, targets = entries[:, 0], stops[:, 0], targets[:, 0]
    return lambda: vbt.Portfolio.from_signals(
        close=frame["close"],
        open=frame["open"],
        high=frame["high"],
        low=frame["low"],
        entries=entries,
        exits=False,
        price=frame["open"],
        size=1.0,
        size_type="percent",
        fees=results[0].costs.fee,
        init_cash=results[0].settings.initial_capital,
        sl_stop=stops,
        tp_stop=targets,
        stop_entry_price="fillprice",
        stop_exit_price="stoplimit",
        freq="1min",
        engine="numba",
    )
