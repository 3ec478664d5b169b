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
    values["model"] = model.name
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
    yield from options.unused()
    if not model.is_multilingual:
        yield "task", "has no effect on an English-only model."
        yield "language", "has no effect on an English-only model."
    yield "fp16", f"is not applicable: the server's COMPUTE_TYPE decides: {model.compute_type}."
