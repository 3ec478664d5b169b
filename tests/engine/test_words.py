"""Word times, punctuation, and Whisper's repairs."""

from __future__ import annotations

import numpy as np
import pytest

from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import Aligned
from simple_asr.engine.words import (
    WordTiming,
    add_word_times,
    find_hallucination,
    is_segment_anomaly,
    last_word_end,
    merge_punctuations,
    word_anomaly_score,
    word_timings,
)
from simple_asr.transcript.model import Segment, Word


def segment(start: float, end: float, *words: Word, tokens: tuple[int, ...] = ()) -> Segment:
    return Segment(0, 0, start, end, "text", tokens, 0.0, -0.1, 1.0, 0.1, words)


def timing(word: str, start: float, end: float) -> WordTiming:
    return WordTiming(word, [len(word)], start, end, 0.9)


def test_a_word_lasts_from_its_first_token_to_the_next_words(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(" Hello, world")
    # Token 0 spans encoder frames 0-4, token 1 frames 5-9, token 2 frames 10-19, then the end.
    path = [0] * 5 + [1] * 5 + [2] * 10 + [3] * 2
    aligned = Aligned(np.array(path), np.arange(len(path)), np.array([0.9, 0.5, 0.7]))

    timings = word_timings(tokenizer, tokens, aligned, "en")

    assert [(t.word, t.start, t.end) for t in timings] == [
        (" Hello", 0.0, 0.1),
        (",", 0.1, 0.2),
        (" world", 0.2, 0.4),
    ]
    assert [t.probability for t in timings] == pytest.approx([0.9, 0.5, 0.7])


def test_punctuation_joins_the_word_it_belongs_to() -> None:
    timings = [timing(word, 0, 1) for word in [" He", " said", " “", "yes", "”", "."]]

    merge_punctuations(timings, prepended="“", appended="”.")

    assert [t.word for t in timings if t.word] == [" He", " said", " “yes”."]


def test_punctuation_not_listed_stays_a_word_of_its_own() -> None:
    timings = [timing(word, 0, 1) for word in [" He", "."]]

    merge_punctuations(timings, prepended="", appended=",")

    assert [t.word for t in timings] == [" He", "."]


def test_segments_take_the_times_of_their_words(tokenizer: Tokenizer) -> None:
    tokens = tuple(tokenizer.encode(" Hello world"))
    timings = [timing(" Hello", 0.3, 0.8), timing(" world", 0.8, 1.2)]

    (timed,) = add_word_times(
        [segment(10.0, 12.0, tokens=tokens)],
        timings,
        tokenizer,
        TranscribeOptions(word_timestamps=True),
        time_offset=10.0,
        speed=1.0,
        last_speech_end=10.0,
    )

    assert (timed.start, timed.end) == (10.3, 11.2)
    assert timed.words == (Word(" Hello", 10.3, 10.8, 0.9), Word(" world", 10.8, 11.2, 0.9))


def test_times_heard_faster_are_mapped_back(tokenizer: Tokenizer) -> None:
    tokens = tuple(tokenizer.encode(" Hello world"))
    timings = [timing(" Hello", 0.0, 0.4), timing(" world", 0.4, 0.8)]

    (timed,) = add_word_times(
        [segment(0.0, 1.0, tokens=tokens)],
        timings,
        tokenizer,
        TranscribeOptions(word_timestamps=True),
        time_offset=0.0,
        speed=1.25,
        last_speech_end=0.0,
    )

    assert timed.words == (Word(" Hello", 0.0, 0.5, 0.9), Word(" world", 0.5, 1.0, 0.9))


def test_a_first_word_that_swallowed_a_pause_is_shortened(tokenizer: Tokenizer) -> None:
    tokens = tuple(tokenizer.encode(" Hello big world"))
    timings = [timing(" Hello", 0.0, 5.0), timing(" big", 5.0, 5.4), timing(" world", 5.4, 5.8)]

    (timed,) = add_word_times(
        [segment(0.0, 6.0, tokens=tokens)],
        timings,
        tokenizer,
        TranscribeOptions(word_timestamps=True),
        time_offset=0.0,
        speed=1.0,
        last_speech_end=0.0,
    )

    assert timed.words is not None
    # The median word lasts 0.4 s; twice that is believed.
    assert timed.words[0].start == pytest.approx(4.2)
    assert timed.start == pytest.approx(4.2)


@pytest.mark.parametrize(
    ("word", "score"),
    [
        (Word(" a", 0.0, 0.3, 0.9), 0.0),
        (Word(" a", 0.0, 0.3, 0.1), 1.0),
        (Word(" a", 0.0, 0.033, 0.9), 1.5),
        (Word(" a", 0.0, 3.0, 0.9), 1.0),
    ],
)
def test_odd_words_score(word: Word, score: float) -> None:
    assert word_anomaly_score(word) == pytest.approx(score)


def test_a_segment_of_improbable_words_looks_invented() -> None:
    odd = [Word(" uh", 0.0, 0.3, 0.05)] * 3
    sound = [Word(" uh", 0.0, 0.3, 0.95)] * 3

    assert is_segment_anomaly(segment(0, 1, *odd))
    assert not is_segment_anomaly(segment(0, 1, *sound))
    assert not is_segment_anomaly(segment(0, 1))


def test_an_invention_between_silences_is_found() -> None:
    spoken = segment(0.0, 5.0, *[Word(" hello", 4.5, 5.0, 0.9)] * 3)
    invented = segment(20.0, 20.3, Word(" Thanks", 20.0, 20.05, 0.01))

    found = find_hallucination(
        [spoken, invented],
        threshold=2.0,
        window_start=0.0,
        window_end=30.0,
        full_window_end=30.0,
        last_speech_end=0.0,
    )

    assert found == 1


def test_odd_words_amid_speech_are_kept() -> None:
    before = segment(4.0, 9.0, *[Word(" hello", 4.0, 4.5, 0.9)] * 3)
    odd = segment(9.1, 9.3, Word(" uh", 9.1, 9.15, 0.01))
    after = segment(9.4, 15.0, *[Word(" there", 9.4, 9.9, 0.9)] * 3)

    found = find_hallucination(
        [before, odd, after],
        threshold=2.0,
        window_start=0.0,
        window_end=30.0,
        full_window_end=30.0,
        last_speech_end=3.9,
    )

    assert found is None


def test_the_end_of_speech_is_the_last_words() -> None:
    spoken = segment(0.0, 5.0, Word(" hi", 0.0, 4.5, 0.9))

    assert last_word_end([spoken, segment(6.0, 7.0)]) == 4.5
    assert last_word_end([segment(6.0, 7.0)]) == 7.0
    assert last_word_end([]) is None
