"""The explanation of a bar: it adds up, it agrees with the kernel, and it is safe to show."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from stage_cases import alert_places, case

from aione_lab.backtest import replay
from aione_lab.backtest.conditions import conditions, rsi_levels
from aione_lab.backtest.explain import DECIDED, HELD_BACK, confidence_steps, explain
from aione_lab.engine.event import decode_mask
from aione_lab.engine.records import DETAILS, FACTORS, SUPPRESSED
from aione_lab.errors import InputError
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds import Thresholds


def explained(result, at, trade=None):
    row, signal, found, params = case(result, at)
    return explain("SOLUSDT", row, signal, found, params, trade)


HOLDS = {
    "≥": lambda value, limit: value >= limit,
    "≤": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    "<": lambda value, limit: value < limit,
}


@pytest.mark.parametrize(
    "thresholds", [Thresholds(), Thresholds(dynamic_rsi_multiplier=1.3, high_gate="1.5x", vwap_threshold="2x")]
)
def test_on_every_bar_what_is_told_to_hold_holds(simulated, thresholds):
    """Exactly the kernel's reasons, each with numbers that stand in the stated relation."""
    result = replay(simulated["SOLUSDT"][:3500], thresholds, symbol="SOLUSDT")
    seen = set()
    for at in np.flatnonzero(result.signal_records["reasons"]):
        row, signal, _, params = case(result, at)
        held = conditions(row, signal, params.limits, params.rules)
        assert tuple(line.reason for line in held) == decode_mask(int(signal["reasons"]))
        for line in held:
            assert HOLDS[line.relation](line.value, line.limit), line
            assert type(line.value) is type(line.limit) is float
            if line.feature in row.dtype.names:
                assert line.value == row[line.feature]
        seen |= {(line.reason, line.feature) for line in held}
    reasons = {name for name, _ in seen}
    assert reasons >= {"VOLUME_SPIKE", "RSI_OVERSOLD", "RSI_OVERBOUGHT", "BREAKOUT_UP", "BREAKOUT_DOWN"}
    if thresholds.dynamic_rsi_multiplier:
        assert {("VOLATILITY_SPIKE", "range_burst"), ("VOLATILITY_SPIKE", "atr_pct")} <= seen


def test_just_beyond_the_told_rsi_limit_the_reason_is_gone(simulated):
    """The limits are the kernel's own, dynamic ones included: bars on the other side do not trigger."""
    result = replay(simulated["SOLUSDT"][:3500], Thresholds(dynamic_rsi_multiplier=1.2), symbol="SOLUSDT")
    for at in range(1500, 3500):
        row, signal, _, params = case(result, at)
        oversold, overbought = rsi_levels(float(row.rsi_mean), params.limits)
        reasons = decode_mask(int(signal["reasons"]))
        assert ("RSI_OVERSOLD" in reasons, "RSI_OVERBOUGHT" in reasons) == (row.rsi <= oversold, row.rsi >= overbought)


def test_factors_add_up_and_steps_end_at_the_confidence(replayed):
    names = set()
    for at in alert_places(replayed):
        made = explained(replayed, at)
        parts = [line.contribution for line in made.factors]
        assert [line.name for line in made.factors] == list(FACTORS)
        assert sum(parts) == sum(reversed(parts)) == math.fsum(parts) == made.score
        assert made.steps[0].value == made.score and made.steps[-1].value == made.confidence
        names |= {step.name for step in made.steps}
    assert {"score", "4 factors confirm"} <= names


def test_every_step_of_the_confidence_is_the_kernels(simulated):
    """Under settings that make all the steps happen, the last one is still the kernel's confidence."""
    tight = Settings(
        volatility_high=0.9, volatility_low=0.5, market_drift=0.2, context_min_correlation=0.0, min_cluster=3
    )
    result = replay(
        simulated["SOLUSDT"][:5760], symbol="SOLUSDT", reference=simulated["BTCUSDT"][:5760], settings=tight
    )
    names = set()
    for at in alert_places(result):
        _, _, found, params = case(result, at)
        steps = confidence_steps(found)
        assert steps[-1].value == found["confidence"]
        names |= {re.sub(r"\d+ ", "", step.name) for step in steps}
    assert {"score", "factors confirm", "high volatility × 0.9", "against the market × 0.8"} <= names


def test_the_rule_that_decided_is_true(simulated):
    seen = set()
    suspicious = Settings(manipulation_volume_z=3, manipulation_body=0.8)
    for settings in (Settings(), Settings(low_liquidity_usd=1e9), suspicious):
        result = replay(simulated["SOLUSDT"][:5760], symbol="SOLUSDT", settings=settings)
        for at in alert_places(result):
            made = explained(result, at)
            found = case(result, at)[2]
            assert made.detail == DETAILS[found["detail"]] and made.rule
            if made.detail in ("weak_score", "risk_reward", "room", "confidence"):
                value, limit = re.findall(r"-?\d+(?:\.\d+)?", made.rule)[:2]
                assert float(value) <= float(limit)
            seen.add(made.detail)
    assert seen >= {"all_gates_met", "manipulation", "liquidity", "weak_score", "room", "confidence"}
    assert set(DECIDED) == set(DETAILS) - {""} and set(HELD_BACK) == set(SUPPRESSED) - {""}


def test_bars_without_an_alert_say_why(simulated):
    candles = simulated["SOLUSDT"][:4320]
    result = replay(candles, symbol="SOLUSDT", settings=Settings(exclude_hours=(5, 6), min_volume_usd=5e7))
    records = result.signal_records
    assert explained(result, 10).rule == "warming up"
    told = set()
    for at in np.flatnonzero(records["signal"] == 1):
        made = explained(result, at)
        assert made.suppressed == SUPPRESSED[records["suppressed"][at]]
        assert made.factors == () and made.narrative is None and made.recommendation == "" and made.confidence == 0.0
        assert made.rule.startswith("held back" if made.suppressed else tuple("01"))
        told.add(made.suppressed)
    assert told >= {"", "low_volatility", "volume", "hour", "cooldown"}


def test_the_trade_that_followed(replayed):
    trade = replayed.trade_records[0]
    at = int(np.flatnonzero(replayed.bars["timestamp"] == trade["signal_time"])[0])
    made = explained(replayed, at, trade)
    assert made.recommendation == "BUY" and made.trade is not None and made.trade["pnl"] == trade["pnl"]
    assert made.trade["entry_time"] == replayed.index[at + 1].isoformat()
    assert str(made.trade["exit_reason"]) in str(made) and "funding" in str(made)
    assert made.to_dict()["trade"]["pnl"] == float(trade["pnl"])
    assert made == replayed.explain(replayed.index[at])


def test_a_buy_without_a_trade_says_why(simulated):
    """Every BUY either has its trade or the reason why not, and the reason is true."""
    candles = simulated["SOLUSDT"]
    result = replay(candles, Thresholds(min_confidence=0.4), symbol="SOLUSDT", settings=Settings(cooldown_period=60))
    records = result.signal_records
    traded = set(result.trade_records["signal_time"].tolist())
    bought = np.flatnonzero(records["recommendation"] == 1)
    told = set()
    for at in bought:
        made = result.explain(result.index[at])
        assert (made.trade is None) is (int(records["timestamp"][at]) not in traded) is bool(made.no_trade)
        assert ("a LONG position was open" in made.no_trade) is bool(records["position"][at])
        assert made.no_trade in str(made) and made.no_trade in made._repr_html_()
        assert made.to_dict()["no_trade"] == made.no_trade
        told.add(made.no_trade)
    assert {"", "not traded: a LONG position was open"} <= told
    entry = next(at for at in bought if int(records["timestamp"][at]) in traded)
    cut = replay(candles[: entry + 1], result.thresholds, symbol="SOLUSDT", settings=result.settings)
    assert cut.explain(cut.index[-1]).no_trade.startswith("not traded yet")
    held = replay(candles[: entry + 2], result.thresholds, symbol="SOLUSDT", settings=result.settings)
    if held.open_trade is not None:
        assert held.explain(held.index[-2]).no_trade == "the trade is still open after the last bar"
    gap = replay(candles.drop(candles.index[entry + 1]), result.thresholds, settings=result.settings)
    assert gap.explain(gap.index[entry]).no_trade == "not traded: the bars after it are missing"
    lots = replay(candles, result.thresholds, settings=result.settings, costs=Costs(lot_size=1e9))
    assert not len(lots.trades) and "less than one lot" in lots.explain(lots.index[entry]).no_trade
    quiet = int(np.flatnonzero(records["recommendation"] != 1)[-1])
    assert result.explain(result.index[quiet]).no_trade == ""


@pytest.mark.parametrize("kind", ["alert", "normal", "warm-up"])
def test_three_forms_of_the_same(replayed, kind):
    at = {"alert": alert_places(replayed)[0], "normal": alert_places(replayed)[0] + 1, "warm-up": 5}[kind]
    made = explained(replayed, at)
    values = made.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    text, html = str(made), made._repr_html_()
    assert repr(made).startswith(f"Explanation({made.symbol} {made.time}, {made.signal}") and len(repr(made)) < 120
    assert "SOLUSDT" in text and made.time in text and made.rule in text and "nan" not in text
    assert shown_text(html) == [cell for cell in shown_text(html) if cell in text]
    if kind == "alert":
        assert all(name in text for name in FACTORS) and made.narrative["uk"] in text and "<table>" in html
        assert html.count("<td ") == html.count('<td style="text-align:left">') > 40
    with pytest.raises(AttributeError):
        made.symbol = "x"


def test_nothing_in_the_html_is_live(replayed):
    payload = "<img src=x onerror=alert(1)>\"'&"
    made = explained(replayed, alert_places(replayed)[0])
    hostile = replace(made, symbol=payload, rule=payload, narrative={"uk": payload, "en": payload}, flags=(payload,))
    html = hostile._repr_html_()
    assert set(re.findall(r"<(\w+)", html)) == {"div", "h4", "table", "tr", "td"}
    assert any(payload in cell for cell in shown_text(html))


def test_a_symbol_is_a_symbol_or_nothing(replayed):
    row, signal, found, params = case(replayed, alert_places(replayed)[0])
    assert str(explain("", row, signal, found, params)).startswith("2025-")
    assert explain("SOL/USDT:USDT", row, signal, found, params).symbol == "SOLUSDT"
    with pytest.raises(InputError, match="symbol="):
        explain("../../x", row, signal, found, params)


def test_records_and_arrays_of_one_are_the_same(replayed):
    row, signal, found, params = case(replayed, alert_places(replayed)[0])
    arrays = [np.array([part]) for part in (row, signal, found, params)]
    assert explain("SOLUSDT", *arrays) == explain("SOLUSDT", row, signal, found, params)


def shown_text(html: str) -> list[str]:
    cells: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            cells.append(data)

    Reader(convert_charrefs=True).feed(html)
    return cells
