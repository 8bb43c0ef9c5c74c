"""Fixtures that several test modules share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real candles and published worked examples beside the project; skips where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "candles").is_dir():
        pytest.skip("the folder ../shared with real candles is not here")
    return folder
