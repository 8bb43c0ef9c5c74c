"""The metrics of a session, as Prometheus reads them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from aione_lab.errors import InputError
from aione_lab.live import SessionMetrics


def samples(metrics: SessionMetrics) -> dict[str, float]:
    body, _ = metrics.text()
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_every_metric_of_a_session() -> None:
    metrics, other = SessionMetrics(), SessionMetrics()
    metrics.bars.inc(300)
    metrics.lag.observe(0.4)
    metrics.step.observe(5e-5)
    metrics.gaps_filled.inc(2)
    metrics.reconnects.inc()
    metrics.alerts.labels("BUY").inc()
    metrics.calibrations.labels("completed").inc(3)
    metrics.queue_size.labels("alerts").set(7)
    metrics.degraded.labels("redis").set(1)
    found = samples(metrics)
    expected = {
        "aione_bars_total": 300, "aione_lag_seconds_count": 1, "aione_lag_seconds_sum": 0.4,
        "aione_step_seconds_bucket{0.0001}": 1, "aione_step_seconds_bucket{3e-05}": 0, "aione_gaps_filled_total": 2,
        "aione_reconnects_total": 1, "aione_alerts_total{BUY}": 1, "aione_calibrations_total{completed}": 3,
        "aione_queue_size{alerts}": 7, "aione_degraded{redis}": 1,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert samples(other)["aione_bars_total"] == 0
    assert not [name for name in REGISTRY._names_to_collectors if name.startswith("aione")]


def test_what_is_counted_elsewhere(caplog: Any) -> None:
    metrics = SessionMetrics()
    counts = {"reconnects": 4}
    metrics.reconnects.inc(99)
    metrics.watch_total("reconnects", lambda: counts["reconnects"])
    metrics.watch("clock_skew_ms", lambda: -12.5)
    metrics.watch("broken", lambda: 1 / 0)
    found = samples(metrics)
    assert found["aione_reconnects_total"] == 4 and found["aione_clock_skew_ms"] == -12.5
    assert "aione_broken" not in found and "the metric broken could not be read" in caplog.text
    counts["reconnects"] = 5
    assert samples(metrics)["aione_reconnects_total"] == 5
    metrics.watch_total("reconnects", lambda: 6)
    assert samples(metrics)["aione_reconnects_total"] == 6
    for name, read in (("Bad-Name", lambda: 1), ("fine", 5)):
        with pytest.raises(InputError):
            metrics.watch(name, read)  # type: ignore[arg-type]


def test_served_on_loopback_and_stopped() -> None:
    async def run() -> None:
        metrics, other = SessionMetrics(), SessionMetrics()
        async with httpx.AsyncClient() as client:
            port = await metrics.serve(0)
            address = f"http://127.0.0.1:{port}"
            metrics.bars.inc()
            answer = await client.get(f"{address}/metrics")
            assert answer.status_code == 200 and "aione_bars_total 1.0" in answer.text
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            openmetrics = await client.get(f"{address}/metrics", headers={"Accept": "application/openmetrics-text"})
            assert openmetrics.text.endswith("# EOF\n")
            assert (await client.get(f"{address}/")).status_code == 404
            with pytest.raises(InputError, match=f"port={port}"):
                await other.serve(port)
            with pytest.raises(InputError, match="already"):
                await metrics.serve(0)
            await metrics.aclose()
            await metrics.aclose()
            with pytest.raises(httpx.ConnectError):
                await client.get(f"{address}/metrics")
            async with other:
                assert await other.serve(port) == port
        for bad in ("no such host", "::zz"):
            with pytest.raises(InputError, match="port=0"):
                await other.serve(0, bad)

    asyncio.run(run())
    for port in (-1, 65_536, "9100", True):
        with pytest.raises(InputError, match="port="):
            asyncio.run(SessionMetrics().serve(port))  # type: ignore[arg-type]
