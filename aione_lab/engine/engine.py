"""`Engine`: the step for one symbol, one candle at a time, from Python."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aione_lab.engine import bulk
from aione_lab.engine.custom_run import BUILT_IN, CustomRun, custom_run
from aione_lab.engine.event import Event
from aione_lab.engine.params import check_kind, limits_record, params_record
from aione_lab.engine.records import BAR, LAYOUT, OUT, STATE
from aione_lab.engine.rings import ROWS, empty_ring
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError, SequenceBreak
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.classes import thresholds_for
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, EARLIEST_MS, LATEST_MS, iso, parse_symbol, to_ms

_MAGIC = b"AIONE-ENGINE\n"
_DIGEST_SIZE = 32
_STATE_BYTES = STATE.itemsize + 8 * ROWS


class Engine:
    """Push closed candles of one symbol; each ``push`` is one step of the same code that replay loops over.

    ``push`` raises SequenceBreak when a candle does not directly follow the one before it (back-fill
    and push the missing ones first, or call ``reset`` where they do not exist) and InputError for a
    candle that cannot be one. After either the engine is as it was before the call. Without thresholds the
    symbol's asset class decides, as in ``replay``.
    """

    def __init__(
        self,
        symbol: str,
        thresholds: Thresholds | None = None,
        *,
        interval: str = "1m",
        spec: FeatureSpec | None = None,
        settings: Settings | None = None,
        costs: Costs | None = None,
    ) -> None:
        self.symbol = parse_symbol(symbol)
        self.interval = interval
        self.spec = FeatureSpec() if spec is None else spec
        self.settings = Settings() if settings is None else settings
        self.costs = Costs() if costs is None else costs
        self._thresholds = thresholds_for(self.symbol) if thresholds is None else thresholds
        self._params = params_record(self._thresholds, interval, self.spec, self.settings, self.costs)
        self._step_ms = int(self._params["spec"]["step_ms"][0])
        self._state = np.zeros(1, STATE)
        self._ring = empty_ring()
        self._out = np.zeros(1, OUT)
        self._out_bytes = self._out.view(np.uint8)  # copying bytes is 100 times quicker than copying fields
        self._out["features"]["custom"] = math.nan
        self._custom = custom_run(self.spec)
        self._bar = np.zeros(1, BAR)
        self._no_inner = np.zeros(0, BAR)
        bulk.start_state(self._state, self._ring, self._params)

    @property
    def thresholds(self) -> Thresholds:
        """The thresholds in force; setting them takes effect with the next candle."""
        return self._thresholds

    @thresholds.setter
    def thresholds(self, thresholds: Thresholds) -> None:
        if not isinstance(thresholds, Thresholds):
            raise InputError.of("thresholds", thresholds, "must be a Thresholds object")
        self._params["limits"] = limits_record(thresholds, self.spec)
        self._thresholds = thresholds

    @property
    def last_time(self) -> int | None:
        """Open time of the last candle, UTC ms; None before the first."""
        return int(self._state["stages"]["last_time"][0]) or None

    @property
    def next_time(self) -> int | None:
        """Open time that the next candle must have (after ``reset``: the earliest it may have); None: any."""
        last = self.last_time
        return None if last is None else last + self._step_ms

    def push(
        self,
        candle: Mapping[str, Any],
        reference: Mapping[str, Any] | None = None,
        funding: float | None = None,
        finer: Sequence[Mapping[str, Any]] = (),
    ) -> Event:
        """One closed candle through Stage1 to Stage3.

        ``candle``: ``timestamp`` (open, int ms UTC), ``open, high, low, close, volume``, and where known
        ``quote_volume`` and ``taker_buy_volume``. ``reference``: the reference symbol's candle of the same
        timestamp. ``funding``: the rate of a funding stamp that falls into this bar. ``finer``: the candles of a
        finer interval that make up this one, in order; they tell whether stop or target came first.
        """
        if not isinstance(candle, Mapping):
            raise InputError.of("candle", candle, "must be a mapping of candle fields")
        time = _open_time(candle.get("timestamp"), self._step_ms, self.interval)
        prices = _read_candle(candle)
        self._check_sequence(time)
        close = math.nan
        if reference is not None:
            if not isinstance(reference, Mapping):
                raise InputError.of("reference", reference, "must be the reference symbol's candle, a mapping")
            if reference.get("timestamp") != time:
                raise InputError.of("reference.timestamp", reference.get("timestamp"), f"must be {time}, the candle's")
            close = _price(reference, "close", "reference")
        rate = math.nan
        if funding is not None:
            rate = _number(funding, "funding")
            if not abs(rate) < 1.0:
                raise InputError.of("funding", funding, "must be a rate between -1 and 1, such as 0.0001")
        self._bar[0] = (time, *prices, close, rate)
        inner = _read_finer(finer, time, self._step_ms) if len(finer) else self._no_inner
        if self._custom is None:
            bulk.push_bar(self._state, self._ring, self._bar, inner, self._params, self._out)
        else:
            self._push_with(self._custom, inner)
        return Event(self.symbol, self._out_bytes.copy(), self.spec)

    def _push_with(self, custom: CustomRun, inner: np.ndarray) -> None:
        """The step in three calls: features, own steps, stages. Nothing has happened where an own step fails."""
        state = self._state.view(np.uint8)
        before = state.copy(), self._ring.copy(), custom.memory.copy()
        bulk.push_features(self._state, self._ring, self._bar, self._params, self._out)
        row = self._out_bytes[: self.spec.row_dtype.itemsize].view(np.float64).reshape(-1, 1)
        try:
            custom.fill(self._bar, row[:BUILT_IN], row[BUILT_IN:], self._step_ms)
        except InputError:
            state[:], self._ring[:], custom.memory = before
            raise
        bulk.push_stages(self._state, self._bar, inner, self._params, self._out)

    def _check_sequence(self, time: int) -> None:
        expected = self.next_time
        if time == expected or expected is None:
            return
        # ``reset`` empties the features and leaves the stages their time.
        after_gap = not self._state["features"]["last_time"][0]
        if time < expected or not after_gap:
            raise SequenceBreak(
                f"{self.symbol} {self.interval}: got the candle of {iso(time)}, expected {iso(expected)}"
                f"{' or a later one' if after_gap else ''}"
            )

    def reset(self) -> np.ndarray:
        """Bars are missing for good: forget the windows and close an open trade at the last close.

        The next candle may then be any later one. Returns the closed trade as an array of TRADE (0 or 1
        long); what replay does at a gap.
        """
        bulk.break_state(self._state, self._ring, self._params, self._out)
        if self._custom is not None:
            self._custom.forget()
        return self._out["trade"][: int(self._out["trades"][0])].copy()

    def seed_days(self, highs: Any, lows: Any, last_day: Any) -> None:
        """Give the daily levels completed UTC days from before the first candle.

        ``highs, lows``: one a day, oldest first, without a day missing; ``last_day``: date of the newest.
        """
        if self.last_time is not None:
            at = f"{self.symbol} at {iso(self.last_time)}"
            raise InputError.of("engine", at, "days are seeded before any candle")
        highs, lows = _day_prices(highs, "highs"), _day_prices(lows, "lows")
        if highs.shape != lows.shape or not (highs >= lows).all():
            raise InputError.of("highs, lows", (highs.tolist(), lows.tolist()), "need equal lengths and low ≤ high")
        bulk.seed_days(self._state, self._params, highs, lows, to_ms(last_day, "last_day") // DAY_MS)

    def snapshot(self) -> bytes:
        """Everything: configuration, position in the stream, and the state's bytes, with a checksum.

        Of own triggers and factors their memory is in it, and not their code.
        """
        head = {
            "layout": LAYOUT,
            "state_bytes": _STATE_BYTES,
            "symbol": self.symbol,
            "interval": self.interval,
            "thresholds": self._thresholds.to_json(),
            "spec": self.spec.model_dump(mode="json"),
            "settings": self.settings.model_dump(mode="json"),
            "costs": self.costs.model_dump(mode="json"),
        }
        text = json.dumps(head).encode()
        memory = b"" if self._custom is None else self._custom.memory.tobytes()
        state = self._state.tobytes() + self._ring.tobytes()
        body = len(text).to_bytes(4, "big") + text + state + memory
        return _MAGIC + hashlib.sha256(body).digest() + body

    @classmethod
    def restore(cls, blob: bytes, *, spec: FeatureSpec | None = None) -> Engine:
        """The engine that ``snapshot`` saw. Raises InputError for damaged bytes or another layout.

        ``spec`` is needed where it had triggers or factors of its own, whose code no snapshot carries; it must equal
        the one that the snapshot was made with.
        """
        if not isinstance(blob, (bytes, bytearray, memoryview)):
            raise InputError.of("blob", type(blob).__name__, "must be the bytes that snapshot() returned")
        blob = bytes(blob)
        body = blob[len(_MAGIC) + _DIGEST_SIZE :]
        if blob[: -len(body)] != _MAGIC + hashlib.sha256(body).digest():
            raise InputError.of("blob", bytes(blob[:16]), "is not a whole engine snapshot")
        size = int.from_bytes(body[:4], "big")
        state = body[4 + size :]
        try:
            head = json.loads(body[4 : 4 + size])
            if head["layout"] != LAYOUT or head["state_bytes"] != _STATE_BYTES:
                raise InputError.of("blob", f"layout {head['layout']}", f"this version reads layout {LAYOUT}")
            engine = cls(
                head["symbol"],
                Thresholds.from_json(head["thresholds"]),
                interval=head["interval"],
                spec=spec_of(head["spec"], spec),
                settings=Settings(**head["settings"]),
                costs=Costs(**head["costs"]),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError.of("blob", bytes(blob[:16]), f"has a head that is none ({error!r})") from None
        memory = engine._custom.memory if engine._custom is not None else np.zeros(0, np.uint8)
        if len(state) != _STATE_BYTES + memory.nbytes:
            raise InputError.of("blob", bytes(blob[:16]), "does not hold what its head says")
        engine._state = np.frombuffer(state, STATE, 1).copy()
        engine._ring[:] = np.frombuffer(state, np.float64, ROWS, STATE.itemsize)
        if engine._custom is not None:
            engine._custom.memory = np.frombuffer(state, memory.dtype, 1, _STATE_BYTES).copy()
        return engine


def spec_of(written: Any, given: FeatureSpec | None) -> FeatureSpec:
    """The spec of a snapshot: what its head says, or the given one where that says the same."""
    if not isinstance(written, dict):
        raise TypeError("spec is no object")
    names = [entry["name"] for kind in ("triggers", "factors") for entry in written.get(kind, ())]
    if given is None:
        if names:
            allowed = f"has code that no snapshot carries: restore(blob, spec=…) with the spec that declares {names}"
            raise InputError.of("blob", ", ".join(names), allowed)
        return FeatureSpec(**written)
    check_kind("spec", given, FeatureSpec)
    now = given.model_dump(mode="json")
    changed = [name for name in {**written, **now} if written.get(name) != now.get(name)]
    if changed:
        raise InputError.of("spec", ", ".join(changed), "differs from the one that the snapshot was made with")
    return given


def _open_time(time: Any, step_ms: int, interval: str) -> int:
    if isinstance(time, (int, np.integer)) and not isinstance(time, bool):
        ms = int(time)
        if EARLIEST_MS <= ms < LATEST_MS and ms % step_ms == 0:
            return ms
    raise InputError.of("candle.timestamp", time, f"must be the open of a {interval} bar as an int in UTC ms")


def _day_prices(values: Any, name: str) -> np.ndarray:
    """float64 (n,) of one price a day."""
    try:
        prices = np.asarray(values)
    except ValueError:  # rows of unequal length
        prices = np.empty((0, 0))
    if prices.ndim != 1 or prices.dtype.kind not in "iuf" or not ((prices > 0) & np.isfinite(prices)).all():
        raise InputError.of(name, values, "must be one positive finite price a day")
    return prices.astype(np.float64)


def _number(value: Any, name: str) -> float:
    try:
        if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
            return float(value)
    except OverflowError:  # an integer beyond all floats is refused like no number
        pass
    raise InputError.of(name, value, "must be a number")


def _price(candle: Mapping[str, Any], name: str, argument: str) -> float:
    price = _number(candle.get(name), f"{argument}.{name}")
    if not 0.0 < price < math.inf:
        raise InputError.of(f"{argument}.{name}", price, "must be a positive finite price")
    return price


def _amount(candle: Mapping[str, Any], name: str) -> float:
    """An optional amount: NaN where it is absent, None or NaN."""
    value = candle.get(name)
    if value is None:
        return math.nan
    amount = _number(value, f"candle.{name}")
    if amount == amount and not 0.0 <= amount < math.inf:
        raise InputError.of(f"candle.{name}", amount, "must be a finite number ≥ 0, or NaN where it is not known")
    return amount


def _read_finer(finer: Sequence[Mapping[str, Any]], time: int, step_ms: int) -> np.ndarray:
    """(m,) of BAR of the candles that make up the one that opens at ``time``."""
    bars = np.zeros(len(finer), BAR)
    short = step_ms // len(finer)
    for i, candle in enumerate(finer):
        if not isinstance(candle, Mapping):
            raise InputError.of("finer", candle, "must be candles, each a mapping of candle fields")
        if candle.get("timestamp") != time + i * short:
            allowed = f"must be the opens of {len(finer)} candles that make up the one of {time}"
            raise InputError.of("finer.timestamp", candle.get("timestamp"), allowed)
        bars[i] = (time + i * short, *_read_candle(candle), math.nan, math.nan)
    return bars


def _read_candle(candle: Mapping[str, Any]) -> tuple[float, ...]:
    """(open, high, low, close, volume, quote_volume, taker_buy_volume), refused where no candle can be so."""
    open_, high, low, close = (_price(candle, name, "candle") for name in ("open", "high", "low", "close"))
    if high < open_ or high < close or high < low:
        raise InputError.of("candle.high", high, f"must not lie below open {open_}, low {low} or close {close}")
    if low > open_ or low > close:
        raise InputError.of("candle.low", low, f"must not lie above open {open_} or close {close}")
    volume = _number(candle.get("volume"), "candle.volume")
    if not 0.0 <= volume < math.inf:
        raise InputError.of("candle.volume", volume, "must be a finite number ≥ 0")
    return open_, high, low, close, volume, _amount(candle, "quote_volume"), _amount(candle, "taker_buy_volume")
