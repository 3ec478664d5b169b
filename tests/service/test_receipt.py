"""What counted for each option, and which could not act."""

from __future__ import annotations

import pytest

from simple_asr.engine.backends.base import ModelInfo
from simple_asr.engine.options import TEMPERATURE_LADDER, TranscribeOptions
from simple_asr.engine.seek_loop import Shortcuts
from simple_asr.service.receipt import effective_options
from simple_asr.transcript.model import Effective

MODEL = ModelInfo("base", is_multilingual=True, n_mels=80, device="cpu", compute_type="int8")


def receipt(options: dict[str, object], model: ModelInfo = MODEL) -> dict[str, Effective]:
    return effective_options(
        TranscribeOptions.model_validate(options),
        language="ru",
        shortcuts=Shortcuts(speedup=1.25),
        model=model,
    )


def test_every_option_is_in_it() -> None:
    assert list(receipt({})) == list(TranscribeOptions.model_fields)


def test_what_was_not_given_has_the_value_that_counted() -> None:
    found = receipt({})

    assert found["model"] == Effective("base")
    assert found["language"] == Effective("ru")
    assert found["temperature"] == Effective(TEMPERATURE_LADDER)
    assert found["speedup"] == Effective(1.25)
    assert found["audio_context"] == Effective("full")
    assert found["keep_when_all_fail"] == Effective("best")
    assert found["sample_len"] == Effective(224)


@pytest.mark.parametrize(
    ("options", "idle"),
    [
        ({"temperature": 0}, {"best_of"}),
        ({"temperature": 0.5}, {"beam_size", "patience"}),
        ({}, {"length_penalty", "patience"}),
        ({}, {"prepend_punctuations", "append_punctuations", "hallucination_silence_threshold"}),
        ({}, {"carry_initial_prompt", "fp16", "verbose"}),
        ({"language": "ru", "languages": ["ru", "en"]}, {"languages"}),
        ({"without_timestamps": True}, {"max_initial_timestamp"}),
        ({}, {"vad_threshold", "vad_min_speech", "vad_min_silence", "vad_padding"}),
        ({"early_start": True, "channels": "split"}, {"early_start"}),
    ],
)
def test_an_option_that_cannot_act_says_why(options: dict[str, object], idle: set[str]) -> None:
    found = receipt(options)

    assert all(found[name].not_applied for name in idle)


@pytest.mark.parametrize(
    ("options", "acting"),
    [
        ({"beam_size": 5, "patience": 2}, {"beam_size", "patience", "length_penalty"}),
        ({"best_of": 5}, {"best_of", "length_penalty"}),
        ({"word_timestamps": True}, {"prepend_punctuations", "hallucination_silence_threshold"}),
        ({"initial_prompt": "AI", "carry_initial_prompt": True}, {"carry_initial_prompt"}),
        ({"chunking_strategy": "auto"}, {"vad_threshold", "vad_min_silence", "vad_padding"}),
        ({"early_start": True}, {"early_start"}),
        ({}, {"max_initial_timestamp", "task", "language", "temperature"}),
    ],
)
def test_an_option_that_can_act_is_applied(options: dict[str, object], acting: set[str]) -> None:
    found = receipt(options)

    assert not any(found[name].not_applied for name in acting)


def test_an_english_only_model_heeds_neither_language_nor_task() -> None:
    english = ModelInfo("tiny.en", False, 80, "cpu", "int8")

    found = receipt({"language": "ru", "task": "translate"}, english)

    assert found["language"].not_applied
    assert found["task"].not_applied
