"""`Chart`: the figures of the selected symbol, changed in place in the browser."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets
from plotly.offline import get_plotlyjs


class Chart(anywidget.AnyWidget):
    """Price and factors, each the JSON of a figure ("": not drawn); nothing is drawn before ``load``.

    A ``FigureWidget`` draws nothing where it is put into a page that is shown already, and checks every update again;
    and a widget whose own module is as large as Plotly is given up by a page that is busy for two seconds.
    """

    _esm = Path(__file__).parent / "chart.js"

    script = traitlets.Unicode("").tag(sync=True)
    price = traitlets.Unicode("").tag(sync=True)
    factors = traitlets.Unicode("").tag(sync=True)

    def load(self) -> None:
        """Send Plotly, as its package brings it: no network is needed. The page's own Plotly stays what it is."""
        if not self.script:
            self.script = (
                "const before = window.Plotly, module = { exports: {} };\n"
                f"{get_plotlyjs()}\nwindow.Plotly = before;\nexport default module.exports;\n"
            )
