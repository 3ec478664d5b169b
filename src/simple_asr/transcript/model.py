"""A transcript and its parts. How they are written is `formats.py`'s business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import FailFast


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
    are those of its whole window; `words` is None unless word times were asked for, and `channel`,
    counted from 0, unless channels were recognised by themselves. `hallucination` tells why the
    text may be made up (`engine/hallucination.py`, REASONS); None unless that was asked for.

    Whoever reads one back stops at the first fault: thousands take seconds and gigabytes to list.
    """

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: Annotated[tuple[int, ...], FailFast()]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: Annotated[tuple[Word, ...] | None, FailFast()] = None
    channel: int | None = None
    hallucination: Annotated[tuple[str, ...] | None, FailFast()] = None


@dataclass(frozen=True, slots=True)
class Effective:
    """What counted for a parameter. `not_applied` is why it could not act; empty where it could."""

    value: object
    not_applied: str = ""


@dataclass(frozen=True, slots=True)
class Processing:
    """Where the time went, in seconds: waiting, decoding the file, and everything else."""

    queue: float
    decode: float
    recognise: float

    @property
    def total(self) -> float:
        return self.queue + self.decode + self.recognise

    def real_time_factor(self, duration: float) -> float | None:
        """Seconds of work for each second of audio; waiting is no work."""
        return (self.decode + self.recognise) / duration if duration > 0 else None


@dataclass(frozen=True, slots=True)
class Transcript:
    """The whole result. `duration` is the decoded audio's length in seconds.

    `language` is a code (`en`), that of the speech, and `language_probability` is None where it
    was given; `model` names what was served, which may be the fallback; `warnings` are sentences
    for the caller (damaged media, an option without effect).
    `processing` and `parameters` are known where a transcriber has measured and noted them.
    """

    text: str
    segments: tuple[Segment, ...]
    language: str
    duration: float
    model: str
    warnings: tuple[str, ...] = ()
    task: Literal["transcribe", "translate"] = "transcribe"
    processing: Processing | None = None
    parameters: Mapping[str, Effective] = field(default_factory=dict)
    language_probability: float | None = None
