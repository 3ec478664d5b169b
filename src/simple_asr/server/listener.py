"""The socket the server listens on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from simple_asr.errors import ConfigurationError
from simple_asr.server.unix_socket import unix_listener
from simple_asr.settings import Settings

BACKLOG = 1024


@contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """The socket that the settings ask for. Raises ConfigurationError."""
    if settings.unix_socket is None:
        with listen(settings.host, settings.port) as listener:
            yield listener
    else:
        mode = int(settings.unix_socket_mode, base=8)
        with unix_listener(settings.unix_socket, mode, BACKLOG) as listener:
            yield listener


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigurationError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {host}, port {port}: {error.strerror}. Stop what listens there, or "
            "set HOST and PORT to an address of this machine that is free."
        ) from None
