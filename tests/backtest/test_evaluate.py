"""The fast path gives replay's trades, byte for byte, whatever the thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aione_lab.backtest.evaluate import Prepared
from aione_lab.backtest.replay import replay
from aione_lab.errors import InputError
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds import Thresholds
from tests.backtest.conftest import load_real, real_files


def random_thresholds(count: int, seed: int) -> list[Thresholds]:
    """Sets from all over the search space, fixed, multiple and adaptive fields mixed."""
    random = np.random.default_rng(seed)

    def maybe(value: object) -> object:
        return value if random.random() < 0.5 else None

    return [
        Thresholds(
            low_gate=maybe(f"{random.uniform(0.2, 1.2):.3f}x"),
            high_gate=maybe(f"{random.uniform(1.5, 8):.2f}x"),
            vol_z_threshold=maybe(float(random.uniform(0.5, 4))),
            vwap_threshold=maybe(f"{random.uniform(1, 10):.2f}x") or maybe(float(random.uniform(1e-4, 1e-2))),
            atr_target=float(random.uniform(0.3, 1.5)),
            rsi_oversold=float(random.uniform(15, 45)),
            rsi_overbought=float(random.uniform(55, 85)),
            dynamic_rsi_multiplier=maybe(float(random.uniform(1.05, 1.5))),
            min_reasons_for_alert=int(random.integers(1, 5)),
            min_confidence=float(random.uniform(0.3, 0.9)),
            tp_mult=float(random.uniform(0.5, 6)),
            sl_mult=float(random.uniform(0.3, 3)),
        )
        for _ in range(count)
    ]


def check(keywords: dict, sets: list[Thresholds], settings: Settings, costs: Costs) -> int:
    inputs = {name: keywords.get(name) for name in ("interval", "reference", "funding", "spec")}
    whole = replay(**keywords, settings=settings, costs=costs)
    prepared = Prepared(keywords["candles"], **inputs, settings=settings, costs=costs, features=whole.features)
    trades = 0
    curves = prepared.evaluate(sets, equity=True)
    for thresholds, fast, curve in zip(sets, prepared.evaluate(sets), curves, strict=True):
        slow = replay(**keywords, thresholds=thresholds, settings=settings, costs=costs, features=whole.features)
        assert fast.trade_records.tobytes() == slow.trade_records.tobytes(), thresholds
        assert fast.n_alerts == slow.metrics["n_alerts"], thresholds
        for name, value in fast.metrics.items():
            np.testing.assert_equal(value, slow.metrics[name], err_msg=f"{name} {thresholds}")
        assert fast.equity is None and curve.equity.tobytes() == slow.equity.to_numpy().tobytes(), thresholds
        assert curve.daily_equity.tobytes() == fast.daily_equity.tobytes()
        np.testing.assert_equal(dict(curve.metrics), dict(fast.metrics))
        trades += len(fast.trade_records)
    return trades


SETTINGS = Settings(allow_shorts=True, min_risk_reward=1.0, max_holding_minutes=90, exclude_hours=(3, 17))
COSTS = Costs(fee=0.0004, maker_fee=0.0001, slippage_bps=0.5, lot_size=0.01)


def test_simulated_candles(simulated, simulated_funding) -> None:
    keywords = {"candles": simulated["LINKUSDT"], "reference": simulated["BTCUSDT"], "funding": simulated_funding}
    assert check(keywords, [Thresholds(), *random_thresholds(40, seed=1)], SETTINGS, COSTS) > 500


def test_gaps_and_an_open_end(simulated) -> None:
    candles = simulated["1000PEPEUSDT"]
    candles = candles.drop(candles.index[[3000, 7000, 7001, 12000]])
    settings = Settings(max_holding_minutes=3000, min_stop=8.0, min_risk_reward=0.0, cooldown_period=0)
    sets = [thresholds.replace(tp_mult=20.0) for thresholds in random_thresholds(15, seed=2)]
    assert check({"candles": candles}, sets, settings, COSTS) > 20


def test_limits_that_float32_cannot_tell_from_zero(simulated) -> None:
    """On a price that stands still the deviation is 0, which reaches no limit above it, and the ATR nearly so."""
    candles = simulated["LINKUSDT"][:4000].copy()
    candles.loc[candles.index[1500:], ["open", "high", "low", "close"]] = 10.0
    settings = Settings(min_atr_percent=0.0, min_volume_usd=0.0, cooldown_period=0)
    tiny = {"vwap_threshold": 1e-50, "min_reasons_for_alert": 1, "rsi_oversold": 1.0, "rsi_overbought": 99.0}
    sets = [Thresholds(**tiny), Thresholds(**{**tiny, "vwap_threshold": "0.0000000000000001x"})]
    sets += [Thresholds(low_gate=1e-50, min_reasons_for_alert=1), Thresholds(low_gate=1e-300, high_gate=1e-200)]
    whole = replay(candles, settings=settings)
    prepared = Prepared(candles, settings=settings, features=whole.features)
    assert (whole.features["vwap_dev"][-100:] == 0.0).sum() > 20 and (whole.features["atr_pct"][-100:] < 1e-50).all()
    found = []
    for thresholds, fast in zip(sets, prepared.evaluate(sets), strict=True):
        slow = replay(candles, thresholds, settings=settings, features=whole.features)
        assert fast.n_alerts == slow.metrics["n_alerts"], thresholds
        assert fast.trade_records.tobytes() == slow.trade_records.tobytes()
        found.append(fast.n_alerts)
    assert max(found) > 0


@pytest.mark.parametrize("part", range(9))
def test_real_candles(shared: Path, part: int) -> None:
    path = real_files(shared)[part]
    settings = SETTINGS if part % 2 else Settings()
    assert check(load_real(path), random_thresholds(12, seed=10 + part), settings, COSTS) > 0


@pytest.mark.long
def test_thousands_of_sets_on_real_candles(shared: Path) -> None:
    for i, path in enumerate(real_files(shared)):
        check(load_real(path), random_thresholds(300, seed=1000 + i), SETTINGS if i % 2 else Settings(), COSTS)


def test_one_set_is_not_a_sequence(simulated) -> None:
    prepared = Prepared(simulated["SOLUSDT"].iloc[:3000])
    with pytest.raises(InputError, match="sequence"):
        prepared.evaluate(Thresholds())
    assert prepared.evaluate([]) == []
