"""A column of symbols in the data: what it tells, and what is refused where it tells another symbol or several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lake_files import assert_untouched, make_candles, source_of
from lake_files import lake as lake  # fixture

from aione_lab.errors import InputError
from aione_lab.lake import Lake, readers

FORMS = ["csv", "parquet", "feather", "frame"]
N = 20


def with_symbols(symbols: object, column: str = "symbol") -> pd.DataFrame:
    frame = make_candles(N).reset_index()
    return frame.assign(timestamp=frame["timestamp"].astype("int64"), **{column: symbols})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("column", ["symbol", "pair", "Ticker", "instrument", "market", "coin", "tic"])
def test_rows_of_several_symbols_are_refused(lake: Lake, tmp_path: Path, form: str, column: str) -> None:
    source = source_of(with_symbols(["BTCUSDT", "ETHUSDT"] * (N // 2), column), form, tmp_path, "BTCUSDT")
    with pytest.raises(InputError, match=r"holds rows of several symbols \(BTCUSDT, ETHUSDT\)") as told:
        lake.import_candles(source, symbol="BTCUSDT", interval="1m")
    assert "\n" not in str(told.value)
    assert_untouched(lake)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", ["ETHUSDT", "ETH/USDT:USDT", "ETH", "BTCUSDT_250926", "Bitcoin"])
def test_rows_of_another_symbol_are_refused(lake: Lake, tmp_path: Path, form: str, other: str) -> None:
    source = source_of(with_symbols(other), form, tmp_path, "BTCUSDT")
    with pytest.raises(InputError, match=r"holds rows of \w+, not of BTCUSDT"):
        lake.import_candles(source, symbol="BTCUSDT", interval="1m")
    assert_untouched(lake)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "symbols",
    [
        *("BTCUSDT", "btcusdt", "BTC/USDT:USDT", "BTC-USDT-SWAP", "BTC_USDT", "BTC", "futures"),
        pd.Categorical(["BTCUSDT"] * N, categories=["BTCUSDT", "ETHUSDT"]),
        [None] * (N - 1) + ["BTCUSDT"],
        list(range(N)),
        np.arange(N) / 7,
    ],
    ids=str,
)
def test_a_column_that_agrees_or_holds_numbers_is_no_hindrance(
    lake: Lake, tmp_path: Path, form: str, symbols: object
) -> None:
    source = source_of(with_symbols(symbols), form, tmp_path, "BTCUSDT")
    assert lake.import_candles(source, symbol="BTCUSDT", interval="1m").total["rows_new"] == N


@pytest.mark.parametrize("form", FORMS)
def test_a_column_tells_the_symbol_where_nothing_else_does(lake: Lake, tmp_path: Path, form: str) -> None:
    source = source_of(with_symbols("BTC/USDT:USDT"), form, tmp_path, "dump")
    assert lake.import_candles(source, interval="1m").symbols == ("BTCUSDT",)
    with pytest.raises(InputError, match="symbol"):
        lake.import_candles(source_of(with_symbols("BTC"), form, tmp_path, "dump"), interval="1m")


@pytest.mark.parametrize("form", FORMS)
def test_funding_of_several_symbols_is_refused(lake: Lake, tmp_path: Path, form: str) -> None:
    rates = with_symbols(["BTCUSDT", "ETHUSDT"] * (N // 2))[["timestamp", "symbol"]].assign(funding_rate=1e-4)
    source = source_of(rates, form, tmp_path, "BTCUSDT")
    with pytest.raises(InputError, match="several symbols"):
        lake.import_funding(source, symbol="BTCUSDT")
    assert lake.funding("BTCUSDT").empty


def repeated_text(rows: int, length: int, **options: object) -> bytes:
    """A Parquet file whose column of symbols is a long text in every row."""
    candles = pa.Table.from_pandas(make_candles(rows).reset_index())
    symbols = pa.DictionaryArray.from_arrays(np.zeros(rows, dtype=np.int32), ["B" * length])
    sink = pa.BufferOutputStream()
    pq.write_table(candles.append_column("symbol", symbols), sink, **options)
    return sink.getvalue().to_pybytes()


def test_a_text_in_every_row_of_a_parquet_file_is_unpacked_once(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT.parquet"
    path.write_bytes(repeated_text(50_000, 10_000_000))  # 500 GB as plain text
    assert path.stat().st_size < 20_000_000
    with pytest.raises(InputError, match="holds rows of B{40}, not of BTCUSDT"):
        lake.import_candles(path, interval="1m")


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY"])
def test_the_size_of_a_column_of_symbols_counts(
    lake: Lake, tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "MAX_UNPACKED_BYTES", 1_000_000)
    path = tmp_path / "BTCUSDT.parquet"
    path.write_bytes(repeated_text(1000, 5000, use_dictionary=False, column_encoding={"symbol": encoding}))
    with pytest.raises(InputError, match=r"declares \d+ bytes of data|cannot be read as parquet"):
        lake.import_candles(path, interval="1m")


def test_texts_that_point_outside_of_a_feather_file_are_refused(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT.feather"
    frame = with_symbols("BTCUSDT")
    table = pa.Table.from_pandas(frame)
    offsets = np.arange(0, 7 * N + 1, 7, dtype=np.int32)
    offsets[5] = 2**30
    hostile = pa.StringArray.from_buffers(N, pa.py_buffer(offsets), pa.py_buffer(b"BTCUSDT" * N))
    with pa.ipc.new_file(path, (table := table.set_column(table.num_columns - 1, "symbol", hostile)).schema) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match="cannot be read as feather"):
        lake.import_candles(path, interval="1m")
