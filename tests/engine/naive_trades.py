"""A plain trade simulator: one Python object a trade, made of *legs*, each with its own target.

The engine keeps one position and closes parts of it; here a ladder is so many legs of fixed size that share a stop and
end one by one, longs and shorts are spelled out, and money is added up from the fills at the end. The rules are those
of the contract: entry at the next open, or by a limit order that the price must trade through; funding stamped in a bar
is paid at its open by what was held before; at the open liquidation, stop, targets, then an opposite signal, then the
time-out; inside the bar the stop before the targets (or the other way), unless finer bars tell; stops move at a close;
a missing bar ends the trade at the last close.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from aione_lab.settings import Costs, Settings
from aione_lab.units import HOUR_MS, INTERVALS, MINUTE_MS


class Order(NamedTuple):
    """Decided at the close of bar ``at``; ``near`` and ``deep`` are the ends of the entry zone."""

    at: int
    side: int
    price: float
    atr: float
    stop: float
    targets: tuple[float, ...]  # only those that exist
    near: float
    deep: float
    confidence: float


@dataclass
class Leg:
    quantity: float
    target: float | None
    exit: tuple[int, float, str] | None = None  # (bar, price filled, reason)


@dataclass
class Trade:
    order: Order
    first: int
    price: float
    fee_rate: float
    quantity: float
    legs: list[Leg]
    stop: float
    inside: bool
    bars: int = 0
    leave: bool = False
    ambiguous: bool = False
    resolved: bool = False
    other: list[Leg] | None = None
    unit_funding: float = 0.0
    payments: list[tuple[int, float, bool]] = field(default_factory=list)  # (bar, received, known)
    seen: list[float] = field(default_factory=list)  # prices reached while held

    @property
    def long(self) -> bool:
        return self.order.side > 0

    def open_legs(self) -> list[Leg]:
        return [leg for leg in self.legs if leg.exit is None]


class Simulator:
    """Everything about one run; ``trades`` and ``equity`` are what the engine is held against."""

    def __init__(
        self, bars: np.ndarray, interval: str, settings: Settings, costs: Costs, finer: dict[int, np.ndarray]
    ) -> None:
        self.bars, self.settings, self.costs, self.finer = bars, settings, costs, finer
        self.step = INTERVALS[interval]
        self.slip = costs.slippage_bps / 10_000
        self.maker = costs.fee if costs.maker_fee is None else costs.maker_fee
        self.cash = settings.initial_capital
        self.done: list[dict[str, Any]] = []
        self.trade: Trade | None = None

    def run(self, orders: Sequence[Order]) -> tuple[list[dict[str, Any]], np.ndarray]:
        by_bar = {order.at: order for order in orders}
        equity = np.zeros(len(self.bars))
        pending, waited = None, 0
        for j in range(len(self.bars)):
            if j and self.bars["timestamp"][j] - self.bars["timestamp"][j - 1] != self.step:
                pending = None
                if self.trade:
                    self._end_all(j - 1, self.bars["close"][j - 1], "gap")
                    self._finish(j - 1)
            if self.trade:
                self._funding(j)
            elif pending:
                filled = self._fill(pending, j, waited)
                waited += 1
                if filled or waited >= (self.settings.entry_valid_bars if self.settings.entry == "limit" else 1):
                    pending = None
            if self.trade:
                self._follow(j)
            equity[j] = self._value(j)
            order = by_bar.get(j)
            if order and not self.trade:
                pending, waited = order, 0
            elif order and self.settings.exit_on_opposite and order.side != self.trade.order.side:
                self.trade.leave = True
        return self.done, equity

    # entry

    def _fill(self, order: Order, j: int, waited: int) -> bool:
        """True when the order is used up, filled or too small to be."""
        o, h, low, _ = self._prices(j)
        long = order.side > 0
        price, fee, inside = o * (1 + order.side * self.slip), self.costs.fee, False
        expected = order.price
        if self.settings.entry == "limit":
            limit = order.near + self.settings.entry_depth * (order.deep - order.near)
            limit = self._tick(limit, up=long)
            expected = limit
            beyond = o <= limit if long else o >= limit
            through = low < limit if long else h > limit
            if waited == 0 and beyond:
                price = min(price, limit) if long else max(price, limit)
            elif beyond or through:
                price, fee, inside = limit, self.maker, not beyond
            else:
                return False
        s = self.settings
        quantity = s.position_fraction * s.leverage * self.cash / price
        if s.sizing == "risk":
            lost = abs(expected - order.stop)
            quantity = min(quantity, s.risk_fraction * self.cash / lost) if lost else 0.0
        quantity = self._lots(quantity)
        if quantity <= 0:
            return True
        self.trade = Trade(order, j, price, fee, quantity, self._legs(order, quantity), order.stop, inside)
        self.trade.seen.append(price)
        return True

    def _legs(self, order: Order, quantity: float) -> list[Leg]:
        """A leg for every target that exists and has a share; a share without its target joins the leg before."""
        shares = list(self.settings.target_shares)
        legs: list[Leg] = []
        for i, share in enumerate(shares):
            part = self._lots(share * quantity)
            if i < len(order.targets) and share > 0:
                legs.append(Leg(part, order.targets[i]))
            elif legs:
                legs[-1].quantity += part
        if legs and sum(shares) > 1 - 1e-9:
            legs[-1].quantity = quantity - sum(leg.quantity for leg in legs[:-1])
        else:
            legs.append(Leg(quantity - sum(leg.quantity for leg in legs), None))
        return [leg for leg in legs if leg.quantity > 0]

    def _lots(self, quantity: float) -> float:
        lot = self.costs.lot_size
        return math.floor(quantity / lot + 1e-9) * lot if lot else quantity

    def _tick(self, price: float, up: bool) -> float:
        tick = self.costs.tick_size
        if not tick:
            return price
        return round((math.ceil(price / tick - 1e-6) if up else math.floor(price / tick + 1e-6)) * tick, 10)

    # one bar of an open trade

    def _prices(self, j: int) -> tuple[float, ...]:
        return tuple(float(self.bars[name][j]) for name in ("open", "high", "low", "close"))

    def _follow(self, j: int) -> None:
        trade, (o, h, low, c) = self.trade, self._prices(j)
        inside = trade.inside and j == trade.first
        if inside:  # of a bar that filled a limit only the close and the far side surely came after
            o = trade.price
            h, low = (max(o, c), low) if trade.long else (h, min(o, c))
        if self._open_passes(o, j):
            return self._finish(j)
        if trade.leave or trade.bars >= max(1, self.settings.max_holding_minutes * MINUTE_MS // self.step):
            self._end_all(j, o, "opposite" if trade.leave else "time_out")
            return self._finish(j)
        trade.bars += 1
        both = self._floor_hit(h, low) and self._reached(h, low)
        if both and not inside:
            for fine in self.finer.get(int(self.bars["timestamp"][j]), ()):
                ended = self._open_passes(float(fine["open"]), j)
                ended = ended or self._between(float(fine["high"]), float(fine["low"]), j)
                if ended:
                    trade.resolved = not trade.ambiguous
                    return self._finish(j)
        if self._between(h, low, j):
            return self._finish(j)
        trade.seen += [h, low]
        self._move_stop()

    def _open_passes(self, o: float, j: int) -> bool:
        """Whether nothing is left after what the open has already passed."""
        trade = self.trade
        if self._floor_hit(o, o):
            self._stop(j, o)
        else:
            for leg in self._reached(o, o):
                self._take(leg, j, o)
        return not trade.open_legs()

    def _between(self, h: float, low: float, j: int) -> bool:
        trade = self.trade
        reached = self._reached(h, low)
        if self._floor_hit(h, low):
            if reached:
                trade.ambiguous = True
                before = [Leg(leg.quantity, leg.target, leg.exit) for leg in trade.legs]
                self._both(j, reached, targets_first=self.settings.both_touched != "target")
                trade.other = trade.legs
                trade.legs = before
                reached = self._reached(h, low)
                self._both(j, reached, targets_first=self.settings.both_touched == "target")
            else:
                self._stop(j, self._floor())
        else:
            for leg in reached:
                self._take(leg, j, leg.target)
        return not trade.open_legs()

    def _both(self, j: int, reached: list[Leg], targets_first: bool) -> None:
        if targets_first:
            for leg in reached:
                self._take(leg, j, leg.target)
        if self.trade.open_legs():
            self._stop(j, self._floor())

    def _reached(self, h: float, low: float) -> list[Leg]:
        """Open legs whose target this stretch touches, while all nearer ones are touched too."""
        legs = [leg for leg in self.trade.open_legs() if leg.target is not None]
        return [leg for leg in legs if (h >= leg.target if self.trade.long else low <= leg.target)]

    def _liquidation(self) -> float:
        trade, mm = self.trade, self.settings.maintenance_margin
        margin = trade.price / self.settings.leverage + trade.unit_funding
        if trade.long:
            return (trade.price - margin) / (1 - mm)
        return (trade.price + margin) / (1 + mm)

    def _floor(self) -> float:
        return (max if self.trade.long else min)(self.trade.stop, self._liquidation())

    def _floor_hit(self, h: float, low: float) -> bool:
        return low <= self._floor() if self.trade.long else h >= self._floor()

    def _stop(self, j: int, level: float) -> None:
        trade, liquidation = self.trade, self._liquidation()
        if level <= liquidation if trade.long else level >= liquidation:
            margin = trade.price / self.settings.leverage + trade.unit_funding
            price = trade.price - margin if trade.long else trade.price + margin
            for leg in trade.open_legs():
                leg.exit = (j, price, "liquidation")
        else:
            self._end_all(j, level, "stop" if trade.stop == trade.order.stop else "trailing")

    def _take(self, leg: Leg, j: int, price: float) -> None:
        leg.exit = (j, price, "target")

    def _end_all(self, j: int, level: float, reason: str) -> None:
        for leg in self.trade.open_legs():
            leg.exit = (j, level * (1 - self.trade.order.side * self.slip), reason)

    def _move_stop(self) -> None:
        trade, s = self.trade, self.settings
        trail = s.trailing_stop * trade.order.atr
        if trade.long:
            best, stops = max(trade.seen), [trade.stop]
            ahead = s.break_even and trade.price > trade.order.stop
            if ahead and best - trade.price >= s.break_even * (trade.price - trade.order.stop):
                stops.append(trade.price)
            if trail:
                stops.append(self._tick(best - trail, up=False))
            trade.stop = max(stops)
        else:
            best, stops = min(trade.seen), [trade.stop]
            ahead = s.break_even and trade.price < trade.order.stop
            if ahead and trade.price - best >= s.break_even * (trade.order.stop - trade.price):
                stops.append(trade.price)
            if trail:
                stops.append(self._tick(best + trail, up=True))
            trade.stop = min(stops)

    def _funding(self, j: int) -> None:
        rate, o, trade = self.bars["funding_rate"][j], self.bars["open"][j], self.trade
        if not math.isnan(rate):
            held = sum(leg.quantity for leg in trade.open_legs())
            trade.unit_funding -= trade.order.side * o * rate
            trade.payments.append((j, -trade.order.side * held * o * rate, True))
        elif self.bars["timestamp"][j] % (self.costs.funding_hours * HOUR_MS) == 0:
            trade.payments.append((j, 0.0, False))

    # money

    def _exit_fee(self, leg: Leg) -> float:
        rate = {"target": self.maker, "liquidation": 0.0}.get(leg.exit[2], self.costs.fee)
        return leg.quantity * leg.exit[1] * rate

    def _net(self, legs: list[Leg]) -> float:
        trade = self.trade
        gross = sum(trade.order.side * leg.quantity * (leg.exit[1] - trade.price) for leg in legs if leg.exit)
        fees = trade.quantity * trade.price * trade.fee_rate + sum(self._exit_fee(leg) for leg in legs if leg.exit)
        return gross - fees + sum(paid for _, paid, _ in trade.payments)

    def _value(self, j: int) -> float:
        trade = self.trade
        if trade is None:
            return self.cash
        marked = sum(
            trade.order.side * leg.quantity * (self.bars["close"][j] - trade.price) for leg in trade.open_legs()
        )
        return self.cash + self._net(trade.legs) + marked

    def _finish(self, j: int) -> None:
        trade, times = self.trade, self.bars["timestamp"]
        pnl = self._net(trade.legs)
        order, legs = trade.order, sorted(trade.legs, key=lambda leg: leg.exit[0])
        seen = trade.seen + [leg.exit[1] for leg in legs]
        risk = trade.quantity * order.side * (trade.price - order.stop)
        entry_fee = trade.quantity * trade.price * trade.fee_rate
        low, high = min(seen) / trade.price - 1, max(seen) / trade.price - 1
        self.done.append(
            {
                "signal_time": times[order.at],
                "entry_time": times[trade.first],
                "exit_time": times[j],
                "side": order.side,
                "exit_reason": legs[-1].exit[2],
                "ambiguous": trade.ambiguous,
                "resolved": trade.resolved,
                "bars": trade.bars,
                "funding_missing": sum(not known for *_, known in trade.payments),
                "funding_known": sum(known for *_, known in trade.payments),
                "quantity": trade.quantity,
                "entry_price": trade.price,
                "exit_price": sum(leg.quantity * leg.exit[1] for leg in legs) / trade.quantity,
                "stop": order.stop,
                "last_stop": trade.stop,
                "entry_fee": entry_fee,
                "fees": entry_fee + sum(self._exit_fee(leg) for leg in legs),
                "funding": sum(paid for _, paid, _ in trade.payments),
                "pnl": pnl,
                "pnl_other": self._net(trade.other) if trade.other else pnl,
                "r_multiple": pnl / risk if risk > 0 else math.nan,
                "mae": low if order.side > 0 else -high,
                "mfe": high if order.side > 0 else -low,
                "confidence": order.confidence,
            }
        )
        self.cash += pnl
        self.trade = None


def ref_trades(
    bars: np.ndarray,
    orders: Sequence[Order],
    interval: str,
    settings: Settings,
    costs: Costs,
    finer: dict[int, np.ndarray] | None = None,
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """(closed trades in order, equity at every close); ``finer``: open time of a bar → the bars inside it."""
    return Simulator(bars, interval, settings, costs, finer or {}).run(orders)
