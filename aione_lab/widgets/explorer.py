"""`CalibrationExplorer`: sliders for the thresholds over months of history, redrawn while they move."""

from __future__ import annotations

import datetime
import html
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import ipywidgets as widgets

from aione_lab.calibration.experiment import FoldPlan, versions
from aione_lab.calibration.job import outcome_of, promote
from aione_lab.calibration.ledger import Ledger
from aione_lab.calibration.run import EXPERIMENTS
from aione_lab.calibration.study import Calibration
from aione_lab.engine.params import check_kind
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import AioneError, InputError
from aione_lab.figures.newest import Newest
from aione_lab.files import may_be_file, write_whole
from aione_lab.lake.store import Lake, fingerprint_candles
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.thresholds.provenance import Entry, Provenance
from aione_lab.thresholds.store import ThresholdStore
from aione_lab.units import to_ms
from aione_lab.widgets.chart import Plotly
from aione_lab.widgets.explorer_chart import SceneChart, span_text
from aione_lab.widgets.explorer_panels import Panels, close_all
from aione_lab.widgets.explorer_scene import View, make_scene
from aione_lab.widgets.explorer_sliders import Sliders
from aione_lab.widgets.explorer_style import Fit, note
from aione_lab.widgets.explorer_table import metrics_table
from aione_lab.widgets.replace import replace_in_cell

CHART_HEIGHT, PANEL_HEIGHT = 340, 236

SET_BY_HAND = "this set was put together by hand; no study has judged it on days that had no part in the choice"
OTHER_DATA = "These are not the candles that the study was made on: its verdict speaks of others."


class CalibrationExplorer:
    """Sliders for every threshold; each move replays the visible candles and redraws equity, trades and metrics.

    ``CalibrationExplorer(study)`` opens a finished study, ``CalibrationExplorer(lake, "SOLUSDT", start=…)`` candles
    without one. The last expression of a cell shows it; ``close()`` ends it.

    Parameters
    ----------
    source, symbol
        A ``Lake`` and a symbol of it; or a ``Calibration``, with ``symbol`` to choose one of a pool.
    interval, start, end, hidden, folds, reference, settings, costs
        As for ``calibrate``: of the span asked for, the share ``hidden`` (0.2) at its end stays hidden, and is not read
        from the lake; what is in view counts as looked at in the ledger of ``folder``. With a study all of this is the
        study's, and is refused here.
    study
        A study, where ``source`` is the lake.
    spec
        Needed where own triggers or factors are part of it.
    thresholds
        The set that the sliders begin with; None: the study's choice, else the default.
    folder
        Where the promoted sets are (``ThresholdStore``) and the ledger is; None: that of the study, else "experiments".
        Without a study it is made where it is not there: a later one has to know which days were looked at.

    Raises InputError for arguments that cannot be used, a folder that cannot be written among them, and LakeError where
    the lake lacks the candles.
    """

    def __init__(
        self,
        source: Lake | Calibration,
        symbol: str | None = None,
        *,
        interval: str | None = None,
        start: Any = None,
        end: Any = None,
        study: Calibration | None = None,
        hidden: float | None = None,
        folds: FoldPlan | str | None = None,
        reference: str | None = None,
        spec: FeatureSpec | None = None,
        settings: Settings | None = None,
        costs: Costs | None = None,
        thresholds: Thresholds | None = None,
        folder: str | Path | None = None,
    ) -> None:
        if thresholds is not None:
            check_kind("thresholds", thresholds, Thresholds)
        self._scene = scene = make_scene(
            source, symbol, interval=interval, start=start, end=end, study=study, hidden=hidden, folds=folds,
            reference=reference, spec=spec, settings=settings, costs=costs,
        )  # fmt: skip
        self._spec = spec
        found = scene.study
        if folder is None:
            folder = EXPERIMENTS if found is None or found.folder is None else found.folder.parent
        self.store = ThresholdStore(folder)
        if found is None:
            self._mark_as_seen(Ledger(Path(folder)))
        first = thresholds or (scene.default if found is None else found.thresholds_for(scene.symbol))
        self._closed = False
        self._default = scene.view(scene.default)
        self._view = self._default
        self._refusal = self._standing = ""
        self._promoted = self._read_promoted()
        self._redraw = Newest(self._draw)
        self._library = Plotly()
        self._chart = SceneChart(scene, CHART_HEIGHT, self._library)
        self._panels = Panels(scene, self._views, self.load, PANEL_HEIGHT)
        self._table = widgets.HTML(layout=widgets.Layout(width="100%", margin="2px 0 0 0"))
        self._says = widgets.HTML(layout=widgets.Layout(width="100%", margin="0"))
        self._sliders = Sliders(scene.space, first, self._redraw, self._refused)
        self._sets = self._known_sets()
        self._chart.reference(self._default, self._promoted)
        self.widget = self._assembled()
        self._redraw(self._sliders.thresholds)
        self._panels.show("Folds")

    # --- what it shows -----------------------------------------------------------------------------------------------

    @property
    def thresholds(self) -> Thresholds:
        """The set that the sliders stand for."""
        return self._sliders.thresholds

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Metrics of that set over the visible candles: those of ``replay`` that need no signals."""
        return self._view.metrics

    @property
    def sliders(self) -> Mapping[str, widgets.FloatSlider]:
        """The slider of each threshold by name; of an own trigger, as ``custom.NAME``."""
        return self._sliders.sliders

    @property
    def hidden_from(self) -> str:
        """Where the hidden span begins; no candle from there on was loaded."""
        return self._scene.experiment.hidden_from

    def load(self, thresholds: Thresholds) -> None:
        """Put the sliders where ``thresholds`` has them, and draw it."""
        check_kind("thresholds", thresholds, Thresholds)
        self._open()
        self._sliders.load(thresholds)

    # --- what is done with a set -------------------------------------------------------------------------------------

    def export(self) -> dict[str, Any]:
        """The set of the sliders as flat JSON with every field: what ``Thresholds.from_json`` reads."""
        return {name: value for name, value in self.thresholds.every_field().items() if name != "meta"}

    def save(self, path: str | Path) -> Path:
        """Write the set as a JSON file, which ``--thresholds`` of the program reads too; its absolute path.

        A file that holds a saved set is replaced. One that holds anything else, a promoted set too, is refused:
        InputError.
        """
        if not isinstance(path, str | os.PathLike) or Path(path).suffix != ".json" or not may_be_file(Path(path)):
            value = str(path) if isinstance(path, os.PathLike) else path
            raise InputError.of("path", value, "must be a .json file in a folder that is there")
        place = Path(path).resolve()
        if place.exists() and not _holds_a_set(place):
            raise InputError.of("path", str(place), "is not replaced: it holds no set that was saved")
        try:
            write_whole(place, (json.dumps(self.export(), indent=1, allow_nan=False) + "\n").encode())
        except OSError as error:
            raise InputError.of("path", str(path), f"cannot be written ({error.strerror or error})") from None
        return place

    def promote(self) -> Entry:
        """Put the set in force for the symbol, if the gate lets it: InputError with the reason if not.

        Only the choice of an accepted study passes, and the study's hidden days have to bear it out, which are looked
        at here for the first and only time (``Calibration.reveal``). A set put together by hand was judged by nobody.
        """
        self._open()
        scene, study = self._scene, self._scene.study
        if study is not None and self.thresholds == study.thresholds_for(scene.symbol):
            entry = promote(self.store, outcome_of(study, scene.symbol, spec=self._spec))
        else:
            made = scene.experiment
            provenance = Provenance(
                study="explorer" if study is None or study.folder is None else study.folder.name,
                start=made.start,
                end=made.hidden_from,
                data_fingerprint=fingerprint_candles(scene.market.candles),
                spec_digest=scene.market.spec.digest(),
                verdict="keep defaults",
                sentence=SET_BY_HAND,
                versions=versions(),
            )
            entry = self.store.promote(
                scene.symbol,
                self.thresholds,
                verdict=provenance.verdict,
                provenance=provenance,
                interval=made.interval,
            )
        self._promoted = self._read_promoted()
        self._chart.reference(self._default, self._promoted)
        self._redraw(self.thresholds)
        return entry

    def close(self) -> None:
        """End every widget of it; nothing is left that could be moved or would draw."""
        if not self._closed:
            self._closed = True
            self._chart.close()
            self._library.close()
            self._panels.close()
            close_all(self.widget)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        self._open()
        replace_in_cell(self)
        return self.widget._repr_mimebundle_(**options)

    # --- behind it ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._closed:
            raise InputError("the explorer was closed")

    def _mark_as_seen(self, ledger: Ledger) -> None:
        """Write down that somebody looked: days that are in view here are no fresh ones for a study that hides them."""
        made = self._scene.experiment
        start, end = to_ms(made.start, "start"), to_ms(made.hidden_from, "hidden_from")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        ledger.spend(self._scene.symbol, made.interval, start, end, "explorer", "", now)

    def _read_promoted(self) -> View | None:
        """The set in force for the symbol, where there is one that can be drawn and whose time is not over."""
        scene = self._scene
        entry = self.store.current(scene.symbol, interval=scene.experiment.interval).entry
        try:
            return None if entry is None else scene.view(entry.thresholds)
        except InputError as error:  # it was promoted with triggers that this spec does not have
            self._standing = note(f"The promoted set is not shown: {error}", "error")
            return None

    def _views(self) -> dict[str, View]:
        promoted = {} if self._promoted is None else {"promoted": self._promoted}
        return {"sliders": self._view, "default": self._default, **promoted}

    def _draw(self, thresholds: Thresholds) -> None:
        if self._closed:
            return
        self._view = self._scene.view(thresholds)
        self._chart.draw(self._view)
        table = metrics_table({name: view.metrics for name, view in self._views().items()})
        self._table.value = table + (note(self._chart.left_out) if self._chart.left_out else "")
        self._panels.draw()
        if self._says.value == self._refusal:  # what was refused is over
            self._says.value = self._standing

    def _refused(self, reason: str) -> None:
        self._says.value = self._refusal = note(reason, "error")

    def _known_sets(self) -> dict[str, Callable[[], Thresholds]]:
        scene, study = self._scene, self._scene.study
        sets: dict[str, Callable[[], Thresholds]] = {"default": lambda: scene.default}
        if study is not None:
            sets["chosen"] = lambda: study.thresholds_for(scene.symbol)
            sets["best trial"] = lambda: study.peak
        sets["promoted"] = self._promoted_set
        return sets

    def _promoted_set(self) -> Thresholds:
        if self._promoted is None:
            raise InputError(f"{self._scene.symbol}: no set is promoted")
        return self._promoted.thresholds

    def _assembled(self) -> widgets.Widget:
        def button(text: str, tooltip: str, act: Callable[[], str]) -> widgets.Button:
            made = widgets.Button(
                description=text, tooltip=tooltip, layout=widgets.Layout(width="auto", flex="1 1 auto", margin="1px")
            )
            made.on_click(lambda _: self._try(act))
            return made

        loads = [
            button(name, f"load: {name}", lambda name=name: self._load_known(name))  # type: ignore[misc]
            for name in self._sets
        ]
        self._path = widgets.Text(
            value=f"{self._scene.symbol}.json", tooltip="file to save the set to", continuous_update=False,
            layout=widgets.Layout(width="auto", flex="3 1 120px", min_width="120px"),
        )  # fmt: skip
        ends = [
            button("Save", "write the set to the file", self._try_save),
            button("Export", "the set as JSON, to download", self._show_export),
            button("Promote", "put the set in force, if its study was accepted", self._try_promote),
        ]
        row = widgets.Layout(width="100%", flex_flow="row wrap")
        left = widgets.VBox(
            [
                self._sliders.widget,
                widgets.HBox(loads, layout=row),
                self._table,
                widgets.HBox([self._path, ends[0]], layout=row),
                widgets.HBox(ends[1:], layout=row),
                self._says,
            ],
            layout=widgets.Layout(width="330px", min_width="330px", overflow="hidden", padding="0 8px 0 0"),
        )
        right = widgets.VBox(
            [self._chart.widget, self._panels.widget],
            layout=widgets.Layout(flex="1 1 0", width="auto", min_width="0", overflow="hidden"),
        )
        study = self._scene.study
        lines = [note(span_text(self._scene))]
        if study is not None:
            lines.append(note(study.sentence_for(self._scene.symbol)))
            if self._scene.other_data:
                lines.append(note(OTHER_DATA, "error"))
        return widgets.VBox(
            [
                widgets.HTML("".join(lines), layout=widgets.Layout(width="100%", margin="0 0 2px 0")),
                widgets.HBox([left, right], layout=widgets.Layout(width="100%", overflow="hidden")),
                Fit(),
            ],
            layout=widgets.Layout(width="100%", overflow="hidden"),
        )

    def _try(self, act: Callable[[], str]) -> None:
        """Do what a button says, and say below the table what came of it."""
        try:
            self._says.value = act()
        except AioneError as error:
            self._refused(str(error))

    def _load_known(self, name: str) -> str:
        self.load(self._sets[name]())
        return note(f"Loaded: {name}.")

    def _try_save(self) -> str:
        before = os.path.exists(self._path.value)
        place = self.save(self._path.value)
        return note(f"Saved to {place}{', in place of the set that it held' if before else ''}.")

    def _try_promote(self) -> str:
        entry = self.promote()
        return note(f"In force for {entry.stamp.symbol} until {entry.stamp.expires_at[:16]}Z.", "good")

    def _show_export(self) -> str:
        text = json.dumps(self.export(), indent=1)
        link = f"data:application/json,{quote(text)}"
        name = html.escape(f"{self._scene.symbol}.json", quote=True)
        return f"<a download='{name}' href=\"{link}\" style='font-size:12px'>Download {name}</a>"


def _holds_a_set(place: Path) -> bool:
    """Whether nothing is lost with the file: with a promoted set its provenance would be."""
    try:
        return Thresholds.from_json(place.read_text(encoding="utf-8")).meta is None
    except (OSError, ValueError):  # it cannot be read, is no text, or no set
        return False
