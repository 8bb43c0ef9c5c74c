"""Values that no caller should send: each is refused in one line that names it, and nothing else happens."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aione_lab.backtest import replay
from aione_lab.backtest.baseline import random_entries
from aione_lab.backtest.evaluate import Prepared
from aione_lab.backtest.replay import compute_features
from aione_lab.backtest.result import Result
from aione_lab.backtest.stages import AssetMonitorStage1
from aione_lab.engine import Engine
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.settings import Config, Costs, Settings, Weights
from aione_lab.thresholds import Thresholds
from aione_lab.thresholds.classes import AssetClasses
from aione_lab.units import to_ms

DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def candles() -> pd.DataFrame:
    return SimulatedExchange(seed=5).candles("SOLUSDT", days=2)


@pytest.fixture(scope="module")
def result(candles: pd.DataFrame) -> Result:
    return replay(candles, symbol="SOLUSDT")


def refused(call: Any, *names: str) -> str:
    with pytest.raises(InputError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text and all(name in text for name in names), text
    return text


# --- the sentence itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [pd.Series([1.0, 2.0]), np.eye(3), "a\nb", 10**5000, np.float64(1e20)],
    ids="Series matrix text int number".split(),
)
def test_one_line_whatever_the_value(value: Any) -> None:
    text = str(InputError.of("x", value, "must be y"))
    assert "\n" not in text and text.startswith("x=") and text.endswith(": must be y") and len(text) < 140
    assert "np." not in text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("NOPEUSDT", "known: BTCUSDT, SOLUSDT"),  # near to each of them by its end alone
        ("SLOUSDT", "did you mean 'SOLUSDT'?"),
        ("SOLUSD", "did you mean 'SOLUSDT'?"),
        ("BTC", "did you mean 'BTCUSDT'?"),
    ],
)
def test_an_unknown_name_is_near_by_what_sets_names_apart(name: str, told: str) -> None:
    assert str(InputError.unknown("symbol", name, ["SOLUSDT", "BTCUSDT"])) == f"symbol={name!r}: unknown; {told}"


def test_an_unknown_name_lists_a_dozen_at_most() -> None:
    text = refused(lambda: Settings(qqqq=1), "Settings field='qqqq'", "known: ", ", …")
    assert text.count(",") == 12
    assert "…" not in refused(lambda: Weights(qqqq=1), "known: ", "vwap")


# --- configuration -----------------------------------------------------------------------------------------------

NOT_NUMBERS = (True, False, "2", b"2", [2], {}, np.bool_(True), np.array([2.0]), 2j, pd.NA)


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (Thresholds, "tp_mult"),
        (Thresholds, "min_reasons_for_alert"),
        (Thresholds, "vol_z_threshold"),
        (Thresholds, "low_gate"),
        (Settings, "near_level"),
        (Settings, "cooldown_period"),
        (Settings, "position_fraction"),
        (Weights, "rsi"),
        (Costs, "fee"),
        (Costs, "maker_fee"),
        (Costs, "funding_hours"),
        (FeatureSpec, "rsi_window"),
        (FeatureSpec, "value_area"),
    ],
)
def test_what_is_no_number_is_not_read_as_one(kind: type[Config], field: str, value: Any) -> None:
    refused(lambda: kind(**{field: value}), f"{kind.__name__}.{field}=")


@pytest.mark.parametrize("number", [np.float32(2), np.float64(2), np.int64(2), np.uint8(2), Decimal(2), Fraction(2)])
def test_every_kind_of_number_is_one(number: Any) -> None:
    made = Thresholds(tp_mult=number, vol_z_threshold=number, low_gate=number, min_reasons_for_alert=number)
    assert made == Thresholds(tp_mult=2.0, vol_z_threshold=2.0, low_gate=2.0, min_reasons_for_alert=2)
    assert type(made.min_reasons_for_alert) is int and type(made.low_gate) is float
    assert Costs(funding_hours=number).funding_hours == 2 and FeatureSpec(rsi_window=number).rsi_window == 2
    assert Settings(exclude_hours=[number, np.int64(5), 5]).exclude_hours == (2, 5)


@pytest.mark.parametrize("field", ["low_gate", "high_gate", "vwap_threshold"])
@pytest.mark.parametrize(
    "value",
    [10**400, "1" * 400 + "x", "٣x", "0.0x", "1e3x", Decimal("NaN"), Decimal("sNaN"), Fraction(10**400)],
    ids="huge long arabic zero exponent NaN sNaN fraction".split(),
)
def test_a_gate_is_finite(field: str, value: Any) -> None:
    refused(lambda: Thresholds(**{field: value}), f"Thresholds.{field}=", "0.6x")


@pytest.mark.parametrize(
    "value",
    [Fraction(10**400), 10**5000, Decimal("inf"), Decimal("sNaN")],
    ids="fraction int inf sNaN".split(),
)
def test_no_number_is_too_large_to_be_refused(value: Any) -> None:
    refused(lambda: Settings(near_level=value), "Settings.near_level=")


@pytest.mark.parametrize("hours", [[[]], ["a", 1], [True], ["5"], [24], "12", 5, {1: 2}, [None]], ids=repr)
def test_hours_are_hours(hours: Any) -> None:
    refused(lambda: Settings(exclude_hours=hours), "Settings.exclude_hours")


@pytest.mark.parametrize("field", ["tick_size", "lot_size"])
@pytest.mark.parametrize("value", [1e-300, 9e-13, 2e12, -0.1, math.nan])
def test_steps_are_sizes_that_exist(field: str, value: float) -> None:
    refused(lambda: Costs(**{field: value}), f"Costs.{field}=")
    assert all(getattr(Costs(**{field: fine}), field) == fine for fine in (0, 1e-12, 0.01, 1e12))


def _nested(depth: int) -> list:
    made: list = []
    for _ in range(depth):
        made = [made]
    return made


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Thresholds.from_json({1: 2}), "thresholds="),  # type: ignore[dict-item]
        (lambda: Thresholds.from_json(DEEP), "thresholds="),
        (lambda: Settings(weights={1: 2}), "Settings.weights="),
        (lambda: AssetClasses(classes=[{1: 2}]), "AssetClasses.classes="),
        (lambda: Thresholds(meta={"f": len}), "Thresholds.meta="),
        (lambda: Thresholds(meta={"n": math.nan}), "Thresholds.meta="),
        (lambda: Thresholds(meta={1: 2}), "Thresholds.meta="),
        (lambda: Thresholds(meta={"deep": _nested(5000)}), "Thresholds.meta="),
    ],
)
def test_other_configuration_that_is_none(make: Any, name: str) -> None:
    refused(make, name)


@pytest.mark.parametrize("value", [None, "a", np.array([1.0, 2.0]), True, 10**400, b"1"], ids=str)
def test_a_volatility_is_a_number(value: Any) -> None:
    refused(lambda: Thresholds().resolved(value), "atr_7d=")


def test_meta_is_a_copy() -> None:
    given = {"study": {"trials": [1]}}
    made = Thresholds(meta=given)
    given["study"]["trials"].append(2)
    assert made.meta == {"study": {"trials": [1]}}


@pytest.mark.parametrize("path", [None, 5, b"x", ["a"], "a\0b", "x" * 5000], ids=lambda value: repr(value)[:9])
def test_a_path_is_a_path(path: Any) -> None:
    refused(lambda: Thresholds.load(path), "path=")


@pytest.mark.parametrize("name", ["t.json", "t.JSON", "t.toml"])
def test_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    text = "tp_mult = 2.0" if name == "t.toml" else '{"tp_mult": 2.0}'
    path.write_text(text, encoding="utf-8-sig")
    assert Thresholds.load(path) == Thresholds(tp_mult=2.0)
    for bad in (DEEP.encode(), b"x = " + DEEP.encode(), b"\xff\xfe", b"{", b"", b" \r\n"):
        path.write_bytes(bad)
        refused(lambda: Thresholds.load(path), "path=")


# --- replay and the engine ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [compute_features, Prepared])
def test_a_spec_is_a_spec(candles: pd.DataFrame, result: Result, call: Any) -> None:
    refused(lambda: call(candles, spec=5), "spec=5", "FeatureSpec")
    refused(lambda: replay(candles, spec=5, features=result.features), "spec=5")  # type: ignore[arg-type]
    refused(lambda: Prepared(candles, spec=5, features=result.features), "spec=5")  # type: ignore[arg-type]


@pytest.mark.parametrize("interval", [[], {}, None, 5, np.array(["1m"])], ids=repr)
def test_an_interval_is_a_name(interval: Any) -> None:
    refused(lambda: Engine("SOLUSDT", interval=interval), "interval=")
    refused(lambda: AssetMonitorStage1(interval=interval), "interval=")


@pytest.mark.parametrize("time", [np.array([1, 2]), np.array([1.5]), [1], pd.NaT, np.bool_(True)], ids=repr)
def test_a_time_is_one_time(time: Any) -> None:
    refused(lambda: to_ms(time), "time=")


def test_a_reference_of_words_is_refused(candles: pd.DataFrame) -> None:
    words = pd.Series("a", candles.index)
    refused(lambda: replay(candles, reference=words), "reference")


@pytest.mark.parametrize("value", [10**400, np.complex128(1), "1", True, None], ids=lambda value: repr(value)[:9])
@pytest.mark.parametrize("field", ["open", "close", "volume"])
def test_a_candle_holds_numbers(field: str, value: Any) -> None:
    candle = dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0) | {"timestamp": 1_736_000_040_000}
    refused(lambda: Engine("SOLUSDT").push({**candle, field: value}), f"candle.{field}=")


@pytest.mark.parametrize(
    ("highs", "lows", "name"),
    [
        ("a", "b", "highs='a'"),
        ([2.0], ["1"], "lows="),
        ([math.inf], [1.0], "highs="),
        ([[2.0]], [[1.0]], "highs="),
        ([[1], [1, 2]], [1], "highs="),
        ([True], [True], "highs="),
        ([2.0], [0.0], "lows="),
        ([1.0], [2.0], "highs, lows="),
        ([2.0, 2.0], [1.0], "highs, lows="),
    ],
)
def test_days_are_prices(highs: Any, lows: Any, name: str) -> None:
    refused(lambda: Engine("SOLUSDT").seed_days(highs, lows, "2025-01-01"), name)


def _blob(change: Any = None, state: Any = None) -> bytes:
    """A snapshot whose head or state was changed and whose checksum is right again."""
    whole = Engine("SOLUSDT").snapshot()
    start = len(b"AIONE-ENGINE\n") + 32
    size = int.from_bytes(whole[start : start + 4], "big")
    head, rest = json.loads(whole[start + 4 : start + 4 + size]), whole[start + 4 + size :]
    text = change(head) if change else json.dumps(head).encode()
    body = len(text).to_bytes(4, "big") + text + (state(rest) if state else rest)
    return whole[: start - 32] + hashlib.sha256(body).digest() + body


def without(name: str) -> Any:
    return lambda head: json.dumps({key: value for key, value in head.items() if key != name}).encode()


def having(**values: Any) -> Any:
    return lambda head: json.dumps({**head, **values}).encode()


@pytest.mark.parametrize(
    "blob",
    [
        lambda: _blob(lambda head: b"{"),
        lambda: _blob(lambda head: b"\xff"),
        lambda: _blob(lambda head: b"[]"),
        lambda: _blob(lambda head: DEEP.encode()),
        lambda: _blob(without("symbol")),
        lambda: _blob(having(spec=[1])),
        lambda: _blob(having(costs=5)),
        lambda: _blob(having(layout=-1)),
        lambda: _blob(state=lambda state: state[:-1]),
        lambda: _blob(state=lambda state: b""),
        lambda: _blob(state=lambda state: state * 2),
    ],
)
def test_a_snapshot_with_a_right_checksum_may_still_be_none(blob: Any) -> None:
    assert Engine.restore(_blob()).snapshot() == Engine("SOLUSDT").snapshot()
    refused(lambda: Engine.restore(blob()))


# --- results -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", ["a", -1, 1.5, math.nan, None, True, [1]], ids=repr)
def test_a_seed_is_an_integer(result: Result, seed: Any) -> None:
    refused(lambda: random_entries(result, 2, seed), "seed=")


@pytest.mark.parametrize("n_draws", [0, 100_001, 1.0, "5", True, None])
def test_draws_are_counted(result: Result, n_draws: Any) -> None:
    refused(lambda: random_entries(result, n_draws), "n_draws=", "100000")


@pytest.mark.parametrize("other", [None, 5, {}])
def test_random_entries_replace_those_of_a_result(other: Any) -> None:
    refused(lambda: random_entries(other), "result=", "Result")


def test_metrics_cannot_be_changed(result: Result, candles: pd.DataFrame) -> None:
    for metrics in (result.metrics, Prepared(candles).evaluate([Thresholds()])[0].metrics):
        before = dict(metrics)
        for change in (
            lambda m: m.__setitem__("n_trades", 99),
            lambda m: m.update(n_trades=99),
            lambda m: m.__ior__({"n_trades": 99}),
            lambda m: m.setdefault("x", 1),
            lambda m: m.pop("n_trades"),
            lambda m: m.__delitem__("n_trades"),
            lambda m: m.popitem(),
            lambda m: m.clear(),
        ):
            with pytest.raises(TypeError, match="cannot be changed"):
                change(metrics)
        assert json.dumps(metrics) == json.dumps(before) == json.dumps(pickle.loads(pickle.dumps(metrics)))
        assert pd.DataFrame({"one": metrics})["one"]["n_trades"] == before["n_trades"]
