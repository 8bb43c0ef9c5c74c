"""How the text of files is read: line ends, delimiters, times."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from lake_files import START, kline_csv, make_candles, source_of, write_archive
from lake_files import lake as lake  # fixture

from aione_lab.errors import InputError
from aione_lab.lake import Lake
from aione_lab.lake.reports import Refusal


@pytest.mark.parametrize("suffix", ["csv", "zip"])
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_last_line_without_an_end_is_noted(lake: Lake, tmp_path: Path, suffix: str, cut: int) -> None:
    content = kline_csv(make_candles(20))
    content = content[: len(content) - cut]
    path = tmp_path / "BTCUSDT-1m-2025-05.csv"
    path.write_bytes(content)
    if suffix == "zip":
        path = write_archive(tmp_path, path.stem, content)
    (file,) = lake.import_candles(path, interval="1m").files
    assert file.rows_new == 20
    assert file.notes == (("the last line has no line end: the file may be cut",) if cut else ())


@pytest.mark.parametrize(
    "text",
    [
        "%Y-%m-%d %H:%M:%S UTC",
        "%Y-%m-%d %H:%M:%SUTC",
        "%Y/%m/%d %H:%M:%S+00:00",
        "%Y/%m/%d %H:%M UTC",
        "%Y-%m-%dT%H:%MZ",
    ],
)
def test_times_as_other_stores_write_them(lake: Lake, tmp_path: Path, text: str) -> None:
    frame = make_candles(20)
    frame.set_axis(frame.index.strftime(text)).rename_axis("date").to_csv(tmp_path / "BTCUSDT.csv")
    lake.import_candles(tmp_path / "BTCUSDT.csv", interval="1m")
    assert lake.candles("BTCUSDT", "1m").index.equals(frame.index)


def test_slashes_alone_tell_no_zone(lake: Lake, tmp_path: Path) -> None:
    frame = make_candles(20)
    frame.set_axis(frame.index.strftime("%Y/%m/%d %H:%M:%S")).rename_axis("date").to_csv(tmp_path / "BTCUSDT.csv")
    with pytest.raises(InputError, match="'2025/05/04 00:00:00' in column 'date' has no time zone"):
        lake.import_candles(tmp_path / "BTCUSDT.csv", interval="1m")


@pytest.mark.parametrize("form", ["csv", "parquet", "feather", "frame"])
@pytest.mark.parametrize("unit", ["us", "ns"])
def test_a_fraction_of_a_millisecond_is_refused_and_not_cut(lake: Lake, tmp_path: Path, form: str, unit: str) -> None:
    frame = make_candles(20).reset_index()
    times = frame["timestamp"].dt.as_unit(unit)
    times[7] += pd.Timedelta(400, "us")
    frame["timestamp"] = times
    (file,) = lake.import_candles(source_of(frame, form, tmp_path, "BTCUSDT"), symbol="BTCUSDT", interval="1m").files
    assert (file.rows_new, file.rows_refused) == (19, 1)
    assert file.refused == (Refusal(reason="timestamp has a fraction of a millisecond", rows=1),)


def test_funding_with_a_fraction_of_a_millisecond_is_refused(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT.csv"
    path.write_text("date,funding_rate\n2025-05-04T00:00:00.0004Z,0.0001\n2025-05-04T08:00:00.002Z,0.0001\n")
    (file,) = lake.import_funding(path).files
    assert (file.rows_new, [one.reason for one in file.refused]) == (1, ["timestamp has a fraction of a millisecond"])
    assert lake.funding("BTCUSDT").index.asi8.tolist() == [START + 8 * 3_600_000 + 2]


@pytest.mark.parametrize("name", [None, "timestamp"])
def test_an_unnamed_index_of_times_is_read_from_text_too(lake: Lake, tmp_path: Path, name: str | None) -> None:
    frame = make_candles(20)
    frame.rename_axis(name).to_csv(tmp_path / "BTCUSDT.csv")
    lake.import_candles(tmp_path / "BTCUSDT.csv", interval="1m")
    assert lake.candles("BTCUSDT", "1m").index.equals(frame.index)


def test_an_index_of_row_numbers_is_passed_over(lake: Lake, tmp_path: Path) -> None:
    frame = make_candles(20)
    frame.reset_index().to_csv(tmp_path / "BTCUSDT.csv")
    lake.import_candles(tmp_path / "BTCUSDT.csv", interval="1m")
    assert lake.candles("BTCUSDT", "1m").index.equals(frame.index)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_beside_another_delimiter_commas_part_nothing(lake: Lake, tmp_path: Path, delimiter: str) -> None:
    cells = [str(START), "100,5", "101,5", "99,5", "100,5", "10,5"]
    (tmp_path / "BTCUSDT.csv").write_text(delimiter.join(cells) + "\n")
    with pytest.raises(InputError, match="invalid value '100,5'"):
        lake.import_candles(tmp_path / "BTCUSDT.csv", interval="1m")
    (tmp_path / "BTCUSDT.csv").write_text(delimiter.join(cells).replace(",", ".") + "\n")
    assert lake.import_candles(tmp_path / "BTCUSDT.csv", interval="1m").total["rows_new"] == 1
