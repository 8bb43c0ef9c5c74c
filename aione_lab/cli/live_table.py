"""What ``live`` shows of a session: a table that renews itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aione_lab.cli.output import add_row, console, listed, say, shown, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from aione_lab.live import Session

RENEWED_S = 0.5
STATUS_S = 10.0  # between two lines about the whole, where lines are printed
COLUMNS = {
    "symbol": 0, "signal": 0, "conf.": 80, "price": 0, "ATR %": 120, "vol. z": 120, "RSI": 0, "recommendation": 0,
    "TP": 100, "SL": 100, "state": 0, "calibration": 140, "reasons": 140,
}  # fmt: skip
"""Columns, and from how wide a terminal on each is shown: cut-off names would say nothing."""
ALERTS, TRADES = 5, 3
MOST_NAMED = 5


class Screen:
    """Follows a session until it ends; ``current()`` gives it, and may give another one later.

    ``journal``: whether the user keeps one; else nothing is said of it.
    """

    def __init__(
        self, current: Callable[[], Session], *, on_terminal: bool, silent: bool, journal: bool = True
    ) -> None:
        self._current, self._on_terminal, self._silent, self._journal = current, on_terminal, silent, journal
        self._introduced: Session | None = None  # whose beginnings are on lines already
        self._told: int | None = None  # alerts and second looks that are on lines already
        self._closed: int | None = None  # the same of closed paper trades

    @property
    def _session(self) -> Session:
        return self._current()

    async def follow(self, task: asyncio.Task[None]) -> None:
        """Show the session until ``task`` is done."""
        if self._silent:
            await asyncio.wait({task})
        elif self._on_terminal:
            await self._table(task)
        else:
            await self._lines(task)

    async def _table(self, task: asyncio.Task[None]) -> None:
        from rich.live import Live

        screen = console()
        with Live(self._drawn(screen.width), console=screen, auto_refresh=False, transient=False) as live:
            while not task.done():
                await asyncio.wait({task}, timeout=RENEWED_S)
                live.update(self._drawn(screen.width), refresh=True)

    async def _lines(self, task: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        due, state = loop.time(), ""
        while not task.done():
            now = self._session.status()["state"]
            self._introduce()
            if now != state or loop.time() >= due:
                state, due = now, loop.time() + STATUS_S
                say(headline(self._session.status()))
            self._tell_alerts()
            self._tell_trades()
            await asyncio.wait({task}, timeout=RENEWED_S)
        self._introduce()
        self._tell_alerts()
        self._tell_trades()

    def _introduce(self) -> None:
        """Say what a session rests on, once it has read that."""
        session = self._session
        if session is not self._introduced and session.told_before is not None:
            self._introduced = session
            for line in beginnings(session.status(), self._journal):
                say(line)

    def _tell_alerts(self) -> None:
        before = self._session.told_before
        if before is None:  # what the journal kept is being restored
            return
        status = self._session.status()
        count = status["alerts"] + status["second_looks"]
        # What the journal brought the first session was told by a run of before; another one goes on from here.
        new = max(0, count - (before if self._told is None else self._told))  # a session begun anew counts anew
        for alert in reversed(self._session.last_alerts(n=new)):
            say(alert_line(alert))
        self._told = count

    def _tell_trades(self) -> None:
        session = self._session
        if session.told_before is None:
            return
        count = session.counts["trades"]
        before = session.closed_before if self._closed is None else self._closed
        for trade in reversed(session.last_trades(n=max(0, count - before))):
            say(trade_line(trade))
        self._closed = count

    def _drawn(self, width: int) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        there = [width >= least for least in COLUMNS.values()]
        drawn = table(*itertools.compress(COLUMNS, there))
        for symbol, asset in self._session.assets.snapshot().items():
            add_row(drawn, *itertools.compress(cells(symbol, asset), there))
        status = self._session.status()
        above = [headline(status), *(beginnings(status, self._journal) if status["state"] == "running" else ())]
        below = [alert_line(alert) for alert in self._session.last_alerts(n=ALERTS)]
        below += [trade_line(trade) for trade in self._session.last_trades(n=TRADES)]
        return Group(*(Text(shown(line)) for line in above), drawn, *(Text(shown(line)) for line in below))


def headline(status: Mapping[str, Any]) -> str:
    """A session's status in one line."""
    parts = [
        f"{status['state']}: {counted(status['symbols'], 'symbol')}, {status['interval']}",
        f"bar {status['last_bar'] or '–'}",
        counted(status["bars"], "bar"),
        counted(status["alerts"], "alert"),
        trades_text(status),
    ]
    if status["lag_s"] is not None:
        parts.append(f"lag {status['lag_s']:.1f} s")
    if status["stale"]:
        parts.append(f"stale: {listed(status['stale'], MOST_NAMED)}")
    parts += [f"{part} does not work: {problem}" for part, problem in status["degraded"].items()]
    return " | ".join(parts)


def trades_text(status: Mapping[str, Any]) -> str:
    """The paper trades of a session's status, closed ones with what they came to."""
    net = f", net {status['net_pnl']:+,.2f}" if status["trades"] else ""
    return f"{counted(status['trades'], 'paper trade')} closed{net}, {status['open_trades']} open"


def trade_line(trade: Mapping[str, Any]) -> str:
    """A closed paper trade in one line: bars' open times, prices, and what it came to after costs."""
    from aione_lab.backtest.summary import quote_currency

    r = f" ({trade['r_multiple']:+.2f} R)" if math.isfinite(trade["r_multiple"]) else ""
    net = f"{trade['pnl']:+,.2f} {quote_currency(trade['symbol'])}"
    return (
        f"{trade['exit_time']} {trade['symbol']} paper trade closed: {trade['side']} from {trade['entry_price']:g} to "
        f"{trade['exit_price']:g} ({trade['exit_reason']}), net {net}{r}"
    )


def beginnings(status: Mapping[str, Any], journal: bool = True) -> list[str]:
    """What a session rests on: its thresholds, and the ``journal`` that it goes on with."""
    calibrated = [f"{name}{_study_text(told)}" for name, told in status["calibrated"].items()]
    others = status["symbols"] - len(calibrated)
    parts = [f"calibrated for {listed(calibrated, MOST_NAMED)}"] if calibrated else []
    parts += [f"by asset class for {counted(others, 'symbol')}"] if others else []
    lines = [f"thresholds: {', '.join(parts)}"]
    resumed, left_out = status["resumed"], status["left_out"]
    if journal and (resumed or left_out):
        line = f"goes on with the journal: {len(resumed)} of {counted(status['symbols'], 'symbol')}"
        line += ", the others warm up anew" if len(resumed) < status["symbols"] else ""
        lines.append(f"{line}; no longer followed: {listed(left_out, MOST_NAMED)}" if left_out else line)
    return lines


def _study_text(told: Mapping[str, str]) -> str:
    """Which candles a set was found on: those of another market, or of a simulation, must not pass unseen."""
    parts = [f"study {told['study']}"] if "study" in told else []
    parts += [f"{told['start'][:10]} to {told['end'][:10]}"] if {"start", "end"} <= told.keys() else []
    parts += [f"in force until {told['expires_at'][:16]}"] if "expires_at" in told else []
    return f" ({', '.join(parts)})" if parts else ""


def counted(n: int, what: str) -> str:
    """``1 bar``, ``1,200 bars``."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def alert_line(alert: Mapping[str, Any]) -> str:
    """A Stage2 dictionary in one line."""
    risk = alert["risk_parameters"]
    targets = ", ".join(f"{price:g}" for price in risk.get("tp_targets", ()))
    again = " (second look)" if alert.get("second_look") else ""
    return (
        f"{alert['timestamp']} {alert['symbol']} {alert['recommendation']}{again} confidence {alert['confidence']:.2f} "
        f"[{', '.join(alert['trigger_reasons'])}] TP {targets or '–'} SL {_number(risk.get('sl_level'), 'g')}"
    )


def cells(symbol: str, asset: Mapping[str, Any]) -> list[str]:
    """The row of an asset."""
    stats = asset["stats"]
    atr = stats.get("atr_pct")
    return [
        symbol,
        asset["signal"],
        f"{asset['confidence']:.2f}" if asset["confidence"] else "",
        _number(stats.get("current_price"), "g"),
        _number(None if atr is None else 100 * atr, ".3f"),
        _number(stats.get("volume_z"), ".1f"),
        _number(stats.get("rsi"), ".1f"),
        asset["recommendation"],
        _number(asset["tp"], "g"),
        _number(asset["sl"], "g"),
        asset["state"],
        asset["calib_status"],
        " ".join(asset["trigger_reasons"]),
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
