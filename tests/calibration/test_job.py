"""From a queue to the threshold store: real small studies of a simulated lake, one with an effect and one without."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from aione_lab.calibration import (
    CalibrationOutcome,
    CalibrationQueue,
    CalibrationRequest,
    FoldPlan,
    Promoter,
    QueueSettings,
    calibrate_job,
    promote,
)
from aione_lab.calibration.experiment import Experiment
from aione_lab.errors import InputError, LakeError
from aione_lab.lake.simulated import Effect, SimulatedExchange, SymbolSpec
from aione_lab.lake.store import Lake
from aione_lab.thresholds.params import Thresholds
from aione_lab.thresholds.store import ThresholdStore
from tests.calibration.queue_tools import Assets, run

SMALL: dict[str, Any] = {
    "n_trials": 40,
    "space": ("vol_z_threshold", "min_confidence"),
    "folds": FoldPlan(n_folds=3),
    "min_trades": 10,
}
LAZY = {"atr": 0.0012, "correlation": 0.3, "turnover": 2e5}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """LINKUSDT rebounds enough to be accepted in 24 days, SOLUSDT is a martingale, ETHUSDT two days old."""
    effect = Effect(kind="rebound", size_atr=12.0, volume_z=4.0, falls_per_day=10.0)
    symbols = (
        SymbolSpec(symbol="LINKUSDT", price=20, tick=0.001, lot=0.01, effect=effect, **LAZY),
        SymbolSpec(symbol="SOLUSDT", price=190, tick=0.001, lot=0.01, **LAZY),
        SymbolSpec(symbol="ETHUSDT", price=3_300, tick=0.01, lot=0.001, **LAZY),
    )
    exchange = SimulatedExchange(seed=1, symbols=symbols)
    made = Lake(tmp_path_factory.mktemp("job") / "lake")
    for symbol, days in (("LINKUSDT", 24), ("SOLUSDT", 24), ("ETHUSDT", 2)):
        made.append(symbol, "1m", exchange.candles(symbol, days=days))
        made.append_funding(symbol, exchange.funding(symbol, days=days))
    return made


@pytest.fixture(scope="module")
def defaults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a default set for LINKUSDT alone."""
    folder = tmp_path_factory.mktemp("defaults")
    (folder / "LINKUSDT.json").write_text(json.dumps(Thresholds(sl_mult=1.75).to_json()))
    return folder


def asked(symbol: str, **options: Any) -> CalibrationRequest:
    return CalibrationRequest(symbol, "1m", {**SMALL, **options})


def quiet(done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def accepted(lake: Lake, defaults: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CalibrationOutcome, Path]:
    """One accepted outcome, found in this process, and the folder of its study."""
    folder = tmp_path_factory.mktemp("accepted")
    told: list[tuple[int, int]] = []
    options = {"defaults_dir": str(defaults), "min_bars": 24 * 1_440, "optuna_timeout": 60.0}
    outcome = calibrate_job(
        asked("LINKUSDT", **options), lambda *one: told.append(one), lake=lake.root, folder=str(folder)
    )
    assert told == [(0, 40), (20, 40), (40, 40)]
    return outcome, folder


def test_the_queue_promotes_what_is_accepted_and_nothing_else(
    lake: Lake, defaults: Path, accepted: tuple[CalibrationOutcome, Path], tmp_path: Path
) -> None:
    store, assets = ThresholdStore(tmp_path), Assets()
    job = functools.partial(calibrate_job, lake=lake.root, folder=str(tmp_path))
    settings = QueueSettings(max_concurrent=1, min_bars=20_000, defaults_dir=str(defaults))

    async def scenario() -> None:
        queue = CalibrationQueue(job, settings, Promoter(store), options=SMALL, state_manager=assets)
        async with queue:
            for symbol in ("LINKUSDT", "SOLUSDT", "ETHUSDT"):
                await queue.put(symbol, "1m")
            await queue.start_workers()
            await queue.join()
            assert queue.metrics["tasks_completed"] == 2 and queue.metrics["tasks_failed"] == 1
            assert "min_bars=20000: ETHUSDT has 2,880 1m candles in the lake" in queue.progress["ETHUSDT 1m"]["note"]

    run(scenario)
    assert [assets.of(symbol)[-1] for symbol in ("LINKUSDT", "SOLUSDT", "ETHUSDT")] == [
        "completed",
        "completed",
        "error",
    ]
    assert store.symbols() == ["LINKUSDT"] and [symbol for symbol, _ in assets.calibrations] == ["LINKUSDT"]
    entry, outcome = store.entry("LINKUSDT"), accepted[0]
    assert entry is not None
    found = {name: value for name, value in entry.thresholds.to_json().items() if name != "meta"}
    assert found == outcome.thresholds  # as in this process
    (place,) = tmp_path.glob("LINKUSDT-1m-*")
    made = Experiment.load(place / "experiment.json")
    kept = entry.stamp
    assert (kept.study, kept.verdict, kept.seed) == (place.name, "accept", 0)
    assert (kept.start, kept.end) == (made.start, made.end) and kept.spec_digest == made.spec.digest()
    assert kept.data_fingerprint == made.data["LINKUSDT"] and kept.versions == made.versions
    assert kept.costs == made.costs
    assert kept.sentence.startswith("Accept: ") and "Accept holds: " in kept.sentence
    current = store.current("LINKUSDT")
    assert current.source == "calibrated" and current.thresholds.sl_mult == 1.75  # the default set's own field
    assert store.current("SOLUSDT").source != "calibrated"
    assert (place / "hidden.json").exists() and not list(tmp_path.glob("SOLUSDT-*/hidden.json"))
    assert not list(tmp_path.glob("ETHUSDT*"))


def test_the_set_of_defaults_dir_is_what_is_searched_from_and_an_own_base_goes_before_it(
    lake: Lake, defaults: Path, accepted: tuple[CalibrationOutcome, Path], tmp_path: Path
) -> None:
    outcome, folder = accepted
    (place,) = folder.glob("LINKUSDT-*")
    assert Experiment.load(place / "experiment.json").default.sl_mult == 1.75 == outcome.thresholds["sl_mult"]
    for symbol, more, expected in (
        ("LINKUSDT", {"base": Thresholds(sl_mult=0.9)}, 0.9),
        ("SOLUSDT", {}, Thresholds().sl_mult),
    ):
        request = asked(symbol, **{"defaults_dir": str(defaults), "n_trials": 20, **more})
        calibrate_job(request, quiet, lake=lake.root, folder=str(tmp_path))
        (place,) = tmp_path.glob(f"{symbol}-*")
        assert math.isclose(Experiment.load(place / "experiment.json").default.sl_mult, expected)


def test_without_reveal_the_hidden_days_stay_hidden(
    lake: Lake, defaults: Path, accepted: tuple[CalibrationOutcome, Path], tmp_path: Path
) -> None:
    outcome = calibrate_job(
        asked("LINKUSDT", defaults_dir=str(defaults)), quiet, lake=lake.root, folder=str(tmp_path), reveal=False
    )
    assert outcome.accepted and outcome.thresholds == accepted[0].thresholds
    assert accepted[0].sentence.startswith(outcome.sentence) and "hidden" not in outcome.sentence
    assert not list(tmp_path.glob("*/hidden.json"))
    whole = calibrate_job(
        asked("LINKUSDT", folds=FoldPlan(n_folds=3, hidden=0.0)), quiet, lake=lake.root, folder=str(tmp_path)
    )
    assert "hidden" not in whole.sentence  # there is nothing to look at, and nothing fails for that


def test_what_was_not_accepted_cannot_be_promoted(lake: Lake, tmp_path: Path) -> None:
    outcome = calibrate_job(asked("SOLUSDT"), quiet, lake=lake.root, folder=str(tmp_path))
    store = ThresholdStore(tmp_path)
    assert not outcome.accepted
    with pytest.raises(InputError, match="only an accepted set is promoted"):
        promote(store, outcome)
    assert store.symbols() == [] and not (tmp_path / "thresholds").exists()


def test_a_study_that_is_in_force_is_not_promoted_again(
    accepted: tuple[CalibrationOutcome, Path], tmp_path: Path
) -> None:
    outcome, store = accepted[0], ThresholdStore(tmp_path)
    first = promote(store, outcome)
    assert promote(store, outcome) == first and len(store.history("LINKUSDT")) == 1
    other = dataclasses.replace(outcome, provenance={**outcome.provenance, "study": "another"})
    assert promote(store, other).number == 2  # new evidence, though it is the same set
    store.expire("LINKUSDT")
    assert promote(store, other).number == 3


def test_options_that_are_none_are_refused_where_they_are_given(lake: Lake) -> None:
    job = functools.partial(calibrate_job, lake=lake.root)
    for option, words in (("n_trails", "did you mean 'n_trials'"), ("folder", "unknown"), ("interval", "unknown")):
        with pytest.raises(InputError, match=f"options='{option}'.*{words}"):
            CalibrationQueue(job, options={option: 5})
        with pytest.raises(InputError, match=f"options='{option}'.*{words}"):
            job(asked("LINKUSDT", **{option: 5}), quiet)
    CalibrationQueue(job, options=SMALL)
    CalibrationQueue(len, options={"anything": 5})  # a job of one's own knows what it takes


@pytest.mark.parametrize(
    ("text", "word"), [("{", "is no JSON"), ('{"tp_mlt": 1}', "tp_mult"), ('{"tp_mult": -1}', "tp_mult")]
)
def test_a_bad_file_of_defaults_and_a_lake_without_the_symbol_are_refused(
    lake: Lake, tmp_path: Path, text: str, word: str
) -> None:
    (tmp_path / "LINKUSDT.json").write_text(text)
    with pytest.raises(InputError, match=word) as error:
        calibrate_job(
            asked("LINKUSDT", defaults_dir=str(tmp_path)), quiet, lake=lake.root, folder=str(tmp_path / "studies")
        )
    assert "LINKUSDT.json" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(LakeError, match="no 1m candles of DOTUSDT"):
        calibrate_job(asked("DOTUSDT", min_bars=5), quiet, lake=lake.root, folder=str(tmp_path / "studies"))
    assert not (tmp_path / "studies").exists()
