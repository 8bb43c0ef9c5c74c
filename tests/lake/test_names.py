"""What the names of files tell, and what is refused where they tell another thing than was said."""

from __future__ import annotations

from pathlib import Path

import pytest
from lake_files import assert_untouched, kline_csv, make_candles, write_archive, zipped
from lake_files import lake as lake  # fixture

from aione_lab.errors import InputError
from aione_lab.lake import Lake
from aione_lab.lake.names import read_name


@pytest.mark.parametrize(
    ("name", "symbol", "interval"),
    [
        ("BTCUSDT-1m-2025-05.zip", "BTCUSDT", "1m"),
        ("BTCUSDT-1m-2025-05-31.zip", "BTCUSDT", "1m"),
        ("BTCUSDT-1M-2025-05.zip", "BTCUSDT", "1M"),
        ("BTCUSDT_250926-5m-2025-05.zip", "BTCUSDT_250926", "5m"),
        ("XVGIDRT-1m-2021-05.zip", "XVGIDRT", "1m"),
        ("1000SHIBUSDT.parquet", "1000SHIBUSDT", None),
        ("btcusdt.parquet", "BTCUSDT", None),
        ("UNITTEST_BTC-1m.parquet", "UNITTEST_BTC", "1m"),
        ("XRP_ETH-1m.feather", "XRP_ETH", "1m"),
        ("BTC_USDT_USDT-5m-futures.feather", "BTCUSDT", "5m"),
        ("BTCUSDT_1h.csv", "BTCUSDT", "1h"),
        ("BTC-USD_1m.csv", "BTCUSD", "1m"),
        ("BTC-USD.csv", "BTCUSD", None),
        ("BTC-USDT-SWAP-1m-2025-05.csv", "BTCUSDT", "1m"),
        ("BTC-USD-SWAP.csv", "BTCUSD_PERP", None),
        ("BTC-USDT-250627_5m.csv", "BTCUSDT_250627", "5m"),
        ("klines.csv", None, None),
        ("klines-1m.csv", None, "1m"),
        ("klines-1m-2025-05.csv", None, "1m"),
        ("klines-2025-05.csv", None, None),
        ("a b.csv", None, None),
        ("candles/interval=1m/symbol=SOLUSDT/month=2025-05/part-0.parquet", "SOLUSDT", "1m"),
        ("symbol=..%2Fx/part-0.parquet", None, None),
    ],
)
def test_names_tell_symbol_and_interval(name: str, symbol: str | None, interval: str | None) -> None:
    named = read_name(Path(name))
    assert (named.symbol, named.interval) == (symbol, interval)


@pytest.mark.parametrize(
    "name", ["BTCUSDT-fundingRate-2025-05.zip", "BTC_USDT_USDT-8h-funding_rate.feather", "BTC-USDT-SWAP-funding.csv"]
)
def test_names_of_funding_files_tell_the_symbol(name: str) -> None:
    assert read_name(Path(name), "funding").symbol == "BTCUSDT"


@pytest.mark.parametrize("name", ["BTCUSDT-1m-2025-05.csv", "BTCUSDT.csv", "BTC-USDT_1m.csv", "symbol=BTCUSDT/a.csv"])
def test_a_symbol_that_the_name_contradicts_is_refused(lake: Lake, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(kline_csv(make_candles(10)))
    with pytest.raises(InputError, match=f"^symbol='ETHUSDT': contradicts .* {path.name}, which says BTCUSDT") as told:
        lake.import_candles(path, symbol="ETHUSDT", interval="1m")
    assert "\n" not in str(told.value)
    assert_untouched(lake)
    assert lake.import_candles(path, symbol="BTC/USDT:USDT", interval="1m").symbols == ("BTCUSDT",)


@pytest.mark.parametrize("name", ["klines-1m.csv", "BTC_USDT-1m.csv"])
def test_a_symbol_may_be_said_where_the_name_tells_none_or_the_same(lake: Lake, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(kline_csv(make_candles(10)))
    assert lake.import_candles(tmp_path / name, symbol="BTCUSDT", interval="1m").symbols == ("BTCUSDT",)


@pytest.mark.parametrize("names", [("BTCUSDT-1m-2025-05", "ETHUSDT-1m-2025-05"), ("BTC-USD_1m", "ETH-USD_1m")])
def test_one_symbol_for_files_of_several_is_refused(lake: Lake, tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write_archive(tmp_path, name, kline_csv(make_candles(10)))
    with pytest.raises(InputError, match="several symbols"):
        lake.import_candles(tmp_path, symbol="BTCUSDT", interval="1m")
    assert_untouched(lake)


@pytest.mark.parametrize(
    ("archive", "member", "symbol"),
    [
        ("ETHUSDT-1m-2025-05", "BTCUSDT-1m-2025-05", None),
        ("ETHUSDT", "BTCUSDT-1m-2025-05", None),
        ("ETHUSDT-1m-2025-05", "BTCUSDT", None),
        ("dump", "BTCUSDT-1m-2025-05", "ETHUSDT"),
        ("ETHUSDT-1m-2025-05", "klines-5m", None),
    ],
)
def test_a_member_of_another_name_is_refused(
    lake: Lake, tmp_path: Path, archive: str, member: str, symbol: str | None
) -> None:
    path = tmp_path / f"{archive}.zip"
    path.write_bytes(zipped(kline_csv(make_candles(10)), f"{member}.csv"))
    with pytest.raises(InputError, match=f"holds '{member}.csv', another symbol or interval than ETHUSDT"):
        lake.import_candles(path, symbol=symbol, interval="1m")
    assert_untouched(lake)


def test_a_member_tells_what_its_archive_does_not(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "dump.zip"
    path.write_bytes(zipped(kline_csv(make_candles(10)), "BTCUSDT-1m-2025-05.csv"))
    with pytest.raises(InputError, match="its name says 1m"):
        lake.import_candles(path, interval="5m")
    assert lake.import_candles(path, interval="1m").symbols == ("BTCUSDT",)


def test_a_member_of_another_symbol_is_refused_among_funding_too(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "ETHUSDT-fundingRate-2025-05.zip"
    path.write_bytes(zipped(b"timestamp,funding_rate\n1746316800000,0.0001\n", "BTCUSDT-fundingRate-2025-05.csv"))
    with pytest.raises(InputError, match="another symbol or interval than ETHUSDT"):
        lake.import_funding(path)


@pytest.mark.parametrize(
    ("spot", "futures"),
    [
        ("data/spot/monthly/klines/BTCUSDT-1m-2025-05.csv", "data/futures/um/monthly/klines/BTCUSDT-1m-2025-05.csv"),
        ("BTC_USDT-1m-spot.csv", "BTC_USDT-1m-futures.csv"),
        ("spot/BTCUSDT.csv", "BTCUSDT-1m-futures.csv"),
        ("BTC-USDT_1m.csv", "BTC-USDT-SWAP_1m.csv"),
    ],
)
def test_two_markets_of_one_symbol_are_refused(lake: Lake, tmp_path: Path, spot: str, futures: str) -> None:
    folder = tmp_path / "archive"
    for name in (spot, futures):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(kline_csv(make_candles(10)))
    with pytest.raises(InputError, match="holds BTC_?USDT of two markets, ") as told:
        lake.import_candles(folder, interval="1m")
    assert f"{spot} (spot)" in str(told.value) and f"{futures} (futures)" in str(told.value)
    assert_untouched(lake)
    for name in (spot, futures):
        assert lake.import_candles(folder / name, interval="1m").total["files"] == 1


def test_two_markets_of_different_symbols_or_intervals_are_imported(lake: Lake, tmp_path: Path) -> None:
    for name in ("spot/BTCUSDT-1m", "futures/ETHUSDT-1m", "futures/BTCUSDT-5m"):
        path = tmp_path / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(kline_csv(make_candles(10)))
    report = lake.import_candles(tmp_path, interval="1m")
    assert report.symbols == ("BTCUSDT", "ETHUSDT") and report.total["files_refused"] == 1


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTCUSD_PERP-1m-2025-05.csv", None),
        ("BTCUSD_250627-1m-2025-05.csv", None),
        ("BTC-USD-SWAP_1m.csv", None),
        ("dump.csv", "BTCUSD_PERP"),
    ],
)
def test_candles_margined_in_coins_are_refused(lake: Lake, tmp_path: Path, name: str, symbol: str | None) -> None:
    (tmp_path / name).write_bytes(kline_csv(make_candles(10)))
    with pytest.raises(InputError, match=r"is of BTCUSD_\w+, margined in coins: its volume counts contracts"):
        lake.import_candles(tmp_path / name, symbol=symbol, interval="1m")
    assert_untouched(lake)
