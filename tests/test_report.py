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

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from aione_lab import Costs, Lake, Settings, Thresholds, replay
from aione_lab.backtest.baseline import Baseline, random_entries
from aione_lab.backtest.result import Result
from aione_lab.backtest.summary import FEW_TRADES, costs_text, counts, metric_rows, verdict
from aione_lab.figures.baseline import random_entries_chart
from aione_lab.figures.report import Section, explanation_metrics, one_alert, report_html
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
        assert tag not in {"link", "iframe", "object", "embed", "img", "form", "base", "a"}
        assert not {"src", "href", "action", "srcset"} & set(attributes), (tag, attributes)
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
        verdict(dict(result.metrics), section.baseline),
        costs_text(result),
        "slippage 1 bps",
        "BTCUSDT (as asked)",
        "a remark",
        result.fingerprint,
        result.thresholds.digest(),
        f"{result.metrics['n_alerts']:,}, ",
    ):
        assert expected in words, expected
    for row in metric_rows(dict(result.metrics)):
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


def test_the_alert_taken_apart_is_a_buy_where_there_is_one(result: Result) -> None:
    explanation = one_alert(result)
    assert explanation is not None and explanation.recommendation == "BUY"
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
    }


def against(p: float) -> Baseline:
    return Baseline(100, np.zeros(3), np.zeros(3), 0.0, p)


@pytest.mark.parametrize(
    ("metrics", "p", "said", "not_said"),
    [
        (numbers(0, 0.0, math.nan, math.nan), math.nan, "No trade was closed (1,234 alerts", "random"),
        (numbers(FEW_TRADES - 1, 500.0, 1.0, 9.0), 0.01, "too few to judge", "random"),
        (numbers(100, -500.0, -7.0, -3.0), 0.5, "a clear loss. Its entries cannot be told from random", "made"),
        (numbers(100, -500.0, -7.0, -3.0), 0.01, "beat random ones (p = 0.010), yet lose to the costs", "made"),
        (numbers(100, -500.0, -7.0, -3.0), 0.99, "do worse than random", "made"),
        (numbers(100, 500.0, -1.0, 11.0), 0.5, "may as well be zero. Its entries cannot be told", "lost"),
        (numbers(100, 500.0, 1.0, 9.0), 0.01, "larger than its own scatter explains. Its entries beat random", "lost"),
        (numbers(100, 500.0, 1.0, 9.0), 0.01, "has not been tried on data that did not suggest it", "lost"),
    ],
)
def test_the_sentence_does_not_flatter(metrics: dict, p: float, said: str, not_said: str) -> None:
    sentence = verdict(metrics, against(p))
    assert said in sentence and not_said not in sentence
    assert "random" not in verdict(metrics)


def test_counts_add_up(result: Result) -> None:
    counted = counts(result)
    assert sum(counted["recommendations"].values()) == result.metrics["n_alerts"]
    assert sum(counted["exits"].values()) == len(result.trades)
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
