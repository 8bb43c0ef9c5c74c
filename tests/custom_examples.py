"""A trigger and a factor of one's own, as a user would write them, and their plain-Python twins."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numba
import numpy as np

from aione_lab.engine import Factor, FeatureSpec, Trigger

WINDOW = 30


@numba.njit
def squeeze_step(memory, bar, row):
    """How many times the last 30 ranges' mean the bar's range is, where that mean had shrunk below the ATR."""
    mean = memory.total / WINDOW
    released = math.nan
    if memory.seen >= WINDOW and mean > 0.0:
        released = (bar.high - bar.low) / mean if mean < 0.9 * row.atr else 0.0
    place = memory.seen % WINDOW
    memory.ranges[place] = bar.high - bar.low
    memory.seen += 1
    total = 0.0  # summed anew: a running sum would depend on where the stream began
    for value in memory.ranges:
        total += value
    memory.total = total
    return released


SQUEEZE_RELEASE = Trigger(
    name="SQUEEZE_RELEASE",
    step=squeeze_step,
    state=np.dtype([("seen", "i8"), ("total", "f8"), ("ranges", "f8", (WINDOW,))]),
    threshold=1.6,
    search=(1.2, 4.0, 0.1),
    description="a range that breaks out of half an hour of narrow ones",
    phrase={
        "en": "a squeeze released (range {value} times its half-hour mean, threshold {limit})",
        "uk": "вихід зі стиснення (діапазон у {value} раза ширший за півгодинний, поріг {limit})",
    },
)


@numba.njit
def quiet_step(memory, bar, row):
    """Bars since the last one with more than its share of volume: small is loud."""
    memory.quiet = 0 if bar.volume > row.volume_mean else memory.quiet + 1
    return memory.quiet


LOUD = Trigger(
    name="LOUD",
    step=quiet_step,
    state=np.dtype([("quiet", "i8")]),
    threshold=0.0,
    search=(0.0, 5.0, 1.0),
    relation="<=",
)


@numba.njit
def funding_step(memory, bar, row):
    """Dear funding speaks against a long that goes on, and for one that turns: the crowd is long already."""
    if bar.funding_rate == bar.funding_rate:
        memory.rate = bar.funding_rate
        memory.known = 1
    if memory.known == 0:
        return math.nan, math.nan
    pressure = memory.rate / 0.0003
    return -pressure, -pressure


FUNDING_PRESSURE = Factor(
    name="funding_pressure",
    step=funding_step,
    state=np.dtype([("rate", "f8"), ("known", "i8")]),
    weight=0.2,
    description="the last funding rate, 0.03 % being full strength",
    names={"en": "funding", "uk": "ставка фінансування"},
)


@numba.njit
def wick_step(memory, bar, row):
    """Where in its range the candle closed: a long lower wick is bought, whichever way the move goes on."""
    height = bar.high - bar.low
    if height == 0.0:
        return 0.0, 0.0
    body_low = min(bar.open, bar.close)
    body_high = max(bar.open, bar.close)
    rejection = ((body_low - bar.low) - (bar.high - body_high)) / height
    return 0.5 * rejection, 1.5 * rejection


WICKS = Factor(name="wicks", step=wick_step, weight=0.15)

SPEC = FeatureSpec(triggers=(SQUEEZE_RELEASE, LOUD), factors=(FUNDING_PRESSURE, WICKS))


def ref_squeeze(ranges: Sequence[float], atrs: Sequence[float]) -> list[float]:
    """The definition over a whole history without a gap."""
    found = []
    for i, (height, atr) in enumerate(zip(ranges, atrs, strict=True)):
        before = ranges[max(0, i - WINDOW) : i]
        mean = math.fsum(before) / WINDOW
        if len(before) < WINDOW or mean <= 0:
            found.append(math.nan)
        else:
            found.append(height / mean if mean < 0.9 * atr else 0.0)
    return found


def ref_funding(rates: Sequence[float]) -> list[float]:
    """Strength of either reading from the last known rate."""
    found, last = [], math.nan
    for rate in rates:
        last = last if math.isnan(rate) else rate
        found.append(min(1.0, max(-1.0, -last / 0.0003)) if not math.isnan(last) else math.nan)
    return found
