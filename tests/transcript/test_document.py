"""Reading back what `format=json` wrote."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
from pydantic import ValidationError

from simple_asr.errors import InvalidTranscript
from simple_asr.service.fake import TRANSCRIPT
from simple_asr.transcript.document import read_transcript
from simple_asr.transcript.formats import FORMATS, whisper_result
from simple_asr.transcript.model import Segment, Word

WORDS = (
    Word(" Привет,", 0.0, 0.8, 0.9),
    Word(" как", 0.8, 1.4, 0.7),
    Word(" дела?", 1.4, 2.5, 1.0),
)
SEGMENT = asdict(TRANSCRIPT.segments[0])
WITH_WORDS = replace(TRANSCRIPT, segments=(replace(TRANSCRIPT.segments[0], words=WORDS),))


@pytest.mark.parametrize("transcript", [TRANSCRIPT, WITH_WORDS], ids=["segments", "words"])
def test_what_was_written_is_read_back(transcript: Any) -> None:
    document = FORMATS["json"].write(transcript)

    assert read_transcript(document, model="turbo") == transcript


def test_a_language_may_be_named_in_english() -> None:
    document = {**whisper_result(TRANSCRIPT), "language": "russian"}

    assert read_transcript(json.dumps(document)).language == "ru"


def test_no_speech_has_no_duration() -> None:
    assert read_transcript('{"text": "", "segments": [], "language": "en"}').duration == 0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"segments": [{"start": 0}]}, "segments.0.id: Field required"),
        ({"language": "elvish"}, "language: .* is not a language Whisper knows"),
        ({"text": None}, "text: Input should be a valid string"),
    ],
)
def test_what_is_no_transcript_is_refused_by_name(change: dict[str, Any], fault: str) -> None:
    document = json.dumps({**whisper_result(TRANSCRIPT), **change})

    with pytest.raises(InvalidTranscript, match=fault):
        read_transcript(document)


@pytest.mark.parametrize("start", ["-1", "3", "NaN", "-Infinity", "1e999"])
def test_times_that_no_recording_has_are_refused(start: str) -> None:
    document = FORMATS["json"].write(TRANSCRIPT).replace('"start": 0.0', f'"start": {start}')

    with pytest.raises(InvalidTranscript):
        read_transcript(document)


def test_a_time_beyond_any_recording_is_refused() -> None:
    document = FORMATS["json"].write(TRANSCRIPT).replace('"end": 2.5', '"end": 1e306')

    with pytest.raises(InvalidTranscript, match="ends after 1000000 s"):
        read_transcript(document)


@pytest.mark.parametrize(
    "change",
    [
        {"segments": [{}] * 50},
        {"segments": [{**SEGMENT, "tokens": ["a"] * 50}]},
        {"segments": [{**SEGMENT, "words": [{}] * 50}]},
    ],
    ids=["segments", "tokens", "words"],
)
def test_reading_stops_at_the_first_bad_item(change: dict[str, Any]) -> None:
    document = json.dumps({**whisper_result(TRANSCRIPT), **change})

    with pytest.raises(InvalidTranscript) as caught:
        read_transcript(document)

    cause = caught.value.__context__
    assert isinstance(cause, ValidationError)
    assert cause.error_count() <= len(fields(Segment))


@pytest.mark.parametrize("document", ["", "[]", "{", "null", '{"text": "' + "[" * 100_000])
def test_what_is_no_document_is_refused(document: str) -> None:
    with pytest.raises(InvalidTranscript, match="format=json"):
        read_transcript(document)
