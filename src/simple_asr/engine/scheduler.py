"""Chooses which windows the model decodes next. Pure bookkeeping: no thread, no clock, no model."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container, Sequence

from simple_asr.engine.window import BatchKey, Priority, Window

# So that the background goes on under any load, it leads one call in so many, and one of its own
# gives way to so many others.
MOST_PASSED_OVER = 8


class Scheduler:
    """Waiting windows, by request, in turn.

    Of the requests with the first priority, the one that has waited longest chooses the batch key;
    windows of the others join it as their turn comes, one a request, those with the first priority
    before the rest. Room that is left goes to more windows of the same requests:
    to any of a request that is alone, and otherwise only to those that are encoded already, since
    each of the others would hold up the whole batch. Whoever had a window taken goes to the end of
    the line, so a short clip never waits for a long file to end. A request with nothing waiting
    loses its place and comes back at the end.

    Owned by the engine, guarded by its lock.
    """

    def __init__(self, max_batch_size: int) -> None:
        self._max_batch_size = max_batch_size
        self._waiting: OrderedDict[object, deque[Window]] = OrderedDict()
        self._num_passed_over = 0
        """Calls in a row that left out the request which has waited longest, for its priority."""

    def add(self, window: Window) -> None:
        """An encoded window goes before its request's others: what it holds is soon let go."""
        windows = self._waiting.setdefault(window.owner, deque())
        if window.audio.encoded is None:
            windows.append(window)
        else:
            windows.appendleft(window)

    def put_back(self, windows: Sequence[Window]) -> None:
        """Takes back windows of `next_batch`; they come before the others of their requests."""
        for window in reversed(windows):
            self._waiting.setdefault(window.owner, deque()).appendleft(window)

    def remove(self, owner: object) -> None:
        """Forgets all windows of one request."""
        self._waiting.pop(owner, None)

    def has_others_than(self, owners: Container[object], priority: Priority) -> bool:
        """Whether a request waits that is none of `owners`, and has this priority or one before."""
        return any(
            owner not in owners and self._priority(owner) <= priority for owner in self._waiting
        )

    def next_batch(self, before: Priority | None = None) -> list[Window]:
        """Windows for one model call, all with one key; empty when nothing waits.

        The first window of each request comes before the second of any. With `before`, the call is
        made between two tokens of another, and only for who has a priority before that one's.
        """
        if not self._waiting:
            return []
        leader = self._leader() if before is None else self._first()
        if before is not None and self._priority(leader) >= before:
            return []
        batch = [self._take(leader)]
        key = batch[0].key
        others = [owner for owner in self._waiting if owner != batch[0].owner]
        self._join(batch, sorted(others, key=self._priority), key)
        is_alone = len(batch) == 1 and not self.has_others_than({batch[0].owner}, batch[0].priority)
        while len(batch) < self._max_batch_size:
            num_before = len(batch)
            more = [
                owner
                for owner, windows in self._waiting.items()
                if is_alone or windows[0].audio.encoded is not None
            ]
            self._join(batch, more, key)
            if len(batch) == num_before:
                break
        return batch

    def _leader(self) -> object:
        """Whose turn it is."""
        longest_waiting = next(iter(self._waiting))
        first = self._first()
        if self._priority(first) == self._priority(longest_waiting):
            self._num_passed_over = 0
            return longest_waiting
        self._num_passed_over += 1
        if self._num_passed_over > MOST_PASSED_OVER:
            self._num_passed_over = 0
            return longest_waiting
        return first

    def _first(self) -> object:
        """Of those with the first priority, the one that has waited longest."""
        return min(self._waiting, key=self._priority)

    def _priority(self, owner: object) -> Priority:
        return self._waiting[owner][0].priority

    def _join(self, batch: list[Window], owners: Sequence[object], key: BatchKey) -> None:
        """One window of each of `owners`, where it fits."""
        for owner in owners:
            if len(batch) < self._max_batch_size and self._waiting[owner][0].key == key:
                batch.append(self._take(owner))

    def _take(self, owner: object) -> Window:
        windows = self._waiting.pop(owner)
        window = windows.popleft()
        if windows:
            self._waiting[owner] = windows
        return window
