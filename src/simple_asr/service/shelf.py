"""Decides which models stay in memory. Pure bookkeeping: no thread, no clock, no model.

Moments are seconds of any clock that only goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass

from simple_asr.errors import InvalidParameter, ModelNotReady


@dataclass(slots=True)
class _Place:
    """`num_users` are at work with it; it was last used at `used_at`."""

    num_bytes: int
    used_at: float
    is_kept: bool
    num_users: int = 0

    @property
    def may_go(self) -> bool:
        return not self.is_kept and self.num_users == 0


class Shelf:
    """Models by name, within `max_bytes`. Owned by ModelPool, under its lock."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._places: dict[str, _Place] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def num_users(self, name: str) -> int:
        """How many are at work with a model."""
        return self._places[name].num_users if name in self._places else 0

    def make_room(self, name: str, num_bytes: int) -> list[str]:
        """Those that have to leave for a model, the least recently used first.

        Raises InvalidParameter when it can never fit, and ModelNotReady while those that would have
        to leave are in use.
        """
        kept = sum(place.num_bytes for place in self._places.values() if place.is_kept)
        if kept + num_bytes > self._max_bytes:
            raise InvalidParameter(
                f"The model {name} needs {num_bytes / 1e6:.0f} MB; beside the default model "
                f"{max(0, self._max_bytes - kept) / 1e6:.0f} MB may be used (MODEL_MEMORY_BYTES). "
                "Name a smaller model.",
                field="model",
            )
        free = self._max_bytes - sum(place.num_bytes for place in self._places.values())
        leaving = []
        for old, place in sorted(self._places.items(), key=lambda item: item[1].used_at):
            if free >= num_bytes:
                break
            if place.may_go:
                leaving.append(old)
                free += place.num_bytes
        if free < num_bytes:
            raise ModelNotReady(
                f"There is no room for the model {name} while others are in use. Send the request "
                "again later.",
                retry_after=10,
            )
        return leaving

    def add(self, name: str, num_bytes: int, now: float, *, is_kept: bool = False) -> None:
        """Takes a model in. One that `is_kept` never leaves."""
        self._places[name] = _Place(num_bytes, now, is_kept)

    def use(self, name: str, now: float) -> None:
        """Somebody begins to work with a model."""
        place = self._places[name]
        place.num_users += 1
        place.used_at = now

    def release(self, name: str, now: float) -> None:
        """Somebody is done with it."""
        place = self._places[name]
        place.num_users -= 1
        place.used_at = now

    def remove(self, name: str) -> None:
        """A model that nobody uses leaves."""
        assert not self.num_users(name), "A model in use must stay"
        del self._places[name]

    def idle_since(self, moment: float) -> list[str]:
        """Models that may go and that nobody has used since."""
        return [
            name for name, place in self._places.items() if place.may_go and place.used_at <= moment
        ]
