"""`replay_portfolio`: many symbols on one clock and one account, with slots that their signals compete for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import pandas as pd

from aione_lab.backtest.metrics import daily_equity, daily_returns, max_drawdown, sharpe_ratio, trade_metrics
from aione_lab.backtest.prepare import infer_interval
from aione_lab.backtest.readonly import ReadOnly
from aione_lab.backtest.replay import replay
from aione_lab.backtest.result import Result
from aione_lab.backtest.summary import portfolio_verdict
from aione_lab.backtest.trades import fill_columns, named, trade_columns, utc
from aione_lab.engine import portfolio as kernel
from aione_lab.engine.event import decode_mask
from aione_lab.engine.params import rules_record
from aione_lab.engine.records import FEATURE_NAMES, RECOMMENDATIONS, RULES, STAGE_STATE, TRADE
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import INTERVALS, parse_symbol

if TYPE_CHECKING:
    import plotly.graph_objects as go

Value = TypeVar("Value")
ENTRIES = [RECOMMENDATIONS.index("BUY"), RECOMMENDATIONS.index("SELL")]


@dataclass(frozen=True)
class Member:
    """What a portfolio keeps of one symbol's replay."""

    symbol: str
    bars: np.ndarray
    inner: tuple[np.ndarray, np.ndarray]
    correlation: np.ndarray  # (n,) with the reference, 1 for the reference itself; NaN: not known
    assessments: np.ndarray
    reasons: np.ndarray  # (alerts,) bit masks
    costs: Costs
    spec: FeatureSpec

    @property
    def alert_correlation(self) -> np.ndarray:
        """Correlation with the reference at every assessment, (alerts,)."""
        return self.correlation[np.searchsorted(self.bars["timestamp"], self.assessments["timestamp"])]


@dataclass(frozen=True)
class PortfolioResult:
    """Trades, equity and exposure of many symbols on one account.

    ``moments`` (T,) is the account at every time of the clock; ``trade_records`` (n,) of TRADE are in the order of
    their exits, ``owners`` (n,) says which of ``symbols`` each belongs to.
    """

    symbols: tuple[str, ...]
    interval: str
    settings: Settings
    members: tuple[Member, ...]
    clock: np.ndarray
    moments: np.ndarray
    trade_records: np.ndarray
    owners: np.ndarray
    stage_records: np.ndarray
    refusals: np.ndarray
    cash: float

    @cached_property
    def index(self) -> pd.DatetimeIndex:
        """The clock: every open time at which a symbol has a bar."""
        return utc(self.clock)

    @cached_property
    def trades(self) -> pd.DataFrame:
        """One row a closed trade, net of costs, with the columns of ``Result.trades`` after ``symbol`` and reasons."""
        frame = pd.DataFrame(trade_columns(self.trade_records))
        frame.insert(0, "symbol", np.array(self.symbols, dtype=object)[self.owners])
        frame.insert(1, "trigger_reasons", pd.Series(self._reasons(), index=frame.index, dtype=object))
        return frame

    def _reasons(self) -> list[tuple[str, ...]]:
        masks = []
        for trade, owner in zip(self.trade_records, self.owners, strict=True):
            member = self.members[owner]
            place = np.searchsorted(member.assessments["timestamp"], trade["signal_time"])
            masks.append(decode_mask(int(member.reasons[place]), member.spec.reasons))
        return masks

    @cached_property
    def fills(self) -> pd.DataFrame:
        """Every fill, symbol by symbol: columns of ``Result.fills`` after ``symbol``."""
        frames = []
        for i, symbol in enumerate(self.symbols):
            frame = pd.DataFrame(
                fill_columns(self.trade_records[self.owners == i], self.stage_records["position"][[i]])
            )
            frame.insert(0, "symbol", symbol)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    @cached_property
    def equity(self) -> pd.Series:
        """Cash and open positions of the account at every close, quote currency, costs so far included."""
        return pd.Series(self.moments["equity"], index=self.index, name="equity")

    @cached_property
    def exposure(self) -> pd.DataFrame:
        """``gross`` and ``net`` value of the open positions ÷ equity, ``open_trades`` and ``waiting`` orders."""
        equity = self.moments["equity"]
        columns = {name: self.moments[name] / equity for name in ("gross", "net")}
        counts = {name: self.moments[name] for name in ("open_trades", "waiting")}
        return pd.DataFrame({**columns, **counts}, index=self.index)

    @cached_property
    def refused(self) -> pd.DataFrame:
        """Entry signals that found no place, and why: ``confidence``, ``capacity`` or ``correlation``."""
        found = np.concatenate([member.assessments for member in self.members])
        owners = np.repeat(np.arange(len(self.members)), [len(member.assessments) for member in self.members])
        rows = np.flatnonzero(self.refusals)
        rows = rows[np.argsort(found["timestamp"][rows], kind="stable")]
        columns = {
            "symbol": np.array(self.symbols, dtype=object)[owners[rows]],
            "confidence": found["confidence"][rows],
            "correlation": np.concatenate([member.alert_correlation for member in self.members])[rows],
            "reason": named(self.refusals[rows], kernel.REFUSALS),
        }
        return pd.DataFrame(columns, index=utc(found["timestamp"][rows]))

    @cached_property
    def open_trades(self) -> pd.DataFrame:
        """Positions still held after the last bar, marked at their last close."""
        position, close = self.stage_records["position"], self.stage_records["last_close"]
        held = position["side"] != 0
        position, close = position[held], close[held]
        return pd.DataFrame(
            {
                "symbol": np.array(self.symbols, dtype=object)[held],
                "entry_time": utc(position["entry_time"]),
                "side": position["side"],
                "quantity": position["quantity"],
                "entry_price": position["entry_price"],
                "unrealised": position["side"] * position["quantity"] * (close - position["entry_price"]),
            }
        )

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """The trade metrics of ``Result.metrics`` for the account, with exposure and refusals.

        ``mean_gross_exposure`` and ``max_gross_exposure`` are shares of the equity over all bars of the clock.
        """
        equity, capital = self.moments["equity"], self.settings.initial_capital
        gross = self.exposure["gross"].to_numpy()
        counts = {f"refused_{name}": int((self.refusals == i).sum()) for i, name in enumerate(kernel.REFUSALS) if name}
        signals = sum(int(np.isin(member.assessments["recommendation"], ENTRIES).sum()) for member in self.members)
        held = int((self.stage_records["position"]["side"] != 0).sum())
        return ReadOnly(
            {
                "n_symbols": len(self.symbols),
                "n_bars": len(self.clock),
                "n_entry_signals": signals,
                **counts,
                "n_not_followed": signals - sum(counts.values()) - len(self.trade_records) - held,
                **trade_metrics(self.trade_records, self.settings.both_touched),
                "final_equity": float(equity[-1]),
                "total_return": float(equity[-1]) / capital - 1.0,
                "max_drawdown": max_drawdown(equity, capital),
                "sharpe": sharpe_ratio(daily_returns(daily_equity(self.clock, equity), capital)),
                "mean_gross_exposure": float(gross.mean()),
                "max_gross_exposure": float(gross.max()),
                "max_open_trades": int(self.moments["open_trades"].max()),
                "open_at_end": held,
            }
        )

    @property
    def sentence(self) -> str:
        """What the account's trades support after costs, and how many signals were refused."""
        return portfolio_verdict(self)

    def attribution(self, by: Literal["symbol", "trigger", "hour", "side", "exit"] = "symbol") -> pd.DataFrame:
        """Where the net P&L came from: trades, win rate, P&L, fees, funding, mean R per group.

        ``trigger``: a trade counts for each of its reasons, so those rows add up to more than the whole. ``hour``: the
        UTC hour of the signal. Raises InputError for another ``by``.
        """
        trades = self.trades
        keys: dict[str, Any] = {
            "symbol": trades["symbol"],
            "trigger": trades["trigger_reasons"],
            "hour": trades["signal_time"].dt.hour,
            "side": trades["side"],
            "exit": trades["exit_reason"].astype(str),
        }
        if not isinstance(by, str) or by not in keys:
            raise InputError.of("by", by, f"must be one of {', '.join(keys)}")
        frame = trades.assign(key=keys[by], won=trades["pnl"] > 0)
        if by == "trigger":
            frame = frame.explode("key")
        groups = frame.groupby("key", observed=True)
        table = groups.agg(
            trades=("pnl", "size"),
            win_rate=("won", "mean"),
            pnl=("pnl", "sum"),
            fees=("fees", "sum"),
            funding=("funding", lambda paid: paid.sum(min_count=1)),  # NaN where none of it is known
            mean_r=("r_multiple", "mean"),
        )
        return table.rename_axis(by).sort_values("pnl", kind="stable") if by != "hour" else table.rename_axis(by)

    def plot(self, theme: Literal["light", "dark"] = "light") -> go.Figure:
        """Equity with its drawdown, exposure, and P&L by symbol, as a Plotly figure."""
        from aione_lab.figures.portfolio import portfolio_chart

        return portfolio_chart(self.equity, self.exposure, self.attribution("symbol"), theme=theme)

    def __repr__(self) -> str:
        m = self.metrics
        return (
            f"PortfolioResult({len(self.symbols)} symbols {self.interval}, {m['n_trades']} trades of "
            f"{m['n_entry_signals']} entry signals, net {m['net_pnl']:+.2f})"
        )


def replay_portfolio(
    candles: Mapping[str, pd.DataFrame],
    thresholds: Thresholds | Mapping[str, Thresholds] | None = None,
    *,
    interval: str | None = None,
    reference: str | pd.DataFrame | pd.Series | None = None,
    funding: Mapping[str, pd.DataFrame | pd.Series | None] | None = None,
    spec: FeatureSpec | None = None,
    settings: Settings | None = None,
    costs: Costs | Mapping[str, Costs] | None = None,
    finer: Mapping[str, pd.DataFrame | None] | None = None,
) -> PortfolioResult:
    """Replay many symbols on one account.

    At most ``settings.max_open_trades`` positions and waiting orders at once, each sized as if its share of the
    equity (one over that number) were all there is; at one close the most confident signals come first; no second
    position while both symbols correlate with the reference above ``settings.max_correlation_threshold``, on that
    bar; none below ``settings.portfolio_min_confidence``. Everything else is ``replay``: the trades of one symbol
    with ``max_open_trades=1`` are its replay's, byte for byte.

    Parameters
    ----------
    candles
        Symbol → candles, as ``replay`` takes them, all of one interval. Spans may differ. Where a symbol's bars end
        or are missing while others go on, its open trade is closed at the last close with reason ``gap``.
    thresholds, costs
        One for all, or symbol → its own; a symbol that is not named has its asset class's thresholds, default costs.
    reference
        Candles of the reference, or the name of one of ``candles`` (it then correlates with itself by 1).
    funding, finer
        Symbol → funding rates, candles of a finer interval; symbols that are not named have none.

    Raises InputError, one line, as ``replay`` does.
    """
    names = _symbols(candles)
    settings = Settings() if settings is None else settings
    interval = infer_interval(next(iter(candles.values()))) if interval is None else interval
    own = None
    if isinstance(reference, str):
        own = parse_symbol(reference, "reference")
        if own not in names:
            raise InputError.of("reference", reference, "must be candles or one of the symbols of candles")
        reference = candles[names[own]]
    given = {
        "thresholds": _by_symbol(thresholds, names, "thresholds", Thresholds),
        "costs": _by_symbol(costs, names, "costs", Costs),
        "funding": _by_symbol(funding, names, "funding", None),
        "finer": _by_symbol(finer, names, "finer", None),
    }
    members = []
    for symbol, key in names.items():
        result = replay(
            candles[key],
            symbol=symbol,
            interval=interval,
            reference=None if symbol == own else reference,
            spec=spec,
            settings=settings,
            **{name: values.get(symbol) for name, values in given.items()},
        )
        members.append(_member(result, symbol == own))
    return _run(tuple(members), interval, settings)


def _symbols(candles: Any) -> dict[str, str]:
    """Symbol → the key of ``candles`` that names it."""
    if not isinstance(candles, Mapping) or not candles:
        raise InputError.of("candles", candles, "must be a mapping of symbols to candle frames, with at least one")
    names: dict[str, str] = {}
    for key in candles:
        symbol = parse_symbol(key, "candles")
        if symbol in names:
            raise InputError.of("candles", key, f"names {symbol} a second time")
        names[symbol] = key
    return names


def _by_symbol(value: Any, names: dict[str, str], argument: str, kind: type | None) -> dict[str, Any]:
    """Symbol → its own value; one value of ``kind`` stands for all."""
    if value is None:
        return {}
    if kind is not None and isinstance(value, kind):
        return dict.fromkeys(names, value)
    if not isinstance(value, Mapping):
        allowed = "must be a mapping of symbols" if kind is None else f"must be a {kind.__name__} object or a mapping"
        raise InputError.of(argument, value, allowed)
    out = {}
    for key, entry in value.items():
        symbol = parse_symbol(key, argument)
        if symbol not in names:
            raise InputError.unknown(argument, symbol, names)
        out[symbol] = entry
    return out


def _member(result: Result, is_reference: bool) -> Member:
    correlation = result.columns[FEATURE_NAMES.index("correlation")].copy()
    if is_reference:
        correlation[:] = 1.0
    places = np.searchsorted(result.signal_records["timestamp"], result.assessment_records["timestamp"])
    return Member(
        symbol=result.symbol,
        bars=result.bars,
        inner=result.inner,
        correlation=correlation,
        assessments=result.assessment_records,
        reasons=result.signal_records["reasons"][places],
        costs=result.costs,
        spec=result.spec,
    )


def _run(members: tuple[Member, ...], interval: str, settings: Settings) -> PortfolioResult:
    bars = np.concatenate([member.bars for member in members])
    found = np.concatenate([member.assessments for member in members])
    clock = np.unique(bars["timestamp"])
    state = np.zeros(len(members), kernel.MEMBER)
    ends = np.cumsum([len(member.bars) for member in members])
    state["last"], state["first"] = ends, np.concatenate([[0], ends[:-1]])
    state["at"] = state["first"]
    alerts = np.cumsum([len(member.assessments) for member in members])
    state["last_alert"], state["alert"] = alerts, np.concatenate([[0], alerts[:-1]])
    inner_ends = np.cumsum([0, *(len(member.inner[0]) for member in members)])
    shifted = [member.inner[1][:-1] + base for member, base in zip(members, inner_ends[:-1], strict=True)]
    rules = np.zeros(len(members), RULES)
    for i, member in enumerate(members):
        rules[i] = rules_record(settings, member.costs, INTERVALS[interval])[0]
    limits = np.zeros(1, kernel.LIMITS)
    limits["cash"], limits["slots"] = settings.initial_capital, settings.max_open_trades
    limits["min_confidence"] = settings.portfolio_min_confidence
    limits["max_correlation"] = settings.max_correlation_threshold
    stages = np.zeros(len(members), STAGE_STATE)
    moments = np.zeros(len(clock), kernel.MOMENT)
    most = int(np.isin(found["recommendation"], ENTRIES).sum()) + 1
    trades, owners, refused = np.zeros(most, TRADE), np.zeros(most, np.int64), np.zeros(len(found), np.int64)
    n, cash = kernel.run_portfolio(
        clock,
        state,
        bars,
        np.concatenate([member.inner[0] for member in members]),
        np.concatenate([*shifted, inner_ends[-1:]]),
        np.concatenate([member.correlation for member in members]),
        found,
        rules,
        limits,
        stages,
        np.zeros(len(members), np.int64),
        moments,
        trades,
        owners,
        refused,
    )
    return PortfolioResult(
        symbols=tuple(member.symbol for member in members),
        interval=interval,
        settings=settings,
        members=members,
        clock=clock,
        moments=moments,
        trade_records=trades[:n].copy(),
        owners=owners[:n].copy(),
        stage_records=stages,
        refusals=refused,
        cash=float(cash),
    )
