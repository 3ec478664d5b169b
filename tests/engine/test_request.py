"""Whisper's seek loop, step by step, with a model that says what the test tells it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from simple_asr.audio.features import LogMel
from simple_asr.audio.speech import Span
from simple_asr.engine.backends.fake import FakeBackend
from simple_asr.engine.engine import answer_batch
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.request import NO_SHORTCUTS, Outcome, Request
from simple_asr.engine.seek_loop import FindVoiceBetween, Shortcuts, reduced_context, saves_a_window
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import (
    Align,
    Answer,
    Decode,
    Decoded,
    Detected,
    DetectLanguage,
    FindVoice,
    Hypothesis,
    Window,
)
from simple_asr.errors import InvalidParameter
from simple_asr.transcript.events import Checkpoint, Done, Event, Progress, SegmentDone
from simple_asr.transcript.model import Segment, Transcript
from tests.support import Noise, Silence

Say = Callable[..., Decoded]


@pytest.fixture
def say(tokenizer: Tokenizer) -> Say:
    """Builds an answer: `say(0.0, " Hello.", 2.0)` with numbers for timestamps."""

    def build(*parts: float | str, logprob: float = -0.2, no_speech: float = 0.01) -> Decoded:
        tokens: list[int] = []
        for part in parts:
            if isinstance(part, str):
                tokens += tokenizer.encode(part)
            else:
                tokens.append(tokenizer.timestamp_begin + round(part / 0.02))
        return Decoded((Hypothesis(tuple(tokens), logprob * (len(tokens) + 1)),), no_speech)

    return build


class Run:
    """Runs a request to its end, one step at a time, and keeps what it asked for."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        answers: Sequence[Answer],
        *,
        seconds: float = 25.0,
        shortcuts: Shortcuts = NO_SHORTCUTS,
        chunks: Sequence[Span] | None = None,
        is_multilingual: bool = True,
        silent: Sequence[tuple[float, float]] = (),
        find_voice: FindVoiceBetween | None = None,
        checkpoint: Checkpoint | None = None,
        **options: object,
    ) -> None:
        backend = FakeBackend(tokenizer, is_multilingual=is_multilingual)
        chosen = TranscribeOptions.model_validate({"language": "en", **options})
        samples = Silence(seconds) if find_voice is None else Noise(seconds, silent)
        request = Request(
            chosen,
            LogMel(samples, 80),
            backend.info,
            tokenizer,
            shortcuts=shortcuts,
            chunks=chunks,
            find_voice=find_voice,
            checkpoint=checkpoint,
        )
        remaining = deque(answers)
        self.windows: list[Window] = []
        self.events, todo = request.start()
        self.num_in_flight = [len(todo)]
        self.outcomes: list[Outcome] = []
        while todo:
            window, *todo = todo
            self.windows.append(window)
            if isinstance(window.step, Align | FindVoice):
                (answer,) = answer_batch(backend, [window])
            else:
                answer = remaining.popleft()
            events, more = request.receive(window, answer)
            self.events += events
            if request.last_outcome is not None:
                self.outcomes.append(request.last_outcome)
            todo += more
            self.num_in_flight.append(len(todo))
        assert not remaining, "The request ended before it asked for everything"
        assert request.is_finished

    @property
    def decodes(self) -> list[Decode]:
        return [window.step for window in self.windows if isinstance(window.step, Decode)]

    @property
    def transcript(self) -> Transcript:
        done = self.events[-1]
        assert isinstance(done, Done)
        return done.transcript

    @property
    def times(self) -> list[tuple[float, float]]:
        return [(round(s.start, 2), round(s.end, 2)) for s in self.transcript.segments]


def test_a_short_clip_is_one_window(tokenizer: Tokenizer, say: Say) -> None:
    run = Run(tokenizer, [say(0.0, " Hello.", 2.0)])

    (segment,) = run.transcript.segments
    assert run.transcript.text == " Hello."
    assert (segment.id, segment.seek, segment.start, segment.end) == (0, 0, 0.0, 2.0)
    assert segment.text == " Hello."
    assert segment.tokens[0] == tokenizer.timestamp_begin
    assert segment.temperature == 0.0
    assert segment.avg_logprob == pytest.approx(-0.2)
    assert segment.words is None


def test_segments_and_progress_are_told_as_they_become_final(
    tokenizer: Tokenizer, say: Say
) -> None:
    run = Run(tokenizer, [say(0.0, " One.", 20.0), say(0.0, " Two.", 10.0)], seconds=40)

    told = [event for event in run.events if isinstance(event, SegmentDone | Progress)]
    assert [type(event) for event in told] == [
        Progress,
        SegmentDone,
        Progress,
        SegmentDone,
        Progress,
    ]
    assert [event.fraction for event in told if isinstance(event, Progress)] == [0.0, 0.75, 1.0]


def test_the_next_window_begins_at_the_last_pair_of_timestamps(
    tokenizer: Tokenizer, say: Say
) -> None:
    first = say(0.0, " One.", 10.0, 10.0, " Two.", 22.0, 22.0, " Unfini")

    run = Run(tokenizer, [first, say(0.0, " Unfinished.", 5.0)], seconds=40)

    assert run.times == [(0.0, 10.0), (10.0, 22.0), (22.0, 27.0)]
    assert run.transcript.segments[2].seek == 2200
    assert run.transcript.text == " One. Two. Unfinished."


def test_a_single_timestamp_at_the_end_moves_on_by_a_whole_window(
    tokenizer: Tokenizer, say: Say
) -> None:
    run = Run(
        tokenizer, [say(0.0, " One.", 4.0, 4.0, " Two.", 8.0), say(1.0, " Three.", 3.0)], seconds=40
    )

    assert run.transcript.segments[2].seek == 3000
    assert run.times[2] == (30.0, 33.0)


def test_a_failed_window_is_tried_one_temperature_warmer(tokenizer: Tokenizer, say: Say) -> None:
    improbable, repetitive = say(0.0, " Um.", 2.0, logprob=-2.0), say(0.0, " la" * 100, 2.0)

    run = Run(tokenizer, [improbable, repetitive, say(0.0, " Good.", 2.0)])

    assert [step.search.temperature for step in run.decodes] == [0.0, 0.2, 0.4]
    assert run.transcript.segments[0].temperature == 0.4
    assert len({id(window.audio) for window in run.windows}) == 1


def test_of_a_ladder_that_was_asked_for_the_last_failure_is_kept(
    tokenizer: Tokenizer, say: Say
) -> None:
    bad = [say(0.0, " Bad 0.", 2.0, logprob=-1.5), say(0.0, " Bad 1.", 2.0, logprob=-2.0)]

    run = Run(tokenizer, bad, temperature=[0.0, 1.0])

    assert run.transcript.text == " Bad 1."
    assert run.transcript.segments[0].temperature == 1.0


def test_of_the_default_ladder_the_best_failure_is_kept(tokenizer: Tokenizer, say: Say) -> None:
    repetitive = say(0.0, " la" * 100, 2.0, logprob=-0.1)
    bad = [say(0.0, f" Bad {i}.", 2.0, logprob=-1.5 - i) for i in range(5)]

    run = Run(tokenizer, [repetitive, *bad])

    assert run.transcript.text == " Bad 0."
    assert run.transcript.segments[0].temperature == 0.2


@pytest.mark.parametrize(("keep", "text"), [("best", " Bad 0."), ("last", " Bad 1.")])
def test_which_failure_is_kept_can_be_chosen(
    tokenizer: Tokenizer, say: Say, keep: str, text: str
) -> None:
    bad = [say(0.0, " Bad 0.", 2.0, logprob=-1.5), say(0.0, " Bad 1.", 2.0, logprob=-2.0)]

    run = Run(tokenizer, bad, temperature=[0.0, 1.0], keep_when_all_fail=keep)

    assert run.transcript.text == text


def test_a_silent_window_is_skipped(tokenizer: Tokenizer, say: Say) -> None:
    silent = say(0.0, " Thanks for watching.", 2.0, logprob=-1.5, no_speech=0.9)

    run = Run(tokenizer, [silent, say(0.0, " Speech.", 2.0)], seconds=40)

    assert run.transcript.text == " Speech."
    assert run.transcript.segments[0].seek == 3000


def test_each_attempt_at_a_window_has_one_outcome(tokenizer: Tokenizer, say: Say) -> None:
    improbable = say(0.0, " Um.", 2.0, logprob=-2.0)
    silent = say(0.0, " Thanks for watching.", 2.0, logprob=-1.5, no_speech=0.9)
    answers = [improbable, say(0.0, " Good.", 30.0), silent, say(0.0, " Rest.", 5.0)]

    run = Run(tokenizer, answers, seconds=65, word_timestamps=True)

    assert run.outcomes == ["retried", "accepted", "silent", "accepted"]


def test_a_window_in_which_nobody_is_heard_to_speak_is_silent(
    tokenizer: Tokenizer, say: Say
) -> None:
    answers: list[Answer] = [Detected({"en": 0.9}), say(0.0, " you", 2.0, no_speech=0.9)]

    run = Run(tokenizer, answers, language=None, find_voice=lambda *_: 0.0)

    assert run.outcomes == ["silent"]


def test_beams_and_patience_count_at_zero_and_best_of_above(tokenizer: Tokenizer, say: Say) -> None:
    bad = say(0.0, " Bad.", 2.0, logprob=-2.0)

    run = Run(
        tokenizer,
        [bad, say(0.0, " Good.", 2.0)],
        beam_size=5,
        patience=2.0,
        best_of=3,
        temperature=[0.0, 0.5],
    )

    cold, warm = (step.search for step in run.decodes)
    assert (cold.beam_size, cold.patience, cold.num_hypotheses) == (5, 2.0, 10)
    assert (warm.beam_size, warm.patience, warm.num_hypotheses) == (1, 1.0, 3)


def previous_text(tokenizer: Tokenizer, step: Decode) -> str:
    return tokenizer.decode(step.prompt.tokens[1 : step.prompt.sot_position])


def test_a_window_is_given_the_text_before_it(tokenizer: Tokenizer, say: Say) -> None:
    answers = [say(0.0, " One.", 30.0), say(0.0, " Two.", 30.0), say(0.0, " Three.", 10.0)]

    run = Run(tokenizer, answers, seconds=70, initial_prompt="Names:")

    assert [previous_text(tokenizer, step) for step in run.decodes] == [
        " Names:",
        " Names: One.",
        " Names: One. Two.",
    ]
    assert run.transcript.text == " One. Two. Three."


def test_text_decoded_warm_is_not_given_on(tokenizer: Tokenizer, say: Say) -> None:
    answers = [say(0.0, " One.", 30.0), say(0.0, " Two.", 30.0)]

    run = Run(tokenizer, answers, seconds=60, temperature=0.6, initial_prompt="Names:")

    assert [previous_text(tokenizer, step) for step in run.decodes] == [" Names:", ""]


def test_windows_can_be_kept_from_each_others_text(tokenizer: Tokenizer, say: Say) -> None:
    answers = [say(0.0, " One.", 30.0), say(0.0, " Two.", 30.0)]

    run = Run(tokenizer, answers, seconds=60, condition_on_previous_text=False)

    assert [step.prompt.sot_position for step in run.decodes] == [0, 0]


def test_a_carried_prompt_is_given_to_every_window(tokenizer: Tokenizer, say: Say) -> None:
    answers = [say(0.0, " One.", 30.0), say(0.0, " Two.", 30.0), say(0.0, " Three.", 10.0)]

    run = Run(
        tokenizer,
        answers,
        seconds=70,
        initial_prompt="Names:",
        carry_initial_prompt=True,
        condition_on_previous_text=False,
    )

    assert [previous_text(tokenizer, step) for step in run.decodes] == [" Names:"] * 3


@pytest.mark.parametrize(("num_words", "warns"), [(223, False), (224, True)])
def test_a_prompt_longer_than_the_model_is_given_is_remarked_on(
    tokenizer: Tokenizer, say: Say, num_words: int, warns: bool
) -> None:
    prompt = " ".join(["fox"] * num_words)

    run = Run(tokenizer, [say(0.0, " Hello.", 2.0)], initial_prompt=prompt)

    assert bool(run.transcript.warnings) == warns


def test_clips_are_recognised_in_order_and_nothing_else(tokenizer: Tokenizer, say: Say) -> None:
    answers = [say(0.0, " One.", 2.0), say(0.5, " Two.", 3.0)]

    run = Run(tokenizer, answers, seconds=60, clip_timestamps="10,14,50,54")

    assert run.times == [(10.0, 12.0), (50.0, 53.0)]
    assert [window.audio.num_frames for window in run.windows] == [400, 400]


def test_a_clip_beyond_the_end_is_cut_there_or_left_out(tokenizer: Tokenizer, say: Say) -> None:
    run = Run(tokenizer, [say(0.0, " One.", 2.0)], seconds=25, clip_timestamps="20,99,200,300")

    assert run.windows[0].audio.num_frames == 500
    assert len(run.windows) == 1


def test_without_a_language_it_is_detected_from_the_first_window(
    tokenizer: Tokenizer, say: Say
) -> None:
    answers: list[Answer] = [Detected({"de": 0.8, "en": 0.2}), say(0.0, " Hallo.", 2.0)]

    run = Run(tokenizer, answers, language=None)

    assert run.transcript.language == "de"
    assert run.transcript.language_probability == 0.8
    assert run.decodes[0].prompt.tokens[1] == tokenizer.language_token("de")
    assert run.windows[0].audio is run.windows[1].audio


def test_an_unsure_language_is_asked_for_again_as_whisper_asks(
    tokenizer: Tokenizer, say: Say
) -> None:
    unsure, surer = Detected({"de": 0.4, "en": 0.3}), Detected({"de": 0.3, "nl": 0.4})

    run = Run(tokenizer, [unsure, surer, say(0.0, " Hallo.", 2.0)], language=None)

    assert run.transcript.language == "nl"
    assert [type(w.step) for w in run.windows] == [DetectLanguage, DetectLanguage, Decode]
    assert run.windows[1].audio is not run.windows[2].audio


def test_the_language_is_the_likeliest_of_those_it_may_be(tokenizer: Tokenizer, say: Say) -> None:
    answers: list[Answer] = [
        Detected({"de": 0.8, "nl": 0.15, "en": 0.05}),
        say(0.0, " Hallo.", 2.0),
    ]

    run = Run(tokenizer, answers, language=None, languages="en,nl")

    assert run.transcript.language == "nl"


def test_languages_a_model_does_not_know_leave_it_free(tokenizer: Tokenizer, say: Say) -> None:
    answers: list[Answer] = [Detected({"de": 0.8, "en": 0.2}), say(0.0, " Hallo.", 2.0)]

    run = Run(tokenizer, answers, language=None, languages="yue")

    assert run.transcript.language == "de"


def test_the_language_comes_from_the_beginning_whatever_the_clips(
    tokenizer: Tokenizer, say: Say
) -> None:
    answers: list[Answer] = [Detected({"de": 0.9, "en": 0.1}), say(0.0, " Hallo.", 2.0)]

    run = Run(tokenizer, answers, language=None, clip_timestamps="10")

    assert run.windows[0].audio is not run.windows[1].audio


def test_an_english_only_model_says_what_it_does_not_heed(tokenizer: Tokenizer, say: Say) -> None:
    run = Run(
        tokenizer,
        [say(0.0, " Hello.", 2.0)],
        is_multilingual=False,
        language="ru",
        task="translate",
    )

    assert run.transcript.language == "en"
    assert run.decodes[0].prompt.tokens == (tokenizer.sot,)
    assert len(run.transcript.warnings) == 2


def test_words_are_aligned_and_correct_the_segment_and_the_seek(
    tokenizer: Tokenizer, say: Say
) -> None:
    # The fake model gives every token 0.2 s: " Hello" and "." end at 0.4 s.
    first = say(0.0, " Hello.", 2.0, 2.0, " Unfini")

    run = Run(tokenizer, [first, say(0.0, " Bye.", 1.0)], seconds=2.5, word_timestamps=True)

    segments = run.transcript.segments
    assert segments[0].words is not None
    assert [(w.word, w.start, w.end) for w in segments[0].words] == [(" Hello.", 0.0, 0.2)]
    assert segments[1].seek == 20
    assert [type(w.step) for w in run.windows] == [Decode, Align, Decode, Align]


def test_a_segment_without_text_stays_and_is_emptied(tokenizer: Tokenizer, say: Say) -> None:
    run = Run(tokenizer, [say(0.0, " ", 2.0, 2.0, " Hello.", 4.0)])

    empty, spoken = run.transcript.segments
    assert (empty.id, empty.text, empty.tokens) == (0, "", ())
    assert (spoken.id, spoken.text) == (1, " Hello.")
    assert run.transcript.text == " Hello."


def test_audio_that_is_too_short_for_a_frame_gives_no_text(tokenizer: Tokenizer) -> None:
    run = Run(tokenizer, [], seconds=0.005)

    assert run.transcript.text == ""
    assert run.transcript.segments == ()


# Faster than recorded ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "saves"), [(10, False), (30, False), (31, True), (37.5, True), (50, False)]
)
def test_speed_is_used_only_where_it_saves_a_window(seconds: float, saves: bool) -> None:
    assert saves_a_window(round(seconds * 100), 1.25) is saves


def test_times_of_a_fast_window_are_those_of_the_recording(tokenizer: Tokenizer, say: Say) -> None:
    run = Run(
        tokenizer,
        [say(0.0, " One.", 8.0, 8.0, " Two.", 28.0)],
        seconds=36,
        shortcuts=Shortcuts(speedup=1.25),
    )

    assert run.windows[0].audio.speed == 1.25
    assert run.windows[0].audio.num_frames == 2880
    assert run.times == [(0.0, 10.0), (10.0, 35.0)]


def test_a_fast_window_that_fails_is_heard_at_true_speed_before_it_is_decoded_warmer(
    tokenizer: Tokenizer, say: Say
) -> None:
    bad = say(0.0, " Bad.", 2.0, logprob=-2.0)
    answers = [bad, say(0.0, " Good.", 30.0), say(0.0, " Rest.", 5.0)]

    run = Run(tokenizer, answers, seconds=36, shortcuts=Shortcuts(speedup=1.25))

    assert [window.audio.speed for window in run.windows] == [1.25, 1.0, 1.0]
    assert [step.search.temperature for step in run.decodes] == [0.0, 0.0, 0.0]
    assert run.times == [(0.0, 30.0), (30.0, 35.0)]


def test_a_fast_window_in_a_reduced_context_is_heard_exactly_when_it_fails(
    tokenizer: Tokenizer, say: Say
) -> None:
    bad = say(0.0, " Bad.", 2.0, logprob=-2.0)
    shortcuts = Shortcuts(reduces_context=True)

    run = Run(tokenizer, [bad, say(0.0, " Good.", 2.0)], seconds=8, shortcuts=shortcuts)

    assert [window.audio.context for window in run.windows] == [1400, 3000]
    assert [step.search.temperature for step in run.decodes] == [0.0, 0.0]


# A context of the sound's own length --------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_frames", "context"), [(1, 600), (100, 600), (101, 800), (800, 1400), (2400, 3000)]
)
def test_a_reduced_context_leaves_five_seconds_of_silence(num_frames: int, context: int) -> None:
    assert reduced_context(num_frames) == context


def test_a_decoder_that_runs_on_under_a_reduced_context_is_heard_exactly(
    tokenizer: Tokenizer, say: Say
) -> None:
    # Eight seconds in a context of 14 s: at most 12 + 12 * 9 tokens are believed.
    endless = Decoded((Hypothesis((tokenizer.timestamp_begin, *range(1000, 1119)), -10.0),), 0.0)

    run = Run(
        tokenizer,
        [endless, say(0.0, " Good.", 2.0)],
        seconds=8,
        shortcuts=Shortcuts(reduces_context=True),
    )

    assert run.decodes[0].search.max_new_tokens == 120
    assert [window.audio.context for window in run.windows] == [1400, 3000]


# Chunks of speech, side by side -------------------------------------------------------------------


CHUNKS = [Span(1.0, 20.0), Span(25.0, 50.0), Span(55.0, 60.0)]


def test_chunks_are_all_in_flight_and_told_in_order(tokenizer: Tokenizer, say: Say) -> None:
    answers = [
        say(0.0, " One.", 5.0, 5.0, " Unfini"),
        say(0.0, " Two.", 20.0),
        say(0.0, " Three.", 4.0),
        say(0.0, " Unfinished.", 5.0),
    ]

    run = Run(tokenizer, answers, seconds=60, chunks=CHUNKS)

    assert run.num_in_flight[0] == 3
    told = [event.segment for event in run.events if isinstance(event, SegmentDone)]
    assert [segment.text for segment in told] == [" One.", " Unfinished.", " Two.", " Three."]
    assert [segment.id for segment in told] == [0, 1, 2, 3]
    assert [segment.seek for segment in told] == [100, 600, 2500, 5500]
    assert run.transcript.text == " One. Unfinished. Two. Three."
    assert run.transcript.segments == tuple(told)


def test_a_chunk_knows_nothing_of_the_text_before_it(tokenizer: Tokenizer, say: Say) -> None:
    answers = [say(0.0, " One.", 5.0), say(0.0, " Two.", 20.0), say(0.0, " Three.", 4.0)]

    run = Run(tokenizer, answers, seconds=60, chunks=CHUNKS)

    assert [step.prompt.sot_position for step in run.decodes] == [0, 0, 0]


def test_chunks_are_cut_to_the_clips(tokenizer: Tokenizer, say: Say) -> None:
    run = Run(
        tokenizer,
        [say(0.0, " One.", 2.0), say(0.0, " Two.", 4.0)],
        seconds=60,
        chunks=CHUNKS,
        clip_timestamps="10,30",
    )

    assert [(s.seek, s.end) for s in run.transcript.segments] == [(1000, 12.0), (2500, 29.0)]


def test_without_speech_there_is_nothing_to_do(tokenizer: Tokenizer) -> None:
    run = Run(tokenizer, [], seconds=60, chunks=[], language=None)

    assert run.transcript.text == ""
    assert isinstance(run.events[0], Progress)
    assert run.events[0].fraction == 1.0


def test_progress_over_chunks_is_the_share_that_is_done(tokenizer: Tokenizer, say: Say) -> None:
    answers = [say(0.0, " One.", 5.0), say(0.0, " Two.", 20.0)]

    run = Run(tokenizer, answers, seconds=60, chunks=[Span(0, 10), Span(20, 50)])

    fractions = [event.fraction for event in run.events if isinstance(event, Progress)]
    assert fractions == [0.0, 0.25, 1.0]


def test_a_language_the_model_does_not_know_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidParameter, match="does not know the language 'yue'"):
        Run(tokenizer, [], language="cantonese")


def test_clips_that_ask_for_the_same_audio_over_and_over_are_refused(
    tokenizer: Tokenizer,
) -> None:
    with pytest.raises(InvalidParameter, match="at most 4 times"):
        Run(tokenizer, [], seconds=60, clip_timestamps=[0, 60] * 5)


# Nobody speaks ----------------------------------------------------------------------------------


def nobody(_start: int, _stop: int) -> float:
    return 0.1


def somebody(_start: int, _stop: int) -> float:
    return 0.9


def test_a_window_that_fails_and_holds_no_speech_is_skipped_at_once(
    tokenizer: Tokenizer, say: Say
) -> None:
    run = Run(tokenizer, [say(0.0, " Made up.", 2.0, logprob=-2)], find_voice=nobody)

    assert len(run.decodes) == 1
    assert run.transcript.text == ""


def test_a_window_that_looks_silent_is_skipped_however_sure_its_text(
    tokenizer: Tokenizer, say: Say
) -> None:
    run = Run(tokenizer, [say(0.0, " you", 2.0, no_speech=0.9)], find_voice=nobody)

    assert run.transcript.text == ""


def test_where_somebody_speaks_the_ladder_is_climbed_as_ever(
    tokenizer: Tokenizer, say: Say
) -> None:
    answers = [say(0.0, " Hel", 2.0, logprob=-2), say(0.0, " Hello.", 2.0)]

    run = Run(tokenizer, answers, find_voice=somebody)

    assert [decode.search.temperature for decode in run.decodes] == [0.0, 0.2]
    assert run.transcript.text == " Hello."


def test_what_passes_every_check_is_not_doubted(tokenizer: Tokenizer, say: Say) -> None:
    run = Run(tokenizer, [say(0.0, " Hello.", 2.0)], find_voice=nobody)

    assert run.transcript.text == " Hello."


def test_voice_is_looked_for_in_the_window_alone(tokenizer: Tokenizer, say: Say) -> None:
    asked = []

    def find_voice(start: int, stop: int) -> float:
        asked.append((start, stop))
        return 0.0

    Run(tokenizer, [say(logprob=-2), say(logprob=-2)], seconds=40, find_voice=find_voice)

    assert asked == [(0, 3000), (3000, 4000)]


def test_silence_is_skipped_unheard(tokenizer: Tokenizer) -> None:
    run = Run(tokenizer, [], seconds=90, silent=[(0, 90)], find_voice=nobody, language=None)

    assert run.windows == []
    assert run.transcript.text == ""


def test_the_language_after_long_silence_is_that_of_the_first_sound(
    tokenizer: Tokenizer, say: Say
) -> None:
    answers: list[Answer] = [Detected({"ru": 0.9, "en": 0.1}), say(0.0, " Hello.", 2.0)]

    run = Run(tokenizer, answers, seconds=50, silent=[(0, 35)], find_voice=somebody, language=None)

    assert run.windows[0].audio is run.windows[1].audio
    assert run.transcript.segments[0].start == 30.0
    assert run.transcript.language == "ru"


def test_without_voice_activity_silence_is_heard_as_openai_whisper_hears_it(
    tokenizer: Tokenizer, say: Say
) -> None:
    run = Run(tokenizer, [say(0.0, " you", 2.0)], seconds=20)

    assert run.transcript.text == " you"


# Going on ----------------------------------------------------------------------------------------


def checkpoints(events: Sequence[Event]) -> list[Checkpoint]:
    """What was known after each window."""
    known: list[Segment] = []
    found = []
    for event in events:
        if isinstance(event, SegmentDone):
            known.append(event.segment)
        elif isinstance(event, Progress):
            found.append(Checkpoint(tuple(known), event))
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"condition_on_previous_text": False},
        {"carry_initial_prompt": True, "initial_prompt": "Names: Ann."},
        {"clip_timestamps": [3.0, 34.0, 40.0, 95.0]},
        {"clip_timestamps": [0.0, 60.0, 30.0, 90.0]},
        {"clip_timestamps": [50.0, 100.0, 0.0, 60.0]},
        {"word_timestamps": True},
        {"temperature": [0.8]},
    ],
    ids=str,
)
def test_work_stopped_after_any_window_ends_as_if_it_had_not_been(
    tokenizer: Tokenizer, say: Say, options: dict[str, Any]
) -> None:
    answers = [say(0.0, f" Window {number}.", 30.0) for number in range(4)]
    whole = Run(tokenizer, answers, seconds=100.0, **options)

    for number, checkpoint in enumerate(checkpoints(whole.events)):
        rest = Run(tokenizer, answers[number:], seconds=100.0, checkpoint=checkpoint, **options)

        assert rest.transcript == whole.transcript
        assert rest.decodes == whole.decodes[number:]


def test_the_language_is_not_detected_again(tokenizer: Tokenizer, say: Say) -> None:
    answers = [say(0.0, f" Window {number}.", 30.0) for number in range(2)]
    detected = Detected({"en": 0.1, "ru": 0.9})
    whole = Run(tokenizer, [detected, *answers], seconds=50.0, language=None)
    _, after_one_window, *_ = checkpoints(whole.events)

    rest = Run(tokenizer, answers[1:], seconds=50.0, language=None, checkpoint=after_one_window)

    assert rest.transcript == whole.transcript
    assert (rest.transcript.language, rest.transcript.language_probability) == ("ru", 0.9)


def test_what_another_model_recognised_is_not_gone_on_with(tokenizer: Tokenizer, say: Say) -> None:
    answers = [say(0.0, f" Window {number}.", 30.0) for number in range(2)]
    whole = Run(tokenizer, answers, seconds=50.0)
    _, after_one, *_ = checkpoints(whole.events)
    of_another = replace(after_one, progress=replace(after_one.progress, model="another"))

    again = Run(tokenizer, answers, seconds=50.0, checkpoint=of_another)

    assert again.events == whole.events
