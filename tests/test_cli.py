"""The program ``aione-lab`` as a shell sees it: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ccxt.async_support as accxt
import numpy as np
import pandas as pd
import pytest

from aione_lab import Costs, Lake, Settings, Thresholds, __version__, event_study, replay, replay_portfolio
from aione_lab.cli import lab, main
from aione_lab.cli.output import PIPE_WIDTH, plain, safe_cell, write_csv
from aione_lab.cli.studies import in_words
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.research import reliability
from tests.fake_exchange import FakeExchange

DAYS = 3
SYMBOLS = ("BTCUSDT", "SOLUSDT", "LINKUSDT")
COMMANDS = ("demo", "lab", "fetch", "import", "audit", "replay", "calibrate", "live", "drift", "doctor")


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the program in this process."""

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Ran(int(left.value.code or 0), printed.out, printed.err)

    return call


@pytest.fixture(scope="module")
def exchange() -> SimulatedExchange:
    return SimulatedExchange()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, exchange: SimulatedExchange) -> Path:
    """A lake of a few simulated days; SOLUSDT also at 5m, LINKUSDT without funding."""
    lake = Lake(tmp_path_factory.mktemp("filled") / "lake")
    for name in SYMBOLS:
        lake.append(name, "1m", exchange.candles(name, days=DAYS))
        if name != "LINKUSDT":
            lake.append_funding(name, exchange.funding(name, days=DAYS))
    lake.resample("SOLUSDT", "1m", "5m")
    return Path(lake.root)


@pytest.fixture
def lake_copy(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "lake"))


def refused(ran: Ran, *words: str) -> None:
    """Exit code 2, nothing on standard output, one line on standard error that holds ``words``."""
    assert ran.code == 2, ran
    assert ran.out == ""
    assert ran.err.startswith("error: ") and ran.err.count("\n") == 1 and ran.err.endswith("\n"), ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err, ran.err


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
    assert file.read_text() == "x"


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
        "def broken(*arguments):\n    raise RuntimeError('a mistake of ours')\n"
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


# --- replay ------------------------------------------------------------------------------------------------------


def test_replay_json_is_the_library_result(run: Run, filled: Path) -> None:
    ran = run("replay", "SOLUSDT", "--reference", "BTCUSDT", "--lake", filled, "--json", "--fee", "0.0004")
    assert ran.code == 0
    told = json.loads(ran.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    lake = Lake(filled)
    result = replay(
        lake.candles("SOLUSDT", "1m"),
        Thresholds(),
        symbol="SOLUSDT",
        interval="1m",
        reference=lake.candles("BTCUSDT", "1m"),
        funding=lake.funding("SOLUSDT"),
        costs=Costs(fee=0.0004),
    )
    assert told["metrics"] == plain(dict(result.metrics))
    assert told["provenance"] == {
        "fingerprint": lake.fingerprint("SOLUSDT", "1m"),
        "thresholds": Thresholds().digest(),
        "spec": result.spec.digest(),
        "settings": result.settings.digest(),
        "costs": Costs(fee=0.0004).digest(),
        "version": __version__,
    }
    assert told["signals"]["alerts"] == int((result.signals["signal"] == "ALERT").sum()) > 0
    assert told["signals"]["recommendations"]["BUY"] == int((result.signals["recommendation"] == "BUY").sum())
    assert sum(told["signals"]["recommendations"].values()) == told["signals"]["alerts"]
    assert told["trades"]["closed"] == len(result.trades) == sum(told["trades"]["exits"].values())
    assert told["random_entries"]["entries"] == len(result.trades)
    assert told["verdict"] and told["candles"] == DAYS * 1440


def test_replay_for_people_says_what_it_did(run: Run, filled: Path) -> None:
    ran = run("replay", "SOLUSDT", "LINKUSDT", "BTCUSDT", "--lake", filled)
    assert ran.code == 0
    assert ran.out.count("the default, because the lake has it") == 2
    assert "it is the reference itself" in ran.out
    for word in ("VOLUME_SPIKE", "LOW_VOLATILITY", "profit factor", "ambiguous trades", "held back", "fee 0.050%"):
        assert ran.out.count(word) == 3, word
    assert "0 rates in the lake" in ran.out  # LINKUSDT
    assert max(map(len, ran.out.splitlines())) < 2 * PIPE_WIDTH


def test_replay_of_several_symbols_is_a_list_and_each_stands_alone(run: Run, filled: Path) -> None:
    both = json.loads(run("replay", "SOLUSDT", "LINKUSDT", "SOLUSDT", "--lake", filled, "--json").out)
    assert [one["symbol"] for one in both] == ["SOLUSDT", "LINKUSDT"]
    assert both[1] == json.loads(run("replay", "LINKUSDT", "--lake", filled, "--json").out)


def test_replay_without_a_reference_and_of_a_range(run: Run, filled: Path) -> None:
    span = ("--start", "2025-01-01T12:00", "--end", "2025-01-03T12:00")
    told = json.loads(run("replay", "SOLUSDT", "--reference", "none", *span, "--lake", filled, "--json").out)
    assert told["reference"]["symbol"] is None and told["candles"] == 2880
    assert (told["start"], told["end"]) == ("2025-01-01T12:00:00+00:00", "2025-01-03T11:59:00+00:00")
    five = json.loads(run("replay", "SOLUSDT", "--interval", "5m", "--lake", filled, "--json").out)
    assert five["reference"]["symbol"] is None and "no 5m candles of BTCUSDT" in five["reference"]["chosen"]


def test_replay_takes_thresholds_and_settings_from_files(run: Run, filled: Path, tmp_path: Path) -> None:
    limits, rules = tmp_path / "limits.json", tmp_path / "rules.toml"
    limits.write_text(json.dumps({"min_reasons_for_alert": 1, "meta": {"by": "a test"}}))
    rules.write_text("cooldown_period = 0\n[weights]\nrsi = 0.5\n")
    plainly = json.loads(run("replay", "SOLUSDT", "--lake", filled, "--json").out)
    changed = json.loads(
        run("replay", "SOLUSDT", "--thresholds", limits, "--settings", rules, "--lake", filled, "--json").out
    )
    assert changed["signals"]["alerts"] > plainly["signals"]["alerts"]
    assert changed["provenance"]["thresholds"] == Thresholds(min_reasons_for_alert=1).digest()
    assert changed["provenance"]["settings"] != plainly["provenance"]["settings"]
    assert changed["provenance"]["fingerprint"] == plainly["provenance"]["fingerprint"]


def test_replay_refuses_bad_input(run: Run, filled: Path, tmp_path: Path) -> None:
    def bad(*arguments: object) -> Ran:
        return run("replay", "SOLUSDT", "--lake", filled, *arguments)

    limits = tmp_path / "limits.json"
    limits.write_text('{"vol_z_treshold": 2.5}')
    refused(bad("--thresholds", limits), "vol_z_treshold", "did you mean 'vol_z_threshold'")
    limits.write_text('{"vol_z_threshold": "much"}')
    refused(bad("--thresholds", limits), "--thresholds=", "vol_z_threshold", "much")
    limits.write_text("{")
    refused(bad("--thresholds", limits), "limits.json")
    refused(bad("--thresholds", tmp_path / "none.json"), "--thresholds=", "none.json", "cannot be read")
    refused(bad("--settings", tmp_path), "--settings=", str(tmp_path))
    rules = tmp_path / "rules.toml"
    rules.write_text("cooldown = 3")
    refused(bad("--settings", rules), "cooldown", "cooldown_period")
    refused(bad("--fee", "0.5"), "--fee=0.5")
    refused(bad("--fee", "-0.1"), "--fee=-0.1")
    refused(bad("--slippage-bps", "nan"), "--slippage-bps=nan")
    refused(bad("--start", "2025-02-01", "--end", "2025-03-01"), "hold no candle", "2025-01-01T00:00:00+00:00")
    refused(bad("--start", "2025-01-02", "--end", "2025-01-02"), "--end='2025-01-02'", "later than --start")
    refused(bad("--start", "soon"), "--start='soon'")
    refused(bad("--start", "2025-13-01"), "--start='2025-13-01'")
    refused(bad("--end", "never"), "--end='never'")
    refused(bad("--reference", "BTCUSD"), "--reference", "did you mean BTCUSDT?")
    refused(bad("--reference", "../x"), "--reference")
    refused(bad("--trades-csv", tmp_path / "no" / "trades.csv"), "--trades-csv", "does not exist")
    refused(bad("--report", tmp_path), "--report", "is a folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["limits.json", "rules.toml"]


def test_replay_writes_trades_and_report(run: Run, filled: Path, tmp_path: Path) -> None:
    trades, report = tmp_path / "trades.csv", tmp_path / "report.html"
    ran = run("replay", "SOLUSDT", "LINKUSDT", "--lake", filled, "--trades-csv", trades, "--report", report)
    assert ran.code == 0 and str(trades) in ran.out and str(report) in ran.out
    with trades.open() as stream:
        rows = list(csv.DictReader(stream))
    told = json.loads(run("replay", "SOLUSDT", "LINKUSDT", "--lake", filled, "--json").out)
    assert len(rows) == sum(one["trades"]["closed"] for one in told) > 0
    assert list(rows[0])[:4] == ["symbol", "entry_time", "exit_time", "side"]
    assert {row["symbol"] for row in rows} <= {"SOLUSDT", "LINKUSDT"}
    assert pd.Timestamp(rows[0]["entry_time"]).tzinfo is not None
    total = sum(float(row["pnl"]) for row in rows)
    assert total == pytest.approx(sum(one["metrics"]["net_pnl"] for one in told), abs=1e-9)
    assert report.stat().st_size < 15e6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "trades.csv"]


# --- replay --studies, --portfolio -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fortnight(tmp_path_factory: pytest.TempPathFactory, exchange: SimulatedExchange) -> Path:
    """Days enough for the studies to judge: SUIUSDT has a planted effect, LINKUSDT none."""
    lake = Lake(tmp_path_factory.mktemp("fortnight") / "lake")
    for name in ("SUIUSDT", "LINKUSDT"):
        lake.append(name, "1m", exchange.candles(name, days=16))
    return Path(lake.root)


def test_studies_are_those_of_the_library_on_the_terminal_and_as_json(run: Run, fortnight: Path) -> None:
    ask = ("replay", "SUIUSDT", "LINKUSDT", "--lake", fortnight, "--studies")
    told = json.loads(run(*ask, "--json").out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    lake = Lake(fortnight)
    results = {name: replay(lake.candles(name, "1m"), symbol=name) for name in ("SUIUSDT", "LINKUSDT")}
    family = event_study(results, combinations=None)
    ran = run(*ask)
    assert ran.code == 0 and "nan" not in ran.out
    for one in told:
        name, found = one["symbol"], one["studies"]
        table = family.table[family.table["symbol"] == name]
        assert found["events"]["sentence"] == family.sentences[name] and family.sentences[name] in ran.out
        assert found["events"]["tests_in_family"] == int(family.table["tested"].sum())
        for trigger in found["events"]["triggers"]:
            rows = table[table["event"] == trigger["trigger"]]
            assert trigger["discovery"] == rows["discovery"].any()
            assert trigger["survives_costs"] == rows["survives"].any() == ("survives" in trigger["in_words"])
            assert [row["net_bps"] for row in trigger["horizons"]] == plain(rows["net_bps"].tolist())
            assert [row["net_low"] for row in trigger["horizons"]] == plain(rows["net_low"].tolist())
        alone = reliability(results[name])
        assert found["reliability"]["sentence"] == alone.sentence and alone.sentence in ran.out
        assert len(found["reliability"]["gates"]) == len(alone.gates)
        assert found["episodes"]["summary"]["ALERT"]["n_alerts"] == one["signals"]["alerts"]
        assert found["splits"]["sentence"] in ran.out and found["order"]["sentence"] in ran.out
    for word in ("What follows each trigger?", "net, bps", "as traded, R", "all_gates_met", "so net flatters"):
        assert ran.out.count(word) == 2, word
    assert "--studies" not in ran.out
    plainly = run("replay", "SUIUSDT", "--lake", fortnight)
    assert "--studies" in plainly.out and "What follows each trigger?" not in plainly.out
    assert "studies" not in json.loads(run("replay", "SUIUSDT", "--lake", fortnight, "--json").out)


@pytest.mark.parametrize(
    ("net", "low", "discovery", "words"),
    [
        ((-3.0, -1.0), (-9.0, -9.0), (False, False), "less than costs"),
        ((-3.0, 4.0), (-9.0, -2.0), (False, False), "not told from chance"),
        ((-3.0, 4.0), (-9.0, 1.0), (False, False), "not told from chance"),
        ((-3.0, 4.0), (-5.0, -2.0), (True, False), "more than chance (5 min), less than costs"),
        ((-3.0, 4.0), (-5.0, -2.0), (False, True), "more than chance (15 min), costs not covered"),
        ((-3.0, 4.0), (-5.0, 2.0), (True, True), "survives costs in this span (15 min)"),
        ((), (), (), "too few to test"),
    ],
)
def test_a_trigger_is_said_to_be_what_its_tests_show(
    net: tuple[float, ...], low: tuple[float, ...], discovery: tuple[bool, ...], words: str
) -> None:
    rows = [
        {"horizon": minutes, "net_bps": n, "discovery": found, "survives": found and least > 0}
        for minutes, n, least, found in zip((5, 15), net, low, discovery, strict=False)
    ]
    assert in_words(rows) == words


def test_studies_of_coarse_candles_and_of_too_few_of_them(run: Run, fortnight: Path, tmp_path: Path) -> None:
    lake = Lake(shutil.copytree(fortnight, tmp_path / "lake"))
    lake.resample("SUIUSDT", "1m", "15m")
    ask = ("replay", "SUIUSDT", "--lake", lake.root, "--studies", "--json")
    found = json.loads(run(*ask, "--interval", "15m").out)["studies"]
    minutes = [row["horizon"] for row in found["events"]["triggers"][0]["horizons"]]
    assert minutes == [15, 30, 60, 120, 240]
    short = ("--end", "2025-01-01T12:00")
    assert json.loads(run(*ask, *short).out)["studies"] == {"not_judged": "too few candles after warm-up"}
    assert "nothing to study" in run(*ask[:-1], *short).out


def test_a_portfolio_is_the_library_s(run: Run, filled: Path, tmp_path: Path) -> None:
    rules, trades, report = tmp_path / "rules.toml", tmp_path / "trades.csv", tmp_path / "report.html"
    rules.write_text("max_open_trades = 1\nmax_correlation_threshold = 0.1\n")
    ask = ("replay", *SYMBOLS, "--portfolio", "--settings", rules, "--lake", filled)
    told = json.loads(run(*ask, "--json", "--trades-csv", trades).out)
    lake = Lake(filled)
    result = replay_portfolio(
        {name: lake.candles(name, "1m") for name in SYMBOLS},
        reference="BTCUSDT",
        funding={name: lake.funding(name) for name in SYMBOLS if name != "LINKUSDT"},
        settings=Settings(max_open_trades=1, max_correlation_threshold=0.1),
    )
    assert told["metrics"] == plain(dict(result.metrics)) and told["portfolio"] == list(SYMBOLS)
    assert len(told["refused"]) == len(result.refused) > 0 and len(result.trades) > 0
    for by in ("symbol", "trigger", "hour", "exit"):
        assert [row["pnl"] for row in told["attribution"][by]] == result.attribution(by)["pnl"].tolist()
    assert len(told["equity"]) == DAYS and told["equity"][-1]["equity"] == result.equity.iloc[-1]
    with trades.open() as stream:
        assert [row["trigger_reasons"].split(" + ") for row in csv.DictReader(stream)] == [
            list(reasons) for reasons in result.trades["trigger_reasons"]
        ]
    ran = run(*ask, "--report", report)
    assert ran.code == 0 and told["verdict"] in ran.out and "nan" not in ran.out
    for word in ("refused: correlation", "Net P&L by trigger", "Net P&L by hour", "slots", "equity  ", str(report)):
        assert word in ran.out, word
    page = report.read_text()
    assert "Portfolio of 3 symbols" in page and page.count("<h2 id=") == 3


def test_portfolios_and_studies_refuse_what_does_not_go_together(run: Run, lake_copy: Path, tmp_path: Path) -> None:
    ask = ("--lake", lake_copy, "--portfolio")
    refused(run("replay", "SOLUSDT", *ask), "--portfolio", "two symbols")
    refused(run("replay", "SOLUSDT", "SOL/USDT:USDT", *ask), "--portfolio", "two symbols")
    refused(run("replay", *SYMBOLS, *ask, "--studies"), "--studies", "--portfolio")
    refused(run("replay", *SYMBOLS, *ask, "--end", "2024-01-01"), "hold no candle")
    Lake(lake_copy).append("ETHBTC", "1m", SimulatedExchange().candles("LINKUSDT", days=1))
    refused(run("replay", "SOLUSDT", "ETHBTC", *ask), "--portfolio", "ETHBTC in BTC", "one currency")
    rules = tmp_path / "rules.toml"
    rules.write_text("max_open_trades = 0")
    refused(run("replay", *SYMBOLS, *ask, "--settings", rules), "--settings", "max_open_trades")


def test_outputs_follow_links_and_spare_what_is_no_file(run: Run, filled: Path, tmp_path: Path) -> None:
    def bad(*arguments: object) -> Ran:
        return run("replay", "SOLUSDT", "--end", "2025-01-01T02:00", "--lake", filled, *arguments)

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    for option in ("--trades-csv", "--report"):
        refused(bad(option, tmp_path / "pipe"), option, "no regular file")
        refused(bad(option, os.devnull), option, "no regular file")
        refused(bad(option, tmp_path / "ring"), option, "no place for a file")
        refused(bad(option, tmp_path / ("x" * 300)), option, "too long")
    (tmp_path / "link").symlink_to(tmp_path / "x.html")
    refused(bad("--report", tmp_path / "x.html", "--trades-csv", tmp_path / "link"), "--report", "--trades-csv too")
    assert (tmp_path / "pipe").is_fifo() and sorted(path.name for path in tmp_path.iterdir()) == [
        "link",
        "pipe",
        "ring",
    ]
    report = tmp_path / ("y" * 240)
    assert bad("--trades-csv", tmp_path / "link", "--report", report).code == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "x.html").stat().st_size and report.stat().st_size


def test_a_cold_engine_is_announced_on_standard_error_only(filled: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from aione_lab.cli import main; main()", "replay", "SOLUSDT", "--lake", filled]
    cold = {**os.environ, "NUMBA_DISABLE_JIT": "0", "NUMBA_CACHE_DIR": str(tmp_path)}
    code = "from aione_lab.warm import announce_if_cold, is_warm; print(is_warm()); announce_if_cold()"
    ran = subprocess.run([sys.executable, "-c", code], env=cold, capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n" and "compiling the engine, once" in ran.stderr
    ran = subprocess.run([*command, "--end", "2025-01-01T02:00", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["metrics"]["n_trades"] == 0  # whatever stderr said, stdout is JSON alone


# --- demo, lab, doctor -------------------------------------------------------------------------------------------


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
