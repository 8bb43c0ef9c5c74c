"""The benchmarks run and report what they measured; no figure is judged here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import timing
from benchmarks.__main__ import PARTS
from benchmarks.report import markdown

MACHINE = {
    "processor": "one",
    "cores": 2,
    "pinned_to_one_core": True,
    "load_average_before": 0.1,
    "system": "Linux",
    "python": "3.11",
    "packages": {"numpy": "2", "vectorbt": None},
    "yardstick_ms": 2.0,
}


def run(root: Path, out: Path, parts: list[str]) -> dict:
    """The JSON of a quick run in a process of its own: it pins itself to one core."""
    kept = {path: path.read_bytes() for path in (root / "benchmarks" / "results").glob("*")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--only", *parts, "--out", str(out)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (out / "speed.md").read_text(encoding="utf-8").strip() == done.stdout.strip()
    assert {path: path.read_bytes() for path in (root / "benchmarks" / "results").glob("*")} == kept
    return json.loads((out / "speed.json").read_text(encoding="utf-8"))


def check(report: dict, root: Path) -> None:
    assert report["bars"] == 12 * 1440
    assert len({(row["group"], row["what"]) for row in report["rows"]}) == len(report["rows"])
    for row in report["rows"]:
        assert 0 < row["low"] <= row["median"] <= row["high"] < math.inf, row
        assert row["repeats"] >= 1 and row["yardsticks"] is None or row["yardsticks"] > 0
    text = json.dumps(report)
    assert str(root) not in text and str(Path.home()) not in text


def test_parts_that_are_quick(root: Path, tmp_path: Path) -> None:
    report = run(root, tmp_path, ["stages", "features", "lake", "live"])
    check(report, root)
    assert len(report["rows"]) == 5 + 3 + 3 + 4


@pytest.mark.long
def test_every_part(root: Path, tmp_path: Path) -> None:
    report = run(root, tmp_path, list(PARTS))
    check(report, root)
    assert any("vectorbt from_signals" in row["what"] for row in report["rows"])


def test_row_states_median_range_and_ratio() -> None:
    row = timing.row("g", "w", [0.004, 0.002, 0.009], unit="ms", per=2, suffix=" a set", yard=0.002)
    assert (row.median, row.low, row.high, row.unit, row.repeats) == (2.0, 1.0, 4.5, "ms a set", 3)
    assert row.yardsticks == pytest.approx(2.0)


def test_pair_is_timed_in_turns() -> None:
    order: list[str] = []
    ours, theirs, ratio = timing.measure_pair(
        "g", ("a", lambda: order.append("a")), ("b", lambda: order.append("b")), repeats=3, unit="ns"
    )
    assert order == ["a", "b"] * 4  # one round does not count
    assert (ours.what, theirs.what, ours.repeats) == ("a", "b", 3)
    assert ratio > 0


def test_page_shows_rows_by_group() -> None:
    rows = [
        timing.row("second", "a|b", [1e-5], unit="µs", target="≤ 10 µs"),
        timing.row("first", "c", [2.0], unit="s"),
    ]
    page = markdown(rows, MACHINE, 525_600)
    assert "525,600 simulated" in page and "vectorbt" not in page
    assert page.index("## Second") < page.index("## First")
    assert "| a\\|b | 10 µs | 10–10 | 1 |  | ≤ 10 µs |  |" in page


def test_unknown_part_is_refused(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "nothing"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "--only" in done.stderr
