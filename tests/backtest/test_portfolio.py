"""Many symbols on one account: the single replay where no limit binds, and the limits where they do."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aione_lab import Costs, Settings, Thresholds, replay, replay_portfolio
from aione_lab.backtest import PortfolioResult
from aione_lab.backtest.summary import account_text
from aione_lab.errors import InputError
from tests.backtest.conftest import load_real

BUSY = Thresholds(min_reasons_for_alert=1, min_confidence=0.45)
COSTS = Costs(fee=0.0004, maker_fee=0.0002, slippage_bps=1.0)
RICH = Settings(
    allow_shorts=True, entry="limit", target_shares=(0.4, 0.3), break_even=1.0, trailing_stop=3.0,
    exit_on_opposite=True, sizing="risk", leverage=5.0, max_holding_minutes=90,
)  # fmt: skip


@pytest.mark.parametrize("settings", [Settings(), RICH], ids=["defaults", "everything on"])
def test_one_symbol_in_one_slot_is_its_replay(simulated, simulated_funding, settings) -> None:
    settings = settings.replace(max_open_trades=1)
    candles = simulated["LINKUSDT"].drop(simulated["LINKUSDT"].index[[6000, 6001, 9000]])
    single = replay(candles, BUSY, symbol="LINKUSDT", funding=simulated_funding, settings=settings, costs=COSTS)
    many = replay_portfolio(
        {"LINK/USDT:USDT": candles}, BUSY, funding={"LINKUSDT": simulated_funding}, settings=settings, costs=COSTS
    )
    assert len(single.trade_records) > 30
    assert many.trade_records.tobytes() == single.trade_records.tobytes()
    assert many.stage_records["position"].tobytes() == single.stage_record["position"].tobytes()
    # A gap is told by the clock of the portfolio when the next bar comes, as in the single replay.
    assert many.moments["equity"].tobytes() == single.signal_records["equity"].tobytes()
    own = many.trades.drop(columns=["symbol", "trigger_reasons"])
    pd.testing.assert_frame_equal(own, single.trades)


def test_many_symbols_where_no_limit_binds(simulated) -> None:
    """Times, prices, reasons and R of every symbol are those of its own replay; sizes share one account."""
    settings = Settings(max_open_trades=50, max_correlation_threshold=1.0, max_holding_minutes=60)
    many = replay_portfolio(simulated, BUSY, settings=settings, costs=COSTS)
    assert not len(many.refused)
    for i, symbol in enumerate(many.symbols):
        single = replay(simulated[symbol], BUSY, symbol=symbol, settings=settings, costs=COSTS)
        own = many.trade_records[many.owners == i]
        assert len(own) == len(single.trade_records) > 5
        for name in (
            "signal_time",
            "entry_time",
            "exit_time",
            "entry_price",
            "exit_price",
            "exit_reason",
            "stop",
            "mae",
        ):
            assert own[name].tobytes() == single.trade_records[name].tobytes(), name
        np.testing.assert_allclose(own["r_multiple"], single.trade_records["r_multiple"], rtol=1e-9)


def held_at(many: PortfolioResult, time: int) -> list[int]:
    """Members with a position or an order at the close of ``time`` (an order waits from its signal's close on)."""
    trades = many.trade_records
    held = (trades["signal_time"] <= time) & (trades["exit_time"] > time)
    position, order = many.stage_records["position"], many.stage_records["order"]
    still = (position["side"] != 0) & (position["signal_time"] <= time)
    still |= (order["side"] != 0) & (order["signal_time"] <= time)
    return [*many.owners[held].tolist(), *np.flatnonzero(still).tolist()]


@pytest.mark.parametrize("slots", [1, 2])
def test_capacity_goes_to_the_most_confident(simulated, slots) -> None:
    settings = Settings(max_open_trades=slots, max_correlation_threshold=1.0, max_holding_minutes=120, min_stop=3.0)
    many = replay_portfolio(simulated, BUSY.replace(tp_mult=9.0), settings=settings)
    assert many.metrics["max_open_trades"] == slots and many.metrics["refused_capacity"] > 20
    assert set(many.refused["reason"]) == {"capacity"}
    assert (many.moments["open_trades"] + many.moments["waiting"] <= slots).all()
    confidence = {
        (int(t["signal_time"]), o): t["confidence"] for t, o in zip(many.trade_records, many.owners, strict=True)
    }
    shared = 0
    for time, row in many.refused.iterrows():
        ms = int(time.timestamp() * 1000)
        busy = held_at(many, ms)
        assert len(busy) == slots
        # Whoever entered at this very close was at least as confident.
        for owner in busy:
            if (ms, owner) in confidence:
                shared += 1
                assert confidence[ms, owner] >= row["confidence"]
    assert shared > 0


def test_correlated_positions_are_refused(simulated) -> None:
    settings = Settings(max_open_trades=4, max_correlation_threshold=0.6, max_holding_minutes=240, min_stop=4.0)
    thresholds = BUSY.replace(tp_mult=12.0)
    many = replay_portfolio(simulated, thresholds, reference="BTCUSDT", settings=settings)
    assert many.metrics["refused_correlation"] > 10
    correlation = {
        member.symbol: pd.Series(member.correlation, index=member.bars["timestamp"]) for member in many.members
    }
    assert (correlation["BTCUSDT"] == 1.0).all()
    for time, row in many.refused[many.refused["reason"] == "correlation"].iterrows():
        ms = int(time.timestamp() * 1000)
        others = [correlation[many.symbols[owner]][ms] for owner in held_at(many, ms)]
        assert row["correlation"] > 0.6 and max(others) > 0.6
    for trade, owner in zip(many.trade_records, many.owners, strict=True):
        time = int(trade["signal_time"])
        if correlation[many.symbols[owner]][time] > 0.6:
            earlier = (many.trade_records["signal_time"] < time) & (many.trade_records["exit_time"] > time)
            assert not any(correlation[many.symbols[o]][time] > 0.6 for o in many.owners[earlier])


@pytest.mark.parametrize("entry", ["open", "limit"])
def test_minimum_confidence(simulated, entry) -> None:
    """With limit orders that wait for long, a weak signal comes while one waits, and must not take its place."""
    settings = Settings(
        max_correlation_threshold=1.0, portfolio_min_confidence=0.6, entry=entry, entry_depth=1.0, entry_valid_bars=500
    )
    many = replay_portfolio(simulated, BUSY, settings=settings)
    low = many.refused[many.refused["reason"] == "confidence"]
    assert len(low) and (low["confidence"] < 0.6).all() and (many.trades["confidence"] >= 0.6).all()


def test_an_order_that_waits_is_not_replaced_past_the_limit_of_correlation(simulated) -> None:
    settings = Settings(
        max_open_trades=4, max_correlation_threshold=0.6, entry="limit", entry_depth=1.0, entry_valid_bars=500,
    )  # fmt: skip
    many = replay_portfolio(simulated, BUSY, reference="BTCUSDT", settings=settings)
    correlation = {
        member.symbol: pd.Series(member.correlation, index=member.bars["timestamp"]) for member in many.members
    }
    held = 0
    for trade, owner in zip(many.trade_records, many.owners, strict=True):
        time = int(trade["signal_time"])
        if correlation[many.symbols[owner]][time] > 0.6:
            held += 1
            inside = (many.trade_records["entry_time"] <= time) & (many.trade_records["exit_time"] > time)
            assert not any(correlation[many.symbols[o]][time] > 0.6 for o in many.owners[inside] if o != owner)
    assert held > 3 and many.metrics["refused_correlation"] > 0


def test_without_a_reference_no_limit_of_correlation_is_claimed(simulated) -> None:
    told = account_text(replay_portfolio(simulated, BUSY, reference=None))["correlation"]
    assert told == "not limited: without a reference it is not known"
    assert "0.85" in account_text(replay_portfolio(simulated, BUSY, reference="BTCUSDT"))["correlation"]


@pytest.mark.parametrize("settings", [Settings(min_stop=2.0), RICH], ids=["defaults", "everything on"])
def test_the_account_adds_up(simulated, simulated_funding, settings) -> None:
    """Cash + P&L − costs = equity, to 1e-9 of the capital, at the end and whenever nothing is held."""
    many = replay_portfolio(simulated, BUSY, funding={"LINKUSDT": simulated_funding}, settings=settings, costs=COSTS)
    position = many.stage_records["position"]
    held = position["side"] != 0
    open_part = (position["gross"] - position["fees"] + position["funding"])[held].sum()
    assert many.cash == pytest.approx(1e4 + many.trade_records["pnl"].sum() + open_part, abs=1e-5)
    assert many.equity.iloc[-1] == pytest.approx(many.cash + many.open_trades["unrealised"].sum(), abs=1e-5)
    flat = many.moments["open_trades"] == 0
    done = np.sort(many.trade_records["exit_time"])
    booked = 1e4 + np.concatenate(
        [[0.0], np.cumsum(many.trade_records["pnl"][np.argsort(many.trade_records["exit_time"], kind="stable")])]
    )
    at = np.searchsorted(done, many.clock, side="right")
    assert np.abs(many.moments["equity"] - booked[at])[flat].max() < 1e-5
    fills = many.fills
    cash = -(fills["side"] * fills["quantity"] * fills["price"]).sum() - fills["fee"].sum()
    funding = many.trade_records["funding"].sum() + position["funding"][held].sum()
    marked = (position["side"] * position["quantity"] * many.stage_records["last_close"])[held].sum()
    assert many.equity.iloc[-1] == pytest.approx(1e4 + cash + funding + marked, abs=1e-5)


def test_attribution_adds_up(simulated) -> None:
    many = replay_portfolio(simulated, BUSY, costs=COSTS)
    for by in ("symbol", "hour", "side", "exit"):
        table = many.attribution(by)
        assert table["pnl"].sum() == pytest.approx(many.metrics["net_pnl"]) and table["trades"].sum() == len(
            many.trades
        )
        crossed = many.trades[many.trades["funding_missing"] > 0]
        assert len(crossed) and crossed["funding"].isna().all()  # not known, which is not zero
    triggers = many.attribution("trigger")
    assert triggers["trades"].sum() == sum(map(len, many.trades["trigger_reasons"])) >= len(many.trades)
    with pytest.raises(InputError, match="by='month': must be one of symbol"):
        many.attribution("month")


def test_the_sentence_says_what_the_account_made_and_refused(simulated) -> None:
    many = replay_portfolio(simulated, BUSY, settings=Settings(max_open_trades=1), costs=COSTS)
    m, sentence = many.metrics, many.sentence
    assert sentence.startswith(f"After costs {m['n_trades']:,} trades lost {-m['net_pnl']:,.2f} USDT, ")
    assert f" {len(many.refused):,} of {m['n_entry_signals']:,} entry signals were refused (" in sentence
    assert m["n_not_followed"] + len(many.refused) + m["n_trades"] + m["open_at_end"] == m["n_entry_signals"]
    assert m["n_not_followed"] >= 0
    assert len(many.refused) > 20 and "a clear loss" in sentence
    none = replay_portfolio(simulated, Thresholds(min_confidence=1.0))
    assert none.sentence.startswith("No trade was closed") and "nothing to judge" in none.sentence


def test_a_symbol_that_ends_earlier_frees_its_slot(simulated) -> None:
    settings = Settings(max_open_trades=1, max_holding_minutes=100_000, min_stop=60.0, min_risk_reward=0.0)
    thresholds = BUSY.replace(tp_mult=90.0, sl_mult=90.0, atr_target=0.0)
    whole = replay_portfolio(simulated, thresholds, settings=settings)
    first = whole.symbols[int(whole.owners[0])] if len(whole.owners) else whole.open_trades["symbol"].iloc[0]
    entered = replay(simulated[first], thresholds, settings=settings).trades["entry_time"].iloc[:1]
    entry = entered.iloc[0] if len(entered) else whole.open_trades["entry_time"].iloc[0]
    cut = entry + pd.Timedelta(minutes=5)
    shorter = {name: frame[frame.index <= cut] if name == first else frame for name, frame in simulated.items()}
    many = replay_portfolio(shorter, thresholds, settings=settings)
    gap = many.trades.iloc[0]
    assert gap["symbol"] == first and gap["exit_reason"] == "gap" and gap["exit_time"] == cut
    assert len(many.trades) + len(many.open_trades) > 1


def test_order_of_symbols_does_not_matter(simulated) -> None:
    one = replay_portfolio(simulated, BUSY, settings=Settings(max_open_trades=2))
    other = replay_portfolio(dict(reversed(simulated.items())), BUSY, settings=Settings(max_open_trades=2))
    columns = ["symbol", "entry_time", "exit_time", "pnl"]
    key = ["exit_time", "symbol", "entry_time"]
    left, right = (r.trades[columns].sort_values(key, ignore_index=True) for r in (one, other))
    pd.testing.assert_frame_equal(left, right, rtol=1e-9)


def test_real_symbols(shared: Path) -> None:
    symbols = ("BTCUSDT", "SOLUSDT", "ENAUSDT")
    files = {name: load_real(shared / "candles" / "1m" / f"{name}.parquet") for name in symbols}
    candles = {name: keywords["candles"].iloc[:20_000] for name, keywords in files.items()}
    funding = {name: keywords["funding"] for name, keywords in files.items()}
    many = replay_portfolio(candles, reference="BTC/USDT:USDT", funding=funding)
    assert many.metrics["n_trades"] > 30 and math.isfinite(many.metrics["sharpe"])
    assert many.metrics["n_trades"] + len(many.refused) <= many.metrics["n_entry_signals"]
    assert many.exposure["gross"].max() < 1.1
    figure = many.plot()
    assert {trace.name for trace in figure.data} >= {"equity", "drawdown", "gross exposure", "open trades"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candles": {}}, "candles={}: must be a mapping of symbols"),
        ({"candles": [1]}, "must be a mapping of symbols"),
        ({"thresholds": {"DOGEUSDT": Thresholds()}}, "thresholds='DOGEUSDT': unknown"),
        ({"thresholds": 3}, "thresholds=3: must be a Thresholds object or a mapping"),
        ({"costs": "cheap"}, "costs='cheap': must be a Costs object or a mapping"),
        ({"funding": 0.0001}, "funding=0.0001: must be a mapping of symbols"),
        ({"reference": "ETHUSDT"}, "reference='ETHUSDT': must be candles or one of the symbols"),
    ],
)
def test_bad_input(simulated, change, message) -> None:
    arguments = {"candles": {"SOLUSDT": simulated["SOLUSDT"].iloc[:2000]}, **change}
    with pytest.raises(InputError) as caught:
        replay_portfolio(**arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_symbol_named_twice(simulated) -> None:
    frame = simulated["SOLUSDT"].iloc[:2000]
    with pytest.raises(InputError, match="names SOLUSDT a second time"):
        replay_portfolio({"SOLUSDT": frame, "SOL/USDT:USDT": frame})
