"""Stops work nobody waits for any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import Request

from simple_asr.errors import Cancelled

Result = TypeVar("Result")


async def unless_caller_leaves(request: Request, work: Awaitable[Result]) -> Result:
    """The result of `work`, which is cancelled, and has ended, when the caller leaves first.

    To be called once the body is read. Raises Cancelled then, and whatever `work` raises.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_caller_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Cancelled("The caller left before the answer was ready.")
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _caller_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
