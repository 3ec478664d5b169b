"""Which segments look made up, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from simple_asr.audio.speech import Span
from simple_asr.engine.hallucination import CREDITS, HallucinationReview, voiced_share
from simple_asr.transcript.events import Done, Progress, SegmentDone
from simple_asr.transcript.model import Segment, Transcript

SPOKEN = [Span(0.0, 100.0)]


def segment(
    text: str, start: float = 0.0, end: float = 2.0, logprob: float = -0.2, no_speech: float = 0.01
) -> Segment:
    return Segment(0, 0, start, end, text, (), 0.0, logprob, 1.0, no_speech)


def reasons(spans: Sequence[Span], *segments: Segment) -> list[tuple[str, ...] | None]:
    review = HallucinationReview(spans, "flag")
    events = [event for one in segments for event in review.receive(SegmentDone(one))]
    return [event.segment.hallucination for event in events if isinstance(event, SegmentDone)]


def test_ordinary_speech_is_not_suspect() -> None:
    assert reasons(SPOKEN, segment(" Hello."), segment(" Hello."), segment(" Bye.")) == [()] * 3


def test_text_where_nobody_speaks_is_suspect() -> None:
    assert reasons([Span(10.0, 12.0)], segment(" Hello.", 0, 5), segment(" Hi.", 9.5, 12)) == [
        ("no_voice",),
        (),
    ]


def test_words_over_and_over_are_suspect() -> None:
    assert reasons(SPOKEN, segment(" and so on" * 20)) == [("repetitive",)]


def test_text_is_repetitive_by_its_letters_whatever_the_alphabet() -> None:
    menu = " Для прослушивания нажмите один, для удаления нажмите два, для выхода решетку."

    assert reasons(SPOKEN, segment(menu)) == [()]


def test_the_third_time_in_a_row_is_suspect_whatever_its_punctuation() -> None:
    said = [segment(" Thank you."), segment(" Thank you"), segment(" thank you!"), segment(" Bye.")]

    assert reasons(SPOKEN, *said) == [(), (), ("repeated",), ()]


@pytest.mark.parametrize(
    ("logprob", "no_speech", "expected"),
    [(-1.1, 0.7, ("improbable",)), (-1.1, 0.5, ()), (-0.9, 0.7, ())],
)
def test_improbable_text_is_suspect_where_the_model_hears_silence(
    logprob: float, no_speech: float, expected: tuple[str, ...]
) -> None:
    assert reasons(SPOKEN, segment(" Hm.", logprob=logprob, no_speech=no_speech)) == [expected]


@pytest.mark.parametrize("phrase", [phrases[0] for phrases in CREDITS.values()])
def test_credits_are_suspect_unless_somebody_says_them(phrase: str) -> None:
    text = f" {phrase.capitalize()}!"

    assert reasons([Span(0.0, 0.5)], segment(text)) == [("credits",)]
    assert reasons(SPOKEN, segment(text)) == [()]


def test_what_was_emptied_is_not_suspect() -> None:
    assert reasons([], segment("", 3.0, 3.0), segment("", 3.0, 5.0)) == [(), ()]


def test_dropped_segments_leave_neither_text_nor_gap_in_the_numbers() -> None:
    review = HallucinationReview([Span(0.0, 2.0), Span(8.0, 10.0)], "drop")
    segments = [segment(" One."), segment(" Made up.", 3, 7), segment(" Two.", 8, 10)]
    transcript = Transcript(" One. Made up. Two.", tuple(segments), "en", 10.0, "base")

    told = [event for one in segments for event in review.receive(SegmentDone(one))]
    (done,) = review.receive(Done(transcript))

    assert isinstance(done, Done)
    assert done.transcript.text == " One. Two."
    assert [(s.id, s.text, s.hallucination) for s in done.transcript.segments] == [
        (0, " One.", None),
        (1, " Two.", None),
    ]
    assert [SegmentDone(one) for one in done.transcript.segments] == told


def test_progress_passes() -> None:
    progress = Progress(1.0, 2.0)

    assert HallucinationReview([], "drop").receive(progress) == [progress]


def test_the_voiced_share_is_of_the_segments_own_time() -> None:
    assert voiced_share(segment(" Hi.", 1.0, 3.0), [Span(0.0, 1.5), Span(2.5, 9.0)]) == 0.5
