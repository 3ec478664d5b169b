"""Audio in work: how much is taken, and when a caller is told to come again."""

from __future__ import annotations

import pytest

from simple_asr.errors import Overloaded
from simple_asr.service.backlog import Backlog


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_audio_is_taken_up_to_the_limit_and_again_once_some_is_done(clock: Clock) -> None:
    backlog = Backlog(100, clock)

    with (
        backlog.place(60),
        backlog.place(40),
        pytest.raises(Overloaded, match="100 s of audio are being worked on"),
        backlog.place(1),
    ):
        pass
    with backlog.place(100):
        pass


def test_a_recording_that_turns_out_longer_is_not_refused_but_counts_whole(clock: Clock) -> None:
    backlog = Backlog(100, clock)

    with backlog.place(60) as place:
        place.seconds = 90
        with (
            pytest.raises(Overloaded, match="90 s of audio are being worked on"),
            backlog.place(40),
        ):
            pass
        clock.now += 9

    with backlog.place(50), backlog.place(50):
        assert backlog.seconds_to_next_end() == pytest.approx(50 * 9 / 90)


def test_one_recording_alone_is_taken_whatever_its_length(clock: Clock) -> None:
    with Backlog(100, clock).place(5000):
        pass


def test_the_wait_follows_from_the_speed_so_far(clock: Clock) -> None:
    backlog = Backlog(100, clock)
    with backlog.place(80):
        clock.now += 8  # ten times as fast as speech
    clock.now += 3600  # idle, which says nothing of speed

    with backlog.place(90), pytest.raises(Overloaded) as refusal, backlog.place(60):
        pass

    assert refusal.value.retry_after == pytest.approx(5)


def test_what_was_given_up_is_no_speed(clock: Clock) -> None:
    backlog = Backlog(100, clock)
    with pytest.raises(KeyError), backlog.place(50):
        raise KeyError

    with backlog.place(90), pytest.raises(Overloaded) as refusal, backlog.place(60):
        pass

    assert refusal.value.retry_after == 5


def test_a_place_is_free_when_a_recording_of_mean_length_is_done(clock: Clock) -> None:
    backlog = Backlog(1000, clock)
    with backlog.place(80):
        clock.now += 8

    with backlog.place(20), backlog.place(100):
        assert backlog.seconds_to_next_end() == pytest.approx(6)
