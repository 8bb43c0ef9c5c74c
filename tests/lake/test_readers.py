"""How the text of files is read: line ends, delimiters, times."""

from __future__ import annotations

from pathlib import Path

import pytest
from lake_files import kline_csv, make_candles, write_archive
from lake_files import lake as lake  # fixture

from aione_lab.lake import Lake


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
