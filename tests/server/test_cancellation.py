"""Work ends with the caller who wanted it."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from simple_asr.errors import Cancelled, Overloaded
from simple_asr.server.cancellation import unless_caller_leaves

pytestmark = pytest.mark.anyio


class Caller:
    """A caller who stays until `leave` is set."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()

    async def receive(self) -> Message:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    def request(self) -> Request:
        return Request({"type": "http"}, self.receive)


async def test_a_caller_who_stays_gets_the_result() -> None:
    async def work() -> str:
        return "text"

    assert await unless_caller_leaves(Caller().request(), work()) == "text"


async def test_an_error_of_the_work_rises() -> None:
    async def work() -> str:
        raise Overloaded("Full.")

    with pytest.raises(Overloaded):
        await unless_caller_leaves(Caller().request(), work())


async def test_work_has_ended_when_its_caller_left() -> None:
    caller = Caller()
    has_ended = False

    async def work() -> None:
        nonlocal has_ended
        caller.leave.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # As an engine that takes a moment to let go.
            has_ended = True

    with pytest.raises(Cancelled):
        await unless_caller_leaves(caller.request(), work())

    assert has_ended


async def test_work_ends_when_the_server_gives_the_request_up() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    serving = asyncio.create_task(unless_caller_leaves(Caller().request(), work()))
    await started.wait()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)

    assert ended.is_set()
