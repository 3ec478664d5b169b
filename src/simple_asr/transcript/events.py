"""What a running transcription tells, in order: Progress and SegmentDone in turn, then one Done."""

from __future__ import annotations

from dataclasses import dataclass

from simple_asr.transcript.model import Segment, Transcript


@dataclass(frozen=True, slots=True)
class Progress:
    """`seconds_done` of `seconds_total` audio seconds are recognised.

    `language` is that of the speech, once it is known, with its probability where it was detected;
    `model` the one that recognises it.
    """

    seconds_done: float
    seconds_total: float
    language: str | None = None
    model: str = ""
    language_probability: float | None = None

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        if self.seconds_total <= 0:
            return 1.0
        return min(1.0, self.seconds_done / self.seconds_total)

    def eta_seconds(self, elapsed: float) -> float | None:
        """Seconds the rest will take if it goes on as it went in the `elapsed` seconds so far.

        None while nothing is done from which to tell.
        """
        if self.fraction == 0:
            return None
        return elapsed * (1 - self.fraction) / self.fraction


@dataclass(frozen=True, slots=True)
class SegmentDone:
    """A segment that will not change any more."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class Done:
    """The last event."""

    transcript: Transcript


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was known when work was stopped after a window: enough to go on from there."""

    segments: tuple[Segment, ...]
    progress: Progress


Event = Progress | SegmentDone | Done
