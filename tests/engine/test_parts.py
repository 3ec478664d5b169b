"""A recording that several machines recognise is told as if one had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from simple_asr.audio.speech import Span
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.parts import Division, PartMerge, divided, is_divisible, seconds_of
from simple_asr.transcript.events import Done, Event, Progress, SegmentDone
from simple_asr.transcript.model import Processing, Segment, Transcript

# Eight chunks of 25 s, with pauses of 5 s between them.
CHUNKS = [Span(30.0 * number, 30.0 * number + 25.0) for number in range(8)]
HALVES = Division((CHUNKS[:4], CHUNKS[4:]), "en")


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def segment(start: float, text: str) -> Segment:
    return Segment(0, 0, start, start + 1, text, (), 0.0, -0.2, 1.0, 0.0)


def done(text: str, **more: Any) -> Done:
    return Done(Transcript(text, (), "en", 240.0, more.pop("model", "base"), **more))


def told(events: Sequence[Event]) -> list[tuple[int, str]]:
    segments = [event.segment for event in events if isinstance(event, SegmentDone)]
    return [(segment.id, segment.text) for segment in segments]


def whole(events: Sequence[Event]) -> Transcript:
    assert isinstance(events[-1], Done)
    return events[-1].transcript


# Who gets what ------------------------------------------------------------------------------------


def test_chunks_are_divided_in_their_order_into_parts_of_like_length() -> None:
    parts = divided(CHUNKS, 3)

    assert [chunk for part in parts for chunk in part] == CHUNKS
    assert [len(part) for part in parts] == [3, 2, 3]


def test_no_machine_is_asked_to_help_with_little_speech() -> None:
    assert divided(CHUNKS[:4], 8) == [CHUNKS[:4]]
    assert len(divided(CHUNKS, 8)) == 3


def test_a_recording_without_speech_stays_with_one_machine() -> None:
    assert divided([], 8) == [[]]


def test_speech_without_pauses_leaves_no_part_empty() -> None:
    long = [*CHUNKS[:2], Span(60.0, 600.0), Span(610.0, 620.0)]

    parts = divided(long, 4)

    assert [chunk for part in parts for chunk in part] == long
    assert all(parts)


def test_the_first_part_finds_the_language_as_the_whole_would() -> None:
    """Of a single chunk it is found in the recording's opening, of several in the first of them."""
    chunks = [Span(0.0, 100.0), Span(110.0, 210.0)]

    assert divided(chunks, 2) == [chunks]


@pytest.mark.parametrize(
    ("given", "may_be_divided"),
    [
        ({"chunking_strategy": "auto"}, True),
        ({"chunking_strategy": "auto", "word_timestamps": True}, True),
        ({}, False),
        ({"chunking_strategy": "auto", "channels": "split"}, False),
        ({"chunking_strategy": "auto", "on_hallucination": "flag"}, False),
        ({"chunking_strategy": "auto", "clip_timestamps": "30,40,0,9"}, False),
    ],
)
def test_what_is_judged_as_a_whole_stays_with_one_machine(
    given: dict[str, object], may_be_divided: bool
) -> None:
    assert is_divisible(TranscribeOptions.model_validate(given)) == may_be_divided


# What is told -------------------------------------------------------------------------------------


def test_segments_come_in_the_recordings_order_and_are_numbered_through() -> None:
    merge = PartMerge(HALVES)

    late = merge.receive(1, SegmentDone(segment(120.0, " three")))
    first = merge.receive(0, SegmentDone(segment(0.0, " one")))
    events = [
        *merge.receive(1, done(" three")),
        *merge.receive(0, SegmentDone(segment(30.0, " two"))),
        *merge.receive(0, done(" one two")),
    ]

    assert told(late) == []
    assert told(first) == [(0, " one")]
    assert told(events) == [(1, " two"), (2, " three")]
    assert whole(events).text == " one two three"
    assert [segment.id for segment in whole(events).segments] == [0, 1, 2]


def test_a_part_is_told_as_it_comes_once_those_before_it_have_ended() -> None:
    merge = PartMerge(HALVES)
    merge.receive(0, done(" one"))

    events = merge.receive(1, SegmentDone(segment(120.0, " two")))

    assert told(events) == [(0, " two")]


def test_progress_counts_each_part_by_its_seconds_of_speech() -> None:
    merge = PartMerge(Division((CHUNKS[:6], CHUNKS[6:])))

    [half] = merge.receive(0, Progress(120.0, 240.0, "en", "base"))
    merge.receive(0, Progress(240.0, 240.0, "en", "base"))
    [full] = merge.receive(1, Progress(240.0, 240.0, "en", "base"))

    assert half == Progress(90.0, 240.0, "en", "base")
    assert full == Progress(240.0, 240.0, "en", "base")


def test_what_was_asked_for_and_warned_of_is_told_once() -> None:
    merge = PartMerge(HALVES)
    merge.receive(1, done(" two", warnings=("Damaged.", "language is given twice.")))

    events = merge.receive(0, done(" one", warnings=("Damaged.",), language_probability=0.9))

    assert whole(events).warnings == ("Damaged.",)
    assert whole(events).language_probability == 0.9


def test_the_receipt_tells_how_long_it_took_and_not_how_much_work_it_was() -> None:
    clock = Clock()
    merge = PartMerge(HALVES, clock)
    merge.receive(0, done(" one", processing=Processing(1.0, 2.0, 30.0)))
    clock.now += 5.0

    events = merge.receive(1, done(" two", processing=Processing(1.0, 2.0, 33.0)))

    assert whole(events).processing == Processing(1.0, 2.0, 35.0)


def test_a_part_that_another_model_recognised_is_warned_of() -> None:
    merge = PartMerge(HALVES)
    merge.receive(0, done(" one", model="turbo"))

    events = merge.receive(1, done(" two", model="base"))

    assert whole(events).model == "turbo"
    assert whole(events).warnings == (
        "Parts of this recording were recognised by the model base, not turbo.",
    )


def test_seconds_of_speech_leave_pauses_out() -> None:
    assert seconds_of(CHUNKS) == 200.0
