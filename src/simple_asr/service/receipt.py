"""What counted for each parameter of a request in the end, and whether it could act at all."""

from __future__ import annotations

from collections.abc import Iterator

from simple_asr.engine.backends.base import ModelInfo
from simple_asr.engine.options import MAX_SAMPLE_LEN, TranscribeOptions
from simple_asr.engine.seek_loop import Shortcuts
from simple_asr.transcript.model import Effective


def effective_options(
    options: TranscribeOptions, *, language: str, shortcuts: Shortcuts, model: ModelInfo
) -> dict[str, Effective]:
    """Each option by name, with the value that counted where none was given.

    `language` is the one recognised, `shortcuts` are those that were allowed.
    """
    values: dict[str, object] = options.model_dump()
    values["language"] = language
    values["speedup"] = shortcuts.speedup
    values["audio_context"] = "auto" if shortcuts.reduces_context else "full"
    values["keep_when_all_fail"] = "best" if options.keeps_best_failure else "last"
    values["skip_non_speech"] = options.skips_non_speech
    values["sample_len"] = options.sample_len or MAX_SAMPLE_LEN
    reasons = dict(_reasons(options, model))
    return {name: Effective(value, reasons.get(name, "")) for name, value in values.items()}


def _reasons(options: TranscribeOptions, model: ModelInfo) -> Iterator[tuple[str, str]]:
    """The options that cannot act, each with the reason."""
    if not any(options.temperature):
        yield "best_of", "It is for temperatures above 0."
    if 0 not in options.temperature:
        yield "beam_size", "It is for temperature 0."
    searches_beams = options.beam_size is not None and 0 in options.temperature
    if not searches_beams:
        yield "patience", "It needs beam_size, at temperature 0."
    if not searches_beams and not (options.best_of and any(options.temperature)):
        yield "length_penalty", "It ranks hypotheses, and there is one."
    if not options.word_timestamps:
        needs_words = "It needs word_timestamps."
        yield "prepend_punctuations", needs_words
        yield "append_punctuations", needs_words
        yield "hallucination_silence_threshold", needs_words
    if not options.initial_prompt:
        yield "carry_initial_prompt", "It needs initial_prompt."
    if options.without_timestamps:
        yield "max_initial_timestamp", "There are no timestamps."
    if not model.is_multilingual:
        yield "task", "The model is English-only."
        yield "language", "The model is English-only."
    yield "fp16", f"The server's COMPUTE_TYPE decides: {model.compute_type}."
    yield "verbose", "It prints to a console in openai-whisper."
