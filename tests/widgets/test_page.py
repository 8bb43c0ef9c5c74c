"""`aione-lab dashboard`: what it starts, what it refuses, and that a page that has gone leaves nothing running."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path

import pytest

from aione_lab.cli import main
from aione_lab.cli.dashboard import page_command
from aione_lab.errors import AioneError, InputError
from aione_lab.live.asset_follower import NOBODY
from aione_lab.widgets import page


def test_the_command_listens_on_loopback_and_hides_the_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_lake").mkdir()
    command, variables = page_command(8000, "redis://user:secret@127.0.0.1:6379/0", None, "1m", False, False)
    assert "--Voila.ip=127.0.0.1" in command and "--port=8000" in command and "--no-browser" in command
    assert not any("secret" in word for word in command) and variables["REDIS_URL"].endswith("6379/0")
    assert json.loads(variables[page.ASKED]) == {
        "lake": str(tmp_path / "data_lake"),
        "interval": "1m",
        "simulated": False,
    }
    notebook = Path(command[command.index("voila") + 1])
    assert notebook == page.NOTEBOOK and "show()" in notebook.read_text(encoding="utf-8")


def test_a_file_of_this_folder_is_found_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("REDIS_URL", "REDIS_HOST"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="--redis.*there is no folder"):
        page_command(8000, "sqlite:///some%20where/cache.sqlite", None, "1m", False, False)
    (tmp_path / "some where").mkdir()
    (tmp_path / "README.md").write_text("a text", encoding="utf-8")
    with pytest.raises(InputError, match="--redis.*README.md is no cache"):
        page_command(8000, "sqlite:///README.md", None, "1m", False, False)
    _, variables = page_command(8000, "sqlite:///some%20where/cache.sqlite", None, "1m", False, False)
    assert variables["REDIS_URL"] == f"sqlite:///{tmp_path}/some%20where/cache.sqlite"
    _, variables = page_command(8000, None, None, "1m", False, False)
    assert variables["REDIS_URL"] == f"sqlite:///{tmp_path}/experiments/cache.sqlite"
    _, variables = page_command(8000, None, None, "1m", True, False)
    assert "REDIS_URL" not in variables


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port", "0"], "--port=0: must be a port"),
        (["--port", "x"], "'x' is no whole number"),
        (["--redis", "http://127.0.0.1"], "redis"),
        (["--lake", "nowhere"], "--lake='nowhere': no such folder"),
        (["--interval", "7m"], "--interval='7m'"),
        (["--simulated", "--lake", "."], "--lake"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_shown_is_refused_in_one_line(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", *arguments])
    told = capsys.readouterr()
    assert ended.value.code == 2 and not told.out
    assert says in told.err and told.err.count("\n") == 1 and told.err.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "lake", "says"),
    [
        ([], "data_lake", "states from {0}/experiments/cache.sqlite, candles from the lake {0}/data_lake"),
        ([], "nothing", "states from {0}/experiments/cache.sqlite, candles as they come"),
        (["--redis", "redis://me:secret@127.0.0.1:1/0"], "nothing", "states from redis://127.0.0.1:1/0, candles"),
        (["--lake", "s3://key:secret@bucket/candles"], "nothing", "candles from the lake s3://…"),
        (["--simulated"], "nothing", ""),
    ],
    ids=["both", "no-lake", "redis", "s3", "simulated"],
)
def test_it_tells_whose_states_and_candles_it_shows(
    arguments: list[str], lake: str, says: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What nobody named is what lies in the folder, which may be another session's."""
    started = []
    monkeypatch.chdir(tmp_path)
    for name in ("REDIS_URL", "REDIS_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.execve", lambda *given: started.append(given))
    monkeypatch.setattr("aione_lab.cli.dashboard.open_lake", lambda folder: None)
    (tmp_path / lake).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", "--port", str(port), *arguments])
    told = capsys.readouterr()
    assert ended.value.code == 0 and started and "secret" not in told.out + told.err
    assert says.format(tmp_path) in told.out and told.out.count("\n") == (2 if says else 1)


def test_without_voila_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"aione-lab\[lab\]"):
        page_command(8000, None, None, "1m", True, False)


def test_a_page_without_a_session_says_so_and_ends_when_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", f"sqlite:///{tmp_path}/cache.sqlite")
    monkeypatch.setenv(page.ASKED, json.dumps({"lake": None, "interval": "1m", "simulated": False}))
    monkeypatch.setattr(page, "LOOK_S", 0.01)

    async def run() -> None:
        board = page.show()
        async with asyncio.timeout(20):
            while board._table.problem != NOBODY:
                await asyncio.sleep(0.01)
            monkeypatch.setattr(page, "ALONE_S", 0.05)
            while asyncio.all_tasks() != {asyncio.current_task()}:
                await asyncio.sleep(0.01)
        assert board._closed

    asyncio.run(run())


def test_the_page_of_a_simulated_session_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(page.ASKED, json.dumps({"lake": None, "interval": "1m", "simulated": True}))
    monkeypatch.setattr(page, "LOOK_S", 0.01)
    monkeypatch.setattr(page, "SYMBOLS", page.SYMBOLS[:2])
    monkeypatch.setattr(page, "START_DAYS", 2)

    async def run() -> None:
        board = page.show()
        async with asyncio.timeout(60):
            while not board._table.symbols:
                await asyncio.sleep(0.01)
            assert board._table.symbols == page.SYMBOLS
            monkeypatch.setattr(page, "ALONE_S", 0.05)
            while asyncio.all_tasks() != {asyncio.current_task()}:
                await asyncio.sleep(0.01)
        assert board._closed

    asyncio.run(run())


def test_it_needs_a_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REDIS_URL", f"sqlite:///{tmp_path}/cache.sqlite")
    monkeypatch.setenv(page.ASKED, json.dumps({"lake": None, "interval": "1m", "simulated": False}))
    with pytest.raises(AioneError, match="event loop"):
        page.show()


def test_a_port_in_use_is_refused_before_an_address_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as left:
            main(["dashboard", "--simulated", "--port", str(port)])
    told = capsys.readouterr()
    assert left.value.code == 2 and told.out == ""
    assert told.err == f"error: --port={port}: another program listens there; choose another one\n"


def test_a_redis_that_does_not_answer_is_told_and_waited_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed, socket.socket() as free:
        for one in (closed, free):
            one.bind(("127.0.0.1", 0))
        nobody, port = (one.getsockname()[1] for one in (closed, free))
    started: list[list[str]] = []
    monkeypatch.setattr("os.execve", lambda program, command, variables: started.append(command))
    with pytest.raises(SystemExit) as left:
        main(["dashboard", "--redis", f"redis://user:secret@127.0.0.1:{nobody}/0", "--port", str(port)])
    told = capsys.readouterr()
    assert left.value.code == 0 and len(started) == 1 and f":{port}/" in told.out and "secret" not in told.err
    assert told.err.startswith(f"the cache cannot be used yet (redis://127.0.0.1:{nobody}/0: ")
    assert told.err.count("\n") == 1
    answer = threading.Event()  # of a name server, for which nobody waits
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answer.wait(60) and [])
    monkeypatch.setattr("aione_lab.cli.dashboard.ANSWER_S", 0.05)
    with pytest.raises(SystemExit):
        main(["dashboard", "--redis", "redis://somewhere:6379/0", "--port", str(port)])
    assert len(started) == 2 and not answer.is_set()
    answer.set()
    assert capsys.readouterr().err.startswith("the cache cannot be used yet (no answer); ")


def test_a_url_that_is_none_is_refused_by_where_it_was_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "foo://secret")
    for arguments, name in ((["dashboard", "--redis", "foo://secret"], "--redis"), (["live"], "REDIS_URL")):
        with pytest.raises(SystemExit) as left:
            main([*arguments])
        told = capsys.readouterr()
        assert left.value.code == 2 and told.err.startswith(f"error: {name}: must look like redis://")
        assert "sqlite:///" in told.err and "secret" not in told.err
