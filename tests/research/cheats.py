"""Ways to see the future, each beside an honest twin that wants the same. Functions as a user would write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd


class Pair(NamedTuple):
    cheat: Callable
    twin: Callable


def returns(candles: pd.DataFrame) -> pd.Series:
    return candles["close"].pct_change()


# 1: the next bar's return


def next_return(candles):
    return returns(candles).shift(-1) > 0.0002


def last_return(candles):
    return returns(candles).shift(1) > 0.0002


# 2: a window around the bar


def centred(candles):
    return candles["close"] > candles["close"].rolling(21, center=True).mean()


def trailing(candles):
    return candles["close"] > candles["close"].rolling(21).mean()


# 3: scaled by the mean and deviation of everything


def scaled_by_all(candles):
    volume = candles["volume"]
    return (volume - volume.mean()) / volume.std()


def scaled_by_the_past(candles):
    window = candles["volume"].rolling(240)
    return (candles["volume"] - window.mean()) / window.std()


# 4: the close of an hour, known at its first minute


def unfinished_hour(candles):
    hourly = candles["close"].resample("1h").last()
    return hourly.reindex(candles.index, method="ffill")


def finished_hour(candles):
    hourly = candles["close"].resample("1h").last().shift(1)
    return hourly.reindex(candles.index, method="ffill")


# 5: the rate of the next funding stamp


def next_funding(candles, funding):
    return funding.reindex(candles.index, method="bfill")


def last_funding(candles, funding):
    return funding.reindex(candles.index, method="ffill")


# 6: a swing, known on its own bar


def early_swing(candles):
    return candles["high"] == candles["high"].rolling(11, center=True).max()


def confirmed_swing(candles):
    return (candles["high"].shift(5) == candles["high"].rolling(11).max()).rename("swing")


# 7: the reference one bar ahead


def leading_reference(candles, reference):
    ahead = reference["close"].pct_change().shift(-1)
    return ahead.reindex(candles.index) > returns(candles)


def same_bar_reference(candles, reference):
    return reference["close"].pct_change().reindex(candles.index) > returns(candles)


# 8: a warm-up filled in from behind


def filled_from_behind(candles):
    return candles["close"].rolling(50).mean().bfill()


def filled_with_the_close(candles):
    return candles["close"].rolling(50).mean().fillna(candles["close"])


# 9: rank among everything


def ranked_among_all(candles):
    return candles["volume"].rank(pct=True)


def ranked_among_the_last(candles):
    return candles["volume"].rolling(200).rank(pct=True)


# 10: the day's high, known from its first bar


def high_of_the_day(candles):
    return candles["high"].groupby(candles.index.floor("D")).transform("max")


def high_so_far(candles):
    return candles["high"].groupby(candles.index.floor("D")).cummax()


# 11: a threshold out of everything


def quantile_of_all(candles):
    return returns(candles) > returns(candles).quantile(0.99)


def quantile_of_the_past(candles):
    return returns(candles) > returns(candles).rolling(300).quantile(0.99).shift(1)


# 12: a model fitted on the labels that it then predicts


def fitted_on_its_labels(candles):
    x = np.stack([returns(candles).shift(i) for i in range(3)]).T
    y = returns(candles).shift(-5).to_numpy()
    known = np.isfinite(x).all(axis=1) & np.isfinite(y)
    weights = np.linalg.lstsq(x[known], y[known], rcond=None)[0]
    return pd.Series(x @ weights, index=candles.index)


def fitted_on_the_first_day(candles):
    x = np.stack([returns(candles).shift(i) for i in range(3)]).T
    y = returns(candles).shift(-5).to_numpy()
    first = np.arange(len(y)) < 1000  # with labels that were known by bar 1005
    known = first & np.isfinite(x).all(axis=1) & np.isfinite(y)
    out = pd.Series(np.nan, index=candles.index)
    if len(y) >= 1005:
        weights = np.linalg.lstsq(x[known], y[known], rcond=None)[0]
        out.iloc[1005:] = (x @ weights)[1005:]
    return out


# 13 to 16: trades. A dip below the average is bought and held for 20 bars.


def dips(candles: pd.DataFrame) -> np.ndarray:
    return np.flatnonzero(candles["close"] < candles["close"].rolling(60).mean() * 0.999)


def fills(candles: pd.DataFrame, price: str, later: int = 0) -> list[tuple[int, float]]:
    prices = candles[price].to_numpy()
    return [(int(i), float(prices[i])) for i in dips(candles) + later if i < len(candles)]


def held(candles: pd.DataFrame, entries: list[tuple[int, float]], bars: int = 20) -> pd.DataFrame:
    """Trades of (bar, price), one at a time, left at the open of the bar ``bars`` later."""
    rows, free, n = [], 0, len(candles)
    opens = candles["open"].to_numpy()
    for at, price in entries:
        if at >= free and at + bars < n:
            free = at + bars
            rows.append((at, free, price, opens[free]))
    trades = pd.DataFrame(rows, columns=["entry_time", "exit_time", "entry_price", "exit_price"])
    times = {name: candles.index[trades[name].astype(int)] for name in ("entry_time", "exit_time")}
    return trades.assign(**times, side="LONG")


def bought_at_the_low(candles):
    return held(candles, fills(candles, "low"))


def bought_at_the_next_open(candles):
    return held(candles, fills(candles, "open", later=1))


def bought_at_its_own_open(candles):
    return held(candles, fills(candles, "open"))


def bought_at_its_close(candles):
    return held(candles, fills(candles, "close"))


def bought_where_it_rises(candles):
    rise = candles["high"].rolling(15).max().shift(-15).to_numpy()
    return held(candles, [(at, price) for at, price in fills(candles, "open", later=1) if rise[at] > price * 1.001])


def bought_by_a_resting_order(candles):
    """An order at 0.1 % under the last close, filled where the bar reaches it."""
    limit = (candles["close"].shift(1) * 0.999).to_numpy()
    reached = np.flatnonzero(candles["low"].to_numpy() <= limit)
    opens = candles["open"].to_numpy()
    return held(candles, [(int(i), min(limit[i], opens[i])) for i in reached])


def sold_at_the_high(candles):
    trades = bought_at_the_next_open(candles)
    return trades.assign(exit_price=candles["high"].reindex(trades["exit_time"]).to_numpy())


def sold_at_a_target(candles):
    """Stop and target at fixed prices, the stop first, filled inside a bar; time-out at the close."""
    opens, highs, lows, closes = (candles[name].to_numpy() for name in ("open", "high", "low", "close"))
    rows, free, n = [], 0, len(candles)
    for i in dips(candles):
        at = int(i) + 1
        if at < free or at >= n:
            continue
        price = opens[at]
        stop, target = price * 0.998, price * 1.002
        for j in range(at, n):
            out = stop if lows[j] <= stop else target if highs[j] >= target else closes[j] if j == at + 60 else None
            if out is not None:
                if out != closes[j]:  # a bar that opens beyond the price fills at its open
                    out = min(out, opens[j]) if out == stop else max(out, opens[j])
                rows.append((candles.index[i], candles.index[at], candles.index[j], price, out))
                free = j + 1
                break
        else:
            break  # still open at the end: nothing can be entered after it
    return pd.DataFrame(rows, columns=["signal_time", "entry_time", "exit_time", "entry_price", "exit_price"])


PAIRS = [
    Pair(next_return, last_return),
    Pair(centred, trailing),
    Pair(scaled_by_all, scaled_by_the_past),
    Pair(unfinished_hour, finished_hour),
    Pair(next_funding, last_funding),
    Pair(early_swing, confirmed_swing),
    Pair(leading_reference, same_bar_reference),
    Pair(filled_from_behind, filled_with_the_close),
    Pair(ranked_among_all, ranked_among_the_last),
    Pair(high_of_the_day, high_so_far),
    Pair(quantile_of_all, quantile_of_the_past),
    Pair(fitted_on_its_labels, fitted_on_the_first_day),
    Pair(bought_at_the_low, bought_at_the_next_open),
    Pair(bought_at_its_own_open, bought_at_its_close),
    Pair(bought_where_it_rises, bought_by_a_resting_order),
    Pair(sold_at_the_high, sold_at_a_target),
]
"""Sixteen: the twelve usual ones (the fill at the same bar's low is the thirteenth here) and more."""


def sparse(cheat: Callable, twin: Callable, share: float) -> Callable:
    """The honest twin that cheats on ``share`` of the bars only, wherever their time falls in a fixed scatter."""

    def rarely(candles: pd.DataFrame) -> pd.Series:
        minutes = candles.index.as_unit("ms").asi8 // 60_000
        peeks = (minutes * 2654435761 % 2**32) < share * 2**32
        return pd.Series(np.where(peeks, cheat(candles), twin(candles)), index=candles.index, name="rarely")

    return rarely
