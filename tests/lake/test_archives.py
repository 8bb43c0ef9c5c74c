"""Import: every format, every name, every fault, and that nothing of a refused file stays."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from lake_files import HEADER, START, assert_untouched, kline_csv, make_candles, write_archive, zipped
from lake_files import lake as lake  # fixture

from aione_lab.errors import InputError, LakeCorruption
from aione_lab.lake import CANDLE_COLUMNS, Lake
from aione_lab.lake import limits as lake_limits
from aione_lab.lake.names import find_files


def assert_stored(lake: Lake, frame: pd.DataFrame, symbol: str = "BTCUSDT", interval: str = "1m") -> None:
    pd.testing.assert_frame_equal(lake.candles(symbol, interval), frame[list(CANDLE_COLUMNS)], check_exact=True)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("unit", [1, 1000])
@pytest.mark.parametrize("stem", ["BTCUSDT-1m-2025-05", "BTCUSDT-1m-2025-05-04"])
def test_exchange_archive(lake: Lake, tmp_path: Path, header: bool, unit: int, stem: str) -> None:
    frame = make_candles()
    path = write_archive(tmp_path, stem, kline_csv(frame, header, unit), checksum=True)
    report = lake.import_candles(path, interval="1m")
    assert_stored(lake, frame)
    (file,) = report.files
    assert (file.rows_read, file.rows_new, file.rows_same, file.rows_refused) == (300, 300, 0, 0)
    assert "checksum verified" in file.notes
    assert any("microseconds" in note for note in file.notes) == (unit == 1000)
    again = lake.import_candles(path, interval="1m")
    assert (again.total["rows_new"], again.total["rows_same"]) == (0, 300)


def test_plain_csv_with_and_without_header(lake: Lake, tmp_path: Path) -> None:
    frame = make_candles()
    for name, header in (("BTCUSDT-1m-2025-05.csv", True), ("ETHUSDT-1m-2025-05.csv", False)):
        (tmp_path / name).write_bytes(kline_csv(frame, header))
        lake.import_candles(tmp_path / name, interval="1m")
    assert_stored(lake, frame)
    assert_stored(lake, frame, "ETHUSDT")


@pytest.mark.parametrize(
    ("form", "first"),
    [
        ("iso", "2025-05-04T00:00:00Z"),
        ("text", "2025-05-04 00:00:00+00:00"),
        ("seconds", str(START // 1000)),
        ("float", f"{START}.0"),
    ],
)
def test_generic_csv_times(lake: Lake, tmp_path: Path, form: str, first: str) -> None:
    frame = make_candles(50)
    times = {
        "iso": [t.strftime("%Y-%m-%dT%H:%M:%SZ") for t in frame.index],
        "text": [str(t) for t in frame.index],
        "seconds": list(frame.index.asi8 // 1000),
        "float": [float(t) for t in frame.index.asi8],
    }[form]
    generic = pd.DataFrame({"Date": times, **{c.capitalize(): frame[c].to_numpy() for c in CANDLE_COLUMNS[:5]}})
    generic.to_csv(tmp_path / "BTCUSDT.csv", index=False)
    assert (tmp_path / "BTCUSDT.csv").read_text().splitlines()[1].startswith(first)
    lake.import_candles(tmp_path / "BTCUSDT.csv", interval="1m")
    stored = lake.candles("BTCUSDT", "1m")
    assert stored.index.equals(frame.index)
    assert (stored["close"] == frame["close"]).all() and stored["trades"].isna().all()


def stored_times(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    index = frame.index
    return frame.reset_index(drop=True).assign(
        open_time={
            "naive": index.tz_localize(None),
            "text": index.strftime("%Y-%m-%d %H:%M:%S"),
            "dates": index.date,
            "one naive": [*index.strftime("%Y-%m-%dT%H:%M:%SZ")[:-1], "2025-05-05T00:00:00"],
        }[kind]
    )


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        *((suffix, kind) for suffix in ("csv", "zip") for kind in ("naive", "text", "dates", "one naive")),
        *((suffix, kind) for suffix in ("parquet", "feather") for kind in ("naive", "dates")),
    ],
)
def test_times_without_a_zone_are_refused_in_files_too(lake: Lake, tmp_path: Path, suffix: str, kind: str) -> None:
    frame = stored_times(make_candles(5, step=86_400_000 if kind == "dates" else 60_000), kind)
    path = tmp_path / f"BTCUSDT.{suffix}"
    if suffix in ("csv", "zip"):
        text = frame.to_csv(index=False).encode()
        path.write_bytes(text if suffix == "csv" else zipped(text, "BTCUSDT.csv"))
    else:
        frame.to_parquet(path) if suffix == "parquet" else frame.to_feather(path)
    with pytest.raises(InputError, match="column 'open_time' has no time zone; must be UTC, such as") as caught:
        lake.import_candles(path, interval="1d" if kind == "dates" else "1m")
    assert "\n" not in str(caught.value) and ("row 5" in str(caught.value)) == (kind == "one naive")
    assert_untouched(lake)


def test_a_bad_cell_among_the_times_is_named(lake: Lake, tmp_path: Path) -> None:
    frame = make_candles(9).reset_index()
    path = tmp_path / "BTCUSDT.csv"
    for good, bad, told in (
        (frame.timestamp.dt.strftime("%Y-%m-%dT%H:%M:%SZ"), "soon", "row 7: 'soon' in column 'timestamp' is no time"),
        (frame.timestamp.dt.as_unit("ms").astype("int64"), "soon", "row 7: 'soon' in column 'timestamp' is no time"),
        (frame.timestamp.dt.as_unit("ms").astype("int64"), 1e20, "row 7 has the time 1e+20, no whole number"),
    ):
        times = good.astype(object)
        times[6] = bad
        frame.assign(timestamp=times).to_csv(path, index=False)
        with pytest.raises(InputError) as caught:
            lake.import_candles(path, interval="1m")
        assert told in str(caught.value) and "np." not in str(caught.value)


def test_unsigned_stamps_beyond_63_bits_are_refused(lake: Lake, tmp_path: Path) -> None:
    frame = make_candles(5).reset_index(drop=True).assign(timestamp=np.full(5, 2**63, dtype=np.uint64))
    frame.to_parquet(tmp_path / "BTCUSDT.parquet")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        lake.import_candles(tmp_path / "BTCUSDT.parquet", interval="1m")
    assert_untouched(lake)


@pytest.mark.parametrize("source", ["a" * 300, "~no-such-user-here/x.csv", "a" * 300 + "/*.csv"])
def test_paths_that_no_disk_can_have_are_refused(lake: Lake, source: str) -> None:
    with pytest.raises(InputError, match="^source="):
        lake.import_candles(source, interval="1m")


def test_a_file_name_may_hold_anything(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff\x1b[31m\n")
    folder.mkdir()
    make_candles(5).to_parquet(tmp_path / "x")
    (tmp_path / "x").rename(folder / "BTCUSDT.parquet")  # the writer takes no such path
    report = lake.import_candles(folder, interval="1m")
    assert "\\udcff" in report.to_json() and "\\udcff" in report.to_dict()["files"][0]["file"]
    line = str(report.files[0])
    assert line.isprintable() and "\\udcff\\x1b[31m\\n" in line


def test_semicolons_and_byte_order_mark(lake: Lake, tmp_path: Path) -> None:
    frame = make_candles(20)
    text = frame.reset_index().assign(timestamp=frame.index.asi8).to_csv(index=False, sep=";")
    (tmp_path / "BTCUSDT.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    lake.import_candles(tmp_path / "BTCUSDT.csv", interval="1m")
    assert_stored(lake, frame)


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
@pytest.mark.parametrize("shape", ["index", "unnamed index", "column", "integers", "open_time"])
def test_binary_files(lake: Lake, tmp_path: Path, suffix: str, shape: str) -> None:
    frame = make_candles()
    path = tmp_path / f"BTCUSDT-1m.{suffix}"
    stored = {
        "index": frame,
        "unnamed index": frame.rename_axis(None),
        "column": frame.reset_index(),
        "integers": frame.reset_index().assign(timestamp=frame.index.asi8),
        "open_time": frame.reset_index().rename(columns={"timestamp": "open_time", "trades": "count"}),
    }[shape]
    table = pa.Table.from_pandas(stored)
    pq.write_table(table, path) if suffix == "parquet" else feather.write_feather(table, path)
    lake.import_candles(path, interval="1m")
    assert_stored(lake, frame)


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather_compression(lake: Lake, tmp_path: Path, compression: str) -> None:
    frame = make_candles(2000)
    feather.write_feather(
        frame.reset_index(), tmp_path / "BTC_USDT_USDT-1m-futures.feather", compression=compression, chunksize=700
    )
    lake.import_candles(tmp_path, interval="1m")
    assert_stored(lake, frame)


def test_data_frames(lake: Lake) -> None:
    frame = make_candles()
    report = lake.import_candles(frame, symbol="BTC/USDT:USDT", interval="1m")
    assert report.symbols == ("BTCUSDT",)
    assert_stored(lake, frame)
    before = frame.copy(deep=True)
    lake.import_candles(frame.reset_index().rename(columns={"timestamp": "Open time"}), symbol="ETHUSDT", interval="1m")
    pd.testing.assert_frame_equal(frame, before)
    assert lake.fingerprint("ETHUSDT", "1m") == lake.fingerprint("BTCUSDT", "1m")


def test_bad_data_frames_get_one_line(lake: Lake) -> None:
    frame = make_candles(10)
    naive = frame.tz_localize(None)
    cases = [
        (dict(source=frame, interval="1m"), "symbol=None"),
        (dict(source=naive, symbol="BTCUSDT", interval="1m"), "naive"),
        (dict(source=frame.tz_convert("Europe/Kyiv"), symbol="BTCUSDT", interval="1m"), "UTC"),
        (dict(source=frame.drop(columns="low"), symbol="BTCUSDT", interval="1m"), "low"),
        (dict(source=frame.iloc[:0], symbol="BTCUSDT", interval="1m"), "no rows"),
        (dict(source=frame, symbol="../../x", interval="1m"), "symbol='../../x'"),
        (dict(source=frame, symbol="BTCUSDT", interval="7m"), "interval='7m'"),
        (dict(source=frame, symbol="BTCUSDT", interval="5m"), "1m apart"),
        (dict(source=7, symbol="BTCUSDT", interval="1m"), "source=7"),
    ]
    for arguments, named in cases:
        with pytest.raises(InputError) as caught:
            lake.import_candles(arguments.pop("source"), **arguments)
        assert named in str(caught.value) and "\n" not in str(caught.value)
    assert_untouched(lake)


def test_folder_pattern_and_list(lake: Lake, tmp_path: Path) -> None:
    frame = make_candles(200)
    folder = tmp_path / "archive"
    (folder / "deep").mkdir(parents=True)
    write_archive(folder, "BTCUSDT-1m-2025-05-04", kline_csv(frame.iloc[:120]), checksum=True)
    write_archive(folder / "deep", "BTCUSDT-1m-2025-05-05", kline_csv(frame.iloc[100:]))
    frame.to_parquet(folder / "ETHUSDT.parquet")
    (folder / ".hidden-1m.parquet").write_bytes(b"half a copy")
    (folder / "notes.txt").write_text("not a candle file")
    report = lake.import_candles(folder, interval="1m")
    assert report.total == {
        "files": 3, "files_refused": 0, "rows_read": 420, "rows_new": 400, "rows_same": 20, "rows_revised": 0,
        "rows_refused": 0,
    }  # fmt: skip
    assert_stored(lake, frame)
    assert json.loads(report.to_json())["total"]["rows_new"] == 400
    assert str(report).splitlines()[-1].startswith("total: 3 files, 420 rows read, 400 new")
    pattern = lake.import_candles(str(folder / "**" / "BTCUSDT-1m-*.zip"), interval="1m")
    assert (pattern.total["files"], pattern.total["rows_same"]) == (2, 220)
    listed = lake.import_candles([folder / "ETHUSDT.parquet", str(folder / "BTC*.zip")], interval="1m")
    assert listed.symbols == ("BTCUSDT", "ETHUSDT")
    assert len(find_files([folder, folder])) == 3


def test_hive_folder_of_another_lake(lake: Lake, tmp_path: Path) -> None:
    other = Lake(tmp_path / "other")
    frame = make_candles(300)
    other.append("BTCUSDT", "1m", frame)
    other.append("SOLUSDT", "1m", frame)
    report = lake.import_candles(other.root, interval="1m")
    assert report.symbols == ("BTCUSDT", "SOLUSDT")
    assert lake.fingerprint("SOLUSDT", "1m") == other.fingerprint("SOLUSDT", "1m")


def test_bad_file_in_a_folder_is_named_and_the_others_go_on(lake: Lake, tmp_path: Path) -> None:
    frame = make_candles()
    write_archive(tmp_path, "BTCUSDT-1m-2025-05", kline_csv(frame), checksum=True)
    write_archive(tmp_path, "ETHUSDT-1m-2025-05", kline_csv(frame), checksum="0" * 64)
    write_archive(tmp_path, "SOLUSDT-5m-2025-05", kline_csv(frame))
    (tmp_path / "XRPUSDT-1m-2025-05.zip").write_bytes(b"this is no zip")
    (tmp_path / "klines.csv").write_bytes(kline_csv(frame))
    report = lake.import_candles(tmp_path, interval="1m")
    errors = {Path(f.file).name: f.error for f in report.files if f.error}
    assert set(errors) == {
        "ETHUSDT-1m-2025-05.zip", "SOLUSDT-5m-2025-05.zip", "XRPUSDT-1m-2025-05.zip", "klines.csv"
    }  # fmt: skip
    assert "CHECKSUM" in errors["ETHUSDT-1m-2025-05.zip"]
    assert "its name says 5m" in errors["SOLUSDT-5m-2025-05.zip"]
    assert "not a sound zip" in errors["XRPUSDT-1m-2025-05.zip"]
    assert "no symbol" in errors["klines.csv"]
    assert report.total["files_refused"] == 4 and "4 files refused" in str(report).splitlines()[-1]
    assert lake.symbols() == ["BTCUSDT"]


def test_linked_folders_are_followed_and_each_is_read_once(lake: Lake, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "archive", tmp_path / "elsewhere"
    (folder / "deep").mkdir(parents=True)
    elsewhere.mkdir()
    for place, symbol in ((folder, "BTCUSDT"), (folder / "deep", "ETHUSDT"), (elsewhere, "SOLUSDT")):
        write_archive(place, f"{symbol}-1m-2025-05", kline_csv(make_candles(10)))
    for link, target in (
        ("a", elsewhere),
        ("b", folder),
        ("c", folder / "deep"),
        ("deep/up", folder),
        ("d", "nowhere"),
    ):
        (folder / link).symlink_to(target)
    files = ["BTCUSDT-1m-2025-05.zip", "a/SOLUSDT-1m-2025-05.zip", "deep/ETHUSDT-1m-2025-05.zip"]
    assert [str(path.relative_to(folder)) for path in find_files(folder)] == files
    assert lake.import_candles(folder, interval="1m").total["files"] == 3


def test_a_folder_that_cannot_be_read_is_named(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "archive" / "closed"
    closed.mkdir(parents=True)
    write_archive(tmp_path / "archive", "BTCUSDT-1m-2025-05", kline_csv(make_candles(10)))
    scandir = os.scandir

    def refusing(path: str) -> object:  # root, whom tests may run as, can read everything
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(InputError, match=rf"^source='{closed}': cannot be read \(Permission denied\)"):
        lake.import_candles(tmp_path / "archive", interval="1m")
    assert_untouched(lake)


@pytest.mark.parametrize("source", ["", "**/*.parquet", "*"])
def test_the_files_of_the_lake_itself_are_left_out(lake: Lake, tmp_path: Path, source: str) -> None:
    lake.append("BTCUSDT", "1m", make_candles(20))
    make_candles(10).to_parquet(tmp_path / "ETHUSDT.parquet")
    report = lake.import_candles(str(tmp_path / source), interval="1m")
    assert [Path(file.file).name for file in report.files] == ["ETHUSDT.parquet"]
    make_candles(10).to_parquet(Path(lake.root) / "SOLUSDT.parquet")  # beside the lake's files, and none of them
    assert lake.import_candles(lake.root, interval="1m").symbols == ("SOLUSDT",)


def test_a_damaged_series_does_not_stop_the_others(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    for symbol in symbols:
        lake.append(symbol, "1m", make_candles(50))
        write_archive(folder, f"{symbol}-1m-2025-05", kline_csv(make_candles(100)))
    (stored,) = (Path(file) for file in lake.files("ETHUSDT", "1m"))
    stored.write_bytes(stored.read_bytes()[:-9])
    report = lake.import_candles(folder, interval="1m")
    assert [(file.symbol, file.rows_new) for file in report.files] == list(zip(symbols, (50, 0, 50), strict=True))
    assert report.files[1].error is not None and stored.name in report.files[1].error
    assert report.total["files_refused"] == 1
    with pytest.raises(LakeCorruption, match=stored.name):
        lake.import_candles(folder / "ETHUSDT-1m-2025-05.zip", interval="1m")


def test_good_rows_at_another_distance_do_not_stop_the_others(lake: Lake, tmp_path: Path) -> None:
    sparse = make_candles(100)
    sparse.loc[sparse.index[np.arange(100) % 5 != 0], "close"] = np.nan
    sparse.to_parquet(tmp_path / "BTCUSDT.parquet")
    make_candles(100).to_parquet(tmp_path / "ETHUSDT.parquet")
    report = lake.import_candles(tmp_path, interval="1m")
    assert [file.error is None for file in report.files] == [False, True]
    assert "5m apart" in str(report.files[0].error)


def test_sources_that_are_not_there(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("x")
    for source in (tmp_path / "none.zip", tmp_path / "*.zip", tmp_path / "empty", tmp_path / "a.txt", "", "a\x00b", []):
        with pytest.raises(InputError, match="^source="):
            lake.import_candles(source if isinstance(source, list) else str(source), interval="1m")
    with pytest.raises(InputError, match="none of 2 files"):
        for name in ("BTCUSDT.csv", "ETHUSDT.csv"):
            (tmp_path / name).write_text("<html>")
        lake.import_candles(str(tmp_path / "*.csv"), interval="1m")
    assert_untouched(lake)


def test_mark_prices_are_refused(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "markPriceKlines"
    folder.mkdir()
    path = write_archive(folder, "BTCUSDT-1m-2025-05", kline_csv(make_candles(10)))
    with pytest.raises(InputError, match="markPriceKlines"):
        lake.import_candles(path, interval="1m")


def test_bad_rows_are_left_out_with_their_reason(lake: Lake, tmp_path: Path) -> None:
    frame = make_candles(100)
    bad = frame.copy()
    bad.iloc[10, bad.columns.get_loc("high")] = 1.0
    bad.iloc[20, bad.columns.get_loc("close")] = np.nan
    table = bad.reset_index()
    table = pd.concat([table, table.iloc[[5]].assign(close=table["close"].iloc[5] + 0.001)])
    future = table.iloc[[50]].assign(timestamp=pd.Timestamp("2099-01-01", tz="UTC"))
    off = table.iloc[[60]].assign(timestamp=table["timestamp"].iloc[60] + pd.Timedelta("7s"))
    pd.concat([table, future, off], ignore_index=True).to_parquet(tmp_path / "BTCUSDT.parquet")
    (file,) = lake.import_candles(tmp_path / "BTCUSDT.parquet", interval="1m").files
    assert file.rows_read == 103
    assert file.rows_read == file.rows_new + file.rows_refused
    assert {r.reason: r.rows for r in file.refused} == {
        "same timestamp as a later row, which is kept": 1,
        "high must not be below open or close": 1,
        "close must be finite and above zero": 1,
        "candle is not finished": 1,
        "timestamp is off the 1m grid": 1,
    }
    assert any(r.first == frame.index[10].isoformat() for r in file.refused)
    assert lake.candles("BTCUSDT", "1m")["close"].iloc[5] == frame["close"].iloc[5] + 0.001


def test_revised_rows_are_counted_and_win(lake: Lake, tmp_path: Path) -> None:
    frame = make_candles(50)
    path = write_archive(tmp_path, "BTCUSDT-1m-2025-05", kline_csv(frame))
    lake.import_candles(path, interval="1m")
    frame.iloc[49, frame.columns.get_loc("volume")] += 1
    write_archive(tmp_path, "BTCUSDT-1m-2025-05", kline_csv(frame))
    (file,) = lake.import_candles(path, interval="1m").files
    assert (file.rows_same, file.rows_revised) == (49, 1)
    assert_stored(lake, frame)


def test_32_bit_stamps_are_mended_and_told(lake: Lake, tmp_path: Path) -> None:
    frame = make_candles(2000)
    cut = frame.reset_index().assign(timestamp=frame.index.asi8 % 2**32)
    cut.to_parquet(tmp_path / "BTCUSDT.parquet")
    (file,) = lake.import_candles(tmp_path / "BTCUSDT.parquet", interval="1m").files
    assert file.notes == ("2000 32-bit stamps mended",)
    assert_stored(lake, frame)


def test_spacing_decides_against_the_interval(lake: Lake, tmp_path: Path) -> None:
    write_archive(tmp_path, "BTCUSDT-1m-2025-05", kline_csv(make_candles(50, step=300_000)))
    with pytest.raises(InputError, match="rows stand 5m apart"):
        lake.import_candles(tmp_path / "BTCUSDT-1m-2025-05.zip", interval="1m")
    make_candles(50).to_parquet(tmp_path / "ETHUSDT.parquet")
    with pytest.raises(InputError, match="rows stand 1m apart"):
        lake.import_candles(tmp_path / "ETHUSDT.parquet", interval="5m")
    assert_untouched(lake)
    sparse = make_candles(400).iloc[np.r_[0:3, 5:300:6, 301]]
    lake.import_candles(sparse, symbol="BTCUSDT", interval="1m")
    assert len(lake.candles("BTCUSDT", "1m")) == len(sparse)


# ---- hostile files ---------------------------------------------------------------------------------


@cache
def hostile_zips() -> dict[str, bytes]:
    good = kline_csv(make_candles(20))
    cases = {
        "parent member": zipped(good, "../BTCUSDT-1m-2025-05.csv"),
        "backslash member": zipped(good, "..\\..\\BTCUSDT-1m-2025-05.csv"),
        "absolute member": zipped(good, "/tmp/BTCUSDT-1m-2025-05.csv"),
        "drive member": zipped(good, "C:/BTCUSDT-1m-2025-05.csv"),
        "not a csv": zipped(good, "BTCUSDT-1m-2025-05.exe"),
        "empty csv": zipped(b"", "BTCUSDT-1m-2025-05.csv"),
        "header only": zipped(HEADER.encode(), "BTCUSDT-1m-2025-05.csv"),
        "binary garbage": zipped(bytes(range(256)) * 40, "BTCUSDT-1m-2025-05.csv"),
        "bomb": zipped(b"0," * (40 << 20), "BTCUSDT-1m-2025-05.csv"),
        "empty archive": b"PK\x05\x06" + bytes(18),
        "no zip": b"<html>404 Not Found</html>",
        "empty file": b"",
        "cut": zipped(good, "BTCUSDT-1m-2025-05.csv")[:-30],
        "flipped": bytearray(zipped(good, "BTCUSDT-1m-2025-05.csv")),
    }
    cases["flipped"][200] ^= 0xFF
    two = io.BytesIO()
    with zipfile.ZipFile(two, "w") as archive:
        archive.writestr("a.csv", good)
        archive.writestr("b.csv", good)
    cases["two members"] = two.getvalue()
    lzma = io.BytesIO()
    with zipfile.ZipFile(lzma, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.csv", good)
    cases["lzma"] = lzma.getvalue()
    # The encrypted flag, set by hand in both headers.
    secret = bytearray(zipped(good, "a.csv"))
    secret[6] |= 1
    secret[secret.index(b"PK\x01\x02") + 8] |= 1
    cases["encrypted"] = bytes(secret)
    # A member that says it is small: the bytes are counted as they come.
    lying = bytearray(zipped(b"0," * (40 << 20), "a.csv"))
    struct.pack_into("<I", lying, lying.index(b"PK\x01\x02") + 24, 1000)
    cases["lying bomb"] = bytes(lying)
    return {name: bytes(content) for name, content in cases.items()}


HOSTILE_CSV = {
    "formula": b"=cmd|' /C calc'!A0,1,1,1,1,1,1,1,1,1,1,0\n",
    "formula in a price": f"{HEADER}\n{START},=1+1,1,1,1,1,{START},1,1,1,1,0\n".encode(),
    "formula header": b'"=HYPERLINK(""http://x"")",open,high,low,close,volume\n1,1,1,1,1,1\n',
    "html": b"<!doctype html><html></html>",
    "ragged": f"{HEADER}\n{START},1,1\n".encode(),
    "unclosed quote": f'{HEADER}\n{START},"1,1,1,1,1\n'.encode(),
    "other columns": b"a,b,c\n1,2,3\n",
    "seven columns, no header": b"1,2,3,4,5,6,7\n",
    "twice the same column": b"timestamp,open,open,high,low,close,volume\n1,1,1,1,1,1,1\n",
    "american date": b"date,open,high,low,close,volume\n05/04/2025,1,1,1,1,1\n",
    "no time": b"timestamp,open,high,low,close,volume\n,1,1,1,1,1\n",
    "half a millisecond": b"timestamp,open,high,low,close,volume\n1746316800000.5,1,1,1,1,1\n",
    "infinite time": b"timestamp,open,high,low,close,volume\ninf,1,1,1,1,1\n",
    "far future": b"timestamp,open,high,low,close,volume\n99999999999999999999,1,1,1,1,1\n",
    "all rows bad": f"timestamp,open,high,low,close,volume\n{START},1,0.5,1,1,1\n".encode(),
    "not utf-8": b"\xff\xfe" + "timestamp,open".encode("utf-16-le"),
    "null bytes": b"\x00" * 500,
    "only newlines": b"\n\n\n",
    "thousand columns": b",".join(b"c%d" % i for i in range(1000)) + b"\n",
}


def binary_bytes(table: pa.Table, suffix: str, **options: object) -> bytes:
    sink = io.BytesIO()
    if suffix == "parquet":
        pq.write_table(table, sink, **options)
    else:
        feather.write_feather(table, sink, **options)
    return sink.getvalue()


def hostile_tables() -> dict[str, pa.Table]:
    good = pa.Table.from_pandas(make_candles(20).reset_index())
    close = good.column_names.index("close")
    time = good.column_names.index("timestamp")
    n = good.num_rows
    return {
        "text prices": good.set_column(close, "close", pa.array(["=1+1"] * n)),
        "nested prices": good.set_column(close, "close", pa.array([[1.0]] * n)),
        "boolean prices": good.set_column(close, "close", pa.array([True] * n)),
        "text times": good.set_column(time, "timestamp", pa.array(["<script>"] * n)),
        "struct times": good.set_column(time, "timestamp", pa.array([{"a": 1}] * n)),
        "null time": good.set_column(time, "timestamp", pa.array([None] * n, pa.int64())),
        "no rows": good.slice(0, 0),
        "no columns": pa.table({}),
        "many columns": pa.table({f"c{i}": [1.0] for i in range(2000)}),
        "missing column": good.drop_columns(["low"]),
        "doubled column": good.append_column("open", good.column("open")),
        "doubled by case": good.append_column("OPEN", good.column("open")),
    }


def refused(lake: Lake, path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        lake.import_candles(path, symbol="BTCUSDT", interval="1m")
    text = str(caught.value)
    assert "\n" not in text and len(text) < 500 and path.name in text
    assert_untouched(lake)
    assert sorted(p.name for p in path.parent.iterdir()) in ([path.name], sorted([path.name, "lake"]))
    return text


@pytest.mark.parametrize("name", sorted(hostile_zips()))
def test_hostile_zip(lake: Lake, tmp_path: Path, name: str) -> None:
    text = refused(lake, tmp_path / "BTCUSDT-1m-2025-05.zip", hostile_zips()[name])
    if name == "bomb":
        assert "zip bomb" in text
    if name.endswith("member"):
        assert "unsafe name" in text


@pytest.mark.parametrize("name", sorted(HOSTILE_CSV))
def test_hostile_csv(lake: Lake, tmp_path: Path, name: str) -> None:
    refused(lake, tmp_path / "BTCUSDT.csv", HOSTILE_CSV[name])


def test_a_column_that_is_missing_is_named_with_what_it_may_be_called(lake: Lake, tmp_path: Path) -> None:
    said = refused(lake, tmp_path / "BTCUSDT.csv", b"Unix,Open,High,Low,Close,Volume BTC\n1700000000,1,1,1,1,1\n")
    assert "volume (volume, vol, v, base_volume); its columns are Unix, Open" in said


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
@pytest.mark.parametrize("name", sorted(hostile_tables()))
def test_hostile_table(lake: Lake, tmp_path: Path, suffix: str, name: str) -> None:
    refused(lake, tmp_path / f"BTCUSDT.{suffix}", binary_bytes(hostile_tables()[name], suffix))


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_damaged_table_is_refused_or_whole(lake: Lake, tmp_path: Path, suffix: str) -> None:
    """No checksum inside those formats: a flip may go unseen in a number, never crash or end half-read."""
    good = binary_bytes(pa.Table.from_pandas(make_candles(200).reset_index()), suffix)
    rng = np.random.default_rng(7)
    for cut in rng.integers(0, len(good) - 1, 15):
        refused(lake, tmp_path / f"BTCUSDT.{suffix}", good[:cut])
    for place in rng.integers(0, len(good), 60):
        content = bytearray(good)
        content[place] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"ETHUSDT.{suffix}"
        path.write_bytes(bytes(content))
        try:
            report = lake.import_candles(path, interval="1m")
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert report.total["rows_new"] + report.total["rows_same"] + report.total["rows_revised"] > 0


def test_bombs_in_tables(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes that unpack to far more than they may are refused before they are unpacked."""
    from aione_lab.lake import readers

    n = 200_000
    flat = pa.table({name: np.ones(n) for name in ("timestamp", "open", "high", "low", "close", "volume")})
    packed = binary_bytes(flat, "feather", compression="zstd")
    parquet = binary_bytes(flat, "parquet")
    assert len(packed) < 50_000 and len(parquet) < 50_000
    monkeypatch.setattr(readers, "MAX_UNPACKED_BYTES", 1_000_000)
    assert "more than is allowed" in refused(lake, tmp_path / "BTCUSDT.feather", packed)
    (tmp_path / "BTCUSDT.feather").unlink()
    monkeypatch.setattr(readers, "MAX_ROWS", 100_000)
    assert "rows" in refused(lake, tmp_path / "BTCUSDT.parquet", parquet)


def test_arrow_buffer_that_lies_about_its_size(lake: Lake, tmp_path: Path) -> None:
    frame = make_candles(500)
    content = bytearray(binary_bytes(pa.Table.from_pandas(frame.reset_index()), "feather", compression="lz4"))
    # A packed buffer begins with its unpacked length: 500 rows of 8 bytes.
    place = content.index(struct.pack("<q", 4000), 64)
    struct.pack_into("<q", content, place, 1 << 46)
    assert "more than is allowed" in refused(lake, tmp_path / "BTCUSDT.feather", bytes(content))


def test_file_over_the_size_limit(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aione_lab.lake import readers

    monkeypatch.setattr(readers, "MAX_FILE_BYTES", 100)
    assert "larger than" in refused(lake, tmp_path / "BTCUSDT.csv", kline_csv(make_candles(20)))
    assert lake_limits.MAX_FILE_BYTES > 100


def test_checksum_faults(lake: Lake, tmp_path: Path) -> None:
    for content, named in (("0" * 64 + "  x", "does not match"), ("", "no SHA-256"), ("hello", "no SHA-256")):
        path = write_archive(tmp_path, "BTCUSDT-1m-2025-05", kline_csv(make_candles(20)))
        path.with_name(path.name + ".CHECKSUM").write_text(content)
        with pytest.raises(InputError, match=named):
            lake.import_candles(path, interval="1m")
    assert_untouched(lake)


def test_progress_is_told(lake: Lake, tmp_path: Path) -> None:
    for symbol in ("BTCUSDT", "ETHUSDT"):
        write_archive(tmp_path, f"{symbol}-1m-2025-05", kline_csv(make_candles(10)))
    told: list[tuple[str, int, int]] = []
    lake.import_candles(tmp_path, interval="1m", progress=lambda *step: told.append(step))
    assert told == [("BTCUSDT-1m-2025-05.zip", 0, 2), ("ETHUSDT-1m-2025-05.zip", 1, 2), ("done", 2, 2)]


# ---- funding ---------------------------------------------------------------------------------------


def funding_series(n: int = 90, jitter: int = 3) -> pd.Series:
    rng = np.random.default_rng(2)
    stamps = START + 28_800_000 * np.arange(n, dtype=np.int64) + rng.integers(0, jitter + 1, n)
    index = pd.DatetimeIndex(stamps.view("M8[ms]"), name="timestamp").tz_localize("UTC")
    return pd.Series(np.round(rng.normal(1e-4, 1e-4, n), 8), index=index, name="funding_rate")


@pytest.mark.parametrize("form", ["zip", "csv", "parquet", "feather", "frame", "no header"])
def test_funding(lake: Lake, tmp_path: Path, form: str) -> None:
    rates = funding_series()
    ms = rates.index.asi8
    archive = pd.DataFrame({"calc_time": ms, "funding_interval_hours": 8, "last_funding_rate": rates.to_numpy()})
    stem = tmp_path / "BTCUSDT-fundingRate-2025-05"
    if form == "zip":
        source: object = write_archive(tmp_path, stem.name, archive.to_csv(index=False).encode(), checksum=True)
    elif form == "no header":
        source = write_archive(tmp_path, stem.name, archive.to_csv(index=False, header=False).encode())
    elif form == "csv":
        rates.to_csv(source := stem.with_suffix(".csv"))
    elif form == "parquet":
        rates.to_frame().to_parquet(source := stem.with_suffix(".parquet"))
    elif form == "feather":
        rates.reset_index().to_feather(source := stem.with_suffix(".feather"))
    else:
        source = rates.to_frame()
    report = lake.import_funding(source, symbol="BTCUSDT")
    assert (report.kind, report.total["rows_new"]) == ("funding", 90)
    pd.testing.assert_series_equal(lake.funding("BTCUSDT"), rates, check_exact=True, check_freq=False)
    assert lake.import_funding(source, symbol="BTCUSDT").total["rows_same"] == 90


def test_funding_faults(lake: Lake, tmp_path: Path) -> None:
    rates = funding_series(10).to_frame().reset_index()
    rates.loc[3, "funding_rate"] = 7.0
    rates.loc[4, "funding_rate"] = np.nan
    (file,) = lake.import_funding(rates, symbol="BTCUSDT").files
    assert (file.rows_new, file.rows_refused) == (8, 2)
    for bad, named in (
        (rates.drop(columns="funding_rate"), "funding_rate"),
        (rates.assign(funding_rate=9.0), "usable"),
    ):
        with pytest.raises(InputError, match=named):
            lake.import_funding(bad, symbol="ETHUSDT")
    (tmp_path / "ETHUSDT.csv").write_text("timestamp,funding_rate\n1746316800000,=1+1\n")
    with pytest.raises(InputError, match=r"ETHUSDT\.csv"):
        lake.import_funding(tmp_path / "ETHUSDT.csv", symbol="ETHUSDT")
    assert lake.funding("ETHUSDT").empty


# ---- real files ------------------------------------------------------------------------------------


def test_shared_files_by_a_quoted_pattern(lake: Lake, shared: Path) -> None:
    """Every real file, found by a pattern we expand, symbols from the names, equal to the source."""
    report = lake.import_candles(str(shared / "candles" / "1m" / "*.parquet"), interval="1m")
    manifest = sorted(p.stem for p in (shared / "candles" / "1m").glob("*.parquet"))
    assert lake.symbols("1m") == manifest == list(report.symbols)
    for symbol in manifest:
        source = pd.read_parquet(shared / "candles" / "1m" / f"{symbol}.parquet")
        stored = lake.candles(symbol, "1m")
        assert (stored.index.asi8 == source["timestamp"].astype("datetime64[ms, UTC]").astype("int64")).all()
        for name in CANDLE_COLUMNS[:5]:
            assert (stored[name].to_numpy() == source[name].to_numpy()).all()
    with pytest.raises(InputError, match="5m apart"):
        lake.import_candles(str(shared / "candles" / "5m" / "BTCUSDT.parquet"), interval="1m")


def test_shared_dirty_and_funding(lake: Lake, shared: Path) -> None:
    report = lake.import_candles(shared / "candles" / "dirty", interval="1m")
    assert {f.symbol: f.rows_new for f in report.files} == {"UNITTEST_BTC": 13_681, "XRP_ETH": 2_469}
    rates = lake.import_funding(shared / "candles" / "funding_8h", symbol=None)
    assert rates.symbols == ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
