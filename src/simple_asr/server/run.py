"""Runs the app under uvicorn until a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import threading
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from simple_asr.errors import AsrError
from simple_asr.server.dependencies import Services
from simple_asr.server.key_reload import reload_keys
from simple_asr.server.listener import listening, url_of
from simple_asr.server.log import set_log_level
from simple_asr.server.middleware import HeadLimits
from simple_asr.server.protocol import bounded_protocol
from simple_asr.server.supervisor import BEAT_SECONDS, Supervised
from simple_asr.server.tls import TlsFiles, open_tls, take_certificate
from simple_asr.service.peers import OpenPerCaller, Proxies
from simple_asr.service.quotas import read_limits
from simple_asr.settings import Settings, load_settings

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15
# What is left for the end itself after the requests' grace, before the process ends regardless.
END_SECONDS = 1.5


def serve(app: FastAPI, settings: Settings, supervised: Supervised | None = None) -> None:
    """Serves until SIGINT or SIGTERM, then lets running requests finish for `grace_seconds`.

    A second such signal ends the process at once. SIGHUP reloads keys, their limits, the
    certificate and the log level. Raises ConfigurationError when the address or the certificate
    cannot be had. Logs nothing that `configure_logging` has not been called for. Whoever is
    `supervised` is given the socket, and says that it lives.
    """
    server = build_server(app, supervised)
    with supervised.listener if supervised else listening(settings) as listener:
        logger.info("Listening on %s", _address(listener, settings))
        _keep_what_is_loaded()
        server.run(sockets=[listener])


def build_server(app: FastAPI, supervised: Supervised | None = None) -> uvicorn.Server:
    """A uvicorn server for sockets that listen already. Raises ConfigurationError."""
    services: Services = app.state.services
    settings = services.settings
    tls = TlsFiles.from_settings(settings)
    context = open_tls(tls) if tls else None
    per_address = OpenPerCaller(
        settings.max_connections_per_address, Proxies(settings.trusted_proxies)
    )
    return _Server(
        services,
        supervised,
        tls,
        uvicorn.Config(
            app,
            http=bounded_protocol(HeadLimits.from_settings(settings), per_address),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            # `create_app` has the same, for servers of other makes too.
            proxy_headers=False,
            ssl_context_factory=(lambda *_: context) if context else None,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            # A number of seconds: uvicorn says int, and waits for fractions as well.
            timeout_graceful_shutdown=math.ceil(settings.grace_seconds),
        ),
    )


class _Server(uvicorn.Server):
    """Owned by the event loop. `_accepts_until` is None until a signal has asked for the end."""

    def __init__(
        self,
        services: Services,
        supervised: Supervised | None,
        tls: TlsFiles | None,
        config: uvicorn.Config,
    ) -> None:
        super().__init__(config)
        self._services = services
        self._supervised = supervised
        self._tls = tls
        self._accepts_until: float | None = None
        self._reloading: asyncio.Future[None] | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        # Signals reach the main thread only; elsewhere (tests) there is nothing to listen for.
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        beating = asyncio.ensure_future(self._beat())
        try:
            await super().serve(sockets)
        finally:
            beating.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end; the second is the end."""
        if self._services.is_stopping.is_set():
            os._exit(128 + sig)
        settings = self._services.settings
        self._services.is_stopping.set()
        self._accepts_until = time.monotonic() + settings.drain_seconds
        _end_within(settings.drain_seconds + settings.grace_seconds + END_SECONDS)
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop listening; till then /health/ready sends callers elsewhere."""
        should_exit = await super().on_tick(counter)
        return should_exit and time.monotonic() >= (self._accepts_until or 0)

    async def _beat(self) -> None:
        """Tells the parent, if any, that the event loop goes round, and whether the model works."""
        while self._supervised is not None:
            state = self._services.transcriber.model_state
            self._supervised.beat(is_ready=state.status == "ready")
            await asyncio.sleep(BEAT_SECONDS)

    def _hang_up(self) -> None:
        # Kept, since the loop itself holds its tasks by weak references alone.
        self._reloading = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        await reload_keys(self._services.keys)
        await self._reload_limits()
        await self._reload_certificate()
        try:
            level = (await asyncio.to_thread(load_settings)).log_level
        except AsrError as error:
            logger.error("The log level stays as it is. %s", error.detail)
        else:
            set_log_level(level)
            logger.info("Log level %s", level)

    async def _reload_certificate(self) -> None:
        if self._tls is None or self.config.ssl is None:
            return
        try:
            await asyncio.to_thread(open_tls, self._tls)  # Before the one in force is touched.
            take_certificate(self.config.ssl, self._tls)
        except AsrError as error:
            logger.error("The certificate stays as it is. %s", error.detail)
        else:
            logger.info("Certificate read again from %s", self._tls.certificate)

    async def _reload_limits(self) -> None:
        file = self._services.settings.limits_file
        try:
            limits = await asyncio.to_thread(read_limits, file)
        except AsrError as error:
            logger.error("The limits of keys stay as they are. %s", error.detail)
        else:
            self._services.quotas.renew(limits)
            logger.info("Limits read again from %s, %d section(s)", file, len(limits))


def _keep_what_is_loaded() -> None:
    """Has Python's collector pass over what stays till the end, modules above all.

    It would hold up everybody for a tenth of a second, again and again, to find it in use.
    """
    gc.collect()
    gc.freeze()


def _end_within(seconds: float) -> None:
    """Ends the process then, if it lasts so long: neither a model call nor a lock can stop this."""

    def end() -> None:
        logger.warning("Ended %.1f s after the signal, with work still under way", seconds)
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _address(listener: socket.socket, settings: Settings) -> str:
    if settings.unix_socket is not None:
        return f"unix:{settings.unix_socket}"
    host, port, *_ = listener.getsockname()
    return url_of(host, port, is_https=settings.tls_certificate is not None)
