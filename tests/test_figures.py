"""Figures: nothing extreme is lost, nothing live gets in, and what is drawn is what the data says."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aione_lab.backtest import replay
from aione_lab.errors import InputError
from aione_lab.figures import (
    contributions_chart,
    decimate,
    equity_chart,
    features_chart,
    live_chart,
    price_chart,
    rates_chart,
    result_chart,
    template,
    trades_chart,
)
from aione_lab.figures.baseline import random_entries_chart
from aione_lab.thresholds.params import Thresholds

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(1)</script>"


def walk(rows: int, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, rows)))
    opened = np.concatenate([[100.0], close[:-1]])
    spread = np.abs(rng.normal(0, 5e-4, (2, rows)))
    index = pd.date_range("2025-05-05", periods=rows, freq="1min", tz="UTC", name="timestamp").as_unit("ms")
    return pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close) * (1 + spread[0]),
            "low": np.minimum(opened, close) * (1 - spread[1]),
            "close": close,
            "volume": rng.gamma(2, 50, rows),
        },
        index=index,
    )


def signals_of(candles: pd.DataFrame, alerts: dict[int, str]) -> pd.DataFrame:
    signals = pd.DataFrame(
        {"signal": "NORMAL", "trigger_reasons": [()] * len(candles), "confidence": 0.0, "recommendation": ""},
        index=candles.index,
    )
    for row, advice in alerts.items():
        time = candles.index[row]
        signals.at[time, "signal"] = "ALERT"
        signals.at[time, "trigger_reasons"] = ("VOLUME_SPIKE", "BREAKOUT_UP")
        signals.at[time, "confidence"] = 0.8
        signals.at[time, "recommendation"] = advice
    return signals


def trades_of(candles: pd.DataFrame, rows: list[tuple[int, int]]) -> pd.DataFrame:
    entry, leave = [a for a, _ in rows], [b for _, b in rows]
    bought, sold = candles["open"].to_numpy()[entry], candles["close"].to_numpy()[leave]
    return pd.DataFrame(
        {
            "entry_time": candles.index[entry],
            "exit_time": candles.index[leave],
            "side": "long",
            "entry_price": bought,
            "exit_price": sold,
            "exit_reason": ["stop" if s < b else "target" for b, s in zip(bought, sold, strict=True)],
            "pnl": sold - bought,
            "r_multiple": (sold - bought) / (bought * 0.01),
            "mae": -0.001,
            "mfe": 0.002,
            "stop": bought * 0.99,
            "target": bought * 1.03,
            "confidence": 0.8,
        }
    )


def traces(figure: go.Figure) -> dict[str, list]:
    named: dict[str, list] = {}
    for trace in figure.data:
        named.setdefault(trace.name or "", []).append(trace)
    return named


def one(figure: go.Figure, start: str) -> go.BaseTraceType:
    (found,) = [trace for trace in figure.data if (trace.name or "").startswith(start)]
    return found


# --- decimate ----------------------------------------------------------------------------------------------------


def naive_extremes_of_buckets(y: list[float], n: int) -> set[float]:
    """Every value that must survive: lowest and highest of each of the equal buckets between the two ends."""
    buckets = (n - 2) // 2
    size = -(-(len(y) - 2) // buckets)
    kept = {y[0], y[-1]}
    for start in range(1, len(y) - 1, size):
        bucket = [value for value in y[start : min(start + size, len(y) - 1)] if value == value]
        kept |= {min(bucket), max(bucket)} if bucket else set()
    return kept


@settings(max_examples=150, deadline=None)
@given(
    y=st.lists(st.one_of(st.integers(-50, 50).map(float), st.just(float("nan"))), min_size=1, max_size=200),
    n=st.integers(4, 60),
)
def test_decimate_keeps_order_ends_and_every_buckets_extremes(y: list[float], n: int) -> None:
    x = np.arange(len(y)) * 7
    kept_x, kept_y = decimate(x, y, n)
    assert len(kept_x) == len(kept_y) <= max(n, 2)
    assert (np.diff(kept_x) > 0).all()
    np.testing.assert_array_equal(kept_y, np.asarray(y)[kept_x // 7])  # points of the original, none invented
    assert kept_x[0] == x[0] and kept_x[-1] == x[-1]
    if len(y) <= n:
        assert len(kept_x) == len(y)
    else:
        assert {v for v in naive_extremes_of_buckets(y, n) if v == v} <= {v for v in kept_y if v == v}


def test_decimate_keeps_a_spike_of_one_bar_and_a_gap() -> None:
    y = np.zeros(500_000)
    y[123_456], y[345_678], y[200_000:210_000] = 9.0, -7.0, np.nan
    x = np.arange(len(y))
    kept_x, kept_y = decimate(x, y, 4_000)
    assert len(kept_x) <= 4_000
    assert 123_456 in kept_x and 345_678 in kept_x
    assert np.isnan(kept_y[(kept_x >= 200_500) & (kept_x < 209_500)]).all()
    assert ((kept_x >= 200_500) & (kept_x < 209_500)).any()


def gaps_of(x: np.ndarray, y: np.ndarray) -> list[tuple[str, str]]:
    """Last time before and first time after every NaN."""
    at = np.flatnonzero(np.isnan(np.asarray(y, dtype=float)))
    return [(str(x[i - 1])[5:16], str(x[i + 1])[5:16]) for i in at]


@pytest.mark.parametrize("rows", [200, 2_500, 20_000])
def test_lines_have_a_gap_where_bars_are_missing(rows: int) -> None:
    whole = walk(rows)
    first, last = rows // 3, rows // 2
    candles = whole.drop(whole.index[first:last])
    close = candles["close"]
    before, after = (str(whole.index[at])[5:16].replace(" ", "T") for at in (first - 1, last))
    price = price_chart(candles, rsi=close, equity=close)
    drawn = [*price.data, *equity_chart(close).data, *features_chart(candles, ["close"]).data]
    scatters = [trace for trace in drawn if isinstance(trace, go.Scatter)]
    bands, lines = ([trace for trace in scatters if (trace.line.width == 0) == band] for band in (True, False))
    assert (len(bands), len(lines)) == ((4, 7) if rows == 20_000 else (0, 5))
    for line in lines:
        gaps = gaps_of(line.x, line.y)
        if "RSI" in line.name and rows == 20_000:  # the lines of the range: by the bucket
            assert len(gaps) == 2 and gaps[1][1] == after
        else:
            assert gaps == [(before, after)]
    for low, high in zip(bands[::2], bands[1::2], strict=True):
        assert not np.isnan(low.y).any()
        at = [str(x)[5:16] for x in low.x].index(str(whole.index[first])[5:16].replace(" ", "T"))
        assert str(low.x[at + 1])[5:16] == after  # the two lines are one at both edges of the hole
        assert list(low.y[at : at + 2]) == list(high.y[at : at + 2]) == [low.y[at]] * 2
    assert all(line.fill is None for line in lines)
    assert equity_chart(whole["close"]).data[1].fill == "tozeroy"
    volume = one(price, "volume")
    assert sum(volume.y) == pytest.approx(candles["volume"].sum())


def test_lines_are_whole_where_no_bar_can_be_called_missing() -> None:
    index = walk(4_000).index
    values = pd.Series(np.arange(1.0, 4_001.0), index)
    at_trades = values.iloc[np.random.default_rng(0).choice(4_000, 300, replace=False)].sort_index()
    scattered = values.drop(index[range(10, 4_000, 50)])  # seen by 4,000 points, too narrow for 700
    for series, gaps in ((values, 0), (at_trades, 0), (scattered, 80)):
        line = equity_chart(series).data[0]
        assert np.isnan(np.asarray(line.y)).sum() == gaps
    fine = features_chart(scattered.to_frame("x"), ["x"]).data[0]
    assert len(fine.x) <= 700 and not np.isnan(fine.y).any()


@pytest.mark.parametrize(("x", "y", "n"), [([1, 2], [1.0], 10), ([[1]], [[1.0]], 10), ([1, 2], [1.0, 2.0], 3)])
def test_decimate_refuses_what_it_cannot_draw(x: list, y: list, n: int) -> None:
    with pytest.raises(InputError):
        decimate(x, y, n)


# --- price -------------------------------------------------------------------------------------------------------


def test_price_chart_draws_every_candle_alert_trade_and_level() -> None:
    candles = walk(600)
    signals = signals_of(candles, {50: "BUY", 90: "AVOID", 300: "SELL", 400: ""})
    trades = trades_of(candles, [(51, 80), (301, 350), (401, 460)])
    rsi = pd.Series(np.linspace(5, 95, 600), candles.index)
    levels = {"stop": 98.0, "target 1": 103.0, "support": 97.0, "unknown": float("nan")}
    figure = price_chart(candles, signals, trades, levels, rsi=rsi, title="SOLUSDT")
    candle = one(figure, "price")
    assert isinstance(candle, go.Candlestick)
    np.testing.assert_array_equal(candle.high, candles["high"])
    assert str(candle.x[0])[:19] == "2025-05-05T00:00:00"
    assert len(one(figure, "BUY (1)").x) == 1 and len(one(figure, "SELL (1)").x) == 1
    alert = one(figure, "ALERT (2)")
    assert [str(time)[:16] for time in alert.x] == ["2025-05-05T01:30", "2025-05-05T06:40"]
    assert (np.asarray(alert.y) > candles["high"].iloc[[90, 400]].to_numpy()).all()
    assert one(figure, "BUY (1)").y[0] < candles["low"].iloc[50]
    assert alert.text[0] == "VOLUME_SPIKE, BREAKOUT_UP<br>confidence 0.80<br>AVOID"
    gains, losses = int((trades["pnl"] > 0).sum()), int((trades["pnl"] <= 0).sum())
    drawn = traces(figure)
    assert sum(len(trace.x) for trace in drawn.get("exit with a gain", [])) == gains
    assert sum(len(trace.x) for trace in drawn.get("exit with a loss", [])) == losses
    np.testing.assert_array_equal(one(figure, "entry").y, trades["entry_price"])
    assert np.asarray(one(figure, "target").y).reshape(-1, 3)[:, :2].tolist() == [[t, t] for t in trades["target"]]
    texts = [note.text for note in figure.layout.annotations]
    assert texts == ["stop 98", "target 1 103", "support 97"]
    assert [axis.title.text for axis in figure.select_yaxes()] == ["Price", "Volume", "RSI"]
    assert [axis.title.text for axis in figure.select_xaxes()][-1] == "Time (UTC)"


def ladder_of(candles: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A trade closed in three parts and one closed at once, with the fills of both and of one still open."""
    trades = trades_of(candles, [(10, 40), (60, 70)]).assign(exits=[3, 1])
    rows = [(0, 10, "entry"), (0, 20, "target"), (0, 30, "target"), (0, 40, "stop"), (1, 60, "entry"), (1, 70, "stop")]
    rows += [(2, 80, "entry"), (2, 85, "target")]
    fills = pd.DataFrame(rows, columns=["trade", "time", "reason"])
    fills["price"] = candles["close"].to_numpy()[fills["time"]]
    fills["time"] = candles.index[fills["time"]]
    trades.loc[0, "exit_price"] = fills["price"].iloc[1:4].mean()
    return trades, fills


def test_every_exit_of_a_trade_closed_in_parts_is_marked_where_it_was_filled() -> None:
    candles = walk(100)
    trades, fills = ladder_of(candles)
    close = candles["close"].to_numpy()
    for shown in (trades, trades.iloc[1:]):  # labels, not places, say which fills are whose
        figure = price_chart(candles, trades=shown, fills=fills)
        parts = traces(figure).get("partial exit", [])
        assert [list(one.y) for one in parts] == ([list(close[[20, 30]])] if len(shown) == 2 else [])
        exits = [trace for trace in figure.data if (trace.name or "").startswith("exit")]
        marks = sorted((str(x)[11:16], y) for trace in exits for x, y in zip(trace.x, trace.y, strict=True))
        assert marks == [("00:40", close[40]), ("01:10", close[70])][-len(shown) :]
    without = price_chart(candles, trades=trades)
    texts = [text for trace in without.data if (trace.name or "").startswith("exit") for text in trace.text]
    told = f"<br>3 exits, {trades['exit_price'][0]:.8g} in the mean"
    assert sorted(text.endswith(told) for text in texts) == [False, True]
    with pytest.raises(InputError, match="fills=8: must be those of trades"):
        price_chart(candles, trades=trades.iloc[::-1].reset_index(drop=True), fills=fills)
    with pytest.raises(InputError, match="lacks the column 'price'"):
        price_chart(candles, trades=trades, fills=fills.drop(columns="price"))


def test_the_line_of_a_stop_that_moved_says_that_it_is_the_first() -> None:
    candles = walk(100)
    trades, _ = ladder_of(candles)
    moved = trades.assign(last_stop=[trades["stop"][0] + 0.125, trades["stop"][1]])
    figure = price_chart(candles, trades=moved)
    assert {"first stop", "first target"} <= traces(figure).keys() and "stop" not in traces(figure)
    texts = [text for trace in figure.data if (trace.name or "").startswith("exit") for text in trace.text]
    assert [text.split("<br>")[-1] for text in texts if "stop moved" in text] == [
        f"stop moved to {moved['last_stop'][0]:.8g}"
    ]
    plain = price_chart(candles, trades=trades.assign(last_stop=trades["stop"], exits=1))
    assert {"stop", "target"} <= traces(plain).keys()


def test_rsi_has_the_levels_of_the_thresholds() -> None:
    candles = walk(400)
    rsi = pd.Series(50.0, candles.index)
    assert not price_chart(candles, rsi=rsi).layout.shapes
    at = candles.index[200]
    for thresholds, start, end, levels in (
        (Thresholds(), None, None, [30, 70]),
        (Thresholds(rsi_oversold=20, rsi_overbought=80), None, None, [20, 80]),
        (Thresholds(dynamic_rsi_multiplier=1.5), None, None, []),
        ({candles.index[0]: Thresholds(), at: Thresholds(rsi_oversold=20)}, None, None, []),
        ({candles.index[0]: Thresholds(), at: Thresholds(rsi_oversold=20)}, None, at, [30, 70]),
        ({candles.index[0]: Thresholds(), at: Thresholds(rsi_oversold=20)}, at, None, [20, 70]),
        ({candles.index[0]: Thresholds(), at: Thresholds(rsi_oversold=20)}, at + pd.Timedelta("1h"), None, [20, 70]),
    ):
        figure = replay(candles, thresholds).plot(start, end)
        assert [shape.y0 for shape in figure.layout.shapes] == levels
        assert list(figure.layout.yaxis3.tickvals) == [0, 50, 100, *levels]


def test_levels_a_tick_apart_are_not_one() -> None:
    candles = walk(10) * 1051.6
    for figure in (price_chart, live_chart):
        notes = figure(candles, levels={"SL": 105161.27, "TP1": 105161.31}).layout.annotations
        assert {"SL 105161.27", "TP1 105161.31"} <= {note.text for note in notes}


def test_half_a_million_bars_become_some_thousand_points_with_every_extreme() -> None:
    candles = walk(500_000)
    candles.iloc[123_456, candles.columns.get_loc("high")] = 1e4
    candles.iloc[222_222, candles.columns.get_loc("low")] = 1e-2
    rsi = pd.Series(50.0, candles.index)
    rsi.iloc[77_777] = 3.0
    figure = price_chart(candles, rsi=rsi)
    assert sum(len(trace.x) for trace in figure.data) < 15_000
    assert max(one(figure, "low to high").y) == 1e4
    (lows,) = traces(figure)["low"]
    assert min(lows.y) == 1e-2
    assert min(one(figure, "RSI lowest").y) == 3.0 and max(one(figure, "RSI highest").y) == 50.0
    titles = [axis.title.text for axis in figure.select_yaxes()]
    assert titles == ["Price", "Volume<br>of 500 bars", "RSI, range<br>of 500 bars"]
    close = np.asarray(one(figure, "close").y)
    assert close.max() == candles["close"].max() and close.min() == candles["close"].min()
    assert sum(one(figure, "volume").y) == pytest.approx(candles["volume"].sum(), rel=1e-12)


def test_too_many_marks_are_counted_instead_of_drawn() -> None:
    candles = walk(5_000)
    signals = signals_of(candles, dict.fromkeys(range(1, 1_401, 2), "WAIT_FOR_CONFIRMATION") | {2_000: "BUY"})
    trades = trades_of(candles, [(row, row + 3) for row in range(700)])
    figure = price_chart(candles, signals, trades)
    assert one(figure, "ALERT").name == "ALERT (700: too many to draw)"
    assert len(one(figure, "BUY (1)").x) == 1
    assert one(figure, "trades").name == "trades (700: too many to draw)"
    bought = signals_of(candles, dict.fromkeys(range(1, 1_401, 2), "BUY"))
    assert len(one(price_chart(candles, bought), "BUY (700)").x) == 700


def test_signals_outside_the_candles_are_not_drawn() -> None:
    candles = walk(600)
    signals = signals_of(candles, {10: "BUY", 500: "BUY"})
    assert len(one(price_chart(candles.iloc[:100], signals), "BUY (1)").x) == 1
    elsewhere = one(price_chart(candles.iloc[:100], signals.tz_convert("Asia/Tokyo")), "BUY (1)")
    assert [str(time)[11:16] for time in elsewhere.x] == ["00:10"]


def test_trades_outside_the_candles_do_not_stretch_the_axes() -> None:
    candles = walk(600)
    trades = trades_of(candles, [(5, 20), (90, 120), (190, 210), (300, 310)])
    trades.loc[3, ["entry_price", "exit_price", "stop", "target"]] = 900.0
    figure = price_chart(candles.iloc[100:200], trades=trades)
    assert list(one(figure, "entry").y) == list(trades["entry_price"][1:3])
    prices = [np.asarray(trace.y, dtype=float) for trace in figure.select_traces({"type": "scatter", "yaxis": "y"})]
    assert max(map(np.nanmax, prices)) < 200
    assert "entry" not in traces(price_chart(candles.iloc[400:], trades=trades))


def test_price_chart_names_what_it_lacks() -> None:
    candles = walk(10)
    with pytest.raises(InputError, match="candles=.*lacks the column 'low'"):
        price_chart(candles.drop(columns="low"))
    with pytest.raises(InputError, match="UTC"):
        price_chart(candles.tz_localize(None))
    with pytest.raises(InputError, match="rsi=9: must have one value a candle"):
        price_chart(candles, rsi=pd.Series(np.ones(9)))
    later = candles["close"].tz_convert("Asia/Tokyo")  # the same times in another zone are the same
    assert len(price_chart(candles, equity=later).data) == 3
    for shifted in (later.shift(freq="1min"), later[::-1]):
        with pytest.raises(
            InputError, match="equity='2025-05-05T00:0.*must be on the index of the candles, here 2025-"
        ):
            price_chart(candles, equity=shifted)
        with pytest.raises(InputError, match="rsi='2025-"):
            price_chart(candles, rsi=shifted)
    with pytest.raises(InputError, match="theme='blue': must be 'light' or 'dark'"):
        price_chart(candles, theme="blue")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'exit_price'"):
        price_chart(candles, trades=trades_of(candles, [(1, 3)]).drop(columns="exit_price"))
    assert price_chart(candles.iloc[:0]).layout.annotations[0].text == "no candles"


def test_inputs_are_left_as_they_were() -> None:
    candles = walk(200)
    signals, trades = signals_of(candles, {5: "BUY"}), trades_of(candles, [(6, 9), (2, 4)])
    before = [frame.copy(deep=True) for frame in (candles, signals, trades)]
    price_chart(candles, signals, trades)
    trades_chart(trades)
    for was, now in zip(before, (candles, signals, trades), strict=True):
        pd.testing.assert_frame_equal(was, now)


# --- results -----------------------------------------------------------------------------------------------------


def test_equity_chart_shows_the_drawdown_of_all_points() -> None:
    index = walk(50_000).index
    equity = pd.Series(1_000.0, index)
    equity.iloc[20_000:] = 1_250.0
    equity.iloc[30_001] = 1_000.0  # one bar: 20 % below the peak
    figure = equity_chart(equity, pd.Series(np.linspace(1_000, 900, 50_000), index, name="buy & hold"))
    assert one(figure, "equity (").name == "equity (deepest drawdown -20.0%)"
    assert one(figure, "buy &amp; hold (").name == "buy &amp; hold (deepest drawdown -10.0%)"
    assert min(one(figure, "equity: drawdown").y) == pytest.approx(-0.2)
    assert max(one(figure, "equity: drawdown").y) == 0
    assert [axis.title.text for axis in figure.select_yaxes()] == ["Equity", "Drawdown"]
    with pytest.raises(InputError, match="benchmark='inf': must be finite"):
        equity_chart(equity, equity * np.inf)


def test_features_chart_draws_each_column_in_its_panel_with_its_gaps() -> None:
    frame = walk(300)[["close", "high", "volume"]]
    frame.iloc[:40, 2] = np.nan
    figure = features_chart(frame, [("close", "high"), "volume"])
    assert [(trace.name, trace.yaxis) for trace in figure.data] == [("close", "y"), ("high", "y"), ("volume", "y2")]
    for trace in figure.data:
        np.testing.assert_array_equal(trace.y, frame[trace.name])
    assert np.isnan(figure.data[2].y[:40]).all()
    assert "close" in figure.layout.yaxis.title.text and "volume" in figure.layout.yaxis2.title.text


def test_trades_chart_counts_every_trade_once_in_each_view() -> None:
    candles = walk(3_000)
    trades = trades_of(candles, [(row, row + 20) for row in range(0, 2_900, 13)]).sample(frac=1, random_state=2)
    trades.loc[trades.index[0], "r_multiple"] = 40.0  # far outside: gathered in the last bin, not lost
    figure = trades_chart(trades)
    gains = int((trades["pnl"] > 0).sum())
    bars = [trace for trace in figure.data if isinstance(trace, go.Bar)]
    by_reason = [trace for trace in bars if trace.orientation == "h"]
    histogram = [trace for trace in bars if trace.orientation != "h"]
    assert [sum(trace.x) for trace in by_reason] == [gains, len(trades) - gains]
    assert [sum(trace.y) for trace in histogram] == [gains, len(trades) - gains]
    excursions = [trace for trace in figure.data if isinstance(trace, go.Scatter)]
    assert [len(trace.x) for trace in excursions] == [gains, len(trades) - gains]
    assert trades_chart(trades.iloc[:0]).layout.annotations[0].text == "no trades"


def test_a_trade_with_no_gain_or_an_unknown_one_is_no_loss() -> None:
    candles = walk(100)
    trades = trades_of(candles, [(1, 5), (10, 15), (20, 25), (30, 35)]).assign(pnl=[1.0, -1.0, 0.0, np.nan])
    exits = {name: found for name, found in traces(price_chart(candles, trades=trades)).items() if "exit" in name}
    assert {name: len(one.x) for name, (one,) in exits.items()} == {
        "exit with a gain": 1, "exit with a loss": 1, "exit with no gain or loss": 1, "exit, P&amp;L not known": 1,
    }  # fmt: skip
    (unknown,) = exits["exit, P&amp;L not known"]
    assert "nan" not in unknown.text[0]
    bars = [trace for trace in trades_chart(trades).data if isinstance(trace, go.Bar) and trace.orientation == "h"]
    assert [(bar.name, sum(bar.x)) for bar in bars] == [("gain (1)", 1), ("loss (1)", 1), ("neither (2)", 2)]


def test_contributions_add_up_to_the_score() -> None:
    factors = {
        "volume": {"strength": 0.9, "weight": 0.25, "contribution": 0.12},
        "rsi": {"strength": -0.5, "weight": 0.18, "contribution": -0.05},
        "macd": {"strength": 1.0, "weight": 0.2, "contribution": 0.2},
        "orderbook": {"strength": float("nan"), "weight": 0.2, "contribution": float("nan")},
    }
    metrics = {"factors": factors, "composite_score": 0.27, "confidence": 0.31, "reading": "reversal"}
    figure = contributions_chart({"confidence_metrics": metrics})
    (waterfall,) = figure.data
    assert list(waterfall.x) == ["macd", "volume", "rsi", "score"]
    assert list(waterfall.y[:-1]) == [0.2, 0.12, -0.05]
    assert waterfall.y[-1] == pytest.approx(0.27)
    assert list(waterfall.measure) == ["relative"] * 3 + ["total"]
    assert figure.layout.xaxis.title.text == "Factor (not available: orderbook)"
    assert figure.layout.title.text == "Score 0.270, reading: reversal, confidence 0.310"
    assert contributions_chart(metrics).data[0].y[-1] == waterfall.y[-1]
    as_list = {"score": 0.27, "factors": [{"name": name, **factor} for name, factor in factors.items()]}
    as_list["factors"][-1] |= {"strength": None, "contribution": 0.0}
    assert list(contributions_chart(as_list).data[0].x) == ["macd", "volume", "rsi", "score"]
    nothing_known = {"factors": {"orderbook": {"contribution": None}}}
    assert contributions_chart(nothing_known).layout.annotations[0].text == "no factor was available"
    with pytest.raises(InputError, match="must have 'factors'"):
        contributions_chart({"score": 1})


def test_rates_chart_writes_the_plain_numbers() -> None:
    rates = pd.DataFrame([[120.0, 0.0], [0.25, np.nan]], ["BTCUSDT", "SOLUSDT"], ["VOLUME_SPIKE", "ALERT"])
    (heatmap,) = rates_chart(rates).data
    assert [list(row) for row in heatmap.text] == [["120", "0"], ["0.25", ""]]
    np.testing.assert_allclose(np.expm1(np.asarray(heatmap.z, dtype=float)), rates.to_numpy(), rtol=1e-12)
    with pytest.raises(InputError, match="must be counts a day"):
        rates_chart(rates - 1)
    assert rates_chart(rates.iloc[:0]).layout.annotations[0].text == "no rates"


# --- bad input ---------------------------------------------------------------------------------------------------

CANDLES = walk(60)
TRADES = trades_of(CANDLES, [(6, 9)])
SIGNALS = signals_of(CANDLES, {5: "BUY"})
RATES = pd.DataFrame([[1.0]], ["BTCUSDT"], ["VOLUME_SPIKE"])


@pytest.mark.parametrize(
    ("draw", "name"),
    [
        *((lambda bad=bad: equity_chart(bad), "equity=") for bad in ([], {}, None, 5, CANDLES)),
        (lambda: equity_chart(CANDLES["close"], benchmark=5), "benchmark="),
        (lambda: equity_chart(pd.Series(["a"], CANDLES.index[:1])), "equity="),
        (lambda: equity_chart(pd.Series([1.0], ["a"])), "equity="),
        (lambda: equity_chart(pd.Series([1.0], [0])), "equity="),
        (lambda: equity_chart(CANDLES["close"], theme=[]), "theme="),
        *((lambda bad=bad: price_chart(bad), "candles=") for bad in (None, 5, [], {}, CANDLES["close"])),
        (lambda: price_chart(pd.concat({"a": CANDLES}, axis=1)), "candles="),
        (lambda: price_chart(CANDLES.assign(high="x")), "candles.high="),
        (lambda: price_chart(CANDLES.assign(volume="x")), "candles.volume="),
        (lambda: price_chart(CANDLES.reset_index(drop=True)), "candles="),
        (lambda: price_chart(CANDLES[::-1]), "candles='2025-05-05T00:58:00.000': must be in order"),
        (lambda: price_chart(pd.concat([CANDLES, CANDLES.tail(1)])), "candles='2025-05-05T00:59:00.000': must be"),
        *((lambda bad=bad: features_chart(CANDLES, bad), "panels=") for bad in ("close", [], None, ["close"] * 13)),
        (lambda: features_chart(CANDLES, ["clsoe"]), "features="),
        (lambda: features_chart(CANDLES.reset_index(drop=True), ["close"]), "features="),
        (lambda: price_chart(CANDLES, signals=5), "signals="),
        (lambda: price_chart(CANDLES, SIGNALS.assign(confidence="x")), "signals.confidence="),
        (lambda: price_chart(CANDLES, SIGNALS.tz_localize(None)), "signals="),
        (lambda: price_chart(CANDLES, SIGNALS.reset_index(drop=True)), "signals="),
        (lambda: price_chart(CANDLES, trades=5), "trades="),
        (lambda: price_chart(CANDLES, trades=TRADES.assign(pnl="x")), "trades.pnl="),
        (lambda: price_chart(CANDLES, trades=TRADES.assign(stop="x")), "trades.stop="),
        (lambda: price_chart(CANDLES, rsi=5), "rsi="),
        (lambda: price_chart(CANDLES, rsi=pd.Series("x", CANDLES.index)), "rsi="),
        (lambda: price_chart(CANDLES, rsi=CANDLES["close"], rsi_levels=("x",)), "rsi_levels="),
        (lambda: price_chart(CANDLES, equity=[1.0]), "equity="),
        (lambda: price_chart(CANDLES, levels={"a": "x"}), "levels.a="),
        (lambda: price_chart(CANDLES, levels={"a": 10**400}), "levels.a="),
        (lambda: price_chart(CANDLES, levels={5: 1.0}), "levels=5"),
        (lambda: price_chart(CANDLES, levels=[1]), "levels="),
        (lambda: trades_chart(5), "trades="),
        (lambda: trades_chart(TRADES.assign(mae="x")), "trades.mae="),
        (lambda: trades_chart(TRADES.assign(exit_time="x")), "trades.exit_time="),
        *((lambda bad=bad: contributions_chart(bad), "explanation=") for bad in (None, 5, [], {"factors": {"a": 1}})),
        (lambda: contributions_chart({"confidence_metrics": 5}), "explanation="),
        (lambda: contributions_chart({"factors": [{"contribution": 1.0}]}), "explanation="),
        (lambda: contributions_chart({"factors": {"a": {"contribution": "x"}}}), "explanation.factors.a.contribution="),
        (lambda: contributions_chart({"factors": {"a": {"weight": "x"}}}), "explanation.factors.a.weight="),
        (lambda: contributions_chart({"factors": {}, "score": "x"}), "explanation.score="),
        *((lambda bad=bad: rates_chart(bad), "rates=") for bad in (None, 5, [[1.0]])),
        (lambda: rates_chart(RATES.assign(ALERT="x")), "rates.ALERT="),
        *((lambda bad=bad: decimate([1, 2], [1.0, 2.0], bad), "n=") for bad in ("x", float("nan"), 4.5, None)),
        (lambda: decimate([1], ["x"], 9), "y="),
        (lambda: random_entries_chart("x", 1.0), "expectancy="),
        (lambda: random_entries_chart(np.ones(3), None), "observed="),
        (lambda: result_chart(5), "result="),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(draw: Callable[[], object], name: str) -> None:
    with pytest.raises(InputError) as refused:
        draw()
    assert str(refused.value).startswith(name) and "\n" not in str(refused.value)


# --- look and safety ---------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` as WCAG 2.1 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_paper(theme: str) -> None:
    from aione_lab.figures.theme import palette

    colours = palette(theme)  # type: ignore[arg-type]

    def contrast(colour: str) -> float:
        low, high = sorted([luminance(colour), luminance(colours.paper)])
        return (high + 0.05) / (low + 0.05)

    assert contrast(colours.ink) >= 7 and contrast(colours.soft) >= 4.5
    assert min(map(contrast, (colours.up, colours.down, colours.price, colours.third))) >= 3
    assert template(theme).layout.paper_bgcolor == colours.paper  # type: ignore[arg-type]


def test_no_live_tag_reaches_the_page() -> None:
    candles = walk(100)
    signals = signals_of(candles, {5: "BUY", 9: HOSTILE})
    signals.at[candles.index[5], "trigger_reasons"] = (HOSTILE,)
    trades = trades_of(candles, [(6, 9), (20, 25)]).assign(exit_reason=HOSTILE, side=HOSTILE)
    equity = pd.Series(np.ones(100), candles.index, name=HOSTILE)
    factors = {HOSTILE: {"contribution": 0.1}, HOSTILE + "2": {"contribution": None}}
    figures = [
        price_chart(candles, signals, trades, {HOSTILE: 100.0}, title=HOSTILE),
        equity_chart(equity, equity, title=HOSTILE),
        trades_chart(trades, title=HOSTILE),
        contributions_chart({"factors": factors, "reading": HOSTILE}),
        rates_chart(pd.DataFrame([[1.0]], [HOSTILE], [HOSTILE]), title=HOSTILE),
        features_chart(candles.rename(columns={"close": HOSTILE}), [HOSTILE], title=HOSTILE),
    ]
    for figure in figures:
        text = json.dumps(figure.to_plotly_json(), default=str)
        assert "&lt;img" in text
        assert "<img" not in text and "<script" not in text and "</script" not in text


def test_every_chart_has_the_template_in_both_themes() -> None:
    candles = walk(100)
    trades = trades_of(candles, [(6, 9)])
    for theme, name in (("light", "light"), ("dark", "dark")):
        for figure in (
            price_chart(candles, theme=theme),  # type: ignore[arg-type]
            equity_chart(candles["close"], theme=theme),  # type: ignore[arg-type]
            trades_chart(trades, theme=theme),  # type: ignore[arg-type]
            trades_chart(trades.iloc[:0], theme=theme),  # type: ignore[arg-type]
            features_chart(candles, ["close"], theme=theme),  # type: ignore[arg-type]
        ):
            paper = template(name).layout.paper_bgcolor  # type: ignore[arg-type]
            assert figure.layout.template.layout.paper_bgcolor == paper
