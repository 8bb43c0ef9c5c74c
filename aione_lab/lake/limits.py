"""Bounds on what a file from elsewhere may ask of this machine: sizes, members, decompression.

Archives come from the network and from other people, so nothing a file *says* about its own size is
believed: zip members are read through a counter, and the buffers of an Arrow file are added up
before one of them is unpacked.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import PurePosixPath

import pyarrow as pa

from aione_lab.errors import AioneError

MAX_FILE_BYTES = 1 << 30
MAX_ZIP_BYTES = 64 << 20  # a month of minutes is 2 MB; the directory of a larger one could hold millions of entries
MAX_UNPACKED_BYTES = 1 << 30
MAX_ROWS = 20_000_000  # 38 years of minutes
MAX_COLUMNS = 256

# Klines shrink 3 to 6 times in a zip, a frozen symbol's perhaps 60 times; small members may do more.
MAX_RATIO = 200
RATIO_COUNTS_FROM = 16 << 20


class BadFileError(AioneError):
    """A file cannot be used; the text is the reason alone, the caller adds the file's name."""


def single_csv_member(data: bytes) -> tuple[str, bytes]:
    """Name and content of the one CSV inside a zip; BadFileError for any other zip.

    Nothing is ever written under a member's name; names that leave the archive's folder are refused
    all the same, because such an archive was made to harm.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            member = _only_member(archive)
            return member.filename, _read_bounded(archive, member)
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error) as error:
        raise BadFileError(f"is not a sound zip file ({error})") from None
    except (NotImplementedError, RuntimeError, OverflowError, ValueError, OSError) as error:
        raise BadFileError(f"is a zip file that cannot be unpacked ({error})") from None


def _only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [m for m in archive.infolist() if not m.is_dir()]
    if len(members) != 1:
        raise BadFileError(f"holds {len(members)} files, an exchange archive holds exactly one CSV")
    member = members[0]
    name = member.filename
    if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts or ":" in name:
        raise BadFileError(f"has a member with an unsafe name {name[:80]!r}")
    if not name.lower().endswith(".csv"):
        raise BadFileError(f"holds {name[:80]!r}, which is not a CSV")
    if member.flag_bits & 0x1:
        raise BadFileError("is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadFileError("is packed by a method other than store or deflate")
    return member


def _read_bounded(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The member's bytes, counted while they come out: its header may lie about their number."""
    limit = min(MAX_UNPACKED_BYTES, max(RATIO_COUNTS_FROM, MAX_RATIO * member.compress_size))
    parts: list[bytes] = []
    size = 0
    with archive.open(member) as stream:
        while chunk := stream.read(1 << 20):
            size += len(chunk)
            if size > limit:
                raise BadFileError(
                    f"unpacks to more than {limit >> 20} MiB ({MAX_RATIO} times its size, at most "
                    f"{MAX_UNPACKED_BYTES >> 20} MiB, are allowed): looks like a zip bomb"
                )
            parts.append(chunk)
    return b"".join(parts)


def check_arrow_message(message: pa.ipc.Message) -> tuple[int, int]:
    """Rows and unpacked bytes that one message of an Arrow stream declares, without unpacking it.

    A compressed buffer starts with its unpacked length (int64), which the reader would allocate
    unasked. Source: Arrow columnar format, "Serialization and Interprocess Communication",
    `Message.fbs`.
    """
    if message.type not in ("record batch", "dictionary"):
        return 0, 0
    meta = message.metadata.to_pybytes()
    body = memoryview(message.body) if message.body is not None else memoryview(b"")
    try:
        root = struct.unpack_from("<I", meta, 0)[0]
        batch = _child(meta, root, 2)
        if batch is not None and message.type == "dictionary":
            batch = _child(meta, batch, 1)
        if batch is None:
            return 0, 0
        length_at = _field(meta, batch, 0)
        rows = struct.unpack_from("<q", meta, length_at)[0] if length_at else 0
        buffers = _child(meta, batch, 2)
        packed = _field(meta, batch, 3) is not None
        unpacked = 0
        if buffers is not None:
            (count,) = struct.unpack_from("<I", meta, buffers)
            for i in range(count):
                offset, length = struct.unpack_from("<qq", meta, buffers + 4 + 16 * i)
                if packed and length >= 8:
                    length = max(length, struct.unpack_from("<q", body, offset)[0])
                unpacked += length
        return rows, unpacked
    except struct.error:
        raise BadFileError("is a damaged Arrow file") from None


def _field(buffer: bytes, table: int, index: int) -> int | None:
    """Position of field ``index`` of a flatbuffer table, None when it is not set."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    size = struct.unpack_from("<H", buffer, vtable)[0]
    slot = 4 + 2 * index
    if slot >= size:
        return None
    offset = struct.unpack_from("<H", buffer, vtable + slot)[0]
    return table + offset if offset else None


def _child(buffer: bytes, table: int, index: int) -> int | None:
    """Position of the table or vector that field ``index`` points to."""
    at = _field(buffer, table, index)
    return None if at is None else at + struct.unpack_from("<I", buffer, at)[0]
