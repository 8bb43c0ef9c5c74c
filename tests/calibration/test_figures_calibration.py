"""Figures, words and report of a study: they show what it holds, all of it safe, and nothing of the hidden days."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import plotly.graph_objects as go
import pytest

from aione_lab import Lake, Thresholds, calibrate
from aione_lab.calibration import Calibration, views, words
from aione_lab.calibration.experiment import write_json, write_text
from aione_lab.calibration.hidden import revealed
from aione_lab.calibration.importance import parameter_importance
from aione_lab.calibration.report import FILE, page
from aione_lab.errors import InputError
from aione_lab.figures.calibration import heatmap_chart, history_chart, importance_chart, slices_chart
from aione_lab.figures.calibration_folds import folds_chart, overview_chart, walk_forward_chart
from aione_lab.figures.calibration_sets import parallel_chart, pareto_chart
from aione_lab.lake.simulated import fill

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(1)</script>"
DAYS = 30


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    fill(lake, days=DAYS, symbols=["LINKUSDT"])
    return lake


@pytest.fixture(scope="module")
def study(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    folder = tmp_path_factory.mktemp("experiments")
    return calibrate(
        lake,
        "LINKUSDT",
        n_trials=40,
        metric=["expectancy", "max_drawdown", "win_rate"],
        folds="rolling",
        folder=folder,
        progress=False,
    )


@pytest.fixture(scope="module")
def still(lake: Lake) -> Calibration:
    """A study whose sets never trade: nobody is that confident."""
    return calibrate(
        lake,
        "LINKUSDT",
        n_trials=20,
        space={"tp_mult": (1.0, 6.0), "atr_target": (0.3, 1.5)},
        base=Thresholds(min_confidence=1.0, min_reasons_for_alert=11),
        folds="combinatorial",
        folder=None,
        progress=False,
    )


def named(figure: go.Figure, name: str) -> go.Scatter:
    return next(trace for trace in figure.data if trace.name == name)


PLOTS: dict[str, Callable[[Calibration, str], go.Figure]] = {
    "plot": lambda study, theme: study.plot(theme),
    "importance": lambda study, theme: study.plot_importance("win_rate", theme),
    "history": lambda study, theme: study.plot_history("max_drawdown", theme),
    "slices": lambda study, theme: study.plot_slices(theme=theme),
    "parallel": lambda study, theme: study.plot_parallel("max_drawdown", theme),
    "pareto": lambda study, theme: study.plot_pareto(theme),
    "heatmap": lambda study, theme: study.plot_heatmap("tp_mult", "min_confidence", theme=theme),
    "folds": lambda study, theme: study.plot_folds("win_rate", theme),
    "equity": lambda study, theme: study.plot_equity(theme),
}


@pytest.mark.parametrize("name", sorted(PLOTS))
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_plot_draws_in_both_themes_and_again_the_same(study: Calibration, name: str, theme: str) -> None:
    figure = PLOTS[name](study, theme)
    assert (
        len(figure.data)
        and figure.layout.template.layout.paper_bgcolor == {"light": "#ffffff", "dark": "#14191f"}[theme]
    )
    assert figure.to_json() == PLOTS[name](study, theme).to_json()


def test_what_cannot_be_drawn_is_refused_by_name(study: Calibration, still: Calibration) -> None:
    with pytest.raises(InputError, match="metric='sharpe': must be one of the study's: expectancy"):
        study.plot_slices("sharpe")
    with pytest.raises(InputError, match="did you mean 'tp_mult'"):
        study.plot_heatmap("tp_mul", "sl_mult")
    with pytest.raises(InputError, match="another threshold"):
        study.plot_heatmap("tp_mult", "tp_mult")
    with pytest.raises(InputError, match="two or three"):
        still.plot_pareto()
    with pytest.raises(InputError, match="theme"):
        study.plot("grey")  # type: ignore[arg-type]


def test_the_chosen_set_stands_where_its_numbers_are(study: Calibration) -> None:
    sets = views.sets_frame(study)
    assert list(sets["trial"]) == sorted(sets["trial"]) and len(sets) == len(study.sets)
    row = sets.iloc[study.plateau.centre]
    values = study.thresholds.every_field()
    assert row["tp_mult"] == values["tp_mult"] and f"{row['low_gate']:g}x" == values["low_gate"]
    assert row["expectancy"] == pytest.approx(study.plateau.mean_scores[study.plateau.centre])
    figure = study.plot_heatmap("tp_mult", "min_confidence")
    assert named(figure, "chosen").x[0] == values["tp_mult"]
    assert named(study.plot_history(), "chosen").x[0] == row["trial"]
    assert np.nansum([int(n) for line in figure.data[0].text for n in line if n]) == len(sets)


def test_the_front_is_what_no_other_set_beats(study: Calibration) -> None:
    sets = views.sets_frame(study)
    cost = sets[["expectancy", "max_drawdown", "win_rate"]].to_numpy() * [-1, 1, -1]
    beaten = [any((other <= one).all() and (other < one).any() for other in cost) for one in cost]
    front = named(study.plot_pareto(), "Pareto front")
    assert sorted(front.x) == sorted(sets["expectancy"][~np.array(beaten)])


def test_equity_and_folds_hold_the_tested_days_and_nothing_of_the_hidden_ones(study: Calibration) -> None:
    hidden = pd.Timestamp(study.experiment.hidden_from).tz_localize(None)
    figure = study.plot_equity()
    for trace in figure.data:
        assert pd.Timestamp(trace.x[-1]) <= hidden
    spans = views.tested_spans(study)
    assert max(after for _, after, _ in spans).tz_localize(None) <= hidden
    equity = named(figure, next(t.name for t in figure.data if t.name.startswith("chosen fold by fold (")))
    assert equity.y[0] == 100
    assert equity.y[-1] == pytest.approx(100 * (1 + study.out_of_sample["total_return"]))
    days = [int((after - first).days) for first, after, _ in spans]
    assert sum(days) == study.out_of_sample["n_days"] and len(spans) == len(study.folds.test)

    scores, trades = views.fold_scores(study, "expectancy")
    np.testing.assert_allclose(scores[views.CHOSEN], study.walk_forward.folds["test_score"])
    np.testing.assert_allclose(trades[views.CHOSEN], study.walk_forward.folds["n_trades"])
    np.testing.assert_allclose(scores[views.DEFAULT], study.walk_forward.folds["default_score"])
    np.testing.assert_allclose(scores[views.FINAL], study.plateau.fold_scores[study.plateau.centre])
    returns = views.fold_returns(study)
    np.testing.assert_allclose(returns["chosen"], study.walk_forward.folds["total_return"])
    assert np.prod(1 + returns["default"]) - 1 == pytest.approx(study.out_of_sample["default_total_return"])
    first, last = scores.index[-1].split(": ")[1].split(" to ")
    assert last == str((hidden - pd.Timedelta(days=1)).date())  # both ends are tested days
    assert (pd.Timestamp(last) - pd.Timestamp(first)).days + 1 == study.folds.test[-1].sum()


def test_importance_finds_the_parameter_that_moves_the_score() -> None:
    made = optuna.create_study(directions=["maximize", "minimize"])
    ranges = {
        "moves": optuna.distributions.FloatDistribution(0, 1),
        "idle": optuna.distributions.FloatDistribution(0, 1),
    }
    rng = np.random.default_rng(0)
    for moves, idle in rng.uniform(size=(60, 2)):
        params = {"moves": float(moves), "idle": float(idle)}
        made.add_trial(optuna.create_trial(params=params, distributions=ranges, values=[float(moves), 1.0]))
    shares = parameter_importance(made)
    assert list(shares.index) == ["moves", "idle"] and shares["moves"] > 0.9 and shares.sum() == pytest.approx(1)
    assert shares.equals(parameter_importance(made))
    assert parameter_importance(made, 1).isna().all()


def test_a_study_without_trades_is_drawn_and_told_too(still: Calibration) -> None:
    assert still.verdict == "not enough trades" and not still.tables.trades.any()
    for figure in (
        still.plot(),
        still.plot_importance(),
        still.plot_slices(),
        still.plot_parallel(),
        still.plot_folds(),
    ):
        assert figure.layout.height
    text = page(still)
    assert "cannot be measured" in text and "standing aside" in text and "no ledger was kept" in text
    assert "the other days" in text  # combinatorial: what was chosen may lie after what was tested


# --- words and report --------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data + "\n"


def test_the_study_says_what_it_is(study: Calibration) -> None:
    assert repr(study) == f"Calibration(LINKUSDT 1m, 40 trials, {study.verdict})"
    text, shown = str(study), Page(study._repr_html_())
    for said in (study.sentence, "best trial", "min_confidence", "net of costs", "24 days", "not looked at"):
        assert said in text and said in shown.text
    assert words.threshold("low_gate", None) == "adaptive" and words.threshold("dynamic_rsi_multiplier", None) == "off"


def test_an_end_of_the_range_is_told(study: Calibration) -> None:
    told = words.at_the_edge(study)
    at = {**study.thresholds.every_field()}
    for name, (low, high, _) in study.experiment.space.items():
        value = float(str(at[name]).removesuffix("x"))
        assert (name in told) == (value in (low, high)), name


def test_the_last_step_of_a_range_is_an_end_also_where_it_does_not_reach_the_high(study: Calibration) -> None:
    name, value = "min_confidence", study.thresholds.min_confidence
    space = {**study.experiment.space, name: (value - 0.3, value + 0.07, 0.1)}
    found = dataclasses.replace(study, experiment=study.experiment.replace(space=space))
    assert name in words.at_the_edge(found)


def test_names_from_outside_stay_text(study: Calibration) -> None:
    judged = dataclasses.replace(study.judged, sentence=HOSTILE)
    found = dataclasses.replace(study, judged=judged)
    for text in (found._repr_html_(), page(found)):
        shown = Page(text)
        assert "img" not in shown.tags and "onerror" not in shown.attributes and HOSTILE in shown.text
    for figure in (
        importance_chart(pd.Series({HOSTILE: 1.0}), HOSTILE),
        history_chart([1.0, 2.0], HOSTILE, maximize=True, chosen=0, peak=1, default=1.0),
        overview_chart({HOSTILE: study.plot_equity()}, HOSTILE, title=HOSTILE),
        folds_chart(*[pd.DataFrame({HOSTILE: [1.0]}, index=[HOSTILE])] * 2, HOSTILE),
    ):
        assert "<img" not in str(figure.to_dict())  # JSON would hide it: it writes < as an escape
    sets = pd.DataFrame({HOSTILE: [1.0, 2.0], "y": [1.0, 2.0], "score": [0.0, 1.0]})
    labels = {HOSTILE: HOSTILE, "y": HOSTILE}
    two = {"centre": 0, "peak": 1}
    for figure in (
        slices_chart(sets, labels, "score", **two),
        parallel_chart(sets, labels, "score", {HOSTILE: (0, 2), "y": (0, 2)}, maximize=True, **two),
        heatmap_chart(sets, HOSTILE, "y", "score", **two),
        pareto_chart(sets, {HOSTILE: True, "y": False}, [0], **two),
    ):
        assert "<img" not in str(figure.to_dict())  # JSON would hide it: it writes < as an escape


def test_empty_input_says_so() -> None:
    nothing = pd.DataFrame({"x": [], "y": [], "score": []}, dtype=float)
    two = {"centre": 0, "peak": 0}
    for figure in (
        slices_chart(nothing, {"x": "x"}, "score", **two),
        parallel_chart(nothing, {"x": "x"}, "score", {"x": (0, 1)}, maximize=True, **two),
        heatmap_chart(nothing, "x", "y", "score", **two),
        pareto_chart(nothing, {"x": True, "y": True}, [], **two),
        history_chart([], "score", maximize=True, chosen=0, peak=0, default=0.0),
        folds_chart(pd.DataFrame(), pd.DataFrame(), "score"),
        walk_forward_chart(pd.DataFrame({"return": [], "default_return": []}), []),
    ):
        assert not figure.data and figure.layout.annotations[0].text.startswith("no ")
    with pytest.raises(InputError, match="lacks the column 'score'"):
        slices_chart(nothing.drop(columns="score"), {"x": "x"}, "score", **two)


def test_the_report_lies_beside_the_results_and_is_the_same_again(study: Calibration) -> None:
    assert study.folder is not None
    text = (study.folder / FILE).read_text(encoding="utf-8")
    assert text == page(study)
    shown = Page(text)
    for said in (
        study.sentence,
        study.plateau.sentence,
        "not looked at by this study",
        "What this does not exclude",
        f"{study.ledger.n_trials:,} distinct trials",
        *study.experiment.data.values(),
        study.digest,
    ):
        assert said in shown.text
    assert text.count("<!doctype html>") == 1 and text.rstrip().endswith("</html>")
    assert not re.search(r"(src|href)=\"?https?:", re.sub(r"<script>.*?</script>", "", text, flags=re.S))
    assert str(study.folder.parent) not in text
    assert sorted(path.name for path in study.folder.iterdir() if ".new" in path.name) == []


def test_the_report_tells_what_the_hidden_days_said_of_this_set_only(study: Calibration, tmp_path: Path) -> None:
    assert study.folder is not None
    for name in ("experiment.json", "results.json"):
        (tmp_path / name).write_bytes((study.folder / name).read_bytes())
    copy = dataclasses.replace(study, folder=tmp_path)
    hidden = copy.reveal()
    assert revealed(copy) == {study.symbol: hidden} and hidden.thresholds == study.thresholds.digest()
    shown = Page((tmp_path / FILE).read_text(encoding="utf-8")).text
    assert hidden.sentence in shown and "not looked at" not in shown and f"The 6 hidden days of {study.symbol}" in shown
    kept = json.loads((tmp_path / "hidden.json").read_text(encoding="utf-8"))
    other = {study.symbol: {**kept[study.symbol], "thresholds": "of another set"}}
    write_json(tmp_path / "hidden.json", other)
    shown = Page(page(copy, revealed(copy))).text
    assert hidden.sentence not in shown and "nothing about this set" in shown


def test_a_text_is_replaced_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "one\n")
    write_text(tmp_path / "a", "zwei ÷\n")
    assert (tmp_path / "a").read_bytes() == "zwei ÷\n".encode()
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a", "\ud800")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "zwei ÷\n"
