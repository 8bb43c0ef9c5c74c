"""How a session begins: from the snapshot and the rows after it, or with a warm-up."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from aione_lab.backtest.decode import features_at, stage1_dict
from aione_lab.backtest.prepare import prepare_bars
from aione_lab.engine.fleet import Advanced
from aione_lab.engine.records import BAR, FEATURE_NAMES, LAYOUT
from aione_lab.errors import AioneError, InputError
from aione_lab.jit import sources_digest
from aione_lab.lake.schema import CANDLE_COLUMNS
from aione_lab.lake.store import fingerprint_candles
from aione_lab.live.asset_state import frozen, plain
from aione_lab.live.decisions import ALERT
from aione_lab.live.feed import Candle
from aione_lab.live.gate import REFERENCE_WAIT_S
from aione_lab.live.journal import Journal, signal_records
from aione_lab.live.recent import KEPT, SHOWN
from aione_lab.live.replay_feed import ReplayFeed
from aione_lab.live.warmup import Past, no_candles, past_of
from aione_lab.settings import ReadOnly
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import DAY_MS, iso

if TYPE_CHECKING:
    from aione_lab.live.session import Session

_log = logging.getLogger(__name__)

ASK_AGAIN_MS = 7 * DAY_MS  # a rate that the lake lacks is looked for no further back than the one before it
AT_ONCE = 4  # symbols that are warmed up side by side
_SHOWN = [FEATURE_NAMES.index(name) for name in SHOWN]


def versions() -> dict[str, Any]:
    """What decides how bars become decisions, beside the configuration."""
    package: Any = importlib.import_module("aione_lab")  # a plain import would be a circle to type checkers
    return {"version": package.__version__, "layout": LAYOUT, "engine": sources_digest()}


def configuration(session: Session) -> dict[str, Any]:
    """Everything that steers a session, as JSON."""
    first = session.fleet.engines[0]
    return {
        **versions(),
        **_candles_of(session),
        "reference": session.reference,
        "symbols": list(session.symbols),
        "spec": first.spec.model_dump(mode="json"),
        "settings": first.settings.model_dump(mode="json"),
        "costs": first.costs.model_dump(mode="json"),
    }


async def open_session(session: Session) -> dict[str, int]:
    """Fill the session's memory; the last bar that each symbol has taken (ms)."""
    restored = await asyncio.to_thread(_restore, session)
    # Where the others stand already: who is new to the journal joins them there, and not where a replay began.
    taken = [session.fleet.last_time(name) or 0 for name in restored]
    now = max(session.feed.now_ms(), max(taken, default=0) + session.step_ms)
    if isinstance(session.feed, ReplayFeed):
        session.feed.move_to(now)
    session.told_before = session.counts["alerts"] + session.counts["second_looks"]
    session.closed_before = session.counts["trades"]
    session.resumed = tuple(name for name in session.symbols if name in restored)
    session.left_out = tuple(sorted(restored.others))
    fresh = [name for name in session.symbols if name not in restored]
    session.keeper.row("resume" if restored else "start", "", session.feed.now_ms(), configuration(session))
    pasts: dict[str, Past] = {}
    if fresh:
        pasts = await _pasts(session, fresh, now)
    for name in fresh:
        await asyncio.to_thread(_warm_up, session, name, pasts, now)
    closes = dict(restored.closes)
    if session.reference is not None:
        # Those of bars that only the others have still to take are among them.
        frame = session.recent.candles(session.reference, KEPT)
        closes = dict(zip(_ms(frame).tolist(), frame["close"].tolist(), strict=True)) | closes
    news, given = await asyncio.to_thread(session.limits.news), session.limits.last
    for name in ((restored & given.keys()) | news.keys()) - session.coming.keys():  # who has one put by hand keeps it
        session.set_thresholds(name, given[name])
    last = {}
    for name in session.symbols:
        last[name] = session.fleet.last_time(name) or now // session.step_ms * session.step_ms - session.step_ms
        known, until = None, last[name] + session.step_ms
        if name in restored:
            until = await asyncio.to_thread(_known_until, session, name, until)
        else:
            known = pasts[name].funding
        session.funding.start(name, known, until, restored.spacings.get(name, 0))
    session.gate.start(last, closes)
    return last


def _known_until(session: Session, name: str, until: int) -> int:
    """Where to ask for rates from: a kill may have come between those of the last bars and the lake."""
    if session.lake is None:
        return until
    rates = session.lake.funding(name, until - ASK_AGAIN_MS, until)
    return min(until, int(_ms(rates)[-1]) + 1) if len(rates) else until


# --- a warm-up -------------------------------------------------------------------------------------------------------


async def _pasts(session: Session, fresh: list[str], now: int) -> dict[str, Past]:
    """Histories of the symbols, and of the reference, which the others' bars need."""
    slots, reference = asyncio.Semaphore(AT_ONCE), session.reference

    async def one(name: str) -> Past:
        async with slots:
            return await past_of(session.feed, session.lake, name, now)

    wanted = list(dict.fromkeys([*fresh, *([reference] if reference else [])]))
    pasts = dict(zip(wanted, await asyncio.gather(*map(one, wanted)), strict=True))
    if reference is not None:
        known = max(session.fleet.last_time(reference) or 0, *_ms(pasts[reference].candles)[-1:].tolist(), 0)
        late = max(known, now - round(1000 * REFERENCE_WAIT_S) - session.step_ms)
        for name in fresh if known else ():
            # Bars that wait for the reference's, as they would in the session, are taken when that is there.
            pasts[name] = pasts[name]._replace(candles=pasts[name].candles[_ms(pasts[name].candles) <= late])
    return pasts


def _warm_up(session: Session, name: str, pasts: dict[str, Past], now: int) -> None:
    past = pasts[name]
    lake, keeper = session.lake, session.keeper
    if lake is not None and len(past.fetched):
        lake.append(name, session.interval, past.fetched)
    if lake is not None and len(past.fetched_funding):
        lake.append_funding(name, past.fetched_funding)
    stamps = _ms(past.candles).tolist()
    told = {
        "bars": len(stamps),
        "last": stamps[-1] if stamps else None,
        "fingerprint": fingerprint_candles(past.candles) if stamps else "",
    }
    first = stamps[0] if stamps else now
    keeper.row("warm", name, first, told)
    session.put_in_force(name, first)
    if not stamps:
        return
    reference = pasts[session.reference].candles if session.reference else no_candles()
    bars = prepare_bars(past.candles, session.interval, reference if len(reference) else None, past.funding)
    try:
        found = session.fleet.advance(name, bars)
    except InputError as error:  # of an own trigger or factor
        raise InputError(f"{name}: {error}") from None
    _remember(session, name, found, past.candles[list(CANDLE_COLUMNS)].to_numpy(dtype=float))


def _remember(session: Session, name: str, found: Advanced, values: np.ndarray) -> None:
    session.recent.fill(name, found.signals["timestamp"], values, found.columns[_SHOWN].T, found.signals)


# --- a restart -------------------------------------------------------------------------------------------------------


class Restored(set[str]):
    """Symbols that go on from a snapshot, with what it says of them together."""

    closes: dict[int, float]
    spacings: dict[str, int]
    others: set[str]  # symbols of the snapshot that the session does not have
    stage1s: dict[tuple[str, int], Mapping[str, Any]]  # of the alerts after it, by symbol and bar

    def __init__(self) -> None:
        super().__init__()
        self.closes, self.spacings, self.others, self.stage1s = {}, {}, set(), {}


def _restore(session: Session) -> Restored:
    """Take over the snapshot and the rows after it; nothing where there is none, or none that fits."""
    out = Restored()
    journal = session.journal
    if journal is None:
        return out
    try:
        found = journal.snapshot()
        if found is not None:
            head, blobs = found
            _refuse_another(session, journal, head)
            _take_snapshot(session, head, blobs, out)
            table = journal.table(after=head["commit"])
            _note_journalled(session, table)
            _take_rows(session, table, out)
            _take_alerts(session, table, out, head.get("asks", False))
    except _AnotherJournal:
        raise
    except AioneError as error:
        _log.warning("the journal's snapshot is not used, the session warms up anew: %s", error)
        session.renew()
        out = Restored()
    if not out:
        _note_journalled(session, _of_this_kind(session, journal))
    return out


class _AnotherJournal(InputError):
    """The journal is of candles that are not the session's."""


def _refuse_another(session: Session, journal: Journal, head: dict[str, Any]) -> None:
    """A mistyped option must not mix two markets in one journal."""
    now = _candles_of(session)
    then = {"feed": now["feed"], **{name: head[name] for name in now if name in head}}
    if then != now:
        texts = [f"{one['interval']} candles of {one['feed'] or 'another feed'}" for one in (then, now)]
        allowed = f"holds {texts[0]}; these are {texts[1]}, which need a folder of their own"
        raise _AnotherJournal.of("journal", str(journal.folder), allowed)


def _candles_of(session: Session) -> dict[str, str]:
    return {"interval": session.interval, "feed": getattr(session.feed, "origin", "")}


def _of_this_kind(session: Session, journal: Journal) -> pa.Table:
    """The journal's last rows that were decided as this session decides; what others made of those bars is theirs."""
    table = journal.table(columns=("kind", "symbol", "timestamp", "detail"))
    starts = np.flatnonzero(np.isin(table["kind"].to_numpy(), ("start", "resume"))).tolist()
    now, first = configuration(session), len(table)
    for at in reversed(starts):
        then = json.loads(table["detail"][at].as_py())
        if first == len(table):
            _refuse_another(session, journal, then)
        if any(then[name] != now[name] for name in ("interval", "reference", "spec", "settings", "costs")):
            break
        first = at
    return table.slice(first)


def _note_journalled(session: Session, table: pa.Table) -> None:
    """Remember the last bar of each symbol in the rows, whoever of them the session follows."""
    # As text: each part has words of its own for the symbols, which only their texts bring together.
    kinds, names = (table[name].cast(pa.string()) for name in ("kind", "symbol"))
    bars = pa.table({"symbol": names, "timestamp": table["timestamp"]}).filter(pc.equal(kinds, "bar"))
    for group in bars.group_by("symbol").aggregate([("timestamp", "max")]).to_pylist():
        session.keeper.until[group["symbol"]] = group["timestamp_max"]


def _take_snapshot(session: Session, head: dict[str, Any], blobs: dict[str, bytes], out: Restored) -> None:
    if head["reference"] != session.reference:
        raise AioneError(f"it is of the reference {head['reference']}")
    for name in session.symbols:
        if f"engine/{name}" in blobs:
            session.fleet.restore(name, blobs[f"engine/{name}"])
            k = session.fleet.places[name]
            session.fleet.outs[k : k + 1].view(np.uint8)[:] = np.frombuffer(blobs[f"out/{name}"], np.uint8)
            session.recent.load(name, blobs[f"recent/{name}"])
            out.add(name)
    out.others = {name.removeprefix("engine/") for name in blobs if name.startswith("engine/")} - {*session.symbols}
    out.closes = {int(time): close for time, close in head["closes"]}
    out.spacings = head["spacings"]
    session.keeper.until = dict(head["until"])
    session.calibrations.asked = dict(head["asked"])
    looks = head.get("waiting", {}).items()
    session.calibrations.waiting = {name: stage1 for name, stage1 in looks if name in session.symbols}
    session.decisions.default_counts = dict(head["default_counts"])
    session.alerts_seen.extend(frozen(alert) for alert in head["alerts"])
    session.trades_seen.extend(map(ReadOnly, head.get("trades", ())))
    session.counts.update(head["counts"])
    session.net_pnl = head.get("net_pnl", 0.0)


def _take_rows(session: Session, table: pa.Table, out: Restored) -> None:
    """Push what was decided after the snapshot once more, from the rows themselves."""
    kinds = table["kind"].to_numpy()
    symbols = table["symbol"].to_numpy()
    for name in session.symbols:
        if name not in out:
            continue
        mine = np.flatnonzero(((kinds == "bar") | (kinds == "thresholds")) & (symbols == name))
        sets = mine[kinds[mine] == "thresholds"]
        for piece in np.split(mine, np.searchsorted(mine, sets)):
            if len(piece) and kinds[piece[0]] == "thresholds":
                text = table["detail"][int(piece[0])].as_py()
                session.fleet.set_thresholds(name, Thresholds.from_json(text))
                piece = piece[1:]
            if len(piece):
                _push_again(session, name, table.take(piece), out)


def _push_again(session: Session, name: str, rows: pa.Table, out: Restored) -> None:
    bars = bars_of_rows(rows)
    found = session.fleet.advance(name, bars)
    if found.signals.tobytes() != signal_records(rows).tobytes():
        _log.warning(
            "%s: the journal's signals from %s on differ from those of this version; 'aione-lab drift' names causes",
            name,
            iso(int(bars["timestamp"][0])),
        )
    limits, spec = session.fleet.thresholds(name), session.fleet.engines[0].spec
    for i in np.flatnonzero(found.signals["signal"] == ALERT).tolist():
        stage1 = stage1_dict(name, features_at(found.columns, i), found.signals[i], limits, spec=spec)
        out.stage1s[name, int(bars["timestamp"][i])] = plain("stage1", stage1)
    values = np.column_stack([rows[column].to_numpy() for column in CANDLE_COLUMNS])
    _remember(session, name, found, values)
    if name == session.reference:
        out.closes |= dict(zip(bars["timestamp"].tolist(), bars["close"].tolist(), strict=True))
    for stamp, row in zip(bars["timestamp"].tolist(), values.tolist(), strict=True):
        session.keeper.candle(Candle(name, stamp, *row))  # the lake may lack the last of them
    session.counts["bars"] += len(bars)
    session.counts["alerts"] += len(found.assessments)
    session.closed(name, found.trades)


def _take_alerts(session: Session, table: pa.Table, out: Restored, asks: bool) -> None:
    """Alerts and second looks after the snapshot, as they were told one after the other, and what is counted of them.

    ``asks``: the session that wrote them asked for calibrations.
    """
    told = table.select(["kind", "symbol", "timestamp", "detail"]).filter(pc.is_valid(table["detail"]))
    for row in told.to_pylist():
        name, bar = row["symbol"], row["timestamp"]
        if name not in out or row["kind"] not in ("bar", "second_look"):
            continue
        stage2 = json.loads(row["detail"])
        session.alerts_seen.append(frozen(stage2))
        quality = stage2["quality_metrics"]
        if row["kind"] == "second_look":
            session.counts["second_looks"] += 1
            session.calibrations.waiting.pop(name, None)
        elif quality["used_default_calibration"]:
            session.decisions.default_counts[name] = quality["default_calibration_count"]
            if asks and not session.calibrations.rests(name, bar):
                session.calibrations.asked[name] = bar
                if (name, bar) in out.stage1s:
                    session.calibrations.waiting[name] = out.stage1s[name, bar]


def bars_of_rows(rows: pa.Table) -> np.ndarray:
    """BAR (n,) of a journal's bars: what the engine was given."""
    bars = np.zeros(len(rows), BAR)
    for name in BAR.names or ():
        bars[name] = rows[name].to_numpy()
    return bars


def take_snapshot(session: Session) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Head and bytes from which ``open_session`` goes on."""
    blobs: dict[str, bytes] = {}
    for name, blob in session.fleet.snapshot().items():
        k = session.fleet.places[name]
        blobs[f"engine/{name}"] = blob
        blobs[f"out/{name}"] = session.fleet.outs[k : k + 1].tobytes()
        blobs[f"recent/{name}"] = session.recent.dump(name)
    head = {
        **_candles_of(session),
        "reference": session.reference,
        "closes": list(session.gate.closes.items()),
        "spacings": session.funding.spacings(),
        "until": dict(session.keeper.until),
        "asks": session.calibrations.possible,
        "asked": dict(session.calibrations.asked),
        "waiting": dict(session.calibrations.waiting),
        "default_counts": dict(session.decisions.default_counts),
        "alerts": list(session.alerts_seen),
        "trades": list(session.trades_seen),
        "counts": dict(session.counts),
        "net_pnl": session.net_pnl,
    }
    return head, blobs


def _ms(frame: pd.DataFrame | pd.Series) -> np.ndarray:
    return pd.DatetimeIndex(frame.index).as_unit("ms").asi8
