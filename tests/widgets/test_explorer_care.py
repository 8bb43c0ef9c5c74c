"""The explorer where care is needed: days that were looked at, refused choices, sets it cannot draw, bad names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aione_lab import CalibrationExplorer, Thresholds, calibrate
from aione_lab.calibration import FoldPlan
from aione_lab.errors import InputError
from aione_lab.figures import save_figure
from aione_lab.lake.simulated import fill
from aione_lab.lake.store import Lake
from aione_lab.thresholds.store import ThresholdStore

pytest.importorskip("ipywidgets")
go = pytest.importorskip("plotly.graph_objects")
DAYS = 16


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("care") / "lake")
    fill(made, days=DAYS, symbols=["BTCUSDT", "LINKUSDT"], seed=3)
    return made


def test_days_that_the_explorer_showed_are_no_fresh_ones_for_a_study(lake: Lake, tmp_path: Path) -> None:
    looked, hidden = tmp_path / "looked", tmp_path / "hidden"
    for folder, share in ((looked, 0.0), (hidden, None)):
        study = calibrate(
            lake, "LINKUSDT", n_trials=20, space=("tp_mult", "sl_mult"), folds=FoldPlan(n_folds=2), min_trades=1,
            folder=folder, progress=False,
        )  # fmt: skip
        explorer = CalibrationExplorer(lake, "LINKUSDT", hidden=share, folder=folder)
        explorer.close()
        found = study.reveal()
        assert found.fresh is (folder == hidden) and found.spent_by == (("explorer",) if folder == looked else ())


def test_days_that_were_shown_are_noted_before_there_is_a_folder(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "experiments"
    CalibrationExplorer(lake, "LINKUSDT", hidden=0.0, folder=folder).close()
    study = calibrate(
        lake, "LINKUSDT", n_trials=20, space=("tp_mult", "sl_mult"), folds=FoldPlan(n_folds=2), min_trades=1,
        folder=folder, progress=False,
    )  # fmt: skip
    found = study.reveal()
    assert not found.fresh and found.spent_by == ("explorer",)


def test_a_folder_that_cannot_be_written_is_one_clear_line(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "experiments", Path("/proc/aione")):
        with pytest.raises(InputError, match="folder='.*': cannot be used as the ledger") as raised:
            CalibrationExplorer(lake, "LINKUSDT", folder=folder)
        assert "\n" not in str(raised.value)


def test_missing_candles_are_a_gap_and_counted(lake: Lake, tmp_path: Path) -> None:
    whole = lake.candles("LINKUSDT", "1m")
    holed = Lake(tmp_path / "holed")
    holed.append("LINKUSDT", "1m", pd.concat([whole.iloc[:4000], whole.iloc[7000:9000], whole.iloc[9001:]]))
    for source, said in ((lake, ""), (holed, ", 3,001 bars missing in 2 places.")):
        explorer = CalibrationExplorer(source, "LINKUSDT", hidden=0.0, folder=tmp_path / "none")
        assert said in explorer.widget.children[0].value and ("missing" in explorer.widget.children[0].value) is bool(
            said
        )
        for ends in (None, ["2025-01-03", "2025-01-07"], ["2025-01-07 05:00", "2025-01-07 07:00"]):
            if ends is not None:
                explorer._chart._zoom(ends)
            for line in explorer._chart._drawn.values():
                gaps = np.flatnonzero(np.isnan(line["y"]))
                # Of the chart's sixteen days one minute is too little to be seen, of two hours it is not.
                assert len(gaps) == (1 if said else 0)
                assert np.all(np.diff(line["x"]) >= 0)
                if len(gaps):
                    before, after = (int(line["x"][gaps[0] + side]) for side in (-1, 1))
                    missing = 1 if ends is not None and ends[0].endswith("05:00") else 3000
                    assert after - before == (missing + 1) * 60_000
        explorer.close()


def test_candles_that_are_not_those_of_the_study_are_named(lake: Lake, tmp_path: Path) -> None:
    study = calibrate(
        lake, "LINKUSDT", n_trials=20, space=("tp_mult", "sl_mult"), folds=FoldPlan(n_folds=2), folder=tmp_path / "e",
        progress=False,
    )  # fmt: skip
    other = Lake(tmp_path / "other")
    fill(other, days=DAYS, symbols=["BTCUSDT", "LINKUSDT"], seed=4)
    for source, named in ((lake, False), (other, True)):
        explorer = CalibrationExplorer(source, "LINKUSDT", study=study)
        assert ("not the candles" in explorer.widget.children[0].value) is named
        explorer.close()


def test_a_cell_is_of_the_thresholds_that_were_computed(lake: Lake, tmp_path: Path) -> None:
    explorer = CalibrationExplorer(lake, "LINKUSDT", folder=tmp_path / "none")
    heatmap = explorer._panels.heatmap
    heatmap.pick(1.0, 1.0)  # nothing is computed yet: nothing happens
    heatmap.compute()
    heatmap.x.value = "sl_mult"  # refused: the cells stay those of tp_mult
    assert "two different" in heatmap._note.value
    heatmap.pick(6.0, 0.5)
    assert (explorer.thresholds.tp_mult, explorer.thresholds.sl_mult) == (6.0, 0.5)
    assert heatmap.figure.layout.xaxis.title.text.startswith("tp_mult")
    explorer.close()


def test_a_promoted_set_with_triggers_of_another_spec_is_left_out_and_named(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Found:
        class entry:  # noqa: N801
            thresholds = Thresholds(custom={"LOUD": 2.0})

    monkeypatch.setattr(ThresholdStore, "current", lambda *_, **__: Found)
    explorer = CalibrationExplorer(lake, "LINKUSDT", folder=tmp_path / "none")
    assert "LOUD" in explorer._says.value and "promoted" in explorer._says.value
    explorer.close()


def test_a_refusal_goes_with_the_next_move(lake: Lake, tmp_path: Path) -> None:
    explorer = CalibrationExplorer(lake, "LINKUSDT", folder=tmp_path / "none")
    explorer._refused("no")
    slider = explorer.sliders["tp_mult"]
    slider.value += slider.step
    assert explorer._says.value == ""
    explorer.close()


@pytest.mark.parametrize("name", ["x" * 300 + ".json", "a\0b.json"], ids=["too long", "nul"])
def test_a_name_that_no_file_can_have_is_one_clear_line(lake: Lake, tmp_path: Path, name: str) -> None:
    explorer = CalibrationExplorer(lake, "LINKUSDT", folder=tmp_path / "none")
    with pytest.raises(InputError, match="path="):
        explorer.save(str(tmp_path / name))
    with pytest.raises(InputError, match="path="):
        save_figure(go.Figure(), str(tmp_path / name))
    explorer.close()
