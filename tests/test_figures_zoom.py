"""Fewer candles that keep every extreme, charts that grow finer where one zooms in, and figures as files."""

from __future__ import annotations

import importlib.util
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aione_lab.errors import InputError
from aione_lab.figures import decimate_candles, equity_chart, price_chart, save_figure, zoom_chart
from aione_lab.figures.newest import Newest
from aione_lab.figures.zoom import BARS, POINTS, Zoom

MINUTE = 60_000
START = 1_700_000_040_000
numbers = st.one_of(st.floats(0.01, 1e6), st.just(float("nan")))


def walk(n: int, seed: int = 0) -> pd.DataFrame:
    """Candles of a random walk with one spike up and one down, a bar each."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 1e-3, n)))
    opened = np.concatenate([[100.0], close[:-1]])
    frame = pd.DataFrame({"open": opened, "close": close, "volume": random.uniform(1, 2, n)})
    frame["high"] = frame[["open", "close"]].max(axis=1) * 1.0005
    frame["low"] = frame[["open", "close"]].min(axis=1) * 0.9995
    frame.loc[n // 3, "high"] = 900.0
    frame.loc[n // 2, "low"] = 3.0
    frame.index = pd.to_datetime(START + MINUTE * np.arange(n), unit="ms", utc=True)
    return frame


@given(rows=st.lists(st.tuples(numbers, numbers, numbers, numbers, numbers), max_size=80), n=st.integers(1, 40))
def test_a_candle_of_many_says_what_the_many_say(rows: list[tuple[float, ...]], n: int) -> None:
    names = ("open", "high", "low", "close", "volume")
    values = np.array(rows, dtype=float).reshape(-1, 5)
    columns = {name: values[:, i] for i, name in enumerate(names)}
    times, drawn = decimate_candles(np.arange(len(rows)), columns, n)
    assert len(times) <= n and all(len(one) == len(times) for one in drawn.values())
    size = -(-len(rows) // n) if rows else 1
    for place, start in enumerate(times):
        bucket = {name: pd.Series(one[start : start + size]).dropna() for name, one in columns.items()}
        expected = {
            "open": bucket["open"].iloc[:1].sum(min_count=1),
            "high": bucket["high"].max(),
            "low": bucket["low"].min(),
            "close": bucket["close"].iloc[-1:].sum(min_count=1),
            "volume": bucket["volume"].sum(min_count=1),
        }
        for name, wanted in expected.items():
            assert drawn[name][place] == pytest.approx(wanted, rel=1e-12, nan_ok=True), name


def test_bad_candles_are_refused() -> None:
    ones = np.ones(9)
    prices = {name: ones for name in ("open", "high", "low", "close")}
    for arguments, said in (
        ((np.arange(9), {"open": ones}, 3), "prices='high'"),
        ((np.arange(9), {**prices, "price": ones}, 3), "prices='price'"),
        ((np.arange(8), prices, 3), "open="),
        ((np.arange(9), prices, 0), "n=0"),
    ):
        with pytest.raises(InputError, match=said):
            decimate_candles(*arguments)  # type: ignore[arg-type]


def test_half_a_million_bars_grow_finer_with_the_zoom() -> None:
    candles = walk(500_000)
    equity = pd.Series(np.linspace(1e4, 2e4, len(candles)), index=candles.index)
    equity.iloc[77_777] = 5.0
    chart = zoom_chart(candles, equity)
    bars, volume, line = chart.data
    assert len(bars.x) <= BARS and len(line.x) <= POINTS
    assert max(bars.high) == 900.0 and min(bars.low) == 3.0 and min(line.y) == 5.0
    assert sum(volume.y) == pytest.approx(candles["volume"].sum())
    assert len(chart.to_json()) < 200_000
    assert chart.layout.yaxis2.title.text == "Volume<br>of 1,667 bars" and bars.name == "price of 1,667 bars"
    part = candles.iloc[250_000:250_200]
    chart.layout.xaxis.range = [str(part.index[0])[:19], str(part.index[-1])[:19]]
    inside = (pd.to_datetime(bars.x) >= part.index[0].tz_localize(None)) & (
        pd.to_datetime(bars.x) <= part.index[-1].tz_localize(None)
    )
    np.testing.assert_array_equal(np.asarray(bars.close)[inside], part["close"])  # every bar is one
    assert (chart.layout.yaxis2.title.text, bars.name, volume.name) == ("Volume", "price", "volume")
    assert len(bars.x) <= len(part) + 2 and min(bars.low) == 3.0
    np.testing.assert_array_equal(np.asarray(line.y)[1:-1], equity.iloc[250_000:250_200])
    chart.layout.xaxis.autorange = True
    assert max(bars.high) == 900.0 and len(bars.x) <= BARS and volume.name == "volume of 1,667 bars"


def test_a_line_keeps_the_extremes_of_what_is_visible() -> None:
    times = START + MINUTE * np.arange(50_000)
    values = np.sin(np.arange(50_000) / 3_000)
    values[31_000], values[45_000] = 9.0, -9.0
    figure = go.FigureWidget([go.Scatter()])
    zoom = Zoom(figure)
    zoom.line(0, times, values)
    assert (max(figure.data[0].y), min(figure.data[0].y)) == (9.0, -9.0)
    figure.layout.xaxis.range = [float(times[30_000]), float(times[40_000])]
    assert max(figure.data[0].y) == 9.0 and min(figure.data[0].y) > -9.0 and len(figure.data[0].y) <= POINTS
    zoom.close()
    kept = len(figure.data[0].y)
    figure.layout.xaxis.range = [float(times[0]), float(times[10])]
    assert len(figure.data[0].y) == kept


def test_only_the_newest_request_is_worked_on() -> None:
    done: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(number: int) -> None:
        done.append(number)
        if number == 0:
            begun.set()
            assert go_on.wait(30)
        if number == 7:
            raise ValueError("seven")

    ask = Newest(work)
    first = threading.Thread(target=ask, args=(0,))
    first.start()
    assert begun.wait(30)
    for number in (1, 2, 3):
        ask(number)
    go_on.set()
    first.join(30)
    assert done == [0, 3]
    with pytest.raises(ValueError, match="seven"):
        ask(7)
    ask(8)  # a failure does not block what comes after
    assert done == [0, 3, 7, 8]


def test_static_charts_of_half_a_million_bars_are_small_and_keep_the_spikes() -> None:
    candles = walk(500_000)
    equity = candles["close"].rename("equity")
    equity.iloc[123_456] = 1.5
    price, curve = price_chart(candles, equity=equity), equity_chart(equity)
    drawn = [np.asarray(trace.y, dtype=float) for trace in price.data if trace.y is not None]
    assert max(np.nanmax(one) for one in drawn[:2]) == 900.0 and min(np.nanmin(one) for one in drawn[:1]) == 3.0
    assert min(np.nanmin(np.asarray(trace.y, dtype=float)) for trace in curve.data[:1]) == 1.5
    assert max(len(trace.x) for trace in (*price.data, *curve.data)) <= 4_002


def test_figures_are_saved_by_the_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = price_chart(walk(200))
    page = save_figure(figure, tmp_path / "chart.html").read_text(encoding="utf-8")
    assert "plotly.js v" in page and 'src="http' not in page
    assert len(json.loads(save_figure(figure, tmp_path / "chart.json").read_text())["data"]) == len(figure.data)
    find: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "kaleido" else find(name))
    for name, said in (
        ("chart.png", "pictures need kaleido"),
        ("chart.gif", "must end in one of .html"),
        ("nowhere/chart.html", "a folder that is there"),
    ):
        with pytest.raises(InputError, match=said):
            save_figure(figure, tmp_path / name)
    with pytest.raises(InputError, match="figure="):
        save_figure("chart", tmp_path / "chart.html")  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chart.html", "chart.json"]


def test_a_chart_that_zooms_refuses_what_it_cannot_draw() -> None:
    candles = walk(50)
    for call, said in (
        (lambda: zoom_chart(candles.drop(columns="volume")), "volume"),
        (lambda: zoom_chart(candles.iloc[:0]), "candles=0"),
        (lambda: zoom_chart(candles[::-1]), "candles=.*must be in order"),
        (lambda: zoom_chart(candles.iloc[[0, 0, 1]]), "candles=.*must be in order"),
        (lambda: zoom_chart(candles.tz_localize(None)), "UTC"),
        (lambda: zoom_chart(candles, candles["close"].iloc[1:]), "equity=49"),
        (lambda: zoom_chart(candles, candles["close"].shift(freq="1min")), "on the index of the candles"),
        (lambda: zoom_chart(candles, theme="blue"), "theme="),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=said):
            call()
