"""One symbol's run in a journal against a replay of the lake: what differs, and by which cause.

A cause is what takes a difference away when it is taken away. So the bars are pushed twice: as the lake has them, and
as the session saw them. What differs only the first time comes from what the session was given; what differs also the
second time comes from elsewhere, of which the journal keeps the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from aione_lab.backtest.prepare import prepare_bars
from aione_lab.engine.fleet import Advanced, Fleet
from aione_lab.engine.records import ASSESSMENT, BAR, RECOMMENDATIONS, SIGNAL, SIGNALS, TRADE
from aione_lab.engine.spec import FeatureSpec
from aione_lab.jit import sources_digest
from aione_lab.lake.store import Lake, fingerprint_candles
from aione_lab.live.journal import signal_records
from aione_lab.live.opening import bars_of_rows
from aione_lab.live.warmup import no_candles
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import interval_ms

REVISED, ABSENT, WARM_UP = "revised candle", "missing candle", "missing warm-up"
REFERENCE, FUNDING = "missing reference", "funding rate"
THRESHOLDS, VERSION, FILL, UNKNOWN = "thresholds", "version", "fill", "unknown"
CAUSES = (REVISED, ABSENT, WARM_UP, REFERENCE, FUNDING, THRESHOLDS, VERSION, FILL, UNKNOWN)
"""Why a session decided otherwise than a replay of the lake does.

The lake has other numbers of a bar now; one of them has a bar that the other has not; the lake has not what the windows
were filled with; a bar was decided without the reference's close, or without its funding rate; other thresholds were in
force than the journal says; another version decided; orders were filled otherwise although the signals agree.
"""

_FILL_FIELDS = ("position", "equity")
_CANDLE = ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume")

Found = tuple[int, str, str, str, str]
"""Bar, what, recorded, replayed, cause."""


@dataclass(frozen=True)
class SymbolRun:
    """A symbol from its warm-up on, as the journal has it; ``versions``: of the engine, a bar each."""

    symbol: str
    interval: str
    reference: str | None
    spec: FeatureSpec
    settings: Settings
    costs: Costs
    warm: dict[str, Any]
    first: int
    schedule: dict[int, Thresholds]
    rows: pa.Table
    versions: list[str]


class _Replayed(NamedTuple):
    signals: np.ndarray
    assessments: dict[int, bytes]
    trades: dict[int, bytes]


class _Changed(NamedTuple):
    """A bar that the session was given otherwise than the lake has it."""

    time: int
    cause: str
    recorded: str
    lake: str


def compare(run: SymbolRun, lake: Lake) -> list[Found]:
    """All differences of a run, in the order of time."""
    seen = bars_of_rows(run.rows)
    times = seen["timestamp"]
    stored = _lake_bars(run, lake, int(times[-1]))
    before = stored[stored["timestamp"] < times[0]]
    inputs, out = _changes(run, seen, stored), []
    warm = _warm_up(run, lake, int(times[0]))
    if warm is not None:
        out.append((run.first, "warm-up", *warm))
    out += [(one.time, "candle", one.recorded, one.lake, one.cause) for one in inputs]
    recorded = _recorded(run, times)
    of_lake = _push(run, stored, times)
    of_session = _push(run, np.concatenate([before, seen]), times)
    own = {(time, what): texts for time, what, *texts in _differences(recorded, of_session)}
    evidence = _Evidence(run, times, warm is not None)
    for (time, what), (then, now) in own.items():
        out.append((time, what, then, now, evidence.cause(time, what)))
    for time, what, then, now in _differences(recorded, of_lake):
        if (time, what) not in own:
            out.append((time, what, then, now, _latest(inputs, time)))
    return sorted(out, key=lambda one: one[0])


# --- what the session was given --------------------------------------------------------------------------------------


def _lake_bars(run: SymbolRun, lake: Lake, last: int) -> np.ndarray:
    """BAR of the lake from the first bar of the warm-up to ``last``."""
    end = last + interval_ms(run.interval)
    candles = _candles(lake, run.symbol, run.interval, run.first, end)
    if not len(candles):
        return np.zeros(0, BAR)
    reference = None
    if run.reference is not None:
        reference = _candles(lake, run.reference, run.interval, run.first, end)
        reference = reference if len(reference) else None
    return prepare_bars(candles, run.interval, reference, lake.funding(run.symbol, run.first, end))


def _candles(lake: Lake, symbol: str, interval: str, start: int, end: int) -> pd.DataFrame:
    if lake.span(symbol, interval) is None or start >= end:
        return no_candles()
    return lake.candles(symbol, interval, start, end)


def _warm_up(run: SymbolRun, lake: Lake, first_live: int) -> tuple[str, str, str] | None:
    """(recorded, lake, cause) where the lake does not hold what the windows were filled with."""
    told = run.warm
    if not told["bars"]:
        return None
    there = _candles(lake, run.symbol, run.interval, run.first, told["last"] + 1)
    if len(there) and fingerprint_candles(there) == told["fingerprint"]:
        return None
    cause = REVISED if len(there) == told["bars"] else WARM_UP
    return f"{told['bars']} bars", f"{len(there)} bars" if cause == WARM_UP else "other numbers", cause


def _changes(run: SymbolRun, seen: np.ndarray, stored: np.ndarray) -> list[_Changed]:
    """Bars of the session's own time that the lake has otherwise."""
    out = []
    times = seen["timestamp"]
    inside = stored[stored["timestamp"] >= times[0]]
    for time in np.setdiff1d(times, inside["timestamp"]).tolist():
        out.append(_Changed(time, ABSENT, "a candle", "none"))
    for time in np.setdiff1d(inside["timestamp"], times).tolist():
        out.append(_Changed(time, ABSENT, "none", "a candle"))
    both, a, b = np.intersect1d(times, inside["timestamp"], return_indices=True)
    for name, cause in (*((name, REVISED) for name in _CANDLE), ("reference_close", ""), ("funding_rate", FUNDING)):
        then, now = seen[name][a], inside[name][b]
        for i in np.flatnonzero(~((then == now) | (np.isnan(then) & np.isnan(now)))).tolist():
            why = cause or (REFERENCE if np.isnan(then[i]) else ABSENT if np.isnan(now[i]) else REVISED)
            out.append(_Changed(int(both[i]), why, f"{name} {then[i]:g}", f"{name} {now[i]:g}"))
    return sorted(out, key=lambda one: one.time)


def _latest(inputs: list[_Changed], time: int) -> str:
    """The cause nearest before a difference that is gone once the bars are those the session saw."""
    return next((one.cause for one in reversed(inputs) if one.time <= time), UNKNOWN)


class _Evidence:
    """What the journal itself says of bars that differ although the session's own candles are pushed."""

    def __init__(self, run: SymbolRun, times: np.ndarray, other_warm_up: bool) -> None:
        self._times, self._other_warm_up = times, other_warm_up
        self._digests = run.rows["thresholds"].to_pylist()
        now = sources_digest()
        self._other_version = [version != now for version in run.versions]
        changes = sorted(run.schedule)
        places = np.searchsorted(np.array(changes, np.int64), times, side="right") - 1
        sets = [run.schedule[time].digest() for time in changes]
        self._expected = [sets[place] if place >= 0 else "" for place in places.tolist()]

    def cause(self, time: int, what: str) -> str:
        i = min(int(np.searchsorted(self._times, time)), len(self._times) - 1)
        if any(a != b for a, b in zip(self._digests[: i + 1], self._expected[: i + 1], strict=True)):
            return THRESHOLDS
        if self._other_warm_up:
            return WARM_UP
        if any(self._other_version[: i + 1]):
            return VERSION
        return FILL if what in ("trade", "fill") else UNKNOWN


# --- what was decided ------------------------------------------------------------------------------------------------


def _push(run: SymbolRun, bars: np.ndarray, times: np.ndarray) -> _Replayed:
    """What the engine of now makes of ``bars``, of which those at ``times`` count."""
    starts = sorted(run.schedule)
    fleet = Fleet(
        {run.symbol: run.schedule[starts[0]] if starts else Thresholds()},
        interval=run.interval,
        spec=run.spec,
        settings=run.settings,
        costs=run.costs,
    )
    edges = np.searchsorted(bars["timestamp"], np.array(starts[1:], np.int64))
    parts: list[Advanced] = []
    for i, piece in enumerate(np.split(bars, edges)):
        if i:
            fleet.set_thresholds(run.symbol, run.schedule[starts[i]])
        parts.append(fleet.advance(run.symbol, piece))
    signals = np.concatenate([part.signals for part in parts])
    found = np.concatenate([part.assessments for part in parts])
    trades = np.concatenate([part.trades for part in parts])
    kept = signals[np.isin(signals["timestamp"], times)]
    bars_left = _bar_of_exit(trades, signals)
    return _Replayed(
        kept,
        {int(one["timestamp"]): one.tobytes() for one in found if one["timestamp"] >= times[0]},
        {time: content for time, content in bars_left.items() if time >= times[0]},
    )


def _bar_of_exit(trades: np.ndarray, signals: np.ndarray) -> dict[int, bytes]:
    """Trades by the bar whose step told of them: for one that a gap closed that is the bar behind the gap."""
    out: dict[int, bytes] = {}
    times = signals["timestamp"]
    for trade in trades:
        time = int(trade["exit_time"])
        if trade["exit_reason"] == 4:  # gap
            time = int(times[min(int(np.searchsorted(times, time, side="right")), len(times) - 1)])
        out[time] = out.get(time, b"") + trade.tobytes()
    return out


def _recorded(run: SymbolRun, times: np.ndarray) -> _Replayed:
    found, closed = run.rows["assessment"].to_pylist(), run.rows["closed"].to_pylist()
    return _Replayed(
        signal_records(run.rows),
        {time: content for time, content in zip(times.tolist(), found, strict=True) if content},
        {time: content for time, content in zip(times.tolist(), closed, strict=True) if content},
    )


def _differences(then: _Replayed, now: _Replayed) -> list[tuple[int, str, str, str]]:
    """(bar, what, recorded, replayed) of the bars that both have."""
    out = []
    both, a, b = np.intersect1d(then.signals["timestamp"], now.signals["timestamp"], return_indices=True)
    old, new = then.signals[a], now.signals[b]
    unlike = {name: ~_equal(old[name], new[name]) for name in SIGNAL.names or ()}
    fill = unlike["position"] | unlike["equity"]
    signal = np.logical_or.reduce([bad for name, bad in unlike.items() if name not in _FILL_FIELDS])
    for i in np.flatnonzero(signal | fill).tolist():
        names = [name for name, bad in unlike.items() if bad[i]]
        what = "signal" if signal[i] else "fill"
        out.append((int(both[i]), what, _text(old[i], names), _text(new[i], names)))
    shared = set(both.tolist())
    for what, dtype, olds, news in (
        ("assessment", ASSESSMENT, then.assessments, now.assessments),
        ("trade", TRADE, then.trades, now.trades),
    ):
        for time in sorted((olds.keys() | news.keys()) & shared):
            if olds.get(time) != news.get(time):
                out.append((time, what, *_records(olds.get(time), news.get(time), dtype)))
    return out


def _equal(a: np.ndarray, b: np.ndarray) -> Any:
    return (a == b) | ((a != a) & (b != b))


def _text(record: Any, names: list[str]) -> str:
    named = {"signal": SIGNALS, "recommendation": RECOMMENDATIONS}
    parts = []
    for name in names[:3]:
        value = record[name].item()
        parts.append(f"{name} {named[name][value]!r}" if name in named else f"{name} {value:.10g}")
    return ", ".join(parts)


def _records(then: bytes | None, now: bytes | None, dtype: np.dtype[Any]) -> tuple[str, str]:
    if then is None or now is None or len(then) != len(now):
        return ("none" if then is None else "one"), ("none" if now is None else "one")
    old, new = np.frombuffer(then, dtype), np.frombuffer(now, dtype)
    names = [name for name in dtype.names or () if old[name].tobytes() != new[name].tobytes()][:3]
    return tuple(", ".join(f"{name} {one[name].ravel()[0]:.10g}" for name in names) for one in (old, new))  # type: ignore[return-value]
