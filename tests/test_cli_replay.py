"""``aione-lab replay`` as a shell sees it: one symbol, several, a portfolio, studies, and what it writes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aione_lab import Costs, Lake, Settings, Thresholds, __version__, event_study, replay, replay_portfolio
from aione_lab.cli.output import PIPE_WIDTH, plain
from aione_lab.cli.studies import in_words
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.research import reliability
from tests.cli_runs import DAYS, SYMBOLS, Ran, Run, refused
from tests.cli_runs import exchange as exchange  # fixtures
from tests.cli_runs import filled as filled
from tests.cli_runs import lake_copy as lake_copy
from tests.cli_runs import run as run


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


def test_a_promoted_set_tried_on_the_days_of_its_choice_is_said_to_prove_nothing(
    run: Run, filled: Path, tmp_path: Path
) -> None:
    first, last = (pd.Timestamp(ms, unit="ms", tz="UTC") for ms in Lake(filled).span("SOLUSDT", "1m") or ())
    middle = (first + (last - first) / 2).floor("D")
    meta = {"study": "x", "symbol": "SOLUSDT", "start": first.isoformat(), "end": middle.isoformat()}
    limits, free = tmp_path / "limits.json", tmp_path / "free.json"
    limits.write_text(json.dumps({"min_reasons_for_alert": 1, "meta": meta}))
    free.write_text(json.dumps({"min_reasons_for_alert": 1, "meta": {"note": "mine"}}))
    call = "replay", "SOLUSDT", "--lake", filled, "--thresholds"
    run(*call, free)  # the engine may have to be compiled, and says so
    told = run(*call, limits)
    assert told.code == 0 and told.err.count("\n") == 1
    assert "no evidence" in told.err and f"--start {middle.date()}" in told.err
    assert run(*call, limits, "--start", str(middle.date())).err == run(*call, free).err == ""
    other = run("replay", "LINKUSDT", *call[2:], limits, "--start", str(middle.date()))
    assert other.err == "--thresholds: the set was chosen for SOLUSDT, not for LINKUSDT\n"


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"start": 1_735_689_600_000, "end": 1_735_862_400_000}, "chosen and judged on 2025-01-01 to 2025-01-03, days"),
        ({"interval": "5m"}, "the set was chosen on candles of 5m, not of 1m"),
        ({"interval": "1m", "costs": {"fee": 0.0, "slippage_bps": 2.0}}, "fee 0, here 0.0005; slippage_bps 2, here 0"),
        ({"interval": "1m", "costs": Costs().model_dump(mode="json")}, ""),
        ({"costs": "none"}, ""),
    ],
)
def test_what_a_promoted_set_was_judged_on_is_told_where_the_replay_differs(
    run: Run, filled: Path, tmp_path: Path, meta: dict[str, Any], words: str
) -> None:
    limits, whose = tmp_path / "limits.json", {"symbol": "SOLUSDT", "start": "2024-01-01", "end": "2024-02-01"}
    limits.write_text(json.dumps({"meta": {**whose, **meta}}))
    call = "replay", "SOLUSDT", "--lake", filled
    run(*call)  # the engine may have to be compiled, and says so
    told = run(*call, "--thresholds", limits)
    assert told.code == 0 and words in told.err and told.err.count("\n") == (1 if words else 0)


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
    refused(bad("--trades-csv", tmp_path / "limits.json" / "trades.csv"), "--trades-csv", "limits.json is no folder")
    refused(bad("--report", tmp_path), "--report", "is a folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["limits.json", "rules.toml"]


def test_replay_writes_trades_and_report(run: Run, filled: Path, tmp_path: Path) -> None:
    trades, report = tmp_path / "trades.csv", tmp_path / "new" / "folder" / "report.html"
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
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["report.html", "trades.csv"]


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
