"""Chooses which windows the model decodes next. Pure bookkeeping: no thread, no clock, no model."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container, Sequence

from simple_asr.engine.window import Priority, Rank, Window

# So that the background goes on under any load, it leads one call after so many others; and so many
# windows at most pass each of a call that has begun.
MOST_PASSED_OVER = 8


class Scheduler:
    """Waiting windows, by request, in turn.

    Of the requests with the first priority, the one that has waited longest chooses the batch key;
    windows of the others join it as their turn comes, one a request. Room that is left goes to more
    windows of the same requests: to any of a request that is alone, and otherwise only to those
    that are encoded already, since each of the others would hold up the whole batch. Whoever had a
    window taken goes to the end of the line, so a short clip never waits for a long file to end. A
    request with nothing waiting loses its place and comes back at the end.

    Owned by the engine, guarded by its lock.
    """

    def __init__(self, max_batch_size: int, *, mixes_ranks: bool = False) -> None:
        """With `mixes_ranks` all windows may share a call, since one more costs hardly anything.

        Elsewhere they would hold each other up.
        """
        self._max_batch_size = max_batch_size
        self._mixes_ranks = mixes_ranks
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
        """Takes back windows of a batch; they come before the others of their requests."""
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

    def next_batch(self) -> list[Window]:
        """Windows for one model call, all with one key; empty when nothing waits."""
        if not self._waiting:
            return []
        return self._batch_of(self._leader(), self._max_batch_size, mixes_ranks=self._mixes_ranks)

    def batch_before(self, rank: Rank, max_size: int) -> list[Window]:
        """Windows for a call between two tokens of another, whose windows are of `rank`.

        All are of an earlier rank; empty when no such window waits.
        """
        first = min(self._waiting, key=self._rank, default=None)
        if first is None or self._rank(first) >= rank:
            return []
        if self._priority(first) < self._priority(self._longest_waiting()):
            self._num_passed_over += 1
        return self._batch_of(first, max_size, mixes_ranks=False)

    def _batch_of(self, leader: object, max_size: int, *, mixes_ranks: bool) -> list[Window]:
        """The first window of each request comes before the second of any."""
        batch = [self._take(leader)]
        others = [owner for owner in self._waiting if owner != leader]
        self._join(batch, sorted(others, key=self._rank), max_size, mixes_ranks=mixes_ranks)
        is_alone = len(batch) == 1 and not self.has_others_than({leader}, batch[0].priority)
        while len(batch) < max_size:
            num_before = len(batch)
            more = [
                owner
                for owner, windows in self._waiting.items()
                if is_alone or windows[0].audio.encoded is not None
            ]
            self._join(batch, more, max_size, mixes_ranks=mixes_ranks)
            if len(batch) == num_before:
                break
        return batch

    def _leader(self) -> object:
        """Whose turn it is."""
        longest_waiting = self._longest_waiting()
        first = min(self._waiting, key=self._priority)
        is_first = self._priority(first) == self._priority(longest_waiting)
        if is_first or self._num_passed_over >= MOST_PASSED_OVER:
            self._num_passed_over = 0
            return longest_waiting
        self._num_passed_over += 1
        return first

    def _longest_waiting(self) -> object:
        return next(iter(self._waiting))

    def _priority(self, owner: object) -> Priority:
        return self._waiting[owner][0].priority

    def _rank(self, owner: object) -> Rank:
        return self._waiting[owner][0].rank

    def _join(
        self,
        batch: list[Window],
        owners: Sequence[object],
        max_size: int,
        *,
        mixes_ranks: bool,
    ) -> None:
        """One window of each of `owners`, where it fits."""
        leading = batch[0]
        for owner in owners:
            window = self._waiting[owner][0]
            is_near = mixes_ranks or window.rank == leading.rank
            if len(batch) < max_size and window.key == leading.key and is_near:
                batch.append(self._take(owner))

    def _take(self, owner: object) -> Window:
        windows = self._waiting.pop(owner)
        window = windows.popleft()
        if windows:
            self._waiting[owner] = windows
        return window
