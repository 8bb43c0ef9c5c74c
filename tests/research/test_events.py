"""Event studies: plain twins of what is counted, honest p-values where nothing is planted, planted effects found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, ttest_1samp

from aione_lab.backtest import Result, replay
from aione_lab.engine.records import BAR, FEATURE_NAMES, REASONS
from aione_lab.errors import InputError
from aione_lab.figures.events import heatmap_chart, profile_chart
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.research.events import MIN_DAYS, MIN_EVENTS, EventStudy, event_study, round_trip_bps
from aione_lab.research.forward import day_sums, excursions, forward_returns, onsets, run_ends
from aione_lab.research.wild import flip_p_values, half_widths, signs
from aione_lab.settings import Costs
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, MINUTE_MS

FDR = 0.1


def simulated(symbol: str, seed: int, days: int) -> Result:
    exchange = SimulatedExchange(seed)
    return replay(exchange.candles(symbol, days=days), symbol=symbol, reference=exchange.candles("BTCUSDT", days=days))


@pytest.fixture(scope="module")
def null_result() -> Result:
    """Sixteen days of a symbol with nothing in it, three minutes of the tenth day missing."""
    exchange = SimulatedExchange(5)
    candles = exchange.candles("SOLUSDT", days=16)
    return replay(candles.drop(candles.index[9 * 1440 + 700 : 9 * 1440 + 703]), symbol="SOLUSDT", interval="1m")


@pytest.fixture(scope="module")
def study(null_result: Result) -> EventStudy:
    return event_study(null_result, horizons=(5, 60), n_boot=999)


# --- twins ---------------------------------------------------------------------------------------------------------


def bars_with_gaps(present: np.ndarray, seed: int) -> np.ndarray:
    """Minutes around a midnight, those not ``present`` left out."""
    rng = np.random.default_rng(seed)
    bars = np.zeros(len(present), BAR)
    bars["timestamp"] = 20_000 * DAY_MS - len(present) // 2 * MINUTE_MS + np.arange(len(present)) * MINUTE_MS
    bars["close"] = 100 + np.cumsum(rng.normal(size=len(present)))
    bars["open"] = bars["close"] + rng.normal(size=len(present))
    bars["high"] = np.maximum(bars["open"], bars["close"]) + rng.random(len(present))
    bars["low"] = np.minimum(bars["open"], bars["close"]) - rng.random(len(present))
    return bars[present]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=3, max_size=60), st.integers(1, 25), st.integers(0, 5))
def test_forward_returns_and_excursions_equal_a_plain_twin(present: list[bool], h: int, seed: int) -> None:
    bars = bars_with_gaps(np.array([True, *present, True]), seed)
    ends = run_ends(bars["timestamp"], MINUTE_MS)
    forward = forward_returns(bars, ends, h)
    best, worst = excursions(bars, ends, h)
    by_time = {int(bar["timestamp"]): bar for bar in bars}
    for t, bar in enumerate(bars):
        path = [by_time.get(int(bar["timestamp"]) + k * MINUTE_MS) for k in range(1, h + 1)]
        if any(later is None for later in path):
            assert np.isnan([forward.total[t], forward.first[t], best[t], worst[t]]).all()
            continue
        entry = path[0]["open"]
        same_day = [later for later in path if later["timestamp"] // DAY_MS == path[0]["timestamp"] // DAY_MS]
        assert forward.total[t] == pytest.approx((path[-1]["close"] / entry - 1) * 1e4)
        assert forward.first[t] == pytest.approx((same_day[-1]["close"] / entry - 1) * 1e4)
        assert forward.share[t] == len(same_day) / h
        assert best[t] == pytest.approx((max(later["high"] for later in path) / entry - 1) * 1e4)
        assert worst[t] == pytest.approx((min(later["low"] for later in path) / entry - 1) * 1e4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_onsets_equal_a_plain_twin(rows: list[tuple[bool, bool, bool]]) -> None:
    """A condition begins only after a bar that is there, warm and without it."""
    present, holds, warm = (np.array(column) for column in zip(*rows, strict=True))
    times = np.flatnonzero(present) * MINUTE_MS
    holds, warm = holds[present], warm[present]
    found = onsets(holds, warm, times, MINUTE_MS) if len(times) else np.array([], dtype=bool)
    for t in range(len(times)):
        before = t > 0 and times[t] - times[t - 1] == MINUTE_MS and warm[t - 1] and not holds[t - 1]
        assert found[t] == (holds[t] and before)


def test_what_is_earned_is_shared_out_between_the_days_and_adds_up() -> None:
    bars = bars_with_gaps(np.ones(200, dtype=bool), 1)
    forward = forward_returns(bars, run_ends(bars["timestamp"], MINUTE_MS), 20)
    day = (bars["timestamp"] + MINUTE_MS) // DAY_MS
    rows = np.array([3, 85, 90, 99, 120])
    sums, weight = day_sums(forward, rows, day - day[0], 3, drift=2.0)
    assert sums.sum() == pytest.approx(forward.total[rows].mean() - 2.0)
    assert weight == pytest.approx([(20 + 14 + 9 + 0 + 0) / 100, (0 + 6 + 11 + 20 + 20) / 100, 0])
    assert weight.sum() == pytest.approx(1.0)


def test_the_table_counts_what_a_plain_loop_counts(null_result: Result, study: EventStudy) -> None:
    signals, candles = null_result.signals, null_result.candles
    warm = null_result.features["warm"] == 1
    minute = pd.Timedelta(minutes=1)
    for name in ("VOLUME_SPIKE", "BREAKOUT_DOWN"):
        held = signals["trigger_reasons"].map(lambda reasons, name=name: name in reasons)
        returns = []
        for time in candles.index[held]:
            if time - minute not in candles.index or not warm[time - minute] or held[time - minute]:
                continue
            path = candles.loc[time + minute : time + 60 * minute]
            if len(path) == 60:
                returns.append((path["close"].iloc[-1] / path["open"].iloc[0] - 1) * 1e4)
        row = study.table.query("event == @name and horizon == 60").iloc[0]
        assert row["n"] == len(returns)
        assert row["mean_bps"] == pytest.approx(np.mean(returns))
        assert row["median_bps"] == pytest.approx(np.median(returns))


# --- the statistic ---------------------------------------------------------------------------------------------------


def test_flips_agree_with_all_patterns_of_signs() -> None:
    sums = np.random.default_rng(2).normal(size=(1, 10)) + 0.4
    patterns = np.array(np.meshgrid(*[[-1.0, 1.0]] * 10)).reshape(10, -1).T
    exact = (np.abs(patterns @ sums[0]) >= abs(sums.sum()) - 1e-12).mean()
    assert flip_p_values(sums, signs(20_000, 10, 0))[0] == pytest.approx(exact, abs=0.01)


def test_bands_do_not_move_with_the_mean_and_scale_with_the_spread() -> None:
    rng = np.random.default_rng(3)
    weights = rng.dirichlet(np.ones(30), size=4)
    sums, flips = rng.normal(size=(4, 30)), signs(999, 30, 0)
    half = half_widths(sums, weights, flips, 0.95)
    assert half_widths(3 * sums + 7 * weights, weights, flips, 0.95) == pytest.approx(3 * half)
    assert (half_widths(sums, weights, flips, 0.99) > half).all()


def test_bands_cover_the_truth_as_often_as_they_say() -> None:
    """Days of very unequal volatility and size, heavy tails."""
    rng = np.random.default_rng(4)
    weights = rng.dirichlet(np.full(30, 2.0), size=800)
    sums = weights * (rng.standard_t(4, size=(800, 30)) * np.exp(rng.normal(0, 0.4, (800, 30))) + 5.0)
    half = half_widths(sums, weights, signs(999, 30, 0), 0.95)
    assert 0.92 <= (np.abs(sums.sum(axis=1) - 5.0) <= half).mean() <= 0.98


def seeds_with_a_discovery(seeds: int, days: int, symbols: tuple[str, ...]) -> int:
    """In how many seeds anything at all is discovered where nothing is planted: each time a false one."""
    found = 0
    for seed in range(seeds):
        study = event_study([simulated(symbol, seed, days) for symbol in symbols], fdr=FDR)
        found += bool(study.table["discovery"].any())
    return found


def test_discoveries_stay_rare_where_nothing_is_planted() -> None:
    """All nulls true: the false-discovery rate is the share of families with any discovery."""
    assert seeds_with_a_discovery(12, 16, ("SOLUSDT",)) <= binom.ppf(0.99, 12, FDR)


@pytest.mark.long
@pytest.mark.parametrize("symbols", [("SOLUSDT",), ("1000PEPEUSDT",), ("ETHUSDT", "ENAUSDT")])
def test_discoveries_stay_within_the_stated_rate_over_200_seeds(symbols: tuple[str, ...]) -> None:
    assert seeds_with_a_discovery(200, 30, symbols) <= binom.ppf(0.99, 200, FDR)


def test_p_values_are_uniform_where_an_ordinary_t_test_accuses() -> None:
    """What overlapping horizons do to a test that takes events for independent, on the same martingales."""
    honest, naive = [], []
    for seed in range(10):
        result = simulated("1000PEPEUSDT", seed, 15)
        table = event_study(result, at="bars", horizons=(60,), combinations=None, n_boot=999).table
        honest.extend(table.loc[table["tested"], "p_value"])
        forward = forward_returns(result.bars, run_ends(result.bars["timestamp"], MINUTE_MS), 60).total
        warm = result.columns[FEATURE_NAMES.index("warm")] == 1
        market = np.nanmean(forward[warm])
        for i in range(len(REASONS)):
            rows = (result.signal_records["reasons"] >> i & 1 == 1) & np.isfinite(forward)
            naive.append(ttest_1samp(forward[rows], market).pvalue)
    assert (np.array(honest) <= 0.05).mean() < 0.12
    assert (np.array(naive) <= 0.05).mean() > 0.3


def finds_the_rebound(table: pd.DataFrame) -> bool:
    planted = {"VOLUME_SPIKE", "RSI_OVERSOLD", "VWAP_DEVIATION"}
    wanted = table["event"].map(lambda event: planted <= {*event.split(" + ")})
    rows = table[wanted & table["horizon"].isin([30, 60]) & table["survives"]]
    return bool(len(rows)) and set(rows["side"]) == {"LONG"}


def finds_the_breakouts(table: pd.DataFrame) -> bool:
    ups = table[(table["event"] == "BREAKOUT_UP") & table["discovery"]]
    downs = table[(table["event"] == "BREAKOUT_DOWN") & table["discovery"]]
    return bool(len(ups) and len(downs)) and bool((ups["excess_bps"] > 0).all() and (downs["excess_bps"] < 0).all())


PLANTED = [("LINKUSDT", finds_the_rebound), ("SUIUSDT", finds_the_breakouts)]


@pytest.mark.parametrize(("symbol", "finds"), PLANTED)
def test_what_is_planted_is_found(symbol: str, finds) -> None:
    assert finds(event_study(simulated(symbol, 1, 90)).table)


@pytest.mark.long
@pytest.mark.parametrize(("symbol", "finds"), PLANTED)
def test_what_is_planted_is_found_on_nine_of_ten_seeds(symbol: str, finds) -> None:
    assert sum(finds(event_study(simulated(symbol, seed, 90)).table) for seed in range(10)) >= 9


def test_events_chosen_with_hindsight_are_found_out(null_result: Result) -> None:
    """A reason that is set where the next half hour happens to rise: the study must see it, and only where it is."""
    forward = forward_returns(null_result.bars, run_ends(null_result.bars["timestamp"], MINUTE_MS), 30).total
    records = null_result.signal_records.copy()
    bit = 1 << REASONS.index("NEAR_SUPPORT")
    records["reasons"] &= ~bit
    lucky = np.flatnonzero(forward > np.nanquantile(forward, 0.9))
    records["reasons"][np.random.default_rng(0).choice(lucky, 300, replace=False)] |= bit
    cheat = event_study(replace(null_result, signal_records=records), horizons=(30,), combinations=None)
    row = cheat.table.set_index("event").loc["NEAR_SUPPORT"]
    assert row["discovery"] and row["survives"] and row["side"] == "LONG" and row["p_value"] <= 0.001
    assert "NEAR_SUPPORT at 30 minutes, long" in cheat.sentence and "has not been tried" in cheat.sentence


# --- what is reported ------------------------------------------------------------------------------------------------


def test_the_table_is_consistent(study: EventStudy) -> None:
    table = study.table
    tested = table["tested"]
    assert tested.any() and not table["discovery"].any()
    assert table.loc[tested, ["p_value", "q_value", "net_low"]].notna().all(axis=None)
    assert table.loc[~tested, ["p_value", "q_value", "net_low"]].isna().all(axis=None)
    assert ((table["n"] >= MIN_EVENTS) & (table["days"] >= MIN_DAYS) == tested).all()
    assert (table["mfe_bps"].dropna() >= 0).all() and (table["mae_bps"].dropna() <= 0).all()
    assert table["net_bps"].to_numpy() == pytest.approx(table["mean_bps"].abs().to_numpy() - 10.0, nan_ok=True)
    assert (table["excess_low"].dropna() < table["excess_high"].dropna()).all()
    assert "nothing can be told from chance" in study.sentence
    shown = study.profile.merge(table, left_on=["event", "minute"], right_on=["event", "horizon"], suffixes=("_p", ""))
    assert shown["mean_bps_p"].to_numpy() == pytest.approx(shown["mean_bps"].to_numpy(), nan_ok=True)


def test_costs_are_a_round_trip_of_taker_fees_and_slippage() -> None:
    assert round_trip_bps(Costs(fee=0.0004, slippage_bps=1.5)) == pytest.approx(11.0)


def test_several_symbols_are_one_family(null_result: Result, study: EventStudy) -> None:
    both = event_study({"A": null_result, "B": null_result}, horizons=(5, 60), n_boot=999)
    assert list(both.table["symbol"].unique()) == ["A", "B"] and len(both.table) == 2 * len(study.table)
    first = both.table[both.table["symbol"] == "A"].drop(columns="symbol")
    pd.testing.assert_frame_equal(first, study.table.drop(columns="symbol"), rtol=1e-9)
    assert set(both.sentences) == {"A", "B"}
    with pytest.raises(InputError, match="twice"):
        event_study([null_result, null_result])


def test_the_kinds_of_events_nest(null_result: Result) -> None:
    counts = {
        at: event_study(null_result, at=at, horizons=(5,), combinations=None, n_boot=99).table["n"]
        for at in ("onset", "bars", "alerts")
    }
    assert (counts["onset"] <= counts["bars"]).all() and (counts["alerts"] <= counts["bars"]).all()
    assert counts["alerts"].iloc[REASONS.index("LOW_VOLATILITY")] == 0
    assert counts["onset"].sum() < counts["bars"].sum()


def test_the_same_seed_gives_the_same_study(null_result: Result, study: EventStudy) -> None:
    again = event_study(null_result, horizons=(5, 60), n_boot=999)
    pd.testing.assert_frame_equal(again.table, study.table)
    pd.testing.assert_frame_equal(again.profile, study.profile)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_draw_what_the_tables_say(study: EventStudy, theme: str) -> None:
    figure = study.plot(theme=theme)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert "volume spike" in titles
    lines = [trace for trace in figure.data if trace.mode == "lines" and trace.customdata is not None]
    first = study.profile[study.profile["event"] == "VOLUME_SPIKE"]
    assert list(lines[0].y[1:]) == list(first["mean_bps"]) and lines[0].y[0] == 0
    heat = study.heatmap(theme).data[0]
    cell = study.table.query("event == 'RSI_OVERSOLD' and horizon == 60").iloc[0]
    assert heat.text[1][1].removesuffix(" ★") == f"{cell['excess_bps']:+.0f}"
    with pytest.raises(InputError, match="symbol='NONE'"):
        study.plot("NONE")
    with pytest.raises(InputError, match="theme="):
        study.plot(theme="blue")


def test_a_reason_and_the_alerts_of_this_reason_alone_are_drawn_apart() -> None:
    """Where one reason is enough for an ALERT, a combination may have the name of a reason."""
    exchange = SimulatedExchange(5)
    result = replay(exchange.candles("SOLUSDT", days=16), Thresholds(min_reasons_for_alert=1), symbol="SOLUSDT")
    study = event_study(result, horizons=(5, 60), n_boot=999)
    namesakes = study.table["event"] == "BREAKOUT_DOWN"
    assert set(study.table.loc[namesakes, "kind"]) == {"reason", "combination"}
    # Found on both, so that both are in the heatmap and have stars of their own.
    study = replace(study, table=study.table.assign(discovery=namesakes))
    figure = study.plot()
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert len(titles) == len(set(titles))
    lines = [trace for trace in figure.data if trace.mode == "lines" and trace.customdata is not None]
    stars = [trace for trace in figure.data if trace.mode == "markers" and len(trace.x) and trace.x[0] is not None]
    for kind, title in (("reason", "breakout down"), ("combination", "breakout down alone")):
        wanted = study.profile[(study.profile["kind"] == kind) & (study.profile["event"] == "BREAKOUT_DOWN")]
        assert list(lines[titles.index(title)].y[1:]) == list(wanted["mean_bps"])
        marks = study.table[namesakes & (study.table["kind"] == kind)]
        assert [list(marks["mean_bps"])] == [list(s.y) for s in stars if s.xaxis == lines[titles.index(title)].xaxis]
    heat = study.heatmap().data[0]
    for kind, title in (("reason", "breakout down"), ("combination", "breakout down alone")):
        cell = study.table[namesakes & (study.table["kind"] == kind) & (study.table["horizon"] == 60)].iloc[0]
        assert cell["tested"] and abs(cell["excess_bps"]) > 0.5
        assert heat.text[heat.y.index(title)][1].startswith(f"{cell['excess_bps']:+.0f} ★")
    best = study.table.assign(net_bps=np.where(namesakes & (study.table["kind"] == "combination"), 1e3, 0.0))
    assert "BREAKOUT_DOWN alone at" in replace(study, table=best).sentence


def test_figures_take_hostile_names_and_nothing_at_all(study: EventStudy) -> None:
    hostile = "<script>alert(1)</script>"
    table, profile = study.table.assign(event=hostile, symbol=hostile), study.profile.assign(event=hostile)
    one = table.drop_duplicates(["symbol", "event", "horizon"])
    shown = heatmap_chart(one).to_json() + profile_chart(profile.head(20), one, 10.0).to_json()
    assert "<script" not in shown and "\\u003cscript" not in shown
    assert not heatmap_chart(table.iloc[:0]).data and not profile_chart(profile.iloc[:0], table, 10.0).data


def test_too_short_a_replay_is_not_judged() -> None:
    result = replay(SimulatedExchange(0).candles("SOLUSDT", days=3), symbol="SOLUSDT")
    short = event_study(result)
    assert not short.table["tested"].any()
    assert "no event is frequent enough to test" in short.sentence
    cold = event_study(replay(SimulatedExchange(0).candles("SOLUSDT", days=1), symbol="SOLUSDT"))
    assert (cold.table["n"] == 0).all() and "0 warm days" in cold.sentence


def test_five_minute_bars() -> None:
    result = replay(SimulatedExchange(2).candles("SOLUSDT", "5m", days=20), symbol="SOLUSDT", interval="5m")
    table = event_study(result, horizons=(15, 60), combinations=None, n_boot=99).table
    assert table["tested"].any()
    with pytest.raises(InputError, match=r"horizons=7: must be whole bars of SOLUSDT \(5 minutes\)"):
        event_study(result, horizons=(7,))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("at", "open"),
        ("horizons", ()),
        ("horizons", (0,)),
        ("horizons", (1441,)),
        ("horizons", (5.0,)),
        ("horizons", 5),
        ("combinations", 0),
        ("level", 1.0),
        ("fdr", 0),
        ("fdr", True),
        ("n_boot", 10),
        ("seed", -1),
    ],
)
def test_bad_input_is_named(null_result: Result, argument: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^{argument}="):
        event_study(null_result, **{argument: value})


@pytest.mark.parametrize("bad", [None, "SOLUSDT", 3, [], {}, [3], {"A": 3}])
def test_what_is_no_result_is_refused(bad: object) -> None:
    with pytest.raises(InputError, match="^result="):
        event_study(bad)


def test_real_candles_give_a_sentence_a_symbol(shared) -> None:
    results = []
    for name in ("BTCUSDT", "XMRUSDT"):
        candles = pd.read_parquet(shared / "candles" / "1m" / f"{name}.parquet")
        results.append(replay(candles, symbol=name, interval="1m"))
    real = event_study(results, n_boot=999)
    assert set(real.sentences) == {"BTCUSDT", "XMRUSDT"} and real.table["tested"].sum() > 100
    assert np.isfinite(real.table.loc[real.table["tested"], "p_value"]).all()
