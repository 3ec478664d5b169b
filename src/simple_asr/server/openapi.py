"""What OpenAPI cannot read off the code: bodies we take apart ourselves, and problem documents.

Everything is built from the tables the server itself uses: parameters, formats, statuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from simple_asr.server.dialects import INFERENCE, WEBSERVICE, WEBSERVICE_OURS
from simple_asr.server.intake import MEDIA_TYPES
from simple_asr.server.problems import MEDIA_TYPE as PROBLEM
from simple_asr.service.parameters import PARAMS_FIELD, REQUEST_PARAMETERS, parameter_schemas
from simple_asr.transcript.cues import CueOptions
from simple_asr.transcript.formats import FORMATS
from simple_asr.transcript.model import Segment

JsonSchema = dict[str, Any]
# As FastAPI's own annotation of `responses` has it.
Responses = dict[int | str, dict[str, Any]]

REF = "#/components/schemas/"

# What each status of an error means to the caller.
MEANINGS = {
    400: "The body or the request itself is malformed or cut short.",
    401: "No API key was sent, or more than one.",
    403: "This API key is not accepted.",
    404: "There is no such model, job or batch.",
    408: "The body came too slowly.",
    409: "It cannot be done as things are, and all stays as it was.",
    413: "The body, a field, or the decoded audio is over a limit.",
    415: "The body is of a type, or has an encoding, that is not taken.",
    422: "A parameter is unknown, wrong or contradictory, or the file holds no readable audio.",
    429: "This key has used up its quota. Try again after `Retry-After` seconds.",
    431: "Too many headers, or too long ones.",
    500: "The server or the model failed.",
    503: "The model is not ready, too much waits, or the server stops. Try again after "
    "`Retry-After` seconds.",
    504: "The request took longer than this server allows.",
    507: "The server's disk is full.",
}


def problem_responses(*statuses: int) -> Responses:
    """A problem document for each status."""
    return {
        status: {
            "description": MEANINGS[status],
            "content": {PROBLEM: {"schema": {"$ref": f"{REF}Problem"}}},
        }
        for status in statuses
    }


def event_stream(fields: dict[str, JsonSchema], description: str, example: str) -> JsonSchema:
    """The content `text/event-stream`, by the fields of each event.

    FastAPI says it so too: `itemSchema` is OpenAPI 3.2's, and 3.1 has no word for it.
    """
    event = {"type": "object", "required": ["data"], "properties": fields}
    return {"itemSchema": {**event, "description": description}, "example": example}


def _json_response(description: str, schema: JsonSchema, example: object) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": schema, "example": example}},
    }


# POST /transcribe --------------------------------------------------------------------------------


def _query_parameters(schemas: dict[str, JsonSchema]) -> list[JsonSchema]:
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.get("description", ""),
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }
        for name, schema in schemas.items()
    ]


def _request_body(also: Sequence[str]) -> JsonSchema:
    document = {"$ref": f"{REF}TranscribeParameters"}
    parameters = {**parameter_schemas(), **{name: REQUEST_PARAMETERS[name] for name in also}}
    form = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "audio_file": {
                "type": "string",
                "format": "binary",
                "description": "The file: WAV, MP3, FLAC, M4A, OGG, MP4, AVI, MKV or another "
                "common format.",
            },
            PARAMS_FIELD: {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": document,
                "description": "Parameters as one JSON document.",
                "examples": ['{"language": "ru", "format": "simple", "temperature": 0.2}'],
            },
            **parameters,
        },
    }
    by_address = {
        "type": "object",
        "required": [name for name in also if name != "webhook_url"],
        "additionalProperties": False,
        "properties": parameters,
    }
    raw = {"schema": {"type": "string", "format": "binary"}}
    media_types = ["audio/*", "video/*", *sorted(MEDIA_TYPES)]
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form},
            "application/json": {"schema": by_address},
            **dict.fromkeys(media_types, raw),
        },
    }


def _transcript_response() -> JsonSchema:
    return {
        "description": "The transcript, in the format asked for.",
        "headers": {
            "X-ASR-Model": {
                "description": "The model that was served.",
                "schema": {"type": "string"},
            },
            "X-ASR-Warnings": {
                "description": "A JSON list of sentences: options without effect, damaged media.",
                "schema": {"type": "string"},
            },
        },
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"$ref": f"{REF}WhisperResult"},
                        {"$ref": f"{REF}SimpleResult"},
                        {"$ref": f"{REF}VerboseResult"},
                    ]
                },
                "examples": {
                    "simple": {
                        "summary": FORMATS["simple"].meaning,
                        "value": {"text": "Привет, как дела?"},
                    }
                },
            },
            "text/plain": {"schema": {"type": "string"}, "example": "Привет, как дела?\n"},
            "text/event-stream": event_stream(
                {
                    "event": {"type": "string", "enum": ["progress", "segment", "done", "error"]},
                    "data": {"type": "string", "contentMediaType": "application/json"},
                },
                "For who accepts it; `done` or `error` is the last.",
                example='event: progress\ndata: {"fraction": 0.42, "seconds_done": 12.6, '
                '"duration": 30.0, "eta_seconds": 3.1}\n\n',
            ),
            **{
                row.media_type.partition(";")[0]: {"schema": {"type": "string"}}
                for row in FORMATS.values()
                if not row.media_type.startswith(("application/json", "text/plain"))
            },
        },
    }


def transcribe_operation(*also: str) -> dict[str, Any]:
    """What takes a recording and parameters, and of REQUEST_PARAMETERS those named."""
    schemas = {**parameter_schemas(), **{name: REQUEST_PARAMETERS[name] for name in also}}
    return {
        "parameters": _query_parameters(schemas),
        "requestBody": _request_body(also),
        "responses": _TRANSCRIBE_RESPONSES,
    }


_TRANSCRIBE_RESPONSES: dict[str, Any] = {
    "200": _transcript_response(),
    **{
        str(status): response
        for status, response in problem_responses(
            400, 401, 403, 404, 408, 413, 415, 422, 429, 431, 500, 503, 504, 507
        ).items()
    },
}
TRANSCRIBE_OPERATION = transcribe_operation("audio_url")

# POST /format ------------------------------------------------------------------------------------


def _writing_parameters() -> dict[str, JsonSchema]:
    schemas = parameter_schemas()
    return {name: schemas[name] for name in ("format", *CueOptions.model_fields)}


FORMAT_OPERATION: dict[str, Any] = {
    "parameters": _query_parameters(_writing_parameters()),
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"{REF}WhisperResult"}}},
    },
    "responses": {
        "200": {
            **_transcript_response(),
            "content": {
                media_type: content
                for media_type, content in _transcript_response()["content"].items()
                if media_type != "text/event-stream"
            },
        },
        **{
            str(status): response
            for status, response in problem_responses(
                401, 403, 408, 413, 415, 422, 431, 500
            ).items()
        },
    },
}

# Neighbours' dialects ----------------------------------------------------------------------------


def _dialect_operation(
    file: str,
    form: Sequence[str] = (),
    query: Sequence[str] = (),
    response: JsonSchema | None = None,
) -> dict[str, Any]:
    """A form with a file; fields and query are text, as their own documentation has them."""
    text: JsonSchema = {"type": "string"}
    media: JsonSchema = {"type": "string", "format": "binary"}
    properties = {file: media, **dict.fromkeys(form, text)}
    schema = {"type": "object", "required": [file], "properties": properties}
    return {
        "parameters": [{"name": name, "in": "query", "schema": text} for name in query],
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": schema}},
        },
        "responses": {**TRANSCRIBE_OPERATION["responses"], "200": response or ANY_TRANSCRIPT},
    }


ANY_TRANSCRIPT: JsonSchema = {
    **_transcript_response(),
    "description": "The transcript, as that server writes it.",
}
_DETECTED: JsonSchema = {
    "type": "object",
    "required": ["detected_language", "language_code", "confidence"],
    "properties": {
        "detected_language": {"type": "string", "description": "In English, as `russian`."},
        "language_code": {"type": "string"},
        "confidence": {"type": ["number", "null"], "description": "0 to 1."},
    },
}
ASR_OPERATION = _dialect_operation("audio_file", query=(*WEBSERVICE, *WEBSERVICE_OURS))
DETECT_OPERATION = _dialect_operation(
    "audio_file",
    query=("encode",),
    response=_json_response(
        "The likeliest language.",
        _DETECTED,
        {"detected_language": "russian", "language_code": "ru", "confidence": 0.98},
    ),
)
INFERENCE_OPERATION = _dialect_operation(
    "file", form=sorted({*INFERENCE, "temperature", "temperature_inc", "offset_t", "duration"})
)

# The other routes --------------------------------------------------------------------------------

_HEALTH_STATES = ["healthy", "degraded", "loading", "failed", "restarting"]
_HEALTH: JsonSchema = {
    "type": "object",
    "required": ["status", "model_loaded", "model_name"],
    "properties": {
        "status": {"type": "string", "enum": _HEALTH_STATES},
        "model_loaded": {"type": "boolean"},
        "model_name": {"type": "string", "description": "The model that is served."},
        "requested_model": {"type": "string", "description": "Where another one is served."},
    },
}

_STATUS: JsonSchema = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string"}},
}

HEALTH_RESPONSES: Responses = {
    200: _json_response(
        "Requests are answered.",
        _HEALTH,
        {"status": "healthy", "model_loaded": True, "model_name": "turbo"},
    ),
    503: _json_response(
        "The model is loading, failed to load, or hangs and is started anew.",
        _HEALTH,
        {"status": "loading", "model_loaded": False, "model_name": "turbo"},
    ),
}

LIVE_RESPONSES: Responses = {200: _json_response("Always.", _STATUS, {"status": "alive"})}

READY_RESPONSES: Responses = {
    200: _json_response("One real inference has succeeded.", _STATUS, {"status": "ready"}),
    503: _json_response(
        "Not yet (`loading`, `failed`), not now (`storage_low`: the disk is nearly full; "
        "`restarting`: the model hung), or not any more (`stopping`).",
        _STATUS,
        {"status": "loading"},
    ),
}

RELOAD_RESPONSES: Responses = {
    200: _json_response(
        "The file was taken.",
        {
            "type": "object",
            "required": ["status", "count", "message"],
            "properties": {
                "status": {"type": "string", "const": "ok"},
                "count": {"type": "integer", "description": "Keys now in force."},
                "message": {"type": "string"},
            },
        },
        {"status": "ok", "count": 2, "message": "2 API keys in force; they changed."},
    ),
    **problem_responses(401, 403, 409),
}

_MODEL_FIELDS: JsonSchema = {
    "type": "object",
    "required": ["name", "state", "bytes", "requests", "default"],
    "properties": {
        "name": {"type": "string"},
        "state": {
            "type": "string",
            "enum": ["loaded", "loading", "failed", "local", "known"],
            "description": "`local` is on this machine, `known` on the hub only.",
        },
        "bytes": {"type": "integer", "description": "Size of its files; 0 is unknown."},
        "requests": {"type": "integer", "description": "That it works on now."},
        "default": {"type": "boolean"},
    },
}
_TINY = {"name": "tiny", "state": "loading", "bytes": 75_538_270, "requests": 0, "default": False}

MODELS_RESPONSES: Responses = {
    200: _json_response(
        "The default model first.",
        {
            "type": "object",
            "required": ["models"],
            "properties": {"models": {"type": "array", "items": _MODEL_FIELDS}},
        },
        {"models": [_TINY]},
    ),
    **problem_responses(401, 403),
}
LOAD_RESPONSES: Responses = {
    200: _json_response("It is loaded.", _MODEL_FIELDS, {**_TINY, "state": "loaded"}),
    202: _json_response("It is on its way.", _MODEL_FIELDS, _TINY),
    **problem_responses(401, 403, 404, 422, 503),
}
UNLOAD_RESPONSES: Responses = {
    200: _json_response("It is not loaded.", _MODEL_FIELDS, {**_TINY, "state": "local"}),
    **problem_responses(401, 403, 404, 409),
}

METRICS_RESPONSES: Responses = {
    200: {
        "description": "Counters, gauges and histograms in Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    },
    **problem_responses(404),
}

# Schemas they all point to -----------------------------------------------------------------------


def component_schemas() -> dict[str, JsonSchema]:
    """What `$ref` in this module points to."""
    segment = TypeAdapter(Segment).json_schema(ref_template=f"{REF}{{model}}")
    return {
        **segment.pop("$defs"),
        "Segment": segment,
        "WhisperResult": {
            "type": "object",
            "description": "What `whisper.transcribe()` of openai-whisper returns.",
            "required": ["text", "segments", "language"],
            "properties": {
                "text": {"type": "string"},
                "segments": {"type": "array", "items": {"$ref": f"{REF}Segment"}},
                "language": {"type": "string"},
            },
        },
        "SimpleResult": {
            "type": "object",
            "required": ["text"],
            "properties": {"text": {"type": "string"}},
        },
        "VerboseResult": {
            "type": "object",
            "description": "OpenAI's `verbose_json`.",
            "required": ["task", "language", "duration", "text", "segments"],
            "properties": {
                "task": {"type": "string", "enum": ["transcribe", "translate"]},
                "language": {"type": "string", "description": "In English, as `russian`."},
                "duration": {"type": "number", "description": "Of the audio, in seconds."},
                "text": {"type": "string"},
                "segments": {"type": "array", "items": {"$ref": f"{REF}Segment"}},
                "words": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["word", "start", "end"],
                        "properties": {
                            "word": {"type": "string"},
                            "start": {"type": "number"},
                            "end": {"type": "number"},
                        },
                    },
                },
                "usage": {
                    "type": "object",
                    "properties": {
                        "type": {"type": "string", "const": "duration"},
                        "seconds": {"type": "integer"},
                    },
                },
            },
        },
        "TranscribeParameters": {
            "type": "object",
            "additionalProperties": False,
            "properties": parameter_schemas(),
        },
        "Problem": _problem_schema(),
    }


def _problem_schema() -> JsonSchema:
    text: JsonSchema = {"type": "string"}
    fault = {"code": text, "field": text, "detail": text}
    return {
        "type": "object",
        "description": "RFC 9457. `code` is stable and for programs, `detail` is for people.",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "code": text,
            "request_id": text,
            "field": {"type": "string", "description": "The parameter or field at fault."},
            "errors": {
                "type": "array",
                "description": "Where several things are wrong: each.",
                "items": {"type": "object", "properties": fault},
            },
        },
    }
