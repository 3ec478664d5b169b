"""The media of jobs: one file each, safe before anybody is told of the job.

They lie in a folder here; `s3_files.py` keeps them elsewhere.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from simple_asr.errors import ConfigurationError, StorageFull, Unavailable
from simple_asr.service.spool import SpoolFile

logger = logging.getLogger(__name__)

SUFFIX = ".media"
# A file this young may belong to a job whose record is about to be written.
ABANDONED_AFTER_SECONDS = 3600.0


class JobFiles(Protocol):
    """Where they are. Every method blocks; what fails raises StorageFull or Unavailable."""

    def adopt(self, media: Path, job_id: str) -> None:
        """Keeps this file for the job: it is safe when this returns, and may be gone from here."""

    def keep(self, content: Iterable[bytes], job_id: str) -> None:
        """The same for what is not in a file."""

    def has(self, job_id: str) -> bool:
        """Whether the job's file is kept."""

    def path(self, job_id: str) -> Path | None:
        """Where it can be read; None where it has to be fetched first."""

    def fetch(self, job_id: str, target: Path) -> None:
        """Copies it into a file here. Raises FileNotFoundError where it is lost."""

    def remove(self, job_ids: Iterable[str]) -> None:
        """Those that are there."""

    def sweep(self, without_work: Callable[[list[str]], set[str]]) -> None:
        """Removes what no job needs any more: those that `without_work` names of some ids."""


class FolderFiles:
    """JobFiles in a folder; where several servers share a store, they share this folder."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder. Raises ConfigurationError."""
        make_folder(folder)
        self.folder = folder

    def path(self, job_id: str) -> Path:
        return self.folder / f"{job_id}{SUFFIX}"

    def adopt(self, media: Path, job_id: str) -> None:
        """Moves it to its job's name in this folder, and waits until the disk has both."""
        try:
            _sync(media)
            media.rename(self.path(job_id))
            _sync(self.folder)
        except OSError as error:
            if error.errno == errno.EXDEV:  # It lies on another disk.
                self.keep(_chunks(media), job_id)
                return
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(
                    "The server's disk is full, so the job could not be kept. Send it again later, "
                    "or tell the operator."
                ) from error
            logger.error("A job's file could not be kept: %s", error)
            raise Unavailable(
                "The server cannot keep jobs at the moment; its log says why. Send the job again "
                "later."
            ) from error

    def keep(self, content: Iterable[bytes], job_id: str) -> None:
        with spooled(content, self.folder) as media:
            self.adopt(media, job_id)

    def has(self, job_id: str) -> bool:
        return self.path(job_id).exists()

    def fetch(self, job_id: str, target: Path) -> None:
        shutil.copyfile(self.path(job_id), target)

    def remove(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            self.path(job_id).unlink(missing_ok=True)

    def sweep(self, without_work: Callable[[list[str]], set[str]]) -> None:
        newest = time.time() - ABANDONED_AFTER_SECONDS
        old = [path for path in self.folder.glob(f"*{SUFFIX}") if _is_older(path, newest)]
        self.remove(without_work([path.name.removesuffix(SUFFIX) for path in old]))


def _is_older(path: Path, newest: float) -> bool:
    try:
        return path.stat().st_mtime < newest
    except FileNotFoundError:  # Its job has just ended.
        return False


def make_folder(folder: Path) -> None:
    """The folder of jobs. Raises ConfigurationError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"Jobs cannot be kept in {folder}: {error.strerror}. Make this folder writable for "
            "the server's user, or set JOBS_DIR to one that is."
        ) from None


@contextmanager
def spooled(content: Iterable[bytes], folder: Path) -> Iterator[Path]:
    """The content as a file of this folder, for as long as the context lasts.

    Raises StorageFull, Unavailable.
    """
    file = SpoolFile(folder)
    try:
        for chunk in content:
            file.write(chunk)
        yield file.path
    finally:
        file.remove()


def digest(source: Path | str, document: str) -> str:
    """SHA-256 of a request: of the bytes of its file, or of its recording's address.

    Takes seconds for a gigabyte: keep it off the event loop.
    """
    hasher = hashlib.sha256(document.encode() + b"\0")
    if isinstance(source, str):
        hasher.update(source.encode())
        return hasher.hexdigest()
    for chunk in _chunks(source):
        hasher.update(chunk)
    return hasher.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            yield chunk


def _sync(path: Path) -> None:
    """A descriptor that only reads will do on Linux, for files and for folders (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
