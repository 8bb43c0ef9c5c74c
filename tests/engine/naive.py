"""Plain twins of every feature: whole series, pandas and loops, written from the contract.

Nothing here shares code or structure with the engine: windows are cut out and summed anew for every bar
(O(n·window)), higher bars are built by grouping, levels are collected from scratch. Between two gaps the
bars are one segment; each is worked on alone.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from aione_lab.engine.records import FEATURE_NAMES
from aione_lab.engine.spec import HIGHER_INTERVALS, FeatureSpec
from aione_lab.units import DAY_MS, INTERVALS

NAN = math.nan


def ref_features(bars: np.ndarray, interval: str, spec: FeatureSpec) -> pd.DataFrame:
    """Every feature column of ``bars`` (n,) BAR, one row a bar."""
    frame = pd.DataFrame({name: bars[name] for name in bars.dtype.names})
    new = frame["timestamp"].diff() != INTERVALS[interval]
    parts = [segment_features(part.reset_index(drop=True), interval, spec) for _, part in frame.groupby(new.cumsum())]
    return pd.concat(parts, ignore_index=True)[list(FEATURE_NAMES)]


def segment_features(frame: pd.DataFrame, interval: str, spec: FeatureSpec) -> pd.DataFrame:
    out = pd.DataFrame(index=frame.index)
    step = INTERVALS[interval]
    day_bars = DAY_MS // step
    high, low, close = (frame[name].to_numpy() for name in ("high", "low", "close"))
    typical = (high + low + close) / 3
    out["close"] = close

    # volatility
    before = np.concatenate([[NAN], close[:-1]])
    true_range = np.nanmax([high - low, np.abs(high - before), np.abs(low - before)], axis=0)
    out["true_range"] = true_range
    atr = ref_wilder(true_range, spec.atr_window)
    out["atr"] = atr
    out["atr_pct"] = atr / close
    week = spec.atr_mean_days * day_bars
    out["atr_7d"] = [
        np.mean(known) if len(known := _not_nan(out["atr_pct"].to_numpy()[max(0, t - week) : t])) else NAN
        for t in range(len(frame))
    ]
    out["atr_7d_days"] = [min(week, max(0, t - spec.atr_window + 1)) / day_bars for t in range(len(frame))]
    mean_range = before_bar(rolling(true_range, spec.range_window, np.mean))
    out["range_burst"] = ratio(true_range, mean_range)
    out["body"] = np.where(true_range > 0, np.abs(close - frame["open"]) / np.where(true_range > 0, true_range, 1), 0.0)

    # momentum
    out["rsi"] = ref_rsi(close, spec.rsi_window)
    out["rsi_mean"] = rolling(out["rsi"].to_numpy(), spec.rsi_mean_window, np.mean)
    fast, slow = (frame["close"].ewm(span=n, adjust=False).mean().to_numpy() for n in (spec.macd_fast, spec.macd_slow))
    histogram = (fast - slow) - pd.Series(fast - slow).ewm(span=spec.macd_signal, adjust=False).mean().to_numpy()
    moving = np.where(atr > 0, atr, NAN)
    out["ema_diff"] = after((fast - slow) / moving, spec.macd_slow - 1)
    first = spec.macd_slow + spec.macd_signal - 1
    out["macd_hist"] = after(histogram / moving, first)
    out["macd_hist_change"] = after((histogram - before_bar(histogram)) / moving, first)
    top, bottom = rolling(high, spec.stochastic_window, np.max), rolling(low, spec.stochastic_window, np.min)
    flat = top == bottom
    out["stoch_k"] = np.where(flat, 50.0, 100 * (close - bottom) / np.where(flat, 1.0, top - bottom))
    out["stoch_d"] = rolling(out["stoch_k"].to_numpy(), spec.stochastic_smooth, np.mean)
    out["price_change"] = frame["close"].pct_change(spec.sr_window)
    velocity = ((frame["close"] - frame["close"].shift(spec.velocity_window)) / moving).to_numpy()
    out["velocity"] = velocity
    out["acceleration"] = velocity - before_bar(velocity, spec.velocity_window)

    # volume
    volume = frame["volume"].to_numpy()
    out["volume"] = volume
    mean, std = rolling(volume, spec.volume_window, np.mean), rolling(volume, spec.volume_window, exact_std)
    out["volume_mean"], out["volume_std"] = before_bar(mean), before_bar(std)
    out["volume_z"] = ratio(volume - out["volume_mean"].to_numpy(), out["volume_std"].to_numpy())
    out["vwap"] = ratio(rolling(typical * volume, spec.vwap_window, np.sum), rolling(volume, spec.vwap_window, np.sum))
    out["vwap_dev"] = close / out["vwap"] - 1
    taker = frame["taker_buy_volume"].to_numpy()
    out["taker_imbalance"] = 2 * ratio(taker, volume) - 1
    flow = spec.flow_window
    out["flow_imbalance"] = 2 * ratio(rolling(taker, flow, np.sum), rolling(volume, flow, np.sum)) - 1

    # ranges
    out["sr_high"] = before_bar(rolling(high, spec.sr_window, np.max))
    out["sr_low"] = before_bar(rolling(low, spec.sr_window, np.min))
    out["daily_high"] = rolling(high, day_bars, np.max)
    out["daily_low"] = rolling(low, day_bars, np.min)
    out["daily_range"] = out["daily_high"] - out["daily_low"]

    _reference(frame, spec, out)
    _higher(frame, typical, interval, spec, out)
    _profile(frame, typical, step, spec, out)
    _swings(high, low, out["rsi"].to_numpy(), spec, out)
    _levels(frame, step, spec, out)
    full = np.arange(len(frame)) >= day_bars - 1
    out["warm"] = (full & out["hour_atr_pct"].notna() & out["rsi_mean"].notna()).astype(float)
    return out


# ---- building blocks ---------------------------------------------------------------------------


def ref_wilder(x: np.ndarray, window: int) -> np.ndarray:
    """Simple mean of the first ``window``, then ((window − 1)·previous + x) / window."""
    out = np.full(len(x), NAN)
    if len(x) >= window:
        out[window - 1] = math.fsum(x[:window]) / window
        for t in range(window, len(x)):
            out[t] = ((window - 1) * out[t - 1] + x[t]) / window
    return out


def ref_rsi(close: np.ndarray, window: int) -> np.ndarray:
    """100 − 100 / (1 + RS); a price that never moved stands at 50."""
    change = np.diff(close)
    gain = ref_wilder(np.clip(change, 0, None), window)
    loss = ref_wilder(np.clip(-change, 0, None), window)
    out = np.full(len(close), NAN)
    for t in range(window, len(close)):
        g, s = gain[t - 1], loss[t - 1]
        if s == 0:
            out[t] = 50.0 if g == 0 else 100.0
        else:
            out[t] = 100 - 100 / (1 + g / s)
    return out


def rolling(x: np.ndarray, window: int, function) -> np.ndarray:
    """``function`` of the ``window`` values that end at each place; NaN before there are that many."""
    out = np.full(len(x), NAN)
    if len(x) >= window:
        out[window - 1 :] = function(sliding_window_view(np.asarray(x, float), window), axis=1)
    return out


def exact_std(x: np.ndarray, axis: int) -> np.ndarray:
    """Population standard deviation, exactly zero for equal values."""
    return np.where(x.max(axis=axis) == x.min(axis=axis), 0.0, x.std(axis=axis))


def before_bar(x: np.ndarray, bars: int = 1) -> np.ndarray:
    return pd.Series(x).shift(bars).to_numpy()


def after(x: np.ndarray, first: int) -> np.ndarray:
    """NaN before place ``first``."""
    return np.where(np.arange(len(x)) >= first, x, NAN)


def ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x ÷ y where y > 0, else NaN."""
    return np.where(y > 0, x / np.where(y > 0, y, 1.0), NAN)


def _not_nan(x: np.ndarray) -> np.ndarray:
    return x[~np.isnan(x)]


# ---- the groups that need more than a window ---------------------------------------------------


def _reference(frame: pd.DataFrame, spec: FeatureSpec, out: pd.DataFrame) -> None:
    own = np.log(frame["close"]).diff().to_numpy()
    other = np.log(frame["reference_close"]).diff().to_numpy()
    size = spec.correlation_window
    rows = []
    for t in range(len(frame)):
        x, y = own[max(0, t + 1 - size) : t + 1], other[max(0, t + 1 - size) : t + 1]
        both = ~(np.isnan(x) | np.isnan(y))
        x, y = x[both], y[both]
        if t + 1 < size or 2 * len(x) < size:
            rows.append((NAN, NAN, NAN))
            continue
        moves_x, moves_y = x.min() < x.max(), y.min() < y.max()
        drift = y.sum() / math.sqrt(((y - y.mean()) ** 2).sum()) if moves_y else NAN
        rows.append((np.corrcoef(x, y)[0, 1] if moves_x and moves_y else NAN, x.sum() - y.sum(), drift))
    out[["correlation", "relative_strength", "market_drift"]] = rows


def _higher(frame: pd.DataFrame, typical: np.ndarray, interval: str, spec: FeatureSpec, out: pd.DataFrame) -> None:
    """Trend, ATR and turnover on bars that are complete: all their base bars are there."""
    step = INTERVALS[interval]
    quote = frame["quote_volume"].fillna(pd.Series(typical * frame["volume"]))
    for place, name in enumerate(HIGHER_INTERVALS[interval], 1):
        span = INTERVALS[name]
        group = frame.assign(quote=quote, place=frame.index).groupby(frame["timestamp"] // span)
        bars = group.agg(
            high=("high", "max"), low=("low", "min"), close=("close", "last"), quote=("quote", "sum"),
            n=("close", "size"), last=("place", "last"),
        )  # fmt: skip
        bars = bars[bars["n"] == span // step]
        before = bars["close"].shift()
        ranges = pd.concat(
            [bars["high"] - bars["low"], (bars["high"] - before).abs(), (bars["low"] - before).abs()], axis=1
        )
        atr = ref_wilder(ranges.max(axis=1).to_numpy(), spec.atr_window)
        fast = bars["close"].ewm(span=spec.trend_fast, adjust=False).mean()
        slow = bars["close"].ewm(span=spec.trend_slow, adjust=False, min_periods=spec.trend_slow).mean()
        strength = (fast - slow) / np.where(atr > 0, atr, NAN)
        known = pd.DataFrame({"strength": strength, "pct": atr / bars["close"], "quote": bars["quote"]})
        known.index = bars["last"]
        known = known.reindex(range(len(frame))).ffill()
        out[f"trend_{place}_strength"] = known["strength"]
        direction = np.sign(known["strength"]).where(known["strength"].abs() >= spec.trend_min, 0.0)
        out[f"trend_{place}"] = direction.where(known["strength"].notna())
        if name == "1h":
            out["hour_atr_pct"], out["hour_quote_volume"] = known["pct"], known["quote"]


def _profile(frame: pd.DataFrame, typical: np.ndarray, step: int, spec: FeatureSpec, out: pd.DataFrame) -> None:
    numbers = frame["timestamp"].to_numpy() // step
    volume = frame["volume"].to_numpy()
    rows = np.full((len(frame), 3), NAN)
    for t in range(len(frame)):
        if t + 1 >= spec.profile_window and (numbers[t] + 1) % spec.profile_refresh == 0:
            window = slice(t + 1 - spec.profile_window, t + 1)
            rows[t] = ref_profile(typical[window], volume[window], spec.profile_bins, spec.value_area)
        elif t > 0:
            rows[t] = rows[t - 1]
    out[["poc", "value_low", "value_high"]] = rows


def ref_profile(price: np.ndarray, volume: np.ndarray, bins: int, share: float) -> tuple[float, float, float]:
    low, high = price.min(), price.max()
    width = (high - low) / bins
    if width == 0:
        return low, low, low
    # Prices are on ticks and often on the edge of a bin: they belong to the bin above it.
    place = np.minimum(np.floor((price - low) / width + 1e-9).astype(int), bins - 1)
    held = [math.fsum(volume[place == b]) for b in range(bins)]
    area = [held.index(max(held))]
    poc = area[0]
    while sum(held[b] for b in area) < share * sum(held) and len(area) < bins:
        sides = [b for b in (min(area) - 1, max(area) + 1) if 0 <= b < bins]
        area.append(max(sides, key=lambda b: held[b]))  # of equals the first: the lower
    return low + (poc + 0.5) * width, low + min(area) * width, low + (max(area) + 1) * width


def _swings(high: np.ndarray, low: np.ndarray, rsi: np.ndarray, spec: FeatureSpec, out: pd.DataFrame) -> None:
    """A swing is above all of its left wing and not below any of its right one; both are read off whole."""
    n, wing = len(high), spec.swing_bars
    for prices, sign, swing, divergence in (
        (high, 1, "swing_high", "bearish_divergence"),
        (low, -1, "swing_low", "bullish_divergence"),
    ):
        x = sign * prices
        centres = [
            c for c in range(wing, n - wing) if x[c] > x[c - wing : c].max() and x[c] >= x[c + 1 : c + wing + 1].max()
        ]
        last, gained = np.full(n, NAN), np.full(n, NAN)
        for k, c in enumerate(centres):
            last[c + wing] = prices[c]
            if k and c - (p := centres[k - 1]) <= spec.divergence_bars and x[c] > x[p]:
                gained[c + wing] = sign * (rsi[p] - rsi[c])
        out[swing] = pd.Series(last).ffill()
        out[divergence] = gained


def _levels(frame: pd.DataFrame, step: int, spec: FeatureSpec, out: pd.DataFrame) -> None:
    days = frame.groupby(frame["timestamp"] // DAY_MS).agg(
        high=("high", "max"), low=("low", "min"), n=("high", "size"), end=("timestamp", "max")
    )
    days = days[days["n"] == DAY_MS // step]
    columns = ("prev_day_high", "prev_day_low", "support", "resistance", "major_support", "major_resistance",
               "support_distance", "resistance_distance", "breakout_up", "breakout_down", "level_days")  # fmt: skip
    rows = {name: np.full(len(frame), NAN) for name in columns}
    stamps, close = frame["timestamp"].to_numpy(), frame["close"].to_numpy()
    near = out[["sr_high", "sr_low"]].to_numpy()
    daily = out[["daily_high", "daily_low"]].to_numpy()
    known_days = {
        k: day_levels(days.iloc[:k].tail(spec.level_days), spec.level_swing_days) for k in range(len(days) + 1)
    }
    complete = np.searchsorted(days["end"].to_numpy(), stamps, side="right")
    for t in range(len(frame)):
        yesterday, swings = known_days[complete[t]]
        rows["level_days"][t] = min(complete[t], spec.level_days)
        rows["prev_day_high"][t], rows["prev_day_low"][t] = yesterday
        major = [*daily[t], *yesterday, *swings]
        for prefix, levels in (("major_", major), ("", [*major, *near[t]])):
            rows[f"{prefix}support"][t] = max((x for x in levels if x < close[t]), default=NAN)
            rows[f"{prefix}resistance"][t] = min((x for x in levels if x > close[t]), default=NAN)
        atr = out["atr"].iloc[t]
        if atr > 0:
            rows["support_distance"][t] = (close[t] - rows["support"][t]) / atr
            rows["resistance_distance"][t] = (rows["resistance"][t] - close[t]) / atr
        if t > 0:
            yesterday, swings = known_days[complete[t - 1]]
            fixed = [*yesterday, *swings]
            tops, bottoms = [near[t][0], daily[t - 1][0], *fixed], [near[t][1], daily[t - 1][1], *fixed]
            rows["breakout_up"][t] = max((x for x in tops if close[t - 1] <= x < close[t]), default=NAN)
            rows["breakout_down"][t] = min((x for x in bottoms if close[t - 1] >= x > close[t]), default=NAN)
    for name, values in rows.items():
        out[name] = values


def day_levels(days: pd.DataFrame, wing: int) -> tuple[tuple[float, float], list[float]]:
    """((previous day's high, low), swing prices) of the completed ``days``."""
    if days.empty:
        return (NAN, NAN), []
    swings = []
    for name, sign in (("high", 1), ("low", -1)):
        x = sign * days[name].to_numpy()
        for c in range(wing, len(x) - wing):
            if all(x[c] > x[c - j] and x[c] >= x[c + j] for j in range(1, wing + 1)):
                swings.append(float(days[name].iloc[c]))
    return (float(days["high"].iloc[-1]), float(days["low"].iloc[-1])), swings
