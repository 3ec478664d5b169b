"""OpenAI's fields as clients of every kind spell them, read as one request."""

from __future__ import annotations

import pytest

from simple_asr.engine.options import TranscribeOptions
from simple_asr.errors import ContradictoryParameters, InvalidParameter, SeveralErrors
from simple_asr.server.openai_fields import AudioRequest, read_audio_request


def read(*fields: tuple[str, str], query: bytes = b"") -> AudioRequest:
    return read_audio_request(query, fields, [], "transcribe")


def options(*fields: tuple[str, str]) -> TranscribeOptions:
    return read(*fields).parameters.options


def test_nothing_given_is_json_with_whispers_defaults() -> None:
    asked = read()

    assert asked.response_format == "json"
    assert asked.parameters.options == TranscribeOptions()
    assert not asked.is_stream


@pytest.mark.parametrize(
    "fields",
    [
        [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")],
        [("timestamp_granularities", "word"), ("timestamp_granularities", "segment")],
        [("timestamp_granularities", "word,segment")],
    ],
)
def test_a_list_may_be_spelled_as_any_client_does(fields: list[tuple[str, str]]) -> None:
    asked = read(("response_format", "verbose_json"), *fields)

    assert (asked.has_words, asked.has_segments) == (True, True)


@pytest.mark.parametrize("value", ["0", "0.0", ""])
def test_temperature_zero_is_the_ladder(value: str) -> None:
    assert options(("temperature", value)) == TranscribeOptions()


@pytest.mark.parametrize("value", ["0,0.2", "0.2"])
def test_any_other_temperature_is_taken_at_its_word(value: str) -> None:
    assert options(("temperature", value)) == TranscribeOptions(temperature=value)


@pytest.mark.parametrize(
    ("fields", "strategy"),
    [
        ([("chunking_strategy", "auto")], "auto"),
        ([("chunking_strategy", "null")], None),
        ([("chunking_strategy", "")], None),
        ([("chunking_strategy[type]", "server_vad")], "auto"),
        ([("chunking_strategy", '{"type": "server_vad", "threshold": 0.4}')], "auto"),
    ],
)
def test_chunking_is_a_word_an_object_or_json(
    fields: list[tuple[str, str]], strategy: str | None
) -> None:
    assert options(*fields).chunking_strategy == strategy


@pytest.mark.parametrize(
    "fields",
    [
        [
            ("chunking_strategy[type]", "server_vad"),
            ("chunking_strategy[threshold]", "0.6"),
            ("chunking_strategy[prefix_padding_ms]", "100"),
            ("chunking_strategy[silence_duration_ms]", "700"),
        ],
        [
            (
                "chunking_strategy",
                """{"type": "server_vad", "threshold": 0.6, "prefix_padding_ms": 100,
                    "silence_duration_ms": 700}""",
            )
        ],
    ],
)
def test_the_members_of_server_vad_are_the_rules_of_voice_activity(
    fields: list[tuple[str, str]],
) -> None:
    assert options(*fields) == TranscribeOptions(
        chunking_strategy="auto", vad_threshold=0.6, vad_padding=0.1, vad_min_silence=0.7
    )


def test_a_member_of_server_vad_that_is_null_is_the_default() -> None:
    fields = [("chunking_strategy", '{"type": "server_vad", "threshold": null}')]

    assert options(*fields) == TranscribeOptions(chunking_strategy="auto")


@pytest.mark.parametrize(
    "fields",
    [
        [("chunking_strategy", "{")],
        [("chunking_strategy", "[1]")],
        [("chunking_strategy", "server_vad")],
        [("chunking_strategy[threshold]", "0.5")],
        [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[treshold]", "0.5")],
        [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "NaN")],
        [("chunking_strategy", '{"type": "server_vad", "silence_duration_ms": 30001}')],
        [("chunking_strategy", '{"type": "server_vad", "prefix_padding_ms": -1}')],
        [("chunking_strategy", '{"type": "server_vad", "threshold": true}')],
        [("stream", "perhaps")],
        [("stream", "true"), ("stream", "false")],
        [("model", "a"), ("model", "b")],
        [("include[]", "everything")],
    ],
)
def test_what_cannot_be_is_refused(fields: list[tuple[str, str]]) -> None:
    with pytest.raises((InvalidParameter, SeveralErrors)):
        read(*fields)


def test_the_query_is_read_as_the_form_is() -> None:
    asked = read(query=b"response_format=verbose_json&stream=true&prompt=Hello")

    assert asked.response_format == "verbose_json"
    assert asked.is_stream
    assert asked.parameters.options.initial_prompt == "Hello"


def test_a_parameter_of_ours_may_not_contradict_openais() -> None:
    with pytest.raises(ContradictoryParameters):
        read(("prompt", "Hello"), ("initial_prompt", "Goodbye"))


def test_a_model_may_be_named_in_a_document() -> None:
    asked = read_audio_request(b"", [], ['{"model": "tiny"}'], "transcribe")

    assert asked.model == "tiny"


def test_a_model_in_a_document_may_not_contradict_the_field() -> None:
    with pytest.raises(ContradictoryParameters, match="model"):
        read_audio_request(b"", [("model", "base")], ['{"model": "tiny"}'], "transcribe")


def test_words_asked_for_in_our_words_are_not_lost() -> None:
    asked = read(("response_format", "verbose_json"), ("word_timestamps", "true"))

    assert (asked.has_words, asked.has_segments) == (True, True)
