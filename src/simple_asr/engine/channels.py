"""Puts the transcripts of a recording's channels together: their segments in the order of time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from simple_asr.engine.options import TranscribeOptions
from simple_asr.transcript.events import Done, Event, Progress, SegmentDone
from simple_asr.transcript.model import Segment, Transcript


class ChannelMerge:
    """Takes the events of one request a channel, and tells those of one recording.

    A segment is told once no other channel can have one that begins before it. Pure bookkeeping.
    """

    def __init__(self, num_channels: int, options: TranscribeOptions) -> None:
        # Clips may be in any order, and chunks are recognised side by side.
        self._is_in_order = options.clip_timestamps in ((), (0.0,)) and (
            options.chunking_strategy is None
        )
        self._waiting: list[deque[Segment]] = [deque() for _ in range(num_channels)]
        # Seconds before which no more segments of a channel begin.
        self._horizons = [0.0] * num_channels
        self._seconds_done = [0.0] * num_channels
        self._transcripts: dict[int, Transcript] = {}
        self._told: list[Segment] = []

    def receive(self, channel: int, event: Event) -> list[Event]:
        """Takes an event of a channel; returns what is known of the recording now."""
        if isinstance(event, SegmentDone):
            self._waiting[channel].append(event.segment)
            self._reach(channel, event.segment.start)
            return list(self._due())
        if isinstance(event, Progress):
            self._seconds_done[channel] = event.seconds_done
            if self._is_in_order:
                self._reach(channel, event.seconds_done)
            mean = sum(self._seconds_done) / len(self._seconds_done)
            return [*self._due(), replace(event, seconds_done=mean)]
        self._transcripts[channel] = event.transcript
        self._reach(channel, math.inf)
        due: list[Event] = list(self._due())
        if len(self._transcripts) == len(self._waiting):
            due.append(Done(self._transcript()))
        return due

    def _reach(self, channel: int, seconds: float) -> None:
        self._horizons[channel] = max(self._horizons[channel], seconds)

    def _due(self) -> Iterator[SegmentDone]:
        """Segments whose turn has come, numbered and labelled."""
        while any(self._waiting):
            channels = [index for index, waiting in enumerate(self._waiting) if waiting]
            channel = min(channels, key=lambda index: self._waiting[index][0].start)
            start = self._waiting[channel][0].start
            # Of segments that begin together the first channel's comes first, whoever was faster.
            if any(
                (horizon, index) < (start, channel)
                for index, horizon in enumerate(self._horizons)
                if not self._waiting[index]
            ):
                return
            segment = self._waiting[channel].popleft()
            self._told.append(replace(segment, id=len(self._told), channel=channel))
            yield SegmentDone(self._told[-1])

    def _transcript(self) -> Transcript:
        """Of all channels; its language is that of the channel with most to say."""
        transcripts = [self._transcripts[channel] for channel in range(len(self._waiting))]
        most = max(transcripts, key=lambda transcript: len(transcript.text))
        warnings = (warning for transcript in transcripts for warning in transcript.warnings)
        return replace(
            most,
            text="".join(segment.text for segment in self._told),
            segments=tuple(self._told),
            warnings=tuple(dict.fromkeys(warnings)),
        )
