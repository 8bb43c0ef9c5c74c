"""The manifest of a series: which data files are committed, each with its checksum.

Replacing the manifest is the commit. Data files are named after their generation and content and never
rewritten, so a kill before the commit leaves only files nobody refers to, and a kill after it leaves
superseded ones; both are swept when the lake is next opened, and neither reads as corruption.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aione_lab.errors import LakeCorruption
from aione_lab.lake.parts import Columns, Layout, encode
from aione_lab.lake.storage import DATA_FILE, MANIFEST, Series, Storage

VERSION = 1


class Part(BaseModel):
    """One committed data file: rows of one month, sorted, disjoint in time from every other part."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    file: Annotated[str, Field(pattern=r"^month=\d{4}-\d{2}/" + DATA_FILE.pattern + "$")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Field(gt=0)]
    rows: Annotated[int, Field(gt=0)]
    first_ms: int
    last_ms: int

    @property
    def month(self) -> str:
        """``2025-05``."""
        return self.file[6:13]


class Manifest(BaseModel):
    """Committed parts of one series in the order of time.

    ``generation`` counts the commits, ``revised`` the rows that a later write changed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    generation: Annotated[int, Field(ge=0)] = 0
    revised: Annotated[int, Field(ge=0)] = 0
    parts: tuple[Part, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)

    def encode(self) -> bytes:
        """JSON with a checksum of its own, the same bytes for the same content."""
        body = self.model_dump(mode="json")
        return json.dumps({"sha256": _digest(body), "manifest": body}, indent=1, sort_keys=True).encode()

    @classmethod
    def decode(cls, content: bytes, name: str) -> Manifest:
        """Inverse of ``encode``; LakeCorruption naming the file for anything else."""
        try:
            document = json.loads(content)
            if set(document) != {"sha256", "manifest"} or _digest(document["manifest"]) != document["sha256"]:
                raise ValueError("its checksum does not match")
            manifest = cls.model_validate_json(json.dumps(document["manifest"]))
        except (ValueError, TypeError, RecursionError) as error:
            why = "unknown fields or values" if isinstance(error, ValidationError) else str(error)
            raise LakeCorruption(f"{name}: the manifest is damaged ({why}); Lake.rebuild_manifest renews it") from None
        if manifest.version != VERSION:
            raise LakeCorruption(f"{name}: manifest version {manifest.version}, this program reads {VERSION}")
        return manifest


def _digest(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def build_part(month: str, generation: int, columns: Columns, layout: Layout) -> tuple[Part, bytes]:
    """A new data file of a month: its manifest entry and its bytes, named after generation and content."""
    content = encode(columns, layout)
    name = f"{generation:08d}-{hashlib.sha256(content).hexdigest()[:32]}.parquet"
    return describe(f"month={month}/{name}", content, columns), content


def describe(file: str, content: bytes, columns: Columns) -> Part:
    """Manifest entry of a data file."""
    stamps = columns["timestamp"]
    return Part(
        file=file,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        rows=len(stamps),
        first_ms=int(stamps[0]),
        last_ms=int(stamps[-1]),
    )


def load_manifest(storage: Storage, series: Series) -> Manifest | None:
    """The manifest of a series, None when the series does not exist.

    Raises LakeCorruption when it is damaged, or missing although data files are there.
    """
    name = f"{series.folder}/{MANIFEST}"
    shown = storage.path(name)
    for attempt in range(2):  # a series may come into being between looking for its manifest and for its files
        try:
            return Manifest.decode(storage.read(name), shown)
        except (FileNotFoundError, NotADirectoryError):
            if not storage.data_files(series):
                return None
        except LakeCorruption:  # an object store may cut a manifest that is just being replaced to the old one's length
            if attempt:
                raise
        except OSError as error:
            raise LakeCorruption(f"{shown}: cannot be read ({error.strerror})") from None
    raise LakeCorruption(f"{shown}: the manifest is missing; Lake.rebuild_manifest restores it")


def save_manifest(storage: Storage, series: Series, manifest: Manifest) -> None:
    """Commit: the series is what this manifest says from here on."""
    storage.write(f"{series.folder}/{MANIFEST}", manifest.encode())


def leftovers(storage: Storage, series: Series, manifest: Manifest | None) -> list[str]:
    """Files of crashed writers in a series, relative to its folder.

    A data file is a leftover when the manifest does not name it and it is not newer than the commit that may have
    been under way. Nothing is one where the manifest itself is not of these files: a later generation or a named file
    that is missing (it was restored from an older copy), a sound file of a month that it knows nothing of (it was
    copied over that of another lake). Those are left for ``Lake.verify`` to report and for ``rebuild_manifest``.
    """
    found = storage.temporaries(series)
    if manifest is None:
        return found
    there, named = storage.data_files(series), {part.file for part in manifest.parts}
    months = {part.month for part in manifest.parts}
    for file in there if named.issubset(there) else ():
        generation = int(file[14:22])
        if file in named or generation > manifest.generation + 1:
            continue
        if file[6:13] in months or generation > manifest.generation or not _proves_itself(storage, series, file):
            found.append(file)
    return found


def _proves_itself(storage: Storage, series: Series, file: str) -> bool:
    """Whether the content of a data file is what its name says."""
    match = DATA_FILE.fullmatch(file.split("/")[1])
    try:
        content = storage.read(f"{series.folder}/{file}")
    except OSError:  # a living writer has just removed it, or nobody may read it: not ours to judge
        return True
    return match is not None and hashlib.sha256(content).hexdigest().startswith(match[2])
