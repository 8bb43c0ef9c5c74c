"""Appending, reading, the files on disk, fingerprints, names that try to escape."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import duckdb
import lake_workers as work
import numpy as np
import pandas as pd
import pyarrow.dataset
import pytest

from aione_lab.errors import InputError, LakeError
from aione_lab.lake import CANDLE_COLUMNS, Lake, fingerprint_candles

MINUTE = 60_000
NEW_YEAR = work.START


def minutes(first: int, count: int) -> np.ndarray:
    return NEW_YEAR + MINUTE * np.arange(first, first + count)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "deep" / "lake")
    given = work.candles(minutes(-3000, 6000), optional=True)
    assert lake.append("BTC/USDT:USDT", "1m", given) == (6000, 0, 0)
    got = lake.candles("btcusdt", "1m")
    pd.testing.assert_frame_equal(got, given, check_exact=True)
    assert got.index.unit == "ms"
    assert lake.symbols() == lake.symbols("1m") == ["BTCUSDT"] and lake.symbols("5m") == []
    assert lake.intervals("BTCUSDT") == ["1m"]
    assert lake.span("BTCUSDT", "1m") == (NEW_YEAR - 3000 * MINUTE, NEW_YEAR + 2999 * MINUTE)
    assert lake.span("ETHUSDT", "1m") is None
    arrays = Lake(tmp_path / "deep" / "lake").arrays("BTCUSDT", "1m", columns=("close", "trades"))
    assert list(arrays) == ["timestamp", "close", "trades"]
    assert arrays["timestamp"].dtype == np.int64 and arrays["timestamp"].tolist() == given.index.asi8.tolist()
    assert arrays["close"].tolist() == given["close"].tolist()
    arrays["close"][0] = -1.0  # owned by the caller
    assert lake.candles("BTCUSDT", "1m")["close"].iloc[0] > 0
    got.iloc[0, 0] = -1.0
    assert lake.candles("BTCUSDT", "1m")["open"].iloc[0] > 0


def test_a_later_write_wins_and_is_counted_and_nan_never_hides_a_known_value(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("BTCUSDT", "1m", work.candles(minutes(0, 100), optional=True))
    assert lake.append("BTCUSDT", "1m", work.candles(minutes(50, 100))) == (50, 50, 0)
    truth = pd.concat([work.candles(minutes(0, 100), optional=True), work.candles(minutes(100, 50))])
    pd.testing.assert_frame_equal(lake.candles("BTCUSDT", "1m"), truth)
    assert lake.append("BTCUSDT", "1m", work.candles(minutes(120, 10), version=1)) == (0, 0, 10)
    assert lake.append("BTCUSDT", "1m", work.candles(minutes(100, 10), optional=True)) == (0, 0, 10)
    assert lake.rows_revised("BTCUSDT", "1m") == 20
    truth.iloc[120:130] = work.candles(minutes(120, 10), version=1)
    truth.iloc[100:110] = work.candles(minutes(100, 10), optional=True)
    pd.testing.assert_frame_equal(lake.candles("BTCUSDT", "1m"), truth)
    files = lake.files("BTCUSDT", "1m")
    assert lake.append("BTCUSDT", "1m", truth) == (0, 150, 0)
    assert lake.files("BTCUSDT", "1m") == files  # nothing new: nothing is written


def test_a_candle_of_another_volume_brings_its_own_details_or_none(tmp_path: Path) -> None:
    """Two sources in one row would be a candle that neither has, and one that nothing can read."""
    lake = Lake(tmp_path)
    lake.append("BTCUSDT", "1m", work.candles(minutes(0, 10), optional=True))
    smaller = work.candles(minutes(0, 10)).assign(volume=1e-3)
    assert lake.append("BTCUSDT", "1m", smaller) == (0, 0, 10)
    pd.testing.assert_frame_equal(lake.candles("BTCUSDT", "1m"), smaller)
    assert lake.audit("BTCUSDT", "1m").verdict == "clean"


def test_the_folder_of_a_lake_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Lake("~/lake").root == str(tmp_path / "lake")
    for root in ("", "  ", "~nobody-of-this-name/lake"):
        with pytest.raises(InputError, match="^root="):
            Lake(root)


def test_ranges_are_half_open_and_checked(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    whole = work.candles(minutes(-50_000, 100_000))  # three months
    lake.append("BTCUSDT", "1m", whole)
    for start, end in (
        ("2025-01-01", "2025-01-02"),
        (NEW_YEAR - 1, NEW_YEAR + 1),
        (pd.Timestamp("2024-12-31T23:59Z"), "2025-02-01T00:00:01+00:00"),
        (None, "2024-12-01"),
        ("2025-01-30T12:00", None),
    ):
        low = pd.Timestamp(start if start is not None else 0, unit="ms" if isinstance(start, int) else None)
        low = low.tz_localize("UTC") if low.tz is None else low
        high = pd.Timestamp(end if end is not None else "2030", unit="ms" if isinstance(end, int) else None)
        high = high.tz_localize("UTC") if high.tz is None else high
        got = lake.candles("BTCUSDT", "1m", start, end)
        pd.testing.assert_frame_equal(got, whole[(whole.index >= low) & (whole.index < high)])
        assert len(got)
    assert lake.candles("BTCUSDT", "1m", "2030-01-01").empty
    with pytest.raises(InputError, match=r"^end='2025-01-01': must be later than start='2025-01-01'"):
        lake.candles("BTCUSDT", "1m", "2025-01-01", "2025-01-01")
    with pytest.raises(InputError, match=r"^start=.*zone"):
        lake.arrays("BTCUSDT", "1m", pd.Timestamp("2025-01-01"))
    with pytest.raises(InputError, match="did you mean 'close'"):
        lake.arrays("BTCUSDT", "1m", columns=("closee",))
    with pytest.raises(InputError, match="interval"):
        lake.candles("BTCUSDT", "2m")
    with pytest.raises(LakeError, match=r"ETHUSDT 1m: not in the lake .*there: BTCUSDT"):
        lake.candles("ETHUSDT", "1m")


def test_bad_frames_leave_nothing_behind(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    frame = work.candles(minutes(0, 10))
    with pytest.raises(InputError, match=r"^frame\.timestamp.*repeated"):
        lake.append("BTCUSDT", "1m", pd.concat([frame, frame.tail(1)]))
    with pytest.raises(InputError, match=r"^frame=.*DataFrame"):
        lake.append("BTCUSDT", "1m", [1, 2])  # type: ignore[arg-type]
    assert lake.append("BTCUSDT", "1m", frame.iloc[:0]) == (0, 0, 0)
    assert not (tmp_path / "lake").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"^root=.*this is a file"):
        Lake(tmp_path / "file")


def test_months_are_cut_at_utc_midnight(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("BTCUSDT", "1m", work.candles(minutes(-2, 4)))
    found = {path.parent.name: len(pd.read_parquet(path)) for path in map(Path, lake.files("BTCUSDT", "1m"))}
    assert found == {"month=2024-12": 2, "month=2025-01": 2}
    assert (tmp_path / "candles/interval=1m/symbol=BTCUSDT/month=2024-12").is_dir()


def test_one_candle_at_a_time_costs_few_files_and_few_rewrites(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("BTCUSDT", "1m", work.candles(minutes(0, 5000)))
    (big,) = lake.files("BTCUSDT", "1m")
    most = 0
    for n in range(120):
        lake.append("BTCUSDT", "1m", work.candles(minutes(5000 + n, 1)))
        most = max(most, len(lake.files("BTCUSDT", "1m")))
    assert lake.files("BTCUSDT", "1m")[0] == big  # never rewritten for a candle more
    assert most <= 5
    pd.testing.assert_frame_equal(lake.candles("BTCUSDT", "1m"), work.candles(minutes(0, 5120)))
    before = lake.fingerprint("BTCUSDT", "1m")
    assert lake.compact("BTCUSDT", "1m") == 1 and lake.compact("BTCUSDT", "1m") == 0
    assert len(lake.files("BTCUSDT", "1m")) == 1 and lake.fingerprint("BTCUSDT", "1m") == before


def test_fingerprints_know_the_content_and_nothing_else(tmp_path: Path) -> None:
    whole = work.candles(minutes(-700, 1400), optional=True)
    prints = set()
    for turn in range(4):
        lake = Lake(tmp_path / str(turn))
        rng = random.Random(turn)
        pieces = [whole.iloc[i : i + 90] for i in range(0, 1400, 70)]
        rng.shuffle(pieces)
        for piece in pieces:
            lake.append("BTCUSDT", "1m", piece)
        if turn % 2:
            lake.compact("BTCUSDT", "1m")
        prints.add(lake.fingerprint("BTCUSDT", "1m", "2024-12-31T20:00", "2025-01-01T05:00"))
    lake.append("ETHUSDT", "1m", whole)
    assert prints == {lake.fingerprint("ETHUSDT", "1m", "2024-12-31T20:00", "2025-01-01T05:00")}
    assert prints == {fingerprint_candles(whole["2024-12-31T20:00":"2025-01-01T04:59"])}  # type: ignore[misc]
    assert fingerprint_candles(whole) == lake.fingerprint("ETHUSDT", "1m")
    for column in CANDLE_COLUMNS:
        changed = whole.copy()
        changed.iloc[5, changed.columns.get_loc(column)] *= 1 + 1e-15
        assert fingerprint_candles(changed) != fingerprint_candles(whole)
    assert fingerprint_candles(whole.iloc[1:]) != fingerprint_candles(whole)
    minus = whole.assign(volume=-0.0), whole.assign(volume=0.0)
    assert fingerprint_candles(minus[0]) == fingerprint_candles(minus[1])


def test_others_can_read_the_files(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        lake.append(symbol, "1m", work.candles(minutes(-3000, 6000), optional=symbol == "ETHUSDT"))
        lake.append(symbol, "1m", work.candles(minutes(3000, 60)))
    query = """select symbol, interval, month, count(*), count(distinct timestamp), sum(close), max(timestamp)::varchar
        from read_parquet(?, hive_partitioning = true) group by all order by all"""
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        rows = connection.execute(query, [str(tmp_path / "candles/**/*.parquet")]).fetchall()
    assert [row[:5] for row in rows] == [
        (symbol, "1m", month, n, n)
        for symbol in ("BTCUSDT", "ETHUSDT")
        for month, n in (("2024-12", 3000), ("2025-01", 3060))
    ]
    assert rows[1][6] == "2025-01-03 02:59:00+00"
    truth = lake.candles("BTCUSDT", "1m")
    assert rows[0][5] + rows[1][5] == pytest.approx(truth["close"].sum(), rel=1e-12)
    table = pyarrow.dataset.dataset(tmp_path / "candles", partitioning="hive").to_table(
        filter=pyarrow.dataset.field("symbol") == "BTCUSDT"
    )
    frame = table.to_pandas().set_index("timestamp").sort_index()
    assert frame.index.equals(truth.index) and frame["close"].equals(truth["close"])
    frame = pd.read_parquet(lake.files("ETHUSDT", "1m")).set_index("timestamp")[list(CANDLE_COLUMNS)]
    pd.testing.assert_frame_equal(frame, lake.candles("ETHUSDT", "1m"))


def test_funding_keeps_its_stamps_and_knows_one_payment_by_its_minute(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert lake.funding("BTCUSDT").empty and lake.funding("BTCUSDT").name == "funding_rate"
    hours = pd.date_range("2025-01-01", periods=90, freq="8h", tz="UTC").as_unit("ms")
    jitter = pd.to_timedelta(np.tile([0, 1, -1, 7, 0], 18), unit="ms")
    given = pd.Series(np.linspace(-1e-4, 1e-4, 90), index=(hours + jitter).as_unit("ms"), name="funding_rate")
    given.index.name = "timestamp"
    assert lake.append_funding("BTCUSDT", given) == (90, 0, 0)
    got = lake.funding("BTCUSDT")
    pd.testing.assert_series_equal(got, given, check_freq=False)
    assert lake.append_funding("BTCUSDT", given.to_frame().reset_index()) == (0, 90, 0)
    moved = given.set_axis(hours)  # another source, without the jitter: the same payments
    assert lake.append_funding("BTCUSDT", moved) == (0, 36, 54)
    pd.testing.assert_series_equal(lake.funding("BTCUSDT"), moved, check_freq=False, check_names=False)
    part = lake.funding("BTCUSDT", "2025-01-05", "2025-01-06")
    assert part.index.tolist() == hours[12:15].tolist()
    assert lake.symbols() == []  # funding alone is no candle
    assert lake.rebuild_manifest("BTCUSDT", None).rows == 90


def test_real_funding_round_trips(shared: Path, tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for file in sorted((shared / "candles" / "funding_8h").glob("*.parquet")):
        frame = pd.read_parquet(file)
        assert lake.append_funding(file.stem, frame) == (len(frame), 0, 0)
        got = lake.funding(file.stem)
        assert got.tolist() == frame["funding_rate"].tolist()
        assert got.index.equals(pd.DatetimeIndex(frame["timestamp"]))


def hostile_names(count: int) -> list[object]:
    rng = random.Random(5)
    pieces = ["..", "/", "\\", "../", "%2e%2e", "\x00", "\n", " ", "~", "$HOME", "BTC", "*", "|", ":", "'", '"', "<b>"]
    pieces += [
        "\u202e",
        "\uff0e\uff0e\uff0f",
        "é",
        "İ",
        "ſ",
        "=",
        "-",
        ".",
        ";rm",
        "symbol=",
        ".parquet",
        "{}",
        "A" * 50,
    ]
    names: list[object] = [
        "",
        ".",
        "..",
        "../../x",
        "/etc/passwd",
        "BTC/../../x",
        "a/b/c",
        None,
        7,
        b"BTCUSDT",
        ["BTC"],
    ]
    while len(names) < count:
        names.append("".join(rng.choices(pieces, k=rng.randrange(1, 7))))
    return names


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.long)])
def test_hostile_symbols_reach_no_path(tmp_path: Path, count: int) -> None:
    root = tmp_path / "a" / "lake"
    lake = Lake(root)
    frame = work.candles(minutes(0, 5))
    lake.append("BTCUSDT", "1m", frame)
    refused = 0
    for name in hostile_names(count):
        calls = (
            lambda n: lake.append(n, "1m", frame),
            lambda n: lake.append_funding(n, pd.Series([0.1], index=frame.index[:1])),
            lambda n: lake.candles(n, "1m"),
            lambda n: lake.funding(n),
            lambda n: lake.compact(n, "1m"),
            lambda n: lake.rebuild_manifest(n, "1m"),
            lambda n: lake.audit(n, "1m"),
            lambda n: lake.span(n, "1m"),
        )
        if isinstance(name, str) and name.isascii() and name.isalnum() and len(name) <= 40:
            continue  # "BTCBTC" is a fine symbol
        for call in calls:
            with pytest.raises(InputError, match="^symbol=") as caught:
                call(name)
            assert "\n" not in str(caught.value)
        refused += 1
    assert refused > count * 0.9
    assert lake.symbols() == ["BTCUSDT"]
    everything = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    (file,) = lake.files("BTCUSDT", "1m")
    assert everything == {
        "a/lake/.locks/BTCUSDT.lock",
        "a/lake/candles/interval=1m/symbol=BTCUSDT/_manifest.json",
        Path(file).relative_to(tmp_path).as_posix(),
    }


def test_a_manifest_cannot_point_outside(tmp_path: Path) -> None:
    from aione_lab.errors import LakeCorruption
    from aione_lab.lake.manifest import Manifest

    lake = Lake(tmp_path)
    lake.append("BTCUSDT", "1m", work.candles(minutes(0, 5)))
    path = tmp_path / "candles/interval=1m/symbol=BTCUSDT/_manifest.json"
    manifest = Manifest.decode(path.read_bytes(), "m")
    part = manifest.parts[0].model_copy(update={"file": "../../../../secret.parquet"})
    path.write_bytes(manifest.model_copy(update={"parts": (part,)}).encode())  # with a checksum that fits
    with pytest.raises(LakeCorruption, match="_manifest.json: the manifest is damaged"):
        lake.candles("BTCUSDT", "1m")


@pytest.mark.parametrize("root", ["a" * 300, "a\0b", 5, None])
def test_a_root_that_is_no_folder_is_refused(root: Any) -> None:
    with pytest.raises(InputError, match="^root="):
        Lake(root)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a file system that takes no folders")
def test_a_folder_that_cannot_be_made_is_named() -> None:
    with pytest.raises(LakeError, match=r"^/proc/x: cannot be made \("):
        Lake("/proc/x").append("BTCUSDT", "1m", work.candles([NEW_YEAR]))


@pytest.mark.parametrize("timeout", [10**400, float("nan"), -1, "5"])
def test_a_lock_timeout_is_a_number_of_seconds(tmp_path: Path, timeout: Any) -> None:
    with pytest.raises(InputError, match="^lock_timeout="):
        Lake(tmp_path, lock_timeout=timeout)


def test_arguments_of_the_wrong_kind_are_named(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("BTCUSDT", "1m", work.candles([NEW_YEAR]))
    for call, told in (
        (lambda: lake.arrays("BTCUSDT", "1m", columns=5), "^columns=5"),
        (lambda: lake.arrays("BTCUSDT", "1m", columns=None), "^columns=None"),
        (lambda: lake.arrays("BTCUSDT", "1m", columns="close"), "^columns='close'"),
        (lambda: lake.fetch("binanceusdm", None, "1m", since="2025-01-01"), "^symbols=None"),
        (lambda: lake.fetch("binanceusdm", 5, "1m", since="2025-01-01"), "^symbols=5"),
        (lambda: lake.fetch("binanceusdm", "BTCUSDT", "1m", since="2025-01-01", worker=2), "did you mean 'workers'"),
        (lambda: lake.repair("BTCUSDT", "1m", bogus=1), "option='bogus'"),
    ):
        with pytest.raises(InputError, match=told):
            call()
