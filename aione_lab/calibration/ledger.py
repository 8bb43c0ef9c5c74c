"""`Ledger`: every trial ever run on a symbol, because the best of many is judged by how many they were.

One SQLite file for a folder of experiments. A trial is known by its symbol and interval, the fingerprint of its data,
the rules it ran under and its thresholds: the same again is no new trial. Trials of a study resemble each other, so
each has a weight: the share of an independent trial that it stands for. Rows are only ever added, and an experiment
keeps a copy of what it was judged against. The hidden spans that have been looked at are kept here too, and the spans
that were searched. What is asked for is asked of a symbol, on whatever interval it was tried or seen: the days are the
same, and so is the luck.
"""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aione_lab.errors import InputError
from aione_lab.units import parse_symbol

FILE = "ledger.sqlite3"
POOL = "POOL"
POOL_DIGITS = 8
"""A pool's name: this and so many hex digits, a name of the form of a symbol."""
_WAIT = 60.0  # seconds for another writer: a batch of rows takes milliseconds

_SCHEMA = """
CREATE TABLE IF NOT EXISTS trials (
    id INTEGER PRIMARY KEY AUTOINCREMENT, symbol TEXT NOT NULL, interval TEXT NOT NULL, data TEXT NOT NULL,
    rules TEXT NOT NULL, thresholds TEXT NOT NULL, sharpe REAL NOT NULL, experiment TEXT NOT NULL,
    weight REAL NOT NULL DEFAULT 1, UNIQUE (symbol, interval, data, rules, thresholds)
);
CREATE TABLE IF NOT EXISTS spent (
    id INTEGER PRIMARY KEY AUTOINCREMENT, symbol TEXT NOT NULL, interval TEXT NOT NULL, start_ms INTEGER NOT NULL,
    end_ms INTEGER NOT NULL, experiment TEXT NOT NULL, choice TEXT NOT NULL, at TEXT NOT NULL,
    UNIQUE (symbol, interval, start_ms, end_ms, experiment, choice)
);
CREATE TABLE IF NOT EXISTS searched (
    id INTEGER PRIMARY KEY AUTOINCREMENT, symbol TEXT NOT NULL, interval TEXT NOT NULL, start_ms INTEGER NOT NULL,
    end_ms INTEGER NOT NULL, experiment TEXT NOT NULL, UNIQUE (symbol, interval, start_ms, end_ms, experiment)
);
"""


@dataclass(frozen=True)
class Entries:
    """What the ledger holds of one symbol: Sharpe ratios per day, in the order the trials were first run."""

    last: int  # number of the last row taken in; 0: none
    thresholds: tuple[str, ...]
    sharpes: np.ndarray  # (n,) per day of the trial's own data
    weights: np.ndarray  # (n,) independent trials that each stands for

    @property
    def n_trials(self) -> int:
        """Distinct trials: thresholds on data, repeats not counted."""
        return len(self.sharpes)

    @property
    def n_effective(self) -> float:
        """Independent trials that they amount to."""
        return float(self.weights.sum())

    @property
    def digest(self) -> str:
        """Sha256 of all of it: what an experiment pins."""
        numbers = np.stack([self.sharpes, self.weights]).tobytes()
        return hashlib.sha256("\n".join(self.thresholds).encode() + numbers).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What a study's ``ledger.json`` holds."""
        columns = (self.thresholds, self.sharpes.tolist(), self.weights.tolist())
        trials = [list(row) for row in zip(*columns, strict=True)]
        return {"last": self.last, "trials": trials}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Entries:
        """The same back."""
        return cls.of(kept["last"], kept["trials"])

    @classmethod
    def of(cls, last: int, rows: Sequence[Sequence[Any]]) -> Entries:
        """From rows of (name, Sharpe ratio, weight)."""
        numbers = np.array([row[1:] for row in rows], np.float64).reshape(len(rows), 2)
        return cls(last, tuple(row[0] for row in rows), numbers[:, 0], numbers[:, 1])


def trial_name(data: str, rules: str, thresholds: str) -> str:
    """What a trial is known by in an experiment's pinned state of the ledger."""
    return f"{data}:{rules}:{thresholds}"


@dataclass(frozen=True)
class Spent:
    """A hidden span that was looked at."""

    interval: str
    start_ms: int
    end_ms: int
    experiment: str
    choice: str  # digest of the thresholds that were scored on it
    at: str


class Ledger:
    """The ledger in ``folder``; the file is made with the first trial."""

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / FILE

    def add(
        self,
        symbol: str,
        interval: str,
        data: str,
        rules: str,
        trials: Sequence[tuple[str, float]],
        experiment: str,
        n_effective: float,
    ) -> int:
        """Enter (digest of the thresholds, Sharpe ratio per day) of each trial; how many of them were new.

        Together they amount to ``n_effective`` independent ones; a study that went on weighs its trials anew.
        """
        name = parse_symbol(symbol)
        weight = n_effective / max(len(trials), 1)
        rows = [(name, interval, data, rules, digest, float(sharpe), experiment, weight) for digest, sharpe in trials]
        with self._open() as connection:
            before = connection.total_changes
            connection.executemany(
                "INSERT OR IGNORE INTO trials (symbol, interval, data, rules, thresholds, sharpe, experiment, weight) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            added = connection.total_changes - before
            connection.execute(
                "UPDATE trials SET weight = ? "
                "WHERE symbol = ? AND interval = ? AND data = ? AND rules = ? AND experiment = ?",
                (weight, name, interval, data, rules, experiment),
            )
            return added

    def entries(self, *symbols: str, last: int | None = None) -> Entries:
        """Trials of a symbol, or of several (a pool's names), on any interval, up to row ``last`` (None: all)."""
        if not self.path.exists():
            return Entries.of(0, [])
        names = [parse_symbol(symbol) for symbol in symbols]
        with self._open() as connection:
            rows = connection.execute(
                "SELECT id, data, rules, thresholds, sharpe, weight FROM trials "
                f"WHERE symbol IN ({_marks(names)}) AND id <= ? ORDER BY id",
                (*names, 2**62 if last is None else last),
            ).fetchall()
        return Entries.of(rows[-1][0] if rows else 0, [(trial_name(*row[1:4]), *row[4:]) for row in rows])

    def search(self, symbol: str, interval: str, start_ms: int, end_ms: int, experiment: str) -> None:
        """Note the span that a study chose and judged on: for whoever hides a part of it, those days are seen."""
        with self._open() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO searched (symbol, interval, start_ms, end_ms, experiment) "
                "VALUES (?, ?, ?, ?, ?)",
                (parse_symbol(symbol), interval, start_ms, end_ms, experiment),
            )

    def pools_with(self, symbols: Sequence[str]) -> list[str]:
        """Names of the pools that had one of ``symbols`` among theirs, in order."""
        if not self.path.exists():
            return []
        names = [parse_symbol(symbol) for symbol in symbols]
        with self._open() as connection:
            rows = connection.execute(
                "SELECT DISTINCT pool.symbol FROM searched AS pool JOIN searched AS member USING (experiment) "
                f"WHERE pool.symbol GLOB ? AND member.symbol IN ({_marks(names)}) ORDER BY pool.symbol",
                (POOL + "[0-9A-F]" * POOL_DIGITS, *names),
            ).fetchall()
        return [name for (name,) in rows]

    def searched(self, symbol: str, start_ms: int, end_ms: int) -> list[str]:
        """The studies that searched a part of a span, on any interval, oldest first."""
        if not self.path.exists():
            return []
        with self._open() as connection:
            rows = connection.execute(
                "SELECT experiment FROM searched WHERE symbol = ? AND start_ms < ? AND end_ms > ? ORDER BY id",
                (parse_symbol(symbol), end_ms, start_ms),
            ).fetchall()
        return [name for (name,) in rows]

    def spend(
        self, symbol: str, interval: str, start_ms: int, end_ms: int, experiment: str, choice: str, at: str
    ) -> list[Spent]:
        """Mark a hidden span as looked at; the first mark stays. Returns the overlapping marks that are older.

        Those on other intervals are among them: the days are the same.
        Another choice under the same name is another look: a study that was deleted and made anew has seen the days.
        """
        with self._open() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO spent (symbol, interval, start_ms, end_ms, experiment, choice, at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (parse_symbol(symbol), interval, start_ms, end_ms, experiment, choice, at),
            )
        mine = (interval, start_ms, end_ms, experiment, choice)
        marks = self.spent(symbol, start_ms, end_ms)
        return list(
            itertools.takewhile(
                lambda one: (one.interval, one.start_ms, one.end_ms, one.experiment, one.choice) != mine, marks
            )
        )

    def spent(self, symbol: str, start_ms: int, end_ms: int) -> list[Spent]:
        """The marks that overlap a span, on any interval, oldest first."""
        if not self.path.exists():
            return []
        with self._open() as connection:
            rows = connection.execute(
                "SELECT interval, start_ms, end_ms, experiment, choice, at FROM spent WHERE symbol = ? "
                "AND start_ms < ? AND end_ms > ? ORDER BY id",
                (parse_symbol(symbol), end_ms, start_ms),
            ).fetchall()
        return [Spent(*row) for row in rows]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction; SQLite keeps several writers apart and rolls back what a killed one left."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_WAIT, isolation_level="IMMEDIATE")) as connection:
                connection.executescript(_SCHEMA)
                _add_weight(connection)
                with connection:
                    yield connection
        except (OSError, sqlite3.Error) as error:
            raise InputError.of("folder", str(self.path), f"cannot be used as the ledger ({error})") from None


def _marks(names: Sequence[str]) -> str:
    """Question marks for as many values."""
    return ", ".join("?" * len(names))


def _add_weight(connection: sqlite3.Connection) -> None:
    """Give a ledger of an older version the weights: its trials count in full."""
    if "weight" not in {row[1] for row in connection.execute("PRAGMA table_info(trials)")}:
        with connection:
            connection.execute("ALTER TABLE trials ADD COLUMN weight REAL NOT NULL DEFAULT 1")
