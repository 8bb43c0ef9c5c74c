"""`event_study`: what happens after a trigger, at several horizons, with bands, costs and false-discovery control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from aione_lab.backtest.result import Result
from aione_lab.engine.event import decode_mask
from aione_lab.engine.params import check_kind
from aione_lab.engine.records import FEATURE_NAMES, SIGNALS
from aione_lab.errors import InputError, is_whole, whole
from aione_lab.research.forward import BPS, day_sums, excursions, forward_returns, onsets, run_ends
from aione_lab.research.wild import flip_p_values, half_widths, signs
from aione_lab.settings import Costs
from aione_lab.units import DAY_MS, INTERVALS, MINUTE_MS

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from aione_lab.figures.theme import Theme

At = Literal["onset", "bars", "alerts"]

HORIZONS = (5, 15, 30, 60, 120, 240)
LONGEST = 1440
"""Longest horizon in minutes: what is earned is shared out between the entry's UTC day and the next one."""

MIN_EVENTS = 20
MIN_DAYS = 12
"""Fewer events, or events on fewer days, are shown and not tested: twelve days have 4,096 patterns of signs."""

PROFILE_POINTS = 48
PROFILE_FLIPS = 999
NUMBERS = (
    *("n", "days", "per_day", "mean_bps", "mean_low", "mean_high", "median_bps", "excess_bps", "excess_low"),
    *("excess_high", "mfe_bps", "mae_bps", "side", "net_bps", "net_low", "net_high", "p_value"),
)


@dataclass(frozen=True)
class EventStudy:
    """What followed each kind of event, and which of it is more than chance.

    ``table`` has a row a symbol, event and horizon. ``kind`` is ``reason`` or ``combination`` (the exact reasons of
    an ALERT, joined by " + "; sentences and figures call one of a single reason "alone"), ``horizon`` minutes from
    the open of the bar after the event. Returns are in bps of that open, long side, before costs: ``n`` events with a
    complete horizon on ``days`` UTC days, ``per_day`` events a warm day, ``mean_bps`` with its band, ``median_bps``,
    ``excess_bps`` over the mean of all warm bars with its band, mean ``mfe_bps`` (≥ 0) and ``mae_bps`` (≤ 0).
    ``net_bps`` is what the better ``side`` keeps of |mean| after a round trip of taker fees and slippage; the side is
    chosen by the same data, which flatters it. ``p_value`` tests excess = 0 (NaN: ``tested`` is False, too few events
    or days), ``q_value`` is Benjamini and Hochberg's over all tests of the table, ``discovery``: q ≤ ``fdr``;
    ``survives``: a discovery whose whole ``net`` band is above zero on the side of its excess.

    ``profile`` has the mean forward return by ``minute`` with its band for every event of ``table``. ``days`` and
    ``costs`` (a round trip in bps) are by symbol.
    """

    table: pd.DataFrame
    profile: pd.DataFrame
    at: str
    level: float
    fdr: float
    days: Mapping[str, float]
    costs: Mapping[str, float]

    @property
    def discoveries(self) -> pd.DataFrame:
        """The rows of ``table`` that pass false-discovery control, the surest to survive costs first."""
        return self.table[self.table["discovery"]].sort_values("net_low", ascending=False)

    @property
    def sentences(self) -> dict[str, str]:
        """Symbol → one plain sentence."""
        return {symbol: self._sentence(symbol) for symbol in self.days}

    @property
    def sentence(self) -> str:
        """What the study supports, a line a symbol."""
        return "\n".join(self.sentences.values())

    def _sentence(self, symbol: str) -> str:
        rows = self.table[self.table["symbol"] == symbol]
        tested, found, kept = (int(rows[name].sum()) for name in ("tested", "discovery", "survives"))
        head = f"{symbol}, {self.days[symbol]:.0f} warm days"
        cost = f"a round trip of {self.costs[symbol]:.3g} bps"
        if not tested:
            return f"{head}: no event is frequent enough to test ({MIN_EVENTS} events on {MIN_DAYS} days are wanted)."
        head += f", {tested:,} tests"
        if not found:
            plain = rows[rows["tested"] & (rows["net_bps"] > 0)]
            more = f" ({len(plain)} means exceed {cost}, none beyond chance)" if len(plain) else ""
            return f"{head}: nothing can be told from chance at a false-discovery rate of {self.fdr:.0%}{more}."
        text = f"{head}: {found:,} {'passes' if found == 1 else 'pass'} a false-discovery rate of {self.fdr:.0%}"
        if not kept:
            best = rows[rows["discovery"]].sort_values("net_bps").iloc[-1]
            return f"{text}, but nothing survives costs ({cost}); the nearest is {_told(best)}."
        best = rows[rows["survives"]].sort_values("net_low").iloc[-1]
        return (
            f"{text} and {kept:,} of them survive {cost}; the firmest is {_told(best)}, {best['per_day']:.2g} a day. "
            "One span, and the best of many: it has not been tried on data that did not suggest it."
        )

    def plot(self, symbol: str | None = None, theme: Theme = "light") -> go.Figure:
        """Forward returns by minute, an event a panel, of ``symbol`` (None: the one with the most discoveries)."""
        from aione_lab.figures.events import profile_chart

        if symbol is None:
            counts = self.table.groupby("symbol", sort=False)["discovery"].sum()
            symbol = str(counts.idxmax()) if len(counts) else next(iter(self.days))
        if symbol not in self.days:
            raise InputError.unknown("symbol", symbol, self.days)
        table, profile = (frame[frame["symbol"] == symbol] for frame in (self.table, self.profile))
        title = f"{symbol}: mean return after each event, bps (band {self.level:.0%})"
        return profile_chart(profile, table, self.costs[symbol], title=title, theme=theme)

    def heatmap(self, theme: Theme = "light", symbol: str | None = None) -> go.Figure:
        """Excess return by event and horizon, discoveries marked, of ``symbol`` (None: a panel a symbol)."""
        from aione_lab.figures.events import heatmap_chart

        if symbol is not None and symbol not in self.days:
            raise InputError.unknown("symbol", symbol, self.days)
        table = self.table if symbol is None else self.table[self.table["symbol"] == symbol]
        title = f"{symbol or 'Excess return'}{': excess return' if symbol else ''} after each event, bps over all bars"
        return heatmap_chart(table, title=title, theme=theme)


def event_study(
    result: Result | Mapping[str, Result] | Sequence[Result],
    *,
    at: At = "onset",
    horizons: Sequence[int] = HORIZONS,
    combinations: int | None = MIN_EVENTS,
    level: float = 0.95,
    fdr: float = 0.1,
    n_boot: int = 9_999,
    seed: int = 0,
) -> EventStudy:
    """Forward returns after every Stage1 reason, and after every combination of reasons seen on ALERTs.

    Parameters
    ----------
    result
        One replay, or several (a mapping by name, or a sequence): then all tests form one family.
    at
        Which bars of a reason are events: ``onset``, where it begins to hold (default); ``bars``, all on which it
        holds; ``alerts``, the ALERTs in which it takes part. Combinations are always those of ALERTs.
    horizons
        Minutes from the open of the next bar, whole bars, at most a day. One that crosses a missing bar, or the
        end, is not counted.
    combinations
        Least number of ALERTs that a combination must have; None: no combinations.
    level, fdr
        Of the bands; of the expected share of false ones among the discoveries.
    n_boot, seed
        Draws of the wild bootstrap over UTC days (``research/wild.py``). The least p-value is 1 ÷ (1 + ``n_boot``).

    Only warm bars count. Raises InputError for what cannot be used.
    """
    results = _named_results(result)
    if at not in get_args(At):
        raise InputError.unknown("at", at, get_args(At))
    if combinations is not None and (not is_whole(combinations) or combinations < 1):
        raise InputError.of("combinations", combinations, "must be an integer ≥ 1, or None for no combinations")
    for name, share in (("level", level), ("fdr", fdr)):
        if isinstance(share, bool) or not isinstance(share, int | float | np.floating) or not 0 < share < 1:
            raise InputError.of(name, share, "must be a number between 0 and 1")
    n_boot, seed = whole("n_boot", n_boot, 99, 1_000_000), whole("seed", seed, 0)
    steps = {name: INTERVALS[one.interval] for name, one in results.items()}
    minutes = _checked_horizons(horizons, steps)
    tables, profiles, days, costs = [], [], {}, {}
    for name, one in results.items():
        study = _Study(one, minutes, level)
        events = study.events(at, combinations)
        tables.append(study.table(events, signs(int(n_boot), study.n_days, int(seed))).assign(symbol=name))
        profiles.append(study.profile(events, signs(PROFILE_FLIPS, study.n_days, int(seed))).assign(symbol=name))
        days[name], costs[name] = study.warm_days, study.cost
    table = _judged(pd.concat(tables, ignore_index=True), float(fdr))
    profile = pd.concat(profiles, ignore_index=True)
    return EventStudy(table, profile[["symbol", *profile.columns[:-1]]], at, float(level), float(fdr), days, costs)


class _Study:
    """One symbol: its bars, and what is computed on them once."""

    def __init__(self, result: Result, minutes: tuple[int, ...], level: float) -> None:
        self.minutes, self.level = minutes, level
        self.step = INTERVALS[result.interval]
        self.bars = result.bars
        times = self.bars["timestamp"]
        self.ends = run_ends(times, self.step)
        self.warm = result.columns[FEATURE_NAMES.index("warm")] == 1.0
        self.warm_days = float(self.warm.sum() * self.step / DAY_MS)
        self.reasons = result.spec.reasons
        self.masks = result.signal_records["reasons"]
        self.alert = result.signal_records["signal"] == SIGNALS.index("ALERT")
        day = (times + self.step) // DAY_MS  # of the next bar, the entry's
        self.day = day - day[0]
        self.n_days = int(self.day[-1]) + 2
        self.cost = round_trip_bps(result.costs)

    def events(self, at: str, combinations: int | None) -> dict[tuple[str, str], np.ndarray]:
        """(kind, event) → bar numbers, ascending."""
        found: dict[tuple[str, str], np.ndarray] = {}
        for i, name in enumerate(self.reasons):
            holds = (self.masks >> i & 1 == 1) & self.warm
            if at == "onset":
                holds = onsets(holds, self.warm, self.bars["timestamp"], self.step)
            elif at == "alerts":
                holds &= self.alert
            found["reason", name] = np.flatnonzero(holds)
        if combinations is None:
            return found
        alerts = np.flatnonzero(self.alert)
        masks, counts = np.unique(self.masks[alerts], return_counts=True)
        for mask in masks[np.argsort(-counts, kind="stable")][: int((counts >= combinations).sum())]:
            found["combination", " + ".join(decode_mask(int(mask), self.reasons))] = alerts[self.masks[alerts] == mask]
        return found

    def table(self, events: Mapping[tuple[str, str], np.ndarray], flips: np.ndarray) -> pd.DataFrame:
        """One row an event and horizon, without what needs the whole family."""
        keys = [(kind, name, minutes) for kind, name in events for minutes in self.minutes]
        numbers = {name: np.full(len(keys), np.nan) for name in NUMBERS}
        excess, raw, weight = (np.zeros((len(keys), self.n_days)) for _ in range(3))
        for j, minutes in enumerate(self.minutes):
            forward, drift, market = self._market(minutes)
            best, worst = excursions(self.bars, self.ends, self._bars(minutes))
            for k, rows in enumerate(events.values()):
                place = k * len(self.minutes) + j
                done = rows[np.isfinite(forward.total[rows])]
                numbers["n"][place] = len(done)
                numbers["days"][place] = len(np.unique(self.day[done]))
                numbers["per_day"][place] = len(rows) / self.warm_days if self.warm_days else np.nan
                if not len(done):
                    continue
                numbers["mean_bps"][place] = forward.total[done].mean()
                numbers["median_bps"][place] = np.median(forward.total[done])
                numbers["mfe_bps"][place], numbers["mae_bps"][place] = best[done].mean(), worst[done].mean()
                sums, weight[place] = day_sums(forward, done, self.day, self.n_days, drift)
                excess[place] = sums - market
                raw[place] = sums + drift * weight[place]
        mean = numbers["mean_bps"]
        numbers["excess_bps"] = np.where(numbers["n"] > 0, excess.sum(axis=1), np.nan)
        tested = (numbers["n"] >= MIN_EVENTS) & (numbers["days"] >= MIN_DAYS)
        numbers["p_value"][tested] = flip_p_values(excess[tested], flips)
        numbers["side"] = np.sign(mean)
        numbers["net_bps"] = np.abs(mean) - self.cost
        for name, sums, centre in (("mean", raw, mean), ("excess", excess, numbers["excess_bps"])):
            half = np.full(len(keys), np.nan)
            half[tested] = half_widths(sums[tested], weight[tested], flips, self.level)
            numbers[f"{name}_low"], numbers[f"{name}_high"] = centre - half, centre + half
            if name == "mean":
                numbers["net_low"], numbers["net_high"] = numbers["net_bps"] - half, numbers["net_bps"] + half
        frame = pd.DataFrame(keys, columns=["kind", "event", "horizon"]).assign(**numbers)
        frame[["n", "days"]] = frame[["n", "days"]].astype(np.int64)
        frame["side"] = frame["side"].map({1.0: "LONG", -1.0: "SHORT"}).fillna("")
        return frame.assign(tested=tested)

    def profile(self, events: Mapping[tuple[str, str], np.ndarray], flips: np.ndarray) -> pd.DataFrame:
        """Mean forward return by minute with its band, for every event."""
        longest = self._bars(max(self.minutes))
        grid = {int(h) for h in np.linspace(1, longest, min(longest, PROFILE_POINTS)).round()}
        points = sorted(grid | {self._bars(minutes) for minutes in self.minutes})
        sums, weight = (np.zeros((len(events), len(points), self.n_days)) for _ in range(2))
        n = np.zeros((len(events), len(points)), dtype=np.int64)
        for j, h in enumerate(points):
            forward = forward_returns(self.bars, self.ends, h)
            for k, rows in enumerate(events.values()):
                done = rows[np.isfinite(forward.total[rows])]
                sums[k, j], weight[k, j] = day_sums(forward, done, self.day, self.n_days, 0.0)
                n[k, j] = len(done)
        flat = sums.reshape(-1, self.n_days)
        half = half_widths(flat, weight.reshape(-1, self.n_days), flips, self.level)
        mean = np.where(n > 0, sums.sum(axis=2), np.nan).ravel()
        half[n.ravel() < MIN_EVENTS] = np.nan
        keys = [(kind, name, h * self.step // MINUTE_MS) for kind, name in events for h in points]
        frame = pd.DataFrame(keys, columns=["kind", "event", "minute"])
        return frame.assign(n=n.ravel(), mean_bps=mean, low=mean - half, high=mean + half)

    def _bars(self, minutes: int) -> int:
        return minutes * MINUTE_MS // self.step

    def _market(self, minutes: int) -> tuple[Any, float, np.ndarray]:
        """Forward returns of all bars, their mean over warm ones, and those ones' sums by day without the mean."""
        forward = forward_returns(self.bars, self.ends, self._bars(minutes))
        rows = np.flatnonzero(self.warm & np.isfinite(forward.total))
        drift = float(forward.total[rows].mean()) if len(rows) else 0.0
        return forward, drift, day_sums(forward, rows, self.day, self.n_days, drift)[0]


def round_trip_bps(costs: Costs) -> float:
    """Taker fee and slippage of an entry and an exit, in bps."""
    return 2 * (costs.fee * BPS + costs.slippage_bps)


def _judged(table: pd.DataFrame, fdr: float) -> pd.DataFrame:
    """The family's q-values, what is a discovery, and what survives costs."""
    from scipy.stats import false_discovery_control

    tested = table["tested"].to_numpy()
    q = np.full(len(table), np.nan)
    q[tested] = false_discovery_control(table["p_value"].to_numpy()[tested])
    table = table.assign(q_value=q, discovery=q <= fdr)
    same = np.sign(table["excess_bps"]) == np.sign(table["mean_bps"])
    table["survives"] = table["discovery"] & (table["net_low"] > 0) & same
    first = ["symbol", "kind", "event", "horizon", *NUMBERS, "q_value", "tested", "discovery", "survives"]
    return table[first]


def _named_results(result: Any) -> dict[str, Result]:
    if isinstance(result, Result):
        return {result.symbol or "candles": result}
    if isinstance(result, Mapping):
        named = {str(name): one for name, one in result.items()}
    elif isinstance(result, Sequence) and not isinstance(result, str):
        named = {}
        for one in result:
            check_kind("result", one, Result)
            name = one.symbol or "candles"
            if name in named:
                raise InputError.of("result", name, "is there twice; give a mapping with a name for each")
            named[name] = one
    else:
        raise InputError.of("result", type(result).__name__, "must be a Result, or a mapping or sequence of them")
    if not named:
        raise InputError.of("result", result, "must hold at least one Result")
    for one in named.values():
        check_kind("result", one, Result)
    return named


def _checked_horizons(horizons: Any, steps: Mapping[str, int]) -> tuple[int, ...]:
    if isinstance(horizons, str) or not isinstance(horizons, Sequence | np.ndarray) or not len(horizons):
        raise InputError.of("horizons", horizons, "must be a list of minutes")
    for minutes in horizons:
        if not is_whole(minutes) or not 1 <= minutes <= LONGEST:
            raise InputError.of("horizons", minutes, f"must be whole minutes from 1 to {LONGEST}")
        for name, step in steps.items():
            if minutes * MINUTE_MS % step:
                raise InputError.of("horizons", minutes, f"must be whole bars of {name} ({step // MINUTE_MS} minutes)")
    return tuple(sorted({int(minutes) for minutes in horizons}))


def _told(row: pd.Series) -> str:
    from aione_lab.figures.events import event_name

    name, side = event_name(row["kind"], row["event"]), row["side"].lower()
    band = "" if math.isnan(row["net_low"]) else f" ({row['net_low']:+.1f} to {row['net_high']:+.1f})"
    return f"{name} at {row['horizon']} minutes, {side}, {row['net_bps']:+.1f} bps net{band}"
