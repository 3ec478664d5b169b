"""Reads what clients of neighbouring servers send, and hands it to the one reader.

A row says what a field of theirs is here. What has no meaning here is named in a warning, and what
does not exist is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlencode

from simple_asr.errors import ContradictoryParameters, InvalidParameter
from simple_asr.server.flags import read_flag
from simple_asr.service.labels import value_label
from simple_asr.service.parameters import TranscribeParameters, query_pairs, read_parameters
from simple_asr.transcript.model import Transcript

Pairs = list[tuple[str, str]]
Field = Callable[[str], Pairs]
"""A field's value, as parameters of ours."""

# Temperatures closer together would be more attempts than anyone waits for.
MIN_STEP = 0.1


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
    documents: Sequence[str] = (),
    defaults: Mapping[str, str] = MappingProxyType({}),
) -> DialectRequest:
    """The request. What the dialect does not list is ours, and so are documents and `defaults`.

    Raises as `read_parameters`.
    """
    in_query = query_pairs(query)
    _refuse_contradictions([*in_query, *fields], dialect)
    idle = [name for name, _ in [*in_query, *fields] if dialect.get(name, _same(name)) is None]
    parameters = read_parameters(
        urlencode(_ours(dialect, in_query)).encode(),
        _ours(dialect, fields),
        documents,
        defaults=defaults,
    )
    remarks = [f"{name} has no effect here." for name in dict.fromkeys(idle)]
    return DialectRequest(parameters, (*parameters.without_effect(), *remarks))


def _ours(dialect: Mapping[str, Field | None], pairs: Iterable[tuple[str, str]]) -> Pairs:
    """The pairs under our names."""
    translated = ((dialect.get(name, _same(name)), value) for name, value in pairs)
    return [pair for field, value in translated if field for pair in field(value.strip())]


def _refuse_contradictions(pairs: Iterable[tuple[str, str]], names: Container[str]) -> None:
    """Under the name that was sent; of names that are ours, the one reader judges."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in names and values.setdefault(name, value.strip()) != value.strip():
            raise ContradictoryParameters(
                f"{name} is {value_label(values[name])} and {value_label(value)} in one request. "
                "Give it once.",
                field=name,
            )


# How a value is understood -----------------------------------------------------------------------


def _same(name: str) -> Field:
    return lambda value: [(name, value)]


def _flag(field: str, name: str, if_true: str) -> Field:
    return lambda value: [(name, if_true)] if read_flag(field, value) else []


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


def _milliseconds(field: str, name: str) -> Field:
    return lambda value: [(name, f"{_number(field, value) / 1000:.6g}")]


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InvalidParameter(
            f"{name} {value_label(value)}: should be a number.", field=name
        ) from None


# whisper-asr-webservice ----------------------------------------------------------------------


def _encode(value: str) -> Pairs:
    if not read_flag("encode", value):
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
    "vad_filter": _flag("vad_filter", "chunking_strategy", "auto"),
}
# What it calls as we do.
WEBSERVICE_OURS = ("task", "language", "initial_prompt", "word_timestamps")
WEBSERVICE_DEFAULTS = {"format": "text"}
# Of the first 30 seconds one token is written: the language is known before it.
DETECTION = {
    "clip_timestamps": "0,30",
    "sample_len": "1",
    "temperature": "0",
    "without_timestamps": "true",
}

# whisper.cpp ---------------------------------------------------------------------------------


_TOGETHER = frozenset({"temperature", "temperature_inc", "offset_t", "duration"})


def read_inference(
    query: bytes, fields: Sequence[tuple[str, str]], documents: Sequence[str] = ()
) -> DialectRequest:
    """A request of whisper.cpp's server, some of whose fields mean something together only."""
    in_query = query_pairs(query)
    _refuse_contradictions([*in_query, *fields], _TOGETHER)
    together = {name: value for name, value in [*in_query, *fields] if name in _TOGETHER}
    alone = urlencode([pair for pair in in_query if pair[0] not in _TOGETHER]).encode()
    fields = [pair for pair in fields if pair[0] not in _TOGETHER]
    fields = [*fields, *_ladder(together), *_clip(together)]
    return read_dialect(INFERENCE, alone, fields, documents, INFERENCE_DEFAULTS)


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


INFERENCE_DEFAULTS = {"format": "simple"}
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
    "translate": _flag("translate", "task", "translate"),
    "beam_size": _unless("beam_size", "-1"),
    "best_of": _unless("best_of", "-1"),
    "logprob_thold": _same("logprob_threshold"),
    "no_speech_thold": _same("no_speech_threshold"),
    "no_timestamps": _flag("no_timestamps", "without_timestamps", "true"),
    "token_timestamps": _flag("token_timestamps", "word_timestamps", "true"),
    "vad": _flag("vad", "chunking_strategy", "auto"),
    "vad_min_speech_duration_ms": _milliseconds("vad_min_speech_duration_ms", "vad_min_speech"),
    "vad_min_silence_duration_ms": _milliseconds("vad_min_silence_duration_ms", "vad_min_silence"),
    "vad_speech_pad_ms": _milliseconds("vad_speech_pad_ms", "vad_padding"),
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
            "vad_max_speech_duration_s",
            "vad_samples_overlap",
            "word_thold",
        )
    ),
}
