"""The lake against a dictionary, under random sequences of operations."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from lake_workers import files_below

from aione_lab.errors import InputError
from aione_lab.lake import CANDLE_COLUMNS, Lake, fingerprint_candles
from aione_lab.lake.schema import OPTIONAL_COLUMNS, candle_frame, spacing_fault

EDGE = 1_738_368_000_000  # 2025-02-01: the universe of stamps lies around the turn of a month
STEP = 4 * 3_600_000
UNIVERSE = [EDGE + STEP * n for n in range(-20, 200)]  # into March
SYMBOLS = ("BTCUSDT", "ETHUSDT")

Row = tuple[float, ...]


def rows_of(frame: pd.DataFrame) -> dict[int, Row]:
    return dict(zip(frame.index.asi8.tolist(), map(tuple, frame.to_numpy().tolist()), strict=True))


def same(a: Row, b: Row) -> bool:
    return all(x == y or (math.isnan(x) and math.isnan(y)) for x, y in zip(a, b, strict=True))


class LakeModel(RuleBasedStateMachine):
    """Two symbols, about 220 stamps over three months, numbers from a small set so that equal rows recur."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="lake-model-"))
        self.lake = Lake(self.root)
        self.model: dict[str, dict[int, Row]] = {symbol: {} for symbol in SYMBOLS}
        self.rates: dict[int, tuple[int, float]] = {}
        self.revised = dict.fromkeys(SYMBOLS, 0)

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        first=st.integers(0, len(UNIVERSE) - 1),
        pattern=st.lists(st.booleans(), min_size=1, max_size=90),
        version=st.integers(0, 3),
        known=st.booleans(),
    )
    def append(self, symbol: str, first: int, pattern: list[bool], version: int, known: bool) -> None:
        stamps = [ms for ms, taken in zip(UNIVERSE[first:], pattern, strict=False) if taken]
        self._append(symbol, stamps, version, known)

    @rule(symbol=st.sampled_from(SYMBOLS), version=st.integers(0, 3), known=st.booleans())
    def append_one_after_the_last(self, symbol: str, version: int, known: bool) -> None:
        last = max(self.model[symbol], default=UNIVERSE[0] - STEP)
        self._append(symbol, [last + STEP], version, known)

    def _append(self, symbol: str, stamps: list[int], version: int, known: bool) -> None:
        close = np.array([100.0 + (ms // STEP + version) % 3 for ms in stamps])
        extra = np.full(len(stamps), float(version)) if known else np.full(len(stamps), np.nan)
        volume = np.full(len(stamps), 4.0 + version % 2)
        values = dict.fromkeys(("open", "high", "low", "close"), close) | {"volume": volume}
        frame = candle_frame(np.array(stamps, dtype=np.int64), values | dict.fromkeys(OPTIONAL_COLUMNS, extra))
        if spacing_fault(frame.index.asi8, "4h") is not None:  # a pattern that looks like longer candles
            with pytest.raises(InputError, match="apart"):
                self.lake.append(symbol, "4h", frame)
            return
        rows = self.model[symbol]
        new = unchanged = revised = 0
        for ms, row in rows_of(frame).items():
            old = rows.get(ms)
            if old is None:
                new += 1
            else:
                kept = old[5:] if row[4] == old[4] else [math.nan] * len(OPTIONAL_COLUMNS)
                row = row[:5] + tuple(o if math.isnan(r) else r for r, o in zip(row[5:], kept, strict=True))
                unchanged, revised = (unchanged + 1, revised) if same(row, old) else (unchanged, revised + 1)
            rows[ms] = row
        assert self.lake.append(symbol, "4h", frame) == (new, unchanged, revised)
        self.revised[symbol] += revised

    @rule(hours=st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True), late=st.integers(-9, 9))
    def append_funding(self, hours: list[int], late: int) -> None:
        stamps = [EDGE - 8 * STEP + 8 * 3_600_000 * hour + late for hour in sorted(hours)]
        rates = [hour / 1e5 + late / 1e6 for hour in sorted(hours)]
        self.lake.append_funding("BTCUSDT", pd.DataFrame({"timestamp": stamps, "funding_rate": rates}))
        for ms, rate in zip(stamps, rates, strict=True):
            self.rates[round(ms / 60_000)] = (ms, rate)

    @rule(symbol=st.sampled_from(SYMBOLS))
    def compact(self, symbol: str) -> None:
        if self.model[symbol]:
            self.lake.compact(symbol, "4h")
            months = {pd.Timestamp(ms, unit="ms").strftime("%Y-%m") for ms in self.model[symbol]}
            assert len(self.lake.files(symbol, "4h")) == len(months)

    @rule()
    def reopen(self) -> None:
        self.lake = Lake(self.root)

    @rule(symbol=st.sampled_from(SYMBOLS))
    def lose_the_manifest(self, symbol: str) -> None:
        if self.model[symbol]:
            (self.root / f"candles/interval=4h/symbol={symbol}/_manifest.json").unlink()
            assert self.lake.rebuild_manifest(symbol, "4h").rows == len(self.model[symbol])
            self.revised[symbol] = 0

    @rule(symbol=st.sampled_from(SYMBOLS), junk=st.sampled_from(["data", "temporary"]))
    def crash_leftovers_are_swept(self, symbol: str, junk: str) -> None:
        if self.model[symbol]:
            folder = self.root / f"candles/interval=4h/symbol={symbol}/month=2025-02"
            folder.mkdir(exist_ok=True)
            name = f"00000001-{'a' * 32}.parquet"
            (folder / (name if junk == "data" else f".{name}.0123456789ab.tmp")).write_bytes(b"half a file")
            self.lake = Lake(self.root)

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        a=st.integers(-5, len(UNIVERSE) + 30),
        length=st.integers(1, 120),
        offset=st.integers(-1, 1),
    )
    def read_a_range(self, symbol: str, a: int, length: int, offset: int) -> None:
        if not self.model[symbol]:
            return
        start = UNIVERSE[0] + STEP * a + offset
        end = start + STEP * length
        got = self.lake.candles(symbol, "4h", start, end)
        wanted = {ms: row for ms, row in self.model[symbol].items() if start <= ms < end}
        self._equal(got, wanted)
        assert self.lake.fingerprint(symbol, "4h", start, end) == fingerprint_candles(got)

    def _equal(self, got: pd.DataFrame, wanted: dict[int, Row]) -> None:
        rows = rows_of(got)
        assert list(rows) == sorted(wanted)
        assert all(same(rows[ms], wanted[ms]) for ms in wanted)
        assert tuple(got.columns) == CANDLE_COLUMNS

    @invariant()
    def everything_is_as_in_the_model(self) -> None:
        present = [symbol for symbol in SYMBOLS if self.model[symbol]]
        assert self.lake.symbols("4h") == present
        named = set()
        for symbol in present:
            self._equal(self.lake.candles(symbol, "4h"), self.model[symbol])
            assert self.lake.span(symbol, "4h") == (min(self.model[symbol]), max(self.model[symbol]))
            assert self.lake.rows_revised(symbol, "4h") == self.revised[symbol]
            files = self.lake.files(symbol, "4h")
            assert len(files) <= 5 * 4
            named |= {Path(file).relative_to(self.root).as_posix() for file in files}
        funding = self.lake.funding("BTCUSDT")
        assert list(zip(funding.index.asi8.tolist(), funding.tolist(), strict=True)) == sorted(self.rates.values())
        on_disk = {file for file in files_below(self.root) if file.startswith("candles") and file.endswith(".parquet")}
        assert on_disk == named


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        LakeModel,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_lake_is_a_dictionary() -> None:
    run(40, 20)


@pytest.mark.long
def test_the_lake_is_a_dictionary_500_times_50_steps() -> None:
    run(500, 50)
