"""Reads what clients of neighbouring servers send, and hands it to the one reader.

A row says what a field of theirs is here. What has no meaning here is named in a warning, and what
does not exist is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from simple_asr.errors import InvalidParameter
from simple_asr.service.labels import value_label
from simple_asr.service.parameters import TranscribeParameters, query_pairs, read_parameters
from simple_asr.transcript.model import Transcript

Pairs = list[tuple[str, str]]
Field = Callable[[str], Pairs]
"""A field's value, as parameters of ours."""

# Temperatures closer together would be more attempts than anyone waits for.
MIN_STEP = 0.1
_TRUE = frozenset({"true", "1", "yes", "on"})


@dataclass(frozen=True, slots=True)
class DialectRequest:
    """What is asked for, and a sentence for each field that has no effect."""

    parameters: TranscribeParameters
    warnings: tuple[str, ...]

    def write(self, transcript: Transcript) -> str:
        """As our format, but a text is one line for each segment, as both neighbours write it."""
        if self.parameters.format.name == "text":
            return lines(transcript)
        return self.parameters.write(transcript)


def lines(transcript: Transcript) -> str:
    """The text, a line for each segment."""
    return "".join(f"{segment.text.strip()}\n" for segment in transcript.segments)


def read_dialect(
    dialect: Mapping[str, Field | None],
    query: bytes,
    fields: Sequence[tuple[str, str]],
    defaults: Iterable[tuple[str, str]] = (),
) -> DialectRequest:
    """The request. A field that the dialect does not list is ours. Raises as `read_parameters`."""
    given = dict([*defaults, *query_pairs(query), *fields])
    ours: Pairs = []
    idle = []
    for name, value in given.items():
        translate = dialect.get(name, _same(name))
        if translate is None:
            idle.append(name)
        else:
            ours += translate(value.strip())
    parameters = read_parameters(b"", ours)
    warnings = [*parameters.without_effect(), *(f"{name} has no effect here." for name in idle)]
    return DialectRequest(parameters, tuple(warnings))


# How a value is understood -----------------------------------------------------------------------


def _same(name: str) -> Field:
    return lambda value: [(name, value)]


def _flag(name: str, if_true: str) -> Field:
    return lambda value: [(name, if_true)] if value.lower() in _TRUE else []


def _format(field: str, formats: Mapping[str, str]) -> Field:
    """By the names that formats have there."""

    def translate(value: str) -> Pairs:
        if value not in formats:
            raise InvalidParameter(
                f"{field} {value_label(value)}: should be one of {', '.join(formats)}.",
                field=field,
            )
        return [("format", formats[value])]

    return translate


def _unless(name: str, *absent: str) -> Field:
    return lambda value: [] if value in absent else [(name, value)]


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InvalidParameter(
            f"{name} {value_label(value)}: should be a number.", field=name
        ) from None


# whisper-asr-webservice ----------------------------------------------------------------------


def _encode(value: str) -> Pairs:
    if value.lower() not in _TRUE:
        raise InvalidParameter(
            "encode 'false': samples without a header are not taken. Send a file with one, as WAV.",
            field="encode",
        )
    return []


WEBSERVICE: dict[str, Field | None] = {
    "encode": _encode,
    "output": _format(
        "output", {"txt": "text", "vtt": "vtt", "srt": "srt", "tsv": "tsv", "json": "json"}
    ),
    "vad_filter": _flag("chunking_strategy", "auto"),
}
# What it calls as we do.
WEBSERVICE_OURS = ("task", "language", "initial_prompt", "word_timestamps")
WEBSERVICE_DEFAULTS = (("output", "txt"),)
# Of the first 30 seconds one token is written: the language is known before it.
DETECTION = (
    ("clip_timestamps", "0,30"),
    ("sample_len", "1"),
    ("temperature", "0"),
    ("without_timestamps", "true"),
)

# whisper.cpp ---------------------------------------------------------------------------------


def read_inference(query: bytes, fields: Sequence[tuple[str, str]]) -> DialectRequest:
    """A request of whisper.cpp's server, some of whose fields mean something together only."""
    given = dict([*query_pairs(query), *fields])
    together = {"temperature", "temperature_inc", "offset_t", "duration"}
    alone = [(name, value) for name, value in given.items() if name not in together]
    fields = [*alone, *_ladder(given), *_clip(given)]
    return read_dialect(INFERENCE, b"", fields, INFERENCE_DEFAULTS)


def _ladder(given: Mapping[str, str]) -> Pairs:
    """Temperatures from the one given, by its step, to 1."""
    if "temperature" not in given and "temperature_inc" not in given:
        return []
    first = _number("temperature", given.get("temperature", "0"))
    step = _number("temperature_inc", given.get("temperature_inc", "0.2"))
    # One out of range is refused by name further on; a ladder from it would have no end.
    if not (0 <= first <= 1 and MIN_STEP <= step <= 1):
        return [("temperature", str(first))]
    num_steps = int((1 - first) / step + 1e-6)
    ladder = [round(first + number * step, 4) for number in range(num_steps + 1)]
    return [("temperature", ",".join(map(str, ladder)))]


def _clip(given: Mapping[str, str]) -> Pairs:
    """A start and a length in milliseconds, each 0 where it is left out."""
    start = _number("offset_t", given.get("offset_t", "0")) / 1000
    length = _number("duration", given.get("duration", "0")) / 1000
    if not start and not length:
        return []
    return [("clip_timestamps", f"{start},{start + length}" if length else str(start))]


INFERENCE_DEFAULTS = (("response_format", "json"),)
INFERENCE: dict[str, Field | None] = {
    "response_format": _format(
        "response_format",
        {
            "json": "simple",
            "text": "text",
            "srt": "srt",
            "vtt": "vtt",
            "verbose_json": "verbose_json",
        },
    ),
    "prompt": _same("initial_prompt"),
    "language": _unless("language", "auto"),
    "translate": _flag("task", "translate"),
    "beam_size": _unless("beam_size", "-1"),
    "best_of": _unless("best_of", "-1"),
    "logprob_thold": _same("logprob_threshold"),
    "no_speech_thold": _same("no_speech_threshold"),
    "no_timestamps": _flag("without_timestamps", "true"),
    "token_timestamps": _flag("word_timestamps", "true"),
    "vad": _flag("chunking_strategy", "auto"),
    "max_context": lambda value: [("condition_on_previous_text", "false")] if value == "0" else [],
    **dict.fromkeys(
        (
            "audio_ctx",
            "debug_mode",
            "entropy_thold",
            "max_len",
            "no_context",
            "no_language_probabilities",
            "offset_n",
            "split_on_word",
            "suppress_nst",
            "suppress_non_speech",
            "word_thold",
        )
    ),
}
