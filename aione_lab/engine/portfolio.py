"""Many symbols on one clock and one account: Stage3's own functions, and who may enter.

Stages 1 and 2 of a symbol do not depend on what is held, so their assessments come from replays of the symbols one
by one. Here the clock runs over the open times of all of them: at each, orders and positions of every symbol meet its
bar, as in ``step.py``; at the close the entry signals of all symbols compete for the free slots. The account's cash is
lent to a symbol's stage while that acts, so one symbol in one slot gives its single replay's trades byte for byte.
"""

from __future__ import annotations

from aione_lab.engine.records import record_dtype
from aione_lab.engine.stage2 import BUY, SELL
from aione_lab.engine.stage3 import place_order, stage3_decide, stage3_follow, stage3_gap
from aione_lab.jit import njit

REFUSALS = ("", "confidence", "capacity", "correlation")
_, BY_CONFIDENCE, BY_CAPACITY, BY_CORRELATION = range(len(REFUSALS))

MOMENT = record_dtype(
    ("equity", "f8"),  # cash and open positions at the close, costs so far included
    ("gross", "f8"),  # value of the open positions, quote currency
    ("net", "f8"),  # longs less shorts
    ("open_trades", "i8"),
    ("waiting", "i8"),  # orders not yet filled
)
"""The account at one time of the clock."""

MEMBER = record_dtype(
    ("first", "i8"),  # of its bars, in the arrays of all symbols
    ("last", "i8"),  # one beyond
    ("at", "i8"),  # next bar
    ("alert", "i8"),  # next assessment
    ("last_alert", "i8"),  # one beyond
)
"""Where a symbol's bars and assessments lie, and how far the clock has come in them."""

LIMITS = record_dtype(
    ("cash", "f8"),  # at the start
    ("slots", "i8"),
    ("min_confidence", "f8"),
    ("max_correlation", "f8"),
)


@njit
def run_portfolio(
    clock,
    members,
    bars,
    inner,
    offsets,
    correlation,
    found,
    rules,
    limits,
    stages,
    candidates,
    moments,
    trades,
    whose,
    refused,
):
    """Trades of all symbols on one account; returns (number of trades, cash at the end).

    ``clock`` (T,) of int64, every open time; ``members, rules, stages`` (S,), ``stages`` zeroed; ``bars`` (N,) with
    ``correlation`` (N,) to the reference (NaN: not known), ``offsets`` (N + 1,) into ``inner``; ``found`` (A,) of
    ASSESSMENT; ``candidates`` (S,) of int64 is scratch. Written: ``moments`` (T,), ``trades`` and ``whose``
    (≥ trades,), the member a trade belongs to, and ``refused`` (A,) of int64, an index into REFUSALS. ``limits`` (1,).
    """
    limit = limits[0]
    cash = equity = limit.cash
    closed = 0
    for k in range(clock.size):
        time, moment = clock[k], moments[k]
        capital = equity / limit.slots
        for s in range(members.size):
            member, stage = members[s], stages[s]
            present = member.at < member.last and bars[member.at].timestamp == time
            if stage.position.side != 0 or stage.order.side != 0:
                stage.cash = cash
                if not present or time - stage.last_time != rules[s].step_ms:
                    ended = stage3_gap(stage, rules[s], trades[closed])
                else:
                    t = member.at
                    finer = inner[offsets[t] : offsets[t + 1]]
                    ended = stage3_follow(stage, bars[t], finer, capital, rules[s], trades[closed])
                if ended:
                    whose[closed] = s
                    closed += 1
                cash = stage.cash
            if present:
                stage.last_time = time
                stage.last_close = bars[member.at].close
                member.at += 1
        _decide(time, members, bars, correlation, found, rules, limit, stages, candidates, refused)
        equity = _mark(stages, cash, moment)
    return closed, cash


@njit
def _mark(stages, cash, moment):
    """Fill ``moment`` from the last closes; returns the equity."""
    equity = cash
    for stage in stages:
        position = stage.position
        if position.side != 0:
            equity += position.side * position.quantity * (stage.last_close - position.entry_price)
            moment.gross += position.quantity * stage.last_close
            moment.net += position.side * position.quantity * stage.last_close
            moment.open_trades += 1
        elif stage.order.side != 0:
            moment.waiting += 1
    moment.equity = equity
    return equity


@njit
def _moves_along(member, correlation, limit):
    """1 where the symbol's last bar goes with the reference more than two held symbols may; unknown is 0."""
    return 1 if member.at > member.first and correlation[member.at - 1] > limit.max_correlation else 0


@njit
def _decide(time, members, bars, correlation, found, rules, limit, stages, candidates, refused):
    """The entry signals of this close, the most confident first, take the slots that are free."""
    n = 0
    busy = 0
    correlated = 0
    for s in range(members.size):
        if stages[s].position.side != 0 or stages[s].order.side != 0:
            busy += 1
            correlated += _moves_along(members[s], correlation, limit)
    for s in range(members.size):
        stage, member = stages[s], members[s]
        if member.alert == member.last_alert or found[member.alert].timestamp != time:
            continue
        alert = member.alert
        member.alert += 1
        if found[alert].recommendation != BUY and found[alert].recommendation != SELL:
            continue
        if stage.position.side != 0:  # its own slot: the single symbol's rules decide
            stage3_decide(stage, found[alert], rules[s])
            continue
        if stage.order.side != 0:  # the order that waits keeps its slot; what would replace it has to be admissible
            along = _moves_along(member, correlation, limit)
            if found[alert].confidence < limit.min_confidence:
                refused[alert] = BY_CONFIDENCE
            elif along and correlated > along:
                refused[alert] = BY_CORRELATION
            else:
                stage3_decide(stage, found[alert], rules[s])
            continue
        place = n
        while place > 0 and found[members[candidates[place - 1]].alert - 1].confidence < found[alert].confidence:
            candidates[place] = candidates[place - 1]
            place -= 1
        candidates[place] = s
        n += 1
    for i in range(n):
        s = candidates[i]
        alert = members[s].alert - 1
        moves_along = _moves_along(members[s], correlation, limit)
        if found[alert].confidence < limit.min_confidence:
            refused[alert] = BY_CONFIDENCE
        elif busy >= limit.slots:
            refused[alert] = BY_CAPACITY
        elif moves_along and correlated > 0:
            refused[alert] = BY_CORRELATION
        else:
            place_order(stages[s], found[alert], rules[s])
            busy += 1
            correlated += moves_along
