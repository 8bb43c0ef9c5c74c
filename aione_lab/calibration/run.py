"""`calibrate`: from a lake and a symbol to a study on disk; and an experiment's file to the same study again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import optuna

from aione_lab.calibration.experiment import (
    FILE,
    Experiment,
    FoldPlan,
    check_name,
    code_fingerprint,
    held,
    own_names,
    read_experiment,
    read_json,
    versions,
    write_json,
)
from aione_lab.calibration.folds import SCHEMES
from aione_lab.calibration.hidden import FILE as HIDDEN_FILE
from aione_lab.calibration.judging import daily_sharpes, effective, judged_by
from aione_lab.calibration.ledger import Entries, Ledger
from aione_lab.calibration.markets import REFERENCE
from aione_lab.calibration.objective import objectives
from aione_lab.calibration.plateau import FEWEST_NEIGHBOURS
from aione_lab.calibration.search import Report
from aione_lab.calibration.space import Fields, Space
from aione_lab.calibration.study import Calibration, OtherData, experiment_folds, run_study
from aione_lab.calibration.trial_store import TrialStore
from aione_lab.calibration.verdict import MIN_TRADES
from aione_lab.engine.params import check_kind
from aione_lab.engine.spec import HIGHER_INTERVALS, FeatureSpec
from aione_lab.errors import AioneError, InputError, LakeError
from aione_lab.lake.progress import ProgressCallback, progress_reporter
from aione_lab.lake.store import Lake
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.classes import thresholds_for
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, interval_ms, iso, parse_symbol, to_ms

if TYPE_CHECKING:
    from distributed import Client

EXPERIMENTS = "experiments"
STUDY_FILE = "study.sqlite3"
RESULTS_FILE = "results.json"
LEDGER_FILE = "ledger.json"
N_TRIALS = "n_trials"  # in ledger.json: of the study that it was pinned for
_LEFT = re.compile(rf"\.lock|\.{re.escape(FILE)}\.[0-9a-f]{{12}}\.tmp")  # of one that was killed as it began

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


def plan(
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
    spec: FeatureSpec | None = None,
    settings: Settings | None = None,
    costs: Costs | None = None,
    **rest: Any,
) -> Experiment:
    """The experiment that ``calibrate`` runs, every open end resolved; see there. Without ``n_trials`` a new one's."""
    if n_trials is not None:
        rest["n_trials"] = n_trials
    symbols = _symbols(symbol)
    if not isinstance(interval, str) or interval not in HIGHER_INTERVALS:
        raise InputError.of("interval", interval, f"signals need one of {', '.join(HIGHER_INTERVALS)}")
    spec = FeatureSpec() if spec is None else spec
    check_kind("spec", spec, FeatureSpec)
    defaults: dict[str, dict[str, Any]] = {}
    if base is None and len(symbols) == 1:
        base = thresholds_for(symbols[0])
    elif base is None:
        base = Thresholds()
        defaults = {name: _flat(thresholds_for(name)) for name in symbols if thresholds_for(name) != base}
    if isinstance(folds, str) and folds not in SCHEMES:
        raise InputError.unknown("folds", folds, SCHEMES)
    folds = FoldPlan() if folds is None else FoldPlan(scheme=folds) if isinstance(folds, str) else folds
    check_kind("folds", folds, FoldPlan)
    first, last = _span(lake, symbols, interval, start, end)
    if reference is not None:
        reference = parse_symbol(reference, "reference")
        there = lake.span(reference, interval) is not None
        if not there and reference != REFERENCE:  # the default is left out where it is not there; a choice is not
            raise InputError.of("reference", reference, f"the lake {lake.root} holds no {interval} candles of it")
        if symbols == (reference,) or not there:
            reference = None
    days = last // DAY_MS - first // DAY_MS
    hidden = min(last, (last // DAY_MS - max(1, round(days * folds.hidden))) * DAY_MS) if folds.hidden else last
    own = own_names(spec)
    return Experiment(
        symbols=symbols,
        interval=interval,
        start=iso(first),
        end=iso(last),
        hidden_from=iso(hidden),
        reference=reference,
        space={one: (s.low, s.high, s.step) for one, s in Space.of(space, base=base, spec=spec).ranges.items()},
        base=_flat(base),
        defaults=defaults,
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


def _flat(thresholds: Thresholds) -> dict[str, Any]:
    return {key: value for key, value in thresholds.to_json().items() if key != "meta"}


def _symbols(symbol: str | Sequence[str]) -> tuple[str, ...]:
    """Several in the order of the alphabet: in whichever they are named, it is the same study."""
    given = [symbol] if isinstance(symbol, str) else list(symbol) if isinstance(symbol, Sequence) else [symbol]
    names = tuple(parse_symbol(one) for one in given)
    if not names or len(set(names)) < len(names):
        raise InputError.of("symbol", given, "must be a symbol, or several different ones")
    return tuple(sorted(names))


def _span(lake: Lake, symbols: tuple[str, ...], interval: str, start: Any, end: Any) -> tuple[int, int]:
    """(first, last) of what is asked for and there, UTC ms, the last exclusive; of several symbols the widest."""
    step = interval_ms(interval)
    spans = []
    for symbol in symbols:
        there = lake.span(symbol, interval)
        if there is None:
            raise LakeError(f"the lake {lake.root} holds no {interval} candles of {symbol}")
        spans.append(there)
    begins, ends = min(span[0] for span in spans), max(span[1] for span in spans) + step
    first = begins if start is None else max(begins, to_ms(start, "start"))
    last = ends if end is None else min(ends, to_ms(end, "end"))
    if first >= last:
        argument, value = ("end", end) if start is None else ("start", start)
        raise InputError.of(
            argument,
            value,
            f"the lake's {interval} candles of {', '.join(symbols)} go from {iso(begins)} to {iso(ends)}",
        )
    return first, last


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
        _make(place)
        with held(place):
            new = not (place / FILE).exists()
            try:
                return _run_in(place, experiment, lake, Ledger(place.parent), spec, report, share)
            except AioneError:
                if new and not searched:  # refused: nothing of it stays
                    shutil.rmtree(place)
                raise


def _make(place: Path) -> None:
    """Make a study's folder, or take one that is there. InputError for one that holds anything but a study."""
    try:
        new = not place.exists()
        place.mkdir(parents=True, exist_ok=True)
        own = new or (place / FILE).exists()
        others = [] if own else [path.name for path in place.iterdir() if not _LEFT.fullmatch(path.name)]
    except (OSError, ValueError) as error:
        raise InputError.of("folder", str(place), f"cannot be used ({error})") from None
    if others:
        raise InputError.of("name", place.name, f"is a folder with other files ({place}); take another name")


def place_of(experiment: Experiment, folder: str | os.PathLike[str], name: str | None) -> Path:
    """The folder of the study in ``folder``; InputError for a ``name`` that cannot be one."""
    return Path(folder) / (default_name(experiment) if name is None else check_name(name))


def with_trials_of(place: Path, experiment: Experiment) -> Experiment:
    """The experiment with as many trials as the same one in ``place`` has; as it is where there is none."""
    if not (place / FILE).exists() or (before := read_experiment(place)).design != experiment.design:
        return experiment
    return experiment.model_copy(update={"n_trials": before.n_trials})


def design_differences(before: Experiment, experiment: Experiment) -> list[str]:
    """What distinguishes the design of one study from that of another, in words."""
    return [one for one in before.differences(experiment) if re.split("[.:]", one)[0] in before.design]


def default_name(experiment: Experiment) -> str:
    """A folder's name that says what was studied; another design has another name."""
    text = json.dumps(experiment.design, sort_keys=True)
    return f"{experiment.title}-{experiment.interval}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


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
    before = _settle(place, experiment)
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
    entries = _read_entries(pinned, experiment) if same and pinned.exists() else None
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


def _settle(place: Path, experiment: Experiment) -> Experiment | None:
    """Make sure that ``place`` is this experiment's; the one that was there before, None: a new one."""
    if not (place / FILE).exists():
        experiment.save(place)
        return None
    before = read_experiment(place)
    if before.design != experiment.design:
        names = "; ".join(design_differences(before, experiment))
        raise InputError.of("name", place.name, f"holds another study ({names}); take another name")
    if experiment.n_trials != before.n_trials and (place / HIDDEN_FILE).exists():
        raise InputError.of(
            "n_trials",
            experiment.n_trials,
            f"the hidden span of {place} was revealed after {before.n_trials} trials; take another name",
        )
    if experiment.n_trials < before.n_trials:
        allowed = f"must be at least {before.n_trials}, as many as the study in {place} has; or take another name"
        raise InputError.of("n_trials", experiment.n_trials, allowed)
    return before


def _read_entries(path: Path, experiment: Experiment) -> dict[str, Entries] | None:
    """The pinned state of the ledger; None: it was pinned when the study was shorter."""
    kept = read_json(path)
    if kept.get(N_TRIALS, experiment.n_trials) != experiment.n_trials:
        return None
    try:
        return {title: Entries.from_json(kept[title]) for title in experiment.titles}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: holds no state of the ledger ({error!r})") from None


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
    pinned = _read_entries(path.with_name(LEDGER_FILE), before)
    if pinned is None:
        raise InputError(f"{path.parent}: the study was stopped as it grew; run it again, which ends it, before this")
    made = before.replace(code=code_fingerprint(), versions=versions(), data={})
    if made.cluster:  # what its workers proposed is scored and judged again
        with progress_reporter(progress, f"calibrating {made.title}") as tell:
            tell("trials", 0, made.n_trials)
            study = run_study(made, lake, spec=spec, proposed=_proposed(path.with_name(STUDY_FILE), made))
            tell("trials", made.n_trials, made.n_trials)
    else:
        study = run_experiment(made, lake, folder=None, spec=spec, progress=progress)
    study = judged_by(study, pinned)
    return Repeated(study, study.digest == digest, tuple(before.differences(study.experiment)))


def _proposed(path: Path, experiment: Experiment) -> list[optuna.trial.FrozenTrial]:
    """The trials of a study's database."""
    if not path.exists():
        raise InputError.of("path", str(path), "is missing: a study of a cluster cannot be searched again without it")
    store = TrialStore(path, experiment.title, [one.direction for one in objectives(experiment.metric)])
    try:
        return store.trials()
    finally:
        store.close()
