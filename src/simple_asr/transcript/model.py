"""A transcript and its parts. How they are written is `formats.py`'s business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its punctuation and, where the language writes one, its leading space.

    `start` and `end` are seconds from the start of the audio; `probability` is the mean of its
    tokens' probabilities, 0 to 1.
    """

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech between two timestamps, field for field as openai-whisper returns it.

    `start` and `end` are seconds; `seek` is the start of its window in hundredths of a second;
    `tokens` includes timestamp tokens; `avg_logprob`, `compression_ratio` and `no_speech_prob`
    are those of its whole window; `words` is None unless word times were asked for.
    """

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """The whole result. `duration` is the decoded audio's length in seconds.

    `language` is a code (`en`), that of the speech; `model` names what was served, which may be
    the fallback; `warnings` are sentences for the caller (damaged media, an option without effect).
    """

    text: str
    segments: tuple[Segment, ...]
    language: str
    duration: float
    model: str
    warnings: tuple[str, ...] = ()
    task: Literal["transcribe", "translate"] = "transcribe"
