"""Measures where one request's time goes. Arithmetic on marks; the clock is handed in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from simple_asr.transcript.model import Processing


class Stopwatch:
    """Runs from when it is made. `_lock` guards the end of the waiting: workers share a request."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._decode = 0.0
        self._queue = 0.0
        self._submitted: float | None = None
        self._lock = threading.Lock()

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """While the file is decoded; what came before was waiting for a decoder."""
        started = self._clock()
        self._queue = started - self._began
        try:
            yield
        finally:
            self._decode = self._clock() - started

    def submitted(self) -> None:
        """The request waits for the model from now on."""
        self._submitted = self._clock()

    def heard(self) -> None:
        """The model turns to the request: the first time ends the waiting."""
        with self._lock:
            if self._submitted is not None:
                self._queue += self._clock() - self._submitted
                self._submitted = None

    def processing(self) -> Processing:
        """What has gone into it until now."""
        total = self._clock() - self._began
        return Processing(self._queue, self._decode, max(0.0, total - self._queue - self._decode))
