"""One recording in parts: which chunks of speech each machine recognises, and what they tell, put
together. How a part reaches a machine is `cluster.py`'s business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from simple_asr.audio.speech import Span
from simple_asr.engine.options import TranscribeOptions
from simple_asr.transcript.events import Done, Event, Progress, SegmentDone
from simple_asr.transcript.model import Processing, Segment, Transcript

# A machine that helps decodes the whole file first: for less speech than this it is not asked to.
LEAST_SECONDS = 60.0

FindChunks = Callable[[], Sequence[Span]]
"""Finds all of a recording's."""


def all_chunks(find: FindChunks) -> Sequence[Span]:
    """Those of a recording that one machine recognises by itself."""
    return find()


@dataclass(frozen=True, slots=True)
class Part:
    """What one machine recognises of a recording: the chunks it chooses, given what finds them.

    `share` is how much that is, 0 to 1, as far as it is known before.
    """

    choose: Callable[[FindChunks], Sequence[Span]] = all_chunks
    share: float = 1.0


WHOLE = Part()


@dataclass(frozen=True, slots=True)
class Division:
    """The chunks of every part, in the recording's order; the first part's teller does that one.

    `language` is that of the speech, once for all parts; None where the model knows but one.
    """

    parts: Sequence[Sequence[Span]]
    language: str | None = None


def is_divisible(options: TranscribeOptions) -> bool:
    """Whether chunks may be recognised apart, and nothing is asked that looks at all of them.

    Clips can be in any order; channels, and what may be made up, are judged as a whole.
    """
    return (
        options.chunking_strategy is not None
        and options.clip_timestamps in ((), (0.0,))
        and options.channels == "mix"
        and options.on_hallucination == "keep"
    )


def divided(chunks: Sequence[Span], num_parts: int) -> Sequence[Sequence[Span]]:
    """Chunks in up to `num_parts` stretches of about the same seconds of speech, none too short."""
    total = seconds_of(chunks)
    num_parts = min(num_parts, max(1, int(total / LEAST_SECONDS)))
    parts: list[list[Span]] = [[] for _ in range(num_parts)]
    passed = 0.0
    for chunk in chunks:
        middle = passed + (chunk.end - chunk.start) / 2
        parts[min(num_parts - 1, int(num_parts * middle / total))].append(chunk)
        passed += chunk.end - chunk.start
    # A single chunk is searched for its language otherwise (`Request._detection_audio`).
    if len(parts[0]) < 2:
        return [chunks]
    return [part for part in parts if part]


def seconds_of(chunks: Sequence[Span]) -> float:
    """Seconds of speech."""
    return sum(chunk.end - chunk.start for chunk in chunks)


class PartMerge:
    """Takes the events of each part of a recording, and tells those of the whole, as one machine
    would. Owned by the task that serves the request.
    """

    def __init__(self, division: Division, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._weights = [seconds_of(part) for part in division.parts]
        self._fractions = [0.0] * len(division.parts)
        self._waiting: list[list[Segment]] = [[] for _ in division.parts]
        self._transcripts: dict[int, Transcript] = {}
        self._told: list[Segment] = []
        # The part whose segments are told as they come.
        self._telling = 0
        self._first_ended = clock()

    def receive(self, part: int, event: Event) -> list[Event]:
        """Takes an event of a part; returns what is known of the recording now."""
        if isinstance(event, SegmentDone):
            self._waiting[part].append(event.segment)
            return list(self._due())
        if isinstance(event, Progress):
            self._fractions[part] = event.fraction
            return [replace(event, seconds_done=event.seconds_total * self._fraction())]
        self._transcripts[part] = event.transcript
        if part == 0:
            self._first_ended = self._clock()
        due: list[Event] = list(self._due())
        if len(self._transcripts) == len(self._weights):
            due.append(Done(self._transcript()))
        return due

    def _fraction(self) -> float:
        shares = zip(self._weights, self._fractions, strict=True)
        return sum(weight * done for weight, done in shares) / sum(self._weights)

    def _due(self) -> Iterator[SegmentDone]:
        """Segments whose turn has come: those of a part wait until the parts before have ended."""
        while self._telling < len(self._waiting):
            for segment in self._waiting[self._telling]:
                self._told.append(replace(segment, id=len(self._told)))
                yield SegmentDone(self._told[-1])
            self._waiting[self._telling].clear()
            if self._telling not in self._transcripts:
                return
            self._telling += 1

    def _transcript(self) -> Transcript:
        """The first part's, which knows what was asked for, with the text of all."""
        first, *others = [self._transcripts[part] for part in range(len(self._weights))]
        return replace(
            first,
            text="".join(part.text for part in (first, *others)),
            segments=tuple(self._told),
            warnings=(*first.warnings, *_other_models(first, others)),
            processing=self._processing(first.processing),
        )

    def _processing(self, first: Processing | None) -> Processing | None:
        """With the time that passed since the first part ended: time, and not work, is told."""
        if first is None:
            return None
        return replace(first, recognise=first.recognise + self._clock() - self._first_ended)


def _other_models(first: Transcript, others: Sequence[Transcript]) -> Iterator[str]:
    """What to tell where a machine serves FALLBACK_MODEL and another does not."""
    for model in dict.fromkeys(part.model for part in others if part.model != first.model):
        yield f"Parts of this recording were recognised by the model {model}, not {first.model}."
