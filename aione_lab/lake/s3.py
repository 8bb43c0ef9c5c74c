"""A lake in an object store, to be read only, through pyarrow's own S3 client.

An address is ``s3://bucket/prefix``, with credentials (``s3://KEY:SECRET@bucket/prefix``, both percent-encoded) or
better without: the client then finds them as every AWS tool does (environment, ``~/.aws``, the machine's role).
``?region=…&endpoint_override=host:port&scheme=http`` name another store than Amazon's, the words and the environment's
``AWS_ENDPOINT_URL`` being those of ``pyarrow.fs.FileSystem.from_uri``. That function itself is not used because it
takes neither time-outs nor a bound on retries. Credentials are shown nowhere.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode

import pyarrow as pa

from aione_lab.errors import InputError, LakeError
from aione_lab.lake.storage import Entry, LocalStorage, Storage, Stored

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_SWALLOWED = re.compile(r"s3:/(?!/)", re.IGNORECASE)  # pathlib makes one slash of two
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_OPTIONS = {
    "region": re.compile(r"[A-Za-z0-9-]+"),
    "endpoint_override": re.compile(r"(https?://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?"),
    "scheme": re.compile(r"https?"),
}

_CONNECT_SECONDS = 2.0
_SILENCE_SECONDS = 5.0  # without a byte; three attempts of it and their pauses make some twenty
_ATTEMPTS = 3
_REQUESTS = 16  # at a time: each is mostly waiting

_GONE = {"NO_SUCH_KEY", "NO_SUCH_BUCKET", "RESOURCE_NOT_FOUND"}
# What is told of a failure. Never its whole text: that is the server's, which may hold what it was sent.
_CODE = re.compile(r"AWS Error ([A-Z_]+)(?: \(HTTP status (\d{3})\))? during")
_CURL = re.compile(r"curlCode: \d+, ([A-Za-z ']+)")

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def open_storage(root: str | os.PathLike[str]) -> Storage:
    """The storage that ``root`` names, a folder or an address; LakeError for an address that leads to nothing."""
    text = str(os.fspath(root)) if isinstance(root, (str, os.PathLike)) else ""
    if _SWALLOWED.match(text):
        raise InputError.of("root", text[:4], "an address must be a text, written s3://bucket/prefix")
    if not (scheme := _ADDRESS.match(text)):
        return LocalStorage(root)
    if scheme[1].lower() != "s3":
        raise InputError.of("root", scheme[0], "must be a folder or an address s3://bucket/prefix")
    storage = S3Storage(text)
    if not storage.entries(""):
        raise LakeError(f"{storage.root}: no such bucket, or nothing in it under this prefix")
    return storage


class S3Storage(Storage):
    """Objects of one lake. A pickled one holds its address as it was given, credentials included."""

    def __init__(self, address: str) -> None:
        self._given = address
        base, _, query = address[len("s3://") :].partition("?")
        place, _, prefix = base.partition("/")
        credentials, at, bucket = place.rpartition("@")
        key, _, secret = (unquote(part) for part in credentials.partition(":"))
        prefix = prefix.rstrip("/")
        if not _BUCKET.fullmatch(bucket) or (at and not (key and secret)):
            raise InputError.of("root", _hidden(address), "must be s3://bucket/prefix or s3://KEY:SECRET@bucket/prefix")
        if prefix and not all(map(_is_plain, prefix.split("/"))):
            raise InputError.of("root", _hidden(address), "must have a prefix of plain names (none of @ # % \\ . ..)")
        self._keys = {"access_key": key, "secret_key": secret} if at else {}
        self._options = _read_options(query)
        self._base = f"{bucket}/{prefix}" if prefix else bucket
        shown = urlencode(self._options, safe=":/[]")
        self.root = f"s3://{self._base}" + (f"?{shown}" if shown else "")

    def __reduce__(self) -> tuple[type[S3Storage], tuple[str]]:
        return S3Storage, (self._given,)

    @cached_property
    def _client(self) -> S3FileSystem:
        try:
            from pyarrow import fs

            options = dict(self._options)
            if "endpoint_override" not in options:
                named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
                options |= {"endpoint_override": named} if named else {}
            if not options.keys() & {"endpoint_override", "region"}:
                options["region"] = fs.resolve_s3_region(self._base.split("/")[0])
            return fs.S3FileSystem(
                **self._keys,
                **options,
                connect_timeout=_CONNECT_SECONDS,
                request_timeout=_SILENCE_SECONDS,
                retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
            )
        except ImportError:
            raise LakeError(f"{self.root}: this pyarrow was built without its S3 client") from None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._failure(self.root, error) from None

    def path(self, relative: str) -> str:
        return f"s3://{self._key(relative)}"

    def _key(self, relative: str) -> str:
        return f"{self._base}/{relative}" if relative else self._base

    def load(self, relative: str) -> Stored:
        """Known by (ETag, size, time of change); one request for these and one for the content."""
        client = self._client
        try:
            with client.open_input_file(self._key(relative)) as file:
                told = file.metadata()
                content = file.readall()
        except (OSError, ValueError, pa.ArrowException) as error:
            failure = self._failure(self.path(relative), error)
        else:
            tag = told.get("ETag")
            return Stored(content, (tag, len(content), told.get("Last-Modified")) if tag else None)
        raise failure  # out here it does not carry the client's own error, whose text is the server's

    def entries(self, folder: str) -> list[Entry]:
        from pyarrow import fs

        client = self._client
        try:
            found = client.get_file_info(fs.FileSelector(self._key(folder), allow_not_found=True))
        except (OSError, ValueError, pa.ArrowException) as error:
            failure = self._failure(self.path(folder), error)
        else:
            return [Entry(one.base_name, one.type == fs.FileType.Directory) for one in found]
        if isinstance(failure, FileNotFoundError):
            return []
        raise failure

    def map(self, function: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[_Made]:
        with ThreadPoolExecutor(_REQUESTS) as pool:
            yield from pool.map(function, items)

    def _failure(self, shown: str, error: Exception) -> LakeError | FileNotFoundError:
        """What to raise for an error of the client, after its retries."""
        text = str(error)
        code, curl = _CODE.search(text), _CURL.search(text)
        if isinstance(error, FileNotFoundError) or (code and code[1] in _GONE):
            return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), shown)
        told = [code[1], code[2] and f"HTTP status {code[2]}"] if code else [type(error).__name__]
        reason = ", ".join(filter(None, [*told, curl and curl[1].strip()]))
        return LakeError(f"{shown}: cannot be read from the object store ({reason})")


def _read_options(query: str) -> dict[str, str]:
    """The options of an address in a fixed order; refused by name, a value may be a secret in the wrong place."""
    given = parse_qsl(query, keep_blank_values=True)
    for name, value in given:
        if name not in _OPTIONS:
            raise InputError.unknown(
                "option of the address", name if re.fullmatch("[a-z_]{1,32}", name) else "…", _OPTIONS
            )
        if not _OPTIONS[name].fullmatch(value) or [name for name, _ in given].count(name) > 1:
            raise InputError.of("root", f"s3://…?{name}=…", f"{name} must be given once and be a plain name")
    return {name: dict(given)[name] for name in _OPTIONS if name in dict(given)}


def _is_plain(segment: str) -> bool:
    return segment.isprintable() and segment not in ("", ".", "..") and not set(segment) & set("@#%\\")


def _hidden(address: str) -> str:
    """What of an address that cannot be read may be shown: nothing that could be a part of credentials."""
    base = re.split("[?#]", address[len("s3://") :], maxsplit=1)[0]
    known = base.rpartition("@")[2]
    return f"s3://{known}" if "@" in base or ":" not in known else "s3://…"
