"""Settings that hold wherever pytest is started from."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
FIRST = (
    "test_cli_calibrate.py", "test_bias.py", "test_cli_demo.py", "test_dashboard_browser.py", "test_calibrate.py",
    "test_cli_replay.py", "test_cli.py",
    "test_exchange.py", "test_kills.py", "45_vectorbt.ipynb", "test_explorer_browser.py", "test_job.py", "test_many.py",
    "test_exchange_feed.py", "test_s3.py", "test_simulated.py", "test_trial_store.py", "test_vectorbt_indicator.py",
    "test_crashes.py", "test_cluster.py", "50_calibrate.ipynb", "test_equality.py", "test_stages_naive.py",
    "test_session_cache.py", "test_journal.py", "test_custom_replay.py", "60_live.ipynb", "test_vectorbt_exits.py",
    "test_vectorbt.py", "test_session_faults.py", "test_house.py", "70_own_trigger.ipynb", "test_session.py",
    "test_session_more.py", "test_live_command.py", "20_triggers.ipynb", "10_features.ipynb", "test_custom.py",
)  # fmt: skip
"""The files that take longest, longest first: where files share a few processes, none of them is left for the end."""

# Read by OpenBLAS when numpy is imported, here and in every process a test starts. With a thread a core in each of
# several processes, the threads wait for each other by spinning, and a small product takes ten times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked long")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # A shell starts its background jobs with SIGINT ignored, and every process below inherits that; the tests
    # of Ctrl-C need the ordinary handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Files come in the order of FIRST; by itself pytest-xdist begins with those that hold the most tests.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    # nbval opens its sanitize file relative to the current directory, so a path in pyproject.toml would only
    # work from the root; and it takes the kernel a notebook names, which need not be this environment.
    option = config.option
    if getattr(option, "nbval", False) or getattr(option, "nbval_lax", False):
        if option.nbval_sanitize_with is None:
            option.nbval_sanitize_with = str(ROOT / "notebooks" / "sanitize.cfg")
        if option.nbval_kernel_name is None:
            option.nbval_current_env = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(FIRST)))  # within a file the order stays
    if config.getoption("--long") or config.option.markexpr:
        return
    skip = pytest.mark.skip(reason="long; run with --long")
    for item in items:
        if "long" in item.keywords:
            item.add_marker(skip)
