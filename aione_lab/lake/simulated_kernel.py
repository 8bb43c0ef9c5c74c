"""The arithmetic of the simulated exchange: one market path and one symbol, bar after bar.

Both kernels are causal: bar ``t`` is made from the state after bar ``t - 1`` and from the random numbers of
bar ``t`` alone. They fill ``[lo, hi)`` of preallocated columns and carry everything else in a state record, so
that a history may be made a day at a time. No clock, no globals, no fast-math.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]
Record = Any  # one row of a structured array

SUBSTEPS = 24
"""Steps of the path inside a minute: enough for range / |move| to look like a traded minute."""

VOLATILITY = np.dtype([("fast", "f8"), ("slow", "f8"), ("excite", "f8"), ("regime", "i8")])
"""Log-volatility of one source of risk: two autoregressions, the afterglow of a burst, a Markov regime."""

SYMBOL_STATE = np.dtype(
    [
        ("price", "f8"),  # latent price, before rounding to ticks
        ("activity", "f8"),  # autoregression of log volume that does not come from volatility
        ("atr", "f8"),  # Wilder ATR 14 of the candles
        ("gain", "f8"),  # Wilder averages of RSI 14
        ("loss", "f8"),
        ("left", "i8"),  # minutes of planted drift still to come
        ("drift", "f8"),  # planted move in all, as a share of the price at the signal
        ("bank", "f8"),  # planted falls less planted rebounds so far, in log price
    ]
)

NORMALS = 7
UNIFORMS = 8
"""Random numbers a bar of one symbol takes besides the sub-steps (columns are named where they are used)."""

REBOUND = 1
BREAKOUT = 2

_FAST = 0.95  # half-life 14 minutes
_SLOW = 0.9985  # half-life 7.7 hours
_ACTIVITY = 0.97  # half-life 23 minutes
_EXCITE = 0.87  # half-life of the afterglow 5 minutes
_GLOW = 1.3  # and its ceiling, so that bursts do not feed on each other
_LEAVE = np.array([1 / 900.0, 1 / 900.0, 1 / 240.0])  # chance a minute of leaving quiet, normal, wild
_REGIME = np.array([-0.30, 0.0, 0.50])  # log-volatility of the regimes
_MIX = 0.33  # how uneven minutes of the same volatility are


class Source(NamedTuple):
    """One source of risk: sizes of its volatility parts and its bursts."""

    sigma: float  # standard deviation of a one-minute return at log-volatility 0
    fast: float  # standard deviation of the fast and the slow part of log-volatility
    slow: float
    season: float  # half amplitude of the daily cycle in log-volatility
    bursts: float  # jumps a day


class Symbol(NamedTuple):
    """One symbol as the kernel needs it (see ``SymbolSpec`` for the public form)."""

    own: Source
    loading: float  # return of the symbol for a return of the market
    common: float  # share of the variance that comes from the market
    follow: float  # how far its own volatility follows the market's
    ticks: float  # ticks and lots in one unit (the inverse of their size)
    lots: float
    turnover: float  # typical quote volume a minute
    trade: float  # typical quote size of one trade
    kind: int  # 0, REBOUND or BREAKOUT
    size: float  # planted move in ATRs of the signal bar
    horizon: int  # minutes the move is spread over
    falls: float  # capitulations a day (REBOUND)
    volume_z: float
    rsi: float
    stretch: float  # distance below VWAP in ATRs (REBOUND)


@njit(cache=True)
def log_volatility(
    s: Record, source: Source, minute_of_day: int, z_fast: float, z_slow: float, u_regime: float
) -> float:
    """Move one source of risk a minute on and return its log-volatility."""
    s.fast = _FAST * s.fast + np.sqrt(1 - _FAST**2) * z_fast
    s.slow = _SLOW * s.slow + np.sqrt(1 - _SLOW**2) * z_slow
    s.excite *= _EXCITE
    leave = _LEAVE[s.regime]
    if u_regime < leave:
        # From the middle either way, from the edges back to the middle.
        s.regime = 1 if s.regime != 1 else (0 if u_regime < 0.6 * leave else 2)
    # Busiest near 14:30 UTC, quietest near 05:00: a cosine with a small second harmonic.
    day = 2 * np.pi * (minute_of_day - 870) / 1440
    season = source.season * (np.cos(day) + 0.35 * np.cos(2 * day))
    return source.fast * s.fast + source.slow * s.slow + season + _REGIME[s.regime] + s.excite


@njit(cache=True)
def market(
    lo: int,
    hi: int,
    z_path: Array,
    normals: Array,
    uniforms: Array,
    source: Source,
    state: Array,
    path: Array,
    calm: Array,
    jump: Array,
) -> None:
    """Fill the market factor of the bars ``[lo, hi)``.

    ``path`` (n, SUBSTEPS) float32 gets returns, ``calm`` (n,) log-volatility, ``jump`` (n,) burst size in
    standard deviations of a minute (0 for most). Random numbers have a row for each bar of ``[lo, hi)``.
    """
    s = state[0]
    for t in range(lo, hi):
        z = normals[t - lo]
        u = uniforms[t - lo]
        h = log_volatility(s, source, t % 1440, z[0], z[1], u[0])
        sigma = source.sigma * np.exp(h)
        calm[t] = h
        step = sigma * np.exp(_MIX * z[2] - _MIX**2) / np.sqrt(SUBSTEPS)
        for k in range(SUBSTEPS):
            path[t, k] = step * float(z_path[t - lo, k])
        jump[t] = 0.0
        if u[1] < source.bursts / 1440:
            jump[t] = min(2.0 - 1.8 * np.log(1 - u[2]), 9.0)
            part = (1.0 if u[3] < 0.5 else -1.0) * jump[t] * sigma / 6
            first = int(u[4] * (SUBSTEPS - 6))
            for k in range(first, first + 6):
                path[t, k] += part
            s.excite = min(s.excite + 0.28 * jump[t], _GLOW)


@njit(cache=True)
def _signal(t: int, p: Symbol, s: Record, high: Array, low: Array, close: Array, volume: Array) -> int:
    """Direction in which the planted rule fires at the close of bar ``t``: 1, -1 or 0. Uses bars <= t only."""
    if t < 50:
        return 0
    mean = 0.0
    for i in range(t - 50, t):
        mean += volume[i]
    mean /= 50
    spread = 0.0
    for i in range(t - 50, t):
        spread += (volume[i] - mean) ** 2
    if volume[t] - mean < p.volume_z * np.sqrt(spread / 50):
        return 0
    if p.kind == REBOUND:
        if s.gain * (100 - p.rsi) > s.loss * p.rsi:  # RSI above the level
            return 0
        money = 0.0
        amount = 0.0
        for i in range(t - 29, t + 1):
            money += volume[i] * (high[i] + low[i] + close[i]) / 3
            amount += volume[i]
        return 1 if close[t] <= money / amount - p.stretch * s.atr else 0
    top = high[t - 50]
    bottom = low[t - 50]
    for i in range(t - 49, t):
        top = max(top, high[i])
        bottom = min(bottom, low[i])
    if close[t - 1] <= top < close[t]:
        return 1
    return -1 if close[t - 1] >= bottom > close[t] else 0


@njit(cache=True)
def _indicators(t: int, s: Record, high: Array, low: Array, close: Array) -> None:
    """Wilder's ATR 14 and the averages of RSI 14, seeded by the first bar."""
    if t == 0:
        s.atr = high[0] - low[0]
        return
    change = close[t] - close[t - 1]
    s.atr += (max(high[t], close[t - 1]) - min(low[t], close[t - 1]) - s.atr) / 14
    s.gain += (max(change, 0.0) - s.gain) / 14
    s.loss += (max(-change, 0.0) - s.loss) / 14


@njit(cache=True)
def candles(
    lo: int,
    hi: int,
    z_path: Array,
    normals: Array,
    uniforms: Array,
    p: Symbol,
    path: Array,
    calm: Array,
    jump: Array,
    volatility: Array,
    state: Array,
    out: Array,
    event: Array,
) -> None:
    """Fill the candles ``[lo, hi)`` of one symbol.

    ``out`` (8, n) float64: open, high, low, close, volume, quote_volume, trades, taker_buy_volume;
    ``event`` (n,) int8: the planted rule's direction where it fired. ``path``, ``calm`` and ``jump`` are the
    market's, ``p`` a ``Symbol``.
    """
    opened, high, low, close = out[0], out[1], out[2], out[3]
    volume, quote, trades, taker = out[4], out[5], out[6], out[7]
    v = volatility[0]
    s = state[0]
    sub = np.empty(SUBSTEPS)
    for t in range(lo, hi):
        z = normals[t - lo]
        u = uniforms[t - lo]
        h = p.follow * calm[t] + log_volatility(v, p.own, t % 1440, z[0], z[1], u[0])
        sigma = p.own.sigma * np.exp(h)
        step = sigma * np.exp(_MIX * z[2] - _MIX**2) / np.sqrt(SUBSTEPS)
        for k in range(SUBSTEPS):
            sub[k] = p.loading * float(path[t, k]) + step * float(z_path[t - lo, k])

        # Bursts of its own: either way with the same chance, so the price stays a martingale.
        burst = jump[t] * np.sqrt(p.common)
        first = int(u[4] * (SUBSTEPS - 6))
        total = sigma / np.sqrt(1 - p.common)
        if u[1] < p.own.bursts / 1440:
            own = min(2.0 - 1.8 * np.log(1 - u[2]), 9.0)
            burst += own
            v.excite = min(v.excite + 0.28 * own, _GLOW)
            for k in range(first, first + 6):
                sub[k] += (1.0 if u[3] < 0.5 else -1.0) * own * total / 6

        # The planted part. A capitulation falls by what rebounds will give back: ``bank`` keeps the two even.
        if s.left > 0:
            rank = p.horizon - s.left
            share = s.drift * 2 * (p.horizon - rank) / (p.horizon * (p.horizon + 1))
            for k in range(SUBSTEPS):
                sub[k] += share / SUBSTEPS
            s.bank -= share
            s.left -= 1
        elif p.kind == REBOUND and t >= 60 and u[5] < p.falls / 1440:
            planned = max(1.6 * p.size, 8.0) * s.atr / s.price
            fall = min(planned - s.bank, 1.5 * planned, 0.2)
            if fall > 0.5 * planned:
                for k in range(first, first + 6):
                    sub[k] -= fall / 6
                s.bank += fall
                burst += fall / total
                v.excite = min(v.excite + 0.9, _GLOW)

        # The path in prices. ``1 + r`` rather than ``exp(r)``: symmetric steps then leave no drift.
        price = s.price
        top = price
        bottom = price
        mean = 0.0
        for k in range(SUBSTEPS):
            price *= 1 + min(max(sub[k], -0.3), 0.3)
            top = max(top, price)
            bottom = min(bottom, price)
            mean += price
        mean /= SUBSTEPS
        move = price / s.price - 1
        s.price = price

        # Ticks. The close is rounded up or down by chance, unbiased: the only trace is the usual bounce.
        last = max(np.floor(price * p.ticks + u[6]), 1.0)
        begin = last if t == 0 else np.round(close[t - 1] * p.ticks)
        if t > 0 and u[7] > 0.5:  # the first trade hit the other side of the book
            begin = max(begin + (1.0 if u[7] > 0.75 else -1.0), 1.0)
        opened[t] = begin / p.ticks
        close[t] = last / p.ticks
        high[t] = max(np.floor(top * p.ticks + 0.5), begin, last) / p.ticks
        low[t] = min(max(np.floor(bottom * p.ticks + 0.5), 1.0), begin, last) / p.ticks

        # Volume follows volatility, the unevenness of the minute and bursts; trades and takers follow volume.
        s.activity = _ACTIVITY * s.activity + np.sqrt(1 - _ACTIVITY**2) * z[3]
        mood = p.common * calm[t] + (1 - p.common) * h
        log_volume = 1.15 * mood + 0.35 * s.activity + 0.8 * _MIX * z[2] + 0.38 * z[4]
        width = (top - bottom) / (mean * total)
        traded = p.turnover * np.exp(log_volume) * (0.45 + 0.35 * width) * (1 + 0.45 * burst)
        amount = max(np.round(traded / mean * p.lots), 1.0)
        volume[t] = amount / p.lots
        quote[t] = volume[t] * min(max(mean, low[t]), high[t])
        trades[t] = max(np.round((quote[t] / p.trade) ** 0.9 * np.exp(0.2 * z[5])), 1.0)
        lean = np.tanh(0.16 * move / total + 0.22 * z[6])
        taker[t] = min(max(np.round(amount * (1 + lean) / 2), 0.0), amount) / p.lots

        _indicators(t, s, high, low, close)
        event[t] = 0
        if p.kind != 0 and s.left == 0:
            event[t] = _signal(t, p, s, high, low, close, volume)
            if event[t] != 0:
                s.left = p.horizon
                s.drift = event[t] * p.size * s.atr / close[t]
