"""The vectorbt indicator says what `triggers` and `replay` say, column by column; portfolios do what users ask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from aione_lab import Settings, Thresholds, replay, triggers
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.lake.simulated import SimulatedExchange

pytest.importorskip("vectorbt")
NAMES = ("open", "high", "low", "close", "volume")
SETTINGS = Settings(allow_shorts=True, min_risk_reward=1.0)


@pytest.fixture(scope="module")
def market() -> dict[str, Any]:
    exchange = SimulatedExchange(seed=3)
    days = 5
    return {
        "LINKUSDT": exchange.candles("LINKUSDT", days=days),
        "SUIUSDT": exchange.candles("SUIUSDT", days=days),
        "reference": exchange.candles("BTCUSDT", days=days),
        "funding": {name: exchange.funding(name, days=days) for name in ("LINKUSDT", "SUIUSDT")},
    }


@pytest.fixture(scope="module")
def indicator() -> Any:
    from aione_lab.backtest.vectorbt_indicator import AioneIndicator

    return AioneIndicator


def of(candles: pd.DataFrame) -> list[pd.Series]:
    return [candles[name] for name in NAMES]


def check(found: Any, column: Any, result: Any) -> None:
    """Every output of one column is the replay's, and its reasons are those of ``triggers``."""

    def values(name: str) -> np.ndarray:
        frame = getattr(found, name)
        return (frame if column is None else frame[column]).to_numpy()

    signals, held = result.signals, triggers(result.features, result.thresholds, settings=result.settings)
    np.testing.assert_array_equal(values("alert"), (signals["signal"] == "ALERT").to_numpy())
    np.testing.assert_array_equal(values("confidence"), signals["confidence"].to_numpy())
    for name, advice in (("buy", "BUY"), ("sell", "SELL"), ("entries", "BUY"), ("short_entries", "SELL")):
        np.testing.assert_array_equal(values(name), (signals["recommendation"] == advice).to_numpy())
    for reason in held:
        np.testing.assert_array_equal(values(reason.lower()), held[reason].to_numpy(), err_msg=reason)
        assert values(reason.lower()).dtype == bool


def test_products_of_thresholds_are_replays(market: dict[str, Any], indicator: Any) -> None:
    candles, funding = market["LINKUSDT"], market["funding"]["LINKUSDT"]
    options = {"reference": market["reference"], "funding": funding, "settings": SETTINGS}
    more = {name: candles[name] for name in ("quote_volume", "taker_buy_volume")}
    levels = {
        "vol_z_threshold": [2, 3.1],
        "vwap_threshold": ["4x", 0.002],
        "min_reasons_for_alert": [1, 2],
        "min_confidence": [0.5, 0.7],
    }
    found = indicator.run(*of(candles), **levels, param_product=True, **options, **more)
    columns = found.alert.columns
    assert list(columns.names) == [f"aione_{name}" for name in levels] and len(columns) == 16
    assert set(columns) == set(pd.MultiIndex.from_product(levels.values()))
    for column in columns[[0, 3, 6, 9, 12, 15]]:
        thresholds = Thresholds(**dict(zip(levels, column, strict=True)))
        check(found, column, replay(candles, thresholds, **options))
    assert found.alert.to_numpy().any() and found.entries.to_numpy().any() and found.short_entries.to_numpy().any()


def test_the_defaults_are_the_defaults(market: dict[str, Any], indicator: Any) -> None:
    candles = market["SUIUSDT"]
    found = indicator.run(*of(candles))
    assert isinstance(found.alert, pd.Series) and found.alert.any()
    check(found, None, replay(candles[list(NAMES)], Thresholds()))


def test_lists_of_one_length_go_side_by_side_and_none_is_adaptive(market: dict[str, Any], indicator: Any) -> None:
    candles = market["SUIUSDT"]
    found = indicator.run(*of(candles), vol_z_threshold=[2.0, None], tp_mult=[2.0, 3.0])
    assert found.alert.shape[1] == 2
    for place, thresholds in enumerate((Thresholds(vol_z_threshold=2.0, tp_mult=2.0), Thresholds(tp_mult=3.0))):
        signals = replay(candles[list(NAMES)], thresholds).signals
        np.testing.assert_array_equal(found.alert.iloc[:, place], (signals["signal"] == "ALERT").to_numpy())


def test_symbols_stand_side_by_side_each_with_its_own_bars(market: dict[str, Any], indicator: Any) -> None:
    symbols = ("LINKUSDT", "SUIUSDT")
    late = {"LINKUSDT": market["LINKUSDT"][list(NAMES)], "SUIUSDT": market["SUIUSDT"][list(NAMES)].iloc[500:]}
    frames = [pd.DataFrame({symbol: late[symbol][name] for symbol in symbols}) for name in NAMES]
    options = {"reference": market["reference"], "settings": SETTINGS}
    found = indicator.run(*frames, min_confidence=[0.5, 0.75], funding=market["funding"], **options)
    for limit in (0.5, 0.75):
        for symbol in symbols:
            funding = market["funding"][symbol]
            result = replay(late[symbol], Thresholds(min_confidence=limit), funding=funding, **options)
            column = found.confidence[limit, symbol]
            np.testing.assert_array_equal(column.to_numpy()[-len(result.bars) :], result.signals["confidence"])
            buys = (result.signals["recommendation"] == "BUY").to_numpy()
            np.testing.assert_array_equal(found.buy[limit, symbol].to_numpy()[-len(buys) :], buys)
    assert found.confidence[0.5, "SUIUSDT"].iloc[:500].isna().all() and not found.alert[0.5, "SUIUSDT"].iloc[:500].any()


def test_own_triggers_are_outputs(market: dict[str, Any]) -> None:
    from aione_lab.backtest.vectorbt_indicator import make_indicator
    from tests.custom_examples import SPEC as spec

    candles = market["SUIUSDT"]
    found = make_indicator(spec).run(*of(candles))
    result = replay(candles, Thresholds(), spec=spec)
    own = triggers(result.features, Thresholds(), spec=spec)
    for name in (trigger.name for trigger in spec.triggers):
        np.testing.assert_array_equal(getattr(found, name.lower()), own[name])


def test_entries_go_on_in_vectorbt(market: dict[str, Any], indicator: Any) -> None:
    import vectorbt as vbt

    candles = market["SUIUSDT"]
    found = indicator.run(*of(candles), min_confidence=[0.4, 0.6], settings=SETTINGS)
    entries = found.entries.vbt.signals.fshift(1)
    portfolio = vbt.Portfolio.from_signals(
        candles["open"], entries, sl_stop=0.01, tp_stop=0.02, freq="1min", engine="numba"
    )
    assert portfolio.trades.count().tolist()[0] > 0 and portfolio.total_return().shape == (2,)


def test_bad_input(market: dict[str, Any], indicator: Any) -> None:
    candles = market["SUIUSDT"].iloc[:2000]
    with pytest.raises(InputError, match="min_confidence"):
        indicator.run(*of(candles), min_confidence=[0.5, 2.0])
    with pytest.raises(InputError, match="UTC"):
        indicator.run(*of(candles.tz_localize(None)))
    with pytest.raises(InputError, match="close=|times|index"):
        indicator.run(*[series.to_numpy() for series in of(candles)])
    with pytest.raises(InputError, match="taker_buy_volume="):
        indicator.run(*of(candles), taker_buy_volume=candles["volume"].iloc[1:])
    with pytest.raises(TypeError, match="tp_mul"):
        indicator.run(*of(candles), tp_mul=3.0)
    from aione_lab.backtest import vectorbt_indicator

    with pytest.raises(InputError, match="spec="):
        vectorbt_indicator.make_indicator("mine")  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        vectorbt_indicator.Indicator  # noqa: B018


def test_a_portfolio_has_stats_and_a_plot(market: dict[str, Any]) -> None:
    funding = market["funding"]["LINKUSDT"]
    result = replay(
        market["LINKUSDT"], Thresholds(min_confidence=0.5), symbol="LINKUSDT", funding=funding, settings=SETTINGS
    )
    portfolio = result.to_vectorbt()
    stats = portfolio.stats()
    assert stats["Total Closed Trades"] == portfolio.trades.closed.count() > 0
    paid = result.trade_records["fees"].sum()
    assert stats["Total Fees Paid"] == pytest.approx(paid if result.open_trade is None else stats["Total Fees Paid"])
    assert stats["Start Value"] == SETTINGS.initial_capital
    figure = portfolio.plot()
    assert {trace.name for trace in figure.data} >= {"Close", "Buy", "Sell", "Value"}
    assert len(portfolio.trades.records_readable) == portfolio.trades.count()


def test_the_spec_is_the_key_of_its_class() -> None:
    from aione_lab.backtest.vectorbt_indicator import AioneIndicator, make_indicator

    assert make_indicator() is AioneIndicator
    assert make_indicator(FeatureSpec()) is make_indicator(FeatureSpec())
