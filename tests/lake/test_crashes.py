"""The lake against SIGKILL, competing writers and damaged files."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import lake_workers as work
import numpy as np
import pandas as pd
import pytest

from aione_lab.errors import LakeCorruption, LakeError
from aione_lab.lake import Lake
from aione_lab.lake.schema import CANDLE_COLUMNS
from tests.forkserver import PROCESSES


def expected(chunks: int) -> pd.DataFrame:
    """What the lake holds after chunks 0 … ``chunks`` − 1: of a stamp, the later chunk's candle."""
    rows = pd.concat([work.candles(work.chunk(n), version=n) for n in range(chunks)])
    return rows[~rows.index.duplicated(keep="last")].sort_index()


def check_after_kill(root: Path, acknowledged: int) -> int:
    """Open the lake as the next process would; return how many chunks it holds (all or none of the last)."""
    lake = Lake(root)
    verified = lake.verify()
    assert verified.faults == ()  # also: no file that the manifest does not name
    if not acknowledged and lake.span("BTCUSDT", "1h") is None:
        return 0
    got = lake.candles("BTCUSDT", "1h")
    held = (len(got) - 60) // 60
    assert held in (acknowledged, acknowledged + 1)
    pd.testing.assert_frame_equal(got, expected(held))
    committed = {Path(file).relative_to(root).as_posix() for file in lake.files("BTCUSDT", "1h")}
    assert work.files_below(root) == committed | {"candles/interval=1h/symbol=BTCUSDT/_manifest.json"}
    return held


def kill_often(root: Path, kills: int, seed: int, imported: bool = False) -> None:
    rng = random.Random(seed)
    held = 0
    for turn in range(kills):
        if held > 90:  # start over before the history gets long
            root = root.with_name(f"lake{turn}")
            held = 0
        receive, send = PROCESSES.Pipe(duplex=False)
        writer = PROCESSES.Process(target=work.append_until_killed, args=(str(root), held, send, imported))
        writer.start()
        send.close()
        assert receive.recv() == ("open", held)
        time.sleep(rng.uniform(0.0, 0.15))
        writer.kill()
        writer.join()
        assert writer.exitcode == -9
        acknowledged = held
        while receive.poll():
            try:
                _, number = receive.recv()
            except EOFError:
                break
            acknowledged = number + 1
        held = check_after_kill(root, acknowledged)


@pytest.mark.parametrize(
    ("imported", "kills"),
    [(False, 10), (True, 6), *(pytest.param(*one, marks=pytest.mark.long) for one in ((False, 25), (True, 15)))],
)
def test_killed_writers_lose_and_leave_nothing(tmp_path: Path, imported: bool, kills: int) -> None:
    kill_often(tmp_path / "lake", kills, seed=1, imported=imported)


@pytest.mark.long
def test_killed_writers_lose_and_leave_nothing_500_times(tmp_path: Path) -> None:
    kill_often(tmp_path / "lake", 500, seed=2)


@pytest.mark.parametrize("what", ["append", "import", "compact"])
def test_a_kill_before_every_single_call_that_touches_the_disk(tmp_path: Path, what: str) -> None:
    """Not at random: the writer dies before its first, second, … call until it comes through."""
    root = tmp_path / "lake"
    if what == "compact":
        number = 12
        Lake(root).append("BTCUSDT", "1h", work.candles(work.chunk(0)[:60], version=0))
        for n in range(number):
            for part in np.split(work.chunk(n), [60, 110]):
                Lake(root).append("BTCUSDT", "1h", work.candles(part, version=n))
    else:
        number = 0
    for step in range(1, 200):
        process = PROCESSES.Process(target=work.die_at_step, args=(str(root), number, step, what))
        process.start()
        process.join()
        if what == "compact":
            assert check_after_kill(root, number) == number
        else:
            number = check_after_kill(root, number)
        if process.exitcode == 0:
            break
        assert process.exitcode == -9
    else:
        pytest.fail("the writer never came through")
    assert step > 10  # the kills did hit something
    if what == "compact":
        assert Lake(root).compact("BTCUSDT", "1h") == 0


def test_a_kill_during_an_append_that_replaces_files(tmp_path: Path) -> None:
    for n in range(14):
        Lake(tmp_path).append("BTCUSDT", "1h", work.candles(work.chunk(n), version=n))
    held = 14
    for step in range(1, 60):
        process = PROCESSES.Process(target=work.die_at_step, args=(str(tmp_path), held, step, "append"))
        process.start()
        process.join()
        held = check_after_kill(tmp_path, held)
        if process.exitcode == 0:
            return
    pytest.fail("the writer never came through")


def overlap(root: Path, appends: int) -> None:
    hours, writers = 3000, 4
    ends = []
    for seed in range(writers):
        receive, send = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=work.compete, args=(str(root), seed, appends, hours, send))
        process.start()
        ends.append((process, receive))
    whole = work.candles(work.START + work.HOUR * np.arange(hours))
    reads = 0
    while any(process.is_alive() for process, _ in ends):  # a reader beside the writers sees only sound states
        lake = Lake(root)
        if lake.span("BTCUSDT", "1h"):
            seen = lake.candles("BTCUSDT", "1h")
            pd.testing.assert_frame_equal(seen, whole.loc[seen.index])
            reads += 1
    union: set[int] = set()
    for process, receive in ends:
        taken, refused = receive.recv()
        process.join()
        assert process.exitcode == 0
        assert all("BTCUSDT" in text and "lock" in text for text in refused)
        assert len(taken) + len(refused) == appends
        for begin, end in taken:
            union |= set(range(begin, end))
    assert reads
    got = Lake(root).candles("BTCUSDT", "1h")
    pd.testing.assert_frame_equal(got, work.candles(work.START + work.HOUR * np.array(sorted(union))))
    assert Lake(root).verify().faults == ()
    assert Lake(root).rows_revised("BTCUSDT", "1h") == 0


def test_four_processes_append_overlapping_windows(tmp_path: Path) -> None:
    overlap(tmp_path, 25)


@pytest.mark.long
def test_four_processes_append_overlapping_windows_250_times(tmp_path: Path) -> None:
    overlap(tmp_path, 250)


def test_a_held_lock_is_a_named_refusal_and_nothing_is_written(tmp_path: Path) -> None:
    writer, other = Lake(tmp_path), Lake(tmp_path, lock_timeout=0.1)
    writer.append("BTCUSDT", "1h", work.candles(work.chunk(0)))
    before = work.files_below(tmp_path)
    with writer._storage.lock("BTCUSDT", 1.0):
        with pytest.raises(LakeError, match=r"BTCUSDT: another writer holds the lock .*waited 0\.1 s"):
            other.append("BTCUSDT", "1h", work.candles(work.chunk(5)))
        other.append("ETHUSDT", "1h", work.candles(work.chunk(0)))  # the lock is the symbol's own
        assert len(other.candles("BTCUSDT", "1h")) == 120  # readers do not wait
    assert {file for file in work.files_below(tmp_path) if "BTC" in file} == before


def test_sweeping_spares_a_living_writer(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("BTCUSDT", "1h", work.candles(work.chunk(0)))
    folder = Path(lake.files("BTCUSDT", "1h")[0]).parent
    unfinished = folder / f".00000002-{'0' * 32}.parquet.0123456789ab.tmp"
    uncommitted = folder / f"00000002-{'0' * 32}.parquet"
    newer = folder / f"00000009-{'0' * 32}.parquet"
    foreign = folder / "notes.parquet"
    for file in (unfinished, uncommitted, newer, foreign):
        file.write_bytes(b"x")
    with lake._storage.lock("BTCUSDT", 1.0):
        Lake(tmp_path)
        assert unfinished.exists() and uncommitted.exists()
    Lake(tmp_path)
    assert not unfinished.exists() and not uncommitted.exists()
    assert newer.exists() and foreign.exists()  # newer than any commit of ours, and not ours: reported, not removed
    assert any(newer.name in fault for fault in lake.verify().faults)


def damage(content: bytes, rng: random.Random) -> bytes:
    kind = rng.choice(["cut", "flip", "flip", "zeros", "more"])
    at = rng.randrange(len(content))
    if kind == "cut":
        return content[:at]
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    if kind == "more":
        return content + rng.randbytes(rng.randrange(1, 50))
    return content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]


def damaged_files(root: Path, times: int, seed: int) -> None:
    rng = random.Random(seed)
    lake = Lake(root)
    hours = work.START + work.HOUR * np.arange(24 * 100)
    lake.append("BTCUSDT", "1h", work.candles(hours[:-50], optional=True))
    lake.append("BTCUSDT", "1h", work.candles(hours[-50:], optional=True))
    truth = lake.fingerprint("BTCUSDT", "1h")
    files = [Path(file) for file in lake.files("BTCUSDT", "1h")]
    manifest = files[0].parent.parent / "_manifest.json"
    whole = {file: file.read_bytes() for file in [*files, manifest]}
    time.sleep(0.15)
    assert lake.fingerprint("BTCUSDT", "1h") == truth  # from here on every file counts as checked
    refused = 0
    for turn in range(times):
        file = manifest if turn % 10 == 0 else rng.choice(files)
        bad = damage(whole[file], rng)
        if bad == whole[file]:
            continue
        file.write_bytes(bad)
        if file is manifest:
            other = Lake(root)
            with pytest.raises(LakeCorruption, match="_manifest.json"):
                other.candles("BTCUSDT", "1h")
        else:
            for reader in (lake, Lake(root)):
                with pytest.raises(LakeCorruption, match=file.name):
                    reader.candles("BTCUSDT", "1h")
        with pytest.raises(LakeCorruption, match=file.name):
            lake.append("BTCUSDT", "1h", work.candles(hours, version=1))  # never merged with what is damaged
        assert [fault for fault in lake.verify().faults if file.name in fault]
        report = lake.audit("BTCUSDT", "1h")
        assert report.verdict == "broken" and file.name in report.sentence
        file.write_bytes(whole[file])
        refused += 1
    assert refused > times * 0.9
    assert lake.fingerprint("BTCUSDT", "1h") == truth
    assert lake.verify().faults == ()


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    damaged_files(tmp_path, 100, seed=3)


@pytest.mark.long
def test_damaged_files_are_refused_by_name_1000_times(tmp_path: Path) -> None:
    damaged_files(tmp_path, 1000, seed=4)


def test_a_missing_file_or_manifest_is_named(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("BTCUSDT", "1h", work.candles(work.chunk(0)))
    (file,) = (Path(file) for file in lake.files("BTCUSDT", "1h"))
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(LakeCorruption, match=f"{file.name}.*not there"):
        lake.arrays("BTCUSDT", "1h")
    file.write_bytes(content)
    manifest = file.parent.parent / "_manifest.json"
    manifest.unlink()
    with pytest.raises(LakeCorruption, match="_manifest.json: the manifest is missing"):
        Lake(tmp_path).candles("BTCUSDT", "1h")
    assert file.exists()  # without a manifest nothing is swept


def test_a_manifest_older_than_the_data_costs_no_row(tmp_path: Path) -> None:
    """A copy taken while somebody wrote, or a manifest restored from one."""
    lake = Lake(tmp_path)
    hours = work.START + work.HOUR * np.arange(300)
    lake.append("BTCUSDT", "1h", work.candles(hours[:200]))
    (first,) = (Path(file) for file in lake.files("BTCUSDT", "1h"))
    manifest = first.parent.parent / "_manifest.json"
    before = manifest.read_bytes()
    lake.append("BTCUSDT", "1h", work.candles(hours[200:]))  # its file swallows the first one
    manifest.write_bytes(before)
    again = Lake(tmp_path)
    faults = " ".join(again.verify().faults)
    assert first.name in faults and "not in the manifest" in faults
    assert again.rebuild_manifest("BTCUSDT", "1h").rows == 300
    pd.testing.assert_frame_equal(again.candles("BTCUSDT", "1h"), work.candles(hours))


def test_a_lake_that_is_copied_over_another_costs_no_row(tmp_path: Path) -> None:
    hours = work.START + work.HOUR * np.arange(24 * 90)
    for name, rows in (("there", hours[:700]), ("new", hours[1500:])):
        Lake(tmp_path / name).append("BTCUSDT", "1h", work.candles(rows))
    shutil.copytree(tmp_path / "new", tmp_path / "there", dirs_exist_ok=True)
    lake = Lake(tmp_path / "there")
    assert "not in the manifest" in " ".join(lake.verify().faults)
    assert lake.rebuild_manifest("BTCUSDT", "1h").rows == 700 + len(hours) - 1500


def test_rebuild_proves_each_file_and_sets_damaged_ones_aside(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    hours = work.START + work.HOUR * np.arange(24 * 100)
    lake.append("BTCUSDT", "1h", work.candles(hours, optional=True))
    truth = lake.candles("BTCUSDT", "1h")
    files = [Path(file) for file in lake.files("BTCUSDT", "1h")]
    manifest = files[0].parent.parent / "_manifest.json"
    manifest.write_bytes(b"{}")
    rebuilt = lake.rebuild_manifest("BTCUSDT", "1h")
    assert (rebuilt.files, rebuilt.rows, rebuilt.set_aside) == (len(files), len(truth), ())
    pd.testing.assert_frame_equal(lake.candles("BTCUSDT", "1h"), truth)

    manifest.unlink()
    files[1].write_bytes(files[1].read_bytes()[:-1])
    rebuilt = lake.rebuild_manifest("BTCUSDT", "1h")
    assert len(rebuilt.set_aside) == 1 and files[1].name in rebuilt.set_aside[0]
    assert Path(rebuilt.set_aside[0]).exists()
    pd.testing.assert_frame_equal(Lake(tmp_path).candles("BTCUSDT", "1h"), truth[truth.index.month != 2])
    lake.append("BTCUSDT", "1h", truth[truth.index.month == 2])
    pd.testing.assert_frame_equal(lake.candles("BTCUSDT", "1h"), truth)


def test_rebuild_merges_what_a_killed_writer_left(tmp_path: Path) -> None:
    """Old and new file of a month side by side and no manifest: the later generation wins, each stamp once."""
    lake = Lake(tmp_path)
    lake.append("BTCUSDT", "1h", work.candles(work.chunk(0), optional=True))
    (old,) = (Path(file) for file in lake.files("BTCUSDT", "1h"))
    content = old.read_bytes()
    lake.append("BTCUSDT", "1h", work.candles(work.chunk(1), version=1))
    truth = lake.candles("BTCUSDT", "1h")
    old.write_bytes(content)
    (old.parent.parent / "_manifest.json").unlink()
    assert lake.rebuild_manifest("BTCUSDT", "1h").set_aside == ()
    pd.testing.assert_frame_equal(lake.candles("BTCUSDT", "1h"), truth)
    assert lake.verify().faults == ()
    assert list(truth.columns) == list(CANDLE_COLUMNS)


def full_disk(failing: int) -> Callable[[int], None]:
    """An fsync that fails the ``failing``-th time it is called."""
    calls = 0
    sync = os.fsync

    def call(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(28, "No space left on device")
        sync(handle)

    return call


def test_a_failed_write_leaves_the_old_state_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk at the first, second, … fsync of an append that touches three months."""
    lake = Lake(tmp_path)
    hours = work.START + work.HOUR * np.arange(24 * 70)
    lake.append("BTCUSDT", "1h", work.candles(hours))
    before, files = lake.candles("BTCUSDT", "1h"), work.files_below(tmp_path)
    for failing in range(1, 40):
        with monkeypatch.context() as patch:
            patch.setattr("aione_lab.lake.storage.os.fsync", full_disk(failing))
            try:
                lake.append("BTCUSDT", "1h", work.candles(hours, version=1))
            except OSError as error:
                assert "No space left" in str(error)
            else:
                break
        if lake.rows_revised("BTCUSDT", "1h"):  # the commit itself went through, only its last fsync failed
            break
        pd.testing.assert_frame_equal(lake.candles("BTCUSDT", "1h"), before)
        assert work.files_below(tmp_path) == files
    assert failing > 5
    pd.testing.assert_frame_equal(Lake(tmp_path).candles("BTCUSDT", "1h"), work.candles(hours, version=1))
    assert Lake(tmp_path).verify().faults == ()
