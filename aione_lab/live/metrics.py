"""`SessionMetrics`: what a session counts and measures, for Prometheus, on a registry of its own."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from typing import Self

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from aione_lab.errors import InputError, whole

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
STEP_BUCKETS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
LAG_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")


class SessionMetrics:
    """Counters, gauges and histograms of one session; those of another one in the same process are apart.

    The attributes are prometheus_client's own objects: ``metrics.bars.inc(300)``, ``metrics.lag.observe(0.4)``,
    ``metrics.alerts.labels("BUY").inc()``, ``metrics.queue_size.labels("alerts").set(3)``. What somebody else counts
    already is read when it is asked for: ``watch_total("reconnects", lambda: feed.metrics.reconnects)``,
    ``watch("queue_size", lambda: …)``.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.bars = Counter("aione_bars", "Closed candles that the engine has taken", registry=registry)
        self.lag = Histogram(
            "aione_lag_seconds", "From a candle's close to its decision", buckets=LAG_BUCKETS, registry=registry
        )
        self.step = Histogram(
            "aione_step_seconds", "One engine call, all symbols", buckets=STEP_BUCKETS, registry=registry
        )
        self.gaps_filled = Counter("aione_gaps_filled", "Candles that were missing and fetched", registry=registry)
        self.reconnects = Counter("aione_reconnects", "Connections to the exchange made anew", registry=registry)
        self.alerts = Counter("aione_alerts", "Alerts by recommendation", ["recommendation"], registry=registry)
        self.calibrations = Counter(
            "aione_calibrations", "Calibrations by how they ended", ["state"], registry=registry
        )
        self.queue_size = Gauge("aione_queue_size", "Entries that wait, by queue", ["queue"], registry=registry)
        self.degraded = Gauge(
            "aione_degraded", "1 while a part of the session does not work", ["part"], registry=registry
        )
        self._watched: dict[str, tuple[bool, Callable[[], float]]] = {}
        self.registry.register(self)
        self._runner: web.AppRunner | None = None
        self.port = 0

    def watch_total(self, name: str, read: Callable[[], float]) -> None:
        """Show ``aione_<name>_total``, a count that ``read()`` gives whenever Prometheus asks."""
        self._watch(name, read, total=True)

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Show ``aione_<name>``, a number that ``read()`` gives whenever Prometheus asks; it may go down too."""
        self._watch(name, read, total=False)

    def _watch(self, name: str, read: Callable[[], float], total: bool) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputError.of("name", name, "must be lower-case letters, digits and _")
        if not callable(read):
            raise InputError.of("read", read, "must be a function that gives a number")
        own = getattr(self, name, None)
        if name not in self._watched and isinstance(own, (Counter, Gauge, Histogram)):
            self.registry.unregister(own)  # somebody else counts it
        self._watched[name] = (total, read)

    def collect(self) -> Iterator[Metric]:
        """What is watched, read now; called by the registry. What cannot be read is left out, with a log entry."""
        for name, (total, read) in list(self._watched.items()):
            try:
                value = float(read())
            except Exception:
                logger.exception("the metric %s could not be read", name)
                continue
            family = CounterMetricFamily if total else GaugeMetricFamily
            yield family(f"aione_{name}", f"{name.replace('_', ' ')}, as it is counted elsewhere", value=value)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics in the format that ``accept`` (a header) asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    async def serve(self, port: int, host: str = LOOPBACK) -> int:
        """Serve ``http://host:port/metrics`` from the running event loop until ``aclose``; returns the port.

        ``port`` 0: a free one. InputError where it cannot be listened on.
        """
        whole("port", port, 0, 65_535)
        if self._runner is not None:
            raise InputError.of("port", port, f"the metrics are served already, on port {self.port}")
        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, UnicodeError, TypeError) as error:
            await runner.cleanup()
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise InputError.of("port", port, f"cannot be listened on at {host!r} ({reason})") from None
        self._runner, self.port = runner, runner.addresses[0][1]
        return self.port

    async def aclose(self) -> None:
        """Stop serving; the metrics go on counting."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _answer(self, request: web.Request) -> web.Response:
        body, content_type = self.text(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})
