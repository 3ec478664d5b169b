"""Which words share a cue and a line, and when it is shown."""

from __future__ import annotations

import pytest

from simple_asr.transcript.cues import Cue, CueOptions, cues
from simple_asr.transcript.model import Segment, Transcript, Word


def spoken(text: str, start: float = 0.0) -> tuple[Word, ...]:
    """Words of half a second each, one after the other."""
    return tuple(
        Word(f" {word}", start + index / 2, start + (index + 1) / 2, 0.9)
        for index, word in enumerate(text.split())
    )


def segment(start: float, end: float, text: str, words: tuple[Word, ...] | None = None) -> Segment:
    return Segment(0, 0, start, end, text, (), 0.0, -0.2, 1.0, 0.1, words)


def transcript(*segments: Segment) -> Transcript:
    return Transcript("", segments, "en", duration=10.0, model="base")


def by_words(*texts: str) -> Transcript:
    """A segment for each text, each beginning five seconds after the one before."""
    return transcript(
        *(
            segment(5.0 * index, 5.0 * index + 4, text, spoken(text, 5.0 * index))
            for index, text in enumerate(texts)
        )
    )


def texts(found: list[Cue]) -> list[str]:
    return [cue.text for cue in found]


def times(found: list[Cue]) -> list[tuple[float, float]]:
    return [(cue.start, cue.end) for cue in found]


def test_without_word_times_a_cue_is_a_segment() -> None:
    found = cues(transcript(segment(0, 2, " One."), segment(2, 5, " Two.")), CueOptions())

    assert found == [Cue(0, 2, "One."), Cue(2, 5, "Two.")]


def test_a_segment_without_text_has_no_cue() -> None:
    found = cues(transcript(segment(0, 2, " \n "), segment(2, 5, " Two.")), CueOptions())

    assert texts(found) == ["Two."]


def test_with_word_times_a_cue_lasts_as_long_as_its_words() -> None:
    found = cues(transcript(segment(0, 9, " One two.", spoken("One two.", 3.0))), CueOptions())

    assert times(found) == [(3.0, 4.0)]


def test_a_line_is_as_wide_as_allowed_and_no_wider() -> None:
    found = cues(by_words("a brown fox jumps"), CueOptions(max_line_width=7))

    assert texts(found) == ["a brown\nfox\njumps"]


def test_a_word_wider_than_a_line_has_one_of_its_own() -> None:
    found = cues(by_words("a internationalisation b"), CueOptions(max_line_width=7))

    assert texts(found) == ["a\ninternationalisation\nb"]


def test_full_lines_begin_a_new_cue_and_take_in_the_next_segment() -> None:
    options = CueOptions(max_line_width=8, max_line_count=2)

    found = cues(by_words("one two three four five", "six"), options)

    assert texts(found) == ["one two\nthree", "four\nfive six"]


def test_after_a_long_pause_a_cue_does_not_go_on() -> None:
    options = CueOptions(max_line_width=100, max_line_count=2)
    with_pause = transcript(
        segment(0, 1, "", spoken("one")), segment(3.1, 5, "", spoken("two", 3.1))
    )
    without = transcript(segment(0, 1, "", spoken("one")), segment(3, 5, "", spoken("two", 3.0)))

    assert texts(cues(with_pause, options)) == ["one", "two"]
    assert texts(cues(without, options)) == ["one two"]


def test_so_many_words_are_in_a_cue_and_never_of_two_segments() -> None:
    found = cues(by_words("one two three", "four five"), CueOptions(max_words_per_line=2))

    assert texts(found) == ["one two", "three", "four five"]


def test_highlighting_shows_a_cue_for_each_word_and_for_the_pause_before_it() -> None:
    words = (Word(" one", 0.0, 0.5, 0.9), Word(" two", 0.8, 1.0, 0.9))

    found = cues(transcript(segment(0, 1, "", words)), CueOptions(highlight_words=True))

    assert times(found) == [(0.0, 0.5), (0.5, 0.8), (0.8, 1.0)]
    assert [marked(cue) for cue in found] == ["one", None, "two"]
    assert texts(found) == ["one two"] * 3


def marked(cue: Cue) -> str | None:
    word = cue.highlighted
    return None if word is None else cue.text[word.begin : word.stop]


def test_the_highlighted_word_is_found_on_any_line() -> None:
    options = CueOptions(max_line_width=3, highlight_words=True)

    found = cues(by_words("one two six"), options)

    assert [marked(cue) for cue in found] == ["one", "two", "six"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("He left. She stayed.", ["He left.", "She stayed."]),
        ("Really?! Yes.", ["Really?!", "Yes."]),
        ("“Stop.” He stopped.", ["“Stop.”", "He stopped."]),
        ("By J. Smith. Read it.", ["By J. Smith.", "Read it."]),
        ("At 5 p.m. we left.", ["At 5 p.m. we left."]),
        ("走吧。 好。", ["走吧。", "好。"]),
    ],
)
def test_a_sentence_begins_a_new_cue(text: str, sentences: list[str]) -> None:
    found = cues(by_words(text), CueOptions(split_at_sentences=True))

    assert texts(found) == sentences


def test_a_sentence_begins_a_new_cue_where_lines_are_filled_too() -> None:
    options = CueOptions(split_at_sentences=True, max_line_width=20, max_line_count=2)

    found = cues(by_words("He left. She stayed"), options)

    assert texts(found) == ["He left.", "She stayed"]


def test_a_cue_ends_sooner_where_the_next_one_follows_too_soon() -> None:
    found = cues(
        transcript(segment(0, 2, "One."), segment(2, 4, "Two."), segment(5, 6, "Three.")),
        CueOptions(min_cue_gap=0.5),
    )

    assert times(found) == [(0, 1.5), (2, 4), (5, 6)]


def test_a_short_cue_keeps_half_its_time() -> None:
    found = cues(
        transcript(segment(0, 0.4, "One."), segment(0.4, 4, "Two.")), CueOptions(min_cue_gap=0.5)
    )

    assert times(found) == [(0, 0.2), (0.4, 4)]


def test_a_highlighted_word_ends_with_its_shortened_cue() -> None:
    options = CueOptions(max_words_per_line=2, min_cue_gap=0.1, highlight_words=True)

    found = cues(by_words("one two three four"), options)

    assert times(found) == [(0, 0.5), (0.5, 0.9), (1, 1.5), (1.5, 2)]


def test_a_word_of_nothing_but_blanks_leaves_no_empty_line() -> None:
    words = (Word(" one", 0, 1, 0.9), Word(" \n\n", 1, 2, 0.9), Word("\ttwo", 2, 3, 0.9))

    found = cues(transcript(segment(0, 3, "", words)), CueOptions(max_line_width=3))

    assert texts(found) == ["one\ntwo"]
