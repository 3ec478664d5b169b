"""What each key has used, by day (UTC): transcriptions, audio and computing time.

Noted in memory, and written to the store some seconds later, so that no request waits for a disk or
fails with it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Protocol

from simple_asr.errors import AsrError
from simple_asr.transcript.model import Processing

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Used:
    """`compute_seconds` is how long the server decoded and recognised, calls shared with others
    included; `audio_seconds` the audio that was recognised.
    """

    requests: int = 0
    audio_seconds: float = 0.0
    compute_seconds: float = 0.0

    @classmethod
    def by_request(cls, audio_seconds: float | None, processing: Processing | None) -> Used:
        """One request, as far as it got."""
        return cls(1, audio_seconds or 0.0, _computed(processing))

    @classmethod
    def by_job(cls, audio_seconds: float, processing: Processing | None = None) -> Used:
        """A part of a job, whose request was counted when it came."""
        return cls(0, audio_seconds, _computed(processing))

    def __add__(self, other: Used) -> Used:
        return Used(
            self.requests + other.requests,
            self.audio_seconds + other.audio_seconds,
            self.compute_seconds + other.compute_seconds,
        )


@dataclass(frozen=True, slots=True)
class UsedInDay:
    """What the key of this name used on one day (UTC)."""

    day: date
    key_name: str
    used: Used


class Store(Protocol):
    """`usage_store.UsageStore`. Every method blocks, and raises an AsrError when it fails."""

    def add(self, rows: Sequence[UsedInDay]) -> None:
        """To what is there already; all of it or nothing."""
        ...

    def since(self, day: date) -> list[UsedInDay]: ...

    def close(self) -> None: ...


class Usage:
    """`_lock` guards what is not written yet, `_writing` the store: one writes at a time."""

    def __init__(
        self, open_store: Callable[[], Store], clock: Callable[[], float] = time.time
    ) -> None:
        """`open_store` is called when the store is needed first, and again until it succeeds."""
        self._open_store = open_store
        self._clock = clock
        self._store: Store | None = None
        self._unwritten: dict[tuple[date, str], Used] = {}
        self._has_warned = False
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def note(self, key_name: str, used: Used) -> None:
        """Never waits for the store."""
        place = (_day(self._clock()), key_name)
        with self._lock:
            self._unwritten[place] = self._unwritten.get(place, Used()) + used

    def flush(self) -> None:
        """Writes what was noted. Blocks. What cannot be written stays noted, with one warning."""
        with self._writing:
            with self._lock:
                unwritten, self._unwritten = self._unwritten, {}
            if not unwritten:
                return
            try:
                self._opened().add([UsedInDay(*place, used) for place, used in unwritten.items()])
            except AsrError as error:
                with self._lock:
                    for place, used in unwritten.items():
                        self._unwritten[place] = self._unwritten.get(place, Used()) + used
                self._warn(error)
            else:
                self._has_warned = False

    def of_last_day(self) -> dict[str, Used]:
        """By key, about the last 24 hours: today, and as much of yesterday as lies within them.

        Blocks. Nothing where the store fails.
        """
        now = self._clock()
        today = _day(now)
        share_of_yesterday = 1 - now % DAY_SECONDS / DAY_SECONDS
        spent: dict[str, Used] = {}
        try:
            with self._writing:
                rows = self._opened().since(today - timedelta(days=1))
        except AsrError as error:
            self._warn(error)
            return {}
        for row in rows:
            used = row.used if row.day == today else _share(row.used, share_of_yesterday)
            spent[row.key_name] = spent.get(row.key_name, Used()) + used
        return spent

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """What is noted meanwhile is written every FLUSH_SECONDS, and at the end."""
        writing = asyncio.create_task(self._keep_writing())
        try:
            yield
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await asyncio.to_thread(self._end)

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await asyncio.to_thread(self.flush)

    def _end(self) -> None:
        self.flush()
        if self._store is not None:
            self._store.close()

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _warn(self, error: AsrError) -> None:
        if not self._has_warned:
            logger.warning("What keys use cannot be kept, and is tried again: %s", error.detail)
        self._has_warned = True


def _computed(processing: Processing | None) -> float:
    return 0.0 if processing is None else processing.decode + processing.recognise


def _day(now: float) -> date:
    return datetime.fromtimestamp(now, timezone.utc).date()


def _share(used: Used, share: float) -> Used:
    return Used(
        round(used.requests * share), used.audio_seconds * share, used.compute_seconds * share
    )
