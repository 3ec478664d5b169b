"""The folder of uploads: files of our own naming, one per request, gone when the request is."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path

from simple_asr.errors import ConfigurationError, StorageFull, Unavailable

logger = logging.getLogger(__name__)

SUFFIX = ".upload"
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class SpoolFile:
    """One upload on disk, readable by this user alone. Owned by one request, which removes it.

    Locked (flock) while it lives, so that another server's sweep of the same folder leaves it. Its
    BufferedWriter has a lock of its own: closing waits for a write that a cancelled request has
    left running in a thread.
    """

    def __init__(self, folder: Path) -> None:
        """Raises StorageFull, and Unavailable when the folder fails in another way."""
        self.path = folder / f"{secrets.token_hex(16)}{SUFFIX}"
        self.size = 0
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise _storage_error(error) from None
        self._file = os.fdopen(descriptor, "wb")
        with suppress(OSError):  # A file system without locks: then no sweep touches it either.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: bytes) -> None:
        """Raises as the constructor does."""
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise _storage_error(error) from None
        self.size += len(data)

    def remove(self) -> None:
        """Never fails; a second call does nothing."""
        with suppress(OSError):  # A full disk makes closing fail too.
            self._file.close()
        with suppress(OSError):
            self.path.unlink()


def _storage_error(error: OSError) -> StorageFull | Unavailable:
    if error.errno in NO_SPACE:
        return StorageFull(
            "The server's disk is full, so the upload could not be kept. Try again later, or tell "
            "the operator."
        )
    logger.error("An upload could not be kept: %s", error)
    return Unavailable(
        "The server cannot keep uploads at the moment; its log says why. Send the file again later."
    )


def has_room(folder: Path, min_free_bytes: int) -> bool:
    """Whether so much space is free there for this user, which is asked anew at each call."""
    try:
        usage = os.statvfs(folder)
    except FileNotFoundError:
        return True  # The next upload makes the folder.
    except OSError:
        return False
    return usage.f_bavail * usage.f_frsize >= min_free_bytes


def sweep(folder: Path) -> int:
    """Removes what a killed server left, makes the folder if need be; how many files it removed.

    Raises ConfigurationError when uploads could not be kept in this folder.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        left = [path for path in folder.glob(f"*{SUFFIX}") if _is_abandoned(path)]
        for path in left:
            path.unlink(missing_ok=True)
        _check_writable(folder)
    except OSError as error:
        raise ConfigurationError(
            f"Uploads cannot be kept in {folder}: {error.strerror}. Make this folder writable for "
            "the server's user, or set SPOOL_DIR to one that is."
        ) from None
    if left:
        logger.info("Removed %d uploads that a killed server left behind", len(left))
    return len(left)


def _is_abandoned(path: Path) -> bool:
    """No living server holds the file's lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _check_writable(folder: Path) -> None:
    probe = folder / f"{secrets.token_hex(16)}{SUFFIX}"
    probe.touch(mode=0o600, exist_ok=False)
    probe.unlink()
