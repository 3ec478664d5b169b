"""Tells when a model that has worked is at rest. Pure: what is told comes in, with the time."""

from __future__ import annotations


class Idleness:
    """Tells once, after each spell of work, that there has been none for `seconds`."""

    def __init__(self, seconds: float, now: float) -> None:
        """Work ends `now`: that of loading the model."""
        self._seconds = seconds
        self._num_calls = 0
        self._last_work = now
        self._is_told = False

    def begins(self, num_requests: int, num_calls: int, now: float) -> bool:
        """Whether rest begins `now`: `num_requests` are under way, after `num_calls` in all."""
        if num_requests or num_calls != self._num_calls:
            self._num_calls = num_calls
            self._last_work = now
            self._is_told = False
        if self._is_told or now - self._last_work < self._seconds:
            return False
        self._is_told = True
        return True
