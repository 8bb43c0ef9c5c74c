"""`Fleet`: the engines of many symbols side by side, so that one call takes a bar of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from aione_lab.engine import bulk
from aione_lab.engine.columns import scratch
from aione_lab.engine.custom_run import BUILT_IN
from aione_lab.engine.engine import Engine
from aione_lab.engine.records import ASSESSMENT, BAR, FEATURES, OUT, PARAMS, SIGNAL, STATE, TRADE
from aione_lab.engine.rings import ROWS
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds


class Advanced(NamedTuple):
    """What several bars of one symbol gave: features (F, n), SIGNAL (n,), ASSESSMENT and TRADE of what there was."""

    columns: np.ndarray
    signals: np.ndarray
    assessments: np.ndarray
    trades: np.ndarray


class Fleet:
    """Engines of ``thresholds``' symbols whose memories lie side by side; the records are those of ``Engine.push``.

    ``places`` says where a symbol is in ``states``, ``params`` and ``outs`` (what its last bar gave). Bars are BAR
    records of closed candles, each symbol's in order, every one once; where some are missing the sequence is broken as
    replay breaks it. Nothing is checked here: a feed and ``bars_of`` do that.
    """

    def __init__(
        self,
        thresholds: Mapping[str, Thresholds],
        *,
        interval: str = "1m",
        spec: FeatureSpec | None = None,
        settings: Settings | None = None,
        costs: Costs | None = None,
    ) -> None:
        self.interval = interval
        self.engines = [
            Engine(symbol, limits, interval=interval, spec=spec, settings=settings, costs=costs)
            for symbol, limits in thresholds.items()
        ]
        if not self.engines:
            raise InputError.of("thresholds", thresholds, "must hold at least one symbol")
        self.places = {engine.symbol: k for k, engine in enumerate(self.engines)}
        n = len(self.engines)
        self.states, self.outs, self.params = np.zeros(n, STATE), np.zeros(n, OUT), np.zeros(n, PARAMS)
        self._times = self.states["stages"]["last_time"]
        self._features = self.outs.view(np.float64).reshape(n, -1)[:, : FEATURES.itemsize // 8]
        self._own = self.engines[0]._custom is not None  # pushed one by one: each keeps a ring of its own
        self.rings = np.zeros((ROWS, 0 if self._own else n))
        for symbol, engine in zip(self.places, self.engines, strict=True):
            self._adopt(symbol, engine)
        self._no_inner = np.zeros(0, BAR)

    def _adopt(self, symbol: str, engine: Engine) -> None:
        """Let an engine live in its place of the arrays, with what it holds."""
        k = self.places[symbol]
        for name, whole in (("_state", self.states), ("_params", self.params), ("_out", self.outs)):
            whole.view(np.uint8).reshape(len(whole), -1)[k] = getattr(engine, name).view(np.uint8)
            setattr(engine, name, whole[k : k + 1])
        engine._out_bytes = engine._out.view(np.uint8)
        if not self._own:
            self.rings[:, k] = engine._ring
            engine._ring = self.rings[:, k]
        self.engines[k] = engine

    def last_time(self, symbol: str) -> int | None:
        """Open time of the symbol's last bar, UTC ms; None before the first."""
        return int(self._times[self.places[symbol]]) or None

    def features(self, places: np.ndarray) -> np.ndarray:
        """float64 (n, F) of what the last bars of ``places`` (n,) gave; a copy."""
        rows: np.ndarray = self._features[places]
        return rows

    def thresholds(self, symbol: str) -> Thresholds:
        """The thresholds in force."""
        return self.engines[self.places[symbol]].thresholds

    def set_thresholds(self, symbol: str, thresholds: Thresholds) -> None:
        """Put a set in force, with the symbol's next bar."""
        self.engines[self.places[symbol]].thresholds = thresholds

    def push(self, places: np.ndarray, bars: np.ndarray) -> dict[int, np.ndarray]:
        """One bar of each of ``places`` (no place twice) in one call; what they gave is in ``outs``.

        Returns the trades, TRADE (1,), that a gap before a bar closed, by place. InputError where an own step of the
        spec failed: the bars from that place on are then not taken.
        """
        gaps, ended = np.zeros(len(places), np.int8), np.zeros(len(places), TRADE)
        if not self._own:
            bulk.push_many(self.states, self.rings, places, bars, self._no_inner, self.params, self.outs, gaps, ended)
        else:
            for i, k in enumerate(places.tolist()):
                self._push_custom(k, bars[i : i + 1], gaps[i : i + 1], ended[i : i + 1])
        return {int(places[i]): ended[i : i + 1] for i in np.flatnonzero(gaps)}

    def _push_custom(self, k: int, bar: np.ndarray, gap: np.ndarray, ended: np.ndarray) -> None:
        engine = self.engines[k]
        time = int(bar["timestamp"][0])
        if engine.next_time not in (None, time):
            closed = engine.reset()
            gap[0] = len(closed)
            ended[: len(closed)] = closed
        engine._bar = bar
        assert engine._custom is not None
        engine._push_with(engine._custom, self._no_inner)

    def advance(self, symbol: str, bars: np.ndarray) -> Advanced:
        """Many bars of one symbol at once, as replay pushes them. InputError where an own step fails: none is taken."""
        k, n = self.places[symbol], len(bars)
        engine = self.engines[k]
        signals, alerts, trades = np.zeros(n, SIGNAL), np.zeros(n, ASSESSMENT), np.zeros(n + 1, TRADE)
        columns = np.empty((len(engine.spec.feature_names), n))
        if not n:
            return Advanced(columns, signals, alerts, trades[:0])
        rows, block = scratch()
        params, out = self.params[k : k + 1], self.outs[k : k + 1]
        finer = self._no_inner, np.zeros(n + 1, np.int64)
        # On copies: an own step may fail, and in a column of the rings each value is far from the next.
        state, ring = engine._state.copy(), engine._ring.copy()
        memory: tuple[np.ndarray, ...]
        loop, memory = bulk.replay_bars, (state, ring)
        if engine._custom is not None:
            loop, memory = bulk.replay_features, (state["stages"],)
            own_memory = engine._custom.memory.copy()
            if engine.next_time not in (None, int(bars["timestamp"][0])):
                engine._custom.forget()
            bulk.compute_features(state["features"], ring, bars, params["spec"], rows, block, columns[:BUILT_IN])
            try:
                engine._custom.fill(bars, columns[:BUILT_IN], columns[BUILT_IN:], engine._step_ms)
            except InputError:
                engine._custom.memory = own_memory
                raise
        n_alerts, n_trades = loop(
            *memory, bars, *finer, 0, n, params, out, rows, block, columns, signals, alerts, trades
        )
        engine._state.view(np.uint8)[:] = state.view(np.uint8)
        engine._ring[:] = ring
        self._features[k, : len(columns)] = columns[:, -1]  # the loop keeps those of a bar elsewhere
        return Advanced(columns, signals, alerts[:n_alerts].copy(), trades[:n_trades].copy())

    def snapshot(self) -> dict[str, bytes]:
        """``Engine.snapshot`` of each symbol."""
        return {engine.symbol: engine.snapshot() for engine in self.engines}

    def restore(self, symbol: str, blob: bytes) -> None:
        """Go on where a snapshot of this symbol stood, its thresholds included.

        InputError for damaged bytes, and where the snapshot was made with another interval, spec, settings or costs.
        """
        here = self.engines[self.places[symbol]]
        engine = Engine.restore(blob, spec=here.spec if here.spec.custom else None)
        for name in ("symbol", "interval", "spec", "settings", "costs"):
            if getattr(engine, name) != getattr(here, name):
                raise InputError.of(name, getattr(here, name), f"the snapshot was made with {getattr(engine, name)!r}")
        self._adopt(symbol, engine)
