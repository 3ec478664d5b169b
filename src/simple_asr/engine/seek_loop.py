"""SeekLoop: Whisper's way through a recording, window by window, as a pure state machine.

It names the next step on its next window and is told what the model answered; it knows no thread,
no clock and no model. Follows openai/whisper, transcribe.py, `transcribe()`, v20250625. Two
shortcuts are added, each taken only when asked for, and taken back where a window fails Whisper's
checks: hearing faster than recorded, and an encoder context no longer than the sound needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from simple_asr.audio.features import FRAMES_PER_SECOND, HOP_LENGTH, N_FRAMES, LogMel
from simple_asr.engine.fallback import (
    WindowResult,
    best_failure,
    is_maybe_silent,
    is_silence,
    needs_fallback,
    window_result,
)
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
    Decode,
    Decoded,
    FindVoice,
    SearchOptions,
    Step,
    Voice,
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
from simple_asr.transcript.model import Segment

FindVoiceBetween = Callable[[int, int], float]
"""How sure it is that somebody speaks from one frame of 10 ms of the recording to another."""

# Of 74 windows of speech none is below 0.99, and of 19 without speech 18 are below 0.5
# (docs/decisions/0011).
_LEAST_VOICE = 0.5

# Text decoded this warm is not given to the next window. Source: openai/whisper, transcribe.py.
_WARMEST_CONTEXT = 0.5

# A reduced context is the sound, this much silence after it, rounded up so that windows of like
# length share calls. Less silence makes the decoder run on past the end (docs/benchmarks.md).
_CONTEXT_MARGIN = 500
_CONTEXT_STEP = 200


@dataclass(frozen=True, slots=True)
class Shortcuts:
    """What may be left out where it is not missed.

    `speedup` is how much faster than recorded long audio may be heard, 1 to 2;
    `reduces_context` lets short windows be encoded at their own length instead of 30 s.
    """

    speedup: float = 1.0
    reduces_context: bool = False

    @property
    def hop_length(self) -> int:
        """Samples between the frames of a window that is heard faster."""
        return round(HOP_LENGTH * self.speedup)


@dataclass(frozen=True, slots=True)
class Work:
    """A step to take on a window."""

    audio: WindowAudio
    step: Step


@dataclass(slots=True)
class _Span:
    """The window being worked on: `num_frames` frames of 10 ms of the recording, from `seek`."""

    seek: int
    num_frames: int
    audio: WindowAudio
    temperature_index: int = 0
    doubted: Decoded | None = None
    failures: list[WindowResult] = field(default_factory=list)
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


class SeekLoop:
    """Some clips of one recording on their way to segments. Its request owns it."""

    def __init__(
        self,
        options: TranscribeOptions,
        log_mel: LogMel,
        tokenizer: Tokenizer,
        *,
        initial_prompt: Sequence[int],
        clips: Sequence[tuple[int, int]],
        shortcuts: Shortcuts,
        last_speech_end: float = 0.0,
        find_voice: FindVoiceBetween | None = None,
    ) -> None:
        """`clips` are (start, end) in frames of 10 ms, at least one.

        `last_speech_end` is where the last word before them ended, in seconds. With `find_voice`
        windows without speech are skipped.
        """
        self._options = options
        self._log_mel = log_mel
        self._tokenizer = tokenizer
        self._clips = clips
        self._shortcuts = shortcuts
        self._find_voice = find_voice
        self.has_skipped_silence = False
        """Whether some window was skipped unheard."""
        self._language: str | None = None
        self._clip_index = 0
        self._span: _Span | None = None

        self._initial_prompt = list(initial_prompt)
        self._tokens = list(self._initial_prompt)
        self._prompt_reset_since = 0
        self._last_speech_end = last_speech_end
        self.seek = clips[0][0]
        """Frames up to which the recording is dealt with."""
        self.segments: list[Segment] = []
        """Final segments so far, numbered from 0."""

    @property
    def num_frames(self) -> int:
        """Frames of its clips."""
        return sum(map(self._length, self._clips))

    @property
    def num_frames_done(self) -> int:
        """Frames of its clips that are dealt with."""
        if self._clip_index >= len(self._clips):
            return self.num_frames
        done = sum(map(self._length, self._clips[: self._clip_index]))
        # Only of its own clip: clips may overlap, and come in any order.
        clip = self._clips[self._clip_index]
        return done + min(max(0, self.seek - clip[0]), self._length(clip))

    @property
    def text(self) -> str:
        """All that was said so far."""
        return self._tokenizer.decode(self._tokens[len(self._initial_prompt) :])

    def restore(self, segments: Sequence[Segment], num_frames_done: int) -> None:
        """Puts a loop that has not started where it was after so many frames of its clips.

        What is known of earlier windows is had from their segments: the prompt, where it was last
        reset (not by a warm window that left no segment), where the last word ended.
        """
        self.segments = list(segments)
        for segment in segments:
            self._tokens.extend(segment.tokens)
            self._reset_prompt_after(segment.temperature)
        end = last_word_end(self.segments)
        self._last_speech_end = end if end is not None else self._last_speech_end
        left = num_frames_done
        for index, clip in enumerate(self._clips):
            length = self._length(clip)
            self._clip_index, self.seek = index, clip[0] + min(left, length)
            if left < length:
                return
            left -= length

    def first_audio(self) -> WindowAudio | None:
        """The first window's sound, which `start` will use; None when there is nothing to hear."""
        self._span = self._span or self._next_span()
        return self._span.audio if self._span else None

    def start(self, language: str | None) -> Work | None:
        """The first step; None when there is nothing to hear. `language` None: English only."""
        self._language = language
        self._span = self._span or self._next_span()
        return self._decode(self._span) if self._span else None

    def receive(self, step: Step, answer: Decoded | Aligned | Voice) -> Work | None:
        """Takes the model's answer to `step`; the next step, or None at the end."""
        if isinstance(answer, Voice):
            return self._heed_voice(answer)
        if isinstance(answer, Decoded):
            return self._judge(answer)
        return self._time_words(step, answer)

    def _length(self, clip: tuple[int, int]) -> int:
        """Frames of a clip that the recording has."""
        start, stop = clip
        return max(0, min(stop, self._log_mel.content_frames) - start)

    def _next_span(self) -> _Span | None:
        while self._clip_index < len(self._clips):
            start, end = self._clips[self._clip_index]
            end = min(end, self._log_mel.content_frames)
            self.seek = max(self.seek, start)
            while self.seek < end:
                span = self._make_span(end - self.seek)
                if not self._is_inaudible(span):
                    return span
                self.seek += span.num_frames
                self.has_skipped_silence = True
            self._clip_index += 1
            if self._clip_index < len(self._clips):
                self.seek = self._clips[self._clip_index][0]
        return None

    def _is_inaudible(self, span: _Span) -> bool:
        """Whether the window may be skipped unheard: Whisper would make up what is in it."""
        return self._find_voice is not None and self._log_mel.is_silent(span.seek, span.num_frames)

    def _make_span(self, num_frames_left: int, *, is_exact: bool = False) -> _Span:
        """The window at `seek`, by the shortcuts that are open to it unless `is_exact`."""
        seek = self.seek
        hop = HOP_LENGTH
        speed = self._shortcuts.hop_length / HOP_LENGTH
        if not is_exact and saves_a_window(num_frames_left, speed):
            hop = self._shortcuts.hop_length
        num_frames = min(N_FRAMES * hop // HOP_LENGTH, num_frames_left)
        num_heard = min(N_FRAMES, num_frames * HOP_LENGTH // hop)
        reduces = self._shortcuts.reduces_context and not is_exact
        context = reduced_context(num_heard) if reduces else N_FRAMES
        find_voice = self._find_voice
        audio = WindowAudio(
            lambda: self._log_mel.window(seek, num_heard, context, hop_length=hop),
            num_frames=num_heard,
            context=context,
            speed=hop / HOP_LENGTH,
            find_voice=None if find_voice is None else lambda: find_voice(seek, seek + num_frames),
        )
        return _Span(seek, num_frames, audio)

    def _judge(self, decoded: Decoded) -> Work | None:
        """Keep what was written, hear it again exactly, try it warmer, or skip silence."""
        span = self._current_span()
        temperature = self._options.temperature[span.temperature_index]
        result = window_result(self._tokenizer, decoded, temperature, self._options.length_penalty)
        fails = needs_fallback(result, self._options)
        if (
            self._find_voice is not None
            and span.doubted is None
            and (fails or is_maybe_silent(result, self._options))
        ):
            span.doubted = decoded
            return Work(span.audio, FindVoice())
        if not span.audio.is_exact and (fails or self._ran_on(span, result)):
            return self._decode(self._heard_exactly(span))
        if fails:
            span.failures.append(result)
            if span.temperature_index + 1 < len(self._options.temperature):
                span.temperature_index += 1
                return self._decode(span)
            if self._options.keeps_best_failure:
                result = best_failure(span.failures, self._options)
        span.result = result
        if is_silence(result, self._options):
            self.seek = span.seek + span.num_frames
            return self._go_on()
        return self._cut(span, result)

    def _heed_voice(self, voice: Voice) -> Work | None:
        """Skips a doubtful window in which nobody speaks; judges on where somebody does."""
        span = self._current_span()
        assert span.doubted is not None, "Voice is looked for where what was written is in doubt"
        if voice.probability >= _LEAST_VOICE:
            return self._judge(span.doubted)
        self.seek = span.seek + span.num_frames
        return self._go_on()

    def _ran_on(self, span: _Span, result: WindowResult) -> bool:
        """Whether the decoder did not stop under a reduced context."""
        limit = token_limit(span.audio, self._options.sample_len)
        return span.audio.context < N_FRAMES and len(result.tokens) >= limit

    def _heard_exactly(self, span: _Span) -> _Span:
        _, clip_end = self._clips[self._clip_index]
        end = min(clip_end, self._log_mel.content_frames)
        self._span = self._make_span(end - span.seek, is_exact=True)
        return self._span

    def _cut(self, span: _Span, result: WindowResult) -> Work | None:
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
        return Work(span.audio, Align(start_sequence, text_tokens))

    def _time_words(self, step: Step, aligned: Aligned) -> Work | None:
        span = self._current_span()
        assert isinstance(step, Align), "Only an alignment is answered by Aligned"
        timings = word_timings(self._tokenizer, step.text_tokens, aligned, self._language or "en")
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

    def _accept(self, span: _Span) -> Work | None:
        """The window's segments become final, and its tokens the next window's context."""
        # Whisper can be made to stand still by odd thresholds or suppressed timestamps.
        moves_on = span.next_seek > span.seek
        self.seek = span.next_seek if moves_on else span.seek + span.num_frames
        if span.is_abandoned:
            return self._go_on()
        if self._options.word_timestamps:
            end = last_word_end(span.segments)
            self._last_speech_end = end if end is not None else self._last_speech_end
        final = [
            _without_empty_text(replace(segment, id=number))
            for number, segment in enumerate(span.segments, start=len(self.segments))
        ]
        self.segments.extend(final)
        for segment in final:
            self._tokens.extend(segment.tokens)
        assert span.result is not None, "A window is accepted after it is judged"
        self._reset_prompt_after(span.result.temperature)
        return self._go_on()

    def _reset_prompt_after(self, temperature: float) -> None:
        """The next window is not told what was said up to here, unless it may be trusted."""
        is_too_warm = temperature > _WARMEST_CONTEXT
        if is_too_warm or not self._options.condition_on_previous_text:
            self._prompt_reset_since = len(self._tokens)

    def _go_on(self) -> Work | None:
        """The next window's first step, or None at the end."""
        self._span = self._next_span()
        return self._decode(self._span) if self._span else None

    def _decode(self, span: _Span) -> Work:
        prompt = build_prompt(
            self._tokenizer, self._options, self._language, self._previous_tokens()
        )
        temperature = self._options.temperature[span.temperature_index]
        search = search_options(
            self._options,
            self._tokenizer,
            temperature,
            max_new_tokens=token_limit(span.audio, self._options.sample_len),
        )
        return Work(span.audio, Decode(prompt, search))

    def _current_span(self) -> _Span:
        assert self._span is not None, "The model answered a step nobody asked for"
        return self._span

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


def saves_a_window(num_frames: int, speed: float) -> bool:
    """Whether hearing `num_frames` frames (10 ms) faster takes fewer windows than at true speed."""
    return math.ceil(num_frames / (N_FRAMES * speed)) < math.ceil(num_frames / N_FRAMES)


def reduced_context(num_frames: int) -> int:
    """Frames to encode for `num_frames` of sound: some silence more, and no more than 30 s."""
    wanted = num_frames + _CONTEXT_MARGIN
    return min(N_FRAMES, math.ceil(wanted / _CONTEXT_STEP) * _CONTEXT_STEP)


def token_limit(audio: WindowAudio, sample_len: int | None) -> int:
    """Most tokens to write for a window: `sample_len`, and under a reduced context what speech of
    its length can need, 12 and 12 more each second. Beyond that the decoder has run on.
    """
    limit = sample_len or MAX_SAMPLE_LEN
    if audio.context == N_FRAMES:
        return limit
    seconds = (audio.context - _CONTEXT_MARGIN) / FRAMES_PER_SECOND
    return min(limit, 12 + math.ceil(12 * seconds))


def search_options(
    options: TranscribeOptions,
    tokenizer: Tokenizer,
    temperature: float,
    *,
    max_new_tokens: int = MAX_SAMPLE_LEN,
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
        max_new_tokens=max_new_tokens,
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
