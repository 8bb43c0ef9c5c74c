"""vectorbt's own simulator on our entries: the same exits, but for rules that are named one by one.

vectorbt is imported once, by the first comparison; that takes some ten seconds, and following a moving stop compiles
its simulator anew.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aione_lab import Costs, Settings, Thresholds, replay
from aione_lab.backtest import Result
from aione_lab.backtest.vectorbt_exits import DIFFERENCES, compare_exits
from aione_lab.engine.records import EXITS
from aione_lab.errors import InputError
from aione_lab.lake.resample import resample
from aione_lab.lake.simulated import SimulatedExchange
from tests.backtest.conftest import load_real, real_files

DAYS = 12
BUSY = Thresholds(min_reasons_for_alert=1, min_confidence=0.45, tp_mult=3.0, sl_mult=1.5)
COSTS = Costs(fee=0.0005, maker_fee=0.0002, slippage_bps=2.0, lot_size=0.1, tick_size=0.0001)
FREE = Settings(allow_shorts=True, min_risk_reward=0.5)
WIDE = BUSY.replace(tp_mult=6.0)
TIGHT = BUSY.replace(tp_mult=0.5, sl_mult=0.3, atr_target=0.0)
CASES = {
    "one stop, one target": (BUSY, FREE.replace(max_holding_minutes=15)),
    "ladder": (BUSY, FREE.replace(target_shares=(0.5, 0.3), max_holding_minutes=20, exit_on_opposite=True)),
    "target first": (TIGHT, FREE.replace(both_touched="target", target_shares=(0.4, 0.0, 0.6), min_risk_reward=0.0)),
    "leverage": (
        WIDE,
        FREE.replace(
            leverage=100.0, maintenance_margin=0.004, position_fraction=0.05, min_stop=4.0, min_risk_reward=0.0
        ),
    ),
    "moving stop": (
        WIDE,
        FREE.replace(
            min_stop=3.0, break_even=0.5, trailing_stop=0.7, target_shares=(0.4, 0.3, 0.3), min_risk_reward=0.0
        ),
    ),
    "limit entry, moving stop": (
        WIDE,
        FREE.replace(
            entry="limit", entry_depth=0.05, min_stop=2.0, trailing_stop=2.0, target_shares=(0.5,), min_risk_reward=0.0
        ),
    ),
}


@pytest.fixture(scope="module")
def market() -> dict[str, Any]:
    exchange = SimulatedExchange(seed=3)
    return {
        "candles": exchange.candles("SUIUSDT", days=DAYS),
        "funding": exchange.funding("SUIUSDT", days=DAYS),
        "reference": exchange.candles("BTCUSDT", days=DAYS),
    }


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, market: dict[str, Any]) -> tuple[str, Result, pd.DataFrame]:
    thresholds, settings = CASES[request.param]
    result = replay(**market, thresholds=thresholds, symbol="SUIUSDT", settings=settings, costs=COSTS)
    return request.param, result, compare_exits(result)


def counts(table: pd.DataFrame) -> dict[str, int]:
    return {str(name): int(n) for name, n in table["difference"].value_counts().items() if n}


def test_every_difference_has_its_rule(case: tuple[str, Result, pd.DataFrame]) -> None:
    name, result, table = case
    found = counts(table)
    print(name, found)
    assert "unexplained" not in found
    assert found["same"] > 100 and found["entry bar"] > 5
    expected = {
        "one stop, one target": {"leaves at the open"},
        "ladder": {"leaves at the open"},
        "target first": {"target first"},
        "leverage": {"liquidation"},
        "moving stop": {"trailing from the entry bar"},
        "limit entry, moving stop": set(),
    }[name]
    assert expected <= set(found)
    same = table[table["difference"] == "same"]
    assert (same["exit_time"] == same["vectorbt_time"]).all()
    np.testing.assert_allclose(same["exit_price"], same["vectorbt_price"], rtol=1e-12)
    assert set(same["side"]) == {"LONG", "SHORT"}
    assert {"target", "trailing" if "moving" in name else "stop"} <= set(same["exit_reason"])
    assert ("opposite" in set(same["exit_reason"])) or name != "ladder"
    assert ("time_out" in set(same["exit_reason"])) or name != "one stop, one target"


def test_the_rules_are_what_they_say(case: tuple[str, Result, pd.DataFrame]) -> None:
    """Of each difference the evidence: on which bar it is, and who left it first."""
    _, result, table = case
    by = {name: table[table["difference"] == name] for name in DIFFERENCES}
    assert (by["entry bar"]["exit_time"] == by["entry bar"]["entry_time"]).all()
    assert not (by["entry bar"]["vectorbt_time"] <= by["entry bar"]["entry_time"]).any()
    bars = pd.DataFrame(result.bars, index=result.index)
    left = by["leaves at the open"]
    np.testing.assert_allclose(left["exit_price"], bars["open"].reindex(left["exit_time"]), rtol=1e-12)
    first = by["target first"]
    assert (first["exit_time"] == first["vectorbt_time"]).all() and set(first["exit_reason"]) <= {"target"}
    assert set(by["liquidation"]["exit_reason"]) <= {"liquidation"}


def test_parts_are_the_fills(case: tuple[str, Result, pd.DataFrame]) -> None:
    """Every fill of ours is the exit of at least one part, and parts of a trade come in the order of their fills."""
    _, result, table = case
    assert table["trade"].nunique() == len(result.trade_records)
    for number, rows in table.groupby("trade"):
        trade = result.trade_records[number]
        fills = {(int(t), EXITS[r]) for t, r in zip(trade["exit_times"], trade["exit_reasons"], strict=True) if t}
        ours = zip(rows["exit_time"].astype("datetime64[ms, UTC]").astype("int64"), rows["exit_reason"], strict=True)
        assert set(ours) == fills
        assert rows["exit_time"].is_monotonic_increasing and len(rows) >= trade["exits"]


def test_gaps_and_finer_candles(market: dict[str, Any]) -> None:
    candles = market["candles"]
    wide = FREE.replace(min_stop=6.0, min_risk_reward=0.0)
    whole = replay(candles, WIDE, settings=wide, costs=COSTS)
    long = whole.trades[whole.trades["bars"] > 5]
    gone = long["entry_time"].iloc[len(long) // 2] + pd.Timedelta(minutes=2)
    broken = replay(candles.drop(gone), WIDE, settings=wide, costs=COSTS)
    found = compare_exits(broken)
    assert counts(found)["gap"] == 1 and "unexplained" not in counts(found)
    left = found[found["difference"] == "gap"].iloc[0]
    assert left["exit_reason"] == "gap" and pd.isna(left["vectorbt_time"]) and np.isnan(left["vectorbt_price"])
    settings = FREE.replace(min_risk_reward=0.0, target_shares=(0.5, 0.5))
    finer = replay(resample(candles, "1m", "5m"), TIGHT, settings=settings, costs=COSTS, finer=candles)
    found = counts(compare_exits(finer))
    assert found["target first"] > 0 and "unexplained" not in found


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("exit_prices", lambda values: values * (1 + 1e-7)),
        ("exit_times", lambda values: np.where(values > 0, values + 60_000, values)),
        ("stop", lambda values: values * (1 - 2e-3)),
        ("side", lambda values: -values),
    ],
)
def test_a_wrong_trade_is_not_explained_away(market: dict[str, Any], field: str, change: Any) -> None:
    """Broken records of trades that agreed: nearly every one of them is called unexplained."""
    result = replay(**market, thresholds=BUSY, settings=FREE, costs=COSTS)
    table = compare_exits(result)
    agreed = table.loc[table["difference"] == "same"].drop_duplicates("trade")["trade"]
    records = result.trade_records[agreed].copy()
    records = records[np.isin(records["exit_reason"], [EXITS.index("stop"), EXITS.index("target")])]
    if field == "stop":
        records = records[records["exit_reason"] == EXITS.index("stop")]
        records["stop"] = np.where(records["side"] > 0, records["stop"] * (1 - 2e-3), records["stop"] * (1 + 2e-3))
    else:
        records[field] = change(records[field])
    broken = compare_exits(dataclasses.replace(result, trade_records=records))
    assert len(broken) > 30
    assert counts(broken).get("unexplained", 0) > 0.8 * len(broken)


def test_no_trade_and_no_result(market: dict[str, Any]) -> None:
    empty = compare_exits(replay(market["candles"], Thresholds(min_confidence=1.0)))
    assert not len(empty) and "difference" in empty
    with pytest.raises(InputError, match="^result="):
        compare_exits(None)  # type: ignore[arg-type]


@pytest.mark.long
def test_every_real_file(shared: Path) -> None:
    total: dict[str, int] = {}
    for path in real_files(shared):
        for thresholds, settings in CASES.values():
            found = compare_exits(replay(**load_real(path), thresholds=thresholds, settings=settings, costs=COSTS))
            assert "unexplained" not in counts(found), (path, found[found["difference"] == "unexplained"])
            for name, n in counts(found).items():
                total[name] = total.get(name, 0) + n
    print(total)
    assert total["same"] > 0.6 * sum(total.values())
