"""One slider a threshold, made from its declared range, and the set that they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from aione_lab.calibration.space import Space
from aione_lab.errors import InputError
from aione_lab.thresholds import adaptive
from aione_lab.thresholds.params import PREFIX, Thresholds
from aione_lab.thresholds.search import Search

ADAPTIVE = {
    "low_gate": adaptive.LOW_GATE_MULTIPLE,
    "high_gate": adaptive.HIGH_GATE_RATIO,
    "vwap_threshold": adaptive.VWAP_MULTIPLE,
}
"""What the multiple is where a gate is left out."""

MIDDLE = {"vol_z_threshold": adaptive.VOL_Z_CALM, "dynamic_rsi_multiplier": 1.05}
"""Where a slider stands while its field has no number: the volume's threshold on calm symbols, the least RSI band."""


def value_of(thresholds: Thresholds, name: str) -> Any:
    """The field ``name`` (or own trigger, as ``custom.NAME``) of a set; None where it has none."""
    if name.startswith(PREFIX):
        return thresholds.custom.get(name.removeprefix(PREFIX))
    return getattr(thresholds, name)


def place_of(name: str, value: Any, search: Search) -> float:
    """Where on its slider a value stands, the nearest end for one outside; a price gate has no place of its own."""
    if isinstance(value, str):
        number = float(value.removesuffix("x"))
    elif value is None or search.multiple_of:
        number = ADAPTIVE.get(name, MIDDLE.get(name, search.low))
    else:
        number = float(value)
    return min(max(number, search.low), search.high)


def text_of(name: str, value: Any, search: Search) -> str:
    """A value as the page shows it."""
    if value is None:
        return {"dynamic_rsi_multiplier": "off"}.get(name, "as declared" if name.startswith(PREFIX) else "adaptive")
    if isinstance(value, str):
        return value
    return f"{value:.4g}" + (" of price" if search.multiple_of else "")


class Sliders:
    """The sliders and the set they stand for; ``moved`` is called with the set after every move of one of them.

    Where they go together to no set, ``refused`` is called with the reason instead.

    A field that no slider was moved for keeps exactly what the loaded set has, also what no slider can show: None, a
    gate as a share of the price, a number between two steps.
    """

    def __init__(
        self, space: Space, start: Thresholds, moved: Callable[[Thresholds], None], refused: Callable[[str], None]
    ) -> None:
        self._space, self._tell, self._refuse = space, moved, refused
        self._loaded = start
        self._moves: dict[str, float] = {}
        self._quiet = False
        self.sliders: dict[str, widgets.FloatSlider] = {}
        self._shown: dict[str, widgets.Label] = {}
        rows = []
        for name, search in space.ranges.items():
            slider = widgets.FloatSlider(
                value=place_of(name, value_of(start, name), search),
                min=search.low,
                max=search.low + math.floor((search.high - search.low) / search.step + 1e-9) * search.step,
                step=search.step,
                readout=False,
                continuous_update=True,
                layout=widgets.Layout(flex="1 1 40px", width="auto", min_width="40px", margin="0 4px"),
            )
            slider.observe(self._observed(name), "value")
            about = Thresholds.model_fields[name].description if name in Thresholds.model_fields else "own trigger"
            unit = f", times {search.multiple_of}" if search.multiple_of else ""
            label = widgets.HTML(
                f"<span style='font-size:11px;line-height:20px'>{name.removeprefix(PREFIX)}</span>",
                tooltip=f"{about}{unit}",
                layout=widgets.Layout(width="130px", margin="0"),
            )
            shown = widgets.Label(layout=widgets.Layout(width="56px", margin="0"), style={"font_size": "11px"})
            back = widgets.Button(
                icon="undo",
                tooltip=f"{name} back to the default",
                layout=widgets.Layout(width="24px", height="20px", padding="0", margin="0"),
            )
            back.on_click(self._reset(name))
            self.sliders[name], self._shown[name] = slider, shown
            rows.append(
                widgets.HBox(
                    [label, slider, shown, back],
                    layout=widgets.Layout(height="24px", align_items="center", overflow="visible"),
                )
            )
        self.widget = widgets.VBox(rows, layout=widgets.Layout(width="100%", overflow="hidden"))
        self._write_texts()

    @property
    def thresholds(self) -> Thresholds:
        """The set that the sliders stand for. Raises InputError where they go together to none."""
        if not self._moves:
            return self._loaded
        return Space(self._space.ranges, self._loaded).thresholds(self._moves)

    def load(self, thresholds: Thresholds) -> None:
        """Put every slider where the set has it, and tell once."""
        self._quiet = True
        try:
            for name, slider in self.sliders.items():
                slider.value = place_of(name, value_of(thresholds, name), self._space.ranges[name])
        finally:
            self._quiet = False
        self._loaded, self._moves = thresholds, {}
        self._write_texts()
        self._tell(self.thresholds)

    def _observed(self, name: str) -> Callable[[Any], None]:
        def move(change: Any) -> None:
            if self._quiet:
                return
            self._moves[name] = float(change["new"])
            try:
                thresholds = self.thresholds
            except InputError as error:
                self._refuse(str(error))
                return
            self._write_text(name, thresholds)
            self._tell(thresholds)

        return move

    def _reset(self, name: str) -> Callable[[Any], None]:
        def reset(_: Any) -> None:
            default = self._space.base.to_json()
            try:
                values = self.thresholds.to_json()
                values.pop(name, None)
                if name in default:
                    values[name] = default[name]
                thresholds = Thresholds.from_json(values)
            except InputError as error:
                self._refuse(str(error))
                return
            self.load(thresholds)

        return reset

    def _write_texts(self) -> None:
        for name in self.sliders:
            self._write_text(name, self.thresholds)

    def _write_text(self, name: str, thresholds: Thresholds) -> None:
        self._shown[name].value = text_of(name, value_of(thresholds, name), self._space.ranges[name])
