"""Charts that can be read on JupyterLab's light ground and on its dark one alike."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import anywidget
import plotly.graph_objects as go

from aione_lab.figures.theme import LIGHT

INK = "#808b96"
"""Text and axes: a grey of contrast 3.5 on white and 5 on JupyterLab's dark ground."""

GRID = "rgba(128,139,150,0.25)"
CLEAR = "rgba(0,0,0,0)"
UP, DOWN, SECOND, THIRD = "#2b8cc4", "#e0702c", "#d99a1c", "#17a67f"
PALE = "rgba(128,139,150,0.45)"

_SWAPS = {
    LIGHT.ink: INK,
    LIGHT.soft: INK,
    LIGHT.grid: GRID,
    LIGHT.paper: CLEAR,
    LIGHT.neutral: PALE,
    LIGHT.up: UP,
    LIGHT.down: DOWN,
    LIGHT.second: SECOND,
    LIGHT.third: THIRD,
}
CONFIG = {
    "displaylogo": False,
    "displayModeBar": "hover",
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
    "showSendToCloud": False,
    "responsive": True,
}


def on_any_ground(figure: go.Figure, height: int, **layout: Any) -> go.FigureWidget:
    """``figure`` (drawn for the light theme) as a FigureWidget with see-through ground, of the width it is given."""
    # Part by part: of a whole figure Plotly would give the arrays encoded, and a click could not look into them.
    made = go.Figure(
        [_swapped(trace.to_plotly_json()) for trace in figure.data], _swapped(figure.layout.to_plotly_json())
    )
    made.update_layout(
        template="none", paper_bgcolor=CLEAR, plot_bgcolor=CLEAR, font={"color": INK, "size": 11}, height=height,
        autosize=True, width=None, title=None,
    )  # fmt: skip
    for axes in (made.update_xaxes, made.update_yaxes):
        axes(gridcolor=GRID, zerolinecolor=PALE, linecolor=PALE, automargin=True, title_font_size=11)
    made.update_annotations(font_size=11)
    return shown(made.update_layout(**layout))


def shown(figure: go.Figure) -> go.FigureWidget:
    """A FigureWidget of a figure that is whole: what is changed before a browser has loaded its script is lost there.

    ``when_drawn`` tells when that is over.
    """
    made = go.FigureWidget(figure)
    made._config = {**made._config, **CONFIG}
    return made


def when_drawn(figure: go.FigureWidget, act: Callable[[], None]) -> None:
    """Call ``act`` once, when a browser has drawn ``figure`` for the first time."""

    def first(change: Any) -> None:
        if change["new"]:
            figure.unobserve(first, "_js2py_layoutDelta")
            act()

    figure.observe(first, "_js2py_layoutDelta")


class Fit(anywidget.AnyWidget):
    """Keeps the charts as wide as the page gives them: Plotly itself only follows the window."""

    _esm = """
    function render({ el }) {
      const fit = () => window.dispatchEvent(new Event("resize"));
      const later = () => setTimeout(fit, 50);
      const watch = new ResizeObserver(later);
      document.addEventListener("plotlywidget-after-render", later);
      requestAnimationFrame(() => { if (el.parentElement) watch.observe(el.parentElement); });
      return () => { watch.disconnect(); document.removeEventListener("plotlywidget-after-render", later); };
    }
    export default { render };
    """


def _swapped(value: Any) -> Any:
    """The colours of the light theme in a figure's JSON, put by those of any ground."""
    if isinstance(value, dict):
        return {name: _swapped(one) for name, one in value.items() if name != "template"}
    if isinstance(value, list | tuple):
        return [_swapped(one) for one in value]
    return _SWAPS.get(value, value) if isinstance(value, str) else value


def note(text: str, kind: str = "soft") -> str:
    """One line of text as HTML; what is in it stays text."""
    colour = {"soft": "var(--jp-ui-font-color2, #616161)", "error": DOWN, "good": THIRD}[kind]
    return f"<div style='font-size:12px;line-height:16px;color:{colour}'>{html.escape(text)}</div>"
