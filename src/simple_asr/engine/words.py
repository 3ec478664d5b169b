"""Word times from cross-attention, punctuation joined to its word, and Whisper's repairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from simple_asr.engine.options import (
    APPEND_PUNCTUATIONS,
    PREPEND_PUNCTUATIONS,
    TranscribeOptions,
)
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import Aligned
from simple_asr.transcript.model import Segment, Word

ENCODER_FRAMES_PER_SECOND = 50
_SENTENCE_ENDS = ".。!！?？"
_LONGEST_MEDIAN = 0.7  # s; a longer median word says more about silence than about the speaker


@dataclass(slots=True)
class WordTiming:
    """A word in its window; `start` and `end` in seconds of the window's spectrogram."""

    word: str
    tokens: list[int]
    start: float
    end: float
    probability: float


def word_timings(
    tokenizer: Tokenizer, text_tokens: Sequence[int], aligned: Aligned, language: str
) -> list[WordTiming]:
    """When each word was said.

    Source: openai/whisper, timing.py, end of `find_alignment`.
    """
    words, word_tokens = tokenizer.split_to_word_tokens([*text_tokens, tokenizer.eot], language)
    if len(word_tokens) <= 1 or not len(aligned.token_indices):
        return []
    # Where the path enters a new token, that token begins.
    enters = np.diff(aligned.token_indices, prepend=-1).astype(bool)
    token_starts = aligned.frame_indices[enters] / ENCODER_FRAMES_PER_SECOND
    boundaries = np.cumsum([0, *(len(tokens) for tokens in word_tokens[:-1])])
    return [
        WordTiming(
            word,
            tokens,
            start=float(token_starts[first]),
            end=float(token_starts[last]),
            probability=float(np.mean(aligned.token_probabilities[first:last])),
        )
        for word, tokens, first, last in zip(
            words[:-1], word_tokens[:-1], boundaries[:-1], boundaries[1:], strict=True
        )
    ]


def add_word_times(
    segments: Sequence[Segment],
    timings: list[WordTiming],
    tokenizer: Tokenizer,
    options: TranscribeOptions,
    *,
    time_offset: float,
    speed: float,
    last_speech_end: float,
) -> list[Segment]:
    """`segments` of one window with their words, and their own times corrected by them.

    Times are seconds: `time_offset` is the window's start, `last_speech_end` where the last word
    before it ended; `speed` seconds of the recording pass in one of the spectrogram. Source:
    openai/whisper, timing.py, `add_word_timestamps`.
    """
    median, longest = _word_durations(timings)
    _shorten_at_sentence_ends(timings, longest)
    merge_punctuations(timings, options.prepend_punctuations, options.append_punctuations)
    median, longest = median * speed, longest * speed

    remaining = iter(timings)
    with_words = []
    for segment in segments:
        num_text_tokens = sum(1 for token in segment.tokens if token < tokenizer.eot)
        words = [
            Word(
                timing.word,
                round(time_offset + timing.start * speed, 2),
                round(time_offset + timing.end * speed, 2),
                timing.probability,
            )
            for timing in _take_tokens(remaining, num_text_tokens)
            if timing.word
        ]
        if words:
            if words[0].end - last_speech_end > median * 4:
                words = _shorten_after_pause(words, longest)
            corrected = _agree_on_times(segment, words, median)
            last_speech_end = corrected.end
        else:
            corrected = replace(segment, words=())
        with_words.append(corrected)
    return with_words


def _word_durations(timings: Iterable[WordTiming]) -> tuple[float, float]:
    """Median duration of a word and the longest that is believed, in seconds."""
    durations = [timing.end - timing.start for timing in timings if timing.end != timing.start]
    median = min(_LONGEST_MEDIAN, float(np.median(durations))) if durations else 0.0
    return median, median * 2


def _shorten_at_sentence_ends(timings: list[WordTiming], longest: float) -> None:
    """A pause at a sentence's end belongs to no word."""
    if not longest:
        return
    for before, timing in pairwise(timings):
        if timing.end - timing.start <= longest:
            continue
        if timing.word in _SENTENCE_ENDS:
            timing.end = timing.start + longest
        elif before.word in _SENTENCE_ENDS:
            timing.start = timing.end - longest


def merge_punctuations(timings: list[WordTiming], prepended: str, appended: str) -> None:
    """Joins punctuation to the word after or before it; what was joined is left empty.

    Source: openai/whisper, timing.py, `merge_punctuations`.
    """
    following = len(timings) - 1
    for index in range(len(timings) - 2, -1, -1):
        mark, word = timings[index], timings[following]
        if mark.word.startswith(" ") and mark.word.strip() in prepended:
            word.word = mark.word + word.word
            word.tokens = mark.tokens + word.tokens
            mark.word, mark.tokens = "", []
        else:
            following = index

    previous = 0
    for index in range(1, len(timings)):
        word, mark = timings[previous], timings[index]
        if not word.word.endswith(" ") and mark.word in appended:
            word.word += mark.word
            word.tokens = word.tokens + mark.tokens
            mark.word, mark.tokens = "", []
        else:
            previous = index


def _take_tokens(timings: Iterator[WordTiming], num_tokens: int) -> Iterator[WordTiming]:
    """The next timings that hold `num_tokens` tokens."""
    taken = 0
    while taken < num_tokens:
        timing = next(timings, None)
        if timing is None:
            return
        taken += len(timing.tokens)
        yield timing


def _shorten_after_pause(words: list[Word], longest: float) -> list[Word]:
    """The first words after a pause often swallow it."""
    first, *others = words
    second = others[0] if others else None
    is_long = first.end - first.start > longest
    is_pair_long = second is not None and second.end - first.start > longest * 2
    if not is_long and not is_pair_long:
        return words
    if second is not None and second.end - second.start > longest:
        boundary = max(second.end / 2, second.end - longest)
        first = replace(first, end=boundary)
        others[0] = replace(second, start=boundary)
    first = replace(first, start=max(0.0, first.end - longest))
    return [first, *others]


def _agree_on_times(segment: Segment, words: list[Word], median: float) -> Segment:
    """The segment takes its words' times, unless its first or last word is too long to believe."""
    first = words[0]
    if segment.start < first.end and segment.start - 0.5 > first.start:
        start = max(0.0, min(first.end - median, segment.start))
        words = [replace(first, start=start), *words[1:]]
    else:
        segment = replace(segment, start=first.start)
    last = words[-1]
    if segment.end > last.start and segment.end + 0.5 < last.end:
        end = max(last.start + median, segment.end)
        words = [*words[:-1], replace(last, end=end)]
    else:
        segment = replace(segment, end=last.end)
    return replace(segment, words=tuple(words))


# Hallucinations ----------------------------------------------------------------------------------

_PUNCTUATION = PREPEND_PUNCTUATIONS + APPEND_PUNCTUATIONS


def word_anomaly_score(word: Word) -> float:
    """How unlike speech a word is: improbable, very short, or very long.

    Source: openai/whisper, transcribe.py, `word_anomaly_score`.
    """
    duration = word.end - word.start
    score = 0.0
    if word.probability < 0.15:
        score += 1.0
    if duration < 0.133:
        score += (0.133 - duration) * 15
    if duration > 2.0:
        score += duration - 2.0
    return score


def is_segment_anomaly(segment: Segment | None) -> bool:
    """Whether a segment's first words look invented.

    Source: openai/whisper, transcribe.py, `is_segment_anomaly`.
    """
    if segment is None or not segment.words:
        return False
    words = [word for word in segment.words if word.word not in _PUNCTUATION][:8]
    score = sum(word_anomaly_score(word) for word in words)
    return score >= 3 or score + 0.01 >= len(words)


def find_hallucination(
    segments: Sequence[Segment],
    *,
    threshold: float,
    window_start: float,
    window_end: float,
    full_window_end: float,
    last_speech_end: float,
) -> int | None:
    """Index of the first segment that looks invented between silences or other inventions.

    All times are in seconds. Source: openai/whisper, transcribe.py, loop over `hal_last_end`.
    """
    for index, segment in enumerate(segments):
        if not segment.words:
            continue
        if is_segment_anomaly(segment):
            following = next((later for later in segments[index + 1 :] if later.words), None)
            next_start = following.words[0].start if following and following.words else window_end
            silence_before = (
                segment.start - last_speech_end > threshold
                or segment.start < threshold
                or segment.start - window_start < 2.0
            )
            silence_after = (
                next_start - segment.end > threshold
                or is_segment_anomaly(following)
                or full_window_end - segment.end < 2.0
            )
            if silence_before and silence_after:
                return index
        last_speech_end = segment.end
    return None


def last_word_end(segments: Sequence[Segment]) -> float | None:
    """Where the last word ends, in seconds; without words, where the last segment ends.

    Source: openai/whisper, utils.py, `get_end`.
    """
    for segment in reversed(segments):
        if segment.words:
            return segment.words[-1].end
    return segments[-1].end if segments else None
