"""Does the confidence mean anything, and what did the gates keep out? Every alert traded alone, net of costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aione_lab.research.alerts import Results, alone_frame, several
from aione_lab.research.arguments import whole
from aione_lab.research.clusters import (
    association_p,
    band,
    day_codes,
    day_sums,
    drawn_days,
    false_discovery,
    share_band,
    signs,
)
from aione_lab.research.forecast import CHANCE, Forecast, score_forecast

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from aione_lab.figures.theme import Theme

TAKEN = ("BUY", "SELL")
FEW_ALERTS = 100
FEW_DAYS = 10
"""Below these nothing is said about skill: bins would hold a handful, and days are what the bands are made of."""

GATE_COLUMNS = (
    "count", "win_rate", "win_rate_low", "win_rate_high", "mean_r", "mean_r_low", "mean_r_high",
    "mean_return", "mean_return_low", "mean_return_high", "saved_r", "saved_r_low", "saved_r_high",
    "difference_r", "difference_r_low", "difference_r_high", "p_value", "q_value",
)  # fmt: skip


@dataclass(frozen=True)
class Reliability:
    """What stated confidence was worth, and what each gate saved or cost.

    ``trades`` are the closed trades of alerts traded alone (`trade_alone`, with ``symbol``), ``left_out`` the number of
    alerts without one. ``curve`` and ``summary`` are those of `score_forecast`, for ``confidence`` and for ``score``
    (below 0 taken as 0), on a first index level ``of``.

    ``gates`` has a row a (recommendation, rule that decided), those that call for a trade first, and a row ``all`` for
    what was turned down together: ``count``, ``win_rate``, ``mean_r`` and ``mean_return`` (a share of the notional)
    net of costs, with 95 % bands; ``saved_r`` = −(sum of R): what not trading them saved (+) or cost (−);
    ``difference_r`` = mean R less that of the alerts that were taken, with the p-value of "no difference" and its
    Benjamini–Hochberg adjustment over the rules. Bands and p-values allow for dependence within UTC days.
    """

    trades: pd.DataFrame
    left_out: int
    n_days: int
    curve: pd.DataFrame
    summary: pd.DataFrame
    gates: pd.DataFrame
    sentence: str

    def plot(self, theme: Theme = "light") -> go.Figure:
        """Reliability diagram of the confidence: observed against stated, and how often each was stated."""
        from aione_lab.figures.reliability import reliability_chart

        curve = self.curve[self.curve.index.get_level_values("of") == "confidence"]
        title = "Reliability of the confidence: alerts traded alone, net of costs"
        return reliability_chart(curve, self.trades["confidence"], title=title, theme=theme)

    def plot_gates(self, theme: Theme = "light") -> go.Figure:
        """Mean result of what each rule let through or turned down."""
        from aione_lab.figures.reliability import gates_chart

        return gates_chart(self.gates, title="What each gate let through or kept out, net of costs", theme=theme)


def reliability(result: Results, *, bins: int = 10, n_boot: int = 2000, seed: int = 0) -> Reliability:
    """Hold the confidence of all alerts against what they would have made, each traded alone, net of costs.

    ``result`` is one Result or a list of them, pooled; symbols share their days. ``bins`` of about equal count for the
    curve, ``n_boot`` draws of days, integer ``seed`` from 0. A win is a trade with a net gain. Trades may reach into
    the next day and overlap: days are taken as independent all the same. Raises InputError for what cannot be used.
    """
    results = several(result)
    bins = whole("bins", bins, 2, 1000)
    n_boot = whole("n_boot", n_boot, 1, 100_000)
    seed = whole("seed", seed, 0, 2**63)
    trades, left_out = alone_frame(results)
    days, n_days = day_codes(pd.DatetimeIndex(trades.index))
    won, r = trades["pnl"].to_numpy() > 0, trades["r_multiple"].to_numpy()
    forecasts = {
        name: score_forecast(
            np.clip(trades[name].to_numpy(), 0.0, 1.0), won, r, days, bins=bins, n_boot=n_boot, seed=seed
        )
        for name in ("confidence", "score")
    }
    gates = gate_table(trades, days, n_days, n_boot=n_boot, seed=seed)
    return Reliability(
        trades,
        left_out,
        n_days,
        pd.concat({name: forecast.curve for name, forecast in forecasts.items()}, names=["of"]),
        pd.concat({name: forecast.measures for name, forecast in forecasts.items()}, names=["of"]),
        gates,
        _sentence(forecasts["confidence"], gates),
    )


def gate_table(trades: pd.DataFrame, days: np.ndarray, n_days: int, *, n_boot: int, seed: int) -> pd.DataFrame:
    """The ``gates`` of a `Reliability` from its ``trades``, whose days are numbered in ``days`` (n,)."""
    random = np.random.default_rng(seed)
    weights, flips = drawn_days(n_days, n_boot, random), signs(n_days, n_boot, random)
    taken = trades["recommendation"].isin(TAKEN).to_numpy()
    pairs = pd.MultiIndex.from_frame(trades[["recommendation", "detail"]])
    order = sorted(set(pairs), key=lambda pair: (pair[0] not in TAKEN, pair))
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for pair in order:
        rows[pair] = _gate(trades, (pairs == pair), taken, days, weights, flips)
    if (~taken).any():
        rows["turned down", "all"] = _gate(trades, ~taken, taken, days, weights, flips)
    index = pd.MultiIndex.from_tuples(list(rows), names=["recommendation", "detail"]) if rows else pairs[:0]
    frame = pd.DataFrame(list(rows.values()), index=index, columns=list(GATE_COLUMNS))
    rules = frame.index.get_level_values("detail") != "all"
    frame.loc[rules, "q_value"] = false_discovery(frame.loc[rules, "p_value"])
    return frame.astype({"count": np.int64})


def _gate(
    trades: pd.DataFrame,
    chosen: np.ndarray,
    taken: np.ndarray,
    days: np.ndarray,
    weights: np.ndarray,
    flips: np.ndarray,
) -> dict[str, Any]:
    r = trades["r_multiple"].to_numpy()
    known = np.isfinite(r)
    row: dict[str, Any] = {"count": int(chosen.sum())}
    won = trades["pnl"].to_numpy()[chosen] > 0
    row["win_rate"], (row["win_rate_low"], row["win_rate_high"]) = float(won.mean()), share_band(won, days[chosen])
    mean, draws, total = _mean_draws(r, chosen & known, days, weights)
    row["mean_r"], (row["mean_r_low"], row["mean_r_high"]) = mean, band(draws)
    row["saved_r"] = -float(r[chosen & known].sum())
    row["saved_r_low"], row["saved_r_high"] = band(-total)
    mean_return, return_draws, _ = _mean_draws(trades["return"].to_numpy(), chosen, days, weights)
    row["mean_return"], (row["mean_return_low"], row["mean_return_high"]) = mean_return, band(return_draws)
    row |= dict.fromkeys(("difference_r", "difference_r_low", "difference_r_high", "p_value", "q_value"), math.nan)
    if not (chosen & taken).any() and (taken & known).any():
        base, base_draws, _ = _mean_draws(r, taken & known, days, weights)
        row["difference_r"] = mean - base
        row["difference_r_low"], row["difference_r_high"] = band(draws - base_draws)
        both = (chosen | taken) & known
        row["p_value"] = association_p(chosen[both].astype(np.float64), r[both], days[both], flips)
    return row


def _mean_draws(
    values: np.ndarray, chosen: np.ndarray, days: np.ndarray, weights: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """(mean of the chosen, the mean in each draw of days, the sum in each)."""
    n_days = weights.shape[1]
    total = weights @ day_sums(values[chosen], days[chosen], n_days)
    count = weights @ np.bincount(days[chosen], minlength=n_days).astype(np.float64)
    mean = float(values[chosen].mean()) if chosen.any() else math.nan
    return mean, np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0), total


def _sentence(forecast: Forecast, gates: pd.DataFrame) -> str:
    n, n_days = forecast.n, forecast.n_days
    if not n:
        return "No alert could be traded to its end, so there is nothing to judge."
    base = forecast.measure("base_rate")
    text = (
        f"Traded alone, net of costs, {base:.0%} of {n:,} alerts on {n_days} {'day' if n_days == 1 else 'days'} "
        "made a gain"
    )
    if n < FEW_ALERTS or n_days < FEW_DAYS:
        return f"{text}: too few to judge the confidence (at least {FEW_ALERTS} on {FEW_DAYS} days are wanted)."
    return " ".join(part for part in (f"{text}.", _worth(forecast), _kept_out(gates)) if part)


def _worth(forecast: Forecast) -> str:
    area, low, high = (forecast.measure("auc", column) for column in ("value", "low", "high"))
    p_value = forecast.measure("auc", "p_value")
    how = {
        "right": "A higher confidence goes with more gains",
        "inverted": "A higher confidence goes with fewer gains, the wrong way round",
        "none": "The confidence cannot be told from an empty number: it does not rank gains before losses",
        "": "All alerts ended alike or were stated alike, so the confidence cannot be judged",
    }[forecast.ranking]
    if not forecast.ranking:
        return f"{how}."
    text = f"{how} (AUC {area:.3f}, 95 % band {low:.3f} to {high:.3f}, p = {p_value:.3f})"
    if forecast.ranking == "right" and area < 0.55:
        text += ", but barely"
    skill, stated, base = (forecast.measure(name) for name in ("skill", "stated", "base_rate"))
    if forecast.calibrated:
        text += f", and as a probability it agrees with what came true (Brier skill {skill:+.2f})."
    else:
        text += (
            f"; read as a probability of a gain it is wrong: {stated:.0%} stated on average, {base:.0%} came true "
            f"(Brier skill against the plain average {skill:+.2f})."
        )
    rho, p_value = forecast.measure("rank_correlation"), forecast.measure("rank_correlation", "p_value")
    if p_value <= CHANCE and (forecast.ranking == "none" or (rho > 0) != (area > 0.5)):
        text += f" In R, higher confidence goes with {'better' if rho > 0 else 'worse'} results"
        text += (
            f" (rank correlation {rho:+.2f}, p = {p_value:.3f}); what costs are against the stops may be part of that."
        )
    return text


def _kept_out(gates: pd.DataFrame) -> str:
    """What the gates saved or cost together, and which of them turned down other alerts than they let through."""
    taken = gates.index.get_level_values("recommendation").isin(TAKEN)
    total = gates[gates.index.get_level_values("detail") == "all"]
    if not len(total):
        return ""
    row = total.iloc[0].to_dict()
    text = (
        f"The {row['count']:,.0f} alerts that were turned down would have made {row['mean_r']:+.2f} R each "
        f"(95 % band {row['mean_r_low']:+.2f} to {row['mean_r_high']:+.2f})"
    )
    if not taken.any():
        return f"{text}; none was recommended."
    bought = gates[taken]
    mean = float(np.average(bought["mean_r"], weights=bought["count"]))
    text += f", the {int(bought['count'].sum()):,} recommended ones {mean:+.2f} R"
    judged = gates[np.isfinite(gates["q_value"])]
    found = judged[judged["q_value"] <= CHANCE]
    if not len(found):
        saves = ": turning them down saved no more than not trading does" if row["mean_r_high"] < 0 and mean < 0 else ""
        return f"{text}{saves}. No gate can be shown to keep out worse alerts than it lets through."
    words = [
        f"{detail} ({record['difference_r']:+.2f} R against the recommended ones)"
        for (_, detail), record in zip(found.index, found.to_dict("records"), strict=True)
    ]
    return f"{text}; told apart from these are those turned down for {', '.join(words)}."
