"""When a model call counts as one that will never return."""

from __future__ import annotations

import pytest

from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.seek_loop import search_options
from simple_asr.engine.tokens import Tokenizer, build_prompt
from simple_asr.engine.watch import PATIENCE, CallWatch, work_of
from simple_asr.engine.window import Decode, DetectLanguage, Step, Window, WindowAudio


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_call_that_takes_longer_than_any_may_is_overdue(clock: Clock) -> None:
    watch = CallWatch(60, clock=clock)

    with watch.call("worker", 1):
        clock.now = 60
        in_time = watch.overdue()
        clock.now = 61
        late = watch.overdue()

    assert in_time is None
    assert late is not None
    assert "not returned for 61 s" in late
    assert "ENGINE_TIMEOUT_SECONDS" in late


def test_a_call_that_has_returned_is_not_overdue(clock: Clock) -> None:
    watch = CallWatch(60, clock=clock)

    with watch.call("worker", 1):
        clock.now = 61

    assert watch.overdue() is None


def test_no_call_is_overdue_while_others_come_and_go(clock: Clock) -> None:
    watch = CallWatch(60, clock=clock)

    with watch.call("wedged", 1):
        for _ in range(7):
            with watch.call("sound", 1):
                clock.now += 10

        assert watch.overdue() is None, "300 s are what a call of 10 s a window may take"


def test_a_machine_that_is_slow_is_given_more_time_by_what_it_took_before(clock: Clock) -> None:
    watch = CallWatch(60, window_seconds=20, clock=clock)

    with watch.call("worker", 8):
        clock.now = 20 * 8 * PATIENCE
        in_time = watch.overdue()
        clock.now += 1

        assert in_time is None
        assert watch.overdue() is not None


def test_what_was_slow_long_ago_counts_no_more(clock: Clock) -> None:
    watch = CallWatch(60, window_seconds=20, clock=clock)
    for _ in range(100):
        with watch.call("worker", 1):
            clock.now += 0.1

    with watch.call("worker", 1):
        clock.now += 61

        assert watch.overdue() is not None


def test_a_call_that_stands_still_while_its_worker_makes_others_is_not_overdue(
    clock: Clock,
) -> None:
    watch = CallWatch(60, clock=clock)

    with watch.call("worker", 1):
        with watch.paused("worker"):
            for _ in range(100):
                with watch.call("worker", 1):
                    clock.now += 1
        after_the_others = watch.overdue()
        clock.now += 61

        assert after_the_others is None
        assert watch.overdue() is not None


def test_without_a_limit_a_call_may_take_for_ever(clock: Clock) -> None:
    watch = CallWatch(0, clock=clock)

    with watch.call("worker", 1):
        clock.now = 1e9

        assert watch.overdue() is None


@pytest.mark.parametrize(
    ("options", "temperature", "work"),
    [({}, 0.0, 1), ({"beam_size": 5}, 0.0, 5), ({"best_of": 4}, 0.8, 4)],
)
def test_a_wide_search_counts_as_so_many_windows(
    tokenizer: Tokenizer, options: dict[str, int], temperature: float, work: int
) -> None:
    chosen = TranscribeOptions.model_validate(options)
    search = search_options(chosen, tokenizer, temperature=temperature)
    step = Decode(build_prompt(tokenizer, chosen, "en", previous=()), search)

    assert work_of([window(step), window(DetectLanguage())]) == work + 1


def window(step: Step) -> Window:
    return Window(None, WindowAudio(lambda: pytest.fail("nobody listens"), 3000), step)
