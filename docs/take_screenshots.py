"""Take the pictures of the README: ``python docs/take_screenshots.py``, in the checkout, with Chromium installed.

JupyterLab runs on loopback with settings of its own; the candles are simulated, so the pictures can be taken again.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.widgets.browser import browser_page, dark_theme, jupyterlab, open_notebook, write_notebook  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SESSION = """
from aione_lab import Dashboard, ReplayFeed, Session
from aione_lab.lake.simulated import SimulatedExchange

exchange = SimulatedExchange()
feed = ReplayFeed(exchange, exchange.symbols, start="2025-02-09 06:00", end="2025-02-09 11:08")
session = Session(feed)
task = session.start()
"""
EXPLORER = """
import tempfile
from aione_lab import CalibrationExplorer, Lake, calibrate
from aione_lab.lake.simulated import fill

folder = tempfile.TemporaryDirectory()
lake = Lake(folder.name)
fill(lake, days=90, symbols=["LINKUSDT", "BTCUSDT"])
study = calibrate(lake, "LINKUSDT", n_trials=100, folder=None, progress=False)
"""


def dashboard(page: Any, folder: Path) -> None:
    """The live dashboard after five hours of the simulated market, on a bar of alerts; light, then dark."""
    write_notebook(folder / "live.ipynb", [SESSION, "Dashboard(session)"])
    with jupyterlab(folder) as address:
        open_notebook(page, address, "live.ipynb")
        page.wait_for_selector(".aione-table td:text-is('LINKUSDT')")
        page.wait_for_selector(".aione-table tr.buy td:text-is('LINKUSDT')")  # the last bar
        page.locator(".aione-table td:text-is('LINKUSDT')").first.click()
        show(page, ".aione-table", "dashboard.png")
        dark_theme(page)
        show(page, ".aione-table", "dashboard-dark.png")


def explorer(page: Any, folder: Path) -> None:
    """The calibration explorer on a study of ninety days."""
    write_notebook(folder / "explore.ipynb", [EXPLORER, "CalibrationExplorer(study)"])
    with jupyterlab(folder) as address:
        open_notebook(page, address, "explore.ipynb")
        page.wait_for_selector(".aione-metrics", timeout=300_000)
        show(page, ".jp-OutputArea-output:has(.aione-metrics)", "explorer.png")


def show(page: Any, selector: str, name: str) -> None:
    """Bring the widget to the top, without the side bar, and take the picture of the window."""
    page.evaluate(
        "() => { const shell = window.jupyterapp.shell; if (!shell.leftCollapsed) shell.collapseLeft();"
        " if (!shell.rightCollapsed) shell.collapseRight(); }"
    )
    page.locator(selector).first.evaluate("(one) => one.scrollIntoView({block: 'start'})")
    time.sleep(4)
    page.screenshot(path=IMAGES / name)
    print(IMAGES / name)


def main() -> None:
    """Take every picture."""
    IMAGES.mkdir(exist_ok=True)
    for take in (dashboard, explorer):
        with tempfile.TemporaryDirectory() as folder, browser_page() as page:
            take(page, Path(folder))


if __name__ == "__main__":
    main()
