"""A lake read from an object store: the same bytes as from its folder, by the same rules, and never a secret shown."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import random
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import lake_workers as work
import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.fs
import pytest

from aione_lab.cli import main
from aione_lab.errors import AioneError, InputError, LakeCorruption, LakeError
from aione_lab.lake import CANDLE_COLUMNS, Lake, s3
from aione_lab.lake.exchange import fetch, repair
from aione_lab.lake.manifest import MANIFEST
from aione_lab.lake.simulated import SimulatedExchange, fill
from aione_lab.lake.storage import Stored
from tests.forkserver import PROCESSES
from tests.s3_double import CANARY, KEY, Double

MINUTE = 60_000
READ_ONLY = "is read-only: write to a local lake and copy it there"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Three months of one symbol in several parts, days of others, funding, a gap; kept in bucket/the lake."""
    lake = Lake(tmp_path_factory.mktemp("store") / "bucket" / "the lake" / "v1")
    minutes = work.START + MINUTE * np.arange(85 * 1440)
    lake.append("BTCUSDT", "1m", work.candles(minutes[:70_000], optional=True))
    for first in (70_000, 71_000, 71_100, 80_000):
        lake.append("BTCUSDT", "1m", work.candles(minutes[first : first + 100 + first % 7_000]))
    lake.resample("BTCUSDT", "1m", "5m")
    exchange = SimulatedExchange()
    for name in ("SOLUSDT", "LINKUSDT"):
        lake.append(name, "1m", exchange.candles(name, days=3))
    lake.append_funding("SOLUSDT", exchange.funding("SOLUSDT", days=60))
    return lake


@pytest.fixture
def store(local: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """The server over a copy of that lake; two names a page of a listing."""
    shutil.copytree(Path(local.root).parents[2], tmp_path / "store")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with Double(tmp_path / "store", page=2) as double:
        yield double


@pytest.fixture
def remote(store: Double) -> Lake:
    return Lake(store.address("bucket/the lake/v1/"))


def file_in(store: Double, lake: Lake, place: int = 0, symbol: str = "BTCUSDT") -> Path:
    return store.folder / lake.files(symbol, "1m")[place].removeprefix("s3://")


# ---- the same as from the folder -----------------------------------------------------------------


def test_everything_read_is_what_the_folder_gives(local: Lake, remote: Lake, store: Double) -> None:
    assert remote.symbols() == local.symbols() == ["BTCUSDT", "LINKUSDT", "SOLUSDT"]
    assert remote.symbols("5m") == local.symbols("5m") and remote.symbols("1h") == []
    assert remote.intervals("BTCUSDT") == local.intervals("BTCUSDT") == ["1m", "5m"]
    for symbol in local.symbols():
        for interval in local.intervals(symbol):
            assert remote.span(symbol, interval) == local.span(symbol, interval)
            assert remote.fingerprint(symbol, interval) == local.fingerprint(symbol, interval)
            assert remote.rows_revised(symbol, interval) == local.rows_revised(symbol, interval)
            pd.testing.assert_frame_equal(remote.candles(symbol, interval), local.candles(symbol, interval))
            assert remote.audit(symbol, interval) == local.audit(symbol, interval)
        pd.testing.assert_series_equal(remote.funding(symbol), local.funding(symbol))
    assert len(remote.funding("SOLUSDT")) > 100 and remote.funding("LINKUSDT").empty
    names = [file.removeprefix(local.root) for file in local.files("BTCUSDT", "1m")]
    assert len(names) > 2 and remote.files("BTCUSDT", "1m") == [f"s3://bucket/the lake/v1{name}" for name in names]
    checked = remote.verify()
    assert checked.sound and checked == local.verify()
    with pytest.raises(LakeError, match=r"ETHUSDT 1m: not in the lake s3://bucket.*there: BTCUSDT, LINKUSDT, SOLUSDT"):
        remote.candles("ETHUSDT", "1m")
    assert store.writes == []


def test_random_spans_and_columns_are_byte_for_byte_those_of_the_folder(local: Lake, remote: Lake) -> None:
    dice = random.Random(7)
    span = local.span("BTCUSDT", "1m")
    assert span is not None
    for _ in range(40):
        first, last = sorted(dice.sample(range(span[0] - MINUTE, span[1] + 2 * MINUTE), 2))
        if dice.random() < 0.3:
            last = first + dice.randrange(1, 3 * MINUTE)
        columns = dice.sample(CANDLE_COLUMNS, dice.randrange(1, len(CANDLE_COLUMNS)))
        ours = remote.arrays("BTCUSDT", "1m", first, last, columns)
        theirs = local.arrays("BTCUSDT", "1m", first, last, columns)
        assert list(ours) == list(theirs)
        for name, values in ours.items():
            assert values.dtype == theirs[name].dtype and values.tobytes() == theirs[name].tobytes()
    whole = remote.arrays("BTCUSDT", "1m")
    whole["close"][0] = -1.0  # owned by the caller
    assert remote.arrays("BTCUSDT", "1m")["close"][0] > 0


def test_files_can_be_read_by_pyarrow_itself(local: Lake, remote: Lake, store: Double) -> None:
    client = pyarrow.fs.S3FileSystem(
        endpoint_override=store.endpoint, scheme="http", access_key="any", secret_key="any", region="us-east-1"
    )
    names = [file.removeprefix("s3://") for file in remote.files("SOLUSDT", "1m")]
    table = pyarrow.dataset.dataset(names, filesystem=client, format="parquet").to_table()
    assert table["close"].to_numpy().tolist() == local.candles("SOLUSDT", "1m")["close"].tolist()


# ---- checked as on disk ----------------------------------------------------------------------------


def test_a_part_is_hashed_once_and_again_when_it_changes(
    remote: Lake, store: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []

    def counting(content: bytes) -> Any:
        hashed.append(len(content))
        return hashlib.sha256(content)

    monkeypatch.setattr("aione_lab.lake.reading.hashlib", SimpleNamespace(sha256=counting))
    remote.candles("SOLUSDT", "1m")
    assert len(hashed) == 1
    remote.candles("SOLUSDT", "1m")
    assert len(hashed) == 1
    assert len(pickle.loads(pickle.dumps(remote)).candles("SOLUSDT", "1m")) and len(hashed) == 1
    file = file_in(store, remote, symbol="SOLUSDT")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(LakeCorruption, match=file.name):
        remote.candles("SOLUSDT", "1m")
    assert len(hashed) == 2
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    store.fault = "no tags"  # a store that tells no ETag is never trusted on the second read
    for count in (3, 4):
        remote.candles("SOLUSDT", "1m")
        assert len(hashed) == count


def test_damaged_and_missing_objects_are_named_and_nothing_partial_is_given(remote: Lake, store: Double) -> None:
    dice = random.Random(3)
    whole = remote.fingerprint("BTCUSDT", "1m")
    for place in range(len(remote.files("BTCUSDT", "1m"))):
        file = file_in(store, remote, place)
        content = file.read_bytes()
        flipped = bytearray(content)
        flipped[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        for wrong in (bytes(flipped), content[:-1], content[: len(content) // 2], b"", content + b"\0"):
            file.write_bytes(wrong)
            with pytest.raises(LakeCorruption, match=rf"s3://bucket/.*{file.name}: its checksum differs"):
                remote.candles("BTCUSDT", "1m")
        report = remote.audit("BTCUSDT", "1m")
        assert report.verdict == "broken" and file.name in report.sentence
        assert [fault for fault in remote.verify().faults if file.name in fault]
        file.unlink()
        with pytest.raises(LakeCorruption, match=rf"s3://bucket/.*{file.name}: the file is in the manifest and not"):
            remote.candles("BTCUSDT", "1m")
        file.write_bytes(content)
        assert remote.fingerprint("BTCUSDT", "1m") == whole
    manifest = file.parent.parent / MANIFEST
    content = manifest.read_bytes()
    manifest.write_bytes(content.replace(b"2025-01", b"2025-04", 1))
    with pytest.raises(LakeCorruption, match=f"{MANIFEST}: the manifest is damaged"):
        remote.span("BTCUSDT", "1m")
    assert "BTCUSDT" in remote.symbols()  # it is there; reading it says what is wrong
    manifest.unlink()
    with pytest.raises(LakeCorruption, match=f"{MANIFEST}: the manifest is missing"):
        remote.candles("BTCUSDT", "1m")


def test_a_lake_that_is_copied_over_is_read_by_the_new_manifest(store: Double, remote: Lake, tmp_path: Path) -> None:
    folder = store.folder / "bucket" / "the lake" / "v1"
    remote.candles("BTCUSDT", "1m")
    writer = Lake(folder)
    writer.append("BTCUSDT", "1m", work.candles(work.START + MINUTE * np.arange(10), version=1))
    writer.compact("BTCUSDT", "1m")
    assert remote.fingerprint("BTCUSDT", "1m") == writer.fingerprint("BTCUSDT", "1m")


def test_a_manifest_cut_short_by_its_replacement_is_read_again(remote: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cuts = remote._storage.load, [1]

    def torn(relative: str) -> Stored:
        stored = whole(relative)
        return stored._replace(content=stored.content[:-9]) if cuts and cuts.pop() else stored

    monkeypatch.setattr(remote._storage, "load", torn)
    assert len(remote.candles("SOLUSDT", "1m")) == 3 * 1440 and not cuts


def test_opening_and_reading_changes_nothing(store: Double, remote: Lake) -> None:
    leftover = file_in(store, remote).with_name(".x.parquet.0123456789ab.tmp")
    leftover.write_bytes(b"half")
    before = sorted(store.folder.rglob("*"))
    again = Lake(store.address("bucket/the lake/v1"))
    again.candles("BTCUSDT", "1m")
    assert sorted(store.folder.rglob("*")) == before and store.writes == []
    assert [fault for fault in again.verify().faults if leftover.name in fault]


def test_what_would_write_is_refused(remote: Lake, store: Double, tmp_path: Path) -> None:
    frame = work.candles(work.START + MINUTE * np.arange(10))
    rates = pd.Series([0.0001], index=pd.DatetimeIndex(["2025-01-01"], tz="UTC"), name="funding_rate")
    nowhere = object()  # never asked
    calls: list[Callable[[], object]] = [
        lambda: remote.append("BTCUSDT", "1m", frame),
        lambda: remote.append("BTCUSDT", "1m", frame[:0]),
        lambda: remote.append_funding("BTCUSDT", rates),
        lambda: remote.compact("BTCUSDT", "1m"),
        lambda: remote.resample("BTCUSDT", "1m", "5m"),
        lambda: remote.rebuild_manifest("BTCUSDT", "1m"),
        lambda: remote.import_candles(tmp_path, interval="1m"),
        lambda: remote.import_candles(frame, symbol="BTCUSDT", interval="1m"),
        lambda: remote.import_funding(tmp_path),
        lambda: remote.fetch(nowhere, "BTCUSDT", "1m", since="2025-01-01"),
        lambda: remote.repair("BTCUSDT", "1m"),
        lambda: fetch(remote, nowhere, "BTCUSDT", "1m", since="2025-01-01"),
        lambda: repair(remote, "BTCUSDT", "1m", nowhere),
        lambda: fill(remote, days=1, symbols=["BTCUSDT"]),
        remote.check_writable,
        lambda: remote._storage.write("x", b""),
        lambda: remote._storage.remove("x"),
        lambda: remote._storage.rename("x", "y"),
        lambda: remote._storage.exists("x"),
    ]
    store.requests.clear()
    for call in calls:
        with pytest.raises(LakeError, match=READ_ONLY) as refusal:
            call()
        assert "\n" not in str(refusal.value)
    assert store.requests == [] and store.writes == []


# ---- trouble ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["AccessDenied", "InternalError", "cut", "hang", "gone"])
def test_trouble_of_the_network_is_one_line(fault: str, local: Lake, store: Double, monkeypatch: Any) -> None:
    monkeypatch.setattr(s3, "_SILENCE_SECONDS", 1.0)
    lake = Lake(store.address("bucket/the lake/v1"))
    store.fault = fault
    if fault == "gone":
        store.stop()
    calls: list[Callable[[], object]] = [lambda: lake.candles("BTCUSDT", "1m")]
    if fault in ("AccessDenied", "gone"):  # the others take seconds each
        calls += [lake.symbols, lambda: lake.funding("SOLUSDT"), lambda: lake.audit("BTCUSDT", "1m"), lake.verify]
        calls.append(lambda: Lake(store.address("bucket/the lake/v1")))
    for call in calls:
        with pytest.raises(LakeError, match="cannot be read from the object store") as trouble:
            call()
        assert not isinstance(trouble.value, LakeCorruption)  # nothing is known of the files
        assert "\n" not in str(trouble.value) and "s3://bucket/" in str(trouble.value)
        clean("".join(traceback.format_exception(trouble.value)))
        clean(repr(trouble.value.__context__))  # the server said what it was sent; that is not carried along
    if fault != "gone":
        store.fault = ""
        assert lake.fingerprint("BTCUSDT", "1m") == local.fingerprint("BTCUSDT", "1m")


@pytest.mark.parametrize("place", ["no-such-bucket/the lake/v1", "bucket/elsewhere", "bucket/the lake/v", "other"])
def test_an_address_that_leads_to_nothing_is_said_at_once(place: str, store: Double) -> None:
    with pytest.raises(LakeError, match=f"s3://{place}.*no such bucket, or nothing in it") as refusal:
        Lake(store.address(place))
    clean(str(refusal.value))


# ---- addresses and secrets -------------------------------------------------------------------------


def clean(text: str) -> None:
    """Neither the secret, as it is or encoded, nor a long piece of it, nor the access key."""
    for secret in (CANARY, quote(CANARY, safe=""), CANARY.split("/")[0], CANARY.split("+")[1], KEY):
        assert secret not in text, text


SECRET = quote(CANARY, safe="")
BAD = [
    f"s3://{KEY}:{CANARY}@bucket/x",  # not encoded
    f"s3://{KEY}:{CANARY.replace('/', '?')}@bucket/x",
    f"s3://{KEY}:{SECRET}/bucket",
    f"s3://{KEY}@bucket/x",
    f"s3://:{SECRET}@bucket/x",
    f"s3://{KEY}:@bucket/x",
    f"s3://{KEY}:{SECRET}@/x",
    f"s3://{KEY}:{SECRET}@b/x",
    f"s3://{KEY}:{SECRET}@bucket/a//b",
    f"s3://{KEY}:{SECRET}@bucket/../b",
    f"s3://{KEY}:{SECRET}@bucket/a\nb",
    f"s3://{KEY}:{SECRET}@bucket/a%20b",
    f"s3://{KEY}:{SECRET}@bucket/x?secret_key={SECRET}",
    f"s3://{KEY}:{SECRET}@bucket/x?{SECRET}=1",
    f"s3://{KEY}:{SECRET}@bucket/x?region={SECRET}",
    f"s3://{KEY}:{SECRET}@bucket/x?region=a&region=b",
    f"s3://{KEY}:{SECRET}@bucket/x?endpoint_override=http://{KEY}:{SECRET}@host",
    f"s3://{KEY}:{SECRET}@bucket/x?scheme=ftp",
    f"s3://{KEY}:{SECRET}@",
    "s3://",
    f"gs://{KEY}:{SECRET}@bucket/x",
    f"s3a://{KEY}:{SECRET}@bucket/x",
    f"https://{KEY}:{SECRET}@host/x",
    "ftp://host/x",
]


@pytest.mark.parametrize("address", BAD)
def test_bad_addresses_are_refused_without_showing_secrets(address: str) -> None:
    with pytest.raises(InputError) as refusal:
        Lake(address)
    assert "\n" not in str(refusal.value)
    clean("".join(traceback.format_exception_only(refusal.value)))


def test_a_path_is_no_address() -> None:
    with pytest.raises(InputError, match="an address must be a text"):
        Lake(Path(f"s3://{KEY}:{SECRET}@bucket/x"))


def test_secrets_are_shown_nowhere(
    store: Double, remote: Lake, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = [remote.root, repr(remote), str(remote), repr(remote._storage), *remote.files("BTCUSDT", "1m")]
    texts += [remote._storage.path(""), str(remote.audit("SOLUSDT", "1m")), json.dumps(remote.verify().to_dict())]
    with pytest.raises(LakeError) as refusal:
        remote.candles("ETHUSDT", "1m")
    texts.append("".join(traceback.format_exception(refusal.value)))
    texts += [*capfd.readouterr(), caplog.text]
    for text in texts:
        clean(text)
    assert remote.root == f"s3://bucket/the lake/v1?region=us-east-1&endpoint_override={store.endpoint}&scheme=http"


def test_the_root_opens_the_lake_again_with_the_environments_credentials(
    local: Lake, store: Double, remote: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    again = Lake(remote.root)
    assert again.root == remote.root and again.fingerprint("SOLUSDT", "1m") == local.fingerprint("SOLUSDT", "1m")
    clean(repr(again) + pickle.dumps(again).decode("latin-1"))  # what is not in the address does not travel
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{store.endpoint}")
    named = Lake("S3://bucket/the lake/v1?region=us-east-1")
    assert named.root == "s3://bucket/the lake/v1?region=us-east-1"
    assert named.span("SOLUSDT", "1m") == local.span("SOLUSDT", "1m")


def test_a_lake_goes_to_another_process(local: Lake, remote: Lake) -> None:
    with PROCESSES.Pool(1) as pool:
        assert pool.apply(work.fingerprint, (remote, "SOLUSDT")) == local.fingerprint("SOLUSDT", "1m")


# ---- the program -----------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    printed = capsys.readouterr()
    clean(printed.out + printed.err)
    return int(left.value.code or 0), printed.out, printed.err


def test_commands_that_read_take_an_address(local: Lake, store: Double, capsys: pytest.CaptureFixture[str]) -> None:
    address = store.address("bucket/the lake/v1")
    code, out, _ = run(capsys, "audit", "SOLUSDT", "--lake", address, "--json")
    _, expected, _ = run(capsys, "audit", "SOLUSDT", "--lake", local.root, "--json")
    assert code == 0 and json.loads(out)["series"] == json.loads(expected)["series"]
    code, out, _ = run(capsys, "replay", "SOLUSDT", "--lake", address, "--json")
    assert code == 0 and out == run(capsys, "replay", "SOLUSDT", "--lake", local.root, "--json")[1]
    _, out, _ = run(capsys, "doctor", "--lake", address, "--json")
    (files,) = [check for check in json.loads(out)["checks"] if check["name"] == "lake files"]
    assert files["state"] == "ok"
    assert store.writes == []


def test_bad_places_and_commands_that_write_exit_2_with_one_line(
    store: Double, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = store.address("bucket/the lake/v1")
    wrong = [
        ("audit", "--lake", store.address("nowhere/x")),
        ("replay", "SOLUSDT", "--lake", BAD[0]),
        ("audit", "--lake", BAD[16]),
        ("audit", "--lake", f"gs://{KEY}:{SECRET}@bucket/x"),
        ("replay", "ETHUSDT", "--lake", address),
        ("audit", "--interval", "1h", "--lake", address),
        ("fetch", "BTCUSDT", "--lake", address),
        ("fetch", "BTCUSDT", "--start", "2025-01-01", "--lake", address),
        ("import", str(tmp_path), "--interval", "1m", "--lake", address),
        ("import", str(tmp_path), "--funding", "--lake", address),
    ]
    for arguments in wrong:
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1, err
        if arguments[0] in ("fetch", "import"):
            assert READ_ONLY in err
    store.stop()
    code, out, err = run(capsys, "audit", "--lake", address)
    assert code == 2 and err.count("\n") == 1 and "cannot be read from the object store (NETWORK_CONNECTION" in err


def test_a_folder_is_still_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Lake("s3").root == str(tmp_path / "s3") and Lake("a:b/c").root == str(tmp_path / "a:b" / "c")
    with pytest.raises(AioneError):
        Lake("memory://x")
