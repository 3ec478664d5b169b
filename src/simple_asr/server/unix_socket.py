"""A socket file to listen on: taken over from a server that has ended, and removed at the end."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simple_asr.errors import ConfigurationError

# Seconds that whoever listens on the file already has to say so.
PATIENCE = 1.0


@contextmanager
def unix_listener(path: Path, mode: int, backlog: int) -> Iterator[socket.socket]:
    """A listening socket at `path`, whose file has `mode`. Raises ConfigurationError.

    The file is its maker's: a process forked from that leaves it there.
    """
    _check_free(path)
    maker = os.getpid()
    with socket.socket(socket.AF_UNIX) as listener:
        made = _bind(listener, path, mode, backlog)
        try:
            yield listener
        finally:
            if os.getpid() == maker:
                _remove(path, made)


def _check_free(path: Path) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:  # It is not there; if the folder is at fault, binding will say so.
        return
    if not is_socket:
        raise ConfigurationError(
            f"UNIX_SOCKET={path} is there, and is no socket. Remove it, or choose another path."
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PATIENCE)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:  # Left by a server that was killed.
            return
        except OSError as error:
            raise ConfigurationError(_not_had(path, error)) from None
    raise ConfigurationError(
        f"Another server listens on UNIX_SOCKET={path}. Stop it, or choose another path."
    )


def _bind(listener: socket.socket, path: Path, mode: int, backlog: int) -> os.stat_result:
    """What the system knows of the file, so that it can be told from another's."""
    # Under a name of its own until it listens and has its mode: nobody finds it half made.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        listener.bind(str(temporary))
        temporary.chmod(mode)
        listener.listen(backlog)
        temporary.replace(path)
        return path.stat()
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise ConfigurationError(_not_had(path, error)) from None


def _not_had(path: Path, error: OSError) -> str:
    return (
        f"Cannot listen on UNIX_SOCKET={path}: {error.strerror or error}. Its folder should be one "
        "that the server's user may write to, and its path shorter than 90 bytes."
    )


def _remove(path: Path, made: os.stat_result) -> None:
    """Unless another server has put its own there meanwhile."""
    with suppress(OSError):
        if os.path.samestat(path.stat(), made):
            path.unlink()
