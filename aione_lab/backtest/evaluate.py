"""`Prepared` and `evaluate`: many threshold sets over one symbol's features, trades and metrics out.

The engine's fast path (``engine/pruned.py``): the same trades as ``replay``, byte for byte, in a few
milliseconds a set for a symbol-year. It gives no signals; replay does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.backtest.metrics import daily_returns, sharpe_ratio, trade_metrics
from aione_lab.backtest.prepare import infer_interval, inner_of, prepare_bars
from aione_lab.backtest.readonly import ReadOnly
from aione_lab.backtest.replay import compute_features, stored_columns
from aione_lab.engine import pruned
from aione_lab.engine.columns import scratch
from aione_lab.engine.params import check_kind, limits_record, params_record
from aione_lab.engine.records import ASSESSMENT, FEATURES, PARAMS, SIGNAL, STAGE_STATE, TRADE
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS

_BATCH = 32  # sets in one kernel call: enough to share the cache, few enough to keep memory flat


@dataclass(frozen=True)
class Evaluation:
    """The trades of one threshold set (TRADE records) and the metrics that follow from them."""

    thresholds: Thresholds
    trade_records: np.ndarray
    n_alerts: int
    max_drawdown: float
    days: np.ndarray  # UTC days of the data, since 1970-01-01
    daily_equity: np.ndarray  # at the last bar of each of these days; the last one is final
    capital: float
    both_touched: str
    equity: np.ndarray | None = None  # at the close of every bar, as in ``Result.equity``; where it was asked for

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """The metrics of ``Result.metrics`` that need no bar-by-bar signals."""
        return ReadOnly(
            {
                "n_alerts": self.n_alerts,
                **trade_metrics(self.trade_records, self.both_touched),
                "max_drawdown": self.max_drawdown,
                "sharpe": sharpe_ratio(daily_returns(self.daily_equity, self.capital)),
            }
        )


class Prepared:
    """One symbol's bars and features, made ready for any number of threshold sets.

    Depends on candles, spec, settings and costs, and on no threshold. About 250 bytes a bar.
    """

    def __init__(
        self,
        candles: pd.DataFrame,
        *,
        interval: str | None = None,
        reference: pd.DataFrame | pd.Series | None = None,
        funding: pd.DataFrame | pd.Series | None = None,
        spec: FeatureSpec | None = None,
        settings: Settings | None = None,
        costs: Costs | None = None,
        features: pd.DataFrame | None = None,
        finer: pd.DataFrame | None = None,
    ) -> None:
        self.interval = infer_interval(candles) if interval is None else interval
        self.spec = FeatureSpec() if spec is None else spec
        self.settings = Settings() if settings is None else settings
        self.costs = Costs() if costs is None else costs
        check_kind("spec", self.spec, FeatureSpec)
        self.bars = prepare_bars(candles, self.interval, reference, funding)
        self._inner = inner_of(finer, self.interval, self.bars)
        if features is None:
            features = compute_features(
                candles, interval=self.interval, reference=reference, funding=funding, spec=self.spec
            )
        columns = stored_columns(features, self.bars, self.spec)
        n = len(self.bars)
        self._packed = np.zeros(n, np.uint16)
        first = len(self.spec.feature_names) - len(self.spec.triggers)
        self._own = columns[first:].copy()  # what own triggers saw; nothing of the rest stays
        self._screen = np.zeros((7 + len(self._own), n), np.float32)
        self._prepared = np.zeros(n, pruned.PREPARED)
        params = params_record(Thresholds(), self.interval, self.spec, self.settings, self.costs)
        self._shared = params[0].copy()  # but for the limits the same for all sets
        params["limits"]["high_gate"] = math.inf
        rows, block = scratch()
        one = np.zeros(1, SIGNAL), np.zeros(1, ASSESSMENT), np.zeros(1, pruned.PROGRESS)
        pruned.prepare(columns, self.bars, params, rows, block, *one, self._packed, self._screen, self._prepared)
        self._times = np.ascontiguousarray(self.bars["timestamp"])
        days = self._times // DAY_MS
        self._days = np.unique(days)

    def evaluate(self, sets: Sequence[Thresholds], *, equity: bool = False) -> list[Evaluation]:
        """One Evaluation a set, in order; with ``equity`` also the equity bar by bar, eight bytes a bar and set.

        Raises InputError where an element is no Thresholds.
        """
        if not isinstance(sets, Sequence):
            raise InputError.of("sets", sets, "must be a sequence of Thresholds")
        out: list[Evaluation] = []
        for first in range(0, len(sets), _BATCH):
            out += self._batch(sets[first : first + _BATCH], equity)
        return out

    def _batch(self, sets: Sequence[Thresholds], by_bar: bool) -> list[Evaluation]:
        k, n = len(sets), len(self.bars)
        params = np.zeros(k, PARAMS)
        params[:] = self._shared
        for i, thresholds in enumerate(sets):
            params["limits"][i] = limits_record(thresholds, self.spec)[0]
        rules = self._shared["rules"]
        apart = max(1, -(-int(rules["cooldown_ms"]) // int(rules["step_ms"])))
        # np.zeros maps lazily: only pages that trades reach take memory.
        room = k * (n // apart + 2)
        trades, owners = np.zeros(room, TRADE), np.zeros(room, np.int32)
        stages, progress = np.zeros(k, STAGE_STATE), np.zeros(k, pruned.PROGRESS)
        stages["cash"] = self.settings.initial_capital
        period = int(rules["step_ms"]) if by_bar else DAY_MS
        wanted = self._times // period if by_bar else self._days
        after = wanted - wanted[0]
        closes = np.full((k, int(after[-1]) + 1), np.nan)
        rows = np.zeros(1, FEATURES)
        rows.view(np.float64)[:] = np.nan
        signals, found = np.zeros(1, SIGNAL), np.zeros(1, ASSESSMENT)
        used = pruned.run_sets(
            self.bars,
            *self._inner,
            self._times,
            self._packed,
            self._screen,
            self._own,
            self._prepared,
            params,
            rows,
            signals,
            found,
            stages,
            progress,
            trades,
            owners,
            period,
            closes,
            np.zeros((2, pruned.SLICE), np.float32),
            np.zeros(pruned.SLICE, np.uint16),
            np.zeros(pruned.SLICE, np.uint8),
            np.zeros(pruned.SLICE + 1, np.int32),
        )
        own = _by_owner(trades[:used], owners[:used], k)
        curves = [_carried_on(one, self.settings.initial_capital)[after] for one in closes]
        ends = np.append(np.flatnonzero(np.diff(self._times // DAY_MS)), n - 1) if by_bar else slice(None)
        return [
            Evaluation(
                thresholds=thresholds,
                trade_records=own[i],
                n_alerts=int(progress["alerts"][i]),
                max_drawdown=float(progress["drawdown"][i]),
                days=self._days,
                daily_equity=curves[i][ends],
                capital=self.settings.initial_capital,
                both_touched=self.settings.both_touched,
                equity=curves[i] if by_bar else None,
            )
            for i, thresholds in enumerate(sets)
        ]


def _by_owner(trades: np.ndarray, owners: np.ndarray, k: int) -> list[np.ndarray]:
    """The trades of each of ``k`` sets, copied out in one pass, as blank bytes: by their fields it takes five times."""
    order = np.argsort(owners, kind="stable")
    ends = np.searchsorted(owners[order], np.arange(k + 1))
    blank = trades.view(f"V{TRADE.itemsize}")
    return [blank.take(order[first:last]).view(TRADE) for first, last in itertools.pairwise(ends)]


def _carried_on(closes: np.ndarray, capital: float) -> np.ndarray:
    """Equity with the periods that saw no position carrying the last value on."""
    seen = np.isfinite(closes)
    last = np.maximum.accumulate(np.where(seen, np.arange(len(closes)), -1))
    return np.where(last >= 0, closes[last], capital)
