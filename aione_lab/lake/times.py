"""Times in the columns of foreign files: their unit, their zone, and how far they stand apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from aione_lab.lake.limits import BadFileError
from aione_lab.lake.schema import spacing_fault
from aione_lab.lake.stamps import mend_stamps, read_stamps
from aione_lab.units import EARLIEST_MS, INTERVALS, LATEST_MS

_UTC_WANTED = "must be UTC, such as 2025-01-01T00:00:00Z, or integer ms"


def one_line(error: BaseException) -> str:
    """The first line of an error's text, cut to a readable length."""
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    return line if len(line) <= 160 else line[:157] + "..."


def is_number(text: str) -> bool:
    """Whether a cell of text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def column_stamps(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Stamps as int64: integers as they stand, everything that carries its own unit in milliseconds.

    A time without a zone may have been meant as anybody's local time, and is refused. One with a fraction of
    a millisecond becomes ``FINER_THAN_MS``, as in a frame.
    """
    if column.null_count:
        row = column.is_null().index(True).as_py()
        raise BadFileError(f"row {row + 1} has no time")
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = _text_times(column, name)
        kind = column.type
    if pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.tz is None):
        raise BadFileError(f"column {name[:40]!r} has no time zone; {_UTC_WANTED}")
    if pa.types.is_timestamp(kind):
        times = pc.cast(column, pa.int64()).to_numpy().view(f"M8[{kind.unit}]")
        return read_stamps(pd.DatetimeIndex(times).tz_localize("UTC"), name)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = np.array(pc.cast(column, pa.float64(), safe=False).to_numpy())
        wrong = ~(np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < 2**63))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise BadFileError(f"row {row + 1} has the time {float(values[row])!r}, no whole number of 64 bits")
        return values.astype(np.int64)
    if pa.types.is_integer(kind):
        return np.array(pc.cast(column, pa.int64()).to_numpy())
    raise BadFileError(f"the time column holds {str(kind)[:60]}, neither integers nor dates")


def _text_times(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Times out of text, all of them with a zone; BadFileError names the first cell of another kind.

    Beside ISO text ``2025/01/01 00:00:00 UTC`` is read.
    """
    zoned = pa.timestamp("ns", "UTC")
    plain = pc.replace_substring_regex(column, r"^(\d{4})/(\d{2})/(\d{2})", r"\1-\2-\3")
    plain = pc.replace_substring_regex(plain, r"(?i)\s*UTC$", "Z")
    try:
        return pc.cast(plain, zoned)
    except pa.ArrowException:
        pass  # which cell it is takes a closer look
    cells = column.to_pylist()
    numbers = [is_number(cell) for cell in cells]
    mostly_numbers = 2 * sum(numbers) >= len(cells)
    for row, (cell, time, number) in enumerate(zip(cells, plain.to_pylist(), numbers, strict=True), start=1):
        if number if mostly_numbers else _casts(time, zoned):
            continue
        fault = "has no time zone" if _casts(time, pa.timestamp("ns")) else "is no time"
        raise BadFileError(f"row {row}: {cell[:40]!r} in column {name[:40]!r} {fault}; {_UTC_WANTED}")
    raise BadFileError(f"column {name[:40]!r} holds numbers beyond 64 bits; {_UTC_WANTED}")


def _casts(text: str, kind: pa.DataType) -> bool:
    try:
        pc.cast(pa.scalar(text), kind)
    except pa.ArrowException:
        return False
    return True


def seconds_to_milliseconds(stamps: np.ndarray, step_ms: int | None = None) -> np.ndarray:
    """Integer stamps of a file that counts in seconds as milliseconds; every other unit is left to the screen.

    The median decides, so that one broken row does not; what is no time in seconds stays as it is.
    Seconds of our time have ten digits, and so have milliseconds cut to 32 bits: where ``step_ms`` is
    known, the spacing of the rows tells them apart.
    """
    middle = int(np.median(stamps)) if len(stamps) else 0
    if not EARLIEST_MS <= middle * 1000 < LATEST_MS:
        return stamps
    if step_ms is not None and (_spacing(stamps) or 0) * 1000 != step_ms:
        return stamps
    seconds = (stamps >= EARLIEST_MS // 1000) & (stamps < LATEST_MS // 1000)
    return np.where(seconds, stamps * 1000, stamps)


def _spacing(stamps: np.ndarray) -> int | None:
    """The most common positive distance between neighbours in time; None with fewer than two stamps."""
    gaps = np.diff(np.unique(stamps))
    if len(gaps) == 0:
        return None
    values, counts = np.unique(gaps, return_counts=True)
    return int(values[np.argmax(counts)])


def check_file_spacing(stamps: np.ndarray, interval: str) -> None:
    """Refuse a table whose rows stand at another distance than ``interval`` (see ``spacing_fault``); BadFileError."""
    mended, _ = mend_stamps(stamps, INTERVALS[interval])
    if (apart := spacing_fault(mended, interval)) is not None:
        raise BadFileError(f"interval={interval!r} was named, but its rows stand {apart} apart")
