"""`aione-lab live` as a shell sees it: out of the box, stopped, started again, refused."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from http_double import Asked, HttpDouble
from session_runs import MINUTE_MS, START

from aione_lab.cli import main
from aione_lab.cli.live import _stopping_on_signals
from aione_lab.cli.live_table import Screen, alert_line, beginnings, headline
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake
from aione_lab.live.journal import Journal
from aione_lab.live.replay_feed import ReplayFeed
from aione_lab.live.session import Session
from aione_lab.thresholds.classes import thresholds_for
from aione_lab.thresholds.params import Thresholds

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-c", "from aione_lab.cli import main; main()", "live"]
NAMES = ("BTCUSDT", "LINKUSDT")
DAY_MS = 1440 * MINUTE_MS


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS", "TELEGRAM", "ADMIN"))}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "TERM": "xterm"}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [*PROGRAM, "--feed", "simulated", "--symbols", ",".join(NAMES), *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_out_of_the_box_stopped_and_started_again(tmp_path: Path) -> None:
    """No Redis, no keys, no network. SIGTERM, then to the end: no bar is lost or told twice, and no alert either."""
    (tmp_path / "run").mkdir()
    kept = ("--lake", "lake", "--journal", "journal", "--end", "2025-01-04T06:00")
    process = start(tmp_path / "run", *kept, "--speed", "6000")
    try:
        assert process.stdout is not None
        before = []
        while not (line := process.stdout.readline()).startswith("running"):
            assert process.poll() is None, process.communicate()
            before.append(line)
        cache = tmp_path / "run" / "experiments" / "cache.sqlite"
        assert before[0] == f"states go to {cache}, 'aione-lab dashboard' shows them\n"
        assert before[-1] == "thresholds: by asset class for 2 symbols\n"
        time.sleep(0.4)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, errors
    assert "stopped after" in out and "Traceback" not in errors
    process = start(tmp_path / "run", *kept, "--speed", "inf", "--json")
    out, errors = process.communicate(timeout=120)
    told = json.loads(out)
    assert process.returncode == 0 and told["state"] == "stopped" and told["bars"] == 2 * 360, errors
    frame = Journal(tmp_path / "run" / "journal").read("bar")
    first = START + 3 * DAY_MS
    for name in NAMES:
        expected = list(range(first, first + 360 * MINUTE_MS, MINUTE_MS))
        assert frame.loc[frame["symbol"] == name, "timestamp"].tolist() == expected
        stored = Lake(tmp_path / "run" / "lake").candles(name, "1m")
        assert stored.equals(SimulatedExchange().candles(name, days=4)[1440 : 3 * 1440 + 360])
    assert (frame["signal"] == "ALERT").sum() == told["alerts"] > 0
    assert cache.exists()


def test_on_a_terminal_it_is_a_table(tmp_path: Path) -> None:
    """A table that renews itself, and Ctrl-C as typed."""
    leader, follower = pty.openpty()
    command = [*PROGRAM, "--feed", "simulated", "--symbols", "BTCUSDT,LINKUSDT", "--speed", "600"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    shown, ends, stopping = "", time.monotonic() + 90, False
    try:
        while time.monotonic() < ends:
            if not select.select([leader], [], [], 0.2)[0]:
                if process.poll() is not None:
                    break
                continue
            try:
                shown += os.read(leader, 65_536).decode("utf-8", "replace")
            except OSError:
                break
            if not stopping and "running" in shown and "LINKUSDT" in shown:
                stopping = True
                os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 0, shown[-2000:]
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    for word in ("thresholds: by asset class", "recommendation", "calibration", "BTCUSDT", "stopped after"):
        assert word in shown
    assert "Traceback" not in shown


class Closing:
    """A session that takes a moment to stop."""

    asked = done = 0

    async def stop(self) -> None:
        self.asked += 1
        await asyncio.sleep(0.3)
        self.done += 1


def test_a_signal_that_comes_twice_at_once_is_one_and_a_later_one_ends_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def signals(work: Any, *pauses: float) -> None:
        with _stopping_on_signals(work):
            for pause in pauses:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(pause)

    work = Closing()
    asyncio.run(signals(work, 0.05, 0.5))  # as timeout and make hand it on
    assert work.asked == work.done == 1
    monkeypatch.setattr("aione_lab.cli.live.SAME_S", 0.1)
    work = Closing()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(signals(work, 0.2, 0.5))
    assert work.asked == 1 and not work.done


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--feed", "nonsense"], "--feed"),
        (["--feed", "simulated", "--symbols", "NOPEUSDT"], "--symbols='NOPEUSDT'"),
        (["--feed", "simulated", "--symbols", "../../etc"], "--symbols"),
        (["--feed", "simulated", "--speed", "0"], "--speed"),
        (["--feed", "simulated", "--speed", "fast"], "--speed"),
        (["--feed", "simulated", "--experiments", __file__], "must be the folder of the experiments"),
        (["--feed", "simulated", "--enricher", "no.toml"], "--enricher"),
        (["--prefilter", "--criteria", "no.toml"], "--criteria"),
        (["--feed", "simulated", "--speed", "nan"], "--speed"),
        (["--feed", "simulated", "--interval", "7m"], "--interval"),
        (["--feed", "simulated", "--prefilter"], "--feed='simulated'"),
        (["--prefilter", "--symbols", "BTCUSDT"], "--symbols='BTCUSDT'"),
        (["--feed", "simulated", "--exchange", "bybit"], "--exchange='bybit'"),
        (["--feed", "simulated", "--lake", "file"], "--lake='file'"),
        (["--feed", "simulated", "--lake", "file/lake"], "--lake='file/lake'"),
        (["--feed", "simulated", "--lake", "s3://KEY:SECRET@bucket/lake"], "--lake='s3://…'"),
        (["--feed", "simulated", "--criteria", "fast.toml"], "--criteria"),
        (["--prefilter", "--criteria", "missing.toml"], "missing.toml"),
        (["--feed", "simulated", "--calibrate"], "--calibrate"),
        (["--feed", "simulated", "--metrics-port", "99999"], "--metrics-port"),
        (["--feed", "simulated", "--start", "yesterday"], "--start"),
        (["--feed", "replay", "--lake", "nothing"], "--lake"),
        (["--feed", "simulated", "--end", "2024-01-01"], "--end='2024-01-01'"),
        (["--feed", "exchange", "--exchange", "nonsense"], "--exchange"),
        (["--feed", "simulated", "--reference", "NOPEUSDT"], "--reference='NOPEUSDT'"),
        (["--feed", "simulated", "--symbols", "BTCUSDT", "--journal", "file/journal", "--json"], "--journal='"),
        (["--feed", "simulated", "--symbols", "BTCUSDT", "--journal", "j" * 300], "--journal='"),
        (["--feed", "simulated", "--journal", ""], "--journal"),
        (["--feed", "simulated", "--symbols", ""], "--symbols=''"),
        (["--feed", "simulated", "--symbols", " ,"], "--symbols=' ,'"),
        (["--prefilter", "--symbols", ""], "--symbols=''"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("logging.basicConfig", lambda **options: None)
    Path("file").write_text("no folder", encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["live", *arguments])
    told = capsys.readouterr()
    assert left.value.code == 2 and named in told.err and len(told.err.strip().splitlines()) == 1, told.err


def test_what_is_drawn_is_text_and_never_markup() -> None:
    """Whatever comes in a name, a reason or a problem of a cache."""
    from rich.console import Console

    feed = ReplayFeed(SimulatedExchange(seed=3), ["BTCUSDT"], start=START + DAY_MS, end=START + DAY_MS + 5 * MINUTE_MS)
    session = Session(feed)
    session.assets.update_asset("BTCUSDT", {"trigger_reasons": ["[bold red]X[/]", "\x1b[2J"], "tp": 1.5})
    console = Console(width=250, force_terminal=False, record=True)
    console.print(Screen(lambda: session, on_terminal=True, silent=False)._drawn(250))
    drawn = console.export_text()
    assert "[bold red]X[/]" in drawn and "\x1b" not in drawn and "1.5" in drawn
    asyncio.run(session.run())
    line = headline({**session.status(), "degraded": {"cache": "away"}, "stale": ["BTCUSDT"]})
    assert line.startswith("stopped: 1 symbol, 1m | bar 2025-01-02T00:04:00+00:00 | 5 bars")
    assert "stale: BTCUSDT" in line and "cache does not work: away" in line
    alert = {
        "timestamp": "2025-01-02T00:04:00+00:00", "symbol": "BTCUSDT", "recommendation": "BUY", "confidence": 0.8,
        "trigger_reasons": ["VOLUME_SPIKE"], "risk_parameters": {"tp_targets": [2.0, 3.0], "sl_level": 1.0},
        "second_look": True,
    }  # fmt: skip
    assert alert_line(alert).endswith("BTCUSDT BUY (second look) confidence 0.80 [VOLUME_SPIKE] TP 2, 3 SL 1")


def test_a_narrow_terminal_has_fewer_columns_and_none_cut_off() -> None:
    from rich.console import Console

    feed = ReplayFeed(SimulatedExchange(seed=3), ["1000PEPEUSDT"], start=START + DAY_MS, end=START + DAY_MS + MINUTE_MS)
    session = Session(feed)
    shown = {"recommendation": "WAIT_FOR_CONFIRMATION", "state": "no_trade", "tp": 0.0175413, "sl": 0.0173689}
    session.assets.update_asset("1000PEPEUSDT", shown)
    screen = Screen(lambda: session, on_terminal=True, silent=False)
    for width, there, gone in ((80, "price", "TP"), (110, "TP", "ATR %"), (160, "calibration", None)):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(screen._drawn(width))
        drawn = console.export_text()
        assert "…" not in drawn and "WAIT_FOR_CONFIRMATION" in drawn and "1000PEPEUSDT" in drawn
        assert f" {there} " in drawn and (gone is None or f" {gone} " not in drawn)


def test_lines_tell_no_alert_again_after_a_restart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the journal kept; each new alert is a line, also where all of them came within one look."""

    async def follow(bars: int) -> Session:
        exchange, first = SimulatedExchange(seed=3), START + DAY_MS
        session = Session(
            ReplayFeed(exchange, NAMES, start=first, end=first + bars * MINUTE_MS), journal=tmp_path / "journal"
        )
        await Screen(lambda: session, on_terminal=False, silent=False).follow(session.start())
        return session

    lines, trades = [], []
    for bars in (400, 800, 2_000):
        session = asyncio.run(follow(bars))
        told = capsys.readouterr().out.splitlines()
        lines.append([line for line in told if " confidence " in line])
        trades += [line for line in told if " paper trade closed: " in line]
    assert lines[0] and lines[1] and len(set(sum(lines, []))) == len(sum(lines, []))
    assert session.counts["alerts"] == len(sum(lines, []))
    assert session.counts["trades"] == len(trades) == len(set(trades)) > 0
    closed = session.last_trades(n=1)[0]
    assert trades[-1].startswith(f"{closed['exit_time']} {closed['symbol']} paper trade closed: LONG from ")
    assert f"net {closed['pnl']:+,.2f} USDT ({closed['r_multiple']:+.2f} R)" in trades[-1]


def test_a_session_that_had_to_begin_anew_tells_what_it_finds_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """As where other symbols come and the journal's snapshot cannot be used: it counts from nothing again."""
    feed = ReplayFeed(SimulatedExchange(seed=3), NAMES, start=START + DAY_MS, end=START + 2 * DAY_MS)
    session = Session(feed)
    screen = Screen(lambda: session, on_terminal=False, silent=False)
    session.told_before, screen._told, screen._closed = 0, 7, 3
    for _ in range(2):
        screen._tell_alerts()
        screen._tell_trades()
    assert capsys.readouterr().out == "" and (screen._told, screen._closed) == (0, 0)
    asyncio.run(session.run())
    screen._tell_alerts()
    screen._tell_trades()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == session.counts["alerts"] + session.counts["trades"] > 0


@pytest.mark.parametrize(
    ("named", "asked", "reference", "bars"),
    [
        ("BTCUSDT,LINKUSDT", (), "BTCUSDT", 10),
        ("BTCUSDT,LINKUSDT", ("--reference", " None"), None, 10),
        ("LINKUSDT", (), None, 5),
        ("LINKUSDT", ("--reference", "BTCUSDT"), "BTCUSDT", 10),  # asked for, so it is fetched beside the others
    ],
)
def test_the_reference_is_a_choice(
    named: str, asked: tuple[str, ...], reference: str | None, bars: int, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("logging.basicConfig", lambda **options: None)
    with pytest.raises(SystemExit):
        main(["live", "--feed", "simulated", "--symbols", named, *asked, "--end", "2025-01-04T00:05",
              "--speed", "inf", "--json"])  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert (told["reference"], told["bars"]) == (reference, bars)


def test_it_tells_what_it_rests_on(tmp_path: Path) -> None:
    """The sets in force, the journal that it goes on with, and whom of that it does not follow."""

    def told(names: tuple[str, ...], bars: int, journal: str = "journal") -> list[str]:
        feed = ReplayFeed(SimulatedExchange(seed=3), names, start=START + DAY_MS, end=START + DAY_MS + bars * MINUTE_MS)
        meta = {"study": "spring", "start": "2024-03-01T00:00:00Z", "end": "2024-06-01T00:00:00Z", "expires_at": 5}
        sets = {"LINKUSDT": thresholds_for("LINKUSDT", Thresholds(min_confidence=0.6, meta=meta))}
        session = Session(feed, journal=tmp_path / journal, thresholds=sets)
        asyncio.run(session.run())
        return beginnings(session.status())

    assert told(("BTCUSDT", "LINKUSDT", "SOLUSDT"), 5) == [
        "thresholds: calibrated for LINKUSDT (study spring, 2024-03-01 to 2024-06-01), by asset class for 2 symbols"
    ]
    assert told(("BTCUSDT", "ETHUSDT"), 10) == [
        "thresholds: by asset class for 2 symbols",
        "goes on with the journal: 1 of 2 symbols, the others warm up anew; no longer followed: LINKUSDT, SOLUSDT",
    ]
    assert len(told(("ETHUSDT",), 5, "another")) == 1
    assert told(("SOLUSDT",), 10, "another")[1:] == [
        "goes on with the journal: 0 of 1 symbol, the others warm up anew; no longer followed: ETHUSDT"
    ]


def test_lines_introduce_each_session_once_and_also_a_short_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever follows another one, and a run that is over before anybody looks."""

    async def follow() -> None:
        screen = Screen(lambda: session, on_terminal=False, silent=False, journal=False)
        await screen.follow(session.start())

    for names in (("BTCUSDT",), ("BTCUSDT", "LINKUSDT")):
        exchange, first = SimulatedExchange(seed=3), START + DAY_MS
        session = Session(ReplayFeed(exchange, names, start=first, end=first + 3 * MINUTE_MS))
        asyncio.run(follow())
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if line.startswith("thresholds: ")] == [
            f"thresholds: by asset class for {len(names)} symbol{'s' * (len(names) > 1)}"
        ]


def test_a_prefilter_chooses_by_its_criteria_and_the_reference_is_always_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange alone is stood in for: by symbols given by hand, and candles of the simulated one."""
    asked: list[list[str]] = []

    def replayed(options: object, symbols: list[str]) -> ReplayFeed:
        asked.append(symbols)
        first = START + DAY_MS
        return ReplayFeed(SimulatedExchange(seed=3), symbols, start=first, end=first + 30 * MINUTE_MS)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("logging.basicConfig", lambda **options: None)
    monkeypatch.setattr("aione_lab.cli.live._feed", replayed)
    Path("fast.toml").write_text('manual = ["LINKUSDT", "SOLUSDT"]\n', encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["live", "--prefilter", "--criteria", "fast.toml", "--json"])
    told = capsys.readouterr()
    assert left.value.code in (0, None), told.err
    assert asked == [["BTCUSDT", "LINKUSDT", "SOLUSDT"]]
    assert json.loads(told.out)["bars"] == 90


def test_a_language_model_is_asked_where_a_file_describes_it(tmp_path: Path) -> None:
    """The model gets Stage2 dictionaries with the key of the environment, and the run ends as ever."""
    file = tmp_path / "model.toml"
    answer = {"choices": [{"message": {"role": "assistant", "content": "a longer text"}}]}

    async def run() -> tuple[list[Asked], dict[str, Any], str]:
        async with HttpDouble((200, answer)) as model:
            file.write_text(f'url = "{model.url}/v1"\nmodel = "double"\n', encoding="utf-8")
            process = await asyncio.create_subprocess_exec(
                *PROGRAM, "--feed", "simulated", "--symbols", ",".join(NAMES), "--end", "2025-01-04T06:00",
                "--speed", "20000", "--enricher", str(file), "--json",
                cwd=tmp_path, env={**environment(), "ENRICHER_KEY": "sk-hush"},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            out, errors = await asyncio.wait_for(process.communicate(), 120)
            assert process.returncode == 0, errors
            return model.asked, json.loads(out), errors.decode()

    asked, told, errors = asyncio.run(run())
    assert told["alerts"] > 0 and asked and {one.path for one in asked} == {"/v1/chat/completions"}
    assert {one.content["model"] for one in asked} == {"double"}
    assert all(one.headers["Authorization"] == "Bearer sk-hush" for one in asked) and "sk-hush" not in errors


def test_a_file_that_describes_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.toml"
    file.write_text("modl = 1", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["live", "--feed", "simulated", "--enricher", str(file)])
    assert "modl" in capsys.readouterr().err
