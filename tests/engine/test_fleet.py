"""A fleet and its engines are one thing seen from two sides."""

from __future__ import annotations

import numpy as np
import pytest
from engine_runs import walk
from test_custom import COMPILED, WORKS, failing_step

from aione_lab.engine import Engine, FeatureSpec, Trigger
from aione_lab.engine.fleet import Fleet
from aione_lab.errors import InputError, SequenceBreak
from aione_lab.thresholds.params import Thresholds
from tests.custom_examples import SPEC

NAMES = ("SOLUSDT", "ETHUSDT", "XRPUSDT")
BARS = walk(400, seed=4)
BARS["reference_close"] = BARS["funding_rate"] = np.nan  # a candle pushed on its own has neither


def candle(bar: np.ndarray) -> dict[str, float | int]:
    names = ("timestamp", "open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume")
    return {name: bar[name].item() for name in names}


def pushed(count: int, spec: FeatureSpec | None = None) -> Fleet:
    """A fleet that was given the first bars, those of every symbol at once."""
    fleet = Fleet(dict.fromkeys(NAMES, Thresholds()), spec=spec)
    for t in range(count):
        fleet.push(np.arange(len(NAMES)), np.repeat(BARS[t : t + 1], len(NAMES)))
    return fleet


@pytest.mark.parametrize("spec", [None, SPEC], ids=["built in", "own steps"])
def test_an_engine_knows_what_the_fleet_was_given(spec: FeatureSpec | None) -> None:
    fleet = pushed(100, spec)
    engine = fleet.engines[1]
    assert engine.last_time == fleet.last_time("ETHUSDT") == BARS["timestamp"][99]
    assert Engine.restore(engine.snapshot(), spec=spec).snapshot() == engine.snapshot() == fleet.snapshot()["ETHUSDT"]
    with pytest.raises(InputError, match="^engine="):
        engine.seed_days([2.0], [1.0], "2024-12-31")
    with pytest.raises(SequenceBreak):
        engine.push(candle(BARS[50]))
    engine.push(candle(BARS[100]))
    assert fleet.last_time("ETHUSDT") == BARS["timestamp"][100]
    alone = Engine("ETHUSDT", Thresholds(), spec=spec)
    for bar in BARS[:101]:
        alone.push(candle(bar))
    assert alone.snapshot() == fleet.snapshot()["ETHUSDT"]


def test_after_a_reset_a_snapshot_may_go_on_later() -> None:
    fleet = pushed(100)
    fleet.engines[2].reset()
    again = Engine.restore(fleet.snapshot()["XRPUSDT"])
    again.push(candle(BARS[120]))
    assert again.last_time == BARS["timestamp"][120]


@COMPILED
def test_where_an_own_step_fails_amid_many_bars_none_is_taken() -> None:
    spec = FeatureSpec(triggers=(Trigger(**{**WORKS, "step": failing_step}),))
    fleet = Fleet(dict.fromkeys(NAMES, Thresholds()), spec=spec)
    fleet.advance("SOLUSDT", BARS[:2])
    before = fleet.snapshot()
    with pytest.raises(InputError, match="LOUDER"):
        fleet.advance("SOLUSDT", BARS[2:50])
    assert fleet.snapshot() == before
