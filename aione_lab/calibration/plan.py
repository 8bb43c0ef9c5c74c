"""`plan`: what `calibrate` is told, every open end resolved, as an `Experiment`; and the folder it belongs in."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aione_lab.calibration.experiment import (
    FILE,
    Experiment,
    FoldPlan,
    check_name,
    code_fingerprint,
    own_names,
    read_experiment,
    versions,
)
from aione_lab.calibration.folds import SCHEMES
from aione_lab.calibration.markets import REFERENCE
from aione_lab.calibration.objective import objectives
from aione_lab.calibration.space import Fields, Space
from aione_lab.engine.params import check_kind
from aione_lab.engine.spec import HIGHER_INTERVALS, FeatureSpec
from aione_lab.errors import InputError, LakeError
from aione_lab.lake.store import Lake
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.classes import thresholds_for
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, interval_ms, iso, parse_symbol, to_ms


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
    if start is not None and end is not None and to_ms(start, "start") >= to_ms(end, "end"):
        raise InputError.of("end", end, f"must be later than start={start!r}")
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
