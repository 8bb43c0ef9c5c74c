"""``lab``: JupyterLab on the notebooks."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from aione_lab.cli.options import whole_number
from aione_lab.errors import InputError

# JupyterLab would ask the network for newer versions and for news of its own.
QUIET = (
    "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    "--LabApp.news_url=None",
)


def lab(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Folder to open; the project's notebooks, else this one, if left out."),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="PORT", parser=whole_number, help="Port of the server.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser window.")] = True,
) -> None:
    """Open JupyterLab on the notebooks, with this environment's Python.

    Examples:

      aione-lab lab
      aione-lab lab my_notebooks --no-browser --port 8899
    """
    command = lab_command(folder, port, browser)
    sys.stdout.flush()
    os.execv(command[0], command)  # JupyterLab gets the terminal and its Ctrl-C


def lab_command(folder: Path | None, port: int | None, browser: bool) -> list[str]:
    """The command line that starts JupyterLab; InputError where it is not installed or there is no such folder."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise InputError("JupyterLab is not installed; install the extra: pip install 'aione-lab[lab]'")
    place = _notebooks() if folder is None else folder
    if not place.is_dir():
        raise InputError.of("DIR", str(place), "no such folder")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={place.absolute()}", *QUIET]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container one is root and means it; it listens on loopback with a token
    if port is not None and not 1 <= port <= 65535:
        raise InputError.of("--port", port, "must be a port from 1 to 65535")
    if port is not None:
        command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    return command if browser else [*command, "--no-browser"]


def _notebooks() -> Path:
    """``notebooks`` here, or of the checkout the package runs from, else the current folder."""
    for place in (Path("notebooks"), Path(__file__).resolve().parents[2] / "notebooks"):
        if place.is_dir():
            return place
    return Path(".")
