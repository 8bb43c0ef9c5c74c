"""What the page of ``aione-lab dashboard`` runs: a Dashboard as the command line asked for it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aione_lab.widgets.dashboard import Dashboard

NOTEBOOK = Path(__file__).parent / "template" / "AiOne lab.ipynb"
ASKED = "AIONE_DASHBOARD"
"""Variable with what was asked, as JSON; the cache's URL, which may hold a password, is in REDIS_URL."""

SYMBOLS = (
    "BTCUSDT", "ETHUSDT", "SOLUSDT", "LINKUSDT", "SUIUSDT", "DOTUSDT", "1000PEPEUSDT", "XMRUSDT", "USDCUSDT",
)  # fmt: skip
START_DAYS = 12  # of history before the first bar that is shown
SPEED = 60.0  # times the market's: a bar a second


def show() -> Dashboard:
    """The Dashboard of the page; its session, where it is simulated, begins in this kernel."""
    from pydantic import SecretStr

    from aione_lab.widgets.dashboard import Dashboard

    asked: dict[str, Any] = json.loads(os.environ[ASKED])
    if asked["simulated"]:
        return simulated()
    return Dashboard(redis=SecretStr(os.environ["REDIS_URL"]), lake=asked["lake"], interval=asked["interval"])


def simulated() -> Dashboard:
    """A Dashboard of a session on the simulated exchange, at sixty times the market's speed."""
    from aione_lab.lake.simulated import ORIGIN, SimulatedExchange
    from aione_lab.live import ReplayFeed
    from aione_lab.live.session import Session
    from aione_lab.units import DAY_MS, to_ms
    from aione_lab.widgets.dashboard import Dashboard

    start = to_ms(ORIGIN) + START_DAYS * DAY_MS
    session = Session(ReplayFeed(SimulatedExchange(), SYMBOLS, speed=SPEED, start=start))
    session.start().add_done_callback(_ended)
    return Dashboard(session)


def _ended(task: Any) -> None:
    if not task.cancelled():
        task.result()  # the event loop tells of what went wrong
