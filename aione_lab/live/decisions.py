"""From what a bar gave to the dictionaries of Stage1 and Stage2: those that the stages themselves give."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from aione_lab.backtest.decode import (
    ADAPTIVE,
    decode_reasons,
    failed_stage2,
    number,
    number_lines,
    opened,
    several_fields,
    stage1_of,
    stats_dicts,
    thresholds_dict,
)
from aione_lab.backtest.signal_input import (
    AlertInput,
    assess_alert,
    engine_alert,
    is_plain_default,
    read_alert,
    read_head,
    stage2_of,
)
from aione_lab.backtest.stateless import bar_hints, bars_needed, why_none
from aione_lab.backtest.trades import next_target
from aione_lab.engine.fleet import Fleet
from aione_lab.engine.params import limits_record
from aione_lab.engine.records import SIGNAL, SIGNALS, SUPPRESSED
from aione_lab.errors import InputError
from aione_lab.live.asset_state import Plain, PlainNumbers, frozen, plain
from aione_lab.thresholds.adaptive import resolve
from aione_lab.thresholds.classes import DEFAULT_CLASSES
from aione_lab.thresholds.params import Thresholds

_log = logging.getLogger(__name__)

ALERT = SIGNALS.index("ALERT")


class _InForce(NamedTuple):
    """A symbol's thresholds, their flat JSON, and ``is_plain_default`` of them."""

    thresholds: Thresholds
    flat: Mapping[str, Any]
    is_default: bool | None


class Decisions:
    """Reads the ``outs`` of a fleet; counts the alerts of each symbol that met default thresholds."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        first = fleet.engines[0]
        self._spec, self._settings, self._costs = first.spec, first.settings, first.costs
        self._needed = bars_needed(first.spec, fleet.interval)
        self._seen = fleet.states["features"]["seen"]
        self._positions = fleet.states["stages"]["position"]
        self._sets: dict[str, _InForce] = {}
        self.default_counts: dict[str, int] = {}

    def stage1s(self, places: np.ndarray, signals: np.ndarray) -> list[dict[str, Any]]:
        """The Stage1 dictionaries of the last bars of ``places`` and their SIGNAL (n,); what they hold is frozen.

        All at once: numpy hands out a whole array in the time of a few of its values, and what is the same on many
        symbols is put into words once.
        """
        stats = stats_dicts(self._fleet.features(places), self._spec, PlainNumbers)
        adaptive = number_lines(np.stack([signals[name] for name in ADAPTIVE], axis=1))
        heads = zip(*(signals[name].tolist() for name in ("timestamp", "signal", "reasons", "suppressed")), strict=True)
        time_of, hints_of = cache(opened), cache(self._hints)
        reasons_of = cache(partial(decode_reasons, spec=self._spec))
        stage1s = []
        for k, head, numbers, four in zip(places.tolist(), heads, stats, adaptive, strict=True):
            bar, signal, mask, suppressed = head
            symbol = self._fleet.engines[k].symbol
            limits = Plain(self._in_force(symbol).flat)
            dict.update(limits, zip(ADAPTIVE, four, strict=True))
            seen = -1 if SIGNALS[signal] != "NONE" else int(self._seen[k])
            hints = hints_of(suppressed, numbers["atr_7d_days"] or 0.0, numbers["level_days"] or 0.0, seen)
            words = symbol, time_of(bar), signal, reasons_of(mask), suppressed
            stage1s.append(stage1_of(*words, numbers, limits, hints))
        return stage1s

    def _hints(self, suppressed: int, atr_7d_days: float, level_days: float, seen: int) -> tuple[str, ...]:
        """``bar_hints``; ``seen``: bars of a symbol without a signal, -1 where there is one."""
        none = "" if seen < 0 else why_none(seen, self._needed, self._fleet.interval)
        return tuple(bar_hints(SUPPRESSED[suppressed], atr_7d_days, level_days, none, self._spec))

    def _in_force(self, symbol: str) -> _InForce:
        """The thresholds in force, read anew when they change."""
        thresholds = self._fleet.thresholds(symbol)
        known = self._sets.get(symbol)
        if known is None or known.thresholds is not thresholds:
            flat = plain("thresholds", thresholds.every_field())
            known = _InForce(thresholds, flat, is_plain_default(thresholds, symbol, DEFAULT_CLASSES))
            self._sets[symbol] = known
        return known

    def quiet_fields(self, places: np.ndarray, stage1s: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Fields of assets on a bar without an ALERT, by symbol; target and stop are those of an open trade.

        ``stage1s``: the dictionaries of the last bars of ``places`` (n,).
        """
        held = np.flatnonzero(self._positions["side"][places])
        levels = {}
        for i, position in zip(held.tolist(), several_fields(self._positions[places[held]]), strict=True):
            levels[i] = number(next_target(position)), number(position["stop"])
        fields = {}
        for i, stage1 in enumerate(stage1s):
            target, stop = levels.get(i, (None, None))
            symbol = stage1["symbol"]
            fields[symbol] = {**stage1, "stage2_status": "skipped", "recommendation": "", "tp": target, "sl": stop}
        return fields

    def stage2(self, symbol: str, stage1: Mapping[str, Any]) -> Plain:
        """The frozen Stage2 of an ALERT that was the symbol's last bar: the engine's own assessment in words.

        What cannot be told gives INVALID_DATA or SYSTEM_FAILURE, as ``Stage2Processor`` does.
        """
        k = self._fleet.places[symbol]
        is_default = self._in_force(symbol).is_default

        def alert() -> AlertInput:
            if is_default is None:
                return self._read(stage1)
            signal, params = self._fleet.outs["signal"][k : k + 1].copy(), self._fleet.params[k : k + 1]
            row = self._fleet.features(np.array([k]))[0]
            return engine_alert(symbol, row, signal, params, stage1["thresholds"], is_default, self._spec)

        return self._assessed(symbol, stage1, alert, self._fleet.outs["assessment"][k])

    def look_again(self, symbol: str, stage1: Mapping[str, Any], thresholds: Thresholds) -> Plain:
        """Stage2 of a bar that is over, under other thresholds: a new dictionary, marked ``second_look``."""
        signal = np.zeros(1, SIGNAL)
        atr_7d = stage1["stats"].get("atr_7d")
        resolve(limits_record(thresholds, self._spec)[0], np.nan if atr_7d is None else atr_7d, signal[0])
        again = {**stage1, "thresholds": plain("thresholds", thresholds_dict(thresholds, signal))}
        return self._assessed(symbol, again, lambda: self._read(again), None, second_look=True)

    def _read(self, stage1: Mapping[str, Any]) -> AlertInput:
        head, interval = read_head(stage1), self._fleet.interval
        return read_alert(stage1, head, self._settings, self._costs, interval, DEFAULT_CLASSES, self._spec)

    def _assessed(
        self, symbol: str, stage1: Mapping[str, Any], read: Callable[[], AlertInput], assessment: Any, **more: Any
    ) -> Plain:
        """Stage2 of what ``read`` gives; without the engine's ``assessment`` it is assessed here."""
        started = time.perf_counter()
        try:
            alert = read()
            count = self.default_counts.get(symbol, 0) + (alert.is_default and assessment is not None)
            self.default_counts[symbol] = count
            found = assess_alert(alert) if assessment is None else assessment
            result = stage2_of(alert, found, count, self._spec)
        except InputError as error:
            result = failed_stage2(symbol, stage1["timestamp"], "INVALID_DATA", str(error))
        except Exception as error:  # one symbol's failure must not end the others
            _log.exception("Stage2 failed on %s", symbol)
            result = failed_stage2(symbol, stage1["timestamp"], "SYSTEM_FAILURE", type(error).__name__)
        result["quality_metrics"]["processing_time_ms"] = 1000 * (time.perf_counter() - started)
        once: Plain = frozen({**result, **more})  # journal, states and signals share it
        return once
