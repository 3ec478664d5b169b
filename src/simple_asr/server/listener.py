"""The socket the server listens on, and the address it has for others."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from simple_asr.errors import ConfigurationError
from simple_asr.server.unix_socket import unix_listener
from simple_asr.settings import Settings

BACKLOG = 1024
# Who listens on every address of this machine is found at its own.
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (compared with)


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


def url_of(host: str, port: int, *, is_https: bool) -> str:
    """Of a server on this host and port, without a slash at the end."""
    scheme = "https" if is_https else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def reachable(host: str) -> str:
    """The host to connect to, from this machine, where a server listens on `host`."""
    return _EVERY_ADDRESS.get(host, host)
