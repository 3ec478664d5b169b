"""Several channels become one transcript, in the order of time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from simple_asr.engine.channels import ChannelMerge
from simple_asr.engine.options import TranscribeOptions
from simple_asr.transcript.events import Done, Event, Progress, SegmentDone
from simple_asr.transcript.model import Segment, Transcript


def segment(start: float, text: str) -> Segment:
    return Segment(0, 0, start, start + 1, text, (), 0.0, -0.2, 1.0, 0.0)


def transcript(text: str, language: str = "en", warnings: Sequence[str] = ()) -> Transcript:
    return Transcript(text, (), language, 60.0, "base", tuple(warnings))


def told(events: Sequence[Event]) -> list[tuple[float, int | None, str]]:
    segments = [event.segment for event in events if isinstance(event, SegmentDone)]
    return [(segment.start, segment.channel, segment.text) for segment in segments]


def test_segments_come_in_the_order_of_time_with_their_channel() -> None:
    merge = ChannelMerge(2, TranscribeOptions())

    events = [
        *merge.receive(0, SegmentDone(segment(0.0, " Hello?"))),
        *merge.receive(0, SegmentDone(segment(5.0, " Fine."))),
        *merge.receive(1, SegmentDone(segment(2.0, " How are you?"))),
        *merge.receive(0, Done(transcript(" Hello? Fine."))),
        *merge.receive(1, Done(transcript(" How are you?"))),
    ]

    assert told(events) == [(0.0, 0, " Hello?"), (2.0, 1, " How are you?"), (5.0, 0, " Fine.")]
    assert isinstance(events[-1], Done)
    assert events[-1].transcript.text == " Hello? How are you? Fine."
    assert [segment.id for segment in events[-1].transcript.segments] == [0, 1, 2]


def test_a_segment_waits_for_a_channel_that_may_have_an_earlier_one() -> None:
    merge = ChannelMerge(2, TranscribeOptions())

    early = merge.receive(0, SegmentDone(segment(5.0, " Late.")))
    later = merge.receive(1, Progress(4.0, 60.0))
    latest = merge.receive(1, Progress(30.0, 60.0))

    assert told([*early, *later]) == []
    assert told(latest) == [(5.0, 0, " Late.")]


def test_of_segments_that_begin_together_the_first_channels_comes_first() -> None:
    merge = ChannelMerge(2, TranscribeOptions())

    events = [
        *merge.receive(1, SegmentDone(segment(0.0, " Second."))),
        *merge.receive(0, SegmentDone(segment(0.0, " First."))),
        *merge.receive(0, Done(transcript(" First."))),
    ]

    assert told(events) == [(0.0, 0, " First."), (0.0, 1, " Second.")]


@pytest.mark.parametrize(
    "options",
    [
        TranscribeOptions(clip_timestamps=(30, 40, 0, 9)),
        TranscribeOptions.model_validate({"chunking_strategy": "auto"}),
    ],
)
def test_progress_is_no_promise_where_the_recording_is_not_heard_in_order(
    options: TranscribeOptions,
) -> None:
    merge = ChannelMerge(2, options)
    merge.receive(0, SegmentDone(segment(5.0, " Late.")))

    assert told(merge.receive(1, Progress(30.0, 60.0))) == []
    assert told(merge.receive(1, Done(transcript("")))) == [(5.0, 0, " Late.")]


def test_progress_is_the_mean_of_the_channels() -> None:
    merge = ChannelMerge(2, TranscribeOptions())
    merge.receive(0, Progress(60.0, 60.0))

    assert merge.receive(1, Progress(30.0, 60.0)) == [Progress(45.0, 60.0)]


def test_the_language_is_that_of_the_channel_with_most_to_say() -> None:
    merge = ChannelMerge(2, TranscribeOptions())
    merge.receive(0, Done(transcript("", "cy", ["The file is damaged."])))

    (done,) = merge.receive(1, Done(transcript(" Привет!", "ru", ["The file is damaged."])))

    assert isinstance(done, Done)
    assert done.transcript.language == "ru"
    assert done.transcript.warnings == ("The file is damaged.",)
