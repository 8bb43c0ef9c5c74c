"""JupyterLab and voila on loopback, and a headless Chromium to look at them: started here, stopped by pid.

Each server has its own port, token, settings and runtime folder below the ``folder`` it is given.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SIZE = {"width": 1280, "height": 800}
START_S = 60.0
"""Seconds that a server or a page may take on a busy machine before a test gives up."""


def chromium() -> str:
    """Path of the browser; skips the test where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on PATH")
    return path


@contextmanager
def browser_page() -> Iterator[Any]:
    """A Playwright page of a Chromium of its own; ``problems`` are uncaught errors, ``said`` what was logged as one."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            page = browser.new_page(viewport=SIZE)
            page.set_default_timeout(START_S * 1000)
            page.problems, page.said = [], []
            page.on("pageerror", lambda error: page.problems.append(str(error)))
            page.on("console", lambda said: page.said.append(said.text) if said.type == "error" else None)
            yield page
        finally:
            browser.close()


def write_notebook(path: Path, cells: Sequence[str]) -> Path:
    """A notebook of code cells without outputs."""
    import nbformat

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """JupyterLab on ``folder``; yields the address with its token, for ``open_notebook``."""
    token, port = secrets.token_hex(16), free_port()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
        "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}", "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    ]  # fmt: skip
    with serving(command, folder, f"http://127.0.0.1:{port}/api?token={token}"):
        yield f"http://127.0.0.1:{port}/lab?token={token}"


@contextmanager
def voila(notebook: Path, *arguments: str) -> Iterator[str]:
    """``notebook`` as a page; yields its address."""
    port = free_port()
    command = [
        sys.executable, "-m", "voila", str(notebook), "--no-browser", "--Voila.ip=127.0.0.1", f"--port={port}",
        *arguments,
    ]  # fmt: skip
    with serving(command, notebook.parent, f"http://127.0.0.1:{port}/voila/static/main.js"):
        yield f"http://127.0.0.1:{port}/"


def open_notebook(page: Any, address: str, name: str, *, run: bool = True) -> None:
    """Open a notebook of the server at ``address`` and run all its cells, which may go on when this returns."""
    start, _, token = address.partition("?")
    page.goto(f"{start}/tree/{name}?{token}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status")
    if run:
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")


def dark_theme(page: Any) -> None:
    """Switch JupyterLab to its dark theme."""
    page.evaluate("() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.wait_for_selector("body[data-jp-theme-light='false']", state="attached")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(folder: Path) -> dict[str, str]:
    """Variables for a server and its kernels: this checkout's package, nothing of the user's settings."""
    own = folder / ".jupyter-test"
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTERLAB_SETTINGS_DIR")
    places = {name: str(own / name.lower()) for name in (*names, "JUPYTERLAB_WORKSPACES_DIR")}
    for place in places.values():
        Path(place).mkdir(parents=True, exist_ok=True)
    asked = Path(places["JUPYTERLAB_SETTINGS_DIR"]) / "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    asked.parent.mkdir(parents=True, exist_ok=True)
    asked.write_text('{"fetchNews": "false"}')  # or a pop-up asks
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **places, "PYTHONPATH": os.pathsep.join(paths), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


@contextmanager
def serving(command: list[str], folder: Path, probe: str) -> Iterator[None]:
    """The server that ``command`` starts in ``folder``: inside the block it answers at ``probe``."""
    log = folder / ".server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=out, stderr=out)
        try:
            _wait_for(process, probe, log)
            yield
        finally:
            process.terminate()  # it ends its kernels before itself
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(process: subprocess.Popen[bytes], probe: str, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(probe, timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            return  # it answers
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the server did not start:\n{log.read_text(errors='replace')[-3000:]}")
