"""A short pass of the engine that gets warm, alerts and trades: the same in and out of a process with the JIT off."""

from __future__ import annotations

import sys

import numpy as np
from engine_runs import SMALL, run, walk, with_gap

from aione_lab.engine.records import FEATURE_NAMES
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds import Thresholds


def short_pass() -> dict[str, np.ndarray]:
    """Columns, signals, assessments and trades as bytes, by name."""
    result = run(
        with_gap(walk(760, "15m", seed=11, volatility=0.004), 700, 2),
        "15m",
        Thresholds(min_confidence=0.3, atr_target=0.3, min_reasons_for_alert=1),
        SMALL,
        Settings(
            cooldown_period=0, min_volume_usd=0.0, min_atr_percent=0.0, low_liquidity_usd=0.0, watch_confidence=0.2,
            min_risk_reward=0.5, allow_shorts=True,
        ),
        Costs(slippage_bps=2.0, tick_size=0.01),
    )  # fmt: skip
    columns = {f"feature {name}": result.features[name].to_numpy() for name in FEATURE_NAMES}
    records = {"signals": result.signals, "assessments": result.assessments, "trades": result.trades}
    for kind, rows in records.items():
        columns |= {f"{kind} {name}": np.ascontiguousarray(rows[name]) for name in rows.dtype.names}
    return columns


if __name__ == "__main__":  # python short_pass.py OUT.npz
    np.savez(sys.argv[1], **short_pass())
