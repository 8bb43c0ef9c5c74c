"""Episodes: the rule against a plain twin, what counts as announced, and what chance would give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aione_lab.backtest import Result, replay
from aione_lab.engine.records import FEATURE_NAMES, RECOMMENDATIONS, SIGNALS
from aione_lab.errors import InputError
from aione_lab.figures.episodes import episodes_chart
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.research.episodes import PART, Episodes, clustered_wilson, episodes, large_moves
from aione_lab.research.forward import run_ends
from aione_lab.units import MINUTE_MS

ALERT, BUY = SIGNALS.index("ALERT"), RECOMMENDATIONS.index("BUY")


@pytest.fixture(scope="module")
def result() -> Result:
    """Twelve days of a simulated symbol, two minutes of the seventh missing."""
    candles = SimulatedExchange(1).candles("SOLUSDT", days=12)
    return replay(candles.drop(candles.index[6 * 1440 + 300 : 6 * 1440 + 302]), symbol="SOLUSDT", interval="1m")


@pytest.fixture(scope="module")
def found(result: Result) -> Episodes:
    return episodes(result)


def plain_moves(closes: list[float], unit: list[float], times: list[int], size: float, window: int) -> list[tuple]:
    """The rule from its definition: every pair of closes, the farthest from each start, the largest first."""
    candidates = []
    for start in range(len(closes)):
        for sign in (1, -1):
            best = None
            for end in range(start + 1, min(start + window, len(closes) - 1) + 1):
                if times[end] - times[start] != (end - start) * MINUTE_MS:
                    break
                reach = sign * (closes[end] / closes[start] - 1) / unit[start]
                if reach >= size and (best is None or reach > best[0]):
                    best = (reach, start, end, sign)
            if best:
                candidates.append(best)
    chosen: list[tuple] = []
    for _, start, end, sign in sorted(candidates, key=lambda move: (-move[0], *move[1:])):
        if all(end <= other[0] or start >= other[1] for other in chosen):
            chosen.append((start, end, sign))
    return sorted(chosen)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-30, 30), st.integers(0, 12)), min_size=2, max_size=60),
    st.integers(1, 9),
    st.sampled_from([1.0, 2.5, 6.0]),
)
def test_large_moves_equal_a_plain_twin(steps: list[tuple[int, int]], window: int, size: float) -> None:
    closes = 100.0 + np.cumsum([move / 7 for move, _ in steps])
    gaps = np.cumsum([1 + (skip == 0) for _, skip in steps])  # a bar of twelve is missing before it
    unit = np.full(len(closes), 0.01)
    unit[::5] = np.nan
    times = gaps * MINUTE_MS
    moves = large_moves(closes, unit, run_ends(times, MINUTE_MS), size, window)
    assert list(zip(*(part.tolist() for part in moves), strict=True)) == plain_moves(
        closes.tolist(), unit.tolist(), times.tolist(), size, window
    )


def test_episodes_are_what_the_rule_says(result: Result, found: Episodes) -> None:
    table, closes = found.table, result.candles["close"]
    assert len(table) > 5
    assert (table["move_atr"] >= found.size).all() and table["minutes"].between(1, found.window).all()
    assert (table["start"].iloc[1:].to_numpy() >= table["end"].iloc[:-1].to_numpy()).all()
    change = closes[table["end"]].to_numpy() / closes[table["start"]].to_numpy() - 1
    assert table["move_bps"].to_numpy() == pytest.approx(np.abs(change) * 1e4)
    assert ((change > 0) == (table["side"] == "LONG")).all()


def test_announced_by_a_plain_loop(result: Result, found: Episodes) -> None:
    minute = pd.Timedelta(minutes=1)
    alerts = result.alerts.index
    for _, row in found.table.iterrows():
        until = row["start"] + int(row["minutes"] * PART) * minute
        inside = alerts[(alerts >= row["start"] - found.lead * minute) & (alerts <= until)]
        assert row["announced"] == bool(len(inside))
        if len(inside):
            assert row["lead"] == (row["start"] - inside[0]) / minute
            entry = result.candles["open"][inside[0] + minute]
            first, last = result.candles["close"][row["start"]], result.candles["close"][row["end"]]
            assert row["ahead"] == pytest.approx((last - entry) / (last - first))
    spans = [(row["start"] - found.lead * minute, row["start"] + int(row["minutes"] * PART) * minute, row["end"])
             for _, row in found.table.iterrows()]  # fmt: skip
    for _, row in found.alerts.iterrows():
        true = any(first <= row["time"] <= last for first, last, _ in spans)
        assert row["true"] == true
        assert row["late"] == (not true and any(last < row["time"] <= end for _, last, end in spans))
        assert pd.isna(row["episode"]) == (not row["true"] and not row["late"])
    one = found.summary.loc["ALERT"]
    assert one["n_true"] == found.alerts["true"].sum() and one["n_announced"] == found.table["announced"].sum()
    assert one["precision"] == pytest.approx(found.alerts["true"].mean())
    assert one["precision_low"] < one["precision"] < one["precision_high"]


def with_alerts(result: Result, places: np.ndarray, advice: int = 0) -> Result:
    records = result.signal_records.copy()
    records["signal"], records["recommendation"] = 0, 0
    records["signal"][places], records["recommendation"][places] = ALERT, advice
    return replace(result, signal_records=records)


def test_alerts_at_random_times_are_chance_and_hindsight_is_not(result: Result, found: Episodes) -> None:
    warm = np.flatnonzero(result.columns[FEATURE_NAMES.index("warm")] == 1.0)
    p_values = []
    for seed in range(20):
        places = np.sort(np.random.default_rng(seed).choice(warm, 200, replace=False))
        row = episodes(with_alerts(result, places)).summary.loc["ALERT"]
        p_values.append(row["precision_p"])
        assert row["chance_precision"] == pytest.approx(row["precision"], abs=0.12)
    assert sum(p <= 0.05 for p in p_values) <= 4
    ups = found.table[found.table["side"] == "LONG"]
    cheat = episodes(with_alerts(result, result.index.get_indexer(ups["start"]), BUY))
    row = cheat.summary.loc["BUY"]
    assert row["precision"] == row["recall"] == 1.0 and row["precision_p"] == 0.001
    assert (cheat.table.loc[cheat.table["bought"], "bought_lead"] == 0).all() and cheat.alerts["met"].all()


def test_the_sentence_does_not_flatter(result: Result, found: Episodes) -> None:
    assert "not which way" in found.sentence or "cannot be told from random" in found.sentence
    assert "not a profit" in found.sentence
    none = episodes(with_alerts(result, np.array([], dtype=int)))
    assert "nothing to judge" in none.sentence and not len(none.alerts)
    assert "too few to judge" in episodes(result, size=40.0).sentence
    assert "nothing to judge" in episodes(result, size=1e6).sentence


def test_intervals_widen_with_clusters_and_hold_at_the_ends() -> None:
    hits = np.repeat([True, False, True, False, False, False, True, False], 10)
    apart = clustered_wilson(hits, np.arange(80))
    together = clustered_wilson(hits, np.repeat(np.arange(8), 10))
    assert together[0] < apart[0] < 0.375 < apart[1] < together[1]
    assert clustered_wilson(np.zeros(30, dtype=bool), np.arange(30))[1] == pytest.approx(0.1135, abs=1e-3)


def test_the_same_seed_gives_the_same_and_bars_of_five_minutes_do(found: Episodes, result: Result) -> None:
    pd.testing.assert_frame_equal(episodes(result).summary, found.summary)
    five = replay(SimulatedExchange(1).candles("SOLUSDT", "5m", days=20), symbol="SOLUSDT", interval="5m")
    assert (episodes(five, size=5.0).table["minutes"] % 5 == 0).all()
    with pytest.raises(InputError, match="^window="):
        episodes(five, window=62)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figure(found: Episodes, result: Result, theme: str) -> None:
    figure = found.plot(theme)
    table = found.table
    names = [trace.name for trace in figure.data]
    seen = int(((table["side"] == "LONG") & table["announced"]).sum())
    assert f"up, announced ({seen})" in names
    assert not episodes_chart(found.closes.iloc[:0], table, found.alerts).data
    assert episodes(result, size=1e6).plot(theme).data


@pytest.mark.parametrize(
    ("argument", "value"),
    [("size", 0), ("size", "2%"), ("size", True), ("size", float("nan")), ("window", 0), ("window", 1441),
     ("window", 5.5), ("lead", -1), ("seed", -1), ("result", None)],
)  # fmt: skip
def test_bad_input_is_named(result: Result, argument: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^{argument}="):
        episodes(**{"result": result, argument: value})


def test_real_candles(shared) -> None:
    candles = pd.read_parquet(shared / "candles" / "1m" / "XRPUSDT.parquet")
    real = episodes(replay(candles, symbol="XRPUSDT", interval="1m"))
    assert 1 < len(real.table) / real.days < 12 and real.sentence.startswith("XRPUSDT: ")
