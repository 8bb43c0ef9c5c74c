"""The dashboard with 150 symbols that change four times a second: the kernel's work, and a real page's frames."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from aione_lab import AssetStateManager, Dashboard
from benchmarks.explorer import all_cores
from benchmarks.market import Market
from benchmarks.timing import Row, row

GROUP = "dashboard: 150 symbols × 4 updates a second"
SYMBOLS = 150
PERIOD_S = 0.25
FRAMES = """async (seconds) => {
  const taken = [];
  await new Promise((done) => {
    const start = performance.now();
    let before = start;
    const frame = (now) => {
      taken.push(now - before);
      before = now;
      if (now - start > 1000 * seconds) done();
      else requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  return taken.slice(1);
}"""
"""Milliseconds from each frame of the page to the next."""


class Crowd:
    """What a Dashboard asks of a session, with symbols that change all the time."""

    interval = "1m"

    def __init__(self, symbols: int = SYMBOLS) -> None:
        self.symbols = [f"SYM{i}USDT" for i in range(symbols)]
        self.assets = AssetStateManager(self.symbols)
        self._random = random.Random(0)

    def change(self) -> None:
        """Give every symbol a new price, ATR, RSI and volume; one in fifty comes into alert or leaves it."""
        draw = self._random.random
        for i, symbol in enumerate(self.symbols):
            price = 10 ** (i % 6 - 2) * (1 + 0.01 * draw())
            stats = {"current_price": price, "atr": 0.002 * price * draw(), "rsi": 100 * draw(), "volume": 1e5 * draw()}
            changes: dict[str, Any] = {"stats": stats}
            if draw() < 0.02:
                alert = draw() < 0.5
                changes |= {
                    "signal": "ALERT" if alert else "NORMAL",
                    "state": "alert" if alert else "normal",
                    "confidence": draw() if alert else 0.0,
                    "recommendation": "BUY" if alert else "",
                    "trigger_reasons": ("VOLUME_SPIKE", "BREAKOUT_UP") if alert else (),
                    "tp": 1.01 * price if alert else None,
                    "sl": 0.99 * price if alert else None,
                }
            self.assets.update_asset(symbol, changes)

    async def play(self) -> None:
        """Change four times a second, for good."""
        while True:
            self.change()
            await asyncio.sleep(PERIOD_S)

    def candles(self, symbol: str, bars: int = 500) -> pd.DataFrame:
        """None are kept."""
        return pd.DataFrame(columns=["open", "high", "low", "close", "volume"])

    def rows(self, symbol: str) -> pd.DataFrame:
        """None are kept."""
        return pd.DataFrame()

    def last_alerts(self, symbol: str | None = None, n: int = 20) -> list[Mapping[str, Any]]:
        """None are kept."""
        return []

    async def request_calibration(self, symbol: str) -> str:
        """Nobody calibrates."""
        return "pending"

    def status(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}


class Watched:
    """A Dashboard of a Crowd whose patches are timed and weighed."""

    def __init__(self, symbols: int = SYMBOLS) -> None:
        self.crowd = Crowd(symbols)
        self.crowd.change()
        self.board = Dashboard(self.crowd)
        self.seconds: list[float] = []
        self.sent: list[tuple[Any, int]] = []
        self.started = time.perf_counter()
        patch, send = self.board._patch, self.board._table.send

        def timed() -> None:
            start = time.perf_counter()
            patch()
            self.seconds.append(time.perf_counter() - start)

        def weighed(content: Any, buffers: Any = None) -> None:
            self.sent.append((content, sum(map(len, buffers or ()))))  # weighed later: it is no part of the work
            send(content, buffers)

        self.board._patch, self.board._table.send = timed, weighed  # type: ignore[method-assign]
        self.playing = asyncio.ensure_future(self.crowd.play())

    def report(self) -> str:
        """As JSON: seconds of each patch, and bytes a second."""
        seconds = time.perf_counter() - self.started
        size = sum(len(json.dumps(content)) + weight for content, weight in self.sent)
        return json.dumps({"seconds": self.seconds[1:], "rate": size / seconds})

    async def aclose(self) -> None:
        """Stop."""
        self.playing.cancel()
        await self.board.aclose()


def bench_browser(market: Market) -> list[Row]:
    """In JupyterLab and headless Chromium, and in this process where there is no browser."""
    seconds = min(10.0, 1.0 * market.size.repeats)
    if shutil.which("chromium") is None:
        found = json.loads(asyncio.run(_alone(seconds)))
        return [_kernel(found, "no chromium on PATH: frames are not measured, and nothing is sent")]
    found, frames = _in_browser(seconds)
    note = f"{len(frames) / sum(frames):.0f} frames a second, the longest {1000 * max(frames):.0f} ms; all cores"
    target = "≥ 30 a second: ≤ 33 ms"
    shown = row(GROUP, "from frame to frame of the page", frames, unit="ms", target=target, note=note)
    return [_kernel(found, "JupyterLab's kernel"), shown]


def _kernel(found: dict[str, Any], note: str) -> Row:
    rate = f"{found['rate'] / 1000:.0f} KB a second; {note}"
    return row(GROUP, "the kernel's work for an update", found["seconds"], unit="ms", target="≤ 5 ms", note=rate)


async def _alone(seconds: float) -> str:
    watched = Watched()
    await asyncio.sleep(seconds)
    report = watched.report()
    await watched.aclose()
    return report


def _in_browser(seconds: float) -> tuple[dict[str, Any], list[float]]:
    """What the kernel measured, and the seconds between the page's frames."""
    from tests.widgets.browser import browser_page, jupyterlab, open_notebook, write_notebook

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        show = "from benchmarks.browser import Watched\nwatched = Watched()\nwatched.board"
        write_notebook(folder / "dashboard.ipynb", [show, "1"])
        with all_cores(), jupyterlab(folder) as address, browser_page() as page:
            open_notebook(page, address, "dashboard.ipynb")
            page.wait_for_selector(".aione-table tbody td:text-is('SYM3USDT')")
            page.evaluate(FRAMES, 1)
            frames = page.evaluate(FRAMES, seconds)
            page.evaluate(
                "() => { const cells = window.jupyterapp.shell.currentWidget.content; cells.activeCellIndex = 1;"
                "cells.activeCell.model.sharedModel.setSource('print(\"measured\", watched.report())');"
                "return window.jupyterapp.commands.execute('notebook:run-cell'); }"
            )
            printed = page.locator(".jp-OutputArea-output pre", has_text="measured").inner_text()
    return json.loads(printed.partition("measured")[2]), [one / 1000 for one in frames]
