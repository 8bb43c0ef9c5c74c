"""Our exits beside those that vectorbt's own simulator finds for the same entries, each difference with its cause.

``to_vectorbt`` hands over fills; here nothing of our exits is handed over. vectorbt gets the entries, stops, targets
and the bars on which a trade is to be left at the open, and looks for the exits itself.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.backtest.result import Result
from aione_lab.backtest.trades import named, sides, utc
from aione_lab.engine.params import check_kind, rules_record
from aione_lab.engine.records import EXITS, RECOMMENDATIONS, TARGETS_COUNT
from aione_lab.engine.stage2 import to_tick
from aione_lab.units import INTERVALS

DIFFERENCES = {
    "same": "the same bar and price",
    "entry bar": "vectorbt acts on one signal a bar: it looks for no stop or target on the bar of the entry",
    "leaves at the open": "time-out and opposite signal leave at the open; vectorbt looks first for a stop or target "
    "anywhere in that bar",
    "target at the open": "the open had passed the target and fills there; vectorbt takes the stop if the same bar "
    "touches that too",
    "target first": "one bar touches stop and target, and the target came first, by the settings or by finer candles; "
    "vectorbt always takes the stop",
    "finer candles": "finer candles opened beyond the stop; vectorbt fills at the stop",
    "gap": "bars are missing: we leave at the last close; vectorbt is shown no bar after it",
    "liquidation": "the isolated margin was lost; vectorbt knows no margin",
    "trailing from the entry bar": "the stop follows the best price of the entry bar too; vectorbt's from the next bar",
    "unexplained": "none of these: one of the two is wrong",
}
"""What ``difference`` may say, and what it means."""

_CELLS = 1_000_000  # bars × trades in one simulation: some hundred megabytes
_EPS = 4e-16  # shares of a price lose its last bit, and a price exactly at a level must reach it
_STOP, _TARGET, _TIME_OUT, _GAP, _TRAILING, _OPPOSITE, _LIQUIDATION = (
    EXITS.index(name) for name in ("stop", "target", "time_out", "gap", "trailing", "opposite", "liquidation")
)


def compare_exits(result: Result) -> pd.DataFrame:
    """One row for every part of every closed trade: how we left it, how ``Portfolio.from_signals`` does, and why else.

    A trade has a part for each target that closes something, and one for what has no target. A part is a column of
    its own in vectorbt and starts on its entry bar at our fill, so that no difference moves a later entry. It gets the
    bar's prices, stop and target as shares of the fill, the moving stop where the settings have one, and exit signals
    at the time-out and after an opposite signal. Funding, fees and sizes move no exit and are left out; prices are
    those of the market, before slippage.

    Columns: ``trade`` (row of ``result.trades``), ``part``, ``entry_time``, ``side``, ``entry_price``, ``target`` (NaN:
    none), ``exit_time, exit_price, exit_reason`` (ours), ``vectorbt_time, vectorbt_price`` (NaT, NaN: still open when
    the bars end), ``difference``: "same", or the rule by which the two differ; ``DIFFERENCES`` says what each means.
    ``compare_exits(result)["difference"].value_counts()`` is the summary.

    Raises InputError for a result that is none. Takes vectorbt's import and compilation, some ten seconds, once.
    """
    check_kind("result", result, Result)
    parts = _parts(result)
    found = np.full((2, len(parts)), np.nan)
    clipped = np.zeros(len(parts), np.int64)
    for chosen in _chunks(parts, _rules(result)):
        found[:, chosen], clipped[chosen] = _simulate(result, parts[chosen])
    return _frame(result, parts, found, clipped)


_PART = np.dtype(
    [
        ("trade", "i8"), ("part", "i8"), ("start", "i8"), ("held", "i8"), ("last", "i8"), ("side", "i8"),
        ("reason", "i8"), ("entry", "f8"), ("stop", "f8"), ("target", "f8"), ("price", "f8"),
    ]
)  # fmt: skip


def _rules(result: Result) -> Any:
    return rules_record(result.settings, result.costs, INTERVALS[result.interval])[0]


def _parts(result: Result) -> np.ndarray:
    """(parts,) of _PART: bars count from the entry bar; ``last`` is the last one before bars are missing or end."""
    rules, times = _rules(result), result.bars["timestamp"]
    broken = np.append(np.flatnonzero(np.diff(times) != INTERVALS[result.interval]), len(times) - 1)
    rows = []
    for number, trade in enumerate(result.trade_records):
        start = int(np.searchsorted(times, trade["entry_time"]))
        last = int(broken[np.searchsorted(broken, start)]) - start
        for part, target in enumerate(_targets(trade, rules)):
            fill = min(part, int(trade["exits"]) - 1)
            if trade["exit_reasons"][fill] != _TARGET:
                fill = int(trade["exits"]) - 1  # what is left ends together
            held = int(np.searchsorted(times, trade["exit_times"][fill])) - start
            reason, side = int(trade["exit_reasons"][fill]), int(trade["side"])
            price = trade["exit_prices"][fill]
            if reason not in (_TARGET, _LIQUIDATION):
                price /= 1.0 - side * rules["slippage"]
            levels = (trade["entry_price"], trade["stop"], target, price)
            rows.append((number, part, start, held, last, side, reason, *levels))
    return np.array(rows, _PART)


def _targets(trade: np.ndarray, rules: Any) -> list[float]:
    """Target of every part of a trade, in order, NaN for the part without one: what ``target_shares`` came to."""

    def lots(quantity: float) -> float:
        lot = rules["lot_size"]
        return math.floor(quantity / lot + 1e-9) * lot if lot > 0 else quantity

    entered, shares = float(trade["quantity"]), rules["target_shares"]
    parts = [0.0] * TARGETS_COUNT
    last = -1
    for i, target in enumerate(trade["targets"]):
        if math.isfinite(target) and shares[i] > 0:
            last = i
        if last >= 0:
            parts[last] += lots(shares[i] * entered)
    if last >= 0 and shares.sum() > 1 - 1e-9:
        parts[last] = math.inf
    targets = [float(trade["targets"][i]) for i in range(TARGETS_COUNT) if parts[i] > 0]
    return targets if sum(parts) >= entered else [*targets, math.nan]


def _chunks(parts: np.ndarray, rules: Any) -> list[slice]:
    step = max(1, _CELLS // (int(rules["max_holding_bars"]) + 1))
    return [slice(first, first + step) for first in range(0, len(parts), step)]


def _simulate(result: Result, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((2, parts) exit bar and price, NaN where open at the end; bar from which the moving stop cannot be followed)."""
    import vectorbt as vbt

    rules, bars = _rules(result), result.bars
    holding = int(min(rules["max_holding_bars"], parts["last"].max() + 1))
    bar = np.arange(holding + 1)[:, None]
    rows = parts["start"] + np.minimum(bar, parts["last"])
    shown = bar <= parts["last"]
    # Past the last bar its close stands still, so that nothing more is reached.
    prices = {name: bars[name][rows] for name in ("open", "high", "low", "close")}
    for name in ("open", "high", "low"):
        prices[name] = np.where(shown, prices[name], prices["close"])
    entry, side = parts["entry"], parts["side"]
    entries, exits = np.zeros(rows.shape, bool), _leaves(result, parts, rows) & shown
    entries[0] = True
    price = prices["open"].copy()
    price[0] = entry
    moving: dict[str, Any] = {}
    clipped = np.full(len(parts), np.iinfo(np.int64).max)
    if rules["break_even"] > 0 or rules["trailing_stop"] > 0:
        levels, clipped = _moving_stop(result, parts, prices)
        moving = {"adjust_sl_func_nb": _follow(), "adjust_sl_args": (levels,)}
    stop, target = side * (entry - parts["stop"]) / entry, side * (parts["target"] - entry) / entry
    portfolio = vbt.Portfolio.from_signals(
        **prices,
        entries=entries & (side > 0),
        exits=exits & (side > 0),
        short_entries=entries & (side < 0),
        short_exits=exits & (side < 0),
        price=price,
        size=1.0,
        init_cash=10.0 * entry,
        sl_stop=np.where(stop >= 0, np.maximum(stop - _EPS, 0.0), np.nan),
        tp_stop=np.where(target >= 0, np.maximum(target - _EPS, 0.0), np.nan),
        stop_entry_price="fillprice",
        stop_exit_price="stoplimit",
        freq=pd.Timedelta(INTERVALS[result.interval], unit="ms"),
        engine="numba",
        **moving,
    )
    trades = portfolio.trades.values
    found = np.full((2, len(parts)), np.nan)
    closed = trades[trades["status"] == 1]
    found[0, closed["col"]], found[1, closed["col"]] = closed["exit_idx"], closed["exit_price"]
    return found, clipped


def _leaves(result: Result, parts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(bars, parts) of bool: where the trade is to be left at the open, by time or after an opposite signal."""
    leaves = np.zeros(rows.shape, bool)
    rules = _rules(result)
    if len(leaves) > rules["max_holding_bars"]:
        leaves[rules["max_holding_bars"]] = True
    if result.settings.exit_on_opposite:
        signals = result.signal_records
        decided = np.isin(signals["recommendation"], [RECOMMENDATIONS.index(name) for name in ("BUY", "SELL")])
        wanted = np.where(decided, signals["side"], 0)[rows]
        leaves[1:] |= wanted[:-1] == -parts["side"]
    return leaves


def _moving_stop(result: Result, parts: np.ndarray, prices: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(bars, parts) levels in force on each bar, and the first bar on which vectorbt's own peak lies behind the level.

    At the entry once the best price so far is ``break_even`` R ahead, and ``trailing_stop`` ATRs behind that price.
    """
    rules, side, entry = _rules(result), parts["side"], parts["entry"]
    best = np.maximum(side * prices["high"], side * prices["low"])
    seen = np.vstack([side * entry, best])  # vectorbt's peak: the fill, and the bars after it
    if rules["limit_entry"]:
        # Filled on the way: of the entry bar only its close came after that for certain.
        inside = side * prices["open"][0] > side * entry
        best[0] = np.where(inside, np.maximum(side * entry, side * prices["close"][0]), best[0])
    best = np.maximum.accumulate(np.maximum(best, side * entry))
    risk = side * (entry - parts["stop"])
    levels = np.broadcast_to(side * parts["stop"], best.shape).copy()
    if rules["break_even"] > 0:
        ahead = (risk > 0) & (best - side * entry >= rules["break_even"] * risk)
        levels = np.where(ahead, np.maximum(levels, side * entry), levels)
    if rules["trailing_stop"] > 0:
        alerts, signal_times = result.assessment_records, result.trade_records["signal_time"][parts["trade"]]
        atr = alerts["atr"][np.searchsorted(alerts["timestamp"], signal_times)]
        behind = side * (best - rules["trailing_stop"] * atr)
        if rules["tick_size"] > 0:
            flat = zip(behind.ravel(), np.broadcast_to(side < 0, behind.shape).ravel(), strict=True)
            behind = np.array([to_tick(level, rules["tick_size"], up) for level, up in flat]).reshape(behind.shape)
        levels = np.maximum(levels, side * behind)
    levels = np.maximum.accumulate(levels)
    in_force = np.vstack([side * parts["stop"], levels[:-1]])
    seen[1] = seen[0]
    peak = np.maximum.accumulate(seen[:-1])
    lost = in_force > peak
    first = np.where(lost.any(axis=0), lost.argmax(axis=0), np.iinfo(np.int64).max)
    return np.ascontiguousarray(side * in_force), first


@cache
def _follow() -> Any:
    """The callback of vectorbt that says where the stop lies on a bar: a trailing share of the peak that it keeps."""
    import numba

    @numba.njit
    def follow(context: Any, levels: np.ndarray) -> tuple[float, bool]:
        peak, level = context.curr_price, levels[context.i, context.col]
        if context.position_now == 0 or not peak > 0:
            return context.curr_stop, context.curr_trail
        share = 1.0 - level / peak if context.position_now > 0 else level / peak - 1.0
        return max(share - 4e-16, 0.0), True

    return follow


def _frame(result: Result, parts: np.ndarray, found: np.ndarray, clipped: np.ndarray) -> pd.DataFrame:
    times = result.bars["timestamp"]
    theirs = np.full(len(parts), np.datetime64("NaT", "ms"))
    there = np.isfinite(found[0])
    theirs[there] = times[parts["start"][there] + found[0][there].astype(np.int64)].astype("datetime64[ms]")
    return pd.DataFrame(
        {
            "trade": parts["trade"],
            "part": parts["part"],
            "entry_time": utc(times[parts["start"]]),
            "side": sides(parts["side"]),
            "entry_price": parts["entry"],
            "target": parts["target"],
            "exit_time": utc(times[parts["start"] + parts["held"]]),
            "exit_price": parts["price"],
            "exit_reason": named(parts["reason"], EXITS),
            "vectorbt_time": pd.DatetimeIndex(theirs).tz_localize("UTC"),
            "vectorbt_price": found[1],
            "difference": pd.Categorical(_differences(result, parts, found, clipped), list(DIFFERENCES)),
        }
    )


def _differences(result: Result, parts: np.ndarray, found: np.ndarray, clipped: np.ndarray) -> np.ndarray:
    """(parts,) names of DIFFERENCES; the first rule that applies."""
    bar = result.bars[parts["start"] + parts["held"]]
    side, held, reason = parts["side"], parts["held"], parts["reason"]
    trades = result.trade_records[parts["trade"]]
    opened, target = side * bar["open"], side * parts["target"]
    here = found[0] == held
    same = here & np.isclose(found[1], parts["price"], rtol=1e-12, atol=0.0)
    stopped = here & (side * found[1] < target)
    taken = reason == _TARGET
    told = (trades["ambiguous"] == 1) | (trades["resolved"] == 1) | (result.settings.both_touched == "target")
    at_stop = np.isin(reason, (_STOP, _TRAILING))
    rules = {
        "same": same,
        "entry bar": held == 0,
        "gap": (reason == _GAP) & ~here,
        "liquidation": reason == _LIQUIDATION,
        "leaves at the open": np.isin(reason, (_TIME_OUT, _OPPOSITE)) & here,
        "target at the open": taken & stopped & (opened >= target),
        "target first": taken & stopped & told,
        "finer candles": at_stop & here & (trades["resolved"] == 1),
        "trailing from the entry bar": clipped <= np.fmin(held, np.where(np.isnan(found[0]), held, found[0])),
    }
    return np.select(list(rules.values()), list(rules), "unexplained").astype(object)
