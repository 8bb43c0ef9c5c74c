"""``fetch``, ``import`` and ``audit``: candles into the lake, and what they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aione_lab.cli.options import DEFAULT_LAKE, End, Json, LakeFolder, LakeToWrite, by_option, known_symbol, open_lake
from aione_lab.cli.output import add_row, console, emit_json, say, table
from aione_lab.errors import InputError

if TYPE_CHECKING:
    from aione_lab.lake import Lake
    from aione_lab.lake.audit import AuditReport


_OPTIONS = {
    **{name: f"--{name}" for name in ("interval", "exchange", "symbol")},
    "since": "--start",
    "until": "--end",
    "root": "--lake",
    "symbols": "SYMBOL",
    "source": "PATH",
    "sources": "PATH",
}
_BY_ARGUMENT = {**_OPTIONS, "symbol": "SYMBOL"}


@by_option(_BY_ARGUMENT)
def fetch(
    symbols: Annotated[
        list[str], typer.Argument(metavar="SYMBOL...", help="BTCUSDT or BTC/USDT:USDT, one or several.")
    ],
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            metavar="TIME",
            help="First candle wanted, ISO date or time (UTC); left out: where the lake ends.",
        ),
    ] = None,
    end: End = None,
    interval: Annotated[str, typer.Option("--interval", help="1m, 5m, 1h, …")] = "1m",
    exchange: Annotated[str, typer.Option("--exchange", help="A ccxt exchange id.")] = "binanceusdm",
    folder: LakeToWrite = DEFAULT_LAKE,
    as_json: Json = False,
) -> None:
    """Download candles and funding rates from an exchange into the lake.

    Only what the lake does not hold is asked for, so the same command goes on
    after an interruption and keeps a lake up to date. Unfinished candles are
    never stored. Without --start it goes on where the lake's candles end.
    Exit code 1: some of the symbols failed.

    Examples:

      aione-lab fetch BTCUSDT SOLUSDT --start 2025-05-01
      aione-lab fetch BTCUSDT SOLUSDT
      aione-lab fetch SOL/USDT:USDT --start 2025-05-01 --interval 5m
    """
    from aione_lab.lake import Lake

    lake = Lake(folder)
    lake.check_writable()
    since = _common_end(lake, symbols, interval) if start is None else start
    report = lake.fetch(exchange, symbols, interval, since=since, until=end)
    emit_json(report.to_dict()) if as_json else say(str(report))
    failed = [symbol for symbol in report.symbols if symbol.error is not None]
    if failed:
        _in_part(f"{len(failed)} of {len(report.symbols)} symbols failed; {failed[0].symbol}: {failed[0].error}")


def _common_end(lake: Lake, symbols: list[str], interval: str) -> int:
    """Up to where the lake holds candles of every symbol (UTC ms); refused where it holds none of one."""
    ends = []
    for symbol in symbols:
        span = lake.span(symbol, interval)
        if span is None:
            raise InputError.of(
                "--start",
                None,
                f"must be given: the lake {lake.root} holds no {interval} candles of {symbol} to go on from",
            )
        ends.append(span[1])
    return min(ends)


@by_option(_OPTIONS)
def import_(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Files (.zip .csv .parquet .feather), folders, or patterns in quotes."),
    ],
    interval: Annotated[
        str | None, typer.Option("--interval", help="Interval of the candles in the files: 1m, 5m, 1h, …")
    ] = None,
    symbol: Annotated[
        str | None, typer.Option("--symbol", help="Where the file names do not tell it.", metavar="SYMBOL")
    ] = None,
    funding: Annotated[bool, typer.Option("--funding", help="The files hold funding rates, not candles.")] = False,
    folder: LakeToWrite = DEFAULT_LAKE,
    as_json: Json = False,
) -> None:
    """Import candles (or funding rates) from files and whole folders.

    Exchange archives (.zip), CSV, Parquet and feather are read. The symbol comes
    from the file name. Rows with a fault are left out and counted with the
    reason; a file that is refused leaves nothing behind. Importing twice changes
    nothing. Exit code 1: some of several files were refused.

    Examples:

      aione-lab import BTCUSDT-1m-2025-05.zip --interval 1m
      aione-lab import 'candles/*.parquet' --interval 1m
      aione-lab import funding/BTCUSDT-fundingRate-2025-05.zip --funding
    """
    from aione_lab.lake import Lake

    if funding:
        if interval is not None:
            raise InputError.of("--interval", interval, "does not go with --funding, rates have times of their own")
        report = Lake(folder).import_funding(sources, symbol=symbol)
    else:
        if interval is None:
            raise InputError.of("--interval", None, "must be given: the interval of the candles, such as 1m")
        report = Lake(folder).import_candles(sources, symbol=symbol, interval=interval)
    emit_json(report.to_dict()) if as_json else say(str(report))
    refused = [file for file in report.files if file.error is not None]
    if refused:
        _in_part(f"{len(refused)} of {len(report.files)} files were refused; {refused[0].file}: {refused[0].error}")


@by_option(_BY_ARGUMENT)
def audit(
    symbols: Annotated[
        list[str] | None, typer.Argument(metavar="[SYMBOL...]", help="Symbols to audit; all of the lake if left out.")
    ] = None,
    interval: Annotated[
        str | None, typer.Option("--interval", help="Only this interval; every one there is if left out.")
    ] = None,
    folder: LakeFolder = DEFAULT_LAKE,
    as_json: Json = False,
) -> None:
    """Look for gaps, impossible bars, frozen stretches and damaged files.

    Every series gets a verdict: clean, usable with gaps, or broken.
    Exit code 1: at least one series is broken.

    Examples:

      aione-lab audit
      aione-lab audit SOLUSDT --interval 1m --json
    """
    from aione_lab.lake import audit as audits

    lake = open_lake(folder)
    if interval is not None:
        names = [known_symbol(lake, name, interval) for name in symbols] if symbols else lake.symbols(interval)
        series = [(name, interval) for name in names]
    else:
        names = [known_symbol(lake, name, None) for name in symbols] if symbols else lake.symbols()
        series = [(name, one) for name in names for one in lake.intervals(name)]
    if not series:
        raise InputError.of("--lake", lake.root, f"holds no {interval or ''} candles".replace("  ", " "))
    shared = {one: audits.Witnesses(lake, one) for _, one in series} if len(names) > 1 else {}
    reports = [audits.audit_lake(lake, name, one, witnesses=shared.get(one)) for name, one in series]
    damaged = audits.funding_faults(lake, names if symbols else None)
    if as_json:
        emit_json({"lake": lake.root, "series": [report.to_dict() for report in reports], "funding_faults": damaged})
    else:
        show_audits(reports)
    if damaged:
        _in_part("; ".join(damaged.values()))
    broken = [report for report in reports if report.verdict == "broken"]
    if broken:
        _in_part(f"{len(broken)} of {len(reports)} series are broken; {broken[0].symbol}: {broken[0].sentence}")


def show_audits(reports: list[AuditReport]) -> None:
    """One line a series, and the findings of those that have any."""
    out = console()
    made = table("series", "verdict", "candles", "missing", "first", "last", numbers_from=2)
    for report in reports:
        ends = [(time or "-")[:16].replace("T", " ") for time in (report.first, report.last)]
        name = f"{report.symbol} {report.interval}"
        add_row(made, name, report.verdict, f"{report.rows:,}", f"{report.bars_missing:,}", *ends)
    out.print(made)
    for report in reports:
        if report.verdict != "clean":
            say(str(report))


def _in_part(message: str) -> None:
    """Done, but not all of it: said on standard error, exit code 1."""
    say("warning: " + " ".join(message.split()), err=True)
    raise typer.Exit(1)
