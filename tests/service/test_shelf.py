"""Which models stay in memory, and which make room."""

from __future__ import annotations

import pytest

from simple_asr.errors import InvalidParameter, ModelNotReady
from simple_asr.service.shelf import Shelf


@pytest.fixture
def shelf() -> Shelf:
    """Room for 100 bytes, 40 of them taken by a model that is kept."""
    shelf = Shelf(100)
    shelf.add("default", 40, now=0, is_kept=True)
    return shelf


def test_what_fits_drives_nobody_out(shelf: Shelf) -> None:
    shelf.add("tiny", 30, now=1)

    assert shelf.make_room("base", 30) == []


def test_the_least_recently_used_leaves_first(shelf: Shelf) -> None:
    shelf.add("tiny", 30, now=1)
    shelf.add("base", 30, now=2)
    shelf.use("tiny", now=3)
    shelf.release("tiny", now=4)

    assert shelf.make_room("small", 30) == ["base"]


def test_as_many_leave_as_must(shelf: Shelf) -> None:
    shelf.add("tiny", 30, now=1)
    shelf.add("base", 30, now=2)

    assert shelf.make_room("small", 60) == ["tiny", "base"]


def test_what_is_in_use_stays_and_another_leaves(shelf: Shelf) -> None:
    shelf.add("tiny", 30, now=1)
    shelf.use("tiny", now=1)
    shelf.add("base", 30, now=2)

    assert shelf.make_room("small", 30) == ["base"]


def test_while_all_are_in_use_who_comes_is_told_to_wait(shelf: Shelf) -> None:
    shelf.add("tiny", 30, now=1)
    shelf.add("base", 30, now=2)
    shelf.use("tiny", now=3)

    with pytest.raises(ModelNotReady) as refusal:
        shelf.make_room("medium", 60)

    assert refusal.value.retry_after


def test_what_can_never_fit_is_refused_with_the_limit(shelf: Shelf) -> None:
    with pytest.raises(InvalidParameter, match="MODEL_MEMORY_BYTES") as refusal:
        shelf.make_room("large", 61)

    assert refusal.value.field == "model"


def test_idle_is_who_has_no_user_and_had_none_for_long(shelf: Shelf) -> None:
    shelf.add("tiny", 20, now=1)
    shelf.add("base", 20, now=5)
    shelf.add("small", 20, now=1)
    shelf.use("small", now=1)

    assert shelf.idle_since(4) == ["tiny"]


def test_use_ends_with_the_last_user(shelf: Shelf) -> None:
    shelf.add("tiny", 20, now=1)
    shelf.use("tiny", now=2)
    shelf.use("tiny", now=3)

    shelf.release("tiny", now=4)
    assert shelf.num_users("tiny") == 1
    assert shelf.idle_since(10) == []

    shelf.release("tiny", now=5)
    assert shelf.idle_since(10) == ["tiny"]
