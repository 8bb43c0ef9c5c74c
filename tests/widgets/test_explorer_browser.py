"""The explorer in a real browser: a hand moves a slider, and the metrics and the chart are others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake
from tests.widgets.browser import browser_page, jupyterlab, open_notebook, write_notebook

CUT_OFF = """() => {
  const out = document.querySelector('.jp-OutputArea-output .jupyter-widgets').getBoundingClientRect();
  return [...document.querySelectorAll('.jp-OutputArea-output .js-plotly-plot, .aione-metrics, .widget-button')]
    .map((e) => e.getBoundingClientRect()).filter((r) => r.width && (r.left < out.left - 1 || r.right > out.right + 1))
    .length;
}"""
EQUITY = "() => JSON.stringify([...document.querySelector('.js-plotly-plot').data.find((d) => d.name == 'sliders').y])"

STILL = """() => {
  const plot = document.querySelector('.js-plotly-plot');
  const path = (name) => {
    const { uid } = plot._fullData.find((trace) => trace.name === name);
    return plot.querySelector(`.trace${uid} .js-line`).getAttribute('d').length;
  };
  const names = [...plot.querySelectorAll('.textpoint')].map((e) => e.textContent).join(' ');
  return [names, path('price') > 0, path('default') > 0];
}"""
"""What no slider takes away: the folds' names, the line of the price and that of the default."""
PRICES = "() => JSON.stringify(document.querySelector('.js-plotly-plot').calcdata[0].slice(0, 9).map((at) => at.x))"
SEEN = (
    "((ends) => (Date.parse(ends[1]) - Date.parse(ends[0])) / 864e5)"
    "(document.querySelector('.js-plotly-plot').layout.xaxis.range)"
)


def test_a_slider_moves_the_metrics(tmp_path: Path) -> None:
    pytest.importorskip("jupyterlab")
    pytest.importorskip("playwright")
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on PATH")
    exchange = SimulatedExchange(seed=3)
    lake = Lake(tmp_path / "lake")
    lake.append("LINKUSDT", "1m", exchange.candles("LINKUSDT", days=30))
    cell = f"from aione_lab import CalibrationExplorer, Lake\nCalibrationExplorer(Lake({lake.root!r}), 'LINKUSDT')"
    write_notebook(tmp_path / "explorer.ipynb", [cell])
    with jupyterlab(tmp_path) as address, browser_page() as page:
        open_notebook(page, address, "explorer.ipynb")
        page.wait_for_selector(".aione-metrics")
        page.wait_for_function("() => document.querySelector('.js-plotly-plot')?.data?.[6]?.y?.length > 100")
        still = page.evaluate(STILL)
        assert still[0].startswith("fold 1") and still[1] and still[2]
        before, drawn = page.inner_text(".aione-metrics"), page.evaluate(EQUITY)
        handle = page.locator(".noUi-handle").last  # sl_mult
        handle.focus()
        for _ in range(3):
            handle.press("ArrowRight")
        page.wait_for_function("(before) => document.querySelector('.aione-metrics').innerText != before", arg=before)
        page.wait_for_function(f"(drawn) => ({EQUITY})() != drawn", arg=drawn)
        assert page.evaluate(STILL) == still
        assert page.evaluate(CUT_OFF) == 0
        assert page.evaluate("() => document.querySelector('.js-plotly-plot').layout.xaxis.type") == "date"
        coarse = page.evaluate(PRICES)
        box = page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
        x, y = box["x"], box["y"] + box["height"] / 2
        page.mouse.move(x + 40, y)
        page.mouse.down()
        page.mouse.move(x + 70, y, steps=4)
        page.mouse.up()
        page.wait_for_function(f"(coarse) => ({PRICES})() != coarse", arg=coarse)  # drawn finer
        assert page.evaluate(f"() => {{ const days = {SEEN}; return days > 0.5 && days < 4; }}")
        assert page.problems == []
