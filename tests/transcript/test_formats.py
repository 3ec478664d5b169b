"""How a transcript is written."""

from __future__ import annotations

import json

import pytest

from simple_asr.transcript.formats import FORMATS
from simple_asr.transcript.model import Segment, Transcript, Word


def transcript(*, words: tuple[Word, ...] | None = None) -> Transcript:
    segment = Segment(
        id=0,
        seek=0,
        start=0.0,
        end=2.5,
        text=" Привет, как дела?",
        tokens=(50364, 400),
        temperature=0.0,
        avg_logprob=-0.25,
        compression_ratio=0.9,
        no_speech_prob=0.01,
        words=words,
    )
    return Transcript(" Привет, как дела?", (segment,), "ru", duration=2.5, model="base")


def test_json_is_whispers_result_field_for_field() -> None:
    document = json.loads(FORMATS["json"].write(transcript()))

    assert list(document) == ["text", "segments", "language"]
    assert document["text"] == " Привет, как дела?"
    assert document["language"] == "ru"
    assert list(document["segments"][0].items()) == [
        ("id", 0),
        ("seek", 0),
        ("start", 0.0),
        ("end", 2.5),
        ("text", " Привет, как дела?"),
        ("tokens", [50364, 400]),
        ("temperature", 0.0),
        ("avg_logprob", -0.25),
        ("compression_ratio", 0.9),
        ("no_speech_prob", 0.01),
    ]


def test_json_has_words_only_when_they_were_asked_for() -> None:
    word = Word(" Привет,", 0.0, 0.5, 0.9)

    document = json.loads(FORMATS["json"].write(transcript(words=(word,))))

    assert document["segments"][0]["words"] == [
        {"word": " Привет,", "start": 0.0, "end": 0.5, "probability": 0.9}
    ]


def test_simple_is_the_text_alone() -> None:
    assert json.loads(FORMATS["simple"].write(transcript())) == {"text": "Привет, как дела?"}


def test_text_is_plain() -> None:
    assert FORMATS["text"].write(transcript()) == "Привет, как дела?\n"
    assert FORMATS["text"].media_type.startswith("text/plain")


def test_letters_of_any_alphabet_are_written_as_they_are() -> None:
    assert "Привет" in FORMATS["json"].write(transcript())


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_found_by_its_name_and_explained(name: str) -> None:
    assert FORMATS[name].name == name
    assert FORMATS[name].meaning
