"""The program ``aione-lab`` as a shell sees it: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import ccxt.async_support as accxt
import numpy as np
import pandas as pd
import pytest

from aione_lab import Lake, __version__
from aione_lab.cli.output import plain, safe_cell, write_csv
from aione_lab.lake.simulated import SimulatedExchange
from tests.cli_runs import COMMANDS, DAYS, Ran, Run, refused
from tests.cli_runs import exchange as exchange  # fixtures
from tests.cli_runs import filled as filled
from tests.cli_runs import lake_copy as lake_copy
from tests.cli_runs import run as run
from tests.fake_exchange import FakeExchange

# --- help, version, start-up -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0 and ran.err == ""
    assert f"aione-lab {command}" in ran.out.split("Examples:")[1]
    assert run(command, "-h").out == ran.out


def test_help_lists_every_command_and_no_argument_is_help(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    assert all(f" {command} " in ran.out for command in COMMANDS)
    assert run() == ran


def test_version(run: Run) -> None:
    assert run("--version") == Ran(0, f"aione-lab {__version__}\n", "")


def test_a_file_that_the_disk_does_not_take_is_one_line_and_leaves_no_series(filled: Path, tmp_path: Path) -> None:
    candles = Lake(filled).candles("SOLUSDT", "1m")
    candles.to_csv(tmp_path / "SOLUSDT-1m.csv")
    command = [sys.executable, "-m", "aione_lab", "import", "SOLUSDT-1m.csv", "--interval", "1m"]
    ran = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    refused(Ran(ran.returncode, ran.stdout, ran.stderr), "month=2025-01", "File too large")
    assert not Lake(tmp_path / "data_lake").symbols() and not list((tmp_path / "data_lake").rglob("_*"))


def test_the_package_itself_runs_as_the_program(root: Path) -> None:
    ran = subprocess.run([sys.executable, "-m", "aione_lab", "--version"], capture_output=True, text=True, cwd=root)
    assert (ran.returncode, ran.stdout) == (0, f"aione-lab {__version__}\n")


def test_help_loads_nothing_heavy(root: Path) -> None:
    code = (
        "import sys\nfrom aione_lab.cli import main\n"
        "try:\n    main(['replay', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    loaded = set(ran.stderr.split())
    assert "typer" in loaded
    assert not loaded & {"pandas", "numpy", "numba", "plotly", "pyarrow", "ccxt", "scipy", "vectorbt"}


def test_the_installed_program_answers() -> None:
    program = Path(sys.executable).with_name("aione-lab")
    ran = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"aione-lab {__version__}\n"


# --- bad input that every command shares -------------------------------------------------------------------------


def test_a_misspelt_command_and_option_are_suggested(run: Run) -> None:
    refused(run("replya"), "replya", "'replay'")
    refused(run("replay", "BTCUSDT", "--refrence", "ETHUSDT"), "--refrence", "--reference")
    refused(run("replay"), "SYMBOL", "aione-lab replay --help")
    refused(run("replay", "BTCUSDT", "--fee", "much"), "--fee", "much")
    refused(run("import"), "PATH")
    refused(run("audit", "--lake"), "--lake")
    refused(run("demo", "surplus"), "surplus")


@pytest.mark.parametrize("command", [("replay", "BTCUSDT"), ("audit",)])
def test_a_lake_that_is_not_there_is_refused_and_not_made(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    refused(run(*command, "--lake", tmp_path / "none"), "--lake", "none", "aione-lab import")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("symbol", ["../../x", "BTC USDT", "<b>", "=cmd|'/c'!A1", "", "A" * 41, "BTC/../USDT", "ÄÖ"])
@pytest.mark.parametrize("command", ["replay", "audit", "fetch"])
def test_hostile_symbols_are_refused(run: Run, filled: Path, command: str, symbol: str) -> None:
    more = ("--start", "2025-01-01") if command == "fetch" else ()
    before = sorted(filled.parent.rglob("*"))
    refused(run(command, "--lake", filled, *more, "--", symbol), "must be an exchange id")
    assert sorted(filled.parent.rglob("*")) == before


@pytest.mark.parametrize("command", ["replay", "audit"])
def test_an_unknown_symbol_names_the_near_one_and_those_there_are(run: Run, filled: Path, command: str) -> None:
    refused(run(command, "SOLUSD", "--lake", filled), "SOLUSD", "did you mean SOLUSDT?", "BTCUSDT, LINKUSDT, SOLUSDT")
    refused(run(command, "BTCUSDT", "--interval", "5m", "--lake", filled), "no 5m candles", "it has 1m")
    refused(run(command, "BTCUSDT", "--interval", "7m", "--lake", filled), "--interval='7m'", "1m, 3m, 5m")
    refused(run(command, "BTCUSDT", "--interval", "1d", "--lake", filled), "no 1d candles at all")


def test_a_file_as_a_lake_is_refused(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lake"
    file.write_text("x")
    for command in (("replay", "BTCUSDT"), ("audit",), ("import", file, "--interval", "1m"), ("demo", "--dir", file)):
        option = () if command[0] == "demo" else ("--lake", file)
        refused(run(*command, *option), "lake")
    told = run("doctor", "--lake", file, "--json")
    assert told.code == 1 and any(one["state"] == "problem" for one in json.loads(told.out)["checks"])
    assert file.read_text() == "x"


def test_what_the_library_refuses_is_named_as_it_was_typed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "dump.csv").write_text("timestamp,open,high,low,close,volume\n1746316800000,1,1,1,1,1\n")
    lake = ("--lake", tmp_path / "lake")
    refused(run("import", tmp_path / "dump.csv", "--interval", "1m", *lake), "PATH='", "tells no symbol: say which")
    refused(run("import", tmp_path / "dump.csv", "--interval", "7m", "--symbol", "BTCUSDT", *lake), "--interval='7m'")
    refused(run("import", tmp_path / "dump.csv", "--interval", "1m", "--symbol", "a b", *lake), "--symbol='a b'")
    refused(run("fetch", "a b", *lake), "SYMBOL='a b'")
    (tmp_path / "lake").mkdir()
    refused(run("audit", "a b", *lake), "SYMBOL='a b'")
    refused(run("fetch", "BTCUSDT", "--start", "2025-13-01", *lake), "--start='2025-13-01'")
    refused(run("fetch", "BTCUSDT", "--start", "2025-01-01", "--interval", "7m", *lake), "--interval='7m'")


@pytest.mark.parametrize("command", ["audit", "replay BTCUSDT", "import x.csv --interval 1m", "doctor", "demo"])
def test_names_no_disk_can_have_are_refused(run: Run, command: str) -> None:
    option = "--dir" if command == "demo" else "--lake"
    refused(run(*command.split(), option, "n" * 300))


def test_a_folder_that_cannot_be_made_is_named(run: Run, files: Path) -> None:
    if not Path("/proc").is_dir():
        pytest.skip("needs a file system that takes no folders")
    refused(run("import", files, "--interval", "1m", "--lake", "/proc/x"), "/proc/x: cannot be made")
    ran = run("demo", "--dir", "/proc/x", "--json")
    refused(ran, "/proc/x: cannot be made")


def test_hostile_file_names_stay_on_their_line(run: Run, files: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff\x1b[2J\x9b\xc2\x9b\n")
    files.rename(folder)
    (folder / "ETHUSDT.csv").write_bytes(b"x")
    ran = run("import", folder, "--interval", "1m", "--lake", tmp_path / "lake")
    assert ran.code == 1 and "\\udcff\\x1b[2J" in ran.out and "\\x1b[2J" in ran.err
    assert all(line.isprintable() for line in [*ran.out.splitlines(), *ran.err.splitlines()])
    assert ran.out.count("\n") == 4 and ran.err.count("\n") == 1
    told = run("import", folder, "--interval", "1m", "--lake", tmp_path / "lake", "--json")
    assert "\x9b" not in told.out and "\x1b" not in told.out
    assert "\\udcff\x1b[2J\\udc9b\x9b\n" in json.loads(told.out)["files"][0]["file"]


def test_a_terminal_without_our_characters_is_no_reason_to_fail(files: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from aione_lab.cli import main; main()", "import", files, "--interval", "1m"]
    ran = subprocess.run(
        [*command, "--lake", tmp_path / "lake"],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert b"BTCUSDT.parquet ? BTCUSDT: 300 rows read" in ran.stdout


def test_an_unexpected_failure_keeps_its_traceback(filled: Path) -> None:
    code = (
        "import aione_lab.lake.audit as audit\nfrom aione_lab.cli import main\n"
        "def broken(*arguments, **options):\n    raise RuntimeError('a mistake of ours')\n"
        f"audit.audit_lake = broken\nmain(['audit', '--lake', {str(filled)!r}])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and "Traceback" in ran.stderr and "a mistake of ours" in ran.stderr


# --- import ------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, exchange: SimulatedExchange) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("BTCUSDT", "SOLUSDT"):
        frame = exchange.candles(name, days=1).iloc[:300]
        frame.reset_index().assign(timestamp=frame.index.as_unit("ms").asi8).to_parquet(folder / f"{name}.parquet")
    return folder


def test_import_tells_symbols_from_names_and_again_changes_nothing(run: Run, files: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    ran = run("import", files / "*.parquet", "--interval", "1m", "--lake", lake)
    assert ran.code == 0 and ran.err == ""
    assert "2 files, 600 rows read, 600 new, 0 duplicate" in ran.out
    assert Lake(lake).symbols("1m") == ["BTCUSDT", "SOLUSDT"]
    again = run("import", files, "--interval", "1m", "--lake", lake, "--json")
    total = json.loads(again.out)["total"]
    assert (again.code, total["rows_new"], total["rows_same"]) == (0, 0, 600)


def test_import_of_funding(run: Run, tmp_path: Path, exchange: SimulatedExchange) -> None:
    rates = exchange.funding("SOLUSDT", days=2)
    file = tmp_path / "SOLUSDT.csv"
    pd.DataFrame({"timestamp": rates.index.as_unit("ms").asi8, "funding_rate": rates.to_numpy()}).to_csv(
        file, index=False
    )
    ran = run("import", file, "--funding", "--lake", tmp_path / "lake")
    assert ran.code == 0 and "6 new" in ran.out
    np.testing.assert_array_equal(Lake(tmp_path / "lake").funding("SOLUSDT").to_numpy(), rates.to_numpy())


def test_import_refuses_what_cannot_be_used_and_writes_nothing(run: Run, files: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    fake = tmp_path / "BTCUSDT-1m-2025-05.zip"
    fake.write_bytes(b"this is no zip")
    empty = tmp_path / "nothing"
    empty.mkdir()
    nameless = tmp_path / "prices.parquet"
    shutil.copy(files / "BTCUSDT.parquet", nameless)
    hostile = tmp_path / "ETHUSDT-1m-2025-05.zip"
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr("../../ETHUSDT-1m-2025-05.csv", "1,2,3")
    to_lake = ("--lake", lake)
    refused(run("import", fake, "--interval", "1m", *to_lake), fake.name)
    refused(run("import", tmp_path / "no.csv", "--interval", "1m", *to_lake), "no.csv", "no such file")
    refused(run("import", empty, "--interval", "1m", *to_lake), "matches no file")
    refused(run("import", files / "*.zip", "--interval", "1m", *to_lake), "matches no file")
    refused(run("import", nameless, "--interval", "1m", *to_lake), "symbol")
    refused(run("import", hostile, "--interval", "1m", *to_lake), hostile.name)
    refused(run("import", files, *to_lake), "--interval", "such as 1m")
    refused(run("import", files, "--interval", "1x", *to_lake), "1x", "1m, 3m")
    refused(run("import", files, "--interval", "5m", *to_lake))
    refused(run("import", files, "--funding", "--interval", "1m", *to_lake), "--interval", "--funding")
    refused(run("import", files / "BTCUSDT.parquet", "--symbol", "../x", "--interval", "1m", *to_lake), "../x")
    assert not list(lake.rglob("*.parquet"))


def test_import_of_some_good_and_some_bad_files_is_done_in_part(run: Run, files: Path, tmp_path: Path) -> None:
    (files / "ETHUSDT-1m-2025-05.zip").write_bytes(b"this is no zip")
    ran = run("import", files, "--interval", "1m", "--lake", tmp_path / "lake", "--json")
    assert ran.code == 1
    assert ran.err.count("\n") == 1 and "1 of 3 files" in ran.err and "ETHUSDT-1m-2025-05.zip" in ran.err
    assert json.loads(ran.out)["total"]["files_refused"] == 1
    assert Lake(tmp_path / "lake").symbols() == ["BTCUSDT", "SOLUSDT"]


# --- audit -------------------------------------------------------------------------------------------------------


def test_audit_of_a_clean_lake(run: Run, filled: Path) -> None:
    ran = run("audit", "--lake", filled)
    assert ran.code == 0 and ran.err == ""
    assert ran.out.count("clean") == 4 and "SOLUSDT 5m" in ran.out
    one = json.loads(run("audit", "sol/usdt:usdt", "--interval", "1m", "--lake", filled, "--json").out)
    assert [(s["symbol"], s["interval"], s["rows"]) for s in one["series"]] == [("SOLUSDT", "1m", DAYS * 1440)]


def test_audit_reports_gaps_and_a_damaged_file(run: Run, lake_copy: Path, exchange: SimulatedExchange) -> None:
    frame = exchange.candles("SUIUSDT", days=1)
    Lake(lake_copy).append("SUIUSDT", "1m", pd.concat([frame.iloc[:100], frame.iloc[160:]]))
    ran = run("audit", "SUIUSDT", "--lake", lake_copy)
    assert ran.code == 0 and "usable with gaps" in ran.out and "60 candles" in ran.out
    file = Path(Lake(lake_copy).files("SUIUSDT", "1m")[0])
    file.write_bytes(file.read_bytes()[:-7] + b"damaged")
    ran = run("audit", "--lake", lake_copy, "--json")
    assert ran.code == 1 and ran.err.count("\n") == 1 and "SUIUSDT" in ran.err
    verdicts = {(s["symbol"], s["interval"]): s["verdict"] for s in json.loads(ran.out)["series"]}
    assert verdicts[("SUIUSDT", "1m")] == "broken" and verdicts[("BTCUSDT", "1m")] == "clean"
    refused(run("replay", "SUIUSDT", "--lake", lake_copy), file.name)


def test_audit_names_damaged_funding(run: Run, lake_copy: Path) -> None:
    (file, *_) = (Path(lake_copy) / "funding" / "symbol=SOLUSDT").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-7] + b"damaged")
    ran = run("audit", "--lake", lake_copy, "--json")
    assert ran.code == 1 and ran.err.count("\n") == 1 and file.name in ran.err
    assert list(json.loads(ran.out)["funding_faults"]) == ["SOLUSDT"]
    for folder in list(Path(lake_copy).glob("candles/*/symbol=SOLUSDT")):
        shutil.rmtree(folder)
    ran = run("audit", "--lake", lake_copy)
    assert ran.code == 1 and file.name in ran.err


# --- fetch -------------------------------------------------------------------------------------------------------


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch, exchange: SimulatedExchange) -> FakeExchange:
    """An exchange on loopback, which the name binanceusdm leads to."""
    frames = {name: exchange.candles(name, days=1) for name in ("BTCUSDT", "SOLUSDT")}
    server = FakeExchange(frames, {"SOLUSDT": exchange.funding("SOLUSDT", days=1)})

    class Near(accxt.binanceusdm):  # type: ignore[misc]
        def __init__(self, config: dict) -> None:
            super().__init__({**config, **server.config()})

    monkeypatch.setattr(accxt, "binanceusdm", Near)
    return server


def test_fetch_downloads_and_goes_on(run: Run, loopback: FakeExchange, tmp_path: Path) -> None:
    with loopback:
        start = ("--start", "2025-01-01", "--lake", tmp_path / "lake")
        ran = run("fetch", "BTCUSDT", "SOL/USDT:USDT", *start, "--end", "2025-01-01T06:00")
        assert ran.code == 0 and "720 new candles" in ran.out
        ran = run("fetch", "BTCUSDT", "SOLUSDT", *start, "--json")
        report = json.loads(ran.out)
        assert report["total"]["rows_new"] == 2 * 1080
        refused(run("fetch", "BTCUSD", *start), "BTCUSD", "BTCUSDT")
        refused(run("fetch", "BTCUSDT", "--start", "2099-01-01", "--lake", tmp_path / "lake"), "future")
    assert len(Lake(tmp_path / "lake").candles("SOLUSDT", "1m")) == 1440
    assert len(Lake(tmp_path / "lake").funding("SOLUSDT")) == 3


def test_fetch_without_a_start_goes_on_where_the_lake_ends(run: Run, loopback: FakeExchange, tmp_path: Path) -> None:
    lake = ("--lake", tmp_path / "lake")
    refused(run("fetch", "BTCUSDT", *lake), "--start", "must be given", "holds no 1m candles of BTCUSDT")
    assert not (tmp_path / "lake").exists()
    with loopback:
        run("fetch", "BTCUSDT", "--start", "2025-01-01T02:00", "--end", "2025-01-01T04:00", *lake)
        run("fetch", "SOLUSDT", "--start", "2025-01-01T02:00", "--end", "2025-01-01T08:00", *lake)
        refused(run("fetch", "BTCUSDT", "ETHUSDT", *lake), "--start", "holds no 1m candles of ETHUSDT")
        ran = run("fetch", "BTCUSDT", "SOL/USDT:USDT", *lake, "--json")
    assert ran.code == 0
    told = {one["symbol"]: one["rows_new"] for one in json.loads(ran.out)["symbols"]}
    assert told == {"BTCUSDT": 20 * 60, "SOLUSDT": 16 * 60}
    for name in told:
        assert Lake(tmp_path / "lake").span(name, "1m") == (1_735_696_800_000, 1_735_775_940_000)


def test_fetch_refuses_bad_input_before_it_asks_anybody(run: Run, tmp_path: Path) -> None:
    lake = ("--lake", tmp_path / "lake")
    refused(run("fetch", "BTCUSDT", "--start", "yesterday", *lake), "yesterday", "ISO date")
    refused(run("fetch", "BTCUSDT", "--start", "2025-05-02", "--end", "2025-05-01", *lake), "later than")
    refused(run("fetch", "BTCUSDT", "--start", "2025-05-02", "--interval", "1s", *lake), "1s", "1m")
    refused(run("fetch", "BTCUSDT", "--start", "2025-05-02", "--exchange", "binanceusd", *lake), "binanceusdm")
    assert not (tmp_path / "lake").exists()


def test_ctrl_c_keeps_what_was_committed_and_leaves_with_130(tmp_path: Path, exchange: SimulatedExchange) -> None:
    server = FakeExchange({"BTCUSDT": exchange.candles("BTCUSDT", days=20)})
    server.halt_after = 40  # some batches are through, the rest waits for an answer that does not come
    code = (
        "import json, os, ccxt.async_support as accxt\nfrom aione_lab.cli import main\n"
        "class Near(accxt.binanceusdm):\n"
        "    def __init__(self, config):\n        super().__init__({**config, **json.loads(os.environ['NEAR'])})\n"
        "accxt.binanceusdm = Near\n"
        f"main(['fetch', 'BTCUSDT', '--start', '2025-01-01', '--lake', {str(tmp_path / 'lake')!r}])"
    )
    with server:
        settings = {**server.config(), "timeout": 60_000}
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "NEAR": json.dumps(settings)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            deadline = time.monotonic() + 60
            while not list((tmp_path / "lake").rglob("*.parquet")) or server.gate.is_set():
                assert child.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=30)
        finally:
            child.kill()
            child.wait()
    assert child.returncode == 130, err
    assert "interrupted" in err and "Traceback" not in err
    lake = Lake(tmp_path / "lake")
    assert len(lake.candles("BTCUSDT", "1m")) >= 4990
    assert lake.verify().sound


# --- output helpers ----------------------------------------------------------------------------------------------


def test_plain_has_no_nan_and_no_numpy() -> None:
    value = {
        "a": float("nan"),
        "b": [np.float64("inf"), np.int64(3), np.bool_(True)],
        "c": pd.Timestamp("2025-05-10T12:00Z"),
        "d": (np.float32(0.5), None, "text"),
    }
    assert json.dumps(plain(value), allow_nan=False) == (
        '{"a": null, "b": [null, 3, true], "c": "2025-05-10T12:00:00+00:00", "d": [0.5, null, "text"]}'
    )


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x","y")'])
def test_no_text_of_a_csv_is_a_formula(text: str, tmp_path: Path) -> None:
    assert safe_cell(text) == "'" + text.replace("\r", " ") and safe_cell(-1.5) == -1.5 and safe_cell("LONG") == "LONG"
    frame = pd.DataFrame({"why": [text], "pnl": [-1.5], "kind": pd.Categorical([text])})
    write_csv(frame, tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as stream:
        assert list(csv.reader(stream))[1:] == [[safe_cell(text), "-1.5", safe_cell(text)]]
