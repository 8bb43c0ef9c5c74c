"""What an audit finds, and what it calls it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lake_workers import START, candles

from aione_lab.errors import InputError, LakeError
from aione_lab.lake import Lake
from aione_lab.lake.audit import Witness, Witnesses, audit_frame, audit_lake, funding_faults

MINUTE = 60_000
NOW = START + 10_000 * MINUTE


def history(n: int = 600) -> pd.DataFrame:
    return candles(START + MINUTE * np.arange(n))


def as_table(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.reset_index(drop=True).assign(timestamp=frame.index.asi8)


def kinds(frame: pd.DataFrame) -> dict[str, int]:
    return {fault.kind: fault.rows for fault in audit_frame(frame, "1m", now_ms=NOW).faults}


def test_a_clean_history_is_called_clean() -> None:
    report = audit_frame(history(), "1m", symbol="BTCUSDT", now_ms=NOW)
    assert report.verdict == "clean" and report.sentence == "All 600 candles are there and sound."
    assert (report.rows, report.bars_expected, report.bars_missing) == (600, 600, 0)
    assert str(report).startswith("BTCUSDT 1m: clean\n")
    assert json.loads(json.dumps(report.to_dict()))["first"] == "2025-01-01T00:00:00+00:00"


def test_gaps_are_listed_with_their_ends() -> None:
    report = audit_frame(history().drop(history().index[np.r_[10:13, 100, 599]]), "1m", now_ms=NOW)
    assert [(gap.kind, gap.start[11:16], gap.end[11:16], gap.bars) for gap in report.gaps] == [
        ("missing", "00:10", "00:13", 3),
        ("missing", "01:40", "01:41", 1),
    ]
    assert report.verdict == "usable with gaps" and report.bars_missing == 4
    assert "4 candles missing in 2 gaps (longest 3)" in report.sentence
    sparse = audit_frame(history().iloc[::3], "1m", now_ms=NOW)
    assert sparse.verdict == "broken" and "more than are there" in sparse.sentence


def test_every_fault_of_rows_is_named_and_counted() -> None:
    table = as_table(history())
    table.loc[5, "high"] = 1.0
    table.loc[6:7, "close"] = np.nan
    table.loc[9, "volume"] = -1.0
    assert kinds(table) == {
        "impossible bar: close must be finite and above zero": 2,
        "impossible bar: volume must be finite and not negative": 1,
        "impossible bar: high must not be below open or close": 1,
    }
    first = audit_frame(table, "1m", now_ms=NOW).faults[0]
    assert first.first == "2025-01-01T00:06:00+00:00"
    assert kinds(as_table(history()).iloc[[0, 2, 1, 3]]) == {"rows out of order": 1}
    twice = pd.concat([as_table(history()), as_table(history()).iloc[[5, 6]]]).sort_values("timestamp")
    assert kinds(twice) == {"duplicate rows, equal": 2}
    twice.iloc[6, twice.columns.get_loc("close")] += 0.1
    assert kinds(twice) == {"duplicate rows, equal": 1, "duplicate rows with other values (revised, or two markets)": 1}
    report = audit_frame(history(), "1m", now_ms=START + 599 * MINUTE + 1)
    assert [(fault.kind, fault.rows) for fault in report.faults] == [("candle not finished", 1)]
    assert report.verdict == "broken"


def test_stamps_in_other_units_are_recognised() -> None:
    stamps = history().index.asi8
    off = stamps.copy()
    off[4] += 1
    assert kinds(as_table(history()).assign(timestamp=off)) == {"stamps off the grid": 1}
    assert kinds(as_table(history()).assign(timestamp=stamps * 1000)) == {
        "stamps finer than ms (micro- or nanoseconds)": 600
    }
    assert kinds(as_table(history()).assign(timestamp=stamps % 2**32)) == {"stamps cut to 32 bits": 600}
    assert kinds(as_table(history()).assign(timestamp=stamps // 1000)) == {
        "stamps that are no time between 2009 and 2100": 600
    }
    nothing = audit_frame(as_table(history()).assign(timestamp=stamps // 1000), "1m", now_ms=NOW)
    assert nothing.verdict == "broken" and nothing.sentence == "No candle with a usable time is there."
    fraction = history().set_axis(history().index.as_unit("us") + pd.Timedelta(1, "us"))
    assert kinds(fraction) == {"stamps off the grid": 600}
    with pytest.raises(InputError, match="naive"):
        audit_frame(history().tz_localize(None), "1m")


def test_flat_stretches_are_told_apart_by_their_volume() -> None:
    frame = history()
    frame.iloc[100:130, :4] = frame.iloc[99]["close"]
    frame.iloc[100:130, 4] = 0.0
    frame.iloc[200:212, :4] = 77.0
    frame.iloc[200:212, 4] = 5.0
    frame.iloc[300:309, :5] = [50.0, 50.0, 50.0, 50.0, 0.0]  # too short to matter
    report = audit_frame(frame, "1m", now_ms=NOW)
    assert [(s.kind, s.start[11:16], s.end[11:16], s.bars) for s in report.flat] == [
        ("no trade", "01:40", "02:10", 30),
        ("frozen", "03:20", "03:32", 12),
    ]
    assert report.verdict == "usable with gaps"
    assert "30 candles without trades" in report.sentence and "12 candles frozen" in report.sentence


@pytest.mark.parametrize(
    ("volumes", "kind"),
    [((0.0, 3.0), "frozen"), ((0.0,) * 9 + (3.0,), "frozen"), ((3.0, 5.0), "frozen"), ((0.0,), "no trade")],
)
def test_one_constant_price_is_reported_whatever_the_volume_does(volumes: tuple[float, ...], kind: str) -> None:
    frame = history()
    frame.iloc[100:220, :4] = 77.0
    frame.iloc[100:220, 4] = np.resize(volumes, 120)
    report = audit_frame(frame, "1m", now_ms=NOW)
    assert [(s.kind, s.start[11:16], s.bars) for s in report.flat] == [(kind, "01:40", 120)]
    assert report.verdict == "usable with gaps"


def test_what_most_symbols_miss_is_maintenance(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    frame = history()
    common, own = frame.index[300:330], frame.index[50:55]
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"):
        longer = frame.index[290:340] if symbol == "ETHUSDT" else common[:28]  # not to the minute the same
        lake.append(symbol, "1m", frame.drop(longer))
    lake.append("SOLUSDT", "1m", frame)  # one symbol has them all the same
    lake.append("NEWUSDT", "1m", frame.iloc[400:])  # not yet listed then: no witness
    lake.append("ADAUSDT", "1m", frame.drop(common).drop(own))
    report = lake.audit("ADAUSDT", "1m")
    assert [(gap.kind, gap.bars) for gap in report.gaps] == [("missing", 5), ("maintenance", 30)]
    assert "maintenance" in report.sentence and report.verdict == "usable with gaps"
    alone = Lake(tmp_path / "alone")
    alone.append("ADAUSDT", "1m", frame.drop(common))
    alone.append("ETHUSDT", "1m", frame.drop(common))
    for written in ("ADAUSDT", "adausdt", "ADA/USDT:USDT"):  # one witness is no exchange, and nobody is one's own
        told = alone.audit(written, "1m")
        assert (told.symbol, [gap.kind for gap in told.gaps]) == ("ADAUSDT", ["missing"])
    with pytest.raises(LakeError, match="DOGEUSDT 1m: not in the lake"):
        lake.audit("DOGEUSDT", "1m")


def test_revised_rows_are_counted(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("BTCUSDT", "1m", history())
    lake.append("BTCUSDT", "1m", candles(START + MINUTE * np.arange(590, 610), version=1))
    report = lake.audit("BTCUSDT", "1m")
    assert report.rows_revised == 10 and report.verdict == "clean"
    assert "10 rows were revised by a later write" in str(report)


def test_a_damaged_neighbour_is_noted_and_does_not_stop_the_audit(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("BTCUSDT", "1m", history().drop(history().index[5:9]))
    lake.append("ETHUSDT", "1m", history())
    (file,) = (Path(file) for file in lake.files("ETHUSDT", "1m"))
    file.write_bytes(file.read_bytes()[:-9])
    report = lake.audit("BTCUSDT", "1m")
    assert report.bars_missing == 4 and report.verdict == "usable with gaps"
    assert len(report.notes) == 1 and file.name in report.notes[0]


def test_shared_witnesses_say_the_same_and_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(tmp_path)
    rng = np.random.default_rng(5)
    common = np.r_[40:80, 300:303]
    names = [f"A{n}USDT" for n in range(6)]
    for name in names:
        own = rng.integers(0, 600, 60)
        lake.append(name, "1m", history().drop(history().index[np.union1d(own, common[rng.random(43) < 0.95])]))
    alone = [lake.audit(name, "1m") for name in names]
    assert {gap.kind for report in alone for gap in report.gaps} == {"missing", "maintenance"}
    arrays, read = Lake.arrays, []
    monkeypatch.setattr(Lake, "arrays", lambda self, *args, **named: read.append(args) or arrays(self, *args, **named))
    witnesses = Witnesses(lake, "1m")
    assert [audit_lake(lake, name, "1m", witnesses=witnesses) for name in names] == alone
    assert len(read) == 2 * len(names)  # each for its own audit, and once as a witness


@pytest.mark.parametrize("kept", [[], [0], [2, 3, 4, 9], list(range(20)), [0, 19]])
def test_a_witness_counts_its_candles(kept: list[int]) -> None:
    stamps = START + MINUTE * np.array(kept, dtype=np.int64)
    witness = Witness.of((START, START + 19 * MINUTE), stamps, MINUTE)
    starts, ends = (START + MINUTE * side.ravel() for side in np.meshgrid(np.arange(-2, 25), np.arange(-2, 25)))
    expected = np.searchsorted(stamps, ends) - np.searchsorted(stamps, starts)
    assert witness.candles(starts, ends).tolist() == expected.tolist()


def test_damaged_funding_is_named_with_and_without_candles(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("BTCUSDT", "1m", history())
    for symbol in ("BTCUSDT", "ETHUSDT"):
        lake.append_funding(symbol, pd.Series([1e-4], index=history().index[:1]))
    assert funding_faults(lake) == {}
    (file,) = (tmp_path / "funding" / "symbol=ETHUSDT").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    assert list(funding_faults(lake)) == ["ETHUSDT"] and file.name in funding_faults(lake)["ETHUSDT"]
    assert funding_faults(lake, ["BTCUSDT"]) == {}


def test_the_dirty_real_files(shared: Path) -> None:
    for name, rows, gaps, missing in (("UNITTEST_BTC", 13_681, 538, 717), ("XRP_ETH", 2_469, 676, 1_091)):
        report = audit_frame(pd.read_parquet(shared / "candles" / "dirty" / f"{name}-1m.parquet"), "1m")
        assert (report.rows, len(report.gaps), report.bars_missing, report.verdict) == (
            rows,
            gaps,
            missing,
            "usable with gaps",
        )
        assert "smaller" in str(report) and len(str(report).splitlines()) < 30
    for file in (shared / "candles" / "1m").glob("*.parquet"):
        assert audit_frame(pd.read_parquet(file), "1m").verdict == "clean"
