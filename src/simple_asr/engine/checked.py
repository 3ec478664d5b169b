"""Remembers which files of a folder were checked, so that 3 GB are not read at every start."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

RECORD = ".checked.json"


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file as it was when its digest was taken; while size and time agree, so does the digest."""

    num_bytes: int
    mtime_ns: int
    sha256: str

    @classmethod
    def now(cls, path: Path, sha256: str) -> CheckedFile:
        """The file as it is, if its digest were `sha256`."""
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, sha256)


def read_record(folder: Path) -> dict[str, CheckedFile]:
    """What was checked in a folder; nothing when that was never noted or cannot be read."""
    try:
        document = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {str(file): CheckedFile(**checked) for file, checked in document.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_record(folder: Path, record: Mapping[str, CheckedFile]) -> None:
    """Replaces the folder's record in one step. Raises OSError where nothing can be written."""
    document = {file: asdict(checked) for file, checked in sorted(record.items())}
    unfinished = folder / f"{RECORD}.{os.getpid()}"
    unfinished.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(folder / RECORD)


def sha256_of(path: Path) -> str:
    """The digest of a file's content, in hexadecimal; about a second for a gigabyte."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def flush_to_disk(path: Path) -> None:
    """A record must not outlive the bytes it vouches for when the power fails."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
