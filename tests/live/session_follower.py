"""A second process that follows a session through its cache: prints the last states as JSON when the session ends."""

from __future__ import annotations

import asyncio
import json
import sys

from aione_lab.cache import SimpleCacheHandler
from aione_lab.live import follow_assets
from aione_lab.live.asset_follower import ENDED


async def main(url: str) -> None:
    assets: dict[str, object] = {}
    problems = []
    async with SimpleCacheHandler.from_url(url) as cache:
        async for update in follow_assets(cache):
            assets = dict(update.assets) if update.whole else {**assets, **update.assets}
            if update.problem:
                problems.append(update.problem)
            if not assets:
                print("listening", flush=True)
            if update.problem == ENDED and assets:
                break
    print(json.dumps({"assets": assets, "problems": problems}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
