"""Download of candles and funding rates through ccxt: resumable, incremental, gap-aware.

What to ask for is worked out from what the lake holds, never from a bookmark: every range that is not
there is downloaded in batches, and each batch is stored before its place in the queue is given up. So an
interruption at any moment costs at most the batches under way, and the next call goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aione_lab.errors import AioneError, ExchangeError, InputError, LakeCorruption
from aione_lab.lake.absent import Span, add_absent, missing, read_absent, union, without
from aione_lab.lake.archives import screen_funding
from aione_lab.lake.client import FUNDING_PERIOD_MS, Client, RefusedError
from aione_lab.lake.loop import run_async
from aione_lab.lake.progress import ProgressCallback, progress_reporter
from aione_lab.lake.reports import FetchReport, Refusal, SymbolFetch, refusals
from aione_lab.lake.schema import as_list, screen_candles
from aione_lab.units import DAY_MS, MINUTE_MS, interval_ms, iso, parse_symbol, to_ms

if TYPE_CHECKING:
    from aione_lab.lake.store import Lake

PAGES_PER_BATCH = 10  # some 5,000 candles: a second or two of work between two appends
SETTLED_MS = DAY_MS  # exchanges fill holes after maintenance; younger ones are asked for again every time


@dataclass
class _Job:
    """One symbol's download: what is wanted, and the sums of what came."""

    symbol: str
    market: dict[str, Any]
    spans: list[Span] = field(default_factory=list)
    funding_spans: list[Span] = field(default_factory=list)
    sums: dict[str, int] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failure: AioneError | None = None

    @property
    def error(self) -> str | None:
        return None if self.failure is None else str(self.failure)

    def add(self, **counts: int) -> None:
        for name, count in counts.items():
            self.sums[name] = self.sums.get(name, 0) + count

    def report(self) -> SymbolFetch:
        merged: dict[str, Refusal] = {}
        for one in self.refused:
            seen = merged.get(one.reason)
            rows, first = (one.rows, one.first) if seen is None else (one.rows + seen.rows, seen.first)
            merged[one.reason] = Refusal(reason=one.reason, rows=rows, first=first)
        refused, notes = tuple(merged.values()), tuple(dict.fromkeys(self.notes))
        return SymbolFetch(symbol=self.symbol, refused=refused, notes=notes, error=self.error, **self.sums)


def fetch(
    lake: Lake,
    exchange: Any,
    symbols: Sequence[str] | str,
    interval: str,
    *,
    since: Any,
    until: Any = None,
    funding: bool = True,
    workers: int = 4,
    progress: ProgressCallback | bool | None = None,
) -> FetchReport:
    """Download the candles with ``since`` ≤ timestamp < ``until`` that the lake has not got, and the funding rates.

    ``exchange`` is a ccxt id (``"binanceusdm"``) or a ccxt exchange object (sync or async), of which the
    settings are taken: addresses, proxies, time-out. ``symbols`` are exchange ids or ccxt symbols.
    ``since`` and ``until`` are ISO texts, datetimes with a zone or UTC ms; ``until`` None is now. With a
    name only, proxies of the environment (``HTTPS_PROXY``) are used.

    Only finished candles are stored: those that ended by the exchange's own clock. The last candle in the
    lake is asked for again, in case it was stored too early. Gaps inside are filled too; ranges that the
    exchange twice had no candles for are remembered (after a day) and not asked for again, except by
    ``repair``. ``workers`` requests run at a time at most, over all symbols, within ccxt's rate limit.

    An interrupted call leaves what it has stored; calling again goes on from there. Raises InputError for
    an unknown exchange, symbol or interval and for a ``since`` in the future, ExchangeError when the
    exchange stays without an answer. When only some symbols fail their ``error`` in the report says why.
    """
    step = interval_ms(interval)
    first = to_ms(since, "since")
    last = None if until is None else to_ms(until, "until")
    if last is not None and last <= first:
        raise InputError.of("until", until, f"must be later than since={since!r}")
    names = _checked_symbols(symbols)
    _check_workers(workers)
    lake.check_writable()

    async def work(client: Client, tell: ProgressCallback) -> FetchReport:
        client.check_interval(interval)
        markets = {parse_symbol(name): client.market(name) for name in names}
        now = await client.now_ms()
        if first > now:
            raise InputError.of("since", since, f"lies in the future, the clock of {client.name} says {iso(now)}")
        start = -(-first // step) * step
        end = min(now // step * step, now if last is None else -(-last // step) * step)
        jobs = [_Job(symbol, market, notes=client.notes_on(market)) for symbol, market in markets.items()]
        download = _Download(lake, client, interval, now, tell)
        for job in jobs:
            with download.failing(job):
                absent = read_absent(lake, job.symbol, interval, client.name)
                job.spans = without(_open_spans(lake, job.symbol, interval, start, end), absent)
                if funding:
                    job.funding_spans = _funding_spans(lake, job.symbol, first, min(now, now if last is None else last))
        await asyncio.gather(*(download.skip_emptiness(job) for job in jobs))
        await download.run(jobs, workers)
        return _report(client, interval, start, max(start, end), jobs)

    return _run(exchange, work, progress, f"fetching {interval}")


def repair(
    lake: Lake,
    symbol: str,
    interval: str,
    exchange: Any = "binanceusdm",
    *,
    workers: int = 4,
    progress: ProgressCallback | bool | None = None,
) -> FetchReport:
    """Ask the exchange again for every gap that ``Lake.audit`` lists, also for those known to be empty.

    ``bars_absent`` of the report are the bars it still has no candles for. Without a gap nothing is
    asked. Errors as for ``fetch``, and LakeError when the lake has no such series.
    """
    name = parse_symbol(symbol)
    _check_workers(workers)
    lake.check_writable()
    gaps = [(to_ms(gap.start), to_ms(gap.end)) for gap in lake.audit(name, interval).gaps]
    span = lake.span(name, interval)
    if not gaps or span is None:
        ends = [iso(ms) for ms in span or (0, 0)]
        label = exchange if isinstance(exchange, str) else str(getattr(exchange, "id", exchange))
        return FetchReport(
            exchange=label, interval=interval, start=ends[0], end=ends[1], requests=0, retries=0,
            symbols=(SymbolFetch(symbol=name),),
        )  # fmt: skip

    async def work(client: Client, tell: ProgressCallback) -> FetchReport:
        client.check_interval(interval)
        job = _Job(name, client.market(symbol), gaps)
        await _Download(lake, client, interval, await client.now_ms(), tell).run([job], workers)
        return _report(client, interval, gaps[0][0], gaps[-1][1], [job])

    return _run(exchange, work, progress, f"repairing {name} {interval}")


class _Download:
    """The batches of some jobs, worked off by a few workers on one client."""

    def __init__(self, lake: Lake, client: Client, interval: str, now_ms: int, tell: ProgressCallback) -> None:
        self.lake, self.client, self.interval, self.now_ms, self.tell = lake, client, interval, now_ms, tell
        self.step = interval_ms(interval)
        self._writing = asyncio.Lock()
        self._done = self._total = 0

    async def run(self, jobs: list[_Job], workers: int) -> None:
        """Work everything off; ExchangeError when the exchange stops answering or no symbol could be had."""
        queue: list[Callable[[], Coroutine[Any, Any, None]]] = []
        for job in jobs:
            queue += [_bound(self._funding, job, span) for span in job.funding_spans]
        # Symbol by symbol in turn, so that all of them grow together and one that fails holds up nobody.
        for turn in zip_longest(*([(job, span) for span in self._batches(job)] for job in jobs)):
            queue += [_bound(self._batch, *entry) for entry in turn if entry is not None]
        self._total = sum(b - a for job in jobs for a, b in job.spans) // self.step
        queue.reverse()

        async def worker() -> None:
            while queue:
                await queue.pop()()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(workers, len(queue))):
                    group.create_task(worker())
        except BaseExceptionGroup as errors:
            raise _first_leaf(errors) from None
        failed = [job.failure for job in jobs if job.failure is not None]
        if failed and len(failed) == len(jobs):
            raise failed[0]
        self.tell("done", self._total, self._total)

    async def skip_emptiness(self, job: _Job) -> None:
        """Cut off what lies before the first candle of every long range: a listing may be years younger than ``since``.

        A range in which there is nothing at all (after a delisting) falls away, but is not remembered:
        two empty answers are thin proof for years, and asking costs two requests.
        """
        spans: list[Span] = []
        with self.failing(job):
            for start, end in job.spans:
                first = start
                if end - start > self.client.page_limit * self.step:
                    first = await self._first_bar(job, start, end)
                    # A second, separate answer must say the same before anything is taken for absent.
                    while first > start and (earlier := await self._first_bar(job, start, first)) < first:
                        first = earlier
                job.add(bars_absent=(first - start) // self.step)
                if first < end:
                    spans.append((first, end))
                    await self._remember(job, [(start, first)])
            job.spans = spans

    async def _first_bar(self, job: _Job, start: int, end: int) -> int:
        """Open time of the first candle in [start, end), ``end`` when there is none."""
        if self.client.skips_emptiness:
            page = await self.client.candles(job.market, self.interval, start, end, limit=1)
            return int(page["timestamp"].iloc[0]) if len(page) else end
        if not self.client.offers("1d") or self.step >= DAY_MS:
            return start
        day = start // DAY_MS * DAY_MS - DAY_MS  # days need not begin at 00:00 UTC: the one before may reach into it
        while day < end:
            page = await self.client.candles(job.market, "1d", day, end)
            if len(page):
                return max(start, int(page["timestamp"].iloc[0]))
            day += self.client.empty_bars * DAY_MS
        return end

    def _batches(self, job: _Job) -> list[Span]:
        size = PAGES_PER_BATCH * self.client.page_limit * self.step
        return [(at, min(at + size, b)) for a, b in job.spans for at in range(a, b, size)]

    async def _batch(self, job: _Job, span: Span) -> None:
        """Download, screen and store one range."""
        if job.error is not None:
            return
        with self.failing(job):
            start, end = span
            frame = await self._pages(job, start, end)
            if holes := missing(frame["timestamp"].to_numpy(), self.step, start, end):
                # A short page or a stumbling server looks like a hole: only what is missing twice is absent.
                again = await self._pages(job, holes[0][0], holes[-1][1])
                frame = _together([frame, again])
                holes = missing(frame["timestamp"].to_numpy(), self.step, start, end)
            good, refused = screen_candles(frame, self.interval, now_ms=self.now_ms)
            async with self._writing:
                done = await asyncio.to_thread(self.lake.append, job.symbol, self.interval, good, sparse=True)
            await self._remember(job, holes)
            job.refused += refusals(refused)
            job.add(
                rows_read=len(frame),
                rows_new=done.rows_new,
                rows_same=done.rows_same,
                rows_revised=done.rows_revised,
                rows_refused=len(refused),
                bars_absent=sum(b - a for a, b in holes) // self.step,
            )
        self._done += (span[1] - span[0]) // self.step
        self.tell(job.symbol, self._done, self._total)

    async def _pages(self, job: _Job, start: int, end: int) -> pd.DataFrame:
        """All pages of [start, end): each goes on after the last candle of the one before, however short it was."""
        pages = []
        at = start
        while at < end:
            page = await self.client.candles(job.market, self.interval, at, end)
            pages.append(page)
            if len(page):
                at = int(page["timestamp"].iloc[-1]) + self.step
            elif self.client.skips_emptiness:
                break
            else:
                at += self.client.empty_bars * self.step
        return _together(pages)

    async def _remember(self, job: _Job, holes: list[Span]) -> None:
        limit = (self.now_ms - SETTLED_MS) // self.step * self.step
        settled = [(a, min(b, limit)) for a, b in holes if a < min(b, limit)]
        if not settled:
            return
        async with self._writing:
            await asyncio.to_thread(add_absent, self.lake, job.symbol, self.interval, self.client.name, settled)

    async def _funding(self, job: _Job, span: Span) -> None:
        if job.error is not None:
            return
        with self.failing(job):
            rates = await self.client.funding(job.market, *span)
            if rates is None:
                job.notes.append("no funding rates on this market")
                return
            if not len(rates):
                return
            good, refused, _ = screen_funding(rates)
            job.refused += refusals(refused)
            async with self._writing:
                done = await asyncio.to_thread(self.lake.append_funding, job.symbol, good)
            job.add(funding_new=done.rows_new)

    @contextlib.contextmanager
    def failing(self, job: _Job) -> Any:
        """What concerns one symbol is that symbol's; an exchange that stopped answering is everybody's."""
        try:
            yield
        except (RefusedError, LakeCorruption) as error:
            job.failure = error
        except ExchangeError as error:
            raise ExchangeError(f"{error}; what is stored stays, call again to go on") from error


def _bound(call: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> Callable[[], Coroutine[Any, Any, None]]:
    return lambda: call(*args)


def _together(pages: list[pd.DataFrame]) -> pd.DataFrame:
    """Pages as one frame, sorted, the later answer for each stamp."""
    frame = pages[0] if len(pages) == 1 else pd.concat([p for p in pages if len(p)] or pages[:1], ignore_index=True)
    frame = frame.drop_duplicates("timestamp", keep="last")
    return frame.sort_values("timestamp", ignore_index=True)


def _open_spans(lake: Lake, symbol: str, interval: str, start: int, end: int) -> list[Span]:
    """Ranges of [start, end) without a candle in the lake, and the last candle of all."""
    if start >= end:
        return []
    step = interval_ms(interval)
    span = lake.span(symbol, interval)
    if span is None:
        return [(start, end)]
    stamps = lake.arrays(symbol, interval, start, end, columns=())["timestamp"]
    spans = missing(stamps, step, start, end)
    if start <= span[1] < end:
        # It may have been stored too early, by another program or from a server that was late.
        spans = union([*spans, (span[1], span[1] + step)])
    return spans


def _funding_spans(lake: Lake, symbol: str, start: int, end: int) -> list[Span]:
    """Ranges of [start, end) in which a funding payment may be missing.

    Payments are expected as often as on either side of a hole, and at least every FUNDING_PERIOD_MS.
    """
    if start >= end:
        return []
    stamps = pd.DatetimeIndex(lake.funding(symbol, start, end).index).as_unit("ms").asi8
    edges = np.concatenate([[start - MINUTE_MS], stamps, [end]])
    gaps = np.diff(edges)
    between = pd.Series(gaps)
    between.iloc[[0, -1]] = FUNDING_PERIOD_MS  # to the ends of the range, not from one payment to the next
    beside = [between.shift(turn, fill_value=FUNDING_PERIOD_MS).to_numpy() for turn in (1, -1)]
    slack = np.minimum(FUNDING_PERIOD_MS, np.minimum(*beside)) + 5 * MINUTE_MS
    slack[-1] = MINUTE_MS  # after the last one known: anything may have come
    holes = np.flatnonzero(gaps > slack)
    # A payment's stamp differs by some ms from source to source: the minute after one is still the same one.
    return [(int(edges[i]) + MINUTE_MS, int(edges[i + 1])) for i in holes]


def _checked_symbols(symbols: Sequence[str] | str) -> list[str]:
    names = [symbols] if isinstance(symbols, str) else as_list(symbols, "symbols", "must be symbols such as BTCUSDT")
    if not names:
        raise InputError.of("symbols", symbols, "must name at least one symbol")
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(parse_symbol(name, "symbols"), name)
        if "/" in name and "/" in other and (":" in name) != (":" in other):
            allowed = "are spot and contract of one symbol, of which a lake holds one"
            raise InputError.of("symbols", (other, name), allowed)
    return list(found.values())


def _check_workers(workers: int) -> None:
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 32:
        raise InputError.of("workers", workers, "must be a whole number from 1 to 32")


def _report(client: Client, interval: str, start: int, end: int, jobs: list[_Job]) -> FetchReport:
    return FetchReport(
        exchange=client.name,
        interval=interval,
        start=iso(start),
        end=iso(end),
        requests=client.requests,
        retries=client.retries,
        symbols=tuple(job.report() for job in jobs),
    )


def _run(
    exchange: Any,
    work: Callable[[Client, ProgressCallback], Coroutine[Any, Any, FetchReport]],
    progress: ProgressCallback | bool | None,
    title: str,
) -> FetchReport:
    async def main() -> FetchReport:
        with progress_reporter(progress, title) as tell:
            async with Client(exchange) as client:
                return await work(client, tell)

    return run_async(main())


def _first_leaf(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
