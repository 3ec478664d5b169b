"""Where a request's time goes, by a clock that tests turn on."""

from __future__ import annotations

import pytest

from simple_asr.service.stopwatch import Stopwatch
from simple_asr.transcript.model import Processing


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_waiting_for_a_decoder_and_for_the_model_is_the_queue_and_the_rest_is_work() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    clock.now += 1  # all decoders are busy
    with stopwatch.decoding():
        clock.now += 10
    clock.now += 100  # the spectrogram is prepared
    stopwatch.submitted()
    clock.now += 1000  # others have their turn
    stopwatch.heard()
    clock.now += 10_000

    assert stopwatch.processing() == Processing(queue=1001, decode=10, recognise=10_100)


def test_only_the_first_window_ends_the_waiting() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    stopwatch.submitted()
    clock.now += 1
    stopwatch.heard()
    clock.now += 10
    stopwatch.heard()

    assert stopwatch.processing() == Processing(queue=1, decode=0, recognise=10)


def test_what_the_model_never_hears_has_not_waited_for_it() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    stopwatch.submitted()
    clock.now += 1

    assert stopwatch.processing() == Processing(queue=0, decode=0, recognise=1)


def test_decoding_that_fails_has_taken_its_time_too() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)

    def decode() -> None:
        with stopwatch.decoding():
            clock.now += 2
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        decode()

    assert stopwatch.processing() == Processing(queue=0, decode=2, recognise=0)
