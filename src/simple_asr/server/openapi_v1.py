"""OpenAPI's description of `/v1`: bodies and answers that FastAPI does not read off the code."""

from __future__ import annotations

from typing import Any

from simple_asr.server.openai_fields import GRANULARITIES, RESPONSE_FORMATS
from simple_asr.server.openapi import MEANINGS, REF, JsonSchema, Responses, event_stream
from simple_asr.server.openapi_jobs import ACCEPTED
from simple_asr.service.parameters import REQUEST_PARAMETERS, parameter_schemas

_TEXT: JsonSchema = {"type": "string"}
_NUMBER: JsonSchema = {"type": "number"}

# OpenAI's own fields; of ours, all but those that these stand for may come too.
FIELDS: dict[str, JsonSchema] = {
    "file": {
        "type": "string",
        "format": "binary",
        "description": "The file: flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav, webm or another "
        "common format.",
    },
    "model": {
        "type": "string",
        "description": "A name of `GET /v1/models`. Absent: the model that is served.",
        "examples": ["whisper-1"],
    },
    "prompt": {
        "type": "string",
        "description": "Text given to the first window as if it had been said before.",
    },
    "response_format": {
        "type": "string",
        "enum": list(RESPONSE_FORMATS),
        "default": "json",
        "description": "How the transcript is written. `diarized_json` is refused.",
    },
    "temperature": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0,
        "description": "0: Whisper's ladder, raised where a window fails its checks.",
    },
    "stream": {
        "type": "boolean",
        "default": False,
        "description": "Answer with server-sent events. With `json`, `text` or `verbose_json`.",
    },
    "background": {
        "type": "boolean",
        "default": False,
        "description": "Ours: answer 202 with a job, whose result is what would have been answered "
        "without it. Not with `stream`.",
    },
    "webhook_url": {
        **REQUEST_PARAMETERS["webhook_url"],
        "description": "Ours, with `background`: address that is told of the job's end.",
    },
}
TRANSCRIPTION_FIELDS: dict[str, JsonSchema] = {
    **FIELDS,
    "language": {"type": "string", "description": "Language of the speech, as a code."},
    "languages[]": {
        "type": "array",
        "items": _TEXT,
        "description": "Languages the speech may be in.",
    },
    "keywords[]": {
        "type": "array",
        "items": _TEXT,
        "description": "Words to expect, given to every window before `prompt`.",
    },
    "timestamp_granularities[]": {
        "type": "array",
        "items": {"type": "string", "enum": list(GRANULARITIES)},
        "default": ["segment"],
        "description": "With `verbose_json`: what has times. `word` needs `verbose_json`.",
    },
    "include[]": {
        "type": "array",
        "items": {"type": "string", "enum": ["logprobs"]},
        "description": "With `json`: log-probabilities, of words.",
    },
    "chunking_strategy": {
        "type": "string",
        "description": "`auto`, or a JSON object of type `server_vad`, with `threshold`, "
        "`prefix_padding_ms`, `silence_duration_ms`: cut at pauses, by voice activity.",
        "examples": ["auto", '{"type": "server_vad", "threshold": 0.6}'],
    },
}

_USAGE: JsonSchema = {
    "type": "object",
    "required": ["type", "seconds"],
    "properties": {
        "type": {"type": "string", "const": "duration"},
        "seconds": {"type": "integer", "description": "Of audio, rounded up."},
    },
}
_LOGPROB: JsonSchema = {
    "type": "object",
    "required": ["token", "logprob", "bytes"],
    "properties": {
        "token": {"type": "string", "description": "A word."},
        "logprob": _NUMBER,
        "bytes": {"type": "array", "items": {"type": "integer"}, "description": "Its UTF-8."},
    },
}
_TRANSCRIPTION: JsonSchema = {
    "type": "object",
    "required": ["text"],
    "properties": {
        "text": _TEXT,
        "usage": _USAGE,
        "languages": {
            "type": "array",
            "items": {"type": "object", "required": ["code"], "properties": {"code": _TEXT}},
        },
        "logprobs": {"type": "array", "items": _LOGPROB},
    },
}
_ERROR: JsonSchema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": _TEXT,
                "type": {
                    "type": "string",
                    "enum": ["invalid_request_error", "rate_limit_error", "server_error"],
                },
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_MODEL: JsonSchema = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {
        "id": _TEXT,
        "object": {"type": "string", "const": "model"},
        "created": {"type": "integer"},
        "owned_by": _TEXT,
    },
}
_MEANINGS = {
    **MEANINGS,
    400: "A field is unknown, wrong or contradictory, the body is malformed, or the file holds no "
    "readable audio.",
    401: "No API key was sent, or it is not accepted.",
    404: "There is no such model.",
}


def _errors(*statuses: int) -> Responses:
    schema = {"$ref": f"{REF}OpenAIError"}
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {"application/json": {"schema": schema}},
        }
        for status in statuses
    }


def _operation(fields: dict[str, JsonSchema]) -> dict[str, Any]:
    replaced = {"format", "initial_prompt", "word_timestamps", "languages", *fields}
    ours = {name: row for name, row in parameter_schemas().items() if name not in replaced}
    form = {"type": "object", "required": ["file"], "properties": {**fields, **ours}}
    documents = [{"$ref": f"{REF}Transcription"}, {"$ref": f"{REF}VerboseResult"}]
    plain = {"schema": _TEXT}
    errors = _errors(400, 401, 404, 408, 409, 413, 415, 429, 431, 500, 503, 504, 507)
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}},
        },
        "responses": {
            "200": {
                "description": "The transcript, as `response_format` and `stream` ask for it.",
                "content": {
                    "application/json": {
                        "schema": {"anyOf": documents},
                        "example": {
                            "text": "Привет, как дела?",
                            "usage": {"type": "duration", "seconds": 3},
                        },
                    },
                    "text/plain": plain,
                    "application/x-subrip": plain,
                    "text/vtt": plain,
                    "text/event-stream": event_stream(
                        {"data": _TEXT},
                        "JSON of type `transcript.text.delta`, and at the end of type "
                        "`transcript.text.done`; then `[DONE]`.",
                        example='data: {"type": "transcript.text.delta", "delta": "Привет,"}\n\n',
                    ),
                },
            },
            "202": ACCEPTED,
            **{str(status): response for status, response in errors.items()},
        },
    }


TRANSCRIPTIONS_OPERATION = _operation(TRANSCRIPTION_FIELDS)
TRANSLATIONS_OPERATION = _operation(FIELDS)

MODELS_RESPONSES: Responses = {
    200: {
        "description": "All of them.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["object", "data"],
                    "properties": {
                        "object": {"type": "string", "const": "list"},
                        "data": {"type": "array", "items": {"$ref": f"{REF}Model"}},
                    },
                }
            }
        },
    },
    **_errors(401),
}
MODEL_RESPONSES: Responses = {
    200: {
        "description": "It is served.",
        "content": {"application/json": {"schema": {"$ref": f"{REF}Model"}}},
    },
    **_errors(401, 404),
}


def openai_schemas() -> dict[str, JsonSchema]:
    """What `$ref` in this module points to, beside the schemas of `openapi.py`."""
    return {"Transcription": _TRANSCRIPTION, "OpenAIError": _ERROR, "Model": _MODEL}
