"""The look of every figure: one template in a light and a dark form, colours that colour-blind readers can tell apart.

The hues are those of M. Okabe and K. Ito, "Color Universal Design" (2008): up is blue and down is vermilion, never
green against red, and no meaning rests on colour alone (gains and losses differ in shape or sign as well).
"""

from __future__ import annotations

import html
import numbers
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio

from aione_lab.errors import InputError

Theme = Literal["light", "dark"]


@dataclass(frozen=True)
class Palette:
    """Colours of one theme, by what they mean."""

    paper: str
    ink: str
    soft: str
    grid: str
    up: str
    down: str
    price: str
    band: str
    neutral: str
    accent: str
    second: str
    third: str
    scale: tuple[str, str, str]


LIGHT = Palette(
    paper="#ffffff",
    ink="#1f2933",
    soft="#52606d",
    grid="#e4e7eb",
    up="#0072b2",
    down="#d55e00",
    price="#1f2933",
    band="rgba(0,114,178,0.18)",
    neutral="#9aa5b1",
    accent="#cc79a7",
    second="#e69f00",
    third="#009e73",
    scale=("#f5f7fa", "#56b4e9", "#004c78"),
)
DARK = Palette(
    paper="#14191f",
    ink="#e4e7eb",
    soft="#9aa5b1",
    grid="#2b343e",
    up="#56b4e9",
    down="#f0824a",
    price="#e4e7eb",
    band="rgba(86,180,233,0.25)",
    neutral="#7b8794",
    accent="#e39cc4",
    second="#f0c04a",
    third="#2fc59b",
    scale=("#1b2128", "#1c6ea4", "#8fd0f7"),
)


CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"],
    "showSendToCloud": False,  # plotly.js has a button that uploads the chart
}


def palette(theme: Theme) -> Palette:
    """Colours of ``theme``; InputError for an unknown one."""
    if not isinstance(theme, str) or theme not in ("light", "dark"):
        raise InputError.of("theme", theme, "must be 'light' or 'dark'")
    return LIGHT if theme == "light" else DARK


def template(theme: Theme = "light") -> go.layout.Template:
    """The lab's Plotly template; also registered as ``aione`` and ``aione_dark`` for figures of one's own."""
    colours = palette(theme)
    axis = {
        "gridcolor": colours.grid,
        "linecolor": colours.neutral,
        "zerolinecolor": colours.neutral,
        "ticks": "outside",
        "tickcolor": colours.neutral,
        "ticklen": 4,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 12, "color": colours.soft}},
        "tickfont": {"size": 11},
    }
    return go.layout.Template(
        layout={
            "colorway": [colours.up, colours.second, colours.third, colours.accent, colours.down, colours.neutral],
            "paper_bgcolor": colours.paper,
            "plot_bgcolor": colours.paper,
            "font": {"family": "Inter, Segoe UI, Helvetica, Arial, sans-serif", "size": 12, "color": colours.ink},
            "title": {"font": {"size": 16}, "x": 0, "xref": "paper", "xanchor": "left", "yanchor": "top", "y": 0.98},
            "margin": {"l": 64, "r": 24, "t": 56, "b": 48},
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"bgcolor": colours.paper, "bordercolor": colours.neutral, "font": {"color": colours.ink}},
            # At the foot it may wrap on a narrow page without running into the title.
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 0,
                "yref": "container",
                "yanchor": "bottom",
            },
            "bargap": 0.1,
        }
    )


pio.templates["aione"] = template("light")
pio.templates["aione_dark"] = template("dark")


def finish(figure: go.Figure, theme: Theme, title: str | None, height: int) -> go.Figure:
    """Give ``figure`` the template, its title and its height."""
    return figure.update_layout(
        template="aione" if theme == "light" else "aione_dark",
        title=safe(title) if title else None,
        height=height,
    )


def nothing(theme: Theme, title: str | None, message: str) -> go.Figure:
    """A figure that says why it is empty."""
    figure = go.Figure()
    figure.add_annotation(text=message, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 14})
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return finish(figure, theme, title, 240)


def safe(text: object) -> str:
    """``text`` without a live tag: names and reasons come from outside, and Plotly renders some HTML."""
    return html.escape(str(text), quote=False)


def utc_times(index: pd.Index | pd.Series, argument: str) -> np.ndarray:
    """UTC times as naive ``datetime64[ms]``, the form that Plotly draws without shifting it."""
    try:
        times = pd.DatetimeIndex(index)
    except (TypeError, ValueError):
        raise InputError.of(argument, str(index.dtype), "must have UTC times") from None
    if times.tz is None:
        raise InputError.of(argument, str(times.dtype), "must have UTC times")
    return times.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ms]")


def candle_times(candles: pd.DataFrame) -> np.ndarray:
    """:func:`utc_times` of the index of ``candles``; InputError unless each is later than the one before it."""
    times = utc_times(candles.index, "candles")
    back = ~(times[1:] > times[:-1])  # not a time (NaT) is later than none
    if back.any():
        at = int(back.argmax())
        raise InputError.of("candles", str(times[at + 1]), f"must be in order, each time once; it follows {times[at]}")
    return times


def need_columns(frame: pd.DataFrame, columns: tuple[str, ...], argument: str) -> None:
    """InputError where ``frame`` is no DataFrame, or naming the first column that it lacks."""
    if not isinstance(frame, pd.DataFrame) or frame.columns.nlevels > 1:
        raise InputError.of(argument, type(frame).__name__, "must be a pandas DataFrame with plain columns")
    for column in columns:
        if column not in frame.columns:
            raise InputError.of(argument, list(map(str, frame.columns)), f"lacks the column {column!r}")


def need_series(series: pd.Series, argument: str) -> None:
    """InputError where ``series`` is no Series."""
    if not isinstance(series, pd.Series):
        raise InputError.of(argument, type(series).__name__, "must be a pandas Series")


def on_candles(series: pd.Series, times: np.ndarray, argument: str) -> np.ndarray:
    """Float64 values of ``series``; InputError unless its index is ``times``, those of the candles.

    It is not laid on them: a series cut elsewhere, or of another interval, would give a picture that looks right.
    """
    need_series(series, argument)
    if len(series) != len(times):
        raise InputError.of(argument, len(series), f"must have one value a candle ({len(times)})")
    index = utc_times(series.index, argument)
    if (index != times).any():
        at = int((index != times).argmax())
        raise InputError.of(argument, str(index[at]), f"must be on the index of the candles, here {times[at]}")
    return floats(series, argument)


def floats(values: Any, argument: str) -> np.ndarray:
    """One-dimensional float64 array of ``values``; InputError where they are no numbers."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.empty((0, 0))
    if array.ndim != 1:
        raise InputError.of(argument, values, "must be numbers, one beside the other")
    return array


def one_number(value: Any, argument: str) -> float:
    """Float of ``value`` (NaN allowed); InputError where it is no number."""
    try:
        if not isinstance(value, bool) and isinstance(value, numbers.Real):
            return float(value)
    except OverflowError:  # an integer beyond all floats is refused like no number
        pass
    raise InputError.of(argument, value, "must be a number")


def price_text(price: float) -> str:
    """A price as a label or a hover writes it: eight digits tell two ticks of the dearest symbol apart."""
    return f"{price:.8g}"


def listed(value: Any) -> str:
    """Trigger reasons of one row as text: a tuple or list joined, anything else as it is."""
    return safe(", ".join(map(str, value)) if isinstance(value, tuple | list) else value)
