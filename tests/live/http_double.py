"""A web service on loopback that answers by script and remembers what it was asked."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Asked:
    path: str
    content: Any
    headers: dict[str, str]
    at: float


@dataclass
class HttpDouble:
    """``async with HttpDouble(answer)``: ``script`` is used up first, one entry a request, then ``answer`` holds.

    An entry is (status, JSON object), (status, object, headers), a text (status 200, no JSON) or "drop".
    """

    answer: Any = (200, {})
    script: list[Any] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    async def __aenter__(self) -> HttpDouble:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(Asked(request.path, await request.json(), dict(request.headers), time.monotonic()))
        answer = self.script.pop(0) if self.script else self.answer
        if answer == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(answer, str):
            return web.Response(text=answer)
        status, content, *headers = answer
        return web.json_response(content, status=status, headers=headers[0] if headers else None)
