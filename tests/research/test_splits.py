"""Splits: sums and rates by hand, a planted difference is found, and luck is not taken for an hour to trade in."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from aione_lab.backtest import replay
from aione_lab.backtest.alone import trade_alone
from aione_lab.engine import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.research import clusters
from aione_lab.research.splits import GROUPS, split_frame, splits
from aione_lab.settings import Settings
from aione_lab.thresholds import Thresholds
from tests.custom_examples import SQUEEZE_RELEASE

EVERY = tuple(GROUPS)


def planted(seed: int, edge: float = 0.0, n_days: int = 35, a_day: int = 15) -> pd.DataFrame:
    """Trades of two symbols; days and hours of a day go well or badly as a whole; hour 13 pays ``edge`` more."""
    random = np.random.default_rng(seed)
    days = np.repeat(np.arange(n_days), random.poisson(a_day, n_days) + 1)
    minutes = random.integers(0, 1440, len(days))
    hours = minutes // 60
    symbols = random.choice(["AUSDT", "BUSDT"], len(days), p=[0.3, 0.7])
    r = (
        random.normal(0, 1.2, len(days))
        + random.normal(0, 0.5, n_days)[days]
        + random.normal(0, 0.7, (n_days, 24))[days, hours]
        - 0.6 * (symbols == "AUSDT")
        + edge * (hours == 13)
    )
    moods = random.normal(0, 1, n_days)[days] + random.normal(0, 0.5, len(days))
    held = random.uniform(size=(len(days), 4)) < [0.6, 0.4, 0.2, 0.1]
    reasons = np.empty(len(days), dtype=object)
    reasons[:] = [tuple(np.array(GROUPS["reason"][:4])[row]) for row in held]
    frame = pd.DataFrame(
        {
            "r_multiple": r,
            "pnl": 50 * r,
            "symbol": symbols,
            "volatility": np.where(moods > 0.5, "HIGH", np.where(moods < -0.5, "LOW", "NORMAL")),
            "reasons": reasons,
        },
        index=pd.Timestamp("2025-05-05", tz="UTC") + pd.to_timedelta(days * 1440 + minutes, unit="min"),
    )
    return frame.sort_index()


def split_planted(frame: pd.DataFrame, names: list[str], seed: int, n_draws: int = 200):
    exposures = {name: dict.fromkeys(GROUPS[name], 1.0) for name in names}
    return split_frame(frame, names, exposures, of="trades", n_draws=n_draws, random=np.random.default_rng(seed))


@pytest.mark.parametrize("n", [40, pytest.param(100, marks=pytest.mark.long)])
def test_luck_is_called_luck_as_often_as_promised(n: int) -> None:
    """Every p-value is at most as often small as it says; taking trades as independent fails this."""
    names = ["hour", "weekday", "volatility", "reason"]
    refused, family, naive = np.zeros(len(names)), 0, 0
    for seed in range(n):
        frame = planted(seed)
        study = split_planted(frame, names, seed)
        refused += study.tests["p_value"].to_numpy() <= 0.05
        family += bool((study.tests["q_value"] <= 0.05).any())
        assert study.sentence.startswith("Nothing is distinguishable") == bool((study.tests["q_value"] > 0.05).all())
        parts = [part["r_multiple"] for _, part in frame.groupby("volatility")]
        naive += stats.kruskal(*parts).pvalue <= 0.05
    most = stats.binom.ppf(0.999, n, 0.05)
    assert refused.max() <= most and family <= most < naive


def test_a_planted_hour_is_found() -> None:
    for seed in range(10):
        study = split_planted(planted(seed, edge=3.0, a_day=40), ["hour", "weekday"], seed)
        assert study.tests.loc["hour", "q_value"] <= 0.05
        assert "differ by hour" in study.sentence and "13 +" in study.sentence
        table = study.tables["hour"]
        assert table["expectancy_r"].idxmax() == "13" and table.loc["13", "expectancy_r_low"] > 0
        assert "not yet tried" in study.sentence and "hour 13" in study.sentence


def test_a_symbol_is_not_taken_for_a_regime() -> None:
    """One symbol is mostly volatile and loses more: between symbols, not between regimes."""
    refused = 0
    for seed in range(40):
        frame = planted(seed)
        mostly = np.random.default_rng(seed).uniform(size=len(frame)) < 0.9
        frame["volatility"] = np.where((frame["symbol"] == "AUSDT") == mostly, "HIGH", "NORMAL")
        study = split_planted(frame, ["volatility"], seed)
        refused += bool(study.tests.loc["volatility", "p_value"] <= 0.05)
    assert refused <= stats.binom.ppf(0.999, 40, 0.05)
    frame["volatility"] = np.where(frame["symbol"] == "AUSDT", "HIGH", "NORMAL")
    assert math.isnan(split_planted(frame, ["volatility"], 0).tests.loc["volatility", "p_value"])


def test_the_statistic_is_that_of_kruskal_and_wallis_on_ranks() -> None:
    frame = planted(4)
    ranks = frame["r_multiple"].rank().to_numpy()
    labels = frame["volatility"].to_numpy()
    member = labels[:, None] == np.array(["LOW", "NORMAL", "HIGH"])
    days, n_days = clusters.day_codes(frame.index)
    flips = clusters.signs(n_days, 50, np.random.default_rng(0))
    statistic, _ = clusters.groups_p(ranks, member, days, np.zeros(len(ranks)), flips)
    expected = stats.kruskal(*(frame["r_multiple"][labels == name] for name in ("LOW", "NORMAL", "HIGH"))).statistic
    assert statistic * (len(ranks) - 1) / len(ranks) == pytest.approx(expected)
    weekdays = frame.index.day_of_week.to_numpy()[:, None] == np.arange(7)
    dealt, _ = clusters.permuted_days_p(ranks, weekdays, days, np.zeros(len(ranks)), 20, np.random.default_rng(0))
    assert dealt == pytest.approx(clusters.groups_p(ranks, weekdays, days, np.zeros(len(ranks)), flips)[0])


def test_tables_add_up(replays) -> None:
    for of in ("trades", "alerts"):
        study = splits(replays, EVERY, of, n_draws=50)
        if of == "trades":
            trades = pd.concat([one.trades for one in replays])
        else:
            alone = pd.concat([trade_alone(one) for one in replays])
            trades = alone[alone["pnl"].notna()]
        for name in set(EVERY) - {"reason"}:
            table = study.tables[name]
            assert table["count"].sum() == len(trades)
            assert table["share"].sum() == pytest.approx(1)
            assert table["net_pnl"].sum() == pytest.approx(trades["pnl"].sum())
            assert list(table.index) == [group for group in GROUPS[name] if group in table.index]
            if name != "side":
                warm = sum(one.metrics["warm_days"] for one in replays)
                assert table["days"].sum() == pytest.approx(warm, rel=0.01)
                assert (table["rate"] * table["days"]).sum() == pytest.approx(len(trades))
        assert study.table["count"].sum() > len(trades) * (len(EVERY) - 1)


def test_own_triggers_are_reasons_too(replays) -> None:
    """A trigger that a spec declares is a group like the others; its days are those of the replays that have it."""
    frame = pd.DataFrame(replays[0].bars, index=replays[0].index)
    spec = FeatureSpec(triggers=(SQUEEZE_RELEASE,))
    own = replay(frame[["open", "high", "low", "close", "volume"]], replays[0].thresholds, spec=spec)
    for of in ("trades", "alerts"):
        table = splits([own, replays[0]], "reason", of, n_draws=50).tables["reason"]
        assert list(table.index) == [*GROUPS["reason"], "SQUEEZE_RELEASE"]
        row = table.loc["SQUEEZE_RELEASE"]
        assert row["days"] == pytest.approx(table["days"].max() / 2, rel=0.02)
        trades = own.trades if of == "trades" else trade_alone(own)
        reasons = own.signals["trigger_reasons"]
        if of == "trades":
            held = reasons.reindex(trades["signal_time"])
        else:
            held = trades.loc[trades["pnl"].notna(), "reasons"]
        assert row["count"] == sum("SQUEEZE_RELEASE" in names for names in held) > 0
    assert "SQUEEZE_RELEASE" not in splits(replays, "reason", n_draws=50).tables["reason"].index


def test_one_row_by_hand(replays) -> None:
    result = replays[0]
    trades, alerts = result.trades.set_index("signal_time"), result.alerts
    chosen = trades[alerts.loc[trades.index, "trend"].to_numpy() == "UPTREND"]
    row = splits(result, "trend").tables["trend"].loc["UPTREND"]
    assert row["count"] == len(chosen) > 3
    assert row["win_rate"] == pytest.approx((chosen["pnl"] > 0).mean())
    assert row["expectancy_r"] == pytest.approx(chosen["r_multiple"].mean())
    assert row["expectancy"] == pytest.approx(chosen["pnl"].mean())
    assert row["expectancy_low"] < row["expectancy"] < row["expectancy_high"]
    features = result.features
    rising = ((features["trend_1"].fillna(0) + features["trend_2"].fillna(0)) > 0) & (features["warm"] == 1)
    assert row["days"] == pytest.approx(rising.sum() / 1440, rel=0.01)
    reasons = result.signals["trigger_reasons"].loc[trades.index]
    spikes = splits(result, "reason").tables["reason"].loc["VOLUME_SPIKE", "count"]
    assert spikes == sum("VOLUME_SPIKE" in held for held in reasons)


def test_thin_hours_come_with_sessions(replays) -> None:
    assert list(splits(replays[0], "hour", n_draws=20).tests.index) == ["hour", "session"]
    assert list(splits(replays[0], ["weekday", "weekday"], n_draws=20).tests.index) == ["weekday"]


def test_shorts_are_a_side(replays) -> None:
    result = replay(replays[0].candles, Thresholds(min_confidence=0.5), settings=Settings(allow_shorts=True))
    table = splits(result, ["side", "correlation"], n_draws=50).tables
    assert list(table["side"].index) == ["LONG", "SHORT"] and (table["side"]["count"] > 0).all()
    assert list(table["correlation"].index) == ["UNKNOWN"]


def test_repeatable_and_drawn(replays) -> None:
    one, two = splits(replays, EVERY, n_draws=50, seed=3), splits(replays, EVERY, n_draws=50, seed=3)
    assert one.table.equals(two.table) and one.tests.equals(two.tests)
    for theme in ("light", "dark"):
        figure = one.plot(theme)
        assert len(figure.data) == len(EVERY)
        assert sum("adjusted p" in note.text or "nothing" in note.text for note in figure.layout.annotations) == len(
            EVERY
        )
    for names in (["weekday"], ["weekday", "trend"], ["reason", "trend", "hour"], ["trend", "side", "weekday"]):
        assert len(splits(replays, names, n_draws=20).plot().data) >= len(names)


def test_of_too_little(replays) -> None:
    short = replay(replays[0].candles[:3000], Thresholds(min_confidence=0.5), symbol="SOLUSDT")
    study = splits(short, n_draws=20)
    assert study.table["count"].sum() and "too few" in study.sentence
    study.plot()
    none = splits(replay(replays[0].candles[:3000], Thresholds(min_reasons_for_alert=11)), EVERY, "alerts", n_draws=20)
    assert "nothing to split" in none.sentence and none.tests["p_value"].isna().all()
    assert none.table["net_pnl"].eq(0).all() and math.isnan(none.table["win_rate"].iloc[0])
    none.plot()
    cold = splits(replay(replays[0].candles[:300]), n_draws=20)
    assert not len(cold.table) and "nothing" in cold.sentence
    cold.plot()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"by": ()}, "by="),
        ({"by": "hours"}, "did you mean 'hour'"),
        ({"by": [3]}, "by=3"),
        ({"by": None}, "by=None"),
        ({"of": "signals"}, "of='signals'"),
        ({"n_draws": 0}, "n_draws=0"),
        ({"seed": -1}, "seed=-1"),
        ({"result": "SOLUSDT"}, "result="),
    ],
)
def test_bad_arguments_are_named(replays, arguments: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        splits(**{"result": replays[0], **arguments})
