"""Scoring and search: one replay a set, worth what a plain replay gives, and a resumed study is the unbroken one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers._tpe import _truncnorm

from aione_lab.backtest import Prepared, replay
from aione_lab.calibration import Calibration, FoldPlan
from aione_lab.calibration import search as searching
from aione_lab.calibration.objective import Objective, objectives
from aione_lab.calibration.scoring import Scored
from aione_lab.calibration.search import BATCH, run_search
from aione_lab.calibration.space import Space
from aione_lab.calibration.trial_store import TrialStore
from aione_lab.errors import InputError
from aione_lab.settings import Costs, Settings
from aione_lab.units import DAY_MS
from tests.calibration.plain import TWINS

SAMPLERS = ("tpe", "random", "nsga2")
Study = Callable[..., Calibration]


def of(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [(t.number, t.params, t.values, t.user_attrs) for t in study.get_trials(deepcopy=False)]


# --- scoring -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["anchored", "combinatorial"])
def test_a_trial_is_worth_what_a_replay_of_its_set_and_a_plain_sum_give(lake, small: Study, scheme: str) -> None:
    """The visible candles alone, one set at a time, trade by trade."""
    study = small(metric=list(TWINS), n_trials=20, folds=FoldPlan(n_folds=3, n_test=1, scheme=scheme))
    made = study.experiment
    candles = {name: lake.candles(name, "1m", made.start, made.hidden_from) for name in ("LINKUSDT", "BTCUSDT")}
    assert list(study.folds.train.any(axis=1)) == [True] * 3
    cost = 2 * (Costs().fee + Costs().slippage_bps / 10_000) * Settings().position_fraction * Settings().leverage
    space = Space.of(made.space, base=made.default)
    for trial in study.optuna_study.get_trials()[:6]:
        result = replay(
            candles["LINKUSDT"],
            space.thresholds(trial.params),
            symbol="LINKUSDT",
            reference=candles["BTCUSDT"],
            funding=lake.funding("LINKUSDT", made.start, made.hidden_from),
        )
        equity, trades = result.settings.initial_capital, []
        for trade in result.trade_records:
            trades.append((int(trade["entry_time"] // DAY_MS) - study.folds.first_day, float(trade["pnl"] / equity)))
            equity += trade["pnl"]
        closes: dict[int, float] = {}
        for signal in result.signal_records:
            closes[int(signal["timestamp"] // DAY_MS) - study.folds.first_day] = float(signal["equity"])
        levels = [result.settings.initial_capital, *closes.values()]
        daily = [b / a - 1 for a, b in zip(levels[:-1], levels[1:], strict=True)]
        assert len(daily) == study.folds.n_days and trial.user_attrs["n_trades"] == len(trades)
        for place, (name, twin) in enumerate(TWINS.items()):
            by_fold = []
            for test in study.folds.test:
                inside = [one for one in trades if test[one[0]]]
                by_fold.append(twin(inside, [r for r, there in zip(daily, test, strict=True) if there], cost))
            assert trial.user_attrs[f"fold_{name}"] == pytest.approx(by_fold, rel=1e-9, abs=1e-12)
            assert trial.values[place] == pytest.approx(sum(by_fold) / 3, rel=1e-9, abs=1e-12)
        assert trial.user_attrs["fold_trades"] == [sum(test[day] for day, _ in trades) for test in study.folds.test]


def test_each_set_is_replayed_once_and_no_batch_is_larger_than_told(small: Study, monkeypatch) -> None:
    asked: list[int] = []
    seen: list[str] = []
    real = Prepared.evaluate

    def counted(self: Prepared, sets: Any, **rest: Any) -> Any:
        sets = list(sets)
        asked.append(len(sets))
        seen.extend(one.digest() for one in sets)
        return real(self, sets, **rest)

    monkeypatch.setattr(Prepared, "evaluate", counted)
    study = small(space={"tp_mult": (1, 3, 1), "sl_mult": (0.5, 1.5, 0.5)}, n_trials=45)  # nine sets: most are repeats
    *searched, default = seen
    assert sorted(searched) == sorted({*searched}) == sorted(one.digest() for one in study.sets)
    assert len(searched) <= 9 and default == study.default.digest()
    assert max(asked) <= BATCH
    repeats = study.trials.groupby(["tp_mult", "sl_mult"])["expectancy"].nunique()
    assert len(study.trials) == 45 and (repeats == 1).all()  # the same set, the same value


def test_several_metrics_and_other_samplers_and_seeds(small: Study, study: Calibration) -> None:
    several = small(metric=("expectancy", "max_drawdown"))
    assert [d.name for d in several.optuna_study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert len(several.optuna_study.best_trials) >= 1
    digests = {small(sampler=sampler, n_trials=60).digest for sampler in SAMPLERS}
    assert len(digests | {study.digest, several.digest, small(seed=1).digest}) == 6
    assert small().digest == study.digest


# --- the search by itself: a score that costs nothing ------------------------------------------------------------

SPACE = Space.of(["tp_mult", "sl_mult", "min_reasons_for_alert"])


def bowl(params: Any) -> list[Scored]:
    """A smooth hill with many ties: what a sampler must not let the order in by."""
    values = [round(-((one["tp_mult"] - 3) ** 2) - one["sl_mult"], 0) for one in params]
    return [
        Scored((value, one["tp_mult"]), {"n": i}) for i, (one, value) in enumerate(zip(params, values, strict=True))
    ]


def single(params: Any) -> list[Scored]:
    return [Scored(one.values[:1], {"set": str(p)}) for p, one in zip(params, bowl(params), strict=True)]


def double(params: Any) -> list[Scored]:
    return [Scored(one.values, {"set": str(p)}) for p, one in zip(params, bowl(params), strict=True)]


CASES: dict[str, tuple[Any, tuple[Objective, ...]]] = {
    "one": (single, objectives("expectancy")),
    "two": (double, objectives(["expectancy", "max_drawdown"])),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("case", CASES)
def test_a_study_cut_after_any_number_of_trials_and_gone_on_with_is_the_unbroken_one(
    sampler: str, case: str, tmp_path
) -> None:
    score, aims = CASES[case]
    total = 70
    long = of(run_search(score, SPACE, aims, total, sampler=sampler, seed=4))
    for cut in (25, 40, 57):
        store = TrialStore(tmp_path / f"{cut}.sqlite3", "x", [one.direction for one in aims])
        short = run_search(score, SPACE, aims, cut, sampler=sampler, seed=4, store=store)
        assert of(short) == long[:cut]
        store.close()
        store = TrialStore(tmp_path / f"{cut}.sqlite3", "x", [one.direction for one in aims])
        assert of(run_search(score, SPACE, aims, total, sampler=sampler, seed=4, store=store)) == long, cut
        assert of(store.study()) == long
        store.close()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_cut_amid_a_batch_is_the_unbroken_one(sampler: str, tmp_path) -> None:
    """Whoever fails while a batch is scored has written none of it, at whatever batch."""
    aims = objectives("expectancy")
    long = of(run_search(single, SPACE, aims, 100, sampler=sampler, seed=9))
    store = TrialStore(tmp_path / "s.sqlite3", "x", ["maximize"])
    for batches in (1, 1, 2):  # how many are written before the one that fails
        calls = [batches + bool(store.trials())]  # what is there is scored again first

        def failing(params: Any, calls: list[int] = calls) -> list[Scored]:
            calls[0] -= 1
            if calls[0] < 0:
                raise KeyboardInterrupt
            return single(params)

        before = len(store.trials())
        with pytest.raises(KeyboardInterrupt):
            run_search(failing, SPACE, aims, 100, sampler=sampler, seed=9, store=store)
        assert len(store.trials()) == before + batches * BATCH
        assert of(store.study()) == long[: before + batches * BATCH]
    assert of(run_search(single, SPACE, aims, 100, sampler=sampler, seed=9, store=store)) == long


def test_another_seed_gives_other_trials_and_the_sampler_learns() -> None:
    aims = objectives("expectancy")
    first, second = (run_search(single, SPACE, aims, 120, seed=seed) for seed in (0, 1))
    assert of(first) != of(second)
    values = np.array([t.value for t in first.get_trials()])
    assert values[-40:].mean() > values[:40].mean()


@pytest.mark.parametrize("case", CASES)
def test_the_faster_tpe_proposes_what_optunas_own_does_and_leaves_optuna_as_it_was(case: str, monkeypatch) -> None:
    score, aims = CASES[case]
    before = _truncnorm._log_ndtr, _truncnorm.erf
    fast = run_search(score, SPACE, aims, 120, seed=3)
    assert (_truncnorm._log_ndtr, _truncnorm.erf) == before

    def refuse(*_: Any) -> None:
        raise AssertionError("Optuna's own ln Φ was asked")

    with monkeypatch.context() as slow:
        slow.setattr(searching, "FastTPE", optuna.samplers.TPESampler)
        own = run_search(score, SPACE, aims, 120, seed=3)
        slow.setattr(_truncnorm, "_log_ndtr", refuse)
        with pytest.raises(AssertionError, match="own ln"):
            run_search(score, SPACE, aims, 80, seed=3)
    assert of(fast) == of(own)
    with monkeypatch.context() as never:
        never.setattr(_truncnorm, "_log_ndtr", refuse)
        never.setattr(_truncnorm, "erf", refuse)
        assert of(run_search(score, SPACE, aims, 80, seed=3)) == of(fast)[:80]


def test_a_trial_without_one_of_the_parameters_counts_for_nothing_in_either_tpe() -> None:
    """As where a study of other fields was added by hand."""
    study = optuna.create_study()
    wide = SPACE.distributions
    for i in range(60):
        names = list(wide)[: 1 if i % 7 == 0 else None]
        trial = study.ask({name: wide[name] for name in names})
        study.tell(trial, sum(map(float, trial.params.values())))
    asked = [trial for trial in study.get_trials() if len(trial.params) == len(wide)]
    rows = []
    for kind in (searching.FastTPE, optuna.samplers.TPESampler):
        sampler = kind(seed=1, multivariate=True)
        for _ in range(2):
            rows.append(sampler._get_internal_repr(study.get_trials(), wide, study))
    for found in rows:
        assert {name: values.tolist() for name, values in found.items()} == {
            name: [wide[name].to_internal_repr(trial.params[name]) for trial in asked] for name in wide
        }


def test_stored_trials_that_score_otherwise_now_stop_the_study(tmp_path) -> None:
    aims = objectives("expectancy")
    store = TrialStore(tmp_path / "s.sqlite3", "x", ["maximize"])
    run_search(single, SPACE, aims, 30, store=store)

    def moved(params: Any) -> list[Scored]:
        return [Scored((one.values[0] + 1e-12,), one.attributes) for one in single(params)]

    with pytest.raises(InputError, match=r"trial 0: .*have changed"):
        run_search(moved, SPACE, aims, 60, store=store)
    with pytest.raises(InputError, match=r"trial 20: .*have changed"):  # another seed asks the cut batch anew
        run_search(single, SPACE, aims, 60, seed=1, store=store)
    assert len(store.trials()) == 30


def test_progress_is_told_batch_by_batch_and_an_unknown_sampler_refused() -> None:
    told: list[tuple[int, int]] = []
    run_search(single, SPACE, objectives("expectancy"), 50, report=lambda *one: told.append(one))
    assert told == [(0, 50), (20, 50), (40, 50), (50, 50)]
    with pytest.raises(InputError, match="sampler='cma'"):
        run_search(single, SPACE, objectives("expectancy"), 20, sampler="cma")
    assert searching.SAMPLERS == SAMPLERS
