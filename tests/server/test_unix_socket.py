"""A socket file: its mode, what it replaces, what it leaves alone, and that it goes at the end."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from simple_asr.errors import ConfigurationError
from simple_asr.server.unix_socket import unix_listener


def listen(path: Path, mode: int = 0o660) -> socket.socket:
    with unix_listener(path, mode, backlog=8) as listener:
        return listener


def test_callers_find_it_with_its_mode_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "asr.sock"
    with (
        unix_listener(path, 0o600, backlog=8) as listener,
        socket.socket(socket.AF_UNIX) as caller,
    ):
        caller.connect(str(path))
        mode = stat.S_IMODE(path.stat().st_mode)
        listener.accept()[0].close()

    assert mode == 0o600
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_a_dead_server_has_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "asr.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()

    with unix_listener(path, 0o660, backlog=8), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))


def test_a_server_that_lives_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "asr.sock"
    with unix_listener(path, 0o660, backlog=8):
        with pytest.raises(ConfigurationError, match="Another server listens on UNIX_SOCKET="):
            listen(path)
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("text")

    with pytest.raises(ConfigurationError, match="is no socket"):
        listen(path)

    assert path.read_text() == "text"


def test_another_servers_file_is_not_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "asr.sock"
    with unix_listener(path, 0o660, backlog=8):
        path.unlink()
        path.touch()

    assert path.exists()


@pytest.mark.parametrize("name", ["none/asr.sock", "a" * 120])
def test_a_path_that_cannot_be_had_is_a_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="Cannot listen on UNIX_SOCKET="):
        listen(tmp_path / name)

    assert list(tmp_path.iterdir()) == []
