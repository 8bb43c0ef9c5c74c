"""The rules of the house that no single module can keep: dependencies, import arrows, lazy names, clean files."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import aione_lab
from aione_lab.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "aione_lab"

# Left to right; rooms in one group may use each other.
ARROWS = [
    {"units", "errors", "settings", "environment", "files", "jit"},
    {"lake", "cache"},
    {"thresholds"},
    {"engine"},
    {"backtest"},
    {"figures"},
    {"research"},
    {"calibration"},
    {"live"},
    {"widgets"},
    {"warm", "cli", "__main__"},
]
RANK = {room: rank for rank, group in enumerate(ARROWS) for room in group}

# Methods that hand the caller on to a room further right, and import it only when they are called.
FORWARDS = {"backtest/result.py": {"figures"}, "backtest/portfolio.py": {"figures"}}

# Distribution name -> import name, where they differ.
IMPORT_NAMES = {"prometheus-client": "prometheus_client", "pydantic-settings": "pydantic_settings", "ta-lib": "talib"}
CORE = "core"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return normal(found.group())


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def declared(project: dict) -> dict[str, list[str]]:
    """Extra (or "core") -> normalised names of the packages it asks for, the project itself left out."""
    groups = {CORE: project["dependencies"], **project["optional-dependencies"]}
    return {
        group: [name for name in map(requirement_name, lines) if name != "aione-lab"] for group, lines in groups.items()
    }


def tracked_text_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:4096]]


# --- dependencies ------------------------------------------------------------------------------------------------


def test_conda_environment_agrees_with_pyproject(project: dict) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    (pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert environment["name"] == project["name"]
    assert {re.split(r"[=<>]", line)[0] for line in conda} == {"python", "pip", "redis-server"}
    (python,) = [line.split("=")[1] for line in conda if line.startswith("python=")]
    (lowest,) = re.findall(r">=([\d.]+)", project["requires-python"])
    assert tuple(map(int, python.split("."))) >= tuple(map(int, lowest.split(".")))
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]
    assert pip == ["-c constraints.txt", "-e .[dev]"]
    assert (ROOT / "constraints.txt").is_file() and "dev" in project["optional-dependencies"]


def test_constraints_pin_every_declared_package_within_its_bounds(project: dict) -> None:
    from packaging.requirements import Requirement

    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            found = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)", line)
            assert found, f"not a plain name==version: {line!r}"
            pins[normal(found[1])] = found[2]
    lines = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    for requirement in map(Requirement, lines):
        if normal(requirement.name) != "aione-lab":
            assert normal(requirement.name) in pins, f"{requirement.name} is declared and not pinned"
            assert pins[normal(requirement.name)] in requirement.specifier, requirement


def test_installed_versions_are_the_pinned_ones(declared: dict[str, list[str]]) -> None:
    """What the tests run on is what constraints.txt promises, for the packages we name ourselves."""
    from importlib.metadata import PackageNotFoundError, version

    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
    )
    pinned = {normal(name): number for name, number in pins.items()}
    checked = 0
    for name in {name for group in (CORE, "lab", "live", "dev") for name in declared[group]}:
        try:
            installed = version(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is declared and not installed")
        if installed != pinned[name]:
            pytest.skip(f"this environment is not the pinned one: {name} {installed}, pinned {pinned[name]}")
        checked += 1
    assert checked >= 20


def top_level_imports(path: Path) -> set[str]:
    """Names of the outside packages that the file imports anywhere, imports for type checkers left out."""
    names = set()
    for node in runtime_imports(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"aione_lab"}


def test_every_imported_package_is_declared(declared: dict[str, list[str]]) -> None:
    known = {IMPORT_NAMES.get(name, name.replace("-", "_")) for names in declared.values() for name in names}
    known |= {"yaml"}  # PyYAML
    for path in sorted(PACKAGE.rglob("*.py")):
        undeclared = top_level_imports(path) - known
        assert not undeclared, f"{path.relative_to(ROOT)} imports {sorted(undeclared)}, which pyproject.toml lacks"


def test_the_modules_that_load_first_need_the_core_only(declared: dict[str, list[str]]) -> None:
    """An extra is imported inside the function that needs it, so that the rest works without it."""
    core = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in declared[CORE]}
    for room in (
        "units",
        "errors",
        "settings",
        "environment",
        "files",
        "lake",
        "cache",
        "thresholds",
        "engine",
        "backtest",
        "figures",
        "cli",
    ):
        for path in room_files(room):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.Import):
                    names = {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    names = {node.module.split(".")[0]}
                else:
                    continue
                extra = names - core - set(sys.stdlib_module_names) - {"aione_lab"}
                assert not extra, f"{path.relative_to(ROOT)} imports {sorted(extra)} at its top"


# --- import arrows -----------------------------------------------------------------------------------------------


def room_files(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [p for p in [PACKAGE / f"{room}.py"] if p.exists()]


def runtime_imports(tree: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    """Every import statement outside ``if TYPE_CHECKING``, those inside functions included."""
    found: list[ast.Import | ast.ImportFrom] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        else:
            found.extend(runtime_imports(node))
    return found


def without_functions(tree: ast.Module) -> ast.Module:
    """The module with the bodies of its functions and methods emptied."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    return tree


def rooms_imported(path: Path, source: str) -> set[str]:
    """Rooms of the package that the source of ``path`` imports at run time."""
    rooms = set()
    inside = path.relative_to(PACKAGE).with_suffix("").parts
    for node in runtime_imports(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            if node.level:
                package = ("aione_lab", *inside[:-1])
                base = ".".join(package[: len(package) - node.level + 1])
                module = f"{base}.{node.module}" if node.module else base
            else:
                module = node.module or ""
            targets = [f"{module}.{alias.name}" for alias in node.names]
        for target in targets:
            parts = target.split(".")
            if parts[0] == "aione_lab" and len(parts) > 1:
                # `from aione_lab import Lake` means the room the name lives in
                rooms.add(aione_lab._HOME.get(parts[1], f"aione_lab.{parts[1]}").split(".")[1])
    return rooms - {"__version__"}


def backward_imports(room: str, path: Path, source: str) -> list[str]:
    wrong = []
    for other in sorted(rooms_imported(path, source)):
        if other not in RANK:
            wrong.append(f"{other}, which has no place in the order")
        elif RANK[other] > RANK[room] or (RANK[other] == RANK[room] and room == "cache" and other == "lake"):
            wrong.append(other)
    return wrong


def test_imports_follow_the_arrows() -> None:
    seen = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if room == "__init__":
            continue
        assert room in RANK, f"{path.relative_to(ROOT)} has no place in the order"
        source = path.read_text()
        allowed = FORWARDS.get(path.relative_to(PACKAGE).as_posix(), set())
        at_top = backward_imports(room, path, ast.unparse(without_functions(ast.parse(source))))
        wrong = at_top + [other for other in backward_imports(room, path, source) if other not in allowed]
        assert not wrong, f"{path.relative_to(ROOT)} ({room}) imports {', '.join(wrong)}"
        seen += 1
    assert seen > 10


@pytest.mark.parametrize(
    ("room", "source", "wrong"),
    [
        ("engine/step.py", "from aione_lab.backtest import replay", ["backtest"]),
        ("engine/step.py", "def f():\n    from ..backtest.metrics import sharpe", ["backtest"]),
        ("lake/store.py", "import aione_lab.engine.step", ["engine"]),
        ("lake/store.py", "from aione_lab import Engine", ["engine"]),
        ("lake/store.py", "from aione_lab.nowhere import x", ["nowhere, which has no place in the order"]),
        ("lake/store.py", "if TYPE_CHECKING:\n    from aione_lab.engine import Engine", []),
        ("backtest/replay.py", "from . import metrics\nfrom aione_lab.lake.schema import check_candles", []),
        ("units.py", "from .lake import Lake", ["lake"]),
    ],
)
def test_the_arrow_check_itself(room: str, source: str, wrong: list[str]) -> None:
    assert backward_imports(room.removesuffix(".py").split("/")[0], PACKAGE / room, source) == wrong


def test_the_engine_knows_no_pandas_and_no_input_output() -> None:
    forbidden = {"pandas", "pyarrow", "plotly", "os", "io", "pathlib", "random", "time", "logging", "socket"}
    kernels = [path for path in room_files("engine") if path.name not in {"spec.py", "__init__.py"}]
    assert kernels
    for path in kernels:
        names = set()
        for node in runtime_imports(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif not node.level and node.module:
                names.add(node.module.split(".")[0])
        assert not names & forbidden, f"{path.relative_to(ROOT)} imports {sorted(names & forbidden)}"


# --- the lazy front door -----------------------------------------------------------------------------------------


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, aione_lab; print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(ran.stdout.split())
    assert "aione_lab" in loaded
    assert not loaded & {"pandas", "numpy", "numba", "plotly", "pyarrow", "vectorbt", "ccxt", "optuna", "pydantic"}


def test_the_candle_to_trade_road_never_loads_vectorbt() -> None:
    there = {name: home for name, home in aione_lab._HOME.items() if module_exists(home)}
    studies = ("aione_lab.calibration", "aione_lab.widgets")  # the explorer shows them
    road = ", ".join(name for name, home in there.items() if home not in studies)
    code = (
        f"import sys; from aione_lab import {road}; print('vectorbt' in sys.modules, 'optuna' in sys.modules)\n"
        f"from aione_lab import {', '.join(there)}; print('vectorbt' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.split() == ["False", "False", "False"]


def module_exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("name", sorted(aione_lab._HOME))
def test_public_names_resolve(name: str) -> None:
    value = getattr(aione_lab, name)
    assert value is getattr(importlib.import_module(aione_lab._HOME[name]), name)
    assert callable(value) and value.__doc__, f"{name} has no docstring"
    # no package has the name of a public function: a lazy name beside it would hand out the module
    assert not module_exists(f"aione_lab.{name}")


def test_public_names_are_listed_once_everywhere() -> None:
    assert set(aione_lab.__all__) == {*aione_lab._HOME, "__version__"}
    assert set(aione_lab._HOME) <= set(dir(aione_lab))
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (checking,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.name: node.module for node in checking.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert typed == aione_lab._HOME


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Lakes'"):
        aione_lab.Lakes  # noqa: B018
    assert not hasattr(aione_lab, "calibrat")


def test_input_error_names_argument_value_and_what_is_allowed() -> None:
    error = InputError.of("interval", "7m", "must be one of 1m, 5m")
    assert str(error) == "interval='7m': must be one of 1m, 5m"
    assert "did you mean 'fee'" in str(InputError.unknown("setting", "fees", ["fee", "slippage_bps"]))


# --- files -------------------------------------------------------------------------------------------------------

# Written in pieces, so that this file does not accuse itself.
HOMES = "|".join(["wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers"])
MACHINE_PATHS = re.compile(rf"(?<![\w.<>{{}}$/-])/(?:{HOMES})/\w")
INDEX_ADDRESS = re.compile(r"(?:py" + r"pi\.org|--(?:extra-)?index" + r"-url|--find" + r"-links|\bfile:/" + r"//)")


def test_no_machine_path_and_no_package_index_in_tracked_files() -> None:
    files = tracked_text_files()
    assert len(files) > 20
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{path.relative_to(ROOT)}:{number}: {line[:120]}"
            assert not MACHINE_PATHS.search(line), f"a machine path in {where}"
            assert not INDEX_ADDRESS.search(line), f"a package index in {where}"


def test_generated_things_are_not_tracked() -> None:
    names = [str(path.relative_to(ROOT)) for path in tracked_text_files()]
    for folder in ("data_lake", "experiments"):
        assert [name for name in names if name.startswith(f"{folder}/")] == [f"{folder}/README.md"]
    assert not [name for name in names if re.search(r"(^|/)(__pycache__|\.venv|\.ipynb_checkpoints)/", name)]


def test_make_help_lists_every_target() -> None:
    ran = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = set(re.findall(r"^  make ([a-z-]+)", ran.stdout, flags=re.M))
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, flags=re.M)
    assert listed == set(phony.split())
    assert {"help", "env", "demo", "lab", "test", "test-long", "bench", "lint", "notebooks", "clean"} <= listed


def test_readme_and_contributing_name_only_targets_and_files_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text()
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.M):
            assert re.search(rf"^{target}:", makefile, flags=re.M), f"{name}: there is no target {target!r}"
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / link).exists(), f"{name}: {link} does not exist"


# --- notebooks under nbval ---------------------------------------------------------------------------------------


def test_nbval_needs_nothing_more_typed_from_elsewhere(tmp_path: Path) -> None:
    """The sanitize file is found, the kernel is this environment's, and outputs are really compared."""
    import nbformat

    project = tmp_path / "project"
    (project / "notebooks").mkdir(parents=True)
    for name in ("pyproject.toml", "conftest.py", "notebooks/sanitize.cfg"):
        (project / name).write_text((ROOT / name).read_text())

    cells = []
    for number, printed in enumerate(("0x7f0000000000 42\n", "0x7f0000000000 43\n"), start=1):
        cell = nbformat.v4.new_code_cell("print(hex(id(object())), 6 * 7)", execution_count=number)
        cell.outputs = [nbformat.v4.new_output("stream", text=printed)]
        cells.append(cell)
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata.kernelspec = {"name": "python3", "display_name": "any", "language": "python"}
    nbformat.write(book, project / "notebooks" / "right_and_wrong.ipynb")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbval", "project/notebooks"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed" in ran.stdout, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert re.search(r"FAILED \S*right_and_wrong\.ipynb::Cell 1", ran.stdout)
