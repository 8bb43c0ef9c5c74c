"""The verdict: what a study's choice must show before it may replace the defaults, and the sentence that says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Decision = Literal["accept", "keep defaults", "not enough trades"]

MIN_TRADES = 30
"""Fewest out-of-sample trades that a verdict rests on."""

DSR = 0.95
RANDOM_P = 0.05
MIN_LOSSES = 5
"""Fewest losing trades: what has hardly lost yet says nothing of what a loss will cost."""
LEVEL_TEXT = "90 % band"
FEW_SETS = "fewer than two sets ever traded"
LOSS = 0.25
"""Most splits in which what was best on one half of the days may lose on the other half."""


@dataclass(frozen=True)
class Check:
    """One condition: what was asked, what was found, whether it held."""

    name: str
    passed: bool
    found: str
    wanted: str
    failing: str  # the clause of the sentence where it does not hold


@dataclass(frozen=True)
class Verdict:
    """The decision, its checks and its sentence."""

    decision: Decision
    checks: tuple[Check, ...]
    sentence: str


def judge(
    metrics: Mapping[str, Any],
    *,
    deflated: float,
    loss: float,
    pbo: float,
    n_losses: float,
    n_trials: int,
    n_effective: float | None = None,
    min_trades: int = MIN_TRADES,
    against: str = "default",
) -> Verdict:
    """Judge out-of-sample ``metrics`` (``OutOfSample.metrics``), the deflated Sharpe ratio and the overfitting.

    PBO itself is shown and not asked for: among many near-equal good sets the best of one half is any of them on the
    other, and PBO is about one half although none of them loses. What is asked is how often the best of one half
    loses on the other. NaN fails a check.
    """
    n, mean = metrics["n_trades"], metrics["expectancy"]
    counted = f"{n_trials:,} sets tried"
    if n_effective is not None:
        counted += f" (worth {n_effective:,.0f} independent ones)"
    kept = f"the {against}s" if against == "default" else f"the {against}"
    low, high = metrics["expectancy_low"], metrics["expectancy_high"]
    beside = "clearly worse than" if metrics["excess_high"] < 0 else "not clearly better than"
    checks = (
        Check(
            "trades",
            n >= min_trades,
            f"{n:.0f} out of sample",
            f"at least {min_trades}",
            f"only {n:.0f} trades out of sample, {min_trades} are needed",
        ),
        Check(
            "net of costs",
            low > 0,
            f"{mean:+.3%} a trade [{_ends(low, high, ', ')}]" if n else "no trade",
            "lower end above 0",
            f"what it earned out of sample, {mean:+.3%} a trade net of costs, is "
            f"{'clearly below' if high < 0 else 'not clearly above'} nothing "
            f"({LEVEL_TEXT} {_ends(low, high)})",
        ),
        Check(
            f"better than the {against}",
            metrics["excess_low"] > 0,
            f"{metrics['excess']:+.3%} a day [{_ends(metrics['excess_low'], metrics['excess_high'], ', ')}]",
            "lower end above 0",
            f"it is {beside} the {against} ({metrics['excess']:+.3%} a day, {LEVEL_TEXT} "
            f"{_ends(metrics['excess_low'], metrics['excess_high'])})",
        ),
        Check(
            "random entries",
            metrics["random_p"] <= RANDOM_P,
            "no trade" if math.isnan(metrics["random_p"]) else f"p = {metrics['random_p']:.3f}",
            f"at most {RANDOM_P}",
            "there is no trade to hold against random entries"
            if math.isnan(metrics["random_p"])
            else f"random entries do as well in {metrics['random_p']:.0%} of the draws",
        ),
        Check(
            "deflated Sharpe",
            deflated >= DSR,
            f"none over {counted}" if math.isnan(deflated) else f"{deflated:.3f} over {counted}",
            f"at least {DSR}",
            "what was chosen never moved and has no Sharpe ratio"
            if math.isnan(deflated)
            else f"the best of {counted} would look as good by luck (deflated Sharpe {deflated:.2f})",
        ),
        Check(
            "losses seen",
            n_losses >= MIN_LOSSES,
            f"{n_losses:.0f} on all visible days",
            f"at least {MIN_LOSSES}",
            f"only {n_losses:.0f} of its trades lost, too few to know what a loss costs",
        ),
        Check(
            "holds on the other half",
            loss <= LOSS,
            FEW_SETS if math.isnan(loss) else f"loses in {loss:.0%} of the splits (PBO {pbo:.2f})",
            f"at most {LOSS:.0%}",
            FEW_SETS
            if math.isnan(loss)
            else f"what is best on one half of the days loses on the other in {loss:.0%} of the splits",
        ),
    )
    if not checks[0].passed:
        return Verdict("not enough trades", checks, f"Not enough trades: {checks[0].failing}; nothing is changed.")
    failed = [check for check in checks if not check.passed]
    if failed:
        why = "; ".join(check.failing for check in failed)
        return Verdict("keep defaults", checks, f"Keep {kept}: {why}.")
    return Verdict(
        "accept",
        checks,
        f"Accept: {mean:+.3%} a trade net of costs over {n:.0f} trades out of sample ({LEVEL_TEXT} {low:+.3%} to "
        f"{high:+.3%}), better than the {against} and random entries, and more than the luck of {n_trials:,} sets "
        "tried. It says what was, and promises nothing.",
    )


def _ends(low: float, high: float, between: str = " to ") -> str:
    """The ends of a band in words; one trade, or days that never moved, have none."""
    return "none" if math.isnan(low) or math.isnan(high) else f"{low:+.3%}{between}{high:+.3%}"
