"""The hidden span: looked at once, by one study, and marked as spent for every other."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aione_lab.backtest.baseline import random_entries
from aione_lab.backtest.metrics import mean_interval
from aione_lab.calibration.data import Frames, fingerprint_bars
from aione_lab.calibration.experiment import held, read_json, write_json
from aione_lab.calibration.ledger import Ledger
from aione_lab.calibration.objective import trade_returns
from aione_lab.calibration.out_of_sample import LEVEL, N_RANDOM
from aione_lab.calibration.verdict import LEVEL_TEXT
from aione_lab.errors import InputError
from aione_lab.settings import ReadOnly
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, to_ms

if TYPE_CHECKING:
    from aione_lab.calibration.study import Calibration
    from aione_lab.engine.spec import FeatureSpec

FILE = "hidden.json"


@dataclass(frozen=True)
class Hidden:
    """What the study's choice earned on the hidden span, and what is left of the verdict."""

    metrics: Mapping[str, Any]  # of the chosen set, those of the default as default_*; returns are of the equity
    fresh: bool  # nobody had looked at any day of the span before
    spent_by: tuple[str, ...]  # the studies that had
    verdict: str
    sentence: str
    data: str  # sha256 of the candles, funding and reference of the span

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Hidden:
        """Read what ``hidden.json`` holds."""
        metrics = {name: math.nan if value is None else value for name, value in values["metrics"].items()}
        rest = {name: value for name, value in values.items() if name not in ("metrics", "spent_by")}
        return cls(metrics=ReadOnly(metrics), spent_by=tuple(values["spent_by"]), **rest)

    def to_json(self) -> dict[str, Any]:
        """What ``hidden.json`` holds."""
        from aione_lab.calibration.study import plain_json

        return plain_json(
            {
                "verdict": self.verdict,
                "sentence": self.sentence,
                "fresh": self.fresh,
                "spent_by": list(self.spent_by),
                "data": self.data,
                "metrics": dict(self.metrics),
            }
        )


def reveal(study: Calibration, spec: FeatureSpec | None = None) -> Hidden:
    """Score the study's choice on its hidden span, once; see ``Calibration.reveal``."""
    made, place = study.experiment, study.folder
    start, end = to_ms(made.hidden_from, "hidden_from"), to_ms(made.end, "end")
    if start >= end:
        raise InputError.of("study", made.symbol, "has no hidden span: it was run with hidden=0")
    if place is not None and (place / FILE).exists():
        try:
            return Hidden.from_json(read_json(place / FILE))
        except (AttributeError, KeyError, TypeError):
            raise InputError.of("path", str(place / FILE), "holds no look at a hidden span") from None
    if study.lake is None:
        raise InputError.of("study", made.symbol, "was not made from a lake")
    spec = made.whole_spec(spec)
    if place is None:
        return score_hidden(study, start, end, (), spec)
    with held(place):
        # Marked before it is looked at: who is killed between the two has still looked.
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        choice = study.thresholds.digest()
        marks = Ledger(place.parent).spend(made.symbol, made.interval, start, end, place.name, choice, now)
        spent_by = tuple(dict.fromkeys(mark.experiment for mark in marks))
        hidden = score_hidden(study, start, end, spent_by, spec)
        write_json(place / FILE, hidden.to_json())
    return hidden


def score_hidden(study: Calibration, start: int, end: int, spent_by: tuple[str, ...], spec: FeatureSpec) -> Hidden:
    """Replay choice and default over the hidden days, the features warm from the days before."""
    made = study.experiment
    assert study.lake is not None
    frames = Frames.load(
        study.lake,
        made.symbol,
        made.interval,
        made.start,
        made.end,
        made.reference,
        spec,
        made.settings,
        made.costs,
    )
    days = (start // DAY_MS, (end - 1) // DAY_MS)
    mine, data = _metrics(frames, study.thresholds, days, made.seed)
    theirs, _ = _metrics(frames, study.default, days, made.seed)
    metrics = {"n_days": days[1] - days[0] + 1, **mine, **{f"default_{name}": value for name, value in theirs.items()}}
    verdict, sentence = _verdict(study, metrics, spent_by)
    return Hidden(ReadOnly(metrics), not spent_by, spent_by, verdict, sentence, data)


def _metrics(frames: Frames, thresholds: Thresholds, days: tuple[int, int], seed: int) -> tuple[dict[str, Any], str]:
    result = frames.replay_days(thresholds, *days)
    if result is None:
        raise InputError.of("lake", frames.symbol, "holds no candles of the hidden span any more")
    returns = trade_returns(result.trade_records, frames.settings.initial_capital)
    low, high = mean_interval(returns, LEVEL)
    baseline = random_entries(result, N_RANDOM, seed)
    values = {
        "n_trades": len(returns),
        "expectancy": float(returns.mean()) if len(returns) else math.nan,
        "expectancy_low": low,
        "expectancy_high": high,
        "win_rate": float((returns > 0).mean()) if len(returns) else math.nan,
        "total_return": float(np.prod(1 + returns) - 1),
        "random_p": baseline.p_value,
    }
    return values, fingerprint_bars(result.bars)


def _verdict(study: Calibration, metrics: Mapping[str, Any], spent_by: tuple[str, ...]) -> tuple[str, str]:
    n = metrics["n_trades"]
    seen = (
        f" It was no fresh look: {', '.join(spent_by)} had seen these days, so it confirms little." if spent_by else ""
    )
    if study.verdict != "accept":
        return study.verdict, f"The study itself said {study.verdict}; the hidden span does not change that.{seen}"
    if not n:
        return "not enough trades", f"Not enough trades: none at all on the {metrics['n_days']} hidden days.{seen}"
    found = (
        f"{metrics['expectancy']:+.3%} a trade net of costs over {n} trades on the {metrics['n_days']} hidden days "
        f"({LEVEL_TEXT} {metrics['expectancy_low']:+.3%} to {metrics['expectancy_high']:+.3%})"
    )
    if not metrics["expectancy"] > 0:
        return "keep defaults", f"Keep the defaults: {found} does not hold up.{seen}"
    sure = "" if metrics["expectancy_low"] > 0 else ", too few or too uneven to be sure on its own"
    return "accept", f"Accept holds: {found}{sure}.{seen}"
