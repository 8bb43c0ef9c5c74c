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


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        (
            "50_calibrate.ipynb",
            {"OTHER": "SUIUSDT"},
            r"no 1m candles of LINKUSDT in Lake\(.*\): choose other symbols in the first cell",
        ),
        (
            "50_calibrate.ipynb",
            {"SYMBOL": "SUIUSDT"},
            "SUIUSDT has candles of 5 days on this span: the folds and the hidden days need at least 27",
        ),
        pytest.param(
            "20_triggers.ipynb",
            {"SYMBOLS": ["SUIUSDT"], "START_END": ("2025-01-01", "2025-01-02 12:00")},
            "half of the span is too short for signals of SUIUSDT: three days are the least",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "40_trades.ipynb",
            {"SYMBOLS": ["SUIUSDT"]},
            "SUIUSDT has candles of 5 days on this span: the comparisons need at least 10",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "60_live.ipynb",
            {"SYMBOLS": ["SUIUSDT"]},
            "no candles of SUIUSDT from 2025-01-10 to 2025-01-10 02:00",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "70_own_trigger.ipynb",
            {},
            "SOLUSDT has candles of 5 days on this span: the comparison at the end needs at least 10",
            marks=pytest.mark.long,
        ),
    ],
)
def test_too_little_is_told_before_anything_is_computed(
    lake: Lake, name: str, parameters: dict[str, object], said: str
) -> None:
    with pytest.raises(nbclient.exceptions.CellExecutionError) as raised:
        said_by(name, lake, **parameters)
    assert raised.value.ename == "AssertionError" and re.match(said, raised.value.evalue)
