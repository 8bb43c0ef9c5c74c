"""The hidden days: they have no influence on a study, are looked at once, and are marked as spent by that."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aione_lab.backtest import replay
from aione_lab.backtest.replay import compute_features
from aione_lab.calibration import Calibration, FoldPlan, hidden
from aione_lab.calibration.job import provenance_of
from aione_lab.calibration.ledger import Ledger
from aione_lab.errors import InputError
from aione_lab.lake.store import Lake
from aione_lab.units import to_ms
from tests.calibration.conftest import copied

Study = Callable[..., Calibration]


def test_hidden_candles_have_no_influence_on_anything(study: Calibration, lake: Lake, small: Study, tmp_path) -> None:
    hidden = pd.Timestamp(study.experiment.hidden_from)

    def wild(symbol: str, frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.copy()
        behind = frame.index >= hidden
        assert behind.sum() == 4 * 1440
        frame.loc[behind] = frame.loc[behind].to_numpy()[::-1] * (1e6 if symbol == "LINKUSDT" else 1e-3)
        return frame

    other = copied(lake, tmp_path / "lake", wild)
    found = small(lake=other)
    assert found.digest == study.digest and found.experiment == study.experiment
    assert found.results == study.results and "hidden" not in json.dumps(dict(found.results))
    assert found.reveal().metrics != study.reveal().metrics


def test_the_hidden_span_is_looked_at_once(study: Calibration, lake: Lake, small: Study, tmp_path) -> None:
    made = study.experiment
    span = (to_ms(made.hidden_from), to_ms(made.end))
    found = small(folder=tmp_path, name="x")
    assert not Ledger(tmp_path).spent("LINKUSDT", *span)
    told = found.reveal()
    assert told.fresh and told.spent_by == () and told.metrics["n_days"] == 4
    (mark,) = Ledger(tmp_path).spent("LINKUSDT", *span)
    assert (mark.experiment, mark.choice) == ("x", found.thresholds.digest())
    for again in (found.reveal(), small(folder=tmp_path, name="x").reveal()):
        assert again.to_json() == told.to_json() and dict(again.metrics).keys() == dict(told.metrics).keys()
    assert len(Ledger(tmp_path).spent("LINKUSDT", *span)) == 1

    # What it says is what a replay of those days, begun flat and warm, gives.
    candles = {name: lake.candles(name, "1m") for name in ("LINKUSDT", "BTCUSDT")}
    funding = lake.funding("LINKUSDT")
    features = compute_features(candles["LINKUSDT"], reference=candles["BTCUSDT"], funding=funding)
    behind = candles["LINKUSDT"].index >= pd.Timestamp(made.hidden_from)
    inside = features.loc[behind]
    inside.attrs = features.attrs
    result = replay(
        candles["LINKUSDT"].loc[behind],
        found.thresholds,
        symbol="LINKUSDT",
        reference=candles["BTCUSDT"],
        funding=funding,
        features=inside,
    )
    pnl, equity = result.trade_records["pnl"], result.settings.initial_capital
    assert told.metrics["n_trades"] == len(pnl)
    assert told.metrics["total_return"] == pytest.approx(pnl.sum() / equity, abs=1e-9)

    # Grown, it would be another choice, judged on days it has seen.
    with pytest.raises(InputError, match="n_trials=60: the hidden span .* was revealed after 40 trials"):
        small(folder=tmp_path, name="x", n_trials=60)
    # Another study that hides some of the same days is told so, whatever it hides.
    later = small(folder=tmp_path, name="y", seed=1, folds=FoldPlan(n_folds=2, hidden=0.3)).reveal()
    assert not later.fresh and later.spent_by == ("x",) and "no fresh look: x had seen" in later.sentence
    assert found.reveal().fresh  # what came later does not change what was
    # So is one that hides days that others have searched: what they found may be why it was made as it is.
    before = small(folder=tmp_path, name="z", end="2025-01-14", folds=FoldPlan(n_folds=2, hidden=0.1)).reveal()
    assert not before.fresh and before.spent_by == ("x", "y") and "no fresh look: x, y had seen" in before.sentence
    # Not so on days that nobody had seen.
    other = small(folder=tmp_path / "other", name="z", end="2025-01-14", folds=FoldPlan(n_folds=2, hidden=0.1))
    assert other.reveal().fresh


def test_deleted_and_made_anew_under_its_name_a_study_has_still_seen_the_days(small: Study, tmp_path) -> None:
    first = small(folder=tmp_path, name="x")
    first.reveal()
    for path in (tmp_path / "x").iterdir():
        path.unlink()
    assert small(folder=tmp_path, name="x").reveal().fresh  # the same choice: the same look
    for path in (tmp_path / "x").iterdir():
        path.unlink()
    other = small(folder=tmp_path, name="x", seed=5)
    assert other.thresholds != first.thresholds
    assert other.reveal().spent_by == ("x",)


def test_who_is_killed_between_the_mark_and_the_look_has_looked(small: Study, worker, tmp_path) -> None:
    process = worker(tmp_path, name="x", die=["look", 1], reveal=True)
    _, err = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, err
    assert not (tmp_path / "x" / "hidden.json").exists()
    (mark,) = Ledger(tmp_path).spent("LINKUSDT", 0, 2**60)
    assert mark.experiment == "x"
    assert small(folder=tmp_path, name="y", seed=1).reveal().spent_by == ("x",)
    told = small(folder=tmp_path, name="x").reveal()
    assert told.fresh and [one.experiment for one in Ledger(tmp_path).spent("LINKUSDT", 0, 2**60)] == ["x", "y"]


def test_without_a_hidden_span_there_is_nothing_to_reveal_and_a_small_share_is_a_day(small: Study) -> None:
    with pytest.raises(InputError, match="no hidden span"):
        small(folds=FoldPlan(n_folds=3, hidden=0)).reveal()
    assert small(folds=FoldPlan(n_folds=3, hidden=0.001)).reveal().metrics["n_days"] == 1


def looked(n: int, mean: float = math.nan, low: float = math.nan, n_days: int = 12) -> dict[str, Any]:
    """Metrics of a look at hidden days."""
    return {
        "n_days": n_days, "n_trades": n, "expectancy": mean, "expectancy_low": low, "expectancy_high": mean + 0.003,
        "random_p": 0.012, "default_n_trades": 50, "default_expectancy": -0.0007,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mean", "low", "n", "verdict", "begins"),
    [
        (0.004, 0.001, 40, "accept", "Accept holds: +0.400% a trade"),
        (0.004, -0.001, 9, "accept", "Accept is not refuted: +0.400% a trade"),
        (-0.001, -0.004, 9, "keep defaults", "Keep the default: "),
        (math.nan, math.nan, 0, "not enough trades", "Not enough trades: "),
    ],
)
def test_hidden_days_hold_do_not_refute_or_refute(mean: float, low: float, n: int, verdict: str, begins: str) -> None:
    found, sentence = hidden._verdict("accept", looked(n, mean, low), ("another",))
    assert found == verdict and sentence.startswith(begins) and sentence.endswith("so it confirms little.")
    if verdict == "accept":
        assert "The default: -0.070% over 50; against random entries p = 0.012." in sentence


@pytest.mark.parametrize(
    ("before", "metrics", "words"),
    [
        ("accept", looked(1, 0.004, n_days=1), "over 1 trade on the 1 hidden day (one trade has no band)"),
        ("accept", looked(0, n_days=0), "Not enough trades: the lake has no candles of the hidden days."),
        ("keep defaults", looked(9, 0.004, 0.001), "+0.400% a trade net of costs over 9 trades on the 12 hidden days"),
        ("keep defaults", looked(0), "does not change that (trades: none at all on the 12 hidden days)."),
    ],
)
def test_what_was_seen_on_hidden_days_is_told_whatever_the_verdict(
    before: str, metrics: dict[str, Any], words: str
) -> None:
    sentence = hidden._verdict(before, metrics, ())[1]
    assert words in sentence and "nan" not in sentence


def test_of_many_looks_the_sentence_names_a_few(study: Calibration) -> None:
    """A threshold store takes sentences of 2,000 characters; the studies have names of up to a hundred."""
    before = tuple(f"{i:0>100}" for i in range(70))
    sentence = hidden._verdict("accept", looked(40, 0.004, 0.001), before)[1]
    assert f"{before[2]} and 67 others had seen these days" in sentence and before[3] not in sentence
    provenance_of(study, "LINKUSDT", "accept", f"{study.sentence} {sentence}")


def test_a_member_without_candles_of_the_hidden_days_has_no_trades_and_the_others_are_scored(
    lake: Lake, small: Study, tmp_path: Path
) -> None:
    def cut(symbol: str, frame: pd.DataFrame) -> pd.DataFrame:
        whole = frame.index < pd.Timestamp("2025-01-16", tz="UTC")
        return frame if symbol == "BTCUSDT" else frame[whole & (frame.index.day != 14)]

    pool = small(("BTCUSDT", "LINKUSDT"), lake=copied(lake, tmp_path / "lake", cut), folder=tmp_path / "studies")
    told = {symbol: pool.reveal(symbol) for symbol in ("BTCUSDT", "LINKUSDT")}
    assert told["BTCUSDT"].metrics["n_days"] == 4 and told["LINKUSDT"].metrics["n_days"] == 0
    assert told["LINKUSDT"].metrics["n_trades"] == 0 and "no candles of the hidden days" in told["LINKUSDT"].sentence


def test_what_cannot_be_scored_spends_nobody_s_days(lake: Lake, small: Study, tmp_path: Path, monkeypatch) -> None:
    pool = small(("LINKUSDT", "SOLUSDT"), folder=tmp_path, name="x")
    score = hidden._score

    def broken(study: Calibration, symbol: str, spec: Any) -> dict[str, Any]:
        if symbol == "SOLUSDT":
            raise InputError("its candles cannot be read")
        return score(study, symbol, spec)

    monkeypatch.setattr(hidden, "_score", broken)
    with pytest.raises(InputError, match="cannot be read"):
        pool.reveal("LINKUSDT")
    assert not Ledger(tmp_path).spent("LINKUSDT", 0, 2**60)
    monkeypatch.undo()
    assert pool.reveal("LINKUSDT").fresh and pool.reveal("SOLUSDT").fresh


def test_hidden_days_are_counted_where_they_have_candles(lake: Lake, small: Study, tmp_path: Path) -> None:
    def holes(symbol: str, frame: pd.DataFrame) -> pd.DataFrame:
        return frame[~frame.index.day.isin((17, 18))]

    assert small(lake=copied(lake, tmp_path / "lake", holes)).reveal().metrics["n_days"] == 2


def test_days_seen_in_candles_of_one_minute_are_not_fresh_in_those_of_five(
    lake: Lake, small: Study, tmp_path: Path
) -> None:
    both = copied(lake, tmp_path / "lake", lambda _, frame: frame)
    rules = {"open": "first", "high": "max", "low": "min", "close": "last"}
    for symbol in ("BTCUSDT", "LINKUSDT"):
        candles = both.candles(symbol, "1m")
        rest = {name: "sum" for name in candles.columns if name not in rules}
        both.append(symbol, "5m", candles.resample("5min").agg({**rules, **rest}))
    first = small(lake=both, folder=tmp_path / "studies", name="x")
    first.reveal()
    halves = FoldPlan(scheme="combinatorial", n_folds=2, n_test=1, embargo_days=0)  # what it looks back on is longer
    other = small(lake=both, folder=tmp_path / "studies", name="y", interval="5m", folds=halves)
    assert other.ledger.n_trials == len(first.sets) + len(other.sets)
    assert other.reveal().spent_by == ("x",)


def test_the_order_of_a_pool_does_not_matter_and_one_symbol_more_is_no_new_ledger(small: Study, tmp_path: Path) -> None:
    pool = small(("SOLUSDT", "LINKUSDT"), folder=tmp_path)
    pool.reveal("SOLUSDT")
    again = small(("LINKUSDT", "SOLUSDT"), folder=tmp_path)
    assert again.folder == pool.folder and again.digest == pool.digest
    other = small(("LINKUSDT", "SOLUSDT", "DOTUSDT"), folder=tmp_path)
    assert other.ledger.n_trials == len(pool.sets) + len(other.sets)
    assert not other.reveal("LINKUSDT").fresh and other.reveal("DOTUSDT").fresh
