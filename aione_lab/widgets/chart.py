"""`Chart`: one Plotly figure, changed in place in the browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import numpy as np
import traitlets
from plotly.offline import get_plotlyjs

CONFIG = {"displayModeBar": False, "displaylogo": False, "doubleClick": "reset"}


class Plotly(ipywidgets.Widget):
    """Plotly as its package brings it, sent once for all the charts that share it: no network is needed.

    The page's own Plotly stays what it is.
    """

    script = traitlets.Unicode().tag(sync=True)

    def __init__(self) -> None:
        super().__init__(
            script="const before = window.Plotly, module = { exports: {} };\n"
            f"{get_plotlyjs()}\nwindow.Plotly = before;\nexport default module.exports;\n"
        )


class Chart(anywidget.AnyWidget):
    """The figure that ``figure`` is the JSON of ("": not drawn); nothing is drawn before there is a ``library``.

    ``moving`` are arrays and ranges laid over it (``move``): what moves is drawn without the rest.

    A ``FigureWidget`` draws nothing where it is put into a page that is shown already, checks every update again, and
    is sent all of its traces' defaults back; and a widget whose own module is as large as Plotly is given up by a page
    that is busy for two seconds.
    """

    _esm = Path(__file__).parent / "chart.js"

    library = traitlets.Instance(Plotly, allow_none=True).tag(sync=True, **ipywidgets.widget_serialization)
    figure = traitlets.Unicode("").tag(sync=True)
    moving = traitlets.Dict().tag(sync=True)
    config = traitlets.Dict(CONFIG).tag(sync=True)

    def move(
        self, traces: Mapping[int, Mapping[str, Any]], ranges: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        """Give traces other data and axes (``yaxis2``) other ranges: one message, with arrays of numbers as bytes.

        Whatever was moved before and is not here is again as ``figure`` has it when that is drawn the next time.
        """
        self.moving = {
            "traces": {
                str(number): {name: _packed(value) for name, value in fields.items()}
                for number, fields in traces.items()
            },
            "ranges": {axis: list(ends) for axis, ends in (ranges or {}).items()},
        }

    def on_event(self, kind: str, act: Callable[[Mapping[str, Any]], None]) -> None:
        """Call ``act`` with what the browser tells: ``click`` (``trace, point, x, y``) or ``zoom`` (``range``)."""

        def heard(_: Any, content: Any, __: Any) -> None:
            if isinstance(content, Mapping) and content.get("kind") == kind:
                act(content)

        self.on_msg(heard)


def _packed(value: Any) -> Any:
    """A one-dimensional array of numbers as the bytes of float64, anything else as it is."""
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "fiu":
        return np.ascontiguousarray(value, dtype="<f8").tobytes()
    return value.tolist() if isinstance(value, np.ndarray) else value
