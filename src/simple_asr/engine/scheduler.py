"""Chooses which windows the model decodes next. Pure bookkeeping: no thread, no clock, no model."""

from __future__ import annotations

from collections import OrderedDict, deque

from simple_asr.engine.window import Window


class Scheduler:
    """Waiting windows, by request, in turn.

    The request that has waited longest chooses the batch key; windows of the others join it as
    their turn comes, one a request, then once more round while there is room. Whoever had a window
    taken goes to the end of the line, so a short clip never waits for a long file to end. A
    request with nothing waiting loses its place and comes back at the end.

    Owned by the engine, guarded by its lock.
    """

    def __init__(self, max_batch_size: int) -> None:
        self._max_batch_size = max_batch_size
        self._waiting: OrderedDict[object, deque[Window]] = OrderedDict()

    @property
    def num_waiting(self) -> int:
        """Windows waiting."""
        return sum(len(windows) for windows in self._waiting.values())

    def add(self, window: Window) -> None:
        self._waiting.setdefault(window.owner, deque()).append(window)

    def remove(self, owner: object) -> None:
        """Forgets all windows of one request."""
        self._waiting.pop(owner, None)

    def next_batch(self) -> list[Window]:
        """Windows for one model call, all with one key; empty when nothing waits."""
        if not self._waiting:
            return []
        batch = [self._take(next(iter(self._waiting)))]
        key = batch[0].key
        while len(batch) < self._max_batch_size:
            joining = [owner for owner, windows in self._waiting.items() if windows[0].key == key]
            if not joining:
                break
            room = self._max_batch_size - len(batch)
            batch.extend(self._take(owner) for owner in joining[:room])
        return batch

    def _take(self, owner: object) -> Window:
        windows = self._waiting.pop(owner)
        window = windows.popleft()
        if windows:
            self._waiting[owner] = windows
        return window
