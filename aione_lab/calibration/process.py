"""One job in one process: started, listened to and, where need be, killed, without holding up the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from aione_lab.calibration.request import CalibrationOutcome, CalibrationRequest, Job
from aione_lab.calibration.worker import HEADER
from aione_lab.errors import AioneError, InputError

LONGEST_FRAME = 64 * 2**20  # bytes; an outcome has a few thousand
GRACE_S = 5.0
"""Seconds that a process has to end by itself once it has answered."""

OnProgress = Callable[[int, int], Awaitable[None]]


class JobFailed(AioneError):
    """A job that came to no outcome; ``details`` is its traceback, where it left one."""

    def __init__(self, text: str, details: str = "") -> None:
        super().__init__(text)
        self.details = details


def check_job(job: Any) -> None:
    """InputError for what another process could not run."""
    allowed = "must be a function at the top level of a module: it runs in a process of its own"
    if not callable(job):
        raise InputError.of("job", job, allowed)
    try:
        pickled = pickle.dumps(job)
    except Exception:  # pickle raises whatever an object's own methods raise
        raise InputError.of("job", job, allowed) from None
    if b"__main__" in pickled:
        raise InputError.of("job", job, "must live in a module, another process cannot see this notebook or script")


async def run_job(job: Job, request: CalibrationRequest, on_progress: OnProgress, timeout: float) -> CalibrationOutcome:
    """Outcome of ``job(request, report)`` in a fresh process; JobFailed where there is none after ``timeout`` seconds.

    The process is a session of its own: Ctrl-C in a terminal or a notebook's interrupt does not reach it. When this
    coroutine ends, by an outcome, an error or a cancellation, the process and all that it has started are gone. When
    this process dies instead, the other one notices and ends itself.
    """
    payload = pickle.dumps((job, request))
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as source:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _program(write_end)),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(write_end,),
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        reader = asyncio.StreamReader()
        listening = asyncio.ensure_future(_listen(reader, on_progress))
        ended = asyncio.ensure_future(process.wait())
        try:
            # the transport closes the file when it is closed; the file itself bears being closed twice
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), source
            )
            try:
                return await _converse(process, payload, listening, ended, timeout)
            finally:
                transport.close()
        finally:
            listening.cancel()
            _kill_group(process.pid)
            assert process.stdin is not None
            process.stdin.close()
            both: set[asyncio.Future[Any]] = {listening, ended}
            await asyncio.wait(both)


async def _converse(
    process: asyncio.subprocess.Process,
    payload: bytes,
    listening: asyncio.Future[CalibrationOutcome | None],
    ended: asyncio.Future[int],
    timeout: float,
) -> CalibrationOutcome:
    assert process.stdin is not None
    both: set[asyncio.Future[Any]] = {listening, ended}
    try:
        async with asyncio.timeout(timeout):  # until it answers, not until it is gone: an answer in time counts
            with contextlib.suppress(ConnectionError):  # it died before it read; its exit code tells more
                process.stdin.write(HEADER.pack(len(payload)) + payload)
                await process.stdin.drain()
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        raise JobFailed(f"it took longer than optuna_timeout={timeout:g} seconds and was killed") from None
    if not listening.done():
        # It is dead and the pipe still open: what it said last is being read, or a child of its own holds the pipe.
        _kill_group(process.pid)
        await asyncio.wait({listening}, timeout=GRACE_S)
    else:
        await asyncio.wait({ended}, timeout=GRACE_S)
    outcome = listening.result() if listening.done() else None
    if outcome is None:
        raise JobFailed(f"its process {how_ended(ended.result() if ended.done() else None)} without an outcome")
    return outcome


async def _listen(reader: asyncio.StreamReader, on_progress: OnProgress) -> CalibrationOutcome | None:
    """Read frames up to the outcome; None where the pipe ends before."""
    while True:
        try:
            (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
            if size > LONGEST_FRAME:
                raise JobFailed(f"its outcome has {size:,} bytes, more than {LONGEST_FRAME:,}")
            message = json.loads(await reader.readexactly(size))
        except asyncio.IncompleteReadError:
            return None
        if "progress" in message:
            await on_progress(*message["progress"])
        elif "error" in message:
            raise JobFailed(message["error"], message["traceback"])
        else:
            return CalibrationOutcome(**message["outcome"])


def _program(write_end: int) -> str:
    """What the new interpreter runs. It imports what this one can import, and nothing of its main script."""
    path = [entry for entry in sys.path if isinstance(entry, str)]
    return f"import sys; sys.path[:] = {path!r}; from aione_lab.calibration.worker import main; main({write_end})"


def _kill_group(pid: int) -> None:
    # A group can outlive its leader; macOS answers EPERM for one that is dead and not yet reaped.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def how_ended(code: int | None) -> str:
    """How a process ended, for a sentence that begins with it."""
    if code is None:
        return "closed its pipe"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
