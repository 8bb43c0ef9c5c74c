"""Does it look ahead, and when is it warm? For the engine itself and for anybody's function of candles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aione_lab.backtest.prepare import frame_ms, infer_interval
from aione_lab.backtest.replay import Schedule
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.schema import PRICES, check_candles, check_funding
from aione_lab.research import arguments
from aione_lab.research.cuts import Plan, aimed_cuts, early_plan, random_cuts, screened_plan
from aione_lab.research.fills import ENTRIES, Count, check_decisions, check_fills, entries_differ
from aione_lab.research.futures import BLANK, CUT_OFF, FUTURES, Inputs
from aione_lab.research.outputs import (
    Computation,
    Item,
    Output,
    engine_computation,
    first_difference,
    function_computation,
)
from aione_lab.research.warmup import TOLERANCE, WarmUp, warm_up
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, interval_ms, iso

if TYPE_CHECKING:
    import plotly.graph_objects as go

CHECKED_DAYS = 30
WARM_UP_DAYS = 90
FEWEST_BARS = 100
MOST_CUTS = 100_000
_SURE = 0.05  # chance left that a peek is missed, for the share that the report names

CLEAN, AHEAD, IMPOSSIBLE, UNSEEN = "clean", "looks ahead", "impossible fill", "not seen"


@dataclass(frozen=True)
class BiasReport:
    """What was checked and what was found, one row an item in ``table``.

    ``kind, name``; ``cuts``: comparisons in which the item had something to compare; ``differences``: in how many
    of them its past changed; ``first_difference`` in words; ``warm_up_bars`` until it no longer depends on where
    the candles began (<NA>: not settled, or not seen), within 1e-6; ``warm_up_exact_bars``: to the byte;
    ``warm_up`` says it in words; ``verdict``: clean, looks ahead, impossible fill, or not seen.
    """

    title: str
    table: pd.DataFrame
    span: str  # the stretch whose past was compared
    n_cuts: int  # different cuts
    n_comparisons: int  # runs on another future
    refused: tuple[str, ...]  # futures on which the function could not be run at all
    watched: int  # bars that the warm-up was watched for
    signals_begin: int | None  # bars until the engine lets signals begin; None: a function, or not reached
    seed: int

    @property
    def biased(self) -> list[str]:
        """Names of what looks ahead or cannot have been filled."""
        return self.table.loc[self.table["verdict"].isin([AHEAD, IMPOSSIBLE]), "name"].tolist()

    @property
    def ok(self) -> bool:
        """Whether nothing was found; what was not seen was not judged either (``sentence`` says how much)."""
        return not self.biased

    @property
    def detectable(self) -> float:
        """A peek on this share of all bars would have been met by a cut with 95 % probability."""
        return float(1.0 - _SURE ** (1.0 / self.n_cuts))

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        biased, unseen = self.biased, int((self.table["verdict"] == UNSEEN).sum())
        seen = len(self.table) - unseen
        where = f"{self.n_cuts:,} cuts and {self.n_comparisons:,} other futures, {self.span}"
        if biased:
            named = ", ".join(biased[:6]) + (f" and {len(biased) - 6} more" if len(biased) > 6 else "")
            fail = f"{len(biased)} of {_items(seen)} {'fails' if len(biased) == 1 else 'fail'}"
            text = f"{self.title} uses what it could not know: {fail} ({named}; {where})."
        elif not seen:
            text = f"{self.title}: nothing was seen, so nothing is shown ({where})."
        else:
            text = (
                f"{self.title}: no look ahead found in {_items(seen)} ({where}). A peek on fewer than about 1 bar in "
                f"{round(1 / self.detectable):,} may have been missed."
            )
        if unseen:
            text += f" {_items(unseen)} had no value there and went unjudged."
        if self.refused:
            text += f" Not tried, because the function refused them: {', '.join(self.refused)}."
        return text + self._warm_up_text()

    def _warm_up_text(self) -> str:
        bars = self.table.loc[self.table["verdict"] != UNSEEN].dropna(subset="warm_up_bars")
        open_ = int(self.table["warm_up"].str.startswith("not settled").sum())
        text = ""
        if self.signals_begin is not None:
            done = int((bars["warm_up_bars"] <= self.signals_begin).sum())
            text = f" Signals begin after {self.signals_begin:,} bars; by then {_items(done)} had settled."
        elif len(bars):
            text = f" The longest warm-up is {_bars(int(bars['warm_up_bars'].max()))}."
        return text + (f" {_items(open_)} did not settle within {self.watched:,} bars." if open_ else "")

    def plot(self, theme: Any = "light") -> go.Figure:
        """Warm-up of every item, those that look ahead marked."""
        from aione_lab.figures.bias import warm_up_chart

        title = f"{self.title}: bars until independent of the start"
        return warm_up_chart(self.table, self.watched, self.signals_begin, title=title, theme=theme)


def bias_report(
    candles: pd.DataFrame,
    thresholds: Thresholds | Schedule | None = None,
    *,
    symbol: str = "",
    interval: str | None = None,
    reference: pd.DataFrame | pd.Series | None = None,
    funding: pd.DataFrame | pd.Series | None = None,
    spec: FeatureSpec | None = None,
    settings: Settings | None = None,
    costs: Costs | None = None,
    n_cuts: int = 24,
    seed: int = 0,
    function: Any = None,
) -> BiasReport:
    """Look for look-ahead, and measure the warm-up, of ``replay`` or of a user's ``function``.

    The candles are cut, their future (with that of the reference and the funding) is dropped, multiplied by 1e6
    and 0.001, reversed, frozen and, for a function, made NaN; everything dated before the cut must stay: to the
    byte for the engine, to 1e-12 for a function. Of a long history the last 30 days are compared and the last
    90 watched for the warm-up. ``n_cuts`` cuts are random and get every future; some more are aimed (``cuts.py``).

    Parameters
    ----------
    candles, thresholds, symbol, interval, reference, funding, spec, settings, costs
        As for ``replay``. With a ``function`` only candles, interval, reference, funding and costs count.
    n_cuts, seed
        Random cuts, 1 to 100,000, and the integer ≥ 0 that they are drawn with.
    function
        Called with the candles as its first argument, or as ``candles=``, and with ``reference=`` (candles) and
        ``funding=`` (a Series of rates at their stamps) where its parameters are called so. Frames have a UTC index
        and float64 columns, as ``Lake`` gives them. It returns a Series, DataFrame or array of booleans or numbers
        on the candles' index, or a DataFrame of trades: ``entry_time, exit_time`` (the bar of the fill),
        ``entry_price, exit_price``, others at will; ``signal_time`` (the bar that decided) is checked where present.
        It must give the same on the same candles. What was fitted before it is called cannot be seen from outside.

    Raises InputError, one line, for what cannot be used, and where the function raises on the candles as they are.
    """
    arguments.whole("n_cuts", n_cuts, 1, MOST_CUTS)
    arguments.whole("seed", seed, 0)
    costs = Costs() if costs is None else costs
    interval = infer_interval(candles) if interval is None else interval
    everything = _inputs(candles, interval, reference, funding)
    opens = frame_ms(everything.candles)
    if len(opens) < FEWEST_BARS:
        raise InputError.of("candles", f"{len(opens)} rows", f"must be at least {FEWEST_BARS}")
    recent = everything.since(int(opens[-1]) + everything.step - CHECKED_DAYS * DAY_MS)
    if function is None:
        keywords = {"thresholds": thresholds, "symbol": symbol, "interval": interval}
        computation = engine_computation({**keywords, "spec": spec, "settings": settings, "costs": costs})
    else:
        for name, value in (("thresholds", thresholds), ("spec", spec), ("settings", settings)):
            if value is not None:
                raise InputError.of(name, value, "belongs to replay; a function is judged without it")
        computation = function_computation(function, recent)
    random = np.random.default_rng(seed)
    whole = computation.run(recent)
    tally = _Tally(recent, whole, costs)
    if function is not None:
        tally.compare(computation.run(recent), int(opens[-1]) + everything.step, "")
        if tally.differences.any():
            raise InputError.of("function", computation.title, "must give the same on the same candles")
        tally = _Tally(recent, whole, costs)
    tally.run(computation, _plan(computation, recent, whole, n_cuts, random))
    fills: dict[Item, Count] = {}
    if whole.trades is not None:
        fills = check_fills(recent, whole.trades, costs)
        fills |= check_decisions(computation, recent, whole.trades, costs, max(1, n_cuts // 2), random)
        if tally.entries.checked:
            fills[ENTRIES] = tally.entries
    watched = everything.since(int(opens[-1]) + everything.step - WARM_UP_DAYS * DAY_MS)
    settled = warm_up(computation, watched, computation.run(watched), random)
    first, last = (_minute(int(frame_ms(recent.candles)[at])) for at in (0, -1))
    return BiasReport(
        title=computation.title,
        table=_table(tally, fills, settled),
        span=f"{len(recent.candles):,} candles from {first} to {last}",
        n_cuts=len(tally.cuts),
        n_comparisons=sum(tally.tried.values()),
        refused=tuple(future for future, n in tally.tried.items() if not n),
        watched=settled.watched,
        signals_begin=settled.signals_begin,
        seed=seed,
    )


@dataclass
class _Tally:
    """Counts of comparisons and differences, item by item."""

    inputs: Inputs
    whole: Output
    costs: Costs
    tried: dict[str, int] = field(default_factory=dict)
    cuts: set[int] = field(default_factory=set)
    entries: Count = field(default_factory=Count)
    last_refusal: str = ""

    def __post_init__(self) -> None:
        self.items: list[Item] = [item for block in self.whole.blocks for item in block.items]
        self.compared = np.zeros(len(self.items), dtype=np.int64)
        self.differences = np.zeros(len(self.items), dtype=np.int64)
        self.first: dict[int, str] = {}

    def run(self, computation: Computation, plan: Plan) -> None:
        """Compare at every cut of ``plan``, the earliest first."""
        opens = frame_ms(self.inputs.candles)
        for at, future in sorted(plan):
            self.tried.setdefault(future, 0)
            cut = int(opens[at])
            try:
                other = computation.run(self.inputs.with_future(future, cut))
            except InputError as error:
                if computation.is_engine:
                    raise
                self.last_refusal = str(error)
                continue
            self.tried[future] += 1
            self.cuts.add(at)
            self.compare(other, cut, future)
        if not any(self.tried.values()) or not self.tried.get(CUT_OFF, 1):
            raise InputError.of("function", computation.title, f"cannot be run on fewer candles: {self.last_refusal}")

    def compare(self, other: Output, cut: int, future: str) -> None:
        """Count what differs before ``cut``."""
        at = 0
        for one, two in zip(self.whole.blocks, other.blocks, strict=True):
            mine, theirs = one.before(cut), two.before(cut)
            places = slice(at, at + len(one.items))
            at += len(one.items)
            if not len(mine.times) and not len(theirs.times):
                continue
            self.compared[places] += 1
            rows = first_difference(mine, theirs)
            self.differences[places] += rows >= 0
            for i in np.flatnonzero(rows >= 0):
                times = mine.times if rows[i] < len(mine.times) else theirs.times
                self.first.setdefault(places.start + int(i), self._words(int(times[rows[i]]), cut, future))
        if self.whole.trades is not None and other.trades is not None and future and future != CUT_OFF:
            told = entries_differ(self.whole.trades, other.trades, cut)
            if told is not None:
                self.entries.add(np.array([told[1]]), np.array([told[1] >= 0]))

    def _words(self, time: int, cut: int, future: str) -> str:
        ahead = -(-(cut - time) // self.inputs.step)
        return f"{_minute(time)}, {_bars(ahead)} before the cut, future {future}"


def _plan(computation: Computation, inputs: Inputs, whole: Output, n_cuts: int, random: np.random.Generator) -> Plan:
    """Every future at the random cuts; at the aimed ones one future each in turn."""
    n_bars = len(inputs.candles)
    futures = list(FUTURES) if computation.is_engine else [*FUTURES, *BLANK]
    plan: Plan = [(int(cut), future) for cut in random_cuts(n_bars, n_cuts, random) for future in futures]
    aimed = aimed_cuts(inputs, whole, 4 * n_cuts, random)
    plan += [(int(cut), futures[i % len(futures)]) for i, cut in enumerate(random.permutation(aimed))]
    if not computation.is_engine:
        plan += early_plan(n_bars, futures)
        plan += screened_plan(computation, inputs, whole, n_cuts, random)
    return sorted(set(plan))


def _inputs(
    candles: pd.DataFrame,
    interval: str,
    reference: pd.DataFrame | pd.Series | None,
    funding: pd.DataFrame | pd.Series | None,
) -> Inputs:
    if isinstance(reference, pd.Series):
        closes = pd.DataFrame(dict.fromkeys(PRICES, reference.array), index=reference.index)
        reference = closes.assign(volume=0.0)
    return Inputs(
        check_candles(candles, interval),
        None if reference is None else check_candles(reference, interval, "reference"),
        None if funding is None else check_funding(funding),
        interval_ms(interval),
    )


def _table(tally: _Tally, fills: dict[Item, Count], settled: WarmUp) -> pd.DataFrame:
    unseen = _never_known(tally.whole)
    rows: list[tuple[Any, ...]] = []
    for i, item in enumerate(tally.items):
        verdict = AHEAD if tally.differences[i] else UNSEEN if unseen[i] or not tally.compared[i] else CLEAN
        near, exact = settled.near.get(item), settled.exact.get(item)
        words = _warm_up_words(item, settled)
        rows.append(
            (*item, tally.compared[i], tally.differences[i], tally.first.get(i, ""), near, exact, words, verdict)
        )
    for item, count in fills.items():
        verdict = UNSEEN if not count.checked else CLEAN
        if count.failed:
            verdict = AHEAD if item in (ENTRIES,) or "decided" in item[1] else IMPOSSIBLE
        first = _minute(count.first) if count.first >= 0 else ""
        rows.append((*item, count.checked, count.failed, first, None, None, "", verdict))
    columns = ["kind", "name", "cuts", "differences", "first_difference"]
    columns += ["warm_up_bars", "warm_up_exact_bars", "warm_up", "verdict"]
    frame = pd.DataFrame(rows, columns=columns)
    numbers = ("cuts", "differences", "warm_up_bars", "warm_up_exact_bars")
    return frame.astype({name: "Int64" if name.startswith("warm") else "int64" for name in numbers})


def _never_known(whole: Output) -> list[bool]:
    return [bool(np.isnan(row).all()) for block in whole.blocks for row in block.values()]


def _warm_up_words(item: Item, settled: WarmUp) -> str:
    if item not in settled.near:
        return "not seen"
    near, exact = settled.near[item], settled.exact[item]
    if near is None:
        return f"not settled within {settled.watched:,} bars"
    if near == exact:
        return f"equal from bar {near:,}"
    then = "never equal" if exact is None else f"equal from bar {exact:,}"
    return f"within {TOLERANCE:g} from bar {near:,}, {then}"


def _items(n: int) -> str:
    return "1 item" if n == 1 else f"{n:,} items"


def _bars(n: int) -> str:
    return "1 bar" if n == 1 else f"{n:,} bars"


def _minute(time: int) -> str:
    return iso(time)[:16].replace("T", " ")
