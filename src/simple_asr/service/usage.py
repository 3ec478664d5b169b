"""What each key has used, by day (UTC): transcriptions, audio and computing time.

Noted in memory, and written to the store some seconds later, so that no request waits for a disk or
fails with it; when that is, `charges.py` says. Several servers may share a store: each learns there
what keys use at the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Protocol

from simple_asr.errors import AsrError
from simple_asr.transcript.model import Processing

logger = logging.getLogger(__name__)

DAY_SECONDS = 86_400.0
# Sums of fractions differ by less, in whatever order they were added.
LEAST_SECONDS = 1e-3


@dataclass(frozen=True, slots=True)
class Used:
    """`compute_seconds` is how long the server decoded and recognised, calls shared with others
    included; `audio_seconds` the audio that was recognised.
    """

    requests: int = 0
    audio_seconds: float = 0.0
    compute_seconds: float = 0.0

    @classmethod
    def by_work(cls, audio_seconds: float | None, processing: Processing | None = None) -> Used:
        """A request, as far as it got, or a part of a job: either was counted when it came."""
        return cls(0, audio_seconds or 0.0, _computed(processing))

    def __add__(self, other: Used) -> Used:
        return Used(
            self.requests + other.requests,
            self.audio_seconds + other.audio_seconds,
            self.compute_seconds + other.compute_seconds,
        )

    def __sub__(self, other: Used) -> Used:
        return Used(
            self.requests - other.requests,
            self.audio_seconds - other.audio_seconds,
            self.compute_seconds - other.compute_seconds,
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
    """`_lock` guards what is not written yet, `_writing` the store: one writes at a time.

    `_known` is what the store held when it was last read, and what was written from here since.
    """

    def __init__(
        self, open_store: Callable[[], Store], clock: Callable[[], float] = time.time
    ) -> None:
        """`open_store` is called when the store is needed first, and again until it succeeds."""
        self._open_store = open_store
        self._clock = clock
        self._store: Store | None = None
        self._unwritten: dict[tuple[date, str], Used] = {}
        self._known: dict[tuple[date, str], Used] | None = None
        self._read_at = 0.0
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
            except Exception as error:
                with self._lock:
                    for place, used in unwritten.items():
                        self._unwritten[place] = self._unwritten.get(place, Used()) + used
                if not isinstance(error, AsrError):
                    raise
                self._warn(error)
            else:
                self._has_warned = False
                if self._known is not None:
                    for place, used in unwritten.items():
                        self._known[place] = self._known.get(place, Used()) + used

    def news(self) -> tuple[dict[str, Used], float]:
        """What keys used at other servers since this was last asked, and in how many seconds.

        When it is asked first, what they used at any in about the last 24 hours. Blocks. Nothing
        where the store fails: it is told the next time.
        """
        now = self._clock()
        with self._writing:
            try:
                rows = self._opened().since(_day(now) - timedelta(days=1))
            except AsrError as error:
                self._warn(error)
                return {}, DAY_SECONDS
            before, self._known = self._known, {(row.day, row.key_name): row.used for row in rows}
            read_at, self._read_at = self._read_at, now
            if before is None:
                return _of_last_day(self._known, now), DAY_SECONDS
            return _added(before, self._known), max(1.0, now - read_at)

    def close(self) -> None:
        """Writes what is left, and closes the store. Blocks."""
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


def _of_last_day(rows: Mapping[tuple[date, str], Used], now: float) -> dict[str, Used]:
    """By key: today's, and as much of yesterday's as lies within 24 hours."""
    share_of_yesterday = 1 - now % DAY_SECONDS / DAY_SECONDS
    spent: dict[str, Used] = {}
    for (day, key_name), used in rows.items():
        share = used if day == _day(now) else _share(used, share_of_yesterday)
        spent[key_name] = spent.get(key_name, Used()) + share
    return spent


def _added(
    before: Mapping[tuple[date, str], Used], after: Mapping[tuple[date, str], Used]
) -> dict[str, Used]:
    """By key."""
    added: dict[str, Used] = {}
    for place, used in after.items():
        more = used - before.get(place, Used())
        if more.requests > 0 or more.audio_seconds > LEAST_SECONDS:
            added[place[1]] = added.get(place[1], Used()) + more
    return added


def _computed(processing: Processing | None) -> float:
    return 0.0 if processing is None else processing.decode + processing.recognise


def _day(now: float) -> date:
    return datetime.fromtimestamp(now, timezone.utc).date()


def _share(used: Used, share: float) -> Used:
    return Used(
        round(used.requests * share), used.audio_seconds * share, used.compute_seconds * share
    )
