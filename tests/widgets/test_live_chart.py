"""The chart beside the live table: always the same traces, levels that can be read, hostile names as text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from aione_lab.errors import InputError
from aione_lab.figures import live_chart
from aione_lab.figures.live import HEIGHT, LABEL
from aione_lab.widgets.charts import entry_of, levels_of, time_of

HOSTILE = "<img src=x onerror=alert(1)>"
TIMES = pd.date_range("2025-05-01", periods=50, freq="min", tz="UTC", name="timestamp")
CLOSE = 100 + np.sin(np.arange(50) / 5)
CANDLES = pd.DataFrame(
    {"open": CLOSE, "high": CLOSE + 0.2, "low": CLOSE - 0.2, "close": CLOSE + 0.1, "volume": 5.0}, index=TIMES
)
ROWS = pd.DataFrame(
    {"rsi": 50.0, "confidence": 0.0, "signal": "NORMAL", "recommendation": "", "trigger_reasons": [()] * 50},
    index=TIMES,
)


def marked(place: int, recommendation: str) -> pd.DataFrame:
    rows = ROWS.copy()
    rows.loc[TIMES[place], ["signal", "recommendation", "confidence"]] = ["ALERT", recommendation, 0.8]
    rows.at[TIMES[place], "trigger_reasons"] = (HOSTILE,)
    return rows


def test_the_traces_are_the_same_whatever_is_in_them() -> None:
    drawn = [
        live_chart(CANDLES, marked(7, "BUY"), {"SL": 99.0}, (99.5, 100.0)),
        live_chart(CANDLES),
        live_chart(CANDLES.iloc[:1]),
        live_chart(CANDLES.iloc[:0], title="nothing"),
        live_chart(CANDLES, ROWS.iloc[10:20], theme="dark"),
    ]
    kinds = [[(trace.type, trace.yaxis) for trace in figure.data] for figure in drawn]
    assert all(kind == kinds[0] for kind in kinds) and len(kinds[0]) == 7


@pytest.mark.parametrize(("recommendation", "place"), [("BUY", 5), ("SELL", 6), ("WAIT_FOR_CONFIRMATION", 4)])
def test_an_alert_is_marked_by_what_it_says(recommendation: str, place: int) -> None:
    figure = live_chart(CANDLES, marked(7, recommendation))
    assert [len(trace.x) for trace in figure.data[4:]] == [int(at == place) for at in (4, 5, 6)]
    (text,) = figure.data[place].text
    assert "0.80" in text and "&lt;img" in text and figure.data[3].y[7] == 0.8


def test_a_candle_that_is_not_known_takes_no_mark_from_the_others() -> None:
    candles = CANDLES.copy()
    candles.iloc[20] = np.nan
    (y,) = live_chart(candles, marked(7, "WAIT_FOR_CONFIRMATION")).data[4].y
    assert y > candles["high"].iloc[7]
    assert live_chart(CANDLES * np.nan, levels={"SL": 99.0}).layout.yaxis.range is None


def test_rows_are_laid_on_the_times_of_the_candles() -> None:
    figure = live_chart(CANDLES.iloc[10:], ROWS.assign(rsi=np.arange(50.0)).iloc[:20])
    assert figure.data[2].y[:10].tolist() == list(range(10, 20)) and np.isnan(figure.data[2].y[10:]).all()


def test_levels_that_are_near_are_shown_and_their_names_do_not_cover_each_other() -> None:
    levels = {"SL": 99.0, "support": 99.01, "TP1": 101.0, "far": 150.0, "unknown": None, "nan": float("nan")}
    figure = live_chart(CANDLES, None, levels, (99.5, 100.0))
    labels = [label for label in figure.layout.annotations if label.yref == "y"]
    assert sorted(label.text for label in labels) == ["SL 99", "TP1 101", "support 99.01"]
    low, high = figure.layout.yaxis.range
    assert low < 99.0 and 101.3 < high < 110
    scale = HEIGHT * 0.4 / (high - low)  # fewer pixels than there are
    places = sorted(label.y * scale + label.yshift for label in labels)
    assert min(np.diff(places)) >= LABEL - 1
    (zone,) = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert (zone.y0, zone.y1) == (99.5, 100.0)


@pytest.mark.parametrize(
    ("since", "begins", "said"),
    [
        (TIMES[20], "2025-05-01 00:20:00", "SL 99 00:20"),
        (TIMES[20].tz_convert("Asia/Tokyo"), "2025-05-01 00:20:00", "SL 99 00:20"),
        (TIMES[0] - pd.Timedelta(days=1), 0, "SL 99 30 Apr"),
        (TIMES[-1] + pd.Timedelta(minutes=3), "2025-05-01 00:49:00", "SL 99 00:52"),
        (None, 0, "SL 99"),
    ],
    ids=["amid", "zone", "before", "after", "none"],
)
def test_what_an_alert_gave_begins_with_it_and_says_when(since: pd.Timestamp | None, begins: object, said: str) -> None:
    figure = live_chart(CANDLES, None, {"SL": 99.0, "support": 99.5}, (99.5, 100.0), since=since)
    shapes = figure.layout.shapes
    zone, stop = ([one for one in shapes if (one.type, one.y0) == what] for what in (("rect", 99.5), ("line", 99.0)))
    for parts in (zone, stop):
        assert [one.opacity for one in parts] == ([None] if begins == 0 else [0.3, None])
        assert parts[-1].x0 == begins and parts[-1].x1 == (1 if begins == 0 else "2025-05-01 00:50:00")
        assert begins == 0 or (parts[0].x0, parts[0].x1) == ("2025-05-01 00:00:00", begins)
    (support,) = (one for one in shapes if (one.type, one.y0) == ("line", 99.5))
    assert (support.xref, support.x0, support.x1, support.opacity) == ("paper", 0, 1, None)
    assert said in [label.text for label in figure.layout.annotations]
    assert "support 99.5" in [label.text for label in figure.layout.annotations]


def test_the_time_of_a_state() -> None:
    told = {"stage2": {"timestamp": "2025-05-01T00:20:00Z"}}
    assert time_of(told) == TIMES[20]
    assert [time_of(bad) for bad in ({}, {"stage2": 5}, {"stage2": {}}, {"stage2": {"timestamp": "x"}})] == [None] * 4


def test_hostile_names_are_text() -> None:
    figure = live_chart(CANDLES, marked(3, HOSTILE), {HOSTILE: 100.0}, title=HOSTILE)
    text = figure.to_json().replace("\\u003c", "<")
    assert "<img" not in text and text.count("&lt;img") >= 3


@pytest.mark.parametrize(
    ("draw", "name"),
    [
        *((lambda bad=bad: live_chart(bad), "candles=") for bad in (None, 5, CANDLES["close"], CANDLES[["open"]])),
        (lambda: live_chart(CANDLES.reset_index(drop=True)), "candles="),
        (lambda: live_chart(CANDLES.assign(high="x")), "candles.high="),
        (lambda: live_chart(CANDLES, 5), "rows="),
        (lambda: live_chart(CANDLES, pd.concat([ROWS, ROWS])), "rows="),
        (lambda: live_chart(CANDLES, ROWS.assign(rsi="x")), "rows.rsi="),
        (lambda: live_chart(CANDLES, levels=5), "levels="),
        (lambda: live_chart(CANDLES, levels={5: 1.0}), "levels="),
        (lambda: live_chart(CANDLES, levels={"a": "x"}), "levels.a="),
        *((lambda bad=bad: live_chart(CANDLES, entry=bad), "entry=") for bad in (5, (1.0,), "xy")),
        (lambda: live_chart(CANDLES, since="2025-05-01"), "since="),
        (lambda: live_chart(CANDLES, since=pd.Timestamp("2025-05-01")), "since="),
        (lambda: live_chart(CANDLES, theme="blue"), "theme="),
    ],
    ids=[
        "none", "number", "series", "columns", "times", "high", "rows", "twice", "rsi", "levels", "level name",
        "level price", "entry number", "entry one", "entry text", "since", "since zone", "theme",
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_by_name(draw: Callable[[], object], name: str) -> None:
    with pytest.raises(InputError) as refused:
        draw()
    assert str(refused.value).startswith(name) and "\n" not in str(refused.value)


def test_levels_of_a_state() -> None:
    asset = {
        "stats": {"support": 1.0, "resistance": 3.0, "daily_high": 4.0, "daily_low": None},
        "stage2": {
            "market_context": {"key_levels": {"immediate_support": 1.5, "immediate_resistance": None}},
            "risk_parameters": {"sl_level": 1.2, "tp_targets": [2.0, 2.5], "optimal_entry": [1.6, 1.8]},
        },
    }
    now = {"support": 1.0, "resistance": 3.0, "24 h high": 4.0}
    assert levels_of(asset) == {**now, "SL": 1.2, "TP1": 2.0, "TP2": 2.5}
    assert levels_of({**asset, "stats": {"support": None}}) == {"support": 1.5, "SL": 1.2, "TP1": 2.0, "TP2": 2.5}
    assert entry_of(asset) == (1.6, 1.8)
    assert levels_of({"stats": asset["stats"]}) == now
    assert levels_of({}) == {} and entry_of({}) is None
