"""`episodes`: which large moves were announced by alerts, how early, and what chance would have announced."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from aione_lab.backtest.result import Result
from aione_lab.engine.params import check_kind
from aione_lab.engine.records import FEATURE_NAMES, RECOMMENDATIONS, SIDES, SIGNALS
from aione_lab.errors import InputError, is_whole, whole
from aione_lab.research.forward import BPS, run_ends
from aione_lab.units import DAY_MS, INTERVALS, MINUTE_MS

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from aione_lab.figures.theme import Theme

PART = 1 / 3
"""An alert still announces an episode within this share of its time; after that it comes too late."""

SHIFTS = 999
LEVEL = 0.95
FEW = 20
"""Below this many episodes or alerts nothing is said about skill."""

KINDS = ("ALERT", "BUY", "SELL")


@dataclass(frozen=True)
class Episodes:
    """Large moves of a replay, the alerts around them, and how much of that is chance.

    ``table`` has a row an episode: ``start`` and ``end`` (open times of the bars at whose closes the move begins and
    ends), ``side``, ``minutes``, ``move_bps`` (> 0) and ``move_atr`` (in trailing ATRs at the start). ``announced``
    and ``bought``: an ALERT, or a recommendation to trade its side, in the announcing span. Of the first ALERT
    there: ``lead`` in minutes before the start (negative: after it) and ``ahead``, the share of the move still to
    come at the open of the bar after it; both NaN where there was none, ``bought_lead`` and ``bought_ahead`` alike.

    ``alerts`` has a row an ALERT: ``time``, ``recommendation``, ``true`` (in the announcing span of an episode),
    ``met`` (a BUY or SELL in that of one of its side), ``late`` (in an episode, after that span, and announcing no
    other), ``episode`` (its start; NaT: none).

    ``summary`` has a row a kind of alert: counts, ``precision`` and ``recall`` with 95 % intervals, what the same
    alerts at random times would reach (``chance_…``, mean over circular shifts) and one-sided p-values;
    ``n_opposite``: BUYs or SELLs in the announcing span of a move of the other side (NaN for ALERT); medians of lead
    and share ahead.

    Episodes are hindsight: labels, not something that could be known at the time. And random times are an easy
    opponent: alerts and large moves both come in volatile spells. On 24 simulated replays of 30 days without any
    effect (SOLUSDT, 1000PEPEUSDT) every ALERT p-value was 0.001, and that of BUYs was below 0.05 in five.
    So a small p-value says that something moves, not which way; that is what ``event_study`` tests.
    """

    symbol: str
    table: pd.DataFrame
    alerts: pd.DataFrame
    summary: pd.DataFrame
    closes: pd.Series
    size: float
    window: int
    lead: int
    days: float

    @property
    def sentence(self) -> str:
        """What was announced, beside chance, in plain words."""
        row = self._numbers("ALERT")
        name = self.symbol or "candles"
        rule = f"moves of {self.size:g} ATRs within {self.window} minutes"
        head = f"{name}: {int(row['n_episodes']):,} {rule} in {self.days:.0f} warm days"
        if not row["n_episodes"] or not row["n_alerts"]:
            return f"{head}, {int(row['n_alerts']):,} alerts: nothing to judge."
        head += (
            f", {row['recall']:.0%} of them announced (chance {row['chance_recall']:.0%}, p = {row['recall_p']:.3f}); "
            f"{row['precision']:.0%} of {int(row['n_alerts']):,} alerts announced one ({row['precision_low']:.0%} to "
            f"{row['precision_high']:.0%}, chance {row['chance_precision']:.0%}, p = {row['precision_p']:.3f})"
        )
        if min(row["n_episodes"], row["n_alerts"]) < FEW:
            return f"{head}: too few to judge (at least {FEW} of both are wanted)."
        false = f"{1 - row['precision']:.0%} are false or late"
        if row["precision_p"] > 0.05:
            text = f"{head}: alerts cannot be told from random times, and {false}."
        else:
            text = (
                f"{head}: more than random times would, as volatile spells alone bring about (it tells that the "
                f"market moves, not which way), and {false}."
            )
        for kind in KINDS[1:]:
            one = self._numbers(kind)
            if one["n_alerts"]:
                text += (
                    f" Of {int(one['n_alerts']):,} {kind}s {one['precision']:.0%} met a move of their side, "
                    f"{one['n_opposite'] / one['n_alerts']:.0%} one of the other side."
                )
        return text + " A move that follows is not a profit: stops, costs and the false ones are not in this."

    def _numbers(self, kind: str) -> dict[str, float]:
        place = self.summary.index.get_loc(kind)
        return dict(zip(self.summary.columns, self.summary.to_numpy(dtype=np.float64)[place].tolist(), strict=True))

    def plot(self, theme: Theme = "light") -> go.Figure:
        """Episodes over the price, with what was announced, and lead times below."""
        from aione_lab.figures.episodes import episodes_chart

        title = f"{self.symbol or 'candles'}: moves of {self.size:g} ATRs within {self.window} minutes"
        return episodes_chart(self.closes, self.table, self.alerts, title=title, theme=theme)


def episodes(result: Result, *, size: float = 15.0, window: int = 60, lead: int = 15, seed: int = 0) -> Episodes:
    """Find the large moves of a replay and compare its alerts with them.

    Parameters
    ----------
    size
        An episode is a move between two closes of at least this many trailing ATRs (``atr_7d`` × the close at its
        start), up or down.
    window
        Minutes within which the move is made.
    lead
        Minutes before the start from which an ALERT counts as announcing it; the last moment is a third of the
        episode's time after the start.
    seed
        Of the circular shifts that say what chance would give: they keep the alerts' number and their spacing.

    Episodes do not overlap: the largest in ATRs is taken first, then the largest that is left. None crosses a
    missing bar, and all begin on a warm bar. Intervals are Wilson's (1927) with the effective number of a cluster
    sample by UTC day (E. Korn and B. Graubard, Survey Methodology 24, 1998). Raises InputError.
    """
    check_kind("result", result, Result)
    if isinstance(size, bool) or not isinstance(size, int | float | np.number) or not 0 < size < math.inf:
        raise InputError.of("size", size, "must be a number of ATRs above 0")
    step = INTERVALS[result.interval]
    for name, minutes, least in (("window", window, step // MINUTE_MS), ("lead", lead, 0)):
        if not is_whole(minutes) or not least <= minutes <= 1440 or minutes * MINUTE_MS % step:
            raise InputError.of(name, minutes, f"must be whole bars in minutes, from {least} to 1440")
    seed = whole("seed", seed, 0)
    bars = result.bars
    closes, times = np.ascontiguousarray(bars["close"]), bars["timestamp"]
    warm = result.columns[FEATURE_NAMES.index("warm")] == 1.0
    unit = result.columns[FEATURE_NAMES.index("atr_7d")]
    ends = run_ends(times, step)
    start, end, side = large_moves(closes, np.where(warm, unit, np.nan), ends, float(size), window * MINUTE_MS // step)
    first = np.maximum(start - lead * MINUTE_MS // step, 0)
    last = start + ((end - start) * PART).astype(np.int64)
    records = result.signal_records
    advice = records["recommendation"]
    alert = np.flatnonzero(records["signal"] == SIGNALS.index("ALERT"))
    found = {
        "ALERT": alert,
        "BUY": np.flatnonzero(advice == RECOMMENDATIONS.index("BUY")),
        "SELL": np.flatnonzero(advice == RECOMMENDATIONS.index("SELL")),
    }
    move = np.abs(closes[end] / closes[start] - 1)
    table = pd.DataFrame(
        {
            "start": result.index[start],
            "end": result.index[end],
            "side": [SIDES[int(one)] for one in side],
            "minutes": (end - start) * step // MINUTE_MS,
            "move_bps": move * BPS,
            "move_atr": move / unit[start],
        }
    )
    own = np.where(side > 0, *(_first_in(found[kind], first, last) for kind in ("BUY", "SELL")))
    for prefix, at in (("", _first_in(alert, first, last)), ("bought_", own)):
        seen = at >= 0
        entry = bars["open"][np.minimum(at + 1, len(bars) - 1)]
        ahead = (closes[end] - entry) / (closes[end] - closes[start])
        table["bought" if prefix else "announced"] = seen
        table[f"{prefix}lead"] = np.where(seen, (start - at) * step / MINUTE_MS, np.nan)
        table[f"{prefix}ahead"] = np.where(seen, ahead, np.nan)
    rng = np.random.default_rng(seed)
    apart = (window + lead) * MINUTE_MS // step  # nearer, a shifted alert could still announce the same episode
    days, usable = times // DAY_MS, np.flatnonzero(warm)
    rows = {}
    for kind in KINDS:
        part = np.ones(len(start), dtype=bool) if kind == "ALERT" else side == (1 if kind == "BUY" else -1)
        rows[kind] = _compare(found[kind], start[part], first[part], last[part], usable, days, apart, rng)
        times_of = table.loc[part & (own >= 0 if kind != "ALERT" else table["announced"])]
        prefix = "" if kind == "ALERT" else "bought_"
        rows[kind] |= {f"median_{name}": times_of[f"{prefix}{name}"].median() for name in ("lead", "ahead")}
        other = _hits(found[kind], first[~part], last[~part], len(bars)).sum()
        rows[kind]["n_opposite"] = math.nan if kind == "ALERT" else float(other)
    return Episodes(
        symbol=result.symbol,
        table=table,
        alerts=_judged_alerts(result, alert, start, end, side, first, last),
        summary=pd.DataFrame.from_dict(rows, orient="index").rename_axis("kind"),
        closes=pd.Series(closes, index=result.index, name="close"),
        size=float(size),
        window=int(window),
        lead=int(lead),
        days=float(warm.sum() * step / DAY_MS),
    )


def large_moves(
    closes: np.ndarray, unit: np.ndarray, ends: np.ndarray, size: float, window: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start bars, end bars and sides (1, −1) of moves that do not overlap, in order of time.

    ``unit`` (n,) is an ATR as a share of the close; no move starts where it is NaN. From every bar, the farthest
    close within ``window`` bars either way; those of at least ``size`` units are taken from the largest on.
    """
    n = len(closes)
    candidates = []
    for sign, extreme in ((1, maximum_filter1d), (-1, minimum_filter1d)):
        # Place i of the filter holds i … i + window; a gap inside is looked into below.
        far = extreme(closes, window + 1, origin=-((window + 1) // 2))
        with np.errstate(invalid="ignore"):
            possible = np.flatnonzero(sign * (far / closes - 1) >= size * unit)
        for start in possible.tolist():
            ahead = sign * closes[start + 1 : min(start + window, ends[start]) + 1]
            if len(ahead):
                end = start + 1 + int(ahead.argmax())
                reach = sign * (closes[end] / closes[start] - 1) / unit[start]
                if reach >= size:
                    candidates.append((-reach, start, end, sign))
    taken = np.zeros(n, dtype=bool)
    chosen = []
    for _, start, end, sign in sorted(candidates):
        # Moves may share a turning point: the close that ends one can start the next.
        if not taken[start + 1 : end + 1].any():
            taken[start + 1 : end + 1] = True
            chosen.append((start, end, sign))
    moves = np.array(sorted(chosen), dtype=np.int64).reshape(-1, 3)
    return moves[:, 0], moves[:, 1], moves[:, 2]


def _first_in(places: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The first of the ascending ``places`` in each span ``first … last``; −1: none."""
    at = np.searchsorted(places, first)
    padded = np.append(places, np.iinfo(np.int64).max)
    return np.where(padded[at] <= last, padded[at], -1)


def _hits(places: np.ndarray, first: np.ndarray, last: np.ndarray, n: int) -> np.ndarray:
    """Which ``places`` lie in any of the spans of bars of 0 … n − 1."""
    edges = np.bincount(first, minlength=n + 1) - np.bincount(last + 1, minlength=n + 1)
    return np.cumsum(edges)[places] > 0


def _compare(
    places: np.ndarray,
    start: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    usable: np.ndarray,
    days: np.ndarray,
    apart: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Precision and recall of alerts on ``places``, and of the same shifted around by ``apart`` warm bars or more."""
    # In the order of warm bars alone: there a shift keeps all alerts possible ones.
    n = len(usable)
    low, high = np.searchsorted(usable, first), np.searchsorted(usable, last, side="right") - 1
    at = np.searchsorted(usable, places)
    true = _hits(at, low, high, n)
    caught = _first_in(at, low, high) >= 0
    draws = np.full((2, SHIFTS), np.nan)
    if len(at) and len(start) and n > 2 * apart:
        for draw, shift in enumerate(rng.integers(apart, n - apart + 1, size=SHIFTS)):
            moved = np.sort((at + shift) % n)
            draws[0, draw] = _hits(moved, low, high, n).mean()
            draws[1, draw] = (_first_in(moved, low, high) >= 0).mean()
    row: dict[str, float] = {
        "n_episodes": len(start),
        "n_announced": int(caught.sum()),
        "n_alerts": len(places),
        "n_true": int(true.sum()),
    }
    for name, hits, when, drawn in (("precision", true, places, draws[0]), ("recall", caught, start, draws[1])):
        share = float(hits.mean()) if len(hits) else math.nan
        known = not np.isnan(drawn[0])
        row |= {
            name: share,
            f"{name}_low": math.nan,
            f"{name}_high": math.nan,
            f"chance_{name}": float(drawn.mean()),
            f"{name}_p": (1 + int((drawn >= share - 1e-12).sum())) / (1 + SHIFTS) if known else math.nan,
        }
        if len(hits):
            row[f"{name}_low"], row[f"{name}_high"] = clustered_wilson(hits, days[when])
    return row


def clustered_wilson(hits: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Wilson's interval of a share whose cases come in clusters: with the effective number of cases."""
    from scipy.stats import binomtest, norm

    n, share = len(hits), float(np.mean(hits))
    places = np.unique(clusters, return_inverse=True)[1]
    groups = int(places.max()) + 1
    effective = float(n)
    if 0 < share < 1 and groups > 1:
        rest = np.bincount(places, hits - share)
        variance = float((rest**2).sum()) / n**2 * groups / (groups - 1)
        if variance > 0:
            effective = min(n, share * (1 - share) / variance)
    if effective == n:
        interval = binomtest(int(np.sum(hits)), n).proportion_ci(LEVEL, method="wilson")
        return float(interval.low), float(interval.high)
    z = float(norm.ppf(0.5 + LEVEL / 2))  # binomtest takes whole numbers only
    centre = (share * effective + z * z / 2) / (effective + z * z)
    half = z / (effective + z * z) * math.sqrt(share * (1 - share) * effective + z * z / 4)
    return centre - half, centre + half


def _judged_alerts(
    result: Result,
    alert: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    side: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
) -> pd.DataFrame:
    """One row an ALERT: whether it announced an episode, one of its side, or came late in one; and which."""
    advice = result.signal_records["recommendation"][alert]
    wanted = (advice == RECOMMENDATIONS.index("BUY")).astype(int) - (advice == RECOMMENDATIONS.index("SELL"))
    episode = np.full(len(alert), -1)
    true, met, late = (np.zeros(len(alert), dtype=bool) for _ in range(3))
    for k in reversed(range(len(start))):  # where spans overlap, the first episode is the one announced
        inside = (alert >= first[k]) & (alert <= last[k])
        after = (alert > last[k]) & (alert <= end[k])
        episode[inside | (after & ~true)] = k
        true |= inside
        met |= inside & (wanted == side[k])
        late |= after
    starts = result.index[np.where(episode < 0, 0, start[episode] if len(start) else 0)]
    return pd.DataFrame(
        {
            "time": result.index[alert],
            "recommendation": np.array(RECOMMENDATIONS, dtype=object)[advice],
            "true": true,
            "met": met,
            "late": late & ~true,
            "episode": pd.Series(starts).where(episode >= 0),
        }
    )
