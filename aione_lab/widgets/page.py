"""What the page of ``aione-lab dashboard`` runs: a Dashboard as the command line asked for it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aione_lab.live.session import Session
    from aione_lab.widgets.dashboard import Dashboard

NOTEBOOK = Path(__file__).parent / "template" / "AiOne lab.ipynb"
ASKED = "AIONE_DASHBOARD"
"""Variable with what was asked, as JSON; the cache's URL, which may hold a password, is in REDIS_URL."""

ALONE_S = 300.0  # without a page before its kernel stops working: a browser's hidden tabs speak once a minute at least
LOOK_S = 15.0
SYMBOLS = (
    "BTCUSDT", "ETHUSDT", "SOLUSDT", "LINKUSDT", "SUIUSDT", "DOTUSDT", "1000PEPEUSDT", "XMRUSDT", "USDCUSDT",
)  # fmt: skip
START_DAYS = 12  # of history before the first bar that is shown
SPEED = 60.0  # times the market's: a bar a second


def show() -> Dashboard:
    """The Dashboard of the page; its session, where it is simulated, begins in this kernel.

    Each visit has a kernel of its own. Once its page has gone it stops working, and the server ends it as idle.
    """
    from pydantic import SecretStr

    from aione_lab.widgets.dashboard import Dashboard

    asked: dict[str, Any] = json.loads(os.environ[ASKED])
    session = simulated() if asked["simulated"] else None
    if session is not None:
        board = Dashboard(session)
    else:
        board = Dashboard(redis=SecretStr(os.environ["REDIS_URL"]), lake=asked["lake"], interval=asked["interval"])
    asyncio.get_running_loop().create_task(leave(board, session), name="dashboard's page")
    return board


def simulated() -> Session:
    """A running session on the simulated exchange, at sixty times the market's speed."""
    from aione_lab.lake.simulated import ORIGIN, SimulatedExchange
    from aione_lab.live.replay_feed import ReplayFeed
    from aione_lab.live.session import Session
    from aione_lab.units import DAY_MS, to_ms

    start = to_ms(ORIGIN) + START_DAYS * DAY_MS
    session = Session(ReplayFeed(SimulatedExchange(), SYMBOLS, speed=SPEED, start=start))
    session.start()
    return session


async def leave(board: Dashboard, session: Session | None) -> None:
    """Stop the session and close the dashboard when no page has shown it for ``ALONE_S``."""
    while board.unwatched_s() < ALONE_S:
        await asyncio.sleep(LOOK_S)
    if session is not None:
        await session.stop()
    await board.aclose()
