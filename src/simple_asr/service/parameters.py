"""The one reader of parameters: query, form fields and JSON documents, to TranscribeParameters.

All faults of a request are found before it is answered. What a parameter means is the business of
`engine/options.py` and `transcript/cues.py`.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from simple_asr.engine.options import MAX_LIST_ITEMS, TranscribeOptions
from simple_asr.errors import (
    ContradictoryParameters,
    InvalidParameter,
    PayloadTooLarge,
    RequestError,
    SeveralErrors,
    UnknownParameter,
)
from simple_asr.service.labels import label, value_label
from simple_asr.transcript.cues import CueOptions
from simple_asr.transcript.formats import FORMATS, Format, WritingOptions, receipt
from simple_asr.transcript.model import Effective, Transcript

OptionsModel = TypeVar("OptionsModel", bound=BaseModel)

# The fields of a form that hold the media, and a JSON document of parameters.
FILE_FIELDS = ("audio_file", "file")
PARAMS_FIELD = "params"
DEFAULT_FORMAT = "json"
# As many as a form may have fields: there is no use for more.
MAX_PARAMETERS = 64
MAX_TEXT_CHARACTERS = 64 * 1024
MAX_FAULTS = 10
# What a parameter is called elsewhere: the OpenAI API, faster-whisper.
OTHER_NAMES = {
    "prompt": "initial_prompt",
    "log_prob_threshold": "logprob_threshold",
    "response_format": "format",
    "max_new_tokens": "sample_len",
}
# pydantic's words for these speak of Python.
WORDING = {
    "tuple_type": "should be a number, or a list of numbers",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "too_short": "should hold at least one number",
}


@dataclass(frozen=True, slots=True)
class TranscribeParameters:
    """What one request asks for, and how it wants it written.

    `audio_url` is where the recording is, where no file came with the request; `webhook_url` is
    told of the end of a job.
    """

    options: TranscribeOptions
    format: Format
    writing: WritingOptions
    audio_url: str | None = None
    webhook_url: str | None = None
    audio_urls: tuple[str, ...] = ()

    def write(self, transcript: Transcript) -> str:
        """The transcript as it was asked for."""
        return self.format.write(self._with_writing(transcript), self.writing)

    def receipt(self, transcript: Transcript) -> dict[str, object]:
        """What stands in a JSON answer beside its result, where that is asked for."""
        return receipt(self._with_writing(transcript)) if self.writing.receipt else {}

    def _with_writing(self, transcript: Transcript) -> Transcript:
        """What a receipt tells of how the transcript is written."""
        unused = self._unused()
        return replace(
            transcript,
            warnings=(*transcript.warnings, *self.without_effect()),
            parameters={
                "format": Effective(self.format.name),
                **transcript.parameters,
                **{name: Effective(value, unused.get(name, "")) for name, value in self.writing},
            },
        )

    def without_effect(self) -> list[str]:
        """A sentence for each option of writing that cannot change what is written.

        Of the options of recognition, the transcriber tells.
        """
        given = self.writing.given
        return [f"{name} {reason}" for name, reason in self._unused().items() if name in given]

    def _unused(self) -> dict[str, str]:
        """The options of writing that cannot act, each with what it has no effect on."""
        here = f"has no effect on format {self.format.name}."
        cues = self.writing
        if self.format.is_json:
            return dict.fromkeys(CueOptions.model_fields, here)
        if not self.format.has_cues:
            return dict.fromkeys(WritingOptions.model_fields, here)
        unused = {"receipt": here}
        if cues.max_line_width is None:
            unused["max_line_count"] = "has no effect without max_line_width."
        elif cues.max_line_count is not None:
            unused["max_words_per_line"] = "has no effect with max_line_width and max_line_count."
        if self.format.name == "lrc":
            unused["highlight_words"] = here
        return unused


@dataclass(frozen=True, slots=True)
class _Given:
    """A parameter as it came. `value` is text, unless it stood in a JSON document."""

    name: str
    value: object
    place: str


class _Faults(list[RequestError]):
    """All that is wrong with one request, in the order found."""

    @contextmanager
    def collected(self) -> Iterator[None]:
        try:
            yield
        except RequestError as fault:
            self.append(fault)


def parameter_schemas() -> dict[str, dict[str, Any]]:
    """Every parameter's JSON schema by name, `format` first: what OpenAPI and the docs list."""
    format_schema = {
        "type": "string",
        "enum": list(FORMATS),
        "default": DEFAULT_FORMAT,
        "description": "How the transcript is written: "
        + "; ".join(f"`{row.name}`: {row.meaning}" for row in FORMATS.values())
        + ".",
    }
    return {
        "format": format_schema,
        **TranscribeOptions.model_json_schema()["properties"],
        **WritingOptions.model_json_schema()["properties"],
    }


PARAMETERS = frozenset(parameter_schemas())
# What some routes take besides, as text; the others refuse it.
REQUEST_PARAMETERS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "audio_url": {
            "type": "string",
            "format": "uri",
            "description": "Address of the recording, with `https://` or `http://`, instead of a "
            "file; where the server takes any (`AUDIO_URLS`).",
        },
        "audio_urls": {
            "type": "array",
            "items": {"type": "string", "format": "uri"},
            "description": "Addresses of recordings, each for a job of its own; where the server "
            "takes any (`AUDIO_URLS`).",
        },
        "webhook_url": {
            "type": "string",
            "format": "uri",
            "description": "Address that is told of the job's end by a signed POST; where the "
            "server sends any (`WEBHOOK_SECRET`).",
        },
    }
)
LIST_PARAMETERS = frozenset(
    name
    for name, schema in {**parameter_schemas(), **REQUEST_PARAMETERS}.items()
    if schema.get("type") == "array"
)


def read_parameters(
    query: bytes,
    fields: Sequence[tuple[str, str]] = (),
    documents: Sequence[str] = (),
    *,
    fields_place: str = "the form",
    defaults: Mapping[str, str] = MappingProxyType({}),
    also: Collection[str] = (),
) -> TranscribeParameters:
    """The parameters of one request, from wherever they stand.

    `fields_place` is what errors call the place of `fields`, names and values both as text;
    `defaults` count as given where a name stands nowhere; of REQUEST_PARAMETERS, those in `also`
    are taken.
    Raises UnknownParameter, InvalidParameter, ContradictoryParameters, PayloadTooLarge; several
    faults together as SeveralErrors.
    """
    faults = _Faults()
    given = list(_all_given(query, fields, documents, faults, fields_place))
    values = {**defaults, **_merged(given, faults, also)}
    for_request = {
        name: _for_request(name, values.pop(name), faults) for name in {*also} & {*values}
    }
    format_ = _format(values.pop("format", DEFAULT_FORMAT), faults)
    for_writing = {name: values.pop(name) for name in WritingOptions.model_fields if name in values}
    options = _validated(TranscribeOptions, values, faults)
    writing = _validated(WritingOptions, for_writing, faults)
    if options is not None and writing is not None and not options.word_timestamps:
        faults.extend(map(_needs_words, writing.needing_words))
    if faults:
        raise faults[0] if len(faults) == 1 else SeveralErrors(faults[:MAX_FAULTS])
    assert options is not None, "options that are not valid are a fault"
    assert writing is not None, "options that are not valid are a fault"
    assert format_ is not None, "a format that is not known is a fault"
    return TranscribeParameters(options, format_, writing, **for_request)  # type: ignore[arg-type]  # by name


# What was given ---------------------------------------------------------------------------------


def _all_given(
    query: bytes,
    fields: Sequence[tuple[str, str]],
    documents: Sequence[str],
    faults: _Faults,
    fields_place: str,
) -> Iterator[_Given]:
    in_query = [_Given(name, value, "the query") for name, value in query_pairs(query)]
    in_form = [_Given(name, value, fields_place) for name, value in fields]
    for given in [*in_query, *in_form]:
        if given.name == PARAMS_FIELD:
            documents = [*documents, str(given.value)]
        else:
            yield given
    for number, document in enumerate(documents, start=1):
        place = f"JSON document {number}" if len(documents) > 1 else "the JSON document"
        with faults.collected():
            yield from _document_members(document, place)


def query_pairs(query: bytes) -> list[tuple[str, str]]:
    """Names and values of a query. Raises PayloadTooLarge, InvalidParameter."""
    text = query.decode("latin-1")  # One character a byte, so that UTF-8 can be checked below.
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, encoding="latin-1", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise PayloadTooLarge(
            f"The query has more than {MAX_PARAMETERS} parameters, the most this server takes."
        ) from None
    try:
        return [(_utf8(name), _utf8(value)) for name, value in pairs]
    except UnicodeDecodeError:
        raise InvalidParameter("The query is not UTF-8. Percent-encode text as UTF-8.") from None


def _utf8(text: str) -> str:
    return text.encode("latin-1").decode("utf-8")


def _document_members(document: str, place: str) -> list[_Given]:
    try:
        members = json.loads(
            document, parse_constant=_refuse_constant, object_pairs_hook=_unique_members
        )
    except (ValueError, RecursionError):
        raise InvalidParameter(
            "params is not a JSON document. Check quotes and commas; NaN, Infinity and numbers of "
            "thousands of digits are not taken.",
            field=PARAMS_FIELD,
        ) from None
    if not isinstance(members, dict):
        raise InvalidParameter(
            f"params {value_label(members)}: should be a JSON object of parameters, such as "
            '{"language": "en"}.',
            field=PARAMS_FIELD,
        )
    if len(members) > MAX_PARAMETERS:
        raise PayloadTooLarge(
            f"params has {len(members)} members; this server takes at most {MAX_PARAMETERS}.",
            field=PARAMS_FIELD,
        )
    return [_Given(name, value, place) for name, value in members.items()]


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ContradictoryParameters(
            f"{label(twice)} stands twice in the JSON document. Give it once.", field=label(twice)
        )
    return members


# One value for each name ------------------------------------------------------------------------


def _merged(given: Iterable[_Given], faults: _Faults, also: Collection[str]) -> dict[str, object]:
    """One value by name; a fault for each name that is unknown or has two values."""
    by_name: dict[str, list[_Given]] = {}
    for one in given:
        by_name.setdefault(one.name.removesuffix("[]"), []).append(one)
    values: dict[str, object] = {}
    for name, occurrences in by_name.items():
        with faults.collected():
            _check_name(name, also)
            values[name] = _one_value(name, occurrences)
        if len(faults) >= MAX_FAULTS:
            break
    return values


def _check_name(name: str, also: Collection[str]) -> None:
    if name in PARAMETERS or name in also:
        return
    shown = label(name)
    if name in REQUEST_PARAMETERS:
        raise UnknownParameter(
            f"{name} is not taken here. GET /openapi.json says which paths take it.", field=name
        )
    if name in FILE_FIELDS:
        raise UnknownParameter(
            f"{shown} is the audio, not a parameter. Send it as a file: with curl, put an @ before "
            f"the path, as in -F {shown}=@clip.wav.",
            field=shown,
        )
    nearest = OTHER_NAMES.get(name) or next(
        iter(difflib.get_close_matches(shown, sorted(PARAMETERS), n=1)), None
    )
    hint = f"Did you mean {nearest}?" if nearest else "GET /openapi.json lists all parameters."
    raise UnknownParameter(f"There is no parameter {shown}. {hint}", field=shown)


def _one_value(name: str, occurrences: list[_Given]) -> object:
    for given in occurrences:
        _check_size(name, given.value)
    by_place: dict[str, list[_Given]] = {}
    for given in occurrences:
        by_place.setdefault(given.place, []).append(given)
    if name in LIST_PARAMETERS:
        candidates = [_listed(given_there) for given_there in by_place.values()]
    else:
        candidates = occurrences
    first = candidates[0]
    for other in candidates[1:]:
        if _as_text(other.value) != _as_text(first.value):
            raise ContradictoryParameters(
                f"{name} is {value_label(first.value)} in {first.place} and "
                f"{value_label(other.value)} in {other.place}. Give it once.",
                field=name,
            )
    return first.value


def _listed(given: list[_Given]) -> _Given:
    """A name that is repeated in one place, or ends in `[]`, is a list: `temperature=0&…=0.2`."""
    if len(given) == 1 and not given[0].name.endswith("[]"):
        return given[0]
    return _Given(given[0].name, [one.value for one in given], given[0].place)


def _as_text(value: object) -> str:
    """The same value from JSON and from a form compares equal: 0.2 and `0.2`, [0, 1] and `0,1`."""
    if isinstance(value, list):
        return ",".join(_as_text(item) for item in value)
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _check_size(name: str, value: object) -> None:
    """Before anything walks over it: a megabyte of list items takes seconds to refuse one by one.

    Raises InvalidParameter.
    """
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS:
        raise InvalidParameter(
            f"{name} has {len(value)} characters; this server takes at most {MAX_TEXT_CHARACTERS}.",
            field=name,
        )
    if isinstance(value, (list, dict)) and len(value) > MAX_LIST_ITEMS:
        raise InvalidParameter(
            f"{name} has {len(value)} items; this server takes at most {MAX_LIST_ITEMS}.",
            field=name,
        )
    if isinstance(value, str) and "\0" in value:
        raise InvalidParameter(
            f"{name} {value_label(value)}: holds a NUL character. Leave it out.", field=name
        )


# What the values are -----------------------------------------------------------------------------


def _format(value: object, faults: _Faults) -> Format | None:
    if isinstance(value, str) and value.strip() in FORMATS:
        return FORMATS[value.strip()]
    faults.append(
        InvalidParameter(
            f"format {value_label(value)}: should be one of {', '.join(FORMATS)}.", field="format"
        )
    )
    return None


def _for_request(name: str, value: object, faults: _Faults) -> str | tuple[str, ...] | None:
    """Text, or where the name stands for a list, texts."""
    if name not in LIST_PARAMETERS:
        return _text(name, value, faults)
    texts = [_text(name, one, faults) for one in (value if isinstance(value, list) else [value])]
    return tuple(text for text in texts if text is not None)


def _text(name: str, value: object, faults: _Faults) -> str | None:
    """The value where it is text, or null."""
    if value is not None and not isinstance(value, str):
        faults.append(InvalidParameter(f"{name} {value_label(value)}: should be text.", field=name))
        return None
    return value


def _validated(
    options: type[OptionsModel], values: dict[str, object], faults: _Faults
) -> OptionsModel | None:
    try:
        return options.model_validate(values)
    except ValidationError as error:
        by_field: dict[object, RequestError] = {}
        for detail in error.errors(include_url=False):
            # One fault a parameter: what follows from the first only confuses.
            by_field.setdefault(detail["loc"][:1], _option_fault(detail))
        faults.extend(by_field.values())
        return None


def _needs_words(name: str) -> RequestError:
    """As openai-whisper's command line refuses it."""
    return ContradictoryParameters(
        f"{name} needs the times of words. Give word_timestamps=true too, or leave {name} out.",
        field=name,
    )


def _option_fault(detail: ErrorDetails) -> RequestError:
    message = WORDING.get(detail["type"]) or (
        detail["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
    )
    if not detail["loc"]:  # Each is valid by itself, and they do not go together.
        return ContradictoryParameters(f"{message}.")
    name = str(detail["loc"][0])
    return InvalidParameter(f"{name} {value_label(detail['input'])}: {message}.", field=name)
