"""``dashboard``: the live dashboard as a page of its own, served by voila."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, unquote

import typer

from aione_lab.cli.options import DEFAULT_LAKE, by_option, is_address, open_lake, shown_place, whole_number
from aione_lab.cli.output import say
from aione_lab.errors import CacheError, InputError
from aione_lab.units import interval_ms

PORT = 8866
ANSWER_S = 1.5
EMBEDDED = "sqlite:///"
SQLITE = b"SQLite format 3\0"


@by_option({"url": "--redis"})
def dashboard(
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", parser=whole_number, help="Port of the page on this machine.")
    ] = PORT,
    redis: Annotated[
        str | None,
        typer.Option(
            "--redis",
            metavar="URL",
            help="Cache of the session, redis://… or sqlite:///file; if left out, what REDIS_URL or REDIS_HOST name.",
        ),
    ] = None,
    lake: Annotated[
        str | None,
        typer.Option("--lake", metavar="DIR", help=f"Lake that the session appends to; {DEFAULT_LAKE} if it is here."),
    ] = None,
    interval: Annotated[str, typer.Option("--interval", metavar="INTERVAL", help="Interval of the session.")] = "1m",
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Show a session of its own on the simulated exchange.")
    ] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser window.")] = False,
) -> None:
    """Serve the live dashboard as a page: the table of all symbols, charts and stories of the selected one.

    It shows the session that publishes into the cache ('aione-lab live' does), wherever that runs. The page is for
    this machine alone; with ?theme=dark at the end of its address it is dark.

    Examples:

      aione-lab dashboard --simulated
      aione-lab dashboard --redis redis://127.0.0.1:6379/0 --lake data_lake
    """
    command, variables = page_command(port, redis, lake, interval, simulated, browser)
    _check_free(port)
    if not simulated:
        _tell_what_is_shown(variables)
        _tell_of_silence(variables["REDIS_URL"])
    say(f"The dashboard: http://127.0.0.1:{port}/ (Ctrl-C ends it)")
    sys.stdout.flush()
    os.execve(command[0], command, {**os.environ, **variables})  # voila gets the terminal and its Ctrl-C


def page_command(
    port: int, redis: str | None, lake: str | None, interval: str, simulated: bool, browser: bool
) -> tuple[list[str], dict[str, str]]:
    """The command line that serves the page, and the variables that tell it what to show.

    InputError for what cannot be shown or where voila is missing.
    """
    if importlib.util.find_spec("voila") is None:
        raise InputError("voila is not installed; install the extra: pip install 'aione-lab[lab]'")
    if not 1 <= port <= 65535:
        raise InputError.of("--port", port, "must be a port from 1 to 65535")
    interval_ms(interval, "--interval")
    for option, value in (("--redis", redis), ("--lake", lake)):
        if simulated and value is not None:
            raise InputError(f"{option} goes with a session's cache; must be left out with --simulated")
    from aione_lab.widgets.page import ASKED, NOTEBOOK

    asked = {"lake": _lake(lake), "interval": interval, "simulated": simulated}
    variables = {ASKED: json.dumps(asked)} | ({} if simulated else {"REDIS_URL": _cache_url(redis)})
    # The settings beside the notebook: the page loads nothing from elsewhere, and kernels that are left are ended.
    command = [
        sys.executable, "-m", "voila", str(NOTEBOOK), f"--Voila.config_file_paths={NOTEBOOK.parent}",
        "--Voila.ip=127.0.0.1", f"--port={port}",
    ]  # fmt: skip
    return command if browser else [*command, "--no-browser"], variables


def _check_free(port: int) -> None:
    """InputError where another program listens already: voila would say so after its address was told."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise InputError.of("--port", port, "another program listens there; choose another one") from None


def _tell_what_is_shown(variables: dict[str, str]) -> None:
    """Whose states, and candles of which lake: what nobody named may be another's."""
    from aione_lab.cache import SimpleCacheHandler
    from aione_lab.widgets.page import ASKED

    found = json.loads(variables[ASKED])["lake"]
    candles = "candles as they come" if found is None else f"candles from the lake {shown_place(found)}"
    say(f"states from {SimpleCacheHandler.from_url(variables['REDIS_URL']).name}, {candles}")


def _tell_of_silence(url: str) -> None:
    """Say that a Redis cannot be used; that is no reason not to wait for it."""
    from aione_lab.cache import SimpleCacheHandler

    if url.startswith(EMBEDDED):  # a file: asking would make it
        return
    answers: list[str] = []

    async def ping() -> None:
        async with SimpleCacheHandler.from_url(url) as cache:
            await cache.ping()

    def ask() -> None:
        try:
            asyncio.run(ping())
            answers.append("")
        except CacheError as error:
            answers.append(str(error))

    asking = threading.Thread(target=ask, daemon=True)  # whose end nobody waits for: a name server may take long
    asking.start()
    asking.join(ANSWER_S)
    if problem := answers[0] if answers else "no answer":
        say(f"the cache cannot be used yet ({problem}); the page shows a session once it can be", err=True)


def _lake(given: str | None) -> str | None:
    """The lake's place for a program that runs elsewhere."""
    if given is None:
        return str(Path(DEFAULT_LAKE).absolute()) if Path(DEFAULT_LAKE).is_dir() else None
    open_lake(given)
    return given if is_address(given) else str(Path(given).absolute())


def _cache_url(given: str | None) -> str:
    """The cache's URL, checked; without one what the environment names, else the embedded one of this folder."""
    from aione_lab.cache.handler import EMBEDDED_FILE, SimpleCacheHandler
    from aione_lab.environment import Environment

    asked = given is not None
    if given is None:
        named = Environment().redis_url()
        given = f"{EMBEDDED}{quote(EMBEDDED_FILE)}" if named is None else named.get_secret_value()
    SimpleCacheHandler.from_url(given)
    if not given.startswith(EMBEDDED):
        return given
    file = Path(unquote(given.removeprefix(EMBEDDED))).absolute()  # the page's kernel runs in another folder
    if asked and not file.parent.is_dir():
        raise InputError.of("--redis", given, f"there is no folder {file.parent}")
    if file.is_file():
        with file.open("rb") as content:
            if content.read(len(SQLITE)) not in (b"", SQLITE):
                raise InputError.of("--redis", given, f"{file} is no cache")
    return EMBEDDED + quote(str(file))
