"""Do results depend on hour, weekday, regime or trigger? Tables, and a test before anyone picks the best of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from aione_lab.backtest.alone import INDEPENDENCE, contexts
from aione_lab.backtest.result import Result
from aione_lab.engine.event import decode_mask
from aione_lab.engine.records import REASONS, SIDES, TRENDS, VOLATILITIES
from aione_lab.errors import InputError
from aione_lab.research.alerts import Results, alone_frame, several
from aione_lab.research.arguments import whole
from aione_lab.research.clusters import (
    day_codes,
    false_discovery,
    groups_p,
    mean_band,
    permuted_days_p,
    share_band,
    signs,
)
from aione_lab.research.forecast import CHANCE
from aione_lab.units import DAY_MS, INTERVALS

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from aione_lab.figures.theme import Theme

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
SESSION = 4  # hours
GROUPS: dict[str, tuple[str, ...]] = {
    "hour": tuple(f"{hour:02d}" for hour in range(24)),
    "session": tuple(f"{hour:02d}-{hour + SESSION:02d}" for hour in range(0, 24, SESSION)),
    "weekday": WEEKDAYS,
    "volatility": VOLATILITIES,
    "trend": tuple(TRENDS[code] for code in (1, 0, -1)),
    "correlation": tuple(INDEPENDENCE[code] for code in (1, 0, -1)),
    "reason": tuple(reason for reason in REASONS if reason != "LOW_VOLATILITY"),  # that one vetoes the alert
    "side": (SIDES[1], SIDES[-1]),
}
"""What can be split by, with its groups in order; a spec's own triggers follow the reasons."""

UNKNOWN = INDEPENDENCE[-1]  # no regime: the tests leave it out

OF_TIME = ("hour", "session", "weekday", "volatility", "trend", "correlation")
"""Splits that share out the time itself: their rates count the days spent in a group."""

THIN = 30  # trades an hour below which sessions are looked at too
FEW_TRADES = 30
FEW_DAYS = 10
COLUMNS = (
    "count", "share", "days", "rate", "win_rate", "win_rate_low", "win_rate_high",
    "expectancy_r", "expectancy_r_low", "expectancy_r_high",
    "expectancy", "expectancy_low", "expectancy_high", "net_pnl",
)  # fmt: skip
TESTED = ["groups", "count", "statistic", "p_value", "win_p_value"]


@dataclass(frozen=True)
class Splits:
    """Results by group, and for each split whether its groups differ at all.

    ``table`` has a row a (split, group): ``count`` and ``share`` of all; ``days`` of warm time spent in the group (of
    all symbols; for reasons and sides all of it) and ``rate``, count a day of it; ``win_rate``, ``expectancy_r`` (mean
    R) and ``expectancy`` (mean net P&L, quote currency) with 95 % bands; ``net_pnl``.

    ``tests`` has a row a split: ``groups, count, statistic, p_value`` of "mean R is the same in all groups", compared
    within symbols, and ``win_p_value`` of the same for the share with a gain; ``q_value, win_q_value`` are their
    Benjamini–Hochberg adjustments over the splits. Groups that differ in R and not in gains differ in what costs are
    against their stops. NaN: not defined on so few.
    """

    table: pd.DataFrame
    tests: pd.DataFrame
    sentence: str

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """One frame a split."""
        return {str(name): self.table.xs(name, level="split") for name in self.tests.index}  # type: ignore[misc]

    def plot(self, theme: Theme = "light") -> go.Figure:
        """Mean R of every group with its band, a panel a split."""
        from aione_lab.figures.splits import splits_chart

        title = "Results by group, net of costs: 95 % bands, numbers of trades below"
        return splits_chart(self.table, self.tests, title=title, theme=theme)


def splits(
    result: Results,
    by: str | Iterable[str] = ("hour", "weekday", "volatility", "trend", "correlation"),
    of: Literal["trades", "alerts"] = "trades",
    *,
    n_draws: int = 2000,
    seed: int = 0,
) -> Splits:
    """Split the ``trades`` of a replay, or its ``alerts`` traded alone, into groups, all net of costs.

    ``result`` is one Result or a list of them, pooled. ``by`` names any of ``hour`` (UTC, of the alert; where hours are
    thin, 4-hour ``session`` comes with it), ``weekday``, ``volatility``, ``trend`` and ``correlation`` (the regime that
    Stage2 found on the alert's bar), ``reason`` (a trade counts for each of its triggers) and ``side``.

    Bands of means are t-intervals with the variance between UTC days, of shares Wilson's at the effective number; tests
    are by random signs of days, that of weekdays by dealing weekdays out to the days anew, ``n_draws`` times with
    ``seed``. UNKNOWN correlation is no group to the test. Trades without R (entered beyond their stop) are left out of
    R and tests. Raises InputError for what cannot be used.
    """
    results = several(result)
    names = _names(by)
    if not isinstance(of, str) or of not in ("trades", "alerts"):
        raise InputError.of("of", of, "must be 'trades' or 'alerts'")
    n_draws = whole("n_draws", n_draws, 1, 100_000)
    random = np.random.default_rng(whole("seed", seed, 0, 2**63))
    of_bars = [contexts(one) for one in results]
    if of == "alerts":
        frame = alone_frame(results)[0]
    else:
        frame = pd.concat([_traded(*pair) for pair in zip(results, of_bars, strict=True)]).sort_index(kind="stable")
    if "hour" in names and "session" not in names and len(frame) < THIN * len(GROUPS["hour"]):
        names.insert(names.index("hour") + 1, "session")
    return split_frame(frame, names, _exposures(results, of_bars, names), of=of, n_draws=n_draws, random=random)


def split_frame(
    frame: pd.DataFrame,
    names: list[str],
    exposures: dict[str, dict[str, float]],
    *,
    of: str,
    n_draws: int,
    random: np.random.Generator,
) -> Splits:
    """`Splits` of trades on UTC times of their alerts: ``pnl, r_multiple, symbol`` and what ``names`` are told from.

    ``exposures`` holds days of time by split and group: the groups of a split are its keys, in their order.
    """
    days, n_days = day_codes(pd.DatetimeIndex(frame.index))
    flips = signs(n_days, n_draws, random)
    r = frame["r_multiple"].to_numpy(dtype=np.float64)
    known = np.isfinite(r)
    won = (frame["pnl"].to_numpy() > 0).astype(np.float64)
    strata = pd.factorize(frame["symbol"])[0]
    rows: dict[tuple[str, str], dict[str, float]] = {}
    tests: dict[str, tuple[int, int, float, float, float]] = {}
    for name in names:
        groups = tuple(exposures[name])
        member = _members(frame, name, groups)
        for column, group in enumerate(groups):
            spent = exposures[name].get(group, 0.0)
            if spent > 0 or member[:, column].any():
                rows[name, group] = _row(frame, r, member[:, column], days, spent)
        compared = np.array([group != UNKNOWN for group in groups])
        used = known & (member & compared).any(axis=1)
        inside = member[used][:, compared]
        of_r, of_wins = (
            permuted_days_p(values[used], inside, days[used], strata[used], n_draws, random)
            if name == "weekday"
            else groups_p(values[used], inside, days[used], strata[used], flips)
            for values in (r, won)
        )
        tests[name] = (int(inside.any(axis=0).sum()), int(used.sum()), *of_r, of_wins[1])
    index = pd.MultiIndex.from_tuples(list(rows), names=["split", "group"])
    table = pd.DataFrame(list(rows.values()), index=index, columns=list(COLUMNS)).astype({"count": np.int64})
    tested = pd.DataFrame.from_dict(tests, orient="index", columns=TESTED).rename_axis("split")
    tested["q_value"], tested["win_q_value"] = map(false_discovery, (tested["p_value"], tested["win_p_value"]))
    return Splits(table, tested, _sentence(table, tested, of, len(frame), n_days))


def _names(by: Any) -> list[str]:
    names = [by] if isinstance(by, str) else list(by) if isinstance(by, list | tuple) else []
    if not names:
        raise InputError.of("by", by, f"must name at least one of {', '.join(GROUPS)}")
    for name in names:
        if not isinstance(name, str) or name not in GROUPS:
            raise InputError.unknown("by", name, GROUPS)
    return list(dict.fromkeys(names))


def _traded(result: Result, of_bars: pd.DataFrame) -> pd.DataFrame:
    """The closed trades of ``result`` with the regime and the reasons of their alerts' bars."""
    trades = result.trades
    places = result.index.get_indexer(pd.DatetimeIndex(trades["signal_time"]))
    frame = of_bars.iloc[places].copy()
    for name in ("side", "pnl", "r_multiple"):
        frame[name] = trades[name].to_numpy()
    reasons = np.empty(len(places), dtype=object)
    reasons[:] = [decode_mask(int(mask), result.spec.reasons) for mask in result.signal_records["reasons"][places]]
    return frame.assign(reasons=reasons, symbol=result.symbol)


def _labels(frame: pd.DataFrame, name: str) -> np.ndarray:
    times = pd.DatetimeIndex(frame.index)
    if name == "weekday":
        return np.array(WEEKDAYS, dtype=object)[times.day_of_week]
    if name in ("hour", "session"):
        step = 1 if name == "hour" else SESSION
        return np.array(GROUPS[name], dtype=object)[times.hour // step]
    return frame["independence" if name == "correlation" else name].to_numpy(dtype=object)


def _members(frame: pd.DataFrame, name: str, groups: tuple[str, ...]) -> np.ndarray:
    """(trades, groups) of bool: which trade belongs to which group."""
    if name == "reason":
        held = [[reason in reasons for reason in groups] for reasons in frame["reasons"]]
        return np.array(held, dtype=bool).reshape(len(frame), len(groups))
    return _labels(frame, name)[:, None] == np.array(groups, dtype=object)


def _exposures(
    results: tuple[Result, ...], of_bars: list[pd.DataFrame], names: list[str]
) -> dict[str, dict[str, float]]:
    """Days of warm time by split and group, over all symbols."""
    own = (reason for one in results for reason in one.spec.reasons if reason not in REASONS)
    known = GROUPS | {"reason": (*GROUPS["reason"], *dict.fromkeys(own))}
    spent: dict[str, dict[str, float]] = {name: dict.fromkeys(known[name], 0.0) for name in names}
    for one, bars in zip(results, of_bars, strict=True):
        warm = bars[bars["trend"] != ""]
        day = INTERVALS[one.interval] / DAY_MS
        for name in names:
            if name in OF_TIME:
                groups, counts = np.unique(_labels(warm, name).astype(str), return_counts=True)
                added = dict(zip(groups.tolist(), (counts * day).tolist(), strict=True))
            else:
                there = known[name] if name != "side" or one.settings.allow_shorts else known[name][:1]
                there = tuple(group for group in there if name != "reason" or group in one.spec.reasons)
                added = dict.fromkeys(there, len(warm) * day)
            for group, value in added.items():
                spent[name][group] += value
    return spent


def _row(frame: pd.DataFrame, r: np.ndarray, chosen: np.ndarray, days: np.ndarray, spent: float) -> dict[str, float]:
    pnl = frame["pnl"].to_numpy(dtype=np.float64)[chosen]
    count = int(chosen.sum())
    row: dict[str, float] = dict.fromkeys(COLUMNS, math.nan)
    row |= {"count": count, "share": count / len(frame) if len(frame) else math.nan, "days": spent, "net_pnl": 0.0}
    row["rate"] = count / spent if spent > 0 else math.nan
    if not count:
        return row
    row["win_rate"] = float((pnl > 0).mean())
    row["win_rate_low"], row["win_rate_high"] = share_band(pnl > 0, days[chosen])
    row["expectancy"], row["net_pnl"] = float(pnl.mean()), float(pnl.sum())
    row["expectancy_low"], row["expectancy_high"] = mean_band(pnl, days[chosen])
    with_r = chosen & np.isfinite(r)
    if with_r.any():
        row["expectancy_r"] = float(r[with_r].mean())
        row["expectancy_r_low"], row["expectancy_r_high"] = mean_band(r[with_r], days[with_r])
    return row


def _sentence(table: pd.DataFrame, tests: pd.DataFrame, of: str, n: int, n_days: int) -> str:
    what = "trades" if of == "trades" else "alerts traded alone"
    if not n:
        return "No trade was closed, so there is nothing to split."
    if n < FEW_TRADES or n_days < FEW_DAYS:
        few = f"{n:,} {what} on {n_days} {'day' if n_days == 1 else 'days'}"
        return (
            f"{few}: too few to split (at least {FEW_TRADES} on {FEW_DAYS} days are wanted), whatever the tables show."
        )
    judged = tests[np.isfinite(tests["p_value"])]
    if not len(judged):
        return f"The {n:,} {what} fall into one group or ended alike, so there is nothing to compare."
    found = judged[judged["q_value"] <= CHANCE].sort_values("p_value")
    if len(found):
        parts = [_extremes(table, str(name), float(q)) for name, q in found["q_value"].items()]
        text = f"The results of the {n:,} {what}, in R and net of costs, differ by {'; by '.join(parts)}."
        only = [str(name) for name in found.index if not found["win_q_value"].to_dict()[name] <= CHANCE]
        if only:
            text += f" By {_listed(only)} gains are not shown to be more frequent anywhere: what costs and targets are "
            text += "against the stops may be all that differs."
        rest = [str(name) for name in judged.index if name not in found.index]
        if rest:
            text += f" By {_listed(rest)} they cannot be told apart."
    else:
        text = (
            f"Nothing is distinguishable: by {_listed([str(name) for name in judged.index])} the results of the {n:,} "
            f"{what}, in R and net of costs, differ no more than chance makes them (smallest adjusted p = "
            f"{judged['q_value'].min():.3f}). The best group of a table is its luckiest."
        )
    gains = table[(table["expectancy_r_low"] > 0) & (table["count"] >= FEW_TRADES)]
    gains = gains[gains.index.get_level_values("split").isin(found.index)]
    if len(gains):
        named = _listed([f"{split} {group}" for split, group in gains.index])
        text += (
            f" Above zero after costs with their whole band, which is not adjusted for the number of groups: {named}; "
            "not yet tried on data that did not suggest it."
        )
    elif (table["expectancy_r_high"] < 0).any() or len(found):
        text += f" No group of {FEW_TRADES} or more is shown to earn its costs."
    return text


def _extremes(table: pd.DataFrame, split: str, q_value: float) -> str:
    names = table.index.get_level_values
    rows = table[(names("split") == split) & (names("group") != UNKNOWN) & (table["count"] > 0)]
    many = rows[rows["count"] >= FEW_TRADES]
    rows = many if len(many) > 1 else rows  # the far ends of a table are its thinnest groups
    means = rows["expectancy_r"].dropna().sort_values()
    (_, worst), (_, best) = means.index[0], means.index[-1]
    return f"{split} (adjusted p = {q_value:.3f}; {best} {means.iloc[-1]:+.2f} R, {worst} {means.iloc[0]:+.2f} R)"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
