"""A session as a process of its own, to be killed: ``python session_worker.py FOLDER SPEED``."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from session_runs import DAY_MS, MINUTE_MS, NAMES, START

from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake
from aione_lab.live import keeper
from aione_lab.live.replay_feed import ReplayFeed
from aione_lab.live.session import Session

FROM = START + 2 * DAY_MS
BARS = 400


async def main(folder: Path, speed: float) -> None:
    keeper.FLUSH_S, keeper.SNAPSHOT_S = 0.1, 0.7
    feed = ReplayFeed(SimulatedExchange(seed=3), NAMES, start=FROM, end=FROM + BARS * MINUTE_MS, speed=speed)
    session = Session(feed, Lake(folder / "lake"), journal=folder / "journal")
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: asyncio.ensure_future(session.stop()))
    task = session.start()
    while session.status()["state"] in ("new", "starting") and not task.done():
        await asyncio.sleep(0.01)
    print("running", flush=True)
    await task


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))
