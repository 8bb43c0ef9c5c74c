"""`drift` is silent on a clean journal and names the cause that a test has put there."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from session_runs import DAY_MS, MINUTE_MS, NAMES, START, filled, market

from aione_lab.cli import main
from aione_lab.engine.records import TRADE
from aione_lab.errors import AioneError, InputError
from aione_lab.lake.store import Lake
from aione_lab.live import drift_symbol
from aione_lab.live.drift_check import CAUSES, Drift, drift
from aione_lab.live.journal import SCHEMA, Journal
from aione_lab.live.replay_feed import ReplayFeed
from aione_lab.live.session import Session
from aione_lab.thresholds.params import Thresholds

FROM = START + 2 * DAY_MS
BARS = 900
CHANGED = FROM + 400 * MINUTE_MS
OTHER = Thresholds(min_reasons_for_alert=1, vol_z_threshold=1.5, min_confidence=0.3)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of two runs, in which thresholds changed, and the lake beside it."""
    folder = tmp_path_factory.mktemp("drift")
    lake = filled(folder / "lake")
    for bars in (BARS // 3, BARS):
        feed = ReplayFeed(lake, NAMES, start=FROM, end=FROM + bars * MINUTE_MS)
        session = Session(feed, lake, journal=folder / "journal")
        keep = session.keeper.bars

        def watched(bars, session=session, keep=keep):
            keep(bars)
            for one in bars.ready:
                if one.candle.timestamp == CHANGED - MINUTE_MS:
                    session.set_thresholds(one.candle.symbol, OTHER)

        session.keeper.bars = watched
        asyncio.run(session.run())
    return folder


@pytest.fixture
def journal(ran: Path, tmp_path: Path) -> Journal:
    return Journal(shutil.copytree(ran / "journal", tmp_path / "journal"))


def other_lake(folder: Path, change: Callable[[str, pd.DataFrame, pd.Series], tuple]) -> Lake:
    lake = Lake(folder)
    for name, (candles, funding) in market().items():
        candles, funding = change(name, candles.copy(), funding.copy())
        lake.append(name, "1m", candles)
        lake.append_funding(name, funding.to_frame())
    return lake


def rewrite(journal: Journal, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    for part in journal.parts():
        frame = pq.read_table(part.path, schema=SCHEMA).to_pandas()
        for name in ("kind", "symbol", "signal", "recommendation"):
            frame[name] = frame[name].astype(object)
        pq.write_table(pa.Table.from_pandas(change(frame), SCHEMA, preserve_index=False), part.path)


def only(found: Drift, *causes: str) -> Drift:
    assert set(found.causes) == set(causes), (found.sentence, found.differences[:3])
    assert not found.clean and all(cause in found.sentence for cause in causes)
    return found


def test_a_lake_of_other_times_or_symbols_is_refused_and_not_compared(
    ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, early = Lake(tmp_path / "empty"), Lake(tmp_path / "early")
    for name, (candles, _) in market().items():
        early.append(name, "1m", candles[:1440])
    for lake in (empty, early):
        with pytest.raises(InputError, match="no candle of the journal's bars .BTCUSDT, "):
            drift(ran / "journal", lake)
    with pytest.raises(SystemExit, match="2"):
        main(["drift", str(ran / "journal"), "--lake", str(tmp_path / "early")])
    told = capsys.readouterr().err
    assert told.startswith("error: --lake=") and len(told.splitlines()) == 1


def test_a_clean_journal_is_silent(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = drift(ran / "journal", Lake(ran / "lake"))
    assert found.clean and found.bars == BARS * len(NAMES) and found.symbols == NAMES and found.causes == {}
    with pytest.raises(SystemExit) as left:
        main(["drift", str(ran / "journal"), "--lake", str(ran / "lake")])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"no drift: {BARS * 3:,} bars of 3 symbols decide as they did\n"


def test_a_revised_candle_is_named_with_what_follows_from_it(
    journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = FROM + 500 * MINUTE_MS

    def change(name: str, candles: pd.DataFrame, funding: pd.Series) -> tuple:
        if name == "SOLUSDT":
            row = (at - START) // MINUTE_MS
            candles.iloc[row, candles.columns.get_loc("volume")] *= 1.5
        return candles, funding

    lake = other_lake(tmp_path / "lake", change)
    found = only(drift(journal, lake), "revised candle")
    assert {one.symbol for one in found.differences} == {"SOLUSDT"}
    first = found.differences[0]
    assert (first.timestamp, first.what) == (at, "candle") and first.recorded.startswith("volume ")
    with pytest.raises(SystemExit) as left:
        main(["drift", str(journal.folder), "--lake", lake.root, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert left.value.code == 1 and told["causes"] == found.causes and not told["clean"]


def test_a_revised_candle_of_the_reference_concerns_the_others(journal: Journal, tmp_path: Path) -> None:
    at = FROM + 200 * MINUTE_MS

    def change(name: str, candles: pd.DataFrame, funding: pd.Series) -> tuple:
        if name == "BTCUSDT":
            row = (at - START) // MINUTE_MS
            for column in ("close", "high"):
                candles.iloc[row, candles.columns.get_loc(column)] = candles["high"].iloc[row] + 5.0
        return candles, funding

    found = only(drift(journal, other_lake(tmp_path / "lake", change)), "revised candle")
    assert {one.symbol for one in found.differences} == set(NAMES)
    assert all(one.timestamp >= at for one in found.differences)


def test_a_missing_candle_is_named(journal: Journal, tmp_path: Path) -> None:
    def change(name: str, candles: pd.DataFrame, funding: pd.Series) -> tuple:
        return candles.drop(
            candles.index[(FROM - START) // MINUTE_MS + 700]
        ) if name == "LINKUSDT" else candles, funding

    found = only(drift(journal, other_lake(tmp_path / "lake", change)), "missing candle")
    assert found.differences[0].timestamp == FROM + 700 * MINUTE_MS and found.differences[0].replayed == "none"
    assert len(found.differences) > 100  # the windows begin anew


def test_a_missing_warm_up_is_named(journal: Journal, tmp_path: Path) -> None:
    def change(name: str, candles: pd.DataFrame, funding: pd.Series) -> tuple:
        return candles[600:], funding

    found = only(drift(journal, other_lake(tmp_path / "lake", change)), "missing warm-up")
    assert found.differences[0].what == "warm-up" and found.differences[0].replayed == "2280 bars"


def test_another_funding_rate_is_named(journal: Journal, tmp_path: Path) -> None:
    def change(name: str, candles: pd.DataFrame, funding: pd.Series) -> tuple:
        funding[funding.index >= pd.Timestamp(FROM, unit="ms", tz="UTC")] *= 2
        return candles, funding

    found = drift(journal, other_lake(tmp_path / "lake", change))
    assert only(found, "funding rate").differences[0].timestamp == FROM


def test_thresholds_that_the_journal_does_not_tell_are_named(journal: Journal, ran: Path) -> None:
    rewrite(journal, lambda frame: frame[~((frame["kind"] == "thresholds") & (frame["timestamp"] == CHANGED))])
    found = only(drift(journal, Lake(ran / "lake")), "thresholds")
    assert min(one.timestamp for one in found.differences) >= CHANGED
    assert {one.symbol for one in found.differences} == set(NAMES)


def test_another_version_is_named(journal: Journal, ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where it decided otherwise: a version alone is no drift."""
    monkeypatch.setattr(drift_symbol, "sources_digest", lambda: "the engine of another day")
    assert drift(journal, Lake(ran / "lake")).clean

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        alerts = frame["signal"] == "ALERT"
        frame.loc[alerts, "confidence"] = frame.loc[alerts, "confidence"] * 0.9 + 0.01
        return frame

    rewrite(journal, change)
    found = only(drift(journal, Lake(ran / "lake")), "version")
    assert {one.what for one in found.differences} == {"signal"}


def test_another_fill_is_named(journal: Journal, ran: Path) -> None:
    """The same signals, and a trade that went out at another price."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        for row in np.flatnonzero(frame["closed"].notna()):
            trade = np.frombuffer(frame["closed"].iloc[row], TRADE).copy()
            trade["exit_price"] *= 1.001
            frame.iloc[row, frame.columns.get_loc("closed")] = trade.tobytes()
        return frame

    rewrite(journal, change)
    found = only(drift(journal, Lake(ran / "lake")), "fill")
    assert {one.what for one in found.differences} == {"trade"} and "exit_price" in found.differences[0].recorded


def test_a_decision_that_nothing_explains_is_said_to_be_so(journal: Journal, ran: Path) -> None:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[frame["signal"] == "ALERT", "signal"] = "NORMAL"
        return frame

    rewrite(journal, change)
    only(drift(journal, Lake(ran / "lake")), "unknown")


def test_what_is_no_journal_is_refused(tmp_path: Path, ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = Lake(ran / "lake")
    with pytest.raises(InputError, match="journal"):
        drift(tmp_path / "nothing", lake)
    with pytest.raises(InputError, match="lake"):
        drift(ran / "journal", "lake")  # type: ignore[arg-type]
    with pytest.raises(SystemExit) as left:
        main(["drift", str(tmp_path / "nothing"), "--lake", lake.root])
    assert left.value.code == 2 and "nothing" in capsys.readouterr().err
    copied = Journal(shutil.copytree(ran / "journal", tmp_path / "copy"))
    part = copied.parts()[1].path
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(AioneError, match=part.name):
        drift(copied, lake)
    assert len(CAUSES) == len(set(CAUSES))
