"""What a calibration queue runs in its processes: one study, and what it comes to."""

from __future__ import annotations

from typing import Any

from aione_lab.calibration.request import CalibrationOutcome, CalibrationRequest, Report
from aione_lab.calibration.run import EXPERIMENTS, calibrate
from aione_lab.calibration.study import Calibration
from aione_lab.errors import InputError
from aione_lab.lake.store import Lake

_OF_THE_QUEUE = ("defaults_dir", "min_bars", "optuna_timeout")


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
    queue's settings are asked for first. With ``reveal`` an accepted study's hidden span has to bear it out.
    """
    options = dict(request.options)
    least = options.get("min_bars", 0)
    for name in _OF_THE_QUEUE:
        options.pop(name, None)
    source = Lake(lake)
    span = source.span(request.symbol, request.interval)
    if least and span is not None:
        n = len(source.arrays(request.symbol, request.interval, columns=("close",))["close"])
        if n < least:
            raise InputError.of("min_bars", least, f"{request.symbol} has {n:,} {request.interval} candles in the lake")
    study = calibrate(
        source,
        request.symbol,
        interval=request.interval,
        folder=folder,
        progress=lambda what, done, total: report(done, total),
        **options,
    )
    return outcome_of(study, reveal=reveal)


def outcome_of(study: Calibration, symbol: str | None = None, *, reveal: bool = True) -> CalibrationOutcome:
    """What a study comes to for one of its symbols (None: its only one).

    With ``reveal`` an accepted study's hidden span is looked at, marked as spent and taken in, where there is one.
    """
    made = study.experiment
    symbol = made.symbols[0] if symbol is None else symbol
    verdict, sentence = study.verdict_for(symbol), study.sentence_for(symbol)
    if reveal and verdict == "accept" and made.hidden_from != made.end:
        hidden = study.reveal()[symbol]
        verdict, sentence = hidden.verdict, f"{sentence} {hidden.sentence}"
    return CalibrationOutcome(
        symbol=symbol,
        interval=made.interval,
        verdict=verdict,
        sentence=sentence,
        thresholds=study.thresholds_for(symbol).to_json(),
        provenance=provenance_of(study, symbol),
    )


def provenance_of(study: Calibration, symbol: str) -> dict[str, Any]:
    """Where a set comes from, as plain data: what the threshold store keeps with it."""
    made = study.experiment
    return {
        "study": study.symbol if study.folder is None else study.folder.name,
        "start": made.start,
        "end": made.end,
        "hidden_from": made.hidden_from,
        "data": made.data[symbol],
        "rules": made.rules,
        "seed": made.seed,
        "n_trials": study.ledger.n_trials,
        "digest": study.digest,
        "versions": dict(made.versions),
    }
