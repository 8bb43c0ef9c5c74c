"""The threshold store: what is promoted, what holds when, what is refused, and what survives a kill."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import store_workers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_workers import DAY, T0, promote, provenance

import aione_lab
from aione_lab.backtest.stages import AssetMonitorStage1
from aione_lab.cache import SimpleCacheHandler
from aione_lab.errors import AioneError, InputError, ThresholdError
from aione_lab.lake.simulated import SimulatedExchange
from aione_lab.settings import Costs
from aione_lab.thresholds import Entry, Provenance, Thresholds, ThresholdStore
from aione_lab.thresholds.classes import DEFAULTS, AssetClass, AssetClasses
from aione_lab.units import to_ms


@pytest.fixture
def store(tmp_path: Path) -> ThresholdStore:
    return ThresholdStore(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "thresholds" / "SOLUSDT.json"


def refused(kind: type[AioneError], call: Any, *parts: str) -> str:
    with pytest.raises(kind) as error:
        call()
    text = str(error.value)
    assert "\n" not in text and all(part in text for part in parts), text
    return text


# --- promoting and reading ---------------------------------------------------------------------------------------


def test_a_promoted_set_is_the_calibrated_one(store: ThresholdStore) -> None:
    made = promote(store, 2.5)
    assert made.number == 1 and made.thresholds == Thresholds(tp_mult=2.5)
    again = ThresholdStore(store.folder.parent)
    assert again.entry("SOL/USDT:USDT") == made
    assert again.calibrated("solusdt", now=T0 + DAY) == Thresholds(tp_mult=2.5)
    assert again.symbols() == ["SOLUSDT"] and again.symbols(interval="5m") == []
    assert made.stamp.provenance() == provenance()
    assert made.thresholds.meta is not None and made.thresholds.meta["study"] == "SOLUSDT-1m-0"


def test_the_file_is_the_flat_json(store: ThresholdStore, file: Path) -> None:
    store.promote(
        "SOLUSDT", Thresholds(tp_mult=2.5, low_gate="0.6x", custom={"LOUD": 2.0}), verdict="accept",
        provenance=provenance(), now=T0,
    )  # fmt: skip
    values = json.loads(file.read_text())
    assert {name: value for name, value in values.items() if name != "meta"} == {
        "tp_mult": 2.5,
        "low_gate": "0.6x",
        "custom.LOUD": 2.0,
    }
    assert Thresholds.from_json(file.read_text()) == Thresholds(tp_mult=2.5, low_gate="0.6x", custom={"LOUD": 2.0})
    meta = values["meta"]
    assert meta["promoted_at"] == "2025-06-10T00:00:00+00:00" and meta["expires_at"] == "2025-06-24T00:00:00+00:00"
    assert meta["verdict"] == "accept" and meta["seed"] == 7 and meta["symbol"] == "SOLUSDT"
    assert [path.name for path in file.parent.iterdir() if path.is_file()] == ["SOLUSDT.json"]


def test_a_meta_of_the_caller_is_replaced(store: ThresholdStore) -> None:
    given_set = Thresholds(tp_mult=2.5, meta={"study": "a lie", "checksum": "x"})
    made = store.promote("SOLUSDT", given_set, verdict="accept", provenance=provenance(), now=T0)
    assert made.thresholds.meta == made.stamp.model_dump(mode="json", exclude_none=True)
    assert given_set.meta == {"study": "a lie", "checksum": "x"}


def test_the_costs_that_a_set_was_judged_with_are_kept_where_they_are_known(store: ThresholdStore, file: Path) -> None:
    promote(store, 2.5)  # as in files from before there were any
    assert "costs" not in json.loads(file.read_text())["meta"]
    store.expire("SOLUSDT", now=T0 + DAY)
    promote(store, 3.0, provenance=provenance(costs=Costs(fee=0.0)))
    again = ThresholdStore(store.folder.parent).entry("SOLUSDT")
    assert again is not None and again.stamp.costs == Costs(fee=0.0)
    assert json.loads(file.read_text())["meta"]["costs"]["fee"] == 0.0


def test_an_interval_has_sets_of_its_own(store: ThresholdStore) -> None:
    promote(store, 2.5)
    promote(store, 4.0, interval="5m")
    assert store.calibrated("SOLUSDT", now=T0).tp_mult == 2.5
    assert store.calibrated("SOLUSDT", interval="5m", now=T0).tp_mult == 4.0
    assert store.symbols(interval="5m") == ["SOLUSDT"] == store.symbols()
    refused(ThresholdError, lambda: store.calibrated("SOLUSDT", interval="15m", now=T0), "SOLUSDT: no 15m set")


# --- verdicts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["keep defaults", "not enough trades"])
def test_only_an_accepted_set_is_promoted(store: ThresholdStore, verdict: str) -> None:
    says = provenance(verdict=verdict, sentence="Nothing survives costs.")
    text = refused(InputError, lambda: promote(store, 2.5, verdict=verdict, provenance=says))
    assert text == f"verdict={verdict!r}: only an accepted set is promoted; Nothing survives costs."
    refused(InputError, lambda: promote(store, 2.5, provenance=says), "verdict='accept'", f"says {verdict!r}")
    assert not store.folder.exists()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"symbol": "../../etc"}, "symbol"),
        ({"interval": "7m"}, "interval"),
        ({"verdict": "fine"}, "verdict"),
        ({"verdict": None}, "verdict"),
        ({"provenance": {"study": "x"}}, "provenance"),
        ({"now": dt.datetime(2025, 6, 10)}, "now"),
        ({"now": "yesterday"}, "now"),
        ({"lifetime": 14}, "lifetime"),
        ({"lifetime": dt.timedelta(0)}, "lifetime"),
        ({"lifetime": dt.timedelta(days=-1)}, "lifetime"),
    ],
)
def test_bad_arguments(store: ThresholdStore, changes: dict[str, Any], name: str) -> None:
    refused(InputError, lambda: promote(store, 2.5, **changes), f"{name}=")
    assert not store.folder.exists()


def test_more_bad_arguments(store: ThresholdStore, tmp_path: Path) -> None:
    refused(InputError, lambda: store.promote("SOLUSDT", {}, verdict="accept", provenance=provenance()), "thresholds=")
    refused(InputError, lambda: ThresholdStore(5), "folder=")  # type: ignore[arg-type]
    (tmp_path / "thresholds").write_text("")
    refused(InputError, lambda: ThresholdStore(tmp_path), "folder=")
    refused(InputError, lambda: ThresholdStore(tmp_path / "x", cache="redis://"), "cache=")  # type: ignore[arg-type]
    refused(InputError, lambda: asyncio.run(store.publish("SOLUSDT")), "cache=None")
    refused(InputError, lambda: asyncio.run(store.publish("../x", None)), "cache=None")


def test_a_set_that_does_not_go_with_its_asset_class_is_refused(store: ThresholdStore) -> None:
    fields = Thresholds(rsi_overbought=26.0, rsi_oversold=20.0)
    assert store.promote("PEPEUSDT", fields, verdict="accept", provenance=provenance(), now=T0)
    late = Thresholds(rsi_oversold=72.5, rsi_overbought=73.0)
    classes = AssetClasses(
        classes=(AssetClass(name="odd", pattern="SOL", thresholds=Thresholds(rsi_overbought=72.0)), *DEFAULTS)
    )
    store.promote("SOLUSDT", late, verdict="accept", provenance=provenance(), now=T0)
    odd = ThresholdStore(store.folder.parent, classes=classes)
    half = Thresholds(rsi_oversold=72.5 - 1, rsi_overbought=73.0)
    assert odd.promote("SOLUSDT", half, verdict="accept", provenance=provenance(), now=T0)
    # only one side given: the class gives the other
    low = AssetClasses(
        classes=(AssetClass(name="odd", pattern="SOL", thresholds=Thresholds(rsi_overbought=40.0)), *DEFAULTS)
    )
    strange = ThresholdStore(store.folder.parent, classes=low)
    one_side = Thresholds(rsi_oversold=45.0)
    refused(
        InputError,
        lambda: strange.promote("SOLUSDT", one_side, verdict="accept", provenance=provenance(), now=T0),
        "rsi_oversold",
    )
    store.promote("SOLUSDT", one_side, verdict="accept", provenance=provenance(), now=T0)
    found = strange.current("SOLUSDT", now=T0)  # the classes changed after the promotion
    assert found.source == "asset_class" and found.entry is None and "does not go together" in found.reason


def test_provenance_is_checked() -> None:
    for changes, name in (
        ({"verdict": "fine"}, "verdict"),
        ({"start": "2025-06-09"}, "start"),
        ({"seed": -1}, "seed"),
        ({"study": ""}, "study"),
        ({"study": "a\nb"}, "study"),
        ({"sentence": "x" * 3000}, "sentence"),
        ({"spec_digest": "a b"}, "spec_digest"),
        ({"versions": {"numpy": 2}}, "versions"),
        ({"colour": 1}, "colour"),
    ):
        refused(InputError, lambda changes=changes: provenance(**changes), name)  # type: ignore[misc]
    assert provenance(start=dt.datetime(2025, 5, 4, tzinfo=dt.UTC)) == provenance(start=1_746_316_800_000)
    with pytest.raises(TypeError):
        provenance().versions["numpy"] = "1"


# --- expiry, precedence, rollback --------------------------------------------------------------------------------


def test_expiry(store: ThresholdStore) -> None:
    assert not store.is_expired("SOLUSDT", now=T0)
    refused(ThresholdError, lambda: store.calibrated("SOLUSDT", now=T0), "SOLUSDT: no 1m set was calibrated")
    promote(store, 2.5)
    last = T0 + 14 * DAY - dt.timedelta(milliseconds=1)
    assert not store.is_expired("SOLUSDT", now=last) and store.calibrated("SOLUSDT", now=last)
    assert store.is_expired("SOLUSDT", now=T0 + 14 * DAY)
    refused(
        ThresholdError,
        lambda: store.calibrated("SOLUSDT", now=T0 + 14 * DAY),
        "SOLUSDT: the set of study 'SOLUSDT-1m-0' expired at 2025-06-24T00:00:00+00:00",
    )
    promote(store, 2.0, now=T0 + 20 * DAY, lifetime=dt.timedelta(hours=1))
    assert store.calibrated("SOLUSDT", now=T0 + 20 * DAY).tp_mult == 2.0
    assert store.is_expired("SOLUSDT", now=T0 + 20 * DAY + dt.timedelta(hours=1))


def test_precedence_field_by_field(store: ThresholdStore) -> None:
    meme = Thresholds(rsi_oversold=27.0, rsi_overbought=73.0, tp_mult=3.3, sl_mult=1.1)
    found = store.current("1000PEPEUSDT", now=T0)
    assert found.thresholds == meme and found.source == "asset_class" and found.entry is None
    assert found.reason == "those of asset class 'meme', because no 1m set was calibrated"
    store.promote(
        "1000PEPEUSDT", Thresholds(tp_mult=2.0, atr_target=0.5), verdict="accept", provenance=provenance(), now=T0
    )
    found = store.current("1000PEPEUSDT", now=T0)
    assert found.thresholds == meme.replace(tp_mult=2.0) and found.source == "calibrated"
    assert found.sources["tp_mult"] == found.sources["atr_target"] == "calibrated"  # given, be it the default
    assert found.sources["sl_mult"] == "asset_class" and found.sources["low_gate"] == "default"
    assert set(found.sources) == set(Thresholds.model_fields) - {"meta"}
    assert "study 'SOLUSDT-1m-0', accepted, holds until 2025-06-24" in found.reason
    assert found.thresholds.meta is not None and found.thresholds.meta["source"] == "calibrated"
    assert "history" not in found.thresholds.meta and found.thresholds.meta["data_fingerprint"] == "ab12" * 16
    late = store.current("1000PEPEUSDT", now=T0 + 15 * DAY)
    assert late.thresholds == meme and late.source == "asset_class"
    assert "expired at 2025-06-24" in late.reason
    plain = store.current("SOLUSDT", now=T0)
    assert plain.source == "default" and plain.thresholds == Thresholds()
    assert plain.reason == "the defaults, because no 1m set was calibrated"


def test_rollback_goes_back_one_by_one(store: ThresholdStore) -> None:
    refused(InputError, lambda: store.rollback("SOLUSDT", now=T0), "symbol='SOLUSDT'", "no earlier 1m set")
    for number, tp_mult in enumerate((1.0, 2.0, 3.0)):
        promote(store, tp_mult, now=T0 + number * DAY)
    back = store.rollback("SOLUSDT", now=T0 + 4 * DAY)
    assert back.number == 2 and store.calibrated("SOLUSDT", now=T0 + 4 * DAY).tp_mult == 2.0
    assert to_ms(back.stamp.expires_at) == to_ms(T0 + 15 * DAY)  # its own time, not a new one
    promote(store, 4.0, now=T0 + 5 * DAY)
    assert store.rollback("SOLUSDT", now=T0 + 6 * DAY).number == 2  # the third was taken back before
    assert store.rollback("SOLUSDT", now=T0 + 6 * DAY).number == 1
    refused(InputError, lambda: store.rollback("SOLUSDT", now=T0 + 6 * DAY), "no earlier")
    frame = store.history("SOLUSDT")
    assert list(frame.action) == ["promote"] * 3 + ["rollback", "promote", "rollback", "rollback"]
    assert list(frame.number) == [1, 2, 3, 2, 4, 2, 1]
    assert list(frame.in_force) == [True, False, False, False, False, False, True]
    assert frame["at"].iloc[0] == pd.Timestamp(T0) and frame.index.name == "event"
    assert frame.thresholds.iloc[2] == Thresholds(tp_mult=3.0) and frame.thresholds.iloc[6] == Thresholds(tp_mult=1.0)
    assert promote(store, 5.0).number == 5


@pytest.mark.parametrize(
    ("day", "tp_mult"), [(-1, None), (0, 1.0), (1.5, 1.0), (2, 2.0), (3, 1.0), (4, 1.0), (6, None)]
)
def test_at_a_past_time_what_was_in_force_then_is(store: ThresholdStore, day: float, tp_mult: float | None) -> None:
    promote(store, 1.0, now=T0)
    promote(store, 2.0, now=T0 + 2 * DAY)
    store.rollback("SOLUSDT", now=T0 + 3 * DAY)
    store.expire("SOLUSDT", now=T0 + 5 * DAY)
    found = store.current("SOLUSDT", now=T0 + day * DAY)
    assert found.source == ("default" if tp_mult is None else "calibrated")
    assert found.thresholds.tp_mult == (Thresholds().tp_mult if tp_mult is None else tp_mult)
    if tp_mult is not None:
        assert store.calibrated("SOLUSDT", now=T0 + day * DAY).tp_mult == tp_mult
    assert store.is_expired("SOLUSDT", now=T0 + day * DAY) == (day == 6)


def test_ending_a_set_before_its_time(store: ThresholdStore) -> None:
    refused(InputError, lambda: store.expire("SOLUSDT", now=T0), "no calibrated 1m set")
    promote(store, 1.0)
    promote(store, 2.0)
    ended = store.expire("SOLUSDT", now=T0 + DAY)
    assert to_ms(ended.stamp.expires_at) == to_ms(T0 + DAY)
    assert store.is_expired("SOLUSDT", now=T0 + DAY) and not store.is_expired("SOLUSDT", now=T0)
    assert store.current("SOLUSDT", now=T0 + DAY).source == "default"
    store.expire("SOLUSDT", now=T0 + 2 * DAY)
    assert store.entry("SOLUSDT") == ended  # the first end stands
    assert store.rollback("SOLUSDT", now=T0 + 2 * DAY).number == 1
    assert store.calibrated("SOLUSDT", now=T0 + 2 * DAY).tp_mult == 1.0
    assert list(store.history("SOLUSDT").action) == ["promote", "promote", "expire", "expire", "rollback"]


def test_an_empty_history(store: ThresholdStore) -> None:
    frame = store.history("SOLUSDT")
    assert frame.empty and list(frame.columns)[:3] == ["action", "at", "number"] and store.symbols() == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["promote", "rollback", "expire"]), min_size=1, max_size=12))
def test_any_course_of_events(tmp_path: Path, steps: list[str]) -> None:
    """Against a plain list of [number, expiry]."""
    store = ThresholdStore(tmp_path / random.Random().randbytes(8).hex())
    stack: list[list[Any]] = []
    promoted = 0
    for step_number, step in enumerate(steps):
        now = T0 + step_number * DAY
        if step == "promote":
            promoted += 1
            stack.append([promoted, now + 14 * DAY])
            promote(store, 1.0 + promoted / 10, now=now)
        elif len(stack) < (2 if step == "rollback" else 1):
            with pytest.raises(InputError):
                getattr(store, step)("SOLUSDT", now=now)
        else:
            getattr(store, step)("SOLUSDT", now=now)
            if step == "rollback":
                stack.pop()
            else:
                stack[-1][1] = min(stack[-1][1], now)
    entry = store.entry("SOLUSDT")
    if not stack:
        assert entry is None
        return
    assert entry is not None
    number, expires = stack[-1]
    assert (entry.number, to_ms(entry.stamp.expires_at)) == (number, to_ms(expires))
    assert entry.thresholds == Thresholds(tp_mult=1.0 + number / 10)


# --- damage ------------------------------------------------------------------------------------------------------


def rewritten(file: Path, change: Any, honest: bool) -> None:
    """The file with ``change`` made to its JSON; ``honest``: and a checksum that fits it, as a forger would."""
    from aione_lab.thresholds.provenance import checksum

    values = json.loads(file.read_text())
    change(values)
    if honest:
        values["meta"].pop("checksum", None)
        values["meta"]["checksum"] = checksum(values)
    file.write_text(json.dumps(values))


FORGED = {
    "number": lambda v: v.update(tp_mult=9.0),
    "unknown field": lambda v: v.update(colour=1),
    "history gone": lambda v: v["meta"].pop("history"),
    "history empty": lambda v: v["meta"].update(history=[]),
    "history text": lambda v: v["meta"].update(history="x"),
    "history of numbers": lambda v: v["meta"].update(history=[1, 2]),
    "another verdict": lambda v: (
        v["meta"].update(verdict="keep defaults"),
        v["meta"]["history"][0]["thresholds"]["meta"].update(verdict="keep defaults"),
    ),
    "another symbol": lambda v: (
        v["meta"].update(symbol="BTCUSDT"),
        v["meta"]["history"][0]["thresholds"]["meta"].update(symbol="BTCUSDT"),
    ),
    "a rollback of nothing": lambda v: v["meta"]["history"].append(
        {"action": "rollback", "at": "2025-06-11", "number": 1}
    ),
    "an unknown action": lambda v: v["meta"]["history"].append({"action": "x", "at": "2025-06-11", "number": 1}),
    "an action more": lambda v: v["meta"]["history"][0].update(colour=1),
    "a time that is none": lambda v: v["meta"]["history"][0].update(at="soon"),
    "wrong number": lambda v: v["meta"]["history"][0].update(number=2),
    "number true": lambda v: v["meta"]["history"][0].update(number=True),
    "meta gone": lambda v: v.update(meta={}),
    "longer life": lambda v: v["meta"].update(expires_at="2099-01-01T00:00:00+00:00"),
    "unknown meta": lambda v: v["meta"].update(colour=1),
    "self": lambda v: v["meta"].update(self=1),
}


@pytest.mark.parametrize("honest", [False, True])
@pytest.mark.parametrize("name", FORGED)
def test_a_file_that_was_changed_is_refused_by_name(store: ThresholdStore, file: Path, name: str, honest: bool) -> None:
    promote(store, 2.5)
    rewritten(file, FORGED[name], honest)
    kept = file.read_bytes()
    for call in (
        lambda: store.calibrated("SOLUSDT", now=T0),
        lambda: store.current("SOLUSDT", now=T0),
        lambda: store.history("SOLUSDT"),
        lambda: store.rollback("SOLUSDT", now=T0),
        lambda: promote(store, 3.0),
    ):
        refused(ThresholdError, call, "SOLUSDT.json: ")
    assert file.read_bytes() == kept


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b'{"meta": NaN}', b'{"meta": 1, "meta": 2}',
     b"[" * 200_000, b'{"meta": null}', b'{"meta": {}}', b'{"tp_mult": 2.0}'],
)  # fmt: skip
def test_a_file_that_is_something_else(store: ThresholdStore, file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    refused(ThresholdError, lambda: store.calibrated("SOLUSDT"), "SOLUSDT.json: ")
    assert file.read_bytes() == content


def test_a_folder_in_the_place_of_the_file(store: ThresholdStore, file: Path) -> None:
    file.mkdir(parents=True)
    refused(ThresholdError, lambda: store.calibrated("SOLUSDT"), "SOLUSDT.json: ")
    refused(ThresholdError, lambda: promote(store, 2.0), "SOLUSDT.json: ")


def test_truncated_and_flipped_files_are_never_half_read(store: ThresholdStore, file: Path) -> None:
    promote(store, 2.5)
    promote(store, 3.5)
    good = file.read_bytes()
    rng = random.Random(0)
    silent = 0
    for number in range(400):
        bad = bytearray(good[: rng.randrange(len(good))] if number % 2 else good)
        if not number % 2:
            bad[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        file.write_bytes(bad)
        try:
            found = store.entry("SOLUSDT")
        except ThresholdError as error:
            assert str(error).startswith(str(file)) and "\n" not in str(error)
        else:
            # a flip between two kinds of white space, or the last newline, changes nothing
            assert json.loads(bytes(bad)) == json.loads(good) and found is not None and found.number == 2
            silent += 1
    assert silent < 20


def test_foreign_files_are_no_symbols(store: ThresholdStore) -> None:
    promote(store, 2.5)
    for name in (".SOLUSDT.json.0123456789ab.tmp", "notes.txt", "btc.json", "BTC.7x.json", "..json"):
        (store.folder / name).write_text("x")
    assert store.symbols() == ["SOLUSDT"]


# --- kills and crowds --------------------------------------------------------------------------------------------


def worker(store: ThresholdStore, name: str, *numbers: int) -> subprocess.Popen[bytes]:
    """``name`` of the workers, in a process of its own."""
    call = [sys.executable, store_workers.__file__, name, store.folder.parent, *numbers]
    here = {**os.environ, "PYTHONPATH": str(Path(aione_lab.__file__).parent.parent)}
    return subprocess.Popen(list(map(str, call)), env=here)


def test_killed_at_every_step_of_a_promotion(store: ThresholdStore, file: Path) -> None:
    promote(store, 1.0)
    steps = 0
    for step in range(1, 30):
        before = [event.number for event in store.history("SOLUSDT").itertuples()]
        ran = worker(store, "die_at_step", step)
        ran.wait()
        after = [event.number for event in store.history("SOLUSDT").itertuples()]
        assert after in (before, [*before, len(before) + 1])  # the old file or the new one
        steps += 1
        if ran.returncode == 0:
            break
        assert ran.returncode == -9
    assert steps >= 4  # fsync, replace, fsync of the folder, and the run that lived
    promote(store, 2.0)
    names = [path.name for path in file.parent.iterdir() if path.is_file()]
    assert names == ["SOLUSDT.json"], "a temporary file of a killed writer stays behind"


def test_four_processes_promote_at_once(store: ThresholdStore) -> None:
    workers = [worker(store, "promote_many", number, 12) for number in range(4)]
    seen: set[int] = set()
    done = threading.Event()

    def read() -> None:  # a reader meanwhile never meets half a file
        while not done.is_set():
            entry = store.entry("SOLUSDT")
            if entry is not None:
                seen.add(entry.number)

    reader = threading.Thread(target=read)
    reader.start()
    codes = [process.wait() for process in workers]
    done.set()
    reader.join()
    assert codes == [0] * 4 and len(seen) > 1
    frame = store.history("SOLUSDT")
    assert list(frame.number) == list(range(1, 49))
    wanted = {Thresholds(tp_mult=1.0 + one + number / 1000) for one in range(4) for number in range(12)}
    assert set(frame.thresholds) == wanted


def test_a_lock_that_is_held(store: ThresholdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    promote(store, 1.0)
    monkeypatch.setattr("aione_lab.thresholds.store.LOCK_TIMEOUT", 0.05)
    with filelock.FileLock(store.folder / ".locks" / "SOLUSDT.lock"):
        refused(ThresholdError, lambda: promote(store, 2.0), "SOLUSDT.json: another process holds its lock")
        assert promote(store, 2.0, symbol="BTCUSDT").number == 1  # another symbol is not concerned
        assert store.calibrated("SOLUSDT", now=T0).tp_mult == 1.0


def test_a_full_disk(store: ThresholdStore, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(store, 1.0)
    kept = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        refused(ThresholdError, lambda: promote(store, 2.0), "cannot be written (No space left on device)")
    assert file.read_bytes() == kept and [p.name for p in file.parent.iterdir() if p.is_file()] == [file.name]


# --- the copy in a cache -----------------------------------------------------------------------------------------

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def cache(tmp_path: Path) -> SimpleCacheHandler:
    return SimpleCacheHandler.embedded(tmp_path / "cache.sqlite")


def test_publish_and_read(store: ThresholdStore, cache: SimpleCacheHandler, tmp_path: Path) -> None:
    async def run() -> None:
        async with cache:
            other = ThresholdStore(tmp_path / "no files here", cache)
            assert await other.read("SOLUSDT") is None
            assert await store.publish("SOLUSDT", cache) is None
            made = promote(store, 2.5, now=NOW)
            published = await store.publish("SOLUSDT", cache)
            assert published == made.thresholds and published.meta == made.thresholds.meta
            assert await cache.keys() == ["thresholds:SOLUSDT"]
            flat = await cache.get_json("thresholds:SOLUSDT")
            assert flat == made.thresholds.to_json() and "history" not in flat["meta"]
            found = await other.read("SOL/USDT:USDT")
            assert found == Thresholds(tp_mult=2.5) and found.meta == made.thresholds.meta
            promote(store, 4.0, now=NOW, interval="5m")
            await store.publish("SOLUSDT", cache, interval="5m")
            assert await cache.keys() == ["thresholds:SOLUSDT", "thresholds:SOLUSDT:5m"]
            again = await other.read("SOLUSDT", interval="5m")
            assert again is not None and again.tp_mult == 4.0
            store.expire("SOLUSDT")
            assert await store.publish("SOLUSDT", cache) is None
            assert await other.read("SOLUSDT") is None

    asyncio.run(run())


def test_the_copy_lives_no_longer_than_the_set(store: ThresholdStore, tmp_path: Path) -> None:
    lives: list[float] = []

    class Told(SimpleCacheHandler):
        async def store_in_cache(
            self, key: str, namespace: str, value: Any, ttl: float | None = None, raw: bool = False
        ) -> None:
            assert ttl is not None
            lives.append(ttl)
            await super().store_in_cache(key, namespace, value, ttl, raw)

    async def run() -> None:
        async with Told.embedded(tmp_path / "told.sqlite") as cache:
            promote(store, 2.5, now=NOW)
            await store.publish("SOLUSDT", cache, now=NOW)
            await store.publish("SOLUSDT", cache, now=NOW + 13 * DAY)
            promote(store, 2.5, now=NOW, lifetime=100 * DAY)
            await store.publish("SOLUSDT", cache, now=NOW)

    asyncio.run(run())
    day = DAY.total_seconds()
    assert lives == pytest.approx([14 * day, day, 14 * day])


CACHED = {
    "expired": (lambda v: v["meta"].update(promoted_at="2025-01-01", expires_at="2025-01-15"), "expired at 2025-01-15"),
    "unaccepted": (lambda v: v["meta"].update(verdict="keep defaults"), "was 'keep defaults'"),
    "another symbol": (lambda v: v["meta"].update(symbol="BTCUSDT"), "calibrated for BTCUSDT 1m"),
    "another interval": (lambda v: v["meta"].update(interval="5m"), "calibrated for SOLUSDT 5m"),
    "no provenance": (lambda v: v.pop("meta"), "meta is missing"),
    "half of it": (lambda v: v["meta"].pop("verdict"), "verdict"),
    "an unknown field": (lambda v: v.update(colour=1), "colour"),
    "a number that is none": (lambda v: v.update(tp_mult="3"), "tp_mult"),
    "html": (lambda v: v["meta"].update(symbol="<script>"), "symbol"),
}


@pytest.mark.parametrize("name", CACHED)
def test_a_copy_that_must_not_be_used(store: ThresholdStore, cache: SimpleCacheHandler, name: str) -> None:
    change, why = CACHED[name]

    async def run() -> None:
        async with cache:
            promote(store, 2.5, now=NOW)
            await store.publish("SOLUSDT", cache)
            values = await cache.get_json("thresholds:SOLUSDT")
            change(values)
            await cache.set_json("thresholds:SOLUSDT", values)
            with pytest.raises(ThresholdError) as error:
                await store.read("SOLUSDT", cache)
            text = str(error.value)
            assert text.startswith("thresholds:SOLUSDT: ") and why in text and "\n" not in text
            async for found in store.follow(cache):
                assert found.source == "default" and why in found.reason and found.entry is None
                break

    asyncio.run(run())


@pytest.mark.parametrize("damaged", [b"{", b"[]", b"null", b'{"tp_mult": NaN}', b"[" * 100_000, b'{"a":1,"a":2}'])
def test_a_damaged_copy(store: ThresholdStore, cache: SimpleCacheHandler, damaged: bytes) -> None:
    async def run() -> None:
        async with cache:
            await cache.store_in_cache("thresholds:SOLUSDT", "global", damaged, raw=True)
            with pytest.raises(ThresholdError, match="^thresholds:SOLUSDT: "):
                await store.read("SOLUSDT", cache)

    asyncio.run(run())


def test_follow_gives_the_state_and_then_the_changes(
    store: ThresholdStore, cache: SimpleCacheHandler, tmp_path: Path, caplog: Any
) -> None:
    async def run() -> None:
        async with cache:
            other = ThresholdStore(tmp_path / "no files here", cache)
            promote(store, 1.0, now=NOW)
            promote(store, 1.5, symbol="1000PEPEUSDT", now=NOW)
            promote(store, 9.0, symbol="BTCUSDT", interval="5m", now=NOW)
            for symbol, interval in (("SOLUSDT", "1m"), ("1000PEPEUSDT", "1m"), ("BTCUSDT", "5m")):
                await store.publish(symbol, cache, interval=interval)
            await cache.set_json("thresholds:", 1)
            changes = other.follow()
            first = [await anext(changes) for _ in range(2)]
            assert [(one.symbol, one.thresholds.tp_mult) for one in first] == [("1000PEPEUSDT", 1.5), ("SOLUSDT", 1.0)]
            assert first[0].sources["sl_mult"] == "asset_class"
            for hostile in ({"symbol": "../x", "interval": "1m"}, {"symbol": "SOLUSDT"}, [1], {"symbol": [1]}, None):
                await cache.publish("thresholds_update", hostile)
            await store.publish("BTCUSDT", cache, interval="5m")  # of another interval: not for this follower
            promote(store, 2.0, now=NOW)
            await store.publish("SOLUSDT", cache)
            changed = await asyncio.wait_for(anext(changes), 5)
            assert changed.symbol == "SOLUSDT" and changed.thresholds.tp_mult == 2.0
            store.expire("SOLUSDT")
            await store.publish("SOLUSDT", cache)
            gone = await asyncio.wait_for(anext(changes), 5)
            assert gone.source == "default" and gone.thresholds == Thresholds()
            await changes.aclose()

    asyncio.run(run())
    assert caplog.text.count("was passed over") == 6


def test_stage1_reads_what_was_published(store: ThresholdStore, cache: SimpleCacheHandler) -> None:
    candles = SimulatedExchange(seed=5).candles("SOLUSDT", days=1)

    async def run() -> None:
        async with cache:
            promote(store, 2.5, now=NOW)
            await store.publish("SOLUSDT", cache)
            made = await AssetMonitorStage1(cache_handler=cache).check_anomalies("SOLUSDT", candles)
            assert made["thresholds"]["tp_mult"] == 2.5

    asyncio.run(run())


def test_public_types() -> None:
    assert issubclass(ThresholdError, AioneError) and Entry.__doc__ and Provenance.__doc__
