"""``doctor``: is everything here that the lab needs, and is the lake sound?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from aione_lab.cli.options import DEFAULT_LAKE, Json, LakeFolder, is_address
from aione_lab.cli.output import add_row, console, emit_json, listed, say, table
from aione_lab.errors import AioneError

DISTRIBUTION = "aione-lab"


@dataclass(frozen=True)
class Check:
    """One thing looked at. ``state``: ok, note (works without it) or problem."""

    name: str
    state: str
    found: str


def doctor(folder: LakeFolder = DEFAULT_LAKE, as_json: Json = False) -> None:
    """Check Python, packages, the compiled engine and the lake's files.

    Nothing is changed and no network is used, except to read a lake at
    s3://. Exit code 1: at least one problem.

    Examples:

      aione-lab doctor
      aione-lab doctor --lake data_lake --json
    """
    checks = [_python(), *_packages(), _cache(), *_lake(folder)]
    problems = [check for check in checks if check.state == "problem"]
    if as_json:
        emit_json({"ok": not problems, "checks": [asdict(check) for check in checks]})
    else:
        made = table("check", "state", "found", numbers_from=3)
        for check in checks:
            add_row(made, check.name, check.state, check.found)
        console().print(made)
    if problems:
        say(f"warning: {len(problems)} problems, first: {problems[0].name}: {problems[0].found}", err=True)
        raise typer.Exit(1)


def _python() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {cores} cores"
    return Check("Python", "ok" if sys.version_info >= (3, 11) else "problem", text)


def _packages() -> list[Check]:
    """Requirements of the core must be met; those of an extra are a note where something is missing."""
    missing: dict[str, list[str]] = {}
    have: dict[str, list[str]] = {}
    for line in importlib.metadata.requires(DISTRIBUTION) or []:
        spec, _, marker = line.partition(";")
        extra = marker.split("extra ==")[1].strip(" '\"") if "extra ==" in marker else "core"
        name = _name(spec)
        if name == DISTRIBUTION or extra == "dev":
            continue
        try:
            have.setdefault(extra, []).append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.setdefault(extra, []).append(name)
    checks = []
    for extra in dict.fromkeys(["core", *have, *missing]):
        if absent := missing.get(extra):
            how = f"missing: {', '.join(absent)}" + (
                "" if extra == "core" else f"; pip install '{DISTRIBUTION}[{extra}]'"
            )
            checks.append(Check(f"packages: {extra}", "problem" if extra == "core" else "note", how))
        else:
            checks.append(Check(f"packages: {extra}", "ok", ", ".join(have.get(extra, []))))
    return checks


def _name(requirement: str) -> str:
    for place, letter in enumerate(requirement):
        if not (letter.isalnum() or letter in "-_."):
            return requirement[:place]
    return requirement


def _cache() -> Check:
    from aione_lab.warm import is_warm

    if is_warm():
        return Check("engine", "ok", "compiled")
    return Check("engine", "note", "not compiled yet; the first replay does it, or: python -m aione_lab.warm")


def _lake(folder: str) -> list[Check]:
    name = "lake in an object store" if is_address(folder) else f"lake {folder}"  # an address may hold credentials
    if not is_address(folder) and Path(folder).exists() and not Path(folder).is_dir():
        return [Check(name, "problem", "is a file: a lake is a folder")]
    if not is_address(folder) and not Path(folder).is_dir():
        return [Check(name, "note", "not there yet; 'aione-lab import' or 'fetch' makes it")]
    from aione_lab.lake import Lake

    try:
        lake = Lake(folder)
        verified = lake.verify()
        symbols = lake.symbols()
    except (AioneError, OSError) as error:
        return [Check(name, "problem", str(error))]
    checks = [Check(name, "ok", f"{len(symbols)} symbols: {listed(symbols, 8)}" if symbols else "empty")]
    state = "problem" if verified.faults else "ok"
    return [*checks, Check("lake files", state, "; ".join(verified.faults[:3]) or f"{verified.files:,} files sound")]
