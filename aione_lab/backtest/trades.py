"""Columns of trades and of their fills, from the engine's records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from aione_lab.engine.records import EXITS, SIDES, TARGETS_COUNT


def utc(times: np.ndarray) -> pd.DatetimeIndex:
    """UTC milliseconds as a DatetimeIndex named timestamp."""
    return pd.DatetimeIndex(times.astype("datetime64[ms]"), name="timestamp").tz_localize("UTC")


def named(codes: np.ndarray, names: tuple[str, ...]) -> Any:
    """Codes as a Categorical of their names."""
    return pd.Categorical.from_codes(codes.astype(np.int64), categories=pd.Index(names))


def sides(codes: np.ndarray) -> list[str]:
    """LONG, SHORT or "" of 1, −1 and 0."""
    return [SIDES[int(code)] for code in codes]


def trade_columns(records: np.ndarray) -> dict[str, Any]:
    """Columns of closed trades (TRADE); what they mean stands with ``Result.trades``."""
    return {
        "entry_time": utc(records["entry_time"]),
        "exit_time": utc(records["exit_time"]),
        "side": sides(records["side"]),
        "entry_price": records["entry_price"],
        "exit_price": records["exit_price"],
        "exit_reason": named(records["exit_reason"], EXITS),
        "quantity": records["quantity"],
        "fees": records["fees"],
        "funding": np.where(records["funding_missing"] > 0, np.nan, records["funding"]),
        "pnl": records["pnl"],
        "r_multiple": records["r_multiple"],
        "mae": records["mae"],
        "mfe": records["mfe"],
        "confidence": records["confidence"],
        "stop": records["stop"],
        "target": records["targets"][:, 0],
        "last_stop": records["last_stop"],
        "exits": records["exits"],
        "bars": records["bars"],
        "signal_time": utc(records["signal_time"]),
        "ambiguous": records["ambiguous"].astype(bool),
        "resolved": records["resolved"].astype(bool),
        "pnl_other": records["pnl_other"],
        "funding_known": records["funding_known"],
        "funding_missing": records["funding_missing"],
    }


def fill_columns(trades: np.ndarray, positions: np.ndarray) -> dict[str, Any]:
    """Columns of the fills of closed ``trades`` (TRADE) and of open ``positions`` (POSITION, flat ones left out).

    Trades of one symbol do not overlap, so fills trade by trade are fills in time.
    """
    rows: list[tuple[Any, ...]] = []
    held = positions[positions["side"] != 0]
    for number, trade in enumerate([*trades, *held]):
        side = int(trade["side"])
        quantity = trade["quantity"] if number < len(trades) else trade["entered"]
        rows.append((number, trade["entry_time"], side, quantity, trade["entry_price"], trade["entry_fee"], "entry"))
        for i in range(int(trade["exits"])):
            values = [trade[f"exit_{name}"][i] for name in ("times", "quantities", "prices", "fees", "reasons")]
            rows.append((number, values[0], -side, *values[1:4], EXITS[int(values[4])]))
    names = ("trade", "time", "side", "quantity", "price", "fee", "reason")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {name: () for name in names}
    typed: dict[str, Any] = {name: np.array(columns[name], np.int64) for name in ("trade", "side")}
    typed |= {name: np.array(columns[name], np.float64) for name in ("quantity", "price", "fee")}
    times = utc(np.array(columns["time"], np.int64))
    return {"trade": typed["trade"], "time": times, **typed, "reason": np.array(columns["reason"], dtype=object)}


def next_target(position: Mapping[str, Any] | np.void) -> float:
    """The target of a POSITION (a record, or its fields by name) that is waited for; NaN where none is left."""
    waiting = [i for i in range(int(position["next"]), TARGETS_COUNT) if position["parts"][i] > 0.0]
    return float(position["targets"][waiting[0]]) if waiting else math.nan
