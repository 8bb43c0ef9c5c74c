"""The simulated exchange: repeatable, causal, tradable in ticks, like a market, and true to what it says is planted."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aione_lab.errors import InputError
from aione_lab.lake import CANDLE_COLUMNS, Lake, check_candles, check_funding, fingerprint_candles
from aione_lab.lake.simulated import DEFAULT_SYMBOLS, FEE_PER_SIDE, Effect, SimulatedExchange, SymbolSpec, fill

NAMES = [spec.symbol for spec in DEFAULT_SYMBOLS]
PLANTED = [spec.symbol for spec in DEFAULT_SYMBOLS if spec.effect]
NULLS = [spec.symbol for spec in DEFAULT_SYMBOLS if not spec.effect]
DAYS = 45


@pytest.fixture(scope="module")
def exchange() -> SimulatedExchange:
    return SimulatedExchange(seed=11)


@pytest.fixture(scope="module")
def history(exchange: SimulatedExchange) -> dict[str, pd.DataFrame]:
    return {name: exchange.candles(name, days=DAYS) for name in exchange.symbols}


def returns(frame: pd.DataFrame) -> np.ndarray:
    return np.diff(np.log(frame["close"].to_numpy()))


# --- plain twins of the planted rules, from candles alone -----------------------------------------------------


def wilder(values: np.ndarray, first: float) -> np.ndarray:
    out = np.empty(len(values))
    level = first
    for i, value in enumerate(values):
        level = level + (value - level) / 14
        out[i] = level
    return out


def rule(frame: pd.DataFrame, effect: Effect) -> tuple[np.ndarray, np.ndarray]:
    """Direction of the rule at every bar (no memory of earlier signals), and ATR 14."""
    high, low, close, volume = (frame[name] for name in ("high", "low", "close", "volume"))
    before = close.shift()
    true_range = (np.maximum(high, before) - np.minimum(low, before)).to_numpy()[1:]
    spread = high.iloc[0] - low.iloc[0]
    atr = np.append(spread, wilder(true_range, spread))
    past = volume.shift().rolling(50)
    spike = ((volume - past.mean()) / past.std(ddof=0) >= effect.volume_z).to_numpy()
    if effect.kind == "rebound":
        change = close.diff().to_numpy()[1:]
        gain = np.append(0.0, wilder(np.maximum(change, 0), 0.0))
        loss = np.append(0.0, wilder(np.maximum(-change, 0), 0.0))
        rsi = 100 * gain / np.maximum(gain + loss, 1e-300)
        vwap = ((high + low + close) / 3 * volume).rolling(30).sum() / volume.rolling(30).sum()
        fires = spike & (rsi <= effect.rsi) & (close <= vwap - effect.stretch * atr).to_numpy()
        return fires.astype(int), atr
    top, bottom = high.shift().rolling(50).max(), low.shift().rolling(50).min()
    up = ((before <= top) & (close > top)).to_numpy()
    down = ((before >= bottom) & (close < bottom)).to_numpy()
    return np.where(spike, up.astype(int) - down.astype(int), 0), atr


def thinned(direction: np.ndarray, horizon: int) -> np.ndarray:
    """Bars where the rule fires, none within the horizon of the one before it."""
    kept, free = [], 0
    for bar in np.flatnonzero(direction):
        if bar >= free:
            kept.append(bar)
            free = bar + horizon
    return np.array(kept, dtype=int)


def trades(frame: pd.DataFrame, effect: Effect) -> np.ndarray:
    """Gross returns of the oracle: in at the next open with the rule, out at the close after the horizon."""
    direction, _ = rule(frame, effect)
    bars = thinned(direction, effect.horizon)
    bars = bars[bars + effect.horizon < len(frame)]
    entry, leave = frame["open"].to_numpy()[bars + 1], frame["close"].to_numpy()[bars + effect.horizon]
    return direction[bars] * (leave / entry - 1)


def t_value(values: np.ndarray) -> float:
    return float(values.mean() / values.std(ddof=1) * np.sqrt(len(values)))


# --- the same for ever ----------------------------------------------------------------------------------------


def test_same_seed_same_bytes_in_another_process() -> None:
    code = (
        "from aione_lab.lake import fingerprint_candles as f\n"
        "from aione_lab.lake.simulated import SimulatedExchange\n"
        "x = SimulatedExchange(5)\n"
        "print(f(x.candles('SUIUSDT', days=2)), f(x.candles('BTCUSDT', days=2)))"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env=env)
    here = SimulatedExchange(5)
    expected = [fingerprint_candles(here.candles(name, days=2)) for name in ("SUIUSDT", "BTCUSDT")]
    assert run.stdout.split() == expected
    other = SimulatedExchange(6)
    assert fingerprint_candles(other.candles("BTCUSDT", days=2)) != expected[1]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(NAMES),
    offset=st.integers(0, 6 * 1440),
    days=st.integers(1, 5),
    seed=st.integers(0, 2),
)
def test_a_span_depends_on_nothing_asked_for_besides(name: str, offset: int, days: int, seed: int) -> None:
    start = pd.Timestamp("2025-01-01", tz="UTC") + pd.Timedelta(minutes=offset)
    long = SimulatedExchange(seed).candles(name, days=12)
    fresh = SimulatedExchange(seed, [spec for spec in DEFAULT_SYMBOLS if spec.symbol == name])
    part = fresh.candles(name, start=start, days=days)
    pd.testing.assert_frame_equal(part, long.loc[part.index], check_exact=True, check_freq=False)
    assert len(part) == days * 1440 and part.index[0] == start
    funding = fresh.funding(name, start=start, days=days)
    longer = SimulatedExchange(seed).funding(name, days=12)
    pd.testing.assert_series_equal(funding, longer.loc[funding.index], check_exact=True, check_freq=False)
    assert len(funding) == 3 * days


def test_the_order_of_questions_does_not_matter() -> None:
    one, two = SimulatedExchange(1), SimulatedExchange(1)
    first = one.candles("XRPUSDT", days=3)
    two.candles("LINKUSDT", days=6)
    two.candles("XRPUSDT", days=1)
    pd.testing.assert_frame_equal(first, two.candles("XRPUSDT", days=3), check_exact=True)
    first.iloc[:, :] = 0.0  # what a caller does to his frame stays with him
    assert (one.candles("XRPUSDT", days=3).to_numpy() > 0).any(axis=1).all()


def test_candles_without_compilation_are_the_same() -> None:
    code = (
        "import numpy as np, sys\n"
        "from aione_lab.lake.simulated import SimulatedExchange\n"
        "x = SimulatedExchange(3)\n"
        "np.save(sys.argv[1], np.stack([x.candles(s, days=1).to_numpy() for s in ('LINKUSDT', 'SUIUSDT')]))"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "NUMBA_DISABLE_JIT": "1"}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "plain.npy"
        subprocess.run([sys.executable, "-c", code, str(target)], check=True, cwd=root, env=env)
        plain = np.load(target)
    here = SimulatedExchange(3)
    compiled = np.stack([here.candles(name, days=1).to_numpy() for name in ("LINKUSDT", "SUIUSDT")])
    # exp and tanh may differ in their last bit, which can turn the rounding of a tick now and then.
    assert (plain[:, :, :5] == compiled[:, :, :5]).mean() > 0.9999
    np.testing.assert_allclose(plain[:, :, :4], compiled[:, :, :4], rtol=1e-4)


# --- candles an exchange could have sent ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_candles_are_possible(exchange: SimulatedExchange, history: dict[str, pd.DataFrame], name: str) -> None:
    frame, spec = history[name], exchange.spec(name)
    pd.testing.assert_frame_equal(check_candles(frame, "1m"), frame)
    assert tuple(frame.columns) == CANDLE_COLUMNS and not frame.isna().any().any()
    assert len(frame) == DAYS * 1440 and (frame.index.diff()[1:] == pd.Timedelta(minutes=1)).all()
    for column in ("open", "high", "low", "close"):
        ticks = np.round(frame[column] / spec.tick)
        assert (frame[column] == ticks / round(1 / spec.tick)).all()
    for column in ("volume", "taker_buy_volume"):
        lots = np.round(frame[column] / spec.lot)
        assert (frame[column] == lots / round(1 / spec.lot)).all()
    assert (frame["volume"] > 0).all() and (frame["trades"] >= 1).all()
    assert frame["taker_buy_volume"].between(0, frame["volume"]).all()
    paid = frame["quote_volume"] / frame["volume"]
    assert (paid >= frame["low"] * (1 - 1e-12)).all() and (paid <= frame["high"] * (1 + 1e-12)).all()
    gap = ((frame["open"] - frame["close"].shift()) / spec.tick).dropna()
    assert gap.abs().max() < 1.01 and 0.45 < (gap.abs() < 0.5).mean() < 0.55


def test_longer_intervals_add_up(exchange: SimulatedExchange, history: dict[str, pd.DataFrame]) -> None:
    five = exchange.candles("SOLUSDT", "5m", "2025-01-03", 2)
    minutes = history["SOLUSDT"].loc["2025-01-03":"2025-01-04"]
    how = {"open": "first", "high": "max", "low": "min", "close": "last"}
    expected = minutes.resample("5min").agg({name: how.get(name, "sum") for name in CANDLE_COLUMNS})
    pd.testing.assert_frame_equal(five, expected, check_freq=False, check_index_type=False, rtol=1e-12)
    assert len(exchange.candles("SOLUSDT", "8h", days=2)) == 6


def test_funding(exchange: SimulatedExchange, history: dict[str, pd.DataFrame]) -> None:
    rates = exchange.funding("SOLUSDT", days=DAYS)
    assert rates.name == "funding_rate" and len(check_funding(rates)) == 3 * DAYS
    late = rates.index.asi8 % (8 * 3_600_000)
    assert late.max() < 100 and 0.4 < (late == 0).mean() < 0.85
    assert rates.max() <= 1e-4 and rates.min() >= -0.003 and 2e-5 < rates.std() < 2e-4
    # Longs pay after a rise: a stamp's rate goes with the eight hours before it.
    move = np.diff(np.log(history["SOLUSDT"]["close"].to_numpy()[479::480]))
    assert np.corrcoef(move[:-1], rates.to_numpy()[2:])[0, 1] > 0.3
    assert abs(np.corrcoef(move, rates.to_numpy()[1:])[0, 1]) < 0.3  # and says nothing about the eight after
    assert (exchange.funding("BTCUSDT", days=DAYS).index == rates.index).all()


# --- like a market --------------------------------------------------------------------------------------------


def autocorrelation(values: np.ndarray, lag: int) -> float:
    return float(np.corrcoef(values[lag:], values[:-lag])[0, 1])


def figures(frame: pd.DataFrame) -> dict[str, float]:
    high, low, close, volume = (frame[name].to_numpy() for name in ("high", "low", "close", "volume"))
    move = returns(frame)
    size = np.minimum(np.abs(move), np.quantile(np.abs(move), 0.999))
    cut = np.clip(move, *np.quantile(move, [0.0005, 0.9995]))
    log_volume = np.log(volume)
    atr = wilder(np.maximum(high[1:], close[:-1]) - np.minimum(low[1:], close[:-1]), high[0] - low[0]) / close[1:]
    hour = pd.Series(np.abs(move)).groupby(frame.index.hour[1:]).mean()
    past = pd.Series(volume).shift().rolling(50)
    spikes = (volume > past.mean() + 3 * past.std(ddof=0)).mean() * 1440
    return {
        "atr": float(np.median(atr)),
        "atr spread": float(np.quantile(atr, 0.95) / np.median(atr)),
        "kurtosis": float(((cut - cut.mean()) ** 4).mean() / cut.var() ** 2),
        "clustering 1": autocorrelation(size, 1),
        "clustering 60": autocorrelation(size, 60),
        "volume 1": autocorrelation(log_volume, 1),
        "volume 60": autocorrelation(log_volume, 60),
        "volume and range": float(np.corrcoef(np.log(np.maximum(high - low, 1e-12) / close), log_volume)[0, 1]),
        "range over move": float((high - low).mean() / np.abs(close - frame["open"].to_numpy()).mean()),
        "season": float(hour.max() / hour.min()),
        "spikes a day": float(spikes),
    }


BANDS = {
    "atr spread": (1.5, 3.0),
    "kurtosis": (5.0, 18.0),
    "clustering 1": (0.14, 0.33),
    "clustering 60": (0.05, 0.22),
    "volume 1": (0.40, 0.80),
    "volume 60": (0.15, 0.45),
    "volume and range": (0.60, 0.80),
    "range over move": (1.55, 1.95),
    "season": (1.25, 2.9),
    "spikes a day": (35.0, 60.0),
}
MARKETS = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "AVAXUSDT", "ENAUSDT", "XMRUSDT"]


@pytest.mark.parametrize("name", MARKETS)
def test_looks_like_a_market(exchange: SimulatedExchange, history: dict[str, pd.DataFrame], name: str) -> None:
    seen = figures(history[name])
    assert seen["atr"] == pytest.approx(exchange.spec(name).atr, rel=0.3)
    assert {key: seen[key] for key, (lo, hi) in BANDS.items() if not lo <= seen[key] <= hi} == {}


@pytest.mark.parametrize("name", MARKETS)
def test_real_candles_lie_in_the_same_bands(shared: Path, name: str) -> None:
    frame = pd.read_parquet(shared / "candles" / "1m" / f"{name}.parquet").set_index("timestamp")
    seen = figures(frame)
    assert {key: seen[key] for key, (lo, hi) in BANDS.items() if not lo <= seen[key] <= hi} == {}
    spec = {one.symbol: one for one in DEFAULT_SYMBOLS}[name]
    assert seen["atr"] == pytest.approx(spec.atr, rel=0.15)


def test_symbols_move_with_the_market(exchange: SimulatedExchange, history: dict[str, pd.DataFrame]) -> None:
    market = returns(history["BTCUSDT"])
    for name in NAMES[1:]:
        seen = np.corrcoef(market, returns(history[name]))[0, 1]
        assert seen == pytest.approx(exchange.spec(name).correlation, abs=0.16), name
    assert np.corrcoef(market, returns(history["XMRUSDT"]))[0, 1] < 0.4
    quiet = history["USDCUSDT"]["close"]
    assert quiet.between(0.95, 1.05).all()


def test_takers_lean_with_the_move(history: dict[str, pd.DataFrame]) -> None:
    for name in ("BTCUSDT", "SOLUSDT", "1000PEPEUSDT"):
        frame = history[name]
        lean = (2 * frame["taker_buy_volume"] / frame["volume"] - 1).to_numpy()
        assert 0.4 < np.corrcoef(lean[1:], returns(frame))[0, 1] < 0.75
        assert abs(np.corrcoef(lean[1:-1], returns(frame)[1:])[0, 1]) < 0.03  # and says nothing about the next


# --- nothing where nothing is planted -------------------------------------------------------------------------


def robust_t(now: np.ndarray, next_: np.ndarray) -> float:
    product = now * next_
    return float(product.sum() / np.sqrt((product**2).sum()))


@pytest.mark.parametrize("name", [name for name in NULLS if name != "USDCUSDT"])
def test_null_prices_are_martingales(history: dict[str, pd.DataFrame], name: str) -> None:
    frame = history[name]
    close = frame["close"].to_numpy()
    simple = close[1:] / close[:-1] - 1
    assert abs(t_value(simple)) < 3.5
    for step in (1, 5, 15, 60):
        sums = np.add.reduceat(simple, np.arange(0, len(simple) - step, step))
        for lag in (1, 2, 3):
            # A bounce between ticks is real and worth less than a tick; it is the only negative part allowed.
            bounce = 4.0 if step > 1 or lag > 1 else 4.0 + 0.25 * np.sqrt(len(simple)) * frame_bounce(frame)
            assert -bounce < robust_t(sums[lag:], sums[:-lag]) < 4.0, (step, lag)
    imbalance = frame["taker_buy_volume"].to_numpy()[:-1] / frame["volume"].to_numpy()[:-1] - 0.5
    spike = np.log(frame["volume"]).diff().to_numpy()[1:-1]
    assert abs(robust_t(imbalance, simple)) < 4
    assert abs(robust_t(spike * np.sign(simple[:-1]), simple[1:])) < 4


def frame_bounce(frame: pd.DataFrame) -> float:
    """Share of the one-minute variance that rounding to ticks adds."""
    close = frame["close"].to_numpy()
    tick = np.diff(np.unique(close)).min()
    return float(tick**2 / np.diff(close).var())


@pytest.mark.parametrize("name", NULLS)
def test_planted_rules_earn_nothing_on_null_symbols(history: dict[str, pd.DataFrame], name: str) -> None:
    frame = history[name]
    for spec in DEFAULT_SYMBOLS:
        if spec.effect and spec.symbol != "DOTUSDT":
            gross = trades(frame, spec.effect)
            assert len(gross) > 0.25 * DAYS, "the rule must have had its chances"
            assert abs(t_value(gross)) < 3.5
            assert t_value(gross - 2 * FEE_PER_SIDE) < 2.5


# --- and what is planted is there -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANTED)
def test_events_are_the_stated_rule_and_nothing_else(
    exchange: SimulatedExchange, history: dict[str, pd.DataFrame], name: str
) -> None:
    frame = history[name]
    effect = exchange.truth(name).effect
    assert effect is not None
    direction, _ = rule(frame, effect)
    bars = thinned(direction, effect.horizon)
    events = exchange.events(name, days=DAYS)
    assert frame.index.get_indexer(events.index).tolist() == bars.tolist()
    assert events.tolist() == direction[bars].tolist()
    part = exchange.events(name, "2025-01-10", 5)
    pd.testing.assert_series_equal(part, events.loc["2025-01-10":"2025-01-14"], check_freq=False)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_effect_pays_after_costs(
    exchange: SimulatedExchange, history: dict[str, pd.DataFrame], name: str
) -> None:
    frame, truth = history[name], exchange.truth(name)
    assert truth.effect is not None and truth.net is not None and truth.per_day is not None
    net = trades(frame, truth.effect) - 2 * FEE_PER_SIDE
    error = net.std(ddof=1) / np.sqrt(len(net))
    assert t_value(net) > 3
    assert abs(net.mean() - truth.net) < 4 * error + 0.1 * truth.net
    assert 0.6 * truth.per_day < len(net) / DAYS < 1.6 * truth.per_day
    # In its own measure: the move in ATRs of the signal bar is the stated one.
    direction, atr = rule(frame, truth.effect)
    bars = thinned(direction, truth.horizon)
    bars = bars[bars + truth.horizon < len(frame)]
    close = frame["close"].to_numpy()
    moved = direction[bars] * (close[bars + truth.horizon] - close[bars]) / atr[bars]
    assert abs(moved.mean() - truth.gross_atr) < 3.5 * moved.std(ddof=1) / np.sqrt(len(moved)) + 0.05 * truth.gross_atr


@pytest.mark.parametrize("name", PLANTED)
def test_planted_symbols_have_no_long_run_drift(history: dict[str, pd.DataFrame], name: str) -> None:
    close = history[name]["close"].to_numpy()[::60]
    assert abs(t_value(close[1:] / close[:-1] - 1)) < 3.5


def test_nothing_else_is_planted_outside_the_horizon(
    exchange: SimulatedExchange, history: dict[str, pd.DataFrame]
) -> None:
    name = "SUIUSDT"
    horizon = exchange.truth(name).horizon
    events = exchange.events(name, days=DAYS)
    frame = history[name]
    busy = np.zeros(len(frame), bool)
    for bar in frame.index.get_indexer(events.index):
        busy[bar + 1 : bar + 1 + horizon] = True
    simple = frame["close"].pct_change().to_numpy()
    calm = ~busy[1:] & ~busy[:-1]
    calm[0] = False
    now, before = simple[1:][calm], simple[:-1][calm]
    good = np.isfinite(now) & np.isfinite(before)
    assert abs(robust_t(before[good], now[good])) < 4


def test_truth_says_so_for_every_symbol(exchange: SimulatedExchange) -> None:
    for name in NAMES:
        truth = exchange.truth(name)
        assert truth.symbol == name and (truth.effect is not None) == (name in PLANTED)
        assert (truth.gross_atr > 0 and "ATR" in truth.rule) if truth.effect else "nothing" in truth.rule
        assert truth.effect is not None or exchange.events(name, days=3).empty
    own = SymbolSpec(**{**exchange.spec("LINKUSDT").model_dump(), "price": 25.0})
    assert SimulatedExchange(0, [own]).truth("LINKUSDT").net is None


@pytest.mark.long
def test_stated_worth_is_the_mean_over_seeds() -> None:
    for name in PLANTED:
        truth = SimulatedExchange(0).truth(name)
        assert truth.effect is not None and truth.net is not None and truth.per_day is not None
        means, counts = [], []
        for seed in range(100, 124):
            net = trades(SimulatedExchange(seed).candles(name, days=90), truth.effect) - 2 * FEE_PER_SIDE
            means.append(net.mean())
            counts.append(len(net) / 90)
        assert np.mean(means) == pytest.approx(truth.net, rel=0.08)
        assert np.mean(counts) == pytest.approx(truth.per_day, rel=0.08)


# --- into the lake, and bad input -----------------------------------------------------------------------------


def test_fill(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    done = fill(lake, days=2, symbols=["BTC/USDT:USDT", "linkusdt"], seed=4)
    assert {name: one.rows_new for name, one in done.items()} == {"BTCUSDT": 2880, "LINKUSDT": 2880}
    assert sorted(lake.symbols("1m")) == ["BTCUSDT", "LINKUSDT"]
    source = SimulatedExchange(4)
    pd.testing.assert_frame_equal(lake.candles("LINKUSDT", "1m"), source.candles("LINKUSDT", days=2), check_exact=True)
    pd.testing.assert_series_equal(lake.funding("BTCUSDT"), source.funding("BTCUSDT", days=2), check_exact=True)
    more = fill(lake, days=3, symbols=["BTCUSDT"], seed=4)["BTCUSDT"]
    assert (more.rows_new, more.rows_same, more.rows_revised) == (1440, 2880, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"symbols": ["BTCUSDT", "LINKUSD"]}, "did you mean 'LINKUSDT'"),
        ({"symbols": ["../../x"]}, "symbol='../../x'"),
        ({"symbols": "BTCUSDT"}, "symbols='BTCUSDT'"),
        ({"symbols": []}, "symbols=[]"),
        ({"days": 0}, "days=0"),
        ({"days": 1.5}, "days=1.5"),
        ({"days": 10_000}, "days=10000"),
        ({"start": "2024-12-31"}, "from 2025-01-01 on"),
        ({"start": "2025-01-01T00:00:30"}, "whole interval"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": True}, "seed=True"),
    ],
)
def test_fill_refuses_before_it_writes(tmp_path: Path, arguments: dict[str, object], words: str) -> None:
    root = tmp_path / "lake"
    with pytest.raises(InputError, match="^[^\n]+$") as caught:
        fill(Lake(root), **{"days": 1, **arguments})  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert not root.exists() or not list(root.rglob("*.parquet"))


def test_bad_questions(exchange: SimulatedExchange) -> None:
    with pytest.raises(InputError, match="interval='7m'"):
        exchange.candles("BTCUSDT", "7m")
    with pytest.raises(InputError, match="unknown"):
        exchange.funding("NOPEUSDT")
    with pytest.raises(InputError, match="whole interval"):
        exchange.candles("BTCUSDT", "1h", "2025-01-01T00:30")
    with pytest.raises(InputError, match="listed twice"):
        SimulatedExchange(0, [DEFAULT_SYMBOLS[0], DEFAULT_SYMBOLS[0]])
    with pytest.raises(InputError, match="at least one"):
        SimulatedExchange(0, [])
    with pytest.raises(ValidationError, match="one divided by a whole number"):
        SymbolSpec(symbol="AUSDT", price=1, tick=0.3, lot=1, atr=0.001, correlation=0.5, turnover=1e5)


def test_arguments_of_the_wrong_kind_are_named(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    for call, told in (
        (lambda: SimulatedExchange(symbols=5), "^symbols=5"),
        (lambda: SimulatedExchange(symbols=None), "^symbols=None"),
        (lambda: SimulatedExchange(symbols=["BTCUSDT"]), "^symbols='BTCUSDT': must be a SymbolSpec"),
        (lambda: SimulatedExchange(seed=np.int64(-1)), "^seed="),
        (lambda: fill("x", days=1), "^lake='x'"),
        (lambda: fill(lake, days=1, symbols=5), "^symbols=5"),
    ):
        with pytest.raises(InputError, match=told):
            call()
    assert SimulatedExchange(np.int64(3)).seed == 3
