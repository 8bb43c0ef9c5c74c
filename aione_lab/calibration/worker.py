"""The inside of a calibration's process: read the job, run it, tell how far it is and what came of it.

Started by ``process.run_job`` and by nothing else. The request comes in on standard input as one pickled frame,
JSON frames go out on a pipe of their own, so that a job may print. A frame is its length (4 bytes, big-endian)
and as many bytes.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
import pickle
import signal
import struct
import sys
import threading
import time
import traceback
from typing import Any

from aione_lab.calibration.request import CalibrationOutcome
from aione_lab.errors import InputError

NICENESS = 10
"""A calibration is in less of a hurry than the feed and the notebook beside it."""
REPORT_EVERY_S = 0.1
LONGEST_TRACEBACK = 20_000  # characters; the end of it says the most
HEADER = struct.Struct(">I")


def main(out: int) -> None:
    """Run the one job that standard input asks for, and answer on file descriptor ``out``."""
    os.nice(NICENESS)
    requests = os.dup(0)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)  # a job that reads standard input finds it empty
    channel = _Channel(out)
    payload = _read(requests, HEADER.unpack(_read(requests, HEADER.size))[0])
    threading.Thread(target=_end_with_parent, args=(requests,), daemon=True).start()
    answer: dict[str, Any]
    try:
        job, request = pickle.loads(payload)
        outcome = job(request, channel.report)
        if not isinstance(outcome, CalibrationOutcome):
            raise InputError.of("outcome", outcome, "must be a CalibrationOutcome")
        if (outcome.symbol, outcome.interval) != (request.symbol, request.interval):
            asked = f"must be of {request.symbol} {request.interval}, which was asked for"
            raise InputError.of("outcome", f"{outcome.symbol} {outcome.interval}", asked)
        answer = {"outcome": outcome.to_json()}
    except BaseException as error:  # SystemExit too: whatever ends the job is told, and ends this process anyway
        text = "".join(traceback.format_exception(error))[-LONGEST_TRACEBACK:]
        answer = {"error": f"{type(error).__name__}: {error}", "traceback": text}
    with contextlib.suppress(OSError, ValueError):  # a job may have closed them; its answer counts
        sys.stdout.flush()
        sys.stderr.flush()
    channel.send(answer)


class _Channel:
    """The way out; a job may report from several threads."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._last: tuple[int, int] | None = None
        self._when = 0.0

    def send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        with self._lock:
            rest = memoryview(HEADER.pack(len(body)) + body)
            while rest:
                rest = rest[os.write(self._out, rest) :]

    def report(self, done: int, total: int) -> None:
        """Tell how far the job is: at most ten times a second, the first and the last always."""
        try:
            now_at = operator.index(done), operator.index(total)
        except TypeError:
            raise InputError.of("done, total", (done, total), "must be whole numbers") from None
        if not 0 <= now_at[0] <= now_at[1]:
            raise InputError.of("done, total", now_at, "must be 0 ≤ done ≤ total")
        with self._lock:
            now = time.monotonic()
            soon = self._last is not None and now - self._when < REPORT_EVERY_S
            if now_at == self._last or (soon and now_at[0] < now_at[1]):
                return
            self._last, self._when = now_at, now
        self.send({"progress": now_at})


def _read(source: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(source, size - len(parts))
        if not part:
            os._exit(1)  # the parent is gone before it has asked
        parts += part
    return bytes(parts)


def _end_with_parent(requests: int) -> None:
    """Nothing more is ever written here: the end of it means that the parent is gone, however it went."""
    while os.read(requests, 1):
        pass
    os.killpg(os.getpid(), signal.SIGKILL)  # and whatever the job has started: we lead a group of our own
