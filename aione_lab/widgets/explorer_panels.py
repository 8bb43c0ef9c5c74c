"""Below the chart, one at a time: folds, heatmap, and of a study its trials, front, parallels, importance, plateau."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from aione_lab.calibration.space import Space
from aione_lab.calibration.study import Calibration
from aione_lab.calibration.views import fold_returns, run_dates
from aione_lab.errors import InputError
from aione_lab.thresholds.params import Thresholds
from aione_lab.widgets.explorer_scene import Scene, View
from aione_lab.widgets.explorer_style import SECOND, note, on_any_ground, when_drawn
from aione_lab.widgets.explorer_table import STUDY, folds_table

METRICS = ("net_pnl", "expectancy", "profit_factor", "win_rate", "max_drawdown", "sharpe", "n_trades")

Load = Callable[[Thresholds], None]


class Panels:
    """The chooser and the panel that it chose, drawn when it is first asked for; a click loads a set."""

    def __init__(self, scene: Scene, views: Callable[[], Mapping[str, View]], load: Load, height: int) -> None:
        self._scene, self._views, self._load, self._height = scene, views, load, height
        self._made: dict[str, widgets.Widget] = {}
        self._folds = widgets.HTML(layout=widgets.Layout(width="100%"))
        folds = scene.folds
        self._days = [] if folds is None else [run_dates(folds.first_day, days) for days in folds.test]
        self._heatmap: Heatmap | None = None
        makers: dict[str, Callable[[], widgets.Widget]] = {"Folds": self._make_folds, "Heatmap": self._make_heatmap}
        if scene.study is not None:
            study = scene.study
            makers["Trials"] = lambda: self._of_study(study.plot_history, study)
            if len(study.experiment.metric) in (2, 3):
                makers["Pareto"] = lambda: self._of_study(study.plot_pareto, study)
            makers["Parallel"] = lambda: self._of_study(study.plot_parallel, study)
            makers["Importance"] = lambda: self._of_study(study.plot_importance, study)
            makers["Plateau"] = lambda: self._of_study(study.plateau.plot, study)
        self._makers = makers
        self.chooser = widgets.ToggleButtons(options=list(makers), value="Folds", style={"button_width": "auto"})
        self._place = widgets.VBox(layout=widgets.Layout(width="100%", overflow="hidden"))
        self.chooser.observe(lambda change: self.show(change["new"]), "value")
        self.widget = widgets.VBox([self.chooser, self._place], layout=widgets.Layout(width="100%", overflow="hidden"))

    def show(self, name: str) -> None:
        """Draw a panel, or what it shows anew, and put it in view."""
        if name not in self._made:
            made = self._makers[name]()
            self._made[name] = made
        self._place.children = (self._made[name],)
        self.draw()

    def draw(self) -> None:
        """What follows the sliders: the folds, if they are in view."""
        if self.chooser.value == "Folds" and self._scene.folds is not None:
            table = self._scene.by_fold(self._views())
            returns, trades = (pd.DataFrame(table.xs(what, axis=1, level=1)) for what in ("return", "trades"))
            study = self._scene.study
            if study is not None and len(study.experiment.symbols) == 1:
                returns[STUDY] = fold_returns(study)["chosen"].to_numpy()
            self._folds.value = folds_table(returns, trades, self._days)

    @property
    def heatmap(self) -> Heatmap:
        """The heatmap, made if nobody looked at it yet."""
        if self._heatmap is None:
            self._heatmap = Heatmap(self._scene, lambda: self._views()["sliders"].thresholds, self._load, self._height)
        return self._heatmap

    def close(self) -> None:
        """Close what was drawn, also what is not in view."""
        rest = [] if self._heatmap is None else [self._heatmap.widget]
        for made in (*self._made.values(), *rest, self._folds):
            close_all(made)

    def _make_heatmap(self) -> widgets.Widget:
        self.heatmap.compute()
        return self.heatmap.widget

    def _make_folds(self) -> widgets.Widget:
        if self._scene.folds is None:
            return widgets.HTML(note(f"No folds: {self._scene.without_folds}"))
        return self._folds

    def _of_study(self, draw: Callable[..., go.Figure], study: Calibration) -> go.FigureWidget:
        many = draw in (study.plot_parallel, study.plot_importance)  # a row or an axis for each threshold
        margin = {"l": 72, "r": 12, "t": 26, "b": 132 if draw == study.plot_parallel else 76}
        figure = on_any_ground(draw(theme="light"), self._height + 60 + 80 * many, margin=margin, legend=_LEGEND)
        by_number = {trial.number: trial for trial in study.optuna_study.get_trials(deepcopy=False)}
        place = {one.digest()[:16]: one for one in study.sets}

        def clicked(trace: Any, points: Any, _: Any) -> None:
            if not points.point_inds:
                return
            at = points.point_inds[0]
            if trace.customdata is not None:
                self._load(study.sets[int(np.asarray(trace.customdata)[at])])
            elif draw == study.plot_history and (trial := by_number.get(round(float(points.xs[0])))):
                self._load(place[trial.user_attrs["set"]])

        for trace in figure.data:
            trace.on_click(clicked)
        return figure


_LEGEND = {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom", "font": {"size": 10}}


class Heatmap:
    """A metric over two thresholds, all else as the sliders stand when it is computed; a click loads the cell."""

    def __init__(self, scene: Scene, current: Callable[[], Thresholds], load: Load, height: int) -> None:
        self._scene, self._current, self._load = scene, current, load
        self._shown: tuple[Thresholds, str, str, tuple[Any, Any, Any]] | None = None  # what the cells stand for
        self._picked: list[tuple[float, float]] = []
        names = list(scene.space.ranges)
        narrow = {"width": "auto", "flex": "1 1 90px", "min_width": "80px"}

        def choice(options: list[str], value: str, what: str) -> widgets.Dropdown:
            made = widgets.Dropdown(options=options, value=value, tooltip=what, layout=widgets.Layout(**narrow))
            made.observe(lambda _: self.compute(), "value")
            return made

        self.x = choice(names, "tp_mult", "across")
        self.y = choice(names, "sl_mult", "up")
        self.metric = choice(list(METRICS), "net_pnl", "what is shown")
        again = widgets.Button(
            icon="refresh", tooltip="compute again, from where the sliders stand", layout=widgets.Layout(width="34px")
        )
        again.on_click(lambda _: self.compute())
        cells = go.Heatmap(
            z=[[0.0]], colorscale=[[0, "rgba(43,140,196,0.06)"], [0.5, "#56b4e9"], [1, "#004c78"]],
            colorbar={"thickness": 12}, xgap=1, ygap=1, hoverongaps=False,
        )  # fmt: skip
        star = {"symbol": "star", "size": 13, "color": SECOND}
        picked = go.Scatter(x=[], y=[], mode="markers", hoverinfo="skip", marker=star)
        margin = {"l": 60, "r": 8, "t": 8, "b": 44}
        self.figure = on_any_ground(go.Figure([cells, picked]), height - 32, margin=margin, showlegend=False)
        when_drawn(self.figure, self._draw)
        self.figure.data[0].on_click(self._clicked)
        self._note = widgets.HTML()
        self.widget = widgets.VBox(
            [
                widgets.HBox([self.x, self.y, self.metric, again], layout=widgets.Layout(width="100%")),
                self._note,
                self.figure,
            ],
            layout=widgets.Layout(overflow="hidden"),
        )

    def compute(self) -> None:
        """Compute every cell in one batch and draw them."""
        x, y, metric = self.x.value, self.y.value, self.metric.value
        if x == y:
            self._note.value = note("Choose two different thresholds.", "error")
            return
        try:
            base = self._current()
            cells = self._scene.grid(base, x, y, metric)
        except InputError as error:  # a cell that is no set beside what the sliders say
            self._note.value = note(str(error), "error")
            return
        self._note.value = ""
        self._shown, self._picked = (base, x, y, cells), []
        self._draw()

    def _draw(self) -> None:
        if self._shown is None:
            return
        _, x, y, (across, up, scores) = self._shown
        with self.figure.batch_update():
            hover = f"{x} %{{x}}, {y} %{{y}}: %{{z:.4g}}<extra></extra>"
            self.figure.data[0].update(x=across, y=up, z=scores, hovertemplate=hover)
            self.figure.layout.xaxis.title.text = _label(self._scene.space, x)
            self.figure.layout.yaxis.title.text = _label(self._scene.space, y)
            self.figure.data[1].update(x=[one for one, _ in self._picked], y=[one for _, one in self._picked])

    def pick(self, x: float, y: float) -> None:
        """Load the set of a cell."""
        if self._shown is None:
            return
        base, across, up, _ = self._shown  # not what is chosen by now: that may have been refused
        self._picked = [(x, y)]
        self._draw()
        self._load(Space(self._scene.space.ranges, base).thresholds({across: x, up: y}))

    def _clicked(self, _: Any, points: Any, __: Any) -> None:
        if points.xs:
            self.pick(float(points.xs[0]), float(points.ys[0]))


def _label(space: Space, name: str) -> str:
    of = space.ranges[name].multiple_of
    return f"{name} (× {of})" if of else name


def close_all(widget: widgets.Widget) -> None:
    """Close a widget, what is in it, and its layouts and styles."""
    for child in getattr(widget, "children", ()):
        close_all(child)
    for name in ("layout", "style"):
        part = getattr(widget, name, None)
        if isinstance(part, widgets.Widget):
            part.close()
    widget.close()
