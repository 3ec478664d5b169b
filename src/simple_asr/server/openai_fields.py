"""Reads the fields of OpenAI's audio API, and hands them to the one reader under our names.

What is not OpenAI's is ours: every parameter of POST /transcribe may come as an extra field.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from simple_asr.engine.options import MAX_PAUSE
from simple_asr.errors import InvalidParameter
from simple_asr.fields import null_from_text
from simple_asr.server.flags import read_flag
from simple_asr.service.labels import label, value_label
from simple_asr.service.parameters import TranscribeParameters, query_pairs, read_parameters

Task = Literal["transcribe", "translate"]

# What OpenAI calls a parameter of ours. Of formats, `json` is our `simple` with more beside it.
OUR_NAMES = {"prompt": "initial_prompt", "response_format": "format"}
OPENAI_NAMES = {
    **{ours: theirs for theirs, ours in OUR_NAMES.items()},
    "audio_file": "file",
    "word_timestamps": "timestamp_granularities[]",
}
RESPONSE_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
STREAMED_FORMATS = ("json", "text", "verbose_json")
SPEAKER_FIELDS = ("known_speaker_names", "known_speaker_references")
GRANULARITIES = ("word", "segment")


class _VadMember(NamedTuple):
    """What a member of `server_vad` is here; `most` is in its own unit, `unit` is that in ours."""

    name: str
    most: float
    unit: float = 1.0


VAD_MEMBERS = {
    "threshold": _VadMember("vad_threshold", most=1),
    "prefix_padding_ms": _VadMember("vad_padding", most=MAX_PAUSE * 1000, unit=0.001),
    "silence_duration_ms": _VadMember("vad_min_silence", most=MAX_PAUSE * 1000, unit=0.001),
}


@dataclass(frozen=True, slots=True)
class AudioRequest:
    """What a request under `/v1/audio` asks for.

    `model` is None where none was named. `warnings` are sentences on what has no effect.
    `is_background` where it is to be a job.
    """

    model: str | None
    response_format: str
    parameters: TranscribeParameters
    is_stream: bool
    has_segments: bool
    has_words: bool
    has_logprobs: bool
    warnings: tuple[str, ...]
    is_background: bool

    @property
    def shape(self) -> str:
        """What an answer is to hold that `parameters` do not say, as JSON."""
        return json.dumps({name: getattr(self, name) for name in SHAPE})

    @classmethod
    def of_job(cls, parameters: TranscribeParameters, shape: str) -> AudioRequest:
        """The request that became a job, as far as its answer goes."""
        return cls(
            model=parameters.options.model,
            parameters=parameters,
            is_stream=False,
            warnings=tuple(parameters.without_effect()),
            is_background=True,
            **json.loads(shape),
        )


SHAPE = ("response_format", "has_segments", "has_words", "has_logprobs")


def read_audio_request(
    query: bytes,
    fields: Sequence[tuple[str, str]],
    documents: Sequence[str],
    task: Task,
) -> AudioRequest:
    """The request, all of it checked. Raises what `read_parameters` raises."""
    given = _Fields([*query_pairs(query), *fields])
    response_format = _response_format(given)
    granularities = _granularities(given, response_format)
    has_logprobs = _includes_logprobs(given, response_format)
    if given.all("format"):
        raise InvalidParameter("format is called response_format here.", field="response_format")
    for name in SPEAKER_FIELDS:
        if given.all(name):
            raise speakers_unknown(name)
    ours = [
        ("task", task),
        ("format", "simple" if response_format == "json" else response_format),
        *_prompt(given),
        *_temperature(given),
        *_chunking(given),
        *_languages(given),
    ]
    if "word" in granularities or has_logprobs:
        ours.append(("word_timestamps", "true"))
    is_stream = _stream(given, response_format)
    is_background = _background(given, is_stream=is_stream)
    model = (given.one("model") or "").strip()
    if model:
        ours.append(("model", model))
    also = ("webhook_url",) if is_background else ()
    parameters = read_parameters(b"", [*ours, *given.rest()], documents, also=also)
    return AudioRequest(
        model=parameters.options.model,
        response_format=response_format,
        parameters=parameters,
        is_stream=is_stream,
        has_segments=granularities != {"word"},
        has_words="word" in granularities
        or (not granularities and parameters.options.word_timestamps),
        has_logprobs=has_logprobs,
        warnings=tuple(parameters.without_effect()),
        is_background=is_background,
    )


@dataclass(slots=True)
class _Fields:
    """The fields not read yet, as they came: lists as a repeated name, with `[]` or without."""

    pairs: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        """Takes every value of a name."""
        names = (name, f"{name}[]")
        values = [value for key, value in self.pairs if key in names]
        self.pairs = [(key, value) for key, value in self.pairs if key not in names]
        return values

    def one(self, name: str) -> str | None:
        """Takes the only value of a name. Raises InvalidParameter when there are two."""
        values = self.all(name)
        if len(set(values)) > 1:
            raise InvalidParameter(
                f"{name} came with {len(values)} values, and one is expected.", field=name
            )
        return values[0] if values else None

    def members(self, name: str) -> dict[str, str]:
        """Takes the members of an object, as the SDK sends them: `name[member]`."""
        start, end = f"{name}[", "]"
        members = {
            key[len(start) : -len(end)]: value
            for key, value in self.pairs
            if key.startswith(start) and key.endswith(end) and key != f"{name}[]"
        }
        taken = {f"{start}{member}{end}" for member in members}
        self.pairs = [(key, value) for key, value in self.pairs if key not in taken]
        return members

    def rest(self) -> list[tuple[str, str]]:
        """What nobody took: parameters of ours."""
        return self.pairs


def _response_format(given: _Fields) -> str:
    value = (given.one("response_format") or "json").strip()
    if value == "diarized_json":
        raise InvalidParameter(
            "response_format 'diarized_json': this server does not tell speakers apart. Use "
            f"{', '.join(RESPONSE_FORMATS)}.",
            field="response_format",
        )
    _check_choice("response_format", value, RESPONSE_FORMATS)
    return value


def _granularities(given: _Fields, response_format: str) -> set[str]:
    values = given.all("timestamp_granularities")
    granularities = {item.strip() for value in values for item in value.split(",") if item.strip()}
    for granularity in sorted(granularities):
        _check_choice("timestamp_granularities[]", granularity, GRANULARITIES)
    if "word" in granularities and response_format != "verbose_json":
        raise InvalidParameter(
            f"timestamp_granularities[] 'word' goes with response_format verbose_json, not with "
            f"{response_format}. Set response_format, or leave it out.",
            field="timestamp_granularities[]",
        )
    return granularities


def _includes_logprobs(given: _Fields, response_format: str) -> bool:
    values = [value.strip() for value in given.all("include") if value.strip()]
    for value in values:
        _check_choice("include[]", value, ("logprobs",))
    if values and response_format != "json":
        raise InvalidParameter(
            f"include[] 'logprobs' goes with response_format json, not with {response_format}.",
            field="include[]",
        )
    return bool(values)


def speakers_unknown(name: str) -> InvalidParameter:
    """Why no field about speakers is taken."""
    return InvalidParameter(
        f"{name}: this server does not tell speakers apart. Leave it out.", field=f"{name}[]"
    )


def _stream(given: _Fields, response_format: str) -> bool:
    is_stream = read_flag("stream", given.one("stream") or "")
    if is_stream and response_format not in STREAMED_FORMATS:
        raise InvalidParameter(
            f"stream goes with response_format {', '.join(STREAMED_FORMATS)}, not with "
            f"{response_format}: a subtitle file is written when all of it is known.",
            field="stream",
        )
    return is_stream


def _background(given: _Fields, *, is_stream: bool) -> bool:
    is_background = read_flag("background", given.one("background") or "")
    if is_background and is_stream:
        raise InvalidParameter(
            "stream goes with an answer that is waited for, not with background: a job tells its "
            "events at GET /jobs/{id}/events. Leave one of them out.",
            field="stream",
        )
    return is_background


def _prompt(given: _Fields) -> Iterable[tuple[str, str]]:
    """Keywords stand before the prompt, and every window is given both.

    faster-whisper gives its `hotwords` to every window in the same place.
    """
    prompt = given.one("prompt")
    keywords = [keyword.strip() for keyword in given.all("keywords") if keyword.strip()]
    if keywords:
        said = [", ".join(keywords), *([prompt] if prompt else [])]
        return [("initial_prompt", ". ".join(said)), ("carry_initial_prompt", "true")]
    return [("initial_prompt", prompt)] if prompt else []


def _temperature(given: _Fields) -> Iterable[tuple[str, str]]:
    """0 is the whole ladder: "the model will use log probability to automatically increase it"."""
    values = [value for value in given.all("temperature") if value.strip()]
    if len(values) == 1 and _is_zero(values[0]):
        return []
    return [("temperature", value) for value in values]


def _is_zero(value: str) -> bool:
    try:
        return float(value) == 0
    except ValueError:
        return False


def _languages(given: _Fields) -> Iterable[tuple[str, str]]:
    return [("languages[]", value) for value in given.all("languages") if value.strip()]


def _chunking(given: _Fields) -> Iterable[tuple[str, str]]:
    """`auto`, or an object of type `server_vad`: as members, or as JSON."""
    members: dict[str, object] = {**given.members("chunking_strategy")}
    value = (given.one("chunking_strategy") or "").strip()
    if value.startswith("{"):
        members = {**members, **_json_object(value)}
    elif not members:
        return [("chunking_strategy", value)] if null_from_text(value) is not None else []
    _check_choice("chunking_strategy[type]", str(members.pop("type", "")), ("server_vad",))
    rules = (
        _vad_rule(name, value)
        for name, value in members.items()
        if null_from_text(value) is not None
    )
    return [("chunking_strategy", "auto"), *rules]


def _json_object(text: str) -> dict[str, object]:
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise InvalidParameter(
            f"chunking_strategy {value_label(text)}: should be auto, or a JSON object.",
            field="chunking_strategy",
        )
    return members


def _vad_rule(name: str, value: object) -> tuple[str, str]:
    """A member of `server_vad` as a parameter of ours, in its unit."""
    shown = f"chunking_strategy[{label(name)}]"
    if name not in VAD_MEMBERS:
        raise InvalidParameter(
            f"{shown}: should be one of type, {', '.join(VAD_MEMBERS)}.", field=shown
        )
    member = VAD_MEMBERS[name]
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number <= member.most:
        raise InvalidParameter(
            f"{shown} {value_label(value)}: should be a number from 0 to {member.most:g}.",
            field=shown,
        )
    return member.name, f"{number * member.unit:.6g}"


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidParameter(
            f"{name} {value_label(value)}: should be one of {', '.join(choices)}.", field=name
        )
