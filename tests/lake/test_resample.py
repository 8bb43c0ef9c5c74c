"""Longer candles out of shorter ones."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lake_workers import START, candles

from aione_lab.errors import InputError
from aione_lab.lake import Lake, resample
from aione_lab.lake.resample import decimal_sums

MINUTE = 60_000


def test_the_shared_minutes_add_up_to_the_shared_five_minutes(shared: Path, tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for symbol in ("BTCUSDT", "SOLUSDT"):
        lake.append(symbol, "1m", pd.read_parquet(shared / "candles" / "1m" / f"{symbol}.parquet"))
        wanted = pd.read_parquet(shared / "candles" / "5m" / f"{symbol}.parquet").set_index("timestamp")
        lake.resample(symbol, "1m", "5m")
        got = lake.candles(symbol, "5m", start=wanted.index[0])
        pd.testing.assert_frame_equal(got[list(wanted.columns)], wanted, check_exact=True)


def by_hand(frame: pd.DataFrame, factor: int, long: int) -> list[tuple[float, ...]]:
    groups: dict[int, list[tuple[float, ...]]] = {}
    for ms, row in zip(frame.index.asi8, frame.to_numpy(), strict=True):
        groups.setdefault(ms // long * long, []).append(tuple(row))
    out = []
    for rows in groups.values():
        if len(rows) == factor:
            sums = [float(sum(Decimal(repr(float(row[c]))) for row in rows)) for c in range(4, 8)]
            out.append((rows[0][0], max(r[1] for r in rows), min(r[2] for r in rows), rows[-1][3], *sums))
    return out


@pytest.mark.parametrize(
    ("source", "target", "step", "factor"), [("1m", "5m", 1, 5), ("1m", "1h", 1, 60), ("5m", "15m", 5, 3)]
)
def test_only_complete_candles_and_the_sums_of_decimals(source: str, target: str, step: int, factor: int) -> None:
    rng = np.random.default_rng(3)
    stamps = START + MINUTE * step * np.arange(-37, 700)
    stamps = stamps[np.sort(rng.choice(len(stamps), 730, replace=False))]
    frame = candles(stamps, optional=True)
    frame["volume"] = np.round(rng.lognormal(3, 2, len(frame)), 3)
    frame["quote_volume"] = np.round(frame["volume"] * frame["close"], 5)
    frame["taker_buy_volume"] = np.round(frame["volume"] * 0.3, 3)
    got = resample(frame, source, target)
    wanted = by_hand(frame, factor, factor * step * MINUTE)
    assert 0 < len(wanted) < len(stamps) / factor
    assert [tuple(row) for row in got.to_numpy()] == wanted
    assert (got.index.asi8 % (factor * step * MINUTE) == 0).all()


def test_sums_fall_back_to_doubles_and_unknown_stays_unknown() -> None:
    thirds = np.array([[1 / 3, 1 / 7, 1 / 11], [0.1, 0.2, 0.3], [0.1, np.nan, 0.3], [1e15, 0.1, 0.2]])
    got = decimal_sums(thirds)
    assert got[0] == 1 / 3 + 1 / 7 + 1 / 11 and got[1] == 0.6 and np.isnan(got[2]) and got[3] == 1e15 + 0.1 + 0.2
    frame = candles(START + MINUTE * np.arange(10))
    assert resample(frame, "1m", "5m")[["trades", "quote_volume", "taker_buy_volume"]].isna().all().all()
    assert resample(frame.iloc[1:5], "1m", "5m").empty


@pytest.mark.parametrize(("source", "target"), [("5m", "1m"), ("1m", "1m"), ("2h", "3m"), ("3m", "5m"), ("8h", "12h")])
def test_a_target_must_be_a_longer_multiple(source: str, target: str) -> None:
    with pytest.raises(InputError, match=f"^target='{target}': must be a whole multiple of source={source}"):
        resample(candles(START + MINUTE * np.arange(10)), source, target)
