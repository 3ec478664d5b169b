"""Server-sent events: what stands on the wire, and how a stream lives and ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest
from starlette.requests import Request
from starlette.types import Message, Scope

from simple_asr.errors import AsrError, Cancelled, EngineFailed, Overloaded
from simple_asr.server import event_stream
from simple_asr.server.event_stream import (
    comment,
    message,
    open_event_stream,
    wants_event_stream,
)
from simple_asr.server.record import open_record, record_of

pytestmark = pytest.mark.anyio

Messages = AsyncGenerator[bytes, None]


class Connection:
    """A client that takes what it is sent, and stays until `leave` is set."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        self.scope: Scope = {"type": "http", "headers": []}
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.resources = AsyncExitStack()
        self.are_resources_freed = False
        open_record(self.scope)
        self.resources.callback(self._free)

    async def receive(self) -> Message:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def serve(self, messages: Messages) -> None:
        """Answers with the stream, as a route and FastAPI together do."""
        request = Request(self.scope, self.receive)
        async with self.resources as resources:
            stream = await open_event_stream(request, messages, error_message, resources)
        await stream(self.scope, self.receive, self.sent.put)

    def body(self) -> bytes:
        """All that was sent after the head."""
        sent = [self.sent.get_nowait() for _ in range(self.sent.qsize())]
        return b"".join(part.get("body", b"") for part in sent)

    def _free(self) -> None:
        self.are_resources_freed = True


@pytest.fixture
async def connection() -> Connection:
    return Connection()


def error_message(error: AsrError, request_id: str) -> bytes:
    return message({"code": error.code}, "error")


def accepting(*values: str) -> Request:
    return Request({"type": "http", "headers": [(b"accept", value.encode()) for value in values]})


async def test_an_event_is_its_name_and_one_line_of_json() -> None:
    assert message({"text": "Ёж\n\n"}, "segment") == (
        'event: segment\ndata: {"text": "Ёж\\n\\n"}\n\n'.encode()
    )


async def test_no_character_of_a_text_ends_its_line_for_any_reader() -> None:
    every_line_end = "a\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029b"

    lines = message(every_line_end).decode().splitlines()

    assert len(lines) == 2
    assert json.loads(lines[0].removeprefix("data: ")) == every_line_end


@pytest.mark.parametrize(
    ("accept", "wants"),
    [
        (["text/event-stream"], True),
        (["application/json, Text/Event-Stream;q=0.9"], True),
        (["application/json", "text/event-stream"], True),
        (["*/*"], False),
        ([], False),
    ],
)
async def test_a_stream_is_for_who_names_its_type(accept: list[str], wants: bool) -> None:
    assert wants_event_stream(accepting(*accept)) is wants


async def test_each_message_is_sent_when_it_is_there(connection: Connection) -> None:
    may_go_on = asyncio.Event()

    async def messages() -> Messages:
        yield b"first"
        await may_go_on.wait()
        yield b"second"

    serving = asyncio.create_task(connection.serve(messages()))
    head, first = await connection.sent.get(), await connection.sent.get()
    may_go_on.set()
    await serving

    assert head["status"] == 200
    headers = dict(head["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"x-accel-buffering"] == b"no"
    assert b"content-length" not in headers
    assert first["body"] == b"first"
    assert connection.body() == b"second"
    assert connection.are_resources_freed


async def test_an_error_before_the_first_message_rises(connection: Connection) -> None:
    async def messages() -> Messages:
        raise Overloaded("Full.")
        yield

    with pytest.raises(Overloaded):
        await connection.serve(messages())

    assert connection.sent.empty()
    assert connection.are_resources_freed


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (EngineFailed("The model call failed."), "engine_failed", 500),
        (Overloaded("Full."), "overloaded", 503),
        (RuntimeError("secret: /srv/models"), "internal_error", 500),
    ],
)
async def test_a_later_error_is_the_last_message_and_the_records_status(
    connection: Connection, error: Exception, code: str, status: int
) -> None:
    async def messages() -> Messages:
        yield b"first"
        raise error

    await connection.serve(messages())

    assert connection.body() == b"first" + message({"code": code}, "error")
    assert record_of(connection.scope).status == status
    assert connection.are_resources_freed


async def test_resources_are_freed_before_the_end_is_sent(connection: Connection) -> None:
    were_freed = []

    class Watched(asyncio.Queue[Message]):
        async def put(self, item: Message) -> None:
            were_freed.append((item.get("more_body"), connection.are_resources_freed))

    connection.sent = Watched()

    async def messages() -> Messages:
        yield b"only"

    await connection.serve(messages())

    assert were_freed[-2:] == [(True, False), (False, True)]


async def test_silence_is_filled_with_comments(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.01)
    may_go_on = asyncio.Event()

    async def messages() -> Messages:
        await may_go_on.wait()
        yield b"first"

    serving = asyncio.create_task(connection.serve(messages()))
    await connection.sent.get()
    comments = [(await connection.sent.get())["body"] for _ in range(3)]
    may_go_on.set()
    await serving

    assert comments == [comment("keep-alive")] * 3
    assert connection.body().endswith(b"first")


@pytest.mark.parametrize("num_messages", [0, 1])
async def test_the_work_has_ended_when_the_caller_left(
    connection: Connection, num_messages: int
) -> None:
    has_ended = False

    async def messages() -> Messages:
        nonlocal has_ended
        try:
            for _ in range(num_messages):
                yield b"first"
            connection.leave.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # As an engine that takes a moment to let go.
            has_ended = True

    try:
        await connection.serve(messages())
        status = record_of(connection.scope).status
    except Cancelled:
        status = 499  # Before the first message the problem's handler sees to it.

    assert status == 499
    assert has_ended
    assert connection.are_resources_freed


async def test_a_caller_who_takes_nothing_is_given_up(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "STALLED_SECONDS", 0.01)
    connection.sent = asyncio.Queue(maxsize=1)

    async def messages() -> Messages:
        while True:
            yield b"more"

    await connection.serve(messages())

    assert record_of(connection.scope).status == 499
    assert connection.are_resources_freed


async def test_a_server_that_stops_says_so_in_the_stream(connection: Connection) -> None:
    async def messages() -> Messages:
        yield b"first"
        await asyncio.Event().wait()

    serving = asyncio.create_task(connection.serve(messages()))
    await connection.sent.get()
    await connection.sent.get()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)

    assert serving.cancelled()
    assert connection.body() == message({"code": "shutting_down"}, "error")
    assert connection.are_resources_freed
