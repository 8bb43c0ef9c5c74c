"""`Chart`: the figures of the selected symbol, changed in place in the browser."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets
from plotly.offline import get_plotlyjs


def _script() -> str:
    """Plotly as its package brings it, which needs no network, then ours; the page's own Plotly stays what it is."""
    own = (Path(__file__).parent / "chart.js").read_text(encoding="utf-8")
    return (
        "const before = window.Plotly, module = { exports: {} };\n"
        f"{get_plotlyjs()}\nconst Plotly = module.exports;\nwindow.Plotly = before;\n{own}"
    )


class Chart(anywidget.AnyWidget):
    """Price and factors, each the JSON of a figure ("": not drawn).

    A ``FigureWidget`` draws nothing where it is put into a page that is shown already, and checks every update again.
    """

    _esm = _script()

    price = traitlets.Unicode("").tag(sync=True)
    factors = traitlets.Unicode("").tag(sync=True)
