"""`AioneIndicator`: Stage1's triggers and Stage2's score as a vectorbt indicator, over products of thresholds.

Nothing is computed here: every column is what ``replay`` and ``triggers`` give for the thresholds in its name, with
the features of a symbol computed once for all of them. vectorbt is imported when the class is first asked for, which
takes about ten seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aione_lab.backtest.replay import compute_features, replay
from aione_lab.engine.params import check_kind
from aione_lab.engine.records import RECOMMENDATIONS, SIGNALS
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds

if TYPE_CHECKING:
    AioneIndicator: Any

INPUTS = ("open", "high", "low", "close", "volume")
PARAMS = tuple(name for name in Thresholds.model_fields if name not in ("custom", "meta"))
SIGNAL_OUTPUTS = ("alert", "buy", "sell", "confidence")


def __getattr__(name: str) -> Any:
    if name == "AioneIndicator":
        return make_indicator()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def make_indicator(spec: FeatureSpec | None = None) -> Any:
    """The indicator's class, for ``spec``; with own triggers each of them is an output too.

    ``make_indicator().run(open, high, low, close, volume, vol_z_threshold=[2, 2.5, 3], min_confidence=[0.5, 0.75],
    param_product=True)``. Inputs are pandas objects on one UTC index, a column a symbol; a row without any number is a
    bar that is missing. Parameters are the fields of ``Thresholds``, one value or a list, the defaults its defaults.

    Outputs, a row a bar, a column a combination of parameters and symbol: ``alert``, ``buy`` and ``sell`` (bool; also
    as ``entries`` and ``short_entries``), ``confidence``, and a bool for each reason in small letters
    (``volume_spike`` …): which reasons hold, whether or not there is an alert.

    Keywords of ``run`` beside the parameters: ``taker_buy_volume`` and ``quote_volume`` (shaped as ``close``; the score
    reads the taker's side where it is known), ``reference`` (candles or closes of the market), ``funding`` (rates; with
    several symbols a mapping of column → rates), ``interval``, ``settings``, ``costs``. Raises InputError for what
    ``replay`` refuses, and for inputs without times.
    """
    import vectorbt as vbt

    used = FeatureSpec() if spec is None else spec
    check_kind("spec", used, FeatureSpec)
    outputs = (*SIGNAL_OUTPUTS, *(reason.lower() for reason in used.reasons))

    def apply(*arguments: Any, **keywords: Any) -> tuple[np.ndarray, ...]:
        candles, params = arguments[: len(INPUTS)], arguments[len(INPUTS) :]
        return _columns(dict(zip(INPUTS, candles, strict=True)), params, used, outputs, **keywords)

    factory = vbt.IndicatorFactory(
        class_name="AioneIndicator",
        class_docstring="Triggers and score of AiOne lab; see ``make_indicator``.",
        module_name=__name__,
        short_name="aione",
        input_names=list(INPUTS),
        param_names=list(PARAMS),
        output_names=list(outputs),
        attr_settings={name: {"dtype": np.bool_} for name in outputs if name != "confidence"},
        custom_output_props={"entries": lambda self: self.buy, "short_entries": lambda self: self.sell},
    )
    defaults = {name: Thresholds.model_fields[name].default for name in PARAMS}
    return factory.from_custom_func(apply, keep_pd=True, **defaults)


def _columns(
    inputs: Mapping[str, pd.DataFrame],
    params: Sequence[Sequence[Any]],
    spec: FeatureSpec,
    outputs: Sequence[str],
    *,
    settings: Settings | None = None,
    costs: Costs | None = None,
    interval: str | None = None,
    reference: pd.DataFrame | pd.Series | None = None,
    funding: Any = None,
    quote_volume: pd.DataFrame | pd.Series | None = None,
    taker_buy_volume: pd.DataFrame | pd.Series | None = None,
) -> tuple[np.ndarray, ...]:
    """Each output as (bars, combinations × symbols), symbols side by side in each combination."""
    close = inputs["close"]
    if not isinstance(close, pd.DataFrame):
        raise InputError.of("close", type(close).__name__, "must be a pandas Series or DataFrame with UTC times")
    rows = zip(*params, strict=True)
    sets = [Thresholds(**{name: _value(one) for name, one in zip(PARAMS, row, strict=True)}) for row in rows]
    n, symbols = close.shape
    found = [np.zeros((n, len(sets) * symbols), float if name == "confidence" else bool) for name in outputs]
    found[outputs.index("confidence")][:] = np.nan
    known = {"quote_volume": quote_volume, "taker_buy_volume": taker_buy_volume}
    more = {name: _shaped(name, one, close) for name, one in known.items() if one is not None}
    for place, column in enumerate(close.columns):
        whole = pd.DataFrame({name: frame.iloc[:, place] for name, frame in inputs.items()})
        there = whole.notna().any(axis=1).to_numpy()
        candles = whole[there].assign(**{name: frame.iloc[there, place] for name, frame in more.items()})
        rates = funding.get(column) if isinstance(funding, Mapping) else funding
        common: dict[str, Any] = {"interval": interval, "reference": reference, "funding": rates, "spec": spec}
        features = compute_features(candles, **common)
        for number, thresholds in enumerate(sets):
            result = replay(candles, thresholds, **common, settings=settings, costs=costs, features=features)
            records, at = result.signal_records, number * symbols + place
            values = {
                "alert": records["signal"] == SIGNALS.index("ALERT"),
                "buy": records["recommendation"] == RECOMMENDATIONS.index("BUY"),
                "sell": records["recommendation"] == RECOMMENDATIONS.index("SELL"),
                "confidence": records["confidence"],
            }
            values |= {name.lower(): records["reasons"] >> i & 1 == 1 for i, name in enumerate(spec.reasons)}
            for name, array in zip(outputs, found, strict=True):
                array[there, at] = values[name]
    return tuple(found)


def _shaped(name: str, given: Any, close: pd.DataFrame) -> pd.DataFrame:
    frame = given.to_frame() if isinstance(given, pd.Series) else given
    if not isinstance(frame, pd.DataFrame) or frame.shape != close.shape or not frame.index.equals(close.index):
        raise InputError.of(
            name, getattr(given, "shape", given), f"must have the shape and times of close {close.shape}"
        )
    return frame


def _value(one: Any) -> Any:
    """A parameter as Python knows it: vectorbt makes numpy's numbers and texts of them."""
    return one.item() if isinstance(one, np.generic) else one
