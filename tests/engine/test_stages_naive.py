"""Stage1, Stage2 and the trades of whole runs against their plain twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from engine_runs import ALERT, SMALL, Run, real_bars, run, walk, with_gap
from naive_stages import ref_assess, ref_limits, ref_stage1
from naive_trades import Order, ref_trades

from aione_lab.engine.records import (
    BAR,
    DETAILS,
    EXITS,
    FACTORS,
    FLAGS,
    READINGS,
    REASONS,
    RECOMMENDATIONS,
    SCENARIOS,
    SIGNALS,
    SUPPRESSED,
    TRADE,
    TRENDS,
    VOLATILITIES,
)
from aione_lab.engine.spec import FeatureSpec
from aione_lab.settings import Costs, Settings, Weights
from aione_lab.thresholds import Thresholds

EASY = Thresholds(min_confidence=0.3, atr_target=0.3, min_reasons_for_alert=1)
OPEN = Settings(
    cooldown_period=0, min_volume_usd=0.0, min_atr_percent=0.0, low_liquidity_usd=0.0, watch_confidence=0.2,
    min_risk_reward=0.5, allow_shorts=True,
)  # fmt: skip
CASES = {
    "defaults": ("1m", Thresholds(), Settings(), FeatureSpec(), Costs()),
    "long and short": ("15m", EASY, OPEN, SMALL, Costs(slippage_bps=3.0, maker_fee=0.0002, tick_size=0.01)),
    "target first, lots": (
        "15m",
        Thresholds(min_confidence=0.3, tp_mult=1.0, sl_mult=0.5, dynamic_rsi_multiplier=1.2, low_gate=0.0004),
        OPEN.replace(both_touched="target", max_holding_minutes=120, position_fraction=0.37, min_cluster=2),
        SMALL,
        Costs(lot_size=0.5, tick_size=0.05),
    ),
    "gates": (
        "15m",
        Thresholds(low_gate="0.8x", high_gate="2x", vwap_threshold="3x", vol_z_threshold=1.5, min_confidence=0.3),
        Settings(
            exclude_hours=(0, 5, 13), cooldown_period=3600, min_volume_usd=20_000.0, min_atr_percent=0.012,
            weights=Weights(volume=0.0, orderbook=0.7), context_min_correlation=0.2, market_drift=0.5,
            volatility_high=1.1, volatility_low=0.9, capitulation_volume_z=2.0, momentum_velocity=1.0,
            manipulation_volume_z=3.0, manipulation_body=0.5, low_liquidity_usd=30_000.0, watch_confidence=0.1,
            near_level=0.3, range_burst=2.0,
        ),
        SMALL,
        Costs(fee=0.001),
    ),
}  # fmt: skip


def case(name: str, bars: np.ndarray) -> tuple[Run, Thresholds, Settings, Costs, str]:
    interval, thresholds, settings, spec, costs = CASES[name]
    return run(bars, interval, thresholds, spec, settings, costs), thresholds, settings, costs, interval


def simulated(name: str, seed: int) -> np.ndarray:
    interval = CASES[name][0]
    n = 4500 if interval == "1m" else 2500
    return with_gap(walk(n, interval, seed=seed, volatility=0.0015 if n > 3000 else 0.004), n - 900, 3)


def reasons_of(mask: int) -> list[str]:
    return [name for i, name in enumerate(REASONS) if mask >> i & 1]


def check_stage1(result: Run, thresholds: Thresholds, settings: Settings) -> None:
    rows = result.features.to_dict("records")
    expected = ref_stage1(result.bars["timestamp"].tolist(), rows, thresholds, settings)
    got = [
        (SIGNALS[signal["signal"]], reasons_of(signal["reasons"]), SUPPRESSED[signal["suppressed"]])
        for signal in result.signals
    ]
    assert got == expected
    for name in ("low_gate", "high_gate", "vwap_threshold", "vol_z_threshold"):
        limits = [ref_limits(thresholds, row["atr_7d"])[name] for row in rows]
        np.testing.assert_allclose(result.signals[name], limits, rtol=1e-12, err_msg=name)


def check_stage2(result: Run, thresholds: Thresholds, settings: Settings, costs: Costs) -> None:
    rows = result.features.to_dict("records")
    places = np.flatnonzero(result.signals["signal"] == ALERT)
    assert len(places) == len(result.assessments)
    for place, found in zip(places, result.assessments, strict=True):
        signal = result.signals[place]
        ref = ref_assess(rows[place], reasons_of(signal["reasons"]), thresholds, settings, costs)
        assert found["timestamp"] == result.bars["timestamp"][place]
        names = {
            "side": int(found["side"]),
            "reading": READINGS[found["reading"]],
            "trend": TRENDS[int(found["trend"])],
            "volatility": VOLATILITIES[found["volatility"]],
            "independent": {1: True, 0: False, -1: None}[int(found["independent"])],
            "flags": {flag for i, flag in enumerate(FLAGS) if found["anomalies"] >> i & 1},
            "scenario": SCENARIOS[found["scenario"]],
            "confirmed": int(found["confirmed"]),
            "clustered": bool(found["clustered"]),
            "recommendation": RECOMMENDATIONS[found["recommendation"]],
            "detail": DETAILS[found["detail"]],
        }
        assert names == {name: ref[name] for name in names}, place
        for name in ("strengths", "contributions"):
            # Contributions are rounded to 2⁻⁴⁰.
            close(found[name][: len(FACTORS)], [ref[name][factor] for factor in FACTORS], name, atol=1e-12)
        for name in ("score", "coverage", "confidence"):
            close(found[name], ref[name], name, atol=1e-11)
        for name in ("stop", "risk_reward", "room"):
            close(found[name], ref[name], name)
        targets = [target for target in found["targets"] if not math.isnan(target)]
        close(targets, ref["targets"], "targets")
        close([found["entry_low"], found["entry_high"]], ref["entry"], "entry")
        assert signal["confidence"] == found["confidence"] and signal["side"] == found["side"]
        assert signal["recommendation"] == found["recommendation"]
    quiet = result.signals[result.signals["signal"] != ALERT]
    assert not quiet["confidence"].any() and not quiet["recommendation"].any() and not quiet["side"].any()


def close(got, expected, name: str, rtol: float = 1e-10, atol: float = 0.0) -> None:
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol, err_msg=name)


def check_trades(result: Run, settings: Settings, costs: Costs, interval: str, finer: dict | None = None) -> None:
    """The simulator gets the orders alone: what was decided at which close."""
    place = {int(time): i for i, time in enumerate(result.bars["timestamp"])}
    orders = []
    for found in result.assessments:
        if RECOMMENDATIONS[found["recommendation"]] in ("BUY", "SELL"):
            zone = (found["entry_high"], found["entry_low"])
            near, deep = zone if found["side"] > 0 else zone[::-1]
            orders.append(
                Order(
                    at=place[int(found["timestamp"])],
                    side=int(found["side"]),
                    price=found["price"],
                    atr=found["atr"],
                    stop=found["stop"],
                    targets=tuple(target for target in found["targets"] if not math.isnan(target)),
                    near=near,
                    deep=deep,
                    confidence=found["confidence"],
                )
            )
    expected, equity = ref_trades(result.bars, orders, interval, settings, costs, finer)
    trades = result.trades
    assert len(trades) == len(expected)
    assert [EXITS[code] for code in trades["exit_reason"]] == [ref["exit_reason"] for ref in expected]
    for name in expected[0].keys() - {"exit_reason"} if expected else ():
        close(trades[name], [ref[name] for ref in expected], name, rtol=1e-9, atol=1e-9)
    filled = np.arange(trades["exit_quantities"].shape[1]) < trades["exits"][:, None]
    close(trades["exit_quantities"].sum(axis=1, where=filled), trades["quantity"], "fills")
    close(trades["exit_fees"].sum(axis=1, where=filled) + trades["entry_fee"], trades["fees"], "fees of fills")
    for ref in expected:
        checked = set(ref) | {"exits", "targets"}
        assert checked | {name for name in TRADE.names if name.startswith("exit_")} == set(TRADE.names)
    close(result.signals["equity"], equity, "equity", rtol=1e-11)


def random_rules(rng: np.random.Generator) -> tuple[Settings, Costs]:
    """Settings and costs from all over what Stage3 can do."""

    def sometimes(share: float = 0.5) -> bool:
        return bool(rng.random() < share)

    shares = [(1.0,), (0.5, 0.5), (0.4, 0.3, 0.3), (0.5,), (), (0.3, 0.0, 0.4), (0.25, 0.25, 0.25)]
    leverage = float(rng.choice([1.0, 3.0, 20.0, 60.0]))
    settings = OPEN.replace(
        allow_shorts=sometimes(0.7),
        both_touched="stop" if sometimes() else "target",
        max_holding_minutes=int(rng.integers(20, 3000)),
        entry="limit" if sometimes() else "open",
        entry_depth=float(rng.random()),
        entry_valid_bars=int(rng.integers(1, 12)),
        target_shares=shares[rng.integers(len(shares))],
        break_even=float(rng.choice([0.0, 0.5, 1.0, 2.0])),
        trailing_stop=float(rng.choice([0.0, 0.5, 1.5, 4.0])),
        exit_on_opposite=sometimes(),
        sizing="risk" if sometimes() else "fraction",
        risk_fraction=float(rng.uniform(0.005, 0.05)),
        position_fraction=float(rng.uniform(0.1, 1.0)),
        leverage=leverage,
        maintenance_margin=float(rng.uniform(0.0, 0.8 / leverage)),
    )
    costs = Costs(
        fee=float(rng.uniform(0, 0.001)),
        maker_fee=None if sometimes() else 0.0001,
        slippage_bps=float(rng.choice([0.0, 2.0, 10.0])),
        lot_size=float(rng.choice([0.0, 0.5, 7.0])),
        tick_size=float(rng.choice([0.0, 0.01, 0.05])),
    )
    return settings, costs


def random_sets(rng: np.random.Generator) -> Thresholds:
    return Thresholds(
        low_gate=f"{rng.uniform(0.2, 1.2):.3f}x", high_gate=f"{rng.uniform(1.5, 8):.3f}x",
        vol_z_threshold=rng.uniform(0.5, 4), vwap_threshold=f"{rng.uniform(1, 10):.3f}x",
        atr_target=rng.uniform(0.3, 1.5), rsi_oversold=rng.uniform(15, 45), rsi_overbought=rng.uniform(55, 85),
        dynamic_rsi_multiplier=None if rng.random() < 0.5 else rng.uniform(1.05, 1.5),
        min_reasons_for_alert=int(rng.integers(1, 4)), min_confidence=rng.uniform(0.3, 0.9),
        tp_mult=rng.uniform(0.5, 6), sl_mult=rng.uniform(0.3, 3),
    )  # fmt: skip


def halves(bars: np.ndarray, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Three finer bars inside most bars of 15 minutes, whose prices make up the whole one's."""
    chosen = bars[rng.random(len(bars)) < 0.8]
    parts = np.zeros((len(chosen), 3), BAR)
    extremes = [rng.permutation([bar["high"], bar["low"]]) for bar in chosen]
    levels = np.column_stack([chosen["open"], np.reshape(extremes, (-1, 2)), chosen["close"]])
    parts["timestamp"] = chosen["timestamp"][:, None] + np.arange(3) * 300_000
    parts["open"], parts["close"] = levels[:, :-1], levels[:, 1:]
    parts["high"], parts["low"] = np.maximum(parts["open"], parts["close"]), np.minimum(parts["open"], parts["close"])
    return dict(zip(chosen["timestamp"].tolist(), parts, strict=True))


def check_random_sets(seeds: range, n: int = 1400) -> np.ndarray:
    """Trades of random thresholds, settings and costs, all of them equal to the simulator's."""
    trades = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        bars = with_gap(walk(n, "15m", seed=seed % 8, volatility=0.004), n - 300, 2)
        settings, costs = random_rules(rng)
        finer = halves(bars, rng) if seed % 2 else None
        result = run(bars, "15m", random_sets(rng), SMALL, settings, costs, finer)
        check_trades(result, settings, costs, "15m", finer)
        trades.append(result.trades)
    return np.concatenate(trades)


def test_two_hundred_random_sets():
    """Every way in and out of a trade, against the simulator; and together they really occur."""
    trades = check_random_sets(range(200))
    assert set(trades["exit_reason"]) == set(range(1, len(EXITS)))
    assert set(trades["exits"]) >= {1, 2, 3} and set(trades["side"]) == {1, -1}
    assert trades["ambiguous"].sum() > 20 and trades["resolved"].sum() > 20 and len(trades) > 2000


@pytest.mark.long
def test_thousands_of_random_sets():
    assert len(check_random_sets(range(1000, 4000))) > 30_000


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", CASES)
def test_stages_on_walks(name, seed):
    result, thresholds, settings, costs, interval = case(name, simulated(name, seed))
    check_stage1(result, thresholds, settings)
    check_stage2(result, thresholds, settings, costs)
    check_trades(result, settings, costs, interval)
    assert result.assessments.size > 0


def test_the_walks_show_everything():
    """Together the walks reach every reason, suppression, scenario, flag, recommendation and exit."""
    runs = [case(name, simulated(name, seed))[0] for name in CASES for seed in (1, 2)]
    signals = np.concatenate([r.signals for r in runs])
    found = np.concatenate([r.assessments for r in runs])
    trades = np.concatenate([r.trades for r in runs])
    for i, name in enumerate(REASONS):
        assert (signals["reasons"] >> i & 1).any(), name
    assert set(signals["suppressed"]) == set(range(len(SUPPRESSED)))
    assert set(found["scenario"]) == set(range(len(SCENARIOS)))
    for i, name in enumerate(FLAGS):
        assert (found["anomalies"] >> i & 1).any(), name
    assert set(found["recommendation"]) == set(range(1, len(RECOMMENDATIONS)))
    assert {EXITS[code] for code in trades["exit_reason"]} == {"stop", "target", "time_out", "gap"}
    assert set(found["reading"]) == {0, 1} and set(trades["side"]) == {1, -1}
    assert trades["ambiguous"].any() and trades["funding_known"].any() and trades["funding_missing"].any()


@pytest.mark.parametrize("symbol", ["ENAUSDT", "BTCUSDT"])
def test_stages_on_real_candles(shared, symbol):
    interval, thresholds, settings, spec, costs = CASES["defaults"]
    bars = real_bars(shared, symbol, n=6000)
    result = run(bars, "1m", thresholds, spec, settings, costs)
    check_stage1(result, thresholds, settings)
    check_stage2(result, thresholds, settings, costs)
    check_trades(result, settings, costs, interval)


@pytest.mark.long
@pytest.mark.parametrize("symbol", ["BTCUSDT", "SOLUSDT", "XRPUSDT", "XMRUSDT"])
def test_random_threshold_sets_on_real_candles(shared, symbol):
    """50 random sets a symbol: the simulator agrees trade for trade."""
    rng = np.random.default_rng(7)
    bars = real_bars(shared, symbol, n=12_000)
    total = 0
    for _ in range(50):
        thresholds = random_sets(rng)
        settings = Settings(
            allow_shorts=bool(rng.random() < 0.5), both_touched="stop" if rng.random() < 0.5 else "target",
            min_risk_reward=rng.uniform(0.1, 2), max_holding_minutes=int(rng.integers(2, 400)),
        )  # fmt: skip
        costs = Costs(slippage_bps=rng.uniform(0, 5), maker_fee=0.0002, lot_size=rng.choice([0.0, 0.01]))
        result = run(bars, "1m", thresholds, settings=settings, costs=costs)
        check_trades(result, settings, costs, "1m")
        total += result.trades.size
    assert total > 200
