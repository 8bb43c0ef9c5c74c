"""Running asynchronous work for a synchronous caller, in a script and in a notebook alike."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also from inside a running loop (a notebook), where it gets a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main)
    loop = asyncio.new_event_loop()
    task = loop.create_task(main)

    def serve() -> None:
        asyncio.set_event_loop(loop)
        with contextlib.suppress(BaseException):  # kept in the task, raised from it below
            loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    thread = threading.Thread(target=serve, name="aione-lab-fetch")
    thread.start()
    try:
        thread.join()
    except BaseException:  # a notebook's interrupt: stop the download, then let it through
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    return task.result()
