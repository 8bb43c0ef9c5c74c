"""The strict check, the lenient screen and the mending of stamps."""

from __future__ import annotations

import datetime as dt
import itertools
import zoneinfo
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import dateutil.tz
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from lake_workers import START, candles

from aione_lab import replay
from aione_lab.errors import InputError
from aione_lab.lake import CANDLE_COLUMNS, Lake, check_candles, check_funding, resample, screen_candles
from aione_lab.lake.audit import audit_frame
from aione_lab.lake.schema import spacing_fault
from aione_lab.lake.stamps import FINER_THAN_MS, UNREADABLE, mend_stamps, read_stamps

MINUTE = 60_000


def sound(n: int = 50) -> pd.DataFrame:
    return candles(START + MINUTE * np.arange(n))


def with_value(column: str, value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.iloc[7, frame.columns.get_loc(column)] = value
        return frame

    return change


def with_stamps(change: Callable[[pd.DatetimeIndex], object]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.set_axis(change(frame.index))


def with_column(stamps: Callable[[pd.DatetimeIndex], object]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.reset_index(drop=True).assign(timestamp=stamps(frame.index))


AT_7 = r"row 7 \(2025-01-01T00:07:00\+00:00\)"

REFUSED = {
    "naive": (with_stamps(lambda i: i.tz_localize(None)), r"^candles\.timestamp='2025-01-01T00:00.*naive"),
    "kyiv": (
        with_stamps(lambda i: i.tz_convert("Europe/Kyiv")),
        r"^candles\.timestamp='Europe/Kyiv': times must be in UTC",
    ),
    "naive column": (with_column(lambda i: i.tz_localize(None)), "naive"),
    "naive objects": (with_column(lambda i: [t.to_pydatetime().replace(tzinfo=None) for t in i]), "naive"),
    "text without zone": (with_column(lambda i: i.strftime("%Y-%m-%dT%H:%M:%S").astype(object)), "naive"),
    "unsorted": (lambda f: f.iloc[::-1], r"row 1 is earlier than the row before it"),
    "repeated": (lambda f: pd.concat([f.iloc[:8], f.iloc[7:]]), r"00:07:00\+00:00': row 8 is repeated"),
    "off the grid": (with_stamps(lambda i: i + pd.Timedelta("1s")), "row 0: must lie on the grid of 1m"),
    "sub-millisecond": (with_stamps(lambda i: i.as_unit("ns") + pd.Timedelta(1, "ns")), "whole UTC milliseconds"),
    "seconds": (with_column(lambda i: i.asi8 // 1000), "between 2009 and 2100"),
    "microseconds": (with_column(lambda i: i.asi8 * 1000), "between 2009 and 2100"),
    "NaT": (with_stamps(lambda i: i[:-1].append(pd.DatetimeIndex([pd.NaT]).tz_localize("UTC"))), "NaT.*row 49"),
    "booleans": (with_column(lambda i: [True] * len(i)), "int64 UTC milliseconds"),
    "no stamps": (lambda f: f.reset_index(drop=True), "needs a UTC DatetimeIndex or a column timestamp"),
    "no volume": (lambda f: f.drop(columns="volume"), r"missing column\(s\) volume"),
    "column twice": (lambda f: pd.concat([f, f[["close"]]], axis=1), "column close is there more than once"),
    "text": (lambda f: f.assign(close="dear"), r"^candles\.close=.*must be numbers"),
    "empty": (lambda f: f.iloc[:0], "must hold at least one candle"),
    "no frame": (lambda f: f.to_dict(), "must be a pandas DataFrame"),
    "NaN": (with_value("close", np.nan), rf"^candles\.close=nan: {AT_7}"),
    "infinite": (with_value("open", np.inf), rf"^candles\.open=inf: {AT_7}"),
    "zero": (with_value("low", 0.0), rf"^candles\.low=0\.0: {AT_7}: must be finite and above zero"),
    "negative": (with_value("open", -1.0), rf"^candles\.open=-1\.0: {AT_7}"),
    "high too low": (with_value("high", 1.0), rf"^candles\.high=1\.0: {AT_7}: must not be below open or close"),
    "low too high": (with_value("low", 1e6), rf"^candles\.low=1000000\.0: {AT_7}: must not be above open or close"),
    "NaN volume": (with_value("volume", np.nan), rf"^candles\.volume=nan: {AT_7}"),
    "truth values": (lambda f: f.assign(volume=True), r"^candles\.volume='bool': must be numbers"),
    "nullable truth values": (
        lambda f: f.assign(volume=pd.array([True] * len(f), dtype="boolean")),
        "^candles.volume='boolean'",
    ),
    "truth among numbers": (
        lambda f: f.assign(volume=pd.Series([True, *f.volume[1:]], f.index, dtype=object)),
        "^candles.volume='object': must be numbers",
    ),
    "complex numbers": (lambda f: f.assign(close=f.close + 0j), "^candles.close='complex128': must be numbers"),
    "dates as prices": (lambda f: f.assign(close=f.index), "^candles.close=.*must be numbers"),
    "spans as prices": (lambda f: f.assign(volume=f.index - f.index[0]), "^candles.volume=.*must be numbers"),
    "digits as text": (lambda f: f.assign(close=f.close.astype(str)), "^candles.close=.*must be numbers"),
    "digits as objects": (lambda f: f.assign(close=f.close.astype(str).astype(object)), "^candles.close='object'"),
    "digits as categories": (lambda f: f.assign(close=f.close.astype(str).astype("category")), "^candles.close="),
    "columns of two levels": (lambda f: pd.concat({"BTCUSDT": f}, axis=1), "several levels"),
    "tiny price": (with_value("low", 1e-300), rf"^candles\.low=1e-300: {AT_7}: must lie between 1e-12 and 1e\+12"),
    "huge price": (with_value("high", 2e12), rf"^candles\.high=.*{AT_7}: must lie between"),
    "more bought than traded": (
        lambda f: f.assign(volume=1.0, taker_buy_volume=np.where(np.arange(len(f)) == 7, 1.001, 1.0)),
        rf"^candles\.taker_buy_volume=1\.001: {AT_7}: must not be above volume",
    ),
    "negative volume": (with_value("volume", -0.5), rf"^candles\.volume=-0\.5: {AT_7}"),
    "infinite trades": (with_value("trades", np.inf), rf"^candles\.trades=inf: {AT_7}"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_frames_get_one_line_that_says_what_and_where(name: str) -> None:
    spoil, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        check_candles(spoil(sound()), "1m")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("candles")


@pytest.mark.parametrize(
    "values",
    [
        [dt.datetime(2025, 1, 1)],
        [dt.date(2025, 1, 1)],
        [dt.datetime(2025, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2)))],
        ["2025-01-01T00:00:00+02:00"],
        ["2025-01-01"],
        ["soon"],
    ],
)
def test_objects_that_are_not_utc_times_are_refused(values: list[object]) -> None:
    with pytest.raises(InputError, match=r"^t='.*neither naive nor in another zone"):
        read_stamps(pd.Series(values, dtype=object), "t")


def test_mixed_columns_are_read_value_by_value() -> None:
    mixed = pd.Series([START, str(START + MINUTE), "1.7356896e12", "junk", None, START + 0.5, "9" * 400], dtype=object)
    assert read_stamps(mixed, "t").tolist() == [
        START,
        START + MINUTE,
        START,
        *[UNREADABLE] * 2,
        FINER_THAN_MS,
        UNREADABLE,
    ]
    times = pd.Series([pd.Timestamp(START, unit="ms", tz="UTC"), pd.NaT], dtype=object)
    assert read_stamps(times, "t").tolist() == [START, UNREADABLE]
    assert read_stamps(pd.Series(np.array([2**64 - 1, START], dtype=np.uint64)), "t").tolist() == [0, START]


def test_the_argument_is_named_and_the_interval_checked() -> None:
    with pytest.raises(InputError, match=r"^reference\.close"):
        check_candles(with_value("close", np.nan)(sound()), "1m", "reference")
    with pytest.raises(InputError, match=r"^interval='7m': must be one of"):
        check_candles(sound(), "7m")


@pytest.mark.parametrize(
    "shape",
    [
        lambda f: f,
        lambda f: f.set_axis(f.index.as_unit("ns")),
        lambda f: f.set_axis(f.index.tz_convert(dt.UTC)),
        lambda f: f.set_axis(f.index.tz_convert(zoneinfo.ZoneInfo("Etc/UTC"))),
        lambda f: f.reset_index(),
        lambda f: f.reset_index(drop=True).assign(timestamp=f.index.asi8),
        lambda f: f.reset_index(drop=True).assign(timestamp=f.index.asi8.astype(float)),
        lambda f: f.reset_index(drop=True).assign(timestamp=pd.array(f.index.asi8, dtype="Int64")),
        lambda f: f.reset_index(drop=True).assign(timestamp=list(f.index.to_pydatetime())),
        lambda f: f.reset_index(drop=True).assign(timestamp=f.index.strftime("%Y-%m-%dT%H:%M:%SZ")),
        lambda f: f.drop(columns=["trades", "quote_volume", "taker_buy_volume"]),
        lambda f: f[list(reversed(f.columns))].assign(note="mine"),
        lambda f: f.astype({"open": "Float64", "volume": "float64[pyarrow]"}),
        lambda f: f.astype({"open": "category", "volume": object}),
        lambda f: f.assign(open=[Decimal(repr(value)) for value in f.open]),
        lambda f: f.set_axis(pd.Index(f.index.astype(pd.ArrowDtype(pa.timestamp("ms", "UTC"))))),
        lambda f: f.reset_index().astype({"timestamp": pd.ArrowDtype(pa.timestamp("us", "UTC"))}),
        lambda f: f.set_axis(f.index.tz_convert("GMT")),
        lambda f: f.set_axis(f.index.tz_convert("Etc/GMT")),
        lambda f: f.set_axis(f.index.tz_convert(dateutil.tz.tzutc())),
    ],
)
def test_every_accepted_shape_gives_the_same_frame_and_is_left_alone(
    shape: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    wanted = sound()
    given = shape(sound())
    before = given.copy(deep=True)
    got = check_candles(given, "1m")
    pd.testing.assert_frame_equal(got, wanted)
    assert got.index.unit == "ms" and str(got.index.tz) == "UTC" and got.index.name == "timestamp"
    got.iloc[0, 0] = 1e9
    pd.testing.assert_frame_equal(given, before)


def test_gaps_are_allowed_and_integers_become_floats() -> None:
    frame = sound().drop(sound().index[10:20]).round(0)
    got = check_candles(frame.astype({"open": int}).assign(high=lambda f: f.high + 2, low=lambda f: f.low - 2), "1m")
    assert len(got) == 40 and (got.dtypes == np.float64).all() and tuple(got.columns) == CANDLE_COLUMNS


def test_a_taker_volume_rounded_apart_from_the_volume_is_accepted() -> None:
    frame = sound().assign(volume=0.3, taker_buy_volume=0.1 + 0.2)
    assert (frame.taker_buy_volume > frame.volume).all()
    assert len(check_candles(frame, "1m")) == 50


@pytest.mark.parametrize("spoil", [lambda f: f.assign(volume=True), lambda f: f.assign(close=f.index)])
def test_the_lenient_readers_too_take_no_truth_values_and_no_times_for_numbers(
    spoil: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    for read in (screen_candles, audit_frame):
        with pytest.raises(InputError, match="must be numbers"):
            read(spoil(sound()), "1m")


def test_columns_of_two_levels_are_refused_everywhere(tmp_path: Path) -> None:
    frame = pd.concat({"BTCUSDT": sound()}, axis=1)
    numbered = pd.concat({"timestamp": sound().reset_index(drop=True)}, axis=1)
    lake = Lake(tmp_path)
    for bad, use in itertools.product(
        (frame, numbered),
        (
            replay,
            lambda f: replay(f, interval="1m"),
            lambda f: lake.append("BTCUSDT", "1m", f),
            lambda f: lake.import_candles(f, symbol="BTCUSDT", interval="1m"),
            lambda f: audit_frame(f, "1m"),
            lambda f: screen_candles(f, "1m"),
            lambda f: resample(f, "1m", "5m"),
        ),
    ):
        with pytest.raises(InputError, match="several levels"):
            use(bad)


def test_candles_of_another_interval_are_refused_and_gaps_are_not(tmp_path: Path) -> None:
    minutes = sound(300)
    longer = resample(minutes, "1m", "5m")
    holes = minutes.iloc[np.random.default_rng(3).permutation(300)[:40]].sort_index()
    lake = Lake(tmp_path)
    lake.append("BTCUSDT", "1m", minutes)
    for bad in (longer, longer.drop(longer.index[[3, 4, 20]]), longer.iloc[:3]):
        with pytest.raises(InputError, match="interval='1m'.*rows of frame stand 5m apart"):
            lake.append("BTCUSDT", "1m", bad)
        with pytest.raises(InputError, match="rows of candles stand 5m apart"):
            replay(bad, interval="1m")
        with pytest.raises(InputError, match="rows of reference stand 5m apart"):
            replay(minutes, interval="1m", reference=bad)
    assert lake.rows_revised("BTCUSDT", "1m") == 0
    for good in (minutes, holes, minutes.iloc[[0, 2, 9]], minutes.iloc[[0, 5]], minutes.iloc[[0]]):
        assert lake.append("BTCUSDT", "1m", good).rows_same == len(good)
        assert len(replay(good, interval="1m", reference=good).index) == len(good)


def test_spacing_names_the_distance() -> None:
    assert spacing_fault(START + 10_000 * np.arange(9), "1m") == "10 s"
    assert spacing_fault(START + MINUTE * np.arange(9), "5m") == "1m"
    assert spacing_fault(np.array([], dtype=np.int64), "1m") is None


def test_the_screen_keeps_good_rows_and_names_a_reason_for_each_other() -> None:
    frame = sound(20).reset_index(drop=True).assign(timestamp=sound(20).index.asi8).astype({"open": object})
    frame.loc[3, "close"] = np.nan
    frame.loc[5, "volume"] = -1.0
    frame.loc[7, "high"] = 1.0
    frame.loc[9, "timestamp"] += 1
    frame.loc[11, "timestamp"] = 17
    frame.loc[13, "open"] = "n/a"
    frame.loc[15, "timestamp"] = frame.loc[14, "timestamp"]
    shuffled = frame.sample(frac=1.0, random_state=1)
    wins = shuffled.index.get_loc(14) < shuffled.index.get_loc(15)
    good, refused = screen_candles(shuffled, "1m", now_ms=START + 19 * MINUTE + 1)
    reasons = dict(zip(refused["timestamp"], refused["reason"], strict=True))
    assert reasons == {
        START + 3 * MINUTE: "close must be finite and above zero",
        START + 5 * MINUTE: "volume must be finite and not negative",
        START + 7 * MINUTE: "high must not be below open or close",
        START + 9 * MINUTE + 1: "timestamp is off the 1m grid",
        17: "timestamp is outside 2009-2100",
        START + 13 * MINUTE: "open must be finite and above zero",
        START + 14 * MINUTE: "same timestamp as a later row, which is kept",
        START + 19 * MINUTE: "candle is not finished",
    }
    assert len(good) + len(refused) == 20
    kept = sound(20).iloc[15 if wins else 14]
    assert good.loc[pd.Timestamp(START + 14 * MINUTE, unit="ms", tz="UTC"), "close"] == kept["close"]
    pd.testing.assert_frame_equal(check_candles(good, "1m"), good)  # what passes the screen passes the check
    assert good.attrs["stamps_fixed"] == {}


def test_the_screen_takes_text_as_a_csv_gives_it() -> None:
    frame = sound(5).reset_index(drop=True).assign(timestamp=sound(5).index.asi8).astype(str)
    good, refused = screen_candles(frame, "1m")
    pd.testing.assert_frame_equal(good, sound(5), check_exact=True)
    assert refused.empty and list(refused.columns) == ["timestamp", "reason"]


@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "1d"])
@pytest.mark.parametrize("signed", [False, True])
def test_stamps_cut_to_32_bits_are_restored(interval: str, signed: bool) -> None:
    step = {"1m": MINUTE, "5m": 5 * MINUTE, "1h": 60 * MINUTE, "1d": 1440 * MINUTE}[interval]
    stamps = START // step * step + step * np.arange(2000)
    cut = stamps % 2**32
    if signed:
        cut = cut.astype(np.uint32).astype(np.int32).astype(np.int64)
    good, refused = screen_candles(candles(stamps).reset_index(drop=True).assign(timestamp=cut), interval)
    assert good.index.asi8.tolist() == stamps.tolist() and refused.empty
    assert good.attrs["stamps_fixed"] == {"32-bit": 2000}


@pytest.mark.parametrize(("factor", "name"), [(1_000, "microseconds"), (1_000_000, "nanoseconds")])
def test_finer_stamps_become_milliseconds_when_nothing_is_lost(factor: int, name: str) -> None:
    stamps = START + MINUTE * np.arange(100)
    frame = candles(stamps).reset_index(drop=True).assign(timestamp=stamps * factor)
    frame.loc[4, "timestamp"] += 1
    good, refused = screen_candles(frame, "1m")
    assert good.index.asi8.tolist() == np.delete(stamps, 4).tolist()
    assert good.attrs["stamps_fixed"] == {name: 99} and len(refused) == 1
    mixed = (
        candles(stamps).reset_index(drop=True).assign(timestamp=np.where(np.arange(100) < 50, stamps, stamps * factor))
    )
    good, _ = screen_candles(mixed, "1m")  # an archive of 2024 and one of 2025 in one file
    assert good.index.asi8.tolist() == stamps.tolist() and good.attrs["stamps_fixed"] == {name: 50}


def test_doubtful_stamps_are_not_guessed_at() -> None:
    seconds = (START + MINUTE * np.arange(5000)) // 1000
    mended, fixed = mend_stamps(seconds, MINUTE)
    assert (mended == seconds).all() and not fixed
    simulated = MINUTE * np.arange(5000)  # a made-up history that begins in 1970
    mended, fixed = mend_stamps(simulated, MINUTE)
    assert (mended == simulated).all() and not fixed
    noise = np.random.default_rng(0).integers(0, 2**32, 10_000)
    _, fixed = mend_stamps(noise, MINUTE)
    assert fixed["32-bit"] < 10_000 * 0.02  # 670 of 1,875 residues, a 32nd of the stamps


def test_a_restored_stamp_never_lies_in_the_future() -> None:
    stamp = np.array([START % 2**32])
    assert mend_stamps(stamp, MINUTE, START + MINUTE)[0].tolist() == [START]
    assert mend_stamps(stamp, MINUTE, START)[0].tolist() == stamp.tolist()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"timestamp": [START], "funding_rate": [np.nan]}), r"funding_rate=nan: row 0"),
        (pd.DataFrame({"timestamp": [START], "funding_rate": [1.5]}), "fraction between -1 and 1"),
        (pd.DataFrame({"timestamp": [START, START], "funding_rate": [0.1, 0.1]}), "repeated"),
        (pd.DataFrame({"timestamp": [START]}), "missing column"),
        (pd.Series([0.1], index=pd.DatetimeIndex(["2025-01-01"])), "naive"),
    ],
)
def test_bad_funding_is_refused(frame: pd.DataFrame | pd.Series, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_funding(frame)


def test_the_real_files_pass_the_check(shared: Path) -> None:
    for file in sorted((shared / "candles" / "1m").glob("*.parquet")):
        frame = pd.read_parquet(file)
        checked = check_candles(frame, "1m")
        assert len(checked) == len(frame)
        good, refused = screen_candles(frame, "1m")
        pd.testing.assert_frame_equal(good, checked)
        assert refused.empty
