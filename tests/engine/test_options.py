"""Every parameter of whisper.transcribe(): understood from text, refused where Whisper raises."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from simple_asr.engine.options import TranscribeOptions


def test_without_parameters_the_defaults_are_whispers() -> None:
    options = TranscribeOptions()

    assert options.temperature == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert options.compression_ratio_threshold == 2.4
    assert options.logprob_threshold == -1.0
    assert options.no_speech_threshold == 0.6
    assert options.condition_on_previous_text is True
    assert options.suppress_tokens == (-1,)
    assert options.max_initial_timestamp == 1.0
    assert options.beam_size is None
    assert options.language is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "0.2", (0.2,)),
        ("temperature", "0,0.4", (0.0, 0.4)),
        ("temperature", "[0, 0.4]", (0.0, 0.4)),
        ("temperature", 0.2, (0.2,)),
        ("temperature", [0, 1], (0.0, 1.0)),
        ("language", "Russian", "ru"),
        ("language", "EN", "en"),
        ("language", "", None),
        ("languages", "Russian, en,ru", ("ru", "en")),
        ("languages", "", ()),
        ("beam_size", "5", 5),
        ("beam_size", "", None),
        ("word_timestamps", "true", True),
        ("word_timestamps", "0", False),
        ("clip_timestamps", "0,10.5,20", (0.0, 10.5, 20.0)),
        ("clip_timestamps", [1, 2], (1.0, 2.0)),
        ("clip_timestamps", "", ()),
        ("suppress_tokens", "-1,50364", (-1, 50364)),
        ("suppress_tokens", "", ()),
        ("compression_ratio_threshold", "none", None),
        ("logprob_threshold", None, None),
        ("max_initial_timestamp", "0", 0.0),
        ("max_initial_timestamp", "null", None),
        ("length_penalty", "0.6", 0.6),
        ("fp16", "", None),
        ("verbose", "null", None),
    ],
)
def test_a_parameter_is_understood(name: str, text: object, value: object) -> None:
    options = TranscribeOptions.model_validate({name: text})

    assert getattr(options, name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("language", "klingon"),
        ("task", "sing"),
        ("temperature", "warm"),
        ("temperature", "1.5"),
        ("temperature", "-0.1"),
        ("temperature", ""),
        ("temperature", float("nan")),
        ("temperature", "NaN"),
        ("temperature", "inf"),
        ("temperature", True),
        ("beam_size", 0),
        ("beam_size", 1000),
        ("beam_size", 2.5),
        ("beam_size", True),
        ("suppress_tokens", [True]),
        ("length_penalty", False),
        ("temperature", "1e-40"),
        ("best_of", "-1"),
        ("length_penalty", 1.5),
        ("compression_ratio_threshold", "1e999"),
        ("clip_timestamps", "10,5"),
        ("clip_timestamps", "-1,5"),
        ("clip_timestamps", "[1"),
        ("suppress_tokens", "-2"),
        ("sample_len", 0),
        ("sample_len", 225),
        ("max_initial_timestamp", 31),
        ("hallucination_silence_threshold", 0),
        ("initial_prompt", "word " * 10_000),
        ("speedup", 2.5),
        ("nonsense", 1),
    ],
)
def test_a_wrong_value_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as refusal:
        TranscribeOptions.model_validate({name: value})

    assert refusal.value.errors()[0]["loc"][0] == name


@pytest.mark.parametrize(
    "given",
    [
        {"patience": 1.0},
        {"patience": 0.1, "beam_size": 2},
        {"patience": 1.0, "temperature": [0, 0.2]},
    ],
)
def test_what_whisper_raises_on_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"patience|beam_size"):
        TranscribeOptions.model_validate(given)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"best_of": 5, "temperature": 0}, "best_of"),
        ({"beam_size": 5, "temperature": 0.4}, "beam_size"),
        ({"hallucination_silence_threshold": 2}, "hallucination_silence_threshold"),
        ({"carry_initial_prompt": True}, "carry_initial_prompt"),
        ({"fp16": True}, "fp16"),
        ({"patience": 2, "beam_size": None, "temperature": 0.4}, "patience"),
        ({"max_initial_timestamp": 0.5, "without_timestamps": True}, "max_initial_timestamp"),
        ({"length_penalty": 0.5}, "length_penalty"),
    ],
)
def test_what_whisper_ignores_is_named(given: dict[str, Any], named: str) -> None:
    notes = TranscribeOptions.model_validate(given).without_effect()

    assert len(notes) == 1
    assert notes[0].startswith(named)


def test_options_that_all_take_effect_are_not_remarked_on() -> None:
    options = TranscribeOptions(beam_size=5, best_of=5, patience=2, word_timestamps=True)

    assert options.without_effect() == []


@pytest.mark.parametrize(
    ("clip_timestamps", "clips"),
    [
        ((0.0,), [(0, 6000)]),
        ((), [(0, 6000)]),
        ((10.0,), [(1000, 6000)]),
        ((1.0, 2.5), [(100, 250)]),
        ((1.0, 2.5, 30.0), [(100, 250), (3000, 6000)]),
    ],
)
def test_clips_are_pairs_and_the_last_may_be_open(
    clip_timestamps: tuple[float, ...], clips: list[tuple[int, int]]
) -> None:
    options = TranscribeOptions(clip_timestamps=clip_timestamps)

    assert options.clips(content_frames=6000) == clips


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, True),
        ({"language": "en"}, True),
        ({"temperature": 0}, False),
        ({"no_speech_threshold": None}, False),
        ({"temperature": 0, "skip_non_speech": True}, True),
        ({"skip_non_speech": False}, False),
    ],
)
def test_non_speech_is_skipped_unless_the_ladder_is_set(
    given: dict[str, object], expected: bool
) -> None:
    assert TranscribeOptions.model_validate(given).skips_non_speech is expected
