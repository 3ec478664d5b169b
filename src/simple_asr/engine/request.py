"""Request: Whisper's seek loop over one recording, as a pure state machine.

It says which step it wants next and is told what the model answered; it knows no thread, no clock
and no model. Follows openai/whisper, transcribe.py, `transcribe()`, v20250625, with one addition:
a window may be heard faster than recorded (`speedup`) where that saves a window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from simple_asr.audio.features import FRAMES_PER_SECOND, HOP_LENGTH, N_FRAMES, LogMel
from simple_asr.engine.backends.base import ModelInfo
from simple_asr.engine.fallback import WindowResult, is_silence, needs_fallback, window_result
from simple_asr.engine.options import MAX_SAMPLE_LEN, TranscribeOptions
from simple_asr.engine.tokens import (
    LAST_TIMESTAMP,
    MAX_PROMPT_TOKENS,
    SECONDS_PER_TIMESTAMP,
    Tokenizer,
    build_prompt,
    sot_sequence,
    split_at_timestamps,
    suppressed_tokens,
)
from simple_asr.engine.window import (
    Align,
    Aligned,
    Answer,
    Decode,
    Decoded,
    Detected,
    DetectLanguage,
    SearchOptions,
    Step,
    Window,
    WindowAudio,
)
from simple_asr.engine.words import (
    WordTiming,
    add_word_times,
    find_hallucination,
    is_segment_anomaly,
    last_word_end,
    word_timings,
)
from simple_asr.transcript.events import Done, Event, Progress, SegmentDone
from simple_asr.transcript.model import Segment, Transcript

# A language this probable in the first window is not asked for again; see `_detection_audio`.
_SURE_LANGUAGE = 0.5
# Text decoded this warm is not given to the next window. Source: openai/whisper, transcribe.py.
_WARMEST_CONTEXT = 0.5


@dataclass(slots=True)
class _Span:
    """The window being worked on: `num_frames` frames of 10 ms of the recording, from `seek`."""

    seek: int
    num_frames: int
    audio: WindowAudio
    temperature_index: int = 0
    result: WindowResult | None = None
    segments: list[Segment] = field(default_factory=list)
    next_seek: int = 0
    ends_with_single_timestamp: bool = False
    is_abandoned: bool = False

    @property
    def start(self) -> float:
        """Seconds."""
        return self.seek / FRAMES_PER_SECOND

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_frames / FRAMES_PER_SECOND

    @property
    def full_end(self) -> float:
        """Where a window without end of audio or clip would end, in seconds."""
        return (self.seek + N_FRAMES * self.audio.speed) / FRAMES_PER_SECOND


class Request:
    """One recording on its way to a transcript. Its worker owns it: calls never overlap."""

    def __init__(
        self,
        options: TranscribeOptions,
        log_mel: LogMel,
        info: ModelInfo,
        tokenizer: Tokenizer,
        *,
        speedup: float = 1.0,
        warnings: Sequence[str] = (),
    ) -> None:
        """`speedup` is how much faster windows may be heard, 1 to 2."""
        self._options = options
        self._log_mel = log_mel
        self._info = info
        self._tokenizer = tokenizer
        self._fast_hop = round(HOP_LENGTH * speedup)
        self._warnings = list(warnings)

        self._language = self._given_language()
        self._clips = options.clips(log_mel.content_frames)
        self._clip_index = 0
        self._seek = self._clips[0][0]
        self._span: _Span | None = None
        self._first_audio: WindowAudio | None = None

        self._initial_prompt = self._initial_prompt_tokens()
        self._tokens = list(self._initial_prompt)
        self._prompt_reset_since = 0
        self._segments: list[Segment] = []
        self._last_speech_end = 0.0
        self._is_finished = False

    @property
    def is_finished(self) -> bool:
        return self._is_finished

    def start(self) -> tuple[list[Event], list[Window]]:
        """What is known at once, and the first steps to take."""
        if self._language is None and self._info.is_multilingual:
            return [self._progress()], [self._window(self._detection_audio(), DetectLanguage())]
        return self._go_on([self._progress()])

    def receive(self, window: Window, answer: Answer) -> tuple[list[Event], list[Window]]:
        """Takes the model's answer to `window`; returns what became known and the next steps."""
        match answer:
            case Detected():
                return self._choose_language(window, answer)
            case Decoded():
                return self._judge(answer)
            case Aligned():
                return self._time_words(window, answer)

    # The language --------------------------------------------------------------------------------

    def _given_language(self) -> str | None:
        """The language asked for, where this model can heed it."""
        if self._info.is_multilingual:
            return self._options.language
        if self._options.language not in (None, "en"):
            self._warnings.append(f"{self._info.name} is an English-only model: language is en.")
        if self._options.task == "translate":
            self._warnings.append(f"{self._info.name} is an English-only model: it transcribes.")
        return None

    def _detection_audio(self) -> WindowAudio:
        """What the language is detected from: the first 30 s, whatever the clips.

        openai-whisper follows a short recording with the spectrogram of silence here, and with
        zeros where it decodes. The first window's encoder output serves for both, and only an
        unsure answer is asked for again as openai-whisper asks it.
        """
        span = self._next_span()
        if span is not None and span.seek == 0 and span.audio.speed == 1.0:
            self._first_audio = span.audio
            return span.audio
        return self._opening()

    def _opening(self) -> WindowAudio:
        return WindowAudio(self._log_mel.opening, N_FRAMES)

    def _choose_language(
        self, window: Window, detected: Detected
    ) -> tuple[list[Event], list[Window]]:
        language = max(detected.probabilities, key=detected.probabilities.__getitem__)
        is_unsure = detected.probabilities[language] < _SURE_LANGUAGE
        is_shortcut = window.audio is self._first_audio and window.audio.num_frames < N_FRAMES
        if is_unsure and is_shortcut:
            return [], [self._window(self._opening(), DetectLanguage())]
        self._language = language
        return self._go_on([])

    # The seek loop -------------------------------------------------------------------------------

    def _go_on(self, events: list[Event]) -> tuple[list[Event], list[Window]]:
        """The next window's first step, or the end."""
        self._span = self._next_span()
        if self._span is None:
            self._is_finished = True
            return [*events, Done(self._transcript())], []
        if self._first_audio is not None and self._span.seek == 0:
            self._span.audio = self._first_audio
        self._first_audio = None
        return events, [self._decode_window(self._span)]

    def _next_span(self) -> _Span | None:
        while self._clip_index < len(self._clips):
            start, end = self._clips[self._clip_index]
            end = min(end, self._log_mel.content_frames)
            self._seek = max(self._seek, start)
            if self._seek < end:
                return self._make_span(end - self._seek)
            self._clip_index += 1
            if self._clip_index < len(self._clips):
                self._seek = self._clips[self._clip_index][0]
        return None

    def _make_span(self, num_frames_left: int, *, may_be_fast: bool = True) -> _Span:
        """The window at `seek`, faster where that saves one of the windows left in the clip."""
        seek = self._seek
        speed = self._fast_hop / HOP_LENGTH
        hop = HOP_LENGTH
        if may_be_fast and saves_a_window(num_frames_left, speed):
            hop = self._fast_hop
        num_frames = min(N_FRAMES * hop // HOP_LENGTH, num_frames_left)
        num_heard = min(N_FRAMES, num_frames * HOP_LENGTH // hop)
        audio = WindowAudio(
            lambda: self._log_mel.window(seek, num_heard, hop_length=hop),
            num_frames=num_heard,
            speed=hop / HOP_LENGTH,
        )
        return _Span(seek, num_frames, audio)

    def _judge(self, decoded: Decoded) -> tuple[list[Event], list[Window]]:
        """Keep what was written, hear it again at true speed, try it warmer, or skip silence."""
        span = self._current_span()
        temperature = self._options.temperature[span.temperature_index]
        result = window_result(self._tokenizer, decoded, temperature, self._options.length_penalty)
        if needs_fallback(result, self._options):
            if span.audio.speed != 1.0:
                return [], [self._decode_window(self._at_true_speed(span))]
            if span.temperature_index + 1 < len(self._options.temperature):
                span.temperature_index += 1
                return [], [self._decode_window(span)]
        span.result = result
        if is_silence(result, self._options):
            self._seek = span.seek + span.num_frames
            return self._go_on([self._progress()])
        return self._cut(span, result)

    def _at_true_speed(self, span: _Span) -> _Span:
        _, clip_end = self._clips[self._clip_index]
        end = min(clip_end, self._log_mel.content_frames)
        self._span = self._make_span(end - span.seek, may_be_fast=False)
        return self._span

    def _cut(self, span: _Span, result: WindowResult) -> tuple[list[Event], list[Window]]:
        """Segments at the timestamps; then, where words are wanted, the times of their words."""
        slices = split_at_timestamps(self._tokenizer, result.tokens, span.audio.duration)
        speed = span.audio.speed
        span.segments = [
            Segment(
                id=-1,
                seek=span.seek,
                start=span.start + piece.start * speed,
                end=span.start + piece.end * speed,
                text=self._tokenizer.decode([t for t in piece.tokens if t < self._tokenizer.eot]),
                tokens=piece.tokens,
                temperature=result.temperature,
                avg_logprob=result.avg_logprob,
                compression_ratio=result.compression_ratio,
                no_speech_prob=result.no_speech_prob,
                words=() if self._options.word_timestamps else None,
            )
            for piece in slices.slices
        ]
        span.ends_with_single_timestamp = slices.ends_with_single_timestamp
        span.next_seek = span.seek + (
            span.num_frames
            if slices.advance is None
            else round(slices.advance * speed * FRAMES_PER_SECOND)
        )
        if not self._options.word_timestamps:
            return self._accept(span)
        text_tokens = self._text_tokens(span)
        if not text_tokens:
            return self._accept(self._corrected_by_words(span, []))
        start_sequence = sot_sequence(self._tokenizer, self._language, self._options.task)
        return [], [self._window(span.audio, Align(start_sequence, text_tokens))]

    def _time_words(self, window: Window, aligned: Aligned) -> tuple[list[Event], list[Window]]:
        span = self._current_span()
        assert isinstance(window.step, Align), "Only an alignment is answered by Aligned"
        timings = word_timings(
            self._tokenizer, window.step.text_tokens, aligned, self._language or "en"
        )
        return self._accept(self._corrected_by_words(span, timings))

    def _corrected_by_words(self, span: _Span, timings: list[WordTiming]) -> _Span:
        """Segments with words, the next window after the last word, inventions dropped."""
        span.segments = add_word_times(
            span.segments,
            timings,
            self._tokenizer,
            self._options,
            time_offset=span.start,
            speed=span.audio.speed,
            last_speech_end=self._last_speech_end,
        )
        end = last_word_end(span.segments)
        if not span.ends_with_single_timestamp and end is not None and end > span.start:
            span.next_seek = round(end * FRAMES_PER_SECOND)
        if self._options.hallucination_silence_threshold is not None:
            self._skip_hallucinations(span, self._options.hallucination_silence_threshold)
        return span

    def _skip_hallucinations(self, span: _Span, threshold: float) -> None:
        """Drops segments that look invented and stand in silence, and moves the seek after it.

        Source: openai/whisper, transcribe.py, from "skip silence before possible hallucinations".
        """
        if not span.ends_with_single_timestamp:
            end = last_word_end(span.segments) or 0.0
            if span.start < end and span.full_end - end <= threshold:
                span.next_seek = span.seek + span.num_frames

        first = next((segment for segment in span.segments if segment.words), None)
        if first is not None and is_segment_anomaly(first):
            gap = first.start - span.start
            if gap > threshold:
                span.next_seek = span.seek + round(gap * FRAMES_PER_SECOND)
                span.is_abandoned = True
                return

        content_frames = self._log_mel.content_frames
        found = find_hallucination(
            span.segments,
            threshold=threshold,
            window_start=span.start,
            window_end=span.start + span.duration,
            full_window_end=span.full_end,
            last_speech_end=self._last_speech_end,
        )
        if found is not None:
            segment = span.segments[found]
            span.next_seek = round(max(span.start + 1, segment.start) * FRAMES_PER_SECOND)
            if content_frames / FRAMES_PER_SECOND - segment.end < threshold:
                span.next_seek = content_frames
            del span.segments[found:]

    def _accept(self, span: _Span) -> tuple[list[Event], list[Window]]:
        """The window's segments become final, and its tokens the next window's context."""
        # Whisper can be made to stand still by odd thresholds or suppressed timestamps.
        moves_on = span.next_seek > span.seek
        self._seek = span.next_seek if moves_on else span.seek + span.num_frames
        if span.is_abandoned:
            return self._go_on([self._progress()])
        if self._options.word_timestamps:
            end = last_word_end(span.segments)
            self._last_speech_end = end if end is not None else self._last_speech_end
        final = [
            _without_empty_text(replace(segment, id=number))
            for number, segment in enumerate(span.segments, start=len(self._segments))
        ]
        self._segments.extend(final)
        for segment in final:
            self._tokens.extend(segment.tokens)
        assert span.result is not None, "A window is accepted after it is judged"
        is_too_warm = span.result.temperature > _WARMEST_CONTEXT
        if is_too_warm or not self._options.condition_on_previous_text:
            self._prompt_reset_since = len(self._tokens)
        return self._go_on([*map(SegmentDone, final), self._progress()])

    # Parts ---------------------------------------------------------------------------------------

    def _current_span(self) -> _Span:
        assert self._span is not None, "The model answered a step nobody asked for"
        return self._span

    def _window(self, audio: WindowAudio, step: Step) -> Window:
        return Window(self, audio, step)

    def _decode_window(self, span: _Span) -> Window:
        prompt = build_prompt(
            self._tokenizer, self._options, self._language, self._previous_tokens()
        )
        temperature = self._options.temperature[span.temperature_index]
        search = search_options(self._options, self._tokenizer, temperature)
        return self._window(span.audio, Decode(prompt, search))

    def _initial_prompt_tokens(self) -> list[int]:
        if self._options.initial_prompt is None:
            return []
        return self._tokenizer.encode(" " + self._options.initial_prompt.strip())

    def _previous_tokens(self) -> list[int]:
        """What was said before this window, as far as the options let it know.

        Source: openai/whisper, transcribe.py, `carry_initial_prompt`; the slices are as written
        there, also where the initial prompt leaves no room.
        """
        if not self._options.carry_initial_prompt:
            return self._tokens[self._prompt_reset_since :]
        num_ignored = max(len(self._initial_prompt), self._prompt_reset_since)
        num_remaining = MAX_PROMPT_TOKENS - len(self._initial_prompt)
        return self._initial_prompt + self._tokens[num_ignored:][-num_remaining:]

    def _text_tokens(self, span: _Span) -> tuple[int, ...]:
        eot = self._tokenizer.eot
        return tuple(t for segment in span.segments for t in segment.tokens if t < eot)

    def _progress(self) -> Progress:
        total = self._log_mel.content_frames
        return Progress(min(self._seek, total) / FRAMES_PER_SECOND, total / FRAMES_PER_SECOND)

    def _transcript(self) -> Transcript:
        return Transcript(
            text=self._tokenizer.decode(self._tokens[len(self._initial_prompt) :]),
            segments=tuple(self._segments),
            language=self._language or "en",
            duration=self._log_mel.content_frames / FRAMES_PER_SECOND,
            model=self._info.name,
            warnings=tuple(self._warnings),
        )


def saves_a_window(num_frames: int, speed: float) -> bool:
    """Whether hearing `num_frames` frames (10 ms) faster takes fewer windows than at true speed."""
    return math.ceil(num_frames / (N_FRAMES * speed)) < math.ceil(num_frames / N_FRAMES)


def search_options(
    options: TranscribeOptions, tokenizer: Tokenizer, temperature: float
) -> SearchOptions:
    """How to search at one temperature: beams at 0, samples above.

    Source: openai/whisper, transcribe.py, `decode_with_fallback`: `beam_size` and `patience` count
    at temperature 0 only, `best_of` above it only.
    """
    is_sampling = temperature > 0
    beam_size = 1 if is_sampling else options.beam_size or 1
    patience = 1.0 if is_sampling else options.patience or 1.0
    limit = options.max_initial_timestamp
    return SearchOptions(
        temperature=temperature,
        beam_size=beam_size,
        patience=patience,
        num_hypotheses=(options.best_of or 1) if is_sampling else round(beam_size * patience),
        max_new_tokens=options.sample_len or MAX_SAMPLE_LEN,
        suppress_tokens=suppressed_tokens(tokenizer, options),
        suppress_blank=options.suppress_blank,
        max_initial_timestamp_index=(
            round(limit / SECONDS_PER_TIMESTAMP) if limit else LAST_TIMESTAMP
        ),
    )


def _without_empty_text(segment: Segment) -> Segment:
    """A segment that lasts no time or says nothing stays, emptied, as in openai-whisper."""
    if segment.start != segment.end and segment.text.strip():
        return segment
    words = None if segment.words is None else ()
    return replace(segment, text="", tokens=(), words=words)
