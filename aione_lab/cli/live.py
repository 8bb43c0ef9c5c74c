"""``live``: a session on a terminal, from an exchange, a lake or the simulated exchange."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aione_lab.cli.live_table import Screen, counted, trades_text
from aione_lab.cli.options import (
    DEFAULT_LAKE,
    End,
    Json,
    LakeFolder,
    Start,
    a_folder,
    by_option,
    is_address,
    known_symbol,
    loaded_config,
    open_lake,
    shown_place,
)
from aione_lab.cli.output import emit_json, say
from aione_lab.cli.replays import DEFAULT_REFERENCE
from aione_lab.errors import AioneError, InputError
from aione_lab.files import make_folder

if TYPE_CHECKING:
    from aione_lab.lake import Lake
    from aione_lab.live import AlertQueue, FastSessions, Feed, NarrativeEnricher, Session

FEEDS = ("exchange", "replay", "simulated")
EXCHANGE = "binanceusdm"
SPEED = 60.0
SIMULATED_BEFORE, SIMULATED_DAYS = 3, 7  # days of history, days to come
SAME_S = 1.0  # seconds in which a second signal is the first one once more
MOST_REPLAYED = 20  # symbols of a lake that are taken where none is named


@by_option(
    {
        "port": "--metrics-port",
        "symbol": "--symbols",
        "root": "--lake",
        "folder": "--experiments",
        **{name: f"--{name}" for name in ("symbols", "exchange", "start", "end", "journal", "reference")},
    }
)
def live(
    feed: Annotated[
        str, typer.Option("--feed", metavar="KIND", help="exchange, replay (of the lake) or simulated.")
    ] = "exchange",
    symbols: Annotated[
        str | None,
        typer.Option("--symbols", metavar="A,B,…", help="Symbols; left out: BTCUSDT, or all there are to replay."),
    ] = None,
    prefilter: Annotated[
        bool, typer.Option("--prefilter", help="Let turnover, moves and depth choose the exchange's symbols.")
    ] = False,
    criteria: Annotated[
        Path | None,
        typer.Option("--criteria", metavar="FILE", help="Settings of --prefilter, TOML or JSON."),
    ] = None,
    exchange: Annotated[str, typer.Option("--exchange", metavar="NAME", help="ccxt name of the exchange.")] = EXCHANGE,
    interval: Annotated[str, typer.Option("--interval", help="Candles to use: 1m, 5m, …")] = "1m",
    lake: LakeFolder = "",
    start: Start = None,
    end: End = None,
    speed: Annotated[
        str, typer.Option("--speed", metavar="X", help="Replay and simulation: times as fast as the market, or inf.")
    ] = f"{SPEED:g}",
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="SYMBOL",
            help="Stands for the market; left out: BTCUSDT, off an exchange only if among the symbols; 'none': none.",
        ),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            "--journal",
            metavar="DIR",
            parser=a_folder,
            help="Keep a journal; a session goes on where the last one stopped.",
        ),
    ] = None,
    experiments: Annotated[
        Path, typer.Option("--experiments", metavar="DIR", help="Folder of studies and calibrated thresholds.")
    ] = Path("experiments"),
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Let alerts ask for calibrations, in processes of their own.")
    ] = False,
    enricher: Annotated[
        Path | None,
        typer.Option(
            "--enricher", metavar="FILE", help="Let a language model write longer texts: its settings, TOML or JSON."
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", metavar="PORT", help="Serve /metrics for Prometheus; 0: a free port."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show signals live: alerts, paper trades and the state of every symbol, until Ctrl-C.

    Without an exchange to reach: --feed simulated needs no network, no keys and
    no Redis. --prefilter looks for fast symbols every ten minutes and follows
    those. REDIS_URL publishes the states there, TELEGRAM_TOKEN and ADMIN_ID
    send alerts. With --lake closed candles are stored, with --journal every
    decision, and a restart goes on where the last run stopped.

    Examples:

      aione-lab live --feed simulated
      aione-lab live --feed replay --lake data_lake --symbols BTCUSDT,SOLUSDT --speed 600
      aione-lab live --prefilter --lake data_lake --journal experiments/live
    """
    from aione_lab.environment import Environment
    from aione_lab.units import interval_ms
    from aione_lab.warm import announce_if_cold

    if feed not in FEEDS:
        raise InputError.of("--feed", feed, f"must be one of {', '.join(FEEDS)}")
    if prefilter and feed != "exchange":
        raise InputError.of("--feed", feed, "must be exchange with --prefilter, which looks through its symbols")
    if prefilter and symbols is not None:
        raise InputError.of("--symbols", symbols, "must be left out with --prefilter, which chooses them")
    if exchange != EXCHANGE and feed != "exchange":
        raise InputError.of("--exchange", exchange, f"belongs to --feed exchange, this is {feed}")
    if criteria is not None and not prefilter:
        raise InputError.of("--criteria", str(criteria), "belongs to --prefilter")
    if calibrate and not lake:
        raise InputError.of("--calibrate", True, "needs the candles of a --lake")
    interval_ms(interval, "--interval")
    factor = _speed(speed)
    environment = Environment()
    logging.basicConfig(level=environment.LOG_LEVEL if not _is_screen(as_json) else "ERROR", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("stamina").setLevel(logging.ERROR)  # its line says neither what is tried again nor why
    announce_if_cold()
    options = _Options(
        feed, symbols, prefilter, criteria, exchange, interval, lake, start, end, factor,
        reference, journal,
        experiments, calibrate, enricher, metrics_port, as_json,
    )  # fmt: skip
    status = asyncio.run(_run(options, environment))
    if as_json:
        emit_json(status)
    else:
        bars, alerts = counted(status["bars"], "bar"), counted(status["alerts"], "alert")
        say(f"stopped after {bars}: {alerts}, {trades_text(status)}")


@dataclass(frozen=True)
class _Options:
    """What the command was told, in the order of its options."""

    feed: str
    symbols: str | None
    prefilter: bool
    criteria: Path | None
    exchange: str
    interval: str
    lake: str
    start: str | None
    end: str | None
    speed: float
    reference: str | None
    journal: Path | None
    experiments: Path
    calibrate: bool
    enricher: Path | None
    metrics_port: int | None
    as_json: bool


def _is_screen(as_json: bool) -> bool:
    return sys.stdout.isatty() and not as_json


def _speed(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise InputError.of("--speed", text, "must be a number above 0: 1 is real time, inf as fast as possible")
    return value


async def _run(options: _Options, environment: Any) -> dict[str, Any]:
    from aione_lab.cache import SimpleCacheHandler
    from aione_lab.live import FastSessions, Prefilter, PrefilterSettings, Session
    from aione_lab.thresholds import ThresholdStore

    chosen = PrefilterSettings()
    if options.criteria is not None:
        chosen = loaded_config(PrefilterSettings, options.criteria, "--criteria")
    named = _symbols(options)
    always = _beside(options, named)
    async with contextlib.AsyncExitStack() as stack:
        cache = SimpleCacheHandler.from_environment(environment)
        stack.push_async_callback(cache.aclose)
        if not options.as_json:
            say(f"states go to {cache.name}, 'aione-lab dashboard' shows them")
        alerts = _alerts(environment, cache)
        if alerts is not None:
            stack.push_async_callback(alerts.aclose)
        store = ThresholdStore(options.experiments, cache)
        queue = _queue(options, store)
        if queue is not None:
            stack.push_async_callback(queue.close)
            await queue.start_workers()
        enricher = _enricher(options, environment)
        if enricher is not None:
            stack.push_async_callback(enricher.aclose)
        metrics = await _metrics(options, stack)
        journal = options.journal
        if journal is None and options.prefilter:  # what goes on with other symbols rests on one
            journal = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aione-lab-")))

        lake = _lake(options) if options.lake else None

        def make(symbols: Sequence[str]) -> Session:
            return Session(
                _feed(options, list(symbols)),
                lake,
                thresholds=store,
                reference=_reference(options),
                cache=cache,
                journal=journal,
                alerts=alerts,
                queue=queue,
                enricher=enricher,
                metrics=metrics,
            )

        work: Session | FastSessions
        if options.prefilter:
            work = FastSessions(Prefilter(options.exchange, chosen, cache), make, always=always)
        else:
            work = make([*always, *named])
        with _stopping_on_signals(work):
            if isinstance(work, FastSessions):
                say(f"looking for fast symbols, and again every {chosen.refresh_s:g} s", err=True)
                await work.open()

            def current() -> Session:
                return work.session if isinstance(work, FastSessions) else work

            if isinstance(work, FastSessions) and not hasattr(work, "session"):
                raise AioneError("stopped before any symbol was fast")
            on_terminal, kept = _is_screen(options.as_json), options.journal is not None
            screen = Screen(current, on_terminal=on_terminal, silent=options.as_json, journal=kept)
            task = work.start()
            await asyncio.gather(task, screen.follow(task))
        return current().status()


@contextlib.contextmanager
def _stopping_on_signals(work: Session | FastSessions) -> Iterator[None]:
    """Ctrl-C and SIGTERM end a session cleanly; another one, a second later or more, ends the program."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    stopping: set[asyncio.Task[None]] = set()

    def let_go() -> None:
        for caught in numbers:
            loop.remove_signal_handler(caught)

    def stop() -> None:
        if not stopping:  # at first the same may come twice: make and timeout hand it on to those who have it
            stopping.add(asyncio.ensure_future(work.stop()))
            loop.call_later(SAME_S, let_go)

    for caught in numbers:
        loop.add_signal_handler(caught, stop)
    try:
        yield
    finally:
        let_go()


def _symbols(options: _Options) -> list[str]:
    from aione_lab.units import parse_symbol

    if options.symbols is not None:
        named = [parse_symbol(name.strip(), "--symbols") for name in options.symbols.split(",") if name.strip()]
        if not named:
            raise InputError.of("--symbols", options.symbols, "must name symbols: A,B,…")
        return named
    if options.feed == "simulated":
        return _simulated()
    return _in_lake(options) if options.feed == "replay" else []


def _lake(options: _Options) -> Lake:
    """The lake that closed candles go to; where it cannot be made or written the command ends before it begins."""
    from aione_lab.lake import Lake

    if options.feed == "replay":
        return open_lake(options.lake)
    if is_address(options.lake):
        raise InputError.of("--lake", shown_place(options.lake), "must be a folder: closed candles are stored in it")
    try:
        make_folder(Path(options.lake))
    except OSError as error:
        raise InputError.of("--lake", options.lake, f"cannot be made ({error.strerror})") from None
    if not os.access(options.lake, os.W_OK):
        raise InputError.of("--lake", options.lake, "cannot be written")
    return Lake(options.lake)


def _reference(options: _Options) -> str | None:
    """Symbol that stands for the market; None: none."""
    from aione_lab.units import parse_symbol

    if options.reference is None:
        return DEFAULT_REFERENCE
    given = options.reference.strip()
    return None if given.lower() in ("", "none") else parse_symbol(given, "--reference")


def _beside(options: _Options, named: Sequence[str]) -> list[str]:
    """The reference where it has to be asked for beside the symbols ``named``."""
    wanted = _reference(options)
    if wanted is None or wanted in named:
        return []
    if options.feed == "exchange":
        return [wanted]
    if options.reference is None:
        return []
    if options.feed == "replay":
        return [known_symbol(_replayed(options), wanted, options.interval, "--reference")]
    if wanted not in _simulated():
        raise InputError.unknown("--reference", wanted, _simulated())
    return [wanted]


def _simulated() -> list[str]:
    from aione_lab.lake.simulated import SimulatedExchange

    return SimulatedExchange().symbols


def _replayed(options: _Options) -> Lake:
    return open_lake(options.lake or DEFAULT_LAKE)


def _in_lake(options: _Options) -> list[str]:
    there = _replayed(options).symbols(options.interval)
    if not there:
        raise InputError.of("--lake", options.lake or DEFAULT_LAKE, f"holds no {options.interval} candles")
    return sorted(there, key=lambda name: name != _reference(options))[:MOST_REPLAYED]


def _feed(options: _Options, symbols: list[str]) -> Feed:
    from aione_lab.live import ExchangeFeed, ReplayFeed

    if options.feed == "exchange":
        return ExchangeFeed(options.exchange, symbols, options.interval)
    spans: dict[str, Any] = {"speed": options.speed, "start": options.start, "end": options.end}
    if options.feed == "replay":
        return ReplayFeed(_replayed(options), symbols, options.interval, **spans)
    from aione_lab.lake.simulated import ORIGIN, SimulatedExchange
    from aione_lab.units import DAY_MS, to_ms

    start = to_ms(ORIGIN) + SIMULATED_BEFORE * DAY_MS if options.start is None else to_ms(options.start, "--start")
    spans |= {"start": start, "end": start + SIMULATED_DAYS * DAY_MS if options.end is None else options.end}
    return ReplayFeed(SimulatedExchange(), symbols, options.interval, **spans)


def _alerts(environment: Any, cache: Any) -> AlertQueue | None:
    given = {name: getattr(environment, name) for name in ("TELEGRAM_TOKEN", "ADMIN_ID")}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 1:
        say(f"{missing[0]} is not set: no alerts go to Telegram", err=True)
    if missing:
        return None
    from aione_lab.live import AlertQueue, TelegramSink

    return AlertQueue([TelegramSink.from_environment(environment)], cache=cache)


def _queue(options: _Options, store: Any) -> Any:
    if not options.calibrate:
        return None
    from aione_lab.calibration.job import Promoter, calibrate_job
    from aione_lab.calibration.queue import CalibrationQueue

    job = functools.partial(calibrate_job, lake=options.lake, folder=str(options.experiments))
    return CalibrationQueue(job, store=Promoter(store))


def _enricher(options: _Options, environment: Any) -> NarrativeEnricher | None:
    """The model that FILE describes; naming a file switches it on. Its key, where it needs one, is ENRICHER_KEY."""
    if options.enricher is None:
        return None
    from aione_lab.live import EnricherSettings, NarrativeEnricher

    settings = loaded_config(EnricherSettings, options.enricher, "--enricher").replace(enabled=True)
    return NarrativeEnricher(settings, environment.ENRICHER_KEY)


async def _metrics(options: _Options, stack: contextlib.AsyncExitStack) -> Any:
    if options.metrics_port is None:
        return None
    from aione_lab.live import SessionMetrics

    metrics = SessionMetrics()
    stack.push_async_callback(metrics.aclose)
    port = await metrics.serve(options.metrics_port)
    if not options.as_json:
        say(f"metrics at http://127.0.0.1:{port}/metrics")
    return metrics
