"""Notebooks on a lake of one's own that has too little for them: one plain sentence, and where it can be, a result."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aione_lab.lake.simulated import fill
from aione_lab.lake.store import Lake

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("notebooks") / "lake")
    fill(made, days=5, symbols=["BTCUSDT", "SOLUSDT", "SUIUSDT"])
    return made


def said_by(name: str, lake: Lake, **parameters: object) -> str:
    """What the notebook prints, run whole on ``lake``, with other values in its first code cell."""
    book = nbformat.read(NOTEBOOKS / name, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    for key, value in {"LAKE": str(lake.root), **parameters}.items():
        key = key.replace("_", ", ")
        line = f"{key} = " + (", ".join(map(repr, value)) if isinstance(value, tuple) else repr(value))
        cells[0].source, n = re.subn(rf"^{key} = .*$", lambda _, line=line: line, cells[0].source, flags=re.M)
        assert n == 1
    nbclient.NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    return "".join(out.text for cell in cells for out in cell.outputs if out.output_type == "stream")


def test_the_quickstart_runs_on_a_span_without_an_alert(lake: Lake) -> None:
    said = said_by("00_quickstart.ipynb", lake, START_END=("2025-01-02", "2025-01-02 12:00"))
    assert "BTCUSDT has no alert on this span, so there is nothing to explain." in said
    assert "no alert among these bars" in said and "features too: True" in said
