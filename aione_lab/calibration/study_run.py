"""`run_study`: one experiment from its candles to what was found, chosen and judged."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Mapping, Sequence

import optuna

from aione_lab.calibration.experiment import Experiment
from aione_lab.calibration.folds import Folds, look_back, make_folds
from aione_lab.calibration.judging import effective, judged_by, overfitting_of, own_entries
from aione_lab.calibration.markets import Markets, RandomEntries, pooled
from aione_lab.calibration.objective import DayTables, Objective, objectives
from aione_lab.calibration.out_of_sample import choose_by_fold, walk
from aione_lab.calibration.plateau import FEWEST_NEIGHBOURS
from aione_lab.calibration.scoring import ScoredSets, Scorer
from aione_lab.calibration.search import Report, run_search
from aione_lab.calibration.space import Space
from aione_lab.calibration.study import Calibration, Member
from aione_lab.calibration.trial_store import TrialStore
from aione_lab.calibration.verdict import Verdict
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import AioneError, InputError
from aione_lab.lake.store import Lake
from aione_lab.units import DAY_MS, INTERVALS, MINUTE_MS, to_ms


class OtherData(AioneError):
    """The lake holds other data than a study was made with; its text says which."""


def run_study(
    experiment: Experiment,
    lake: Lake,
    *,
    spec: FeatureSpec | None = None,
    store: TrialStore | None = None,
    report: Report | None = None,
    known: Mapping[str, str] | None = None,
    proposed: Sequence[optuna.trial.FrozenTrial] = (),
) -> Calibration:
    """Search, choose and judge one experiment, by the study's own trials; nothing is written but trials to ``store``.

    ``judged_by`` takes in a ledger. ``known``: fingerprints that the data must have, else OtherData; ``proposed``:
    trials to score again instead of searching. Several symbols are one portfolio of equal shares, and each of them a
    ``Member``.
    """
    spec = experiment.whole_spec(spec)
    folds = experiment_folds(experiment)
    aims = objectives(experiment.metric)
    space = Space.of(experiment.space, base=experiment.default, spec=spec)
    with Markets(experiment, lake, spec, folds) as markets:
        for symbol, fingerprint in (known or {}).items():
            if markets.fingerprints[symbol] != fingerprint:
                raise OtherData(f"candles, funding or reference of {symbol}")
        scorer = Scorer(markets.measure, space, folds, aims)
        study = run_search(
            scorer.score,
            space,
            aims,
            experiment.n_trials,
            sampler=experiment.sampler,
            seed=experiment.seed,
            store=store,
            report=report,
            proposed=proposed,
        )
        scored = scorer.scored
        if len(scored.sets) <= FEWEST_NEIGHBOURS:
            found_sets = f"only {len(scored.sets)} distinct sets came up: widen it or ask more trials"
            raise InputError.of("space", list(space.ranges), found_sets)
        default = markets.measure_apart({symbol: experiment.default_of(symbol) for symbol in experiment.symbols})
        rows = choose_by_fold(scored, aims[0])
        entries, members = _members(experiment, markets, scored, rows, default, aims[0])
        fingerprints = markets.fingerprints
    together = pooled(list(default.values()))
    experiment = experiment.replace(data=fingerprints)
    found = Calibration(
        experiment=experiment,
        folds=folds,
        optuna_study=study,
        sets=scored.sets,
        tables=scored.tables,
        default_tables=together,
        plateau=scored.choose(aims[0], folds.test),
        walk_forward=walk(scored, aims[0], rows, together, [0] * len(rows), entries, experiment.seed),
        deflated=None,
        n_effective=effective(scored.tables),
        overfitting=overfitting_of(scored.tables),
        ledger=own_entries(experiment, experiment.title, scored.sets, scored.tables),
        judged=Verdict("not enough trades", (), ""),
        members=members,
        lake=lake,
    )
    return judged_by(found, {})


def _members(
    experiment: Experiment,
    markets: Markets,
    scored: ScoredSets,
    shared: tuple[int, ...],
    default: Mapping[str, DayTables],
    objective: Objective,
) -> tuple[RandomEntries, tuple[Member, ...]]:
    """Random entries of the shared choice over all symbols, and what each symbol would have chosen for itself.

    One symbol is no member of a pool. Symbols are read one after the other, so that memory holds one of them.
    """
    alone = len(experiment.symbols) == 1
    entries, members = [], []
    for symbol in experiment.symbols:
        market = markets.market(symbol)
        entries.append(market.random_entries([scored.sets[row] for row in shared], scored.folds, experiment.seed))
        if alone:
            break
        own = dataclasses.replace(scored, tables=markets.by_symbol[symbol])
        rows = choose_by_fold(own, objective)
        mine = market.random_entries([scored.sets[row] for row in rows], scored.folds, experiment.seed)
        members.append(
            Member(
                symbol=symbol,
                sets=scored.sets,
                tables=own.tables,
                plateau=own.choose(objective, scored.folds.test),
                against_shared=walk(own, objective, rows, own.tables, shared, mine, experiment.seed),
                against_default=walk(own, objective, rows, default[symbol], [0] * len(rows), mine, experiment.seed),
                overfitting=overfitting_of(own.tables),
            )
        )
    return functools.reduce(operator.add, entries), tuple(members)


def experiment_folds(experiment: Experiment) -> Folds:
    """The folds of an experiment: whole UTC days from its first candle to where the hidden span begins."""
    plan = experiment.folds
    first = to_ms(experiment.start, "start") // DAY_MS
    last = (to_ms(experiment.hidden_from, "hidden_from") - 1) // DAY_MS
    rules = experiment.settings
    holding = rules.max_holding_minutes * MINUTE_MS
    waiting = rules.entry_valid_bars * INTERVALS[experiment.interval] if rules.entry == "limit" else 0
    return make_folds(
        first,
        last - first + 1,
        scheme=plan.scheme,
        n_folds=plan.n_folds,
        n_test=plan.n_test,
        holding_ms=holding + waiting,
        look_back_ms=look_back(experiment.spec, experiment.interval),
        embargo_days=plan.embargo_days,
    )
