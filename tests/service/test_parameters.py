"""The one reader of parameters: every way in reaches the same options, and every fault is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simple_asr.engine.options import TranscribeOptions
from simple_asr.errors import (
    ContradictoryParameters,
    InvalidParameter,
    PayloadTooLarge,
    RequestError,
    SeveralErrors,
    UnknownParameter,
)
from simple_asr.server.problems import MAX_PROBLEM_BYTES, problem_response
from simple_asr.service.fake import EFFECTIVE, TRANSCRIPT
from simple_asr.service.parameters import PARAMETERS, parameter_schemas, read_parameters
from simple_asr.transcript.formats import FORMATS

# A value other than the default for every parameter, as a form and as JSON would carry it.
EXAMPLES: dict[str, tuple[str, object]] = {
    "format": ("text", "text"),
    "model": ("base", "base"),
    "language": ("Russian", "ru"),
    "languages": ("Russian,en", ["ru", "en"]),
    "task": ("translate", "translate"),
    "temperature": ("0,0.4", [0, 0.4]),
    "beam_size": ("5", 5),
    "best_of": ("3", 3),
    "patience": ("1.5", 1.5),
    "length_penalty": ("0.8", 0.8),
    "compression_ratio_threshold": ("null", None),
    "keep_when_all_fail": ("last", "last"),
    "skip_non_speech": ("false", False),
    "on_hallucination": ("flag", "flag"),
    "channels": ("split", "split"),
    "pcm_rate": ("8000", 8000),
    "pcm_format": ("mulaw", "mulaw"),
    "pcm_channels": ("2", 2),
    "logprob_threshold": ("-0.5", -0.5),
    "no_speech_threshold": ("0.7", 0.7),
    "condition_on_previous_text": ("false", False),
    "initial_prompt": ("Имена: Ёж", "Имена: Ёж"),
    "carry_initial_prompt": ("true", True),
    "prefix": ("Well,", "Well,"),
    "word_timestamps": ("true", True),
    "prepend_punctuations": ("«", "«"),
    "append_punctuations": ("»", "»"),
    "clip_timestamps": ("0,12.5", [0, 12.5]),
    "hallucination_silence_threshold": ("2", 2),
    "suppress_tokens": ("-1,50", [-1, 50]),
    "suppress_blank": ("false", False),
    "sample_len": ("100", 100),
    "without_timestamps": ("true", True),
    "max_initial_timestamp": ("0.5", 0.5),
    "fp16": ("true", True),
    "verbose": ("true", True),
    "speedup": ("1.5", 1.5),
    "audio_context": ("auto", "auto"),
    "chunking_strategy": ("auto", "auto"),
    "vad_threshold": ("0.6", 0.6),
    "vad_min_speech": ("0.1", 0.1),
    "vad_min_silence": ("0.5", 0.5),
    "vad_padding": ("0.1", 0.1),
    "early_start": ("true", True),
    "max_line_width": ("42", 42),
    "max_line_count": ("2", 2),
    "max_words_per_line": ("6", 6),
    "highlight_words": ("true", True),
    "split_at_sentences": ("true", True),
    "min_cue_gap": ("0.08", 0.08),
    "receipt": ("true", True),
}
# What a parameter cannot stand without.
COMPANIONS = {
    "patience": {"beam_size": "5"},
    "max_line_width": {"word_timestamps": "true"},
    "max_line_count": {"word_timestamps": "true"},
    "max_words_per_line": {"word_timestamps": "true"},
    "highlight_words": {"word_timestamps": "true"},
    "split_at_sentences": {"word_timestamps": "true"},
    "pcm_format": {"pcm_rate": "16000"},
    "pcm_channels": {"pcm_rate": "16000"},
}


def test_the_examples_cover_every_parameter() -> None:
    assert set(EXAMPLES) == PARAMETERS


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_every_parameter_reads_alike_from_query_form_and_json(name: str) -> None:
    text, value = EXAMPLES[name]
    companions = COMPANIONS.get(name, {})
    query = "&".join(f"{key}={item}" for key, item in {**companions, name: text}.items())

    from_query = read_parameters(query.encode())
    from_form = read_parameters(b"", [*companions.items(), (name, text)])
    from_json = read_parameters(b"", [*companions.items()], [json.dumps({name: value})])
    from_field = read_parameters(b"", [*companions.items(), ("params", json.dumps({name: value}))])

    assert from_query == from_form == from_json == from_field
    assert from_query != read_parameters(b"", [*companions.items()])


def test_nothing_given_is_whispers_defaults_as_json() -> None:
    parameters = read_parameters(b"")

    assert parameters.options == TranscribeOptions()
    assert parameters.format is FORMATS["json"]


def test_places_add_up() -> None:
    parameters = read_parameters(
        b"language=ru", [("beam_size", "5")], ['{"format": "simple"}', '{"best_of": 2}']
    )

    assert parameters.options == TranscribeOptions(language="ru", beam_size=5, best_of=2)
    assert parameters.format is FORMATS["simple"]


@pytest.mark.parametrize(
    "query", [b"temperature=0&temperature=0.2", b"temperature[]=0&temperature[]=0.2"]
)
def test_a_repeated_name_is_a_list_where_a_list_is_taken(query: bytes) -> None:
    assert read_parameters(query).options.temperature == (0.0, 0.2)


def test_one_value_under_a_lists_name_is_a_list_of_one() -> None:
    assert read_parameters(b"temperature[]=0.2").options.temperature == (0.2,)


def test_the_same_value_twice_is_no_contradiction() -> None:
    parameters = read_parameters(
        b"temperature=0.2&language=ru",
        [("language", "ru"), ("clip_timestamps", "0,1.5")],
        ['{"temperature": 0.2, "clip_timestamps": [0, 1.5]}'],
    )

    assert parameters.options == TranscribeOptions(
        language="ru", temperature=(0.2,), clip_timestamps=(0.0, 1.5)
    )


@pytest.mark.parametrize(
    ("query", "fields", "documents"),
    [
        (b"language=ru", [("language", "en")], []),
        (b"language=ru&language=en", [], []),
        (b"", [("temperature", "0.2")], ['{"temperature": 0.4}']),
        (b"", [], ['{"temperature": 0.2}', '{"temperature": 0.4}']),
        (b"format=json", [("format", "text")], []),
        (b"", [], ['{"task": "translate", "task": "transcribe"}']),
        (b"", [("patience", "1")], []),
        (b"pcm_format=f32le", [], []),
        (b"", [("max_line_width", "42")], []),
        (b"", [("highlight_words", "true"), ("word_timestamps", "false")], []),
    ],
)
def test_what_cannot_both_hold_is_refused(
    query: bytes, fields: list[tuple[str, str]], documents: list[str]
) -> None:
    with pytest.raises(ContradictoryParameters):
        read_parameters(query, fields, documents)


def test_a_contradiction_names_both_places_and_values() -> None:
    with pytest.raises(ContradictoryParameters) as caught:
        read_parameters(b"temperature=0.2", [], ['{"temperature": [0, 1]}'])

    assert caught.value.field == "temperature"
    assert caught.value.detail == (
        "temperature is '0.2' in the query and [0, 1] in the JSON document. Give it once."
    )


def test_an_option_of_cues_that_needs_word_times_says_what_to_add() -> None:
    with pytest.raises(ContradictoryParameters) as caught:
        read_parameters(b"format=srt&max_words_per_line=5")

    assert caught.value.field == "max_words_per_line"
    assert "word_timestamps=true" in caught.value.detail


@pytest.mark.parametrize(
    ("query", "note"),
    [
        (b"format=json&max_line_width=42", "max_line_width has no effect on format json."),
        (b"format=tsv&min_cue_gap=1", "min_cue_gap has no effect on format tsv."),
        (b"format=srt&receipt=true", "receipt has no effect on format srt."),
        (b"format=srt&max_line_count=2", "max_line_count has no effect without max_line_width."),
        (b"format=lrc&highlight_words=true", "highlight_words has no effect on format lrc."),
        (
            b"format=vtt&max_line_width=42&max_line_count=2&max_words_per_line=3",
            "max_words_per_line has no effect with max_line_width and max_line_count.",
        ),
    ],
)
def test_an_option_of_cues_without_effect_is_remarked_on(query: bytes, note: str) -> None:
    parameters = read_parameters(query + b"&word_timestamps=true")

    assert parameters.without_effect() == [note]


def test_a_receipt_says_what_counted_and_what_could_not_act() -> None:
    parameters = read_parameters(b"receipt=true&min_cue_gap=0.5")

    document = json.loads(parameters.write(replace(TRANSCRIPT, parameters=EFFECTIVE)))

    assert document["parameters"]["format"] == {"value": "json", "applied": True}
    assert document["parameters"]["language"] == {"value": "ru", "applied": True}
    assert document["parameters"]["min_cue_gap"] == {
        "value": 0.5,
        "applied": False,
        "reason": "has no effect on format json.",
    }
    assert document["warnings"] == ["min_cue_gap has no effect on format json."]


def test_options_of_cues_with_effect_need_no_remark() -> None:
    query = b"format=srt&word_timestamps=true&max_line_width=42&max_line_count=2&min_cue_gap=0.1"

    assert read_parameters(query).without_effect() == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("beamsize", "beam_size"),
        ("prompt", "initial_prompt"),
        ("log_prob_threshold", "logprob_threshold"),
        ("response_format", "format"),
    ],
)
def test_an_unknown_parameter_is_named_with_the_nearest_known_one(name: str, hint: str) -> None:
    with pytest.raises(UnknownParameter) as caught:
        read_parameters(b"", [(name, "1")])

    assert caught.value.field == name
    assert f"Did you mean {hint}?" in caught.value.detail


def test_a_parameter_like_no_other_gets_no_false_hint() -> None:
    with pytest.raises(UnknownParameter) as caught:
        read_parameters(b"xyzzy=1")

    assert "Did you mean" not in caught.value.detail


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("temperature", "1e999"),
        ("temperature", "inf"),
        ("temperature", "1.5"),
        ("temperature", "warm"),
        ("temperature", "[" * 60_000),
        ("temperature", ""),
        ("beam_size", "1" * 5000),
        ("beam_size", "0"),
        ("language", "../../x"),
        ("language", "e\0n"),
        ("initial_prompt", "a\0b"),
        ("initial_prompt", "a" * 10_001),
        ("word_timestamps", "perhaps"),
        ("clip_timestamps", "5,3"),
        ("clip_timestamps", "1e308,1.7e308"),
        ("suppress_tokens", "-2"),
        ("suppress_tokens", "2000000000"),
        ("format", "exe"),
        ("format", ""),
    ],
)
def test_a_wrong_text_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read_parameters(b"", [(name, text)])

    assert caught.value.field == name
    assert caught.value.detail.startswith(f"{name} ")


@pytest.mark.parametrize(
    "document",
    [
        '{"temperature": NaN}',
        '{"temperature": Infinity}',
        '{"temperature": 1e999}',
        '{"temperature": 1' + "0" * 5000 + "}",
        '{"temperature": {"a": 1}}',
        '{"temperature": null}',
        '{"temperature": [[1]]}',
        '{"initial_prompt": "\\ud800"}',
        '{"initial_prompt": "\\u0000"}',
        '{"initial_prompt": 5}',
        '{"language": ["ru"]}',
        '{"format": ["text"]}',
        "[" * 100_000,
        "[]",
        '"language"',
        "5",
        "null",
        "{",
        "",
    ],
)
def test_a_wrong_document_is_refused(document: str) -> None:
    with pytest.raises(InvalidParameter):
        read_parameters(b"", [], [document])


def test_an_answer_names_the_value_and_what_is_allowed() -> None:
    with pytest.raises(InvalidParameter) as caught:
        read_parameters(b"beam_size=99")

    assert caught.value.detail == "beam_size '99': should be less than or equal to 16."


def test_an_answer_shows_a_long_or_unprintable_value_in_short_and_escaped() -> None:
    with pytest.raises(InvalidParameter) as caught:
        read_parameters(b"", [("language", "\r\n\u202e" + "x" * 60_000)])

    assert "'\\r\\n\\u202exx" in caught.value.detail
    assert len(caught.value.detail) < 300


def test_all_faults_of_a_request_come_in_one_answer() -> None:
    with pytest.raises(SeveralErrors) as caught:
        read_parameters(
            b"language=ru&beamsize=5",
            [("language", "en"), ("temperature", "2"), ("format", "exe")],
            ["{"],
        )

    assert [(error.code, error.field) for error in caught.value.errors] == [
        ("invalid_parameter", "params"),
        ("contradictory_parameters", "language"),
        ("unknown_parameter", "beamsize"),
        ("invalid_parameter", "format"),
        ("invalid_parameter", "temperature"),
    ]


def test_a_parameter_with_many_wrong_items_is_one_fault() -> None:
    with pytest.raises(InvalidParameter) as caught:
        read_parameters(b"temperature=a,b,c")

    assert caught.value.detail.startswith("temperature 'a': ")


@pytest.mark.parametrize(
    ("query", "documents"),
    [
        (b"&".join(b"a%d=1" % i for i in range(65)), []),
        (b"", [json.dumps({f"a{i}": 1 for i in range(65)})]),
    ],
)
def test_more_parameters_than_there_are_is_too_much(query: bytes, documents: list[str]) -> None:
    with pytest.raises(PayloadTooLarge):
        read_parameters(query, [], documents)


@pytest.mark.parametrize(
    "value", [["a"] * 250_000, "a," * 250_000, {str(i): i for i in range(2000)}]
)
def test_a_megabyte_of_items_is_refused_without_looking_at_each(value: object) -> None:
    with pytest.raises(InvalidParameter, match=r"this server takes at most (1000|65536)\."):
        read_parameters(b"", [], [json.dumps({"temperature": value})])


def test_a_query_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="UTF-8"):
        read_parameters(b"initial_prompt=%ff%fe")


def test_the_query_is_percent_decoded_as_a_form_is() -> None:
    parameters = read_parameters("initial_prompt=%D0%B4%D0%B0+да&language=".encode())

    assert parameters.options == TranscribeOptions(initial_prompt="да да")


def test_every_parameter_is_described() -> None:
    missing = [name for name, schema in parameter_schemas().items() if not schema["description"]]

    assert missing == []


texts = st.text() | st.sampled_from(
    ["NaN", "-inf", "1e999", "null", "[", "[1", "{}", "0,", ",", "\0"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=5,
)


@given(name=st.sampled_from(sorted(PARAMETERS)) | st.text(), text=texts)
def test_no_text_whatsoever_is_more_than_a_fault_of_the_request(name: str, text: str) -> None:
    assert_only_refused(lambda: read_parameters(b"", [(name, text)]))


@given(document=st.dictionaries(st.sampled_from(sorted(PARAMETERS)) | st.text(), values))
def test_no_json_whatsoever_is_more_than_a_fault_of_the_request(
    document: dict[str, object],
) -> None:
    assert_only_refused(lambda: read_parameters(b"", [], [json.dumps(document)]))


@given(query=st.binary())
def test_no_query_whatsoever_is_more_than_a_fault_of_the_request(query: bytes) -> None:
    assert_only_refused(lambda: read_parameters(query))


def assert_only_refused(read: Callable[[], object]) -> None:
    """Either it is valid, or the problem is one of the caller's, and short."""
    try:
        read()
    except RequestError as error:
        response = problem_response(error, "id")
        assert 400 <= response.status_code < 500
        assert len(response.body) <= MAX_PROBLEM_BYTES
        json.loads(bytes(response.body))
