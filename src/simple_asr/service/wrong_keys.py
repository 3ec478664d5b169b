"""Who has guessed too many keys. Pure bookkeeping: the clock is handed in."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from simple_asr.errors import QuotaExceeded

MINUTE = 60.0
# Addresses remembered: an attacker with more of them pushes out the oldest, and no memory grows.
MAX_ADDRESSES = 10_000


class WrongKeys:
    """At most `per_minute` wrong keys from an address, then none is looked at until one is old.

    Owned by the event loop.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """0: nobody is counted."""
        self._per_minute = per_minute
        self._clock = clock
        self._times: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Before a key is compared. Raises QuotaExceeded."""
        times = self._recent(address)
        if self._per_minute and len(times) >= self._per_minute:
            raise QuotaExceeded(
                f"{len(times)} wrong API keys came from your address within a minute, and no more "
                "are looked at. Wait, and check the key.",
                retry_after=times[0] + MINUTE - self._clock(),
            )

    def note(self, address: str) -> None:
        """A key from there was wrong."""
        if not self._per_minute:
            return
        self._times[address] = [*self._recent(address), self._clock()]
        self._times.move_to_end(address)
        while len(self._times) > MAX_ADDRESSES:
            self._times.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        since = self._clock() - MINUTE
        return [at for at in self._times.get(address, ()) if at > since]
