"""Bars an exchange was asked for twice and has no candle of: remembered, so that nobody asks every day again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from aione_lab.errors import LakeCorruption
from aione_lab.lake.storage import Series

if TYPE_CHECKING:
    from aione_lab.lake.store import Lake

Span = tuple[int, int]
"""Half-open range of open times in ms."""

_NAME = "_absent.json"  # the underscore hides it from dataset readers


def read_absent(lake: Lake, symbol: str, interval: str, exchange: str) -> list[Span]:
    """Ranges that ``exchange`` has no candles of, sorted and apart."""
    name = f"{Series.of(symbol, interval).folder}/{_NAME}"
    try:
        content = json.loads(lake._storage.read(name))
        return [(int(a), int(b)) for a, b in content.get(exchange, [])]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LakeCorruption(
            f"{lake._storage.path(name)}: cannot be read ({error}); it can be deleted without loss"
        ) from None


def add_absent(lake: Lake, symbol: str, interval: str, exchange: str, spans: list[Span]) -> None:
    """Remember more such ranges."""
    if not spans:
        return
    name = f"{Series.of(symbol, interval).folder}/{_NAME}"
    with lake._storage.lock(symbol, lake._lock_timeout):
        known = read_absent(lake, symbol, interval, exchange)
        merged = union([*known, *spans])
        if merged == known:
            return
        content = json.loads(lake._storage.read(name)) if lake._storage.exists(name) else {}
        lake._storage.write(name, json.dumps({**content, exchange: merged}, sort_keys=True).encode())


def union(spans: list[Span]) -> list[Span]:
    """The same ranges, sorted, with those that touch joined."""
    out: list[Span] = []
    for a, b in sorted(spans):
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], b))
        else:
            out.append((a, b))
    return out


def missing(stamps: np.ndarray, step: int, start: int, end: int) -> list[Span]:
    """Ranges of [start, end) on the grid of ``step`` that sorted ``stamps`` leave open."""
    edges = np.concatenate([[start - step], stamps[(stamps >= start) & (stamps < end)], [end]])
    holes = np.flatnonzero(np.diff(edges) > step)
    return [(int(edges[i]) + step, int(edges[i + 1])) for i in holes]


def without(spans: list[Span], gone: list[Span]) -> list[Span]:
    """What is left of ``spans`` outside ``gone``."""
    out = spans
    for a, b in gone:
        out = [piece for x, y in out for piece in ((x, min(y, a)), (max(x, b), y)) if piece[0] < piece[1]]
    return out
