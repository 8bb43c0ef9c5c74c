"""What a calibration queue runs in its processes: one study, and what it comes to."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aione_lab.calibration.request import CalibrationOutcome, CalibrationRequest, Report
from aione_lab.calibration.run import EXPERIMENTS, calibrate
from aione_lab.calibration.study import Calibration
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.store import Lake
from aione_lab.thresholds.params import Thresholds
from aione_lab.thresholds.provenance import Entry, Provenance
from aione_lab.thresholds.store import ThresholdStore

_OF_THE_QUEUE = ("defaults_dir", "min_bars", "optuna_timeout")
_OPTIONS = tuple(
    name
    for name in inspect.signature(calibrate).parameters
    if name not in ("lake", "symbol", "interval", "folder", "name", "progress")
)


def calibrate_job(
    request: CalibrationRequest,
    report: Report,
    *,
    lake: str = "data_lake",
    folder: str = EXPERIMENTS,
    reveal: bool = True,
) -> CalibrationOutcome:
    """Calibrate one symbol of the lake at ``lake``; ``request.options`` are keywords of ``calibrate``.

    ``functools.partial(calibrate_job, lake=…, folder=…)`` is a job for ``CalibrationQueue``. ``min_bars`` of the
    queue's settings are asked for first, and ``SYMBOL.json`` in its ``defaults_dir`` is the default set. With
    ``reveal`` an accepted study's hidden span has to bear it out.
    """
    check_options(request.options)
    options = dict(request.options)
    least, starts = options.get("min_bars", 0), options.get("defaults_dir")
    for name in _OF_THE_QUEUE:
        options.pop(name, None)
    source = Lake(lake)
    span = source.span(request.symbol, request.interval)
    if least and span is not None:
        n = len(source.arrays(request.symbol, request.interval, columns=("close",))["close"])
        if n < least:
            raise InputError.of("min_bars", least, f"{request.symbol} has {n:,} {request.interval} candles in the lake")
    if starts is not None and (file := Path(starts) / f"{request.symbol}.json").exists():
        options.setdefault("base", _read_defaults(file))
    study = calibrate(
        source,
        request.symbol,
        interval=request.interval,
        folder=folder,
        progress=lambda what, done, total: report(done, total),
        **options,
    )
    return outcome_of(study, reveal=reveal, spec=options.get("spec"))


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse what ``calibrate_job`` cannot take: names that are no keywords of ``calibrate``, or the job's own."""
    for name in options:
        if name not in (*_OPTIONS, *_OF_THE_QUEUE):
            raise InputError.unknown("options", name, _OPTIONS)


def _read_defaults(file: Path) -> Thresholds:
    try:
        return Thresholds.from_json(file.read_text(encoding="utf-8")).replace(meta=None)
    except (InputError, OSError, ValueError) as error:
        raise InputError.of("defaults_dir", str(file), f"is no set of thresholds ({error})") from None


def outcome_of(
    study: Calibration, symbol: str | None = None, *, reveal: bool = True, spec: FeatureSpec | None = None
) -> CalibrationOutcome:
    """What a study comes to for one of its symbols (None: its only one).

    With ``reveal`` an accepted study's hidden span is looked at, marked as spent and taken in, where there is one;
    ``spec`` is needed for that where the study has own triggers or factors.
    """
    made = study.experiment
    symbol = made.symbol_of(symbol)
    verdict, sentence = study.verdict_for(symbol), study.sentence_for(symbol)
    if reveal and verdict == "accept" and made.hidden_from != made.end:
        hidden = study.reveal(symbol, spec)
        verdict, sentence = hidden.verdict, f"{sentence} {hidden.sentence}"
    return CalibrationOutcome(
        symbol=symbol,
        interval=made.interval,
        verdict=verdict,
        sentence=sentence,
        # Every field: one left out would fall back to the asset class, and another set than the judged one would hold.
        thresholds={key: value for key, value in study.thresholds_for(symbol).every_field().items() if key != "meta"},
        provenance=provenance_of(study, symbol, verdict, sentence).model_dump(mode="json"),
    )


def provenance_of(study: Calibration, symbol: str, verdict: str, sentence: str) -> Provenance:
    """Where a set comes from: what the threshold store keeps with it."""
    made = study.experiment
    return Provenance(
        study=study.symbol if study.folder is None else study.folder.name,
        start=made.start,
        end=made.end,
        data_fingerprint=made.data[symbol],
        spec_digest=made.spec.digest(),
        costs=made.costs,
        verdict=verdict,
        sentence=sentence,
        seed=made.seed,
        versions=made.versions,
    )


class Promoter:
    """What a calibration queue hands accepted outcomes to: promotes them, and publishes where there is a cache."""

    def __init__(self, store: ThresholdStore) -> None:
        self._store = store

    async def save(self, outcome: CalibrationOutcome) -> None:
        """Promote an accepted outcome; the file is written beside the event loop."""
        await asyncio.to_thread(promote, self._store, outcome)
        if self._store.cache is not None:
            await self._store.publish(outcome.symbol, interval=outcome.interval)


def promote(store: ThresholdStore, outcome: CalibrationOutcome) -> Entry:
    """Promote what a study came to; ThresholdStore refuses what was not accepted.

    A study whose set is in force already stays so until its time is over: it brings no new evidence for a longer one.
    """
    found = Thresholds.from_json(outcome.thresholds)
    provenance = Provenance(**outcome.provenance)
    if outcome.accepted and (standing := _standing(store, outcome, found, provenance)) is not None:
        return standing
    return store.promote(
        outcome.symbol, found, verdict=outcome.verdict, provenance=provenance, interval=outcome.interval
    )


def _standing(
    store: ThresholdStore, outcome: CalibrationOutcome, found: Thresholds, provenance: Provenance
) -> Entry | None:
    """The set in force, where it is this one of the same study on the same data."""
    entry = store.current(outcome.symbol, interval=outcome.interval).entry
    if entry is None:
        return None
    kept = entry.stamp, entry.thresholds
    mine, theirs = ((one.study, one.data_fingerprint, limits.digest()) for one, limits in (kept, (provenance, found)))
    return entry if mine == theirs else None
