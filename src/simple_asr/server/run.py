"""Runs the app under uvicorn until a signal ends it: sockets, signals, log format."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import signal
import socket
import threading

import uvicorn
from fastapi import FastAPI

from simple_asr.errors import ConfigurationError
from simple_asr.server.dependencies import Services
from simple_asr.server.key_reload import reload_keys
from simple_asr.server.middleware import HeadLimits
from simple_asr.server.protocol import bounded_protocol
from simple_asr.service.keys import KeyStore, ReloadResult
from simple_asr.settings import LogLevel, Settings

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15
# What requests get to finish after SIGTERM; systemd and Docker are told to wait a little longer.
GRACE_SECONDS = 30
BACKLOG = 1024


def serve(app: FastAPI, settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM, then lets running requests finish for GRACE_SECONDS.

    SIGHUP reloads the keys. Raises ConfigurationError when the address cannot be had. Logs nothing
    that `configure_logging` has not been called for.
    """
    with listen(settings.host, settings.port) as listener:
        logger.info("Listening on http://%s:%d", *_address(listener))
        build_server(app).run(sockets=[listener])


def build_server(app: FastAPI) -> uvicorn.Server:
    """A uvicorn server for sockets that listen already."""
    services: Services = app.state.services
    return _Server(
        services.keys,
        uvicorn.Config(
            app,
            http=bounded_protocol(HeadLimits.from_settings(services.settings)),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            # Nothing here looks at the caller's address, so nobody need be believed about it.
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        ),
    )


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


def configure_logging(level: LogLevel) -> None:
    """One line per event to standard error; a traceback where something failed."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "line": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"},
            },
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "formatter": "line"},
            },
            "root": {"handlers": ["stderr"], "level": level.upper()},
            # It warns of every malformed upload, and so does the request's own line.
            "loggers": {"python_multipart": {"level": "ERROR"}},
        }
    )


class _Server(uvicorn.Server):
    def __init__(self, keys: KeyStore, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._keys = keys
        self._reloading: asyncio.Future[ReloadResult] | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        # Signals reach the main thread only; elsewhere (tests) there is nothing to listen for.
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self._reload_keys)
        await super().serve(sockets)

    def _reload_keys(self) -> None:
        # Kept, since the loop itself holds its tasks by weak references alone.
        self._reloading = asyncio.ensure_future(reload_keys(self._keys))


def _address(listener: socket.socket) -> tuple[str, int]:
    host, port, *_ = listener.getsockname()
    return (f"[{host}]" if ":" in host else host), port
