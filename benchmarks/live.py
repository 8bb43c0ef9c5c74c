"""One closed candle from Python, and many symbols at one bar close."""

from __future__ import annotations

import time
from typing import Any

import numba
import numpy as np

from aione_lab import Costs, Engine, FeatureSpec, Settings, Thresholds
from aione_lab.backtest.prepare import prepare_bars
from aione_lab.engine.params import params_record
from aione_lab.engine.records import BAR, OUT, STATE
from aione_lab.engine.rings import ROWS
from aione_lab.engine.step import start, step_bar
from benchmarks.market import SYMBOL, Market
from benchmarks.timing import Row, measure, row, yardstick_seconds

GROUP = "live: closed candles as they come"
WARM_UP = 1500  # bars: past the day that signals need
FIELDS = ("timestamp", "open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume")


def _start_all(states, rings, params):  # type: ignore[no-untyped-def]
    for k in range(states.size):
        start(states[k], rings[:, k], params[0])


def _close_bar(states, rings, bars, no_inner, params, outs):  # type: ignore[no-untyped-def]
    """One bar of every symbol: states, bars (symbols,), no finer bars, the decisions in outs (symbols,)."""
    for k in range(states.size):
        step_bar(states[k], rings[:, k], bars[k], no_inner, params[0], outs[k])


def bench_live(market: Market) -> list[Row]:
    """``Engine.push`` alone; all symbols by a loop in machine code, and by pushes."""
    bars = prepare_bars(market.candles, "1m", market.reference, market.funding)
    return [*_one_symbol(bars, market), *_many_symbols(bars, market)]


def _messages(bars: np.ndarray) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(candle, reference candle) as a feed hands them over."""
    return [
        (
            {name: bar[name].item() for name in FIELDS},
            {"timestamp": bar["timestamp"].item(), "close": bar["reference_close"].item()},
        )
        for bar in bars
    ]


def _one_symbol(bars: np.ndarray, market: Market) -> list[Row]:
    engine = Engine(SYMBOL, interval="1m")
    count = 20 * market.size.closes
    messages = _messages(bars[: WARM_UP + count])
    for candle, reference in messages[:WARM_UP]:
        engine.push(candle, reference)
    taken = []
    yard = yardstick_seconds()
    for candle, reference in messages[WARM_UP:]:
        before = time.perf_counter_ns()
        engine.push(candle, reference)
        taken.append((time.perf_counter_ns() - before) / 1e9)
    note = _tail(taken)
    return [row(GROUP, "Engine.push, one candle", taken, unit="µs", yard=yard, target="≤ 10 µs", note=note)]


def _many_symbols(bars: np.ndarray, market: Market) -> list[Row]:
    size = market.size
    length = WARM_UP + size.closes
    shift = max(1, (len(bars) - length) // size.symbols)
    # Every symbol lives through other bars of the year, under the same clock: blocks turn over together.
    table = np.stack([bars[k * shift : k * shift + length] for k in range(size.symbols)], axis=1)
    table["timestamp"] = bars["timestamp"][:length, None]
    params = params_record(Thresholds(), "1m", FeatureSpec(), Settings(), Costs())
    states, rings, outs = np.zeros(size.symbols, STATE), np.zeros((ROWS, size.symbols)), np.zeros(size.symbols, OUT)
    numba.njit(_start_all, error_model="numpy")(states, rings, params)
    no_inner = np.zeros(0, BAR)
    kernel = numba.njit(_close_bar, error_model="numpy")  # not cached on disk, see indicators.py
    for bar in table[:WARM_UP]:
        kernel(states, rings, bar, no_inner, params, outs)
    pushes = _pushes(states, rings, table[WARM_UP - 1 :], f"{size.symbols} symbols, decisions out", size.repeats)
    half = WARM_UP + size.closes // 2
    back_to_back, after_others = [], []
    yard = yardstick_seconds()
    for bar in table[WARM_UP:half]:
        back_to_back.append(_timed(kernel, states, rings, bar, no_inner, params, outs))
    other_work = np.zeros(8_000_000)
    for bar in table[half:]:
        other_work += 1.0  # 64 MB: what a minute of other programs leaves of the caches
        after_others.append(_timed(kernel, states, rings, bar, no_inner, params, outs))
    name = f"{size.symbols} symbols, decisions out"
    per = f"; {(states.nbytes + rings.nbytes) / 1e6:.0f} MB of state"
    return [
        row(
            GROUP,
            f"{name}, one call in machine code, caches warm",
            back_to_back,
            unit="µs",
            yard=yard,
            target="≤ 100 µs median",
            note=_tail(back_to_back) + per,
        ),
        row(
            GROUP,
            f"{name}, one call in machine code, caches cold",
            after_others,
            unit="µs",
            yard=yard,
            note=_tail(after_others),
        ),
        pushes,
    ]


def _pushes(states: np.ndarray, rings: np.ndarray, table: np.ndarray, name: str, repeats: int) -> Row:
    """The same by ``Engine.push``, each engine going on from its warm state; ``table`` starts with its last bar."""
    engines = [Engine(f"SYM{k}USDT", interval="1m") for k in range(len(states))]
    for k, engine in enumerate(engines):
        engine._state = states[k : k + 1].copy()
        engine._ring[:] = rings[:, k]
    closes = iter([_messages(bar) for bar in table[1 : repeats + 4]])

    def close() -> None:
        for engine, (candle, reference) in zip(engines, next(closes), strict=True):
            engine.push(candle, reference)

    return measure(GROUP, f"{name}, Engine.push each", close, repeats=repeats, warmups=3, unit="ms")


def _timed(kernel: Any, *arguments: Any) -> float:
    before = time.perf_counter_ns()
    kernel(*arguments)
    return (time.perf_counter_ns() - before) / 1e9


def _tail(taken: list[float]) -> str:
    return f"99 % below {1e6 * float(np.quantile(taken, 0.99)):.1f} µs"
