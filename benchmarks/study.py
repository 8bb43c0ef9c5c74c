"""A study of 300 trials over the symbol-year, beside the straight Optuna loop and a vectorbt grid of the same sets."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna

from aione_lab import Lake, Thresholds, calibrate, replay
from aione_lab.backtest.replay import compute_features
from aione_lab.calibration.experiment import Experiment
from aione_lab.calibration.markets import Markets
from aione_lab.calibration.objective import objectives
from aione_lab.calibration.plan import plan
from aione_lab.calibration.scoring import Scorer
from aione_lab.calibration.search import run_search
from aione_lab.calibration.space import Space
from aione_lab.calibration.study_run import experiment_folds
from aione_lab.calibration.trial_store import TrialStore
from benchmarks.market import REFERENCE, SYMBOL, Market
from benchmarks.stages import vectorbt_portfolio
from benchmarks.timing import Row, row, time_once, yardstick_seconds

GROUP = "a study: TPE trials over the symbol-year, each judged on its folds, ending in SQLite"
_VECTORBT_SETS = 10  # of the study's; the time a set does not depend on how many


def bench_study(market: Market) -> list[Row]:
    """The search alone, the whole of ``calibrate``, Optuna's own loop over the same engine, vectorbt's grid."""
    n, repeats = market.size.trials, min(market.size.repeats, 3)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lake = Lake(folder / "lake")
        lake.append(SYMBOL, "1m", market.candles)
        lake.append(REFERENCE, "1m", market.reference)
        lake.append_funding(SYMBOL, market.funding.to_frame())
        experiment = plan(lake, SYMBOL, n_trials=n, folds=market.size.folds)
        folds, aims = experiment_folds(experiment), objectives(experiment.metric)
        space = Space.of(experiment.space, base=experiment.default)
        seconds: list[float] = []
        with Markets(experiment, lake, experiment.spec, folds) as markets:
            for turn in range(repeats + 1):  # the first warms up
                scorer = Scorer(markets.measure, space, folds, aims)

                def search(place: Path = folder / f"{turn}.sqlite3", scorer: Scorer = scorer) -> None:
                    store = TrialStore(place, SYMBOL, ["maximize"])
                    run_search(scorer.score, space, aims, n, store=store)
                    store.close()

                seconds.append(time_once(search))
            sets = list(scorer.sets)
        yard = yardstick_seconds()
        rows = [
            row(
                GROUP,
                f"search of {n} trials, candles prepared",
                seconds[1:],
                unit="s",
                yard=yard,
                target="≤ 3 s",
                note=f"{len(sets)} distinct sets",
            )
        ]
        whole = [
            time_once(
                lambda turn=turn: calibrate(  # type: ignore[misc]
                    lake, SYMBOL, n_trials=n, folds=market.size.folds, folder=folder / f"e{turn}", progress=False
                )
            )
            for turn in range(repeats)
        ]
        rows.append(row(GROUP, f"calibrate(n_trials={n}): from the lake to the verdict", whole, unit="s", yard=yard))
        taken = time_once(lambda: _straight_loop(experiment, lake, folder / "straight.sqlite3", n))
        rows.append(
            row(
                GROUP,
                f"study.optimize(n_trials={n}) with RDBStorage, the same engine a trial",
                [taken],
                unit="s",
                yard=yard,
                note="univariate TPE, Optuna's default; a commit for every parameter and value",
            )
        )
        rows.append(_vectorbt_grid(market, sets[:_VECTORBT_SETS], n, yard))
    return rows


def _straight_loop(experiment: Experiment, lake: Lake, place: Path, n: int) -> None:
    folds, aims = experiment_folds(experiment), objectives(experiment.metric)
    space = Space.of(experiment.space, base=experiment.default)
    with Markets(experiment, lake, experiment.spec, folds) as markets:
        scorer = Scorer(markets.measure, space, folds, aims)

        def objective(trial: optuna.Trial) -> float:
            params = {name: _suggest(trial, name, one) for name, one in space.distributions.items()}
            scored = scorer.score([params])[0]
            for key, value in scored.attributes.items():
                trial.set_user_attr(key, value)
            return scored.values[0]

        study = optuna.create_study(storage=f"sqlite:///{place}", direction="maximize")
        study.optimize(objective, n_trials=n)


def _suggest(trial: optuna.Trial, name: str, one: Any) -> float:
    if isinstance(one, optuna.distributions.IntDistribution):
        return trial.suggest_int(name, one.low, one.high, step=one.step)
    return trial.suggest_float(name, one.low, one.high, step=one.step)


def _vectorbt_grid(market: Market, sets: list[Thresholds], n: int, yard: float) -> Row:
    """Give vectorbt the BUYs of some of the study's sets, a column a set, all in one call."""
    import vectorbt as vbt

    common: dict[str, Any] = {"interval": "1m", "reference": market.reference, "funding": market.funding}
    features = compute_features(market.candles, interval="1m", reference=market.reference)
    results = [replay(market.candles, one, symbol=SYMBOL, features=features, **common) for one in sets]
    work = vectorbt_portfolio(vbt, results)
    work()  # compiled
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = time_once(work) / len(sets) * n
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return row(
        GROUP,
        f"vectorbt: {n} sets of the grid, orders and three metrics, scaled up from {len(sets)}",
        [taken],
        unit="s",
        yard=yard,
        note=f"without choosing the sets, triggers and scores; memory grew by {max(0.0, grown):,.0f} MB",
    )


def bench_universe(market: Market) -> list[Row]:
    """Many symbols, each a study with walk-forward, in two processes; memory of the largest process."""
    import os

    from aione_lab.calibration import calibrate_many
    from aione_lab.lake.simulated import SimulatedExchange

    size = market.size
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))  # this one is about two cores
    with tempfile.TemporaryDirectory() as scratch:
        lake = Lake(Path(scratch) / "lake")
        names = []
        for seed in range(-(-size.universe // 12)):
            exchange = SimulatedExchange(seed=seed)
            if seed == 0:
                lake.append(REFERENCE, "1m", exchange.candles(REFERENCE, days=size.universe_days))
            for symbol in [one for one in exchange.symbols if one not in (REFERENCE, "USDCUSDT")]:
                if len(names) == size.universe:
                    break
                name = symbol if seed == 0 else f"{symbol.removesuffix('USDT')}{seed}USDT"
                lake.append(name, "1m", exchange.candles(symbol, days=size.universe_days))
                names.append(name)
        start = time.perf_counter()
        done = list(
            calibrate_many(
                lake,
                names,
                workers=2,
                folder=Path(scratch) / "e",
                progress=False,
                n_trials=size.universe_trials,
                folds=size.folds,
            )
        )
        taken = time.perf_counter() - start
    if failed := [one for one in done if one.error]:
        raise AssertionError(f"{failed[0].symbol}: {failed[0].error}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    verdicts = [one.results["verdict"] for one in done]
    counts = ", ".join(f"{verdicts.count(one)} {one}" for one in sorted(set(verdicts)))
    return [
        row(
            GROUP,
            f"{len(names)} symbols × {size.universe_days} days × {size.universe_trials} trials, walk-forward, 2 cores",
            [taken],
            unit="s",
            target="≤ 180 s",
            note=f"{peak:,.0f} MB the largest process; {counts}",
        )
    ]
