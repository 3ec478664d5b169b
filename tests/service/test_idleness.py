"""When a model is at rest."""

from __future__ import annotations

from simple_asr.service.idleness import Idleness


def test_rest_begins_once_after_so_many_seconds_without_work() -> None:
    idleness = Idleness(10, now=0)

    told = [now for now in range(30) if idleness.begins(0, 0, now)]

    assert told == [10]


def test_it_begins_again_after_each_spell_of_work() -> None:
    idleness = Idleness(10, now=0)

    told = [
        now for now in range(60) if idleness.begins(1 if 20 <= now < 30 else 0, 5 * (now > 25), now)
    ]

    assert told == [10, 39]


def test_a_call_between_two_looks_is_work_too() -> None:
    idleness = Idleness(10, now=0)

    told = [now for now in range(40) if idleness.begins(0, 1 if now >= 15 else 0, now)]

    assert told == [10, 25]
