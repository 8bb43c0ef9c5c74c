"""``aione-lab calibrate`` as a shell sees it: verdicts, promotion, repetition, refusals and Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from aione_lab.calibration import many
from aione_lab.calibration.ledger import Ledger
from aione_lab.lake.simulated import Effect, SimulatedExchange, SymbolSpec
from aione_lab.lake.store import Lake
from aione_lab.thresholds.store import ThresholdStore
from tests.cli_runs import Ran, Run, refused
from tests.cli_runs import run as run  # a fixture
from tests.forkserver import PROCESSES

FEW = ("--trials", "20", "--n-folds", "3", "--min-trades", "10", "--search", "vol_z_threshold")
FEW = (*FEW, "--search", "min_confidence", "--reference", "none")
PROGRAM = (sys.executable, "-c", "from aione_lab.cli import main; main()")
WORDS = ("accept", "keep defaults", "not enough trades")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LINKUSDT rebounds enough to be accepted in 24 days, SOLUSDT is a martingale; XRPUSDT has candles of 5m only."""
    rest: dict[str, Any] = {"atr": 0.0012, "correlation": 0.3, "turnover": 2e5, "tick": 0.001, "lot": 0.01}
    effect = Effect(kind="rebound", size_atr=12.0, volume_z=4.0, falls_per_day=10.0)
    specs = (
        SymbolSpec(symbol="LINKUSDT", price=20, effect=effect, **rest),
        SymbolSpec(symbol="SOLUSDT", price=190, **rest),
    )
    exchange = SimulatedExchange(seed=1, symbols=specs)
    lake = Lake(tmp_path_factory.mktemp("calibrate") / "lake")
    for name in ("LINKUSDT", "SOLUSDT"):
        lake.append(name, "1m", exchange.candles(name, days=24))
        lake.append_funding(name, exchange.funding(name, days=24))
    return Path(lake.root)


@pytest.fixture
def call(run: Run, filled: Path, tmp_path: Path) -> Run:
    """``aione-lab calibrate`` on the lake, with studies in the test's own folder."""

    def made(*arguments: object, lake: Path = filled) -> Ran:
        return run("calibrate", *arguments, "--lake", lake, "--experiments", tmp_path / "studies")

    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- one symbol --------------------------------------------------------------------------------------------------


def test_one_symbol_is_told_with_its_verdict_first_and_stays_in_its_folder(call: Run, tmp_path: Path) -> None:
    ran = call("SOLUSDT", *FEW, "--name", "first")
    assert ran.code == 0 and ran.err == ""
    lines = [line for line in ran.out.splitlines() if line]
    assert lines[0].startswith("SOLUSDT 1m: ") and ("Keep the default" in lines[0] or "Not enough" in lines[0])
    assert "20 trials" in lines[1] and "net of costs" in ran.out and "vol_z_threshold" in ran.out
    place = tmp_path / "studies" / "first"
    assert lines[-1] == f"study: {place}"
    assert {"experiment.json", "ledger.json", "results.json", "study.sqlite3"} <= set(names(place))
    assert "hidden.json" not in names(place) and not (tmp_path / "studies" / "thresholds").exists()
    again = call("SOL/USDT:USDT", *FEW, "--name", "first")  # only read back in
    assert again == ran
    assert len(optuna.load_study(study_name=None, storage=f"sqlite:///{place / 'study.sqlite3'}").trials) == 20


def test_json_is_one_document_with_the_results(call: Run, tmp_path: Path) -> None:
    ran = call("SOLUSDT", *FEW, "--json", "--metric", "expectancy", "--metric", "max_drawdown")
    assert ran.code == 0 and ran.err == ""
    told = json.loads(ran.out)
    (place,) = (tmp_path / "studies").glob("SOLUSDT-1m-*")
    kept = json.loads((place / "results.json").read_text())
    assert told["folder"] == str(place) and told["hidden"] == {} == told["promoted"]
    assert {name: told[name] for name in kept} == kept and told["verdict"] in WORDS
    assert json.loads((place / "experiment.json").read_text())["metric"] == ["expectancy", "max_drawdown"]


def test_reveal_scores_the_hidden_days_once(call: Run, tmp_path: Path) -> None:
    first = json.loads(call("SOLUSDT", *FEW, "--reveal", "--json", "--name", "one").out)
    hidden = first["hidden"]["SOLUSDT"]
    assert hidden["fresh"] and hidden["metrics"]["n_days"] == 5 and hidden["verdict"] == first["verdict"]
    assert json.loads(call("SOLUSDT", *FEW, "--reveal", "--json", "--name", "one").out) == first
    other = call("SOLUSDT", *FEW, "--seed", 1, "--reveal", "--name", "two")
    assert other.code == 0 and "hidden days, SOLUSDT: " in other.out and "one had seen these days" in other.out


def test_what_is_accepted_is_promoted_and_what_is_not_says_why(call: Run, tmp_path: Path) -> None:
    ran = call("LINKUSDT", *FEW, "--trials", 40, "--promote")
    assert ran.code == 0, ran
    assert "LINKUSDT 1m: Accept: " in ran.out and "Accept holds: " in ran.out
    assert f"\nLINKUSDT: promoted to {tmp_path / 'studies' / 'thresholds'}, in force until 20" in ran.out
    store = ThresholdStore(tmp_path / "studies")
    assert names(tmp_path / "studies" / "thresholds") == ["LINKUSDT.json"] or store.symbols() == ["LINKUSDT"]
    assert store.current("LINKUSDT").source == "calibrated"
    again = call("LINKUSDT", *FEW, "--trials", 40, "--promote")
    assert again.code == 0 and "\nLINKUSDT: in force already, until 20" in again.out
    assert len(store.history("LINKUSDT")) == 1
    ran = call("SOLUSDT", *FEW, "--promote")
    assert ran.code == 1 and ran.err == "" and "\nSOLUSDT: not promoted: " in ran.out
    ran = call("SOLUSDT", *FEW, "--promote", "--json")
    told = json.loads(ran.out)
    assert ran.code == 1 and told["promoted"]["SOLUSDT"].startswith("not promoted: ")
    assert told["hidden"] == {}  # nothing was spent on it
    assert store.symbols() == ["LINKUSDT"]


def test_a_study_that_grows_says_so(call: Run) -> None:
    assert call("SOLUSDT", *FEW, "--name", "one").err == ""
    ran = call("SOLUSDT", *FEW, "--name", "one", "--trials", 40)
    assert ran.code == 0 and "goes on from 20 to 40 trials" in ran.err
    ran = call("SOLUSDT", *FEW, "--name", "one")
    assert ran.code == 2 and "--trials" in ran.err and "at least 40" in ran.err and "another name" in ran.err
    told = json.loads(call("SOLUSDT", *FEW[2:], "--name", "one", "--json").out)  # left out: those it has
    assert json.loads((Path(told["folder"]) / "experiment.json").read_text())["n_trials"] == 40


def test_a_new_study_is_told_from_the_last_one_that_can_be_read_and_only_when_it_begins(
    call: Run, tmp_path: Path
) -> None:
    assert call("SOLUSDT", *FEW).err == ""
    broken = tmp_path / "studies" / "SOLUSDT-1m-00000000"
    broken.mkdir()
    (broken / "experiment.json").write_text("{")
    ran = call("SOLUSDT", *FEW, "--seed", 1)
    assert ran.code == 0 and ran.err.startswith("this is a new study; ") and "seed: 0 became 1" in ran.err
    refused(call("SOLUSDT", *FEW, "--seed", 2, "--n-folds", 40), "n-folds")  # one line
    refused(call("SOLUSDT", *FEW, "--name", broken.name), f"{broken}/experiment.json: is no experiment")


def test_search_takes_names_and_ranges(call: Run, tmp_path: Path) -> None:
    few = ("--trials", 20, "--n-folds", 3, "--reference", "none", "--json")
    ran = call(
        "SOLUSDT", *few, "--search", "tp_mult=1:3:0.5", "--search", "sl_mult=0.5:2", "--search", "min_confidence"
    )
    assert ran.code == 0, ran
    (place,) = (tmp_path / "studies").glob("SOLUSDT-*")
    space = json.loads((place / "experiment.json").read_text())["space"]
    assert (
        space["tp_mult"] == [1.0, 3.0, 0.5]
        and space["sl_mult"][:2] == [0.5, 2.0]
        and set(space) == {"tp_mult", "sl_mult", "min_confidence"}
    )


# --- several symbols ---------------------------------------------------------------------------------------------


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of several symbols without their imports; tests/calibration/test_many.py has them as they are."""
    monkeypatch.setattr(many.multiprocessing, "get_context", lambda method: PROCESSES)


def test_several_symbols_and_all_of_them(call: Run, forked: None, tmp_path: Path) -> None:
    ran = call("SOLUSDT", "LINKUSDT", "SOLUSDT", *FEW, "--workers", 2)
    assert ran.code == 0 and ran.err == ""
    rows = [line.split()[0] for line in ran.out.splitlines() if line.strip().startswith(("SOLUSDT ", "LINKUSDT "))]
    assert rows == ["SOLUSDT", "LINKUSDT"] and ran.out.index("\nSOLUSDT: ") < ran.out.index("\nLINKUSDT: ")
    every = call("--all", *FEW, "--workers", 1, "--json")
    told = json.loads(every.out)
    assert every.code == 0 and every.err == "" and told["failed"] == {}
    assert [one["symbols"] for one in told["studies"]] == [["LINKUSDT"], ["SOLUSDT"]]
    assert all(Path(one["folder"]).is_dir() and one["digest"] for one in told["studies"])
    assert len([path for path in (tmp_path / "studies").iterdir() if path.is_dir()]) == 2  # the same studies


def test_a_symbol_that_fails_is_told_and_the_others_are_studied(
    run: Run, filled: Path, forked: None, tmp_path: Path
) -> None:
    lake = Lake(shutil.copytree(filled, tmp_path / "lake"))
    lake.append("XRPUSDT", "1m", lake.candles("SOLUSDT", "1m").iloc[:2_000])
    place = ("--lake", lake.root, "--experiments", tmp_path / "studies")
    ran = run("calibrate", "XRPUSDT", "SOLUSDT", *FEW, *place, "--workers", 1)
    assert ran.code == 1 and ran.err.startswith("XRPUSDT: failed: ") and ran.err.count("\n") == 1
    assert "\nSOLUSDT: " in ran.out
    ran = run("calibrate", "XRPUSDT", "SOLUSDT", *FEW, *place, "--workers", 1, "--json")
    told = json.loads(ran.out)
    assert ran.code == 1 and ran.err == "" and list(told["failed"]) == ["XRPUSDT"] and len(told["studies"]) == 1
    assert not list((tmp_path / "studies").glob("XRP*"))


def test_a_pool_is_one_study_with_a_row_a_symbol(call: Run, tmp_path: Path) -> None:
    ran = call("SOLUSDT", "LINKUSDT", *FEW, "--pool")
    assert ran.code == 0 and ran.err == ""
    assert "LINKUSDT, SOLUSDT 1m: " in ran.out and "deviates" in ran.out
    ran = call("LINKUSDT", "SOLUSDT", *FEW, "--pool", "--promote", "--json")  # in another order: the same study
    told = json.loads(ran.out)
    assert told["symbols"] == ["LINKUSDT", "SOLUSDT"] and set(told["promoted"]) == {"SOLUSDT", "LINKUSDT"}
    promoted = [name for name, what in told["promoted"].items() if what == "promoted"]
    assert ThresholdStore(tmp_path / "studies").symbols() == sorted(promoted)
    assert ran.code == (0 if promoted else 1)
    assert len(list((tmp_path / "studies").glob("POOL*"))) == 1


# --- an experiment's file ----------------------------------------------------------------------------------------


def test_an_experiment_is_repeated_and_told_apart_from_one_on_other_data(
    run: Run,
    call: Run,
    filled: Path,
    tmp_path: Path,
) -> None:
    assert call("SOLUSDT", *FEW, "--name", "kept").code == 0
    place = tmp_path / "studies" / "kept"
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    rows = Ledger(tmp_path / "studies").entries("SOLUSDT").n_trials
    ran = run("calibrate", "--experiment", place / "experiment.json", "--lake", filled)
    assert (
        ran.code == 0
        and ran.err == ""
        and ran.out.endswith("Repeated bit for bit: every trial and the verdict are the same.\n")
    )
    lake = Lake(shutil.copytree(filled, tmp_path / "lake"))
    candles = lake.candles("SOLUSDT", "1m")
    candles.iloc[5_000:7_000, candles.columns.get_loc("volume")] *= 4
    lake.append("SOLUSDT", "1m", candles)
    ran = run("calibrate", "--experiment", place, "--lake", lake.root)  # its folder does as well
    assert ran.code == 1 and ran.err == ""
    assert ran.out.endswith("Not the same study: what changed is data: the candles, funding or reference are others.\n")
    ran = run("calibrate", "--experiment", place / "experiment.json", "--lake", lake.root, "--json")
    told = json.loads(ran.out)
    assert ran.code == 1 and told["same"] is False and told["differences"][0].startswith("data: ")
    assert told["verdict"] in WORDS
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert Ledger(tmp_path / "studies").entries("SOLUSDT").n_trials == rows


def test_a_file_that_is_no_experiment_is_refused(run: Run, filled: Path, tmp_path: Path) -> None:
    bad = tmp_path / "experiment.json"
    for text in ("", "{", "[]", '{"symbols": ["../x"]}', '{"symbols": []}', "\0"):
        bad.write_text(text)
        refused(run("calibrate", "--experiment", bad, "--lake", filled))
    refused(run("calibrate", "--experiment", tmp_path / "none.json", "--lake", filled), "none.json")
    refused(run("calibrate", "--experiment", tmp_path, "SOLUSDT", "--lake", filled), "--experiment")
    refused(run("calibrate", "--experiment", tmp_path, "--all", "--lake", filled), "--experiment")
    for option in (("--promote",), ("--reveal",), ("--pool",), ("--name", "x")):
        refused(run("calibrate", "--experiment", bad, *option, "--lake", filled), option[0])
    assert names(tmp_path) == ["experiment.json"]


# --- refusals ----------------------------------------------------------------------------------------------------

SOL = ("SOLUSDT", "--trials", "20", "--n-folds", "3")
BOTH = ("LINKUSDT", *SOL)
BAD = [
    ("--all", (), "SYMBOL"),
    ("--all", ("SOLUSDT", "--all"), "--all"),
    ("no such symbol", ("NOSUCHUSDT",), "NOSUCHUSDT"),
    ("one of three", ("SOLUSDT", "LINKUSDT", "NOSUCHUSDT"), "NOSUCHUSDT"),
    ("hostile symbol", ("../x",), "../x"),
    ("no interval", (*SOL, "--interval", "7m"), "--interval"),
    ("no such candles", (*SOL, "--interval", "5m"), "5m"),
    ("few trials", (*SOL, "--trials", "19"), "--trials"),
    ("trials in words", (*SOL, "--trials", "many"), "--trials"),
    ("many trials", (*SOL, "--trials", "100001"), "--trials"),
    ("metric", (*SOL, "--metric", "luck"), "luck"),
    ("metric twice", (*SOL, "--metric", "sharpe", "--metric", "sharpe"), "sharpe"),
    ("no field", (*SOL, "--search", "tp_mlt"), "tp_mult"),
    ("half a range", (*SOL, "--search", "tp_mult=1"), "tp_mult"),
    ("range in words", (*SOL, "--search", "tp_mult=a:b"), "a:b"),
    ("upside down", (*SOL, "--search", "tp_mult=3:1"), "tp_mult"),
    ("four ends", (*SOL, "--search", "tp_mult=1:2:3:4"), "tp_mult"),
    ("nan", (*SOL, "--search", "tp_mult=nan:2"), "tp_mult"),
    ("twice", (*SOL, "--search", "tp_mult=1:2", "--search", "tp_mult=1:3"), "already"),
    ("folds", (*SOL, "--folds", "random"), "random"),
    ("one fold", (*SOL, "--n-folds", "1"), "--n-folds"),
    ("forty folds", (*SOL, "--n-folds", "40"), "n-folds"),
    ("hidden", (*SOL, "--hidden", "0.9"), "hidden"),
    ("hidden nan", (*SOL, "--hidden", "nan"), "hidden"),
    ("nothing hidden", (*SOL, "--hidden", "0", "--reveal"), "--reveal"),
    ("nothing hidden decides", (*SOL, "--hidden", "0", "--promote"), "--promote"),
    ("no trades", (*SOL, "--min-trades", "0"), "--min-trades"),
    ("sampler", (*SOL, "--sampler", "grid"), "grid"),
    ("seed", (*SOL, "--seed", "-1"), "seed"),
    ("fee", (*SOL, "--fee", "2"), "--fee"),
    ("settings", (*SOL, "--settings", "/nowhere/settings.toml"), "--settings"),
    ("no time", (*SOL, "--start", "soon"), "soon"),
    ("backwards", (*SOL, "--start", "2025-01-20", "--end", "2025-01-10"), "2025-01-20"),
    ("too short", (*SOL, "--start", "2025-01-20"), "days"),
    ("the future", (*SOL, "--start", "2031-01-01"), "2031"),
    ("reference", (*SOL, "--reference", "../x"), "reference"),
    ("reference not there", (*SOL, "--reference", "FOOUSDT"), "--reference='FOOUSDT'"),
    ("a pool of one", (*SOL, "--pool"), "--pool"),
    ("name above", (*SOL, "--name", "../x"), "--name="),
    ("no name", (*SOL, "--name", ""), "name="),
    ("a dot", (*SOL, "--name", "."), "name="),
    ("long name", (*SOL, "--name", "n" * 101), "name="),
    ("a path", (*SOL, "--name", "a/b"), "name="),
    ("an escape", (*SOL, "--name", "x\x1b[2J"), "name="),
    ("where promoted sets are", (*SOL, "--name", "thresholds"), "name="),
    ("where promoted sets are, to some", (*SOL, "--name", "Thresholds"), "name="),
    ("where the ledger is", (*SOL, "--name", "ledger.sqlite3"), "name="),
    ("where SQLite writes", (*SOL, "--name", "ledger.sqlite3-journal"), "name="),
    ("a name for two", (*BOTH, "--name", "both"), "--name"),
    ("promote two", (*BOTH, "--promote"), "--promote"),
    ("reveal two", (*BOTH, "--reveal"), "--reveal"),
    ("no workers", (*BOTH, "--workers", "0"), "workers"),
    ("two with few trials", (*BOTH, "--trials", "3"), "--trials"),
    ("two upside down", (*BOTH, "--search", "tp_mult=3:1"), "tp_mult"),
    ("two in one fold", (*BOTH, "--n-folds", "1"), "--n-folds"),
    ("two too short", (*BOTH, "--start", "2025-01-20"), "days"),
    ("two by luck", (*BOTH, "--metric", "luck"), "luck"),
    ("two on a grid", (*BOTH, "--sampler", "grid"), "grid"),
    ("two soon", (*BOTH, "--start", "soon"), "soon"),
    ("two against x", (*BOTH, "--reference", "../x"), "reference"),
]


@pytest.mark.parametrize(("arguments", "word"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_is_one_line_and_leaves_nothing(
    call: Run, tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    refused(call(*arguments), word)
    assert names(tmp_path) == []


def test_names_of_what_is_no_study_are_refused_and_left_alone(call: Run, tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    (studies / "photos").mkdir(parents=True)
    (studies / "photos" / "one.png").write_text("{}")
    (studies / "ledger").write_text("x")
    for name in ("photos", "ledger"):
        refused(call("SOLUSDT", *FEW, "--name", name), name)
    assert (studies / "photos" / "one.png").read_text() == "{}" and names(studies) == ["ledger", "photos"]
    assert names(studies / "photos") == ["one.png"]


@pytest.mark.parametrize("mine", [".git", "experiment.json.bak", ".env"])
def test_a_folder_with_anything_in_it_stays_as_it_is(call: Run, tmp_path: Path, mine: str) -> None:
    place = tmp_path / "studies" / "mine"
    place.mkdir(parents=True)
    (place / mine).write_text("x")
    refused(call("SOLUSDT", *FEW, "--name", "mine"), "--name", "other files")
    assert names(place) == [mine] and (place / mine).read_text() == "x"


def test_a_name_is_one_study_s(call: Run, tmp_path: Path) -> None:
    assert call("SOLUSDT", *FEW, "--name", "it").code == 0
    kept = {path.name: path.read_bytes() for path in (tmp_path / "studies" / "it").iterdir()}
    refused(call("SOLUSDT", *FEW, "--name", "it", "--seed", 1), "seed: 0 became 1", "take another name")
    refused(call("LINKUSDT", *FEW, "--name", "it"), "symbols")
    assert {path.name: path.read_bytes() for path in (tmp_path / "studies" / "it").iterdir()} == kept


def test_folders_that_cannot_be_are_refused(run: Run, filled: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for folder in (file, "n" * 300, "/proc/x"):
        refused(run("calibrate", "SOLUSDT", *FEW, "--lake", filled, "--experiments", folder))
    refused(run("calibrate", "SOLUSDT", *FEW, "--lake", tmp_path / "none"), "--lake")
    assert names(tmp_path) == ["file"]


# --- Ctrl-C ------------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_what_was_committed_and_the_same_command_goes_on(call: Run, filled: Path, tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    arguments = ["SOLUSDT", *FEW, "--trials", "600", "--sampler", "random", "--name", "long"]
    command = [*PROGRAM, "calibrate", *arguments, "--lake", filled, "--experiments", studies]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    database = f"sqlite:///{studies / 'long' / 'study.sqlite3'}"
    until = time.monotonic() + 90
    while not trials(studies / "long") and time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "interrupted; what was committed before stays\n"
    done = optuna.load_study(study_name=None, storage=database).get_trials()
    assert len(done) % 20 == 0 and 20 <= len(done) < 600 and all(trial.state.is_finished() for trial in done)
    assert call(*arguments).code == 0
    after = optuna.load_study(study_name=None, storage=database).get_trials()
    assert len(after) == 600 and [trial.params for trial in after[: len(done)]] == [trial.params for trial in done]


def trials(place: Path) -> bool:
    """Whether a first batch is on disk."""
    file = place / "study.sqlite3"
    if not file.exists():
        return False
    with sqlite3.connect(file) as connection:
        return connection.execute("SELECT count(*) FROM trials").fetchone()[0] > 0


def test_ctrl_c_ends_the_processes_of_several_symbols(filled: Path, tmp_path: Path) -> None:
    """The signal goes to the whole foreground group, as from a terminal."""
    studies = tmp_path / "studies"
    arguments = ["SOLUSDT", "LINKUSDT", *FEW, "--trials", "3000", "--workers", "2"]
    command = [*PROGRAM, "calibrate", *arguments, "--lake", filled, "--experiments", studies]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 90
    while time.monotonic() < until and process.poll() is None:
        if studies.exists() and sum(map(trials, studies.glob("*-1m-*"))) == 2:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)  # returns when nobody holds its output any more
    assert (process.returncode, out, err) == (130, "", "interrupted; what was committed before stays\n")
    assert sum(map(trials, studies.glob("*-1m-*"))) == 2
