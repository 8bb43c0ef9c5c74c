"""No look-ahead: a bar's outcome does not change when the future is cut off or poisoned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aione_lab.backtest.replay import replay
from aione_lab.backtest.result import Result
from aione_lab.research.futures import FUTURES, changed
from aione_lab.settings import Settings
from aione_lab.thresholds import Thresholds
from tests.backtest.conftest import load_real, random_cuts, real_files

BUSY = Thresholds(min_reasons_for_alert=1, min_confidence=0.45)
SETTINGS = Settings(
    allow_shorts=True, entry="limit", entry_depth=0.1, target_shares=(0.4, 0.3), break_even=1.0, trailing_stop=2.0,
    exit_on_opposite=True, min_risk_reward=0.5,
)  # fmt: skip


def assert_past_unchanged(whole: Result, other: Result, cut: int) -> None:
    assert whole.columns[:, :cut].tobytes() == other.columns[:, :cut].tobytes()
    assert whole.signal_records[:cut].tobytes() == other.signal_records[:cut].tobytes()
    end = whole.bars["timestamp"][cut - 1]
    for name, key in (("assessment_records", "timestamp"), ("trade_records", "exit_time")):
        one, two = getattr(whole, name), getattr(other, name)
        assert one[one[key] <= end].tobytes() == two[two[key] <= end].tobytes(), name


def check_cuts(keywords: dict, cuts: np.ndarray) -> None:
    candles, reference = keywords["candles"], keywords.get("reference")
    run = {**keywords, "thresholds": BUSY, "settings": SETTINGS}
    whole = replay(**run)
    for i, cut in enumerate(cuts):
        change = list(FUTURES.values())[i % len(FUTURES)]
        poisoned = dict(run, candles=changed(candles, cut, change))
        if reference is not None and change is not None:  # a reference that goes on must not be looked at either
            at = int(np.searchsorted(reference.index, candles.index[cut]))
            poisoned["reference"] = changed(reference, at, change)
        assert_past_unchanged(whole, replay(**poisoned), cut)


def real(path: Path, days: int | None) -> dict:
    keywords = load_real(path)
    for name in ("candles", "reference"):
        if keywords[name] is not None:
            frame = keywords[name].set_index("timestamp")
            keywords[name] = frame if days is None else frame[: frame.index[0] + pd.Timedelta(days=days)]
    return keywords


def test_simulated_candles(simulated) -> None:
    keywords = {"candles": simulated["LINKUSDT"].iloc[:6000], "reference": simulated["BTCUSDT"].iloc[:6000]}
    check_cuts(keywords, random_cuts(6000, 1, 60, seed=0))


def test_real_candles(shared: Path) -> None:
    for i, path in enumerate(real_files(shared)):
        keywords = real(path, days=5)
        check_cuts(keywords, random_cuts(len(keywords["candles"]), 1, 16, seed=i))


@pytest.mark.long
def test_real_candles_at_a_thousand_cuts_each(shared: Path) -> None:
    for i, path in enumerate(real_files(shared)):
        keywords = real(path, days=None)
        check_cuts(keywords, random_cuts(len(keywords["candles"]), 1, 1000, seed=100 + i))


def test_the_check_catches_a_peek(simulated) -> None:
    """The comparison itself must be able to fail: a centred window is told from the clean features."""
    candles = simulated["LINKUSDT"].iloc[:4000].drop(columns="taker_buy_volume")
    peeking = candles.assign(volume=candles["volume"].rolling(5, center=True, min_periods=1).mean())
    whole = replay(peeking, BUSY)
    cut = 3000
    past = candles.iloc[:cut]
    other = replay(past.assign(volume=past["volume"].rolling(5, center=True, min_periods=1).mean()), BUSY)
    with pytest.raises(AssertionError):
        assert_past_unchanged(whole, other, cut)
