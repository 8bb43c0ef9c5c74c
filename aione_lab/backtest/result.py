"""`Result`: what a replay gives, as frames on access over the engine's numeric records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aione_lab.backtest.metrics import compute_metrics
from aione_lab.backtest.readonly import ReadOnly
from aione_lab.backtest.trades import fill_columns, named, next_target, sides, trade_columns, utc
from aione_lab.engine.event import decode_mask
from aione_lab.engine.params import params_record
from aione_lab.engine.records import (
    ASSESSMENT,
    DETAILS,
    FEATURE_NAMES,
    FLAGS,
    READINGS,
    RECOMMENDATIONS,
    SCENARIOS,
    SIDES,
    SIGNALS,
    SUPPRESSED,
    TRENDS,
    VOLATILITIES,
)
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import INTERVALS, iso, to_ms

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import vectorbt as vbt

    from aione_lab.backtest.explain import Explanation


@dataclass(frozen=True)
class Result:
    """Features, signals, alerts, trades and metrics of one replay.

    Frames are built when first asked for. The records behind them (``bars, columns, signal_records,
    assessment_records, trade_records``) are the engine's own bytes: what ``Engine.push`` gives bar by bar.
    """

    symbol: str
    interval: str
    schedule: tuple[tuple[int, Thresholds], ...]
    spec: FeatureSpec
    settings: Settings
    costs: Costs
    bars: np.ndarray
    inner: tuple[np.ndarray, np.ndarray]
    columns: np.ndarray
    signal_records: np.ndarray
    assessment_records: np.ndarray
    trade_records: np.ndarray
    stage_record: np.ndarray
    fingerprint: str

    @property
    def thresholds(self) -> Thresholds:
        """The thresholds in force on the last bar."""
        return self.schedule[-1][1]

    @cached_property
    def index(self) -> pd.DatetimeIndex:
        """Open times of the bars."""
        return utc(self.bars["timestamp"])

    @cached_property
    def candles(self) -> pd.DataFrame:
        """The candles that were replayed: open, high, low, close, volume."""
        names = ["open", "high", "low", "close", "volume"]
        return pd.DataFrame({name: self.bars[name] for name in names}, index=self.index)

    @cached_property
    def features(self) -> pd.DataFrame:
        """One row a bar, one float64 column a feature (documented in ``engine/records.py``)."""
        return features_frame(self.columns, self.bars["timestamp"], self.spec)

    @cached_property
    def signals(self) -> pd.DataFrame:
        """One row a bar: signal, trigger_reasons (tuple of str), suppressed, confidence, recommendation, …"""
        records = self.signal_records
        masks, place = np.unique(records["reasons"], return_inverse=True)
        reasons = np.empty(len(masks), dtype=object)
        reasons[:] = [decode_mask(int(mask), self.spec.reasons) for mask in masks]
        columns: dict[str, Any] = {
            "signal": named(records["signal"], SIGNALS),
            "trigger_reasons": reasons[place],
            "suppressed": named(records["suppressed"], SUPPRESSED),
            "confidence": records["confidence"],
            "recommendation": named(records["recommendation"], RECOMMENDATIONS),
            "side": sides(records["side"]),
            "position": records["position"].astype(np.int64),
        }
        for name in ("low_gate", "high_gate", "vwap_threshold", "vol_z_threshold", "equity"):
            columns[name] = records[name]
        return pd.DataFrame(columns, index=self.index)

    @cached_property
    def alerts(self) -> pd.DataFrame:
        """One row an ALERT: what Stage2 found, with the strength and contribution of every factor."""
        records = self.assessment_records
        decoded = {
            "trend": [TRENDS[int(code)] for code in records["trend"]],
            "volatility": [VOLATILITIES[int(code)] for code in records["volatility"]],
            "scenario": [SCENARIOS[int(code)] for code in records["scenario"]],
            "reading": [READINGS[int(code)] for code in records["reading"]],
            "side": sides(records["side"]),
            "recommendation": [RECOMMENDATIONS[int(code)] for code in records["recommendation"]],
            "detail": [DETAILS[int(code)] for code in records["detail"]],
            "anomalies": [tuple(f for i, f in enumerate(FLAGS) if bits >> i & 1) for bits in records["anomalies"]],
        }
        skipped = {"timestamp", "strengths", "contributions", "targets", *decoded}
        plain = {name: records[name] for name in ASSESSMENT.names or () if name not in skipped}
        frame = pd.DataFrame({**decoded, **plain}, index=utc(records["timestamp"]))
        for i in range(3):
            frame[f"target_{i + 1}"] = records["targets"][:, i]
        for kind in ("strengths", "contributions"):
            for i, factor in enumerate(self.spec.factor_names):
                frame[f"{factor}_{kind[:-1]}"] = records[kind][:, i]
        return frame

    @cached_property
    def trades(self) -> pd.DataFrame:
        """One row a closed trade, net of costs.

        ``pnl, fees, funding`` are quote currency; ``mae, mfe`` shares of the entry price; ``funding`` is NaN
        where a stamp the trade crossed is not known (``pnl`` then holds what is known). ``pnl_other`` of an
        ``ambiguous`` trade is its P&L had the other of stop and target filled first. A trade still open at
        the end is not here but in ``open_trade``. Times are the opens of the bars concerned; one closed by a
        ``gap`` went at the last close before it. ``r_multiple`` is NaN where the entry opened beyond its stop.
        A ladder's partial closes are one trade here: ``exit_price`` is their mean by quantity, time and reason are
        those of the last one; ``fills`` has each. ``resolved``: finer bars told which of stop and target came first.
        """
        return pd.DataFrame(trade_columns(self.trade_records))

    @cached_property
    def fills(self) -> pd.DataFrame:
        """Every fill in the order it happened: entries and exits of closed trades and of the open one.

        ``trade`` is the row in ``trades`` (for the open one: their number), ``side`` 1 for a buy and −1 for a sell.
        """
        return pd.DataFrame(fill_columns(self.trade_records, self.stage_record["position"]))

    @cached_property
    def open_trade(self) -> dict[str, Any] | None:
        """The position still held after the last bar, marked at its close; None where there is none."""
        position = self.stage_record["position"][0]
        if not position["side"]:
            return None
        side, close = int(position["side"]), float(self.bars["close"][-1])
        return {
            "entry_time": pd.Timestamp(int(position["entry_time"]), unit="ms", tz="UTC"),
            "side": SIDES[side],
            "entry_price": float(position["entry_price"]),
            "quantity": float(position["quantity"]),
            "stop": float(position["stop"]),
            "target": next_target(position),
            "realised": float(position["gross"] - position["fees"] + position["funding"]),
            "unrealised": side * float(position["quantity"]) * (close - float(position["entry_price"])),
        }

    @cached_property
    def equity(self) -> pd.Series:
        """Cash and open position at every close, quote currency, costs so far included."""
        return pd.Series(self.signal_records["equity"], index=self.index, name="equity")

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """Numbers of the whole replay, net of costs; ``backtest/metrics.py`` defines each."""
        return ReadOnly(compute_metrics(self))

    def rates(self) -> pd.DataFrame:
        """Per warm day: how often each reason held, and in how many alerts it took part."""
        records = self.signal_records
        warm = self.columns[FEATURE_NAMES.index("warm")] == 1.0
        days = float(warm.sum() * INTERVALS[self.interval] / INTERVALS["1d"]) or np.nan
        alert = records["signal"] == SIGNALS.index("ALERT")
        rows = {
            name: ((held := records["reasons"] >> i & 1 == 1).sum() / days, (held & alert).sum() / days)
            for i, name in enumerate(self.spec.reasons)
        }
        return pd.DataFrame(rows, index=["bars_per_day", "alerts_per_day"]).T.rename_axis("reason")

    def explain(self, timestamp: Any) -> Explanation:
        """Why the bar that opened at ``timestamp`` got its signal: triggers, factors, risk, narrative."""
        from aione_lab.backtest.decode import features_at
        from aione_lab.backtest.explain import explain

        time = to_ms(timestamp, "timestamp")
        at = int(np.searchsorted(self.bars["timestamp"], time))
        if at == len(self.bars) or self.bars["timestamp"][at] != time:
            first, last = iso(int(self.bars["timestamp"][0])), iso(int(self.bars["timestamp"][-1]))
            raise InputError.of("timestamp", timestamp, f"must be the open of a replayed bar, {first} to {last}")
        row = features_at(self.columns, at)
        limits = next(limits for start, limits in reversed(self.schedule) if start <= time)
        params = params_record(limits, self.interval, self.spec, self.settings, self.costs)
        found = self.assessment_records[self.assessment_records["timestamp"] == time]
        trade = self.trade_records[self.trade_records["signal_time"] == time]
        return explain(
            self.symbol,
            row,
            self.signal_records[at],
            found[0] if len(found) else None,
            params[0],
            trade[0] if len(trade) else None,
            "" if len(trade) else self._no_trade(at),
            self.spec,
        )

    def _no_trade(self, at: int) -> str:
        """Why the BUY or SELL of the bar at ``at`` has no closed trade; "" where the bar has neither."""
        record, times = self.signal_records[at], self.bars["timestamp"]
        if RECOMMENDATIONS[int(record["recommendation"])] not in ("BUY", "SELL"):
            return ""
        if record["position"]:
            return f"not traded: a {SIDES[int(record['position'])]} position was open"
        if at + 1 == len(times):
            return "not traded yet: the order fills at the open of the next bar"
        if times[at + 1] - times[at] != INTERVALS[self.interval]:
            return "not traded: the bars after it are missing"
        position = self.stage_record["position"][0]
        if position["side"] and position["signal_time"] == times[at]:
            return "the trade is still open after the last bar"
        if self.settings.entry == "limit":
            waiting = self.stage_record["order"][0]
            if waiting["side"] and waiting["signal_time"] == times[at]:
                return "not traded yet: the limit order is still waiting"
            return (
                "not traded: the limit order lapsed or was replaced by a later one, or the equity was less than one lot"
            )
        return "not traded: the equity was less than one lot"

    def plot(self, start: Any = None, end: Any = None) -> go.Figure:
        """Price with triggers and trades, volume, RSI and equity, as a Plotly figure."""
        from aione_lab.figures import result_chart

        return result_chart(self, start, end)

    def to_vectorbt(self) -> vbt.Portfolio:
        """The trades as a vectorbt ``Portfolio`` built from order records; funding is not in it."""
        from aione_lab.backtest.vectorbt_bridge import to_vectorbt

        return to_vectorbt(self)

    def __repr__(self) -> str:
        m = self.metrics
        return (
            f"Result({self.symbol or 'candles'} {self.interval}, {len(self.bars)} bars, {m['n_alerts']} alerts, "
            f"{m['n_trades']} trades, net {m['net_pnl']:+.2f})"
        )


def features_frame(columns: np.ndarray, times: np.ndarray, spec: FeatureSpec) -> pd.DataFrame:
    """Feature columns (F, n) as a read-only DataFrame on a UTC index; it remembers the spec they came from."""
    view = columns.T.view()
    view.flags.writeable = False
    frame = pd.DataFrame(view, index=utc(times), columns=list(spec.feature_names), copy=False)
    frame.attrs["spec"] = spec.digest()
    return frame
