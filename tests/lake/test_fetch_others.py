"""Download from exchanges that answer in their own way: short pages, newest first, days of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ccxt.async_support as accxt
import pytest

from aione_lab.errors import InputError, LakeCorruption
from aione_lab.lake import Lake

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
START = 1_746_316_800_000  # 2025-05-04T00:00Z
SWAP = {
    "id": "BTC-USDT-SWAP", "symbol": "BTC/USDT:USDT", "base": "BTC", "quote": "USDT", "settle": "USDT",
    "type": "swap", "spot": False, "swap": True, "linear": True, "contract": True, "contractSize": 1, "active": True,
    "precision": {"amount": 1, "price": 0.1}, "limits": {}, "info": {},
}  # fmt: skip
ETH = {**SWAP, "id": "ETH-USDT-SWAP", "symbol": "ETH/USDT:USDT", "base": "ETH"}


def other(
    bars: list[int],
    *,
    page: int = 500,
    days: list[int] | None = None,
    rates: list[int] | None = None,
    newest_first: bool = False,
    **market: Any,
) -> accxt.Exchange:
    """A ccxt exchange that has these minutes, daily candles and payments (ms), and gives ``page`` of them at once."""

    class Other(accxt.okx):
        def __init__(self, config: dict[str, Any] | None = None) -> None:
            super().__init__(config or {})
            self.has |= {"fetchTime": False, "fetchFundingRateHistory": rates is not None}
            self.timeframes = {"1m": "1m", **({} if days is None else {"1d": "1d"})}

        async def load_markets(self, reload: bool = False, params: Any = None) -> Any:
            return self.set_markets([{**SWAP, **market}, {**ETH, **market}])

        async def fetch_ohlcv(
            self, symbol: str, timeframe: str = "1m", since: int = 0, limit: int = 100, params: Any = None
        ) -> Any:
            limit = min(limit, page)
            there = bars if timeframe == "1m" else days or []
            step = MINUTE if timeframe == "1m" else DAY
            return [[t, 100, 101, 99, 100, 5.0] for t in there if since <= t < since + limit * step][:limit]

        async def fetch_funding_rate_history(
            self, symbol: str, since: int = 0, limit: int = 100, params: Any = None
        ) -> Any:
            there = [t for t in rates or [] if since <= t <= params["until"]]
            some = there[-200:] if newest_first else there[:200]
            return [{"timestamp": t, "fundingRate": 0.0001} for t in some]

    return Other()


def stored(lake: Lake, symbol: str = "BTCUSDT") -> list[int]:
    return lake.arrays(symbol, "1m", columns=())["timestamp"].tolist()


def minutes(first: int, last: int) -> list[int]:
    return [START + i * MINUTE for i in range(first, last)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.mark.parametrize("page", [100, 300, 500])
def test_an_empty_page_says_no_more_than_it_could_hold(lake: Lake, page: int) -> None:
    bars = minutes(0, 1000) + minutes(1400, 3000)  # an outage
    report = lake.fetch(other(bars, page=page), "BTCUSDT", "1m", since=START, until=START + 3000 * MINUTE)
    assert stored(lake) == bars and report.total["bars_absent"] == 400


@pytest.mark.parametrize("opens", [0, 8, 16])
def test_days_may_begin_at_any_hour(lake: Lake, opens: int) -> None:
    bars, days = minutes(0, 2880), [START + i * DAY + opens * HOUR for i in range(-100, 2)]
    lake.fetch(other(bars, days=days), "BTCUSDT", "1m", since=START, until=START + 2880 * MINUTE)
    assert stored(lake) == bars


@pytest.mark.parametrize("newest_first", [False, True])
def test_funding_comes_whole_whichever_end_is_told_first(lake: Lake, newest_first: bool) -> None:
    rates = [START + i * 8 * HOUR for i in range(600)]
    exchange = other(minutes(0, 10), rates=rates, newest_first=newest_first)
    lake.fetch(exchange, "BTCUSDT", "1m", since=START, until=START + 600 * 8 * HOUR)
    assert lake.funding("BTCUSDT").index.asi8.tolist() == rates


@pytest.mark.parametrize("hours", [1, 4, 8])
def test_a_missing_payment_is_asked_for_however_often_they_come(lake: Lake, hours: int) -> None:
    rates = [START + i * hours * HOUR for i in range(300)]
    for known in (rates[:100] + rates[101:], rates):  # the second time the exchange has what it lacked
        exchange = other(minutes(0, 10), rates=known)
        lake.fetch(exchange, "BTCUSDT", "1m", since=START, until=rates[-1] + HOUR)
        assert lake.funding("BTCUSDT").index.asi8.tolist() == known


def test_a_market_that_trades_every_other_minute_is_stored(lake: Lake) -> None:
    bars = minutes(0, 300)[::2]
    lake.fetch(other(bars), "BTCUSDT", "1m", since=START, until=START + 300 * MINUTE)
    assert stored(lake) == bars


@pytest.mark.parametrize(("size", "told"), [(1, False), (0.01, True)])
def test_volumes_that_may_be_contracts_are_noted(lake: Lake, size: float, told: bool) -> None:
    exchange = other(minutes(0, 10), contractSize=size)
    report = lake.fetch(exchange, "BTCUSDT", "1m", since=START, until=START + 10 * MINUTE)
    assert any("one is 0.01 BTC" in note for note in report.symbols[0].notes) is told


def damaged(lake: Lake, symbol: str) -> None:
    fetch(lake, symbol)
    manifest = Path(lake.root) / f"candles/interval=1m/symbol={symbol}/_manifest.json"
    manifest.write_bytes(b"{")


def fetch(lake: Lake, *symbols: str) -> Any:
    return lake.fetch(other(minutes(0, 10)), list(symbols), "1m", since=START, until=START + 10 * MINUTE)


def test_a_damaged_series_does_not_keep_the_others_from_being_fetched(lake: Lake) -> None:
    damaged(lake, "BTCUSDT")
    report = fetch(lake, "BTCUSDT", "ETHUSDT")
    assert "manifest" in str(report.symbols[0].error) and stored(lake, "ETHUSDT") == minutes(0, 10)
    with pytest.raises(LakeCorruption, match="manifest"):
        fetch(lake, "BTCUSDT")


def test_spot_and_contract_do_not_share_a_series(lake: Lake) -> None:
    with pytest.raises(InputError, match=r"^symbols=.*BTC/USDT.*BTC/USDT:USDT.*spot and contract"):
        fetch(lake, "BTC/USDT", "BTC/USDT:USDT")
    assert not Path(lake.root).exists()
