"""One piece of work for all who ask for the same while it runs, whatever the work is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


@dataclass(slots=True)
class _Work(Generic[Result]):
    """`ending` is set while nobody waits and somebody may come back."""

    task: asyncio.Task[Result]
    num_waiting: int = 0
    ending: asyncio.TimerHandle | None = None


class SharedWork(Generic[Key, Result]):
    """What runs now, by key. Owned by one event loop."""

    def __init__(self) -> None:
        self._running: dict[Key, _Work[Result]] = {}

    async def join(
        self,
        key: Key,
        begin: Callable[[], Coroutine[Any, Any, Result]],
        seconds_kept: Callable[[], float] = lambda: 0.0,
    ) -> Result:
        """The result of the work under this key, which is begun unless it runs.

        Cancelling one who waits cancels the work with the last of them; `seconds_kept`, asked then,
        is how long it goes on first for somebody who may come back. With 0 it has ended when
        this raises.
        """
        work = self._running.get(key)
        if work is None:
            work = self._running[key] = _Work(asyncio.ensure_future(begin()))
        if work.ending is not None:
            work.ending.cancel()
            work.ending = None
        work.num_waiting += 1
        try:
            result = await asyncio.shield(work.task)
        except asyncio.CancelledError:
            work.num_waiting -= 1
            await self._leave(key, work, seconds_kept())
            raise
        except BaseException:
            self._forget(key, work)
            raise
        self._forget(key, work)
        return result

    async def _leave(self, key: Key, work: _Work[Result], seconds_kept: float) -> None:
        if work.num_waiting:
            return
        if seconds_kept > 0:
            loop = asyncio.get_running_loop()
            work.ending = loop.call_later(seconds_kept, self._end, key, work)
            return
        self._end(key, work)
        await asyncio.gather(work.task, return_exceptions=True)

    def _end(self, key: Key, work: _Work[Result]) -> None:
        self._forget(key, work)
        work.task.cancel()
        # Nobody is left to hear of it.
        work.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    def _forget(self, key: Key, work: _Work[Result]) -> None:
        if self._running.get(key) is work:
            del self._running[key]
