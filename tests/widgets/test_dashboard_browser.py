"""The dashboard in a real browser: in JupyterLab, and as a page of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from browser import browser_page, chromium, dark_theme, free_port, jupyterlab, open_notebook, serving, write_notebook

HOSTILE = "<img src=x onerror=window.hacked=1>"
PAYLOADS = [
    HOSTILE,
    "<script>window.hacked=1</script>",
    "<svg onload=window.hacked=1>",
    "</td></tr></table><iframe srcdoc='<script>parent.hacked=1</script>'>",
    "<a href='javascript:window.hacked=1'>x</a>",
    "&lt;img src=x onerror=window.hacked=1&gt;",
    "${window.hacked=1}{{window.hacked=1}}",
    "'\"><style>*{display:none}</style>",
    "\u202e<b>\u0000</b>",
    "<math><mi//xlink:href='data:x,<script>window.hacked=1</script>'>",
]
ROLL = """async () => {
  const place = [...document.querySelectorAll('.aione-table .rows')].find((one) => one.scrollHeight > 5000);
  const seen = new Set();
  for (let top = 0; top < place.scrollHeight; top += 200) {
    place.scrollTop = top;
    for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
    for (const cell of place.querySelectorAll('td:first-child')) seen.add(cell.textContent);
  }
  return [seen.size, document.querySelectorAll('.aione-table td *').length, window.hacked ?? null];
}"""
"""Scrolls through the hostile rows: how many texts were seen, elements inside cells, and whether a script ran."""
HERE = Path(__file__).parent
SET_UP = f"""
import asyncio, sys
sys.path.insert(0, {str(HERE)!r})
from played import PlayedSession
from aione_lab import Dashboard
from aione_lab.widgets import LiveTable
from aione_lab.widgets.cells import NUMBERS, TEXTS, Cells

session = PlayedSession(("BTCUSDT", "SOLUSDT", "ETHUSDT"))
for _ in range(300):
    session.step()
stage2 = dict(session.assets.get("ETHUSDT")["stage2"])
stage2["narrative"] = dict.fromkeys(("en", "uk"), {HOSTILE!r})

async def go_on():
    while True:
        session.step()
        session.assets.update_asset("ETHUSDT", {{"trigger_reasons": [{HOSTILE!r}], "stage2": stage2}})
        await asyncio.sleep(0.4)

task = asyncio.create_task(go_on())
hostile = LiveTable()
payloads = [f"{{i}}{{one}}" for one in {PAYLOADS!r} for i in range(30)]
hostile.show({{text: Cells((1.0,) * len(NUMBERS), (text,) * len(TEXTS)) for text in payloads}}, whole=True)
hostile
"""
SHOW = "Dashboard(session)"
COUNT = "'followed by', len([t for t in asyncio.all_tasks() if t.get_name() == 'dashboard'])"
TABLE = ".aione-table"


@pytest.fixture(autouse=True, scope="module")
def browser_there() -> None:
    chromium()


def cell(page: Any, symbol: str, column: int) -> str:
    return str(page.locator(f"{TABLE} tbody tr:has(td:first-child:text-is('{symbol}')) td").nth(column).inner_text())


def wait_for_tick(page: Any, symbol: str) -> None:
    before = cell(page, symbol, 3)
    page.wait_for_function(
        "([symbol, before]) => [...document.querySelectorAll('.aione-table tbody tr')].some("
        "tr => tr.cells[0].textContent === symbol && tr.cells[3].textContent !== before)",
        arg=[symbol, before],
    )


def wait_for_chart(page: Any, symbol: str) -> None:
    page.wait_for_selector(f".aione-price .aione-chart .gtitle:has-text('{symbol}')")
    page.wait_for_selector(
        ".aione-price .aione-chart .boxlayer path, .aione-price .aione-chart .candlesticks path", state="attached"
    )
    page.wait_for_selector(f".aione-detail h3:has-text('{symbol}')")


def shown_symbols(page: Any) -> list[str]:
    rows = page.locator(f"{TABLE}:has(td:text-is('BTCUSDT')) tbody tr:not(.spacer):not([hidden]) td:first-child")
    return list(rows.all_inner_texts())


def test_in_jupyterlab(tmp_path: Path) -> None:
    write_notebook(tmp_path / "live.ipynb", [SET_UP, SHOW])
    with jupyterlab(tmp_path) as address, browser_page() as page:
        open_notebook(page, address, "live.ipynb")
        page.wait_for_selector(f"{TABLE} td:text-is('SOLUSDT')")
        wait_for_tick(page, "SOLUSDT")

        page.locator(f"{TABLE} td:text-is('BTCUSDT')").click()
        wait_for_chart(page, "BTCUSDT")
        for key in ("End", "Home", "ArrowDown", "Enter"):  # to the second row
            page.keyboard.press(key)
        wait_for_chart(page, "SOLUSDT")
        dark_theme(page)
        page.wait_for_selector(f"{TABLE}.dark")

        board = page.locator(f"{TABLE}:has(td:text-is('BTCUSDT'))")
        board.locator("th:text('Symbol')").click()
        page.wait_for_function("() => document.querySelector('th[aria-sort=ascending]')")
        assert shown_symbols(page) == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
        board.locator("input").fill("btc")
        page.wait_for_function(
            "() => [...document.querySelectorAll('.aione-table tr:not([hidden]) td')]"
            ".every(td => td.innerText !== 'ETHUSDT')"
        )
        assert shown_symbols(page) == ["BTCUSDT"]
        board.locator("input").fill("")

        # texts from outside: they are read as they are, and no element is made of them
        page.locator(f"{TABLE} td:text-is('ETHUSDT')").click()
        wait_for_chart(page, "ETHUSDT")
        assert page.locator(".aione-detail p").first.inner_text() == HOSTILE
        assert cell(page, "ETHUSDT", 12) == HOSTILE and page.locator(f"{TABLE} td", has_text="onerror").count() >= 6
        assert page.evaluate("() => [document.querySelectorAll('img[src=x]').length, window.hacked ?? null]") == [
            0,
            None,
        ]

        seen, elements, hacked = page.evaluate(ROLL)
        assert seen >= 300 and elements == 0 and hacked is None

        # the cell once more: the old dashboard is closed, the new one follows
        page.evaluate(
            "() => { const cells = window.jupyterapp.shell.currentWidget.content;"
            "cells.activeCellIndex = 1; return window.jupyterapp.commands.execute('notebook:run-cell'); }"
        )
        wait_for_tick(page, "BTCUSDT")
        page.evaluate(
            "([source]) => { const cells = window.jupyterapp.shell.currentWidget.content; cells.activeCellIndex = 0;"
            "cells.activeCell.model.sharedModel.setSource(source);"
            "return window.jupyterapp.commands.execute('notebook:run-cell'); }",
            [COUNT],
        )
        page.wait_for_selector("text=('followed by', 1)")
        assert page.problems == []


def test_as_a_page_of_its_own(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", "from aione_lab.cli import main; main()", "dashboard", "--simulated"]
    with (
        serving([*command, "--port", str(port)], tmp_path, f"http://127.0.0.1:{port}/voila/static/"),
        browser_page() as page,
    ):
        loaded: list[str] = []
        page.on("requestfinished", lambda asked: loaded.append(asked.url))
        page.goto(f"http://127.0.0.1:{port}/?theme=dark")
        page.wait_for_selector(f"{TABLE}.dark td:text-is('SOLUSDT')")
        wait_for_tick(page, "SOLUSDT")
        page.locator(f"{TABLE} td:text-is('SUIUSDT')").click()
        wait_for_chart(page, "SUIUSDT")
        assert page.problems == []
        near = (f"http://127.0.0.1:{port}/", "blob:", "data:")
        assert loaded and all(url.startswith(near) for url in loaded)  # nothing comes from elsewhere
    left = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert not left  # it leaves nothing where it was started
