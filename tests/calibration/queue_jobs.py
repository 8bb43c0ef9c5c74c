"""Jobs for the tests of the calibration queue; importable by the processes that run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aione_lab.calibration.request import CalibrationOutcome, CalibrationRequest

Report = Callable[[int, int], None]
LONG = 3_600.0


def outcome(request: CalibrationRequest, verdict: str = "accept", **provenance: Any) -> CalibrationOutcome:
    where = {"pid": os.getpid(), "options": dict(request.options), **provenance}
    thresholds = {"vol_z_threshold": 2.5}
    return CalibrationOutcome(request.symbol, request.interval, verdict, "It was tried.", thresholds, where)


def quick(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    report(0, 3)
    report(3, 3)
    return outcome(request)


def keeps_defaults(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    return outcome(request, "keep defaults")


def failing(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    raise ZeroDivisionError("no trades to divide by")


def failing_for_sol(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    return failing(request, report) if request.symbol == "SOLUSDT" else quick(request, report)


def fails_while_there(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    return failing(request, report) if Path(request.options["file"]).exists() else quick(request, report)


def leaves(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    report(1, 9)
    os._exit(7)


def leaves_politely(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    sys.exit("enough")


def is_killed(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")


def answers_nonsense(request: CalibrationRequest, report: Report) -> Any:
    return {"verdict": "accept"}


def answers_for_another(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    return outcome(CalibrationRequest("ETHUSDT", request.interval))


def reports_backwards(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    report(4, 3)
    return outcome(request)


def lingers(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    """Answer, and leave behind a thread that keeps the process from ending."""
    threading.Thread(target=time.sleep, args=(LONG,)).start()
    return outcome(request)


def hangs(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    report(os.getpid(), 10**9)
    time.sleep(LONG)
    raise AssertionError("not reached")


def hangs_with_children(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    """Start a process, and a fork that keeps every pipe open; tell their ids and hang."""
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({LONG})"])
    fork = os.fork()
    if fork == 0:
        time.sleep(LONG)
        os._exit(0)
    Path(request.options["file"]).write_text(f"{os.getpid()} {child.pid} {fork}")
    report(0, 1)
    time.sleep(LONG)
    raise AssertionError("not reached")


def leaves_a_fork(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    """Die, and leave a fork that keeps the pipe open."""
    fork = os.fork()
    if fork == 0:
        time.sleep(LONG)
        os._exit(0)
    Path(request.options["file"]).write_text(str(fork))
    os._exit(3)


def busy(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    """Burn the processor until the file is there; an impatient half minute at most."""
    report(0, 1)
    began = time.monotonic()
    while not os.path.exists(request.options["file"]):
        if time.monotonic() - began > 30.0:
            raise TimeoutError("nobody made the file")
    return outcome(request)


def chatty(request: CalibrationRequest, report: Report) -> CalibrationOutcome:
    """Print, read standard input, and report far more often than anybody wants to hear."""
    print("a line that must not disturb the answer")
    assert sys.stdin.read() == ""
    for done in range(20_001):
        report(done, 20_000)
    return outcome(request, text="x" * 300_000)
