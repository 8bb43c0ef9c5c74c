"""A study as a whole: refused in one line, the same everywhere, repeated bit for bit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aione_lab.calibration import Calibration, FoldPlan, experiment, repeat
from aione_lab.calibration.experiment import held
from aione_lab.calibration.ledger import Ledger
from aione_lab.calibration.report import page
from aione_lab.calibration.run import entered
from aione_lab.errors import AioneError, InputError
from aione_lab.files import write_whole
from aione_lab.lake.store import Lake
from aione_lab.settings import Settings
from aione_lab.thresholds import Thresholds
from tests.calibration.conftest import SPACE, copied
from tests.calibration.plain import TWINS

Study = Callable[..., Calibration]


def files(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()} - {".lock"}


# --- refusals ----------------------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], str]] = [
    ({"symbol": "../x"}, "symbol='../x'"),
    ({"symbol": 5}, "symbol=5"),
    ({"symbol": "ADAUSDT"}, "no 1m candles of ADAUSDT"),
    ({"lake": "x"}, "lake='x'"),
    ({"interval": "7m"}, "interval='7m'"),
    ({"interval": "1h"}, "interval='1h': signals need one of 1m, 3m, 5m, 15m"),
    ({"interval": ["1m"]}, "interval="),
    ({"interval": "5m"}, "no 5m candles"),
    ({"start": "abc"}, "start='abc'"),
    ({"start": math.nan}, "start=nan"),
    ({"start": "2030-01-01"}, "start='2030-01-01'"),
    ({"end": "2020-01-01"}, "end='2020-01-01'"),
    ({"start": "2025-01-10", "end": "2025-01-05"}, "start='2025-01-10'"),
    ({"start": "2025-01-15"}, "too few"),
    ({"reference": 5}, "reference=5"),
    ({"n_trials": 19}, "n_trials=19"),
    ({"n_trials": True}, "n_trials=True"),
    ({"n_trials": 10**9}, "n_trials=1000000000"),
    ({"sampler": "cma"}, "sampler='cma'"),
    ({"seed": -1}, "seed=-1"),
    ({"seed": None}, "seed=None"),
    ({"min_trades": 0}, "min_trades=0"),
    ({"metric": "profit"}, "metric='profit'"),
    ({"metric": [["a"]]}, "metric="),
    ({"space": ["tp_mutl"]}, "did you mean 'tp_mult'"),
    ({"space": {"min_reasons_for_alert": (1, 4)}}, "holds 4 sets, at least 6"),
    ({"space": {"rsi_oversold": (15, 80), "rsi_overbought": (55, 85)}}, "less than rsi_overbought"),
    ({"base": "x"}, "base='x'"),
    ({"folds": "walk"}, "folds='walk'"),
    ({"folds": 5}, "folds=5"),
    ({"folds": FoldPlan(n_folds=40)}, "n_folds=40"),
    ({"folds": FoldPlan(hidden=0.8)}, "too few"),
    ({"folds": FoldPlan(scheme="combinatorial", n_test=7)}, "n_test=7"),
    ({"folds": FoldPlan(scheme="combinatorial", n_folds=3, embargo_days=99)}, "embargo_days=99"),
    ({"spec": 5}, "spec=5"),
    ({"settings": 5}, "settings=5"),
    ({"costs": 5}, "costs=5"),
    ({"folder": 5}, "folder=5"),
    ({"name": "../x"}, "name='../x'"),
    ({"name": "a\n"}, "name="),
    ({"name": 5}, "name=5"),
    ({"progress": 5}, "progress=5"),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=lambda value: str(value)[:40])
def test_a_refused_call_leaves_nothing_behind(changes: dict[str, Any], words: str, small: Study, tmp_path) -> None:
    folder = tmp_path / "experiments"
    with pytest.raises(AioneError, match=words.replace("[", r"\[")) as error:
        small(**{"folder": folder, **changes})
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert not folder.exists()


def test_what_fails_later_leaves_nothing_behind_either(small: Study, lake: Lake, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="folder="):
        small(folder=tmp_path / "file")
    holes = copied(lake, tmp_path / "lake", lambda _, frame: pd.concat([frame[:1], frame[-3 * 1440 :]]))
    with pytest.raises(InputError, match="holds no 1m candles") as error:  # but hidden ones
        small(lake=holes, start="2025-01-02", folds=FoldPlan(n_folds=2), folder=tmp_path / "experiments", name="x")
    assert "\n" not in str(error.value) and not list((tmp_path / "experiments").iterdir())


def test_two_sides_of_one_folder(small: Study, worker, tmp_path) -> None:
    place = tmp_path / "x"
    place.mkdir()
    with held(place):
        with pytest.raises(InputError, match="worked on by another process") as error:
            small(folder=tmp_path, name="x")
        assert "\n" not in str(error.value) and files(place) == set()
        other = worker(tmp_path, name="x")
        _, err = other.communicate(timeout=300)
        assert other.returncode == 1 and "InputError: name='x': is being worked on" in err.splitlines()[-1]
    study = small(folder=tmp_path, name="x")
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    for changes, words in [
        ({"seed": 1}, r"seed: 0 became 1"),
        ({"settings": Settings(max_holding_minutes=60)}, r"settings.max_holding_minutes: 240 became 60;?"),
        ({"space": SPACE[:3]}, r"space.tp_mult|space.sl_mult"),
        ({"metric": "sharpe"}, "metric"),
        ({"n_trials": 20}, "n_trials=20"),
    ]:
        with pytest.raises(InputError, match=words) as error:
            small(folder=tmp_path, name="x", **changes)
        assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert small(folder=tmp_path, name="x").digest == study.digest


# --- the same everywhere -----------------------------------------------------------------------------------------


def test_one_digest_in_two_processes_on_one_and_two_threads_with_and_without_a_folder(
    study: Calibration, small: Study, interpreter, tmp_path
) -> None:
    counts = [{"NUMBA_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": n, "PYTHONHASHSEED": n} for n in ("1", "2")]
    one = interpreter(None, threads=1, env=counts[0])
    two = interpreter(tmp_path, threads=2, env={**counts[1], "TZ": "Asia/Tokyo"})
    for process in (one, two):
        out, err = process.communicate(timeout=300)
        assert out.split() == [study.digest], err
    small("SOLUSDT", folder=tmp_path)  # another symbol in the same ledger is nobody's business
    assert small(folder=tmp_path, name="again").digest == study.digest
    kept = [json.loads((place / "results.json").read_text())["digest"] for place in tmp_path.glob("LINK*")]
    assert kept == [study.digest]


def test_a_study_that_grows_is_the_long_one(study: Calibration, small: Study, tmp_path) -> None:
    short = small(folder=tmp_path, name="x", n_trials=25)
    assert short.ledger.n_trials == len(short.sets)
    for name in ("results.json.99.new", "study.sqlite3.12.new", "study.sqlite3.12.new-journal"):
        (tmp_path / "x" / name).write_text("left by a killed process")
    assert small(folder=tmp_path, name="x").digest == study.digest
    assert files(tmp_path / "x") == {
        "experiment.json",
        "study.sqlite3",
        "results.json",
        "ledger.json",
        "report.html",
    }


@pytest.mark.parametrize("name", ["experiment.json", "ledger.json", "results.json"])
def test_killed_as_it_grows_it_is_the_short_study_or_the_long_one(
    study: Calibration, lake: Lake, small: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """``name`` is the file that is not written any more."""
    short = small(folder=tmp_path, name="x", n_trials=25)

    def killed(target: Path, content: bytes) -> None:
        if target.name == name:
            raise KeyboardInterrupt
        write_whole(target, content)

    monkeypatch.setattr(experiment, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        small(folder=tmp_path, name="x")
    monkeypatch.undo()
    if name == "ledger.json":
        with pytest.raises(InputError, match="was stopped as it grew; run it again"):
            repeat(tmp_path / "x", lake)
    found = small(folder=tmp_path, name="x", n_trials=None)
    assert found.digest == (short if name == "experiment.json" else study).digest
    assert small(folder=tmp_path, name="x").digest == study.digest


def test_a_fresh_database_beside_an_old_experiment_is_filled_again(study: Calibration, small: Study, tmp_path) -> None:
    small(folder=tmp_path, name="x")
    (tmp_path / "x" / "study.sqlite3").unlink()
    assert small(folder=tmp_path, name="x").digest == study.digest
    (tmp_path / "x" / "study.sqlite3").write_text("broken")
    for name, words in (("study.sqlite3", "no Optuna database"), ("ledger.json", r"^/.*x/ledger.json: cannot be read")):
        (tmp_path / "x" / name).write_text("broken")
        with pytest.raises(InputError, match=words) as error:
            small(folder=tmp_path, name="x")
        assert "\n" not in str(error.value)
        (tmp_path / "x" / name).unlink()
    assert small(folder=tmp_path, name="x").digest == study.digest


# --- the ledger and repeating ------------------------------------------------------------------------------------


def test_an_experiment_is_repeated_bit_for_bit_although_the_ledger_has_grown(lake, small: Study, tmp_path) -> None:
    first = small(folder=tmp_path, name="first")
    second = small(folder=tmp_path, name="second", seed=1, n_trials=60)
    assert second.ledger.n_trials > len(second.sets) and second.ledger.n_trials > first.ledger.n_trials
    again = entered(Ledger(tmp_path), first, "third")[first.symbol]
    assert again.n_trials == second.ledger.n_trials  # repeats are not counted
    for path in (tmp_path / "first", tmp_path / "first" / "experiment.json"):
        found = repeat(path, lake)
        assert found.same and not found.differences and found.study.sentence == first.sentence
        assert "bit for bit" in found.sentence and found.study.digest == first.digest
    assert small(folder=tmp_path, name="first").digest == first.digest  # also where it goes on
    assert repeat(tmp_path / "second", lake).same

    path = tmp_path / "first" / "experiment.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "code": "0" * 64, "versions": {**kept["versions"], "numba": "0.1"}}))
    found = repeat(path, lake)
    assert found.same and "code: aione_lab is another; numba: 0.1 became" in found.sentence
    path.write_text(json.dumps({**kept, "seed": 7}))
    found = repeat(path, lake)
    assert not found.same and found.sentence.startswith("Not the same study")


def test_other_candles_are_named(lake: Lake, small: Study, tmp_path) -> None:
    def nudged(symbol: str, frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.copy()
        if symbol == "LINKUSDT":
            frame.iloc[9000 : 9000 + len(factors), frame.columns.get_loc("volume")] *= factors
        return frame

    factors = [1 + 1e-12]

    small(folder=tmp_path, name="x")
    other = copied(lake, tmp_path / "lake", nudged)
    factors *= 0
    factors += [3.0, 7.0] * 500
    third = copied(lake, tmp_path / "third", nudged)
    before = {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()}
    found = repeat(tmp_path / "x", other)
    assert found.same and "(although data: the candles, funding or reference are others)" in found.sentence
    found = repeat(tmp_path / "x", third)
    assert not found.same and found.sentence == (
        "Not the same study: what changed is data: the candles, funding or reference are others."
    )
    for changed in (other, third):
        with pytest.raises(
            InputError, match=r"name='x': the study in .*/x was .* other candles.* of LINKUSDT .*name for"
        ):
            small(lake=changed, folder=tmp_path, name="x")
    assert {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()} == before


def test_what_cannot_be_repeated_is_refused(lake: Lake, small: Study, tmp_path) -> None:
    small(folder=tmp_path, name="x")
    place = tmp_path / "x"
    for name, text in [("ledger.json", "{}"), ("ledger.json", "["), ("results.json", "3"), ("experiment.json", "{}")]:
        kept = (place / name).read_text()
        (place / name).write_text(text)
        with pytest.raises(InputError) as error:
            repeat(place, lake)
        assert "\n" not in str(error.value)
        (place / name).write_text(kept)
    (place / "results.json").unlink()
    for path, other in [(place, lake), (tmp_path / "none", lake), (5, lake), (place, "lake")]:
        with pytest.raises(InputError):
            repeat(path, other)  # type: ignore[arg-type]


# --- what a study shows ------------------------------------------------------------------------------------------


def test_short_spans_of_every_scheme_are_judged_or_refused(small: Study) -> None:
    for n_days in (6, 7, 8, 9, 10, 12):
        plan = FoldPlan(scheme="combinatorial", n_folds=2, n_test=1, embargo_days=0, hidden=0)
        arguments: dict[str, Any] = {"end": f"2025-01-{n_days + 1:02d}", "folds": plan, "n_trials": 20}
        if n_days < 10:
            with pytest.raises(InputError, match=f"{n_days} days to search are too few .* at least 10"):
                small(**arguments)
            continue
        found = small(**arguments)
        assert found.folds.n_days == n_days and found.verdict in ("keep defaults", "not enough trades")
        json.dumps(dict(found.results), allow_nan=False)


def test_a_study_that_never_trades_keeps_the_defaults(small: Study) -> None:
    """Also where nothing ever moved: no NaN slips through as good."""
    space = {"min_confidence": (0.999, 1.0, 0.0001)}
    found = small(space=space, base=Thresholds(min_reasons_for_alert=11), metric=list(TWINS))
    assert found.tables.trades.sum() == 0
    assert found.verdict == "not enough trades" and found.sentence.startswith("Not enough trades: only 0")
    assert math.isnan(found.deflated_sharpe) and math.isnan(found.pbo)
    assert np.isfinite(found.trials[list(TWINS)].to_numpy()).all()
    json.dumps(dict(found.results), allow_nan=False)
    assert found.reveal().verdict == "not enough trades"
    for text in (str(found), page(found), found.reveal().sentence):
        assert not re.search(r"\bnan\b", re.sub("<script.*?</script>", "", text, flags=re.DOTALL), re.IGNORECASE)
