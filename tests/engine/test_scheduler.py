"""Who shares the next model call."""

from __future__ import annotations

import numpy as np

from simple_asr.engine.scheduler import Scheduler
from simple_asr.engine.window import (
    Align,
    DetectLanguage,
    Priority,
    Rank,
    Step,
    Window,
    WindowAudio,
)

ALIGN = Align((50258,), (400,))


def window(
    owner: str,
    step: Step | None = None,
    priority: Priority = Priority.INTERACTIVE,
    *,
    is_opening: bool = False,
) -> Window:
    audio = WindowAudio(lambda: np.zeros((80, 3000), np.float32), 3000)
    return Window(owner, audio, step or DetectLanguage(), priority, is_opening)


def owners(batch: list[Window]) -> list[object]:
    return [window.owner for window in batch]


def test_windows_of_different_requests_share_a_call() -> None:
    scheduler = Scheduler(max_batch_size=8)
    for owner in "abc":
        scheduler.add(window(owner))

    assert owners(scheduler.next_batch()) == ["a", "b", "c"]
    assert scheduler.next_batch() == []


def test_a_batch_has_one_key_and_the_one_who_waited_longest_chooses_it() -> None:
    scheduler = Scheduler(max_batch_size=8)
    scheduler.add(window("a"))
    scheduler.add(window("b", ALIGN))
    scheduler.add(window("c"))

    assert owners(scheduler.next_batch()) == ["a", "c"]
    assert owners(scheduler.next_batch()) == ["b"]


def test_a_batch_is_no_larger_than_allowed() -> None:
    scheduler = Scheduler(max_batch_size=2)
    for owner in "abc":
        scheduler.add(window(owner))

    assert owners(scheduler.next_batch()) == ["a", "b"]
    assert owners(scheduler.next_batch()) == ["c"]


def test_a_request_with_many_windows_takes_one_a_turn() -> None:
    scheduler = Scheduler(max_batch_size=2)
    for _ in range(10):
        scheduler.add(window("long"))
    scheduler.add(window("short"))

    assert owners(scheduler.next_batch()) == ["long", "short"]


def test_alone_a_request_fills_the_batch() -> None:
    scheduler = Scheduler(max_batch_size=3)
    for _ in range(4):
        scheduler.add(window("long"))

    assert owners(scheduler.next_batch()) == ["long"] * 3
    assert owners(scheduler.next_batch()) == ["long"]


def test_whoever_had_a_turn_goes_to_the_end_of_the_line() -> None:
    scheduler = Scheduler(max_batch_size=1)
    for owner in ("a", "a", "b"):
        scheduler.add(window(owner))

    turns = [owners(scheduler.next_batch())[0] for _ in range(3)]

    assert turns == ["a", "b", "a"]


def test_a_removed_request_is_forgotten() -> None:
    scheduler = Scheduler(max_batch_size=8)
    scheduler.add(window("a"))
    scheduler.add(window("b"))

    scheduler.remove("a")

    assert owners(scheduler.next_batch()) == ["b"]


def test_beside_others_only_encoded_windows_fill_the_room_that_is_left() -> None:
    scheduler = Scheduler(max_batch_size=4)
    heard, unheard = window("long"), window("long")
    for waiting in (window("long"), heard, unheard, window("short"), window("other", ALIGN)):
        scheduler.add(waiting)
    heard.audio.encoded = "encoder output"

    batch = scheduler.next_batch()

    assert owners(batch) == ["long", "short", "long"]
    assert batch[2] is heard


def test_windows_put_back_come_before_the_others_of_their_request() -> None:
    scheduler = Scheduler(max_batch_size=3)
    windows = [window("long") for _ in range(4)]
    for waiting in windows:
        scheduler.add(waiting)
    batch = scheduler.next_batch()
    scheduler.add(window("short"))

    scheduler.put_back(batch[1:])

    assert owners(scheduler.next_batch()) == ["long", "short"]
    assert scheduler.next_batch() == windows[2:]


def test_those_who_wait_go_before_the_background_whoever_came_first() -> None:
    scheduler = Scheduler(max_batch_size=8)
    scheduler.add(window("job", priority=Priority.BACKGROUND))
    scheduler.add(window("caller", ALIGN))
    scheduler.add(window("speaker", priority=Priority.LIVE))

    assert owners(scheduler.next_batch()) == ["speaker"]
    assert owners(scheduler.next_batch()) == ["caller"]
    assert owners(scheduler.next_batch()) == ["job"]


def test_only_windows_of_one_rank_share_a_call() -> None:
    scheduler = Scheduler(max_batch_size=8)
    for job in ("one", "another"):
        scheduler.add(window(job, priority=Priority.BACKGROUND))
    for meeting in ("long", "longer"):
        scheduler.add(window(meeting))
    for note in ("short", "shorter"):
        scheduler.add(window(note, is_opening=True))
    scheduler.add(window("speaker", priority=Priority.LIVE))

    assert owners(scheduler.next_batch()) == ["speaker"]
    assert owners(scheduler.next_batch()) == ["long", "longer"]
    assert owners(scheduler.next_batch()) == ["short", "shorter"]
    assert owners(scheduler.next_batch()) == ["one", "another"]


def test_between_the_tokens_of_a_call_those_of_an_earlier_rank_are_served() -> None:
    scheduler = Scheduler(max_batch_size=8)
    scheduler.add(window("job", priority=Priority.BACKGROUND))
    scheduler.add(window("long"))
    for note in ("short", "shorter", "shortest"):
        scheduler.add(window(note, is_opening=True))

    assert scheduler.batch_before(Rank.OPENING, 2) == []
    assert owners(scheduler.batch_before(Rank.LATER, 2)) == ["short", "shorter"]
    assert owners(scheduler.batch_before(Rank.BACKGROUND, 2)) == ["shortest"]
    assert owners(scheduler.batch_before(Rank.BACKGROUND, 2)) == ["long"]
    assert scheduler.batch_before(Rank.BACKGROUND, 2) == []
    assert owners(scheduler.next_batch()) == ["job"]


def test_where_one_more_costs_nothing_ranks_share_a_call_and_the_first_have_the_first_places() -> (
    None
):
    scheduler = Scheduler(max_batch_size=3, mixes_ranks=True)
    scheduler.add(window("long"))
    scheduler.add(window("job", priority=Priority.BACKGROUND))
    for note in ("short", "shorter"):
        scheduler.add(window(note, is_opening=True))

    assert owners(scheduler.next_batch()) == ["long", "short", "shorter"]
    assert owners(scheduler.next_batch()) == ["job"]


def test_calls_between_two_tokens_count_when_the_background_has_to_go_on() -> None:
    scheduler = Scheduler(max_batch_size=2)
    scheduler.add(window("job", priority=Priority.BACKGROUND))
    for note in range(9):
        scheduler.add(window(f"note {note}", is_opening=True))

    for _ in range(8):
        scheduler.batch_before(Rank.LATER, 1)

    assert owners(scheduler.next_batch()) == ["job"]


def test_a_caller_who_is_alone_but_for_the_background_fills_the_batch() -> None:
    scheduler = Scheduler(max_batch_size=3)
    scheduler.add(window("job", priority=Priority.BACKGROUND))
    for _ in range(3):
        scheduler.add(window("caller"))

    assert owners(scheduler.next_batch()) == ["caller"] * 3


def test_the_background_goes_on_under_any_load() -> None:
    scheduler = Scheduler(max_batch_size=1)
    scheduler.add(window("job", priority=Priority.BACKGROUND))

    served: list[object] = []
    for number in range(20):
        scheduler.add(window(f"caller {number}"))
        served += owners(scheduler.next_batch())

    assert "job" in served
    assert served.index("job") >= 8


def test_an_encoded_window_goes_before_the_others_of_its_request() -> None:
    scheduler = Scheduler(max_batch_size=1)
    heard = window("chunks", ALIGN)
    heard.audio.encoded = "encoder output"
    scheduler.add(window("chunks"))
    scheduler.add(heard)

    assert scheduler.next_batch() == [heard]
