"""Import of candle and funding files: exchange archives, CSV, Parquet, feather, frames, whole folders.

Every file is read whole, checked, screened and only then appended, in one atomic step per file, so
that a file that is refused leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from aione_lab.errors import InputError, LakeError
from aione_lab.lake.limits import BadFileError, single_csv_member
from aione_lab.lake.names import (
    NamedFile,
    find_files,
    holds_other_prices,
    is_coin_margined,
    printable,
    read_name,
    same_symbol,
    symbol_of_rows,
    with_member,
)
from aione_lab.lake.parts import FUNDING
from aione_lab.lake.progress import ProgressCallback, progress_reporter
from aione_lab.lake.readers import (
    CANDLE_NAMES,
    CANDLE_REQUIRED,
    FUNDING_NAMES,
    FUNDING_REQUIRED,
    frame_table,
    read_bytes,
    read_file,
)
from aione_lab.lake.reports import FileReport, ImportReport, refusals
from aione_lab.lake.schema import screen_candles
from aione_lab.lake.stamps import FINER_THAN_MS, mend_stamps, plausible, utc_index
from aione_lab.lake.times import check_file_spacing, seconds_to_milliseconds
from aione_lab.units import interval_ms, parse_symbol

if TYPE_CHECKING:
    from aione_lab.lake.store import Appended, Lake

Source = str | Path | Iterable[str | Path] | pd.DataFrame


def import_candles(
    lake: Lake,
    source: Source,
    *,
    symbol: str | None = None,
    interval: str,
    progress: ProgressCallback | bool | None = None,
) -> ImportReport:
    """Import candles into ``lake``.

    ``source`` is a file (``.zip`` of an exchange archive, ``.csv``, ``.parquet``, ``.feather``), a
    folder, a pattern such as ``"klines/*-1m-*.zip"``, a list of those, or a DataFrame. The symbol comes
    from the file's name or hive path, else from a column ``symbol``; ``symbol`` says it where they do not,
    and must agree where they do. ``interval`` must agree with the name and with the distance of the rows.
    A file holds one symbol. A ``.CHECKSUM`` file beside an archive is verified.

    Rows with a fault are left out and reported with the reason; a candle that has not ended yet is
    one of them. A row that is in the lake already with other values is revised (the later import wins).

    Raises InputError with one line when the only file cannot be used, or none of several can, and LakeError
    when the only one cannot be stored; otherwise refused files, and those whose series in the lake is
    damaged, stand in the report by name and the others are imported.
    """
    step = interval_ms(interval)

    def parse(table: pd.DataFrame, named: str) -> FileReport:
        if is_coin_margined(named):
            raise BadFileError(f"is of {named}, margined in coins: its volume counts contracts, not units of the base")
        stamps = seconds_to_milliseconds(table["timestamp"].to_numpy(), step)
        check_file_spacing(stamps, interval)
        good, refused = screen_candles(table.assign(timestamp=stamps), interval, now_ms=int(time.time() * 1000))
        if good.empty:
            raise BadFileError(f"holds no usable candle; {_worst(refused)}")
        notes = tuple(f"{n} {fault} stamps mended" for fault, n in good.attrs.get("stamps_fixed", {}).items())
        return _report(named, table, lake.append(named, interval, good), refused, notes)

    def check_name(file: NamedFile) -> None:
        if other := holds_other_prices(file.path):
            raise BadFileError(f"lies in a folder {other!r}: those are not the prices of trades")
        if file.interval is not None and file.interval != interval:
            raise BadFileError(f"interval={interval!r} was named, but its name says {file.interval}")

    return _import(
        lake, source, symbol, "candles", interval, CANDLE_NAMES, CANDLE_REQUIRED, check_name, parse, progress
    )


def _report(
    symbol: str, table: pd.DataFrame, done: Appended, refused: pd.DataFrame, notes: tuple[str, ...]
) -> FileReport:
    """What one file's rows became; the caller fills in the file's name."""
    return FileReport(
        file="",
        symbol=symbol,
        rows_read=len(table),
        rows_new=done.rows_new,
        rows_same=done.rows_same,
        rows_revised=done.rows_revised,
        rows_refused=len(refused),
        refused=refusals(refused),
        notes=notes,
    )


def import_funding(
    lake: Lake,
    source: Source,
    *,
    symbol: str | None = None,
    progress: ProgressCallback | bool | None = None,
) -> ImportReport:
    """Import funding rates (fractions a payment) into ``lake``; sources, names and errors as for candles.

    Columns ``timestamp`` (or ``calc_time``) and ``funding_rate`` (or ``last_funding_rate``). Stamps are
    kept to the millisecond, as exchanges give them. Rows without a time or a rate in (-1, 1) are
    left out and reported.
    """

    def parse(table: pd.DataFrame, named: str) -> FileReport:
        good, refused, notes = screen_funding(table)
        if good.empty:
            raise BadFileError(f"holds no usable funding rate; {_worst(refused)}")
        return _report(named, table, lake.append_funding(named, good), refused, notes)

    return _import(
        lake, source, symbol, "funding", None, FUNDING_NAMES, FUNDING_REQUIRED, lambda file: None, parse, progress
    )


def screen_funding(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    """Split funding rows (``timestamp`` int64, ``funding_rate``) into good ones, refused ones and notes on stamps.

    Two rows nearest to one minute are one payment, as in the lake: the later one is kept.
    """
    given = table["timestamp"].to_numpy()
    ms, fixed = mend_stamps(seconds_to_milliseconds(given), 1)
    rate = pd.to_numeric(table["funding_rate"], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    reasons = np.where(plausible(ms), "", "timestamp is outside 2009-2100").astype(object)
    reasons[ms == FINER_THAN_MS] = "timestamp has a fraction of a millisecond"
    reasons[(reasons == "") & ~(np.abs(rate) < 1.0)] = "funding_rate must be a fraction in (-1, 1)"
    good = np.flatnonzero(reasons == "")
    order = good[np.argsort(ms[good], kind="stable")]
    if len(order):
        minutes = FUNDING.keys(ms[order])
        last = np.append(minutes[1:] != minutes[:-1], True)
        reasons[order[~last]] = "nearest to the same minute as a later row, which is kept"
        order = order[last]
    bad = np.flatnonzero(reasons != "")
    notes = tuple(f"{n} {fault} stamps mended" for fault, n in fixed.items())
    frame = pd.DataFrame({"funding_rate": rate[order]}, index=utc_index(ms[order]))
    return frame, pd.DataFrame({"timestamp": given[bad], "reason": reasons[bad]}), notes


def _import(
    lake: Lake,
    source: Source,
    symbol: str | None,
    kind: str,
    interval: str | None,
    names: dict[str, tuple[str, ...]],
    required: tuple[str, ...],
    check_name: Callable[[NamedFile], None],
    parse: Callable[[pd.DataFrame, str], FileReport],
    progress: ProgressCallback | bool | None,
) -> ImportReport:
    """The walk over files that candles and funding share."""
    lake.check_writable()
    asked = None if symbol is None else parse_symbol(symbol)
    if isinstance(source, pd.DataFrame):
        try:
            table = frame_table(source, names, required)
            if asked is None and not table.symbols:
                raise InputError.of("symbol", symbol, "must be given with a DataFrame, which has no name to tell it")
            report = parse(table.rows, symbol_of_rows(table.symbols, asked))
        except BadFileError as error:
            raise InputError.of("source", "DataFrame", str(error)) from None
        return ImportReport(kind=kind, interval=interval, files=(report.model_copy(update={"file": "DataFrame"}),))

    own = [Path(lake.root) / folder for folder in ("candles", "funding")]  # "import ." may hold the lake itself
    files = [read_name(path, kind) for path in find_files(source, own)]
    if asked is not None:
        _check_asked(asked, files)
    _check_markets(source, asked, [file for file in files if file.interval in (None, interval)])
    reports: list[FileReport] = []
    with progress_reporter(progress, f"importing {kind}") as tell:
        for number, file in enumerate(files):
            path = str(file.path).encode("utf-8", "backslashreplace").decode()  # a report must go into JSON
            tell(printable(file.path.name), number, len(files))
            named = asked or file.symbol
            try:
                check_name(file)
                data = read_bytes(file.path)
                notes = _verify_checksum(file.path, data)
                suffix = file.path.suffix.lower()
                if suffix == ".zip":
                    member, data = single_csv_member(data)
                    suffix, told = ".csv", with_member(file._replace(symbol=named), member, kind)
                    check_name(told)
                    named = told.symbol
                table = read_file(suffix, data, names, required)
                named = symbol_of_rows(table.symbols, named)
                report = parse(table.rows, named)
                reports.append(report.model_copy(update={"file": path, "notes": (*notes, *table.notes, *report.notes)}))
            except BadFileError as error:
                if len(files) == 1:
                    raise InputError.of("source", str(file.path), str(error)) from None
                reports.append(FileReport(file=path, symbol=named, error=str(error)))
            except (LakeError, InputError) as error:  # its series is damaged or locked, or does not take its rows
                if len(files) == 1:
                    raise
                reports.append(FileReport(file=path, symbol=named, error=f"could not be stored: {error}"))
        tell("done", len(files), len(files))
    if all(report.error is not None for report in reports):
        first = reports[0]
        allowed = f"none of {len(reports)} files could be used; {first.file} {first.error}"
        raise InputError.of("source", str(source), allowed)
    return ImportReport(kind=kind, interval=interval, files=tuple(reports))


def _check_asked(symbol: str, files: list[NamedFile]) -> None:
    """Refuse a symbol that was said where the names of the files tell another one."""
    told = {file.symbol: file.path.name for file in files if file.symbol is not None}
    if len(told) > 1:
        listed = ", ".join(sorted(told)[:5])
        raise InputError.of("symbol", symbol, f"cannot name files of several symbols ({listed}); leave it out")
    for other, name in told.items():
        if not same_symbol(symbol, other):
            allowed = f"contradicts the name of {printable(name)}, which says {other}; leave it out or rename the file"
            raise InputError.of("symbol", symbol, allowed)


def _check_markets(source: Source, asked: str | None, files: list[NamedFile]) -> None:
    """Refuse files of one symbol of which some are of the spot market and others are futures: the last would win."""
    seen: dict[str | None, NamedFile] = {}
    for file in files:
        if file.market is not None:
            symbol = asked or file.symbol
            other = seen.setdefault(symbol, file)
            if symbol is not None and other.market != file.market:
                pair = " and ".join(f"{printable(str(one.path))} ({one.market})" for one in (other, file))
                allowed = f"holds {symbol} of two markets, {pair}; import them into two lakes"
                raise InputError.of("source", str(source), allowed)


def _verify_checksum(path: Path, data: bytes) -> tuple[str, ...]:
    """Hold ``data`` against the ``.CHECKSUM`` file beside ``path`` (``<sha256>  <name>``), where there is one."""
    beside = path.with_name(path.name + ".CHECKSUM")
    if not beside.exists():
        return ()
    try:
        with beside.open("rb") as stream:
            words = stream.read(4096).decode("ascii", errors="replace").split()
    except OSError as error:
        raise BadFileError(f"has a {beside.name} that cannot be opened ({error.strerror})") from None
    if not words or not re.fullmatch(r"[0-9a-fA-F]{64}", words[0]):
        raise BadFileError(f"has a {beside.name} that holds no SHA-256")
    if hashlib.sha256(data).hexdigest() != words[0].lower():
        raise BadFileError(f"does not match its {beside.name}: it is damaged, incomplete or was re-issued")
    return ("checksum verified",)


def _worst(refused: pd.DataFrame) -> str:
    groups = refusals(refused)
    if not groups:
        return "it is empty"
    most = max(groups, key=lambda group: group.rows)
    return f"{most.rows} of {len(refused)} rows refused: {most.reason}"
