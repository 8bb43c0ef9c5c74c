"""A small S3 server on loopback over a folder, its buckets being the folders in it: enough to read from, and to fail.

ListObjectsV2 with delimiter and continuation, HEAD, GET with Range, errors in XML. Signatures are not looked at.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import re
import socket
import threading
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

CANARY = "c4n4ry/+zq9x7w"  # a slash and a plus, as in real ones
KEY = "AKIACANARYKEY"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.double.connections.append(self.connection)

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.server.double.writes.append(self.path)
        self.error(501, "NotImplemented")

    do_POST = do_DELETE = do_PUT

    def answer(self) -> None:
        double = self.server.double
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        double.requests.append((self.command, key))
        if double.fault in ("AccessDenied", "InternalError"):
            return self.error(403 if double.fault == "AccessDenied" else 500, double.fault)
        if double.fault == "hang":
            double.stopped.wait(60)
            return None
        if not (double.folder / bucket).is_dir():
            return self.error(404, "NoSuchBucket")
        if "list-type" in (query := parse_qs(url.query)):
            return self.listing(double.folder / bucket, {name: values[0] for name, values in query.items()})
        file = double.folder / bucket / key
        if not key or not file.is_file():
            return self.error(404, "NoSuchKey")
        return self.object(file)

    def object(self, file: Path) -> None:
        content = file.read_bytes()
        headers = {
            "ETag": f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"',
            "Last-Modified": formatdate(file.stat().st_mtime, usegmt=True),
            "Accept-Ranges": "bytes",
        }
        if self.server.double.fault == "no tags":
            del headers["ETag"]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self.send(200, content, headers)
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self.send(206, content[first : last + 1], headers)

    def listing(self, bucket: Path, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        keys = sorted(path.relative_to(bucket).as_posix() for path in bucket.rglob("*") if path.is_file())
        found: dict[str, bool] = {}  # name: is a common prefix
        for key in keys:
            if key.startswith(prefix):
                rest, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key[len(prefix) :], "", "")
                found[prefix + rest + cut] = bool(cut)
        names = [name for name in found if name > query.get("continuation-token", "")]
        page = names[: min(int(query.get("max-keys", 1000)), self.server.double.page)]
        more = len(page) < len(names)
        body = ['<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>']
        body.append(f"<IsTruncated>{str(more).lower()}</IsTruncated><KeyCount>{len(page)}</KeyCount>")
        if more:
            body.append(f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>")
        for name in page:
            if found[name]:
                body.append(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>")
            else:
                size = (bucket / name).stat().st_size
                body.append(
                    f"<Contents><Key>{escape(name)}</Key><Size>{size}</Size>"
                    "<LastModified>2025-05-01T00:00:00.000Z</LastModified></Contents>"
                )
        self.send(200, "".join([*body, "</ListBucketResult>"]).encode(), {"Content-Type": "application/xml"})

    def error(self, status: int, code: str) -> None:
        """As a server may do that says what it was sent."""
        told = f"{code}: {CANARY} {KEY} {escape(str(self.headers))}"
        body = f"<Error><Code>{code}</Code><Message>{told}</Message></Error>".encode()
        self.send(status, body, {"Content-Type": "application/xml"})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.double.fault == "cut" and len(body) > 2000:
            body, self.close_connection = body[:1000], True
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    double: Double


class Double:
    """The server, running while it is entered; ``fault`` says what it does wrong."""

    faults: ClassVar = ("AccessDenied", "InternalError", "hang", "cut", "no tags")

    def __init__(self, folder: Path, page: int = 1000) -> None:
        self.folder, self.page = folder, page
        self.fault = ""
        self.requests: list[tuple[str, str]] = []
        self.writes: list[str] = []
        self.connections: list[socket.socket] = []
        self.stopped = threading.Event()

    def __enter__(self) -> Double:
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.double = self
        self.endpoint = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        if not self.stopped.is_set():
            self.stopped.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            for connection in self.connections:  # clients keep them open
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def address(self, place: str, credentials: bool = True) -> str:
        """``s3://…`` of ``bucket/prefix`` here."""
        keys = f"{KEY}:{quote(CANARY, safe='')}@" if credentials else ""
        return f"s3://{keys}{place}?region=us-east-1&endpoint_override={self.endpoint}&scheme=http"
