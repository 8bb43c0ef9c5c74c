"""The calibration explorer: what a slider does, what is never loaded, and what the gate says."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from aione_lab import CalibrationExplorer, Thresholds, calibrate, replay
from aione_lab.calibration import Calibration, FoldPlan
from aione_lab.calibration.views import fold_returns
from aione_lab.errors import InputError, LakeError
from aione_lab.lake.simulated import fill
from aione_lab.lake.store import Lake
from aione_lab.settings import Settings
from aione_lab.thresholds.search import search_space
from aione_lab.units import DAY_MS, to_ms
from aione_lab.widgets.explorer_chart import GAIN, LOSS, settled

DAYS = 30
ipywidgets = pytest.importorskip("ipywidgets")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("explorer") / "lake")
    fill(made, days=DAYS, symbols=["BTCUSDT", "LINKUSDT"], seed=3)
    return made


@pytest.fixture(scope="module")
def study(lake: Lake) -> Calibration:
    return calibrate(
        lake,
        "LINKUSDT",
        n_trials=40,
        space=("vol_z_threshold", "min_confidence", "tp_mult", "sl_mult"),
        folds=FoldPlan(n_folds=3),
        min_trades=5,
        metric=("expectancy", "max_drawdown"),
        folder=None,
        progress=False,
    )


@pytest.fixture
def explorer(lake: Lake, tmp_path: Path) -> Iterator[CalibrationExplorer]:
    made = CalibrationExplorer(lake, "LINKUSDT", folder=tmp_path)
    yield made
    made.close()


def drawn_by(explorer: CalibrationExplorer) -> dict[str, dict[str, np.ndarray]]:
    """Numbers of each trace of the chart as the browser has them, by the trace's name."""
    figure, moving = json.loads(explorer._chart.widget.figure), explorer._chart.widget.moving["traces"]

    def numbers(value: Any) -> np.ndarray:
        if isinstance(value, dict):
            return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
        return np.frombuffer(value) if isinstance(value, bytes) else np.asarray(value)

    return {
        trace.get("name", "folds"): {name: numbers({**trace, **moving.get(str(at), {})}[name]) for name in "xy"}
        for at, trace in enumerate(figure["data"])
    }


def layout_of(explorer: CalibrationExplorer) -> dict[str, Any]:
    """The layout of the chart."""
    found: dict[str, Any] = json.loads(explorer._chart.widget.figure)["layout"]
    return found


def replayed(explorer: CalibrationExplorer, lake: Lake) -> Any:
    """The same set over the same candles, by replay."""
    span = ("2025-01-01", explorer.hidden_from)
    return replay(
        lake.candles("LINKUSDT", "1m", *span),
        explorer.thresholds,
        symbol="LINKUSDT",
        reference=lake.candles("BTCUSDT", "1m", *span),
        funding=lake.funding("LINKUSDT", *span),
    )


def test_a_move_gives_what_replay_gives(explorer: CalibrationExplorer, lake: Lake) -> None:
    seen = set()
    for name, value in (("tp_mult", 2.0), ("sl_mult", 0.7), ("vwap_threshold", 4.0), ("min_reasons_for_alert", 1)):
        explorer.sliders[name].value = value
        result = replayed(explorer, lake)
        for metric, found in explorer.metrics.items():
            np.testing.assert_equal(found, result.metrics[metric], err_msg=f"{name}: {metric}")
        np.testing.assert_array_equal(explorer._view.equity, result.equity.to_numpy())
        seen.add(explorer.metrics["net_pnl"])
        assert f"{explorer.metrics['n_trades']:,d}</td>" in explorer._table.value
    assert len(seen) == 4
    set_now = explorer.thresholds
    assert (set_now.tp_mult, set_now.sl_mult) == (2.0, 0.7)
    assert set_now.vwap_threshold == "4x" and set_now.min_reasons_for_alert == 1
    assert type(set_now.min_reasons_for_alert) is int and set_now.low_gate is None


def test_what_is_drawn_is_the_set(explorer: CalibrationExplorer, lake: Lake) -> None:
    explorer.sliders["min_confidence"].value = 0.4
    result = replayed(explorer, lake)
    by_name = drawn_by(explorer)
    drawn = by_name["sliders"]["y"]
    equity = result.equity.to_numpy()
    assert (drawn.min(), drawn.max()) == (equity.min(), equity.max()) and drawn[-1] == equity[-1]
    assert by_name["drawdown"]["y"].min() == pytest.approx(-result.metrics["max_drawdown"], rel=1e-12)
    exits = np.concatenate([by_name[f"exit with a {what}"]["x"] for what in ("gain", "loss")])
    assert sorted(pd.to_datetime(exits, unit="ms", utc=True)) == list(result.trades["exit_time"])
    assert len(by_name["price"]["x"]) < 2_000
    low, high = explorer._chart.widget.moving["ranges"]["yaxis2"]
    assert low < equity.min() and equity.max() < high


def test_a_ladder_s_exits_stand_at_their_fills(lake: Lake, tmp_path: Path) -> None:
    ladder = Settings(target_shares=(0.5, 0.3, 0.2), break_even=1.0, min_risk_reward=0.0)
    chosen = Thresholds(min_confidence=0.4, tp_mult=1.0)
    explorer = CalibrationExplorer(lake, "LINKUSDT", settings=ladder, thresholds=chosen, folder=tmp_path)
    span = ("2025-01-01", explorer.hidden_from)
    candles, market = (lake.candles(name, "1m", *span) for name in ("LINKUSDT", "BTCUSDT"))
    rates = lake.funding("LINKUSDT", *span)
    result = replay(candles, chosen, symbol="LINKUSDT", reference=market, funding=rates, settings=ladder)
    closed = result.fills[result.fills["trade"] < len(result.trades)]
    by_name = drawn_by(explorer)
    marks = [by_name[f"exit with a {what}"] for what in ("gain", "loss")]
    drawn = sorted(zip(*(np.concatenate([one[name] for one in marks]) for name in "xy"), strict=True))
    fills = closed[closed["reason"] != "entry"]
    assert len(fills) > len(result.trades)
    assert drawn == sorted(zip(fills["time"].map(to_ms), fills["price"], strict=True))
    line = by_name["trade"]
    held = ~np.isnan(line["y"])
    np.testing.assert_array_equal(line["x"][held], closed["time"].map(to_ms))
    np.testing.assert_array_equal(line["y"][held], closed["price"])
    moving = explorer._chart.widget.moving["traces"]
    texts = [text for trace in (GAIN, LOSS) for text in moving[str(trace)]["text"]]
    assert sum(text == "target of 50%" for text in texts) > 0 and "stop" in texts
    explorer.close()


def test_trades_that_are_not_drawn_are_counted(explorer: CalibrationExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    n = explorer.metrics["n_trades"]
    assert n > 12 and "The chart shows" not in explorer._table.value
    monkeypatch.setattr("aione_lab.widgets.explorer_chart.MOST_TRADES", 12)
    explorer.load(explorer.thresholds)
    by_name = drawn_by(explorer)
    assert sum(len(by_name[f"exit with a {what}"]["x"]) for what in ("gain", "loss")) == 12
    assert f"The chart shows the newest 12 of {n:,d} trades." in explorer._table.value


def test_a_zoom_is_drawn_finer_and_reaches_from_extreme_to_extreme(explorer: CalibrationExplorer) -> None:
    chart, times = explorer._chart.widget, explorer._scene.times
    inside = slice(10_000, 10_200)
    tell = {"kind": "zoom", "range": ["2025-01-07 22:40", "2025-01-08 01:59"]}
    chart._handle_custom_msg(tell, [])
    by_name = drawn_by(explorer)
    for name, values in (("price", explorer._scene.close), ("sliders", explorer._view.equity)):
        np.testing.assert_array_equal(by_name[name]["x"][1:-1], times[inside])
        np.testing.assert_array_equal(by_name[name]["y"][1:-1], values[inside])
    low, high = chart.moving["ranges"]["yaxis"]
    prices = explorer._scene.close[inside]
    assert low < prices.min() and prices.max() < high
    explorer.sliders["tp_mult"].value = 1.0
    assert len(drawn_by(explorer)["sliders"]["x"]) == 202


def test_an_axis_stays_while_what_it_shows_fits() -> None:
    first = settled(None, 0.0, 10.0)
    assert first[0] < 0.0 and first[1] > 10.0
    assert settled(first, 0.5, 10.5) == first
    for low, high in ((0.0, 12.0), (-3.0, 10.0), (4.0, 6.0), (5.0, 5.0)):
        again = settled(first, low, high)
        assert again != first and again[0] < low and high < again[1]


def test_sliders_are_the_declared_ranges(explorer: CalibrationExplorer) -> None:
    declared = search_space()
    assert list(explorer.sliders) == list(declared)
    for name, slider in explorer.sliders.items():
        assert (slider.min, slider.step) == (declared[name].low, declared[name].step)
        assert slider.max == pytest.approx(declared[name].high)


def test_a_loaded_set_stays_as_it_is_until_a_slider_moves(explorer: CalibrationExplorer) -> None:
    given = Thresholds(low_gate=0.0004, vol_z_threshold=None, tp_mult=2.13, dynamic_rsi_multiplier=None)
    explorer.load(given)
    assert explorer.thresholds == given
    explorer.sliders["sl_mult"].value = 2.0
    assert explorer.thresholds == given.replace(sl_mult=2.0)


def test_sliders_that_are_no_set_say_so_and_change_nothing(explorer: CalibrationExplorer) -> None:
    explorer.load(Thresholds(rsi_oversold=20, rsi_overbought=40))
    drawn = explorer._view
    explorer.sliders["rsi_oversold"].value = 45
    assert "rsi_oversold must be less than rsi_overbought" in explorer._says.value and explorer._view is drawn
    explorer._panels.heatmap.x.value = "rsi_oversold"
    assert "rsi_oversold must be less than rsi_overbought" in explorer._panels.heatmap._note.value
    explorer.sliders["rsi_oversold"].value = 30
    assert explorer.thresholds == Thresholds(rsi_oversold=30, rsi_overbought=40) == explorer._view.thresholds


def test_hidden_candles_are_not_loaded(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[int] = []
    for name in ("candles", "funding"):
        read = getattr(Lake, name)

        def watched(self: Lake, *arguments: Any, read: Any = read) -> Any:
            frame = read(self, *arguments)
            ends.append(int(frame.index[-1].value // 1_000_000))
            return frame

        monkeypatch.setattr(Lake, name, watched)
    explorer = CalibrationExplorer(lake, "LINKUSDT", folder=tmp_path)
    hidden = to_ms(explorer.hidden_from)
    span = lake.span("LINKUSDT", "1m")
    assert span is not None and span[1] // DAY_MS + 1 - hidden // DAY_MS == DAYS // 5
    explorer._panels.show("Heatmap")
    assert len(ends) == 3 and max(ends) < hidden
    drawn = drawn_by(explorer)
    assert max(drawn[name]["x"][-1] for name in ("price", "default", "sliders", "drawdown")) < hidden
    assert max(layout_of(explorer)["xaxis"]["range"]) <= hidden
    explorer.close()


def test_the_hidden_span_of_a_study_is_the_study_s(study: Calibration, tmp_path: Path) -> None:
    explorer = CalibrationExplorer(study, folder=tmp_path)
    assert explorer.hidden_from == study.experiment.hidden_from
    assert explorer._scene.times[-1] < to_ms(study.experiment.hidden_from)
    assert explorer.thresholds == study.thresholds
    explorer.close()


def test_only_the_newest_position_is_computed(explorer: CalibrationExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one position is computed others arrive from the thread of the messages: of those the last one counts."""
    computed: list[float] = []
    begun, go_on = threading.Event(), threading.Event()
    view = type(explorer._scene).view

    def slow(scene: Any, thresholds: Thresholds) -> Any:
        computed.append(thresholds.tp_mult)
        if len(computed) == 1:
            begun.set()
            assert go_on.wait(30)
        return view(scene, thresholds)

    monkeypatch.setattr(type(explorer._scene), "view", slow)
    slider = explorer.sliders["tp_mult"]
    other = threading.Thread(target=setattr, args=(slider, "value", 1.0))
    other.start()
    assert begun.wait(30)
    for value in (1.5, 2.0, 2.5, 4.0):
        slider.value = value
    assert computed == [1.0]
    go_on.set()
    other.join(30)
    assert computed == [1.0, 4.0] and explorer._view.thresholds.tp_mult == 4.0


def test_a_cell_of_the_heatmap_is_a_set(explorer: CalibrationExplorer, lake: Lake) -> None:
    explorer.sliders["min_confidence"].value = 0.5
    explorer._panels.show("Heatmap")
    heatmap = explorer._panels.heatmap
    drawn = heatmap.figure.data[0]
    across, up, cells = (np.asarray(getattr(drawn, name)) for name in "xyz")
    assert cells.shape == (len(up), len(across)) and min(cells.shape) > 5
    heatmap.pick(float(across[2]), float(up[4]))
    assert (explorer.thresholds.tp_mult, explorer.thresholds.sl_mult) == (across[2], up[4])
    assert explorer.thresholds.min_confidence == 0.5
    assert explorer.metrics["net_pnl"] == cells[4, 2] == replayed(explorer, lake).metrics["net_pnl"]
    heatmap.x.value = "sl_mult"
    assert "two different" in heatmap._note.value


def test_a_trial_and_a_point_of_the_front_are_loaded_by_a_click(study: Calibration, tmp_path: Path) -> None:
    from plotly.callbacks import Points

    explorer = CalibrationExplorer(study, folder=tmp_path)
    panels = explorer._panels
    for name, trace in (("Trials", 0), ("Pareto", 0), ("Parallel", 0)):
        panels.chooser.value = name
        figure = panels._made[name]
        clicked = figure.data[trace]
        at = 1
        points = Points([at], [np.asarray(clicked.x)[at]], [np.asarray(clicked.y)[at]], clicked.name, trace)
        clicked._dispatch_on_click(points, None)
        row = int(np.asarray(clicked.customdata)[at]) if clicked.customdata is not None else None
        if row is None:
            params = study.optuna_study.get_trials(deepcopy=False)[round(float(points.xs[0]))].params
            assert {key: getattr(explorer.thresholds, key) for key in params} == pytest.approx(params)
        else:
            assert explorer.thresholds == study.sets[row]
    for name in ("Importance", "Plateau"):
        panels.chooser.value = name
        assert panels._made[name].data
    panels.chooser.value = "Folds"
    (chosen,) = fold_returns(study)["chosen"].tail(1)
    assert "study, fold by fold</th>" in panels._folds.value and f">{chosen:+.2%}</td>" in panels._folds.value
    explorer.close()


def test_folds_follow_the_sliders(explorer: CalibrationExplorer, lake: Lake) -> None:
    explorer.sliders["tp_mult"].value = 1.0
    folds = explorer._scene.folds
    assert folds is not None
    found = explorer._scene.by_fold(explorer._views())
    daily = replayed(explorer, lake).equity.resample("1D").last()
    returns = np.diff(np.concatenate([[10_000.0], daily.to_numpy()])) / np.concatenate([[10_000.0], daily[:-1]])
    wanted = [np.prod(1 + returns[days]) - 1 for days in folds.test]
    np.testing.assert_allclose(found["sliders", "return"], wanted, rtol=1e-9)
    for returned, n in zip(found["sliders", "return"], found["sliders", "trades"], strict=True):
        assert f">{returned:+.2%} ({n:,d})</td>" in explorer._panels._folds.value
    assert len(layout_of(explorer)["shapes"]) == len(folds.test) == len(found)


def test_saved_and_exported_sets_are_read_again(explorer: CalibrationExplorer, tmp_path: Path) -> None:
    explorer.sliders["vwap_threshold"].value = 2.5
    path = explorer.save(tmp_path / "mine.json")
    assert Thresholds.from_json(path.read_text()) == explorer.thresholds
    assert Thresholds.from_json(explorer.export()) == explorer.thresholds
    for bad in (tmp_path / "mine.txt", tmp_path / "nowhere" / "mine.json", tmp_path, None, 5, b"mine.json"):
        with pytest.raises(InputError, match="path="):
            explorer.save(bad)  # type: ignore[arg-type]
    explorer._path.value = str(tmp_path / "nowhere" / "<b>.json")
    explorer._try(lambda: str(explorer.save(explorer._path.value)))
    assert "must be a .json file" in explorer._says.value and "&lt;b&gt;" in explorer._says.value
    link = re.search(r'data:application/json,([^"]*)', explorer._show_export())
    assert link and Thresholds.from_json(unquote(link[1])) == explorer.thresholds


def test_saving_replaces_a_set_and_nothing_else(
    explorer: CalibrationExplorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text('{"tp_mult": 2.0}')
    for name, answer in (("new.json", "new.json."), ("mine.json", "mine.json, in place of the set that it held.")):
        explorer._path.value = name
        explorer._try(explorer._try_save)
        assert f"Saved to {tmp_path.resolve() / answer}" in explorer._says.value
        assert Thresholds.from_json((tmp_path / name).read_text()) == explorer.thresholds
    (tmp_path / "folder").mkdir()
    assert explorer.save("folder/../new.json") == tmp_path.resolve() / "new.json"
    for content in (b'{"name": "x"}', b"", b"\xff", b"[1]", b'{"tp_mult": 2.0, "meta": {"study": "s"}}'):
        (tmp_path / "package.json").write_bytes(content)
        explorer._path.value = "package.json"
        explorer._try(explorer._try_save)
        assert "holds no set that was saved" in explorer._says.value
        with pytest.raises(InputError, match=r"path='.*package\.json': is not replaced"):
            explorer.save("package.json")
        assert (tmp_path / "package.json").read_bytes() == content


def test_a_set_by_hand_does_not_pass_the_gate(explorer: CalibrationExplorer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only an accepted set is promoted; this set was put together by hand"):
        explorer.promote()
    explorer._try(explorer._try_promote)
    assert "only an accepted set is promoted" in explorer._says.value
    assert explorer.store.symbols() == []


def test_the_choice_of_a_study_passes_only_if_it_was_accepted(study: Calibration, tmp_path: Path) -> None:
    import dataclasses

    explorer = CalibrationExplorer(study, folder=tmp_path / "refused")
    if study.verdict != "accept":
        with pytest.raises(InputError, match="only an accepted set is promoted"):
            explorer.promote()
    explorer.close()
    judged = dataclasses.replace(study.judged, decision="accept", sentence="Accepted for this test.")
    # Nothing hidden: the acceptance stands as it is.
    accepted = dataclasses.replace(
        study, judged=judged, experiment=study.experiment.replace(end=study.experiment.hidden_from)
    )
    explorer = CalibrationExplorer(accepted, folder=tmp_path / "accepted")
    assert "promoted</th>" not in explorer._table.value
    entry = explorer.promote()
    assert entry.thresholds == accepted.thresholds and explorer.store.calibrated("LINKUSDT") == accepted.thresholds
    assert "promoted</th>" in explorer._table.value
    explorer.sliders["tp_mult"].value = 1.25
    with pytest.raises(InputError, match="by hand"):
        explorer.promote()
    explorer._load_known("promoted")
    assert explorer.thresholds == accepted.thresholds
    explorer.close()


def test_bad_input(lake: Lake, study: Calibration, explorer: CalibrationExplorer) -> None:
    for arguments, options, said in (
        (("data_lake", "LINKUSDT"), {}, "source="),
        ((lake,), {}, "symbol=None"),
        ((lake, ["LINKUSDT"]), {}, "symbol="),
        ((lake, "LINKUSDT"), {"hidden": 0.95}, "hidden"),
        ((lake, "LINKUSDT"), {"thresholds": {"tp_mult": 3}}, "thresholds="),
        ((lake, "LINKUSDT"), {"start": "2030-01-01"}, "start='2030-01-01': the lake's 1m candles"),
        ((lake, "LINKUSDT"), {"start": "2025-01-09", "end": "2025-01-02"}, "end='2025-01-02': must be later than"),
        ((lake, "LINKUSDT"), {"start": "2025-01-02", "end": "2025-01-03"}, "hidden=0.2: leaves no day in view"),
        ((lake, "LINKUSDT"), {"end": "2025-01-02", "folds": "rolling"}, "hidden=0.2: leaves no day in view"),
        ((study, "SOLUSDT"), {}, "symbol='SOLUSDT'"),
        ((study,), {"start": "2025-01-02"}, "the study says what that is"),
        ((study,), {"study": study}, "study="),
        ((lake, "LINKUSDT"), {"study": "mine"}, "study="),
    ):
        with pytest.raises(InputError, match=said):
            CalibrationExplorer(*arguments, **options)
    with pytest.raises(LakeError, match="ETHUSDT"):
        CalibrationExplorer(lake, "ETHUSDT")
    with pytest.raises(InputError, match="thresholds="):
        explorer.load({"tp_mult": 3})  # type: ignore[arg-type]


def test_few_days_are_shown_without_folds(lake: Lake, tmp_path: Path) -> None:
    CalibrationExplorer(lake, "LINKUSDT", end="2025-01-02", hidden=0.0, folder=tmp_path).close()
    explorer = CalibrationExplorer(lake, "LINKUSDT", end="2025-01-05", folder=tmp_path)
    assert explorer._scene.folds is None and not layout_of(explorer).get("shapes")
    assert "too few" in explorer._panels._made["Folds"].value
    explorer.close()


def test_close_leaves_no_widget(lake: Lake, study: Calibration, tmp_path: Path) -> None:
    from ipywidgets.widgets.widget import _instances

    before = set(_instances)
    explorer = CalibrationExplorer(study, folder=tmp_path)
    for name in ("Heatmap", "Trials", "Plateau"):
        explorer._panels.chooser.value = name
    slider = explorer.sliders["tp_mult"]
    explorer.close()
    explorer.close()
    assert set(_instances) - before == set()
    drawn = explorer._view
    slider.value = 1.0
    assert explorer._view is drawn
    with pytest.raises(InputError, match="closed"):
        explorer._repr_mimebundle_()
