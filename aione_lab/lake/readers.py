"""Bytes of candle and funding files, and frames → one plain table: raw integer stamps and floats.

Nothing is judged here row by row: that is the screen's work (``lake.schema``). What cannot be read
as a table at all is refused whole with :class:`~aione_lab.lake.limits.BadFileError`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from aione_lab.lake.limits import (
    MAX_COLUMNS,
    MAX_FILE_BYTES,
    MAX_ROWS,
    MAX_UNPACKED_BYTES,
    MAX_ZIP_BYTES,
    BadFileError,
    check_arrow_message,
)
from aione_lab.lake.schema import need_columns
from aione_lab.lake.stamps import read_stamps
from aione_lab.lake.times import column_stamps, is_number, one_line

_SYMBOL_NAMES = ("symbol", "pair", "ticker", "instrument", "market", "coin", "tic")
# Our name → the names other stores use, compared in lower case with blanks as "_"; the first that is there counts.
CANDLE_NAMES: dict[str, tuple[str, ...]] = {
    "timestamp": ("timestamp", "open_time", "opentime", "open_timestamp", "unix", "datetime", "date", "time", "ts"),
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    "volume": ("volume", "vol", "v", "base_volume"),
    "quote_volume": ("quote_volume", "quote_asset_volume", "quotevolume", "quote_vol", "turnover"),
    "trades": ("trades", "count", "number_of_trades", "num_trades", "trade_count", "tradecount"),
    "taker_buy_volume": ("taker_buy_volume", "taker_buy_base_asset_volume", "taker_buy_base_volume", "taker_buy_base"),
    "symbol": _SYMBOL_NAMES,
}
CANDLE_REQUIRED = ("timestamp", "open", "high", "low", "close", "volume")
FUNDING_NAMES: dict[str, tuple[str, ...]] = {
    "timestamp": ("timestamp", "calc_time", "fundingtime", "funding_time", "datetime", "date", "time", "ts"),
    "funding_rate": ("funding_rate", "last_funding_rate", "fundingrate", "lastfundingrate", "rate"),
    "symbol": _SYMBOL_NAMES,
}
FUNDING_REQUIRED = ("timestamp", "funding_rate")

_UNNAMED_INDEX = "__index_level_0__"
MAX_SYMBOLS = 1000  # so many different texts of a column of symbols are looked at: a second one is one too many

# What exchange archives without a header line hold, by the number of their columns.
_KLINE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
).split(",")
_HEADERLESS = {
    12: _KLINE_HEADER,
    6: _KLINE_HEADER[:6],
    3: ["calc_time", "funding_interval_hours", "last_funding_rate"],
    2: ["timestamp", "funding_rate"],
}


class FileTable(NamedTuple):
    """Rows of a file under our column names, each text its column of symbols holds, and notes on the whole file.

    ``timestamp`` is int64, in the unit of the file: the caller makes milliseconds of it.
    """

    rows: pd.DataFrame
    symbols: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_file(suffix: str, data: bytes, names: dict[str, tuple[str, ...]], required: tuple[str, ...]) -> FileTable:
    """Read ``data``, the content of a file of the kind ``suffix`` (``.csv``).

    Columns are float64, in file order; those nobody knows are left out. Raises BadFileError, also for
    times without a zone.
    """
    notes: tuple[str, ...] = ()
    try:
        if suffix == ".csv":
            table, chosen = _csv_table(data, names, required)
            if b"\n" in data and not data.endswith((b"\n", b"\r")):
                notes = ("the last line has no line end: the file may be cut",)
        elif suffix in (".parquet", ".pq"):
            table, chosen = _parquet_table(data, names, required)
        else:
            table, chosen = _arrow_table(data, names, required)
        table = table.rename_columns(list(chosen))
        symbols: tuple[str, ...] = ()
        if "symbol" in chosen:
            symbols = _symbols(_texts(table.column("symbol")))
            table = table.drop_columns("symbol")
        return FileTable(_plain_frame(table, chosen["timestamp"]), symbols, notes)
    except (pa.ArrowException, OSError, MemoryError, OverflowError, UnicodeDecodeError, ValueError) as error:
        raise BadFileError(f"cannot be read as {suffix[1:]} ({one_line(error)})") from None


def read_bytes(path: Path) -> bytes:
    """The whole content of ``path``, within bounds; BadFileError when it is too large or unreadable."""
    limit = MAX_ZIP_BYTES if path.suffix.lower() == ".zip" else MAX_FILE_BYTES
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise BadFileError(f"cannot be opened ({error.strerror})") from None
    if len(data) > limit:
        raise BadFileError(f"is larger than {limit >> 20} MiB")
    if not data:
        raise BadFileError("is empty")
    return data


def frame_table(frame: pd.DataFrame, names: dict[str, tuple[str, ...]], required: tuple[str, ...]) -> FileTable:
    """The same of a user's DataFrame; naive and non-UTC times are an InputError."""
    need_columns(frame, (), "source")
    if frame.index.dtype.kind == "M":
        times = read_stamps(frame.index, "frame.index")
        others = [c for c in frame.columns if _fold(str(c)) not in names["timestamp"]]
        frame = frame[others].reset_index(drop=True).assign(timestamp=times)
    labels = {str(column): column for column in frame.columns}
    chosen = _choose([str(column) for column in frame.columns], names, required)
    table = pd.DataFrame({ours: frame[labels[theirs]].reset_index(drop=True) for ours, theirs in chosen.items()})
    if table.empty:
        raise BadFileError("holds no rows")
    symbols = {text for text in table.pop("symbol") if isinstance(text, str)} if "symbol" in chosen else set()
    times = read_stamps(table["timestamp"], f"frame.{chosen['timestamp']}")
    return FileTable(table.assign(timestamp=times), _symbols(symbols))


def _symbols(texts: set[str]) -> tuple[str, ...]:
    """The texts of a column of symbols, sorted; numbers are no symbols, some stores number their markets."""
    return tuple(sorted(text for text in map(str.strip, texts) if text and not is_number(text)))


def _texts(column: pa.ChunkedArray) -> set[str]:
    """Each text of a column, up to ``MAX_SYMBOLS`` of them."""
    column.validate(full=True)  # the offsets of a damaged file may point anywhere
    found: set[str] = set()
    for chunk in column.chunks:
        coded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        used = coded.indices.unique().drop_null()[:MAX_SYMBOLS]  # a dictionary may hold what no row has
        found.update(text for text in coded.dictionary.take(used).to_pylist() if text is not None)
        if len(found) >= MAX_SYMBOLS:
            break
    return found


def _fold(column: str) -> str:
    return column.strip().lower().replace(" ", "_")


def _choose(columns: list[str], names: dict[str, tuple[str, ...]], required: tuple[str, ...]) -> dict[str, str]:
    """Our names → the columns that carry them; BadFileError when a required one is missing or doubled."""
    if len(columns) > MAX_COLUMNS:
        raise BadFileError(f"has {len(columns)} columns, at most {MAX_COLUMNS} are allowed")
    folded: dict[str, list[str]] = {}
    for column in columns:
        folded.setdefault(_fold(column), []).append(column)
    chosen: dict[str, str] = {}
    for ours, synonyms in names.items():
        found = next((folded[s] for s in synonyms if s in folded), [])
        if len(found) > 1:
            raise BadFileError(f"has more than one column {found[0][:40]!r}")
        if found:
            chosen[ours] = found[0]
    missing = [f"{name} ({', '.join(names[name])})" for name in required if name not in chosen]
    if missing:
        shown = ", ".join(c[:24] for c in columns[:14])
        raise BadFileError(f"has none of the columns for {', '.join(missing)}; its columns are {shown}")
    return chosen


_Chosen = tuple[pa.Table, dict[str, str]]  # the columns wanted, and our names → theirs, in the same order


def _csv_table(data: bytes, names: dict[str, tuple[str, ...]], required: tuple[str, ...]) -> _Chosen:
    first = data[: 1 << 16].removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8").rstrip("\r")
    if not first.strip() or "\x00" in first:
        raise BadFileError("is not CSV text")
    delimiter = next((mark for mark in ";\t" if mark in first), ",")  # beside those a comma is a decimal one
    cells = [cell.strip().strip('"') for cell in first.split(delimiter)]
    headed = not is_number(cells[0])
    if not headed and len(cells) not in _HEADERLESS:
        known = ", ".join(str(n) for n in _HEADERLESS)
        raise BadFileError(f"has no header line and {len(cells)} columns, without a header {known} are known")
    if headed and not cells[0]:
        cells[0] = _UNNAMED_INDEX  # pandas leaves the name of an unnamed index empty in text
    header = _with_index_name(cells) if headed else _HEADERLESS[len(cells)]
    chosen = _choose(header, names, required)
    types = {theirs: pa.float64() for ours, theirs in chosen.items() if ours != "timestamp"}
    if "symbol" in chosen:
        types[chosen["symbol"]] = pa.dictionary(pa.int32(), pa.string())
    table = pacsv.read_csv(
        pa.BufferReader(data),
        read_options=pacsv.ReadOptions(column_names=header, skip_rows=int(headed), use_threads=False),
        parse_options=pacsv.ParseOptions(delimiter=delimiter),
        convert_options=pacsv.ConvertOptions(
            column_types=types, include_columns=list(chosen.values()), strings_can_be_null=True
        ),
    )
    return table, chosen


def _parquet_table(data: bytes, names: dict[str, tuple[str, ...]], required: tuple[str, ...]) -> _Chosen:
    file = pq.ParquetFile(pa.BufferReader(data))
    meta = file.metadata
    if meta.num_rows > MAX_ROWS:
        raise BadFileError(f"declares {meta.num_rows} rows, at most {MAX_ROWS} are allowed")
    schema = file.schema_arrow
    chosen = _choose(_with_index_name(schema.names), names, required)
    if "symbol" in chosen:  # as a dictionary a text that is repeated in a million rows is unpacked once
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=[chosen["symbol"]])
        schema = file.schema_arrow
    columns = _decoded_columns(schema, chosen)
    wanted = set(columns.values())
    declared = sum(
        meta.row_group(g).column(c).total_uncompressed_size
        for g in range(meta.num_row_groups)
        for c in range(meta.num_columns)
        if meta.row_group(g).column(c).path_in_schema in wanted
    )
    if not 0 <= declared <= MAX_UNPACKED_BYTES:
        raise BadFileError(f"declares {declared} bytes of data, at most {MAX_UNPACKED_BYTES} are allowed")
    table = file.read(columns=list(columns.values()), use_threads=False, use_pandas_metadata=False)
    return table.select(list(columns.values())), columns


def _arrow_table(data: bytes, names: dict[str, tuple[str, ...]], required: tuple[str, ...]) -> _Chosen:
    """A feather (version 2) or Arrow file, read as the stream it contains after having been measured."""
    if data[:6] != b"ARROW1" or data[-6:] != b"ARROW1":
        raise BadFileError("is not a whole feather (version 2) or Arrow file")
    stream = pa.py_buffer(data)[8:]
    rows = unpacked = batches = 0
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(stream)):
        more_rows, more_bytes = check_arrow_message(message)
        rows, unpacked, batches = rows + more_rows, unpacked + more_bytes, batches + (message.type == "record batch")
        if not 0 <= rows <= MAX_ROWS or not 0 <= unpacked <= MAX_UNPACKED_BYTES:
            raise BadFileError(f"declares {rows} rows and {unpacked} bytes of data, more than is allowed")
    if pa.ipc.open_file(pa.BufferReader(data)).num_record_batches != batches:
        raise BadFileError("is a damaged Arrow file")
    reader = pa.ipc.open_stream(pa.BufferReader(stream))
    chosen = _choose(_with_index_name(reader.schema.names), names, required)
    columns = _decoded_columns(reader.schema, chosen)
    return reader.read_all().select(list(columns.values())), columns


def _with_index_name(names: list[str]) -> list[str]:
    """Pandas stores an unnamed index as ``__index_level_0__``; where no time column is, that is the time."""
    folded = {_fold(name) for name in names}
    if folded & {*CANDLE_NAMES["timestamp"], *FUNDING_NAMES["timestamp"]}:
        return names
    return ["timestamp" if name == _UNNAMED_INDEX else name for name in names]


def _decoded_columns(schema: pa.Schema, chosen: dict[str, str]) -> dict[str, str]:
    """Our names → the columns of the file; BadFileError where one holds something else than numbers or times.

    Text or nested columns of a binary file may unpack to anything. Only a column of symbols may be text,
    whose size its reader bounds; where it is none, it is left out.
    """
    columns = {}
    for ours, theirs in chosen.items():
        theirs = theirs if theirs in schema.names else _UNNAMED_INDEX
        kind = schema.field(theirs).type
        if ours == "symbol":
            if not _is_text(kind):
                continue
        elif not _is_numeric(kind) and not (ours == "timestamp" and _is_time(kind)):
            raise BadFileError(f"column {theirs[:40]!r} holds {str(kind)[:60]}, not numbers")
        columns[ours] = theirs
    return columns


def _is_text(kind: pa.DataType) -> bool:
    text = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(text) or pa.types.is_large_string(text))


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _plain_frame(table: pa.Table, time_column: str) -> pd.DataFrame:
    if table.num_rows == 0:
        raise BadFileError("holds no rows")
    columns: dict[str, np.ndarray] = {"timestamp": column_stamps(table.column("timestamp"), time_column)}
    for name in table.column_names:
        if name != "timestamp":
            columns[name] = _floats(name, table.column(name))
    return pd.DataFrame(columns)


def _floats(name: str, column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_boolean(column.type) or pa.types.is_nested(column.type):
        raise BadFileError(f"column {name!r} holds {column.type}, not numbers")
    try:
        values = pc.cast(column, pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise BadFileError(f"column {name!r} holds something that is not a number ({one_line(error)})") from None
    return np.array(values.to_numpy(), dtype=np.float64)
