"""500 days, each with other faults: `test_session_faults` with two symbols, so that it ends in an hour or two."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from session_faults import faulty
from session_runs import market

pytestmark = pytest.mark.usefixtures("no_pauses")

BARS = 1440


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1500))
def test_a_day_of_every_fault(seed: int, tmp_path: Path) -> None:
    where = {name: market()[name] for name in ("BTCUSDT", "LINKUSDT")}
    run = asyncio.run(faulty(tmp_path, where, seed, bars=BARS, every=5, apart=seed % 2 == 0))
    assert run.check(BARS, "BTCUSDT")["bars"] == len(where) * BARS and len(run.server.done) > 280
