"""``calibrate``: search thresholds of symbols in the lake, and judge what was found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aione_lab.cli.options import (
    DEFAULT_LAKE,
    End,
    Json,
    LakeFolder,
    Start,
    by_option,
    costs_of,
    known_symbol,
    loaded_config,
    number,
    open_lake,
    whole_number,
)
from aione_lab.cli.output import emit_json, say
from aione_lab.cli.study_table import overview, show
from aione_lab.errors import InputError

if TYPE_CHECKING:
    from aione_lab.calibration import Calibration, Experiment
    from aione_lab.lake import Lake

EXPERIMENTS = Path("experiments")
PROMOTED = "promoted"
STANDING = "in force already"


@by_option(
    {
        "Experiment.n_trials": "--trials",
        "n_trials": "--trials",
        "Experiment.min_trades": "--min-trades",
        "Experiment.sampler": "--sampler",
        "Experiment.seed": "--seed",
        "FoldPlan.scheme": "--folds",
        "FoldPlan.n_folds": "--n-folds",
        "FoldPlan.hidden": "--hidden",
        "n_folds": "--n-folds",
        "space": "--search",
        "metric": "--metric",
        "folder": "--experiments",
        "path": "--experiment",
        **{name: f"--{name}" for name in ("reference", "name", "interval", "start", "end")},
        "root": "--lake",
        "symbol": "SYMBOL",
    }
)
def calibrate(
    context: typer.Context,
    symbols: Annotated[
        list[str] | None, typer.Argument(metavar="[SYMBOL]...", help="BTCUSDT or BTC/USDT:USDT, one or several.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every symbol of the lake with these candles.")] = False,
    pool: Annotated[
        bool, typer.Option("--pool", help="Study the symbols together: a shared set, and who deviates from it.")
    ] = False,
    experiment: Annotated[
        Path | None,
        typer.Option("--experiment", metavar="FILE", help="Repeat the study of an experiment.json, and compare."),
    ] = None,
    interval: Annotated[str, typer.Option("--interval", help="Candles to use: 1m, 5m, …")] = "1m",
    start: Start = None,
    end: End = None,
    reference: Annotated[
        str, typer.Option("--reference", metavar="SYMBOL", help="Stands for the market; 'none': none.")
    ] = "BTCUSDT",
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            metavar="N",
            parser=whole_number,
            help="Trials a study, at least 20; left out: those it has, 200 where it is new.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="profit_factor (default), win_rate, max_drawdown, sharpe, expectancy; several: Pareto.",
        ),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option("--search", metavar="FIELD[=LOW:HIGH]", help="Threshold to search; repeat; left out: all."),
    ] = None,
    folds: Annotated[str, typer.Option("--folds", help="anchored, rolling or combinatorial.")] = "anchored",
    n_folds: Annotated[int, typer.Option("--n-folds", parser=whole_number, help="Folds, or groups to combine.")] = 5,
    hidden: Annotated[
        float, typer.Option("--hidden", metavar="SHARE", parser=number, help="Share of the days kept hidden.")
    ] = 0.2,
    min_trades: Annotated[
        int, typer.Option("--min-trades", parser=whole_number, help="Fewest out-of-sample trades to judge.")
    ] = 30,
    sampler: Annotated[str, typer.Option("--sampler", help="tpe, random or nsga2.")] = "tpe",
    seed: Annotated[int, typer.Option("--seed", parser=whole_number, help="Seed of everything random.")] = 0,
    settings: Annotated[
        Path | None, typer.Option("--settings", metavar="FILE", help="JSON or TOML of Settings.")
    ] = None,
    fee: Annotated[
        float | None, typer.Option("--fee", metavar="SHARE", parser=number, help="Taker fee a side as a share.")
    ] = None,
    slippage_bps: Annotated[
        float | None, typer.Option("--slippage-bps", metavar="BPS", parser=number, help="Lost on market fills.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Folder of the study in --experiments; left out: from the design.")
    ] = None,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Score the hidden days, once; they are spent by that.")
    ] = False,
    promote: Annotated[
        bool, typer.Option("--promote", help="Reveal what is accepted, and promote what holds to the threshold store.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", parser=whole_number, help="Processes for several symbols.")
    ] = None,
    experiments: Annotated[
        Path, typer.Option("--experiments", metavar="DIR", help="Where studies and the ledger lie.")
    ] = EXPERIMENTS,
    folder: LakeFolder = DEFAULT_LAKE,
    as_json: Json = False,
) -> None:
    """Search thresholds, choose a plateau, and judge it on days that had no part in the choice.

    Each study goes to a folder of --experiments, is on disk batch by batch, and
    goes on where it stopped when the same command is given again. The verdict is
    accept, keep defaults or not enough trades, with the reason. Nothing is used
    anywhere by that: it has to be promoted.

    Examples:

      aione-lab calibrate SOLUSDT --trials 300
      aione-lab calibrate SOLUSDT ETHUSDT --metric sharpe --metric max_drawdown
      aione-lab calibrate --all --workers 2
      aione-lab calibrate SOLUSDT --promote
      aione-lab calibrate SOLUSDT AVAXUSDT LINKUSDT --pool
      aione-lab calibrate SOLUSDT --search tp_mult=1:6 --search sl_mult --reveal
      aione-lab calibrate --experiment experiments/SOLUSDT-1m-1a2b3c4d/experiment.json
    """
    from aione_lab.settings import Settings

    lake = open_lake(folder)
    if experiment is not None:
        if symbols or every:
            raise InputError.of("--experiment", str(experiment), "names its symbols itself; give none beside it")
        _only(context, "experiment", "folder", "as_json")
        _repeat(experiment, lake, as_json)
        return
    names = _names(lake, symbols or [], every, interval)
    if pool and len(names) == 1:
        raise InputError.of("--pool", True, f"needs several symbols, here is {names[0]} alone")
    for option, given in (("--reveal", reveal), ("--promote", promote)):
        if given and not hidden:
            raise InputError.of(option, given, "there are no hidden days with --hidden 0, and they decide")
    if workers is not None and workers < 1:
        raise InputError.of("--workers", workers, "must be at least 1")
    options: dict[str, Any] = {
        "start": start,
        "end": end,
        "reference": None if reference.lower() == "none" else reference,
        "n_trials": trials,
        "metric": metric or ["profit_factor"],
        "space": _space(search),
        "folds": _folds(folds, n_folds, hidden),
        "min_trades": min_trades,
        "sampler": sampler,
        "seed": seed,
        "settings": Settings() if settings is None else loaded_config(Settings, settings, "--settings"),
        "costs": costs_of(fee, slippage_bps),
    }
    if pool or len(names) == 1:
        from aione_lab.calibration.plan import place_of, plan, with_trials_of

        made = plan(lake, names if pool else names[0], interval=interval, **options)
        place = place_of(made, experiments, name)
        if trials is None:
            made = with_trials_of(place, made)
        study = _run(made, lake, experiments, name, _earlier(made, place))
        accepted = any(study.verdict_for(one) == "accept" for one in study.experiment.symbols)
        look = hidden and (reveal or (promote and accepted))  # days are not spent on what is not promoted anyway
        revealed = {one: study.reveal(one) for one in study.experiment.symbols} if look else {}
        promoted = _promote(study, experiments) if promote else {}
        if as_json:
            hidden_days = {symbol: one.to_json() for symbol, one in revealed.items()}
            told = {symbol: word for symbol, (word, _) in promoted.items()}
            emit_json({**_described(study, hidden_days), "promoted": told})
        else:
            show(study)
            for one in revealed.values():
                say(f"hidden days, {one.symbol}: {one.sentence}")
            for symbol, (_, sentence) in promoted.items():
                say(f"{symbol}: {sentence}")
            say(f"study: {study.folder}")
        if promote and not any(word in (PROMOTED, STANDING) for word, _ in promoted.values()):
            raise typer.Exit(1)
        return
    if promote:
        raise InputError.of("--promote", True, "is for one study at a time; look at the verdicts first")
    if name is not None:
        raise InputError.of("--name", name, "names one study; with several symbols each has a name of its own")
    if reveal:
        raise InputError.of("--reveal", True, "is for one study at a time; look at the verdicts first")
    from aione_lab.calibration import calibrate_many

    progress = False if as_json else None
    found = calibrate_many(
        lake, names, workers=workers, folder=experiments, progress=progress, interval=interval, **options
    )
    done = sorted(found, key=lambda one: names.index(one.symbol))
    failed = {one.symbol: one.error for one in done if one.error}
    if as_json:
        emit_json(
            {
                "studies": [{"folder": str(one.folder), **one.results} for one in done if not one.error],
                "failed": failed,
            }
        )
    else:
        overview(done)
    if failed:
        raise typer.Exit(1)


def _earlier(made: Experiment, place: Path) -> str:
    """That a study is there already and goes on, or that it is a new one although others of the symbol are there.

    Either way its verdict will be another one. "" where there is nothing to say.
    """
    from aione_lab.calibration.experiment import FILE, read_experiment
    from aione_lab.calibration.plan import design_differences

    if (place / FILE).exists():
        before = read_experiment(place)
        if before.design != made.design or before.n_trials >= made.n_trials:
            return ""
        grown = f"goes on from {before.n_trials:,} to {made.n_trials:,} trials, and is judged anew"
        return f"the study in {place} {grown}"
    others = sorted(place.parent.glob(f"{made.title}-{made.interval}-*/{FILE}"), key=lambda path: path.stat().st_mtime)
    for path in reversed(others):
        try:
            names = "; ".join(design_differences(read_experiment(path.parent), made))
        except InputError:  # of another version, or damaged: it says nothing, and is not in the way
            continue
        return f"this is a new study; the last one of {made.title}, {path.parent}, is another: {names}"
    return ""


def _run(made: Experiment, lake: Lake, experiments: Path, name: str | None, note: str) -> Calibration:
    """Run a study with a bar on a terminal; ``note`` is told as it begins, and not where it is refused."""
    from aione_lab.calibration.run import run_experiment
    from aione_lab.lake.progress import progress_reporter

    untold = [note] if note else []
    with progress_reporter(None, f"calibrating {made.title}") as bar:

        def tell(what: str, done: int, total: int) -> None:
            while untold:
                say(untold.pop(), err=True)
            bar(what, done, total)

        return run_experiment(made, lake, folder=experiments, name=name, progress=tell)


def _only(context: typer.Context, *allowed: str) -> None:
    """Refuse options that were given and have no part in repeating an experiment."""
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "")
        if given is not None and given.name == "COMMANDLINE" and parameter.name not in allowed:
            why = "the experiment says it, or it has no part in repeating one"
            raise InputError.of(parameter.opts[0], context.params[parameter.name or ""], why)


def _promote(study: Calibration, experiments: Path) -> dict[str, tuple[str, str]]:
    """Promote what was accepted: by symbol what became of it, in a word and in a sentence."""
    from aione_lab.calibration import outcome_of
    from aione_lab.calibration import promote as store_set
    from aione_lab.thresholds import ThresholdStore

    store = ThresholdStore(experiments)
    done = {}
    for symbol in study.experiment.symbols:
        outcome = outcome_of(study, symbol)
        if not outcome.accepted:
            why = f"not promoted: {outcome.sentence}"
            done[symbol] = why, why
            continue
        before = store.entry(symbol, interval=outcome.interval)
        entry = store_set(store, outcome)
        until = entry.stamp.expires_at[:10]
        if before is not None and before.number == entry.number:
            done[symbol] = STANDING, f"{STANDING}, until {until}; the same study is no new evidence for longer"
        else:
            done[symbol] = PROMOTED, f"{PROMOTED} to {store.folder}, in force until {until}"
    return done


def _names(lake: Lake, symbols: list[str], every: bool, interval: str) -> list[str]:
    if every and symbols:
        raise InputError.of("--all", True, f"is for every symbol of the lake; leave out {' '.join(symbols)}")
    if not every and not symbols:
        raise InputError.of("SYMBOL", symbols, "name one or several symbols, or give --all")
    if every:
        names = lake.symbols(interval)
        if not names:
            raise InputError.of("--all", True, f"the lake {lake.root} holds no {interval} candles")
        return names
    return list(dict.fromkeys(known_symbol(lake, name, interval) for name in symbols))


def _space(search: list[str] | None) -> Any:
    """None, names, or names with ranges, as ``calibrate`` takes them."""
    if not search:
        return None
    from aione_lab.thresholds.search import search_space

    declared = search_space()
    space: dict[str, tuple[float, ...]] = {}
    for text in search:
        name, _, ends = text.partition("=")
        if name not in declared:
            raise InputError.unknown("--search", name, declared)
        try:
            parts = tuple(float(end) for end in ends.split(":")) if ends else ()
        except ValueError:
            raise InputError.of("--search", text, "must be FIELD, FIELD=LOW:HIGH or FIELD=LOW:HIGH:STEP") from None
        if name in space:
            raise InputError.of("--search", text, f"{name} is searched already")
        given = declared[name]
        space[name] = parts or (given.low, given.high, given.step)
    return space


def _folds(scheme: str, n_folds: int, hidden: float) -> Any:
    from aione_lab.calibration import FoldPlan

    return FoldPlan(scheme=scheme, n_folds=n_folds, hidden=hidden)


def _repeat(path: Path, lake: Lake, as_json: bool) -> None:
    """Run an experiment's file again; 1 where it is not the same."""
    from aione_lab.calibration import repeat

    done = repeat(path, lake)
    if as_json:
        emit_json({"same": done.same, "differences": done.differences, **_described(done.study, {})})
    else:
        show(done.study)
        say(done.sentence)
    if not done.same:
        raise typer.Exit(1)


def _described(study: Calibration, hidden: dict[str, Any]) -> dict[str, Any]:
    folder = None if study.folder is None else str(study.folder)
    return {"folder": folder, "digest": study.digest, **study.results, "hidden": hidden}
