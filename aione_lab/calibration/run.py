"""`calibrate`: from a lake and a symbol to a study on disk; and an experiment's file to the same study again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from aione_lab.calibration.data import REFERENCE
from aione_lab.calibration.experiment import (
    FILE,
    Experiment,
    FoldPlan,
    check_name,
    code_fingerprint,
    held,
    own_names,
    read_json,
    versions,
    write_json,
)
from aione_lab.calibration.folds import SCHEMES
from aione_lab.calibration.hidden import FILE as HIDDEN_FILE
from aione_lab.calibration.ledger import Entries, Ledger
from aione_lab.calibration.objective import objectives
from aione_lab.calibration.plateau import FEWEST_NEIGHBOURS
from aione_lab.calibration.space import Fields, Space
from aione_lab.calibration.study import Calibration, daily_sharpes, experiment_folds, judged_by, study_symbol
from aione_lab.calibration.trial_store import TrialStore
from aione_lab.calibration.verdict import MIN_TRADES
from aione_lab.engine.params import check_kind
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import AioneError, InputError, LakeError
from aione_lab.lake.progress import ProgressCallback, progress_reporter
from aione_lab.lake.store import Lake
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.classes import thresholds_for
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, interval_ms, iso, parse_symbol, to_ms

EXPERIMENTS = "experiments"
STUDY_FILE = "study.sqlite3"
RESULTS_FILE = "results.json"
LEDGER_FILE = "ledger.json"

optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line a trial is no progress bar


def calibrate(
    lake: Lake,
    symbol: str,
    *,
    interval: str = "1m",
    start: Any = None,
    end: Any = None,
    reference: str | None = REFERENCE,
    n_trials: int = 200,
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
) -> Calibration:
    """Search the thresholds of ``symbol``, choose a plateau, and judge it on days that had no part in the choice.

    Parameters
    ----------
    lake, symbol, interval, start, end
        Candles to study: ``start`` ≤ time < ``end``, as far as the lake has them. The last days stay hidden
        (``folds.hidden``); they are not read until ``study.reveal()``.
    reference
        Symbol that stands for the market, used where the lake holds it; None: none.
    n_trials, sampler, seed
        Optuna's trials (at least 20), sampler ("tpe", "random", "nsga2") and seed.
    metric
        ``profit_factor, win_rate, max_drawdown, sharpe`` or ``expectancy``, or several of them (Pareto): the first
        one is what the plateau is chosen by.
    space
        Thresholds to search: names, or names with (low, high[, step]); None: all but ``dynamic_rsi_multiplier``.
    base
        The default set: what is not searched and what is compared with; None: the symbol's asset class, else defaults.
    folds
        "anchored" (None), "rolling", "combinatorial", or a ``FoldPlan``.
    folder, name
        The study goes to ``folder/name`` and goes on from what is there; the name is made from the design where none
        is given. The ledger of all trials lies in ``folder``. None as folder: nothing is written, and the verdict
        counts the study's own trials only.
    progress
        A callback ``(what, done, total)``, False for none; None: a bar on a terminal.

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
    )
    return run_experiment(experiment, lake, folder=folder, name=name, spec=spec, progress=progress)


def plan(
    lake: Lake,
    symbol: str,
    *,
    interval: str = "1m",
    start: Any = None,
    end: Any = None,
    reference: str | None = REFERENCE,
    metric: str | Sequence[str] = "profit_factor",
    space: Fields | None = None,
    base: Thresholds | None = None,
    folds: FoldPlan | str | None = None,
    spec: FeatureSpec | None = None,
    settings: Settings | None = None,
    costs: Costs | None = None,
    **rest: Any,
) -> Experiment:
    """The experiment that ``calibrate`` runs, every open end resolved; see there."""
    symbol = parse_symbol(symbol)
    spec = FeatureSpec() if spec is None else spec
    check_kind("spec", spec, FeatureSpec)
    base = thresholds_for(symbol) if base is None else base
    if isinstance(folds, str) and folds not in SCHEMES:
        raise InputError.unknown("folds", folds, SCHEMES)
    folds = FoldPlan() if folds is None else FoldPlan(scheme=folds) if isinstance(folds, str) else folds
    check_kind("folds", folds, FoldPlan)
    step = interval_ms(interval)
    there = lake.span(symbol, interval)
    if there is None:
        raise LakeError(f"the lake {lake.root} holds no {interval} candles of {symbol}")
    first = there[0] if start is None else max(there[0], to_ms(start, "start"))
    last = there[1] + step if end is None else min(there[1] + step, to_ms(end, "end"))
    if first >= last:
        argument, value = ("end", end) if start is None else ("start", start)
        raise InputError.of(
            argument, value, f"the lake's {interval} candles of {symbol} go from {iso(there[0])} to {iso(there[1])}"
        )
    if reference is not None:
        reference = parse_symbol(reference, "reference")
        if reference == symbol or lake.span(reference, interval) is None:
            reference = None
    days = last // DAY_MS - first // DAY_MS
    hidden = min(last, (last // DAY_MS - max(1, round(days * folds.hidden))) * DAY_MS) if folds.hidden else last
    own = own_names(spec)
    return Experiment(
        symbol=symbol,
        interval=interval,
        start=iso(first),
        end=iso(last),
        hidden_from=iso(hidden),
        reference=reference,
        space={one: (s.low, s.high, s.step) for one, s in Space.of(space, base=base, spec=spec).ranges.items()},
        base={key: value for key, value in base.to_json().items() if key != "meta"},
        metric=tuple(one.name for one in objectives(metric)),
        folds=folds,
        spec=spec.replace(triggers=(), factors=()) if own else spec,
        settings=Settings() if settings is None else settings,
        costs=Costs() if costs is None else costs,
        own=own,
        code=code_fingerprint(),
        versions=versions(),
        **rest,
    )


def run_experiment(
    experiment: Experiment,
    lake: Lake,
    *,
    folder: str | Path | None = EXPERIMENTS,
    name: str | None = None,
    spec: FeatureSpec | None = None,
    progress: ProgressCallback | bool | None = None,
) -> Calibration:
    """Run an experiment, or go on with it, in ``folder/name``; see ``calibrate``.

    Killed at any instant and called again, it goes on after the last batch that is on disk. ``spec`` is needed where
    the experiment has own triggers or factors, which are code.
    """
    spec = experiment.whole_spec(spec)
    if not (callable(progress) or progress is None or isinstance(progress, bool)):
        raise InputError.of("progress", progress, "must be a callback, False for none or None for a bar")
    experiment_folds(experiment)  # too short a span is refused before anything is made
    space = Space.of(experiment.space, base=experiment.default, spec=spec)
    if space.size <= FEWEST_NEIGHBOURS:
        raise InputError.of(
            "space", list(space.ranges), f"holds {space.size} sets, at least {FEWEST_NEIGHBOURS + 1} are needed"
        )
    with progress_reporter(progress, f"calibrating {experiment.symbol}") as tell:

        def report(done: int, total: int) -> None:
            tell("trials", done, total)

        if folder is None:
            study, _ = study_symbol(experiment, lake, spec=spec, report=report)
            return study
        if not isinstance(folder, str | os.PathLike):
            raise InputError.of("folder", folder, "must be the path of a folder, or None")
        place = Path(folder) / (default_name(experiment) if name is None else check_name(name))
        try:
            place.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise InputError.of("folder", str(folder), f"cannot be used ({error})") from None
        with held(place):
            new = not (place / FILE).exists()
            try:
                return _run_in(place, experiment, lake, Ledger(place.parent), spec, report)
            except AioneError:
                if new:  # refused: nothing of it stays
                    shutil.rmtree(place)
                raise


def default_name(experiment: Experiment) -> str:
    """A folder's name that says what was studied; another design has another name."""
    text = json.dumps(experiment.design, sort_keys=True)
    return f"{experiment.symbol}-{experiment.interval}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _run_in(
    place: Path, experiment: Experiment, lake: Lake, ledger: Ledger, spec: FeatureSpec | None, report: Any
) -> Calibration:
    before = _settle(place, experiment)
    store = TrialStore(place / STUDY_FILE, experiment.symbol, [one.direction for one in objectives(experiment.metric)])
    try:
        study, _ = study_symbol(experiment, lake, spec=spec, store=store, report=report)
    finally:
        store.close()
    if before is not None and before.data and before.data != study.experiment.data:
        raise InputError.of(
            "name",
            place.name,
            "was made with other candles, funding or reference than the lake holds now; take another",
        )
    pinned = place / LEDGER_FILE
    if before is not None and before.n_trials == experiment.n_trials and pinned.exists():
        entries = _read_entries(pinned)
    else:
        entries = entered(ledger, study, place.name)
        trials = [list(pair) for pair in zip(entries.thresholds, entries.sharpes.tolist(), strict=True)]
        write_json(pinned, {"last": entries.last, "trials": trials})
    study = replace(judged_by(study, entries), folder=place)
    study.experiment.save(place)
    write_json(place / RESULTS_FILE, {"digest": study.digest, **study.results})
    return study


def entered(ledger: Ledger, study: Calibration, name: str) -> Entries:
    """Enter the study's trials and return the state of the ledger that it is judged by."""
    made = study.experiment
    sharpes = daily_sharpes(study.tables.returns)
    trials = [(one.digest(), float(sharpe)) for one, sharpe in zip(study.sets, sharpes, strict=True)]
    ledger.add(study.symbol, made.interval, made.data, made.rules, trials, name)
    return ledger.entries(study.symbol, made.interval)


def _settle(place: Path, experiment: Experiment) -> Experiment | None:
    """Make sure that ``place`` is this experiment's; the one that was there before, None: a new one."""
    if not (place / FILE).exists():
        experiment.save(place)
        return None
    before = Experiment.load(place / FILE)
    if before.design != experiment.design:
        names = [one for one in before.differences(experiment) if re.split("[.:]", one)[0] in before.design]
        raise InputError.of("name", place.name, f"holds another study ({'; '.join(names)}); take another name")
    if experiment.n_trials != before.n_trials and (place / HIDDEN_FILE).exists():
        raise InputError.of(
            "n_trials",
            experiment.n_trials,
            f"the hidden span of {place} was revealed after {before.n_trials} trials; take another name",
        )
    if experiment.n_trials < before.n_trials:
        raise InputError.of("n_trials", experiment.n_trials, f"the study in {place} has {before.n_trials} already")
    return before


def _read_entries(path: Path) -> Entries:
    kept = read_json(path)
    try:
        names, sharpes = zip(*kept["trials"], strict=True) if kept["trials"] else ((), ())
        return Entries(int(kept["last"]), tuple(names), np.array(sharpes, np.float64))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError.of("path", str(path), f"holds no state of the ledger ({error!r})") from None


@dataclass(frozen=True)
class Repeated:
    """An experiment run again: whether every trial and the verdict are the same, and what changed if not."""

    study: Calibration
    same: bool
    differences: tuple[str, ...]  # of data, code and versions, whether or not the results are the same

    @property
    def sentence(self) -> str:
        """What came of it, in one sentence."""
        if self.same:
            aside = f" (although {'; '.join(self.differences)})" if self.differences else ""
            return f"Repeated bit for bit: every trial and the verdict are the same{aside}."
        why = "; ".join(self.differences) or "nothing that the experiment's file records"
        return f"Not the same study: what changed is {why}."


def repeat(
    path: str | Path, lake: Lake, *, spec: FeatureSpec | None = None, progress: ProgressCallback | bool | None = None
) -> Repeated:
    """Run the experiment of a file anew, beside what is there, and compare; nothing is written.

    ``path``: an ``experiment.json`` with its ``results.json`` and ``ledger.json`` beside it. Judged against the state
    of the ledger that the experiment pinned. Raises InputError where the results are missing: run it first.
    """
    check_kind("lake", lake, Lake)
    if not isinstance(path, str | os.PathLike):
        raise InputError.of("path", path, f"must be an experiment's folder or its {FILE}")
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    before = Experiment.load(path)
    results = path.with_name(RESULTS_FILE)
    if not results.exists():
        raise InputError.of("path", str(path), f"has no {RESULTS_FILE} beside it to compare with")
    digest = read_json(results).get("digest")
    pinned = _read_entries(path.with_name(LEDGER_FILE))
    made = before.replace(code=code_fingerprint(), versions=versions(), data="")
    study = run_experiment(made, lake, folder=None, spec=spec, progress=progress)
    study = judged_by(study, pinned)
    return Repeated(study, study.digest == digest, tuple(before.differences(study.experiment)))
