"""Audio that was taken in and is not done yet: how much, how much more, and how long it will take.

Bookkeeping alone; the clock is handed in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from simple_asr.errors import Overloaded

# Busy seconds after which what came before counts half.
_MEMORY = 600.0
# Seconds a caller is told to wait where nothing has been measured, and at most.
_UNKNOWN, _LONGEST = 5.0, 600.0


@dataclass(eq=False, slots=True)
class Place:
    """What one recording takes of the backlog; its owner may set more, as it gets to know."""

    seconds: float


class Backlog:
    """At most `max_seconds` of audio, or one recording of any length. `_lock` guards all of it.

    Speed is audio done for each second in which there was some to do.
    """

    def __init__(self, max_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_seconds = max_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[Place] = []
        self._done = 0.0
        self._busy = 0.0
        self._at = clock()

    @contextmanager
    def place(self, seconds: float) -> Iterator[Place]:
        """For a recording from its admission to its end. Raises Overloaded."""
        with self._lock:
            total = self._total() + seconds
            if self._waiting and total > self._max_seconds:
                raise Overloaded(
                    f"{total - seconds:.0f} s of audio are being worked on; with this recording's "
                    f"{seconds:.0f} s that would be more than {self._max_seconds:g} s "
                    "(MAX_WAITING_AUDIO_SECONDS). Send the request again later.",
                    retry_after=self._seconds_for(total - self._max_seconds),
                )
            self._tick()
            place = Place(seconds)
            self._waiting.append(place)
        try:
            yield place
        except BaseException:
            self._end(place, done=0.0)
            raise
        self._end(place, done=place.seconds)

    def seconds_to_next_end(self) -> float:
        """How long until one of the recordings is likely to be done."""
        with self._lock:
            mean = self._total() / len(self._waiting) if self._waiting else 0.0
            return self._seconds_for(mean)

    def _end(self, place: Place, *, done: float) -> None:
        with self._lock:
            self._tick()
            self._waiting.remove(place)
            self._done += done

    def _total(self) -> float:
        return sum(place.seconds for place in self._waiting)

    def _tick(self) -> None:
        now = self._clock()
        if self._waiting:
            self._busy += now - self._at
        self._at = now
        if self._busy > _MEMORY:
            self._busy, self._done = self._busy / 2, self._done / 2

    def _seconds_for(self, audio_seconds: float) -> float:
        if not self._done or not self._busy:
            return _UNKNOWN
        return min(_LONGEST, max(1.0, audio_seconds * self._busy / self._done))
