"""Could these fills have happened? Range, order of signal and entry, and decisions that use the bar they fill in.

A closed candle does not say in which order its prices came. So a fill inside bar t may rest on what was known before
it (an order at a price that was fixed earlier) and on whether the bar reached that price, and on nothing else of bar
t. Three changes of bar t that leave all earlier bars alone tell:

- its high and low moved outwards by 0.02 %: a resting order fills where it did, "the bar's low" moves along;
- its close moved to the far end of the range: a resting order does not read the close of the bar it fills in;
- the bar shrunk until it just reaches the fill: a decision by the bar's high or low goes away.

A fill exactly at the bar's close is not accused: everything of the bar was known by then (that the order still got
that price is optimistic, not a look ahead).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aione_lab.backtest.prepare import frame_ms
from aione_lab.engine.params import check_kind
from aione_lab.errors import InputError
from aione_lab.research.futures import Inputs
from aione_lab.research.outputs import Computation, Item, Trades
from aione_lab.settings import Costs

NUDGE = 2e-4
_SHRUNK = 0.25  # share of the range beyond the fill that a shrunk bar keeps
_SAME = 1e-9  # prices closer than this, relatively, are the same

ENTRY_RANGE, EXIT_RANGE = ("fill", "entry within low to high"), ("fill", "exit within low to high")
ORDER = ("fill", "entry after its signal")
ENTRY_KNOWN, EXIT_KNOWN = ("fill", "entry not decided by its own bar"), ("fill", "exit not decided by its own bar")
ENTRIES = ("fill", "entries before the cut")


@dataclass
class Count:
    """How often something was checked, how often it failed, and where first (ms; −1: nowhere)."""

    checked: int = 0
    failed: int = 0
    first: int = -1

    def add(self, times: np.ndarray, bad: np.ndarray) -> None:
        """Count checks at ``times`` (ms), of which those marked ``bad`` failed."""
        self.checked += len(times)
        self.failed += int(bad.sum())
        if bad.any():
            earliest = int(times[bad].min())
            self.first = earliest if self.first < 0 else min(self.first, earliest)


def allowance(trades: Trades, costs: Costs) -> tuple[np.ndarray, ...]:
    """How far slippage and rounding to ticks may carry entry and exit prices out of the bar, quote currency."""
    check_kind("costs", costs, Costs)
    share = costs.slippage_bps / 1e4 + _SAME
    return tuple(np.abs(p) * share + costs.tick_size for p in (trades.entry_price, trades.exit_price))


def check_fills(inputs: Inputs, trades: Trades, costs: Costs) -> dict[Item, Count]:
    """Range and order of all fills. A fill at a time that no candle covers counts as out of range."""
    opens = frame_ms(inputs.candles)
    low, high, close = (inputs.candles[name].to_numpy() for name in ("low", "high", "close"))
    slack_in, slack_out = allowance(trades, costs)
    found: dict[Item, Count] = {}
    closed = trades.exit <= opens[-1] + inputs.step
    for item, times, prices, slack, rows in (
        (ENTRY_RANGE, trades.entry, trades.entry_price, slack_in, np.ones(len(trades.entry), bool)),
        (EXIT_RANGE, trades.exit, trades.exit_price, slack_out, closed),
    ):
        at, inside = _bars(opens, times, inputs.step)
        fine = inside & (prices >= low[at] - slack) & (prices <= high[at] + slack)
        found[item] = Count()
        found[item].add(times[rows], ~fine[rows])
    if trades.signal is not None:
        at, inside = _bars(opens, trades.signal, inputs.step)
        at_close = inside & (np.abs(trades.entry_price - close[at]) <= slack_in)
        early = trades.entry < trades.signal + np.where(at_close, 0, inputs.step)
        found[ORDER] = Count()
        found[ORDER].add(trades.entry, early)
    return found


def check_decisions(
    computation: Computation, inputs: Inputs, trades: Trades, costs: Costs, n: int, random: np.random.Generator
) -> dict[Item, Count]:
    """Change the bar of a fill and look whether the fill minds, for up to ``n`` trades drawn at random."""
    found = {ENTRY_KNOWN: Count(), EXIT_KNOWN: Count()}
    opens = frame_ms(inputs.candles)
    slacks = allowance(trades, costs)
    later = np.flatnonzero(trades.exit < trades.entry.max(initial=0))  # a later trade shows that trading went on
    for row in np.sort(random.permutation(later)[:n]):
        for item, times, prices, slack in (
            (ENTRY_KNOWN, trades.entry, trades.entry_price, slacks[0]),
            (EXIT_KNOWN, trades.exit, trades.exit_price, slacks[1]),
        ):
            at, inside = _bars(opens, times[row : row + 1], inputs.step)
            bar = {name: float(inputs.candles[name].iloc[at[0]]) for name in ("open", "high", "low", "close")}
            price = float(prices[row])
            if not inside[0] or abs(price - bar["close"]) <= slack[row]:
                continue
            minds = False
            for i, other_bar in enumerate(_other_bars(bar, price)):
                try:
                    other = computation.run(inputs.with_bar(int(at[0]), other_bar)).trades
                except InputError:
                    continue
                if other is not None:
                    # A wider bar may honestly reach another resting order; only a price that moves along tells.
                    most = 2 * NUDGE if i == 0 else np.inf
                    minds = minds or _minds(trades, other, int(row), item == EXIT_KNOWN, most)
            found[item].add(times[row : row + 1], np.array([minds]))
    return found


def entries_differ(whole: Trades, other: Trades, cut: int) -> tuple[int, int] | None:
    """(entries compared, time of the first that differs or −1) before ``cut``; None where that cannot be told.

    A list of closed trades may honestly lack the trade that another future never closes. So entries are compared
    only where the other list goes on beyond the cut.
    """
    if not len(whole.entry) or not len(other.entry) or other.entry.max() < cut or whole.entry.max() < cut:
        return None
    mine, theirs = np.unique(whole.entry[whole.entry < cut]), np.unique(other.entry[other.entry < cut])
    apart = np.setxor1d(mine, theirs)
    return len(mine), int(apart[0]) if len(apart) else -1


def _bars(opens: np.ndarray, times: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Number of the bar that each time lies in, and whether there is one."""
    at = np.maximum(np.searchsorted(opens, times, side="right") - 1, 0)
    return at, (opens[at] <= times) & (times < opens[at] + step)


def _other_bars(bar: dict[str, float], price: float) -> list[dict[str, float]]:
    """The bar with its range widened a little, with another close, and shrunk to what the fill needs."""
    open_, high, low, close = (bar[name] for name in ("open", "high", "low", "close"))
    far = low if close - low > high - close else high
    top = min(high, max(open_, price))
    bottom = max(low, min(open_, price))
    shrunk_high, shrunk_low = top + _SHRUNK * (high - top), bottom - _SHRUNK * (bottom - low)
    if abs(price - open_) <= _SAME * price:
        shrunk_high = shrunk_low = open_  # an order filled at the open needs nothing else of the bar
    return [
        {"high": high * (1 + NUDGE), "low": low * (1 - NUDGE)},
        {"close": far},
        {"high": shrunk_high, "low": shrunk_low, "close": min(max(close, shrunk_low), shrunk_high)},
    ]


def _minds(trades: Trades, other: Trades, row: int, leaving: bool, most: float) -> bool:
    """Whether the fill of ``row`` is missing from ``other``, or has another price there, while trading went on.

    With a finite ``most`` only a price that moved by up to that share counts.
    """
    if not len(other.entry) or other.entry.max() <= trades.exit[row]:
        return False
    same = other.entry == trades.entry[row]
    prices, price = other.entry_price, trades.entry_price[row]
    if leaving:
        if not same.any():
            return False  # that is the entry's own affair
        same &= other.exit == trades.exit[row]
        prices, price = other.exit_price, trades.exit_price[row]
    moved = np.abs(prices[same] - price) / np.abs(price)
    if (moved <= _SAME).any():
        return False
    return bool(np.isinf(most) or (moved <= most).any())
