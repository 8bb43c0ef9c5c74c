"""Own triggers and factors: what a declaration accepts, what it computes, and that it carries its identity."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pandas as pd
import pytest
from engine_runs import SMALL, walk, with_gap

from aione_lab.engine import Engine, Factor, FeatureSpec, Trigger
from aione_lab.engine.custom_run import custom_run, run_features
from aione_lab.engine.records import FACTORS, FEATURE_NAMES, FEATURE_STATE, REASONS
from aione_lab.engine.rings import empty_ring
from aione_lab.errors import InputError
from aione_lab.thresholds import Search, Thresholds, search_space
from tests.custom_examples import (
    FUNDING_PRESSURE,
    LOUD,
    SPEC,
    SQUEEZE_RELEASE,
    WICKS,
    WINDOW,
    quiet_step,
    ref_funding,
    ref_squeeze,
    wick_step,
)

OWN = SPEC.feature_names[len(FEATURE_NAMES) :]
WORKS = {"name": "LOUDER", "step": quiet_step, "state": [("quiet", "i8")], "threshold": 1.0, "search": (0.0, 5.0, 1.0)}
JIT_OFF = bool(numba.config.DISABLE_JIT)
COMPILED = pytest.mark.skipif(JIT_OFF, reason="nothing is compiled: numpy's numbers divide by zero without an error")


def features(bars: np.ndarray, spec: FeatureSpec = SPEC, interval: str = "1m") -> pd.DataFrame:
    from aione_lab.engine import bulk

    states, ring = np.zeros(1, FEATURE_STATE), empty_ring()
    bulk.start_features(states, ring)
    return pd.DataFrame(run_features(states, ring, bars, spec, interval).T, columns=list(spec.feature_names))


# ---- what is computed --------------------------------------------------------------------------


def test_names_and_columns():
    assert SPEC.reasons == (*REASONS, "SQUEEZE_RELEASE", "LOUD")
    assert SPEC.factor_names == (*FACTORS, "funding_pressure", "wicks")
    assert OWN == (
        "funding_pressure_continuation", "funding_pressure_reversal", "wicks_continuation", "wicks_reversal",
        "squeeze_release", "loud",
    )  # fmt: skip
    plain = FeatureSpec()
    assert (plain.reasons, plain.factor_names, plain.feature_names) == (REASONS, FACTORS, FEATURE_NAMES)


def test_numbers_are_those_of_the_definition():
    bars = walk(1500, seed=3)
    found = features(bars)
    ranges = (bars["high"] - bars["low"]).tolist()
    np.testing.assert_allclose(found["squeeze_release"], ref_squeeze(ranges, found["atr"].tolist()), rtol=1e-12)
    pressure = ref_funding(bars["funding_rate"].tolist())
    np.testing.assert_allclose(found["funding_pressure_reversal"], pressure, rtol=1e-15)
    assert np.nanmax(np.abs(pressure)) > 0.5 and found["squeeze_release"].max() > 1.6
    loud = bars["volume"] > found["volume_mean"]
    since = np.arange(len(bars)) - np.maximum.accumulate(np.where(loud, np.arange(len(bars)), -1))
    np.testing.assert_array_equal(found["loud"], since)
    top, bottom = np.maximum(bars["open"], bars["close"]), np.minimum(bars["open"], bars["close"])
    height = bars["high"] - bars["low"]
    with np.errstate(invalid="ignore"):
        wicks = np.where(height > 0, (bottom - bars["low"] - (bars["high"] - top)) / height, 0.0)
    np.testing.assert_allclose(found["wicks_reversal"], np.clip(1.5 * wicks, -1, 1), atol=1e-12)
    np.testing.assert_allclose(found["wicks_continuation"], 0.5 * wicks, atol=1e-12)


def test_built_in_features_do_not_change():
    bars = walk(800, seed=4)
    both = features(bars)[list(FEATURE_NAMES)]
    assert both.to_numpy().tobytes() == features(bars, FeatureSpec()).to_numpy().tobytes()


def test_a_gap_empties_the_memory():
    bars = with_gap(walk(700, seed=5), 400, 3)
    whole, after = features(bars)[list(OWN)], features(bars[400:])[list(OWN)]
    assert whole[400:].to_numpy().tobytes() == after.to_numpy().tobytes()
    assert whole["squeeze_release"][400 : 400 + WINDOW].isna().all()
    unbroken = features(walk(700, seed=5))[list(OWN)]
    assert whole[:400].to_numpy().tobytes() == unbroken[:400].to_numpy().tobytes()


@numba.njit
def vandal_step(memory, bar, row):
    """Writes where it must not."""
    row.rsi = 0.0
    row.volume_mean = 1e9
    bar.close = 1.0
    return row.rsi


def test_a_step_cannot_change_what_others_see():
    bars = walk(300, seed=6)
    kept = bars.copy()
    vandal = Trigger(name="VANDAL", step=vandal_step, threshold=0.0, search=(0.0, 1.0, 0.1))
    found = features(bars, FeatureSpec(triggers=(vandal,)))
    assert bars.tobytes() == kept.tobytes()
    assert found[list(FEATURE_NAMES)].to_numpy().tobytes() == features(kept, FeatureSpec()).to_numpy().tobytes()


@numba.njit
def nested_step(memory, bar, row):
    """Every kind of field, at every depth."""
    memory.inner.marks[0] = 1 - memory.inner.marks[0]
    memory.tiny += 1
    memory.inner.deep.sums[1, 2] += bar.close
    return memory.inner.deep.sums[1, 2] / memory.tiny + memory.inner.marks[0]


def test_memory_of_any_shape():
    inner = np.dtype([("marks", "i1", (3,)), ("deep", [("sums", "f8", (2, 3))])])
    own = Trigger(
        name="NESTED", step=nested_step, state=[("tiny", "u1"), ("inner", inner)], threshold=1.0, search=(0.0, 9.0, 1.0)
    )
    bars = walk(200, seed=7)[:100]
    means = np.cumsum(bars["close"]) / np.arange(1, 101) + np.arange(1, 101) % 2
    np.testing.assert_allclose(features(bars, FeatureSpec(triggers=(own,)))["nested"], means, rtol=1e-12)


@pytest.mark.skipif(JIT_OFF, reason="the JIT is off in this process already")
def test_same_bytes_without_jit(tmp_path):
    out = tmp_path / "plain.npy"
    script = (
        "import sys, numpy as np; sys.path[:0] = [sys.argv[2], sys.argv[3]];"
        "from test_custom import features, short_bars, SMALL_SPEC;"
        "np.save(sys.argv[1], features(short_bars(), SMALL_SPEC, '15m').to_numpy())"
    )
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", script, str(out), str(here), str(here.parent.parent)],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert np.load(out).tobytes() == features(short_bars(), SMALL_SPEC, "15m").to_numpy().tobytes()


SMALL_SPEC = SMALL.replace(triggers=SPEC.triggers, factors=SPEC.factors)


def short_bars() -> np.ndarray:
    return with_gap(walk(260, "15m", seed=8), 100, 2)


# ---- identity ----------------------------------------------------------------------------------


def test_without_own_ones_nothing_says_so():
    assert "triggers" not in FeatureSpec().model_dump() and "factors" not in FeatureSpec().model_dump(mode="json")
    assert FeatureSpec(triggers=(), factors=()).digest() == FeatureSpec().digest()
    assert Thresholds().digest() == Thresholds(custom={}).digest() and "custom" not in Thresholds().every_field()


def test_replace_keeps_them_and_equal_declarations_are_equal():
    again = SPEC.replace(rsi_window=20)
    assert again.triggers == SPEC.triggers and again.factors == SPEC.factors and again != SPEC
    assert again.replace(rsi_window=14) == SPEC and hash(again.replace(rsi_window=14)) == hash(SPEC)
    assert SPEC.digest() != FeatureSpec().digest() != SPEC.replace(factors=()).digest()
    copy = pickle.loads(pickle.dumps(SPEC))
    assert copy == SPEC and copy.digest() == SPEC.digest()
    assert Trigger(**WORKS) == Trigger(**{**WORKS, "description": "other words", "phrase": {"en": "loud"}})
    for change in ({"threshold": 2.0}, {"relation": "<="}, {"state": [("quiet", "i4")]}, {"search": (0.0, 6.0, 1.0)}):
        assert Trigger(**{**WORKS, **change}) != Trigger(**WORKS), change


def step_of(text: str, **around: object) -> object:
    """A compiled step from source that an editor would have changed."""
    names: dict[str, object] = {"numba": numba, "math": math, **around}
    exec(f"def step(memory, bar, row):\n    {text}", names)
    return numba.njit(names["step"])


def test_an_edited_step_is_another_one():
    def digest(text: str, **around: object) -> str:
        return FeatureSpec(triggers=(Trigger(**{**WORKS, "step": step_of(text, **around)}),)).digest()

    assert digest("return row.rsi") == digest("return row.rsi")
    assert digest("return row.rsi") != digest("return row.atr") != digest("return row.atr + 1.0")
    # So is one whose constants or helpers have changed.
    assert digest("return scale * row.rsi", scale=2.0) != digest("return scale * row.rsi", scale=3.0)
    one, other = (step_of(f"return row.rsi + {x}") for x in (1.0, 2.0))
    inner = "return inner(memory, bar, row)"
    assert digest(inner, inner=one) == digest(inner, inner=step_of("return row.rsi + 1.0"))
    assert digest(inner, inner=one) != digest(inner, inner=other)
    table = np.arange(3.0)
    assert digest("return table[0]", table=table) != digest("return table[0]", table=table + 1)


# ---- thresholds --------------------------------------------------------------------------------


def test_thresholds_of_own_triggers_in_json():
    made = Thresholds(tp_mult=2.0, custom={"SQUEEZE_RELEASE": 2, "LOUD": np.float64(1.5)})
    flat = made.to_json()
    assert flat == {"tp_mult": 2.0, "custom.SQUEEZE_RELEASE": 2.0, "custom.LOUD": 1.5}
    assert Thresholds.from_json(flat) == made and Thresholds.from_json(flat).to_json() == flat
    assert made.replace(sl_mult=2.0).custom == made.custom and made != made.replace(custom={})
    assert Thresholds(custom={"A1": 1.0, "B1": 2.0}) == Thresholds(custom={"B1": 2.0, "A1": 1.0})
    assert made.every_field()["custom.LOUD"] == 1.5 and pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(TypeError):
        made.custom["LOUD"] = 3.0


@pytest.mark.parametrize(
    "custom",
    [{"LOUD": math.nan}, {"LOUD": math.inf}, {"LOUD": "1"}, {"LOUD": True}, {"loud": 1.0}, {1: 1.0}, [("LOUD", 1)], 3],
)
def test_bad_thresholds_of_own_triggers(custom):
    with pytest.raises(InputError, match=r"^Thresholds\.custom"):
        Thresholds(custom=custom)


def test_search_space():
    space = search_space(SPEC)
    assert list(space)[-2:] == ["custom.SQUEEZE_RELEASE", "custom.LOUD"]
    assert space["custom.SQUEEZE_RELEASE"] == Search(1.2, 4.0, 0.1)
    assert space["low_gate"] == Search(0.2, 1.2, 0.05, "atr_7d")
    assert list(search_space()) == [name for name in Thresholds.model_fields if name not in ("meta", "custom")]
    for name, search in space.items():
        assert Thresholds.from_json({name: f"{search.low}x" if search.multiple_of else search.low})
    with pytest.raises(InputError, match="spec="):
        search_space(3)


# ---- what is refused ---------------------------------------------------------------------------


@numba.njit(fastmath=True)
def fast_step(memory, bar, row):
    return row.rsi


@numba.njit
def two_arguments(memory, bar):
    return bar.close


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"name": "louder"}, "Trigger.name='louder': must be 2 to 40 capital letters"),
        ({"name": "VOLUME_SPIKE"}, "is taken by a built-in reason"),
        ({"name": "RSI"}, "is taken by a built-in"),
        ({"step": 3}, "must be a function compiled by numba.njit"),
        ({"step": two_arguments}, "must take three arguments: memory, bar, row"),
        ({"state": "f8"}, "must have named fields"),
        ({"state": [("mean", "f8")]}, "field 'mean' needs another name"),
        ({"state": [("inner", [("shape", "f8")])]}, "field 'shape' needs another name"),
        ({"state": [("a b", "f8")]}, "field 'a b' needs another name"),
        ({"state": [("thing", "O")]}, "fields must be integers or floats"),
        ({"state": [("text", "U5")]}, "fields must be integers or floats"),
        ({"state": [("yes", "?", (3,))]}, "fields must be integers or floats"),
        ({"state": object()}, "must be a numpy dtype"),
        ({"threshold": math.nan}, "Trigger.threshold=nan"),
        ({"threshold": math.inf}, "Trigger.threshold=inf"),
        ({"threshold": "5"}, "Trigger.threshold='5': must be a number"),
        ({"search": (5.0, 1.0, 1.0)}, "low must be less than high"),
        ({"search": (1.0, 5.0, 0.0)}, "step must be positive"),
        ({"search": (1.0, 5.0)}, "Trigger.search"),
        ({"relation": ">"}, "Trigger.relation='>'"),
        ({"phrase": {"de": "laut"}}, "'de' is no language of the narrative"),
        ({"phrase": {"en": "{name}"}}, "only {value} and {limit}"),
        ({"phrase": {"en": "{value"}}, "only {value} and {limit}"),
        ({"phrase": {"en": "{value.real.__class__}"}}, "only {value} and {limit}"),
        ({"phrase": {"en": ""}}, "must be one line of text"),
        ({"phrase": {"en": "a\nb"}}, "must be one line of text"),
        ({"treshold": 1.0}, "did you mean 'threshold'?"),
    ],
)  # fmt: skip
def test_bad_triggers(change, line):
    with pytest.raises(InputError) as caught:
        Trigger(**{**WORKS, **change})
    assert line in str(caught.value) and "\n" not in str(caught.value)


@COMPILED
@pytest.mark.parametrize("step", [fast_step, lambda memory, bar, row: 1.0])
def test_steps_that_are_not_compiled_strictly(step):
    with pytest.raises(InputError, match=r"Trigger\.step=.*compiled"):
        Trigger(**{**WORKS, "step": step})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"name": "Wicks"}, "small letters"),
        ({"name": "macd"}, "is taken by a built-in"),
        ({"name": "relative"}, "is taken by a built-in"),  # relative_strength is a number of every alert
        ({"weight": 0.0}, "Factor.weight=0.0"),
        ({"weight": -1.0}, "Factor.weight=-1.0"),
        ({"names": {"en": " "}}, "must be one line of text"),
    ],
)
def test_bad_factors(change, line):
    with pytest.raises(InputError) as caught:
        Factor(**{"name": "wicks", "step": wick_step, "weight": 0.1, **change})
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"triggers": (LOUD, LOUD)}, "'loud' is there twice"),
        ({"triggers": (LOUD,), "factors": (WICKS, WICKS)}, "'wicks_continuation' is there twice"),
        ({"triggers": (Trigger(**{**WORKS, "name": "WICKS_REVERSAL"}),), "factors": (WICKS,)}, "is there twice"),
        ({"triggers": tuple(Trigger(**{**WORKS, "name": f"T{i}"}) for i in range(5))}, "at most 4"),
        ({"triggers": LOUD}, "FeatureSpec.triggers"),
        ({"triggers": (WICKS,)}, "FeatureSpec.triggers"),
        ({"triggers": ("LOUD",)}, "FeatureSpec.triggers"),
        ({"factors": (LOUD,)}, "FeatureSpec.factors"),
    ],
)
def test_bad_specs(fields, line):
    with pytest.raises(InputError) as caught:
        FeatureSpec(**fields)
    assert line in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("return 1.0, 2.0", "must return one number, not (1.0, 2.0)"),
        ("pass", "must return one number, not None"),
        ("return row.rsy", "step failed on a first bar"),
        pytest.param("return 1.0 / memory.quiet", "ZeroDivisionError", marks=COMPILED),
    ],
)
def test_steps_that_do_not_work(text, line):
    spec = FeatureSpec(triggers=(Trigger(**{**WORKS, "step": step_of(text)}),))
    with pytest.raises(InputError) as caught:
        custom_run(spec)
    assert line in str(caught.value) and "trigger LOUDER" in str(caught.value) and "\n" not in str(caught.value)


def test_a_factor_returns_a_pair():
    spec = FeatureSpec(factors=(Factor(name="alone", step=step_of("return 1.0"), weight=0.1),))
    with pytest.raises(InputError, match="factor alone.*pair of numbers"):
        custom_run(spec)


# ---- live --------------------------------------------------------------------------------------


def candle(bar: np.void) -> dict:
    return {name: bar[name].item() for name in ("timestamp", "open", "high", "low", "close", "volume")}


@numba.njit
def failing_step(memory, bar, row):
    """Divides by zero on the third bar."""
    memory.quiet += 1
    return 1.0 / (3 - memory.quiet)


@COMPILED
def test_an_engine_is_as_before_where_a_step_fails():
    spec = FeatureSpec(triggers=(Trigger(**{**WORKS, "step": failing_step}),))
    engine, bars = Engine("SOLUSDT", spec=spec), walk(200, seed=9)
    for bar in bars[:2]:
        engine.push(candle(bar))
    before = engine.snapshot()
    with pytest.raises(InputError, match="LOUDER"):
        engine.push(candle(bars[2]))
    assert engine.snapshot() == before and engine.last_time == bars["timestamp"][1]


def test_restoring_needs_the_declarations():
    engine = Engine("SOLUSDT", Thresholds(custom={"LOUD": 2.0}), spec=SPEC)
    for bar in walk(200, seed=9)[:50]:
        event = engine.push(candle(bar))
    assert event.features["loud"] == event.feature_record["loud"][0]
    assert list(event.features) == list(SPEC.feature_names)
    blob = engine.snapshot()
    assert Engine.restore(blob, spec=SPEC).snapshot() == blob
    with pytest.raises(InputError, match=r"SQUEEZE_RELEASE.*restore\(blob, spec="):
        Engine.restore(blob)
    for other in (SPEC.replace(factors=()), SPEC.replace(triggers=(SQUEEZE_RELEASE,)), FeatureSpec()):
        with pytest.raises(InputError, match="differs from the one that the snapshot was made with"):
            Engine.restore(blob, spec=other)
    plain = Engine("SOLUSDT").snapshot()
    assert Engine.restore(plain, spec=FeatureSpec()).snapshot() == plain
    with pytest.raises(InputError, match="triggers"):
        Engine.restore(plain, spec=SPEC)
    with pytest.raises(InputError, match="spec="):
        Engine.restore(plain, spec=3)


def test_names_that_the_spec_does_not_have():
    with pytest.raises(InputError, match=r"LOUT.*did you mean 'LOUD'"):
        Engine("SOLUSDT", Thresholds(custom={"LOUT": 2.0}), spec=SPEC)
    with pytest.raises(InputError, match="declares no trigger of its own"):
        Engine("SOLUSDT", Thresholds(custom={"LOUD": 2.0}))
    engine = Engine("SOLUSDT", spec=SPEC)
    with pytest.raises(InputError, match="did you mean"):
        engine.thresholds = Thresholds(custom={"LOUDNESS": 2.0})
    engine.thresholds = Thresholds(custom={"LOUD": 2.0})
    assert FUNDING_PRESSURE.weight == 0.2
