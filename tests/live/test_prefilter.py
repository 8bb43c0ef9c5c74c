"""Fast symbols from a Binance double on loopback: what is enough, what is unknown, in which order, and failures."""

from __future__ import annotations

import asyncio
import functools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import waiting
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from aione_lab.cache import SimpleCacheHandler
from aione_lab.errors import ExchangeError, InputError
from aione_lab.live import FastSymbols, Prefilter, PrefilterSettings, find_fast_symbols
from aione_lab.live.prefilter import CRITERIA, _depth, _number, _ranked

sys.path.append(str(Path(__file__).resolve().parent.parent))

from fake_exchange import FakeExchange, Fault  # noqa: E402

NOON = pd.Timestamp("2025-05-10 12:00", tz="UTC")
HOURS = 27
SETTINGS = PrefilterSettings(min_atr_percent=0.001, depth_band=0.00205)


def candles(wave: float) -> pd.DataFrame:
    """Minutes around 100 that swing by ``wave`` of the price in every hour."""
    index = pd.date_range(NOON - pd.Timedelta(hours=HOURS), NOON, freq="1min", inclusive="left", name="timestamp")
    close = 100.0 * (1 + wave / 2 * np.sin(np.arange(len(index)) * 2 * np.pi / 60))
    frame = {"open": close, "high": close, "low": close, "close": close, "volume": np.full(len(index), 5.0)}
    more = {"quote_volume": 500.0, "trades": 3.0, "taker_buy_volume": 2.0}
    return pd.DataFrame({**frame, **more}, index=index)


def ticker(symbol: str, last: Any, quote_volume: Any, percent: Any, age_s: int = 5) -> dict[str, Any]:
    now = int(NOON.timestamp() * 1000)
    return {
        "symbol": symbol, "lastPrice": last, "priceChangePercent": percent, "quoteVolume": quote_volume,
        "volume": "1000", "openPrice": None, "highPrice": "101", "lowPrice": "99", "weightedAvgPrice": "100",
        "closeTime": now - 1000 * age_s, "openTime": now - 86_400_000, "count": 5,
    }  # fmt: skip


def book(amount: float, step: float = 0.01) -> dict[str, Any]:
    sides = {
        name: [[str(100 + sign * step * (place + 1)), str(amount)] for place in range(50)]
        for name, sign in (("bids", -1), ("asks", 1))
    }
    return {"lastUpdateId": 1, "E": 1, "T": 1, **sides}


class Futures(FakeExchange):
    """The double with tickers, open interest and order books."""

    def __init__(self, symbols: dict[str, tuple[Any, Any, Any, float, float]]) -> None:
        """``symbols``: quote volume, change in %, open interest (base), amount on a level of the book, hourly swing."""
        super().__init__({symbol: candles(row[4]) for symbol, row in symbols.items()})
        self.tickers: Any = [ticker(symbol, "100", row[0], row[1]) for symbol, row in symbols.items()]
        self.interest: dict[str, Any] = {symbol: row[2] for symbol, row in symbols.items()}
        self.depth: dict[str, Any] = {symbol: book(row[3]) for symbol, row in symbols.items()}

    def _app(self) -> web.Application:
        app = super()._app()

        async def all_tickers(request: web.Request, fault: Fault | None) -> tuple[Any, int]:
            return self.tickers, 40

        async def interest(request: web.Request, fault: Fault | None) -> tuple[Any, int]:
            symbol = request.query["symbol"]
            return {"symbol": symbol, "openInterest": self.interest[symbol], "time": self.clock}, 1

        async def depth(request: web.Request, fault: Fault | None) -> tuple[Any, int]:
            return self.depth[request.query["symbol"]], 10

        for name, answer in (("ticker/24hr", all_tickers), ("openInterest", interest), ("depth", depth)):
            app.router.add_get(f"/fapi/v1/{name}", self._misbehaving(answer))
        return app


GOOD = ("50000000", "4.0", "100000", 50.0, 0.004)  # 10 million open interest, 50 × 20 levels × 100 = 100,000 deep


def found_on(server: Futures, settings: PrefilterSettings = SETTINGS) -> FastSymbols:
    return asyncio.run(find_fast_symbols(server.ccxt(), settings))


until = functools.partial(waiting.until, seconds=10.0)


def test_ranked_with_every_criterion_and_every_reason() -> None:
    symbols = {
        "AAAUSDT": GOOD,
        "BESTUSDT": ("90000000", "-8.0", "200000", 90.0, 0.008),
        "THINUSDT": ("19000000", *GOOD[1:]),
        "CALMUSDT": (GOOD[0], "-0.5", *GOOD[2:]),
        "IDLEUSDT": (*GOOD[:2], "40000", *GOOD[3:]),
        "HOLEUSDT": (*GOOD[:3], 1.0, GOOD[4]),
        "FLATUSDT": (*GOOD[:4], 0.0002),
        "NOBODYUSDT": (*GOOD[:2], None, *GOOD[3:]),
        "NONUMUSDT": ("NaN", *GOOD[1:]),
        "EMPTYUSDT": GOOD,
        "OLDUSDT": GOOD,
        "UNHEARDUSDT": GOOD,
        "NEWUSDT": GOOD,
        "DEADUSDT": GOOD,
        "ABCUSDC": GOOD,
    }
    with Futures(symbols) as server:
        server.depth["EMPTYUSDT"]["asks"] = []
        server.tickers = [row for row in server.tickers if row["symbol"] != "UNHEARDUSDT"]
        server.tickers[10] = ticker("OLDUSDT", "100", GOOD[0], GOOD[1], age_s=7200)
        server.books["NEWUSDT"].ms, server.books["NEWUSDT"].values = (
            server.books["NEWUSDT"].ms[-600:], server.books["NEWUSDT"].values[-600:]
        )  # fmt: skip
        server.faults.append(Fault("status", path="depth", symbol="DEADUSDT", status=400, times=99))
        found = found_on(server)
    assert found.symbols == ("BESTUSDT", "AAAUSDT") and list(found.table.columns) == [*CRITERIA, "score"]
    best = found.table.loc["BESTUSDT"]
    assert best["open_interest"] == 200_000 * 100 and best["change"] == -0.08 and best["score"] == 1.0
    # 20 levels of 0.01 within 0.2 of 100; the bids are the thinner side
    assert best["depth"] == pytest.approx(90.0 * sum(100 - 0.01 * place for place in range(1, 21)))
    assert best["atr_percent"] == pytest.approx(0.008, rel=0.02)
    assert "ABCUSDC" not in found.left_out
    reasons = {
        "THINUSDT": "quote volume 1.9e+07 below 2e+07", "CALMUSDT": "change 0.005 below 0.01",
        "IDLEUSDT": "open interest 4e+06 below 5e+06", "HOLEUSDT": "depth 1997.9 below 50000",
        "FLATUSDT": "atr percent 0.0002", "NOBODYUSDT": "open interest unknown", "NONUMUSDT": "quote volume unknown",
        "EMPTYUSDT": "depth unknown", "OLDUSDT": "everything about now unknown", "UNHEARDUSDT": "price unknown",
        "NEWUSDT": "atr percent unknown", "DEADUSDT": "unknown: binanceusdm: refused",
    }  # fmt: skip
    assert set(found.left_out) == set(reasons)
    for symbol, reason in reasons.items():
        assert found.left_out[symbol].startswith(reason), found.left_out[symbol]
    assert found.sentence == (
        "2 symbols are followed; 2 of 14 reach every criterion, "
        "7 were left out because a number of theirs is not known."
    )


def test_only_the_largest_are_looked_at_closely_and_the_best_are_kept() -> None:
    symbols = {f"S{number}USDT": (str(10_000_000 * number), *GOOD[1:]) for number in range(1, 8)}
    with Futures(symbols) as server:
        found = found_on(server, SETTINGS.replace(max_candidates=3, max_symbols=2))
        assert found.symbols == ("S7USDT", "S6USDT") and len(server.requests("depth")) == 3
        assert found.left_out["S2USDT"] == "not among the 3 with the largest turnover"


def test_a_manual_list_asks_nobody() -> None:
    settings = PrefilterSettings(manual=("eth/usdt:usdt", "SOLUSDT", "ETHUSDT"))
    found = asyncio.run(find_fast_symbols("no exchange at all", settings))
    assert found.symbols == ("ETHUSDT", "SOLUSDT") and found.manual and "by hand" in found.sentence


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"min_volume": 1}, "did you mean"),
        ({"min_depth": -1}, "min_depth"),
        ({"min_depth": math.nan}, "min_depth"),
        ({"manual": ("<b>",)}, "manual"),
        ({"max_symbols": 20, "max_candidates": 10}, "max_candidates"),
        ({"refresh_s": 0}, "refresh_s"),
        ({"quote": "usdt"}, "quote"),
    ],
)
def test_bad_settings(values: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        PrefilterSettings(**values)


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="exchange"):
        asyncio.run(find_fast_symbols("binanceusdn"))
    for arguments in ({"settings": {}}, {"on_change": 5}):
        with pytest.raises(InputError, match=next(iter(arguments))):
            Prefilter("binanceusdm", **arguments)  # type: ignore[arg-type]


numbers_or_not = st.floats() | st.floats(0, 1e12) | st.none() | st.just("7") | st.booleans()


@given(
    st.dictionaries(st.sampled_from([f"S{number}USDT" for number in range(9)]), st.lists(numbers_or_not, min_size=5))
)
def test_no_number_however_strange_gets_through(wild: dict[str, list[Any]]) -> None:
    """Against the definition: known and large enough in everything; the mean of ranks decides, then the name."""
    rows = {
        symbol: {
            name: _number(value, -math.inf if name == "change" else 0.0)
            for name, value in zip(CRITERIA, row, strict=False)
        }
        for symbol, row in wild.items()
    }
    found = _ranked(rows, {}, SETTINGS, 0)
    least = {name: getattr(SETTINGS, f"min_{name}") for name in CRITERIA}
    good = {s: row for s, row in rows.items() if all(abs(row[n]) >= least[n] for n in CRITERIA)}  # NaN compares False
    assert set(found.table.index) == set(good) and set(found.left_out) == set(rows) - set(good)

    def rank(symbol: str, name: str) -> float:
        own, all_of_them = abs(good[symbol][name]), [abs(row[name]) for row in good.values()]
        return (sum(v < own for v in all_of_them) + (sum(v == own for v in all_of_them) + 1) / 2) / len(good)

    score = {symbol: sum(rank(symbol, name) for name in CRITERIA) / len(CRITERIA) for symbol in good}
    assert list(found.table["score"]) == pytest.approx(sorted(score.values(), reverse=True))
    assert all(math.isclose(found.table.loc[symbol, "score"], value) for symbol, value in score.items())


@pytest.mark.parametrize(
    "sides",
    [
        {}, {"bids": [[99, 1]]}, {"bids": [[99, 1]], "asks": [[99, 1]]}, {"bids": [[0, 1]], "asks": [[101, 1]]},
        {"bids": [[99, -1]], "asks": [[101, 1]]}, {"bids": [[99, math.nan]], "asks": [[101, 1]]},
        {"bids": [["x", 1]], "asks": [[101, 1]]}, {"bids": [[99]], "asks": [[101, 1]]},
    ],
)  # fmt: skip
def test_a_book_that_cannot_be_one_is_unknown(sides: dict[str, Any]) -> None:
    assert math.isnan(_depth(sides, 0.01))


def test_refreshed_in_a_task_written_to_the_cache_and_kept_through_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aione_lab.live.prefilter.RETRY_S", 0.1)

    async def run() -> None:
        changes: list[tuple[str, ...]] = []
        with Futures({"AAAUSDT": GOOD, "BBBUSDT": GOOD}) as server:
            async with SimpleCacheHandler.embedded(tmp_path / "cache.sqlite") as cache:
                settings = SETTINGS.replace(refresh_s=1.0)
                work = Prefilter(server.ccxt(), settings, cache, on_change=lambda found: changes.append(found.symbols))
                async with work:
                    await until(lambda: work.latest)
                    await until(lambda: changes == [("AAAUSDT", "BBBUSDT")])
                    assert await cache.get_fast_symbols() == ["AAAUSDT", "BBBUSDT"]
                    tickers, server.tickers = server.tickers, []
                    await until(lambda: work.degraded)
                    assert "none of the tickers can be used" in work.degraded
                    assert work.latest is not None and len(work.latest.symbols) == 2
                    server.tickers = tickers[:1]
                    await until(lambda: len(changes) == 2 and not work.degraded)
                    assert await cache.get_fast_symbols() == ["AAAUSDT"] == list(changes[1])

    asyncio.run(run())


def test_a_change_is_told_at_every_look_until_it_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [("AAAUSDT",), *[("BBBUSDT",)] * 4]
    told: list[tuple[str, ...]] = []

    async def found(*_: Any) -> FastSymbols:
        return FastSymbols(lists.pop(0), pd.DataFrame())

    def change(fast: FastSymbols) -> None:
        told.append(fast.symbols)
        if told[1:] and len(told) < 4:
            raise ValueError("not now")

    async def run() -> None:
        work = Prefilter("binanceusdm", on_change=change)
        for refused in (False, True, True, False, False):
            if refused:
                with pytest.raises(ValueError, match="not now"):
                    await work.refresh()
            else:
                await work.refresh()

    monkeypatch.setattr("aione_lab.live.prefilter.find_fast_symbols", found)
    asyncio.run(run())
    assert told == [("AAAUSDT",), *[("BBBUSDT",)] * 3]


def test_an_exchange_that_is_away_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aione_lab.live.prefilter.ATTEMPTS", 1)
    with Futures({"AAAUSDT": GOOD, "BBBUSDT": GOOD}) as server:
        server.faults.append(Fault("status", path="openInterest", status=503, times=99))
        with pytest.raises(ExchangeError, match="open interest") as error:
            found_on(server)
        assert "\n" not in str(error.value)
