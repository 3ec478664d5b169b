"""Server-sent events: their bytes on the wire, and the life of an answer made of them.

What the events say is the routes' business. The format is that of the HTML standard, 9.2.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from simple_asr.errors import AsrError, Cancelled, ShuttingDown
from simple_asr.server.cancellation import unless_caller_leaves
from simple_asr.server.problems import internal_error, status_of
from simple_asr.server.record import RequestRecord, record_of

logger = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
# Half of what proxies commonly wait for the next byte, or less.
KEEP_ALIVE_SECONDS = 15.0
# A client that takes nothing for so long is gone, whatever its connection says.
STALLED_SECONDS = 60.0
HEADERS = {
    # Proxies must pass each event on as it comes: nginx is told by its own header, and a proxy
    # that compresses would collect.
    "X-Accel-Buffering": "no",
    "Cache-Control": "no-store, no-transform",
}
# Ends of a line to many a client's reader, though not to the standard; JSON may hold them escaped.
_LINE_ENDS = str.maketrans({end: f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"})

ErrorMessage = Callable[[AsrError, str], bytes]
"""The last message of a stream that fails, of the error and the request's id."""


def wants_event_stream(request: Request) -> bool:
    """Whether Accept names the media type; `*/*` does not ask for a stream."""
    accepted = ",".join(request.headers.getlist("accept")).lower().split(",")
    return MEDIA_TYPE in (media_range.partition(";")[0].strip() for media_range in accepted)


def message(data: object, event: str | None = None, event_id: int | str | None = None) -> bytes:
    """One event with JSON for its data, and a name and an id if it has one.

    A client that connects anew sends the id of the last event it had, as `Last-Event-ID`.
    """
    return message_of_json(json.dumps(data, ensure_ascii=False, allow_nan=False), event, event_id)


def message_of_json(
    data: str, event: str | None = None, event_id: int | str | None = None
) -> bytes:
    """The same of JSON that is written already, on one line."""
    name = f"event: {event}\n" if event else ""
    number = "" if event_id is None else f"id: {event_id}\n"
    # What is no UTF-8 becomes `\udc80`, which JSON reads as it was.
    return f"{name}{number}data: {data.translate(_LINE_ENDS)}\n\n".encode(
        "utf-8", "backslashreplace"
    )


def comment(text: str) -> bytes:
    """What keeps a connection awake and every client skips. One line."""
    return f": {text}\n\n".encode()


async def open_event_stream(
    request: Request,
    messages: AsyncGenerator[bytes, None],
    error_message: ErrorMessage,
    resources: AsyncExitStack,
) -> EventStream:
    """The answer that streams `messages`, which needs `resources` until it has ended.

    An error of the first message rises, and is answered as without a stream; unless that message
    takes longer than KEEP_ALIVE_SECONDS. Raises Cancelled when the caller leaves meanwhile.
    """
    paced = _with_keep_alive(messages)
    resources.push_async_callback(paced.aclose)
    first = await unless_caller_leaves(request, anext(paced))
    held = resources.pop_all()
    told = _told(first, paced, error_message, record_of(request.scope), held)
    return EventStream(told, error_message, held)


class EventStream(StreamingResponse):
    """Sends each message when it is there. Ends the work when the caller leaves or stalls.

    Once it has begun its status cannot change, so the request's record is given the status that
    the error would have had.
    """

    def __init__(
        self,
        messages: AsyncIterator[bytes],
        error_message: ErrorMessage,
        resources: AsyncExitStack,
    ) -> None:
        super().__init__(messages, headers=HEADERS, media_type=MEDIA_TYPE)
        self._error_message = error_message
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = record_of(scope)
        async with self._resources:
            try:
                streaming = self.stream_response(_impatient(send))
                await unless_caller_leaves(Request(scope, receive), streaming)
            except Cancelled as cancelled:
                record.status = status_of(cancelled)
            except asyncio.CancelledError:
                error = ShuttingDown("The server stops before this request was done.")
                last = _failed(error, self._error_message, record)
                await send({"type": "http.response.body", "body": last, "more_body": False})
                raise


def _impatient(send: Send) -> Send:
    async def send_in_time(event: Message) -> None:
        # Not `wait_for`: until Python 3.12 it loses a cancellation that comes as `send` ends.
        sending = asyncio.ensure_future(send(event))
        try:
            await asyncio.wait({sending}, timeout=STALLED_SECONDS)
            if not sending.done():
                raise Cancelled("The caller takes no more of the answer.")
            sending.result()
        finally:
            sending.cancel()

    return send_in_time


async def _with_keep_alive(messages: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The messages, and a comment whenever none has come for KEEP_ALIVE_SECONDS."""
    upcoming: asyncio.Future[bytes] = asyncio.ensure_future(anext(messages))
    try:
        while True:
            await asyncio.wait({upcoming}, timeout=KEEP_ALIVE_SECONDS)
            if not upcoming.done():
                yield comment("keep-alive")
                continue
            try:
                yield upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = asyncio.ensure_future(anext(messages))
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
        await messages.aclose()


async def _told(
    first: bytes,
    rest: AsyncIterator[bytes],
    error_message: ErrorMessage,
    record: RequestRecord,
    resources: AsyncExitStack,
) -> AsyncIterator[bytes]:
    """All messages; an error on the way becomes the last.

    Resources are freed before the stream ends, so that whoever has seen its end sees nothing left.
    """
    yield first
    try:
        async for following in rest:
            yield following
    except AsrError as error:
        yield _failed(error, error_message, record)
    except Exception:
        logger.exception("Request %s failed", record.request_id)
        yield _failed(internal_error(record.request_id), error_message, record)
    await resources.aclose()


def _failed(error: AsrError, error_message: ErrorMessage, record: RequestRecord) -> bytes:
    record.status = status_of(error)
    return error_message(error, record.request_id)
