"""Request: one recording on its way to a transcript, as a pure state machine.

It finds the language, runs one seek loop over the recording, or one for each chunk of speech side
by side, and tells what becomes final in the order of the recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from simple_asr.audio.features import FRAMES_PER_SECOND, N_FRAMES, LogMel
from simple_asr.audio.speech import Span
from simple_asr.engine.backends.base import ModelInfo
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.seek_loop import FindVoiceBetween, SeekLoop, Shortcuts, Work
from simple_asr.engine.tokens import (
    MAX_PROMPT_TOKENS,
    Tokenizer,
    check_prefix,
    initial_prompt_tokens,
)
from simple_asr.engine.window import (
    Answer,
    Decode,
    Detected,
    DetectLanguage,
    Priority,
    Step,
    Window,
    WindowAudio,
)
from simple_asr.errors import InvalidParameter
from simple_asr.transcript.events import Checkpoint, Done, Event, Progress, SegmentDone
from simple_asr.transcript.model import Segment, Transcript

# A language this probable in the first window is not asked for again; see `_detection_audio`.
_SURE_LANGUAGE = 0.5

# How often clips may ask for the same audio, all in all.
MAX_REPETITIONS = 4

NO_SHORTCUTS = Shortcuts()

Outcome = Literal["accepted", "retried", "silent"]
"""What became of a window: its text was kept, it was decoded anew, or there is nothing in it."""


class Request:
    """Its worker owns it: calls never overlap."""

    def __init__(
        self,
        options: TranscribeOptions,
        log_mel: LogMel,
        info: ModelInfo,
        tokenizer: Tokenizer,
        *,
        shortcuts: Shortcuts = NO_SHORTCUTS,
        chunks: Sequence[Span] | None = None,
        find_voice: FindVoiceBetween | None = None,
        warnings: Sequence[str] = (),
        checkpoint: Checkpoint | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> None:
        """With `chunks` of speech each is recognised by itself, and nothing between them.

        With `find_voice`, windows in which nobody speaks are left out (docs/decisions/0011).
        The work goes on from a `checkpoint` of this model, unless there are chunks.

        Raises InvalidParameter for a prefix that leaves the model no room.
        """
        check_prefix(tokenizer, options)
        self._options = options
        self._log_mel = log_mel
        self._info = info
        self._tokenizer = tokenizer
        self._warnings = list(warnings)
        self._priority = priority
        self._language = self._given_language()
        self._language_probability: float | None = None

        clips = options.clips(log_mel.content_frames)
        _refuse_repeated_clips(clips, log_mel.content_frames)

        def make_loop(clips: Sequence[tuple[int, int]], last_speech_end: float = 0.0) -> SeekLoop:
            return SeekLoop(
                options,
                log_mel,
                tokenizer,
                initial_prompt=prompt,
                clips=clips,
                shortcuts=shortcuts,
                last_speech_end=last_speech_end,
                find_voice=find_voice,
            )

        prompt = initial_prompt_tokens(tokenizer, options)
        if len(prompt) > MAX_PROMPT_TOKENS:
            self._warnings.append(
                f"initial_prompt, with keywords, is {len(prompt)} tokens long; the model is given "
                f"the last {MAX_PROMPT_TOKENS} of it and of what was said since. Shorten it."
            )
        if chunks is None:
            self._loops = [make_loop(clips)]
        else:
            self._loops = [
                make_loop([clip], last_speech_end=clip[0] / FRAMES_PER_SECOND)
                for clip in _spoken(clips, chunks)
            ]
        self._loop_of: dict[Window, SeekLoop] = {}
        self._ended: set[SeekLoop] = set()
        # The first loop not told to its end, and how many of its segments are told.
        self._telling = 0
        self._num_told = 0
        self._segments: list[Segment] = []
        self.last_outcome: Outcome | None = None
        if checkpoint is not None and chunks is None and checkpoint.progress.model == info.name:
            self._go_on_from(checkpoint)

    @property
    def is_finished(self) -> bool:
        return self._telling == len(self._loops)

    def start(self) -> tuple[list[Event], list[Window]]:
        """What is known at once, and the first steps to take."""
        if self._language is None and self._info.is_multilingual and self._is_anything_heard():
            return [], [self._window(self._detection_audio(), DetectLanguage(), is_opening=True)]
        return self._start_loops()

    def receive(self, window: Window, answer: Answer) -> tuple[list[Event], list[Window]]:
        """Takes the model's answer to `window`; returns what became known and the next steps.

        Then `last_outcome` says what became of the window; None where that is not decided yet.
        """
        self.last_outcome = None
        if isinstance(answer, Detected):
            return self._choose_language(window, answer)
        loop = self._loop_of.pop(window)
        seek_before, num_segments_before = loop.seek, len(loop.segments)
        windows = self._windows(loop, loop.receive(window.step, answer))
        moved_on = (loop.seek, len(loop.segments)) != (seek_before, num_segments_before)
        if moved_on:
            has_more = len(loop.segments) > num_segments_before
            self.last_outcome = "accepted" if has_more else "silent"
        elif any(isinstance(following.step, Decode) for following in windows):
            self.last_outcome = "retried"
        return self._news() if moved_on or not windows else [], windows

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        [loop] = self._loops
        loop.restore(checkpoint.segments, round(checkpoint.progress.fraction * loop.num_frames))
        self._segments = list(checkpoint.segments)
        self._num_told = len(self._segments)
        if self._info.is_multilingual:
            self._language = self._language or checkpoint.progress.language
            self._language_probability = checkpoint.progress.language_probability

    # The language --------------------------------------------------------------------------------

    def _given_language(self) -> str | None:
        """The language asked for, where this model can heed it."""
        language = self._options.language
        if self._info.is_multilingual:
            if language is not None and self._tokenizer.language_token(language) is None:
                raise InvalidParameter(
                    f"The model {self._info.name} does not know the language {language!r}; it "
                    f"knows {len(self._tokenizer.languages)} others. Leave language out to have "
                    "it detected.",
                    field="language",
                )
            return language
        if self._options.language not in (None, "en"):
            self._warnings.append(f"{self._info.name} is an English-only model: language is en.")
        if self._options.task == "translate":
            self._warnings.append(f"{self._info.name} is an English-only model: it transcribes.")
        return None

    def _is_anything_heard(self) -> bool:
        return any(loop.first_audio() is not None for loop in self._loops)

    def _detection_audio(self) -> WindowAudio:
        """What the language is detected from: the first 30 s, whatever the clips.

        openai-whisper follows a short recording with the spectrogram of silence here, and with
        zeros where it decodes. The first window's encoder output serves for both, and only an
        unsure answer is asked for again as openai-whisper asks it. Chunks begin with speech, and
        so may what follows skipped silence.
        """
        loop = self._loops[0]
        first = loop.first_audio()
        starts_at_zero = loop.seek == 0 or loop.has_skipped_silence
        if first is not None and first.speed == 1.0 and (starts_at_zero or len(self._loops) > 1):
            return first
        return self._opening()

    def _opening(self) -> WindowAudio:
        return WindowAudio(self._log_mel.opening, N_FRAMES)

    def _choose_language(
        self, window: Window, detected: Detected
    ) -> tuple[list[Event], list[Window]]:
        probabilities = _among(self._options.languages, detected.probabilities)
        language = max(probabilities, key=probabilities.__getitem__)
        is_unsure = probabilities[language] < _SURE_LANGUAGE
        is_shortcut = window.audio is self._loops[0].first_audio()
        if is_unsure and is_shortcut and window.audio.num_frames < N_FRAMES:
            return [], [self._window(self._opening(), DetectLanguage(), is_opening=True)]
        self._language, self._language_probability = language, probabilities[language]
        return self._start_loops()

    # The loops -----------------------------------------------------------------------------------

    def _start_loops(self) -> tuple[list[Event], list[Window]]:
        windows = [
            window
            for loop in self._loops
            for window in self._windows(loop, loop.start(self._language))
        ]
        return self._news(), windows

    def _windows(self, loop: SeekLoop, work: Work | None) -> list[Window]:
        """The loop's next step as a window; none when it has come to its end."""
        if work is None:
            self._ended.add(loop)
            return []
        is_first = loop is self._loops[0] and loop.num_frames_done == 0
        is_short = self._log_mel.content_frames <= N_FRAMES
        window = self._window(work.audio, work.step, is_opening=is_first or is_short)
        self._loop_of[window] = loop
        return [window]

    def _window(self, audio: WindowAudio, step: Step, *, is_opening: bool) -> Window:
        return Window(self, audio, step, self._priority, is_opening)

    def _news(self) -> list[Event]:
        """What is final and not told yet, in the recording's order; at the end, the transcript.

        A loop's segments wait until the loops before it are told to their end.
        """
        events: list[Event] = []
        while self._telling < len(self._loops):
            loop = self._loops[self._telling]
            for segment in loop.segments[self._num_told :]:
                numbered = replace(segment, id=len(self._segments))
                self._segments.append(numbered)
                events.append(SegmentDone(numbered))
            self._num_told = len(loop.segments)
            if loop not in self._ended:
                break
            self._telling += 1
            self._num_told = 0
        events.append(self._progress())
        if self.is_finished:
            events.append(Done(self._transcript()))
        return events

    def _progress(self) -> Progress:
        """The share of the frames to be recognised that is done, as seconds of the recording."""
        total = self._log_mel.content_frames / FRAMES_PER_SECOND
        share = sum(loop.num_frames_done for loop in self._loops) / max(
            1, sum(loop.num_frames for loop in self._loops)
        )
        done = total * share if self._loops else total
        return Progress(done, total, self._language, self._info.name, self._language_probability)

    def _transcript(self) -> Transcript:
        return Transcript(
            text="".join(loop.text for loop in self._loops),
            segments=tuple(self._segments),
            language=self._language or "en",
            language_probability=self._language_probability,
            duration=self._log_mel.content_frames / FRAMES_PER_SECOND,
            model=self._info.name,
            warnings=tuple(self._warnings),
            task=self._options.task if self._info.is_multilingual else "transcribe",
        )


def _refuse_repeated_clips(clips: Sequence[tuple[int, int]], content_frames: int) -> None:
    """Clips may overlap, as in openai-whisper; a thousand times the same hour is an attack."""
    asked = sum(max(0, min(end, content_frames) - start) for start, end in clips)
    if asked > MAX_REPETITIONS * content_frames:
        raise InvalidParameter(
            f"clip_timestamps ask for {asked / FRAMES_PER_SECOND:g} s of a recording of "
            f"{content_frames / FRAMES_PER_SECOND:g} s; at most {MAX_REPETITIONS} times its length "
            "is taken. Send fewer clips that overlap.",
            field="clip_timestamps",
        )


def _among(languages: Sequence[str], probabilities: dict[str, float]) -> dict[str, float]:
    """As if the speech were in one of these; in any where the model knows none of them."""
    wanted = {code: probabilities[code] for code in languages if code in probabilities}
    total = sum(wanted.values())
    return {code: share / total for code, share in wanted.items()} if total else probabilities


def _spoken(clips: Sequence[tuple[int, int]], chunks: Sequence[Span]) -> list[tuple[int, int]]:
    """The parts of `clips` (frames of 10 ms) in which somebody speaks, in the clips' order."""
    spoken = [
        (
            max(start, round(chunk.start * FRAMES_PER_SECOND)),
            min(end, round(chunk.end * FRAMES_PER_SECOND)),
        )
        for start, end in clips
        for chunk in chunks
    ]
    return [(start, end) for start, end in spoken if start < end]
