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
from aione_lab.backtest.prepare import frame_ms
from aione_lab.calibration.experiment import held, plain_json, read_json, write_json
from aione_lab.calibration.ledger import Ledger
from aione_lab.calibration.markets import N_RANDOM, Market
from aione_lab.calibration.objective import trade_returns
from aione_lab.calibration.out_of_sample import LEVEL
from aione_lab.calibration.verdict import LEVEL_TEXT
from aione_lab.errors import InputError
from aione_lab.settings import ReadOnly
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, to_ms

if TYPE_CHECKING:
    from aione_lab.calibration.study import Calibration
    from aione_lab.engine.spec import FeatureSpec

FILE = "hidden.json"
NAMED = 3
"""Studies that a sentence names; of the others it tells the number."""


@dataclass(frozen=True)
class Hidden:
    """What a study's choice for one symbol earned on the hidden span, and what is left of the verdict."""

    symbol: str
    metrics: Mapping[str, Any]  # of the chosen set, those of the default as default_*; returns are of the equity
    fresh: bool  # no study of the ledger had searched or looked at any day of it; without a folder there is none
    spent_by: tuple[str, ...]  # the studies that had
    verdict: str
    sentence: str
    thresholds: str = ""  # digest of the set that was scored: a study that goes on may choose another

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Hidden:
        """Read what ``hidden.json`` holds of a symbol."""
        metrics = {name: math.nan if value is None else value for name, value in values["metrics"].items()}
        rest = {name: value for name, value in values.items() if name not in ("metrics", "spent_by")}
        return cls(metrics=ReadOnly(metrics), spent_by=tuple(values["spent_by"]), **rest)

    def to_json(self) -> dict[str, Any]:
        """What ``hidden.json`` holds of a symbol."""
        values = {name: getattr(self, name) for name in ("symbol", "verdict", "sentence", "fresh", "thresholds")}
        return values | {"spent_by": list(self.spent_by), "metrics": dict(self.metrics)}


def reveal(study: Calibration, spec: FeatureSpec | None = None) -> dict[str, Hidden]:
    """Score the study's choices on their hidden spans, once; see ``Calibration.reveal``."""
    made, place = study.experiment, study.folder
    start, end = to_ms(made.hidden_from, "hidden_from"), to_ms(made.end, "end")
    if start >= end:
        raise InputError.of("study", study.symbol, "has no hidden span: it was run with hidden=0")
    if known := revealed(study):
        return known
    if study.lake is None:
        raise InputError.of("study", study.symbol, "was not made from a lake")
    spec = made.whole_spec(spec)
    if place is None:
        return {symbol: _judged(study, symbol, metrics, ()) for symbol, metrics in _scores(study, spec).items()}
    found = {}
    with held(place):
        # Scored before anything is marked: what cannot be scored spends nobody's days. Marked before anything is told:
        # who is killed between the two has still looked.
        scores = _scores(study, spec)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        for symbol, metrics in scores.items():
            choice = study.thresholds_for(symbol).digest()
            ledger = Ledger(place.parent)
            marks = ledger.spend(symbol, made.interval, start, end, place.name, choice, now)
            seen = [*(mark.experiment for mark in marks), *ledger.searched(symbol, start, end)]
            found[symbol] = _judged(study, symbol, metrics, tuple(dict.fromkeys(seen)))
        write_json(place / FILE, plain_json({symbol: one.to_json() for symbol, one in found.items()}))
        from aione_lab.calibration.report import write_report  # with Plotly: only where it is wanted

        write_report(study)
    return found


def revealed(study: Calibration) -> dict[str, Hidden]:
    """What ``reveal`` told before, by symbol; empty where it was not asked, or the study is not on disk."""
    if study.folder is None or not (study.folder / FILE).exists():
        return {}
    path = study.folder / FILE
    try:
        return {symbol: Hidden.from_json(values) for symbol, values in read_json(path).items()}
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"{path}: holds no look at a hidden span") from None


def _scores(study: Calibration, spec: FeatureSpec) -> dict[str, dict[str, Any]]:
    """Metrics of every symbol's choice and default over its hidden days; InputError where no symbol has candles."""
    scores = {symbol: _score(study, symbol, spec) for symbol in study.experiment.symbols}
    if not any(metrics["n_days"] for metrics in scores.values()):
        raise InputError.of("lake", study.symbol, "holds no candles of the hidden span any more")
    return scores


def _score(study: Calibration, symbol: str, spec: FeatureSpec) -> dict[str, Any]:
    """Replay choice and default over the hidden days, the features warm from the days before."""
    made = study.experiment
    assert study.lake is not None
    market = Market.load(study.lake, symbol, made, spec, hidden=True)
    days = (to_ms(made.hidden_from, "hidden_from") // DAY_MS, (to_ms(made.end, "end") - 1) // DAY_MS)
    there = np.unique(frame_ms(market.candles) // DAY_MS)
    mine = _metrics(market, study.thresholds_for(symbol), days, made.seed)
    theirs = _metrics(market, made.default_of(symbol), days, made.seed)
    n_days = int(((there >= days[0]) & (there <= days[1])).sum())
    return {"n_days": n_days, **mine, **{f"default_{name}": value for name, value in theirs.items()}}


def _judged(study: Calibration, symbol: str, metrics: Mapping[str, Any], spent_by: tuple[str, ...]) -> Hidden:
    """What the metrics leave of the study's verdict."""
    verdict, sentence = _verdict(study.verdict_for(symbol), metrics, spent_by)
    choice = study.thresholds_for(symbol).digest()
    return Hidden(symbol, ReadOnly(metrics), not spent_by, spent_by, verdict, sentence, choice)


def _metrics(market: Market, thresholds: Thresholds, days: tuple[int, int], seed: int) -> dict[str, Any]:
    """What a set earned on the days; no trade where the symbol has no candles on them, as a pool's member may."""
    result = market.replay_days(thresholds, *days)
    returns = np.empty(0) if result is None else trade_returns(result.trade_records, market.settings.initial_capital)
    low, high = mean_interval(returns, LEVEL)
    return {
        "n_trades": len(returns),
        "expectancy": float(returns.mean()) if len(returns) else math.nan,
        "expectancy_low": low,
        "expectancy_high": high,
        "win_rate": float((returns > 0).mean()) if len(returns) else math.nan,
        "total_return": float(np.prod(1 + returns) - 1),
        "random_p": math.nan if result is None else random_entries(result, N_RANDOM, seed).p_value,
    }


def _verdict(before: str, metrics: Mapping[str, Any], spent_by: tuple[str, ...]) -> tuple[str, str]:
    n, days = metrics["n_trades"], f"{metrics['n_days']} hidden day{'' if metrics['n_days'] == 1 else 's'}"
    seen = f" It was no fresh look: {_some(spent_by)} had seen these days, so it confirms little." if spent_by else ""
    low, high = metrics["expectancy_low"], metrics["expectancy_high"]
    band = f"{LEVEL_TEXT} {low:+.3%} to {high:+.3%}" if n > 1 else "one trade has no band"
    trades = f"{n} trade{'' if n == 1 else 's'}"
    found = f"{metrics['expectancy']:+.3%} a trade net of costs over {trades} on the {days} ({band})"
    none = f"none at all on the {days}" if metrics["n_days"] else "the lake has no candles of the hidden days"
    if before != "accept":
        shown = found if n else f"trades: {none}"
        return before, f"The study itself said {before}; the hidden span does not change that ({shown}).{seen}"
    if not n:
        return "not enough trades", f"Not enough trades: {none}.{seen}"
    if not metrics["expectancy"] > 0:
        return "keep defaults", f"Keep the default: {found} does not hold up.{seen}"
    n_default = metrics["default_n_trades"]
    default = f"{metrics['default_expectancy']:+.3%} over {n_default}" if n_default else "no trade"
    beside = f" The default: {default}; against random entries p = {metrics['random_p']:.3f}."
    if low > 0:
        return "accept", f"Accept holds: {found}.{beside}{seen}"
    return "accept", f"Accept is not refuted: {found}, too few or too uneven to be sure on its own.{beside}{seen}"


def _some(names: tuple[str, ...]) -> str:
    """The first few names, and how many the others are: a sentence has an end."""
    shown, others = names[:NAMED], len(names) - NAMED
    return ", ".join(shown) + (f" and {others} other{'s' if others > 1 else ''}" if others > 0 else "")
