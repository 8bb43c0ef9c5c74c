"""What must come out the same wherever it runs: one sha256 a computation, as JSON (``python -m`` this module)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np

from aione_lab import Costs, Settings, Thresholds, replay, replay_portfolio
from aione_lab.backtest import Evaluation, Prepared, Result, random_entries
from aione_lab.lake.simulated import SimulatedExchange

DAYS = 4
SETTINGS = Settings(
    allow_shorts=True, entry="limit", target_shares=(0.5, 0.3), break_even=1.0, trailing_stop=2.0,
    exit_on_opposite=True, leverage=5.0, sizing="risk", min_risk_reward=0.5,
)  # fmt: skip
COSTS = Costs(fee=0.0005, maker_fee=0.0002, slippage_bps=1.0, tick_size=0.001, lot_size=0.01)
BUSY = Thresholds(min_reasons_for_alert=1, min_confidence=0.45)


def random_sets(count: int) -> list[Thresholds]:
    """Threshold sets from all over, more than one batch of them."""
    random = np.random.default_rng(0)
    return [
        Thresholds(
            vol_z_threshold=float(random.uniform(0.5, 4)),
            min_reasons_for_alert=int(random.integers(1, 3)),
            min_confidence=float(random.uniform(0.3, 0.8)),
            tp_mult=float(random.uniform(0.5, 6)),
            sl_mult=float(random.uniform(0.3, 3)),
        )
        for _ in range(count)
    ]


def market() -> dict:
    exchange = SimulatedExchange(seed=11)
    return {
        "candles": exchange.candles("LINKUSDT", days=DAYS),
        "reference": exchange.candles("BTCUSDT", days=DAYS),
        "funding": exchange.funding("LINKUSDT", days=DAYS),
    }


def sha(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def of_replay(result: Result) -> str:
    """Features, signals, scores, trades, the state that is left, and the metrics as they are printed."""
    arrays = (result.columns, result.signal_records, result.assessment_records, result.trade_records)
    metrics = json.dumps(dict(result.metrics), default=str)
    return sha([*(array.tobytes() for array in arrays), result.stage_record.tobytes(), metrics.encode()])


def of_sets(found: list[Evaluation]) -> str:
    """Trades, daily equity and metrics of every set."""
    parts = []
    for one in found:
        parts += [one.trade_records.tobytes(), one.daily_equity.tobytes()]
        parts.append(json.dumps(dict(one.metrics), default=str).encode())
    return sha(parts)


def digests() -> dict[str, str]:
    """One sha256 of a replay, of a batch of threshold sets, of random entries and of a portfolio."""
    inputs = market()
    common = {"reference": inputs["reference"], "settings": SETTINGS, "costs": COSTS}
    result = replay(**inputs, thresholds=BUSY, settings=SETTINGS, costs=COSTS)
    assert len(result.trade_records) > 10
    drawn = random_entries(result, n_draws=20, seed=3)
    whole = replay_portfolio({"LINKUSDT": inputs["candles"], "BTCUSDT": inputs["reference"]}, thresholds=BUSY, **common)
    return {
        "replay": of_replay(result),
        "sets": of_sets(Prepared(**inputs, settings=SETTINGS, costs=COSTS).evaluate(random_sets(40))),
        "random entries": sha([drawn.net_pnl.tobytes(), drawn.expectancy.tobytes()]),
        "portfolio": sha([whole.equity.to_numpy().tobytes(), whole.trades.to_csv().encode()]),
    }


if __name__ == "__main__":
    print(json.dumps(digests()))
