"""What holds for every request and answer: ids, limits, standing headers, the log line.

Pure ASGI, in the order in which `create_app` lists it, outermost first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from simple_asr.errors import AsrError, DeadlineExceeded, QuotaExceeded, ShuttingDown
from simple_asr.server.error_answers import error_answer
from simple_asr.server.problems import HeadersTooLarge, internal_error
from simple_asr.server.record import RequestRecord, open_record, record_of
from simple_asr.server.tracing import Tracing
from simple_asr.service.labels import ascii_label, label
from simple_asr.service.metrics import Metrics
from simple_asr.service.peers import UNIX, OpenPerCaller
from simple_asr.service.transcriber import Transcriber
from simple_asr.settings import Settings

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("simple_asr.access")

# How long, and for how many bytes, the sender of an unread body is heard out.
LINGER_SECONDS = 2.0
LINGER_BYTES = 1024 * 1024

STANDING_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    # Transcripts are nobody else's: no cache on the way may keep them.
    "Cache-Control": "no-store",
}


class RequestEnvelope:
    """Gives each request its record, each answer its standing headers, and the log its line."""

    def __init__(
        self,
        app: ASGIApp,
        transcriber: Transcriber,
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._app = app
        self._transcriber = transcriber
        self._metrics = metrics or Metrics()
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = open_record(scope)
        began = time.perf_counter()
        self._metrics.request_began(id(record))

        async def watched_receive() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                record.received = time.perf_counter()
            return message

        async def send_enveloped(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                self._add_headers(message, record)
            await send(message)

        try:
            await self._app(scope, watched_receive, send_enveloped)
        finally:
            record.close()
            if self._tracing is not None and not _is_probe(scope, record):
                self._tracing.request_ended(scope, record, _route(scope), began)
            _log_request(scope, record, time.perf_counter() - began)
            self._metrics.request_ended(
                id(record),
                route=_route(scope),
                status=record.status,
                key_name=record.key_name,
                audio_seconds=record.audio_seconds,
                processing=record.processing,
            )

    def _add_headers(self, message: Message, record: RequestRecord) -> None:
        headers = MutableHeaders(scope=message)
        add_standing_headers(headers, record)
        headers["X-ASR-Model"] = ascii_label(record.model or self._transcriber.model_state.served)


def add_standing_headers(headers: MutableHeaders, record: RequestRecord) -> None:
    """What every answer has; one that a page needs otherwise stays as it is."""
    for name, value in STANDING_HEADERS.items():
        headers.setdefault(name, value)
    headers["X-Request-Id"] = record.request_id


def _route(scope: Scope) -> str:
    """The pattern of the path; one name for all that nothing answers to."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "other"


def _is_probe(scope: Scope, record: RequestRecord) -> bool:
    """They come every few seconds, and would bury the rest."""
    return bool(scope["path"].startswith("/health")) and record.status == 200


def _log_request(scope: Scope, record: RequestRecord, seconds: float) -> None:
    processing = record.processing
    access_logger.log(
        logging.DEBUG if _is_probe(scope, record) else logging.INFO,
        "request id=%s method=%s path=%s status=%s key=%s audio_s=%s queue_ms=%s decode_ms=%s"
        " total_ms=%.0f",
        record.request_id,
        label(scope["method"]),
        label(scope["path"]),
        record.status or "-",
        label(record.key_name or "-"),
        "-" if record.audio_seconds is None else f"{record.audio_seconds:.2f}",
        "-" if processing is None else f"{processing.queue * 1000:.0f}",
        "-" if processing is None else f"{processing.decode * 1000:.0f}",
        seconds * 1000,
    )


class LastResort:
    """Answers what nothing inside turned into an answer.

    An exception becomes a 500, a request that takes longer than `timeout` seconds a 504 (0: there
    is no limit), and one that the server gives up while it stops a 503.
    """

    def __init__(self, app: ASGIApp, timeout: float = 0) -> None:
        self._app = app
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = record_of(scope)

        async def answer(error: AsrError) -> None:
            if record.status is None:
                response = error_answer(scope, error)
                await response(scope, receive, send)

        deadline = _Deadline(self._timeout)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            # Not raised again: the task ends here, and uvicorn, which cancelled it, would log it as
            # a failure of ours.
            deadline.lift()
            await answer(self._why_given_up(deadline))
        except Exception:
            logger.exception("Request %s failed", record.request_id)
            if record.status is not None:
                raise  # The answer has begun: only a broken connection can still tell the caller.
            await answer(internal_error(record.request_id))
        finally:
            deadline.lift()

    def _why_given_up(self, deadline: _Deadline) -> AsrError:
        if deadline.has_passed:
            return DeadlineExceeded(
                f"The request took longer than {self._timeout:g} s (REQUEST_TIMEOUT_SECONDS) and "
                "was given up. Send a shorter recording, or send it at a quieter time."
            )
        return ShuttingDown("The server stops before this request was done. Send it again later.")


class _Deadline:
    """Cancels the task that made it, once, `seconds` later; 0: never."""

    def __init__(self, seconds: float) -> None:
        self.has_passed = False
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._pass) if seconds else None

    def lift(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _pass(self) -> None:
        assert self._task is not None, "requests are served in tasks"
        self.has_passed = True
        self._task.cancel()


class RequestsPerAddress:
    """Refuses an address more requests at once than it may have.

    Callers that connect by themselves meet the same limit earlier, at their connections; those
    whom a proxy forwards have no connections here.
    """

    def __init__(self, app: ASGIApp, per_address: OpenPerCaller) -> None:
        self._app = app
        self._per_address = per_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = host_of(scope)
        if not self._per_address.enter(host):
            response = error_answer(scope, too_many_open(self._per_address.most))
            await response(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._per_address.leave(host)


def host_of(scope: Scope) -> str:
    """The caller's address, as a trusted proxy or the connection has it; `unix` without one."""
    return scope["client"][0] if scope.get("client") else UNIX


def too_many_open(most: int) -> QuotaExceeded:
    """What an address is told that has no place left."""
    return QuotaExceeded(
        f"Your address has {most} connections open or requests in work, the most it may have at "
        "once (MAX_CONNECTIONS_PER_ADDRESS). Close some, or wait until one has been answered. If "
        "this is a proxy, its operator should name it in TRUSTED_PROXIES.",
        retry_after=1,
    )


class LingeringClose:
    """Closes the connection after an answer that came before the body was read, without haste.

    The rest of the body is of no use, so the connection cannot be kept. Closing it at once would
    reset it under a caller that is still sending, and the reset can destroy the answer on its way
    (RFC 9112, 9.6): so the answer goes out, some of the rest is read and dropped, and then it ends.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _announces_body(scope):
            await self._app(scope, receive, send)
            return
        is_read = False

        async def watched_receive() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = not message.get("more_body", False)
            return message

        async def lingering_send(message: Message) -> None:
            if is_read:
                await send(message)
            elif message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
                await send(message)
            elif message.get("more_body", False):
                await send(message)
            else:
                await send({**message, "more_body": True})
                await _drop_rest(receive)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, watched_receive, lingering_send)


def _announces_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


async def _drop_rest(receive: Receive) -> None:
    """Reads until the body ends, the caller leaves, or it has been heard out."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LINGER_SECONDS
    dropped = 0
    more = True
    while more and dropped < LINGER_BYTES:
        try:
            message = await asyncio.wait_for(receive(), max(0.0, deadline - loop.time()))
        except asyncio.TimeoutError:
            return
        dropped += len(message.get("body", b""))
        more = message.get("more_body", False)
    if more:
        # No more is read, and nothing is reset yet: a proxy that is busy sending looks at the
        # answer late (Caddy's callers would get its 502 instead).
        await asyncio.sleep(max(0.0, deadline - loop.time()))


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """What comes before a request's body may take: headers, bytes (the address too), seconds."""

    max_headers: int
    max_bytes: int
    seconds: float

    @classmethod
    def from_settings(cls, settings: Settings) -> HeadLimits:
        return cls(settings.max_headers, settings.max_header_bytes, settings.header_timeout_seconds)


class HeaderLimits:
    """Refuses requests with more or longer headers than anyone needs, request line included."""

    def __init__(self, app: ASGIApp, limits: HeadLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_too_large(scope):
            error = HeadersTooLarge(
                f"The request has more than {self._limits.max_headers} headers (MAX_HEADERS), or "
                f"its headers and address take more than {self._limits.max_bytes} bytes "
                "(MAX_HEADER_BYTES). Send parameters in the form instead."
            )
            response = error_answer(scope, error)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_too_large(self, scope: Scope) -> bool:
        headers = scope["headers"]
        num_bytes = len(scope["path"]) + len(scope["query_string"])
        num_bytes += sum(len(name) + len(value) for name, value in headers)
        return len(headers) > self._limits.max_headers or num_bytes > self._limits.max_bytes
