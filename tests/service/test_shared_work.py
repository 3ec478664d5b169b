"""Work is done once for all who ask for the same, and no longer than somebody wants it."""

from __future__ import annotations

import asyncio

import pytest

from simple_asr.errors import EngineFailed
from simple_asr.service.shared_work import SharedWork

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Work:
    """Ends when it `may_end`; counts how often it was begun."""

    def __init__(self) -> None:
        self.num_begun = 0
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.was_cancelled = asyncio.Event()

    async def __call__(self) -> str:
        self.num_begun += 1
        self.has_begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise
        return "text"


@pytest.fixture
async def work() -> Work:
    return Work()


@pytest.fixture
async def shared() -> SharedWork[str, str]:
    return SharedWork()


async def leave(waiting: asyncio.Task[str]) -> None:
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_two_who_ask_for_the_same_share_the_work(
    shared: SharedWork[str, str], work: Work
) -> None:
    first = asyncio.create_task(shared.join("same", work))
    second = asyncio.create_task(shared.join("same", work))
    await work.has_begun.wait()
    work.may_end.set()

    assert [await first, await second] == ["text", "text"]
    assert work.num_begun == 1


async def test_other_work_is_begun_by_itself(shared: SharedWork[str, str], work: Work) -> None:
    work.may_end.set()

    await asyncio.gather(shared.join("one", work), shared.join("other", work))

    assert work.num_begun == 2


async def test_what_is_done_is_not_kept(shared: SharedWork[str, str], work: Work) -> None:
    work.may_end.set()

    await shared.join("same", work)
    await shared.join("same", work)

    assert work.num_begun == 2


async def test_one_who_leaves_does_not_end_the_work_of_another(
    shared: SharedWork[str, str], work: Work
) -> None:
    first = asyncio.create_task(shared.join("same", work))
    second = asyncio.create_task(shared.join("same", work))
    await work.has_begun.wait()
    await leave(first)
    work.may_end.set()

    assert await second == "text"
    assert not work.was_cancelled.is_set()


async def test_the_work_has_ended_when_the_last_has_left(
    shared: SharedWork[str, str], work: Work
) -> None:
    waiting = asyncio.create_task(shared.join("same", work))
    await work.has_begun.wait()
    await leave(waiting)

    assert work.was_cancelled.is_set()


async def test_one_who_comes_back_in_time_finds_the_work_going_on(
    shared: SharedWork[str, str], work: Work
) -> None:
    waiting = asyncio.create_task(shared.join("same", work, lambda: 60))
    await work.has_begun.wait()
    await leave(waiting)
    work.may_end.set()

    assert await shared.join("same", work) == "text"
    assert work.num_begun == 1


async def test_work_nobody_comes_back_for_is_ended(
    shared: SharedWork[str, str], work: Work
) -> None:
    waiting = asyncio.create_task(shared.join("same", work, lambda: 0.01))
    await work.has_begun.wait()
    await leave(waiting)
    await work.was_cancelled.wait()

    again = asyncio.create_task(shared.join("same", work))
    work.may_end.set()
    await again
    assert work.num_begun == 2


async def test_an_error_is_everybodys_and_the_next_begins_anew(
    shared: SharedWork[str, str], work: Work
) -> None:
    async def fail() -> str:
        raise EngineFailed("The model call failed.")

    outcomes = await asyncio.gather(
        shared.join("same", fail), shared.join("same", fail), return_exceptions=True
    )
    work.may_end.set()

    assert [type(outcome) for outcome in outcomes] == [EngineFailed, EngineFailed]
    assert await shared.join("same", work) == "text"
