"""The verdict on simulated candles whose truth is known: a strong rebound is accepted, nothing is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from aione_lab.calibration import calibrate
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.lake.store import Lake

DAYS, N_TRIALS, SEEDS = 90, 300, range(10)
REFUSED = ("keep defaults", "not enough trades")


def verdicts(symbol: str, folder: Path) -> tuple[list[str], list[float]]:
    """The verdict of each seed's universe, printed with what it rests on and what the hidden days then gave."""
    found, earned = [], []
    for seed in SEEDS:
        exchange = SimulatedExchange(seed=seed)
        lake = Lake(folder / f"lake{seed}")
        for name in ("BTCUSDT", symbol):
            if lake.span(name, "1m") is None:
                lake.append(name, "1m", exchange.candles(name, days=DAYS))
                lake.append_funding(name, exchange.funding(name, days=DAYS))
        study = calibrate(
            lake, symbol, n_trials=N_TRIALS, seed=seed, folder=folder / f"experiments{seed}", progress=False
        )
        out, hidden = study.out_of_sample, study.reveal()
        failed = ", ".join(study.checks.index[~study.checks["passed"]])
        print(
            f"{symbol} {seed}: {study.verdict:17s} {out['expectancy']:+.3%} [{out['expectancy_low']:+.3%}, "
            f"{out['expectancy_high']:+.3%}] over {out['n_trades']:.0f} trades, DSR {study.deflated_sharpe:.3f}, PBO "
            f"{study.pbo:.2f}; hidden {hidden.metrics['expectancy']:+.3%} over {hidden.metrics['n_trades']}: "
            f"{hidden.verdict}; failed: {failed or 'nothing'}",
            flush=True,
        )
        found.append(study.verdict)
        earned.append(out["expectancy"])
    print(f"{symbol}: accepted {found.count('accept')} of {len(found)}", flush=True)
    return found, earned


@pytest.mark.long
@pytest.mark.parametrize("symbol", ["LINKUSDT"])
def test_a_strong_effect_is_accepted(symbol: str, tmp_path: Path) -> None:
    assert verdicts(symbol, tmp_path)[0].count("accept") >= 9


@pytest.mark.long
@pytest.mark.parametrize("symbol", ["ETHUSDT", "SOLUSDT"])
def test_where_nothing_is_planted_the_defaults_stay(symbol: str, tmp_path: Path) -> None:
    assert sum(one in REFUSED for one in verdicts(symbol, tmp_path)[0]) >= 9


@pytest.mark.long
@pytest.mark.parametrize("symbol", ["SUIUSDT", "DOTUSDT"])
def test_a_faint_effect_is_felt(symbol: str, tmp_path: Path) -> None:
    """It earns more than its costs on most universes; how often 90 days are enough to accept it is only printed."""
    assert sum(one > 0 for one in verdicts(symbol, tmp_path)[1]) >= 7
