"""Answers for a server that is about to be started again: it lives, and is not ready."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import uvicorn
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from simple_asr.engine.engine import engine_lost
from simple_asr.server.error_answers import error_answer
from simple_asr.server.middleware import HeadLimits, LingeringClose, add_standing_headers
from simple_asr.server.path_prefix import PathPrefix
from simple_asr.server.protocol import bounded_protocol
from simple_asr.server.record import open_record
from simple_asr.server.tls import TlsFiles, open_tls
from simple_asr.service.peers import OpenPerCaller, Proxies
from simple_asr.settings import Settings


def answering_for(settings: Settings) -> Callable[[socket.socket, float], None]:
    """A stand-in for the server of these settings: answers for so many seconds, or till SIGTERM."""
    any_number = OpenPerCaller(0, Proxies(settings.trusted_proxies))
    protocol = bounded_protocol(HeadLimits.from_settings(settings), any_number)
    tls = TlsFiles.from_settings(settings)

    def answer(listener: socket.socket, seconds: float) -> None:
        config = uvicorn.Config(
            LingeringClose(PathPrefix(_refuse, settings.root_path)),
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ssl_context_factory=(lambda *_: open_tls(tls)) if tls else None,
            timeout_graceful_shutdown=1,
        )
        _Server(config, seconds).run(sockets=[listener])

    return answer


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, seconds: float) -> None:
        super().__init__(config)
        self._ends = time.monotonic() + seconds

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or time.monotonic() >= self._ends


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    record = open_record(scope)
    answer = _answer(scope)
    add_standing_headers(answer.headers, record)
    await answer(scope, receive, send)


def _answer(scope: Scope) -> Response:
    if scope["path"] == "/health/live":
        return JSONResponse({"status": "alive"})
    if scope["path"] == "/health/ready":
        return JSONResponse({"status": "restarting"}, 503, headers={"Retry-After": "5"})
    return error_answer(scope, engine_lost())
