"""uvicorn's HTTP/1.1 protocol, with an end to what never becomes a request.

A head that comes too slowly or grows too large, bytes that are not HTTP, and an address with too
many connections are answered with a problem document as everything else is. Bodies are
`intake.py`'s business.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from simple_asr.errors import AsrError, RequestTimeout
from simple_asr.server.middleware import (
    LINGER_BYTES,
    LINGER_SECONDS,
    STANDING_HEADERS,
    HeadLimits,
    too_many_open,
)
from simple_asr.server.problems import HeadersTooLarge, MalformedRequest, problem_response
from simple_asr.server.record import new_request_id
from simple_asr.service.peers import UNIX, OpenPerCaller

logger = logging.getLogger("simple_asr.access")

# A bound for memory alone: the limit callers meet, a quarter of this, is HeaderLimits'.
MEMORY_FACTOR = 4
# How long a stop waits for the request of a caller who has just connected.
FIRST_WORD_SECONDS = 1.0


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. Owned by the event loop, as its base."""

    head_limits: ClassVar[HeadLimits]
    per_address: ClassVar[OpenPerCaller]
    """Set by `bounded_protocol`: uvicorn is told a class, and makes the objects."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base does
        super().connection_made(transport)
        self._is_refused = False
        self._is_last = False
        self._dropped = 0
        self._is_in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        # A socket file has no address, and TRUSTED_PROXIES has a word for that.
        self.client = self.client or (UNIX, 0)
        self._has_place = self.per_address.enter(self.client[0])
        if self._has_place:
            self._await_head()
        else:
            self._refuse(too_many_open(self.per_address.most))

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_complete()
        if self._has_place and self.client is not None:
            self.per_address.leave(self.client[0])
            self._has_place = False
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            self._drop(data)
            return
        super().data_received(data)
        if self._is_in_head and not self._is_refused:
            self._head_bytes += len(data)
            if self._head_bytes > MEMORY_FACTOR * self.head_limits.max_bytes:
                self._refuse(
                    HeadersTooLarge(
                        f"The request's head has more than {self.head_limits.max_bytes} bytes "
                        "(MAX_HEADER_BYTES). Send parameters in the form instead."
                    )
                )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        self._await_head()

    def on_headers_complete(self) -> None:
        self._head_complete()
        super().on_headers_complete()
        if self._is_last and self.cycle is not None:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Called as the server stops. Who has connected, and not asked yet, is about to."""
        if self.cycle is not None:
            super().shutdown()
            return
        self._is_last = True
        self.loop.call_later(FIRST_WORD_SECONDS, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the base's signature
        """Called by the base for bytes that are not HTTP; `msg` says no more than that."""
        self._refuse(
            MalformedRequest(
                "The bytes sent are not a valid HTTP/1.1 request. Check its first line, its "
                "headers, and that Content-Length is the body's length."
            )
        )

    def _await_head(self) -> None:
        self._is_in_head = True
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_limits.seconds, self._head_is_late)

    def _head_complete(self) -> None:
        self._is_in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._is_mid_request():
            # The next request of a pipeline: its sender is still owed the answer to the last.
            self._await_head()
        elif self._head_bytes:
            self._refuse(
                RequestTimeout(
                    f"The request's head was not complete after {self.head_limits.seconds:g} s "
                    "(HEADER_TIMEOUT_SECONDS). Send it again over a better connection."
                )
            )
        else:
            self.transport.close()

    def _refuse(self, error: AsrError) -> None:
        """Answers, and hears the sender out for a while before closing: see LingeringClose."""
        self._is_refused = True
        self._head_complete()
        if self._is_mid_request():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
                return
        request_id = new_request_id()
        response = problem_response(error, request_id)
        logger.info("request id=%s method=- path=- status=%d", request_id, response.status_code)
        self.transport.write(_on_the_wire(response.status_code, response.raw_headers, request_id))
        self.transport.write(bytes(response.body))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _is_mid_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > LINGER_BYTES:
            self.transport.close()


def bounded_protocol(limits: HeadLimits, per_address: OpenPerCaller) -> type[BoundedHttpProtocol]:
    """The protocol of a server with these limits, and with this count of its connections."""
    members = {"head_limits": limits, "per_address": per_address}
    return type("HttpProtocol", (BoundedHttpProtocol,), members)


def _on_the_wire(status: int, headers: list[tuple[bytes, bytes]], request_id: str) -> bytes:
    standing = {**STANDING_HEADERS, "X-Request-Id": request_id, "Connection": "close"}
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode(),
        *(name + b": " + value for name, value in headers),
        *(f"{name}: {value}".encode() for name, value in standing.items()),
    ]
    return b"\r\n".join([*lines, b"", b""])
