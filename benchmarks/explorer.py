"""A slider of the explorer moves: what the kernel does for it, and how long until a browser shows it."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aione_lab import CalibrationExplorer, Lake
from benchmarks.market import REFERENCE, SYMBOL, Market
from benchmarks.timing import Row, row, time_once, yardstick_seconds

GROUP = "explorer: a slider moves over three months of 1m candles; equity, trades and metrics are new"
DAYS = 90
MOVE = """async (count) => {
  const handle = [...document.querySelectorAll('.noUi-handle')].at(-1);
  const plot = document.querySelector('.js-plotly-plot');
  const table = document.querySelector('.aione-metrics').parentElement;
  const paths = (uid) => [...plot.querySelectorAll(`.trace${uid} .js-line`)].map((line) => line.getAttribute('d'));
  const places = (name) => paths(plot._fullData.find((trace) => trace.name === name).uid).join();
  const moving = ['sliders', 'drawdown', 'trade'];
  const taken = [];
  for (let i = 0; i < count; i++) {
    taken.push(await new Promise((done) => {
      const before = table.textContent;
      const lines = moving.map(places);
      const seen = () => {
        if (table.textContent === before || moving.some((name, at) => places(name) === lines[at])) return;
        watch.disconnect();
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - start), 0));  // painted
      };
      const watch = new MutationObserver(seen);
      watch.observe(table, { childList: true, subtree: true, characterData: true });
      watch.observe(plot, { childList: true, subtree: true, attributes: true, attributeFilter: ['d'] });
      const start = performance.now();
      handle.dispatchEvent(new KeyboardEvent('keydown', { key: i % 2 ? 'ArrowLeft' : 'ArrowRight', bubbles: true }));
    }));
    await new Promise((later) => setTimeout(later, 300));
  }
  return taken;
}"""
"""Moves the last slider to and fro; ms from each key to the first frame with new equity, trades and metrics.

Each is compared with what was drawn before: the lines of the chart by their paths, the table by its text.
"""


def bench_explorer(market: Market) -> list[Row]:
    """The kernel's share, and where there is a browser the whole way to the screen."""
    days = min(DAYS, market.size.days)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lake = Lake(folder / "lake")
        lake.append(SYMBOL, "1m", market.candles.iloc[: days * 1440])
        lake.append(REFERENCE, "1m", market.reference.iloc[: days * 1440])
        lake.append_funding(SYMBOL, market.funding.to_frame())
        explorer = CalibrationExplorer(lake, SYMBOL, hidden=0.0, folder=folder)
        slider = explorer.sliders["sl_mult"]
        places = itertools.cycle([slider.value + slider.step * step for step in (1, 2, 3, 2, 1, 0)])

        def move() -> None:
            slider.value = next(places)

        for _ in range(6):
            move()
        yard = yardstick_seconds()
        taken = [time_once(move) for _ in range(3 * market.size.repeats)]
        trades = explorer.metrics["n_trades"]
        explorer.close()
        bars = f"{days * 1440:,} bars, {trades} trades"
        rows = [row(GROUP, "the kernel's share", taken, unit="ms", yard=yard, target="≤ 30 ms", note=bars)]
        if (seconds := _in_browser(folder, lake, 3 * market.size.repeats)) is not None:
            note = "JupyterLab and headless Chromium on the same machine, all cores"
            what = "from the slider to the screen"
            rows.append(row(GROUP, what, seconds, unit="ms", target="≤ 100 ms", note=note))
    return rows


def _in_browser(folder: Path, lake: Lake, count: int) -> list[float] | None:
    """Seconds of ``count`` moves in a real page; None where there is no browser."""
    if shutil.which("chromium") is None:
        return None
    from tests.widgets.browser import browser_page, jupyterlab, open_notebook, write_notebook

    made = f"CalibrationExplorer(Lake({lake.root!r}), {SYMBOL!r}, hidden=0.0)"
    cell = f"from aione_lab import CalibrationExplorer, Lake\n{made}"
    write_notebook(folder / "explorer.ipynb", [cell])
    with all_cores(), jupyterlab(folder) as address, browser_page() as page:
        open_notebook(page, address, "explorer.ipynb")
        page.wait_for_selector(".aione-metrics")
        page.wait_for_function("() => document.querySelector('.js-plotly-plot')?.data?.[6]?.y?.length > 100")
        page.wait_for_timeout(1000)
        page.evaluate(MOVE, 4)
        taken: list[Any] = page.evaluate(MOVE, count)
    return [float(one) / 1e3 for one in taken]


@contextmanager
def all_cores() -> Iterator[None]:
    """Let the processes started here have every core: a browser and a kernel are two."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
