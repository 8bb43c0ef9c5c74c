"""``aione-lab demo``, ``lab`` and ``doctor`` as a shell sees them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aione_lab import Lake
from aione_lab.cli import lab
from tests.cli_runs import Run, refused
from tests.cli_runs import exchange as exchange  # fixtures
from tests.cli_runs import filled as filled
from tests.cli_runs import lake_copy as lake_copy
from tests.cli_runs import run as run


@pytest.mark.parametrize("shown", [3, pytest.param(4, marks=pytest.mark.long)])
def test_demo_twice_gives_the_same_duplicates_nothing_and_leaves_the_default_lake_alone(
    shown: int, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first three symbols have each kind of truth; the fourth is another with nothing in it."""
    from aione_lab.cli import demo

    monkeypatch.setattr(demo, "DAYS", 30)
    monkeypatch.setattr(demo, "TRIALS", 20)
    monkeypatch.setattr(demo, "SHOWN", demo.SHOWN[:shown])
    monkeypatch.chdir(tmp_path)
    first = run("demo")
    assert first.code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["experiments"]  # the default lake is left alone
    folder = tmp_path / "experiments" / "demo"
    for word in (f"{43_200 * (1 + shown):,} candles new", "LINKUSDT", "a planted rebound", "a planted breakout",
                 "nothing is planted", "Triggers", "Factors", "BUY", "report.html", "Next:", "truth a trade",
                 "long only (Settings.allow_shorts is off)",
                 "a single alert proves nothing", "starting capital 10,000 USDT"):  # fmt: skip
        assert word in first.out, word
    files = sorted(str(path) for path in folder.rglob("*"))
    page = (folder / "report.html").read_text()
    told = run("demo", "--dir", folder, "--json")
    assert told.code == 0
    again = json.loads(told.out)
    assert [one["symbol"] for one in again["replays"]] == list(demo.SHOWN) and len(demo.SHOWN) == shown
    assert [one["truth"]["effect"] is None for one in again["replays"]] == [False, False, True, True][:shown]
    assert all(audit["verdict"] == "clean" and audit["rows"] == 43200 for audit in again["audits"])
    assert sorted(str(path) for path in folder.rglob("*")) == files
    assert (folder / "report.html").read_text() == page
    assert [path.name for path in tmp_path.iterdir()] == ["experiments"]


def test_a_range_within_the_warm_up_is_called_that(run: Run, filled: Path) -> None:
    ran = run("replay", "SOLUSDT", "--lake", filled, "--end", "2025-01-01T12:00")
    assert ran.code == 0 and "All 720 candles went into warm-up" in ran.out
    assert "profit factor" not in ran.out and "nan" not in ran.out
    ran = run("replay", "SOLUSDT", "--lake", filled, "--end", "2025-01-02T00:30")
    assert "All but 31 minutes of the 1,470 candles went into warm-up" in ran.out


def test_the_demo_names_a_program_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aione_lab.cli.demo import started_as

    program = tmp_path / "a place" / "aione-lab"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho here")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "demo"])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    ran = subprocess.run(started_as(), shell=True, capture_output=True, text=True, check=True)
    assert ran.stdout == "here\n"
    monkeypatch.setenv("PATH", str(program.parent))
    assert started_as() == "aione-lab"
    monkeypatch.setattr(sys, "argv", ["-c", "demo"])
    assert started_as() == str(Path(sys.executable).with_name("aione-lab"))


def test_lab_starts_this_environments_jupyterlab(
    run: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(lab.os, "execv", lambda program, command: started.append([program, *command]))
    monkeypatch.chdir(tmp_path)
    assert run("lab", "--port", "8899", "--no-browser").code == 0
    (program, *command) = started[0]
    assert program == command[0] == sys.executable and command[1:3] == ["-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={root / 'notebooks'}" in command
    assert "--ServerApp.port=8899" in command and "--no-browser" in command
    refused(run("lab", tmp_path / "none"), "no such folder")
    refused(run("lab", "--port", "99999"), "99999")
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda name: None)
    refused(run("lab"), "aione-lab[lab]")
    assert len(started) == 1


def test_doctor_finds_a_sound_and_a_damaged_lake(run: Run, lake_copy: Path, tmp_path: Path) -> None:
    ran = run("doctor", "--lake", lake_copy)
    assert ran.code == 0 and "3 symbols" in ran.out and "files sound" in ran.out
    file = Path(Lake(lake_copy).files("SOLUSDT", "1m")[0])
    file.write_bytes(file.read_bytes()[:-1])
    ran = run("doctor", "--lake", lake_copy, "--json")
    told = json.loads(ran.out)
    assert ran.code == 1 and not told["ok"] and file.name in ran.err
    assert [check["name"] for check in told["checks"] if check["state"] == "problem"] == ["lake files"]
    empty = run("doctor", "--lake", tmp_path / "none", "--json")
    assert empty.code == 0 and not (tmp_path / "none").exists()
