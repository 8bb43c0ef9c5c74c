"""Threshold sets side by side on the same candles: metrics, and whether their differences are more than scatter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from aione_lab.backtest.metrics import daily_equity, daily_returns
from aione_lab.backtest.result import Result
from aione_lab.engine.params import check_kind
from aione_lab.errors import InputError
from aione_lab.research.arguments import finite_series, inner_share, whole
from aione_lab.units import DAY_MS

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from aione_lab.figures.theme import Theme

FEWEST_DAYS = 10
"""Below this many UTC days there are no two independent blocks to resample."""

MOST_DRAWS = 100_000
_CHUNK = 2_000_000  # numbers held at once, whatever the number of draws

METRICS = (
    "n_alerts",
    "n_trades",
    "net_pnl",
    "total_return",
    "expectancy",
    "expectancy_low",
    "expectancy_high",
    "win_rate",
    "profit_factor",
    "max_drawdown",
    "sharpe",
    "fees",
    "final_equity",
)
"""Rows of ``Result.metrics`` that are set side by side; the Sharpe ratio is annual, money is quote currency."""


@dataclass(frozen=True)
class Comparison:
    """Replays of the same candles side by side, and each one's difference to the baseline."""

    baseline: str
    level: float
    n_boot: int
    n_days: int
    block_days: float  # mean length of the blocks that were resampled
    table: pd.DataFrame  # one row a metric, one column a replay
    differences: pd.DataFrame  # one row a replay but the baseline, see ``compare``
    equity: pd.DataFrame  # at the last bar of each UTC day, one column a replay

    @property
    def sentence(self) -> str:
        """Which differences are more than scatter, and whether anything made money, in plain words."""
        d, base = self.differences, repr(self.baseline)
        wanted = 1 - self.level
        real = d[d["p_adjusted"] <= wanted]
        days = f"Over {self.n_days:,} days"
        if not d[["daily_return", "low", "high"]].to_numpy().any():
            text = f"{days} {_listed([str(name) for name in d.index])} earned the same as {base} on every day."
        elif len(d) == 1:
            name, row = str(d.index[0]), d.iloc[0]
            more = "more" if row["daily_return"] > 0 else "less"
            text = (
                f"{days} {name!r} earned {abs(row['daily_return']):.3%} of its equity a day {more} than {base} "
                f"({self.level:.0%} band {row['low']:+.3%} to {row['high']:+.3%}, p = {row['p_value']:.3f}): "
            )
            text += "more than scatter explains." if len(real) else "not more than scatter explains."
        else:
            better = [str(name) for name in real.index[real["daily_return"] > 0]]
            worse = [str(name) for name in real.index[real["daily_return"] < 0]]
            text = (
                f"{days} {_listed(better)} did better than {base} and {_listed(worse)} worse, by more than scatter "
                f"explains and after correction for {len(d)} comparisons; the others cannot be told from it."
                if len(real)
                else f"{days} none of the {len(d)} others can be told from {base}, after correction for their number."
            )
        net = self.table.loc["net_pnl"].to_numpy(dtype=float)
        gains, n = int((net > 0).sum()), len(net)
        money = "Nothing made money" if not gains else "All made money" if gains == n else f"{gains} of {n} made money"
        return f"{text} {money} after costs."

    def plot(self, theme: Theme = "light") -> go.Figure:
        """Equity of every replay, and the differences to the baseline with their bands."""
        from aione_lab.figures.compare import comparison_chart

        return comparison_chart(self.equity, self.differences, baseline=self.baseline, level=self.level, theme=theme)


def compare(
    results: Mapping[str, Result],
    baseline: str | None = None,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Set replays of the same candles side by side and ask whether they differ from ``baseline`` (None: the first).

    ``differences`` has one row a replay: ``daily_return`` is the mean over UTC days of its return less the baseline's
    (shares of equity), ``low`` and ``high`` its percentile band, ``p_value`` two-sided (no difference, both days'
    returns paired), ``p_adjusted`` the same after Benjamini and Hochberg (1995), which holds the share of false finds
    among all that are called different; ``final_equity`` is the difference at the end in quote currency.

    Days are resampled by the stationary bootstrap (Politis, Romano 1994) with blocks of random length, so that what
    clusters stays together; all replays get the same days. The mean length is that of Politis and White (2004, with the
    correction of 2009) for the difference that needs the longest. Few blocks make a bootstrap too sure, so the draws
    are widened about their mean as Student's t is against the normal. Of series without a difference this calls 4 to
    7 % different at a level of 0.95 (14 to 365 independent fat-tailed days), and 9 to 13 % where a difference carries
    over to the next day by 0.3. Days of warm-up count, with 0 for everyone.

    Raises InputError for fewer than two replays, other candles or intervals, fewer than ten days, an unknown baseline,
    and a number that is none. The same ``seed`` gives the same answer.
    """
    names = _checked(results)
    base = names[0] if baseline is None else baseline
    if base not in names:
        raise InputError.unknown("baseline", base, names)
    n_boot, level = whole("n_boot", n_boot, 100, MOST_DRAWS), inner_share("level", level)
    seed = whole("seed", seed, 0)
    records = {name: results[name].signal_records for name in names}
    closes = {name: daily_equity(r["timestamp"], r["equity"]) for name, r in records.items()}
    returns = {name: daily_returns(closes[name], results[name].settings.initial_capital) for name in names}
    n_days = len(returns[base])
    if n_days < FEWEST_DAYS:
        raise InputError.of("results", f"{n_days} UTC days", f"at least {FEWEST_DAYS} are needed to compare")
    others = [name for name in names if name != base]
    apart = np.array([returns[name] - returns[base] for name in others])
    block = max(block_length(row) for row in apart)
    mean = apart.mean(axis=1)
    drawn = mean[:, None] + _widening(n_days, block, level) * (
        stationary_means(apart, n_boot, block, seed) - mean[:, None]
    )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=1)
    # 1e-15: a day's rounding must not make two equal replays differ.
    beyond = np.abs(drawn - mean[:, None]) >= np.abs(mean)[:, None] - 1e-15
    p_value = (1 + beyond.sum(axis=1)) / (1 + n_boot)
    differences = pd.DataFrame(
        {
            "daily_return": mean,
            "low": low,
            "high": high,
            "p_value": p_value,
            "p_adjusted": _adjusted(p_value),
            "final_equity": [closes[name][-1] - closes[base][-1] for name in others],
        },
        index=pd.Index(others, name="replay"),
    )
    times = records[base]["timestamp"]
    days = pd.DatetimeIndex(np.unique(times // DAY_MS * DAY_MS).astype("datetime64[ms]"), name="day").tz_localize("UTC")
    return Comparison(
        baseline=base,
        level=level,
        n_boot=n_boot,
        n_days=n_days,
        block_days=block,
        table=pd.DataFrame({name: [results[name].metrics[m] for m in METRICS] for name in names}, index=METRICS),
        differences=differences,
        equity=pd.DataFrame(closes, index=days),
    )


def block_length(values: Any) -> float:
    """Mean block length of the stationary bootstrap for the mean of ``values`` (n,), at least 1.

    D. Politis, H. White, "Automatic block-length selection for the dependent bootstrap" (2004), with the correction
    of A. Patton, D. Politis, H. White (2009). 1 for values without variation; at most min(3 √n, n / 3).
    """
    x = finite_series("values", values)
    n = len(x)
    away = x - x.mean()
    scale = float(np.abs(away).max())
    if not scale > 1e-14 * float(np.abs(x).max()):
        return 1.0
    away = away / scale
    k_n = max(5, math.ceil(math.sqrt(math.log10(n))))
    most = min(math.ceil(math.sqrt(n)) + k_n, n - 1)
    covariance = np.array([float((away[k:] * away[: n - k]).sum()) / n for k in range(most + 1)])
    small = np.abs(covariance[1:] / covariance[0]) < 2 * math.sqrt(math.log10(n) / n)
    # The first lag after which k_n autocorrelations in a row are negligible; else the last that is not.
    lag = next(
        (m for m in range(len(small) - k_n + 1) if small[m : m + k_n].all()),
        int(np.flatnonzero(~small)[-1]) + 1 if (~small).any() else 0,
    )
    m = min(2 * max(lag, 1), most)
    lags = np.arange(1, m + 1)
    weights = np.minimum(1.0, 2 * (1 - lags / m))  # flat-top window
    g = 2 * float((weights * lags * covariance[1 : m + 1]).sum())
    spectrum = float(covariance[0] + 2 * (weights * covariance[1 : m + 1]).sum())
    if spectrum <= 0:  # over-differenced data: nothing to keep together
        return 1.0
    return float(np.clip((abs(g) / spectrum) ** (2 / 3) * n ** (1 / 3), 1.0, max(1.0, min(3 * math.sqrt(n), n / 3))))


def stationary_means(rows: np.ndarray, n_boot: int, block: float, seed: int) -> np.ndarray:
    """Means (series, n_boot) of ``rows`` (series, n) over days resampled in blocks of mean length ``block``."""
    n = rows.shape[1]
    random = np.random.default_rng(seed)
    out = np.empty((len(rows), n_boot))
    step = max(1, _CHUNK // n)
    for first in range(0, n_boot, step):
        size = min(step, n_boot - first)
        starts = random.random((size, n)) < 1 / block
        starts[:, 0] = True
        begun = np.maximum.accumulate(np.where(starts, np.arange(n), 0), axis=1)  # where the block of each day began
        origin = np.take_along_axis(random.integers(0, n, (size, n)), begun, axis=1)
        days = (origin + np.arange(n) - begun) % n
        for i, row in enumerate(rows):
            out[i, first : first + size] = row[days].mean(axis=1)
    return out


def _checked(results: Any) -> list[str]:
    if not isinstance(results, Mapping):
        raise InputError.of("results", type(results).__name__, "must be a mapping of names to results of replay")
    names = list(results)
    if len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise InputError.of("results", names, "must be two or more replays by name")
    for name in names:
        check_kind(f"results[{name!r}]", results[name], Result)
    first = results[names[0]]
    for name in names[1:]:
        for field in ("interval", "fingerprint"):
            if getattr(results[name], field) != getattr(first, field):
                value = getattr(results[name], field)
                raise InputError.of(
                    f"results[{name!r}].{field}", value, f"must be that of {names[0]!r}: the same candles"
                )
    return names


def _widening(n: int, block: float, level: float) -> float:
    """Student's quantile ÷ the normal one for n ÷ block blocks, × √(n ÷ (n − block)) for the mean they share."""
    quantile = (1 + level) / 2
    student = float(special.stdtrit(n / block - 1, quantile) / special.ndtri(quantile))
    return student * math.sqrt(n / (n - block))


def _adjusted(p_values: np.ndarray) -> np.ndarray:
    from scipy.stats import false_discovery_control  # takes a second to import

    return np.asarray(false_discovery_control(p_values, method="bh"))


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names)) if names else "none"
