"""What becomes of a job, decided without a store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simple_asr.errors import (
    AsrError,
    DecoderUnavailable,
    EngineFailed,
    EngineLost,
    InvalidParameter,
    ModelFailed,
    ModelNotReady,
    UnreadableMedia,
)
from simple_asr.service.fake import TRANSCRIPT
from simple_asr.service.jobs import (
    MAX_ATTEMPTS,
    Failure,
    Job,
    TryAgain,
    after_error,
    begins_anew,
    document_of,
    parameters_of,
)
from simple_asr.service.parameters import read_parameters
from simple_asr.transcript.events import Checkpoint, Event, Progress, SegmentDone

SEGMENT = TRANSCRIPT.segments[0]
JOB = Job(
    id="a",
    owner="alice",
    state="running",
    created=0,
    parameters="{}",
    digest="",
    audio_url=None,
    attempts=1,
    seconds_done=30,
    seconds_before=0,
    duration=120,
    language="en",
    model="fake",
    started=100,
    ended=None,
    failure=None,
)


@pytest.mark.parametrize("error", [UnreadableMedia("No audio."), InvalidParameter("Wrong.")])
def test_what_the_request_is_to_blame_for_is_not_tried_again(error: Exception) -> None:
    assert isinstance(after_error(error, attempts=1), Failure)


def test_what_the_server_lacks_is_tried_again_without_end() -> None:
    verdict = after_error(ModelNotReady("Loading.", retry_after=7), attempts=MAX_ATTEMPTS)

    assert verdict == TryAgain(7, is_counted=False)


@pytest.mark.parametrize(
    "error", [DecoderUnavailable("Killed."), EngineLost("Wedged."), ModelFailed("Not loaded.")]
)
def test_what_the_server_may_lack_for_good_is_tried_a_few_times(error: AsrError) -> None:
    verdicts = [after_error(error, attempts) for attempts in (1, MAX_ATTEMPTS)]

    assert verdicts == [TryAgain(5, is_counted=True), Failure.of(error)]


def test_what_nobody_knows_the_reason_of_is_tried_less_and_less_often() -> None:
    verdicts = [after_error(RuntimeError("a bug"), attempts) for attempts in (1, 2, MAX_ATTEMPTS)]

    assert verdicts[:2] == [TryAgain(5, is_counted=True), TryAgain(10, is_counted=True)]
    assert isinstance(verdicts[2], Failure)
    assert "a bug" not in verdicts[2].detail


def test_the_last_failure_of_the_model_is_told() -> None:
    verdict = after_error(EngineFailed("The model failed."), attempts=MAX_ATTEMPTS)

    assert verdict == Failure("engine_failed", "Speech recognition failed", "The model failed.")


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Progress(30.0, 90.0, "ru", "turbo"), False),
        (Progress(60.0, 90.0, "ru", "turbo"), False),
        (Progress(30.0, 90.1, "ru", "turbo"), False),
        (SegmentDone(replace(SEGMENT, id=1)), False),
        (SegmentDone(SEGMENT), True),
        (Progress(0.0, 90.0, None, "turbo"), True),
        (Progress(30.0, 90.0, "ru", "base"), True),
    ],
)
def test_work_that_does_not_go_on_is_told_by_its_events(event: Event, expected: bool) -> None:
    checkpoint = Checkpoint((SEGMENT,), Progress(30.0, 90.0, "ru", "turbo"))

    assert begins_anew(event, checkpoint) is expected


def test_the_rest_takes_as_long_as_what_was_done_since_the_start() -> None:
    resumed = replace(JOB, seconds_before=60, seconds_done=90)

    assert JOB.eta_seconds(now=110) == pytest.approx(30)
    assert resumed.eta_seconds(now=110) == pytest.approx(10)
    assert replace(JOB, seconds_done=0).eta_seconds(now=110) is None
    assert replace(JOB, state="queued").eta_seconds(now=110) is None


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"language=ru&temperature=0,0.4&word_timestamps=true&max_line_width=40&format=srt",
        b"initial_prompt=%F0%9F%98%80&clip_timestamps=0,10.5&beam_size=5&suppress_tokens=-1",
        b"temperature=0.2&chunking_strategy=auto&languages=ru,en",
    ],
)
def test_parameters_come_back_as_they_were_sent(query: bytes) -> None:
    sent = read_parameters(query)

    kept = parameters_of(document_of(sent))

    assert kept == sent
    assert kept.options.model_fields_set == sent.options.model_fields_set
    assert kept.writing.given == sent.writing.given
