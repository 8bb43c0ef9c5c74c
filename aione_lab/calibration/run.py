"""`calibrate`: from a lake and a symbol to a study on disk, or on with one that is there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import optuna

from aione_lab.calibration.experiment import FILE, Experiment, FoldPlan, held, write_json
from aione_lab.calibration.judging import daily_sharpes, effective, judged_by
from aione_lab.calibration.ledger import Entries, Ledger
from aione_lab.calibration.markets import REFERENCE
from aione_lab.calibration.objective import objectives
from aione_lab.calibration.place import (
    LEDGER_FILE,
    N_TRIALS,
    RESULTS_FILE,
    STUDY_FILE,
    make_place,
    read_entries,
    settle,
)
from aione_lab.calibration.plan import place_of, plan, with_trials_of
from aione_lab.calibration.plateau import FEWEST_NEIGHBOURS
from aione_lab.calibration.search import Report
from aione_lab.calibration.space import Fields, Space
from aione_lab.calibration.study import Calibration
from aione_lab.calibration.study_run import OtherData, experiment_folds, run_study
from aione_lab.calibration.trial_store import TrialStore
from aione_lab.calibration.verdict import MIN_TRADES
from aione_lab.engine.params import check_kind
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import AioneError, InputError
from aione_lab.lake.progress import ProgressCallback, progress_reporter
from aione_lab.lake.store import Lake
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import to_ms

if TYPE_CHECKING:
    from distributed import Client

EXPERIMENTS = "experiments"

optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line a trial is no progress bar


def calibrate(
    lake: Lake,
    symbol: str | Sequence[str],
    *,
    interval: str = "1m",
    start: Any = None,
    end: Any = None,
    reference: str | None = REFERENCE,
    n_trials: int | None = None,
    metric: str | Sequence[str] = "profit_factor",
    space: Fields | None = None,
    base: Thresholds | None = None,
    folds: FoldPlan | str | None = None,
    min_trades: int = MIN_TRADES,
    sampler: str = "tpe",
    seed: int = 0,
    spec: FeatureSpec | None = None,
    settings: Settings | None = None,
    costs: Costs | None = None,
    folder: str | Path | None = EXPERIMENTS,
    name: str | None = None,
    progress: ProgressCallback | bool | None = None,
    cluster: Any = None,
    storage: str | None = None,
) -> Calibration:
    """Search the thresholds of ``symbol``, choose a plateau, and judge it on days that had no part in the choice.

    What there was to choose from was proposed by one search that saw the scores of all folds; only the hidden days
    are free of that.

    Parameters
    ----------
    lake, symbol, interval, start, end
        Several symbols are studied together: a shared set first, for a portfolio of equal shares, and a symbol deviates
        from it only where its own choice passes the same gate against the shared one (``study.by_symbol``,
        ``study.thresholds_for``), in whatever order they are named. Candles to study: ``start`` ≤ time < ``end``, as
        far as the lake has them. The last days stay hidden (``folds.hidden``); they are not read until
        ``study.reveal()``.
    reference
        Symbol that stands for the market, used where the lake holds it; None: none.
    n_trials, sampler, seed
        Optuna's trials (at least 20; None: those that the study has, 200 where it is new), sampler ("tpe", "random",
        "nsga2") and seed.
    metric
        ``profit_factor, win_rate, max_drawdown, sharpe`` or ``expectancy``, or several of them (Pareto): the first
        one is what the plateau is chosen by.
    space
        Thresholds to search: names, or names with (low, high[, step]); None: all but ``dynamic_rsi_multiplier``.
    base
        The default set: what is not searched and what is compared with; None: the symbol's asset class, else
        defaults. Several symbols share the defaults as what is not searched, and are compared each with its class.
    folds
        "anchored" (None), "rolling", "combinatorial", or a ``FoldPlan``.
    folder, name
        The study goes to ``folder/name`` and goes on from what is there; the name is made from the design where none
        is given. The ledger of all trials lies in ``folder``. None as folder: nothing is written, and the verdict
        counts the study's own trials only.
    progress
        A callback ``(what, done, total)``, False for none; None: a bar on a terminal.
    cluster, storage
        A Dask ``Client`` or a scheduler's address: its workers run the trials, and must see the lake and, unless
        ``storage`` is the URL of a database for Optuna, ``folder``. What they propose depends on who is done when, so
        that such a study can be judged again but not searched again bit for bit.

    Raises InputError for arguments that cannot be used and for a ``name`` that holds another study, LakeError where
    the lake lacks the candles.
    """
    check_kind("lake", lake, Lake)
    experiment = plan(
        lake,
        symbol,
        interval=interval,
        start=start,
        end=end,
        reference=reference,
        n_trials=n_trials,
        metric=metric,
        space=space,
        base=base,
        folds=folds,
        min_trades=min_trades,
        sampler=sampler,
        seed=seed,
        spec=spec,
        settings=settings,
        costs=costs,
        cluster=cluster is not None,
    )
    if n_trials is None and isinstance(folder, str | os.PathLike):
        experiment = with_trials_of(place_of(experiment, folder, name), experiment)
    return run_experiment(
        experiment, lake, folder=folder, name=name, spec=spec, progress=progress, cluster=cluster, storage=storage
    )


def run_experiment(
    experiment: Experiment,
    lake: Lake,
    *,
    folder: str | Path | None = EXPERIMENTS,
    name: str | None = None,
    spec: FeatureSpec | None = None,
    progress: ProgressCallback | bool | None = None,
    cluster: Any = None,
    storage: str | None = None,
) -> Calibration:
    """Run an experiment, or go on with it, in ``folder/name``; see ``calibrate``.

    Killed at any instant and called again, it goes on after the last batch that is on disk. ``spec`` is needed where
    the experiment has own triggers or factors, which are code.
    """
    spec = experiment.whole_spec(spec)
    if not (callable(progress) or progress is None or isinstance(progress, bool)):
        raise InputError.of("progress", progress, "must be a callback, False for none or None for a bar")
    if storage is not None and cluster is None:
        raise InputError.of("storage", "…", "is for a study on a cluster: give cluster= too")
    if folder is None and cluster is not None:
        raise InputError.of("folder", folder, "a study on a cluster needs a folder")
    experiment_folds(experiment)  # too short a span is refused before anything is made
    space = Space.of(experiment.space, base=experiment.default, spec=spec)
    if space.size <= FEWEST_NEIGHBOURS:
        raise InputError.of(
            "space", list(space.ranges), f"holds {space.size} sets, at least {FEWEST_NEIGHBOURS + 1} are needed"
        )
    searched = 0
    with progress_reporter(progress, f"calibrating {experiment.title}") as tell, contextlib.ExitStack() as stack:

        def report(done: int, total: int) -> None:
            nonlocal searched
            searched = done
            tell("trials", done, total)

        if folder is None:
            return run_study(experiment, lake, spec=spec, report=report)
        if not isinstance(folder, str | os.PathLike):
            raise InputError.of("folder", folder, "must be the path of a folder, or None")
        place = place_of(experiment, folder, name)
        share = None if cluster is None else _share(cluster, storage, stack)
        make_place(place)
        with held(place):
            new = not (place / FILE).exists()
            try:
                return _run_in(place, experiment, lake, Ledger(place.parent), spec, report, share)
            except AioneError:
                if new and not searched:  # refused: nothing of it stays
                    shutil.rmtree(place)
                raise


class Share(NamedTuple):
    """The cluster that runs a study's trials, and the database they share (None: a journal in the folder)."""

    client: Client
    storage: str | None


def _share(cluster: Any, storage: str | None, stack: contextlib.ExitStack) -> Share:
    """Connected for as long as ``stack`` lasts."""
    from aione_lab.calibration.cluster import check_storage, connected

    if storage is not None:
        check_storage(storage)
    return Share(stack.enter_context(connected(cluster)), storage)


def _run_in(
    place: Path,
    experiment: Experiment,
    lake: Lake,
    ledger: Ledger,
    spec: FeatureSpec | None,
    report: Report,
    share: Share | None,
) -> Calibration:
    before = settle(place, experiment)
    store = TrialStore(place / STUDY_FILE, experiment.title, [one.direction for one in objectives(experiment.metric)])
    try:
        known = {} if before is None else before.data
        if share is not None:
            from aione_lab.calibration.cluster import run_trials

            run_trials(share.client, experiment, lake, place, store, storage=share.storage, spec=spec, report=report)
        study = run_study(experiment, lake, spec=spec, store=store, report=report, known=known)
    except OtherData as error:
        held_other = f"the study in {place} was made with other {error} than the lake holds by now"
        raise InputError.of("name", place.name, f"{held_other}; take another name for a study of these") from None
    finally:
        store.close()
    pinned = place / LEDGER_FILE
    same = before is not None and before.n_trials == experiment.n_trials
    entries = read_entries(pinned, experiment) if same and pinned.exists() else None
    found = entered(ledger, study, place.name) if entries is None else entries
    # The experiment first: killed between the two it is the longer one, whose ledger is still to be pinned.
    study.experiment.save(place)
    if entries is None:
        write_json(pinned, {N_TRIALS: experiment.n_trials, **{title: one.to_json() for title, one in found.items()}})
    study = replace(judged_by(study, found), folder=place)
    write_json(place / RESULTS_FILE, {"digest": study.digest, **study.results})
    from aione_lab.calibration.report import write_report  # with Plotly: a study without a folder needs none

    write_report(study)
    return study


def entered(ledger: Ledger, study: Calibration, name: str) -> dict[str, Entries]:
    """Enter the study's trials, by title and by symbol, and return the state of the ledger that it is judged by.

    A pool is judged by the trials of every pool that shares a symbol with it, or one symbol more would be a new ledger.
    """
    made = study.experiment
    span = to_ms(made.start, "start"), to_ms(made.hidden_from, "hidden_from")
    found = {}
    for title, tables in ((study.symbol, study.tables), *((one.symbol, one.tables) for one in study.members)):
        sharpes = daily_sharpes(tables.returns)
        trials = [(one.digest(), float(sharpe)) for one, sharpe in zip(study.sets, sharpes, strict=True)]
        data = made.data_of(title)
        ledger.add(title, made.interval, data, made.rules, trials, name, effective(tables))
        ledger.search(title, made.interval, span[0], span[1], name)
    for title in made.titles:
        pools = [] if title in made.symbols else ledger.pools_with(made.symbols)
        found[title] = ledger.entries(title, *pools)
    return found
