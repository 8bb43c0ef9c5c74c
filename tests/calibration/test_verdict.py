"""The verdict: every condition alone can refuse, NaN is never good, and luck is not taken for skill."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from aione_lab.calibration import Calibration
from aione_lab.calibration.judging import daily_sharpes, effective, judged_by
from aione_lab.calibration.ledger import Entries
from aione_lab.calibration.verdict import LOSS, MIN_LOSSES, MIN_TRADES, RANDOM_P, judge

GOOD = {
    "n_trades": 100.0,
    "expectancy": 0.003,
    "expectancy_low": 0.001,
    "expectancy_high": 0.005,
    "excess": 0.002,
    "excess_low": 0.001,
    "excess_high": 0.003,
    "random_p": 0.01,
}
REST = {"deflated": 0.99, "loss": 0.1, "pbo": 0.3, "n_losses": 20, "n_trials": 300}
BREAKS = [
    ("net of costs", {"expectancy_low": 0.0}, {}),
    ("net of costs", {"expectancy_low": math.nan}, {}),
    ("better than the default", {"excess_low": -1e-9}, {}),
    ("better than the default", {"excess_low": math.nan}, {}),
    ("random entries", {"random_p": RANDOM_P + 1e-9}, {}),
    ("random entries", {"random_p": math.nan}, {}),
    ("deflated Sharpe", {}, {"deflated": 0.9499}),
    ("deflated Sharpe", {}, {"deflated": math.nan}),
    ("holds on the other half", {}, {"loss": LOSS + 1e-9}),
    ("holds on the other half", {}, {"loss": math.nan}),
]


def test_what_meets_every_condition_is_accepted_and_nothing_is_promised() -> None:
    found = judge(GOOD, **REST)
    assert found.decision == "accept" and all(check.passed for check in found.checks)
    assert "promises nothing" in found.sentence and "net of costs over 100 trades" in found.sentence
    assert judge(GOOD, **{**REST, "pbo": 0.9}).decision == "accept"  # shown and not asked for
    assert judge({**GOOD, "n_trades": float(MIN_TRADES), "random_p": RANDOM_P}, **REST).decision == "accept"
    assert judge(GOOD, **{**REST, "deflated": 0.95, "loss": LOSS}).decision == "accept"


def test_without_a_trade_the_sentence_says_so_and_not_nan() -> None:
    found = judge({**GOOD, "random_p": math.nan}, **REST)
    assert "no trade to hold against random entries" in found.sentence and "nan" not in found.sentence
    none = dict.fromkeys(("expectancy", "expectancy_low", "expectancy_high", "random_p"), math.nan)
    for n_trades, excess in ((0.0, 0.0), (1.0, math.nan)):
        metrics = {**GOOD, **none, "n_trades": n_trades, "excess_low": excess, "excess_high": excess}
        metrics["expectancy"] = 0.01 if n_trades else math.nan
        found = judge(metrics, **{**REST, **dict.fromkeys(("deflated", "loss", "pbo"), math.nan)}, min_trades=1)
        said = [found.sentence, *(text for check in found.checks for text in (check.found, check.wanted))]
        assert found.decision != "accept" and not [text for text in said if "nan" in text]


@pytest.mark.parametrize(("name", "metrics", "rest"), BREAKS, ids=lambda value: str(value)[:30])
def test_each_condition_alone_keeps_the_defaults(name: str, metrics, rest) -> None:
    found = judge({**GOOD, **metrics}, **{**REST, **rest})
    assert found.decision == "keep defaults"
    assert [check.name for check in found.checks if not check.passed] == [name]
    (failed,) = (check for check in found.checks if not check.passed)
    assert found.sentence == f"Keep the defaults: {failed.failing}." and "\n" not in found.sentence


@pytest.mark.parametrize("n", [0.0, MIN_TRADES - 0.1, math.nan])
def test_few_trades_are_not_enough_whatever_else(n: float) -> None:
    for metrics in (GOOD, {name: math.nan for name in GOOD}):
        found = judge({**metrics, "n_trades": n}, **REST)
        assert found.decision == "not enough trades" and found.sentence.startswith("Not enough trades")
    assert judge({**GOOD, "n_trades": 5.0}, **REST, min_trades=5).decision == "accept"


def test_what_has_hardly_lost_is_not_believed() -> None:
    found = judge(GOOD, **{**REST, "n_losses": MIN_LOSSES - 1})
    assert found.decision == "keep defaults" and "too few to know what a loss costs" in found.sentence
    assert judge(GOOD, **{**REST, "n_losses": MIN_LOSSES}).decision == "accept"


def test_every_failing_condition_is_named() -> None:
    found = judge({**GOOD, "expectancy_low": -0.1, "random_p": 0.4}, **{**REST, "deflated": 0.2})
    assert [check.name for check in found.checks if not check.passed] == [
        "net of costs",
        "random entries",
        "deflated Sharpe",
    ]
    assert found.sentence.count(";") == 2 and "40%" in found.sentence and "0.20" in found.sentence


def judged(study: Calibration, returns: np.ndarray) -> Calibration:
    """``study`` with other daily returns (days, trials), the best of them as the choice, judged over all of them."""
    sharpes = daily_sharpes(returns.T)
    days = np.ascontiguousarray(returns.T)
    tables = dataclasses.replace(study.tables, returns=days, trades=(days != 0) * 1.0, wins=(days > 0) * 1.0)
    weights = np.full(len(sharpes), effective(tables) / len(sharpes))
    return judged_by(
        dataclasses.replace(
            study,
            tables=tables,
            plateau=dataclasses.replace(study.plateau, centre=int(sharpes.argmax())),
        ),
        {study.symbol: Entries(0, tuple(map(str, range(len(sharpes)))), sharpes, weights)},
    )


def test_the_best_of_shuffled_series_is_not_called_skill(study: Calibration) -> None:
    """200 ledgers of 60 trials without skill over 180 days, through the path that a study is judged by."""
    rng = np.random.default_rng(7)
    fat = rng.standard_t(4, 180) * 0.01
    fat -= fat.mean()
    fooled = 0
    for _ in range(200):
        found = judged(study, rng.choice(fat, (180, 60)))
        fooled += found.deflated_sharpe > 0.95
        check = found.checks.loc["deflated Sharpe"]
        assert bool(check["passed"]) == (found.deflated_sharpe >= 0.95) and "over 60 sets tried" in check["found"]
    print(f"DSR > 0.95 on {fooled} of 200 nulls")
    assert fooled <= 18


def test_an_edge_is_seen_and_more_luck_in_the_ledger_takes_it_away(study: Calibration) -> None:
    rng = np.random.default_rng(3)
    returns = rng.normal(0, 0.01, (180, 60))
    returns[:, 11] += 0.0045
    found = judged(study, returns)
    assert found.plateau.centre == 11 and found.deflated_sharpe > 0.95
    assert found.ledger.n_trials == 60
    luck = daily_sharpes(rng.normal(0, 0.01, (100_000, 180)))
    sharpes, weights = np.concatenate([found.ledger.sharpes, luck]), np.ones(60 + len(luck))
    more = judged_by(found, {study.symbol: Entries(1, (), sharpes, weights)})
    assert more.deflated_sharpe < found.deflated_sharpe
    assert math.isnan(judged(study, np.zeros((180, 60))).deflated_sharpe)
