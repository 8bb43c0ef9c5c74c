"""The async faces of Stage1 and Stage2: the numbers of replay, one bar at a time, and every kind of bad input."""

from __future__ import annotations

import asyncio
import json
import logging
import math

import numpy as np
import pandas as pd
import pytest
from stage_cases import alert_places, case

from aione_lab.backtest import replay
from aione_lab.backtest import stages as stages_module
from aione_lab.backtest.decode import stage1_dict, stage2_dict
from aione_lab.backtest.signal_input import REQUIRED, assess_alert, engine_alert, read_alert, read_head
from aione_lab.backtest.stages import CALIBRATION_PAUSE_MS, AssetMonitorStage1, Stage2Processor
from aione_lab.engine.records import FACTORS, FEATURE_NAMES, FEATURES
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.resample import resample
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds import Thresholds
from aione_lab.thresholds.classes import DEFAULT_CLASSES, thresholds_for


def check(monitor: AssetMonitorStage1, *args, **kwargs) -> dict:
    return asyncio.run(monitor.check_anomalies(*args, **kwargs))


def process(signal, processor: Stage2Processor | None = None) -> dict:
    return asyncio.run((processor or Stage2Processor()).process(signal))


def without_time(result: dict) -> dict:
    return {**result, "quality_metrics": {**result["quality_metrics"], "processing_time_ms": 0.0}}


@pytest.fixture
def alert(replayed) -> dict:
    """The Stage1 dictionary of one alert, after a trip through JSON."""
    row, signal, *_ = case(replayed, alert_places(replayed)[5])
    return json.loads(json.dumps(stage1_dict("SOLUSDT", row, signal, thresholds_for("SOLUSDT"))))


# --- Stage1 ------------------------------------------------------------------------------------------------------


def test_stage1_says_what_replay_says(replayed, simulated):
    records = replayed.signal_records
    held_back = np.flatnonzero(records["suppressed"] == 4)
    candles, reference = simulated["SOLUSDT"], simulated["BTCUSDT"]
    for at in [*alert_places(replayed)[:3], held_back[0], int(np.flatnonzero(records["signal"] == 1)[0]), 100]:
        made = check(AssetMonitorStage1(), "SOL/USDT:USDT", candles[: at + 1], reference)
        row, signal, *_ = case(replayed, at)
        expected = stage1_dict("SOLUSDT", row, signal, thresholds_for("SOLUSDT"))
        assert {**made, "hints": []} == expected


def test_stage1_takes_the_settings_spec_and_thresholds_it_is_given(simulated):
    candles = simulated["SOLUSDT"][:3000]
    given = {
        "thresholds": Thresholds(min_reasons_for_alert=1, vol_z_threshold=0.5),
        "settings": Settings(cooldown_period=0),
        "spec": FeatureSpec(rsi_window=9),
    }
    result = replay(candles, given["thresholds"], settings=given["settings"], spec=given["spec"])
    made = check(AssetMonitorStage1(**given), "SOLUSDT", candles)
    assert made["signal"] == result.signals["signal"].iloc[-1]
    assert made["stats"]["rsi"] == result.features["rsi"].iloc[-1] != replay(candles).features["rsi"].iloc[-1]
    assert made["thresholds"]["vol_z_threshold"] == 0.5
    by_symbol = AssetMonitorStage1(thresholds={"SOL/USDT:USDT": given["thresholds"]})
    assert check(by_symbol, "SOLUSDT", candles)["thresholds"]["vol_z_threshold"] == 0.5
    assert check(by_symbol, "ETHUSDT", candles)["thresholds"]["vol_z_threshold"] != 0.5


def test_too_few_rows_are_told_how_many_are_needed(simulated):
    made = check(AssetMonitorStage1(), "SOLUSDT", simulated["SOLUSDT"][:700])
    assert (made["signal"], made["state"], made["trigger_reasons"]) == ("NONE", "no_data", [])
    assert made["hints"][0] == "no signal: 1440 bars of 1m in a row are needed, there are 700"
    one = check(AssetMonitorStage1(), "SOLUSDT", simulated["SOLUSDT"][:1])
    assert one["signal"] == "NONE" and "there are 1" in one["hints"][0]
    monitor = AssetMonitorStage1()
    monitor.set_global_levels(resample(simulated["SOLUSDT"], "1m", "1d"), symbol="SOLUSDT")
    for empty in (simulated["SOLUSDT"][:0], pd.DataFrame()):
        none = check(monitor, "SOLUSDT", empty)
        assert (none["signal"], none["timestamp"], none["stats"]["current_price"]) == ("NONE", None, None)
        assert none["hints"][0] == "no signal: 1440 bars of 1m in a row are needed, there are 0"
        assert set(none["stats"]) == set(one["stats"]) and json.dumps(none, allow_nan=False)
        assert process(none)["recommendation"] == "" and "error" not in process(none)


@pytest.mark.parametrize("offset", [0, 1, 37, 59])
def test_the_number_of_bars_that_is_told_is_enough(simulated, offset):
    spec = FeatureSpec(atr_window=40, volume_window=80)
    monitor = AssetMonitorStage1(spec=spec)
    hint = check(monitor, "SOLUSDT", simulated["SOLUSDT"][offset : offset + 30])["hints"][0]
    needed = int(hint.split()[2])
    enough = check(monitor, "SOLUSDT", simulated["SOLUSDT"][offset : offset + needed])
    assert enough["signal"] != "NONE" and needed > 1440


def test_a_missing_bar_starts_the_count_anew(simulated):
    candles = simulated["SOLUSDT"][:3000]
    made = check(AssetMonitorStage1(), "SOLUSDT", candles.drop(candles.index[2500]))
    assert made["signal"] == "NONE"
    assert "there are 499 since the missing bar before 2025-01-02T17:41:00+00:00" in made["hints"][0]


def test_a_frozen_symbol_has_no_signal_and_a_hint(simulated):
    frozen = simulated["SOLUSDT"][:3000].copy()
    frozen.iloc[1600:, :4] = 100.0
    frozen.iloc[1600:, 4:] = 0.0
    made = check(AssetMonitorStage1(), "SOLUSDT", frozen)
    assert made["signal"] == "NONE" and "nothing has traded lately" in made["hints"][0]


def test_five_minute_candles(simulated):
    candles = resample(simulated["SOLUSDT"], "1m", "5m")
    made = check(AssetMonitorStage1(interval="5m"), "SOLUSDT", candles)
    assert made["stats"]["rsi"] == replay(candles, interval="5m").features["rsi"].iloc[-1]
    assert made["signal"] != "NONE"


def test_a_series_of_checks_leaves_nothing_behind_and_runs_side_by_side(simulated):
    monitor = AssetMonitorStage1()
    candles = {name: simulated[name][:2000] for name in simulated}

    async def all_at_once() -> list[dict]:
        return await asyncio.gather(*(monitor.check_anomalies(name, frame) for name, frame in candles.items()))

    together = asyncio.run(all_at_once())
    alone = [check(AssetMonitorStage1(), name, frame) for name, frame in candles.items()]
    assert together == alone == asyncio.run(all_at_once())


def spoiled(frame: pd.DataFrame, fault: str) -> pd.DataFrame:
    frame = frame.copy()
    if fault == "unsorted":
        return frame.iloc[[1, 0, *range(2, len(frame))]]
    if fault == "repeated":
        return frame.iloc[[0, 0, *range(1, len(frame))]]
    if fault == "NaN":
        frame.iloc[5, 3] = math.nan
    if fault == "high below low":
        frame.iloc[5, 1] = frame.iloc[5, 2] / 2
    if fault == "naive":
        frame.index = frame.index.tz_localize(None)
    if fault == "no close":
        del frame["close"]
    return frame


@pytest.mark.parametrize("fault", ["unsorted", "repeated", "NaN", "high below low", "naive", "no close"])
def test_a_frame_that_is_no_candle_frame_is_refused(simulated, fault):
    with pytest.raises(InputError) as refused:
        check(AssetMonitorStage1(), "SOLUSDT", spoiled(simulated["SOLUSDT"][:50], fault))
    assert "candles" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("symbol", ["../../x", "<b>", "", None, 7])
def test_stage1_refuses_what_is_no_symbol(simulated, symbol):
    with pytest.raises(InputError, match="symbol="):
        check(AssetMonitorStage1(), symbol, simulated["SOLUSDT"][:50])


def test_stage1_refuses_bad_configuration():
    for argument, bad in {"interval": "7m", "thresholds": {"vol_z_threshold": 1}, "settings": 3, "spec": {}}.items():
        with pytest.raises(InputError, match=argument):
            AssetMonitorStage1(**{argument: bad})


# --- global levels -----------------------------------------------------------------------------------------------


def test_seeded_days_are_the_days_an_unbroken_replay_saw(simulated):
    candles, start = simulated["SOLUSDT"], 9 * 1440
    daily = resample(candles, "1m", "1d")
    whole = replay(candles, symbol="SOLUSDT").features.iloc[-1]
    monitor = AssetMonitorStage1()
    bare = check(monitor, "SOLUSDT", candles[start:])["stats"]
    monitor.set_global_levels({"SOL/USDT:USDT": daily[:9]})
    seeded = check(monitor, "SOLUSDT", candles[start:])["stats"]
    for name in ("prev_day_high", "prev_day_low", "level_days", "major_support", "major_resistance", "support"):
        assert seeded[name] == (None if math.isnan(whole[name]) else whole[name]), name
    assert (bare["level_days"], seeded["level_days"]) == (3, 12)
    assert check(monitor, "ETHUSDT", candles[start:])["stats"] == bare


def test_days_that_end_after_the_first_candle_are_left_out_with_a_hint(simulated):
    candles = simulated["SOLUSDT"]
    daily = resample(candles, "1m", "1d")
    monitor = AssetMonitorStage1()
    monitor.set_global_levels(daily, symbol="SOLUSDT")
    made = check(monitor, "SOLUSDT", candles[8 * 1440 + 300 :])
    assert any(hint.startswith("3 of 12 daily candles left out") for hint in made["hints"])
    assert made["stats"]["level_days"] == 12  # the day of the first candle counts from its end on
    monitor.set_global_levels(daily[:5], symbol="SOLUSDT")
    stale = check(monitor, "SOLUSDT", candles[8 * 1440 :])
    assert any("daily levels end with 2025-01-05" in hint for hint in stale["hints"])


def test_bad_days_are_refused_and_change_nothing(simulated):
    candles = simulated["SOLUSDT"]
    daily = resample(candles, "1m", "1d")
    monitor = AssetMonitorStage1()
    monitor.set_global_levels(daily[:2], symbol="SOLUSDT")
    kept = check(monitor, "SOLUSDT", candles[2 * 1440 : 4 * 1440])
    with pytest.raises(InputError, match=r"daily\[ETHUSDT\]"):
        monitor.set_global_levels({"SOLUSDT": daily, "ETHUSDT": candles[:100]})
    with pytest.raises(InputError, match="symbol="):
        monitor.set_global_levels(daily)
    with pytest.raises(InputError, match="symbol="):
        monitor.set_global_levels({"SOLUSDT": daily}, symbol="SOLUSDT")
    assert check(monitor, "SOLUSDT", candles[2 * 1440 : 4 * 1440]) == kept


def test_days_that_all_begin_too_late_give_a_hint(simulated):
    candles = simulated["SOLUSDT"]
    daily = resample(candles, "1m", "1d")
    bare, seeded = AssetMonitorStage1(), AssetMonitorStage1()
    seeded.set_global_levels(daily[5:], symbol="SOLUSDT")
    plain, made = (check(monitor, "SOLUSDT", candles[: 2 * 1440]) for monitor in (bare, seeded))
    assert made["hints"][0] == "7 of 7 daily candles left out: they begin after the first candle"
    assert {**made, "hints": made["hints"][1:]} == plain
    start = 5 * 1440 + 300  # in the middle of the first of these days, whose extremes are taken
    made = check(seeded, "SOLUSDT", candles[start : start + 2 * 1440])
    assert made["hints"][0].startswith("6 of 7 daily candles left out")
    assert (
        made["stats"]["level_days"]
        == check(bare, "SOLUSDT", candles[start : start + 2 * 1440])["stats"]["level_days"] + 1
    )


# --- thresholds from the cache -----------------------------------------------------------------------------------


class Cache:
    def __init__(self, stored) -> None:
        self.stored = stored
        self.asked: list[tuple[str, str]] = []

    async def fetch_from_cache(self, key: str, namespace: str, raw: bool = False):
        self.asked.append((key, namespace))
        if isinstance(self.stored, Exception):
            raise self.stored
        return self.stored


@pytest.mark.parametrize("form", [dict, json.dumps, lambda stored: json.dumps(stored).encode()])
def test_calibrated_before_asset_class_before_default(simulated, form):
    cache = Cache(form({"tp_mult": 2.0, "meta": {"study": "s1"}}))
    made = check(AssetMonitorStage1(cache_handler=cache), "1000PEPEUSDT", simulated["1000PEPEUSDT"][:1500])
    assert cache.asked == [("thresholds:1000PEPEUSDT", "global")]
    in_class = thresholds_for("1000PEPEUSDT")
    assert made["thresholds"]["tp_mult"] == 2.0 != in_class.tp_mult
    assert made["thresholds"]["rsi_oversold"] == in_class.rsi_oversold != Thresholds().rsi_oversold
    assert made["thresholds"]["min_confidence"] == Thresholds().min_confidence
    assert made["thresholds"]["meta"] == {"study": "s1", "source": "calibrated", "asset_class": "meme"}


def test_an_empty_cache_means_the_defaults(simulated):
    made = check(AssetMonitorStage1(cache_handler=Cache(None)), "SOLUSDT", simulated["SOLUSDT"][:1500])
    assert made == check(AssetMonitorStage1(), "SOLUSDT", simulated["SOLUSDT"][:1500])


@pytest.mark.parametrize("stored", [{"vol_z": 2}, "{", [1], ConnectionError("refused")])
def test_a_cache_that_cannot_be_used_costs_the_calibration_not_the_signal(simulated, stored, caplog):
    made = check(AssetMonitorStage1(cache_handler=Cache(stored)), "SOLUSDT", simulated["SOLUSDT"][:1500])
    assert made["signal"] != "NONE" and "default" in made["hints"][0]
    assert [record.levelno >= logging.WARNING for record in caplog.records] == [True]
    assert "thresholds:SOLUSDT" in caplog.text


# --- Stage2: the same numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "costs", "thresholds"),
    [
        (Settings(), Costs(), Thresholds()),
        (Settings(min_cluster=2, allow_shorts=True), Costs(tick_size=0.01), Thresholds(tp_mult=1.7)),
        (Settings(), Costs(), Thresholds(high_gate=0.0002, min_confidence=0.5)),  # gates that cross on most bars
    ],
)
def test_stage2_of_a_stage1_dictionary_is_what_replay_found(simulated, settings, costs, thresholds):
    candles, reference = simulated["SOLUSDT"][:4320], simulated["BTCUSDT"][:4320]
    result = replay(candles, thresholds, symbol="SOLUSDT", reference=reference, settings=settings, costs=costs)
    processor = Stage2Processor(settings=settings, costs=costs)
    places = alert_places(result)
    assert len(places) > 10
    for at in places:
        row, signal, found, params = case(result, at)
        given = json.loads(json.dumps(stage1_dict("SOLUSDT", row, signal, thresholds), allow_nan=False))
        read = read_alert(given, read_head(given), settings, costs, "1m", DEFAULT_CLASSES)
        assert assess_alert(read)[0].tobytes() == found.tobytes()
        assert read.row[0].tobytes() == row.tobytes()
        made = process(given, processor)
        expected = stage2_dict("SOLUSDT", found, row, signal, params, made["calibration_params"])
        numbers = {"quality_metrics", "confidence_metrics", "narrative"}
        assert {k: v for k, v in made.items() if k not in numbers} == {
            k: v for k, v in expected.items() if k not in numbers
        }
        assert made["narrative"] == expected["narrative"]
        assert made["confidence_metrics"]["factors"] == expected["confidence_metrics"]["factors"]


def test_an_alert_of_the_engine_is_read_as_its_dictionary_is(replayed):
    """Whatever numbers there are: the same row, or the same words of refusal."""
    rng = np.random.default_rng(7)
    row, signal, _, params = case(replayed, alert_places(replayed)[5])
    plain = np.frombuffer(np.ascontiguousarray(row).tobytes(), np.float64)[: len(FEATURE_NAMES)]
    limits, flat = Thresholds(), Thresholds().every_field()
    records = np.array([signal]), np.array([params])
    refused = 0
    for turn in range(600):
        values = plain.copy()
        at = rng.integers(0, len(values), size=rng.integers(0, 4))
        values[at] = rng.choice(
            [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e99, 1e100, -1e200, 5e-324, 2 * plain[0]], len(at)
        )
        wild = np.full(FEATURES.itemsize // 8, np.nan)
        wild[: len(values)] = values
        given = {**stage1_dict("SOLUSDT", wild.view(FEATURES)[0], signal, limits), "thresholds": limits}
        told = []
        for read in (
            lambda: read_alert(given, read_head(given), Settings(), Costs(), "1m", DEFAULT_CLASSES),  # noqa: B023
            lambda: engine_alert("SOLUSDT", values, *records, flat, True, FeatureSpec()),  # noqa: B023
        ):
            try:
                told.append(read().row.tobytes())
            except InputError as error:
                told.append(str(error))
        assert told[0] == told[1], turn
        refused += isinstance(told[0], str)
    assert 100 < refused < 500


def test_a_refusal_shows_what_was_given(alert):
    for name, value in (("atr", math.nan), ("rsi", 150), ("atr", None)):
        given = {**alert, "stats": {**alert["stats"], name: value}}
        with pytest.raises(InputError, match=rf"stats\.{name}={value}:"):
            read_alert(given, read_head(given), Settings(), Costs(), "1m", DEFAULT_CLASSES)


def test_stage1_and_stage2_one_after_the_other(replayed, simulated):
    at = int(alert_places(replayed)[2])
    stage1 = check(AssetMonitorStage1(), "SOLUSDT", simulated["SOLUSDT"][: at + 1], simulated["BTCUSDT"])
    made = process(stage1)
    found = case(replayed, at)[2]
    assert made["confidence"] == found["confidence"] and made["risk_parameters"]["sl_level"] == found["stop"]
    assert made["quality_metrics"]["used_default_calibration"] is True
    assert made["quality_metrics"]["processing_time_ms"] > 0
    assert made["timestamp"] == replayed.index[at].isoformat()
    json.dumps(made, allow_nan=False)


# --- Stage2: input -----------------------------------------------------------------------------------------------

NEEDED_BY = {
    "macd": "macd_hist",
    "ema_cross": "ema_diff",
    "stochastic": "stoch_k",
    "orderbook": "flow_imbalance",
    "vwap": "vwap_dev",
    "velocity": "velocity",
    "volume_profile": "poc",
}


def unknown_forms(stats: dict, names: set[str]) -> list[dict]:
    """``stats`` with these numbers absent, None and NaN."""
    absent = {name: value for name, value in stats.items() if name not in names}
    return [absent, {**absent, **dict.fromkeys(names)}, {**absent, **dict.fromkeys(names, math.nan)}]


@pytest.mark.parametrize("name", ["atr_pct", "vwap_dev", "support_distance", "resistance_distance"])
def test_what_follows_from_other_numbers_need_not_be_given(replayed, name):
    for at in alert_places(replayed)[:12]:
        row, signal, *_ = case(replayed, at)
        given = stage1_dict("SOLUSDT", row, signal, thresholds_for("SOLUSDT"))
        whole = without_time(process(given))
        for stats in unknown_forms(given["stats"], {name}):
            assert without_time(process({**given, "stats": stats})) == whole


@pytest.mark.parametrize(("factor", "feature"), sorted(NEEDED_BY.items()))
def test_a_missing_number_makes_its_factor_unavailable_not_zero(alert, factor, feature):
    whole = process(alert)["confidence_metrics"]
    assert whole["coverage"] == 1.0
    for stats in unknown_forms(alert["stats"], {feature, "vwap"} if factor == "vwap" else {feature}):
        metrics = process({**alert, "stats": stats})["confidence_metrics"]
        assert metrics["factors"][factor]["strength"] is None and metrics["factors"][factor]["contribution"] == 0.0
        weights = {name: line["weight"] for name, line in metrics["factors"].items()}
        available = sum(weights[name] for name, line in metrics["factors"].items() if line["strength"] is not None)
        assert metrics["coverage"] == pytest.approx(available / sum(weights.values()))
        parts = [line["contribution"] for line in metrics["factors"].values()]
        assert sum(parts) == metrics["composite_score"]


def test_the_required_numbers_are_enough(alert):
    stats = {name: alert["stats"][name] for name in REQUIRED}
    made = process({"symbol": "SOLUSDT", "signal": "ALERT", "stats": stats})
    assert made["recommendation"] in {"AVOID", "WAIT_FOR_CONFIRMATION", "BUY"} and "error" not in made
    known = [name for name, line in made["confidence_metrics"]["factors"].items() if line["strength"] is not None]
    assert known == ["rsi"] and made["trigger_reasons"] == []
    assert made["narrative"]["uk"] and made["risk_parameters"]["sl_level"] < stats["current_price"]
    with_vwap = process({"symbol": "SOLUSDT", "signal": "ALERT", "stats": {**stats, "vwap": alert["stats"]["vwap"]}})
    assert with_vwap["confidence_metrics"]["factors"]["vwap"] == process(alert)["confidence_metrics"]["factors"][
        "vwap"
    ] | {"contribution": with_vwap["confidence_metrics"]["factors"]["vwap"]["contribution"]}


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("bad", ["gone", None, math.nan, math.inf, "12", True, 10**400, [1.0]])
def test_a_required_number_that_is_none_is_invalid_data(alert, name, bad):
    stats = {key: value for key, value in alert["stats"].items() if key != name}
    made = process({**alert, "stats": stats if bad == "gone" else {**stats, name: bad}})
    assert made["recommendation"] == "INVALID_DATA" and f"stats.{name}=" in made["error"]
    assert made["confidence"] == 0.0 and made["validation_passed"] is False and "\n" not in made["error"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"symbol": "../../x"}, "symbol"),
        ({"symbol": None}, "symbol"),
        ({"signal": "BUY"}, "signal"),
        ({"signal": None}, "signal"),
        ({"stats": None}, "stats"),
        ({"stats": [1]}, "stats"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"trigger_reasons": ["VOLUME_SPIK"]}, "trigger_reasons"),
        ({"trigger_reasons": "VOLUME_SPIKE"}, "trigger_reasons"),
        ({"thresholds": {"tp_mul": 3}}, "Thresholds"),
        ({"thresholds": {"tp_mult": -3}}, "Thresholds.tp_mult"),
        ({"thresholds": 5}, "thresholds"),
        ({"thresholds": {1: 2}}, "thresholds"),
        ({"thresholds": "[" * 100_000}, "thresholds"),
        ({"thresholds": np.ones(3)}, "thresholds"),
        ({"signal": np.array(["ALERT", "ALERT"])}, "signal"),
        ({"signal": []}, "signal"),
        ({"symbol": np.array(["A", "B"])}, "symbol"),
        ({"timestamp": np.array([1, 2])}, "timestamp"),
        ({"trigger_reasons": [np.array(["A", "B"])]}, "trigger_reasons"),
        ({"trigger_reasons": [[]]}, "trigger_reasons"),
        ({"trigger_reasons": np.array(["VOLUME_SPIKE"])}, "trigger_reasons"),
    ],
)
def test_other_bad_input_names_its_field(alert, change, field):
    made = process({**alert, **change})
    assert made["recommendation"] == "INVALID_DATA" and made["error"].startswith(field), made.get("error")
    assert made["timestamp"] == (None if field == "timestamp" else alert["timestamp"])
    assert made["symbol"] == ("" if field == "symbol" else "SOLUSDT") and "\n" not in made["error"]
    json.dumps(made, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("current_price", 0.0), ("atr", -1.0), ("rsi", 101.0), ("daily_low", 1e9), ("macd_hist", "x"), ("poc", math.inf)],
)
def test_numbers_out_of_their_range_are_invalid(alert, name, value):
    made = process({**alert, "stats": {**alert["stats"], name: value}})
    assert made["recommendation"] == "INVALID_DATA" and made["error"].startswith("stats.")


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("daily_low", 1.01),
        ("daily_high", 0.99),
        ("support", 1.0),
        ("support", 1.01),
        ("major_support", 1.01),
        ("resistance", 1.0),
        ("resistance", 0.99),
        ("major_resistance", 0.99),
    ],
)
def test_the_price_lies_within_its_day_and_between_its_levels(alert, name, share):
    price = alert["stats"]["current_price"]
    around = {"daily_low": 0.9 * price, "daily_high": 1.1 * price}
    assert "error" not in process({**alert, "stats": {**alert["stats"], **around}})
    made = process({**alert, "stats": {**alert["stats"], **around, name: share * price}})
    assert made["recommendation"] == "INVALID_DATA"
    named = "current_price" if name.startswith("daily") else name
    assert made["error"].startswith(f"stats.{named}=") and "np.float64" not in made["error"]


@pytest.mark.parametrize("nothing", [None, [], "ALERT", 3])
def test_what_is_no_dictionary_is_invalid(nothing):
    made = process(nothing)
    assert made["recommendation"] == "INVALID_DATA" and made["error"].startswith("signal=")


@pytest.mark.parametrize("name", ["NONE", "NORMAL"])
def test_a_signal_that_is_no_alert_keeps_confidence_zero(alert, name):
    made = process({**alert, "signal": name, "stats": {}})
    assert (made["confidence"], made["recommendation"], made["signal"]) == (0.0, "", name)
    assert set(made) == set(process(alert)) and "error" not in made


def test_any_mixture_of_missing_numbers_is_survived(alert):
    random = np.random.default_rng(0)
    optional = [name for name in FEATURE_NAMES if name != "close" and name not in REQUIRED]
    for _ in range(60):
        gone = random.choice(optional, size=random.integers(1, len(optional)), replace=False)
        made = process({**alert, "stats": {**alert["stats"], **dict.fromkeys(gone)}})
        assert "error" not in made and 0.0 <= made["confidence"] <= 1.0
        json.dumps(made, allow_nan=False)


# --- Stage2: failure, defaults, calibration ----------------------------------------------------------------------


def test_an_unexpected_failure_is_told_logged_and_stays_with_its_symbol(alert, monkeypatch, caplog):
    real = stages_module.assess_alert

    def failing(read):
        if read.symbol == "ETHUSDT":
            raise RuntimeError("a broken kernel")
        return real(read)

    monkeypatch.setattr(stages_module, "assess_alert", failing)
    processor = Stage2Processor()

    async def both():
        return await asyncio.gather(processor.process({**alert, "symbol": "ETHUSDT"}), processor.process(alert))

    broken, fine = asyncio.run(both())
    assert broken["recommendation"] == "SYSTEM_FAILURE" and broken["symbol"] == "ETHUSDT" and broken["error"]
    assert broken["timestamp"] == alert["timestamp"]
    assert broken["confidence"] == 0.0 and "error" not in fine and fine["confidence"] > 0
    assert "ETHUSDT" in caplog.text and "Traceback" in caplog.text and "a broken kernel" in caplog.text


@pytest.mark.parametrize(
    ("thresholds", "is_default"),
    [
        (None, True),
        ({}, True),
        (Thresholds().to_json(), True),
        (Thresholds(), True),
        ({"tp_mult": 2.5}, False),
        ({"meta": {"source": "calibrated"}}, False),
    ],
)
def test_default_thresholds_are_recognised(alert, thresholds, is_default):
    made = process({**alert, "thresholds": thresholds})
    assert made["quality_metrics"]["used_default_calibration"] is is_default
    assert made["confidence_metrics"]["used_default_calibration"] is is_default
    assert made["quality_metrics"]["default_calibration_count"] == int(is_default)


def test_thresholds_of_the_asset_class_are_defaults_and_hold_where_a_signal_brings_none(alert):
    made = process({**alert, "symbol": "1000PEPEUSDT", "thresholds": None})
    assert made["calibration_params"]["tp_mult"] == thresholds_for("1000PEPEUSDT").tp_mult != Thresholds().tp_mult
    assert made["quality_metrics"]["used_default_calibration"] is True


class Queue:
    def __init__(self) -> None:
        self.asked: list[tuple] = []

    async def put(self, symbol, tf, priority, is_high_priority=False, is_urgent=False):
        self.asked.append((symbol, tf, priority, is_urgent))


class PlainQueue(Queue):
    def put(self, symbol, tf, priority, is_high_priority=False, is_urgent=False):  # type: ignore[override]
        self.asked.append((symbol, tf, priority, is_urgent))


@pytest.mark.parametrize("kind", [Queue, PlainQueue])
def test_an_alert_on_defaults_asks_once_in_some_hours_for_a_calibration(alert, kind):
    queue = kind()
    processor = Stage2Processor(calib_queue=queue)
    start = int(pd.Timestamp(alert["timestamp"]).timestamp() * 1000)
    for passed in (0, 60_000, CALIBRATION_PAUSE_MS - 60_000):
        process({**alert, "timestamp": start + passed}, processor)
    process({**alert, "symbol": "ETHUSDT"}, processor)
    assert queue.asked == [("SOLUSDT", "1m", 0.1, True), ("ETHUSDT", "1m", 0.1, True)]
    last = process({**alert, "timestamp": start + CALIBRATION_PAUSE_MS}, processor)
    assert queue.asked[2:] == [("SOLUSDT", "1m", 0.1, True)]
    assert last["quality_metrics"]["default_calibration_count"] == 4
    process({**alert, "symbol": "XRPUSDT", "signal": "NORMAL"}, processor)
    process({**alert, "symbol": "XRPUSDT", "thresholds": {"tp_mult": 2.0}}, processor)
    assert len(queue.asked) == 3


def test_a_queue_that_fails_costs_a_log_entry_and_is_asked_again(alert, caplog):
    class Failing(Queue):
        async def put(self, *args, **kwargs):
            await super().put(*args, **kwargs)
            raise OSError("full")

    queue = Failing()
    processor = Stage2Processor(calib_queue=queue)
    plain = process(alert)
    for _ in range(2):
        made = process(alert, processor)
        assert made["confidence"] == plain["confidence"] and made["recommendation"] == plain["recommendation"]
    assert len(queue.asked) == 2 and caplog.text.count("Traceback") == 2


def test_stage2_refuses_bad_configuration():
    for argument, bad in {"interval": "7m", "settings": {}, "costs": 0.0005}.items():
        with pytest.raises(InputError, match=argument):
            Stage2Processor(**{argument: bad})


def test_the_same_alert_gives_the_same_answer(alert):
    assert without_time(process(alert)) == without_time(process(alert))
    assert list(process(alert)["confidence_metrics"]["factors"]) == list(FACTORS)
