"""`Markets`: the symbols of a study, measured together or one by one, in the memory of a few of them.

A symbol-quarter made ready for the engine takes some thirty megabytes. What does not fit into ``KEPT`` lies on disk
while a study over many symbols runs, and is read back a batch of sets at a time.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from aione_lab.backtest.baseline import random_entries
from aione_lab.backtest.evaluate import Prepared
from aione_lab.backtest.prepare import frame_ms
from aione_lab.backtest.replay import compute_features, replay
from aione_lab.backtest.result import Result
from aione_lab.calibration.experiment import Experiment
from aione_lab.calibration.folds import Folds
from aione_lab.calibration.objective import DayTables, round_trip
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.store import Lake, fingerprint_candles
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS

REFERENCE = "BTCUSDT"
KEPT = 4  # symbols in memory
N_RANDOM = 200


@dataclass(frozen=True)
class Market:
    """Candles of one symbol with their reference, funding, spec, settings and costs, and the features of all."""

    symbol: str
    interval: str
    candles: pd.DataFrame
    reference: pd.DataFrame | None
    funding: pd.Series
    spec: FeatureSpec
    settings: Settings
    costs: Costs
    features: pd.DataFrame

    @classmethod
    def load(
        cls, lake: Lake, symbol: str, experiment: Experiment, spec: FeatureSpec, *, hidden: bool = False
    ) -> Market:
        """Read the visible days, with ``hidden`` all; what lies behind is not even opened."""
        made, start = experiment, experiment.start
        end = made.end if hidden else made.hidden_from
        candles = lake.candles(symbol, made.interval, start, end)
        if len(candles) < 2:
            raise InputError.of(
                "start", start, f"the lake {lake.root} holds no {made.interval} candles of {symbol} there"
            )
        other = None
        if made.reference not in (None, symbol):
            other = lake.candles(made.reference, made.interval, start, end)
        funding = lake.funding(symbol, start, end)
        features = compute_features(candles, interval=made.interval, reference=other, funding=funding, spec=spec)
        return cls(symbol, made.interval, candles, other, funding, spec, made.settings, made.costs, features)

    def fingerprint(self) -> str:
        """Sha256 of candles, reference and funding: what an experiment keeps in ``data``."""
        parts = [fingerprint_candles(self.candles)]
        if self.reference is not None:
            parts.append(fingerprint_candles(self.reference))
        stamps = np.ascontiguousarray(frame_ms(self.funding)).tobytes()
        parts.append(hashlib.sha256(stamps + np.ascontiguousarray(self.funding.to_numpy()).tobytes()).hexdigest())
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def prepare(self) -> Prepared:
        """Made ready for any number of sets."""
        return Prepared(
            self.candles,
            interval=self.interval,
            reference=self.reference,
            funding=self.funding,
            spec=self.spec,
            settings=self.settings,
            costs=self.costs,
            features=self.features,
        )

    def replay_days(self, thresholds: Thresholds, first_day: int, last_day: int) -> Result | None:
        """A replay that begins flat on ``first_day`` and ends with ``last_day``, its features warm from before.

        Days since 1970; None where they hold no two candles.
        """
        a, b = np.searchsorted(frame_ms(self.candles), [first_day * DAY_MS, (last_day + 1) * DAY_MS])
        if b - a < 2:
            return None
        features = self.features.iloc[a:b]
        features.attrs = self.features.attrs
        return replay(
            self.candles.iloc[a:b],
            thresholds,
            symbol=self.symbol,
            interval=self.interval,
            reference=self.reference,
            funding=self.funding,
            spec=self.spec,
            settings=self.settings,
            costs=self.costs,
            features=features,
        )

    def random_entries(self, sets: Sequence[Thresholds], folds: Folds, seed: int) -> RandomEntries:
        """What the sets, one a fold, earned on their fold's test days, and what as many random entries did.

        Group by group, and the same set on the same group once: where several folds test a group, its draws count as
        often as what was earned there. Drawn anew for each fold they would average out, and luck would look like skill.
        """
        found: dict[tuple[str, int], RandomEntries] = {}
        total = NO_ENTRIES
        begin = int(folds.groups[folds.test.any(axis=0)][0])
        for thresholds, test in zip(sets, folds.test, strict=True):
            for group in np.unique(folds.groups[test]).tolist():
                key = (thresholds.digest(), group)
                if key not in found:
                    days = folds.first_day + np.flatnonzero(folds.groups == group)
                    found[key] = self._random_entries(thresholds, days, seed + group - begin)
                total += found[key]
        return total

    def _random_entries(self, thresholds: Thresholds, days: np.ndarray, seed: int) -> RandomEntries:
        """The same of one set on consecutive ``days``."""
        result = self.replay_days(thresholds, int(days[0]), int(days[-1]))
        if result is None or not len(result.trade_records):
            return NO_ENTRIES
        baseline = random_entries(result, N_RANDOM, seed)
        if not baseline.n_entries:
            return NO_ENTRIES
        n = baseline.n_entries
        return RandomEntries(baseline.observed_return * n, np.nan_to_num(baseline.returns) * n, n)


@dataclass(frozen=True)
class RandomEntries:
    """Net returns on the notional of the sets' trades and of each draw of random entries, summed over folds.

    A draw's mean counts as often as there are entries: one that closed fewer trades gains nothing by that.
    """

    observed: float
    drawn: np.ndarray
    n_entries: int

    def __add__(self, other: RandomEntries) -> RandomEntries:
        return RandomEntries(self.observed + other.observed, self.drawn + other.drawn, self.n_entries + other.n_entries)

    @property
    def p_value(self) -> float:
        """(1 + draws at least as good) ÷ (1 + draws); NaN without an entry."""
        if not self.n_entries:
            return float("nan")
        return (1 + int((self.drawn >= self.observed).sum())) / (1 + len(self.drawn))


NO_ENTRIES = RandomEntries(0.0, np.zeros(N_RANDOM), 0)


class Markets:
    """The experiment's symbols. A context: what was put on disk goes with it."""

    def __init__(self, experiment: Experiment, lake: Lake, spec: FeatureSpec, folds: Folds) -> None:
        self._experiment = experiment
        self._lake = lake
        self._spec = spec
        self._folds = folds
        self._shelf = tempfile.TemporaryDirectory(prefix="aione-lab-")
        self._kept: dict[str, Prepared] = {}
        self.by_symbol: dict[str, DayTables] = {}
        self.fingerprints: dict[str, str] = {}
        for symbol in experiment.symbols:
            market = self.market(symbol)
            prepared = market.prepare()
            self.fingerprints[symbol] = market.fingerprint()
            if len(self._kept) < KEPT:
                self._kept[symbol] = prepared
            else:
                (Path(self._shelf.name) / symbol).write_bytes(pickle.dumps(prepared, protocol=5))
            self.by_symbol[symbol] = self._tables(prepared, [])

    def __enter__(self) -> Markets:
        return self

    def __exit__(self, *_: object) -> None:
        self._shelf.cleanup()

    def market(self, symbol: str) -> Market:
        """The visible days of one symbol, read anew."""
        return Market.load(self._lake, symbol, self._experiment, self._spec)

    def measure(self, sets: Sequence[Thresholds]) -> DayTables:
        """Day tables of all symbols together, their capital shared equally; those of each go to ``by_symbol``."""
        together = []
        for symbol, prepared in self._each():
            tables = self._tables(prepared, sets)
            self.by_symbol[symbol] = self.by_symbol[symbol].joined(tables)
            together.append(tables)
        return pooled(together)

    def measure_apart(self, sets: Mapping[str, Thresholds]) -> dict[str, DayTables]:
        """Day tables of one set a symbol, without keeping them."""
        return {symbol: self._tables(prepared, [sets[symbol]]) for symbol, prepared in self._each()}

    def _each(self) -> Iterator[tuple[str, Prepared]]:
        for symbol in self._experiment.symbols:
            if symbol in self._kept:
                yield symbol, self._kept[symbol]
            else:
                yield symbol, pickle.loads((Path(self._shelf.name) / symbol).read_bytes())

    def _tables(self, prepared: Prepared, sets: Sequence[Thresholds]) -> DayTables:
        cost = round_trip(prepared.settings, prepared.costs)
        return DayTables.of(prepared.evaluate(sets), self._folds.first_day, self._folds.n_days, cost)


def pooled(tables: Sequence[DayTables]) -> DayTables:
    """Symbols together: trades add up, returns are those of a capital shared equally."""
    if len(tables) == 1:
        return tables[0]
    n = len(tables)
    return DayTables(
        trades=np.sum([one.trades for one in tables], axis=0),
        wins=np.sum([one.wins for one in tables], axis=0),
        gains=np.sum([one.gains for one in tables], axis=0),
        losses=np.sum([one.losses for one in tables], axis=0),
        returns=np.sum([one.returns for one in tables], axis=0) / n,
        cost=tables[0].cost,
    )
