"""The HTML report and the words in it: one file, nothing from elsewhere, nothing alive that came from outside."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from aione_lab import Costs, Lake, Settings, Thresholds, replay, replay_portfolio
from aione_lab.backtest.baseline import Baseline, random_entries
from aione_lab.backtest.result import Result
from aione_lab.backtest.summary import (
    CHANCE,
    FEW_TRADES,
    SENTENCES,
    costs_text,
    counts,
    entry_signals,
    metric_rows,
    outcome_text,
    portfolio_rows,
    portfolio_verdict,
    quote_currency,
    settings_text,
    sides_text,
    size_text,
    stop_costs,
    stop_text,
    thresholds_text,
    verdict,
)
from aione_lab.figures.baseline import random_entries_chart
from aione_lab.figures.portfolio_section import PortfolioSection
from aione_lab.figures.report import (
    Section,
    Study,
    equity_figure,
    explanation_metrics,
    one_alert,
    overview_text,
    report_html,
)
from aione_lab.lake.simulated import SimulatedExchange, fill

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.texts.append(data)


@pytest.fixture(scope="module")
def result() -> Result:
    exchange = SimulatedExchange()
    return replay(
        exchange.candles("SUIUSDT", days=6),
        symbol="SUIUSDT",
        reference=exchange.candles("BTCUSDT", days=6),
        funding=exchange.funding("SUIUSDT", days=6),
        costs=Costs(fee=0.0004, slippage_bps=1.0),
    )


@pytest.fixture(scope="module")
def section(result: Result) -> Section:
    return Section(result, random_entries(result, 50), "BTCUSDT (as asked)", "a remark")


@pytest.fixture(scope="module")
def text(section: Section) -> str:
    return report_html([section, section], "A title")


def test_the_report_is_one_file_that_loads_and_sends_nothing(text: str) -> None:
    page = Page(text)
    assert text.count(get_plotlyjs()) == 1
    assert len(text) < 15e6
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "img", "form", "base"}
        assert not {"src", "action", "srcset"} & set(attributes), (tag, attributes)
        if (target := attributes.get("href")) is not None:  # leads to a heading of this page, never away
            assert tag == "a" and target.startswith("#") and f'id="{target[1:]}"' in text
        assert not [name for name in attributes if name.startswith("on")]
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy and "default-src 'none'" in policy and "http" not in policy
    own = text.replace(get_plotlyjs(), "")
    assert "https://" not in own and "http://" not in own
    charts = [script for script in page.scripts if "Plotly.newPlot" in script]
    assert len(charts) == 2 * 6
    assert all('"showSendToCloud": false' in script for script in charts)


def test_the_report_says_what_the_library_says(text: str, section: Section) -> None:
    result = section.result
    words = " ".join(Page(text).texts)
    for expected in (
        verdict(result.metrics, section.baseline, "USDT"),
        "long only (Settings.allow_shorts is off)",
        "starting capital 10,000 USDT, all of the equity put into each trade",
        stop_text(result),
        costs_text(result),
        "slippage 1 bps",
        "BTCUSDT (as asked)",
        "a remark",
        result.fingerprint,
        result.thresholds.digest(),
        f"{result.metrics['n_alerts']:,}, ",
    ):
        assert expected in words, expected
    for row in metric_rows(result.metrics, result):
        assert row.value in words and row.meaning in words, row


def test_the_same_replay_gives_the_same_report(text: str, section: Section) -> None:
    assert report_html([section, section], "A title") == text


def test_what_comes_from_outside_is_escaped(section: Section) -> None:
    hostile = Section(section.result, section.baseline, HOSTILE, HOSTILE)
    text = report_html([hostile], HOSTILE).replace(get_plotlyjs(), "")
    assert HOSTILE not in text and text.count(html.escape(HOSTILE)) == 4
    assert "alert(1)" not in " ".join(Page(text).scripts)
    assert not [tag for tag, _ in Page(text).tags if tag == "img"]


def test_a_replay_without_a_trade_or_an_alert_has_a_report_too(result: Result) -> None:
    for limits in (Thresholds(min_confidence=1.0), Thresholds(min_reasons_for_alert=11)):
        quiet = replay(result.candles, limits, symbol="SUIUSDT")
        text = report_html([Section(quiet, random_entries(quiet, 20))], "Quiet")
        words = " ".join(Page(text).texts)
        assert "No trade was closed" in words and "There was no trade to compare with." in words
        assert "nan" not in words.replace("finance", "")
    assert one_alert(quiet) is None


def test_the_overview_says_how_many_are_shown_to_earn_their_costs() -> None:
    def of(symbol: str, n: int, low: float, high: float) -> SimpleNamespace:
        return SimpleNamespace(symbol=symbol, metrics=numbers(n, low + high, low, high))

    gain, loss, undecided = of("AUSDT", 100, 1.0, 9.0), of("BUSDT", 100, -9.0, -1.0), of("CUSDT", 100, -1.0, 3.0)
    few = of("DUSDT", FEW_TRADES - 1, 1.0, 9.0)
    assert overview_text([loss, undecided, few]) == (
        "None of the 3 symbols is shown to earn its costs; 1 is a clear loss, 1 with too few trades to judge."
    )
    mixed = overview_text([gain, loss, loss])
    assert mixed.startswith("1 of the 3 symbols (AUSDT) earns more than the scatter of the trades explains; 2 are")
    assert "luckiest" in mixed and "has the 30 trades" in overview_text([few, few])


def test_a_portfolio_comes_before_its_symbols(section: Section, result: Result) -> None:
    exchange = SimulatedExchange()
    candles = {"SUIUSDT": result.candles, "SOLUSDT": exchange.candles("SOLUSDT", days=6)}
    pooled = replay_portfolio(candles, settings=Settings(portfolio_min_confidence=0.8))
    refused = pooled.metrics["refused_confidence"]
    told = portfolio_verdict(pooled)
    assert len(pooled.trades) and refused and f"{refused} of {pooled.metrics['n_entry_signals']}" in told
    assert ("rather too narrow" in told) == (len(pooled.trades) >= FEW_TRADES)
    assert told.endswith("It was not compared with random entries.")
    text = report_html([section, section], "Pooled", PortfolioSection(pooled, "none <b>"))
    words = " ".join(Page(text).texts)
    assert words.index("Portfolio of 2 symbols 1m") < words.index("At a glance") < words.index("SUIUSDT 1m")
    assert told in words and "none <b>" in words and "By trigger" in words
    for row in portfolio_rows(pooled):
        assert row.value in words and row.meaning in words, row
    idle = replay_portfolio(candles, Thresholds(min_confidence=1.0))
    quiet = " ".join(Page(report_html([], "Idle", PortfolioSection(idle))).texts)
    assert "No trade was closed" in quiet and "nan" not in quiet.replace("finance", "")


def test_a_study_has_its_note_and_all_its_cells_escaped(section: Section, result: Result) -> None:
    study = Study("A study", HOSTILE, header=("trigger", "n", HOSTILE), rows=((HOSTILE, "1", HOSTILE),), note=HOSTILE)
    text = report_html([Section(result, section.baseline, studies=(study,))], "Study").replace(get_plotlyjs(), "")
    assert HOSTILE not in text and text.count(html.escape(HOSTILE)) == 5


def test_equity_is_drawn_once_a_symbol_and_the_random_band_at_its_end(section: Section) -> None:
    page = Page(report_html([section], "Once"))
    charts = [script for script in page.scripts if "Plotly.newPlot" in script]
    assert sum('"Equity (USDT)"' in chart or "adding up" in chart for chart in charts) == 1
    (shape,) = [shape for shape in equity_figure(section.result, section.baseline).layout.shapes]
    assert pd.Timestamp(shape.x0) == section.result.index[-1].tz_localize(None)


def test_without_taker_volume_the_explanation_says_what_the_factor_needs(result: Result) -> None:
    explanation = one_alert(replay(result.candles, symbol="SUIUSDT"))
    assert explanation is not None and "not available (needs taker_buy_volume in the candles)" in str(explanation)
    assert "needs taker_buy_volume" not in str(one_alert(result))


def test_the_alert_taken_apart_is_one_that_was_traded_and_says_how_it_ended(result: Result, text: str) -> None:
    explanation = one_alert(result)
    assert explanation is not None and explanation.recommendation == "BUY" and explanation.trade is not None
    last = result.trades.iloc[-1]
    word = "made" if last["pnl"] > 0 else "lost"
    outcome = f"This one {word} {abs(last['r_multiple']):.2f} R: a single alert proves nothing."
    assert outcome_text(explanation) == outcome and outcome in html.unescape(text)
    shown = str(explanation)
    assert shown.index("(en)  SUIUSDT") < shown.index("(uk)  SUIUSDT")
    shown = explanation_metrics(explanation)
    total = sum(factor["contribution"] or 0.0 for factor in shown["factors"].values())
    assert math.isclose(total, explanation.score or 0.0, abs_tol=1e-12)


# --- words -------------------------------------------------------------------------------------------------------


def numbers(n: int, net: float, low: float, high: float) -> dict:
    return {
        "n_trades": n,
        "net_pnl": net,
        "expectancy": net / n if n else math.nan,
        "expectancy_low": low,
        "expectancy_high": high,
        "n_alerts": 1_234,
        "n_buys": n,
        "n_sells": 0,
        "n_bars": 90_000,
        "funding_coverage": math.nan,
        "warm_days": 59.0,
    }


def against(p: float) -> Baseline:
    return Baseline(100, np.zeros(3), np.zeros(3), 0.0, np.zeros(3), 0.0, p)


INTERVALS = {"gain": (500.0, 1.0, 9.0), "open": (500.0, -1.0, 11.0), "loss": (-500.0, -7.0, -3.0)}
P_VALUES = {"": math.nan, "better": CHANCE, "same": 0.5, "worse": 1 - CHANCE}
CLAIMS = {  # what may be said of each, and of nothing else
    "a gain larger than its own scatter": "gain",
    "a clear loss": "loss",
    "not settled": "open",
    "no gain is shown": "open",
    "neither a gain nor": "open",
    "beat random": "better",
    "cannot be told from random": "same",
    "entries better than random ones are shown": "same",
    "random entries did better": "worse",
}


def test_every_cell_of_the_decision_table_says_what_it_is_and_nothing_else() -> None:
    assert set(SENTENCES) == {(sign, chance) for sign in INTERVALS for chance in P_VALUES}
    sentences = set()
    for (sign, chance), words in SENTENCES.items():
        net, low, high = INTERVALS[sign]
        text = verdict(numbers(100, net, low, high), against(P_VALUES[chance]), "USDT")
        assert f"{'made' if net > 0 else 'lost'} 500.00 USDT" in text and words in text
        assert (f"(p = {P_VALUES[chance]:.3f})" in text) == bool(chance)
        assert {kind for claim, kind in CLAIMS.items() if claim in text} == {sign, chance} - {""}, text
        assert ("has not been tried on data" in text) == (sign == "gain")
        assert "may as well be zero" not in text and text.count(": ") - text.count("costs: ") <= 2
        sentences.add(text)
        few = verdict(numbers(FEW_TRADES - 1, net, low, high), against(P_VALUES[chance]))
        assert "too few to judge" in few and not [claim for claim in CLAIMS if claim in few]
    assert len(sentences) == len(SENTENCES)
    assert "random" not in verdict(numbers(100, 500.0, 1.0, 9.0))
    assert "funding" not in verdict({**numbers(100, 500.0, 1.0, 9.0), "funding_coverage": 1.0})
    assert "only 40% is known" in verdict({**numbers(100, 500.0, 1.0, 9.0), "funding_coverage": 0.4})
    assert "lost 500.00" in verdict(numbers(100, -500.0, -11.0, 1.0), against(0.5))


def test_without_a_trade_or_a_warm_bar_the_sentence_says_which() -> None:
    none = numbers(0, 0.0, math.nan, math.nan)
    assert verdict(none).startswith("No trade was closed (1,234 alerts, 0 entry signals)")
    assert verdict({**none, "warm_days": 0.0}).startswith("All 90,000 candles went into warm-up")
    assert verdict({**none, "warm_days": 20 / 1440}).startswith("All but 20 minutes of the 90,000 candles went into")
    assert "warm-up" not in verdict({**none, "warm_days": 1 / 24})
    assert "warm-up" not in verdict({**numbers(1, -5.0, math.nan, math.nan), "warm_days": 0.01})


def test_what_is_not_defined_has_no_unit(result: Result) -> None:
    quiet = replay(result.candles.iloc[:600], symbol="SUIUSDT")
    values = {row.name: row.value for row in metric_rows(quiet.metrics, quiet)}
    for name in ("expectancy", "win rate", "mean holding", "round trip of costs", "median stop distance"):
        assert values[name] == "-", name
    assert values["trades"] == "0" and stop_text(quiet) == "" and entry_signals(quiet)[:2] == ("BUY", 0)
    words = " ".join(Page(report_html([Section(quiet, random_entries(quiet, 5))] * 2, "Short")).texts)
    assert "All 600 candles went into warm-up" in words and "Did it earn" not in words and "nan" not in words


def test_costs_are_set_against_the_stops(result: Result) -> None:
    trades = result.trades[np.isfinite(result.trades["r_multiple"])]
    stop = (trades["entry_price"] - trades["stop"]).abs()
    fees = trades["fees"] / trades["quantity"]
    slipped = trades["entry_price"] * (1 - 1 / 1.0001)
    slipped += np.where(trades["exit_reason"] == "target", 0.0, trades["exit_price"] * (1 / 0.9999 - 1))
    told = stop_costs(result)
    assert told.round_trip == pytest.approx(((fees + slipped) / trades["entry_price"]).median(), rel=1e-12)
    assert told.round_trip_r == pytest.approx(((fees + slipped) / stop).median(), rel=1e-12)
    assert told.stop == pytest.approx((stop / trades["entry_price"]).median(), rel=1e-12)
    gross = (result.trades["pnl"] + result.trades["fees"] - result.trades["funding"].fillna(0.0)).sum()
    assert result.metrics["gross_pnl"] == pytest.approx(gross, abs=1e-9)
    moved = (trades["exit_price"] - trades["entry_price"]) * trades["quantity"]
    assert len(trades) < len(result.trades) or gross == pytest.approx(moved.sum(), abs=1e-6)
    assert bool(stop_text(result)) == (told.round_trip > told.stop / 2)
    free = replay(result.candles, symbol="SUIUSDT", costs=Costs(fee=0.0))
    assert len(free.trades) and stop_text(free) == "" and stop_costs(free).round_trip == 0.0
    dear = replay(result.candles, symbol="SUIUSDT", costs=Costs(fee=0.01))
    assert "The stop is narrower than the costs" in stop_text(dear)
    told, warning = stop_costs(dear), stop_text(dear)
    assert f"{told.stop:.3%}" in warning and f"{told.round_trip_r:.2f} R behind" in warning
    assert f"Before fees and funding: {dear.metrics['gross_pnl']:+,.2f} USDT" in warning


def test_the_header_names_sides_size_and_currency(result: Result) -> None:
    both = replay(result.candles, settings=Settings(allow_shorts=True, initial_capital=500.0, position_fraction=0.25))
    assert sides_text(both) == "long and short"
    assert size_text(both) == "starting capital 500 quote currency, 25 % of the equity put into each trade"
    assert settings_text(Settings()) == "the defaults"
    risky = Settings(sizing="risk", leverage=5.0, trailing_stop=3.0)
    assert settings_text(risky) == "trailing_stop = 3.0, sizing = risk, leverage = 5.0"
    assert thresholds_text(result) == "the defaults"
    limits = Thresholds(low_gate="0.6x", tp_mult=5.0)
    assert thresholds_text(replay(result.candles, limits)) == "low_gate = 0.6x, tp_mult = 5.0"
    schedule = {result.index[0]: Thresholds(), result.index[-5]: limits}
    told = thresholds_text(replay(result.candles, schedule))
    assert told == "2 sets one after the other, the last: low_gate = 0.6x, tp_mult = 5.0"
    told = size_text(replay(result.candles, settings=risky))
    assert (
        "sized to lose 1 % of the equity at the stop, with at most all of the equity put in as margin for 5 times"
        in told
    )
    name, n, a_day = entry_signals(both)
    assert name == "BUY and SELL" and n == int(both.signals["recommendation"].isin(["BUY", "SELL"]).sum())
    assert both.metrics["n_sells"] > 0 and a_day == pytest.approx(n / both.metrics["warm_days"])
    assert entry_signals(result)[0] == "BUY"
    told = {"BTCUSDT": "USDT", "ETHUSDT_250627": "USDT", "ETHBTC": "BTC", "BTCUSD": "USD", "USDT": "quote currency"}
    assert {symbol: quote_currency(symbol) for symbol in told} == told


def test_counts_add_up(result: Result) -> None:
    counted = counts(result)
    assert sum(counted["recommendations"].values()) == result.metrics["n_alerts"]
    assert sum(counted["exits"].values()) == len(result.trades) and counted["targets_before"] == 0
    ladder = Settings(target_shares=(0.3, 0.3), max_holding_minutes=600)
    result = replay(result.candles, symbol="SUIUSDT", settings=ladder)
    assert counts(result)["targets_before"] == (result.trade_records["exits"] > 1).sum() > 0
    assert set(counted["reasons"]) == set(result.rates().index)
    days = result.metrics["warm_days"]
    held = sum("VOLUME_SPIKE" in reasons for reasons in result.signals["trigger_reasons"])
    assert counted["reasons"]["VOLUME_SPIKE"]["bars_per_day"] == pytest.approx(held / days)


def test_random_entries_chart_shows_draws_and_says_when_there_are_none() -> None:
    draws = np.array([-3.0, -2.0, -1.0, math.nan, 0.5])
    figure = random_entries_chart(draws, -1.5)
    assert sum(figure.data[0].y) == 4
    assert any("-1.50" in (note.text or "") for note in figure.layout.annotations)
    nothing = random_entries_chart(np.full(3, math.nan), math.nan)
    assert not nothing.data and "no random draw" in nothing.layout.annotations[0].text


# --- long --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_long_replay_keeps_the_report_small() -> None:
    exchange = SimulatedExchange()
    busy = replay(exchange.candles("SUIUSDT", days=180), Thresholds(min_confidence=0.3), symbol="SUIUSDT")
    assert len(busy.trades) > 1_000
    assert len(report_html([Section(busy, random_entries(busy, 20))] * 4, "Long")) < 15e6


@pytest.mark.long
def test_a_browser_draws_every_chart_without_a_complaint(text: str, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    (tmp_path / "report.html").write_text(text)
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    options += (
        "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=20000 --dump-dom"
    )
    command = [browser, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", str(tmp_path / "report.html")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert len(re.findall(r'class="main-svg"', ran.stdout)) >= 12
    assert "CONSOLE" not in ran.stderr, ran.stderr


@pytest.mark.long
def test_the_quickstart_runs_on_a_lake_of_ones_own(root: Path, tmp_path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    lake = Lake(tmp_path / "mine")
    fill(lake, days=8, start="2025-01-10", symbols=["ETHUSDT", "DOTUSDT"])
    book = nbformat.read(root / "notebooks" / "00_quickstart.ipynb", 4)
    first = next(cell for cell in book.cells if cell.cell_type == "code")
    assert first.source.startswith("LAKE = None")
    first.source = (
        'LAKE, SYMBOLS, REFERENCE = "mine", ["DOTUSDT", "ETHUSDT"], None\n'
        'INTERVAL, START, END = "1m", "2025-01-11", None'
    )
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", []))
    assert "signals equal, byte for byte: True" in printed and "features too: True" in printed


def test_the_notebook_is_small_and_free_of_widget_state(root: Path) -> None:
    file = root / "notebooks" / "00_quickstart.ipynb"
    assert file.stat().st_size < 2e6
    book = json.loads(file.read_text())
    assert "widgets" not in book["metadata"] and book["metadata"]["kernelspec"]["name"] == "python3"
    assert all(cell["execution_count"] for cell in book["cells"] if cell["cell_type"] == "code")


def test_settings_and_costs_reach_the_words(result: Result) -> None:
    other = replay(result.candles, settings=Settings(initial_capital=500.0), costs=Costs(fee=0.001, maker_fee=0.0002))
    assert "0.100% of the notional a side (0.020% on targets)" in costs_text(other)
