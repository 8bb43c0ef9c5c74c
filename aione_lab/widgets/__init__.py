"""What is shown in notebooks: the live dashboard and the table in it. Needs the extra ``lab``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Dashboard": "dashboard",
    "LiveTable": "table",
}

__all__ = [
    "Dashboard",
    "LiveTable",
]

if TYPE_CHECKING:
    from aione_lab.widgets.dashboard import Dashboard
    from aione_lab.widgets.table import LiveTable


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"aione_lab.widgets.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("anywidget", "ipywidgets", "traitlets"):
            raise
        missing = error.name
    raise ModuleNotFoundError(f"this needs {missing}: pip install 'aione-lab[lab]'", name=missing)
