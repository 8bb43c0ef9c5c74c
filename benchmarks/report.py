"""Rows to a Markdown page and a JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.timing import Row

HEAD = ("what", "median", "min–max", "n", "yardsticks", "target", "note")


def markdown(rows: Iterable[Row], machine: dict[str, Any], bars: int) -> str:
    """The page: the machine, how it was measured, and one table a group."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    core = "pinned to one core" if machine["pinned_to_one_core"] else "not pinned to a core"
    lines = [
        "# Speed",
        "",
        f"{bars:,} simulated one-minute bars. {machine['processor']}, {machine['cores']} cores, {core}, "
        f"{machine['system']}, Python {machine['python']}; {packages}.",
        "",
        "Median of n repeats and their range. A *yardstick* is a fixed numpy loop, timed in the same process just "
        f"before (here {machine['yardstick_ms']:.1f} ms): machines differ and are shared, so compare ratios. Load "
        f"average when the run began: {machine['load_average_before']}. `make bench` writes this page.",
    ]
    rows = list(rows)
    for group in dict.fromkeys(row.group for row in rows):
        lines += ["", f"## {group[0].upper()}{group[1:]}", "", _line(HEAD), _line(["---"] * len(HEAD))]
        lines += [_line(_cells(row)) for row in rows if row.group == group]
    return "\n".join(lines) + "\n"


def write(folder: Path, rows: list[Row], machine: dict[str, Any], bars: int) -> list[Path]:
    """``speed.md`` and ``speed.json`` in ``folder``, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    page, data = folder / "speed.md", folder / "speed.json"
    page.write_text(markdown(rows, machine, bars), encoding="utf-8")
    table = {"bars": bars, "machine": machine, "rows": [row.to_json() for row in rows]}
    data.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [page, data]


def _cells(row: Row) -> list[str]:
    ratio = "" if row.yardsticks is None else _short(row.yardsticks)
    spread = f"{_short(row.low)}–{_short(row.high)}"
    return [row.what, f"{_short(row.median)} {row.unit}", spread, str(row.repeats), ratio, row.target, row.note]


def _short(value: float) -> str:
    """Three digits that say something, without exponents."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.2g}"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
