"""Settings that hold wherever pytest is started from."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked long")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # A shell starts its background jobs with SIGINT ignored, and every process below inherits that; the tests
    # of Ctrl-C need the ordinary handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # nbval opens its sanitize file relative to the current directory, so a path in pyproject.toml would only
    # work from the root; and it takes the kernel a notebook names, which need not be this environment.
    option = config.option
    if getattr(option, "nbval", False) or getattr(option, "nbval_lax", False):
        if option.nbval_sanitize_with is None:
            option.nbval_sanitize_with = str(ROOT / "notebooks" / "sanitize.cfg")
        if option.nbval_kernel_name is None:
            option.nbval_current_env = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long") or config.option.markexpr:
        return
    skip = pytest.mark.skip(reason="long; run with --long")
    for item in items:
        if "long" in item.keywords:
            item.add_marker(skip)
