"""What is shown in notebooks: the live dashboard, the table in it, the explorer. Needs the extra ``lab``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "CalibrationExplorer": "explorer",
    "Dashboard": "dashboard",
    "LiveTable": "table",
}

__all__ = [
    "CalibrationExplorer",
    "Dashboard",
    "LiveTable",
]

if TYPE_CHECKING:
    from aione_lab.widgets.dashboard import Dashboard
    from aione_lab.widgets.explorer import CalibrationExplorer
    from aione_lab.widgets.table import LiveTable


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"aione_lab.widgets.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("anywidget", "ipywidgets", "optuna", "traitlets"):
            raise
        missing = error.name
    raise ModuleNotFoundError(f"this needs {missing}: pip install 'aione-lab[lab]'", name=missing)
