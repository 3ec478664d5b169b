"""The socket the server listens on."""

from __future__ import annotations

import socket

from simple_asr.errors import ConfigurationError

BACKLOG = 1024


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
