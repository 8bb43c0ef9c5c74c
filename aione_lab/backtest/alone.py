"""Every alert traded on its own, whatever was recommended: what the alerts are worth, and what the gates kept out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from aione_lab.backtest.result import Result
from aione_lab.engine.columns import scratch
from aione_lab.engine.entries import context_each, trade_each
from aione_lab.engine.event import decode_mask
from aione_lab.engine.params import check_kind, params_record
from aione_lab.engine.records import (
    ASSESSMENT,
    DETAILS,
    EXITS,
    READINGS,
    RECOMMENDATIONS,
    SCENARIOS,
    SIDES,
    STAGE_STATE,
    TRADE,
    TRENDS,
    VOLATILITIES,
)
from aione_lab.errors import InputError

INDEPENDENCE = {0: "WITH_REFERENCE", 1: "INDEPENDENT", -1: "UNKNOWN"}
"""Of ``independent``: correlation at or above ``context_min_correlation``, below it, not known."""


def trade_alone(result: Result, chosen: Any = None) -> pd.DataFrame:
    """The trade that each alert would have made alone: one row an alert that has a stop and a first target.

    Whatever its recommendation, and whether or not a position was open: entry at the next open, exits, costs, funding
    and sizing are the replay's own code, each trade with the whole starting capital. ``chosen`` takes some of the rows
    of ``result.alerts`` only, as booleans (alerts,); those of them without a target are left out all the same.

    Columns: what was decided (``recommendation, detail, confidence, score, side, reading, scenario, trend, volatility,
    independence, correlation, reasons``) and what came of it (``entry_time, exit_time, exit_reason, bars, pnl`` in
    quote currency, ``r_multiple``, ``return`` as a share of the notional; all net of costs). ``exit_reason`` is
    ``open`` where the trade is still open after the last bar and ``not_entered`` where the data end or break right
    after the alert or the capital is less than one lot: pnl, R and return are NaN there. ``r_multiple`` is also NaN
    where the entry opened beyond its stop. A position left open at the end carries no P&L, lest its mark be taken
    for a result. The index holds the alerts' times. Raises InputError for a result or a choice that is none.
    """
    check_kind("result", result, Result)
    alerts = result.assessment_records[_chosen(chosen, len(result.assessment_records))]
    alerts = alerts[np.isfinite(alerts["stop"]) & np.isfinite(alerts["targets"][:, 0])]
    places = np.searchsorted(result.bars["timestamp"], alerts["timestamp"])
    trades = np.zeros(len(alerts), TRADE)
    blank = np.zeros(1, STAGE_STATE)
    blank["cash"] = result.settings.initial_capital
    trade_each(
        blank,
        blank.copy(),
        result.bars,
        *result.inner,
        places.astype(np.int64),
        alerts,
        params_record(result.thresholds, result.interval, result.spec, result.settings, result.costs),
        trades,
    )
    return _frame(result, alerts, trades, places)


def contexts(result: Result) -> pd.DataFrame:
    """Trend, volatility and independence that an alert on each bar would find; "" on bars where none is possible.

    One row a bar. It is the very rule that judges alerts, so the regimes of time and of alerts are the same.
    """
    check_kind("result", result, Result)
    n = len(result.bars)
    rows, block = scratch()
    codes = np.empty((3, n), np.int64)
    params = params_record(result.thresholds, result.interval, result.spec, result.settings, result.costs)
    context_each(result.columns, result.bars, params, rows, block, np.zeros(1, ASSESSMENT), *codes)
    names: tuple[dict[int, str], ...] = (TRENDS, dict(enumerate(VOLATILITIES)), INDEPENDENCE)
    return pd.DataFrame(
        {
            column: _texts(values, {-9: "", **known})
            for column, values, known in zip(("trend", "volatility", "independence"), codes, names, strict=True)
        },
        index=result.index,
    )


def _texts(codes: np.ndarray, names: dict[int, str]) -> Any:
    """Object array of the names of ``codes`` (n,)."""
    found, place = np.unique(codes, return_inverse=True)
    texts = np.array([names[int(code)] for code in found], dtype=object)
    return texts[place] if len(found) else np.array([], dtype=object)


def _frame(result: Result, alerts: np.ndarray, trades: np.ndarray, places: np.ndarray) -> pd.DataFrame:
    entered = trades["quantity"] > 0
    closed = trades["exit_reason"] > 0
    exits = np.array([*EXITS, "open", "not_entered"], dtype=object)
    code = np.where(closed, trades["exit_reason"], np.where(entered, len(EXITS), len(EXITS) + 1))
    masks = result.signal_records["reasons"][places]
    reasons = np.empty(len(masks), dtype=object)
    reasons[:] = [decode_mask(int(mask), result.spec.reasons) for mask in masks]
    columns: dict[str, Any] = {
        "recommendation": _texts(alerts["recommendation"], dict(enumerate(RECOMMENDATIONS))),
        "detail": _texts(alerts["detail"], dict(enumerate(DETAILS))),
        "confidence": alerts["confidence"],
        "score": alerts["score"],
        "side": _texts(alerts["side"], SIDES),
        "reading": _texts(alerts["reading"], dict(enumerate(READINGS))),
        "scenario": _texts(alerts["scenario"], dict(enumerate(SCENARIOS))),
        "trend": _texts(alerts["trend"], TRENDS),
        "volatility": _texts(alerts["volatility"], dict(enumerate(VOLATILITIES))),
        "independence": _texts(alerts["independent"], INDEPENDENCE),
        "correlation": alerts["correlation"],
        "reasons": reasons,
        "entry_time": _times(trades["entry_time"], entered),
        "exit_time": _times(trades["exit_time"], closed),
        "exit_reason": exits[code],
        "bars": trades["bars"],
        "pnl": trades["pnl"],
        "r_multiple": trades["r_multiple"],
        "return": trades["pnl"] / np.where(closed, trades["quantity"] * trades["entry_price"], np.nan),
    }
    return pd.DataFrame(columns, index=result.index[places])


def _chosen(chosen: Any, n: int) -> np.ndarray:
    if chosen is None:
        return np.ones(n, dtype=bool)
    mask = np.asarray(chosen)
    if mask.dtype != bool or mask.shape != (n,):
        raise InputError.of("chosen", chosen, f"must be {n} booleans, one an alert of the result")
    return mask


def _times(times: np.ndarray, known: np.ndarray) -> pd.DatetimeIndex:
    stamps = np.where(known, times.astype("datetime64[ms]"), np.datetime64("NaT", "ms"))
    return pd.DatetimeIndex(stamps).tz_localize("UTC")
