"""Takes the recordings out of a zip, and trusts nothing it says: no size, no name, no count.

A name is never used as a path, only shown. What becomes of the bytes is the caller's business.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from simple_asr.errors import InvalidArchive, PayloadTooLarge
from simple_asr.service.labels import label

CHUNK_BYTES = 256 * 1024
MAX_NAME = 255
# Of the table of contents, for each member that may be in it: a record and a long name.
ENTRY_BYTES = 1024
# Audio is compressed already; and of these alone the standard library bounds what comes out.
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
ENCRYPTED = 0x1
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)
# What archives begin with: zip (also an empty one), gzip, RAR, 7z, xz, bzip2, zstd.
ARCHIVES = (
    b"PK\3\4",
    b"PK\5\6",
    b"\x1f\x8b",
    b"Rar!",
    b"7z\xbc\xaf",
    b"\xfd7zXZ",
    b"BZh",
    b"(\xb5/\xfd",
)


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Recordings of one archive, bytes of one of them, and of all of them, unpacked."""

    max_members: int = 100
    max_member_bytes: int = 1_073_741_824
    max_bytes: int = 4_294_967_296


class Archive:
    """A zip whose table of contents keeps to the limits. Not thread-safe; see `opened`."""

    def __init__(self, zip_file: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> None:
        self._zip_file = zip_file
        self._members = members

    @property
    def names(self) -> list[str]:
        """What each recording is called, on one line and no path, in the archive's order."""
        return [label(member.filename, MAX_NAME) for member in self._members]

    def chunks(self, number: int) -> Iterator[bytes]:
        """What is in the recording of this number, from 0; at most what the table says it holds.

        Raises InvalidArchive.
        """
        with _damage_told(), self._zip_file.open(self._members[number]) as member:
            chunk = member.read(CHUNK_BYTES)
            if chunk.startswith(ARCHIVES):
                raise InvalidArchive(
                    f"{self.names[number]} in the archive is an archive itself. Unpack it first."
                )
            while chunk:
                yield chunk
                chunk = member.read(CHUNK_BYTES)


@contextmanager
def opened(path: Path, limits: ArchiveLimits) -> Iterator[Archive]:
    """The archive in this file. Raises InvalidArchive, PayloadTooLarge."""
    with ExitStack() as resources:
        with _damage_told():
            file = resources.enter_context(_BoundedReads(path, limits))
            zip_file = resources.enter_context(zipfile.ZipFile(file))
        members = [member for member in zip_file.infolist() if _is_recording(member)]
        _check(members, limits)
        yield Archive(zip_file, members)


@contextmanager
def _damage_told() -> Iterator[None]:
    """Whatever zipfile stumbles over becomes InvalidArchive; a disk that fails does not."""
    try:
        yield
    except (*ZIP_ERRORS, OSError) as error:
        # An offset before the beginning of the file.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise InvalidArchive("The archive is not a zip, or is damaged. Pack it again.") from error


class _BoundedReads(io.FileIO):
    """Reads no more at once than the largest table of contents that is taken.

    zipfile reads the table whole, and makes an object of each entry, before anybody can count them.
    """

    def __init__(self, path: Path, limits: ArchiveLimits) -> None:
        super().__init__(path)
        self._limits = limits

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        # The end of the file is searched for a comment of 64 KiB.
        if size > max(CHUNK_BYTES, ENTRY_BYTES * self._limits.max_members):
            raise _too_many(self._limits)
        return super().read(size)


def _is_recording(member: zipfile.ZipInfo) -> bool:
    """Not a folder, and not what desktops put beside files of theirs."""
    path = PurePosixPath(member.filename)
    is_hidden = path.name.startswith(".") or path.parts[:1] == ("__MACOSX",)
    return not member.is_dir() and not is_hidden


def _check(members: list[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    """Before anything is unpacked. zipfile gives no more of a member than the table says."""
    if not members:
        raise InvalidArchive("The archive holds no file. Pack the recordings into it.")
    if len(members) > limits.max_members:
        raise _too_many(limits)
    for member in members:
        name = label(member.filename)
        if member.flag_bits & ENCRYPTED:
            raise InvalidArchive(f"{name} in the archive is encrypted. Pack it without a password.")
        if member.compress_type not in METHODS:
            raise InvalidArchive(
                f"{name} in the archive is compressed in a way that is not taken. Pack it with the "
                "usual one (deflate), or without compression."
            )
        if member.file_size > limits.max_member_bytes:
            raise PayloadTooLarge(
                f"{name} in the archive has {member.file_size} bytes; this server takes at most "
                f"{limits.max_member_bytes} (MAX_UPLOAD_BYTES). Compress or split it."
            )
    total = sum(member.file_size for member in members)
    if total > limits.max_bytes:
        raise PayloadTooLarge(
            f"The archive holds {total} bytes when it is unpacked; this server takes at most "
            f"{limits.max_bytes} (MAX_BATCH_BYTES). Send several."
        )


def _too_many(limits: ArchiveLimits) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The archive holds more than {limits.max_members} files, the most this server takes in "
        "one (MAX_BATCH_JOBS, less the addresses sent with it). Send several."
    )
