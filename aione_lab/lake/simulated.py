"""A simulated exchange: the embedded default where there is no network, and the ground truth of research.

Every price is a martingale: a sum of symmetric steps, a share of them common to the market, with volatility that
clusters (two autoregressions, a quiet/normal/wild Markov chain, a daily cycle, bursts with an afterglow) and
volume that follows it. The one exception is what ``SimulatedExchange.truth`` states for a symbol. By default:

* LINKUSDT, DOTUSDT: *rebound* after a capitulation (volume, RSI and VWAP agree), strong and faint;
* SUIUSDT: *breakout* of the 50-bar range on volume goes on, either way;
* the others: nothing. 1000PEPEUSDT is the decoy (as many bursts, nothing after them), XMRUSDT nearly independent
  of the market, USDCUSDT quiet as a stable coin.

How it compares (BTC / SOL / ENA / XMR; real: USD-M perpetuals, May 2025; simulated: mean of seeds 0-2, 90 days):

====================================  =============================  =============================
one-minute figure                     real                           simulated
====================================  =============================  =============================
median ATR/close, %                   0.048 / 0.118 / 0.260 / 0.132  0.048 / 0.124 / 0.260 / 0.129
its 95 % quantile over the median     2.5 / 2.0 / 1.8 / 1.8          2.2 / 2.0 / 1.9 / 2.0
kurtosis of returns                   10.7 / 10.6 / 10.0 / 11.3      22.7 / 15.8 / 13.2 / 15.2
autocorrelation of |return|, lag 1    .26 / .22 / .17 / .18          .24 / .21 / .20 / .20
the same, lag 60                      .13 / .11 / .11 / .07          .12 / .11 / .09 / .10
autocorrelation of returns, lag 1     -.004 / -.014 / -.029 / -.025  .007 / .005 / .000 / -.004
autocorrelation of log volume, lag 1  .70 / .66 / .62 / .43          .67 / .57 / .59 / .52
the same, lag 60                      .34 / .28 / .27 / .20          .34 / .29 / .35 / .25
log volume against log range          .69 / .73 / .70 / .76          .70 / .68 / .66 / .72
range over |move|                     1.62 / 1.82 / 1.87 / 1.76      1.70 / 1.71 / 1.71 / 1.72
bars that open at the last close      .52 / .51 / .52 / .26          .50 / .50 / .50 / .50
bars without a change                 .016 / .034 / .070 / .019      .002 / .031 / .046 / .036
busiest over quietest hour            2.2 / 1.6 / 1.4 / 1.3          1.8 / 1.7 / 1.6 / 1.5
bars a day with volume z > 3          50 / 51 / 48 / 48              50 / 46 / 45 / 45
median day range, %                   2.4 / 5.1 / 11.3 / 5.5         2.7 / 6.5 / 13.4 / 6.5
correlation with BTC                  1 / .76 / .63 / .26            1 / .78 / .65 / .25
====================================  =============================  =============================

Known differences: real returns revert a little within hours (15-minute variance 0.91-1.01 of the one-minute
variance scaled up, here 1), so real days are narrower and RSI extremes rarer (below 30: 4 % of bars, here 5.5 %),
while volume and oversold meet more often (3-5 bars a day against 1-2). Planted symbols jump more than real ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from aione_lab.errors import InputError
from aione_lab.lake import simulated_kernel as kernel
from aione_lab.lake.resample import resample
from aione_lab.lake.schema import CANDLE_COLUMNS, as_list, candle_frame
from aione_lab.lake.simulated_symbols import DEFAULT_SYMBOLS, FEE_PER_SIDE, Effect, SymbolSpec, Truth, truth
from aione_lab.lake.stamps import utc_index
from aione_lab.units import DAY_MS, HOUR_MS, MINUTE_MS, interval_ms, iso, parse_symbol, to_ms

if TYPE_CHECKING:
    from aione_lab.lake.store import Appended, Lake

__all__ = ["DEFAULT_SYMBOLS", "FEE_PER_SIDE", "ORIGIN", "Effect", "SimulatedExchange", "SymbolSpec", "Truth", "fill"]

ORIGIN = "2025-01-01"
"""Listing day of every symbol: a history always runs from here, so spans that overlap agree."""

Array = npt.NDArray[np.float64]
_MAX_DAYS = 1_100
_SIGMA_PER_ATR = 0.77  # one-minute standard deviation at log-volatility 0 over the median ATR/close it leads to
_MARKET_ATR = 0.00048


class _Market(NamedTuple):
    path: npt.NDArray[np.float32]
    calm: Array
    jump: Array


class _History(NamedTuple):
    symbol: str
    candles: Array  # (8, bars), rows in the order of CANDLE_COLUMNS
    event: npt.NDArray[np.int8]


class SimulatedExchange:
    """Perpetual futures that exist only here: candles and funding, the same for the same seed, for ever.

    ``symbols`` lists what is traded (default: ``DEFAULT_SYMBOLS``). Every history runs from ``ORIGIN``; bar *t*
    is made from the bars before it and from random numbers of its own day, drawn from
    ``SeedSequence(seed, (symbol, day))``. So overlapping spans agree, a longer history only adds bars, and a
    symbol's candles depend on no other symbol: only on the seed, through the market factor.
    """

    def __init__(self, seed: int = 0, symbols: Sequence[SymbolSpec] = DEFAULT_SYMBOLS) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise InputError.of("seed", seed, "must be a whole number from 0 on")
        self.seed = int(seed)
        self.specs: dict[str, SymbolSpec] = {}
        for spec in as_list(symbols, "symbols", "must be a list of SymbolSpec"):
            if not isinstance(spec, SymbolSpec):
                raise InputError.of("symbols", spec, "must be a SymbolSpec")
            if spec.symbol in self.specs:
                raise InputError.of("symbols", spec.symbol, "is listed twice")
            self.specs[spec.symbol] = spec
        if not self.specs:
            raise InputError.of("symbols", list(symbols), "must hold at least one SymbolSpec")
        self._origin = to_ms(ORIGIN)
        self._market: _Market | None = None
        self._latest: _History | None = None  # candles and funding of one symbol are mostly asked for in a row

    @property
    def symbols(self) -> list[str]:
        """Listed symbols, in listing order."""
        return list(self.specs)

    def spec(self, symbol: str) -> SymbolSpec:
        """Specification of ``symbol``; InputError for one that is not listed."""
        name = parse_symbol(symbol)
        if name not in self.specs:
            raise InputError.unknown("symbol", name, self.specs)
        return self.specs[name]

    def candles(self, symbol: str, interval: str = "1m", start: object = ORIGIN, days: int = 1) -> pd.DataFrame:
        """Candles of ``days`` whole days from ``start`` on (UTC ms, ISO text or datetime).

        Returns the lake's candle frame: index ``timestamp`` (UTC, unit ms), float64 columns ``open high low
        close volume quote_volume trades taker_buy_volume`` without NaN or gaps. Raises InputError for an
        unknown symbol or interval, a start before ``ORIGIN`` or off the interval's grid, too long a span.
        """
        step = interval_ms(interval)
        first, last = self._span(start, days, step)
        bars = self._history(symbol, last).candles
        lo, hi = (first - self._origin) // MINUTE_MS, (last - self._origin) // MINUTE_MS
        frame = candle_frame(
            np.arange(first, last, MINUTE_MS), dict(zip(CANDLE_COLUMNS, bars[:, lo:hi].copy(), strict=True))
        )
        return frame if step == MINUTE_MS else resample(frame, "1m", interval)

    def funding(self, symbol: str, start: object = ORIGIN, days: int = 1) -> pd.Series:
        """Funding payments of ``days`` days from ``start`` on: at 00, 08 and 16 UTC, some a few ms late.

        Returns float64 ``funding_rate`` (a fraction of the notional, longs pay) on a UTC index of unit ms. The
        rate follows the move of the last eight hours and itself, with a lid at 0.01 % as real ones mostly have.
        """
        first, last = self._span(start, days, MINUTE_MS)
        history = self._history(symbol, last)
        count = 3 * (history.candles.shape[1] // 1440)
        marks = np.append(history.candles[0, 0], history.candles[3, 479::480])[:count]
        move = np.diff(marks, prepend=marks[0]) / marks
        noise = self._draws(f"{history.symbol} funding", count // 3, 3).ravel()
        delay = np.abs(self._draws("funding stamps", count // 3, 3).ravel())
        rate = np.empty(count)
        level = 0.0
        for k in range(count):
            level = 0.5 * level + 0.002 * move[k] + 2.5e-5 * noise[k]
            rate[k] = min(max(4e-5 + level, -0.003), 1e-4)
        # About two stamps of three on the hour, the rest late by 1 to some 15 ms.
        late = np.where(delay < 0.95, 0, np.ceil((delay - 0.95) ** 2 * 4)).astype(np.int64)
        stamps = self._origin + np.arange(count) * 8 * HOUR_MS
        keep = (stamps >= first) & (stamps < last)
        return pd.Series(np.round(rate[keep], 8), index=utc_index((stamps + late)[keep]), name="funding_rate")

    def events(self, symbol: str, start: object = ORIGIN, days: int = 1) -> pd.Series:
        """Where the planted effect set in: int8 ``direction`` (1 up, -1 down) on the signal bars' open times.

        Empty for a symbol with nothing planted. The drift runs over the ``horizon`` bars that follow.
        """
        first, last = self._span(start, days, MINUTE_MS)
        event = self._history(symbol, last).event
        lo, hi = (first - self._origin) // MINUTE_MS, (last - self._origin) // MINUTE_MS
        found = pd.Series(event[lo:hi], index=utc_index(np.arange(first, last, MINUTE_MS)), name="direction")
        return found[found != 0]

    def truth(self, symbol: str) -> Truth:
        """What is planted in ``symbol`` (or that nothing is), its size, horizon and worth after fees."""
        return truth(self.spec(symbol))

    def _span(self, start: object, days: int, step: int) -> tuple[int, int]:
        first = to_ms(start, "start")
        if first < self._origin or (first - self._origin) % step:
            raise InputError.of(
                "start", iso(first), f"must be a whole interval from {ORIGIN} on, the listing day of simulated symbols"
            )
        if isinstance(days, bool) or not isinstance(days, int | np.integer) or days < 1:
            raise InputError.of("days", days, "must be a whole number from 1 on")
        last = first + int(days) * DAY_MS
        if last > self._origin + _MAX_DAYS * DAY_MS:
            raise InputError.of("days", days, f"the simulation ends {_MAX_DAYS} days after {ORIGIN}")
        return first, last

    def _draws(self, stream: str, days: int, size: int) -> Array:
        return np.array([self._generator(stream, day).standard_normal(size) for day in range(days)])

    def _generator(self, stream: str, day: int) -> np.random.Generator:
        key = (zlib.crc32(stream.encode()), self._origin // DAY_MS + day)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key)))

    def _numbers(self, stream: str, day: int) -> tuple[npt.NDArray[np.float32], Array, Array]:
        rng = self._generator(stream, day)
        path = rng.standard_normal((1440, kernel.SUBSTEPS), dtype=np.float32)
        return path, rng.standard_normal((1440, kernel.NORMALS)), rng.random((1440, kernel.UNIFORMS))

    def _market_until(self, days: int) -> _Market:
        if self._market is None or len(self._market.calm) < days * 1440:
            made = _Market(
                np.empty((days * 1440, kernel.SUBSTEPS), np.float32), np.empty(days * 1440), np.empty(days * 1440)
            )
            state = np.zeros(1, kernel.VOLATILITY).view(np.recarray)
            state["regime"] = 1
            source = kernel.Source(_SIGMA_PER_ATR * _MARKET_ATR, fast=0.26, slow=0.30, season=0.27, bursts=10.0)
            for day in range(days):
                lo = day * 1440
                kernel.market(lo, lo + 1440, *self._numbers("the market", day), source, state, *made)
            self._market = made
        return self._market

    def _history(self, symbol: str, end_ms: int) -> _History:
        """Everything of ``symbol`` from the origin to the end of the day before ``end_ms``, at least."""
        spec = self.spec(symbol)
        days = -(-(end_ms - self._origin) // DAY_MS)
        latest = self._latest
        if latest is None or latest.symbol != spec.symbol or len(latest.event) < days * 1440:
            market = self._market_until(days)
            parameters = _parameters(spec)
            volatility = np.zeros(1, kernel.VOLATILITY).view(np.recarray)
            volatility["regime"] = 1
            state = np.zeros(1, kernel.SYMBOL_STATE).view(np.recarray)
            state["price"] = spec.price
            out = np.empty((len(CANDLE_COLUMNS), days * 1440))
            event = np.zeros(days * 1440, np.int8)
            for day in range(days):
                lo = day * 1440
                numbers = self._numbers(spec.symbol, day)
                kernel.candles(lo, lo + 1440, *numbers, parameters, *market, volatility, state, out, event)
            latest = self._latest = _History(spec.symbol, out, event)
        return latest


def fill(
    lake: Lake, days: int = 90, start: object = ORIGIN, symbols: Iterable[str] | None = None, seed: int = 0
) -> dict[str, Appended]:
    """Write ``days`` days of simulated one-minute candles and funding into ``lake``; what each append did.

    ``symbols`` picks from the default list (None: all). An unknown one, or a span the simulation does not
    have, is refused before anything is written.
    """
    from aione_lab.lake.store import Lake as Store

    if not isinstance(lake, Store):
        raise InputError.of("lake", lake, "must be a Lake")
    exchange = SimulatedExchange(seed)
    asked = exchange.symbols if symbols is None else as_list(symbols, "symbols", "must be a list of symbols")
    names = [exchange.spec(symbol).symbol for symbol in asked]
    if not names:
        raise InputError.of("symbols", names, "must name at least one symbol")
    exchange._span(start, days, MINUTE_MS)
    done = {}
    for name in dict.fromkeys(names):
        done[name] = lake.append(name, "1m", exchange.candles(name, "1m", start, days))
        lake.append_funding(name, exchange.funding(name, start, days).to_frame())
    return done


def _parameters(spec: SymbolSpec) -> kernel.Symbol:
    sigma = _SIGMA_PER_ATR * spec.atr
    common = spec.correlation**2
    effect = spec.effect
    return kernel.Symbol(
        own=kernel.Source(sigma * float(np.sqrt(1 - common)), fast=0.22, slow=0.20, season=0.04, bursts=spec.bursts),
        loading=spec.correlation * spec.atr / _MARKET_ATR,
        common=common,
        follow=0.4 if spec.correlation > 0.1 else 0.0,
        ticks=round(1 / spec.tick),
        lots=round(1 / spec.lot),
        turnover=spec.turnover,
        trade=spec.trade,
        kind=0 if effect is None else (kernel.REBOUND if effect.kind == "rebound" else kernel.BREAKOUT),
        size=effect.size_atr if effect else 0.0,
        horizon=effect.horizon if effect else 1,
        falls=effect.falls_per_day if effect else 0.0,
        volume_z=effect.volume_z if effect else 0.0,
        rsi=effect.rsi if effect else 0.0,
        stretch=effect.stretch if effect else 0.0,
    )
