"""The alerts of one replay or several, traded alone, in one frame: what the studies of alerts begin with."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from aione_lab.backtest.alone import trade_alone
from aione_lab.backtest.result import Result
from aione_lab.errors import InputError

Results = Result | Iterable[Result]


def several(result: Results) -> tuple[Result, ...]:
    """One Result or several as a tuple; InputError where there is none, something else, or the same candles twice."""
    results = (result,) if isinstance(result, Result) else tuple(result) if isinstance(result, list | tuple) else ()
    if not results or not all(isinstance(one, Result) for one in results):
        raise InputError.of("result", result, "must be a Result or a list of them")
    if len({(one.symbol, one.fingerprint) for one in results}) < len(results):
        raise InputError.of("result", [one.symbol for one in results], "the same candles twice are no more evidence")
    return results


def alone_frame(results: tuple[Result, ...]) -> tuple[pd.DataFrame, int]:
    """(closed trades of alerts traded alone, in time; number of alerts that have none) of all ``results``.

    The columns of `trade_alone`, and ``symbol``. An alert has none without a target above its price, or where its
    trade was not entered or is open at the end.
    """
    frames = [trade_alone(one).assign(symbol=one.symbol) for one in results]
    trades = pd.concat(frames).sort_index(kind="stable") if len(frames) > 1 else frames[0]
    closed = trades[np.isfinite(trades["pnl"].to_numpy())]
    return closed, sum(len(one.assessment_records) for one in results) - len(closed)
