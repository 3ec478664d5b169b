"""Tells a model call that will never return from one that is slow. The clock is handed in."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from simple_asr.engine.window import Decode, Window

# A call may take so many times what the slowest of late took for as much work: a search of 224
# tokens may follow where only the encoder has been seen yet, and a machine may be busy with others.
PATIENCE = 30
_NUM_REMEMBERED = 100


class CallWatch:
    """The model calls going on, one a worker, and how long such calls take.

    `_lock` guards all of it: workers tell, a watcher asks.
    """

    def __init__(
        self,
        min_timeout: float,
        window_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A call has `min_timeout` seconds at least; 0: for ever. `window_seconds` is what one
        window took before, of which nobody told.
        """
        self._min_timeout = min_timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: dict[object, tuple[float, int]] = {}
        self._recent = deque([window_seconds], maxlen=_NUM_REMEMBERED)

    @contextmanager
    def paused(self, worker: object) -> Iterator[None]:
        """While the call of `worker` stands still, and it makes others."""
        stopped = self._clock()
        with self._lock:
            began, work = self._calls.pop(worker)
        try:
            yield
        finally:
            with self._lock:
                self._calls[worker] = (began + self._clock() - stopped, work)

    @contextmanager
    def call(self, worker: object, work: int) -> Iterator[None]:
        """While `worker` waits for the model; `work` is in windows, as `work_of` has it."""
        with self._lock:
            self._calls[worker] = (self._clock(), work)
        try:
            yield
        finally:
            with self._lock:
                began, _ = self._calls.pop(worker)
                self._recent.append((self._clock() - began) / work)

    def overdue(self) -> str | None:
        """What is wrong, for the log; None while every call may still return."""
        if not self._min_timeout:
            return None
        now = self._clock()
        with self._lock:
            slowest = max(self._recent)
            for began, work in self._calls.values():
                timeout = max(self._min_timeout, PATIENCE * slowest * work)
                if now - began > timeout:
                    return (
                        f"A model call has not returned for {now - began:.0f} s; "
                        f"{timeout:.0f} s is the most it may take (ENGINE_TIMEOUT_SECONDS)."
                    )
        return None


def work_of(windows: Sequence[Window]) -> int:
    """How much a call about these windows asks: a window searched by five beams counts five."""
    return sum(
        max(window.step.search.beam_size, window.step.search.num_hypotheses)
        if isinstance(window.step, Decode)
        else 1
        for window in windows
    )
