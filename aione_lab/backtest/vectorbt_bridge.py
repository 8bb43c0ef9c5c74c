"""A replay handed to vectorbt: a `Portfolio` made of the fills themselves, and the sums that differ.

vectorbt's simulators cannot repeat Stage3: they process one signal a bar, so that a stop or target is never
checked on the bar of the entry, and know no funding. So nothing is simulated again. Every fill becomes an order
record, with its quantity, price (slippage is in it) and fee, and vectorbt derives trades, cash and equity from
them. What order records cannot say is listed by ``reconcile``; where its own simulator would have left each trade, and
why elsewhere, by ``vectorbt_exits.compare_exits``.

vectorbt takes about ten seconds to import and compiles what is asked of a portfolio on first use, so it is
imported here only, when a portfolio is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from aione_lab.backtest.trades import fill_columns
from aione_lab.engine.records import EXITS
from aione_lab.units import INTERVALS

if TYPE_CHECKING:
    import vectorbt as vbt

    from aione_lab.backtest.result import Result

BUY, SELL = 0, 1  # vectorbt.portfolio.enums.OrderSide

COLUMNS = ("ours", "vectorbt", "funding", "open_trade", "gap_exit", "unexplained")


def to_vectorbt(result: Result) -> vbt.Portfolio:
    """The fills of ``result`` as a vectorbt ``Portfolio`` of one column, named as the symbol.

    An order for every fill, those of a trade still open included: it is an open trade there, marked at the last
    close as in ``result.equity``. Funding is not in it. vectorbt's own ratios (``sharpe_ratio`` …) are of
    returns per bar and a year of 365 days; ``result.metrics`` takes returns per day.

    The index is that of ``result.equity``, in UTC. vectorbt 1.2 makes an object of every stamp of a zoned index
    each time it wraps an array: unnoticed over weeks, a second or more a call over a year of minutes. Where that
    matters, ``portfolio.replace(wrapper=portfolio.wrapper.replace(index=result.index.tz_localize(None)))``.

    ``engine="numba"`` is set on the portfolio, because the default of vectorbt 1.2, ``"auto"``, changes to
    Rust without a word where the package ``vectorbt-rust`` is installed.
    """
    import vectorbt as vbt
    from vectorbt.portfolio.enums import log_dt, order_dt

    name = result.symbol or "candles"
    freq = pd.Timedelta(INTERVALS[result.interval], unit="ms")
    fills = order_fills(result)
    orders = np.zeros(len(fills), order_dt)
    for field in fills.dtype.names or ():
        orders[field] = fills[field]
    orders["id"] = np.arange(len(fills))
    return vbt.Portfolio(
        vbt.ArrayWrapper(result.index, [name], 1, freq=freq),
        close=pd.Series(result.bars["close"], index=result.index, name=name),
        order_records=orders,
        log_records=np.zeros(0, log_dt),
        init_cash=np.array([result.settings.initial_capital]),
        cash_sharing=False,
        engine="numba",
    )


def order_fills(result: Result) -> np.ndarray:
    """Every fill in the order it happened: ``idx`` (bar), ``size``, ``price``, ``fees``, ``side`` (0 buy, 1 sell)."""
    frame = fill_columns(result.trade_records, result.stage_record["position"])
    fills = np.zeros(
        len(frame["trade"]), [("idx", "i8"), ("size", "f8"), ("price", "f8"), ("fees", "f8"), ("side", "i8")]
    )
    fills["idx"] = np.searchsorted(result.bars["timestamp"], frame["time"].asi8)
    fills["size"], fills["price"], fills["fees"] = frame["quantity"], frame["price"], frame["fee"]
    fills["side"] = np.where(frame["side"] > 0, BUY, SELL)
    return fills


def funding_by_bar(result: Result) -> np.ndarray:
    """Funding received (paid: negative) on each bar, (n,), quote currency; stamps without a known rate give 0.

    What was held before the bar pays rate × its value at the open, as in ``engine/stage3.py``.
    """
    fills, bars = order_fills(result), result.bars
    signed = np.where(fills["side"] == BUY, fills["size"], -fills["size"])
    held = np.concatenate([[0.0], np.cumsum(signed)])
    stamped = np.flatnonzero(~np.isnan(bars["funding_rate"]))
    payments = np.zeros(len(bars))
    before = held[np.searchsorted(fills["idx"], stamped, side="left")]
    payments[stamped] = -before * bars["open"][stamped] * bars["funding_rate"][stamped]
    return payments


def gap_exits_by_bar(result: Result) -> np.ndarray:
    """What closing at a gap costs, (n,), at the last bar before the gap; 0 elsewhere.

    That a bar is missing is known with the bar after it, so the equity of the last bar still marks the trade
    at the close, while the fill carries that bar's time: there the two curves differ by slippage and exit fee.
    """
    trades = result.trade_records
    costs = np.zeros(len(result.bars))
    left = trades[trades["exit_reason"] == EXITS.index("gap")]
    at = np.searchsorted(result.bars["timestamp"], left["exit_time"])
    last = (np.arange(len(left)), left["exits"] - 1)  # the fill that closed what was left
    price, quantity, fee = (left[f"exit_{name}"][last] for name in ("prices", "quantities", "fees"))
    costs[at] = left["side"] * quantity * (result.bars["close"][at] - price) + fee
    return costs


def reconcile(result: Result, portfolio: vbt.Portfolio) -> pd.DataFrame:
    """What ``portfolio`` (of ``to_vectorbt``) says beside what ``result`` says, and why they differ.

    In every row ours = vectorbt + funding + open_trade + gap_exit + unexplained, in quote currency (``trades``:
    a count); ``unexplained`` is rounding, of the order of 1e-12 of the capital. Rows:

    ``trades``: our trades are vectorbt's positions (its trades are single exits, so that a ladder has several); it
    counts one still open. ``fees``: it includes those that the open trade has paid so far.
    ``closed_pnl``: P&L of the closed trades. ``net_pnl``: vectorbt's total profit holds the open trade at the
    last close. ``final_equity``. ``equity_apart`` and ``equity_unexplained``: the two curves at the close where
    they are furthest apart, and where most is left unexplained. ``funding``: what the engine booked, against
    the payments recomputed from fills and rates.
    """
    trades, position = result.trade_records, result.stage_record["position"][0]
    paid, gaps = np.cumsum(funding_by_bar(result)), gap_exits_by_bar(result)
    booked = float(trades["funding"].sum())
    n_open = int(result.open_trade is not None)
    open_fees = held_funding = marked = 0.0
    if result.open_trade is not None:
        open_fees, held_funding = float(position["fees"]), float(position["funding"])
        marked = result.open_trade["unrealised"] + float(position["gross"]) - open_fees
    ours, theirs = result.equity.to_numpy(), portfolio.value().to_numpy()
    apart = int(np.abs(ours - theirs).argmax())
    unexplained = int(np.abs(ours - theirs - paid - gaps).argmax())
    closed = float(portfolio.positions.closed.pnl.values.sum())
    net, total = float(trades["pnl"].sum()), float(portfolio.total_profit())
    rows = {
        "trades": (len(trades), int(portfolio.positions.count()), 0.0, 0.0 - n_open, 0.0),
        "fees": (float(trades["fees"].sum()), float(portfolio.orders.fees.values.sum()), 0.0, 0.0 - open_fees, 0.0),
        "closed_pnl": (net, closed, booked, 0.0, 0.0),
        "net_pnl": (net, total, booked, 0.0 - marked, 0.0),
        "final_equity": (ours[-1], theirs[-1], paid[-1], 0.0, 0.0),
        "equity_apart": (ours[apart], theirs[apart], paid[apart], 0.0, gaps[apart]),
        "equity_unexplained": (ours[unexplained], theirs[unexplained], paid[unexplained], 0.0, gaps[unexplained]),
        "funding": (booked + held_funding, 0.0, paid[-1], 0.0, 0.0),
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS[:-1]), dtype=float)
    return table.assign(unexplained=table["ours"] - table[list(COLUMNS[1:-1])].sum(axis=1))
